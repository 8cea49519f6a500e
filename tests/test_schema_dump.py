"""Databases made from a schema dump, as Rails' structure.sql is one: what anubisd keeps in rows is not in it. What test suites
do to their databases."""
import os
import re
import subprocess

import psycopg2
import pytest
from harness.anubis import Ctl, Daemon
from harness.application import Application
from harness.postgres import refused
from harness.processes import wait_for
from harness.rails import adopt, rails

PUBLIC = {"database": {"schema": "public"}}
# What it says of partitions need not be in it: an application's repository then does not change with each of them.
WITHOUT_PARTITIONS = "--exclude-table=public.subscription_events_[0-9]*"


def structure(database, *options):
    """As "rails db:schema:dump" makes it."""
    return subprocess.run([os.path.join(database.server.bin, "pg_dump"), "--schema-only", "--no-privileges", "--no-owner",
                           *options, database.conninfo()], check=True, capture_output=True, text=True, timeout=60).stdout


def load(server, name, text):
    target = server.create_database(name)
    subprocess.run([os.path.join(server.bin, "psql"), "-q", "-v", "ON_ERROR_STOP=1", target.conninfo()], input=text, text=True,
                   stdout=subprocess.DEVNULL, check=True, timeout=60)
    return target


@pytest.fixture
def made(empty_database, own_postgres, request):
    """A database made from the dump of an adopted one that has been in use."""
    rails(empty_database, rows=200)
    empty_database.query("".join(f"alter table {t} alter created_at set default now(), alter updated_at set default now(); "
                                 for t in ("integrations", "integration_filters", "subscriptions")))
    empty_database.query("alter table subscriptions drop constraint fk_rails_3, alter integration_filter_id drop not null")
    adopt(empty_database).expect(0)
    empty_database.query("insert into subscriptions (integration_id, integration_filter_id, payload, created_at, updated_at) "
                         "select 1, 1, '{}', now(), now() from generate_series(1, 50)")
    with own_postgres() as server:
        yield load(server, "made", structure(empty_database, *getattr(request, "param", [])))


@pytest.mark.parametrize("made", [[], [WITHOUT_PARTITIONS]], ids=["whole", "without partitions"], indirect=True)
def test_a_schema_dump_gets_its_rows_back(made, broker, institutions):
    """Rows that were inserted before anybody migrated it are events, too."""
    app = Application(made, "public")
    integration = app.integration(institutions.url("/good"), successful_sends=7)
    early = app.subscriptions(integration, 20)
    ctl = Ctl(PUBLIC, database=made, kafka=broker)
    assert 'in a database made from a schema dump: run "anubisctl migrate"' in ctl("status").expect(69).stderr
    dry = ctl("migrate", "--dry-run").expect(0)
    assert "would bring back the rows that the schema dump of this database lacked" in dry.stdout
    assert app.value("select count(*) from anubis_migrations") == 0
    with Daemon(PUBLIC, database=made, kafka=broker) as daemon:
        daemon.wait_log('made from a schema dump: run "anubisctl migrate"')
        assert "brought back the rows" in ctl("migrate").expect(0).stdout
        app.wait_states(sent=20)
        assert app.value("select min(id) from subscription_events") == 81
        assert {e["event_type"] for e in app.events(early[0])} == {"created", "updated", "sent"}
        wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof: {ctl('verify')}", interval=0.5)
        counted = "select successful_sends from integrations where id = %s"
        wait_for(lambda: app.value(counted, (integration,)) == 27, 60, "the counter")
        assert daemon.term() == 0
    assert "up to date" in ctl("migrate").expect(0).stdout


def test_a_dump_of_it_is_the_same_again(made):
    """A week later, on another machine: nothing that would change an application's repository."""
    first = structure(made, WITHOUT_PARTITIONS)
    adopt(made).expect(0)
    Application(made, "public").query("select ledger_extend()")
    lines = [[line for line in text.splitlines() if not re.search("restrict|textcat|'::uuid", line)]
             for text in (first, structure(made, WITHOUT_PARTITIONS))]
    assert lines[0] == lines[1]


