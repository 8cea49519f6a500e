"""anubisctl migrate and the schema it makes: fresh, twice, two at once, damaged, adopted from a Rails application."""
import concurrent.futures
import contextlib
import difflib
import glob
import os
import re
import signal
import subprocess
import time

import psycopg2
import pytest
from harness.anubis import Ctl, Daemon, clean_environment, program
from harness.application import Application
from harness.postgres import Database, refused, schema_dump
from harness.processes import Child, wait_for
from harness.rails import adopt, fingerprints, rails

STATES = ["pending", "processing", "sent", "failed", "retry"]
ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
STEPS = sorted(f for f in os.listdir(os.path.join(ROOT, "sql")) if f.endswith(".sql"))
REPEATABLES = ["repeatable/" + f for f in sorted(os.listdir(os.path.join(ROOT, "sql/repeatable")))]
LATEST = int(STEPS[-1].split("_")[0])
ROWS = 100_000 if os.environ.get("FULL") == "1" else 10_000


def migrations(database, schema="anubis"):
    return database.query(f"select version, name, oldest_daemon from {schema}.anubis_migrations order by 1")


# --- what is made ---


def test_each_table_has_a_primary_key(database):
    """A publication FOR ALL TABLES refuses changes of what has none."""
    assert database.query("select relname from pg_class c where relnamespace = 'anubis'::regnamespace and relkind in ('r', 'p') "
                          "and not exists (select from pg_index where indrelid = c.oid and indisprimary)") == []


def dump(database):
    """The schema as pg_dump shows it, without comments, owners, and what is drawn for each installation."""
    program_ = os.path.join(database.server.bin, "pg_dump")
    text = subprocess.run([program_, "--schema-only", "--no-owner", "--schema=anubis", database.conninfo()], check=True,
                          capture_output=True, text=True, timeout=60).stdout
    text = re.sub(r"'\d+'::bigint", "'…'::bigint", re.sub(r"anubisd_[0-9a-f]{8,}", "anubisd_…", text))
    text = re.sub(r"'[0-9a-f]{64}'", "'…'", text)
    text = re.sub(r"textcat\('[0-9a-f]{16}'", "textcat('…'", text)
    text = re.sub(r"select '[0-9a-f-]{36}'::uuid", "select '…'::uuid", text)
    lines = [line for line in text.splitlines() if line and not re.match(r"--|SET |SELECT pg_catalog|\\(un)?restrict", line)]
    return "\n".join(lines) + "\n"


def test_the_schema_is_the_one_shown(database):
    """tests/schema.sql shows what a change of sql/ comes to. Servers deparse expressions differently: one version is compared."""
    path = os.path.join(ROOT, "tests/schema.sql")
    version = database.value("show server_version_num")[:2]
    found = f"-- A fresh schema, as PostgreSQL {version} dumps it.\n{dump(database)}"
    if os.environ.get("RENEW") == "1":
        with open(path, "w", encoding="utf-8") as f:
            f.write(found)
    with open(path, encoding="utf-8") as f:
        wanted = f.read()
    if wanted.splitlines()[0] != found.splitlines()[0]:
        pytest.skip(f"tests/schema.sql is of another version of PostgreSQL than {version}")
    diff = "\n".join(difflib.unified_diff(wanted.splitlines(), found.splitlines(), "tests/schema.sql", "sql/", lineterm=""))
    assert not diff, f"{diff}\nIf it shall be so: RENEW=1 tests/run-checks tests/test_migrate.py -k the_one_shown"


def test_kinds_of_locks(database):
    """Each kind has a key of its own, every kind in use is known, and another one is refused."""
    texts = [open(path, encoding="utf-8").read() for pattern in ("src/*/*.c", "sql/*.sql", "sql/*/*.sql")
             for path in glob.glob(os.path.join(ROOT, pattern))]
    used = {kind for text in texts for kind in re.findall(r"(?:lock_key|lead_lock)\('(\w+)'\)", text)}
    with open(os.path.join(ROOT, "sql/repeatable/02_locks.sql"), encoding="utf-8") as f:
        known = re.findall(r"when '(\w+)' then", f.read())
    assert used == set(known) and len(used) > 5
    keys = [database.value("select anubis.lock_key(%s)", (kind,)) for kind in known]
    assert len(set(keys)) == len(keys) and keys[known.index("bell")] == database.value("select anubis.lock_base()")
    for kind in ("replays", "Relay", "r", ""):
        assert "no such kind of lock" in refused(database.query, "select anubis.lock_key(%s)", (kind,))[1]


def test_a_circuit_that_closes_rings(app):
    """A daemon that sleeps is woken, as by whatever else makes an integration due."""
    integration = app.integration("https://x.example/")
    app.query("update {s}.integration_runtime set circuit_state = 'open' where integration_id = %s", (integration,))
    sleeper = app.database.connect()
    cursor = sleeper.cursor()
    cursor.execute("select pg_advisory_lock(anubis.lock_key('bell')), anubis.doorbell_channel()")
    cursor.execute(f'listen "{cursor.fetchone()[1]}"')
    app.query("update {s}.integration_runtime set sent = 1")
    sleeper.poll()
    assert not sleeper.notifies
    app.query("update {s}.integration_runtime set circuit_state = 'closed'")
    wait_for(lambda: sleeper.poll() or sleeper.notifies, what="the bell")
    sleeper.close()


# --- the command ---


@pytest.mark.parametrize("schema", ["anubis", "select", "filial_2"])
def test_fresh_and_twice(empty_database, schema):
    ctl = Ctl({"database": {"schema": schema}}, database=empty_database)
    first = ctl.migrate()
    assert first.stdout.splitlines() == [*(f"applied {f}" for f in STEPS + REPEATABLES),
                                         f'schema "{schema}" is now version {LATEST}']
    assert not first.stderr
    before = schema_dump(empty_database, schema)
    again = ctl.migrate()
    assert again.stdout == f'schema "{schema}" is up to date: version {LATEST}\n' and not again.stderr
    assert schema_dump(empty_database, schema) == before
    quoted = '"' + schema + '"'
    assert [m[1] for m in migrations(empty_database, quoted)] == STEPS
    app = Application(empty_database, quoted)
    subscription = app.subscription(app.integration("https://x.example/"))
    assert [e["event_type"] for e in app.events(subscription)] == ["created"]


