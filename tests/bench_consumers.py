"""The benchmark's case of the consumers: how fast a thread of each group gets through full topics, and what the proof of it all
takes. Whether all groups slow down what is sent, how far behind they are then, and how soon an alert follows its evidence."""
import statistics
import time

from bench_measure import Row, by_name, cpu_by_thread, cpu_of_tree, peak_rss_kib, percentile
from harness.anubis import Ctl
from harness.application import Application
from harness.processes import wait_for

GROUPS = ("integration", "monitoring", "external")
KINDS = {"integration": ("created", "sent", "failed", "retried"),
         "monitoring": ("created", "updated", "sent", "failed", "retried")}
ALONE_GOAL, ALL_GOAL = -100000, -40000  # events a second
MEMORY_GOAL = 32                        # MiB that consumers add
PROOF_GOAL = 10                         # seconds for a million subscriptions
THROUGHPUT_GOAL = -0.9                  # of what is sent with one group
LAG_GOAL = 1                            # s, at full rate
ALERT_GOAL = 2                          # s after the evidence
EVIDENCE = 6                            # failures of as many that are proven to be more than half
ALERTS = 10


def only(groups):
    return {group: group in groups for group in GROUPS}


def published(bench, rows):
    """A database with the events of so many subscriptions that were sent, all of them in Kafka and none of them counted. And
    memory of the daemon that published them, in MiB."""
    app, _ = bench.fresh()
    bench.fill(app, rows)
    for status in ("processing", "sent"):
        app.query("update {s}.subscriptions set status = %s", (status,))
        app.query("vacuum analyze {s}.subscriptions")
    last = app.value("select max(id) from {s}.subscription_events")
    daemon = bench.daemon(app, consumers=only(())).start()
    wait_for(lambda: app.value("select high >= %s and gap_first = '{}' from {s}.relay_state", (last,)), 1200,
             "all to be published", interval=0.5)
    memory = peak_rss_kib(daemon.pid) / 1024
    daemon.term()
    return app, memory


def catch_up(bench, app, groups):
    """A copy of the database, and a daemon that has all of it before it: rates and CPU from the first batch on."""
    waiting = {group: sum(bench.kafka.count(f"bench{bench.number}.subscriptions.{kind}") for kind in kinds)
               for group, kinds in KINDS.items() if group in groups}
    bench.server.query("select pg_terminate_backend(pid) from pg_stat_activity where datname = %s", (app.database.name,))
    copy = Application(bench.server.create_database(f"{app.database.name}_copy", template=app.database.name))
    Ctl(database=copy.database)("installation", "--same").expect(0)
    daemon = bench.daemon(copy, consumers=only(groups)).start()

    def done():
        """Of the events that the slowest of the groups has before it."""
        found = dict(copy.query("select read_model, sum(next_offset)::float from {s}.consumer_offsets "
                                "where topic ~ '\\.subscriptions\\.' group by 1"))
        return min(found.get(group, 0) / total for group, total in waiting.items()) * max(waiting.values())

    def now():
        threads = by_name(cpu_by_thread(daemon.pid))
        return done(), time.monotonic(), threads.get("consumer", 0), cpu_of_tree(bench.server.child.pid)

    wait_for(done, 120, "the first batch", interval=0.02)
    first = now()
    wait_for(lambda: done() == max(waiting.values()), 600, "all to be handled", interval=0.02)
    last = now()
    events, seconds, thread, postgres = (b - a for a, b in zip(first, last))
    return copy, daemon, {"events/s": events / seconds, "µs of the threads an event": thread / events * 1e6,
                          "µs of Postgres an event": postgres / events * 1e6, "peak RSS MiB": peak_rss_kib(daemon.pid) / 1024}


HANDLED = """select extract(epoch from clock_timestamp())::float8,
       coalesce(jsonb_object_agg(read_model, n), '{}') from (select read_model, sum(next_offset) as n from {s}.consumer_offsets
       where topic like '%%.subscriptions.' || %s group by 1) o"""


