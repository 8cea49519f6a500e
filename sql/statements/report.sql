-- name: report :once
-- What happened to each integration in a period, whole hours of UTC: id, name (NULL = there is no such integration any more), created, sent,
-- failed, retried, attempts, share of "sent" among the results (NULL = none), then p50, p95 and p99 of the milliseconds from creation
-- to "sent", and of the HTTP calls; numbers as text. The last row, without id, is that of all; then the period's beginning and end.
--
-- The period is covered by months, days and hours, the longest that fit. A percentile is the middle of its index (see latency_index),
-- 2 lu/(l+u), so that it is off by at most 1.09 percent.
-- $1 text: since, a time; or a duration before now that begins with "-"
-- $2 text: until, in the same way
-- $3 bigint: integration, 0 = all
with asked as (
  select date_trunc('hour', case when left($1, 1) = '-' then now() + $1::interval else $1::timestamptz end at time zone 'UTC') as since,
         case when left($2, 1) = '-' then now() + $2::interval else $2::timestamptz end at time zone 'UTC' - interval '1 microsecond' as last
), hours as (
  select since as h1, greatest(since, date_trunc('hour', last) + interval '1 hour') as h2 from asked
), days as (
  select *, date_trunc('day', h1 + interval '1 day - 1 microsecond') as d1, date_trunc('day', h2) as d2 from hours
), months as (
  select *, date_trunc('month', h1 + interval '1 month - 1 microsecond') as m1, date_trunc('month', h2) as m2 from days
), periods as materialized (
  select p.span, p.first at time zone 'UTC' as first, p.past at time zone 'UTC' as past
    from months cross join lateral (values
         ('hour', h1, case when d1 < d2 then d1 else h2 end), ('hour', d2, case when d1 < d2 then h2 end),
         ('day', d1, case when m1 < m2 then m1 else d2 end), ('day', m2, case when m1 < m2 then d2 end),
         ('month', m1, m2)) as p (span, first, past)
   where p.first < p.past
), cells as materialized (
  select s.* from periods p join integration_stats_spans s on s.span = p.span and s.bucket >= p.first and s.bucket < p.past
   where $3 in (0, s.integration_id)
), counts as (
  select integration_id, sum(created) as created, sum(sent) as sent, sum(failed) as failed, sum(retried) as retried,
         sum(attempts) as attempts
    from cells group by grouping sets ((integration_id), ())
), latencies as materialized (
  -- Both histograms by one key: the indexes of calls are odd. Sums of float8 are exact up to 2^53; those of bigint are numeric.
  select integration_id, key, sum(n) as n
    from (select integration_id, 2 * index::int as key, n::float8 as n
            from (select integration_id, unnest(delivery_index) as index, unnest(delivery_count) as n from cells) d
          union all
          select integration_id, 2 * index::int + 1, n::float8
            from (select integration_id, unnest(http_index) as index, unnest(http_count) as n from cells) h) x
   group by 1, 2
), all_latencies as (
  select integration_id, key % 2 = 1 as is_http, key / 2 as index, n from latencies
  union all
  select null, key % 2 = 1, key / 2, sum(n) from latencies group by key
), ranked as (
  select *, sum(n) over (partition by integration_id, is_http order by index) as up_to,
         sum(n) over (partition by integration_id, is_http) as total
    from all_latencies
), percentiles as (
  select integration_id, is_http, p.percent,
         round((case min(index) filter (where up_to >= ceil(total * p.percent / 100)) when 0 then 0
                else 2 * power(2::double precision, min(index) filter (where up_to >= ceil(total * p.percent / 100)) / 32.0::double precision)
                     / (1 + power(2::double precision, 1 / 32.0::double precision)) / 1000 end)::numeric, 3)::text as ms
    from ranked cross join (values (50), (95), (99)) as p (percent) group by 1, 2, 3
), named as (
  select integration_id, array_agg(ms order by percent) filter (where not is_http) as delivery,
         array_agg(ms order by percent) filter (where is_http) as http
    from percentiles group by 1
)
select c.integration_id, i.name::text, coalesce(c.created, 0)::text, coalesce(c.sent, 0)::text, coalesce(c.failed, 0)::text,
       coalesce(c.retried, 0)::text, coalesce(c.attempts, 0)::text, round(c.sent / nullif(c.sent + c.failed, 0), 6)::text,
       n.delivery[1], n.delivery[2], n.delivery[3], n.http[1], n.http[2], n.http[3],
       (select h1 at time zone 'UTC' from hours), (select h2 at time zone 'UTC' from hours)
  from counts c left join integrations i on i.id = c.integration_id left join named n on n.integration_id is not distinct from c.integration_id
 order by c.integration_id nulls last

-- name: integration_is_missing :once
-- $1 bigint: its id; 0 = none is named
select $1::bigint <> 0 and not exists (select from integrations where id = $1)
