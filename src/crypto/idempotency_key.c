/* The Idempotency-Key of a request. See idempotency_key.h. */
#include "crypto/idempotency_key.h"

#include <inttypes.h>
#include <stdio.h>

#define NAME_MAX_LEN 64

void idempotency_key_derive(struct ids *ids, const struct idempotency_message *m, char ret[IDS_UUID_TEXT])
{
    char name[NAME_MAX_LEN];
    int len = snprintf(name, sizeof(name), "%" PRId64 ":%s:", m->subscription_id, m->seed);

    if (len <= 0 || len >= NAME_MAX_LEN)
        abort();
    ids_uuid(ids, m->name_space, (struct bytes){name, (size_t) len}, m->payload, ret);
}
