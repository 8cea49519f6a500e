/* From the ledger to Kafka, a batch at a time. See relay_internal.h. On the relay's thread. */
#include <errno.h>
#include <inttypes.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "relay/relay_internal.h"

/* Between reads, so that a batch is worth its statements. After a silence events go out at once: what one
 * subscription causes comes in two batches. */
#define PACE_USEC (50 * USEC_PER_MSEC)
#define SILENCE_USEC (200 * USEC_PER_MSEC)
#define KAFKA_SILENCE_USEC (10 * USEC_PER_SEC) /* Kafka is away when it takes no message for so long */
#define POLL_MS 100
#define REACHED_USEC USEC_PER_SEC
/* After a read that takes long (gaps full of rows that are not committed yet) the database gets as much time
 * without a read. */
#define LONG_READ_USEC (20 * USEC_PER_MSEC)

#define ROWS_MAX 3000
#define BYTES_MAX ((int64_t) 4 << 20)

/* While the rows of a large transaction are published, others overtake them: the look which may costs a walk
 * through all those rows, so the rows themselves get four times as long; a minute, when the walk takes
 * longer than a statement may. A backlog of less than a second is not worth it. Each row that may not
 * overtake leaves a gap. */
#define OVERTAKE_REST 4
#define OVERTAKE_PAUSE_USEC (250 * USEC_PER_MSEC)
#define OVERTAKE_REFUSED_USEC (60 * USEC_PER_SEC)
#define OVERTAKE_BACKLOG_USEC USEC_PER_SEC
#define OVERTAKE_GAPS 2000

/* --- from the ledger -------------------------------------------------------------------------- */

uint64_t relay_idle(struct relay *relay)
{
    struct relay_position *position = &relay->position;
    uint64_t longest = MIN(relay->config->delivery.poll_interval_usec, RELAY_TURN_USEC);

    position->idle_usec = MIN(position->idle_usec ? position->idle_usec * 2 : PACE_USEC, longest);
    return position->idle_usec;
}

/* When the next read may be, after one that began at `start`. */
static void pace(struct relay_position *position, const struct relay_batch *b, uint64_t start)
{
    uint64_t now = now_monotonic_usec();

    if (!b->full && now - start > LONG_READ_USEC)
        position->rest_until = now + (now - start);
    if (!relay_batch_has_rows(b))
        return;
    if (!b->full && start - position->rows_at < SILENCE_USEC)
        position->rest_until = MAX(position->rest_until, start + PACE_USEC);
    position->rows_at = start;
}

/* The id above which rows are to overtake those that wait; 0 = not now. What a large transaction has left
 * within the gaps is overtaken by all above them; a backlog, by its newest rows. */
static int overtake_from(struct relay *relay, int64_t *ret, struct error *err)
{
    struct relay_position *position = &relay->position;
    uint64_t now = now_monotonic_usec();
    int64_t next;

    *ret = 0;
    if (position->waiting == NOTHING_WAITS || now < position->overtake_at ||
        position->gaps.count > OVERTAKE_GAPS)
        return 0;
    if (position->waiting == WITHIN_GAPS) {
        *ret = position->gaps.high;
        return 0;
    }
    position->backlog_since = position->backlog_since ? position->backlog_since : now;
    if (now - position->backlog_since < OVERTAKE_BACKLOG_USEC)
        return 0;
    int r = store_relay_next_id(relay->session.pg, &next, err);
    if (r == 0)
        *ret = MAX(position->gaps.high, next - 1 - ROWS_MAX);
    return r;
}

/* Reads rows that may overtake those that wait, if it is time for them; *ret stays NULL when there are none.
 * A refusal (there are too many rows to look through, say) is no trouble: they come in their turn. */
static int overtake(struct relay *relay, struct pg_result **ret, struct error *err)
{
    struct relay_position *position = &relay->position;
    CLEANUP(freep) int64_t *ids = NULL;
    uint64_t start = now_monotonic_usec();
    size_t count = 0;
    int64_t from;
    int r = overtake_from(relay, &from, err);

    if (r < 0 || from == 0)
        return r;
    r = store_relay_overtake(relay->session.pg, &position->gaps, from, ROWS_MAX, &ids, &count, err);
    uint64_t now = now_monotonic_usec();
    position->overtake_at = now + MAX(OVERTAKE_REST * (now - start), OVERTAKE_PAUSE_USEC);
    if (r == -EBADMSG) {
        log_debug("relay: %s", err->text);
        position->overtake_at = now + OVERTAKE_REFUSED_USEC;
        return 0;
    }
    if (r != 0 || count == 0)
        return r;
    return store_relay_read_ids(relay->session.pg, ids, count, BYTES_MAX, ret, err);
}

static int read_rows(struct relay *relay, struct error *err)
{
    struct relay_position *position = &relay->position;
    struct relay_batch *b = &relay->sending.batch;
    struct pg_result *result = NULL;
    int r = overtake(relay, &result, err);

    if (r == 0 && result)
        return relay_batch_take(b, result, &position->gaps, 0, err);
    if (r == 0)
        r = store_relay_read(relay->session.pg, &position->gaps, ROWS_MAX, BYTES_MAX, &result, err);
    if (r == 0)
        r = relay_batch_take(b, result, &position->gaps, ROWS_MAX, err);
    position->waiting = r < 0 || !b->full ? NOTHING_WAITS : b->within_gaps ? WITHIN_GAPS : ABOVE_GAPS;
    if (position->waiting != ABOVE_GAPS)
        position->backlog_since = 0;
    return r;
}

