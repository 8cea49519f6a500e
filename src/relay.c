/* The relay's thread. See relay.h.
 *
 * One turn after the other: session, leadership, producer, topics; then a batch is read, made safe, sent, and
 * written down once all of it is delivered. A turn waits a second at most, and whatever it cannot do is tried
 * again later.
 *
 * Leadership is the session: with it everything is given up, also what is on its way to Kafka, and the saved
 * state says where to go on. The epoch in that state fences off a leader who does not know yet that he is
 * none. */
#include "relay.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "backoff.h"
#include "event.h"
#include "gaps.h"
#include "kafka_producer.h"
#include "log.h"
#include "messages.h"
#include "pg.h"
#include "relay_batch.h"
#include "relay_topics.h"
#include "schema.h"
#include "store_relay.h"
#include "timeutil.h"

#define TURN_USEC USEC_PER_SEC
#define STANDBY_USEC (2 * USEC_PER_SEC)  /* between tries to become the leader */
#define LOOK_USEC (30 * USEC_PER_SEC)    /* between looks at the topics */
#define CHECK_USEC (5 * USEC_PER_SEC)    /* between looks at session and schema */
#define SILENCE_USEC (10 * USEC_PER_SEC) /* Kafka counts as away when it takes nothing for so long */
#define FIRST_WAIT_USEC (4 * USEC_PER_MSEC)
#define STOP_USEC (4 * USEC_PER_SEC) /* what is on its way at a stop may take so long */
#define ABANDON_SEC 7                /* and the database with it */
#define STATEMENT_USEC (10 * USEC_PER_SEC)
#define POLL_MS 100
/* A read that takes long (gaps full of rows that are not committed yet) leaves the database as much time
 * without it. */
#define LONG_READ_USEC (20 * USEC_PER_MSEC)

#define ROWS_MAX 3000
#define BYTES_MAX ((int64_t) 4 << 20)
#define VALUE_SPARE 32768 /* of a message: key, headers, and what the protocol adds */

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
    struct relay_topics topics;
    bool topics_ready;
    uint64_t look_at;
    struct relay_batch batch;
    bool safe; /* the batch may be sent: Postgres cannot take it back */
    int64_t wal_position;

    struct backoff database_backoff, kafka_backoff, again_backoff;
    uint64_t progress_at; /* when Kafka last took something, or had nothing to take */
    bool nobody;          /* no broker could be reached since */
    uint64_t idle_usec;   /* the last wait without anything to do */
    uint64_t rest_until;  /* no read before */
    int64_t stopped_on;   /* the event that Kafka refused, 0 = none */
    bool said_database, said_kafka, said_topic, said_identity;
};

enum { NOW = 0 }; /* what a turn answers: microseconds until the next one */

static bool stopping(const struct relay *r)
{
    struct pollfd fd = {.fd = r->params.stop_fd, .events = POLLIN};
    return poll(&fd, 1, 0) > 0;
}

/* --- giving up and trouble
 * ----------------------------------------------------------------------------------------- */

static void drop_producer(struct relay *r)
{
    kafka_producer_free(TAKE_PTR(r->producer));
    r->topics_ready = false;
    relay_batch_rewind(&r->batch);
}

static void give_up_leadership(struct relay *r)
{
    if (r->leading)
        log_event(LOG_INFO, MSG_RELAY_LEADER, NULL, "the relay gave up the lead");
    r->leading = false;
    r->stats.leader = false;
    drop_producer(r);
    relay_batch_free(&r->batch);
    gaps_free(&r->gaps);
    r->unsaved = false;
    r->stats.gaps = 0;
    r->stats.high = 0;
}

static uint64_t give_up_session(struct relay *r)
{
    give_up_leadership(r);
    pg_close(TAKE_PTR(r->pg));
    r->stats.trouble = RELAY_NO_DATABASE;
    return backoff_next_usec(&r->database_backoff);
}

