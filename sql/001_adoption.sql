-- Adoption of an application's tables: what stands in the way is said, what they lack is added, and no row is touched.
--
-- As in an extension's script, @extschema@ stands for the schema, quoted where needed. Everything is qualified by it, because the
-- triggers run in the application's sessions, whose search_path is the application's own.
--
-- locks: subscriptions subscription_events integration_filters integrations

-- The plain tables, as temporary ones: the checks and the columns below are derived from them. Names mean the application's
-- tables first.
-- include in pg_temp: 002_tables.sql
-- include in pg_temp: repeatable/11_states.sql
set local search_path = @extschema@, pg_temp;

-- The SQL that makes a column's type one that can be adopted; NULL = that is the application's matter.
create function pg_temp.conversion(relation text, name text, type text, is_enum boolean, is_not_null boolean) returns text
    language sql stable as $$
    with c as (
        select quote_ident(relation) as r, quote_ident(name) as n,
               case name when 'subscription_id' then 'subscriptions' when 'integration_id' then 'integrations'
                         when 'integration_filter_id' then 'integration_filters' end as target)
    select case
        when relation = 'subscriptions' and name = 'status' and type in ('integer', 'smallint', 'bigint') then
            -- Rails numbers the states of an enum as the model lists them.
            'alter table subscriptions alter status drop default, alter status type text using '
            '(''{pending,processing,sent,failed,retry}''::text[])[status + 1], alter status set default ''pending''" '
            '(the states in the order of the application''s enum, which keeps texts from then on)'
        when is_enum then format('alter table %s alter %s drop default, alter %2$s type text using %2$s::text', r, n)
        when type = 'uuid' and name = 'id' then
            format('alter table %1$s rename id to uuid; alter table %1$s add id bigserial; alter table %1$s drop constraint %2$s cascade; '
                   'alter table %1$s add primary key (id); create unique index on %1$s (uuid)', r,
                   (select quote_ident(conname) from pg_constraint where conrelid = ('@extschema@.' || r)::regclass and contype = 'p'))
        when type = 'uuid' and target is not null then
            format('alter table %1$s rename %2$s to its_uuid; alter table %1$s add %2$s bigint; update %1$s set %2$s = t.id from %3$s t '
                   'where t.uuid = %1$s.its_uuid; alter table %1$s drop its_uuid, add foreign key (%2$s) references %3$s (id)%4$s; '
                   'create index on %1$s (%2$s)', r, n, target, case when is_not_null then format(', alter %s set not null', n) end)
        when name = 'order_id' then format('alter table %s rename %s to order_key', r, n)
        when type = 'timestamp without time zone' then
            format('alter table %s alter %s type timestamptz using %2$s at time zone ''UTC''', r, n)
        end from c
$$;

