"""The benchmark's cases of many institutions over TLS: what a connection costs, in CPU and in memory, and what a neighbour in
clear text notices of it."""
import threading
import time

from bench_measure import Row, cpu_of, percentile
from harness.certificates import Certificates
from harness.institutions import Institutions
from harness.processes import wait_for
from harness.toxic import Proxy

CONNECTION_GOAL = 3    # ms of the daemon's CPU for a new connection over TLS, its delivery included
NEIGHBOUR_PER_SECOND = 100
NEIGHBOUR_GOAL = 1.1
ALONE_SECONDS = 10
HEALTHY = 12
HEALTHY_PER_SECOND = 10  # each
BAD_WAITING = 200        # rows of each bad one
BAD_TIMEOUT_MS = 2000
IN_FLIGHT = 512
INSERT = "insert into anubis.subscriptions (integration_id, payload) select unnest(%s), '{\"name\": \"Maria\", \"course\": 7}'"


class Neighbour:
    """An institution in clear text that gets a row at a fixed rate, and the time from each row's insert to its request. When
    this machine is too busy to insert in time, that is not the daemon's delay."""

    def __init__(self, app):
        self.app = app
        self.server = Institutions(name="neighbour").start()
        self.integration = app.integration(self.server.url("/good/neighbour"))

    def warm(self, others):
        self.app.query(INSERT, ([self.integration, *others],))
        self.app.wait_states(sent=1 + len(others))

    def delays(self, goes_on, others=()):
        """While goes_on() is true, which is asked now and then. Others get HEALTHY_PER_SECOND rows each meanwhile."""
        self.server.reset_counts()
        connection, stamps, start = self.app.database.connect(), [], time.time() + 0.05
        with connection.cursor() as cursor:
            while len(stamps) % 20 or goes_on():
                due = start + len(stamps) / NEIGHBOUR_PER_SECOND
                time.sleep(max(0, due - time.time()))
                also = others if len(stamps) % (NEIGHBOUR_PER_SECOND // HEALTHY_PER_SECOND) == 0 else []
                stamps.append(time.time())
                cursor.execute(INSERT, ([self.integration, *also],))
        connection.close()
        wait_for(lambda: len(self.server.keys()) >= len(stamps), 60, "the neighbour's requests")
        received = sorted(key.first_usec / 1e6 for key in self.server.keys().values())
        return [(r - s) * 1000 for r, s in zip(received, stamps)]

    def close(self):
        self.server.close()


def for_seconds(seconds):
    end = time.monotonic() + seconds
    return lambda: time.monotonic() < end


def neighbour_rows(case, alone, beside):
    """Rows of the table from a turn's delays each."""
    return [Row.of_turns(f"{case}: neighbour's p{p} in ms, alone → meanwhile", [percentile(t, p) for t in alone],
                         [percentile(t, p) for t in beside]) for p in (50, 99)]


# --- a thousand institutions ---


def institutions_turn(bench, count):
    """All of them get their first row at once: as many connections and whole handshakes."""
    app, _ = bench.fresh(integrations=0)
    servers = Institutions(count=False, name="many", certificates=bench.certificates, more_ports=count).start()
    neighbour = Neighbour(app)
    ids = [app.integration(servers.url("/good", port)) for port in servers.ports]
    daemon = bench.daemon(app, delivery={"max_in_flight": IN_FLIGHT, "max_in_flight_per_integration": 32}).start()
    neighbour.warm([])
    first, started = cpu_of(daemon.pid), time.monotonic()
    alone = neighbour.delays(for_seconds(ALONE_SECONDS))
    of_neighbour = (cpu_of(daemon.pid) - first) / (time.monotonic() - started)

    def sent():
        return app.value("select count(*) from {s}.subscriptions where status = 'sent' and integration_id <> %s",
                         (neighbour.integration,))
    before, started = cpu_of(daemon.pid), time.monotonic()
    threading.Thread(target=lambda: app.query(INSERT, (ids,))).start()
    beside = neighbour.delays(lambda: sent() < count)
    seconds = time.monotonic() - started
    used = cpu_of(daemon.pid) - before - of_neighbour * seconds
    bench.end(daemon)
    neighbour.close()
    servers.close()
    app.database.drop()
    return {"ms of CPU a connection": used / count * 1000, "seconds": seconds, "alone": alone, "beside": beside}


def institutions(bench, count, turns):
    found = [institutions_turn(bench, count) for _ in range(turns)]
    table = [Row.of_turns(f"{count:,} institutions over TLS: ms of the daemon's CPU a new connection",
                          [t["ms of CPU a connection"] for t in found], goals=[("first", CONNECTION_GOAL)]),
             *neighbour_rows(f"{count:,} institutions", [t["alone"] for t in found], [t["beside"] for t in found])]
    return {"turns": turns, "seconds until all had their row": [round(t["seconds"], 1) for t in found],
            "neighbour's rows, alone and meanwhile": [(len(t["alone"]), len(t["beside"])) for t in found], "table": table}


# --- two bad ones among twelve ---


def bad_turn(bench, threshold):
    """A certificate that nobody trusts, and a server that accepts and says nothing; both with rows that are due each second."""
    app, _ = bench.fresh(integrations=0)
    untrusted = Institutions(count=False, name="untrusted", certificates=Certificates()).start()
    mute = Proxy(("127.0.0.1", bench.sink.port))
    mute.stall()
    neighbour = Neighbour(app)
    healthy = [app.integration(bench.sinks["https"].url(f"/good/{n}")) for n in range(HEALTHY)]
    bad = [app.integration(untrusted.url("/good")),
           app.integration(f"https://{mute.address}/", timeout_ms=BAD_TIMEOUT_MS)]
    daemon = bench.daemon(app, delivery={"max_in_flight": IN_FLIGHT, "max_in_flight_per_integration": 32},
                          retry={"base_delay": "1s", "max_delay": "1s", "max_attempts": 1000},
                          circuit_breaker={"failure_threshold": threshold}).start()
    neighbour.warm(healthy)
    alone = neighbour.delays(for_seconds(ALONE_SECONDS), healthy)
    app.query(INSERT, (bad * BAD_WAITING,))
    beside = neighbour.delays(for_seconds(ALONE_SECONDS), healthy)
    tried = app.query("select sum(attempts)::int from {s}.subscriptions where integration_id = any (%s) "
                      "group by integration_id order by integration_id", (bad,))
    bench.end(daemon, all_done=False)
    for part in (neighbour, mute, untrusted):
        part.close()
    app.database.drop()
    return {"alone": alone, "beside": beside, "attempts": [row[0] for row in tried]}


def bad(bench, turns):
    """With circuits as they are by default, and with none that opens: then each second brings the handshakes of all rows."""
    cases = {f"{HEALTHY} healthy, 2 bad": (5, []), "the same without circuits": (100000, [])}
    for _ in range(turns):
        for threshold, found in cases.values():
            found.append(bad_turn(bench, threshold))
    table = []
    for case, (_, found) in cases.items():
        table += neighbour_rows(case, [t["alone"] for t in found], [t["beside"] for t in found])
    table[1].goals = [("ratio", NEIGHBOUR_GOAL)]
    return {"turns": turns, "table": table, "attempts with the bad certificate and the one that hangs":
            {case: [t["attempts"] for t in found] for case, (_, found) in cases.items()}}


# --- memory of what is in flight ---


def held(bench, scheme):
    """KiB that a request in flight takes, its connection and its row included."""
    app, _ = bench.fresh(integrations=0)
    server = bench.sinks[scheme]
    warm, wanted = app.integration(server.url("/good")), app.integration(server.url("/silent"))
    # One institution may not have the last quarter of the slots.
    daemon = bench.daemon(app, delivery={"max_in_flight": 2 * IN_FLIGHT, "max_in_flight_per_integration": IN_FLIGHT},
                          consumers={"integration": False}).start()
    app.query(INSERT, ([warm] * 20,))
    app.wait_states(sent=20)
    before, requests = daemon.child.rss_kib(), server.counts("/silent")["requests"]
    app.query(INSERT, ([wanted] * IN_FLIGHT,))
    wait_for(lambda: server.counts("/silent")["requests"] >= requests + IN_FLIGHT, 60, f"{IN_FLIGHT} in flight")
    after = daemon.child.rss_kib()
    daemon.kill9()
    app.database.drop()
    return (after - before) / IN_FLIGHT, after / 1024


def memory(bench):
    plain, tls = held(bench, "http"), held(bench, "https")
    return [Row(f"{IN_FLIGHT} in flight: KiB of RSS each, HTTP → HTTPS", plain[0], tls[0]),
            Row(f"{IN_FLIGHT} in flight: MiB of RSS of the daemon", plain[1], tls[1])]
