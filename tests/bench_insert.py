"""The benchmark's cases of what a daemon costs the application's single-row inserts, and of what publishing costs."""
import datetime
import multiprocessing
import os
import re
import subprocess
import time

from bench_measure import cpu_by_thread, cpu_of, cpu_of_tree, percentile
from bench_throughput import cpu_by_session
from confluent_kafka import Consumer, TopicPartition
from harness.institutions import Institutions
from harness.processes import wait_for


def beside(bench, clients, seconds, rounds):
    """Commits of single-row inserts a second beside a daemon, in turn, as ratios of those without one. "idle": a daemon
    without other work, which takes what is inserted; "working": one that delivers other rows, too; "paused": an idle one,
    and the integration of the inserted rows is paused."""
    app, ids = bench.fresh()
    script = os.path.join(bench.server.folder, "insert.sql")
    with open(script, "w", encoding="ascii") as f:
        f.write("insert into anubis.subscriptions (integration_id, order_id, origin, cpf, payload) values "
                "(:integration, 1, 'site', '12345678909', '{\"name\": \"Maria\", \"course\": 7}');\n")
    paused = app.integration(bench.sink.url("/good/paused"), paused_until="infinity")
    other = app.integration(bench.sink.url("/slow/10/other"), max_in_flight=8)
    found = {}
    for case in rounds * ("nobody", "idle", "working", "paused"):
        listener = app.database.connect()
        listener.cursor().execute(f"listen {app.value('select {s}.doorbell_channel()')}")
        if case == "working":
            app.query("insert into {s}.subscriptions (integration_id) select %s from generate_series(1, %s)",
                      (other, seconds * 1000))
        if case != "nobody":
            daemon = bench.daemon(app).start()
            wait_for(lambda: app.value("select count(*) from pg_stat_activity where application_name = 'anubisd doorbell' "
                                       "and datname = current_database()") == 1, 30, "the doorbell")
            time.sleep(1)
        parts = [lambda: cpu_of_tree(bench.server.child.pid), lambda: cpu_of_tree(bench.kafka.child.pid),
                 lambda: cpu_of(daemon.pid) if case != "nobody" else 0, lambda: sum(cpu_by_session(app).values())]
        before = [part() for part in parts]
        done = subprocess.run([os.path.join(bench.server.bin, "pgbench"), "-h", bench.server.folder, "-U", "postgres",
                               "-p", str(bench.server.port), "-n", "-M", "prepared", "-f", script, "-c", str(clients),
                               "-T", str(seconds), "-D", f"integration={paused if case == 'paused' else ids[0]}",
                               app.database.name], capture_output=True, text=True, check=True)
        rows = int(re.search(r"actually processed: (\d+)", done.stdout).group(1))
        used = [part() - b for part, b in zip(parts, before)]
        listener.cursor().execute("select")
        listener.poll()
        found.setdefault(case, []).append((rows / seconds, *(u / rows * 1e6 for u in used),
                                           len(listener.notifies) / rows))
        listener.close()
        if case != "nobody":
            if case != "paused":
                app.wait_settled(300, ids[0])
            bench.end(daemon)
        app.query("update {s}.subscriptions set status = 'failed' where status in ('pending', 'retry')")
    nobody = sum(rate for rate, *_ in found["nobody"])
    return {f"{clients} clients, {case}": {"commits/s": round(sum(v[0] for v in runs) / len(runs)),
                                           "ratio": round(sum(v[0] for v in runs) / nobody, 2),
                                           "Postgres µs": round(min(v[1] for v in runs)),
                                           "Kafka µs": round(min(v[2] for v in runs)),
                                           "anubisd µs": round(min(v[3] for v in runs)),
                                           "of Postgres its sessions µs": round(min(v[4] for v in runs)),
                                           "notifications a row": round(sum(v[5] for v in runs) / len(runs), 3)}
            for case, runs in found.items()}


