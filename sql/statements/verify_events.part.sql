-- The events of the ledger since the adoption. Rows without a type are notes of an adopted application. The bound is a parameter, so that
-- the planner knows how many they are, and reads them in parallel.
with events as not materialized (
  select e.* from subscription_events e where e.event_type is not null and e.id > $1
),
