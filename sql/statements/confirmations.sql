-- Confirmations. The first five belong to the transaction of a consumer's batch.

-- name: confirmations_expect
-- What was sent is to be confirmed, if that was set then. A word that came before stays, whichever integration it was for then. Where it was
-- never set for anybody, no event is looked at.
-- $1 bigint[]: subscriptions
-- $2 bigint[]: their integrations
-- $3 timestamptz[]: when they were sent
-- $4 bigint[]: ledger ids of these events
insert into confirmations as c (subscription_id, integration_id, expected_by, created_at)
select e.subscription_id, e.integration_id, e.created_at + t.within_usec * interval '1 us', e.created_at
  from unnest($1::bigint[], $2::bigint[], $3::timestamptz[], $4::bigint[]) as e (subscription_id, integration_id, created_at, id)
 cross join lateral (select within_usec from confirmation_terms
                      where integration_id = e.integration_id and after_id < e.id order by after_id desc limit 1) t
 where t.within_usec is not null and exists (select from confirmation_terms)
 order by 1
    on conflict (subscription_id) do update set expected_by = excluded.expected_by, integration_id = excluded.integration_id
 where c.expected_by is null

-- name: confirmations_older
-- Which of these words (1 = the first) were written before the subscription was made: the clocks may differ by a minute. The application
-- may have written a time that is still to come, which tells nothing.
-- $1 bigint[]: subscriptions
-- $2 timestamptz[]: when the messages were written; NULL = nobody tells
select a.n from unnest($1::bigint[], $2::timestamptz[]) with ordinality as a (id, written_at, n)
 cross join lateral (select as_instant(created_at) as created_at from subscriptions where id = a.id offset 0) s
 where s.created_at <= now() and a.written_at < s.created_at - interval '1 min'

-- name: confirmations_take
-- The first word on each subscription, unless there is one already; of one that is erased without its id. Subscriptions, and whether the
-- word was taken (true) or there is no such subscription (false).
-- $1 bigint[]: subscriptions, each once
-- $2 text[]: confirmed or rejected
-- $3 text[]: the institution's ids, NULL = none
-- $4 timestamptz[]: when, as the institution says; NULL = it does not
with known as materialized (
  select a.id, a.status, case when s.erased_at is null then a.external_id end as external_id, a.confirmed_at, s.integration_id
    from unnest($1::bigint[], $2::text[], $3::text[], $4::timestamptz[]) as a (id, status, external_id, confirmed_at)
   cross join lateral (select integration_id::bigint, erased_at from subscriptions where id = a.id offset 0) s
), taken as (
  insert into confirmations as c (subscription_id, integration_id, status, external_id, confirmed_at, received_at)
  select id, integration_id, status, external_id, confirmed_at, now() from known order by id
      on conflict (subscription_id) do update
     set status = excluded.status, external_id = excluded.external_id, confirmed_at = excluded.confirmed_at, received_at = excluded.received_at
   where c.received_at is null
  returning c.subscription_id
)
select t.subscription_id, true from taken t
union all
select u.id, false from unnest($1::bigint[]) as u (id) where not exists (select from known k where k.id = u.id)

-- name: confirmations_contradict
-- Words that say something else than the first one: another status, or another id. Where the first one told no id, the first that agrees
-- and has one tells it. Their rows are locked already. What is erased keeps its count: what it had contradicted is not known any more.
-- $1 bigint[]: subscriptions
-- $2 text[]: confirmed or rejected
-- $3 text[]: the institution's ids, NULL = none
with words as materialized (
  select c.subscription_id, a.status, a.external_id, a.status <> c.status as is_other,
         coalesce(c.external_id, (array_agg(a.external_id) filter (where a.status = c.status and a.external_id is not null)
                                  over (partition by a.id order by a.n
                                        rows between unbounded preceding and unbounded following))[1]) as own_id
    from unnest($1::bigint[], $2::text[], $3::text[]) with ordinality as a (id, status, external_id, n)
    join confirmations c on c.subscription_id = a.id
   where not exists (select from subscriptions s where s.id = a.id and s.erased_at is not null)
), said as (
  select w.subscription_id, min(w.own_id) as own_id,
         coalesce(array_agg(('x' || encode(substr(sha256(convert_to(w.status || ' ' || coalesce(w.external_id, ''), 'UTF8')), 1, 8), 'hex'))
                            ::bit(64)::bigint) filter (where w.is_other or w.external_id <> w.own_id), '{}') as hashes
    from words w group by 1
)
update confirmations c
   set external_id = s.own_id, contradicting = array(select distinct h from unnest(c.contradicting || s.hashes) h order by h limit 100)
  from said s
 where c.subscription_id = s.subscription_id and (not c.contradicting @> s.hashes or c.external_id is distinct from s.own_id)

-- name: confirmations_settle
-- Settles those of these subscriptions that are held; how many. What somebody else has locked is left, and found by confirmations_sweep.
-- $1 bigint[]: subscriptions
with found as materialized (
-- include: confirmations_settle.part.sql
     and s.id = any ($1) order by s.id for no key update of s skip locked
), settled as (
-- include: settle_held.part.sql
)
select count(*) from settled

-- name: confirmations_sweep
-- Held subscriptions on which there is a word, since it came before they were held, or was left when it came: their ids, in order. See
-- confirmations_settle.
-- $1 bigint: at most so many
-- $2 bigint: behind this id
select f.id from (
-- include: confirmations_settle.part.sql
     and s.id > $2 order by s.id limit $1) f

-- name: confirmations_overdue
-- Those that were to come by now and have not: how many.
-- $1 bigint: at most so many
with late as materialized (
  select subscription_id from confirmations where status = 'expected' and expected_by <= now()
   order by expected_by limit $1 for no key update skip locked
), changed as (
  update confirmations c set status = 'overdue' from late l where c.subscription_id = l.subscription_id and c.status = 'expected' returning 1
)
select count(*) from changed

-- name: confirmations_known
-- Every session sees these terms now.
update confirmation_terms set known_id = (select last_value from ledger_id_seq) where known_id is null
