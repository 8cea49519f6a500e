/* The dispatcher. See dispatcher.h.
 *
 * When to claim: at once after a ring or a full batch; when slots of an integration that has more get free; a
 * few times with short pauses after the last find; then by the doorbell, with a timed poll as the net below
 * it.
 *
 * A claim's answer that gets lost leaves rows "processing" that nobody sends: its token is remembered and
 * released first thing when the database is back. */
#include "delivery/dispatcher.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "base/trouble.h"
#include "delivery/delivery.h"
#include "delivery/doorbell.h"
#include "delivery/refusals.h"
#include "delivery/settler.h"
#include "pg/pg_async.h"
#include "pg/pg_session.h"

#define DEADLINE_USEC (45 * USEC_PER_SEC)
/* Pauses between claims that find nothing, before the doorbell is asked for. */
#define SHORT_PAUSE_USEC (5 * USEC_PER_MSEC)
#define SHORT_PAUSES 3
/* Slots that get free are given out again together: a claim costs the database a millisecond, however few
 * rows it takes. */
#define REFILL_PAUSE_USEC (2 * USEC_PER_MSEC)
#define STARVED_MAX_USEC (20 * USEC_PER_MSEC)
/* Between two looks at everything claims go on where the last ones ended: see store_claim. */
#define LOOK_EVERYWHERE_USEC (100 * USEC_PER_MSEC)
/* From so many rows in a claim on, notifications would cost the writers more than polling costs us. */
#define BUSY_ROWS 32
/* After a ring that brought nothing (a paused integration, no free slot) rings are not wanted for so long. */
#define FRUITLESS_PAUSE_USEC (200 * USEC_PER_MSEC)
#define FRUITLESS_RINGS 3
#define ERROR_PAUSE_USEC USEC_PER_SEC
/* A claim passes over locked rows; what it may wait for is a lock on a whole table. */
#define LOCK_TIMEOUT_USEC (5 * USEC_PER_SEC)
#define SWEEP_ROWS 500
#define SWEEP_MIN_USEC (250 * USEC_PER_MSEC)
#define SWEEP_MAX_USEC (5 * USEC_PER_SEC)
/* After an outage results are settled first, ours and those of other daemons, before leases count as over. */
#define SWEEP_GRACE_USEC (15 * USEC_PER_SEC)

enum phase {
    PHASE_RUNNING,
    PHASE_DRAINING, /* no claims; waiting for requests in flight */
    PHASE_SETTLING, /* nothing in flight; waiting for the database to take the results */
    PHASE_STOPPED,
};

struct tokens {
    int64_t *data;
    size_t count, capacity;
};

struct dispatcher {
    sd_event *event;
    struct config *config;
    struct dispatcher_events events;
    void *userdata;
    enum phase phase;

    struct pg_async *claimer;
    struct settler *settler;
    struct doorbell *doorbell;
    struct deliveries *deliveries;

    sd_event_source *claim_timer, *drain_timer;
    struct pg_args args;
    int64_t token;             /* of the claim under way */
    struct tokens lost;        /* tokens of claims whose answers got lost */
    struct tokens live;        /* scratch: tokens that are ours */
    int64_t first_integration; /* where the claim under way began */
    int64_t last_integration;  /* the last one that gave a row */
    int limit;                 /* of the claim under way */
    int sweep_limit;
    bool claim_is_everywhere; /* the claim under way */
    struct refusals claim_refusals, sweep_refusals;
    struct trouble lock;
    uint64_t asked_at;      /* monotonic: when the statement under way was sent */
    char refused_state[6];  /* SQLSTATE of what is being looked into */
    bool rung;              /* since the claim under way was sent */
    bool claim_was_rung;    /* a ring led to the claim under way */
    uint64_t starved_since; /* monotonic; no room for a worthwhile claim since; 0 = there was */
    int empty_claims;       /* in a row */
    int fruitless_rings;    /* in a row */
    uint64_t everywhere_at; /* monotonic: the next look at everything */
    uint64_t sweep_at;      /* monotonic */
    bool was_up;
    const char *said_down;    /* the message's id; NULL while it is up */
    struct error said_misfit; /* what was wrong with the schema */
    struct dispatcher_stats stats;
};

