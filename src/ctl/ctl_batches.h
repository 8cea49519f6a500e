/* Work on subscriptions by hand, in transactions that are short enough for nobody to wait for their locks. */
#pragma once

#include "ctl/ctl.h"
#include "pg/pg_halves.h"

#define CTL_BATCH 500

bool ctl_is_stopped(const struct ctl *c); /* SIGINT or SIGTERM has come */

/* Calls `work` with at most CTL_BATCH of them at a time; a signal ends it between two calls. One that a rule
 * or a trigger of the application refuses is named in `refused`, and keeps no other back. PG_DONE, or the
 * first outcome that blames no row. */
int ctl_in_batches(struct ctl *c, struct pg *pg, const int64_t *ids, size_t count, pg_rows_work work,
                   void *userdata, struct sentences *refused);
