"""Tables of an application that anubisd can or cannot adopt, and the roles that work on them afterwards."""
import contextlib
import functools

import pytest
from harness.anubis import Ctl, Daemon
from harness.application import Application
from harness.postgres import refused, schema_dump
from harness.processes import wait_for
from harness.rails import RAILS, adopt, fingerprints, rails

PUBLIC = {"database": {"schema": "public"}}
STATUS_CHECK = "alter table subscriptions add constraint known check (status in ('pending', 'sent', 'failed'{more})) not valid"

# What an application may have done to its tables: (SQL, words of the refusal).
OBSTACLES = {
    "status as a number": ("alter table subscriptions alter status drop default, alter status type integer using 0",
                           '"status" of table "subscriptions" is of type integer'),
    "status too short": ("alter table subscriptions alter status type varchar(5) using 'sent'",
                         '"status" of table "subscriptions" has room for 5'),
    "states that a check refuses": (STATUS_CHECK.replace("{more}", ""),
                                    'constraint "known" of table "subscriptions" refuses the status \'processing\', \'retry\''),
    "a table of states that lacks some": (
        "create table states (name varchar primary key); "
        "insert into states values ('pending'), ('sent'), ('failed'), ('processing'); "
        "alter table subscriptions add constraint known foreign key (status) references states (name) not valid",
        'constraint "known" of table "subscriptions" refuses the status \'retry\', which table public.states does not have'),
    "a default that is no state": ("alter table subscriptions alter status set default 'PENDING'",
                                   'the default of column "status" of table "subscriptions" is "PENDING"'),
    "states in capitals": ("alter table subscriptions alter integration_filter_id drop not null; "
                           "insert into integrations (name, created_at, updated_at) values ('x', now(), now()); "
                           "insert into subscriptions (integration_id, status, created_at, updated_at) "
                           "select max(id), 'Pending', now(), now() from integrations",
                           '1 subscriptions have the status "Pending", which is none of the states: run "update subscriptions '
                           'set status = \'pending\' where status = \'Pending\'"'),
    "a subscription that no event can name": (
        "alter table subscriptions alter integration_filter_id drop not null; "
        "insert into integrations (name, created_at, updated_at) values ('x', now(), now()); insert into subscriptions "
        "(id, integration_id, status, created_at, updated_at) select 0, max(id), 'pending', now(), now() from integrations",
        "subscription 0 waits, and has an id that no event can name"),
    "an integration that no event can name": (
        "insert into integrations (id, name, created_at, updated_at) values (0, 'x', now(), now())",
        "integration 0 has an id that no event can name"),
    "operation name too short": ("alter table subscription_events alter operation_name type varchar(10) using ''",
                                 '"operation_name" of table "subscription_events" has room for 10 characters only: run "alter '
                                 'table'),
    "error message too short": ("alter table subscription_events alter error_message type varchar(255)",
                                '"error_message" of table'),
    "a view for subscriptions": ("alter table subscriptions rename to s; create view subscriptions as select * from s",
                                 '"subscriptions" is a view'),
    "a view for events": ("alter table subscription_events rename to e; create view subscription_events as select * from e",
                          '"subscription_events" is a view'),
    "a NOT NULL column of its own": ("alter table subscription_events add tenant bigint not null default 1; "
                                     "alter table subscription_events alter tenant drop default",
                                     '"tenant" of table "subscription_events" is NOT NULL'),
    "NOT NULL where events have nothing": ("alter table subscription_events alter status set not null",
                                           '"alter table subscription_events alter column status drop not null"'),
    "NOT NULL where anubisd writes nothing": ("alter table subscriptions add last_error text not null default ''",
                                              "anubisd empties it"),
    "attempts that may be NULL": ("alter table subscriptions add attempts integer",
                                  "alter column attempts set default '0', alter column attempts set not null"),
    "delivery settings as text": ("alter table integrations add delivery_settings text not null default ''",
                                  "anubisd can adopt it as jsonb"),
    "next_attempt_at without time zone": ("alter table subscriptions add next_attempt_at timestamp",
                                          '"next_attempt_at" of table'),
    "order_id as text": ("alter table subscriptions alter order_id type varchar",
                         '"order_id" of table "subscriptions" is of type character varying'),
    "a generated status": ("alter table subscriptions drop status; alter table subscriptions add status "
                           "varchar generated always as (case when sent_at is null then 'pending' else 'sent' end) stored",
                           "is generated, and anubisd writes it"),
    "an index named like ours": ("create index subscriptions_due on subscriptions (id)",
                                 'a relation named "subscriptions_due" exists'),
    "a function named like ours": ("create function lock_key(text) returns bigint language sql as 'select 1::bigint'",
                                   'a function named "lock_key"'),
    "a trigger named like ours": ("create function f() returns trigger language plpgsql as 'begin return new; end'; "
                                  "create trigger anubis_inserted before insert on subscriptions for each row "
                                  "execute function f()",
                                  'trigger "anubis_inserted" on "subscriptions"'),
    "a table that inherits": ("create table more () inherits (subscriptions)", '"alter table more no inherit subscriptions"'),
    "an unlogged table": ("alter table subscription_events set unlogged", '"alter table subscription_events set logged"'),
    "no primary key": ("alter table subscriptions drop constraint subscriptions_pkey cascade", "has no primary key"),
    "a foreign key to events": ("create table notes (event bigint references subscription_events (id))",
                                'constraint "notes_event_fkey" of table notes'),
    "a view of events": ("create view seen as select * from subscription_events", 'view seen reads "subscription_events"'),
    "a trigger on events": ("create function f() returns trigger language plpgsql as 'begin return new; end'; create trigger t "
                            "before insert on subscription_events for each row execute function f()",
                            'trigger "t" is on "subscription_events"'),
    "row security on events": ("alter table subscription_events enable row level security",
                               'row security of table "subscription_events"'),
    "a publication of events": ("create publication p for table subscriptions, subscription_events",
                                'publication "p" holds "subscription_events", which is about to be partitioned'),
    "a rule": ("create rule r as on delete to subscriptions do instead nothing", 'rule "r" on table "subscriptions"'),
}


