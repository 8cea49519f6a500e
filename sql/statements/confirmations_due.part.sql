-- What is to be confirmed by the ledger and by what was set when it was sent: subscription, integration, when it was sent, by when it is to
-- be confirmed, whether whoever handled the event saw what was set, whether the event is published, and whether the read model has it.
-- get_bit() counts from the low bit of each byte, a bit string from the high one, hence # 7.
terms as materialized (
  select integration_id, after_id, lead(after_id, 1, 9223372036854775807) over (partition by integration_id order by after_id) as last_id,
         within_usec, known_id
    from confirmation_terms
), chunks as materialized (
  select b.chunk, bit_or(('x' || encode(b.bits, 'hex'))::bit(8192)) as bits
    from consumer_bitmaps b where b.read_model = 'external' and b.event_type = 'sent' group by 1
), due as materialized (
  select e.id, e.subscription_id::bigint as subscription_id, t.integration_id, as_instant(e.created_at) as sent_at,
         as_instant(e.created_at) + t.within_usec * interval '1 us' as expected_by,
         coalesce(t.known_id < e.id, false) as is_sure,
         e.id <= r.high and not exists (select from unnest(r.gap_first, r.gap_last) as g (first, last)
                                         where e.id between g.first and g.last) as is_published,
         c.bits is not null and get_bit(c.bits, ((e.id % 8192)::int # 7)) = 1 as is_handled
    from relay_state r cross join terms t
    join subscription_events e on e.integration_id = t.integration_id and e.event_type = 'sent'
                              and e.id > t.after_id and e.id <= t.last_id
    left join chunks c on c.chunk = e.id / 8192
   where t.within_usec is not null
)
