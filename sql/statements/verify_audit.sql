-- The proof of the audit log.

-- name: audit_snapshot :once
-- The name of this transaction's snapshot, for others that look at the same.
select pg_export_snapshot()

-- name: audit_all_trees
-- id, topic, partition, size, roots of full subtrees, in the order of topics.
select id, topic, partition, size, roots from audit_trees order by topic, partition

-- name: audit_read_past
-- Which leaves carry the name of an installation that this one is a copy of, the earliest first: tree, below which leaf, name, and the
-- checkpoint that has them.
select tree, leaves, installation::text, checkpoint from audit_past order by id

-- name: audit_read_leaves
-- $1 integer: tree
-- $2 bigint: from this leaf on
-- $3 bigint: so many
select leaf, "offset", sequence, event_id, event_type, subscription_id, integration_id, created_at, commitment, hash
  from audit_log where tree = $1 and leaf >= $2 order by leaf limit $3

-- name: audit_read_tiles
-- The tiles that these leaves fill: level, tile, hash.
-- $1 integer: tree
-- $2 bigint: from this leaf on
-- $3 bigint: so many leaves
select t.level, t.tile, t.hash
  from generate_series(1, 7) as n
  join audit_tiles t on t.tree = $1 and t.level = n and t.tile >= $2 >> 8 * n
                    and t.tile < ($2 + least($3, 9223372036854775807 - $2)) >> 8 * n

-- name: audit_read_hashes
-- $1 integer: tree
-- $2 integer: level; 0 = leaves
-- $3 bigint: from this one on
-- $4 bigint: so many
select hash from (select leaf as n, hash from audit_log where $2 = 0 and tree = $1 and leaf >= $3 and leaf < $3 + $4
                  union all
                  select tile, hash from audit_tiles where $2 > 0 and tree = $1 and level = $2 and tile >= $3 and tile < $3 + $4) h
 order by n

-- name: audit_checkpoints
-- Id, note, who signed it.
-- $1 bigint: from this one on
select id, note, signed_by from audit_checkpoints where id >= $1 order by id

-- name: audit_verified
-- The last checkpoint that a person found to be right, 0 = none.
select coalesce(max(id), 0) from audit_checkpoints where verified_at is not null

-- name: audit_note_verified
-- $1 bigint: the checkpoint
update audit_checkpoints set verified_at = now() where id = $1

-- name: audit_ledger_parts
-- The ledger's parts: the id that each begins with.
select first_id from ledger_partitions
union select 0 where not exists (select from ledger_partitions) order by 1

-- name: audit_ledger_events
-- Id, event id, type ("" = a note of the application), subscription, integration, time; in the order of ids.
-- $1 bigint: from this id on
-- $2 bigint: up to this one
-- $3 bigint: so many
select id::bigint, event_id, event_type::text, subscription_id::bigint, integration_id::bigint, as_instant(created_at)
  from subscription_events where id >= $1 and id <= $2 order by id limit $3

-- name: audit_marks
-- What the group has handled: chunk, type, bits; in the order of chunks. Each type and partition is looked up in the index.
-- $1 bigint: from this chunk on
-- $2 bigint: up to this one
with recursive kinds as (
  (select event_type, partition from consumer_bitmaps where read_model = 'monitoring' order by 1, 2 limit 1)
  union all
  select n.event_type, n.partition
    from kinds k
   cross join lateral (select b.event_type, b.partition from consumer_bitmaps b
                        where b.read_model = 'monitoring' and (b.event_type, b.partition) > (k.event_type, k.partition)
                        order by 1, 2 limit 1) n
)
select b.chunk, b.event_type, b.bits
  from kinds k
 cross join lateral (select * from consumer_bitmaps c
                      where c.read_model = 'monitoring' and c.event_type = k.event_type and c.partition = k.partition
                        and c.chunk >= $1 and c.chunk <= $2 offset 0) b
 order by 1

-- name: audit_unlike_ledger :once
-- Leaves that are not the ledger's events: tree, leaf, ledger id, whether the ledger has no such event, how many there are in all. What left
-- with a dropped partition cannot be compared.
-- $1 integer[]: trees
-- $2 bigint[]: from these leaves on
-- $3 bigint: how many are named
select l.tree, l.leaf, l.sequence, e.id is null, count(*) over ()
  from unnest($1::int[], $2::bigint[]) as f (tree, leaf)
  join audit_log l on l.tree = f.tree and l.leaf >= f.leaf
  left join subscription_events e on e.id = l.sequence
 where l.sequence >= coalesce((select min(first_id) from ledger_partitions), 0)
   and (e.id is null or e.event_id <> l.event_id or e.event_type <> l.event_type or e.subscription_id <> l.subscription_id
        or e.integration_id is distinct from l.integration_id or as_instant(e.created_at) <> l.created_at)
 order by 1, 2 limit $3

