#!/usr/bin/python3
"""make bench: throughput over HTTP and HTTPS, races against peers, latency, memory, idle cost, the price of the
triggers, a thousand institutions over TLS, bad ones among good ones, on parts of its own.

Everything runs on this machine: a throw-away Postgres (fsync on), a real Apache Kafka where Java is (else the embedded
broker, and the table says so), sink institutions. CPU times are the kernel's. The figures of a noisy machine are best
compared within one run: what is compared alternates, and each figure is the median of several turns."""
import argparse
import json
import os
import sys
import threading
import time

import bench_audit
import bench_claims
import bench_confirmations
import bench_consumers
import bench_insert
import bench_kills
import bench_isolation
import bench_limits
import bench_proof
import bench_report
import bench_soak
import bench_throughput
import bench_tls
from bench_measure import Row, cpu_by_thread, cpu_of, cpu_of_tree, machine, number, peak_rss_kib, table
from harness.anubis import Ctl, Daemon, merged
from harness.application import Application
from harness.certificates import Certificates
from harness.institutions import Institutions
from harness.kafka import EmbeddedBroker, RealKafka, java_missing
from harness.postgres import Postgres
from harness.processes import close_all, end_on_signals, wait_for

POSTGRES = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "512MB", "max_wal_size": "8GB",
            "checkpoint_timeout": "15min", "synchronous_commit": "on", "autovacuum_naptime": "5s"}
SETTINGS = {"log_level": "notice", "delivery": {"max_in_flight": 1024, "max_in_flight_per_integration": 64, "batch_size": 500,
                                                "poll_interval": "1s"}}
DEFAULTS = {"max_in_flight": None, "max_in_flight_per_integration": None, "batch_size": None, "poll_interval": None}
INTEGRATIONS = 16
WAITING_ROWS = """insert into TABLE (integration_id, order_id, origin, cpf, payload)
    select 1 + g %% %s, g, 'site', lpad((g %% 100000000)::text, 11, '0'), jsonb_build_object(
        'student', jsonb_build_object('name', 'Maria da Silva ' || g, 'email', 'maria' || g || '@example.com',
                                      'phone', '+55 11 91234-5678'),
        'course', jsonb_build_object('id', g %% 977, 'name', 'Administração', 'campus', 'Centro', 'shift', 'noturno'),
        'offer', jsonb_build_object('discount', 0.35, 'enrollment_fee', 99.90))
      from generate_series(1, %s) g"""


class Bench:
    INTEGRATIONS, WAITING_ROWS = INTEGRATIONS, WAITING_ROWS

    def __init__(self, kafka):
        self.server = Postgres(settings=POSTGRES).start()
        self.kafka = kafka
        self.certificates = Certificates()
        self.sink = Institutions(count=False).start()
        self.sinks = {"http": self.sink, "https": Institutions(count=False, certificates=self.certificates).start()}
        self.number = 0
        self.warm = False

    def fresh(self, integrations=INTEGRATIONS, scheme="http"):
        """A migrated database with integrations that answer at once."""
        self.number += 1
        database = self.server.create_database(f"bench{self.number}")
        Ctl(database=database).migrate()
        app = Application(database)
        ids = [app.integration(self.sinks[scheme].url(f"/good/{n}")) for n in range(integrations)]
        return app, ids

    def fill(self, app, rows):
        """Waiting rows, written by the database itself."""
        app.query(WAITING_ROWS.replace("TABLE", "{s}.subscriptions"), (INTEGRATIONS, rows))
        app.query("analyze {s}.subscriptions")
        app.query("checkpoint")

    def daemon(self, app, **more):
        prefix = f"bench{self.number}."
        return Daemon(merged(SETTINGS, {"delivery": {"ca_file": self.certificates.root}, "kafka": {"topic_prefix": prefix},
                                        "consumers": {"group_prefix": prefix + "group"}}, more),
                      database=app.database, kafka=self.kafka)

    @staticmethod
    def prove(daemon, all_done=True):
        """Nothing is wrong with its work, and all of it is done, or so much of it as will be."""
        verify = Ctl(daemon.settings)("verify", *["--wait"] * all_done, deadline=600)
        assert verify.code in ((0,) if all_done else (0, 2)), verify.stdout + verify.stderr

    @staticmethod
    def end(daemon, all_done=True):
        Bench.prove(daemon, all_done)
        daemon.term()

    def memory(self, rows):
        app, _ = self.fresh()
        self.fill(app, rows)
        app.query("update {s}.integrations set max_in_flight = 32")
        daemon = self.daemon(app, delivery=DEFAULTS).start()
        enough = min(rows, 20000)
        wait_for(lambda: app.states()["sent"] >= enough, 300, "some to be sent", interval=0.5)
        rss = peak_rss_kib(daemon.pid)
        self.end(daemon, all_done=False)
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
        self.end(daemon)
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
        for sink in self.sinks.values():
            sink.close()
        self.server.close()


