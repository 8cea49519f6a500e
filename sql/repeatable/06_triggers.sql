-- Which trigger calls which function, and when.
--
-- locks: subscriptions subscription_events integrations integration_filters integration_runtime

-- ---------------------------------------------------------------------------------------------------------------------
-- subscriptions

drop trigger if exists anubis_2_foreign_change on @extschema@.subscriptions;
create trigger anubis_2_foreign_change before update on @extschema@.subscriptions for each row
    when (new.claim_token is not distinct from old.claim_token
          and (new.status is distinct from old.status
               or new.attempts is distinct from old.attempts and old.status = 'processing' and old.claim_token is not null)
          or new.claim_token is distinct from old.claim_token and old.status = 'processing' and new.status = 'processing'
             and old.claim_token is not null
          or new.claim_token is distinct from old.claim_token and old.claim_token is not null and pg_trigger_depth() > 0
          or new.erased_at is not null and old.erased_at is null and new.status <> 'sent' and new.status <> 'failed')
    execute function @extschema@.subscription_changed_by_others();

-- Object-relational mappers write all columns of a row, with what they hold of this one: often nothing. A row without a seed gets one
-- from the trigger of its insert alone, that is within a trigger.
drop trigger if exists anubis_3_seed_kept on @extschema@.subscriptions;
create trigger anubis_3_seed_kept before update of idempotency_seed on @extschema@.subscriptions for each row
    when (new.idempotency_seed is distinct from old.idempotency_seed and (old.idempotency_seed is not null or pg_trigger_depth() = 0))
    execute function @extschema@.subscription_seeded();

-- By whoever names the columns: the daemon's own statements do not. Who writes all columns back, with what they held when the row was
-- read, would end a claim whose request is under way, take up one that is over, or let a row go that waits for a person.
drop trigger if exists anubis_4_change_refused on @extschema@.subscriptions;
create trigger anubis_4_change_refused before update of integration_id, payload on @extschema@.subscriptions for each row
    when (new.claim_token is distinct from old.claim_token
          or old.status = 'processing' and old.claim_token is not null
             and (new.status is distinct from old.status or new.integration_id is distinct from old.integration_id
                  or new.payload::text is distinct from old.payload::text)
          or old.held_at is not null and new.status is distinct from old.status)
    execute function @extschema@.subscription_change_refused();

drop trigger if exists anubis_no_delete on @extschema@.subscriptions;
create trigger anubis_no_delete before delete on @extschema@.subscriptions
    for each row execute function @extschema@.subscription_deletion_refused();
drop trigger if exists anubis_no_truncate on @extschema@.subscriptions;
create trigger anubis_no_truncate before truncate on @extschema@.subscriptions
    for each statement execute function @extschema@.subscription_deletion_refused();

drop trigger if exists anubis_inserted on @extschema@.subscriptions;
create trigger anubis_inserted after insert on @extschema@.subscriptions referencing new table as new_rows
    for each statement execute function @extschema@.subscription_inserted();
drop trigger if exists anubis_updated on @extschema@.subscriptions;
create trigger anubis_updated after update on @extschema@.subscriptions referencing old table as old_rows new table as new_rows
    for each statement execute function @extschema@.subscription_updated();

drop trigger if exists anubis_moved on @extschema@.subscriptions;
create trigger anubis_moved after update of integration_id on @extschema@.subscriptions for each row
    when (old.integration_id is distinct from new.integration_id and old.integration_id is not null)
    execute function @extschema@.subscription_moved();

-- AFTER ROW triggers of the application's that update the same row run before ours and would turn the order of two events around.
do $$
declare
    trigger_name text;
begin
    for trigger_name in select t.tgname from pg_trigger t
                         where t.tgrelid = '@extschema@.subscriptions'::regclass and not t.tgisinternal and not starts_with(t.tgname, 'anubis_')
                           and t.tgtype & 1 = 1 and t.tgtype & 2 = 0 and t.tgtype & 20 <> 0 loop
        raise warning 'trigger "%" on "subscriptions" is the application''s: should it update the same row, the events of both changes come in the wrong order', trigger_name;
    end loop;
end $$;

-- ---------------------------------------------------------------------------------------------------------------------
-- integrations and their circuits

drop trigger if exists anubis_integration_woken on @extschema@.integrations;
create trigger anubis_integration_woken after update of enabled, paused_until, max_in_flight, rate_limit on @extschema@.integrations
    for each row when (new.enabled and (not old.enabled or old.paused_until is distinct from new.paused_until
                       or old.max_in_flight is distinct from new.max_in_flight or old.rate_limit is distinct from new.rate_limit))
    execute function @extschema@.integration_changed();
