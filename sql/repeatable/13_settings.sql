-- What delivery_settings of an integration may hold: judged when it is written, and only what is written. The daemon judges the same
-- (src/delivery/settings.c), for what was written before.
--
-- A key has a function delivery_settings_KEY(), which gives what is wrong with its value, as words behind the key's name, or NULL. They quote no
-- secret: the words go to the application's log.

create or replace function @extschema@.delivery_settings_check(settings jsonb, before jsonb) returns void language plpgsql
    set search_path = pg_catalog, pg_temp as $$
declare
    k text;
    v jsonb;
    words text;
begin
    if jsonb_typeof(settings) <> 'object' then
        raise exception using errcode = 'check_violation', message = 'delivery_settings is no JSON object';
    elsif octet_length(settings::text) > 65536 then
        raise exception using errcode = 'check_violation', message = 'delivery_settings has more than 65536 bytes';
    end if;
    for k, v in select s.key, s.value from jsonb_each(settings) s loop
        continue when v = case jsonb_typeof(before) when 'object' then before -> k end;
        case k
            when 'auth' then words := @extschema@.delivery_settings_auth(v);
            when 'confirmation' then words := @extschema@.delivery_settings_confirmation(v);
            when 'headers' then words := @extschema@.delivery_settings_headers(v);
            when 'idempotency' then words := @extschema@.delivery_settings_idempotency(v);
            when 'lookup' then words := @extschema@.delivery_settings_lookup(v);
            when 'on_ambiguous' then words := @extschema@.delivery_settings_on_ambiguous(v);
            when 'outcomes' then words := @extschema@.delivery_settings_outcomes(v);
            when 'proxy' then words := @extschema@.delivery_settings_proxy(v);
            when 'signing_secret' then words := @extschema@.delivery_settings_signing_secret(v);
            when 'tls' then words := @extschema@.delivery_settings_tls(v);
            else
                raise exception using errcode = 'check_violation', message = format('delivery_settings has an unknown key "%s"', k),
                    hint = 'The keys are auth, headers, signing_secret, outcomes, on_ambiguous, idempotency, lookup, proxy, confirmation and tls.';
        end case;
        if words is not null then
            raise exception using errcode = 'check_violation', message = format('delivery_settings.%s %s', k, words);
        end if;
    end loop;
end $$;

