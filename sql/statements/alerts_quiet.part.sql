-- Alerts that nobody is told of now, and why. Silences are somebody's word. And a cause silences its symptom: while nothing is sent to
-- an integration, or nothing can be sent from here, its failures say nothing new: an alert that fired before is not repeated, unless it is
-- to be told anew. A pause is a cause of what its circuit says, too.
quiet as (
  select a.id, 'silenced: ' || s.reason as reason
    from alerts a
    join alert_silences s on s.integration_id = a.integration_id and (s.kind is null or s.kind = a.kind)
   where a.state = 'firing' and s.until > now()
  union all
  select a.id, case when not i.enabled then 'the integration is disabled' when i.paused_until > now() then 'the integration is paused'
                    when r.circuit_state <> 'closed' then 'its circuit is open' else 'the network is lost' end
    from alerts a
    join integrations i on i.id = a.integration_id
    left join integration_runtime r on r.integration_id = a.integration_id
   where a.state = 'firing' and a.last_notified_at > '-infinity'
     and case when a.kind in ('failure_rate', 'backlog')
              then not i.enabled or i.paused_until > now() or r.circuit_state <> 'closed'
                   or exists (select from alerts n where n.kind = 'network' and n.state = 'firing')
              when a.kind in ('circuit_open', 'authentication') then i.paused_until > now() end
)