@pytest.mark.parametrize("schema", ['a"b', "o'clock", "100%", "Filial", "São Paulo", ""])
def test_schema_names_that_will_not_do(empty_database, schema):
    result = Ctl({"database": {"schema": schema}}, database=empty_database)("migrate").expect(78)
    assert "database.schema" in result.stderr


def test_on_other_servers(own_postgres, postgres_version):
    server = own_postgres(version=postgres_version)
    fresh = server.create_database("fresh")
    Ctl(database=fresh).migrate()
    assert Ctl(database=fresh).migrate().stdout.endswith(f"up to date: version {LATEST}\n")
    app = Application(fresh)
    subscription = app.subscription(app.integration("https://x.example/"))
    app.query("update {s}.subscriptions set status = 'processing' where id = %s", (subscription,))
    app.query("update {s}.subscriptions set status = 'sent' where id = %s", (subscription,))
    assert [e["event_type"] for e in app.events(subscription)] == ["created", "updated", "sent"]
    adopted = server.create_database("adopted")
    check_adoption(adopted, "jsonb", 500)
    for database, settings in ((fresh, None), (adopted, {"database": {"schema": "public"}})):
        ctl = Ctl(settings, database=database)
        ctl("verify").expect(2 if database is fresh else 0)
        ctl("status").expect(0)
        ctl("explain", "1").expect(0)


def test_tables_to_adopt_are_not_overlooked(empty_database):
    rails(empty_database, rows=1)
    result = Ctl(database=empty_database).migrate("--dry-run")
    assert 'to adopt them, set schema = "public"' in result.stderr
    assert f'in schema "anubis" of database "{empty_database.name}"' in result.stdout
    assert "public" not in adopt(empty_database, "--dry-run").stderr


def test_two_at_once(empty_database):
    ctl = Ctl(database=empty_database)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = [f.result() for f in [pool.submit(ctl, "migrate") for _ in range(4)]]
    for result in results:
        result.expect(0)
    assert sorted("applied" in r.stdout for r in results) == [False, False, False, True]
    assert [m[1] for m in migrations(empty_database)] == STEPS


def test_waits_for_the_other_and_says_so(empty_database):
    ctl = Ctl(database=empty_database)
    other = empty_database.connect(autocommit=False, application_name="another host")
    other.cursor().execute("select pg_advisory_xact_lock(hashtextextended('anubisctl migrate anubis', 0))")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(ctl, "migrate")
        wait_for(lambda: empty_database.value("select count(*) from pg_stat_activity "
                                              "where application_name = 'anubisctl migrate' "
                                              "and state = 'idle in transaction'"), what="migrate to wait")
        time.sleep(3)  # longer than the pause between two tries
        assert not waiting.done()
        other.rollback()
        result = waiting.result().expect(0)
    other.close()
    assert "waiting for session" in result.stderr and '(role postgres, another host' in result.stderr
    assert result.stderr.count("waiting") == 1


def test_dry_run(empty_database):
    ctl = Ctl(database=empty_database)
    result = ctl.migrate("--dry-run")
    assert result.stdout.splitlines()[:-1] == [f"would apply {f}" for f in STEPS + REPEATABLES]
    assert result.stdout.endswith("nothing was changed\n")
    assert schema_dump(empty_database) == []
    assert empty_database.value("select count(*) from pg_namespace where nspname = 'anubis'") == 0
    ctl.migrate()
    assert ctl.migrate("--dry-run").stdout == f'schema "anubis" is up to date: version {LATEST}\n'


def test_dry_run_shows_errors(empty_database):
    rails(empty_database)
    empty_database.query("alter table integrations alter column successful_sends type text")
    before = schema_dump(empty_database, "public")
    for arguments in (["--dry-run"], []):
        result = adopt(empty_database, *arguments).expect(69)
        assert 'could not apply "001_adoption.sql": column "successful_sends" of table "integrations" is of type text' in \
            result.stderr
        assert "nothing was changed" in result.stderr and not result.stdout
        assert schema_dump(empty_database, "public") == before


def test_another_file_than_was_applied(database, ctl):
    database.query("update anubis.anubis_migrations set checksum = repeat('0', 64) where version = 2")
    before = schema_dump(database)
    result = ctl("migrate").expect(69)
    assert '"002_tables.sql" was applied' in result.stderr and "checksum 000000000000… there" in result.stderr
    assert schema_dump(database) == before
    database.query("delete from anubis.anubis_migrations where version = %s", (LATEST,))
    assert "002_tables.sql" in ctl("migrate").expect(69).stderr


def test_a_repeatable_file_that_changed(database, ctl):
    """It is applied although the version is the same, and its checksum is recorded."""
    recorded = database.query("select name, checksum from anubis.anubis_repeatables order by 1")
    assert [name for name, _ in recorded] == REPEATABLES
    database.query("create or replace function anubis.as_instant(instant timestamptz) returns timestamptz language sql immutable "
                   "as 'select null::timestamptz'; update anubis.anubis_repeatables set checksum = 'x' "
                   "where name like '%01_values.sql'")
    name = "repeatable/01_values.sql"
    assert ctl("migrate", "--dry-run").expect(0).stdout.startswith(f"would apply {name}\nall of it worked")
    assert ctl("migrate").expect(0).stdout == f'applied {name}\nschema "anubis" is now version {LATEST}\n'
    assert database.value("select anubis.as_instant('epoch') is not null")
    assert database.query("select name, checksum from anubis.anubis_repeatables order by 1") == recorded
    assert ctl("migrate").stdout.endswith(f"up to date: version {LATEST}\n")


