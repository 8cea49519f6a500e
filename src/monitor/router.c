/* Routing of subscriptions that wait without an integration. See router.h. */
#include "monitor/router.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"
#include "base/timeutil.h"
#include "pg/pg_halves.h"
#include "sql/statements.h"

/* In one transaction: short enough that nobody waits for its locks. */
#define BATCH 1000
#define LOOK_USEC USEC_PER_SEC
/* Between two passes over rows that no filter takes, and how much of the time they may have. */
#define AGAIN_USEC (10 * USEC_PER_SEC)
#define AGAIN_FACTOR 50

static void begin_pass(struct router *r, const char *filters)
{
    snprintf(r->filters, sizeof(r->filters), "%s", filters);
    free(r->due);
    r->due = xstrdup("-infinity");
    r->id = 0;
    r->routed = r->left_out = 0;
    r->busy_usec = 0;
    r->under_way = true;
}

static void end_pass(struct router *r)
{
    r->under_way = false;
    uint64_t again_usec = r->left_out ? MIN(AGAIN_USEC, MAX(LOOK_USEC, r->busy_usec))
                                      : MAX(AGAIN_USEC, AGAIN_FACTOR * r->busy_usec);
    r->again_at = now_monotonic_usec() + again_usec;
    if (r->routed > 0)
        log_info("filters have routed %" PRId64 " subscription%s that had waited without an integration",
                 r->routed, plural(r->routed));
}

struct routing {
    struct router *router;
    struct pg *pg;
};

static int route(const int64_t *ids, size_t count, void *userdata)
{
    struct routing *g = userdata;
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *done = NULL;

    pg_arg_i64s(&args, ids, sizeof(*ids), count);
    int res = pg_query(g->pg, &sql_routing_route, &args, &done, NULL);
    if (res != PG_DONE)
        return res;
    g->router->routed += pg_get_i64(done, 0, 0);
    g->router->left_out += pg_get_i64(done, 0, 1);
    return PG_DONE;
}

/* The server's words may quote the row, so its SQLSTATE stands for them. */
static void note_refused(int64_t id, void *userdata)
{
    struct routing *g = userdata;

    if (trouble_begins(&g->router->refused))
        log_warning("a filter takes subscription %" PRId64
                    ", but a rule or a trigger of the application refuses the change (SQLSTATE %s)",
                    id, pg_error_sqlstate(g->pg));
}

static int route_rows(struct router *r, struct pg *pg, const struct pg_result *rows)
{
    size_t count = (size_t) pg_rows(rows);
    CLEANUP(freep) int64_t *ids = xcalloc(count, sizeof(*ids));
    struct routing routing = {.router = r, .pg = pg};

    for (size_t i = 0; i < count; i++)
        ids[i] = pg_get_i64(rows, (int) i, 0);
    return pg_in_halves(pg, ids, count, route, note_refused, &routing);
}

static int route_batch(struct router *r, struct pg *pg)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    pg_arg_text(&args, r->due);
    pg_arg_i64(&args, r->id);
    pg_arg_i64(&args, BATCH);
    int res = pg_query(pg, &sql_routing_window, &args, &rows, NULL);
    if (res != PG_DONE)
        return res;
    if (pg_rows(rows) == 0) {
        end_pass(r);
        return PG_DONE;
    }
    res = route_rows(r, pg, rows);
    if (res != PG_DONE)
        return res;
    r->id = pg_get_i64(rows, pg_rows(rows) - 1, 0);
    free(r->due);
    r->due = xstrdup(pg_get_text(rows, pg_rows(rows) - 1, 1));
    return PG_DONE;
}

/* Begins a pass when it is time. */
static int look(struct router *r, struct pg *pg)
{
    CLEANUP(pg_result_freep) struct pg_result *filters = NULL;

    int res = pg_query(pg, &sql_routing_look, NULL, &filters, NULL);
    if (res != PG_DONE || pg_is_null(filters, 0, 0))
        return res;
    const char *text = pg_get_text(filters, 0, 0);
    if (strcmp(text, r->filters) != 0 || now_monotonic_usec() >= r->again_at)
        begin_pass(r, text);
    return PG_DONE;
}

uint64_t router_run(struct router *r, struct pg *pg)
{
    uint64_t began = now_monotonic_usec();
    int64_t routed = r->routed;

    int res = r->under_way ? route_batch(r, pg) : look(r, pg);
    uint64_t took = now_monotonic_usec() - began;
    if (res != PG_DONE) {
        /* From its beginning again: where it stopped, a lock was in the way, or the session is lost. */
        r->under_way = false;
        r->filters[0] = '\0';
        if (pg_usable(pg) && strcmp(pg_error_sqlstate(pg), "55P03") != 0 && trouble_begins(&r->unable))
            log_warning("could not route subscriptions by filters (SQLSTATE %s); trying again",
                        pg_error_sqlstate(pg));
        return LOOK_USEC;
    }
    (void) trouble_ends(&r->unable);
    if (r->routed == routed)
        r->busy_usec += took;
    /* A look walks over the entries of rows that were routed, which an old snapshot keeps. */
    return r->under_way ? 0 : MAX(LOOK_USEC, 10 * took);
}

void router_free(struct router *r)
{
    free(r->due);
}
