/* anubisctl integrations: every integration, and what is set for it. What becomes of their subscriptions is
 * in "anubisctl status". */
#include "ctl/circuit_words.h"
#include "ctl/ctl.h"
#include "sql/statements.h"

/* What decides whether anything is sent to it. */
struct way {
    bool enabled;
    int64_t paused_until;
    const char *pause_reason;
    struct store_circuit_view circuit;
    int64_t backoff_until;
    const char *backoff_reason;
    int64_t now;
};

static void read_way(struct pg_row *row, struct way *ret)
{
    ret->enabled = pg_next_bool(row);
    ret->paused_until = pg_next_time(row);
    ret->pause_reason = pg_next_text(row);
    store_circuit_view(row, &ret->circuit);
    ret->backoff_until = pg_next_time(row);
    ret->backoff_reason = pg_next_text(row);
    ret->now = pg_next_time(row);
}

static const char *state_word(const struct way *w)
{
    if (!w->enabled)
        return "disabled";
    if (w->paused_until != INT64_MIN)
        return "paused";
    if (!circuit_is_closed(&w->circuit))
        return circuit_state_word(&w->circuit);
    return w->backoff_until != INT64_MIN ? "waits" : "ok";
}

/* Why nothing is sent to it, and until when. */
static void remark_way(struct table *t, const struct way *w)
{
    CLEANUP(strbuf_free) struct strbuf words = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    if (!w->enabled)
        return;
    if (w->paused_until != INT64_MIN) {
        strbuf_adds(&words, w->pause_reason);
    } else if (!circuit_is_closed(&w->circuit)) {
        strbuf_adds(&words, "its ");
        circuit_add_words(&words, &w->circuit, w->now);
    } else if (w->backoff_until != INT64_MIN) {
        CLEANUP(freep) char *at = time_words(w->backoff_until);
        CLEANUP(freep) char *in = duration_words(w->backoff_until - w->now);
        strbuf_addf(&words, "until %s (in %s): %s", at, in, w->backoff_reason);
    }
    if (words.len)
        table_remark(t, "%s", strbuf_str(&words));
}

/* A number for JSON, and words of it for people, where it is set. */
static void add_limit(struct table *t, struct pg_row *row, struct strbuf *set, const char *before,
                      const char *unit)
{
    bool is_null = pg_next_is_null(row);
    const char *number = pg_next_text(row);

    table_add(t, is_null ? value_null() : value_json(number));
    if (!is_null)
        strbuf_addf(set, "%s%s%s%s", set->len ? ", " : "", before, number, unit);
}

/* What is set for it alone. */
static void remark_set(struct table *t, struct strbuf *set, const char *settings)
{
    if (*settings)
        strbuf_addf(set, "%s%s", set->len ? ", " : "", settings);
    if (set->len)
        table_remark(t, "set: %s", strbuf_str(set));
}

static void add(struct table *t, struct pg_row row)
{
    CLEANUP(strbuf_free) struct strbuf set = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    struct way way;

    table_add(t, value_i64(pg_next_i64(&row)));
    table_add(t, value_text(pg_next_text(&row)));
    read_way(&row, &way);
    bool is_paused = way.paused_until != INT64_MIN;

    table_add(t, value_text(state_word(&way)));
    table_add(t, value_bool(way.enabled));
    table_add(t, value_text(way.circuit.state));
    table_add(t, value_bool(is_paused));
    table_add(t, value_time(way.paused_until));
    table_add(t, value_text(is_paused && *way.pause_reason ? way.pause_reason : NULL));
    table_add(t, value_text_or_null(pg_next_text(&row)));
    table_add(t, value_text_or_null(pg_next_text(&row)));
    add_limit(t, &row, &set, "timeout ", " ms");
    add_limit(t, &row, &set, "", " at once");
    add_limit(t, &row, &set, "", " a second");
    add_limit(t, &row, &set, "", " attempts");
    const char *settings = pg_next_text(&row);
    table_add(t, value_text_or_null(settings));
    table_add(t, value_i64(pg_next_i64(&row)));
    table_add(t, value_i64(pg_next_i64(&row)));
    table_add(t, value_time(circuit_is_closed(&way.circuit) ? INT64_MIN : way.circuit.until));
    remark_way(t, &way);
    remark_set(t, &set, settings);
}

static int show(struct ctl *c, const struct pg_result *rows)
{
    static const struct table_column columns[] = {
        {"id", "ID", true},
        {"name", "NAME", false},
        {"state", "STATE", false},
        {"enabled", NULL, false},
        {"circuit_state", NULL, false},
        {"paused", NULL, false},
        {"paused_until", NULL, false},
        {"pause_reason", NULL, false},
        {"auth", "AUTH", false},
        {"endpoint", "ENDPOINT", false},
        {"timeout_ms", NULL, true},
        {"max_in_flight", NULL, true},
        {"rate_limit", NULL, true},
        {"max_attempts", NULL, true},
        {"settings", NULL, false},
        {"sent", NULL, true},
        {"failed", NULL, true},
        {"next_probe_at", NULL, false},
    };
    struct sheet *sheet;

    sheet_new(&sheet);
    struct table *t =
        sheet_table(sheet, "integrations", "Integrations", "none", columns, ARRAY_SIZE(columns));
    table_make_elastic(t, "name");
    for (int i = 0; i < pg_rows(rows); i++)
        add(t, (struct pg_row){rows, i, 0});
    int code = ctl_show(c, sheet, 0);
    sheet_free(sheet);
    return code;
}

int ctl_integrations(struct ctl *c)
{
    struct pg_params params = ctl_session(c, "anubisctl integrations");
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    struct pg *pg = NULL;
    struct error err;

    int code = ctl_connect(c, &params, &pg);
    if (code)
        return code;
    int r = pg_query(pg, &sql_integrations_list, NULL, &rows, &err);
    code = r == PG_DONE ? show(c, rows) : ctl_refused(r, "read the integrations", &err);
    pg_close(pg);
    return code;
}
