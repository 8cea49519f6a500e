-- Lets an integration wait, unless its endpoint_url or auth_token was changed since the request was made.
-- $1 bigint: integration
-- $2 bigint: ms from now
-- $3 text: why
-- $4 bigint: its fingerprint when the request was made
insert into integration_runtime as r (integration_id, backoff_until, backoff_reason)
select id, now() + $2 * interval '1 ms', $3 from integrations i
 where id = $1 and integration_fingerprint(endpoint_url, auth_token) = $4
on conflict (integration_id) do update
   set backoff_until = greatest(r.backoff_until, excluded.backoff_until), backoff_reason = excluded.backoff_reason
