-- What an application has put on its column "status" that does not let every state in.

-- A line for each, with what would be right. Of subscriptions; also before an adoption, in the migrating session alone.
create or replace function @extschema@.states_refused(subscriptions regclass) returns setof text language plpgsql stable
    set search_path = pg_catalog, pg_temp as $$
declare
    states constant text[] := '{pending,processing,sent,failed,retry}';
    k record;
    refused text;
begin
    for k in select c.conname, c.contype, pg_get_expr(c.conbin, c.conrelid) as condition, format_type(a.atttypid, null) as type,
                    c.confrelid::regclass as target, f.attname as target_column
               from pg_constraint c join pg_attribute a on a.attrelid = c.conrelid and c.conkey = array[a.attnum] and a.attname = 'status'
               left join pg_attribute f on f.attrelid = c.confrelid and f.attnum = c.confkey[1]
              where c.conrelid = subscriptions
                and (c.contype = 'c' or c.contype = 'f' and has_table_privilege(c.confrelid, 'select')) loop
        if k.contype = 'c' then
            execute format('select string_agg(quote_literal(status), '', '') from (select unnest(%L::%s[]) as status) s where not (%s)',
                           states, k.type, k.condition) into refused;
        else
            execute format('select string_agg(quote_literal(s), '', '') from unnest(%L::text[]) s where not exists (select from %s where %I::text = s)',
                           states, k.target, k.target_column) into refused;
        end if;
        if refused is not null and k.contype = 'c' then
            return next format('constraint "%s" of table "subscriptions" refuses the status %s: drop it (anubisd brings its own) or let it pass',
                               k.conname, refused);
        elsif refused is not null then
            return next format('constraint "%s" of table "subscriptions" refuses the status %s, which table %s does not have: add it there, or '
                               'drop the constraint', k.conname, refused, k.target);
        end if;
    end loop;
    for k in select pg_get_expr(d.adbin, d.adrelid) as value from pg_attrdef d join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
              where d.adrelid = subscriptions and a.attname = 'status' and a.attgenerated = '' loop
        execute format('select (%s)::text', k.value) into refused;
        if refused <> all (states) then
            return next format('the default of column "status" of table "subscriptions" is "%s", which is none of the states: run "alter table '
                               'subscriptions alter status set default ''pending''"', refused);
        end if;
    end loop;
end $$;
