-- "anubisctl erase": see subscriptions_erase() in 18_erase.sql.

-- name: erase_find :once
-- The subscriptions of a person, with those that were sent again in their place: id, status, whether it is erased already. A CPF is compared by its digits (cpf_digits); subscriptions had it, or one of their events has it. All of both is read.
-- $1 bigint: a subscription; 0 = none is named
-- $2 text: CPF; NULL = none is named
with recursive person as (
  select cpf_digits($2) as cpf
), named as (
  select id::bigint from subscriptions where id = $1
  union
  select s.id::bigint from subscriptions s, person p
   where cpf_digits(s.cpf::text) = p.cpf
  union
  select e.subscription_id::bigint from subscription_events e, person p
   where p.cpf is not null and cpf_digits(e.cpf::text) = p.cpf
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

-- name: erase_mentioned :once
-- Others that have this CPF in their payload or in an answer, where it may be another person's: a parent's, say.
-- $1 bigint[]: subscriptions that have it as theirs
-- $2 text: CPF, its digits
with forms as (
  select regexp_replace($2, '^(...)(...)(...)(..)$', '\1.\2.\3-\4') as written, ltrim($2, '0') as digits,
         '(^|[^0-9]|\\[0-7]{3})0*' || ltrim($2, '0') || '([^0-9]|$)' as alone
), texts as (
  select s.id::bigint as id, concat_ws(' ', s.payload::text, s.last_response) as words from subscriptions s where s.erased_at is null
  union all
  select e.subscription_id::bigint, concat_ws(' ', e.request::text, e.response::text)
    from subscription_events e where e.request is not null or e.response is not null
), plain as (
  select t.id, plain_digits(t.words) as words from (select * from texts offset 0) t offset 0
)
select distinct t.id
  from forms f join plain t on strpos(t.words, f.written) > 0 or strpos(t.words, f.digits) > 0 and t.words ~ f.alone
  join subscriptions s on s.id = t.id and s.erased_at is null
 where f.digits <> '' and t.id <> all ($1::bigint[]) order by 1

-- name: erase_some :once
-- Erases what can be erased now: those in flight, and what subscriptions_erase() counts.
-- $1 bigint[]: subscriptions
-- $2 text[]: the person's CPFs, digits
-- $3 text: who does it
select in_flight, erased, failed, events, salts, confirmations, letters, unpublished from subscriptions_erase($1, $2, $3)

-- name: erase_published :once
-- What Kafka was given of these: topic without its prefix, messages; the prefix (NULL = it is not known), and when the last of
-- them was erased. A dead letter stands in the topic of dead letters, and is itself a message of the topic from which it came.
-- $1 bigint[]: subscriptions
-- $2 bigint[]: dead letters that were erased now
with letters as (
  select d.topic, d.published_at is not null as is_published, l.letter is not null as is_event
    from dead_letters d
    left join ledger_letters(0, 9223372036854775807) l
           on l.letter = d.id and l.event in (select e.id::bigint from subscription_events e where e.subscription_id = any ($1))
   where d.id = any ($2) or encode(d.key, 'escape') = any ($1::text[])
), given as (
   select r.topic_prefix as prefix, 'subscriptions.' || e.event_type as topic, count(*) as messages
     from relay_state r cross join subscription_events e
    where e.subscription_id = any ($1) and e.event_type in ('created', 'updated', 'sent', 'failed', 'retried') and e.id <= r.high
      and e.id > coalesce((select last_id from ledger_partitions where name = 'subscription_events_adopted'), 0)
      and not exists (select from unnest(r.gap_first, r.gap_last) as g (first, last) where e.id between g.first and g.last)
    group by 1, 2
   union all
   select r.topic_prefix, 'dead_letters', count(*) from relay_state r cross join letters l where l.is_published group by 1
   union all
   select case when starts_with(l.topic, r.topic_prefix) then r.topic_prefix else '' end,
          case when starts_with(l.topic, r.topic_prefix) then substr(l.topic, length(r.topic_prefix) + 1) else l.topic end, count(*)
     from relay_state r cross join letters l where not l.is_event group by 1, 2
   union all
   select r.topic_prefix, 'confirmations', count(*) from relay_state r cross join confirmations c
    where c.subscription_id = any ($1) and c.received_at is not null group by 1
)
select topic, sum(messages)::bigint, prefix, coalesce((select max(erased_at) from subscriptions where id = any ($1)), now())
  from given group by 1, 3 order by 1
