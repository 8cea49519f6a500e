"""The runbooks of anubisd(8): each statement does what it is there for, and what they name exists."""
import glob
import os
import re
import shlex
import shutil
import subprocess

import pytest
from harness.anubis import Ctl, Daemon, merged, program, run
from harness.application import Application
from harness.kafka import EmbeddedBroker
from harness.postgres import Database, find_binaries
from harness.processes import wait_for

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
QUICK = {"consumers": {"session_timeout": "6s", "heartbeat_interval": "500ms"}}


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as f:
        return f.read()


RUNBOOKS = read("man/anubisd.8").partition(".Sh RUNBOOKS\n")[2].partition("\n.Sh ")[0]
TITLES = re.findall(r"(?m)^\.Ss (.*)$", RUNBOOKS)


def runbook(title):
    return RUNBOOKS.partition(f".Ss {title}\n")[2].partition("\n.Ss ")[0]


def statements(title=None):
    """Those of a runbook, or of all."""
    blocks = re.findall(r"(?ms)^\.Bd -literal\n(.*?)^\.Ed$", runbook(title) if title else RUNBOOKS)
    return [s.strip() for block in blocks for s in re.split(r"(?m);$", block) if s.strip()]


# --- what is named exists ---

PROGRAMS = {"anubisctl", "anubisd", "curl", "df", "getent", "ip", "journalctl", "make", "pg_dump", "psql", "systemctl"}


def commands():
    """Of the lines on their own, and within the text."""
    lines = re.findall(r"(?m)^\.(?:Dl|Ic) (.*?)(?: [.,;])?$", RUNBOOKS)
    found = [c.strip() for line in lines for c in line.split(" | ")]
    return sorted({c for c in found if not re.fullmatch(r"\w+=", c)})


def place_of(name):
    return program(name) if name.startswith("anubis") else shutil.which(name, path=f"{find_binaries()}:{os.environ['PATH']}")


def test_commands_exist(binaries):
    """Programs, commands of anubisctl, and all long options."""
    assert len(commands()) > 20
    known = re.findall(r"(?m)^  ([a-z-]+) ", run([program("anubisctl"), "--help"]).stdout.partition("Options:")[0])
    for command in commands():
        name, *words = command.split()
        assert name in PROGRAMS, command
        assert name != "anubisctl" or words[0] in known, command
        options = [w.partition("=")[0] for w in words if w.startswith("--")]
        if options and place_of(name):
            shown = run([place_of(name), "--help"]).stdout
            assert all(re.search(rf"{option}\b", shown) for option in options), command


def test_keys_exist(binaries):
    keys = {line.split("\t")[0] for line in run([program("tools/list_keys")]).expect().stdout.splitlines()}
    named = set(re.findall(r"(?m)^\.Va (\w+\.\w+)", RUNBOOKS))
    assert named and named <= keys


def test_words_of_the_journal_are_the_programs():
    sources = "".join(read(path) for pattern in ("src/**/*.[ch]", "sql/repeatable/*.sql")
                      for path in glob.glob(pattern, root_dir=ROOT, recursive=True))
    spoken = re.sub(r'"\s*(?:PRI\w+\s*)?"', "", sources).replace('\\"', '"')
    quoted = re.findall(r"(?m)^\.Dq (.*?)(?: [.,;])?$", RUNBOOKS)
    assert len(quoted) > 20
    assert not [words for words in quoted if words not in spoken]


def test_references_lead_somewhere():
    headings = {name: set(re.findall(r"(?m)^\.S[hs] (.*)$", read(f"man/{name}.8"))) for name in ("anubisd", "anubisctl")}
    assert set(re.findall(r"\bSx ([^,;.\n]*\w)", RUNBOOKS)) <= headings["anubisd"]
    assert set(re.findall(r"(?m)^\.Em (.*)$", RUNBOOKS)) <= headings["anubisctl"]


