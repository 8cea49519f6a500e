/* From the ledger to Kafka, a batch at a time. See relay_internal.h. On the relay's thread. */
#include <inttypes.h>
#include <stdio.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "relay/relay_internal.h"

#define FIRST_WAIT_USEC (4 * USEC_PER_MSEC)
#define SILENCE_USEC (10 * USEC_PER_SEC) /* Kafka counts as away when it takes nothing for so long */
#define POLL_MS 100
/* A read that takes long (gaps full of rows that are not committed yet) leaves the database as much time
 * without it. */
#define LONG_READ_USEC (20 * USEC_PER_MSEC)

#define ROWS_MAX 3000
#define BYTES_MAX ((int64_t) 4 << 20)

uint64_t relay_idle(struct relay *r)
{
    uint64_t longest = MIN(r->config->delivery.poll_interval_usec, RELAY_TURN_USEC);

    r->idle_usec = MIN(r->idle_usec ? r->idle_usec * 2 : FIRST_WAIT_USEC, longest);
    return r->idle_usec;
}

uint64_t relay_read_batch(struct relay *r)
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
        return relay_database_trouble(r, outcome, &err);
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
uint64_t relay_make_safe(struct relay *r)
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
        return relay_database_trouble(r, outcome, &err);
    if (lost)
        return relay_fenced(r);
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
                 event.event_id.p ? event.event_id.p : "");
        snprintf(subscription, sizeof(subscription), "%" PRId64, event.subscription_id.value);
        const struct log_field fields[] = {{"EVENT_ID", event_id},
                                           {"SUBSCRIPTION_ID", subscription},
                                           {"KAFKA_TOPIC", r->topics.items[m.type].name},
                                           {"ERROR", b->failed_reason.text},
                                           {NULL, NULL}};
        log_event(LOG_ALERT, MSG_RELAY_STOPPED, fields,
                  "Kafka refuses event %s (ledger id %" PRId64
                  ", %zu bytes) on topic \"%s\": %s. Nothing is published until it is taken; "
                  "trying again",
                  event_id, event.id, m.value.len, r->topics.items[m.type].name, b->failed_reason.text);
        int outcome = store_relay_stop(r->pg, r->epoch, event.id, b->failed_reason.text, &lost, &err);
        if (outcome != PG_DONE)
            return relay_database_trouble(r, outcome, &err);
        if (lost)
            return relay_fenced(r);
    }
    r->stopped_on = event.id;
    r->stats.trouble = RELAY_STOPPED;
    return backoff_next_usec(&r->again_backoff);
}

/* Whom a refusal is about shows only when each event goes alone. */
static bool tell_apart(struct relay *r)
{
    const struct relay_batch *b = &r->batch;

    if (!relay_shrink_batches(r))
        return false;
    if (!r->said_batches)
        log_notice("Kafka refuses a batch with ledger id %" PRId64 ": %s; sending smaller ones",
                   relay_batch_id(b, b->failed_row), b->failed_reason.text);
    r->said_batches = true;
    return true;
}

/* With a new producer: a refusal leaves the old one unusable, so that nothing overtakes what was refused. */
static uint64_t recover(struct relay *r)
{
    struct relay_batch *b = &r->batch;
    uint64_t delay = NOW;

    if (b->failed_fate == KAFKA_REFUSED && tell_apart(r)) {
        delay = NOW;
    } else if (b->failed_fate == KAFKA_REFUSED) {
        delay = stop_on_event(r);
        if (!r->leading)
            return delay;
    } else {
        log_notice("could not publish ledger id %" PRId64 ": %s; trying again",
                   relay_batch_id(b, b->failed_row), b->failed_reason.text);
        delay = backoff_next_usec(&r->again_backoff);
    }
    relay_drop_producer(r);
    return delay;
}

static uint64_t save(struct relay *r)
{
    struct error err;
    bool lost = false;
    int outcome = store_relay_save(r->pg, r->epoch, &r->gaps, &r->identity, &lost, &err);

    if (outcome != PG_DONE)
        return relay_database_trouble(r, outcome, &err);
    if (lost)
        return relay_fenced(r);
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
    relay_restore_batches(r);
    if (rows)
        r->idle_usec = 0;
    return rows ? NOW : relay_idle(r);
}

/* Counts what was delivered in one look, and notices when Kafka goes and comes. */
static void note_progress(struct relay *r, size_t delivered)
{
    uint64_t now = now_monotonic_usec();

    r->stats.published += delivered;
    if (delivered > 0) {
        r->progress_at = now;
        r->nobody.text[0] = '\0';
        relay_kafka_back(r);
    } else if (*r->nobody.text && now - r->progress_at > RELAY_TURN_USEC) {
        relay_kafka_lost(r, r->nobody.text);
    } else if (now - r->progress_at > SILENCE_USEC) {
        relay_kafka_lost(r, "could not reach Kafka: no answer");
    }
}

/* Sends and waits for reports, a second at most. */
uint64_t relay_publish(struct relay *r)
{
    struct relay_batch *b = &r->batch;
    struct error err;
    uint64_t until = now_monotonic_usec() + RELAY_TURN_USEC;
    bool over = false;

    if (b->on_the_way == 0)
        r->progress_at = now_monotonic_usec();
    do {
        size_t before = b->delivered;
        relay_batch_send(b, &r->builder, &r->topics, r->producer);
        int state = b->on_the_way ? kafka_producer_poll(r->producer, POLL_MS, relay_batch_report, b, &err)
                                  : KAFKA_QUIET;
        if (state == KAFKA_NO_BROKER)
            r->nobody = err;
        over |= state == KAFKA_BROKEN;
        if (state == KAFKA_BROKEN)
            relay_batch_fail(b, err.text);
        note_progress(r, b->delivered - before);
    } while (b->on_the_way > 0 && now_monotonic_usec() < until);
    if (relay_batch_is_done(b))
        return save(r);
    return b->failed_row && (b->on_the_way == 0 || over) ? recover(r) : NOW;
}