def test_a_dump_of_a_later_schema(empty_database, own_postgres):
    """The dump itself says what was applied."""
    rails(empty_database, rows=20)
    adopt(empty_database).expect(0)
    empty_database.query("insert into anubis_migrations values (999, '999_x.sql', 'x', now(), 'anubisctl 9.9', 2); "
                         "select structure_note()")
    with own_postgres() as server:
        made = load(server, "later", structure(empty_database))
        result = adopt(made).expect(0)
        assert "brought back the rows" in result.stdout
        assert 'migrated by a later program: "999_x.sql"' in result.stderr and "applied repeatable" not in result.stdout
        steps = "select version, name, checksum, oldest_daemon from anubis_migrations order by 1"
        assert made.query(steps) == empty_database.query(steps)
        assert made.value("select ledger_event_id(1)::text") != empty_database.value("select ledger_event_id(1)::text")


def test_a_schema_of_its_own(database, own_postgres, broker, institutions):
    with own_postgres() as server:
        made = load(server, "own", structure(database))
        ctl = Ctl(database=made, kafka=broker)
        assert "brought back the rows" in ctl("migrate").expect(0).stdout
        own = [d.value("select namespace from anubis.installation") for d in (database, made)]
        assert own[0] != own[1]
        app = Application(made)
        with Daemon(database=made, kafka=broker) as daemon:
            app.subscriptions(app.integration(institutions.url("/good")), 20)
            app.wait_states(sent=20)
            wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof: {ctl('verify')}", interval=0.5)
            assert daemon.term() == 0
        assert app.value("select id from {s}.subscription_events order by id limit 1") == 1
        event = str(app.value("select event_id from {s}.subscription_events order by id limit 1"))
        assert event[:8] == str(own[1])[:8]


# --- test suites ---

CLEANING = {
    "truncation": "truncate subscriptions, integrations, integration_filters, subscription_events restart identity cascade",
    "deletion": "delete from subscription_events; delete from subscriptions; delete from integration_filters; "
                "delete from integrations",
    "deletion in any order": "delete from integrations; delete from integration_filters; delete from subscriptions",
}


@pytest.mark.parametrize("way", CLEANING)
@pytest.mark.parametrize("mended", [False, True], ids=["as loaded", "migrated"])
def test_suites_can_clean_their_database(made, way, mended):
    """One that was made from a schema dump at once; one that daemons work on when its owner says so."""
    made.query("alter table integration_filters drop constraint fk_rails_1; alter table subscriptions drop constraint fk_rails_2")
    app = Application(made, "public")
    if mended:
        adopt(made).expect(0)
    for again in range(2):
        integration = app.integration("https://x.example/")
        number = app.subscription(integration)
        app.query("update subscriptions set status = 'failed' where id = %s", (number,))
        assert app.value("select count(*) from subscription_events where subscription_id = %s", (number,)) == 2
        if mended and not again:
            state, words = refused(made.query, CLEANING[way])
            assert state in ("23001", "23503") and app.value("select count(*) from subscriptions") == 1
            made.query("update installation set allows_cleaning = true")
        made.query(CLEANING[way])
        assert app.value("select count(*) from subscriptions") == 0
    if mended and way == "deletion in any order":  # the events stay
        assert "differences" in Ctl(PUBLIC, database=made)("verify").expect(1).stdout
    with pytest.raises(psycopg2.Error, match="append-only"):
        app.subscription(app.integration("https://x.example/"))
        made.query("update subscription_events set status = null")


def test_all_tables_truncated(made):
    """As DatabaseCleaner does it, again and again, anubisd's own tables as well; "migrate" makes all of it whole."""
    adopt(made).expect(0)
    made.query("update installation set allows_cleaning = true")
    tables = made.value("select string_agg(oid::regclass::text, ', ') from pg_class where relnamespace = 'public'::regnamespace "
                        "and relkind in ('r', 'p') and not relispartition")
    app = Application(made, "public")
    for _ in range(3):
        made.query(f"truncate {tables} restart identity cascade")
        app.subscription(app.integration("https://x.example/"))
    assert "brought back" in adopt(made).expect(0).stdout
    result = Ctl(PUBLIC, database=made)("verify", "--json").expect(2).json
    assert result["differences"] == []


def test_a_database_that_may_be_cleaned_is_said(app, make_daemon):
    app.query("update {s}.installation set allows_cleaning = true")
    daemon = make_daemon().start()
    daemon.wait_log("a test database: its subscriptions and events may be deleted")
    assert daemon.term() == 0
