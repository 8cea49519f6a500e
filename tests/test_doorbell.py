"""The doorbell: new rows are picked up at once, inserts do not pay for it, and the poll finds whatever it misses."""
import contextlib
import threading
import time

import pytest
from harness.processes import wait_for
from harness.toxic import Proxy

# Longer than any test: only the bell wakes.
BY_BELL = {"delivery": {"poll_interval": "5m", "timeout": "60s", "lease": "120s"}}
SESSIONS = "select count(*) from pg_stat_activity where datname = current_database() and application_name = %s"


class Bell:
    """A second listener: it counts what the inserts of the application caused."""

    def __init__(self, app):
        self.app = app
        self.connection = app.database.connect()
        cursor = self.connection.cursor()
        cursor.execute("select anubis.doorbell_channel()")
        cursor.execute(f'listen "{cursor.fetchone()[0]}"')

    def rings(self):
        """Since the last call. What was committed before is counted: a statement of ours comes after it."""
        self.connection.cursor().execute("select")
        self.connection.poll()
        count = len(self.connection.notifies)
        self.connection.notifies.clear()
        return count

    def holders(self):
        return self.app.value("""select count(*) from pg_locks l join pg_stat_activity a using (pid)
            where a.datname = current_database() and a.application_name = 'anubisd doorbell' and l.locktype = 'advisory'
              and l.mode = 'ExclusiveLock' and l.granted and l.objid = (anubis.lock_key('bell') & 4294967295)::oid
              and l.classid = ((anubis.lock_key('bell') >> 32) & 4294967295)::oid""")

    def wait_held(self):
        wait_for(lambda: self.holders() == 1, 30, "the bell to be held", interval=0.02)
        self.rings()


@pytest.fixture
def bell(app):
    bell = Bell(app)
    yield bell
    bell.connection.close()


