"""One institution's mass of rows keeps no other's row waiting, also before the first ANALYZE."""
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
