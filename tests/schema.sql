-- A fresh schema, as PostgreSQL 15 dumps it.
CREATE SCHEMA anubis;
CREATE FUNCTION anubis.anubisd_grant(role name) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    execute format('grant usage on schema anubis to %I', role);
    execute format('grant select on anubis.anubis_migrations, anubis.integration_filters, anubis.integrations_open,
                    anubis.installation, anubis.subscription_events, anubis.subscription_events_default,
                    anubis.subscription_event_feed, anubis.subscription_event_messages, anubis.ledger_partitions,
                    anubis.ledger_baseline, anubis.ledger_id_seq to %I', role);
    execute format('grant select, update on anubis.subscriptions, anubis.integrations to %I', role);
    execute format('grant select, insert, update, delete on anubis.integration_runtime, anubis.dead_letters,
                    anubis.relay_state, anubis.relay_topics, anubis.consumer_offsets, anubis.consumer_bitmaps to %I',
                   role);
    execute format('grant execute on function anubis.ledger_extend(bigint), anubis.ledger_index() to %I', role);
end $$;
CREATE FUNCTION anubis.as_document(document text, of_type json) RETURNS json
    LANGUAGE plpgsql IMMUTABLE
    AS $$
begin
    if document is null then
        return null;
    end if;
    perform document::jsonb;
    return document::json;
exception when others then
    return to_json(document);
end $$;
CREATE FUNCTION anubis.as_document(document text, of_type jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    AS $$ select anubis.as_document(document, null::json)::jsonb $$;
CREATE FUNCTION anubis.as_document(document text, of_type text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ select document $$;
CREATE FUNCTION anubis.as_instant(instant timestamp without time zone) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ select instant at time zone 'UTC' $$;
CREATE FUNCTION anubis.as_instant(instant timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ select instant $$;
CREATE FUNCTION anubis.doorbell_channel() RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ select 'anubisd_…' $$;
CREATE FUNCTION anubis.doorbell_ring() RETURNS void
    LANGUAGE plpgsql
    AS $$
begin
    if not pg_try_advisory_xact_lock_shared(anubis.lock_key('bell')) then
        perform pg_notify(anubis.doorbell_channel(), '');
    end if;
end $$;
CREATE FUNCTION anubis.doorbell_ring_for(ids bigint[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if not pg_try_advisory_xact_lock_shared(anubis.lock_key('bell')) and
       exists (select from anubis.integrations_open i where i.id = any (ids)) then
        perform pg_notify(anubis.doorbell_channel(), '');
    end if;
end $$;
CREATE FUNCTION anubis.event_time(instant timestamp with time zone) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    select case when instant is not null then
               to_char(least(greatest(instant, '0001-01-01 00:00:00+00'), '9999-12-31 23:59:59.999999+00') at time zone 'UTC',
                       'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') end
$$;
CREATE FUNCTION anubis.installation_here(OUT server bigint, OUT database oid, OUT tables oid) RETURNS record
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if has_function_privilege('pg_control_system()', 'execute') then
        server := (select system_identifier from pg_control_system());
    end if;
    database := (select oid from pg_database where datname = current_database());
    tables := 'anubis.installation'::regclass;
end $$;
CREATE FUNCTION anubis.installation_is_elsewhere() RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select i.server <> h.server is true or i.database <> h.database or i.tables <> h.tables
      from anubis.installation i, anubis.installation_here() h
$$;
CREATE FUNCTION anubis.installation_settle(is_copy boolean) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    disabled bigint := 0;
begin
    update anubis.installation
       set (server, database, tables) = (select h.server, h.database, h.tables from anubis.installation_here() h),
           namespace = case when is_copy then gen_random_uuid() else namespace end;
    -- The next leader looks whether Kafka is ahead.
    update anubis.relay_state set timeline = -1 where timeline is not null;
    if is_copy then
        perform anubis.ledger_name_events();
        update anubis.integrations set enabled = false where enabled;
        get diagnostics disabled = row_count;
        update anubis.relay_state r
           set gap_first = '{}', gap_last = '{}', gap_horizon = '{}',
               high = least(r.high, (select min(g) - 1 from unnest(r.gap_first) g),
                            (select min(e.id) - 1 from anubis.subscription_events e
                              where e.event_type in ('sent', 'failed')
                                and e.id > coalesce((select max(last_id) from anubis.ledger_partitions
                                                      where name = 'subscription_events_adopted'), 0)
                                and not exists (select from anubis.consumer_bitmaps b
                                                 where b.read_model = 'integration' and b.event_type = e.event_type
                                                   and b.chunk = e.id / 8192 and get_bit(b.bits, (e.id % 8192)::integer) = 1)));
    end if;
    return disabled;
end $$;
CREATE FUNCTION anubis.integration_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    perform anubis.doorbell_ring();
    return null;
end $$;
CREATE FUNCTION anubis.integration_check() RETURNS trigger
    LANGUAGE plpgsql
    AS $_$
declare
    unknown text;
    problem text;
    hint text := 'It looks like https://api.example.edu.br/enrolments; credentials go to auth_token or delivery_settings.';
    authority text := substring(new.endpoint_url from '^[Hh][Tt][Tt][Pp][Ss]?://([^/?#]*)');
    host text := substring(authority from '^(\[[^]]*\]|[^:]*)');
    port text := substring(authority from length(host) + 1);
    name text := regexp_replace(host, '\.$', '');
begin
    -- No event could name it.
    if new.id <= 0 and new.id is distinct from old.id then
        raise exception using errcode = 'check_violation', message = format('cannot give an integration the id %s', new.id),
            hint = 'Ids are positive.', table = 'integrations', constraint = 'integrations_id_is_positive';
    end if;
    if new.endpoint_url is not null and new.endpoint_url is distinct from old.endpoint_url then
        if octet_length(new.endpoint_url) > 8000 then
            problem := 'is longer than 8000 bytes';
        elsif authority is null then
            problem := 'is no http or https URL';
        elsif new.endpoint_url ~ '[[:space:][:cntrl:]]' then
            problem := 'holds a space or a control character';
        elsif authority ~ '@' then
            problem := 'holds a user name or a password';
        elsif host = '' then
            problem := 'names no host';
        elsif host ~ '[^\x01-\x7f]' then
            problem := format('names the host "%s", which is not in ASCII', host);
            hint := 'Write it in its xn-- form (punycode), which "idn2" or any browser shows.';
        elsif host like '[%' then
            if host !~ '^\[[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*\]$' then
                problem := format('names the host "%s", which is no IPv6 address', host);
            end if;
        elsif host !~ '^[A-Za-z0-9_.-]+$' then
            problem := format('names the host "%s", which holds a character that no host name has', host);
        elsif name ~ '^\.|\.\.|\.$|^$' or name ~ '[^.]{64}' then
            problem := format('names the host "%s", of which a part is empty or longer than 63 characters', host);
        elsif length(name) > 253 then
            problem := 'names a host of more than 253 characters';
        end if;
        if problem is null and port <> '' and (port !~ '^:[0-9]{1,5}$' or substr(port, 2)::integer not between 1 and 65535) then
            problem := format('has "%s" behind its host; a port is a number from 1 to 65535', port);
        end if;
        if problem is not null then
            raise exception using errcode = 'check_violation', message = 'endpoint_url ' || problem, hint = hint;
        end if;
    end if;
    -- As the daemon judges it (take_token): what it could not send is refused when it is written. What an adopted row held before keeps
    -- nobody from changing something else.
    if tg_op = 'INSERT' or new.auth_token is distinct from old.auth_token then
        if new.auth_token ~ '^(file|env):' then
            raise exception using errcode = 'check_violation', message = 'auth_token cannot be read from a file or from the environment',
                hint = 'It is the token itself, or "credential:NAME" for one that systemd hands to the daemon.';
        elsif new.auth_token ~ '[[:cntrl:]]' then
            raise exception using errcode = 'check_violation', message = 'auth_token holds control characters, perhaps the end of a line';
        elsif new.auth_token ~ '[^\x01-\x7f]' then
            raise exception using errcode = 'check_violation', message = 'auth_token holds characters that are not ASCII',
                hint = 'A header carries no others safely. Was it copied from a text with typographic dashes or quotes?';
        elsif new.auth_token ~ '^ +$' then
            raise exception using errcode = 'check_violation', message = 'auth_token is blank', hint = 'NULL stands for no token.';
        elsif new.auth_token ~ '^credential:' and new.auth_token !~ '^credential:[!-.0-~]{1,255}$' then
            raise exception using errcode = 'check_violation', message = 'auth_token has no name of a credential after "credential:"',
                hint = 'NAME is the one of LoadCredential=NAME:/path in the daemon''s unit, without blanks and "/".';
        elsif octet_length(new.auth_token) > 65536 then
            raise exception using errcode = 'check_violation',
                message = format('auth_token has %s bytes; 65536 are the most that is sent', octet_length(new.auth_token)),
                hint = 'Few servers accept headers of more than 8 to 64 KiB. Is it the token alone, and not the answer that it came in?';
        end if;
    end if;
    if jsonb_typeof(new.delivery_settings) <> 'object' then
        raise exception using errcode = 'check_violation', message = 'delivery_settings is no JSON object';
    end if;
    select k into unknown from jsonb_object_keys(new.delivery_settings) k
     where k not in ('auth', 'headers', 'signing_secret', 'outcomes', 'on_ambiguous', 'idempotency', 'lookup', 'proxy', 'confirmation', 'tls')
     limit 1;
    if unknown is not null then
        raise exception using errcode = 'check_violation', message = format('delivery_settings has an unknown key "%s"', unknown),
            hint = 'The keys are auth, headers, signing_secret, outcomes, on_ambiguous, idempotency, lookup, proxy, confirmation and tls.';
    end if;
    return new;
end $_$;
CREATE FUNCTION anubis.integration_filter_required() RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ select 't'::boolean $$;
CREATE FUNCTION anubis.integration_fingerprint(endpoint_url text, auth_token text) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ select hashtextextended(concat_ws(' ', endpoint_url, auth_token), 0) $$;
CREATE FUNCTION anubis.integration_mended() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    update anubis.integration_runtime set backoff_until = null, backoff_reason = null
     where integration_id = new.id and backoff_until is not null;
    if found then
        update anubis.subscriptions s set next_attempt_at = null
         where s.ctid = any (array(select w.ctid from anubis.subscriptions w
                                    where w.integration_id = new.id and w.status = 'retry' and w.held_at is null
                                    order by w.integration_id, anubis.subscription_due(w.next_attempt_at, w.scheduled_to), w.id
                                    limit 100 for no key update skip locked));
        perform anubis.doorbell_ring();
    end if;
    return null;
end $$;
CREATE FUNCTION anubis.integration_required() RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ select 't'::boolean $$;
CREATE FUNCTION anubis.ledger_event_id(ledger_id bigint) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
            select pg_catalog.textcat('…', pg_catalog.to_hex(
                       ledger_id operator(pg_catalog.|) '-9223372036854775808'::pg_catalog.int8))::pg_catalog.uuid $$;
CREATE FUNCTION anubis.ledger_extend(width bigint DEFAULT (1 << 20)) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    drawn bigint := (select last_value from anubis.ledger_id_seq);
    newest anubis.ledger_partitions;
    first_id bigint;
    made integer := 0;
    partition_name text;
begin
    perform pg_advisory_xact_lock(anubis.lock_key('ledger'));
    width := greatest(1 << 10, least(width, 1 << 22));
    loop
        select * into newest from anubis.ledger_partitions p order by p.last_id desc limit 1;
        exit when (select count(*) from anubis.ledger_partitions p where p.first_id > drawn) >= 2;
        -- Ids that the default partition took stay there; the next partition begins after them.
        first_id := greatest(coalesce(newest.last_id + 1, 1),
                             (select coalesce(max(id) + 1, 1) from anubis.subscription_events_default));
        -- And so do those that are being drawn now, should the sequence have run (or been set) past the last partition.
        if first_id > coalesce(newest.last_id + 1, 1) or drawn > newest.last_id then
            first_id := greatest(first_id, drawn + 100000);
        end if;
        if newest.last_id - newest.first_id + 1 >= width and newest.created_at > now() - interval '1 day' and made = 0 and
           exists (select from anubis.ledger_partitions p where p.last_id < drawn and p.created_at > now() - interval '1 day') then
            width := least((newest.last_id - newest.first_id + 1) * 2, 1 << 22);
        elsif newest.last_id - newest.first_id + 1 > width and newest.name <> 'subscription_events_adopted' then
            width := newest.last_id - newest.first_id + 1;
        end if;
        partition_name := 'subscription_events_' || first_id;
        -- The check spares ATTACH a look at the table, and would be read anew by each statement that writes into it.
        execute format('create table anubis.%I (like anubis.subscription_events including defaults including generated including constraints,
                        constraint in_range check (id >= %s and id < %s))', partition_name, first_id, first_id + width);
        execute format('alter table anubis.subscription_events attach partition anubis.%I for values from (%s) to (%s)',
                       partition_name, first_id, first_id + width);
        execute format('alter table anubis.%I drop constraint in_range', partition_name);
        -- Row triggers are inherited, this one is not.
        execute format('create trigger ledger_no_truncate before truncate on anubis.%I
                        for each statement execute function anubis.ledger_refuse()', partition_name);
        insert into anubis.ledger_partitions (name, first_id, last_id) values (partition_name, first_id, first_id + width - 1);
        made := made + 1;
    end loop;
    return made;
end $$;
CREATE FUNCTION anubis.ledger_index() RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    partition_name text;
begin
    if not pg_try_advisory_xact_lock(anubis.lock_key('ledger')) then
        return null;
    end if;
    for partition_name in
        select c.relname from anubis.ledger_partitions p join pg_class c on c.relname = p.name
         where c.relnamespace = 'anubis'::regnamespace and p.last_id < (select last_value from anubis.ledger_id_seq)
           and not exists (select from pg_index x join pg_attribute a on a.attrelid = c.oid and a.attnum = x.indkey[0]
                            where x.indrelid = c.oid and a.attname = 'subscription_id' and x.indisvalid and x.indpred is null)
         order by p.first_id loop
        begin
            execute format('lock table anubis.%I in share mode nowait', partition_name);
            execute format('create index on anubis.%I (subscription_id, id)', partition_name);
            return partition_name;
        exception when lock_not_available then
            continue;
        end;
    end loop;
    return null;
end $$;
CREATE FUNCTION anubis.ledger_name_events() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    beginning text;
begin
    select overlay(left(encode(uuid_send(n.namespace), 'hex'), 16) placing '8' from 13 for 1) into strict beginning
      from anubis.installation n;
    execute format('create or replace function anubis.ledger_event_id(ledger_id bigint) returns uuid
        language sql immutable parallel safe as $$
            select pg_catalog.textcat(%L, pg_catalog.to_hex(
                       ledger_id operator(pg_catalog.|) ''-9223372036854775808''::pg_catalog.int8))::pg_catalog.uuid $$', beginning);
end $_$;
CREATE FUNCTION anubis.ledger_next_id() RETURNS bigint
    LANGUAGE sql
    AS $$select case when pg_current_xact_id() is not null then nextval('anubis.ledger_id_seq'::regclass) end$$;
CREATE FUNCTION anubis.ledger_refuse() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    raise exception using errcode = 'restrict_violation',
        message = format('cannot %s rows of subscription_events: the ledger is append-only', lower(tg_op)),
        hint = 'A subscription with events cannot be destroyed either; one that shall not be sent is set to status "failed".';
end $$;
CREATE FUNCTION anubis.lock_base() RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ select '…'::bigint $$;
CREATE FUNCTION anubis.lock_key(kind text) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    select anubis.lock_base() + case kind
        when 'bell' then 0      -- a daemon that sleeps
        when 'seat' then 1      -- a daemon that claims
        when 'relay' then 2     -- the daemon that publishes
        when 'ledger' then 3    -- the session that makes partitions
        when 'name' then 4      -- a daemon's name
        when 'member' then 5    -- a consumer's name
        else ('no such kind of lock: ' || kind)::bigint end
$$;
CREATE FUNCTION anubis.reference_kept() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    name text := case tg_table_name when 'integrations' then 'integration_id' else 'integration_filter_id' end;
    used boolean;
begin
    if tg_op = 'TRUNCATE' then
        raise exception using errcode = 'restrict_violation', message = format('cannot truncate %s: subscriptions refer to them', tg_table_name);
    end if;
    for look in 1 .. case name when 'integration_id' then 2 else 1 end loop
        if look = 2 then
            lock table anubis.subscriptions in share row exclusive mode;
        end if;
        execute format('select exists (select from anubis.subscriptions where %I = $1)', name) into used using old.id;
        if used then
            raise exception using errcode = 'foreign_key_violation',
                message = format('update or delete on table "%s" violates foreign key constraint "subscriptions_%s_fkey" on table "subscriptions"',
                                 tg_table_name, name),
                detail = format('Key (id)=(%s) is still referenced from table "subscriptions".', old.id),
                hint = 'One that shall get nothing any more is disabled: enabled = false.',
                table = 'subscriptions', constraint = format('subscriptions_%s_fkey', name);
        end if;
    end loop;
    return null;
end $_$;
CREATE FUNCTION anubis.sequences_behind() RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    target text;
    statements text := '';
begin
    if not exists (select from anubis.subscription_events e where e.id > (select last_value from anubis.ledger_id_seq))
       and not exists (select from anubis.relay_state r where r.high > (select last_value from anubis.ledger_id_seq)) then
        return null;
    end if;
    statements := format('select setval(%L, greatest((select max(id) from %s), (select high from %s)));',
                         'anubis.ledger_id_seq', 'anubis.subscription_events', 'anubis.relay_state');
    foreach target in array '{subscriptions,integrations,integration_filters}'::text[] loop
        statements := statements || coalesce(format(' select setval(%L, (select coalesce(max(id), 1) from %s));',
            pg_get_serial_sequence('anubis.' || target, 'id'), 'anubis.' || target), '');
    end loop;
    return statements;
end $$;
CREATE FUNCTION anubis.subscription_change_refused() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    raise exception using errcode = 'object_in_use',
        message = format('cannot change %s of subscription %s: it is being sent',
                         case when new.integration_id is distinct from old.integration_id then 'the integration' else 'the payload' end, old.id),
        hint = 'Try again when its status is no longer "processing".';
end $$;
CREATE FUNCTION anubis.subscription_changed_by_others() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    -- A request may be under way.
    if old.status = 'processing' and old.claim_token is not null and new.status <> 'sent' then
        new.ambiguous_since := coalesce(new.ambiguous_since, clock_timestamp());
    end if;
    new.claimed_by := null;
    new.claim_token := null;
    new.held_at := null;
    -- Put back after it had failed: its attempts begin anew.
    if old.status = 'failed' and new.status in ('pending', 'retry') and new.attempts = old.attempts then
        new.attempts := 0;
    end if;
    -- An application that delivers by itself gets ten minutes; then the subscription counts as left behind.
    new.lease_expires_at := case when new.status = 'processing' then clock_timestamp() + interval '10 minutes' end;
    if new.last_error is not distinct from old.last_error then
        new.last_error := null;
    end if;
    if new.last_http_status is not distinct from old.last_http_status then
        new.last_http_status := null;
    end if;
    if new.last_response is not distinct from old.last_response then
        new.last_response := null;
    end if;
    new.last_response_truncated := null;
    new.last_duration_ms := null;
    if new.last_ambiguous is not distinct from old.last_ambiguous then
        new.last_ambiguous := null;
    end if;
    if new.status in ('pending', 'retry') and new.next_attempt_at is not distinct from old.next_attempt_at then
        new.next_attempt_at := null;
    end if;
    if new.status = 'sent' and new.sent_at is null then
        new.sent_at := anubis.subscription_now(new.sent_at);
    end if;
    return new;
end $$;
CREATE FUNCTION anubis.subscription_deletion_refused() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    raise exception using errcode = 'restrict_violation',
        message = format('cannot %s subscriptions: the ledger tells their history', lower(tg_op)),
        hint = 'One that shall not be sent is set to status "failed".';
end $$;
CREATE FUNCTION anubis.subscription_due(next_attempt_at timestamp with time zone, scheduled_to timestamp without time zone) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$ select coalesce(greatest($1, $2 at time zone 'UTC'), '-infinity'::timestamptz) $_$;
CREATE FUNCTION anubis.subscription_due(next_attempt_at timestamp with time zone, scheduled_to timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$ select coalesce(greatest($1, $2), '-infinity'::timestamptz) $_$;
CREATE FUNCTION anubis.subscription_inserted() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    AS $$
begin
    insert into anubis.subscription_events (event_id, id, event_type, subscription_id, integration_id, operation_name, attempt,
        to_status, order_id, origin, cpf, sent_at, scheduled_to, next_attempt_at, subscription_created_at, subscription_updated_at, traceparent)
    select anubis.ledger_event_id(e.ledger_id), e.* from (
    select pg_catalog.nextval('anubis.ledger_id_seq'::pg_catalog.regclass) as ledger_id, 'created', n.id, n.integration_id, 'create', n.attempts,
           n.status, n.order_id, n.origin, n.cpf, anubis.as_instant(n.sent_at), anubis.as_instant(n.scheduled_to),
           n.next_attempt_at, anubis.as_instant(n.created_at), anubis.as_instant(n.updated_at), n.traceparent
      from new_rows n
     where case when n.id operator(pg_catalog.>) 0 and n.attempts operator(pg_catalog.>=) 0
                 and n.attempts operator(pg_catalog.<=) 1000000000 and pg_catalog.isfinite(n.created_at) is not false
                 and n.status operator(pg_catalog.=) any ('{pending,processing,sent,failed,retry}'::pg_catalog.text[])
                 and n.idempotency_seed is not null
                 and (n.integration_filter_id is null or not anubis.integration_filter_required())
                 and (n.integration_id is null or not anubis.integration_required()
                      or (select true from anubis.integrations i where i.id operator(pg_catalog.=) n.integration_id))
                then true
                else anubis.subscription_judged(null, null, n.id, n.status, n.attempts, anubis.as_instant(n.created_at),
                                                     n.integration_id, n.integration_filter_id, n.idempotency_seed) end) e;
    if not pg_catalog.pg_try_advisory_xact_lock_shared(anubis.lock_base()) then
        if exists (select from new_rows n join anubis.integrations_open i on i.id operator(pg_catalog.=) n.integration_id
                    where n.status operator(pg_catalog.=) any ('{pending,retry}'::pg_catalog.text[]) and n.held_at is null
                      and anubis.subscription_due(n.next_attempt_at, n.scheduled_to)
                          operator(pg_catalog.<=) pg_catalog.clock_timestamp()) then
            perform pg_catalog.pg_notify(anubis.doorbell_channel(), '');
        end if;
    end if;
    return null;
end $$;
CREATE FUNCTION anubis.subscription_judged(old_id bigint, old_status text, id bigint, status text, attempts integer, created_at timestamp with time zone, integration_id bigint, filter_id bigint, seed bigint) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    rule text;
    words text;
    hint text;
begin
    if id is null then
        words := format('cannot change the id of subscription %s', old_id);
        hint := 'Its events and its Idempotency-Key carry the id.';
        rule := 'subscriptions_id_is_kept';
    elsif old_status = 'sent' and status is distinct from 'sent' then
        words := format('cannot change subscription %s from "sent" to "%s": "sent" is final', id, coalesce(status, 'NULL'));
        hint := 'Insert a new subscription to send it once more.';
        rule := 'subscriptions_sent_is_final';
    elsif (old_id is null or status is distinct from old_status)
          and coalesce(status not in ('pending', 'processing', 'sent', 'failed', 'retry'), true) then
        words := format('cannot set subscription %s to status "%s"', id, coalesce(status, 'NULL'));
        hint := 'The states are pending, processing, sent, failed and retry.';
        rule := 'subscriptions_status_is_known';
    -- No claim could work with other values, and no event could tell them.
    elsif id <= 0 then
        words := format('cannot give a subscription the id %s', id);
        hint := 'Ids are positive.';
        rule := 'subscriptions_id_is_positive';
    elsif attempts not between 0 and 1000000000 then
        words := format('cannot set subscription %s to %s attempts', id, attempts);
        hint := 'There are 0 to 1000000000.';
        rule := 'subscriptions_attempts_are_few';
    elsif not isfinite(created_at) then
        words := format('cannot set subscription %s to created_at "%s"', id, created_at);
        hint := 'The time is finite.';
        rule := 'subscriptions_created_at_is_finite';
    end if;
    if rule is not null then
        raise exception using errcode = 'check_violation', message = words, hint = hint, table = 'subscriptions', constraint = rule;
    end if;
    if integration_id is not null and anubis.integration_required()
       and not exists (select from anubis.integrations i where i.id = integration_id) then
        perform anubis.subscription_strays(id, 'integration_id', integration_id, 'integrations');
    end if;
    -- With a lock, as a foreign key has it: few rows have a filter.
    if filter_id is not null and anubis.integration_filter_required() then
        perform from anubis.integration_filters f where f.id = filter_id for key share;
        if not found then
            perform anubis.subscription_strays(id, 'integration_filter_id', filter_id, 'integration_filters');
        end if;
    end if;
    -- An insert that names the column without a value, as object-relational mappers may do.
    if old_id is null and seed is null then
        update anubis.subscriptions s set idempotency_seed = hashtextextended(gen_random_uuid()::text, 0)
         where s.id = subscription_judged.id;
    end if;
    return status is distinct from old_status;
end $$;
CREATE FUNCTION anubis.subscription_now(of_type timestamp without time zone) RETURNS timestamp without time zone
    LANGUAGE sql
    AS $$ select clock_timestamp() at time zone 'UTC' $$;
CREATE FUNCTION anubis.subscription_now(of_type timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE sql
    AS $$ select clock_timestamp() $$;
CREATE FUNCTION anubis.subscription_seeded() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    new.idempotency_seed := old.idempotency_seed;
    return new;
end $$;
CREATE FUNCTION anubis.subscription_strays(id bigint, name text, value bigint, target text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    raise exception using errcode = 'foreign_key_violation',
        message = format('insert or update on table "subscriptions" violates foreign key constraint "subscriptions_%s_fkey"', name),
        detail = format('Key (%s)=(%s) is not present in table "%s".', name, value, target),
        hint = format('Subscription %s has it.', id),
        table = 'subscriptions', constraint = format('subscriptions_%s_fkey', name);
end $$;
CREATE FUNCTION anubis.subscription_updated() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_nestloop TO 'off'
    AS $$
begin
    insert into anubis.subscription_events (event_id, id, event_type, subscription_id, integration_id, status, operation_name,
        attempt, http_status, duration_ms, request, response, error_message, from_status, to_status, order_id, origin, cpf, sent_at,
        scheduled_to, next_attempt_at, subscription_created_at, subscription_updated_at, ambiguous, response_truncated, traceparent)
    select anubis.ledger_event_id(e.ledger_id), e.* from (
    select pg_catalog.nextval('anubis.ledger_id_seq'::pg_catalog.regclass) as ledger_id,
           case n.status when 'sent' then 'sent' when 'failed' then 'failed' when 'retry' then 'retried' else 'updated' end,
           n.id, n.integration_id,
           case n.status when 'sent' then 'success' when 'failed' then 'error' when 'retry' then 'error' end,
           case n.status when 'processing' then 'claim' when 'pending' then 'release' else 'send_to_institution' end,
           greatest(o.attempts, n.attempts),
           case when n.status in ('sent', 'failed', 'retry') then n.last_http_status end,
           case when n.status in ('sent', 'failed', 'retry') then n.last_duration_ms end,
           case when n.status = 'failed'
                then anubis.as_document(n.payload::text, (null::anubis.subscription_events).request) end,
           case when n.status in ('sent', 'failed', 'retry')
                then anubis.as_document(n.last_response, (null::anubis.subscription_events).response) end,
           case when n.status in ('failed', 'retry') then coalesce(n.last_error, 'status set to ' || n.status || ' by the application') end,
           o.status, n.status, n.order_id, n.origin, n.cpf,
           anubis.as_instant(n.sent_at), anubis.as_instant(n.scheduled_to), n.next_attempt_at,
           anubis.as_instant(n.created_at), anubis.as_instant(n.updated_at),
           case when n.status in ('failed', 'retry') then n.last_ambiguous end,
           case when n.status in ('sent', 'failed', 'retry') then n.last_response_truncated end,
           n.traceparent
      from old_rows o left join new_rows n using (id)
     where case when n.id > 0 and n.attempts between 0 and 1000000000 and isfinite(n.created_at) is not false
                 and (n.status is not distinct from o.status
                      or o.status is distinct from 'sent' and n.status in ('pending', 'processing', 'sent', 'failed', 'retry'))
                 and (n.integration_filter_id is not distinct from o.integration_filter_id or n.integration_filter_id is null
                      or not anubis.integration_filter_required())
                 and (n.integration_id is not distinct from o.integration_id or n.integration_id is null
                      or not anubis.integration_required()
                      or (select true from anubis.integrations i where i.id = n.integration_id))
                then n.status is distinct from o.status
                else anubis.subscription_judged(o.id, o.status, n.id, n.status, n.attempts, anubis.as_instant(n.created_at),
                                                     n.integration_id, n.integration_filter_id, n.idempotency_seed) end) e;
    perform anubis.doorbell_ring_for(array_agg(distinct n.integration_id::bigint))
       from new_rows n join old_rows o using (id)
      where n.status in ('pending', 'retry') and n.held_at is null
        and anubis.subscription_due(n.next_attempt_at, n.scheduled_to) <= now()
        and (o.status not in ('pending', 'retry') or o.held_at is not null
             or anubis.subscription_due(o.next_attempt_at, o.scheduled_to) > now()
             or o.integration_id is distinct from n.integration_id)
     having count(*) > 0;
    return null;
end $$;
CREATE FUNCTION anubis.triggers_amiss() RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select string_agg(format('%s on %s (%s)', w.name, w.relation,
                             case when t.oid is null then 'missing' when t.tgenabled = 'D' then 'disabled' else 'not for everybody' end),
                      ', ' order by w.relation, w.name)
      from (values ('subscriptions', 'anubis_2_foreign_change'), ('subscriptions', 'anubis_3_seed_kept'),
                   ('subscriptions', 'anubis_4_change_refused'),
                   ('subscriptions', 'anubis_no_delete'), ('subscriptions', 'anubis_no_truncate'),
                   ('subscriptions', 'anubis_inserted'), ('subscriptions', 'anubis_updated'),
                   ('integrations', 'anubis_integration_woken'), ('integrations', 'anubis_integration_mended'),
                   ('integrations', 'anubis_integration_check'), ('integration_runtime', 'anubis_circuit_changed'),
                   ('subscription_events', 'ledger_append_only')) as w (relation, name)
      left join pg_class c on c.relname = w.relation and c.relnamespace = 'anubis'::regnamespace
      left join pg_trigger t on t.tgrelid = c.oid and t.tgname = w.name and not t.tgisinternal
     where t.tgenabled is null or t.tgenabled not in ('O', 'A')
$$;
CREATE FUNCTION anubis.work_refused() RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    amiss text := anubis.triggers_amiss();
    statements text := anubis.sequences_behind();
begin
    if amiss is not null then
        return format('changes may leave no trace: trigger %s; run "anubisctl migrate", which brings it back, and then "anubisctl verify"', amiss);
    end if;
    if statements is not null then
        return format('ids would be given out twice: the sequence of the ledger is behind its table, as after logical replication; run "%s"',
                      rtrim(statements, ';'));
    end if;
    if anubis.installation_is_elsewhere() then
        return format('this database was copied or moved: it belongs to installation %s, which was last used elsewhere. If that one is '
                      'in use no more, run "anubisctl installation --same"; if this is a copy of it, "anubisctl installation --copy"',
                      (select namespace from anubis.installation));
    end if;
    return null;
end $$;
CREATE TABLE anubis.anubis_migrations (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL,
    applied_by text NOT NULL,
    oldest_daemon integer DEFAULT 0 NOT NULL
);
CREATE TABLE anubis.anubis_repeatables (
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL,
    applied_by text NOT NULL
);
CREATE TABLE anubis.consumer_bitmaps (
    read_model text NOT NULL,
    event_type text NOT NULL,
    partition integer NOT NULL,
    chunk bigint NOT NULL,
    version bigint DEFAULT 1 NOT NULL,
    bits bytea NOT NULL,
    CONSTRAINT consumer_bitmaps_bits_check CHECK ((octet_length(bits) = 1024))
)
WITH (fillfactor='50');
ALTER TABLE ONLY anubis.consumer_bitmaps ALTER COLUMN bits SET STORAGE PLAIN;
CREATE TABLE anubis.consumer_offsets (
    consumer_group text NOT NULL,
    read_model text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL,
    foreign_messages bigint DEFAULT 0 NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
)
WITH (fillfactor='20');
CREATE TABLE anubis.dead_letters (
    id bigint NOT NULL,
    read_model text NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    key bytea,
    headers jsonb DEFAULT '{}'::jsonb NOT NULL,
    value bytea,
    error text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    replayed_at timestamp with time zone
);
ALTER TABLE anubis.dead_letters ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME anubis.dead_letters_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE anubis.installation (
    one boolean DEFAULT true NOT NULL,
    namespace uuid DEFAULT gen_random_uuid() NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    server bigint,
    database oid,
    tables oid,
    CONSTRAINT installation_one_check CHECK (one)
);
CREATE TABLE anubis.integration_filters (
    id bigint NOT NULL,
    integration_id bigint NOT NULL,
    name text,
    origin text,
    criteria jsonb DEFAULT '{}'::jsonb NOT NULL,
    "position" integer DEFAULT 0 NOT NULL,
    enabled boolean DEFAULT true NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL
);
ALTER TABLE anubis.integration_filters ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME anubis.integration_filters_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE anubis.integration_runtime (
    integration_id bigint NOT NULL,
    circuit_state text DEFAULT 'closed'::text NOT NULL,
    backoff_until timestamp with time zone,
    backoff_reason text,
    sent bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    sent_folded bigint DEFAULT 0 NOT NULL,
    failed_folded bigint DEFAULT 0 NOT NULL,
    CONSTRAINT integration_runtime_circuit_state_check CHECK ((circuit_state = ANY (ARRAY['closed'::text, 'open'::text, 'half_open'::text])))
)
WITH (fillfactor='50');
CREATE TABLE anubis.integrations (
    id bigint NOT NULL,
    name text NOT NULL,
    type text DEFAULT 'api'::text NOT NULL,
    endpoint_url text,
    auth_token text,
    enabled boolean DEFAULT true NOT NULL,
    timeout_ms integer,
    max_in_flight integer,
    rate_limit numeric,
    max_attempts integer,
    delivery_settings jsonb DEFAULT '{}'::jsonb NOT NULL,
    successful_sends bigint DEFAULT 0 NOT NULL,
    failed_sends bigint DEFAULT 0 NOT NULL,
    paused_until timestamp with time zone,
    pause_reason text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT integrations_max_attempts_check CHECK ((max_attempts > 0)),
    CONSTRAINT integrations_max_in_flight_check CHECK ((max_in_flight > 0)),
    CONSTRAINT integrations_rate_limit_check CHECK (((rate_limit > (0)::numeric) AND (rate_limit <= (1000000)::numeric))),
    CONSTRAINT integrations_timeout_ms_check CHECK ((timeout_ms > 0))
)
WITH (fillfactor='50');
ALTER TABLE anubis.integrations ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME anubis.integrations_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE VIEW anubis.integrations_open AS
 SELECT i.id
   FROM (anubis.integrations i
     LEFT JOIN anubis.integration_runtime r ON ((r.integration_id = i.id)))
  WHERE (i.enabled AND (COALESCE(r.circuit_state, 'closed'::text) <> 'open'::text) AND ((i.paused_until IS NULL) OR (i.paused_until <= now())) AND ((r.backoff_until IS NULL) OR (r.backoff_until <= now())));
CREATE TABLE anubis.ledger_baseline (
    integration_id bigint,
    status text,
    subscriptions bigint DEFAULT 0 NOT NULL,
    successful_sends bigint DEFAULT 0 NOT NULL,
    failed_sends bigint DEFAULT 0 NOT NULL
);
CREATE SEQUENCE anubis.ledger_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;
CREATE TABLE anubis.ledger_partitions (
    name text NOT NULL,
    first_id bigint NOT NULL,
    last_id bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE anubis.relay_state (
    one boolean DEFAULT true NOT NULL,
    epoch bigint DEFAULT 0 NOT NULL,
    high bigint DEFAULT 0 NOT NULL,
    gap_first bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    gap_last bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    gap_horizon bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    system_identifier bigint,
    timeline integer,
    leader text,
    stopped_on bigint,
    stopped_reason text,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT relay_state_check CHECK (((cardinality(gap_first) = cardinality(gap_last)) AND (cardinality(gap_first) = cardinality(gap_horizon)))),
    CONSTRAINT relay_state_one_check CHECK (one)
)
WITH (fillfactor='10');
CREATE TABLE anubis.relay_topics (
    topic text NOT NULL,
    from_sequence bigint NOT NULL,
    partitions integer NOT NULL,
    CONSTRAINT relay_topics_partitions_check CHECK ((partitions > 0))
);
CREATE TABLE anubis.subscription_events (
    id bigint DEFAULT anubis.ledger_next_id() NOT NULL,
    event_id uuid DEFAULT gen_random_uuid() NOT NULL,
    event_type text NOT NULL,
    subscription_id bigint NOT NULL,
    integration_id bigint,
    status text,
    operation_name text,
    attempt integer,
    http_status integer,
    duration_ms integer,
    request text,
    response text,
    error_message text,
    from_status text,
    to_status text,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    order_id bigint,
    origin text,
    cpf text,
    sent_at timestamp with time zone,
    scheduled_to timestamp with time zone,
    next_attempt_at timestamp with time zone,
    subscription_created_at timestamp with time zone,
    subscription_updated_at timestamp with time zone,
    ambiguous boolean,
    response_truncated boolean,
    traceparent text
)
PARTITION BY RANGE (id);
CREATE VIEW anubis.subscription_event_feed AS
 SELECT e.id,
    (e.event_id)::text AS event_id,
    e.event_type,
    COALESCE(anubis.as_instant(e.created_at), '1970-01-01 00:00:00+00'::timestamp with time zone) AS created_at,
    e.subscription_id,
    e.integration_id,
        CASE
            WHEN (i.id IS NOT NULL) THEN COALESCE("left"(i.name, 1000), ''::text)
            ELSE NULL::text
        END AS integration_name,
    COALESCE("left"(i.type, 1000), ''::text) AS integration_type,
    e.order_id,
    "left"(e.origin, 1000) AS origin,
    "left"(e.cpf, 1000) AS cpf,
    e.to_status AS status,
    e.sent_at,
    e.scheduled_to,
    COALESCE(e.subscription_created_at, anubis.as_instant(e.created_at), '1970-01-01 00:00:00+00'::timestamp with time zone) AS subscription_created_at,
    COALESCE(e.subscription_updated_at, anubis.as_instant(e.created_at), '1970-01-01 00:00:00+00'::timestamp with time zone) AS subscription_updated_at,
    e.attempt,
        CASE
            WHEN (e.event_type = 'sent'::text) THEN e.response
            ELSE NULL::text
        END AS response,
    COALESCE(e.response_truncated, false) AS response_truncated,
        CASE
            WHEN (e.event_type = ANY (ARRAY['failed'::text, 'retried'::text])) THEN "left"(e.error_message, 8000)
            ELSE NULL::text
        END AS error_message,
        CASE
            WHEN (e.event_type = ANY (ARRAY['failed'::text, 'retried'::text])) THEN e.ambiguous
            ELSE NULL::boolean
        END AS ambiguous,
        CASE
            WHEN (e.event_type = 'retried'::text) THEN e.next_attempt_at
            ELSE NULL::timestamp with time zone
        END AS next_attempt_at,
    "left"(e.traceparent, 100) AS traceparent
   FROM (anubis.subscription_events e
     LEFT JOIN anubis.integrations i ON ((i.id = e.integration_id)));
CREATE VIEW anubis.subscription_event_messages AS
 SELECT f.id,
    ('subscriptions.'::text || f.event_type) AS topic,
    (f.subscription_id)::text AS key,
    jsonb_strip_nulls(jsonb_build_object('event_id', f.event_id, 'timestamp', anubis.event_time(f.created_at), 'service', 'anubis', 'version', '1.0', 'event_type', f.event_type, 'integration_id', (f.integration_id)::text, 'origin', f.origin, 'sequence', (f.id)::text, 'installation', (n.namespace)::text, 'attempt', (f.attempt)::text, 'traceparent',
        CASE
            WHEN ((f.traceparent ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'::text) AND (f.traceparent !~ '^ff|^..-0{32}|-0{16}-..$'::text)) THEN f.traceparent
            ELSE (((('00-'::text || encode(substr(sha256((uuid_send(n.namespace) || convert_to(('trace:'::text || f.subscription_id), 'UTF8'::name))), 1, 16), 'hex'::text)) || '-'::text) || lpad(to_hex(f.id), 16, '0'::text)) || '-01'::text)
        END, 'content_type', 'application/json')) AS headers,
    (((((jsonb_build_object('event_type', f.event_type, 'timestamp', anubis.event_time(f.created_at), 'version', '1.0', 'subscription', jsonb_build_object('id', f.subscription_id, 'integration_id', f.integration_id, 'order_id', f.order_id, 'origin', f.origin, 'cpf', f.cpf, 'status', COALESCE(f.status, ''::text), 'sent_at', anubis.event_time(f.sent_at), 'scheduled_to', anubis.event_time(f.scheduled_to), 'created_at', anubis.event_time(f.subscription_created_at), 'updated_at', anubis.event_time(f.subscription_updated_at)), 'integration',
        CASE
            WHEN (f.integration_name IS NOT NULL) THEN jsonb_build_object('id', f.integration_id, 'name', f.integration_name, 'type', f.integration_type)
            ELSE NULL::jsonb
        END) ||
        CASE
            WHEN ((f.attempt IS NOT NULL) OR (f.event_type = ANY (ARRAY['sent'::text, 'failed'::text, 'retried'::text]))) THEN jsonb_build_object('attempt', COALESCE(f.attempt, 0))
            ELSE '{}'::jsonb
        END) ||
        CASE
            WHEN (f.event_type = 'sent'::text) THEN jsonb_build_object('response_data',
            CASE
                WHEN f.response_truncated THEN to_jsonb(f.response)
                ELSE anubis.as_document(f.response, NULL::jsonb)
            END)
            ELSE '{}'::jsonb
        END) ||
        CASE
            WHEN (f.event_type = ANY (ARRAY['failed'::text, 'retried'::text])) THEN jsonb_build_object('error_message', COALESCE(f.error_message, ''::text))
            ELSE '{}'::jsonb
        END) ||
        CASE
            WHEN (f.ambiguous IS NOT NULL) THEN jsonb_build_object('ambiguous', f.ambiguous)
            ELSE '{}'::jsonb
        END) ||
        CASE
            WHEN (f.next_attempt_at IS NOT NULL) THEN jsonb_build_object('next_attempt_at', anubis.event_time(f.next_attempt_at))
            ELSE '{}'::jsonb
        END) AS value
   FROM (anubis.subscription_event_feed f
     CROSS JOIN anubis.installation n)
  WHERE ((f.event_type = ANY (ARRAY['created'::text, 'updated'::text, 'sent'::text, 'failed'::text, 'retried'::text])) AND (f.subscription_id IS NOT NULL));
CREATE TABLE anubis.subscription_events_1 (
    id bigint DEFAULT anubis.ledger_next_id() NOT NULL,
    event_id uuid DEFAULT gen_random_uuid() NOT NULL,
    event_type text NOT NULL,
    subscription_id bigint NOT NULL,
    integration_id bigint,
    status text,
    operation_name text,
    attempt integer,
    http_status integer,
    duration_ms integer,
    request text,
    response text,
    error_message text,
    from_status text,
    to_status text,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    order_id bigint,
    origin text,
    cpf text,
    sent_at timestamp with time zone,
    scheduled_to timestamp with time zone,
    next_attempt_at timestamp with time zone,
    subscription_created_at timestamp with time zone,
    subscription_updated_at timestamp with time zone,
    ambiguous boolean,
    response_truncated boolean,
    traceparent text
);
CREATE TABLE anubis.subscription_events_1048577 (
    id bigint DEFAULT anubis.ledger_next_id() NOT NULL,
    event_id uuid DEFAULT gen_random_uuid() NOT NULL,
    event_type text NOT NULL,
    subscription_id bigint NOT NULL,
    integration_id bigint,
    status text,
    operation_name text,
    attempt integer,
    http_status integer,
    duration_ms integer,
    request text,
    response text,
    error_message text,
    from_status text,
    to_status text,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    order_id bigint,
    origin text,
    cpf text,
    sent_at timestamp with time zone,
    scheduled_to timestamp with time zone,
    next_attempt_at timestamp with time zone,
    subscription_created_at timestamp with time zone,
    subscription_updated_at timestamp with time zone,
    ambiguous boolean,
    response_truncated boolean,
    traceparent text
);
CREATE TABLE anubis.subscription_events_2097153 (
    id bigint DEFAULT anubis.ledger_next_id() NOT NULL,
    event_id uuid DEFAULT gen_random_uuid() NOT NULL,
    event_type text NOT NULL,
    subscription_id bigint NOT NULL,
    integration_id bigint,
    status text,
    operation_name text,
    attempt integer,
    http_status integer,
    duration_ms integer,
    request text,
    response text,
    error_message text,
    from_status text,
    to_status text,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    order_id bigint,
    origin text,
    cpf text,
    sent_at timestamp with time zone,
    scheduled_to timestamp with time zone,
    next_attempt_at timestamp with time zone,
    subscription_created_at timestamp with time zone,
    subscription_updated_at timestamp with time zone,
    ambiguous boolean,
    response_truncated boolean,
    traceparent text
);
CREATE TABLE anubis.subscription_events_default (
    id bigint DEFAULT anubis.ledger_next_id() NOT NULL,
    event_id uuid DEFAULT gen_random_uuid() NOT NULL,
    event_type text NOT NULL,
    subscription_id bigint NOT NULL,
    integration_id bigint,
    status text,
    operation_name text,
    attempt integer,
    http_status integer,
    duration_ms integer,
    request text,
    response text,
    error_message text,
    from_status text,
    to_status text,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    order_id bigint,
    origin text,
    cpf text,
    sent_at timestamp with time zone,
    scheduled_to timestamp with time zone,
    next_attempt_at timestamp with time zone,
    subscription_created_at timestamp with time zone,
    subscription_updated_at timestamp with time zone,
    ambiguous boolean,
    response_truncated boolean,
    traceparent text
);
CREATE TABLE anubis.subscriptions (
    id bigint NOT NULL,
    integration_id bigint,
    integration_filter_id bigint,
    order_id bigint,
    origin text,
    cpf text,
    payload jsonb DEFAULT '{}'::jsonb NOT NULL,
    status text DEFAULT 'pending'::text NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    scheduled_to timestamp with time zone,
    next_attempt_at timestamp with time zone,
    claimed_by text,
    claim_token bigint,
    lease_expires_at timestamp with time zone,
    held_at timestamp with time zone,
    sent_at timestamp with time zone,
    last_error text,
    last_http_status integer,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    last_response text,
    last_response_truncated boolean,
    last_duration_ms integer,
    last_ambiguous boolean,
    ambiguous_since timestamp with time zone,
    idempotency_seed bigint DEFAULT (((random() * ('…'::bigint)::double precision))::bigint # ((date_part('epoch'::text, clock_timestamp()) * (1000000)::double precision))::bigint),
    traceparent text
)
WITH (fillfactor='70', autovacuum_vacuum_scale_factor='0.02', autovacuum_analyze_scale_factor='0.05');
ALTER TABLE anubis.subscriptions ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME anubis.subscriptions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
ALTER TABLE ONLY anubis.subscription_events ATTACH PARTITION anubis.subscription_events_1 FOR VALUES FROM ('1') TO ('1048577');
ALTER TABLE ONLY anubis.subscription_events ATTACH PARTITION anubis.subscription_events_1048577 FOR VALUES FROM ('1048577') TO ('2097153');
ALTER TABLE ONLY anubis.subscription_events ATTACH PARTITION anubis.subscription_events_2097153 FOR VALUES FROM ('2097153') TO ('3145729');
ALTER TABLE ONLY anubis.subscription_events ATTACH PARTITION anubis.subscription_events_default DEFAULT;
ALTER TABLE ONLY anubis.anubis_migrations
    ADD CONSTRAINT anubis_migrations_pkey PRIMARY KEY (version);
ALTER TABLE ONLY anubis.anubis_repeatables
    ADD CONSTRAINT anubis_repeatables_pkey PRIMARY KEY (name);
ALTER TABLE ONLY anubis.consumer_bitmaps
    ADD CONSTRAINT consumer_bitmaps_pkey PRIMARY KEY (read_model, event_type, partition, chunk);
ALTER TABLE ONLY anubis.consumer_offsets
    ADD CONSTRAINT consumer_offsets_pkey PRIMARY KEY (consumer_group, topic, partition);
ALTER TABLE ONLY anubis.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (id);
ALTER TABLE ONLY anubis.dead_letters
    ADD CONSTRAINT dead_letters_read_model_topic_partition_offset_key UNIQUE (read_model, topic, partition, "offset");
ALTER TABLE ONLY anubis.installation
    ADD CONSTRAINT installation_pkey PRIMARY KEY (one);
ALTER TABLE ONLY anubis.integration_filters
    ADD CONSTRAINT integration_filters_pkey PRIMARY KEY (id);
ALTER TABLE ONLY anubis.integration_runtime
    ADD CONSTRAINT integration_runtime_pkey PRIMARY KEY (integration_id);
ALTER TABLE ONLY anubis.integrations
    ADD CONSTRAINT integrations_pkey PRIMARY KEY (id);
ALTER TABLE ONLY anubis.ledger_partitions
    ADD CONSTRAINT ledger_partitions_pkey PRIMARY KEY (name);
ALTER TABLE ONLY anubis.relay_state
    ADD CONSTRAINT relay_state_pkey PRIMARY KEY (one);
ALTER TABLE ONLY anubis.relay_topics
    ADD CONSTRAINT relay_topics_pkey PRIMARY KEY (topic, from_sequence);
ALTER TABLE ONLY anubis.subscription_events
    ADD CONSTRAINT subscription_events_pkey PRIMARY KEY (id);
ALTER TABLE ONLY anubis.subscription_events_1048577
    ADD CONSTRAINT subscription_events_1048577_pkey PRIMARY KEY (id);
ALTER TABLE ONLY anubis.subscription_events_1
    ADD CONSTRAINT subscription_events_1_pkey PRIMARY KEY (id);
ALTER TABLE ONLY anubis.subscription_events_2097153
    ADD CONSTRAINT subscription_events_2097153_pkey PRIMARY KEY (id);
ALTER TABLE ONLY anubis.subscription_events_default
    ADD CONSTRAINT subscription_events_default_pkey PRIMARY KEY (id);
ALTER TABLE ONLY anubis.subscriptions
    ADD CONSTRAINT subscriptions_pkey PRIMARY KEY (id);
CREATE INDEX integration_runtime_backoff ON anubis.integration_runtime USING btree (backoff_until, integration_id) WHERE (backoff_until IS NOT NULL);
CREATE INDEX integration_runtime_open ON anubis.integration_runtime USING btree (integration_id) WHERE (circuit_state = 'open'::text);
CREATE INDEX integrations_claimable ON anubis.integrations USING btree (id) WHERE (enabled AND (paused_until IS NULL));
CREATE INDEX integrations_paused ON anubis.integrations USING btree (paused_until, id) WHERE (enabled AND (paused_until IS NOT NULL));
CREATE UNIQUE INDEX ledger_baseline_key ON anubis.ledger_baseline USING btree (COALESCE(integration_id, (0)::bigint), COALESCE(status, ''::text));
CREATE INDEX subscription_events_default_subscription_id_id_idx ON anubis.subscription_events_default USING btree (subscription_id, id);
CREATE INDEX subscriptions_ambiguous ON anubis.subscriptions USING btree (integration_id) WHERE ((status = 'failed'::text) AND last_ambiguous);
CREATE INDEX subscriptions_due ON anubis.subscriptions USING btree (integration_id, anubis.subscription_due(next_attempt_at, scheduled_to), id) WHERE ((status = ANY (ARRAY['pending'::text, 'retry'::text])) AND (held_at IS NULL));
CREATE INDEX subscriptions_held ON anubis.subscriptions USING btree (integration_id, held_at) WHERE (held_at IS NOT NULL);
CREATE INDEX subscriptions_lease ON anubis.subscriptions USING btree (lease_expires_at) WHERE (status = 'processing'::text);
ALTER INDEX anubis.subscription_events_pkey ATTACH PARTITION anubis.subscription_events_1048577_pkey;
ALTER INDEX anubis.subscription_events_pkey ATTACH PARTITION anubis.subscription_events_1_pkey;
ALTER INDEX anubis.subscription_events_pkey ATTACH PARTITION anubis.subscription_events_2097153_pkey;
ALTER INDEX anubis.subscription_events_pkey ATTACH PARTITION anubis.subscription_events_default_pkey;
CREATE TRIGGER anubis_2_foreign_change BEFORE UPDATE ON anubis.subscriptions FOR EACH ROW WHEN (((new.status IS DISTINCT FROM old.status) AND (NOT (new.claim_token IS DISTINCT FROM old.claim_token)))) EXECUTE FUNCTION anubis.subscription_changed_by_others();
CREATE TRIGGER anubis_3_seed_kept BEFORE UPDATE OF idempotency_seed ON anubis.subscriptions FOR EACH ROW WHEN (((new.idempotency_seed IS DISTINCT FROM old.idempotency_seed) AND ((old.idempotency_seed IS NOT NULL) OR (pg_trigger_depth() = 0)))) EXECUTE FUNCTION anubis.subscription_seeded();
CREATE TRIGGER anubis_4_change_refused BEFORE UPDATE OF integration_id, payload ON anubis.subscriptions FOR EACH ROW WHEN (((old.status = 'processing'::text) AND (old.claim_token IS NOT NULL) AND ((new.integration_id IS DISTINCT FROM old.integration_id) OR ((new.payload)::text IS DISTINCT FROM (old.payload)::text)))) EXECUTE FUNCTION anubis.subscription_change_refused();
CREATE TRIGGER anubis_circuit_changed AFTER UPDATE OF circuit_state ON anubis.integration_runtime FOR EACH ROW WHEN (((old.circuit_state <> new.circuit_state) AND (new.circuit_state <> 'open'::text))) EXECUTE FUNCTION anubis.integration_changed();
CREATE TRIGGER anubis_inserted AFTER INSERT ON anubis.subscriptions REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION anubis.subscription_inserted();
CREATE TRIGGER anubis_integration_check BEFORE INSERT OR UPDATE OF id, endpoint_url, auth_token, delivery_settings ON anubis.integrations FOR EACH ROW EXECUTE FUNCTION anubis.integration_check();
CREATE TRIGGER anubis_integration_mended AFTER UPDATE OF endpoint_url, auth_token, delivery_settings ON anubis.integrations FOR EACH ROW WHEN (((old.endpoint_url IS DISTINCT FROM new.endpoint_url) OR (old.auth_token IS DISTINCT FROM new.auth_token) OR (old.delivery_settings IS DISTINCT FROM new.delivery_settings))) EXECUTE FUNCTION anubis.integration_mended();
CREATE TRIGGER anubis_integration_woken AFTER UPDATE OF enabled, paused_until, max_in_flight ON anubis.integrations FOR EACH ROW WHEN ((new.enabled AND ((NOT old.enabled) OR (old.paused_until IS DISTINCT FROM new.paused_until) OR (old.max_in_flight IS DISTINCT FROM new.max_in_flight)))) EXECUTE FUNCTION anubis.integration_changed();
CREATE TRIGGER anubis_no_delete BEFORE DELETE ON anubis.subscriptions FOR EACH ROW EXECUTE FUNCTION anubis.subscription_deletion_refused();
CREATE TRIGGER anubis_no_truncate BEFORE TRUNCATE ON anubis.subscriptions FOR EACH STATEMENT EXECUTE FUNCTION anubis.subscription_deletion_refused();
CREATE TRIGGER anubis_reference_id_kept AFTER UPDATE OF id ON anubis.integration_filters FOR EACH ROW WHEN ((old.id <> new.id)) EXECUTE FUNCTION anubis.reference_kept();
CREATE TRIGGER anubis_reference_id_kept AFTER UPDATE OF id ON anubis.integrations FOR EACH ROW WHEN ((old.id <> new.id)) EXECUTE FUNCTION anubis.reference_kept();
CREATE TRIGGER anubis_reference_kept AFTER DELETE ON anubis.integration_filters FOR EACH ROW EXECUTE FUNCTION anubis.reference_kept();
CREATE TRIGGER anubis_reference_kept AFTER DELETE ON anubis.integrations FOR EACH ROW EXECUTE FUNCTION anubis.reference_kept();
CREATE TRIGGER anubis_reference_no_truncate BEFORE TRUNCATE ON anubis.integration_filters FOR EACH STATEMENT EXECUTE FUNCTION anubis.reference_kept();
CREATE TRIGGER anubis_reference_no_truncate BEFORE TRUNCATE ON anubis.integrations FOR EACH STATEMENT EXECUTE FUNCTION anubis.reference_kept();
CREATE TRIGGER anubis_updated AFTER UPDATE ON anubis.subscriptions REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION anubis.subscription_updated();
CREATE TRIGGER ledger_append_only BEFORE DELETE OR UPDATE ON anubis.subscription_events FOR EACH ROW EXECUTE FUNCTION anubis.ledger_refuse();
CREATE TRIGGER ledger_no_truncate BEFORE TRUNCATE ON anubis.subscription_events FOR EACH STATEMENT EXECUTE FUNCTION anubis.ledger_refuse();
CREATE TRIGGER ledger_no_truncate BEFORE TRUNCATE ON anubis.subscription_events_1 FOR EACH STATEMENT EXECUTE FUNCTION anubis.ledger_refuse();
CREATE TRIGGER ledger_no_truncate BEFORE TRUNCATE ON anubis.subscription_events_1048577 FOR EACH STATEMENT EXECUTE FUNCTION anubis.ledger_refuse();
CREATE TRIGGER ledger_no_truncate BEFORE TRUNCATE ON anubis.subscription_events_2097153 FOR EACH STATEMENT EXECUTE FUNCTION anubis.ledger_refuse();
CREATE TRIGGER ledger_no_truncate BEFORE TRUNCATE ON anubis.subscription_events_default FOR EACH STATEMENT EXECUTE FUNCTION anubis.ledger_refuse();
ALTER TABLE ONLY anubis.integration_filters
    ADD CONSTRAINT integration_filters_integration_id_fkey FOREIGN KEY (integration_id) REFERENCES anubis.integrations(id);
ALTER TABLE ONLY anubis.integration_runtime
    ADD CONSTRAINT integration_runtime_integration_id_fkey FOREIGN KEY (integration_id) REFERENCES anubis.integrations(id) ON DELETE CASCADE;
REVOKE ALL ON FUNCTION anubis.anubisd_grant(role name) FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.installation_settle(is_copy boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.integration_changed() FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.integration_mended() FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.ledger_extend(width bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.ledger_index() FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.reference_kept() FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.subscription_inserted() FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.subscription_updated() FROM PUBLIC;
