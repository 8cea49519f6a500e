/* anubisctl status: the work that waits, the daemons, the relay and the consumers, on one screen.
 *
 * Operators ask for it when something is wrong, so it must be quick on any number of rows: rows in indexes
 * are counted, up to a limit where the index is large, and the others are estimated. No personal data. */
#include <inttypes.h>
#include <string.h>

#include "base/timeutil.h"
#include "ctl/ctl.h"
#include "ctl/store_ctl.h"
#include "sql/statements.h"

/* Up to these sizes all rows are counted, in a few hundred milliseconds. */
#define EXACT_TABLE_BYTES (INT64_C(256) << 20)
#define EXACT_WAITING_BYTES (INT64_C(64) << 20)
#define WAITING_MAX 100000
/* More integrations than this do not fit one screen: people do not see those that have nothing to do. */
#define ROWS_MAX 40
/* A subscription that is tried again rarely waits longer. */
#define LONG_WAIT_USEC (2 * 3600 * USEC_PER_SEC)

struct status {
    struct ctl *ctl;
    struct pg *pg;
    struct sheet *sheet;
    struct store_overview overview;
    int64_t limit; /* waiting subscriptions are counted up to this; 0 = all */
    struct pg_result *states, *integrations, *lags;
    int64_t unrouted;
    struct store_snapshot snapshot;
    struct error err;
};

/* retry.max_delay and the quarter that chance may add; more when that is short, because the daemon may have
 * had another configuration. */
static uint64_t longest_wait_usec(const struct config *c)
{
    return MAX(c->retry.max_delay_usec / 4 * 5, LONG_WAIT_USEC);
}

static int read_all(struct status *s)
{
    int r = store_overview(s->pg, &s->overview, &s->err);
    if (r != PG_DONE)
        return r;
    int64_t bytes = s->overview.due_index_bytes;
    s->limit = bytes >= 0 && bytes <= EXACT_WAITING_BYTES ? 0 : WAITING_MAX;
    bool exact = s->overview.table_bytes <= EXACT_TABLE_BYTES;
    r = pg_query(s->pg, exact ? &sql_status_states_exact : &sql_status_states_about, NULL, &s->states,
                 &s->err);
    if (r == PG_DONE)
        r = store_integrations(s->pg, s->limit, longest_wait_usec(s->ctl->config), &s->integrations, &s->err);
    if (r == PG_DONE)
        r = store_unrouted(s->pg, s->limit, &s->unrouted, &s->err);
    if (r == PG_DONE)
        r = store_snapshot(s->pg, &s->snapshot, &s->err);
    if (r == PG_DONE)
        r = store_lags(s->pg, &s->lags, &s->err);
    return r;
}

/* --- the parts -------------------------------------------------------------------------------- */

/* A number that is exact or a least value. */
static struct value value_count(int64_t count, bool is_least)
{
    return value_words(value_i64(count), "%" PRId64 "%s", count, is_least ? "+" : "");
}

static void add_head(struct status *s)
{
    const struct store_overview *o = &s->overview;
    const char *schema = s->ctl->config->database.schema;
    CLEANUP(freep) char *since = time_words(o->migrated_at);
    struct value daemons = value_i64(o->daemons);

    sheet_say(s->sheet, "database", "%s (PostgreSQL %s), as role %s", o->database, o->server, o->role);
    if (o->standby || o->read_only)
        sheet_say(s->sheet, "", "TAKES NO WRITES: %s",
                  o->standby
                      ? "the server is a standby; daemons need the primary"
                      : "default_transaction_read_only is on for the server, the database or the role");
    if (o->due_index_bytes < 0)
        sheet_say(
            s->sheet, "",
            "INDEX MISSING: subscriptions_due; claims look at every row: make it as in sql/002_tables.sql");
    sheet_say(s->sheet, "schema", "%s, version %" PRId64 " since %s", schema, o->version, since);
    sheet_add(s->sheet, "at", NULL, value_time(o->now));
    sheet_add(s->sheet, "database", NULL, value_text(o->database));
    sheet_add(s->sheet, "server_version", NULL, value_text(o->server));
    sheet_add(s->sheet, "standby", NULL, value_bool(o->standby));
    sheet_add(s->sheet, "read_only", NULL, value_bool(o->read_only));
    sheet_add(s->sheet, "schema", NULL, value_text(schema));
    sheet_add(s->sheet, "schema_version", NULL, value_i64(o->version));
    sheet_add(s->sheet, "daemons", "daemons",
              value_words(daemons, o->daemons ? "%" PRId64 " connected" : "none connected", o->daemons));
}

