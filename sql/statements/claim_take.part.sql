-- A row that was changed between the statement's snapshot and its lock is locked in its new version, which the
-- update does not see: it stays for the next claim. So the first row of an integration, which brings the settings
-- along, is known only after the update. The casts keep the result's types when the application changes a column's
-- type: else the server would refuse the prepared statement from then on.
, claimed as (
  update subscriptions s set status = 'processing', attempts = s.attempts + 1, claimed_by = $7, claim_token = $8,
         lease_expires_at = now() + greatest($9, w.timeout_ms + $11) * interval '1 ms', updated_at = now()
    from within w where s.ctid = w.row_at
  returning s.id, s.integration_id, s.attempts, s.idempotency_seed, s.created_at, s.payload, s.traceparent,
            s.ambiguous_since is not null as ambiguous,
            subscription_due(s.next_attempt_at, s.scheduled_to) as due, w.taken, w.slots
)
select id::bigint, integration_id::bigint, attempts::integer, idempotency_seed::bigint::text,
       (extract(epoch from now() - created_at) * 1000000)::bigint, payload::text, traceparent::text,
       (select namespace from installation), due, number = 1, taken >= slots, endpoint_url::text,
       auth_token::text, timeout_ms::bigint, max_attempts::bigint, ambiguous, coalesce(recovers, false),
       integration_fingerprint(endpoint_url, auth_token)
  from (select c.*, f.endpoint_url, f.auth_token, f.timeout_ms, f.max_attempts, f.recovers
          from (select *, row_number() over (partition by integration_id order by due, id) as number
                  from claimed) c
          left join free f on f.id = c.integration_id and c.number = 1 order by c.number) n
