"""Whose database it is: copies send and publish nothing until somebody says what they are, and two installations on one Kafka
leave each other's events alone."""
import concurrent.futures
import contextlib
import os
import re
import subprocess

import pytest
from harness.anubis import Ctl, Daemon, merged
from harness.application import Application
from harness.postgres import Database
from harness.processes import wait_for
from test_audit import checker

WAITS = r"this database was copied or moved: .* \"anubisctl installation --same\".* \"anubisctl installation --copy\""


# A daemon that has left is missed by its group soon.
QUICK = {"consumers": {"session_timeout": "6s", "heartbeat_interval": "500ms"}}


def installation(database):
    return Ctl(database=database)("installation", "--json").expect(0).json


def dumped(server, source, name):
    """pg_dump into another database of the same server."""
    target = server.create_database(name)
    dump = subprocess.run([os.path.join(server.bin, "pg_dump"), source.conninfo()], capture_output=True, check=True)
    subprocess.run([os.path.join(server.bin, "psql"), "-q", "-v", "ON_ERROR_STOP=1", target.conninfo()], input=dump.stdout,
                   stdout=subprocess.DEVNULL, check=True)
    return target


def templated(server, source, name):
    """create database … template …: a copy of the files."""
    server.terminate_backends(database=source.name)
    return server.create_database(name, template=source.name)


def restored(server, source, name):
    """A dump, loaded in the place of what it was made of."""
    other = dumped(server, source, name)
    source.drop()
    server.query(f"alter database {name} rename to {source.name}")
    other.name = source.name
    return other


@pytest.fixture
def original(own_postgres, broker, institutions):
    """(server, its application): ten rows sent, counted, and ten that wait."""
    server = own_postgres()
    database = server.create_database("original")
    Ctl(database=database).migrate()
    app = Application(database)
    integration = app.integration(institutions.url("/good/original"))
    app.subscriptions(integration, 10)
    with Daemon(QUICK, database=database, kafka=broker) as daemon:
        app.wait_states(sent=10)
        wait_for(lambda: app.value("select sum(successful_sends) from {s}.integrations") == 10, 60, "the counters")
        assert daemon.term() == 0
    app.subscriptions(integration, 10)
    return server, app


@pytest.mark.parametrize("how", [dumped, templated, restored])
def test_a_copy_waits_until_it_is_told(original, broker, institutions, how):
    server, app = original
    before = installation(app.database)
    assert before["elsewhere"] is False
    copy = Application(how(server, app.database, "copy"))
    assert installation(copy.database)["elsewhere"] is True
    assert "COPIED OR MOVED" in Ctl(database=copy.database)("installation").stdout
    requests = institutions.counts()["total"]["requests"]
    with Daemon(QUICK, database=copy.database, kafka=broker) as daemon:
        daemon.wait_log(WAITS)
        assert before["installation"] in daemon.log
        status = Ctl(database=copy.database)("status", "--json").expect(0).json
        assert "this database was copied or moved" in status["daemons_wait"]
        assert "DAEMONS WAIT: this database was copied" in Ctl(database=copy.database)("status").expect(0).stdout
        assert Ctl(database=copy.database)("installation", "--same", "--dry-run").code == 0
        assert installation(copy.database)["elsewhere"] is True
        assert copy.states() == {"sent": 10, "pending": 10} and institutions.counts()["total"]["requests"] == requests
        Ctl(database=copy.database)("installation", "--same").expect(0)
        copy.wait_states(sent=20)
        assert Ctl(database=copy.database)("status", "--json").expect(0).json["daemons_wait"] is None
        wait_for(lambda: copy.value("select sum(sent) from {s}.integration_runtime") == 20, 60, "the counters")
        wait_for(lambda: Ctl(database=copy.database, kafka=broker)("verify").code == 0, 60, "all to be published")
        # By mistake: under daemons at work.
        mistaken = Ctl(database=copy.database)("installation", "--copy")
        assert mistaken.code == 69 and "daemons are at work on this database" in mistaken.stderr
        assert daemon.term() == 0
    assert installation(copy.database)["installation"] == before["installation"]
    assert Ctl(database=copy.database, kafka=broker)("verify").code == 0