NEEDED = {"Restore of a backup", "Failover to a standby", "Upgrade of anubisd", "Upgrade of PostgreSQL by pg_upgrade",
          "Upgrade of PostgreSQL by logical replication", "Another Kafka cluster", "A new token of an institution",
          "A new password of Kafka or Postgres", "Full disk of the database server", "Full disk of the journal",
          "The proof is wrong", "A bad night", "Refusals, and an open circuit",
          "A person asks to be erased", "The network of this machine", "Subscriptions that are due, and wait"}


def test_what_operators_look_for_is_there():
    assert NEEDED <= set(TITLES) and len(TITLES) == len(set(TITLES))


@pytest.mark.parametrize("title", TITLES)
def test_each_has_its_four_parts(title):
    assert re.findall(r"(?m)^\.It (\S.*)$", runbook(title)) == ["Shows", r"\&Do", "Not", "Over"]


# --- each statement ---

# What its text holds: what is done before, a question afterwards, and its answer. None: the rows that the statement returned.
ELSEWHERE = ("pg_promote", "CREATE SUBSCRIPTION", "DROP SUBSCRIPTION", "pg_subscription_rel", "pg_stat_replication")  # see below
SLOT = "select pg_create_physical_replication_slot('left_behind', true)"
EFFECTS = {
    "WHERE paused_until IS NULL OR": ("", "select array_agg(id::int) from {s}.integrations where pause_reason = 'restore'", [42]),
    "WHERE pause_reason = 'restore'": (
        "update {s}.integrations set paused_until = 'infinity', pause_reason = 'restore' where id = 42",
        "select array_agg(id::int) from {s}.integrations where paused_until is null and pause_reason is null", [42]),
    "nextval": ("insert into {s}.subscriptions (id, integration_id) values (5000, 42)",
                "insert into {s}.subscriptions (integration_id) values (42) returning id", 1005001),
    "anubisd_grant": ("create role anubisd", "select has_table_privilege('anubisd', '{s}.subscriptions', 'update')", True),
    "CREATE PUBLICATION": ("", "select puballtables and pubviaroot from pg_publication where pubname = 'anubis'", True),
    "ledger_partitions": ("insert into {s}.ledger_partitions values ('subscription_events_9', 9000000000, 9000000001)",
                          "select bool_and(name <> 'subscription_events_9') from {s}.ledger_partitions", True),
    "sequences_behind": ("select setval('{s}.ledger_id_seq', 1, false)", None, lambda rows: "select setval(" in rows[0][0]),
    "the-new-token": ("", "select auth_token from {s}.integrations where id = 42", "the-new-token"),
    "FROM pg_replication_slots": (SLOT, None, lambda rows: ("left_behind", False) in [row[:2] for row in rows]),
    "pg_stat_archiver": ("", None, lambda rows: len(rows) == 1),
    "pg_drop_replication_slot": (SLOT, "select count(*) from pg_replication_slots where slot_name = 'left_behind'", 0),
    "pg_total_relation_size": ("", None, lambda rows: len(rows) == 10),
    "xact_start IS NOT NULL": ("", None, lambda rows: [row for row in rows if row[3] == "" or row[4].startswith("SELECT pid")]),
    "VACUUM": ("", "select relpages > 0 from pg_class where oid = '{s}.subscriptions'::regclass", True),
    "GROUP BY 1, 2": ("", None, lambda rows: set(rows) == {("sent", None, 2), ("failed", 422, 2), ("failed", None, 1)}),
    "SELECT id FROM anubis.subscriptions": ("", None, lambda rows: len(rows) == 2),
    "event_type IN": ("", None, lambda rows: [row[2] for row in rows] == [422, 422]),
}


