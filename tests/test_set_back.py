"""The database goes back to an earlier time while Kafka stays: no id is given out twice, and only what the ledger has counts."""
import concurrent.futures
import contextlib
import os
import subprocess

import psycopg2
import pytest
from harness.anubis import Ctl, merged
from harness.application import Application
from harness.postgres import Database
from harness.processes import wait_for
from harness.set_back import SAID, World
from harness.toxic import Proxy


@pytest.fixture
def world(own_postgres, broker, institutions):
    server = own_postgres(settings={"wal_level": "replica", "max_wal_senders": "4", "hot_standby": "on"})
    return World(server, broker, institutions)


def say_and_count(world, daemon):
    """What a daemon does whose database was set back: the rows of before stay, those that come then are sent and counted."""
    world.wait(80)
    daemon.wait_log(SAID)
    daemon.wait_log(r"passes over \d+ events? in the name of this installation that are not in its ledger", 60)


@pytest.mark.parametrize("running", [True, False], ids=["under the daemon", "without it"])
def test_a_server_that_was_recovered_to_an_earlier_time(world, institutions, running):
    """The application writes before the daemon is back, and draws no id that Kafka has."""
    with world.daemon() as daemon:
        saved, lost = world.lose()
        if not running:
            assert daemon.term() == 0
        world.server.set_back(saved)
        world.app.subscriptions(world.integration, 30)
        if not running:
            assert world.app.states() == {"sent": 50, "pending": 30}
            daemon.start()
        say_and_count(world, daemon)
        assert daemon.term() == 0
    world.check(lost, institutions)
    with world.daemon() as daemon:
        world.send(10, 90)
        assert SAID not in daemon.log and daemon.term() == 0


def test_the_same_backup_is_restored_twice(world, institutions):
    """Each time it becomes the same timeline, and the application draws the same ids before the daemon is back."""
    with world.daemon() as daemon:
        saved, _ = world.lose()
        again = saved + " again"
        subprocess.run(["cp", "-a", saved, again], check=True)
        total = 90
        for backup, rows in ((saved, 30), (again, 20)):
            assert daemon.term() == 0
            world.server.set_back(backup)
            world.app.subscriptions(world.integration, rows)
            first = world.app.value("select min(id) from {s}.subscription_events where id > 1000")
            daemon.start()
            world.wait(50 + rows)
            total += rows
        daemon.wait_log(f"events {first} to .* are .* from now on")
        assert daemon.term() == 0
    world.unique()
    keys = institutions.keys()
    assert len(keys) == total and all(key.received == 1 for key in keys.values())


def test_a_standby_that_lacks_the_end_is_promoted(world, institutions):
    with contextlib.closing(world.server.standby()) as standby, Proxy(f"127.0.0.1:{world.server.port}") as proxy:
        standby.start()
        with world.daemon(f"host=127.0.0.1 port={proxy.port} dbname=anubis user=postgres") as daemon:
            world.send(50, 50)
            copy = Application(Database(standby, "anubis"))
            wait_for(lambda: copy.value("select sum(sent) from {s}.integration_runtime") == 50 and
                     copy.value("select high >= (select max(id) from {s}.subscription_events) from {s}.relay_state"), 60,
                     "the standby to follow")
            standby.stop()
            with open(os.path.join(standby.data, "postgresql.auto.conf"), "a", encoding="ascii") as settings:
                settings.write("primary_conninfo = ''\n")
            standby.start()
            world.send(40, 90)
            lost = world.events()
            proxy.target = ("127.0.0.1", standby.port)
            world.server.kill9()
            standby.query("select pg_promote()")
            world.app = copy
            copy.subscriptions(world.integration, 30)
            say_and_count(world, daemon)
            assert daemon.term() == 0
        world.check(lost, institutions)


