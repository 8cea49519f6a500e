-- The ledger: subscription_events, append-only, partitioned by ranges of id.

-- From here to the end of the transaction nobody changes a subscription: the baseline below counts what stands before the first event.
lock table @extschema@.subscriptions, @extschema@.integrations in share row exclusive mode;

create sequence @extschema@.ledger_id_seq as bigint cache 1;

-- The default of the ledger's id. The transaction id comes first: the relay gives a gap up when every transaction that had an id
-- when it saw the gap is over, so an id must never be drawn by a transaction that has none yet.
create function @extschema@.ledger_next_id() returns bigint language sql volatile as
    'select case when pg_current_xact_id() is not null then nextval(''@extschema@.ledger_id_seq''::regclass) end';

-- Who could read and write the application's table can read and write the one that stands in its place.
create function pg_temp.pass_on_rights() returns void language plpgsql as $$
declare
    old record;
    granted record;
begin
    select oid, relacl, relowner, pg_get_userbyid(relowner) as owner into old
      from pg_class where oid = '@extschema@.subscription_events_adopted'::regclass;
    for granted in select x.privilege_type || coalesce(' (' || quote_ident(r.attname) || ')', '') as privilege, x.privilege_type = 'INSERT' as inserts,
                          coalesce(quote_ident(pg_get_userbyid(nullif(x.grantee, 0))), 'public') as grantee
                     from (select old.relacl, null::name union all
                           select attacl, attname from pg_attribute where attrelid = old.oid and attacl is not null) r (acl, attname),
                          aclexplode(r.acl) x
                    where x.grantee <> old.relowner and x.privilege_type in ('SELECT', 'INSERT', 'UPDATE', 'DELETE') loop
        execute format('grant %s on @extschema@.subscription_events to %s', granted.privilege, granted.grantee);
        if granted.inserts then
            execute format('grant usage on sequence @extschema@.ledger_id_seq to %s', granted.grantee);
        end if;
    end loop;
    if old.owner <> current_user then
        execute format('grant usage on sequence @extschema@.ledger_id_seq to %I', old.owner);
        execute format('grant select, insert, update, delete on @extschema@.subscription_events to %I', old.owner);
    end if;
end $$;

-- An existing plain table becomes the oldest partition. It keeps its rows, columns, types and constraints; the columns it lacks are
-- added (nullable, so nothing is rewritten), and the parent copies its definitions, so that attaching always fits.
do $$
declare
    adopted boolean := pg_temp.column_type('subscription_events', 'id') is not null;
    last_old_id bigint := 0;
