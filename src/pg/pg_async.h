/* A Postgres connection on the event loop: nothing here blocks.
 *
 * Main thread only. Opening (name lookup and all) happens in a short-lived thread of its own, by pg_open(); a
 * lost connection is reopened with backoff until pg_async_free(). One statement runs at a time; each has a
 * deadline on our side, past which the connection is dropped. */
#pragma once

#include <systemd/sd-event.h>

#include "pg/pg.h"

struct pg_async;

struct pg_async_callbacks {
    /* A session is open and idle. */
    void (*up)(void *userdata);
    /* Lost, or an attempt to open it was refused; `r` as pg_open()'s. -ESTALE: it was given up, because of
     * pg_is_blind(). */
    void (*down)(int r, const struct error *err, void *userdata);
    /* NOTIFY arrived; NULL = not wanted. */
    void (*notified)(const char *payload, void *userdata);
};

/* `params` strings are copied. No callback comes from within this call. */
int pg_async_new(struct pg_async **ret, sd_event *event, const struct pg_params *params,
                 const struct pg_async_callbacks *callbacks, void *userdata);
void pg_async_free(struct pg_async *p);
bool pg_async_idle(const struct pg_async *p); /* up, and no statement is running */
bool pg_async_up(const struct pg_async *p);

/* How a statement ended. `r`: 0; -EBADMSG = the server refused it, for `sqlstate`; -ECONNRESET = the
 * connection was lost, and the statement may have been carried out all the same. `result` is NULL then. It is
 * freed after the callback, unless the callback takes it by setting it to NULL. */
struct pg_answer {
    struct pg_result *result;
    int r;
    const char *sqlstate; /* "" = none */
    const struct error *err;
};
typedef void (*pg_async_callback)(struct pg_answer *answer, void *userdata);
/* Only when idle. deadline_usec: relative, USEC_INFINITY = none. Never calls back from within. 0 or
 * -ENOTCONN. */
int pg_async_query(struct pg_async *p, const struct pg_statement *statement, const struct pg_args *args,
                   uint64_t deadline_usec, pg_async_callback callback, void *userdata);
/* Drops the session (a new one opens): the way out of a statement that waits for a lock. */
void pg_async_reset(struct pg_async *p);
/* One that waits to open its session tries at once: another one was opened just now. */
void pg_async_hurry(struct pg_async *p);
