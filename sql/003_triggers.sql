-- The triggers that write the ledger, keep the state machine and ring the doorbell.
--
-- They cost the application's own statements, so: set-based AFTER STATEMENT triggers on transition tables, conditions in WHEN where
-- they are evaluated without calling a function, and no JSON (the relay builds it). SECURITY DEFINER, because the application needs no
-- rights on the ledger.

-- Casts what a trigger knows to the type that an adopted column has.
create function pg_temp.assign(expression text, relation text, column_name text) returns text language sql as $$
    select case pg_temp.column_type(relation, column_name)
                when 'timestamp without time zone' then format('(%s) at time zone ''UTC''', expression)
                when 'json' then format('@extschema@.as_json(%s)', expression)
                when 'jsonb' then format('@extschema@.as_json(%s)::jsonb', expression)
                when 'text' then expression
                else format('(%s)::%s', expression, pg_temp.column_type(relation, column_name)) end
$$;
create function pg_temp.instant(alias text, column_name text) returns text language sql as $$
    select format('%s.%s', alias, column_name) ||
           case pg_temp.column_type('subscriptions', column_name) when 'timestamp without time zone' then ' at time zone ''UTC''' else '' end
$$;

-- For adopted request and response columns of a JSON type: what is no JSON (or more than jsonb can hold) becomes a string.
create function @extschema@.as_json(document text) returns json language plpgsql immutable as $$
begin
    if document is null then
        return null;
    end if;
    perform document::jsonb;
    return document::json;
exception when others then
    return to_json(document);
end $$;

-- Rings only when a daemon sleeps: one that is about to sleep asks for the exclusive lock, and from then on no shared one is granted.
-- NOTIFY takes a lock that all committing writers share, so a busy daemon must not cause any.
create function @extschema@.doorbell_ring() returns void language plpgsql as $$
begin
    if not pg_try_advisory_xact_lock_shared(@extschema@.lock_key('bell')) then
        perform pg_notify(@extschema@.doorbell_channel(), '');
    end if;
end $$;

do $do$
declare
    common text := $c$
        insert into @extschema@.subscription_events (id, event_type, subscription_id, integration_id, status, operation_name,
            attempt, http_status, duration_ms, request, response, error_message, from_status, to_status, order_id, origin, cpf,
            sent_at, scheduled_to, next_attempt_at, subscription_created_at, subscription_updated_at, ambiguous, response_truncated,
            traceparent)
        select pg_catalog.nextval('@extschema@.ledger_id_seq'::pg_catalog.regclass), $c$;
    times text := format('%s, %s, n.next_attempt_at, %s, %s',
        pg_temp.instant('n', 'sent_at'), pg_temp.instant('n', 'scheduled_to'),
        pg_temp.instant('n', 'created_at'), pg_temp.instant('n', 'updated_at'));
    names text := 'n.order_id, n.origin, n.cpf';
begin
    -- Without "set search_path", for which the application's insert would pay: every name is
    -- qualified, and there is no operator.
    execute format($f$
create function @extschema@.subscription_inserted() returns trigger language plpgsql security definer as $body$
begin
    %s 'created', n.id, n.integration_id, null, 'create', n.attempts, null, null, null, null, null, null, n.status,
       %s, %s, null, null, n.traceparent
      from new_rows n;
    if not pg_catalog.pg_try_advisory_xact_lock_shared(%s) then
        perform pg_catalog.pg_notify(%L, '');
    end if;
    return null;
end $body$ $f$, common, names, times, @extschema@.lock_key('bell'), @extschema@.doorbell_channel());

    -- Without nested loops: the plan is kept for the session, and one made for a single row would take a quarter of a million steps for 500.
    execute format($f$
create function @extschema@.subscription_updated() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_nestloop = off as $body$
begin
    %s case n.status when 'sent' then 'sent' when 'failed' then 'failed' when 'retry' then 'retried' else 'updated' end,
       n.id, n.integration_id,
       case n.status when 'sent' then 'success' when 'failed' then 'error' when 'retry' then 'error' end,
       case n.status when 'processing' then 'claim' when 'pending' then 'release' else 'send_to_institution' end,
       greatest(o.attempts, n.attempts),
       case when n.status in ('sent', 'failed', 'retry') then n.last_http_status end,
       case when n.status in ('sent', 'failed', 'retry') then n.last_duration_ms end,
       case when n.status = 'failed' then %s end,
       case when n.status in ('sent', 'failed', 'retry') then %s end,
       case when n.status in ('failed', 'retry') then coalesce(n.last_error, 'status set to ' || n.status || ' by the application') end,
       o.status, n.status, %s, %s,
       case when n.status in ('failed', 'retry') then n.last_ambiguous end,
       case when n.status in ('sent', 'failed', 'retry') then n.last_response_truncated end,
       n.traceparent
      from new_rows n join old_rows o using (id)
     where n.status is distinct from o.status;
    if exists (select from new_rows n join old_rows o using (id)
                where n.status in ('pending', 'retry') and n.held_at is null
                  and @extschema@.subscription_due(n.next_attempt_at, n.scheduled_to) <= now()
                  and (o.status not in ('pending', 'retry') or o.held_at is not null
                       or @extschema@.subscription_due(o.next_attempt_at, o.scheduled_to) > now())) then
        perform @extschema@.doorbell_ring();
    end if;
    return null;
end $body$ $f$, common,
        pg_temp.assign('n.payload::text', 'subscription_events', 'request'),
        pg_temp.assign('n.last_response', 'subscription_events', 'response'), names, times);
