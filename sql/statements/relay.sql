-- The relay's short statements; what it reads is in relay_read.sql.

-- name: relay_try_lead
-- Asks for the leader's lock: see lead_lock(). Whether it was given; the session that was ended, 0 = none; who led last and the prefix of
-- his topics; whether nobody could see or end a session of his that is frozen; and who holds the lock and is no daemon, NULL = a daemon does.
select l.given, coalesce(l.ended, 0)::bigint, coalesce(r.leader, ''), r.topic_prefix, l.hidden, l.stranger
  from lead_lock('relay') l left join relay_state r on true

-- name: relay_compared
-- Writes that Kafka has nothing of ours that is not known here, and the prefix of the leader's topics. Who wrote the row (see relay_leads),
-- the prefix that was there before, and whether it was another one; no row when another relay leads.
-- $1 bigint: our epoch
-- $2 text: the prefix
-- $3 bigint: the daemon's time, in microseconds since 1970
-- $4 bigint: who wrote the row last: we
update relay_state r set topic_prefix = $2, compared_at = least(now(), to_timestamp($3::bigint / 1e6)) from relay_state o
 where r.one = o.one and r.epoch = $1 and r.xmin::text::bigint = $4
 returning r.xmin::text::bigint, o.topic_prefix, o.topic_prefix is distinct from $2

-- name: relay_others
-- Has another daemon a relay that could lead?
-- $1 text: how the names of such sessions begin
select exists (select from pg_stat_activity
                where datname = current_database() and pid <> pg_backend_pid() and starts_with(application_name, $1))

-- name: relay_show_trouble
-- Puts the leader's trouble into the session's name: there everybody may read it, and it ends with the session.
-- $1 text: the session's name without it
-- $2 text: the trouble, '' = there is none
select set_config('application_name', $1::text || coalesce(' (' || nullif($2::text, '') || ')', ''), false)

-- name: relay_identify
-- Identifies the database. After a promotion the WAL's name has the new timeline at once, the control file only after
-- the next checkpoint.
select (select system_identifier from pg_control_system()),
       ('x' || substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8))::bit(32)::integer

-- name: relay_known_until
-- Up to which offsets the relay had published into a topic, or our consumers had read it: partition, offset. What this database has lost,
-- should it be set back, was published behind.
-- $1 text: the topic
select k.partition, max(k.next_offset)
  from (select partition, next_offset from consumer_offsets where topic = $1
        union all
        select partition, next_offset from relay_reached where topic = $1) k group by 1

-- name: relay_reached
-- Writes up to which offsets the relay has published into a topic. A log into which it has published before that had lost its end: how many
-- did, and what groups have not read of them is in question, see monitor_unread.sql. One that begins at 0 was made anew: groups find that
-- themselves, see may_have_lost().
-- $1 bigint: our epoch
-- $2 text: the topic
-- $3 bigint[]: of each partition, 0 = it has published nothing there since it began
-- $4 bigint[]: the first offset since this was written last, -1 = it has published nothing since then
with published as (
-- include: consumer_published.part.sql
), reached as (
  select n.number - 1 as partition, n.next_offset, n.first from unnest($3::bigint[], $4::bigint[]) with ordinality n (next_offset, first, number)
   where n.next_offset > 0 and exists (select from relay_state where epoch = $1)
), lost as (
  select n.partition from reached n join relay_reached r on r.topic = $2 and r.partition = n.partition
   where n.first > 0 and n.first < r.next_offset
), noted as (
  update consumer_offsets o set unread_until = 9223372036854775807, unread_below = p.below, unread_gaps = p.gaps
    from lost l cross join published p where o.topic = $2 and o.partition = l.partition
), written as (
  insert into relay_reached as r (topic, partition, next_offset) select $2, n.partition, n.next_offset from reached n
      on conflict (topic, partition) do update set next_offset = excluded.next_offset where r.next_offset <> excluded.next_offset
)
select count(*) from lost

-- name: relay_lost
-- The newest id, and the newest time, of the events in Kafka that the ledger has not as they are; no row when it has all.
-- $1 bigint: the last id that is published
-- $2 bigint[]: ids of events in Kafka
-- $3 timestamptz[]: their times
select max(k.id), max(k.created_at) from unnest($2::bigint[], $3::timestamptz[]) k (id, created_at)
 where k.id > $1 and not exists (select from ledger_leaps l where k.id between l.first_id and l.last_id)
   and (select as_instant(e.created_at) = k.created_at from subscription_events e where e.id = k.id and e.id > $1) is not true
having max(k.id) is not null

-- name: relay_leap
-- Leaves ids out. The last id that was given out, and what ledger_renumber() returns.
-- $1 bigint: the last id that is published
-- $2 bigint: the newest id that is lost
-- $3 bigint: the newest time, in microseconds since 1970
select (select last_value from ledger_id_seq), r.next_id, r.moved, r.old_first, r.new_first
  from ledger_renumber($1, $2, 'epoch'::timestamptz + $3::bigint * interval '1 microsecond') r

