-- Tables: what the web application and anubisd share, and what is anubisd's alone.
--
-- As in an extension's script, @extschema@ stands for the schema, quoted where needed. Everything is qualified by it, because the
-- triggers run in the application's sessions, whose search_path is the application's own.
--
-- Tables that the application already owns are adopted: missing columns are added with constant defaults (which
-- rewrites nothing), present ones stay as they are, and no row is touched.
--
-- locks: subscriptions subscription_events integration_filters integrations

create function pg_temp.column_type(relation text, column_name text) returns text language sql stable as $$
    select format_type(a.atttypid, null) from pg_attribute a
     where a.attrelid = to_regclass('@extschema@.' || quote_ident(relation)) and a.attname = column_name and not a.attisdropped
$$;

-- Adds "name type and constraints" to a table where no column of that name is.
create function pg_temp.complete(relation text, variadic columns text[]) returns void language plpgsql as $$
declare
    definition text;
begin
    foreach definition in array columns loop
        if pg_temp.column_type(relation, split_part(definition, ' ', 1)) is null then
            execute format('alter table @extschema@.%I add column %s', relation, definition);
        end if;
    end loop;
end $$;

-- What stands in the way of adopting what is there: found before anything is done, all of it at once, each with what would be right.
-- A column is checked where there is one: its types ("string" is every type of text), whether it may hold NULL, and the room it must have.
create function pg_temp.obstacles() returns setof text language sql stable as $$
    with t as (
        select c.*, quote_ident(c.relname) as quoted from pg_class c
         where c.relnamespace = '@extschema@'::regnamespace
           and c.relname in ('integrations', 'integration_filters', 'subscriptions', 'subscription_events')
    ), expected (relation, columns, types, filled, room) as (values
        ('integrations', '{id}', '{bigint,integer}'::text[], true, 0),
        ('integrations', '{name,endpoint_url,auth_token,pause_reason}', '{string}', false, 0),
        ('integrations', '{type}', '{text,character varying}', false, 0),
        ('integrations', '{enabled}', '{boolean}', true, 0),
        ('integrations', '{timeout_ms,max_in_flight,max_attempts}', '{integer,smallint}', false, 0),
        ('integrations', '{rate_limit}', '{numeric,integer,double precision}', false, 0),
        ('integrations', '{settings}', '{jsonb}', false, 0),
        ('integrations', '{successful_sends,failed_sends}', '{bigint,integer,numeric}', false, 0),
        ('integrations', '{circuit_state}', '{text,character varying}', true, 9),
        ('integrations', '{paused_until}', '{timestamp with time zone}', false, 0),
        ('integration_filters', '{id,integration_id}', '{bigint,integer}', false, 0),
        ('integration_filters', '{origin}', '{string}', false, 0),
        ('integration_filters', '{criteria}', '{jsonb}', false, 0),
        ('integration_filters', '{position}', '{integer,bigint,smallint}', false, 0),
        ('integration_filters', '{enabled}', '{boolean}', true, 0),
        ('subscriptions', '{id}', '{bigint,integer}', true, 0),
        ('subscriptions', '{integration_id,integration_filter_id}', '{bigint,integer}', false, 0),
        ('subscriptions', '{order_id}', '{bigint,integer,smallint}', false, 0),
        ('subscriptions', '{status}', '{text,character varying}', false, 10),
        ('subscriptions', '{payload}', '{jsonb,json,text}', false, 0),
        ('subscriptions', '{attempts,payload_version}', '{integer}', true, 0),
        ('subscriptions', '{scheduled_to,sent_at,created_at,updated_at}', '{timestamp with time zone,timestamp without time zone}', false, 0),
        ('subscriptions', '{next_attempt_at,lease_expires_at,held_at}', '{timestamp with time zone}', false, 0),
        ('subscriptions', '{claimed_by,last_error,last_response,traceparent}', '{text,character varying}', false, 1 << 30),
        ('subscriptions', '{claim_token}', '{bigint}', false, 0),
        ('subscriptions', '{last_http_status,last_duration_ms}', '{integer}', false, 0),
        ('subscriptions', '{last_response_truncated,last_ambiguous}', '{boolean}', false, 0),
        ('subscription_events', '{id}', '{bigint}', true, 0),
        ('subscription_events', '{event_id}', '{uuid}', false, 0),
        ('subscription_events', '{subscription_id,integration_id,order_id}', '{bigint,integer}', false, 0),
        ('subscription_events', '{event_type,status,operation_name,from_status,to_status}', '{text,character varying}', false, 20),
        ('subscription_events', '{attempt,http_status,duration_ms}', '{integer,bigint}', false, 0),
        ('subscription_events', '{request,response}', '{text,character varying,json,jsonb}', false, 1 << 30),
        ('subscription_events', '{error_message,origin,cpf,traceparent}', '{text,character varying}', false, 1 << 30),
        ('subscription_events', '{created_at,updated_at}', '{timestamp with time zone,timestamp without time zone}', false, 0),
        ('subscription_events', '{sent_at,scheduled_to,next_attempt_at,subscription_created_at,subscription_updated_at}',
         '{timestamp with time zone}', false, 0),
        ('subscription_events', '{ambiguous,response_truncated}', '{boolean}', false, 0)
    ), present as (
        select t.oid, t.relname, t.quoted, a.attname, a.attnotnull, a.attgenerated, a.attidentity, a.atthasdef, e.types, e.filled, e.room,
               format_type(a.atttypid, null) as type, y.typcategory,
               case when a.atttypid in ('varchar'::regtype, 'bpchar'::regtype) and a.atttypmod >= 4 then a.atttypmod - 4 end as holds
          from t join pg_attribute a on a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped join pg_type y on y.oid = a.atttypid
          left join expected e on e.relation = t.relname and a.attname = any (e.columns::text[])
    ), events as (select * from t where relname = 'subscription_events')
    -- Names.
    select format('a relation named "%s" exists already and is not anubisd''s: rename it, or give anubisd another schema (database.schema)', c.relname)
      from pg_class c
     where c.relnamespace = '@extschema@'::regnamespace
       and (c.relname = any ('{alerts,alerts_firing,integration_stats,dead_letters,audit_log,confirmations,outbox,installation,relay_state,
                               relay_topics,consumer_offsets,consumer_bitmaps,ledger_partitions,ledger_baseline,ledger_baseline_key,
                               ledger_id_seq,integration_runtime,subscriptions_due,subscriptions_lease,subscriptions_held,
                               subscription_events_subscription,subscription_event_feed,subscription_event_messages}'::text[])
            or c.relname ~ '^subscription_events_(adopted|default|[0-9]+)$')
    union all
    select format('a function named "%s" exists already and is not anubisd''s: rename it, or give anubisd another schema (database.schema)', p.proname)
      from pg_proc p
     where p.pronamespace = '@extschema@'::regnamespace
       and (p.proname = any ('{lock_key,as_json,event_time,event_response,integration_changed,integration_check}'::text[])
            or p.proname ~ '^(ledger|doorbell)_[a-z_]+$|^subscription_(due|now|inserted|updated|changed_by_others|payload_changed|transition_refused|deletion_refused)$')
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
    select format('column "%s" of table "%s" is of type %s. anubisd can adopt it as %s. Change the column''s type, then run the migration again',
                  p.attname, p.relname, p.type, replace(array_to_string(p.types, ' or '), 'string', 'text'))
      from present p where p.type <> all (p.types) and not ('string' = any (p.types) and p.typcategory = 'S')
    union all
    select format('column "%1$s" of table "%2$s" has room for %3$s characters only: run "alter table %4$s alter column %5$I type text"',
                  p.attname, p.relname, p.holds, p.quoted, p.attname)
      from present p where p.type = any (p.types) and p.holds < p.room
    union all
    select format('column "%1$s" of table "%2$s" may hold NULL: fill it and run "alter table %3$s %5$salter column %4$I set not null"',
                  p.attname, p.relname, p.quoted, p.attname,
                  case when not p.atthasdef then format('alter column %I set default %L, ', p.attname,
                       case p.attname when 'enabled' then 'true' when 'circuit_state' then 'closed' when 'payload_version' then '1' else '0' end) end)
      from present p where p.filled and not p.attnotnull and p.attname <> 'id'
    union all
    select format('column "%s" of table "%s" is generated, and anubisd writes it: make it an ordinary column', p.attname, p.relname)
      from present p where p.types is not null and p.attgenerated <> ''
       and (p.relname = 'subscription_events' or p.attname not in ('name', 'type', 'origin', 'cpf', 'order_id', 'payload'))
    union all
    select format('column "%1$s" of table "%2$s" is NOT NULL, and anubisd empties it: run "alter table %3$s alter column %4$I drop not null"',
                  p.attname, p.relname, p.quoted, p.attname)
      from present p
     where p.attnotnull and p.attname = any ('{next_attempt_at,claimed_by,claim_token,lease_expires_at,held_at,last_error,last_http_status,
           last_response,last_response_truncated,last_duration_ms,last_ambiguous,paused_until,pause_reason}'::text[])
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