@pytest.mark.parametrize("name", OBSTACLES)
def test_what_is_in_the_way(empty_database, name):
    """A refusal that says what and where, before anything is done; nothing is changed, nor would the application break later."""
    sql, words = OBSTACLES[name]
    rails(empty_database, rows=20)
    empty_database.query(sql)
    before = schema_dump(empty_database, "public")
    for arguments in (["--dry-run"], []):
        result = adopt(empty_database, *arguments).expect(69)
        assert words in result.stderr and "nothing was changed" in result.stderr
        assert schema_dump(empty_database, "public") == before


def test_all_that_is_in_the_way_is_said_at_once(empty_database):
    rails(empty_database, rows=20)
    empty_database.query("alter table subscriptions alter order_id type varchar; "
                         "alter table subscription_events alter status set not null")
    result = adopt(empty_database, "--dry-run").expect(69)
    assert "2 things keep anubisd from adopting the tables" in result.stderr
    assert 'in the way: column "order_id"' in result.stderr and 'in the way: column "status"' in result.stderr


HARMLESS = {
    "a table of settings": "create table settings (id bigserial primary key, key text); "
                          "create index settings_key on settings (key)",
    "settings that may be NULL": "alter table integrations add settings text, add delivery_settings jsonb; "
                                 "alter table integration_filters add criteria jsonb",
    "ids of type integer": "",
    "json": "alter table subscriptions alter payload type json; "
            "alter table subscription_events alter request type json, alter response type json",
    "generated columns": "alter table subscriptions add twice text generated always as (cpf::text || 'x') stored; "
                         "alter table subscription_events add upper_name text "
                         "generated always as (upper(operation_name::text)) stored",
    "a NOT NULL column with a default": "alter table subscription_events add tenant bigint not null default 7",
    "a trigger of its own": "create function f() returns trigger language plpgsql as '"
                            "begin new.updated_at := now(); return new; end'; "
                            "create trigger touch before update on subscriptions for each row execute function f()",
    "a check that knows the states": STATUS_CHECK.replace("{more}", ", 'processing', 'retry', 'gone'"),
    "an index on the events": "create unique index u on subscription_events (subscription_id, operation_name, id)",
}


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_not_in_the_way(empty_database, name):
    if name == "ids of type integer":
        narrow = RAILS.replace("{json}", "jsonb").replace("(id bigserial", "(id serial").replace("_id bigint", "_id integer")
        empty_database.query(narrow.replace("create table subscription_events (id serial",
                                            "create table subscription_events (id bigserial"))
        empty_database.query("insert into integrations (name, created_at, updated_at) values ('x', now(), now()); "
                             "insert into integration_filters (integration_id, created_at, updated_at) values (1, now(), now())")
    else:
        rails(empty_database, rows=20)
    empty_database.query(HARMLESS[name] or "select")
    before = fingerprints(empty_database)
    adopt(empty_database).expect(0)
    assert fingerprints(empty_database) == before
    app = Application(empty_database, "public")
    check_application_goes_on(app.query)
    events = app.events(app.value("select max(id) from subscriptions"))
    assert [e["event_type"] for e in events][:3] == ["created", "updated", "sent"]
    if name == "generated columns":
        assert app.value("select upper_name from subscription_events order by id desc limit 1") == "NOTE"
    if name.startswith("a NOT NULL column"):
        assert app.value("select distinct tenant from subscription_events") == 7
    Ctl(PUBLIC, database=empty_database)("verify").expect(2)


