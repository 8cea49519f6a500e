-- name: explain_subscription :once
-- One subscription with its integration and its place in the queue; no row when it does not exist.
-- $1 bigint: id of the subscription
-- $2 bigint: how many of the rows due before it are counted
-- $3 text: name of the session that each daemon has
select s.status::text, s.attempts::bigint, concat_ws('+', s.idempotency_seed::bigint, s.idempotency_turn), coalesce(s.payload::text, 'null'),
       s.created_at::timestamptz, s.updated_at::timestamptz, s.scheduled_to::timestamptz, s.next_attempt_at,
       s.held_at, s.sent_at::timestamptz, s.claimed_by, s.lease_expires_at,
       s.last_error, s.last_http_status, coalesce(s.last_ambiguous, false), s.ambiguous_since,
       s.integration_id::bigint, i.id is not null, i.name::text, coalesce(i.enabled, false),
       coalesce(i.endpoint_url, '') <> '', case when i.paused_until > now() then i.paused_until end,
       i.pause_reason::text, coalesce(r.circuit_state, 'closed'), r.circuit_until, r.circuit_reason,
       r.circuit_since, r.circuit_why,
       case when r.backoff_until > now() then r.backoff_until end, r.backoff_reason, i.max_in_flight, i.max_attempts,
       case when i.max_in_flight > 0 and r.served_until > now() then r.served_by end, r.served_until,
       (1000000 / rate_of(i.rate_limit))::bigint,
       case when r.rate_at + interval '1 s' / rate_of(i.rate_limit) > now() then r.rate_at + interval '1 s' / rate_of(i.rate_limit) end,
       (select count(*) from subscriptions x where x.status = 'processing' and x.integration_id = s.integration_id),
       (select count(*)
          from (select from subscriptions x
                 where x.integration_id = s.integration_id and x.status in ('pending', 'retry') and x.held_at is null
                   and (subscription_due(x.next_attempt_at, x.scheduled_to), x.id)
                     < (subscription_due(s.next_attempt_at, s.scheduled_to), s.id) limit $2) y),
       installation_name(), now(),
       (select count(*) from pg_stat_activity where datname = current_database() and application_name = $3),
       coalesce(s.integration_filter_id, 0)::bigint, s.origin::text, coalesce(s.resend_of, 0),
       coalesce((select x.id from subscriptions x where x.resend_of = s.id), 0)::bigint,
       (select max(d.last_at) from ledger_dropped d where d.last_at >= s.created_at::timestamptz), s.erased_at
  from subscriptions s left join integrations i on i.id = s.integration_id
  left join integration_runtime r on r.integration_id = i.id
 where s.id = $1
