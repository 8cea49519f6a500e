-- max_in_flight of an integration: how many requests it gets at once, of all daemons together.
--
-- One instance at a time serves an integration that sets it, and counts its own requests. A claim writes until when
-- (integration_runtime.served_until), under the lock of that row: beyond the leases of what it claims. While it has
-- that long it needs no lock, since nobody else may take it. What it has claimed is sent, given back or lost by then.
-- A daemon that stops gives it up; one that is started again under its name goes on at once.

-- A time that is further away than any lease is from before the clock was set back; what is nearer mend_times puts right, by the time at
-- which it was written (served_since).
create or replace function @extschema@.may_serve(served_by text, served_until timestamptz, instance text, at timestamptz)
    returns boolean language sql immutable parallel safe as $$
    select coalesce(served_by = instance or served_until <= at or served_until > at + interval '1 day', true) $$;
