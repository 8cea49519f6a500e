-- The last of the times at which these rows are sent. The row is locked, so this is the version that rate_next() saw.
, spent as (
  update integration_runtime r set rate_at = f.send_at + (f.taken - 1) / f.rate * interval '1 s', rate_by = $19
    from (select distinct integration_id, taken, rate, send_at from within where rate is not null) f
   where r.integration_id = f.integration_id
)
