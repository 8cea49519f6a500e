/* Writes outcomes back. See settler.h.
 *
 * One statement at a time. Those waiting are in `queue`; the batch under way is in `batch` and goes back to
 * the head of the queue when its statement is refused or its answer is lost. */
#include "delivery/settler.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "base/trouble.h"
#include "delivery/refused_results.h"
#include "delivery/refused_row.h"
#include "delivery/settlements.h"
#include "pg/pg_async.h"

/* How long a result may wait for others to come along. */
#define GATHER_USEC (5 * USEC_PER_MSEC)
#define REFUSED_PAUSE_USEC USEC_PER_SEC
#define LOCKED_PAUSE_USEC (100 * USEC_PER_MSEC)
/* Well below deadlock_timeout (a second), however long a batch takes to come from a row that the application
 * waits for to one that it holds: the server would end whoever waits longest, which must not be the
 * application. */
#define LOCK_USEC (200 * USEC_PER_MSEC)
#define DEADLINE_USEC (45 * USEC_PER_SEC)
#define CUT_OFF_USEC (3 * USEC_PER_SEC)
#define BATCH_BYTES ((size_t) 16 << 20)

struct settler {
    struct pg_async *pg;
    sd_event *event;
    sd_event_source *timer; /* one shot: look at the queue */
    struct settler_callbacks callbacks;
    void *userdata;
    size_t batch_max;
    size_t batch_limit; /* batch_max, or less while a bad row is looked for */
    struct {
        bool met; /* by the last batch */
        struct trouble trouble;
    } lock;
    struct refused_results refused;
    struct {
        uint64_t since; /* monotonic; 0 = the session is up */
        struct error why;
        bool said;
    } down;
    bool uncertain; /* an answer was lost: rows may have been settled already */
    bool hurry;
    bool notes_first;    /* results went last: who has many is not to keep them back */
    uint64_t not_before; /* monotonic; after a refusal */
    struct settlements queue, batch;
    struct notes *notes;
    struct standstill *standstill;
    struct pg_args args;
};

static void step(struct settler *s);

/* --- items ------------------------------------------------------------------------------------ */

/* The batch's items go back before those that wait. */
static void requeue(struct settler *s)
{
    struct settlements queue = s->queue;
    s->queue = s->batch;
    for (size_t i = 0; i < queue.count; i++)
        settlements_add(&s->queue, queue.data[i]);
    queue.count = 0;
    s->batch = queue;
}

static int by_id(const void *a, const void *b)
{
    const struct store_settlement *x = *(struct store_settlement *const *) a;
    const struct store_settlement *y = *(struct store_settlement *const *) b;
    return (x->id > y->id) - (x->id < y->id);
}

/* In the order of their ids, so that daemons lock rows in one order, and as many as the limits allow; those
 * that were refused by themselves wait their time and hold up no other. */
static void take_batch(struct settler *s)
{
    size_t kept = 0, bytes = 0;
    uint64_t now = now_monotonic_usec();
    for (size_t i = 0; i < s->queue.count; i++) {
        struct store_settlement *item = s->queue.data[i];
        if (s->batch.count < s->batch_limit && bytes < BATCH_BYTES && item->not_before <= now) {
            bytes += item->response_len;
            settlements_add(&s->batch, item);
        } else {
            s->queue.data[kept++] = item;
        }
    }
    s->queue.count = kept;
    qsort(s->batch.data, s->batch.count, sizeof(*s->batch.data), by_id);
}

/* --- timing ----------------------------------------------------------------------------------- */

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
    (void) source, (void) usec;
    step(userdata);
    return 0;
}

static void arm_timer(struct settler *s, uint64_t delay_usec)
{
    int enabled = SD_EVENT_OFF;
    if (!s->timer) {
        if (sd_event_add_time_relative(s->event, &s->timer, CLOCK_MONOTONIC, delay_usec, 500, on_timer, s) <
            0)
            abort();
        return;
    }
    (void) sd_event_source_get_enabled(s->timer, &enabled);
    if (enabled != SD_EVENT_OFF && delay_usec)
        return;
    sd_event_source_set_time_relative(s->timer, delay_usec);
    sd_event_source_set_enabled(s->timer, SD_EVENT_ONESHOT);
}

