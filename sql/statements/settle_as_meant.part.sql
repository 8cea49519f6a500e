  returning case when s.claim_token is null and s.attempts = r.attempts and (s.held_at is null) = (r.state <> 'hold')
                      and (s.status::text = r.state or r.state = 'hold' and s.status::text = 'retry'
                           or r.state = 'release' and s.status::text in ('pending', 'retry'))
                 then s.id else subscription_unlike(s.id::bigint, 'result') end as id
