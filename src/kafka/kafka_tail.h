/* The newest messages of topics, without a group: what was written last? No policy.
 *
 * One thread at a time. */
#pragma once

#include "config/config.h"
#include "kafka/kafka_header.h"

struct kafka_tail;

struct kafka_tail_topic {
    const char *name;
    int partitions;
};

/* Begins to read the last `messages` messages of each partition. 0, or -EINVAL with *err: librdkafka refuses
 * a property. */
int kafka_tail_new(struct kafka_tail **ret, const struct config *config,
                   const struct kafka_tail_topic *topics, size_t count, int messages, struct error *err);
void kafka_tail_free(struct kafka_tail *t); /* NULL is legal */

enum kafka_tail_result {
    KAFKA_TAIL_MESSAGE, /* see kafka_tail_header() */
    KAFKA_TAIL_NOTHING, /* nothing came yet */
    KAFKA_TAIL_REFUSED, /* one partition cannot be read, *err says why; the others go on */
    KAFKA_TAIL_END,     /* all that there was has come */
};
/* Waits up to timeout_ms for one thing. */
enum kafka_tail_result kafka_tail_next(struct kafka_tail *t, int timeout_ms, struct error *err);
/* A header of the message that came last; absent when it has none of that name. Lives until the next call. */
struct bytes kafka_tail_header(const struct kafka_tail *t, const char *name);
