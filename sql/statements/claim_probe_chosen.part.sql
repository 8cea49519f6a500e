-- Integrations whose open circuit may be probed, in turn from $6 on: one whose rows are refused or locked hides no other.
-- "offset 0" keeps the look for rows with each of these circuits: as a join, the planner may read the waiting rows of all others first.
-- $21 bigint: the longest wait of a circuit in ms
with chosen as materialized (
  select r.integration_id, r.circuit_generation + 1 as generation, rate_of(i.rate_limit) as rate,
         rate_next(r.rate_at, r.rate_by, rate_of(i.rate_limit), $20, now()) as send_at, r.taken_at,
         r.refused_turn, r.refused_in_row > 0 as refuses
    from integration_runtime r join integrations i on i.id = r.integration_id
   where r.circuit_state <> 'closed'
     and (r.circuit_until <= now()
          or r.circuit_until > now() + greatest($21, $9, coalesce(i.timeout_ms, 0) + $11) * interval '1 ms')
     and i.enabled and (i.paused_until is null or i.paused_until <= now())
     and (r.backoff_until is null or r.backoff_until <= now())
     and (rate_of(i.rate_limit) is null or rate_next(r.rate_at, r.rate_by, rate_of(i.rate_limit), $20, now()) is not null)
     and ((i.max_in_flight > 0) is not true or may_serve(r.served_by, r.served_until, $7, now()))
     and ($13[width_bucket(i.id::bigint, $3)] = 0 and $3[width_bucket(i.id::bigint, $3)] = i.id) is not true
     and exists (select from subscriptions s
                  where s.integration_id = r.integration_id and s.status in ('pending', 'retry') and s.held_at is null
                    and subscription_due(s.next_attempt_at, s.scheduled_to) <= now() and s.id <> all ($12) offset 0)
     and ($4::integer[], $5::integer, $14::integer, $15::integer[], $16::bigint[], $17::bigint[], $18::timestamptz[], $19::bigint[])
         is not null
   order by r.integration_id <= $6, r.integration_id limit $1
     for no key update of r skip locked
), free as (
  select i.id, i.name, i.endpoint_url, i.auth_token,
         nullif(i.delivery_settings, '{}') as delivery_settings, coalesce(nullif(greatest(i.timeout_ms, 0), 0), $10) as timeout_ms,
         i.max_attempts, true as recovers, c.generation, true as has_failures, c.taken_at, c.refused_turn, c.refuses, 1 as slots, 1 as retry_slots, c.rate, c.send_at, false as takes,
         0::bigint as fresh_id, '-infinity'::timestamptz as due, 9223372036854775807 as after_id,
         false as passed
    from chosen c join integrations i on i.id = c.integration_id
)
