-- The last of the times at which these rows are sent, and until when nobody else serves the integration: ten seconds beyond their
-- leases, so that the next claims need not write it again. The row is locked, so this is the version that rate_next() and may_serve()
-- saw.
, spent as (
  update integration_runtime r
     set rate_at = coalesce(f.send_at + (f.taken - 1) / f.rate * interval '1 s', rate_at),
         rate_by = case when f.rate is null then rate_by else $20 end,
         served_by = case when f.takes then $7 else served_by end,
         served_until = case when f.takes then now() + greatest($9, f.timeout_ms + $11) * interval '1 ms' + interval '10 s'
                             else served_until end,
         served_since = case when f.takes then now() else served_since end
    from (select distinct integration_id, taken, rate, send_at, takes, timeout_ms from within where rate is not null or takes) f
   where r.integration_id = f.integration_id
)