def check_application_goes_on(query):
    number = query("insert into subscriptions (integration_id, integration_filter_id, payload, created_at, updated_at) "
                   "values (1, 1, '{}', now(), now()) returning id")[0][0]
    for status in ("processing", "sent"):
        query("update subscriptions set status = %s where id = %s", (status, number))
    query("insert into subscription_events (subscription_id, operation_name, created_at, updated_at) "
          "values (%s, 'note', now(), now())", (number,))
    assert query("select count(*) from subscription_events where subscription_id = %s", (number,))[0][0] == 4


def test_old_values_of_ours(empty_database):
    """A column of our name, with contents of the application's own, keeps nobody from changing something else."""
    rails(empty_database, rows=20)
    empty_database.query("alter table integrations add delivery_settings jsonb default '{}', add settings jsonb; "
                         "update integrations set delivery_settings = '{\"campus\": 1}', settings = '{\"campus\": 2}', "
                         "auth_token = E'a\\nb', endpoint_url = 'here'")
    adopt(empty_database).expect(0)
    for column, value in (("auth_token", "new"), ("endpoint_url", "https://x.example/"), ("settings", '{"unknown": true}')):
        empty_database.query(f"update integrations set {column} = %s where id = 1", (value,))
    assert refused(empty_database.query, "update integrations set delivery_settings = '{\"campus\": 3}'")[0] == "23514"
    empty_database.query("update integrations set delivery_settings = delivery_settings || '{\"on_ambiguous\": \"hold\"}'")


def test_the_first_partition_follows_the_adopted_one(empty_database):
    rails(empty_database, rows=20)
    adopt(empty_database).expect(0)
    assert empty_database.query("select first_id, last_id from ledger_partitions order by 1")[:2] == [(0, 8), (9, 8 + (1 << 20))]
    check_application_goes_on(empty_database.query)
    assert empty_database.value("select tableoid::regclass::text from subscription_events order by id desc limit 1") \
        == "subscription_events_9"
    assert Ctl(PUBLIC, database=empty_database)("status", "--json").expect(0).json["default_partition_used"] is False


def test_no_id_of_before_the_adoption_is_given_out(empty_database):
    """The application has removed most of its events, so their ids are free; nobody publishes what has one of them."""
    rails(empty_database, rows=20)
    empty_database.query("delete from subscription_events where id < 6")
    adopt(empty_database).expect(0)
    for words in ("select setval('ledger_id_seq', 1, false)", "select setval('ledger_id_seq', 8)",
                  "alter sequence ledger_id_seq restart with 5"):
        assert refused(empty_database.query, words)[0] in ("22003", "22023"), words
    empty_database.query("select nextval('ledger_id_seq') from generate_series(1, 9); alter sequence ledger_id_seq restart")
    assert empty_database.value("select nextval('ledger_id_seq')") == 9


