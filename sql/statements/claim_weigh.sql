-- Integrations whose rows take long to look through: id, and how long in microseconds; the longest first, at most 16. A claim walks over
-- entries of its index whose rows nobody may see: those of a transaction that is open, rolled back, or hides from an old snapshot.
--
-- Each integration is looked at as claim_find.part.sql does; and the first of its rows is looked for, whenever it is due, as looks do on
-- their way to the next integration with rows.
-- $1 bigint[]: integrations that are looked at from a place on, ascending
-- $2 bigint[]: those places: the id before their fresh rows (due at -infinity)
-- $3 timestamptz[]: the due time before their other rows
-- $4 bigint[]: the id before their other rows, at that due time
-- $5 integer: rows that are looked for, of each kind
-- $6 bigint: what is long, in microseconds
-- $7 bigint[]: integrations that are weighed; none = all
with weighed as materialized (
  select i.id::bigint as id, clock_timestamp() as begun,
         (select true from subscriptions
           where integration_id = i.id and status in ('pending', 'retry') and held_at is null and p.n is null
           order by integration_id, subscription_due(next_attempt_at, scheduled_to), id limit 1) as waits,
         (select count(*) from (
            select from subscriptions
             where integration_id = i.id and status in ('pending', 'retry') and held_at is null
               and subscription_due(next_attempt_at, scheduled_to) = '-infinity' and id > coalesce($2[p.n], 0)
             order by integration_id, subscription_due(next_attempt_at, scheduled_to), id limit $5) fresh) as fresh,
         (select count(*) from (
            select from subscriptions
             where integration_id = i.id and status in ('pending', 'retry') and held_at is null
               and (subscription_due(next_attempt_at, scheduled_to), id)
                   > (coalesce($3[p.n], '-infinity'), coalesce($4[p.n], 9223372036854775807))
               and subscription_due(next_attempt_at, scheduled_to) <= now()
             order by integration_id, subscription_due(next_attempt_at, scheduled_to), id limit $5) others) as others,
         clock_timestamp() as ended
    from integrations i
   cross join lateral (
     select case when $1[width_bucket(i.id::bigint, $1)] = i.id then width_bucket(i.id::bigint, $1) end as n offset 0) p
   where $7 = '{}' or i.id = any ($7)
)
select id, (extract(epoch from ended - begun) * 1000000)::bigint from weighed
 where ended - begun >= $6 * interval '1 us' and (waits, fresh, others) is distinct from (null, null, null)
 order by 2 desc limit 16
