/* Rows that the database lets nobody change as we need it: a trigger of the application raises an error, a
 * constraint is in the way. One such row makes the whole statement fail, and must hold up no other.
 *
 * The search halves the statement's limit until the row at the head of the queue is refused by itself. It is
 * passed over from then on, for a while that doubles each time: we are not told when the cause is removed.
 * When row after row is refused, so that the cause is hardly in the rows, tries get rarer.
 *
 * Pure: no database, no clock; one thread at a time. Times are monotonic, in microseconds. */
#pragma once

#include "base/trouble.h"

#define REFUSED_WORDS_MAX 256
#define REFUSALS_MAX 1000 /* rows remembered; the one whose while ends first makes room */

struct refusal {
    int64_t id;
    uint64_t pause_usec, until;
};

struct refusals {
    struct refusal *rows;
    size_t count;
    int limit;                     /* of the search's next statement; 0 = no search */
    int in_row;                    /* rows refused since one was not */
    int64_t *ids;                  /* scratch of refusals_ids() */
    char words[REFUSED_WORDS_MAX]; /* of the last refusal, for the journal */
    struct trouble many;           /* more than are named */
};

void refusals_free(struct refusals *r); /* what it holds, not `r` */

/* The rows to ask for when `wanted` would do. */
int refusals_limit(const struct refusals *r, int wanted);
/* A statement for at most `limit` rows was refused. True: it was for one, which is the row at the head. */
bool refusals_narrow(struct refusals *r, int limit);
/* A statement for at most `limit` rows was not refused and gave `rows`. */
void refusals_widen(struct refusals *r, int limit, int rows);
/* To be passed over from now on; returns for how long. */
uint64_t refusals_add(struct refusals *r, int64_t id, uint64_t now);
/* What is to be passed over at this time; valid until the next call. */
size_t refusals_ids(struct refusals *r, uint64_t now, const int64_t **ret);
/* Before the next try of the search. */
uint64_t refusals_pause_usec(const struct refusals *r);