def test_a_dump_is_restored_in_place(world, institutions):
    with world.daemon() as daemon:
        world.send(50, 50)
        assert daemon.term() == 0
        dump = os.path.join(world.server.folder, "dump")
        tool = os.path.join(world.server.bin, "pg_dump")
        subprocess.run([tool, "-Fc", "-f", dump, world.app.database.conninfo()], check=True)
        daemon.start()
        world.send(40, 90)
        lost = world.events()
        assert daemon.term() == 0
        world.app.database.drop()
        world.server.create_database("anubis")
        subprocess.run([tool.replace("pg_dump", "pg_restore"), "-d", world.app.database.conninfo(), "-j", "2", dump], check=True)
        world.app.subscriptions(world.integration, 30)
        daemon.start()
        daemon.wait_log("this database was copied or moved")
        Ctl(database=world.app.database)("installation", "--same").expect(0)
        say_and_count(world, daemon)
        assert daemon.term() == 0
    world.check(lost, institutions)


def test_files_that_were_set_back(world, institutions):
    """The same timeline: only Kafka tells. The relay asks it before it publishes anything."""
    with world.daemon() as daemon:
        saved, lost = world.lose()
        world.server.set_back(saved, recover=False)
        newest = max(lost)
        said = daemon.wait_log(f"Kafka has events of this installation up to ledger id {newest}, which this database does not "
                               r"have: it was set back to an earlier time. Ids go on at (\d+)", 60)
        assert int(said[1]) > newest
        world.send(30, 80)
        daemon.wait_log("that are not in its ledger", 60)
        assert daemon.term() == 0
    world.check(lost, institutions)


def test_files_that_were_set_back_and_other_topics_at_once(world, broker, institutions):
    """What Kafka has of before stands in the topics of the former prefix."""
    with world.daemon() as daemon:
        saved, lost = world.lose()
        assert daemon.term() == 0
    world.server.set_back(saved, recover=False)
    broker.create_anubis_topics("other.")
    world.settings = merged(world.settings, {"kafka": {"topic_prefix": "other."}})
    with world.daemon() as daemon:
        world.send(30, 80)
        daemon.wait_log(f"Kafka has events of this installation up to ledger id {max(lost)}, which this database does not have")
        daemon.wait_log('topics that begin with "other." from now on, and no longer to those with "anubis."')
        assert daemon.restart() and daemon.term() == 0
        assert "and no longer to those with" not in daemon.log
    world.prefix = "other."
    found = world.events()
    assert len(found) == 30 * 3 and min(found) > max(lost)
    names, names_lost = ({event for of_one in e.values() for event, *_ in of_one} for e in (found, lost))
    assert not names & names_lost
    assert all(key.received == 1 for key in institutions.keys().values())


@pytest.mark.parametrize("rows", [30, 200], ids=["fewer than were lost", "more"])
def test_files_that_were_set_back_and_written_to(world, rows):
    """Before anybody could ask Kafka. What was written gets other ids before it is published; who writes meanwhile waits."""
    with world.daemon() as daemon:
        saved, lost = world.lose()
        assert daemon.term() == 0
        world.server.set_back(saved, recover=False)
        world.app.subscriptions(world.integration, rows - 1)
        first, last = world.app.query("select max(id) - %s, max(id) from {s}.subscription_events", (rows - 2,))[0]
        assert first <= max(lost) and (last > max(lost)) == (rows == 200)
        late = world.app.database.connect(autocommit=False)
        world.app.subscriptions(world.integration, 1, connection=late)
        daemon.start()
        daemon.wait_log("refuses to leave ids out: canceling statement due to lock timeout", 60)
        late.commit()
        said = daemon.wait_log(rf"up to ledger id {max(lost)}, .* events {first} to \d+, which were written since and are not "
                               r"published yet, are (\d+) to \d+ from now on", 60)
        assert int(said[1]) > max(lost)
        world.wait(50 + rows)
        world.wait_published()
        assert daemon.term() == 0
    assert set(range(first, last + 1)) & world.unique().keys() <= lost.keys()
    assert world.verify().code == 0
    with pytest.raises(psycopg2.Error, match="append-only"):
        world.app.query("update {s}.subscription_events set id = id + 1")


