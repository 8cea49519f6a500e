"""Later migrations of the application: harmless, or refused with the way out; and what a daemon says of the others."""
import threading

import psycopg2
import pytest
from harness.anubis import Ctl, Daemon
from harness.application import Application
from harness.postgres import refused
from harness.processes import wait_for
from harness.rails import RAILS, adopt

PUBLIC = {"database": {"schema": "public"}}


@pytest.fixture
def adopted(empty_database, institutions):
    """An adopted schema of narrow types, with an integration that works."""
    narrow = RAILS.replace("{json}", "json").replace("(id bigserial", "(id serial").replace("_id bigint", "_id integer")
    narrow = narrow.replace("integration_filter_id integer not null", "integration_filter_id integer")
    empty_database.query(narrow.replace("create table subscription_events (id serial",
                                        "create table subscription_events (id bigserial"))
    empty_database.query("".join(f"alter table {t} alter created_at set default now(), alter updated_at set default now(); "
                                 for t in ("integrations", "integration_filters", "subscriptions")))
    adopt(empty_database).expect(0)
    app = Application(empty_database, "public")
    app.integration(institutions.url("/good"))
    app.subscriptions(1, 5)
    return app


def check_goes_on(app, broker):
    app.subscriptions(1, 5)
    ctl = Ctl(PUBLIC, database=app.database, kafka=broker)
    count = app.value("select count(*) from subscriptions")
    with Daemon(PUBLIC, database=app.database, kafka=broker) as daemon:
        app.wait_states(sent=count)
        wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof: {ctl('verify')}", interval=0.5)
        assert "could not" not in daemon.log
        assert daemon.term() == 0
    assert "up to date" in ctl("migrate").expect(0).stdout


HARMLESS = ["alter table integrations add region varchar not null default 'sul'", "alter table subscriptions add tenant bigint",
            "alter table subscription_events add tenant bigint not null default 7",
            "alter table subscriptions alter origin set default 'site', alter cpf set not null",
            "create index on subscriptions (cpf)", "alter table subscriptions add check (order_id > 0)"]


@pytest.mark.parametrize("patience", ["0", "1min", "1500ms"])
def test_anubis_alter_gives_way_to_who_holds_a_table_already(adopted, patience):
    """Else the server ends one of both for a deadlock, perhaps the daemon's statement. After the lock_timeout it gives up."""
    connection = adopted.database.connect(autocommit=False)
    other = connection.cursor()
    other.execute("select count(*) from integrations")
    ended = []

    def alter():
        try:
            adopted.query(f"set lock_timeout = '{patience}'; "
                          "select anubis_alter('alter table integrations alter name type text')")
            ended.append("done")
        except psycopg2.errors.LockNotAvailable:
            ended.append("given up")
    thread = threading.Thread(target=alter)
    thread.start()
    wait_for(lambda: adopted.value("select count(*) from pg_stat_activity where query like '%%anubis_alter%%' "
                                   "and pid <> pg_backend_pid() and wait_event_type = 'Lock'"), 30, "it to wait")
    other.execute("select count(*) from subscriptions")
    if patience == "1500ms":
        thread.join(60)
        assert ended == ["given up"]
    connection.close()
    thread.join(60)
    assert ended == ["given up" if patience == "1500ms" else "done"]


@pytest.mark.parametrize("change", HARMLESS)
def test_what_is_harmless(adopted, broker, change):
    adopted.query(change)
    check_goes_on(adopted, broker)


WRAPPED = ["alter table subscriptions alter status type text", "alter table integrations alter name type text",
           "alter table integrations alter id type bigint; alter table subscriptions alter integration_id type bigint",
           "alter table subscriptions alter id type bigint", "alter table subscriptions alter order_id type bigint",
           "alter table subscriptions alter cpf type varchar(11)",
           "alter table subscriptions alter payload type jsonb using payload::jsonb",
           "alter table subscriptions alter scheduled_to type timestamptz using scheduled_to at time zone 'UTC', "
           "alter created_at type timestamptz using created_at at time zone 'UTC'",
           "alter table subscription_events alter error_message type varchar",
           "alter table subscription_events alter created_at type timestamptz using created_at at time zone 'UTC'",
           "alter table integrations alter successful_sends type bigint, alter failed_sends type bigint"]


@pytest.mark.parametrize("change", WRAPPED)
def test_what_is_refused_works_by_anubis_alter(adopted, broker, change):
    """The refusal names anubisd's part; the daemon's role keeps its rights."""
    adopted.query(f"create role {adopted.database.name}; select anubisd_grant('{adopted.database.name}')")
    try:
        rights = "select relname, relacl::text from pg_class where relnamespace = 'public'::regnamespace order by 1"
        triggers = "select tgrelid::regclass::text, tgname from pg_trigger where not tgisinternal order by 1, 2"
        before = [adopted.query(q) for q in (rights, triggers)]
        with pytest.raises(psycopg2.Error, match=r"(trigger anubis_|on view (change_with_anubis_alter|subscription_event_feed|"
                                                 r"integrations_open))"):
            adopted.query(change)
        adopted.query("select anubis_alter(%s)", (change,))
        assert [adopted.query(q) for q in (rights, triggers)] == before
        check_goes_on(adopted, broker)
    finally:
        adopted.query(f"drop owned by {adopted.database.name}; drop role {adopted.database.name}")


