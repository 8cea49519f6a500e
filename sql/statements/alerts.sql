-- Statements of the alerts.

-- name: alerts_take_lead
-- See lead_lock(). True: this session looks for alerts and tells of them, until it ends; the session that was ended, 0 = none; and who
-- holds the lock and is no daemon.
select given, coalesce(ended, 0)::bigint, stranger from lead_lock('alerts')

-- name: alerts_notify
-- Puts into the outbox what is to be told: alerts that fire and nobody was told of, that were told of long ago, and that have resolved
-- after somebody was told. How many rows. What goes on is told to an Alertmanager by another clock, without rows.
-- $1 bigint: interval between two notifications, in ms
-- $2 text[]: sinks
with
-- include: alerts_quiet.part.sql
, due as materialized (
  select a.id, case when a.state = 'resolved' then 'resolved' when a.last_notified_at is null then 'fired' else 'repeated' end as event
    from alerts a
   where a.state = 'firing' and a.acknowledged_at is null
     -- A clock that was ahead told of it later than now.
     and (a.last_notified_at is null or a.last_notified_at <= now() - $1 * interval '1 ms' or a.last_notified_at > now() + interval '1 min')
     and not exists (select from quiet q where q.id = a.id)
      or a.state = 'resolved' and a.resolved_at > now() - interval '1 day' and a.last_notified_at < a.resolved_at
   order by a.id for no key update of a
), told as (
  update alerts a set last_notified_at = clock_timestamp() from due d where a.id = d.id
  returning a.*, d.event
), put as (
  insert into alert_outbox (alert_id, sink, event, body)
  select t.id, s.sink, t.event,
         jsonb_build_object('id', t.id, 'integration',
             case when i.id is not null then jsonb_build_object('id', i.id, 'name', i.name)
                  -- It was deleted: as it was told before.
                  when t.integration_id is not null then (select o.body -> 'integration' from alert_outbox o where o.alert_id = t.id
                                                           order by o.id desc limit 1) end,
             'integration_id', t.integration_id, 'kind', t.kind, 'state', t.state, 'value', t.value, 'threshold', t.threshold,
             'message', t.message, 'started_at', t.started_at, 'resolved_at', t.resolved_at, 'last_notified_at', t.last_notified_at)
    from told t left join integrations i on i.id = t.integration_id cross join unnest($2::text[]) as s (sink)
   where t.event <> 'repeated' or s.sink not like 'alertmanager %'
   order by t.id
  returning id
)
select count(*) from put

-- name: alerts_waiting
-- What a sink is to be told next, of each alert in order: what it has not taken of one keeps no other back. The row's id, the alert's, the event, the kind, the integration and its name, the words, the
-- body, and how often it was tried. What is due in more than ten minutes a clock has put there that was ahead.
-- $1 text: sink
-- $2 bigint: at most so many
select o.id, o.alert_id, o.event, o.body ->> 'kind', (o.body ->> 'integration_id')::bigint,
       left(o.body -> 'integration' ->> 'name', 100), o.body ->> 'message', o.body::text, o.attempts::bigint
  from alert_outbox o
 where o.sink = $1 and o.sent_at is null and not o.due_at between now() + interval '1 us' and now() + interval '10 min'
   and not exists (select from alert_outbox b where b.sink = $1 and b.alert_id = o.alert_id and b.sent_at is null and b.id < o.id
                                                  and b.due_at between now() + interval '1 us' and now() + interval '10 min')
 order by o.id limit $2

-- name: alerts_sent
-- A sink has taken these.
-- $1 bigint[]: rows of the outbox
update alert_outbox set sent_at = clock_timestamp(), error = null where id = any ($1)

-- name: alerts_postponed
-- A sink has not taken these: they are tried again later. What it has not taken for a day is given up: how many rows.
-- $1 bigint[]: rows of the outbox
-- $2 bigint: delay in ms
-- $3 text: why
with postponed as (
  update alert_outbox set attempts = attempts + 1, error = $3, due_at = clock_timestamp() + $2 * interval '1 ms'
   where id = any ($1) and created_at > now() - interval '1 day'
), given_up as (
  delete from alert_outbox where id = any ($1) and created_at <= now() - interval '1 day' returning id
)
select count(*) from given_up

-- name: alertmanager_took
-- An Alertmanager has taken a body that said all up to this row.
-- $1 text: sink
-- $2 bigint: row of the outbox
update alert_outbox set sent_at = clock_timestamp(), error = null where sink = $1 and id <= $2 and sent_at is null

-- name: alertmanager_refused
-- It has not taken it; the next body says it again.
-- $1 text: sink
-- $2 bigint: row of the outbox
-- $3 text: why
update alert_outbox set attempts = attempts + 1, error = $3 where sink = $1 and id <= $2 and sent_at is null

-- name: alerts_unnamed
-- What was to be told to sinks that are not among these is given up: the sinks, and how many rows.
-- $1 text[]: sinks
with unnamed as (
  delete from alert_outbox where sent_at is null and sink <> all ($1) returning sink
)
select coalesce(string_agg(distinct sink, ', '), ''), count(*) from unnamed

-- name: alerts_firing
-- How many alerts fire.
select count(*) from alerts where state = 'firing' and kind <> 'test'

-- name: alerts_prune
-- Forgets what no look needs any more: counts of outcomes, what was told, silences and pauses that are over; and what nobody was told of: a
-- test after some minutes, the rest after a day.
-- $1 bigint: the window, in ms
with buckets as (
  delete from alert_buckets where bucket < floor((extract(epoch from now()) - $1 / 1000.0 - 60) / 10)
), told as (
  delete from alert_outbox o
   where o.sent_at < now() - interval '1 day'
      or o.sent_at is null and (o.created_at < now() - interval '25 h'
                                or o.created_at < now() - interval '10 min'
                                   and exists (select from alerts a where a.id = o.alert_id and a.kind = 'test'))
), firsts as (
  delete from alert_firsts where seen_at < now() - interval '7 days'
), rests as (
  -- backlog_age is at most thirty days.
  delete from alert_rests r
   where r.ended_at < now() - interval '31 days' or not exists (select from integrations i where i.id = r.integration_id)
), silences as (
  delete from alert_silences where until < now() - interval '1 day' returning id
)
select count(*) from silences
