-- The statements of "anubisctl migrate".

-- name: migrate_try_turn :once
-- True: it is our turn, until the end of the transaction. Not a key of lock_key(): that function and the schema, whose OID
-- is part of the key, may not exist yet.
-- $1 text: schema
select pg_try_advisory_xact_lock(hashtextextended('anubisctl migrate ' || $1, 0))

-- name: migrate_has_table :once
-- Is there a table of migrations?
-- $1 text: schema
select exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                where n.nspname = $1 and c.relname = 'anubis_migrations')

-- name: migrate_can_mend :once
-- Is there a function that brings back the rows that a schema dump lacks?
select to_regprocedure('structure_mend(text)') is not null and to_regprocedure('anubis_steps()') is not null

-- name: migrate_mend :once
-- Brings them back; were there none?
-- $1 text: by which program
select structure_mend($1 || ', role ' || current_user)

-- name: migrate_note :once
-- Notes in the schema itself what was applied.
select structure_note()

-- name: migrate_applied :once
-- The steps that were applied: version, name, checksum, by which program.
select version, name, checksum, applied_by from anubis_migrations order by version

-- name: migrate_checksum :once
-- $1 text: content of a file
select encode(sha256(convert_to($1, 'UTF8')), 'hex')

-- name: migrate_find_tables :once
-- Those tables that exist, as LOCK wants them, in the order given or the other way round; NULL when there is none.
-- $1 text: schema
-- $2 text: tables, separated by spaces
-- $3 boolean: the other way round
select string_agg(format('%I.%I', n.nspname, c.relname), ', '
                  order by case when $3 then -t.number else t.number end)
  from unnest(string_to_array($2, ' ')) with ordinality as t (name, number)
  join pg_class c on c.relname = t.name and c.relkind in ('r', 'p')
  join pg_namespace n on n.oid = c.relnamespace and n.nspname = $1

-- name: migrate_limit_patience :once
-- Whoever waits for a lock longer than deadlock_timeout looks for a deadlock and ends somebody, perhaps a transaction of
-- the application's that holds one of these tables and wants another. We give up before.
select set_config('lock_timeout', greatest(10, least(800, setting::int * 4 / 5))::text, true)
  from pg_settings where name = 'deadlock_timeout'

-- name: migrate_record_step :once
-- $1 integer: version
-- $2 text: name
-- $3 text: content
-- $4 text: by which program
-- $5 integer: the oldest daemon that may use it
insert into anubis_migrations (version, name, checksum, applied_by, oldest_daemon)
values ($1, $2, encode(sha256(convert_to($3, 'UTF8')), 'hex'), $4 || ', role ' || current_user, $5)

-- name: migrate_record_repeatable :once
-- $1 text: name
-- $2 text: content
-- $3 text: by which program
with made as (
  update anubis_migrations m
     set made = (select coalesce(jsonb_object_agg(o.name, o.value), '{}') from jsonb_each(m.made) as o (name, value)
                  where o.value ->> 'file' <> $1)
                || (select coalesce(jsonb_object_agg(k.name, jsonb_build_object('file', $1, 'made', n.made)), '{}')
                      from (select r[1] as name from regexp_matches($2, '^create or replace function @extschema@[.]([a-z0-9_]+)', 'gn') r
                            union
                            select r[1] || ' on ' || r[2]
                              from regexp_matches($2, '^create trigger ([a-z0-9_]+) [^;]*? on @extschema@[.]([a-z0-9_]+)', 'gw') r) k
                     cross join lateral (
-- include: made_now.part.sql
                     ) n)
   where m.version = 0
)
insert into anubis_repeatables (name, checksum, applied_by)
values ($1, encode(sha256(convert_to($2, 'UTF8')), 'hex'), $3 || ', role ' || current_user)
    on conflict (name) do update set checksum = excluded.checksum, applied_at = now(),
                                     applied_by = excluded.applied_by

-- name: migrate_mend_tables :once
-- Brings back what can be; a line for each.
select tables_mend()

-- name: tables_amiss :once
-- What is wrong with the tables; NULL = nothing.
select tables_amiss()

-- name: migrate_forget :once
-- A trigger that is missing or disabled, or a view that is missing, is brought back by its file, and what that needs by others.
delete from anubis_repeatables where triggers_amiss() is not null or views_amiss() is not null

-- name: migrate_forget_changed :once
-- So are functions and triggers that somebody has changed. What is missing with its table comes when that is back.
delete from anubis_repeatables r using anubis_migrations m
 where m.version = 0
   and exists (select from jsonb_each(m.made) as k (name, value)
                cross join lateral (
-- include: made_now.part.sql
                ) n
                where k.value ->> 'file' = r.name and n.made is distinct from k.value ->> 'made'
                  and (n.made is not null or k.name not like '% on %'))

-- name: migrate_is_applied :once
-- Was the repeatable file applied last with this content?
-- $1 text: name
-- $2 text: content
select exists (select from anubis_repeatables
                where name = $1 and checksum = encode(sha256(convert_to($2, 'UTF8')), 'hex'))
