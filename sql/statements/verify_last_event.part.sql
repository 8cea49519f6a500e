-- Each subscription's last event has the highest id; its status travels in the low bits, so that one hash aggregate is enough.
          select c.id, ('{pending,processing,retry,sent,failed}'::text[])[(c.code % 8)::int] as last
            from (select e.subscription_id::bigint as id,
                         max(e.id * 8 + case e.to_status when 'pending' then 1 when 'processing' then 2 when 'retry' then 3
                                                         when 'sent' then 4 when 'failed' then 5 else 0 end) as code
                    from subscription_events e
                   where e.event_type is not null and e.id > $1
