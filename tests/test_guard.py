"""What administrators do to the tables: the daemon stops before it delivers without a trail, and says what brings it back."""
import contextlib
import re
import threading

import psycopg2
import pytest
from harness.anubis import Ctl, Daemon
from harness.application import Application
from harness.postgres import refused
from harness.processes import wait_for

SWAP = ("create table {s}.other (like {s}.subscriptions including all)", "insert into {s}.other select * from {s}.subscriptions",
        "select setval(pg_get_serial_sequence('{s}.other', 'id'), 1000)",
        "alter table {s}.subscriptions rename to before", "alter table {s}.other rename to subscriptions")


def changed_under(app, institutions, make_daemon, statements):
    """An integration and a daemon that has sent five subscriptions of it, before these statements."""
    integration = app.integration(institutions.url())
    daemon = make_daemon().start()
    app.subscriptions(integration, 5)
    app.wait_states(sent=5)
    for statement in statements:
        app.query(statement)
    return integration, daemon


@pytest.mark.parametrize("change, named", [
    (["alter table {s}.subscriptions disable trigger anubis_updated"], r"anubis_updated on subscriptions \(disabled\)"),
    (["alter table {s}.subscriptions disable trigger user"], r"anubis_inserted on subscriptions \(disabled\), anubis_moved"),
    (["alter table {s}.subscriptions enable replica trigger anubis_inserted"], r"anubis_inserted .* \(not for everybody\)"),
    (["drop trigger anubis_inserted on {s}.subscriptions"], r"anubis_inserted on subscriptions \(missing\)"),
    (["drop trigger ledger_append_only on {s}.subscription_events"], r"ledger_append_only on subscription_events \(missing\)"),
    (["alter table {s}.subscription_events_1 disable trigger ledger_append_only"],
     r"ledger_append_only on subscription_events_1 \(disabled\)"),
    (["alter table {s}.subscription_events_default disable trigger ledger_no_truncate"],
     r"ledger_no_truncate on subscription_events_default \(disabled\)"),
    (["alter table {s}.integrations disable trigger all"], r"anubis_integration_check on integrations \(disabled\)"),
    (SWAP, r"anubis_inserted on subscriptions \(missing\)"),
], ids=["disabled", "all disabled", "replica only", "dropped", "ledger", "a partition", "truncation", "integrations", "swapped"])
def test_it_stops_where_a_trigger_does_not_fire(app, institutions, make_daemon, change, named):
    integration, daemon = changed_under(app, institutions, make_daemon, change)
    daemon.wait_log(rf"error: changes may leave no trace: trigger .*{named}.*anubisctl migrate")
    app.query("insert into {s}.subscriptions (integration_id) select %s from generate_series(1, 5)", (integration,))
    assert Ctl(database=app.database)("status").code == 0
    assert app.states() == {"sent": 5, "pending": 5}
    assert "applied" in Ctl(database=app.database)("migrate").expect(0).stdout
    app.wait_states(sent=10)
    assert "up to date" in Ctl(database=app.database)("migrate").expect(0).stdout
    assert daemon.term() == 0


@pytest.mark.parametrize("how", ["database {d}", "role postgres", "role postgres in database {d}", "options"])
def test_it_stops_where_no_trigger_fires_in_its_sessions(app, database, institutions, make_daemon, how):
    """A setting that was meant for one load of data, and was left."""
    app.subscriptions(app.integration(institutions.url()), 5)
    place = how.format(d=database.name)
    if how != "options":
        database.query(f"alter {place} set session_replication_role = replica")
    settings = {"database": {"conninfo": database.conninfo() + " options='-c session_replication_role=replica'"}}
    daemon = make_daemon(settings if how == "options" else None).start()
    try:
        said = daemon.wait_log("changes would leave no trace: triggers do not fire in our sessions, .*; (run \"(.*)\", and then|"
                               "take it out of .*database.conninfo)")
        assert app.states() == {"pending": 5}
        if how != "options":
            assert said[2].lower() == f"alter {place} reset session_replication_role"
            database.query(said[2])
            app.wait_states(sent=5)
        assert daemon.term() == 0
    finally:
        database.query("alter role postgres reset session_replication_role")


@pytest.mark.parametrize("tables, named", [
    ("table {s}.subscriptions", '"subscriptions"'), ("table {s}.integrations, {s}.subscriptions, {s}.confirmations",
                                                     '"subscriptions" and 1 more tables')], ids=["one", "several"])
def test_it_stops_where_logical_replication_writes(own_postgres, broker, institutions, tables, named):
    """Of another installation's rows: none of the statements' triggers fires for them, whatever is set."""
    here, there = (Application(own_postgres(settings={"wal_level": "logical"}).create_database("anubis")) for _ in range(2))
    for app in (here, there):
        Ctl(database=app.database).migrate()
    there.integration(institutions.url("/good/there"))
    integration = here.integration(institutions.url("/good/here"), id=100)
    with Daemon(database=here.database, kafka=broker) as daemon:
        here.query("select setval('{s}.subscriptions_id_seq', 1000)")
        here.subscriptions(integration, 5)
        here.wait_states(sent=5)
        there.query("create publication anubis for " + tables)
        here.query(f"create subscription incoming connection '{there.database.conninfo()}' publication anubis")
        said = daemon.wait_log('error: the tables are not as anubisd made them: the subscription "incoming" of logical '
                               rf'replication writes into {named}, where .*; when all of it has come, run "(drop [a-z ]+)"')
        there.subscriptions(1, 5)
        wait_for(lambda: here.states() == {"sent": 5, "pending": 5}, 60, lambda: f"the rows to come: {here.states()}")
        assert "writes into" in Ctl(database=here.database)("status").stdout
        here.query("update {s}.subscriptions set status = 'failed' where status = 'pending'")
        here.query(said[1])
        here.subscriptions(integration, 5)
        here.wait_states(sent=10, failed=5)
        assert daemon.term() == 0
    assert institutions.counts("/good/there")["requests"] == 0


