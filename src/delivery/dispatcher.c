/* The dispatcher: its parts and its statistics. See dispatcher.h; how it stops: drain.h.
 *
 * A claim's answer that gets lost leaves rows "processing" that no daemon sends: its token is remembered and
 * released first thing when the database is back. */
#include "delivery/dispatcher.h"

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "delivery/claimer.h"
#include "delivery/drain.h"
#include "delivery/reread.h"
#include "delivery/trial.h"
#include "delivery/weighing.h"
#include "pg/pg_session.h"

#define PROBE_AFTER_LOOK_USEC (100 * USEC_PER_MSEC)
#define ALL_SLOTS ((size_t) INT32_MAX)

struct dispatcher {
    sd_event *event;
    struct config *config;
    struct dispatcher_callbacks callbacks;
    void *userdata;
    struct drain drain;
    struct standstill standstill;
    struct queue_session *session;
    struct claimer *claimer;
    struct leases *leases;
    struct settler *settler;
    struct notes *notes;
    struct doorbell *doorbell;
    struct deliveries *deliveries;
    struct reread reread;
    struct masses masses;
    struct weighing weighing;
    struct sight sight;
    bool claim_is_next; /* another statement had the last turn */
    struct dispatcher_stats stats;
};

static bool is_running(const struct dispatcher *d)
{
    return d->drain.phase == DRAIN_NOT_BEGUN;
}

/* --- the session ------------------------------------------------------------------------------ */

static void on_session_up(bool again, void *userdata)
{
    struct dispatcher *d = userdata;

    if (again)
        leases_wait_after_outage(d->leases);
    settler_others_up(d->settler);
    claimer_soon(d->claimer, 0);
}

static bool results_up(void *userdata)
{
    const struct dispatcher *d = userdata;

    return settler_up(d->settler);
}

/* --- the claimer ------------------------------------------------------------------------------ */

/* True when a statement other than a claim was sent. */
static bool run_other(struct dispatcher *d)
{
    if (leases_run(d->leases, d->config, !is_running(d)))
        return true;
    return is_running(d) &&
           (reread_run(&d->reread) || trials_ask(d->deliveries, d->session) || weighing_run(&d->weighing));
}

/* Of two turns one is the claims', however much else there is to do: all of 100,000 leases may be over. */
static void on_turn(void *userdata)
{
    struct dispatcher *d = userdata;
    bool claims_first = d->claim_is_next && is_running(d);

    if (d->drain.phase == DRAIN_DONE)
        return;
    if (claims_first)
        claimer_claim(d->claimer);
    d->claim_is_next = queue_session_idle(d->session) && run_other(d);
    if (!claims_first && !d->claim_is_next && is_running(d))
        claimer_claim(d->claimer);
}

static void on_claimed(int rows, void *userdata)
{
    struct dispatcher *d = userdata;

    if (rows > 0)
        d->callbacks.progress(d->userdata);
    if (leases_have_more(d->leases))
        claimer_soon(d->claimer, 0);
    drain_advance(&d->drain);
}

/* During a stop nobody is left to send the rows of an answer that still comes. */
static bool may_send(void *userdata)
{
    return is_running(userdata);
}

static void on_claim_lost(int64_t token, void *userdata)
{
    struct dispatcher *d = userdata;

    leases_claim_lost(d->leases, token);
}

/* Nothing is claimed while no result can be stored. */
static size_t unsettled(void *userdata)
{
    struct dispatcher *d = userdata;

    return settler_up(d->settler) ? settler_pending(d->settler) : ALL_SLOTS;
}

/* --- leases ----------------------------------------------------------------------------------- */

static void note_token(int64_t token, void *userdata)
{
    tokens_add(userdata, token);
}

static void live_tokens(struct tokens *out, void *userdata)
{
    struct dispatcher *d = userdata;

    deliveries_tokens(d->deliveries, note_token, out);
    settler_tokens(d->settler, note_token, out);
}

static void on_swept(int rows, void *userdata)
{
    struct dispatcher *d = userdata;

    if (rows > 0)
        d->callbacks.progress(d->userdata);
    claimer_soon(d->claimer, 0);
    drain_advance(&d->drain);
}

static void on_reread(bool any, void *userdata)
{
    struct dispatcher *d = userdata;

    if (any)
        claimer_probe_soon(d->claimer, 0);
    claimer_soon(d->claimer, 0);
    drain_advance(&d->drain);
}

static void on_weighed(void *userdata)
{
    struct dispatcher *d = userdata;

    claimer_weighed(d->claimer);
    drain_advance(&d->drain);
}

/* --- doorbell, deliveries, settler ------------------------------------------------------------ */

static void on_rung(void *userdata)
{
    struct dispatcher *d = userdata;

    claimer_rung(d->claimer);
}

