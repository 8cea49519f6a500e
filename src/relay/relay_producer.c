/* The relay's producer and its topics. See relay_internal.h. On the relay's thread. */
#include "base/log.h"
#include "base/message_ids.h"
#include "relay/relay_internal.h"

#define LOOK_USEC (30 * USEC_PER_SEC) /* between looks at the topics */
#define VALUE_SPARE 32768             /* of a message: key, headers, and what the protocol adds */

#define SMALL_BATCHES_USEC (5 * 60 * USEC_PER_SEC)

static const size_t batch_bytes[] = {0, 65536, 8192, 1};

void relay_kafka_lost(struct relay *r, const char *words)
{
    if (!r->said_kafka)
        log_event(LOG_WARNING, MSG_KAFKA_LOST, NULL, "%s; trying again. Deliveries go on, the ledger waits",
                  words);
    r->said_kafka = true;
    r->stats.kafka_up = false;
    if (r->stats.trouble != RELAY_STOPPED)
        r->stats.trouble = RELAY_NO_KAFKA;
}

void relay_kafka_back(struct relay *r)
{
    if (r->said_kafka)
        log_event(LOG_NOTICE, MSG_KAFKA_BACK, NULL, "Kafka answers again");
    r->said_kafka = false;
    r->stats.kafka_up = true;
    if (r->stats.trouble == RELAY_NO_KAFKA)
        r->stats.trouble = RELAY_FINE;
    backoff_reset(&r->kafka_backoff);
}

void relay_drop_producer(struct relay *r)
{
    kafka_producer_free(TAKE_PTR(r->producer));
    r->topics_ready = false;
    relay_batch_rewind(&r->batch);
}

uint64_t relay_open_producer(struct relay *r)
{
    const char *names[RELAY_TOPICS];
    struct error err;

    for (size_t i = 0; i < RELAY_TOPICS; i++)
        names[i] = r->topics.items[i].name;
    if (kafka_producer_new(&r->producer, r->config, names, RELAY_TOPICS, batch_bytes[r->batch_step], &err) <
        0) {
        relay_kafka_lost(r, err.text);
        return backoff_next_usec(&r->kafka_backoff);
    }
    r->builder.value_max = kafka_producer_message_max(r->producer) - VALUE_SPARE;
    return NOW;
}

bool relay_shrink_batches(struct relay *r)
{
    r->batch_until = now_monotonic_usec() + SMALL_BATCHES_USEC;
    if (r->batch_step == ARRAY_SIZE(batch_bytes) - 1)
        return false;
    r->batch_step++;
    return true;
}

void relay_restore_batches(struct relay *r)
{
    if (r->batch_step == 0 || now_monotonic_usec() < r->batch_until)
        return;
    r->batch_step = 0;
    relay_drop_producer(r);
}

static uint64_t topic_trouble(struct relay *r, const struct error *err)
{
    if (!r->said_topic)
        log_warning("the relay waits for its topics: %s; looking again", err->text);
    r->said_topic = true;
    r->stats.trouble = RELAY_NO_TOPIC;
    return backoff_next_usec(&r->kafka_backoff);
}

uint64_t relay_look_at_topics(struct relay *r)
{
    struct error err;
    int outcome = relay_topics_look(&r->topics, r->producer, r->pg, r->config, &err);

    r->topics_ready = outcome == RELAY_TOPICS_READY;
    if (outcome == RELAY_TOPICS_NO_KAFKA) {
        relay_kafka_lost(r, err.text);
        return backoff_next_usec(&r->kafka_backoff);
    }
    if (outcome == RELAY_TOPICS_MISSING) {
        r->stats.kafka_up = true;
        return topic_trouble(r, &err);
    }
    if (outcome != RELAY_TOPICS_READY)
        return relay_database_trouble(r, outcome, &err);
    relay_kafka_back(r);
    if (r->said_topic)
        log_notice("the relay's topics are there");
    r->said_topic = false;
    if (r->stats.trouble == RELAY_NO_TOPIC)
        r->stats.trouble = RELAY_FINE;
    r->look_at = now_monotonic_usec() + LOOK_USEC;
    return NOW;
}

/* Without anything on its way: does Kafka answer? */
uint64_t relay_watch_kafka(struct relay *r)
{
    struct error err;

    switch (kafka_producer_poll(r->producer, 0, NULL, NULL, &err)) {
    case KAFKA_NO_BROKER:
        /* Brokers end idle connections; whether they are away shows in a new one. */
        r->topics_ready = false;
        return NOW;
    case KAFKA_BROKEN:
        log_notice("the Kafka client has to start over: %s", err.text);
        relay_drop_producer(r);
        return backoff_next_usec(&r->kafka_backoff);
    default:
        return NOW;
    }
}
