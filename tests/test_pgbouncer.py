"""PgBouncer, the real one: a pool in session mode serves the daemon, other modes are refused with the setting that helps."""
import contextlib

import psycopg2
import pytest

from conftest import unavailable
from harness.anubis import Ctl
from harness.pgbouncer import PgBouncer
from harness.postgres import Unavailable
from harness.processes import wait_for


@pytest.fixture
def bouncer(database):
    started = []

    def make(mode, **settings):
        try:
            started.append(PgBouncer(database.server, mode, **settings))
        except Unavailable as e:
            unavailable(str(e))
        return started[-1].__enter__().conninfo(database)
    yield make
    for each in started:
        each.__exit__()


def test_a_pool_in_session_mode_serves(bouncer, database, app, institutions, make_daemon):
    through = bouncer("session")
    daemon = make_daemon(database=through).start()
    app.subscriptions(app.integration(institutions.url("/good")), 50)
    app.wait_states(sent=50)
    ctl = Ctl(daemon.settings)
    wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof: {ctl('verify')}", interval=0.5)
    ctl("status").expect(0)
    assert "pooler" not in daemon.log and " warning: " not in daemon.log
    assert daemon.term() == 0


def test_a_pool_that_is_too_small_is_named(bouncer, app, institutions, make_daemon):
    """Nothing is sent that could not be stored; and it is said why sessions get no answer, whichever it is."""
    daemon = make_daemon(database=bouncer("session", default_pool_size=2, query_wait_timeout=5)).start()
    app.subscriptions(app.integration(institutions.url("/good")), 5)
    daemon.wait_log("if through a pooler, its pool may be full", 90)
    assert daemon.term() == 0


@pytest.mark.parametrize("mode, settings", [("transaction", {}), ("transaction", {"default_pool_size": 1}),
                                            ("transaction", {"server_round_robin": 1}), ("statement", {})])
def test_other_pools_are_refused(bouncer, app, institutions, make_daemon, mode, settings):
    through = bouncer(mode, **settings)
    daemon = make_daemon(database=through).start()
    daemon.wait_log("pooler in transaction mode, .* set pool_mode = session for this database in pgbouncer.ini")
    app.subscription(app.integration(institutions.url("/good")))
    assert daemon.term() == 0
    app.wait_states(pending=1)
    assert "pool_mode = session" in Ctl(daemon.settings)("status").stderr
    # Sessions of others that use the pool find none of our settings.
    other = psycopg2.connect(through)
    other.autocommit = True
    with contextlib.closing(other), other.cursor() as cursor:
        cursor.execute("select current_setting('jit'), current_setting('search_path')")
        assert cursor.fetchone() == ("on", '"$user", public')