def test_repeatable_files_can_be_repeated(ledger, ctl):
    """All of them on a schema in use: nothing is changed but the time in the record."""
    before = dump(ledger.database)
    ledger.query("delete from {s}.anubis_repeatables")
    assert ctl("migrate").expect(0).stdout.splitlines()[:-1] == [f"applied {f}" for f in REPEATABLES]
    assert dump(ledger.database) == before
    ledger.query("update {s}.subscriptions set status = 'failed'")
    assert ledger.value("select count(*) from {s}.subscription_events") == 20


def test_a_later_program_migrated(database, ctl):
    database.query("insert into anubis.anubis_migrations values (999, '999_later.sql', 'x', now(), 'anubisctl 9.9', 0)")
    result = ctl("migrate").expect(0)
    assert '"999_later.sql" (by anubisctl 9.9)' in result.stderr and "up to date: version 999" in result.stdout
    # Its repeatable files stay.
    database.query("update anubis.anubis_repeatables set checksum = 'later'")
    assert "up to date: version 999" in ctl("migrate").expect(0).stdout
    ctl("status").expect(0)
    database.query("update anubis.anubis_migrations set oldest_daemon = 998 where version = 999")
    misfit = ctl("status").expect(69).stderr
    assert "schema is version 999 (migrated by anubisctl 9.9)" in misfit and "998 or later" in misfit
    assert "install the later anubisd" in misfit
    database.query("delete from anubis.anubis_migrations where version = %s", (LATEST,))
    result = ctl("migrate").expect(69)
    assert "later than this program" in result.stderr and STEPS[-1] in result.stderr


def test_commands_say_that_the_schema_is_missing(empty_database):
    ctl = Ctl(database=empty_database)
    for arguments in (["status"], ["explain", "1"], ["verify"]):
        result = ctl(*arguments).expect(69)
        assert 'no schema "anubis": run "anubisctl migrate"' in result.stderr
    empty_database.query("create schema anubis")
    assert 'not in the schema "anubis" yet: run "anubisctl migrate"' in ctl("status").expect(69).stderr
    ctl.migrate()
    ctl("status").expect(0)
    empty_database.query("delete from anubis.anubis_migrations where version > 2")
    assert 'schema is version 2, this program needs' in ctl("status").expect(69).stderr


def test_permissions_that_are_missing(postgres_server, empty_database):
    name = empty_database.name
    role = f"{name}_role"
    try:
        empty_database.query(f"create role {role} login; revoke all on database {name} from public; "
                             f"grant connect on database {name} to {role}")
        ctl = Ctl(database=empty_database.conninfo(user=role))
        result = ctl("migrate").expect(77)
        assert f'"grant create on database {name} to {role}"' in result.stderr
        assert f'"grant temporary on database {name} to {role}"' in result.stderr
        empty_database.query(f"grant temporary on database {name} to {role}; create schema anubis")
        result = ctl("migrate").expect(77)
        assert f'"grant usage, create on schema anubis to {role}"' in result.stderr
        empty_database.query(f"grant usage, create on schema anubis to {role}; "
                             "create table anubis.subscriptions (id bigserial primary key)")
        result = ctl("migrate").expect(77)
        assert f'table "subscriptions" belongs to role "postgres", not to "{role}"' in result.stderr
        assert 'anubisctl --database "user=postgres ..." migrate' in result.stderr
        empty_database.query("drop table anubis.subscriptions")
        ctl.migrate()
        ctl("status").expect(0)
        empty_database.query(f"create role {role}_2 login; grant connect on database {name} to {role}_2")
        other = Ctl(database=empty_database.conninfo(user=f"{role}_2"))
        assert f"\"select anubis.anubisd_grant('{role}_2')\"" in other("status").expect(69).stderr
        empty_database.query(f"grant usage on schema anubis to {role}_2")
        assert f"\"select anubis.anubisd_grant('{role}_2')\"" in other("status").expect(69).stderr
        empty_database.query(f"grant select on anubis.anubis_migrations to {role}_2")
        denied = other("status").expect(77).stderr
        assert "permission denied for" in denied and "anubisd_grant" in denied
        empty_database.query(f"select anubis.anubisd_grant('{role}_2')")
        other("status").expect(0)
        # The owner by --database, whatever the file says.
        other("--database", empty_database.conninfo(user=role), "status").expect(0)
    finally:
        empty_database.query(f"drop owned by {role}; drop role {role}")
        empty_database.query(f"drop owned by {role}_2; drop role if exists {role}_2")


def test_sequence_that_draws_ahead(database, ctl):
    database.query("alter sequence anubis.ledger_id_seq cache 20")
    result = ctl("migrate").expect(69)
    assert "draws 20 ids at once" in result.stderr and '"alter sequence anubis.ledger_id_seq cache 1"' in result.stderr
    database.query("alter sequence anubis.ledger_id_seq cache 1")
    ctl.migrate()


def test_server_goes_away(own_postgres):
    server = own_postgres()
    database = server.create_database("x")
    server.stop()
    result = Ctl(database=database)("migrate").expect(69)
    assert "could not open a session with the database" in result.stderr and "the database was looked for at" in result.stderr


