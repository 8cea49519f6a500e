-- A row that was changed between the statement's snapshot and its lock is locked in its new version, which the
-- update does not see: it stays for the next claim. So the first row of an integration, which brings the settings
-- along, is known only after the update. The casts keep the result's types when the application changes a column's
-- type: else the server would refuse the prepared statement from then on. The last column tells for how long rows were
-- looked for.
, claimed as (
  update subscriptions s set status = 'processing', attempts = s.attempts + 1, claimed_by = $7, claim_token = $8,
         lease_expires_at = now() + greatest($9, w.timeout_ms + $11) * interval '1 ms', updated_at = now()
    from within w where s.ctid = w.row_at
  returning s.id, s.integration_id, s.attempts, s.idempotency_seed, s.created_at, s.payload, s.traceparent,
            s.ambiguous_since is not null as ambiguous,
            subscription_due(s.next_attempt_at, s.scheduled_to) as due, w.taken, w.slots, w.endpoint_url, w.auth_token,
            w.timeout_ms, w.max_attempts, w.recovers, w.found_at
)
select id::bigint, integration_id::bigint, attempts::integer, idempotency_seed::bigint::text,
       (extract(epoch from now() - created_at) * 1000000)::bigint, payload::text, traceparent::text,
       (select namespace from installation), due, number = 1, taken >= slots,
       case when number = 1 then endpoint_url::text end, case when number = 1 then auth_token::text end,
       timeout_ms::bigint, max_attempts::bigint, ambiguous, coalesce(recovers, false),
       case when number = 1 then integration_fingerprint(endpoint_url, auth_token) end,
       (extract(epoch from found_at - now()) * 1000000)::bigint
  from (select *, row_number() over (partition by integration_id order by due, id) as number from claimed) c
 order by number