def write(app, integration, clients=16, each=30, columns="", values=""):
    """Single rows, by many at once."""
    def one():
        connection = app.database.connect()
        cursor = connection.cursor()
        for _ in range(each):
            cursor.execute(f"insert into anubis.subscriptions (integration_id{columns}) values (%s{values})", (integration,))
        connection.close()
    threads = [threading.Thread(target=one) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


WAITING = {
    "paused": ({"paused_until": "infinity"}, "", ""),
    "disabled": ({"enabled": False}, "", ""),
    "open circuit": ({}, "", ""),
    "backing off": ({}, "", ""),
    "scheduled": ({}, ", scheduled_to", ", '2999-01-01'"),
    "next attempt later": ({}, ", status, next_attempt_at", ", 'retry', '2999-01-01'"),
    "held": ({}, ", status, held_at", ", 'retry', now()"),
    "sent": ({}, ", status, sent_at", ", 'sent', now()"),
    "failed": ({}, ", status", ", 'failed'"),
    "not routed": (None, "", ""),
}


@pytest.mark.parametrize("why", WAITING)
def test_rows_that_no_claim_could_take_ring_nobody(app, bell, institutions, make_daemon, why):
    settings, columns, values = WAITING[why]
    integration = None if settings is None else app.integration(institutions.url("/good"), **settings)
    if why == "open circuit":
        app.query("update {s}.integration_runtime set circuit_state = 'open' where integration_id = %s", (integration,))
    if why == "backing off":
        app.query("update {s}.integration_runtime set backoff_until = 'infinity' where integration_id = %s", (integration,))
    make_daemon(BY_BELL).start()
    bell.wait_held()
    write(app, integration, columns=columns, values=values)
    assert bell.rings() == 0 and bell.holders() == 1
    # The daemon sleeps, it is not deaf.
    app.subscription(app.integration(institutions.url("/good/other")))
    wait_for(lambda: institutions.counts("/good/other")["requests"], 20, "the other one's row")


WOKEN = {
    "resumed": ({"paused_until": "infinity"}, "update {s}.integrations set paused_until = null"),
    "enabled": ({"enabled": False}, "update {s}.integrations set enabled = true"),
    "circuit closed": ({}, "update {s}.integration_runtime set circuit_state = 'closed'"),
    "routed": ({}, "update {s}.subscriptions set integration_id = (select id from {s}.integrations)"),
    "rescheduled": ({}, "update {s}.subscriptions set scheduled_to = null"),
    "released": ({}, "update {s}.subscriptions set held_at = null"),
}


@pytest.mark.parametrize("how", WOKEN)
def test_what_ends_the_wait_rings(app, bell, institutions, make_daemon, how):
    settings, statement = WOKEN[how]
    integration = app.integration(institutions.url("/good"), **settings)
    if how.startswith("circuit"):
        app.query("update {s}.integration_runtime set circuit_state = 'open' where integration_id = %s", (integration,))
    make_daemon(BY_BELL).start()
    bell.wait_held()
    columns = {"rescheduled": {"scheduled_to": "2999-01-01"}, "released": {"status": "retry", "held_at": "now()"}}.get(how, {})
    app.subscription(None if how == "routed" else integration, **columns)
    bell.wait_held()
    assert not app.states()["sent"]
    app.query(statement)
    app.wait_states(sent=1, deadline=20)


def test_a_circuit_that_opens_rings_nobody(app, bell, institutions, make_daemon):
    integration = app.integration(institutions.url("/good"))
    make_daemon(BY_BELL).start()
    bell.wait_held()
    app.query("update {s}.integration_runtime set circuit_state = 'open'")
    assert bell.rings() == 0


def test_one_that_can_be_claimed_among_many_that_cannot_rings(app, bell, institutions, make_daemon):
    good = app.integration(institutions.url("/good"))
    paused = app.integration("https://x.example/", paused_until="infinity")
    make_daemon(BY_BELL).start()
    bell.wait_held()
    app.query("insert into {s}.subscriptions (integration_id, scheduled_to) "
              "select %s, null::timestamptz from generate_series(1, 500) union all select %s, '2999-01-01' "
              "union all select null, null union all select %s, '2000-01-01'",
              (paused, good, good))
    app.wait_states(sent=1, deadline=20)


@pytest.mark.parametrize("slots", ["of the integration", "of the daemon"])
def test_rings_that_bring_nothing_are_not_wanted(app, bell, institutions, make_daemon, slots):
    """Rows wait for a slot: a pause begins in which inserts do not notify, and the rows of others go out all the same."""
    alone = slots == "of the daemon"
    institutions.stop()
    make_daemon({"delivery": {**BY_BELL["delivery"], **({"max_in_flight": 1} if alone else {})}}).start()
    bell.wait_held()
    full = app.integration(institutions.url("/good/full"), max_in_flight=1)
    app.subscription(full)
    app.wait_states(processing=1)
    write(app, full, each=60)
    assert bell.rings() < 100, "of 960"
    if not alone:
        other = app.integration("http://127.0.0.1:1/x")
        for _ in range(3):
            row = app.subscription(other)
            wait_for(lambda: app.row(row)["status"] == "retry", 20, "the row of another integration")
    institutions.cont()
    app.wait_states(sent=961, deadline=120)


def test_a_busy_daemon_is_not_rung(app, bell, institutions, make_daemon):
    make_daemon(BY_BELL).start()
    integration = app.integration(institutions.url("/good"), max_in_flight=500)
    bell.wait_held()
    write(app, integration, clients=3, each=1200)
    rings = bell.rings()
    app.wait_states(sent=3600)
    # Each row rings while a busy machine keeps the daemon from its turn.
    assert rings < 1200, "of 3600"
    # Then it sleeps again, and is woken.
    bell.wait_held()
    app.subscription(integration)
    app.wait_states(sent=3601, deadline=20)


def test_the_way_to_the_database_is_no_reason_to_look_seldom(database, app, bell, institutions, make_daemon):
    """Where each statement takes long, whatever it has to look through, a ring leads to a claim all the same."""
    with Proxy(("127.0.0.1", database.server.port), delay=0.01) as proxy:
        make_daemon(BY_BELL, database=database.conninfo(tcp=True, port=proxy.port)).start()
        integration = app.integration(institutions.url("/good"))
        bell.wait_held()
        app.subscription(integration)
        app.wait_states(sent=1)
        deaf = 0
        for n in range(30):
            bell.wait_held()
            time.sleep(n % 5 / 100)  # anywhere between two looks
            row = app.subscription(integration)
            seen = wait_for(lambda: [v for v in [(bell.holders(), app.row(row)["status"])] if v != (1, "pending")],  # noqa: B023
                            30, "the claim", interval=0.005)
            deaf += seen[0] == (0, "pending")
    assert deaf < 10, "of 30 the bell was given back instead"


def test_a_long_transaction_that_inserted_keeps_the_bell_for_seconds_only(app, bell, institutions, make_daemon):
    """Its shared lock stands in the way of the daemon's exclusive one. Whoever inserts meanwhile does not wait for the poll."""
    make_daemon({"delivery": {"poll_interval": "30s"}}).start()
    integration = app.integration(institutions.url("/good"))
    bell.wait_held()
    # While the daemon is busy its transaction gets the shared lock.
    with app.database.connect(autocommit=False) as other, other.cursor() as cursor:
        def insert():
            write(app, integration, clients=4, each=5)
            cursor.execute("insert into anubis.subscriptions (integration_id) values (%s)", (integration,))
            taken = app.value("select count(*) from pg_locks where pid = %s and locktype = 'advisory'",
                              (other.get_backend_pid(),))
            if not taken:
                other.rollback()
            return taken
        wait_for(insert, 60, "a transaction that keeps the bell", interval=0)
        count = app.value("select count(*) from {s}.subscriptions")
        app.wait_states(sent=count, deadline=10)
        for n in range(1, 5):
            time.sleep(1)  # until the daemon would have given up
            app.subscription(integration)
            app.wait_states(sent=count + n, deadline=10)
        assert bell.holders() == 0
        other.commit()
    app.wait_states(sent=count + 5, deadline=10)
    bell.wait_held()


def test_rows_are_found_without_the_bell(app, institutions, make_daemon):
    """Somebody else has the bell, the seat, the sessions: the poll is the net below."""
    integration = app.integration(institutions.url("/good"))
    with contextlib.closing(app.database.connect()) as thief, thief.cursor() as cursor:
        cursor.execute("select pg_advisory_lock_shared(anubis.lock_key('bell'))")
        make_daemon({"delivery": {"poll_interval": "200ms"}}).start()
        wait_for(lambda: app.value(SESSIONS, ("anubisd doorbell",)) == 1, 30, "the doorbell")
        app.subscriptions(integration, 5)
        app.wait_states(sent=5, deadline=20)
        for kind in ("listen", "doorbell"):
            for n in range(10):
                app.query("select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() "
                          "and application_name = %s", ("anubisd " + kind,))
                app.subscription(integration)
        app.wait_states(sent=25, deadline=20)
        cursor.execute("select pg_advisory_unlock_shared(anubis.lock_key('bell'))")
        app.subscription(integration)
        app.wait_states(sent=26, deadline=20)


def test_a_daemon_without_the_seat_looks_each_second(app, institutions, make_daemon):
    """The one that has it may be busy, so that nobody is rung, and may not claim for the other's institution."""
    with contextlib.closing(app.database.connect()) as other, other.cursor() as cursor:
        cursor.execute("select pg_advisory_lock(anubis.lock_key('seat'))")
        make_daemon(BY_BELL).start()
        integration = app.integration(institutions.url("/good"))
        for n in range(1, 4):
            app.subscription(integration)
            app.wait_states(sent=n, deadline=20)
            wait_for(lambda: app.value("select now() - max(sent_at) > '3 s' from {s}.subscriptions"), 30, "its looks to be over")


def test_two_daemons_of_which_one_has_the_seat(app, bell, institutions, make_daemon):
    daemons = [make_daemon({**BY_BELL, "instance": f"daemon{n}"}).start() for n in range(2)]
    integration = app.integration(institutions.url("/good"), max_in_flight=500)
    wait_for(lambda: app.value(SESSIONS, ("anubisd doorbell",)) == 2, 30, "both")
    bell.wait_held()
    for n in range(1, 20):
        app.subscription(integration)
        app.wait_states(sent=n, deadline=20)
    write(app, integration, clients=8, each=100)
    app.wait_states(sent=819, deadline=60)
    bell.wait_held()
    assert all(daemon.is_running() for daemon in daemons)
