-- What events add to integration_stats_spans, from rows "e" of stats_events: by hour, and from the hours by day and month.
-- Those that are alike are folded first: everything after that costs by kinds of events, and not by events.
folded as materialized (
  select integration_id, hour, event_type, attempts, http_index, delivery_index, count(*) as n from e group by 1, 2, 3, 4, 5, 6
), hours as materialized (
  select integration_id, hour, coalesce(sum(n) filter (where event_type = 'created'), 0) as created,
         coalesce(sum(n) filter (where event_type = 'sent'), 0) as sent, coalesce(sum(n) filter (where event_type = 'failed'), 0) as failed,
         coalesce(sum(n) filter (where event_type = 'retried'), 0) as retried, sum(n * attempts) as attempts
    from folded group by 1, 2
), latencies as materialized (
  select integration_id, hour, k.is_http, k.index, sum(f.n) as n
    from folded f cross join lateral (values (true, f.http_index), (false, f.delivery_index)) as k (is_http, index)
   where k.index is not null group by 1, 2, 3, 4
), spans (span) as (
  values ('hour'), ('day'), ('month')
), counts as (
  select s.span, h.integration_id, date_trunc(s.span, h.hour) as bucket, sum(h.created)::bigint as created, sum(h.sent)::bigint as sent,
         sum(h.failed)::bigint as failed, sum(h.retried)::bigint as retried, sum(h.attempts)::bigint as attempts
    from hours h cross join spans s group by 1, 2, 3
), histograms as (
  select span, integration_id, bucket,
         array_agg(index order by index) filter (where not is_http) as delivery_index,
         array_agg(n order by index) filter (where not is_http) as delivery_count,
         array_agg(index order by index) filter (where is_http) as http_index,
         array_agg(n order by index) filter (where is_http) as http_count
    from (select s.span, l.integration_id, date_trunc(s.span, l.hour) as bucket, l.is_http, l.index, sum(l.n)::bigint as n
            from latencies l cross join spans s group by 1, 2, 3, 4, 5) x
   group by 1, 2, 3
), cells as materialized (
  select c.integration_id, c.span, c.bucket at time zone 'UTC' as bucket, c.created, c.sent, c.failed, c.retried, c.attempts,
         coalesce(h.delivery_index, '{}') as delivery_index, coalesce(h.delivery_count, '{}') as delivery_count,
         coalesce(h.http_index, '{}') as http_index, coalesce(h.http_count, '{}') as http_count
    from counts c left join histograms h using (span, integration_id, bucket)
)
