-- name: verify_published :once
-- One row for each of relay_state: events not published, the time of the oldest, the event that stops the relay; of the
-- events not published those with ids that the relay has passed because nobody had them: how many, the first, the last. Up to which id
-- events are published; the same as the relay had saved it, where somebody has set it ahead (see relay_begin), else NULL.
-- The others are above "high" or within the gaps; the primary key of the ledger finds all of them.
with state as (
  select r.*, (select coalesce(max(last_id), 0) from ledger_partitions
                where name = 'subscription_events_adopted') as adopted
    from relay_state r
), passed as (
-- include: verify_passed.part.sql
), open as (
  select e.created_at
    from state s join subscription_events e on e.id > s.high and e.id > s.adopted
   where e.event_type is not null
  union all
  select e.created_at
    from state s, unnest(s.gap_first, s.gap_last) as g (first, last)
    join subscription_events e on e.id between g.first and g.last
   where e.event_type is not null
  union all
  select p.created_at from passed p where p.event_type is not null
)
select (select count(*) from open), (select min(created_at)::timestamptz from open), stopped_on,
       p.count, p.first, p.last, r.high,
       case when r.high >= s.high and (r.high, r.gap_first, r.gap_last, r.gap_horizon)
                                      is distinct from (s.high, s.gap_first, s.gap_last, s.gap_horizon) then s.high end
  from relay_state r left join relay_saved s on true, (select count(*) as count, min(id) as first, max(id) as last from passed where event_type is not null and not unread) p
