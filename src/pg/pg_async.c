/* A Postgres session on the event loop. See pg_async.h.
 *
 * States: opening (a thread is in pg_open()) → idle ⇄ running, and from anywhere → waiting (backoff) →
 * opening. */
#include "pg/pg_async.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#include "base/backoff.h"
#include "base/timeutil.h"
#include "pg/pg_internal.h"

/* Parameters whose strings are our own. */
struct owned_params {
    struct pg_params params;
    char *conninfo, *schema, *application_name, *daemon;
};

static void owned_params_copy(struct owned_params *to, const struct pg_params *from)
{
    to->params = *from;
    to->params.conninfo = to->conninfo = xstrdup(from->conninfo);
    to->params.schema = to->schema = xstrdup(from->schema);
    to->params.application_name = to->application_name = xstrdup(from->application_name);
    to->params.daemon = to->daemon = xstrdup(from->daemon);
}

static void owned_params_free(struct owned_params *p)
{
    free_secret(p->conninfo);
    free(p->schema);
    free(p->application_name);
    free(p->daemon);
}

/* What the opening thread works on and leaves behind. Whoever comes last frees it: the thread cannot be
 * joined while it sits in a name lookup, and neither can the process wait for it when it stops. */
struct opening {
    pthread_mutex_t lock;
    bool finished, abandoned;
    int done_fd; /* becomes readable when finished */
    int stop_fd; /* ours: raised when abandoned */
    struct owned_params owned;
    struct pg *pg;
    int r;
    struct error err;
};

struct running {
    const struct pg_statement *statement;
    PGresult *result; /* the last one that has come in */
    bool preparing;   /* the answer under way is that of PREPARE */
    struct pg_args args;
    pg_async_callback callback;
    void *userdata;
};

struct pg_async {
    sd_event *event;
    struct owned_params owned;
    struct pg_async_callbacks callbacks;
    void *userdata;

    struct opening *opening;
    sd_event_source *opening_source;
    struct backoff backoff;
    sd_event_source *retry_timer, *deadline_timer;

    PGconn *conn;
    int64_t server;     /* see pg_is_elsewhere() */
    uint64_t opened_at; /* monotonic */
    struct pg_async *next;
    sd_event_source *io;
    uint32_t io_mask;
    struct pg_prepared prepared;
    bool busy;
    struct running now;
};

static struct pg_async *sessions; /* all of them */

static void start_opening(struct pg_async *p);

/* --- the opening thread ----------------------------------------------------------------------- */

static void opening_free(struct opening *o)
{
    pg_close(o->pg);
    closep(&o->done_fd);
    closep(&o->stop_fd);
    pthread_mutex_destroy(&o->lock);
    owned_params_free(&o->owned);
    free(o);
}

static void *opening_thread(void *userdata)
{
    struct opening *o = userdata;
    struct pg *pg = NULL;
    struct error err = {0};
    int r = pg_open(&pg, &o->owned.params, &err);

    pthread_mutex_lock(&o->lock);
    o->pg = pg;
    o->r = r;
    o->err = err;
    o->finished = true;
    bool abandoned = o->abandoned;
    if (!abandoned)
        wakefd_raise(o->done_fd);
    pthread_mutex_unlock(&o->lock);
    if (abandoned)
        opening_free(o);
    return NULL;
}

static void opening_abandon(struct opening *o)
{
    if (!o)
        return;
    pthread_mutex_lock(&o->lock);
    o->abandoned = true;
    wakefd_raise(o->stop_fd);
    bool finished = o->finished;
    pthread_mutex_unlock(&o->lock);
    if (finished)
        opening_free(o);
}

/* --- going down and coming up ----------------------------------------------------------------- */

static int on_retry(sd_event_source *s, uint64_t usec, void *userdata)
{
    (void) s;
    (void) usec;
    start_opening(userdata);
    return 0;
}

static void arm(struct pg_async *p, sd_event_source **timer, uint64_t delay_usec,
                sd_event_time_handler_t handler)
{
    if (!*timer) {
        if (sd_event_add_time_relative(p->event, timer, CLOCK_MONOTONIC, delay_usec, 1000, handler, p) < 0)
            abort();
        return;
    }
    sd_event_source_set_time_relative(*timer, delay_usec);
    sd_event_source_set_enabled(*timer, SD_EVENT_ONESHOT);
}

static void disarm(sd_event_source *timer)
{
    if (timer)
        sd_event_source_set_enabled(timer, SD_EVENT_OFF);
}

static void drop_connection(struct pg_async *p)
{
    p->io = sd_event_source_disable_unref(p->io);
    PQclear(TAKE_PTR(p->now.result));
    PQfinish(TAKE_PTR(p->conn));
    p->prepared.count = 0;
    disarm(p->deadline_timer);
}

/* Ends the statement under way, if any. The callback may start nothing: the connection is down or still ours.
 */
