/* anubisctl explain: what happens next, and when, and what holds a subscription back. See explain.h. */
#include "ctl/explain.h"

#include <inttypes.h>
#include <string.h>

#include "base/timeutil.h"
#include "ctl/circuit_words.h"
#include "ctl/filters.h"
#include "ctl/results.h"
#include "sql/statements.h"

/* A subscription that nothing holds back is claimed within moments; after this time something is wrong. */
#define OVERDUE_USEC (60 * USEC_PER_SEC)

int64_t explain_max_attempts(const struct explanation *e)
{
    int64_t own = e->s.integration.max_attempts;

    return own > 0 ? own : e->ctl->config->retry.max_attempts;
}

/* "until 2026-… (in 5 min)" */
static void add_until(struct explanation *e, const char *what, int64_t until)
{
    if (until == INT64_MAX) {
        sentences_add(&e->reasons, "%s for ever (infinity)", what);
        return;
    }
    CLEANUP(freep) char *at = time_words(until), *in = duration_words(until - e->s.now);

    sentences_add(&e->reasons, "%s until %s (in %s)", what, at, in);
}

static void add_circuit(struct explanation *e)
{
    const struct store_circuit_view *circuit = &e->s.integration.circuit;
    CLEANUP(strbuf_free) struct strbuf words = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    if (circuit_is_closed(circuit))
        return;
    circuit_add_words(&words, circuit, e->s.now);
    sentences_add(&e->reasons, "its integration's %s", strbuf_str(&words));
}

/* Without them where they cannot be read. */
static void add_filters(struct explanation *e)
{
    CLEANUP(pg_result_freep) struct pg_result *filters = NULL;

    if (filters_judge(e->pg, e->s.payload.p, e->s.origin, &filters, &e->err) == PG_DONE)
        filters_explain(filters, &e->reasons);
}

static void add_integration_reasons(struct explanation *e)
{
    const struct store_route *i = &e->s.integration;
    const char *why = *i->pause_reason ? i->pause_reason : "no reason was given";

    if (!i->id) {
        sentences_add(&e->reasons, "it is unrouted: no integration was given and no filter has matched");
        add_filters(e);
        return;
    }
    if (!i->exists) {
        sentences_add(&e->reasons, "its integration %" PRId64 " does not exist", i->id);
        return;
    }
    if (!i->enabled)
        sentences_add(&e->reasons, "its integration is disabled");
    if (i->paused_until == INT64_MAX)
        sentences_add(&e->reasons,
                      "its integration is paused until somebody resumes it (\"anubisctl resume %" PRId64
                      "\"): %s",
                      i->id, why);
    else if (i->paused_until != INT64_MIN) {
        CLEANUP(freep) char *what = xasprintf("its integration is paused (%s)", why);
        add_until(e, what, i->paused_until);
    }
    if (i->backoff_until != INT64_MIN) {
        CLEANUP(freep) char *what = xasprintf("its integration waits (%s)", i->backoff_reason);
        add_until(e, what, i->backoff_until);
    }
    add_circuit(e);
    if (!i->has_url)
        sentences_add(&e->reasons, "its integration has no endpoint_url: the first attempt will pause it");
}

/* The setting by which it is held, as its last event tells. */
static const char *held_words(const struct explanation *e)
{
    struct store_event event = {.decided_by = ""};

    if (pg_rows(e->events) > 0)
        store_event_row(e->events, pg_rows(e->events) - 1, &event);
    if (strcmp(event.decided_by, "on_ambiguous") == 0)
        return " (its integration's delivery_settings.on_ambiguous is \"hold\")";
    if (strcmp(event.decided_by, "idempotency.window") == 0)
        return " (the institution no longer knows its Idempotency-Key, by delivery_settings.idempotency)";
    if (strcmp(event.decided_by, "idempotency.window = none") == 0)
        return " (the institution knows no Idempotency-Keys: delivery_settings.idempotency.window is \"none\")";
    if (strncmp(event.decided_by, "rule ", 5) == 0)
        return " (a rule of its integration's delivery_settings.outcomes says so)";
    return "";
}

/* Adds everything that holds it back. True when it could be claimed now: only daemons or slots may be
 * missing, and other subscriptions may come first. */
