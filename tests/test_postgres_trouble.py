"""Postgres in trouble that is not ours: tables locked for long, bulk updates, a full disk. Nothing is lost, and the journal
says so."""
import contextlib
import os
import re
import socket
import subprocess
import threading
import time

import psycopg2
import pytest
from harness.anubis import Ctl, Daemon
from harness.application import Application
from harness.postgres import Database
from harness.processes import wait_for
from harness.toxic import Proxy


def under_way(app, count=1):
    wait_for(lambda: app.states()["processing"] >= count, 20, lambda: f"requests under way, now {app.states()}", interval=0.02)


@pytest.mark.parametrize("lock", ["lock table {s}.subscriptions in access exclusive mode",
                                  "select id from {s}.subscriptions for update"])
def test_results_that_wait_for_a_lock(app, institutions, make_daemon, lock):
    """Said once when it lasts, and once when it is over; meanwhile nothing is given up."""
    daemon = make_daemon().start()
    ids = app.subscriptions(app.integration(institutions.url("/slow/1000")), 20)
    under_way(app, 20)
    holder = app.database.connect(autocommit=False)
    holder.cursor().execute(lock.replace("{s}", app.schema))
    daemon.wait_log("20 results cannot be settled for the locks of other sessions")
    holder.rollback()
    holder.close()
    daemon.wait_log("results can be settled again")
    app.wait_states(sent=20)
    assert daemon.log.count("cannot be settled for the locks") == daemon.log.count("can be settled again") == 1
    assert app.value("select max(attempts) from {s}.subscriptions") == 1 and len(ids) == 20
    assert institutions.counts("/slow/1000")["requests"] == 20


@pytest.mark.parametrize("seconds", [4, 7], ids=["longer than leases last", "longer than a claim waits"])
def test_claims_go_on_after_a_lock(app, institutions, make_daemon, seconds):
    """Nothing rings for rows that come due, so the look that the lock held up has to be followed by another one."""
    daemon = make_daemon({"delivery": {"lease": "6s", "timeout": "3s"}}).start()
    integration = app.integration(institutions.url())
    app.subscriptions(integration, 5)
    app.wait_states(sent=5)
    app.query("insert into {s}.subscriptions (integration_id, scheduled_to) "
              "select %s, now() + interval '2 s' from generate_series(1, 5)", (integration,))
    holder = app.database.connect(autocommit=False)
    holder.cursor().execute(f"lock table {app.schema}.subscriptions in access exclusive mode")
    other = app.database.connect()

    def held():
        with other.cursor() as cursor:
            cursor.execute("select now() > max(xact_start) + %s * interval '1 s' from pg_stat_activity "
                           "where pid = %s", (seconds, holder.info.backend_pid))
            return cursor.fetchone()[0]
    wait_for(held, 30, "the lock to have lasted", interval=0.1)
    holder.rollback()
    app.wait_states(sent=10, deadline=30)
    assert daemon.term() == 0
    holder.close()
    other.close()


def test_results_that_wait_hold_up_other_requests_only_when_many(app, institutions, make_daemon):
    """As many as there are slots may wait for the database before no more is sent: what waits is in memory alone."""
    slots = 8
    app.query("create function {s}.waits() returns trigger language plpgsql as "
              "$$ begin perform pg_advisory_xact_lock(77); return new; end $$; "
              "create trigger waits before update on {s}.subscriptions for each row when (new.status = 'sent') "
              "execute function {s}.waits()")
    daemon = make_daemon({"delivery": {"max_in_flight": slots, "max_in_flight_per_integration": slots}}).start()
    holder = app.database.connect(autocommit=False)
    holder.cursor().execute("select pg_advisory_xact_lock(77)")
    app.subscriptions(app.integration(institutions.url("/good/waits")), 10 * slots)
    daemon.wait_log("results cannot be settled for the locks of other sessions")
    assert slots < institutions.counts("/good/waits")["requests"] <= 2 * slots
    holder.rollback()
    holder.close()
    app.wait_states(sent=10 * slots)
    assert institutions.counts("/good/waits")["requests"] == 10 * slots


def claimed_at(app):
    """When the claims' session sent its last statement."""
    return app.value("select max(query_start) from pg_stat_activity where datname = current_database() "
                     "and application_name = 'anubisd claim'")


