-- The rows that expire_leases.sql would change with the same parameters, without changing them: their ids.
-- include: lease_over.part.sql
select id::bigint from over where ($4::bigint, $5::bigint) is not null
