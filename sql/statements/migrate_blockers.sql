-- name: migrate_blockers :once
-- The sessions that hold tables that a migration wants, in words; without tables the session whose turn it is to migrate.
-- $1 text: schema
-- $2 text: tables, separated by spaces, or NULL
with holder as (
  select distinct l.pid
    from pg_locks l left join pg_class c on c.oid = l.relation
   where l.granted and l.pid is distinct from pg_backend_pid()
     and l.database = (select oid from pg_database where datname = current_database())
     and case when $2 is null
              then l.locktype = 'advisory'
                   and (l.classid::bigint << 32) | l.objid::bigint = hashtextextended('anubisctl migrate ' || $1, 0)
              else l.locktype = 'relation' and c.relname = any (string_to_array($2, ' '))
                   and c.relnamespace = (select oid from pg_namespace where nspname = $1) end
)
select string_agg(
         case when h.pid is null then 'a prepared transaction'
              else format('session %s (role %s%s%s%s)', h.pid, a.usename, ', ' || nullif(a.application_name, ''),
                          ', from ' || host(a.client_addr),
                          case when a.state like 'idle in transaction%'
                               then ', idle in a transaction for ' || extract(epoch from now() - a.state_change)::int || ' s'
                               when a.xact_start is not null
                               then ', in a transaction for ' || extract(epoch from now() - a.xact_start)::int || ' s' end)
              end, ', ' order by h.pid)
  from holder h left join pg_stat_activity a on a.pid = h.pid
