-- Counts what institutions refused and took, see refusals_judged(): integration, fingerprint, turn, how many refusals of these may fail,
-- the turn that begins with a pause, and whether counting more is in vain. Daemons lock integrations in the order of their ids.
-- $1 bigint[]: integrations; one with several requests has them in their order
-- $2 bigint[]: their fingerprints when the requests were made
-- $3 bigint[]: their turns when the rows were claimed
-- $4 boolean[]: whether it took the subscription
-- $5 bigint[]: for how long this daemon has not seen it take one, in us; NULL = it never has
-- $6 text: why it is paused
select e.id, e.fingerprint, e.turn, j.may_fail::bigint, coalesce(j.paused_turn, 0), j.vain
  from (select id, fingerprint, turn, array_agg(taken order by number) as taken, min(usec) as usec
          from unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::boolean[], $5::bigint[]) with ordinality
                      as u (id, fingerprint, turn, taken, usec, number)
         group by 1, 2, 3 order by 1, 3, 2) e
 cross join lateral refusals_judged(e.id, e.fingerprint, e.turn, e.taken, e.usec, $6) j
