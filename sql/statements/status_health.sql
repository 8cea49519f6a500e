-- name: status_health :once
-- How integrations fared of late, by the results of attempts among the last events of the ledger, by integration. What
-- says nothing about an institution is left out: that it asked for time (429), that a lease ran out, what the
-- application set.
-- Columns: integration; its last success; how many attempts failed since, and since when; the last failure: time, HTTP
-- status, error; successes and failures of the last seconds; since when all of this is looked at, for all rows alike; since when
-- they failed as the last one did.
-- By windows, not by joins: without statistics a join would go through all results for each of them.
-- $1 bigint: how many of the last ids are looked at
-- $2 bigint: seconds
with newest as (
  select greatest((select last_value from ledger_id_seq) - $1, 0) as id
), results as materialized (
  select e.id, e.integration_id::bigint as integration_id, e.event_type::text = 'sent' as is_taken, e.http_status,
         e.error_message::text as error, e.created_at::timestamptz as at
    from newest n join subscription_events e on e.id > n.id
   where e.event_type in ('sent', 'failed', 'retried') and e.operation_name::text = 'send_to_institution'
     and e.integration_id is not null and e.http_status is distinct from 429
     and coalesce(e.error_message::text, '') !~ '^(lease expired:|status set to|not sent:)'
), marked as materialized (
  select r.*, max(id) filter (where is_taken) over w as taken, max(at) filter (where is_taken) over w as taken_at,
         max(id) filter (where not is_taken) over w as failure
    from results r window w as (partition by integration_id)
), fared as (
  select integration_id, max(taken_at) as taken_at, count(*) filter (where id > coalesce(taken, 0)) as in_row,
         min(at) filter (where id > coalesce(taken, 0)) as since, max(at) filter (where id = failure) as failed_at,
         max(http_status) filter (where id = failure) as http_status, max(error) filter (where id = failure) as error,
         count(*) filter (where is_taken and at > now() - $2 * interval '1 s') as recent_sent,
         count(*) filter (where not is_taken and at > now() - $2 * interval '1 s') as recent_errors
    from marked group by 1
), failures as (
  select integration_id, id, at, kind, first_value(kind) over (partition by integration_id order by id desc) as last_kind
    from marked cross join lateral (select concat_ws(' ', http_status, split_part(case when http_status is null then error end, ':', 1)) as kind) k
   where id > coalesce(taken, 0)
), same as (
  select integration_id, min(at) filter (where id > coalesce(other, 0)) as since
    from (select *, max(id) filter (where kind <> last_kind) over (partition by integration_id) as other from failures) o group by 1
)
select f.integration_id, f.taken_at, f.in_row, f.since, f.failed_at, coalesce(f.http_status, 0)::bigint, coalesce(f.error, ''),
       f.recent_sent, f.recent_errors,
       (select x.created_at::timestamptz from newest n join subscription_events x on x.id > n.id order by x.id limit 1), s.since
  from fared f left join same s using (integration_id)
 order by 1
