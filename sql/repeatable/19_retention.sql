-- Retention: partitions of the ledger that are old enough, and that nobody needs any more, leave it.

-- Has the audit log leaves of events up to this one that the last checkpoint has not? Its lines: see src/crypto/audit_note.h.
create or replace function @extschema@.ledger_unsealed(ending bigint) returns boolean
    language sql stable set search_path = pg_catalog, pg_temp as $$
    with sealed as (
      select m[1] as topic, m[2]::integer as partition, m[3]::bigint as size
        from (select note from @extschema@.audit_checkpoints order by id desc limit 1) c,
             regexp_matches(c.note, '^([^[:space:]]+) ([0-9]{1,9}) ([0-9]{1,18}) [0-9a-f]{64}$', 'gn') m)
    select exists (select from @extschema@.audit_trees t left join sealed s on s.topic = t.topic and s.partition = t.partition
                    cross join lateral (select from @extschema@.audit_log l
                                         where l.tree = t.id and l.leaf >= coalesce(s.size, 0) and l.sequence <= ending limit 1) l)
$$;

-- The dead letters that are an event's own message, of events with these ids: letter, read model, event, its type, whether it was replayed,
-- whether it is open. Its sequence alone says nothing: whoever may write to a topic gives a message any. Each is looked up by the ledger's key.
create or replace function @extschema@.ledger_letters(beginning bigint, ending bigint, out letter bigint, out read_model text, out event bigint,
                                                      out event_type text, out is_replayed boolean, out is_open boolean)
    returns setof record language sql stable parallel safe set search_path = pg_catalog, pg_temp as $$
    select d.id, d.read_model, d.sequence, e.type, d.replayed_at is not null, d.replayed_at is null and d.discarded_at is null
      from (select l.*, case when l.headers ->> 'sequence' ~ '^[0-9]{1,18}$' then (l.headers ->> 'sequence')::bigint end as sequence
              from @extschema@.dead_letters l) d
     cross join lateral (select e.event_type::text as type from @extschema@.subscription_events e
                          where e.id = d.sequence and e.event_id::text = d.headers ->> 'event_id'
                            and e.event_type::text = substring(d.topic from '[a-z]+$') offset 0) e
     where d.sequence between beginning and ending
$$;

-- What still needs events of these ids, in words; NULL = nothing, as far as the books tell. Whether each event was handled:
-- ledger_unhandled().
create or replace function @extschema@.ledger_needed(beginning bigint, ending bigint, readers text[]) returns text
    language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    found bigint;
begin
    if (select r.high < ending or exists (select from unnest(r.gap_first, r.gap_last) g (first, last)
                                            where g.first <= ending and g.last >= beginning)
          from @extschema@.relay_state r) is not false
       or exists (select from @extschema@.relay_holes h, lateral (select from @extschema@.subscription_events e
                                                                   where e.id between greatest(h.first_id, beginning) and least(h.last_id, ending)
                                                                   limit 1) e
                   where h.first_id <= ending and h.last_id >= beginning) then
        return 'the relay has not published all of its events';
    end if;
    select count(*) into found from @extschema@.ledger_letters(beginning, ending) l where l.is_open;
    if found > 0 then
        return format('events of it are dead letters that nobody has replayed or discarded, %s in all', found);
    end if;
    if 'monitoring' = any (readers) and @extschema@.ledger_unsealed(ending) then
        return 'no checkpoint of the audit log has all of its events';
    end if;
    return null;
end $$;

