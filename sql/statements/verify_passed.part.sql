  select e.id, e.created_at, e.event_type, h.unread
    from state s, relay_holes h
         cross join lateral (select e.id, e.created_at, e.event_type from subscription_events e
                              where e.id between h.first_id and h.last_id offset 0) e
   where e.id <= s.high
     and not exists (select from unnest(s.gap_first, s.gap_last) as g (first, last) where e.id between g.first and g.last)
