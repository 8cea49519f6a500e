-- The integrations of the places, and how many rows each may give: as it has slots, and no more than its rate_limit lets out soon
-- (rate_next(); its row is locked, so that daemons do not do so together). Where max_in_flight is set, one instance has the slots:
-- may_serve(). It "takes" them, under the same lock, when it did not have them for long enough. They come in the order of their
-- places ("offset 0": no other join keeps it). Rows with a due time, retries above all, leave a quarter of the slots to first
-- attempts, which so do not wait for slow retries. A setting that is not positive (an adopted table may hold one) counts as not set. An
-- integration that has just backed off, or whose circuit has just closed, begins with one request where this daemon knows no limit.
-- One whose row somebody else has locked gives no rows now, and is "passed": counting takes such locks, each for a moment.
free as (
  select i.id, i.name, i.endpoint_url, i.auth_token, i.delivery_settings,
         coalesce(nullif(greatest(i.timeout_ms, 0), 0), $10) as timeout_ms,
         i.max_attempts, i.recovers, i.generation, i.has_failures, i.taken_at, i.refused_turn, i.refuses,
         case when i.rate is null and not i.takes then n.slots else least(n.slots, coalesce(t.tokens, 0)) end as slots, i.rate, t.send_at,
         i.takes, n.retry_slots,
         p.fresh_id, p.due, p.id as after_id,
         (i.rate is not null or i.takes) and n.slots > 0 and t.tokens is null
         and (i.rate is null or rate_next(i.rate_at, i.rate_by, i.rate, $20, now()) is not null)
         and (not i.takes or may_serve(i.served_by, i.served_until, $7, now())) as passed
    from place p
   cross join lateral (
     select i.id, i.name, i.endpoint_url, i.auth_token, nullif(i.delivery_settings, '{}') as delivery_settings,
            i.timeout_ms, i.max_attempts, i.max_in_flight, rate_of(i.rate_limit) as rate,
            r.backoff_until > now() - interval '1 minute' or r.circuit_since > now() - interval '1 minute' as recovers,
            coalesce(r.circuit_generation, 0) as generation, r.circuit_failures > 0 as has_failures, r.taken_at,
            coalesce(r.refused_turn, 0) as refused_turn, r.refused_in_row > 0 as refuses,
            r.rate_at, r.rate_by, r.served_by, r.served_until, width_bucket(i.id::bigint, $3) as n,
            (i.max_in_flight > 0) is true
            and (r.served_by = $7
                 and r.served_until >= now() + greatest($9, coalesce(nullif(greatest(i.timeout_ms, 0), 0), $10) + $11)
                                             * interval '1 ms') is not true as takes
       from integrations_open o join integrations i on i.id = o.id
       left join integration_runtime r on r.integration_id = i.id
      where o.id = p.integration_id offset 0) i
    left join lateral (select $4[i.n] as in_flight, $13[i.n] as slots, $15[i.n] as retries where $3[i.n] = i.id) b on true
   cross join lateral (
     select all_slots - coalesce(b.in_flight, 0) as slots,
            greatest(all_slots - all_slots / 4 - coalesce(b.retries, 0), 0) as retry_slots
       from least(coalesce(nullif(greatest(i.max_in_flight, 0), 0), $5), $14,
                  case when b.slots < 2147483647 then b.slots when i.recovers then 1 end) as all_slots offset 0) n
    left join lateral (
     select rate_next(r.rate_at, r.rate_by, i.rate, $20, now()) as send_at,
            case when i.rate is null then n.slots
                 else rate_tokens(rate_next(r.rate_at, r.rate_by, i.rate, $20, now()), i.rate, now()) end as tokens
       from integration_runtime r
      where (i.rate is not null or i.takes) and n.slots > 0 and r.integration_id = i.id
        and (i.rate is null or rate_next(r.rate_at, r.rate_by, i.rate, $20, now()) is not null)
        and (not i.takes or may_serve(r.served_by, r.served_until, $7, now()))
        for no key update skip locked) t on true
)