static void claim_soon(struct dispatcher *d, uint64_t delay_usec);
static void advance_stop(struct dispatcher *d);

/* --- tokens ----------------------------------------------------------------------------------- */

static void tokens_add(struct tokens *t, int64_t token)
{
    if (t->count > 0 && t->data[t->count - 1] == token)
        return;
    if (t->count == t->capacity) {
        t->capacity = t->capacity ? 2 * t->capacity : 64;
        t->data = xreallocarray(t->data, t->capacity, sizeof(*t->data));
    }
    t->data[t->count++] = token;
}

static void note_token(int64_t token, void *userdata)
{
    tokens_add(userdata, token);
}

static const struct tokens *live_tokens(struct dispatcher *d)
{
    d->live.count = 0;
    deliveries_tokens(d->deliveries, note_token, &d->live);
    settler_tokens(d->settler, note_token, &d->live);
    return &d->live;
}

/* A statement of the claimer's, with the arguments in d->args. */
static int ask(struct dispatcher *d, const struct pg_statement *statement, pg_async_callback callback)
{
    d->asked_at = now_monotonic_usec();
    return pg_async_query(d->claimer, statement, &d->args, DEADLINE_USEC, callback, d);
}

/* --- other sessions' locks -------------------------------------------------------------------- */

/* True when the claimer's statement was given up for a lock of another session. */
static bool met_lock(struct dispatcher *d, int reason, const char *state)
{
    uint64_t now = now_monotonic_usec(), since = d->lock.since;

    if (reason == -EBADMSG && strcmp(state, "55P03") == 0) {
        if (trouble_lasts(&d->lock, d->asked_at, now, STORE_LOCK_PATIENCE_USEC))
            log_event(LOG_WARNING, MSG_LOCKED, NULL,
                      "subscriptions cannot be claimed for another session's lock on a table: trying again "
                      "until it ends (select * from pg_locks)");
        return true;
    }
    if (reason == 0 && trouble_ends(&d->lock))
        log_event(LOG_NOTICE, MSG_LOCKED, NULL,
                  "subscriptions can be claimed again: another session's lock kept them for %" PRIu64 " s",
                  (now - since) / USEC_PER_SEC);
    return false;
}

/* --- rows that the database refuses to change ------------------------------------------------- */

/* The row at the head, which was refused by itself, is passed over from now on. Returns the pause before the
 * next try: not soon when there is no such row, as when a trigger refuses whole statements. */
static uint64_t pass_over(struct dispatcher *d, struct refusals *refusals, int reason,
                          const struct pg_result *head, const char *what)
{
    if (reason != 0 || pg_rows(head) == 0)
        return ERROR_PAUSE_USEC;
    int64_t number = pg_get_i64(head, 0, 0);
    uint64_t pause_usec = refusals_add(refusals, number, now_monotonic_usec());
    char id[24];

    snprintf(id, sizeof(id), "%" PRId64, number);
    log_event(LOG_ERR, MSG_CHANGE_REFUSED, (struct log_field[]){{"SUBSCRIPTION_ID", id}, {0}},
              "could not %s subscription %s (SQLSTATE %s, see the server's log): passing it over for %" PRIu64
              " s",
              what, id, d->refused_state, pause_usec / USEC_PER_SEC);
    return refusals_pause_usec(refusals);
}

static void on_claim_head(struct pg_result **result, int reason, const char *state, const struct error *err,
                          void *userdata)
{
    struct dispatcher *d = userdata;
    (void) state;
    (void) err;
    claim_soon(d, pass_over(d, &d->claim_refusals, reason, *result, "claim"));
    if (reason == 0 && pg_rows(*result) > 0)
        d->last_integration = pg_get_i64(*result, 0, 1);
    advance_stop(d);
}

static void on_sweep_head(struct pg_result **result, int reason, const char *state, const struct error *err,
                          void *userdata)
{
    struct dispatcher *d = userdata;
    (void) state;
    (void) err;
    d->sweep_at =
        now_monotonic_usec() + pass_over(d, &d->sweep_refusals, reason, *result, "end the claim of");
    claim_soon(d, 0);
    advance_stop(d);
}

