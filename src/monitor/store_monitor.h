/* The monitor's statements. */
#pragma once

#include "pg/pg.h"

/* $1: the daemon's name. Column 0: it is this session's alone from now on, until the session ends. */
extern const struct pg_statement store_take_name;
extern const struct pg_statement store_extend_ledger; /* partitions made, in column 0 */

/* Counts stop at this many: a backlog of a million is not counted to the end every few seconds. */
#define STORE_BACKLOG_MAX 10000
/* Columns: waiting, unrouted, ids of the ledger not yet published, and what stops the relay
 * (text or NULL). */
extern const struct pg_statement store_backlog;
