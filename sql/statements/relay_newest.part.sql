-- The newest event up to p.high. An application's own rows may stand behind it, with times of its own.
lateral (select e.id, e.created_at
           from (select x.id, as_instant(x.created_at) as created_at, x.event_type::text as event_type
                   from subscription_events x
                  where x.id <= p.high
                    and x.id > coalesce((select last_id from ledger_partitions where name = 'subscription_events_adopted'), 0)
                  order by x.id desc limit 20) e
          where e.event_type in ('created', 'updated', 'sent', 'failed', 'retried')
          order by e.id desc limit 1)
