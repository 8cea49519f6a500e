"""The benchmark's throughput: waiting rows through everything, over HTTP and HTTPS in turn; and races against peers."""
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import time

import bench_peer
from bench_measure import Row, by_name, cpu_by_thread, cpu_of, cpu_of_thread, cpu_of_tree, peak_rss_kib
from harness.anubis import Ctl, program
from harness.processes import Child, wait_for

SCHEMES = ("http", "https")
IN_FLIGHT = (512, 64)
WARM_ROWS = 40000   # of the run before the first one
FEW = 3000          # of the design that anubisd replaces, which is slow
WARM_PART = 0.2     # of a run's rows, after which connections are kept
ALL_SENT = """select not exists (select from {s}.subscriptions where status in ('pending', 'retry') and held_at is null)
    and not exists (select from {s}.subscriptions where status = 'processing')"""
RATIO_GOAL = -0.85             # HTTPS to HTTP, at least
SETTINGS_GOAL = -0.95
GO_GOAL = -1.2                 # anubisd to the peer in Go that does the same work
MAIN_GOALS = [("first", 28), ("second", 40)]  # µs of the main thread
PROGRAM = "the program"        # that does the work


class Looks:
    """The benchmark's own session with Postgres. It is kept, since a new one costs as much as a hundred deliveries, and its
    CPU is not that of what is measured."""

    def __init__(self, app):
        self.schema, self.connection = app.schema, app.database.connect(application_name="bench")
        self.pid = self.connection.get_backend_pid()

    def value(self, sql):
        with self.connection.cursor() as cursor:
            cursor.execute(sql.replace("{s}", self.schema))
            return cursor.fetchone()[0]

    def close(self):
        """Seconds of CPU that it took."""
        used = cpu_of_thread(self.pid, self.pid)
        self.connection.close()
        return used


class Warm:
    """Rate and main thread from when a part of the rows is sent until all are: connections are kept by then, and neither the
    start nor the handshakes count."""

    def __init__(self, looks, pid, rows):
        self.looks, self.pid, self.rows = looks, pid, rows
        self.first = self.last = None

    def _now(self, sent):
        return sent, time.monotonic(), cpu_of_thread(self.pid, self.pid)

    def look(self):
        """True when all are sent."""
        if self.last:
            return True
        if not self.first:
            sent = self.looks.value("select count(*) from {s}.subscriptions where status = 'sent'")
            if sent >= self.rows * WARM_PART:
                self.first = self._now(sent)
        elif self.looks.value(ALL_SENT):
            self.last = self._now(self.rows)
        return bool(self.last)

    def found(self):
        sent, seconds, cpu = (b - a for a, b in zip(self.first, self.last))
        assert sent > 0, "all rows were sent between two looks: more rows are needed"
        return {"warm: sent/s": sent / seconds, "warm: µs of the main thread": cpu / sent * 1e6}


def cpu_by_session(app):
    """{application_name, without the prefix of a turn: seconds} of the sessions that live."""
    found = {}
    for name, pid in app.database.query("select regexp_replace(application_name, 'bench\\d+\\.| \\(.*', '', 'g'), pid "
                                        "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"):
        try:
            found[name] = found.get(name, 0) + cpu_of_thread(pid, pid)
        except OSError:  # it has just ended
            pass
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def parts_of(bench, scheme):
    """{part: its process}, without the program that does the work."""
    return {"postgres": bench.server.child.pid, "kafka": bench.kafka.child.pid, "institution": bench.sinks[scheme].child.pid}


