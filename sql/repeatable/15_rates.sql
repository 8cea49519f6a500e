-- rate_limit: how many requests an integration gets in a second, of all daemons together.
--
-- A claim takes rows only with the times at which they may be sent, one every 1/rate seconds: it writes the last of them
-- (integration_runtime.rate_at) in its own transaction, under the lock of that row. One process at a time has an integration's times: it may
-- take those of the next 0.4 s, and sends each within 0.8 s or gives the row back. Another one takes over where the times ran out 1 s
-- ago, so whatever the first one has claimed is sent, given back or lost by then, and both never send at once.

-- Requests per second; NULL = without limit. An adopted column may be of another type, and hold anything.
create or replace function @extschema@.rate_of(rate_limit numeric) returns double precision language sql immutable parallel safe as $$
    select case when $1 > 0 then greatest(least($1, 1000000), 0.000001)::double precision end $$;
create or replace function @extschema@.rate_of(rate_limit double precision) returns double precision language sql immutable parallel safe as $$
    select case when $1 > 0 then greatest(least($1, 1000000), 0.000001) end $$;
create or replace function @extschema@.rate_of(rate_limit integer) returns double precision language sql immutable parallel safe as $$
    select case when $1 > 0 then least($1, 1000000)::double precision end $$;

-- When the process may send the next request, if it may claim one now. A time that is further away than anybody could have taken one is
-- from before the clock was set back.
create or replace function @extschema@.rate_next(rate_at timestamptz, rate_by bigint, rate double precision, process bigint, at timestamptz)
    returns timestamptz language sql immutable parallel safe as $$
    select case when rate is null then null
                when rate_at is null or rate_at > at + interval '0.4 s' then at
                when rate_by = process then case when rate_at + interval '1 s' / rate <= at + interval '0.4 s'
                                                 then greatest(rate_at + interval '1 s' / rate, at) end
                when rate_at + interval '1 s' / rate + interval '1 s' <= at then at end $$;

-- How many from then on.
create or replace function @extschema@.rate_tokens(send_at timestamptz, rate double precision, at timestamptz)
    returns integer language sql immutable parallel safe as $$
    select (floor(extract(epoch from at + interval '0.4 s' - send_at)::double precision * rate) + 1)::integer $$;
