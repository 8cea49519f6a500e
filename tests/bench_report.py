"""The benchmark's case of "anubisctl report": a year of a thousand integrations."""
import time

from bench_measure import Row
from harness.anubis import Ctl

INTEGRATIONS = 1000
INDEXES = 40  # of each histogram
GOAL = 1      # s
# A year that begins where its month and its day have the most to add up.
BEGIN = "date_trunc('month', now() at time zone 'UTC' - interval '1 year') + interval '15 days 12 hours'"
STATS = """insert into {s}.integration_stats_spans (integration_id, span, bucket, created, sent, failed, retried, attempts,
                                                    delivery_index, delivery_count, http_index, http_count)
    select i, p.span, p.at at time zone 'UTC', p.hours * 100, p.hours * 90, p.hours * 10, p.hours * 5, p.hours * 105,
           h.indexes, h.counts, h.indexes, h.counts
      from generate_series(1, %s) i cross join lateral (
           select 'hour' as span, at, 1 as hours from generate_series(date_trunc('day', {b}), {b} + interval '1 day', '1 hour') at
           union all select 'hour', at, 1 from generate_series(date_trunc('day', {e}), {e}, '1 hour') at
           union all select 'day', at, 24 from generate_series(date_trunc('month', {b}), {e}, '1 day') at
           union all select 'month', at, 720 from generate_series(date_trunc('month', {b}), {e}, '1 month') at) p
      cross join lateral (select array_agg(x) as indexes, array_agg(p.hours * (1 + x * i %% 7)) as counts
                            from generate_series(300, 299 + %s) x) h"""


def report(bench, turns):
    app, _ = bench.fresh(0)
    for _ in range(INTEGRATIONS):
        app.integration("https://institution.example/")
    app.query(STATS.replace("{b}", f"({BEGIN})").replace("{e}", "(now() at time zone 'UTC')"), (INTEGRATIONS, INDEXES))
    app.query("vacuum analyze {s}.integration_stats_spans")
    since = app.value(f"select ({BEGIN})::text")
    ctl, seconds = Ctl(database=app.database), []
    for _ in range(turns):
        started = time.monotonic()
        found = ctl("report", "--since", since, "--json", deadline=120).expect(0).json
        seconds.append(time.monotonic() - started)
        assert len(found["integrations"]) == INTEGRATIONS, found["total"]
    app.database.drop()
    return {"integrations": INTEGRATIONS, "turns": turns, "table": [
        Row.of_turns("s of a report of a year", seconds, goals=[("first", GOAL)])]}