uint64_t relay_read_batch(struct relay *relay)
{
    struct relay_position *position = &relay->position;
    struct relay_batch *b = &relay->sending.batch;
    struct error err;
    uint64_t start = now_monotonic_usec();
    size_t gaps_before = position->gaps.count;
    int r = relay_look_into_holes(relay, &err);

    if (r == 0)
        r = read_rows(relay, &err);
    if (r == 0)
        r = relay_names_ask(&relay->sending.names, relay->session.pg, b->result, b->rows, start, &err);
    if (r < 0)
        return relay_lose_session(relay, r, &err);
    b->names = &relay->sending.names;
    pace(position, b, start);
    position->flushed = false;
    if (!relay_batch_has_rows(b) && !gaps_need_horizon(&position->gaps) &&
        position->gaps.count == gaps_before)
        relay_batch_free(b); /* the saved position holds all of this */
    return NOW;
}

uint64_t relay_ensure_flushed(struct relay *relay)
{
    struct relay_session *session = &relay->session;
    struct error err;
    int64_t xid = 0;
    bool flushed = false;
    int r = 0;

    if (!gaps_need_horizon(&relay->position.gaps))
        r = store_relay_is_flushed(session->pg, &session->lead, relay->sending.batch.wal_position, &flushed,
                                   &err);
    if (r == 0 && !flushed)
        r = store_relay_mark(session->pg, &session->lead, &xid, &err);
    if (r != 0)
        return relay_lose_session(relay, r, &err);
    if (!flushed)
        gaps_stamp(&relay->position.gaps, xid);
    relay->position.flushed = true;
    return NOW;
}

static void say_lost(const char *topic, int64_t partitions)
{
    if (partitions > 0)
        log_about(LOG_WARNING, MSG_CONSUMER_GAP, &(const struct log_about){.kafka_topic = topic},
                  "%" PRId64
                  " partition%s of \"%s\" ended before what had been published there: Kafka has lost "
                  "the end. Events of it that a consumer group had not read are published again",
                  partitions, plural(partitions), topic);
}

/* What the database has lost, should it be set back, is looked for behind. The first message of a partition
 * is noted at once: nobody else tells where it stands. */
static int save_reached(struct relay *relay, struct error *err)
{
    uint64_t now = now_monotonic_usec();
    size_t places = kafka_producer_places(relay->kafka.producer);
    int r = 0;

    if (now < relay->kafka.reached_at && places == relay->kafka.places)
        return 0;
    for (size_t i = 0; r == 0 && i < EVENT_TYPES; i++) {
        int partitions;
        int64_t lost = 0;
        const char *topic = relay->kafka.topics.items[i].name;
        const struct kafka_reached *reached = kafka_producer_reached(relay->kafka.producer, i, &partitions);
        if (partitions > 0)
            r = store_relay_reached(relay->session.pg, relay->session.lead.epoch, topic, reached, partitions,
                                    &lost, err);
        say_lost(topic, lost);
    }
    if (r == 0)
        kafka_producer_forget_first(relay->kafka.producer);
    relay->kafka.reached_at = now + REACHED_USEC;
    relay->kafka.places = places;
    return r;
}

static uint64_t save(struct relay *relay)
{
    struct relay_session *session = &relay->session;
    struct relay_sending *sending = &relay->sending;
    const struct gaps *gaps = &relay->position.gaps;
    struct error err;
    int r = store_relay_save(session->pg, &session->lead, gaps, &session->identity, &err);

    if (r != 0)
        return relay_lose_session(relay, r, &err);
    gaps_were_saved(&relay->position.gaps);
    r = save_reached(relay, &err);
    if (r != 0)
        return relay_lose_session(relay, r, &err);
    bool rows = relay_batch_has_rows(&sending->batch);
    relay_batch_free(&sending->batch);
    session->identity.known = false; /* it is saved */
    relay_works(relay, true);
    relay->stats.high = gaps->high;
    relay->stats.gaps = gaps->count;
    if (sending->stopped_on)
        log_notice("Kafka has accepted ledger id %" PRId64 "; the relay goes on", sending->stopped_on);
    sending->stopped_on = 0;
    relay->stats.trouble = RELAY_FINE;
    backoff_reset(&sending->backoff);
    relay_restore_batches(relay);
    if (rows)
        relay->position.idle_usec = 0;
    return rows ? NOW : relay_idle(relay);
}

/* --- to Kafka --------------------------------------------------------------------------------- */

