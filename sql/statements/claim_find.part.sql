-- Rows of the integrations in "free", each locked: at most as many as an integration has free slots, so one with a million
-- rows or a dead endpoint hides no other. The order is the index's, so fresh rows (due at -infinity) come before retries
-- that have fallen due. Both parts of the index have a place of their own: a claim that has gone on to the retries still
-- finds the next fresh row. No integration is looked at beyond the limit. A locked row's ctid is stable, so the update
-- needs no second index.
--
-- How long a payload is as text is only known when all of it has been read, which costs a page for each 2 KB. So those that come after
-- more than the budget, were each four times as long as it is stored (compressed), are not even read.
, locked as materialized (
  select f.id as integration_id, f.name, f.endpoint_url, f.auth_token, f.delivery_settings, f.timeout_ms, f.max_attempts,
         f.recovers, f.generation,
         f.has_failures, f.taken_at, f.refused_turn, f.refuses, f.slots, f.retry_slots, f.rate, f.send_at, f.takes, s.row_at, s.is_retry,
         s.guess
    from free f cross join lateral (
      select * from (
        select ctid as row_at, least(greatest(pg_column_size(payload), 250), 250000000) * 4 as guess, false as is_retry from subscriptions
         where integration_id = f.id and status in ('pending', 'retry') and held_at is null
           and subscription_due(next_attempt_at, scheduled_to) = '-infinity' and id > f.fresh_id and id <> all ($12)
         order by integration_id, subscription_due(next_attempt_at, scheduled_to), id limit f.slots
         for no key update skip locked) fresh
      union all
      select * from (
        select ctid as row_at, least(greatest(pg_column_size(payload), 250), 250000000) * 4, true as is_retry from subscriptions
         where integration_id = f.id and status in ('pending', 'retry') and held_at is null
           and (subscription_due(next_attempt_at, scheduled_to), id) > (f.due, f.after_id)
           and subscription_due(next_attempt_at, scheduled_to) <= now() and id <> all ($12)
         order by integration_id, subscription_due(next_attempt_at, scheduled_to), id limit least(f.slots, f.retry_slots)
         for no key update skip locked) others
      limit f.slots) s
   where f.slots > 0
   limit $1
), likely as materialized (
  select * from (select *, sum(guess) over (rows unbounded preceding) - guess as guessed from locked) l where guessed < $2
), found as (
  select *, count(*) over (partition by integration_id) as taken,
         count(*) filter (where is_retry) over (partition by integration_id) as retries_taken, clock_timestamp() as found_at,
         (select count(*) from locked) > count(*) over () as cut
    from (select *, sum(bytes) over (rows unbounded preceding) - bytes as before
            from (select *, case when guess >= 4000
                                 then coalesce((select octet_length(p.payload::text) from subscriptions p where p.ctid = row_at), 1000)
                                 else 1000 end as bytes from likely offset 0) l) l
   where before < $2
)