@pytest.mark.parametrize("table", ["subscriptions", "integrations"])
def test_claims_that_wait_for_a_lock(app, institutions, make_daemon, table):
    """The lock is on a whole table; said once when it lasts, and once when it is over."""
    integration = app.integration(institutions.url("/good"))
    daemon = make_daemon().start()
    app.subscriptions(integration, 5)
    app.wait_states(sent=5)
    holder = app.database.connect(autocommit=False)
    holder.cursor().execute(f"lock table {app.schema}.{table} in access exclusive mode")
    daemon.wait_log("subscriptions cannot be claimed for another session's lock", 20)
    wait_for(lambda: "DELIVERIES STAND STILL: claims wait for" in daemon.status(), 20, "systemctl status to say so")
    tried = claimed_at(app)
    wait_for(lambda: claimed_at(app) > tried, 20, "another try, which must not say it again")
    holder.rollback()
    holder.close()
    daemon.wait_log("subscriptions can be claimed again")
    app.subscriptions(integration, 5)
    app.wait_states(sent=10)
    assert daemon.log.count("cannot be claimed for") == daemon.log.count("can be claimed again") == 1
    assert "could not claim" not in daemon.log and "could not look for" not in daemon.log


def test_bulk_updates_of_the_application(app, institutions, make_daemon, ctl):
    """In random order, against claims and results: whoever is a deadlock's victim, no result is lost and nothing goes out
    twice."""
    app.subscriptions(app.integration(institutions.url("/good")), 3000)
    done = threading.Event()

    def update():
        connection = app.database.connect()
        while not done.is_set():
            with contextlib.suppress(psycopg2.errors.DeadlockDetected):
                connection.cursor().execute(
                    "update anubis.subscriptions s set origin = 'bulk' from (select id from anubis.subscriptions "
                    "where status <> 'sent' order by random() limit 2000) x where x.id = s.id")
        connection.close()
    workers = [threading.Thread(target=update) for _ in range(2)]
    for worker in workers:
        worker.start()
    try:
        make_daemon().start()
        app.wait_states(sent=3000, deadline=120)
    finally:
        done.set()
        for worker in workers:
            worker.join()
    assert app.value("select max(attempts) from {s}.subscriptions") == 1
    assert institutions.counts("/good")["requests"] == 3000
    wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof: {ctl('verify')}", interval=0.5)


@contextlib.contextmanager
def small_disk(server):
    """A folder of the server's on a file system of 96 MB."""
    folder = os.path.join(server.folder, "small")
    os.mkdir(folder)
    mount = ["mount", "-t", "tmpfs", "-o", "size=96m,mode=755", "tmpfs", folder]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only who may mount a file system can have a full one")
    try:
        space = os.path.join(folder, "space")
        os.mkdir(space, 0o700)
        os.chown(space, server.user.pw_uid, server.user.pw_gid)
        yield space
    finally:
        server.stop("immediate")
        subprocess.run(["umount", folder], check=True)


@contextlib.contextmanager
def no_space(folder):
    """Fills what is left of it, to the last block."""
    path = os.path.join(folder, "ballast")
    with open(path, "wb", buffering=0) as file:
        with contextlib.suppress(OSError):
            while file.write(b"\0" * 65536):
                pass
    try:
        yield
    finally:
        os.unlink(path)


def test_full_disk(own_postgres, institutions, make_daemon, broker):
    """Tables cannot grow: said clearly, the results are kept, and settled when there is space again."""
    server = own_postgres()
    with small_disk(server) as space:
        server.query(f"create tablespace small location '{space}'")
        server.query("create database full_disk tablespace small")
        database = Database(server, "full_disk")
        Ctl(database=database).migrate()
        app = Application(database)
        integration = app.integration(institutions.url("/slow/2000"))
        daemon = make_daemon(database=database).start()
        app.subscriptions(integration, 200)
        under_way(app, 20)
        with no_space(os.path.dirname(space)):
            daemon.wait_log("the database refuses deliveries, .*No space left on device.*: free space on the database server's",
                            deadline=60)
            wait_for(lambda: "DELIVERIES STAND STILL: could not" in daemon.status(), 20, "systemctl status to say so")
            assert daemon.is_running()
        app.wait_states(sent=200, deadline=120)
        daemon.wait_log("the database takes deliveries again")
        wait_for(lambda: "STAND STILL" not in daemon.status(), 20, "systemctl status to be well")
        assert app.value("select max(attempts) from {s}.subscriptions") == 1
        assert institutions.counts("/slow/2000")["requests"] == 200
        ctl = Ctl(database=database, kafka=broker)
        wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof: {ctl('verify')}", interval=0.5)
        assert daemon.term() == 0


REFUSED = ("create function {s}.refuse() returns trigger language plpgsql as $$ begin "
           "raise exception using errcode = '%s', message = 'permission denied for table subscriptions'; end $$; "
           "create trigger refuse before update on {s}.subscriptions for each row execute function {s}.refuse()")


@pytest.mark.parametrize("sqlstate, helps", [("42501", "anubis.anubisd_grant\\('ROLE'\\)"), ("53200", "lacks memory"),
                                             ("XX001", "")])