/* That the database is away is said by the dispatcher; what it refuses to the relay alone is said here. */
static uint64_t database_trouble(struct relay *r, int outcome, const struct error *err)
{
    if (outcome == -ECONNRESET || outcome > 0)
        log_debug("relay: %s", err->text);
    else if (!r->said_database)
        log_warning("the relay could not use the database: %s; trying again", err->text);
    r->said_database |= outcome == -EBADMSG || outcome == -EPERM;
    return give_up_session(r);
}

static uint64_t fenced(struct relay *r)
{
    log_warning("another daemon's relay has taken the lead; this one starts over");
    return give_up_session(r);
}

static void kafka_lost(struct relay *r, const char *words)
{
    if (!r->said_kafka)
        log_event(LOG_WARNING, MSG_KAFKA_LOST, NULL, "%s; trying again. Deliveries go on, the ledger waits",
                  words);
    r->said_kafka = true;
    r->stats.kafka_up = false;
    if (r->stats.trouble != RELAY_STOPPED)
        r->stats.trouble = RELAY_NO_KAFKA;
}

static void kafka_back(struct relay *r)
{
    if (r->said_kafka)
        log_event(LOG_NOTICE, MSG_KAFKA_BACK, NULL, "Kafka answers again");
    r->said_kafka = false;
    r->stats.kafka_up = true;
    if (r->stats.trouble == RELAY_NO_KAFKA)
        r->stats.trouble = RELAY_FINE;
    backoff_reset(&r->kafka_backoff);
}

/* --- session and leadership
 * ---------------------------------------------------------------------------------------- */

static uint64_t open_session(struct relay *r)
{
    struct error err;
    const struct pg_params params = {
        .conninfo = r->config->database.conninfo,
        .schema = r->config->database.schema,
        .application_name = "anubisd relay",
        .connect_timeout_usec = r->config->database.connect_timeout_usec,
        .statement_timeout_usec = MIN(r->config->database.statement_timeout_usec, STATEMENT_USEC),
        .stop_fd = r->abandon_fd,
        .keep_to_indexes = true,
    };
    int outcome = pg_open(&r->pg, &params, &err);

    if (outcome != PG_DONE)
        return database_trouble(r, outcome, &err);
    return NOW;
}

/* In a database restored elsewhere transaction ids count anew; a promoted standby may lack what was read, and
 * would give its ids out once more. */
static int adapt(struct relay *r, const struct store_relay_identity *saved, struct error *err)
{
    bool done = false;
    int outcome = store_relay_identify(r->pg, &r->identity, err);

    if (outcome == -EPERM || outcome == -EBADMSG) {
        if (!r->said_identity)
            log_notice("could not tell whether this database was restored or promoted: %s", err->text);
        r->said_identity = true;
        r->identity.known = false;
        return PG_DONE;
    }
    if (outcome != PG_DONE || !saved->known ||
        (saved->system == r->identity.system && saved->timeline == r->identity.timeline))
        return outcome;
    log_notice(
        "the database was restored or promoted since the last event was published: looking at all open gaps anew");
    gaps_unstamp(&r->gaps);
    while (outcome == PG_DONE && !done) {
        outcome = store_relay_advance_sequence(r->pg, r->gaps.high, &done, err);
        heartbeat_beat(r->params.heartbeat);
    }
    if (outcome != -EPERM)
        return outcome;
    log_warning("could not keep ids from being given out twice after a restore: %s", err->text);
    return PG_DONE;
}

