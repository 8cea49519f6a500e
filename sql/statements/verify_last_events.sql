-- name: verify_last_events :once
-- Subscriptions whose status is not that of their last event: id, status (null = no such row), status of the event, how
-- many such there are in all.
-- $1 bigint: how many are named
-- The last event has the highest id; its status travels in the low bits, so that one hash aggregate is enough.
-- include: verify_events.part.sql
last as (
  select e.subscription_id::bigint as id,
         max(e.id * 8 + case e.to_status when 'pending' then 1 when 'processing' then 2 when 'retry' then 3
                                         when 'sent' then 4 when 'failed' then 5 else 0 end) as code
    from events e where e.subscription_id is not null group by 1
), said as (
  select id, ('{pending,processing,retry,sent,failed}'::text[])[(code % 8)::int] as status from last
)
select l.id, s.status::text, l.status, count(*) over ()
  from said l left join subscriptions s on s.id = l.id
 where s.status::text is distinct from l.status
 order by l.id limit $1
