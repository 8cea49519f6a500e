/* SQL of the integrations' counters. See store_counters.h. On the consumers' threads. */
#include "handlers/store_counters.h"

/* Locks in the order of ids first: an UPDATE … FROM takes its rows as the plan finds them, and two consumers
 * would deadlock. In a statement of its own: one that locks and updates comes back to the version of its
 * snapshot, where somebody may queue by now who waits for the lock on the newer one. */
static const struct pg_statement lock_counters = {
    "lock_counters", "select from integrations where id = any ($1) order by id for no key update"};

/* updated_at stays as it is: it is the application's, which may compare it to see whether somebody has edited
 * the row, and the counters are no edit. A counter without room (adopted ones may be integers) is left alone
 * and named: an error would stop the other integrations of the batch too. */
static const struct pg_statement count_sends = {
    "count_sends",
    "with a as materialized ("
    "  select * from unnest($1::bigint[], $2::bigint[], $3::bigint[]) as a (id, sent, failed)"
    "), held as materialized ("
    "  select id, coalesce(successful_sends, 0)::numeric as sent, pg_typeof(successful_sends)::text as sent_type,"
    "         coalesce(failed_sends, 0)::numeric as failed, pg_typeof(failed_sends)::text as failed_type"
    "    from integrations where id = any ($1)"
    "), limits (type, most) as materialized ("
    "  values ('integer', 2147483647), ('bigint', 9223372036854775807)"
    "), room as materialized ("
    "  select a.*, l.sent + a.sent > s.most is true as sent_full, l.failed + a.failed > f.most is true as failed_full"
    "    from a join held l using (id) left join limits s on s.type = l.sent_type"
    "    left join limits f on f.type = l.failed_type"
    "), counted as ("
    "  update integrations i set successful_sends = coalesce(i.successful_sends, 0) + r.sent,"
    "         failed_sends = coalesce(i.failed_sends, 0) + r.failed"
    "    from room r where i.id = r.id and not r.sent_full and not r.failed_full)"
    " select a.id, r.id is null, coalesce(r.sent_full, false), coalesce(r.failed_full, false)"
    "   from a left join room r on r.id = a.id where r.id is null or r.sent_full or r.failed_full order by a.id"};

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
