/* The topics that the relay publishes to: there, with how many partitions, and since which ledger id.
 *
 * An event's partition never changes, also when it is published again after somebody added partitions: the
 * table relay_topics holds the count that a topic had for each ledger id. On the relay's thread. */
#pragma once

#include "kafka/kafka_producer.h"
#include "pg/pg.h"
#include "relay/event.h"

/* Those of events, then those that others than the ledger publish to. */
#define RELAY_TOPICS (EVENT_TYPES + 4)

struct relay_topic {
    char *name;
    struct relay_partitions {
        int64_t from_sequence;
        int count;
    } * counts; /* ascending */
    size_t counts_len;
    int actual; /* what the brokers said last, 0 = missing */
};

struct relay_topics {
    struct relay_topic items[RELAY_TOPICS];
};

void relay_topics_init(struct relay_topics *t, const char *prefix);
void relay_topics_free(struct relay_topics *t); /* legal on a zeroed one */
/* What the database knows. An outcome of pg_query(). */
int relay_topics_load(struct relay_topics *t, struct pg *pg, struct error *err);

enum {
    RELAY_TOPICS_READY = 0,
    RELAY_TOPICS_MISSING = 10, /* *err says which, and why it is not made */
    RELAY_TOPICS_NO_KAFKA,     /* no answer */
};
/* Asks the brokers, makes what is missing (when the configuration allows it) and writes new partition counts
 * down: they hold for ids yet to be drawn. Waits for seconds at most. An outcome from above, or of pg_query().
 */
int relay_topics_look(struct relay_topics *t, struct kafka_producer *producer, struct pg *pg,
                      const struct config *config, struct error *err);

int32_t relay_topics_partition(const struct relay_topics *t, enum event_type type, int64_t sequence,
                               struct bytes key);