begin
    if adopted then
        alter table @extschema@.subscription_events rename to subscription_events_adopted;
    else
        create table @extschema@.subscription_events_adopted (id bigint not null);
    end if;

    perform pg_temp.complete('subscription_events_adopted',
        'event_id uuid',
        'event_type text',
        'subscription_id bigint',
        'integration_id bigint',
        'status text',
        'operation_name text',
        'attempt integer',
        'http_status integer',
        'duration_ms integer',
        'request text',
        'response text',
        'error_message text',
        'from_status text',
        'to_status text',
        'created_at timestamptz',
        -- What else the Kafka value needs, as it was at the event.
        'order_id bigint',
        'origin text',
        'cpf text',
        'sent_at timestamptz',
        'scheduled_to timestamptz',
        'next_attempt_at timestamptz',
        'subscription_created_at timestamptz',
        'subscription_updated_at timestamptz',
        'ambiguous boolean',
        'response_truncated boolean',
        'traceparent text');

    -- Rows that the application writes itself go on getting its defaults.
    create table @extschema@.subscription_events (like @extschema@.subscription_events_adopted including defaults including generated)
        partition by range (id);
    alter table @extschema@.subscription_events
        add primary key (id),
        alter column id set default @extschema@.ledger_next_id(),
        alter column event_id set default gen_random_uuid();
    execute format('alter table @extschema@.subscription_events alter column created_at set default %s',
                   case pg_temp.column_type('subscription_events', 'created_at')
                        when 'timestamp without time zone' then 'clock_timestamp() at time zone ''UTC''' else 'clock_timestamp()' end);
    if adopted then
        if pg_temp.column_type('subscription_events', 'updated_at') is not null then
            execute format('alter table @extschema@.subscription_events alter column updated_at set default %s',
                           case pg_temp.column_type('subscription_events', 'updated_at')
                                when 'timestamp without time zone' then 'now() at time zone ''UTC''' else 'now()' end);
        end if;
        select coalesce(max(id), 0) into last_old_id from @extschema@.subscription_events_adopted;
        execute format('alter table @extschema@.subscription_events attach partition @extschema@.subscription_events_adopted
                        for values from (minvalue) to (%s)', last_old_id + 1);
        insert into @extschema@.ledger_partitions (name, first_id, last_id)
        values ('subscription_events_adopted', 0, last_old_id);
        perform setval('@extschema@.ledger_id_seq', last_old_id + 1, false);
    else
        drop table @extschema@.subscription_events_adopted;
        alter table @extschema@.subscription_events
            alter column event_id set not null,
            alter column event_type set not null,
            alter column subscription_id set not null,
            alter column created_at set not null,
            add check (event_type in ('created', 'updated', 'sent', 'failed', 'retried'));
    end if;
    if adopted then
        perform pg_temp.pass_on_rights();
    end if;
    -- Only what comes after the adoption is published.
    insert into @extschema@.relay_state (high) values (last_old_id);
end $$;

-- The whole story of one subscription.
create index subscription_events_subscription on @extschema@.subscription_events (subscription_id, id);

-- The net below it all: should anubisd be away so long that its partitions run out, the application's inserts go on.
create table @extschema@.subscription_events_default partition of @extschema@.subscription_events default;

-- Keys of the advisory locks, one for each kind, and the channel of the doorbell: drawn once, so that the insert trigger has constants.
do $do$
declare
    base bigint := ('x' || substr(md5(gen_random_uuid()::text), 1, 14))::bit(56)::bigint << 7;
begin
    execute format('create function @extschema@.lock_key(kind text) returns bigint language sql immutable parallel safe
                    as $$ select %s + ascii(kind) $$', base);
    execute format('create function @extschema@.doorbell_channel() returns text language sql immutable parallel safe
                    as $$ select %L $$', 'anubisd_' || to_hex(base));
end $do$;

-- Makes partitions ahead: at least two lie before the ids being given out. A partition that filled up within a day is followed by one
-- of twice its width. Returns how many were made. LIKE and ATTACH, because CREATE ... PARTITION OF would wait for every open
-- transaction with all inserts queued behind it. The caller sets lock_timeout. Runs with the rights of the role that migrated, because
-- the daemon's may own nothing (see anubisd_grant); so nobody else may call it.
create function @extschema@.ledger_extend(width bigint default 1 << 20) returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    drawn bigint := (select last_value from @extschema@.ledger_id_seq);
    newest @extschema@.ledger_partitions;
    first_id bigint;
    made integer := 0;
    partition_name text;
begin
    perform pg_advisory_xact_lock(@extschema@.lock_key('ledger'));
    width := greatest(1 << 10, least(width, 1 << 28));
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
            width := least((newest.last_id - newest.first_id + 1) * 2, 1 << 28);
        elsif newest.last_id - newest.first_id + 1 > width and newest.name <> 'subscription_events_adopted' then
            width := newest.last_id - newest.first_id + 1;
        end if;
        partition_name := 'subscription_events_' || first_id;
        execute format('create table @extschema@.%I (like @extschema@.subscription_events including defaults including generated including constraints,
                        check (id >= %s and id < %s))', partition_name, first_id, first_id + width);
        execute format('alter table @extschema@.subscription_events attach partition @extschema@.%I for values from (%s) to (%s)',
                       partition_name, first_id, first_id + width);
        -- Row triggers are inherited, this one is not.
        execute format('create trigger ledger_no_truncate before truncate on @extschema@.%I
                        for each statement execute function @extschema@.ledger_refuse()', partition_name);
        insert into @extschema@.ledger_partitions (name, first_id, last_id) values (partition_name, first_id, first_id + width - 1);
        made := made + 1;
    end loop;
    return made;
end $$;

revoke execute on function @extschema@.ledger_extend(bigint) from public;

create function @extschema@.ledger_refuse() returns trigger language plpgsql as $$
begin
    raise exception using errcode = 'restrict_violation',
        message = format('cannot %s rows of subscription_events: the ledger is append-only', lower(tg_op)),
        hint = 'A subscription with events cannot be destroyed either; one that shall not be sent is set to status "failed".';
end $$;
create trigger ledger_append_only before update or delete on @extschema@.subscription_events
    for each row execute function @extschema@.ledger_refuse();
create trigger ledger_no_truncate before truncate on @extschema@.subscription_events
    for each statement execute function @extschema@.ledger_refuse();
create trigger ledger_no_truncate before truncate on @extschema@.subscription_events_default
    for each statement execute function @extschema@.ledger_refuse();
do $$
begin
    if pg_temp.column_type('subscription_events_adopted', 'id') is not null then
        create trigger ledger_no_truncate before truncate on @extschema@.subscription_events_adopted
            for each statement execute function @extschema@.ledger_refuse();
    end if;
end $$;

select @extschema@.ledger_extend();

-- Proofs start from here.
insert into @extschema@.ledger_baseline (status, subscriptions)
    select status, count(*) from @extschema@.subscriptions where status is not null group by status;
insert into @extschema@.ledger_baseline (integration_id, successful_sends, failed_sends)
    select id, coalesce(successful_sends, 0), coalesce(failed_sends, 0) from @extschema@.integrations
     where coalesce(successful_sends, 0) <> 0 or coalesce(failed_sends, 0) <> 0;
