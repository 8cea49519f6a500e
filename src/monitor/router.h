/* Gives subscriptions that wait without an integration to the filters that take them, after filters have
 * changed. An insert is routed by its own trigger; this is for those which no filter took then.
 *
 * On the monitor's thread and session. It goes through all unrouted rows in batches, each a transaction of
 * its own: at the start, when an enabled filter is another one than before, and now and then for what no
 * change of a filter tells, such as a row whose insert did not see the filter yet. */
#pragma once

#include "base/trouble.h"
#include "pg/pg.h"

struct router {
    char filters[33]; /* as the last pass found them; "" = there was none */
    bool under_way;   /* a pass */
    char *due;        /* where it is: the last row's time, as the database writes it, and id */
    int64_t id;
    int64_t routed, left_out; /* in this pass; left out because somebody has locked them */
    uint64_t busy_usec;       /* spent on those that no filter takes */
    uint64_t again_at;        /* monotonic: the next pass without a change of filters */
    struct trouble refused;   /* the database refuses to route one of them */
    struct trouble unable;    /* or any */
};

/* Looks, or routes one batch. Returns when to call it again, in microseconds from now. */
uint64_t router_run(struct router *r, struct pg *pg);
void router_free(struct router *r); /* what it holds; legal on a zeroed one */
