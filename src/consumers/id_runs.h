/* Ids that lie side by side, as those of a batch do: runs of them, so that the rows between a run's ends are
 * read at once instead of each being looked up.
 *
 * What is told of each id goes to the database in arrays without holes: an id's place there is that of its
 * run and its distance from the run's first id. Pure. */
#pragma once

#include "pg/pg.h"

struct id_run {
    int64_t first, last;
    int64_t place; /* of `first` in the arrays, from 0 on */
};

struct id_runs {
    struct id_run *items; /* ascending */
    size_t count;
    size_t *places; /* of each id, in the order in which they were given */
    size_t width;   /* all places: also of ids between, which nobody has given */
    bool twice;     /* an id was given twice: both have the same place */
};

/* `first` is the id in the first of `count` structs, at least one, of `stride` bytes. */
void id_runs_make(struct id_runs *ret, const int64_t *first, size_t stride, size_t count);
void id_runs_free(struct id_runs *r);

/* Five parameters: bigint[] first ids, bigint[] last ids, bigint[] places; bigint the lowest id of all,
 * bigint the highest. */
void id_runs_args(const struct id_runs *r, struct pg_args *args);
/* bytea, a byte for each place: 1 = given. */
void id_runs_given_arg(const struct id_runs *r, size_t count, struct pg_args *args);
