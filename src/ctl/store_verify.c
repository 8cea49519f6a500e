/* SQL of "anubisctl verify". See store_verify.h. */
#include "ctl/store_verify.h"

int store_verify_begin(struct pg *pg, struct error *err)
{
    return pg_execute(pg,
                      "begin isolation level repeatable read read only; set local work_mem = '512MB'; "
                      "set local statement_timeout = 0; set local max_parallel_workers_per_gather = 4",
                      err);
}

#define EVENTS                                                                                               \
    "subscription_events e cross join (select coalesce(max(last_id), 0) as last_id from ledger_partitions"   \
    "                                   where name = 'subscription_events_adopted') a"
#define IS_EVENT "e.event_type is not null and e.id > a.last_id"

const struct pg_statement store_verify_states = {
    "",
    "with steps as materialized (select e.from_status::text, e.to_status::text, count(*) as n"
    "                              from " EVENTS " where " IS_EVENT " group by 1, 2),"
    "     expected as (select status, sum(n)::bigint as n"
    "                    from (select to_status as status, n from steps"
    "                          union all select from_status, -n from steps"
    "                          union all select status, subscriptions from ledger_baseline) x"
    "                   where status is not null group by 1),"
    "     found as (select status::text as status, count(*) as n from subscriptions where status is not null group by 1)"
    " select status, coalesce(f.n, 0), coalesce(x.n, 0), (select coalesce(sum(n), 0) from steps)::bigint"
    "   from unnest('{pending,processing,retry,sent,failed}'::text[]) with ordinality as k (status, place)"
    "   full join found f using (status) full join expected x using (status) order by k.place, status"};

/* The last event is that of the highest id; its state travels in the low bits, so that one hash aggregate
 * does. */
#define STATE_CODE                                                                                           \
    "case e.to_status when 'pending' then 1 when 'processing' then 2 when 'retry' then 3 when 'sent' then 4 when 'failed' then 5 else 0 end"
#define STATE_CODES "'{pending,processing,retry,sent,failed}'::text[]"
const struct pg_statement store_verify_last_events = {
    "", "with last as (select e.subscription_id::bigint as id,"
        "                     max(e.id * 8 + " STATE_CODE ") as v"
        "                from " EVENTS " where " IS_EVENT " and e.subscription_id is not null group by 1)"
        " select l.id, s.status::text, (" STATE_CODES ")[(l.v % 8)::int], count(*) over ()"
        "   from last l left join subscriptions s on s.id = l.id"
        "  where s.status is distinct from (" STATE_CODES ")[(l.v % 8)::int] order by l.id limit 20"};

/* $1 group, $2 prefix of the topics. Bytes as get_bit() counts them are mirrored in a bit string, hence # 7.
 */
#define CHUNK_BITS "('x' || encode(b.bits, 'hex'))::bit(8192)"
static const struct pg_statement handled = {
    "",
    "with state as (select r.*, (select coalesce(max(last_id), 0) from ledger_partitions"
    "                             where name = 'subscription_events_adopted') as adopted from relay_state r),"
    "     unsure as materialized (select e.id from state s, unnest(s.gap_first, s.gap_last) as g (first, last)"
    "                               join subscription_events e on e.id between g.first and g.last),"
    "     dead as materialized (select distinct (headers ->> 'sequence')::bigint as id from dead_letters"
    "                            where consumer_group = $1 and topic in ($2 || 'sent', $2 || 'failed')"
    "                              and headers ->> 'sequence' ~ '^[0-9]{1,18}$'),"
    "     chunks as materialized (select b.topic, b.chunk, bit_or(" CHUNK_BITS
    ") as bits from consumer_bitmaps b"
    "                              where b.consumer_group = $1 and b.topic in ($2 || 'sent', $2 || 'failed')"
    "                              group by 1, 2),"
    "     events as (select e.id, e.integration_id::bigint, e.event_type::text as type, e.id / 8192 as chunk, e.created_at,"
    "                       c.bits is not null and get_bit(c.bits, ((e.id % 8192)::int # 7)) = 1 as is_handled,"
    "                       e.id <= s.high and e.id not in (select id from unsure) as is_published,"
    "                       e.id in (select id from dead) as is_dead"
    "                  from state s join subscription_events e on e.id > s.adopted"
    "                  left join chunks c on c.topic = $2 || e.event_type and c.chunk = e.id / 8192"
    "                 where e.event_type in ('sent', 'failed'))"
    " select grouping(integration_id) = 1, coalesce(integration_id, 0), type, chunk,"
    "        count(*) filter (where is_handled and type = 'sent'),"
    "        count(*) filter (where is_handled and type = 'failed'),"
    "        count(*) filter (where is_published and not is_handled and not is_dead),"
    "        coalesce(min(id) filter (where is_published and not is_handled and not is_dead), 0),"
    "        (min(created_at) filter (where is_published and not is_handled and not is_dead))::timestamptz,"
    "        count(*) filter (where is_dead and not is_handled)"
    "   from events group by grouping sets ((integration_id), (type, chunk)) order by 1, 3, 4"};

