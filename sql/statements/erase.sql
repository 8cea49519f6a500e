-- "anubisctl erase": see subscriptions_erase() in 18_erase.sql.

-- name: erase_find :once
-- The subscriptions of a person, with those that were sent again in their place: id, status, whether it is erased already. A CPF is compared by its digits; subscriptions had it, or one of their events has it. All of both is read.
-- $1 bigint: a subscription; 0 = none is named
-- $2 text: CPF; NULL = none is named
with recursive person as (
  select regexp_replace($2::text, '[^0-9]', '', 'g') as cpf
), named as (
  select id::bigint from subscriptions where id = $1
  union
  select s.id::bigint from subscriptions s, person p where regexp_replace(s.cpf::text, '[^0-9]', '', 'g') = p.cpf
  union
  select e.subscription_id::bigint from subscription_events e, person p
   where p.cpf is not null and regexp_replace(e.cpf::text, '[^0-9]', '', 'g') = p.cpf
), found as (
  select id from named
  union
  select x.id from found f
   cross join lateral (select s.id::bigint from subscriptions s where s.resend_of = f.id
                       union all
                       select s.resend_of from subscriptions s where s.id = f.id and s.resend_of is not null) x
)
select s.id::bigint, s.status::text, s.erased_at is not null
  from found join subscriptions s using (id) order by 1

-- name: erase_some :once
-- Erases what can be erased now: those in flight, and what subscriptions_erase() counts.
-- $1 bigint[]: subscriptions
-- $2 text[]: the person's CPFs, digits
-- $3 text: who does it
select in_flight, erased, failed, events, salts, confirmations, letters, unpublished from subscriptions_erase($1, $2, $3)

-- name: erase_published :once
-- What Kafka was given of these: topic without its prefix, messages; the prefix (NULL = nothing was published yet), and when the last of
-- them was erased.
-- $1 bigint[]: subscriptions
select t.topic, t.messages, r.topic_prefix, (select max(erased_at) from subscriptions where id = any ($1))
  from relay_state r
 cross join lateral (
   select 'subscriptions.' || e.event_type as topic, count(*) as messages
     from subscription_events e
    where e.subscription_id = any ($1) and e.event_type in ('created', 'updated', 'sent', 'failed', 'retried') and e.id <= r.high
      and e.id > coalesce((select last_id from ledger_partitions where name = 'subscription_events_adopted'), 0)
      and not exists (select from unnest(r.gap_first, r.gap_last) as g (first, last) where e.id between g.first and g.last)
    group by 1
   union all
   select 'dead_letters', count(*) from dead_letters
    where published_at is not null and encode(key, 'escape') = any ($1::text[]) having count(*) > 0
   union all
   select 'confirmations', count(*) from confirmations
    where subscription_id = any ($1) and received_at is not null having count(*) > 0) t
 order by 1
