  update subscriptions s set
         status = as_state(case r.state when 'release' then case when s.attempts <= 1 then 'pending' else 'retry' end
                                        when 'hold' then 'retry' else r.state end, s.status),
         attempts = r.attempts,
         sent_at = case when r.state = 'sent' then now() else s.sent_at end,
         next_attempt_at = case when r.state = 'retry' then now() + r.delay_ms * interval '1 ms'
                                when r.state = 'release' then s.next_attempt_at end,
         held_at = case when r.state = 'hold' then now() end,
         last_error = r.error, last_http_status = r.http_status, last_response = r.response,
         last_response_truncated = r.truncated, last_duration_ms = r.duration_ms, last_ambiguous = r.ambiguous,
         last_decided_by = r.decided_by,
         ambiguous_since = case when r.absent then case when r.ambiguous then now() end
                                when r.ambiguous then coalesce(s.ambiguous_since, now()) else s.ambiguous_since end,
         idempotency_turn = case when r.new_key then coalesce(s.idempotency_turn, 0) + 1 else s.idempotency_turn end,
         claimed_by = null, claim_token = null, lease_expires_at = null, updated_at = now()
    from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::int[], $6::bigint[], $7::int[], $8::int[], $9::text[],
                $10::text[], $11::bool[], $12::bool[], $13::text[], $14::bool[], $15::bool[])
         as r (id, token, integration, state, attempts, delay_ms, http_status, duration_ms, error, response, truncated, ambiguous, decided_by,
               absent, new_key)