@pytest.mark.parametrize("change, words", [
    ("alter table subscriptions alter order_id type text", 'column "order_id" is of type'),
    ("alter table subscriptions alter attempts type bigint", "function .*subscription_judged.* does not exist"),
    ("update subscriptions set origin = 'x'", "leave no events"),
    ("insert into integrations (name) values ('x')", "leave no events")], ids=["order_id", "attempts", "update", "insert"])
def test_what_would_break_the_triggers_is_refused(adopted, broker, change, words):
    with pytest.raises(psycopg2.Error, match=words):
        adopted.query("select anubis_alter(%s)", (change,))
    check_goes_on(adopted, broker)


@pytest.mark.parametrize("change", ["drop {0}", "rename {0} to another"])
@pytest.mark.parametrize("table, column", [("subscriptions", "cpf"), ("subscriptions", "sent_at"),
                                           ("integrations", "endpoint_url"), ("subscription_events", "operation_name")])
def test_columns_that_are_needed_stay(adopted, broker, table, column, change):
    command = f"alter table {table} {change.format(column)}"
    state, words = refused(adopted.query, "select anubis_alter(%s)", (command,))
    assert state == "55000" and f'table "{table}" has no column "{column}"' in words and "anubisctl(8)" in words
    if change.startswith("drop"):
        assert refused(adopted.query, command)[0] == "2BP01"
    check_goes_on(adopted, broker)


def test_a_column_that_was_renamed(adopted, broker):
    """Postgres lets it pass; the next insert is refused, the daemon says why, and a generated column is one way out."""
    adopted.query("alter table subscriptions rename cpf to tax_id")
    with pytest.raises(psycopg2.Error) as refusal:
        adopted.query("insert into subscriptions (integration_id) values (1)")
    assert "anubisctl(8)" in str(refusal.value)
    with Daemon(PUBLIC, database=adopted.database, kafka=broker) as daemon:
        daemon.wait_log('a migration of the application is in the way: table "subscriptions" has no column "cpf"')
        adopted.query("alter table subscriptions add cpf text generated always as (tax_id) stored")
        adopted.query("insert into subscriptions (integration_id, tax_id) values (1, '52998224725')")
        adopted.wait_states(sent=6)
        assert daemon.term() == 0
    assert adopted.value("select cpf from subscription_events order by id desc limit 1") == "52998224725"


@pytest.mark.parametrize("change, words", [
    ("alter table subscriptions alter last_error set not null", "alter last_error drop not null"),
    ("alter table subscription_events add tenant bigint not null default 7; "
     "alter table subscription_events alter tenant drop default", "alter tenant drop not null")])
def test_columns_that_may_no_longer_be_null(adopted, broker, change, words):
    adopted.query("update subscriptions set last_error = ''")
    adopted.query(change)
    with Daemon(PUBLIC, database=adopted.database, kafka=broker) as daemon:
        said = daemon.wait_log(r"a migration of the application is in the way: column .*run \"(.*)\"")
        assert words in said[1]
        adopted.query(said[1])
        adopted.wait_states(sent=5)
        assert daemon.term() == 0


@pytest.mark.parametrize("changes, words, mend", [
    (["alter table subscriptions add constraint known check (status in ('pending', 'processing', 'sent', 'failed')) not valid"],
     "constraint \"known\" of table \"subscriptions\" refuses the status 'retry': drop it",
     "alter table subscriptions drop constraint known"),
    (["create table states (name varchar primary key)", "insert into states values ('pending'), ('sent'), ('failed'), ('retry')",
      "alter table subscriptions add constraint known foreign key (status) references states (name) not valid"],
     "refuses the status 'processing', which table public.states does not have", "insert into states values ('processing')"),
    (["alter table subscriptions alter status set default 'new'"], 'the default of column "status" .* is "new"',
     "alter table subscriptions alter status set default 'pending'"),
], ids=["check", "table", "default"])
def test_states_that_are_kept_out(adopted, broker, changes, words, mend):
    """Else results, or claims, would be refused one after the other."""
    with Daemon(PUBLIC, database=adopted.database, kafka=broker) as daemon:
        adopted.wait_states(sent=5)
        for change in changes:
            adopted.query(change)
        daemon.wait_log(f"a migration of the application is in the way: .*{words}", 60)
        adopted.query("insert into subscriptions (integration_id, status) select 1, 'pending' from generate_series(1, 5)")
        adopted.query(mend)
        adopted.wait_states(sent=10, deadline=60)
        assert "could not claim" not in daemon.log and daemon.term() == 0


def test_the_former_sender_works_on_the_migrated_tables(adopted, broker):
    """The way back of a cut-over, and forth again: the ledger has all of it."""
    adopted.query("update subscriptions set status = 'processing' where id <= 4; "
                  "update subscriptions set status = 'sent', sent_at = now() where id <= 3; "
                  "update subscriptions set status = 'failed' where id = 4; "
                  "insert into subscription_events (subscription_id, status, operation_name, created_at, updated_at) "
                  "values (1, 'success', 'send_to_institution', now(), now())")
    ctl = Ctl(PUBLIC, database=adopted.database, kafka=broker)
    with Daemon(PUBLIC, database=adopted.database, kafka=broker) as daemon:
        adopted.wait_states(sent=4, failed=1)
        wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof: {ctl('verify')}", interval=0.5)
        counted = "select successful_sends, failed_sends from integrations"
        wait_for(lambda: adopted.query(counted) == [(4, 1)], 60, "the counters")
        assert daemon.term() == 0