def test_tables_that_others_hold(empty_database):
    """A migration that cannot have the tables says who holds them, and does not make the application wait for it."""
    rails(empty_database)
    holder = empty_database.connect(autocommit=False, application_name="puma worker")
    holder.cursor().execute("update subscriptions set origin = 'app' where id = 1")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(adopt, empty_database)
        slowest, end = 0.0, time.monotonic() + 6
        while time.monotonic() < end:
            begin = time.monotonic()
            empty_database.query("update subscriptions set origin = 'site' where id = 2")
            slowest = max(slowest, time.monotonic() - begin)
        assert not waiting.done()
        holder.commit()
        result = waiting.result().expect(0)
    holder.close()
    assert "waiting for session" in result.stderr and "puma worker" in result.stderr
    assert slowest < 3, f"the application waited {slowest} s"
    assert "cpf" not in result.stderr and "update" not in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(empty_database, number):
    rails(empty_database)
    holder = empty_database.connect(autocommit=False)
    holder.cursor().execute("update subscriptions set origin = 'app' where id = 1")
    ctl = Ctl({"database": {"schema": "public"}}, database=empty_database)
    with Child([program("anubisctl"), "-c", ctl.path, "--environment", "/dev/null", "migrate"],
               env=clean_environment()).start() as child:
        child.wait_output("waiting for session")
        child.signal(number)
        assert child.wait(10) == -number
        assert "interrupted; nothing was changed" in child.output
    holder.commit()
    holder.close()
    wait_for(lambda: empty_database.value("select count(*) from pg_stat_activity "
                                          "where application_name = 'anubisctl migrate'") == 0,
             what="its session to end")
    adopt(empty_database).expect(0)


def test_killed_in_the_middle(empty_database):
    """kill -9 of the program while it works: nothing is changed, nothing stays locked, and the next run does it all."""
    rails(empty_database)
    before = schema_dump(empty_database, "public")
    ctl = Ctl({"database": {"schema": "public"}}, database=empty_database)
    for moment in range(6):
        with Child([program("anubisctl"), "-c", ctl.path, "--environment", "/dev/null", "migrate"],
                   env=clean_environment()).start() as child:
            wait_for(lambda: not child.is_running() or empty_database.value(
                "select count(*) from pg_stat_activity where application_name = 'anubisctl migrate' and state <> 'idle'"),
                     what="it to work")
            time.sleep(moment * 0.02)  # another moment each time
            child.kill9()
        wait_for(lambda: empty_database.value("select count(*) from pg_stat_activity "
                                              "where application_name = 'anubisctl migrate'") == 0,
                 what="its session to end")
        found = schema_dump(empty_database, "public")
        assert found == before or len(migrations(empty_database, "public")) == len(STEPS)
    adopt(empty_database).expect(0)
    assert [m[1] for m in migrations(empty_database, "public")] == STEPS


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_stricter_isolation_of_the_role(empty_database, isolation):
    """What commits while the migration waits for its locks is counted."""
    rails(empty_database, rows=20)
    empty_database.query(f"alter database {empty_database.name} set default_transaction_isolation = '{isolation}'")
    application = empty_database.connect(autocommit=False)
    application.cursor().execute(
        "insert into public.subscriptions (integration_id, integration_filter_id, payload, created_at, updated_at) "
        "select integration_id, integration_filter_id, payload, created_at, updated_at from public.subscriptions limit 1")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        migrated = pool.submit(adopt, empty_database)
        wait_for(lambda: empty_database.value("select count(*) from pg_locks where not granted"), what="the migration to wait")
        application.commit()
        migrated.result().expect(0)
    application.close()
    assert empty_database.value("select sum(subscriptions) from public.ledger_baseline where status <> ''") == 21


@contextlib.contextmanager
def encoded(server, encoding):
    server.query(f"create database encoded encoding '{encoding}' template template0")
    try:
        yield Database(server, "encoded")
    finally:
        server.drop_database("encoded")


def test_other_encodings(postgres_server):
    with encoded(postgres_server, "LATIN1") as database:
        assert f'schema "anubis" is now version {LATEST}' in Ctl(database=database).migrate().stdout


def test_an_encoding_that_takes_any_bytes_is_refused(postgres_server):
    """With the command that makes the right database, and nothing is changed."""
    with encoded(postgres_server, "SQL_ASCII") as database:
        for arguments in (["--dry-run"], []):
            said = Ctl(database=database)("migrate", *arguments).expect(69).stderr
            assert "the database's encoding is SQL_ASCII, in which Postgres takes any bytes" in said
            assert '"createdb -T template0 -E UTF8 NAME"' in said
        assert database.value("select count(*) from pg_namespace where nspname = 'anubis'") == 0


def test_daemons_wait_on_an_encoding_that_takes_any_bytes(app, make_daemon):
    """As where a dump was loaded into such a database."""
    app.query("update pg_database set encoding = pg_char_to_encoding('SQL_ASCII') where datname = current_database()")
    make_daemon().start().wait_log("the database's encoding is SQL_ASCII, .*createdb -T template0 -E UTF8 NAME")


@pytest.mark.parametrize("backwards", [False, True])
def test_no_deadlock_with_the_application(empty_database, backwards):
    """Transactions that take the tables in the other order are never the victims, and let the migration through."""
    rails(empty_database)
    order = ["update integrations set name = name where id = %s", "update subscriptions set origin = 'x' where id = %s"]

    def application(number):
        connection = empty_database.connect(autocommit=False)
        done = 0
        while done <= 10 or not migrated.done():
            with connection.cursor() as cursor:
                for statement in reversed(order) if backwards else order:
                    cursor.execute(statement, (1 + number,))
                    time.sleep(0.02)
            connection.commit()
            done += 1
        connection.close()
        return done
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        migrated = pool.submit(lambda: adopt(empty_database))
        workers = [pool.submit(application, n) for n in range(4)]
        migrated.result().expect(0)
        assert all(w.result(300) > 10 for w in workers)


def test_a_relation_of_ours_exists_already(empty_database):
    empty_database.query("create table public.dead_letters (x int)")
    result = adopt(empty_database).expect(69)
    assert 'a relation named "dead_letters" exists already' in result.stderr and "database.schema" in result.stderr


def test_triggers_of_the_application_are_named(empty_database):
    rails(empty_database)
    empty_database.query("create function touch() returns trigger language plpgsql as 'begin return null; end'; "
                         "create trigger touch_parents after update on subscriptions for each row execute function touch()")
    result = adopt(empty_database).expect(0)
    assert 'warning: trigger "touch_parents" on "subscriptions" is the application\'s' in result.stderr


# --- the daemon and the schema ---


