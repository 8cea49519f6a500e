/* Is Kafka ahead of the database? See relay_internal.h. On the relay's thread.
 *
 * A server that is recovered to an earlier time, or a standby that is promoted, leaves ids out by itself
 * (ledger_go_on() in sql/). One that a snapshot of its disks has set back cannot tell: only Kafka knows that
 * it has given out more ids before.
 *
 * What the database has lost was published after anything that it remembers. So of each partition the look
 * wants the messages back to the offset that the relay had reached, or our consumers; in a partition that had
 * none of ours, to one of ours that was published before, or to a time well before, whoever wrote them. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "relay/relay_internal.h"

/* Ours, and those of the last leader where they have other names: what it had published, Kafka has there. */
#define TOPICS_MAX (2 * EVENT_TYPES)
#define POLL_MS 200
/* The look is said when it takes so long, and when nothing comes. */
#define PATIENCE_USEC (10 * USEC_PER_SEC)
/* A new client asks when nothing has come for so long; the topics may have other partitions now. */
#define ANEW_USEC (30 * USEC_PER_SEC)
/* By which the clocks of brokers and other installations may be behind. */
#define CLOCKS_USEC (24 * 3600 * (int64_t) USEC_PER_SEC)
#define REFUSED_USEC (2 * USEC_PER_SEC)
#define COMPARE_MAX 1000 /* events in one statement */
/* A hundred times what a set-back database leaves out. What is further ahead is invented. */
#define AHEAD_MAX INT64_C(1000000000000)
#define SHOWN_MAX 40 /* characters of what somebody else wrote */

static bool equals(struct bytes value, const char *text)
{
    return value.p && value.len == strlen(text) && memcmp(value.p, text, value.len) == 0;
}

/* Whoever obeyed would leave out all ids that are left. The first one is named, the others are counted. */
static void note_invented(struct relay *relay, const struct kafka_tail_place *at, struct bytes sequence)
{
    struct relay_tail *tail = &relay->kafka.tail;
    const struct log_about about = {.kafka_topic = at->topic,
                                    .kafka_partition = at->partition,
                                    .kafka_offset = at->offset,
                                    .kafka_at = true};

    kafka_tail_distrust(tail->reader);
    if (tail->invented++ == 0)
        log_about(
            LOG_WARNING, MSG_UNKNOWN_EVENTS, &about,
            "the relay looks for the newest events in Kafka, and passes over a message in the name of this "
            "installation at offset %" PRId64 " of \"%s\", partition %d: its sequence \"%.*s\" or its time "
            "cannot be ours, whose ids go up to %" PRId64 " at most; somebody else wrote it",
            at->offset, at->topic, at->partition, (int) MIN(sequence.len, SHOWN_MAX),
            sequence.p ? sequence.p : "", tail->believed);
}

static void note_message(struct relay *relay)
{
    struct relay_tail *tail = &relay->kafka.tail;

    if (!equals(kafka_tail_header(tail->reader, "installation"), relay->sending.builder.installation))
        return;
    struct bytes sequence = kafka_tail_header(tail->reader, "sequence");
    struct bytes time = kafka_tail_header(tail->reader, "timestamp");
    CLEANUP(freep) char *text = sequence.p ? xstrndup(sequence.p, sequence.len) : NULL;
    struct store_relay_known event;
    struct kafka_tail_place at;

    kafka_tail_at(tail->reader, &at);
    if (!text || !time.p || parse_i64(text, 1, tail->believed, &event.id) != 0 ||
        parse_timestamp(time.p, time.len, &event.created_at) != 0) {
        note_invented(relay, &at, sequence);
        return;
    }
    /* Whoever copies messages may copy their times. */
    if (!at.known && at.time_usec <= tail->compared_at)
        kafka_tail_enough(tail->reader);
    if (event.id <= relay->position.gaps.high) {
        kafka_tail_vouch(tail->reader);
        return;
    }
    tail->events = xreallocarray(tail->events, tail->count + 1, sizeof(*tail->events));
    tail->events[tail->count++] = event;
}

