-- The dispatcher's short statements. Claiming, settling and leases have files of their own.

-- name: release_tokens
-- Claims whose answer got lost on the way were never sent: back to their queue.
-- $1 bigint[]: claim tokens
update subscriptions set status = as_state(case when attempts <= 1 then 'pending' else 'retry' end, status),
       attempts = greatest(attempts - 1, 0), last_error = 'not sent: the claim''s answer got lost',
       last_http_status = null, last_response = null, last_response_truncated = null, last_duration_ms = null,
       last_ambiguous = false, last_decided_by = null, claimed_by = null, claim_token = null, lease_expires_at = null,
       updated_at = now()
 where status = 'processing' and lease_expires_at is not null and claim_token = any ($1)

-- name: renew_leases
-- Of results that the database refuses: another daemon would end their claims, and the rows would go out again.
-- $1 bigint[]: ids
-- $2 bigint[]: claim tokens
-- $3 bigint: the lease in ms
update subscriptions s set lease_expires_at = now() + $3 * interval '1 ms'
  from unnest($1::bigint[], $2::bigint[]) as r (id, token)
 where s.id = r.id and s.claim_token = r.token and s.status = 'processing'

-- name: leave_integrations
-- Others may serve the integrations that this instance had for itself, as may_serve() tells.
-- $1 text: instance
update integration_runtime set served_by = null, served_until = null, served_since = null
 where integration_id in (select integration_id from integration_runtime where served_by = $1
                           order by integration_id for no key update)

-- name: still_claimed
-- Which of these claims still stand: ids.
-- $1 bigint[]: subscriptions
-- $2 bigint[]: claim tokens
-- $3 bigint[]: integrations that they were sent to
select s.id::bigint from subscriptions s join unnest($1::bigint[], $2::bigint[], $3::bigint[]) as r (id, token, integration) on
-- include: claim_stands.part.sql
 order by 1

-- name: pause_integration
-- Pauses an integration until somebody resumes it, and notes that nobody asked for it. No row when it is paused already, or when its
-- fingerprint is another meanwhile.
-- $1 bigint: integration
-- $2 text: why
-- $3 bigint: fingerprint for which it is to be paused
with paused as (
  update integrations set paused_until = 'infinity', pause_reason = $2, updated_at = now()
   where id = $1 and (paused_until is null or paused_until <= now())
     and integration_fingerprint(endpoint_url, auth_token, delivery_settings) = $3 returning id::bigint
), noted as (
  insert into integration_runtime as r (integration_id, own_pause) select id, $2 from paused
      on conflict (integration_id) do update set own_pause = excluded.own_pause
)
select id from paused

-- name: changed_integrations
-- Those of these integrations whose settings are others by now: ids.
-- $1 bigint[]: integrations
-- $2 bigint[]: their fingerprints
select t.id from unnest($1::bigint[], $2::bigint[]) as t (id, fingerprint) join integrations i on i.id = t.id
 where integration_fingerprint(i.endpoint_url, i.auth_token, i.delivery_settings) <> t.fingerprint

-- name: credentials_read_again
-- The credentials that integrations refer to may be others by now. What was sent with those of before says nothing about circuits any more,
-- and where they keep a circuit open, the integration is tried at once: ids of these.
with numbered as (
  insert into integration_runtime as r (integration_id, circuit_generation)
  select i.id::bigint, 1 from integrations i
   where i.auth_token::text like 'credential:%' or i.delivery_settings::text like '%"credential:%' order by 1
      on conflict (integration_id) do update set circuit_generation = r.circuit_generation + 1
   where r.circuit_state = 'closed' or r.circuit_ours or r.circuit_reason = 'authentication'
  returning r.integration_id as id, r.circuit_state
)
select n.id from numbered n cross join lateral integration_try_again(n.id) where n.circuit_state <> 'closed'

-- name: listen_channel :once
-- The channel of the doorbell.
select doorbell_channel()

-- name: take_seat
-- True: this session may wait for the bell, at most a second a time (SQLSTATE 55P03).
select pg_try_advisory_lock(lock_key('seat')), set_config('lock_timeout', '1000', false),
       set_config('statement_timeout', '0', false)

-- name: hold_bell
select pg_advisory_lock(lock_key('bell'))

-- name: release_bell
select pg_advisory_unlock(lock_key('bell'))