static bool add_reasons(struct explanation *e)
{
    const struct store_subscription *s = &e->s;
    int64_t slots = s->integration.max_in_flight > 0 ? s->integration.max_in_flight
                                                     : e->ctl->config->delivery.max_in_flight_per_integration;

    if (s->at.held != INT64_MIN) {
        CLEANUP(freep) char *at = time_words(s->at.held);
        sentences_add(&e->reasons,
                      "it has been held since %s%s: the institution may have received it, and a person must "
                      "decide. Ask the institution, then run \"anubisctl settle %" PRId64
                      " --as sent|failed --reason TEXT\"",
                      at, held_words(e), e->id);
    }
    add_integration_reasons(e);
    if (s->at.scheduled != INT64_MIN && s->at.scheduled > s->now)
        add_until(e, "it is scheduled: it waits", s->at.scheduled);
    if (s->at.next_attempt != INT64_MIN && s->at.next_attempt > s->now)
        add_until(e, "after its last attempt it waits", s->at.next_attempt);
    if (e->reasons.count)
        return false;
    if (!s->daemons)
        sentences_add(&e->reasons, "no anubisd is connected to this database");
    if (s->integration.in_flight >= slots)
        sentences_add(&e->reasons, "all %" PRId64 " slots of its integration are taken (max_in_flight)",
                      slots);
    if (*s->integration.served_by) {
        CLEANUP(freep)
        char *what =
            xasprintf("\"%s\" alone serves its integration (max_in_flight)", s->integration.served_by);
        add_until(e, what, s->integration.served_until);
    }
    if (s->ahead)
        sentences_add(&e->reasons,
                      "subscriptions of the same integration that are due before it: %" PRId64 "%s", s->ahead,
                      s->ahead >= STORE_AHEAD_MAX ? " or more" : "");
    if (s->ahead && s->integration.interval_usec) {
        CLEANUP(freep) char *wait = duration_words(s->ahead * s->integration.interval_usec);
        sentences_add(&e->reasons, "its integration's rate_limit keeps requests apart: they take at least %s",
                      wait);
    }
    if (s->integration.rate_next != INT64_MIN)
        add_until(e, "its integration's rate_limit keeps the next request back", s->integration.rate_next);
    return true;
}

static void set_next(struct explanation *e, const char *text, int64_t at)
{
    sheet_add(e->sheet, "next", "next", value_text(text));
    sheet_add(e->sheet, "next_at", NULL, value_time(at));
}

/* When it will be tried, as far as times alone keep it back; INT64_MAX = nobody can tell. */
static int64_t next_time(const struct explanation *e)
{
    const struct store_subscription *s = &e->s;
    const struct store_route *i = &s->integration;

    if (s->at.held != INT64_MIN || !i->exists || !i->enabled || !circuit_is_closed(&i->circuit))
        return INT64_MAX;
    return MAX(MAX(s->at.next_attempt, s->at.scheduled), MAX(i->backoff_until, i->paused_until));
}

static void explain_kept_back(struct explanation *e)
{
    int64_t at = next_time(e);
    bool is_known = at != INT64_MAX && at > e->s.now;
    CLEANUP(freep) char *when = is_known ? time_words(at) : NULL;
    CLEANUP(freep) char *attempt = when ? xasprintf("an attempt at %s", when) : NULL;

    set_next(e,
             attempt                     ? attempt
             : e->s.at.held != INT64_MIN ? "nothing, until a person decides"
                                         : "an attempt, when the reasons below are gone",
             is_known ? at : INT64_MIN);
}

static void explain_waiting(struct explanation *e)
{
    const struct store_subscription *s = &e->s;
    int64_t due = MAX(MAX(s->at.next_attempt, s->at.scheduled), s->integration.backoff_until);
    int64_t since = due == INT64_MIN ? s->at.created : due;
    int64_t paced = s->integration.rate_next;
    CLEANUP(freep) char *waited = duration_words(s->now - since);

    if (!add_reasons(e)) {
        explain_kept_back(e);
        return;
    }
    if (paced != INT64_MIN) {
        paced += s->ahead * s->integration.interval_usec;
        CLEANUP(freep) char *at = time_words(paced);
        CLEANUP(freep) char *text = xasprintf("an attempt, not before %s", at);
        set_next(e, text, paced);
        return;
    }
    CLEANUP(freep)
    char *text = xasprintf("an attempt, as soon as a daemon claims it; it has been due for %s", waited);
    set_next(e, text, s->now);
    if (s->now - since > (int64_t) OVERDUE_USEC && !e->reasons.count)
        sentences_add(&e->reasons, "nothing holds it back: see the journal (journalctl -u anubisd)");
}

/* The SQLSTATE for which the daemon says that its result is refused; "" = it says so of no result, or of
 * others. The caller frees. */
static char *refused_for(struct explanation *e)
{
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    if (pg_query(e->pg, &sql_results_refused, NULL, &rows, &e->err) == PG_DONE)
        for (int i = 0; i < pg_rows(rows); i++)
            if (pg_get_i64(rows, i, 2) == e->id)
                return xstrdup(pg_get_text(rows, i, 5));
    return xstrdup("");
}

