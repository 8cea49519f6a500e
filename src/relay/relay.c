/* The relay's thread. See relay.h.
 *
 * One turn after the other: session, leadership, producer, topics; then a batch is read, made safe, sent, and
 * written down once all of it is delivered. A turn waits a second at most, and whatever it cannot do is tried
 * again later.
 *
 * Leadership is the session: with it everything is given up, also what is on its way to Kafka, and the saved
 * state says where to go on. The epoch in that state fences off a leader who does not know yet that he is
 * none. */
#include "relay/relay.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "pg/pg_session.h"
#include "pg/schema.h"
#include "relay/relay_internal.h"

#define STANDBY_USEC (2 * USEC_PER_SEC) /* between tries to become the leader */
#define CHECK_USEC (5 * USEC_PER_SEC)   /* between looks at session and schema */
#define STOP_USEC (4 * USEC_PER_SEC)    /* what is on its way at a stop may take so long */
#define ABANDON_SEC 7                   /* and the database with it */
#define STATEMENT_USEC (10 * USEC_PER_SEC)

/* --- session and leadership ------------------------------------------------------------------- */

static void give_up_leadership(struct relay *r)
{
    if (r->leading)
        log_event(LOG_INFO, MSG_RELAY_LEADER, NULL, "the relay gave up the lead");
    r->leading = false;
    r->stats.leader = false;
    relay_drop_producer(r);
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
    r->shown = RELAY_FINE;
    r->stats.trouble = RELAY_NO_DATABASE;
    return backoff_next_usec(&r->database_backoff);
}

/* That the database is away is said by the dispatcher; what it refuses to the relay alone is said here. */
uint64_t relay_database_trouble(struct relay *r, int outcome, const struct error *err)
{
    if (outcome == -ECONNRESET || outcome == -ECANCELED || outcome > 0)
        log_debug("relay: %s", err->text);
    else if (!r->said_database)
        log_warning("the relay could not use the database: %s; trying again", err->text);
    r->said_database |= outcome == -EBADMSG || outcome == -EPERM;
    return give_up_session(r);
}

uint64_t relay_fenced(struct relay *r)
{
    log_warning("another daemon's relay has taken the lead; this one starts over");
    return give_up_session(r);
}

static uint64_t open_session(struct relay *r)
{
    struct error err;
    struct pg_params params = pg_session_params(r->config, STORE_RELAY_SESSION, STATEMENT_USEC);

    params.stop_fd = r->abandon_fd;
    int outcome = pg_open(&r->pg, &params, &err);

    /* Whoever is not let in, the dispatcher is not either. */
    if (outcome != PG_DONE)
        return relay_database_trouble(r, -ECONNRESET, &err);
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
        return relay_database_trouble(r, outcome, &err);
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
    return outcome == 0 ? NOW : relay_database_trouble(r, outcome, &err);
}

/* --- the thread ------------------------------------------------------------------------------- */

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
        return relay_open_producer(r);
    if (r->batch.on_the_way == 0 && (!r->topics_ready || (now >= r->look_at && !r->batch.result)))
        return relay_look_at_topics(r);
    if (r->batch.result)
        return r->safe ? relay_publish(r) : relay_make_safe(r);
    if (now < r->rest_until)
        return r->rest_until - now;
    uint64_t delay = relay_watch_kafka(r);
    if (delay != NOW || !r->producer || !r->topics_ready)
        return delay;
    delay = relay_read_batch(r);
    return delay == NOW && !r->batch.result && r->pg ? relay_idle(r) : delay;
}

/* For anubisctl status, which knows the database alone. Being stopped on an event stands in the state. */
static void show_trouble(struct relay *r)
{
    static const char *const words[] = {
        [RELAY_NO_KAFKA] = "Kafka is away", [RELAY_NO_TOPIC] = "topics are missing"};
    enum relay_trouble trouble = r->stats.trouble;
    struct error err;

    if (!r->leading || trouble == r->shown)
        return;
    r->shown = trouble;
    int outcome = store_relay_show_trouble(
        r->pg, trouble < ARRAY_SIZE(words) && words[trouble] ? words[trouble] : "", &err);
    if (outcome != PG_DONE)
        relay_database_trouble(r, outcome, &err);
}

static bool stopping(const struct relay *r)
{
    struct pollfd fd = {.fd = r->params.stop_fd, .events = POLLIN};
    return poll(&fd, 1, 0) > 0;
}

static void wait_for_turn(struct relay *r, uint64_t delay)
{
    uint64_t until = now_monotonic_usec() + delay, now;
    /* Only who waits for events is woken by them. */
    bool interruptible = r->leading && r->stats.trouble == RELAY_FINE && !r->batch.result;

    while ((now = now_monotonic_usec()) < until && !stopping(r)) {
        struct pollfd fds[] = {{.fd = r->params.stop_fd, .events = POLLIN},
                               {.fd = interruptible ? r->wake_fd : -1, .events = POLLIN}};
        heartbeat_beat(r->params.heartbeat);
        if (poll(fds, ARRAY_SIZE(fds), (int) (MIN(until - now, RELAY_TURN_USEC) / USEC_PER_MSEC + 1)) > 0 &&
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
        relay_publish(r);
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
        show_trouble(r);
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
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += ABANDON_SEC;
    if (pthread_clockjoin_np(r->thread, NULL, CLOCK_MONOTONIC, &until) != 0) {
        wakefd_raise(r->abandon_fd);
        pthread_join(r->thread, NULL);
    }
    free_relay(r);
}

const struct relay_stats *relay_stats(const struct relay *r)
{
    return &r->stats;
}