-- What stands in the way of adopting what is there: found before anything is done, all of it at once, each with what would be right.
-- Tolerated are types that a column may have beside the plain table's ("string" is every type of text, "any" every type); a varchar
-- needs room for so many characters.
create function pg_temp.obstacles() returns setof text language sql stable as $$
    with t as (
        select c.*, quote_ident(c.relname) as quoted from pg_class c
         where c.relnamespace = '@extschema@'::regnamespace
           and c.relname in ('integrations', 'integration_filters', 'subscriptions', 'subscription_events')
    ), tolerated (relation, columns, types, room) as (values
        ('integrations', '{id}', '{integer}', 0),
        ('integrations', '{name,endpoint_url,auth_token,pause_reason}', '{string}', 0),
        ('integrations', '{type}', '{character varying}', 0),
        ('integrations', '{timeout_ms,max_in_flight,max_attempts}', '{smallint}', 0),
        ('integrations', '{rate_limit}', '{integer,double precision}', 0),
        ('integrations', '{successful_sends,failed_sends}', '{integer,numeric}', 0),
        ('integrations', '{created_at,updated_at}', '{any}', 0),
        ('integration_filters', '{id,integration_id}', '{integer}', 0),
        ('integration_filters', '{origin}', '{string}', 0),
        ('integration_filters', '{position}', '{bigint,smallint}', 0),
        ('integration_filters', '{name,created_at,updated_at}', '{any}', 0),
        ('subscriptions', '{id,integration_id,integration_filter_id}', '{integer}', 0),
        ('subscriptions', '{order_id}', '{integer,smallint}', 0),
        ('subscriptions', '{origin,cpf}', '{any}', 0),
        ('subscriptions', '{status}', '{character varying}', 10),
        ('subscriptions', '{payload}', '{json,text}', 0),
        ('subscriptions', '{scheduled_to,sent_at,created_at,updated_at}', '{timestamp without time zone}', 0),
        ('subscriptions', '{claimed_by,last_error,last_response,traceparent}', '{character varying}', 1 << 30),
        ('subscription_events', '{subscription_id,integration_id,order_id}', '{integer}', 0),
        ('subscription_events', '{event_type,status,operation_name,from_status,to_status}', '{character varying}', 20),
        ('subscription_events', '{attempt,http_status,duration_ms}', '{bigint}', 0),
        ('subscription_events', '{request,response}', '{character varying,json,jsonb}', 1 << 30),
        ('subscription_events', '{error_message,origin,cpf,traceparent}', '{character varying}', 1 << 30),
        ('subscription_events', '{created_at}', '{timestamp without time zone}', 0),
        -- Rails has one; anubisd has none.
        ('subscription_events', '{updated_at}', '{timestamp with time zone,timestamp without time zone}', 0)
    ), plain as (
        select c.relname, a.attname, format_type(a.atttypid, null) as type, pg_get_expr(d.adbin, d.adrelid) as fallback
          from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
          left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
         where c.relnamespace = pg_my_temp_schema()
    ), present as (
        select t.oid, t.relname, t.quoted, a.attname, a.attnotnull, a.attgenerated, a.attidentity, a.atthasdef, p.fallback, l.room,
               case when l.types = '{any}' then null when l.types = '{string}' or p.type is null then l.types::text[]
                    else array[p.type] || l.types::text[] end as types,
               format_type(a.atttypid, null) as type, y.typcategory, y.oid as type_oid,
               case when a.atttypid in ('varchar'::regtype, 'bpchar'::regtype) and a.atttypmod >= 4 then a.atttypmod - 4 end as holds
          from t join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped join pg_type y on y.oid = a.atttypid
          left join plain p on p.relname = t.relname and p.attname = a.attname
          left join tolerated l on l.relation = t.relname and a.attname = any (l.columns::text[])
    ), events as (select * from t where relname = 'subscription_events')
    select 'the database''s encoding is SQL_ASCII, in which Postgres takes any bytes for text, and what anubisd sends is UTF-8: make one of the '
           'encoding UTF8 ("createdb -T template0 -E UTF8 NAME"), load a dump of this one into it where it has data, and let database.conninfo '
           'name that one' where current_setting('server_encoding') = 'SQL_ASCII'
    union all
    -- Names.
    select format('a relation named "%s" exists already and is not anubisd''s: rename it, or give anubisd another schema (database.schema)', c.relname)
      from pg_class c
     where c.relnamespace = '@extschema@'::regnamespace
       -- The names of 002_tables.sql, but for the adopted tables, and for what the server gives another name where one is taken.
       and (c.relname in (select n.relname from pg_class n
                           where n.relnamespace = pg_my_temp_schema() and n.relname <> all (array(select relname from t))
                             and not exists (select from pg_constraint k where k.conindid = n.oid)
                             and not exists (select from pg_depend d where d.objid = n.oid and d.classid = 'pg_class'::regclass and d.deptype = 'i'))
            or c.relname in ('integrations_open', 'subscription_event_feed', 'subscription_event_messages', 'change_with_anubis_alter')
            or c.relname ~ '^subscription_events_(adopted|default|[0-9]+)$')
    union all
    select format('a function named "%s" exists already and is not anubisd''s: rename it, or give anubisd another schema (database.schema)', p.proname)
      from pg_proc p
     where p.pronamespace = '@extschema@'::regnamespace
       and (p.proname = any ('{lock_base,lock_key,lock_holder,lead_lock,daemon_seen,work_refused,ledger_is_foreign,triggers_amiss,tables_amiss,tables_bypassed,tables_needed,columns_ours,tables_mend,table_moved,table_elsewhere,table_put_back,views_amiss,replica_session,sequences_behind,cleaning_allowed,structure_note,structure_mend,anubis_steps,columns_needed,columns_amiss,states_refused,rows_changed,anubis_alter,as_instant,as_state,as_document,as_jsonb,event_time,integration_changed,integration_mended,integration_try_again,integration_check,integration_drawn_again,integration_fingerprint,integration_gone,integration_required,integration_filter_required,integration_filter_check,subscriptions_route,subscriptions_resend,subscriptions_erase,subscription_unlike,subscription_next,subscriptions_drawn,subscriptions_note,schemas_swapped,reference_kept,circuit_next,circuit_note,refusals_judged,latency_index,histogram_add,histogram_ms,rate_of,rate_next,rate_tokens,may_serve,integration_begun,confirmation_usec,confirmation_changed,erased_decision,salts_erase,letters_erase,audit_unmark,audit_mark,audit_fold,audit_hash,audit_tiles_make,letter_names,letter_headers_kept,plain_digits,cpf_digits,key_partition}'::text[])
            or p.proname ~ '^(ledger|doorbell|installation|delivery_settings)_[a-z_]+$|^subscription_(due|now|seeded|integration|inserted|updated|changed_by_others|judged|refused|refuse|strays|erased|moved|deletion_refused|change_refused)$')
    union all
    select format('trigger "%s" on "%s" is named like anubisd''s: rename it', g.tgname, t.relname)
      from t join pg_trigger g on g.tgrelid = t.oid where not g.tgisinternal and (g.tgname like 'anubis\_%' or g.tgname like 'ledger\_%')
    -- Kinds of tables.
    union all
    select format('"%s" is a %s: anubisd''s triggers need the plain table itself, by that name', t.relname,
                  case t.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'f' then 'foreign table'
                                 when 'p' then 'partitioned table' when 'r' then 'partition of another table' else 'relation of another kind' end)
      from t where t.relkind <> 'r' or t.relispartition
    union all
    select format('table "%s" inherits from "%s": what is written there would have no events; end it with "alter table %s no inherit %s"',
                  c.relname, t.relname, i.inhrelid::regclass, t.quoted)
      from t join pg_inherits i on i.inhparent = t.oid join pg_class c on c.oid = i.inhrelid where t.relkind = 'r'
    union all
    select format('table "%1$s" is unlogged and empty after a crash: run "alter table %2$s set logged"', t.relname, t.quoted)
      from t where t.relpersistence = 'u' and t.relkind = 'r'
    union all
    select format('rule "%s" on table "%s" changes what is written: drop it', r.rulename, t.relname)
      from t join pg_rewrite r on r.ev_class = t.oid where t.relkind = 'r'
    union all
    select format('table "%1$s" has no primary key on "id": run "alter table %2$s add primary key (id)"', t.relname, t.quoted)
      from t where t.relkind = 'r'
       and not exists (select from pg_index x join pg_attribute a on a.attrelid = t.oid and a.attname = 'id'
                        where x.indrelid = t.oid and x.indisunique and x.indimmediate and x.indisvalid and x.indpred is null
                          and x.indnkeyatts = 1 and x.indkey[0] = a.attnum)
    union all
    select format('row security hides rows of table "%s" from role "%s": migrate as a role with the attribute BYPASSRLS, or run '
                  '"alter table %s no force row level security"', t.relname, current_user, t.quoted)
      from t where t.relkind = 'r' and row_security_active(t.oid)
    -- Columns.
    union all
    (select format('column "%s" of table "%s" is of type %s. anubisd can adopt it as %s. %s, then run the migration again',
                  p.attname, p.relname, p.type, replace(array_to_string(p.types, ' or '), 'string', 'text'),
                  coalesce('Run "' || pg_temp.conversion(p.relname, p.attname, p.type, p.typcategory = 'E', p.attnotnull)
                           || case when p.relname = 'subscriptions' and p.attname = 'status' and p.typcategory = 'N' then '' else '"' end,
                           'Change the column''s type'))
      from present p
     where p.type <> all (p.types) and not ('string' = any (p.types) and p.typcategory = 'S')
       and not (p.relname = 'subscriptions' and p.attname = 'status' and p.typcategory = 'E')
     order by p.attname <> 'id', p.relname, p.attname)
    union all
    select format('type %s of column "status" of table "subscriptions" does not know all states: run "%s"', p.type,
                  (select string_agg(format('alter type %s add value %L', p.type, s), '; ')
                     from unnest('{pending,processing,sent,failed,retry}'::text[]) s
                    where s not in (select enumlabel from pg_enum where enumtypid = p.type_oid)))
      from present p
     where p.relname = 'subscriptions' and p.attname = 'status' and p.typcategory = 'E'
       and exists (select from unnest('{pending,processing,sent,failed,retry}'::text[]) s
                    where s not in (select enumlabel from pg_enum where enumtypid = p.type_oid))
    union all
    select format('column "%1$s" of table "%2$s" has room for %3$s characters only: run "alter table %4$s alter column %5$I type text"',
                  p.attname, p.relname, p.holds, p.quoted, p.attname)
      from present p where p.type = any (p.types) and p.holds < p.room
    union all
    select format('column "%1$s" of table "%2$s" may hold NULL: fill it and run "alter table %3$s %5$salter column %4$I set not null"',
                  p.attname, p.relname, p.quoted, p.attname,
                  case when not p.atthasdef then format('alter column %I set default %L, ', p.attname, p.fallback) end)
      from present p where p.attname in ('enabled', 'attempts') and p.relname <> 'subscription_events' and not p.attnotnull
    union all
    select format('column "%s" of table "%s" is generated, and anubisd writes it: make it an ordinary column', p.attname, p.relname)
      from present p where p.types is not null and p.attgenerated <> ''
       and (p.relname = 'subscription_events' or p.attname not in ('name', 'type', 'origin', 'cpf', 'order_id', 'payload'))
    union all
    select format('column "%1$s" of table "%2$s" is NOT NULL, and anubisd empties it: run "alter table %3$s alter column %4$I drop not null"',
                  p.attname, p.relname, p.quoted, p.attname)
      from present p
     where p.attnotnull and p.attname = any ('{next_attempt_at,claimed_by,claim_token,lease_expires_at,held_at,last_error,last_http_status,
           last_response,last_response_truncated,last_duration_ms,last_ambiguous,last_decided_by,paused_until,pause_reason}'::text[])
       and p.relname in ('subscriptions', 'integrations')
    -- subscription_events becomes a partition: what hangs on it would know the rows of before only.
    union all
    select format('column "%1$s" of table "subscription_events" is NOT NULL, and events %3$s: run "alter table subscription_events alter column %2$I %4$s"',
                  p.attname, p.attname, case when p.types is null then 'have no value for it' else 'may be without it' end,
                  case when p.types is null then 'set default ...", or "... drop not null' else 'drop not null' end)
      from present p
     where p.relname = 'subscription_events' and p.attnotnull and p.attgenerated = ''
       and case when p.types is null then not p.atthasdef or p.attidentity <> ''
                else p.attname not in ('id', 'event_id', 'event_type', 'subscription_id', 'operation_name', 'created_at', 'updated_at') end
    union all
    select format('constraint "%s" of table %s refers to "subscription_events", which is about to be partitioned: drop it', k.conname, k.conrelid::regclass)
      from events e join pg_constraint k on k.confrelid = e.oid
    union all
    select distinct format('view %s reads "subscription_events", which is about to be partitioned: drop it, and make it again afterwards',
                           r.ev_class::regclass)
      from events e join pg_depend d on d.refobjid = e.oid and d.classid = 'pg_rewrite'::regclass join pg_rewrite r on r.oid = d.objid
     where r.ev_class <> e.oid
    union all
    select format('trigger "%s" is on "subscription_events", which is about to be partitioned: drop it, and make it again afterwards', g.tgname)
      from events e join pg_trigger g on g.tgrelid = e.oid where not g.tgisinternal
    union all
    select format('publication "%s" holds "subscription_events", which is about to be partitioned, and would miss all later events: run '
                  '"alter publication %I drop table %s", and add the table again afterwards', p.pubname, p.pubname, e.oid::regclass)
      from events e join pg_publication_rel r on r.prrelid = e.oid join pg_publication p on p.oid = r.prpubid
    union all
    select 'row security of table "subscription_events", which is about to be partitioned, would end: run "alter table subscription_events '
           'disable row level security", and enable it again afterwards'
      from events e where e.relrowsecurity