static void say_relay(struct status *s)
{
    const struct store_relay_view *relay = &s->overview.relay;
    CLEANUP(strbuf_free) struct strbuf words = STRBUF_INIT(8192);

    strbuf_addf(&words, "published up to event %" PRId64 " of %" PRId64, relay->high, relay->last_id);
    if (relay->gap_ids)
        strbuf_addf(&words, ", except %" PRId64 " id%s in %" PRId64 " gap%s that may still fill",
                    relay->gap_ids, plural(relay->gap_ids), relay->gap_ranges, plural(relay->gap_ranges));
    if (!*relay->leader)
        strbuf_adds(&words, "; no daemon has led yet");
    else
        strbuf_addf(&words,
                    relay->leads ? "; leader \"%s\"" : "; no daemon leads, the last leader was \"%s\"",
                    relay->leader);
    sheet_say(s->sheet, "relay", "%s", strbuf_str(&words));
    if (*relay->trouble)
        sheet_say(s->sheet, "", "WAITS: %s; the ledger keeps the events", relay->trouble);
    if (relay->stopped_on)
        sheet_say(s->sheet, "", "STOPPED on event %" PRId64 ": %s", relay->stopped_on, relay->stopped_reason);
}

static void add_relay(struct status *s)
{
    const struct store_relay_view *relay = &s->overview.relay;

    say_relay(s);
    sheet_add(s->sheet, "relay_high", NULL, value_i64(relay->high));
    sheet_add(s->sheet, "ledger_last_id", NULL, value_i64(relay->last_id));
    sheet_add(s->sheet, "relay_gaps", NULL, value_i64(relay->gap_ranges));
    sheet_add(s->sheet, "relay_gap_ids", NULL, value_i64(relay->gap_ids));
    sheet_add(s->sheet, "unpublished_about", NULL,
              value_i64(MAX(relay->last_id - relay->high, 0) + relay->gap_ids));
    sheet_add(s->sheet, "relay_leader", NULL, value_text_or_null(relay->leads ? relay->leader : NULL));
    sheet_add(s->sheet, "relay_last_leader", NULL, value_text_or_null(relay->leader));
    sheet_add(s->sheet, "relay_waits_for", NULL, value_text_or_null(relay->trouble));
    sheet_add(s->sheet, "relay_updated_at", NULL, value_time(relay->updated_at));
    sheet_add(s->sheet, "relay_stopped_on", NULL, value_i64_or_null(relay->stopped_on, 0));
    sheet_add(s->sheet, "relay_stopped_reason", NULL,
              value_text(relay->stopped_on ? relay->stopped_reason : NULL));
}

static void add_partitions(struct status *s)
{
    const struct store_overview *o = &s->overview;

    sheet_say(s->sheet, "ledger", "%" PRId64 " partition%s ahead%s", o->partitions_ahead,
              plural(o->partitions_ahead),
              o->default_partition_used ? "; ids are in the default partition: partitions ran out once" : "");
    sheet_add(s->sheet, "partitions_ahead", NULL, value_i64(o->partitions_ahead));
    sheet_add(s->sheet, "default_partition_used", NULL, value_bool(o->default_partition_used));
}

