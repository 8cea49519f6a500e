-- Are the tables those that were made? Administrators detach partitions, restore a table from a dump, and put copies in the place of
-- tables: without what makes the ledger one, events would be lost or given out twice.

-- Where a table is that was moved to another schema: the only one of its name, but for those of another installation. NULL = nowhere, or in
-- its place.
create or replace function @extschema@.table_moved(name text) returns regclass language sql stable set search_path = pg_catalog, pg_temp as $$
    select min(c.oid)::regclass from pg_class c
     where c.relname = name and c.relkind in ('r', 'p') and c.relpersistence = 'p'
       and to_regclass('@extschema@.' || quote_ident(name)) is null
       and not exists (select from pg_class m where m.relname = 'anubis_migrations' and m.relnamespace = c.relnamespace)
    having count(*) = 1
$$;

-- Where a table of anubisd's is that was renamed or moved: its key, or for the ledger a partition, knows it under any name. NULL = nowhere, or in its
-- place.
create or replace function @extschema@.table_elsewhere(name text) returns regclass language sql stable set search_path = pg_catalog, pg_temp as $$
    select f.own from (select i.inhparent::regclass as own from pg_inherits i
                        where name = 'subscription_events' and i.inhrelid = to_regclass('@extschema@.subscription_events_default')
                       union all
                       select x.indrelid::regclass from pg_index x
                        where name <> 'subscription_events' and x.indexrelid = to_regclass('@extschema@.' || quote_ident(name || '_pkey'))
                       union all
                       select @extschema@.table_moved(name) where to_regclass('@extschema@.' || quote_ident(name)) is null) f
     where f.own is distinct from to_regclass('@extschema@.' || quote_ident(name)) and f.own is not null limit 1
$$;

-- The partition of these ids, whatever its name; NULL = there is none.
create or replace function @extschema@.ledger_part_named(first_id bigint, last_id bigint) returns text language sql stable
    set search_path = pg_catalog, pg_temp as $$
    select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid
     where i.inhparent = to_regclass('@extschema@.subscription_events')
       and pg_get_expr(c.relpartbound, c.oid) ~ format('FROM [(](MINVALUE|''?%s''?)[)] TO [(]''?%s''?[)]', first_id, last_id + 1) limit 1
$$;

-- What is wrong with the ledger, and what would be right; NULL = nothing. The relay asks before it saves, because an id that is not found
-- counts as one that was never used. Cheap, therefore.
create or replace function @extschema@.ledger_amiss() returns text language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    here constant oid := '@extschema@'::regnamespace;
    ledger constant oid := (select oid from pg_class where relname = 'subscription_events' and relnamespace = here and relkind = 'p');
    elsewhere text;
begin
    if ledger is not null then
        return (select string_agg(
                    case when p.name is null
                              then format('its partition "%s" is not in the table "ledger_partitions"; run "anubisctl migrate", which adds it', a.relname)
                         when a.relname is not null
                              then format('its partition "%1$s" is unlogged, and empty after a crash; run "alter table @extschema@.%1$I set logged"', p.name)
                         when to_regclass('@extschema@.' || quote_ident(p.name)) is not null
                              then format('its partition "%s" is detached; run "anubisctl migrate", which attaches it', p.name)
                         when p.named is not null
                              then format('its partition "%1$s" is named %2$s now; run "alter table @extschema@.%2$I rename to %1$I"', p.name, p.named)
                         else format('its partition "%1$s" is missing; bring it back from a dump and run "anubisctl migrate", or give its events '
                                     'up by "delete from @extschema@.ledger_partitions where name = %1$L"', p.name) end, '; ' order by p.name, a.relname)
                  from (select l.name, case when to_regclass('@extschema@.' || quote_ident(l.name)) is null
                                            then @extschema@.ledger_part_named(l.first_id, l.last_id) end as named
                          from @extschema@.ledger_partitions l
                        union all values ('subscription_events_default', null)) p
                  full join (select c.relname::text, c.relpersistence from pg_inherits i join pg_class c on c.oid = i.inhrelid
                              where i.inhparent = ledger) a on a.relname = p.name
                 where (p.name is null or a.relname is null or a.relpersistence <> 'p')
                   and (p.name is not null or not exists (
                            select from @extschema@.ledger_partitions l
                             where to_regclass('@extschema@.' || quote_ident(l.name)) is null
                               and @extschema@.ledger_part_named(l.first_id, l.last_id) = a.relname)));
    end if;
    elsewhere := @extschema@.table_elsewhere('subscription_events')::text;
    return case when elsewhere is null then 'it is not there; bring it back from a dump'
                else format('it is named %s now; run "anubisctl migrate", which puts it back', elsewhere) end;
