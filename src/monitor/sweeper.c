/* Confirmations that are late, and held subscriptions that one settles. See sweeper.h. */
#include "monitor/sweeper.h"

#include <inttypes.h>

#include "base/log.h"
#include "base/timeutil.h"
#include "pg/pg_halves.h"
#include "sql/statements.h"

/* In one transaction. */
#define BATCH 1000
#define TURN_USEC USEC_PER_SEC
#define LOOK_USEC (5 * USEC_PER_SEC)
/* Each refusal is a line in the server's log. */
#define REFUSED_USEC (30 * USEC_PER_SEC)

struct settling {
    struct sweeper *sweeper;
    struct pg *pg;
    int64_t settled;
};

static int settle(const int64_t *ids, size_t count, void *userdata)
{
    struct settling *s = userdata;
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    int64_t settled = 0;

    pg_arg_i64s(&args, ids, sizeof(*ids), count);
    int r = pg_query_i64(s->pg, &sql_confirmations_settle, &args, &settled, NULL);
    s->settled += settled;
    return r;
}

static void note_refused(int64_t id, void *userdata)
{
    struct settling *s = userdata;

    s->sweeper->has_refused = true;
    if (trouble_begins(&s->sweeper->refused))
        log_warning("an institution has said what became of subscription %" PRId64
                    ", which is held, but a rule or a trigger of the application refuses the change "
                    "(SQLSTATE %s); trying again",
                    id, pg_error_sqlstate(s->pg));
}

static void end_look(struct sweeper *s)
{
    s->id = 0;
    if (s->has_refused)
        s->again_at = now_monotonic_usec() + REFUSED_USEC;
    else if (trouble_ends(&s->refused))
        log_notice("held subscriptions on which institutions have said something are settled again");
    s->has_refused = false;
}

/* Whether there are more. */
static bool settle_held(struct sweeper *s, struct pg *pg)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    pg_arg_i64(&args, BATCH);
    pg_arg_i64(&args, s->id);
    if (pg_query(pg, &sql_confirmations_sweep, &args, &rows, NULL) != PG_DONE)
        return false;
    size_t count = (size_t) pg_rows(rows);
    CLEANUP(freep) int64_t *ids = xcalloc(count + 1, sizeof(*ids));
    for (size_t i = 0; i < count; i++)
        ids[i] = pg_get_i64(rows, (int) i, 0);
    struct settling settling = {.sweeper = s, .pg = pg};
    int r = count > 0 ? pg_in_halves(pg, ids, count, settle, note_refused, &settling) : PG_DONE;
    if (settling.settled > 0)
        log_notice("%" PRId64 " held subscription%s settled by what institutions had said before",
                   settling.settled, settling.settled == 1 ? " was" : "s were");
    if (r != PG_DONE)
        return false;
    if (count == BATCH)
        s->id = ids[count - 1];
    else
        end_look(s);
    return count == BATCH;
}

/* Those to come stand in the order of time in an index: while none is late, looking costs nothing. */
uint64_t sweeper_run(struct sweeper *s, struct pg *pg)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    int64_t overdue = 0;
    bool has_more = false;

    if (pg_query(pg, &sql_confirmations_known, NULL, NULL, NULL) != PG_DONE)
        return LOOK_USEC;
    pg_arg_i64(&args, BATCH);
    (void) pg_query_i64(pg, &sql_confirmations_overdue, &args, &overdue, NULL);
    if (pg_usable(pg) && now_monotonic_usec() >= s->again_at)
        has_more = settle_held(s, pg);
    return overdue == BATCH || has_more ? 0 : TURN_USEC;
}