def test_a_session_of_a_waiting_daemon_is_no_daemon_at_work(original):
    """It looks whether it may go on, and leaves again."""
    _, app = original
    with contextlib.closing(app.database.connect()) as look, concurrent.futures.ThreadPoolExecutor() as pool:
        look.cursor().execute("set application_name = 'anubisd settle'")
        settling = pool.submit(Ctl(database=app.database), "installation", "--copy")
        wait_for(lambda: app.value("select exists (select from pg_stat_activity where application_name like 'anubisctl%%' "
                                   "and wait_event = 'PgSleep')"), 20, "it to see the session", interval=0.02)
        look.close()
        settling.result().expect(0)


def test_a_copy_that_was_called_the_same_beside_the_running_original(original, broker, institutions):
    """What it means is said to who says so; and the daemons of the original tell of events that are not theirs."""
    server, app = original
    with Daemon(QUICK, database=app.database, kafka=broker) as daemon:
        app.wait_states(sent=20)
        copy = Application(dumped(server, app.database, "copy"))
        said = re.sub(r"\s+", " ", Ctl(database=copy.database)("installation", "--same").expect(0).stdout)
        assert 'end its daemons now, and make this one a copy ("--copy")' in said
        assert "end its daemons" not in Ctl(database=copy.database)("installation", "--same").expect(0).stdout
        copy.subscriptions(copy.integration(institutions.url("/good/copy")), 10)
        with Daemon(QUICK, database=copy.database, kafka=broker, name="copy") as second:
            copy.wait_states(sent=30)
            daemon.wait_log('a copy of it publishes under its name .for which "anubisctl installation --same" was run', 60)
            assert second.term() == 0
        assert app.states() == {"sent": 20} and daemon.term() == 0


@pytest.mark.parametrize("told", ["--copy", "--same", "namespace", "name"])
def test_data_that_were_loaded_into_tables_that_have_a_name(original, broker, institutions, told):
    """Whose they are is seen by their events; nothing is sent until it is said what the database is."""
    server, app = original
    name = app.value("select namespace::text from {s}.installation")
    if told == "--same":
        app.query("update {s}.integrations set enabled = false")
        with Daemon(QUICK, database=app.database, kafka=broker):
            wait_for(lambda: app.value("select exists (select from {s}.audit_checkpoints)"), 60, "a checkpoint")
        app.query("update {s}.integrations set enabled = true")
    else:
        app.query("truncate {s}.audit_checkpoints")
    copy = Application(server.create_database("copy"))
    Ctl(database=copy.database).migrate()
    dump = subprocess.run([os.path.join(server.bin, "pg_dump"), "--data-only", "--disable-triggers", app.database.conninfo()],
                          capture_output=True, check=True)
    subprocess.run([os.path.join(server.bin, "psql"), "-q", copy.database.conninfo()], input=dump.stdout, capture_output=True,
                   check=True)
    assert copy.states() == {"sent": 10, "pending": 10}
    assert copy.value("select namespace::text <> %s from {s}.installation", (name,))
    requests = institutions.counts()["total"]["requests"]
    with Daemon(QUICK, database=copy.database, kafka=broker) as daemon:
        daemon.wait_log("the ledger has events of another installation")
        copy.subscription(1)
        assert "another installation" in Ctl(database=copy.database)("status", "--json").expect(0).json["daemons_wait"]
        assert institutions.counts()["total"]["requests"] == requests
        ctl = Ctl(database=copy.database)
        assert "DAEMONS WAIT: the ledger has events of another installation" in ctl("installation").expect(0).stdout
        if told == "--copy":
            ctl("installation", "--copy").expect(0)
            assert copy.value("select not bool_or(enabled) from {s}.integrations")
        elif told in ("--same", "name"):
            if told == "name":
                copy.query("update {s}.installation set namespace = gen_random_uuid()")
                assert "write its name from the dump" in ctl("installation", "--same").expect(69).stderr
                copy.query("update {s}.installation set namespace = %s", (name,))
            ctl("installation", "--same", "--dry-run").expect(0)
            assert copy.value("select {s}.installation_name()::text <> %s", (name,))
            said = re.sub(r"\s+", " ", ctl("installation", "--same").expect(0).stdout)
            assert "Daemons go on here, under the name of the former database" in said and "DAEMONS WAIT" not in said
            assert installation(copy.database)["installation"] == name
            assert "nothing had to be said" in ctl("installation", "--same").expect(0).stdout
        else:
            copy.query("update {s}.installation set namespace = %s; select {s}.ledger_name_events()", (name,))
        copy.query("update {s}.integrations set enabled = true")
        copy.wait_states(sent=21)
        wait_for(lambda: Ctl(database=copy.database, kafka=broker)("verify").code == 0, 60, "all to be published and handled")
        assert daemon.term() == 0
        assert daemon.start().term() == 0


