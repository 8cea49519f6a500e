-- Messages that no consumer could handle: "anubisctl dead-letters", and their topic.

-- name: letters_reasons :once
-- The reasons of those that are open, the most frequent first: group, reason, how many, since when, the latest.
-- $1 text: group, NULL = all
select coalesce(read_model, consumer_group), coalesce(last_error, error), count(*), min(created_at), max(failed_at)
  from dead_letters
 where replayed_at is null and discarded_at is null and ($1::text is null or read_model = $1)
 group by 1, 2 order by 3 desc, 1, 2 limit 50

-- name: letters_list :once
-- id, group, topic, partition, offset, key, reason, since, replays, when it was handled, when it was given up, how many there are.
-- $1 text: group, NULL = all
-- $2 boolean: also those that are no longer open
-- $3 bigint: at most so many
select id, coalesce(read_model, consumer_group), topic, partition, "offset", key, coalesce(last_error, error), created_at, replays,
       replayed_at, discarded_at, count(*) over ()
  from dead_letters
 where ($2 or replayed_at is null and discarded_at is null) and ($1::text is null or read_model = $1)
 order by id limit $3

-- name: letters_stops :once
-- Groups that have stopped: group, why, since when, until when they go on and put messages aside (NULL = they stand still), and the
-- command that mends it; NULL = "resume".
select read_model, reason, stopped_at, passes_until, command from consumer_stops
 where passes_until is null or passes_until > now() order by stopped_at

-- name: letter_show :once
-- One of them. No row: there is none with this id.
-- $1 bigint: id
select id, consumer_group, topic, partition, "offset", key, headers::text, value, error, created_at, failed_at, replays, last_error,
       replayed_at, discarded_at, discard_reason, published_at, discard_only
  from dead_letters where id = $1

-- name: letters_chosen :once
-- Each id, and why it cannot be chosen, NULL = it can.
-- $1 bigint[]: ids; empty = all that are open
-- $2 text: of this group, NULL = all
-- $3 boolean: to be replayed
select d.id, null from dead_letters d
 where cardinality($1::bigint[]) = 0 and d.replayed_at is null and d.discarded_at is null and ($2::text is null or d.read_model = $2)
   and not ($3 and d.discard_only)
union all
select g.id, case when d.id is null then 'is not there' when d.discarded_at is not null then 'was discarded'
                  when d.replayed_at is not null then 'was handled already' when $2 is not null and d.read_model is distinct from $2 then 'is of another group'
                  when $3 and d.discard_only
                  then 'is about another subscription of this id, which is gone: it can only be discarded' end
  from unnest($1::bigint[]) as g (id) left join dead_letters d using (id)
 order by 1

-- name: letter_take
-- One that is open, locked: group, topic, partition, offset, key, value, whether its headers are an object. No row: it is no longer open. Whoever has it locked (its
-- publisher, for a moment, or another replay) is waited for.
-- $1 bigint: id
select coalesce(read_model, consumer_group), topic, partition, "offset", key, value, jsonb_typeof(headers) = 'object'
  from dead_letters where id = $1 and replayed_at is null and discarded_at is null for update

-- name: letter_headers
-- Its headers: name, value. A person may have written others than an object.
-- $1 bigint: id
select h.key, h.value
  from dead_letters d, jsonb_each_text(case when jsonb_typeof(d.headers) = 'object' then d.headers end) h where d.id = $1

-- name: letter_replayed
-- It was handled.
-- $1 bigint: id
update dead_letters set replayed_at = now(), replays = replays + 1, last_error = null where id = $1

-- name: letter_failed
-- It failed again.
-- $1 bigint: id
-- $2 text: why
update dead_letters set failed_at = now(), replays = replays + 1, last_error = $2
 where id = $1 and replayed_at is null and discarded_at is null

-- name: letters_discard
-- Gives these up; how many.
-- $1 bigint[]: ids
-- $2 text: why, and who says so
with given_up as (
  update dead_letters set discarded_at = now(), discard_reason = $2
   where id = any ($1) and replayed_at is null and discarded_at is null returning 1)
select count(*) from given_up

-- name: resume_group :once
-- A group that has stopped goes on: why it had stopped. No row: it had not.
-- $1 text: read model
-- $2 boolean: for an hour messages that cannot be handled are put aside, however many
with before as materialized (
  select read_model, reason from consumer_stops where read_model = $1 and passes_until is null for update
), passing as (
  update consumer_stops s set passes_until = now() + interval '1 hour' from before b where $2 and s.read_model = b.read_model
), ended as (
  delete from consumer_stops s using before b where not $2 and s.read_model = b.read_model
)
select reason from before

-- name: letters_unpublished
-- Those that are still to go to their topic, in order; a row for each of their headers, or one: id, group, topic, partition, offset,
-- reason, when it failed first, key and value (in the first row), header, its value.
-- $1 bigint: at most so many
-- $2 bigint: with at most so many bytes of values, or one
select d.id, d.consumer_group, d.topic, d.partition::text, d."offset"::text, d.error,
       to_char(d.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
       case when coalesce(h.n, 1) = 1 then d.key end, case when coalesce(h.n, 1) = 1 then d.value end, h.key, h.value
  from (select w.*, sum(octet_length(w.value)) over (order by w.id) as bytes, row_number() over (order by w.id) as number
          from (select * from dead_letters where published_at is null order by id limit $1) w) d
  left join lateral jsonb_each_text(case when jsonb_typeof(d.headers) = 'object' then d.headers end) with ordinality h (key, value, n) on true
 where d.number = 1 or d.bytes is null or d.bytes <= $2
 order by d.id, h.n

-- name: letters_published
-- Kafka has taken these.
-- $1 bigint[]: ids
update dead_letters set published_at = now() where id = any ($1)
