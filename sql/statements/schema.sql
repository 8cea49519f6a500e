-- Which version the schema has. Asked before anything else is known of it, and of every session.

-- name: find_schema :once
-- Read from the catalogs, so that nothing is refused (and written into the server's log) where the schema is not there
-- yet: the schema's name, whether it exists, whether we may use it, whether the table exists, whether we may read it, our
-- role.
select w.name::text, n.oid is not null, coalesce(has_schema_privilege(n.oid, 'usage'), false),
       c.oid is not null, coalesce(has_table_privilege(c.oid, 'select'), false), current_user::text
  from (select (parse_ident(current_setting('search_path')))[1] as name) w
  left join pg_namespace n on n.nspname = w.name
  left join pg_class c on c.relnamespace = n.oid and c.relname = 'anubis_migrations'

-- name: read_versions :once
-- The latest step, who applied it, and the oldest daemon that may use the schema.
select m.version, m.applied_by, (select max(oldest_daemon) from anubis_migrations)
  from anubis_migrations m order by m.version desc limit 1

-- name: work_refused :once
-- Why no daemon may work here, and what would be right; NULL = one may.
select work_refused()
