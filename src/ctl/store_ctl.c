/* SQL of "anubisctl status" and "anubisctl explain". See store_ctl.h. */
#include "ctl/store_ctl.h"

#include <errno.h>

#include "base/timeutil.h"

static int64_t time_or_none(const struct pg_result *r, int row, int column)
{
    return pg_is_null(r, row, column) ? INT64_MIN : pg_get_time(r, row, column);
}

/* --- status ----------------------------------------------------------------------------------- */

/* Each daemon has one session of this name. */
#define DAEMONS                                                                                              \
    "(select count(*) from pg_stat_activity where datname = current_database() and application_name = 'anubisd claim')"

/* Who has the lock leads; what the leader waits for stands in brackets after the session's name. */
#define RELAY                                                                                                \
    "(select count(*) > 0, max(substring(a.application_name from '[(](.*)[)]$'))"                            \
    "   from pg_locks left join pg_stat_activity a using (pid)"                                              \
    "  where locktype = 'advisory' and granted and objsubid = 1"                                             \
    "    and database = (select oid from pg_database where datname = current_database())"                    \
    "    and (classid::bigint << 32) | objid::bigint = lock_key('relay')) as k (leads, trouble)"

static const struct pg_statement overview = {
    "",
    "select current_database()::text, current_user::text, current_setting('server_version'), now(),"
    "       m.version, m.applied_at, m.applied_by, " DAEMONS ","
    "       r.high, l.last_id, cardinality(r.gap_first)::bigint,"
    "       (select coalesce(sum(last - first + 1), 0) from unnest(r.gap_first, r.gap_last) as g (first, last))::bigint,"
    "       r.leader, r.updated_at, r.stopped_on, r.stopped_reason,"
    "       (select count(*) from ledger_partitions where first_id > l.last_id),"
    "       exists (select from subscription_events_default),"
    "       pg_relation_size('subscriptions'), pg_relation_size('subscriptions_due'),"
    "       k.leads, k.trouble"
    "  from relay_state r, " RELAY ","
    "       (select case when is_called then last_value else last_value - 1 end from ledger_id_seq) as l (last_id),"
    "       (select * from anubis_migrations order by version desc limit 1) as m"};

int store_overview(struct pg *pg, struct store_overview *ret, struct error *err)
{
    int r = pg_query(pg, &overview, NULL, &ret->result, err);
    if (r != PG_DONE)
        return r;
    const struct pg_result *o = ret->result;
    if (pg_rows(o) != 1) {
        error_set(err, "the table relay_state has no row");
        return -EBADMSG;
    }
    ret->database = pg_get_text(o, 0, 0);
    ret->role = pg_get_text(o, 0, 1);
    ret->server = pg_get_text(o, 0, 2);
    ret->now = pg_get_time(o, 0, 3);
    ret->version = pg_get_i64(o, 0, 4);
    ret->migrated_at = pg_get_time(o, 0, 5);
    ret->migrated_by = pg_get_text(o, 0, 6);
    ret->daemons = pg_get_i64(o, 0, 7);
    ret->high = pg_get_i64(o, 0, 8);
    ret->last_id = pg_get_i64(o, 0, 9);
    ret->gap_ranges = pg_get_i64(o, 0, 10);
    ret->gap_ids = pg_get_i64(o, 0, 11);
    ret->leader = pg_get_text(o, 0, 12);
    ret->relay_at = pg_get_time(o, 0, 13);
    ret->stopped_on = pg_get_i64(o, 0, 14);
    ret->stopped_reason = pg_get_text(o, 0, 15);
    ret->partitions_ahead = pg_get_i64(o, 0, 16);
    ret->default_partition_used = pg_get_bool(o, 0, 17);
    ret->leads = pg_get_bool(o, 0, 20);
    ret->trouble = pg_get_text(o, 0, 21);
    ret->table_bytes = pg_get_i64(o, 0, 18);
    ret->due_index_bytes = pg_get_i64(o, 0, 19);
    return PG_DONE;
}

