-- Later migrations of the application. Columns that the triggers and the daemon read by name are held by a view, so that they are neither
-- dropped nor changed in type unseen: its name tells the way. A renamed column breaks the next insert; columns_amiss() says so to daemons.

create or replace function @extschema@.columns_needed(out relation text, out name text) returns setof record language sql immutable
    set search_path = pg_catalog, pg_temp as $$
    select c.relation, unnest(c.names::text[]) from (values
        ('subscriptions', '{id,integration_id,integration_filter_id,order_id,origin,cpf,payload,status,attempts,scheduled_to,next_attempt_at,
          claimed_by,claim_token,lease_expires_at,held_at,sent_at,last_error,last_http_status,created_at,updated_at,last_response,
          last_response_truncated,last_duration_ms,last_ambiguous,last_decided_by,ambiguous_since,idempotency_seed,
          idempotency_turn,traceparent,resend_of,erased_at}'),
        ('integrations', '{id,name,type,endpoint_url,auth_token,enabled,timeout_ms,max_in_flight,rate_limit,max_attempts,delivery_settings,
          successful_sends,failed_sends,paused_until,pause_reason,updated_at}'),
        ('integration_filters', '{id,integration_id,name,origin,criteria,position,enabled}'),
        ('subscription_events', '{id,event_id,event_type,subscription_id,integration_id,status,operation_name,attempt,http_status,
          duration_ms,request,response,error_message,from_status,to_status,created_at,order_id,origin,cpf,sent_at,scheduled_to,
          next_attempt_at,subscription_created_at,subscription_updated_at,ambiguous,response_truncated,traceparent,decided_by}')) as c (relation, names)
$$;

drop view if exists @extschema@.change_with_anubis_alter;
do $$
begin
    execute (select 'create view @extschema@.change_with_anubis_alter as select '
                    || string_agg(format('(%s) is null as %I', columns, relation), ', ')
                    || ' from ' || string_agg(format('@extschema@.%I', relation), ', ') || ' where false'
               from (select relation, string_agg(format('%I.%I', relation, name), ', ') as columns
                       from @extschema@.columns_needed() group by relation order by relation) r);
end $$;

-- What a migration of the application has done to columns that anubisd needs, and what would be right; NULL = nothing.
create or replace function @extschema@.columns_amiss() returns text language sql stable set search_path = pg_catalog, pg_temp as $$
    with present as (
        select c.relname, a.attname, a.attnotnull, a.atthasdef or a.attidentity <> '' or a.attgenerated <> '' as has_value
          from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
         where c.relnamespace = '@extschema@'::regnamespace and c.relkind in ('r', 'p')
           and c.relname in (select relation from @extschema@.columns_needed())
    ), amiss (words) as (
        select format('table "%s" has no column "%s", which is written into the ledger or read by daemons: give it back its name, or add it '
                      'again (one that is generated from another will do)', n.relation, n.name)
          from @extschema@.columns_needed() n
         where exists (select from present p where p.relname = n.relation)
           and not exists (select from present p where p.relname = n.relation and p.attname = n.name)
        union all
        select format('column "%s" of table "%s" is NOT NULL, and anubisd empties it: run "alter table %2$s alter %1$I drop not null"',
                      p.attname, p.relname)
          from present p
         where p.attnotnull and p.relname in ('subscriptions', 'integrations')
           and p.attname = any ('{next_attempt_at,claimed_by,claim_token,lease_expires_at,held_at,last_error,last_http_status,last_response,
               last_response_truncated,last_duration_ms,last_ambiguous,last_decided_by,ambiguous_since,paused_until,pause_reason}'::text[])
        union all
        select format('column "%s" of table "subscription_events" is NOT NULL, and events have no value for it: run "alter table '
                      'subscription_events alter %1$I drop not null", or give it a default', p.attname)
          from present p
         where p.relname = 'subscription_events' and p.attnotnull and not p.has_value
           and p.attname not in ('id', 'event_id', 'event_type', 'subscription_id', 'operation_name', 'created_at')
        union all
        select r from @extschema@.states_refused(to_regclass('@extschema@.subscriptions')) r
    )
    select string_agg(words, '; ') from amiss
$$;

-- How many rows of the application's tables this transaction has written, temporary counts of the server's included.
create or replace function @extschema@.rows_changed() returns bigint language sql volatile set search_path = pg_catalog, pg_temp as $$
    select sum(pg_stat_get_xact_tuples_inserted(c.oid) + pg_stat_get_xact_tuples_updated(c.oid) + pg_stat_get_xact_tuples_deleted(c.oid))::bigint
      from pg_class c
     where c.relnamespace = '@extschema@'::regnamespace
       and c.relname in ('subscriptions', 'integrations', 'integration_filters', 'subscription_events')
$$;

-- Runs a statement of an application's migration that triggers or views of anubisd's keep from being done, such as ALTER TABLE ... ALTER
-- COLUMN ... TYPE, and puts them back. Nobody writes meanwhile. For the role that owns the tables.
create or replace function @extschema@.anubis_alter(command text) returns void language plpgsql as $$
declare
    views text[] := '{stats_events,subscription_event_messages,subscription_event_feed,integrations_open,change_with_anubis_alter}';
    changed bigint := @extschema@.rows_changed();
    view text;
    again text[] := '{}';
    patience constant text := current_setting('lock_timeout');
    until constant timestamptz := clock_timestamp() + nullif(patience::interval, '0');
    t record;
    amiss text;
begin
    -- Others lock the same tables in another order: whoever waits gives back what it has before the server calls it a deadlock.
    loop
        begin
            perform set_config('lock_timeout', '300ms', true);
            lock table @extschema@.subscriptions, @extschema@.subscription_events, @extschema@.integrations, @extschema@.integration_filters
                in access exclusive mode;
            exit;
        exception when lock_not_available then
            if clock_timestamp() >= until then
                raise;
            end if;
            perform pg_sleep(random() / 5);
        end;
    end loop;
    perform set_config('lock_timeout', patience, true);
    foreach view in array views loop
        again := array(select format('grant %s on @extschema@.%I to %s', x.privilege_type, view,
                                     coalesce(quote_ident(pg_get_userbyid(nullif(x.grantee, 0))), 'public'))
                         from pg_class c, aclexplode(c.relacl) x
                        where c.oid = to_regclass('@extschema@.' || view) and x.grantee <> c.relowner) || again;
        again := format('create view @extschema@.%I as %s', view, pg_get_viewdef(to_regclass('@extschema@.' || view))) || again;
        execute format('drop view @extschema@.%I', view);
    end loop;
    for t in select g.oid, g.tgname, g.tgrelid::regclass as relation from pg_trigger g
              where g.tgrelid in ('@extschema@.subscriptions'::regclass, '@extschema@.integrations'::regclass,
                                  '@extschema@.integration_filters'::regclass)
                and not g.tgisinternal and starts_with(g.tgname, 'anubis_') loop
        again := again || pg_get_triggerdef(t.oid);
        execute format('drop trigger %I on %s', t.tgname, t.relation);
    end loop;
    execute command;
    if @extschema@.rows_changed() <> changed then
        raise exception using errcode = 'object_not_in_prerequisite_state',
            message = 'anubis_alter() is for definitions: rows that are changed while the triggers are away leave no events',
            hint = 'Write the rows before or after, in a statement of its own.';
    end if;
    amiss := @extschema@.columns_amiss();
    if amiss is not null then
        raise exception using errcode = 'object_not_in_prerequisite_state', message = 'anubisd could not go on: ' || amiss,
            hint = 'See "Migrations of the application" in anubisctl(8).';
    end if;
    for i in 1 .. cardinality(again) loop
        execute again[i];
    end loop;
    -- Of no row: whether the triggers work with the types as they are now.
    insert into @extschema@.subscriptions (integration_id) select id from @extschema@.integrations where false;
    update @extschema@.subscriptions set integration_id = integration_id where false;
end $$;
revoke execute on function @extschema@.anubis_alter(text) from public;