end $do$;

create function @extschema@.subscription_payload_changed() returns trigger language plpgsql as $$
begin
    new.payload_version := old.payload_version + 1;
    return new;
end $$;

-- The clock as the application's own timestamp columns take it: UTC where they have no time zone, whatever the session's is.
do $$
begin
    if pg_temp.column_type('subscriptions', 'sent_at') = 'timestamp without time zone' then
        create function @extschema@.subscription_now() returns timestamp language sql volatile as 'select clock_timestamp() at time zone ''UTC''';
    else
        create function @extschema@.subscription_now() returns timestamptz language sql volatile as 'select clock_timestamp()';
    end if;
end $$;

-- Allowed: any change between pending, processing, retry and failed, and from those to sent. Final: sent.
create function @extschema@.subscription_transition_refused() returns trigger language plpgsql as $$
begin
    if new.id <> old.id then
        raise exception using errcode = 'check_violation', message = format('cannot change the id of subscription %s', old.id);
    elsif old.status = 'sent' then
        raise exception using errcode = 'check_violation',
            message = format('cannot change subscription %s from "sent" to "%s": "sent" is final', old.id, coalesce(new.status, 'NULL')),
            hint = 'Insert a new subscription to send it once more.';
    end if;
    raise exception using errcode = 'check_violation',
        message = format('cannot set subscription %s to status "%s"', new.id, coalesce(new.status, 'NULL')),
        hint = 'The states are pending, processing, sent, failed and retry.';
end $$;

-- A status set by somebody who is not the daemon (whose own statements always change the claim): the claim ends, so that a late answer
-- changes nothing, and what the last attempt left behind does not pass for this change's own.
create function @extschema@.subscription_changed_by_others() returns trigger language plpgsql as $$
begin
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
        new.sent_at := @extschema@.subscription_now();
    end if;
    return new;
end $$;

create trigger anubis_1_transition before update on @extschema@.subscriptions for each row
    when (new.id <> old.id or (new.status is distinct from old.status and (old.status = 'sent' or new.status is null
          or new.status not in ('pending', 'processing', 'sent', 'failed', 'retry'))))
    execute function @extschema@.subscription_transition_refused();
do $$
begin
    -- A check is cheaper than a trigger, but it would also refuse every other change of an adopted row in a state of its own.
    if exists (select from @extschema@.subscriptions
                where status is null or status not in ('pending', 'processing', 'sent', 'failed', 'retry')) then
        create trigger anubis_1_status before insert on @extschema@.subscriptions for each row
            when (new.status is null or new.status not in ('pending', 'processing', 'sent', 'failed', 'retry'))
            execute function @extschema@.subscription_transition_refused();
    else
        alter table @extschema@.subscriptions add constraint subscriptions_status_is_known
            check (status is not null and status in ('pending', 'processing', 'sent', 'failed', 'retry')) not valid;
    end if;
end $$;
-- What no claim could work with, nor tell as an event.
alter table @extschema@.subscriptions
    add constraint subscriptions_id_is_positive check (id > 0) not valid,
    add constraint subscriptions_attempts_are_few check (attempts between 0 and 1000000000) not valid,
    add constraint subscriptions_created_at_is_finite check (created_at > '-infinity' and created_at < 'infinity') not valid;
create trigger anubis_2_foreign_change before update on @extschema@.subscriptions for each row
    when (new.status is distinct from old.status and new.claim_token is not distinct from old.claim_token)
    execute function @extschema@.subscription_changed_by_others();
do $$
begin
    -- The payload's version is part of the Idempotency-Key: another payload is another message. Type json knows no equality.
    execute format('create trigger anubis_3_payload before update of payload on @extschema@.subscriptions for each row
                    when (old.payload%1$s is distinct from new.payload%1$s)
                    execute function @extschema@.subscription_payload_changed()',
                   case pg_temp.column_type('subscriptions', 'payload') when 'json' then '::text' else '' end);
