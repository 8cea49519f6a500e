-- What keeps a daemon from working on a database that is not, or no longer, what it takes it for.

-- Where the installation is: the server (its system identifier, which a physical standby shares; NULL where it may not be read), the
-- database, and the table that says whose it is. A dump that is loaded gets other tables, a copy by CREATE DATABASE another database. A
-- physical copy that is started beside the original has all of it, but most often another port, and no timeline of its own.
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
    select i.server <> h.server is true or i.database <> h.database or i.tables <> h.tables or @extschema@.ledger_port_differs()
      from @extschema@.installation i, @extschema@.installation_here() h
$$;

-- The triggers without which changes leave no trace, or nobody hears of them, where they are missing or disabled; NULL = none is. A table
-- is looked for by its name: another one may have been put into its place.
create or replace function @extschema@.triggers_amiss() returns text language sql stable set search_path = pg_catalog, pg_temp as $$
    select string_agg(format('%s on %s (%s)', w.name, w.relation,
                             case when t.oid is null then 'missing' when t.tgenabled = 'D' then 'disabled' else 'not for everybody' end),
                      ', ' order by w.relation, w.name)
      from (select c.relname::text, n.name
              from pg_inherits i join pg_class c on c.oid = i.inhrelid, unnest('{ledger_append_only,ledger_no_truncate}'::text[]) n (name)
             where i.inhparent = to_regclass('@extschema@.subscription_events')
            union all values ('subscriptions', 'anubis_2_foreign_change'), ('subscriptions', 'anubis_3_seed_kept'),
                   ('subscriptions', 'anubis_4_change_refused'),
                   ('subscriptions', 'anubis_no_delete'), ('subscriptions', 'anubis_no_truncate'),
                   ('subscriptions', 'anubis_inserted'), ('subscriptions', 'anubis_updated'),
                   ('integrations', 'anubis_integration_woken'), ('integrations', 'anubis_integration_mended'),
                   ('integrations', 'anubis_integration_check'), ('integrations', 'anubis_reference_moved'),
                   ('integrations', 'anubis_reference_moved_id'), ('subscriptions', 'anubis_moved'),
                   ('integrations', 'anubis_integration_begun'),
                   ('integrations', 'anubis_confirmation_set'), ('integrations', 'anubis_confirmation_changed'), ('integration_runtime', 'anubis_circuit_changed'),
                   ('integration_filters', 'anubis_filter_check'),
                   ('subscription_events', 'ledger_append_only'), ('subscription_events', 'ledger_no_truncate')) as w (relation, name)
      left join pg_class c on c.relname = w.relation and c.relnamespace = '@extschema@'::regnamespace
      left join pg_trigger t on t.tgrelid = c.oid and t.tgname = w.name
     where t.tgenabled is null or t.tgenabled not in ('O', 'A')
$$;