/* What left with a dropped partition has left the proof too. */
#define OLDEST_CHUNK                                                                                         \
    "(select case when bool_or(name = 'subscription_events_adopted') or min(first_id) <= 1 then 0"           \
    "             else (min(first_id) - 1) / 8192 + 1 end from ledger_partitions)"
static const struct pg_statement bits = {
    "",
    "select substr(b.topic, length($2) + 1), b.chunk,"
    "       sum(length(replace(" CHUNK_BITS "::text, '0', '')))::bigint"
    "  from consumer_bitmaps b"
    " where b.consumer_group = $1 and b.topic in ($2 || 'sent', $2 || 'failed') and b.chunk >= " OLDEST_CHUNK
    " group by 1, 2 order by 1, 2"};

static const struct pg_statement wrong_bits = {
    "",
    "select w.id from (select b.chunk * 8192 + n as id, count(*) as times"
    "                    from consumer_bitmaps b cross join generate_series(0, 8191) as n"
    "                   where b.consumer_group = $1 and b.topic = $2 || $3 and b.chunk = $4 and get_bit(b.bits, n) = 1"
    "                   group by 1) w"
    "  left join subscription_events e on e.id = w.id and e.event_type = $3"
    " where e.id is null or w.times > 1 order by 1 limit 20"};

const struct pg_statement store_verify_counters = {
    "",
    "select i.id::bigint, i.name::text, coalesce(i.successful_sends, 0)::bigint, coalesce(i.failed_sends, 0)::bigint,"
    "       coalesce(b.successful_sends, 0), coalesce(b.failed_sends, 0)"
    "  from integrations i left join ledger_baseline b on b.integration_id = i.id and b.status is null order by 1"};

/* Those above high and those within the gaps: both by the ledger's primary key. */
const struct pg_statement store_verify_published = {
    "",
    "with state as (select r.*, (select coalesce(max(last_id), 0) from ledger_partitions"
    "                             where name = 'subscription_events_adopted') as adopted from relay_state r),"
    "     open as (select e.created_at from state s join subscription_events e on e.id > s.high and e.id > s.adopted"
    "               where e.event_type is not null"
    "              union all"
    "              select e.created_at from state s, unnest(s.gap_first, s.gap_last) as g (first, last)"
    "                join subscription_events e on e.id between g.first and g.last where e.event_type is not null)"
    " select (select count(*) from open), (select min(created_at)::timestamptz from open), stopped_on from relay_state"};

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
    return query_group(pg, &handled, group, ret, err);
}

void store_verify_count_row(const struct pg_result *r, int row, struct store_verify_count *ret)
{
    ret->is_chunk = pg_get_bool(r, row, 0);
    ret->integration_id = pg_get_i64(r, row, 1);
    ret->type = pg_get_text(r, row, 2);
    ret->chunk = pg_get_i64(r, row, 3);
    ret->sent = pg_get_i64(r, row, 4);
    ret->failed = pg_get_i64(r, row, 5);
    ret->behind = pg_get_i64(r, row, 6);
    ret->oldest_behind = pg_get_i64(r, row, 7);
    ret->oldest_behind_at = pg_is_null(r, row, 8) ? INT64_MIN : pg_get_time(r, row, 8);
    ret->dead = pg_get_i64(r, row, 9);
}

int store_verify_bits(struct pg *pg, const struct store_verify_group *group, struct pg_result **ret,
                      struct error *err)
{
    return query_group(pg, &bits, group, ret, err);
}

int store_verify_wrong_bits(struct pg *pg, const struct store_verify_group *group, const char *type,
                            int64_t chunk, struct pg_result **ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, group->consumer_group);
    pg_arg_text(&args, group->topic_prefix);
    pg_arg_text(&args, type);
    pg_arg_i64(&args, chunk);
    return pg_query(pg, &wrong_bits, &args, ret, err);
}