def test_rows_that_were_written_without_triggers_are_named(app, institutions, make_daemon, broker):
    """By a role for replication, say, or a restore that was cut short, or of a single table."""
    integration = app.integration(institutions.url())
    with make_daemon().start() as daemon:
        ids = app.subscriptions(integration, 5)
        app.wait_states(sent=5)
        row = app.query("set session_replication_role = replica; insert into {s}.subscriptions (integration_id) values (%s) "
                        "returning id", (integration,))[0][0]
        app.wait_states(sent=6)
        app.query("set session_replication_role = replica; update {s}.subscriptions set status = 'pending', sent_at = null "
                  "where id = %s", (ids[2],))
        wait_for(lambda: len(app.events(ids[2])) == 5, 60, "it to be sent again")
        wait_for(lambda: app.value("select sum(sent) from {s}.integration_runtime") == 7, 60, "the counters")
        daemon.term()
    result = Ctl(database=app.database, kafka=broker)("verify").expect(1)
    assert re.search(rf"subscription {row}\b", result.stdout), result.stdout
    assert re.search(rf'subscription {ids[2]}: it was "sent", but its next event, \d+, begins at "pending"', result.stdout), \
        result.stdout
    assert not re.search(rf"subscription {ids[1]}\b", result.stdout), result.stdout


def test_sequences_behind_their_tables(app, institutions, make_daemon):
    """As in a database that logical replication has filled. The statements that are named mend all of them."""
    integration = app.integration(institutions.url())
    app.subscriptions(integration, 20)
    ids = app.value("select max(id) from {s}.subscriptions"), app.value("select max(id) from {s}.subscription_events")
    for sequence in ("ledger_id_seq", "subscriptions_id_seq", "integrations_id_seq"):
        app.query(f"select setval('{{s}}.{sequence}', 1, false)")
    daemon = make_daemon().start()
    said = daemon.wait_log(r'ids would be given out twice: sequences are behind their tables.*; run "(.*)"')
    assert app.states() == {"pending": 20}
    app.query(said[1])
    app.wait_states(sent=20)
    app.subscription(integration)
    app.wait_states(sent=21)
    assert app.value("select max(id) from {s}.subscriptions") > ids[0]
    assert app.value("select min(id) from {s}.subscription_events where event_type = 'updated'") > ids[1]
    assert daemon.term() == 0


def test_a_position_that_a_hand_set_ahead_asks_for_no_ids(app, broker, institutions, make_daemon):
    """The relay goes on where it was. Where the sequence is behind besides, it is brought up to what is true."""
    ctl = Ctl(database=app.database, kafka=broker)
    integration = app.integration(institutions.url())
    far = 9_000_000_000_000_000
    for round_ in (1, 2):
        daemon = make_daemon().start()
        app.subscriptions(integration, 20)
        app.wait_states(sent=20 * round_)
        ctl("verify", "--wait").expect(0)
        assert daemon.term() == 0
        app.query("update {s}.relay_state set high = %s", (far,))
        assert app.value("select {s}.sequences_behind()") is None
    last = app.value("select max(id) from {s}.subscription_events")
    app.query("select setval('{s}.ledger_id_seq', 1)")
    daemon = make_daemon().start()
    said = daemon.wait_log(r'ids would be given out twice: sequences are behind their tables.*; run "(.*)"')
    assert str(far) not in said[1]
    app.query(said[1])
    assert app.value("select last_value from {s}.ledger_id_seq") == last
    daemon.wait_log("somebody has set the relay's position ahead")
    app.subscriptions(integration, 5)
    app.wait_states(sent=45)
    ctl("verify", "--wait").expect(0)
    assert daemon.term() == 0


def test_triggers_that_fire_always_are_no_trouble(app, institutions, make_daemon, ctl):
    """Then rows of a load with session_replication_role = replica leave their events, too."""
    for table, trigger in app.query("select t.tgrelid::regclass::text, quote_ident(t.tgname) "
                                    "from pg_trigger t join pg_class c on c.oid = t.tgrelid "
                                    "where c.relnamespace = 'anubis'::regnamespace and not t.tgisinternal and t.tgparentid = 0"):
        app.query(f"alter table {table} enable always trigger {trigger}")
    daemon = make_daemon().start()
    integration = app.integration(institutions.url("/good"))
    app.subscriptions(integration, 5)
    row = app.query("set session_replication_role = replica; insert into {s}.subscriptions (integration_id) values (%s) "
                    "returning id", (integration,))[0][0]
    app.wait_states(sent=6)
    assert [event["event_type"] for event in app.events(row)] == ["created", "updated", "sent"]
    ctl("verify", "--wait").expect(0)
    assert "leave no trace" not in daemon.log and daemon.term() == 0


