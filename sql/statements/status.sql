-- The short statements of "anubisctl status".

-- name: status_refused :once
-- Why daemons wait instead of working here; NULL = they do not, or the server is a standby. Nothing is written.
select case when not pg_is_in_recovery() then coalesce((
-- include: made_amiss.part.sql
       ), work_refused()) end from set_config('transaction_read_only', 'on', true)

-- name: status_states_exact :once
-- Counts all subscriptions: status, count, false (no estimate). An adopted application's own states come last.
select status, coalesce(c.n, 0), false
  from unnest('{pending,processing,retry,sent,failed}'::text[]) with ordinality as k (status, place)
  full join (select coalesce(status::text, 'none') as status, count(*) as n from subscriptions
              group by 1) c using (status)
 order by k.place, status

-- name: clocks_differ :once
-- Daemons whose machine's clock is far from the server's, as the names of their sessions tell: the daemon, and by how many seconds it is
-- ahead.
select coalesce(rtrim(r.parts[2], ')'), ''), r.parts[1]::bigint
  from pg_stat_activity a
 cross join lateral (select regexp_match(a.application_name, '^anubisd monitor [(]clock ([-+]\d{1,12}) s: (.*)$') as parts) r
 where a.datname = current_database() and r.parts is not null
 order by 1, 2

-- name: results_refused :once
-- Daemons that keep results which the database refuses, as the names of their sessions tell: the daemon, how many, the lowest subscription
-- of them, its integration, that one's name, and the SQLSTATE of its last refusal.
select coalesce(s.claimed_by, ''), r.parts[1]::bigint, r.parts[2]::bigint, coalesce(s.integration_id, 0)::bigint,
       coalesce(left(i.name::text, 1000), ''), r.parts[3]
  from pg_stat_activity a
       cross join lateral (select regexp_match(a.application_name, '^anubisd settle [(](\d+) refused: (-?\d+), (\w{5})[)]$') as parts) r
  left join subscriptions s on s.id = r.parts[2]::bigint left join integrations i on i.id = s.integration_id
 where a.datname = current_database() and r.parts is not null
 order by 3

-- name: status_unrouted :once
-- Waiting subscriptions without an integration.
-- $1 bigint: counted up to this, 0 = all
select count(*) from (select from subscriptions where integration_id is null
                         and status in ('pending', 'retry') and held_at is null
                       limit nullif($1::bigint, 0)) x
