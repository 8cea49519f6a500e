/* From a ledger row to its Kafka message: topic, key, headers, value (event.schema.json).
 *
 * Pure. The view subscription_event_messages shows the same message, equal as JSON. */
#pragma once

#include "base/strbuf.h"
#include "kafka/event_types.h"
#include "kafka/kafka_header.h"

struct event_number {
    bool set; /* false = NULL */
    int64_t value;
};

/* A ledger row. Times are microseconds since 1970. */
struct event {
    int64_t id;
    const unsigned char *event_id; /* of 16 bytes; NULL = absent */
    struct bytes event_type, traceparent;
    int64_t created_at;
    struct event_subscription {
        struct event_number id, order_id;
        struct bytes origin, cpf, status;
        struct event_number sent_at, scheduled_to;
        int64_t created_at, updated_at;
    } subscription;
    struct event_integration {
        struct event_number id;
        struct bytes name, type; /* name absent = there is no such integration */
    } integration;
    /* Of delivery to the institution. */
    struct event_attempt {
        struct event_number number;
        struct bytes response;
        bool response_truncated;
        struct bytes error_message;
        struct event_number ambiguous; /* 0 or 1 */
        struct event_number next_attempt_at;
    } attempt;
};

#define EVENT_HEADERS_MAX 12

struct event_message {
    enum event_type type;
    struct bytes key, value;
    struct kafka_header headers[EVENT_HEADERS_MAX];
    size_t header_count;
};

/* Holds the bytes of one message at a time. */
struct event_builder {
    unsigned char name_space[16]; /* the installation: trace ids are derived from it */
    char installation[40];        /* the same, in text */
    struct ids *ids;
    size_t value_max; /* Kafka's limit; an answer that would not fit is shortened */
    struct strbuf value;
    char event_id[40], key[24], sequence[24], integration_id[24], attempt[24], timestamp[40], traceparent[56];
};

void event_builder_init(struct event_builder *b, const unsigned char name_space[16], size_t value_max);
void event_builder_free(struct event_builder *b); /* legal on a zeroed one */

/* False when the row is not an event (an adopted application wrote a note of its own) and does not go to
 * Kafka. *ret points into the row and the builder, and is valid until the next call. */
bool event_build(struct event_builder *b, const struct event *e, struct event_message *ret);