-- Statements that bring sequences up to their tables; NULL = none of ours is behind. Those of the application's tables are the application's
-- matter, which may take its ids elsewhere; where the ledger's is behind, theirs are named, too, and that of subscriptions where it would
-- give out ids which the ledger has for others.
-- Rows that come by logical replication draw no ids. Where the sequence was set back, events may have come since then with ids that the
-- relay has behind it, because nobody had them: it finds them by itself, see relay_holes. With the owner's rights, who may read sequences.
create or replace function @extschema@.sequences_behind() returns text
    language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    with relay as (
      -- A position that a hand has set ahead is not believed: see relay_begin.
      select case when r.high >= s.high is true then s.high else r.high end as high
        from @extschema@.relay_state r left join @extschema@.relay_saved s on true
    ), ledger as (
      select exists (select from @extschema@.subscription_events e where e.id > s.last_value)
             or exists (select from relay r where r.high > s.last_value) as is_behind
        from @extschema@.ledger_id_seq s
    ), others as (
      select n.place, '@extschema@.' || n.name as target, pg_get_serial_sequence('@extschema@.' || n.name, 'id') as sequence,
             n.newest, case n.place when 1 then @extschema@.subscriptions_drawn() end as drawn
        from (values (1, 'subscriptions', null), (2, 'integrations', null), (3, 'integration_filters', null),
                     (4, 'alerts', (select max(id) from @extschema@.alerts)),
                     (5, 'alert_outbox', (select max(id) from @extschema@.alert_outbox)),
                     (6, 'alert_silences', (select max(id) from @extschema@.alert_silences)),
                     (7, 'dead_letters', (select max(id) from @extschema@.dead_letters)),
                     (8, 'audit_trees', (select max(id) from @extschema@.audit_trees)),
                     (9, 'audit_checkpoints', (select max(id) from @extschema@.audit_checkpoints)),
                     (10, 'audit_past', (select max(id) from @extschema@.audit_past))) n (place, name, newest)
    )
    select string_agg(statement, ' ' order by place)
      from (select 0 as place, format('select setval(%L, greatest((select max(id) from %s), %s));',
                                      '@extschema@.ledger_id_seq', '@extschema@.subscription_events', r.high) as statement
              from ledger, relay r where is_behind
            union all
            select o.place, case when o.drawn is null
                                 then format('select setval(%L, (select coalesce(max(id), 1) from %s));', o.sequence, o.target)
                                 else format('select setval(%L, %s);', o.sequence, o.drawn) end
              from others o, ledger l
             where o.sequence is not null
               and case when o.newest is null then o.place < 4 and l.is_behind or o.drawn is not null
                        else o.newest > coalesce(pg_sequence_last_value(o.sequence::regclass), 0) end) x
$$;

-- What makes triggers not fire in our sessions, which is meant for a moment's load of data; NULL = they fire.
create or replace function @extschema@.replica_session() returns text language sql stable set search_path = pg_catalog, pg_temp as $$
    select format('triggers do not fire in our sessions, where session_replication_role is "replica"; %s, and then "anubisctl verify"',
                  coalesce((select format('run "ALTER %s RESET session_replication_role"',
                                 concat_ws(' ', case when s.setrole <> 0 then format('ROLE %I', s.setrole::regrole::text) end,
                                           case when s.setrole <> 0 and s.setdatabase <> 0 then 'IN' end,
                                           case when s.setdatabase <> 0 then format('DATABASE %I', current_database()) end))
                     from pg_db_role_setting s, unnest(s.setconfig) c
                    where c ~* '^session_replication_role=' and s.setdatabase in (0, (select oid from pg_database where datname = current_database()))
                      and s.setrole in (0, current_user::regrole::oid)
                    order by s.setrole <> 0 desc, s.setdatabase <> 0 desc limit 1),
                           'take it out of the server''s configuration or of database.conninfo'))
     where current_setting('session_replication_role') = 'replica'
$$;

-- Whether the ledger begins with an event of another installation: its data were loaded into tables that had a name already. The id is
-- one of ledger_event_id(), but the name in it is not ours.
create or replace function @extschema@.ledger_is_foreign() returns boolean language sql stable set search_path = pg_catalog, pg_temp as $$
    select substr(e.event_id, 15, 1) = '8' and right(e.event_id, 17) = right(e.ours, 17) and e.event_id <> e.ours
      from (select e.event_id::text, @extschema@.ledger_event_id(e.id)::text as ours from @extschema@.subscription_events e
             where e.id > (select i.copied_up_to from @extschema@.installation i) order by e.id limit 1) e
$$;

-- The installation whose events the ledger has: by its first event, one of those whose names stand in this database; NULL = none of these.
create or replace function @extschema@.installation_of_ledger() returns uuid language sql stable set search_path = pg_catalog, pg_temp as $$
    select case when @extschema@.ledger_is_foreign() then (
        select n.name
          from (select replace(e.event_id::text, '-', '') as id from @extschema@.subscription_events e
                 where e.id > (select i.copied_up_to from @extschema@.installation i) order by e.id limit 1) first
          join (select i.namespace as name from @extschema@.installation i
                 union all
                (select split_part(c.note, E'\n', 2)::uuid from @extschema@.audit_checkpoints c order by c.id desc limit 1)) n
            on @extschema@.ledger_ids_begin(n.name) = left(first.id, 16)
         limit 1)
      else @extschema@.installation_name() end
$$;

