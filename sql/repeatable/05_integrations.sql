-- The functions of the triggers on integrations.

-- Tells one way of reaching an institution from another: what came of a request says nothing about a later endpoint or token.
create or replace function @extschema@.integration_fingerprint(endpoint_url text, auth_token text) returns bigint
    language sql immutable parallel safe as $$ select hashtextextended(concat_ws(' ', endpoint_url, auth_token), 0) $$;

-- A change that makes an integration's subscriptions due rings, too.
create or replace function @extschema@.integration_changed() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    perform @extschema@.doorbell_ring();
    return null;
end $$;
revoke execute on function @extschema@.integration_changed() from public;

-- Another endpoint or token is no longer what the institution asked to wait with, or refused: it is tried at once.
create or replace function @extschema@.integration_mended() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    update @extschema@.integration_runtime set backoff_until = null, backoff_reason = null
     where integration_id = new.id and backoff_until is not null;
    if found and new.enabled then
        perform @extschema@.doorbell_ring();
    end if;
    return null;
end $$;
revoke execute on function @extschema@.integration_mended() from public;

-- An integration that no request can reach is refused when it is written, not when a subscription waits for it.
create or replace function @extschema@.integration_check() returns trigger language plpgsql as $$
declare
    unknown text;
begin
    if new.endpoint_url is not null then
        if length(new.endpoint_url) > 8000 then
            raise exception using errcode = 'check_violation', message = 'endpoint_url is longer than 8000 characters';
        elsif new.endpoint_url !~* '^https?://(\[[0-9a-f:.]+\]|[^][/?#@:%[:space:][:cntrl:]]+)(:[0-9]{1,5})?([/?][^[:space:][:cntrl:]]*)?$'
              or coalesce(substring(new.endpoint_url from '^[^/]+//[^/?]*[^:/?]:([0-9]+)([/?]|$)')::integer, 1) not between 1 and 65535 then
            raise exception using errcode = 'check_violation',
                message = 'endpoint_url is no http or https URL without user name, spaces and control characters',
                hint = 'It looks like https://api.example.edu.br/enrolments; credentials go to auth_token or delivery_settings.';
        end if;
    end if;
    -- As the daemon judges it (take_token): what it could not send is refused when it is written. What an adopted row held before keeps
    -- nobody from changing something else.
    if tg_op = 'INSERT' or new.auth_token is distinct from old.auth_token then
        if new.auth_token ~ '^(file|env):' then
            raise exception using errcode = 'check_violation', message = 'auth_token cannot be read from a file or from the environment',
                hint = 'It is the token itself, or "credential:NAME" for one that systemd hands to the daemon.';
        elsif new.auth_token ~ '[[:cntrl:]]' then
            raise exception using errcode = 'check_violation', message = 'auth_token holds control characters, perhaps the end of a line';
        elsif new.auth_token ~ '[^\x01-\x7f]' then
            raise exception using errcode = 'check_violation', message = 'auth_token holds characters that are not ASCII',
                hint = 'A header carries no others safely. Was it copied from a text with typographic dashes or quotes?';
        elsif new.auth_token ~ '^ +$' then
            raise exception using errcode = 'check_violation', message = 'auth_token is blank', hint = 'NULL stands for no token.';
        elsif new.auth_token ~ '^credential:' and new.auth_token !~ '^credential:[!-.0-~]{1,255}$' then
            raise exception using errcode = 'check_violation', message = 'auth_token has no name of a credential after "credential:"',
                hint = 'NAME is the one of LoadCredential=NAME:/path in the daemon''s unit, without blanks and "/".';
        elsif octet_length(new.auth_token) > 65536 then
            raise exception using errcode = 'check_violation',
                message = format('auth_token has %s bytes; 65536 are the most that is sent', octet_length(new.auth_token)),
                hint = 'Few servers accept headers of more than 8 to 64 KiB. Is it the token alone, and not the answer that it came in?';
        end if;
    end if;
    if jsonb_typeof(new.delivery_settings) <> 'object' then
        raise exception using errcode = 'check_violation', message = 'delivery_settings is no JSON object';
    end if;
    select k into unknown from jsonb_object_keys(new.delivery_settings) k
     where k not in ('auth', 'headers', 'signing_secret', 'outcomes', 'on_ambiguous', 'idempotency', 'lookup', 'proxy', 'confirmation', 'tls')
     limit 1;
    if unknown is not null then
        raise exception using errcode = 'check_violation', message = format('delivery_settings has an unknown key "%s"', unknown),
            hint = 'The keys are auth, headers, signing_secret, outcomes, on_ambiguous, idempotency, lookup, proxy, confirmation and tls.';
    end if;
    return new;
end $$;