def test_some_of_the_tables(empty_database):
    """The others are made, with the references between them; what the application calls circuit_state is its own
    affair."""
    empty_database.query("create table integrations "
                         "(id serial primary key, name text, circuit_state integer not null default 7); "
                         "create table subscriptions (id serial primary key, status varchar default 'pending', payload json); "
                         "insert into integrations (name) values ('x'); insert into subscriptions (payload) values ('{}')")
    adopt(empty_database).expect(0)
    found = empty_database.query("select conrelid::regclass::text, confrelid::regclass::text from pg_constraint "
                                 "where contype = 'f' and connamespace = 'public'::regnamespace order by 1, 2")
    assert found == [("alert_buckets", "alert_evidence"), ("alert_evidence", "integrations"), ("alert_outbox", "alerts"),
                     ("alert_silences", "integrations"),
                     ("confirmation_terms", "integrations"), ("integration_filters", "integrations"),
                     ("integration_runtime", "integrations")]
    app = Application(empty_database, "public")
    number = app.subscription(1)
    assert app.query("select event_type, to_status from subscription_events") == [("created", "pending")]
    app.query("update subscriptions set status = 'failed' where id = %s", (number,))
    for column in ("integration_id", "integration_filter_id"):
        assert refused(app.query, f"insert into subscriptions ({column}) values (99)")[0] == "23503"
    assert app.query("select circuit_state from integrations") == [(7,)]
    Ctl(PUBLIC, database=empty_database)("verify").expect(2)


def test_the_applications_own_references_stay(empty_database):
    """An integration_id without a foreign key may name what does not exist, and a deferred one is judged at the commit."""
    for own in ("", " references integrations (id) deferrable initially deferred"):
        empty_database.query("create schema rails; set search_path = rails; create table integrations (id serial primary key); "
                             "create table subscriptions (id serial primary key, status varchar default 'pending', "
                             f"integration_id integer{own}); insert into integrations default values; "
                             "insert into subscriptions (integration_id, status) values (1, 'gone'), (1, null)")
        Ctl({"database": {"schema": "rails"}}, database=empty_database)("migrate").expect(0)
        connection = empty_database.connect(autocommit=False)
        with connection.cursor() as cursor:
            cursor.execute("insert into rails.subscriptions (integration_id) values (7)")
            cursor.execute("insert into rails.integrations (id) values (7)")
            cursor.execute("update rails.subscriptions set integration_id = 7 where id = 1")
        connection.commit()
        connection.close()
        query = empty_database.query
        if own:
            assert refused(query, "delete from rails.integrations where id = 7")[0] == "23503"
        else:
            query("insert into rails.subscriptions (integration_id) values (99)")
            assert query("delete from rails.integrations where id = 7") == 1
        # Rows of before keep what they have, and get nothing new of the kind.
        query("update rails.subscriptions set attempts = 1 where id in (1, 2)")
        assert refused(query, "update rails.subscriptions set status = 'away' where id = 1")[0] == "23514"
        assert refused(query, "insert into rails.subscriptions (status) values (null)")[0] == "23514"
        assert refused(query, "update rails.subscriptions set attempts = -1 where id = 1")[0] == "23514"
        assert refused(query, "update rails.subscriptions set id = 100 where id = 2")[0] == "23514"
        query("drop schema rails cascade")


# --- roles ---


@contextlib.contextmanager
def roles(database, *names):
    """Login roles of this database's own: {name: role}"""
    made = {name: f"{database.name}_{name}" for name in names}
    for role in made.values():
        database.query(f"create role {role} login")
    try:
        yield made
    finally:
        for role in made.values():
            database.query(f"drop owned by {role} cascade; drop role {role}")