def test_the_first_to_write_holds_nobody_up(own_postgres):
    """Many sessions find at once that the server was set back; the first leaves its transaction open, and then undoes it."""
    server = own_postgres()
    app = Application(server.create_database("anubis"))
    Ctl(database=app.database).migrate()
    insert = "insert into anubis.subscriptions (origin) values ('x')"
    app.query(insert)
    saved = server.save()
    app.query(insert.replace("values ('x')", "select 'x' from generate_series(1, 1000)"))
    lost = app.value("select max(id) from {s}.subscription_events")
    server.set_back(saved)
    first = app.database.connect(autocommit=False)
    first.cursor().execute(insert)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(app.query, insert) for _ in range(200)]:
            done.result(60)
    first.rollback()
    app.query(insert)
    ids = [row[0] for row in app.query("select id from {s}.subscription_events order by id")]
    assert len(ids) == 202 and ids[0] < lost < ids[1] and ids[-1] - ids[1] < 1000


def test_on_other_servers(own_postgres, postgres_version):
    """A recovered server leaves ids out once; one that tells nobody its timeline leaves none out, and works."""
    server = own_postgres(version=postgres_version)
    app = Application(server.create_database("anubis"))
    server.query("create role manager login")
    server.query("create database managed owner manager")
    server.query("revoke execute on function pg_current_wal_insert_lsn(), pg_walfile_name(pg_lsn), pg_control_system() "
                 "from public", database="managed")
    managed = Application(Database(server, "managed"))
    Ctl(database=app.database).migrate()
    Ctl(database=managed.database.conninfo(user="manager"))("migrate").expect(0)
    insert = "insert into anubis.subscriptions (origin) values ('x')"

    def ids(of):
        return [row[0] for row in of.query("select id from {s}.subscription_events order by id")]
    for one in (app, managed):
        one.query(insert)
    server.set_back(server.save())
    for _ in range(2):
        for one in (app, managed):
            one.query(insert)
        server.restart()
    assert ids(app) == [1, 20000000001, 20000000002] and ids(managed) == [1, 2, 3]


def test_what_others_write_moves_no_ids(world):
    """Events of another installation, without a header, or with ids that nobody can have given out."""
    def message(sequence, installation):
        return {"key": "1", "value": "{}", "partition": 0,
                "headers": [("sequence", sequence)] + ([("installation", installation)] if installation else [])}
    ours = world.app.value("select namespace::text from {s}.installation")
    with world.daemon() as daemon:
        world.send(10, 10)
        assert daemon.term() == 0
        drawn = world.app.value("select last_value from {s}.ledger_id_seq")
        world.kafka.produce("anubis.subscriptions.sent", [
            message("1000000", "7a1d2c3b-0000-8000-8000-000000000001"), message("1000000", None), message("x", ours),
            message("-5", ours), message(str(2 ** 63 - 1), ours), message(str(2 ** 70), ours), message("", ours)])
        daemon.start()
        world.send(10, 20)
        assert daemon.term() == 0 and "was set back" not in daemon.log
    assert drawn < world.app.value("select last_value from {s}.ledger_id_seq") < 1000


@pytest.mark.real_kafka
@pytest.mark.parametrize("recover", [True, False], ids=["recovered", "files"])
def test_real_kafka_stays(own_postgres, real_kafka, topic_prefix, institutions, recover):
    world = World(own_postgres(), real_kafka, institutions, topic_prefix)
    with world.daemon() as daemon:
        saved, lost = world.lose()
        world.server.set_back(saved, recover)
        if not recover:
            daemon.wait_log("Kafka has events of this installation up to", 60)
        world.app.subscriptions(world.integration, 30)
        world.wait(80)
        assert daemon.term() == 0
    world.check(lost, institutions)


