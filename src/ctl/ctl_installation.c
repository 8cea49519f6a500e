/* anubisctl installation: whose database this is, and what it becomes after it was copied or moved. */
#include "ctl/ctl.h"

#include <string.h>

#include "sql/statements.h"

/* Leaves the transaction open when it succeeds. */
static int settle(struct ctl *c, struct pg *pg, int64_t *ret_disabled, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    int r = pg_execute(pg, "begin", err);

    pg_arg_bool(&args, c->identity.copy);
    return r == PG_DONE ? pg_query_i64(pg, &sql_installation_settle, &args, ret_disabled, err) : r;
}

/* Of what sql_installation_names answers. */
enum { ELSEWHERE, OF_EVENTS, OF_THE_ROW };

static bool has_changed(const struct pg_result *before, const struct pg_result *now, int name)
{
    return strcmp(pg_get_text(before, 0, name), pg_get_text(now, 0, name)) != 0;
}

static void say_same(const struct pg_result *before, const struct pg_result *now, struct sheet *sheet)
{
    if (pg_get_bool(before, 0, ELSEWHERE) || has_changed(before, now, OF_EVENTS))
        sheet_say(
            sheet, "",
            "Daemons go on here, under the name of the former database. Where that is still in use, end its "
            "daemons now, and make this one a copy (\"--copy\"): both would send the same subscriptions and "
            "publish under one name.");
    else if (has_changed(before, now, OF_THE_ROW))
        sheet_say(sheet, "",
                  "The table \"installation\" has the name again that events and keys have: daemons go on.");
    else
        sheet_say(sheet, "", "It was last used here already: nothing had to be said.");
}

static int show(struct ctl *c, struct pg *pg, int64_t disabled, const struct pg_result *before,
                struct error *err, int *ret_code)
{
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL, *names = NULL, *refused = NULL;
    int r = pg_query(pg, &sql_installation_show, NULL, &rows, err);

    if (r == PG_DONE)
        r = pg_query(pg, &sql_installation_names, NULL, &names, err);
    if (r == PG_DONE)
        r = pg_query(pg, &sql_status_refused, NULL, &refused, err);
    if (r != PG_DONE)
        return r;
    struct pg_row row = {rows, 0, 0};
    struct sheet *sheet;
    sheet_new(&sheet);
    sheet_add(sheet, "installation", "installation", value_text(pg_next_text(&row)));
    sheet_add(sheet, "created_at", "since", value_time(pg_next_time(&row)));
    bool elsewhere = pg_next_bool(&row);
    sheet_add(sheet, "database", "database", value_text(pg_next_text(&row)));
    sheet_add(sheet, "elsewhere", NULL, value_bool(elsewhere));
    sheet_add(sheet, "enabled", "enabled integrations", value_i64(pg_next_i64(&row)));
    if (c->identity.same || c->identity.copy)
        sheet_add(sheet, "disabled", c->identity.copy ? "disabled now" : NULL, value_i64(disabled));
    if (c->identity.same)
        say_same(before, names, sheet);
    if (elsewhere)
        sheet_say(
            sheet, "",
            "COPIED OR MOVED: it was last used elsewhere, and daemons wait. \"--same\": that one is in use no "
            "more. \"--copy\": this is a copy of it, which gets a name of its own");
    else if (!pg_is_null(refused, 0, 0))
        sheet_say(sheet, "", "DAEMONS WAIT: %s", pg_get_text(refused, 0, 0));
    *ret_code = ctl_show(c, sheet, 0);
    sheet_free(sheet);
    return PG_DONE;
}

static int work(struct ctl *c, struct pg *pg, struct error *err, int *ret_code)
{
    bool changes = c->identity.same || c->identity.copy;
    int64_t disabled = 0;
    CLEANUP(pg_result_freep) struct pg_result *before = NULL;
    int r = pg_query(pg, &sql_installation_names, NULL, &before, err);

    if (r == PG_DONE && changes)
        r = settle(c, pg, &disabled, err);
    if (r == PG_DONE)
        r = show(c, pg, disabled, before, err, ret_code);
    if (r == PG_DONE && changes)
        r = pg_execute(pg, c->dry_run ? "rollback" : "commit", err);
    return r;
}

int ctl_installation(struct ctl *c)
{
    struct pg_params params = ctl_session(c, "anubisctl installation");
    struct pg *pg = NULL;
    struct error err;

    params.writes = c->identity.same || c->identity.copy;
    int code = ctl_connect(c, &params, &pg);
    if (code)
        return code;
    int r = work(c, pg, &err, &code);
    if (r != PG_DONE)
        code = ctl_refused(r, "settle whose database this is", &err);
    pg_close(pg);
    return code;
}
