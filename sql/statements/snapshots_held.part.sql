-- What keeps VACUUM from removing what has changed since, of the tables of this database. Everybody sees who holds it, and
-- members of pg_read_all_stats since when and in which state. VACUUM itself holds nothing up.
with held as (
  select 'session' as kind, pid::bigint, application_name::text as name, usename::text as role, state,
         xact_start as since, case when age(backend_xid) > age(backend_xmin) then backend_xid
                                   else coalesce(backend_xmin, backend_xid) end as xid
    from pg_stat_activity
   where coalesce(datname, current_database()) = current_database() and pid <> pg_backend_pid()
     and coalesce(backend_xmin, backend_xid) is not null and backend_type is distinct from 'autovacuum worker'
     and query !~* '^\s*vacuum'
  union all
  select 'prepared', null, gid, owner::text, null, prepared, transaction
    from pg_prepared_xacts where database = current_database()
  union all
  select 'slot', active_pid::bigint, slot_name::text, null, case when active then 'active' else 'inactive' end, null, xmin
    from pg_replication_slots where xmin is not null
)
