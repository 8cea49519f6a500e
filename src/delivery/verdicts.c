/* Verdicts on refusals. See verdicts.h. */
#include "delivery/verdicts.h"

#include <errno.h>
#include <string.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "base/trouble.h"

#define REFUSED_PAUSE_USEC USEC_PER_SEC
#define LOCKED_PAUSE_USEC (100 * USEC_PER_MSEC)
#define DEADLINE_USEC (45 * USEC_PER_SEC)
#define REASON                                                                                               \
    "20 subscriptions in a row were refused for their data, by an institution that took some within the "    \
    "last hour"

struct entry {
    struct entry *next;
    struct store_refusal refusal;
    void *held; /* NULL = it took one */
};

struct queue {
    struct entry *first, **last;
};

struct verdicts {
    struct verdicts_callbacks callbacks;
    void *userdata;
    struct queue waiting, asked;
    bool alone;  /* one integration at a time: the database would not have them together */
    uint64_t at; /* monotonic; after a refusal */
    struct trouble trouble;
};

/* --- queues ----------------------------------------------------------------------------------- */

static void queue_clear(struct queue *q)
{
    q->first = NULL;
    q->last = &q->first;
}

static void queue_add(struct queue *q, struct entry *e)
{
    e->next = NULL;
    *q->last = e;
    q->last = &e->next;
}

static void queue_add_all(struct queue *q, struct queue *others)
{
    if (!others->first)
        return;
    *q->last = others->first;
    q->last = others->last;
    queue_clear(others);
}

static void queue_free(struct queue *q)
{
    while (q->first) {
        struct entry *next = q->first->next;
        free(q->first);
        q->first = next;
    }
}

static void release(struct verdicts *v, struct queue *q)
{
    struct queue released = {0};

    queue_clear(&released);
    queue_add_all(&released, q);
    for (const struct entry *e = released.first; e; e = e->next)
        if (e->held)
            v->callbacks.decided(e->held, false, v->userdata);
    queue_free(&released);
}

/* --- answers ---------------------------------------------------------------------------------- */

static bool is_about(const struct store_verdict *verdict, const struct store_refusal *r)
{
    return verdict->integration_id == r->integration_id && verdict->fingerprint == r->fingerprint &&
           verdict->turn == r->turn;
}

/* The first ones fail, as many as the database says. */
static bool may_fail(struct store_verdict *verdicts, size_t count, const struct store_refusal *r)
{
    for (size_t i = 0; i < count; i++)
        if (is_about(&verdicts[i], r))
            return verdicts[i].may_fail-- > 0;
    return false;
}

static void on_judged(struct verdicts *v, const struct pg_result *result)
{
    size_t count = (size_t) pg_rows(result);
    CLEANUP(freep) struct store_verdict *verdicts = xcalloc(MAX(count, (size_t) 1), sizeof(*verdicts));
    struct queue judged;

    for (size_t i = 0; i < count; i++)
        store_verdict_row(result, (int) i, &verdicts[i]);
    queue_clear(&judged);
    queue_add_all(&judged, &v->asked);
    for (size_t i = 0; i < count; i++)
        v->callbacks.told(&verdicts[i], REASON, v->userdata);
    for (const struct entry *e = judged.first; e; e = e->next)
        if (e->held)
            v->callbacks.decided(e->held, may_fail(verdicts, count, &e->refusal), v->userdata);
    queue_free(&judged);
    v->alone = v->alone && v->waiting.first;
    (void) trouble_ends(&v->trouble);
}

/* Another session's lock, or worse: the others first. */
static void on_refused(struct verdicts *v, const struct pg_answer *answer)
{
    uint64_t now = now_monotonic_usec();
    bool locked = strcmp(answer->sqlstate, "55P03") == 0;

    queue_add_all(&v->waiting, &v->asked);
    v->alone = true;
    v->at = now + (locked ? LOCKED_PAUSE_USEC : REFUSED_PAUSE_USEC);
    if (trouble_lasts(&v->trouble, now, now, STORE_LOCK_PATIENCE_USEC))
        log_line(
            LOG_WARNING, MSG_LOCKED,
            "could not count refusals by institutions (SQLSTATE %s): %s; those subscriptions wait, trying "
            "again",
            answer->sqlstate, answer->err->text);
}

static void on_answer(struct pg_answer *answer, void *userdata)
{
    struct verdicts *v = userdata;

    if (answer->r == -ECONNRESET) {
        queue_add_all(&v->asked, &v->waiting);
        queue_add_all(&v->waiting, &v->asked);
        return;
    }
    if (answer->r == 0)
        on_judged(v, answer->result);
    else
        on_refused(v, answer);
    v->callbacks.done(v->userdata);
}

/* --- the interface ---------------------------------------------------------------------------- */

struct verdicts *verdicts_new(const struct verdicts_callbacks *callbacks, void *userdata)
{
    struct verdicts *v = xcalloc(1, sizeof(*v));

    v->callbacks = *callbacks;
    v->userdata = userdata;
    queue_clear(&v->waiting);
    queue_clear(&v->asked);
    return v;
}

void verdicts_free(struct verdicts *v)
{
    if (!v)
        return;
    queue_free(&v->waiting);
    queue_free(&v->asked);
    free(v);
}

void verdicts_ask(struct verdicts *v, const struct store_refusal *refusal, void *held)
{
    struct entry *e = xcalloc(1, sizeof(*e));

    e->refusal = *refusal;
    e->refusal.taken = !held;
    e->held = held;
    queue_add(&v->waiting, e);
    v->callbacks.added(v->userdata);
}

void verdicts_release(struct verdicts *v)
{
    release(v, &v->asked);
    release(v, &v->waiting);
}

uint64_t verdicts_due(const struct verdicts *v)
{
    return v->waiting.first && !v->asked.first ? v->at : USEC_INFINITY;
}

static void choose(struct verdicts *v)
{
    struct queue all;
    int64_t first = v->waiting.first->refusal.integration_id;

    queue_clear(&all);
    queue_add_all(&all, &v->waiting);
    for (struct entry *e = all.first, *next; e; e = next) {
        next = e->next;
        queue_add(!v->alone || e->refusal.integration_id == first ? &v->asked : &v->waiting, e);
    }
}

void verdicts_send(struct verdicts *v, struct pg_async *pg, struct pg_args *args)
{
    size_t count = 0, i = 0;

    choose(v);
    for (const struct entry *e = v->asked.first; e; e = e->next)
        count++;
    CLEANUP(freep) struct store_refusal *refusals = xcalloc(count, sizeof(*refusals));
    for (const struct entry *e = v->asked.first; e; e = e->next)
        refusals[i++] = e->refusal;
    store_judge_args(args, count, refusals, REASON);
    if (pg_async_query(pg, &sql_judge_refusals, args, DEADLINE_USEC, on_answer, v) < 0) {
        queue_add_all(&v->asked, &v->waiting);
        queue_add_all(&v->waiting, &v->asked);
    }
}
