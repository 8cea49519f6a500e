-- name: status_integrations :once
-- All integrations, with their subscriptions that wait, are in flight or held.
-- $1 bigint: how many waiting rows are counted in each integration; 0 = all
-- $2 bigint: how many rows that are due now are counted, and how many that are due later
-- $3 bigint: seconds; what is tried again is due within them
-- $4 bigint: how many of the last due rows are looked at for why they are tried again
-- The index subscriptions_due answers all of it: counting by its predicate alone needs no look at the table, so that
-- all are counted, but only some of those due now and of those due later. Within an integration fresh rows (due at
-- -infinity) come first, by id, so the row that waits longest is the first fresh one or the first of the others. A row
-- that is tried again is due in the past or soon, so that rows scheduled far ahead do not hide it.
-- A fresh row is due since it was written, or since the database was adopted; one that was put back, since then. A claim that ended
-- without a request puts nothing back. The oldest of those that were not put back is among their first few, by id.
-- $5 bigint: how many of the last ids of the ledger are looked at for rows that were put back
with put_back as materialized (
  select e.subscription_id::bigint as id, max(e.created_at)::timestamptz as at
    from subscription_events e
   where e.id > (select last_value from ledger_id_seq) - $5 and e.to_status::text = 'pending' and e.from_status::text <> 'processing'
   group by 1
), put_back_since as (
  select s.integration_id, min(b.at) as at
    from put_back b join subscriptions s on s.id = b.id
   where s.status in ('pending', 'retry') and s.held_at is null and subscription_due(s.next_attempt_at, s.scheduled_to) = '-infinity'
   group by 1
), flying as (
  select integration_id, count(*) as n from subscriptions where status = 'processing' group by 1
), held as (
  select integration_id, count(*) as n from subscriptions where held_at is not null group by 1
), doubtful as (
  select integration_id, count(*) as n from subscriptions where status = 'failed' and last_ambiguous group by 1
)
select i.id::bigint, i.name::text, i.enabled, case when i.paused_until > now() then i.paused_until end,
       i.pause_reason::text, coalesce(r.circuit_state, 'closed'), r.circuit_until, r.circuit_reason, r.circuit_since, r.circuit_why,
       case when r.backoff_until > now() then r.backoff_until end, r.backoff_reason, w.n, d.n, l.n, coalesce(f.n, 0), coalesce(h.n, 0),
       least(coalesce(i.successful_sends, 0)::numeric + coalesce(r.sent - r.sent_folded, 0), 9223372036854775807)::bigint,
       least(coalesce(i.failed_sends, 0)::numeric + coalesce(r.failed - r.failed_folded, 0), 9223372036854775807)::bigint,
       coalesce(a.n, 0),
       least(fresh.since, again.since, p.at),
       coalesce(tried.last_http_status, 0)::bigint, coalesce(tried.last_error, '')::text
  from integrations i
  left join integration_runtime r on r.integration_id = i.id
  cross join lateral (
    select count(*) as n
      from (select from subscriptions s
             where s.integration_id = i.id and s.status in ('pending', 'retry') and s.held_at is null
             limit nullif($1::bigint, 0)) x) w
  cross join lateral (
    select count(*) as n
      from (select from subscriptions s
             where s.integration_id = i.id and s.status in ('pending', 'retry') and s.held_at is null
               and subscription_due(s.next_attempt_at, s.scheduled_to) <= now() limit $2) x) d
  cross join lateral (
    select count(*) as n
      from (select from subscriptions s
             where s.integration_id = i.id and s.status in ('pending', 'retry') and s.held_at is null
               and subscription_due(s.next_attempt_at, s.scheduled_to) > now() limit $2) x) l
  left join lateral (
    select min(greatest(x.created_at, n.created_at,
                        case when x.last_error not like 'not sent:%' or x.last_http_status is not null then x.updated_at end)) as since
      from (select s.id::bigint, as_instant(s.created_at) as created_at, as_instant(s.updated_at) as updated_at, s.last_error,
                   s.last_http_status
              from subscriptions s
             where s.integration_id = i.id and s.status in ('pending', 'retry') and s.held_at is null
               and subscription_due(s.next_attempt_at, s.scheduled_to) = '-infinity'
               and not exists (select from put_back b where b.id = s.id::bigint)
             order by s.integration_id, subscription_due(s.next_attempt_at, s.scheduled_to), s.id limit 20) x
     cross join installation n) fresh on true
  left join lateral (
    select subscription_due(s.next_attempt_at, s.scheduled_to) as since
      from subscriptions s
     where s.integration_id = i.id and s.status in ('pending', 'retry') and s.held_at is null
       and subscription_due(s.next_attempt_at, s.scheduled_to) > '-infinity'
       and subscription_due(s.next_attempt_at, s.scheduled_to) <= now()
     order by s.integration_id, subscription_due(s.next_attempt_at, s.scheduled_to), s.id limit 1) again on true
  left join lateral (
    select x.last_http_status, x.last_error
      from (select s.status, s.last_http_status, s.last_error, s.updated_at
              from subscriptions s
             where s.integration_id = i.id and s.status in ('pending', 'retry') and s.held_at is null
               and subscription_due(s.next_attempt_at, s.scheduled_to) <= now() + $3::bigint * interval '1 s'
             order by s.integration_id desc, subscription_due(s.next_attempt_at, s.scheduled_to) desc, s.id desc
             limit $4) x
     where x.status = 'retry' and (x.last_http_status is not null or x.last_error is not null)
     order by x.updated_at desc nulls last limit 1) tried on true
  left join put_back_since p on p.integration_id = i.id
  left join flying f on f.integration_id = i.id
  left join held h on h.integration_id = i.id
  left join doubtful a on a.integration_id = i.id
 order by i.id
