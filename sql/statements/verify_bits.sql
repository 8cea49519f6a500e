-- name: verify_bits :once
-- How many bits are set in each chunk of a type: type, chunk, bits. What left with a dropped partition has left the proof
-- too: chunks that reach below the oldest partition are left out. A test database that may be emptied has marks of what is gone.
-- $1 text: read model
select b.event_type, b.chunk,
       sum(
-- include: bits_set.part.sql
       )::bigint
  from consumer_bitmaps b
 where b.read_model = $1 and b.event_type in ('created', 'sent', 'failed', 'retried') and not (select allows_cleaning from installation)
   and b.chunk >= (select case when bool_or(name = 'subscription_events_adopted') or min(first_id) <= 1 then 0
                               else (min(first_id) - 1) / 8192 + 1 end from ledger_partitions)
 group by 1, 2 order by 1, 2
