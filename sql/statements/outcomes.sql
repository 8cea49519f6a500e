-- The evidence of the failure rate, see alert_evidence. Outcomes are those of events: what comes a day late is none any more. An
-- integration that does not exist has none. What a clock wrote that was ahead is of now: it would hide all that comes until then.

-- name: note_outcomes
-- Keeps the newest outcomes of each integration, in the order of their ids.
-- $1 bigint[]: integrations, one for each outcome; the newest 20 of each are enough
-- $2 bigint[]: outcomes, as alert_evidence.recent has them
insert into alert_evidence as e (integration_id, recent)
select o.id, o.recent
  from (select i.id, (array_agg(least(u.coded / 2, t.usec) * 2 + u.coded % 2 order by u.coded desc))[1:20] as recent
          from (select (extract(epoch from now()) * 1000000)::bigint as usec) t
         cross join unnest($1::bigint[], $2::bigint[]) as u (id, coded) join integrations i on i.id = u.id
         where u.coded > (extract(epoch from now()) - 86400) * 2000000
         group by i.id) o
 order by o.id
    on conflict (integration_id) do update
   set recent = array(select least(x / 2, (extract(epoch from now()) * 1000000)::bigint) * 2 + x % 2
                        from unnest(e.recent || excluded.recent) as x order by 1 desc limit 20)

-- name: count_outcomes
-- Counts them. In the transaction of note_outcomes, which has locked the integrations' rows.
-- $1 bigint[]: integrations, one for each bucket
-- $2 bigint[]: buckets
-- $3 bigint[]: outcomes in it
-- $4 bigint[]: failures among them
insert into alert_buckets as b (integration_id, bucket, total, failed)
select u.id, least(u.bucket, t.bucket), sum(u.total), sum(u.failed)
  from (select floor(extract(epoch from now()) / 10)::bigint as bucket) t
 cross join unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[]) as u (id, bucket, total, failed)
  join alert_evidence e on e.integration_id = u.id
 where u.bucket > (extract(epoch from now()) - 86400) / 10
 group by 1, 2 order by 1, 2
    on conflict (integration_id, bucket) do update set total = b.total + excluded.total, failed = b.failed + excluded.failed

-- name: not_first_attempts
-- Which of these were counted before as the first attempt of their subscription: their places in the lists, from 1 on. An attempt that
-- cost nothing is followed by another first one, so subscriptions of which that may be true are remembered.
-- $1 bigint[]: subscriptions
-- $2 boolean[]: whether the attempt may have cost nothing
with asked as (
  select id, may_cost_nothing, place, row_number() over (partition by id order by place) as number
    from unnest($1::bigint[], $2::boolean[]) with ordinality as u (id, may_cost_nothing, place)
), remembered as (
  insert into alert_firsts as f (subscription_id)
  select distinct id from asked where may_cost_nothing order by id
      on conflict (subscription_id) do update set seen_at = excluded.seen_at where f.seen_at < now() - interval '1 h'
)
select place from asked a
 where number > 1 or exists (select from alert_firsts f where f.subscription_id = a.id)

-- name: not_answered
-- Which of these events have no answer of an institution: their places in the list, from 1 on.
-- $1 bigint[]: ledger ids
-- $2 bigint: the lowest of them
-- $3 bigint: the highest
select a.place from unnest($1::bigint[]) with ordinality as a (id, place)
  left join lateral (select e.http_status from subscription_events e where e.id = a.id and e.id between $2 and $3 offset 0) e on true
 where e.http_status is null
