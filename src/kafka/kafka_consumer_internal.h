/* What the kafka_consumer*.c files share; nobody else includes it.
 *
 * kafka_consumer.c          joining and leaving the group; polling
 * kafka_consumer_offsets.c  starting and parking partitions; offsets
 * kafka_strangers.c         other members of the group */
#pragma once

#include <librdkafka/rdkafka.h>

#include "kafka/kafka_consumer.h"

/* The fetcher is woken when so much was read and the queue is empty. Less than queued.max.messages.kbytes in
 * kafka_conf.c: else a queue that was full would not count. */
#define KAFKA_WAKE_BYTES ((size_t) 1 << 19)

/* A partition that a member of the group has. */
struct kafka_given {
    char *topic;
    int32_t partition;
};

struct kafka_consumer {
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue;
    char **topics;
    size_t taken;            /* bytes handed out since the fetcher was woken */
    struct error refusal;    /* why the last connection could not be made, or was lost */
    rd_kafka_event_t *event; /* the last one polled: what was handed out points into it */
    const rd_kafka_message_t *message;
    struct kafka_partition *partitions;
    bool assigned;             /* at least once */
    struct kafka_look *look;   /* for other members, under way; NULL = none */
    struct kafka_given *given; /* of all members, as the last look found them */
    size_t given_count;
    bool members_known; /* that look has found them, and the group at rest */
};

/* False: it does not end, and uses the client still. */
bool kafka_consumer_end_look(struct kafka_consumer *k);
void kafka_consumer_forget_members(struct kafka_consumer *k);