static void answer(struct pg_async *p, PGresult *result, int r, const struct error *err)
{
    char sqlstate[6];

    if (!p->busy) {
        PQclear(result);
        return;
    }
    p->busy = false;
    disarm(p->deadline_timer);
    snprintf(sqlstate, sizeof(sqlstate), "%s", pg_sqlstate(result));
    if (r)
        PQclear(TAKE_PTR(result));
    struct pg_answer a = {.result = result, .r = r, .sqlstate = sqlstate, .err = err};
    p->now.callback(&a, p->now.userdata);
    PQclear(a.result);
}

static void go_down(struct pg_async *p, int r, const struct error *err)
{
    drop_connection(p);
    arm(p, &p->retry_timer, backoff_next_usec(&p->backoff), on_retry);
    answer(p, NULL, -ECONNRESET, err);
    p->callbacks.down(r, err, p->userdata);
}

static void lost(struct pg_async *p)
{
    struct error err;
    pg_words(&err, p->conn, NULL);
    go_down(p, -ECONNRESET, &err);
}

/* --- reading and writing ---------------------------------------------------------------------- */

static void watch(struct pg_async *p, uint32_t mask)
{
    if (mask != p->io_mask && sd_event_source_set_io_events(p->io, mask) >= 0)
        p->io_mask = mask;
}

static void deliver_notifications(struct pg_async *p)
{
    PGnotify *n;
    while (p->conn && (n = PQnotifies(p->conn))) {
        if (p->callbacks.notified)
            p->callbacks.notified(n->extra, p->userdata);
        PQfreemem(n);
    }
}

static bool send_statement(struct pg_async *p)
{
    return pg_send(p->conn, &p->prepared, p->now.statement, &p->now.args, &p->now.preparing);
}

static void flush(struct pg_async *p)
{
    int unsent = PQflush(p->conn);
    if (unsent < 0)
        lost(p);
    else
        watch(p, EPOLLIN | (unsent ? EPOLLOUT : 0));
}

static void prepared_or_lost(struct pg_async *p)
{
    pg_prepared_add(&p->prepared, p->now.statement);
    if (send_statement(p))
        flush(p);
    else
        lost(p);
}

/* Takes the results that are complete; the statement ends with the NULL after the last of them, which may
 * come later than it. */
static void take_results(struct pg_async *p)
{
    while (!PQisBusy(p->conn)) {
        PGresult *next = PQgetResult(p->conn);
        if (next) {
            PQclear(p->now.result);
            p->now.result = next;
            continue;
        }
        PGresult *result = TAKE_PTR(p->now.result);
        if (!pg_result_is_good(result)) {
            struct error err;
            pg_words(&err, p->conn, result);
            bool read_only = p->owned.params.writes && pg_result_is_read_only(result);
            bool blind = pg_is_blind(pg_sqlstate(result), p->opened_at);
            if (read_only || blind || pg_result_is_foreign(result)) {
                PQclear(result);
                go_down(p, read_only ? -EROFS : blind ? -ESTALE : -ECONNRESET, &err);
                return;
            }
            answer(p, result, -EBADMSG, &err);
        } else if (p->now.preparing) {
            PQclear(result);
            prepared_or_lost(p);
        } else {
            answer(p, result, 0, NULL);
        }
        return;
    }
}

static int on_io(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
    struct pg_async *p = userdata;
    (void) s;
    (void) fd;
    if ((revents & ~(uint32_t) EPOLLOUT) && !PQconsumeInput(p->conn)) {
        lost(p);
        return 0;
    }
    if (revents & EPOLLOUT)
        flush(p);
    deliver_notifications(p);
    if (p->conn && p->busy)
        take_results(p);
    if (p->conn && PQstatus(p->conn) != CONNECTION_OK)
        lost(p);
    return 0;
}

/* One that listens, or waits for a lock, would not notice. */
static void take_others_along(void)
{
    struct error err;

    for (struct pg_async *p = sessions; p; p = p->next)
        if (p->conn && pg_is_elsewhere(p->server, &err))
            go_down(p, -ECONNRESET, &err);
}

static int on_opened(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
    struct pg_async *p = userdata;
    struct opening *o = TAKE_PTR(p->opening);
    (void) s;
    (void) fd;
    (void) revents;
    p->opening_source = sd_event_source_disable_unref(p->opening_source);
    /* The thread raised done_fd under the lock: once we hold it, the thread touches nothing any more. */
    pthread_mutex_lock(&o->lock);
    pthread_mutex_unlock(&o->lock);
    struct error err = o->err;
    int r = o->r;
    if (r == PG_DONE)
        p->conn = pg_release(TAKE_PTR(o->pg), &p->server);
    opening_free(o);
    if (r != PG_DONE) {
        arm(p, &p->retry_timer, backoff_next_usec(&p->backoff), on_retry);
        p->callbacks.down(r, &err, p->userdata);
        return 0;
    }
    p->opened_at = now_monotonic_usec();
    p->io_mask = EPOLLIN;
    if (sd_event_add_io(p->event, &p->io, PQsocket(p->conn), EPOLLIN, on_io, p) < 0)
        abort();
    backoff_reset(&p->backoff);
    take_others_along();
    p->callbacks.up(p->userdata);
    return 0;
}

