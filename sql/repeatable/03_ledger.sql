-- The ledger: append-only, in partitions that are made ahead, and indexed when they are full; each event with an id that is derived.

-- May subscriptions and events be deleted and truncated? Where the owner has said so, and where no daemon works: in a database that was
-- made from a schema dump, or all of whose tables a test suite has truncated.
create or replace function @extschema@.cleaning_allowed() returns boolean language sql stable security definer
    set search_path = pg_catalog, pg_temp as $$ select coalesce((select allows_cleaning from @extschema@.installation), true) $$;

-- An event that nobody was told of may leave an id that this very transaction leaves out: see ledger_renumber(). And an event may lose
-- what names a person: see ledger_erases().
create or replace function @extschema@.ledger_refuse() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
    if tg_op <> 'UPDATE' and @extschema@.cleaning_allowed() then
        return old;
    elsif tg_op <> 'TRUNCATE' and exists (select from @extschema@.ledger_leaps l
                                           where l.created_at = now() and old.id between l.first_id and l.last_id) then
        return case tg_op when 'UPDATE' then new else old end;
    elsif tg_op = 'UPDATE' and @extschema@.ledger_erases(to_jsonb(old), to_jsonb(new)) then
        return new;
    end if;
    raise exception using errcode = 'restrict_violation',
        message = format('cannot %s rows of subscription_events: the ledger is append-only', lower(tg_op)),
        hint = 'A subscription with events cannot be destroyed either; one that must not be sent is set to status "failed".';
end $$;

-- Where ids are drawn: the server and its timeline, as far as it tells them, the database, and the sequence. All of it stays through a
-- crash; a server that was recovered to an earlier time, a standby that was promoted, a dump that was loaded and a copy are other places.
-- In the lowest 16 bits the server's port, by which a physical copy beside the original differs; 0 where the timeline is not told, which
-- tells that copy from a standby that was promoted. Asked with the owner's rights, so that the answer is the same for everybody.
create or replace function @extschema@.ledger_place() returns bigint
    language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $$
declare
    server bigint;
    timeline text;
begin
    begin
        server := (select system_identifier from pg_control_system());
        timeline := left(pg_walfile_name(pg_current_wal_insert_lsn()), 8);
    exception when others then
        null;
    end;
    return hashtextextended(concat_ws(' ', server, timeline, (select oid from pg_database where datname = current_database()),
                                      '@extschema@.ledger_id_seq'::regclass::oid), 0) >> 16 << 16
           | case when timeline is null then 0 else current_setting('port')::bigint end;
end $$;

-- Is the place the same but for the port? A physical copy of the server (pg_basebackup), or the server was moved.
create or replace function @extschema@.ledger_port_differs() returns boolean
    language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select p.is_called and p.last_value >> 16 = h.place >> 16 and p.last_value <> h.place
      from @extschema@.ledger_place_seq p, @extschema@.ledger_place() h (place)
$$;

-- Are hardly any ids left behind this one? With the statement that helps: up to 2^53 - 1 every number is exact in JSON, and event_id
-- holds no more than 62 bits.
create or replace function @extschema@.ledger_end(last_id bigint) returns text
    language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select format('the ids of the ledger come to their end: almost none is left after %s; run "alter sequence %s maxvalue %s"', $1,
                  '@extschema@.ledger_id_seq', case when seqmax < 9007199254740991 then 9007199254740991 else 4611686018427387903 end)
      from pg_sequence where seqrelid = '@extschema@.ledger_id_seq'::regclass and seqmax - $1 < 1000000
$$;

-- Leaves out the ids up to this one and many more, so that none is drawn that was drawn before in another place, whatever was lost there.
-- A gap for the relay, which nobody fills. The row is lost when the transaction is rolled back, and only the count of waiting events then
-- includes the ids. Round numbers, because people read them; near the sequence's end half of what is left, and nothing of the last ids.
create or replace function @extschema@.ledger_leap(beyond bigint) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    step constant bigint := 10000000000;
    drawn bigint;
    target bigint;
    at_most bigint;
