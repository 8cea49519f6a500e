-- Claims due rows, going on where the last claims of some integrations ended. See claim.sql.
-- include: claim_parameters.part.sql
-- $15 bigint[]: integrations
-- $16 timestamptz[]: due times of the last rows claimed there
-- $17 bigint[]: ids of those rows
with place as (select * from unnest($15, $16, $17) as p (integration_id, due, id)),
-- include: claim_find.part.sql
-- include: claim_take.part.sql
