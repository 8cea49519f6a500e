-- name: verify_logged :once
-- Published events that the audit log lacks: how many. By the marks of its read model, chunk by chunk; a dead letter is none. 0 where no
-- group has ever read for it.
-- $1 bigint: events from this id on
-- $2 bigint: at most so many of the last ids
with state as (
  select greatest($1, greatest(high - $2, 0) / 8192 * 8192) as low, high, gap_first, gap_last from relay_state
), published as (
  select e.event_type::text as type, e.id / 8192 as chunk, count(*) as n
    from state s join subscription_events e on e.id >= s.low and e.id <= s.high
   where e.event_type is not null
     and (cardinality(s.gap_first) = 0
          or not exists (select from unnest(s.gap_first, s.gap_last) as g (first, last) where e.id between g.first and g.last))
   group by 1, 2
), logged as (
  select b.event_type as type, b.chunk, sum(
-- include: bits_set.part.sql
       ) as n
    from state s join consumer_bitmaps b on b.read_model = 'monitoring' and b.chunk >= s.low / 8192 group by 1, 2
), dead as (
  select d.event_type as type, d.event / 8192 as chunk, count(distinct d.event) as n
    from state s cross join lateral ledger_letters(s.low, s.high) d where d.read_model = 'monitoring' and not d.is_replayed
   group by 1, 2
)
select coalesce(sum(greatest(p.n - coalesce(l.n, 0) - coalesce(d.n, 0), 0)), 0)::bigint
  from published p left join logged l using (type, chunk) left join dead d using (type, chunk)
 where exists (select from consumer_offsets where read_model = 'monitoring')
