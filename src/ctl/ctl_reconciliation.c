/* anubisctl report --reconciliation: what institutions have said of what was sent. See reconciliation.sql. */
#include <inttypes.h>
#include <stdio.h>
#include <sysexits.h>

#include "ctl/ctl.h"
#include "sql/statements.h"

#define CASES_MAX 100

static const struct table_column columns[] = {
    {"integration_id", "ID", true},        {"name", "NAME", false},
    {"expected", "EXPECTED", true},        {"overdue", "OVERDUE", true},
    {"confirmed", "CONFIRMED", true},      {"rejected", "REJECTED", true},
    {"not_sent", "NOT SENT", true},        {"sent_but_rejected", "SENT, REJECTED", true},
    {"contradicted", "CONTRADICTED", true}};
#define COUNTS 2 /* the first column behind those that name the integration */

static const struct table_column case_columns[] = {{"subscription_id", "SUBSCRIPTION", true},
                                                   {"integration_id", "INTEGRATION", true},
                                                   {"status", "STATUS", false},
                                                   {"confirmation", "CONFIRMATION", false},
                                                   {"expected_by", "BY", false},
                                                   {"contradictions", "CONTRADICTIONS", true}};

static void add_counts(struct table *t, const struct pg_result *rows, int row)
{
    for (int column = COUNTS; column < (int) ARRAY_SIZE(columns); column++)
        table_add(t, value_i64(pg_get_i64(rows, row, column)));
}

static void add_integrations(struct sheet *sheet, const struct pg_result *rows)
{
    int last = pg_rows(rows) - 1;
    struct table *t = sheet_table(sheet, "integrations", "Integrations", "nothing is to be confirmed",
                                  columns, ARRAY_SIZE(columns));

    table_make_elastic(t, "name");
    for (int i = 0; i < last; i++) {
        struct pg_row row = {rows, i, 0};
        table_add(t, value_i64_or_null(pg_next_i64(&row), 0));
        table_add(t, value_text_or_null(pg_next_text(&row)));
        add_counts(t, rows, i);
    }
    sheet_empty_line(sheet);
    t = sheet_table(sheet, "total", "All of them", "none", columns + COUNTS, ARRAY_SIZE(columns) - COUNTS);
    add_counts(t, rows, last);
}

static void add_cases(struct sheet *sheet, const struct pg_result *rows)
{
    int named = pg_rows(rows);
    struct table *t =
        sheet_table(sheet, "cases", "To be looked at", "none", case_columns, ARRAY_SIZE(case_columns));

    sheet_add(sheet, "case_count", NULL, value_i64(named ? pg_get_i64(rows, 0, 6) : 0));
    for (int i = 0; i < named; i++) {
        struct pg_row row = {rows, i, 0};
        table_add(t, value_i64(pg_next_i64(&row)));
        table_add(t, value_i64_or_null(pg_next_i64(&row), 0));
        table_add(t, value_text_or_null(pg_next_text(&row)));
        table_add(t, value_text(pg_next_text(&row)));
        table_add(t, value_time(pg_next_time(&row)));
        table_add(t, value_i64(pg_next_i64(&row)));
    }
    if (named && pg_get_i64(rows, 0, 6) > named)
        sheet_say(sheet, NULL, "and %" PRId64 " more", pg_get_i64(rows, 0, 6) - named);
}

static int show_csv(const struct pg_result *rows)
{
    for (size_t i = 0; i < ARRAY_SIZE(columns); i++)
        printf("%s%s", i ? "," : "", columns[i].key);
    for (int i = 0; i < pg_rows(rows) - 1; i++) {
        struct pg_row row = {rows, i, 0};
        int64_t id = pg_next_i64(&row);
        printf("\r\n%" PRId64 ",", id);
        ctl_print_csv(pg_next_text(&row));
        for (int column = COUNTS; column < (int) ARRAY_SIZE(columns); column++)
            printf(",%" PRId64, pg_get_i64(rows, i, column));
    }
    fputs("\r\n", stdout);
    if (fflush(stdout) == EOF || ferror(stdout)) {
        ctl_say("could not write the answer");
        return EX_IOERR;
    }
    return 0;
}

static int show(struct ctl *c, const struct pg_result *rows, const struct pg_result *cases)
{
    struct sheet *sheet;

    sheet_new(&sheet);
    add_integrations(sheet, rows);
    sheet_empty_line(sheet);
    add_cases(sheet, cases);
    int code = ctl_show(c, sheet, 0);
    sheet_free(sheet);
    return code;
}

int ctl_reconcile(struct ctl *c, bool csv)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    CLEANUP(pg_result_freep) struct pg_result *cases = NULL;
    struct pg_params params = ctl_session(c, "anubisctl report");
    struct pg *pg = NULL;
    struct error err;

    params.statement_timeout_usec = 0;
    int code = ctl_read_part(c, NULL, NULL, &args);
    if (!code)
        code = ctl_connect(c, &params, &pg);
    if (!code)
        code = ctl_check_part(c, pg, NULL, NULL);
    if (code) {
        pg_close(pg);
        return code;
    }
    int r = pg_query(pg, &sql_reconciliation, &args, &rows, &err);
    pg_arg_i64(&args, CASES_MAX);
    if (r == PG_DONE)
        r = pg_query(pg, &sql_reconciliation_cases, &args, &cases, &err);
    pg_close(pg);
    if (r != PG_DONE)
        return ctl_refused(r, "read the report", &err);
    return csv ? show_csv(rows) : show(c, rows, cases);
}
