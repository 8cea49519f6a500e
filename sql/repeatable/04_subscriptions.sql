-- The functions of the triggers on subscriptions, which write the ledger, keep the state machine and ring the doorbell.
--
-- They cost the application's own statements, so: set-based AFTER STATEMENT triggers on transition tables, no JSON (the relay builds
-- it), and the rules for a row within the query that writes its event. That query's plan is kept, while each statement reads the text of
-- a CHECK anew. SECURITY DEFINER, because the application needs no rights on the ledger.

-- Refuses a row as a constraint of this name would, but not from within the query that judges it, whose text, of pages, would stand in
-- the error's context: the trigger does after its query. The setting goes with the transaction or savepoint that is rolled back then.
create or replace function @extschema@.subscription_refused(code text, rule text, words text, hint text, detail text default null)
    returns void language sql set search_path = pg_catalog, pg_temp as $$
    select set_config(@extschema@.doorbell_channel() || '.unrouted',
                      json_build_object('code', code, 'rule', rule, 'words', words, 'hint', hint, 'detail', detail)::text, true)
     where coalesce(current_setting(@extschema@.doorbell_channel() || '.unrouted', true), '') not like '{%' $$;

create or replace function @extschema@.subscription_refuse(refusal json) returns void language plpgsql
    set search_path = pg_catalog, pg_temp as $$
begin
    if refusal ->> 'detail' is null then
        raise exception using errcode = refusal ->> 'code', message = refusal ->> 'words', hint = refusal ->> 'hint', table = 'subscriptions',
            constraint = refusal ->> 'rule';
    end if;
    raise exception using errcode = refusal ->> 'code', message = refusal ->> 'words', hint = refusal ->> 'hint',
        detail = refusal ->> 'detail', table = 'subscriptions', constraint = refusal ->> 'rule';
end $$;

-- Judges a row that is not an ordinary one: refuses it, see subscription_refused(), or sees to the rest, and says whether it has
-- another status. What it was before is NULL for an insert; what it is now is NULL where no row has the old id any more. An insert is
-- judged in two rounds: see subscription_inserted().
create or replace function @extschema@.subscription_judged(old_id bigint, old_status text, id bigint, status text, attempts integer,
    created_at timestamptz, integration_id bigint, filter_id bigint, seed bigint, routed boolean default null) returns boolean language plpgsql
    set search_path = pg_catalog, pg_temp as $$
declare
    rule text;
    words text;
    hint text;
begin
    -- The other round's.
    if routed and integration_id is not null then
        return false;
    elsif not routed and integration_id is null then
        if coalesce(current_setting(@extschema@.doorbell_channel() || '.unrouted', true), '') = '' then
            perform set_config(@extschema@.doorbell_channel() || '.unrouted', 'yes', true);
        end if;
        return false;
    end if;
    if id is null then
        words := format('cannot change the id of subscription %s', old_id);
        hint := 'Its events and its Idempotency-Key carry the id.';
        rule := 'subscriptions_id_is_kept';
    elsif old_status = 'sent' and status is distinct from 'sent' then
        words := format('cannot change subscription %s from "sent" to "%s": "sent" is final', id, coalesce(status, 'NULL'));
        hint := '"anubisctl resend" inserts a new subscription that goes out in its place.';
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
        perform @extschema@.subscription_refused('23514', rule, words, hint);
        return false;
    end if;
    if integration_id is not null and @extschema@.integration_required()
       and not exists (select from @extschema@.integrations i where i.id = integration_id) then
        perform @extschema@.subscription_strays(id, 'integration_id', integration_id, 'integrations');
        return false;
    end if;
    -- With a lock, as a foreign key has it: few rows have a filter.
    if filter_id is not null and @extschema@.integration_filter_required() then
        perform from @extschema@.integration_filters f where f.id = filter_id for key share;
        if not found then
            perform @extschema@.subscription_strays(id, 'integration_filter_id', filter_id, 'integration_filters');
            return false;
        end if;
    end if;
    -- An insert that names the column without a value, as object-relational mappers may do.
    if old_id is null and seed is null then
        update @extschema@.subscriptions s set idempotency_seed = hashtextextended(gen_random_uuid()::text, 0)
         where s.id = subscription_judged.id;
    end if;
    return status is distinct from old_status;
end $$;