#define STATES "unnest('{pending,processing,retry,sent,failed}'::text[]) with ordinality as k (status, place)"

/* An adopted application's own states come last. */
const struct pg_statement store_states_exact = {
    "",
    "select status, coalesce(c.n, 0), false from " STATES
    "  full join (select coalesce(status::text, 'none') as status, count(*) as n from subscriptions group by 1) c"
    "       using (status) order by k.place, status"};

#define WAITING "s.status in ('pending', 'retry') and s.held_at is null"
/* So many of those due, and of those due later, are counted one by one. */
#define DUE_MAX 1000
/* So many are looked at for why they are tried again. */
#define RETRIES_MAX 100
#define DUE_AT "subscription_due(s.next_attempt_at, s.scheduled_to)"

/* What waits and what is in flight stands in small indexes; of the rest only its share is known. Where more
 * than 20,000 wait, their states are estimates too. */
const struct pg_statement store_states_about = {
    "",
    "with total as (select greatest(c.reltuples, s.n_live_tup)::float8 as n from pg_class c"
    "                 left join pg_stat_all_tables s on s.relid = c.oid where c.oid = 'subscriptions'::regclass),"
    "     shares as (select v.status, v.share::float8"
    "                  from pg_stats p, unnest(p.most_common_vals::text::text[], p.most_common_freqs) as v (status, share)"
    "                 where p.schemaname = current_schema() and p.tablename = 'subscriptions' and p.attname = 'status'),"
    "     about as (select s.status, (t.n * s.share)::bigint as n from shares s, total t),"
    "     waiting as materialized (select status::text from subscriptions s where " WAITING " limit 20000),"
    "     counted as (select status, count(*) as n from"
    "                   (select status from waiting"
    "                    union all select status::text from subscriptions where held_at is not null"
    "                    union all select status::text from subscriptions where status = 'processing') x"
    "                  group by 1)"
    " select k.status, case when k.is_exact then coalesce(c.n, 0) else greatest(c.n, a.n, (select 0 from shares limit 1)) end, not k.is_exact"
    "   from (select status, place, status = 'processing'"
    "                or (status in ('pending', 'retry') and (select count(*) from waiting) < 20000) as is_exact from " STATES
    ") k"
    "   left join counted c using (status) left join about a using (status) order by k.place"};

/* subscriptions_due answers all of it: counting by its predicate alone needs no look at the table, so that
 * all are counted, but only some of those due and of those due later. $1 how many waiting, 0 = all; $2 how
 * many of the others. Within an integration fresh rows (due at -infinity) come first, by id, so the longest
 * waiting one is the first of those or the first of the others. What is tried again is due in the past or
 * soon ($3), so that the last due up to then are looked at: scheduled ones far ahead do not hide it. */
