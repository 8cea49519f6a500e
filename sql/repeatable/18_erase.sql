-- Erasure of a person's data: "anubisctl erase". What names nobody stays: ids, states, times, counts, the leaves of the audit log.

-- Of who decided, what does not tell of the person: an operator's name without his reason.
create or replace function @extschema@.erased_decision(decided_by text) returns text language sql immutable
    set search_path = pg_catalog, pg_temp as $$
    select case when decided_by like 'operator %' then regexp_replace(decided_by, ':.*$', '') else decided_by end
$$;

-- A text with its decimal digits in ASCII: also those in full width (U+FF10 to U+FF19), and those that JSON may write as \u0031 or \uff11.
-- A text that has some in full width comes with its other characters beyond ASCII as encode(..., 'escape') writes their bytes; that may be
-- the form of the text given, too. Without SET, so that a query takes it in.
create or replace function @extschema@.plain_digits(words text) returns text language sql stable as $$
    select case when strpos(words, E'\\u') = 0 and strpos(words, E'\\357\\274') = 0
                     and position(E'\\xefbc'::bytea in convert_to(words, 'UTF8')) = 0 then words
                else regexp_replace(regexp_replace(regexp_replace(regexp_replace(
                         case when position(E'\\xefbc'::bytea in convert_to(words, 'UTF8')) > 0
                              then encode(convert_to(words, 'UTF8'), 'escape') else words end,
                         E'\\\\+u(003|[fF][fF]1)([0-9])', E'\\2', 'g'),
                         E'\\\\357\\\\274\\\\22([0-7])', E'\\1', 'g'), E'\\\\357\\\\274\\\\230', '8', 'g'), E'\\\\357\\\\274\\\\231', '9', 'g') end
$$;

-- The digits of a CPF, however it is written, without the zeros that it begins with, as a number has none; NULL: there is none.
create or replace function @extschema@.cpf_digits(cpf text) returns text language sql stable as $$
    select nullif(ltrim(regexp_replace(@extschema@.plain_digits(cpf), E'\\\\[0-7]{3}|[^0-9]', '', 'g'), '0'), '')
$$;

-- May an event be changed so? Only where its subscription is erased, and only to lose what names the person. The columns that are not
-- named here keep their values, the application's own too.
create or replace function @extschema@.ledger_erases(old_row jsonb, new_row jsonb) returns boolean
    language sql stable security definer set search_path = pg_catalog, pg_temp as $$
    select exists (select from @extschema@.subscriptions s where s.id = (old_row ->> 'subscription_id')::bigint and s.erased_at is not null)
       and old_row - n.names = new_row - n.names
       and new_row ->> 'cpf' is null and new_row ->> 'request' is null and new_row ->> 'response' is null
       and new_row ->> 'error_message' is not distinct from case when old_row ->> 'error_message' is not null then 'erased' end
       and new_row ->> 'decided_by' is not distinct from @extschema@.erased_decision(old_row ->> 'decided_by')
      from (values ('{cpf,request,response,error_message,decided_by}'::text[])) n (names)
$$;

-- A row that is erased stays so: it is neither put back nor filled again. Called for each change of one; whether its status is another.
create or replace function @extschema@.subscription_erased(id bigint, old_status text, status text, old_erased_at timestamptz,
    erased_at timestamptz, cpf text, payload text, last_response text) returns boolean language plpgsql
    set search_path = pg_catalog, pg_temp as $$
begin
    if status is distinct from old_status or erased_at is distinct from old_erased_at or coalesce(cpf, '') not in ('', '0') or payload <> '{}'
       or last_response is not null then
        perform @extschema@.subscription_refused('23514', 'subscriptions_erased_stays_erased',
            format('cannot change subscription %s: the person''s data was erased', id),
            'It stays as it is, without payload and CPF. A new enrolment is a new subscription.');
    end if;
    return false;
end $$;

-- Puts zeros in the place of their salts; how many there were. Who has none yet shall get none later, when an event of it comes: its
-- chunk is made here then, with 244 random bits for each of the others.
create or replace function @extschema@.salts_erase(ids bigint[]) returns bigint language plpgsql
    set search_path = pg_catalog, pg_temp as $$
declare
    none constant bytea := decode(repeat('00', 32), 'hex');
    one bigint;
    n bigint := 0;