$$;

-- Columns by which applications delete rows without deleting them, with the condition that such a row fulfils. They mean nothing to anubisd.
create function pg_temp.deletion_marks() returns table (relation text, name text, condition text) language sql stable as $$
    select c.relname, a.attname, format(case when a.atttypid = 'boolean'::regtype then '%I' when y.typcategory = 'N' then '%I <> 0' else '%I is not null' end,
                                          a.attname)
      from pg_class c join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped join pg_type y on y.oid = a.atttypid
     where c.relnamespace = '@extschema@'::regnamespace and c.relname in ('subscriptions', 'integrations')
       and a.attname ~* ('^(is_?)?(deleted|discarded|removed|archived|destroyed|trashed|cancell?ed|excluid[oa]|apagad[oa]|removid[oa]|'
                         'arquivad[oa]|descartad[oa]|cancelad[oa])(_?(at|on|em))?$')
       and (a.atttypid = 'boolean'::regtype or y.typcategory in ('D', 'N'))
$$;

-- Rows that are marked as deleted and would be sent, or sent to, all the same.
create function pg_temp.deleted_rows_refused() returns setof text language plpgsql as $$
declare
    m record;
    found_rows bigint;
    has_enabled boolean := exists (select from pg_attribute where attrelid = to_regclass('@extschema@.integrations')
                                    and attname = 'enabled' and not attisdropped);
    sql text;
