/* Subscriptions of one integration that fail for good: the first ones are said one by one, the others are
 * counted and told together, so that an institution that refuses a night's work fills no journal.
 *
 * Pure: no log, no clock; one thread at a time. Times are monotonic, in microseconds. A zeroed one has seen
 * no failure. */
#pragma once

#include "base/util.h"

struct failures {
    int said;             /* one by one */
    uint64_t last;        /* the last failure */
    uint64_t counted;     /* that were not said yet */
    uint64_t held;        /* of these, for a person: they have not failed */
    uint64_t since;       /* the first of these */
    uint64_t until;       /* when they are to be told */
    uint64_t window_usec; /* how long the last ones were counted: doubles while it goes on */
};

/* One has failed, or is held. True: it is to be said by itself; else it was counted. */
bool failures_add(struct failures *f, bool held, uint64_t now_usec);
/* When those that were counted are to be told; USEC_INFINITY = there are none. */
uint64_t failures_until(const struct failures *f);
/* True when it is time to tell; *ret is what was counted. */
bool failures_take(struct failures *f, uint64_t now_usec, struct failures *ret);
