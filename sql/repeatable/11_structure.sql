-- A database made from a schema dump (Rails' structure.sql) has these tables without their rows: the dump carries what was applied as a
-- function, and "anubisctl migrate" brings the rows back.

-- Makes anubis_steps(), the rows of anubis_migrations as a dump of the schema carries them.
create or replace function @extschema@.structure_note() returns void language plpgsql set search_path = pg_catalog, pg_temp as $do$
declare
    steps text;
begin
    select string_agg(format('(%s, %L, %L, %s)', version, name, checksum, oldest_daemon), E',\n        ' order by version) into strict steps
      from @extschema@.anubis_migrations;
    execute format('create or replace function @extschema@.anubis_steps(out version integer, out name text, out checksum text,
        out oldest_daemon integer) returns setof record language sql immutable set search_path = pg_catalog as $$
    values %s $$', steps);
end $do$;
revoke execute on function @extschema@.structure_note() from public;

-- Brings the rows back, but for what is there: the tables as they are count as the beginning, with all events that are in them. Returns
-- whether there were none.
create or replace function @extschema@.structure_mend(by text) returns boolean language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    adopted bigint;
    next_id bigint;
begin
    if exists (select from @extschema@.anubis_migrations) then
        return false;
    end if;
    lock table @extschema@.subscriptions, @extschema@.integrations in share row exclusive mode;
    insert into @extschema@.anubis_migrations (version, name, checksum, applied_by, oldest_daemon)
        select version, name, checksum, by, oldest_daemon from @extschema@.anubis_steps();
    insert into @extschema@.installation default values on conflict do nothing;
    if found then
        update @extschema@.installation
           set (server, database, tables) = (select h.server, h.database, h.tables from @extschema@.installation_here() h),
               (copied_up_to, noted_at) = (select coalesce(max(id), 0), coalesce(max(id), 0) from @extschema@.subscription_events);
        perform @extschema@.ledger_name_events();
    end if;
    if exists (select from @extschema@.relay_state) then
        return true;
    end if;
    insert into @extschema@.ledger_partitions (name, first_id, last_id)
        select c.relname, coalesce(b[1]::bigint, 0), b[2]::bigint - 1
          from pg_inherits i join pg_class c on c.oid = i.inhrelid,
               regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM [(](?:MINVALUE|''?([0-9]+)''?)[)] TO [(]''?([0-9]+)''?[)]') b
         where i.inhparent = '@extschema@.subscription_events'::regclass and b is not null
            on conflict do nothing;
    -- Events go where those of the original go: behind its adopted ones, and into the first partition that it has.
    select coalesce(max(last_id), 0) into adopted from @extschema@.ledger_partitions where name = 'subscription_events_adopted';
    select greatest(last_value + is_called::integer, adopted + 1,
                    (select min(first_id) from @extschema@.ledger_partitions where name <> 'subscription_events_adopted'),
                    (select max(id) + 1 from @extschema@.subscription_events))
      into strict next_id from @extschema@.ledger_id_seq;
    perform setval('@extschema@.ledger_id_seq', next_id, false);
    insert into @extschema@.relay_state (high)
        select coalesce(min(id), next_id) - 1 from @extschema@.subscription_events where id > adopted;
    -- What stands there and has no event.
    insert into @extschema@.ledger_baseline (status, subscriptions)
        select status, sum(n) from (select status::text as status, count(*) as n from @extschema@.subscriptions group by 1
                                    union all
                                    select to_status, -count(*) from @extschema@.subscription_events
                                     where event_type is not null and id > adopted group by 1
                                    union all
                                    select from_status, count(*) from @extschema@.subscription_events
                                     where event_type is not null and id > adopted group by 1) x
         where status is not null group by 1 having sum(n) <> 0;
    insert into @extschema@.ledger_baseline (integration_id, successful_sends, failed_sends)
        select id, coalesce(successful_sends, 0), coalesce(failed_sends, 0) from @extschema@.integrations
         where coalesce(successful_sends, 0) <> 0 or coalesce(failed_sends, 0) <> 0;
    return true;
end $$;
revoke execute on function @extschema@.structure_mend(text) from public;

-- Puts a table back in its place that was renamed or moved to another schema, and takes over what stands in another one of its name, which has been in use meanwhile and
-- stays as NAME_meanwhile. Returns the name that it had; NULL = it is in its place, or nowhere.
create or replace function @extschema@.table_put_back(name text, key text[]) returns text language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    own constant regclass := @extschema@.table_elsewhere(name);
    named constant text := own::text;
    takes text := '';
begin
    if own is null then
        return null;
    end if;
    if to_regclass(format('@extschema@.%I', name)) is not null then
        execute format('alter table @extschema@.%I rename to %I', name, name || '_meanwhile');
        -- A copy by "create table as" has no defaults, and NULL where they were needed.
        select format('insert into @extschema@.%I (%s) overriding system value select %s from @extschema@.%I on conflict ', name,
                      string_agg(quote_ident(a.attname), ', ' order by a.attnum),
                      string_agg(format(case when a.attnotnull and d.adbin is not null
                                             then 'coalesce(%I, ' || pg_get_expr(d.adbin, d.adrelid) || ')' else '%I' end, a.attname),
                                 ', ' order by a.attnum), name || '_meanwhile')
               || coalesce(format('(%s) do update set ', (select string_agg(quote_ident(k), ', ') from unnest(key) k))
                           || string_agg(format('%1$I = excluded.%1$I', a.attname), ', ') filter (where a.attname <> all (key)), 'do nothing')
          into takes
          from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
         where a.attrelid = own and a.attnum > 0 and not a.attisdropped;
    end if;
    if (select relnamespace from pg_class where oid = own) <> '@extschema@'::regnamespace then
        execute format('alter table %s set schema @extschema@', own);
    end if;
    if (select relname from pg_class where oid = own) <> name then
        execute format('alter table %s rename to %I', own, name);
    end if;
    execute takes;
    return named;
end $$;
revoke execute on function @extschema@.table_put_back(text, text[]) from public;

-- Brings back what can be: rows of tables that have one, partitions that were detached, and what the books say of partitions. One line for
-- each. Nobody writes meanwhile.
create or replace function @extschema@.tables_mend() returns setof text language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    ledger oid;
    lost record;
    next_id bigint;
begin
    for lost in select n.name, @extschema@.table_put_back(n.name, n.key) as named
                  from (select t.name, t.key from @extschema@.tables_needed() t union all values ('subscription_events', null::text[])) n loop
        if lost.named is not null then
            return next format('table "%s", which was named %s%s', lost.name, lost.named,
                               (select format('; what stood in its place is named "%s_meanwhile"', lost.name)
                                 where to_regclass(format('@extschema@.%I', lost.name || '_meanwhile')) is not null));
        end if;
    end loop;
    ledger := (select oid from pg_class where relname = 'subscription_events' and relkind = 'p' and relnamespace = '@extschema@'::regnamespace);
    if ledger is null or to_regclass('@extschema@.ledger_partitions') is null then
        return;
    end if;
    for lost in
        insert into @extschema@.ledger_partitions as l (name, first_id, last_id)
        select c.relname, coalesce(b[1]::bigint, 0), b[2]::bigint - 1
          from pg_inherits i join pg_class c on c.oid = i.inhrelid,
               regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM [(](?:MINVALUE|''?([0-9]+)''?)[)] TO [(]''?([0-9]+)''?[)]') b
         where i.inhparent = ledger and b is not null and not exists (select from @extschema@.ledger_partitions p where p.name = c.relname)
        returning l.name loop
        return next format('partition "%s" in the table "ledger_partitions"', lost.name);
    end loop;
    for lost in select p.*, format('@extschema@.%I', p.name) as part from @extschema@.ledger_partitions p
                 where to_regclass('@extschema@.' || quote_ident(p.name)) is not null
                   and not exists (select from pg_inherits i where i.inhparent = ledger and i.inhrelid = to_regclass('@extschema@.' || quote_ident(p.name)))
                 order by p.first_id loop
        -- What was written meanwhile stands in the default partition, and ATTACH would refuse the range.
        execute format('lock table @extschema@.subscription_events, %s in access exclusive mode', lost.part);
        execute format('insert into %s select * from @extschema@.subscription_events_default where id between %s and %s', lost.part,
                       lost.first_id, lost.last_id);
        alter table @extschema@.subscription_events_default disable trigger ledger_append_only;
        delete from @extschema@.subscription_events_default where id between lost.first_id and lost.last_id;
        alter table @extschema@.subscription_events_default enable trigger ledger_append_only;
        execute format('drop trigger if exists ledger_append_only on %s', lost.part);
        execute format('alter table @extschema@.subscription_events attach partition %s for values from (%s) to (%s)', lost.part,
                       case when lost.name = 'subscription_events_adopted' then 'minvalue' else lost.first_id::text end, lost.last_id + 1);
        return next format('partition "%s" of the ledger', lost.name);
    end loop;
    if to_regclass('@extschema@.installation') is null or to_regclass('@extschema@.relay_state') is null then
        return;
    end if;
    if not exists (select from @extschema@.installation) then
        insert into @extschema@.installation (namespace, server, database, tables, copied_up_to, noted_at)
        select @extschema@.installation_name(), h.server, h.database, h.tables, l.last_value, l.last_value
          from @extschema@.installation_here() h, @extschema@.ledger_id_seq l;
        return next 'the row of the table "installation"';
    end if;
    if not exists (select from @extschema@.relay_state) then
        -- From the first event that the audit log, which takes all of them, has not had from Kafka.
        select last_value + is_called::integer into strict next_id from @extschema@.ledger_id_seq;
        insert into @extschema@.relay_state (high)
        select coalesce(min(e.id), next_id) - 1 from @extschema@.subscription_events e
         where e.id > coalesce((select max(last_id) from @extschema@.ledger_partitions where name = 'subscription_events_adopted'), 0)
           and not exists (select from @extschema@.consumer_bitmaps b
                            where b.read_model = 'monitoring' and b.event_type = e.event_type
                              and b.chunk = e.id / 8192 and get_bit(b.bits, (e.id % 8192)::integer) = 1);
        return next 'the row of the table "relay_state"';
    end if;
end $$;
revoke execute on function @extschema@.tables_mend() from public;
