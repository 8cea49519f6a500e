-- name: filters_judge :once
-- All filters in their order: id, name, integration, its name, enabled, position, origin (NULL = any), criteria, what the filter says (enum
-- filter_verdict), and the first of its criteria that the payload lacks or has otherwise: its path, what the filter wants, whether the
-- payload has something there. What it has is personal data, and stays out.
-- $1 text: payload
-- $2 text: origin
with recursive given as materialized (
  select as_document($1, null::jsonb) as payload
), walk (filter_id, path, want, have) as (
  select f.id::bigint, '{}'::text[], f.criteria, g.payload from integration_filters f, given g where not g.payload @> f.criteria
  union all
  select w.filter_id, w.path || e.key, e.value, w.have -> e.key
    from walk w cross join lateral jsonb_each(case jsonb_typeof(w.want) when 'object' then w.want else '{}' end) e
   where jsonb_typeof(w.have) = 'object' and not w.have @> jsonb_build_object(e.key, e.value)
), missed as (
  select distinct on (filter_id) filter_id, path, want, have is not null as is_other
    from walk where path <> '{}' and (jsonb_typeof(want) <> 'object' or jsonb_typeof(have) is distinct from 'object')
   order by filter_id, path
)
select f.id::bigint, f.name::text, f.integration_id::bigint, i.name::text, f.enabled, coalesce(f.position, 0)::bigint, f.origin::text,
       f.criteria::text,
       case when i.id is null then 5 when not f.enabled then 1 when f.criteria is null then 2 when f.origin::text is distinct from $2
                 and f.origin is not null then 3 when f.criteria <> '{}' and not g.payload @> f.criteria then 4 else 0 end,
       array_to_string(m.path, '.'), m.want::text, coalesce(m.is_other, false)
  from integration_filters f cross join given g
  left join integrations i on i.id = f.integration_id
  left join missed m on m.filter_id = f.id
 order by f.position nulls last, f.id
