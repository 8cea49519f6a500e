-- name: stats_count
-- Adds events to integration_stats. What the ledger says of them counts, not what their messages say. Read as count_known reads them.
-- $1 bigint[]: first ledger ids of the runs
-- $2 bigint[]: last ones
-- $3 bigint[]: the places of the first ones, from 0 on
-- $4 bigint: the lowest id, so that other partitions are not even opened
-- $5 bigint: the highest
-- $6 bytea: 1 at the places of these events, else 0
with e as (
  select s.* from unnest($1::bigint[], $2::bigint[], $3::bigint[]) as r (first, last, place)
   cross join lateral (select * from stats_events s
                        where s.id between r.first and r.last and s.id between $4 and $5
                          and get_byte($6::bytea, (s.id - r.first + r.place)::int) = 1 offset 0) s
),
-- include: stats_cells.part.sql
, added as (
  select * from cells
)
-- include: stats_changed.part.sql
-- include: stats_add.part.sql
