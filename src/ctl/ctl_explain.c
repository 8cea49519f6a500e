/* anubisctl explain ID: the whole story of one subscription, what happens next and when, and what holds it
 * back.
 *
 * The answer of an institution may echo personal data, so an error is shown as its status code or the class
 * of its cause, never in the words that were stored. */
#include <inttypes.h>
#include <string.h>
#include <sysexits.h>

#include "base/timeutil.h"
#include "crypto/ids.h"
#include "ctl/ctl.h"
#include "ctl/store_ctl.h"

/* A subscription that nothing holds back is claimed within moments; after this time something is wrong. */
#define OVERDUE_USEC (60 * USEC_PER_SEC)

struct explanation {
    struct ctl *ctl;
    struct pg *pg;
    struct sheet *sheet;
    int64_t id;
    struct store_subscription s;
    struct pg_result *events;
    struct sentences reasons; /* what holds it back */
    struct error err;
};

/* --- what happens next ------------------------------------------------------------------------ */

/* "until 2026-… (in 5 min)" */
static void add_until(struct explanation *e, const char *what, int64_t until)
{
    CLEANUP(freep) char *at = time_words(until), *in = duration_words(until - e->s.now);

    sentences_add(&e->reasons, "%s until %s (in %s)", what, at, in);
}

static void add_integration_reasons(struct explanation *e)
{
    const struct store_route *i = &e->s.integration;
    const char *why = *i->pause_reason ? i->pause_reason : "no reason was given";

    if (!i->id) {
        sentences_add(&e->reasons, "it is unrouted: no integration was given and no filter has matched");
        return;
    }
    if (!i->exists) {
        sentences_add(&e->reasons, "its integration %" PRId64 " does not exist", i->id);
        return;
    }
    if (!i->enabled)
        sentences_add(&e->reasons, "its integration is disabled");
    if (i->paused_until == INT64_MAX)
        sentences_add(&e->reasons, "its integration is paused until somebody resumes it: %s", why);
    else if (i->paused_until != INT64_MIN) {
        CLEANUP(freep) char *what = xasprintf("its integration is paused (%s)", why);
        add_until(e, what, i->paused_until);
    }
    if (i->backoff_until != INT64_MIN) {
        CLEANUP(freep) char *what = xasprintf("its integration waits (%s)", i->backoff_reason);
        add_until(e, what, i->backoff_until);
    }
    if (strcmp(i->circuit_state, "open") == 0)
        sentences_add(&e->reasons,
                      "its integration's circuit is open after too many failures; one probe will test it");
    if (!i->has_url)
        sentences_add(&e->reasons, "its integration has no endpoint_url: the first attempt will pause it");
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
        sentences_add(
            &e->reasons,
            "it has been held since %s: the institution may have received it, and an operator must decide",
            at);
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
    if (s->ahead)
        sentences_add(&e->reasons,
                      "subscriptions of the same integration that are due before it: %" PRId64 "%s", s->ahead,
                      s->ahead >= STORE_AHEAD_MAX ? " or more" : "");
    return true;
}

static void set_next(struct explanation *e, const char *text, int64_t at)
{
    sheet_add(e->sheet, "next", "next", value_text(text));
    sheet_add(e->sheet, "next_at", NULL, value_time(at));
}

static void explain_waiting(struct explanation *e)
{
    const struct store_subscription *s = &e->s;
    int64_t due = MAX(MAX(s->at.next_attempt, s->at.scheduled), s->integration.backoff_until);
    int64_t since = due == INT64_MIN ? s->at.created : due;
    CLEANUP(freep) char *waited = duration_words(s->now - since);

    if (!add_reasons(e)) {
        bool only_time = due > s->now && s->at.held == INT64_MIN && s->integration.exists &&
                         s->integration.enabled && s->integration.paused_until == INT64_MIN &&
                         strcmp(s->integration.circuit_state, "open") != 0;
        CLEANUP(freep) char *at = time_words(due);
        CLEANUP(freep)
        char *text = only_time ? xasprintf("an attempt at %s", at)
                               : xstrdup("an attempt, when the reasons below are gone");
        set_next(e, text, only_time ? due : INT64_MIN);
        return;
    }
    CLEANUP(freep)
    char *text = xasprintf("an attempt, as soon as a daemon claims it; it has been due for %s", waited);
    set_next(e, text, s->now);
    if (s->now - since > (int64_t) OVERDUE_USEC && !e->reasons.count)
        sentences_add(&e->reasons, "nothing holds it back: see the journal (journalctl -u anubisd)");
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
    } else {
        CLEANUP(freep)
        char *text = xasprintf(
            "its lease is over and \"%s\" gave no result: any running daemon sets it to \"retry\"", who);
        set_next(e, text, s->now);
        if (!s->daemons)
            sentences_add(&e->reasons, "no anubisd is connected to this database");
    }
}