# What a row of each table needs, whose ids are ours alone.
OURS = {"alerts": "(kind, message, state, resolved_at) values ('test', 'x', 'resolved', now())",
        "alert_outbox": "(alert_id, sink, event, body, sent_at) select max(id), 'journal', 'fired', '{}', now() from {s}.alerts",
        "alert_silences": "(integration_id, kind, until, reason) select max(id), 'TOPIC', now() + interval '1 d', 'x' "
                          "from {s}.integrations",
        "dead_letters": "(consumer_group, topic, partition, \"offset\", error, discarded_at) "
                        "values ('g', 'TOPIC', 0, 0, 'x', now())",
        "audit_trees": "(topic, partition) values ('TOPIC', 0)",
        "audit_checkpoints": "(note) values ('x')",
        "audit_past": "(tree, leaves, installation, checkpoint) values (1, 0, gen_random_uuid(), 1)"}


def test_all_tables_with_ids_of_ours_are_known(app):
    found = app.query("select relname from pg_attribute a join pg_class c on c.oid = a.attrelid "
                      "where relnamespace = 'anubis'::regnamespace and attidentity = 'a' and relkind = 'r'")
    assert sorted(row[0] for row in found) == sorted(OURS)


@pytest.mark.parametrize("table", ["ledger", *OURS])
def test_a_sequence_that_alone_is_behind_its_table(app, institutions, make_daemon, table):
    """As after a restore of that table. What is named is what has to be done, and no more."""
    integration = app.integration(institutions.url())
    app.subscriptions(integration, 5)
    sequence = "ledger_id_seq" if table == "ledger" else f"{table}_id_seq"
    if table == "alert_outbox":
        app.query("insert into {s}.alerts " + OURS["alerts"])
    for n in range(2 if table in OURS else 0):
        app.query(f"insert into {{s}}.{table} " + OURS[table].replace("TOPIC", str(n)))
    behind = "select {s}.sequences_behind()"
    assert app.value(behind) is None
    app.query(f"select setval('{{s}}.{sequence}', 1)")
    daemon = make_daemon().start()
    said = daemon.wait_log(r'ids would be given out twice: sequences are behind their tables.*; run "(.*)"')
    assert sequence in said[1] and (table == "ledger" or said[1].count("setval") == 1)
    assert app.states() == {"pending": 5}
    app.query(said[1])
    assert app.value(behind) is None
    app.wait_states(sent=5)
    assert daemon.term() == 0


# --- tables that are not those that were made ---

REPLACED = ("alter table {s}.TABLE rename to before", "create table {s}.TABLE as select * from {s}.before")
NEWEST = "(select name from {s}.ledger_partitions, {s}.ledger_id_seq where last_value between first_id and last_id)"


@pytest.mark.parametrize("changes, named, mend", [
    (["do $$ begin execute format('alter table {s}.subscription_events detach partition {s}.%I', "
      + NEWEST + "); end $$"],
     r'partition "subscription_events_\d+" is detached', "migrate"),
    (["delete from {s}.ledger_partitions where name = " + NEWEST],
     r'partition "subscription_events_\d+" is not in the table "ledger_partitions"', "migrate"),
    (["alter table {s}.subscription_events_1 rename to events_of_before"],
     'partition "subscription_events_1" is named events_of_before now; run "alter table anubis.events_of_before rename', "said"),
    (["alter table {s}.subscription_events_1 set unlogged"], r'partition "subscription_events_1" is unlogged', "said"),
    (["alter table {s}.subscriptions set unlogged"], 'table "subscriptions" is unlogged', "said"),
    (["alter table {s}.integration_filters set unlogged"], 'table "integration_filters" is unlogged', "said"),
    (["alter table {s}.subscription_events rename to before",
      "create table {s}.subscription_events (like {s}.before including all)"], "the ledger.* it is named .*before now",
     "migrate"),
    (["alter table {s}.subscription_events rename to before",
      "create table {s}.subscription_events as select * from {s}.before"],
     "the ledger.* it is named .*before now", "migrate"),
    (["alter table {s}.subscription_events rename to before"], "the ledger.* it is named .*before now", "gone"),
    (["create schema attic", "alter table {s}.subscription_events set schema attic"],
     "the ledger.* it is named attic.subscription_events now", "gone"),
    (["create schema attic", "alter table {s}.relay_state set schema attic"],
     'table "relay_state" is named attic.relay_state now', "migrate"),
    (["create schema attic", "alter table {s}.integrations set schema attic"],
     r'table "integrations" is attic.integrations now; run "alter table attic.integrations set schema anubis"', "gone, said"),
    (["alter table {s}.subscriptions rename to enrolments"],
     'table "subscriptions" is named anubis.enrolments now; run "alter table anubis.enrolments rename to subscriptions"',
     "gone, said"),
    (["alter table {s}.integrations rename to institutions", "create view {s}.integrations as table {s}.institutions"],
     r'table "integrations" is a view, and the table itself is anubis.institutions', "said"),
    (["delete from {s}.relay_state"], 'table "relay_state" has no row', "migrate"),
    (["delete from {s}.installation"], 'table "installation" has no row', "migrate"),
    ([s.replace("TABLE", "relay_state") for s in REPLACED], 'table "relay_state" is named .*before now', "migrate"),
    ([s.replace("TABLE", "consumer_bitmaps") for s in REPLACED], 'table "consumer_bitmaps" is named .*before now',
     "migrate"),
    ([s.replace("TABLE", "dead_letters") for s in REPLACED], 'table "dead_letters" is named .*before now', "migrate"),
    (["alter table {s}.consumer_offsets set unlogged"], 'table "consumer_offsets" is unlogged', "said"),
    (["drop view {s}.subscription_event_messages"],
     "a view that anubisd needs is missing: subscription_event_messages", "migrate"),
    (["alter table {s}.integration_runtime rename sent to sent_total"],
     'table "integration_runtime" has no column "sent", but a "sent_total"', "said"),
    (["alter table {s}.relay_state rename high to hi"], 'table "relay_state" has no column "high", but a "hi"', "said"),
    (["alter table {s}.alert_silences rename until to ending"], 'table "alert_silences" has no column "until"', "said"),
    (["alter sequence {s}.ledger_id_seq cache 20"], "draws 20 ids at once.* sessions of the application reconnect", "said"),
    (["update {s}.installation set namespace = gen_random_uuid()"], "table installation names .* somebody has written",
     "said --same"),
], ids=["detached", "not listed", "renamed partition", "unlogged", "unlogged subscriptions", "unlogged filters", "look-alike",
        "plain copy", "renamed", "moved ledger", "moved relay_state",
        "moved integrations", "renamed subscriptions", "view of integrations", "relay_state", "installation",
        "copy of relay_state", "copy of marks", "copy of dead letters", "unlogged offsets", "view", "column",
        "column of the relay", "column of a silence", "sequence", "namespace"])
