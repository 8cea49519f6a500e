-- name: replay_stats :once
-- Brings integration_stats_spans to what the ledger says; how many rows differed.
--
-- The difference is taken in one snapshot and added: what consumers count meanwhile is added, too, and sums know no order.
-- include: stats_handled.part.sql
, added as (
  select * from differences
)
-- include: stats_changed.part.sql
, written as (
-- include: stats_add.part.sql
  returning 1
)
select count(*) from written