-- Why no daemon may work here, and what would be right; NULL = one may.
create or replace function @extschema@.work_refused() returns text language plpgsql volatile set search_path = pg_catalog, pg_temp as $$
declare
    columns text := @extschema@.columns_amiss();
    tables text := @extschema@.tables_amiss();
    views text := @extschema@.views_amiss();
    amiss text := @extschema@.triggers_amiss();
    replica text := @extschema@.replica_session();
    statements text;
    ending text;
    owner uuid;
begin
    if current_setting('server_encoding') = 'SQL_ASCII' then
        return 'the database''s encoding is SQL_ASCII, in which Postgres takes any bytes for text, and what anubisd sends is UTF-8; load a dump of it '
               'into a database of the encoding UTF8 (createdb -T template0 -E UTF8 NAME), and let database.conninfo name that one';
    end if;
    if columns is not null then
        return format('a migration of the application is in the way: %s', columns);
    end if;
    if tables is not null then
        return format('the tables are not as anubisd made them: %s', tables);
    end if;
    if current_setting('transaction_read_only') = 'off' then
        perform @extschema@.ledger_go_on();
    end if;
    if amiss is not null then
        return format('changes may leave no trace: trigger %s; run "anubisctl migrate", which brings it back, and then "anubisctl verify"', amiss);
    end if;
    if views is not null then
        return format('a view that anubisd needs is missing: %s; run "anubisctl migrate", which brings it back', views);
    end if;
    if replica is not null then
        return format('changes would leave no trace: %s', replica);
    end if;
    statements := @extschema@.sequences_behind();
    if statements is not null then
        return format('ids would be given out twice: sequences are behind their tables, as after logical replication or a restore of single tables; run "%s"',
                      rtrim(statements, ';'));
    end if;
    ending := (select @extschema@.ledger_end(s.last_value) from @extschema@.ledger_id_seq s);
    if ending is not null then
        return ending;
    end if;
    if @extschema@.ledger_is_foreign() then
        owner := @extschema@.installation_of_ledger();
        if owner is null then
            return format('the ledger has events of another installation, whose row of table installation was not loaded with them. If this is a '
                          'copy, run "anubisctl installation --copy"; to go on as that installation, write its name from the dump: "update %s '
                          'set namespace = ...", then run "anubisctl installation --same"', '@extschema@.installation'::regclass);
        end if;
        return format('the ledger has events of another installation, %s, while this database names new ones by %s. If that one is in use '
                      'no more, run "anubisctl installation --same"; if this is a copy of it, "anubisctl installation --copy"',
                      owner, @extschema@.installation_name());
    end if;
    if (select i.namespace from @extschema@.installation i) <> @extschema@.installation_name() then
        return format('table installation names %s, which somebody has written there, while events and keys are those of installation %s; '
                      'run "anubisctl installation --same", which writes that name there again',
                      (select namespace from @extschema@.installation), @extschema@.installation_name());
    end if;
    if @extschema@.installation_is_elsewhere() then
        return format('this database was copied or moved: it belongs to installation %s, which was last used elsewhere. If that one is '
                      'in use no more, run "anubisctl installation --same"; if this is a copy of it, "anubisctl installation --copy"',
                      (select namespace from @extschema@.installation));
    end if;
    return null;
end $$;

-- The root of a tree of the audit log, from the roots of its full subtrees, the largest first: RFC 9162, section 2.1.
create or replace function @extschema@.installation_audit_root(roots bytea) returns bytea language plpgsql immutable
    set search_path = pg_catalog, pg_temp as $$
declare
    root bytea := substr(roots, length(roots) - 31, 32);
begin
    for place in reverse length(roots) / 32 - 2 .. 0 loop
        root := sha256(E'\\x01'::bytea || substr(roots, place * 32 + 1, 32) || root);
    end loop;
    return root;
end $$;

-- Keeps the name in the leaves that there are, before it becomes another one: the installation's, or where its data were loaded under another
-- name, that of the last checkpoint. A last one in this name has all leaves, so that each can be proven; see src/crypto/audit_note.h.
create or replace function @extschema@.installation_audit_kept() returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    name uuid := (select namespace from @extschema@.installation);
    words text;
    kept bigint;
