-- Analytics: what an event adds to integration_stats. The consumer, "verify" and "replay" all go by the view stats_events.

-- The histogram index of a latency: the least i with usec <= 2^(i/32), so indexes grow by a factor of 2^(1/32) (base-2 exponential,
-- schema 5). Whole numbers only, so it is the same on every machine: the first list finds the power of two, the second one has the
-- least whole numbers above 2^(45 + k/32). 0 = at most a microsecond; 1440 = more than a year. NULL gives NULL. Not declared as strict,
-- with which no query takes the expression in, and each event would pay for two calls of a function in SQL: five times the expression.
create or replace function @extschema@.latency_index(usec bigint) returns smallint language sql immutable parallel safe as $$
    select case when usec <= 1 then 0
                when usec >= 35184372088832 then 1440
                else 32 * (width_bucket(usec,
                    '{1,2,4,8,16,32,64,128,256,512,1024,2048,4096,8192,16384,32768,65536,131072,262144,524288,1048576,2097152,4194304,
                    8388608,16777216,33554432,67108864,134217728,268435456,536870912,1073741824,2147483648,4294967296,8589934592,
                    17179869184,34359738368,68719476736,137438953472,274877906944,549755813888,1099511627776,2199023255552,
                    4398046511104,8796093022208,17592186044416,35184372088832}'::bigint[]) - 1)
                     + width_bucket(usec << (46 - width_bucket(usec,
                    '{1,2,4,8,16,32,64,128,256,512,1024,2048,4096,8192,16384,32768,65536,131072,262144,524288,1048576,2097152,4194304,
                    8388608,16777216,33554432,67108864,134217728,268435456,536870912,1073741824,2147483648,4294967296,8589934592,
                    17179869184,34359738368,68719476736,137438953472,274877906944,549755813888,1099511627776,2199023255552,
                    4398046511104,8796093022208,17592186044416,35184372088832}'::bigint[])),
                    '{35184372088833,35954809514763,36742117323539,37546664928439,38368829831843,39208997802356,40067563055813,
                    40944928440254,41841505624943,42757715293524,43693987341417,44650761077523,45628485430357,46627619158688,
                    47648631066793,48692000224428,49758216191608,50847779248319,51961200629252,53099002763677,54261719520578,
                    55449896459148,56664091084770,57904873110603,59172824724904,60468540864189,61792629492390,63145711886113,
                    64528422926154,65941411395383,67385340283170,68860887096459}'::bigint[]) end::smallint
$$;

-- The sum of two histograms; counts may be less than 0, and those that come to 0 go. One row, and declared as several, with which a
-- statement takes the query in: a call would plan it anew.
create or replace function @extschema@.histogram_add(index1 smallint[], count1 bigint[], index2 smallint[], count2 bigint[])
    returns table (indexes smallint[], counts bigint[]) language sql immutable parallel safe rows 1 as $$
    select coalesce(array_agg(i order by i), '{}'), coalesce(array_agg(n order by i), '{}')
      from (select x.i, sum(x.n)::bigint as n
              from (select * from unnest(index1, count1) union all select * from unnest(index2, count2)) x (i, n)
             group by 1 having sum(x.n) <> 0) y
$$;

-- The latency in ms that this share (0 to 1) of a histogram does not exceed: the middle of its index, 2 lu/(l+u), so that it is off by at
-- most 1.09 percent. NULL = the histogram is empty.
create or replace function @extschema@.histogram_ms(index smallint[], counts bigint[], share numeric) returns numeric
    language sql immutable parallel safe as $$
    select round((case min(i) when 0 then 0 else 2 * power(2::double precision, min(i) / 32.0::double precision)
                                                 / (1 + power(2::double precision, 1 / 32.0::double precision)) / 1000 end)::numeric, 3)
      from (select i, sum(n) over (order by i) as up_to, sum(n) over () as total from unnest(index, counts) as u (i, n)) x
     where up_to >= ceil(total * share)
$$;

-- From the ledger's row alone: the message only says that it may be counted.
create or replace view @extschema@.stats_events as
select e.id, e.event_type::text as event_type, e.integration_id::bigint as integration_id,
       date_trunc('hour', @extschema@.as_instant(e.created_at) at time zone 'UTC') as hour,
       (e.duration_ms is not null)::integer as attempts,
       @extschema@.latency_index(e.duration_ms::bigint * 1000) as http_index,
       @extschema@.latency_index((date_part('epoch', case when e.event_type = 'sent' then @extschema@.as_instant(e.created_at)
                                                              - e.subscription_created_at end) * 1000000)::bigint) as delivery_index
  from @extschema@.subscription_events e
 where e.event_type in ('created', 'sent', 'failed', 'retried') and e.integration_id is not null;