def test_statements_that_are_refused(app, institutions, make_daemon, sqlstate, helps):
    """An outage: said once with what helps, shown by systemctl status, and once when it is over."""
    daemon = make_daemon({"log_level": "info"}).start()
    app.subscriptions(app.integration(institutions.url("/slow/1000")), 20)
    under_way(app, 20)
    app.query(REFUSED % sqlstate)
    daemon.wait_log(f"the database refuses deliveries, could not settle .* results?: .* \\(SQLSTATE {sqlstate}\\).*{helps}")
    app.subscriptions(1, 20)  # nor can they be claimed, for the same reason
    wait_for(lambda: "DELIVERIES STAND STILL: could not claim subscriptions" in daemon.status(), 20, "systemctl status to say so")
    tried = claimed_at(app)
    wait_for(lambda: claimed_at(app) > tried, 20, "another try, which must not say it again")
    app.query("drop trigger refuse on {s}.subscriptions")
    daemon.wait_log("the database takes deliveries again, which it refused for")
    app.wait_states(sent=40)
    wait_for(lambda: "STAND STILL" not in daemon.status(), 20, "systemctl status to be well")
    assert daemon.log.count("the database refuses deliveries") == daemon.log.count("the database takes deliveries again") == 1
    assert app.value("select max(attempts) from {s}.subscriptions") == 1


def test_column_widened_while_it_works(app, institutions, daemon):
    """Prepared statements outlive what a migration of the application's does to its columns."""
    integration = app.integration(institutions.url("/good"))
    app.subscriptions(integration, 10)
    app.wait_states(sent=10)
    app.query("select {s}.anubis_alter('alter table anubis.integrations alter timeout_ms type bigint, "
              "alter max_attempts type bigint')")
    app.subscriptions(integration, 10)
    app.wait_states(sent=20)


@pytest.mark.parametrize("setting", ["default_transaction_isolation = 'serializable'", "idle_session_timeout = '300ms'"])
def test_settings_meant_for_others(own_postgres, broker, institutions, setting):
    """What the database sets for everybody's sessions neither refuses nor ends those of the daemon."""
    server = own_postgres()
    if server.value("select current_setting(%s, true)", (setting.split()[0],)) is None:
        pytest.skip("this PostgreSQL does not know the setting")
    database = server.create_database("anubis")
    database.query(f"alter database anubis set {setting}")
    Ctl(database=database).migrate()
    app = Application(database)
    integration = app.integration(institutions.url("/good"))
    with Daemon({"consumers": {"threads": 2}}, database=database, kafka=broker) as daemon:
        for _ in range(4):
            app.query("insert into {s}.subscriptions (integration_id) select %s from generate_series(1, 200)", (integration,))
            time.sleep(0.7)
        app.wait_states(sent=800)
        wait_for(lambda: app.value("select successful_sends = 800 from {s}.integrations"), 60, "the counters")
        assert daemon.term() == 0
    assert "could not serialize access" not in server.child.output
    assert "idle-session timeout" not in server.child.output


PLANNERS = {
    "as it comes": [],
    "without nested loops": ["enable_nestloop = off"],
    "without index scans": ["enable_indexscan = off", "enable_indexonlyscan = off"],
    "with workers": ["max_parallel_workers_per_gather = 4", "parallel_setup_cost = 0", "parallel_tuple_cost = 0",
                     "min_parallel_table_scan_size = 0", "min_parallel_index_scan_size = 0"],
}
SCANNED = re.compile(r"Scan .*\bon \w+.* rows=([0-9.]+) loops=(\d+)\)")


@pytest.mark.parametrize("planner", PLANNERS)
def test_a_planner_set_for_others(own_postgres, broker, institutions, planner):
    """Whatever the database sets for everybody's sessions, the daemon's statements read a few rows and start no workers."""
    server = own_postgres(settings={"session_preload_libraries": "auto_explain", "auto_explain.log_min_duration": "0",
                                    "auto_explain.log_analyze": "on", "log_line_prefix": "=== %a ==="})
    database = server.create_database("anubis")
    Ctl(database=database).migrate()
    app = Application(database)
    integration = app.integration(institutions.url("/good"))
    app.query("insert into {s}.subscriptions (integration_id, status) select %s, 'failed' from generate_series(1, 5000)",
              (integration,))
    for setting in PLANNERS[planner]:
        database.query(f"alter database anubis set {setting}")
    with Daemon(database=database, kafka=broker) as daemon:
        wait_for(lambda: app.value("select high >= 5000 from {s}.relay_state"), 60, "what was there to be published")
        before = len(server.child.output)
        for _ in range(20):
            app.subscription(integration)
        app.wait_states(sent=20)
        wait_for(lambda: app.value("select sum(sent) from {s}.integration_runtime") == 20, 60, "the counters")
        assert daemon.term() == 0
    said = [part for part in server.child.output[before:].split("=== anubisd ")[1:] if "Query Text" in part]
    ours = [part.split("===")[0] + part.split("===")[1] for part in said]
    assert len([plan for plan in ours if "update subscriptions s set" in plan]) > 1
    greedy = [plan for plan in ours if re.search("^(claim|settle|relay)", plan)
              and any(float(rows) * int(loops) > 3000 for rows, loops in SCANNED.findall(plan))]
    assert not greedy, greedy[0]
    assert not [plan for plan in ours if "Workers Launched" in plan]