def test_the_application_keeps_its_rights(empty_database):
    """An administrator migrates; the owner of the tables and a role with grants on them write and read as before, and no more."""
    with roles(empty_database, "owner", "web") as role:
        rails(empty_database, rows=20)
        for table in ("integrations", "integration_filters", "subscriptions", "subscription_events"):
            empty_database.query(f"alter table {table} owner to {role['owner']}; "
                                 f"grant select, insert, update on {table} to {role['web']}")
        empty_database.query(f"grant usage on all sequences in schema public to {role['web']}")
        adopt(empty_database).expect(0)
        for name in role:
            query = functools.partial(empty_database.query, user=role[name])
            check_application_goes_on(query)
            query("update integrations set enabled = not enabled, delivery_settings = '{}'")
            for call in ("ledger_extend(1)", "anubisd_grant('public')"):
                assert refused(query, f"select {call}")[0] == "42501"
            assert refused(query, "update subscription_events set status = null where id = 1")[0] == "23001"
            for table in ("subscription_events_default", "relay_state", "dead_letters"):
                assert refused(query, f"select * from {table}")[0] == "42501"


def test_what_was_sent_is_sent_again_with_the_applications_own_columns(empty_database):
    """Those that are NOT NULL, unique with a default, generated; times without zone; a native enum of states."""
    rails(empty_database)
    empty_database.query(
        "create type state as enum ('pending', 'processing', 'sent', 'failed', 'retry'); "
        "alter table subscriptions alter status drop default, alter status type state using status::state, "
        "alter status set default 'failed', add tenant integer, add uuid uuid not null default gen_random_uuid(), "
        "add \"The Name\" text not null default '', add twice bigint generated always as (order_id * 2) stored; "
        "update subscriptions set tenant = id; alter table subscriptions alter tenant set not null; "
        "create unique index on subscriptions (uuid)")
    adopt(empty_database).expect(0)
    ctl = Ctl(PUBLIC, database=empty_database)
    sent = [row[0] for row in empty_database.query("select id from subscriptions where status = 'sent' order by id limit 3")]
    resent = ctl("resend", *sent, "--json").expect(0).json["resent"]
    assert [r["id"] for r in resent] == sent
    same = 'tenant, "The Name", twice, order_id, integration_id, integration_filter_id, payload'
    for r in resent:
        old, new = (empty_database.query(f"select {same} from subscriptions where id = %s", (i,)) for i in (r["id"], r["copy"]))
        assert old == new
    copies = [r["copy"] for r in resent]
    assert empty_database.query(
        "select distinct status::text, created_at > now() at time zone 'UTC' - interval '1 h', sent_at, scheduled_to "
        "from subscriptions where id = any (%s)", (copies,)) == [("pending", True, None, None)]
    # What the application wants to have once only, it has once only.
    empty_database.query("create unique index once on subscriptions (tenant) where id > %s", (sent[-1] + 1,))
    others = [r[0] for r in empty_database.query("select id from subscriptions where status = 'sent' order by id desc limit 3")]
    refused = ctl("resend", *others).expect(1)
    assert (refused.stdout + refused.stderr).count("(SQLSTATE 23505)") == len(others)
    assert empty_database.value("select count(*) from subscriptions where resend_of is not null") == 3


def test_ledger_extend_cannot_be_led_astray(database):
    for width in (-1, 0, 1, 2**62):
        database.query("select setval('anubis.ledger_id_seq', (select max(first_id) + 1 from anubis.ledger_partitions))")
        assert database.value("select anubis.ledger_extend(%s::bigint)", (width,)) == 2
    widths = [w[0] for w in database.query("select last_id - first_id + 1 from anubis.ledger_partitions")]
    assert 1 << 10 <= min(widths) and max(widths) <= 1 << 28


