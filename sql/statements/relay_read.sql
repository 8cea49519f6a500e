-- What the relay reads, in one snapshot: the head (xmin of the snapshot, a WAL position or NULL, the first id that is left out,
-- if any), then the rows within the ranges. `enum column` of store_relay.c has the columns.
--
-- The columns as they are: the relay cuts long texts, and asks for the names of integrations apart. Each range goes along
-- the primary key, once for the sizes of large rows and once for the rows; with an OR the whole ledger would be scanned. The
-- rows come in the order of the ranges, and of their ids within each. The WAL position is read after the snapshot was
-- taken, so no row that is shown was committed behind it.
-- $1 bigint: the lowest id, so that older partitions are not even opened
-- $2 bigint[]: first ids of the ranges, ascending
-- $3 bigint[]: last ids of the ranges
-- $4 bigint: rows, at most
-- $5 bigint: bytes of rows that have more than 1500, at most; the first of them is read whatever its size
with beyond as materialized (
  select min(l.id) as id
    from (select s.id, sum(s.bytes) over (order by s.id rows unbounded preceding) - s.bytes as before
            from (select f.id, f.bytes
                    from unnest($2::bigint[], $3::bigint[]) with ordinality g (first, last, number)
                         cross join lateral (select e.id, coalesce(octet_length(
-- include: relay_response.part.sql
                                                    ), 0)
                                                    + coalesce(octet_length(e.error_message), 0)
                                                    + coalesce(octet_length(e.origin), 0)
                                                    + coalesce(octet_length(e.cpf), 0)
                                                    + coalesce(octet_length(e.traceparent), 0) as bytes
                                               from subscription_events e
                                              where e.id between g.first and g.last and e.id >= $1
                                              order by e.id limit $4) f
                   order by g.number limit $4) s
           where s.bytes > 1500) l
   where l.before >= $5)
select pg_snapshot_xmin(pg_current_snapshot())::text::bigint as id,
       ledger_wal_position() as subscription_id, b.id as integration_id,
       null::bigint as order_id, null::uuid as event_id, null::timestamptz as created_at, null::text as event_type,
       null::text as origin, null::text as cpf, null::text as status, null::timestamptz as sent_at,
       null::timestamptz as scheduled_to, null::timestamptz as subscription_created_at,
       null::timestamptz as subscription_updated_at, null::integer as attempt, null::text as response,
       null::boolean as response_truncated, null::text as error_message, null::boolean as ambiguous,
       null::timestamptz as next_attempt_at, null::text as traceparent
  from beyond b
union all
(select f.*
   from unnest($2::bigint[], $3::bigint[]) with ordinality g (first, last, number)
        cross join lateral (select e.id, e.subscription_id::bigint, e.integration_id::bigint, e.order_id::bigint,
                                   e.event_id, as_instant(e.created_at), e.event_type::text, e.origin::text,
                                   e.cpf::text, e.to_status::text, e.sent_at, e.scheduled_to,
                                   e.subscription_created_at, e.subscription_updated_at, e.attempt::integer,
-- include: relay_response.part.sql
                                   , e.response_truncated, e.error_message::text, e.ambiguous, e.next_attempt_at,
                                   e.traceparent::text
                              from subscription_events e
                             where e.id between g.first and g.last and e.id >= $1
                               and e.id < coalesce((select b.id from beyond b), 9223372036854775807)
                             order by e.id limit $4) f
  order by g.number limit $4)
