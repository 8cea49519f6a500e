 where $3::bigint in (0, c.integration_id)
   and ($1::text is null or c.created_at >= case when left($1, 1) = '-' then now() + $1::interval else $1::timestamptz end)
   and ($2::text is null or c.created_at < case when left($2, 1) = '-' then now() + $2::interval else $2::timestamptz end)