@pytest.mark.real_kafka
def test_kafka_whose_retention_left_little(own_postgres, real_kafka, topic_prefix, institutions):
    """Its partitions begin later, and have fewer messages than are looked at for the newest."""
    world = World(own_postgres(), real_kafka, institutions, topic_prefix)
    with world.daemon() as daemon:
        world.send(50, 50)
        for kind in ("created", "updated", "sent"):
            real_kafka.delete_records(f"{topic_prefix}subscriptions.{kind}")
        saved = world.server.save()
        world.send(40, 90)
        lost = world.events()
        world.server.set_back(saved, False)
        daemon.wait_log("Kafka has events of this installation up to", 60)
        world.app.subscriptions(world.integration, 30)
        world.wait(80)
        assert daemon.term() == 0
    assert len(lost) >= 40 * 3 and min(world.unique(whole=False).keys() - lost.keys()) > max(lost)


def forget(world, kept, row):
    """Rows and events behind these, and the ids of the events, without a trace; in one transaction with the caller's rows."""
    connection = world.app.database.connect(autocommit=False)
    with connection.cursor() as cursor:
        cursor.execute("set local session_replication_role = replica")
        cursor.execute("delete from anubis.subscription_events where id > %s", (kept,))
        cursor.execute("delete from anubis.subscriptions where id > %s", (row,))
        cursor.execute("select setval('anubis.ledger_id_seq', %s)", (kept,))
        cursor.execute("set local session_replication_role = origin")
    return connection


# What is of another time; do inserts carry the sequence past the position before anybody looks; does the daemon work meanwhile?
SINGLE = [("relay_state", False, False), ("relay_state", True, False), ("both", False, False), ("both", True, False),
          ("ledger", False, False), ("ledger", True, False), ("ledger", True, True)]


@pytest.mark.parametrize("what, passed, running", SINGLE,
                         ids=["-".join([w] + ["passed"] * p + ["running"] * r) for w, p, r in SINGLE])
def test_single_tables_of_another_time(world, what, passed, running):
    """The relay takes itself to be further than the ledger is; it turns back to what was never published."""
    lost, rows = {}, 30
    with world.daemon() as daemon:
        world.send(50, 50)
        kept, row = world.app.query("select max(e.id), max(e.subscription_id) from {s}.subscription_events e")[0]
        if what == "ledger":
            world.send(40, 90)
            lost = {number: event for number, event in world.events().items() if number > kept}
            rows = 130 if passed else 30
        if not running:
            assert daemon.term() == 0
        if what == "ledger":
            with contextlib.closing(forget(world, kept, row)) as connection:
                world.app.subscriptions(world.integration, rows, connection=connection)
                connection.commit()
        else:
            for table in ("relay_state", "relay_saved") if what == "both" else ("relay_state",):
                world.app.query(f"update {{s}}.{table} set high = high + %s", (10 if passed else 100000,))
            world.app.subscriptions(world.integration, rows)
        if not running:
            assert world.app.value("select last_value > high from {s}.relay_state, {s}.ledger_id_seq") == passed
            daemon.start()
        if not passed and what != "relay_state":
            world.app.query(daemon.wait_log('ids would be given out twice: .*; run "(.*)"')[1])
        world.app.wait_states(sent=50 + rows, deadline=60)
        total = 50 + rows + (40 if lost else 0)
        wait_for(lambda: world.counted() == total, 60, lambda: f"{total} to be counted, now {world.counted()}")
        world.wait_published()
        daemon.wait_log("set the relay's position ahead" if what == "relay_state" else "it turns back to them")
        assert daemon.term() == 0
    world.unique()
    assert not {row[0] for row in world.app.query("select id from {s}.subscription_events")} & lost.keys()
    if not lost:
        assert world.verify().code == 0


@pytest.mark.parametrize("books, running", [(("consumer_bitmaps", "consumer_offsets"), False), (("integration_runtime",), False),
                                            (("consumer_bitmaps", "consumer_offsets"), True)],
                         ids=["offsets and marks", "counters", "offsets and marks of a running one"])
