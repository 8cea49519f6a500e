-- Retention. See ledger_retire().

-- name: retention_lead
-- True: this session lets things go from now on, until it ends. See lead_lock().
select given from lead_lock('retention')

-- name: retention_ledger
-- A look at some ids of the oldest partition: its name (NULL = it is not old enough), up to which id it was looked at when there is more
-- to be looked at, why it stays, how many events have left with it, and the times of the first and the last one.
-- $1 bigint: the age, in seconds
-- $2 text[]: read models that this daemon keeps up to date
-- $3 bigint: the ids up to here were looked at
-- $4 bigint: how many ids
select part, checked_to, needed, events, first_at, last_at from ledger_retire($1 * interval '1 s', $2, $3, $4)

-- name: retention_letters
-- Dead letters that are old enough, and that were told of: how many have gone; of how many others only what counts is left, because the
-- ledger still has the event, and it was not handled; and how many of all of these were open. What was open is discarded.
-- $1 bigint: the age, in seconds
-- $2 bigint: how many
with old as materialized (
  select d.id, d.replayed_at is null and d.discarded_at is null as is_open,
         l.letter is not null
         and not exists (select from consumer_bitmaps b
                          where b.read_model = l.read_model and b.event_type = l.event_type and b.chunk = l.event / 8192
                            and get_bit(b.bits, (l.event % 8192)::int) = 1) as counts
    from dead_letters d left join ledger_letters(0, 9223372036854775807) l on l.letter = d.id and not l.is_replayed
   where d.created_at < now() - $1 * interval '1 s' and d.published_at is not null
), chosen as materialized (
  select d.id, o.is_open, o.counts
    from dead_letters d join old o on o.id = d.id
   where not o.counts or o.is_open or d.value is not null or d.headers <> letter_headers_kept(d.headers)
   order by d.id limit $2 for update of d skip locked
), gone as (
  delete from dead_letters d using chosen c where d.id = c.id and not c.counts
), emptied as (
  update dead_letters d
     set value = null, headers = letter_headers_kept(d.headers), discarded_at = coalesce(d.discarded_at, now()),
         key = case when encode(d.key, 'escape') ~ '^[0-9]{1,18}$' then d.key end,
         discard_reason = coalesce(d.discard_reason, 'older than retention.dead_letters')
    from chosen c where d.id = c.id and c.counts
)
select count(*) filter (where not counts), count(*) filter (where counts), count(*) filter (where is_open) from chosen
