-- The hours of "added" go to their topic.
, changed as (
  insert into integration_stats_changes as c (integration_id, bucket)
  select integration_id, bucket from added where span = 'hour' order by bucket, integration_id
      on conflict (bucket, integration_id) do update set changes = c.changes + 1
)
