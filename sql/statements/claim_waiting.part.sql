-- Integrations with rows that wait: a skip scan of subscriptions_due, one index probe an integration, however many
-- rows wait.
with recursive waiting (integration_id) as (
  (select integration_id from subscriptions
    where status in ('pending', 'retry') and held_at is null and integration_id is not null
    order by integration_id limit 1)
  union all
  select (select s.integration_id from subscriptions s
           where s.status in ('pending', 'retry') and s.held_at is null and s.integration_id > w.integration_id
           order by s.integration_id limit 1)
    from waiting w where w.integration_id is not null
), place as (select integration_id, '-infinity'::timestamptz as due, 0::bigint as id from waiting),
