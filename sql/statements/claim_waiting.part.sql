-- Integrations with due rows that may be claimed, in turn from $6 on. Two ordered sets are walked side by side, and each
-- step goes on from the greater id of both: the integrations that may be claimed (see integrations_open), and those with
-- rows that wait. So what cannot be claimed costs nothing, however many there are, nor do integrations without rows.
-- "stuck" are those that wait, and those whose slots this daemon has taken; "resumed" are those whose pause is over.
-- Integrations of $16 are taken as they come, and no step walks over the index entries of their rows. width_bucket() tells
-- how many elements of an ordered array are no greater; "offset 0" keeps an expression from being evaluated in each of
-- the places where its value is used.
with recursive stuck as materialized (
  select integration_id::bigint as id from integration_runtime where circuit_state <> 'closed'
  union all
  select integration_id::bigint from integration_runtime where backoff_until > now()
  union all
  select i.id::bigint from unnest($3, $4, $13) as b (id, in_flight, slots) join integrations i on i.id = b.id
   where least(coalesce(nullif(greatest(i.max_in_flight, 0), 0), $5), $14, b.slots) <= b.in_flight
), resumed as materialized (
  select array_agg(id::bigint order by id) as ids from integrations
   where enabled and paused_until <= now()
), look (at, lap, integration_id, known) as (
  select coalesce(nullif($6, 9223372036854775807) + 1, -9223372036854775807), ($6 = 9223372036854775807)::integer, null::bigint,
         null::integer
  union all
  select coalesce(n.at, -9223372036854775807), l.lap + (n.at is null)::integer,
         case when (k.is_known or w.is_due) and (l.lap = 0 or o.id <= $6) then o.id end,
         case when k.is_known then width_bucket(o.id, $16) end
    from look l
   cross join lateral (
     select least((select i.id::bigint from integrations i
                    where i.enabled and i.paused_until is null and i.id >= l.at
                      and i.id <= case l.lap when 0 then 9223372036854775807 else $6 end
                      and i.id not in (select id from stuck)
                    order by i.id limit 1),
                  (select r.ids[width_bucket(l.at - 1, r.ids) + 1] from resumed r)) as id offset 0) o
   cross join lateral (
     select $16[width_bucket(o.id, $16)] = o.id is true as is_known, $16[width_bucket(o.id, $16) + 1] as after offset 0) k
    left join lateral (
     select s.integration_id::bigint as id,
            s.integration_id = o.id and subscription_due(s.next_attempt_at, s.scheduled_to) <= now() as is_due
       from subscriptions s
      where s.status in ('pending', 'retry') and s.held_at is null and not k.is_known
        and s.integration_id >= o.id and s.integration_id <= coalesce(k.after - 1, 9223372036854775807)
      order by s.integration_id, subscription_due(s.next_attempt_at, s.scheduled_to), s.id limit 1) w on true
   cross join lateral (
     select case when k.is_known or w.id = o.id then nullif(o.id, 9223372036854775807) + 1 else coalesce(w.id, k.after) end as at offset 0) n
   where l.lap = 0 or (l.lap = 1 and l.at <= $6)
), place as (
  select integration_id, coalesce($17[known], 0) as fresh_id, coalesce($18[known], '-infinity') as due,
         coalesce($19[known], 9223372036854775807) as id
    from look where integration_id is not null
),
