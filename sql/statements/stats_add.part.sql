-- Adds "added", in one order, since several threads may do so.
insert into integration_stats_spans as t (integration_id, span, bucket, created, sent, failed, retried, attempts,
                                          delivery_index, delivery_count, http_index, http_count)
select integration_id, span, bucket, created, sent, failed, retried, attempts, delivery_index, delivery_count, http_index, http_count
  from added order by bucket, integration_id, span
    on conflict (bucket, integration_id, span) do update set
       created = t.created + excluded.created, sent = t.sent + excluded.sent, failed = t.failed + excluded.failed,
       retried = t.retried + excluded.retried, attempts = t.attempts + excluded.attempts,
       (delivery_index, delivery_count) =
           (select indexes, counts from histogram_add(t.delivery_index, t.delivery_count, excluded.delivery_index, excluded.delivery_count)),
       (http_index, http_count) =
           (select indexes, counts from histogram_add(t.http_index, t.http_count, excluded.http_index, excluded.http_count))