def read(bootstrap, topic, watermarks, found, count, ended):
    """Puts into `found` each message's key, its header "timestamp", and when it came, in seconds; and then None."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": topic})
    consumer.assign([TopicPartition(topic, p, high) for p, (_, high) in watermarks.items()])
    while not ended.is_set():
        message = consumer.poll(0.2)
        if message and not message.error():
            came = time.time()
            written = dict(message.headers())["timestamp"].decode().replace("Z", "+00:00")
            found.put((int(message.key()), datetime.datetime.fromisoformat(written).timestamp(), came))
            count.value += 1
    consumer.close()
    found.put(None)


class Reader:
    """Reads what comes to a topic from now on, in a process of its own, so that what writes meanwhile does not wait for it."""

    def __init__(self, bench, topic):
        spawn = multiprocessing.get_context("spawn")
        self._queue, self._count, self._ended = spawn.Queue(), spawn.Value("i", 0), spawn.Event()
        self._process = spawn.Process(target=read, args=(bench.kafka.bootstrap, topic, bench.kafka.watermarks(topic),
                                                         self._queue, self._count, self._ended), daemon=True)
        self._process.start()

    def wait(self, count, seconds):
        """Until it has so many."""
        wait_for(lambda: self._count.value >= count, seconds, f"{count} messages")

    def end(self):
        """What it has read."""
        self._ended.set()
        found = list(iter(self._queue.get, None))
        self._process.join()
        return found


def publish(bench, per_second, seconds):
    """From an insert's event in the ledger to a consumer of its topic, and what relay and its session cost meanwhile."""
    app, _ = bench.fresh()
    integration = app.integration(bench.sink.url("/good/publish"), paused_until="infinity" if per_second > 100 else None)
    daemon = bench.daemon(app).start()
    topic = f"bench{bench.number}.subscriptions.created"
    app.subscription(integration)
    wait_for(lambda: bench.kafka.count(topic) == 1, 60, "the first event")
    backend = app.value("select pid from pg_stat_activity where application_name like 'anubisd relay%%' "
                        "and datname = current_database()")
    reader = Reader(bench, topic)
    app.subscription(integration)
    reader.wait(1, 60)
    before = cpu_of(backend), cpu_by_thread(daemon.pid), cpu_of_tree(bench.kafka.child.pid)
    saves = "select n_tup_upd from pg_stat_user_tables where relname = 'relay_state'"
    batches = app.value(saves)
    connection = app.database.connect()
    with connection.cursor() as cursor:
        start = time.monotonic()
        for n in range(per_second * seconds):
            time.sleep(max(0, start + n / per_second - time.monotonic()))
            cursor.execute("insert into anubis.subscriptions (integration_id) values (%s)", (integration,))
    connection.close()
    reader.wait(per_second * seconds + 1, 10 * seconds + 60)
    found = reader.end()
    events = app.value("select count(*) from {s}.subscription_events")
    after = cpu_of(backend), cpu_by_thread(daemon.pid), cpu_of_tree(bench.kafka.child.pid)
    thread = sum(v - before[1].get(k, 0) for k, v in after[1].items() if k.startswith("relay/"))
    wait_for(lambda: app.value(saves) > batches, 10, "the statistics")
    batches = app.value(saves) - batches
    bench.end(daemon)
    delays = [(came - written) * 1000 for _, written, came in found]
    delays = delays[1 + per_second:]  # nothing wakes the relay for the first ones of a paused integration
    return {"inserts/s": per_second, "events": events, "batches": batches, "p50 ms": round(percentile(delays, 50), 1),
            "p99 ms": round(percentile(delays, 99), 1),
            "CPU % of a core": {"relay": round(thread / seconds * 100, 2),
                                "its session": round((after[0] - before[0]) / seconds * 100, 2),
                                "Kafka": round((after[2] - before[2]) / seconds * 100, 2)}}


def latency(bench, per_second, seconds):
    """From the time that an insert was due, so that a late start counts, to the request at the institution, and to the event
    that it was sent, at a consumer of its topic."""
    app, _ = bench.fresh()
    counting = Institutions().start()
    integration = app.integration(counting.url("/good/latency"))
    daemon = bench.daemon(app).start()
    wait_for(lambda: app.value("select count(*) from pg_stat_activity where application_name = 'anubisd doorbell'") == 1, 30,
             "the doorbell")
    topic = f"bench{bench.number}.subscriptions.sent"
    app.subscription(integration)
    wait_for(lambda: bench.kafka.count(topic) == 1, 60, "the first one's event")
    reader = Reader(bench, topic)
    app.subscription(integration)
    reader.wait(1, 60)
    counting.reset_counts()
    connection = app.database.connect()
    due, inserts, late = {}, [], []
    start = time.time() + 0.2
    with connection.cursor() as cursor:
        for n in range(per_second * seconds):
            time.sleep(max(0, start + n / per_second - time.time()))
            begun = time.time()
            cursor.execute("insert into anubis.subscriptions (integration_id, payload) values (%s, '{}') returning id",
                           (integration,))
            inserts.append((time.time() - begun) * 1000)
            late.append((begun - start - n / per_second) * 1000)
            due[cursor.fetchone()[0]] = start + n / per_second
    connection.close()
    reader.wait(len(due) + 1, 10 * seconds + 60)
    found = reader.end()
    received = sorted(k.first_usec / 1e6 for k in counting.keys().values())
    delays = [(r - d) * 1000 for r, d in zip(received, due.values())]
    events = [(came - due[key]) * 1000 for key, _, came in found if key in due]
    bench.end(daemon)
    counting.close()
    return {"inserts/s": per_second, "requests": len(delays),
            **{f"{what}, {name} ms": round(percentile(values, percent), 2)
               for what, values in (("request", delays), ("event at a consumer", events), ("the insert alone", inserts),
                                  ("the insert's own lateness", late))
               for name, percent in (("p50", 50), ("p99", 99), ("max", 100))}}