def test_daemon_waits_for_the_schema(empty_database, broker, institutions):
    with Daemon(database=empty_database, kafka=broker) as daemon:
        daemon.wait_log('run "anubisctl migrate"')
        ctl = Ctl(database=empty_database)
        ctl.migrate()
        app = Application(empty_database)
        app.subscription(app.integration(institutions.url("/good")))
        app.wait_states(sent=1)
        # A later program migrates under it, and says that this one is too old; then that is taken back.
        empty_database.query("insert into anubis.anubis_migrations values (999, 'x', 'x', now(), 'anubisctl 9.9', 999)")
        daemon.wait_log("needs an anubisd built with version 999 or later")
        empty_database.query("delete from anubis.anubis_migrations where version = 999")
        app.subscription(app.integration(institutions.url("/good")))
        app.wait_states(sent=2)
        assert daemon.term() == 0


def test_migrate_while_the_daemon_works(app, institutions, make_daemon, ctl):
    """Again and again under load, as upgrades do: nothing stands still, nothing is lost."""
    make_daemon().start()
    integration = app.integration(institutions.url("/good"))
    for _ in range(10):
        app.subscriptions(integration, 100)
        ctl.migrate()
        assert ctl.migrate("--dry-run").stdout.endswith(f"up to date: version {LATEST}\n")
    app.wait_states(sent=1000)
    assert app.value("select max(attempts) from {s}.subscriptions") == 1


# --- the ledger ---


@pytest.fixture
def ledger(app):
    app.subscriptions(app.integration("https://x.example/"), 10)
    return app


def test_ledger_is_append_only(ledger):
    for table in ("subscription_events", "subscription_events_1", "subscription_events_default"):
        for statement in (f"update {{s}}.{table} set event_type = 'sent'", f"delete from {{s}}.{table}"):
            if table.endswith("default"):
                continue  # holds no row
            state, words = refused(ledger.query, statement)
            assert state == "23001" and "the ledger is append-only" in words
        state, words = refused(ledger.query, f"truncate {{s}}.{table}")
        assert state == "23001" and "the ledger is append-only" in words
    state, words = refused(ledger.query, "delete from {s}.subscriptions where id = 1")
    assert state == "23001" and "the ledger tells their history" in words
    refused(ledger.query, "truncate {s}.subscriptions cascade")
    assert ledger.value("select count(*) from {s}.subscription_events") == 10


def test_every_change_has_its_event(ledger):
    """Whoever changes it, however many at once, and nothing but status changes."""
    ledger.query("update {s}.subscriptions set status = 'processing'")
    ledger.query("update {s}.subscriptions set status = 'retry' where id <= 3")
    ledger.query("update {s}.subscriptions set origin = 'x'")
    ledger.query("update {s}.subscriptions set status = status")
    ledger.query("with x as (update {s}.subscriptions set status = 'failed' where id = 4 returning id) "
                 "update {s}.subscriptions set status = 'sent' where id = 5")
    assert dict(ledger.query("select event_type, count(*) from {s}.subscription_events group by 1")) == {
        "created": 10, "updated": 10, "retried": 3, "failed": 1, "sent": 1}
    connection = ledger.database.connect(autocommit=False)
    cursor = connection.cursor()
    cursor.execute("update anubis.subscriptions set status = 'sent' where id = 6")
    cursor.execute("savepoint a; update anubis.subscriptions set status = 'sent' where id = 7; rollback to a")
    connection.commit()
    connection.close()
    assert ledger.value("select count(*) from {s}.subscription_events where event_type = 'sent'") == 2


def test_events_need_no_rights_on_the_ledger(ledger):
    database = ledger.database
    role = f"{database.name}_app"
    try:
        database.query(f"create role {role}; grant usage on schema anubis to {role}; "
                       f"grant select, insert, update on anubis.subscriptions to {role}")
        connection = database.connect()
        with connection.cursor() as cursor:
            cursor.execute(f"set role {role}; set search_path = pg_catalog")
            cursor.execute("insert into anubis.subscriptions (integration_id) values (1) returning id")
            number = cursor.fetchone()[0]
            cursor.execute("update anubis.subscriptions set status = 'failed' where id = %s", (number,))
        connection.close()
        assert [e["event_type"] for e in ledger.events(number)] == ["created", "failed"]
    finally:
        database.query(f"drop owned by {role}; drop role {role}")


def partitions(app):
    return app.query("select first_id, last_id from {s}.ledger_partitions order by 1")


def test_partitions_are_made_ahead(ledger):
    assert ledger.value("select {s}.ledger_extend()") == 0
    made = partitions(ledger)
    assert made[0][0] == 1 and len(made) == 3
    ledger.query("select setval('{s}.ledger_id_seq', %s)", (made[0][1] + 5,))
    assert ledger.value("select {s}.ledger_extend()") == 1
    ledger.query("select setval('{s}.ledger_id_seq', %s)", (partitions(ledger)[-1][0] + 5,))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        counts = [f.result() for f in [pool.submit(ledger.value, "select {s}.ledger_extend()") for _ in range(4)]]
    assert sorted(counts) == [0, 0, 0, 2]
    all_of_them = partitions(ledger)
    assert all(a[1] + 1 == b[0] for a, b in zip(all_of_them, all_of_them[1:]))
    # The busier, the wider.
    assert all_of_them[-1][1] - all_of_them[-1][0] > made[0][1] - made[0][0]
    ledger.subscription(1)
    assert ledger.value("select count(*) from {s}.subscription_events") == 11
    assert ledger.value("select count(*) from {s}.subscription_events_default") == 0