end $$;

-- anubisd's other tables: name, kind (as in pg_class), and the columns of the key without which rows would be written twice.
create or replace function @extschema@.tables_needed(out name text, out kind "char", out key text[]) returns setof record language sql immutable
    set search_path = pg_catalog, pg_temp as $$
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

-- Their columns, each of which is read or written by name.
create or replace function @extschema@.columns_ours(out relation text, out name text) returns setof record language sql immutable
    set search_path = pg_catalog, pg_temp as $$
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

-- What others have put on the tables that drops, changes or doubles what is written there, and what would be right; NULL = nothing. Other
-- triggers on the application's tables are its own matter (what they make of a claim or a result is looked at as it is written), and so are
-- those that its events had before they became a partition.
create or replace function @extschema@.tables_bypassed() returns text language sql stable set search_path = pg_catalog, pg_temp as $$
    with own as materialized (
        select c.oid, c.relkind, c.relname as name, format('@extschema@.%I', c.relname) as quoted,
               c.relname = any ('{subscriptions,integrations,integration_filters,subscription_events_adopted}') as is_theirs
          from pg_class c
         where c.relnamespace = '@extschema@'::regnamespace and c.relkind in ('r', 'p')
           and (c.relhastriggers or c.relhasrules or c.relhassubclass)
           and (c.relname ~ '^(subscriptions|integrations|integration_filters|subscription_events(_adopted|_default|_[0-9]+)?)$'
                or c.relname in (select n.name from @extschema@.tables_needed() n))
    ), triggers as (
        select o.name, o.quoted, o.is_theirs, t.tgname, t.tgtype & 3 = 3 as is_before_row, p.proname,
               p.pronamespace = '@extschema@'::regnamespace and f.ours ? p.proname::text as calls_ours,
               p.pronamespace = '@extschema@'::regnamespace
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
                  from @extschema@.anubis_migrations m, jsonb_object_keys(m.made) k (name) where m.version = 0) f
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
                     where c.relnamespace = '@extschema@'::regnamespace
                       and (c.relname ~ '^(subscriptions|subscription_events(_adopted|_default|_[0-9]+)?)$'
                            or c.relname in (select n.name from @extschema@.tables_needed() n))) r
             group by r.subname) w
$$;

-- What is wrong with the tables and the sequence of the ledger, and what would be right; NULL = nothing.
create or replace function @extschema@.tables_amiss() returns text language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare
    here constant oid := '@extschema@'::regnamespace;
    amiss text;