# --- a server that takes no writes ---


READ_ONLY = r"takes no writes|read-only transaction"


def frozen(server, how, on):
    """As before an upgrade or a switch-over."""
    value = "on" if on else "off"
    if how == "server":
        server.query(f"alter system set default_transaction_read_only = {value}")
        server.query("select pg_reload_conf()")
    else:
        server.query(f"set transaction read write; alter {how} set default_transaction_read_only = {value}")
        server.terminate_backends("anubisd%")


@pytest.mark.parametrize("how", ["database anubis", "role postgres", "server"])
def test_a_freeze_is_waited_for(own_postgres, broker, institutions, how):
    """Every part gives its sessions up and has new ones when it is over, whether the freeze met them or they met it."""
    server = own_postgres()
    database = server.create_database("anubis")
    Ctl(database=database).migrate()
    app = Application(database)
    integration = app.integration(institutions.url("/good"))
    with Daemon({"log_level": "info"}, database=database, kafka=broker) as daemon:
        app.subscriptions(integration, 10)
        app.wait_states(sent=10)
        wait_for(lambda: app.value("select sum(sent) from {s}.integration_runtime") == 10, 60, "the counters")
        frozen(server, how, True)
        app.query("set transaction read write; insert into {s}.subscriptions (integration_id) select %s "
                  "from generate_series(1, 10)", (integration,))
        daemon.wait_log(READ_ONLY)
        frozen(server, how, False)
        app.wait_states(sent=20)
        wait_for(lambda: app.value("select sum(sent) from {s}.integration_runtime") == 20, 60, "the counters")
        assert Ctl(database=database, kafka=broker)("verify").code == 0
        assert daemon.term() == 0
        said = [line for line in daemon.log.splitlines() if re.search(READ_ONLY, line) and "debug:" not in line]
        assert len(said) <= 3, said
        assert app.value("select max(attempts) from {s}.subscriptions") == 1


def test_a_standby_by_mistake_is_left(own_postgres, broker, institutions):
    """An address that follows a failover late leads to a standby for a while."""
    primary = own_postgres(settings={"wal_level": "replica", "max_wal_senders": "4", "hot_standby": "on"})
    database = primary.create_database("anubis")
    Ctl(database=database).migrate()
    app = Application(database)
    integration = app.integration(institutions.url("/good"))
    with contextlib.closing(primary.standby()) as standby, Proxy(f"127.0.0.1:{primary.port}") as proxy:
        standby.start()
        address = {"database": {"conninfo": f"host=127.0.0.1 port={proxy.port} dbname=anubis user=postgres"}}
        with Daemon({"log_level": "info", **address}, kafka=broker) as daemon:
            app.subscriptions(integration, 10)
            app.wait_states(sent=10)
            proxy.target = ("127.0.0.1", standby.port)
            proxy.cut()
            daemon.wait_log("the database takes no writes: the server is a standby")
            text = Ctl(database=Database(standby, "anubis"))("status").expect(0).stdout
            assert "TAKES NO WRITES: the server is a standby" in text
            app.subscriptions(integration, 10)
            proxy.target = ("127.0.0.1", primary.port)
            app.wait_states(sent=20)
            wait_for(lambda: app.value("select sum(sent) from {s}.integration_runtime") == 20, 60, "the counters")
            assert daemon.log.count("the server is a standby") <= 3
            assert daemon.term() == 0
        both = Database(primary, "anubis").conninfo(tcp=True).replace(
            f"port={primary.port}", f"port={standby.port},{primary.port}").replace("host=127.0.0.1", "host=127.0.0.1,127.0.0.1")
        with Daemon({"log_level": "info", "database": {"conninfo": both}}, kafka=broker) as daemon:
            app.subscriptions(integration, 10)
            app.wait_states(sent=30)
            assert "standby" not in daemon.log and "read-only" not in daemon.log


