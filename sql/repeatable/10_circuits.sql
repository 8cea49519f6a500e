-- The circuit breaker of each integration. Its state is in the database: it survives a restart, and all daemons share it.
--
-- It follows from the clock, and from nobody's timer: from circuit_until on the next claim of any daemon may take the probe of an open
-- circuit, which is half open then. The probe has a lease: should its daemon die, another one takes the next probe. Each change begins
-- a generation. A request belongs to the generation in which it was claimed, and what comes of it counts in no other one: neither
-- the failures that were under way when the circuit opened, nor the answer to a probe whose lease is over.

-- The row after an event at a time: pure. The events are
--   probe      a claim would like to send one request
--   alive      the institution took a request, or answered that it will not take this one
--   failed     so many requests in a row failed
--   forbidden  the same, and the last answer was 403
--   proven     most of the last requests failed, though not in a row
--   refused    the institution refused the credentials (401)
--   neutral    a request ended without saying anything about the institution
--   mended     its endpoint or credentials were changed
create or replace function @extschema@.circuit_next(r @extschema@.integration_runtime, event text, generation bigint, failures integer,
    at timestamptz, threshold integer, recovery interval, max_recovery interval, lease interval)
    returns @extschema@.integration_runtime language plpgsql immutable set search_path = pg_catalog, pg_temp as $$
declare
    was_open boolean := r.circuit_state <> 'closed';
begin
    if event = 'probe' then
        -- Further away than any wait: the clock was set back.
        if not was_open or r.circuit_until > at and r.circuit_until <= at + greatest(max_recovery, lease) then
            return r;
        end if;
        r.circuit_state := 'half_open';
        r.circuit_until := at + lease;
    elsif event = 'mended' then
        r.circuit_failures := 0;
        r.circuit_level := 0;
        if was_open then
            r.circuit_state := 'open';
            r.circuit_until := at;
        end if;
    elsif generation <> r.circuit_generation or r.circuit_state = 'open' then
        return r;
    elsif event in ('alive', 'neutral') and not was_open then
        r.circuit_failures := case event when 'alive' then 0 else r.circuit_failures end;
        return r;
    elsif event = 'alive' then
        r.circuit_state := 'closed';
        r.circuit_since := at;
        r.circuit_until := null;
        r.circuit_reason := null;
        r.circuit_failures := 0;
    elsif event = 'neutral' then
        r.circuit_state := 'open';
        r.circuit_until := at;
    else
        r.circuit_failures := least(r.circuit_failures::bigint + failures, 1000000000);
        if not was_open and event in ('failed', 'forbidden') and r.circuit_failures < threshold then
            return r;
        end if;
        -- One that has closed a moment ago opens for as long as before; a probe that fails doubles the wait.
        if was_open then
            r.circuit_level := least(r.circuit_level + 1, 30);
        elsif coalesce(r.circuit_since <= at - interval '1 minute' or r.circuit_since > at, true) then
            r.circuit_level := 0;
        end if;
        r.circuit_since := case when was_open then r.circuit_since else at end;
        r.circuit_state := 'open';
        r.circuit_until := at + least(recovery * power(2, r.circuit_level), max_recovery);
        r.circuit_reason := case when event in ('refused', 'forbidden') then 'authentication' else 'failures' end;
    end if;
    r.circuit_generation := r.circuit_generation + 1;
    return r;
end $$;

-- Notes what came of requests to an integration, unless its endpoint or token is another one meanwhile: the state before and after, why,
-- when the next probe is due, and for how long the circuit was open, in ms. why: no request could be made; ours: for want of a credential
-- of our own.
create or replace function @extschema@.circuit_note(integration bigint, fingerprint bigint, event text, generation bigint, failures integer,
    threshold integer, recovery interval, max_recovery interval, why text, ours boolean,
    out state_before text, out state text, out reason text, out wait_ms bigint, out lasted_ms bigint, out reason_before text)
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    at timestamptz := clock_timestamp();
    before @extschema@.integration_runtime;
    after @extschema@.integration_runtime;
begin
    if not exists (select from @extschema@.integrations i
                    where i.id = integration and @extschema@.integration_fingerprint(i.endpoint_url, i.auth_token, i.delivery_settings) = fingerprint) then
        return;
    end if;
    insert into @extschema@.integration_runtime (integration_id) values (integration) on conflict do nothing;
    select * into before from @extschema@.integration_runtime r where r.integration_id = integration for no key update;
    after := @extschema@.circuit_next(before, event, generation, failures, at, threshold, recovery, max_recovery, '0');
    if after is distinct from before then
        update @extschema@.integration_runtime r
           set circuit_state = after.circuit_state, circuit_generation = after.circuit_generation, circuit_failures = after.circuit_failures,
               circuit_level = after.circuit_level, circuit_since = after.circuit_since, circuit_until = after.circuit_until,
               circuit_reason = after.circuit_reason,
               circuit_why = case when after.circuit_failures > before.circuit_failures then circuit_note.why
                                  when after.circuit_state <> 'closed' then r.circuit_why end,
               circuit_ours = case when after.circuit_failures > before.circuit_failures then circuit_note.ours else r.circuit_ours end
         where r.integration_id = integration;
    end if;
    state_before := before.circuit_state;
    reason_before := before.circuit_reason;
    state := after.circuit_state;
    reason := after.circuit_reason;
    wait_ms := extract(epoch from after.circuit_until - at) * 1000;
    lasted_ms := extract(epoch from at - before.circuit_since) * 1000;
end $$;
