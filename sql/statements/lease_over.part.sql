-- $1 bigint[]: claim tokens of ours, whose leases are not looked at
-- $2 integer: max_attempts of an integration that sets none
-- $3 bigint: max_age in ms
-- $4 bigint: base delay in ms
-- $5 bigint: max delay in ms
-- $6 bigint[]: ids to pass over
-- $7 integer: limit
-- $8 text: instance
-- $9 boolean: leave all leases of daemons that are there to them
-- A lease of more than 30 days is none of a daemon's, and counts as none: somebody has written it.
-- The lease of another daemon that is there, and sends statements (see daemon_seen()), is left to it: it may hold a result that it could
-- not store yet, for a full disk or for want of a session; and it ends what it works on no more by itself. Whether a session of another
-- role sends statements is not shown to everybody: then it is left for five minutes.
with living as materialized (
  select o.claimed_by, d.shown
    from (select distinct claimed_by from subscriptions
           where status = 'processing' and (lease_expires_at < now() or lease_expires_at is null or lease_expires_at > now() + interval '30 days')
             and claim_token is not null
             and claimed_by <> $8) o
   cross join lateral daemon_seen(o.claimed_by) d where d.there
), over as materialized (
  select s.id, s.attempts, s.lease_expires_at < now() is not true as none, f.old or f.worn and not a.asks as final, f.held_by,
         (f.old or f.worn) and s.attempts = 0 and s.claim_token is null as unseen
    from subscriptions s left join integrations i on i.id = s.integration_id
   cross join lateral (select i.delivery_settings ? 'lookup' is true as asks) a
   cross join lateral (select s.attempts >= coalesce(nullif(greatest(i.max_attempts, 0), 0), $2) as worn,
                              s.created_at <= now() - $3 * interval '1 ms' as old) o
   cross join lateral (select o.worn, o.old,
                              case when a.asks and not o.old then null
                                   when i.delivery_settings ->> 'on_ambiguous' = 'hold' then 'on_ambiguous'
                                   when i.delivery_settings #>> '{idempotency,window}' = 'none' then 'idempotency.window = none'
                              end as held_by) f
   where s.status = 'processing'
     and (s.lease_expires_at < now() or s.lease_expires_at is null or s.lease_expires_at > now() + interval '30 days')
     and (s.claim_token is null or s.claim_token <> all ($1)) and s.id <> all ($6)
     and (s.claim_token is null or s.claimed_by = $8
          or not exists (select from living l where l.claimed_by = s.claimed_by
                                                and (l.shown or $9 or s.lease_expires_at >= now() - interval '5 min')))
   order by s.lease_expires_at limit $7 for no key update of s skip locked
)