begin
    for m in select * from pg_temp.deletion_marks() loop
        if m.relation = 'subscriptions' then
            sql := m.condition || ' and status in (''pending'', ''retry'')';
        else
            sql := m.condition || case when has_enabled then ' and enabled' else '' end;
        end if;
        execute format('select count(*) from @extschema@.%I where %s', m.relation, sql) into found_rows;
        if found_rows > 0 and m.relation = 'subscriptions' then
            return next format('%s subscriptions are marked by the column "%s" and wait, so they would be sent: run '
                               '"update subscriptions set status = ''failed'' where %s"', found_rows, m.name, sql);
        elsif found_rows > 0 then
            return next format('%s integrations are marked by the column "%s", and their subscriptions would be sent: run "%supdate '
                               'integrations set enabled = false where %s"', found_rows, m.name,
                               case when not has_enabled then 'alter table integrations add enabled boolean not null default true; ' else '' end,
                               sql);
        else
            raise warning 'column "%" of table "%" means nothing to anubisd: %', m.name, m.relation,
                case m.relation when 'subscriptions' then 'a row that must not be sent is set to status "failed"'
                                else 'an integration that must get nothing is set to enabled = false' end;
        end if;
    end loop;
end $$;

-- Times without zone are taken for UTC. Local ones show when the newest are ahead of the clock, or whole hours behind it.
create function pg_temp.local_times() returns setof text language plpgsql as $$
declare
    c record;
    at timestamp;
    newest timestamp;
    behind interval;