-- name: relay_begin
-- Takes the saved position over. Where somebody had set it ahead, or taken gaps away, which would leave events out, it is what the relay
-- saved last; was_ahead tells what was found. Events up to the position that were written since it was saved were never published: single
-- tables come from another time, or the ledger went back with its sequence. Then the relay turns back before them, and `newest` is the
-- newest of them. The last two columns: by then Kafka had nothing of ours that the database did not know, as far as it remembers; and who
-- wrote the row (see relay_leads).
-- $1 text: the new leader
with found as (
  select r.high as was, r.high >= s.high is true and (r.high, r.gap_first, r.gap_last, r.gap_horizon)
                        is distinct from (s.high, s.gap_first, s.gap_last, s.gap_horizon) as is_ahead, r, s, s.saved_at,
         coalesce((select max(last_id) from ledger_partitions where name = 'subscription_events_adopted'), 0) as adopted
    from relay_state r left join relay_saved s on true
), taken as (
  select f.*, case when f.is_ahead then (f.s).high else (f.r).high end as high,
         case when f.is_ahead then (f.s).gap_first else (f.r).gap_first end as gap_first,
         case when f.is_ahead then (f.s).gap_last else (f.r).gap_last end as gap_last,
         case when f.is_ahead then (f.s).gap_horizon else (f.r).gap_horizon end as gap_horizon
    from found f
), missed as (
  select e.id as newest,
         coalesce((select o.id from subscription_events o
                    where o.id > t.adopted and o.id < e.id and as_instant(o.created_at) <= t.saved_at
                    order by o.id desc limit 1), t.adopted) as before
    from taken t, lateral (select t.high) p,
-- include: relay_newest.part.sql
         e
   where e.created_at > t.saved_at
), turned as (
  select t.was, t.is_ahead, t.adopted, m.newest, least(t.high, m.before) as high, g.*
    from taken t left join missed m on true,
         lateral (select coalesce(array_agg(u.first order by u.first), '{}') as gap_first,
                         coalesce(array_agg(least(u.last, m.before) order by u.first), '{}') as gap_last,
                         coalesce(array_agg(u.horizon order by u.first), '{}') as gap_horizon
                    from unnest(t.gap_first, t.gap_last, t.gap_horizon) u (first, last, horizon)
                   where u.first <= m.before is not false) g
)
update relay_state s set epoch = s.epoch + 1, leader = $1, updated_at = now(),
       high = t.high, gap_first = t.gap_first, gap_last = t.gap_last, gap_horizon = t.gap_horizon
  from turned t
 returning s.epoch, s.high, s.gap_first, s.gap_last, s.gap_horizon, s.system_identifier, s.timeline,
           uuid_send(installation_name()), case when t.is_ahead then t.was end as was_ahead, t.newest, s.compared_at,
           s.xmin::text::bigint

-- name: relay_trim_holes
-- Holes above the position, which was set back, and those within its gaps, are looked into anyway.
with cut as (
  update relay_holes h set last_id = r.high from relay_state r where r.high between h.first_id and h.last_id - 1
)
delete from relay_holes h using relay_state r
 where h.first_id > r.high or exists (select from unnest(r.gap_first, r.gap_last) g (first, last)
                                       where g.first <= h.last_id and g.last >= h.first_id)

-- name: relay_holes
-- The last holes below an id, downward: first and last id, and whether an event is there.
-- $1 bigint: the id
-- $2 bigint: how many
select h.first_id, h.last_id, e.id is not null
  from (select first_id, last_id from relay_holes where first_id < $1 and not unread order by first_id desc limit $2) h
  left join lateral (select id from subscription_events where id between h.first_id and h.last_id limit 1) e on true
 order by h.first_id desc

-- name: relay_unread
-- Events that are to be published again, in order: ids.
-- $1 bigint: how many
select first_id from relay_holes where unread order by first_id limit $1

-- name: relay_knows_wal
-- May this session ask where the WAL ends?
select ledger_wal_position() is not null

-- name: relay_is_flushed
-- Is the WAL on disk up to this position? No also where relay_mark finds that we lead no more, or that events were missed.
-- $1 bigint: the position
-- $2 bigint: our epoch
-- $3 bigint: who wrote the row last: we (see relay_leads)
select pg_current_wal_flush_lsn() - '0/0'::pg_lsn >= $1
   and exists (select from relay_state where epoch = $2 and xmin::text::bigint = $3) and not
-- include: relay_missed.part.sql

-- name: relay_mark
-- Commits a small change. Who wrote the row (see relay_leads), and the transaction's whole id; no row when another relay leads, or this one
-- has to turn back: see relay_begin.
-- $1 bigint: our epoch
-- $2 bigint: who wrote the row last: we
update relay_state set updated_at = now() where epoch = $1 and xmin::text::bigint = $2 and not
-- include: relay_missed.part.sql
 returning xmin::text::bigint, pg_current_xact_id()::text::bigint

