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
