/* Claims. See claimer.h. */
#include <errno.h>

#include "base/timeutil.h"
#include "delivery/claimer_internal.h"
#include "delivery/refused_row.h"
#include "delivery/store_delivery.h"

/* Who finds rows twice within so long, more than one or while the next ones ring, is busy: notifications
 * would cost the writers more than polling costs us. Single rows one after the other make none wait: who has
 * found nothing else for some looks asks for the doorbell again. */
#define BUSY_USEC (20 * USEC_PER_MSEC)
#define BUSY_RUNG_USEC (5 * USEC_PER_MSEC)
#define SINGLES 4
/* Between claims that find nothing, until the doorbell is asked for again. */
#define SHORT_PAUSE_USEC 2500
/* Slots that get free are given out again together: a claim costs the database a millisecond, however few
 * rows it takes. */
#define REFILL_PAUSE_USEC 2500
/* A look at everything that takes less walks over no entries of claimed rows to speak of. */
#define QUICK_USEC USEC_PER_MSEC
/* While rings are not wanted, rows of other integrations are found by polling. */
#define DEAF_POLL_USEC (100 * USEC_PER_MSEC)
/* While another daemon has the bell, it is not rung for what only this one may claim, and is busy. */
#define NO_SEAT_POLL_USEC USEC_PER_SEC
#define ERROR_PAUSE_USEC USEC_PER_SEC
/* While somebody else has an integration's row locked: counting does, for some milliseconds. */
#define LOCKED_OUT ((struct backoff){.base_usec = 5 * USEC_PER_MSEC, .max_usec = USEC_PER_SEC})

void claimer_soon(struct claimer *c, uint64_t delay_usec)
{
    uint64_t at = now_monotonic_usec() + delay_usec, planned;
    int enabled = SD_EVENT_OFF;

    (void) sd_event_source_get_enabled(c->timer, &enabled);
    if (enabled != SD_EVENT_OFF && sd_event_source_get_time(c->timer, &planned) >= 0 && planned <= at)
        return;
    sd_event_source_set_time(c->timer, at);
    sd_event_source_set_enabled(c->timer, SD_EVENT_ONESHOT);
}

void claimer_probe_soon(struct claimer *c, uint64_t delay_usec)
{
    c->probes.fruitless = 0;
    probes_plan(&c->probes, now_monotonic_usec() + delay_usec);
    claimer_soon(c, delay_usec);
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
    struct claimer *c = userdata;

    (void) s, (void) usec;
    sight_wanted(c->parts.sight, now_monotonic_usec());
    c->missed = !queue_session_idle(c->parts.session);
    if (!c->missed)
        c->callbacks.turn(c->userdata);
    return 0;
}

/* Notifications that are on their way do not end a deaf pause. */
void claimer_rung(struct claimer *c)
{
    if (now_monotonic_usec() < c->deaf.until)
        return;
    c->rung = true;
    claimer_soon(c, 0);
}

void claimer_slots_freed(struct claimer *c, bool integration_has_more)
{
    if (integration_has_more || c->starved_since || c->cut)
        claimer_soon(c, REFILL_PAUSE_USEC);
}

/* --- when the next claim is ------------------------------------------------------------------- */

/* Nobody rings at the end of a backoff that only this daemon knows of, nor when a look for probes is due. */
static uint64_t wait_usec(const struct claimer *c)
{
    uint64_t until = deliveries_wait_until(c->parts.deliveries), now = now_monotonic_usec();

    return MIN(until > now ? until - now : USEC_INFINITY,
               MIN(probes_wait(&c->probes, now), masses_wait(c->parts.masses, now)));
}

static void sleep_or_poll(struct claimer *c)
{
    uint64_t now = now_monotonic_usec(), poll_usec = c->config->delivery.poll_interval_usec;

    if (now < c->deaf.until) {
        claimer_soon(c, MIN(MIN(poll_usec, DEAF_POLL_USEC), c->deaf.until - now));
    } else if (now - c->found_at < BUSY_USEC && c->singles < SINGLES &&
               !doorbell_is_held(c->parts.doorbell)) {
        claimer_soon(c, SHORT_PAUSE_USEC);
    } else {
        doorbell_ask(c->parts.doorbell);
        if (!doorbell_has_seat(c->parts.doorbell))
            poll_usec = MIN(poll_usec, NO_SEAT_POLL_USEC);
        claimer_soon(c, MIN(poll_usec, wait_usec(c)));
    }
}

static void note_find(struct claimer *c, int rows)
{
    uint64_t now = now_monotonic_usec(), since = now - c->found_at;

    if (since < (rows > 1 ? BUSY_USEC : c->rung ? BUSY_RUNG_USEC : 0))
        doorbell_release(c->parts.doorbell);
    c->singles = rows > 1 ? 0 : c->singles + 1;
    c->found_at = now;
    deaf_found(&c->deaf);
}