/* Which row was it that the last statement, whose arguments these still are, was refused for? */
static void look_into(struct dispatcher *d, const struct pg_statement *head, const char *state,
                      pg_async_callback callback)
{
    snprintf(d->refused_state, sizeof(d->refused_state), "%s", state);
    (void) ask(d, head, callback);
}

/* --- sweeping: leases that are over, claims whose answer got lost ----------------------------- */

static void log_expired(const struct pg_result *result, int rows)
{
    int failed = 0;
    for (int i = 0; i < rows; i++) {
        char id[24];
        snprintf(id, sizeof(id), "%" PRId64, pg_get_i64(result, i, 0));
        failed += strcmp(pg_get_text(result, i, 2), "failed") == 0;
        log_event(LOG_DEBUG, MSG_LEASE_LOST, (struct log_field[]){{"SUBSCRIPTION_ID", id}, {0}},
                  "lease of subscription %s is over: %s", id, pg_get_text(result, i, 2));
    }
    log_event(
        LOG_NOTICE, MSG_LEASE_LOST, NULL,
        "%d lease%s ran out without a result, what was sent may have been received: %d to be tried again, %d failed",
        rows, plural(rows), rows - failed, failed);
}

static void on_swept(struct pg_result **result, int reason, const char *state, const struct error *err,
                     void *userdata)
{
    struct dispatcher *d = userdata;
    bool locked = met_lock(d, reason, state);
    if (reason == -EBADMSG && store_refused_for_data(state)) {
        d->sweep_at = 0;
        if (refusals_narrow(&d->sweep_refusals, d->sweep_limit)) {
            look_into(d, &store_expire_head, state, on_sweep_head);
            return;
        }
    } else if (reason == -EBADMSG && !locked) {
        log_warning("could not look for expired leases: %s", err->text);
    }
    if (reason == 0) {
        int rows = pg_rows(*result);
        refusals_widen(&d->sweep_refusals, d->sweep_limit, rows);
        if (rows == d->sweep_limit)
            d->sweep_at = 0; /* there may be more */
        d->stats.expired += (uint64_t) rows;
        if (rows > 0) {
            log_expired(*result, rows);
            d->events.progress(d->userdata);
        }
    }
    claim_soon(d, 0);
    advance_stop(d);
}

static void on_released(struct pg_result **result, int reason, const char *state, const struct error *err,
                        void *userdata)
{
    struct dispatcher *d = userdata;
    bool locked = met_lock(d, reason, state);
    if (reason == -EBADMSG && !locked)
        log_warning("could not release claims whose answer got lost: %s", err->text);
    if (reason == 0 && pg_affected(*result) > 0)
        log_notice("%" PRId64 " subscription%s put back into the queue: the answer to a claim got lost",
                   pg_affected(*result), plural(pg_affected(*result)));
    if (reason != -ECONNRESET && !locked)
        d->lost.count = 0;
    claim_soon(d, 0);
    advance_stop(d);
}

/* True when a statement of the kind was due and has been sent. */
static bool sweep(struct dispatcher *d)
{
    uint64_t now = now_monotonic_usec();
    if (d->lost.count > 0) {
        store_release_tokens_args(&d->args, d->lost.count, d->lost.data);
        return ask(d, &store_release_tokens, on_released) == 0;
    }
    if (now < d->sweep_at)
        return false;
    d->sweep_at = now + MIN(MAX(d->config->delivery.lease_usec / 8, SWEEP_MIN_USEC), SWEEP_MAX_USEC);
    const struct tokens *live = live_tokens(d);
    struct outcome_rules rules = deliveries_rules(d->config);
    const int64_t *passed_over;
    size_t passed_over_count = refusals_ids(&d->sweep_refusals, now, &passed_over);
    d->sweep_limit = refusals_limit(&d->sweep_refusals, SWEEP_ROWS);
    store_expire_leases_args(&d->args, &rules, live->count, live->data, passed_over_count, passed_over,
                             d->sweep_limit);
    return ask(d, &store_expire_leases, on_swept) == 0;
}

