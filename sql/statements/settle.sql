-- Writes the outcomes of claims that still stand; their ids, ascending.
--
-- The token alone says that the claim stands: a trigger ends it with any change by others. A condition on the status
-- would invite the planner to go by subscriptions_lease.
-- include: settle_parameters.part.sql
with settled as (
-- include: settle_set.part.sql
   where s.id = r.id and s.claim_token = r.token returning s.id)
select id::bigint from settled order by id
