/* SQL of "anubisctl verify". See store_verify.h. */
#include "ctl/store_verify.h"

#include "sql/statements.h"

/* How many differences are named. */
#define NAMED_MAX 20

int store_verify_begin(struct pg *pg, struct error *err)
{
    return pg_execute(pg,
                      "begin isolation level repeatable read read only; set local work_mem = '512MB'; "
                      "set local statement_timeout = 0; set local max_parallel_workers_per_gather = 4",
                      err);
}

const struct pg_statement store_verify_states = {"", sql_verify_states};
const struct pg_statement store_verify_published = {"", sql_verify_published};
const struct pg_statement store_verify_counters = {
    "", "select i.id::bigint, i.name::text,"
        "       coalesce(i.successful_sends, 0)::bigint, coalesce(b.successful_sends, 0),"
        "       coalesce(i.failed_sends, 0)::bigint, coalesce(b.failed_sends, 0)"
        "  from integrations i left join ledger_baseline b on b.integration_id = i.id and b.status is null"
        " order by 1"};

int store_verify_last_events(struct pg *pg, struct pg_result **ret, struct error *err)
{
    static const struct pg_statement last_events = {"", sql_verify_last_events};
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64(&args, NAMED_MAX);
    return pg_query(pg, &last_events, &args, ret, err);
}

static int query_group(struct pg *pg, const struct pg_statement *statement,
                       const struct store_verify_group *group, struct pg_result **ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, group->consumer_group);
    pg_arg_text(&args, group->topic_prefix);
    return pg_query(pg, statement, &args, ret, err);
}

int store_verify_handled(struct pg *pg, const struct store_verify_group *group, struct pg_result **ret,
                         struct error *err)
{
    static const struct pg_statement handled = {"", sql_verify_handled};

    return query_group(pg, &handled, group, ret, err);
}

void store_verify_count_row(const struct pg_result *result, int number, struct store_verify_count *ret)
{
    struct pg_row row = {result, number, 0};

    ret->is_chunk = pg_next_bool(&row);
    ret->integration_id = pg_next_i64(&row);
    ret->type = pg_next_text(&row);
    ret->chunk = pg_next_i64(&row);
    ret->sent = pg_next_i64(&row);
    ret->failed = pg_next_i64(&row);
    ret->behind = pg_next_i64(&row);
    ret->oldest_behind = pg_next_i64(&row);
    ret->oldest_behind_at = pg_next_time(&row);
    ret->dead = pg_next_i64(&row);
}

int store_verify_bits(struct pg *pg, const struct store_verify_group *group, struct pg_result **ret,
                      struct error *err)
{
    static const struct pg_statement bits = {"", sql_verify_bits};

    return query_group(pg, &bits, group, ret, err);
}

int store_verify_wrong_bits(struct pg *pg, const struct store_verify_group *group, const char *type,
                            int64_t chunk, struct pg_result **ret, struct error *err)
{
    static const struct pg_statement wrong_bits = {
        "", "select w.id from (select b.chunk * 8192 + n as id, count(*) as times"
            "                    from consumer_bitmaps b cross join generate_series(0, 8191) as n"
            "                   where b.consumer_group = $1 and b.topic = $2 || $3 and b.chunk = $4"
            "                     and get_bit(b.bits, n) = 1"
            "                   group by 1) w"
            "  left join subscription_events e on e.id = w.id and e.event_type = $3"
            " where e.id is null or w.times > 1 order by 1 limit $5"};
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, group->consumer_group);
    pg_arg_text(&args, group->topic_prefix);
    pg_arg_text(&args, type);
    pg_arg_i64(&args, chunk);
    pg_arg_i64(&args, NAMED_MAX);
    return pg_query(pg, &wrong_bits, &args, ret, err);
}
