-- name: status_states_about :once
-- Subscriptions by status, about: status, count (null = not known), whether the count is an estimate.
-- Small indexes hold the rows that wait and the rows in flight; of the others only their share is known. Where more than
-- 20,000 wait, the counts of their states are estimates too.
with total as (
  select greatest(c.reltuples, s.n_live_tup)::float8 as n
    from pg_class c left join pg_stat_all_tables s on s.relid = c.oid where c.oid = 'subscriptions'::regclass
), shares as (
  select v.status, v.share::float8
    from pg_stats p, unnest(p.most_common_vals::text::text[], p.most_common_freqs) as v (status, share)
   where p.schemaname = current_schema() and p.tablename = 'subscriptions' and p.attname = 'status'
), about as (
  select s.status, (t.n * s.share)::bigint as n from shares s, total t
), waiting as materialized (
  select status::text from subscriptions s where s.status in ('pending', 'retry') and s.held_at is null limit 20000
), counted as (
  select status, count(*) as n
    from (select status from waiting
          union all select status::text from subscriptions where held_at is not null
          union all select status::text from subscriptions where status = 'processing') x
   group by 1
), kinds as (
  select status, place,
         status = 'processing'
         or (status in ('pending', 'retry') and (select count(*) from waiting) < 20000) as is_exact
    from unnest('{pending,processing,retry,sent,failed}'::text[]) with ordinality as k (status, place)
)
select k.status,
       case when k.is_exact then coalesce(c.n, 0) else greatest(c.n, a.n, (select 0 from shares limit 1)) end,
       not k.is_exact
  from kinds k left join counted c using (status) left join about a using (status)
 order by k.place
