-- The events of the ledger since the adoption. Rows without a type are notes of an adopted application.
with adoption as (
  select coalesce(max(last_id), 0) as last_id from ledger_partitions where name = 'subscription_events_adopted'
), events as (
  select e.* from subscription_events e cross join adoption a where e.event_type is not null and e.id > a.last_id
),
