-- Each integration gives at most as many rows as it has free slots: one with a million rows or a dead endpoint
-- hides no other. The order is the index's, so fresh rows (due at -infinity) come before retries that have fallen
-- due. A locked row's ctid is stable, so the update needs no second index. A setting that is not positive (an
-- adopted table may hold one) counts as not set. An integration that has just backed off, for which this daemon
-- knows no limit, begins with one request.
open as (
  select i.id, i.endpoint_url, i.auth_token, coalesce(nullif(greatest(i.timeout_ms, 0), 0), $10) as timeout_ms,
         i.max_attempts, r.backoff_until > now() - interval '1 minute' as recovers,
         least(coalesce(nullif(greatest(i.max_in_flight, 0), 0), $5), $14,
               case when b.slots < 2147483647 then b.slots
                    when r.backoff_until > now() - interval '1 minute' then 1 end)
         - coalesce(b.in_flight, 0) as slots,
         p.due, p.id as after_id
    from place p join integrations i on i.id = p.integration_id
    left join unnest($3, $4, $13) as b (id, in_flight, slots) on b.id = i.id
    left join integration_runtime r on r.integration_id = i.id
   where i.enabled and coalesce(r.circuit_state, 'closed') <> 'open' and (i.paused_until is null or i.paused_until <= now())
     and (r.backoff_until is null or r.backoff_until <= now())
), free as materialized (
  select * from open where slots > 0 order by id <= $6, id
), locked as materialized (
  select f.id as integration_id, f.slots, f.timeout_ms, s.row_at,
         case when pg_column_size(s.payload) < 1000 then 1000 else octet_length(s.payload::text) end as bytes
    from free f cross join lateral (
      select ctid as row_at, payload from subscriptions
       where integration_id = f.id and status in ('pending', 'retry') and held_at is null
         and (subscription_due(next_attempt_at, scheduled_to), id) > (f.due, f.after_id)
         and subscription_due(next_attempt_at, scheduled_to) <= now() and id <> all ($12)
       order by integration_id, subscription_due(next_attempt_at, scheduled_to), id limit f.slots
       for no key update skip locked) s
   limit $1
), within as (
  select *, count(*) over (partition by integration_id) as taken
    from (select *, sum(bytes) over (rows unbounded preceding) - bytes as before from locked) l
   where before < $2
)