def test_partitions_that_ran_out(ledger, ctl):
    """The application goes on, in the default partition, and everything finds its place again."""
    ledger.query("select setval('{s}.ledger_id_seq', %s)", (partitions(ledger)[-1][1] + 100,))
    strays = ledger.subscriptions(1, 20)
    assert ledger.value("select count(*) from {s}.subscription_events_default") == 20
    assert ctl("status", "--json").expect(0).json["default_partition_used"] is True
    assert ledger.value("select {s}.ledger_extend()") == 2
    first = partitions(ledger)[-2][0]
    ledger.query("select setval('{s}.ledger_id_seq', %s)", (first,))
    more = ledger.subscriptions(1, 20)
    assert ledger.value("select count(*) from {s}.subscription_events_default") == 20
    assert ledger.value("select count(*) from {s}.subscription_events where subscription_id = any (%s)", (strays + more,)) == 40
    assert ctl("verify").code == 2


def test_sequence_that_was_set_far_ahead(ledger):
    """The ids between are not filled with partitions, also when no event has been written there yet."""
    ledger.query("select setval('{s}.ledger_id_seq', 1000000000000)")
    assert ledger.value("select {s}.ledger_extend()") == 2
    assert all(first > 10 ** 12 for first, _ in partitions(ledger)[-2:])
    ledger.subscriptions(1, 20)
    assert ledger.value("select count(*) from {s}.subscription_events_default") == 20


def test_new_partitions_stall_nobody(ledger):
    """A transaction that has read and written the ledger and stays open."""
    ledger.query("select setval('{s}.ledger_id_seq', %s)", (partitions(ledger)[0][1] + 5,))
    writer = ledger.database.connect(autocommit=False)
    writer.cursor().execute("insert into anubis.subscriptions (integration_id) values (1)")
    writer.cursor().execute("select count(*) from anubis.subscription_events where subscription_id = 1")
    begin = time.monotonic()
    extender = ledger.database.connect()
    extender.cursor().execute("set lock_timeout = '1s'")
    try:
        extender.cursor().execute("select anubis.ledger_extend()")
    except psycopg2.errors.LockNotAvailable:  # the reader holds the default partition: tried again later
        pass
    ledger.subscription(1)
    assert time.monotonic() - begin < 30
    writer.rollback()
    writer.close()
    extender.cursor().execute("select anubis.ledger_extend()")
    extender.close()
    assert len(partitions(ledger)) == 4


def indexed(app):
    """Partitions that have an index by subscription."""
    return {r[0] for r in app.query("select tablename from pg_indexes where schemaname = '{s}' "
                                    "and indexdef like '%(subscription_id, id)'")}


def test_a_partition_that_is_full_is_indexed(ledger):
    """Not before, not twice, and in nobody's way: it waits for no writer, and a late writer goes on afterwards."""
    assert indexed(ledger) == {"subscription_events_default"}
    assert ledger.value("select {s}.ledger_index()") is None
    ledger.query("select setval('{s}.ledger_id_seq', %s)", (partitions(ledger)[0][1] - 1,))
    writer = ledger.database.connect(autocommit=False)
    writer.cursor().execute("insert into anubis.subscriptions (integration_id) values (1), (1), (1)")  # across its end
    assert ledger.value("set lock_timeout = '1s'; select {s}.ledger_index()") is None
    writer.commit()
    writer.close()
    assert ledger.value("select {s}.ledger_index()") == "subscription_events_1"
    assert ledger.value("select {s}.ledger_index()") is None
    assert indexed(ledger) == {"subscription_events_default", "subscription_events_1"}
    ledger.query("insert into {s}.subscription_events (id, event_type, subscription_id) values (100, 'updated', 1)")
    assert [e["id"] for e in ledger.events(1)] == [1, 100]


def test_an_index_of_the_applications_own_is_enough(ledger):
    ledger.query("create index on {s}.subscription_events (subscription_id)")
    ledger.query("select setval('{s}.ledger_id_seq', %s)", (partitions(ledger)[0][1] + 1,))
    assert ledger.value("select {s}.ledger_index()") is None
    assert ledger.value("select {s}.ledger_extend()") == 1
    ledger.subscription(1)


def test_partitions_check_nothing(ledger):
    """Each statement would read the text of their checks anew."""
    assert ledger.query("select conrelid::regclass from pg_constraint k join pg_inherits i on i.inhrelid = k.conrelid "
                        "where contype = 'c' and connamespace = '{s}'::regnamespace") == []


def test_ids_are_drawn_after_transaction_ids(ledger):
    """The relay gives a gap up when all transactions are over that had an id: an id must not be drawn without one."""
    connection = ledger.database.connect(autocommit=False)
    with connection.cursor() as cursor:
        cursor.execute("select pg_current_xact_id_if_assigned() is null, anubis.ledger_next_id(), "
                       "pg_current_xact_id_if_assigned() is not null")
        before, drawn, after = cursor.fetchone()
    connection.close()
    assert before and drawn == 11 and after
    assert ledger.value("select seqcache from pg_sequence where seqrelid = 'anubis.ledger_id_seq'::regclass") == 1


# --- the state machine ---


def transition(app, before, after):
    """What a change of status by somebody else than the daemon gives: "ok" or the words of the refusal."""
    number = app.subscription(1, status=before)
    try:
        app.query("update {s}.subscriptions set status = %s where id = %s", (after, number))
    except psycopg2.Error as e:
        assert len(e.diag.context or "") < 400, e.diag.context  # not the text of our queries
        return e.diag.message_primary
    return "ok"


def test_what_is_refused_is_told_briefly(ledger):
    """The first row of several, whatever stands beside it; and the server's log holds none of our queries."""
    refusals = {"(1, 'pending'), (null, 'pending'), (77, 'pending'), (78, 'x')": ("23503", "Key (integration_id)=(77) is not"),
                "(null, 'pending'), (null, 'x'), (1, 'y')": ("23514", 'to status "y"'), "(null, 'x')": ("23514", 'to status "x"')}
    for values, (state, words) in refusals.items():
        with pytest.raises(psycopg2.Error) as error:
            ledger.query(f"insert into {{s}}.subscriptions (integration_id, status) values {values}")
        d = error.value.diag
        assert d.sqlstate == state and words in f"{d.message_primary} {d.message_detail}" and d.message_hint, values
        assert len(d.context) < 400, d.context
        assert d.constraint_name.startswith("subscriptions_") and d.table_name == "subscriptions"
    # A savepoint, and the transaction goes on.
    ledger.query("do $$ begin begin insert into {s}.subscriptions (integration_id) values (77); exception when others then end; "
                 "insert into {s}.subscriptions (integration_id) values (null), (1); end $$")
    assert ledger.query("select integration_id from {s}.subscriptions order by id desc limit 2") == [(1,), (None,)]