def send(bench, rows, groups):
    """From when a daemon whose groups have nothing before them may send until all is sent and each group has handled it: rows a
    second; and seconds from an event to its handling, by the slowest group, of samples since the first fifth."""
    app, _ = bench.fresh()
    app.query("update {s}.integrations set paused_until = 'infinity'")
    bench.fill(app, rows)
    daemon = bench.daemon(app, consumers=only(groups)).start()
    readers = [group for group in groups if group in KINDS]

    def slowest(kind):
        at, found = app.query(HANDLED, (kind,))[0]
        return at, min(int(found.get(group, 0)) for group in readers)

    wait_for(lambda: slowest("created")[1] == rows, 600, "what was written before to be handled", interval=0.1)
    app.query("vacuum analyze {s}.subscriptions")
    parts = [bench.server.child.pid, daemon.pid, bench.kafka.child.pid, bench.sink.child.pid]
    started, samples, spent = time.monotonic(), [], sum(map(cpu_of_tree, parts))

    def is_over():
        samples.append(slowest("sent"))
        return samples[-1][1] == rows
    app.query("update {s}.integrations set paused_until = null")
    wait_for(is_over, 600, "all to be sent and handled", interval=0.05)
    seconds = time.monotonic() - started
    spent = sum(map(cpu_of_tree, parts)) - spent
    times = [at for at, in app.query("select extract(epoch from created_at)::float8 from {s}.subscription_events "
                                     "where event_type = 'sent' order by 1")]
    lags = [max(0.0, at - times[handled]) for at, handled in samples if rows // 5 <= handled < rows]
    bench.end(daemon, all_done=groups == GROUPS)
    app.database.drop()
    return {"sent/s": rows / seconds, "µs": spent / rows * 1e6, "lag": percentile(lags, 99), "usual lag": statistics.median(lags)}


def alert(bench):
    """Seconds from the event that proves that an institution refuses most to the line in the journal, of several institutions."""
    app, _ = bench.fresh(0)
    daemon = bench.daemon(app, alerts={"window": "5m"}).start()
    seconds = []
    for n in range(ALERTS):
        integration = app.integration(bench.sink.url(f"/reject/422?n={n}"))
        time.sleep(0.1 * n)  # at any time between two looks
        app.subscriptions(integration, EVIDENCE)
        told = wait_for(lambda i=integration: app.query(
            "select extract(epoch from o.sent_at)::float8 from {s}.alerts a join {s}.alert_outbox o on o.alert_id = a.id "
            "where a.integration_id = %s and a.kind = 'failure_rate' and o.sink = 'journal' and o.sent_at is not null", (i,)), 60,
            "the alert", interval=0.02)[0][0]
        proven = app.value("select extract(epoch from max(created_at))::float8 from {s}.subscription_events "
                           "where integration_id = %s and event_type = 'failed'", (integration,))
        seconds.append(told - proven)
    bench.end(daemon)
    app.database.drop()
    return seconds


def beside(bench, rows, turns):
    """Rows of the table."""
    found = {"one": [], "all": []}
    for turn in range(turns):
        for name, groups in (("one", GROUPS[:1]), ("all", GROUPS))[::1 if turn % 2 else -1]:
            found[name].append(send(bench, rows, groups))
    one, every = found["one"], found["all"]
    seconds = alert(bench)
    return [Row.of_turns("subscriptions/s sent and handled, integration group → all three", [t["sent/s"] for t in one],
                         [t["sent/s"] for t in every], [("ratio", THROUGHPUT_GOAL)]),
            Row.of_turns("µs of CPU of all parts for one of them, the same", [t["µs"] for t in one], [t["µs"] for t in every]),
            Row.of_turns("s from an event to its handling at this rate, 99 %, the same", [t["lag"] for t in one],
                         [t["lag"] for t in every], [("second", LAG_GOAL)]),
            Row.of_turns("s from an event to its handling at this rate, median, the same", [t["usual lag"] for t in one],
                         [t["usual lag"] for t in every]),
            Row(f"s from the evidence to the alert, median → most of {ALERTS}", statistics.median(seconds), max(seconds),
                [("second", ALERT_GOAL)])]


def consumers(bench, rows, turns):
    app, memory = published(bench, rows)
    found = {"alone": [], "all": []}
    for turn in range(turns):
        for name, groups in (("alone", GROUPS[:1]), ("all", GROUPS))[::1 if turn % 2 else -1]:
            copy, daemon, figures = catch_up(bench, app, groups)
            found[name].append(figures)
            if name == "all":
                ctl = Ctl(daemon.settings)
                ctl("verify", "--wait", deadline=600).expect(0)
                started = time.monotonic()
                ctl("verify", deadline=600).expect(0)
                figures["proof"] = time.monotonic() - started
            daemon.term()
            copy.database.drop()
    app.database.drop()

    def row(figure, key, goals=(), scale=1):
        return Row.of_turns(f"{figure}, integration group → all three", [t[key] for t in found["alone"]],
                            [t[key] * scale for t in found["all"]], goals)
    return {"subscriptions": rows, "events": 3 * rows, "turns": turns, "table": [
        row("events/s that wait in Kafka", "events/s", [("first", ALONE_GOAL), ("second", ALL_GOAL)]),
        row("µs of the threads an event", "µs of the threads an event"),
        row("µs of Postgres an event", "µs of Postgres an event"),
        Row.of_turns("peak MiB, publishing alone → all three groups behind", [memory] * turns,
                     [t["peak RSS MiB"] for t in found["all"]], [("second", memory + MEMORY_GOAL)]),
        Row.of_turns(f"seconds of verify, {rows:,} subscriptions → a million in proportion", [t["proof"] for t in found["all"]],
                     [t["proof"] / rows * 1e6 for t in found["all"]], [("second", PROOF_GOAL)]),
        *beside(bench, rows, turns)]}
