/* Confirmations that are late, and held subscriptions that one settles. See sweeper.h. */
#include "monitor/sweeper.h"

#include <inttypes.h>

#include "base/log.h"
#include "base/timeutil.h"
#include "sql/statements.h"

/* In one transaction. */
#define BATCH 1000
#define TURN_USEC USEC_PER_SEC
#define LOOK_USEC (5 * USEC_PER_SEC)
/* Each refusal is a line in the server's log. */
#define REFUSED_USEC (30 * USEC_PER_SEC)

/* Where a row is to blame, halves find it. How many were settled, -1 = it could not. */
static int64_t settle(struct sweeper *s, struct pg *pg, const int64_t *ids, size_t count)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    int64_t settled = 0;

    pg_arg_i64s(&args, ids, sizeof(*ids), count);
    if (pg_query_i64(pg, &sql_confirmations_settle, &args, &settled, NULL) == PG_DONE)
        return settled;
    if (!pg_usable(pg) || !pg_blames_row(pg_error_sqlstate(pg)))
        return -1;
    if (count == 1) {
        s->has_refused = true;
        if (trouble_begins(&s->refused))
            log_warning("an institution has said what became of subscription %" PRId64
                        ", which is held, but a rule or a trigger of the application refuses the change "
                        "(SQLSTATE %s); trying again",
                        *ids, pg_error_sqlstate(pg));
        return 0;
    }
    size_t half = count / 2;
    settled = settle(s, pg, ids, half);
    int64_t rest = settled < 0 ? -1 : settle(s, pg, ids + half, count - half);
    return rest < 0 ? -1 : settled + rest;
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
    int64_t settled = count > 0 ? settle(s, pg, ids, count) : 0;
    if (settled > 0)
        log_notice("%" PRId64 " held subscription%s settled by what institutions had said before", settled,
                   settled == 1 ? " was" : "s were");
    if (settled >= 0 && count == BATCH)
        s->id = ids[count - 1];
    else if (settled >= 0)
        end_look(s);
    return settled >= 0 && count == BATCH;
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
