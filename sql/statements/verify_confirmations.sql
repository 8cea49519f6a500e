-- Confirmations.

-- name: verify_confirmations :once
-- Where the table differs from the ledger: subscription, what is wrong, how many such there are in all.
-- $1 bigint: how many are named
with
-- include: confirmations_due.part.sql
select d.id, d.words, count(*) over ()
  from (select d.subscription_id as id,
               case when c.subscription_id is null then 'it is to be confirmed, and is not in the table'
                    when c.expected_by is distinct from d.expected_by then 'it is to be confirmed by another time than the table says'
                    else 'it is to be confirmed by another integration than the table says' end as words
          from due d left join confirmations c on c.subscription_id = d.subscription_id
         where d.is_handled and d.is_sure
           and (c.expected_by is distinct from d.expected_by or c.integration_id is distinct from d.integration_id)
        union all
        select c.subscription_id, 'the table expects its confirmation, though it is not sent'
          from confirmations c join subscriptions s on s.id = c.subscription_id
         where c.expected_by is not null and s.status::text <> 'sent') d
 order by 1 limit $1

-- name: verify_unhandled :once
-- Published events that are to be confirmed and that the group has not handled, and the oldest: its id, and its time.
with
-- include: confirmations_due.part.sql
, dead as materialized (
  select event as id from relay_state r cross join lateral ledger_letters(0, r.high) where read_model = 'external' and event_type = 'sent'
)
select count(*), coalesce(min(id), 0)::bigint, coalesce(min(sent_at), '-infinity')
  from due where is_published and not is_handled and id not in (select id from dead)