@pytest.mark.parametrize("before", STATES)
def test_transitions(ledger, before):
    for after in STATES:
        found = transition(ledger, before, after)
        if before == "sent" and after != "sent":
            assert '"sent" is final' in found
        else:
            assert found == "ok", f"{before} to {after}: {found}"
    for after in ("", "SENT", "cancelled", None):
        assert transition(ledger, before, after) != "ok"
    refused(ledger.query, "insert into {s}.subscriptions (integration_id, status) values (1, 'cancelled')")
    refused(ledger.query, "insert into {s}.subscriptions (integration_id, status) values (1, null)")
    state, words = refused(ledger.query, "update {s}.subscriptions set id = 1000 where id = 1")
    assert "cannot change the id of subscription 1" in words


def test_change_by_others_ends_the_claim(ledger):
    claim = "update {s}.subscriptions set status = 'processing', claim_token = 7, claimed_by = 'a', attempts = 1, " \
            "lease_expires_at = now() + interval '1 min' where id = 1"
    ledger.query(claim)
    ledger.query("update {s}.subscriptions set status = 'failed' where id = 1")
    row = ledger.row(1)
    assert row["claim_token"] is None and row["claimed_by"] is None and row["lease_expires_at"] is None
    event = ledger.events(1)[-1]
    assert event["event_type"] == "failed" and event["error_message"] == "status set to failed by the application"
    ledger.query("update {s}.subscriptions set status = 'processing' where id = 1")
    assert ledger.row(1)["lease_expires_at"] is not None


def test_a_setting_that_is_null_is_not_set(app, institutions, make_daemon):
    integration = app.integration(institutions.url("/good"), delivery_settings=None, timeout_ms=None, max_in_flight=None,
                                  rate_limit=None, max_attempts=None, paused_until=None)
    app.query("update {s}.integrations set delivery_settings = null")
    assert app.value("select delivery_settings from {s}.integrations") == {}
    app.subscription(integration)
    make_daemon().start()
    app.wait_states(sent=1)


@pytest.mark.parametrize("url", ["", "ftp://x", "file:///etc/passwd", "https://", "https://u:p@x.example/", "https://a b/",
                                 "https://x.example/\n", "x", "https://x/" + "a" * 8000, "https://x:65536/", "https://x:0/",
                                 "https://x:/", "https://x:80:80/", "https://[::1/", "https://%00/"],
                         ids=lambda url: repr(url[:30]))
def test_integrations_that_cannot_work(app, url):
    assert refused(app.integration, url)[0] == "23514"


@pytest.mark.parametrize("url", ["https://x.example", "HTTPS://X.example:65535?a:b=1", "https://[2001:db8::1]:8443/a:99999/",
                                 "https://x/:0/",
                                 "https://[::1]", "https://xn--so-paulo-xza.example/inscrição"])
def test_urls_that_can_work(app, url):
    assert app.integration(url)


@pytest.mark.parametrize("columns", [{"auth_token": "a\r\nX: y"}, {"auth_token": "token\n"}, {"rate_limit": "NaN"},
                                     {"rate_limit": 0},
                                     {"timeout_ms": -1}, {"max_attempts": -1}, {"max_in_flight": 0}], ids=str)
def test_values_that_cannot_work(app, columns):
    assert refused(lambda: app.integration("https://x.example/", **columns))[0] == "23514"


@pytest.mark.parametrize("columns", [{"id": 0}, {"id": -5}, {"attempts": -1}, {"attempts": 2**31 - 1}, {"created_at": "infinity"},
                                     {"created_at": "-infinity"}], ids=str)
def test_subscriptions_that_no_claim_could_take(ledger, columns):
    assert refused(lambda: ledger.subscription(1, **columns))[0] == "23514"


def test_settings_that_are_not_known(app):
    number = app.integration("https://x.example/", delivery_settings={"on_ambiguous": "hold"})
    state, words = refused(app.query, "update {s}.integrations set delivery_settings = '{\"heders\": {}}' where id = %s",
                           (number,))
    assert state == "23514" and '"heders"' in words and "headers" in words
    assert refused(app.query, "update {s}.integrations set delivery_settings = '[]' where id = %s", (number,))[0] == "23514"
    state, words = refused(app.query, "update {s}.integrations set delivery_settings = "
                                      "jsonb_build_object('tls', repeat('x', 65536)) where id = %s", (number,))
    assert state == "23514" and "65536" in words


# --- adoption ---


def check_adoption(database, json, rows):
    rails(database, json, rows)
    before = fingerprints(database)
    adopt(database).expect(0)
    assert fingerprints(database) == before
    events = before["subscription_events"][0][0]
    app = Application(database, "public")
    assert app.value("select high from relay_state") == app.value("select max(id) from subscription_events") == events
    assert app.value("select count(*) from subscription_event_messages") == 0
    ctl = Ctl({"database": {"schema": "public"}}, database=database)
    assert ctl("verify", "--json").expect(0).json["events"] == 0
    return app, ctl


@pytest.mark.parametrize("json", ["jsonb", "json", "text"])
def test_adoption(empty_database, json):
    app, ctl = check_adoption(empty_database, json, 1000)
    check_rails_goes_on(app)
    assert ctl("verify").expect(2).stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_adoption_of_many_rows(empty_database):
    begin = time.monotonic()
    app, ctl = check_adoption(empty_database, "jsonb", ROWS)
    assert time.monotonic() - begin < 120
    # Old rows change state like new ones, all of them at once too.
    app.query("update subscriptions set status = 'retry' where status = 'failed'")
    assert app.value("select count(*) from subscription_events where event_type = 'retried'") == ROWS // 5
    assert ctl("verify", "--json").expect(2).json["differences"] == []


