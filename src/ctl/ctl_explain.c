/* anubisctl explain: the whole story of one subscription. What will happen next: explain_next.c.
 *
 * The answer of an institution may echo personal data, so an error is shown as its status code or the class
 * of its cause, never in the words that were stored. */
#include <inttypes.h>
#include <string.h>
#include <sysexits.h>

#include "base/timeutil.h"
#include "crypto/idempotency_key.h"
#include "ctl/explain.h"
#include "sql/statements.h"

/* --- the rest of the sheet -------------------------------------------------------------------- */

/* The one that the institution sees. */
static void derive_key(const struct explanation *e, char ret[IDS_UUID_TEXT])
{
    struct ids *ids = ids_new();

    idempotency_key_derive(ids,
                           &(struct idempotency_message){
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
    bool own = s->integration.max_attempts > 0;
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
    sheet_add_known(e->sheet, "integration_filter_id", "by filter", value_i64_or_null(s->filter_id, 0));
    sheet_add(e->sheet, "attempts", "attempts",
              value_words(value_i64(s->attempts), "%" PRId64 " of at most %" PRId64 "%s", s->attempts,
                          explain_max_attempts(e),
                          own ? "" : " (by this configuration; that of the daemon counts)"));
    sheet_add(e->sheet, "max_attempts", NULL, value_i64(explain_max_attempts(e)));
    sheet_add(e->sheet, "max_attempts_of", NULL, value_text(own ? "integration" : "configuration"));
    sheet_add(e->sheet, "created_at", "created", value_time(s->at.created));
    sheet_add(e->sheet, "updated_at", NULL, value_time(s->at.updated));
    sheet_add_known(e->sheet, "scheduled_to", "scheduled", value_time(s->at.scheduled));
    sheet_add(e->sheet, "next_attempt_at", NULL, value_time(s->at.next_attempt));
    sheet_add_known(e->sheet, "held_at", "held since", value_time(s->at.held));
    sheet_add_known(e->sheet, "sent_at", "sent", value_time(s->at.sent));
    sheet_add_known(e->sheet, "erased_at", "erased", value_time(s->at.erased));
    sheet_add_known(e->sheet, "resend_of", "in place of", value_i64_or_null(s->resend_of, 0));
    sheet_add_known(e->sheet, "resent_as", "sent again as", value_i64_or_null(s->resent_as, 0));
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
    table_add(t, value_text_or_null(event->decided_by));
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
        {"decided_by", "", false},         {"published", "PUBLISHED", false},
        {"http_status", NULL, false},
    };
    struct table *t = sheet_table(e->sheet, "events", "Events", "none, because it is older than the ledger",
                                  columns, ARRAY_SIZE(columns));
    CLEANUP(freep) char *dropped = e->s.at.dropped == INT64_MIN ? NULL : time_words(e->s.at.dropped);
    struct store_event event;
    int64_t before = INT64_MIN;

    for (int i = 0; i < pg_rows(e->events); i++) {
        store_event_row(e->events, i, &event);
        add_event(t, &event, before);
        before = event.created_at;
    }
    if (dropped)
        sheet_say(e->sheet, "ledger", "its events up to %s have left the ledger (retention.events)", dropped);
    sheet_add(e->sheet, "events_dropped_until", NULL, value_time(e->s.at.dropped));
}

static int add_confirmation(struct explanation *e)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *found = NULL;

    pg_arg_i64(&args, e->id);
    int r = pg_query(e->pg, &sql_explain_confirmation, &args, &found, &e->err);
    if (r != PG_DONE || pg_rows(found) == 0)
        return r;
    struct pg_row row = {.result = found};
    sheet_add(e->sheet, "confirmation", "confirmation", value_text(pg_next_text(&row)));
    sheet_add_known(e->sheet, "external_id", "its id there", value_text_or_null(pg_next_text(&row)));
    sheet_add_known(e->sheet, "expected_by", "to be confirmed by", value_time(pg_next_time(&row)));
    sheet_add_known(e->sheet, "confirmed_at", "they say at", value_time(pg_next_time(&row)));
    sheet_add_known(e->sheet, "received_at", "they said so at", value_time(pg_next_time(&row)));
    sheet_add_known(e->sheet, "contradictions", "contradictions", value_i64_or_null(pg_next_i64(&row), 0));
    return PG_DONE;
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
    r = add_confirmation(e);
    if (r != PG_DONE)
        return ctl_refused(r, "read the confirmation", &e->err);
    explain_next(e);
    sheet_empty_line(e->sheet);
    add_events(e);
    return ctl_show(e->ctl, e->sheet, 0);
}

