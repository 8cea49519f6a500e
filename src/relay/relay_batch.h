/* One batch on its way from the ledger to Kafka: rows that are read together, and saved as published
 * together.
 *
 * On the relay's thread. A batch ends only when Kafka has confirmed every row; rows that were not delivered
 * are sent again, in order. */
#pragma once

#include "kafka/kafka_producer.h"
#include "relay/gaps.h"
#include "relay/relay_names.h"
#include "relay/relay_topics.h"
#include "relay/store_relay.h"

struct relay_batch {
    struct pg_result *result;        /* NULL = no batch */
    const struct relay_names *names; /* of the rows' integrations; the owner's */
    int64_t wal_position;            /* behind the commit of each row, 0 = not known */
    unsigned char *states;           /* by row of the result */
    int rows, next;                  /* rows before `next` were handed to the producer or need not be */
    size_t on_the_way;
    size_t delivered; /* so far */
    bool full;        /* the ledger may have more rows now */
    bool within_gaps; /* and some of them lie within the gaps */
    /* The first row that could not be delivered, 0 = none. */
    int failed_row;
    enum kafka_fate failed_fate;
    struct error failed_reason;
};

/* Takes the result of store_relay_read() with this limit and changes the gaps; limit 0: of
 * store_relay_read_ids(). The caller sets `names` before rows are sent. -EBADMSG with *err
 * when the result makes no sense. */
int relay_batch_take(struct relay_batch *b, struct pg_result *result, struct gaps *gaps, int limit,
                     struct error *err);
void relay_batch_free(struct relay_batch *b); /* leaves it empty; legal on a zeroed one */
bool relay_batch_has_rows(const struct relay_batch *b);
/* Hands rows to the producer until its queue is full, a row is refused, or all rows are there; then they go
 * out without waiting for more. */
void relay_batch_send(struct relay_batch *b, struct event_builder *builder, const struct relay_topics *topics,
                      struct kafka_producer *producer);
/* The producer's reports: kafka_report with the batch as userdata. */
void relay_batch_report(size_t number, enum kafka_fate fate, const char *reason, void *userdata);
/* The producer is broken: rows without a report count as not delivered. */
void relay_batch_fail(struct relay_batch *b, const char *reason);
/* The row as an event, with the name of its integration. */
void relay_batch_event(const struct relay_batch *b, int row, struct event *ret);
int64_t relay_batch_id(const struct relay_batch *b, int row);
bool relay_batch_is_done(const struct relay_batch *b);
/* The producer is gone, with its messages: rows that were on their way will be sent again. */
void relay_batch_rewind(struct relay_batch *b);