def test_it_stops_where_a_table_is_another_one(app, institutions, make_daemon, broker, changes, named, mend):
    """Until it is mended as the journal says; nothing is lost, sent twice or counted twice, and the name stays."""
    integration = app.integration(institutions.url("/good/tables"))
    name = app.value("select namespace from {s}.installation")
    daemon = make_daemon().start()
    verify = Ctl(database=app.database, kafka=broker)
    app.subscriptions(integration, 5)
    app.wait_states(sent=5)
    for change in changes:
        app.query(change)
    said = daemon.wait_log(rf'error: the tables are not as anubisd made them: .*{named}|error: {named}', 60)
    line = daemon.log[said.start():].partition("\n")[0]
    insert = "insert into {s}.subscriptions (integration_id) select %s from generate_series(1, 5)"
    if "gone" not in mend:
        app.query(insert, (integration,))
    for statement in re.findall(r'run "((?!anubisctl).*?)"(?:[;,]|$)', line) if "said" in mend else ():
        app.query(statement)
    if "--same" in mend:
        verify("installation", "--same").expect(0)
    migrated = verify("migrate").expect(0).stdout
    assert "said" in mend or "brought back" in migrated or "applied" in migrated
    assert "up to date" in verify("migrate").expect(0).stdout
    if "gone" in mend:
        app.query(insert, (integration,))
    app.wait_states(sent=10)
    wait_for(lambda: verify("verify").code == 0, 60, lambda: f"the proof: {verify('verify')}", interval=0.5)
    assert app.value("select sum(sent) from {s}.integration_runtime") == 10
    assert app.value("select namespace from {s}.installation") == name
    assert [key.received for key in institutions.keys("/good/tables").values()] == [1] * 10
    assert "has taken the lead" not in daemon.log  # no other daemon is there
    assert daemon.term() == 0


LEDGER_IN_PARTS = [
    "do $$ begin execute format('alter table {s}.subscription_events detach partition {s}.%I', " + NEWEST + "); end $$",
    "create schema attic; do $$ begin execute format('alter table {s}.subscription_events detach partition {s}.%1$I; "
    "alter table {s}.%1$I set schema attic', " + NEWEST + "); end $$",
    "alter table {s}.subscription_events rename to before",
    "alter table {s}.consumer_bitmaps rename to before; create table {s}.consumer_bitmaps as table {s}.before",
]


@pytest.mark.parametrize("table", ["subscriptions", "subscription_events", "integrations", "consumer_bitmaps"])
def test_it_stops_where_row_security_hides_rows(own_postgres, institutions, broker, table):
    """Forced, it holds for the daemon's role, too, which owns the tables."""
    server = own_postgres()
    server.query("create role anubisd login")
    database = server.create_database("anubis")
    server.query("alter database anubis owner to anubisd")
    app, own = Application(database), {"database": {"conninfo": server.conninfo("anubis", user="anubisd")}}
    ctl = Ctl(own, kafka=broker)
    ctl.migrate()
    integration = app.integration(institutions.url("/good"))
    with Daemon(own, kafka=broker) as daemon:
        app.subscriptions(integration, 5)
        app.wait_states(sent=5)
        app.query(f"alter table {{s}}.{table} enable row level security")
        app.subscriptions(integration, 5)
        app.wait_states(sent=10)
        app.query(f"alter table {{s}}.{table} force row level security")
        said = daemon.wait_log(f'error: the tables are not as anubisd made them: table "{table}" has row security, which hides '
                               'rows from role "anubisd"; run "(.*?)"')
        assert "has row security" in ctl("verify").expect(1).stdout
        app.query(said[1])
        app.subscriptions(integration, 5)
        app.wait_states(sent=15)
        ctl("verify", "--wait").expect(0)
        assert daemon.term() == 0