drop trigger if exists anubis_integration_mended on @extschema@.integrations;
create trigger anubis_integration_mended after update of endpoint_url, auth_token, delivery_settings on @extschema@.integrations
    for each row when (old.endpoint_url is distinct from new.endpoint_url or old.auth_token is distinct from new.auth_token
                       or old.delivery_settings is distinct from new.delivery_settings)
    execute function @extschema@.integration_mended();
drop trigger if exists anubis_integration_begun on @extschema@.integrations;
create trigger anubis_integration_begun after insert or update of rate_limit, max_in_flight on @extschema@.integrations
    for each row execute function @extschema@.integration_begun();
insert into @extschema@.integration_runtime (integration_id) select id from @extschema@.integrations on conflict do nothing;
drop trigger if exists anubis_confirmation_set on @extschema@.integrations;
create trigger anubis_confirmation_set after insert on @extschema@.integrations
    for each row when (new.delivery_settings ? 'confirmation') execute function @extschema@.confirmation_changed();
drop trigger if exists anubis_confirmation_changed on @extschema@.integrations;
create trigger anubis_confirmation_changed after update of delivery_settings on @extschema@.integrations
    for each row when (new.delivery_settings -> 'confirmation' is distinct from old.delivery_settings -> 'confirmation')
    execute function @extschema@.confirmation_changed();

insert into @extschema@.confirmation_terms (integration_id, after_id, within_usec)
select i.id, s.last_value - 1 + s.is_called::integer, @extschema@.confirmation_usec(i.delivery_settings -> 'confirmation')
  from @extschema@.integrations i cross join @extschema@.ledger_id_seq s
 where i.delivery_settings ? 'confirmation' and not exists (select from @extschema@.confirmation_terms t where t.integration_id = i.id);
drop trigger if exists anubis_circuit_changed on @extschema@.integration_runtime;
create trigger anubis_circuit_changed after update of circuit_state on @extschema@.integration_runtime
    for each row when (old.circuit_state <> new.circuit_state and new.circuit_state = 'closed')
    execute function @extschema@.integration_changed();

drop trigger if exists anubis_integration_check on @extschema@.integrations;
create trigger anubis_integration_check before insert or update of id, endpoint_url, auth_token, delivery_settings
    on @extschema@.integrations
    for each row execute function @extschema@.integration_check();

drop trigger if exists anubis_filter_check on @extschema@.integration_filters;
create trigger anubis_filter_check before insert or update of criteria on @extschema@.integration_filters
    for each row execute function @extschema@.integration_filter_check();

-- In place of foreign keys of subscriptions: see reference_kept().
do $$
declare
    target text;
begin
    foreach target in array '{integrations,integration_filters}'::text[] loop
        execute format('drop trigger if exists anubis_reference_kept on @extschema@.%I', target);
        execute format('drop trigger if exists anubis_reference_id_kept on @extschema@.%I', target);
        execute format('drop trigger if exists anubis_reference_no_truncate on @extschema@.%I', target);
        continue when not case target when 'integrations' then @extschema@.integration_required()
                                      else @extschema@.integration_filter_required() end;
        execute format('create trigger anubis_reference_kept after delete on @extschema@.%I
                        for each row execute function @extschema@.reference_kept()', target);
        execute format('create trigger anubis_reference_id_kept after update of id on @extschema@.%I
                        for each row when (old.id <> new.id) execute function @extschema@.reference_kept()', target);
        execute format('create trigger anubis_reference_no_truncate before truncate on @extschema@.%I
                        for each statement execute function @extschema@.reference_kept()', target);
    end loop;
end $$;
-- After those, by their names.
drop trigger if exists anubis_integration_gone on @extschema@.integrations;
drop trigger if exists anubis_reference_moved on @extschema@.integrations;
create trigger anubis_reference_moved after delete on @extschema@.integrations
    for each row execute function @extschema@.integration_gone();
drop trigger if exists anubis_reference_moved_id on @extschema@.integrations;
create trigger anubis_reference_moved_id after update of id on @extschema@.integrations
    for each row when (old.id <> new.id) execute function @extschema@.integration_gone();

-- ---------------------------------------------------------------------------------------------------------------------
-- the ledger

drop trigger if exists ledger_append_only on @extschema@.subscription_events;
create trigger ledger_append_only before update or delete on @extschema@.subscription_events
    for each row execute function @extschema@.ledger_refuse();

-- Partitions inherit row triggers, but not this one; ledger_extend() gives it to those to come.
do $$
declare
    ledger regclass;
begin
    for ledger in select '@extschema@.subscription_events'::regclass
                  union all
                  select inhrelid from pg_inherits where inhparent = '@extschema@.subscription_events'::regclass loop
        execute format('drop trigger if exists ledger_no_truncate on %s', ledger);
        execute format('create trigger ledger_no_truncate before truncate on %s
                        for each statement execute function @extschema@.ledger_refuse()', ledger);
    end loop;
end $$;
