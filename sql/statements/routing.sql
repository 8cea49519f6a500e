-- The monitor's statements for subscriptions that have no integration.

-- name: routing_look
-- What the enabled filters say, as one text that is another one when they change; NULL = no subscription is unrouted.
select case when exists (select from subscriptions
                          where integration_id is null and status in ('pending', 'retry') and held_at is null)
            then (select md5(coalesce(string_agg(f::text, ',' order by f.id), '')) from integration_filters f where f.enabled) end

-- name: routing_window
-- The next unrouted subscriptions, in the order of the index: id, when it is due.
-- $1 text: due at this time or later
-- $2 bigint: and with a greater id, when it is due just then
-- $3 bigint: how many
select id::bigint, subscription_due(next_attempt_at, scheduled_to)::text
  from subscriptions
 where integration_id is null and status in ('pending', 'retry') and held_at is null
   and (subscription_due(next_attempt_at, scheduled_to), id) > ($1::timestamptz, $2)
 order by integration_id, subscription_due(next_attempt_at, scheduled_to), id limit $3

-- name: routing_route
-- How many of these were given to the first filter that takes them, and how many were not because somebody else has them locked.
-- $1 bigint[]: subscriptions
select routed, left_out from subscriptions_route($1)
