/* From messages to effects: a batch is one transaction, or as many as its faults force. See
 * consumer_internal.h.
 *
 * On the consumer's thread. Normally messages are let go as soon as they are parsed, which keeps a batch of
 * thousands small. When one of them then turns out to be impossible to handle, its bytes are needed (a dead
 * letter is the whole message), so the batch is read once more, with care: smaller, and everything kept.
 *
 * Nothing here decides what happens after an error; nothing waits but for the database. */
#include <errno.h>
#include <stdio.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "consumers/consumer_internal.h"
#include "consumers/store_consumer.h"

#define BATCH_EVENTS 4000
#define BATCH_KEPT_BYTES ((size_t) 4 << 20)
/* What a kept message costs beyond its bytes: librdkafka's own structures and the parsed headers. */
#define KEPT_OVERHEAD 2048
#define LINGER_USEC (20 * USEC_PER_MSEC)
#define SPACING_USEC (100 * USEC_PER_MSEC)
/* A transaction costs milliseconds beside what its events cost. Where many events come, it takes more. */
#define MANY_EVENTS 200
#define SPACING_MANY_USEC (300 * USEC_PER_MSEC)
/* Sequences lie close together; only a topic full of invented ones reaches this in one transaction. */
#define CHUNKS_MAX 512
#define CHUNKS_CACHED 8 /* for each partition */

/* --- gathering -------------------------------------------------------------------------------- */

static bool is_event(const struct consumer_item *item)
{
    return !item->foreign && !item->fault && !item->entry;
}

struct consumer_item *consumer_append(struct consumer_batch *b)
{
    if (b->count == b->capacity) {
        b->capacity = MAX(b->capacity * 2, (size_t) 256);
        b->items = xreallocarray(b->items, b->capacity, sizeof(*b->items));
    }
    if (b->count == 0)
        b->first_at = now_monotonic_usec();
    b->items[b->count] = (struct consumer_item){0};
    return &b->items[b->count++];
}

void consumer_take(struct consumer *c, const struct kafka_message *message)
{
    struct consumer_batch *b = &c->batch;
    struct consumer_partition *p = consumer_started(c, message->topic, message->partition);

    if (!p)
        return;
    struct consumer_item *item = consumer_append(b);
    item->partition = p;
    item->offset = message->offset;
    item->written_ms = message->written_at / USEC_PER_MSEC;
    if (p->type == EVENT_TYPES) {
        consumer_read_inbox(c, item, message);
        b->bytes += message->key.len + message->value.len + KEPT_OVERHEAD;
        return;
    }
    item->foreign = message_parse(message, p->type, c->session.installation, &item->event, &item->fault) ==
                    MESSAGE_FOREIGN;
    item->event.topic = p->topic;
    item->event.partition = p->number;
    item->event.offset = message->offset;
    if (b->sha256 && is_event(item))
        sha256_digest(b->sha256, &message->value, 1, item->event.value_hash);
    if (item->foreign)
        consumer_say_shared(c, message);
    if (item->foreign || !(item->fault || message->offset < p->careful_until))
        return;
    item->kept = kafka_consumer_keep(c->kafka.client);
    b->careful |= message->offset < p->careful_until;
    b->bytes += message->key.len + message->value.len + KEPT_OVERHEAD;
}

bool consumer_batch_full(const struct consumer *c)
{
    const struct consumer_batch *b = &c->batch;

    return b->count >= (b->careful ? (size_t) c->config->consumers.max_poll_records : BATCH_EVENTS) ||
           b->bytes >= BATCH_KEPT_BYTES;
}

uint64_t consumer_batch_due(const struct consumer *c)
{
    if (c->batch.count == 0)
        return USEC_INFINITY;
    if (consumer_batch_full(c))
        return 0;
    return MAX(c->batch.first_at + LINGER_USEC,
               c->applied_at + (c->batch.after_many ? SPACING_MANY_USEC : SPACING_USEC));
}

void consumer_batch_drop(struct consumer *c)
{
    for (size_t i = 0; i < c->batch.count; i++) {
        kafka_kept_free(c->batch.items[i].kept);
        free(c->batch.items[i].entry);
    }
    c->batch.count = c->batch.bytes = 0;
    c->batch.careful = false;
}

/* --- a window of the batch: what one transaction takes ---------------------------------------- */

/* Outcomes of one transaction beside the public ones. */
enum {
    WINDOW_REJECTED = APPLY_CAREFUL + 1, /* handlers have named events that they cannot handle: see faults */
    WINDOW_REFUSED,                      /* the database refuses the data of one event or more */
    WINDOW_BESIDE,                       /* once more, alone with the marks */
};

