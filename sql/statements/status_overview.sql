-- name: status_overview :once
-- One row: the database, the schema, the daemons, the relay, the ledger's partitions, and how large the tables are.
-- $1 text: name of the session that each daemon has
select current_database()::text, current_user::text, current_setting('server_version'), now(),
       m.version, m.applied_at,
       (select count(*) from pg_stat_activity where datname = current_database() and application_name = $1),
       r.high, l.last_id, cardinality(r.gap_first)::bigint,
       (select coalesce(sum(ledger_ids(first, last)), 0) from unnest(r.gap_first, r.gap_last) as g (first, last))::bigint,
       ledger_ids(r.high + 1, l.last_id),
       r.leader, k.leads, k.trouble, k.stranger, r.updated_at, r.stopped_on, r.stopped_reason,
       (select count(*) from ledger_partitions where first_id > l.last_id),
       exists (select from subscription_events_default), (select coalesce(max(last_id), 0) from ledger_dropped),
       (select max(last_at) from ledger_dropped),
       pg_relation_size('subscriptions'), coalesce(pg_relation_size(to_regclass('subscriptions_due')), -1),
       pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'
  from relay_state r,
       -- The session that has the lock leads; its name ends with what the leader waits for, in brackets.
       (select coalesce(h.held and h.stranger is null, false), substring(h.application_name from '[(](.*)[)]$'), h.stranger
          from lock_holder('relay') h) as k (leads, trouble, stranger),
       (select case when is_called then last_value else last_value - 1 end from ledger_id_seq) as l (last_id),
       (select * from anubis_migrations order by version desc limit 1) as m
