"""An Idempotency-Key belongs to one row with one payload, whatever is restored, copied or promoted."""
import os
import subprocess

import pytest
from harness.anubis import Ctl
from harness.application import Application
from harness.processes import scratch_folder, wait_for
from harness.rails import adopt, rails

PAYLOAD = {"aluno": {"nome": "Ana"}, "n": 1}
SOON = {"retry": {"base_delay": "20ms", "max_delay": "50ms"}}
INSTANT = "2026-01-02T03:04:05Z"


def run(database, program, *arguments):
    subprocess.run([os.path.join(database.server.bin, program), "-d", database.conninfo(), *arguments], check=True,
                   capture_output=True)


class Backup:
    """A dump of the database as it is now; restore() makes it so again, under the same name."""

    def __init__(self, database):
        self.database = database
        self.path = os.path.join(scratch_folder(), "backup")
        run(database, "pg_dump", "-Fc", "-f", self.path)

    def restore(self):
        self.database.drop()
        self.database.server.create_database(self.database.name)
        run(self.database, "pg_restore", self.path)


@pytest.fixture
def key(database):
    """The key of a row as "anubisctl explain" shows it."""
    ctl = Ctl(database=database)
    return lambda number: ctl("explain", str(number), "--json").expect(0).json["idempotency_key"]


def seed(app, number):
    return app.value("select idempotency_seed from {s}.subscriptions where id = %s", (number,))


@pytest.mark.parametrize("payload", [PAYLOAD, {**PAYLOAD, "n": 2}], ids=["same payload", "other payload"])
def test_a_row_that_takes_the_id_of_one_that_a_restore_forgot(app, institutions, make_daemon, key, payload):
    integration = app.integration(institutions.url("/good"))
    backup = Backup(app.database)
    lost = app.subscription(integration, PAYLOAD, created_at=INSTANT)
    daemon = make_daemon().start()
    app.wait_states(sent=1)
    daemon.term()
    (first,) = institutions.keys("/good")
    assert key(lost) == first
    backup.restore()
    assert app.subscription(integration, payload, created_at=INSTANT) == lost
    daemon.start()
    app.wait_states(sent=1)
    seen = institutions.keys("/good")
    assert len(seen) == 2 and all(k.received == 1 for k in seen.values())
    assert key(lost) in seen and key(lost) != first


def test_a_row_keeps_its_key_through_attempts_daemons_and_a_restore(app, institutions, make_daemon, key):
    integration = app.integration(institutions.url("/reject/500"))
    number = app.subscription(integration, PAYLOAD)
    backup = Backup(app.database)
    daemon = make_daemon(SOON)

    def attempts(count):
        wait_for(lambda: institutions.counts("/reject/500")["requests"] >= count, 60, f"{count} attempts")
    daemon.start()
    attempts(3)
    daemon.kill9()
    app.query("update {s}.subscriptions set lease_expires_at = now() where status = 'processing'")
    daemon.start()
    attempts(5)
    daemon.term()
    backup.restore()
    institutions.reset_counts()
    daemon.start()
    attempts(2)
    assert list(institutions.keys()) == [key(number)]


def test_a_row_keeps_its_key_while_somebody_writes_another_name_of_the_installation(app, institutions, make_daemon, key):
    """Until a daemon has noticed that the name is not that of its events and keys."""
    integration = app.integration(institutions.url("/reject/500"))
    number = app.subscription(integration, PAYLOAD)
    own = key(number)
    daemon = make_daemon(SOON).start()
    wait_for(lambda: institutions.counts("/reject/500")["requests"] >= 3, 60, "attempts")
    app.query("update {s}.installation set namespace = gen_random_uuid()")
    daemon.wait_log("table installation names .*, which somebody has written there")
    assert list(institutions.keys()) == [own] and daemon.term() == 0


def test_a_copy_gives_its_rows_keys_of_their_own(app, key):
    number = app.subscription(app.integration("https://x.example/"), PAYLOAD)
    server = app.database.server
    copy = server.create_database(app.database.name + "_copy", app.database.name)
    try:
        theirs = Application(copy)
        explained = Ctl(database=copy)("explain", str(number), "--json").expect(0).json
        assert explained["idempotency_key"] == key(number)
        next_one = app.subscription(1, PAYLOAD, created_at=INSTANT)
        assert theirs.subscription(1, PAYLOAD, created_at=INSTANT) == next_one
        explained = Ctl(database=copy)("explain", str(next_one), "--json").expect(0).json
        assert explained["idempotency_key"] != key(next_one)
        # Both change the same row, each in its own way: two messages.
        change = "update {s}.subscriptions set payload = %s where id = %s"
        app.query(change, ('{"n": 3}', number))
        theirs.query(change, ('{"n": 4}', number))
        explained = Ctl(database=copy)("explain", str(number), "--json").expect(0).json
        assert explained["idempotency_key"] != key(number)
    finally:
        copy.drop()