struct window {
    struct consumer_item *items;
    size_t count;
    struct store_chunk unread[CHUNKS_MAX]; /* chunks that are not in memory yet */
    size_t unread_count;
    /* Events that were not handled before, which items they are, and what handlers say against them. */
    const struct message_event **fresh;
    size_t *fresh_at;
    const char **faults;
    size_t fresh_count;
};

/* Makes room for the chunks that the window looks into; ends it early where there would be too many. */
static void note_chunks(struct window *w)
{
    for (size_t i = 0; i < w->count; i++) {
        struct consumer_partition *p = w->items[i].partition;
        int64_t number = bitmap_chunk_of(w->items[i].event.sequence);
        if (!is_event(&w->items[i]) || bitmap_find(&p->handled, number))
            continue;
        if (w->unread_count == CHUNKS_MAX) {
            w->count = i;
            return;
        }
        w->unread[w->unread_count++] =
            (struct store_chunk){event_type_word(p->type), p->number, bitmap_add(&p->handled, number)};
    }
}

static struct window *window_new(struct consumer_item *items, size_t count)
{
    struct window *w = xcalloc(1, sizeof(*w));

    w->items = items;
    w->count = count;
    w->fresh = xcalloc(count, sizeof(*w->fresh));
    w->fresh_at = xcalloc(count, sizeof(*w->fresh_at));
    w->faults = xcalloc(count, sizeof(*w->faults));
    note_chunks(w);
    return w;
}

static void window_free(struct window *w)
{
    free(w->fresh);
    free(w->fresh_at);
    free(w->faults);
    free(w);
}

/* --- one transaction -------------------------------------------------------------------------- */

/* The offsets move first: this row lock and comparison is what keeps a former owner out. */
static int advance(struct consumer *c, const struct window *w, struct error *err)
{
    CLEANUP(freep) struct store_offset *offsets = xcalloc(c->partition_count, sizeof(*offsets));
    size_t count = 0;
    bool fenced;

    for (size_t i = 0; i < c->partition_count; i++) {
        c->partitions[i]->window_next = -1;
        c->partitions[i]->window_foreign = c->partitions[i]->window_unknown = 0;
    }
    for (size_t i = 0; i < w->count; i++) {
        w->items[i].partition->window_next = w->items[i].offset + 1;
        w->items[i].partition->window_foreign +=
            w->items[i].foreign && !w->items[i].unknown && consumer_is_counted(&w->items[i]);
    }
    for (size_t i = 0; i < c->partition_count; i++) {
        const struct consumer_partition *p = c->partitions[i];
        if (p->window_next >= 0)
            offsets[count++] = (struct store_offset){.topic = p->topic,
                                                     .partition = p->number,
                                                     .expected = p->next,
                                                     .next = p->window_next,
                                                     .foreign = p->window_foreign};
    }
    int r = store_advance(c->session.pg, c->group_id, c->group->model, offsets, count, c->session.marks.alone,
                          &fenced, err);
    return r == PG_DONE && fenced ? APPLY_FENCED : r;
}

static struct bitmap_chunk *chunk_of(const struct consumer_item *item)
{
    return bitmap_find(&item->partition->handled, bitmap_chunk_of(item->event.sequence));
}

/* Events without a bit, also when one comes twice. */
static void find_unhandled(struct window *w)
{
    w->fresh_count = 0;
    for (size_t i = 0; i < w->count; i++) {
        const struct consumer_item *item = &w->items[i];
        if (!is_event(item) || bitmap_has(chunk_of(item), item->event.sequence))
            continue;
        w->fresh_at[w->fresh_count] = i;
        w->fresh[w->fresh_count++] = &item->event;
    }
}

/* Sets the bits of events that the ledger has; those that were not set yet are fresh. An unknown event sets
 * none: the ledger's own event with that id may come later, even in this batch. */
static void mark_known(struct window *w, const bool *unknown)
{
    size_t count = 0;

    for (size_t i = 0; i < w->fresh_count; i++) {
        struct consumer_item *item = &w->items[w->fresh_at[i]];
        if (unknown[i])
            item->foreign = item->unknown = true;
        if (unknown[i] || item->repeated)
            continue;
        if (!bitmap_set(chunk_of(item), item->event.sequence))
            continue;
        item->late = item->offset < item->partition->known_until;
        w->fresh_at[count] = w->fresh_at[i];
        w->fresh[count++] = &item->event;
    }
    w->fresh_count = count;
}

/* Only what the ledger has is handled: after the database was set back, Kafka has events that never happened;
 * and whoever may write to the topics could invent some. */
