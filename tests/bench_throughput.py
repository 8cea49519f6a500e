"""The benchmark's throughput: waiting rows through everything, over HTTP and HTTPS in turn; and the peer's."""
import resource
import statistics
import sys
import time

import bench_peer
from bench_measure import Row, by_name, cpu_by_thread, cpu_of, cpu_of_thread, cpu_of_tree, peak_rss_kib
from harness.anubis import Ctl
from harness.processes import Child, wait_for

SCHEMES = ("http", "https")
IN_FLIGHT = (512, 64)
WARM_ROWS = 40000   # of the run before the first one
WARM_PART = 0.2     # of a run's rows, after which connections are kept
ALL_SENT = """select not exists (select from {s}.subscriptions where status in ('pending', 'retry') and held_at is null)
    and not exists (select from {s}.subscriptions where status = 'processing')"""
RATIO_GOAL = -0.85             # HTTPS to HTTP, at least
MAIN_GOALS = [("first", 28), ("second", 40)]  # µs of the main thread


class Warm:
    """Rate and main thread from when a part of the rows is sent until all are: connections are kept by then, and neither the
    start nor the handshakes count."""

    def __init__(self, app, pid, rows):
        self.app, self.pid, self.rows = app, pid, rows
        self.first = self.last = None

    def _now(self, sent):
        return sent, time.monotonic(), cpu_of_thread(self.pid, self.pid)

    def look(self):
        """True when all are sent."""
        if self.last:
            return True
        if not self.first:
            sent = self.app.value("select count(*) from {s}.subscriptions where status = 'sent'")
            if sent >= self.rows * WARM_PART:
                self.first = self._now(sent)
        elif self.app.value(ALL_SENT):
            self.last = self._now(self.rows)
        return bool(self.last)

    def found(self):
        sent, seconds, cpu = (b - a for a, b in zip(self.first, self.last))
        assert sent > 0, "all rows were sent between two looks: more rows are needed"
        return {"warm: sent/s": sent / seconds, "warm: µs of the main thread": cpu / sent * 1e6}