def test_the_reason_that_lasts_is_said(own_postgres, broker, institutions):
    """The sessions were ended, which is said at once; others take all connections, which is why there are no new ones."""
    server = own_postgres(settings={"max_connections": "30"})
    database = server.create_database("anubis")
    Ctl(database=database).migrate()
    app = Application(database)
    server.query("create role worker login; create role greedy login")
    app.query("select {s}.anubisd_grant('worker')")
    integration = app.integration(institutions.url("/good"))
    held = []

    def take_all():
        with contextlib.suppress(psycopg2.OperationalError):
            while True:
                held.append(psycopg2.connect(database.conninfo(user="greedy")))
    with Daemon({"log_level": "info", "consumers": {"monitoring": False, "external": False}},
                database=database.conninfo(user="worker"), kafka=broker) as daemon:
        app.subscriptions(integration, 5)
        app.wait_states(sent=5)
        take_all()

        def ended():
            server.query("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'worker'")
            take_all()
            return "the database is still away: " in daemon.log
        wait_for(ended, 60, "the reason", interval=0.1)
        said = re.findall(r"warning: (could not work with the database|the database is still away): (.*); trying again",
                          daemon.log)
        assert [words for words, _ in said] == ["could not work with the database", "the database is still away"]
        assert "connection slots" in said[1][1], said
        for connection in held:
            connection.close()
        app.subscriptions(integration, 5)
        app.wait_states(sent=10, deadline=60)
        daemon.wait_log("the database is back")
        assert daemon.term() == 0


def test_application_is_no_deadlocks_victim(app, institutions, make_daemon):
    """It changes rows in descending order, one after the other, while their results are written in ascending order, slowly."""
    app.query("create function {s}.slowly() returns trigger language plpgsql as "
              "$$ begin perform pg_sleep(0.0003); return new; end $$; "
              "create trigger slowly before update on {s}.subscriptions for each row execute function {s}.slowly(); "
              "create function {s}.descend(ids bigint[]) returns void language plpgsql as "
              "$$ begin for n in reverse cardinality(ids)..1 "
              "loop update {s}.subscriptions set order_id = 1 where id = ids[n]; end loop; end $$")
    integration = app.integration(institutions.url("/good"), max_in_flight=400)
    daemon = make_daemon({"delivery": {"max_in_flight": 600, "lease": "600s"}}).start()
    for n in range(5):
        institutions.stop()
        ids = app.subscriptions(integration, 400)
        under_way(app, 400)
        daemon.stop()
        institutions.cont()
        time.sleep(0.5)
        daemon.cont()
        time.sleep(0.03 * n)
        app.query("select {s}.descend(%s)", (ids,))
        app.wait_states(sent=400 * (n + 1))


@pytest.mark.parametrize("way", ["refused", "no answer"])
def test_the_session_that_stores_results_is_lost_alone(app, institutions, make_daemon, ctl, way):
    """And cannot be opened anew, as when a pooler has no place: nothing more is claimed, which is said; and no result is lost."""
    integration = app.integration(institutions.url("/good"))
    other = make_daemon({"instance": "other", "delivery": {"lease": "6s", "timeout": "2s"}, "retry": {"max_attempts": 3}})
    with (Proxy(f"127.0.0.1:{app.database.server.port}") as proxy,
          contextlib.closing(socket.create_server(("127.0.0.1", 0))) as hole):
        right, wrong = proxy.target, hole.getsockname()
        if way == "refused":
            hole.close()
        conninfo = f"host=127.0.0.1 port={proxy.port} dbname={app.database.name} user=postgres connect_timeout=2"
        daemon = make_daemon({**other.settings, "instance": "cut",
                              "database": {"conninfo": conninfo, "schema": app.schema}}).start()
        app.subscriptions(integration, 10)
        app.wait_states(sent=10)
        proxy.target = wrong
        lost = "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'anubisd settle'"
        assert app.query(lost)
        other.start()
        for n in range(20):
            app.subscriptions(integration, 4)
            app.wait_states(pending=0)
        daemon.wait_log("results cannot be stored, since their session with the database cannot be opened: .*; nothing is "
                        "claimed", 30)
        wait_for(lambda: app.states()["sent"] >= 80, 60, lambda: app.states())
        proxy.target = right
        app.wait_states(sent=90, deadline=60)
        over = "notice: (?:results can be stored again|the database is back)"
        daemon.wait_log(over)
        assert len(re.findall(over, daemon.log)) == 1
        counts = [key.received for key in institutions.keys().values()]
        assert len(counts) == 90 and max(counts) <= 2, counts
        ctl("verify", "--wait").expect(0)


