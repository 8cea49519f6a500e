-- name: status_snapshot :once
-- The oldest snapshot that is held: kind (session, prepared, slot), pid, name (of the application, transaction or slot),
-- role, state, since when, how many transactions ago, and whether that is long. No row: there is none.
-- $1 bigint: seconds that are long
-- $2 bigint: transactions that are many
-- include: snapshots_held.part.sql
, judged as (
  select *, coalesce(since < clock_timestamp() - $1 * interval '1 s', false) or age(xid) >= $2 as is_long from held
)
select kind, pid, name, role, state, since, age(xid)::bigint, is_long from judged
 order by is_long desc, age(xid) desc limit 1
