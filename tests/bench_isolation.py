"""The benchmark's cases of bad institutions: what the good ones notice of them, and what one that is away for long gets."""
import threading
import time

from bench_measure import Row
from bench_tls import INSERT, NEIGHBOUR_GOAL, Neighbour, for_seconds, neighbour_rows
from harness.certificates import Certificates
from harness.institutions import Institutions
from harness.processes import wait_for

HEALTHY = 50
BAD_WAITING = 500   # rows of each bad one
SECONDS = 20
BURST_SECONDS = 3

DAEMONS = 3
SLOTS = 32          # of the institution that is away, together
THRESHOLD = 5
RECOVERY = 20       # seconds, without growing


def isolation_turn(bench):
    """Dead, silent, slow by 30 s, flooding with 429, and with a certificate that nobody trusts: all with rows that are due. The
    burst of their rows' own inserts is a figure apart: it is the machine that is busy then, whatever the institutions do."""
    app, _ = bench.fresh(integrations=0)
    untrusted = Institutions(count=False, name="untrusted", certificates=Certificates()).start()
    neighbour = Neighbour(app)
    healthy = [app.integration(bench.sink.url(f"/good/{n}")) for n in range(HEALTHY - 1)]
    bad = [app.integration(url) for url in (*map(bench.sink.url, ("/dead", "/silent", "/slow/30000", "/reject/429")),
                                            untrusted.url("/good"))]
    daemon = bench.daemon(app, delivery={"max_in_flight": 512, "max_in_flight_per_integration": 32},
                          retry={"base_delay": "1s", "max_delay": "1s", "max_attempts": 100},
                          circuit_breaker={"failure_threshold": THRESHOLD, "recovery_timeout": "30s"}).start()
    neighbour.warm(healthy)
    alone = neighbour.delays(for_seconds(SECONDS), healthy)
    threading.Thread(target=lambda: app.query(INSERT, (bad * BAD_WAITING,))).start()
    burst = neighbour.delays(for_seconds(BURST_SECONDS), healthy)
    beside = neighbour.delays(for_seconds(SECONDS), healthy)
    tried = dict(app.query("select integration_id, sum(attempts)::int from {s}.subscriptions where integration_id = any (%s) "
                           "group by 1", (bad,)))
    bench.prove(daemon, all_done=False)
    daemon.kill9()
    for part in (neighbour, untrusted):
        part.close()
    app.database.drop()
    return {"alone": alone, "burst": burst, "beside": beside, "attempts": [tried[i] for i in bad]}


def isolation(bench, turns):
    found = [isolation_turn(bench) for _ in range(turns)]
    alone = [t["alone"] for t in found]
    rows = neighbour_rows(f"{HEALTHY} healthy, 5 bad", alone, [t["beside"] for t in found])
    rows[1].goals = [("ratio", NEIGHBOUR_GOAL)]
    rows += neighbour_rows(f"the {5 * BAD_WAITING:,} rows of the bad ones arrive", alone, [t["burst"] for t in found])
    return {"turns": turns, "attempts: dead, silent, slow, 429, untrusted": [t["attempts"] for t in found], "table": rows}


def outage(bench, rows, seconds):
    """Three daemons; one institution with so many rows answers nothing but 503 for so long, then it takes all."""
    app, _ = bench.fresh(integrations=0)
    server = Institutions(name="away").start()
    path = "/dead/503"
    integration = app.integration(server.url(path), max_in_flight=SLOTS)
    app.query("insert into {s}.subscriptions (integration_id, payload) select %s, '{\"name\": \"Maria\"}' "
              "from generate_series(1, %s)", (integration, rows))
    app.query("analyze {s}.subscriptions")
    breaker = {"failure_threshold": THRESHOLD, "recovery_timeout": f"{RECOVERY}s", "max_recovery_timeout": f"{RECOVERY}s"}
    daemons = [bench.daemon(app, instance=f"outage{n}", circuit_breaker=breaker,
                            retry={"base_delay": "5s", "max_delay": "60s", "max_attempts": 100}).start() for n in range(DAEMONS)]
    wait_for(lambda: server.counts(path)["requests"] > 0, 60, "the first request")
    time.sleep(seconds)
    away, attempts = server.counts(path)["requests"], app.value("select max(attempts) from {s}.subscriptions")
    allowed = THRESHOLD + SLOTS + seconds // RECOVERY + 1
    server.become(path, "/good")
    started = time.monotonic()
    wait_for(lambda: server.counts(path)["requests"] > away, RECOVERY + 30, "the first one after it")
    first = time.monotonic()
    app.wait_states(sent=rows, deadline=600)
    took = time.monotonic() - first
    extra = server.counts(path)["requests"] - away - rows
    failed = app.value("select count(*) from {s}.subscriptions where status = 'failed'")
    bench.end(daemons.pop())
    for daemon in daemons:
        daemon.term()
    server.close()
    app.database.drop()
    return {"seconds away": seconds, "requests while it was away": away, "at most": allowed,
            "most attempts of a row meanwhile": attempts, "seconds until it was tried again": round(first - started, 1),
            "rows/s from then on": round(rows / took), "requests beyond one a row": extra, "failed": failed,
            "table": [Row(f"{rows:,} rows, away for {seconds} s, {DAEMONS} daemons: requests, at most {allowed}", away,
                          goals=[("first", allowed)])]}