/* Who holds it. The caller frees. */
static char *snapshot_holder(const struct store_snapshot *o)
{
    if (strcmp(o->kind, "prepared") == 0)
        return xasprintf("the prepared transaction \"%s\" of role \"%s\"", o->name, o->role);
    if (strcmp(o->kind, "slot") == 0)
        return xasprintf("the replication slot \"%s\" (%s)", o->name, o->state);
    return xasprintf("session %" PRId64 " of role \"%s\" (\"%s\", %s)", o->pid, o->role, o->name,
                     *o->state ? o->state : "without a state");
}

/* How to end it. The caller frees. */
static char *snapshot_end(const struct store_snapshot *o)
{
    if (strcmp(o->kind, "prepared") == 0)
        return xstrdup("COMMIT PREPARED or ROLLBACK PREPARED");
    if (strcmp(o->kind, "slot") == 0)
        return xasprintf(
            "a long query on its standby holds it (hot_standby_feedback), or it was left behind: then "
            "pg_drop_replication_slot('%s') removes it",
            o->name);
    return xasprintf("wait for its end, or call pg_terminate_backend(%" PRId64 ")", o->pid);
}

/* Claims and inserts walk over what cannot be cleaned up. */
static void add_snapshot(struct status *s)
{
    const struct store_snapshot *o = &s->snapshot;
    bool any = o->kind != NULL;
    CLEANUP(freep) char *holder = any ? snapshot_holder(o) : NULL;
    CLEANUP(freep) char *end = any ? snapshot_end(o) : NULL;
    CLEANUP(freep) char *lasts = NULL;

    if (any && o->since != INT64_MIN)
        lasts = duration_words(MAX(s->overview.now - o->since, 0));
    if (any && o->is_long) {
        sheet_say(s->sheet, "old snapshot", "held by %s for %s%s%" PRId64 " transactions", holder,
                  lasts ? lasts : "", lasts ? ", " : "", o->transactions);
        sheet_say(
            s->sheet, "",
            "Until it ends VACUUM removes nothing that was changed since: claims and inserts get slower, "
            "and tables grow.");
        sheet_say(s->sheet, "", "To help: %s.", end);
    }
    sheet_add(s->sheet, "oldest_snapshot_holder", NULL, value_text_or_null(holder));
    sheet_add(s->sheet, "oldest_snapshot_pid", NULL, value_i64_or_null(any ? o->pid : 0, 0));
    sheet_add(s->sheet, "oldest_snapshot_since", NULL, value_time(any ? o->since : INT64_MIN));
    sheet_add(s->sheet, "oldest_snapshot_transactions", NULL, value_i64(o->transactions));
    sheet_add(s->sheet, "oldest_snapshot_is_long", NULL, value_bool(o->is_long));
    sheet_add(s->sheet, "oldest_snapshot_remedy", NULL, value_text_or_null(end));
}

static void add_states(struct status *s)
{
    static const struct table_column columns[] = {
        {"status", "STATUS", false}, {"count", "COUNT", true}, {"about", NULL, false}};
    struct table *t =
        sheet_table(s->sheet, "subscriptions", "Subscriptions", "none", columns, ARRAY_SIZE(columns));

    for (int i = 0; i < pg_rows(s->states); i++) {
        struct pg_row row = {s->states, i, 0};
        table_add(t, value_text(pg_next_text(&row)));
        bool known = !pg_next_is_null(&row);
        int64_t count = pg_next_i64(&row);
        bool about = pg_next_bool(&row);
        table_add(t, known ? value_words(value_i64(count), "%s%" PRId64, about ? "about " : "", count)
                           : value_words(value_null(), "not known before the first ANALYZE"));
        table_add(t, value_bool(about));
    }
}

static bool can_send(const struct store_integration *i)
{
    return i->enabled && i->paused_until == INT64_MIN && i->backoff_until == INT64_MIN &&
           strcmp(i->circuit_state, "open") != 0;
}