static uint64_t take_leadership(struct relay *r)
{
    struct store_relay_start start;
    struct error err;
    bool leader = false;
    int outcome = store_relay_try_lead(r->pg, &leader, &err);

    if (outcome == PG_DONE && !leader) {
        backoff_reset(&r->database_backoff);
        r->stats.trouble = RELAY_FINE;
        r->stats.kafka_up = true; /* as far as this one needs it */
        return STANDBY_USEC;
    }
    if (outcome == PG_DONE)
        outcome = store_relay_begin(r->pg, r->config->instance, &r->gaps, &start, &err);
    if (outcome == PG_DONE)
        outcome = adapt(r, &start.saved, &err);
    if (outcome == PG_DONE)
        outcome = relay_topics_load(&r->topics, r->pg, &err);
    if (outcome != PG_DONE)
        return database_trouble(r, outcome, &err);
    r->leading = true;
    r->stats.leader = true;
    r->epoch = start.epoch;
    r->stats.high = r->gaps.high;
    r->stats.gaps = r->gaps.count;
    r->stats.trouble = RELAY_FINE;
    r->stopped_on = 0;
    r->said_database = false;
    backoff_reset(&r->database_backoff);
    event_builder_free(&r->builder);
    event_builder_init(&r->builder, start.name_space, 0);
    log_event(LOG_NOTICE, MSG_RELAY_LEADER, NULL,
              "the relay leads: publishing events from ledger id %" PRId64 " on", r->gaps.high + 1);
    return NOW;
}

/* A session that nobody uses for a while may be gone, and the schema another. */
static uint64_t check_session(struct relay *r)
{
    struct error err;
    int outcome = schema_check(r->pg, &err);

    r->check_at = now_monotonic_usec() + CHECK_USEC;
    return outcome == 0 ? NOW : database_trouble(r, outcome, &err);
}

/* --- producer and topics
 * ------------------------------------------------------------------------------------------- */

static uint64_t open_producer(struct relay *r)
{
    const char *names[RELAY_TOPICS];
    struct error err;

    for (size_t i = 0; i < RELAY_TOPICS; i++)
        names[i] = r->topics.items[i].name;
    if (kafka_producer_new(&r->producer, r->config, names, RELAY_TOPICS, &err) < 0) {
        kafka_lost(r, err.text);
        return backoff_next_usec(&r->kafka_backoff);
    }
    r->builder.value_max = kafka_producer_message_max(r->producer) - VALUE_SPARE;
    return NOW;
}

static uint64_t topic_trouble(struct relay *r, const struct error *err)
{
    if (!r->said_topic)
        log_warning("the relay waits for its topics: %s; looking again", err->text);
    r->said_topic = true;
    r->stats.trouble = RELAY_NO_TOPIC;
    return backoff_next_usec(&r->kafka_backoff);
}

static uint64_t look_at_topics(struct relay *r)
{
    struct error err;
    int outcome = relay_topics_look(&r->topics, r->producer, r->pg, r->config, r->gaps.high, &err);

    r->topics_ready = outcome == RELAY_TOPICS_READY;
    if (outcome == RELAY_TOPICS_NO_KAFKA) {
        kafka_lost(r, err.text);
        return backoff_next_usec(&r->kafka_backoff);
    }
    if (outcome == RELAY_TOPICS_MISSING) {
        r->stats.kafka_up = true;
        return topic_trouble(r, &err);
    }
    if (outcome != RELAY_TOPICS_READY)
        return database_trouble(r, outcome, &err);
    kafka_back(r);
    if (r->said_topic)
        log_notice("the relay's topics are there");
    r->said_topic = false;
    if (r->stats.trouble == RELAY_NO_TOPIC)
        r->stats.trouble = RELAY_FINE;
    r->look_at = now_monotonic_usec() + LOOK_USEC;
    return NOW;
}

/* --- publishing
 * ---------------------------------------------------------------------------------------------------- */

static uint64_t idle(struct relay *r)
{
    uint64_t longest = MIN(r->config->delivery.poll_interval_usec, TURN_USEC);

    r->idle_usec = MIN(r->idle_usec ? r->idle_usec * 2 : FIRST_WAIT_USEC, longest);
    return r->idle_usec;
}

