#!/usr/bin/python3
"""make bench: throughput, beside that of the design it replaces, latency, memory, idle cost and the price of the triggers,
on parts of its own.

Everything runs on this machine: a throw-away Postgres (fsync on), a real Apache Kafka where Java is (else the embedded
broker, and the table says so), one sink institution. CPU times are the kernel's, of whole processes; so the figures of a
noisy machine are best compared within one run."""
import argparse
import json
import os
import resource
import sys
import threading
import time

import bench_peer
from harness.anubis import Ctl, Daemon
from harness.application import Application
from harness.institutions import Institutions
from harness.kafka import EmbeddedBroker, RealKafka, java_missing
from harness.postgres import Postgres
from harness.processes import Child, close_all, descendants, wait_for

TICKS = os.sysconf("SC_CLK_TCK")
POSTGRES = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "512MB", "max_wal_size": "8GB",
            "checkpoint_timeout": "15min", "synchronous_commit": "on", "autovacuum_naptime": "5s"}
SETTINGS = {"log_level": "notice", "delivery": {"max_in_flight": 1024, "max_in_flight_per_integration": 64, "batch_size": 500,
                                                "poll_interval": "1s"}}
INTEGRATIONS = 16
WAITING_ROWS = """insert into TABLE (integration_id, order_id, origin, cpf, payload)
    select 1 + g %% %s, g, 'site', lpad((g %% 100000000)::text, 11, '0'), jsonb_build_object(
        'student', jsonb_build_object('name', 'Maria da Silva ' || g, 'email', 'maria' || g || '@example.com',
                                      'phone', '+55 11 91234-5678'),
        'course', jsonb_build_object('id', g %% 977, 'name', 'Administração', 'campus', 'Centro', 'shift', 'noturno'),
        'offer', jsonb_build_object('discount', 0.35, 'enrollment_fee', 99.90))
      from generate_series(1, %s) g"""


