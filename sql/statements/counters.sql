-- Counts of what was sent and what has failed, and the integrations' own counters, which follow them.

-- name: count_sends
-- Adds to the counts of integrations, in the order of their ids; gives the ids that no integration has.
-- $1 bigint[]: integrations, ascending
-- $2 bigint[]: how many more were sent
-- $3 bigint[]: how many more have failed
-- $4 timestamptz[]: when the last one was sent; the epoch = none was
with counted as (
  insert into integration_runtime as r (integration_id, sent, failed, taken_at)
  select a.id, a.sent, a.failed, nullif(a.taken_at, 'epoch')
    from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::timestamptz[]) as a (id, sent, failed, taken_at) join integrations i on i.id = a.id
   order by a.id
  on conflict (integration_id) do update
     set sent = r.sent + excluded.sent, failed = r.failed + excluded.failed, taken_at = greatest(r.taken_at, excluded.taken_at)
)
select a.id from unnest($1::bigint[]) as a (id) where not exists (select from integrations i where i.id = a.id) order by a.id

-- name: fold_lock
-- Integrations whose counters are not what they should be, locked; those that others have locked come later. They lag behind their counts,
-- or somebody has written them: a mapper writes all columns of a row, with what it read before. In the transaction of fold_counts.
-- $1 bigint: how many
select i.id::bigint
  from integrations i left join integration_runtime r on r.integration_id = i.id
  left join ledger_baseline b on b.integration_id = i.id and b.status = ''
 where coalesce(i.successful_sends, 0)::numeric <> coalesce(b.successful_sends, 0)::numeric + coalesce(r.sent, 0)
    or coalesce(i.failed_sends, 0)::numeric <> coalesce(b.failed_sends, 0)::numeric + coalesce(r.failed, 0)
    or r.sent <> r.sent_folded or r.failed <> r.failed_folded
 order by i.id limit $1 for no key update of i skip locked

-- name: fold_counts
-- Brings the counters of integrations to their counts, above what they were before the ledger; gives those that were left as they are, and
-- what is full.
--
-- Not in the statement that locks the rows: it would go by the versions of its snapshot. updated_at stays as it is: it
-- is the application's, which may compare it to see whether somebody has edited the row, and counting is no edit. A
-- counter without room (adopted ones may be integers) stays as it is.
-- $1 bigint[]: integrations, locked
with lagging as materialized (
  select i.id, left(i.name::text, 100) as name, r.sent, r.failed, i.successful_sends, i.failed_sends,
         coalesce(b.successful_sends, 0)::numeric + coalesce(r.sent, 0) as all_sent,
         coalesce(b.failed_sends, 0)::numeric + coalesce(r.failed, 0) as all_failed
    from integrations i left join integration_runtime r on r.integration_id = i.id
    left join ledger_baseline b on b.integration_id = i.id and b.status = ''
   where i.id = any ($1)
), limits (type, most) as materialized (
  values ('integer', 2147483647), ('bigint', 9223372036854775807)
), room as materialized (
  select l.*, l.all_sent > s.most is true or l.all_failed > f.most is true as full_up
    from lagging l left join limits s on s.type = pg_typeof(l.successful_sends)::text
    left join limits f on f.type = pg_typeof(l.failed_sends)::text
), counted as (
  update integrations i set successful_sends = r.all_sent, failed_sends = r.all_failed
    from room r where i.id = r.id and not r.full_up
), folded as (
  update integration_runtime t set sent_folded = r.sent, failed_folded = r.failed
    from room r where t.integration_id = r.id and not r.full_up
)
select id::bigint, name from room where full_up order by id

-- name: stop_unmarked
-- Stops a group when counters or analytics hold more events than are marked. Both are written in one transaction, so marks were lost, and
-- what comes again would count twice. Not in a test database that may be emptied. Whether that is known; not while a replay is under way.
-- $1 text: read model
-- $2 text: the command that mends it
with unheld as materialized (
  select pg_try_advisory_xact_lock_shared(lock_key('replay')) as is_unheld
), marked as materialized (
  select b.event_type as type, sum(
-- include: bits_set.part.sql
       )::bigint as n
    from consumer_bitmaps b where b.read_model = $1 and b.event_type in ('created', 'sent', 'failed', 'retried') group by 1
), counted as (
  select c.* from (select sum(r.sent) as sent, sum(r.failed) as failed from integration_runtime r) r
   cross join (select sum(m.created) as created, sum(m.sent) as sent, sum(m.failed) as failed, sum(m.retried) as retried
                 from integration_stats_months m) m
   cross join lateral (values ('created', m.created), ('sent', greatest(m.sent, r.sent)), ('failed', greatest(m.failed, r.failed)),
                              ('retried', m.retried)) c (type, n)
), unmarked as materialized (
  select sum(c.n - coalesce(m.n, 0)) as n from counted c left join marked m using (type)
   where c.n > coalesce(m.n, 0) and not (select allows_cleaning from installation) and (select is_unheld from unheld)
), stopped as (
  insert into consumer_stops (read_model, reason, command)
  select $1, format('%s counted, but not marked as handled: marks (the table consumer_bitmaps) were lost, or are of another time than the '
                    'counters, and what comes again would count twice', case n when 1 then 'an event is' else n || ' events are' end), $2
    from unmarked where n > 0
      on conflict do nothing
)
select is_unheld from unheld
