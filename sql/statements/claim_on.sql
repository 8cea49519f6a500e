-- Claims due rows, going on where the last claims of some integrations ended. See claim.sql.
-- include: claim_parameters.part.sql
-- $13 bigint[]: integrations
-- $14 timestamptz[]: due times of the last rows claimed there
-- $15 bigint[]: ids of those rows
with place as (select * from unnest($13, $14, $15) as p (integration_id, due, id)),
-- include: claim_find.part.sql
-- include: claim_take.part.sql