/* --- claiming --------------------------------------------------------------------------------- */

static void sleep_or_poll(struct dispatcher *d)
{
    uint64_t poll_usec = d->config->delivery.poll_interval_usec;
    if (d->empty_claims <= SHORT_PAUSES && !doorbell_is_held(d->doorbell)) {
        claim_soon(d, SHORT_PAUSE_USEC << MAX(d->empty_claims - 1, 0));
        return;
    }
    if (d->fruitless_rings >= FRUITLESS_RINGS) {
        d->fruitless_rings = 0;
        doorbell_release(d->doorbell);
        claim_soon(d, MIN(poll_usec, FRUITLESS_PAUSE_USEC));
        return;
    }
    doorbell_ask(d->doorbell);
    claim_soon(d, poll_usec);
}

/* After a claim that brought `rows`: when the next one is. */
static void plan_next(struct dispatcher *d, int rows, bool was_rung)
{
    if (rows > 0) {
        d->empty_claims = d->fruitless_rings = 0;
        if (rows >= BUSY_ROWS)
            doorbell_release(d->doorbell);
        claim_soon(d, rows >= d->limit || d->rung ? 0 : REFILL_PAUSE_USEC);
        return;
    }
    d->empty_claims++;
    if (was_rung)
        d->fruitless_rings++;
    if (d->rung)
        claim_soon(d, 0);
    else
        sleep_or_poll(d);
}

/* Round robin: a claim takes integrations in the order of their ids from `first` on, and around. */
static bool comes_later(int64_t a, int64_t b, int64_t first)
{
    bool a_wrapped = a <= first, b_wrapped = b <= first;
    return a_wrapped != b_wrapped ? a_wrapped : a > b;
}

static void on_claimed(struct pg_result **result, int reason, const char *state, const struct error *err,
                       void *userdata)
{
    struct dispatcher *d = userdata;
    bool was_rung = d->claim_was_rung;

    if (reason == -ECONNRESET || (reason == 0 && d->phase != PHASE_RUNNING && pg_rows(*result) > 0)) {
        /* An answer that comes during a stop is as good as lost: nobody is left to send its rows. */
        tokens_add(&d->lost, d->token);
        claim_soon(d, 0);
        advance_stop(d);
        return;
    }
    if (d->phase != PHASE_RUNNING) {
        advance_stop(d);
        return;
    }
    if (reason != 0 && store_refused_for_data(state)) {
        if (refusals_narrow(&d->claim_refusals, d->limit) && d->claim_is_everywhere)
            look_into(d, &store_claim_head, state, on_claim_head);
        else
            claim_soon(d, 0);
        return;
    }
    if (met_lock(d, reason, state)) {
        claim_soon(d, 0);
        return;
    }
    if (reason != 0) {
        log_warning("could not claim subscriptions (SQLSTATE %s): %s", state, err->text);
        claim_soon(d, ERROR_PAUSE_USEC);
        return;
    }
    int rows = pg_rows(*result);
    refusals_widen(&d->claim_refusals, d->limit, rows);
    for (int i = 0; i < rows; i++) {
        struct store_claimed row;
        store_claim_row(*result, i, &row);
        if (i == 0 || comes_later(row.integration_id, d->last_integration, d->first_integration))
            d->last_integration = row.integration_id;
        deliveries_start(d->deliveries, &row, d->token);
    }
    d->stats.claimed += (uint64_t) rows;
    if (rows > 0)
        d->events.progress(d->userdata);
    plan_next(d, rows, was_rung);
}

/* Room for new claims: what is in flight and what is not yet settled both count, so a database that is away
 * stops the claims. */
static int room(const struct dispatcher *d)
{
    size_t held = (size_t) deliveries_count(d->deliveries) + settler_pending(d->settler);
    size_t max = (size_t) d->config->delivery.max_in_flight;
    return held >= max ? 0 : (int) MIN(max - held, (size_t) d->config->delivery.batch_size);
}

