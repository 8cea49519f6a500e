-- Routing: a subscription without an integration goes to that of the first filter which takes it.

-- Gives each of these subscriptions that has no integration and waits to the first enabled filter that takes it, and returns how
-- many there were. What the filter says counts, not the state of its integration: a disabled or paused one keeps its subscriptions waiting,
-- and nobody else's institution gets them meanwhile. Criteria of NULL take nothing: so the filters of an adopted application begin.
--
-- The order of "filters" is that in which it is read, so the first match ends the search. A payload is unpacked once, for all filters,
-- and rows are found by their ids, however many others have no integration: these are what "offset 0" is for. The plans are made once,
-- perhaps on empty tables, and hold for large ones. A row that somebody else has locked or changed meanwhile is left out.
create or replace function @extschema@.subscriptions_route(ids bigint[], out routed bigint, out left_out bigint)
    language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off set plan_cache_mode = force_generic_plan
    as $$
declare
    chosen record;
    updated bigint;
begin
    routed := 0;
    left_out := 0;
    for chosen in
        with filters as materialized (
            select f.id, f.integration_id, f.origin::text as origin, f.criteria, f.criteria = '{}' as takes_all
              from @extschema@.integration_filters f
             where f.enabled and f.criteria is not null and exists (select from @extschema@.integrations i where i.id = f.integration_id)
             order by f.position nulls last, f.id
        ), named as (
            select s.ctid as place, s.integration_id, s.status::text as status, s.held_at, s.origin::text as origin, s.payload
              from @extschema@.subscriptions s where s.id = any (subscriptions_route.ids)
            offset 0
        ), unrouted as (
            select n.place, n.origin, @extschema@.as_jsonb(n.payload) #> '{}' as payload
              from named n where n.integration_id is null and n.status in ('pending', 'retry') and n.held_at is null
            offset 0
        )
        select m.id, m.integration_id, array_agg(u.place) as places
          from unrouted u cross join lateral (
               select f.id, f.integration_id
                 from filters f
                where (f.origin is null or f.origin = u.origin) and (f.takes_all or u.payload @> f.criteria)
                limit 1) m
         group by m.id, m.integration_id order by m.id
    loop
        update @extschema@.subscriptions s
           set integration_id = chosen.integration_id, integration_filter_id = chosen.id
         where s.ctid = any (array(select l.ctid from @extschema@.subscriptions l where l.ctid = any (chosen.places)
                                      for no key update skip locked));
        get diagnostics updated = row_count;
        routed := routed + updated;
        left_out := left_out + cardinality(chosen.places) - updated;
    end loop;
end $$;
-- In the triggers' name, and the daemon's: nobody else may ask whether a subscription of another's waits.
revoke execute on function @extschema@.subscriptions_route(bigint[]) from public;

-- Where it has gone, for its event; see subscription_inserted().
create or replace function @extschema@.subscription_integration(id bigint) returns bigint language plpgsql stable
    set search_path = pg_catalog, pg_temp as $$
begin
    return (select s.integration_id from @extschema@.subscriptions s where s.id = subscription_integration.id);
end $$;
revoke execute on function @extschema@.subscription_integration(bigint) from public;

-- Criteria that no payload could fulfil, or that would have to be read for each subscription, are refused when they are written. What
-- an adopted row held before keeps nobody from changing something else.
create or replace function @extschema@.integration_filter_check() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    problem text;
    hint text := 'They look like {"course": "medicine"}: a payload must contain all of it. An empty object takes every payload.';
begin
    if tg_op = 'UPDATE' and new.criteria is not distinct from old.criteria then
        return new;
    end if;
    if jsonb_typeof(new.criteria) <> 'object' then
        problem := 'are no JSON object';
    elsif octet_length(new.criteria::text) > 16384 then
        problem := format('have %s bytes; 16384 are the most', octet_length(new.criteria::text));
        hint := 'They are compared with the payload of each subscription that has no integration.';
    end if;
    if problem is not null then
        raise exception using errcode = 'check_violation', message = 'criteria of an integration filter ' || problem, hint = hint,
            table = 'integration_filters', constraint = 'integration_filters_criteria_are_usable';
    end if;
    return new;
end $$;
