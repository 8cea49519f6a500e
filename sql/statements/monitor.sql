-- The monitor's statements.

-- name: take_name
-- True: the daemon's name is this session's alone from now on, until the session ends.
-- $1 text: the name
select pg_try_advisory_lock(hashtextextended($1, lock_key('name')))

-- name: extend_ledger
-- How many partitions it made.
select ledger_extend()

-- name: index_ledger
-- The partition that got its index; NULL = there is nothing to do now.
select ledger_index()

-- name: backlog
-- Waiting rows, unrouted rows, ids of the ledger not yet published, what stops the relay (or NULL). Counts stop at 10,000:
-- a backlog of a million is not counted to the end every few seconds.
select (select count(*) from (select from subscriptions
         where status in ('pending', 'retry') and held_at is null and integration_id is not null limit 10000) w),
       (select count(*) from (select from subscriptions
         where status in ('pending', 'retry') and held_at is null and integration_id is null limit 10000) u),
       greatest((select case when is_called then last_value else last_value - 1 end from ledger_id_seq)
                - (select high from relay_state), 0),
       (select stopped_reason from relay_state)

-- name: oldest_snapshot
-- The transaction that the oldest snapshot of those held has not seen end, 0 = none: the same as long as it is held.
-- include: snapshots_held.part.sql
select coalesce((select xid::text::bigint from held order by age(xid) desc limit 1), 0)
