"""The benchmark's case of late confirmations: how soon they are found among so many that are expected."""
import time

from bench_measure import Row, cpu_by_thread
from harness.processes import wait_for

AT_ONCE = 10000
GOAL = 5  # s
EXPECTED = """insert into {s}.confirmations (subscription_id, integration_id, expected_by)
    select n, %s, now() + interval '1 day' + n * interval '10 ms' from generate_series(1, %s) n"""


def found_after(app, numbers):
    """Seconds from the time by which they were to be confirmed until the last of them is overdue."""
    due = app.value("update {s}.confirmations set expected_by = t.at from (select clock_timestamp() + interval '3 s' as at) t "
                    "where subscription_id between %s and %s returning extract(epoch from t.at)::float8", numbers)
    wait_for(lambda: not app.value("select count(*) from {s}.confirmations where subscription_id between %s and %s "
                                   "and status = 'expected'", numbers), 120, "them to be found", interval=0.02)
    return app.value("select extract(epoch from clock_timestamp())::float8") - due


def overdue(bench, rows, turns):
    app, ids = bench.fresh(1)
    app.query("update {s}.integrations set delivery_settings = '{\"confirmation\": {\"within\": \"2d\"}}'")
    app.query(EXPECTED, (ids[0], rows))
    app.query("vacuum analyze {s}.confirmations")
    daemon = bench.daemon(app).start()
    one, many = [], []
    for turn in range(turns):
        one.append(found_after(app, (turn + 1, turn + 1)))
        first = rows - (turn + 1) * AT_ONCE + 1
        many.append(found_after(app, (first, first + AT_ONCE - 1)))
    before, started = cpu_by_thread(daemon.pid), time.monotonic()
    wait_for(lambda: time.monotonic() - started > 10, 30, "ten seconds without a late one")
    used = sum(v - before.get(k, 0) for k, v in cpu_by_thread(daemon.pid).items() if k.startswith("monitor/"))
    assert app.value("select count(*) from {s}.confirmations where status = 'overdue'") == turns * (AT_ONCE + 1)
    daemon.term()
    app.database.drop()
    return {"rows expected": rows, "turns": turns, "monitor's CPU, ms/s, when none is late": round(used * 100, 2), "table": [
        Row.of_turns(f"s until a late confirmation of {rows:,} is found", one, goals=[("first", GOAL)]),
        Row.of_turns(f"s until {AT_ONCE:,} that are late at once are found", many, goals=[("first", GOAL)])]}
