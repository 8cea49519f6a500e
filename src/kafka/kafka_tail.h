/* The newest messages of topics, without a group: what was written last, and before that? No policy.
 *
 * One thread at a time. */
#pragma once

#include "config/config.h"
#include "kafka/kafka_header.h"

struct kafka_tail;

struct kafka_tail_topic {
    const char *name;
    int partitions;
    const int64_t *known_until; /* of each: nothing before this offset is wanted, -1 = not known; or NULL */
};

/* Begins to read the last messages of each partition. From there it goes back in ever longer stretches, until
 * it comes to what is known, or the caller has had enough of the partition, or the partition begins; where
 * nothing is known, or nobody vouches for it (kafka_tail_vouch()), also until all of a stretch was written
 * before `since_usec`. Open transactions of others hide nothing, and what is written meanwhile keeps nobody.
 * 0, or -EINVAL with *err: librdkafka refuses a property. */
int kafka_tail_new(struct kafka_tail **ret, const struct config *config,
                   const struct kafka_tail_topic *topics, size_t count, int64_t since_usec,
                   struct error *err);
void kafka_tail_free(struct kafka_tail *t); /* NULL is legal */

enum kafka_tail_result {
    KAFKA_TAIL_MESSAGE,   /* see kafka_tail_at() */
    KAFKA_TAIL_NOTHING,   /* nothing came yet */
    KAFKA_TAIL_REFUSED,   /* *err says why a partition or a broker does not answer; it is asked again */
    KAFKA_TAIL_NO_BROKER, /* the same, of all brokers */
    KAFKA_TAIL_GONE,      /* the brokers know no such partition; it is awaited unless kafka_tail_enough() */
    KAFKA_TAIL_END,       /* all that is wanted has come from every partition */
};
/* Waits up to timeout_ms, and a second more for a broker that does not answer, for one thing. */
enum kafka_tail_result kafka_tail_next(struct kafka_tail *t, int timeout_ms, struct error *err);

/* Where the message that came last stands, or which partition is gone. Lives until the next call. */
struct kafka_tail_place {
    const char *topic;
    int partition;
    int64_t offset;
    int64_t time_usec; /* of the message itself; below 0 = it has none */
    bool known;        /* of the partition an offset is known before which nothing is wanted */
};
void kafka_tail_at(const struct kafka_tail *t, struct kafka_tail_place *ret);
/* A header of the message that came last; absent when it has none of that name. Lives until the next call. */
struct bytes kafka_tail_header(const struct kafka_tail *t, const char *name);
/* The time of the message that came last says nothing about others. */
void kafka_tail_distrust(struct kafka_tail *t);
/* The caller knows the message that came last. Only a partition with such a message before the offset that is
 * known is the one in which it is known: a topic may have been made anew. */
void kafka_tail_vouch(struct kafka_tail *t);
/* Nothing further back is wanted of this partition. */
void kafka_tail_enough(struct kafka_tail *t);
/* How many partitions have not answered to the end; of one of these, topic and partition. */
size_t kafka_tail_awaits(const struct kafka_tail *t, struct kafka_tail_place *ret);