static void start_opening(struct pg_async *p)
{
    struct opening *o = xcalloc(1, sizeof(*o));
    pthread_t thread;
    pthread_attr_t attr;

    pthread_mutex_init(&o->lock, NULL);
    o->done_fd = wakefd_new();
    o->stop_fd = wakefd_new();
    owned_params_copy(&o->owned, &p->owned.params);
    o->owned.params.stop_fd = o->stop_fd;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    int r = pthread_create(&thread, &attr, opening_thread, o);
    pthread_attr_destroy(&attr);
    if (r != 0) {
        struct error err;
        error_set(&err, "could not start a thread: %s", strerror(r));
        opening_free(o);
        arm(p, &p->retry_timer, backoff_next_usec(&p->backoff), on_retry);
        p->callbacks.down(-r, &err, p->userdata);
        return;
    }
    p->opening = o;
    if (sd_event_add_io(p->event, &p->opening_source, o->done_fd, EPOLLIN, on_opened, p) < 0)
        abort();
}

/* --- the interface ---------------------------------------------------------------------------- */

int pg_async_new(struct pg_async **ret, sd_event *event, const struct pg_params *params,
                 const struct pg_async_callbacks *callbacks, void *userdata)
{
    struct pg_async *p = xcalloc(1, sizeof(*p));
    p->event = sd_event_ref(event);
    owned_params_copy(&p->owned, params);
    p->callbacks = *callbacks;
    p->userdata = userdata;
    p->backoff = BACKOFF_RECONNECT;
    p->now.args = PG_ARGS_INIT;
    p->next = sessions;
    sessions = p;
    arm(p, &p->retry_timer, 0, on_retry);
    *ret = p;
    return 0;
}

void pg_async_free(struct pg_async *p)
{
    if (!p)
        return;
    for (struct pg_async **at = &sessions; *at; at = &(*at)->next)
        if (*at == p) {
            *at = p->next;
            break;
        }
    p->opening_source = sd_event_source_disable_unref(p->opening_source);
    opening_abandon(p->opening);
    drop_connection(p);
    sd_event_source_disable_unref(p->retry_timer);
    sd_event_source_disable_unref(p->deadline_timer);
    pg_args_free(&p->now.args);
    free(p->prepared.items);
    owned_params_free(&p->owned);
    sd_event_unref(p->event);
    free(p);
}

bool pg_async_up(const struct pg_async *p)
{
    return p && p->conn;
}

bool pg_async_idle(const struct pg_async *p)
{
    return pg_async_up(p) && !p->busy;
}

void pg_async_reset(struct pg_async *p)
{
    struct error err;
    error_set(&err, "the session was given up");
    if (p->conn)
        go_down(p, -ECONNRESET, &err);
}

void pg_async_hurry(struct pg_async *p)
{
    int waits = SD_EVENT_OFF;

    if (p->retry_timer)
        (void) sd_event_source_get_enabled(p->retry_timer, &waits);
    if (waits == SD_EVENT_OFF)
        return;
    backoff_reset(&p->backoff);
    arm(p, &p->retry_timer, 0, on_retry);
}

static int on_deadline(sd_event_source *s, uint64_t usec, void *userdata)
{
    struct pg_async *p = userdata;
    struct error err;
    (void) s;
    (void) usec;
    if (!pg_is_elsewhere(p->server, &err))
        error_set(&err, "no answer from the database in time");
    if (PQstatus(p->conn) == CONNECTION_OK)
        go_down(p, -ECONNRESET, &err);
    else
        lost(p);
    return 0;
}

int pg_async_query(struct pg_async *p, const struct pg_statement *statement, const struct pg_args *args,
                   uint64_t deadline_usec, pg_async_callback callback, void *userdata)
{
    if (!pg_async_idle(p))
        return -ENOTCONN;
    /* A copy, because PREPARE may have to come first; the buffer stays for the next one. */
    struct strbuf bytes = p->now.args.bytes;
    strbuf_clear(&bytes);
    p->now.args = args ? *args : PG_ARGS_INIT;
    p->now.args.bytes = bytes;
    if (args && args->bytes.len)
        strbuf_add(&p->now.args.bytes, args->bytes.data, args->bytes.len);
    p->now.statement = statement;
    p->now.callback = callback;
    p->now.userdata = userdata;
    p->busy = true;
    struct error err;
    int unsent = !pg_is_elsewhere(p->server, &err) && send_statement(p) ? PQflush(p->conn) : -1;
    if (unsent >= 0)
        watch(p, EPOLLIN | (unsent ? EPOLLOUT : 0));
    else
        deadline_usec = 0; /* the bad news comes from the loop, like all others */
    if (deadline_usec != USEC_INFINITY)
        arm(p, &p->deadline_timer, deadline_usec, on_deadline);
    return 0;
}