def check_rails_goes_on(app):
    """Its own statements, from a session in São Paulo; the times it writes are UTC all the same."""
    connection = app.database.connect()
    cursor = connection.cursor()
    cursor.execute("set time zone 'America/Sao_Paulo'")
    cursor.execute(
        'insert into "subscriptions" ("integration_id", "integration_filter_id", "order_id", "origin", "cpf", "payload", '
        '"status", '
        '"sent_at", "scheduled_to", "created_at", "updated_at") values (1, 1, 77, \'site\', \'52998224725\', '
        "'{\"a\": 1}', 'pending', NULL, '2026-05-06 07:08:09.123456', '2026-05-06 01:02:03.123456', "
        "'2026-05-06 01:02:03.123456') returning \"id\"")
    number = cursor.fetchone()[0]
    cursor.execute('update "subscriptions" set "status" = \'processing\', "updated_at" = \'2026-05-06 01:02:04\' '
                   'where "subscriptions"."id" = %s', (number,))
    cursor.execute("begin")
    cursor.execute('update "subscriptions" set "status" = \'sent\', "sent_at" = \'2026-05-06 01:02:05\', '
                   '"updated_at" = \'2026-05-06 01:02:05\' where "subscriptions"."id" = %s', (number,))
    cursor.execute('insert into "subscription_events" ("subscription_id", "status", "operation_name", "request", "response", '
                   '"error_message", "created_at", "updated_at") values (%s, \'success\', \'send_to_institution\', NULL, '
                   "'{\"protocolo\": 9}', NULL, '2026-05-06 01:02:05', '2026-05-06 01:02:05') returning \"id\"", (number,))
    note = cursor.fetchone()[0]
    cursor.execute("commit")
    connection.close()
    check_rails_events(app, number, note)
    check_destroy(app, number, note)


def check_rails_events(app, number, note):
    events = app.query("select id, event_type, from_status, to_status, subscription_created_at = '2026-05-06 01:02:03.123456Z', "
                       "scheduled_to = '2026-05-06 07:08:09.123456Z', sent_at, "
                       "created_at::timestamptz > now() - interval '1 min' "
                       "and created_at::timestamptz <= now() from subscription_events where subscription_id = %s order by id",
                       (number,))
    rows = [e[1:6] for e in events]
    assert rows[0] == ("created", None, "pending", True, True)
    assert rows[1][:3] == ("updated", "pending", "processing") and rows[2][:3] == ("sent", "processing", "sent")
    assert events[3][0] == note and rows[3][:3] == (None, None, None)
    assert str(events[2][6]) == "2026-05-06 01:02:05+00:00" and all(e[7] for e in events[:3])
    messages = app.query("select topic, value -> 'subscription' ->> 'created_at', value -> 'subscription' ->> 'scheduled_to' "
                         "from subscription_event_messages where key = %s order by id", (str(number),))
    assert messages[0] == ("subscriptions.created", "2026-05-06T01:02:03.123456Z", "2026-05-06T07:08:09.123456Z")
    assert [m[0] for m in messages] == [f"subscriptions.{t}" for t in ("created", "updated", "sent")]


def check_destroy(app, number, note):
    """dependent: :destroy deletes the events first."""
    state, words = refused(app.query, 'delete from "subscription_events" where "subscription_events"."id" = %s', (note,))
    assert state == "23001" and "append-only" in words and "cannot be destroyed" in words
    old = app.value("select subscription_id from subscription_events where event_type is null order by id limit 1")
    refused(app.query, 'delete from "subscription_events" where "subscription_id" = %s', (old,))
    state, words = refused(app.query, 'delete from "subscriptions" where "subscriptions"."id" = %s', (number,))
    assert state == "23001" and "the ledger tells their history" in words


def test_adopted_rows_in_states_of_their_own(empty_database):
    """What no anubisd would have written stays and can still be changed; nothing new of that kind comes."""
    rails(empty_database)
    empty_database.query("alter table subscriptions alter column status drop not null")
    empty_database.query("update subscriptions set status = null where id = 1")
    empty_database.query("update subscriptions set status = 'cancelled' where id = 2")
    before = fingerprints(empty_database)
    adopt(empty_database).expect(0)
    assert fingerprints(empty_database) == before
    app = Application(empty_database, "public")
    ctl = Ctl({"database": {"schema": "public"}}, database=empty_database)
    assert ctl("verify").expect(0)
    app.query("update subscriptions set origin = 'x' where id in (1, 2)")
    app.query("update subscriptions set status = 'pending' where id in (1, 2)")
    assert [e["event_type"] for e in app.events(1)][-1:] == ["updated"]
    for value in (None, "cancelled"):
        refused(app.query, "update subscriptions set status = %s where id = 3", (value,))
        refused(app.query, "insert into subscriptions (integration_id, integration_filter_id, status, created_at, updated_at) "
                           "values (1, 1, %s, now(), now())", (value,))
    result = ctl("verify", "--json").expect(2).json
    assert result["differences"] == []
    ctl("status").expect(0)


def test_adopted_tables_are_delivered(empty_database, broker, institutions):
    rails(empty_database, rows=100)
    empty_database.query("update integrations set endpoint_url = %s", (institutions.url("/good"),))
    adopt(empty_database).expect(0)
    app = Application(empty_database, "public")
    with Daemon({"database": {"schema": "public"}}, database=empty_database, kafka=broker) as daemon:
        # What waited is sent; those that the application was sending itself get their time.
        app.wait_states(sent=60, failed=20, processing=20)
        ctl = Ctl({"database": {"schema": "public"}}, database=empty_database, kafka=broker)
        wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof: {ctl('verify')}", interval=0.5)
        assert daemon.term() == 0
