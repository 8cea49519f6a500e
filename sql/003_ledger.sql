-- Where the ledger begins: after the events of before, if there are any.

-- From here to the end of the transaction nobody changes a subscription: the baseline below counts what stands before the first event.
lock table @extschema@.subscriptions, @extschema@.integrations in share row exclusive mode;

-- Of adopted columns, to tables that were not there before.
do $$
declare
    command text;
begin
    for command in select r.command from pg_temp.anubis_references r loop
        execute command;
    end loop;
end $$;

insert into @extschema@.installation default values;

-- Only what comes after an adoption is published.
insert into @extschema@.relay_state (high) select coalesce(max(id), 0) from @extschema@.subscription_events;
select setval('@extschema@.ledger_id_seq', high + 1, false) from @extschema@.relay_state;
-- So that a schema dump begins there, too, and nobody can set it back among the ids of before, whose events are published by nobody.
do $$
begin
    execute format('alter sequence @extschema@.ledger_id_seq minvalue %1$s start with %1$s', (select high + 1 from @extschema@.relay_state));
end $$;
update @extschema@.installation set noted_at = high from @extschema@.relay_state;
insert into @extschema@.ledger_partitions (name, first_id, last_id)
    select 'subscription_events_adopted', 0, high from @extschema@.relay_state
     where to_regclass('@extschema@.subscription_events_adopted') is not null;

-- Proofs start from here.
insert into @extschema@.ledger_baseline (status, subscriptions)
    select status::text, count(*) from @extschema@.subscriptions where status is not null group by status;
insert into @extschema@.ledger_baseline (integration_id, successful_sends, failed_sends)
    select id, coalesce(successful_sends, 0), coalesce(failed_sends, 0) from @extschema@.integrations
     where coalesce(successful_sends, 0) <> 0 or coalesce(failed_sends, 0) <> 0;

-- Roles that may insert into an adopted ledger draw its ids.
do $$
declare
    role text;
begin
    for role in select distinct coalesce(quote_ident(pg_get_userbyid(nullif(x.grantee, 0))), 'public')
                  from (select relacl, relowner from pg_class where oid = '@extschema@.subscription_events'::regclass
                        union all
                        select attacl, null from pg_attribute where attrelid = '@extschema@.subscription_events'::regclass) r (acl, owner),
                       aclexplode(r.acl) x
                 where x.privilege_type = 'INSERT' and x.grantee is distinct from r.owner loop
        execute format('grant usage on sequence @extschema@.ledger_id_seq to %s', role);
    end loop;
end $$;

-- The first key of the advisory locks (see lock_key), and the channel of the doorbell: drawn once, so that several installations
-- in one database do not meet, and constants, so that the insert trigger reads no table.
-- And whether the triggers refuse an integration or a filter that does not exist, in place of a foreign key.
do $do$
declare
    base bigint := ('x' || substr(md5(gen_random_uuid()::text), 1, 14))::bit(56)::bigint << 7;
begin
    execute format('create function @extschema@.lock_base() returns bigint language sql immutable parallel safe
                    as $$ select %L::bigint $$', base);
    execute format('create function @extschema@.doorbell_channel() returns text language sql immutable parallel safe
                    as $$ select %L $$', 'anubisd_' || to_hex(base));
    execute format('create function @extschema@.integration_required() returns boolean language sql immutable parallel safe
                    as $$ select %L::boolean $$', 'integration_id' not in (select attname from pg_temp.anubis_adopted));
    execute format('create function @extschema@.integration_filter_required() returns boolean language sql immutable parallel safe
                    as $$ select %L::boolean $$', 'integration_filter_id' not in (select attname from pg_temp.anubis_adopted));
end $do$;
