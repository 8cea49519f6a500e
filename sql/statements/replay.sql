-- The short statements of "anubisctl replay".

-- name: replay_lock :once
-- One replay at a time: both would add the same difference.
select pg_advisory_xact_lock(lock_key('replay'))

-- name: replay_lost :once
-- Ids of events that were counted and have left the ledger with a partition that was dropped by hand, so that no book has what they
-- counted: the first and the last of their chunks; NULL = none.
select min(b.chunk) * 8192, max(b.chunk) * 8192 + 8191
  from consumer_bitmaps b
 where b.read_model = 'integration' and b.bits <> decode(repeat('00', 1024), 'hex')
   and not exists (select from (select first_id, last_id from ledger_partitions union all select first_id, last_id from ledger_dropped) p
                    where p.first_id <= b.chunk * 8192 + 8191 and p.last_id >= b.chunk * 8192)
   and not exists (select from subscription_events_default e where e.id between b.chunk * 8192 and b.chunk * 8192 + 8191)

-- name: replay_goes_on :once
-- A group goes on that had stopped because marks were lost; was there one?
-- $1 text: read model
with gone as (
  delete from consumer_stops where read_model = $1 and command is not null returning 1
)
select exists (select from gone)

-- name: replay_places :once
-- What a read model is read from: topic, partition; and the time in milliseconds.
-- $1 text: a time; or a duration before now that begins with "-"
-- $2 text: read model
select topic, partition,
       floor(extract(epoch from case when left($1, 1) = '-' then now() + $1::interval else $1::timestamptz end) * 1000)::bigint
  from consumer_offsets where read_model = $2 order by 1, 2

-- name: replay_again :once
-- Sets a read model back to the beginning of its topics, or of what is named: what Kafka still has is read again, what was handled is
-- known by its marks, and what Kafka does not have is published again: see monitor_unread.sql. How many partitions.
-- $1 text: read model
-- $2 text[]: topics, with
-- $3 integer[]: partitions
-- $4 bigint[]: from this offset on; -1 = what was read of it stays so
with published as (
-- include: consumer_published.part.sql
), set_back as (
  update consumer_offsets o set next_offset = case when cardinality($2::text[]) = 0 then 0 else least(next_offset, (
           select nullif(f."offset", -1) from unnest($2::text[], $3::int[], $4::bigint[]) as f (topic, partition, "offset")
            where f.topic = o.topic and f.partition = o.partition)) end,
         foreign_messages = 0, unknown_events = 0, updated_at = now(),
         unread_until = 9223372036854775807, unread_below = p.below, unread_gaps = p.gaps
    from published p where read_model = $1 returning 1
)
select count(*) from set_back

-- name: replay_unmark :once
-- See audit_unmark().
select audit_unmark()

-- name: replay_mark :once
-- See audit_mark().
select audit_mark()