create or replace function @extschema@.subscription_strays(id bigint, name text, value bigint, target text) returns void language sql
    set search_path = pg_catalog, pg_temp as $$
    select @extschema@.subscription_refused('23503', format('subscriptions_%s_fkey', name),
               format('insert or update on table "subscriptions" violates foreign key constraint "subscriptions_%s_fkey"', name),
               format('Subscription %s has it.', id), format('Key (%s)=(%s) is not present in table "%s".', name, value, target)) $$;

-- The functions of the triggers name this schema. Where it and that of another installation have changed their names, they would write into
-- the other one's ledger.
create or replace function @extschema@.schemas_swapped() returns void language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    raise exception using errcode = 'object_not_in_prerequisite_state',
        message = 'cannot write subscriptions: their schema was renamed, and "@extschema@" is that of another installation now',
        hint = 'Give both schemas their names back by "alter schema ... rename to ...".';
end $$;

-- Does the sequence of subscriptions stand before an id that was noted as given out, as after a restore of this table alone? Up to which id it
-- was, with those of later events that it may have given; NULL = no: an application may take its ids elsewhere.
create or replace function @extschema@.subscriptions_drawn() returns bigint language plpgsql stable security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    sequence constant text := pg_get_serial_sequence('@extschema@.subscriptions', 'id');
    drawn bigint;
begin
    if sequence is null then
        return null;
    end if;
    execute format('select last_value - 1 + is_called::integer from %s', sequence) into drawn;
    return (select greatest(i.subscriptions_up_to,
                            (select max(e.subscription_id) from @extschema@.subscription_events e
                              where e.id > i.noted_at and e.subscription_id < i.subscriptions_up_to + 1000 + s.last_value - i.noted_at))
              from @extschema@.installation i cross join @extschema@.ledger_id_seq s
             where not i.allows_cleaning and i.subscriptions_up_to > drawn);
end $$;

-- Notes for the function above, and for sessions that begin: see ledger_go_on(). A daemon does it now and then. It looks no farther back than a
-- thousand ids: those before may be of a large transaction that is open or was rolled back, and each look would walk over them.
create or replace function @extschema@.subscriptions_note() returns void language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    last_id constant bigint := (select last_value from @extschema@.ledger_id_seq);
    drawn constant bigint := pg_sequence_last_value(pg_get_serial_sequence('@extschema@.subscriptions', 'id')::regclass);
begin
    update @extschema@.installation i
       set subscriptions_up_to = n.up_to, noted_at = last_id
      from (select o.one, greatest(o.subscriptions_up_to, (select max(s.id) from @extschema@.subscriptions s
                                                                 where s.id > drawn - 1000 and s.id <= drawn)) as up_to
              from @extschema@.installation o for update skip locked) n
     where i.one = n.one and drawn >= n.up_to and (n.up_to > i.subscriptions_up_to or last_id > i.noted_at + 1000);
end $$;
revoke execute on function @extschema@.subscriptions_note() from public;

-- The id of the event of a new subscription: for the first one of a session, and for those with ids that were there before it began. Where
-- the sequence was set back, the ledger has them for others, perhaps: then it goes on behind them, and this one insert is refused. Who
-- names the id knows whose it is; the session has drawn what the sequence told it.
create or replace function @extschema@.subscription_next(id bigint, is_here boolean) returns bigint language plpgsql
    set search_path = pg_catalog, pg_temp as $$
declare
    sequence constant text := pg_get_serial_sequence('@extschema@.subscriptions', 'id');
    up_to bigint;
begin
    if not is_here then
        perform @extschema@.schemas_swapped();
    end if;
    begin
        if pg_sequence_last_value(sequence::regclass) < (select i.subscriptions_up_to from @extschema@.installation i)
           and currval(sequence::regclass) >= id then
            up_to := @extschema@.subscriptions_drawn();
        end if;
    exception when object_not_in_prerequisite_state then -- nothing was drawn in this session
        null;
    end;
    if up_to is not null then
        perform setval(sequence::regclass, up_to);
        raise exception using errcode = 'unique_violation',
            message = format('cannot give a new subscription the id %s: the ledger has it for another one', id),
            hint = format('The sequence was set back, as by a restore of this table alone; it goes on behind %s now: insert again. A former '
                          'subscription comes back by an insert that names its id.', up_to),
            table = 'subscriptions', constraint = 'subscriptions_id_is_new';
    end if;
    return @extschema@.ledger_next_id();
