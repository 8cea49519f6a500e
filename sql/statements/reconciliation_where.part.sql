 -- Until it is expected of an integration, a subscription may still go to another one.
 cross join lateral (values (case when c.expected_by is null and s.id is not null then s.integration_id::bigint
                                  else c.integration_id end)) n (integration_id)
 where $3::bigint in (0, n.integration_id)
   and ($1::text is null or c.created_at >= case when left($1, 1) = '-' then now() + $1::interval else $1::timestamptz end)
   and ($2::text is null or c.created_at < case when left($2, 1) = '-' then now() + $2::interval else $2::timestamptz end)