static int find_fresh(struct consumer *c, struct window *w, struct error *err)
{
    CLEANUP(freep) bool *unknown = xcalloc(w->count, sizeof(*unknown));
    int r = w->unread_count > 0
                ? store_read_chunks(c->session.pg, c->group->model, w->unread, w->unread_count, err)
                : PG_DONE;

    if (r != PG_DONE)
        return r;
    find_unhandled(w);
    if (w->fresh_count > 0)
        r = store_find_unknown(c->session.pg, w->fresh, w->fresh_count, unknown, &c->session.marks.topics,
                               err);
    if (r == PG_DONE)
        r = consumer_find_strays(c, w->items, w->fresh_at, w->fresh_count, unknown, err);
    if (r != PG_DONE)
        return r == STRAYS_BESIDE ? WINDOW_BESIDE : r;
    mark_known(w, unknown);
    return consumer_count_unknown(c, w->items, w->count, err);
}

static struct store_chunk *dirty_chunks(const struct consumer *c, size_t *ret_count)
{
    struct store_chunk *dirty = NULL;

    *ret_count = 0;
    for (size_t i = 0; i < c->partition_count; i++) {
        const struct consumer_partition *p = c->partitions[i];
        for (size_t n = 0; n < p->handled.count; n++) {
            if (!p->handled.chunks[n]->dirty)
                continue;
            dirty = xreallocarray(dirty, *ret_count + 1, sizeof(*dirty));
            dirty[(*ret_count)++] =
                (struct store_chunk){event_type_word(p->type), p->number, p->handled.chunks[n]};
        }
    }
    return dirty;
}

static int write_bitmaps(struct consumer *c, struct error *err)
{
    size_t count;
    CLEANUP(freep) struct store_chunk *dirty = dirty_chunks(c, &count);
    bool fenced = false;

    int r =
        count > 0 ? store_write_chunks(c->session.pg, c->group->model, dirty, count, &fenced, err) : PG_DONE;
    return r == PG_DONE && fenced ? APPLY_FENCED : r;
}

/* Shows one handler the fresh events of its types. */
static int run_handler(struct consumer *c, const struct handler *h, struct window *w, struct error *err)
{
    CLEANUP(freep) const struct message_event **events = xcalloc(w->fresh_count + 1, sizeof(*events));
    CLEANUP(freep) const char **faults = xcalloc(w->fresh_count + 1, sizeof(*faults));
    size_t count = 0;

    for (size_t i = 0; i < w->fresh_count; i++)
        if (h->types >> w->fresh[i]->type & 1)
            events[count++] = w->fresh[i];
    int r = count > 0 ? h->apply(c->session.pg, events, count, faults, err) : PG_DONE;
    if (r != PG_DONE)
        return r;
    for (size_t i = 0, n = 0; i < w->fresh_count; i++) {
        if (!(h->types >> w->fresh[i]->type & 1))
            continue;
        w->faults[i] = faults[n++];
        if (w->faults[i])
            r = WINDOW_REJECTED;
    }
    return r;
}

static int run_inbox(struct consumer *c, struct window *w, struct error *err)
{
    bool rejected = false;
    int r = consumer_apply_inbox(c, w->items, w->count, &rejected, err);

    return r == PG_DONE && rejected ? WINDOW_REJECTED : r;
}

/* How the windows of a batch are gone through. */
enum pass {
    PASS_WHOLE, /* ends at the first that the database refuses */
    PASS_PROBE, /* nothing is committed: which events does the database refuse? */
    PASS_SPLIT, /* commits what can be, piece by piece */
};

static int transact(struct consumer *c, struct window *w, enum pass pass, struct error *err)
{
    int r = pg_execute(c->session.pg, "begin", err);

    if (r == PG_DONE)
        r = advance(c, w, err);
    if (r == PG_DONE)
        r = find_fresh(c, w, err);
    if (r == PG_DONE)
        r = write_bitmaps(c, err);
    if (r == PG_DONE)
        r = consumer_put_aside(c, w->items, w->count, err);
    /* Handlers last: the rows they lock are wanted by others too. */
    for (size_t i = 0; r == PG_DONE && c->group->handlers[i]; i++)
        r = run_handler(c, c->group->handlers[i], w, err);
    if (r == PG_DONE)
        r = run_inbox(c, w, err);
    if (r == PG_DONE)
        r = pg_execute(c->session.pg, pass == PASS_PROBE ? "set constraints all immediate" : "commit", err);
    if (r == PG_DONE && pass != PASS_PROBE)
        return r;
    if (r < 0 && pg_blames_value(pg_error_sqlstate(c->session.pg))) {
        snprintf(c->batch.refusal, sizeof(c->batch.refusal), "the database refuses it (SQLSTATE %s)",
                 pg_error_sqlstate(c->session.pg));
        r = WINDOW_REFUSED;
    }
    consumer_drop_cache(c);
    if (pg_usable(c->session.pg))
        pg_execute(c->session.pg, "rollback", NULL);
    return r;
}

