-- name: verify_last_events :once
-- Subscriptions whose status is not that of their last event: id, status (null = no such row), status of the event, how
-- many such there are in all. Two processes do half of them each.
-- $1 bigint: the last id of before the adoption
-- $2 bigint: a subscription in the middle
-- $3 bigint: how many are named
with differing as (
  select l.id, s.status::text, l.last
    from (
-- include: verify_last_event.part.sql
                     and e.subscription_id <= $2 group by 1) c) l left join subscriptions s on s.id = l.id
   where s.status::text is distinct from l.last
  union all
  select l.id, s.status::text, l.last
    from (
-- include: verify_last_event.part.sql
                     and e.subscription_id > $2 group by 1) c) l left join subscriptions s on s.id = l.id
   where s.status::text is distinct from l.last
)
select id, status, last, count(*) over () from differing order by id limit $3
