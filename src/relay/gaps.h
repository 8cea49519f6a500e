/* Which ledger ids have been published: all up to `high`, except those in the gaps.
 *
 * Ids are drawn before their transactions commit, so a row may become visible after rows with higher ids.
 * Each read therefore asks for the rows above `high` and for the rows within the gaps; ids between them that
 * the read does not show become new gaps. A gap ends when its rows are found, or when no transaction that
 * could still fill it is left:
 *
 *   - After the statement that first showed the gap, we take a transaction id: the gap's horizon. A
 *     transaction that drew an id in the gap had its transaction id before (the ledger makes sure of this),
 *     so a lower one.
 *   - Later a statement looks into the gap with a snapshot whose xmin is not below the horizon. Then all
 *     those transactions are over, and this very snapshot shows their rows. A row that it does not show never
 *     comes.
 *
 * The xmax of an earlier snapshot cannot be the horizon: it is the highest completed id plus one, and running
 * transactions may have higher ids.
 *
 * Pure: no database, no clock; one thread at a time. */
#pragma once

#include "base/util.h"

struct gap {
    int64_t first, last; /* inclusive */
    int64_t horizon;     /* a transaction id; 0 = not stamped yet */
};

struct gap_notes {
    struct gap *items;
    size_t count, capacity;
};

struct gaps {
    int64_t high;
    struct gap *items; /* ascending, disjoint, all at or below high */
    size_t count, capacity;
    struct gap_notes passed;   /* given up since the last gaps_were_saved(): no event has these ids */
    struct gap_notes reopened; /* open again since then, see gaps_reopen() */
};

/* The rows that one statement showed, under one snapshot. */
struct gaps_read {
    int64_t xmin;
    int64_t probed_through;       /* the gaps were looked into up to this id; INT64_MAX = all of them */
    const int64_t *found, *above; /* visible ids within the gaps, and above high; ascending */
    size_t found_count, above_count;
    bool overtakes; /* no subscription of a row above has one left within the gaps */
};

void gaps_free(struct gaps *g); /* leaves an empty one with high 0 */
/* From the database. 0, or -EINVAL when the ranges make no sense. */
int gaps_load(struct gaps *g, int64_t high, const int64_t *first, const int64_t *last, const int64_t *horizon,
              size_t count);

/* Takes a read over: found rows leave their gaps, gaps end, rows above open new gaps. The caller publishes
 * the rows before he saves the result. Rows above high may only be passed when all gaps were probed: a row
 * found later in a gap could belong to the same subscription, and would come after the row above; or when the
 * caller has seen that there is none. 0, or -EINVAL when the ids do not fit (nothing is changed then). */
int gaps_take(struct gaps *g, const struct gaps_read *read);

/* Opens a range again that was given up: an event has one of its ids all the same, as happens when the
 * sequence is set back. False when it is above high, or a gap is open there: it is looked into anyway. */
bool gaps_reopen(struct gaps *g, int64_t first, int64_t last);
/* With passed and reopened. */
void gaps_were_saved(struct gaps *g);

bool gaps_need_horizon(const struct gaps *g); /* a gap is not stamped */
/* `xid` was taken by a statement after the one that first showed the unstamped gaps. */
void gaps_stamp(struct gaps *g, int64_t xid);
/* Forgets all horizons: transaction ids count anew in a restored database. */
void gaps_unstamp(struct gaps *g);
