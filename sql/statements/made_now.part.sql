-- What the functions of a name, or a trigger ("NAME on TABLE"), are now: a checksum that a dump and an upgrade of the server leave as
-- it is; NULL = there is none. Of k.name. Of a trigger's condition neither casts nor quotes nor brackets count: they differ with the types of
-- columns, which an application may change, and with settings of the session.
select coalesce(
         (select md5(string_agg(f.made, ',' order by f.made))
            from pg_proc p join pg_language l on l.oid = p.prolang
           cross join lateral (select md5(concat_ws('|', p.prokind, l.lanname, p.prosecdef, p.proisstrict, p.provolatile, p.proparallel,
                                                    p.proretset, p.pronargs, p.pronargdefaults, p.proconfig::text, p.prosrc)) as made) f
           where p.proname = k.name
             and p.pronamespace = (select c.relnamespace from pg_class c where c.oid = 'anubis_migrations'::regclass)),
         (select md5(concat_ws('|', t.tgtype, p.proname, p.pronamespace = c.relnamespace,
                               (select string_agg(a.attname, ',' order by a.attname) from pg_attribute a
                                 where a.attrelid = c.oid and a.attnum = any (t.tgattr)),
                               regexp_replace(regexp_replace(substring(pg_get_triggerdef(t.oid) from ' WHEN \(.* EXECUTE '),
                                                             '::("[^"]*"|[a-z0-9_. ]|\[\])+(\([0-9, ]*\))?', '', 'g'), '[ "()]', '', 'g'),
                               t.tgnargs, t.tgoldtable, t.tgnewtable))
            from pg_class c join pg_trigger t on t.tgrelid = c.oid join pg_proc p on p.oid = t.tgfoid
           where t.tgname = split_part(k.name, ' on ', 1) and c.relname = split_part(k.name, ' on ', 2)
             and c.relnamespace = (select m.relnamespace from pg_class m where m.oid = 'anubis_migrations'::regclass))) as made
