-- name: integrations_list :once
-- Every integration with what is set for it: id, name, enabled, until when it is paused and why, its circuit (state, next probe, reason,
-- since, why), until when it wants no requests and why, the time now; the type of its authentication ("" = it has nothing to authenticate with), the scheme and host of its URL; timeout
-- in ms, requests at once, rate, attempts (NULL = the configured default); the other keys of delivery_settings; how many it was sent,
-- and how many failed. Without what may be secret: a path or a query may be a token.
select i.id::bigint, i.name::text, i.enabled, case when i.paused_until > now() then i.paused_until end, i.pause_reason::text,
       coalesce(r.circuit_state, 'closed'), r.circuit_until, r.circuit_reason, r.circuit_since, r.circuit_why,
       case when r.backoff_until > now() then r.backoff_until end, r.backoff_reason, now(),
       coalesce(i.delivery_settings #>> '{auth,type}', case when coalesce(i.auth_token::text, '') <> '' then 'bearer' end, ''),
       regexp_replace(substring(i.endpoint_url::text from '^[^:/?#]+://[^/?#]*'), '//.*@', '//'),
       i.timeout_ms::text, i.max_in_flight::text,
       case when i.rate_limit > 0 and i.rate_limit <= 1000000 then i.rate_limit::text end, i.max_attempts::text,
       (select string_agg(k, ', ' order by k)
          from jsonb_object_keys(case jsonb_typeof(i.delivery_settings) when 'object' then i.delivery_settings else '{}' end) k
         where k <> 'auth'),
       least(coalesce(i.successful_sends, 0)::numeric + coalesce(r.sent - r.sent_folded, 0), 9223372036854775807)::bigint,
       least(coalesce(i.failed_sends, 0)::numeric + coalesce(r.failed - r.failed_folded, 0), 9223372036854775807)::bigint
  from integrations i left join integration_runtime r on r.integration_id = i.id
 order by i.id
