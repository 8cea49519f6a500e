-- The body of a request to an Alertmanager (API v2), NULL when there is nothing to say, and the last row of its outbox that it answers:
-- of each integration and kind the latest alert that somebody was told of, as long as it fires, a while longer, and until this one has
-- taken it. endsAt of one that fires is a lease: without us it ends. So a silence that comes later keeps it: what fires is not over.
-- Labels name the alert, so none changes. A start in the future, by a clock that was ahead, is refused.
-- $1 text: sink
with told as (
  select id from alerts where state = 'firing'
  union
  select id from alerts where state = 'resolved' and resolved_at > now() - interval '15 min'
  union
  select alert_id from alert_outbox where sink = $1 and sent_at is null
), latest as (
  select distinct on (a.kind, coalesce(a.integration_id, 0)) a.*
    from told t join alerts a using (id)
   where a.last_notified_at is not null
   order by a.kind, coalesce(a.integration_id, 0), a.id desc
)
select jsonb_agg(jsonb_build_object(
         'labels', jsonb_strip_nulls(jsonb_build_object(
             'alertname', 'Anubisd' || replace(initcap(replace(l.kind, '_', ' ')), ' ', ''),
             'severity', case when l.kind in ('backlog', 'dead_letters', 'test') then 'warning' else 'critical' end,
             'kind', l.kind, 'integration_id', l.integration_id::text,
             'instance', installation_name()::text)),
         'annotations', jsonb_strip_nulls(jsonb_build_object(
             'summary', l.message, 'integration', left(i.name, 100), 'value', l.value::text, 'alert', l.id::text)),
         'startsAt', least(l.started_at, now()),
         'endsAt', case l.state when 'firing' then now() + interval '4 min' else l.resolved_at end))::text,
       (select max(id) from alert_outbox where sink = $1 and sent_at is null)
  from latest l left join integrations i on i.id = l.integration_id
