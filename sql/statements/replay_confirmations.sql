-- name: replay_confirmations :once
-- Brings what is expected to what the ledger says; of how many subscriptions. What institutions have said stays.
with
-- include: confirmations_due.part.sql
, expected as (
  insert into confirmations as c (subscription_id, integration_id, expected_by, created_at)
  select subscription_id, integration_id, expected_by, sent_at from due where is_handled order by 1
      on conflict (subscription_id) do update
     set expected_by = excluded.expected_by, integration_id = excluded.integration_id,
         status = case when c.status = 'overdue' and excluded.expected_by > now() then 'expected' else c.status end
   where (c.expected_by, c.integration_id) is distinct from (excluded.expected_by, excluded.integration_id)
  returning c.subscription_id
), wrong as materialized (
  select c.subscription_id, c.received_at is not null as is_said
    from confirmations c join subscriptions s on s.id = c.subscription_id
   where c.expected_by is not null and s.status::text <> 'sent'
   order by 1 for no key update of c
), dropped as (
  delete from confirmations c using wrong w where c.subscription_id = w.subscription_id and not w.is_said
), cleared as (
  update confirmations c set expected_by = null from wrong w where c.subscription_id = w.subscription_id and w.is_said
)
select (select count(*) from expected) + (select count(*) from wrong)