class Doorkeeper:
    """In front of a server: connections whose first packet has one of `refused` are closed."""

    def __init__(self, target):
        self.target, self.refused = target, []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=self._serve, args=(self._listener.accept()[0],), daemon=True).start()

    def _serve(self, client):
        with client, socket.create_connection(self.target) as server, contextlib.suppress(OSError):
            first = client.recv(65536)
            if any(word in first for word in self.refused):
                return
            server.sendall(first)
            back = threading.Thread(target=self._pump, args=(server, client), daemon=True)
            back.start()
            self._pump(client, server)
            back.join()

    @staticmethod
    def _pump(source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)

    def close(self):
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.mark.parametrize("away", ["settle", "claim"])
def test_the_database_is_back_when_all_of_it_is(app, institutions, make_daemon, away):
    """One session is back at once, and the other one is not. It is said once, when both are."""
    with contextlib.closing(Doorkeeper(("127.0.0.1", app.database.server.port))) as door:
        conninfo = (f"host=127.0.0.1 port={door.port} dbname={app.database.name} user=postgres sslmode=disable "
                    "gssencmode=disable connect_timeout=2")
        daemon = make_daemon({"database": {"conninfo": conninfo, "schema": app.schema}}).start()
        integration = app.integration(institutions.url("/good"))
        app.subscriptions(integration, 5)
        app.wait_states(sent=5)
        door.refused = [f"anubisd {away}".encode()]
        app.query("select pg_terminate_backend(pid) from pg_stat_activity where application_name ~ '^anubisd (claim|settle)'")
        daemon.wait_log("could not work with the database")
        other = "claim" if away == "settle" else "settle"
        wait_for(lambda: app.value("select count(*) from pg_stat_activity where application_name ~ %s", (f"^anubisd {other}",)),
                 30, "the other one to be back")
        if away == "settle":
            daemon.wait_log("results cannot be stored, since their session", 30)
        else:
            daemon.wait_log("the database is still away", 30)
        assert "notice: the database is back" not in daemon.log
        door.refused = []
        daemon.wait_log("notice: the database is back", 60)
        app.subscriptions(integration, 5)
        app.wait_states(sent=10)
        assert daemon.log.count("notice: the database is back") == 1 and "results can be stored again" not in daemon.log
        assert daemon.term() == 0


@pytest.mark.parametrize("lost", [["settle"], ["settle", "monitor", "listen"]], ids=len)
def test_what_a_daemon_has_sent_and_cannot_store_goes_out_once(app, institutions, make_daemon, ctl, lost):
    """Its leases are over meanwhile. Another daemon leaves them to it as long as it is there; not where it is gone, or frozen."""
    integration = app.integration(institutions.url("/slow/1500/once"), max_attempts=1)
    with Proxy(f"127.0.0.1:{app.database.server.port}") as proxy, contextlib.closing(socket.socket()) as hole:
        hole.bind(("127.0.0.1", 0))
        right, wrong = proxy.target, hole.getsockname()
        conninfo = f"host=127.0.0.1 port={proxy.port} dbname={app.database.name} user=postgres"
        settings = {"delivery": {"lease": "3s", "timeout": "2s"}, "log_level": "debug"}
        daemon = make_daemon({**settings, "instance": "cut", "database": {"conninfo": conninfo, "schema": app.schema}}).start()
        ids = app.subscriptions(integration, 20)
        under_way(app, 20)
        proxy.target = wrong
        assert app.query("select pg_terminate_backend(pid) from pg_stat_activity where application_name = any (%s)",
                         (["anubisd " + name for name in lost],))
        other = make_daemon({**settings, "instance": "other"}).start()
        daemon.wait_log("results cannot be stored", 30)
        over = "select max(lease_expires_at) < now() - interval '5 s' from {s}.subscriptions"
        wait_for(lambda: app.value(over), 60, "the leases to be over")
        proxy.target = right
        app.wait_states(sent=20)
        assert institutions.counts("/slow/1500/once")["requests"] == 20 and other.log.count("without a result") == 0
        ctl("verify", "--wait").expect(0)
        for end in (daemon.stop, daemon.kill9):
            other.stop()
            app.subscriptions(integration, 3)
            wait_for(lambda: app.value("select count(*) from {s}.subscriptions where claimed_by = 'cut'"), 60, "a claim")
            end()
            other.cont()
            wait_for(lambda: app.states()["processing"] == 0, 60, lambda: f"the other one to end it, now {app.states()}")
            daemon.cont()
        assert len(ids) == 20