/* Sums over the integrations. */
static void add_backlog(struct status *s)
{
    int64_t due = 0, held = 0, doubtful = 0, in_flight = 0, oldest = INT64_MAX;
    bool least = false;
    struct store_integration row;

    for (int i = 0; i < pg_rows(s->integrations); i++) {
        store_integration_row(s->integrations, i, s->limit, &row);
        held += row.held;
        doubtful += row.failed_ambiguous;
        in_flight += row.in_flight;
        if (!can_send(&row))
            continue;
        due += row.due;
        least |= row.due_is_least;
        if (row.oldest != INT64_MIN)
            oldest = MIN(oldest, row.oldest);
    }
    struct value due_now = value_count(due, least);
    if (oldest != INT64_MAX) {
        CLEANUP(freep) char *longest = duration_words(s->overview.now - oldest);
        due_now = value_words(due_now, "%" PRId64 "%s, the longest for %s", due, least ? "+" : "", longest);
    }
    sheet_add(s->sheet, "due", "due now", due_now);
    sheet_add(s->sheet, "due_is_least", NULL, value_bool(least));
    sheet_add(s->sheet, "oldest_due_at", NULL, value_time(oldest));
    sheet_add(s->sheet, "in_flight", "in flight", value_i64(in_flight));
    sheet_add(s->sheet, "unrouted", "unrouted",
              value_count(s->unrouted, s->limit && s->unrouted >= s->limit));
    sheet_add(s->sheet, "held", "held", value_i64(held));
    sheet_add(s->sheet, "failed_ambiguous", "failed, may be taken", value_i64(doubtful));
}

static char *integration_state(const struct store_integration *i)
{
    CLEANUP(freep) char *paused_until = time_words(i->paused_until);
    CLEANUP(freep) char *backoff_until = time_words(i->backoff_until);

    if (!i->enabled)
        return xstrdup("disabled");
    if (i->paused_until == INT64_MAX)
        return xstrdup("paused");
    if (i->paused_until != INT64_MIN)
        return xasprintf("paused until %s", paused_until);
    if (strcmp(i->circuit_state, "closed") != 0)
        return xasprintf("circuit %s", i->circuit_state);
    if (i->backoff_until != INT64_MIN)
        return xasprintf("waits until %s", backoff_until);
    return xstrdup("ok");
}

/* Why nothing is sent to it, or how an attempt ended that is made again. The caller frees; NULL = no reason.
 * */
static char *integration_reason(const struct store_integration *i)
{
    if (i->paused_until != INT64_MIN)
        return *i->pause_reason ? xstrdup(i->pause_reason) : NULL;
    if (i->backoff_until != INT64_MIN)
        return xstrdup(i->backoff_reason);
    CLEANUP(freep) char *error = ctl_error_class(i->retry_error, i->retry_status);
    return error && i->enabled ? xasprintf("retrying: %s", error) : NULL;
}

static bool is_quiet(const struct store_integration *i)
{
    return can_send(i) && !i->waiting && !i->in_flight && !i->held;
}

static void add_integration(struct status *s, struct table *t, const struct store_integration *i)
{
    CLEANUP(freep) char *state = integration_state(i);
    CLEANUP(freep) char *reason = integration_reason(i);
    CLEANUP(freep) char *longest = NULL;

    if (i->oldest != INT64_MIN)
        longest = duration_words(s->overview.now - i->oldest);
    table_add(t, value_i64(i->id));
    table_add(t, value_text(i->name));
    table_add(t, value_text(state));
    table_add(t, value_count(i->waiting, i->waiting_is_least));
    /* As in the sum of add_backlog(): where nothing can be sent, nothing is due. */
    table_add(t, value_count(can_send(i) ? i->due : 0, can_send(i) && i->due_is_least));
    table_add(t, value_i64(i->in_flight));
    table_add(t, value_i64(i->sent));
    table_add(t, value_i64(i->failed));
    table_add(t, value_text(longest ? longest : ""));
    table_add(t, value_text(reason));
    table_add(t, value_text(i->paused_until != INT64_MIN && *i->pause_reason ? i->pause_reason : NULL));
    table_add(t, value_time(i->oldest));
    table_add(t, value_i64(i->held));
    table_add(t, value_bool(i->enabled));
    table_add(t, value_bool(i->paused_until != INT64_MIN));
    table_add(t, value_text(i->circuit_state));
    table_add(t, value_time(i->backoff_until));
    table_add(t, value_i64(i->failed_ambiguous));
}

