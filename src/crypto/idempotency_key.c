/* The Idempotency-Key of a request. See idempotency_key.h. */
#include "crypto/idempotency_key.h"

#include "base/strbuf.h"

#define NAME_MAX_LEN 64

void idempotency_key_derive(struct ids *ids, const struct idempotency_message *m, char ret[IDS_UUID_TEXT])
{
    char text[NAME_MAX_LEN];
    struct strbuf name = {.data = text, .capacity = sizeof(text), .max = sizeof(text) - 1};

    /* Once for each request, so without printf. */
    strbuf_add_i64(&name, m->subscription_id);
    strbuf_addc(&name, ':');
    strbuf_adds(&name, m->seed);
    strbuf_addc(&name, ':');
    if (name.overflowed)
        abort();
    ids_uuid(ids, m->name_space, (struct bytes){name.data, name.len}, m->payload, ret);
}