begin
    if current_setting('anubis.times_are_utc', true) = 'on' then
        return;
    end if;
    for c in select f.relname, array_agg(a.attname::text) as names,
                    string_agg(format('alter %I type timestamptz using %1$I at time zone ''ZONE''', a.attname), ', ') as changes
               from pg_class f join pg_attribute a on a.attrelid = f.oid and a.atttypid = 'timestamp'::regtype and not a.attisdropped
              where f.relnamespace = '@extschema@'::regnamespace and f.relname in ('subscriptions', 'subscription_events')
                and a.attname in ('created_at', 'updated_at', 'sent_at', 'scheduled_to')
              group by f.relname order by f.relname loop
        newest := null;
        for i in 1 .. cardinality(c.names) loop
            continue when c.names[i] = 'scheduled_to';  -- lies ahead
            execute format('select max(%I) from @extschema@.%I where isfinite(%1$I)', c.names[i], c.relname) into at;
            newest := greatest(newest, at);
        end loop;
        behind := clock_timestamp() at time zone 'UTC' - newest;
        continue when newest is null or behind > interval '12 hours 5 minutes'
            or behind between interval '-5 minutes' and interval '55 minutes'
            or behind > interval '0' and abs(extract(epoch from behind) - round(extract(epoch from behind) / 3600) * 3600) > 300;
        return next format('times without zone of table "%1$s" seem to be local ones, and anubisd would take them for UTC: the newest is %2$s the '
                           'clock. If they are, run "alter table %1$s %3$s" with the application''s zone for ZONE; if they are UTC, '
                           'migrate with --utc', c.relname,
                           to_char(greatest(behind, -behind), 'FMHH24 "h" FMMI "min"') || case when behind > '0' then ' behind' else ' ahead of' end,
                           c.changes);
    end loop;