static void say_stopped(struct relay *relay, const struct event *e, const struct event_message *m)
{
    const char *reason = relay->sending.batch.failed_reason.text;
    const char *topic = relay->kafka.topics.items[m->type].name;
    const char *event_id = e->event_id ? relay->sending.builder.event_id : "";
    const struct log_about about = {.event_id = event_id,
                                    .subscription_id = e->subscription.id.value,
                                    .kafka_topic = topic,
                                    .error = reason};
    log_about(LOG_ALERT, MSG_RELAY_STOPPED, &about,
              "Kafka refuses event %s (ledger id %" PRId64
              ", %zu bytes) on topic \"%s\": %s. The relay publishes nothing until Kafka accepts this event; "
              "trying again",
              event_id, e->id, m->value.len, topic, reason);
}

/* Kafka refuses one event: no other event overtakes it, and an administrator has to know. */
static uint64_t stop_on_event(struct relay *relay)
{
    struct relay_session *session = &relay->session;
    struct relay_sending *sending = &relay->sending;
    struct event event;
    struct event_message m;
    struct error err;
    int r = 0;

    relay_batch_event(&sending->batch, sending->batch.failed_row, &event);
    if (sending->stopped_on != event.id && event_build(&sending->builder, &event, &m)) {
        say_stopped(relay, &event, &m);
        r = store_relay_stop(session->pg, &session->lead, event.id, sending->batch.failed_reason.text, &err);
    }
    if (r != 0)
        return relay_lose_session(relay, r, &err);
    sending->stopped_on = event.id;
    relay->stats.trouble = RELAY_STOPPED;
    return backoff_next_usec(&sending->backoff);
}

/* Only when each event goes alone, a refusal shows its event. */
static bool isolate_refused(struct relay *relay)
{
    const struct relay_batch *b = &relay->sending.batch;

    if (!relay_shrink_batches(relay))
        return false;
    if (trouble_begins(&relay->kafka.refuses_batches))
        log_notice("Kafka refuses a batch with ledger id %" PRId64 ": %s; sending smaller batches",
                   relay_batch_id(b, b->failed_row), b->failed_reason.text);
    return true;
}

/* With a new producer: a refusal breaks the old one, so that nothing overtakes the refused event. */
static uint64_t recover(struct relay *relay)
{
    const struct relay_batch *b = &relay->sending.batch;
    uint64_t delay = NOW;

    if (b->failed_fate != KAFKA_REFUSED) {
        log_notice("could not publish ledger id %" PRId64 ": %s; trying again",
                   relay_batch_id(b, b->failed_row), b->failed_reason.text);
        delay = backoff_next_usec(&relay->sending.backoff);
    } else if (!isolate_refused(relay)) {
        delay = stop_on_event(relay);
    }
    relay_drop_producer(relay);
    return delay;
}

/* Notices when Kafka goes and comes. */
static void note_progress(struct relay *relay, size_t delivered)
{
    struct relay_sending *sending = &relay->sending;
    uint64_t now = now_monotonic_usec();

    if (delivered > 0) {
        sending->progress_at = now;
        sending->no_broker.text[0] = '\0';
        sending->stuck.since = sending->stuck.patience_usec = 0;
        relay_kafka_back(relay);
    } else if (*sending->no_broker.text && now - sending->progress_at > RELAY_TURN_USEC) {
        relay_kafka_lost(relay, sending->no_broker.text);
    } else if (now - sending->progress_at > KAFKA_SILENCE_USEC) {
        relay_kafka_silent(relay);
    }
}

/* Kafka has taken nothing for long: it may be for the client to start over. */
static uint64_t wait_on(struct relay *relay)
{
    const struct relay_sending *sending = &relay->sending;
    uint64_t silence = now_monotonic_usec() - sending->progress_at;

    if (sending->batch.on_the_way == 0 || silence < KAFKA_SILENCE_USEC || !relay_producer_is_stuck(relay))
        return NOW;
    log_notice("Kafka answers, and has taken none of %zu events for %" PRIu64
               " s: the client starts over, and sends again what it cannot know to be there",
               sending->batch.on_the_way, silence / USEC_PER_SEC);
    relay_drop_producer(relay);
    return NOW;
}

uint64_t relay_publish(struct relay *relay)
{
    struct relay_sending *sending = &relay->sending;
    struct relay_batch *b = &sending->batch;
    struct error err;
    uint64_t until = now_monotonic_usec() + RELAY_TURN_USEC;
    bool broken = false;

    if (b->on_the_way == 0)
        sending->progress_at = now_monotonic_usec();
    do {
        size_t before = b->delivered;
        relay_batch_send(b, &sending->builder, &relay->kafka.topics, relay->kafka.producer);
        int r = b->on_the_way
                    ? kafka_producer_poll(relay->kafka.producer, POLL_MS, relay_batch_report, b, &err)
                    : KAFKA_QUIET;
        if (r == KAFKA_NO_BROKER)
            sending->no_broker = err;
        broken |= r == KAFKA_BROKEN;
        if (r == KAFKA_BROKEN)
            relay_batch_fail(b, err.text);
        note_progress(relay, b->delivered - before);
    } while (b->on_the_way > 0 && now_monotonic_usec() < until);
    if (relay_batch_is_done(b))
        return save(relay);
    return b->failed_row && (b->on_the_way == 0 || broken) ? recover(relay) : wait_on(relay);
}