/* What a long time has left there is more than one statement could take. */
static int find_lost(struct relay *relay, struct error *err)
{
    struct relay_tail *tail = &relay->kafka.tail;
    int r = store_relay_lost(relay->session.pg, relay->position.gaps.high, tail->events, tail->count,
                             &tail->newest, err);

    tail->count = 0;
    return r;
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
        topics[i] =
            (struct kafka_tail_topic){names[i], rows > 0 ? (int) pg_get_i64(counts, rows - 1, 1) : 0, NULL};
    }
    return 0;
}

/* known[i] is the caller's to free. */
static int add_known(struct relay *relay, struct kafka_tail_topic *topics, int64_t **known, size_t count,
                     struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < count && !relay->kafka.tail.mixed; i++) {
        known[i] = xcalloc((size_t) topics[i].partitions + 1, sizeof(*known[i]));
        topics[i].known_until = known[i];
        r = store_relay_known_until(relay->session.pg, topics[i].name, known[i], topics[i].partitions, err);
    }
    return r;
}

static uint64_t begin(struct relay *relay)
{
    struct relay_tail *tail = &relay->kafka.tail;
    struct kafka_tail_topic topics[TOPICS_MAX];
    char *former[EVENT_TYPES] = {NULL};
    int64_t *known[TOPICS_MAX] = {NULL};
    size_t count = EVENT_TYPES;
    int64_t next = 0;
    int64_t since = tail->mixed ? INT64_MIN : MAX(tail->compared_at, CLOCKS_USEC) - CLOCKS_USEC;
    struct error err;
    int r = 0;

    for (size_t i = 0; i < EVENT_TYPES; i++)
        topics[i] = (struct kafka_tail_topic){relay->kafka.topics.items[i].name,
                                              relay->kafka.topics.items[i].actual, NULL};
    if (relay->session.former_prefix) {
        r = add_former(relay, topics + count, former, &err);
        count = TOPICS_MAX;
    }
    if (r == 0)
        r = add_known(relay, topics, known, count, &err);
    if (r == 0)
        r = store_relay_next_id(relay->session.pg, &next, &err);
    tail->believed = next + AHEAD_MAX - 1;
    int created = r < 0 ? 0 : kafka_tail_new(&tail->reader, relay->config, topics, count, since, &err);
    for (size_t i = 0; i < TOPICS_MAX; i++)
        free(known[i]);
    for (size_t i = 0; i < EVENT_TYPES; i++)
        free(former[i]);
    if (r < 0)
        return relay_lose_session(relay, r, &err);
    if (created < 0) {
        relay_kafka_lost(relay, err.text);
        return backoff_next_usec(&relay->kafka.backoff);
    }
    uint64_t now = now_monotonic_usec();
    tail->anew_at = now + ANEW_USEC;
    if (!tail->begun_at)
        tail->begun_at = tail->came_at = now;
    return NOW;
}

static void say_leap(int64_t newest, const struct store_relay_leap *leap)
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
             newest, leap->next, since ? since : "");
}

/* A lock, or the end of all ids: a person may have to help. The session stays, whose name says it. */
static uint64_t wait_for_ids(struct relay *relay, const struct error *err)
{
    struct relay_tail *tail = &relay->kafka.tail;

    if (relay->stats.trouble == RELAY_FINE)
        relay->stats.trouble = RELAY_LOOKS;
    if (trouble_begins(&tail->refused))
        log_about(
            LOG_WARNING, MSG_RELAY_LOOKS, &(const struct log_about){.error = err->text},
            "the relay does not publish yet: Kafka has events of this installation up to ledger id %" PRId64
            ", which this database does not have, and it refuses to leave ids out: %s. Events wait in the "
            "ledger; trying again",
            tail->newest.id, err->text);
    return REFUSED_USEC;
}