def test_another_name_that_a_hand_wrote_is_put_back(app, institutions, make_daemon, ctl):
    name = app.value("select namespace::text from {s}.installation")
    app.query("update {s}.installation set namespace = gen_random_uuid()")
    app.subscription(app.integration(institutions.url("/good")))
    daemon = make_daemon().start()
    daemon.wait_log('table installation names .*run "anubisctl installation --same"')
    assert "has the name again that events and keys have" in re.sub(r"\s+", " ", ctl("installation", "--same").expect(0).stdout)
    assert installation(app.database)["installation"] == name
    app.wait_states(sent=1)


def test_a_physical_copy_under_another_port(own_postgres, broker, institutions):
    """Started beside the original, or in its place elsewhere: it has no timeline of its own, as a promoted standby has."""
    server = own_postgres(settings={"wal_level": "replica", "max_wal_senders": "4"})
    app = Application(server.create_database("original"))
    Ctl(database=app.database).migrate()
    app.subscriptions(app.integration(institutions.url("/good")), 10)
    with contextlib.closing(server.standby()) as other:
        os.unlink(os.path.join(other.data, "standby.signal"))
        other.start()
        copy = Application(Database(other, "original"))
        with Daemon(QUICK, database=copy.database, kafka=broker) as daemon:
            daemon.wait_log(WAITS)
            assert installation(app.database)["elsewhere"] is False and institutions.counts()["total"]["requests"] == 0
            Ctl(database=copy.database)("installation", "--same").expect(0)
            copy.wait_states(sent=10)
            assert daemon.term() == 0
        assert copy.value("select max(id) from {s}.subscription_events") == 30


def test_a_copy_with_a_name_of_its_own(original, broker, institutions):
    """Its waiting rows stay until its integrations are enabled, under other keys; it counts what is its own."""
    server, app = original
    before = installation(app.database)["installation"]
    # Sent and published, but not counted at the time of the copy.
    with Daemon(merged(QUICK, {"consumers": {"integration": False}}), database=app.database, kafka=broker) as daemon:
        app.wait_states(sent=20)
        wait_for(lambda: app.value("select high = last_value from {s}.relay_state, {s}.ledger_id_seq"), 30, "all to be published")
        assert daemon.term() == 0
    app.subscriptions(1, 5)
    copy = Application(templated(server, app.database, "copy"))
    told = Ctl(database=copy.database)("installation", "--copy", "--json").expect(0).json
    assert told["disabled"] == 1 and told["enabled"] == 0 and told["installation"] != before and told["elsewhere"] is False
    keys = set(institutions.keys())
    mine = merged(QUICK, {"kafka": {"topic_prefix": "copy."}, "consumers": {"group_prefix": "copy"}})
    broker.create_anubis_topics("copy.")
    with Daemon(mine, database=copy.database, kafka=broker) as daemon, Daemon(merged(QUICK, {"instance": "b"}),
                                                                              database=app.database, kafka=broker):
        for one in (copy, app):
            wait_for(lambda one=one: one.value("select sum(sent) from {s}.integration_runtime") >= 20, 60, "the counters")
        assert copy.states() == {"sent": 20, "pending": 5}
        app.wait_states(sent=25)
        copy.query("update {s}.integrations set enabled = true")
        copy.wait_states(sent=25)
        for one in (copy, app):
            wait_for(lambda one=one: one.value("select sum(sent) from {s}.integration_runtime") == 25, 60, "the counters")
            Ctl(database=one.database, kafka=broker)("verify", "--wait").expect(0)
        assert daemon.term() == 0
    assert len(set(institutions.keys()) - keys) == 10
    for one in (copy, app):
        assert Ctl(database=one.database, kafka=broker)("verify").code == 0


