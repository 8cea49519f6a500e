  select coalesce(least(r.high, (select max(e.id) from subscription_events e)), 0) as below,
         (select array_agg(int8range(g.first, g.last, '[]')) from unnest(r.gap_first, r.gap_last) g (first, last)) as gaps
    from (select) one left join relay_state r on true