static void note_fruitless_ring(struct claimer *c)
{
    if (!deaf_fruitless(&c->deaf, now_monotonic_usec()))
        return;
    c->rung = false;
    doorbell_release(c->parts.doorbell);
}

/* How long it looked, without the time that it took to claim what it found. */
static uint64_t look_took(const struct claimer *c, const struct pg_answer *answer, int rows)
{
    struct store_claimed row;

    if (answer->r != 0 || rows == 0)
        return now_boottime_usec() - c->now.sent_at;
    store_claim_row(answer->result, 0, &row);
    return row.found_usec;
}

static void note_look(struct claimer *c, uint64_t took, int rows)
{
    uint64_t now = now_monotonic_usec();
    const struct store_place *places;
    struct integrations *all = deliveries_integrations(c->parts.deliveries);

    looks_note(&c->looks, c->now.look, took, rows > 0, now);
    /* What slows one from the start may be what lies before the places. */
    if (took < QUICK_USEC || c->now.look == &c->looks.nearby || integrations_near_places(all, &places) == 0)
        masses_saw(c->parts.masses, took, now);
    if (c->now.look == &c->looks.nearby && rows == 0 && now < c->looks.everywhere_at)
        claimer_soon(c, c->looks.everywhere_at - now);
    if (c->now.look == &c->looks.everywhere && took < QUICK_USEC)
        integrations_forget_places(all);
}

/* One that was cut took its time, too. */
static void note_time(struct claimer *c, const struct pg_answer *answer, int rows)
{
    struct integrations *all = deliveries_integrations(c->parts.deliveries);
    uint64_t now = now_monotonic_usec(), took = look_took(c, answer, rows);

    if (c->now.look)
        sight_had(c->parts.sight); /* what the database refuses is said */
    if (c->now.is_probe)
        probes_looked(&c->probes, took, rows > 0, integrations_next_probe(all, now), now);
    else if (c->now.is_mass)
        masses_looked(c->parts.masses, took, now);
    else if (c->now.look && answer->r == 0)
        note_look(c, took, rows);
}

static void plan_next(struct claimer *c, int rows, bool locked_out)
{
    if (c->now.is_probe || c->now.is_mass) {
        claimer_soon(c, 0); /* for a claim; when it has found what it could, the next one is waited for */
        return;
    }
    if (locked_out || c->now.ready_only) {
        c->rung |= c->now.was_rung; /* what rang is still to be found */
        claimer_soon(c, c->now.ready_only ? READY_PAUSE_USEC : backoff_next_usec(&c->locked_out));
        return;
    }
    c->locked_out = LOCKED_OUT;
    /* A claim for the slots that are kept says nothing about the integrations that have some. */
    bool is_full = rows >= c->now.limit || c->now.was_cut;
    c->cut = is_full || (c->now.reserve && (c->cut || rows > 0));
    if (rows > 0) {
        note_find(c, rows);
        if (is_full || c->rung)
            claimer_soon(c, 0);
        else if (doorbell_is_held(c->parts.doorbell))
            sleep_or_poll(c); /* what came since would have rung */
        else
            claimer_soon(c, REFILL_PAUSE_USEC);
        return;
    }
    if (c->now.was_rung) {
        note_fruitless_ring(c);
        claimer_probe_soon(c, PROBES_APART_USEC);
    }
    if (c->rung || c->missed)
        claimer_soon(c, 0);
    else
        sleep_or_poll(c);
}

/* --- answers ---------------------------------------------------------------------------------- */

static void on_refused_row(struct pg_answer *answer, void *userdata)
{
    struct claimer *c = userdata;
    uint64_t pause_usec = refused_row_pass_over(&c->refusals, answer, "claim");

    if (c->now.is_probe)
        claimer_probe_soon(c, MAX(pause_usec, PROBES_APART_USEC));
    claimer_soon(c, c->now.is_probe ? 0 : pause_usec);
    if (answer->r == 0 && pg_rows(answer->result) > 0)
        *c->now.last_integration = pg_get_i64(answer->result, 0, 1);
    c->callbacks.claimed(0, c->userdata);
}

/* A row is to blame: fewer rows at once, until the one at the head is refused by itself. */
static void find_refused_row(struct claimer *c, const struct pg_answer *answer)
{
    bool is_alone = refusals_narrow(c->now.is_probe ? &c->probes.search : &c->refusals, c->now.limit);

    if (!is_alone || (!c->now.is_probe && !c->now.look)) {
        if (c->now.is_probe)
            probes_plan(&c->probes, 0);
        claimer_soon(c, 0);
        return;
    }
    refused_row_note(&c->refusals, answer);
    (void) queue_session_ask(c->parts.session, c->now.is_probe ? &sql_claim_probe_head : &sql_claim_head,
                             on_refused_row, c);
}