static void explain_next(struct explanation *e)
{
    const char *status = e->s.status;

    if (strcmp(status, "sent") == 0)
        set_next(e, "nothing: \"sent\" is final", INT64_MIN);
    else if (strcmp(status, "failed") == 0)
        set_next(e, "nothing, until somebody sets its status back to \"pending\"", INT64_MIN);
    else if (strcmp(status, "processing") == 0)
        explain_processing(e);
    else
        explain_waiting(e);
    sheet_list(e->sheet, "reasons", &e->reasons);
}

/* --- the rest of the sheet -------------------------------------------------------------------- */

/* The one that the institution sees. */
static void derive_key(const struct explanation *e, char ret[IDS_UUID_TEXT])
{
    struct ids *ids = ids_new();

    ids_idempotency_key(ids,
                        &(struct ids_message){
                            .name_space = e->s.namespace,
                            .subscription_id = e->id,
                            .seed = e->s.seed,
                            .payload = e->s.payload,
                        },
                        ret);
    ids_free(ids);
}

static void add_head(struct explanation *e)
{
    const struct store_subscription *s = &e->s;
    CLEANUP(freep) char *error = ctl_error_class(s->last_error, s->last_http_status);
    int64_t max =
        s->integration.max_attempts > 0 ? s->integration.max_attempts : e->ctl->config->retry.max_attempts;
    char key[IDS_UUID_TEXT];

    derive_key(e, key);
    sheet_add(e->sheet, "id", "subscription", value_i64(e->id));
    sheet_add(e->sheet, "status", "status", value_text(s->status));
    sheet_add(e->sheet, "integration_id", NULL, value_i64_or_null(s->integration.id, 0));
    sheet_add(e->sheet, "integration_name", NULL,
              value_text(s->integration.exists ? s->integration.name : NULL));
    if (s->integration.id)
        sheet_say(e->sheet, "integration", "%" PRId64 " \"%s\"", s->integration.id, s->integration.name);
    else
        sheet_say(e->sheet, "integration", "none");
    sheet_add(e->sheet, "attempts", "attempts",
              value_words(value_i64(s->attempts), "%" PRId64 " of at most %" PRId64, s->attempts, max));
    sheet_add(e->sheet, "max_attempts", NULL, value_i64(max));
    sheet_add(e->sheet, "created_at", "created", value_time(s->at.created));
    sheet_add(e->sheet, "updated_at", NULL, value_time(s->at.updated));
    sheet_add_known(e->sheet, "scheduled_to", "scheduled", value_time(s->at.scheduled));
    sheet_add(e->sheet, "next_attempt_at", NULL, value_time(s->at.next_attempt));
    sheet_add_known(e->sheet, "held_at", "held since", value_time(s->at.held));
    sheet_add_known(e->sheet, "sent_at", "sent", value_time(s->at.sent));
    sheet_add_known(e->sheet, "claimed_by", "claimed by", value_text_or_null(s->claimed_by));
    sheet_add_known(e->sheet, "lease_expires_at", "lease until", value_time(s->lease_expires_at));
    sheet_add_known(e->sheet, "last_result", "last result", value_text(error));
    sheet_add(e->sheet, "last_ambiguous", NULL, value_bool(s->last_ambiguous));
    sheet_add(e->sheet, "ambiguous_since", NULL, value_time(s->ambiguous_since));
    if (s->ambiguous_since != INT64_MIN && s->at.sent == INT64_MIN) {
        CLEANUP(freep) char *at = time_words(s->ambiguous_since);
        sheet_say(e->sheet, "", "ambiguous: the institution may have received it (attempt that ended %s)",
                  at);
    } else if (s->last_ambiguous) {
        sheet_say(e->sheet, "", "ambiguous: the institution may have received it");
    }
    sheet_add(e->sheet, "idempotency_key", "Idempotency-Key", value_text(key));
}