/* --- after it --------------------------------------------------------------------------------- */

/* The database holds it: so do we. */
static void settle(struct consumer *c, const struct window *w)
{
    for (size_t i = 0; i < c->partition_count; i++) {
        struct consumer_partition *p = c->partitions[i];
        for (size_t n = 0; n < p->handled.count; n++) {
            p->handled.chunks[n]->version += p->handled.chunks[n]->dirty;
            p->handled.chunks[n]->dirty = false;
        }
        bitmap_trim(&p->handled, CHUNKS_CACHED);
        if (p->window_next < 0)
            continue;
        p->next = p->window_next;
        p->told = false;
    }
    consumer_say_dead_letters(c, w->items, w->count);
    consumer_say_unknown(c, w->items, w->count);
    consumer_note_late(c, w->items, w->count);
}

static bool let_go(const struct consumer_item *items, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (!items[i].foreign && !items[i].kept)
            return true;
    return false;
}

/* A handler has named the events. APPLY_DONE: try again without them. */
static int set_aside_rejected(struct window *w)
{
    int r = APPLY_DONE;

    for (size_t i = 0; i < w->fresh_count; i++) {
        if (!w->faults[i])
            continue;
        w->items[w->fresh_at[i]].fault = w->faults[i];
        if (!w->items[w->fresh_at[i]].kept)
            r = APPLY_CAREFUL;
    }
    return r;
}

/* The database refuses the window but does not say which event: halve it until one is left. APPLY_DONE: try
 * again with `width`. */
static int narrow(struct consumer *c, struct window *w, size_t *width)
{
    if (let_go(w->items, w->count))
        return APPLY_CAREFUL;
    *width = MAX(w->count / 2, (size_t) 1);
    if (w->count > 1)
        return APPLY_DONE;
    if (w->items[0].foreign || w->items[0].extent == LETTER_PLACE_ONLY)
        return -EBADMSG;
    if (w->items[0].fault)
        w->items[0].extent++;
    else
        w->items[0].fault = c->batch.refusal;
    return APPLY_DONE;
}

static void be_careful(struct consumer_item *items, size_t count)
{
    for (size_t i = 0; i < count; i++)
        items[i].partition->careful_until = MAX(items[i].partition->careful_until, items[i].offset + 1);
}

/* The windows from *done on, which moves on with each. 0, an outcome of consumer_apply(), in PASS_WHOLE
 * WINDOW_REFUSED, or an error of pg_query(). */
static int go_through(struct consumer *c, size_t *done, enum pass pass, struct error *err)
{
    struct consumer_batch *b = &c->batch;
    size_t width = b->count;
    int r = APPLY_DONE;

    while (*done < b->count && r == APPLY_DONE) {
        if (consumer_must_stop(c) && (r = consumer_stop(c, err)) != PG_DONE)
            return r;
        struct window *w = window_new(b->items + *done, MIN(width, b->count - *done));
        heartbeat_beat(c->worker.heartbeat);
        r = transact(c, w, pass, err);
        if (r == PG_DONE) {
            if (pass != PASS_PROBE)
                settle(c, w);
            *done += w->count;
            width = MIN(width * 2, b->count);
        } else if (r == WINDOW_BESIDE) {
            r = APPLY_DONE;
        } else if (r == WINDOW_REJECTED) {
            r = set_aside_rejected(w);
        } else if (r == WINDOW_REFUSED && pass != PASS_WHOLE) {
            r = narrow(c, w, &width);
        }
        window_free(w);
    }
    return r;
}

int consumer_apply(struct consumer *c, struct error *err)
{
    struct consumer_batch *b = &c->batch;
    size_t done = 0;
    int r = go_through(c, &done, PASS_WHOLE, err);

    /* All that is to be put aside is known before the first of it is. */
    if (r == WINDOW_REFUSED) {
        size_t probed = done;
        r = go_through(c, &probed, PASS_PROBE, err);
        if (r == APPLY_DONE)
            r = go_through(c, &done, PASS_SPLIT, err);
    }
    if (r == APPLY_DONE)
        consumer_note_faults(c);
    if (r == APPLY_CAREFUL)
        be_careful(b->items + done, b->count - done);
    b->after_many = b->count >= MANY_EVENTS;
    c->applied_at = now_monotonic_usec();
    consumer_batch_drop(c);
    return r;
}