def test_a_daemon_that_owns_nothing(empty_database, broker, institutions):
    """anubisd_grant() is enough for all the daemon does, and gives no other right."""
    with roles(empty_database, "daemon") as role:
        rails(empty_database, rows=100)
        empty_database.query("update integrations set endpoint_url = %s", (institutions.url("/good"),))
        mine = empty_database.conninfo(user=role["daemon"])
        with Daemon(PUBLIC, database=mine, kafka=broker) as daemon:
            daemon.wait_log("anubisctl migrate")
            adopt(empty_database).expect(0)
            daemon.wait_log("select public.anubisd_grant")
            empty_database.query("select public.anubisd_grant(%s)", (role["daemon"],))
            app = Application(empty_database, "public")
            app.wait_states(sent=60, failed=20, processing=20)
            ctl = Ctl(PUBLIC, database=mine, kafka=broker)
            wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof: {ctl('verify')}", interval=0.5)
            sent = str(app.value("select min(id) from {s}.subscriptions where status = 'sent'"))
            for command in (["status"], ["integrations"], ["installation"], ["explain", "1"], ["resend", sent],
                            ["pause", "1", "--reason", "x"], ["resume", "1"],
                            ["retry", "--since", "1d"], ["report"], ["alerts"],
                            ["alerts", "silence", "--integration", "1", "--for", "1s", "--reason", "x"],
                            ["alerts", "unsilence", "--integration", "1"],
                            ["audit", "head"], ["dead-letters"], ["dead-letters", "replay", "--all"],
                            ["dead-letters", "discard", "--all", "--reason", "x"],
                            ["replay", "--group", "integration"],
                            ["replay", "--group", "integration", "--from-ledger"],
                            ["replay", "--group", "external", "--from-ledger"], ["report", "--reconciliation"],
                            ["erase", "--subscription", sent, "--yes"]):
                ctl(*command).expect(0)
            assert daemon.term() == 0
            assert "permission denied" not in daemon.log
        query = functools.partial(empty_database.query, user=role["daemon"])
        assert query("select public.ledger_extend()") == [(0,)]
        for sql in ("insert into subscriptions (status) values ('pending')", "insert into subscription_events (id) values (1)",
                    "delete from integrations", "update integration_filters set name = ''", "select * from schema_migrations",
                    "drop table dead_letters", "select anubisd_grant('public')", "update anubis_migrations set version = 1"):
            assert refused(query, sql)[0] == "42501", sql


def test_what_stood_in_processing_gets_ten_minutes(empty_database, broker, institutions):
    """Somebody may still be sending it; then it is tried again, or held when it is too old: nobody saw it fail."""
    rails(empty_database, rows=100)
    empty_database.query("update integrations set endpoint_url = %s", (institutions.url("/good"),))
    empty_database.query("update subscriptions set created_at = now() - interval '4 days' "
                         "where status = 'processing' and id % 2 = 0; "
                         "update subscriptions set created_at = now() where status = 'processing' and id % 2 = 1")
    adopt(empty_database).expect(0)
    app = Application(empty_database, "public")
    old, new = (app.value(f"select array_agg(id) from subscriptions where status = 'processing' and id % 2 = {i}")
                for i in (0, 1))
    with Daemon(PUBLIC, database=empty_database, kafka=broker) as daemon:
        wait_for(lambda: app.value("select every(lease_expires_at between now() + interval '9 minutes' "
                                   "and now() + interval '10 minutes') "
                                   "from subscriptions where status = 'processing'"), 30, "their lease")
        app.wait_states(processing=len(old) + len(new), pending=0)
        app.query("update subscriptions set lease_expires_at = now() where status = 'processing'")
        app.wait_states(processing=0, retry=0)
        daemon.wait_log(f"{len(old)} subscriptions held: in \"processing\" since before a daemon had them")
        for ids, status in ((old, "pending"), (new, "sent")):
            assert app.query("select distinct status, held_at is not null from subscriptions where id = any (%s)", (ids,)) == [
                (status, ids is old)]
        assert Ctl(PUBLIC, database=empty_database)("status", "--json").expect(0).json["held"] == len(old)
        app.query("update subscriptions set status = 'sent' where id = %s; update subscriptions set held_at = null where id = %s",
                  old[:2])
        wait_for(lambda: app.row(old[1])["status"] == "sent", 30, "the released row to be sent")
        assert app.row(old[0])["held_at"] is None
        assert daemon.term() == 0


