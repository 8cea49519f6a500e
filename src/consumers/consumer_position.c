/* Which partitions a consumer thread owns, and where each goes on. See consumer_internal.h.
 *
 * On the consumer's thread. The database says where: next_offset stands in the transaction that made the
 * effects, so after a restore, a promotion or a lost answer it is the one truth. What Kafka holds for the
 * group only tells that a topic was made anew: another installation may share the group. */
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "consumers/consumer_internal.h"
#include "consumers/offset_decision.h"
#include "consumers/store_consumer.h"

/* A question to Kafka; none is worth more than the heartbeat's second. */
#define ASK_MS 1000
#define COMPARE_USEC (10 * USEC_PER_SEC)
/* Until the rows are as they are to be: for what is gone two statements, and their look. */
#define PASSES 3
/* After a broker failed, the new leader may for a moment tell an end that lies before what was read. */
#define BEYOND_USEC (10 * USEC_PER_SEC)

static struct consumer_partition *find(const struct consumer *c, const char *topic, int32_t number)
{
    for (size_t i = 0; i < c->partition_count; i++)
        if (c->partitions[i]->number == number && strcmp(c->partitions[i]->topic, topic) == 0)
            return c->partitions[i];
    return NULL;
}

struct consumer_partition *consumer_started(struct consumer *c, const char *topic, int32_t number)
{
    struct consumer_partition *p = find(c, topic, number);

    return p && p->started ? p : NULL;
}

bool consumer_has_parked(const struct consumer *c)
{
    for (size_t i = 0; i < c->partition_count; i++)
        if (!c->partitions[i]->started)
            return true;
    return false;
}

/* --- coming and going ------------------------------------------------------------------------- */

static void partition_free(struct consumer_partition *p)
{
    bitmap_clear(&p->handled);
    homes_free(&p->homes);
    free(p->topic);
    free(p);
}

/* False when the topic is none of ours: brokers may give a member what it was given before. */
static bool find_type(const struct consumer *c, const char *topic, enum event_type *ret)
{
    for (size_t i = 0; c->topics[i]; i++) {
        if (strcmp(c->topics[i], topic) != 0)
            continue;
        *ret = c->topic_types[i];
        return true;
    }
    return false;
}

void consumer_on_assigned(struct consumer *c, const struct kafka_poll *poll)
{
    enum event_type type;

    for (size_t i = 0; i < poll->count; i++) {
        const struct kafka_partition *given = &poll->partitions[i];
        if (find(c, given->topic, given->partition) || !find_type(c, given->topic, &type))
            continue;
        struct consumer_partition *p = xcalloc(1, sizeof(*p));
        p->topic = xstrdup(given->topic);
        p->number = given->partition;
        p->type = type;
        p->window_next = -1;
        p->held.end = -1;
        p->doubted = now_monotonic_usec() < c->kafka.doubted_until;
        c->partitions =
            xreallocarray(c->partitions, c->partition_count + 1, sizeof(struct consumer_partition *));
        c->partitions[c->partition_count++] = p;
    }
    c->start_at = 0;
    if (poll->count > 0)
        log_info("%s: has taken over %zu partition%s", c->name, poll->count, plural((int64_t) poll->count));
}

static void remove_partition(struct consumer *c, struct consumer_partition *p)
{
    for (size_t i = 0; i < c->partition_count; i++) {
        if (c->partitions[i] != p)
            continue;
        c->partitions[i] = c->partitions[--c->partition_count];
        partition_free(p);
        return;
    }
}

void consumer_on_revoked(struct consumer *c, const struct kafka_poll *poll)
{
    struct kafka_partition *started = xcalloc(poll->count + 1, sizeof(*started));
    size_t count = 0;

    for (size_t i = 0; i < poll->count; i++)
        if (consumer_started(c, poll->partitions[i].topic, poll->partitions[i].partition))
            started[count++] = poll->partitions[i];
    kafka_consumer_park(c->kafka.client, started, count);
    free(started);
    for (size_t i = 0; i < poll->count; i++) {
        struct consumer_partition *p = find(c, poll->partitions[i].topic, poll->partitions[i].partition);
        if (p)
            remove_partition(c, p);
    }
    log_info("%s: %s %zu partition%s", c->name, poll->lost ? "has lost" : "hands back", poll->count,
             plural((int64_t) poll->count));
}