/* True when the statement was carried out. */
static bool was_done(struct claimer *c, const struct pg_answer *answer)
{
    if (answer->r != 0 && pg_blames_row(answer->sqlstate)) {
        find_refused_row(c, answer);
        return false;
    }
    if (queue_session_gave_up_for_lock(c->parts.session, answer)) {
        claimer_soon(c, 0);
        return false;
    }
    if (answer->r != 0) {
        queue_session_refused(c->parts.session, STANDSTILL_CLAIM, "claim subscriptions", answer);
        claimer_soon(c, ERROR_PAUSE_USEC);
        return false;
    }
    /* A look for circuits to probe says nothing about the rows that others claim. */
    if (!c->now.is_probe)
        queue_session_done(c->parts.session, STANDSTILL_CLAIM);
    return true;
}

static void send_rows(struct claimer *c, const struct pg_result *result, int rows)
{
    int64_t *last = c->now.last_integration;

    refusals_widen(c->now.is_probe ? &c->probes.search : &c->refusals, c->now.limit, rows);
    for (int i = 0; i < rows; i++) {
        struct store_claimed row;
        store_claim_row(result, i, &row);
        /* However late the answer is read, the time is none that another process may have by now. */
        row.send_usec -= (int64_t) (now_boottime_usec() - c->now.sent_at);
        if (i == 0 || store_claim_comes_later(row.integration_id, *last, c->now.first_integration))
            *last = row.integration_id;
        c->now.was_cut = row.cut;
        deliveries_start(c->parts.deliveries, &row, c->now.token, c->now.is_probe);
    }
}

/* The lease of a claim outlasts the request by a margin. When the answer has taken longer than that, another
 * daemon may have the rows before a request ends. Boot time, because machines sleep. */
static bool leases_last(const struct claimer *c)
{
    uint64_t margin = c->config->delivery.lease_usec - c->config->delivery.timeout_usec;

    return now_boottime_usec() - c->now.sent_at < margin;
}

void claimer_on_claimed(struct pg_answer *answer, void *userdata)
{
    struct claimer *c = userdata;
    bool locked_out = answer->r == 0 && store_claim_was_locked_out(answer->result);
    int rows = answer->r == 0 && !locked_out ? pg_rows(answer->result) : 0;
    bool is_running = c->callbacks.may_send(c->userdata);

    if (answer->r != -ECONNRESET)
        note_time(c, answer, rows);
    if (answer->r == -ECONNRESET || (rows > 0 && !(is_running && leases_last(c)))) {
        c->callbacks.lost(c->now.token, c->userdata);
        claimer_soon(c, 0);
        rows = 0;
    } else if (is_running && was_done(c, answer)) {
        send_rows(c, answer->result, rows);
        plan_next(c, rows, locked_out);
    } else {
        rows = 0;
    }
    c->callbacks.claimed(rows, c->userdata);
}

/* --- the interface ---------------------------------------------------------------------------- */

int claimer_new(struct claimer **ret, sd_event *event, struct config *config,
                const struct claimer_parts *parts, const struct claimer_callbacks *callbacks, void *userdata)
{
    struct claimer *c = xcalloc(1, sizeof(*c));

    c->parts = *parts;
    c->config = config_ref(config);
    c->callbacks = *callbacks;
    c->userdata = userdata;
    c->probes = PROBES_INIT;
    c->locked_out = LOCKED_OUT;
    c->process = (int64_t) (random_u64() >> 1);
    /* sd-event waits for as long as the accuracy allows, and a ring has been waited for. */
    int r = sd_event_add_time(event, &c->timer, CLOCK_MONOTONIC, 0, 1, on_timer, c);
    if (r >= 0)
        r = sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
    if (r < 0) {
        claimer_free(c);
        return r;
    }
    *ret = c;
    return 0;
}

void claimer_free(struct claimer *c)
{
    if (!c)
        return;
    sd_event_source_disable_unref(c->timer);
    refusals_free(&c->refusals);
    config_unref(c->config);
    free(c);
}

void claimer_weighed(struct claimer *c)
{
    if (c->parts.masses->count > 0)
        c->looks = (struct looks){0};
    claimer_soon(c, 0);
}

void claimer_check(struct claimer *c)
{
    sight_check(c->parts.sight, c->parts.session, &c->looks, c->parts.masses, now_monotonic_usec());
}

void claimer_reload(struct claimer *c, struct config *config)
{
    config_unref(c->config);
    c->config = config_ref(config);
}