end $$;

-- Without "set search_path", for which the application's insert would pay: every name is qualified, operators, too, and lock_base()
-- stands for lock_key('bell'). Whether a claim could take the rows is only asked while a daemon sleeps.
--
-- The plan that Postgres makes for many rows is dear enough to be compiled (jit), and the session would keep it: each later insert of one
-- row would be compiled, in 12 ms. So it is made anew. "set jit = off" would cost each insert a tenth.
--
-- Rows that came without an integration are left to a second round, when filters have given them one: the others pay nothing for that.
create or replace function @extschema@.subscription_inserted() returns trigger language plpgsql security definer as $$
declare
    routed boolean := false;
    inserted bigint;
    judgement text; -- of rows that are not ordinary ones
begin
    loop
        insert into @extschema@.subscription_events (event_id, id, event_type, subscription_id, integration_id, operation_name, attempt,
            to_status, order_id, origin, cpf, sent_at, scheduled_to, next_attempt_at, subscription_created_at, subscription_updated_at, traceparent, decided_by)
        -- A column of the application's was renamed? See "Migrations of the application" in anubisctl(8).
        select @extschema@.ledger_event_id(e.ledger_id), e.* from (
        select case when pg_catalog.current_setting(pg_catalog.textcat(@extschema@.doorbell_channel(), '.place'), true) operator(pg_catalog.<>) ''
                     and n.id operator(pg_catalog.>) pg_catalog.current_setting(
                             pg_catalog.textcat(@extschema@.doorbell_channel(), '.place'), true)::pg_catalog.int8
                     and @extschema@.lock_base() operator(pg_catalog.=) '0'::bigint
                    then pg_catalog.nextval('@extschema@.ledger_id_seq'::pg_catalog.regclass)
                    else @extschema@.subscription_next(n.id, @extschema@.lock_base() operator(pg_catalog.=) '0'::bigint) end as ledger_id,
               'created', n.id,
               coalesce(n.integration_id, @extschema@.subscription_integration(n.id)), 'create', n.attempts,
               n.status::pg_catalog.text, n.order_id, n.origin, n.cpf, @extschema@.as_instant(n.sent_at), @extschema@.as_instant(n.scheduled_to),
               n.next_attempt_at, @extschema@.as_instant(n.created_at), @extschema@.as_instant(n.updated_at), n.traceparent, n.last_decided_by
          from new_rows n
         where case when case when routed then n.integration_id is null else n.integration_id is not null end
                     and n.id operator(pg_catalog.>) 0 and n.attempts operator(pg_catalog.>=) 0
                     and n.attempts operator(pg_catalog.<=) 1000000000 and pg_catalog.isfinite(n.created_at) is not false
                     and n.status::pg_catalog.text operator(pg_catalog.=) any ('{pending,processing,sent,failed,retry}'::pg_catalog.text[])
                     and n.idempotency_seed is not null
                     and (n.integration_filter_id is null or not @extschema@.integration_filter_required())
                     and (n.integration_id is null or not @extschema@.integration_required()
                          or (select true from @extschema@.integrations i where i.id operator(pg_catalog.=) n.integration_id))
                    then true
                    else @extschema@.subscription_judged(null, null, n.id, n.status::pg_catalog.text, n.attempts, @extschema@.as_instant(n.created_at),
                                                         n.integration_id, n.integration_filter_id, n.idempotency_seed, routed) end) e;
        get diagnostics inserted = row_count;
        judgement := pg_catalog.current_setting(pg_catalog.textcat(@extschema@.doorbell_channel(), '.unrouted'), true);
        -- The only expression of an ordinary insert here: each one more costs it 2 us.
        exit when (judgement operator(pg_catalog.<>) '') is not true and inserted operator(pg_catalog.<=) 5000;
        if inserted operator(pg_catalog.>) 5000 then
            discard plans;
        end if;
        exit when (judgement operator(pg_catalog.<>) '') is not true;
        if judgement operator(pg_catalog.<>) 'yes' then
            perform @extschema@.subscription_refuse(judgement::pg_catalog.json);
        end if;
        perform pg_catalog.set_config(pg_catalog.textcat(@extschema@.doorbell_channel(), '.unrouted'), '', true),
                @extschema@.subscriptions_route(pg_catalog.array_agg(n.id::pg_catalog.int8)) from new_rows n where n.integration_id is null;
        routed := true;
    end loop;
    if not pg_catalog.pg_try_advisory_xact_lock_shared(@extschema@.lock_base()) then
        if exists (select from new_rows n join @extschema@.integrations_open i on i.id operator(pg_catalog.=) n.integration_id
                    where n.status::pg_catalog.text operator(pg_catalog.=) any ('{pending,retry}'::pg_catalog.text[]) and n.held_at is null
                      and @extschema@.subscription_due(n.next_attempt_at, n.scheduled_to)
                          operator(pg_catalog.<=) pg_catalog.clock_timestamp()) then
            perform pg_catalog.pg_notify(@extschema@.doorbell_channel(), '');
        end if;
    end if;
    return null;
