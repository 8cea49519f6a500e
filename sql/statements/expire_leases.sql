-- Ends claims whose lease is over: id, integration and the new status, or "held", or "unseen", which is held, too.
--
-- What is too old to be tried again and was never claimed by a daemon is held for an operator: whoever had it may have sent it, and
-- nobody saw it fail. A claim by the application itself has no token; one from before the migration has no lease, and gets one first
-- ("is null" sorts last, so those come when no other is due).
-- include: lease_over.part.sql
, given as (
  update subscriptions s set lease_expires_at = now() + interval '10 minutes'
    from over o where s.id = o.id and o.none returning s.id
), expired as (
  update subscriptions s set status = as_state(case when o.unseen then 'pending' when o.final and o.held_by is null then 'failed'
                                                    else 'retry' end, s.status),
         held_at = case when o.unseen or o.held_by is not null then now() end,
         next_attempt_at = case when not o.final and o.held_by is null
             then now() + least($4 * power(2, least(greatest(s.attempts, 1), 30) - 1), $5) * (0.75 + random() / 2)
                          * interval '1 ms' end,
         last_error = 'lease expired: whoever was sending it gave no result', last_http_status = null,
         last_response = null, last_response_truncated = null, last_duration_ms = null,
         last_ambiguous = true, last_decided_by = o.held_by,
         ambiguous_since = coalesce(s.ambiguous_since, now()),
         claimed_by = null, claim_token = null, lease_expires_at = null, updated_at = now()
    from over o where s.id = o.id and not o.none
  returning case when s.claim_token is null and s.lease_expires_at is null and s.attempts = o.attempts
                      and s.status::text = case when o.unseen then 'pending' when o.final and o.held_by is null then 'failed' else 'retry' end
                      and (s.held_at is null) = (not o.unseen and o.held_by is null)
                      and (s.next_attempt_at is not null or o.final or o.held_by is not null)
                 then s.id else subscription_unlike(s.id::bigint, 'end of the claim') end as id,
            s.integration_id, s.status, s.held_at, o.unseen
), dropped as (
  select o.id from over o where o.id not in (select id from expired) and o.id not in (select id from given) limit 1
)
select id::bigint, integration_id::bigint,
       case when unseen then 'unseen' when held_at is null then status::text else 'held' end from expired
 where (select subscription_unlike(d.id::bigint, 'end of the claim') from dropped d) is null