def test_the_key_follows_the_payload(app, key):
    number = app.subscription(app.integration("https://x.example/"), PAYLOAD)
    backup = Backup(app.database)

    def change(payload):
        app.query("update {s}.subscriptions set payload = %s where id = %s", (payload, number))
        return key(number)
    first, second = key(number), change('{"n": 2}')
    assert first != second
    assert change('{"n": 2.0}') not in (first, second)  # equal for jsonb, but not the same bytes
    assert change('{"aluno": {"nome": "Ana"}, "n": 1}') == first
    app.query("update {s}.subscriptions set status = 'failed', order_id = 7 where id = %s", (number,))
    assert key(number) == first
    backup.restore()
    assert key(number) == first
    assert change('{"n": 3}') not in (first, second)
    assert change('{"n": 2}') == second


def test_the_database_keeps_the_seed(app):
    number = app.subscription(app.integration("https://x.example/"), PAYLOAD)
    own = seed(app, number)
    assert own is not None
    app.query("update {s}.subscriptions set idempotency_seed = null where id = %s", (number,))
    app.query("update {s}.subscriptions set idempotency_seed = 7, payload = '{}' where id = %s", (number,))
    assert seed(app, number) == own
    nothing = app.subscription(1, PAYLOAD, idempotency_seed=None)
    assert seed(app, nothing) not in (None, own)


def test_a_row_that_is_brought_back_keeps_its_key(app, key):
    """What a standby lacked comes from the former primary, and may have been sent."""
    app.integration("https://x.example/")
    backup = Backup(app.database)
    number = app.subscription(1, PAYLOAD)
    first, own = key(number), seed(app, number)
    backup.restore()
    assert app.subscription(1, PAYLOAD, id=number, idempotency_seed=own) == number
    assert key(number) == first


def test_copied_rows_have_keys_of_their_own(app, key):
    number = app.subscription(app.integration("https://x.example/"), PAYLOAD)
    columns = "integration_id, payload, idempotency_seed, created_at"
    copied = app.value(f"insert into {{s}}.subscriptions ({columns}) select {columns} from {{s}}.subscriptions returning id")
    assert seed(app, copied) == seed(app, number) and key(copied) != key(number)


def test_seeds_differ_where_chance_repeats(own_postgres, postgres_version):
    """The same state of random(), as after setseed() or in a machine that was cloned."""
    server = own_postgres(version=postgres_version)
    database = server.create_database("seeds")
    Ctl(database=database).migrate()
    app = Application(database)
    app.integration("https://x.example/")
    seeds = []
    for _ in range(20):
        connection = database.connect()
        with connection.cursor() as cursor:
            cursor.execute("select setseed(0.5); insert into anubis.subscriptions (integration_id) "
                           "select 1 from generate_series(1, 50) returning idempotency_seed")
            seeds += [s for s, in cursor.fetchall()]
        connection.close()
    seeds += [s for s, in app.query("insert into {s}.subscriptions (integration_id) select 1 from generate_series(1, 1000) "
                                    "returning idempotency_seed")]
    assert None not in seeds and len(set(seeds)) == len(seeds) == 2000


def test_rows_of_before_the_adoption_have_keys_without_a_seed(empty_database, institutions, make_daemon):
    rails(empty_database, rows=10)
    where = "select pg_relation_filenode('subscriptions')"
    before = empty_database.value(where)
    adopt(empty_database).expect(0)
    assert empty_database.value(where) == before  # no row was rewritten
    app = Application(empty_database, "public")
    assert app.value("select count(idempotency_seed) from subscriptions") == 0
    app.query("update subscriptions set idempotency_seed = 7")
    assert app.value("select count(idempotency_seed) from subscriptions") == 0
    app.query("update integrations set endpoint_url = %s", (institutions.url("/good"),))
    app.query("update subscriptions set status = 'pending', scheduled_to = null, created_at = now() where status <> 'sent'")
    new = app.subscription(1, integration_filter_id=1, created_at="now", updated_at="now")
    assert seed(app, new) is not None
    make_daemon({"database": {"schema": "public"}}, database=empty_database).start()
    app.wait_states(sent=11)
    ctl = Ctl({"database": {"schema": "public"}}, database=empty_database)
    sent = app.query("select id from subscriptions where attempts > 0")
    keys = {ctl("explain", str(i), "--json").expect(0).json["idempotency_key"] for i, in sent}
    assert keys == set(institutions.keys("/good")) and len(keys) == len(sent) == 9
