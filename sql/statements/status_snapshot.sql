-- name: status_snapshot :once
-- The oldest thing that keeps VACUUM from removing what has changed since: its kind (session, prepared, slot), pid, name
-- (of the application, transaction or slot), role, state, since when (of a slot that is not known), how many transactions
-- ago, and whether that is long. No row: there is none. Only members of pg_read_all_stats see what sessions of other roles
-- hold. VACUUM itself holds nothing up.
-- $1 bigint: seconds that are long
-- $2 bigint: transactions that are many
with held as (
  select 'session' as kind, pid::bigint, application_name::text as name, usename::text as role, state,
         xact_start as since, greatest(age(backend_xmin), age(backend_xid))::bigint as transactions
    from pg_stat_activity
   where coalesce(datname, current_database()) = current_database() and pid <> pg_backend_pid()
     and coalesce(backend_xmin, backend_xid) is not null and backend_type <> 'autovacuum worker'
     and query !~* '^\s*vacuum'
  union all
  select 'prepared', null, gid, owner::text, null, prepared, age(transaction)::bigint
    from pg_prepared_xacts where database = current_database()
  union all
  select 'slot', active_pid::bigint, slot_name::text, null, case when active then 'active' else 'inactive' end, null,
         age(xmin)::bigint
    from pg_replication_slots where xmin is not null
), judged as (
  select *, coalesce(since < clock_timestamp() - $1 * interval '1 s', false) or transactions >= $2 as is_long from held
)
select kind, pid, name, role, state, since, transactions, is_long from judged order by is_long desc, transactions desc limit 1
