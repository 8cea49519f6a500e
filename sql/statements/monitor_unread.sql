-- Events that were published, and that Kafka let go before a consumer group had read them: retention passed a group that was away, or the
-- log was cut or made anew. The ledger has them, so the relay publishes them again, and they are counted as any others.
--
-- That a part of a partition's log was gone is noted in consumer_offsets by who found it; then that the ledger's events which were published
-- by then, and are not handled although all of the log's rest was read, are not in it. Where nobody found anything, nothing is published.

-- name: unread_busy
-- Has the relay events to publish again?
select exists (select from relay_holes where unread)

-- name: unread_ready
-- A topic of which partitions were read as far as they had to be: topic; of each of these partitions the group and the number; the groups,
-- in words; the last id in question.
-- Not while another partition of the topic is still to be read so far, should an event be elsewhere than it belongs; partitions that the
-- topic no longer has are read by nobody.
select topic, array_agg(consumer_group order by consumer_group, partition)::text, array_agg(partition order by consumer_group, partition)::text,
       string_agg(distinct consumer_group, ', '), max(unread_below)
  from consumer_offsets o
 where next_offset >= unread_until
   and not exists (select from consumer_offsets b
                    where b.consumer_group = o.consumer_group and b.topic = o.topic and b.next_offset < b.unread_until
                      and b.partition < coalesce((select t.partitions from relay_topics t where t.topic = b.topic
                                                   order by t.from_sequence desc limit 1), b.partition + 1))
 group by 1 order by 1 limit 1

-- name: unread_publish
-- Looks at so many events of the ledger, and notes those for the relay that were published and that a read model has not handled: up to
-- which id it has looked, how many it has found, the first and the last of them.
-- $1 text: topic
-- $2 text: consumer groups
-- $3 text: of each of them a partition that is in question
-- $4 bigint: above this id
-- $5 bigint: up to this one
-- $6 bigint: how many
with place as materialized (
  select p.above, coalesce((select e.id from subscription_events e where e.id > p.above and e.id <= $5 order by e.id offset $6 limit 1), $5) as ending,
         substring($1::text from '[a-z]+$') as type
    from (select greatest($4, max(last_id) filter (where name = 'subscription_events_adopted')) as above from ledger_partitions) p
), parts as materialized (
  select o.read_model as model, o.partition, o.unread_below as below, o.unread_gaps as gaps
    from unnest($2::text[], $3::integer[]) f (consumer_group, partition)
    join consumer_offsets o on o.consumer_group = f.consumer_group and o.topic = $1 and o.partition = f.partition
     and o.next_offset >= o.unread_until
), chunks as materialized (
  select b.read_model, b.chunk, bit_or(('x' || encode(b.bits, 'hex'))::bit(8192)) as bits
    from place p join consumer_bitmaps b on b.event_type = p.type and b.chunk between p.above / 8192 and p.ending / 8192
   where b.read_model in (select model from parts) group by 1, 2
), dead as materialized (
  select distinct l.read_model, l.event as id from place p cross join lateral ledger_letters(p.above + 1, p.ending) l
), unhandled as materialized (
  select e.id, e.subscription_id::bigint as subscription, m.model
    from place p join subscription_events e on e.id > p.above and e.id <= p.ending and e.event_type::text = p.type
   cross join (select distinct model from parts) m
    left join chunks c on c.read_model = m.model and c.chunk = e.id / 8192
   -- get_bit() counts from the low bit of each byte, a bit string from the high one, hence # 7.
   where c.bits is null or get_bit(c.bits, ((e.id % 8192)::int # 7)) = 0
), placed as materialized (
  -- Where the relay publishes it: see relay_topics_partition().
  select u.*, key_partition(u.subscription, least((select t.partitions from relay_topics t
                                                    where t.topic = $1 and t.from_sequence <= u.id order by t.from_sequence desc limit 1),
                                                  (select t.partitions from relay_topics t where t.topic = $1
                                                    order by t.from_sequence desc limit 1))) as partition
    from unhandled u
), unread as materialized (
  select distinct u.id
    from placed u join parts f on f.model = u.model and f.partition = u.partition and u.id <= f.below and (u.id <@ any (f.gaps)) is not true
   where not exists (select from dead d where d.read_model = u.model and d.id = u.id)
     and not exists (select from relay_state r, unnest(r.gap_first, r.gap_last) g (first, last) where u.id between g.first and g.last)
     and not exists (select from relay_holes h where u.id between h.first_id and h.last_id)
), noted as (
  insert into relay_holes (first_id, last_id, unread) select id, id, true from unread order by id on conflict do nothing
)
select (select ending from place), count(*), coalesce(min(id), 0), coalesce(max(id), 0) from unread

-- name: unread_done
-- Nothing up to this id is in question any more.
-- $1 text: topic
-- $2 text: consumer groups
-- $3 text: of each of them a partition
-- $4 bigint: the id
update consumer_offsets o set unread_until = null, unread_below = null, unread_gaps = null
  from unnest($2::text[], $3::integer[]) f (consumer_group, partition)
 where o.topic = $1 and o.consumer_group = f.consumer_group and o.partition = f.partition and o.unread_below <= $4
   and o.next_offset >= o.unread_until
