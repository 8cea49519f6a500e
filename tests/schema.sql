-- A fresh schema, as PostgreSQL 15 dumps it.
CREATE SCHEMA anubis;
CREATE FUNCTION anubis.anubis_alter(command text) RETURNS void
    LANGUAGE plpgsql
    AS $$
declare
    views text[] := '{stats_events,subscription_event_messages,subscription_event_feed,integrations_open,change_with_anubis_alter}';
    changed bigint := anubis.rows_changed();
    view text;
    again text[] := '{}';
    patience constant text := current_setting('lock_timeout');
    until constant timestamptz := clock_timestamp() + nullif(patience::interval, '0');
    t record;
    amiss text;
begin
    -- Others lock the same tables in another order: whoever waits gives back what it has before the server calls it a deadlock.
    loop
        begin
            perform set_config('lock_timeout', '300ms', true);
            lock table anubis.subscriptions, anubis.subscription_events, anubis.integrations, anubis.integration_filters
                in access exclusive mode;
            exit;
        exception when lock_not_available then
            if clock_timestamp() >= until then
                raise;
            end if;
            perform pg_sleep(random() / 5);
        end;
    end loop;
    perform set_config('lock_timeout', patience, true);
    foreach view in array views loop
        again := array(select format('grant %s on anubis.%I to %s', x.privilege_type, view,
                                     coalesce(quote_ident(pg_get_userbyid(nullif(x.grantee, 0))), 'public'))
                         from pg_class c, aclexplode(c.relacl) x
                        where c.oid = to_regclass('anubis.' || view) and x.grantee <> c.relowner) || again;
        again := format('create view anubis.%I as %s', view, pg_get_viewdef(to_regclass('anubis.' || view))) || again;
        execute format('drop view anubis.%I', view);
    end loop;
    for t in select g.oid, g.tgname, g.tgrelid::regclass as relation from pg_trigger g
              where g.tgrelid in ('anubis.subscriptions'::regclass, 'anubis.integrations'::regclass,
                                  'anubis.integration_filters'::regclass)
                and not g.tgisinternal and starts_with(g.tgname, 'anubis_') loop
        again := again || pg_get_triggerdef(t.oid);
        execute format('drop trigger %I on %s', t.tgname, t.relation);
    end loop;
    execute command;
    if anubis.rows_changed() <> changed then
        raise exception using errcode = 'object_not_in_prerequisite_state',
            message = 'anubis_alter() is for definitions: rows that are changed while the triggers are away leave no events',
            hint = 'Write the rows before or after, in a statement of its own.';
    end if;
    amiss := anubis.columns_amiss();
    if amiss is not null then
        raise exception using errcode = 'object_not_in_prerequisite_state', message = 'anubisd could not go on: ' || amiss,
            hint = 'See "Migrations of the application" in anubisctl(8).';
    end if;
    for i in 1 .. cardinality(again) loop
        execute again[i];
    end loop;
    -- Of no row: whether the triggers work with the types as they are now.
    insert into anubis.subscriptions (integration_id) select id from anubis.integrations where false;
    update anubis.subscriptions set integration_id = integration_id where false;
end $$;
CREATE FUNCTION anubis.anubis_steps(OUT version integer, OUT name text, OUT checksum text, OUT oldest_daemon integer) RETURNS SETOF record
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog'
    AS $$
    values (0, '000_migrations.sql', '…', 0),
        (1, '001_adoption.sql', '…', 0),
        (2, '002_tables.sql', '…', 0),
        (3, '003_ledger.sql', '…', 0) $$;