static const struct pg_statement integrations = {
    "",
    "with flying as (select integration_id, count(*) as n from subscriptions where status = 'processing' group by 1),"
    "     held as (select integration_id, count(*) as n from subscriptions where held_at is not null group by 1)"
    " select i.id::bigint, i.name::text, i.enabled, case when i.paused_until > now() then i.paused_until end,"
    "        i.pause_reason::text, i.circuit_state::text, w.n, d.n, l.n, coalesce(f.n, 0), coalesce(h.n, 0),"
    "        coalesce(i.successful_sends, 0)::bigint, coalesce(i.failed_sends, 0)::bigint,"
    "        least(fresh.since, again.since), coalesce(tried.last_http_status, 0)::bigint, coalesce(tried.last_error, '')::text"
    "   from integrations i"
    "   cross join lateral (select count(*) as n from (select from subscriptions s"
    "                        where s.integration_id = i.id and " WAITING " limit nullif($1::bigint, 0)) x) w"
    "   cross join lateral (select count(*) as n from (select from subscriptions s"
    "                        where s.integration_id = i.id and " WAITING " and " DUE_AT
    " <= now() limit $2) x) d"
    "   cross join lateral (select count(*) as n from (select from subscriptions s"
    "                        where s.integration_id = i.id and " WAITING " and " DUE_AT
    " > now() limit $2) x) l"
    "   left join lateral (select s.created_at::timestamptz as since from subscriptions s"
    "                       where s.integration_id = i.id and " WAITING " and " DUE_AT " = '-infinity'"
    "                       order by s.integration_id, " DUE_AT ", s.id limit 1) fresh on true"
    "   left join lateral (select " DUE_AT " as since from subscriptions s"
    "                       where s.integration_id = i.id and " WAITING " and " DUE_AT " > '-infinity'"
    "                         and " DUE_AT " <= now()"
    "                       order by s.integration_id, " DUE_AT ", s.id limit 1) again on true"
    "   left join lateral (select x.last_http_status, x.last_error"
    "                        from (select s.status, s.last_http_status, s.last_error, s.updated_at from subscriptions s"
    "                               where s.integration_id = i.id and " WAITING " and " DUE_AT
    " <= now() + $3::bigint * interval '1 s'"
    "                               order by s.integration_id desc, " DUE_AT " desc, s.id desc limit $4) x"
    "                       where x.status = 'retry' and (x.last_http_status is not null or x.last_error is not null)"
    "                       order by x.updated_at desc nulls last limit 1) tried on true"
    "   left join flying f on f.integration_id = i.id"
    "   left join held h on h.integration_id = i.id"
    "  order by i.id"};

int store_integrations(struct pg *pg, int64_t limit, uint64_t max_wait_usec, struct pg_result **ret,
                       struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64(&args, limit);
    pg_arg_i64(&args, DUE_MAX);
    pg_arg_i64(&args, (int64_t) (max_wait_usec / USEC_PER_SEC) + 1);
    pg_arg_i64(&args, RETRIES_MAX);
    return pg_query(pg, &integrations, &args, ret, err);
}

void store_integration_row(const struct pg_result *r, int row, int64_t limit, struct store_integration *ret)
{
    int64_t waiting = pg_get_i64(r, row, 6), due = pg_get_i64(r, row, 7), due_later = pg_get_i64(r, row, 8);

    ret->id = pg_get_i64(r, row, 0);
    ret->name = pg_get_text(r, row, 1);
    ret->enabled = pg_get_bool(r, row, 2);
    ret->paused_until = time_or_none(r, row, 3);
    ret->pause_reason = pg_get_text(r, row, 4);
    ret->circuit_state = pg_get_text(r, row, 5);
    ret->waiting = waiting;
    ret->waiting_is_least = limit && waiting >= limit;
    ret->due = due_later < DUE_MAX ? MAX(waiting - due_later, due) : due;
    ret->due_is_least = due >= DUE_MAX && (due_later >= DUE_MAX || ret->waiting_is_least);
    ret->in_flight = pg_get_i64(r, row, 9);
    ret->held = pg_get_i64(r, row, 10);
    ret->sent = pg_get_i64(r, row, 11);
    ret->failed = pg_get_i64(r, row, 12);
    ret->oldest = time_or_none(r, row, 13);
    ret->retry_status = pg_get_i64(r, row, 14);
    ret->retry_error = pg_get_text(r, row, 15);
}

static const struct pg_statement unrouted = {
    "", "select count(*) from (select from subscriptions s where s.integration_id is null and " WAITING
        "                       limit nullif($1::bigint, 0)) x"};

int store_unrouted(struct pg *pg, int64_t limit, int64_t *ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *result = NULL;

    pg_arg_i64(&args, limit);
    int r = pg_query(pg, &unrouted, &args, &result, err);
    if (r == PG_DONE)
        *ret = pg_get_i64(result, 0, 0);
    return r;
}

/* Chunk by chunk: published events of a topic's type less the bits set and those put aside, over the last ids
 * of the ledger. What a consumer handled while we looked makes no lag. $1 how many ids */
