-- What the relay reads, in one snapshot: the head (kind 0: xmin of the snapshot and a WAL position), rows within the
-- gaps (kind 1), rows above the newest id that is published (kind 2). `enum column` of store_relay.c has the columns.
-- Each kind by itself goes along the primary key; with an OR the whole ledger would be scanned. The WAL position is read
-- after the snapshot was taken, so no row that is shown was committed behind it.
-- $1 bigint: the newest id that is published
-- $2 bigint: rows of each kind, at most
-- $3 bigint: bytes of each kind; the first row is read whatever its size
-- $4 bigint[]: first ids of the gaps
-- $5 bigint[]: last ids of the gaps
select 0 as kind, pg_snapshot_xmin(pg_current_snapshot())::text::bigint as id, null::text, null::text,
       null::timestamptz, (pg_current_wal_insert_lsn() - '0/0'::pg_lsn)::bigint, null::bigint, null::text, null::text,
       null::bigint, null::text, null::text, null::text, null::timestamptz, null::timestamptz, null::timestamptz,
       null::timestamptz, null::integer, null::text, null::boolean, null::text, null::boolean, null::timestamptz,
       null::text, null::bigint, null::integer
union all
(select 1, w.*
   from (select
-- include: relay_columns.part.sql
-- include: relay_sizes.part.sql
           from (select
-- include: relay_columns.part.sql
                   from unnest($4::bigint[], $5::bigint[]) g (first, last)
                        cross join lateral (select * from subscription_event_feed e
                                             where e.id between g.first and g.last order by e.id limit $2) f
                  order by f.id limit $2) f) w
  where w.total - w.bytes < $3)
union all
(select 2, w.*
   from (select
-- include: relay_columns.part.sql
-- include: relay_sizes.part.sql
           from (select * from subscription_event_feed e where e.id > $1 order by e.id limit $2) f) w
  where w.total - w.bytes < $3)
