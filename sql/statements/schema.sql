-- Which version the schema has. Asked before anything else is known of it, and of every session.

-- name: find_schema :once
-- Read from the catalogs, so that nothing is refused (and written into the server's log) where the schema is not there
-- yet: the schema's name, whether it exists, whether we may use it, whether the table exists, whether we may read it, our
-- role. And where it was renamed: what it is named now, what its functions name it, and whether another schema has that name now.
select w.name::text, n.oid is not null, coalesce(has_schema_privilege(n.oid, 'usage'), false),
       c.oid is not null, coalesce(has_table_privilege(c.oid, 'select'), false), current_user::text, r.is_named::text, r.was_named,
       exists (select from pg_namespace t where t.nspname = r.was_named)
  from (select (parse_ident(current_setting('search_path')))[1] as name) w
  left join pg_namespace n on n.nspname = w.name
  left join pg_class c on c.relnamespace = n.oid and c.relname = 'anubis_migrations'
  left join lateral (
    select o.nspname as is_named, u.was_named
      from pg_proc p join pg_namespace o on o.oid = p.pronamespace,
           lateral (select (parse_ident((regexp_match(p.prosrc, 'from ("[^"]+"|[a-z_][a-z0-9_$]*)[.]installation'))[1]))[1] as was_named) u
     where p.proname = 'cleaning_allowed' and o.nspname <> u.was_named and (o.oid = n.oid or n.oid is null and u.was_named = w.name)
     limit 1) r on true

-- name: read_versions :once
-- The latest step, who applied it, and the oldest daemon that may use the schema.
select m.version, m.applied_by, (select max(oldest_daemon) from anubis_migrations)
  from anubis_migrations m order by m.version desc limit 1

-- name: session_name
-- The session gets this name: by it others are told what its daemon suffers from, which ends with the session.
-- $1 text: name
select set_config('application_name', $1, false)

-- name: be_there :once
-- By this, other daemons see that one of this name is there, as long as it has a session: see daemon_seen().
-- $1 text: the name
select pg_try_advisory_lock_shared(hashtextextended($1, lock_key('alive')))

-- name: work_refused :once
-- Why no daemon may work here, and what would be right; NULL = one may.
select coalesce((
-- include: made_amiss.part.sql
), work_refused())