-- A check of the application's that does not know all the states.
create function pg_temp.states_refused() returns setof text language plpgsql as $$
declare
    k record;
    refused text;
begin
    for k in select c.conname, pg_get_expr(c.conbin, c.conrelid) as condition, format_type(a.atttypid, null) as type
               from pg_constraint c join pg_attribute a on a.attrelid = c.conrelid and c.conkey = array[a.attnum] and a.attname = 'status'
              where c.conrelid = to_regclass('@extschema@.subscriptions') and c.contype = 'c' loop
        execute format('select string_agg(quote_literal(status), '', '') from (select unnest(''{pending,processing,sent,failed,retry}''::%s[]) as status) s
                        where not %s', k.type, k.condition) into refused;
        if refused is not null then
            return next format('constraint "%s" of table "subscriptions" refuses the status %s: drop it (anubisd brings its own) or let it pass',
                               k.conname, refused);
        end if;
    end loop;
end $$;

do $$
declare
    obstacles text[] := array(select pg_temp.obstacles());
    obstacle text;
begin
    if obstacles = '{}' then
        obstacles := array(select pg_temp.states_refused());
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

-- ---------------------------------------------------------------------------------------------------------------------
-- integrations: one institution's HTTP API each. NULL settings mean the configured default.

create table if not exists @extschema@.integrations (
    id bigint generated by default as identity primary key,
    name text not null
);
select pg_temp.complete('integrations',
    'name text not null default ''''',
    'type text not null default ''api''',
    'endpoint_url text',
    'auth_token text',
    'enabled boolean not null default true',
    'timeout_ms integer check (timeout_ms > 0)',
    'max_in_flight integer check (max_in_flight > 0)',
    'rate_limit numeric check (rate_limit > 0 and rate_limit <= 1000000)',
    'max_attempts integer check (max_attempts > 0)',
    'settings jsonb not null default ''{}''',
    'successful_sends bigint not null default 0',
    'failed_sends bigint not null default 0',
    'circuit_state text not null default ''closed'' check (circuit_state in (''closed'', ''open'', ''half_open''))',
    'paused_until timestamptz',
    'pause_reason text',
    'created_at timestamptz not null default now()',
    'updated_at timestamptz not null default now()');
-- Consumers update the counters while every inserted subscription takes a key-share lock on its integration: room for HOT updates.
alter table @extschema@.integrations set (fillfactor = 50);

-- Slots, rate tokens and circuits that several daemons share: beside the row that the counters update.
create table @extschema@.integration_runtime (
    integration_id bigint primary key,
    consecutive_failures integer not null default 0,
    opened_at timestamptz,
    probe_at timestamptz,
    probe_token bigint,
    recovery interval,
    tokens double precision,
    tokens_at timestamptz,
    updated_at timestamptz not null default now()
) with (fillfactor = 50);

create table if not exists @extschema@.integration_filters (
    id bigint generated by default as identity primary key,
    integration_id bigint not null references @extschema@.integrations (id)
);
select pg_temp.complete('integration_filters',
    'name text',
    'origin text',
    'criteria jsonb not null default ''{}''',
    'position integer not null default 0',
    'enabled boolean not null default true',
    'created_at timestamptz not null default now()',
    'updated_at timestamptz not null default now()');

-- ---------------------------------------------------------------------------------------------------------------------
-- subscriptions: one enrolment each, on its way to its integration.

create table if not exists @extschema@.subscriptions (
    id bigint generated by default as identity primary key,
    integration_id bigint references @extschema@.integrations (id),
    integration_filter_id bigint references @extschema@.integration_filters (id)
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_analyze_scale_factor = 0.05);
select pg_temp.complete('subscriptions',
    'integration_id bigint references @extschema@.integrations (id)',
    'integration_filter_id bigint references @extschema@.integration_filters (id)',
    'order_id bigint',
    'origin text',
    'cpf text',
    'payload jsonb not null default ''{}''',
    'status text not null default ''pending''',
    'attempts integer not null default 0',
    'scheduled_to timestamptz',
    'next_attempt_at timestamptz',
    'claimed_by text',
    'claim_token bigint',
    'lease_expires_at timestamptz',
    'held_at timestamptz',
    'sent_at timestamptz',
    'last_error text',
    'last_http_status integer',
    'created_at timestamptz not null default now()',
    'updated_at timestamptz not null default now()',
    -- How the triggers learn what they cannot see in the change itself.
    'last_response text',
    'last_response_truncated boolean',
    'last_duration_ms integer',
    'last_ambiguous boolean',
    -- Counted up whenever the payload changes: part of the Idempotency-Key.
    'payload_version integer not null default 0',
    'traceparent text');

-- When a waiting subscription may go out: the later of both times, and at once when neither is given. The application's column may
-- be without time zone and then means UTC.
do $$
begin
    execute format($f$
        create function @extschema@.subscription_due(next_attempt_at timestamptz, scheduled_to %s) returns timestamptz
            language sql immutable parallel safe
            as $due$ select coalesce(greatest($1, $2%s), '-infinity'::timestamptz) $due$ $f$,
        pg_temp.column_type('subscriptions', 'scheduled_to'),
        case pg_temp.column_type('subscriptions', 'scheduled_to') when 'timestamp without time zone' then ' at time zone ''UTC''' else '' end);
end $$;

-- The claim reads this one from its start for each integration; held rows wait for an operator and are not in it.
create index subscriptions_due on @extschema@.subscriptions
    (integration_id, @extschema@.subscription_due(next_attempt_at, scheduled_to), id)
    where status in ('pending', 'retry') and held_at is null;
create index subscriptions_lease on @extschema@.subscriptions (lease_expires_at) where status = 'processing';
create index subscriptions_held on @extschema@.subscriptions (integration_id, held_at) where held_at is not null;

-- ---------------------------------------------------------------------------------------------------------------------
-- Read models, written by the consumers.

create table @extschema@.alerts (
    id bigint generated always as identity primary key,
    integration_id bigint references @extschema@.integrations (id) on delete cascade,
    kind text not null check (kind in ('failure_rate', 'circuit_open', 'authentication', 'backlog', 'unconfirmed')),
    state text not null default 'firing' check (state in ('firing', 'resolved')),
    value double precision,
    threshold double precision,
    message text not null,
    started_at timestamptz not null default now(),
    resolved_at timestamptz,
    last_notified_at timestamptz
);
create unique index alerts_firing on @extschema@.alerts (coalesce(integration_id, 0), kind) where state = 'firing';

create table @extschema@.integration_stats (
    integration_id bigint not null,
    bucket timestamptz not null,
    created bigint not null default 0,
    sent bigint not null default 0,
    failed bigint not null default 0,
    retried bigint not null default 0,
    attempts bigint not null default 0,
    -- Mergeable histograms: counts by logarithmic bucket of milliseconds.
    http_ms bigint[] not null default '{}',
    delivery_ms bigint[] not null default '{}',
    primary key (integration_id, bucket)
) with (fillfactor = 50);

create table @extschema@.dead_letters (
    id bigint generated always as identity primary key,
    consumer_group text not null,
    topic text not null,
    partition integer not null,
    "offset" bigint not null,
    key bytea,
    headers jsonb not null default '{}',
    value bytea,
    error text not null,
    created_at timestamptz not null default now(),
    replayed_at timestamptz,
    unique (consumer_group, topic, partition, "offset")
);

create table @extschema@.audit_log (
    id bigint generated always as identity primary key,
    topic text not null,
    partition integer not null,
    "offset" bigint not null,
    sequence bigint not null,
    event_id uuid not null,
    event_type text not null,
    subscription_id bigint not null,
    integration_id bigint,
    payload_hash bytea not null,
    previous_hash bytea not null,
    hash bytea not null,
    created_at timestamptz not null default now()
);

create table @extschema@.confirmations (
    subscription_id bigint primary key,
    status text not null default 'expected' check (status in ('expected', 'confirmed', 'rejected', 'overdue')),
    external_id text,
    expected_by timestamptz,
    confirmed_at timestamptz,
    created_at timestamptz not null default now()
);

-- ---------------------------------------------------------------------------------------------------------------------
-- anubisd's own books.

-- namespace: the UUID from which Idempotency-Keys and trace ids are derived (version 5).
create table @extschema@.installation (
    one boolean primary key default true check (one),
    namespace uuid not null default gen_random_uuid(),
    created_at timestamptz not null default now()
);
insert into @extschema@.installation default values;

-- How far the ledger has been published: every id up to high, but those within the gaps. gap_horizon holds the transaction id that
-- must have become history before a gap is given up. The epoch fences a former leader.
create table @extschema@.relay_state (
    one boolean primary key default true check (one),
    epoch bigint not null default 0,
    high bigint not null default 0,
    gap_first bigint[] not null default '{}',
    gap_last bigint[] not null default '{}',
    gap_horizon bigint[] not null default '{}',
    system_identifier bigint,
    timeline integer,
    leader text,
    stopped_on bigint,
    stopped_reason text,
    updated_at timestamptz not null default now(),
    check (cardinality(gap_first) = cardinality(gap_last) and cardinality(gap_first) = cardinality(gap_horizon))
) with (fillfactor = 10);

-- The partition count that a topic had for ledger ids from from_sequence on: an event's partition never changes.
create table @extschema@.relay_topics (
    topic text not null,
    from_sequence bigint not null,
    partitions integer not null check (partitions > 0),
    primary key (topic, from_sequence)
);

-- What others than the ledger publish (alerts, dead letters, rollups): drained by the relay, so that nobody writes to Postgres and
-- Kafka side by side.
create table @extschema@.outbox (
    id bigint generated always as identity primary key,
    topic text not null,
    key text,
    headers jsonb not null default '{}',
    value text not null,
    created_at timestamptz not null default now()
);

-- Where each consumer goes on; it counts, not Kafka's own committed offset.
create table @extschema@.consumer_offsets (
    consumer_group text not null,
    topic text not null,
    partition integer not null,
    next_offset bigint not null,
    foreign_messages bigint not null default 0,
    updated_at timestamptz not null default now(),
    primary key (consumer_group, topic, partition)
) with (fillfactor = 20);

-- Which ledger ids a consumer has handled: bit (sequence modulo 8192) of chunk (sequence / 8192), in the byte's lowest bit first,
-- as get_bit() counts. A chunk has one writer; the version finds a second one out.
create table @extschema@.consumer_bitmaps (
    consumer_group text not null,
    topic text not null,
    partition integer not null,
    chunk bigint not null,
    version bigint not null default 1,
    bits bytea not null check (octet_length(bits) = 1024),
    primary key (consumer_group, topic, partition, chunk)
) with (fillfactor = 50);
alter table @extschema@.consumer_bitmaps alter column bits set storage plain;

create table @extschema@.ledger_partitions (
    name text primary key,
    first_id bigint not null,
    last_id bigint not null,
    created_at timestamptz not null default now()
);

-- What was there before the ledger, or has left it with a dropped partition: where proofs start from. Rows with a status count
-- subscriptions, those without hold an integration's counters.
create table @extschema@.ledger_baseline (
    integration_id bigint,
    status text,
    subscriptions bigint not null default 0,
    successful_sends bigint not null default 0,
    failed_sends bigint not null default 0
);
create unique index ledger_baseline_key on @extschema@.ledger_baseline (coalesce(integration_id, 0), coalesce(status, ''));
