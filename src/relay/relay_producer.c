/* The relay's producer and its topics. See relay_internal.h. On the relay's thread. */
#include "base/log.h"
#include "base/message_ids.h"
#include "relay/relay_internal.h"

#define LEADERS_MS 300 /* for one topic */
#define NOT_YET_USEC (10 * USEC_PER_SEC)
#define LOOK_USEC (30 * USEC_PER_SEC)        /* between looks at the topics */
#define LOOK_BACK_USEC USEC_PER_SEC          /* while Kafka is said to be away */
#define POLICY_USEC (10 * 60 * USEC_PER_SEC) /* between looks at their settings */
#define POLICY_MS 1000
#define VALUE_SPARE 32768 /* of a message: key, headers, and the protocol's own bytes */
#define SMALL_BATCHES_USEC (5 * 60 * USEC_PER_SEC)
/* What it had sent comes twice with a new producer, where only the answers were late. */
#define STUCK_USEC (10 * USEC_PER_SEC)
#define STUCK_MAX_USEC (5 * 60 * USEC_PER_SEC)

/* By struct relay_kafka's batch_step; see kafka_producer_new(). */
static const size_t batch_bytes[] = {0, 65536, 8192, 1};

void relay_kafka_lost(struct relay *relay, const char *words)
{
    bool knows_why = relay->kafka.producer && kafka_producer_knows_why(relay->kafka.producer);
    bool begins = trouble_begins(&relay->kafka.away);

    if (begins || (knows_why && !relay->kafka.why_said)) {
        log_line(LOG_WARNING, MSG_KAFKA_LOST, "%s; trying again. Deliveries go on, events wait in the ledger",
                 words);
        relay->kafka.why_said = knows_why;
    }
    relay->stats.kafka_up = false;
    if (relay->stats.trouble != RELAY_STOPPED)
        relay->stats.trouble = RELAY_NO_KAFKA;
}

/* As kafka_producer_leaders(); a partition without leader is said. */
static int look_for_leaders(struct relay *relay, struct error *err)
{
    struct relay_kafka *kafka = &relay->kafka;
    int r = kafka_producer_leaders(kafka->producer, LEADERS_MS, err);

    if (r != KAFKA_LEADERLESS)
        return r;
    (void) trouble_ends(&kafka->away);
    if (trouble_begins(&kafka->leaderless))
        log_line(
            LOG_WARNING, MSG_KAFKA_LOST,
            "the relay waits for Kafka: %s, since the brokers that have copies of it are away or lag behind; "
            "trying again. Deliveries go on, events wait in the ledger",
            err->text);
    relay->stats.kafka_up = false;
    if (relay->stats.trouble != RELAY_STOPPED)
        relay->stats.trouble = RELAY_NO_LEADER;
    return r;
}

static bool is_said_away(const struct relay *relay)
{
    return relay->kafka.away.said || relay->kafka.leaderless.said;
}

void relay_kafka_silent(struct relay *relay)
{
    struct error err, words;

    if (is_said_away(relay))
        return;
    int r = look_for_leaders(relay, &err);
    if (r == KAFKA_LEADERLESS)
        return;
    if (r < 0)
        error_set(&words, "could not reach Kafka: no answer");
    else
        error_set(&words,
                  "Kafka answers, but takes no events: perhaps fewer copies of a partition are in sync than "
                  "min.insync.replicas asks for%s%s",
                  *err.text ? "; " : "", err.text);
    relay_kafka_lost(relay, words.text);
}

/* A broker that answers, and takes some events, may still lack those that lead other partitions. */
static bool is_whole(struct relay *relay)
{
    uint64_t now = now_monotonic_usec();

    if (now < relay->kafka.leaders_at)
        return false;
    struct error ignored;
    relay->kafka.leaders_at = now + LOOK_BACK_USEC;
    return look_for_leaders(relay, &ignored) == 0;
}

void relay_kafka_back(struct relay *relay)
{
    if (is_said_away(relay) && !is_whole(relay))
        return;
    bool had_no_leader = trouble_ends(&relay->kafka.leaderless);

    if (trouble_ends(&relay->kafka.away) || had_no_leader)
        log_line(LOG_NOTICE, MSG_KAFKA_BACK, "Kafka answers again");
    relay->stats.kafka_up = true;
    if (relay->stats.trouble == RELAY_NO_KAFKA || relay->stats.trouble == RELAY_NO_LEADER)
        relay->stats.trouble = RELAY_FINE;
    backoff_reset(&relay->kafka.backoff);
}

bool relay_producer_is_stuck(struct relay *relay)
{
    struct relay_sending *sending = &relay->sending;
    uint64_t now = now_monotonic_usec();
    struct error ignored;

    if (kafka_producer_leaders(relay->kafka.producer, LEADERS_MS, &ignored) != 0) {
        sending->stuck.since = 0;
        return false;
    }
    sending->stuck.since = sending->stuck.since ? sending->stuck.since : now;
    sending->stuck.patience_usec = MAX(sending->stuck.patience_usec, STUCK_USEC);
    if (now - sending->stuck.since < sending->stuck.patience_usec)
        return false;
    sending->stuck.patience_usec = MIN(2 * sending->stuck.patience_usec, STUCK_MAX_USEC);
    sending->stuck.since = 0;
    return true;
}

void relay_drop_producer(struct relay *relay)
{
    kafka_producer_free(TAKE_PTR(relay->kafka.producer));
    relay->kafka.topics_ready = false;
    relay_batch_rewind(&relay->sending.batch);
}

