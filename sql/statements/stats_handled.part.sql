-- What the ledger says that integration_stats should hold: the events that the read model "integration" has marked. Hours (days, months)
-- that began before the last event that has left with a dropped partition are left out, as those before the first event where a
-- partition was given up by hand.
-- get_bit() counts from the low bit of each byte, a bit string from the high one, hence # 7. The events are read in parallel: so nothing
-- that is joined to them is materialized.
with known as materialized (
  select case when exists (select from ledger_dropped where events > 0) then (select max(last_at) + interval '1 us' from ledger_dropped where events > 0)
              when exists (select from ledger_dropped) or bool_or(p.name = 'subscription_events_adopted') or min(p.first_id) <= 1 then '-infinity'::timestamptz
              else (select as_instant(e.created_at) + interval '1 hour' from subscription_events e order by e.id limit 1) end as since,
         coalesce(max(p.last_id) filter (where p.name = 'subscription_events_adopted'), 0) as adopted
    from ledger_partitions p
), chunks as not materialized (
  select b.event_type, b.chunk, bit_or(('x' || encode(b.bits, 'hex'))::bit(8192)) as bits
    from consumer_bitmaps b where b.read_model = 'integration' group by 1, 2
), e as (
  select s.* from stats_events s join chunks c on c.event_type = s.event_type and c.chunk = s.id / 8192
   where s.id > (select adopted from known) and get_bit(c.bits, ((s.id % 8192)::int # 7)) = 1
),
-- include: stats_cells.part.sql
, differences as materialized (
  select integration_id, span, bucket,
         coalesce(c.created, 0) - coalesce(t.created, 0) as created, coalesce(c.sent, 0) - coalesce(t.sent, 0) as sent,
         coalesce(c.failed, 0) - coalesce(t.failed, 0) as failed, coalesce(c.retried, 0) - coalesce(t.retried, 0) as retried,
         coalesce(c.attempts, 0) - coalesce(t.attempts, 0) as attempts,
         d.indexes as delivery_index, d.counts as delivery_count, h.indexes as http_index, h.counts as http_count
    from cells c full join integration_stats_spans t using (integration_id, span, bucket)
   cross join lateral histogram_add(c.delivery_index, c.delivery_count, t.delivery_index,
                                    array(select -n from unnest(t.delivery_count) as n)) d
   cross join lateral histogram_add(c.http_index, c.http_count, t.http_index, array(select -n from unnest(t.http_count) as n)) h
   where bucket >= (select since from known)
     and (t.created, t.sent, t.failed, t.retried, t.attempts, t.delivery_index, t.delivery_count, t.http_index, t.http_count)
         is distinct from
         (c.created, c.sent, c.failed, c.retried, c.attempts, c.delivery_index, c.delivery_count, c.http_index, c.http_count)
     and (d.indexes <> '{}' or h.indexes <> '{}'
          or (coalesce(c.created, 0), coalesce(c.sent, 0), coalesce(c.failed, 0), coalesce(c.retried, 0), coalesce(c.attempts, 0))
             <> (coalesce(t.created, 0), coalesce(t.sent, 0), coalesce(t.failed, 0), coalesce(t.retried, 0), coalesce(t.attempts, 0)))
)