void consumer_forget_all(struct consumer *c)
{
    for (size_t i = 0; i < c->partition_count; i++)
        partition_free(c->partitions[i]);
    free(TAKE_PTR(c->partitions));
    c->partition_count = 0;
}

void consumer_drop_cache(struct consumer *c)
{
    for (size_t i = 0; i < c->partition_count; i++)
        bitmap_clear(&c->partitions[i]->handled);
}

/* --- parking ---------------------------------------------------------------------------------- */

static void park(struct consumer *c, struct consumer_partition *p)
{
    kafka_consumer_park(c->kafka.client, &(struct kafka_partition){.topic = p->topic, .partition = p->number},
                        1);
    bitmap_clear(&p->handled);
    p->started = false;
}

void consumer_read_on(struct consumer *c, struct consumer_partition *p)
{
    park(c, p);
    c->start_at = 0;
}

void consumer_park_all(struct consumer *c)
{
    for (size_t i = 0; i < c->partition_count; i++)
        if (c->partitions[i]->started)
            park(c, c->partitions[i]);
}

void consumer_park_one(struct consumer *c, const char *topic, int32_t number)
{
    struct consumer_partition *p = consumer_started(c, topic, number);

    if (!p)
        return;
    p->doubted = true;
    park(c, p);
}

void consumer_read_farther(struct consumer *c)
{
    for (size_t i = 0; i < c->partition_count; i++)
        if (c->partitions[i]->started && c->partitions[i]->again.farther)
            consumer_park_one(c, c->partitions[i]->topic, c->partitions[i]->number);
}

void consumer_park_topic(struct consumer *c, const char *topic)
{
    for (size_t i = 0; i < c->partition_count; i++)
        if (strcmp(c->partitions[i]->topic, topic) == 0) {
            c->partitions[i]->again.remade = true;
            consumer_park_one(c, topic, c->partitions[i]->number);
        }
}

/* --- starting --------------------------------------------------------------------------------- */

static void say_gap(const struct consumer *c, const struct consumer_partition *p,
                    const struct offset_facts *facts, enum offset_decision why)
{
    const struct log_about about = {.kafka_topic = p->topic,
                                    .kafka_partition = (int) p->number,
                                    .kafka_offset = facts->next,
                                    .kafka_at = true};
    int64_t from = facts->next, to = facts->first;

    if (why == OFFSET_DOUBTED)
        log_debug(
            "%s: Kafka was away: reads \"%s\", partition %d, again from some messages before offset %" PRId64,
            c->name, p->topic, (int) p->number, from);
    else if (why == OFFSET_FORGOTTEN)
        log_about(LOG_WARNING, MSG_CONSUMER_GAP, &about,
                  "%s: partition %d of \"%s\" was read up to offset %" PRId64
                  ", but Kafka has no offset of this group: perhaps it was made anew; reads it from its "
                  "beginning, offset %" PRId64
                  ", and passes over what was handled. What it held before may be gone unread%s",
                  c->name, (int) p->number, p->topic, from, to,
                  p->type < EVENT_TYPES ? ": such events are published again"
                                        : ": only who wrote it can write it again");
    else if (why == OFFSET_GONE)
        log_about(LOG_WARNING, MSG_CONSUMER_GAP, &about,
                  "%s: %" PRId64
                  " messages of \"%s\", partition %d, are gone before they were read: Kafka has none "
                  "before offset %" PRId64 ", where this goes on",
                  c->name, to - from, p->topic, (int) p->number, to);
    else if (why == OFFSET_BEYOND)
        log_about(LOG_WARNING, MSG_CONSUMER_GAP, &about,
                  "%s: partition %d of \"%s\" ends at offset %" PRId64 ", but was read up to %" PRId64
                  " before: it was made anew or restored; goes on from its beginning, offset %" PRId64,
                  c->name, (int) p->number, p->topic, facts->end, from, to);
}

