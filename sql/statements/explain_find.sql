-- name: explain_find :once
-- Subscriptions of an order or of a person, the newest first: id, integration, its name, status, attempts, creation. A CPF
-- is compared by its digits (cpf_digits). There is no index for this: all subscriptions are read.
-- $1 text: order; null = any
-- $2 text: CPF; null = any
-- $3 bigint: at most so many
select s.id::bigint, s.integration_id::bigint, i.name::text, s.status::text, s.attempts::bigint, as_instant(s.created_at)
  from subscriptions s left join integrations i on i.id = s.integration_id
 where ($1::text is null or s.order_id::text = $1::text)
   and ($2::text is null or cpf_digits(s.cpf::text) = (select cpf_digits($2::text)))
 order by s.id desc limit $3