/* --- answers ---------------------------------------------------------------------------------- */

static void log_late(const struct settler *s, const struct store_settlement *item)
{
    /* After a lost answer this is most likely our own first try, which did arrive. */
    log_about(s->uncertain ? LOG_DEBUG : LOG_NOTICE, MSG_LEASE_LOST,
              &(struct log_about){.subscription_id = item->id},
              "result of subscription %" PRId64 " came after its claim had ended: it changes nothing",
              item->id);
}

/* Drops the items whose ids a result lists (or, with keep_listed, all others) from the batch. */
static size_t drop_listed(struct settler *s, const struct pg_result *result, bool keep_listed, bool say_late)
{
    size_t kept = 0, listed = 0, rows = (size_t) pg_rows(result), gone = 0;
    for (size_t i = 0; i < s->batch.count; i++) {
        struct store_settlement *item = s->batch.data[i];
        while (listed < rows && pg_get_i64(result, (int) listed, 0) < item->id)
            listed++;
        bool found = listed < rows && pg_get_i64(result, (int) listed, 0) == item->id;
        if (found == keep_listed) {
            s->batch.data[kept++] = item;
            continue;
        }
        if (say_late)
            log_late(s, item);
        refused_results_gone(&s->refused, item);
        settlement_free(item);
        gone++;
    }
    s->batch.count = kept;
    return gone;
}

static void note_locked(struct settler *s)
{
    uint64_t now = now_monotonic_usec();
    bool is_news = trouble_lasts(&s->lock.trouble, now, now, STORE_LOCK_PATIENCE_USEC);
    if (s->lock.trouble.said)
        standstill_kept(s->standstill, STANDSTILL_SETTLE, "results wait for the locks of other sessions");
    if (!is_news)
        return;
    log_line(LOG_WARNING, MSG_LOCKED,
             "%zu results cannot be settled for the locks of other sessions on their subscriptions: trying "
             "again until those end (select * from pg_locks)",
             s->batch.count);
}

static void note_unlocked(struct settler *s)
{
    uint64_t since = s->lock.trouble.since;
    if (trouble_ends(&s->lock.trouble))
        log_line(LOG_NOTICE, MSG_LOCKED,
                 "results can be settled again: other sessions' locks kept them for %" PRIu64 " s",
                 (now_monotonic_usec() - since) / USEC_PER_SEC);
}

static void batch_done(struct settler *s, size_t gone)
{
    s->callbacks.settled(gone, s->userdata);
    step(s);
}

/* What was not settled: still claimed means locked by somebody, to be tried again; else the claim is lost. */
static void on_still_claimed(struct pg_answer *answer, void *userdata)
{
    struct settler *s = userdata;
    size_t gone = 0;
    if (answer->r == 0) {
        gone = drop_listed(s, answer->result, true, true);
        s->uncertain = false;
    }
    if (s->batch.count > 0) {
        s->not_before = now_monotonic_usec() + LOCKED_PAUSE_USEC;
        if (answer->r == 0)
            note_locked(s);
    } else {
        note_unlocked(s);
    }
    requeue(s);
    batch_done(s, gone);
}

static void ask_still_claimed(struct settler *s)
{
    store_still_claimed_args(&s->args, s->batch.count,
                             (const struct store_settlement *const *) s->batch.data);
    if (pg_async_query(s->pg, &sql_still_claimed, &s->args, DEADLINE_USEC, on_still_claimed, s) < 0)
        requeue(s);
}

/* A single result that the database refuses for its data: the answer's text is given up, its outcome is not.
 */
static void drop_text(struct store_settlement *item)
{
    free(item->error);
    free(item->response);
    item->error =
        item->outcome.state == OUTCOME_SENT ? NULL : xstrdup("the answer's text could not be stored");
    item->response = NULL;
    item->response_len = 0;
}

