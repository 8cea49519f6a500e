"""What a subscription costs in what does not depend on the machine's speed: a change that makes each row a transaction, or
doubles what is written, is seen here before anybody measures. The limits are generous; `make bench` has the figures."""
import pytest
from harness.certificates import Certificates
from harness.institutions import Institutions
from harness.processes import wait_for

ROWS, INTEGRATIONS = 3000, 8
TRANSACTIONS = 1        # 0.1 to 0.3 by batches; one by one they would be three and more
WAL_BYTES = 3500        # 1,900 of the payloads used here, without images of whole pages
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