@pytest.fixture
def night(app):
    """An institution's bad night; the order's number tells the rows apart. Another integration is paused already."""
    app.query("insert into {s}.integrations (id, name, endpoint_url, paused_until, pause_reason) values "
              "(42, 'forgetful', 'https://a.example/', null, null), (7, 'other', 'https://b.example/', 'infinity', 'by hand')")
    app.query("insert into {s}.subscriptions (order_id, integration_id) select o, case o when 7 then 7 else 42 end "
              "from generate_series(1, 7) o")
    app.query("update {s}.subscriptions set status = 'sent', sent_at = t.at, updated_at = t.at, attempts = 1 from (values "
              "(1, '2026-11-25 01:00Z'::timestamptz), (2, '2026-11-25 05:59Z'), (3, '2026-11-25 06:00Z')) t (o, at) "
              "where order_id = o")
    app.query("update {s}.subscriptions set status = 'failed', updated_at = '2026-11-25 01:00Z', attempts = 3, "
              "last_error = 'HTTP 422', last_http_status = 422 where order_id in (4, 5, 7)")
    app.query("update {s}.subscriptions set status = 'failed', updated_at = '2026-11-25 02:00Z' where order_id = 6")
    return app


@pytest.fixture
def clean(postgres_server):
    """What belongs to the server goes with the test's database."""
    yield
    postgres_server.query("select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = 'left_behind'")


@pytest.mark.parametrize("statement", [s for s in statements() if not any(word in s for word in ELSEWHERE)])
def test_a_statement_has_its_effect(night, clean, statement):
    (before, question, expected), = [effect for words, effect in EFFECTS.items() if words in statement]
    try:
        if before:
            night.query(before)
        rows = night.query(statement)
        if question:
            assert night.value(question) == expected
        else:
            assert expected(rows)
    finally:
        if "create role" in before:
            night.query("drop owned by anubisd; drop role anubisd")


def test_no_effect_is_without_its_statement():
    unused = [words for words in (*EFFECTS, *ELSEWHERE) if not any(words in s for s in statements())]
    assert not unused


def test_a_standby_is_promoted(own_postgres):
    primary = own_postgres(settings={"wal_level": "replica", "max_wal_senders": "4", "hot_standby": "on"})
    standby = primary.standby()
    try:
        standby.start()
        primary.kill9()
        statement, = statements("Failover to a standby")
        assert standby.value(statement) is True and standby.value("select not pg_is_in_recovery()")
    finally:
        standby.close()


# --- the longer ones, from end to end ---


def run_retries(ctl, title, words, instead):
    """The runbook's calls of "anubisctl retry", in their order."""
    lines = re.findall(r"(?m)^\.Dl anubisctl (retry .*)$", runbook(title))
    return [ctl(*shlex.split(line.replace(words, instead)), "--json").expect(0) for line in lines]


def test_refusals(night, ctl):
    """A pause, its end, and those that had failed."""
    pause, resume = [shlex.split(line) for line in re.findall(r"(?m)^\.Dl anubisctl ((?:pause|resume) .*)$",
                                                              runbook("Refusals, and an open circuit"))]
    paused = "select paused_until = 'infinity' from {s}.integrations where id = 42"
    ctl(*pause).expect(0)
    assert night.value(paused)
    ctl(*resume).expect(0)
    assert not night.value(paused)
    night.query("update {s}.subscriptions set updated_at = now() where status = 'failed'")
    retry, = re.findall(r"(?m)^\.Dl anubisctl (retry .*)$", runbook("Refusals, and an open circuit"))
    assert ctl(*shlex.split(retry), "--json").expect(0).json["put_back"] == 2
    back = "select array_agg(order_id::int order by order_id) from {s}.subscriptions where status = 'retry'"
    assert night.value(back) == [4, 5]


