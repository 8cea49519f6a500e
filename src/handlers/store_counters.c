/* SQL of the integrations' counters. See store_counters.h. On the consumers' threads. */
#include "handlers/store_counters.h"

#include "sql/statements.h"

/* Locks in the order of ids first: an UPDATE … FROM takes its rows as the plan finds them, and two consumers
 * would deadlock. In a statement of its own: one that locks and updates comes back to the version of its
 * snapshot, where somebody may queue by now who waits for the lock on the newer one. */
static const struct pg_statement lock_counters = {
    "lock_counters", "select from integrations where id = any ($1) order by id for no key update"};

static const struct pg_statement count_sends = {"count_sends", sql_count_sends};

int store_count_sends(struct pg *pg, const struct integration_deltas *deltas, struct store_not_counted **ret,
                      size_t *ret_count, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_i64s(&args, &deltas->items->integration_id, sizeof(*deltas->items), deltas->count);
    int r = pg_query(pg, &lock_counters, &args, NULL, err);
    if (r != PG_DONE)
        return r;
    pg_arg_i64s(&args, &deltas->items->sent, sizeof(*deltas->items), deltas->count);
    pg_arg_i64s(&args, &deltas->items->failed, sizeof(*deltas->items), deltas->count);
    r = pg_query(pg, &count_sends, &args, &result, err);
    if (r != PG_DONE)
        return r;
    *ret_count = (size_t) pg_rows(result);
    *ret = xcalloc(*ret_count + 1, sizeof(**ret));
    for (int i = 0; i < pg_rows(result); i++)
        (*ret)[i] = (struct store_not_counted){.integration_id = pg_get_i64(result, i, 0),
                                               .unknown = pg_get_bool(result, i, 1),
                                               .sent_full = pg_get_bool(result, i, 2),
                                               .failed_full = pg_get_bool(result, i, 3)};
    return PG_DONE;
}