@pytest.mark.parametrize("change", LEDGER_IN_PARTS, ids=["detached", "moved", "renamed", "copy of marks"])
def test_commands_tell_nothing_of_tables_that_are_not_whole(app, institutions, make_daemon, ctl, change):
    """What they would tell, erase or correct would be half of it."""
    integration = app.integration(institutions.url("/good"))
    daemon = make_daemon().start()
    rows = app.subscriptions(integration, 5)
    app.wait_states(sent=5)
    wait_for(lambda: ctl("verify").code == 0, 60, "the proof", interval=0.5)
    assert daemon.term() == 0
    counters = app.query("select integration_id, sent, failed from {s}.integration_runtime")
    app.query(change)
    why = "the tables are not as anubisd made them: "
    for command in (["erase", "--subscription", str(rows[0]), "--yes"], ["erase", "--subscription", str(rows[0]), "--dry-run"],
                    ["erase", "--cpf", "52998224725", "--yes"], *(["replay", "--group", "integration", *more] for more in (
                        [], ["--from-ledger"], ["--from-ledger", "--dry-run"])), ["replay", "--group", "monitoring"]):
        refused = ctl(*command)
        assert refused.code == 69 and why in refused.stderr, (command, refused)
    proof = ctl("verify")
    assert proof.code == 1 and why in proof.stdout and "WRONG: 1 difference" in proof.stdout, proof
    assert app.query("select count(*) from {s}.subscriptions where erased_at is null") == [(5,)]
    assert app.query("select integration_id, sent, failed from {s}.integration_runtime") == counters


def test_a_schema_that_was_renamed(app, institutions, make_daemon):
    """Whichever name the configuration has, the way back is named, and nobody makes a second installation."""
    integration = app.integration(institutions.url("/good/renamed"))
    daemon = make_daemon().start()
    app.subscriptions(integration, 5)
    app.wait_states(sent=5)
    app.query("alter schema anubis rename to shop")
    words = r'the schema "anubis" was renamed to "shop", .*run "(alter schema shop rename to anubis)"'
    said = daemon.wait_log(words, 60)
    for schema in ("anubis", "shop"):
        for command in ("status", "migrate", "verify"):
            refused = Ctl({"database": {"schema": schema}}, database=app.database)(command)
            assert refused.code == 69 and re.search(words, refused.stderr), (schema, command, refused)
    app.query(said[1])
    app.subscriptions(integration, 5)
    app.wait_states(sent=10)
    assert "up to date" in Ctl(database=app.database)("migrate").expect(0).stdout
    assert daemon.term() == 0


SWAP = "alter schema anubis rename to held; alter schema filial rename to anubis; alter schema held rename to filial"


def enrol(database, schema, integration, stop, refusals):
    """One row after the other, in one session, whatever the schema of that name is."""
    with contextlib.closing(database.connect()) as session, session.cursor() as cursor:
        session.autocommit = True
        while not stop.wait(0.01):
            try:
                cursor.execute(f"insert into {schema}.subscriptions (integration_id) values (%s)", (integration,))
            except psycopg2.Error as error:
                refusals.append((error.pgcode, str(error)))


def test_schemas_of_two_installations_that_change_their_names(app, broker, institutions, make_daemon):
    """Under running daemons and open sessions. Nothing of one comes into the other's ledger or topics, and results are kept."""
    database, filial = app.database, {"database": {"schema": "filial"}, "kafka": {"topic_prefix": "filial."},
                                      "consumers": {"group_prefix": "filial"}}
    Ctl(filial, database=database).migrate()
    database.query("select setval('filial.ledger_id_seq', 500000), setval('filial.subscriptions_id_seq', 500000)")
    apps = {"anubis": app, "filial": Application(database, "filial", seed=2)}
    settings = {"anubis": {}, "filial": filial}
    stop, refusals, daemons, threads = threading.Event(), [], [], []
    for schema, one in apps.items():
        integration = one.integration(institutions.url(f"/slow/200/{schema}"))
        daemons.append(make_daemon(settings[schema]).start())
        threads.append(threading.Thread(target=enrol, args=(database, schema, integration, stop, refusals)))
        threads[-1].start()
    try:
        wait_for(lambda: all(one.states()["sent"] > 50 for one in apps.values()), 60, "work")
        database.query(SWAP)
        said = [daemon.wait_log(r'was renamed to "\w+", and another one .*run "(alter schema .*?)"', 60)[1] for daemon in daemons]
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert {code for code, _ in refusals} == {"55000"} and all("their schema was renamed" in words for _, words in refusals)
    # The first statement gives one of them its name back; then the other's is free.
    assert said[0].endswith("alter schema anubis rename to filial") and said[1].endswith("alter schema filial rename to anubis")
    database.query(said[0])
    database.query(daemons[0].wait_log(r'was renamed to "filial_other", .*run "(alter schema .*?)"', 60)[1])
    for schema, one in apps.items():
        one.wait_settled(60)
        Ctl(settings[schema], database=database, kafka=broker)("verify", "--wait", deadline=180).expect(0)
        of_filial = schema == "filial"
        assert one.value("select count(*) from {s}.subscription_events where (subscription_id > 500000) <> %s", (of_filial,)) == 0
        keys = [int(m.key) for name in ("created", "updated", "sent") for m in broker.read_all(f"{schema}.subscriptions.{name}")]
        assert len(keys) > 150 and {key > 500000 for key in keys} == {of_filial}
        assert all(key.received == 1 for key in institutions.keys(f"/slow/200/{schema}").values())
    assert [daemon.term() for daemon in daemons] == [0, 0]


