-- The rows that claim.sql would take with the same parameters, without taking them: id and integration.
-- include: claim_parameters.part.sql
-- include: claim_waiting.part.sql
-- include: claim_free.part.sql
-- include: claim_find.part.sql
select s.id::bigint, s.integration_id::bigint from found w join subscriptions s on s.ctid = w.row_at
 where ($7::text, $8::bigint, $9::bigint, $11::bigint) is not null
