-- What keeps a daemon from working on a database that is not, or no longer, what it takes it for.

-- Where the installation is: the server (its system identifier, which a physical standby shares; NULL where it may not be read), the
-- database, and the table that says whose it is. A dump that is loaded gets other tables, a copy by CREATE DATABASE another database.
create or replace function @extschema@.installation_here(out server bigint, out database oid, out tables oid)
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if has_function_privilege('pg_control_system()', 'execute') then
        server := (select system_identifier from pg_control_system());
    end if;
    database := (select oid from pg_database where datname = current_database());
    tables := '@extschema@.installation'::regclass;
end $$;

update @extschema@.installation set (server, database, tables) = (select h.server, h.database, h.tables from @extschema@.installation_here() h)
 where database is null;

create or replace function @extschema@.installation_is_elsewhere() returns boolean
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select i.server <> h.server is true or i.database <> h.database or i.tables <> h.tables
      from @extschema@.installation i, @extschema@.installation_here() h
$$;

-- Why no daemon may work here, and what would be right; NULL = one may.
create or replace function @extschema@.work_refused() returns text language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    if @extschema@.installation_is_elsewhere() then
        return format('this database was copied or moved: it belongs to installation %s, which was last used elsewhere. If that one is '
                      'in use no more, run "anubisctl installation --same"; if this is a copy of it, "anubisctl installation --copy"',
                      (select namespace from @extschema@.installation));
    end if;
    return null;
end $$;

-- "anubisctl installation": the database is that of the installation (moved, upgraded, restored), or a copy of it with a name of its own.
-- Returns how many integrations were disabled. A copy sends nothing until each integration is enabled again; what the original had
-- published and not yet counted at the time of the copy is published again, as the copy's own.
create or replace function @extschema@.installation_settle(is_copy boolean) returns bigint
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    disabled bigint := 0;
begin
    update @extschema@.installation
       set (server, database, tables) = (select h.server, h.database, h.tables from @extschema@.installation_here() h),
           namespace = case when is_copy then gen_random_uuid() else namespace end;
    -- The next leader looks whether Kafka is ahead.
    update @extschema@.relay_state set timeline = -1 where timeline is not null;
    if is_copy then
        perform @extschema@.ledger_name_events();
        update @extschema@.integrations set enabled = false where enabled;
        get diagnostics disabled = row_count;
        update @extschema@.relay_state r
           set gap_first = '{}', gap_last = '{}', gap_horizon = '{}',
               high = least(r.high, (select min(g) - 1 from unnest(r.gap_first) g),
                            (select min(e.id) - 1 from @extschema@.subscription_events e
                              where e.event_type in ('sent', 'failed')
                                and e.id > coalesce((select max(last_id) from @extschema@.ledger_partitions
                                                      where name = 'subscription_events_adopted'), 0)
                                and not exists (select from @extschema@.consumer_bitmaps b
                                                 where b.read_model = 'integration' and b.event_type = e.event_type
                                                   and b.chunk = e.id / 8192 and get_bit(b.bits, (e.id % 8192)::integer) = 1)));
    end if;
    return disabled;
end $$;
revoke execute on function @extschema@.installation_settle(boolean) from public;