static const char *published_words(const struct store_event *event)
{
    static const char *const words[] = {
        [STORE_PUBLISHED] = "yes", [STORE_NOT_YET] = "not yet", [STORE_NEVER] = "never"};
    return words[event->published];
}

static struct value value_step(const struct store_event *event)
{
    CLEANUP(freep) char *step = xasprintf("%s → %s", event->from_status, event->to_status);

    return value_text(*event->from_status ? step : event->to_status);
}

/* The time since the event before; null for the first event. */
static struct value value_after(int64_t at, int64_t before)
{
    if (before == INT64_MIN)
        return value_null();
    CLEANUP(freep) char *words = duration_words(at - before);
    return value_words(value_i64((at - before) / 1000), "%s", words);
}

static void add_event(struct table *t, const struct store_event *event, int64_t before)
{
    CLEANUP(freep) char *error = ctl_error_class(event->error, event->http_status);

    table_add(t, value_i64(event->id));
    table_add(t, value_time(event->created_at));
    table_add(t, value_after(event->created_at, before));
    table_add(t, value_text_or_null(event->type));
    table_add(t, value_text_or_null(event->operation));
    table_add(t, value_step(event));
    table_add(t, value_text_or_null(event->from_status));
    table_add(t, value_text_or_null(event->to_status));
    table_add(t, value_i64_or_null(event->attempt, -1));
    table_add(t, value_i64_or_null(event->duration_ms, -1));
    table_add(t, value_text(error));
    table_add(t, value_words(value_bool(event->ambiguous), "%s", event->ambiguous ? "ambiguous" : ""));
    table_add(t, value_text(published_words(event)));
    table_add(t, value_i64_or_null(event->http_status, 0));
}

static void add_events(struct explanation *e)
{
    static const struct table_column columns[] = {
        {"sequence", "EVENT", true},       {"at", "AT", false},
        {"after_ms", "AFTER", true},       {"type", "TYPE", false},
        {"operation", "OPERATION", false}, {"step", "STATUS", false},
        {"from_status", NULL, false},      {"to_status", NULL, false},
        {"attempt", "ATTEMPT", true},      {"duration_ms", "MS", true},
        {"result", "RESULT", false},       {"ambiguous", "", false},
        {"published", "PUBLISHED", false}, {"http_status", NULL, false},
    };
    struct table *t = sheet_table(e->sheet, "events", "Events", "none, because it is older than the ledger",
                                  columns, ARRAY_SIZE(columns));
    struct store_event event;
    int64_t before = INT64_MIN;

    for (int i = 0; i < pg_rows(e->events); i++) {
        store_event_row(e->events, i, &event);
        add_event(t, &event, before);
        before = event.created_at;
    }
}

static int explain(struct explanation *e)
{
    bool found = false;

    int r = store_subscription(e->pg, e->id, &e->s, &found, &e->err);
    if (r == PG_DONE && !found) {
        ctl_say("there is no subscription %" PRId64, e->id);
        return CTL_DIFFERENT;
    }
    if (r == PG_DONE)
        r = store_events(e->pg, e->id, &e->events, &e->err);
    if (r != PG_DONE)
        return ctl_refused(r, "read the subscription", &e->err);
    sheet_new(&e->sheet);
    add_head(e);
    explain_next(e);
    sheet_empty_line(e->sheet);
    add_events(e);
    return ctl_show(e->ctl, e->sheet, 0);
}

int ctl_explain(struct ctl *c)
{
    struct explanation e = {.ctl = c};
    struct pg_params params = ctl_session(c, "anubisctl explain");

    if (parse_i64(c->args[0], INT64_MIN, INT64_MAX, &e.id) < 0) {
        ctl_say("\"%s\" cannot be the id of a subscription, which is a whole number", c->args[0]);
        return EX_USAGE;
    }
    params.keep_to_indexes = true;
    int code = ctl_connect(c, &params, &e.pg);
    if (code == 0)
        code = explain(&e);
    sentences_free(&e.reasons);
    pg_result_free(e.events);
    pg_result_free(e.s.result);
    sheet_free(e.sheet);
    pg_close(e.pg);
    return code;
}
