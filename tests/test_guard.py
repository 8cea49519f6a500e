"""What administrators do to the tables: the daemon stops before it delivers without a trail, and says what brings it back."""
import re

import pytest
from harness.anubis import Ctl
from harness.processes import wait_for

SWAP = ("create table {s}.other (like {s}.subscriptions including all)", "insert into {s}.other select * from {s}.subscriptions",
        "select setval(pg_get_serial_sequence('{s}.other', 'id'), 1000)",
        "alter table {s}.subscriptions rename to before", "alter table {s}.other rename to subscriptions")


@pytest.mark.parametrize("change, named", [
    (["alter table {s}.subscriptions disable trigger anubis_updated"], r"anubis_updated on subscriptions \(disabled\)"),
    (["alter table {s}.subscriptions disable trigger user"], r"anubis_inserted on subscriptions \(disabled\), anubis_no_delete"),
    (["alter table {s}.subscriptions enable replica trigger anubis_inserted"], r"anubis_inserted .* \(not for everybody\)"),
    (["drop trigger anubis_inserted on {s}.subscriptions"], r"anubis_inserted on subscriptions \(missing\)"),
    (["drop trigger ledger_append_only on {s}.subscription_events"], r"ledger_append_only on subscription_events \(missing\)"),
    (["alter table {s}.integrations disable trigger all"], r"anubis_integration_check on integrations \(disabled\)"),
    (SWAP, r"anubis_inserted on subscriptions \(missing\)"),
], ids=["disabled", "all disabled", "replica only", "dropped", "ledger", "integrations", "swapped"])
def test_it_stops_where_a_trigger_does_not_fire(app, institutions, make_daemon, change, named):
    integration = app.integration(institutions.url())
    daemon = make_daemon().start()
    app.subscriptions(integration, 5)
    app.wait_states(sent=5)
    for statement in change:
        app.query(statement)
    daemon.wait_log(rf"changes may leave no trace: trigger .*{named}.*anubisctl migrate")
    app.query("insert into {s}.subscriptions (integration_id) select %s from generate_series(1, 5)", (integration,))
    assert Ctl(database=app.database)("status").code == 0
    assert app.states() == {"sent": 5, "pending": 5}
    assert "applied" in Ctl(database=app.database)("migrate").expect(0).stdout
    app.wait_states(sent=10)
    assert "up to date" in Ctl(database=app.database)("migrate").expect(0).stdout
    assert daemon.term() == 0


def test_rows_that_were_written_without_triggers_are_named(app, institutions, make_daemon, broker):
    """By a role for replication, say, or a restore that was cut short."""
    integration = app.integration(institutions.url())
    with make_daemon().start() as daemon:
        app.subscriptions(integration, 5)
        app.wait_states(sent=5)
        row = app.query("set session_replication_role = replica; insert into {s}.subscriptions (integration_id) values (%s) "
                        "returning id", (integration,))[0][0]
        app.wait_states(sent=6)
        wait_for(lambda: app.value("select sum(sent) from {s}.integration_runtime") == 6, 60, "the counters")
        daemon.term()
    result = Ctl(database=app.database, kafka=broker)("verify").expect(1)
    assert re.search(rf"subscription {row}\b", result.stdout), result.stdout


def test_sequences_behind_their_tables(app, institutions, make_daemon):
    """As in a database that logical replication has filled. The statements that are named mend all of them."""
    integration = app.integration(institutions.url())
    app.subscriptions(integration, 20)
    ids = app.value("select max(id) from {s}.subscriptions"), app.value("select max(id) from {s}.subscription_events")
    for sequence in ("ledger_id_seq", "subscriptions_id_seq", "integrations_id_seq"):
        app.query(f"select setval('{{s}}.{sequence}', 1, false)")
    daemon = make_daemon().start()
    said = daemon.wait_log(r'ids would be given out twice: the sequence of the ledger is behind its table.*; run "(.*)"')
    assert app.states() == {"pending": 20}
    app.query(said[1])
    app.wait_states(sent=20)
    app.subscription(integration)
    app.wait_states(sent=21)
    assert app.value("select max(id) from {s}.subscriptions") > ids[0]
    assert app.value("select min(id) from {s}.subscription_events where event_type = 'updated'") > ids[1]
    assert daemon.term() == 0