def test_the_tables_that_are_looked_at_are_all(database):
    """But for those that the application may own, and the partitions of the ledger."""
    theirs = "^(subscription_events.*|subscriptions|integrations|integration_filters)$"
    assert database.query("select relname::text, relkind::text from pg_class where relnamespace = 'anubis'::regnamespace "
                          "and relkind in ('r', 'p') and relname !~ %s order by 1", (theirs,)) == \
        database.query("select name, kind::text from anubis.tables_needed() order by 1")
    assert database.query("select relation, name from anubis.columns_ours() order by 1, 2") == \
        database.query("select n.name, a.attname::text from anubis.tables_needed() n, pg_attribute a where attnum > 0 "
                       "and not attisdropped and attrelid = to_regclass('anubis.' || n.name) order by 1, 2")
    assert database.value("select anubis.tables_amiss() is null and anubis.views_amiss() is null")


# --- functions and triggers that are not those that were made, and what others put on the tables ---

NO_OP = "create or replace function {s}.NAME() returns trigger language plpgsql as 'begin return null; end'"
SWALLOW = ("create function public.swallow() returns trigger language plpgsql as 'begin return null; end'",)


def same_but(change):
    """The function that writes events of inserts, as a file of functions holds it, but for something."""
    return ("do $do$ begin execute replace(pg_get_functiondef('{s}.subscription_inserted'::regproc), " + change + "); end $do$",)


def test_it_stops_though_the_session_that_looks_is_lost_meanwhile(app, institutions, make_daemon):
    """What was admitted before is to be judged again: deliveries keep their session."""
    changed_under(app, institutions, make_daemon, [
        "begin; " + NO_OP.replace("NAME", "subscription_updated") + "; commit; select pg_terminate_backend(pid) "
        "from pg_stat_activity where application_name = 'anubisd monitor' and datname = current_database()"])[1].wait_log(
            "error: changes may leave no trace: function subscription_updated", 60)


@pytest.mark.parametrize("changes, named", [
    ([NO_OP.replace("NAME", "subscription_inserted")], "function subscription_inserted"),
    ([NO_OP.replace("NAME", "subscription_updated")], "function subscription_updated"),
    (same_but("'attempts operator', 'attempts  operator'"), "function subscription_inserted"),
    (["alter function {s}.subscription_inserted() security invoker"], "function subscription_inserted"),
    (["alter function {s}.subscription_updated() set search_path = public"], "function subscription_updated"),
    (["alter function {s}.subscription_judged immutable"], "function subscription_judged"),
    (["create or replace function {s}.work_refused() returns text language sql as 'select null'"], "function work_refused"),
    ([*SWALLOW, "drop trigger anubis_inserted on {s}.subscriptions", "create trigger anubis_inserted after insert on "
      "{s}.subscriptions referencing new table as new_rows for each statement execute function public.swallow()"],
     "trigger anubis_inserted on subscriptions"),
    (["drop trigger anubis_updated on {s}.subscriptions", "create trigger anubis_updated after update of payload on "
      "{s}.subscriptions for each statement execute function {s}.subscription_deletion_refused()"],
     "trigger anubis_updated on subscriptions"),
    (["drop trigger anubis_4_change_refused on {s}.subscriptions", "create trigger anubis_4_change_refused before update of "
      "integration_id, payload on {s}.subscriptions for each row when (new.id < 0) "
      "execute function {s}.subscription_change_refused()"],
     "trigger anubis_4_change_refused on subscriptions"),
    (["drop trigger anubis_integration_check on {s}.integrations", "create trigger anubis_integration_check "
      "before insert or update of id, endpoint_url, auth_token, name "
      "on {s}.integrations for each row execute function {s}.integration_check()"],
     "trigger anubis_integration_check on integrations"),
], ids=["insert", "update", "a blank", "security", "search_path", "volatility", "guard", "another's function",
        "another trigger", "another condition", "another column"])
def test_it_stops_where_a_function_is_another_one(app, institutions, make_daemon, changes, named):
    """As after a restore of functions, or of an old dump over a new schema. The trigger itself is there, and enabled."""
    integration, daemon = changed_under(app, institutions, make_daemon, changes)
    words = rf'changes may leave no trace: {named}(\(\))? \(changed\); run "anubisctl migrate", which brings back'
    daemon.wait_log(f"error: {words}", 60)
    assert re.search(words, Ctl(database=app.database)("status").stdout)
    assert "applied" in Ctl(database=app.database)("migrate").expect(0).stdout
    app.subscriptions(integration, 5)
    app.wait_states(sent=10)
    assert app.value("select count(*) from {s}.subscription_events where event_type in ('created', 'sent')") == 20
    assert "up to date" in Ctl(database=app.database)("migrate").expect(0).stdout
    assert daemon.term() == 0


def test_a_column_that_stands_in_a_trigger_and_was_renamed_is_named(app, institutions, make_daemon, ctl):
    """The trigger is another one with it, but what helps is to give the column back its name."""
    integration, daemon = changed_under(app, institutions, make_daemon, ["alter table {s}.subscriptions rename payload to body"])
    said = 'a migration of the application is in the way: table "subscriptions" has no column "payload"'
    daemon.wait_log(f"error: {said}", 60)
    assert said in ctl("status", "--json").expect(0).json["daemons_wait"] and "(changed)" not in daemon.log
    app.query("alter table {s}.subscriptions rename body to payload")
    app.subscriptions(integration, 5)
    app.wait_states(sent=10)
    assert daemon.term() == 0


