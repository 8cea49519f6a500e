-- Each integration gives at most as many rows as it has free slots: one with a million rows or a dead endpoint
-- hides no other. The order is the index's, so fresh rows (due at -infinity) come before retries that have fallen
-- due. Both parts of the index have a place of their own: a claim that has gone on to the retries still finds the
-- next fresh row. Integrations come in the order of their places ("offset 0": no other join keeps it), and no further
-- than the limit needs. A locked row's ctid is stable, so the update needs no second index. A setting that is not
-- positive (an adopted table may hold one) counts as not set. An integration that has just backed off, for which this
-- daemon knows no limit, begins with one request.
free as (
  select i.id, i.endpoint_url, i.auth_token, coalesce(nullif(greatest(i.timeout_ms, 0), 0), $10) as timeout_ms,
         i.max_attempts, i.recovers,
         least(coalesce(nullif(greatest(i.max_in_flight, 0), 0), $5), $14,
               case when b.slots < 2147483647 then b.slots when i.recovers then 1 end)
         - coalesce(b.in_flight, 0) as slots,
         p.fresh_id, p.due, p.id as after_id
    from place p
   cross join lateral (
     select i.id, i.endpoint_url, i.auth_token, i.timeout_ms, i.max_attempts, i.max_in_flight,
            r.backoff_until > now() - interval '1 minute' as recovers, width_bucket(i.id::bigint, $3) as n
       from integrations_open o join integrations i on i.id = o.id
       left join integration_runtime r on r.integration_id = i.id
      where o.id = p.integration_id offset 0) i
    left join lateral (select $4[i.n] as in_flight, $13[i.n] as slots where $3[i.n] = i.id) b on true
), locked as materialized (
  select f.id as integration_id, f.endpoint_url, f.auth_token, f.timeout_ms, f.max_attempts, f.recovers, f.slots,
         s.row_at,
         case when pg_column_size(s.payload) < 1000 then 1000 else octet_length(s.payload::text) end as bytes
    from free f cross join lateral (
      select * from (
        select ctid as row_at, payload from subscriptions
         where integration_id = f.id and status in ('pending', 'retry') and held_at is null
           and subscription_due(next_attempt_at, scheduled_to) = '-infinity' and id > f.fresh_id and id <> all ($12)
         order by integration_id, subscription_due(next_attempt_at, scheduled_to), id limit f.slots
         for no key update skip locked) fresh
      union all
      select * from (
        select ctid as row_at, payload from subscriptions
         where integration_id = f.id and status in ('pending', 'retry') and held_at is null
           and (subscription_due(next_attempt_at, scheduled_to), id) > (f.due, f.after_id)
           and subscription_due(next_attempt_at, scheduled_to) <= now() and id <> all ($12)
         order by integration_id, subscription_due(next_attempt_at, scheduled_to), id limit f.slots
         for no key update skip locked) others
      limit f.slots) s
   where f.slots > 0
   limit $1
), within as (
  select *, count(*) over (partition by integration_id) as taken, clock_timestamp() as found_at
    from (select *, sum(bytes) over (rows unbounded preceding) - bytes as before from locked) l
   where before < $2
)
