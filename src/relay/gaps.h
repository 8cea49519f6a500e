/* Which ledger ids have been published: all up to `high`, but those in the gaps.
 *
 * Ids are drawn before their transactions commit, so a row may become visible after rows with higher ids.
 * Each read therefore asks for the rows above `high` and for those within the gaps; ids in between that it
 * does not show become new gaps. A gap ends when its rows are found, or when it is given up because no
 * transaction that could still fill it is left:
 *
 *   - After the statement that first showed the gap, a transaction id is taken: its horizon. Whoever drew an
 * id in the gap had a transaction id before (the ledger sees to it), and hence a lower one.
 *   - When a later statement that also looks into the gap has a snapshot whose xmin is not below the horizon,
 * all those transactions are over and that very snapshot shows what they left. What it does not show never
 * comes.
 *
 * An xmax of an earlier snapshot is no horizon: it is the highest completed id plus one, and running
 * transactions may have higher ones.
 *
 * Pure: no database, no clock; one thread at a time. */
#pragma once

#include "base/util.h"

struct gap {
    int64_t first, last; /* inclusive */
    int64_t horizon;     /* a transaction id; 0 = not stamped yet */
};

struct gaps {
    int64_t high;
    struct gap *items; /* ascending, disjoint, all at or below high */
    size_t count, capacity;
};

/* What one statement showed, all of it under one snapshot. */
struct gaps_read {
    int64_t xmin;
    int64_t probed_through;       /* the gaps were looked into up to this id; INT64_MAX = all of them */
    const int64_t *found, *above; /* visible ids within the gaps, and above high; ascending */
    size_t found_count, above_count;
};

void gaps_free(struct gaps *g); /* leaves an empty one with high 0 */
/* From the database; 0 or -EINVAL when these are no such ranges. */
int gaps_load(struct gaps *g, int64_t high, const int64_t *first, const int64_t *last, const int64_t *horizon,
              size_t count);

/* Takes a read over: found rows leave their gaps, gaps are given up, rows above open new gaps. The rows are
 * to be published before the result is saved. Rows above high must not be passed unless all gaps were probed:
 * a row found later could belong to the same subscription as one of those, and would come after it. 0, or
 * -EINVAL when the ids do not fit (nothing is changed then). */
int gaps_take(struct gaps *g, const struct gaps_read *read);

bool gaps_need_horizon(const struct gaps *g); /* some are not stamped */
/* `xid` was taken by a statement after the one that first showed the unstamped gaps. */
void gaps_stamp(struct gaps *g, int64_t xid);
/* Forgets all horizons: transaction ids count anew in a restored database. */
void gaps_unstamp(struct gaps *g);