def once(bench, rows, scheme, in_flight):
    """From the daemon's start until all is sent and counted."""
    app, ids = bench.fresh(scheme=scheme)
    bench.fill(app, rows)
    daemon = bench.daemon(app, delivery={"max_in_flight": in_flight, "max_in_flight_per_integration": in_flight // len(ids)})
    parts = {"postgres": bench.server.child.pid, "kafka": bench.kafka.child.pid, "institution": bench.sinks[scheme].child.pid}
    wal = app.value("select pg_current_wal_lsn()")
    before = {name: cpu_of_tree(pid) for name, pid in parts.items()}
    started = time.monotonic()
    daemon.start()
    warm = Warm(app, daemon.pid, rows)
    wait_for(lambda: warm.look() and app.value("select sum(sent) from {s}.integration_runtime") == rows, 600,
             "all to be sent and counted", interval=0.1)
    seconds = time.monotonic() - started
    cpu = {name: (cpu_of_tree(pid) - before[name]) / rows * 1e6 for name, pid in parts.items()}
    cpu["anubisd"] = cpu_of(daemon.pid) / rows * 1e6
    threads = {name: used / rows * 1e6 for name, used in by_name(cpu_by_thread(daemon.pid)).items()}
    wal_bytes = app.value("select pg_current_wal_lsn() - %s::pg_lsn", (wal,))
    found = {"subscriptions/s": rows / seconds, **warm.found(), "CPU µs a subscription": cpu, "anubisd by thread": threads,
             "WAL bytes a subscription": float(wal_bytes) / rows, "peak RSS MiB": peak_rss_kib(daemon.pid) / 1024}
    verify = Ctl(daemon.settings)("verify", deadline=600)
    assert verify.code == 0, verify.stdout + verify.stderr
    daemon.term()
    app.database.drop()
    return found


def medians(turns):
    """Of dicts of numbers and of further such dicts."""
    return {key: medians([t.get(key, {}) for t in turns]) if isinstance(value, dict)
            else statistics.median(t.get(key, 0) for t in turns) for key, value in turns[0].items()}


def order(turn):
    """HTTP and HTTPS, many and few in flight; every other turn the other way round, as machines get slower or faster."""
    cases = [(scheme, in_flight) for in_flight in IN_FLIGHT for scheme in SCHEMES]
    return cases if turn % 2 == 0 else cases[::-1]


def throughput(bench, rows, turns):
    if not bench.warm:  # a broker whose code is not yet compiled takes several times the CPU
        bench.warm = True
        once(bench, WARM_ROWS, "https", IN_FLIGHT[0])
    found = {}
    for turn in range(turns):
        for case in order(turn):
            found.setdefault(case, []).append(once(bench, rows, *case))
    rows_of_table = []
    for in_flight in IN_FLIGHT:
        plain, tls = (found[scheme, in_flight] for scheme in SCHEMES)

        def row(name, value, goals=(), plain=plain, tls=tls, in_flight=in_flight):
            rows_of_table.append(Row.of_turns(f"{in_flight} in flight: {name}", list(map(value, plain)), list(map(value, tls)),
                                              goals))
        row("subscriptions/s, HTTP → HTTPS", lambda t: t["subscriptions/s"], [("ratio", RATIO_GOAL)])
        row("sent/s, connections kept", lambda t: t["warm: sent/s"], [("ratio", RATIO_GOAL)])
        row("µs of the main thread, connections kept", lambda t: t["warm: µs of the main thread"], MAIN_GOALS)
        row("µs of the main thread, all", lambda t: t["anubisd by thread"]["main"])
        row("µs of anubisd", lambda t: t["CPU µs a subscription"]["anubisd"])
        row("µs of the institution", lambda t: t["CPU µs a subscription"]["institution"])
    bench.rates = {scheme: statistics.median(t["subscriptions/s"] for t in found[scheme, IN_FLIGHT[0]]) for scheme in SCHEMES}
    return {"rows": rows, "turns": turns, "table": rows_of_table,
            **{f"{scheme}, {in_flight} in flight": medians(values) for (scheme, in_flight), values in found.items()}}


def peer_once(bench, rows, scheme):
    """The same work by the design that anubisd replaces: see bench_peer. Its rate and its CPU a subscription."""
    bench.number += 1
    prefix = f"bench{bench.number}."
    database = bench.server.create_database(f"bench{bench.number}")
    database.query(bench_peer.SCHEMA)
    for n in range(bench.INTEGRATIONS):
        database.query("insert into integrations (name, endpoint_url) values ('peer', %s)",
                       (bench.sinks[scheme].url(f"/good/{n}"),))
    database.query(bench.WAITING_ROWS.replace("TABLE", "subscriptions"), (bench.INTEGRATIONS, rows))
    database.query("analyze")
    bench.kafka.create_anubis_topics(prefix)
    worker = Child([sys.executable, bench_peer.__file__, "--conninfo", database.conninfo(), "--brokers", bench.kafka.bootstrap,
                    "--prefix", prefix, "--rows", rows, "--ca-file", bench.certificates.root])
    started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    worker.start()
    wait_for(lambda: not worker.is_running(), 600, "the peer to be done", interval=0.1)
    seconds = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    counted = database.value("select sum(successful_sends) from integrations")
    assert counted == rows, f"the peer counted {counted} of {rows}: {worker.output}"
    database.drop()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return rows / seconds, cpu / rows * 1e6


def peer(bench, rows):
    found = {scheme: peer_once(bench, rows, scheme) for scheme in SCHEMES}
    table = [Row("peer: subscriptions/s, HTTP → HTTPS", found["http"][0], found["https"][0]),
             Row("peer: its CPU µs a subscription", found["http"][1], found["https"][1])]
    for scheme, rate in bench.rates.items():
        table.append(Row(f"subscriptions/s over {scheme}, the peer → anubisd", found[scheme][0], rate))
    return {"rows": rows, "table": table}
