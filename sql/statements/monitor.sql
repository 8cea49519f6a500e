-- The monitor's statements.

-- name: take_name
-- True: the daemon's name is this session's alone from now on, until the session ends.
-- $1 text: the name
select pg_try_advisory_lock(hashtextextended($1, lock_key('name')))

-- name: server_clock
-- The server's time.
select clock_timestamp()

-- name: cleaning_allowed
-- Is it a test database, whose subscriptions and events may be deleted?
select cleaning_allowed()

-- name: note_subscriptions
-- Notes up to which id the sequence of subscriptions has given them one.
select subscriptions_note()

-- name: extend_ledger
-- How many partitions it made.
select ledger_extend()

-- name: index_ledger
-- The partition that got its index; NULL = there is nothing to do now.
select ledger_index()

-- name: backlog
-- Rows that wait for integrations which are enabled and not paused, unrouted rows, circuits that are not closed, ids of the ledger not yet
-- published, what stops the relay (or NULL). Counts of rows stop above 10,000: a backlog of a million is not counted to the end every few
-- seconds.
select (select count(*)
          from (select from integrations i cross join lateral (
                  select from subscriptions s
                   where s.integration_id = i.id and s.status in ('pending', 'retry') and s.held_at is null
                   limit 10001) s
                 where i.enabled and (i.paused_until is null or i.paused_until <= now()) limit 10001) w),
       (select count(*) from (select from subscriptions
         where status in ('pending', 'retry') and held_at is null and integration_id is null limit 10001) u),
       (select count(*) from integration_runtime where circuit_state <> 'closed'),
       ledger_ids((select high + 1 from relay_state),
                  (select case when is_called then last_value else last_value - 1 end from ledger_id_seq)),
       (select stopped_reason from relay_state)

-- name: oldest_snapshot
-- The transaction that the oldest snapshot of those held has not seen end, 0 = none: the same as long as it is held.
-- include: snapshots_held.part.sql
select coalesce((select xid::text::bigint from held order by age(xid) desc limit 1), 0)

-- name: mend_times
-- What was written in the future: the server's clock was ahead and has been set back. Retries, leases, waiting integrations and those that
-- one daemon alone serves wait as long as they were to, but from now on. How many subscriptions there were. And rows of integration_runtime that a hand deleted, or
-- that a copy of integrations alone does not bring: nothing is claimed of an integration with a limit that has none.
with begun as (
  insert into integration_runtime (integration_id)
  select i.id from integrations i
   where not exists (select from integration_runtime r where r.integration_id = i.id)
   on conflict do nothing
), waits as (
  update integration_runtime set backoff_until = now() + (backoff_until - backoff_since), backoff_since = now()
   where backoff_until > now() and backoff_since > now() + interval '10 s'
), served as (
  update integration_runtime set served_until = now() + (served_until - served_since), served_since = now()
   where served_until > now() and served_since > now() + interval '10 s'
     and (backoff_until > now() and backoff_since > now() + interval '10 s') is not true
), far as (
  select s.id
    from integrations i
   cross join lateral (
     select id from subscriptions
      where integration_id = i.id and status in ('pending', 'retry') and held_at is null
        and subscription_due(next_attempt_at, scheduled_to) > now()
        and status = 'retry' and as_instant(updated_at) > now() + interval '10 s'
      limit 1000 for no key update skip locked) s
  union all
  select l.id
    from (select id from subscriptions
           where status = 'processing' and lease_expires_at > now() and as_instant(updated_at) > now() + interval '10 s'
           limit 1000 for no key update skip locked) l
), mended as (
  update subscriptions s set
         next_attempt_at = case status when 'retry' then now() + (next_attempt_at - as_instant(updated_at))
                                       else next_attempt_at end,
         lease_expires_at = case status when 'processing' then now() + (lease_expires_at - as_instant(updated_at)) end,
         updated_at = now()
    from far f where s.id = f.id
  returning s.id
)
select count(*) from mended

-- name: audit_due
-- Is the audit log to be proven again? Each minute, also when a clock that was ahead wrote the last time. In a test database it proves
-- nothing.
select not exists (select from audit_checks where checked_at between now() - interval '1 minute' and now() + interval '1 minute')
       and not cleaning_allowed()

-- name: audit_begin
-- True: this session may prove it, and no other one does so meanwhile. Then, whether all of it is to be proven, which takes a hundredth
-- of the time, and a tenth where something was found; and since which checkpoint what is new.
select l.given, coalesce(c.whole_at + c.took_ms * case when c.differences > 0 then interval '10 ms' else interval '100 ms' end < now()
                         or c.whole_at > now(), true),
       coalesce(c.checkpoint, 0)
  from lead_lock('audit') l left join audit_checks c on true

-- name: audit_note
-- What was found. What all of it has shown stays until all of it is proven again.
-- $1 boolean: all of it was proven
-- $2 bigint: the last checkpoint that was found to be right, 0 = none
-- $3 bigint: differences
-- $4 text: the first of them
-- $5 bigint: how long it took, in ms
with now_there as (
  select coalesce(max(id), 0) as last, ledger_unsealed(9223372036854775807) as is_unsealed from audit_checkpoints
)
insert into audit_checks as c (checkpoint, whole_at, took_ms, differences, words, last_checkpoint, unsealed_since)
select $2, case when $1 then now() end, case when $1 then $5 else 0 end, $3, $4, n.last, case when n.is_unsealed then now() end from now_there n
    on conflict (one) do update
   set checked_at = now(),
       checkpoint = case when excluded.differences > 0 then c.checkpoint else greatest(excluded.checkpoint, c.checkpoint) end,
       whole_at = coalesce(excluded.whole_at, c.whole_at), took_ms = case when $1 then excluded.took_ms else c.took_ms end,
       differences = case when $1 or excluded.differences > 0 then excluded.differences else c.differences end,
       words = case when $1 or excluded.differences > 0 then excluded.words else c.words end,
       last_checkpoint = excluded.last_checkpoint,
       unsealed_since = case when excluded.last_checkpoint = c.last_checkpoint and excluded.unsealed_since is not null
                             then coalesce(c.unsealed_since, excluded.unsealed_since) else excluded.unsealed_since end

-- name: add_checkpoint
-- Unless the last one says the same, perhaps with a signature more: whether it was added.
-- $1 text: the note
-- $2 text: the public key that it is signed with; NULL = it is not
with added as (
  insert into audit_checkpoints (note, signed_by)
  select $1, $2
   where not exists (select from (select note from audit_checkpoints order by id desc limit 1) l where starts_with(l.note, $1))
  returning 1
)
select exists (select from added)

-- name: thin_checkpoints
-- Of those that are older than an hour the last of each hour stays, and the last that was verified; and what is still to go to Kafka, and what
-- proves the leaves of before a copy.
delete from audit_checkpoints c
 where c.created_at < now() - interval '1 hour' and c.published_at is not null
   and c.id <> coalesce((select max(id) from audit_checkpoints where verified_at is not null), 0)
   and c.id <> coalesce((select checkpoint from audit_checks), 0)
   and not exists (select from audit_past p where p.checkpoint = c.id)
   and exists (select from audit_checkpoints l
                where l.id > c.id and date_trunc('hour', l.created_at) = date_trunc('hour', c.created_at))