enum { PLACED = 1, NOT_YET };

/* What Kafka has committed for the group, -1 = nothing, though it was told. */
static int64_t take_committed(struct consumer_partition *p, int64_t offset)
{
    bool untold = offset < 0 && p->read && !p->committed;

    p->committed = offset >= 0;
    p->told = false;
    return untold ? p->next : offset;
}

/* What Kafka says of one. 0 or -EIO. */
static int ask_alone(struct consumer *c, struct consumer_partition *p, struct offset_facts *facts,
                     struct error *err)
{
    struct kafka_partition at = {.topic = p->topic, .partition = p->number};
    int r =
        kafka_consumer_range(c->kafka.client, p->topic, p->number, ASK_MS, &facts->first, &facts->end, err);

    if (r == 0)
        r = kafka_consumer_committed(c->kafka.client, &at, 1, ASK_MS, err);
    if (r == 0)
        facts->committed = take_committed(p, at.offset);
    return r;
}

/* What Kafka says of all, in three round trips: three for each take minutes where Kafka is far away. Where
 * `first` is -1 then, it has not said all that is asked for, as when a broker is away. */
static struct offset_facts *ask_all(struct consumer *c, struct consumer_partition **parked, size_t count)
{
    struct offset_facts *facts = xcalloc(count + 1, sizeof(*facts));
    CLEANUP(freep) struct kafka_partition *firsts = xcalloc(3 * count + 1, sizeof(*firsts));
    struct kafka_partition *ends = firsts + count, *committed = ends + count;
    struct error err;

    for (size_t i = 0; i < count; i++) {
        firsts[i] = ends[i] = committed[i] =
            (struct kafka_partition){.topic = parked[i]->topic, .partition = parked[i]->number};
        facts[i].first = -1;
    }
    if (count < 2 || kafka_consumer_ranges(c->kafka.client, firsts, ends, count, ASK_MS, &err) < 0)
        return facts;
    heartbeat_beat(c->worker.heartbeat);
    if (kafka_consumer_committed(c->kafka.client, committed, count, ASK_MS, &err) < 0)
        return facts;
    for (size_t i = 0; i < count; i++)
        if (firsts[i].offset >= 0 && ends[i].offset >= 0)
            facts[i] = (struct offset_facts){.first = firsts[i].offset,
                                             .end = ends[i].offset,
                                             .committed = take_committed(parked[i], committed[i].offset)};
    return facts;
}

static int place(struct consumer *c, const struct store_offset *at, struct error *err)
{
    int r = store_place_offset(c->session.pg, c->group_id, c->group->model, at, err);

    return r == PG_DONE ? PLACED : r;
}

/* May a part of this log be gone before the group had read it? Then the events are looked for that are not
 * handled once all of it was read; what is in it is not published again. A new group reads all there is. */
static bool may_have_lost(const struct consumer_partition *p, const struct offset_facts *facts,
                          enum offset_decision decision)
{
    return p->type < EVENT_TYPES &&
           (decision == OFFSET_GONE || decision == OFFSET_BEYOND || decision == OFFSET_FORGOTTEN ||
            (decision == OFFSET_DOUBTED && p->again.remade) ||
            (decision == OFFSET_FIRST && facts->first > 0));
}

/* Compares the database's offset with the log. 0 = start there; PLACED = the row was made or moved, read it
 * again; NOT_YET; or an error of the database. */
static int reconcile_offset(struct consumer *c, struct consumer_partition *p, struct store_offset *at,
                            struct offset_facts facts, struct error *err)
{
    uint64_t now = now_monotonic_usec();