begin
    insert into @extschema@.audit_salts (chunk, salts)
    select c.chunk, (select string_agg(case when c.chunk << 5 | i.n = any (ids) then none
                                            else sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())) end, '' order by i.n)
                       from generate_series(0, 31) as i (n))
      from (select distinct u.id >> 5 from unnest(ids) as u (id)) as c (chunk)
     where not exists (select from @extschema@.audit_salts a where a.chunk = c.chunk);
    foreach one in array coalesce(ids, '{}') loop
        update @extschema@.audit_salts a set salts = overlay(a.salts placing none from 1 + 32 * (one & 31)::int)
         where a.chunk = one >> 5 and substr(a.salts, 1 + 32 * (one & 31)::int, 32) <> none;
        n := n + found::int;
    end loop;
    return n;
end $$;

-- Erases what can be erased now of these subscriptions; one that is in flight is left for another call. Waiting ones fail before, with
-- an event. All of it in one transaction, and a second call finds nothing to do. Dead letters are those of the subscriptions, and those
-- that hold one of these CPFs (digits). Returns, among them, those in flight, which dead letters and
-- how many of each of the others were changed; "unpublished" are events
-- that Kafka does not have yet: the relay reads them anew, as they are now.
--
-- Whoever writes a salt, a confirmation or a dead letter meanwhile is waited for, and whoever comes later sees that the subscription is
-- erased. Short timeouts, so that nobody queues behind for long; the caller tries again.
create or replace function @extschema@.subscriptions_erase(ids bigint[], cpfs text[], words text, out in_flight bigint[],
    out erased bigint, out failed bigint, out events bigint, out salts bigint, out confirmations bigint, out letters bigint[],
    out unpublished bigint) returns record
    language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '500ms' as $$
declare
    amiss text;
    taken bigint[];
    drawn constant bigint := (select last_value from @extschema@.ledger_id_seq);
    -- An adopted column may be NOT NULL, and of any type.
    no_cpf constant text := (select case when not a.attnotnull then 'null' when t.typcategory = 'N' then '0' else quote_literal('') end
                               from pg_attribute a join pg_type t on t.oid = a.atttypid
                              where a.attrelid = '@extschema@.subscriptions'::regclass and a.attname = 'cpf');
begin
    lock table @extschema@.subscription_events in row exclusive mode;
    amiss := @extschema@.tables_amiss();
    if amiss is not null then
        raise exception 'the tables are not as anubisd made them: %', amiss;
    end if;
    lock table @extschema@.audit_salts, @extschema@.confirmations, @extschema@.dead_letters in share row exclusive mode;
    perform from @extschema@.subscriptions s where s.id = any (ids) order by s.id for update;
    select coalesce(array_agg(s.id::bigint order by s.id) filter (where s.status = 'processing' and s.lease_expires_at > clock_timestamp()), '{}'),
           array_agg(s.id::bigint) filter (where (s.status = 'processing' and s.lease_expires_at > clock_timestamp()) is not true)
      into in_flight, taken from @extschema@.subscriptions s where s.id = any (ids);

    -- What the institution may have stays so: a value that the change of the status does not change would go (subscription_changed_by_others).
    update @extschema@.subscriptions s set last_ambiguous = null
     where s.id = any (taken) and s.status in ('pending', 'retry', 'processing') and s.last_ambiguous;
    update @extschema@.subscriptions s
       set status = @extschema@.as_state('failed', s.status), last_error = 'erased', last_decided_by = words,
           last_ambiguous = case when s.status = 'processing' or s.ambiguous_since is not null then true end,
           updated_at = @extschema@.subscription_now(s.updated_at)
     where s.id = any (taken) and s.status in ('pending', 'retry', 'processing');
    get diagnostics failed = row_count;
    execute format($query$
        update @extschema@.subscriptions s
           set erased_at = coalesce(s.erased_at, now()), cpf = %s, payload = @extschema@.as_document('{}', s.payload), last_response = null,
               last_error = case when s.last_error is not null then 'erased' end,
               last_decided_by = @extschema@.erased_decision(s.last_decided_by)
         where s.id = any ($1) and (s.erased_at is null or s.cpf::text not in ('', '0') or s.payload::text <> '{}'
                                    or s.last_response is not null or s.last_error <> 'erased'
                                    or s.last_decided_by <> @extschema@.erased_decision(s.last_decided_by))$query$, no_cpf) using taken;
    get diagnostics erased = row_count;

    update @extschema@.subscription_events e
       set cpf = null, request = null, response = null, error_message = case when e.error_message is not null then 'erased' end,
           decided_by = @extschema@.erased_decision(e.decided_by)
     where e.subscription_id = any (taken)
       and (e.cpf is not null or e.request is not null or e.response is not null or e.error_message <> 'erased'
            or e.decided_by <> @extschema@.erased_decision(e.decided_by));
    get diagnostics events = row_count;
    salts := @extschema@.salts_erase(taken);
    -- How many have contradicted it stays; what they said was a hash.
    update @extschema@.confirmations c
       set external_id = null, contradicting = array(select generate_series(1::bigint, cardinality(c.contradicting)))
     where c.subscription_id = any (taken)
       and (c.external_id is not null or c.contradicting <> array(select generate_series(1::bigint, cardinality(c.contradicting))));
    get diagnostics confirmations = row_count;
    select coalesce(array_agg(l), '{}') into letters from @extschema@.letters_erase(taken, cpfs) l;

    -- A relay that has read such an event drops what it has in hand: the next save, or the next look, finds another epoch.
    select count(*) into unpublished from @extschema@.relay_state r, @extschema@.subscription_events e
     where e.subscription_id = any (taken) and e.event_type is not null and e.id <= drawn
       and (e.id > r.high or exists (select from unnest(r.gap_first, r.gap_last) as g (first, last) where e.id between g.first and g.last));
    if unpublished > 0 and events > 0 then
        update @extschema@.relay_state set epoch = epoch + 1;
    end if;
