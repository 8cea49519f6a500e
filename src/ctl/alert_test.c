/* anubisctl alerts test: a test alert that goes the way of every alert. The daemon tells it, from its machine
 * and by its configuration, and this waits until each sink has taken or refused it. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <sysexits.h>

#include "base/timeutil.h"
#include "ctl/alert_actions.h"
#include "sql/statements.h"

#define LOOK_MS 200
/* Kafka is given a minute. */
#define PATIENCE_USEC (90 * USEC_PER_SEC)

/* Fires it. 0 with its id, or an exit code after it said why not. */
static int fire(struct pg *pg, int64_t *ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    CLEANUP(freep) char *user = ctl_operator();
    CLEANUP(freep)
    char *words = xasprintf("this is a test by %s (anubisctl alerts test): nothing is wrong", user);

    pg_arg_text(&args, words);
    int r = pg_query(pg, &sql_alert_test, &args, &rows, err);
    if (r != PG_DONE)
        return ctl_refused(r, "fire a test alert", err);
    struct pg_row row = {rows, 0, 0};
    bool is_told = pg_next_bool(&row);
    *ret = pg_next_i64(&row);
    if (*ret > 0)
        return 0;
    ctl_say(is_told ? "another test alert fires: it is over within half a minute, so try again then"
                    : "no daemon on this database tells of alerts: start anubisd, then try again");
    return EX_UNAVAILABLE;
}

/* Until each sink has said something. */
static int wait_for_sinks(struct ctl *c, struct pg *pg, int64_t id, struct pg_result **ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    struct pollfd stop = {.fd = c->stop_fd, .events = POLLIN};
    uint64_t until = now_monotonic_usec() + PATIENCE_USEC;

    pg_arg_i64(&args, id);
    for (;;) {
        int r = pg_query(pg, &sql_alert_test_results, &args, ret, err);
        if (r != PG_DONE)
            return r;
        int open = 0;
        for (int i = 0; i < pg_rows(*ret); i++)
            open += !pg_get_bool(*ret, i, 1) && pg_get_i64(*ret, i, 3) == 0;
        if ((open == 0 && pg_rows(*ret) > 0) || now_monotonic_usec() >= until)
            return PG_DONE;
        ctl_progress("waiting for %d of %d sinks", open, pg_rows(*ret));
        pg_result_free(TAKE_PTR(*ret));
        if (poll(&stop, 1, LOOK_MS) > 0)
            return -ECANCELED;
    }
}

static int show_results(struct ctl *c, int64_t id, const struct pg_result *rows)
{
    static const struct table_column columns[] = {{"sink", "SINK", false},
                                                  {"taken", "TAKEN", false},
                                                  {"after_ms", "AFTER MS", true},
                                                  {"attempts", NULL, true},
                                                  {"error", "BECAUSE", false}};
    bool all = pg_rows(rows) > 0;
    struct sheet *sheet;

    sheet_new(&sheet);
    sheet_add(sheet, "id", "test alert", value_i64(id));
    sheet_empty_line(sheet);
    struct table *t =
        sheet_table(sheet, "sinks", "Sinks", "no daemon has told of it", columns, ARRAY_SIZE(columns));
    for (int i = 0; i < pg_rows(rows); i++) {
        struct pg_row row = {rows, i, 0};
        table_add(t, value_text(pg_next_text(&row)));
        bool taken = pg_next_bool(&row);
        table_add(t, value_bool(taken));
        int64_t ms = pg_next_i64(&row), attempts = pg_next_i64(&row);
        table_add(t, taken ? value_i64(ms) : value_null());
        table_add(t, value_i64(attempts));
        const char *error = pg_next_text(&row);
        table_add(t, taken || *error ? value_text_or_null(error) : value_text("it has not answered"));
        all &= taken;
    }
    table_make_elastic(t, "error");
    int code = ctl_show(c, sheet, all ? 0 : CTL_DIFFERENT);
    sheet_free(sheet);
    return code;
}

/* What this configuration names; the daemon's counts. */
static int show_sinks(struct ctl *c)
{
    static const struct table_column columns[] = {{"sink", "SINK", false}};
    const struct config *conf = c->config;
    struct sheet *sheet;

    sheet_new(&sheet);
    struct table *t = sheet_table(sheet, "sinks", "Sinks of this configuration", "none", columns, 1);
    table_add(t, value_text("journal"));
    table_add(t, value_text("topic"));
    if (*conf->alerts.webhook_url)
        table_add(t, value_text("webhook"));
    const char *urls = conf->alerts.alertmanager_urls;
    for (size_t n = 1; *urls; n++) {
        CLEANUP(freep) char *sink = xasprintf("alertmanager %zu", n);
        table_add(t, value_text(sink));
        urls += strcspn(urls, " ");
        urls += strspn(urls, " ");
    }
    sheet_say(sheet, "", "Nobody was told (--dry-run).");
    int code = ctl_show(c, sheet, 0);
    sheet_free(sheet);
    return code;
}

int alert_test(struct ctl *c)
{
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    struct pg_params params = ctl_session(c, "anubisctl alerts");
    struct pg *pg = NULL;
    struct error err;
    int64_t id = 0;

    if (c->dry_run)
        return show_sinks(c);
    params.writes = true;
    int code = ctl_connect(c, &params, &pg);
    if (!code)
        code = fire(pg, &id, &err);
    if (!code) {
        int r = wait_for_sinks(c, pg, id, &rows, &err);
        ctl_progress(NULL);
        code = r == PG_DONE ? show_results(c, id, rows) : ctl_refused(r, "wait for the sinks", &err);
    }
    pg_close(pg);
    return code;
}