end $$;

-- What rows and rules have against it: what does not let all the states in, rows in others, ids that no event can name, rows that are
-- marked as deleted, local times.
create function pg_temp.contents_refused() returns setof text language plpgsql as $$
declare
    k record;
begin
    return query select * from pg_temp.states_refused(to_regclass('@extschema@.subscriptions'));
    if to_regclass('@extschema@.integrations') is not null then
        return query execute 'select format(''integration %s has an id that no event can name: give it a positive one'', id)
                                from @extschema@.integrations where id <= 0 order by id limit 20';
    end if;
    if exists (select from pg_attribute where attrelid = to_regclass('@extschema@.subscriptions') and attname = 'status'
                                          and not attisdropped) then
        for k in execute 'select status::text as status, count(*) as number from @extschema@.subscriptions group by 1 order by 1' loop
            if k.status = any ('{pending,processing,sent,failed,retry}') then
                continue;
            elsif lower(btrim(k.status)) = any ('{pending,processing,sent,failed,retry}') then
                return next format('%s subscriptions have the status "%s", which is none of the states: run "update subscriptions set status = '
                                   '%L where status = %L"', k.number, k.status, lower(btrim(k.status)), k.status);
            else
                raise warning '% subscriptions have the status %, which means nothing to anubisd: they stay as they are', k.number,
                    coalesce(quote_ident(k.status), 'NULL');
            end if;
        end loop;
        return query execute 'select format(''subscription %s waits, and has an id that no event can name: give it a positive one, or set it to failed'', id)
                                from @extschema@.subscriptions where id <= 0 and status in (''pending'', ''processing'', ''retry'')
                               order by id limit 20';
    end if;
    return query select * from pg_temp.deleted_rows_refused();
    return query select * from pg_temp.local_times();
end $$;

do $$
declare
    obstacles text[] := array(select pg_temp.obstacles());
    obstacle text;