/* True when it is better to let more slots get free first. */
static bool starved(struct dispatcher *d, int64_t budget)
{
    int worthwhile = MIN(d->config->delivery.batch_size, MAX(d->config->delivery.max_in_flight / 4, 1));
    uint64_t now = now_monotonic_usec();

    if (d->limit >= worthwhile && (budget > 0 || deliveries_count(d->deliveries) == 0)) {
        d->starved_since = 0;
        return false;
    }
    if (!d->starved_since)
        d->starved_since = now;
    if (d->limit == 0 || budget <= 0)
        return true; /* the end of a delivery looks in again */
    if (now - d->starved_since >= STARVED_MAX_USEC) {
        d->starved_since = 0;
        return false;
    }
    claim_soon(d, d->starved_since + STARVED_MAX_USEC - now);
    return true;
}

/* A ring may come from anywhere; else what is known to have more goes first for a while. */
static const struct pg_statement *choose_claim(struct dispatcher *d)
{
    uint64_t now = now_monotonic_usec();
    const struct store_place *places;
    size_t count = 0;

    if (!d->claim_was_rung && now < d->everywhere_at && d->claim_refusals.limit == 0)
        count = deliveries_take_places(d->deliveries, &places);
    d->claim_is_everywhere = count == 0;
    if (count > 0) {
        store_claim_on_args(&d->args, count, places);
        return &store_claim_on;
    }
    d->everywhere_at = now + LOOK_EVERYWHERE_USEC;
    return &store_claim;
}

static void claim(struct dispatcher *d)
{
    const int64_t *ids;
    const int *in_flight;
    int64_t budget =
        (int64_t) d->config->delivery.max_claim_bytes - (int64_t) deliveries_bytes(d->deliveries);

    d->limit = room(d);
    if (starved(d, budget))
        return;
    size_t busy = deliveries_busy(d->deliveries, &ids, &in_flight);
    d->first_integration = d->last_integration;
    d->token = (int64_t) (random_u64() >> 1) | 1;
    d->limit = refusals_limit(&d->claim_refusals, d->limit);
    const int64_t *passed_over;
    size_t passed_over_count = refusals_ids(&d->claim_refusals, now_monotonic_usec(), &passed_over);
    store_claim_args(&d->args,
                     &(struct store_claim_request){
                         .claimed_by = d->config->instance,
                         .token = d->token,
                         .lease_usec = d->config->delivery.lease_usec,
                         .default_timeout_usec = d->config->delivery.timeout_usec,
                         .limit = d->limit,
                         .default_max_in_flight = d->config->delivery.max_in_flight_per_integration,
                         .after_integration = d->first_integration,
                         .byte_budget = MAX(budget, 1),
                         .passed_over_count = passed_over_count,
                         .passed_over = passed_over,
                     },
                     busy, ids, in_flight);
    d->claim_was_rung = d->rung;
    d->rung = false;
    (void) ask(d, choose_claim(d), on_claimed);
}

static int on_claim_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
    struct dispatcher *d = userdata;
    (void) s;
    (void) usec;
    if (!pg_async_idle(d->claimer))
        return 0;
    if (d->phase == PHASE_RUNNING) {
        if (!sweep(d))
            claim(d);
    } else if (d->phase != PHASE_STOPPED && d->lost.count > 0) {
        (void) sweep(d);
    }
    return 0;
}

/* The earlier of this and what is planned already. */
static void claim_soon(struct dispatcher *d, uint64_t delay_usec)
{
    uint64_t at = now_monotonic_usec() + delay_usec, planned;
    int enabled = SD_EVENT_OFF;
    (void) sd_event_source_get_enabled(d->claim_timer, &enabled);
    if (enabled != SD_EVENT_OFF && sd_event_source_get_time(d->claim_timer, &planned) >= 0 && planned <= at)
        return;
    sd_event_source_set_time(d->claim_timer, at);
    sd_event_source_set_enabled(d->claim_timer, SD_EVENT_ONESHOT);
}

/* --- events of the parts ---------------------------------------------------------------------- */

static void on_rung(void *userdata)
{
    struct dispatcher *d = userdata;
    d->rung = true;
    claim_soon(d, 0);
}

