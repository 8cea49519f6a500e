-- name: verify_published :once
-- One row for each of relay_state: events not published, the time of the oldest, the event that stops the relay.
-- They are above "high" or within the gaps; the primary key of the ledger finds both.
with state as (
  select r.*, (select coalesce(max(last_id), 0) from ledger_partitions
                where name = 'subscription_events_adopted') as adopted
    from relay_state r
), open as (
  select e.created_at
    from state s join subscription_events e on e.id > s.high and e.id > s.adopted
   where e.event_type is not null
  union all
  select e.created_at
    from state s, unnest(s.gap_first, s.gap_last) as g (first, last)
    join subscription_events e on e.id between g.first and g.last
   where e.event_type is not null
)
select (select count(*) from open), (select min(created_at)::timestamptz from open), stopped_on from relay_state
