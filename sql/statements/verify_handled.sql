-- name: verify_handled :once
-- The events that the read model counts, in one pass: a row for each integration, and one for each type and chunk of ids.
-- $1 text: read model
-- get_bit() counts from the low bit of each byte, a bit string from the high one, hence # 7.
with state as (
  select r.*, (select coalesce(max(last_id), 0) from ledger_partitions
                where name = 'subscription_events_adopted') as adopted
    from relay_state r
), unsure as materialized (
  select e.id
    from state s, unnest(s.gap_first, s.gap_last) as g (first, last)
    join subscription_events e on e.id between g.first and g.last
  union all
  select p.id from (
-- include: verify_passed.part.sql
  ) p
), dead as materialized (
  select distinct (headers ->> 'sequence')::bigint as id
    from dead_letters
   where read_model = $1 and topic ~ 'subscriptions\.(created|sent|failed|retried)$'
     and headers ->> 'sequence' ~ '^[0-9]{1,18}$'
), chunks as materialized (
  select b.event_type, b.chunk, bit_or(('x' || encode(b.bits, 'hex'))::bit(8192)) as bits
    from consumer_bitmaps b
   where b.read_model = $1 and b.event_type in ('created', 'sent', 'failed', 'retried')
   group by 1, 2
), events as (
  select e.id, e.integration_id::bigint, e.event_type::text as type, e.id / 8192 as chunk, e.created_at,
         c.bits is not null and get_bit(c.bits, ((e.id % 8192)::int # 7)) = 1 as is_handled,
         e.id <= s.high and e.id not in (select id from unsure) as is_published,
         e.id in (select id from dead) as is_dead
    from state s join subscription_events e on e.id > s.adopted
    left join chunks c on c.event_type = e.event_type and c.chunk = e.id / 8192
   where e.event_type in ('created', 'sent', 'failed', 'retried')
)
select grouping(integration_id) = 1, coalesce(integration_id, 0), type, chunk,
       count(*) filter (where is_handled and type = 'sent'),
       count(*) filter (where is_handled and type = 'failed'),
       count(*) filter (where is_handled),
       count(*) filter (where is_published and not is_handled and not is_dead),
       coalesce(min(id) filter (where is_published and not is_handled and not is_dead), 0),
       coalesce(min(created_at) filter (where is_published and not is_handled and not is_dead)::timestamptz,
                '-infinity'),
       count(*) filter (where is_dead and not is_handled)
  from events group by grouping sets ((integration_id), (type, chunk)) order by 1, 3, 4
