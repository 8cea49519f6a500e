/* How many more requests there may be, and whom they are for. See delivery.h. */
#include "delivery/delivery_internal.h"

int deliveries_free_slots(const struct deliveries *d, size_t unsettled, bool *ret_reserve)
{
    int64_t max = d->config->delivery.max_in_flight, unreserved = max - max / 4;
    int64_t held = (int64_t) d->count + MAX((int64_t) unsettled - max, 0);

    *ret_reserve = held >= unreserved;
    return (int) MIN(MAX((*ret_reserve ? max : unreserved) - held, 0), d->config->delivery.batch_size);
}

bool deliveries_are_congested(const struct deliveries *d)
{
    return http_is_congested(d->http);
}

size_t deliveries_ready_places(struct deliveries *d, const struct store_place **ret)
{
    return integrations_ready_places(d->integrations, d->http, ret);
}