@pytest.mark.parametrize("roles, hours", [(["w1"], 1), (["w1", "w2"], 0)])
def test_a_refusal_that_outlasts_leases_loses_no_result(own_postgres, institutions, make_daemon, roles, hours):
    """However long it lasts; where daemons cannot see each other's sessions at work, being of different roles, for minutes."""
    database = own_postgres().create_database("anubis")
    Ctl(database=database).migrate()
    app = Application(database)
    integration = app.integration(institutions.url("/slow/1500/refused"), max_attempts=1)
    for role in roles:
        app.query(f"create role {role} login")
        app.query(f"select {{s}}.anubisd_grant('{role}')")

    def start(name, role):
        return make_daemon({"instance": name, "delivery": {"lease": "3s", "timeout": "2s"}, "database": {
            "conninfo": database.conninfo().replace("user=postgres", f"user={role}"), "schema": app.schema}}).start()
    start("first", roles[0])
    app.subscriptions(integration, 20)
    under_way(app, 20)
    second = start("second", roles[-1])
    for role in roles:
        app.query(f"revoke update on {{s}}.subscriptions from {role}")
    over = "select max(lease_expires_at) < now() - interval '20 s' from {s}.subscriptions"
    wait_for(lambda: app.value(over), 60, "the leases to be over")
    app.query(f"set session_replication_role = replica; update {{s}}.subscriptions set lease_expires_at = "
              f"lease_expires_at - interval '{hours} hours'; set session_replication_role = origin")
    for role in roles:
        app.query(f"grant update on {{s}}.subscriptions to {role}")
    app.wait_states(sent=20)
    assert institutions.counts("/slow/1500/refused")["requests"] == 20, roles
    if len(roles) > 1:
        second.wait_log('the daemon "first" leads, and this one.s role cannot see its session')
    else:
        assert "cannot see its session" not in second.log


def test_a_role_that_is_made_anew_under_its_name(own_postgres, institutions, make_daemon):
    """Sessions that live on have a role that nobody knows: what they hold is stored by others, and no result is lost."""
    database = own_postgres().create_database("anubis")
    ctl = Ctl(database=database)
    ctl.migrate()
    app = Application(database)
    integration = app.integration(institutions.url("/slow/1500/anew"), max_attempts=1)
    made = "create role w1 login; select {s}.anubisd_grant('w1')"
    app.query(made)
    conninfo = database.conninfo().replace("user=postgres", "user=w1")
    daemon = make_daemon({"database": {"conninfo": conninfo, "schema": app.schema}}).start()
    app.subscriptions(integration, 20)
    under_way(app, 20)
    app.query("drop owned by w1; drop role w1")
    app.query(made)
    app.wait_states(sent=20, deadline=120)
    app.subscriptions(integration, 5)
    app.wait_states(sent=25)
    looks = ("select count(*) from pg_locks where locktype = 'advisory' and granted "
             "and (classid::bigint << 32) | objid::bigint = {s}.lock_key('alerts')")
    wait_for(lambda: app.value(looks) == 1, 120, "a daemon to look for alerts")
    assert institutions.counts("/slow/1500/anew")["requests"] == 25 and daemon.is_running()


def test_a_clock_that_is_set_back_parks_nothing(app, institutions, make_daemon):
    """What was written while the server's clock was five hours ahead waits as long as any other, not until that time."""
    integration = app.integration(institutions.url("/good"))
    rows = app.subscriptions(integration, 3)
    ahead = "now() + interval '5 hours'"
    app.query(f"update {{s}}.subscriptions set status = 'retry', attempts = 1, next_attempt_at = {ahead} + interval '1 s', "
              f"updated_at = {ahead} where id = %s", (rows[0],))
    app.query("update {s}.subscriptions set status = 'processing', attempts = 1, claimed_by = 'x', claim_token = 1, "
              f"lease_expires_at = {ahead} + interval '1 s', updated_at = {ahead} where id = %s", (rows[1],))
    app.query("update {s}.subscriptions set status = 'retry', attempts = 1, next_attempt_at = now() + interval '5 hours' "
              "where id = %s", (rows[2],))
    app.query(f"update {{s}}.integration_runtime set backoff_until = {ahead} + interval '1 s', backoff_since = {ahead}, "
              "backoff_reason = 'HTTP 429' where integration_id = %s", (integration,))
    served = app.integration(institutions.url("/good"), max_in_flight=2)
    app.query("update {s}.integration_runtime set served_by = 'gone', served_since = " + ahead + ", "
              f"served_until = {ahead} + interval '1 s' where integration_id = %s", (served,))
    app.subscriptions(served, 3)
    daemon = make_daemon().start()
    daemon.wait_log("warning: the database server's clock was set back: 2 subscriptions ")
    app.wait_states(sent=5, retry=1)
    assert app.row(rows[2])["attempts"] == 1 and daemon.log.count("was set back") == 1


def test_a_server_of_little_memory_and_without_temporary_files(own_postgres, broker, institutions, make_daemon):
    """Such settings are meant for others: each of the daemon's statements would be refused."""
    server = own_postgres(settings={"work_mem": "64kB", "temp_file_limit": "0"})
    database = server.create_database("little")
    ctl = Ctl(database=database, kafka=broker)
    ctl.migrate()
    app = Application(database)
    app.query("set work_mem = '16MB'; insert into {s}.subscriptions (integration_id) select %s from generate_series(1, 3000)",
              (app.integration(institutions.url()),))
    daemon = make_daemon(database=database).start()
    app.wait_states(sent=3000, deadline=120)
    ctl("verify", "--wait", deadline=120).expect(0)
    assert "temp_file_limit" not in daemon.log and "temp_file_limit" not in server.child.output


