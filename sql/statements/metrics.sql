-- The hours of integration_stats, for their topic.

-- name: metrics_changed
-- Hours that have changed since they went to the topic, in order behind the given one: integration, hour, changes so far, the key of the
-- message, its value, the installation.
-- $1 timestamptz[]: hour, one
-- $2 bigint: integration
-- $3 bigint: at most so many
select c.integration_id, c.bucket, c.changes, c.integration_id::text,
       json_build_object(
           'integration', case when i.id is not null then json_build_object('id', i.id, 'name', i.name) end,
           'integration_id', c.integration_id, 'hour', to_char(c.bucket at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'),
           'created', coalesce(s.created, 0), 'sent', coalesce(s.sent, 0), 'failed', coalesce(s.failed, 0),
           'retried', coalesce(s.retried, 0), 'attempts', coalesce(s.attempts, 0),
           'delivery', json_build_object('p50_ms', histogram_ms(s.delivery_index, s.delivery_count, 0.5),
               'p95_ms', histogram_ms(s.delivery_index, s.delivery_count, 0.95),
               'p99_ms', histogram_ms(s.delivery_index, s.delivery_count, 0.99),
               'index', coalesce(s.delivery_index, '{}'), 'count', coalesce(s.delivery_count, '{}')),
           'http', json_build_object('p50_ms', histogram_ms(s.http_index, s.http_count, 0.5),
               'p95_ms', histogram_ms(s.http_index, s.http_count, 0.95), 'p99_ms', histogram_ms(s.http_index, s.http_count, 0.99),
               'index', coalesce(s.http_index, '{}'), 'count', coalesce(s.http_count, '{}')))::text,
       installation_name()::text
  from (select * from integration_stats_changes where (bucket, integration_id) > ($1[1], $2) order by bucket, integration_id limit $3) c
  left join integration_stats s on s.bucket = c.bucket and s.integration_id = c.integration_id
  left join integrations i on i.id = c.integration_id
 order by c.bucket, c.integration_id

-- name: metrics_published
-- Kafka has taken these hours as they were after so many changes.
-- $1 bigint[]: integrations
-- $2 timestamptz[]: hours
-- $3 bigint[]: changes
delete from integration_stats_changes c using unnest($1::bigint[], $2::timestamptz[], $3::bigint[]) as p (integration_id, bucket, changes)
 where c.integration_id = p.integration_id and c.bucket = p.bucket and c.changes = p.changes
