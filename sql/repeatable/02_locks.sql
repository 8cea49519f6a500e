-- Advisory locks, and the doorbell: by it the database wakes a daemon that sleeps.

-- The key of each kind of advisory lock; for "name", "member" and "alive" it is the seed of a hash. The base is the bell's own key.
create or replace function @extschema@.lock_key(kind text) returns bigint language sql immutable parallel safe as $$
    select @extschema@.lock_base() + case kind
        when 'bell' then 0      -- a daemon that sleeps
        when 'seat' then 1      -- a daemon that claims
        when 'relay' then 2     -- the daemon that publishes
        when 'ledger' then 3    -- the session that makes partitions
        when 'name' then 4      -- a daemon's name
        when 'member' then 5    -- a consumer's name
        when 'place' then 6     -- the session that leaves ids out
        when 'alerts' then 7    -- the daemon that looks for alerts and tells of them
        when 'replay' then 8    -- the session that rebuilds read models
        when 'retention' then 9 -- the daemon that lets old things go
        when 'audit' then 10    -- the session that proves the audit log
        when 'alive' then 11    -- all sessions of a daemon, by its name
        else ('no such kind of lock: ' || kind)::bigint end
$$;

-- The session that holds a lock; NULLs = none does. Stranger: in words, with what helps, where it is not a daemon's, which names its
-- sessions "anubisd ...". Everybody may read the name of a session, and only some its state.
create or replace function @extschema@.lock_holder(kind text, out held boolean, out pid integer, out state text, out state_change timestamptz,
                                                   out application_name text, out stranger text)
    language sql stable set search_path = pg_catalog, pg_temp as $$
    select true, l.pid, a.state, a.state_change, a.application_name,
           case when l.pid is null then 'a prepared transaction, which is no daemon: see pg_prepared_xacts'
                when not starts_with(coalesce(a.application_name, ''), 'anubisd ') then
                    format('session %s of role "%s", named "%s", which is no daemon: run "select pg_terminate_backend(%s)"', l.pid, a.usename,
                           left(a.application_name, 40), l.pid) end
      from pg_locks l left join pg_stat_activity a using (pid)
     where l.locktype = 'advisory' and l.granted and l.objsubid = 1
       and l.database = (select oid from pg_database where datname = current_database())
       and (l.classid::bigint << 32) | l.objid::bigint = @extschema@.lock_key(kind)
$$;

-- Asks for the lock of whoever leads in something, which the session then holds until it ends. A leader sends a statement every few seconds:
-- one whose session has been idle for a minute is a process that hangs or is frozen, and keeps everybody from leading. Its session is
-- ended: which one, NULL = none. Hidden: it may not be ours to see at work, or to end, when it has another role. Stranger: see lock_holder().
create or replace function @extschema@.lead_lock(kind text, out given boolean, out ended integer, out hidden boolean, out stranger text)
    language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
    holder record;
begin
    given := pg_try_advisory_lock(@extschema@.lock_key(kind));
    hidden := false;
    if given then
        return;
    end if;
    select * into holder from @extschema@.lock_holder(kind);
    stranger := holder.stranger;
    hidden := holder.held is true and stranger is null and coalesce(holder.state, 'disabled') = 'disabled';
    if holder.state = 'idle' and holder.state_change < clock_timestamp() - interval '60 s' and pg_terminate_backend(holder.pid) then
        ended := holder.pid;
    end if;
exception when insufficient_privilege then
    hidden := stranger is null;
end $$;

-- Is a daemon of this name there, with any session, and does it send statements? Shown: whether we may see that it does; else it counts as
-- one that does. Its sessions send one each second; one that the server waits for, in a transaction or a COPY, sends none. By the server's clock alone one would seem silent when that is set forward.
create or replace function @extschema@.daemon_seen(daemon text, out there boolean, out shown boolean) language plpgsql
    set search_path = pg_catalog, pg_temp as $$
declare
    last timestamptz;
    now_last timestamptz;
    busy boolean;
begin
    for n in 1 .. 2 loop
        select count(*) > 0, coalesce(bool_or(a.state <> 'disabled'), false), max(a.state_change),
               coalesce(bool_or(coalesce(a.state, 'disabled') = 'disabled'
                                or a.state = 'active' and a.wait_event_type is distinct from 'Client'), false)
          into there, shown, now_last, busy
          from pg_locks l join pg_stat_activity a using (pid)
         where l.locktype = 'advisory' and l.granted and l.objsubid = 1
           and l.database = (select oid from pg_database where datname = current_database())
           and (l.classid::bigint << 32) | l.objid::bigint = hashtextextended(daemon, @extschema@.lock_key('alive'));
        if not there or busy or now_last <> last or now_last > clock_timestamp() - interval '5 s' then
            return;
        end if;
        last := now_last;
        if n = 1 then
            perform pg_sleep(3), pg_stat_clear_snapshot();
        end if;
    end loop;
    there := false;
end $$;

-- Rings only when a daemon sleeps: a daemon that is about to sleep asks for the exclusive lock, and from then on no shared lock is
-- granted. NOTIFY makes all committing writers wait for each other, so a busy daemon must not cause it.
create or replace function @extschema@.doorbell_ring() returns void language plpgsql as $$
begin
    if not pg_try_advisory_xact_lock_shared(@extschema@.lock_key('bell')) then
        perform pg_notify(@extschema@.doorbell_channel(), '');
    end if;
end $$;

-- The integrations whose due rows a claim takes. claim_waiting.part.sql finds them by indexes that have the same conditions, and asks
-- this view in the end. What makes one appear here rings by itself, but for time: see anubis_integration_woken,
-- anubis_integration_mended and anubis_circuit_changed. A view, whose operators no search_path can change.
create or replace view @extschema@.integrations_open as
    select i.id
      from @extschema@.integrations i left join @extschema@.integration_runtime r on r.integration_id = i.id
     where i.enabled and coalesce(r.circuit_state, 'closed') = 'closed' and (i.paused_until is null or i.paused_until <= now())
       and (r.backoff_until is null or r.backoff_until <= now());

-- Rings for due rows of these integrations, unless a claim would pass over all of them.
create or replace function @extschema@.doorbell_ring_for(ids bigint[]) returns void language plpgsql
    set search_path = pg_catalog, pg_temp as $$
begin
    if not pg_try_advisory_xact_lock_shared(@extschema@.lock_key('bell')) and
       exists (select from @extschema@.integrations_open i where i.id = any (ids)) then
        perform pg_notify(@extschema@.doorbell_channel(), '');
    end if;
end $$;
