/* Checkpoints of the audit log. */
#pragma once

#include "pg/pg.h"

/* Writes what the trees are, unless the last checkpoint says the same; of those before the last hour one an
 * hour stays. *ret_leaves = -1 when nothing was written; else all leaves, and `ret_digest` gets the note's
 * SHA-256 in hexadecimal digits. PG_DONE or an error of pg_query(). */
int checkpoint_write(struct pg *pg, int64_t *ret_leaves, char ret_digest[65], struct error *err);
