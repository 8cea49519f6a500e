/* What the end of a delivery says about its integration. See delivery_internal.h. */
#include <string.h>

#include "base/timeutil.h"
#include "base/utf8.h"
#include "delivery/delivery_internal.h"
#include "delivery/trial.h"

static void want_wait(const struct delivery *d, uint64_t usec, const char *reason)
{
    const struct store_wait wait = {d->integration->id, d->integration->name, d->sent_with.fingerprint, usec,
                                    reason};
    d->all->callbacks.wait_wanted(&wait, d->all->userdata);
}

/* Until the database has it, for all daemons. Our own shortage is nobody's business there. */
static void back_off(const struct delivery *d, const struct outcome *o, const struct http_result *result)
{
    uint64_t now = now_monotonic_usec(), until = now + o->backoff_usec;
    struct deliveries *all = d->all;
    char class[64];

    pace_back_off(&d->integration->pace, d->started_usec, until, now);
    if (all->wait_until <= now || until < all->wait_until)
        all->wait_until = until;
    if (o->our_fault) {
        trial_begin(all, d->integration);
        return;
    }
    outcome_error_class(result, class, sizeof(class));
    want_wait(d, o->backoff_usec, class);
}

static bool lacks_credentials(const struct http_result *result)
{
    return result->cause == HTTP_UNAUTHENTICATED || result->cause == HTTP_CLIENT_REFUSED;
}

static void note_pace(const struct delivery *d, const struct outcome *o, const struct http_result *result)
{
    struct pace *pace = &d->integration->pace;
    int in_flight = d->integration->in_flight; /* this one included */
    bool pushed = result->cause == HTTP_ANSWERED && (result->status == 429 || result->status == 503);

    if (pushed)
        pace_pushed_back(pace, d->started_usec, in_flight, now_monotonic_usec());
    if (o->backoff_usec > 0)
        back_off(d, o, result);
    if (result->cause == HTTP_ANSWERED && !pushed)
        pace_answered(pace, o->backoff_usec == 0, in_flight, d->integration->retries, now_monotonic_usec());
    else if (o->turned_away && !lacks_credentials(result))
        pace_unanswered(pace, now_monotonic_usec());
}

/* The words where no answer tells them, and whether ours are missing. */
static void note_why(const struct delivery *d, const struct http_result *result, struct store_circuit *note)
{
    if (!lacks_credentials(result))
        return;
    const char *problem = integration_problem(d->integration, &note->ours);
    CLEANUP(strbuf_free) struct strbuf words = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    const char *said = problem ? problem : result->detail;
    note->ours = note->ours && problem;
    strbuf_add_harmless(&words, said, strlen(said));
    size_t len = utf8_cut(strbuf_str(&words), words.len, sizeof(note->why) - 1);
    memcpy(note->why, strbuf_str(&words), len);
}

static void note_circuit(const struct delivery *d, const struct outcome *o, const struct http_result *result)
{
    const struct store_circuit_rules rules = store_circuit_rules(d->all->config);
    struct circuit *circuit = &d->integration->circuit;

    if (d->sent_with.generation != circuit->generation)
        return;
    enum circuit_event event = circuit_saw(circuit, o->circuit, d->is_probe, rules.failure_threshold);
    if (event == CIRCUIT_NEUTRAL && !d->is_probe)
        return;
    struct store_circuit note = {.integration_id = d->integration->id,
                                 .fingerprint = d->sent_with.fingerprint,
                                 .generation = d->sent_with.generation,
                                 .event = event,
                                 .failures = circuit_event_fails(event)};
    outcome_error_class(result, note.error, sizeof(note.error));
    note_why(d, result, &note);
    d->all->callbacks.circuit_note(&rules, &note, d->all->userdata);
}

void delivery_note_integration(const struct delivery *d, const struct outcome *o,
                               const struct http_result *result, const char *pause_reason)
{
    delivery_say_shortage(d, o, result);
    if (d->sent_with.fingerprint != d->integration->fingerprint)
        return;
    delivery_say_outage(d, o, result);
    note_pace(d, o, result);
    note_circuit(d, o, result);
    if (pause_reason) {
        CLEANUP(freep)
        char *why = result->cause == HTTP_URL_INVALID && result->detail[0]
                        ? xasprintf("%s: %s", pause_reason, result->detail)
                        : xstrdup(pause_reason);
        want_wait(d, USEC_INFINITY, why);
    }
}