static uint64_t read_batch(struct relay *r)
{
    struct pg_result *result = NULL;
    struct error err;
    uint64_t start = now_monotonic_usec();
    struct store_relay_head head;
    size_t gaps_before = r->gaps.count;
    int outcome = store_relay_read(r->pg, &r->gaps, ROWS_MAX, BYTES_MAX, &result, &err);

    if (outcome == PG_DONE) {
        store_relay_head(result, &head);
        outcome = relay_batch_take(&r->batch, result, &r->gaps, ROWS_MAX, BYTES_MAX, &err);
    }
    if (outcome != PG_DONE)
        return database_trouble(r, outcome, &err);
    uint64_t now = now_monotonic_usec();
    if (now - start > LONG_READ_USEC && !r->batch.full)
        r->rest_until = now + (now - start);
    r->wal_position = head.wal_position;
    r->safe = false;
    r->unsaved =
        relay_batch_has_rows(&r->batch) || gaps_need_horizon(&r->gaps) || r->gaps.count != gaps_before;
    if (!r->unsaved)
        relay_batch_free(&r->batch);
    return NOW;
}

/* Before anything of the batch leaves: Postgres must not be able to take it back in a crash (a row committed
 * asynchronously is seen before it is on disk, and its id would be given out again), and new gaps get their
 * horizon. */
static uint64_t make_safe(struct relay *r)
{
    struct error err;
    int64_t xid = 0;
    bool flushed = false, lost = false;
    int outcome = PG_DONE;

    if (!gaps_need_horizon(&r->gaps))
        outcome = store_relay_is_flushed(r->pg, r->wal_position, &flushed, &err);
    if (outcome == PG_DONE && !flushed)
        outcome = store_relay_mark(r->pg, r->epoch, &xid, &lost, &err);
    if (outcome != PG_DONE)
        return database_trouble(r, outcome, &err);
    if (lost)
        return fenced(r);
    if (!flushed)
        gaps_stamp(&r->gaps, xid);
    r->safe = true;
    return NOW;
}

/* Kafka will not have one event: nothing overtakes it, and somebody has to know. */
static uint64_t stop_on_event(struct relay *r)
{
    const struct relay_batch *b = &r->batch;
    struct event event;
    struct event_message m;
    struct error err;
    char event_id[40], subscription[24];
    bool lost = false;

    store_relay_row(b->result, b->failed_row, &event);
    if (r->stopped_on != event.id && event_build(&r->builder, &event, &m)) {
        snprintf(event_id, sizeof(event_id), "%.*s", (int) event.event_id.len,
                 event.event_id.bytes ? event.event_id.bytes : "");
        snprintf(subscription, sizeof(subscription), "%" PRId64, event.subscription_id.value);
        const struct log_field fields[] = {{"EVENT_ID", event_id},
                                           {"SUBSCRIPTION_ID", subscription},
                                           {"KAFKA_TOPIC", r->topics.items[m.topic].name},
                                           {"ERROR", b->failed_reason.text},
                                           {NULL, NULL}};
        log_event(LOG_ALERT, MSG_RELAY_STOPPED, fields,
                  "Kafka refuses event %s (ledger id %" PRId64
                  ", %zu bytes) on topic \"%s\": %s. Nothing is published until it is taken; "
                  "trying again",
                  event_id, event.id, m.value.len, r->topics.items[m.topic].name, b->failed_reason.text);
        int outcome = store_relay_stop(r->pg, r->epoch, event.id, b->failed_reason.text, &lost, &err);
        if (outcome != PG_DONE)
            return database_trouble(r, outcome, &err);
        if (lost)
            return fenced(r);
    }
    r->stopped_on = event.id;
    r->stats.trouble = RELAY_STOPPED;
    return backoff_next_usec(&r->again_backoff);
}

/* With a new producer: a refusal leaves the old one unusable, so that nothing overtakes what was refused. */
static uint64_t recover(struct relay *r)
{
    struct relay_batch *b = &r->batch;
    uint64_t delay = NOW;

    if (b->failed_fate == KAFKA_REFUSED) {
        delay = stop_on_event(r);
        if (!r->leading)
            return delay;
    } else {
        log_notice("could not publish ledger id %" PRId64 ": %s; trying again",
                   relay_batch_id(b, b->failed_row), b->failed_reason.text);
        delay = backoff_next_usec(&r->again_backoff);
    }
    drop_producer(r);
    return delay;
}

