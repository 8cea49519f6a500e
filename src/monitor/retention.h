/* Lets go what is older than the group "retention" of the configuration keeps: partitions of the ledger that
 * nobody needs any more, and dead letters.
 *
 * On the monitor's thread and session. Of several daemons the one that has the lock does it. A look at a
 * partition goes over some of its ids in each call, so that the monitor's other work is not kept. */
#pragma once

#include "base/backoff.h"
#include "base/trouble.h"
#include "config/config.h"
#include "pg/pg.h"

struct retention {
    bool leads;                  /* this session has the lock */
    int64_t checked;             /* the oldest partition was looked at up to this id */
    struct backoff backoff;      /* zeroed: not in use */
    char *waits;                 /* what was said last of why a partition stays; NULL = nothing */
    struct trouble unable;       /* the database refuses */
    struct trouble unable_there; /* the same of dead letters */
};

/* Returns when to call it again, in microseconds from now. */
uint64_t retention_run(struct retention *r, struct pg *pg, const struct config *config);
void retention_free(struct retention *r); /* what it holds; legal on a zeroed one */
