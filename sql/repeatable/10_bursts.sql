-- An institution that takes subscriptions, and then refuses twenty in a row for their data, is itself at fault: it is paused, and those
-- under way are spared. What one of them comes to is final, so all daemons count together, before any of them fails.

-- What came of requests to an integration that were claimed in one turn: true = it took the subscription, false = it refused it. How many
-- of the refused ones may fail, the first ones; and the turn that begins with a pause. What was claimed in an earlier turn was under way
-- then. Other settings than those of the requests (their fingerprint) say that what it refused before says nothing, but to the rows.
-- "taken_usec": since the daemon that asks has seen it take one. "vain": it refused enough, and took none for long; no more need be counted.
create or replace function @extschema@.refusals_judged(integration bigint, fingerprint bigint, turn bigint, taken boolean[], taken_usec bigint,
    reason text, out may_fail integer, out paused_turn bigint, out vain boolean) language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    limit_in_row constant integer := 20;
    at timestamptz := clock_timestamp();
    r @extschema@.integration_runtime;
    was_taken boolean;
begin
    may_fail := 0;
    vain := false;
    -- Locked before its runtime row, as all others lock them that write both: an application that changes settings meets no deadlock.
    perform from @extschema@.integrations i
      where i.id = integration and @extschema@.integration_fingerprint(i.endpoint_url, i.auth_token, i.delivery_settings) = fingerprint
        for no key update;
    if not found then
        may_fail := cardinality(taken);
        return;
    end if;
    insert into @extschema@.integration_runtime (integration_id) values (integration) on conflict do nothing;
    select * into r from @extschema@.integration_runtime x where x.integration_id = integration for no key update;
    if turn < r.refused_turn then
        return;
    end if;
    r.taken_at := greatest(r.taken_at, at - taken_usec * interval '1 us');
    foreach was_taken in array taken loop
        if was_taken then
            r.refused_in_row := 0;
        elsif paused_turn is null then
            may_fail := may_fail + 1;
            r.refused_in_row := least(r.refused_in_row + 1, limit_in_row);
            if r.refused_in_row = limit_in_row and r.taken_at >= at - interval '1 hour' then
                paused_turn := r.refused_turn + 1;
            end if;
        end if;
    end loop;
    vain := r.refused_in_row = limit_in_row and paused_turn is null;
    update @extschema@.integration_runtime x
       set refused_in_row = case when paused_turn is null then r.refused_in_row else 0 end, taken_at = r.taken_at,
           refused_turn = coalesce(paused_turn, r.refused_turn)
     where x.integration_id = integration;
    if paused_turn is not null then
        update @extschema@.integrations i set paused_until = 'infinity', pause_reason = reason, updated_at = @extschema@.subscription_now(i.updated_at)
         where i.id = integration and (i.paused_until is null or i.paused_until <= now());
        if found then
            update @extschema@.integration_runtime x set own_pause = reason where x.integration_id = integration;
        end if;
    end if;
end $$;