@pytest.mark.parametrize("changes", [
    ["select {s}.anubis_alter('alter table {s}.subscriptions alter column status type varchar(40)')"],
    ["select {s}.anubis_alter('alter table {s}.subscriptions alter column payload type text')",
     "select {s}.anubis_alter('alter table {s}.subscriptions alter column integration_id type integer')"],
    ["select {s}.anubis_alter('alter table {s}.integrations alter column endpoint_url type varchar(400)')",
     "select {s}.anubis_alter('alter table {s}.integrations alter column max_in_flight type bigint')"],
    ["do $$ begin execute format('alter database %I set quote_all_identifiers = on', current_database()); end $$"],
], ids=["status", "payload", "integrations", "quotes"])
def test_types_and_settings_make_no_other_trigger(app, institutions, make_daemon, changes):
    """The condition of a trigger is the same, however the server writes it down."""
    integration, daemon = changed_under(app, institutions, make_daemon, changes)
    assert daemon.term() == 0
    daemon.start()
    app.subscriptions(integration, 5)
    app.wait_states(sent=10, deadline=60)
    for _ in range(2):
        assert "up to date" in Ctl(database=app.database)("migrate").expect(0).stdout
    assert "(changed)" not in daemon.log and daemon.term() == 0


@pytest.mark.parametrize("changes, named", [
    ([*SWALLOW, "create trigger a before insert on {s}.subscription_events for each row execute function public.swallow()"],
     'trigger "a" on "subscription_events" can drop or change'),
    ([*SWALLOW, "create trigger a before update on {s}.integration_runtime for each row execute function public.swallow()"],
     'trigger "a" on "integration_runtime" can drop or change'),
    ([*SWALLOW, "create trigger ledger_audit before insert on {s}.subscription_events for each row "
      "execute function public.swallow()"],
     'trigger "ledger_audit" on "subscription_events" can drop or change'),
    ([*SWALLOW, "create trigger anubis_updated before update on {s}.consumer_offsets for each row "
      "execute function public.swallow()"],
     'trigger "anubis_updated" on "consumer_offsets" can drop or change'),
    (["create trigger again after insert on {s}.subscriptions referencing new table as new_rows for each statement "
      "execute function {s}.subscription_inserted()"],
     r'trigger "again" on "subscriptions" calls subscription_inserted\(\) once more'),
    (["alter trigger anubis_3_seed_kept on {s}.subscriptions rename to mine", "create trigger anubis_3_seed_kept "
      "before update of idempotency_seed on {s}.subscriptions for each row when ("
      "new.idempotency_seed is distinct from old.idempotency_seed "
      "and (old.idempotency_seed is not null or pg_trigger_depth() = 0)) execute function {s}.subscription_seeded()"],
     r'trigger "mine" on "subscriptions" calls subscription_seeded\(\) once more'),
    (["create table public.child () inherits ({s}.subscriptions)"], 'table public.child inherits from "subscriptions"'),
    (["create rule r as on insert to {s}.subscription_events do instead nothing"], 'rule "r" on "subscription_events"'),
    (["create rule r as on update to {s}.subscriptions where old.id % 2 = 0 do instead nothing"], 'rule "r" on "subscriptions"'),
    (["create rule also as on update to {s}.subscriptions do also notify changes"],
     'rule "also" on "subscriptions" makes the server refuse'),
    (["create rule also as on insert to {s}.relay_holes do also notify changes"],
     'rule "also" on "relay_holes" makes the server refuse'),
], ids=["ledger", "counters", "a name like ours", "a name of ours", "once more", "renamed and made again", "inherited", "rule",
        "rule of updates", "rule that adds", "rule that adds to ours"])
def test_it_stops_where_others_drop_rows(app, institutions, make_daemon, changes, named):
    integration, daemon = changed_under(app, institutions, make_daemon, changes)
    said = daemon.wait_log(rf'error: the tables are not as anubisd made them: {named}.*; run "(.*?)"', 60)
    app.query(said[1])
    app.subscriptions(integration, 5)
    app.wait_states(sent=10)
    assert daemon.term() == 0


def test_no_new_integration_gets_what_waits_for_one_that_is_gone(app, institutions, make_daemon):
    """Last night's integrations were restored alone, and their sequence with them. Those that lack are made again."""
    old = app.integration(institutions.url("/good/old"))
    lost = {name: app.integration(institutions.url(f"/good/{name}"), enabled=False) for name in "ab"}
    sent = app.integration(institutions.url("/good/sent"))
    app.subscription(sent)
    with make_daemon().start() as daemon:
        app.wait_states(sent=1)
        wait_for(lambda: app.value("select exists (select from {s}.integration_stats_months)"), 60, "it to be counted")
        for integration in lost.values():
            app.subscriptions(integration, 5)
        app.query("set session_replication_role = replica; delete from {s}.integrations where id > %s; "
                  "select setval(pg_get_serial_sequence('{s}.integrations', 'id'), %s)", (old, old))
        for _ in range(len(lost) + 1):
            code, said = refused(app.integration, institutions.url("/good/new"))
            assert code == "23505" and "subscriptions or counts of a former one have it" in said
        with contextlib.closing(app.database.connect()) as session, session.cursor() as cursor:
            def insert(name, id="default"):
                cursor.execute(f"insert into anubis.integrations (id, name, endpoint_url) values ({id}, 'x', %s) returning id",
                               (institutions.url(f"/good/{name}"),))
                return cursor.fetchone()[0]
            cursor.execute("select setval(pg_get_serial_sequence('anubis.integrations', 'id'), %s)", (old,))
            said = refused(insert, "new")[1]
            cursor.execute(re.search('run "(.*?)"', said)[1])
            new = insert("new")
            assert new > sent and [insert(name, id) for name, id in lost.items()] == list(lost.values())
        app.subscription(new)
        app.wait_states(sent=12)
        assert [len(institutions.keys(f"/good/{name}")) for name in ("a", "b", "new", "sent")] == [5, 5, 1, 1]
        assert daemon.term() == 0


