-- The failure rate: its evidence, and what came of it.

-- name: evidence_cut
-- While there is a cause (the circuit is open, the integration paused or disabled, the network lost), what happens says nothing: it does
-- not count later either. How many integrations.
with cut as (
  update alert_evidence e set since = extract(epoch from clock_timestamp()) * 1000000, above_since = 0
    from integrations i left join integration_runtime r on r.integration_id = i.id
   where i.id = e.integration_id and e.recent[1] / 2 > e.since
     and (not i.enabled or i.paused_until > now() or r.circuit_state <> 'closed'
          or exists (select from alerts where kind = 'network' and state = 'firing'))
  returning e.integration_id
)
select count(*) from cut

-- name: evidence_read
-- Integrations with outcomes within the window and without a cause: outcomes and failures within the window, the newest outcomes (1 =
-- failure, newest first), above_since, the time in microseconds since 1970, and value and threshold of the alert that fires, in millionths. What a
-- consumer that is far behind brings is old: it is looked at when the consumer has caught up.
-- $1 bigint: the window, in ms
with at as materialized (
  select (extract(epoch from clock_timestamp()) * 1000000)::bigint as usec
), found as materialized (
  select e.integration_id as id, e.recent, e.above_since, at.usec,
         greatest(e.since, (extract(epoch from r.circuit_since) * 1000000)::bigint, 0) as cut
    from at cross join alert_evidence e
    join integrations i on i.id = e.integration_id
    left join integration_runtime r on r.integration_id = e.integration_id
   where e.recent[1] / 2 > at.usec - $1 * 1000
     and i.enabled and (i.paused_until is null or i.paused_until <= now()) and coalesce(r.circuit_state, 'closed') = 'closed'
     and not exists (select from alerts where kind = 'network' and state = 'firing')
)
select f.id::bigint, b.total, b.failed,
       array(select x % 2 from unnest(f.recent) as x where x / 2 > greatest(f.cut, f.usec - 86400000000) order by x desc),
       f.above_since, f.usec, (a.value * 1000000)::bigint, (a.threshold * 1000000)::bigint
  from found f
  left join alerts a on a.kind = 'failure_rate' and a.integration_id = f.id and a.state = 'firing'
 cross join lateral (
   select coalesce(sum(total), 0)::bigint as total, coalesce(sum(failed), 0)::bigint as failed from alert_buckets
    where integration_id = f.id and bucket > (f.usec - $1 * 1000) / 10000000 - 1 and bucket * 10000000 >= f.cut) b
 order by f.id

-- name: evidence_above
-- Since when the share of failures is too high, as far as the alert waits for it to last.
-- $1 bigint: integration
-- $2 bigint: microseconds since 1970; 0 = it is not
update alert_evidence set above_since = $2 where integration_id = $1

-- name: rate_fires
-- Fires the alert, or says what is so now of the one that fires; and pauses the integration where that is wanted, which is told also of an
-- alert that fires: what happened before counts no more, however soon somebody resumes it. Whether it was paused.
-- $1 bigint: integration
-- $2 bigint: share of failures, in millionths
-- $3 bigint: the threshold, in millionths
-- $4 text: words
-- $5 text: why it is paused; NULL = it is not
with fired as (
  insert into alerts as a (integration_id, kind, value, threshold, message) values ($1, 'failure_rate', $2 / 1000000.0, $3 / 1000000.0, $4)
      on conflict (kind, coalesce(integration_id, 0)) where state = 'firing' do update
     set value = excluded.value, threshold = excluded.threshold, message = excluded.message,
         last_notified_at = case when $5 is not null and a.last_notified_at is not null then '-infinity' else a.last_notified_at end,
         acknowledged_at = case when $5 is null then a.acknowledged_at end, acknowledged_by = case when $5 is null then a.acknowledged_by end
  returning id
), paused as (
  update integrations i set paused_until = 'infinity', pause_reason = $5, updated_at = now()
   where i.id = $1 and $5 is not null and (i.paused_until is null or i.paused_until <= now()) and exists (select from fired)
  returning i.id
), cut as (
  update alert_evidence e set since = extract(epoch from clock_timestamp()) * 1000000 from paused p where e.integration_id = p.id
)
select exists (select from paused)

-- name: rate_resolves
-- $1 bigint: integration
update alerts a set state = 'resolved', resolved_at = clock_timestamp(),
-- include: alerts_over.part.sql
 where kind = 'failure_rate' and state = 'firing' and integration_id = $1
