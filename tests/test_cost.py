"""What a subscription costs in what does not depend on the machine's speed: a change that makes each row a transaction, or
doubles what is written, is seen here before anybody measures. The limits are generous; `make bench` has the figures."""
import re
import shutil
import subprocess
import time

import pytest
from conftest import unavailable
from harness.anubis import Ctl, Daemon
from harness.application import Application
from harness.certificates import Certificates
from harness.institutions import Institutions
from harness.processes import build_folder, wait_for

ROWS, INTEGRATIONS = 3000, 8
SINGLE = 60
TRANSACTIONS = 1        # 0.1 to 0.3 by batches; one by one they would be three and more
WAL_BYTES = 3500        # 2,700 to 2,900, what the consumers write with it, without images of whole pages
SYSTEM_CALLS = 25       # 10: of all threads, over HTTP
ALLOCATIONS = 193       # 176: of all threads; libpq's rows, and headers of three messages that two groups read, one a third, too
NOTIFICATIONS = 0.1     # none, as good as: a daemon at work is not rung for
RINGS_A_SECOND = 20     # but a writer that is slower than the daemon finds it idle
STATEMENTS = 0.6        # 0.3: of the sessions, from start to end
LOOKS = 6               # 4: whether the schema fits; fourteen when each session looked for itself
CLAIMS = 1.5            # 1.0 of rows that come one by one
READS_AND_WRITES = 15   # 6 over TLS, the handshakes among them; libpq, Kafka's client and clear text use other calls


def transactions(database):
    """Committed ones, of sessions that have ended."""
    return database.value("select pg_stat_get_db_xact_commit(oid) from pg_database where datname = current_database()")


def sessions(database):
    return database.value("select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()")


