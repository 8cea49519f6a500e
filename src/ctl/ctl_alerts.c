/* anubisctl alerts: what fires, and what an operator does about it. See operate_alerts.sql. */
#include <inttypes.h>
#include <string.h>
#include <sysexits.h>

#include "base/timeutil.h"
#include "ctl/alert_actions.h"
#include "sql/statements.h"

#define SILENCE_MAX_USEC (3650 * 86400 * USEC_PER_SEC)

/* Sends a change in a transaction, which a dry run takes back. 0, or an exit code after it said why. */
static int change(struct ctl *c, const struct pg_statement *statement, const struct pg_args *args,
                  struct pg_result **ret)
{
    struct pg_params params = ctl_session(c, "anubisctl alerts");
    struct pg *pg = NULL;
    struct error err;

    params.writes = true;
    int code = ctl_connect(c, &params, &pg);
    if (code)
        return code;
    int r = ctl_change(c, pg, statement, args, ret, &err);
    pg_close(pg);
    return r == PG_DONE ? 0 : ctl_refused(r, "change what is told of alerts", &err);
}

/* Shows the sheet and frees it. */
static int show_change(const struct ctl *c, struct sheet *sheet)
{
    if (c->dry_run)
        sheet_say(sheet, "", "Nothing was changed (--dry-run).");
    int code = ctl_show(c, sheet, 0);
    sheet_free(sheet);
    return code;
}

/* --- ack, silence, unsilence ------------------------------------------------------------------ */

static int acknowledge(struct ctl *c)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    CLEANUP(freep) char *user = ctl_operator();
    struct sheet *sheet;
    int64_t id;

    if (c->arg_count < 2) {
        ctl_say("an alert's id is missing");
        return EX_USAGE;
    }
    int code = ctl_read_id(c->args[1], "an alert's", &id);
    if (code)
        return code;
    pg_arg_i64(&args, id);
    pg_arg_text(&args, user);
    code = change(c, &sql_alert_acknowledge, &args, &rows);
    if (code)
        return code;
    if (pg_rows(rows) == 0) {
        ctl_say("there is no alert %" PRId64, id);
        return CTL_DIFFERENT;
    }
    struct pg_row row = {rows, 0, 0};
    const char *kind = pg_next_text(&row);
    int64_t integration_id = pg_next_i64(&row);
    const char *before = pg_next_text(&row);
    if (!pg_next_bool(&row)) {
        ctl_say("alert %" PRId64 " is over", id);
        return CTL_DIFFERENT;
    }
    sheet_new(&sheet);
    sheet_add(sheet, "id", "alert", value_i64(id));
    sheet_add(sheet, "kind", "kind", value_text(kind));
    sheet_add_known(sheet, "integration_id", "integration", value_i64_or_null(integration_id, 0));
    sheet_add(sheet, "acknowledged_by", "acknowledged by", value_text(*before ? before : user));
    if (*before)
        sheet_say(sheet, "", "It was acknowledged before.");
    return show_change(c, sheet);
}

/* What is never told of an integration cannot be silenced. */
static int check_kind(const char *kind)
{
    static const char *const kinds[] = {"failure_rate", "circuit_open", "authentication",
                                        "backlog",      "paused",       "unconfirmed"};

    for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
        if (!kind || strcmp(kind, kinds[i]) == 0)
            return 0;
    ctl_say("--kind takes failure_rate, circuit_open, authentication, backlog, paused or unconfirmed, not "
            "\"%s\"",
            kind);
    return EX_USAGE;
}

static int read_silence(struct ctl *c, int64_t *ret_id)
{
    if (!c->choice.integration) {
        ctl_say("%s needs --integration ID", c->args[0]);
        return EX_USAGE;
    }
    int code = ctl_read_id(c->choice.integration, "an integration's", ret_id);
    return code ? code : check_kind(c->choice.kind);
}