@pytest.mark.parametrize("seen", [True, False], ids=["seen", "daemon was off"])
def test_no_new_subscription_gets_the_id_of_one_that_is_gone(app, institutions, make_daemon, ctl, seen):
    """Last night's subscriptions were restored alone, and their sequence with them: the ledger has the others for others."""
    integration = app.integration(institutions.url("/good"))
    daemon = make_daemon().start()
    app.subscriptions(integration, 20)
    app.wait_states(sent=20)
    noted = "select subscriptions_up_to from {s}.installation"
    wait_for(lambda: app.value(noted) == 20, 60, "the greatest id to be noted")
    assert daemon.term() == 0
    pooled = [app.database.connect() for _ in range(2)]
    insert = "insert into anubis.subscriptions (integration_id) values (%s) returning id"
    for session in pooled:
        session.autocommit = True
        session.cursor().execute(insert, (integration,))
    if not seen:
        app.subscriptions(integration, 8)
    last = app.value("select max(id) from {s}.subscriptions")
    assert last == (22 if seen else 30) and app.value(noted) == 20
    app.query("set session_replication_role = replica; delete from {s}.subscriptions where id > 15; "
              "select setval(pg_get_serial_sequence('{s}.subscriptions', 'id'), 15)")
    named = re.search("setval.*?, ([0-9]+)[)]", app.value("select {s}.sequences_behind()"))
    assert int(named[1]) == last
    # Who names the id knows whose it is.
    app.query("insert into {s}.subscriptions (id, integration_id) values (17, %s)", (integration,))
    with contextlib.closing(pooled[0]), contextlib.closing(pooled[1]), pooled[0].cursor() as cursor:
        for session in ("a pooled one", "a new one"):
            app.query("select setval(pg_get_serial_sequence('{s}.subscriptions', 'id'), 15)")
            code, said = refused(cursor.execute, insert, (integration,)) if session == "a pooled one" else \
                refused(app.subscription, integration)
            # The first of a pooled session was inserted when 20 were noted: what came after that, it cannot know.
            assert code == "23505" and "cannot give a new subscription the id 16" in said and f"behind {last} now" in said, said
        assert app.subscription(integration) == last + 1
        pooled[1].cursor().execute(insert, (integration,))
    assert app.value("select {s}.sequences_behind()") is None
    with daemon.start():
        wait_for(lambda: app.value("select count(*) from {s}.subscriptions where status <> 'sent'") == 0, 60, "all to be sent")
        app.query("select setval(pg_get_serial_sequence('{s}.subscriptions', 'id'), 5)")
        said = daemon.wait_log(r'ids would be given out twice: sequences are behind their tables.*; run "(.*)"')
        app.query(said[1])
        assert app.subscription(integration) == last + 3
        assert daemon.term() == 0
    assert app.value("select max(n) from (select count(*) n from {s}.subscription_events where event_type = 'created' "
                     "and subscription_id <> 17 group by subscription_id) x") == 1


def test_an_application_takes_ids_elsewhere(app, institutions, make_daemon, ctl):
    """Greater and smaller ones than its sequence tells. That is its matter."""
    integration = app.integration(institutions.url("/good"))
    with make_daemon().start() as daemon:
        for id in (10**15, 50, 10**14, 30):
            app.query("insert into {s}.subscriptions (id, integration_id) values (%s, %s)", (id, integration))
        app.subscriptions(integration, 2)
        app.wait_states(sent=6)
        wait_for(lambda: app.value("select subscriptions_up_to from {s}.installation") == 2, 60, "the greatest id to be noted")
        app.query("insert into {s}.subscriptions (id, integration_id) values (%s, %s)", (10**13, integration))
        app.wait_states(sent=7)
        ctl("verify", "--wait").expect(0)
        assert app.value("select {s}.sequences_behind()") is None and "given out twice" not in daemon.log
        # Another sequence, and one that goes on elsewhere.
        app.query("create sequence {s}.further start with 5000 owned by {s}.subscriptions.id; "
                  "alter sequence {s}.further restart with 6000; "
                  "alter table {s}.subscriptions alter id drop identity if exists; "
                  "alter table {s}.subscriptions alter id set default nextval('{s}.further')")
        assert app.value("select {s}.sequences_behind()") is None
        app.query("alter sequence {s}.further restart with 2")
        assert app.value("select {s}.sequences_behind()") == "select setval('anubis.further', 2);"
        assert refused(app.subscription, integration)[0] == "23505" and app.subscription(integration) == 3
        app.query("select setval('{s}.further', 7000, false)")
        app.wait_states(sent=8)
        assert app.subscription(integration) == 7000
        app.wait_states(sent=9)
        assert app.value("select {s}.sequences_behind()") is None and daemon.term() == 0
