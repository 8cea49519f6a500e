-- What the relay publishes, for people: the ledger in uniform types, and as Kafka messages. The relay itself reads the ledger's columns as
-- they are (relay_read.sql), and cuts the same texts (store_relay.c); tests compare what it publishes with the second view.
--
-- "create or replace" may only add columns at the end of a view; for another change a step drops the view before.

-- The adopted ledger's columns may be integer, varchar, json or timestamps without time zone. Texts of the application's own are
-- bounded, so that no event is too large for Kafka.
create or replace view @extschema@.subscription_event_feed as
    select e.id, e.event_id::text as event_id, e.event_type::text as event_type, coalesce(@extschema@.as_instant(e.created_at), 'epoch') as created_at,
           e.subscription_id::bigint as subscription_id, e.integration_id::bigint as integration_id,
           case when i.id is not null then coalesce(left(i.name::text, 1000), '') end as integration_name,
           coalesce(left(i.type::text, 1000), '') as integration_type,
           e.order_id::bigint as order_id, left(e.origin::text, 1000) as origin, left(e.cpf::text, 1000) as cpf,
           e.to_status::text as status, e.sent_at::timestamptz as sent_at, e.scheduled_to::timestamptz as scheduled_to,
           coalesce(e.subscription_created_at, @extschema@.as_instant(e.created_at), 'epoch') as subscription_created_at,
           coalesce(e.subscription_updated_at, @extschema@.as_instant(e.created_at), 'epoch') as subscription_updated_at,
           e.attempt::integer as attempt,
           case when e.event_type = 'sent' then e.response::text end as response, coalesce(e.response_truncated, false) as response_truncated,
           case when e.event_type in ('failed', 'retried') then left(e.error_message::text, 8000) end as error_message,
           case when e.event_type in ('failed', 'retried') then e.ambiguous end as ambiguous,
           case when e.event_type = 'retried' then e.next_attempt_at::timestamptz end as next_attempt_at,
           left(e.traceparent::text, 100) as traceparent
      from @extschema@.subscription_events e left join @extschema@.integrations i on i.id = e.integration_id;

-- 2026-11-24T10:59:39.123456Z, whatever the session's time zone; years beyond four digits become the last one.
create or replace function @extschema@.event_time(instant timestamptz) returns text language sql stable parallel safe as $$
    select case when instant is not null then
               to_char(least(greatest(instant, '0001-01-01 00:00:00+00'), '9999-12-31 23:59:59.999999+00') at time zone 'UTC',
                       'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') end
$$;

-- Every event as its Kafka message, for people: equal as JSON to what the relay publishes to <topic_prefix><topic>, but for answers
-- that jsonb cannot hold or that are nested more than 512 levels deep, and those that the relay shortens. Rows that are no events (an
-- adopted application's own notes) are left out.
create or replace view @extschema@.subscription_event_messages as
    select f.id, 'subscriptions.' || f.event_type as topic, f.subscription_id::text as key,
           jsonb_strip_nulls(jsonb_build_object(
               'event_id', f.event_id, 'timestamp', @extschema@.event_time(f.created_at), 'service', 'anubis', 'version', '1.0',
               'event_type', f.event_type, 'integration_id', f.integration_id::text, 'origin', f.origin, 'sequence', f.id::text,
               'installation', n.namespace::text,
               'attempt', f.attempt::text,
               'traceparent', case when f.traceparent ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'
                                    and f.traceparent !~ '^ff|^..-0{32}|-0{16}-..$' then f.traceparent
                                   else '00-' || encode(substr(sha256(uuid_send(n.namespace) || convert_to('trace:' || f.subscription_id, 'UTF8')), 1, 16), 'hex')
                                        || '-' || lpad(to_hex(f.id), 16, '0') || '-01' end,
               'content_type', 'application/json')) as headers,
           jsonb_build_object(
               'event_type', f.event_type, 'timestamp', @extschema@.event_time(f.created_at), 'version', '1.0',
               'subscription', jsonb_build_object(
                   'id', f.subscription_id, 'integration_id', f.integration_id, 'order_id', f.order_id, 'origin', f.origin,
                   'cpf', f.cpf, 'status', coalesce(f.status, ''), 'sent_at', @extschema@.event_time(f.sent_at),
                   'scheduled_to', @extschema@.event_time(f.scheduled_to),
                   'created_at', @extschema@.event_time(f.subscription_created_at),
                   'updated_at', @extschema@.event_time(f.subscription_updated_at)),
               'integration', case when f.integration_name is not null then jsonb_build_object(
                   'id', f.integration_id, 'name', f.integration_name, 'type', f.integration_type) end)
           || case when f.attempt is not null or f.event_type in ('sent', 'failed', 'retried')
                   then jsonb_build_object('attempt', coalesce(f.attempt, 0)) else '{}' end
           || case when f.event_type = 'sent' then jsonb_build_object('response_data',
                   case when f.response_truncated then to_jsonb(f.response)
                        else @extschema@.as_document(f.response, null::jsonb) end) else '{}' end
           || case when f.event_type in ('failed', 'retried')
                   then jsonb_build_object('error_message', coalesce(f.error_message, '')) else '{}' end
           || case when f.ambiguous is not null then jsonb_build_object('ambiguous', f.ambiguous) else '{}' end
           || case when f.next_attempt_at is not null
                   then jsonb_build_object('next_attempt_at', @extschema@.event_time(f.next_attempt_at)) else '{}' end as value
      from @extschema@.subscription_event_feed f cross join @extschema@.installation n
     where f.event_type in ('created', 'updated', 'sent', 'failed', 'retried') and f.subscription_id is not null;
