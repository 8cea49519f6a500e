-- Subscriptions that an institution had only seemed to take: "sent" is final, so a new row goes out in their place.

-- Inserts each of these once more that is sent and has not been inserted once more before; the others, and those that somebody else has
-- locked, are left out. `words` says who does it; with a rate above 0 they are due one after the other, so many a second, after the first
-- `before`. All columns of the application's go along, but for those that are unique and have a default; so the statement is put together.
create or replace function @extschema@.subscriptions_resend(ids bigint[], words text, rate bigint, before bigint)
    returns table (id bigint, copy bigint) language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    copied text;
begin
    select string_agg(quote_ident(a.attname), ', ' order by a.attnum) into copied
      from pg_attribute a
     where a.attrelid = '@extschema@.subscriptions'::regclass and a.attnum > 0 and not a.attisdropped
       and a.attgenerated = '' and a.attidentity = ''
       and a.attname <> all ('{id,status,attempts,scheduled_to,next_attempt_at,claimed_by,claim_token,lease_expires_at,held_at,sent_at,
           last_error,last_http_status,created_at,updated_at,last_response,last_response_truncated,last_duration_ms,last_ambiguous,
           last_decided_by,ambiguous_since,idempotency_seed,idempotency_turn,traceparent,resend_of,erased_at}'::text[])
       and not (a.atthasdef and exists (select from pg_index x where x.indrelid = a.attrelid and x.indisunique and x.indnkeyatts = 1
                                                                 and x.indkey[0] = a.attnum));
    return query execute format($query$
        with found as materialized (
          select f.id, row_number() over (order by f.id) - 1 as number
            from (select s.id from @extschema@.subscriptions s
                   where s.id = any ($1) and s.status = 'sent' and s.erased_at is null
                     and not exists (select from @extschema@.subscriptions r where r.resend_of = s.id)
                   order by s.id for no key update skip locked) f
        )
        insert into @extschema@.subscriptions (resend_of, status, last_decided_by, next_attempt_at, created_at, updated_at, %1$s)
        select s.id, @extschema@.as_state('pending', s.status), $2,
               case when $3 > 0 then now() + ($4 + f.number) / $3::double precision * interval '1 s' end,
               @extschema@.subscription_now(s.created_at), @extschema@.subscription_now(s.updated_at), %1$s
          from @extschema@.subscriptions s join found f using (id) order by s.id
        on conflict (resend_of) where resend_of is not null do nothing
        returning resend_of, id::bigint$query$, copied) using ids, words, rate, before;
end $$;
revoke execute on function @extschema@.subscriptions_resend(bigint[], text, bigint, bigint) from public;
