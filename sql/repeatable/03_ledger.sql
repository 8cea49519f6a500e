-- The ledger: append-only, in partitions that are made ahead, and indexed when they are full; each event with an id that is derived.

create or replace function @extschema@.ledger_refuse() returns trigger language plpgsql as $$
begin
    raise exception using errcode = 'restrict_violation',
        message = format('cannot %s rows of subscription_events: the ledger is append-only', lower(tg_op)),
        hint = 'A subscription with events cannot be destroyed either; one that shall not be sent is set to status "failed".';
end $$;

-- Makes ledger_event_id(), which gives the event with this ledger id its UUID: version 8 of RFC 9562, half of it the beginning of the
-- installation's namespace, half of it the id (below 2^62), whose two highest bits become the variant. So no two events of the ledger
-- have the same one, nor two of installations that are named apart. A constant, which costs the application's insert a fifth of a random
-- UUID; so whoever changes the namespace calls this function again. As in subscription_inserted, every name is qualified.
create or replace function @extschema@.ledger_name_events() returns void language plpgsql set search_path = pg_catalog, pg_temp as $do$
declare
    beginning text;
begin
    select overlay(left(encode(uuid_send(n.namespace), 'hex'), 16) placing '8' from 13 for 1) into strict beginning
      from @extschema@.installation n;
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
    drawn bigint := (select last_value from @extschema@.ledger_id_seq);
    newest @extschema@.ledger_partitions;
    first_id bigint;
    made integer := 0;
    partition_name text;
begin
    perform pg_advisory_xact_lock(@extschema@.lock_key('ledger'));
    width := greatest(1 << 10, least(width, 1 << 22));
    loop
        select * into newest from @extschema@.ledger_partitions p order by p.last_id desc limit 1;
        exit when (select count(*) from @extschema@.ledger_partitions p where p.first_id > drawn) >= 2;
        -- Ids that the default partition took stay there; the next partition begins after them.
        first_id := greatest(coalesce(newest.last_id + 1, 1),
                             (select coalesce(max(id) + 1, 1) from @extschema@.subscription_events_default));
        -- And so do those that are being drawn now, should the sequence have run (or been set) past the last partition.
        if first_id > coalesce(newest.last_id + 1, 1) or drawn > newest.last_id then
            first_id := greatest(first_id, drawn + 100000);
        end if;
        if newest.last_id - newest.first_id + 1 >= width and newest.created_at > now() - interval '1 day' and made = 0 and
           exists (select from @extschema@.ledger_partitions p where p.last_id < drawn and p.created_at > now() - interval '1 day') then
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
