-- Writes the outcomes of claims that still stand; their ids, ascending.
--
-- The token says that the claim stands: a trigger ends it with any change by others. A condition on the status
-- would invite the planner to go by subscriptions_lease. A row that was moved where no trigger fires was not sent to its integration.
-- include: settle_parameters.part.sql
with settled as (
-- include: settle_set.part.sql
   where
-- include: claim_stands.part.sql
-- include: settle_as_meant.part.sql
), dropped as (
  select s.id from unnest($1::bigint[], $2::bigint[], $3::bigint[]) as r (id, token, integration)
    join subscriptions s on
-- include: claim_stands.part.sql
   where (select count(*) from settled) < cardinality($1::bigint[]) and s.id not in (select id from settled) limit 1)
-- include: settle_told.part.sql

