"""Adopted tables whose columns are of other types, hold local times, or mark rows as deleted: what is adopted as it is, and what
the SQL that the migration names makes of the rest."""
import re

import pytest
from harness.anubis import Ctl, Daemon
from harness.application import Application
from harness.postgres import refused
from harness.processes import wait_for
from harness.rails import RAILS, adopt, fingerprints, rails

PUBLIC = {"database": {"schema": "public"}}
ENUM = ("create type state as enum ('pending', 'processing', 'sent', 'failed', 'retry'{more}); alter table subscriptions "
        "alter status drop default, alter status type state using status::state, alter status set default 'pending'")


def run_what_it_says(database, *arguments):
    """The statements that the refusal names."""
    said = adopt(database, *arguments).expect(69).stderr
    statements = re.findall(r'[Rr]un "([^"]*(?:"[a-z_]+"[^"]*)*)"', said)
    assert statements, said
    for statement in statements:
        database.query(statement)
    return said


def check_delivery(database, broker, institutions, sent):
    """All that waits goes out, and is proven."""
    app = Application(database, "public")
    app.query("update integrations set endpoint_url = %s", (institutions.url("/good"),))
    ctl = Ctl(PUBLIC, database=database, kafka=broker)
    with Daemon(PUBLIC, database=database, kafka=broker) as daemon:
        app.wait_states(sent=sent, pending=0, retry=0)
        wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof: {ctl('verify')}", interval=0.5)
        assert "could not" not in daemon.log
        assert daemon.term() == 0
    for command in ("status", "explain"):
        ctl(command, *(["1"] if command == "explain" else [])).expect(0)
    return app


@pytest.mark.parametrize("more", ["", ", 'cancelled'"], ids=["of the five", "of more"])
def test_a_native_enum(empty_database, broker, institutions, more):
    """As Rails' create_enum makes it."""
    rails(empty_database, rows=100)
    empty_database.query(ENUM.replace("{more}", more))
    before = fingerprints(empty_database)
    adopt(empty_database).expect(0)
    assert fingerprints(empty_database) == before
    app = check_delivery(empty_database, broker, institutions, sent=60)
    number = app.subscription(1, integration_filter_id=1, created_at="now", updated_at="now")
    app.query("update subscriptions set status = 'processing' where id = %s", (number,))
    app.query("update subscriptions set lease_expires_at = now() where id = %s", (number,))
    with Daemon(PUBLIC, database=empty_database, kafka=broker) as daemon:
        app.wait_states(sent=61)
        assert daemon.term() == 0
    assert [e["to_status"] for e in app.events(number)] == ["pending", "processing", "retry", "processing", "sent"]
    assert refused(app.query, "update subscriptions set status = 'failed' where id = %s", (number,))[0] == "23514"
    if more:
        assert refused(app.query, "update subscriptions set status = 'cancelled' where status = 'failed'")[0] == "23514"


def test_an_enum_that_lacks_a_state(empty_database):
    rails(empty_database, rows=20)
    empty_database.query("update subscriptions set status = 'sent' where status = 'retry'")
    empty_database.query(ENUM.replace(", 'retry'", "").replace("{more}", ""))
    assert "does not know all states: run \"alter type state add value 'retry'\"" in run_what_it_says(empty_database)
    adopt(empty_database).expect(0)


def test_states_as_numbers(empty_database, broker, institutions):
    """As an enum of Rails without strings; events' status is an enum of the database here."""
    rails(empty_database, rows=100)
    empty_database.query(
        "create type outcome as enum ('success', 'error'); "
        "alter table subscription_events alter status type outcome using status::outcome; "
        "alter table subscriptions alter status drop default, alter status type integer using array_position("
        "'{pending,processing,sent,failed,retry}'::text[], status::text) - 1, alter status set default 0")
    assert "in the order of the application's enum" in run_what_it_says(empty_database)
    adopt(empty_database).expect(0)
    assert empty_database.query("select status, count(*) from subscriptions group by 1 order by 1") == [
        ("failed", 20), ("pending", 20), ("processing", 20), ("retry", 20), ("sent", 20)]
    check_delivery(empty_database, broker, institutions, sent=60)


