-- The audit log's statements, in the transaction of a batch.

-- name: audit_new_trees
-- $1 text[]: topics
-- $2 integer[]: partitions
insert into audit_trees (topic, partition)
select a.topic, a.partition from unnest($1::text[], $2::int[]) as a (topic, partition) order by 1, 2
    on conflict do nothing

-- name: audit_trees
-- Those trees that there are, locked, in the order of their ids: place in the arrays, id, size, roots; and the installation.
-- $1 text[]: topics
-- $2 integer[]: partitions
select a.n, t.id, t.size, t.roots, (select namespace::text from installation)
  from unnest($1::text[], $2::int[]) with ordinality as a (topic, partition, n)
  join audit_trees t on t.topic = a.topic and t.partition = a.partition
 order by t.id for no key update of t

-- name: audit_new_salts
-- $1 bigint[]: subscriptions
-- $2 bytea[]: a salt for each that has none
insert into audit_salts (subscription_id, salt)
select a.id, a.salt from unnest($1::bigint[], $2::bytea[]) as a (id, salt) order by 1
    on conflict do nothing

-- name: audit_salts
-- The salt of each, or NULL, in the order of the array.
-- $1 bigint[]: subscriptions
select s.salt from unnest($1::bigint[]) with ordinality as a (id, n) left join audit_salts s on s.subscription_id = a.id order by a.n

-- name: audit_append
-- $1 integer[]: trees
-- $2 bigint[]: leaves
-- $3 bigint[]: offsets
-- $4 bigint[]: ledger ids
-- $5 bytea[]: ids of the events
-- $6 text[]: event types
-- $7 bigint[]: subscriptions
-- $8 bigint[]: integrations, 0 = none
-- $9 timestamptz[]: times of the events
-- $10 bytea[]: commitments
-- $11 bytea[]: hashes
insert into audit_log (tree, leaf, "offset", sequence, event_id, event_type, subscription_id, integration_id, created_at, commitment, hash)
select tree, leaf, position, sequence, encode(event_id, 'hex')::uuid, event_type, subscription_id, nullif(integration_id, 0), created_at,
       commitment, hash
  from unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[], $6::text[], $7::bigint[], $8::bigint[], $9::timestamptz[],
              $10::bytea[], $11::bytea[])
       as a (tree, leaf, position, sequence, event_id, event_type, subscription_id, integration_id, created_at, commitment, hash)

-- name: audit_new_tiles
-- $1 integer[]: trees
-- $2 integer[]: levels
-- $3 bigint[]: tiles
-- $4 bytea[]: hashes
insert into audit_tiles (tree, level, tile, hash)
select * from unnest($1::int[], $2::int[], $3::bigint[], $4::bytea[])

-- name: audit_grown
-- $1 integer[]: trees, ascending
-- $2 bigint[]: their sizes
-- $3 bytea[]: the roots of their full subtrees
update audit_trees t set size = a.size, roots = a.roots
  from unnest($1::int[], $2::bigint[], $3::bytea[]) as a (id, size, roots) where t.id = a.id
