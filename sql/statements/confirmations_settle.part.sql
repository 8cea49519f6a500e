-- Who says so stands in the event's decided_by, and in error_message of those that failed: a message of Kafka's begins like that for the alerts.
  select s.id, case c.status when 'confirmed' then 'sent' else 'failed' end as result,
         case c.status when 'confirmed' then 'confirmation: the institution has it' else 'confirmation: the institution has rejected it' end as words
    from subscriptions s join confirmations c on c.subscription_id = s.id
   where s.held_at is not null and s.status in ('pending', 'retry')
     -- A rejection is about what had been sent by then: not about an attempt that began later.
     and (c.status = 'confirmed'
          or c.status = 'rejected' and c.received_at >= s.held_at - coalesce(s.last_duration_ms, 0) * interval '1 ms')
