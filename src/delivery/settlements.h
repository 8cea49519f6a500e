/* Results that wait to be stored. See settler.h. */
#pragma once

#include "delivery/store_delivery.h"

struct settlements {
    struct store_settlement **data;
    size_t count, capacity;
};
/* Takes it over. */
void settlements_add(struct settlements *s, struct store_settlement *item);
void settlements_free(struct settlements *s);
void settlement_free(struct store_settlement *item);