def test_a_bad_night(app, institutions, make_daemon, ctl):
    """What is sent again goes out under new keys, what had failed under its own; then all is proven."""
    app.integration(institutions.url("/good/night"), id=42)
    app.subscriptions(42, 5)
    daemon = make_daemon().start()
    app.wait_states(sent=5)
    app.query("update {s}.integrations set endpoint_url = %s", (institutions.url("/reject/422"),))
    app.subscriptions(42, 4)
    app.wait_states(sent=5, failed=4)
    app.query("update {s}.integrations set endpoint_url = %s", (institutions.url("/good/night"),))
    hours = {"'2026-11-24 22:00Z'": "now() - interval '1 hour'", "'2026-11-25 06:00Z'": "now() + interval '1 hour'"}
    look, lost = [re.sub("|".join(hours), lambda m: hours[m[0]], s) for s in statements("A bad night")]
    assert sorted(app.query(look)) == [("failed", 422, 4), ("sent", 200, 5)]
    resend = shlex.split(next(c for c in commands() if c.startswith("anubisctl resend ")))[1:-1]
    assert len(ctl(*resend, *(row[0] for row in app.query(lost)), "--json").expect(0).json["resent"]) == 5
    dry, put_back = run_retries(ctl, "A bad night", "'2026-11-24 22:00'", "1h")
    assert dry.json["chosen"] == put_back.json["put_back"] == 4 and dry.json["put_back"] == 0
    app.wait_states(sent=14)
    assert sorted(k.received for k in institutions.keys("/reject/422").values()) == [2] * 4
    assert [k.received for k in institutions.keys("/good/night").values()] == [1] * 10
    wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof: {ctl('verify')}", interval=0.5)
    assert daemon.term() == 0


def test_another_kafka(app, broker, institutions):
    """What the old one had and nobody had counted is published again; what was counted counts once."""
    number = app.integration(institutions.url())
    with Daemon(QUICK, database=app.database, kafka=broker) as daemon:
        app.subscriptions(number, 30)
        app.wait_states(sent=30)
        wait_for(lambda: Ctl(database=app.database, kafka=broker)("verify").code == 0, 60, "the proof", interval=0.5)
        assert daemon.term() == 0
    began = app.value("select clock_timestamp() at time zone 'UTC'")
    with Daemon(merged(QUICK, {"consumers": {"integration": False}}), database=app.database, kafka=broker) as daemon:
        app.subscriptions(number, 10)
        app.wait_states(sent=40)
        wait_for(lambda: app.value("select high = (select max(id) from {s}.subscription_events) from {s}.relay_state"), 60,
                 "all to be published")
        assert daemon.term() == 0
    with EmbeddedBroker() as new, Daemon(QUICK, database=app.database, kafka=new) as daemon:
        verify = Ctl(database=app.database, kafka=new)
        daemon.wait_log("but Kafka has no offset of this group", 60)
        app.subscriptions(number, 5)
        wait_for(lambda: app.value("select sum(sent) from {s}.integration_runtime") == 35, 60, "the new ones to be counted")
        # Each was created, and sent.
        wait_for(lambda: verify("verify", "--json").expect(2).json["unhandled"] == 20, 60, "20 that nobody will handle")
        again = re.search(r"(?ms)^(UPDATE anubis\.relay_state .*?;)$", read("man/anubisctl.8")).group(1)
        app.query(re.sub(r"'\d{4}-.*?'", f"'{began}Z'", again))
        app.subscription(number)
        wait_for(lambda: verify("verify").code == 0, 60, lambda: f"the proof: {verify('verify')}", interval=0.5)
        assert app.value("select sum(sent) from {s}.integration_runtime") == 46
        assert daemon.term() == 0


@pytest.fixture
def old(own_postgres, broker, institutions):
    """A server with an installation that has work behind it and work to do."""
    server = own_postgres(settings={"wal_level": "logical", "max_wal_senders": "4"})
    app = Application(server.create_database("anubis"))
    Ctl(database=app.database).migrate()
    app.integration(institutions.url("/good/old"))
    with Daemon(QUICK, database=app.database, kafka=broker) as daemon:
        app.subscriptions(1, 30)
        wait_for(lambda: app.value("select sum(sent) from {s}.integration_runtime") == 30, 60, "the counters")
        assert daemon.term() == 0
    app.subscriptions(1, 20)
    return server, app