/* --- the search ------------------------------------------------------------------------------- */

static void show_search(void *userdata)
{
    const struct explanation *e = userdata;
    CLEANUP(freep) char *lasted = duration_words((int64_t) (now_monotonic_usec() - e->began));

    if (e->began)
        ctl_progress("looking through all subscriptions … (%s)", lasted);
}

static void add_found(struct explanation *e, const struct pg_result *found)
{
    static const struct table_column columns[] = {{"id", "ID", true},
                                                  {"integration_id", NULL, true},
                                                  {"integration_name", "INTEGRATION", false},
                                                  {"status", "STATUS", false},
                                                  {"attempts", "ATTEMPTS", true},
                                                  {"created_at", "CREATED", false}};
    struct table *t = sheet_table(e->sheet, "subscriptions", "Subscriptions, the newest first", "none",
                                  columns, ARRAY_SIZE(columns));

    table_make_elastic(t, "integration_name");
    for (int i = 0; i < pg_rows(found); i++) {
        struct pg_row row = {found, i, 0};
        table_add(t, value_i64(pg_next_i64(&row)));
        table_add(t, value_i64_or_null(pg_next_i64(&row), 0));
        table_add(t, value_text_or_null(pg_next_text(&row)));
        table_add(t, value_text(pg_next_text(&row)));
        table_add(t, value_i64(pg_next_i64(&row)));
        table_add(t, value_time(pg_next_time(&row)));
    }
    sheet_say(e->sheet, NULL, "%s\"anubisctl explain ID\" tells the story of each",
              pg_rows(found) >= STORE_FOUND_MAX ? "There may be more. " : "");
}

/* The one that is looked for is explained; several are listed. */
static int search(struct explanation *e)
{
    CLEANUP(pg_result_freep) struct pg_result *found = NULL;

    e->began = now_monotonic_usec();
    int r = store_find(e->pg, e->ctl->whose.order, e->ctl->whose.cpf, &found, &e->err);
    e->began = 0;
    if (r != PG_DONE)
        return ctl_refused(r, "look for the subscription", &e->err);
    if (pg_rows(found) == 0) {
        ctl_say("there is no subscription of that %s", e->ctl->whose.order ? "order" : "CPF");
        return CTL_DIFFERENT;
    }
    e->id = pg_get_i64(found, 0, 0);
    if (pg_rows(found) == 1)
        return explain(e);
    sheet_new(&e->sheet);
    add_found(e, found);
    return ctl_show(e->ctl, e->sheet, 0);
}

/* 0, or an exit code after it said why. */
static int read_arguments(struct explanation *e)
{
    const struct ctl *c = e->ctl;
    int64_t order;
    int digits = 0;

    for (const char *p = c->whose.cpf ? c->whose.cpf : ""; *p; p++)
        digits += *p >= '0' && *p <= '9';
    if (c->whose.cpf && digits != 11)
        ctl_say("a CPF has 11 digits");
    else if (c->whose.order && parse_i64(c->whose.order, INT64_MIN, INT64_MAX, &order) < 0)
        ctl_say("\"%s\" cannot be the id of an order, which is a whole number", c->whose.order);
    else if (!c->whose.cpf && !c->whose.order && parse_i64(c->args[0], INT64_MIN, INT64_MAX, &e->id) < 0)
        ctl_say("\"%s\" cannot be the id of a subscription, which is a whole number", c->args[0]);
    else
        return 0;
    return EX_USAGE;
}

int ctl_explain(struct ctl *c)
{
    struct explanation e = {.ctl = c};
    struct pg_params params = ctl_session(c, "anubisctl explain");
    bool searches = c->whose.order || c->whose.cpf;

    int code = read_arguments(&e);
    if (code)
        return code;
    params.keep_to_indexes = !searches;
    params.under_way = show_search;
    params.userdata = &e;
    if (searches)
        params.statement_timeout_usec = 0;
    code = ctl_connect(c, &params, &e.pg);
    if (code == 0)
        code = searches ? search(&e) : explain(&e);
    sentences_free(&e.reasons);
    pg_result_free(e.events);
    pg_result_free(e.s.result);
    sheet_free(e.sheet);
    pg_close(e.pg);
    return code;
}
