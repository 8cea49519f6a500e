-- name: report :once
-- What happened to each integration in a period, whole hours of UTC: id, name (NULL = there is no such integration any more), created, sent,
-- failed, retried, attempts, share of "sent" among the results (NULL = none), then p50, p95 and p99 of the milliseconds from creation
-- to "sent", and of the HTTP calls; numbers as text. The last row, without id, is that of all; then the period's beginning and end.
--
-- The period is whole months and, at each of its ends, what its month has before it: days and hours, or the whole month less those that
-- follow, whichever are fewer. Where nothing has happened since the period's end, it does not end. A percentile is the middle of its
-- index (see latency_index), 2 lu/(l+u), so that it is off by at most 1.09 percent.
-- $1 text: since, a time; or a duration before now that begins with "-"
-- $2 text: until, in the same way
-- $3 bigint: integration, 0 = all
with asked as (
  select date_trunc('hour', case when left($1, 1) = '-' then now() + $1::interval else $1::timestamptz end at time zone 'UTC') as since,
         case when left($2, 1) = '-' then now() + $2::interval else $2::timestamptz end at time zone 'UTC' - interval '1 microsecond' as last
), hours as (
  select since as h1, greatest(since, date_trunc('hour', last) + interval '1 hour') as h2 from asked
), ends (at, sign) as (
  select h1, -1 from hours
  union all
  select case when exists (select from integration_stats_spans where span = 'hour' and bucket >= h2 at time zone 'UTC') then h2
              else 'infinity' end, 1
    from hours
), parts as (
  select *, at > m0 + interval '15 days' as from_month, at > d0 + interval '12 hours' as from_day
    from (select *, date_trunc('month', at) as m0, date_trunc('month', at) + interval '1 month' as m1,
                 date_trunc('day', at) as d0, date_trunc('day', at) + interval '1 day' as d1 from ends) e
), periods as materialized (
  select p.span, p.first at time zone 'UTC' as first, p.past at time zone 'UTC' as past, p.sign
    from (select 'month' as span, min(m0) as first, max(m0) as past, 1 as sign from parts
          union all
          select p.* from parts cross join lateral (values
                 ('month', case when from_month then m0 end, m1, sign),
                 ('day', case when from_month then d0 else m0 end, case when from_month then m1 else d0 end,
                  case when from_month then -sign else sign end),
                 ('day', case when from_day then d0 end, d1, sign),
                 ('hour', case when from_day then at else d0 end, case when from_day then d1 else at end,
                  case when from_day then -sign else sign end)) as p (span, first, past, sign)
           where at < 'infinity') p
   where p.first < p.past
), cells as materialized (
  -- For each period by itself, so that the index finds its rows: all of them would be looked at instead.
  select s.*, p.sign from periods p cross join lateral (
         select * from integration_stats_spans where span = p.span and bucket >= p.first and bucket < p.past offset 0) s
   where $3 in (0, s.integration_id)
), counts as (
  select integration_id, sum(sign * created) as created, sum(sign * sent) as sent, sum(sign * failed) as failed,
         sum(sign * retried) as retried, sum(sign * attempts) as attempts
    from cells group by grouping sets ((integration_id), ())
  having grouping(integration_id) = 1 or sum(sign * (created + sent + failed + retried + attempts)) > 0
), latencies as materialized (
  -- Both histograms by one key: the indexes of calls are odd. Sums of float8 are exact up to 2^53; those of bigint are numeric.
  select integration_id, key, sum(n) as n
    from (select integration_id, 2 * index::int as key, sign * n::float8 as n
            from (select integration_id, sign, unnest(delivery_index) as index, unnest(delivery_count) as n from cells) d
          union all
          select integration_id, 2 * index::int + 1, sign * n::float8
            from (select integration_id, sign, unnest(http_index) as index, unnest(http_count) as n from cells) h) x
   group by 1, 2 having sum(n) > 0
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

-- name: times_disordered :once
-- Both times, when the second one is before the first one; no row: it is not.
-- $1 text: a time; or a duration before now that begins with "-"; NULL = whenever
-- $2 text: in the same way; NULL = now
select since, until
  from (select case when left($1, 1) = '-' then now() + $1::interval else $1::timestamptz end as since,
               case when $2 is null then now() when left($2, 1) = '-' then now() + $2::interval else $2::timestamptz end as until) t
 where until < coalesce(since, '-infinity')

-- name: zone_asked :once
-- An error where there is no such time zone. The input of a time would take other words in its place: "infinity" is no zone.
-- $1 text: its name
select timezone($1, now())

-- name: integration_is_missing :once
-- $1 bigint: its id; 0 = none is named
select $1::bigint <> 0 and not exists (select from integrations where id = $1)