static void on_refused(struct settler *s, const char *sqlstate, const struct error *err)
{
    bool locked = strcmp(sqlstate, "55P03") == 0;
    bool data = pg_blames_row(sqlstate);

    if (locked) {
        s->lock.met = true;
        note_locked(s);
    } else if (data && s->batch.count == 1 &&
               (s->batch.data[0]->refusals > 0 || refused_row_is_changed(sqlstate))) {
        refused_results_note(&s->refused, s->batch.data[0], sqlstate, err);
    } else if (data && s->batch.count == 1) {
        struct store_settlement *item = s->batch.data[0];
        item->refusals = 1;
        log_about(s->refused.many.said ? LOG_DEBUG : LOG_WARNING, MSG_SETTLE_SPLIT,
                  &(struct log_about){.subscription_id = item->id},
                  "could not store the answer's text for subscription %" PRId64
                  " (SQLSTATE %s): storing its outcome without it",
                  item->id, sqlstate);
        drop_text(item);
        s->not_before = now_monotonic_usec() + 10 * USEC_PER_MSEC;
    } else if (data) {
        s->batch_limit = s->batch.count / 2;
    } else {
        CLEANUP(freep)
        char *what = xasprintf("settle %zu result%s", s->batch.count, plural((int64_t) s->batch.count));
        standstill_refused(s->standstill, STANDSTILL_SETTLE, what, sqlstate, err);
        s->not_before = now_monotonic_usec() + REFUSED_PAUSE_USEC;
    }
    requeue(s);
    step(s);
}

static void on_settled(struct pg_answer *answer, void *userdata)
{
    struct settler *s = userdata;
    if (answer->r != 0) {
        if (answer->r == -EBADMSG) {
            on_refused(s, answer->sqlstate, answer->err);
        } else {
            s->uncertain = true;
            refused_results_lost(&s->refused, &s->batch, &s->batch_limit, answer->err);
            requeue(s);
        }
        return;
    }
    s->refused.lost = 0;
    s->batch_limit = MIN(s->batch_limit * 2, s->batch_max);
    size_t gone = drop_listed(s, answer->result, false, false);
    s->callbacks.settled(gone, s->userdata);
    if (s->batch.count > 0) {
        ask_still_claimed(s);
        return;
    }
    s->lock.met = false;
    s->uncertain = false;
    note_unlocked(s);
    standstill_over(s->standstill, STANDSTILL_SETTLE);
    step(s);
}

/* --- what to do next -------------------------------------------------------------------------- */

static void settle(struct settler *s)
{
    take_batch(s);
    if (s->batch.count == 0) {
        arm_timer(s, LOCKED_PAUSE_USEC);
        return;
    }
    store_settle_args(&s->args, s->batch.count, (const struct store_settlement *const *) s->batch.data);
    const struct pg_statement *statement = s->lock.met ? &sql_settle_unlocked : &sql_settle;
    if (pg_async_query(s->pg, statement, &s->args, DEADLINE_USEC, on_settled, s) < 0)
        requeue(s);
}

/* Of refused results: what it was for comes again when it is lost. */
static void on_refused_turn(struct pg_answer *answer, void *userdata)
{
    (void) answer;
    step(userdata);
}

static void note_down(struct settler *s, uint64_t now)
{
    if (s->down.since == 0 || s->down.said)
        return;
    uint64_t lasted = now - s->down.since;
    if (lasted >= CUT_OFF_USEC)
        s->down.said = s->callbacks.cut_off(&s->down.why, s->userdata);
    if (!s->down.said)
        arm_timer(s, lasted < CUT_OFF_USEC ? CUT_OFF_USEC - lasted : CUT_OFF_USEC);
}

static void step(struct settler *s)
{
    uint64_t now = now_monotonic_usec();
    note_down(s, now);
    if (!pg_async_idle(s->pg))
        return;
    if (refused_results_turn(&s->refused, &s->queue, s->pg, &s->args, on_refused_turn, s))
        return;
    uint64_t due = notes_due(s->notes);
    bool notes_first = s->notes_first && MAX(due, s->not_before) <= now;
    if (s->queue.count > 0 && !notes_first) {
        s->notes_first = true;
        if (now < s->not_before)
            arm_timer(s, s->not_before - now);
        else
            settle(s);
    }
    if (due == USEC_INFINITY || !pg_async_idle(s->pg))
        return;
    due = MAX(due, s->not_before);
    if (now < due) {
        arm_timer(s, due - now);
        return;
    }
    s->notes_first = false;
    notes_send(s->notes, s->pg, &s->args);
}

