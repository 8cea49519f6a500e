/* anubisctl alerts list: what fires, what is silenced, and who is still to be told. Changes nothing. */
#include "ctl/alert_actions.h"
#include "sql/statements.h"

static struct value number_or_null(const char *text)
{
    return *text ? value_json(text) : value_null();
}

static void add_alert(struct table *t, struct pg_row row)
{
    int64_t id = pg_next_i64(&row);
    table_add(t, value_i64(id));
    table_add(t, value_text(pg_next_text(&row)));
    int64_t integration_id = pg_next_i64(&row);
    const char *name = pg_next_text(&row);
    table_add(t, value_i64_or_null(integration_id, 0));
    table_add(t, value_text_or_null(name));
    table_add(t, value_text(pg_next_text(&row)));
    table_add(t, number_or_null(pg_next_text(&row)));
    table_add(t, number_or_null(pg_next_text(&row)));
    const char *message = pg_next_text(&row);
    table_add(t, value_text(message));
    table_add(t, value_time(pg_next_time(&row)));
    table_add(t, value_time(pg_next_time(&row)));
    table_add(t, value_time(pg_next_time(&row)));
    table_add(t, value_time(pg_next_time(&row)));
    const char *by = pg_next_text(&row), *quiet = pg_next_text(&row);
    table_add(t, value_text_or_null(by));
    table_add(t, value_text_or_null(quiet));
    table_remark(t, "%s%s%s", message,
                 *by      ? "; no repeats: acknowledged by "
                 : *quiet ? "; no repeats: "
                          : "",
                 *by ? by : quiet);
}

static void add_alerts(struct sheet *sheet, const struct pg_result *rows)
{
    static const struct table_column columns[] = {
        {"id", "ID", true},
        {"kind", "KIND", false},
        {"integration_id", "INTEGRATION", true},
        {"integration", "NAME", false},
        {"state", "STATE", false},
        {"value", NULL, true},
        {"threshold", NULL, true},
        {"message", NULL, false}, /* what helps stands at its end: people have it in a line of its own */
        {"started_at", "SINCE", false},
        {"resolved_at", "OVER SINCE", false},
        {"last_notified_at", NULL, false},
        {"acknowledged_at", NULL, false},
        {"acknowledged_by", NULL, false},
        {"quiet", NULL, false},
    };
    struct table *t = sheet_table(sheet, "alerts", "Alerts", "none fires, or was over within the last day",
                                  columns, ARRAY_SIZE(columns));

    for (int i = 0; i < pg_rows(rows); i++)
        add_alert(t, (struct pg_row){rows, i, 0});
    table_make_elastic(t, "integration");
}

static void add_silences(struct sheet *sheet, const struct pg_result *rows)
{
    static const struct table_column columns[] = {{"integration_id", "INTEGRATION", true},
                                                  {"integration", "NAME", false},
                                                  {"kind", "KIND", false},
                                                  {"until", "UNTIL", false},
                                                  {"reason", "BECAUSE", false}};
    struct table *t = sheet_table(sheet, "silences", "Silences", "none", columns, ARRAY_SIZE(columns));

    for (int i = 0; i < pg_rows(rows); i++) {
        struct pg_row row = {rows, i, 0};
        table_add(t, value_i64(pg_next_i64(&row)));
        table_add(t, value_text(pg_next_text(&row)));
        const char *kind = pg_next_text(&row);
        table_add(t, *kind ? value_text(kind) : value_words(value_null(), "all"));
        table_add(t, value_time(pg_next_time(&row)));
        table_add(t, value_text(pg_next_text(&row)));
    }
    table_make_elastic(t, "reason");
}

static void add_behind(struct sheet *sheet, const struct pg_result *rows)
{
    static const struct table_column columns[] = {{"sink", "SINK", false},
                                                  {"waiting", "WAITING", true},
                                                  {"since", "SINCE", false},
                                                  {"error", "BECAUSE", false}};
    struct table *t = sheet_table(sheet, "sinks_behind", "Sinks that are still to be told", "none", columns,
                                  ARRAY_SIZE(columns));

    for (int i = 0; i < pg_rows(rows); i++) {
        struct pg_row row = {rows, i, 0};
        table_add(t, value_text(pg_next_text(&row)));
        table_add(t, value_i64(pg_next_i64(&row)));
        table_add(t, value_time(pg_next_time(&row)));
        table_add(t, value_text_or_null(pg_next_text(&row)));
    }
    table_make_elastic(t, "error");
}

int alert_list(struct ctl *c)
{
    static const struct {
        const struct pg_statement *statement;
        void (*add)(struct sheet *sheet, const struct pg_result *rows);
    } parts[] = {{&sql_alerts_list, add_alerts},
                 {&sql_alerts_silences, add_silences},
                 {&sql_alerts_behind, add_behind}};
    struct pg_params params = ctl_session(c, "anubisctl alerts");
    struct sheet *sheet;
    struct pg *pg = NULL;
    struct error err;
    int r = PG_DONE;

    int code = ctl_connect(c, &params, &pg);
    if (code)
        return code;
    sheet_new(&sheet);
    for (size_t i = 0; r == PG_DONE && i < ARRAY_SIZE(parts); i++) {
        CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
        r = pg_query(pg, parts[i].statement, NULL, &rows, &err);
        if (i > 0)
            sheet_empty_line(sheet);
        if (r == PG_DONE)
            parts[i].add(sheet, rows);
    }
    pg_close(pg);
    code = r == PG_DONE ? ctl_show(c, sheet, 0) : ctl_refused(r, "read the alerts", &err);
    sheet_free(sheet);
    return code;
}