def test_uuid_ids(empty_database, broker, institutions):
    """The application goes on with the column "uuid", by which others may refer to a row."""
    sql = RAILS.replace("{json}", "jsonb").replace("(id bigserial", "(id uuid default gen_random_uuid()")
    empty_database.query(re.sub(r"(subscription|integration|integration_filter)_id bigint", r"\1_id uuid", sql))
    empty_database.query(
        "with i as (insert into integrations (name, created_at, updated_at) select 'x', '2026-01-02', '2026-01-02' "
        "from generate_series(1, 5) returning id), "
        "f as (insert into integration_filters (integration_id, created_at, updated_at) select id, '2026-01-02', '2026-01-02' "
        "from i returning id, integration_id), s as (insert into subscriptions "
        "(integration_id, integration_filter_id, payload, created_at, updated_at) select integration_id, id, '{}', '2026-01-02', "
        "'2026-01-02' from f, generate_series(1, 10) returning id) insert into subscription_events (subscription_id, created_at, "
        "updated_at) select id, '2026-01-02', '2026-01-02' from s")
    pairs = "select s.{0}, i.{0} from subscriptions s join integrations i on i.id = s.integration_id order by 1"
    before = empty_database.query(pairs.format("id"))
    run_what_it_says(empty_database)
    assert empty_database.query(pairs.format("uuid")) == before
    adopt(empty_database).expect(0)
    assert empty_database.value("select count(*) from subscription_events e join subscriptions s "
                                "on s.id = e.subscription_id") == 50
    check_delivery(empty_database, broker, institutions, sent=50)


def test_types_of_columns_that_only_anubisd_reads(empty_database):
    rails(empty_database, rows=20)
    empty_database.query("alter table subscriptions alter order_id type varchar, add next_attempt_at timestamp")
    run_what_it_says(empty_database)
    adopt(empty_database).expect(0)
    assert empty_database.value("select format_type(atttypid, null) from pg_attribute where attname = 'order_id' "
                                "and attrelid = 'subscriptions'::regclass") == "bigint"


# --- local times ---


@pytest.mark.parametrize("offset, refusal", [
    ("0 min", None), ("-20 min", None), ("-3 hours -2 minutes", "3 h 2 min behind"), ("2 hours 30 seconds", "2 h 0 min ahead"),
    ("-3 hours -30 minutes", None), ("-14 hours", None)])
def test_times_that_are_not_utc(empty_database, offset, refusal):
    rails(empty_database, rows=20)
    empty_database.query("set timezone = 'UTC'; "
                         "update subscriptions set created_at = now() + %s::interval where id = 1", (offset,))
    if not refusal:
        adopt(empty_database, "--dry-run").expect(0)
        return
    said = adopt(empty_database, "--dry-run").expect(69).stderr
    assert "seem to be local ones" in said and refusal in said and "--utc" in said
    adopt(empty_database, "--dry-run", "--utc").expect(0)
    empty_database.query(re.search(r'run "([^"]*)"', said)[1].replace("ZONE", "America/Sao_Paulo"))
    adopt(empty_database).expect(0)
    assert empty_database.value("select abs(extract(epoch from now() - created_at + %s::interval + '3 hours')) < 60 "
                                "from subscriptions where id = 1", (offset,))


# --- rows that the application deletes without deleting them, and rows that it was sending ---


@pytest.mark.parametrize("column, mark", [("deleted_at timestamp", "now()"), ("discarded_at timestamptz", "now()"),
                                          ("is_deleted boolean", "true"), ("cancelled_on date", "now()"),
                                          ("excluido_em timestamptz", "now()"), ("deleted integer default 0", "1")])
def test_marks_of_deletion(empty_database, column, mark):
    name = column.split()[0]
    marked = f"{name} <> 0" if "integer" in column else f"{name} is not null"
    rails(empty_database, rows=100)
    empty_database.query(f"alter table subscriptions add {column}; alter table integrations add {column}; "
                         f"update subscriptions set {name} = {mark} where id % 10 = 0; "
                         f"update integrations set {name} = {mark} where id = 2")
    said = run_what_it_says(empty_database)
    assert f'10 subscriptions are marked by the column "{name}" and wait' in said
    assert f'1 integrations are marked by the column "{name}"' in said
    result = adopt(empty_database).expect(0)
    assert f'warning: column "{name}" of table "subscriptions" means nothing to anubisd' in result.stderr
    waiting = f"select count(*) from subscriptions where status in ('pending', 'retry') and {marked}"
    assert empty_database.value(waiting) == 0
    assert empty_database.query("select id from integrations where not enabled") == [(2,)]


def test_rows_in_processing_are_named(empty_database):
    rails(empty_database, rows=100)
    assert '20 subscriptions stand in "processing"' in adopt(empty_database).expect(0).stderr
