-- name: migrate_place :once
-- Where a migration would work, and which permissions our role lacks: a line each, with the command that gives it.
-- $1 text: schema
with d as (
  select oid, datname, pg_get_userbyid(datdba) as owner from pg_database where datname = current_database()
), s as (
  select oid, nspname, pg_get_userbyid(nspowner) as owner from pg_namespace where nspname = $1
), lack (text) as (
  select format('role "%s" may not create the schema "%s": let "%s", who owns the database, run '
                '"grant create on database %I to %I"', current_user, $1, owner, datname, current_user)
    from d where not exists (select from s) and not has_database_privilege(oid, 'create')
  union all
  select format('role "%s" may not make temporary functions in the database: let "%s", who owns it, run '
                '"grant temporary on database %I to %I"', current_user, owner, datname, current_user)
    from d where not has_database_privilege(oid, 'temporary')
  union all
  select format('role "%s" may not create anything in the schema "%s": let "%s", who owns it, run '
                '"grant usage, create on schema %I to %I"', current_user, $1, owner, nspname, current_user)
    from s where not (has_schema_privilege(oid, 'create') and has_schema_privilege(oid, 'usage'))
  union all
  select format('%s "%s" belongs to role "%s", not to "%s": run anubisctl --database "user=%s ..." migrate, '
                'or let an administrator run "grant %I to %I"', case c.relkind when 'S' then 'sequence' when 'v' then 'view'
                else 'table' end, c.relname, o.owner, current_user, o.owner, o.owner, current_user)
    from s join pg_class c on c.relnamespace = s.oid, pg_get_userbyid(c.relowner) as o (owner)
   where not pg_has_role(c.relowner, 'usage')
     and c.relname in ('anubis_migrations', 'integrations', 'integration_filters', 'subscriptions',
                       'subscription_events', 'ledger_id_seq')
)
select quote_ident($1), exists (select from s), string_agg(text, E'\n'), current_database(),
       to_regclass('public.integrations') is not null and to_regclass('public.subscriptions') is not null
  from lack