def test_a_schema_that_is_made_anew(own_postgres, broker, institutions):
    """Under the daemon, by who starts over: what comes then is the new installation's, and counts."""
    database = own_postgres().create_database("anew")
    app = Application(database)
    ctl = Ctl(database=database, kafka=broker)
    names = []
    with Daemon(QUICK, database=database, kafka=broker) as daemon:
        for rows in (20, 10):
            ctl.migrate()
            names.append(installation(database)["installation"])
            app.subscriptions(app.integration(institutions.url("/good/anew")), rows)
            app.wait_states(sent=rows)
            wait_for(lambda rows=rows: app.value("select sum(sent) from {s}.integration_runtime") == rows, 60, "the counters")
            wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof: {ctl('verify')}", interval=0.5)
            app.query("drop schema {s} cascade")
        assert daemon.term() == 0
    assert {m.headers["installation"] for m in broker.read_all("anubis.subscriptions.sent")} == set(names)
    assert [key.received for key in institutions.keys("/good/anew").values()] == [1] * 30


def test_two_installations_on_one_kafka(own_postgres, broker, institutions):
    """All names are the same. Nothing is counted that is not one's own, and each says whose the others are."""
    server = own_postgres()
    apps = []
    for name in ("one", "two"):
        database = server.create_database(name)
        Ctl(database=database).migrate()
        apps.append(Application(database))
        for n in range(3):
            apps[-1].integration(institutions.url(f"/good/{name}{n}"))
    ids = [installation(app.database)["installation"] for app in apps]
    daemons = [Daemon(merged(QUICK, {"instance": "twin"}), database=app.database, kafka=broker).start() for app in apps]
    try:
        for app, rows in zip(apps, (60, 300)):
            for n in range(3):
                app.subscriptions(n + 1, rows // 3)
        for app, rows in zip(apps, (60, 300)):
            app.wait_states(sent=rows, deadline=60)
        # Each has had some of the partitions of the common group; alone it gets the rest.
        for daemon, other, ours, theirs in zip(daemons, daemons[::-1], ids, ids[::-1]):
            daemon.wait_log(f"has events of another installation .{theirs}; this one is {ours}.* kafka.topic_prefix and a "
                            "consumers.group_prefix", 60)
            assert "ended this membership" not in other.log
        for app in apps:
            verify = Ctl(database=app.database, kafka=broker)
            waits = wait_for(lambda verify=verify: (r := verify("verify")) and "of its own" in r.stdout and r, 30,
                             "verify to name the keys")
            assert waits.code == 2 and "give each a kafka.topic_prefix and a consumers.group_prefix" in waits.stdout
        for app, daemon, rows in zip(apps, daemons, (60, 300)):
            for d in daemons:
                if d is not daemon and d.is_running():
                    d.term()
            if not daemon.is_running():
                daemon.start()
            wait_for(lambda app=app, rows=rows: app.value("select sum(sent) from {s}.integration_runtime") == rows, 60,
                     "the counters")
            assert app.value("select count(*) from {s}.dead_letters") == 0
            # The other groups take the partitions over, too.
            verify = Ctl(database=app.database, kafka=broker)
            wait_for(lambda verify=verify: verify("verify").code == 0, 60, lambda verify=verify: f"the proof: {verify('verify')}",
                     interval=0.5)
            # Each message of the other one is counted as foreign, once.
            read = "from {s}.consumer_offsets where read_model = 'integration' and topic ~ 'subscriptions'"
            others = sum(m.headers["installation"] != ids[apps.index(app)]
                         for row in app.query(f"select distinct topic {read}") for m in broker.read_all(row[0]))
            assert others > 60
            wait_for(lambda app=app, others=others: app.value(f"select sum(foreign_messages) {read}") == others, 60,
                     f"{others} foreign messages")
    finally:
        for daemon in daemons:
            daemon.close()


def leaves(app, count):
    wait_for(lambda: app.value("select count(*) from {s}.audit_log") == count, 60, f"{count} leaves")


def grown(app, broker, institution, number):
    """Ten more, sent and back from Kafka in the audit log; a checkpoint is due at once."""
    app.query("update {s}.integrations set enabled = true, endpoint_url = %s", (institution,))
    before = app.value("select count(*) from {s}.audit_log")
    with Daemon(QUICK, database=app.database, kafka=broker) as daemon:
        app.subscriptions(1, 10)
        app.wait_states(sent=number)
        leaves(app, before + 30)
        assert daemon.term() == 0
    with Daemon(QUICK, database=app.database, kafka=broker) as daemon:
        daemon.wait_log("audit log: checkpoint")
        assert daemon.term() == 0


def test_a_copy_of_a_copy_proves_its_audit_log(own_postgres, broker, institutions, tmp_path):
    """Each leaf in the name under which it was made, for others, too; no other name will do, and what is changed is found."""
    server = own_postgres()
    app = Application(server.create_database("original"))
    Ctl(database=app.database).migrate()
    url = institutions.url("/good/copies")
    app.integration(url)
    grown(app, broker, url, 10)
    names, proves = [app.value("select namespace::text from {s}.installation")], checker(tmp_path)
    anchor = tmp_path / "anchor"
    anchor.write_text(Ctl(database=app.database)("audit", "head", "--json").expect(0).json["note"], encoding="utf-8")
    for number in (1, 2):
        # Not all is in a checkpoint at the time of the copy.
        if number == 2:
            app.query("delete from {s}.audit_checkpoints where id = (select max(id) from {s}.audit_checkpoints)")
        app = Application((templated if number == 1 else dumped)(server, app.database, f"copy{number}"))
        ctl = Ctl(database=app.database, kafka=broker)
        names.append(ctl("installation", "--copy", "--json").expect(0).json["installation"])
        assert "proven" in ctl("verify", "--audit", "--full", "--anchor", anchor).expect(0).stdout
        grown(app, broker, url, 10 * number + 10)
        assert "proven" in ctl("verify", "--audit", "--full", "--anchor", anchor).expect(0).stdout
    made = app.query("select installation::text, max(leaves) from {s}.audit_past group by 1 order by 2")
    assert [name for name, _ in made] == names[:2]
    proofs = [ctl("audit", "prove", event, "--json").expect(0).json for event, in app.query(
        "select sequence from {s}.audit_log order by 1")]
    assert {p["entry"].splitlines()[1] for p in proofs} == set(names) and all(proves(p) for p in proofs)
    for statement in ("update {s}.audit_log set subscription_id = 4 where (tree, leaf) = (select tree, leaf from {s}.audit_log "
                      "where subscription_id = 5 limit 1)",
                      "update {s}.audit_past set leaves = leaves + 1 where installation = '" + names[0] + "'",
                      "update {s}.audit_past set installation = '" + names[1] + "'",
                      "update {s}.audit_checkpoints set note = replace(note, '" + names[2] + "', '" + names[0] + "')"):
        app.database.query("create table saved as select * from anubis.TABLE".replace("TABLE", statement.split(" ")[1][4:]))
        app.query(statement)
        assert "WRONG" in ctl("verify", "--audit", "--full").expect(1).stdout, statement
        table = statement.split(" ")[1][4:]
        app.query(f"delete from {{s}}.{table}; insert into {{s}}.{table} overriding system value select * from saved; "
                  "drop table saved")
        ctl("verify", "--audit", "--full").expect(0)


@pytest.mark.real_kafka
def test_two_installations_that_share_a_group_alone(own_postgres, real_kafka, topic_prefix, institutions):
    """Their topics have other names, so no event tells: each says what the other one reads, and which key helps."""
    server = own_postgres()
    prefixes = [topic_prefix + "a.", topic_prefix + "b."]
    daemons = []
    try:
        for prefix in prefixes:
            database = server.create_database(prefix[-2])
            Ctl(database=database).migrate()
            app = Application(database)
            app.subscriptions(app.integration(institutions.url("/good")), 5)
            ours = {"kafka": {"topic_prefix": prefix}, "consumers": {"group_prefix": topic_prefix[:-1]}}
            daemons.append(Daemon(merged(QUICK, ours), database=database, kafka=real_kafka).start())
        for daemon, other in zip(daemons, prefixes[::-1]):
            daemon.wait_log(f'error: {topic_prefix[:-1]}-integration-group: another program is a member .* which reads "{other}'
                            r'subscriptions.\w+"\..* a consumers.group_prefix of its own', 90)
    finally:
        for daemon in daemons:
            daemon.close()


def test_an_idle_installation_in_our_group_is_named(own_postgres, real_kafka, topic_prefix, institutions):
    """It writes no events, so nothing comes of it but that what it is given is counted nowhere."""
    server, group = own_postgres(), topic_prefix[:-1]
    settings = merged(QUICK, {"kafka": {"topic_prefix": topic_prefix}, "consumers": {"group_prefix": group}})
    databases = [server.create_database(name) for name in ("busy", "idle")]
    for database in databases:
        Ctl(database=database).migrate()
    daemons = [Daemon(settings, database=database, kafka=real_kafka, name=name)
               for database, name in zip((databases[0], databases[0], databases[1]), ("one", "two", "idle"))]
    try:
        for daemon in daemons:
            daemon.start()
        said = rf'{group}-\w+-group: member "{{}}-1-[0-9a-f]{{{{8}}}}" of this consumer group has no session with this database'
        for daemon in daemons[:2]:
            daemon.wait_log("error: " + said.format("idle"), 120)
        daemons[2].wait_log("error: " + said.format("(one|two)"), 120)
        daemons[2].term()
        for daemon in daemons[:2]:
            daemon.wait_log(f"notice: {group}-.*: each member of this group is a daemon of this database again", 120)
            assert not re.search(said.format("(one|two)"), daemon.log)
            assert daemon.log.count("no reader, such as partition") <= 3, daemon.log
    finally:
        for daemon in daemons:
            daemon.close()


def test_daemons_of_one_database_in_groups_of_other_names(app, ctl, institutions, make_daemon):
    """Each handles all events, and nothing counts twice: that is said once, with the key, and not each time that they meet."""
    integration = app.integration(institutions.url("/good"))
    daemons = [make_daemon(merged(QUICK, {"consumers": {"group_prefix": prefix}})).start() for prefix in ("one", "two")]
    said = r"in the group .(one|two)-\w+-group.: .* set consumers.group_prefix alike"
    rows = []

    def words():
        rows.extend(app.subscriptions(integration, 20))
        return any(re.search(said, daemon.log) for daemon in daemons)
    wait_for(words, 120, "the words", interval=1)
    wait_for(lambda: app.value("select sum(sent) from {s}.integration_runtime") == len(rows), 60, "the counters")
    assert ctl("verify", "--wait").code in (0, 2)
    for daemon in daemons:
        assert len(re.findall(r"\n.*" + said, daemon.log)) <= 3
        assert daemon.log.count("somebody else has moved") <= 3, daemon.log