begin
    if obstacles = '{}' then
        obstacles := array(select pg_temp.contents_refused());
    end if;
    if cardinality(obstacles) = 1 then
        raise exception using errcode = 'object_not_in_prerequisite_state', message = obstacles[1];
    elsif cardinality(obstacles) > 1 then
        foreach obstacle in array obstacles loop
            raise warning using errcode = 'object_not_in_prerequisite_state', message = obstacle;
        end loop;
        raise exception using errcode = 'object_not_in_prerequisite_state',
            message = format('%s things keep anubisd from adopting the tables, named above', cardinality(obstacles));
    end if;
end $$;

-- Rows that the application was sending itself.
do $$
declare
    waiting bigint;
begin
    if to_regclass('@extschema@.subscriptions') is not null and exists (select from pg_attribute where attname = 'status'
            and attrelid = to_regclass('@extschema@.subscriptions') and not attisdropped) then
        select count(*) into waiting from @extschema@.subscriptions where status = 'processing';
        if waiting > 0 then
            raise warning '% subscriptions stand in "processing": ten minutes after a daemon finds them they are tried again, or held when '
                          'they are older than retry.max_age. Let the application''s sender end first', waiting;
        end if;
    end if;
end $$;

-- How an institution is reached may depend on its type in the application.
do $$
declare
    types text;
begin
    if exists (select from pg_attribute where attname = 'type' and attrelid = to_regclass('@extschema@.integrations') and not attisdropped) then
        select string_agg(format('"%s" (%s)', left(k.type, 40), k.number), ', ' order by k.number desc, k.type) into types
          from (select i.type::text, count(*) as number from @extschema@.integrations i where lower(i.type::text) <> 'api'
                 group by 1 order by 2 desc limit 10) k;
        if types is not null then
            raise warning 'column "type" of table "integrations" has the values %: anubisd passes them on in its events, and sends to all alike, '
                          'by an HTTP POST to endpoint_url. Set those that need another way to enabled = false', types;
        end if;
    end if;
end $$;

-- Who could read and write the application's table can read and write the one that stands in its place.
create function pg_temp.pass_on_rights() returns void language plpgsql as $$
declare
    old record;
    granted record;
begin
    select oid, relacl, relowner, pg_get_userbyid(relowner) as owner into old
      from pg_class where oid = '@extschema@.subscription_events_adopted'::regclass;
    for granted in select x.privilege_type || coalesce(' (' || quote_ident(r.attname) || ')', '') as privilege,
                          coalesce(quote_ident(pg_get_userbyid(nullif(x.grantee, 0))), 'public') as grantee
                     from (select old.relacl, null::name union all
                           select attacl, attname from pg_attribute where attrelid = old.oid and attacl is not null) r (acl, attname),
                          aclexplode(r.acl) x
                    where x.grantee <> old.relowner and x.privilege_type in ('SELECT', 'INSERT', 'UPDATE', 'DELETE') loop
        execute format('grant %s on @extschema@.subscription_events to %s', granted.privilege, granted.grantee);
    end loop;
    if old.owner <> current_user then
        execute format('grant select, insert, update, delete on @extschema@.subscription_events to %I', old.owner);
    end if;
end $$;

-- Adds the columns that the plain table has and the application's lacks, with defaults, checks and references; to the ledger as bare
-- columns, because its old rows are no events of anubisd's. No row is rewritten: defaults are constant, or, where a column may hold
-- NULL, for new rows only.
create table pg_temp.anubis_references (command text);  -- to tables that 002_tables.sql makes; 003_ledger.sql adds them
create function pg_temp.complete(relation text) returns void language plpgsql as $$
declare
    bare boolean := relation = 'subscription_events';
    c record;
