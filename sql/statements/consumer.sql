-- The consumers' statements. All but the first five belong to the transaction of a batch.

-- name: end_silent
-- Ends sessions of other consumers that have stood for long in a COPY whose rows do not come: a process that is frozen there would keep its
-- locks, since idle_in_transaction_session_timeout does not count within a COPY, and statement_timeout is not looked at. How many.
select count(*)
  from (select pid from pg_stat_activity
         where datname = current_database() and pid <> pg_backend_pid() and usename = current_user and state = 'active'
           and application_name like 'anubisd %-group' and wait_event = 'ClientRead' and query_start < clock_timestamp() - interval '10 s'
        offset 0) s
 where pg_terminate_backend(s.pid)

-- name: read_installation
-- As events and keys have it, whatever somebody writes into the table.
select installation_name()::text

-- name: take_member
-- Which of several processes with the same instance name may be the static member of that name? True: this session may,
-- as long as it lives.
-- $1 text: consumer group
-- $2 text: member
select pg_try_advisory_lock(hashtextextended($1 || '/' || $2, lock_key('member')))

-- name: members_elsewhere
-- Those of these members whose lock (take_member) no session of this database holds.
-- $1 text: consumer group
-- $2 text[]: members
select m from unnest($2::text[]) as m
 where not exists (select from pg_locks l
                    where l.locktype = 'advisory' and l.granted and l.objsubid = 1
                      and l.database = (select oid from pg_database where datname = current_database())
                      and (l.classid::bigint << 32) | l.objid::bigint = hashtextextended($1 || '/' || m, lock_key('member')))
 order by 1

-- name: read_offsets
-- The offsets of those partitions that have a row: the partition's place in the arrays, offset, unread_until (-1 = NULL).
-- $1 text: consumer group
-- $2 text[]: topics
-- $3 integer[]: partitions
select a.n, o.next_offset, coalesce(o.unread_until, -1)
  from unnest($2::text[], $3::int[]) with ordinality as a (topic, partition, n)
  join consumer_offsets o on o.consumer_group = $1 and o.topic = a.topic and o.partition = a.partition

-- name: place_offset
-- Makes the row, or moves it; does nothing when somebody else has made or moved it.
-- $1 text: consumer group
-- $2 text: topic
-- $3 integer: partition
-- $4 bigint: from this offset
-- $5 bigint: to this one
-- $6 text: the group's read model
-- $7 bigint: unread_until; the greatest one: what is published by now is in question, and the end of the log is asked for after that; -1 =
-- as it is
with published as (
-- include: consumer_published.part.sql
)
insert into consumer_offsets as o (consumer_group, topic, partition, next_offset, read_model, unread_until, unread_below, unread_gaps)
select $1, $2, $3, $5, $6, nullif($7::bigint, -1), p.below, p.gaps
  from (select) one left join published p on $7 = 9223372036854775807
    on conflict (consumer_group, topic, partition)
    do update set next_offset = excluded.next_offset, updated_at = now(), unread_until = coalesce(excluded.unread_until, o.unread_until),
                  unread_below = coalesce(excluded.unread_below, o.unread_below),
                  unread_gaps = case when excluded.unread_below is null then o.unread_gaps else excluded.unread_gaps end
 where o.next_offset = $4

-- name: advance
-- Moves offsets. A row that stands elsewhere is not changed, nor one that was set back to where it stands: see replay_again.
-- $1 text: consumer group
-- $2 text[]: topics
-- $3 integer[]: partitions
-- $4 bigint[]: from these offsets
-- $5 bigint[]: to these
-- $6 bigint[]: foreign messages between them
-- $7 text: the group's read model; when it is stopped, no row is changed
-- $8 boolean: no other transaction is to set marks of the read model beside this one, see lock_marks
with beside as materialized (
  select case when $8 then pg_advisory_xact_lock(k) else pg_advisory_xact_lock_shared(k) end
    from hashtextextended($7, lock_key('replay')) as k
)
update consumer_offsets o
   set next_offset = a.next, foreign_messages = o.foreign_messages + a.foreign_messages, updated_at = now()
  from unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::bigint[])
       as a (topic, partition, expected, next, foreign_messages), beside
 where o.consumer_group = $1 and o.topic = a.topic and o.partition = a.partition and o.next_offset = a.expected
   and o.unread_until is distinct from 9223372036854775807
   and not exists (select from consumer_stops s where s.read_model = $7 and s.passes_until is null)

-- name: lock_marks
-- No other transaction sets marks of the read model until this one ends. Whoever looks for an event among the marks of all partitions needs
-- that: the version of a chunk guards the marks of one.
-- $1 text: read model
select pg_advisory_xact_lock(hashtextextended($1, lock_key('replay')))