def test_a_payload_that_is_null_goes_out(empty_database, broker, institutions):
    """As JSON has it; such a row alone was never claimed."""
    rails(empty_database, rows=1)
    empty_database.query("update integrations set endpoint_url = %s; "
                         "update subscriptions set status = 'pending', payload = null, scheduled_to = null, created_at = now()",
                         (institutions.url("/good"),))
    adopt(empty_database).expect(0)
    app = Application(empty_database, "public")
    with Daemon(PUBLIC, database=empty_database, kafka=broker) as daemon:
        app.wait_states(sent=1)
        assert daemon.term() == 0
    assert app.row(1)["last_http_status"] == 200
    explained = Ctl(PUBLIC, database=empty_database)("explain", "1", "--json").expect(0).json
    assert explained["idempotency_key"] in institutions.keys()


def test_row_security_hides_nothing_silently(empty_database, broker):
    """A daemon whose role sees only some of the rows would leave the others for ever: it says so instead."""
    with roles(empty_database, "daemon") as role:
        rails(empty_database, rows=20)
        adopt(empty_database).expect(0)
        empty_database.query("select public.anubisd_grant(%s); alter table subscriptions enable row level security; "
                             "create policy p on subscriptions using (false)", (role["daemon"],))
        with Daemon(PUBLIC, database=empty_database.conninfo(user=role["daemon"]), kafka=broker) as daemon:
            daemon.wait_log(f'table "subscriptions" has row security, which hides rows from role "{role["daemon"]}"; '
                            f'run "alter role {role["daemon"]} bypassrls"')
        empty_database.query(f"alter role {role['daemon']} bypassrls")
        Ctl(PUBLIC, database=empty_database.conninfo(user=role["daemon"]))("status").expect(0)


@pytest.mark.parametrize("zone", ["America/Sao_Paulo", "Asia/Tokyo"])
def test_a_server_of_another_time_zone(empty_database, broker, institutions, zone):
    """Columns without zone mean UTC all the same: what is due goes out, what is not waits, and what is written is UTC."""
    empty_database.query(f"alter database {empty_database.name} set timezone = '{zone}'")
    rails(empty_database, rows=5)
    empty_database.query("update subscriptions set status = 'failed' where status <> 'sent'; "
                         "update integrations set endpoint_url = %s", (institutions.url("/good"),))
    adopt(empty_database).expect(0)
    app = Application(empty_database, "public")
    due, later, now = app.query("insert into subscriptions (integration_id, integration_filter_id, payload, scheduled_to, "
                                "created_at, updated_at) "
                                "select 1, 1, '{}', t + n * interval '1 h', t, t from (select now() at time zone 'utc' as t) x, "
                                "unnest(array[-1, 1, null]::integer[]) n returning id")
    with Daemon(PUBLIC, database=empty_database, kafka=broker) as daemon:
        app.wait_states(sent=3, pending=1, failed=4)
        assert app.row(later[0])["status"] == "pending"
        for row in (due, now):
            assert app.value("select abs(extract(epoch from sent_at - (now() at time zone 'utc'))) < 120 and "
                             "abs(extract(epoch from updated_at - (now() at time zone 'utc'))) < 120 "
                             "from subscriptions where id = %s", (row[0],))
        ctl = Ctl(PUBLIC, database=empty_database, kafka=broker)
        wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof: {ctl('verify')}", interval=0.5)
        assert daemon.term() == 0


def test_what_the_type_of_an_integration_means_is_said(empty_database):
    """All are POSTed to alike, whatever the application did with its types."""
    rails(empty_database, rows=20)
    empty_database.query("update integrations set type = ('{api,API,sftp,sftp,null}'::text[])[id]")
    said = adopt(empty_database, "--dry-run").expect(0).stderr
    assert 'warning: column "type" of table "integrations" has the values "sftp" (2): ' in said and "enabled = false" in said
    empty_database.query("update integrations set type = 'api'")
    assert '"type"' not in adopt(empty_database).expect(0).stderr
