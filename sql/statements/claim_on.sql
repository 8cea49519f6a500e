-- Claims due rows of the integrations of $16, going on where the last claims there ended. See claim.sql.
-- include: claim_parameters.part.sql
with place as (
  select * from unnest($16, $17, $18, $19) as p (integration_id, fresh_id, due, id)
   order by integration_id <= $6, integration_id
),
-- include: claim_free.part.sql
-- include: claim_find.part.sql
, within as (
  select * from found
)
-- include: claim_spend.part.sql
-- include: claim_take.part.sql