-- name: audit_without_leaf :once
-- Events of the ledger that the group has handled and the log does not have: ledger id, type, how many there are in all.
-- $1 bigint: of ledger ids above this one
-- $2 bigint: how many are named
with chunks as materialized (
  select b.event_type, b.chunk, bit_or(('x' || encode(b.bits, 'hex'))::bit(8192)) as bits
    from consumer_bitmaps b where b.read_model = 'monitoring' and b.chunk >= $1 / 8192 group by 1, 2
)
select e.id, e.event_type::text, count(*) over ()
  from subscription_events e join chunks c on c.event_type = e.event_type::text and c.chunk = e.id / 8192
 where e.id > $1 and get_bit(c.bits, ((e.id % 8192)::int # 7)) = 1
   and not exists (select from audit_log l where l.sequence > $1 and l.sequence = e.id)
 order by 1 limit $2

-- name: audit_twice :once
-- Leaves that hold an event that another leaf before them holds: tree, leaf, ledger id, how many there are in all.
-- $1 bigint: of ledger ids above this one
-- $2 bigint: up to this one
-- $3 bigint: how many are named
with twice as (
  select sequence from audit_log join audit_trees t on t.id = tree where sequence > $1 and sequence <= $2 group by 1 having count(*) > 1
)
select tree, leaf, sequence, count(*) over ()
  from (select tree, leaf, sequence, row_number() over (partition by sequence order by "offset", tree, leaf) as n
          from audit_log join twice using (sequence) join audit_trees t on t.id = tree where sequence > $1 and sequence <= $2) l
 where n > 1 order by 1, 2 limit $3

-- name: audit_unmarked :once
-- Leaves of events that the group has not handled, as its marks tell: tree, leaf, ledger id, how many there are in all.
-- $1 bigint: of ledger ids above this one
-- $2 bigint: how many are named
with chunks as materialized (
  select b.event_type, b.chunk, bit_or(('x' || encode(b.bits, 'hex'))::bit(8192)) as bits
    from consumer_bitmaps b where b.read_model = 'monitoring' and b.chunk >= $1 / 8192 group by 1, 2
)
select l.tree, l.leaf, l.sequence, count(*) over ()
  from audit_log l join audit_trees t on t.id = l.tree left join chunks c on c.event_type = l.event_type and c.chunk = l.sequence / 8192
 where l.sequence > $1 and coalesce(get_bit(c.bits, ((l.sequence % 8192)::int # 7)), 0) = 0
 order by 1, 2 limit $2

-- name: audit_stray_leaves :once
-- Leaves of trees that do not exist, and those with numbers below 0: tree, the first and the last, how many; topic and partition, NULL = it
-- does not exist.
with recursive places (tree) as (
  (select tree from audit_log order by 1 limit 1)
  union all
  select n.tree from places p cross join lateral (select tree from audit_log l where l.tree > p.tree order by 1 limit 1) n
)
select p.tree, min(l.leaf), max(l.leaf), count(*), t.topic, t.partition
  from places p left join audit_trees t on t.id = p.tree
  join audit_log l on l.tree = p.tree and l.leaf < case when t.id is null then 9223372036854775807 else 0 end
 group by 1, 5, 6 order by 1

-- name: audit_stray_tiles :once
-- Tiles that no leaves of a tree fill: tree, level, tile, how many there are in all; topic and partition, NULL = the tree does not exist.
-- $1 bigint: how many are named
with recursive places (tree, level) as (
  (select tree, level from audit_tiles order by 1, 2 limit 1)
  union all
  select n.tree, n.level
    from places p cross join lateral (select a.tree, a.level from audit_tiles a where (a.tree, a.level) > (p.tree, p.level) order by 1, 2 limit 1) n
), bounds as (
  select p.tree, p.level, t.topic, t.partition, case when t.id is not null and p.level between 1 and 7 then t.size >> 8 * p.level else 0 end as tiles
    from places p left join audit_trees t on t.id = p.tree
)
select b.tree, b.level, x.tile, count(*) over (), b.topic, b.partition
  from bounds b cross join lateral (
    select a.tile from audit_tiles a where a.tree = b.tree and a.level = b.level and a.tile >= b.tiles
    union all
    select a.tile from audit_tiles a where a.tree = b.tree and a.level = b.level and a.tile < 0) x
 order by 1, 2, 3 limit $1

-- name: audit_lost_checkpoints :once
-- Checkpoints that others know, and that are never thinned out: id, and whether it has the leaves of before a copy.
select x.id, bool_or(x.is_past)
  from (select checkpoint, true from audit_past
        union all
        select checkpoint, false from audit_checks where checkpoint > 0
        union all
        select last_checkpoint, false from audit_checks
         where last_checkpoint > coalesce((select max(id) from audit_checkpoints), 0)) x (id, is_past)
 where not exists (select from audit_checkpoints c where c.id = x.id)
 group by 1 order by 1

-- name: audit_salts_gone :once
-- Salts that are gone without an erasure. The row of 32 subscriptions is missing: chunk, NULL, how many rows are; or one of them is zero,
-- but its subscription is not erased: chunk, subscription, how many such there are.
-- $1 bigint: how many of both are named
with zero as materialized (select decode(repeat('00', 32), 'hex') as salt)
(select x.chunk, null::bigint, count(*) over ()
   from (select distinct l.subscription_id >> 5 as chunk from audit_log l) x
  where not exists (select from audit_salts a where a.chunk = x.chunk) order by 1 limit $1)
union all
(select s.id >> 5, s.id, count(*) over ()
   from audit_salts a cross join zero z cross join generate_series(0, 31) as n
   join lateral (select s.id::bigint as id, s.erased_at from subscriptions s where s.id = a.chunk * 32 + n) s on s.erased_at is null
  where position(z.salt in a.salts) > 0 and substr(a.salts, 1 + 32 * n, 32) = z.salt order by 1, 2 limit $1)

-- name: audit_newest_below :once
-- The highest ledger id of these leaves, 0 = there are none.
-- $1 integer[]: trees
-- $2 bigint[]: their leaves
select coalesce(max(l.sequence), 0) from unnest($1::int[], $2::bigint[]) as f (tree, leaf) join audit_log l using (tree, leaf)

-- name: audit_last_checkpoint
-- Of all, or the one that is asked for: id, note, when, how long ago in microseconds, how many there are, who signed it. No row: none.
-- $1 bigint: its id, 0 = the last
select id, note, created_at, (extract(epoch from now() - created_at) * 1000000)::bigint, count(*) over (), signed_by
  from audit_checkpoints where $1 = 0 or id = $1 order by id desc limit 1

-- name: audit_find_event
-- Whether the ledger has an event, and its leaf, NULL = there is none: tree, leaf, the columns of audit_read_leaves without the hash,
-- then the salt, NULL = it was erased.
-- $1 bigint: the event's number in the ledger
-- $2 text: its event_id; NULL = any
select exists (select from subscription_events where id = $1 and event_type is not null and ($2 is null or event_id = $2::uuid)),
       l.tree, l.leaf, l."offset", l.sequence, l.event_id, l.event_type, l.subscription_id, l.integration_id, l.created_at,
       l.commitment, nullif(substr(s.salts, 1 + 32 * (l.subscription_id & 31)::int, 32), decode(repeat('00', 32), 'hex'))
  from (values (1)) as one
  left join audit_log l on l.sequence = $1 and ($2 is null or l.event_id = $2::uuid)
  left join audit_salts s on s.chunk = l.subscription_id >> 5
 order by l.tree, l.leaf limit 1

-- name: audit_find_reason :once
-- Why an event that the ledger has is no leaf: whether it is of before the adoption, whether the group has handled it; and the dead letter
-- that its message is, NULL = it is none, and whether that is open.
-- $1 bigint: the event's number in the ledger
select $1 <= coalesce((select last_id from ledger_partitions where name = 'subscription_events_adopted'), 0),
       exists (select from subscription_events e
                 join consumer_bitmaps b on b.read_model = 'monitoring' and b.event_type = e.event_type::text and b.chunk = e.id / 8192
                where e.id = $1 and get_bit(b.bits, ($1 % 8192)::int) = 1),
       l.letter, l.is_open
  from (values (1)) as one
  left join ledger_letters($1, $1) l on l.read_model = 'monitoring' and not l.is_replayed
 order by l.is_open desc, l.letter limit 1
