/* The analytics handler: integration_stats. See handler.h.
 *
 * On a consumer's thread. It names the events, and the statement takes from the ledger what they add: so a
 * replay, which reads the ledger, comes to the same rows, and no message can say another latency. One row
 * update for each integration, span and batch. */
#include "handlers/handler_stats.h"

#include "sql/statements.h"

static int apply(struct pg *pg, const struct message_event *const *events, size_t count, const char **faults,
                 struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    int64_t first = INT64_MAX, last = 0;

    (void) faults;
    pg_array_begin(&args, PG_INT8);
    for (size_t i = 0; i < count; i++) {
        pg_array_i64(&args, events[i]->sequence);
        first = MIN(first, events[i]->sequence);
        last = MAX(last, events[i]->sequence);
    }
    pg_arg_i64(&args, first);
    pg_arg_i64(&args, last);
    return pg_query(pg, &sql_stats_count, &args, NULL, err);
}

const struct handler handler_stats = {
    .types = 1U << EVENT_CREATED | 1U << EVENT_SENT | 1U << EVENT_FAILED | 1U << EVENT_RETRIED,
    .apply = apply,
};
