/* The relay's thread. See relay.h.
 *
 * One turn after the other: session, lead, producer, topics; then a batch is read, flushed, sent, and saved
 * once all of it is delivered. A turn waits a second at most; when it cannot do its work, the relay tries
 * again later.
 *
 * With its session the relay gives up everything, also messages on their way to Kafka; the saved position
 * says where the next leader goes on. */
#include "relay/relay.h"

#include "base/log.h"
#include "base/message_ids.h"
#include "relay/relay_internal.h"

#define STOP_USEC (4 * USEC_PER_SEC) /* for messages that are on their way at a stop */
#define ABANDON_SEC 7                /* after so long the thread no longer waits for the database */

static uint64_t turn(struct relay *relay)
{
    struct relay_session *session = &relay->session;
    struct relay_kafka *kafka = &relay->kafka;
    struct relay_position *position = &relay->position;
    struct relay_batch *batch = &relay->sending.batch;
    uint64_t now = now_monotonic_usec();

    if (!session->pg)
        return relay_open_session(relay);
    if (!session->leading)
        return relay_take_lead(relay);
    if (now >= session->check_at)
        return relay_check_session(relay);
    if (!kafka->producer)
        return relay_open_producer(relay);
    if (batch->on_the_way == 0 && (!kafka->topics_ready || (now >= kafka->look_at && !batch->result)))
        return relay_look_at_topics(relay);
    if (!kafka->tail.known)
        return relay_look_at_tail(relay);
    if (batch->result)
        return position->flushed ? relay_publish(relay) : relay_ensure_flushed(relay);
    if (now < position->rest_until)
        return position->rest_until - now;
    uint64_t delay = relay_watch_kafka(relay);
    if (delay != NOW || !kafka->producer || !kafka->topics_ready)
        return delay;
    delay = relay_read_batch(relay);
    return delay == NOW && !batch->result && !session->lost ? relay_idle(relay) : delay;
}

/* The producer first: messages must not leave any more when another relay may lead. */
static void give_up(struct relay *relay)
{
    if (relay->session.leading)
        log_line(LOG_INFO, MSG_RELAY_LEADER, "the relay gave up the lead");
    relay->session.leading = false;
    relay->stats.leader = false;
    relay_drop_producer(relay);
    relay_end_tail(relay);
    relay_batch_free(&relay->sending.batch);
    relay->sending.stuck.since = relay->sending.stuck.patience_usec = 0;
    relay_names_free(&relay->sending.names);
    gaps_free(&relay->position.gaps);
    relay->stats.gaps = 0;
    relay->stats.high = 0;
    pg_close(TAKE_PTR(relay->session.pg));
    relay->session.shown = RELAY_FINE;
    relay->session.lost = false;
}

static void wait_for_turn(struct relay *relay, uint64_t delay)
{
    /* Only a relay that waits for events is woken by them. */
    bool waits_for_events = relay->session.leading && relay->stats.trouble == RELAY_FINE &&
                            !relay->sending.batch.result &&
                            now_monotonic_usec() >= relay->position.rest_until;

    if (delay != NOW)
        worker_wait(&relay->worker, waits_for_events ? relay->wake_fd : -1, delay);
}

/* Messages that are on their way are waited for, and the position is saved: they would be published twice. */
static void finish(struct relay *relay)
{
    uint64_t until = now_monotonic_usec() + STOP_USEC;

    while (relay->session.leading && !relay->session.lost && relay->kafka.producer &&
           relay->sending.batch.result && relay->position.flushed && relay->stats.trouble == RELAY_FINE &&
           now_monotonic_usec() < until) {
        heartbeat_beat(relay->worker.heartbeat);
        relay_publish(relay);
    }
    give_up(relay);
}

static void *run(void *userdata)
{
    struct relay *relay = userdata;

    while (!worker_is_stopping(&relay->worker)) {
        heartbeat_beat(relay->worker.heartbeat);
        wakefd_clear(relay->wake_fd);
        relay_begin_turn(relay);
        uint64_t delay = turn(relay);
        relay_end_turn(relay);
        relay_show_trouble(relay);
        relay_consider_others(relay);
        if (relay->session.lost)
            give_up(relay);
        wait_for_turn(relay, delay);
    }
    finish(relay);
    return NULL;
}

static void free_relay(struct relay *relay)
{
    free(relay->session.former_prefix);
    relay_topics_free(&relay->kafka.topics);
    event_builder_free(&relay->sending.builder);
    closep(&relay->wake_fd);
    closep(&relay->abandon_fd);
    config_unref(relay->config);
    free(relay);
}

int relay_start(struct relay **ret, const struct relay_params *params, struct error *err)
{
    struct relay *relay = xcalloc(1, sizeof(*relay));

    relay->config = config_ref(params->config);
    relay->worker = (struct worker){.stop_fd = params->stop_fd, .heartbeat = params->heartbeat};
    relay->wake_fd = wakefd_new();
    relay->abandon_fd = wakefd_new();
    relay->session.backoff = relay->kafka.backoff = relay->sending.backoff = BACKOFF_RECONNECT;
    relay_topics_init(&relay->kafka.topics, relay->config->kafka.topic_prefix);
    int r = worker_start(&relay->worker, "relay", run, relay, err);
    if (r < 0)
        free_relay(relay);
    else
        *ret = relay;
    return r;
}

void relay_wake(struct relay *relay)
{
    if (relay)
        wakefd_raise(relay->wake_fd);
}

void relay_join(struct relay *relay)
{
    if (!relay)
        return;
    if (!worker_join(&relay->worker, ABANDON_SEC)) {
        wakefd_raise(relay->abandon_fd);
        pthread_join(relay->worker.thread, NULL);
    }
    free_relay(relay);
}

const struct relay_stats *relay_stats(const struct relay *relay)
{
    return &relay->stats;
}