end $$;

-- Allowed: any change between pending, processing, retry and failed, and from those to sent. Final: sent. What the application had
-- given an adopted row before may stay there.
--
-- Without nested loops: the plan is kept for the session, and one made for a single row would take a quarter of a million steps for 500.
create or replace function @extschema@.subscription_updated() returns trigger
    language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_nestloop = off set jit = off as $$
declare
    judgement text;
begin
    -- Also for a statement that finds no row: a result whose claim is in the other table is not over.
    if not @extschema@.lock_base() operator(pg_catalog.=) '0'::bigint then
        perform @extschema@.schemas_swapped();
    end if;
    insert into @extschema@.subscription_events (event_id, id, event_type, subscription_id, integration_id, status, operation_name,
        attempt, http_status, duration_ms, request, response, error_message, from_status, to_status, order_id, origin, cpf, sent_at,
        scheduled_to, next_attempt_at, subscription_created_at, subscription_updated_at, ambiguous, response_truncated, traceparent, decided_by)
    select @extschema@.ledger_event_id(e.ledger_id), e.* from (
    select case when current_setting(@extschema@.doorbell_channel() || '.place', true) <> ''
                then nextval('@extschema@.ledger_id_seq'::regclass) else @extschema@.ledger_next_id() end as ledger_id,
           case n.status when 'sent' then 'sent' when 'failed' then 'failed' when 'retry' then 'retried' else 'updated' end,
           n.id, n.integration_id,
           case n.status when 'sent' then 'success' when 'failed' then 'error' when 'retry' then 'error' end,
           -- Who did it: a daemon, or by which way somebody else.
           case when n.claim_token is not null then 'claim'
                when n.last_error like 'not sent:%' then 'release'
                when n.last_duration_ms is not null then 'send_to_institution'
                when n.last_error like 'lease expired:%' then 'lease_expired'
                when n.last_error = 'erased' then 'erase'
                when n.last_decided_by like 'operator %' then 'settle'
                when n.last_decided_by like 'confirmation:%' then 'confirmation'
                when n.last_error like 'put back by % (anubisctl retry)' then 'retry'
                else 'application' end,
           greatest(o.attempts, n.attempts),
           case when n.status in ('sent', 'failed', 'retry') then n.last_http_status end,
           case when n.status in ('sent', 'failed', 'retry') then n.last_duration_ms end,
           case when n.status = 'failed' -- with what was sent, whatever a trigger has put in its place with the result
                then @extschema@.as_document(case when o.claim_token is null then n.payload::text else o.payload::text end,
                                             (null::@extschema@.subscription_events).request) end,
           case when n.status in ('sent', 'failed', 'retry')
                then @extschema@.as_document(n.last_response, (null::@extschema@.subscription_events).response) end,
           case when n.status in ('failed', 'retry') then coalesce(n.last_error, 'status set to ' || n.status || ' by the application') end,
           o.status::text, n.status::text, n.order_id, n.origin, n.cpf,
           @extschema@.as_instant(n.sent_at), @extschema@.as_instant(n.scheduled_to), n.next_attempt_at,
           @extschema@.as_instant(n.created_at), @extschema@.as_instant(n.updated_at),
           case when n.status in ('failed', 'retry') then n.last_ambiguous end,
           case when n.status in ('sent', 'failed', 'retry') then n.last_response_truncated end,
           n.traceparent, case when n.status in ('sent', 'failed', 'retry') then n.last_decided_by end
      from old_rows o left join new_rows n using (id)
     where case when o.erased_at is not null and n.id is not null
                then @extschema@.subscription_erased(n.id, o.status::text, n.status::text, o.erased_at, n.erased_at, n.cpf::text, n.payload::text,
                                                     n.last_response)
                when o.claim_token is not null and n.integration_id is distinct from o.integration_id and n.id is not null
                then @extschema@.subscription_unlike(o.id::bigint, 'integration') is null
                -- While its request is under way; by the bytes, since the column may be of any type.
                when o.claim_token is not null and n.claim_token is not null and record_image_ne(row(n.payload), row(o.payload))
                then @extschema@.subscription_unlike(o.id::bigint, 'payload') is null
                -- What a daemon writes with a claim and with a result: a key, and attempts with their pauses.
                when (o.claim_token is null) <> (n.claim_token is null) and n.id is not null
                 and not (n.idempotency_seed is not distinct from o.idempotency_seed
                          and case when n.claim_token is not null
                                   then n.attempts = o.attempts + 1 and n.idempotency_turn is not distinct from o.idempotency_turn
                                   else n.attempts in (o.attempts, greatest(o.attempts - 1, 0))
                                        and coalesce(n.idempotency_turn, 0) - coalesce(o.idempotency_turn, 0) in (0, 1)
                                        and (n.status <> 'retry' or n.attempts < o.attempts or n.held_at is not null
                                             or n.next_attempt_at is not null) end)
                 and current_setting('application_name') like 'anubisd %'
                then @extschema@.subscription_unlike(o.id::bigint, case when n.claim_token is null then 'result' else 'claim' end) is null
                when n.id > 0 and n.attempts between 0 and 1000000000 and isfinite(n.created_at) is not false
                 and (n.status is not distinct from o.status
                      or o.status is distinct from 'sent' and n.status in ('pending', 'processing', 'sent', 'failed', 'retry'))
                 and (n.integration_filter_id is not distinct from o.integration_filter_id or n.integration_filter_id is null
                      or not @extschema@.integration_filter_required())
                 and (n.integration_id is not distinct from o.integration_id or n.integration_id is null
                      or not @extschema@.integration_required()
                      or (select true from @extschema@.integrations i where i.id = n.integration_id))
                then n.status is distinct from o.status
                else @extschema@.subscription_judged(o.id, o.status::text, n.id, n.status::text, n.attempts, @extschema@.as_instant(n.created_at),
                                                     n.integration_id, n.integration_filter_id, n.idempotency_seed) end) e;
    judgement := current_setting(@extschema@.doorbell_channel() || '.unrouted', true);
    if judgement like '{%' then
        perform @extschema@.subscription_refuse(judgement::json);
    end if;
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

