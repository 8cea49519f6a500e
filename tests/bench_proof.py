"""The benchmark's case of "anubisctl verify": the proof of so many subscriptions that were sent, published and counted."""
import time

from bench_measure import Row, cpu_of_tree
from harness.anubis import Ctl

GOAL = 10e-6  # s a subscription: a million in ten
MARKS = ("insert into anubis.consumer_bitmaps (read_model, event_type, partition, chunk, bits) "
         "values ('integration', %s, 0, %s, %s)")


def marks(first, last):
    """The marks of all ids from the first to the last one: chunk, bits."""
    for chunk in range(first // 8192, last // 8192 + 1):
        bits = bytearray(1024)
        for n in range(max(first - chunk * 8192, 0), min(last - chunk * 8192, 8191) + 1):
            bits[n // 8] |= 1 << n % 8
        yield chunk, bytes(bits)


def count(app):
    """As consumers do."""
    connection = app.database.connect()
    with connection.cursor() as cursor:
        for kind, first, last, events in app.query("select event_type, min(id), max(id), count(*) from {s}.subscription_events "
                                                   "where event_type in ('created', 'sent') group by 1"):
            assert last - first + 1 == events, (kind, first, last, events)
            cursor.executemany(MARKS, [(kind, *mark) for mark in marks(first, last)])
    connection.close()
    app.query("update {s}.integration_runtime r set sent = s.n "
              "from (select integration_id, count(*) as n from {s}.subscriptions group by 1) s "
              "where s.integration_id = r.integration_id")
    Ctl(database=app.database)("replay", "--group", "integration", "--from-ledger", deadline=1200).expect(0)


def proof(bench, rows, turns):
    app, _ = bench.fresh()
    bench.fill(app, rows)
    for status in ("processing", "sent"):
        app.query("update {s}.subscriptions set status = %s", (status,))
        app.query("vacuum analyze {s}.subscriptions")
    app.query("update {s}.relay_state set high = (select max(id) from {s}.subscription_events)")
    count(app)
    for name in ("subscription_events", "consumer_bitmaps", "subscriptions"):
        app.query("vacuum analyze {s}." + name)
    ctl, seconds, cpu = Ctl(database=app.database), [], []
    for _ in range(turns):
        before, started = cpu_of_tree(bench.server.child.pid), time.monotonic()
        ctl("verify", deadline=1200).expect(0)
        seconds.append(time.monotonic() - started)
        cpu.append(cpu_of_tree(bench.server.child.pid) - before)
    app.database.drop()
    return {"subscriptions": rows, "turns": turns, "table": [
        Row.of_turns(f"s of verify, {rows:,} subscriptions", seconds, goals=[("first", GOAL * rows)]),
        Row.of_turns("s of Postgres for it", cpu)]}
