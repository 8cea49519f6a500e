-- Functions and triggers that are not as "anubisctl migrate" made them, as after a restore of functions, and what would be right; NULL =
-- all are. Not a function: it would be restored with the others. A trigger that is missing is named by triggers_amiss(). A column that was
-- renamed is in the triggers under its other name, and named by columns_amiss(): "migrate" could not help.
select format('changes may leave no trace: %s%s; run "anubisctl migrate", which brings back how they were made, and then '
              '"anubisctl verify"',
              string_agg(a.words, ', ' order by a.words) filter (where a.number <= 5),
              case when count(*) > 5 then format(' and %s more', count(*) - 5) end)
  from (select format(case when k.name like '% on %' then 'trigger %s (changed)' when n.made is null then 'function %s() (missing)'
                           else 'function %s() (changed)' end, k.name) as words, row_number() over (order by k.name) as number
          from anubis_migrations m cross join jsonb_each(m.made) as k (name, value)
         cross join lateral (
-- include: made_now.part.sql
         ) n
         where m.version = 0 and n.made is distinct from k.value ->> 'made' and (n.made is not null or k.name not like '% on %')) a
having count(*) > 0 and columns_amiss() is null
