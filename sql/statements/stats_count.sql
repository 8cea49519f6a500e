-- name: stats_count
-- Adds events to integration_stats. What the ledger says of them counts, not what their messages say.
-- $1 bigint[]: ledger ids
-- $2 bigint: the lowest of them, so that other partitions are not even opened
-- $3 bigint: the highest
with e as materialized (
  select s.* from unnest($1::bigint[]) as a (id)
   cross join lateral (select * from stats_events s where s.id = a.id and s.id between $2 and $3 offset 0) s
),
-- include: stats_cells.part.sql
, added as (
  select * from cells
)
-- include: stats_add.part.sql
