/* anubisctl report: what happened to each integration in a period, from integration_stats. See report.sql. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/timeutil.h"
#include "ctl/ctl.h"
#include "sql/statements.h"

#define SINCE_DEFAULT "24h"
#define UNTIL_DEFAULT "0s"

/* Columns of report.sql. */
enum { ID, NAME, CREATED, SUCCESS = CREATED + 5, DELIVERY, HTTP = DELIVERY + 3, SINCE = HTTP + 3, UNTIL };

static const char *const names[] = {
    [ID] = "integration_id",
    [NAME] = "name",
    [CREATED] = "created",
    "sent",
    "failed",
    "retried",
    "attempts",
    [SUCCESS] = "success_rate",
    [DELIVERY] = "delivery_ms_p50",
    "delivery_ms_p95",
    "delivery_ms_p99",
    [HTTP] = "http_ms_p50",
    "http_ms_p95",
    "http_ms_p99",
};

/* --- table and JSON --------------------------------------------------------------------------- */

static const char *known(const struct pg_result *rows, int row, int column)
{
    return pg_is_null(rows, row, column) ? NULL : pg_get_text(rows, row, column);
}

static struct value success(const char *share)
{
    return share ? value_words(value_json(share), "%.2f %%", 100 * strtod(share, NULL)) : value_null();
}

static void add_ms(struct strbuf *words, const char *ms)
{
    double value = strtod(ms, NULL);

    strbuf_addf(words, "%s%.*f", words->len ? " / " : "", value < 10 ? 1 : 0, value);
}

static struct value percentiles(const struct pg_result *rows, int row, int column)
{
    CLEANUP(strbuf_free) struct strbuf json = STRBUF_INIT(256);
    CLEANUP(strbuf_free) struct strbuf words = STRBUF_INIT(256);
    static const char *const keys[] = {"p50", "p95", "p99"};

    strbuf_addc(&json, '{');
    for (int i = 0; i < 3; i++) {
        const char *ms = known(rows, row, column + i);
        strbuf_addf(&json, "%s\"%s\":%s", i ? "," : "", keys[i], ms ? ms : "null");
        if (ms)
            add_ms(&words, ms);
    }
    strbuf_addc(&json, '}');
    return value_words(value_json(strbuf_str(&json)), "%s", strbuf_str(&words));
}

/* The columns behind those that name the integration. */
static void add_facts(struct table *t, const struct pg_result *rows, int row)
{
    for (int column = CREATED; column < SUCCESS; column++)
        table_add(t, value_json(pg_get_text(rows, row, column)));
    table_add(t, success(known(rows, row, SUCCESS)));
    table_add(t, percentiles(rows, row, DELIVERY));
    table_add(t, percentiles(rows, row, HTTP));
}

static const struct table_column columns[] = {
    {"integration_id", "ID", true}, {"name", "NAME", false},           {"created", "CREATED", true},
    {"sent", "SENT", true},         {"failed", "FAILED", true},        {"retried", "RETRIED", true},
    {"attempts", "ATTEMPTS", true}, {"success_rate", "SUCCESS", true}, {"delivery_ms", "DELIVERY ms", true},
    {"http_ms", "HTTP ms", true}};

/* The last row is that of all integrations. */
static int show_sheet(struct ctl *c, const struct pg_result *rows)
{
    struct pg_row period = {rows, 0, SINCE};
    struct sheet *sheet;
    int last = pg_rows(rows) - 1;

    sheet_new(&sheet);
    sheet_add(sheet, "since", "since", value_time(pg_next_time(&period)));
    sheet_add(sheet, "until", "until", value_time(pg_next_time(&period)));
    sheet_empty_line(sheet);
    struct table *t = sheet_table(sheet, "integrations", "Integrations (milliseconds: p50 / p95 / p99)",
                                  "nothing happened", columns, ARRAY_SIZE(columns));
    table_make_elastic(t, "name");
    for (int row = 0; row < last; row++) {
        table_add(t, value_i64(pg_get_i64(rows, row, ID)));
        table_add(t, value_text(known(rows, row, NAME)));
        add_facts(t, rows, row);
    }
    sheet_empty_line(sheet);
    t = sheet_table(sheet, "total", "All of them", "none", columns + CREATED, ARRAY_SIZE(columns) - CREATED);
    add_facts(t, rows, last);
    int code = ctl_show(c, sheet, 0);
    sheet_free(sheet);
    return code;
}

/* --- CSV -------------------------------------------------------------------------------------- */

static int show_csv(const struct pg_result *rows)
{
    for (size_t i = 0; i < ARRAY_SIZE(names); i++)
        printf("%s%s", i ? "," : "", names[i]);
    for (int row = 0; row < pg_rows(rows) - 1; row++) {
        printf("\r\n%" PRId64 ",", pg_get_i64(rows, row, ID));
        ctl_print_csv(pg_get_text(rows, row, NAME));
        for (int column = CREATED; column < SINCE; column++)
            printf(",%s", pg_get_text(rows, row, column));
    }
    fputs("\r\n", stdout);
    if (fflush(stdout) == EOF || ferror(stdout)) {
        ctl_say("could not write the answer");
        return EX_IOERR;
    }
    return 0;
}

/* --- the command ------------------------------------------------------------------------------ */

/* JSON by --format is the same as by --json. */
static int read_format(struct ctl *c, bool *ret_csv)
{
    const char *format = c->stats.format ? c->stats.format : c->json ? "json" : "table";

    *ret_csv = strcmp(format, "csv") == 0;
    if (strcmp(format, "json") == 0)
        c->json = true;
    else if ((*ret_csv || strcmp(format, "table") == 0) && !c->json)
        return 0;
    else {
        ctl_say("--format takes table, json or csv, not \"%s\"%s", format, c->json ? " beside --json" : "");
        return EX_USAGE;
    }
    return 0;
}

int ctl_report(struct ctl *c)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    struct pg_params params = ctl_session(c, "anubisctl report");
    struct pg *pg = NULL;
    struct error err;
    bool csv;

    int code = read_format(c, &csv);
    if (!code && c->stats.reconciliation)
        return ctl_reconcile(c, csv);
    if (!code)
        code = ctl_read_part(c, SINCE_DEFAULT, UNTIL_DEFAULT, &args);
    if (!code)
        code = ctl_connect(c, &params, &pg);
    if (!code)
        code = ctl_check_part(c, pg, SINCE_DEFAULT, UNTIL_DEFAULT);
    if (code) {
        pg_close(pg);
        return code;
    }
    int r = pg_query(pg, &sql_report, &args, &rows, &err);
    if (r == PG_DONE && pg_rows(rows) <= 1 && c->choice.integration)
        code = ctl_name_missing(pg, strtoll(c->choice.integration, NULL, 10));
    pg_close(pg);
    if (r != PG_DONE)
        return ctl_refused(r, "read the report", &err);
    if (code)
        return code;
    return csv ? show_csv(rows) : show_sheet(c, rows);
}