    if (facts.first < 0 && ask_alone(c, p, &facts, err) < 0)
        return NOT_YET;
    facts.next = at->next;
    facts.patient = !p->beyond_since || now < p->beyond_since + BEYOND_USEC;
    facts.doubted = p->doubted;
    enum offset_decision decision = decide_offset(&facts);
    if (decision == OFFSET_WAIT) {
        p->beyond_since = p->beyond_since ? p->beyond_since : now;
        p->doubted = true;
        error_set(err, "the end of %s/%d lies before what was read", p->topic, (int) p->number);
        return NOT_YET;
    }
    p->beyond_since = 0;
    bool asked = at->unread_until == UNREAD_ASKED;
    if (decision == OFFSET_AGREED && !asked)
        return 0;
    at->expected = at->next;
    if (decision == OFFSET_AGREED) {
        at->unread_until = facts.end;
        return place(c, at, err);
    }
    say_gap(c, p, &facts, decision);
    at->unread_until = at->unread_until >= 0 || may_have_lost(p, &facts, decision) ? UNREAD_ASKED : -1;
    at->next =
        decision == OFFSET_DOUBTED ? consumer_read_again_from(p, facts.first, facts.next) : facts.first;
    p->doubted = p->again.remade = false;
    p->known_until = MAX(p->known_until, facts.next);
    p->again.said = decision != OFFSET_DOUBTED; /* it is said already */
    return place(c, at, err);
}

/* The parked ones and what the database says of them. */
static int read_parked(struct consumer *c, struct consumer_partition **parked, struct store_offset *offsets,
                       size_t *ret_count, struct error *err)
{
    size_t count = 0;

    for (size_t i = 0; i < c->partition_count; i++) {
        if (c->partitions[i]->started)
            continue;
        parked[count] = c->partitions[i];
        offsets[count++] =
            (struct store_offset){.topic = c->partitions[i]->topic, .partition = c->partitions[i]->number};
    }
    *ret_count = count;
    return store_read_offsets(c->session.pg, c->group_id, offsets, count, err);
}

/* All at once: Kafka answers a connection's requests in turn, and the first fetch may make the rest wait. */
static void start(struct consumer *c, struct consumer_partition **ready, const struct kafka_partition *at,
                  size_t count)
{
    struct error err;

    if (count == 0)
        return;
    if (kafka_consumer_start(c->kafka.client, at, count, &err) < 0) {
        log_warning("%s: %s", c->name, err.text);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        ready[i]->next = at[i].offset;
        ready[i]->started = ready[i]->read = true;
    }
}

/* PLACED when one of them is to be read again (then none is started, unless this is the last pass), NOT_YET
 * when one must wait, else as reconcile_offset(). Reorders `parked`. */
static int start_ready(struct consumer *c, struct consumer_partition **parked, struct store_offset *offsets,
                       size_t count, bool last, struct error *err)
{
    CLEANUP(freep) struct kafka_partition *at = xcalloc(count + 1, sizeof(*at));
    CLEANUP(freep) struct offset_facts *facts = ask_all(c, parked, count);
    size_t n = 0;
    int worst = 0;

    for (size_t i = 0; i < count; i++) {
        uint64_t asked_at = now_monotonic_usec();
        int r = reconcile_offset(c, parked[i], &offsets[i], facts[i], err);
        heartbeat_beat(c->worker.heartbeat);
        if (r < 0)
            return r;
        if (r == 0) {
            at[n] = (struct kafka_partition){parked[i]->topic, parked[i]->number, offsets[i].next};
            parked[n++] = parked[i];
        } else if (worst != PLACED) {
            worst = r;
        }
        /* One that does not answer is enough. */
        if (r == NOT_YET && now_monotonic_usec() - asked_at > ASK_MS * USEC_PER_MSEC / 2)
            break;
    }
    if (worst != PLACED || last)
        start(c, parked, at, n);
    return worst;
}

