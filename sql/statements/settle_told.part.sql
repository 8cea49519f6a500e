select id::bigint from settled where (select subscription_unlike(d.id::bigint, 'result') from dropped d) is null order by id