const struct pg_statement store_lags = {
    "",
    "with state as (select high, greatest(high - $1, 0) / 8192 as first_chunk, gap_first, gap_last from relay_state),"
    "     published as ("
    "       select e.event_type::text as type, e.id / 8192 as chunk, count(*) as n"
    "         from state s join subscription_events e on e.id >= s.first_chunk * 8192 and e.id <= s.high"
    "        where e.event_type is not null"
    "          and not exists (select from unnest(s.gap_first, s.gap_last) as g (first, last)"
    "                           where e.id between g.first and g.last)"
    "        group by 1, 2),"
    "     handled as ("
    "       select b.consumer_group, b.topic, b.chunk,"
    "              sum(length(replace(('x' || encode(b.bits, 'hex'))::bit(8192)::text, '0', ''))) as n"
    "         from consumer_bitmaps b, state s where b.chunk >= s.first_chunk group by 1, 2, 3),"
    "     dead as ("
    "       select consumer_group, topic, sequence / 8192 as chunk, count(distinct sequence) as n"
    "         from (select consumer_group, topic,"
    "                      case when headers ->> 'sequence' ~ '^[0-9]{1,18}$' then (headers ->> 'sequence')::bigint end as sequence"
    "                 from dead_letters where replayed_at is null) d group by 1, 2, 3),"
    "     topics as ("
    "       select consumer_group, topic, count(*) as partitions, sum(next_offset) as read,"
    "              sum(foreign_messages) as foreign_messages, max(updated_at) as updated_at"
    "         from consumer_offsets group by 1, 2)"
    " select t.consumer_group, t.topic, t.partitions, t.read::bigint, t.foreign_messages::bigint, t.updated_at,"
    "        coalesce((select sum(greatest(p.n - coalesce(h.n, 0) - coalesce(d.n, 0), 0))"
    "                    from published p left join handled h on h.consumer_group = t.consumer_group"
    "                                                        and h.topic = t.topic and h.chunk = p.chunk"
    "                    left join dead d on d.consumer_group = t.consumer_group and d.topic = t.topic and d.chunk = p.chunk"
    "                   where t.topic like '%subscriptions.' || p.type), 0)::bigint"
    "   from topics t order by 1, 2"};

void store_lags_args(struct pg_args *args)
{
    pg_args_clear(args);
    pg_arg_i64(args, STORE_LAG_WINDOW);
}

/* --- explain ---------------------------------------------------------------------------------- */

static const struct pg_statement subscription = {
    "",
    "select s.status::text, s.attempts::bigint, s.payload_version, s.created_at::timestamptz, s.updated_at::timestamptz,"
    "       s.scheduled_to::timestamptz, s.next_attempt_at, s.lease_expires_at, s.held_at, s.sent_at::timestamptz,"
    "       s.claimed_by, s.last_error, s.last_http_status, coalesce(s.last_ambiguous, false), s.integration_id::bigint,"
    "       i.id is not null, coalesce(i.enabled, false), coalesce(i.endpoint_url, '') <> '', i.name::text,"
    "       i.pause_reason::text, i.circuit_state::text, case when i.paused_until > now() then i.paused_until end,"
    "       i.max_in_flight, i.max_attempts,"
    "       (select count(*) from subscriptions x where x.status = 'processing' and x.integration_id = s.integration_id),"
    "       (select count(*) from (select from subscriptions x"
    "          where x.integration_id = s.integration_id and x.status in ('pending', 'retry') and x.held_at is null"
    "            and (subscription_due(x.next_attempt_at, x.scheduled_to), x.id)"
    "              < (subscription_due(s.next_attempt_at, s.scheduled_to), s.id) limit $2) y),"
    "       (select namespace from installation), now(), " DAEMONS
    "  from subscriptions s left join integrations i on i.id = s.integration_id where s.id = $1"};

