/* Checkpoints of the audit log. */
#pragma once

#include "pg/pg.h"

struct checkpoint {
    bool is_new;     /* it was written; else the last one says the same */
    int64_t leaves;  /* of all trees */
    char digest[65]; /* the note's SHA-256 in hexadecimal digits; "" = there are no trees */
    char *signed_by; /* the public key, see crypto/note_key.h; NULL = it is not signed */
};
void checkpoint_done(struct checkpoint *c); /* frees what it holds; for CLEANUP, too */

/* Writes what the trees are, unless the last checkpoint says the same; of those before the last hour one an
 * hour stays. `signing_key` is PEM that was found to be right, "" = it is not signed. PG_DONE or an error of
 * pg_query(). */
int checkpoint_write(struct pg *pg, const char *signing_key, struct checkpoint *ret, struct error *err);
