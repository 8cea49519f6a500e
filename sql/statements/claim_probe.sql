-- Claims one due row of each integration whose open circuit may be probed: the probe is taken with it. See claim.sql for the
-- rows, and circuit_next() for the circuit. The row of the circuit is locked, so that of all daemons one takes the probe.
-- include: claim_parameters.part.sql
-- include: claim_probe_chosen.part.sql
-- include: claim_find.part.sql
, probes as (
  update integration_runtime r set rate_at = coalesce(f.send_at, r.rate_at), rate_by = case when f.rate is null then r.rate_by else $20 end,
         (circuit_state, circuit_generation, circuit_until) =
         (select n.circuit_state, n.circuit_generation, n.circuit_until
            from circuit_next(r, 'probe', null, null, now(), null, null, $21 * interval '1 ms',
                              greatest($9, f.timeout_ms + $11) * interval '1 ms') n)
    from found f where r.integration_id = f.integration_id and r.circuit_generation + 1 = f.generation
  returning r.integration_id, r.circuit_generation
), within as (
  select f.* from found f join probes p on p.integration_id = f.integration_id and p.circuit_generation = f.generation
)
-- include: claim_take.part.sql
