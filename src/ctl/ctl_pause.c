/* anubisctl pause and resume: whether anything is sent to an integration; and whether a consumer group that
 * has stopped goes on. */
#include <inttypes.h>
#include <string.h>
#include <sysexits.h>

#include "base/timeutil.h"
#include "ctl/ctl.h"
#include "sql/statements.h"

#define NO_INTEGRATION "there is no integration"

static void add_paused(struct sheet *sheet, const struct pg_result *rows)
{
    struct pg_row row = {rows, 0, 0};

    sheet_add(sheet, "name", "integration", value_text(pg_next_text(&row)));
    int64_t until = pg_next_time(&row);
    sheet_add(sheet, "paused_until", "paused until",
              until == INT64_MAX ? value_words(value_null(), "somebody resumes it") : value_time(until));
}

static void add_resumed(struct sheet *sheet, const struct pg_result *rows)
{
    struct pg_row row = {rows, 0, 0};

    sheet_add(sheet, "name", "integration", value_text(pg_next_text(&row)));
    bool was_paused = pg_next_bool(&row);
    sheet_add(sheet, "was_paused", "was paused", value_bool(was_paused));
    sheet_add_known(sheet, "pause_reason", "because", value_text_or_null(pg_next_text(&row)));
    if (!pg_next_bool(&row))
        sheet_say(sheet, "", "It is disabled: nothing is sent to it all the same.");
}

/* `add` shows the row of the result; without a row: "`missing` `which`". */
static int work(struct ctl *c, const struct pg_statement *statement, const struct pg_args *args,
                void (*add)(struct sheet *sheet, const struct pg_result *rows), const char *missing,
                const char *which)
{
    struct pg_params params = ctl_session(c, "anubisctl");
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    struct pg *pg = NULL;
    struct error err;

    params.writes = true;
    int code = ctl_connect(c, &params, &pg);
    if (code)
        return code;
    int r = ctl_change(c, pg, statement, args, &rows, &err);
    pg_close(pg);
    if (r != PG_DONE)
        return ctl_refused(r, c->stats.group ? "let the group go on" : "change the integration", &err);
    if (pg_rows(rows) == 0) {
        ctl_say("%s %s", missing, which);
        return CTL_DIFFERENT;
    }
    struct sheet *sheet;
    sheet_new(&sheet);
    add(sheet, rows);
    if (c->dry_run)
        sheet_say(sheet, "", "Nothing was changed (--dry-run).");
    code = ctl_show(c, sheet, 0);
    sheet_free(sheet);
    return code;
}

int ctl_pause(struct ctl *c)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    uint64_t usec = 0;
    int64_t id;

    int code = ctl_read_id(c->args[0], "an integration's", &id);
    if (code)
        return code;
    if (!c->reason || !*c->reason || strlen(c->reason) > CTL_REASON_MAX) {
        ctl_say("pause needs --reason TEXT, of at most %d bytes: who comes after you reads it in status",
                CTL_REASON_MAX);
        return EX_USAGE;
    }
    if (c->period && (parse_duration(c->period, &usec) < 0 || usec < USEC_PER_MSEC)) {
        ctl_say("--for takes a duration such as 30m or 2h, not \"%s\"", c->period);
        return EX_USAGE;
    }
    CLEANUP(freep) char *user = ctl_operator();
    CLEANUP(freep) char *reason = xasprintf("%s (%s)", c->reason, user);
    pg_arg_i64(&args, id);
    pg_arg_text(&args, reason);
    pg_arg_i64(&args, (int64_t) (usec / USEC_PER_MSEC));
    return work(c, &sql_pause_by_hand, &args, add_paused, NO_INTEGRATION, c->args[0]);
}

/* --- a consumer group that has stopped -------------------------------------------------------- */

static void add_group(struct sheet *sheet, const struct pg_result *rows)
{
    sheet_add(sheet, "had_stopped", "had stopped, because", value_text(pg_get_text(rows, 0, 0)));
}

static int resume_group(struct ctl *c)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    if (!ctl_is_group(c->stats.group)) {
        ctl_say("--group takes integration, monitoring or external, not \"%s\"", c->stats.group);
        return EX_USAGE;
    }
    pg_arg_text(&args, c->stats.group);
    pg_arg_bool(&args, c->choice.put_aside);
    return work(c, &sql_resume_group, &args, add_group, "not stopped is the group", c->stats.group);
}

int ctl_resume(struct ctl *c)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    int64_t id;

    if ((c->arg_count > 0) == (c->stats.group != NULL)) {
        ctl_say("resume needs the integration's id, or --group NAME for a consumer group that has stopped");
        return EX_USAGE;
    }
    if (c->stats.group)
        return resume_group(c);
    int code = ctl_read_id(c->args[0], "an integration's", &id);
    if (code)
        return code;
    pg_arg_i64(&args, id);
    return work(c, &sql_resume, &args, add_resumed, NO_INTEGRATION, c->args[0]);
}
