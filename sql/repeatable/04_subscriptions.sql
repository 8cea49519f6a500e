-- The functions of the triggers on subscriptions, which write the ledger, keep the state machine and ring the doorbell.
--
-- They cost the application's own statements, so: set-based AFTER STATEMENT triggers on transition tables, conditions in WHEN where
-- they are evaluated without calling a function, and no JSON (the relay builds it). SECURITY DEFINER, because the application needs no
-- rights on the ledger.

-- Without "set search_path", for which the application's insert would pay: every name is qualified, operators, too, and lock_base()
-- stands for lock_key('bell'). Whether a claim could take the rows is only asked while a daemon sleeps.
create or replace function @extschema@.subscription_inserted() returns trigger language plpgsql security definer as $$
begin
    insert into @extschema@.subscription_events (event_id, id, event_type, subscription_id, integration_id, operation_name, attempt,
        to_status, order_id, origin, cpf, sent_at, scheduled_to, next_attempt_at, subscription_created_at, subscription_updated_at, traceparent)
    select @extschema@.ledger_event_id(e.ledger_id), e.* from (
    select pg_catalog.nextval('@extschema@.ledger_id_seq'::pg_catalog.regclass) as ledger_id, 'created', n.id, n.integration_id, 'create', n.attempts,
           n.status, n.order_id, n.origin, n.cpf, @extschema@.as_instant(n.sent_at), @extschema@.as_instant(n.scheduled_to),
           n.next_attempt_at, @extschema@.as_instant(n.created_at), @extschema@.as_instant(n.updated_at), n.traceparent
      from new_rows n) e;
    if not pg_catalog.pg_try_advisory_xact_lock_shared(@extschema@.lock_base()) then
        if exists (select from new_rows n join @extschema@.integrations_open i on i.id operator(pg_catalog.=) n.integration_id
                    where n.status operator(pg_catalog.=) any ('{pending,retry}'::pg_catalog.text[]) and n.held_at is null
                      and @extschema@.subscription_due(n.next_attempt_at, n.scheduled_to)
                          operator(pg_catalog.<=) pg_catalog.clock_timestamp()) then
            perform pg_catalog.pg_notify(@extschema@.doorbell_channel(), '');
        end if;
    end if;
    return null;
end $$;

-- Without nested loops: the plan is kept for the session, and one made for a single row would take a quarter of a million steps for 500.
create or replace function @extschema@.subscription_updated() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_nestloop = off as $$
begin
    insert into @extschema@.subscription_events (event_id, id, event_type, subscription_id, integration_id, status, operation_name,
        attempt, http_status, duration_ms, request, response, error_message, from_status, to_status, order_id, origin, cpf, sent_at,
        scheduled_to, next_attempt_at, subscription_created_at, subscription_updated_at, ambiguous, response_truncated, traceparent)
    select @extschema@.ledger_event_id(e.ledger_id), e.* from (
    select pg_catalog.nextval('@extschema@.ledger_id_seq'::pg_catalog.regclass) as ledger_id,
           case n.status when 'sent' then 'sent' when 'failed' then 'failed' when 'retry' then 'retried' else 'updated' end,
           n.id, n.integration_id,
           case n.status when 'sent' then 'success' when 'failed' then 'error' when 'retry' then 'error' end,
           case n.status when 'processing' then 'claim' when 'pending' then 'release' else 'send_to_institution' end,
           greatest(o.attempts, n.attempts),
           case when n.status in ('sent', 'failed', 'retry') then n.last_http_status end,
           case when n.status in ('sent', 'failed', 'retry') then n.last_duration_ms end,
           case when n.status = 'failed'
                then @extschema@.as_document(n.payload::text, (null::@extschema@.subscription_events).request) end,
           case when n.status in ('sent', 'failed', 'retry')
                then @extschema@.as_document(n.last_response, (null::@extschema@.subscription_events).response) end,
           case when n.status in ('failed', 'retry') then coalesce(n.last_error, 'status set to ' || n.status || ' by the application') end,
           o.status, n.status, n.order_id, n.origin, n.cpf,
           @extschema@.as_instant(n.sent_at), @extschema@.as_instant(n.scheduled_to), n.next_attempt_at,
           @extschema@.as_instant(n.created_at), @extschema@.as_instant(n.updated_at),
           case when n.status in ('failed', 'retry') then n.last_ambiguous end,
           case when n.status in ('sent', 'failed', 'retry') then n.last_response_truncated end,
           n.traceparent
      from new_rows n join old_rows o using (id)
     where n.status is distinct from o.status) e;
    perform @extschema@.doorbell_ring_for(array_agg(distinct n.integration_id::bigint))
       from new_rows n join old_rows o using (id)
      where n.status in ('pending', 'retry') and n.held_at is null
        and @extschema@.subscription_due(n.next_attempt_at, n.scheduled_to) <= now()
        and (o.status not in ('pending', 'retry') or o.held_at is not null
             or @extschema@.subscription_due(o.next_attempt_at, o.scheduled_to) > now()
             or o.integration_id is distinct from n.integration_id)
     having count(*) > 0;
    return null;
end $$;

-- A row keeps the seed that it was inserted with, and an insert that names the column without a value gets one all the same. A value
-- that comes with the insert stays: a row that is brought back from another copy of the database has been sent with it, perhaps.
create or replace function @extschema@.subscription_seeded() returns trigger language plpgsql as $$
begin
    new.idempotency_seed := case tg_op when 'UPDATE' then old.idempotency_seed
                                 else pg_catalog.hashtextextended(pg_catalog.gen_random_uuid()::text, 0) end;
    return new;
end $$;

-- Allowed: any change between pending, processing, retry and failed, and from those to sent. Final: sent.
create or replace function @extschema@.subscription_transition_refused() returns trigger language plpgsql as $$
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
create or replace function @extschema@.subscription_changed_by_others() returns trigger language plpgsql as $$
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
        new.sent_at := @extschema@.subscription_now(new.sent_at);
    end if;
    return new;
end $$;

create or replace function @extschema@.subscription_deletion_refused() returns trigger language plpgsql as $$
begin
    raise exception using errcode = 'restrict_violation',
        message = format('cannot %s subscriptions: the ledger tells their history', lower(tg_op)),
        hint = 'One that shall not be sent is set to status "failed".';
end $$;

-- Who may make triggers with these (on a table of their own) could write whatever they like into the ledger. Firing needs no right.
revoke execute on function @extschema@.subscription_inserted(), @extschema@.subscription_updated() from public;