static void on_bell_held(void *userdata)
{
    /* A row written just before the bell was ours rang nobody. */
    claim_soon(userdata, 0);
}

static void on_delivered(struct store_settlement *settlement, bool integration_has_more, void *userdata)
{
    struct dispatcher *d = userdata;
    switch (settlement->outcome.state) {
    case OUTCOME_SENT:
        d->stats.sent++;
        break;
    case OUTCOME_FAILED:
        d->stats.failed++;
        break;
    case OUTCOME_RETRY:
        d->stats.retried++;
        break;
    case OUTCOME_RELEASE:
        d->stats.released++;
        break;
    }
    d->stats.ambiguous += settlement->outcome.ambiguous;
    settler_add(d->settler, settlement);
    if (deliveries_count(d->deliveries) == 0)
        settler_flush(d->settler);
    if (integration_has_more || d->starved_since)
        claim_soon(d, REFILL_PAUSE_USEC);
    advance_stop(d);
}

static void on_pause_wanted(int64_t integration_id, const char *endpoint_url, const char *reason,
                            void *userdata)
{
    struct dispatcher *d = userdata;
    settler_pause(d->settler, integration_id, endpoint_url, reason);
}

static void on_settled(size_t count, void *userdata)
{
    struct dispatcher *d = userdata;
    if (count > 0)
        d->events.progress(d->userdata);
    if (d->starved_since)
        claim_soon(d, REFILL_PAUSE_USEC);
    advance_stop(d);
}

static void on_up(void *userdata)
{
    struct dispatcher *d = userdata;
    d->stats.database_up = true;
    d->stats.database_error.text[0] = '\0';
    if (d->said_down)
        log_event(LOG_NOTICE, MSG_DATABASE_BACK, NULL, "the database is back");
    if (d->was_up)
        d->sweep_at = now_monotonic_usec() + SWEEP_GRACE_USEC;
    d->was_up = true;
    d->said_down = NULL;
    claim_soon(d, 0);
}

static void on_down(int reason, const struct error *err, void *userdata)
{
    struct dispatcher *d = userdata;
    d->stats.database_up = false;
    d->stats.database_error = *err;
    /* Once for each kind, and for each that somebody has to mend: a schema that is migrated but forbidden. */
    bool misfit = reason == PG_SCHEMA_MISFIT;
    const char *message = misfit ? MSG_SCHEMA_MISMATCH : MSG_DATABASE_LOST;
    if (d->phase == PHASE_STOPPED || (d->said_down && strcmp(d->said_down, message) == 0 &&
                                      !(misfit && strcmp(d->said_misfit.text, err->text) != 0)))
        return;
    d->said_down = message;
    if (misfit) {
        d->said_misfit = *err;
        log_event(LOG_ERR, MSG_SCHEMA_MISMATCH, NULL, "%s", err->text);
        return;
    }
    log_event(LOG_WARNING, MSG_DATABASE_LOST, NULL, "could not work with the database: %s; trying again",
              err->text);
}

/* The settler's session goes with the claimer's as a rule; one voice is enough. */
static void on_settler_up(void *userdata)
{
    (void) userdata;
}

static void on_settler_down(int reason, const struct error *err, void *userdata)
{
    (void) reason;
    (void) err;
    (void) userdata;
}

/* --- stopping --------------------------------------------------------------------------------- */

static int on_drain_timeout(sd_event_source *s, uint64_t usec, void *userdata)
{
    struct dispatcher *d = userdata;
    (void) s;
    (void) usec;
    int cut = deliveries_count(d->deliveries);
    if (cut > 0)
        log_warning("drain_timeout is over: cutting %d request%s still under way", cut, plural(cut));
    deliveries_cancel_all(d->deliveries);
    return 0;
}

static void advance_stop(struct dispatcher *d)
{
    if (d->phase == PHASE_DRAINING && deliveries_count(d->deliveries) == 0)
        d->phase = PHASE_SETTLING;
    bool claimer_done = !pg_async_up(d->claimer) || (pg_async_idle(d->claimer) && d->lost.count == 0);
    if (d->phase == PHASE_SETTLING && settler_pending(d->settler) == 0 && claimer_done) {
        d->phase = PHASE_STOPPED;
        d->events.stopped(d->userdata);
    }
}