begin
    perform pg_advisory_xact_lock(@extschema@.lock_key('place'));
    drawn := (select last_value from @extschema@.ledger_id_seq);
    at_most := (select seqmax from pg_sequence where seqrelid = '@extschema@.ledger_id_seq'::regclass);
    target := (greatest(drawn, beyond) / step + 2) * step;
    if target > at_most - step then
        target := greatest(drawn, beyond) + (at_most - greatest(drawn, beyond)) / 2;
        if @extschema@.ledger_end(target) is not null then
            raise exception using errcode = 'sequence_generator_limit_exceeded', message = @extschema@.ledger_end(target);
        end if;
    end if;
    insert into @extschema@.ledger_leaps (first_id, last_id) values (drawn + 1, target);
    return setval('@extschema@.ledger_id_seq', target) + 1;
end $$;
revoke execute on function @extschema@.ledger_leap(bigint) from public;

-- Kafka has events of this installation that the ledger has not: its files were put back, and ids were given out a second time, perhaps.
-- Leaves ids out up to the newest that Kafka has, and many more; what was written since then, behind the last id that is published, gets
-- the ids behind them, before anybody is told of it. Not when that is more than writers should wait for. Returns the next id, and how many
-- events moved, from which id on, to which.
create or replace function @extschema@.ledger_renumber(published bigint, newest bigint, since timestamptz, out next_id bigint,
                                                       out moved bigint, out old_first bigint, out new_first bigint)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '2s' as $$
declare
    at_most constant bigint := 100000;
begin
    -- Whoever has drawn an id has committed its event then, and nobody draws one meanwhile.
    lock table @extschema@.subscription_events in share row exclusive mode;
    select min(e.id), coalesce(max(e.id) - min(e.id) + 1, 0) into old_first, moved from @extschema@.subscription_events e
     where e.id > published and @extschema@.as_instant(e.created_at) > since;
    next_id := @extschema@.ledger_leap(newest);
    if moved not between 1 and at_most then
        moved := 0;
        return;
    end if;
    new_first := next_id;
    update @extschema@.ledger_leaps set first_id = old_first where last_id = new_first - 1;
    update @extschema@.subscription_events e
       set id = e.id - old_first + new_first, event_id = @extschema@.ledger_event_id(e.id - old_first + new_first)
     where e.id between old_first and old_first + moved - 1;
    next_id := setval('@extschema@.ledger_id_seq', new_first + moved - 1) + 1;
end $$;
revoke execute on function @extschema@.ledger_renumber(bigint, bigint, timestamptz) from public;

-- Before the first id that a session draws: are ids drawn in the same place as before? If not, the database was set back, perhaps, and
-- would give out again the ids that Kafka has already. Nobody waits for another transaction's end: what counts are sequences, and whoever
-- has the lock has done with them in a moment.
create or replace function @extschema@.ledger_go_on() returns void
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    here bigint := @extschema@.ledger_place();
begin
    while (select not is_called or last_value >> 16 <> here >> 16 from @extschema@.ledger_place_seq) loop
        if not pg_try_advisory_xact_lock(@extschema@.lock_key('place')) then
            perform pg_sleep(0.001);
        else
            if (select is_called and last_value >> 16 <> here >> 16 from @extschema@.ledger_place_seq) then
                perform @extschema@.ledger_leap(0);
            end if;
            perform setval('@extschema@.ledger_place_seq', here);
        end if;
    end loop;
    -- And up to which id subscriptions had one: see subscription_next().
    perform set_config(@extschema@.doorbell_channel() || '.place',
                       coalesce((select subscriptions_up_to from @extschema@.installation), 0)::text, false);
end $$;

-- How many ids were given out from the one to the other, both included.
create or replace function @extschema@.ledger_ids(first_id bigint, last_id bigint) returns bigint
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select greatest($2 - $1 + 1 - coalesce((select sum(least($2, l.last_id) - greatest($1, l.first_id) + 1) from @extschema@.ledger_leaps l
                                             where l.first_id <= $2 and l.last_id >= $1), 0), 0)::bigint