static uint64_t save(struct relay *r)
{
    struct error err;
    bool lost = false;
    int outcome = store_relay_save(r->pg, r->epoch, &r->gaps, &r->identity, &lost, &err);

    if (outcome != PG_DONE)
        return database_trouble(r, outcome, &err);
    if (lost)
        return fenced(r);
    bool rows = relay_batch_has_rows(&r->batch);
    relay_batch_free(&r->batch);
    r->unsaved = false;
    r->identity.known = false; /* written down */
    r->stats.high = r->gaps.high;
    r->stats.gaps = r->gaps.count;
    if (r->stopped_on)
        log_notice("Kafka has taken ledger id %" PRId64 "; the relay goes on", r->stopped_on);
    r->stopped_on = 0;
    r->stats.trouble = RELAY_FINE;
    backoff_reset(&r->again_backoff);
    if (rows)
        r->idle_usec = 0;
    return rows ? NOW : idle(r);
}

/* Counts what was delivered in one look, and notices when Kafka goes and comes. */
static void note_progress(struct relay *r, size_t delivered)
{
    uint64_t now = now_monotonic_usec();

    r->stats.published += delivered;
    if (delivered > 0) {
        r->progress_at = now;
        r->nobody = false;
        kafka_back(r);
    } else if (r->nobody && now - r->progress_at > TURN_USEC) {
        kafka_lost(r, "could not reach Kafka: no broker can be reached");
    } else if (now - r->progress_at > SILENCE_USEC) {
        kafka_lost(r, "could not reach Kafka: no answer");
    }
}

/* Sends and waits for reports, a second at most. */
static uint64_t publish(struct relay *r)
{
    struct relay_batch *b = &r->batch;
    struct error err;
    uint64_t until = now_monotonic_usec() + TURN_USEC;
    bool over = false;

    if (b->on_the_way == 0)
        r->progress_at = now_monotonic_usec();
    do {
        size_t before = b->delivered;
        relay_batch_send(b, &r->builder, &r->topics, r->producer);
        int state = b->on_the_way ? kafka_producer_poll(r->producer, POLL_MS, relay_batch_report, b, &err)
                                  : KAFKA_QUIET;
        r->nobody |= state == KAFKA_NOBODY;
        over |= state == KAFKA_DONE_FOR;
        if (state == KAFKA_DONE_FOR)
            relay_batch_fail(b, err.text);
        note_progress(r, b->delivered - before);
    } while (b->on_the_way > 0 && now_monotonic_usec() < until);
    if (relay_batch_is_done(b))
        return save(r);
    return b->failed_row && (b->on_the_way == 0 || over) ? recover(r) : NOW;
}

static void ignore(size_t number, enum kafka_fate fate, const char *reason, void *userdata)
{
    (void) number;
    (void) fate;
    (void) reason;
    (void) userdata;
}

/* Without anything on its way: does Kafka answer? */
static uint64_t watch_kafka(struct relay *r)
{
    struct error err;

    switch (kafka_producer_poll(r->producer, 0, ignore, NULL, &err)) {
    case KAFKA_NOBODY:
        /* Brokers end idle connections; whether they are away shows in a new one. */
        r->topics_ready = false;
        return NOW;
    case KAFKA_DONE_FOR:
        log_notice("the Kafka client has to start over: %s", err.text);
        drop_producer(r);
        return backoff_next_usec(&r->kafka_backoff);
    default:
        return NOW;
    }
}

