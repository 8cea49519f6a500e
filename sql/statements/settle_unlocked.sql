-- The same as settle.sql, but for rows that another session has locked.
-- include: settle_parameters.part.sql
with free as materialized (
  select s.id, s.claim_token from subscriptions s join unnest($1::bigint[], $2::bigint[], $3::bigint[]) as r (id, token, integration) on
-- include: claim_stands.part.sql
     for no key update of s skip locked
), settled as (
-- include: settle_set.part.sql
    join free f on f.id = r.id
   where s.id = r.id and s.claim_token = r.token
-- include: settle_as_meant.part.sql
), dropped as (
  select id from free where (select count(*) from settled) < (select count(*) from free) and id not in (select id from settled) limit 1)
-- include: settle_told.part.sql

