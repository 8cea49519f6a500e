/* What the relay's files share; nobody else includes it.
 *
 * A turn is a function of the relay that does one thing, waits a second at most, and answers how many
 * microseconds there are until the next one. */
#pragma once

#include <pthread.h>

#include "base/backoff.h"
#include "base/timeutil.h"
#include "kafka/kafka_producer.h"
#include "pg/pg.h"
#include "relay/event.h"
#include "relay/gaps.h"
#include "relay/relay.h"
#include "relay/relay_batch.h"
#include "relay/relay_topics.h"
#include "relay/store_relay.h"

#define RELAY_TURN_USEC USEC_PER_SEC

enum { NOW = 0 };

struct relay {
    struct relay_params params;
    struct config *config;
    pthread_t thread;
    int wake_fd;
    int abandon_fd; /* raised when even the database's last answer has to do without us */
    struct relay_stats stats;

    struct pg *pg;
    bool leading;
    int64_t epoch;
    struct store_relay_identity identity; /* to be saved with the next state */
    struct gaps gaps;
    bool unsaved; /* gaps differ from the database's */
    struct event_builder builder;
    uint64_t check_at;

    struct kafka_producer *producer;
    size_t batch_step;    /* how much smaller than usual Kafka's batches are, 0 = not at all */
    uint64_t batch_until; /* monotonic; when the usual size is tried again */
    struct relay_topics topics;
    bool topics_ready;
    uint64_t look_at;
    struct relay_batch batch;
    bool safe; /* the batch may be sent: Postgres cannot take it back */
    int64_t wal_position;

    struct backoff database_backoff, kafka_backoff, again_backoff;
    uint64_t progress_at;     /* when Kafka last took something, or had nothing to take */
    struct error nobody;      /* why no broker could be reached since, "" = not so */
    uint64_t idle_usec;       /* the last wait without anything to do */
    uint64_t rest_until;      /* no read before */
    int64_t stopped_on;       /* the event that Kafka refused, 0 = none */
    enum relay_trouble shown; /* in the session's name */
    bool said_database, said_kafka, said_topic, said_identity, said_batches;
};

/* relay.c: the session is given up, and with it the leadership. */
uint64_t relay_database_trouble(struct relay *r, int outcome, const struct error *err);
uint64_t relay_fenced(struct relay *r); /* somebody else leads */

/* relay_producer.c: producer and topics. */
uint64_t relay_open_producer(struct relay *r);
void relay_drop_producer(struct relay *r); /* what is on its way will be sent again */
/* Kafka refuses a batch whole, though one event of it may be to blame, or none (each fits, together they do
 * not): the next producer sends fewer events together. False when each went alone already. */
bool relay_shrink_batches(struct relay *r);
void relay_restore_batches(struct relay *r); /* after a while, while nothing is on its way */
uint64_t relay_look_at_topics(struct relay *r);
uint64_t relay_watch_kafka(struct relay *r); /* while nothing is on its way */
void relay_kafka_lost(struct relay *r, const char *words);
void relay_kafka_back(struct relay *r);

/* relay_publish.c: a batch is read, made safe, sent, and written down once all of it is delivered. */
uint64_t relay_read_batch(struct relay *r);
uint64_t relay_make_safe(struct relay *r);
uint64_t relay_publish(struct relay *r);
uint64_t relay_idle(struct relay *r); /* how long to wait when there is nothing to do */