uint64_t relay_open_producer(struct relay *relay)
{
    const char *names[RELAY_TOPICS];
    struct error err;

    for (size_t i = 0; i < RELAY_TOPICS; i++)
        names[i] = relay->kafka.topics.items[i].name;
    if (kafka_producer_new(&relay->kafka.producer, relay->config, names, RELAY_TOPICS,
                           batch_bytes[relay->kafka.batch_step], &err) < 0) {
        relay_kafka_lost(relay, err.text);
        return backoff_next_usec(&relay->kafka.backoff);
    }
    relay->sending.builder.value_max = kafka_producer_message_max(relay->kafka.producer) - VALUE_SPARE;
    return NOW;
}

bool relay_shrink_batches(struct relay *relay)
{
    relay->kafka.batch_until = now_monotonic_usec() + SMALL_BATCHES_USEC;
    if (relay->kafka.batch_step == ARRAY_SIZE(batch_bytes) - 1)
        return false;
    relay->kafka.batch_step++;
    return true;
}

void relay_restore_batches(struct relay *relay)
{
    if (relay->kafka.batch_step == 0 || now_monotonic_usec() < relay->kafka.batch_until)
        return;
    relay->kafka.batch_step = 0;
    relay_drop_producer(relay);
}

/* A person has to know, but not of a topic that comes by itself. */
static uint64_t wait_for_topics(struct relay *relay, int r, const struct error *err)
{
    struct relay_kafka *kafka = &relay->kafka;
    struct trouble *trouble = r == RELAY_TOPICS_FORBIDDEN ? &kafka->topics_forbidden : &kafka->topics_missing;
    uint64_t now = now_monotonic_usec();

    if (trouble_lasts(trouble, now, now, r == RELAY_TOPICS_NOT_YET ? NOT_YET_USEC : 0))
        log_line(LOG_ALERT, MSG_KAFKA_TOPIC,
                 "the relay cannot publish: %s. Events wait in the ledger; looking again", err->text);
    relay->stats.trouble = r == RELAY_TOPICS_FORBIDDEN ? RELAY_FORBIDDEN : RELAY_NO_TOPIC;
    return backoff_next_usec(&kafka->backoff);
}

/* A compacted topic keeps the last event of a subscription: who is behind never sees those before. Who may
 * not read the settings of topics is told nothing. */
static void look_for_compaction(struct relay *relay)
{
    CLEANUP(strbuf_free) struct strbuf names = STRBUF_INIT(4096);
    bool compacts[EVENT_TYPES] = {false};
    uint64_t now = now_monotonic_usec();
    struct error ignored;

    if (now < relay->kafka.compacted.ask_at)
        return;
    relay->kafka.compacted.ask_at = now + POLICY_USEC;
    if (kafka_producer_compacts(relay->kafka.producer, EVENT_TYPES, POLICY_MS, compacts, &ignored) < 0)
        return;
    for (size_t i = 0; i < EVENT_TYPES; i++)
        if (compacts[i])
            strbuf_addf(&names, "%s\"%s\"", names.len ? ", " : "", relay->kafka.topics.items[i].name);
    if (names.len && trouble_begins(&relay->kafka.compacted.topics))
        log_line(
            LOG_WARNING, MSG_KAFKA_COMPACTED,
            "Kafka compacts %s (cleanup.policy): of a subscription's events it keeps the last one there, and "
            "consumers that are behind miss the others. Set cleanup.policy=delete",
            strbuf_str(&names));
    else if (!names.len && trouble_ends(&relay->kafka.compacted.topics))
        log_line(LOG_NOTICE, MSG_KAFKA_COMPACTED, "Kafka no longer compacts the topics of events");
}

uint64_t relay_look_at_topics(struct relay *relay)
{
    struct error err;
    int r = relay_topics_look(&relay->kafka.topics, relay->kafka.producer, relay->session.pg, relay->config,
                              &err);

    relay->kafka.topics_ready = r == RELAY_TOPICS_READY;
    if (r == RELAY_TOPICS_NO_KAFKA) {
        relay_kafka_lost(relay, err.text);
        return backoff_next_usec(&relay->kafka.backoff);
    }
    if (r > RELAY_TOPICS_READY) {
        relay->stats.kafka_up = true;
        return wait_for_topics(relay, r, &err);
    }
    if (r < 0)
        return relay_lose_session(relay, r, &err);
    if (relay->sending.stuck.patience_usec == 0)
        relay_kafka_back(relay);
    bool missed = trouble_ends(&relay->kafka.topics_missing);
    if (trouble_ends(&relay->kafka.topics_forbidden) || missed)
        log_line(LOG_NOTICE, MSG_KAFKA_TOPIC, "the relay's topics are there");
    if (relay->stats.trouble == RELAY_NO_TOPIC || relay->stats.trouble == RELAY_FORBIDDEN)
        relay->stats.trouble = RELAY_FINE;
    look_for_compaction(relay);
    relay->kafka.look_at = now_monotonic_usec() + (is_said_away(relay) ? LOOK_BACK_USEC : LOOK_USEC);
    return NOW;
}

uint64_t relay_watch_kafka(struct relay *relay)
{
    struct error err;

    switch (kafka_producer_poll(relay->kafka.producer, 0, NULL, NULL, &err)) {
    case KAFKA_NO_BROKER:
        /* Brokers end idle connections; a new connection shows whether they are away. */
        relay->kafka.topics_ready = false;
        return NOW;
    case KAFKA_BROKEN:
        log_notice("the Kafka client has to start over: %s", err.text);
        relay_drop_producer(relay);
        return backoff_next_usec(&relay->kafka.backoff);
    default:
        return NOW;
    }
}