-- name: relay_save
-- Saves the position, and the ids that it has passed without an event. Who wrote the row (see relay_leads); no row when another relay leads,
-- or another hand wrote the row, or when a part of the ledger was taken away: what was not found then may be there all the same. The time is not earlier than that of the newest
-- event, should the server's clock have been set back meanwhile.
-- $1 bigint: our epoch
-- $2 bigint: all ids up to this one are published but for the gaps
-- $3 bigint[]: first ids of the gaps
-- $4 bigint[]: last ids of the gaps
-- $5 bigint[]: horizons of the gaps
-- $6 boolean: the next two are known
-- $7 bigint: system identifier
-- $8 integer: timeline
-- $9 bigint[]: first ids of the holes that were left
-- $10 bigint[]: their last ids
-- $11 bigint[]: first ids of the holes that are gaps again
-- $12 bigint: the daemon's time, in microseconds since 1970
-- $13 bigint: who wrote the row last: we
with saved as (
  update relay_state set high = $2, gap_first = $3, gap_last = $4, gap_horizon = $5,
         system_identifier = case when $6 then $7 else system_identifier end,
         timeline = case when $6 then $8 else timeline end,
         stopped_on = null, stopped_reason = null, updated_at = now(), compared_at = least(now(), to_timestamp($12::bigint / 1e6))
   where epoch = $1 and xmin::text::bigint = $13 and ledger_amiss() is null returning xmin::text::bigint as written_by
), copy as (
  insert into relay_saved (high, gap_first, gap_last, gap_horizon, saved_at)
  select $2, $3, $4, $5, greatest(now(), n.created_at) from saved cross join (select $2::bigint) p (high) left join
-- include: relay_newest.part.sql
    n on true
   on conflict (one) do update set high = excluded.high, gap_first = excluded.gap_first, gap_last = excluded.gap_last,
                                   gap_horizon = excluded.gap_horizon, saved_at = greatest(excluded.saved_at, relay_saved.saved_at)
), left_holes as (
  insert into relay_holes (first_id, last_id) select h.first, h.last from saved, unnest($9::bigint[], $10::bigint[]) h (first, last)
   on conflict (first_id) do update set last_id = greatest(relay_holes.last_id, excluded.last_id)
), reopened as (
  delete from relay_holes h using saved where h.first_id = any ($11)
)
select written_by from saved

-- name: relay_leads
-- Do we lead, and did we write the row? A restore of the tables may bring the same values; the transaction that wrote it is another one.
-- $1 bigint: our epoch
-- $2 bigint: the transaction in which we wrote it last (xmin)
select exists (select from relay_state where epoch = $1 and xmin::text::bigint = $2)

-- name: relay_fenced_by
-- Why we lead no more: what was taken from the ledger, NULL = nothing; and the daemon that has taken the lead, NULL = none has.
-- $1 bigint: our epoch
-- $2 text: our name
select ledger_amiss(), (select leader from relay_state where epoch > $1 and leader <> $2)

-- name: relay_stop
-- Writes that the relay is stopped on an event. Who wrote the row (see relay_leads); no row when another relay leads.
-- $1 bigint: our epoch
-- $2 bigint: the event
-- $3 text: why
-- $4 bigint: who wrote the row last: we
update relay_state set stopped_on = $2, stopped_reason = $3, updated_at = now() where epoch = $1 and xmin::text::bigint = $4
 returning xmin::text::bigint

-- name: relay_partitions
-- A topic's partitions from which ledger id on: id, partitions.
-- $1 text: topic
select from_sequence, partitions from relay_topics where topic = $1 order by from_sequence

-- name: relay_next_id
-- The first id that was not given out yet.
select last_value + 1 from ledger_id_seq

-- name: relay_add_partitions
-- A topic that has fewer than before was made anew: what groups have not read of it is in question, see monitor_unread.sql. Groups may
-- have found that before, and looked by the former partitions.
-- $1 text: topic
-- $2 bigint: the first ledger id that it holds for
-- $3 integer: partitions
with published as (
-- include: consumer_published.part.sql
), fewer as (
  select from (select partitions from relay_topics where topic = $1 order by from_sequence desc limit 1) t where t.partitions > $3
), noted as (
  update consumer_offsets o set unread_until = 9223372036854775807, unread_below = p.below, unread_gaps = p.gaps
    from published p cross join fewer where o.topic = $1 and o.partition < $3
)
insert into relay_topics (topic, from_sequence, partitions) values ($1, $2, $3)
 on conflict (topic, from_sequence) do update set partitions = excluded.partitions

-- name: relay_names
-- Names and types of integrations, as events show them: id, name, type; ascending.
-- $1 bigint[]: ids
select id::bigint, coalesce(left(name::text, 1000), ''), coalesce(left(type::text, 1000), '')
  from integrations where id = any ($1) order by id
