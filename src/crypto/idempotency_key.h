/* The Idempotency-Key of a request: the same on every attempt of one row with one payload, unless the
 * integration's settings ask for another one (idempotency_turn). */
#pragma once

#include "crypto/ids.h"

/* What makes a message another one. An id alone does not: after a restore, the promotion of a standby that
 * lacks the end, or in a copy, it is given out again. */
struct idempotency_message {
    const unsigned char *name_space; /* see ids.h */
    int64_t subscription_id;
    const char *seed; /* the row's idempotency_seed, "+idempotency_turn" behind it; "" = none */
    struct bytes payload;
};
/* The UUID of "<subscription>:<seed>:<payload>". */
void idempotency_key_derive(struct ids *ids, const struct idempotency_message *message,
                            char ret[IDS_UUID_TEXT]);