void dispatcher_stop(struct dispatcher *d)
{
    if (d->phase != PHASE_RUNNING)
        return;
    d->phase = PHASE_DRAINING;
    doorbell_release(d->doorbell);
    settler_hurry(d->settler);
    if (sd_event_add_time_relative(d->event, &d->drain_timer, CLOCK_MONOTONIC,
                                   d->config->delivery.drain_timeout_usec, 1000, on_drain_timeout, d) < 0)
        abort();
    advance_stop(d);
}

/* --- the interface ---------------------------------------------------------------------------- */

static int start_parts(struct dispatcher *d, struct error *err)
{
    static const struct pg_async_events claimer_events = {on_up, on_down, NULL};
    static const struct doorbell_events doorbell_events = {on_rung, on_bell_held};
    static const struct settler_events settler_events = {on_settled, on_settler_up, on_settler_down};
    static const struct deliveries_events deliveries_events = {on_delivered, on_pause_wanted};
    const struct pg_params params = pg_session_params(d->config, PG_SESSION_CLAIM, 0);
    struct pg_params claimer_params = params;
    claimer_params.lock_timeout_usec = LOCK_TIMEOUT_USEC;
    int r = sd_event_add_time(d->event, &d->claim_timer, CLOCK_MONOTONIC, 0, 500, on_claim_timer, d);
    if (r >= 0)
        r = sd_event_source_set_enabled(d->claim_timer, SD_EVENT_OFF);
    if (r >= 0)
        r = deliveries_new(&d->deliveries, d->event, d->config, &deliveries_events, d, err);
    if (r >= 0)
        r = pg_async_new(&d->claimer, d->event, &claimer_params, &claimer_events, d);
    if (r >= 0)
        r = settler_new(&d->settler, d->event, &params, d->config->delivery.batch_size, &settler_events, d);
    if (r >= 0)
        r = doorbell_new(&d->doorbell, d->event, &params, &doorbell_events, d);
    return r;
}

int dispatcher_new(struct dispatcher **ret, sd_event *event, struct config *config,
                   const struct dispatcher_events *events, void *userdata, struct error *err)
{
    struct dispatcher *d = xcalloc(1, sizeof(*d));
    d->event = sd_event_ref(event);
    d->config = config_ref(config);
    d->events = *events;
    d->userdata = userdata;
    d->args = PG_ARGS_INIT;
    error_set(err, "could not set the dispatcher up");
    int r = start_parts(d, err);
    if (r < 0) {
        dispatcher_free(d);
        return r;
    }
    *ret = d;
    return 0;
}

void dispatcher_free(struct dispatcher *d)
{
    if (!d)
        return;
    doorbell_free(d->doorbell);
    deliveries_free(d->deliveries);
    settler_free(d->settler);
    pg_async_free(d->claimer);
    sd_event_source_disable_unref(d->claim_timer);
    sd_event_source_disable_unref(d->drain_timer);
    pg_args_free(&d->args);
    refusals_free(&d->claim_refusals);
    refusals_free(&d->sweep_refusals);
    free(d->lost.data);
    free(d->live.data);
    config_unref(d->config);
    sd_event_unref(d->event);
    free(d);
}

void dispatcher_reload(struct dispatcher *d, struct config *config)
{
    config_unref(d->config);
    d->config = config_ref(config);
    deliveries_reload(d->deliveries, config);
    if (d->phase == PHASE_RUNNING)
        claim_soon(d, 0);
}

void dispatcher_reopen(struct dispatcher *d)
{
    pg_async_reset(d->claimer);
    settler_reopen(d->settler);
    doorbell_reopen(d->doorbell);
}

void dispatcher_stats(const struct dispatcher *d, struct dispatcher_stats *ret)
{
    *ret = d->stats;
    ret->in_flight = deliveries_count(d->deliveries);
    ret->unsettled = settler_pending(d->settler);
    ret->asleep = doorbell_is_held(d->doorbell);
}
