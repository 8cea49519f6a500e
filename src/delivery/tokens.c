/* Claim tokens. See tokens.h. */
#include "delivery/tokens.h"

void tokens_add(struct tokens *t, int64_t token)
{
    if (t->count > 0 && t->data[t->count - 1] == token)
        return;
    if (t->count == t->capacity) {
        t->capacity = t->capacity ? 2 * t->capacity : 64;
        t->data = xreallocarray(t->data, t->capacity, sizeof(*t->data));
    }
    t->data[t->count++] = token;
}

void tokens_free(struct tokens *t)
{
    free(t->data);
    *t = (struct tokens){0};
}
