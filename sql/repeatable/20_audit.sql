-- The audit log's marks: consumer_bitmaps of the read model "monitoring". A leaf and its mark come in one transaction.

-- Takes away the marks of events whose leaves are gone, as when the log's tables come from another time than the marks: what Kafka has of
-- them is added again when it is read again. How many. Only chunks are looked into that have more marks than leaves.
create or replace function @extschema@.audit_unmark() returns bigint language plpgsql
    set search_path = pg_catalog, pg_temp as $$
declare
    lost record;
    cleared bytea;
    n integer;
    total bigint := 0;
begin
    for lost in
        with marked as (
          select b.event_type, b.chunk, sum(length(replace(('x' || encode(b.bits, 'hex'))::bit(8192)::text, '0', ''))) as n
            from @extschema@.consumer_bitmaps b where b.read_model = 'monitoring' group by 1, 2
        ), logged as (
          select l.event_type, l.sequence / 8192 as chunk, count(distinct l.sequence) as n from @extschema@.audit_log l group by 1, 2
        ), short as materialized (
          select m.event_type, m.chunk from marked m left join logged l using (event_type, chunk) where m.n > coalesce(l.n, 0)
        )
        select b.event_type, b.partition, b.chunk, array_agg(g.n) as ids
          from short s join @extschema@.consumer_bitmaps b using (event_type, chunk) cross join generate_series(0, 8191) as g (n)
         where b.read_model = 'monitoring' and get_bit(b.bits, g.n) = 1
           and not exists (select from @extschema@.audit_log l
                            where l.event_type = b.event_type and l.sequence = b.chunk * 8192 + g.n)
         group by 1, 2, 3
    loop
        select b.bits into cleared from @extschema@.consumer_bitmaps b
         where b.read_model = 'monitoring' and b.event_type = lost.event_type and b.partition = lost.partition and b.chunk = lost.chunk
           for update;
        foreach n in array lost.ids loop
            cleared := set_bit(cleared, n, 0);
        end loop;
        update @extschema@.consumer_bitmaps b set bits = cleared, version = b.version + 1
         where b.read_model = 'monitoring' and b.event_type = lost.event_type and b.partition = lost.partition and b.chunk = lost.chunk;
        total := total + cardinality(lost.ids);
    end loop;
    return total;
end $$;

-- Marks the events that have a leaf and no mark, as when marks were emptied, or come from another time than the log: what comes again would
-- be a second leaf. How many.
create or replace function @extschema@.audit_mark() returns bigint language plpgsql
    set search_path = pg_catalog, pg_temp as $$
declare
    lacks record;
    marked bytea;
    n integer;
    total bigint := 0;
begin
    for lacks in
        with chunks as materialized (
          select b.event_type, b.chunk, bit_or(('x' || encode(b.bits, 'hex'))::bit(8192)) as bits
            from @extschema@.consumer_bitmaps b where b.read_model = 'monitoring' group by 1, 2
        )
        select l.event_type, t.partition, l.sequence / 8192 as chunk, array_agg(distinct (l.sequence % 8192)::integer) as ids
          from @extschema@.audit_log l join @extschema@.audit_trees t on t.id = l.tree
          left join chunks c on c.event_type = l.event_type and c.chunk = l.sequence / 8192
         where l.sequence > 0 and coalesce(get_bit(c.bits, (l.sequence % 8192)::integer # 7), 0) = 0
         group by 1, 2, 3 order by 1, 2, 3
    loop
        insert into @extschema@.consumer_bitmaps as b (read_model, event_type, partition, chunk, bits)
        values ('monitoring', lacks.event_type, lacks.partition, lacks.chunk, decode(repeat('00', 1024), 'hex'))
            on conflict (read_model, event_type, partition, chunk) do update set version = b.version + 1
        returning b.bits into marked;
        foreach n in array lacks.ids loop
            marked := set_bit(marked, n, 1);
        end loop;
        update @extschema@.consumer_bitmaps b set bits = marked
         where b.read_model = 'monitoring' and b.event_type = lacks.event_type and b.partition = lacks.partition and b.chunk = lacks.chunk;
        total := total + cardinality(lacks.ids);
    end loop;
    return total;
end $$;

-- The root of a full subtree, from the hashes of its leaves or of smaller ones; as many as a power of two. RFC 9162, section 2.1.
create or replace function @extschema@.audit_fold(hashes bytea[]) returns bytea language plpgsql immutable
    set search_path = pg_catalog, pg_temp as $$
begin
    while cardinality(hashes) > 1 loop
        hashes := array(select sha256(E'\\001'::bytea || hashes[2 * n - 1] || hashes[2 * n]) from generate_series(1, cardinality(hashes) / 2) as n order by n);
    end loop;
    return hashes[1];
end $$;

-- The root of the subtree of 2^height leaves with this number, from the hashes of leaves or tiles that are stored.
create or replace function @extschema@.audit_hash(tree integer, height integer, number bigint) returns bytea language plpgsql stable
    set search_path = pg_catalog, pg_temp as $$
declare
    below constant integer := greatest(height - 1, 0) / 8;
    beginning constant bigint := number << height - 8 * below;
    ending constant bigint := number + 1 << height - 8 * below;
begin
    if below = 0 then
        return @extschema@.audit_fold(array(select l.hash from @extschema@.audit_log l
                                             where l.tree = audit_hash.tree and l.leaf >= beginning and l.leaf < ending order by l.leaf));
    end if;
    return @extschema@.audit_fold(array(select a.hash from @extschema@.audit_tiles a
                                         where a.tree = audit_hash.tree and a.level = below and a.tile >= beginning and a.tile < ending
                                         order by a.tile));
end $$;

-- Makes tiles and roots anew from the hashes of the leaves, where somebody has changed them. Trees keep their sizes.
create or replace function @extschema@.audit_tiles_make() returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    lock table @extschema@.audit_trees in share row exclusive mode;
    delete from @extschema@.audit_tiles;
    for n in 1..7 loop
        insert into @extschema@.audit_tiles (tree, level, tile, hash)
        select t.id, n, i.tile, @extschema@.audit_hash(t.id, 8 * n, i.tile)
          from @extschema@.audit_trees t cross join lateral generate_series(0, (t.size >> 8 * n) - 1) as i (tile);
        exit when not found;
    end loop;
    update @extschema@.audit_trees t
       set roots = coalesce((select string_agg(@extschema@.audit_hash(t.id, b, (t.size >> b) - 1), '' order by b desc)
                               from generate_series(0, 62) as b where (t.size >> b) & 1 = 1), '');
end $$;
revoke execute on function @extschema@.audit_tiles_make() from public;