def cpu_of(pid):
    """Seconds of user and system time of a process and of its children that have ended."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
        fields = f.read().rpartition(")")[2].split()
    return sum(int(fields[i]) for i in (11, 12, 13, 14)) / TICKS


def cpu_of_tree(pid):
    total = 0
    for p in [pid, *descendants(pid)]:
        try:
            total += cpu_of(p)
        except OSError:
            pass
    return total


def cpu_by_thread(pid):
    found = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/stat", encoding="ascii", errors="replace") as f:
            text = f.read()
        name, fields = text[text.index("(") + 1:text.rindex(")")], text.rpartition(")")[2].split()
        found[f"{name}/{task}"] = (int(fields[11]) + int(fields[12])) / TICKS
    return found


def peak_rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
        return int(next(line for line in f if line.startswith("VmHWM")).split()[1])


class Bench:
    def __init__(self, kafka):
        self.server = Postgres(settings=POSTGRES).start()
        self.kafka = kafka
        self.sink = Institutions(count=False)
        self.sink.start()
        self.number = 0
        self.warm = False
        self.rate = None  # what throughput() found, in subscriptions a second

    def fresh(self, integrations=INTEGRATIONS):
        """A migrated database with integrations that answer at once."""
        self.number += 1
        database = self.server.create_database(f"bench{self.number}")
        Ctl(database=database).migrate()
        app = Application(database)
        ids = [app.integration(self.sink.url(f"/good/{n}")) for n in range(integrations)]
        return app, ids

    def fill(self, app, rows):
        """Waiting rows, written by the database itself."""
        app.query(WAITING_ROWS.replace("TABLE", "{s}.subscriptions"), (INTEGRATIONS, rows))
        app.query("analyze {s}.subscriptions")
        app.query("checkpoint")

    def daemon(self, app, **more):
        prefix = f"bench{self.number}."
        return Daemon({**SETTINGS, "kafka": {"topic_prefix": prefix}, "consumers": {"group_prefix": prefix + "group"}, **more},
                      database=app.database, kafka=self.kafka)

    def throughput(self, rows):
        if not self.warm:  # a broker whose code is not yet compiled takes several times the CPU
            self.warm = True
            self.throughput(40000)
        app, _ = self.fresh()
        self.fill(app, rows)
        daemon = self.daemon(app)
        parts = {"postgres": self.server.child.pid, "kafka": self.kafka.child.pid, "institution": self.sink.child.pid}
        wal = app.value("select pg_current_wal_lsn()")
        before = {name: cpu_of_tree(pid) for name, pid in parts.items()}
        started = time.monotonic()
        daemon.start()
        times = {}

        def done():
            states = app.value("select count(*) from {s}.subscriptions_waiting_for_bench") if "sent" not in times else 0
            if "sent" not in times and states == 0:
                times["sent"] = time.monotonic() - started
            counted = app.value("select sum(successful_sends) from {s}.integrations")
            return "sent" in times and counted == rows
        app.query("""create view {s}.subscriptions_waiting_for_bench as select from {s}.subscriptions
            where status in ('pending', 'retry') and held_at is null limit 1""")
        wait_for(done, 600, "all to be sent and counted", interval=0.1)
        seconds = time.monotonic() - started
        cpu = {name: (cpu_of_tree(pid) - before[name]) / rows * 1e6 for name, pid in parts.items()}
        cpu["anubisd"] = cpu_of(daemon.pid) / rows * 1e6
        threads = {}
        for name, used in cpu_by_thread(daemon.pid).items():
            threads[name.split("/")[0]] = threads.get(name.split("/")[0], 0) + used / rows * 1e6
        wal_bytes = app.value("select pg_current_wal_lsn() - %s::pg_lsn", (wal,))
        rss = peak_rss_kib(daemon.pid)
        verify = Ctl(daemon.settings)("verify", deadline=600)
        daemon.term()
        self.rate = rows / seconds
        return {"rows": rows, "seconds": round(seconds, 2), "subscriptions/s": round(self.rate),
                "seconds until the last was sent": round(times["sent"], 2), "verify": verify.code,
                "CPU µs a subscription": {k: round(v, 1) for k, v in sorted(cpu.items())},
                "anubisd by thread": {k: round(v, 1) for k, v in sorted(threads.items(), key=lambda x: -x[1]) if v >= 0.5},
                "WAL bytes a subscription": round(float(wal_bytes) / rows), "peak RSS MiB": round(rss / 1024, 1)}

    def peer(self, rows):
        """The same work by the design that anubisd replaces: see bench_peer."""
        self.number += 1
        prefix = f"bench{self.number}."
        database = self.server.create_database(f"bench{self.number}")
        database.query(bench_peer.SCHEMA)
        for n in range(INTEGRATIONS):
            database.query("insert into integrations (name, endpoint_url) values ('peer', %s)", (self.sink.url(f"/good/{n}"),))
        database.query(WAITING_ROWS.replace("TABLE", "subscriptions"), (INTEGRATIONS, rows))
        database.query("analyze")
        self.kafka.create_anubis_topics(prefix)
        worker = Child([sys.executable, bench_peer.__file__, "--conninfo", database.conninfo(), "--brokers", self.kafka.bootstrap,
                        "--prefix", prefix, "--rows", rows])
        started, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
        worker.start()
        wait_for(lambda: not worker.is_running(), 600, "the peer to be done", interval=0.1)
        seconds = time.monotonic() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        counted = database.value("select sum(successful_sends) from integrations")
        assert counted == rows, f"the peer counted {counted} of {rows}: {worker.output}"
        rate = rows / seconds
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {"rows": rows, "seconds": round(seconds, 2), "subscriptions/s": round(rate),
                "its CPU µs a subscription": round(cpu / rows * 1e6),
                **({"anubisd to it": f"{self.rate / rate:.0f} times"} if self.rate else {})}

    def latency(self, per_second, seconds):
        """From the application's commit to the request at the institution; the schedule is fixed, so a late start counts."""
        app, _ = self.fresh()
        counting = Institutions()
        counting.start()
        integration = app.integration(counting.url("/good/latency"))
        daemon = self.daemon(app).start()
        wait_for(lambda: app.value("select count(*) from pg_stat_activity where application_name = 'anubisd doorbell'") == 1, 30,
                 "the doorbell")
        app.subscription(integration)
        app.wait_states(sent=1)
        counting.reset_counts()
        connection = app.database.connect()
        stamps = []
        start = time.time() + 0.2
        with connection.cursor() as cursor:
            for n in range(per_second * seconds):
                due = start + n / per_second
                time.sleep(max(0, due - time.time()))
                cursor.execute("insert into anubis.subscriptions (integration_id, payload) values (%s, '{}')", (integration,))
                stamps.append(due)
        connection.close()
        wait_for(lambda: len(counting.keys()) == len(stamps), 60, "all requests")
        received = sorted(k.first_usec / 1e6 for k in counting.keys().values())
        delays = sorted((r - s) * 1000 for r, s in zip(received, stamps))
        daemon.term()
        counting.close()
        return {"inserts/s": per_second, "requests": len(delays), "p50 ms": round(delays[len(delays) // 2], 2),
                "p99 ms": round(delays[int(len(delays) * 0.99)], 2), "max ms": round(delays[-1], 2)}

    def memory(self, rows):
        app, _ = self.fresh()
        self.fill(app, rows)
        app.query("update {s}.integrations set max_in_flight = 32")
        daemon = self.daemon(app, delivery={}).start()
        wait_for(lambda: app.states()["sent"] > 20000, 300, "some to be sent", interval=0.5)
        rss = peak_rss_kib(daemon.pid)
        daemon.term()
        return {"rows waiting": rows, "peak RSS MiB": round(rss / 1024, 1)}

    def idle(self, seconds):
        app, _ = self.fresh()
        daemon = self.daemon(app).start()
        app.wait_states()
        wait_for(lambda: "taken over" in daemon.log or time.monotonic(), 30, "the consumers")
        time.sleep(5)  # what a start has to do is over
        before, whole = cpu_by_thread(daemon.pid), cpu_of(daemon.pid)
        time.sleep(seconds)
        used = {k: v - before.get(k, 0) for k, v in cpu_by_thread(daemon.pid).items()}
        total = cpu_of(daemon.pid) - whole
        library = sum(v for k, v in used.items() if k.startswith("rdk:"))
        daemon.term()
        return {"seconds": seconds, "whole process %": round(total / seconds * 100, 3),
                "our own threads %": round((total - library) / seconds * 100, 3)}

    def insert_cost(self, clients, each):
        """CPU of Postgres for single-row inserts, without and with our triggers, in turn."""
        app, ids = self.fresh()
        found = {}

        def write():
            connection = app.database.connect()
            with connection.cursor() as cursor:
                cursor.execute("prepare i as insert into anubis.subscriptions (integration_id, order_id, origin, cpf, payload) "
                               "values ($1, 1, 'site', '12345678909', '{\"name\": \"Maria\", \"course\": 7}')")
                for n in range(each):
                    cursor.execute("execute i (%s)", (ids[n % len(ids)],))
            connection.close()
        for turn in ("without", "with", "without", "with"):
            app.query(f"alter table {{s}}.subscriptions {'enable' if turn == 'with' else 'disable'} trigger user")
            before, started = cpu_of_tree(self.server.child.pid), time.monotonic()
            threads = [threading.Thread(target=write) for _ in range(clients)]
            for t in threads:
                t.start()
            for t in threads:
                t.join()
            wait_for(lambda: app.value("select count(*) from pg_stat_activity where datname = current_database()") == 1,
                     30, "the end")
            used = (cpu_of_tree(self.server.child.pid) - before) / (clients * each) * 1e6
            found.setdefault(turn, []).append((used, clients * each / (time.monotonic() - started)))
        best = {k: min(v) for k, v in found.items()}
        return {"clients": clients, "µs without triggers": round(best["without"][0], 1), "µs with": round(best["with"][0], 1),
                "µs more": round(best["with"][0] - best["without"][0], 1),
                "ratio": round(best["with"][0] / best["without"][0], 2)}

    def close(self):
        self.sink.close()
        self.server.close()


def show(name, result, indent="  "):
    print(f"\n{name}")
    for key, value in result.items():
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items())
        print(f"{indent}{key:34} {value}", flush=True)


def main():
    cases = {"throughput": lambda b, a: b.throughput(a.rows), "peer": lambda b, a: b.peer(3000),
             "latency": lambda b, a: b.latency(100, 10), "insert": lambda b, a: b.insert_cost(16, 1000),
             "idle": lambda b, a: b.idle(60),
             "memory": lambda b, a: b.memory(a.waiting)}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(cases)}; all without")
    parser.add_argument("--rows", type=int, default=int(os.environ.get("ROWS", "200000")))
    parser.add_argument("--waiting", type=int, default=1000000)
    parser.add_argument("--kafka", choices=["real", "embedded"], default=None)
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    missing = java_missing()
    real = a.kafka == "real" or (a.kafka is None and not missing)
    results = {"broker": "Apache Kafka" if real else f"embedded ({missing or 'as asked'}): no base for comparisons",
               "cores": os.cpu_count()}
    with (RealKafka() if real else EmbeddedBroker()) as kafka:
        bench = Bench(kafka)
        try:
            for name in a.cases or cases:
                results[name] = cases[name](bench, a)
                if not a.json:
                    show(name, results[name])
        finally:
            bench.close()
    if a.json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
    else:
        print(f"\nbroker: {results['broker']}; {results['cores']} cores for everything")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        close_all()