$$;

-- The first half of the ids that ledger_event_id() gives to the events of the installation of this name, as 16 digits.
create or replace function @extschema@.ledger_ids_begin(name uuid) returns text language sql immutable set search_path = pg_catalog, pg_temp as $$
    select overlay(left(encode(uuid_send(name), 'hex'), 16) placing '8' from 13 for 1) $$;

-- Makes ledger_event_id(), which gives the event with this ledger id its UUID: version 8 of RFC 9562, half of it the beginning of the
-- installation's namespace, half of it the id (below 2^62), whose two highest bits become the variant. So no two events of the ledger
-- have the same one, nor two of installations that are named apart. A constant, which costs the application's insert a fifth of a random
-- UUID; so whoever changes the namespace calls this function again. As in subscription_inserted, every name is qualified.
-- installation_name() is the namespace once more, should the row be lost.
create or replace function @extschema@.ledger_name_events() returns void language plpgsql set search_path = pg_catalog, pg_temp as $do$
declare
    whole uuid;
    beginning text;
begin
    select n.namespace, @extschema@.ledger_ids_begin(n.namespace) into strict whole, beginning
      from @extschema@.installation n;
    execute format('create or replace function @extschema@.installation_name() returns uuid
        language sql immutable parallel safe as $$ select %L::uuid $$', whole);
    execute format('create or replace function @extschema@.ledger_event_id(ledger_id bigint) returns uuid
        language sql immutable parallel safe as $$
            select pg_catalog.textcat(%L, pg_catalog.to_hex(
                       ledger_id operator(pg_catalog.|) ''-9223372036854775808''::pg_catalog.int8))::pg_catalog.uuid $$', beginning);
end $do$;
select @extschema@.ledger_name_events();

-- Makes partitions ahead: at least two lie before the ids being given out. A partition that filled up within a day is followed by one
-- of twice its width, up to 4 million ids: the newest is read through for the events of one subscription, and its index is to be made in
-- a few seconds. Returns how many were made. LIKE and ATTACH, because CREATE ... PARTITION OF would wait for every open
-- transaction with all inserts queued behind it. The caller sets lock_timeout. Runs with the rights of the role that migrated, because
-- the daemon's may own nothing (see anubisd_grant); so nobody else may call it.
create or replace function @extschema@.ledger_extend(width bigint default 1 << 20) returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    -- The next id to be given out.
    next_id bigint := (select last_value + is_called::integer from @extschema@.ledger_id_seq);
    newest @extschema@.ledger_partitions;
    first_id bigint;
    made integer := 0;
    partition_name text;
begin
    perform pg_advisory_xact_lock(@extschema@.lock_key('ledger'));
    width := greatest(1 << 10, least(width, 1 << 22));
    loop
        select * into newest from @extschema@.ledger_partitions p order by p.last_id desc limit 1;
        exit when (select count(*) from @extschema@.ledger_partitions p where p.first_id > next_id) >= 2;
        -- Ids that the default partition took stay there; the next partition begins after them.
        first_id := greatest(coalesce(newest.last_id + 1, 1),
                             (select coalesce(max(id) + 1, 1) from @extschema@.subscription_events_default));
        -- And so do those that are being drawn now, should the sequence have run (or been set) past the last partition.
        if first_id > coalesce(newest.last_id + 1, 1) or next_id > coalesce(newest.last_id, 0) + 1 then
            first_id := greatest(first_id, next_id + 100000);
        end if;
        if newest.last_id - newest.first_id + 1 >= width and newest.created_at > now() - interval '1 day' and made = 0 and
           exists (select from @extschema@.ledger_partitions p where p.last_id < next_id and p.created_at > now() - interval '1 day') then
            width := least((newest.last_id - newest.first_id + 1) * 2, 1 << 22);
        elsif newest.last_id - newest.first_id + 1 > width and newest.name <> 'subscription_events_adopted' then
            width := newest.last_id - newest.first_id + 1;
        end if;
        partition_name := 'subscription_events_' || first_id;
        -- The check spares ATTACH a look at the table, and would be read anew by each statement that writes into it.
        execute format('create table @extschema@.%I (like @extschema@.subscription_events including defaults including generated including constraints,
                        constraint in_range check (id >= %s and id < %s))', partition_name, first_id, first_id + width);
        execute format('alter table @extschema@.subscription_events attach partition @extschema@.%I for values from (%s) to (%s)',
                       partition_name, first_id, first_id + width);
        execute format('alter table @extschema@.%I drop constraint in_range', partition_name);
        -- Row triggers are inherited, this one is not.
        execute format('create trigger ledger_no_truncate before truncate on @extschema@.%I
                        for each statement execute function @extschema@.ledger_refuse()', partition_name);
        insert into @extschema@.ledger_partitions (name, first_id, last_id) values (partition_name, first_id, first_id + width - 1);
        made := made + 1;
    end loop;
    return made;
end $$;

revoke execute on function @extschema@.ledger_extend(bigint) from public;

-- Makes the index by subscription of a partition that is full and lacks it; its name, or NULL when there is nothing to do. Waits for
-- nobody: a transaction that still writes into the partition, or a session that works on the ledger's partitions, leaves it for the
-- next call. Who draws an id of the partition that late waits until the index is there.
create or replace function @extschema@.ledger_index() returns text
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    partition_name text;
begin
    if not pg_try_advisory_xact_lock(@extschema@.lock_key('ledger')) then
        return null;
    end if;
    for partition_name in
        select c.relname from @extschema@.ledger_partitions p join pg_class c on c.relname = p.name
         where c.relnamespace = '@extschema@'::regnamespace and p.last_id < (select last_value from @extschema@.ledger_id_seq)
           and not exists (select from pg_index x join pg_attribute a on a.attrelid = c.oid and a.attnum = x.indkey[0]
                            where x.indrelid = c.oid and a.attname = 'subscription_id' and x.indisvalid and x.indpred is null)
         order by p.first_id loop
        begin
            execute format('lock table @extschema@.%I in share mode nowait', partition_name);
            execute format('create index on @extschema@.%I (subscription_id, id)', partition_name);
            return partition_name;
        exception when lock_not_available then
            continue;
        end;
    end loop;
    return null;
end $$;

revoke execute on function @extschema@.ledger_index() from public;

select @extschema@.ledger_extend();

-- The position of the WAL behind every commit so far; NULL where the role may not ask, or the server does not tell (managed ones).
create or replace function @extschema@.ledger_wal_position() returns bigint language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    perform pg_current_wal_flush_lsn();
    return pg_current_wal_insert_lsn() - '0/0'::pg_lsn;
exception when insufficient_privilege or feature_not_supported or object_not_in_prerequisite_state or undefined_function then
    return null;
end $$;

-- The partition that the relay gives the events of a subscription in a topic of so many: CRC-32 (IEEE 802.3, four bits at a time) of its
-- id in decimal, modulo their number. NULL gives NULL.
create or replace function @extschema@.key_partition(subscription bigint, partitions integer) returns integer
    language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp as $$
declare
    steps constant bigint[] := '{0,498536548,997073096,651767980,1994146192,1802195444,1303535960,1342533948,3988292384,4027552580,3604390888,
                                3412177804,2607071920,2262029012,2685067896,3183342108}';
    crc bigint := 4294967295;
    key bytea := convert_to(subscription::text, 'UTF8');
begin
    for i in 0 .. length(key) - 1 loop
        crc := crc # get_byte(key, i);
        crc := (crc >> 4) # steps[(crc & 15) + 1];
        crc := (crc >> 4) # steps[(crc & 15) + 1];
    end loop;
    return (crc # 4294967295) % partitions;
end $$;