static void on_up(void *userdata)
{
    struct settler *s = userdata;

    bool was_cut_off = s->down.said;

    if (was_cut_off)
        standstill_over(s->standstill, STANDSTILL_SETTLE);
    s->down.since = 0;
    s->down.said = false;
    refused_results_opened(&s->refused);
    s->callbacks.up(was_cut_off, s->userdata);
    s->callbacks.settled(0, s->userdata); /* claims go on */
    step(s);
}

/* That the database is away is said for the session that claims; this one may be away alone. */
static void on_down(int r, const struct error *err, void *userdata)
{
    struct settler *s = userdata;

    (void) r;
    s->down.why = *err;
    if (s->down.since == 0)
        s->down.since = now_monotonic_usec();
    note_down(s, now_monotonic_usec());
}

/* --- the interface ---------------------------------------------------------------------------- */

int settler_new(struct settler **ret, sd_event *event, const struct settler_params *params,
                const struct settler_callbacks *callbacks, void *userdata)
{
    static const struct pg_async_callbacks session = {on_up, on_down, NULL};
    struct settler *s = xcalloc(1, sizeof(*s));
    struct pg_params own = params->session;

    s->event = sd_event_ref(event);
    s->callbacks = *callbacks;
    s->userdata = userdata;
    s->notes = params->notes;
    s->standstill = params->standstill;
    s->refused = (struct refused_results){.standstill = s->standstill,
                                          .held = callbacks->held,
                                          .userdata = userdata,
                                          .lease_usec = params->lease_usec};
    s->batch_max = s->batch_limit = (size_t) params->batch_size;
    s->args = PG_ARGS_INIT;
    own.application_name = STORE_SETTLE_SESSION;
    own.lock_timeout_usec = LOCK_USEC;
    int r = pg_async_new(&s->pg, event, &own, &session, s);
    if (r < 0) {
        settler_free(s);
        return r;
    }
    *ret = s;
    return 0;
}

void settler_free(struct settler *s)
{
    if (!s)
        return;
    pg_async_free(s->pg);
    sd_event_source_disable_unref(s->timer);
    sd_event_unref(s->event);
    settlements_free(&s->queue);
    settlements_free(&s->batch);
    pg_args_free(&s->args);
    free(s);
}

void settler_add(struct settler *s, struct store_settlement *item)
{
    settlements_add(&s->queue, item);
    if (s->queue.count >= s->batch_max || s->hurry)
        step(s);
    else
        arm_timer(s, GATHER_USEC);
}

void settler_has_notes(struct settler *s)
{
    if (s->hurry)
        step(s);
    else
        arm_timer(s, GATHER_USEC);
}

bool settler_up(const struct settler *s)
{
    return s->down.since == 0;
}

void settler_others_up(struct settler *s)
{
    if (s->down.since == 0 || s->down.said)
        return;
    s->down.since = now_monotonic_usec();
    pg_async_hurry(s->pg);
}

size_t settler_pending(const struct settler *s)
{
    return s->queue.count + s->batch.count;
}

void settler_hurry(struct settler *s)
{
    s->hurry = true;
    step(s);
}

void settler_flush(struct settler *s)
{
    step(s);
}

void settler_tokens(const struct settler *s, void (*note)(int64_t token, void *userdata), void *userdata)
{
    const struct settlements *lists[] = {&s->queue, &s->batch};
    for (size_t l = 0; l < ARRAY_SIZE(lists); l++)
        for (size_t i = 0; i < lists[l]->count; i++)
            note(lists[l]->data[i]->token, userdata);
}

void settler_reopen(struct settler *s)
{
    pg_async_reset(s->pg);
}