int store_subscription(struct pg *pg, int64_t id, struct store_subscription *ret, bool *ret_found,
                       struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    size_t len;

    pg_arg_i64(&args, id);
    pg_arg_i64(&args, STORE_AHEAD_MAX);
    int r = pg_query(pg, &subscription, &args, &ret->result, err);
    if (r != PG_DONE)
        return r;
    const struct pg_result *s = ret->result;
    *ret_found = pg_rows(s) == 1;
    if (!*ret_found)
        return PG_DONE;
    ret->status = pg_get_text(s, 0, 0);
    ret->attempts = pg_get_i64(s, 0, 1);
    ret->payload_version = pg_get_i64(s, 0, 2);
    ret->created_at = time_or_none(s, 0, 3);
    ret->updated_at = time_or_none(s, 0, 4);
    ret->scheduled_to = time_or_none(s, 0, 5);
    ret->next_attempt_at = time_or_none(s, 0, 6);
    ret->lease_expires_at = time_or_none(s, 0, 7);
    ret->held_at = time_or_none(s, 0, 8);
    ret->sent_at = time_or_none(s, 0, 9);
    ret->claimed_by = pg_get_text(s, 0, 10);
    ret->error = pg_get_text(s, 0, 11);
    ret->http_status = pg_get_i64(s, 0, 12);
    ret->ambiguous = pg_get_bool(s, 0, 13);
    ret->integration_id = pg_get_i64(s, 0, 14);
    ret->integration_exists = pg_get_bool(s, 0, 15);
    ret->enabled = pg_get_bool(s, 0, 16);
    ret->has_url = pg_get_bool(s, 0, 17);
    ret->integration_name = pg_get_text(s, 0, 18);
    ret->pause_reason = pg_get_text(s, 0, 19);
    ret->circuit_state = pg_get_text(s, 0, 20);
    ret->paused_until = time_or_none(s, 0, 21);
    ret->max_in_flight = pg_get_i64(s, 0, 22);
    ret->max_attempts = pg_get_i64(s, 0, 23);
    ret->in_flight = pg_get_i64(s, 0, 24);
    ret->ahead = pg_get_i64(s, 0, 25);
    ret->namespace = (const unsigned char *) pg_get_bytes(s, 0, 26, &len);
    ret->now = pg_get_time(s, 0, 27);
    ret->daemons = pg_get_i64(s, 0, 28);
    return PG_DONE;
}

/* Rows of before the adoption, and notes that are no events, are never published. */
static const struct pg_statement events = {
    "",
    "select e.id, e.created_at::timestamptz, e.event_type::text, e.operation_name::text, e.from_status::text,"
    "       e.to_status::text, coalesce(e.attempt, -1), e.http_status, coalesce(e.duration_ms, -1), e.error_message::text,"
    "       coalesce(e.ambiguous, false),"
    "       case when e.event_type is null or e.id <= coalesce(a.last_id, 0) then 2"
    "            when e.id <= r.high and not exists (select from unnest(r.gap_first, r.gap_last) as g (first, last)"
    "                                                 where e.id between g.first and g.last) then 0"
    "            else 1 end"
    "  from subscription_events e cross join relay_state r"
    "  left join ledger_partitions a on a.name = 'subscription_events_adopted'"
    " where e.subscription_id = $1 order by e.id"};

int store_events(struct pg *pg, int64_t subscription_id, struct pg_result **ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64(&args, subscription_id);
    return pg_query(pg, &events, &args, ret, err);
}

void store_event_row(const struct pg_result *r, int row, struct store_event *ret)
{
    ret->id = pg_get_i64(r, row, 0);
    ret->created_at = time_or_none(r, row, 1);
    ret->type = pg_get_text(r, row, 2);
    ret->operation = pg_get_text(r, row, 3);
    ret->from_status = pg_get_text(r, row, 4);
    ret->to_status = pg_get_text(r, row, 5);
    ret->attempt = pg_get_i64(r, row, 6);
    ret->http_status = pg_get_i64(r, row, 7);
    ret->duration_ms = pg_get_i64(r, row, 8);
    ret->error = pg_get_text(r, row, 9);
    ret->ambiguous = pg_get_bool(r, row, 10);
    ret->published = (enum store_published) pg_get_i64(r, row, 11);
}
