/* The analytics handler: integration_stats. See handler.h.
 *
 * On a consumer's thread. It names the events, and the statement takes from the ledger what they add: so a
 * replay, which reads the ledger, comes to the same rows, and no message can say another latency. One row
 * update for each integration, span and batch. */
#include "handlers/handler_stats.h"

#include "consumers/id_runs.h"
#include "sql/statements.h"

static int apply(struct pg *pg, const struct message_event *const *events, size_t count, const char **faults,
                 struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(id_runs_free) struct id_runs runs = {0};
    CLEANUP(freep) int64_t *ids = xcalloc(count, sizeof(*ids));

    (void) faults;
    for (size_t i = 0; i < count; i++)
        ids[i] = events[i]->sequence;
    id_runs_make(&runs, ids, sizeof(*ids), count);
    id_runs_args(&runs, &args);
    id_runs_given_arg(&runs, count, &args);
    return pg_query(pg, &sql_stats_count, &args, NULL, err);
}

const struct handler handler_stats = {
    .types = 1U << EVENT_CREATED | 1U << EVENT_SENT | 1U << EVENT_FAILED | 1U << EVENT_RETRIED,
    .apply = apply,
};