begin
    for c in
        select a.attname, format_type(a.atttypid, a.atttypmod) as type,
               case when a.attnotnull and not k.rests then ' default ' || pg_get_expr(d.adbin, d.adrelid) || ' not null' end as fallback,
               case when not a.attnotnull then pg_get_expr(d.adbin, d.adrelid) end as fallback_of_new_rows,
               (select ' ' || pg_get_constraintdef(k.oid) from pg_constraint k
                 where k.conrelid = a.attrelid and k.conname = format('%s_%s_check', relation, a.attname)) as checked,
               (select format('@extschema@.%I', f.relname) from pg_constraint k join pg_class f on f.oid = k.confrelid
                 where k.conrelid = a.attrelid and k.conkey = array[a.attnum] and k.contype = 'f') as target
          from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
         -- A filter of the application's, old or new, routes nothing until somebody says by which criteria: they are NULL.
         cross join lateral (select relation = 'integration_filters' and a.attname = 'criteria' as rests) k
         where a.attrelid = ('pg_temp.' || relation)::regclass and a.attnum > 0
           and not exists (select from pg_attribute o where o.attrelid = ('@extschema@.' || relation)::regclass
                              and o.attname = a.attname and not o.attisdropped)
         order by a.attnum
    loop
        execute format('alter table @extschema@.%I add column %I %s', relation, c.attname, c.type)
                || case when bare then '' else concat(c.fallback, c.checked, ' references ' || to_regclass(c.target)) end;
        if not bare and c.fallback_of_new_rows is not null then
            execute format('alter table @extschema@.%I alter column %I set default %s', relation, c.attname, c.fallback_of_new_rows);
        end if;
        insert into pg_temp.anubis_references
            select format('alter table @extschema@.%I add foreign key (%I) references %s', relation, c.attname, c.target)
             where to_regclass(c.target) is null and c.target is not null;
    end loop;
end $$;

-- The application's ledger keeps its rows, columns, types and constraints, and becomes the oldest partition. The parent copies its
-- definitions, so that attaching always fits; rows that the application writes itself go on getting its defaults.
create function pg_temp.adopt_ledger() returns void language plpgsql as $$
declare
    instant record;
begin
    alter table @extschema@.subscription_events rename to subscription_events_adopted;
    alter table @extschema@.subscription_events_adopted alter column id drop identity if exists;  -- no partition may have one
    create table @extschema@.subscription_events (like @extschema@.subscription_events_adopted including defaults including generated)
        partition by range (id);
    alter table @extschema@.subscription_events add primary key (id);
    for instant in select a.attname, case a.attname when 'created_at' then 'clock_timestamp()' else 'now()' end
                          || case when a.atttypid = 'timestamp'::regtype then ' at time zone ''UTC''' else '' end as fallback
                     from pg_attribute a
                    where a.attrelid = '@extschema@.subscription_events'::regclass and a.attname in ('created_at', 'updated_at') loop
        execute format('alter table @extschema@.subscription_events alter column %I set default %s', instant.attname, instant.fallback);
    end loop;
    execute format('alter table @extschema@.subscription_events attach partition @extschema@.subscription_events_adopted
                    for values from (minvalue) to (%s)',
                   (select coalesce(max(id), 0) + 1 from @extschema@.subscription_events_adopted));
    perform pg_temp.pass_on_rights();
end $$;

-- The application's own columns of subscriptions have the foreign keys that it wants them to have.
create table pg_temp.anubis_adopted as
    select attname from pg_attribute where attrelid = to_regclass('@extschema@.subscriptions') and not attisdropped;

do $$
declare
    relation text;
begin
    foreach relation in array '{integrations,integration_filters,subscriptions,subscription_events}'::text[] loop
        if to_regclass('@extschema@.' || relation) is not null then
            perform pg_temp.complete(relation);
        end if;
    end loop;
    if to_regclass('@extschema@.integrations') is not null then
        alter table @extschema@.integrations set (fillfactor = 50);
    end if;
    if to_regclass('@extschema@.subscription_events') is not null then
        perform pg_temp.adopt_ledger();
    end if;
end $$;