end $$;
create function @extschema@.subscription_deletion_refused() returns trigger language plpgsql as $$
begin
    raise exception using errcode = 'restrict_violation',
        message = format('cannot %s subscriptions: the ledger tells their history', lower(tg_op)),
        hint = 'One that shall not be sent is set to status "failed".';
end $$;
create trigger anubis_no_delete before delete on @extschema@.subscriptions
    for each row execute function @extschema@.subscription_deletion_refused();
create trigger anubis_no_truncate before truncate on @extschema@.subscriptions
    for each statement execute function @extschema@.subscription_deletion_refused();

create trigger anubis_inserted after insert on @extschema@.subscriptions referencing new table as new_rows
    for each statement execute function @extschema@.subscription_inserted();
create trigger anubis_updated after update on @extschema@.subscriptions referencing old table as old_rows new table as new_rows
    for each statement execute function @extschema@.subscription_updated();

-- Whoever makes an integration due rings too.
create function @extschema@.integration_changed() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    perform @extschema@.doorbell_ring();
    return null;
end $$;
create trigger anubis_integration_woken after update of enabled, paused_until, circuit_state, max_in_flight on @extschema@.integrations
    for each row when (new.enabled and (not old.enabled or old.paused_until is distinct from new.paused_until
                       or old.circuit_state <> new.circuit_state or old.max_in_flight is distinct from new.max_in_flight))
    execute function @extschema@.integration_changed();

-- What cannot be delivered to is refused when it is written, not when a subscription waits for it.
create function @extschema@.integration_check() returns trigger language plpgsql as $$
declare
    unknown text;
begin
    if new.endpoint_url is not null then
        if length(new.endpoint_url) > 8000 then
            raise exception using errcode = 'check_violation', message = 'endpoint_url is longer than 8000 characters';
        elsif new.endpoint_url !~* '^https?://(\[[0-9a-f:.]+\]|[^][/?#@:%[:space:][:cntrl:]]+)(:[0-9]{1,5})?([/?][^[:space:][:cntrl:]]*)?$'
              or coalesce(substring(new.endpoint_url from '^[^/]+//[^/?]*[^:/?]:([0-9]+)([/?]|$)')::integer, 1) not between 1 and 65535 then
            raise exception using errcode = 'check_violation',
                message = 'endpoint_url is no http or https URL without user name, spaces and control characters',
                hint = 'It looks like https://api.example.edu.br/enrolments; credentials go to auth_token or settings.';
        end if;
    end if;
    if new.auth_token ~ '^(file|env):' then
        raise exception using errcode = 'check_violation', message = 'auth_token cannot be read from a file or from the environment',
            hint = 'It is the token itself, or "credential:NAME" for one that systemd hands to the daemon.';
    end if;
    if new.auth_token ~ '[[:cntrl:]]' then
        raise exception using errcode = 'check_violation', message = 'auth_token holds control characters, perhaps the end of a line';
    end if;
    if jsonb_typeof(new.settings) <> 'object' then
        raise exception using errcode = 'check_violation', message = 'settings is no JSON object';
    end if;
    select k into unknown from jsonb_object_keys(new.settings) k
     where k not in ('auth', 'headers', 'signing_secret', 'permanent_statuses', 'retryable_statuses', 'on_ambiguous', 'proxy', 'confirmation') limit 1;
    if unknown is not null then
        raise exception using errcode = 'check_violation', message = format('settings has an unknown key "%s"', unknown),
            hint = 'The keys are auth, headers, signing_secret, permanent_statuses, retryable_statuses, on_ambiguous, proxy and confirmation.';
    end if;
    return new;
end $$;
create trigger anubis_integration_check before insert or update of endpoint_url, auth_token, settings on @extschema@.integrations
    for each row execute function @extschema@.integration_check();

-- Who may make triggers with these (on a table of their own) could write whatever they like into the ledger. Firing needs no right.
revoke execute on function @extschema@.subscription_inserted(), @extschema@.subscription_updated(), @extschema@.integration_changed()
  from public;

-- AFTER ROW triggers of the application's that update the same row run before ours and would turn the order of two events around.
do $$
declare
    trigger_name text;
begin
    for trigger_name in select t.tgname from pg_trigger t
                         where t.tgrelid = '@extschema@.subscriptions'::regclass and not t.tgisinternal and t.tgname not like 'anubis\_%'
                           and t.tgtype & 1 = 1 and t.tgtype & 2 = 0 and t.tgtype & 20 <> 0 loop
        raise warning 'trigger "%" on "subscriptions" is the application''s: should it update the same row, the events of both changes come in the wrong order', trigger_name;
    end loop;
end $$;
