/* Integration status: events of type sent and failed are counted on their integrations. The pure part. */
#pragma once

#include "consumers/handler.h"

struct integration_delta {
    int64_t integration_id;
    int64_t sent, failed;
    int64_t sent_at; /* the last of them, in microseconds since 1970; 0 = none */
};

/* One delta for each integration, by ascending id; zeroed = empty. */
struct integration_deltas {
    struct integration_delta *items;
    size_t count, capacity;
};

/* Replaces what is there. Events without an integration, and of other types, count for nobody. */
void integration_deltas_collect(struct integration_deltas *d, const struct message_event *const *events,
                                size_t count);
void integration_deltas_free(struct integration_deltas *d); /* the items; legal on a zeroed one */

extern const struct handler handler_counters;
