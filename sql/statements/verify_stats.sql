-- name: verify_stats :once
-- Where integration_stats_spans differs from the ledger: integration, span, its beginning, by how much created, sent, failed, retried and
-- attempts are too few, and how many such rows there are in all. Where the numbers are equal, a histogram differs.
-- $1 bigint: how many are named
-- include: stats_handled.part.sql
select integration_id, span, bucket, created, sent, failed, retried, attempts, count(*) over ()
  from differences order by bucket, integration_id, span limit $1
