-- What may overtake the rows of a large transaction, or of a backlog, that wait: ids of subscriptions that have no row among
-- those. A row that is visible has no earlier one of its subscription that is not: the row's lock put them into their order.
-- $1 bigint: the lowest id, so that older partitions are not even opened
-- $2 bigint[]: first ids of the ranges that wait, ascending
-- $3 bigint[]: last ids of the ranges
-- $4 bigint: only ids above this one
-- $5 bigint: ids to look at
with above as materialized (
  select e.id, e.subscription_id::bigint from subscription_events e where e.id > $4 order by e.id limit $5
), held as materialized (
  select distinct r.subscription_id
    from unnest($2::bigint[], $3::bigint[]) g (first, last)
         cross join lateral (select e.subscription_id::bigint from subscription_events e
                              where e.id between g.first and g.last and e.id >= $1 offset 0) r
   where r.subscription_id in (select a.subscription_id from above a)
)
select a.id from above a where not exists (select from held h where h.subscription_id = a.subscription_id) order by a.id