def goes_on(new, broker, institutions):
    """On the new server, once it is told: nothing is sent twice, and all is proven."""
    with Daemon(QUICK, database=new.database, kafka=broker) as daemon:
        daemon.wait_log("this database was copied or moved")
        Ctl(database=new.database)("installation", "--same").expect(0)
        new.subscriptions(1, 10)
        new.wait_states(sent=60)
        verify = Ctl(database=new.database, kafka=broker)
        wait_for(lambda: verify("verify").code == 0, 60, lambda: f"the proof: {verify('verify')}", interval=0.5)
        assert daemon.term() == 0
    keys = institutions.keys("/good/old")
    assert len(keys) == 60 and all(key.received == 1 for key in keys.values())


def test_logical_replication(old, own_postgres, broker, institutions):
    """The application writes until the change."""
    server, before = old
    other = own_postgres()
    dump = subprocess.run([os.path.join(server.bin, "pg_dump"), "--schema-only", "--create", before.database.conninfo()],
                          capture_output=True, check=True)
    subprocess.run([os.path.join(server.bin, "psql"), "-q", "-v", "ON_ERROR_STOP=1", other.conninfo()], input=dump.stdout,
                   stdout=subprocess.DEVNULL, check=True)
    publish, subscribe, copied, behind, drop, partitions, sequences = \
        statements("Upgrade of PostgreSQL by logical replication")
    new = Application(Database(other, "anubis"))
    before.query(publish)
    new.query(subscribe.replace("host=OLD", f"host={server.folder} port={server.port} user=postgres"))
    wait_for(lambda: new.query(copied) == [], 60, lambda: f"the rows to be copied: {new.query(copied)}", interval=0.5)
    assert new.states() == before.states()
    with Daemon(QUICK, database=before.database, kafka=broker) as daemon:
        before.wait_states(sent=50)
        assert daemon.term() == 0
    wait_for(lambda: before.query(behind) == [(0,)], 60, lambda: f"the end: {before.query(behind)}")
    new.query(drop)
    new.query(partitions)
    new.query(new.value(sequences))
    assert new.value(sequences) is None
    ledger = "select count(*), max(id) from {s}.subscription_events"
    assert new.query(ledger) == before.query(ledger) and new.states() == before.states()
    goes_on(new, broker, institutions)


@pytest.mark.slow
def test_pg_upgrade(old, own_postgres, broker, institutions):
    """To the same version: what counts is that the server is another one."""
    server, before = old
    tool = os.path.join(server.bin, "pg_upgrade")
    if not os.path.exists(tool):
        pytest.skip("pg_upgrade is not installed")
    with Daemon(QUICK, database=before.database, kafka=broker) as daemon:
        before.wait_states(sent=50)
        assert daemon.term() == 0
    other = own_postgres()
    server.stop()
    other.stop()
    owner = {"user": server.user.pw_uid, "group": server.user.pw_gid} if server.user else {}
    # The harness's servers are copies of one; an upgrade begins with a server of its own.
    shutil.rmtree(other.data)
    subprocess.run([os.path.join(other.bin, "initdb"), "-D", other.data, "-U", "postgres", "-A", "trust", "-E", "UTF8",
                    "--locale=C", "--no-sync"], cwd=other.folder, stdout=subprocess.DEVNULL, check=True, **owner)
    done = subprocess.run([tool, "-b", server.bin, "-B", other.bin, "-d", server.data, "-D", other.data, "-U", "postgres"],
                          cwd=other.folder, capture_output=True, text=True, check=False, **owner)
    assert done.returncode == 0, done.stdout + done.stderr
    other.start()
    goes_on(Application(Database(other, "anubis")), broker, institutions)
