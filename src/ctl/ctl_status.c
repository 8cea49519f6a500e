/* anubisctl status: the work that waits, the daemons, the relay and the consumers, on one screen.
 *
 * Operators ask for it when something is wrong, so it must be quick on any number of rows: rows in indexes
 * are counted, up to a limit where the index is large, and the others are estimated. No personal data. */
#include <inttypes.h>
#include <string.h>

#include "base/timeutil.h"
#include "ctl/ctl.h"
#include "ctl/letters.h"
#include "ctl/results.h"
#include "ctl/status_integrations.h"
#include "ctl/store_ctl.h"
#include "sql/statements.h"

/* Up to these sizes all rows are counted, in a few hundred milliseconds. */
#define EXACT_TABLE_BYTES (INT64_C(256) << 20)
#define EXACT_WAITING_BYTES (INT64_C(64) << 20)
#define WAITING_MAX 100000
struct status {
    struct ctl *ctl;
    struct pg *pg;
    struct sheet *sheet;
    struct store_overview overview;
    int64_t limit; /* waiting subscriptions are counted up to this; 0 = all */
    struct pg_result *refused, *states, *lags, *stops, *results, *clocks;
    struct fleet fleet;
    int64_t unrouted, alerts;
    struct store_snapshot snapshot;
    struct error err;
};

static int read_all(struct status *s)
{
    int r = store_overview(s->pg, &s->overview, &s->err);
    if (r != PG_DONE)
        return r;
    r = pg_query(s->pg, &sql_status_refused, NULL, &s->refused, &s->err);
    if (r != PG_DONE)
        return r;
    int64_t bytes = s->overview.due_index_bytes;
    s->limit = bytes >= 0 && bytes <= EXACT_WAITING_BYTES ? 0 : WAITING_MAX;
    s->fleet.limit = s->limit;
    s->fleet.now = s->overview.now;
    bool exact = s->overview.table_bytes <= EXACT_TABLE_BYTES;
    r = pg_query(s->pg, exact ? &sql_status_states_exact : &sql_status_states_about, NULL, &s->states,
                 &s->err);
    if (r == PG_DONE)
        r = fleet_read(&s->fleet, s->pg, s->ctl->config, &s->err);
    if (r == PG_DONE)
        r = store_unrouted(s->pg, s->limit, &s->unrouted, &s->err);
    if (r == PG_DONE)
        r = pg_query_i64(s->pg, &sql_alerts_firing, NULL, &s->alerts, &s->err);
    if (r == PG_DONE)
        r = store_snapshot(s->pg, &s->snapshot, &s->err);
    if (r == PG_DONE)
        r = store_lags(s->pg, &s->lags, &s->err);
    if (r == PG_DONE)
        r = pg_query(s->pg, &sql_letters_stops, NULL, &s->stops, &s->err);
    if (r == PG_DONE)
        r = pg_query(s->pg, &sql_results_refused, NULL, &s->results, &s->err);
    if (r == PG_DONE)
        r = pg_query(s->pg, &sql_clocks_differ, NULL, &s->clocks, &s->err);
    return r;
}

/* --- the parts -------------------------------------------------------------------------------- */

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
    const char *refused = pg_is_null(s->refused, 0, 0) ? NULL : pg_get_text(s->refused, 0, 0);
    sheet_add(s->sheet, "daemons_wait", NULL, value_text(refused));
    if (refused)
        sheet_say(s->sheet, "", "DAEMONS WAIT: %s", refused);
}

