/* The session that claims. See queue_session.h. */
#include "delivery/queue_session.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "base/trouble.h"
#include "delivery/store_delivery.h"
#include "pg/pg_session.h"

#define DEADLINE_USEC (45 * USEC_PER_SEC)
/* A claim passes over locked rows; what it may wait for is a lock on a whole table. */
/* The first reason is often that a session ended; one that then stays for so long is said, too. */
#define REASON_USEC (5 * USEC_PER_SEC)
#define LOCK_TIMEOUT_USEC (5 * USEC_PER_SEC)

struct queue_session {
    struct pg_async *pg;
    struct queue_session_callbacks callbacks;
    void *userdata;
    struct pg_args args;
    struct trouble lock;
    struct standstill *standstill;
    uint64_t asked_at; /* monotonic: when the statement under way was sent */
    const char *statement;
    bool was_up, silent;
    struct error why_not;     /* why it is not up */
    const char *said_down;    /* the message's id; NULL while it is up */
    struct error said_misfit; /* what was wrong with the schema */
    struct error said_reason; /* why it was lost */
    uint64_t reason_since;    /* monotonic: it has been why_not all the time */
};

bool queue_session_note_back(struct queue_session *q)
{
    if (!q->said_down)
        return false;
    if (pg_async_up(q->pg) && q->callbacks.others_up(q->userdata)) {
        log_line(LOG_NOTICE, MSG_DATABASE_BACK, "the database is back");
        q->said_down = NULL;
    }
    return true;
}

static void on_up(void *userdata)
{
    struct queue_session *q = userdata;
    bool again = q->was_up;

    (void) queue_session_note_back(q);
    q->was_up = true;
    q->callbacks.up(again, q->userdata);
}

/* Said once for each kind, and once for each fault of the schema: it may be migrated and then forbidden. */
static bool is_said(const struct queue_session *q, const char *message_id, const struct error *err)
{
    if (!q->said_down || strcmp(q->said_down, message_id) != 0)
        return false;
    return strcmp(message_id, MSG_SCHEMA_MISMATCH) != 0 || strcmp(q->said_misfit.text, err->text) == 0;
}

static void note_reason(struct queue_session *q, const struct error *err)
{
    uint64_t now = now_monotonic_usec();

    if (strcmp(q->why_not.text, err->text) != 0)
        q->reason_since = now;
    q->why_not = *err;
    if (q->silent || !q->said_down || strcmp(q->said_down, MSG_DATABASE_LOST) != 0 ||
        strcmp(q->said_reason.text, err->text) == 0 || now - q->reason_since < REASON_USEC)
        return;
    q->said_reason = *err;
    log_line(LOG_WARNING, MSG_DATABASE_LOST, "the database is still away: %s; trying again", err->text);
}

static void on_down(int r, const struct error *err, void *userdata)
{
    struct queue_session *q = userdata;
    const char *message_id = r == PG_SCHEMA_MISFIT ? MSG_SCHEMA_MISMATCH
                             : r == -EROFS         ? MSG_DATABASE_READ_ONLY
                                                   : MSG_DATABASE_LOST;

    if (is_said(q, message_id, err))
        note_reason(q, err);
    q->why_not = *err;
    if (r == -ESTALE || q->silent || is_said(q, message_id, err))
        return;
    q->said_down = message_id;
    if (r == PG_SCHEMA_MISFIT) {
        q->said_misfit = *err;
        log_line(LOG_ERR, MSG_SCHEMA_MISMATCH, "%s", err->text);
    } else if (r == -EROFS) {
        log_line(LOG_WARNING, MSG_DATABASE_READ_ONLY, "the database takes no writes: %s; trying again",
                 err->text);
    } else {
        q->said_reason = *err;
        log_line(LOG_WARNING, MSG_DATABASE_LOST, "could not work with the database: %s; trying again",
                 err->text);
    }
}

bool queue_session_gave_up_for_lock(struct queue_session *q, const struct pg_answer *answer)
{
    uint64_t now = now_monotonic_usec(), since = q->lock.since;

    if (answer->r == -EBADMSG && strcmp(answer->sqlstate, "55P03") == 0) {
        if (trouble_lasts(&q->lock, q->asked_at, now, STORE_LOCK_PATIENCE_USEC))
            log_line(LOG_WARNING, MSG_LOCKED,
                     "subscriptions cannot be claimed for another session's lock on a table: trying again "
                     "until it ends (select * from pg_locks)");
        if (q->lock.said)
            standstill_kept(q->standstill, STANDSTILL_CLAIM, "claims wait for another session's lock");
        return true;
    }
    if (answer->r == 0 && trouble_ends(&q->lock))
        log_line(LOG_NOTICE, MSG_LOCKED,
                 "subscriptions can be claimed again: another session's lock kept them for %" PRIu64 " s",
                 (now - since) / USEC_PER_SEC);
    return false;
}

void queue_session_refused(struct queue_session *q, enum standstill_work work, const char *what,
                           const struct pg_answer *answer)
{
    standstill_refused(q->standstill, work, what, answer->sqlstate, answer->err);
}

void queue_session_done(struct queue_session *q, enum standstill_work work)
{
    standstill_over(q->standstill, work);
}

int queue_session_ask(struct queue_session *q, const struct pg_statement *statement,
                      pg_async_callback callback, void *userdata)
{
    q->asked_at = now_monotonic_usec();
    q->statement = statement->name;
    return pg_async_query(q->pg, statement, &q->args, DEADLINE_USEC, callback, userdata);
}

struct pg_args *queue_session_args(struct queue_session *q)
{
    return &q->args;
}

bool queue_session_up(const struct queue_session *q)
{
    return pg_async_up(q->pg);
}

const struct error *queue_session_error(const struct queue_session *q)
{
    return &q->why_not;
}

bool queue_session_idle(const struct queue_session *q)
{
    return pg_async_idle(q->pg);
}

const char *queue_session_busy_with(const struct queue_session *q, uint64_t *ret_since)
{
    if (!queue_session_up(q) || queue_session_idle(q))
        return NULL;
    *ret_since = q->asked_at;
    return q->statement;
}

void queue_session_reopen(struct queue_session *q)
{
    pg_async_reset(q->pg);
}

void queue_session_silence(struct queue_session *q)
{
    q->silent = true;
}

int queue_session_new(struct queue_session **ret, sd_event *event, const struct config *config,
                      struct standstill *standstill, const struct queue_session_callbacks *callbacks,
                      void *userdata)
{
    static const struct pg_async_callbacks session = {on_up, on_down, NULL};
    struct queue_session *q = xcalloc(1, sizeof(*q));
    struct pg_params params = pg_session_params(config, PG_SESSION_CLAIM, 0);

    params.lock_timeout_usec = LOCK_TIMEOUT_USEC;
    q->standstill = standstill;
    q->callbacks = *callbacks;
    q->userdata = userdata;
    q->args = PG_ARGS_INIT;
    int r = pg_async_new(&q->pg, event, &params, &session, q);
    if (r < 0) {
        queue_session_free(q);
        return r;
    }
    *ret = q;
    return 0;
}

void queue_session_free(struct queue_session *q)
{
    if (!q)
        return;
    pg_async_free(q->pg);
    pg_args_free(&q->args);
    free(q);
}
