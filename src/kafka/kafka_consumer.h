/* One member of a Kafka consumer group: messages, partitions that come and go, offsets. No policy.
 *
 * One thread at a time.
 *
 * A partition that the group assigns is not read at once: the caller owns it from KAFKA_ASSIGNED to
 * KAFKA_REVOKED, and between these starts it at an offset of his own, and parks it, as often as he likes.
 * Neither costs the membership. So a caller who cannot work (the database is away) parks everything, goes on
 * polling, and later starts again where his database says. No message from before a parking is handed out
 * after it. */
#pragma once

#include "config/config.h"
#include "kafka/kafka_header.h"

struct kafka_consumer;

struct kafka_consumer_params {
    const struct config *config;
    const char *group;         /* the full group id */
    const char *const *topics; /* full names, NULL at the end */
    const char *instance;      /* group.instance.id (static membership), NULL = none */
};

/* Joins the group in the background. 0, or -EINVAL with *err: librdkafka refuses a property. */
int kafka_consumer_new(struct kafka_consumer **ret, const struct kafka_consumer_params *params,
                       struct error *err);
/* Leaves the group (a static member does not: it may come back) within seconds. Messages that were kept must
 * be freed first. NULL is legal. */
void kafka_consumer_free(struct kafka_consumer *k);

struct kafka_partition {
    const char *topic;
    int32_t partition;
    int64_t offset; /* where to start, or what is committed; unused elsewhere */
};

#define KAFKA_HEADERS_MAX 64

/* A view: nothing in it is a copy. */
struct kafka_message {
    const char *topic;
    int32_t partition;
    int64_t offset;
    int64_t written_at; /* microseconds since 1970, by its producer's clock or the broker's; 0 = not told */
    struct bytes key, value;
    size_t header_count; /* headers after the first KAFKA_HEADERS_MAX are left out */
    struct kafka_header headers[KAFKA_HEADERS_MAX];
};

enum kafka_poll_result {
    KAFKA_NOTHING,
    KAFKA_MESSAGE,
    KAFKA_ASSIGNED,     /* `partitions` are ours now, parked */
    KAFKA_REVOKED,      /* `partitions` are to go: finish, then park those that were started at once */
    KAFKA_OUT_OF_RANGE, /* partitions[0]: the log does not have that offset (any more, or yet): park it */
    KAFKA_NO_TOPIC,     /* a topic of ours does not exist (yet): see kafka_consumer_look() */
    KAFKA_DENIED,       /* we may not read partitions[0].topic, or, with a count of 0, not use the group */
    KAFKA_NO_PARTITION, /* partitions[0] is there no more: its topic was made anew */
    KAFKA_UNREADABLE,   /* what comes next in partitions[0] cannot be unpacked, or is damaged: see `error` */
    KAFKA_TROUBLE,      /* see `error`; the library tries again by itself */
    KAFKA_AWAY,         /* no broker can be reached; the library tries again by itself */
    KAFKA_FATAL,        /* this member cannot go on (fenced …): free it, make a new one */
};

/* What a poll found. Lives until the next poll. */
struct kafka_poll {
    struct kafka_message message;
    struct kafka_partition *partitions;
    size_t count;
    bool lost; /* KAFKA_REVOKED: others may have them already */
    struct error error;
};

/* Waits up to timeout_ms for one thing to happen. To be called at least every few minutes, or the group gives
 * our partitions away (max.poll.interval.ms). */
enum kafka_poll_result kafka_consumer_poll(struct kafka_consumer *k, int timeout_ms, struct kafka_poll *ret);

/* Keeps the message of the last poll beyond the next one. The caller frees it. */
struct kafka_kept;
struct kafka_kept *kafka_consumer_keep(struct kafka_consumer *k);
void kafka_kept_view(const struct kafka_kept *kept, struct kafka_message *ret);
void kafka_kept_free(struct kafka_kept *kept); /* NULL is legal */

/* Partitions that are assigned and parked. 0 or -EIO with *err. */
int kafka_consumer_start(struct kafka_consumer *k, const struct kafka_partition *partitions, size_t count,
                         struct error *err);
/* Partitions that were started. Also the answer to KAFKA_REVOKED, with a count of 0, too: the group waits for
 * it. */
void kafka_consumer_park(struct kafka_consumer *k, const struct kafka_partition *partitions, size_t count);

/* Commits offsets to Kafka, for tools that show lag. Nobody waits for the answer. */
void kafka_consumer_commit(struct kafka_consumer *k, const struct kafka_partition *partitions, size_t count);
/* Commits the offset of one partition, and waits up to timeout_ms: does Kafka take it? */
bool kafka_consumer_may_commit(struct kafka_consumer *k, const struct kafka_partition *partition,
                               int timeout_ms);

/* The offsets that the broker has: the first, and the end behind the last. Waits up to timeout_ms. 0 or -EIO
 * with *err. */
int kafka_consumer_range(struct kafka_consumer *k, const char *topic, int32_t partition, int timeout_ms,
                         int64_t *ret_first, int64_t *ret_end, struct error *err);
/* The same of many, with few round trips: see kafka_ends_ask_all(). */
int kafka_consumer_ranges(struct kafka_consumer *k, struct kafka_partition *firsts,
                          struct kafka_partition *ends, size_t count, int timeout_ms, struct error *err);
/* The end of a partition that is read, open transactions included, as the broker's last answer told it; does
 * not ask. -1 = not known. */
int64_t kafka_consumer_seen_end(struct kafka_consumer *k, const char *topic, int32_t partition);
/* Fills in the group's committed offsets, -1 = no offset. Waits up to timeout_ms. 0 or -EIO with *err. */
int kafka_consumer_committed(struct kafka_consumer *k, struct kafka_partition *partitions, size_t count,
                             int timeout_ms, struct error *err);
/* Looks whether a broker answers and how many of our topics it does not have; makes the library take notice
 * of new ones at once. Waits up to timeout_ms. 0 or -EIO with *err. */
int kafka_consumer_look(struct kafka_consumer *k, int timeout_ms, size_t *ret_missing, struct error *err);
/* How many partitions a topic has. Waits up to timeout_ms. 0 or -EIO with *err. */
int kafka_consumer_partitions(struct kafka_consumer *k, const char *topic, int timeout_ms, int *ret,
                              struct error *err);
/* Has the group's coordinator taken us as a member? */
bool kafka_consumer_is_member(struct kafka_consumer *k);
/* Members of our group that are not ours: with another client.id, which are other programs, or with other
 * topics, which are anubisd for another database. */
#define KAFKA_ALIKE_MAX 16
struct kafka_strangers {
    size_t count;
    bool unlisted; /* the group is there, and shows no member, us included: another protocol has it */
    char client[64], host[64], topic[128]; /* of the first one; topic: one that it reads, "" = not known */
    /* Static members that look like ours, this one included: their names, at most so many. Whose they are,
     * the database knows. */
    char alike[KAFKA_ALIKE_MAX][128];
    size_t alike_count;
};
enum { KAFKA_NO_ANSWER_YET = 1 };
/* topics: ours, ends with NULL. Does not wait: 0, KAFKA_NO_ANSWER_YET, which is to be called again, or -EIO
 * with *err. */
int kafka_consumer_strangers(struct kafka_consumer *k, const char *const *topics, struct kafka_strangers *ret,
                             struct error *err);
enum { KAFKA_NOT_KNOWN = -1 };
/* To how many of the group's members, as the look above has found them, this partition is given: 0, 1, or not
 * known. */
int kafka_consumer_given(const struct kafka_consumer *k, const char *topic, int32_t partition);
