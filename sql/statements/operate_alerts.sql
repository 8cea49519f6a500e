-- What operators do about alerts: "anubisctl alerts".

-- name: alerts_list :once
-- Alerts that fire, and those that were over within the last day, latest first: the alert's columns, the integration's name, and why
-- nobody is told of it now.
with
-- include: alerts_quiet.part.sql
select a.id, a.kind, a.integration_id, left(i.name, 100), a.state, a.value::text, a.threshold::text, a.message, a.started_at, a.resolved_at,
       a.last_notified_at, a.acknowledged_at, a.acknowledged_by, (select min(q.reason) from quiet q where q.id = a.id)
  from (select * from alerts where state = 'firing'
        union all
        (select * from alerts where state = 'resolved' and resolved_at > now() - interval '1 day' order by resolved_at desc limit 200)) a
  left join integrations i on i.id = a.integration_id
 order by a.state, a.id desc

-- name: alerts_silences :once
-- Silences that are not over: the integration, its name, the kind (NULL = all), until when, and why.
select s.integration_id, left(i.name, 100), s.kind, s.until, s.reason
  from alert_silences s join integrations i on i.id = s.integration_id
 where s.until > now() order by s.integration_id, s.kind nulls first

-- name: alerts_behind :once
-- Sinks that have not taken everything: the sink, how many notices wait, since when, and why the first of them was refused.
select sink, count(*), min(created_at), (array_agg(error order by id))[1] from alert_outbox where sent_at is null group by sink order by sink

-- name: alert_acknowledge :once
-- Nobody is told of the alert again until it is over: its kind, its integration, who has acknowledged it before, and whether it fires. No
-- row: there is none with this id.
-- $1 bigint: alert
-- $2 text: who
with before as materialized (
  select id, kind, integration_id, acknowledged_by, state = 'firing' as fires from alerts where id = $1 for update
), acknowledged as (
  update alerts a set acknowledged_at = clock_timestamp(), acknowledged_by = $2
    from before b where a.id = b.id and b.fires and b.acknowledged_by is null
)
select kind, integration_id, acknowledged_by, fires from before

-- name: alert_silence :once
-- Nobody is told of alerts of an integration for so long from now: its name, until when. It takes the place of an earlier silence of the
-- same kind. No row: there is no such integration.
-- $1 bigint: integration
-- $2 text: kind; NULL = all
-- $3 bigint: for how long, in ms
-- $4 text: why, and who
with silenced as (
  insert into alert_silences (integration_id, kind, until, reason)
  select id, $2, now() + $3 * interval '1 ms', $4 from integrations where id = $1
      on conflict (integration_id, coalesce(kind, '')) do update
     set until = excluded.until, reason = excluded.reason, created_at = clock_timestamp()
  returning integration_id, until
)
select left(i.name, 100), s.until from silenced s join integrations i on i.id = s.integration_id

-- name: alert_unsilence :once
-- Ends silences of an integration: its name, and how many there were. No row: there is no such integration.
-- $1 bigint: integration
-- $2 text: kind; NULL = all of them
with ended as (
  delete from alert_silences where integration_id = $1 and ($2::text is null or kind = $2) returning until
)
select left(name, 100), (select count(*) from ended where until > now()) from integrations where id = $1

-- name: alert_test :once
-- Fires an alert that is none: whether a daemon tells of alerts, and the alert's id. It stays NULL when there is no such daemon, or when
-- another test has not been over yet.
-- $1 text: words
with listener as materialized (
  select coalesce(h.held and h.stranger is null, false) as is_there from lock_holder('alerts') h
), fired as (
  insert into alerts (kind, message) select 'test', $1 from listener where is_there
      on conflict (kind, coalesce(integration_id, 0)) where state = 'firing' do nothing
  returning id
)
select is_there, (select id from fired) from listener

-- name: alert_test_results :once
-- What became of a test: the sink, whether it has taken it, after how long in ms, how often it was tried, and why it was refused last.
-- $1 bigint: alert
select sink, sent_at is not null, (extract(epoch from sent_at - created_at) * 1000)::bigint, attempts::bigint, error
  from alert_outbox where alert_id = $1 and event = 'fired' order by id