/* The leader's trouble begins with these words. */
static const char *helps_relay(const char *trouble)
{
    static const char *const hints[][2] = {
        {"Kafka is away", "See kafka.brokers and the journal"},
        {"no partition leader",
         "The journal names topic and partition: bring back a broker that has a copy of it"},
        {"a look into Kafka", "For its newest events there; the journal names what does not answer"},
        {"topics are missing", "Create them, or switch kafka.create_topics on"},
        {"statements fail", "The journal has the server's words"},
        {"a topic is forbidden", "Let Kafka's user Describe and Write the topics of kafka.topic_prefix"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(hints); i++)
        if (strncmp(trouble, hints[i][0], strlen(hints[i][0])) == 0)
            return hints[i][1];
    return "See the journal";
}

static void say_relay(struct status *s)
{
    const struct store_relay_view *relay = &s->overview.relay;
    CLEANUP(strbuf_free) struct strbuf words = STRBUF_INIT(8192);

    strbuf_addf(&words, "published up to event %" PRId64 " of %" PRId64, relay->high, relay->last_id);
    if (relay->gap_ids)
        strbuf_addf(&words,
                    ", except %" PRId64 " id%s in %" PRId64
                    " gap%s, of transactions that are open, large or were undone",
                    relay->gap_ids, plural(relay->gap_ids), relay->gap_ranges, plural(relay->gap_ranges));
    if (!*relay->leader)
        strbuf_adds(&words, "; no daemon has led yet");
    else
        strbuf_addf(&words,
                    relay->leads ? "; leader \"%s\"" : "; no daemon leads, the last leader was \"%s\"",
                    relay->leader);
    sheet_say(s->sheet, "relay", "%s", strbuf_str(&words));
    if (*relay->stranger)
        sheet_say(s->sheet, "", "NO DAEMON CAN LEAD: the lock for it is held by %s", relay->stranger);
    if (*relay->trouble)
        sheet_say(s->sheet, "", "WAITS: %s; the ledger keeps the events. %s", relay->trouble,
                  helps_relay(relay->trouble));
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
    sheet_add(s->sheet, "unpublished_about", NULL, value_i64(relay->above + relay->gap_ids));
    sheet_add(s->sheet, "relay_leader", NULL, value_text_or_null(relay->leads ? relay->leader : NULL));
    sheet_add(s->sheet, "relay_last_leader", NULL, value_text_or_null(relay->leader));
    sheet_add(s->sheet, "relay_lock_held_by", NULL, value_text_or_null(relay->stranger));
    const char *since = strstr(relay->trouble, " since ");
    CLEANUP(freep) char *trouble = since ? xstrndup(relay->trouble, (size_t) (since - relay->trouble)) : NULL;
    sheet_add(s->sheet, "relay_waits_for", NULL, value_text_or_null(trouble ? trouble : relay->trouble));
    sheet_add(s->sheet, "relay_waits_since", NULL, value_text(since ? since + strlen(" since ") : NULL));
    sheet_add(s->sheet, "relay_updated_at", NULL, value_time(relay->updated_at));
    sheet_add(s->sheet, "relay_stopped_on", NULL, value_i64_or_null(relay->stopped_on, 0));
    sheet_add(s->sheet, "relay_stopped_reason", NULL,
              value_text(relay->stopped_on ? relay->stopped_reason : NULL));
}

static void add_partitions(struct status *s)
{
    const struct store_overview *o = &s->overview;
    CLEANUP(freep) char *at = o->dropped_id ? time_words(o->dropped_at) : NULL;

    sheet_say(s->sheet, "ledger", "%" PRId64 " partition%s ahead%s%s%s", o->partitions_ahead,
              plural(o->partitions_ahead),
              o->default_partition_used
                  ? "; ids are in the default partition: partitions ran out, or ids were left out, once"
                  : "",
              at ? "; older events have left the ledger, the last of " : "", at ? at : "");
    sheet_add(s->sheet, "ledger_dropped_up_to", NULL, value_i64_or_null(o->dropped_id, 0));
    sheet_add(s->sheet, "ledger_since", NULL, o->dropped_id ? value_time(o->dropped_at) : value_null());
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

static void add_unrouted(struct status *s)
{
    bool is_least = s->limit && s->unrouted >= s->limit;

    sheet_add(s->sheet, "unrouted", "unrouted",
              value_words(value_i64(s->unrouted), "%" PRId64 "%s", s->unrouted, is_least ? "+" : ""));
}

static void add_alerts(struct status *s)
{
    sheet_add(s->sheet, "alerts_firing", "alerts",
              value_words(value_i64(s->alerts),
                          s->alerts ? "%" PRId64 " firing: see \"anubisctl alerts\"" : "none", s->alerts));
}

static void add_consumers(struct status *s)
{
    static const struct table_column columns[] = {
        {"consumer_group", "GROUP", false}, {"topic", "TOPIC", false},
        {"partitions", "PARTS", true},      {"messages_read", "READ", true},
        {"behind", "BEHIND", true},         {"foreign_messages", "FOREIGN", true},
        {"unknown_events", NULL, true},     {"updated_at", "LAST READ", false},
    };
    struct table *t = sheet_table(s->sheet, "consumers", "Consumers", "none has read a message yet", columns,
                                  ARRAY_SIZE(columns));

    table_make_sections(t, "consumer_group");
    table_make_elastic(t, "topic");
    for (int i = 0; i < pg_rows(s->lags); i++) {
        struct pg_row row = {s->lags, i, 0};
        table_add(t, value_text(pg_next_text(&row)));
        table_add(t, value_text(pg_next_text(&row)));
        table_add(t, value_i64(pg_next_i64(&row)));
        table_add(t, value_i64(pg_next_i64(&row)));
        table_add(t, value_i64(pg_next_i64(&row)));
        table_add(t, value_i64(pg_next_i64(&row)));
        table_add(t, value_i64(pg_next_i64(&row)));
        int64_t at = pg_next_time(&row);
        CLEANUP(freep) char *ago = duration_words(s->overview.now - MAX(at, 0));
        table_add(t, at < 0 ? value_null() : value_words(value_time(at), "%s ago", ago));
    }
}

static void add_clocks(struct status *s)
{
    static const struct table_column columns[] = {{"daemon", "DAEMON", false},
                                                  {"ahead_seconds", "CLOCK OF ITS MACHINE", false}};

    if (pg_rows(s->clocks) == 0 && !s->ctl->json)
        return;
    struct table *t = sheet_table(s->sheet, "clocks_differ", "CLOCKS DIFFER from the database server's",
                                  "none", columns, ARRAY_SIZE(columns));
    for (int i = 0; i < pg_rows(s->clocks); i++) {
        struct pg_row row = {s->clocks, i, 0};
        table_add(t, value_text_or_null(pg_next_text(&row)));
        int64_t ahead = pg_next_i64(&row);
        CLEANUP(freep) char *far = duration_words(imaxabs(ahead) * (int64_t) USEC_PER_SEC);
        table_add(t, value_words(value_i64(ahead), "%s %s", far, ahead < 0 ? "behind" : "ahead"));
        table_remark(t, "set the one that is wrong; a time server keeps both right (timedatectl)");
    }
}

static void fill(struct status *s)
{
    add_head(s);
    fleet_add_backlog(&s->fleet, s->sheet, !pg_is_null(s->refused, 0, 0));
    add_unrouted(s);
    add_alerts(s);
    add_relay(s);
    add_partitions(s);
    add_snapshot(s);
    sheet_empty_line(s->sheet);
    if (pg_rows(s->results) > 0 || s->ctl->json)
        results_add(s->sheet, s->results);
    add_clocks(s);
    fleet_add(&s->fleet, s->sheet, s->ctl->json);
    sheet_empty_line(s->sheet);
    add_states(s);
    sheet_empty_line(s->sheet);
    add_consumers(s);
    letters_add_stops(s->sheet, s->stops);
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
    pg_result_free(s.stops);
    pg_result_free(s.results);
    pg_result_free(s.clocks);
    pg_result_free(s.snapshot.result);
    fleet_free(&s.fleet);
    pg_result_free(s.states);
    pg_result_free(s.refused);
    pg_result_free(s.overview.result);
    sheet_free(s.sheet);
    pg_close(s.pg);
    return code;
}