def reads_and_writes(pid):
    with open(f"/proc/{pid}/io", encoding="ascii") as f:
        calls = dict(line.split(": ") for line in f.read().splitlines())
    return int(calls["syscr"]) + int(calls["syscw"])


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_a_subscription_costs_little(app, make_daemon, tls):
    certificates = Certificates() if tls else None
    settings = {"delivery": {"ca_file": certificates.root}} if tls else {}
    with Institutions(certificates=certificates) as server:
        for n in range(INTEGRATIONS):
            app.subscriptions(app.integration(server.url(f"/good/{n}")), ROWS // INTEGRATIONS)
        wait_for(lambda: sessions(app.database) == 0, what="the sessions that made the rows to end")
        wal, committed = app.value("select pg_current_wal_insert_lsn()"), transactions(app.database)
        daemon = make_daemon({"log_level": "notice", **settings}).start()
        wait_for(lambda: app.value("select sum(successful_sends) from {s}.integrations") == ROWS, 120, "all to be counted")
        calls = reads_and_writes(daemon.pid)
        wal_bytes = app.value("select pg_current_wal_insert_lsn() - %s::pg_lsn", (wal,))
        assert daemon.term() == 0
        wait_for(lambda: sessions(app.database) == 0, what="the daemon's sessions to end")
        committed = transactions(app.database) - committed
        assert server.counts()["total"]["requests"] == ROWS
        assert server.violations() == {}
    print(f"{committed / ROWS:.2f} transactions, {wal_bytes / ROWS:.0f} bytes of WAL, {calls / ROWS:.1f} reads and writes")
    assert committed / ROWS <= TRANSACTIONS
    assert wal_bytes / ROWS <= WAL_BYTES
    assert calls / ROWS <= READS_AND_WRITES


# Counts what is allocated, and writes the sum to the file that it is told when the process ends.
COUNTER = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
extern void *__libc_malloc(size_t), *__libc_calloc(size_t, size_t), *__libc_realloc(void *, size_t);
static atomic_ulong count;
void *malloc(size_t n) { count++; return __libc_malloc(n); }
void *calloc(size_t n, size_t m) { count++; return __libc_calloc(n, m); }
void *realloc(void *p, size_t n) { count++; return __libc_realloc(p, n); }
__attribute__((destructor)) static void tell(void)
{
    FILE *f = fopen(getenv("ALLOCATIONS_TO"), "w");
    if (f) { fprintf(f, "%lu", (unsigned long) count); fclose(f); }
}
"""


def without_work(count):
    """What a start and an end cost by themselves is taken off."""
    idle = count(0)
    assert idle > 0
    return count(ROWS) - idle


@pytest.mark.skipif("asan" in build_folder() or "tsan" in build_folder(), reason="a sanitizer allocates by itself")
def test_allocations(app, institutions, make_daemon, tmp_path):
    (tmp_path / "count.c").write_text(COUNTER)
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", tmp_path / "count.so", tmp_path / "count.c"], check=True)

    def count(rows):
        daemon = make_daemon({"log_level": "notice"}, env={"LD_PRELOAD": str(tmp_path / "count.so"),
                                                           "ALLOCATIONS_TO": str(tmp_path / "count")})
        work(app, institutions, daemon, rows)
        return int((tmp_path / "count").read_text())
    allocations = without_work(count) / ROWS
    print(f"{allocations:.0f} allocations")
    assert allocations <= ALLOCATIONS


@pytest.mark.skipif(not shutil.which("strace"), reason="no strace command")
@pytest.mark.skipif("asan" in build_folder() or "tsan" in build_folder(), reason="a leak is not looked for in a traced process")
def test_system_calls(app, institutions, make_daemon, tmp_path):
    def count(rows):
        trace = tmp_path / f"trace{rows}"
        daemon = make_daemon({"log_level": "notice"}, wrapper=("strace", "-D", "-f", "-c", "-U", "calls,name", "-o", str(trace)))
        work(app, institutions, daemon, rows)
        total = re.compile(r"^ *(\d+) +total$", re.MULTILINE)
        return int(wait_for(lambda: trace.exists() and total.search(trace.read_text()), 60, "the tracer's count")[1])
    calls = without_work(count) / ROWS
    print(f"{calls:.1f} system calls")
    assert calls <= SYSTEM_CALLS


def test_notifications(app, institutions, daemon):
    """One writer, row by row, beside a daemon that sends what is written."""
    integration = app.integration(institutions.url())
    with app.database.connect() as listener, listener.cursor() as listening:
        listening.execute(f"listen {app.value('select {s}.doorbell_channel()')}")
        listener.commit()
        connection = app.database.connect()
        began = time.monotonic()
        with connection.cursor() as cursor:
            for _ in range(ROWS):
                cursor.execute("insert into anubis.subscriptions (integration_id) values (%s)", (integration,))
        seconds = time.monotonic() - began
        connection.close()
        app.wait_states(sent=ROWS, deadline=120)
        listening.execute("select")
        listener.poll()
        print(f"{len(listener.notifies) / ROWS:.3f} notifications")
        assert len(listener.notifies) <= NOTIFICATIONS * ROWS + RINGS_A_SECOND * seconds
    assert daemon.term() == 0


@pytest.fixture
def counting(own_postgres):
    """An application whose server counts statements."""
    app = Application(own_postgres(settings={"shared_preload_libraries": "pg_stat_statements"}).create_database("counting"))
    Ctl(database=app.database).migrate()
    app.query("create extension pg_stat_statements schema public")
    return app


def test_statements(counting, broker, institutions):
    """From a start to an end, and those of the triggers are not among them."""
    app = counting
    app.subscriptions(app.integration(institutions.url()), ROWS)
    app.query("select public.pg_stat_statements_reset()")
    with Daemon(database=app.database, kafka=broker) as daemon:
        app.wait_states(sent=ROWS, deadline=120)
        wait_for(lambda: app.value("select sum(successful_sends) from {s}.integrations") == ROWS, 120, "all to be counted")
        assert daemon.term() == 0
    statements = app.value("select sum(calls) from public.pg_stat_statements")
    looks = app.value("select coalesce(sum(calls), 0) from public.pg_stat_statements where query like '%%work_refused()%%'", ())
    print(f"{statements / ROWS:.2f} statements, {looks} looks at the schema")
    assert 0 < statements / ROWS <= STATEMENTS
    assert 0 < looks <= LOOKS


def test_a_row_that_rings_costs_one_claim(counting, broker, institutions):
    """While the bell is held, what comes after a claim rings: nothing has to be looked for in between."""
    app = counting
    integration = app.integration(institutions.url())
    with Daemon(database=app.database, kafka=broker) as daemon:
        wait_for(lambda: app.value("select count(*) from pg_stat_activity where application_name = 'anubisd doorbell'") == 1, 30,
                 "the doorbell")
        app.subscription(integration)
        app.wait_states(sent=1)
        app.query("select public.pg_stat_statements_reset()")
        for n in range(SINGLE):
            app.subscription(integration)
            app.wait_states(sent=n + 2)
        claims = app.value("select sum(calls) from public.pg_stat_statements where query like '%%attempts = s.attempts + %%'", ())
        print(f"{claims / SINGLE:.2f} claims")
        assert SINGLE <= claims <= CLAIMS * SINGLE
        assert daemon.term() == 0


def work(app, institutions, daemon, rows):
    """A run of a daemon: rows sent, counted, and its end."""
    app.subscriptions(app.integration(institutions.url()), rows)
    daemon.start()
    wait_for(lambda: app.value("select sum(successful_sends) from {s}.integrations") == app.value(
        "select count(*) from {s}.subscriptions"), 120, "all to be counted")
    assert daemon.term() == 0


def test_no_trigger_is_compiled_for_one_row(app):
    """Their plans are kept for the session, and those that were made for many rows are dear: Postgres would compile them for each
    statement of a single row that comes later, in 12 ms to half a second."""
    integration = app.integration("https://example.com/x")
    connection = app.database.connect()
    with connection.cursor() as cursor:
        cursor.execute("select pg_jit_available()")
        if not cursor.fetchone()[0]:
            unavailable("this Postgres has no compiler (llvmjit)")
        cursor.execute("load 'auto_explain'; set auto_explain.log_min_duration = 0; set auto_explain.log_analyze = on; "
                       "set auto_explain.log_nested_statements = on; set client_min_messages = log; set jit = on")
        for many in (20000, 1):
            connection.notices.clear()
            cursor.execute("insert into anubis.subscriptions (integration_id) select %s from generate_series(1, %s)",
                           (integration, many))
            for old, new in (("pending", "failed"), ("failed", "pending")):
                cursor.execute("update anubis.subscriptions set status = %s where id in (select id from anubis.subscriptions "
                               "where status = %s limit %s)", (new, old, many))
        plans = [notice for notice in connection.notices if "Insert on subscription_events" in notice]
        assert len(plans) == 3 and not [plan for plan in plans if "JIT:" in plan], plans
    connection.close()