static uint64_t turn(struct relay *r)
{
    uint64_t now = now_monotonic_usec();

    if (!r->pg)
        return open_session(r);
    if (!r->leading)
        return take_leadership(r);
    if (now >= r->check_at)
        return check_session(r);
    if (!r->producer)
        return open_producer(r);
    if (r->batch.on_the_way == 0 && (!r->topics_ready || (now >= r->look_at && !r->batch.result)))
        return look_at_topics(r);
    if (r->batch.result)
        return r->safe ? publish(r) : make_safe(r);
    if (now < r->rest_until)
        return r->rest_until - now;
    uint64_t delay = watch_kafka(r);
    if (delay != NOW || !r->producer || !r->topics_ready)
        return delay;
    delay = read_batch(r);
    return delay == NOW && !r->batch.result && r->pg ? idle(r) : delay;
}

/* --- the thread
 * ---------------------------------------------------------------------------------------------------- */

static void wait_for_turn(struct relay *r, uint64_t delay)
{
    uint64_t until = now_monotonic_usec() + delay, now;
    /* Only who waits for events is woken by them. */
    bool interruptible = r->leading && r->stats.trouble == RELAY_FINE;

    while ((now = now_monotonic_usec()) < until && !stopping(r)) {
        struct pollfd fds[] = {{.fd = r->params.stop_fd, .events = POLLIN},
                               {.fd = interruptible ? r->wake_fd : -1, .events = POLLIN}};
        heartbeat_beat(r->params.heartbeat);
        if (poll(fds, ARRAY_SIZE(fds), (int) (MIN(until - now, TURN_USEC) / USEC_PER_MSEC + 1)) > 0 &&
            fds[1].revents)
            break;
    }
}

/* What is on its way is waited for and written down, or it would be published twice. */
static void finish(struct relay *r)
{
    uint64_t until = now_monotonic_usec() + STOP_USEC;

    while (r->leading && r->producer && r->batch.result && r->safe && r->stats.trouble == RELAY_FINE &&
           now_monotonic_usec() < until) {
        heartbeat_beat(r->params.heartbeat);
        publish(r);
    }
    give_up_leadership(r);
    pg_close(TAKE_PTR(r->pg));
}

static void *run(void *userdata)
{
    struct relay *r = userdata;
    pthread_setname_np(pthread_self(), "relay");

    while (!stopping(r)) {
        heartbeat_beat(r->params.heartbeat);
        wakefd_clear(r->wake_fd);
        uint64_t delay = turn(r);
        if (delay != NOW)
            wait_for_turn(r, delay);
    }
    finish(r);
    return NULL;
}

static void free_relay(struct relay *r)
{
    relay_topics_free(&r->topics);
    event_builder_free(&r->builder);
    closep(&r->wake_fd);
    closep(&r->abandon_fd);
    config_unref(r->config);
    free(r);
}

int relay_start(struct relay **ret, const struct relay_params *params, struct error *err)
{
    struct relay *r = xcalloc(1, sizeof(*r));

    r->params = *params;
    r->config = config_ref(params->config);
    r->wake_fd = wakefd_new();
    r->abandon_fd = wakefd_new();
    r->database_backoff = r->kafka_backoff = r->again_backoff =
        (struct backoff){.base_usec = 250 * USEC_PER_MSEC, .max_usec = 10 * USEC_PER_SEC};
    relay_topics_init(&r->topics, r->config->kafka.topic_prefix);
    int code = pthread_create(&r->thread, NULL, run, r);
    if (code != 0) {
        error_set(err, "could not start the relay's thread: %s", strerror(code));
        free_relay(r);
        return -code;
    }
    *ret = r;
    return 0;
}

void relay_wake(struct relay *r)
{
    if (r)
        wakefd_raise(r->wake_fd);
}

void relay_join(struct relay *r)
{
    struct timespec until;

    if (!r)
        return;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += ABANDON_SEC;
    if (pthread_timedjoin_np(r->thread, NULL, &until) != 0) {
        wakefd_raise(r->abandon_fd);
        pthread_join(r->thread, NULL);
    }
    free_relay(r);
}

const struct relay_stats *relay_stats(const struct relay *r)
{
    return &r->stats;
}
