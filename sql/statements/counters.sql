-- The counters of integrations. Both statements belong to the transaction of a batch.

-- name: lock_counters
-- Locks in the order of ids first: an UPDATE … FROM takes its rows as the plan finds them, and two consumers would
-- deadlock. In a statement of its own: one that locks and updates comes back to the version of its snapshot, where
-- somebody may queue by now who waits for the lock on the newer one.
-- $1 bigint[]: integrations
select from integrations where id = any ($1) order by id for no key update

-- name: count_sends
-- Adds to the counters of integrations; those that were left as they are: id, unknown, sent_full, failed_full.
--
-- updated_at stays as it is: it is the application's, which may compare it to see whether somebody has edited the row,
-- and the counters are no edit. A counter without room (adopted ones may be integers) is left alone and named: an error
-- would stop the other integrations of the batch too.
-- $1 bigint[]: integrations, ascending
-- $2 bigint[]: how many more were sent
-- $3 bigint[]: how many more have failed
with a as materialized (
  select * from unnest($1::bigint[], $2::bigint[], $3::bigint[]) as a (id, sent, failed)
), held as materialized (
  select id, coalesce(successful_sends, 0)::numeric as sent, pg_typeof(successful_sends)::text as sent_type,
         coalesce(failed_sends, 0)::numeric as failed, pg_typeof(failed_sends)::text as failed_type
    from integrations where id = any ($1)
), limits (type, most) as materialized (
  values ('integer', 2147483647), ('bigint', 9223372036854775807)
), room as materialized (
  select a.*, l.sent + a.sent > s.most is true as sent_full, l.failed + a.failed > f.most is true as failed_full
    from a join held l using (id) left join limits s on s.type = l.sent_type
    left join limits f on f.type = l.failed_type
), counted as (
  update integrations i set successful_sends = coalesce(i.successful_sends, 0) + r.sent,
         failed_sends = coalesce(i.failed_sends, 0) + r.failed
    from room r where i.id = r.id and not r.sent_full and not r.failed_full)
select a.id, r.id is null, coalesce(r.sent_full, false), coalesce(r.failed_full, false)
  from a left join room r on r.id = a.id where r.id is null or r.sent_full or r.failed_full order by a.id
