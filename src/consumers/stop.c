/* A group that cannot handle most of a batch stops, instead of putting all of it aside. See
 * consumer_internal.h. On the consumer's thread.
 *
 * And it does not even start where its effects hold more than the marks tell (handler.h): what comes again
 * would count twice.
 *
 * Where little is published, or a loaded machine reads little at once, a batch is a message or two: what the
 * batches before came to counts, too. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "consumers/consumer_internal.h"
#include "consumers/store_consumer.h"

/* So many times as long as the comparison took, there is none again, and no partition is started that needs
 * one. */
#define COMPARE_REST 10
#define COMPARE_REST_USEC (10 * USEC_PER_SEC) /* at most */
#define FAULTS_MIN 20
#define REMEMBERED_MAX (4 * FAULTS_MIN) /* messages of the batches before */

/* What strangers write to an inbox tells nothing of us. */
static bool counts(const struct consumer_item *item)
{
    return !item->foreign && !item->known && item->partition->type < EVENT_TYPES;
}

/* Of the batch's events that are new: how many, and how many cannot be handled. */
static size_t count_faults(const struct consumer_batch *b, size_t *ret_ours)
{
    size_t faults = 0;

    *ret_ours = 0;
    for (size_t i = 0; i < b->count; i++) {
        *ret_ours += counts(&b->items[i]);
        faults += counts(&b->items[i]) && b->items[i].fault;
    }
    return faults;
}

static bool are_most(size_t faults, size_t ours)
{
    return faults >= FAULTS_MIN && faults > ours / 2;
}

static bool most_fail(const struct consumer *c)
{
    size_t ours, faults = count_faults(&c->batch, &ours);

    return are_most(faults, ours) ||
           (faults > ours / 2 && are_most(faults + c->stop.faults, ours + c->stop.ours));
}

bool consumer_must_stop(const struct consumer *c)
{
    return now_monotonic_usec() >= c->stop.passes_until && most_fail(c);
}

void consumer_note_faults(struct consumer *c)
{
    struct consumer_stop *s = &c->stop;
    size_t ours, faults = count_faults(&c->batch, &ours);

    s->ours += ours;
    s->faults += faults;
    if (now_monotonic_usec() < s->passes_until)
        s->ours = s->faults = 0;
    for (; s->ours > REMEMBERED_MAX; s->ours /= 2)
        s->faults /= 2;
}

static void say_stopped(const struct consumer *c, const struct store_stop *stop)
{
    if (stop->command)
        log_line(LOG_ALERT, MSG_GROUP_STOPPED,
                 "%s: has stopped: %s. \"anubisctl %s\" repairs it, and lets it go on", c->name, stop->reason,
                 stop->command);
    else
        log_line(
            LOG_ALERT, MSG_GROUP_STOPPED,
            "%s: has stopped: %s. Nothing of this batch was put aside. When the cause is repaired, run \"anubisctl resume "
            "--group %s\"; with --put-aside such messages go to dead_letters",
            c->name, stop->reason, c->group->model);
}

static int find_known(struct consumer *c, struct error *err)
{
    CLEANUP(freep) struct store_dead_letter *at = xcalloc(c->batch.count, sizeof(*at));
    CLEANUP(freep) struct consumer_item **of = xcalloc(c->batch.count, sizeof(*of));
    CLEANUP(freep) bool *known = xcalloc(c->batch.count, sizeof(*known));
    size_t count = 0;

    for (size_t i = 0; i < c->batch.count; i++) {
        struct consumer_item *item = &c->batch.items[i];
        if (!item->fault)
            continue;
        at[count] = (struct store_dead_letter){.topic = item->partition->topic,
                                               .partition = item->partition->number,
                                               .offset = item->offset,
                                               .written_ms = item->written_ms};
        of[count++] = item;
    }
    int r = store_letters_known(c->session.pg, c->group->model, at, count, known, err);
    for (size_t i = 0; r == PG_DONE && i < count; i++)
        of[i]->known = known[i];
    return r;
}

static char *reason_of(const struct consumer *c)
{
    size_t ours, faults = count_faults(&c->batch, &ours);
    const struct consumer_item *first = c->batch.items;
    bool alone = are_most(faults, ours);

    while (!first->fault || !counts(first))
        first++;
    return xasprintf("%zu of %s%zu messages cannot be handled, %s at offset %" PRId64
                     " of \"%s\", partition %d: %s",
                     alone ? faults : faults + c->stop.faults, alone ? "" : "the last ",
                     alone ? ours : ours + c->stop.ours, alone ? "the first" : "now that", first->offset,
                     first->partition->topic, (int) first->partition->number, first->fault);
}

int consumer_stop(struct consumer *c, struct error *err)
{
    bool fresh;
    int r = find_known(c, err);

    if (r != PG_DONE || !most_fail(c))
        return r;
    CLEANUP(store_stop_done) struct store_stop stop = {.reason = reason_of(c)};
    r = store_stop_group(c->session.pg, c->group->model, stop.reason, &fresh, err);
    if (r != PG_DONE)
        return r;
    if (fresh)
        say_stopped(c, &stop);
    c->stop.is_stopped = fresh; /* else it is found, and said, at the next start */
    return APPLY_STOPPED;
}

void consumer_doubt_marks(struct consumer *c)
{
    if (!c->stop.was_stopped)
        c->stop.marks_known = false;
}

/* One is enough: what a group keeps is written in one transaction. */
static int compare(struct consumer *c, bool *ret_known, struct error *err)
{
    for (const struct handler *const *h = c->group->handlers; *h; h++)
        if ((*h)->compare)
            return (*h)->compare(c->session.pg, c->group->model, ret_known, err);
    *ret_known = true;
    return PG_DONE;
}

static int check_marks(struct consumer *c, struct error *err)
{
    uint64_t began = now_monotonic_usec();
    int r = compare(c, &c->stop.marks_known, err);

    /* A hundred million events on a slow machine: nobody waits for that. */
    bool too_many = r == -EBADMSG && strcmp(pg_error_sqlstate(c->session.pg), "57014") == 0;
    uint64_t now = now_monotonic_usec();
    c->stop.compare_at = now + MIN(COMPARE_REST * (now - began), COMPARE_REST_USEC);
    c->stop.marks_known |= too_many;
    return too_many ? PG_DONE : r;
}

int consumer_ask_stopped(struct consumer *c, struct error *err)
{
    CLEANUP(store_stop_done) struct store_stop stop = {0};
    bool is_due = !c->stop.marks_known && now_monotonic_usec() >= c->stop.compare_at;
    int r = is_due ? check_marks(c, err) : PG_DONE;

    if (r == PG_DONE)
        r = store_read_stop(c->session.pg, c->group->model, &stop, err);
    if (r != PG_DONE)
        return r;
    bool stopped = stop.reason && stop.passes_ms <= 0;
    if (stopped)
        c->stop.ours = c->stop.faults = 0; /* what comes after its end begins anew */
    c->stop.passes_until =
        stop.passes_ms > 0 ? now_monotonic_usec() + (uint64_t) stop.passes_ms * USEC_PER_MSEC : 0;
    if (stopped && !c->stop.is_stopped)
        say_stopped(c, &stop);
    else if (!stopped && c->stop.is_stopped)
        log_line(LOG_NOTICE, MSG_GROUP_STOPPED, "%s: goes on%s", c->name,
                 stop.reason ? ", and puts messages aside that cannot be handled" : "");
    c->stop.is_stopped = stopped;
    c->stop.was_stopped |= stopped;
    c->stop.marks_known |= stopped;
    return PG_DONE;
}