-- name: find_rival
-- Another consumer group that handles the same read model now, which is another daemon's with another prefix; no row: there is none.
-- $1 text: consumer group
-- $2 text: read model
select consumer_group from consumer_offsets
 where read_model = $2 and consumer_group <> $1 and updated_at > now() - interval '20 s' order by updated_at desc limit 1

-- name: read_stop
-- Why a group has stopped, for how many milliseconds it may put messages aside, however many (NULL = it stands still), and the command
-- that mends it, if it is not "resume". No row: it has not stopped, or no longer.
-- $1 text: read model
select reason, (extract(epoch from passes_until - now()) * 1000)::bigint, command
  from consumer_stops where read_model = $1 and (passes_until is null or passes_until > now())

-- name: letters_known
-- Messages that were put aside before: their places in the arrays.
-- $1 text: read model
-- $2 text[]: topics
-- $3 integer[]: partitions
-- $4 bigint[]: offsets
-- $5 bigint[]: their times in Kafka, milliseconds since 1970
select a.n
  from unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[]) with ordinality as a (topic, partition, position, written_ms, n)
  join dead_letters d on d.read_model = $1 and d.topic = a.topic and d.partition = a.partition and d."offset" = a.position
                     and d.written_at = 'epoch'::timestamptz + a.written_ms * interval '1 ms'

-- name: stop_group
-- Stops a group in all daemons; true: it was not stopped before.
-- $1 text: read model
-- $2 text: why
with stopped as (
  insert into consumer_stops as s (read_model, reason) values ($1, $2)
      on conflict (read_model) do update set reason = excluded.reason, command = null, stopped_at = now(), passes_until = null
   where s.passes_until <= now()
  returning 1)
select exists (select from stopped)

-- name: read_chunks
-- The chunks that have a row: the chunk's place in the arrays, version, bits.
-- $1 text: read model
-- $2 text[]: event types
-- $3 integer[]: partitions
-- $4 bigint[]: chunks
select a.n, b.version, b.bits
  from unnest($2::text[], $3::int[], $4::bigint[]) with ordinality as a (event_type, partition, chunk, n)
  join consumer_bitmaps b on b.read_model = $1 and b.event_type = a.event_type and b.partition = a.partition
                         and b.chunk = a.chunk

-- name: write_chunks
-- Writes chunks and counts their versions up; how many. One that has another version meanwhile is not written. Versions
-- are counted from 1, so 0 says that the row is still to be made.
-- $1 text: read model
-- $2 text[]: event types
-- $3 integer[]: partitions
-- $4 bigint[]: chunks
-- $5 bigint[]: versions
-- $6 bytea[]: bits
with a as materialized (
  select * from unnest($2::text[], $3::int[], $4::bigint[], $5::bigint[], $6::bytea[])
         as a (event_type, partition, chunk, version, bits)
), made as (
  insert into consumer_bitmaps (read_model, event_type, partition, chunk, bits)
  select $1, event_type, partition, chunk, bits from a where version = 0
      on conflict do nothing returning 1
), changed as (
  update consumer_bitmaps b set bits = a.bits, version = b.version + 1 from a
   where b.read_model = $1 and b.event_type = a.event_type and b.partition = a.partition and b.chunk = a.chunk
     and b.version = a.version and a.version > 0 returning 1)
select (select count(*) from made) + (select count(*) from changed)

-- name: count_known
-- How many events the ledger has as they are; and how many rows relay_topics has, for whoever knows them. The rows between the ends of each run are read at once, whether they are asked for or
-- not, and compared with what stands at their place in the arrays: no row is looked up, and no table made of the arrays.
-- $1 bigint[]: first ledger ids of the runs
-- $2 bigint[]: last ones
-- $3 bigint[]: the places of the first ones, from 0 on
-- $4 bigint: the lowest id, so that other partitions are not even opened
-- $5 bigint: the highest
-- $6 text[]: event types
-- $7 bytea: at each place the number of the event's type, from 1 on, or 0
-- $8 bigint[]: subscriptions
-- $9 bigint[]: integrations, 0 = none
-- $10 timestamptz[]: times of the events
-- $11 bytea: at each place the 16 bytes of the event_id
select count(*), (select count(*) from relay_topics)
  from unnest($1::bigint[], $2::bigint[], $3::bigint[]) as r (first, last, place)
 cross join lateral (
   select (e.id - r.first + r.place)::int as place, e.event_type, e.subscription_id, e.integration_id, as_instant(e.created_at) as created_at,
          e.event_id
     from subscription_events e where e.id between r.first and r.last and e.id between $4 and $5 offset 0) e
 where e.event_type = ($6::text[])[get_byte($7::bytea, e.place)] and e.subscription_id = ($8::bigint[])[e.place + 1]
   and coalesce(e.integration_id, 0) = ($9::bigint[])[e.place + 1] and e.created_at = ($10::timestamptz[])[e.place + 1]
   and uuid_send(e.event_id) = substring($11::bytea from 16 * e.place + 1 for 16)