-- Its events so far are those of the integration that it leaves: see integration_gone(). One row is enough.
create or replace function @extschema@.subscription_moved() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    if not exists (select from @extschema@.integration_moves m where m.integration_id = old.integration_id) then
        insert into @extschema@.integration_moves (integration_id) values (old.integration_id) on conflict do nothing;
    end if;
    return null;
end $$;
revoke execute on function @extschema@.subscription_moved() from public;

-- A row keeps the seed that it was inserted with. A value that comes with the insert stays: a row that is brought back from another copy
-- of the database has been sent with it, perhaps.
create or replace function @extschema@.subscription_seeded() returns trigger language plpgsql as $$
begin
    new.idempotency_seed := old.idempotency_seed;
    return new;
end $$;

-- A status set by somebody who is not the daemon (whose own statements always change the claim, and are no trigger's): the claim ends, so that
-- a late answer changes nothing, and what the last attempt left behind does not pass for this change's own.
create or replace function @extschema@.subscription_changed_by_others() returns trigger language plpgsql as $$
begin
    -- By a trigger, within the statement that wrote a claim or a result: whoever gets the answer of that would act on it.
    if pg_trigger_depth() > 1 and current_setting('application_name') like 'anubisd %' and @extschema@.as_instant(old.updated_at) >= now() then
        perform @extschema@.subscription_unlike(old.id::bigint, case when old.claim_token is null then 'result' else 'claim' end);
    end if;
    -- No change of its state would be taken any more, not even that its request has been answered.
    if new.erased_at is not null and old.erased_at is null and new.status not in ('sent', 'failed') then
        raise exception using errcode = 'object_in_use', message = format('cannot mark subscription %s as erased: it is still to be sent', old.id),
            hint = '"anubisctl erase" erases a person''s data.';
    end if;
    -- The events tell which attempt was sent, and by its claim the answer is known.
    if new.status::pg_catalog.text operator(pg_catalog.=) old.status::pg_catalog.text then
        raise exception using errcode = 'object_in_use',
            message = format('cannot change %s of subscription %s: it is being sent',
                             case when new.claim_token is distinct from old.claim_token then 'the claim' else 'the attempts' end, old.id),
            hint = case when new.claim_token is not distinct from old.claim_token then 'Try again when its status is no longer "processing".'
                        else 'The claim is a daemon''s. A mapper that writes all columns back, with what it read before, reads the row again, '
                             'and writes only what changes.' end;
    end if;
    -- A request may be under way.
    if old.status = 'processing' and old.claim_token is not null and new.status <> 'sent' then
        new.ambiguous_since := coalesce(new.ambiguous_since, clock_timestamp());
    end if;
    new.claimed_by := null;
    new.claim_token := null;
    if new.held_at is not distinct from old.held_at then
        new.held_at := null;
    end if;
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
    if new.last_decided_by is not distinct from old.last_decided_by then
        new.last_decided_by := null;
    end if;
    if new.status in ('pending', 'retry') and new.next_attempt_at is not distinct from old.next_attempt_at then
        new.next_attempt_at := null;
    end if;
    if new.status = 'sent' and new.sent_at is null then
        new.sent_at := @extschema@.subscription_now(new.sent_at);
    end if;
    return new;
end $$;

-- A claim or a result that does not stand as it was written: a trigger of the application's has changed or dropped it. A row that does not
-- become "sent" would go out again and again. SQLSTATE as in PG_SQLSTATE_UNLIKE of pg/pg.h: the row is to blame, others go on.
create or replace function @extschema@.subscription_unlike(id bigint, what text) returns bigint language plpgsql stable
    set search_path = pg_catalog, pg_temp as $$
begin
    raise exception using errcode = 'P0ANB',
        message = format('a trigger changes or drops the %s of subscription %s as it is written', what, id),
        hint = (select format('Repair or drop %s on %s.', string_agg(format('%I', t.tgname), ', ' order by t.tgname), t.tgrelid::regclass)
                  from pg_trigger t
                 where t.tgrelid = '@extschema@.subscriptions'::regclass and not t.tgisinternal and t.tgenabled <> 'D' and t.tgtype & 16 = 16
                   and not starts_with(t.tgname, 'anubis_') group by t.tgrelid);
end $$;

-- Its request may be under way with what it held: the answer would be taken for one to the change, which would never go out.
create or replace function @extschema@.subscription_change_refused() returns trigger language plpgsql as $$
declare
    changed text := case when new.integration_id is distinct from old.integration_id then 'the integration'
                         when new.payload::text is distinct from old.payload::text then 'the payload'
                         else 'the state' end;
begin
    raise exception using errcode = 'object_in_use',
        message = format('cannot change %s of subscription %s: %s', changed, old.id,
                         case when old.status = 'processing' and old.claim_token is not null then 'it is being sent'
                              when old.held_at is not null then 'it is held'
                              else 'the claim is over' end),
        hint = case when changed <> 'the state' then 'Try again when its status is no longer "processing".'
                    else 'The statement writes all columns back, as a mapper does with what it read before: '
                         'read the row again, and write only what changes.' end;
end $$;

create or replace function @extschema@.subscription_deletion_refused() returns trigger language plpgsql as $$
begin
    if @extschema@.cleaning_allowed() then
        return old;
    end if;
    raise exception using errcode = 'restrict_violation',
        message = format('cannot %s subscriptions: the ledger tells their history', lower(tg_op)),
        hint = 'One that must not be sent is set to status "failed".';
end $$;

-- Who may make triggers with these (on a table of their own) could write whatever they like into the ledger. Firing needs no right.
revoke execute on function @extschema@.subscription_inserted(), @extschema@.subscription_updated() from public;

-- Whose functions they are: a constant, so that a session which has made its plans, and makes them anew when a schema is renamed, pays nothing.
do $$
declare
    changed oid;
begin
    foreach changed in array array['@extschema@.subscription_inserted'::regproc, '@extschema@.subscription_updated'::regproc] loop
        execute replace(pg_get_functiondef(changed), $q$operator(pg_catalog.=) '0'::bigint$q$,
                        format('operator(pg_catalog.=) %L::bigint', @extschema@.lock_base()));
    end loop;
end $$;
