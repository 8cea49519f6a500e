-- name: explain_events :once
-- The events of one subscription; the last column is enum store_published. Rows of before the adoption and notes, which
-- are no events, are never published. Partitions that are full have an index by subscription; the newest is read along its
-- primary key.
-- $1 bigint: id of the subscription
select e.id, e.created_at::timestamptz, e.event_type::text, e.operation_name::text, e.from_status::text,
       e.to_status::text, coalesce(e.attempt, -1), e.http_status, coalesce(e.duration_ms, -1), e.error_message::text,
       coalesce(e.ambiguous, false), coalesce(e.decided_by, ''),
       case when e.event_type is null or e.id <= coalesce(a.last_id, 0) then 2
            when e.id <= r.high and not exists (select from unnest(r.gap_first, r.gap_last) as g (first, last)
                                                 where e.id between g.first and g.last)
                 and not exists (select from relay_holes h where e.id between h.first_id and h.last_id) then 0
            else 1 end
  from subscription_events e cross join relay_state r
  left join ledger_partitions a on a.name = 'subscription_events_adopted'
 where e.subscription_id = $1 order by e.id
