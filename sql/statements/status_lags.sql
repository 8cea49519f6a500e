-- name: status_lags :once
-- Each topic of each consumer group: partitions, messages read, published events not handled, foreign messages,
-- unknown events, the last change. Chunk by chunk: the published events of the topic's type less the bits that are set and the dead letters, over
-- the last ids of the ledger. What a consumer handles meanwhile makes no lag.
-- $1 bigint: how many ids
with state as (
  select high, greatest(high - $1, 0) / 8192 as first_chunk, gap_first, gap_last from relay_state
), published as (
  select e.event_type::text as type, e.id / 8192 as chunk, count(*) as n
    from state s join subscription_events e on e.id >= s.first_chunk * 8192 and e.id <= s.high
   where e.event_type is not null
     and not exists (select from unnest(s.gap_first, s.gap_last) as g (first, last)
                      where e.id between g.first and g.last)
   group by 1, 2
), handled as (
  select b.read_model, b.event_type as type, b.chunk,
         sum(
-- include: bits_set.part.sql
       ) as n
    from consumer_bitmaps b, state s where b.chunk >= s.first_chunk group by 1, 2, 3
), dead as (
  select l.read_model, l.event_type as type, l.event / 8192 as chunk, count(distinct l.event) as n
    from state s cross join lateral ledger_letters(s.first_chunk * 8192, s.high) l where not l.is_replayed
   group by 1, 2, 3
), topics as (
  select consumer_group, read_model, topic, substring(topic from '[a-z]+$') as type, count(*) as partitions,
         sum(next_offset) as read, sum(foreign_messages) as foreign_messages,
         sum(unknown_events) as unknown_events, max(updated_at) as updated_at
    from consumer_offsets group by 1, 2, 3
)
select t.consumer_group, t.topic, t.partitions, t.read::bigint,
       coalesce((select sum(greatest(p.n - coalesce(h.n, 0) - coalesce(d.n, 0), 0))
                   from published p
                   left join handled h
                          on h.read_model = t.read_model and h.type = t.type and h.chunk = p.chunk
                   left join dead d
                          on d.read_model = t.read_model and d.type = t.type and d.chunk = p.chunk
                  where p.type = t.type), 0)::bigint,
       t.foreign_messages::bigint, t.unknown_events::bigint, t.updated_at
  from topics t order by 1, 2
