/* Is Kafka ahead of the database? See relay_internal.h. On the relay's thread.
 *
 * A server that is recovered to an earlier time, or a standby that is promoted, leaves ids out by itself
 * (ledger_go_on() in sql/). One that a snapshot of its disks has set back cannot tell: only Kafka knows that
 * it has given out more ids before. */
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "relay/relay_internal.h"

/* Ours, and those of the last leader where they have other names: what it had published, Kafka has there. */
#define TOPICS_MAX (2 * EVENT_TYPES)
/* Of each partition: another installation may have written the last ones. */
#define MESSAGES 100
#define POLL_MS 200
#define LOOK_MAX_USEC (10 * USEC_PER_SEC)
/* What says more is invented. */
#define SEQUENCE_MAX (INT64_C(1) << 52)

static bool equals(struct bytes value, const char *text)
{
    return value.p && value.len == strlen(text) && memcmp(value.p, text, value.len) == 0;
}

static void note_message(struct relay *relay)
{
    struct relay_tail *tail = &relay->kafka.tail;
    struct bytes sequence = kafka_tail_header(tail->reader, "sequence");
    struct bytes time = kafka_tail_header(tail->reader, "timestamp");
    CLEANUP(freep) char *text = sequence.p ? xstrndup(sequence.p, sequence.len) : NULL;
    struct store_relay_known event;

    if (!text || !time.p ||
        !equals(kafka_tail_header(tail->reader, "installation"), relay->sending.builder.installation) ||
        parse_i64(text, 1, SEQUENCE_MAX, &event.id) != 0 ||
        parse_timestamp(time.p, time.len, &event.created_at) != 0)
        return;
    tail->known_events =
        xreallocarray(tail->known_events, tail->known_count + 1, sizeof(*tail->known_events));
    tail->known_events[tail->known_count++] = event;
}

/* With as many partitions as they had last; none where nobody has published in one. */
static int add_former(struct relay *relay, struct kafka_tail_topic *topics, char **names, struct error *err)
{
    for (size_t i = 0; i < EVENT_TYPES; i++) {
        CLEANUP(pg_result_freep) struct pg_result *counts = NULL;
        names[i] = event_type_topic((enum event_type) i, relay->session.former_prefix);
        int r = store_relay_partitions(relay->session.pg, names[i], &counts, err);
        if (r < 0)
            return r;
        int rows = pg_rows(counts);
        topics[i] = (struct kafka_tail_topic){names[i], rows > 0 ? (int) pg_get_i64(counts, rows - 1, 1) : 0};
    }
    return 0;
}

static uint64_t begin(struct relay *relay)
{
    struct relay_tail *tail = &relay->kafka.tail;
    struct kafka_tail_topic topics[TOPICS_MAX];
    char *former[EVENT_TYPES] = {NULL};
    size_t count = EVENT_TYPES;
    struct error err;
    int r = 0;

    for (size_t i = 0; i < EVENT_TYPES; i++)
        topics[i] =
            (struct kafka_tail_topic){relay->kafka.topics.items[i].name, relay->kafka.topics.items[i].actual};
    if (relay->session.former_prefix) {
        r = add_former(relay, topics + count, former, &err);
        count = TOPICS_MAX;
    }
    int created = r < 0 ? 0 : kafka_tail_new(&tail->reader, relay->config, topics, count, MESSAGES, &err);
    for (size_t i = 0; i < EVENT_TYPES; i++)
        free(former[i]);
    if (r < 0)
        return relay_lose_session(relay, r, &err);
    if (created < 0) {
        relay_kafka_lost(relay, err.text);
        return backoff_next_usec(&relay->kafka.backoff);
    }
    tail->until = now_monotonic_usec() + LOOK_MAX_USEC;
    return NOW;
}

static void say_leap(const struct store_relay_leap *leap)
{
    CLEANUP(freep) char *since = NULL;

    if (leap->moved > 0)
        since = xasprintf("; events %" PRId64 " to %" PRId64
                          ", which were written since and are not published yet, are %" PRId64 " to %" PRId64
                          " from now on",
                          leap->old_first, leap->old_first + leap->moved - 1, leap->new_first,
                          leap->new_first + leap->moved - 1);
    else if (leap->old_first > 0)
        since = xasprintf("; ids %" PRId64 " to %" PRId64
                          " were given out since, and Kafka may have other events with the same ids",
                          leap->old_first, leap->drawn);
    log_line(LOG_WARNING, MSG_DATABASE_SET_BACK,
             "Kafka has events of this installation up to ledger id %" PRId64
             ", which this database does not have: it was set back to an earlier time. Ids go on at "
             "%" PRId64 "%s",
             leap->newest, leap->next, since ? since : "");
}

static uint64_t compare(struct relay *relay)
{
    struct relay_tail *tail = &relay->kafka.tail;
    struct store_relay_leap leap;
    struct error err;
    int r = store_relay_leap(relay->session.pg, relay->position.gaps.high, tail->known_events,
                             tail->known_count, &leap, &err);

    if (r == 0 && leap.newest > 0)
        say_leap(&leap);
    if (r == 0)
        r = relay_note_prefix(relay, &err);
    if (r < 0)
        return relay_lose_session(relay, r, &err);
    relay_end_tail(relay);
    tail->known = true;
    return NOW;
}

uint64_t relay_look_at_tail(struct relay *relay)
{
    struct relay_tail *tail = &relay->kafka.tail;
    uint64_t until = now_monotonic_usec() + RELAY_TURN_USEC;
    struct error err;

    if (!tail->reader)
        return begin(relay);
    while (now_monotonic_usec() < until) {
        enum kafka_tail_result result = kafka_tail_next(tail->reader, POLL_MS, &err);
        if (result == KAFKA_TAIL_MESSAGE)
            note_message(relay);
        else if (result == KAFKA_TAIL_REFUSED && trouble_begins(&tail->refused))
            log_notice("the relay looks for the newest events in Kafka: %s; goes on without", err.text);
        else if (result == KAFKA_TAIL_END)
            return compare(relay);
    }
    if (now_monotonic_usec() < tail->until)
        return NOW;
    log_notice(
        "the relay looked for the newest events in Kafka, and not all partitions have answered; goes on "
        "without");
    return compare(relay);
}

void relay_end_tail(struct relay *relay)
{
    kafka_tail_free(relay->kafka.tail.reader);
    free(relay->kafka.tail.known_events);
    relay->kafka.tail = (struct relay_tail){0};
}