end $$;

create or replace function @extschema@.letter_headers_kept(headers jsonb) returns jsonb language sql immutable
    set search_path = pg_catalog, pg_temp as $$
    select coalesce(jsonb_object_agg(h.key, h.value), '{}') from jsonb_each(case when jsonb_typeof(headers) = 'object' then headers end) h
     where h.key = any ('{event_id,event_type,integration_id,sequence,installation}'::text[])
$$;

-- The ids of subscriptions that a message names: its key, though it be written in another way, and in its value those of an event
-- (subscription.id) and of a word of an institution (subscription_id), also where it is no JSON.
create or replace function @extschema@.letter_names(key bytea, value bytea) returns setof text language sql stable
    set search_path = pg_catalog, pg_temp as $$
    select ltrim(btrim(encode(key, 'escape'), E' "\'+\t\r\n'), '0')
    union all
    select m[1] from regexp_matches(@extschema@.plain_digits(encode(value, 'escape')),
                                    E'"(?:subscription_id|subscription"\\s*:\\s*\\{[^{}]*?"id)"\\s*:\\s*"?\\s*0*([0-9]+)', 'gi') m
$$;

-- Of dead letters stay where they came from, why, and the headers that count them. An open one is given up: nothing is left to be tried
-- again.
create or replace function @extschema@.letters_erase(ids bigint[], cpfs text[]) returns setof bigint language sql
    set search_path = pg_catalog, pg_temp as $$
    -- However it is written: up to three signs between digits (\302 is one byte, as encode() writes it), and as a number without the zeros
    -- that it begins with.
    with written as (
      select E'(^|[^0-9]|\\\\[0-7]{3})0*' || regexp_replace(ltrim(c.digits, '0'), '(.)', E'([^0-9]|\\\\\\\\[0-7]{3}){0,3}\\1', 'g') || '([^0-9]|$)' as cpf
        from unnest(cpfs) as c (digits) where ltrim(c.digits, '0') <> ''
    ), found as (
      select d.id, (encode(d.key, 'escape') = any (ids::text[])) is true as is_keyed
        from @extschema@.dead_letters d
       where exists (select from @extschema@.letter_names(d.key, d.value) n where n = any (ids::text[]))
          or d.headers ->> 'sequence' in (select e.id::text from @extschema@.subscription_events e where e.subscription_id = any (ids))
          or exists (select from written w where concat_ws(' ', @extschema@.plain_digits(encode(d.value, 'escape')),
                                                      @extschema@.plain_digits(encode(d.key, 'escape')),
                                                      @extschema@.plain_digits(d.headers::text)) ~ w.cpf)
    )
    update @extschema@.dead_letters d
       set value = null, key = case when f.is_keyed then d.key end, headers = @extschema@.letter_headers_kept(d.headers),
           discarded_at = case when d.replayed_at is null then coalesce(d.discarded_at, now()) end,
           discard_reason = case when d.replayed_at is null then 'erased' end
      from found f
     where d.id = f.id and (d.value is not null or d.key is not null and not f.is_keyed
                            or d.headers <> @extschema@.letter_headers_kept(d.headers)
                            or d.replayed_at is null and d.discard_reason is distinct from 'erased')
    returning d.id
$$;

revoke execute on function @extschema@.subscriptions_erase(bigint[], text[], text), @extschema@.salts_erase(bigint[]),
    @extschema@.letters_erase(bigint[], text[]) from public;
