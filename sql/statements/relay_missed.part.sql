-- The newest event up to the saved position was written after that: it was never published. Ids are drawn once, unless the ledger went
-- back with its sequence.
(exists (select from relay_state r cross join relay_saved s
          cross join lateral (select e.created_at from subscription_events e
                               where e.id <= r.high and e.id > coalesce((select last_id from ledger_partitions
                                                                          where name = 'subscription_events_adopted'), 0)
                               order by e.id desc limit 1) n
         where as_instant(n.created_at) > s.saved_at))