-- name: find_unknown
-- Events that the ledger does not have as they are: the places in the arrays. A scalar subquery, so that each is looked up
-- by the primary key whatever the planner thinks of the arrays.
-- $1 bigint[]: ledger ids
-- $2 text[]: event types
-- $3 bigint[]: subscriptions
-- $4 bigint[]: integrations, 0 = none
-- $5 timestamptz[]: times of the events
-- $6 bytea[]: the 16 bytes of each event_id
-- $7 bigint: the lowest of the ids, so that other partitions are not even opened
-- $8 bigint: the highest of them
select a.n
  from unnest($1::bigint[], $2::text[], $3::bigint[], $4::bigint[], $5::timestamptz[], $6::bytea[]) with ordinality
       as a (id, event_type, subscription_id, integration_id, created_at, event_id, n)
 where (select e.event_type = a.event_type and e.subscription_id = a.subscription_id and uuid_send(e.event_id) = a.event_id
               and coalesce(e.integration_id, 0) = a.integration_id and as_instant(e.created_at) = a.created_at
          from subscription_events e where e.id = a.id and e.id between $7 and $8) is not true

-- name: read_homes
-- A topic's partitions from which ledger id on: id, partitions. A row whose id is NULL: events of this type came by the topic of another
-- prefix, and the two have not always had the same number.
-- $1 text: topic
select from_sequence, partitions from relay_topics where topic = $1
union all
select null, count(distinct t.topic)
  from relay_topics t
 where substring(t.topic from '[a-z]+$') = substring($1::text from '[a-z]+$')
having count(*) filter (where t.topic <> $1) > 0
   and (count(distinct t.partitions) > 1 or count(*) filter (where t.topic = $1) = 0)
 order by 1 nulls last

-- name: find_marked
-- Events that are marked as handled in another partition: the places in the array.
-- $1 text: read model
-- $2 text: event type
-- $3 integer: partition
-- $4 bigint[]: ledger ids
select a.n
  from unnest($4::bigint[]) with ordinality as a (id, n)
 where exists (select from consumer_bitmaps b
                where b.read_model = $1 and b.event_type = $2 and b.partition <> $3 and b.chunk = a.id / 8192
                  and get_bit(b.bits, (a.id % 8192)::integer) = 1)

-- name: ledger_amiss
-- Whether what was not found is only out of sight: what is wrong with the ledger; NULL = nothing.
select ledger_amiss()

-- name: count_unknown
-- Counts events that were passed over, because the ledger does not have them.
-- $1 text: consumer group
-- $2 text[]: topics
-- $3 integer[]: partitions
-- $4 bigint[]: how many more
update consumer_offsets o set unknown_events = o.unknown_events + a.more
  from unnest($2::text[], $3::int[], $4::bigint[]) as a (topic, partition, more)
 where o.consumer_group = $1 and o.topic = a.topic and o.partition = a.partition

-- name: dead_letters
-- Puts messages aside; what is there already stays. Of a subscription that is erased there is nothing to be tried again.
-- $1 text: consumer group
-- $2 text[]: topics
-- $3 integer[]: partitions
-- $4 bigint[]: offsets
-- $5 bytea[]: keys
-- $6 text[]: headers, each a JSON object
-- $7 bytea[]: values
-- $8 text[]: what is wrong with them
-- $9 integer[]: 1 = it can only be discarded
-- $10 text: read model
-- $11 bigint[]: their times in Kafka, milliseconds since 1970
insert into dead_letters (consumer_group, read_model, topic, partition, "offset", key, headers, value, error, discard_only, written_at,
                          discarded_at, discard_reason)
  select $1, $10, a.topic, a.partition, a.position, a.key,
         case when e.is_erased then letter_headers_kept(a.headers::jsonb) else a.headers::jsonb end, case when e.is_erased is null then a.value end,
         a.error, a.discard_only = 1, 'epoch'::timestamptz + a.written_ms * interval '1 ms', case when e.is_erased then now() end, case when e.is_erased then 'erased' end
    from unnest($2::text[], $3::int[], $4::bigint[], $5::bytea[], $6::text[], $7::bytea[], $8::text[], $9::int[], $11::bigint[])
         as a (topic, partition, position, key, headers, value, error, discard_only, written_ms)
    left join lateral (select true as is_erased from letter_names(a.key, a.value) n
                         join subscriptions s on s.id = case when n ~ '^[0-9]{1,18}$' then n::bigint end
                        where s.erased_at is not null limit 1) e on true
  on conflict do nothing
