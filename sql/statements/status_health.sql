-- name: status_health :once
-- How integrations fared of late, by the results of attempts among the last events of the ledger, by integration. What
-- says nothing about an institution is left out: that it asked for time (429), that a lease ran out, what the
-- application set.
-- Columns: integration; its last success; how many attempts failed since, and since when; the last failure: time, HTTP
-- status, error; successes and failures of the last seconds; since when all of this is looked at, for all rows alike; since when
-- they failed as the last one did.
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
), taken as (
  select integration_id, max(id) as id, max(at) as at from results where is_taken group by 1
), fared as (
  select r.integration_id, max(t.at) as taken_at, count(*) filter (where r.id > coalesce(t.id, 0)) as in_row,
         min(r.at) filter (where r.id > coalesce(t.id, 0)) as since, max(r.id) filter (where not r.is_taken) as failure,
         count(*) filter (where r.is_taken and r.at > now() - $2 * interval '1 s') as recent_sent,
         count(*) filter (where not r.is_taken and r.at > now() - $2 * interval '1 s') as recent_errors
    from results r left join taken t using (integration_id) group by 1
), failures as (
  select r.integration_id, r.id, r.at, concat_ws(' ', r.http_status, split_part(case when r.http_status is null then r.error end, ':', 1)) as kind
    from results r left join taken t using (integration_id) where not r.is_taken and r.id > coalesce(t.id, 0)
), others as (
  select f.integration_id, max(f.id) as id
    from failures f join (select distinct on (integration_id) integration_id, kind from failures order by integration_id, id desc) l
      using (integration_id) where f.kind <> l.kind group by 1
), same as (
  select f.integration_id, min(f.at) as since from failures f left join others o using (integration_id)
   where f.id > coalesce(o.id, 0) group by 1
)
select f.integration_id, f.taken_at, f.in_row, f.since, e.at, coalesce(e.http_status, 0)::bigint, coalesce(e.error, ''),
       f.recent_sent, f.recent_errors,
       (select x.created_at::timestamptz from newest n join subscription_events x on x.id > n.id order by x.id limit 1), s.since
  from fared f left join results e on e.id = f.failure left join same s on s.integration_id = f.integration_id
 order by 1
