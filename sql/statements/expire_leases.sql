-- Ends claims whose lease is over: id, integration and the new status.
--
-- A claim by the application itself has no token; one from before the migration has no lease, and gets one first
-- ("is null" sorts last, so those come when no other is due).
-- include: lease_over.part.sql
, given as (
  update subscriptions s set lease_expires_at = now() + interval '10 minutes'
    from over o where s.id = o.id and o.none
), expired as (
  update subscriptions s set status = case when o.final then 'failed' else 'retry' end,
         next_attempt_at = case when not o.final
             then now() + least($4 * power(2, least(greatest(s.attempts, 1), 30) - 1), $5) * (0.75 + random() / 2)
                          * interval '1 ms' end,
         last_error = 'lease expired: whoever was sending it gave no result', last_http_status = null,
         last_response = null, last_response_truncated = null, last_duration_ms = null, last_ambiguous = true,
         ambiguous_since = coalesce(s.ambiguous_since, now()),
         claimed_by = null, claim_token = null, lease_expires_at = null, updated_at = now()
    from over o where s.id = o.id and not o.none
  returning s.id, s.integration_id, s.status
)
select id::bigint, integration_id::bigint, status::text from expired
