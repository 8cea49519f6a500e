/* Topics and their partition counts. See relay_topics.h. */
#include "relay/relay_topics.h"

#include "relay/store_relay.h"

#define LOOK_MS 1000
#define CREATE_MS 3000

static const char *const others[] = {"alerts", "dead_letters", "metrics", "confirmations", "audit"};

static int wanted_partitions(size_t topic)
{
    return topic < EVENT_TYPES ? event_type_partitions((enum event_type) topic) : 1;
}

void relay_topics_init(struct relay_topics *t, const char *prefix)
{
    *t = (struct relay_topics){0};
    for (size_t i = 0; i < RELAY_TOPICS; i++)
        t->items[i].name = i < EVENT_TYPES ? event_type_topic((enum event_type) i, prefix)
                                           : xasprintf("%s%s", prefix, others[i - EVENT_TYPES]);
}

void relay_topics_free(struct relay_topics *t)
{
    for (size_t i = 0; i < RELAY_TOPICS; i++) {
        free(t->items[i].name);
        free(t->items[i].counts);
    }
    *t = (struct relay_topics){0};
}

static void note(struct relay_topic *topic, int64_t from_sequence, int count)
{
    topic->counts = xreallocarray(topic->counts, topic->counts_len + 1, sizeof(*topic->counts));
    topic->counts[topic->counts_len++] = (struct relay_partitions){from_sequence, count};
}

int relay_topics_load(struct relay_topics *t, struct pg *pg, struct error *err)
{
    for (size_t i = 0; i < EVENT_TYPES; i++) {
        CLEANUP(pg_result_freep) struct pg_result *result = NULL;
        int r = store_relay_partitions(pg, t->items[i].name, &result, err);
        if (r < 0)
            return r;
        t->items[i].counts_len = 0;
        for (int row = 0; row < pg_rows(result); row++)
            note(&t->items[i], pg_get_i64(result, row, 0), (int) pg_get_i64(result, row, 1));
    }
    return 0;
}

/* A new count holds for ids that nobody has drawn yet. Ids above the saved position may have been published
 * already, by us or by a former leader, and will be published again: in another partition no consumer would
 * know them. */
static int save_count(struct relay_topic *topic, struct pg *pg, struct error *err)
{
    const struct relay_partitions *latest = topic->counts_len ? &topic->counts[topic->counts_len - 1] : NULL;

    if (latest && latest->count == topic->actual)
        return 0;
    /* The first count holds from the beginning: an event published again keeps its partition. */
    int64_t from = 0;
    int r = latest ? store_relay_next_id(pg, &from, err) : 0;
    if (r == 0)
        r = store_relay_add_partitions(pg, topic->name, from, topic->actual, err);
    if (r < 0)
        return r;
    if (latest && latest->from_sequence == from)
        topic->counts_len--;
    note(topic, from, topic->actual);
    return 0;
}

static int ask(struct relay_topics *t, struct kafka_producer *producer, struct error *err)
{
    int partitions[RELAY_TOPICS];

    if (kafka_producer_look(producer, LOOK_MS, partitions, err) < 0)
        return RELAY_TOPICS_NO_KAFKA;
    for (size_t i = 0; i < RELAY_TOPICS; i++)
        t->items[i].actual = partitions[i];
    return RELAY_TOPICS_READY;
}

/* Sets *ret_created when the brokers have to be asked again. */
static int create_missing(struct relay_topics *t, struct kafka_producer *producer,
                          const struct config *config, bool *ret_created, struct error *err)
{
    for (size_t i = 0; i < RELAY_TOPICS; i++) {
        if (t->items[i].actual != 0)
            continue;
        int r = kafka_producer_create_topic(producer, i, wanted_partitions(i),
                                            config->kafka.replication_factor, CREATE_MS, err);
        *ret_created |= r == 0;
        /* Events wait for their topics; the relay does not need the others. */
        if (r != 0 && i < EVENT_TYPES)
            return r < 0 ? RELAY_TOPICS_NO_KAFKA : RELAY_TOPICS_MISSING;
        if (r < 0)
            return RELAY_TOPICS_READY;
    }
    return RELAY_TOPICS_READY;
}

static int check(const struct relay_topics *t, const struct config *config, struct error *err)
{
    for (size_t i = 0; i < EVENT_TYPES; i++) {
        const struct relay_topic *topic = &t->items[i];

        if (topic->actual > 0)
            continue;
        if (topic->actual == KAFKA_FORBIDDEN) {
            error_set(
                err,
                "Kafka forbids topic \"%s\" to this client: let its user Describe and Write the topic, or correct "
                "kafka.topic_prefix",
                topic->name);
            return RELAY_TOPICS_FORBIDDEN;
        }
        if (config->kafka.create_topics) {
            error_set(err, "there is no topic \"%s\" yet", topic->name);
            return RELAY_TOPICS_NOT_YET;
        }
        error_set(err,
                  "there is no topic \"%s\", and kafka.create_topics is off: create the topic, switch "
                  "kafka.create_topics on, or correct kafka.topic_prefix",
                  topic->name);
        return RELAY_TOPICS_MISSING;
    }
    return RELAY_TOPICS_READY;
}

int relay_topics_look(struct relay_topics *t, struct kafka_producer *producer, struct pg *pg,
                      const struct config *config, struct error *err)
{
    bool created = false;
    int r = ask(t, producer, err);

    if (r == RELAY_TOPICS_READY && config->kafka.create_topics)
        r = create_missing(t, producer, config, &created, err);
    if (r == RELAY_TOPICS_READY && created)
        r = ask(t, producer, err);
    if (r == RELAY_TOPICS_READY)
        r = check(t, config, err);
    for (size_t i = 0; r == RELAY_TOPICS_READY && i < EVENT_TYPES; i++)
        r = save_count(&t->items[i], pg, err);
    return r;
}

int32_t relay_topics_partition(const struct relay_topics *t, enum event_type type, int64_t sequence,
                               struct bytes key)
{
    const struct relay_topic *at = &t->items[type];
    int count = at->actual;

    for (size_t i = 0; i < at->counts_len && at->counts[i].from_sequence <= sequence; i++)
        count = at->counts[i].count;
    /* A topic that was created again with fewer partitions lacks the former ones. */
    return kafka_partition(key, MIN(count, at->actual));
}