begin
    if @extschema@.ledger_is_foreign() then
        name := coalesce((select split_part(c.note, E'\n', 2)::uuid from @extschema@.audit_checkpoints c order by c.id desc limit 1), name);
    end if;
    select format(E'anubisd audit checkpoint 1\n%s\n', name)
           || string_agg(format(E'%s %s %s %s\n', t.topic, t.partition, t.size, encode(@extschema@.installation_audit_root(t.roots), 'hex')), ''
                         order by t.topic, t.partition)
      into words from @extschema@.audit_trees t where t.size > 0;
    if words is null then
        return;
    end if;
    select c.id into kept from @extschema@.audit_checkpoints c where starts_with(c.note, words) order by c.id desc limit 1;
    if kept is null then
        insert into @extschema@.audit_checkpoints (note, published_at) values (words, now()) returning id into kept;
    end if;
    insert into @extschema@.audit_past (tree, leaves, installation, checkpoint)
    select t.id, t.size, name, kept from @extschema@.audit_trees t where t.size > 0 order by t.id;
end $$;

-- "anubisctl installation": the database is that of the installation (moved, upgraded, restored), or a copy of it with a name of its own.
-- Whose events the ledger has is whose database it is.
-- Returns how many integrations were disabled. A copy sends nothing until each integration is enabled again; what the original had
-- published and not yet counted at the time of the copy is published again, as the copy's own.
create or replace function @extschema@.installation_settle(is_copy boolean) returns bigint
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    disabled bigint := 0;
    given uuid := case when is_copy then gen_random_uuid() else @extschema@.installation_of_ledger() end;
begin
    if given is null then
        raise exception using errcode = 'object_not_in_prerequisite_state', message = @extschema@.work_refused();
    end if;
    -- Daemons at work know the name that it has, publish under it, and count what has it. Those that wait only look now and then.
    for n in 1..50 loop
        exit when not is_copy or @extschema@.installation_is_elsewhere()
               or not exists (select from pg_stat_activity where datname = current_database() and application_name like 'anubisd%');
        if n = 50 then
            raise exception using errcode = 'object_in_use', message = 'daemons are at work on this database, which is where it was last used',
                hint = 'To make a copy of it all the same, end them first.';
        end if;
        perform pg_sleep(0.1), pg_stat_clear_snapshot();
    end loop;
    if is_copy then
        perform @extschema@.installation_audit_kept();
    end if;
    update @extschema@.installation
       set (server, database, tables) = (select h.server, h.database, h.tables from @extschema@.installation_here() h),
           namespace = given,
           copied_up_to = case when is_copy then (select last_value from @extschema@.ledger_id_seq) else copied_up_to end;
    perform setval('@extschema@.ledger_place_seq', @extschema@.ledger_place()) where @extschema@.ledger_port_differs();
    -- The next leader looks whether Kafka is ahead.
    update @extschema@.relay_state set timeline = -1 where timeline is not null;
    if given <> @extschema@.installation_name() then
        perform @extschema@.ledger_name_events();
    end if;
    if is_copy then
        update @extschema@.integrations set enabled = false where enabled;
        get diagnostics disabled = row_count;
        update @extschema@.relay_state r
           set gap_first = '{}', gap_last = '{}', gap_horizon = '{}',
               high = least(r.high, (select min(g) - 1 from unnest(r.gap_first) g),
                            (select min(e.id) - 1 from @extschema@.subscription_events e
                               join (values ('integration'), ('monitoring')) m (model)
                                 on m.model = 'integration' or exists (select from @extschema@.consumer_offsets o where o.read_model = m.model)
                              where e.event_type is not null and (m.model = 'monitoring' or e.event_type <> 'updated')
                                and e.id > coalesce((select max(last_id) from @extschema@.ledger_partitions
                                                      where name = 'subscription_events_adopted'), 0)
                                and not exists (select from @extschema@.consumer_bitmaps b
                                                 where b.read_model = m.model and b.event_type = e.event_type
                                                   and b.chunk = e.id / 8192 and get_bit(b.bits, (e.id % 8192)::integer) = 1)));
    end if;
    return disabled;
end $$;
revoke execute on function @extschema@.installation_settle(boolean), @extschema@.installation_audit_kept() from public;
