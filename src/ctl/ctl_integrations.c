/* anubisctl integrations: every integration, and what is set for it. What becomes of their subscriptions is
 * in "anubisctl status". */
#include <string.h>

#include "ctl/ctl.h"
#include "sql/statements.h"

static const char *state_word(bool enabled, int64_t paused_until, const char *circuit, int64_t backoff_until)
{
    if (!enabled)
        return "disabled";
    if (paused_until != INT64_MIN)
        return "paused";
    if (strcmp(circuit, "closed") != 0)
        return strcmp(circuit, "open") == 0 ? "circuit open" : "half open";
    return backoff_until != INT64_MIN ? "waits" : "ok";
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

/* Why nothing is sent to it, and what is set for it alone. */
static void remark(struct table *t, const char *reason, struct strbuf *set, const char *settings)
{
    if (*settings)
        strbuf_addf(set, "%s%s", set->len ? ", " : "", settings);
    if (*reason)
        table_remark(t, "%s", reason);
    if (set->len)
        table_remark(t, "set: %s", strbuf_str(set));
}

static void add(struct table *t, struct pg_row row)
{
    CLEANUP(strbuf_free) struct strbuf set = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    table_add(t, value_i64(pg_next_i64(&row)));
    table_add(t, value_text(pg_next_text(&row)));
    bool enabled = pg_next_bool(&row);
    int64_t paused_until = pg_next_time(&row);
    const char *pause_reason = pg_next_text(&row), *circuit = pg_next_text(&row);
    int64_t backoff_until = pg_next_time(&row);
    const char *backoff_reason = pg_next_text(&row);
    bool is_paused = paused_until != INT64_MIN;

    table_add(t, value_text(state_word(enabled, paused_until, circuit, backoff_until)));
    table_add(t, value_bool(enabled));
    table_add(t, value_text(circuit));
    table_add(t, value_bool(is_paused));
    table_add(t, value_time(paused_until));
    table_add(t, value_text(is_paused && *pause_reason ? pause_reason : NULL));
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
    remark(t,
           !enabled                     ? ""
           : is_paused                  ? pause_reason
           : backoff_until != INT64_MIN ? backoff_reason
                                        : "",
           &set, settings);
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
