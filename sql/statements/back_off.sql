-- Lets an integration wait, unless its endpoint_url, auth_token or delivery_settings were changed since the request was made. A wait that
-- was written in the future (the server's clock has been set back) does not count.
-- $1 bigint: integration
-- $2 bigint: ms from now
-- $3 text: why
-- $4 bigint: its fingerprint when the request was made
insert into integration_runtime as r (integration_id, backoff_until, backoff_since, backoff_reason)
select id, now() + $2 * interval '1 ms', now(), $3 from integrations i
 where id = $1 and integration_fingerprint(endpoint_url, auth_token, delivery_settings) = $4
on conflict (integration_id) do update
   set backoff_until = greatest(case when r.backoff_since <= now() + interval '10 s' then r.backoff_until end, excluded.backoff_until),
       backoff_since = excluded.backoff_since, backoff_reason = excluded.backoff_reason
