/* The doorbell. See doorbell.h. */
#include "delivery/doorbell.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/timeutil.h"
#include "delivery/store_delivery.h"
#include "pg/pg_async.h"

/* How long a seat that another daemon has is left alone. */
#define SEAT_RETRY_USEC (5 * USEC_PER_SEC)
#define DEADLINE_USEC (10 * USEC_PER_SEC)

struct doorbell {
    struct pg_async *listener, *holder;
    struct doorbell_callbacks callbacks;
    void *userdata;
    bool listening;
    bool wanted; /* we would like to be rung */
    bool seated; /* the seat is ours for as long as the holder's session lives */
    bool held;
    uint64_t seat_again_usec; /* monotonic: not asked for before */
    struct pg_statement listen;
    char listen_sql[96];
};

static void step(struct doorbell *d);

/* --- the session that listens ----------------------------------------------------------------- */

static void on_listening(struct pg_answer *answer, void *userdata)
{
    struct doorbell *d = userdata;
    d->listening = answer->r == 0;
    step(d);
}

static void on_channel(struct pg_answer *answer, void *userdata)
{
    struct doorbell *d = userdata;
    if (answer->r != 0 || pg_rows(answer->result) != 1)
        return;
    snprintf(d->listen_sql, sizeof(d->listen_sql), "listen %s", pg_get_text(answer->result, 0, 0));
    d->listen = (struct pg_statement){.name = "", .sql = d->listen_sql};
    (void) pg_async_query(d->listener, &d->listen, NULL, DEADLINE_USEC, on_listening, d);
}

static void listener_up(void *userdata)
{
    struct doorbell *d = userdata;
    (void) pg_async_query(d->listener, &sql_listen_channel, NULL, DEADLINE_USEC, on_channel, d);
}

static void listener_down(int r, const struct error *err, void *userdata)
{
    struct doorbell *d = userdata;

    (void) r, (void) err;
    d->listening = false;
}

static void notified(const char *payload, void *userdata)
{
    struct doorbell *d = userdata;
    (void) payload;
    d->callbacks.rung(d->userdata);
}

/* --- the session that holds ------------------------------------------------------------------- */

static void on_held(struct pg_answer *answer, void *userdata)
{
    struct doorbell *d = userdata;
    /* A transaction that inserted keeps the bell longer than lock_timeout. It is asked for again at once: so
     * only inserts between two asks ring no daemon, and each ask has a snapshot of its own, which does not
     * hold VACUUM up. */
    bool kept = answer->r == -EBADMSG && strcmp(answer->sqlstate, "55P03") == 0;

    d->held = answer->r == 0;
    if (answer->r == -EBADMSG && !kept)
        d->wanted = false;
    if ((d->held || kept) && d->wanted)
        d->callbacks.look(d->userdata);
    step(d);
}

static void on_released(struct pg_answer *answer, void *userdata)
{
    struct doorbell *d = userdata;
    if (answer->r == 0)
        d->held = false;
    step(d);
}

static void on_seat(struct pg_answer *answer, void *userdata)
{
    struct doorbell *d = userdata;
    d->seated = answer->r == 0 && pg_get_bool(answer->result, 0, 0);
    if (!d->seated)
        d->seat_again_usec = now_monotonic_usec() + SEAT_RETRY_USEC;
    step(d);
}

static void holder_down(int r, const struct error *err, void *userdata)
{
    struct doorbell *d = userdata;

    (void) r, (void) err;
    d->seated = d->held = false;
    d->seat_again_usec = 0;
}

static void holder_up(void *userdata)
{
    step(userdata);
}

/* Does the next thing that leads from what is to what is wanted. */
static void step(struct doorbell *d)
{
    if (!pg_async_idle(d->holder))
        return;
    if (!d->wanted) {
        if (d->held)
            (void) pg_async_query(d->holder, &sql_release_bell, NULL, DEADLINE_USEC, on_released, d);
        return;
    }
    if (d->held || !d->listening)
        return;
    if (d->seated)
        (void) pg_async_query(d->holder, &sql_hold_bell, NULL, DEADLINE_USEC, on_held, d);
    else if (now_monotonic_usec() >= d->seat_again_usec)
        (void) pg_async_query(d->holder, &sql_take_seat, NULL, DEADLINE_USEC, on_seat, d);
}

/* --- the interface ---------------------------------------------------------------------------- */

int doorbell_new(struct doorbell **ret, sd_event *event, const struct pg_params *params,
                 const struct doorbell_callbacks *callbacks, void *userdata)
{
    static const struct pg_async_callbacks listener = {listener_up, listener_down, notified};
    static const struct pg_async_callbacks holder = {holder_up, holder_down, NULL};
    struct doorbell *d = xcalloc(1, sizeof(*d));
    struct pg_params own = *params;

    d->callbacks = *callbacks;
    d->userdata = userdata;
    own.application_name = "anubisd listen";
    int r = pg_async_new(&d->listener, event, &own, &listener, d);
    own.application_name = "anubisd doorbell";
    if (r >= 0)
        r = pg_async_new(&d->holder, event, &own, &holder, d);
    if (r < 0) {
        doorbell_free(d);
        return r;
    }
    *ret = d;
    return 0;
}

void doorbell_free(struct doorbell *d)
{
    if (!d)
        return;
    pg_async_free(d->listener);
    pg_async_free(d->holder);
    free(d);
}

void doorbell_ask(struct doorbell *d)
{
    d->wanted = true;
    step(d);
}

void doorbell_release(struct doorbell *d)
{
    d->wanted = false;
    step(d);
}

bool doorbell_has_seat(const struct doorbell *d)
{
    return d->seated;
}

bool doorbell_is_held(const struct doorbell *d)
{
    return d->held && d->wanted && d->listening;
}

void doorbell_reopen(struct doorbell *d)
{
    pg_async_reset(d->listener);
    pg_async_reset(d->holder);
}
