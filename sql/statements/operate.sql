-- What operators do: "anubisctl pause", "resume", "retry", "settle", "resend".

-- name: pause_by_hand :once
-- The integration: its name, and until when nothing is sent to it. No row: there is none with this id.
-- $1 bigint: integration
-- $2 text: why
-- $3 bigint: for how long, in ms; 0 = until somebody resumes it
update integrations
   set paused_until = case $3 when 0 then 'infinity' else now() + $3 * interval '1 ms' end, pause_reason = $2, updated_at = now()
 where id = $1 returning name::text, paused_until

-- name: resume :once
-- The integration: its name, whether it was paused, why, and whether it is enabled. No row: there is none with this id.
-- $1 bigint: integration
with before as materialized (
  select id, name, enabled, paused_until > now() is true as was_paused, pause_reason from integrations where id = $1 for update
), resumed as (
  update integrations i set paused_until = null, pause_reason = null, updated_at = now()
    from before b where i.id = b.id and i.paused_until is not null
)
select name::text, was_paused, case when was_paused then pause_reason::text end, enabled from before

-- name: retry_count :once
-- How many failed subscriptions are chosen, of how many integrations.
-- include: ctl_retry_choice.part.sql
select count(*), count(distinct s.integration_id)
  from subscriptions s
-- include: ctl_retry_where.part.sql
   and s.id > $6 and ($7::integer, $8::text, $9::bigint, $10::bigint) is not null

-- name: retry_next :once
-- The next of them, in the order of their ids.
-- include: ctl_retry_choice.part.sql
select s.id::bigint from subscriptions s
-- include: ctl_retry_where.part.sql
   and s.id > $6 and ($8::text, $9::bigint, $10::bigint) is not null order by s.id limit $7

-- name: retry_others :once
-- Which of $5 are not chosen, by kind: "missing", "erased", their status, or "failed" where another choice leaves them out; how many,
-- and the first of them.
-- include: ctl_retry_choice.part.sql
select o.kind, count(*), array_to_string((array_agg(o.id order by o.id))[1:5], ', ')
  from (select x.id, case when t.id is null then 'missing' when t.erased_at is not null then 'erased' else t.status::text end as kind
          from (select distinct u.id from unnest($5) as u (id)) x left join subscriptions t on t.id = x.id
         where not exists (select from subscriptions s
-- include: ctl_retry_where.part.sql
                              and s.id = x.id)
           and ($6::bigint, $7::integer, $8::text, $9::bigint, $10::bigint) is not null) o
 group by o.kind order by o.kind

-- name: retry_some :once
-- Puts some of them back, in the order of their ids: how many. Rows that somebody else has locked are left out.
-- include: ctl_retry_choice.part.sql
with found as materialized (
  select s.id, row_number() over (order by s.id) as number
    from (select s.id from subscriptions s
-- include: ctl_retry_where.part.sql
             and s.id > $6 order by s.id limit $7 for no key update skip locked) s
), put_back as (
  update subscriptions s
     set status = 'retry', last_error = $8, updated_at = now(),
         next_attempt_at = case when $9 > 0 then now() + ($10 + f.number - 1) / $9::double precision * interval '1 s' end
    from found f where s.id = f.id
  returning s.id
)
select count(*) from put_back

-- name: settle_by_hand :once
-- What a person says of held subscriptions. For each id: its status before (NULL = there is no such row), whether it was held,
-- and whether it is settled now; held ones that somebody else has locked are left alone. What is known not to be there may be
-- sent again as if for the first time.
-- $1 bigint[]: subscriptions
-- $2 text: sent or failed; NULL = nothing is changed
-- $3 text: who says so, and why
with found as materialized (
  select id, $2::text as result, $3::text as words from subscriptions
   where id = any ($1) and held_at is not null and status in ('pending', 'retry') and $2 is not null
   order by id for no key update skip locked
), settled as (
-- include: settle_held.part.sql
)
select u.id, s.status::text, coalesce(s.held_at is not null and s.status in ('pending', 'retry'), false),
       u.id in (select x.id from settled x)
  from (select distinct id from unnest($1) as x (id)) u left join subscriptions s on s.id = u.id
 order by u.id

-- name: resend_some :once
-- Sends subscriptions once more as new ones. For each id: its status (NULL = there is no such row; "erased" = the person's data is gone),
-- the subscription that goes out in its place (NULL = none), and whether that one is new.
-- $1 bigint[]: subscriptions
-- $2 text: who does it, and why; NULL = nothing is changed
-- $3 bigint: how many a second; 0 = all at once
-- $4 bigint: how many were sent once more before
with resent as materialized (
  select id, copy from subscriptions_resend(case when $2 is null then '{}' else $1 end, $2, $3, $4)
)
select u.id, case when s.erased_at is null then s.status::text else 'erased' end, coalesce(n.copy, o.id::bigint), n.copy is not null
  from (select distinct id from unnest($1) as x (id)) u left join subscriptions s on s.id = u.id
  left join resent n on n.id = u.id left join subscriptions o on o.resend_of = u.id
 order by u.id
