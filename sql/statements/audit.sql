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
select a.n, t.id, t.size, t.roots, installation_name()::text
  from unnest($1::text[], $2::int[]) with ordinality as a (topic, partition, n)
  join audit_trees t on t.topic = a.topic and t.partition = a.partition
 order by t.id for no key update of t

-- name: audit_new_salts
-- $1 bigint[]: chunks, ascending: two daemons may make the same ones
-- $2 bytea[]: the salts of each, for those that have none
insert into audit_salts (chunk, salts)
select * from unnest($1::bigint[], $2::bytea[])
    on conflict do nothing

-- name: audit_salts
-- The salts that there are: chunk, salts.
-- $1 bigint[]: chunks
select chunk, salts from audit_salts where chunk = any ($1)

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

-- name: checkpoints_unpublished
-- Those that are still to go to their topic, in order: id, when, who signed it, note.
-- $1 bigint: at most so many
select id, to_char(created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), signed_by, note
  from audit_checkpoints where published_at is null order by id limit $1

-- name: checkpoints_published
-- Kafka has taken these.
-- $1 bigint[]: ids
update audit_checkpoints set published_at = now() where id = any ($1)

-- name: stop_unmarked_leaves
-- Stops a group when the audit log holds events that are not marked: one that comes again would be a second leaf. Not in a test database
-- that may be emptied. Whether that is known; not while a replay is under way. Leaves are counted first; only when they are more, each is
-- looked for among the marks.
-- $1 text: read model
-- $2 text: the command that mends it
with unheld as materialized (
  select pg_try_advisory_xact_lock_shared(lock_key('replay')) as is_unheld
), marked as materialized (
  select coalesce(sum(
-- include: bits_set.part.sql
       ), 0)::bigint as n
    from consumer_bitmaps b where b.read_model = $1
), chunks as materialized (
  select b.event_type, b.chunk, bit_or(('x' || encode(b.bits, 'hex'))::bit(8192)) as bits
    from consumer_bitmaps b where b.read_model = $1 group by 1, 2
), unmarked as materialized (
  select count(*) as n
    from audit_log l join audit_trees t on t.id = l.tree left join chunks c on c.event_type = l.event_type and c.chunk = l.sequence / 8192
   where (select coalesce(sum(size), 0) from audit_trees) > (select n from marked)
     and not (select allows_cleaning from installation) and (select is_unheld from unheld)
     and coalesce(get_bit(c.bits, ((l.sequence % 8192)::int # 7)), 0) = 0
), stopped as (
  insert into consumer_stops (read_model, reason, command)
  select $1, format('%s in the audit log, but not marked as handled: marks (the table consumer_bitmaps) were lost, or are of another time '
                    'than the log, and what comes again would be in it twice', case n when 1 then 'an event is' else n || ' events are' end), $2
    from unmarked where n > 0
      on conflict do nothing
)
select is_unheld from unheld
