-- The functions of the triggers on integrations.

-- Tells one way of reaching an institution from another: what came of a request says nothing about a later one. Without concat_ws(),
-- which is not immutable, so that claims would pay for a call.
create or replace function @extschema@.integration_fingerprint(endpoint_url text, auth_token text, delivery_settings jsonb) returns bigint
    language sql immutable parallel safe as $$
    select hashtextextended(coalesce(endpoint_url, '') || ' ' || coalesce(auth_token, '') || ' ' || coalesce(nullif(delivery_settings, '{}')::text, ''), 0) $$;

-- A change that makes an integration's subscriptions due rings, too.
create or replace function @extschema@.integration_changed() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    perform @extschema@.doorbell_ring();
    return null;
end $$;
revoke execute on function @extschema@.integration_changed() from public;

-- Each integration has its row, for whoever reads it; and a claim of one with a limit takes its times or slots under the lock of this row:
-- see rate_next() and may_serve().
create or replace function @extschema@.integration_begun() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    insert into @extschema@.integration_runtime (integration_id) values (new.id) on conflict do nothing;
    return null;
end $$;
revoke execute on function @extschema@.integration_begun() from public;

-- An integration or a filter that subscriptions refer to stays, with its id. Inserts look at their integration without a lock on its row,
-- so before one goes, all writers of subscriptions are kept away: those that came before are seen, those that come later see that it is
-- gone. (Under "repeatable read" neither may see the other; nobody claims such a row, and "verify" names it.) The first look is for
-- the integrations in use. The row of a filter is locked by those that refer to it.
create or replace function @extschema@.reference_kept() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    name text := case tg_table_name when 'integrations' then 'integration_id' else 'integration_filter_id' end;
    used boolean;
begin
    if @extschema@.cleaning_allowed() then
        return null;
    end if;
    if tg_op = 'TRUNCATE' then
        raise exception using errcode = 'restrict_violation', message = format('cannot truncate %s: subscriptions refer to them', tg_table_name);
    end if;
    for look in 1 .. case name when 'integration_id' then 2 else 1 end loop
        if look = 2 then
            lock table @extschema@.subscriptions in share row exclusive mode;
        end if;
        execute format('select exists (select from @extschema@.subscriptions where %I = $1)', name) into used using old.id;
        if used then
            raise exception using errcode = 'foreign_key_violation',
                message = format('update or delete on table "%s" violates foreign key constraint "subscriptions_%s_fkey" on table "subscriptions"',
                                 tg_table_name, name),
                detail = format('Key (id)=(%s) is still referenced from table "subscriptions".', old.id),
                hint = 'One that must get nothing any more is disabled: enabled = false.',
                table = 'subscriptions', constraint = format('subscriptions_%s_fkey', name);
        end if;
    end loop;
    return null;
end $$;
revoke execute on function @extschema@.reference_kept() from public;

-- What happened at an integration is counted under its id for ever: another one under that id would begin without the counts, and would have
-- its hours. So one of which events were counted stays, and one whose subscriptions have moved, of which they may still be. What was there
-- before the ledger goes with one that has none.
create or replace function @extschema@.integration_gone() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    if @extschema@.cleaning_allowed() then
        return null;
    end if;
    -- Whoever moves some now is waited for, as in reference_kept(), which has looked before.
    lock table @extschema@.subscriptions in share row exclusive mode;
    if exists (select from @extschema@.integration_moves m where m.integration_id = old.id)
       or exists (select from @extschema@.integration_stats_months where integration_id = old.id) then
        raise exception using errcode = 'restrict_violation',
            message = format('cannot %s integration %s: its events are counted under its id',
                             case tg_op when 'DELETE' then 'delete' else 'change the id of' end, old.id),
            hint = 'One that must get nothing any more is disabled: enabled = false.', table = 'integrations';
    end if;
    delete from @extschema@.ledger_baseline where integration_id = old.id and status = '';
    return null;
end $$;
revoke execute on function @extschema@.integration_gone() from public;

