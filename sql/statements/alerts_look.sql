-- Fires what is wrong according to the database, resolves what is no longer, and tells again what has another cause: how many alerts have
-- changed.
--
-- "held" has a row for each alert that goes on; those that fire now say so. Between both lies what keeps an alert from coming and going
-- around its threshold. The failure rate is judged elsewhere; here it ends with an integration that is disabled. While our own network
-- is lost, what waits fires nothing new.
-- $1 bigint: how long the oldest subscription or event may wait, in ms
-- $2 bigint: for how long a circuit must be closed, and the network be there, in ms; twice as long for each such alert of the last hour
-- $3 integer: failures in a row that open a circuit
-- $4 bigint: the age at which a subscription fails for good, in ms
-- $5 text: name of the sessions of daemons whose network is lost
with own as materialized (
  select i.id, i.enabled, i.paused_until > now() is true as paused, coalesce(r.circuit_state, 'closed') as circuit,
         r.circuit_since, r.circuit_reason, r.circuit_failures, r.circuit_why, r.circuit_ours,
         case when i.paused_until > now() and i.pause_reason::text = r.own_pause then r.own_pause end as own_pause
    from integrations i left join integration_runtime r on r.integration_id = i.id
   where i.enabled
), lost as (
  select count(*) as count from pg_stat_activity where datname = current_database() and application_name = $5
), flaps as (
  -- What comes and goes again and again is one alert in the end.
  select kind, integration_id, count(*) as count from alerts
   where state = 'resolved' and resolved_at > now() - interval '1 h' and kind in ('circuit_open', 'authentication', 'network')
   group by kind, integration_id
), calm (kind, integration_id, lasts) as (
  select kind, integration_id, least($2 * 2 ^ least(count, 10), greatest($2, 600000)) * interval '1 ms' from flaps
), waiting as (
  select w.id, w.age, case when isfinite(w.created_at) then $4 * interval '1 ms' - (now() - w.created_at) end as left_over,
         -- What has waited for a cause goes out now: it is late when it has had so long for that.
         w.age >= $1 * interval '1 ms' and coalesce(w.circuit_since <= now() - $1 * interval '1 ms', true)
         and not exists (select from alert_rests r
                          where r.integration_id = w.id and coalesce(r.ended_at > now() - $1 * interval '1 ms', true)) as fires
    from (select o.id, o.circuit_since, s.created_at, s.age
            from own o cross join lateral (
              select as_instant(h.created_at) as created_at,
                     now() - case when isfinite(h.due) then h.due when isfinite(as_instant(h.created_at)) then as_instant(h.created_at)
                                  else now() end as age
                from ((select created_at, subscription_due(next_attempt_at, scheduled_to) as due from subscriptions
                        where integration_id = o.id and status in ('pending', 'retry') and held_at is null
                        order by subscription_due(next_attempt_at, scheduled_to), id limit 1)
                      union all
                      (select created_at, subscription_due(next_attempt_at, scheduled_to) from subscriptions
                        where integration_id = o.id and status in ('pending', 'retry') and held_at is null
                          and subscription_due(next_attempt_at, scheduled_to) > '-infinity'
                        order by subscription_due(next_attempt_at, scheduled_to), id limit 1)) h
               where h.due < 'infinity'
               order by age desc limit 1) s
           where o.circuit = 'closed' and not o.paused) w
   where w.age >= $1 * interval '0.5 ms'
), resting as (
  insert into alert_rests as r (integration_id)
  select i.id from integrations i
   where (i.enabled is not true or i.paused_until > now())
     and not exists (select from alert_rests a where a.integration_id = i.id and a.ended_at is null)
   order by i.id
      on conflict (integration_id) do update set ended_at = null
), rested as (
  update alert_rests r set ended_at = now() from own o where o.id = r.integration_id and not o.paused and r.ended_at is null
), relay as (
  select r.stopped_on, r.stopped_reason, k.trouble, k.leads,
         (select now() - as_instant(e.created_at) from subscription_events e where e.id > r.high order by e.id limit 1) as age
    from relay_state r,
         -- See status_overview.
         (select coalesce(h.held and h.stranger is null, false), substring(h.application_name from '[(](.*)[)]$')
            from lock_holder('relay') h) as k (leads, trouble)
), letters as (
  select count(*) as count from (select from dead_letters where replayed_at is null and discarded_at is null limit 10000) d
), unconfirmed as (
  select o.id, c.count
    from own o
   cross join lateral (select within_usec from confirmation_terms t where t.integration_id = o.id order by t.after_id desc limit 1) t
   cross join lateral (select count(*) as count from (select from confirmations c where c.integration_id = o.id and c.status = 'overdue'
                                                       limit 10000) x) c
   where t.within_usec is not null and c.count > 0
), stops as (
  select count(*) as count, string_agg(format('the group %s has stopped: %s. Run "anubisctl %s"', read_model, reason,
                                              coalesce(command, 'resume --group ' || read_model)),
                                       '; ' order by stopped_at) as words
    from consumer_stops where passes_until is null
), held (integration_id, kind, fires, value, threshold, message) as (
  select id, case circuit_reason when 'authentication' then 'authentication' else 'circuit_open' end, not paused,
         circuit_failures::double precision, $3::double precision,
         case when circuit_reason is distinct from 'authentication' then 'requests fail, so only a probe is sent now and then'
              when circuit_ours then format('anubisd lacks a credential of its own, so nothing is sent to the institution: %s', circuit_why)
              when circuit_why like 'its token endpoint %' then 'its token endpoint gives no token, so nothing is sent to the institution'
              else 'the institution refuses the credentials' end
    from own where circuit <> 'closed'
  union all
  -- What a person has put in its place does not go away again by itself.
  select o.id, k.kind, false, null, null, null
    from own o cross join (values ('circuit_open'), ('authentication')) as k (kind)
    left join calm c on c.kind = k.kind and c.integration_id = o.id
   where o.circuit = 'closed' and o.circuit_since > now() - coalesce(c.lasts, $2 * interval '1 ms')
     and not (k.kind = 'authentication' and o.circuit_ours)
  union all
  select id, 'paused', true, null, null,
         format('anubisd has paused the integration: %s. Once that is mended, "anubisctl resume %s" ends the pause', own_pause, id)
    from own where own_pause is not null
  union all
  select id, 'backlog', fires and lost.count = 0 and not exists (select from alerts where kind = 'network' and state = 'firing'),
         extract(epoch from age), $1 / 1000.0,
         format('the oldest subscription that could be sent has waited for %s',
                date_trunc('second', justify_hours(age)))
         || case when left_over > '0' then format('; in %s it fails for good', date_trunc('second', justify_hours(left_over))) else '' end
    from waiting, lost
  union all
  select id, 'failure_rate', false, null, null, null from own
  union all
  select null, 'relay', stopped_on is not null or age >= $1 * interval '1 ms', extract(epoch from age), $1 / 1000.0,
         case when stopped_on is not null then format('the relay is stopped on event %s: %s', stopped_on, stopped_reason)
              else format('the oldest event that is not published has waited for %s: %s', date_trunc('second', justify_hours(age)),
                          coalesce(trouble, case when leads then 'the relay is behind' else 'no daemon publishes' end)) end
    from relay where stopped_on is not null or age >= $1 * interval '0.5 ms'
  union all
  select null, 'dead_letters', true, l.count, 0,
         coalesce(s.words, format('%s of Kafka''s messages could not be handled', l.count))
    from letters l, stops s where l.count > 0 or s.count > 0
  union all
  select id, 'unconfirmed', true, count, 0,
         case count when 1 then '1 subscription that was sent was not confirmed in time'
                    else format('%s subscriptions that were sent were not confirmed in time',
                                case when count < 10000 then count::text else 'more than 9999' end) end from unconfirmed
  union all
  select null, 'network', true, count, 0,
         format('most institutions were lost at once, so the network of %s is to blame',
                case count when 1 then 'a daemon''s machine' else count || ' daemons' end) from lost where count > 0
  union all
  select null, 'network', false, null, null, null
    from alerts a cross join lost left join calm c on c.kind = a.kind
   where a.kind = 'network' and a.state = 'firing' and lost.count = 0
     -- A clock that was ahead said since when.
     and coalesce(a.over_since between now() - coalesce(c.lasts, $2 * interval '1 ms') and now(), true)
  union all
  select null, 'audit', true, differences, 0,
         case when differences > 0 then format('the audit log was changed, its proof finds %s difference%s: %s. Run "anubisctl verify --audit '
                                               '--full"', differences, case when differences > 1 then 's' end, words)
              else 'the audit log has leaves that no checkpoint covers for more than ten minutes' end
    from audit_checks where differences > 0 or unsealed_since < now() - interval '10 min'
  union all
  select null, 'test', false, null, null, null from alerts
   where kind = 'test' and state = 'firing' and started_at > now() - interval '30 s'
), resolved as (
  update alerts a set state = 'resolved', resolved_at = clock_timestamp(),
-- include: alerts_over.part.sql
   where a.state = 'firing'
     and not exists (select from held h where h.kind = a.kind and h.integration_id is not distinct from a.integration_id)
  returning a.id
), leaving as (
  update alerts a set over_since = now() from lost
   where a.kind = 'network' and a.state = 'firing' and a.over_since is null and lost.count = 0
), changed as (
  -- Another cause of the same alert is told, too, also to who has acknowledged the one before. That messages were put aside, or a group
  -- goes on, is none beside the stop of a group; nor is that leaves lack a checkpoint beside a log that was changed.
  select a.id, h.value, coalesce(h.threshold, a.threshold) as threshold, h.message,
         case when h.kind in ('authentication', 'paused') then split_part(h.message, ':', 1) <> split_part(a.message, ':', 1)
              when h.kind = 'relay' then h.message like 'the relay is stopped%'
                                         and split_part(h.message, ':', 1) <> split_part(a.message, ':', 1)
              when h.kind = 'dead_letters' then h.message like 'the group %'
              when h.kind = 'audit' then h.message like '%was changed%' and a.message not like '%was changed%'
              else false end as is_new
    from held h join alerts a on a.state = 'firing' and a.kind = h.kind and a.integration_id is not distinct from h.integration_id
   where a.over_since is not null and h.fires
      or h.threshold <> a.threshold
      or h.message <> a.message
         -- Numbers that grow are written now and then.
         and (translate(h.message, '0123456789', '') <> translate(a.message, '0123456789', '')
              or coalesce(abs(h.value - a.value) >= abs(a.value) / 10, true))
), renewed as (
  update alerts a set value = n.value, threshold = n.threshold, message = n.message, over_since = null,
                      last_notified_at = case when n.is_new and a.last_notified_at is not null then '-infinity' else a.last_notified_at end,
                      acknowledged_at = case when not n.is_new then a.acknowledged_at end,
                      acknowledged_by = case when not n.is_new then a.acknowledged_by end
    from changed n where a.id = n.id
  returning a.id
), fired as (
  insert into alerts (integration_id, kind, value, threshold, message)
  -- Those that fire already would use up ids.
  select h.integration_id, h.kind, h.value, h.threshold, h.message from held h
   where h.fires and not exists (select from alerts a where a.state = 'firing' and a.kind = h.kind
                                                        and coalesce(a.integration_id, 0) = coalesce(h.integration_id, 0))
   order by h.integration_id nulls first, h.kind
      on conflict (kind, coalesce(integration_id, 0)) where state = 'firing' do nothing
  returning id
)
select (select count(*) from resolved) + (select count(*) from renewed) + (select count(*) from fired)
