         , sum(500 + coalesce(octet_length(f.response), 0)) over (order by f.id rows unbounded preceding) as total
         , 500 + coalesce(octet_length(f.response), 0) as bytes