-- What an integration waited for, was refused for, or what left it without an answer, is no longer so: it is tried at once, with the rows
-- that waited for it. The first hundred show whether it works; the others come at their times.
create or replace function @extschema@.integration_try_again(integration bigint) returns void language plpgsql
    set search_path = pg_catalog, pg_temp as $$
declare
    waited boolean;
begin
    select backoff_until is not null or circuit_state <> 'closed' into waited
      from @extschema@.integration_runtime r where r.integration_id = integration for no key update;
    update @extschema@.integration_runtime r
       set backoff_until = null, backoff_reason = null, refused_in_row = 0,
           (circuit_state, circuit_generation, circuit_failures, circuit_level, circuit_until) =
           (select n.circuit_state, n.circuit_generation, n.circuit_failures, n.circuit_level, n.circuit_until
              from @extschema@.circuit_next(r, 'mended', null, null, clock_timestamp(), null, null, null, null) n)
     where r.integration_id = integration;
    if waited then
        update @extschema@.subscriptions s set next_attempt_at = null
         where s.ctid = any (array(select w.ctid from @extschema@.subscriptions w
                                    where w.integration_id = integration and w.status = 'retry' and w.held_at is null
                                    order by w.integration_id, @extschema@.subscription_due(w.next_attempt_at, w.scheduled_to), w.id
                                    limit 100 for no key update skip locked));
        perform @extschema@.doorbell_ring();
    end if;
end $$;

-- After another endpoint, token or other delivery_settings.
create or replace function @extschema@.integration_mended() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    perform @extschema@.integration_try_again(new.id);
    return null;
end $$;
revoke execute on function @extschema@.integration_mended() from public;

-- Where integrations alone were restored, their sequence is set back, and the next one would get the id of one that is gone: with what waits
-- for that one, which another institution would receive, and its counts. Returns the statement that carries the sequence past such ids; NULL =
-- the id is new, or the insert names it: who does knows whose it is. The session has drawn what the sequence told it last.
create or replace function @extschema@.integration_drawn_again(id bigint) returns text language plpgsql stable security definer
    set search_path = pg_catalog, pg_temp as $$
declare
    sequence constant text := pg_get_serial_sequence('@extschema@.integrations', 'id');
begin
    if sequence is null or @extschema@.cleaning_allowed() or currval(sequence::regclass) <> id then
        return null;
    end if;
    if exists (select from @extschema@.subscriptions s
                where s.integration_id = integration_drawn_again.id and s.status in ('pending', 'retry') and s.held_at is null)
       or exists (select from @extschema@.subscriptions s where s.integration_id = integration_drawn_again.id and s.held_at is not null)
       or exists (select from @extschema@.integration_moves m where m.integration_id = integration_drawn_again.id)
       or exists (select from @extschema@.integration_stats_months m where m.integration_id = integration_drawn_again.id) then
        return format('select setval(%L, %s)', sequence,
            greatest(id, (select max(i.id) from @extschema@.integrations i), (select max(m.integration_id) from @extschema@.integration_moves m),
                     (select max(s.integration_id) from @extschema@.subscriptions s where s.status in ('pending', 'retry') and s.held_at is null),
                     (select max(s.integration_id) from @extschema@.subscriptions s where s.held_at is not null),
                     (select max(m.integration_id) from @extschema@.integration_stats_months m)));
    end if;
    return null;
exception when object_not_in_prerequisite_state then -- nothing was drawn in this session
    return null;
end $$;

-- What is wrong with a URL, of an endpoint or in delivery_settings, as words behind its name, or NULL. They quote its host and port alone.
create or replace function @extschema@.delivery_settings_url_fault(url text) returns text language plpgsql immutable
    set search_path = pg_catalog, pg_temp as $$
declare
    authority text := substring(url from '^[Hh][Tt][Tt][Pp][Ss]?://([^/?#]*)');
    host text := substring(authority from '^([[][^]]*[]]|[^:]*)');
    port text := substring(authority from length(host) + 1);
    name text := regexp_replace(host, '[.]$', '');
