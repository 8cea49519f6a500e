-- A role for the daemon that owns nothing.

-- Grants a role what anubisd and anubisctl (but for "migrate") need, and no more: of the application's tables, to read them, and to
-- update the two that it keeps; the ledger only through the triggers. Call it as the role that migrated, and again after a migration.
create or replace function @extschema@.anubisd_grant(role name) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    execute format('grant usage on schema @extschema@ to %I', role);
    execute format('grant select on @extschema@.anubis_migrations, @extschema@.integration_filters, @extschema@.integrations_open,
                    @extschema@.installation, @extschema@.subscription_events, @extschema@.subscription_events_default,
                    @extschema@.subscription_event_feed, @extschema@.subscription_event_messages, @extschema@.ledger_partitions,
                    @extschema@.ledger_baseline, @extschema@.audit_past, @extschema@.ledger_dropped, @extschema@.ledger_leaps, @extschema@.stats_events, @extschema@.ledger_id_seq to %I', role);
    execute format('grant select, update on @extschema@.subscriptions, @extschema@.integrations to %I', role);
    execute format('grant select, insert, update, delete on @extschema@.integration_runtime, @extschema@.dead_letters, @extschema@.consumer_stops,
                    @extschema@.relay_state, @extschema@.relay_saved, @extschema@.relay_holes, @extschema@.relay_topics, @extschema@.relay_reached, @extschema@.consumer_offsets,
                    @extschema@.consumer_bitmaps, @extschema@.integration_stats_spans, @extschema@.integration_stats, @extschema@.integration_stats_days,
                    @extschema@.integration_stats_months, @extschema@.integration_stats_changes, @extschema@.alerts, @extschema@.alert_silences, @extschema@.alert_outbox,
                    @extschema@.alert_rests, @extschema@.alert_evidence, @extschema@.alert_firsts, @extschema@.alert_buckets,
                    @extschema@.confirmations, @extschema@.confirmation_terms to %I', role);
    execute format('grant select, insert on @extschema@.audit_log, @extschema@.audit_tiles, @extschema@.audit_salts to %I', role);
    execute format('grant select, insert, update, delete on @extschema@.audit_trees, @extschema@.audit_checkpoints, @extschema@.audit_checks to %I', role);
    execute format('grant execute on function @extschema@.ledger_extend(bigint), @extschema@.ledger_index(), @extschema@.ledger_retire(interval, text[], bigint, bigint),
                     @extschema@.ledger_renumber(bigint, bigint, timestamptz), @extschema@.subscriptions_note(),
                     @extschema@.subscriptions_route(bigint[]),
                     @extschema@.subscriptions_resend(bigint[], text, bigint, bigint),
                     @extschema@.subscriptions_erase(bigint[], text[], text) to %I', role);
end $$;
revoke execute on function @extschema@.anubisd_grant(name) from public;
