/* What time brings to confirmations: those that were to come by now are overdue, and held subscriptions are
 * settled by words that came before, or that a consumer left, because somebody had the row locked or a rule
 * of the application refused the change of one.
 *
 * On the monitor's thread and session, in batches, each a transaction of its own. */
#pragma once

#include "base/trouble.h"
#include "pg/pg.h"

struct sweeper {
    int64_t id;             /* up to here held subscriptions were looked at; 0 = all of them are to be */
    uint64_t again_at;      /* monotonic: when those that were refused are tried again */
    bool has_refused;       /* since the look began with the first */
    struct trouble refused; /* the database refuses to settle one of them */
};

/* Looks at one batch of each. Returns when to call it again, in microseconds from now. */
uint64_t sweeper_run(struct sweeper *s, struct pg *pg);