def text(value):
    if isinstance(value, dict):
        return ", ".join(f"{k} {text(v)}" for k, v in value.items())
    return number(value) if isinstance(value, float) else str(value)


def show(name, result, indent="  "):
    print(f"\n{name}")
    for key, value in result.items():
        if key != "table":
            print(f"{indent}{key:34} {text(value)}", flush=True)
    print("\n".join(table(result.get("table", []))), flush=True)


CASES = {"throughput": lambda b, a: bench_throughput.throughput(b, a.rows, a.turns),
         "race": lambda b, a: bench_throughput.race(b, a.rows, a.turns),
         "settings": lambda b, a: bench_throughput.with_settings(b, a.rows, a.turns),
         "latency": lambda b, a: {f"{n}/s": bench_insert.latency(b, n, seconds)
                                  for n, seconds in ((1, 30), (100, 10), (1000, 10))},
         "insert": lambda b, a: {**b.insert_cost(16, 1000), **bench_insert.beside(b, 1, 3, 2),
                                 **bench_insert.beside(b, 16, 3, 2)},
         "claims": lambda b, a: bench_claims.claims(b, a.waiting),
         "retries": lambda b, a: bench_claims.retries(b, a.waiting, a.turns),
         "snapshot": lambda b, a: bench_claims.snapshot(b, a.rows, a.turns),
         "compare": lambda b, a: bench_claims.compare(b, a.rows, a.turns),
         "consumers": lambda b, a: bench_consumers.consumers(b, a.rows, a.turns),
         "audit": lambda b, a: bench_audit.audit(b, a.rows, a.turns),
         "proof": lambda b, a: bench_proof.proof(b, a.waiting, a.turns),
         "report": lambda b, a: bench_report.report(b, a.turns),
         "overdue": lambda b, a: bench_confirmations.overdue(b, a.rows, a.turns),
         "publish": lambda b, a: {f"{n}/s": bench_insert.publish(b, n, 10) for n in (1, 100, 1000)},
         "idle": lambda b, a: b.idle(60),
         "memory": lambda b, a: {**b.memory(a.waiting), "table": bench_tls.memory(b)},
         "institutions": lambda b, a: bench_tls.institutions(b, a.institutions, a.turns),
         "bad": lambda b, a: bench_tls.bad(b, a.turns),
         "isolation": lambda b, a: bench_isolation.isolation(b, a.turns),
         "rate": lambda b, a: bench_limits.rate(b, a.turns),
         "filters": lambda b, a: bench_limits.filters(b, a.turns),
         "outage": lambda b, a: bench_isolation.outage(b, a.rows, a.seconds),
         "kills": lambda b, a: bench_kills.kills(b, a.rows),
         "soak": lambda b, a: bench_soak.soak(b, a.requests)}
NOT_BY_DEFAULT = ("outage", "kills", "soak")


def arguments():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(CASES)}; without any, all but {', '.join(NOT_BY_DEFAULT)}")
    parser.add_argument("--rows", type=int, default=int(os.environ.get("ROWS", "100000")), help="of a turn of throughput")
    parser.add_argument("--turns", type=int, default=int(os.environ.get("TURNS", "3")), help="medians are of so many")
    parser.add_argument("--waiting", type=int, default=1000000, help="rows of memory, claims, retries and proof")
    parser.add_argument("--institutions", type=int, default=1000, help="of institutions")
    parser.add_argument("--requests", type=int, default=100000, help="of soak")
    parser.add_argument("--seconds", type=int, default=600, help="of outage")
    parser.add_argument("--kafka", choices=["real", "embedded"], default=None)
    parser.add_argument("--json", action="store_true")
    a = parser.parse_args()
    for name in a.cases:
        if name not in CASES:
            parser.error(f"no case is named {name}")
    return a


def run(bench, a, results):
    for name in a.cases or [c for c in CASES if c not in NOT_BY_DEFAULT]:
        started = time.monotonic()
        results[name] = {**CASES[name](bench, a), "took seconds": round(time.monotonic() - started)}
        if not a.json:
            show(name, results[name])


def main():
    end_on_signals()
    a = arguments()
    missing = java_missing()
    real = a.kafka == "real" or (a.kafka is None and not missing)
    results = {"broker": "Apache Kafka" if real else f"embedded ({missing or 'as asked'}): no base for comparisons"}
    with (RealKafka(lasting=True) if real else EmbeddedBroker()) as kafka:
        bench = Bench(kafka)
        try:
            results = machine(bench.server.value("show server_version")) | results
            run(bench, a, results)
        finally:
            bench.close()
    if a.json:
        print(json.dumps(results, indent=2, ensure_ascii=False, default=Row.as_dict))
        return 0
    print("\nall")
    print("\n".join(table([row for r in results.values() if isinstance(r, dict) for row in r.get("table", [])])))
    print("\n" + "\n".join(f"{key:12} {value}" for key, value in results.items() if not isinstance(value, dict)))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    finally:
        close_all()