CREATE FUNCTION anubis.anubisd_grant(role name) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    execute format('grant usage on schema anubis to %I', role);
    execute format('grant select on anubis.anubis_migrations, anubis.integration_filters, anubis.integrations_open,
                    anubis.installation, anubis.subscription_events, anubis.subscription_events_default,
                    anubis.subscription_event_feed, anubis.subscription_event_messages, anubis.ledger_partitions,
                    anubis.ledger_baseline, anubis.audit_past, anubis.ledger_dropped, anubis.ledger_leaps, anubis.stats_events, anubis.ledger_id_seq to %I', role);
    execute format('grant select, update on anubis.subscriptions, anubis.integrations to %I', role);
    execute format('grant select, insert, update, delete on anubis.integration_runtime, anubis.dead_letters, anubis.consumer_stops,
                    anubis.relay_state, anubis.relay_saved, anubis.relay_holes, anubis.relay_topics, anubis.relay_reached, anubis.consumer_offsets,
                    anubis.consumer_bitmaps, anubis.integration_stats_spans, anubis.integration_stats, anubis.integration_stats_days,
                    anubis.integration_stats_months, anubis.integration_stats_changes, anubis.alerts, anubis.alert_silences, anubis.alert_outbox,
                    anubis.alert_rests, anubis.alert_evidence, anubis.alert_firsts, anubis.alert_buckets,
                    anubis.confirmations, anubis.confirmation_terms to %I', role);
    execute format('grant select, insert on anubis.audit_log, anubis.audit_tiles, anubis.audit_salts to %I', role);
    execute format('grant select, insert, update, delete on anubis.audit_trees, anubis.audit_checkpoints, anubis.audit_checks to %I', role);
    execute format('grant execute on function anubis.ledger_extend(bigint), anubis.ledger_index(), anubis.ledger_retire(interval, text[], bigint, bigint),
                     anubis.ledger_renumber(bigint, bigint, timestamptz), anubis.subscriptions_note(),
                     anubis.subscriptions_route(bigint[]),
                     anubis.subscriptions_resend(bigint[], text, bigint, bigint),
                     anubis.subscriptions_erase(bigint[], text[], text) to %I', role);
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
CREATE FUNCTION anubis.as_jsonb(document json) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    AS $$ select anubis.as_document(document::text, null::jsonb) $$;
CREATE FUNCTION anubis.as_jsonb(document jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ select document $$;
CREATE FUNCTION anubis.as_jsonb(document text) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    AS $$ select anubis.as_document(document, null::jsonb) $$;
CREATE FUNCTION anubis.as_state(state text, of_type anyenum) RETURNS anyenum
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$ begin return state; end $$;
CREATE FUNCTION anubis.as_state(state text, of_type text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ select state $$;
CREATE FUNCTION anubis.audit_fold(hashes bytea[]) RETURNS bytea
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    while cardinality(hashes) > 1 loop
        hashes := array(select sha256(E'\\001'::bytea || hashes[2 * n - 1] || hashes[2 * n]) from generate_series(1, cardinality(hashes) / 2) as n order by n);
    end loop;
    return hashes[1];
end $$;
CREATE FUNCTION anubis.audit_hash(tree integer, height integer, number bigint) RETURNS bytea
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    below constant integer := greatest(height - 1, 0) / 8;
    beginning constant bigint := number << height - 8 * below;
    ending constant bigint := number + 1 << height - 8 * below;
begin
    if below = 0 then
        return anubis.audit_fold(array(select l.hash from anubis.audit_log l
                                             where l.tree = audit_hash.tree and l.leaf >= beginning and l.leaf < ending order by l.leaf));
    end if;
    return anubis.audit_fold(array(select a.hash from anubis.audit_tiles a
                                         where a.tree = audit_hash.tree and a.level = below and a.tile >= beginning and a.tile < ending
                                         order by a.tile));
end $$;
CREATE FUNCTION anubis.audit_mark() RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    lacks record;
    marked bytea;
    n integer;
    total bigint := 0;
begin
    for lacks in
        with chunks as materialized (
          select b.event_type, b.chunk, bit_or(('x' || encode(b.bits, 'hex'))::bit(8192)) as bits
            from anubis.consumer_bitmaps b where b.read_model = 'monitoring' group by 1, 2
        )
        select l.event_type, t.partition, l.sequence / 8192 as chunk, array_agg(distinct (l.sequence % 8192)::integer) as ids
          from anubis.audit_log l join anubis.audit_trees t on t.id = l.tree
          left join chunks c on c.event_type = l.event_type and c.chunk = l.sequence / 8192
         where l.sequence > 0 and coalesce(get_bit(c.bits, (l.sequence % 8192)::integer # 7), 0) = 0
         group by 1, 2, 3 order by 1, 2, 3
    loop
        insert into anubis.consumer_bitmaps as b (read_model, event_type, partition, chunk, bits)
        values ('monitoring', lacks.event_type, lacks.partition, lacks.chunk, decode(repeat('00', 1024), 'hex'))
            on conflict (read_model, event_type, partition, chunk) do update set version = b.version + 1
        returning b.bits into marked;
        foreach n in array lacks.ids loop
            marked := set_bit(marked, n, 1);
        end loop;
        update anubis.consumer_bitmaps b set bits = marked
         where b.read_model = 'monitoring' and b.event_type = lacks.event_type and b.partition = lacks.partition and b.chunk = lacks.chunk;
        total := total + cardinality(lacks.ids);
    end loop;
    return total;
end $$;
CREATE FUNCTION anubis.audit_tiles_make() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    lock table anubis.audit_trees in share row exclusive mode;
    delete from anubis.audit_tiles;
    for n in 1..7 loop
        insert into anubis.audit_tiles (tree, level, tile, hash)
        select t.id, n, i.tile, anubis.audit_hash(t.id, 8 * n, i.tile)
          from anubis.audit_trees t cross join lateral generate_series(0, (t.size >> 8 * n) - 1) as i (tile);
        exit when not found;
    end loop;
    update anubis.audit_trees t
       set roots = coalesce((select string_agg(anubis.audit_hash(t.id, b, (t.size >> b) - 1), '' order by b desc)
                               from generate_series(0, 62) as b where (t.size >> b) & 1 = 1), '');
end $$;
CREATE FUNCTION anubis.audit_unmark() RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    lost record;
    cleared bytea;
    n integer;
    total bigint := 0;
begin
    for lost in
        with marked as (
          select b.event_type, b.chunk, sum(length(replace(('x' || encode(b.bits, 'hex'))::bit(8192)::text, '0', ''))) as n
            from anubis.consumer_bitmaps b where b.read_model = 'monitoring' group by 1, 2
        ), logged as (
          select l.event_type, l.sequence / 8192 as chunk, count(distinct l.sequence) as n from anubis.audit_log l group by 1, 2
        ), short as materialized (
          select m.event_type, m.chunk from marked m left join logged l using (event_type, chunk) where m.n > coalesce(l.n, 0)
        )
        select b.event_type, b.partition, b.chunk, array_agg(g.n) as ids
          from short s join anubis.consumer_bitmaps b using (event_type, chunk) cross join generate_series(0, 8191) as g (n)
         where b.read_model = 'monitoring' and get_bit(b.bits, g.n) = 1
           and not exists (select from anubis.audit_log l
                            where l.event_type = b.event_type and l.sequence = b.chunk * 8192 + g.n)
         group by 1, 2, 3
    loop
        select b.bits into cleared from anubis.consumer_bitmaps b
         where b.read_model = 'monitoring' and b.event_type = lost.event_type and b.partition = lost.partition and b.chunk = lost.chunk
           for update;
        foreach n in array lost.ids loop
            cleared := set_bit(cleared, n, 0);
        end loop;
        update anubis.consumer_bitmaps b set bits = cleared, version = b.version + 1
         where b.read_model = 'monitoring' and b.event_type = lost.event_type and b.partition = lost.partition and b.chunk = lost.chunk;
        total := total + cardinality(lost.ids);
    end loop;
    return total;
end $$;
CREATE TABLE anubis.integration_runtime (
    integration_id bigint NOT NULL,
    circuit_state text DEFAULT 'closed'::text NOT NULL,
    circuit_generation bigint DEFAULT 0 NOT NULL,
    circuit_failures integer DEFAULT 0 NOT NULL,
    circuit_level integer DEFAULT 0 NOT NULL,
    circuit_since timestamp with time zone,
    circuit_until timestamp with time zone,
    circuit_reason text,
    circuit_why text,
    circuit_ours boolean DEFAULT false NOT NULL,
    own_pause text,
    backoff_until timestamp with time zone,
    backoff_since timestamp with time zone,
    backoff_reason text,
    rate_at timestamp with time zone,
    rate_by bigint,
    served_by text,
    served_until timestamp with time zone,
    served_since timestamp with time zone,
    sent bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    sent_folded bigint DEFAULT 0 NOT NULL,
    failed_folded bigint DEFAULT 0 NOT NULL,
    refused_in_row integer DEFAULT 0 NOT NULL,
    refused_turn bigint DEFAULT 0 NOT NULL,
    taken_at timestamp with time zone,
    CONSTRAINT integration_runtime_circuit_state_check CHECK ((circuit_state = ANY (ARRAY['closed'::text, 'open'::text, 'half_open'::text])))
)
WITH (fillfactor='50');
CREATE FUNCTION anubis.circuit_next(r anubis.integration_runtime, event text, generation bigint, failures integer, at timestamp with time zone, threshold integer, recovery interval, max_recovery interval, lease interval) RETURNS anubis.integration_runtime
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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
CREATE FUNCTION anubis.circuit_note(integration bigint, fingerprint bigint, event text, generation bigint, failures integer, threshold integer, recovery interval, max_recovery interval, why text, ours boolean, OUT state_before text, OUT state text, OUT reason text, OUT wait_ms bigint, OUT lasted_ms bigint, OUT reason_before text) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    at timestamptz := clock_timestamp();
    before anubis.integration_runtime;
    after anubis.integration_runtime;
begin
    if not exists (select from anubis.integrations i
                    where i.id = integration and anubis.integration_fingerprint(i.endpoint_url, i.auth_token, i.delivery_settings) = fingerprint) then
        return;
    end if;
    insert into anubis.integration_runtime (integration_id) values (integration) on conflict do nothing;
    select * into before from anubis.integration_runtime r where r.integration_id = integration for no key update;
    after := anubis.circuit_next(before, event, generation, failures, at, threshold, recovery, max_recovery, '0');
    if after is distinct from before then
        update anubis.integration_runtime r
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
CREATE FUNCTION anubis.cleaning_allowed() RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ select coalesce((select allows_cleaning from anubis.installation), true) $$;
CREATE FUNCTION anubis.columns_amiss() RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
    with present as (
        select c.relname, a.attname, a.attnotnull, a.atthasdef or a.attidentity <> '' or a.attgenerated <> '' as has_value
          from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
         where c.relnamespace = 'anubis'::regnamespace and c.relkind in ('r', 'p')
           and c.relname in (select relation from anubis.columns_needed())
    ), amiss (words) as (
        select format('table "%s" has no column "%s", which is written into the ledger or read by daemons: give it back its name, or add it '
                      'again (one that is generated from another will do)', n.relation, n.name)
          from anubis.columns_needed() n
         where exists (select from present p where p.relname = n.relation)
           and not exists (select from present p where p.relname = n.relation and p.attname = n.name)
        union all
        select format('column "%s" of table "%s" is NOT NULL, and anubisd empties it: run "alter table %2$s alter %1$I drop not null"',
                      p.attname, p.relname)
          from present p
         where p.attnotnull and p.relname in ('subscriptions', 'integrations')
           and p.attname = any ('{next_attempt_at,claimed_by,claim_token,lease_expires_at,held_at,last_error,last_http_status,last_response,
               last_response_truncated,last_duration_ms,last_ambiguous,last_decided_by,ambiguous_since,paused_until,pause_reason}'::text[])
        union all
        select format('column "%s" of table "subscription_events" is NOT NULL, and events have no value for it: run "alter table '
                      'subscription_events alter %1$I drop not null", or give it a default', p.attname)
          from present p
         where p.relname = 'subscription_events' and p.attnotnull and not p.has_value
           and p.attname not in ('id', 'event_id', 'event_type', 'subscription_id', 'operation_name', 'created_at')
        union all
        select r from anubis.states_refused(to_regclass('anubis.subscriptions')) r
    )
    select string_agg(words, '; ') from amiss
$_$;
CREATE FUNCTION anubis.columns_needed(OUT relation text, OUT name text) RETURNS SETOF record
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select c.relation, unnest(c.names::text[]) from (values
        ('subscriptions', '{id,integration_id,integration_filter_id,order_id,origin,cpf,payload,status,attempts,scheduled_to,next_attempt_at,
          claimed_by,claim_token,lease_expires_at,held_at,sent_at,last_error,last_http_status,created_at,updated_at,last_response,
          last_response_truncated,last_duration_ms,last_ambiguous,last_decided_by,ambiguous_since,idempotency_seed,
          idempotency_turn,traceparent,resend_of,erased_at}'),
        ('integrations', '{id,name,type,endpoint_url,auth_token,enabled,timeout_ms,max_in_flight,rate_limit,max_attempts,delivery_settings,
          successful_sends,failed_sends,paused_until,pause_reason,updated_at}'),
        ('integration_filters', '{id,integration_id,name,origin,criteria,position,enabled}'),
        ('subscription_events', '{id,event_id,event_type,subscription_id,integration_id,status,operation_name,attempt,http_status,
          duration_ms,request,response,error_message,from_status,to_status,created_at,order_id,origin,cpf,sent_at,scheduled_to,
          next_attempt_at,subscription_created_at,subscription_updated_at,ambiguous,response_truncated,traceparent,decided_by}')) as c (relation, names)
$$;
CREATE FUNCTION anubis.columns_ours(OUT relation text, OUT name text) RETURNS SETOF record
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select unnest(t.relations::text[]), c.name from (values
        ('{anubis_migrations}', '{applied_at,applied_by,checksum,made,name,oldest_daemon,version}'),
        ('{anubis_repeatables}', '{applied_at,applied_by,checksum,name}'),
        ('{installation}', '{allows_cleaning,copied_up_to,created_at,database,namespace,noted_at,one,server,subscriptions_up_to,
            tables}'),
        ('{relay_state}', '{compared_at,epoch,gap_first,gap_horizon,gap_last,high,leader,one,stopped_on,stopped_reason,system_identifier,
            timeline,topic_prefix,updated_at}'),
        ('{relay_saved}', '{gap_first,gap_horizon,gap_last,high,one,saved_at}'),
        ('{relay_holes}', '{first_id,last_id,unread}'),
        ('{relay_topics}', '{from_sequence,partitions,topic}'),
        ('{relay_reached}', '{next_offset,partition,topic}'),
        ('{ledger_partitions}', '{created_at,first_id,last_id,name}'),
        ('{ledger_dropped}', '{dropped_at,events,first_at,first_id,last_at,last_id,name}'),
        ('{ledger_leaps}', '{created_at,first_id,last_id}'),
        ('{ledger_baseline}', '{failed,failed_sends,integration_id,sent,status,subscriptions,successful_sends}'),
        ('{consumer_offsets}', '{consumer_group,foreign_messages,next_offset,partition,read_model,topic,unknown_events,unread_below,
            unread_gaps,unread_until,updated_at}'),
        ('{consumer_bitmaps}', '{bits,chunk,event_type,partition,read_model,version}'),
        ('{integration_runtime}', '{backoff_reason,backoff_since,backoff_until,circuit_failures,circuit_generation,circuit_level,
            circuit_ours,circuit_reason,circuit_since,circuit_state,circuit_until,circuit_why,failed,failed_folded,integration_id,
            own_pause,rate_at,rate_by,refused_in_row,refused_turn,sent,sent_folded,served_by,served_since,served_until,taken_at}'),
        ('{dead_letters}', '{consumer_group,created_at,discard_only,discard_reason,discarded_at,error,failed_at,headers,id,key,last_error,
            offset,partition,published_at,read_model,replayed_at,replays,topic,value,written_at}'),
        ('{consumer_stops}', '{command,passes_until,read_model,reason,stopped_at}'),
        ('{integration_stats_spans,integration_stats,integration_stats_days,integration_stats_months}', '{attempts,bucket,created,
            delivery_count,delivery_index,failed,http_count,http_index,integration_id,retried,sent,span}'),
        ('{integration_stats_changes}', '{bucket,changes,integration_id}'),
        ('{integration_moves}', '{integration_id,moved_at}'),
        ('{audit_trees}', '{id,partition,roots,size,topic}'),
        ('{audit_log}', '{commitment,created_at,event_id,event_type,hash,integration_id,leaf,offset,sequence,subscription_id,tree}'),
        ('{audit_tiles}', '{hash,level,tile,tree}'),
        ('{audit_checkpoints}', '{created_at,id,note,published_at,signed_by,verified_at}'),
        ('{audit_salts}', '{chunk,salts}'),
        ('{audit_checks}', '{checked_at,checkpoint,differences,last_checkpoint,one,took_ms,unsealed_since,whole_at,words}'),
        ('{audit_past}', '{checkpoint,id,installation,leaves,tree}'),
        ('{alerts}', '{acknowledged_at,acknowledged_by,id,integration_id,kind,last_notified_at,message,over_since,resolved_at,started_at,
            state,threshold,value}'),
        ('{alert_silences}', '{created_at,id,integration_id,kind,reason,until}'),
        ('{alert_outbox}', '{alert_id,attempts,body,created_at,due_at,error,event,id,sent_at,sink}'),
        ('{alert_evidence}', '{above_since,integration_id,recent,since}'),
        ('{alert_rests}', '{ended_at,integration_id}'),
        ('{alert_firsts}', '{seen_at,subscription_id}'),
        ('{alert_buckets}', '{bucket,failed,integration_id,total}'),
        ('{confirmations}', '{confirmed_at,contradicting,contradictions,created_at,expected_by,external_id,integration_id,received_at,
            status,subscription_id}'),
        ('{confirmation_terms}', '{after_id,integration_id,known_id,since,within_usec}')) as t (relations, names), unnest(t.names::text[]) c (name)
$$;
CREATE FUNCTION anubis.confirmation_changed() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    insert into anubis.confirmation_terms as t (integration_id, after_id, within_usec)
    select new.id, s.last_value - 1 + s.is_called::integer, anubis.confirmation_usec(new.delivery_settings -> 'confirmation')
      from anubis.ledger_id_seq s
        on conflict (integration_id, after_id) do update set within_usec = excluded.within_usec, since = excluded.since, known_id = null;
    return null;
end $$;
CREATE FUNCTION anubis.confirmation_usec(value jsonb) RETURNS bigint
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
    select usec::bigint
      from (select m[1]::numeric * ('{"us": 1, "ms": 1000, "s": 1000000, "m": 60000000, "h": 3600000000, "d": 86400000000}'::jsonb
                                    ->> m[2])::numeric as usec
              from regexp_match(value ->> 'within', '^0*([1-9][0-9]{0,17})(us|ms|s|m|h|d)$') m) x
     where usec <= 315360000000000
$_$;
CREATE FUNCTION anubis.cpf_digits(cpf text) RETURNS text
    LANGUAGE sql STABLE
    AS $$
    select nullif(ltrim(regexp_replace(anubis.plain_digits(cpf), E'\\\\[0-7]{3}|[^0-9]', '', 'g'), '0'), '')
$$;
CREATE FUNCTION anubis.daemon_seen(daemon text, OUT there boolean, OUT shown boolean) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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
           and (l.classid::bigint << 32) | l.objid::bigint = hashtextextended(daemon, anubis.lock_key('alive'));
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
CREATE FUNCTION anubis.delivery_settings_auth(value jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    fault text;
begin
    if jsonb_typeof(value) <> 'object' then
        return 'must be an object such as {"type": "basic", "username": "anubis", "password": "credential:usp"}';
    end if;
    case value ->> 'type'
        when 'bearer', 'none' then return anubis.delivery_settings_members_fault(value, 'type', '{}');
        when 'basic' then
            fault := anubis.delivery_settings_members_fault(value, 'type', '{"username": "secret", "password": "secret"}');
            return case when fault is null and value ->> 'username' ~ ':' and value ->> 'username' !~ '^credential:'
                        then 'has a "username" that holds a colon' else fault end;
        when 'header' then
            fault := anubis.delivery_settings_members_fault(value, 'type', '{"name": "plain", "value": "secret"}');
            return coalesce(fault, 'has a "name" or "value" that '
                                   || anubis.delivery_settings_header_fault(value ->> 'name', value ->> 'value'));
        when 'oauth2' then
            fault := anubis.delivery_settings_members_fault(value, 'type',
                '{"token_url": "plain", "client_id": "secret", "client_secret": "secret", "scope": "?plain"}');
            return coalesce(fault, case when value ->> 'token_url' !~ '^https?://[^[:space:][:cntrl:]/?#@]+([/?][^[:space:][:cntrl:]#]*)?$'
                                             or octet_length(value ->> 'token_url') > 8000
                                        then 'has a "token_url" that must be a URL such as https://login.example/oauth2/token' end,
                            'has a "token_url" that ' || anubis.delivery_settings_url_fault(value ->> 'token_url'));
        when 'mtls' then
            fault := anubis.delivery_settings_members_fault(value, 'type', '{"certificate": "pem", "key": "pem"}');
            return coalesce(fault,
                case when value ->> 'certificate' !~ '^credential:|-----BEGIN (TRUSTED |X509 )?CERTIFICATE-----'
                     then 'has a "certificate" that is none in PEM'
                     when value ->> 'key' !~ '^credential:|-----BEGIN ([A-Z]+ )?PRIVATE KEY-----' then 'has a "key" that is none in PEM'
                     when value ->> 'key' ~ 'ENCRYPTED' then 'has a "key" that is encrypted, and nobody who could be asked for its password' end);
        else return 'must have a "type": bearer, basic, header, oauth2, mtls or none';
    end case;
end $_$;
CREATE FUNCTION anubis.delivery_settings_check(settings jsonb, before jsonb) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    k text;
    v jsonb;
    words text;
begin
    if jsonb_typeof(settings) <> 'object' then
        raise exception using errcode = 'check_violation', message = 'delivery_settings is no JSON object';
    elsif octet_length(settings::text) > 65536 then
        raise exception using errcode = 'check_violation', message = 'delivery_settings has more than 65536 bytes';
    end if;
    for k, v in select s.key, s.value from jsonb_each(settings) s loop
        continue when v = case jsonb_typeof(before) when 'object' then before -> k end;
        case k
            when 'auth' then words := anubis.delivery_settings_auth(v);
            when 'confirmation' then words := anubis.delivery_settings_confirmation(v);
            when 'headers' then words := anubis.delivery_settings_headers(v);
            when 'idempotency' then words := anubis.delivery_settings_idempotency(v);
            when 'lookup' then words := anubis.delivery_settings_lookup(v);
            when 'on_ambiguous' then words := anubis.delivery_settings_on_ambiguous(v);
            when 'outcomes' then words := anubis.delivery_settings_outcomes(v);
            when 'proxy' then words := anubis.delivery_settings_proxy(v);
            when 'signing_secret' then words := anubis.delivery_settings_signing_secret(v);
            when 'tls' then words := anubis.delivery_settings_tls(v);
            else
                raise exception using errcode = 'check_violation', message = format('delivery_settings has an unknown key "%s"', k),
                    hint = 'The keys are auth, headers, signing_secret, outcomes, on_ambiguous, idempotency, lookup, proxy, confirmation and tls.';
        end case;
        if words is not null then
            raise exception using errcode = 'check_violation', message = format('delivery_settings.%s %s', k, words);
        end if;
    end loop;
end $$;
CREATE FUNCTION anubis.delivery_settings_confirmation(value jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select 'is an object such as {"within": "2d"}, with a duration of at most 3650 days'
     where not case when jsonb_typeof(value) = 'object' and value - 'within' = '{}' and jsonb_typeof(value -> 'within') = 'string'
                    then anubis.confirmation_usec(value) is not null else false end
$$;
CREATE FUNCTION anubis.delivery_settings_header_fault(name text, value text) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
    select case when name !~ '^[-!#$%&''*+.^_`|~0-9A-Za-z]+$' then 'is no name of a header'
                when lower(name) in ('host', 'content-length', 'transfer-encoding', 'connection', 'keep-alive', 'te', 'trailer', 'upgrade',
                                     'expect', 'accept-encoding', 'proxy-connection', 'proxy-authorization', 'idempotency-key', 'traceparent',
                                     'webhook-id', 'webhook-timestamp', 'webhook-signature') then 'is a header that anubisd sets itself'
                when value ~ E'[^\x01-\x7f]' then 'holds characters that are not ASCII'
                when value ~ '^ +$' then 'is blank' end $_$;
CREATE FUNCTION anubis.delivery_settings_headers(value jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    k text;
    v jsonb;
    fault text;
begin
    if jsonb_typeof(value) <> 'object' then
        return 'must be an object such as {"X-Campus": "sul"}';
    elsif (select count(*) > 32 or count(*) > count(distinct lower(key)) from jsonb_object_keys(value) key) then
        return 'must be at most 32, and each name only once, whatever its case';
    end if;
    for k, v in select e.key, e.value from jsonb_each(value) e loop
        fault := coalesce(case lower(k) when 'authorization' then 'belongs to delivery_settings.auth: {"type": "header", ...}' end,
                          anubis.delivery_settings_text_fault(v, 'secret'), anubis.delivery_settings_header_fault(k, v #>> '{}'));
        if fault is not null then
            return format('must be headers: "%s" %s', left(k, 40), fault);
        end if;
    end loop;
    return null;
end $$;
CREATE FUNCTION anubis.delivery_settings_idempotency(value jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    per_day constant jsonb := '{"us": 86400000000, "ms": 86400000, "s": 86400, "m": 1440, "h": 24, "d": 1}';
    parts text[] := regexp_match(value ->> 'window', '^0*([1-9][0-9]{0,17})(us|ms|s|m|h|d)$');
begin
    if jsonb_typeof(value) <> 'object' then
        return 'is an object such as {"window": "24h", "stored_errors": "new_key"}';
    elsif value - array['window', 'stored_errors'] <> '{}' then
        return 'has window and stored_errors';
    elsif value ? 'window' and value -> 'window' <> '"none"'
          and (jsonb_typeof(value -> 'window') <> 'string' or parts is null
               or parts[1]::numeric > 3650 * (per_day ->> parts[2])::numeric) then
        return 'window is a duration such as "24h", of at most 3650 days, or "none"';
    elsif value ? 'stored_errors' and value -> 'stored_errors' not in ('"retry_same"', '"new_key"') then
        return 'stored_errors is "retry_same" or "new_key"';
    end if;
    return null;
end $_$;
CREATE FUNCTION anubis.delivery_settings_lookup(value jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
    select case when not is_lookup then 'is {"url": "..."}, a URL that names {order_id}, {id} or {idempotency_key}'
                else 'has a "url" that '
                     || anubis.delivery_settings_url_fault(regexp_replace(value ->> 'url', '[{](order_id|id|idempotency_key)[}]', '1', 'g')) end
      from (select case when jsonb_typeof(value) = 'object' and jsonb_typeof(value -> 'url') = 'string' and value - 'url' = '{}'
                    then value ->> 'url' ~ '^https?://[^[:space:][:cntrl:]]*$' and octet_length(value ->> 'url') <= 8000
                         and value ->> 'url' ~ '[{](order_id|id|idempotency_key)[}]'
                         and regexp_replace(value ->> 'url', '[{](order_id|id|idempotency_key)[}]', '', 'g') !~ '[{}]'
                    else false end as is_lookup) l
$_$;
CREATE FUNCTION anubis.delivery_settings_members_fault(value jsonb, skip text, kinds jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    with names as (select string_agg(format('"%s"', k), ', ') as all_names from jsonb_object_keys(kinds) k),
    faults as (
      select 1 as n, format('has a key that is not known here; known are %s', coalesce(all_names, 'none but "type"')) as words
        from names, jsonb_object_keys(value) k where k <> skip and not kinds ? k
      union all
      select 2, format('lacks "%s"', k) from jsonb_each_text(kinds) e(k, kind) where kind not like '?%' and not value ? k
      union all
      select 3, format('has a "%s" that %s', k, fault)
        from jsonb_each_text(kinds) e(k, kind), anubis.delivery_settings_text_fault(value -> k, ltrim(kind, '?')) fault
       where value ? k and fault is not null)
    select words from faults order by n, words limit 1 $$;
CREATE FUNCTION anubis.delivery_settings_on_ambiguous(value jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ select 'is "retry" or "hold"' where value not in ('"retry"', '"hold"') $$;
CREATE FUNCTION anubis.delivery_settings_outcomes(value jsonb) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    rule jsonb;
    number integer;
    words text;
begin
    if jsonb_typeof(value) <> 'array' then
        return 'is a list of rules';
    elsif jsonb_array_length(value) > 100 then
        return 'has more than 100 rules';
    end if;
    for rule, number in select r.value, r.ordinality from jsonb_array_elements(value) with ordinality r loop
        words := anubis.delivery_settings_rule(rule);
        if words is not null then
            return format('rule %s: %s', number, words);
        end if;
    end loop;
    return null;
end $$;
CREATE FUNCTION anubis.delivery_settings_proxy(value jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
    select coalesce(anubis.delivery_settings_text_fault(value, 'secret'),
        case when t ~ '^credential:' then null
             when t ~ '@' then 'holds a user name or password: such a URL belongs into a credential, "credential:NAME"'
             when t !~ '^(http|socks5h?)://([A-Za-z0-9_.-]+|[[][0-9A-Fa-f:.]+[]])(:[0-9]{1,5})?/?$'
             then 'must be a URL such as http://proxy.example:3128 (or socks5, socks5h)' end)
      from (select value #>> '{}' as t) x $_$;
CREATE FUNCTION anubis.delivery_settings_rule(rule jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    statuses jsonb;
    name text;
begin
    if jsonb_typeof(rule) <> 'object' then
        return 'a rule is an object such as {"status": 400, "then": "retry"}';
    elsif exists (select from jsonb_object_keys(rule) k
                   where k not in ('status', 'contains', 'content_type', 'field', 'is', 'not', 'then')) then
        return 'a rule has status, contains, field with is or not, content_type, and then';
    end if;
    if rule ? 'status' then
        statuses := case jsonb_typeof(rule -> 'status') when 'array' then rule -> 'status' else jsonb_build_array(rule -> 'status') end;
        if jsonb_array_length(statuses) not between 1 and 50
           or exists (select from jsonb_array_elements(statuses) s
                       where case jsonb_typeof(s) when 'number' then s::text !~ '^[2-5][0-9]{2}$'
                                                  when 'string' then s::text !~ '^"[2-5]xx"$' else true end) then
            return 'status is a number from 200 to 599, a class from "2xx" to "5xx", or a list of at most 50 of both';
        end if;
    end if;
    foreach name in array '{contains,content_type}'::text[] loop
        if rule ? name and (jsonb_typeof(rule -> name) <> 'string' or octet_length((rule -> name)::text) not between 3 and 1000) then
            return format('%s is a text of 1 to 1000 bytes', name);
        end if;
    end loop;
    if rule ->> 'content_type' ~ '[; A-Z]' then
        return 'content_type is a media type in lower case and without parameters, such as "text/html"';
    elsif rule ? 'field' and (jsonb_typeof(rule -> 'field') <> 'string' or octet_length((rule -> 'field')::text) > 1000
                              or rule ->> 'field' !~ '^(/([^~]|~[01])*)?$') then
        return 'field is a JSON pointer such as "/status/code"';
    elsif rule ? 'is' and rule ? 'not' then
        return 'a rule has "is" or "not", one of them';
    end if;
    foreach name in array '{is,not}'::text[] loop
        if jsonb_typeof(rule -> name) in ('array', 'object') or octet_length((rule -> name)::text) > 1000 then
            return '"is" and "not" take a text, a number, true, false or null';
        end if;
    end loop;
    if rule ? 'then' and (rule -> 'then' not in ('"sent"', '"failed"', '"retry"', '"hold"')) then
        return 'then is "sent", "failed", "retry" or "hold"';
    elsif not rule ? 'then' then
        return 'then is missing';
    elsif rule ? 'field' <> (rule ? 'is' or rule ? 'not') then
        return 'field goes with is or not';
    elsif not rule ?| '{status,contains,field,content_type}' then
        return 'it would match every answer: it needs a status, contains, field or content_type';
    end if;
    return null;
end $_$;
CREATE FUNCTION anubis.delivery_settings_signing_secret(value jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
    select coalesce(fault, case when t !~ '^credential:' and (count not between 1 and 2 or not good)
                                then 'must be "whsec_" and 24 to 64 bytes in base64, or two such separated by a blank, the newer first' end)
      from anubis.delivery_settings_text_fault(value, 'secret') fault, (select value #>> '{}' as t) x,
           lateral (select count(*) as count, bool_and(word ~ '^whsec_([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$'
                           and length(word) - 6 <= 88 and (length(word) - 6) / 4 * 3 - (length(word) - length(rtrim(word, '='))) between 24 and 64) as good
                      from regexp_split_to_table(btrim(t, ' '), ' +') word) words $_$;
CREATE FUNCTION anubis.delivery_settings_text_fault(value jsonb, kind text) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
    select case when jsonb_typeof(value) is distinct from 'string' then 'must be a string'
                when t = '' then 'is empty'
                when kind <> 'plain' and t ~ '^(file|env):'
                    then 'cannot be read from a file or from the environment: it is the text itself, or "credential:NAME"'
                when kind <> 'plain' and t ~ '^credential:' and t !~ '^credential:[!-.0-~]{1,255}$'
                    then 'has no name of a credential after "credential:": NAME is the one of LoadCredential=NAME:/path in the daemon''s unit'
                when kind <> 'pem' and t ~ '[[:cntrl:]]' then 'holds control characters, perhaps the end of a line' end
      from (select value #>> '{}' as t) x $_$;
CREATE FUNCTION anubis.delivery_settings_tls(value jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select case when jsonb_typeof(value) <> 'object' then 'must be an object such as {"min_version": "1.0", "legacy_renegotiation": true}'
                when value - '{min_version,legacy_renegotiation}'::text[] <> '{}'
                then 'has a key that is not known; known are "min_version" and "legacy_renegotiation"'
                when value ? 'min_version' and value -> 'min_version' not in ('"1.0"', '"1.1"', '"1.2"', '"1.3"')
                then 'has a "min_version" that must be the text 1.0, 1.1, 1.2 or 1.3'
                when value ? 'legacy_renegotiation' and jsonb_typeof(value -> 'legacy_renegotiation') <> 'boolean'
                then 'has a "legacy_renegotiation" that must be true or false' end $$;
CREATE FUNCTION anubis.delivery_settings_url_fault(url text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    authority text := substring(url from '^[Hh][Tt][Tt][Pp][Ss]?://([^/?#]*)');
    host text := substring(authority from '^([[][^]]*[]]|[^:]*)');
    port text := substring(authority from length(host) + 1);
    name text := regexp_replace(host, '[.]$', '');
begin
    if octet_length(url) > 8000 then
        return 'is longer than 8000 bytes';
    elsif authority is null then
        return 'is no http or https URL';
    elsif url ~ '[[:space:][:cntrl:]]' then
        return 'holds a space or a control character';
    elsif authority ~ '@' then
        return 'holds a user name or a password';
    elsif host = '' then
        return 'names no host';
    elsif host ~ E'[^\x01-\x7f]' then
        return format('names the host "%s", which is not in ASCII', host);
    elsif host like '[%' then
        if host !~ '^[[][0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*[]]$' then
            return format('names the host "%s", which is no IPv6 address', host);
        end if;
    elsif host !~ '^[A-Za-z0-9_.-]+$' then
        return format('names the host "%s", which holds a character that no host name has', host);
    elsif name ~ '^[.]|[.][.]|[.]$|^$' or name ~ '[^.]{64}' then
        return format('names the host "%s", of which a part is empty or longer than 63 characters', host);
    elsif length(name) > 253 then
        return 'names a host of more than 253 characters';
    end if;
    if port <> '' and (port !~ '^:[0-9]{1,5}$' or substr(port, 2)::integer not between 1 and 65535) then
        return format('has "%s" behind its host; a port is a number from 1 to 65535', port);
    end if;
    return null;
end $_$;
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
CREATE FUNCTION anubis.erased_decision(decided_by text) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
    select case when decided_by like 'operator %' then regexp_replace(decided_by, ':.*$', '') else decided_by end
$_$;
CREATE FUNCTION anubis.event_time(instant timestamp with time zone) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
    select case when instant is not null then
               to_char(least(greatest(instant, '0001-01-01 00:00:00+00'), '9999-12-31 23:59:59.999999+00') at time zone 'UTC',
                       'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') end
$$;
CREATE FUNCTION anubis.histogram_add(index1 smallint[], count1 bigint[], index2 smallint[], count2 bigint[]) RETURNS TABLE(indexes smallint[], counts bigint[])
    LANGUAGE sql IMMUTABLE ROWS 1 PARALLEL SAFE
    AS $$
    select coalesce(array_agg(i order by i), '{}'), coalesce(array_agg(n order by i), '{}')
      from (select x.i, sum(x.n)::bigint as n
              from (select * from unnest(index1, count1) union all select * from unnest(index2, count2)) x (i, n)
             group by 1 having sum(x.n) <> 0) y
$$;
CREATE FUNCTION anubis.histogram_ms(index smallint[], counts bigint[], share numeric) RETURNS numeric
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    select round((case min(i) when 0 then 0 else 2 * power(2::double precision, min(i) / 32.0::double precision)
                                                 / (1 + power(2::double precision, 1 / 32.0::double precision)) / 1000 end)::numeric, 3)
      from (select i, sum(n) over (order by i) as up_to, sum(n) over () as total from unnest(index, counts) as u (i, n)) x
     where up_to >= ceil(total * share)
$$;
CREATE FUNCTION anubis.installation_audit_kept() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    name uuid := (select namespace from anubis.installation);
    words text;
    kept bigint;
begin
    if anubis.ledger_is_foreign() then
        name := coalesce((select split_part(c.note, E'\n', 2)::uuid from anubis.audit_checkpoints c order by c.id desc limit 1), name);
    end if;
    select format(E'anubisd audit checkpoint 1\n%s\n', name)
           || string_agg(format(E'%s %s %s %s\n', t.topic, t.partition, t.size, encode(anubis.installation_audit_root(t.roots), 'hex')), ''
                         order by t.topic, t.partition)
      into words from anubis.audit_trees t where t.size > 0;
    if words is null then
        return;
    end if;
    select c.id into kept from anubis.audit_checkpoints c where starts_with(c.note, words) order by c.id desc limit 1;
    if kept is null then
        insert into anubis.audit_checkpoints (note, published_at) values (words, now()) returning id into kept;
    end if;
    insert into anubis.audit_past (tree, leaves, installation, checkpoint)
    select t.id, t.size, name, kept from anubis.audit_trees t where t.size > 0 order by t.id;
end $$;
CREATE FUNCTION anubis.installation_audit_root(roots bytea) RETURNS bytea
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    root bytea := substr(roots, length(roots) - 31, 32);
begin
    for place in reverse length(roots) / 32 - 2 .. 0 loop
        root := sha256(E'\\x01'::bytea || substr(roots, place * 32 + 1, 32) || root);
    end loop;
    return root;
end $$;
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
    select i.server <> h.server is true or i.database <> h.database or i.tables <> h.tables or anubis.ledger_port_differs()
      from anubis.installation i, anubis.installation_here() h
$$;
CREATE FUNCTION anubis.installation_name() RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ select '…'::uuid $$;
CREATE FUNCTION anubis.installation_of_ledger() RETURNS uuid
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select case when anubis.ledger_is_foreign() then (
        select n.name
          from (select replace(e.event_id::text, '-', '') as id from anubis.subscription_events e
                 where e.id > (select i.copied_up_to from anubis.installation i) order by e.id limit 1) first
          join (select i.namespace as name from anubis.installation i
                 union all
                (select split_part(c.note, E'\n', 2)::uuid from anubis.audit_checkpoints c order by c.id desc limit 1)) n
            on anubis.ledger_ids_begin(n.name) = left(first.id, 16)
         limit 1)
      else anubis.installation_name() end
$$;
CREATE FUNCTION anubis.installation_settle(is_copy boolean) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    disabled bigint := 0;
    given uuid := case when is_copy then gen_random_uuid() else anubis.installation_of_ledger() end;
begin
    if given is null then
        raise exception using errcode = 'object_not_in_prerequisite_state', message = anubis.work_refused();
    end if;
    -- Daemons at work know the name that it has, publish under it, and count what has it. Those that wait only look now and then.
    for n in 1..50 loop
        exit when not is_copy or anubis.installation_is_elsewhere()
               or not exists (select from pg_stat_activity where datname = current_database() and application_name like 'anubisd%');
        if n = 50 then
            raise exception using errcode = 'object_in_use', message = 'daemons are at work on this database, which is where it was last used',
                hint = 'To make a copy of it all the same, end them first.';
        end if;
        perform pg_sleep(0.1), pg_stat_clear_snapshot();
    end loop;
    if is_copy then
        perform anubis.installation_audit_kept();
    end if;
    update anubis.installation
       set (server, database, tables) = (select h.server, h.database, h.tables from anubis.installation_here() h),
           namespace = given,
           copied_up_to = case when is_copy then (select last_value from anubis.ledger_id_seq) else copied_up_to end;
    perform setval('anubis.ledger_place_seq', anubis.ledger_place()) where anubis.ledger_port_differs();
    -- The next leader looks whether Kafka is ahead.
    update anubis.relay_state set timeline = -1 where timeline is not null;
    if given <> anubis.installation_name() then
        perform anubis.ledger_name_events();
    end if;
    if is_copy then
        update anubis.integrations set enabled = false where enabled;
        get diagnostics disabled = row_count;
        update anubis.relay_state r
           set gap_first = '{}', gap_last = '{}', gap_horizon = '{}',
               high = least(r.high, (select min(g) - 1 from unnest(r.gap_first) g),
                            (select min(e.id) - 1 from anubis.subscription_events e
                               join (values ('integration'), ('monitoring')) m (model)
                                 on m.model = 'integration' or exists (select from anubis.consumer_offsets o where o.read_model = m.model)
                              where e.event_type is not null and (m.model = 'monitoring' or e.event_type <> 'updated')
                                and e.id > coalesce((select max(last_id) from anubis.ledger_partitions
                                                      where name = 'subscription_events_adopted'), 0)
                                and not exists (select from anubis.consumer_bitmaps b
                                                 where b.read_model = m.model and b.event_type = e.event_type
                                                   and b.chunk = e.id / 8192 and get_bit(b.bits, (e.id % 8192)::integer) = 1)));
    end if;
    return disabled;
end $$;
CREATE FUNCTION anubis.integration_begun() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    insert into anubis.integration_runtime (integration_id) values (new.id) on conflict do nothing;
    return null;
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
    problem text := case when new.endpoint_url is not null and new.endpoint_url is distinct from old.endpoint_url
                         then anubis.delivery_settings_url_fault(new.endpoint_url) end;
    again text := case tg_op when 'INSERT' then anubis.integration_drawn_again(new.id::bigint) end;
begin
    if again is not null then
        raise exception using errcode = 'unique_violation',
            message = format('cannot give a new integration the id %s: subscriptions or counts of a former one have it', new.id),
            hint = format('The sequence was set back, as by a restore of this table alone: run "%s", and insert again. The former one comes '
                          'back by an insert that names its id.', again),
            table = 'integrations', constraint = 'integrations_id_is_new';
    end if;
    -- No event could name it.
    if new.id <= 0 and new.id is distinct from old.id then
        raise exception using errcode = 'check_violation', message = format('cannot give an integration the id %s', new.id),
            hint = 'Ids are positive.', table = 'integrations', constraint = 'integrations_id_is_positive';
    end if;
    if problem is not null then
        raise exception using errcode = 'check_violation', message = 'endpoint_url ' || problem,
            hint = case when problem like '%not in ASCII' then 'Write it in its xn-- form (punycode), which "idn2" or any browser shows.'
                        else 'It looks like https://api.example.edu.br/enrolments; credentials go to auth_token or delivery_settings.' end;
    end if;
    -- As the daemon judges it (take_token): what it could not send is refused when it is written. What an adopted row held before keeps
    -- nobody from changing something else.
    if tg_op = 'INSERT' or new.auth_token is distinct from old.auth_token then
        if new.auth_token ~ '^(file|env):' then
            raise exception using errcode = 'check_violation', message = 'auth_token cannot be read from a file or from the environment',
                hint = 'It is the token itself, or "credential:NAME" for one that systemd hands to the daemon.';
        elsif new.auth_token ~ '[[:cntrl:]]' then
            raise exception using errcode = 'check_violation', message = 'auth_token holds control characters, perhaps the end of a line';
        elsif new.auth_token ~ E'[^\x01-\x7f]' then
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
    -- NULL stands for what is not set, as in the other columns of settings.
    new.delivery_settings := coalesce(new.delivery_settings, '{}');
    if new.delivery_settings <> '{}' and new.delivery_settings is distinct from old.delivery_settings then
        perform anubis.delivery_settings_check(new.delivery_settings, old.delivery_settings);
    end if;
    return new;
end $_$;
CREATE FUNCTION anubis.integration_drawn_again(id bigint) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    sequence constant text := pg_get_serial_sequence('anubis.integrations', 'id');
begin
    if sequence is null or anubis.cleaning_allowed() or currval(sequence::regclass) <> id then
        return null;
    end if;
    if exists (select from anubis.subscriptions s
                where s.integration_id = integration_drawn_again.id and s.status in ('pending', 'retry') and s.held_at is null)
       or exists (select from anubis.subscriptions s where s.integration_id = integration_drawn_again.id and s.held_at is not null)
       or exists (select from anubis.integration_moves m where m.integration_id = integration_drawn_again.id)
       or exists (select from anubis.integration_stats_months m where m.integration_id = integration_drawn_again.id) then
        return format('select setval(%L, %s)', sequence,
            greatest(id, (select max(i.id) from anubis.integrations i), (select max(m.integration_id) from anubis.integration_moves m),
                     (select max(s.integration_id) from anubis.subscriptions s where s.status in ('pending', 'retry') and s.held_at is null),
                     (select max(s.integration_id) from anubis.subscriptions s where s.held_at is not null),
                     (select max(m.integration_id) from anubis.integration_stats_months m)));
    end if;
    return null;
exception when object_not_in_prerequisite_state then -- nothing was drawn in this session
    return null;
end $$;
CREATE FUNCTION anubis.integration_filter_check() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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
CREATE FUNCTION anubis.integration_filter_required() RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ select 't'::boolean $$;
CREATE FUNCTION anubis.integration_fingerprint(endpoint_url text, auth_token text, delivery_settings jsonb) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    select hashtextextended(coalesce(endpoint_url, '') || ' ' || coalesce(auth_token, '') || ' ' || coalesce(nullif(delivery_settings, '{}')::text, ''), 0) $$;
CREATE FUNCTION anubis.integration_gone() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if anubis.cleaning_allowed() then
        return null;
    end if;
    -- Whoever moves some now is waited for, as in reference_kept(), which has looked before.
    lock table anubis.subscriptions in share row exclusive mode;
    if exists (select from anubis.integration_moves m where m.integration_id = old.id)
       or exists (select from anubis.integration_stats_months where integration_id = old.id) then
        raise exception using errcode = 'restrict_violation',
            message = format('cannot %s integration %s: its events are counted under its id',
                             case tg_op when 'DELETE' then 'delete' else 'change the id of' end, old.id),
            hint = 'One that must get nothing any more is disabled: enabled = false.', table = 'integrations';
    end if;
    delete from anubis.ledger_baseline where integration_id = old.id and status = '';
    return null;
end $$;
CREATE FUNCTION anubis.integration_mended() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    perform anubis.integration_try_again(new.id);
    return null;
end $$;
CREATE FUNCTION anubis.integration_required() RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ select 't'::boolean $$;
CREATE FUNCTION anubis.integration_try_again(integration bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    waited boolean;
begin
    select backoff_until is not null or circuit_state <> 'closed' into waited
      from anubis.integration_runtime r where r.integration_id = integration for no key update;
    update anubis.integration_runtime r
       set backoff_until = null, backoff_reason = null, refused_in_row = 0,
           (circuit_state, circuit_generation, circuit_failures, circuit_level, circuit_until) =
           (select n.circuit_state, n.circuit_generation, n.circuit_failures, n.circuit_level, n.circuit_until
              from anubis.circuit_next(r, 'mended', null, null, clock_timestamp(), null, null, null, null) n)
     where r.integration_id = integration;
    if waited then
        update anubis.subscriptions s set next_attempt_at = null
         where s.ctid = any (array(select w.ctid from anubis.subscriptions w
                                    where w.integration_id = integration and w.status = 'retry' and w.held_at is null
                                    order by w.integration_id, anubis.subscription_due(w.next_attempt_at, w.scheduled_to), w.id
                                    limit 100 for no key update skip locked));
        perform anubis.doorbell_ring();
    end if;
end $$;
CREATE FUNCTION anubis.key_partition(subscription bigint, partitions integer) RETURNS integer
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    steps constant bigint[] := '{0,498536548,997073096,651767980,1994146192,1802195444,1303535960,1342533948,3988292384,4027552580,3604390888,
                                3412177804,2607071920,2262029012,2685067896,3183342108}';
    crc bigint := 4294967295;
    key bytea := convert_to(subscription::text, 'UTF8');
begin
    for i in 0 .. length(key) - 1 loop
        crc := crc # get_byte(key, i);
        crc := (crc >> 4) # steps[(crc & 15) + 1];
        crc := (crc >> 4) # steps[(crc & 15) + 1];
    end loop;
    return (crc # 4294967295) % partitions;
end $$;
CREATE FUNCTION anubis.latency_index(usec bigint) RETURNS smallint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    select case when usec <= 1 then 0
                when usec >= 35184372088832 then 1440
                else 32 * (width_bucket(usec,
                    '{1,2,4,8,16,32,64,128,256,512,1024,2048,4096,8192,16384,32768,65536,131072,262144,524288,1048576,2097152,4194304,
                    8388608,16777216,33554432,67108864,134217728,268435456,536870912,1073741824,2147483648,4294967296,8589934592,
                    17179869184,34359738368,68719476736,137438953472,274877906944,549755813888,1099511627776,2199023255552,
                    4398046511104,8796093022208,17592186044416,35184372088832}'::bigint[]) - 1)
                     + width_bucket(usec << (46 - width_bucket(usec,
                    '{1,2,4,8,16,32,64,128,256,512,1024,2048,4096,8192,16384,32768,65536,131072,262144,524288,1048576,2097152,4194304,
                    8388608,16777216,33554432,67108864,134217728,268435456,536870912,1073741824,2147483648,4294967296,8589934592,
                    17179869184,34359738368,68719476736,137438953472,274877906944,549755813888,1099511627776,2199023255552,
                    4398046511104,8796093022208,17592186044416,35184372088832}'::bigint[])),
                    '{35184372088833,35954809514763,36742117323539,37546664928439,38368829831843,39208997802356,40067563055813,
                    40944928440254,41841505624943,42757715293524,43693987341417,44650761077523,45628485430357,46627619158688,
                    47648631066793,48692000224428,49758216191608,50847779248319,51961200629252,53099002763677,54261719520578,
                    55449896459148,56664091084770,57904873110603,59172824724904,60468540864189,61792629492390,63145711886113,
                    64528422926154,65941411395383,67385340283170,68860887096459}'::bigint[]) end::smallint
$$;
CREATE FUNCTION anubis.lead_lock(kind text, OUT given boolean, OUT ended integer, OUT hidden boolean, OUT stranger text) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    holder record;
begin
    given := pg_try_advisory_lock(anubis.lock_key(kind));
    hidden := false;
    if given then
        return;
    end if;
    select * into holder from anubis.lock_holder(kind);
    stranger := holder.stranger;
    hidden := holder.held is true and stranger is null and coalesce(holder.state, 'disabled') = 'disabled';
    if holder.state = 'idle' and holder.state_change < clock_timestamp() - interval '60 s' and pg_terminate_backend(holder.pid) then
        ended := holder.pid;
    end if;
exception when insufficient_privilege then
    hidden := stranger is null;
end $$;
CREATE FUNCTION anubis.ledger_amiss() RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    here constant oid := 'anubis'::regnamespace;
    ledger constant oid := (select oid from pg_class where relname = 'subscription_events' and relnamespace = here and relkind = 'p');
    elsewhere text;
begin
    if ledger is not null then
        return (select string_agg(
                    case when p.name is null
                              then format('its partition "%s" is not in the table "ledger_partitions"; run "anubisctl migrate", which adds it', a.relname)
                         when a.relname is not null
                              then format('its partition "%1$s" is unlogged, and empty after a crash; run "alter table anubis.%1$I set logged"', p.name)
                         when to_regclass('anubis.' || quote_ident(p.name)) is not null
                              then format('its partition "%s" is detached; run "anubisctl migrate", which attaches it', p.name)
                         when p.named is not null
                              then format('its partition "%1$s" is named %2$s now; run "alter table anubis.%2$I rename to %1$I"', p.name, p.named)
                         else format('its partition "%1$s" is missing; bring it back from a dump and run "anubisctl migrate", or give its events '
                                     'up by "delete from anubis.ledger_partitions where name = %1$L"', p.name) end, '; ' order by p.name, a.relname)
                  from (select l.name, case when to_regclass('anubis.' || quote_ident(l.name)) is null
                                            then anubis.ledger_part_named(l.first_id, l.last_id) end as named
                          from anubis.ledger_partitions l
                        union all values ('subscription_events_default', null)) p
                  full join (select c.relname::text, c.relpersistence from pg_inherits i join pg_class c on c.oid = i.inhrelid
                              where i.inhparent = ledger) a on a.relname = p.name
                 where (p.name is null or a.relname is null or a.relpersistence <> 'p')
                   and (p.name is not null or not exists (
                            select from anubis.ledger_partitions l
                             where to_regclass('anubis.' || quote_ident(l.name)) is null
                               and anubis.ledger_part_named(l.first_id, l.last_id) = a.relname)));
    end if;
    elsewhere := anubis.table_elsewhere('subscription_events')::text;
    return case when elsewhere is null then 'it is not there; bring it back from a dump'
                else format('it is named %s now; run "anubisctl migrate", which puts it back', elsewhere) end;
end $_$;
CREATE FUNCTION anubis.ledger_end(last_id bigint) RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
    select format('the ids of the ledger come to their end: almost none is left after %s; run "alter sequence %s maxvalue %s"', $1,
                  'anubis.ledger_id_seq', case when seqmax < 9007199254740991 then 9007199254740991 else 4611686018427387903 end)
      from pg_sequence where seqrelid = 'anubis.ledger_id_seq'::regclass and seqmax - $1 < 1000000
$_$;
CREATE FUNCTION anubis.ledger_erases(old_row jsonb, new_row jsonb) RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select exists (select from anubis.subscriptions s where s.id = (old_row ->> 'subscription_id')::bigint and s.erased_at is not null)
       and old_row - n.names = new_row - n.names
       and new_row ->> 'cpf' is null and new_row ->> 'request' is null and new_row ->> 'response' is null
       and new_row ->> 'error_message' is not distinct from case when old_row ->> 'error_message' is not null then 'erased' end
       and new_row ->> 'decided_by' is not distinct from anubis.erased_decision(old_row ->> 'decided_by')
      from (values ('{cpf,request,response,error_message,decided_by}'::text[])) n (names)
$$;
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
    -- The next id to be given out.
    next_id bigint := (select last_value + is_called::integer from anubis.ledger_id_seq);
    newest anubis.ledger_partitions;
    first_id bigint;
    made integer := 0;
    partition_name text;
begin
    perform pg_advisory_xact_lock(anubis.lock_key('ledger'));
    width := greatest(1 << 10, least(width, 1 << 22));
    loop
        select * into newest from anubis.ledger_partitions p order by p.last_id desc limit 1;
        exit when (select count(*) from anubis.ledger_partitions p where p.first_id > next_id) >= 2;
        -- Ids that the default partition took stay there; the next partition begins after them.
        first_id := greatest(coalesce(newest.last_id + 1, 1),
                             (select coalesce(max(id) + 1, 1) from anubis.subscription_events_default));
        -- And so do those that are being drawn now, should the sequence have run (or been set) past the last partition.
        if first_id > coalesce(newest.last_id + 1, 1) or next_id > coalesce(newest.last_id, 0) + 1 then
            first_id := greatest(first_id, next_id + 100000);
        end if;
        if newest.last_id - newest.first_id + 1 >= width and newest.created_at > now() - interval '1 day' and made = 0 and
           exists (select from anubis.ledger_partitions p where p.last_id < next_id and p.created_at > now() - interval '1 day') then
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
CREATE FUNCTION anubis.ledger_fold(part text, beginning bigint, ending bigint) RETURNS bigint
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    with chunks as materialized (
      select b.event_type, b.chunk, bit_or(('x' || encode(b.bits, 'hex'))::bit(8192)) as bits
        from anubis.consumer_bitmaps b
       where b.read_model = 'integration' and b.event_type in ('sent', 'failed') and b.chunk between beginning / 8192 and ending / 8192
       group by 1, 2
    ), counted as materialized (
      select e.from_status::text as from_status, e.to_status::text as to_status, e.integration_id::bigint as integration_id,
             case when c.bits is not null and get_bit(c.bits, ((e.id % 8192)::int # 7)) = 1 then e.event_type::text end as counted,
             count(*) as n, min(anubis.as_instant(e.created_at)) as first_at, max(anubis.as_instant(e.created_at)) as last_at
        from anubis.subscription_events e
        left join chunks c on c.event_type = e.event_type::text and c.chunk = e.id / 8192
       where e.id between beginning and ending and e.event_type is not null group by 1, 2, 3, 4
    ), states as (
      insert into anubis.ledger_baseline as b (status, subscriptions)
      select x.status, sum(x.n) from (select to_status as status, n from counted union all select from_status, -n from counted) x
       where x.status is not null group by 1 having sum(x.n) <> 0 order by 1
          on conflict (integration_id, status) do update set subscriptions = b.subscriptions + excluded.subscriptions
    ), counts as (
      insert into anubis.ledger_baseline as b (integration_id, sent, failed)
      select x.integration_id, coalesce(sum(x.n) filter (where x.counted = 'sent'), 0), coalesce(sum(x.n) filter (where x.counted = 'failed'), 0)
        from counted x where x.counted is not null and x.integration_id is not null group by 1 order by 1
          on conflict (integration_id, status) do update set sent = b.sent + excluded.sent, failed = b.failed + excluded.failed
    )
    insert into anubis.ledger_dropped (name, first_id, last_id, events, first_at, last_at)
    select part, beginning, ending, coalesce(sum(n), 0), min(first_at), max(last_at) from counted
    returning events
$$;
CREATE FUNCTION anubis.ledger_go_on() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    here bigint := anubis.ledger_place();
begin
    while (select not is_called or last_value >> 16 <> here >> 16 from anubis.ledger_place_seq) loop
        if not pg_try_advisory_xact_lock(anubis.lock_key('place')) then
            perform pg_sleep(0.001);
        else
            if (select is_called and last_value >> 16 <> here >> 16 from anubis.ledger_place_seq) then
                perform anubis.ledger_leap(0);
            end if;
            perform setval('anubis.ledger_place_seq', here);
        end if;
    end loop;
    -- And up to which id subscriptions had one: see subscription_next().
    perform set_config(anubis.doorbell_channel() || '.place',
                       coalesce((select subscriptions_up_to from anubis.installation), 0)::text, false);
end $$;
CREATE FUNCTION anubis.ledger_ids(first_id bigint, last_id bigint) RETURNS bigint
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
    select greatest($2 - $1 + 1 - coalesce((select sum(least($2, l.last_id) - greatest($1, l.first_id) + 1) from anubis.ledger_leaps l
                                             where l.first_id <= $2 and l.last_id >= $1), 0), 0)::bigint
$_$;
CREATE FUNCTION anubis.ledger_ids_begin(name uuid) RETURNS text
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select overlay(left(encode(uuid_send(name), 'hex'), 16) placing '8' from 13 for 1) $$;
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
CREATE FUNCTION anubis.ledger_is_foreign() RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select substr(e.event_id, 15, 1) = '8' and right(e.event_id, 17) = right(e.ours, 17) and e.event_id <> e.ours
      from (select e.event_id::text, anubis.ledger_event_id(e.id)::text as ours from anubis.subscription_events e
             where e.id > (select i.copied_up_to from anubis.installation i) order by e.id limit 1) e
$$;
CREATE FUNCTION anubis.ledger_leap(beyond bigint) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    step constant bigint := 10000000000;
    drawn bigint;
    target bigint;
    at_most bigint;
begin
    perform pg_advisory_xact_lock(anubis.lock_key('place'));
    drawn := (select last_value from anubis.ledger_id_seq);
    at_most := (select seqmax from pg_sequence where seqrelid = 'anubis.ledger_id_seq'::regclass);
    target := (greatest(drawn, beyond) / step + 2) * step;
    if target > at_most - step then
        target := greatest(drawn, beyond) + (at_most - greatest(drawn, beyond)) / 2;
        if anubis.ledger_end(target) is not null then
            raise exception using errcode = 'sequence_generator_limit_exceeded', message = anubis.ledger_end(target);
        end if;
    end if;
    insert into anubis.ledger_leaps (first_id, last_id) values (drawn + 1, target);
    return setval('anubis.ledger_id_seq', target) + 1;
end $$;
CREATE FUNCTION anubis.ledger_letters(beginning bigint, ending bigint, OUT letter bigint, OUT read_model text, OUT event bigint, OUT event_type text, OUT is_replayed boolean, OUT is_open boolean) RETURNS SETOF record
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
    select d.id, d.read_model, d.sequence, e.type, d.replayed_at is not null, d.replayed_at is null and d.discarded_at is null
      from (select l.*, case when l.headers ->> 'sequence' ~ '^[0-9]{1,18}$' then (l.headers ->> 'sequence')::bigint end as sequence
              from anubis.dead_letters l) d
     cross join lateral (select e.event_type::text as type from anubis.subscription_events e
                          where e.id = d.sequence and e.event_id::text = d.headers ->> 'event_id'
                            and e.event_type::text = substring(d.topic from '[a-z]+$') offset 0) e
     where d.sequence between beginning and ending
$_$;
CREATE FUNCTION anubis.ledger_name_events() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    whole uuid;
    beginning text;
begin
    select n.namespace, anubis.ledger_ids_begin(n.namespace) into strict whole, beginning
      from anubis.installation n;
    execute format('create or replace function anubis.installation_name() returns uuid
        language sql immutable parallel safe as $$ select %L::uuid $$', whole);
    execute format('create or replace function anubis.ledger_event_id(ledger_id bigint) returns uuid
        language sql immutable parallel safe as $$
            select pg_catalog.textcat(%L, pg_catalog.to_hex(
                       ledger_id operator(pg_catalog.|) ''-9223372036854775808''::pg_catalog.int8))::pg_catalog.uuid $$', beginning);
end $_$;
CREATE FUNCTION anubis.ledger_needed(beginning bigint, ending bigint, readers text[]) RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    found bigint;
begin
    if (select r.high < ending or exists (select from unnest(r.gap_first, r.gap_last) g (first, last)
                                            where g.first <= ending and g.last >= beginning)
          from anubis.relay_state r) is not false
       or exists (select from anubis.relay_holes h, lateral (select from anubis.subscription_events e
                                                                   where e.id between greatest(h.first_id, beginning) and least(h.last_id, ending)
                                                                   limit 1) e
                   where h.first_id <= ending and h.last_id >= beginning) then
        return 'the relay has not published all of its events';
    end if;
    select count(*) into found from anubis.ledger_letters(beginning, ending) l where l.is_open;
    if found > 0 then
        return format('events of it are dead letters that nobody has replayed or discarded, %s in all', found);
    end if;
    if 'monitoring' = any (readers) and anubis.ledger_unsealed(ending) then
        return 'no checkpoint of the audit log has all of its events';
    end if;
    return null;
end $$;
CREATE FUNCTION anubis.ledger_next_id() RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    perform pg_current_xact_id();
    perform anubis.ledger_go_on();
    return nextval('anubis.ledger_id_seq'::regclass);
end $$;
CREATE FUNCTION anubis.ledger_part_named(first_id bigint, last_id bigint) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = to_regclass('anubis.subscription_events')
       and pg_get_expr(c.relpartbound, c.oid) ~ format('FROM [(](MINVALUE|''?%s''?)[)] TO [(]''?%s''?[)]', first_id, last_id + 1) limit 1
$$;
CREATE FUNCTION anubis.ledger_place() RETURNS bigint
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    server bigint;
    timeline text;
begin
    begin
        server := (select system_identifier from pg_control_system());
        timeline := left(pg_walfile_name(pg_current_wal_insert_lsn()), 8);
    exception when others then
        null;
    end;
    return hashtextextended(concat_ws(' ', server, timeline, (select oid from pg_database where datname = current_database()),
                                      'anubis.ledger_id_seq'::regclass::oid), 0) >> 16 << 16
           | case when timeline is null then 0 else current_setting('port')::bigint end;
end $$;
CREATE FUNCTION anubis.ledger_port_differs() RETURNS boolean
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select p.is_called and p.last_value >> 16 = h.place >> 16 and p.last_value <> h.place
      from anubis.ledger_place_seq p, anubis.ledger_place() h (place)
$$;
CREATE FUNCTION anubis.ledger_refuse() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if tg_op <> 'UPDATE' and anubis.cleaning_allowed() then
        return old;
    elsif tg_op <> 'TRUNCATE' and exists (select from anubis.ledger_leaps l
                                           where l.created_at = now() and old.id between l.first_id and l.last_id) then
        return case tg_op when 'UPDATE' then new else old end;
    elsif tg_op = 'UPDATE' and anubis.ledger_erases(to_jsonb(old), to_jsonb(new)) then
        return new;
    end if;
    raise exception using errcode = 'restrict_violation',
        message = format('cannot %s rows of subscription_events: the ledger is append-only', lower(tg_op)),
        hint = 'A subscription with events cannot be destroyed either; one that must not be sent is set to status "failed".';
end $$;
CREATE FUNCTION anubis.ledger_renumber(published bigint, newest bigint, since timestamp with time zone, OUT next_id bigint, OUT moved bigint, OUT old_first bigint, OUT new_first bigint) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $$
declare
    at_most constant bigint := 100000;
begin
    -- Whoever has drawn an id has committed its event then, and nobody draws one meanwhile.
    lock table anubis.subscription_events in share row exclusive mode;
    select min(e.id), coalesce(max(e.id) - min(e.id) + 1, 0) into old_first, moved from anubis.subscription_events e
     where e.id > published and anubis.as_instant(e.created_at) > since;
    next_id := anubis.ledger_leap(newest);
    if moved not between 1 and at_most then
        moved := 0;
        return;
    end if;
    new_first := next_id;
    update anubis.ledger_leaps set first_id = old_first where last_id = new_first - 1;
    update anubis.subscription_events e
       set id = e.id - old_first + new_first, event_id = anubis.ledger_event_id(e.id - old_first + new_first)
     where e.id between old_first and old_first + moved - 1;
    next_id := setval('anubis.ledger_id_seq', new_first + moved - 1) + 1;
end $$;
CREATE FUNCTION anubis.ledger_retire(age interval, readers text[], checked bigint, batch bigint, OUT part text, OUT checked_to bigint, OUT needed text, OUT events bigint, OUT first_at timestamp with time zone, OUT last_at timestamp with time zone) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '100ms'
    AS $_$
declare
    oldest anubis.ledger_partitions;
    adopted boolean;
    beginning bigint;
    ending bigint;
begin
    select p.* into oldest from anubis.ledger_partitions p order by p.first_id limit 1;
    adopted := oldest.name = 'subscription_events_adopted';
    -- The one that is being filled stays, whatever its age.
    if oldest.name is null or oldest.last_id >= (select s.last_value from anubis.ledger_id_seq s) then
        return;
    elsif not pg_try_advisory_xact_lock(anubis.lock_key('ledger')) then
        raise exception using errcode = 'lock_not_available', message = 'another session works on the partitions of the ledger';
    end if;
    last_at := (select anubis.as_instant(e.created_at) from anubis.subscription_events e
                 where e.id between oldest.first_id and oldest.last_id order by e.id desc limit 1);
    if coalesce(last_at, oldest.created_at) >= now() - age or adopted and oldest.created_at >= now() - age then
        return;
    end if;
    ending := oldest.last_id;
    if not adopted then
        beginning := greatest(oldest.first_id, checked + 1);
        ending := least(oldest.last_id, beginning + batch - 1);
        -- The last one need not be the latest.
        if (select max(anubis.as_instant(e.created_at)) >= now() - age from anubis.subscription_events e
             where e.id between beginning and ending) then
            return;
        end if;
        readers := array(select r from unnest(readers) r union select o.read_model from anubis.consumer_offsets o);
        needed := coalesce(anubis.ledger_needed(oldest.first_id, oldest.last_id, readers),
                           (select string_agg(format('the group "%s" has not handled %s, the first is %s', u.reader,
                                                     case when u.events = 1 then 'one of its events' else u.events || ' of its events' end, u.event),
                                              '; ' order by u.reader)
                              from anubis.ledger_unhandled(beginning, ending, readers) u));
    end if;
    part := oldest.name;
    if needed is not null then
        return;
    elsif ending < oldest.last_id then
        checked_to := ending;
        return;
    end if;
    if adopted then
        insert into anubis.ledger_dropped (name, first_id, last_id, events, last_at) values (part, oldest.first_id, oldest.last_id, 0, last_at);
        events := 0;
    else
        events := anubis.ledger_fold(part, oldest.first_id, oldest.last_id);
    end if;
    select d.first_at, d.last_at into first_at, last_at from anubis.ledger_dropped d where d.name = part;
    delete from anubis.ledger_partitions p where p.name = part;
    delete from anubis.relay_holes h where h.last_id <= oldest.last_id;
    execute format('alter table anubis.subscription_events detach partition anubis.%I', part);
    execute format('drop table anubis.%I', part);
    -- Its ids are free and marked as counted: who set the sequence back among them would write events that nobody publishes or counts.
    execute format('alter sequence anubis.ledger_id_seq minvalue %1$s start with %1$s', oldest.last_id + 1);
end $_$;
CREATE FUNCTION anubis.ledger_unhandled(beginning bigint, ending bigint, readers text[], OUT reader text, OUT events bigint, OUT event bigint) RETURNS SETOF record
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    with chunks as materialized (
      select b.read_model, b.event_type, b.chunk, bit_or(('x' || encode(b.bits, 'hex'))::bit(8192)) as bits
        from anubis.consumer_bitmaps b
       where b.read_model = any (readers) and b.chunk between beginning / 8192 and ending / 8192 group by 1, 2, 3
    ), dead as materialized (
      select distinct l.read_model, l.event as id from anubis.ledger_letters(beginning, ending) l
    )
    select w.read_model, count(*), min(e.id)
      from anubis.subscription_events e
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
CREATE FUNCTION anubis.ledger_unsealed(ending bigint) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
    with sealed as (
      select m[1] as topic, m[2]::integer as partition, m[3]::bigint as size
        from (select note from anubis.audit_checkpoints order by id desc limit 1) c,
             regexp_matches(c.note, '^([^[:space:]]+) ([0-9]{1,9}) ([0-9]{1,18}) [0-9a-f]{64}$', 'gn') m)
    select exists (select from anubis.audit_trees t left join sealed s on s.topic = t.topic and s.partition = t.partition
                    cross join lateral (select from anubis.audit_log l
                                         where l.tree = t.id and l.leaf >= coalesce(s.size, 0) and l.sequence <= ending limit 1) l)
$_$;
CREATE FUNCTION anubis.ledger_wal_position() RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    perform pg_current_wal_flush_lsn();
    return pg_current_wal_insert_lsn() - '0/0'::pg_lsn;
exception when insufficient_privilege or feature_not_supported or object_not_in_prerequisite_state or undefined_function then
    return null;
end $$;
CREATE FUNCTION anubis.letter_headers_kept(headers jsonb) RETURNS jsonb
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select coalesce(jsonb_object_agg(h.key, h.value), '{}') from jsonb_each(case when jsonb_typeof(headers) = 'object' then headers end) h
     where h.key = any ('{event_id,event_type,integration_id,sequence,installation}'::text[])
$$;
CREATE FUNCTION anubis.letter_names(key bytea, value bytea) RETURNS SETOF text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select ltrim(btrim(encode(key, 'escape'), E' "\'+\t\r\n'), '0')
    union all
    select m[1] from regexp_matches(anubis.plain_digits(encode(value, 'escape')),
                                    E'"(?:subscription_id|subscription"\\s*:\\s*\\{[^{}]*?"id)"\\s*:\\s*"?\\s*0*([0-9]+)', 'gi') m
$$;
CREATE FUNCTION anubis.letters_erase(ids bigint[], cpfs text[]) RETURNS SETOF bigint
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
    -- However it is written: up to three signs between digits (\302 is one byte, as encode() writes it), and as a number without the zeros
    -- that it begins with.
    with written as (
      select E'(^|[^0-9]|\\\\[0-7]{3})0*' || regexp_replace(ltrim(c.digits, '0'), '(.)', E'([^0-9]|\\\\\\\\[0-7]{3}){0,3}\\1', 'g') || '([^0-9]|$)' as cpf
        from unnest(cpfs) as c (digits) where ltrim(c.digits, '0') <> ''
    ), found as (
      select d.id, (encode(d.key, 'escape') = any (ids::text[])) is true as is_keyed
        from anubis.dead_letters d
       where exists (select from anubis.letter_names(d.key, d.value) n where n = any (ids::text[]))
          or d.headers ->> 'sequence' in (select e.id::text from anubis.subscription_events e where e.subscription_id = any (ids))
          or exists (select from written w where concat_ws(' ', anubis.plain_digits(encode(d.value, 'escape')),
                                                      anubis.plain_digits(encode(d.key, 'escape')),
                                                      anubis.plain_digits(d.headers::text)) ~ w.cpf)
    )
    update anubis.dead_letters d
       set value = null, key = case when f.is_keyed then d.key end, headers = anubis.letter_headers_kept(d.headers),
           discarded_at = case when d.replayed_at is null then coalesce(d.discarded_at, now()) end,
           discard_reason = case when d.replayed_at is null then 'erased' end
      from found f
     where d.id = f.id and (d.value is not null or d.key is not null and not f.is_keyed
                            or d.headers <> anubis.letter_headers_kept(d.headers)
                            or d.replayed_at is null and d.discard_reason is distinct from 'erased')
    returning d.id
$_$;
CREATE FUNCTION anubis.lock_base() RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ select '…'::bigint $$;
CREATE FUNCTION anubis.lock_holder(kind text, OUT held boolean, OUT pid integer, OUT state text, OUT state_change timestamp with time zone, OUT application_name text, OUT stranger text) RETURNS record
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select true, l.pid, a.state, a.state_change, a.application_name,
           case when l.pid is null then 'a prepared transaction, which is no daemon: see pg_prepared_xacts'
                when not starts_with(coalesce(a.application_name, ''), 'anubisd ') then
                    format('session %s of role "%s", named "%s", which is no daemon: run "select pg_terminate_backend(%s)"', l.pid, a.usename,
                           left(a.application_name, 40), l.pid) end
      from pg_locks l left join pg_stat_activity a using (pid)
     where l.locktype = 'advisory' and l.granted and l.objsubid = 1
       and l.database = (select oid from pg_database where datname = current_database())
       and (l.classid::bigint << 32) | l.objid::bigint = anubis.lock_key(kind)
$$;
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
        when 'place' then 6     -- the session that leaves ids out
        when 'alerts' then 7    -- the daemon that looks for alerts and tells of them
        when 'replay' then 8    -- the session that rebuilds read models
        when 'retention' then 9 -- the daemon that lets old things go
        when 'audit' then 10    -- the session that proves the audit log
        when 'alive' then 11    -- all sessions of a daemon, by its name
        else ('no such kind of lock: ' || kind)::bigint end
$$;
CREATE FUNCTION anubis.may_serve(served_by text, served_until timestamp with time zone, instance text, at timestamp with time zone) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    select coalesce(served_by = instance or served_until <= at or served_until > at + interval '1 day', true) $$;
CREATE FUNCTION anubis.plain_digits(words text) RETURNS text
    LANGUAGE sql STABLE
    AS $$
    select case when strpos(words, E'\\u') = 0 and strpos(words, E'\\357\\274') = 0
                     and position(E'\\xefbc'::bytea in convert_to(words, 'UTF8')) = 0 then words
                else regexp_replace(regexp_replace(regexp_replace(regexp_replace(
                         case when position(E'\\xefbc'::bytea in convert_to(words, 'UTF8')) > 0
                              then encode(convert_to(words, 'UTF8'), 'escape') else words end,
                         E'\\\\+u(003|[fF][fF]1)([0-9])', E'\\2', 'g'),
                         E'\\\\357\\\\274\\\\22([0-7])', E'\\1', 'g'), E'\\\\357\\\\274\\\\230', '8', 'g'), E'\\\\357\\\\274\\\\231', '9', 'g') end
$$;
CREATE FUNCTION anubis.rate_next(rate_at timestamp with time zone, rate_by bigint, rate double precision, process bigint, at timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    select case when rate is null then null
                when rate_at is null or rate_at > at + interval '0.4 s' then at
                when rate_by = process then case when rate_at + interval '1 s' / rate <= at + interval '0.4 s'
                                                 then greatest(rate_at + interval '1 s' / rate, at) end
                when rate_at + interval '1 s' / rate + interval '1 s' <= at then at end $$;
CREATE FUNCTION anubis.rate_of(rate_limit double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    select case when $1 > 0 then greatest(least($1, 1000000), 0.000001) end $_$;
CREATE FUNCTION anubis.rate_of(rate_limit integer) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    select case when $1 > 0 then least($1, 1000000)::double precision end $_$;
CREATE FUNCTION anubis.rate_of(rate_limit numeric) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$
    select case when $1 > 0 then greatest(least($1, 1000000), 0.000001)::double precision end $_$;
CREATE FUNCTION anubis.rate_tokens(send_at timestamp with time zone, rate double precision, at timestamp with time zone) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
    select (floor(extract(epoch from at + interval '0.4 s' - send_at)::double precision * rate) + 1)::integer $$;
CREATE FUNCTION anubis.reference_kept() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    name text := case tg_table_name when 'integrations' then 'integration_id' else 'integration_filter_id' end;
    used boolean;
begin
    if anubis.cleaning_allowed() then
        return null;
    end if;
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
                hint = 'One that must get nothing any more is disabled: enabled = false.',
                table = 'subscriptions', constraint = format('subscriptions_%s_fkey', name);
        end if;
    end loop;
    return null;
end $_$;
CREATE FUNCTION anubis.refusals_judged(integration bigint, fingerprint bigint, turn bigint, taken boolean[], taken_usec bigint, reason text, OUT may_fail integer, OUT paused_turn bigint, OUT vain boolean) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    limit_in_row constant integer := 20;
    at timestamptz := clock_timestamp();
    r anubis.integration_runtime;
    was_taken boolean;
begin
    may_fail := 0;
    vain := false;
    -- Locked before its runtime row, as all others lock them that write both: an application that changes settings meets no deadlock.
    perform from anubis.integrations i
      where i.id = integration and anubis.integration_fingerprint(i.endpoint_url, i.auth_token, i.delivery_settings) = fingerprint
        for no key update;
    if not found then
        may_fail := cardinality(taken);
        return;
    end if;
    insert into anubis.integration_runtime (integration_id) values (integration) on conflict do nothing;
    select * into r from anubis.integration_runtime x where x.integration_id = integration for no key update;
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
    update anubis.integration_runtime x
       set refused_in_row = case when paused_turn is null then r.refused_in_row else 0 end, taken_at = r.taken_at,
           refused_turn = coalesce(paused_turn, r.refused_turn)
     where x.integration_id = integration;
    if paused_turn is not null then
        update anubis.integrations i set paused_until = 'infinity', pause_reason = reason, updated_at = anubis.subscription_now(i.updated_at)
         where i.id = integration and (i.paused_until is null or i.paused_until <= now());
        if found then
            update anubis.integration_runtime x set own_pause = reason where x.integration_id = integration;
        end if;
    end if;
end $$;
CREATE FUNCTION anubis.replica_session() RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select format('triggers do not fire in our sessions, where session_replication_role is "replica"; %s, and then "anubisctl verify"',
                  coalesce((select format('run "ALTER %s RESET session_replication_role"',
                                 concat_ws(' ', case when s.setrole <> 0 then format('ROLE %I', s.setrole::regrole::text) end,
                                           case when s.setrole <> 0 and s.setdatabase <> 0 then 'IN' end,
                                           case when s.setdatabase <> 0 then format('DATABASE %I', current_database()) end))
                     from pg_db_role_setting s, unnest(s.setconfig) c
                    where c ~* '^session_replication_role=' and s.setdatabase in (0, (select oid from pg_database where datname = current_database()))
                      and s.setrole in (0, current_user::regrole::oid)
                    order by s.setrole <> 0 desc, s.setdatabase <> 0 desc limit 1),
                           'take it out of the server''s configuration or of database.conninfo'))
     where current_setting('session_replication_role') = 'replica'
$$;
CREATE FUNCTION anubis.rows_changed() RETURNS bigint
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select sum(pg_stat_get_xact_tuples_inserted(c.oid) + pg_stat_get_xact_tuples_updated(c.oid) + pg_stat_get_xact_tuples_deleted(c.oid))::bigint
      from pg_class c
     where c.relnamespace = 'anubis'::regnamespace
       and c.relname in ('subscriptions', 'integrations', 'integration_filters', 'subscription_events')
$$;
CREATE FUNCTION anubis.salts_erase(ids bigint[]) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    none constant bytea := decode(repeat('00', 32), 'hex');
    one bigint;
    n bigint := 0;
begin
    insert into anubis.audit_salts (chunk, salts)
    select c.chunk, (select string_agg(case when c.chunk << 5 | i.n = any (ids) then none
                                            else sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())) end, '' order by i.n)
                       from generate_series(0, 31) as i (n))
      from (select distinct u.id >> 5 from unnest(ids) as u (id)) as c (chunk)
     where not exists (select from anubis.audit_salts a where a.chunk = c.chunk);
    foreach one in array coalesce(ids, '{}') loop
        update anubis.audit_salts a set salts = overlay(a.salts placing none from 1 + 32 * (one & 31)::int)
         where a.chunk = one >> 5 and substr(a.salts, 1 + 32 * (one & 31)::int, 32) <> none;
        n := n + found::int;
    end loop;
    return n;
end $$;
CREATE FUNCTION anubis.schemas_swapped() RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    raise exception using errcode = 'object_not_in_prerequisite_state',
        message = 'cannot write subscriptions: their schema was renamed, and "anubis" is that of another installation now',
        hint = 'Give both schemas their names back by "alter schema ... rename to ...".';
end $$;
CREATE FUNCTION anubis.sequences_behind() RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    with relay as (
      -- A position that a hand has set ahead is not believed: see relay_begin.
      select case when r.high >= s.high is true then s.high else r.high end as high
        from anubis.relay_state r left join anubis.relay_saved s on true
    ), ledger as (
      select exists (select from anubis.subscription_events e where e.id > s.last_value)
             or exists (select from relay r where r.high > s.last_value) as is_behind
        from anubis.ledger_id_seq s
    ), others as (
      select n.place, 'anubis.' || n.name as target, pg_get_serial_sequence('anubis.' || n.name, 'id') as sequence,
             n.newest, case n.place when 1 then anubis.subscriptions_drawn() end as drawn
        from (values (1, 'subscriptions', null), (2, 'integrations', null), (3, 'integration_filters', null),
                     (4, 'alerts', (select max(id) from anubis.alerts)),
                     (5, 'alert_outbox', (select max(id) from anubis.alert_outbox)),
                     (6, 'alert_silences', (select max(id) from anubis.alert_silences)),
                     (7, 'dead_letters', (select max(id) from anubis.dead_letters)),
                     (8, 'audit_trees', (select max(id) from anubis.audit_trees)),
                     (9, 'audit_checkpoints', (select max(id) from anubis.audit_checkpoints)),
                     (10, 'audit_past', (select max(id) from anubis.audit_past))) n (place, name, newest)
    )
    select string_agg(statement, ' ' order by place)
      from (select 0 as place, format('select setval(%L, greatest((select max(id) from %s), %s));',
                                      'anubis.ledger_id_seq', 'anubis.subscription_events', r.high) as statement
              from ledger, relay r where is_behind
            union all
            select o.place, case when o.drawn is null
                                 then format('select setval(%L, (select coalesce(max(id), 1) from %s));', o.sequence, o.target)
                                 else format('select setval(%L, %s);', o.sequence, o.drawn) end
              from others o, ledger l
             where o.sequence is not null
               and case when o.newest is null then o.place < 4 and l.is_behind or o.drawn is not null
                        else o.newest > coalesce(pg_sequence_last_value(o.sequence::regclass), 0) end) x
$$;
CREATE FUNCTION anubis.states_refused(subscriptions regclass) RETURNS SETOF text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    states constant text[] := '{pending,processing,sent,failed,retry}';
    k record;
    refused text;
begin
    for k in select c.conname, c.contype, pg_get_expr(c.conbin, c.conrelid) as condition, format_type(a.atttypid, null) as type,
                    c.confrelid::regclass as target, f.attname as target_column
               from pg_constraint c join pg_attribute a on a.attrelid = c.conrelid and c.conkey = array[a.attnum] and a.attname = 'status'
               left join pg_attribute f on f.attrelid = c.confrelid and f.attnum = c.confkey[1]
              where c.conrelid = subscriptions
                and (c.contype = 'c' or c.contype = 'f' and has_table_privilege(c.confrelid, 'select')) loop
        if k.contype = 'c' then
            execute format('select string_agg(quote_literal(status), '', '') from (select unnest(%L::%s[]) as status) s where not (%s)',
                           states, k.type, k.condition) into refused;
        else
            execute format('select string_agg(quote_literal(s), '', '') from unnest(%L::text[]) s where not exists (select from %s where %I::text = s)',
                           states, k.target, k.target_column) into refused;
        end if;
        if refused is not null and k.contype = 'c' then
            return next format('constraint "%s" of table "subscriptions" refuses the status %s: drop it (anubisd brings its own) or let it pass',
                               k.conname, refused);
        elsif refused is not null then
            return next format('constraint "%s" of table "subscriptions" refuses the status %s, which table %s does not have: add it there, or '
                               'drop the constraint', k.conname, refused, k.target);
        end if;
    end loop;
    for k in select pg_get_expr(d.adbin, d.adrelid) as value from pg_attrdef d join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
              where d.adrelid = subscriptions and a.attname = 'status' and a.attgenerated = '' loop
        execute format('select (%s)::text', k.value) into refused;
        if refused <> all (states) then
            return next format('the default of column "status" of table "subscriptions" is "%s", which is none of the states: run "alter table '
                               'subscriptions alter status set default ''pending''"', refused);
        end if;
    end loop;
end $$;
CREATE FUNCTION anubis.structure_mend(by text) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    adopted bigint;
    next_id bigint;
begin
    if exists (select from anubis.anubis_migrations) then
        return false;
    end if;
    lock table anubis.subscriptions, anubis.integrations in share row exclusive mode;
    insert into anubis.anubis_migrations (version, name, checksum, applied_by, oldest_daemon)
        select version, name, checksum, by, oldest_daemon from anubis.anubis_steps();
    insert into anubis.installation default values on conflict do nothing;
    if found then
        update anubis.installation
           set (server, database, tables) = (select h.server, h.database, h.tables from anubis.installation_here() h),
               (copied_up_to, noted_at) = (select coalesce(max(id), 0), coalesce(max(id), 0) from anubis.subscription_events);
        perform anubis.ledger_name_events();
    end if;
    if exists (select from anubis.relay_state) then
        return true;
    end if;
    insert into anubis.ledger_partitions (name, first_id, last_id)
        select c.relname, coalesce(b[1]::bigint, 0), b[2]::bigint - 1
          from pg_inherits i join pg_class c on c.oid = i.inhrelid,
               regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM [(](?:MINVALUE|''?([0-9]+)''?)[)] TO [(]''?([0-9]+)''?[)]') b
         where i.inhparent = 'anubis.subscription_events'::regclass and b is not null
            on conflict do nothing;
    -- Events go where those of the original go: behind its adopted ones, and into the first partition that it has.
    select coalesce(max(last_id), 0) into adopted from anubis.ledger_partitions where name = 'subscription_events_adopted';
    select greatest(last_value + is_called::integer, adopted + 1,
                    (select min(first_id) from anubis.ledger_partitions where name <> 'subscription_events_adopted'),
                    (select max(id) + 1 from anubis.subscription_events))
      into strict next_id from anubis.ledger_id_seq;
    perform setval('anubis.ledger_id_seq', next_id, false);
    insert into anubis.relay_state (high)
        select coalesce(min(id), next_id) - 1 from anubis.subscription_events where id > adopted;
    -- What stands there and has no event.
    insert into anubis.ledger_baseline (status, subscriptions)
        select status, sum(n) from (select status::text as status, count(*) as n from anubis.subscriptions group by 1
                                    union all
                                    select to_status, -count(*) from anubis.subscription_events
                                     where event_type is not null and id > adopted group by 1
                                    union all
                                    select from_status, count(*) from anubis.subscription_events
                                     where event_type is not null and id > adopted group by 1) x
         where status is not null group by 1 having sum(n) <> 0;
    insert into anubis.ledger_baseline (integration_id, successful_sends, failed_sends)
        select id, coalesce(successful_sends, 0), coalesce(failed_sends, 0) from anubis.integrations
         where coalesce(successful_sends, 0) <> 0 or coalesce(failed_sends, 0) <> 0;
    return true;
end $$;
CREATE FUNCTION anubis.structure_note() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    steps text;
begin
    select string_agg(format('(%s, %L, %L, %s)', version, name, checksum, oldest_daemon), E',\n        ' order by version) into strict steps
      from anubis.anubis_migrations;
    execute format('create or replace function anubis.anubis_steps(out version integer, out name text, out checksum text,
        out oldest_daemon integer) returns setof record language sql immutable set search_path = pg_catalog as $$
    values %s $$', steps);
end $_$;
CREATE FUNCTION anubis.subscription_change_refused() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
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
CREATE FUNCTION anubis.subscription_changed_by_others() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    -- By a trigger, within the statement that wrote a claim or a result: whoever gets the answer of that would act on it.
    if pg_trigger_depth() > 1 and current_setting('application_name') like 'anubisd %' and anubis.as_instant(old.updated_at) >= now() then
        perform anubis.subscription_unlike(old.id::bigint, case when old.claim_token is null then 'result' else 'claim' end);
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
        new.sent_at := anubis.subscription_now(new.sent_at);
    end if;
    return new;
end $$;
CREATE FUNCTION anubis.subscription_deletion_refused() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    if anubis.cleaning_allowed() then
        return old;
    end if;
    raise exception using errcode = 'restrict_violation',
        message = format('cannot %s subscriptions: the ledger tells their history', lower(tg_op)),
        hint = 'One that must not be sent is set to status "failed".';
end $$;
CREATE FUNCTION anubis.subscription_due(next_attempt_at timestamp with time zone, scheduled_to timestamp without time zone) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$ select coalesce(greatest($1, $2 at time zone 'UTC'), '-infinity'::timestamptz) $_$;
CREATE FUNCTION anubis.subscription_due(next_attempt_at timestamp with time zone, scheduled_to timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $_$ select coalesce(greatest($1, $2), '-infinity'::timestamptz) $_$;
CREATE FUNCTION anubis.subscription_erased(id bigint, old_status text, status text, old_erased_at timestamp with time zone, erased_at timestamp with time zone, cpf text, payload text, last_response text) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if status is distinct from old_status or erased_at is distinct from old_erased_at or coalesce(cpf, '') not in ('', '0') or payload <> '{}'
       or last_response is not null then
        perform anubis.subscription_refused('23514', 'subscriptions_erased_stays_erased',
            format('cannot change subscription %s: the person''s data was erased', id),
            'It stays as it is, without payload and CPF. A new enrolment is a new subscription.');
    end if;
    return false;
end $$;
CREATE FUNCTION anubis.subscription_inserted() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    AS $$
declare
    routed boolean := false;
    inserted bigint;
    judgement text; -- of rows that are not ordinary ones
begin
    loop
        insert into anubis.subscription_events (event_id, id, event_type, subscription_id, integration_id, operation_name, attempt,
            to_status, order_id, origin, cpf, sent_at, scheduled_to, next_attempt_at, subscription_created_at, subscription_updated_at, traceparent, decided_by)
        -- A column of the application's was renamed? See "Migrations of the application" in anubisctl(8).
        select anubis.ledger_event_id(e.ledger_id), e.* from (
        select case when pg_catalog.current_setting(pg_catalog.textcat(anubis.doorbell_channel(), '.place'), true) operator(pg_catalog.<>) ''
                     and n.id operator(pg_catalog.>) pg_catalog.current_setting(
                             pg_catalog.textcat(anubis.doorbell_channel(), '.place'), true)::pg_catalog.int8
                     and anubis.lock_base() operator(pg_catalog.=) '…'::bigint
                    then pg_catalog.nextval('anubis.ledger_id_seq'::pg_catalog.regclass)
                    else anubis.subscription_next(n.id, anubis.lock_base() operator(pg_catalog.=) '…'::bigint) end as ledger_id,
               'created', n.id,
               coalesce(n.integration_id, anubis.subscription_integration(n.id)), 'create', n.attempts,
               n.status::pg_catalog.text, n.order_id, n.origin, n.cpf, anubis.as_instant(n.sent_at), anubis.as_instant(n.scheduled_to),
               n.next_attempt_at, anubis.as_instant(n.created_at), anubis.as_instant(n.updated_at), n.traceparent, n.last_decided_by
          from new_rows n
         where case when case when routed then n.integration_id is null else n.integration_id is not null end
                     and n.id operator(pg_catalog.>) 0 and n.attempts operator(pg_catalog.>=) 0
                     and n.attempts operator(pg_catalog.<=) 1000000000 and pg_catalog.isfinite(n.created_at) is not false
                     and n.status::pg_catalog.text operator(pg_catalog.=) any ('{pending,processing,sent,failed,retry}'::pg_catalog.text[])
                     and n.idempotency_seed is not null
                     and (n.integration_filter_id is null or not anubis.integration_filter_required())
                     and (n.integration_id is null or not anubis.integration_required()
                          or (select true from anubis.integrations i where i.id operator(pg_catalog.=) n.integration_id))
                    then true
                    else anubis.subscription_judged(null, null, n.id, n.status::pg_catalog.text, n.attempts, anubis.as_instant(n.created_at),
                                                         n.integration_id, n.integration_filter_id, n.idempotency_seed, routed) end) e;
        get diagnostics inserted = row_count;
        judgement := pg_catalog.current_setting(pg_catalog.textcat(anubis.doorbell_channel(), '.unrouted'), true);
        -- The only expression of an ordinary insert here: each one more costs it 2 us.
        exit when (judgement operator(pg_catalog.<>) '') is not true and inserted operator(pg_catalog.<=) 5000;
        if inserted operator(pg_catalog.>) 5000 then
            discard plans;
        end if;
        exit when (judgement operator(pg_catalog.<>) '') is not true;
        if judgement operator(pg_catalog.<>) 'yes' then
            perform anubis.subscription_refuse(judgement::pg_catalog.json);
        end if;
        perform pg_catalog.set_config(pg_catalog.textcat(anubis.doorbell_channel(), '.unrouted'), '', true),
                anubis.subscriptions_route(pg_catalog.array_agg(n.id::pg_catalog.int8)) from new_rows n where n.integration_id is null;
        routed := true;
    end loop;
    if not pg_catalog.pg_try_advisory_xact_lock_shared(anubis.lock_base()) then
        if exists (select from new_rows n join anubis.integrations_open i on i.id operator(pg_catalog.=) n.integration_id
                    where n.status::pg_catalog.text operator(pg_catalog.=) any ('{pending,retry}'::pg_catalog.text[]) and n.held_at is null
                      and anubis.subscription_due(n.next_attempt_at, n.scheduled_to)
                          operator(pg_catalog.<=) pg_catalog.clock_timestamp()) then
            perform pg_catalog.pg_notify(anubis.doorbell_channel(), '');
        end if;
    end if;
    return null;
end $$;
CREATE FUNCTION anubis.subscription_integration(id bigint) RETURNS bigint
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    return (select s.integration_id from anubis.subscriptions s where s.id = subscription_integration.id);
end $$;
CREATE FUNCTION anubis.subscription_judged(old_id bigint, old_status text, id bigint, status text, attempts integer, created_at timestamp with time zone, integration_id bigint, filter_id bigint, seed bigint, routed boolean DEFAULT NULL::boolean) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    rule text;
    words text;
    hint text;
begin
    -- The other round's.
    if routed and integration_id is not null then
        return false;
    elsif not routed and integration_id is null then
        if coalesce(current_setting(anubis.doorbell_channel() || '.unrouted', true), '') = '' then
            perform set_config(anubis.doorbell_channel() || '.unrouted', 'yes', true);
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
        perform anubis.subscription_refused('23514', rule, words, hint);
        return false;
    end if;
    if integration_id is not null and anubis.integration_required()
       and not exists (select from anubis.integrations i where i.id = integration_id) then
        perform anubis.subscription_strays(id, 'integration_id', integration_id, 'integrations');
        return false;
    end if;
    -- With a lock, as a foreign key has it: few rows have a filter.
    if filter_id is not null and anubis.integration_filter_required() then
        perform from anubis.integration_filters f where f.id = filter_id for key share;
        if not found then
            perform anubis.subscription_strays(id, 'integration_filter_id', filter_id, 'integration_filters');
            return false;
        end if;
    end if;
    -- An insert that names the column without a value, as object-relational mappers may do.
    if old_id is null and seed is null then
        update anubis.subscriptions s set idempotency_seed = hashtextextended(gen_random_uuid()::text, 0)
         where s.id = subscription_judged.id;
    end if;
    return status is distinct from old_status;
end $$;
CREATE FUNCTION anubis.subscription_moved() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if not exists (select from anubis.integration_moves m where m.integration_id = old.integration_id) then
        insert into anubis.integration_moves (integration_id) values (old.integration_id) on conflict do nothing;
    end if;
    return null;
end $$;
CREATE FUNCTION anubis.subscription_next(id bigint, is_here boolean) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    sequence constant text := pg_get_serial_sequence('anubis.subscriptions', 'id');
    up_to bigint;
begin
    if not is_here then
        perform anubis.schemas_swapped();
    end if;
    begin
        if pg_sequence_last_value(sequence::regclass) < (select i.subscriptions_up_to from anubis.installation i)
           and currval(sequence::regclass) >= id then
            up_to := anubis.subscriptions_drawn();
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
    return anubis.ledger_next_id();
end $$;
CREATE FUNCTION anubis.subscription_now(of_type timestamp without time zone) RETURNS timestamp without time zone
    LANGUAGE sql
    AS $$ select clock_timestamp() at time zone 'UTC' $$;
CREATE FUNCTION anubis.subscription_now(of_type timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE sql
    AS $$ select clock_timestamp() $$;
CREATE FUNCTION anubis.subscription_refuse(refusal json) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if refusal ->> 'detail' is null then
        raise exception using errcode = refusal ->> 'code', message = refusal ->> 'words', hint = refusal ->> 'hint', table = 'subscriptions',
            constraint = refusal ->> 'rule';
    end if;
    raise exception using errcode = refusal ->> 'code', message = refusal ->> 'words', hint = refusal ->> 'hint',
        detail = refusal ->> 'detail', table = 'subscriptions', constraint = refusal ->> 'rule';
end $$;
CREATE FUNCTION anubis.subscription_refused(code text, rule text, words text, hint text, detail text DEFAULT NULL::text) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select set_config(anubis.doorbell_channel() || '.unrouted',
                      json_build_object('code', code, 'rule', rule, 'words', words, 'hint', hint, 'detail', detail)::text, true)
     where coalesce(current_setting(anubis.doorbell_channel() || '.unrouted', true), '') not like '{%' $$;
CREATE FUNCTION anubis.subscription_seeded() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
begin
    new.idempotency_seed := old.idempotency_seed;
    return new;
end $$;
CREATE FUNCTION anubis.subscription_strays(id bigint, name text, value bigint, target text) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select anubis.subscription_refused('23503', format('subscriptions_%s_fkey', name),
               format('insert or update on table "subscriptions" violates foreign key constraint "subscriptions_%s_fkey"', name),
               format('Subscription %s has it.', id), format('Key (%s)=(%s) is not present in table "%s".', name, value, target)) $$;
CREATE FUNCTION anubis.subscription_unlike(id bigint, what text) RETURNS bigint
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    raise exception using errcode = 'P0ANB',
        message = format('a trigger changes or drops the %s of subscription %s as it is written', what, id),
        hint = (select format('Repair or drop %s on %s.', string_agg(format('%I', t.tgname), ', ' order by t.tgname), t.tgrelid::regclass)
                  from pg_trigger t
                 where t.tgrelid = 'anubis.subscriptions'::regclass and not t.tgisinternal and t.tgenabled <> 'D' and t.tgtype & 16 = 16
                   and not starts_with(t.tgname, 'anubis_') group by t.tgrelid);
end $$;
CREATE FUNCTION anubis.subscription_updated() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_nestloop TO 'off'
    SET jit TO 'off'
    AS $$
declare
    judgement text;
begin
    -- Also for a statement that finds no row: a result whose claim is in the other table is not over.
    if not anubis.lock_base() operator(pg_catalog.=) '…'::bigint then
        perform anubis.schemas_swapped();
    end if;
    insert into anubis.subscription_events (event_id, id, event_type, subscription_id, integration_id, status, operation_name,
        attempt, http_status, duration_ms, request, response, error_message, from_status, to_status, order_id, origin, cpf, sent_at,
        scheduled_to, next_attempt_at, subscription_created_at, subscription_updated_at, ambiguous, response_truncated, traceparent, decided_by)
    select anubis.ledger_event_id(e.ledger_id), e.* from (
    select case when current_setting(anubis.doorbell_channel() || '.place', true) <> ''
                then nextval('anubis.ledger_id_seq'::regclass) else anubis.ledger_next_id() end as ledger_id,
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
                then anubis.as_document(case when o.claim_token is null then n.payload::text else o.payload::text end,
                                             (null::anubis.subscription_events).request) end,
           case when n.status in ('sent', 'failed', 'retry')
                then anubis.as_document(n.last_response, (null::anubis.subscription_events).response) end,
           case when n.status in ('failed', 'retry') then coalesce(n.last_error, 'status set to ' || n.status || ' by the application') end,
           o.status::text, n.status::text, n.order_id, n.origin, n.cpf,
           anubis.as_instant(n.sent_at), anubis.as_instant(n.scheduled_to), n.next_attempt_at,
           anubis.as_instant(n.created_at), anubis.as_instant(n.updated_at),
           case when n.status in ('failed', 'retry') then n.last_ambiguous end,
           case when n.status in ('sent', 'failed', 'retry') then n.last_response_truncated end,
           n.traceparent, case when n.status in ('sent', 'failed', 'retry') then n.last_decided_by end
      from old_rows o left join new_rows n using (id)
     where case when o.erased_at is not null and n.id is not null
                then anubis.subscription_erased(n.id, o.status::text, n.status::text, o.erased_at, n.erased_at, n.cpf::text, n.payload::text,
                                                     n.last_response)
                when o.claim_token is not null and n.integration_id is distinct from o.integration_id and n.id is not null
                then anubis.subscription_unlike(o.id::bigint, 'integration') is null
                -- While its request is under way; by the bytes, since the column may be of any type.
                when o.claim_token is not null and n.claim_token is not null and record_image_ne(row(n.payload), row(o.payload))
                then anubis.subscription_unlike(o.id::bigint, 'payload') is null
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
                then anubis.subscription_unlike(o.id::bigint, case when n.claim_token is null then 'result' else 'claim' end) is null
                when n.id > 0 and n.attempts between 0 and 1000000000 and isfinite(n.created_at) is not false
                 and (n.status is not distinct from o.status
                      or o.status is distinct from 'sent' and n.status in ('pending', 'processing', 'sent', 'failed', 'retry'))
                 and (n.integration_filter_id is not distinct from o.integration_filter_id or n.integration_filter_id is null
                      or not anubis.integration_filter_required())
                 and (n.integration_id is not distinct from o.integration_id or n.integration_id is null
                      or not anubis.integration_required()
                      or (select true from anubis.integrations i where i.id = n.integration_id))
                then n.status is distinct from o.status
                else anubis.subscription_judged(o.id, o.status::text, n.id, n.status::text, n.attempts, anubis.as_instant(n.created_at),
                                                     n.integration_id, n.integration_filter_id, n.idempotency_seed) end) e;
    judgement := current_setting(anubis.doorbell_channel() || '.unrouted', true);
    if judgement like '{%' then
        perform anubis.subscription_refuse(judgement::json);
    end if;
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
CREATE FUNCTION anubis.subscriptions_drawn() RETURNS bigint
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    sequence constant text := pg_get_serial_sequence('anubis.subscriptions', 'id');
    drawn bigint;
begin
    if sequence is null then
        return null;
    end if;
    execute format('select last_value - 1 + is_called::integer from %s', sequence) into drawn;
    return (select greatest(i.subscriptions_up_to,
                            (select max(e.subscription_id) from anubis.subscription_events e
                              where e.id > i.noted_at and e.subscription_id < i.subscriptions_up_to + 1000 + s.last_value - i.noted_at))
              from anubis.installation i cross join anubis.ledger_id_seq s
             where not i.allows_cleaning and i.subscriptions_up_to > drawn);
end $$;
CREATE FUNCTION anubis.subscriptions_erase(ids bigint[], cpfs text[], words text, OUT in_flight bigint[], OUT erased bigint, OUT failed bigint, OUT events bigint, OUT salts bigint, OUT confirmations bigint, OUT letters bigint[], OUT unpublished bigint) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '500ms'
    AS $_$
declare
    amiss text;
    taken bigint[];
    drawn constant bigint := (select last_value from anubis.ledger_id_seq);
    -- An adopted column may be NOT NULL, and of any type.
    no_cpf constant text := (select case when not a.attnotnull then 'null' when t.typcategory = 'N' then '0' else quote_literal('') end
                               from pg_attribute a join pg_type t on t.oid = a.atttypid
                              where a.attrelid = 'anubis.subscriptions'::regclass and a.attname = 'cpf');
begin
    lock table anubis.subscription_events in row exclusive mode;
    amiss := anubis.tables_amiss();
    if amiss is not null then
        raise exception 'the tables are not as anubisd made them: %', amiss;
    end if;
    lock table anubis.audit_salts, anubis.confirmations, anubis.dead_letters in share row exclusive mode;
    perform from anubis.subscriptions s where s.id = any (ids) order by s.id for update;
    select coalesce(array_agg(s.id::bigint order by s.id) filter (where s.status = 'processing' and s.lease_expires_at > clock_timestamp()), '{}'),
           array_agg(s.id::bigint) filter (where (s.status = 'processing' and s.lease_expires_at > clock_timestamp()) is not true)
      into in_flight, taken from anubis.subscriptions s where s.id = any (ids);
    -- What the institution may have stays so: a value that the change of the status does not change would go (subscription_changed_by_others).
    update anubis.subscriptions s set last_ambiguous = null
     where s.id = any (taken) and s.status in ('pending', 'retry', 'processing') and s.last_ambiguous;
    update anubis.subscriptions s
       set status = anubis.as_state('failed', s.status), last_error = 'erased', last_decided_by = words,
           last_ambiguous = case when s.status = 'processing' or s.ambiguous_since is not null then true end,
           updated_at = anubis.subscription_now(s.updated_at)
     where s.id = any (taken) and s.status in ('pending', 'retry', 'processing');
    get diagnostics failed = row_count;
    execute format($query$
        update anubis.subscriptions s
           set erased_at = coalesce(s.erased_at, now()), cpf = %s, payload = anubis.as_document('{}', s.payload), last_response = null,
               last_error = case when s.last_error is not null then 'erased' end,
               last_decided_by = anubis.erased_decision(s.last_decided_by)
         where s.id = any ($1) and (s.erased_at is null or s.cpf::text not in ('', '0') or s.payload::text <> '{}'
                                    or s.last_response is not null or s.last_error <> 'erased'
                                    or s.last_decided_by <> anubis.erased_decision(s.last_decided_by))$query$, no_cpf) using taken;
    get diagnostics erased = row_count;
    update anubis.subscription_events e
       set cpf = null, request = null, response = null, error_message = case when e.error_message is not null then 'erased' end,
           decided_by = anubis.erased_decision(e.decided_by)
     where e.subscription_id = any (taken)
       and (e.cpf is not null or e.request is not null or e.response is not null or e.error_message <> 'erased'
            or e.decided_by <> anubis.erased_decision(e.decided_by));
    get diagnostics events = row_count;
    salts := anubis.salts_erase(taken);
    -- How many have contradicted it stays; what they said was a hash.
    update anubis.confirmations c
       set external_id = null, contradicting = array(select generate_series(1::bigint, cardinality(c.contradicting)))
     where c.subscription_id = any (taken)
       and (c.external_id is not null or c.contradicting <> array(select generate_series(1::bigint, cardinality(c.contradicting))));
    get diagnostics confirmations = row_count;
    select coalesce(array_agg(l), '{}') into letters from anubis.letters_erase(taken, cpfs) l;
    -- A relay that has read such an event drops what it has in hand: the next save, or the next look, finds another epoch.
    select count(*) into unpublished from anubis.relay_state r, anubis.subscription_events e
     where e.subscription_id = any (taken) and e.event_type is not null and e.id <= drawn
       and (e.id > r.high or exists (select from unnest(r.gap_first, r.gap_last) as g (first, last) where e.id between g.first and g.last));
    if unpublished > 0 and events > 0 then
        update anubis.relay_state set epoch = epoch + 1;
    end if;
end $_$;
CREATE FUNCTION anubis.subscriptions_note() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    last_id constant bigint := (select last_value from anubis.ledger_id_seq);
    drawn constant bigint := pg_sequence_last_value(pg_get_serial_sequence('anubis.subscriptions', 'id')::regclass);
begin
    update anubis.installation i
       set subscriptions_up_to = n.up_to, noted_at = last_id
      from (select o.one, greatest(o.subscriptions_up_to, (select max(s.id) from anubis.subscriptions s
                                                                 where s.id > drawn - 1000 and s.id <= drawn)) as up_to
              from anubis.installation o for update skip locked) n
     where i.one = n.one and drawn >= n.up_to and (n.up_to > i.subscriptions_up_to or last_id > i.noted_at + 1000);
end $$;
CREATE FUNCTION anubis.subscriptions_resend(ids bigint[], words text, rate bigint, before bigint) RETURNS TABLE(id bigint, copy bigint)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    copied text;
begin
    select string_agg(quote_ident(a.attname), ', ' order by a.attnum) into copied
      from pg_attribute a
     where a.attrelid = 'anubis.subscriptions'::regclass and a.attnum > 0 and not a.attisdropped
       and a.attgenerated = '' and a.attidentity = ''
       and a.attname <> all ('{id,status,attempts,scheduled_to,next_attempt_at,claimed_by,claim_token,lease_expires_at,held_at,sent_at,
           last_error,last_http_status,created_at,updated_at,last_response,last_response_truncated,last_duration_ms,last_ambiguous,
           last_decided_by,ambiguous_since,idempotency_seed,idempotency_turn,traceparent,resend_of,erased_at}'::text[])
       and not (a.atthasdef and exists (select from pg_index x where x.indrelid = a.attrelid and x.indisunique and x.indnkeyatts = 1
                                                                 and x.indkey[0] = a.attnum));
    return query execute format($query$
        with found as materialized (
          select f.id, row_number() over (order by f.id) - 1 as number
            from (select s.id from anubis.subscriptions s
                   where s.id = any ($1) and s.status = 'sent' and s.erased_at is null
                     and not exists (select from anubis.subscriptions r where r.resend_of = s.id)
                   order by s.id for no key update skip locked) f
        )
        insert into anubis.subscriptions (resend_of, status, last_decided_by, next_attempt_at, created_at, updated_at, %1$s)
        select s.id, anubis.as_state('pending', s.status), $2,
               case when $3 > 0 then now() + ($4 + f.number) / $3::double precision * interval '1 s' end,
               anubis.subscription_now(s.created_at), anubis.subscription_now(s.updated_at), %1$s
          from anubis.subscriptions s join found f using (id) order by s.id
        on conflict (resend_of) where resend_of is not null do nothing
        returning resend_of, id::bigint$query$, copied) using ids, words, rate, before;
end $_$;
CREATE FUNCTION anubis.subscriptions_route(ids bigint[], OUT routed bigint, OUT left_out bigint) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
declare
    chosen record;
    updated bigint;
begin
    routed := 0;
    left_out := 0;
    for chosen in
        with filters as materialized (
            select f.id, f.integration_id, f.origin::text as origin, f.criteria, f.criteria = '{}' as takes_all
              from anubis.integration_filters f
             where f.enabled and f.criteria is not null and exists (select from anubis.integrations i where i.id = f.integration_id)
             order by f.position nulls last, f.id
        ), named as (
            select s.ctid as place, s.integration_id, s.status::text as status, s.held_at, s.origin::text as origin, s.payload
              from anubis.subscriptions s where s.id = any (subscriptions_route.ids)
            offset 0
        ), unrouted as (
            select n.place, n.origin, anubis.as_jsonb(n.payload) #> '{}' as payload
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
        update anubis.subscriptions s
           set integration_id = chosen.integration_id, integration_filter_id = chosen.id
         where s.ctid = any (array(select l.ctid from anubis.subscriptions l where l.ctid = any (chosen.places)
                                      for no key update skip locked));
        get diagnostics updated = row_count;
        routed := routed + updated;
        left_out := left_out + cardinality(chosen.places) - updated;
    end loop;
end $$;
CREATE FUNCTION anubis.table_elsewhere(name text) RETURNS regclass
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select f.own from (select i.inhparent::regclass as own from pg_inherits i
                        where name = 'subscription_events' and i.inhrelid = to_regclass('anubis.subscription_events_default')
                       union all
                       select x.indrelid::regclass from pg_index x
                        where name <> 'subscription_events' and x.indexrelid = to_regclass('anubis.' || quote_ident(name || '_pkey'))
                       union all
                       select anubis.table_moved(name) where to_regclass('anubis.' || quote_ident(name)) is null) f
     where f.own is distinct from to_regclass('anubis.' || quote_ident(name)) and f.own is not null limit 1
$$;
CREATE FUNCTION anubis.table_moved(name text) RETURNS regclass
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select min(c.oid)::regclass from pg_class c
     where c.relname = name and c.relkind in ('r', 'p') and c.relpersistence = 'p'
       and to_regclass('anubis.' || quote_ident(name)) is null
       and not exists (select from pg_class m where m.relname = 'anubis_migrations' and m.relnamespace = c.relnamespace)
    having count(*) = 1
$$;
CREATE FUNCTION anubis.table_put_back(name text, key text[]) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    own constant regclass := anubis.table_elsewhere(name);
    named constant text := own::text;
    takes text := '';
begin
    if own is null then
        return null;
    end if;
    if to_regclass(format('anubis.%I', name)) is not null then
        execute format('alter table anubis.%I rename to %I', name, name || '_meanwhile');
        -- A copy by "create table as" has no defaults, and NULL where they were needed.
        select format('insert into anubis.%I (%s) overriding system value select %s from anubis.%I on conflict ', name,
                      string_agg(quote_ident(a.attname), ', ' order by a.attnum),
                      string_agg(format(case when a.attnotnull and d.adbin is not null
                                             then 'coalesce(%I, ' || pg_get_expr(d.adbin, d.adrelid) || ')' else '%I' end, a.attname),
                                 ', ' order by a.attnum), name || '_meanwhile')
               || coalesce(format('(%s) do update set ', (select string_agg(quote_ident(k), ', ') from unnest(key) k))
                           || string_agg(format('%1$I = excluded.%1$I', a.attname), ', ') filter (where a.attname <> all (key)), 'do nothing')
          into takes
          from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
         where a.attrelid = own and a.attnum > 0 and not a.attisdropped;
    end if;
    if (select relnamespace from pg_class where oid = own) <> 'anubis'::regnamespace then
        execute format('alter table %s set schema anubis', own);
    end if;
    if (select relname from pg_class where oid = own) <> name then
        execute format('alter table %s rename to %I', own, name);
    end if;
    execute takes;
    return named;
end $_$;
CREATE FUNCTION anubis.tables_amiss() RETURNS text
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    here constant oid := 'anubis'::regnamespace;
    amiss text;
begin
    select string_agg(case when w.words is null then null else format('table "%s" %s', w.name, w.words) end, '; ') into amiss
      from (select n.name,
                   case when o.own is not null then format('is named %s now; run "anubisctl migrate", which puts it back', o.own)
                        when c.oid is null then 'is missing; bring it back from a dump'
                        when c.relkind <> n.kind then 'is another one, of another kind; put anubisd''s own back'
                        when c.relpersistence <> 'p'
                             then format('is unlogged, and empty after a crash; run "alter table anubis.%I set logged"', n.name)
                        when not exists (select from pg_index x
                                          where x.indrelid = c.oid and x.indisunique and x.indisvalid and x.indpred is null
                                            and array(select a.attname::text from unnest(x.indkey) with ordinality k (number, place)
                                                        join pg_attribute a on a.attrelid = c.oid and a.attnum = k.number
                                                       where k.place <= x.indnkeyatts order by k.place) = n.key)
                             then 'has no key, like a copy by "create table as"; bring it back from a dump' end as words
              from anubis.tables_needed() n left join pg_class c on c.relname = n.name and c.relnamespace = here,
                   anubis.table_elsewhere(n.name) o (own)
            union all
            select l.relation, format('has no column "%s"', l.lost[1])
                   || case when cardinality(l.lost) = 1 and cardinality(l.strange) = 1
                           then format(', but a "%1$s"; run "alter table anubis.%2$I rename column %1$I to %3$I"', l.strange[1], l.relation,
                                       l.lost[1])
                           else '; bring the table back from a dump' end
              from (select coalesce(n.relation, a.relation) as relation, array_agg(n.name) filter (where a.name is null) as lost,
                           array_agg(a.name) filter (where n.name is null) as strange
                      from anubis.columns_ours() n
                      full join (select c.relname::text as relation, t.attname::text as name
                                   from pg_class c join pg_attribute t on t.attrelid = c.oid and t.attnum > 0 and not t.attisdropped
                                  where c.relnamespace = here and c.relname in (select m.name from anubis.tables_needed() m)) a
                        on a.relation = n.relation and a.name = n.name
                     group by 1) l
             where l.lost is not null and to_regclass('anubis.' || l.relation) is not null
            union all
            select n.name, case when c.oid is null then 'is missing; bring it back from a dump'
                                when c.relname = n.name then format('is %s now; run "alter table %1$s set schema anubis"', o.own)
                                else format('is named %s now; run "alter table %1$s rename to %2$I"', o.own, n.name) end
              from unnest('{subscriptions,integrations,integration_filters}'::text[]) n (name)
             cross join lateral anubis.table_elsewhere(n.name) o (own) left join pg_class c on c.oid = o.own
             where to_regclass('anubis.' || n.name) is null
            union all
            select c.relname, format('is unlogged, and empty after a crash; run "alter table anubis.%I set logged"', c.relname)
              from pg_class c where c.relnamespace = here and c.relname in ('subscriptions', 'integrations', 'integration_filters')
                                and c.relpersistence = 'u'
            union all
            -- As after "pg_restore -t", which brings neither indexes nor defaults back. Ids that subscriptions name are nobody else's.
            select c.relname, format('has no unique index on "id", as after a restore of this table alone; run "alter table %1$s add primary key (id)%2$s"',
                                     format('anubis.%I', c.relname),
                                     case when a.attidentity = '' and not a.atthasdef
                                          then format(', alter id add generated by default as identity; select setval(pg_get_serial_sequence(%1$L, ''id''), '
                                                      'greatest((select max(id) from %1$s), %2$s))', format('anubis.%I', c.relname),
                                                      format(case c.relname when 'integrations' then '(select max(integration_id) from %s)'
                                                                            when 'integration_filters' then '(select max(integration_filter_id) from %s)'
                                                                            else '1' end, 'anubis.subscriptions'))
                                          else '' end)
              from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attname = 'id'
             where c.relnamespace = here and c.relname in ('subscriptions', 'integrations', 'integration_filters') and c.relkind = 'r'
               and not exists (select from pg_index x
                                where x.indrelid = c.oid and x.indisunique and x.indisvalid and x.indpred is null
                                  and x.indnkeyatts = 1 and x.indkey[0] = a.attnum)
            union all
            -- Its owner is subject to it where it is forced. Nothing reads less than all rows: our sessions have row_security = off.
            select c.relname, format('has row security, which hides rows from role "%s"; run "%s"', current_user,
                                     case when pg_has_role(c.relowner, 'usage')
                                          then format('alter table anubis.%I no force row level security', c.relname)
                                          else format('alter role %I bypassrls', current_user) end)
              from pg_class c
             where c.relnamespace = here and c.relrowsecurity and row_security_active(c.oid)
               and (c.relname in ('subscriptions', 'integrations', 'integration_filters', 'subscription_events')
                    or c.relname in (select m.name from anubis.tables_needed() m))
            union all
            select n.name, coalesce(format('is a view, and the table itself is %s; run "drop view anubis.%2$I; alter table %1$s rename to %2$I"',
                                           (select min(t.tgrelid)::regclass from pg_trigger t where t.tgname = n.trigger_name), n.name),
                                    'is a view; put the table itself back')
              from (values ('subscriptions', 'anubis_inserted'), ('integrations', 'anubis_integration_check'),
                           ('integration_filters', 'anubis_filter_check')) n (name, trigger_name)
              join pg_class c on c.relname = n.name and c.relnamespace = here and c.relkind = 'v') w;
    if amiss is null then
        select string_agg(format('table "%s" has no row, and needs it; run "anubisctl migrate", which brings it back', e.name), '; ') into amiss
          from (select 'installation' as name where not exists (select from anubis.installation)
                union all
                select 'relay_state' where not exists (select from anubis.relay_state)) e;
    end if;
    if amiss is null then
        amiss := 'the ledger, the table "subscription_events": ' || anubis.ledger_amiss();
    end if;
    return nullif(concat_ws('; ', amiss, anubis.tables_bypassed(),
        (select case when s.seqrelid is null then 'the sequence "ledger_id_seq" is missing; bring it back from a dump'
                     when s.seqcache <> 1 then format('the sequence "ledger_id_seq" draws %s ids at once, which would lose events; run '
                                                      '"alter sequence anubis.ledger_id_seq cache 1", and then let all sessions of the application '
                                                      'reconnect: each goes on with the ids that it holds', s.seqcache)
                     else 'the sequence "ledger_id_seq" does not count up one by one, once; run '
                          '"alter sequence anubis.ledger_id_seq increment 1 no cycle"' end
           from (values ('ledger_id_seq')) n (name) left join pg_class c on c.relname = n.name and c.relnamespace = here
           left join pg_sequence s on s.seqrelid = c.oid
          where (s.seqcache = 1 and s.seqincrement = 1 and not s.seqcycle) is not true)), '');
end $_$;
CREATE FUNCTION anubis.tables_bypassed() RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
    with own as materialized (
        select c.oid, c.relkind, c.relname as name, format('anubis.%I', c.relname) as quoted,
               c.relname = any ('{subscriptions,integrations,integration_filters,subscription_events_adopted}') as is_theirs
          from pg_class c
         where c.relnamespace = 'anubis'::regnamespace and c.relkind in ('r', 'p')
           and (c.relhastriggers or c.relhasrules or c.relhassubclass)
           and (c.relname ~ '^(subscriptions|integrations|integration_filters|subscription_events(_adopted|_default|_[0-9]+)?)$'
                or c.relname in (select n.name from anubis.tables_needed() n))
    ), triggers as (
        select o.name, o.quoted, o.is_theirs, t.tgname, t.tgtype & 3 = 3 as is_before_row, p.proname,
               p.pronamespace = 'anubis'::regnamespace and f.ours ? p.proname::text as calls_ours,
               p.pronamespace = 'anubis'::regnamespace
               and (p.proname = 'ledger_refuse'
                    or t.tgname || ' on ' || o.name = any ('{anubis_2_foreign_change on subscriptions,anubis_3_seed_kept on subscriptions,
                           anubis_4_change_refused on subscriptions,anubis_inserted on subscriptions,anubis_updated on subscriptions,anubis_moved on subscriptions,
                           anubis_no_delete on subscriptions,anubis_no_truncate on subscriptions,
                           anubis_confirmation_changed on integrations,anubis_confirmation_set on integrations,
                           anubis_integration_check on integrations,anubis_reference_moved on integrations,anubis_reference_moved_id on integrations,anubis_integration_begun on integrations,
                           anubis_integration_mended on integrations,anubis_integration_woken on integrations,
                           anubis_reference_id_kept on integrations,anubis_reference_kept on integrations,
                           anubis_reference_no_truncate on integrations,anubis_reference_id_kept on integration_filters,
                           anubis_reference_kept on integration_filters,anubis_reference_no_truncate on integration_filters,
                           anubis_filter_check on integration_filters,anubis_circuit_changed on integration_runtime}')) as is_ours
          from own o join pg_trigger t on t.tgrelid = o.oid join pg_proc p on p.oid = t.tgfoid,
               (select coalesce(jsonb_object_agg(k.name, true), '{}') as ours
                  from anubis.anubis_migrations m, jsonb_object_keys(m.made) k (name) where m.version = 0) f
         where not t.tgisinternal and t.tgparentid = 0 and t.tgenabled <> 'D'
    )
    select string_agg(w.words, '; ' order by w.words)
      from (select case when t.calls_ours
                        then format('trigger "%s" on "%s" calls %s() once more; run "drop trigger %I on %s"', t.tgname, t.name, t.proname, t.tgname,
                                    t.quoted)
                        else format('trigger "%s" on "%s" can drop or change what is written there; run "drop trigger %I on %s"', t.tgname, t.name,
                                    t.tgname, t.quoted) end as words
              from triggers t where not t.is_ours and (t.calls_ours or t.is_before_row and not t.is_theirs)
            union all
            select format('rule "%s" on "%s" %s; run "drop rule %I on %s"', r.rulename, o.name,
                          case when r.is_instead then 'puts something else in the place of what is written there'
                               else 'makes the server refuse statements of ours' end, r.rulename, o.quoted)
              from own o join pg_rewrite r on r.ev_class = o.oid
             where r.ev_type <> '1' and (r.is_instead or not o.is_theirs or r.ev_type = '2') and r.ev_enabled <> 'D'
            union all
            select format('table %s inherits from "%s", whose triggers and keys do not hold for it; run "alter table %s no inherit %s"',
                          i.inhrelid::regclass, o.name, i.inhrelid::regclass, o.quoted)
              from own o join pg_inherits i on i.inhparent = o.oid where o.relkind = 'r'
            union all
            select format('the subscription "%s" of logical replication writes into "%s"%s, where the triggers of statements do not fire for it, so '
                          'that nothing of it is in the ledger; when all of it has come, run "drop subscription %1$I"',
                          r.subname, coalesce(max(r.name) filter (where r.name = 'subscriptions'), min(r.name)),
                          case when count(*) > 1 then format(' and %s more tables', count(*) - 1) end)
              from (select distinct s.subname, c.relname as name
                      from pg_subscription_rel p join pg_class c on c.oid = p.srrelid join pg_stat_subscription s on s.subid = p.srsubid
                     where c.relnamespace = 'anubis'::regnamespace
                       and (c.relname ~ '^(subscriptions|subscription_events(_adopted|_default|_[0-9]+)?)$'
                            or c.relname in (select n.name from anubis.tables_needed() n))) r
             group by r.subname) w
$_$;
CREATE FUNCTION anubis.tables_mend() RETURNS SETOF text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    ledger oid;
    lost record;
    next_id bigint;
begin
    for lost in select n.name, anubis.table_put_back(n.name, n.key) as named
                  from (select t.name, t.key from anubis.tables_needed() t union all values ('subscription_events', null::text[])) n loop
        if lost.named is not null then
            return next format('table "%s", which was named %s%s', lost.name, lost.named,
                               (select format('; what stood in its place is named "%s_meanwhile"', lost.name)
                                 where to_regclass(format('anubis.%I', lost.name || '_meanwhile')) is not null));
        end if;
    end loop;
    ledger := (select oid from pg_class where relname = 'subscription_events' and relkind = 'p' and relnamespace = 'anubis'::regnamespace);
    if ledger is null or to_regclass('anubis.ledger_partitions') is null then
        return;
    end if;
    for lost in
        insert into anubis.ledger_partitions as l (name, first_id, last_id)
        select c.relname, coalesce(b[1]::bigint, 0), b[2]::bigint - 1
          from pg_inherits i join pg_class c on c.oid = i.inhrelid,
               regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM [(](?:MINVALUE|''?([0-9]+)''?)[)] TO [(]''?([0-9]+)''?[)]') b
         where i.inhparent = ledger and b is not null and not exists (select from anubis.ledger_partitions p where p.name = c.relname)
        returning l.name loop
        return next format('partition "%s" in the table "ledger_partitions"', lost.name);
    end loop;
    for lost in select p.*, format('anubis.%I', p.name) as part from anubis.ledger_partitions p
                 where to_regclass('anubis.' || quote_ident(p.name)) is not null
                   and not exists (select from pg_inherits i where i.inhparent = ledger and i.inhrelid = to_regclass('anubis.' || quote_ident(p.name)))
                 order by p.first_id loop
        -- What was written meanwhile stands in the default partition, and ATTACH would refuse the range.
        execute format('lock table anubis.subscription_events, %s in access exclusive mode', lost.part);
        execute format('insert into %s select * from anubis.subscription_events_default where id between %s and %s', lost.part,
                       lost.first_id, lost.last_id);
        alter table anubis.subscription_events_default disable trigger ledger_append_only;
        delete from anubis.subscription_events_default where id between lost.first_id and lost.last_id;
        alter table anubis.subscription_events_default enable trigger ledger_append_only;
        execute format('drop trigger if exists ledger_append_only on %s', lost.part);
        execute format('alter table anubis.subscription_events attach partition %s for values from (%s) to (%s)', lost.part,
                       case when lost.name = 'subscription_events_adopted' then 'minvalue' else lost.first_id::text end, lost.last_id + 1);
        return next format('partition "%s" of the ledger', lost.name);
    end loop;
    if to_regclass('anubis.installation') is null or to_regclass('anubis.relay_state') is null then
        return;
    end if;
    if not exists (select from anubis.installation) then
        insert into anubis.installation (namespace, server, database, tables, copied_up_to, noted_at)
        select anubis.installation_name(), h.server, h.database, h.tables, l.last_value, l.last_value
          from anubis.installation_here() h, anubis.ledger_id_seq l;
        return next 'the row of the table "installation"';
    end if;
    if not exists (select from anubis.relay_state) then
        -- From the first event that the audit log, which takes all of them, has not had from Kafka.
        select last_value + is_called::integer into strict next_id from anubis.ledger_id_seq;
        insert into anubis.relay_state (high)
        select coalesce(min(e.id), next_id) - 1 from anubis.subscription_events e
         where e.id > coalesce((select max(last_id) from anubis.ledger_partitions where name = 'subscription_events_adopted'), 0)
           and not exists (select from anubis.consumer_bitmaps b
                            where b.read_model = 'monitoring' and b.event_type = e.event_type
                              and b.chunk = e.id / 8192 and get_bit(b.bits, (e.id % 8192)::integer) = 1);
        return next 'the row of the table "relay_state"';
    end if;
end $$;
CREATE FUNCTION anubis.tables_needed(OUT name text, OUT kind "char", OUT key text[]) RETURNS SETOF record
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    values ('anubis_migrations', 'r'::"char", '{version}'::text[]), ('anubis_repeatables', 'r', '{name}'),
           ('installation', 'r', '{one}'), ('relay_state', 'r', '{one}'), ('relay_saved', 'r', '{one}'), ('relay_holes', 'r', '{first_id}'),
           ('relay_topics', 'r', '{topic,from_sequence}'), ('relay_reached', 'r', '{topic,partition}'),
           ('ledger_partitions', 'r', '{name}'), ('ledger_dropped', 'r', '{name}'), ('ledger_leaps', 'r', '{first_id}'), ('ledger_baseline', 'r', '{integration_id,status}'),
           ('consumer_offsets', 'r', '{consumer_group,topic,partition}'),
           ('consumer_bitmaps', 'r', '{read_model,event_type,partition,chunk}'),
           ('integration_runtime', 'r', '{integration_id}'), ('dead_letters', 'r', '{id}'),
           ('consumer_stops', 'r', '{read_model}'),
           ('integration_stats_spans', 'p', '{bucket,integration_id,span}'), ('integration_stats', 'r', '{bucket,integration_id,span}'),
           ('integration_stats_days', 'r', '{bucket,integration_id,span}'), ('integration_stats_months', 'r', '{bucket,integration_id,span}'),
           ('integration_stats_changes', 'r', '{bucket,integration_id}'), ('integration_moves', 'r', '{integration_id,moved_at}'),
           ('audit_trees', 'r', '{id}'), ('audit_log', 'r', '{tree,leaf}'), ('audit_tiles', 'r', '{tree,level,tile}'),
           ('audit_checkpoints', 'r', '{id}'), ('audit_salts', 'r', '{chunk}'), ('audit_checks', 'r', '{one}'), ('audit_past', 'r', '{id}'),
           ('alerts', 'r', '{id}'), ('alert_silences', 'r', '{id}'), ('alert_outbox', 'r', '{id}'),
           ('alert_rests', 'r', '{integration_id}'), ('alert_evidence', 'r', '{integration_id}'), ('alert_firsts', 'r', '{subscription_id}'), ('alert_buckets', 'r', '{integration_id,bucket}'),
           ('confirmations', 'r', '{subscription_id}'), ('confirmation_terms', 'r', '{integration_id,after_id}')
$$;
CREATE FUNCTION anubis.triggers_amiss() RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select string_agg(format('%s on %s (%s)', w.name, w.relation,
                             case when t.oid is null then 'missing' when t.tgenabled = 'D' then 'disabled' else 'not for everybody' end),
                      ', ' order by w.relation, w.name)
      from (select c.relname::text, n.name
              from pg_inherits i join pg_class c on c.oid = i.inhrelid, unnest('{ledger_append_only,ledger_no_truncate}'::text[]) n (name)
             where i.inhparent = to_regclass('anubis.subscription_events')
            union all values ('subscriptions', 'anubis_2_foreign_change'), ('subscriptions', 'anubis_3_seed_kept'),
                   ('subscriptions', 'anubis_4_change_refused'),
                   ('subscriptions', 'anubis_no_delete'), ('subscriptions', 'anubis_no_truncate'),
                   ('subscriptions', 'anubis_inserted'), ('subscriptions', 'anubis_updated'),
                   ('integrations', 'anubis_integration_woken'), ('integrations', 'anubis_integration_mended'),
                   ('integrations', 'anubis_integration_check'), ('integrations', 'anubis_reference_moved'),
                   ('integrations', 'anubis_reference_moved_id'), ('subscriptions', 'anubis_moved'),
                   ('integrations', 'anubis_integration_begun'),
                   ('integrations', 'anubis_confirmation_set'), ('integrations', 'anubis_confirmation_changed'), ('integration_runtime', 'anubis_circuit_changed'),
                   ('integration_filters', 'anubis_filter_check'),
                   ('subscription_events', 'ledger_append_only'), ('subscription_events', 'ledger_no_truncate')) as w (relation, name)
      left join pg_class c on c.relname = w.relation and c.relnamespace = 'anubis'::regnamespace
      left join pg_trigger t on t.tgrelid = c.oid and t.tgname = w.name
     where t.tgenabled is null or t.tgenabled not in ('O', 'A')
$$;
CREATE FUNCTION anubis.views_amiss() RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select string_agg(v.name, ', ')
      from unnest('{integrations_open,stats_events,subscription_event_feed,subscription_event_messages,change_with_anubis_alter}'::text[]) v (name)
     where not exists (select from pg_class c where c.relname = v.name and c.relnamespace = 'anubis'::regnamespace and c.relkind = 'v')
$$;
CREATE FUNCTION anubis.work_refused() RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    columns text := anubis.columns_amiss();
    tables text := anubis.tables_amiss();
    views text := anubis.views_amiss();
    amiss text := anubis.triggers_amiss();
    replica text := anubis.replica_session();
    statements text;
    ending text;
    owner uuid;
begin
    if current_setting('server_encoding') = 'SQL_ASCII' then
        return 'the database''s encoding is SQL_ASCII, in which Postgres takes any bytes for text, and what anubisd sends is UTF-8; load a dump of it '
               'into a database of the encoding UTF8 (createdb -T template0 -E UTF8 NAME), and let database.conninfo name that one';
    end if;
    if columns is not null then
        return format('a migration of the application is in the way: %s', columns);
    end if;
    if tables is not null then
        return format('the tables are not as anubisd made them: %s', tables);
    end if;
    if current_setting('transaction_read_only') = 'off' then
        perform anubis.ledger_go_on();
    end if;
    if amiss is not null then
        return format('changes may leave no trace: trigger %s; run "anubisctl migrate", which brings it back, and then "anubisctl verify"', amiss);
    end if;
    if views is not null then
        return format('a view that anubisd needs is missing: %s; run "anubisctl migrate", which brings it back', views);
    end if;
    if replica is not null then
        return format('changes would leave no trace: %s', replica);
    end if;
    statements := anubis.sequences_behind();
    if statements is not null then
        return format('ids would be given out twice: sequences are behind their tables, as after logical replication or a restore of single tables; run "%s"',
                      rtrim(statements, ';'));
    end if;
    ending := (select anubis.ledger_end(s.last_value) from anubis.ledger_id_seq s);
    if ending is not null then
        return ending;
    end if;
    if anubis.ledger_is_foreign() then
        owner := anubis.installation_of_ledger();
        if owner is null then
            return format('the ledger has events of another installation, whose row of table installation was not loaded with them. If this is a '
                          'copy, run "anubisctl installation --copy"; to go on as that installation, write its name from the dump: "update %s '
                          'set namespace = ...", then run "anubisctl installation --same"', 'anubis.installation'::regclass);
        end if;
        return format('the ledger has events of another installation, %s, while this database names new ones by %s. If that one is in use '
                      'no more, run "anubisctl installation --same"; if this is a copy of it, "anubisctl installation --copy"',
                      owner, anubis.installation_name());
    end if;
    if (select i.namespace from anubis.installation i) <> anubis.installation_name() then
        return format('table installation names %s, which somebody has written there, while events and keys are those of installation %s; '
                      'run "anubisctl installation --same", which writes that name there again',
                      (select namespace from anubis.installation), anubis.installation_name());
    end if;
    if anubis.installation_is_elsewhere() then
        return format('this database was copied or moved: it belongs to installation %s, which was last used elsewhere. If that one is '
                      'in use no more, run "anubisctl installation --same"; if this is a copy of it, "anubisctl installation --copy"',
                      (select namespace from anubis.installation));
    end if;
    return null;
end $$;
CREATE TABLE anubis.alert_buckets (
    integration_id bigint NOT NULL,
    bucket bigint NOT NULL,
    total bigint NOT NULL,
    failed bigint NOT NULL
)
WITH (fillfactor='50');
CREATE TABLE anubis.alert_evidence (
    integration_id bigint NOT NULL,
    recent bigint[] NOT NULL,
    since bigint DEFAULT 0 NOT NULL,
    above_since bigint DEFAULT 0 NOT NULL
)
WITH (fillfactor='50');
CREATE TABLE anubis.alert_firsts (
    subscription_id bigint NOT NULL,
    seen_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE anubis.alert_outbox (
    id bigint NOT NULL,
    alert_id bigint NOT NULL,
    sink text NOT NULL,
    event text NOT NULL,
    body jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    due_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    error text,
    sent_at timestamp with time zone,
    CONSTRAINT alert_outbox_event_check CHECK ((event = ANY (ARRAY['fired'::text, 'repeated'::text, 'resolved'::text]))),
    CONSTRAINT alert_outbox_sink_check CHECK (((sink = ANY (ARRAY['journal'::text, 'topic'::text, 'webhook'::text])) OR (sink ~~ 'alertmanager _%'::text)))
);
ALTER TABLE anubis.alert_outbox ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME anubis.alert_outbox_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE anubis.alert_rests (
    integration_id bigint NOT NULL,
    ended_at timestamp with time zone
);
CREATE TABLE anubis.alert_silences (
    id bigint NOT NULL,
    integration_id bigint NOT NULL,
    kind text,
    until timestamp with time zone NOT NULL,
    reason text NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
ALTER TABLE anubis.alert_silences ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME anubis.alert_silences_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE anubis.alerts (
    id bigint NOT NULL,
    integration_id bigint,
    kind text NOT NULL,
    state text DEFAULT 'firing'::text NOT NULL,
    value double precision,
    threshold double precision,
    message text NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    over_since timestamp with time zone,
    resolved_at timestamp with time zone,
    last_notified_at timestamp with time zone,
    acknowledged_at timestamp with time zone,
    acknowledged_by text,
    CONSTRAINT alerts_check CHECK (((state = 'resolved'::text) = (resolved_at IS NOT NULL))),
    CONSTRAINT alerts_state_check CHECK ((state = ANY (ARRAY['firing'::text, 'resolved'::text])))
);
ALTER TABLE anubis.alerts ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME anubis.alerts_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE anubis.anubis_migrations (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL,
    applied_by text NOT NULL,
    oldest_daemon integer DEFAULT 0 NOT NULL,
    made jsonb
);
CREATE TABLE anubis.anubis_repeatables (
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL,
    applied_by text NOT NULL
);
CREATE TABLE anubis.audit_checkpoints (
    id bigint NOT NULL,
    note text NOT NULL,
    signed_by text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    published_at timestamp with time zone,
    verified_at timestamp with time zone
);
ALTER TABLE anubis.audit_checkpoints ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME anubis.audit_checkpoints_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE anubis.audit_checks (
    one boolean DEFAULT true NOT NULL,
    checkpoint bigint DEFAULT 0 NOT NULL,
    checked_at timestamp with time zone DEFAULT now() NOT NULL,
    whole_at timestamp with time zone,
    took_ms bigint DEFAULT 0 NOT NULL,
    differences bigint DEFAULT 0 NOT NULL,
    words text DEFAULT ''::text NOT NULL,
    last_checkpoint bigint DEFAULT 0 NOT NULL,
    unsealed_since timestamp with time zone,
    CONSTRAINT audit_checks_one_check CHECK (one)
);
CREATE TABLE anubis.audit_log (
    tree integer NOT NULL,
    leaf bigint NOT NULL,
    "offset" bigint NOT NULL,
    sequence bigint NOT NULL,
    event_id uuid NOT NULL,
    event_type text NOT NULL,
    subscription_id bigint NOT NULL,
    integration_id bigint,
    created_at timestamp with time zone NOT NULL,
    commitment bytea NOT NULL,
    hash bytea NOT NULL
);
ALTER TABLE ONLY anubis.audit_log ALTER COLUMN tree SET STATISTICS 10;
ALTER TABLE ONLY anubis.audit_log ALTER COLUMN leaf SET STATISTICS 10;
ALTER TABLE ONLY anubis.audit_log ALTER COLUMN "offset" SET STATISTICS 0;
ALTER TABLE ONLY anubis.audit_log ALTER COLUMN sequence SET STATISTICS 10;
ALTER TABLE ONLY anubis.audit_log ALTER COLUMN event_id SET STATISTICS 0;
ALTER TABLE ONLY anubis.audit_log ALTER COLUMN event_type SET STATISTICS 10;
ALTER TABLE ONLY anubis.audit_log ALTER COLUMN subscription_id SET STATISTICS 0;
ALTER TABLE ONLY anubis.audit_log ALTER COLUMN integration_id SET STATISTICS 0;
ALTER TABLE ONLY anubis.audit_log ALTER COLUMN created_at SET STATISTICS 0;
ALTER TABLE ONLY anubis.audit_log ALTER COLUMN commitment SET STATISTICS 0;
ALTER TABLE ONLY anubis.audit_log ALTER COLUMN hash SET STATISTICS 0;
CREATE TABLE anubis.audit_past (
    id bigint NOT NULL,
    tree integer NOT NULL,
    leaves bigint NOT NULL,
    installation uuid NOT NULL,
    checkpoint bigint NOT NULL
);
ALTER TABLE anubis.audit_past ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME anubis.audit_past_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE anubis.audit_salts (
    chunk bigint NOT NULL,
    salts bytea NOT NULL,
    CONSTRAINT audit_salts_salts_check CHECK ((octet_length(salts) = 1024))
);
CREATE TABLE anubis.audit_tiles (
    tree integer NOT NULL,
    level integer NOT NULL,
    tile bigint NOT NULL,
    hash bytea NOT NULL
);
CREATE TABLE anubis.audit_trees (
    id integer NOT NULL,
    topic text NOT NULL,
    partition integer NOT NULL,
    size bigint DEFAULT 0 NOT NULL,
    roots bytea DEFAULT '\x'::bytea NOT NULL
)
WITH (fillfactor='20');
ALTER TABLE anubis.audit_trees ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME anubis.audit_trees_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
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
    traceparent text,
    decided_by text
)
PARTITION BY RANGE (id);
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
    last_decided_by text,
    ambiguous_since timestamp with time zone,
    idempotency_seed bigint DEFAULT (((random() * ('…'::bigint)::double precision))::bigint # ((date_part('epoch'::text, clock_timestamp()) * (1000000)::double precision))::bigint),
    idempotency_turn integer,
    traceparent text,
    resend_of bigint,
    erased_at timestamp with time zone
)
WITH (fillfactor='70', autovacuum_vacuum_scale_factor='0.02', autovacuum_analyze_scale_factor='0.05');
ALTER TABLE ONLY anubis.subscriptions ALTER COLUMN payload SET STATISTICS 0;
CREATE VIEW anubis.change_with_anubis_alter AS
 SELECT (ROW(integration_filters.id, integration_filters.integration_id, integration_filters.name, integration_filters.origin, integration_filters.criteria, integration_filters."position", integration_filters.enabled) IS NULL) AS integration_filters,
    (ROW(integrations.id, integrations.name, integrations.type, integrations.endpoint_url, integrations.auth_token, integrations.enabled, integrations.timeout_ms, integrations.max_in_flight, integrations.rate_limit, integrations.max_attempts, integrations.delivery_settings, integrations.successful_sends, integrations.failed_sends, integrations.paused_until, integrations.pause_reason, integrations.updated_at) IS NULL) AS integrations,
    (ROW(subscription_events.id, subscription_events.event_id, subscription_events.event_type, subscription_events.subscription_id, subscription_events.integration_id, subscription_events.status, subscription_events.operation_name, subscription_events.attempt, subscription_events.http_status, subscription_events.duration_ms, subscription_events.request, subscription_events.response, subscription_events.error_message, subscription_events.from_status, subscription_events.to_status, subscription_events.created_at, subscription_events.order_id, subscription_events.origin, subscription_events.cpf, subscription_events.sent_at, subscription_events.scheduled_to, subscription_events.next_attempt_at, subscription_events.subscription_created_at, subscription_events.subscription_updated_at, subscription_events.ambiguous, subscription_events.response_truncated, subscription_events.traceparent, subscription_events.decided_by) IS NULL) AS subscription_events,
    (ROW(subscriptions.id, subscriptions.integration_id, subscriptions.integration_filter_id, subscriptions.order_id, subscriptions.origin, subscriptions.cpf, subscriptions.payload, subscriptions.status, subscriptions.attempts, subscriptions.scheduled_to, subscriptions.next_attempt_at, subscriptions.claimed_by, subscriptions.claim_token, subscriptions.lease_expires_at, subscriptions.held_at, subscriptions.sent_at, subscriptions.last_error, subscriptions.last_http_status, subscriptions.created_at, subscriptions.updated_at, subscriptions.last_response, subscriptions.last_response_truncated, subscriptions.last_duration_ms, subscriptions.last_ambiguous, subscriptions.last_decided_by, subscriptions.ambiguous_since, subscriptions.idempotency_seed, subscriptions.idempotency_turn, subscriptions.traceparent, subscriptions.resend_of, subscriptions.erased_at) IS NULL) AS subscriptions
   FROM anubis.integration_filters,
    anubis.integrations,
    anubis.subscription_events,
    anubis.subscriptions
  WHERE false;
CREATE TABLE anubis.confirmation_terms (
    integration_id bigint NOT NULL,
    after_id bigint NOT NULL,
    within_usec bigint,
    known_id bigint,
    since timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE anubis.confirmations (
    subscription_id bigint NOT NULL,
    integration_id bigint,
    status text DEFAULT 'expected'::text NOT NULL,
    external_id text,
    expected_by timestamp with time zone,
    confirmed_at timestamp with time zone,
    received_at timestamp with time zone,
    contradicting bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    contradictions integer GENERATED ALWAYS AS (cardinality(contradicting)) STORED NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT confirmations_check CHECK (((status = ANY (ARRAY['confirmed'::text, 'rejected'::text])) = (received_at IS NOT NULL))),
    CONSTRAINT confirmations_check1 CHECK (((received_at IS NOT NULL) OR (expected_by IS NOT NULL))),
    CONSTRAINT confirmations_status_check CHECK ((status = ANY (ARRAY['expected'::text, 'confirmed'::text, 'rejected'::text, 'overdue'::text])))
)
WITH (fillfactor='80');
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
    unknown_events bigint DEFAULT 0 NOT NULL,
    unread_until bigint,
    unread_below bigint,
    unread_gaps int8range[],
    updated_at timestamp with time zone DEFAULT now() NOT NULL
)
WITH (fillfactor='20');
CREATE TABLE anubis.consumer_stops (
    read_model text NOT NULL,
    reason text NOT NULL,
    command text,
    stopped_at timestamp with time zone DEFAULT now() NOT NULL,
    passes_until timestamp with time zone
);
CREATE TABLE anubis.dead_letters (
    id bigint NOT NULL,
    consumer_group text NOT NULL,
    read_model text,
    topic text NOT NULL,
    partition integer NOT NULL,
    "offset" bigint NOT NULL,
    key bytea,
    headers jsonb DEFAULT '{}'::jsonb NOT NULL,
    value bytea,
    error text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    failed_at timestamp with time zone DEFAULT now() NOT NULL,
    replayed_at timestamp with time zone,
    replays integer DEFAULT 0 NOT NULL,
    last_error text,
    discarded_at timestamp with time zone,
    discard_reason text,
    published_at timestamp with time zone,
    discard_only boolean DEFAULT false NOT NULL,
    written_at timestamp with time zone DEFAULT '1970-01-01 00:00:00+00'::timestamp with time zone NOT NULL
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
    allows_cleaning boolean DEFAULT false NOT NULL,
    server bigint,
    database oid,
    tables oid,
    copied_up_to bigint DEFAULT 0 NOT NULL,
    subscriptions_up_to bigint DEFAULT 0 NOT NULL,
    noted_at bigint DEFAULT 0 NOT NULL,
    CONSTRAINT installation_one_check CHECK (one)
);
ALTER TABLE anubis.integration_filters ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME anubis.integration_filters_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
CREATE TABLE anubis.integration_moves (
    integration_id bigint NOT NULL,
    moved_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
CREATE TABLE anubis.integration_stats_spans (
    integration_id bigint NOT NULL,
    span text DEFAULT 'hour'::text NOT NULL,
    bucket timestamp with time zone NOT NULL,
    created bigint DEFAULT 0 NOT NULL,
    sent bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    retried bigint DEFAULT 0 NOT NULL,
    attempts bigint DEFAULT 0 NOT NULL,
    delivery_index smallint[] DEFAULT '{}'::smallint[] NOT NULL,
    delivery_count bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    http_index smallint[] DEFAULT '{}'::smallint[] NOT NULL,
    http_count bigint[] DEFAULT '{}'::bigint[] NOT NULL
)
PARTITION BY LIST (span);
CREATE TABLE anubis.integration_stats (
    integration_id bigint NOT NULL,
    span text DEFAULT 'hour'::text NOT NULL,
    bucket timestamp with time zone NOT NULL,
    created bigint DEFAULT 0 NOT NULL,
    sent bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    retried bigint DEFAULT 0 NOT NULL,
    attempts bigint DEFAULT 0 NOT NULL,
    delivery_index smallint[] DEFAULT '{}'::smallint[] NOT NULL,
    delivery_count bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    http_index smallint[] DEFAULT '{}'::smallint[] NOT NULL,
    http_count bigint[] DEFAULT '{}'::bigint[] NOT NULL
)
WITH (fillfactor='60');
CREATE TABLE anubis.integration_stats_changes (
    integration_id bigint NOT NULL,
    bucket timestamp with time zone NOT NULL,
    changes bigint DEFAULT 1 NOT NULL
)
WITH (fillfactor='50');
CREATE TABLE anubis.integration_stats_days (
    integration_id bigint NOT NULL,
    span text DEFAULT 'hour'::text NOT NULL,
    bucket timestamp with time zone NOT NULL,
    created bigint DEFAULT 0 NOT NULL,
    sent bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    retried bigint DEFAULT 0 NOT NULL,
    attempts bigint DEFAULT 0 NOT NULL,
    delivery_index smallint[] DEFAULT '{}'::smallint[] NOT NULL,
    delivery_count bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    http_index smallint[] DEFAULT '{}'::smallint[] NOT NULL,
    http_count bigint[] DEFAULT '{}'::bigint[] NOT NULL
)
WITH (fillfactor='60');
CREATE TABLE anubis.integration_stats_months (
    integration_id bigint NOT NULL,
    span text DEFAULT 'hour'::text NOT NULL,
    bucket timestamp with time zone NOT NULL,
    created bigint DEFAULT 0 NOT NULL,
    sent bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL,
    retried bigint DEFAULT 0 NOT NULL,
    attempts bigint DEFAULT 0 NOT NULL,
    delivery_index smallint[] DEFAULT '{}'::smallint[] NOT NULL,
    delivery_count bigint[] DEFAULT '{}'::bigint[] NOT NULL,
    http_index smallint[] DEFAULT '{}'::smallint[] NOT NULL,
    http_count bigint[] DEFAULT '{}'::bigint[] NOT NULL
)
WITH (fillfactor='60');
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
  WHERE (i.enabled AND (COALESCE(r.circuit_state, 'closed'::text) = 'closed'::text) AND ((i.paused_until IS NULL) OR (i.paused_until <= now())) AND ((r.backoff_until IS NULL) OR (r.backoff_until <= now())));
CREATE TABLE anubis.ledger_baseline (
    integration_id bigint DEFAULT 0 NOT NULL,
    status text DEFAULT ''::text NOT NULL,
    subscriptions bigint DEFAULT 0 NOT NULL,
    successful_sends bigint DEFAULT 0 NOT NULL,
    failed_sends bigint DEFAULT 0 NOT NULL,
    sent bigint DEFAULT 0 NOT NULL,
    failed bigint DEFAULT 0 NOT NULL
);
CREATE TABLE anubis.ledger_dropped (
    name text NOT NULL,
    first_id bigint NOT NULL,
    last_id bigint NOT NULL,
    events bigint NOT NULL,
    first_at timestamp with time zone,
    last_at timestamp with time zone,
    dropped_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE SEQUENCE anubis.ledger_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    MAXVALUE 4503599627370496
    CACHE 1;
CREATE TABLE anubis.ledger_leaps (
    first_id bigint NOT NULL,
    last_id bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE TABLE anubis.ledger_partitions (
    name text NOT NULL,
    first_id bigint NOT NULL,
    last_id bigint NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);
CREATE SEQUENCE anubis.ledger_place_seq
    START WITH 0
    INCREMENT BY 1
    MINVALUE -9223372036854775808
    NO MAXVALUE
    CACHE 1;
CREATE TABLE anubis.relay_holes (
    first_id bigint NOT NULL,
    last_id bigint NOT NULL,
    unread boolean DEFAULT false NOT NULL
);
CREATE TABLE anubis.relay_reached (
    topic text NOT NULL,
    partition integer NOT NULL,
    next_offset bigint NOT NULL
)
WITH (fillfactor='50');
CREATE TABLE anubis.relay_saved (
    one boolean DEFAULT true NOT NULL,
    high bigint NOT NULL,
    gap_first bigint[] NOT NULL,
    gap_last bigint[] NOT NULL,
    gap_horizon bigint[] NOT NULL,
    saved_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT relay_saved_one_check CHECK (one)
)
WITH (fillfactor='10');
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
    topic_prefix text,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    compared_at timestamp with time zone DEFAULT now() NOT NULL,
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
CREATE VIEW anubis.stats_events AS
 SELECT e.id,
    e.event_type,
    e.integration_id,
    date_trunc('hour'::text, (anubis.as_instant(e.created_at) AT TIME ZONE 'UTC'::text)) AS hour,
    ((e.duration_ms IS NOT NULL))::integer AS attempts,
    anubis.latency_index(((e.duration_ms)::bigint * 1000)) AS http_index,
    anubis.latency_index(((date_part('epoch'::text,
        CASE
            WHEN (e.event_type = 'sent'::text) THEN (anubis.as_instant(e.created_at) - e.subscription_created_at)
            ELSE NULL::interval
        END) * (1000000)::double precision))::bigint) AS delivery_index
   FROM anubis.subscription_events e
  WHERE ((e.event_type = ANY (ARRAY['created'::text, 'sent'::text, 'failed'::text, 'retried'::text])) AND (e.integration_id IS NOT NULL));
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
    traceparent text,
    decided_by text
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
    traceparent text,
    decided_by text
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
    traceparent text,
    decided_by text
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
    traceparent text,
    decided_by text
);
ALTER TABLE anubis.subscriptions ALTER COLUMN id ADD GENERATED BY DEFAULT AS IDENTITY (
    SEQUENCE NAME anubis.subscriptions_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);
ALTER TABLE ONLY anubis.integration_stats_spans ATTACH PARTITION anubis.integration_stats FOR VALUES IN ('hour');
ALTER TABLE ONLY anubis.integration_stats_spans ATTACH PARTITION anubis.integration_stats_days FOR VALUES IN ('day');
ALTER TABLE ONLY anubis.integration_stats_spans ATTACH PARTITION anubis.integration_stats_months FOR VALUES IN ('month');
ALTER TABLE ONLY anubis.subscription_events ATTACH PARTITION anubis.subscription_events_1 FOR VALUES FROM ('1') TO ('1048577');
ALTER TABLE ONLY anubis.subscription_events ATTACH PARTITION anubis.subscription_events_1048577 FOR VALUES FROM ('1048577') TO ('2097153');
ALTER TABLE ONLY anubis.subscription_events ATTACH PARTITION anubis.subscription_events_2097153 FOR VALUES FROM ('2097153') TO ('3145729');
ALTER TABLE ONLY anubis.subscription_events ATTACH PARTITION anubis.subscription_events_default DEFAULT;
ALTER TABLE ONLY anubis.alert_buckets
    ADD CONSTRAINT alert_buckets_pkey PRIMARY KEY (integration_id, bucket);
ALTER TABLE ONLY anubis.alert_evidence
    ADD CONSTRAINT alert_evidence_pkey PRIMARY KEY (integration_id);
ALTER TABLE ONLY anubis.alert_firsts
    ADD CONSTRAINT alert_firsts_pkey PRIMARY KEY (subscription_id);
ALTER TABLE ONLY anubis.alert_outbox
    ADD CONSTRAINT alert_outbox_pkey PRIMARY KEY (id);
ALTER TABLE ONLY anubis.alert_rests
    ADD CONSTRAINT alert_rests_pkey PRIMARY KEY (integration_id);
ALTER TABLE ONLY anubis.alert_silences
    ADD CONSTRAINT alert_silences_pkey PRIMARY KEY (id);
ALTER TABLE ONLY anubis.alerts
    ADD CONSTRAINT alerts_pkey PRIMARY KEY (id);
ALTER TABLE ONLY anubis.anubis_migrations
    ADD CONSTRAINT anubis_migrations_pkey PRIMARY KEY (version);
ALTER TABLE ONLY anubis.anubis_repeatables
    ADD CONSTRAINT anubis_repeatables_pkey PRIMARY KEY (name);
ALTER TABLE ONLY anubis.audit_checkpoints
    ADD CONSTRAINT audit_checkpoints_pkey PRIMARY KEY (id);
ALTER TABLE ONLY anubis.audit_checks
    ADD CONSTRAINT audit_checks_pkey PRIMARY KEY (one);
ALTER TABLE ONLY anubis.audit_log
    ADD CONSTRAINT audit_log_pkey PRIMARY KEY (tree, leaf);
ALTER TABLE ONLY anubis.audit_past
    ADD CONSTRAINT audit_past_pkey PRIMARY KEY (id);
ALTER TABLE ONLY anubis.audit_salts
    ADD CONSTRAINT audit_salts_pkey PRIMARY KEY (chunk);
ALTER TABLE ONLY anubis.audit_tiles
    ADD CONSTRAINT audit_tiles_pkey PRIMARY KEY (tree, level, tile);
ALTER TABLE ONLY anubis.audit_trees
    ADD CONSTRAINT audit_trees_pkey PRIMARY KEY (id);
ALTER TABLE ONLY anubis.audit_trees
    ADD CONSTRAINT audit_trees_topic_partition_key UNIQUE (topic, partition);
ALTER TABLE ONLY anubis.confirmation_terms
    ADD CONSTRAINT confirmation_terms_pkey PRIMARY KEY (integration_id, after_id);
ALTER TABLE ONLY anubis.confirmations
    ADD CONSTRAINT confirmations_pkey PRIMARY KEY (subscription_id);
ALTER TABLE ONLY anubis.consumer_bitmaps
    ADD CONSTRAINT consumer_bitmaps_pkey PRIMARY KEY (read_model, event_type, partition, chunk);
ALTER TABLE ONLY anubis.consumer_offsets
    ADD CONSTRAINT consumer_offsets_pkey PRIMARY KEY (consumer_group, topic, partition);
ALTER TABLE ONLY anubis.consumer_stops
    ADD CONSTRAINT consumer_stops_pkey PRIMARY KEY (read_model);
ALTER TABLE ONLY anubis.dead_letters
    ADD CONSTRAINT dead_letters_pkey PRIMARY KEY (id);
ALTER TABLE ONLY anubis.dead_letters
    ADD CONSTRAINT dead_letters_read_model_topic_partition_offset_written_at_key UNIQUE (read_model, topic, partition, "offset", written_at);
ALTER TABLE ONLY anubis.installation
    ADD CONSTRAINT installation_pkey PRIMARY KEY (one);
ALTER TABLE ONLY anubis.integration_filters
    ADD CONSTRAINT integration_filters_pkey PRIMARY KEY (id);
ALTER TABLE ONLY anubis.integration_moves
    ADD CONSTRAINT integration_moves_pkey PRIMARY KEY (integration_id, moved_at);
ALTER TABLE ONLY anubis.integration_runtime
    ADD CONSTRAINT integration_runtime_pkey PRIMARY KEY (integration_id);
ALTER TABLE ONLY anubis.integration_stats_changes
    ADD CONSTRAINT integration_stats_changes_pkey PRIMARY KEY (bucket, integration_id);
ALTER TABLE ONLY anubis.integration_stats_spans
    ADD CONSTRAINT integration_stats_spans_pkey PRIMARY KEY (bucket, integration_id, span);
ALTER TABLE ONLY anubis.integration_stats_days
    ADD CONSTRAINT integration_stats_days_pkey PRIMARY KEY (bucket, integration_id, span);
ALTER TABLE ONLY anubis.integration_stats_months
    ADD CONSTRAINT integration_stats_months_pkey PRIMARY KEY (bucket, integration_id, span);
ALTER TABLE ONLY anubis.integration_stats
    ADD CONSTRAINT integration_stats_pkey PRIMARY KEY (bucket, integration_id, span);
ALTER TABLE ONLY anubis.integrations
    ADD CONSTRAINT integrations_pkey PRIMARY KEY (id);
ALTER TABLE ONLY anubis.ledger_baseline
    ADD CONSTRAINT ledger_baseline_pkey PRIMARY KEY (integration_id, status);
ALTER TABLE ONLY anubis.ledger_dropped
    ADD CONSTRAINT ledger_dropped_pkey PRIMARY KEY (name);
ALTER TABLE ONLY anubis.ledger_leaps
    ADD CONSTRAINT ledger_leaps_pkey PRIMARY KEY (first_id);
ALTER TABLE ONLY anubis.ledger_partitions
    ADD CONSTRAINT ledger_partitions_pkey PRIMARY KEY (name);
ALTER TABLE ONLY anubis.relay_holes
    ADD CONSTRAINT relay_holes_pkey PRIMARY KEY (first_id);
ALTER TABLE ONLY anubis.relay_reached
    ADD CONSTRAINT relay_reached_pkey PRIMARY KEY (topic, partition);
ALTER TABLE ONLY anubis.relay_saved
    ADD CONSTRAINT relay_saved_pkey PRIMARY KEY (one);
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
CREATE INDEX alert_outbox_alert ON anubis.alert_outbox USING btree (alert_id);
CREATE INDEX alert_outbox_waiting ON anubis.alert_outbox USING btree (sink, id) WHERE (sent_at IS NULL);
CREATE UNIQUE INDEX alert_silences_key ON anubis.alert_silences USING btree (integration_id, COALESCE(kind, ''::text));
CREATE UNIQUE INDEX alerts_firing ON anubis.alerts USING btree (kind, COALESCE(integration_id, (0)::bigint)) WHERE (state = 'firing'::text);
CREATE INDEX alerts_resolved ON anubis.alerts USING btree (resolved_at) WHERE (state = 'resolved'::text);
CREATE INDEX audit_checkpoints_unpublished ON anubis.audit_checkpoints USING btree (id) WHERE (published_at IS NULL);
CREATE INDEX audit_log_sequence ON anubis.audit_log USING brin (sequence) WITH (pages_per_range='32');
CREATE INDEX confirmation_terms_new ON anubis.confirmation_terms USING btree (integration_id) WHERE (known_id IS NULL);
CREATE INDEX confirmations_contradicted ON anubis.confirmations USING btree (integration_id, subscription_id) WHERE (contradictions > 0);
CREATE INDEX confirmations_expected ON anubis.confirmations USING btree (expected_by) WHERE (status = 'expected'::text);
CREATE INDEX confirmations_overdue ON anubis.confirmations USING btree (integration_id, subscription_id) WHERE (status = 'overdue'::text);
CREATE INDEX dead_letters_open ON anubis.dead_letters USING btree (id) WHERE ((replayed_at IS NULL) AND (discarded_at IS NULL));
CREATE INDEX dead_letters_unpublished ON anubis.dead_letters USING btree (id) WHERE (published_at IS NULL);
CREATE INDEX integration_runtime_backoff ON anubis.integration_runtime USING btree (backoff_until, integration_id) WHERE (backoff_until IS NOT NULL);
CREATE INDEX integration_runtime_open ON anubis.integration_runtime USING btree (integration_id) WHERE (circuit_state <> 'closed'::text);
CREATE INDEX integrations_claimable ON anubis.integrations USING btree (id) WHERE (enabled AND (paused_until IS NULL));
CREATE INDEX integrations_paused ON anubis.integrations USING btree (paused_until, id) WHERE (enabled AND (paused_until IS NOT NULL));
CREATE INDEX relay_holes_unread ON anubis.relay_holes USING btree (first_id) WHERE unread;
CREATE INDEX subscription_events_default_subscription_id_id_idx ON anubis.subscription_events_default USING btree (subscription_id, id);
CREATE INDEX subscriptions_ambiguous ON anubis.subscriptions USING btree (integration_id) WHERE ((status = 'failed'::text) AND last_ambiguous);
CREATE INDEX subscriptions_due ON anubis.subscriptions USING btree (integration_id, anubis.subscription_due(next_attempt_at, scheduled_to), id) WHERE ((status = ANY (ARRAY['pending'::text, 'retry'::text])) AND (held_at IS NULL));
CREATE INDEX subscriptions_held ON anubis.subscriptions USING btree (integration_id, held_at) WHERE (held_at IS NOT NULL);
CREATE INDEX subscriptions_lease ON anubis.subscriptions USING btree (lease_expires_at) WHERE (status = 'processing'::text);
CREATE UNIQUE INDEX subscriptions_resent ON anubis.subscriptions USING btree (resend_of) WHERE (resend_of IS NOT NULL);
ALTER INDEX anubis.integration_stats_spans_pkey ATTACH PARTITION anubis.integration_stats_days_pkey;
ALTER INDEX anubis.integration_stats_spans_pkey ATTACH PARTITION anubis.integration_stats_months_pkey;
ALTER INDEX anubis.integration_stats_spans_pkey ATTACH PARTITION anubis.integration_stats_pkey;
ALTER INDEX anubis.subscription_events_pkey ATTACH PARTITION anubis.subscription_events_1048577_pkey;
ALTER INDEX anubis.subscription_events_pkey ATTACH PARTITION anubis.subscription_events_1_pkey;
ALTER INDEX anubis.subscription_events_pkey ATTACH PARTITION anubis.subscription_events_2097153_pkey;
ALTER INDEX anubis.subscription_events_pkey ATTACH PARTITION anubis.subscription_events_default_pkey;
CREATE TRIGGER anubis_2_foreign_change BEFORE UPDATE ON anubis.subscriptions FOR EACH ROW WHEN ((((NOT (new.claim_token IS DISTINCT FROM old.claim_token)) AND ((new.status IS DISTINCT FROM old.status) OR ((new.attempts IS DISTINCT FROM old.attempts) AND (old.status = 'processing'::text) AND (old.claim_token IS NOT NULL)))) OR ((new.claim_token IS DISTINCT FROM old.claim_token) AND (old.status = 'processing'::text) AND (new.status = 'processing'::text) AND (old.claim_token IS NOT NULL)) OR ((new.claim_token IS DISTINCT FROM old.claim_token) AND (old.claim_token IS NOT NULL) AND (pg_trigger_depth() > 0)) OR ((new.erased_at IS NOT NULL) AND (old.erased_at IS NULL) AND (new.status <> 'sent'::text) AND (new.status <> 'failed'::text)))) EXECUTE FUNCTION anubis.subscription_changed_by_others();
CREATE TRIGGER anubis_3_seed_kept BEFORE UPDATE OF idempotency_seed ON anubis.subscriptions FOR EACH ROW WHEN (((new.idempotency_seed IS DISTINCT FROM old.idempotency_seed) AND ((old.idempotency_seed IS NOT NULL) OR (pg_trigger_depth() = 0)))) EXECUTE FUNCTION anubis.subscription_seeded();
CREATE TRIGGER anubis_4_change_refused BEFORE UPDATE OF integration_id, payload ON anubis.subscriptions FOR EACH ROW WHEN (((new.claim_token IS DISTINCT FROM old.claim_token) OR ((old.status = 'processing'::text) AND (old.claim_token IS NOT NULL) AND ((new.status IS DISTINCT FROM old.status) OR (new.integration_id IS DISTINCT FROM old.integration_id) OR ((new.payload)::text IS DISTINCT FROM (old.payload)::text))) OR ((old.held_at IS NOT NULL) AND (new.status IS DISTINCT FROM old.status)))) EXECUTE FUNCTION anubis.subscription_change_refused();
CREATE TRIGGER anubis_circuit_changed AFTER UPDATE OF circuit_state ON anubis.integration_runtime FOR EACH ROW WHEN (((old.circuit_state <> new.circuit_state) AND (new.circuit_state = 'closed'::text))) EXECUTE FUNCTION anubis.integration_changed();
CREATE TRIGGER anubis_confirmation_changed AFTER UPDATE OF delivery_settings ON anubis.integrations FOR EACH ROW WHEN (((new.delivery_settings -> 'confirmation'::text) IS DISTINCT FROM (old.delivery_settings -> 'confirmation'::text))) EXECUTE FUNCTION anubis.confirmation_changed();
CREATE TRIGGER anubis_confirmation_set AFTER INSERT ON anubis.integrations FOR EACH ROW WHEN ((new.delivery_settings ? 'confirmation'::text)) EXECUTE FUNCTION anubis.confirmation_changed();
CREATE TRIGGER anubis_filter_check BEFORE INSERT OR UPDATE OF criteria ON anubis.integration_filters FOR EACH ROW EXECUTE FUNCTION anubis.integration_filter_check();
CREATE TRIGGER anubis_inserted AFTER INSERT ON anubis.subscriptions REFERENCING NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION anubis.subscription_inserted();
CREATE TRIGGER anubis_integration_begun AFTER INSERT OR UPDATE OF rate_limit, max_in_flight ON anubis.integrations FOR EACH ROW EXECUTE FUNCTION anubis.integration_begun();
CREATE TRIGGER anubis_integration_check BEFORE INSERT OR UPDATE OF id, endpoint_url, auth_token, delivery_settings ON anubis.integrations FOR EACH ROW EXECUTE FUNCTION anubis.integration_check();
CREATE TRIGGER anubis_integration_mended AFTER UPDATE OF endpoint_url, auth_token, delivery_settings ON anubis.integrations FOR EACH ROW WHEN (((old.endpoint_url IS DISTINCT FROM new.endpoint_url) OR (old.auth_token IS DISTINCT FROM new.auth_token) OR (old.delivery_settings IS DISTINCT FROM new.delivery_settings))) EXECUTE FUNCTION anubis.integration_mended();
CREATE TRIGGER anubis_integration_woken AFTER UPDATE OF enabled, paused_until, max_in_flight, rate_limit ON anubis.integrations FOR EACH ROW WHEN ((new.enabled AND ((NOT old.enabled) OR (old.paused_until IS DISTINCT FROM new.paused_until) OR (old.max_in_flight IS DISTINCT FROM new.max_in_flight) OR (old.rate_limit IS DISTINCT FROM new.rate_limit)))) EXECUTE FUNCTION anubis.integration_changed();
CREATE TRIGGER anubis_moved AFTER UPDATE OF integration_id ON anubis.subscriptions FOR EACH ROW WHEN (((old.integration_id IS DISTINCT FROM new.integration_id) AND (old.integration_id IS NOT NULL))) EXECUTE FUNCTION anubis.subscription_moved();
CREATE TRIGGER anubis_no_delete BEFORE DELETE ON anubis.subscriptions FOR EACH ROW EXECUTE FUNCTION anubis.subscription_deletion_refused();
CREATE TRIGGER anubis_no_truncate BEFORE TRUNCATE ON anubis.subscriptions FOR EACH STATEMENT EXECUTE FUNCTION anubis.subscription_deletion_refused();
CREATE TRIGGER anubis_reference_id_kept AFTER UPDATE OF id ON anubis.integration_filters FOR EACH ROW WHEN ((old.id <> new.id)) EXECUTE FUNCTION anubis.reference_kept();
CREATE TRIGGER anubis_reference_id_kept AFTER UPDATE OF id ON anubis.integrations FOR EACH ROW WHEN ((old.id <> new.id)) EXECUTE FUNCTION anubis.reference_kept();
CREATE TRIGGER anubis_reference_kept AFTER DELETE ON anubis.integration_filters FOR EACH ROW EXECUTE FUNCTION anubis.reference_kept();
CREATE TRIGGER anubis_reference_kept AFTER DELETE ON anubis.integrations FOR EACH ROW EXECUTE FUNCTION anubis.reference_kept();
CREATE TRIGGER anubis_reference_moved AFTER DELETE ON anubis.integrations FOR EACH ROW EXECUTE FUNCTION anubis.integration_gone();
CREATE TRIGGER anubis_reference_moved_id AFTER UPDATE OF id ON anubis.integrations FOR EACH ROW WHEN ((old.id <> new.id)) EXECUTE FUNCTION anubis.integration_gone();
CREATE TRIGGER anubis_reference_no_truncate BEFORE TRUNCATE ON anubis.integration_filters FOR EACH STATEMENT EXECUTE FUNCTION anubis.reference_kept();
CREATE TRIGGER anubis_reference_no_truncate BEFORE TRUNCATE ON anubis.integrations FOR EACH STATEMENT EXECUTE FUNCTION anubis.reference_kept();
CREATE TRIGGER anubis_updated AFTER UPDATE ON anubis.subscriptions REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows FOR EACH STATEMENT EXECUTE FUNCTION anubis.subscription_updated();
CREATE TRIGGER ledger_append_only BEFORE DELETE OR UPDATE ON anubis.subscription_events FOR EACH ROW EXECUTE FUNCTION anubis.ledger_refuse();
CREATE TRIGGER ledger_no_truncate BEFORE TRUNCATE ON anubis.subscription_events FOR EACH STATEMENT EXECUTE FUNCTION anubis.ledger_refuse();
CREATE TRIGGER ledger_no_truncate BEFORE TRUNCATE ON anubis.subscription_events_1 FOR EACH STATEMENT EXECUTE FUNCTION anubis.ledger_refuse();
CREATE TRIGGER ledger_no_truncate BEFORE TRUNCATE ON anubis.subscription_events_1048577 FOR EACH STATEMENT EXECUTE FUNCTION anubis.ledger_refuse();
CREATE TRIGGER ledger_no_truncate BEFORE TRUNCATE ON anubis.subscription_events_2097153 FOR EACH STATEMENT EXECUTE FUNCTION anubis.ledger_refuse();
CREATE TRIGGER ledger_no_truncate BEFORE TRUNCATE ON anubis.subscription_events_default FOR EACH STATEMENT EXECUTE FUNCTION anubis.ledger_refuse();
ALTER TABLE ONLY anubis.alert_buckets
    ADD CONSTRAINT alert_buckets_integration_id_fkey FOREIGN KEY (integration_id) REFERENCES anubis.alert_evidence(integration_id) ON DELETE CASCADE;
ALTER TABLE ONLY anubis.alert_evidence
    ADD CONSTRAINT alert_evidence_integration_id_fkey FOREIGN KEY (integration_id) REFERENCES anubis.integrations(id) ON DELETE CASCADE;
ALTER TABLE ONLY anubis.alert_outbox
    ADD CONSTRAINT alert_outbox_alert_id_fkey FOREIGN KEY (alert_id) REFERENCES anubis.alerts(id) ON DELETE CASCADE;
ALTER TABLE ONLY anubis.alert_silences
    ADD CONSTRAINT alert_silences_integration_id_fkey FOREIGN KEY (integration_id) REFERENCES anubis.integrations(id) ON DELETE CASCADE;
ALTER TABLE ONLY anubis.confirmation_terms
    ADD CONSTRAINT confirmation_terms_integration_id_fkey FOREIGN KEY (integration_id) REFERENCES anubis.integrations(id) ON DELETE CASCADE;
ALTER TABLE ONLY anubis.integration_filters
    ADD CONSTRAINT integration_filters_integration_id_fkey FOREIGN KEY (integration_id) REFERENCES anubis.integrations(id);
ALTER TABLE ONLY anubis.integration_runtime
    ADD CONSTRAINT integration_runtime_integration_id_fkey FOREIGN KEY (integration_id) REFERENCES anubis.integrations(id) ON UPDATE CASCADE ON DELETE CASCADE;
REVOKE ALL ON FUNCTION anubis.anubis_alter(command text) FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.anubisd_grant(role name) FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.audit_tiles_make() FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.confirmation_changed() FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.installation_audit_kept() FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.installation_settle(is_copy boolean) FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.integration_begun() FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.integration_changed() FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.integration_gone() FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.integration_mended() FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.ledger_extend(width bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.ledger_fold(part text, beginning bigint, ending bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.ledger_index() FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.ledger_leap(beyond bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.ledger_renumber(published bigint, newest bigint, since timestamp with time zone, OUT next_id bigint, OUT moved bigint, OUT old_first bigint, OUT new_first bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.ledger_retire(age interval, readers text[], checked bigint, batch bigint, OUT part text, OUT checked_to bigint, OUT needed text, OUT events bigint, OUT first_at timestamp with time zone, OUT last_at timestamp with time zone) FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.letters_erase(ids bigint[], cpfs text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.reference_kept() FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.salts_erase(ids bigint[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.structure_mend(by text) FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.structure_note() FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.subscription_inserted() FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.subscription_integration(id bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.subscription_moved() FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.subscription_updated() FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.subscriptions_erase(ids bigint[], cpfs text[], words text, OUT in_flight bigint[], OUT erased bigint, OUT failed bigint, OUT events bigint, OUT salts bigint, OUT confirmations bigint, OUT letters bigint[], OUT unpublished bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.subscriptions_note() FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.subscriptions_resend(ids bigint[], words text, rate bigint, before bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.subscriptions_route(ids bigint[], OUT routed bigint, OUT left_out bigint) FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.table_put_back(name text, key text[]) FROM PUBLIC;
REVOKE ALL ON FUNCTION anubis.tables_mend() FROM PUBLIC;
