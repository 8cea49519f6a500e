-- Notes what came of requests to integrations: each one's id, its circuit's state before and after, why it is open, when its
-- next probe is due, for how long it was open (ms), the integration's name, and why it was open before. No state where the endpoint or the token was changed
-- since. Daemons lock circuits in the order of their ids.
-- $1 bigint[]: integrations; one with several events has them in their order
-- $2 bigint[]: their fingerprints when the requests were made
-- $3 text[]: events, see circuit_next()
-- $4 bigint[]: generations of the circuits when the rows were claimed
-- $5 integer[]: failures in a row
-- $6 integer: failures that open a circuit
-- $7 bigint: how long the first wait is, in ms
-- $8 bigint: the longest one
-- $9 boolean: whether circuits that somebody else has locked are left out, with all their events
-- $10 text[]: why no request could be made; "" = one was made
-- $11 integer[]: 1 = because of a credential of our own, else 0
with free as materialized (
  select integration_id from integration_runtime where $9 and integration_id = any ($1) for no key update skip locked
)
select e.id, n.state_before, n.state, n.reason, n.wait_ms, n.lasted_ms,
       (select left(i.name::text, 100) from integrations i where i.id = e.id), n.reason_before
  from (select * from unnest($1::bigint[], $2::bigint[], $3::text[], $4::bigint[], $5::integer[], $10::text[], $11::integer[]) with ordinality
                      as u (id, fingerprint, event, generation, failures, why, ours, number) order by id, number) e
 cross join lateral circuit_note(e.id, e.fingerprint, e.event, e.generation, e.failures, $6, $7 * interval '1 ms',
                                 $8 * interval '1 ms', nullif(e.why, ''), e.ours = 1) n
 where not $9 or e.id in (select f.integration_id from free f)
    or not exists (select from integration_runtime r where r.integration_id = e.id)
