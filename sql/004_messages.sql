-- What the relay publishes: the ledger in uniform types for the daemon, and as Kafka messages for people.

-- The adopted ledger's columns may be integer, varchar, json or timestamps without time zone (which mean UTC). Texts of the
-- application's own are bounded, so that no event is too large for Kafka.
do $do$
declare
    created_at text := case (select format_type(a.atttypid, null) from pg_attribute a
                              where a.attrelid = '@extschema@.subscription_events'::regclass and a.attname = 'created_at')
                       when 'timestamp without time zone' then 'e.created_at at time zone ''UTC''' else 'e.created_at' end;
begin
    execute format($f$
create view @extschema@.subscription_event_feed as
    select e.id, e.event_id::text as event_id, e.event_type::text as event_type, coalesce(%1$s, 'epoch')::timestamptz as created_at,
           e.subscription_id::bigint as subscription_id, e.integration_id::bigint as integration_id,
           case when i.id is not null then coalesce(left(i.name::text, 1000), '') end as integration_name,
           coalesce(left(i.type::text, 1000), '') as integration_type,
           e.order_id::bigint as order_id, left(e.origin::text, 1000) as origin, left(e.cpf::text, 1000) as cpf,
           e.to_status::text as status, e.sent_at::timestamptz as sent_at, e.scheduled_to::timestamptz as scheduled_to,
           coalesce(e.subscription_created_at, %1$s, 'epoch')::timestamptz as subscription_created_at,
           coalesce(e.subscription_updated_at, %1$s, 'epoch')::timestamptz as subscription_updated_at,
           e.attempt::integer as attempt,
           case when e.event_type = 'sent' then e.response::text end as response, coalesce(e.response_truncated, false) as response_truncated,
           case when e.event_type in ('failed', 'retried') then left(e.error_message::text, 8000) end as error_message,
           case when e.event_type in ('failed', 'retried') then e.ambiguous end as ambiguous,
           case when e.event_type = 'retried' then e.next_attempt_at::timestamptz end as next_attempt_at,
           left(e.traceparent::text, 100) as traceparent
      from @extschema@.subscription_events e left join @extschema@.integrations i on i.id = e.integration_id $f$, created_at);
end $do$;

-- 2026-11-24T10:59:39.123456Z, whatever the session's time zone; years beyond four digits become the last one.
create function @extschema@.event_time(instant timestamptz) returns text language sql stable parallel safe as $$
    select case when instant is not null then
               to_char(least(greatest(instant, '0001-01-01 00:00:00+00'), '9999-12-31 23:59:59.999999+00') at time zone 'UTC',
                       'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') end
$$;

-- An institution's answer: a JSON value when it is one (RFC 8259, no lone surrogates, at most 512 levels), else a string.
create function @extschema@.event_response(document text, truncated boolean) returns json language plpgsql stable as $$
declare
    rest text;
begin
    if document is null or truncated then
        return to_json(document);
    end if;
    perform document::json;
    rest := regexp_replace(document, '\\\\', '', 'g');
    rest := regexp_replace(rest, '\\u[dD][89abAB][[:xdigit:]]{2}\\u[dD][c-fC-F][[:xdigit:]]{2}', '', 'g');
    if rest ~ '\\u[dD][89a-fA-F]' then
        return to_json(document);
    end if;
    rest := regexp_replace(regexp_replace(rest, '"(\\.|[^"\\])*"', '', 'g'), '[^][{}]', '', 'g');
    for level in 1 .. 512 loop
        exit when rest = '';
        rest := regexp_replace(rest, '\[\]|\{\}', '', 'g');
    end loop;
    return case when rest = '' then document::json else to_json(document) end;
exception when others then
    return to_json(document);
end $$;

-- Every event as its Kafka message: byte for byte what the relay publishes to <topic_prefix><topic>, but that the relay shortens an
-- answer that would make the message too large. Rows that are no events (an adopted application's own notes) are left out.
create view @extschema@.subscription_event_messages as
    select f.id, 'subscriptions.' || f.event_type as topic, f.subscription_id::text as key,
           jsonb_strip_nulls(jsonb_build_object(
               'event_id', f.event_id, 'timestamp', @extschema@.event_time(f.created_at), 'service', 'anubis', 'version', '1.0',
               'event_type', f.event_type, 'integration_id', f.integration_id::text, 'origin', f.origin, 'sequence', f.id::text,
               'attempt', f.attempt::text,
               'traceparent', case when f.traceparent ~ '^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$'
                                    and f.traceparent !~ '^ff|^..-0{32}|-0{16}-..$' then f.traceparent
                                   else '00-' || encode(substr(sha256(uuid_send(n.namespace) || convert_to('trace:' || f.subscription_id, 'UTF8')), 1, 16), 'hex')
                                        || '-' || lpad(to_hex(f.id), 16, '0') || '-01' end,
               'content_type', 'application/json')) as headers,
           ('{"event_type":' || to_json(f.event_type)
            || ',"subscription":{"id":' || f.subscription_id
            || ',"integration_id":' || coalesce(f.integration_id::text, 'null')
            || ',"order_id":' || coalesce(f.order_id::text, 'null')
            || ',"origin":' || coalesce(to_json(f.origin)::text, 'null')
            || ',"cpf":' || coalesce(to_json(f.cpf)::text, 'null')
            || ',"status":' || to_json(coalesce(f.status, ''))
            || ',"sent_at":' || coalesce('"' || @extschema@.event_time(f.sent_at) || '"', 'null')
            || ',"scheduled_to":' || coalesce('"' || @extschema@.event_time(f.scheduled_to) || '"', 'null')
            || ',"created_at":"' || @extschema@.event_time(f.subscription_created_at)
            || '","updated_at":"' || @extschema@.event_time(f.subscription_updated_at) || '"}'
            || ',"integration":' || case when f.integration_name is null then 'null'
                                         else '{"id":' || f.integration_id || ',"name":' || to_json(f.integration_name)
                                              || ',"type":' || to_json(f.integration_type) || '}' end
            || ',"timestamp":"' || @extschema@.event_time(f.created_at) || '","version":"1.0"'
            || case when f.attempt is not null or f.event_type in ('sent', 'failed', 'retried')
                    then ',"attempt":' || coalesce(f.attempt, 0) else '' end
            || case when f.event_type = 'sent'
                    then ',"response_data":' || coalesce(@extschema@.event_response(f.response, f.response_truncated)::text, 'null') else '' end
            || case when f.event_type in ('failed', 'retried')
                    then ',"error_message":' || to_json(coalesce(f.error_message, '')) else '' end
            || case when f.ambiguous is not null then ',"ambiguous":' || case when f.ambiguous then 'true' else 'false' end else '' end
            || case when f.next_attempt_at is not null then ',"next_attempt_at":"' || @extschema@.event_time(f.next_attempt_at) || '"' else '' end
            || '}')::json as value
      from @extschema@.subscription_event_feed f cross join @extschema@.installation n
     where f.event_type in ('created', 'updated', 'sent', 'failed', 'retried') and f.subscription_id is not null;