-- What is wrong with a text: "plain" is no secret and no credential; "secret" and "pem" (of several lines) may be "credential:NAME".
create or replace function @extschema@.delivery_settings_text_fault(value jsonb, kind text) returns text language sql immutable
    set search_path = pg_catalog, pg_temp as $$
    select case when jsonb_typeof(value) is distinct from 'string' then 'must be a string'
                when t = '' then 'is empty'
                when kind <> 'plain' and t ~ '^(file|env):'
                    then 'cannot be read from a file or from the environment: it is the text itself, or "credential:NAME"'
                when kind <> 'plain' and t ~ '^credential:' and t !~ '^credential:[!-.0-~]{1,255}$'
                    then 'has no name of a credential after "credential:": NAME is the one of LoadCredential=NAME:/path in the daemon''s unit'
                when kind <> 'pem' and t ~ '[[:cntrl:]]' then 'holds control characters, perhaps the end of a line' end
      from (select value #>> '{}' as t) x $$;

-- What is wrong with an object of such texts: "kinds" has each name, and its kind, which begins with "?" where the name may be missing.
create or replace function @extschema@.delivery_settings_members_fault(value jsonb, skip text, kinds jsonb) returns text language sql immutable
    set search_path = pg_catalog, pg_temp as $$
    with names as (select string_agg(format('"%s"', k), ', ') as all_names from jsonb_object_keys(kinds) k),
    faults as (
      select 1 as n, format('has a key that is not known here; known are %s', coalesce(all_names, 'none but "type"')) as words
        from names, jsonb_object_keys(value) k where k <> skip and not kinds ? k
      union all
      select 2, format('lacks "%s"', k) from jsonb_each_text(kinds) e(k, kind) where kind not like '?%' and not value ? k
      union all
      select 3, format('has a "%s" that %s', k, fault)
        from jsonb_each_text(kinds) e(k, kind), @extschema@.delivery_settings_text_fault(value -> k, ltrim(kind, '?')) fault
       where value ? k and fault is not null)
    select words from faults order by n, words limit 1 $$;

-- Headers that are the connection's, or that say what anubisd itself has to say, are refused, and what ends a header (src/delivery/auth.c).
create or replace function @extschema@.delivery_settings_header_fault(name text, value text) returns text language sql immutable
    set search_path = pg_catalog, pg_temp as $$
    select case when name !~ '^[-!#$%&''*+.^_`|~0-9A-Za-z]+$' then 'is no name of a header'
                when lower(name) in ('host', 'content-length', 'transfer-encoding', 'connection', 'keep-alive', 'te', 'trailer', 'upgrade',
                                     'expect', 'accept-encoding', 'proxy-connection', 'proxy-authorization', 'idempotency-key', 'traceparent',
                                     'webhook-id', 'webhook-timestamp', 'webhook-signature') then 'is a header that anubisd sets itself'
                when value ~ E'[^\x01-\x7f]' then 'holds characters that are not ASCII'
                when value ~ '^ +$' then 'is blank' end $$;

create or replace function @extschema@.delivery_settings_auth(value jsonb) returns text language plpgsql immutable
    set search_path = pg_catalog, pg_temp as $$
declare
    fault text;
begin
    if jsonb_typeof(value) <> 'object' then
        return 'must be an object such as {"type": "basic", "username": "anubis", "password": "credential:usp"}';
    end if;
    case value ->> 'type'
        when 'bearer', 'none' then return @extschema@.delivery_settings_members_fault(value, 'type', '{}');
        when 'basic' then
            fault := @extschema@.delivery_settings_members_fault(value, 'type', '{"username": "secret", "password": "secret"}');
            return case when fault is null and value ->> 'username' ~ ':' and value ->> 'username' !~ '^credential:'
                        then 'has a "username" that holds a colon' else fault end;
        when 'header' then
            fault := @extschema@.delivery_settings_members_fault(value, 'type', '{"name": "plain", "value": "secret"}');
            return coalesce(fault, 'has a "name" or "value" that '
                                   || @extschema@.delivery_settings_header_fault(value ->> 'name', value ->> 'value'));
        when 'oauth2' then
            fault := @extschema@.delivery_settings_members_fault(value, 'type',
                '{"token_url": "plain", "client_id": "secret", "client_secret": "secret", "scope": "?plain"}');
            return coalesce(fault, case when value ->> 'token_url' !~ '^https?://[^[:space:][:cntrl:]/?#@]+([/?][^[:space:][:cntrl:]#]*)?$'
                                             or octet_length(value ->> 'token_url') > 8000
                                        then 'has a "token_url" that must be a URL such as https://login.example/oauth2/token' end,
                            'has a "token_url" that ' || @extschema@.delivery_settings_url_fault(value ->> 'token_url'));
        when 'mtls' then
            fault := @extschema@.delivery_settings_members_fault(value, 'type', '{"certificate": "pem", "key": "pem"}');
            return coalesce(fault,
                case when value ->> 'certificate' !~ '^credential:|-----BEGIN (TRUSTED |X509 )?CERTIFICATE-----'
                     then 'has a "certificate" that is none in PEM'
                     when value ->> 'key' !~ '^credential:|-----BEGIN ([A-Z]+ )?PRIVATE KEY-----' then 'has a "key" that is none in PEM'
                     when value ->> 'key' ~ 'ENCRYPTED' then 'has a "key" that is encrypted, and nobody who could be asked for its password' end);
        else return 'must have a "type": bearer, basic, header, oauth2, mtls or none';
    end case;
end $$;

create or replace function @extschema@.delivery_settings_confirmation(value jsonb) returns text language sql immutable
    set search_path = pg_catalog, pg_temp as $$
    select 'is an object such as {"within": "2d"}, with a duration of at most 3650 days'
     where not case when jsonb_typeof(value) = 'object' and value - 'within' = '{}' and jsonb_typeof(value -> 'within') = 'string'
                    then @extschema@.confirmation_usec(value) is not null else false end
$$;

create or replace function @extschema@.delivery_settings_headers(value jsonb) returns text language plpgsql immutable
    set search_path = pg_catalog, pg_temp as $$
declare
    k text;
    v jsonb;
    fault text;
begin
    if jsonb_typeof(value) <> 'object' then
        return 'must be an object such as {"X-Campus": "sul"}';
    elsif (select count(*) > 32 or count(*) > count(distinct lower(key)) from jsonb_object_keys(value) key) then
        return 'must be at most 32, and each name only once, whatever its case';
    end if;
    for k, v in select e.key, e.value from jsonb_each(value) e loop
        fault := coalesce(case lower(k) when 'authorization' then 'belongs to delivery_settings.auth: {"type": "header", ...}' end,
                          @extschema@.delivery_settings_text_fault(v, 'secret'), @extschema@.delivery_settings_header_fault(k, v #>> '{}'));
        if fault is not null then
            return format('must be headers: "%s" %s', left(k, 40), fault);
        end if;
    end loop;
    return null;
end $$;

-- This one and the next two as src/delivery/ambiguity.c reads them, with the same words.
create or replace function @extschema@.delivery_settings_idempotency(value jsonb) returns text language plpgsql immutable
    set search_path = pg_catalog, pg_temp as $$
declare
    per_day constant jsonb := '{"us": 86400000000, "ms": 86400000, "s": 86400, "m": 1440, "h": 24, "d": 1}';
    parts text[] := regexp_match(value ->> 'window', '^0*([1-9][0-9]{0,17})(us|ms|s|m|h|d)$');
begin
    if jsonb_typeof(value) <> 'object' then
        return 'is an object such as {"window": "24h", "stored_errors": "new_key"}';
    elsif value - array['window', 'stored_errors'] <> '{}' then
        return 'has window and stored_errors';
    elsif value ? 'window' and value -> 'window' <> '"none"'
          and (jsonb_typeof(value -> 'window') <> 'string' or parts is null
               or parts[1]::numeric > 3650 * (per_day ->> parts[2])::numeric) then
        return 'window is a duration such as "24h", of at most 3650 days, or "none"';
    elsif value ? 'stored_errors' and value -> 'stored_errors' not in ('"retry_same"', '"new_key"') then
        return 'stored_errors is "retry_same" or "new_key"';
    end if;
    return null;
end $$;

create or replace function @extschema@.delivery_settings_lookup(value jsonb) returns text language sql immutable
    set search_path = pg_catalog, pg_temp as $$
    select case when not is_lookup then 'is {"url": "..."}, a URL that names {order_id}, {id} or {idempotency_key}'
                else 'has a "url" that '
                     || @extschema@.delivery_settings_url_fault(regexp_replace(value ->> 'url', '[{](order_id|id|idempotency_key)[}]', '1', 'g')) end
      from (select case when jsonb_typeof(value) = 'object' and jsonb_typeof(value -> 'url') = 'string' and value - 'url' = '{}'
                    then value ->> 'url' ~ '^https?://[^[:space:][:cntrl:]]*$' and octet_length(value ->> 'url') <= 8000
                         and value ->> 'url' ~ '[{](order_id|id|idempotency_key)[}]'
                         and regexp_replace(value ->> 'url', '[{](order_id|id|idempotency_key)[}]', '', 'g') !~ '[{}]'
                    else false end as is_lookup) l
$$;

create or replace function @extschema@.delivery_settings_on_ambiguous(value jsonb) returns text language sql immutable
    set search_path = pg_catalog, pg_temp as $$ select 'is "retry" or "hold"' where value not in ('"retry"', '"hold"') $$;

-- As src/delivery/answer_rules.c reads them, with the same words.
create or replace function @extschema@.delivery_settings_outcomes(value jsonb) returns text language plpgsql
    set search_path = pg_catalog, pg_temp as $$
declare
    rule jsonb;
    number integer;
    words text;
begin
    if jsonb_typeof(value) <> 'array' then
        return 'is a list of rules';
    elsif jsonb_array_length(value) > 100 then
        return 'has more than 100 rules';
    end if;
    for rule, number in select r.value, r.ordinality from jsonb_array_elements(value) with ordinality r loop
        words := @extschema@.delivery_settings_rule(rule);
        if words is not null then
            return format('rule %s: %s', number, words);
        end if;
    end loop;
    return null;
end $$;

create or replace function @extschema@.delivery_settings_rule(rule jsonb) returns text language plpgsql immutable
    set search_path = pg_catalog, pg_temp as $$
declare
    statuses jsonb;
    name text;
begin
    if jsonb_typeof(rule) <> 'object' then
        return 'a rule is an object such as {"status": 400, "then": "retry"}';
    elsif exists (select from jsonb_object_keys(rule) k
                   where k not in ('status', 'contains', 'content_type', 'field', 'is', 'not', 'then')) then
        return 'a rule has status, contains, field with is or not, content_type, and then';
    end if;
    if rule ? 'status' then
        statuses := case jsonb_typeof(rule -> 'status') when 'array' then rule -> 'status' else jsonb_build_array(rule -> 'status') end;
        if jsonb_array_length(statuses) not between 1 and 50
           or exists (select from jsonb_array_elements(statuses) s
                       where case jsonb_typeof(s) when 'number' then s::text !~ '^[2-5][0-9]{2}$'
                                                  when 'string' then s::text !~ '^"[2-5]xx"$' else true end) then
            return 'status is a number from 200 to 599, a class from "2xx" to "5xx", or a list of at most 50 of both';
        end if;
    end if;
    foreach name in array '{contains,content_type}'::text[] loop
        if rule ? name and (jsonb_typeof(rule -> name) <> 'string' or octet_length((rule -> name)::text) not between 3 and 1000) then
            return format('%s is a text of 1 to 1000 bytes', name);
        end if;
    end loop;
    if rule ->> 'content_type' ~ '[; A-Z]' then
        return 'content_type is a media type in lower case and without parameters, such as "text/html"';
    elsif rule ? 'field' and (jsonb_typeof(rule -> 'field') <> 'string' or octet_length((rule -> 'field')::text) > 1000
                              or rule ->> 'field' !~ '^(/([^~]|~[01])*)?$') then
        return 'field is a JSON pointer such as "/status/code"';
    elsif rule ? 'is' and rule ? 'not' then
        return 'a rule has "is" or "not", one of them';
    end if;
    foreach name in array '{is,not}'::text[] loop
        if jsonb_typeof(rule -> name) in ('array', 'object') or octet_length((rule -> name)::text) > 1000 then
            return '"is" and "not" take a text, a number, true, false or null';
        end if;
    end loop;
    if rule ? 'then' and (rule -> 'then' not in ('"sent"', '"failed"', '"retry"', '"hold"')) then
        return 'then is "sent", "failed", "retry" or "hold"';
    elsif not rule ? 'then' then
        return 'then is missing';
    elsif rule ? 'field' <> (rule ? 'is' or rule ? 'not') then
        return 'field goes with is or not';
    elsif not rule ?| '{status,contains,field,content_type}' then
        return 'it would match every answer: it needs a status, contains, field or content_type';
    end if;
    return null;
end $$;

create or replace function @extschema@.delivery_settings_proxy(value jsonb) returns text language sql immutable
    set search_path = pg_catalog, pg_temp as $$
    select coalesce(@extschema@.delivery_settings_text_fault(value, 'secret'),
        case when t ~ '^credential:' then null
             when t ~ '@' then 'holds a user name or password: such a URL belongs into a credential, "credential:NAME"'
             when t !~ '^(http|socks5h?)://([A-Za-z0-9_.-]+|[[][0-9A-Fa-f:.]+[]])(:[0-9]{1,5})?/?$'
             then 'must be a URL such as http://proxy.example:3128 (or socks5, socks5h)' end)
      from (select value #>> '{}' as t) x $$;

-- One secret of Standard Webhooks, or two while they are exchanged (src/crypto/signature.c).
create or replace function @extschema@.delivery_settings_signing_secret(value jsonb) returns text language sql immutable
    set search_path = pg_catalog, pg_temp as $$
    select coalesce(fault, case when t !~ '^credential:' and (count not between 1 and 2 or not good)
                                then 'must be "whsec_" and 24 to 64 bytes in base64, or two such separated by a blank, the newer first' end)
      from @extschema@.delivery_settings_text_fault(value, 'secret') fault, (select value #>> '{}' as t) x,
           lateral (select count(*) as count, bool_and(word ~ '^whsec_([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$'
                           and length(word) - 6 <= 88 and (length(word) - 6) / 4 * 3 - (length(word) - length(rtrim(word, '='))) between 24 and 64) as good
                      from regexp_split_to_table(btrim(t, ' '), ' +') word) words $$;

create or replace function @extschema@.delivery_settings_tls(value jsonb) returns text language sql immutable
    set search_path = pg_catalog, pg_temp as $$
    select case when jsonb_typeof(value) <> 'object' then 'must be an object such as {"min_version": "1.0", "legacy_renegotiation": true}'
                when value - '{min_version,legacy_renegotiation}'::text[] <> '{}'
                then 'has a key that is not known; known are "min_version" and "legacy_renegotiation"'
                when value ? 'min_version' and value -> 'min_version' not in ('"1.0"', '"1.1"', '"1.2"', '"1.3"')
                then 'has a "min_version" that must be the text 1.0, 1.1, 1.2 or 1.3'
                when value ? 'legacy_renegotiation' and jsonb_typeof(value -> 'legacy_renegotiation') <> 'boolean'
                then 'has a "legacy_renegotiation" that must be true or false' end $$;