static void add_integrations(struct status *s)
{
    static const struct table_column columns[] = {
        {"id", "ID", true},
        {"name", "NAME", false},
        {"state", "STATE", false},
        {"waiting", "WAITING", true},
        {"due", "DUE", true},
        {"in_flight", "IN FLIGHT", true},
        {"successful_sends", "SENT", true},
        {"failed_sends", "FAILED", true},
        {"longest_waiting", "LONGEST", true},
        {"reason", "REASON", false},
        {"pause_reason", NULL, false},
        {"oldest_due_at", NULL, false},
        {"held", NULL, false},
        {"enabled", NULL, false},
        {"paused", NULL, false},
        {"circuit_state", NULL, false},
        {"backoff_until", NULL, false},
        {"failed_ambiguous", NULL, false},
    };
    struct store_integration row;
    int rows = pg_rows(s->integrations), left_out = 0;
    struct table *t = sheet_table(s->sheet, "integrations", "Integrations",
                                  rows ? "none has anything to do" : "none", columns, ARRAY_SIZE(columns));

    for (int i = 0; i < rows; i++) {
        store_integration_row(s->integrations, i, s->limit, &row);
        if (!s->ctl->json && rows > ROWS_MAX && is_quiet(&row))
            left_out++;
        else
            add_integration(s, t, &row);
    }
    if (left_out)
        sheet_say(s->sheet, NULL, "  %d integration%s nothing to do (--json lists them)", left_out,
                  left_out == 1 ? " has" : "s have");
}

static void add_consumers(struct status *s)
{
    static const struct table_column columns[] = {
        {"consumer_group", "GROUP", false}, {"topic", "TOPIC", false},  {"partitions", "PARTITIONS", true},
        {"messages_read", "READ", true},    {"behind", "BEHIND", true}, {"foreign_messages", "FOREIGN", true},
        {"updated_at", "LAST READ", false},
    };
    struct table *t = sheet_table(s->sheet, "consumers", "Consumers", "none has read a message yet", columns,
                                  ARRAY_SIZE(columns));

    for (int i = 0; i < pg_rows(s->lags); i++) {
        struct pg_row row = {s->lags, i, 0};
        table_add(t, value_text(pg_next_text(&row)));
        table_add(t, value_text(pg_next_text(&row)));
        table_add(t, value_i64(pg_next_i64(&row)));
        table_add(t, value_i64(pg_next_i64(&row)));
        table_add(t, value_i64(pg_next_i64(&row)));
        table_add(t, value_i64(pg_next_i64(&row)));
        table_add(t, value_time(pg_next_time(&row)));
    }
}

static void fill(struct status *s)
{
    add_head(s);
    add_backlog(s);
    add_relay(s);
    add_partitions(s);
    add_snapshot(s);
    sheet_empty_line(s->sheet);
    add_states(s);
    sheet_empty_line(s->sheet);
    add_integrations(s);
    sheet_empty_line(s->sheet);
    add_consumers(s);
}

int ctl_status(struct ctl *c)
{
    struct status s = {.ctl = c};
    struct pg_params params = ctl_session(c, "anubisctl status");

    params.keep_to_indexes = true;
    int code = ctl_connect(c, &params, &s.pg);
    if (code == 0) {
        int r = read_all(&s);
        sheet_new(&s.sheet);
        if (r == PG_DONE)
            fill(&s);
        code = r == PG_DONE ? ctl_show(c, s.sheet, 0) : ctl_refused(r, "read the database's state", &s.err);
    }
    pg_result_free(s.lags);
    pg_result_free(s.snapshot.result);
    pg_result_free(s.integrations);
    pg_result_free(s.states);
    pg_result_free(s.overview.result);
    sheet_free(s.sheet);
    pg_close(s.pg);
    return code;
}
