"""The benchmark's soak: the daemon among institutions that break connections in every way, for so many requests, and what
it holds meanwhile: descriptors, memory, threads. In the end it must hold no more than after a tenth."""
import sys
import time

from bench_measure import Row
from harness.anubis import merged
from harness.certificates import Certificates
from harness.institutions import Institutions
from harness.processes import Deadline, wait_for
from harness.toxic import Proxy

# The good ones between them keep connections that the others' ends must not disturb. What has no end is timed out.
GOOD = ("good", "good/2", "flaky/50", "second-close", "second-reset", "slow/5")
BROKEN = ("reset", "reset-before", "close", "close-before", "garbage", "cut", "short", "early", "early-reject", "hints", "latin1",
          "reject/500")
HEAVY = ("huge/100000", "endless", "endless-headers", "gzip")
ENDLESS = ("silent", "drip", "continues", "slow/1000")
TIMEOUT_MS = 200  # of what has no end
FEW = 2           # in flight where a request costs much: a handshake for each, a long body. Else they would be most of the work
WAITING = 1000    # rows that each institution has at least, now and then
SETTINGS = {"log_level": "error", "retry": {"base_delay": "20ms", "max_delay": "100ms", "max_attempts": 20},
            "delivery": {"max_in_flight": 256, "max_in_flight_per_integration": 16, "connect_timeout": "1s"}}
MARKS = (1, 5, 10, 25, 50, 75, 100)  # percent
QUIET = {"10 %": "quiet after 10 %", "100 %": "quiet after all"}
RSS_GOAL = 1.1          # quiet at the end, to quiet after a tenth
READINGS = 20          # at each mark, as many as show the usual
STEADY = 150           # readings that are the same, of what is quiet: memory goes back to the system once a minute

FEED = """insert into {s}.subscriptions (integration_id, payload)
    select i.id, '{"name": "Maria da Silva", "course": 7}'
      from {s}.integrations i,
           lateral (select count(*) as there from (
               select from {s}.subscriptions s where s.integration_id = i.id and s.status in ('pending', 'retry') limit %s) w) w,
           lateral generate_series(1, %s - w.there)"""


class Peers:
    """Institutions in clear text and over TLS, a certificate of an authority that nobody trusts, servers that accept and
    say nothing, a port without a server."""

    def __init__(self, app, certificates):
        self.plain = Institutions(count=False, name="plain").start()
        self.tls = Institutions(count=False, name="tls", certificates=certificates).start()
        self.untrusted = Institutions(count=False, name="untrusted", certificates=Certificates()).start()
        self.mute = Proxy(("127.0.0.1", self.plain.port))
        self.mute.stall()
        self.gone = Proxy(("127.0.0.1", self.plain.port))
        self.gone.down()
        for server in (self.plain, self.tls):
            for path in GOOD:
                app.integration(server.url("/" + path))
            for path in BROKEN:
                app.integration(server.url("/" + path), max_in_flight=FEW if server is self.tls else None)
            for path in HEAVY:
                app.integration(server.url("/" + path), max_in_flight=FEW)
            for path in ENDLESS:
                app.integration(server.url("/" + path), timeout_ms=TIMEOUT_MS)
        app.integration(self.untrusted.url("/good"), max_in_flight=FEW)
        app.integration(self.plain.url("/good").replace("http:", "https:"))
        app.integration(self.tls.url("/good").replace("https:", "http:"))
        for scheme in ("http", "https"):
            app.integration(f"{scheme}://{self.mute.address}/", timeout_ms=TIMEOUT_MS)
            app.integration(f"{scheme}://{self.gone.address}/")

    def close(self):
        for peer in (self.mute, self.gone, self.plain, self.tls, self.untrusted):
            peer.close()


def reading(daemon):
    return {"descriptors": daemon.child.descriptors(), "RSS MiB": daemon.child.rss_kib() / 1024,
            "threads": daemon.child.status("Threads")}


def usual(daemon):
    """The greatest of several readings: what is open changes with each request."""
    readings = []
    for _ in range(READINGS):
        readings.append(reading(daemon))
        time.sleep(0.1)
    return {name: max(r[name] for r in readings) for name in readings[0]}


def attempts(app):
    return app.value("select coalesce(sum(attempts), 0) from {s}.subscriptions")


def quiet(app, daemon):
    """What it holds when nothing is under way, no connection is kept, for a reload gives them up, and unused memory has gone."""
    app.query("update {s}.integrations set enabled = false")
    wait_for(lambda: app.states()["processing"] == 0, 120, "the requests under way to end", interval=0.5)
    daemon.reload()
    seen = []

    def is_steady():
        seen.append(daemon.child.descriptors())
        return len(seen) > STEADY and len(set(seen[-STEADY:])) == 1
    wait_for(is_steady, 300, "the kept connections to be given up", interval=0.5)
    found = reading(daemon)
    app.query("update {s}.integrations set enabled = true")
    return found


def soak(bench, requests):
    app, _ = bench.fresh(integrations=0)
    peers = Peers(app, bench.certificates)
    daemon = bench.daemon(app, **merged(SETTINGS, {"delivery": {"ca_file": bench.certificates.root}})).start()
    found, started = {}, time.monotonic()
    marks = list(MARKS)
    while marks:
        app.query(FEED, (WAITING, WAITING))
        peers.mute.cut()  # it does not see who has gone
        done = attempts(app)
        while marks and done >= requests * marks[0] / 100:
            mark = f"{marks.pop(0)} %"
            found[mark] = usual(daemon)
            if mark in QUIET:
                found[QUIET[mark]] = quiet(app, daemon)
            print(f"soak: {mark}, {time.monotonic() - started:.0f} s: {found[mark]}", file=sys.stderr, flush=True)
        assert daemon.is_running(), daemon.child.tail()
        time.sleep(1)
    seconds = time.monotonic() - started
    causes = app.query("""select coalesce(regexp_replace(last_error, ':.*', ''), 'sent'), count(*) from {s}.subscriptions
        where attempts > 0 group by 1 order by 2 desc limit 20""")
    bench.end(daemon, all_done=False)
    peers.close()
    # What is held under load is what the requests under way want.
    rows = [Row(f"soak: {name}, {first} → {last}", found[first][name], found[last][name], goals)
            for name, first, last, goals in (("threads", *QUIET, [("ratio", 1)]),
                                             ("descriptors", *QUIET, []), ("RSS MiB", *QUIET, []),
                                             ("descriptors", *QUIET.values(), [("ratio", 1)]),
                                             ("RSS MiB", *QUIET.values(), [("ratio", RSS_GOAL)]))]
    return {"requests": done, "seconds": round(seconds), "requests/s": round(done / seconds), **found,
            "rows' last errors": dict(causes), "table": rows}