static int show_silence(struct ctl *c, int64_t id, const struct pg_result *rows, bool begins)
{
    struct pg_row row = {rows, 0, 0};
    struct sheet *sheet;

    if (pg_rows(rows) == 0) {
        ctl_say("there is no integration %" PRId64, id);
        return CTL_DIFFERENT;
    }
    sheet_new(&sheet);
    sheet_add(sheet, "integration_id", "integration", value_i64(id));
    sheet_add(sheet, "name", "name", value_text(pg_next_text(&row)));
    sheet_add(sheet, "kind", "kind",
              c->choice.kind ? value_text(c->choice.kind) : value_words(value_null(), "all"));
    if (begins)
        sheet_add(sheet, "until", "silent until", value_time(pg_next_time(&row)));
    else
        sheet_add(sheet, "ended", "silences ended", value_i64(pg_next_i64(&row)));
    return show_change(c, sheet);
}

static int silence(struct ctl *c)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    uint64_t usec = 0;
    int64_t id;

    int code = read_silence(c, &id);
    if (code)
        return code;
    if (!c->period || parse_duration(c->period, &usec) < 0 || usec < USEC_PER_MSEC ||
        usec > SILENCE_MAX_USEC) {
        ctl_say("silence needs --for DURATION, such as 30m or 2h, of at most 3650 days");
        return EX_USAGE;
    }
    if (!c->reason || !*c->reason) {
        ctl_say("silence needs --reason TEXT: who comes after you reads it in \"anubisctl alerts\"");
        return EX_USAGE;
    }
    CLEANUP(freep) char *user = ctl_operator();
    CLEANUP(freep) char *reason = xasprintf("%s (%s)", c->reason, user);
    pg_arg_i64(&args, id);
    pg_arg_text(&args, c->choice.kind);
    pg_arg_i64(&args, (int64_t) (usec / USEC_PER_MSEC));
    pg_arg_text(&args, reason);
    code = change(c, &sql_alert_silence, &args, &rows);
    return code ? code : show_silence(c, id, rows, true);
}

static int unsilence(struct ctl *c)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    int64_t id;

    int code = read_silence(c, &id);
    if (code)
        return code;
    pg_arg_i64(&args, id);
    pg_arg_text(&args, c->choice.kind);
    code = change(c, &sql_alert_unsilence, &args, &rows);
    return code ? code : show_silence(c, id, rows, false);
}

/* --- the command ------------------------------------------------------------------------------ */

static const struct action {
    const char *name;
    int (*run)(struct ctl *c);
    bool changes, of_silences, begins; /* takes --dry-run; --integration and --kind; --for and --reason */
    int arguments;
} actions[] = {
    {"list", alert_list, .arguments = 1},
    {"ack", acknowledge, .changes = true, .arguments = 2},
    {"silence", silence, .changes = true, .of_silences = true, .begins = true, .arguments = 1},
    {"unsilence", unsilence, .changes = true, .of_silences = true, .arguments = 1},
    {"test", alert_test, .changes = true, .arguments = 1},
};

/* NULL, or the option that the action does not take. */
static const char *strange_option(const struct ctl *c, const struct action *a)
{
    if (c->dry_run && !a->changes)
        return "--dry-run";
    if (c->choice.integration && !a->of_silences)
        return "--integration";
    if (c->choice.kind && !a->of_silences)
        return "--kind";
    if (c->period && !a->begins)
        return "--for";
    return c->reason && !a->begins ? "--reason" : NULL;
}

int ctl_alerts(struct ctl *c)
{
    const char *name = c->arg_count > 0 ? c->args[0] : "list";

    for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
        if (strcmp(actions[i].name, name) != 0)
            continue;
        const char *strange = strange_option(c, &actions[i]);
        if (c->arg_count > actions[i].arguments)
            ctl_say("there is an argument too many: \"%s\"", c->args[actions[i].arguments]);
        else if (strange)
            ctl_say("there is no %s for \"alerts %s\"", strange, name);
        else
            return actions[i].run(c);
        return EX_USAGE;
    }
    ctl_say(
        "alerts can be listed (list), acknowledged (ack), silenced (silence, unsilence) and tested (test), "
        "not \"%s\"",
        name);
    return EX_USAGE;
}
