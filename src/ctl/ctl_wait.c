/* anubisctl verify --wait: waits until no work is due. See ctl.h. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>

#include "ctl/ctl.h"
#include "ctl/store_ctl.h"
#include "pg/pg_session.h"
#include "sql/statements.h"

#define LOOK_MS 500
/* More are "100000+". */
#define COUNTED_MAX 100000

struct work {
    int64_t due, in_flight, unpublished, behind, daemons;
    int64_t stopped_on;      /* the event that stops the relay; 0 = none */
    char stopped_groups[64]; /* "" = none */
};

static int read_work(struct pg *pg, struct work *ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *work = NULL, *lags = NULL;

    *ret = (struct work){0};
    pg_arg_i64(&args, COUNTED_MAX);
    pg_arg_text(&args, PG_SESSION_CLAIM);
    int r = pg_query(pg, &sql_verify_work, &args, &work, err);
    if (r == PG_DONE)
        r = store_lags(pg, &lags, err);
    if (r != PG_DONE)
        return r;
    struct pg_row row = {.result = work};
    ret->due = pg_next_i64(&row);
    ret->in_flight = pg_next_i64(&row);
    ret->unpublished = pg_next_i64(&row);
    ret->stopped_on = pg_next_i64(&row);
    ret->daemons = pg_next_i64(&row);
    const char *groups = pg_next_text(&row);
    snprintf(ret->stopped_groups, sizeof(ret->stopped_groups), "%s", groups ? groups : "");
    for (int i = 0; i < pg_rows(lags); i++)
        ret->behind += pg_get_i64(lags, i, 4);
    return PG_DONE;
}

static void say_what_is_left(const struct work *w)
{
    CLEANUP(freep)
    char *stopped =
        w->stopped_on ? xasprintf("; the relay is STOPPED on event %" PRId64, w->stopped_on) : NULL;

    ctl_progress("waiting: %" PRId64 "%s due, %" PRId64 " in flight, %" PRId64
                 "%s events to be published, %" PRId64 " to be counted%s%s",
                 w->due, w->due >= COUNTED_MAX ? "+" : "", w->in_flight, w->unpublished,
                 w->unpublished >= COUNTED_MAX ? "+" : "", w->behind,
                 w->daemons ? "" : "; no anubisd is connected to this database", stopped ? stopped : "");
}

int ctl_wait_for_work(const struct ctl *c, struct pg *pg, struct error *err)
{
    struct pollfd stop = {.fd = c->stop_fd, .events = POLLIN};
    bool warned = false, warned_of_stop = false;
    struct work w;

    for (;;) {
        int r = read_work(pg, &w, err);
        if (r != PG_DONE || !(w.due || w.in_flight || w.unpublished || w.behind))
            return r;
        if (!w.daemons && !warned)
            ctl_say("no anubisd is connected to this database: waiting until one does the work");
        if (w.behind && *w.stopped_groups && !warned_of_stop)
            ctl_say("what consumers have stopped on (%s) is waited for: see \"anubisctl status\"",
                    w.stopped_groups);
        warned |= !w.daemons;
        warned_of_stop |= w.behind && *w.stopped_groups;
        say_what_is_left(&w);
        if (poll(&stop, 1, LOOK_MS) > 0)
            return -ECANCELED;
    }
}