static void on_bell_look(void *userdata)
{
    struct dispatcher *d = userdata;
    struct integrations *all = deliveries_integrations(d->deliveries);

    /* One whose circuit is open may have been mended before it could ring. */
    if (integrations_next_probe(all, now_monotonic_usec()) < USEC_INFINITY)
        claimer_probe_soon(d->claimer, PROBE_AFTER_LOOK_USEC);
    claimer_soon(d->claimer, 0);
}

static void count_outcome(struct dispatcher_stats *stats, const struct outcome *outcome)
{
    stats->sent += outcome->state == OUTCOME_SENT;
    stats->failed += outcome->state == OUTCOME_FAILED;
    stats->retried += outcome->state == OUTCOME_RETRY || outcome->state == OUTCOME_HOLD;
}

static void on_delivered(struct store_settlement *settlement, bool integration_has_more, void *userdata)
{
    struct dispatcher *d = userdata;

    count_outcome(&d->stats, &settlement->outcome);
    settler_add(d->settler, settlement);
    if (deliveries_count(d->deliveries) == 0)
        settler_flush(d->settler);
    claimer_slots_freed(d->claimer, integration_has_more);
    drain_advance(&d->drain);
}

static void on_settled(size_t count, void *userdata)
{
    struct dispatcher *d = userdata;

    if (count > 0)
        d->callbacks.progress(d->userdata);
    claimer_slots_freed(d->claimer, false);
    drain_advance(&d->drain);
}

/* Away alone: when the session that claims is away, too, that is said for the database. It gives up its
 * place: where a pooler counts sessions, the results get it. */
static bool on_cut_off(const struct error *why, void *userdata)
{
    struct dispatcher *d = userdata;

    if (!is_running(d) || !queue_session_up(d->session))
        return false;
    log_line(
        LOG_WARNING, MSG_DATABASE_LOST,
        "results cannot be stored, since their session with the database cannot be opened: %s; nothing is "
        "claimed until it can (%zu wait)",
        why->text, settler_pending(d->settler));
    standstill_kept(&d->standstill, STANDSTILL_SETTLE, "the session that stores results cannot be opened");
    queue_session_reopen(d->session);
    return true;
}

static void on_results_up(bool was_cut_off, void *userdata)
{
    struct dispatcher *d = userdata;

    if (!queue_session_note_back(d->session) && was_cut_off)
        log_line(LOG_NOTICE, MSG_DATABASE_BACK, "results can be stored again");
}

static void on_held(int64_t integration_id, int by, void *userdata)
{
    struct dispatcher *d = userdata;
    struct integration *i = integrations_find(deliveries_integrations(d->deliveries), integration_id);

    i->held += by;
    i->places.slot_freed |= by < 0;
    claimer_slots_freed(d->claimer, by < 0);
}

/* --- notes about integrations ----------------------------------------------------------------- */

static void on_wait_wanted(const struct store_wait *wait, void *userdata)
{
    struct dispatcher *d = userdata;

    notes_wait(d->notes, wait);
}

static void on_circuit_note(const struct store_circuit_rules *rules, const struct store_circuit *note,
                            void *userdata)
{
    struct dispatcher *d = userdata;

    notes_circuit(d->notes, rules, note);
}

static void on_verdict_wanted(const struct store_refusal *refusal, struct delivery *delivery, void *userdata)
{
    struct dispatcher *d = userdata;

    verdicts_ask(notes_verdicts(d->notes), refusal, delivery);
}

static void on_decided(void *delivery, bool fails, void *userdata)
{
    (void) userdata;
    deliveries_decided(delivery, fails);
}

static void on_told(const struct store_verdict *verdict, const char *reason, void *userdata)
{
    struct dispatcher *d = userdata;

    deliveries_told(d->deliveries, verdict, reason);
}

static void on_reachable(void *userdata)
{
    struct dispatcher *d = userdata;

    claimer_soon(d->claimer, 0);
}

static void on_note_added(void *userdata)
{
    struct dispatcher *d = userdata;

    settler_has_notes(d->settler);
}

static void on_circuit_stored(int64_t integration_id, uint64_t probe_usec, void *userdata)
{
    struct dispatcher *d = userdata;

    /* One that was changed meanwhile may have opened before: nobody else may know that its probe is due. */
    bool waits = probe_usec > 0 && probe_usec < USEC_INFINITY;

    integrations_circuit_stored(deliveries_integrations(d->deliveries), integration_id,
                                waits ? now_monotonic_usec() + probe_usec : 0);
    if (probe_usec == USEC_INFINITY)
        claimer_soon(d->claimer, 0);
    else
        claimer_probe_soon(d->claimer, probe_usec);
}

static void on_noted(void *userdata)
{
    struct dispatcher *d = userdata;

    settler_flush(d->settler);
    drain_advance(&d->drain);
}

