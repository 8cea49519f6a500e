/* Results that wait to be stored. See settlements.h. */
#include "delivery/settlements.h"

#include <stdlib.h>

void settlement_free(struct store_settlement *item)
{
    free(item->error);
    free(item->response);
    free(item);
}

void settlements_add(struct settlements *s, struct store_settlement *item)
{
    if (s->count == s->capacity) {
        s->capacity = s->capacity ? 2 * s->capacity : 512;
        s->data = xreallocarray(s->data, s->capacity, sizeof(*s->data));
    }
    s->data[s->count++] = item;
}

void settlements_free(struct settlements *s)
{
    for (size_t i = 0; i < s->count; i++)
        settlement_free(s->data[i]);
    free(s->data);
}
