-- The short statements of "anubisctl replay".

-- name: replay_lock :once
-- One replay at a time: both would add the same difference.
select pg_advisory_xact_lock(lock_key('replay'))

-- name: replay_again :once
-- Sets a read model back to the beginning of its topics: what Kafka still has is read again, and what was handled is known by its marks.
-- How many partitions.
-- $1 text: read model
with set_back as (
  update consumer_offsets set next_offset = 0, foreign_messages = 0, unknown_events = 0, updated_at = now() where read_model = $1 returning 1
)
select count(*) from set_back
