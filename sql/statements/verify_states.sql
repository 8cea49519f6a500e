-- name: verify_states :once
-- Each status: subscriptions in it, how many baseline and events make, and how many events there are in all.
-- $1 bigint: the last id of before the adoption
-- include: verify_events.part.sql
steps as materialized (
  select e.from_status::text, e.to_status::text, count(*) as n from events e group by 1, 2
), expected as (
  select status, sum(n)::bigint as n
    from (select to_status as status, n from steps
          union all select from_status, -n from steps
          union all select status, subscriptions from ledger_baseline where status <> '') x
   where status is not null group by 1
), found as (
  select status::text as status, count(*) as n from subscriptions where status is not null group by 1
)
select status, coalesce(f.n, 0), coalesce(x.n, 0), (select coalesce(sum(n), 0) from steps)::bigint
  from unnest('{pending,processing,retry,sent,failed}'::text[]) with ordinality as k (status, place)
  full join found f using (status) full join expected x using (status)
 order by k.place, status
