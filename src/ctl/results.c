/* Results that the database refuses. See results.h. */
#include "ctl/results.h"

#include <inttypes.h>
#include <string.h>

const char *results_refusal_words(const char *sqlstate)
{
    /* The first that begins like it. */
    static const char *const words[][2] = {
        {"23505", "a unique index does not take it"},
        {"23514", "a CHECK constraint does not take it"},
        {"23503", "a foreign key does not take it"},
        {"23502", "a column that is NOT NULL would be NULL"},
        {"23", "a constraint does not take it"},
        {"22", "a column does not take one of its values"},
        {"54", "it is beyond a limit of the server"},
        {"P0ANB", "a trigger of the application changes what is written"},
        {"55006", "a trigger of the application changes what is written"},
        {"P0", "a trigger of the application raises an error"},
        {"08", "the session ends whenever it is written"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(words); i++)
        if (strncmp(sqlstate, words[i][0], strlen(words[i][0])) == 0)
            return words[i][1];
    return "the journal tells why";
}

void results_add(struct sheet *sheet, const struct pg_result *rows)
{
    static const struct table_column columns[] = {
        {"daemon", "DAEMON", false},
        {"results", "RESULTS", true},
        {"subscription_id", "SUBSCRIPTION", true},
        {"integration_id", NULL, true},
        {"integration_name", "INTEGRATION", false},
        {"sqlstate", "SQLSTATE", false},
    };
    struct table *t = sheet_table(sheet, "results_refused", "Results that the database refuses", "none",
                                  columns, ARRAY_SIZE(columns));

    table_make_elastic(t, "integration_name");
    for (int i = 0; i < pg_rows(rows); i++) {
        struct pg_row row = {rows, i, 0};
        table_add(t, value_text_or_null(pg_next_text(&row)));
        table_add(t, value_i64(pg_next_i64(&row)));
        int64_t id = pg_next_i64(&row);
        table_add(t, value_i64(id));
        table_add(t, value_i64_or_null(pg_next_i64(&row), 0));
        table_add(t, value_text_or_null(pg_next_text(&row)));
        const char *sqlstate = pg_next_text(&row);
        table_add(t, value_text(sqlstate));
        table_remark(t, "%s; the daemon keeps it, and tries again: \"anubisctl explain %" PRId64 "\"",
                     results_refusal_words(sqlstate), id);
    }
}