/* A lease is renewed while the database refuses the result. */
static void add_refused_result(struct explanation *e)
{
    struct store_event event = {.created_at = e->s.now};
    CLEANUP(freep) char *sqlstate = refused_for(e);

    if (*sqlstate) {
        sentences_add(
            &e->reasons,
            "the database refuses its result, which \"%s\" keeps: %s (SQLSTATE %s); the journal there has "
            "the server's words where they quote nothing of the row. It is tried again every few seconds, "
            "and the subscription is not sent again meanwhile",
            e->s.claimed_by, results_refusal_words(sqlstate), sqlstate);
        return;
    }
    if (pg_rows(e->events) > 0)
        store_event_row(e->events, pg_rows(e->events) - 1, &event);
    int64_t lasts = e->s.now - event.created_at;
    if (lasts <= (int64_t) e->ctl->config->delivery.lease_usec)
        return;
    CLEANUP(freep) char *words = duration_words(lasts);
    sentences_add(
        &e->reasons,
        "it has been in flight for %s, longer than delivery.lease: the database may refuse its result "
        "(a unique index, a constraint or a trigger of the application), which the journal of \"%s\" "
        "then says; it is stored as soon as the database takes it",
        words, e->s.claimed_by);
}

static void explain_processing(struct explanation *e)
{
    const struct store_subscription *s = &e->s;
    const char *who = *s->claimed_by ? s->claimed_by : "the application";

    if (s->lease_expires_at == INT64_MIN) {
        set_next(e, "it is in flight without a lease: a daemon will give it a lease", INT64_MIN);
    } else if (s->lease_expires_at > s->now) {
        CLEANUP(freep) char *at = time_words(s->lease_expires_at);
        CLEANUP(freep)
        char *text = xasprintf(
            "the result of \"%s\", which has it in flight; without a result it goes to \"retry\" at %s", who,
            at);
        set_next(e, text, s->lease_expires_at);
        add_refused_result(e);
    } else {
        CLEANUP(freep)
        char *text = xasprintf(
            "its lease is over and \"%s\" gave no result: any running daemon sets it to \"retry\"", who);
        set_next(e, text, s->now);
        if (!s->daemons)
            sentences_add(&e->reasons, "no anubisd is connected to this database");
    }
}

/* Statuses by which an institution refuses the data; see delivery/outcome.c. */
static bool refuses_data(int64_t status)
{
    return status == 400 || status == 413 || status == 415 || status == 422;
}

/* The event by which it failed; false when there is none. */
static bool last_failure(const struct explanation *e, struct store_event *ret)
{
    for (int i = pg_rows(e->events) - 1; i >= 0; i--) {
        store_event_row(e->events, i, ret);
        if (strcmp(ret->type, "failed") == 0)
            return true;
    }
    return false;
}

/* Why it is not tried again. */
static void explain_failed(struct explanation *e)
{
    const struct config *c = e->ctl->config;
    struct store_event event;

    CLEANUP(freep)
    char *next = xasprintf("nothing, until somebody puts it back (anubisctl retry --ids %" PRId64 ")", e->id);
    set_next(e, e->s.at.erased == INT64_MIN ? next : "nothing: it was erased", INT64_MIN);
    if (!last_failure(e, &event))
        return;
    CLEANUP(freep) char *error = ctl_error_class(event.error, event.http_status);
    if (strncmp(event.decided_by, "rule ", 5) == 0)
        sentences_add(&e->reasons,
                      "it failed for good because %s of its integration's delivery_settings.outcomes says so "
                      "(HTTP %" PRId64 ")",
                      event.decided_by, event.http_status);
    else if (strncmp(event.decided_by, "operator ", 9) == 0)
        sentences_add(&e->reasons, "it failed for good by the word of %s", event.decided_by);
    else if (refuses_data(event.http_status))
        sentences_add(&e->reasons,
                      "it failed for good because the institution refused its data (HTTP %" PRId64
                      "): the same data would be refused again",
                      event.http_status);
    else if (strcmp(event.operation, "application") == 0)
        sentences_add(&e->reasons,
                      "it failed for good because the application, or a person, set it to \"failed\"");
    else if (event.attempt >= explain_max_attempts(e))
        sentences_add(&e->reasons,
                      "it failed for good because its attempts are used up (%" PRId64 "); the last one: %s",
                      event.attempt, error ? error : "no error");
    else if (event.created_at - e->s.at.created >= (int64_t) c->retry.max_age_usec) {
        CLEANUP(freep) char *age = duration_words((int64_t) c->retry.max_age_usec);
        sentences_add(&e->reasons,
                      "it failed for good because it was older than retry.max_age (%s); the last attempt: %s",
                      age, error ? error : "no error");
    } else
        sentences_add(
            &e->reasons,
            "it failed for good after %" PRId64 " attempts by the settings that its daemon had then "
            "(retry.max_attempts, retry.max_age), which are not those of this configuration; the last one: %s",
            event.attempt, error ? error : "no error");
}

void explain_next(struct explanation *e)
{
    const char *status = e->s.status;

    if (strcmp(status, "sent") == 0)
        set_next(e, "nothing: \"sent\" is final", INT64_MIN);
    else if (strcmp(status, "failed") == 0)
        explain_failed(e);
    else if (strcmp(status, "processing") == 0)
        explain_processing(e);
    else
        explain_waiting(e);
    sheet_list(e->sheet, "reasons", &e->reasons);
}