begin
    if octet_length(url) > 8000 then
        return 'is longer than 8000 bytes';
    elsif authority is null then
        return 'is no http or https URL';
    elsif url ~ '[[:space:][:cntrl:]]' then
        return 'holds a space or a control character';
    elsif authority ~ '@' then
        return 'holds a user name or a password';
    elsif host = '' then
        return 'names no host';
    elsif host ~ E'[^\x01-\x7f]' then
        return format('names the host "%s", which is not in ASCII', host);
    elsif host like '[%' then
        if host !~ '^[[][0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*[]]$' then
            return format('names the host "%s", which is no IPv6 address', host);
        end if;
    elsif host !~ '^[A-Za-z0-9_.-]+$' then
        return format('names the host "%s", which holds a character that no host name has', host);
    elsif name ~ '^[.]|[.][.]|[.]$|^$' or name ~ '[^.]{64}' then
        return format('names the host "%s", of which a part is empty or longer than 63 characters', host);
    elsif length(name) > 253 then
        return 'names a host of more than 253 characters';
    end if;
    if port <> '' and (port !~ '^:[0-9]{1,5}$' or substr(port, 2)::integer not between 1 and 65535) then
        return format('has "%s" behind its host; a port is a number from 1 to 65535', port);
    end if;
    return null;
end $$;

-- An integration that no request can reach is refused when it is written, not when a subscription waits for it. The daemon refuses
-- the same URLs (src/http/http_route.c), for those that were written before. What is not changed is not judged.
create or replace function @extschema@.integration_check() returns trigger language plpgsql as $$
declare
    problem text := case when new.endpoint_url is not null and new.endpoint_url is distinct from old.endpoint_url
                         then @extschema@.delivery_settings_url_fault(new.endpoint_url) end;
    again text := case tg_op when 'INSERT' then @extschema@.integration_drawn_again(new.id::bigint) end;
begin
    if again is not null then
        raise exception using errcode = 'unique_violation',
            message = format('cannot give a new integration the id %s: subscriptions or counts of a former one have it', new.id),
            hint = format('The sequence was set back, as by a restore of this table alone: run "%s", and insert again. The former one comes '
                          'back by an insert that names its id.', again),
            table = 'integrations', constraint = 'integrations_id_is_new';
    end if;
    -- No event could name it.
    if new.id <= 0 and new.id is distinct from old.id then
        raise exception using errcode = 'check_violation', message = format('cannot give an integration the id %s', new.id),
            hint = 'Ids are positive.', table = 'integrations', constraint = 'integrations_id_is_positive';
    end if;
    if problem is not null then
        raise exception using errcode = 'check_violation', message = 'endpoint_url ' || problem,
            hint = case when problem like '%not in ASCII' then 'Write it in its xn-- form (punycode), which "idn2" or any browser shows.'
                        else 'It looks like https://api.example.edu.br/enrolments; credentials go to auth_token or delivery_settings.' end;
    end if;
    -- As the daemon judges it (take_token): what it could not send is refused when it is written. What an adopted row held before keeps
    -- nobody from changing something else.
    if tg_op = 'INSERT' or new.auth_token is distinct from old.auth_token then
        if new.auth_token ~ '^(file|env):' then
            raise exception using errcode = 'check_violation', message = 'auth_token cannot be read from a file or from the environment',
                hint = 'It is the token itself, or "credential:NAME" for one that systemd hands to the daemon.';
        elsif new.auth_token ~ '[[:cntrl:]]' then
            raise exception using errcode = 'check_violation', message = 'auth_token holds control characters, perhaps the end of a line';
        elsif new.auth_token ~ E'[^\x01-\x7f]' then
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
    -- NULL stands for what is not set, as in the other columns of settings.
    new.delivery_settings := coalesce(new.delivery_settings, '{}');
    if new.delivery_settings <> '{}' and new.delivery_settings is distinct from old.delivery_settings then
        perform @extschema@.delivery_settings_check(new.delivery_settings, old.delivery_settings);
    end if;
    return new;
end $$;
