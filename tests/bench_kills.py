"""The benchmark's case of crashes: the daemon is killed with -9 every two seconds until so many subscriptions are sent and their
events handled by all groups. Nothing may be lost, nor count twice."""
import sys
import time

from bench_measure import Row
from harness.anubis import Ctl
from harness.processes import wait_for

EVERY = 2  # s
# What a killed daemon had in hand goes out again soon, and its place in the groups is given to the next one.
SETTINGS = {"delivery": {"lease": "5s", "timeout": "2s"}, "consumers": {"session_timeout": "6s", "heartbeat_interval": "500ms"}}
UNHANDLED = ("select (select count(*) from {s}.subscriptions where status <> 'sent'), "
             "(select coalesce(max(id), 0) from {s}.subscription_events) - (select high from {s}.relay_state), "
             "(select count(*) from {s}.subscription_events where event_type is not null) - (select count(*) from {s}.audit_log)")
KINDS = ("created", "updated", "sent", "failed", "retried")


def kills(bench, rows):
    app, _ = bench.fresh()
    bench.fill(app, rows)
    daemon = bench.daemon(app, **SETTINGS)
    started, count = time.monotonic(), 0
    daemon.start()
    while True:
        time.sleep(EVERY)
        left = app.query(UNHANDLED)[0]
        print(f"kills: {time.monotonic() - started:.0f} s, {count} kills; not sent, published, handled: {left}", file=sys.stderr,
              flush=True)
        if left == (0, 0, 0):
            break
        daemon.kill9()
        daemon.start()
        count += 1
    seconds = time.monotonic() - started
    ctl = Ctl(daemon.settings)
    ctl("verify", "--wait", deadline=600).expect(0)
    ctl("verify", "--audit", "--full", deadline=600).expect(0)
    attempts, twice = app.query("select sum(attempts), count(*) filter (where attempts > 1) from {s}.subscriptions")[0]
    counted = app.value("select sum(sent) from {s}.integration_runtime")
    events = app.value("select count(*) from {s}.subscription_events where event_type is not null")
    published = sum(bench.kafka.count(f"bench{bench.number}.subscriptions.{kind}") for kind in KINDS)
    wait_for(lambda: app.value("select sum(successful_sends) from {s}.integrations") == rows, 60, "the integrations to have it")
    daemon.term()
    table = [Row(f"kills: {rows:,} subscriptions → counted as sent, of {events:,} events", rows, counted, [("ratio", 1)])]
    return {"kills": count, "seconds": round(seconds), "sent more than once": twice, "attempts": attempts,
            "messages in Kafka": published, "of them more than once": published - events, "table": table}