def test_the_consumers_books_of_another_time(world, books, running):
    """Nothing counts twice: the group stops where more is counted than marked. The proof is wrong, and says what mends it."""
    helps = "anubisctl replay --group integration --from-ledger"
    ctl = Ctl(database=world.app.database, kafka=world.kafka)
    with world.daemon() as daemon:
        world.send(50, 50)
        assert daemon.term() == 0
        for table in books:
            world.app.query(f"create table public.{table} as select * from {{s}}.{table}")
        with contextlib.closing(world.app.database.connect(autocommit=False)) as other:
            if running:  # the marks were compared at the start, which took long
                other.cursor().execute("lock table anubis.consumer_bitmaps in access exclusive mode")
            daemon.start()
            if running:
                wait_for(lambda: world.app.value("select exists (select from pg_stat_activity where wait_event_type = 'Lock' "
                                                 "and query like '%consumer_bitmaps%' and query_start < now() - interval '1 s')"),
                         60, "the comparison to wait")
        world.send(40, 90)
        if not running:
            assert daemon.term() == 0
        for table in books:
            world.app.query(f"delete from {{s}}.{table}; insert into {{s}}.{table} select * from public.{table}")
        if not running:
            daemon.start()
        if len(books) == 2:
            daemon.wait_log(rf'has stopped: 80 events are counted, but not marked as handled.*"{helps}" repairs it', 60)
            assert helps in ctl("status").expect(0).stdout
            wait_for(lambda: world.app.value("select message from {s}.alerts where state = 'firing'") and True, 30, "the alert")
            assert helps in world.app.value("select message from {s}.alerts where state = 'firing'")
        assert world.counted() == (90 if len(books) == 2 else 50)
        wrong = wait_for(lambda: (v := world.verify()).code == 1 and v, 60, "the proof to be wrong")
        assert helps in wrong.stdout
        ctl(*helps.split()[1:]).expect(0)
        world.send(10, 100)
        assert daemon.term() == 0


@pytest.mark.parametrize("slow", [False, True], ids=["published", "on their way"])
def test_data_that_are_restored_under_a_running_daemon(world, institutions, broker, slow):
    """All tables are emptied and filled again from a dump, whose row of the relay has the same epoch; and while the lost events
    are on their way, the same position. The relay begins anew."""
    tables = ("select relname from pg_class where relnamespace = 'anubis'::regnamespace and relkind = 'r' "
              "and relname !~ '^anubis_'")
    with world.daemon() as daemon:
        world.send(50, 50)
        names = [name for (name,) in world.app.query(tables)]
        world.app.query("create schema saved; " + "; ".join(f"create table saved.{n} as table anubis.{n}" for n in names))
        filled = [n for n in names if world.app.query(f"select from saved.{n} limit 1")]
        drawn = world.app.value("select last_value from {s}.ledger_id_seq")
        if slow:
            broker.stop()
            world.app.subscriptions(world.integration, 40)
            world.app.wait_states(sent=90)
        else:
            world.send(40, 90)
        lost = dict(world.app.query("select id, event_id::text from {s}.subscription_events"))
        assert world.app.value("select r.high = s.high from {s}.relay_state r, saved.relay_state s") == slow
        world.app.query("begin; set local session_replication_role = replica; truncate only "
                        + ", ".join(f"anubis.{n}" for n in names) + " cascade; "
                        + "; ".join(f"insert into anubis.{n} overriding system value table saved.{n}" for n in filled)
                        + f"; select setval('anubis.ledger_id_seq', {drawn}), setval('anubis.subscriptions_id_seq', 50); commit")
        world.app.subscriptions(world.integration, 30)
        daemon.wait_log("relay_state was written by another hand", 60)
        broker.cont()
        daemon.wait_log("Kafka has events of this installation up to ledger id", 60)
        world.wait(80)
        if slow:  # some of them never got there
            assert not {row[0] for row in world.app.query("select id from {s}.subscription_events where id > 150")} & lost.keys()
            assert any(id > 150 and event == lost.get(id) for id, ((event, *_),) in world.unique().items())
            assert world.verify().code == 0
        else:
            world.check(lost, institutions)
        assert daemon.term() == 0