static void on_wait_stored(int64_t integration_id, void *userdata)
{
    struct dispatcher *d = userdata;

    deliveries_wait_stored(d->deliveries, integration_id);
}

/* --- the interface ---------------------------------------------------------------------------- */

static int start_parts(struct dispatcher *d, struct error *err)
{
    static const struct queue_session_callbacks session = {on_session_up, results_up};
    static const struct leases_callbacks leases = {live_tokens, on_swept};
    static const struct claimer_callbacks claimer = {on_turn, on_claimed, on_claim_lost, may_send, unsettled};
    static const struct doorbell_callbacks doorbell = {on_rung, on_bell_look};
    static const struct settler_callbacks settler = {on_settled, on_cut_off, on_results_up, on_held};
    static const struct notes_callbacks notes = {
        on_note_added, on_wait_stored, on_circuit_stored, {NULL, on_told, on_decided, NULL}, on_noted};
    static const struct deliveries_callbacks deliveries = {on_delivered, on_wait_wanted, on_circuit_note,
                                                           on_verdict_wanted, on_reachable};
    const struct pg_params params = pg_session_params(d->config, PG_SESSION_CLAIM, 0);

    d->notes = notes_new(&notes, d);
    int r = deliveries_new(&d->deliveries, d->event, d->config, &deliveries, d, err);
    if (r >= 0)
        r = queue_session_new(&d->session, d->event, d->config, &d->standstill, &session, d);
    if (r >= 0)
        r = settler_new(&d->settler, d->event,
                        &(struct settler_params){params, d->config->delivery.batch_size,
                                                 d->config->delivery.lease_usec, d->notes, &d->standstill},
                        &settler, d);
    if (r >= 0)
        r = doorbell_new(&d->doorbell, d->event, &params, &doorbell, d);
    if (r < 0)
        return r;
    d->leases = leases_new(d->session, &leases, d);
    d->weighing = (struct weighing){.masses = &d->masses,
                                    .deliveries = d->deliveries,
                                    .session = d->session,
                                    .done = on_weighed,
                                    .userdata = d};
    d->reread = (struct reread){.session = d->session, .done = on_reread, .userdata = d};
    return claimer_new(&d->claimer, d->event, d->config,
                       &(struct claimer_parts){d->session, d->deliveries, d->doorbell, &d->masses, &d->sight},
                       &claimer, d);
}

int dispatcher_new(struct dispatcher **ret, sd_event *event, struct config *config,
                   const struct dispatcher_callbacks *callbacks, void *userdata, struct error *err)
{
    struct dispatcher *d = xcalloc(1, sizeof(*d));

    d->event = sd_event_ref(event);
    d->config = config_ref(config);
    d->callbacks = *callbacks;
    d->userdata = userdata;
    d->standstill.schema = d->config->database.schema;
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
    claimer_free(d->claimer);
    leases_free(d->leases);
    doorbell_free(d->doorbell);
    deliveries_free(d->deliveries);
    settler_free(d->settler);
    notes_free(d->notes);
    queue_session_free(d->session);
    standstill_free(&d->standstill);
    masses_free(&d->masses);
    sight_free(&d->sight);
    drain_free(&d->drain);
    config_unref(d->config);
    sd_event_unref(d->event);
    free(d);
}

void dispatcher_stop(struct dispatcher *d)
{
    const struct drain_parts parts = {d->deliveries,        d->settler, d->notes,
                                      d->session,           d->leases,  d->config->instance,
                                      d->callbacks.stopped, d->userdata};

    if (!is_running(d))
        return;
    doorbell_release(d->doorbell);
    drain_begin(&d->drain, d->event, d->config->delivery.drain_timeout_usec, &parts);
    drain_advance(&d->drain);
}

void dispatcher_reload(struct dispatcher *d, struct config *config)
{
    config_unref(d->config);
    d->config = config_ref(config);
    deliveries_reload(d->deliveries, config);
    claimer_reload(d->claimer, config);
    d->reread.wanted = true;
    d->reread.at = 0;
    if (is_running(d))
        claimer_soon(d->claimer, 0);
}

void dispatcher_reopen(struct dispatcher *d)
{
    queue_session_reopen(d->session);
    settler_reopen(d->settler);
    doorbell_reopen(d->doorbell);
}

void dispatcher_check(struct dispatcher *d)
{
    claimer_check(d->claimer);
}

void dispatcher_stats(const struct dispatcher *d, struct dispatcher_stats *ret)
{
    *ret = d->stats;
    ret->database_up = queue_session_up(d->session);
    if (!ret->database_up)
        ret->database_error = *queue_session_error(d->session);
    ret->standstill = standstill_words(&d->standstill);
    ret->unseen = d->sight.words;
    ret->network_lost = deliveries_network_lost(d->deliveries);
    ret->in_flight = deliveries_count(d->deliveries);
    ret->unsettled = settler_pending(d->settler);
}