def test_a_former_primary_that_still_answers(own_postgres, broker, institutions):
    """One session is lost, and comes to the promoted standby: the others follow, or results of its claims would go elsewhere."""
    primary = own_postgres(settings={"wal_level": "replica", "max_wal_senders": "4", "hot_standby": "on"})
    app = Application(primary.create_database("anubis"))
    Ctl(database=app.database).migrate()
    integration = app.integration(institutions.url("/good/follow"))
    with contextlib.closing(primary.standby()) as standby, Proxy(f"127.0.0.1:{primary.port}") as proxy:
        standby.start()
        settings = {"database": {"conninfo": f"host=127.0.0.1 port={proxy.port} dbname=anubis user=postgres"},
                    "delivery": {"timeout": "3s", "lease": "6s"}}
        with Daemon(settings, database=app.database, kafka=broker) as daemon:
            app.subscriptions(integration, 5)
            app.wait_states(sent=5)
            end = primary.value("select pg_current_wal_lsn()")
            wait_for(lambda: standby.value("select pg_last_wal_replay_lsn() >= %s::pg_lsn", (end,)), 30,
                     "the standby to have it all")
            standby.query("select pg_promote()")
            wait_for(lambda: not standby.value("select pg_is_in_recovery()"), 30, "the standby's promotion")
            proxy.target = ("127.0.0.1", standby.port)
            primary.terminate_backends("anubisd claim", "anubis")
            now = Application(Database(standby, "anubis"))
            now.subscriptions(integration, 20)
            now.wait_states(sent=25, deadline=60)
            sessions = "select count(*) from pg_stat_activity where application_name like 'anubisd%%'"
            wait_for(lambda: primary.value(sessions, ()) == 0, 60, "the others to follow")
            ctl = Ctl(database=now.database, kafka=broker)
            wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof: {ctl('verify')}", interval=0.5)
            assert sorted(key.received for key in institutions.keys("/good/follow").values()) == [1] * 25
            assert "after its claim had ended" not in daemon.log and daemon.term() == 0


def test_commits_that_wait_for_a_standby_are_no_silence(own_postgres, broker, institutions):
    """The synchronous one is gone: what the relay saves hangs in its commit, and no lock shows it."""
    server = own_postgres()
    app = Application(server.create_database("anubis"))
    Ctl(database=app.database).migrate()
    integration = app.integration(institutions.url("/good"))
    with Daemon(database=app.database, kafka=broker) as daemon:
        app.subscriptions(integration, 5)
        app.wait_states(sent=5)
        server.query("alter system set synchronous_standby_names = 'gone'")
        server.query("select pg_reload_conf()")
        with contextlib.closing(app.database.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("set synchronous_commit = local")
            cursor.execute("insert into anubis.subscriptions (integration_id) values (%s)", (integration,))
        daemon.wait_log("the relay waits for the database, .*synchronous_standby_names", 60)
        with contextlib.closing(server.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("set synchronous_commit = local")
            cursor.execute("alter system reset synchronous_standby_names")
            cursor.execute("select pg_reload_conf()")
        app.wait_states(sent=6, deadline=90)
        wait_for(lambda: Ctl(database=app.database, kafka=broker)("verify").code == 0, 90, "the proof", interval=0.5)
        assert daemon.term() == 0


def test_a_session_that_is_refused_takes_no_others_along(own_postgres, broker, institutions):
    """The address leads to a server without our schema for a while, and one session is lost: the others work on."""
    server, strange = own_postgres(), own_postgres()
    strange.create_database("anubis")
    app = Application(server.create_database("anubis"))
    Ctl(database=app.database).migrate()
    integration = app.integration(institutions.url("/good"))
    with Proxy(f"127.0.0.1:{server.port}") as proxy:
        address = {"database": {"conninfo": f"host=127.0.0.1 port={proxy.port} dbname=anubis user=postgres"}}
        with Daemon(address, database=app.database, kafka=broker) as daemon:
            app.subscriptions(integration, 5)
            app.wait_states(sent=5)
            proxy.target = ("127.0.0.1", strange.port)
            server.terminate_backends("anubisd monitor", "anubis")
            came = "select count(*) from pg_stat_database where datname = 'anubis' and sessions > 0"
            wait_for(lambda: strange.value(came) == 1, 30, "it to come there")
            app.subscriptions(integration, 20)
            app.wait_states(sent=25)
            proxy.target = ("127.0.0.1", server.port)
            wait_for(lambda: len(server.backends("anubisd monitor", "anubis")) == 1, 60, "it to come back")
            assert daemon.term() == 0