def once(bench, rows, scheme, in_flight, prepare=lambda app: None, groups=None):
    """From the daemon's start until all is sent and counted; prepare(app) sets what the integrations have; groups are settings
    of the consumers."""
    app, ids = bench.fresh(scheme=scheme)
    prepare(app)
    bench.fill(app, rows)
    daemon = bench.daemon(app, consumers=groups or {}, delivery={"max_in_flight": in_flight,
                                                           "max_in_flight_per_integration": in_flight // len(ids)})
    parts = parts_of(bench, scheme)
    wal = app.value("select pg_current_wal_lsn()")
    before, looks = {name: cpu_of_tree(pid) for name, pid in parts.items()}, Looks(app)
    started = time.monotonic()
    daemon.start()
    warm = Warm(looks, daemon.pid, rows)
    wait_for(lambda: warm.look() and looks.value("select sum(sent) from {s}.integration_runtime") == rows, 600,
             "all to be sent and counted", interval=0.1)
    seconds = time.monotonic() - started
    cpu = {name: (cpu_of_tree(pid) - before[name]) / rows * 1e6 for name, pid in parts.items()}
    cpu["postgres"] -= looks.close() / rows * 1e6
    cpu["anubisd"] = cpu_of(daemon.pid) / rows * 1e6
    threads = {name: used / rows * 1e6 for name, used in by_name(cpu_by_thread(daemon.pid)).items()}
    wal_bytes = app.value("select pg_current_wal_lsn() - %s::pg_lsn", (wal,))
    found = {"subscriptions/s": rows / seconds, **warm.found(), "CPU µs a subscription": cpu, "anubisd by thread": threads,
             "WAL bytes a subscription": float(wal_bytes) / rows, "peak RSS MiB": peak_rss_kib(daemon.pid) / 1024}
    found["Postgres by session"] = {name: used / rows * 1e6 for name, used in cpu_by_session(app).items()}
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


def warm_up(bench):
    if not bench.warm:  # a broker whose code is not yet compiled takes several times the CPU
        bench.warm = True
        once(bench, WARM_ROWS, "https", IN_FLIGHT[0])


def throughput(bench, rows, turns):
    warm_up(bench)
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
    return {"rows": rows, "turns": turns, "table": rows_of_table,
            **{f"{scheme}, {in_flight} in flight": medians(values) for (scheme, in_flight), values in found.items()}}


def set_all(app):
    """Rules that do not match, limits that do not hold it back, a signature of two secrets, a header of its own."""
    settings = {"outcomes": [{"status": [400], "contains": "UNABLE_TO_LOCK_ROW", "then": "retry"},
                             {"status": "2xx", "content_type": "text/html", "then": "retry"},
                             {"status": 200, "field": "/statusCode", "is": "9", "then": "failed"}],
                "signing_secret": f"whsec_{'A' * 43}= whsec_{'B' * 42}A=", "headers": {"X-Partner": "anubis"}}
    app.query("update {s}.integrations set rate_limit = 100000, max_in_flight = 512, delivery_settings = %s",
              (json.dumps(settings),))


def with_settings(bench, rows, turns):
    """The same work without and with all of an integration's settings, by turns."""
    warm_up(bench)
    kinds, found = {"without": lambda app: None, "with": set_all}, {}
    for turn in range(turns):
        for case in sorted(itertools.product(SCHEMES, kinds), reverse=turn % 2 == 0):
            found.setdefault(case, []).append(once(bench, rows, case[0], IN_FLIGHT[0], kinds[case[1]]))

    def row(scheme, name, value, goals=()):
        return Row.of_turns(f"rules, limits, signing over {scheme}: {name}, without → with",
                            list(map(value, found[scheme, "without"])), list(map(value, found[scheme, "with"])), goals)
    table = []
    for scheme in SCHEMES:
        table += [row(scheme, "subscriptions/s", lambda t: t["subscriptions/s"], [("ratio", SETTINGS_GOAL)]),
                  row(scheme, "µs of anubisd", lambda t: t["CPU µs a subscription"]["anubisd"]),
                  row(scheme, "µs of Postgres", lambda t: t["CPU µs a subscription"]["postgres"])]
    return {"rows": rows, "turns": turns, "table": table,
            **{f"{scheme}, {kind}": medians(values) for (scheme, kind), values in found.items()}}


def race_once(bench, rows, scheme, schema, command):
    """The same work by somebody else, who prints "done"; command(database, prefix). Seconds, and {part: its CPU's µs a
    subscription}."""
    bench.number += 1
    prefix = f"bench{bench.number}."
    database = bench.server.create_database(f"bench{bench.number}")
    database.query(schema)
    for n in range(bench.INTEGRATIONS):
        database.query("insert into integrations (name, endpoint_url) values ('peer', %s)",
                       (bench.sinks[scheme].url(f"/good/{n}"),))
    database.query(bench.WAITING_ROWS.replace("TABLE", "subscriptions"), (bench.INTEGRATIONS, rows))
    database.query("analyze")
    database.query("checkpoint")
    bench.kafka.create_anubis_topics(prefix)
    worker = Child(command(database, prefix))
    parts = parts_of(bench, scheme)
    before, children = {name: cpu_of_tree(pid) for name, pid in parts.items()}, resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    worker.start()
    wait_for(lambda: not worker.is_running(), 600, "the peer to be done", interval=0.1)
    seconds = time.monotonic() - started
    cpu = {name: cpu_of_tree(pid) - before[name] for name, pid in parts.items()}
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu[PROGRAM] = after.ru_utime + after.ru_stime - children.ru_utime - children.ru_stime
    counted = database.value("select sum(successful_sends) from integrations")
    assert counted == rows, f"the peer counted {counted} of {rows}: {worker.output}"
    database.drop()
    return seconds, {name: used / rows * 1e6 for name, used in cpu.items()}


def replaced(bench, rows, scheme):
    return race_once(bench, rows, scheme, bench_peer.SCHEMA, lambda database, prefix: [
        sys.executable, bench_peer.__file__, "--conninfo", database.conninfo(), "--brokers", bench.kafka.bootstrap,
        "--prefix", prefix, "--rows", rows, "--ca-file", bench.certificates.root])


def fast(bench, rows, scheme, name="fast_peer"):
    return race_once(bench, rows, scheme, bench_peer.FAST_SCHEMA, lambda database, prefix: [
        program(f"tools/{name}"), database.conninfo(), bench.kafka.bootstrap, prefix, rows, IN_FLIGHT[0],
        bench.certificates.root])


def in_go(bench, rows, scheme):
    return fast(bench, rows, scheme, "go_peer")


def go_missing():
    """Why the peer in Go cannot run; None once it is built. Go looks for its modules in its cache, then in its proxy."""
    folder = os.path.join(os.path.dirname(__file__), "tools", "go_peer")
    command = ["go", "build", "-buildvcs=false", "-o", os.path.abspath(program("tools/go_peer")), "."]
    try:
        built = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as e:
        return str(e)
    return None if built.returncode == 0 else built.stderr.strip().rpartition("\n")[2] or "go build ended with an error"


def ours(bench, rows, scheme, groups=None):
    found = once(bench, rows, scheme, IN_FLIGHT[0], groups=groups)
    cpu = found["CPU µs a subscription"]
    return rows / found["subscriptions/s"], {PROGRAM if name == "anubisd" else name: used for name, used in cpu.items()}


def one_group(bench, rows, scheme):
    """What the peers do: of the consumers the one that counts."""
    return ours(bench, rows, scheme, {"monitoring": False, "external": False})


PEERS = {"C": fast, "Go": in_go}
OURS = {"anubisd": ours, "anubisd with one group": one_group}


def compared(scheme, found):
    """Lines of the table from {runner's name: [(subscriptions/s, {part: CPU})]}."""
    figures = {"subscriptions/s": lambda t: t[0], "CPU µs of all parts": lambda t: sum(t[1].values()),
               **{f"CPU µs of {part}": lambda t, part=part: t[1][part] for part in found["anubisd"][0][1]}}
    for figure, value in figures.items():
        for peer, we in itertools.product([name for name in PEERS if name in found], OURS):
            goals = [("ratio", GO_GOAL)] if (figure, peer, we) == ("subscriptions/s", "Go", "anubisd with one group") else []
            yield Row.of_turns(f"{figure} over {scheme}, peer in {peer} → {we}", list(map(value, found[peer])),
                               list(map(value, found[we])), goals)


def race(bench, rows, turns):
    """Against bare work without promises, by turns; and against the design that anubisd replaces."""
    warm_up(bench)
    left_out, runners, table = go_missing(), PEERS | OURS, []
    if left_out:
        del runners["Go"]
    for scheme in SCHEMES:
        found = {name: [] for name in runners}
        for turn in range(turns):
            for name in list(runners)[::1 if turn % 2 == 0 else -1]:
                seconds, cpu = runners[name](bench, rows, scheme)
                found[name].append((rows / seconds, cpu))
        table += compared(scheme, found)
        table.append(Row(f"subscriptions/s over {scheme}, replaced design → anubisd", FEW / replaced(bench, FEW, scheme)[0],
                         statistics.median(rate for rate, _ in found["anubisd"])))
    if left_out:
        table.append(Row(f"the peer in Go is left out: {left_out}", None))
    return {"rows": rows, "turns": turns, "table": table}
