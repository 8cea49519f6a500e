/* The topics that the relay publishes to: are they there, with how many partitions, since which ledger id?
 *
 * An event's partition never changes, also when the event is published again after somebody added partitions:
 * the table relay_topics holds the count that a topic had for each ledger id. On the relay's thread. */
#pragma once

#include "kafka/kafka_producer.h"
#include "pg/pg.h"
#include "relay/event.h"

/* The topics of events, then those of other messages. */
#define RELAY_TOPICS (EVENT_TYPES + 5)

struct relay_topic {
    char *name;
    struct relay_partitions {
        int64_t from_sequence;
        int count;
    } * counts; /* ascending */
    size_t counts_len;
    int actual; /* what the brokers said last, 0 = missing, or KAFKA_FORBIDDEN */
};

struct relay_topics {
    struct relay_topic items[RELAY_TOPICS];
};

void relay_topics_init(struct relay_topics *t, const char *prefix);
void relay_topics_free(struct relay_topics *t); /* legal on a zeroed one */
/* Loads the counts from the database. 0, or an error of pg_query(). */
int relay_topics_load(struct relay_topics *t, struct pg *pg, struct error *err);

enum {
    RELAY_TOPICS_READY = 0,
    RELAY_TOPICS_MISSING,   /* *err names the topic, and why it is not created */
    RELAY_TOPICS_NOT_YET,   /* *err names the topic, which was created a moment ago */
    RELAY_TOPICS_FORBIDDEN, /* *err names the topic, and what helps */
    RELAY_TOPICS_NO_KAFKA,  /* no answer */
};
/* Asks the brokers, creates missing topics (when the configuration allows it), and saves new partition
 * counts: they hold for ids yet to be drawn. Waits for seconds at most. An outcome from above, or an error of
 * pg_query(). */
int relay_topics_look(struct relay_topics *t, struct kafka_producer *producer, struct pg *pg,
                      const struct config *config, struct error *err);

int32_t relay_topics_partition(const struct relay_topics *t, enum event_type type, int64_t sequence,
                               struct bytes key);
