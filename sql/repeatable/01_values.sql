-- Columns of an adopted table may be of another type than the plain table's: these functions give one type for each of them, and
-- are written into the statement that calls them (inlined), so that they cost nothing.

-- A timestamp without time zone means UTC.
create or replace function @extschema@.as_instant(instant timestamptz) returns timestamptz language sql immutable parallel safe
    as $$ select instant $$;
create or replace function @extschema@.as_instant(instant timestamp) returns timestamptz language sql immutable parallel safe
    as $$ select instant at time zone 'UTC' $$;

-- The time, in the type of the column given.
create or replace function @extschema@.subscription_now(of_type timestamptz) returns timestamptz language sql volatile
    as $$ select clock_timestamp() $$;
create or replace function @extschema@.subscription_now(of_type timestamp) returns timestamp language sql volatile
    as $$ select clock_timestamp() at time zone 'UTC' $$;

-- A status in the type of the column given.
create or replace function @extschema@.as_state(state text, of_type text) returns text language sql immutable parallel safe
    as $$ select state $$;
create or replace function @extschema@.as_state(state text, of_type anyenum) returns anyenum language plpgsql immutable parallel safe
    as $$ begin return state; end $$;

-- A text in the type of the column given; a text that is not JSON (or more than jsonb can hold) becomes a JSON string.
create or replace function @extschema@.as_document(document text, of_type text) returns text language sql immutable parallel safe
    as $$ select document $$;
create or replace function @extschema@.as_document(document text, of_type json) returns json language plpgsql immutable as $$
begin
    if document is null then
        return null;
    end if;
    perform document::jsonb;
    return document::json;
exception when others then
    return to_json(document);
end $$;
create or replace function @extschema@.as_document(document text, of_type jsonb) returns jsonb language sql immutable
    as $$ select @extschema@.as_document(document, null::json)::jsonb $$;

-- A payload as jsonb.
create or replace function @extschema@.as_jsonb(document jsonb) returns jsonb language sql immutable parallel safe as $$ select document $$;
create or replace function @extschema@.as_jsonb(document json) returns jsonb language sql immutable
    as $$ select @extschema@.as_document(document::text, null::jsonb) $$;
create or replace function @extschema@.as_jsonb(document text) returns jsonb language sql immutable
    as $$ select @extschema@.as_document(document, null::jsonb) $$;