int consumer_start_parked(struct consumer *c, struct error *err)
{
    CLEANUP(freep) struct consumer_partition **parked = xcalloc(c->partition_count + 1, sizeof(*parked));
    CLEANUP(freep) struct store_offset *offsets = xcalloc(c->partition_count + 1, sizeof(*offsets));
    size_t count;
    int r = consumer_ask_stopped(c, err);

    if (r != PG_DONE || c->stop.is_stopped || !c->stop.marks_known) {
        c->start_at = now_monotonic_usec() + USEC_PER_SEC;
        return r;
    }
    r = PLACED;
    for (int pass = 1; pass <= PASSES && r == PLACED; pass++) {
        r = read_parked(c, parked, offsets, &count, err);
        if (r == PG_DONE)
            r = start_ready(c, parked, offsets, count, pass == PASSES, err);
    }
    if (r == NOT_YET)
        log_debug("%s: %s", c->name, err->text);
    c->start_at = r == 0 ? 0 : now_monotonic_usec() + USEC_PER_SEC;
    return r == PLACED || r == NOT_YET ? 0 : r;
}

int consumer_find_moved(struct consumer *c, bool *ret, struct error *err)
{
    *ret = false;
    if (!c->session.pg || c->batch.count > 0 || now_monotonic_usec() < c->session.compare_at)
        return PG_DONE;
    c->session.compare_at = now_monotonic_usec() + COMPARE_USEC;
    consumer_look_behind(c);
    CLEANUP(freep) struct store_offset *at = xcalloc(c->partition_count + 1, sizeof(*at));

    for (size_t i = 0; i < c->partition_count; i++)
        at[i] =
            (struct store_offset){.topic = c->partitions[i]->topic, .partition = c->partitions[i]->number};
    int r = store_read_offsets(c->session.pg, c->group_id, at, c->partition_count, err);
    for (size_t i = 0; r == PG_DONE && i < c->partition_count; i++)
        *ret |= c->partitions[i]->started &&
                (at[i].next != c->partitions[i]->next || at[i].unread_until == UNREAD_ASKED);
    return r;
}

/* --- what Kafka knows of us ------------------------------------------------------------------- */

/* It is asked before it is told: were a topic made anew between two batches, our offset would hide it. */
bool consumer_commit_offsets(struct consumer *c)
{
    CLEANUP(freep) struct kafka_partition *at = xcalloc(c->partition_count + 1, sizeof(*at));
    CLEANUP(freep) struct consumer_partition **of = xcalloc(c->partition_count + 1, sizeof(*of));
    size_t count = 0, behind = 0;
    struct error err;

    for (size_t i = 0; i < c->partition_count; i++) {
        struct consumer_partition *p = c->partitions[i];
        if (!p->started || p->told)
            continue;
        at[count] = (struct kafka_partition){.topic = p->topic, .partition = p->number};
        of[count++] = p;
    }
    if (count == 0)
        return true;
    if (kafka_consumer_committed(c->kafka.client, at, count, ASK_MS, &err) < 0) {
        log_debug("%s: %s", c->name, err.text);
        return true;
    }
    for (size_t i = 0; i < count; i++) {
        if (at[i].offset < 0 && of[i]->committed)
            return false;
        of[i]->committed = at[i].offset >= 0;
        of[i]->told = at[i].offset == of[i]->next;
        if (of[i]->told)
            continue;
        at[behind] = at[i];
        at[behind++].offset = of[i]->next;
    }
    if (behind > 0)
        kafka_consumer_commit(c->kafka.client, at, behind);
    return true;
}

void consumer_measure(struct consumer *c)
{
    int64_t behind = 0;

    for (size_t i = 0; i < c->partition_count; i++) {
        const struct consumer_partition *p = c->partitions[i];
        /* It is parked while the database is away. */
        if (p->started || p->read)
            behind += MAX(kafka_consumer_seen_end(c->kafka.client, p->topic, p->number) - p->next, 0);
    }
    c->told.behind = behind;
}