begin
    select string_agg(case when w.words is null then null else format('table "%s" %s', w.name, w.words) end, '; ') into amiss
      from (select n.name,
                   case when o.own is not null then format('is named %s now; run "anubisctl migrate", which puts it back', o.own)
                        when c.oid is null then 'is missing; bring it back from a dump'
                        when c.relkind <> n.kind then 'is another one, of another kind; put anubisd''s own back'
                        when c.relpersistence <> 'p'
                             then format('is unlogged, and empty after a crash; run "alter table @extschema@.%I set logged"', n.name)
                        when not exists (select from pg_index x
                                          where x.indrelid = c.oid and x.indisunique and x.indisvalid and x.indpred is null
                                            and array(select a.attname::text from unnest(x.indkey) with ordinality k (number, place)
                                                        join pg_attribute a on a.attrelid = c.oid and a.attnum = k.number
                                                       where k.place <= x.indnkeyatts order by k.place) = n.key)
                             then 'has no key, like a copy by "create table as"; bring it back from a dump' end as words
              from @extschema@.tables_needed() n left join pg_class c on c.relname = n.name and c.relnamespace = here,
                   @extschema@.table_elsewhere(n.name) o (own)
            union all
            select l.relation, format('has no column "%s"', l.lost[1])
                   || case when cardinality(l.lost) = 1 and cardinality(l.strange) = 1
                           then format(', but a "%1$s"; run "alter table @extschema@.%2$I rename column %1$I to %3$I"', l.strange[1], l.relation,
                                       l.lost[1])
                           else '; bring the table back from a dump' end
              from (select coalesce(n.relation, a.relation) as relation, array_agg(n.name) filter (where a.name is null) as lost,
                           array_agg(a.name) filter (where n.name is null) as strange
                      from @extschema@.columns_ours() n
                      full join (select c.relname::text as relation, t.attname::text as name
                                   from pg_class c join pg_attribute t on t.attrelid = c.oid and t.attnum > 0 and not t.attisdropped
                                  where c.relnamespace = here and c.relname in (select m.name from @extschema@.tables_needed() m)) a
                        on a.relation = n.relation and a.name = n.name
                     group by 1) l
             where l.lost is not null and to_regclass('@extschema@.' || l.relation) is not null
            union all
            select n.name, case when c.oid is null then 'is missing; bring it back from a dump'
                                when c.relname = n.name then format('is %s now; run "alter table %1$s set schema @extschema@"', o.own)
                                else format('is named %s now; run "alter table %1$s rename to %2$I"', o.own, n.name) end
              from unnest('{subscriptions,integrations,integration_filters}'::text[]) n (name)
             cross join lateral @extschema@.table_elsewhere(n.name) o (own) left join pg_class c on c.oid = o.own
             where to_regclass('@extschema@.' || n.name) is null
            union all
            select c.relname, format('is unlogged, and empty after a crash; run "alter table @extschema@.%I set logged"', c.relname)
              from pg_class c where c.relnamespace = here and c.relname in ('subscriptions', 'integrations', 'integration_filters')
                                and c.relpersistence = 'u'
            union all
            -- As after "pg_restore -t", which brings neither indexes nor defaults back. Ids that subscriptions name are nobody else's.
            select c.relname, format('has no unique index on "id", as after a restore of this table alone; run "alter table %1$s add primary key (id)%2$s"',
                                     format('@extschema@.%I', c.relname),
                                     case when a.attidentity = '' and not a.atthasdef
                                          then format(', alter id add generated by default as identity; select setval(pg_get_serial_sequence(%1$L, ''id''), '
                                                      'greatest((select max(id) from %1$s), %2$s))', format('@extschema@.%I', c.relname),
                                                      format(case c.relname when 'integrations' then '(select max(integration_id) from %s)'
                                                                            when 'integration_filters' then '(select max(integration_filter_id) from %s)'
                                                                            else '1' end, '@extschema@.subscriptions'))
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
                                          then format('alter table @extschema@.%I no force row level security', c.relname)
                                          else format('alter role %I bypassrls', current_user) end)
              from pg_class c
             where c.relnamespace = here and c.relrowsecurity and row_security_active(c.oid)
               and (c.relname in ('subscriptions', 'integrations', 'integration_filters', 'subscription_events')
                    or c.relname in (select m.name from @extschema@.tables_needed() m))
            union all
            select n.name, coalesce(format('is a view, and the table itself is %s; run "drop view @extschema@.%2$I; alter table %1$s rename to %2$I"',
                                           (select min(t.tgrelid)::regclass from pg_trigger t where t.tgname = n.trigger_name), n.name),
                                    'is a view; put the table itself back')
              from (values ('subscriptions', 'anubis_inserted'), ('integrations', 'anubis_integration_check'),
                           ('integration_filters', 'anubis_filter_check')) n (name, trigger_name)
              join pg_class c on c.relname = n.name and c.relnamespace = here and c.relkind = 'v') w;
    if amiss is null then
        select string_agg(format('table "%s" has no row, and needs it; run "anubisctl migrate", which brings it back', e.name), '; ') into amiss
          from (select 'installation' as name where not exists (select from @extschema@.installation)
                union all
                select 'relay_state' where not exists (select from @extschema@.relay_state)) e;
    end if;
    if amiss is null then
        amiss := 'the ledger, the table "subscription_events": ' || @extschema@.ledger_amiss();
    end if;
    return nullif(concat_ws('; ', amiss, @extschema@.tables_bypassed(),
        (select case when s.seqrelid is null then 'the sequence "ledger_id_seq" is missing; bring it back from a dump'
                     when s.seqcache <> 1 then format('the sequence "ledger_id_seq" draws %s ids at once, which would lose events; run '
                                                      '"alter sequence @extschema@.ledger_id_seq cache 1", and then let all sessions of the application '
                                                      'reconnect: each goes on with the ids that it holds', s.seqcache)
                     else 'the sequence "ledger_id_seq" does not count up one by one, once; run '
                          '"alter sequence @extschema@.ledger_id_seq increment 1 no cycle"' end
           from (values ('ledger_id_seq')) n (name) left join pg_class c on c.relname = n.name and c.relnamespace = here
           left join pg_sequence s on s.seqrelid = c.oid
          where (s.seqcache = 1 and s.seqincrement = 1 and not s.seqcycle) is not true)), '');
end $$;

-- The views that are missing; NULL = none.
create or replace function @extschema@.views_amiss() returns text language sql stable set search_path = pg_catalog, pg_temp as $$
    select string_agg(v.name, ', ')
      from unnest('{integrations_open,stats_events,subscription_event_feed,subscription_event_messages,change_with_anubis_alter}'::text[]) v (name)
     where not exists (select from pg_class c where c.relname = v.name and c.relnamespace = '@extschema@'::regnamespace and c.relkind = 'v')
$$;
