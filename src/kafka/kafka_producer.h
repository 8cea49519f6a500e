/* An idempotent Kafka producer for a fixed list of topics: messages out, delivery reports back. No policy.
 *
 * One thread at a time. kafka*.c are the only files that include librdkafka.
 *
 * Nothing is dropped and nothing times out: a message is on its way until its report comes, however long the
 * brokers are away. Messages of one partition arrive in the order in which they were sent, and no message
 * arrives while one sent before it to the same partition was refused: the producer is done for then
 * (KAFKA_DONE_FOR), and the caller goes on with a new one. */
#pragma once

#include "config/config.h"
#include "kafka/kafka_header.h"

struct kafka_producer;

/* `topics` are full names; messages name them by their index. `batch_bytes`: messages are sent to a partition
 * together up to this size, 1 = each alone, 0 = as the configuration says. 0, or -EINVAL with *err: librdkafka
 * refuses a property. */
int kafka_producer_new(struct kafka_producer **ret, const struct config *config, const char *const *topics,
                       size_t count, size_t batch_bytes, struct error *err);
/* Drops what is on its way without waiting for it; nothing is reported any more. NULL is legal. */
void kafka_producer_free(struct kafka_producer *p);
/* The largest message that the client takes: key, value and headers together. */
size_t kafka_producer_message_max(const struct kafka_producer *p);

/* Asks the brokers how many partitions each topic has; 0 = there is no such topic, or we may not see it.
 * Waits up to timeout_ms. 0, or -EIO with *err. */
int kafka_producer_look(struct kafka_producer *p, int timeout_ms, int *ret_partitions, struct error *err);
/* Makes a topic, replication_factor 0 = as the broker likes. Waits up to timeout_ms. 0 = it is there now; 1 =
 * it cannot be made, *err says why; -EIO with *err: no answer. */
int kafka_producer_create_topic(struct kafka_producer *p, size_t topic, int partitions,
                                int replication_factor, int timeout_ms, struct error *err);

/* The partition of a key: CRC32 modulo the count, as librdkafka's partitioner "consistent". */
int32_t kafka_partition(const void *key, size_t len, int32_t count);

struct kafka_outgoing {
    size_t topic;
    int32_t partition;
    struct bytes key, value;
    const struct kafka_header *headers;
    size_t header_count;
    size_t number; /* comes back in the report */
};

enum kafka_fate {
    KAFKA_DELIVERED,
    KAFKA_REFUSED,  /* for good, as far as the brokers' present settings go: too large, not allowed … */
    KAFKA_NO_PLACE, /* no such topic or partition (any more) */
    KAFKA_UNKNOWN,  /* not sent, or sent without an answer: it may arrive, and has to be sent again */
};
/* `reason` is words for everything but KAFKA_DELIVERED. */
typedef void kafka_report(size_t number, enum kafka_fate fate, const char *reason, void *userdata);

enum {
    KAFKA_QUEUED = 0,
    KAFKA_FULL = 1, /* poll, then try again */
    KAFKA_NOT_SENT, /* *ret_fate and *err say why */
};
/* Copies everything. */
int kafka_producer_send(struct kafka_producer *p, const struct kafka_outgoing *m, enum kafka_fate *ret_fate,
                        struct error *err);

enum {
    KAFKA_QUIET = 0, /* nothing but reports, if any */
    KAFKA_NOBODY,    /* no broker can be reached; the library tries again by itself */
    KAFKA_DONE_FOR, /* a fatal error, *err says which: what is not reported yet comes back as KAFKA_UNKNOWN */
};
/* Waits up to timeout_ms for events and hands reports on. */
int kafka_producer_poll(struct kafka_producer *p, int timeout_ms, kafka_report *report, void *userdata,
                        struct error *err);
