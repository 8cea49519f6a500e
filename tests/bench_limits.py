"""The benchmark's cases of limits and filters: how much of a rate_limit is used, and how soon waiting rows find a new filter."""
import time

from bench_measure import Row
from harness.institutions import Institutions
from harness.processes import wait_for

RATES = ((5, 100, 2), (50, 1000, 3), (500, 10000, 3))  # a second, rows, daemons
USED_GOAL = -0.98
UNROUTED = 100000
ROUTED_GOAL = 10  # seconds


def used(bench, rate, rows, daemons):
    """The share of the rate that reaches the institution between the first and the last of so many waiting rows."""
    app, _ = bench.fresh(integrations=0)
    server = Institutions(name="limited").start()
    integration = app.integration(server.url("/good"), rate_limit=rate, max_in_flight=400)
    app.subscriptions(integration, rows)
    running = [bench.daemon(app, instance=f"limited{n}").start() for n in range(daemons)]
    app.wait_states(sent=rows, deadline=300)
    times = sorted(key.first_usec / 1e6 for key in server.keys("/good").values())
    bench.end(running.pop())
    for daemon in running:
        daemon.term()
    server.close()
    app.database.drop()
    return (rows - 1) / (times[-1] - times[0]) / rate


def rate(bench, turns):
    return {"turns": turns, "table": [
        Row.of_turns(f"share of {wanted} a second that arrives, {daemons} daemons",
                     [used(bench, wanted, rows, daemons) for _ in range(turns)], None, [("first", USED_GOAL)])
        for wanted, rows, daemons in RATES]}


def routed(bench):
    """Seconds from a filter's insert until none of the rows that it takes waits any longer."""
    app, _ = bench.fresh(integrations=0)
    integration = app.integration(bench.sink.url("/good"), paused_until="infinity")
    app.query("insert into {s}.subscriptions (payload) select jsonb_build_object('course', 'law', 'n', n) "
              "from generate_series(1, %s) n", (UNROUTED,))
    daemon = bench.daemon(app).start()
    wait_for(lambda: app.value("select count(*) from pg_stat_activity where application_name = 'anubisd monitor'"), 30,
             "the monitor")
    started = time.monotonic()
    app.query("insert into {s}.integration_filters (integration_id, criteria) values (%s, '{\"course\": \"law\"}')",
              (integration,))
    wait_for(lambda: not app.value("select count(*) from {s}.subscriptions where integration_id is null"), 300,
             "all to be routed", interval=0.1)
    seconds = time.monotonic() - started
    bench.end(daemon, all_done=False)
    app.database.drop()
    return seconds


def filters(bench, turns):
    return {"turns": turns, "table": [Row.of_turns(f"seconds until {UNROUTED:,} waiting rows have found a new filter",
                                                   [routed(bench) for _ in range(turns)], None, [("first", ROUTED_GOAL)])]}
