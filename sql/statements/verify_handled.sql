-- name: verify_handled :once
-- The events that the read model counts: a row for each integration, and one for each type and chunk of ids of which some are handled.
-- $1 text: read model
-- $2 bigint: the last id of before the adoption
-- get_bit() counts from the low bit of each byte, a bit string from the high one, hence # 7. All events are read and folded in parallel,
-- so no CTE that stands by itself is joined to them, and only whether they are handled is asked. Only where some are not, they are read
-- once more.
with chunks as not materialized (
  select b.event_type, b.chunk, bit_or(('x' || encode(b.bits, 'hex'))::bit(8192)) as bits
    from consumer_bitmaps b
   where b.read_model = $1 and b.event_type in ('created', 'sent', 'failed', 'retried')
   group by 1, 2
), events as not materialized (
  select e.id, e.integration_id::bigint, e.event_type::text as type, c.chunk, e.created_at,
         coalesce(get_bit(c.bits, ((e.id % 8192)::int # 7)) <> 0, false) as is_handled
    from subscription_events e left join chunks c on c.event_type = e.event_type and c.chunk = e.id / 8192
   where e.id > $2 and e.event_type in ('created', 'sent', 'failed', 'retried')
), folded as materialized (
  select integration_id, type, chunk, is_handled, count(*) as n from events group by 1, 2, 3, 4
), state as materialized (
  select * from relay_state
), unsure as materialized (
  select e.id
    from state s, unnest(s.gap_first, s.gap_last) as g (first, last)
    join subscription_events e on e.id between g.first and g.last
  union all
  select p.id from (
-- include: verify_passed.part.sql
  ) p
), dead as materialized (
  select event as id from ledger_letters($2 + 1, 9223372036854775807) where read_model = $1
), unhandled as (
  select e.integration_id, e.type, e.id, e.created_at, e.id in (select id from dead) as is_dead,
         e.id <= (select high from state) and e.id not in (select id from unsure) as is_published
    from events e where exists (select from folded f where not f.is_handled) and not e.is_handled
), found as (
  select integration_id, type, chunk, n as handled, 0 as behind, null::bigint as oldest, null::timestamptz as oldest_at, 0 as dead
    from folded where is_handled
  union all
  select integration_id, type, null, 0, count(*) filter (where is_published and not is_dead), min(id) filter (where is_published and not is_dead),
         min(created_at) filter (where is_published and not is_dead)::timestamptz, count(*) filter (where is_dead)
    from unhandled group by 1, 2
)
select grouping(integration_id) = 1, coalesce(integration_id, 0), type, chunk, coalesce(sum(handled) filter (where type = 'sent'), 0)::bigint,
       coalesce(sum(handled) filter (where type = 'failed'), 0)::bigint, sum(handled)::bigint, sum(behind)::bigint, coalesce(min(oldest), 0),
       coalesce(min(oldest_at), '-infinity'), sum(dead)::bigint
  from found group by grouping sets ((integration_id), (type, chunk))
having grouping(integration_id) = 0 or chunk is not null
 order by 1, 3, 4
