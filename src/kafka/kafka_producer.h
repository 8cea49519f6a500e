/* An idempotent Kafka producer for a fixed list of topics: messages out, delivery reports back. No policy.
 *
 * One thread at a time.
 *
 * No message is dropped or times out: a message is on its way until its report comes, however long the
 * brokers are away. Messages of one partition arrive in the order in which they were sent. When Kafka refuses
 * a message, no later message of its partition arrives: the producer is broken then (KAFKA_BROKEN), and the
 * caller goes on with a new one. */
#pragma once

#include "config/config.h"
#include "kafka/kafka_header.h"

struct kafka_producer;

/* `topics` are full names; messages name them by their index. `batch_bytes`: messages are sent to a partition
 * together up to this size, 1 = each alone, 0 = as the configuration says. 0, or -EINVAL with *err:
 * librdkafka refuses a property. */
int kafka_producer_new(struct kafka_producer **ret, const struct config *config, const char *const *topics,
                       size_t count, size_t batch_bytes, struct error *err);
/* Drops messages that are on their way, without waiting and without reports. NULL is legal. */
void kafka_producer_free(struct kafka_producer *p);
/* The largest message that the client takes: key, value and headers together. */
size_t kafka_producer_message_max(const struct kafka_producer *p);

#define KAFKA_FORBIDDEN (-1)
/* A connection has failed, and the next words about Kafka tell why. */
bool kafka_producer_knows_why(const struct kafka_producer *p);
/* Asks the brokers how many partitions each topic has; 0 = there is no such topic, KAFKA_FORBIDDEN = we may
 * not see it. Waits up to timeout_ms. 0, or -EIO with *err. */
int kafka_producer_look(struct kafka_producer *p, int timeout_ms, int *ret_partitions, struct error *err);
enum {
    KAFKA_LEADERLESS = 1, /* messages to such a partition wait; *err names one, and how many there are */
};
/* Asks the brokers for partitions that no broker leads. Waits up to timeout_ms. 0 = each has a leader: then
 * *err tells of copies that are not in sync, "" = all are; or the outcome above, or -EIO with *err. */
int kafka_producer_leaders(struct kafka_producer *p, int timeout_ms, struct error *err);
enum {
    KAFKA_TOPIC_REFUSED = 1, /* the topic cannot be created; *err says why */
};
/* Creates a topic; replication_factor 0 = the broker's default. Waits up to timeout_ms. 0 = the topic is
 * there now, or an outcome from above, or -EIO with *err: no answer. */
int kafka_producer_create_topic(struct kafka_producer *p, size_t topic, int partitions,
                                int replication_factor, int timeout_ms, struct error *err);
/* Of the first topics: which have a cleanup.policy that compacts them. False where the broker does not tell.
 * 0, or negative with *err when nobody answered. */
int kafka_producer_compacts(struct kafka_producer *p, size_t count, int timeout_ms, bool *ret,
                            struct error *err);

/* The partition of a key: CRC32 modulo the count, as librdkafka's partitioner "consistent". */
int32_t kafka_partition(struct bytes key, int32_t count);

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
    KAFKA_REFUSED,  /* as long as the brokers' settings stay: too large, not allowed … */
    KAFKA_NO_PLACE, /* no such topic or partition (any more) */
    KAFKA_UNKNOWN,  /* not sent, or sent without an answer: it may arrive, and must be sent again */
};
/* `reason` is NULL for KAFKA_DELIVERED. */
typedef void kafka_report(size_t number, enum kafka_fate fate, const char *reason, void *userdata);

enum {
    KAFKA_QUEUED = 0,
    KAFKA_FULL = 1, /* poll, then try again */
    KAFKA_NOT_SENT, /* *ret_fate and *err say why */
};
/* Copies everything. */
int kafka_producer_send(struct kafka_producer *p, const struct kafka_outgoing *m, enum kafka_fate *ret_fate,
                        struct error *err);

/* Offsets of the messages that the brokers have taken in a partition. */
struct kafka_reached {
    int64_t next;  /* behind the last one since the producer began, 0 = there was none */
    int64_t first; /* of the first one since kafka_producer_forget_first(), -1 = there was none */
};
/* Of each partition of a topic. Lives until the next poll. */
const struct kafka_reached *kafka_producer_reached(const struct kafka_producer *p, size_t topic,
                                                   int *ret_partitions);
void kafka_producer_forget_first(struct kafka_producer *p);
/* How many partitions have one. */
size_t kafka_producer_places(const struct kafka_producer *p);

/* No message follows soon: those that wait for others (linger.ms) go out now. Waits a millisecond at most. */
void kafka_producer_flush(struct kafka_producer *p);

enum {
    KAFKA_QUIET = 0, /* reports at most */
    KAFKA_NO_BROKER, /* no broker can be reached, *err says why; the library tries again by itself */
    KAFKA_BROKEN,    /* a fatal error, see *err: messages without a report yet come back as KAFKA_UNKNOWN */
};
/* Waits up to timeout_ms and passes reports on; `report` NULL drops them. */
int kafka_producer_poll(struct kafka_producer *p, int timeout_ms, kafka_report *report, void *userdata,
                        struct error *err);
