"""One institution's mass of rows keeps no other's row waiting, also before the first ANALYZE."""
import contextlib

import pytest
from harness.anubis import Ctl
from harness.application import Application
from harness.processes import wait_for

# A look for circuits that may be probed is due all the time.
OFTEN = {"delivery": {"poll_interval": "10ms"}}
CANNOT = {"disabled": {"enabled": False}, "paused": {"paused_until": "infinity"}}


@pytest.fixture
def app(own_postgres):
    """Nothing is known of how many rows there are."""
    app = Application(own_postgres(settings={"autovacuum": "off"}).create_database("anubis"))
    Ctl(database=app.database).migrate()
    return app


@pytest.fixture
def small(app, institutions):
    return app.integration(institutions.url("/good/small"))


def write(app, statement):
    """Without triggers: what they write is of no interest here."""
    app.query("set session_replication_role = replica; " + statement)


def is_delivered(app, small, rows=10, deadline=30):
    """One after the other."""
    for _ in range(rows):
        row = app.subscription(small)
        wait_for(lambda id=row: app.row(id)["status"] == "sent", deadline, f"subscription {row} to be sent", interval=0.02)


@pytest.mark.parametrize("why", CANNOT)
def test_rows_that_wait_for_their_institution_keep_no_other_waiting(app, small, make_daemon, why):
    make_daemon(OFTEN, database=app.database).start()
    is_delivered(app, small)
    big = app.integration("https://big.example/", **CANNOT[why])
    write(app, f"insert into {{s}}.subscriptions (integration_id) select {big} from generate_series(1, 150000)")
    is_delivered(app, small)


def test_circuits_that_may_be_probed_keep_no_row_waiting(app, small, make_daemon):
    """Looking through them takes longer than the time until the next look."""
    make_daemon(OFTEN, database=app.database).start()
    is_delivered(app, small)
    write(app, """
        with i as (insert into {s}.integrations (name, endpoint_url)
                   select 'x', 'https://x.example/' from generate_series(1, 20000) returning id)
        insert into {s}.integration_runtime (integration_id, circuit_state, circuit_until)
        select id, 'open', 'yesterday' from i""")
    is_delivered(app, small)


def test_the_ends_of_many_leases_keep_no_row_waiting(app, small, make_daemon):
    """They are ended some hundreds at a time, one time after the other."""
    make_daemon(OFTEN, database=app.database).start()
    is_delivered(app, small)
    big = app.integration("https://big.example/", enabled=False)

    def leases():
        return app.value("select count(*) from {s}.subscriptions where integration_id = %s and status = 'processing'", (big,))
    write(app, "insert into {s}.subscriptions (integration_id, status, attempts, claim_token, lease_expires_at) "
               f"select {big}, 'processing', 1, 1, now() from generate_series(1, 100000)")
    wait_for(lambda: leases() < 100000, 60, "leases to be ended", interval=0.02)
    is_delivered(app, small, rows=3)
    assert leases() > 0


@pytest.mark.slow
def test_a_large_transaction_that_is_open_is_looked_at_apart(app, small, make_daemon):
    """Nobody may see its rows yet, and each look would come past them."""
    daemon = make_daemon(database=app.database).start()
    is_delivered(app, small)
    big = app.integration("https://big.example/")
    with contextlib.closing(app.database.connect(autocommit=False)) as other:
        other.cursor().execute("set session_replication_role = replica; insert into anubis.subscriptions (integration_id) "
                               "select %s from generate_series(1, 2000000)", (big,))
        wait_for(lambda: is_delivered(app, small, 1) or f"integration {big} is looked at only now and then" in daemon.status(),
                 60, "the large transaction to be found")
        is_delivered(app, small, deadline=10)
        daemon.wait_log(f"integration {big} is looked at only now and then")
        other.rollback()
    daemon.wait_log("all integrations are looked at together again", 150)


def test_that_nobody_looks_is_said(app, small, make_daemon):
    """Whatever the reason: here a trigger of the application takes its time."""
    daemon = make_daemon(database=app.database).start()
    is_delivered(app, small)
    app.query("""create function {s}.slow() returns trigger language plpgsql as $$ begin perform pg_sleep(20); return new; end $$;
                 create trigger slow before update on {s}.subscriptions for each row
                 when (new.status = 'processing') execute function {s}.slow()""")
    row = app.subscription(small)
    daemon.wait_log('and they wait: the statement "claim" has been under way', 60)
    wait_for(lambda: "DUE SUBSCRIPTIONS ARE NOT LOOKED FOR" in daemon.status(), 10, "the status to say it", interval=0.02)
    wait_for(lambda: app.row(row)["status"] == "sent", 60, "the subscription to be sent")
    daemon.wait_log("due subscriptions are looked for again", 60)
