/* Which dead letters a command works on, and groups that have stopped for them. See letters.h. */
#include <inttypes.h>
#include <string.h>
#include <sysexits.h>

#include "base/timeutil.h"
#include "ctl/letters.h"
#include "sql/statements.h"

static int read_ids(const struct ctl *c, int64_t **ret)
{
    int code = 0;

    *ret = xcalloc((size_t) c->arg_count, sizeof(**ret));
    for (int i = 1; !code && i < c->arg_count; i++)
        code = ctl_read_id(c->args[i], "a dead letter's", &(*ret)[i - 1]);
    return code;
}

int letters_choose(struct ctl *c, struct pg *pg, int64_t **ret, size_t *ret_count)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    CLEANUP(freep) int64_t *ids = NULL;
    struct error err;
    int code = read_ids(c, &ids);

    if (code)
        return code;
    pg_arg_i64s(&args, ids, sizeof(*ids), (size_t) c->arg_count - 1);
    pg_arg_text(&args, c->stats.group);
    pg_arg_bool(&args, strcmp(c->args[0], "replay") == 0);
    int r = pg_query(pg, &sql_letters_chosen, &args, &rows, &err);
    if (r != PG_DONE)
        return ctl_refused(r, "read the dead letters", &err);
    *ret_count = (size_t) pg_rows(rows);
    *ret = xcalloc(*ret_count + 1, sizeof(**ret));
    for (size_t i = 0; i < *ret_count; i++) {
        (*ret)[i] = pg_get_i64(rows, (int) i, 0);
        if (pg_is_null(rows, (int) i, 1))
            continue;
        ctl_say("dead letter %" PRId64 " %s; nothing was done", (*ret)[i], pg_get_text(rows, (int) i, 1));
        code = CTL_DIFFERENT;
    }
    return code;
}

void letters_add_stops(struct sheet *sheet, const struct pg_result *rows)
{
    static const struct table_column columns[] = {{"group", "GROUP", false},
                                                  {"since", "SINCE", false},
                                                  {"passes_until", NULL, false},
                                                  {"reason", "WHY", false}};
    struct table *t = pg_rows(rows) > 0 ? sheet_table(sheet, "stopped", "Groups that have stopped", "none",
                                                      columns, ARRAY_SIZE(columns))
                                        : NULL;

    for (int i = 0; i < pg_rows(rows); i++) {
        struct pg_row row = {rows, i, 0};
        const char *group = pg_next_text(&row), *reason = pg_next_text(&row);
        table_add(t, value_text(group));
        table_add(t, value_time(pg_next_time(&row)));
        int64_t until = pg_next_time(&row);
        table_add(t, value_time(until));
        table_add(t, value_text(reason));
        const char *command = pg_next_text(&row);
        if (until != INT64_MIN)
            table_remark(t, "it goes on, and what it cannot handle is put aside");
        else if (*command)
            table_remark(t, "anubisctl %s", command);
        else
            table_remark(t, "anubisctl resume --group %s", group);
    }
    if (t)
        table_make_elastic(t, "reason");
}
