-- "anubisctl report --reconciliation": what institutions have said, beside what was sent. Of the subscriptions that were sent, or first
-- spoken of, in a period.

-- name: reconciliation :once
-- Each integration: id, name, expected, overdue, confirmed, rejected; of these confirmed though not sent, rejected though sent, and
-- contradicted. The last row, without id, is that of all.
-- $1 text: since, a time; or a duration before now that begins with "-"; NULL = from the beginning
-- $2 text: until, in the same way
-- $3 bigint: integration, 0 = all
select c.integration_id, i.name, c.expected, c.overdue, c.confirmed, c.rejected, c.unsent, c.unwanted, c.contradicted
  from (select n.integration_id, count(*) filter (where c.status = 'expected') as expected,
               count(*) filter (where c.status = 'overdue') as overdue, count(*) filter (where c.status = 'confirmed') as confirmed,
               count(*) filter (where c.status = 'rejected') as rejected,
               count(*) filter (where c.status = 'confirmed' and s.status::text is distinct from 'sent') as unsent,
               count(*) filter (where c.status = 'rejected' and s.status::text = 'sent') as unwanted,
               count(*) filter (where c.contradictions > 0) as contradicted, grouping(n.integration_id) as is_all
          from confirmations c left join subscriptions s on s.id = c.subscription_id and c.received_at is not null
-- include: reconciliation_where.part.sql
         group by grouping sets ((n.integration_id), ())) c
  left join (select id, name::text from integrations) i on i.id = c.integration_id
 order by c.is_all, c.integration_id nulls last

-- name: reconciliation_cases :once
-- Those that a person has to look at: subscription, integration, its status, what the institution says, by when it was to say so, and
-- contradictions; how many there are in all.
-- $1 text: since, as above
-- $2 text: until
-- $3 bigint: integration, 0 = all
-- $4 bigint: at most so many
select c.subscription_id, n.integration_id, s.status::text, c.status, c.expected_by, c.contradictions, count(*) over ()
  from confirmations c left join subscriptions s on s.id = c.subscription_id
-- include: reconciliation_where.part.sql
   and (c.status = 'overdue' or c.contradictions > 0 or c.status = 'confirmed' and s.status::text is distinct from 'sent'
        or c.status = 'rejected' and s.status::text = 'sent')
 order by c.subscription_id limit $4

-- name: explain_confirmation :once
-- What is known of a subscription's confirmation: status, the institution's id, by when it is or was to come, the institution's time, ours,
-- contradictions. No row: nothing.
-- $1 bigint: subscription
select status, external_id, expected_by, confirmed_at, received_at, contradictions from confirmations where subscription_id = $1
