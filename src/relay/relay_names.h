/* Names and types of integrations, for the events of a batch.
 *
 * All of them are asked for anew when a batch needs one that is not there, or when they are a second old. So
 * an event shows its integration as it was at most a second before its batch was read. A batch that waits
 * for Kafka keeps the names that it was read with.
 *
 * On the relay's thread. Holds a batch's integrations, and up to RELAY_NAMES_KEPT of those before it. */
#pragma once

#include "pg/pg.h"
#include "relay/event.h"

#define RELAY_NAMES_KEPT 1000

struct relay_names {
    struct pg_result *result; /* of store_relay_names(); NULL = none were asked for */
    int64_t *asked;           /* ascending; those that do not exist are not in the result */
    size_t asked_count;
    uint64_t read_at; /* monotonic */
};

void relay_names_free(struct relay_names *n); /* leaves it empty; legal on a zeroed one */
/* Makes sure that the integrations of the rows of a store_relay_read(), before row `end`, are there. 0, or
 * an error of pg_query(). */
int relay_names_ask(struct relay_names *n, struct pg *pg, const struct pg_result *rows, int end,
                    uint64_t now_usec, struct error *err);
/* Name and type of the integration with i->id; without such an integration they stay as they are. They live
 * until the next call of relay_names_ask(). */
void relay_names_find(const struct relay_names *n, struct event_integration *i);
