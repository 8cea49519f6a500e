-- name: replay_counters :once
-- Brings the counts of integrations, and with them their counters, to what the ledger says; of how many integrations. As in
-- replay_stats the difference of one snapshot is added.
with adoption as (
  select coalesce(max(last_id), 0) as last_id from ledger_partitions where name = 'subscription_events_adopted'
), chunks as materialized (
  select b.event_type, b.chunk, bit_or(('x' || encode(b.bits, 'hex'))::bit(8192)) as bits
    from consumer_bitmaps b where b.read_model = 'integration' and b.event_type in ('sent', 'failed') group by 1, 2
), said as materialized (
  select e.integration_id::bigint as id, count(*) filter (where e.event_type = 'sent') as sent,
         count(*) filter (where e.event_type = 'failed') as failed
    from adoption a join subscription_events e on e.id > a.last_id and e.event_type in ('sent', 'failed')
    join chunks c on c.event_type = e.event_type and c.chunk = e.id / 8192
   where get_bit(c.bits, ((e.id % 8192)::int # 7)) = 1 group by 1
), differences as materialized (
  select i.id::bigint as id, coalesce(b.sent, 0) + coalesce(s.sent, 0) - coalesce(r.sent, 0) as sent,
         coalesce(b.failed, 0) + coalesce(s.failed, 0) - coalesce(r.failed, 0) as failed,
         coalesce(b.successful_sends, 0) + coalesce(r.sent_folded, 0) - coalesce(i.successful_sends, 0)::bigint as own_sent,
         coalesce(b.failed_sends, 0) + coalesce(r.failed_folded, 0) - coalesce(i.failed_sends, 0)::bigint as own_failed
    from integrations i left join said s on s.id = i.id left join integration_runtime r on r.integration_id = i.id
    left join ledger_baseline b on b.integration_id = i.id and b.status = ''
), counted as (
  insert into integration_runtime as r (integration_id, sent, failed)
  select id, sent, failed from differences where sent <> 0 or failed <> 0 order by id
      on conflict (integration_id) do update set sent = r.sent + excluded.sent, failed = r.failed + excluded.failed
), own as (
  update integrations i set successful_sends = coalesce(i.successful_sends, 0) + d.own_sent, failed_sends = coalesce(i.failed_sends, 0) + d.own_failed
    from differences d where d.id = i.id and (d.own_sent <> 0 or d.own_failed <> 0)
)
select count(*) from differences where sent <> 0 or failed <> 0 or own_sent <> 0 or own_failed <> 0
