-- Confirmations: what delivery_settings.confirmation asks for, and since when.

-- Within which time an institution confirms: microseconds of {"within": "2d"}; NULL = it is none, or longer than 3650 days.
create or replace function @extschema@.confirmation_usec(value jsonb) returns bigint language sql immutable
    set search_path = pg_catalog, pg_temp as $$
    select usec::bigint
      from (select m[1]::numeric * ('{"us": 1, "ms": 1000, "s": 1000000, "m": 60000000, "h": 3600000000, "d": 86400000000}'::jsonb
                                    ->> m[2])::numeric as usec
              from regexp_match(value ->> 'within', '^0*([1-9][0-9]{0,17})(us|ms|s|m|h|d)$') m) x
     where usec <= 315360000000000
$$;

create or replace function @extschema@.confirmation_changed() returns trigger language plpgsql security definer
    set search_path = pg_catalog, pg_temp as $$
begin
    insert into @extschema@.confirmation_terms as t (integration_id, after_id, within_usec)
    select new.id, s.last_value - 1 + s.is_called::integer, @extschema@.confirmation_usec(new.delivery_settings -> 'confirmation')
      from @extschema@.ledger_id_seq s
        on conflict (integration_id, after_id) do update set within_usec = excluded.within_usec, since = excluded.since, known_id = null;
    return null;
end $$;
revoke execute on function @extschema@.confirmation_changed() from public;