static uint64_t compare(struct relay *relay)
{
    struct relay_tail *tail = &relay->kafka.tail;
    struct store_relay_leap leap;
    struct error err;
    int r = find_lost(relay, &err);

    if (r == 0 && tail->newest.id > 0) {
        r = store_relay_leap(relay->session.pg, relay->position.gaps.high, &tail->newest, &leap, &err);
        if (r < 0 && r != -ECONNRESET && r != -ECANCELED)
            return wait_for_ids(relay, &err);
        if (r == 0)
            say_leap(tail->newest.id, &leap);
    }
    if (r == 0)
        r = relay_note_compared(relay, &err);
    if (r < 0)
        return relay_lose_session(relay, r, &err);
    log_debug("the relay has read %zu messages to find our newest events", tail->read);
    if (tail->invented > 1)
        log_line(
            LOG_WARNING, MSG_UNKNOWN_EVENTS,
            "the relay has passed over %zu messages in Kafka in the name of this installation whose ids or "
            "times cannot be ours",
            tail->invented);
    if (tail->waits.said || tail->refused.said)
        log_line(LOG_NOTICE, MSG_RELAY_LOOKS,
                 "the relay knows this installation's newest events in Kafka, and publishes");
    if (relay->stats.trouble == RELAY_LOOKS)
        relay->stats.trouble = RELAY_FINE;
    relay_end_tail(relay);
    tail->known = true;
    return NOW;
}

/* Nothing is published without an answer: an id may reach Kafka a second time. */
static uint64_t go_on_looking(struct relay *relay)
{
    struct relay_tail *tail = &relay->kafka.tail;
    uint64_t now = now_monotonic_usec();
    struct kafka_tail_place place = {0};
    size_t open = kafka_tail_awaits(tail->reader, &place);

    if (now - tail->begun_at > PATIENCE_USEC && relay->stats.trouble == RELAY_FINE)
        relay->stats.trouble = RELAY_LOOKS;
    if (trouble_lasts(&tail->waits, tail->begun_at, now, PATIENCE_USEC))
        log_about(LOG_WARNING, MSG_RELAY_LOOKS,
                  &(const struct log_about){.kafka_topic = place.topic, .error = tail->why.text},
                  "the relay does not publish yet: it looks for this installation's newest events in Kafka, "
                  "so that no id goes out twice, and %zu partition%s not told them to the end, such as "
                  "partition %d of \"%s\"%s%s. Events wait in the ledger",
                  open, open == 1 ? " has" : "s have", place.partition, place.topic,
                  *tail->why.text ? ": " : "", tail->why.text);
    if (now >= tail->anew_at) {
        kafka_tail_free(TAKE_PTR(tail->reader));
        relay->kafka.topics_ready = false;
    }
    return NOW;
}

/* Of the former topics alone: ours are there, as the brokers have said, or will be. */
static void pass_former(struct relay *relay)
{
    struct relay_tail *tail = &relay->kafka.tail;
    struct kafka_tail_place place;

    kafka_tail_at(tail->reader, &place);
    for (size_t i = 0; i < EVENT_TYPES; i++)
        if (strcmp(place.topic, relay->kafka.topics.items[i].name) == 0)
            return;
    log_notice("the relay looks for the newest events in Kafka: %s; goes on without", tail->why.text);
    kafka_tail_enough(tail->reader);
}

uint64_t relay_look_at_tail(struct relay *relay)
{
    struct relay_tail *tail = &relay->kafka.tail;
    uint64_t now = now_monotonic_usec(), until = now + RELAY_TURN_USEC;
    struct error err;
    int r;

    if (!tail->reader)
        return begin(relay);
    for (; now < until; now = now_monotonic_usec()) {
        switch (kafka_tail_next(tail->reader, POLL_MS, &tail->why)) {
        case KAFKA_TAIL_MESSAGE:
            tail->came_at = now;
            tail->anew_at = now + ANEW_USEC;
            tail->read++;
            note_message(relay);
            r = tail->count < COMPARE_MAX ? 0 : find_lost(relay, &err);
            if (r < 0)
                return relay_lose_session(relay, r, &err);
            break;
        case KAFKA_TAIL_GONE:
            pass_former(relay);
            break;
        case KAFKA_TAIL_NO_BROKER:
            relay->kafka.topics_ready = false; /* asking for the topics shows whether Kafka is away */
            return NOW;
        case KAFKA_TAIL_END:
            return compare(relay);
        default:
            break;
        }
    }
    return go_on_looking(relay);
}

void relay_end_tail(struct relay *relay)
{
    kafka_tail_free(relay->kafka.tail.reader);
    free(relay->kafka.tail.events);
    relay->kafka.tail = (struct relay_tail){0};
}