-- Events of these ids that a read model waits for: read model, how many, the first one. What was put aside it does not wait for.
create or replace function @extschema@.ledger_unhandled(beginning bigint, ending bigint, readers text[], out reader text, out events bigint,
                                                        out event bigint)
    returns setof record language sql stable set search_path = pg_catalog, pg_temp as $$
    with chunks as materialized (
      select b.read_model, b.event_type, b.chunk, bit_or(('x' || encode(b.bits, 'hex'))::bit(8192)) as bits
        from @extschema@.consumer_bitmaps b
       where b.read_model = any (readers) and b.chunk between beginning / 8192 and ending / 8192 group by 1, 2, 3
    ), dead as materialized (
      select distinct l.read_model, l.event as id from @extschema@.ledger_letters(beginning, ending) l
    )
    select w.read_model, count(*), min(e.id)
      from @extschema@.subscription_events e
      join (values ('integration', '{created,sent,failed,retried}'::text[]), ('monitoring', '{created,updated,sent,failed,retried}'),
                   ('external', '{sent}')) w (read_model, types)
           on w.read_model = any (readers) and e.event_type::text = any (w.types)
      left join chunks c on c.read_model = w.read_model and c.event_type = e.event_type::text and c.chunk = e.id / 8192
     where e.id between beginning and ending
       -- get_bit() counts from the low bit of each byte, a bit string from the high one, hence # 7.
       and (c.bits is null or get_bit(c.bits, ((e.id % 8192)::int # 7)) = 0)
       and not exists (select from dead d where d.read_model = w.read_model and d.id = e.id)
     group by 1 order by 1
$$;

-- The baseline takes over what events of these ids say: states, and what was counted. Notes it in ledger_dropped.
create or replace function @extschema@.ledger_fold(part text, beginning bigint, ending bigint) returns bigint
    language sql set search_path = pg_catalog, pg_temp as $$
    with chunks as materialized (
      select b.event_type, b.chunk, bit_or(('x' || encode(b.bits, 'hex'))::bit(8192)) as bits
        from @extschema@.consumer_bitmaps b
       where b.read_model = 'integration' and b.event_type in ('sent', 'failed') and b.chunk between beginning / 8192 and ending / 8192
       group by 1, 2
    ), counted as materialized (
      select e.from_status::text as from_status, e.to_status::text as to_status, e.integration_id::bigint as integration_id,
             case when c.bits is not null and get_bit(c.bits, ((e.id % 8192)::int # 7)) = 1 then e.event_type::text end as counted,
             count(*) as n, min(@extschema@.as_instant(e.created_at)) as first_at, max(@extschema@.as_instant(e.created_at)) as last_at
        from @extschema@.subscription_events e
        left join chunks c on c.event_type = e.event_type::text and c.chunk = e.id / 8192
       where e.id between beginning and ending and e.event_type is not null group by 1, 2, 3, 4
    ), states as (
      insert into @extschema@.ledger_baseline as b (status, subscriptions)
      select x.status, sum(x.n) from (select to_status as status, n from counted union all select from_status, -n from counted) x
       where x.status is not null group by 1 having sum(x.n) <> 0 order by 1
          on conflict (integration_id, status) do update set subscriptions = b.subscriptions + excluded.subscriptions
    ), counts as (
      insert into @extschema@.ledger_baseline as b (integration_id, sent, failed)
      select x.integration_id, coalesce(sum(x.n) filter (where x.counted = 'sent'), 0), coalesce(sum(x.n) filter (where x.counted = 'failed'), 0)
        from counted x where x.counted is not null and x.integration_id is not null group by 1 order by 1
          on conflict (integration_id, status) do update set sent = b.sent + excluded.sent, failed = b.failed + excluded.failed
    )
    insert into @extschema@.ledger_dropped (name, first_id, last_id, events, first_at, last_at)
    select part, beginning, ending, coalesce(sum(n), 0), min(first_at), max(last_at) from counted
    returning events
$$;

-- Lets the oldest partition go when all of its events are older, and nobody needs them. A look at so many ids in each call: the caller
-- calls again with checked_to as long as that is not NULL. part NULL = nothing is old enough; needed: why it stays; events: it has left,
-- with so many. Nobody waits for long: without the lock of the ledger at once it fails (SQLSTATE 55P03), and nothing has changed. The
-- partition of before the adoption is no part of any proof; it is as old as its adoption. Runs with the rights of the role that migrated.
create or replace function @extschema@.ledger_retire(age interval, readers text[], checked bigint, batch bigint, out part text, out checked_to bigint,
                                                     out needed text, out events bigint, out first_at timestamptz, out last_at timestamptz)
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '100ms' as $$
declare
    oldest @extschema@.ledger_partitions;
    adopted boolean;
    beginning bigint;
    ending bigint;
begin
    select p.* into oldest from @extschema@.ledger_partitions p order by p.first_id limit 1;
    adopted := oldest.name = 'subscription_events_adopted';
    -- The one that is being filled stays, whatever its age.
    if oldest.name is null or oldest.last_id >= (select s.last_value from @extschema@.ledger_id_seq s) then
        return;
    elsif not pg_try_advisory_xact_lock(@extschema@.lock_key('ledger')) then
        raise exception using errcode = 'lock_not_available', message = 'another session works on the partitions of the ledger';
    end if;
    last_at := (select @extschema@.as_instant(e.created_at) from @extschema@.subscription_events e
                 where e.id between oldest.first_id and oldest.last_id order by e.id desc limit 1);
    if coalesce(last_at, oldest.created_at) >= now() - age or adopted and oldest.created_at >= now() - age then
        return;
    end if;
    ending := oldest.last_id;
    if not adopted then
        beginning := greatest(oldest.first_id, checked + 1);
        ending := least(oldest.last_id, beginning + batch - 1);
        -- The last one need not be the latest.
        if (select max(@extschema@.as_instant(e.created_at)) >= now() - age from @extschema@.subscription_events e
             where e.id between beginning and ending) then
            return;
        end if;
        readers := array(select r from unnest(readers) r union select o.read_model from @extschema@.consumer_offsets o);
        needed := coalesce(@extschema@.ledger_needed(oldest.first_id, oldest.last_id, readers),
                           (select string_agg(format('the group "%s" has not handled %s, the first is %s', u.reader,
                                                     case when u.events = 1 then 'one of its events' else u.events || ' of its events' end, u.event),
                                              '; ' order by u.reader)
                              from @extschema@.ledger_unhandled(beginning, ending, readers) u));
    end if;
    part := oldest.name;
    if needed is not null then
        return;
    elsif ending < oldest.last_id then
        checked_to := ending;
        return;
    end if;
    if adopted then
        insert into @extschema@.ledger_dropped (name, first_id, last_id, events, last_at) values (part, oldest.first_id, oldest.last_id, 0, last_at);
        events := 0;
    else
        events := @extschema@.ledger_fold(part, oldest.first_id, oldest.last_id);
    end if;
    select d.first_at, d.last_at into first_at, last_at from @extschema@.ledger_dropped d where d.name = part;
    delete from @extschema@.ledger_partitions p where p.name = part;
    delete from @extschema@.relay_holes h where h.last_id <= oldest.last_id;
    execute format('alter table @extschema@.subscription_events detach partition @extschema@.%I', part);
    execute format('drop table @extschema@.%I', part);
    -- Its ids are free and marked as counted: who set the sequence back among them would write events that nobody publishes or counts.
    execute format('alter sequence @extschema@.ledger_id_seq minvalue %1$s start with %1$s', oldest.last_id + 1);
end $$;
revoke execute on function @extschema@.ledger_fold(text, bigint, bigint), @extschema@.ledger_retire(interval, text[], bigint, bigint) from public;
