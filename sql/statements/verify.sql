-- The short statements of "anubisctl verify".

-- name: ledger_dropped :once
-- What has left the ledger: how many events, the last of their ids (0 = nothing has left), and their last time.
select coalesce(sum(events), 0)::bigint, coalesce(max(last_id), 0), max(last_at) from ledger_dropped

-- name: verify_bounds :once
-- The last id of before the adoption, and a subscription in the middle of those that the events since are of, as far as a few tell.
with adoption as (
  select coalesce(max(last_id), 0) as last_id from ledger_partitions where name = 'subscription_events_adopted'
), ends as (
  select greatest((select last_id from adoption), (select min(e.id) from subscription_events e)) as first,
         (select max(e.id) from subscription_events e) as last
)
select (select last_id from adoption), coalesce(percentile_disc(0.5) within group (order by x.subscription_id), 0)
  from ends cross join generate_series(0, 99) as n
 cross join lateral (select e.subscription_id::bigint from subscription_events e
                      where e.id >= ends.first + (ends.last - ends.first) * n / 100 and e.subscription_id is not null
                      order by e.id limit 1) x

-- name: verify_counters :once
-- The counters of integrations: id, name, successful_sends and its baseline, failed_sends and its baseline, both with what
-- they lag behind; then the counts themselves in the same way.
select i.id::bigint, i.name::text,
       least(coalesce(i.successful_sends, 0)::numeric + coalesce(r.sent - r.sent_folded, 0), 9223372036854775807)::bigint,
       coalesce(b.successful_sends, 0) + coalesce(b.sent, 0),
       least(coalesce(i.failed_sends, 0)::numeric + coalesce(r.failed - r.failed_folded, 0), 9223372036854775807)::bigint,
       coalesce(b.failed_sends, 0) + coalesce(b.failed, 0),
       coalesce(r.sent, 0), coalesce(b.sent, 0), coalesce(r.failed, 0), coalesce(b.failed, 0)
  from integrations i left join ledger_baseline b on b.integration_id = i.id and b.status = ''
  left join integration_runtime r on r.integration_id = i.id
 order by 1

-- name: verify_untraced :once
-- Subscriptions that have no event "created" though they came after the first event that is there: written while triggers
-- did not fire.
-- $1 bigint: how many are named
select s.id::bigint
  from subscriptions s
 where as_instant(s.created_at) >= greatest((select created_at from installation),
                                            (select as_instant(e.created_at) from subscription_events e order by e.id limit 1),
                                            (select max(last_at) from ledger_dropped))
   and not exists (select from subscription_events e where e.subscription_id = s.id and e.event_type = 'created')
 order by s.id limit $1

-- name: verify_broken_chains :once
-- Events that do not begin where the one before of the same subscription ended: subscription, the event, how that one ended, how this
-- one began (null = it says that the subscription came).
-- $1 bigint: how many are named
select x.subscription_id::bigint, x.id, x.before, x.from_status
  from (select e.subscription_id, e.id, e.from_status::text as from_status,
               lag(e.to_status::text) over (partition by e.subscription_id order by e.id) as before
          from subscription_events e where e.event_type is not null and e.subscription_id is not null) x
 where x.before is not null and x.before is distinct from x.from_status
 order by 1, 2 limit $1

-- name: verify_foreign :once
-- Messages of others in the topics that a read model is kept from.
-- $1 text: read model
select coalesce(sum(foreign_messages), 0)::bigint from consumer_offsets where read_model = $1

-- name: verify_unknown :once
-- Events in this installation's name that its ledger does not have, and that a read model was kept from.
-- $1 text: read model
select coalesce(sum(unknown_events), 0)::bigint from consumer_offsets where read_model = $1

-- name: verify_strays :once
-- Subscriptions that wait for an integration which does not exist, where the triggers see to it that it does: id,
-- integration, how many such there are in all.
-- $1 bigint: how many are named
select s.id::bigint, s.integration_id::bigint, count(*) over ()
  from subscriptions s left join integrations i on i.id = s.integration_id
 where s.status in ('pending', 'processing', 'retry') and s.integration_id is not null and i.id is null
   and integration_required()
 order by s.id limit $1

-- name: verify_wrong_bits :once
-- Bits of one chunk that stand for no event of the type, or that are set in two partitions: the first of their ids.
-- $1 text: read model
-- $2 text: type
-- $3 bigint: chunk
-- $4 bigint: at most so many
select w.id from (select b.chunk * 8192 + n as id, count(*) as times
                    from consumer_bitmaps b cross join generate_series(0, 8191) as n
                   where b.read_model = $1 and b.event_type = $2 and b.chunk = $3
                     and get_bit(b.bits, n) = 1
                   group by 1) w
  left join subscription_events e on e.id = w.id and e.event_type = $2
 where e.id is null or w.times > 1 order by 1 limit $4

-- name: verify_work :once
-- Work that is due: subscriptions that a claim would take, those in flight, events that are not published, the event that
-- stops the relay, how many daemons are connected, and the groups that have stopped.
-- $1 bigint: subscriptions and events are counted up to this
-- $2 text: name of the session that each daemon has
select (select count(*)
          from (select from integrations_open i cross join lateral (
                  select from subscriptions s
                   where s.integration_id = i.id and s.status in ('pending', 'retry') and s.held_at is null
                     and subscription_due(s.next_attempt_at, s.scheduled_to) <= now() limit $1) s limit $1) x),
       (select count(*) from subscriptions where status = 'processing'),
       (select count(*) from (select from subscription_events e where e.id > r.high and e.event_type is not null limit $1) x)
       + (select count(*) from unnest(r.gap_first, r.gap_last) as g (first, last)
            join subscription_events e on e.id between g.first and g.last where e.event_type is not null)
       + (select count(*) from relay_holes h
           cross join lateral (select from subscription_events e
                                where e.id between h.first_id and h.last_id and e.event_type is not null limit 1) e),
       coalesce(r.stopped_on, 0),
       (select count(*) from pg_stat_activity where datname = current_database() and application_name = $2),
       (select string_agg(read_model, ' and ' order by read_model) from consumer_stops where passes_until is null)
  from relay_state r
