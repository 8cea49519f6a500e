-- A row that was changed between the statement's snapshot and its lock is locked in its new version, which the
-- update does not see: it stays for the next claim. So the first row of an integration, which brings the settings
-- along, is known only after the update. The casts keep the result's types when the application changes a column's
-- type: else the server would refuse the prepared statement from then on. found_at tells for how long rows were
-- looked for. A row of NULLs alone says that nothing was claimed, and that an integration was passed because its row was locked. A claim
-- that does not stand as it was written is refused; one that a trigger dropped is a row that this statement sees and has not claimed.
, claimed as (
  update subscriptions s set status = 'processing', attempts = s.attempts + 1, claimed_by = $7, claim_token = $8,
         lease_expires_at = now() + greatest($9, w.timeout_ms + $11) * interval '1 ms', updated_at = now()
    from within w where s.ctid = w.row_at
  returning case when s.status::text = 'processing' and s.claim_token = $8 and s.lease_expires_at > now()
                      and s.integration_id = w.integration_id then s.id else subscription_unlike(s.id::bigint, 'claim') end as id,
            s.integration_id, s.attempts, s.idempotency_seed, s.created_at, s.payload, s.traceparent,
            s.ambiguous_since, case when w.delivery_settings is not null then s.order_id end as order_id, s.idempotency_turn,
            subscription_due(s.next_attempt_at, s.scheduled_to) as due, w.taken, w.slots, w.retries_taken, w.retry_slots, w.endpoint_url, w.auth_token,
            w.delivery_settings, w.timeout_ms, w.max_attempts, w.recovers, w.generation, w.has_failures, w.taken_at, w.refused_turn, w.refuses, w.found_at, w.name, w.rate, w.send_at,
            w.cut
), dropped as (
  select s.id from within w join subscriptions s on s.ctid = w.row_at
   where (select count(*) from within) > (select count(*) from claimed) and s.id not in (select id from claimed) limit 1
)
select id::bigint, integration_id::bigint, attempts::integer, concat_ws('+', idempotency_seed::bigint, idempotency_turn),
       (extract(epoch from now() - created_at) * 1000000)::bigint, coalesce(payload::text, 'null'), traceparent::text,
       installation_name(), due, number = 1,
       case when taken >= slots then 'all' when retry_slots < slots and retries_taken >= retry_slots then 'retries' else 'none' end,
       case when number = 1 then endpoint_url::text end, case when number = 1 then auth_token::text end,
       timeout_ms::bigint, max_attempts::bigint,
       case when ambiguous_since is null then -1
            else greatest((extract(epoch from now() - ambiguous_since) * 1000000)::bigint, 0) end,
       coalesce(recovers, false),
       case when number = 1 then integration_fingerprint(endpoint_url, auth_token, delivery_settings) end,
       (extract(epoch from found_at - now()) * 1000000)::bigint, generation, coalesce(has_failures, false),
       case when number = 1 then left(name::text, 100) end, case when number = 1 then delivery_settings::text end,
       order_id::text,
       (1000000000 / rate)::bigint,
       (extract(epoch from send_at + (number - 1) / rate * interval '1 s' - now()) * 1000000)::bigint,
       case when number = 1 then (extract(epoch from now() - taken_at) * 1000000)::bigint end, refused_turn, coalesce(refuses, false),
       coalesce(cut, false)
  from (values (1)) one
  left join (select *, row_number() over (partition by integration_id order by due, id) as number from claimed) c on true
 where (id is not null or (select bool_or(passed) from free)) and (select subscription_unlike(d.id::bigint, 'claim') from dropped d) is null
 order by number
