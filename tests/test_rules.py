"""What the triggers refuse in place of constraints: rows that no claim could take, and integrations that do not exist."""
import io
import threading

import psycopg2
import pytest
from harness.processes import wait_for

# What a subscription cannot have: (column, value as SQL, constraint that it breaks).
IMPOSSIBLE = {
    "a status of its own": ("status", "'cancelled'", "subscriptions_status_is_known"),
    "a status in capitals": ("status", "'SENT'", "subscriptions_status_is_known"),
    "too many attempts": ("attempts", "1000000001", "subscriptions_attempts_are_few"),
    "attempts below zero": ("attempts", "-1", "subscriptions_attempts_are_few"),
    "a time without end": ("created_at", "'infinity'", "subscriptions_created_at_is_finite"),
    "a time before all": ("created_at", "'-infinity'", "subscriptions_created_at_is_finite"),
    "an unknown integration": ("integration_id", "999", "subscriptions_integration_id_fkey"),
    "an unknown filter": ("integration_filter_id", "999", "subscriptions_integration_filter_id_fkey"),
}
NEW_IDS = {"id zero": ("id", "0", "subscriptions_id_is_positive"),
           "an id below zero": ("id", "-7", "subscriptions_id_is_positive")}


@pytest.fixture
def rules(app):
    app.integration("https://x.example/")
    app.integration("https://filtered.example/")
    app.query("insert into {s}.integration_filters (integration_id, enabled) values (2, false)")
    app.subscriptions(1, 10)
    return app


def refusal(app, sql):
    """The server's words for a statement, which must have changed nothing."""
    before = app.value("select (select md5(string_agg(s::text, ',' order by id)) from {s}.subscriptions s), "
                       "(select count(*) from {s}.subscription_events)")
    with pytest.raises(psycopg2.Error) as refused:
        app.query(sql)
    assert app.value("select (select md5(string_agg(s::text, ',' order by id)) from {s}.subscriptions s), "
                     "(select count(*) from {s}.subscription_events)") == before
    return refused.value.pgcode, refused.value.diag


def expect(found, rule, number):
    """That a refusal is what a constraint of this name would give, and names the subscription."""
    state, diag = found
    assert state == ("23503" if rule.endswith("fkey") else "23514")
    assert (diag.constraint_name, diag.table_name) == (rule, "subscriptions")
    assert f"ubscription {number} " in f"{diag.message_primary} {diag.message_hint} ", diag.message_primary
    if rule.endswith("fkey"):
        assert diag.message_primary == f'insert or update on table "subscriptions" violates foreign key constraint "{rule}"'
        name = rule[len("subscriptions_"):-len("_fkey")]
        assert diag.message_detail == f'Key ({name})=(999) is not present in table "{name[:-len("_id")]}s".'


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_what_is_impossible_is_refused(rules, name):
    """Alone, among a hundred rows, in an update of one and of all rows, and in an upsert."""
    column, value, rule = IMPOSSIBLE[name]
    plain = {"status": "'pending'", "attempts": "0", "created_at": "now()", "integration_id": "1",
             "integration_filter_id": "1"}[column]
    expect(refusal(rules, f"insert into {{s}}.subscriptions (id, {column}) values (77, {value})"), rule, 77)
    expect(refusal(rules, f"insert into {{s}}.subscriptions (id, {column}) "
                          f"select n, case n when 150 then {value} else {plain} end from generate_series(100, 200) n"), rule, 150)
    expect(refusal(rules, f"update {{s}}.subscriptions set {column} = {value} where id = 3"), rule, 3)
    expect(refusal(rules, f"update {{s}}.subscriptions set {column} = case id when 7 then {value} else {plain} end"), rule, 7)
    expect(refusal(rules, "insert into {s}.subscriptions (id) values (5) on conflict (id) "
                          f"do update set {column} = {value}"), rule, 5)


@pytest.mark.parametrize("name", NEW_IDS)
def test_ids_are_positive(rules, name):
    column, value, rule = NEW_IDS[name]
    found = refusal(rules, f"insert into {{s}}.subscriptions ({column}) select case n when 50 then {value} else 100 + n end "
                           "from generate_series(1, 100) n")
    assert (found[0], found[1].constraint_name) == ("23514", rule) and f"the id {value}" in found[1].message_primary


INTEGRATIONS = [("endpoint_url", value) for value in (
    "https://a.example/", "http://127.0.0.1:8080/x", "https://[::1]:8443/x", "https://a.example./", "https://ü.example/",
    "https://.a.example/", "https://a..example/", "https://a\\b.example/", "https://[::g]/",
    "https://a.example:0/", "https://u@a.example/")]
INTEGRATIONS += [("auth_token", "a\\b"), ("auth_token", "tökens"), ("delivery_settings", '{"headers": {"x": "ö"}}'),
                 ("delivery_settings", '{"proxy": "http://[::1]:3128"}'), ("delivery_settings", '{"proxy": "http://a b"}')]


def test_settings_of_a_session_change_no_rule(app):
    """Backslashes in strings are read by them, as sessions of long ago had it."""
    judged = []
    for setting in ("on", "off"):
        app.query(f"alter database {app.database.name} set standard_conforming_strings = {setting}")
        connection = app.database.connect()
        with connection.cursor() as cursor:
            for column, value in INTEGRATIONS:
                try:
                    cursor.execute(f"insert into {app.schema}.integrations (name, {column}) values ('x', %s)", (value,))
                    judged.append(None)
                except psycopg2.Error as refused:
                    judged.append(refused.diag.message_primary)
        connection.close()
    half = len(INTEGRATIONS)
    assert judged[:half] == judged[half:] and 5 < sum(words is not None for words in judged[:half]) < half - 4, judged


@pytest.mark.parametrize("number", [0, -7, -2 ** 63])
def test_ids_of_integrations_are_positive(rules, number):
    for statement in ("insert into {s}.integrations (id, name) values (%s, 'x')",
                      "update {s}.integrations set id = %s where id = 2"):
        found = refusal(rules, statement % number)
        assert found[0] == "23514" and f"cannot give an integration the id {number}" in found[1].message_primary


@pytest.mark.parametrize("change", ["id = 1000 where id = 3", "id = -3 where id = 3", "id = id + 100 where id = 3",
                                    "id = 1000, status = 'failed' where id = 3"])
def test_an_id_never_changes(rules, change):
    state, diag = refusal(rules, f"update {{s}}.subscriptions set {change}")
    assert state == "23514" and diag.message_primary == "cannot change the id of subscription 3"


def test_no_id_moves_on_to_the_next_row(rules):
    """Each row gets the id that its neighbour has just given up."""
    state, diag = refusal(rules, "with down as (select id from {s}.subscriptions order by id desc) "
                                 "update {s}.subscriptions set id = id + 1 where id = 10")
    assert state == "23514" and "cannot change the id of subscription 10" in diag.message_primary
    connection = rules.database.connect()
    with connection.cursor() as cursor:
        cursor.execute("set enable_hashagg = off")
        with pytest.raises(psycopg2.Error):
            cursor.execute("update anubis.subscriptions set id = id - 1")
    connection.close()
    assert rules.value("select min(id) from {s}.subscriptions") == 1


def test_copy_is_refused_alike(rules):
    connection = rules.database.connect()
    with connection.cursor() as cursor:
        for line, state, word in (("99\t999\tpending", "23503", "999"), ("99\t1\tgone", "23514", "gone")):
            with pytest.raises(psycopg2.Error) as refused:
                cursor.copy_expert("copy anubis.subscriptions (id, integration_id, status) from stdin",
                                   io.StringIO("98\t1\tpending\n" + line + "\n"))
            assert refused.value.pgcode == state and word in str(refused.value)
        cursor.copy_expert("copy anubis.subscriptions (id, integration_id) from stdin", io.StringIO("98\t1\n99\t\\N\n"))
    connection.close()
    assert rules.value("select count(*) from {s}.subscription_events where subscription_id in (98, 99)") == 2


def test_a_hostile_search_path_changes_no_rule(rules):
    """A role that may write subscriptions and nothing else, with operators of its own before those of Postgres: none of them
    runs with other rights than its own."""
    database = rules.database
    role = f"{database.name}_hostile"
    try:
        database.query(f"create role {role}; create schema evil authorization {role}; grant usage on schema anubis to {role}; "
                       f"grant select, insert, update on anubis.subscriptions to {role}")
        connection = database.connect()
        with connection.cursor() as cursor:
            cursor.execute(f"set role {role}")
            for left, right in (("bigint", "integer"), ("bigint", "bigint"), ("integer", "integer"), ("text", "text")):
                cursor.execute(f"create function evil.yes({left}, {right}) returns boolean language plpgsql as "
                               f"$$begin if current_user <> '{role}' then raise 'led astray'; end if; return true; end$$")
                for operator in (">", ">=", "<=", "=", "<>"):
                    cursor.execute(f"create operator evil.{operator} (leftarg = {left}, rightarg = {right}, function = evil.yes)")
            cursor.execute("create function evil.isfinite(timestamptz) returns boolean language sql as 'select true'; "
                           "set search_path = evil, pg_catalog")
            for column, value, rule in (*IMPOSSIBLE.values(), *NEW_IDS.values()):
                with pytest.raises(psycopg2.Error) as refused:
                    cursor.execute(f"insert into anubis.subscriptions ({column}) values ({value})")
                assert refused.value.diag.constraint_name == rule
                if column != "id":
                    with pytest.raises(psycopg2.Error) as refused:
                        cursor.execute(f"update anubis.subscriptions set {column} = {value} where id operator(pg_catalog.=) 3")
                    assert refused.value.diag.constraint_name == rule
            cursor.execute("insert into anubis.subscriptions (integration_id) values (1) returning id")
            number = cursor.fetchone()[0]
            cursor.execute("update anubis.subscriptions set status = 'failed' where id operator(pg_catalog.=) %s", (number,))
        connection.close()
        assert [e["event_type"] for e in rules.events(number)] == ["created", "failed"]
    finally:
        database.query(f"drop owned by {role} cascade; drop role {role}")


def test_a_seed_that_is_missing_is_given(rules):
    """In one insert of many rows, too, and to those rows alone; then nobody takes it away."""
    rules.query("insert into {s}.subscriptions (id, idempotency_seed) select 100 + n, case when n % 2 = 0 then n end "
                "from generate_series(1, 50) n")
    assert rules.value("select count(distinct idempotency_seed) from {s}.subscriptions where id > 100") == 50
    assert rules.value("select count(*) from {s}.subscriptions where id > 100 and idempotency_seed = id - 100") == 25
    before = rules.row(101)["idempotency_seed"]
    rules.query("update {s}.subscriptions set idempotency_seed = null")
    assert rules.row(101)["idempotency_seed"] == before
    assert rules.value("select count(*) from {s}.subscription_events where subscription_id > 100") == 50


def test_a_row_without_integration_gets_one(rules):
    number = rules.value("insert into {s}.subscriptions default values returning id")
    rules.query("update {s}.subscriptions set integration_id = 1 where id = %s", (number,))
    rules.query("update {s}.subscriptions set integration_id = null where id = %s", (number,))
    assert rules.row(number)["integration_id"] is None


# --- the integration that goes ---


def kept(found, target="integration"):
    state, diag = found
    assert state == "23503" and diag.constraint_name == f"subscriptions_{target}_id_fkey"
    assert diag.message_primary == f'update or delete on table "{target}s" violates foreign key constraint ' \
                                   f'"subscriptions_{target}_id_fkey" on table "subscriptions"'
    assert diag.message_detail == 'Key (id)=(1) is still referenced from table "subscriptions".'


def test_an_integration_with_subscriptions_stays(rules):
    kept(refusal(rules, "delete from {s}.integrations where id = 1"))
    kept(refusal(rules, "update {s}.integrations set id = 50 where id = 1"))
    assert refusal(rules, "truncate {s}.integrations cascade")[0] == "23001"
    spare = rules.integration("https://y.example/")
    rules.query("update {s}.integrations set id = 60 where id = %s", (spare,))
    rules.query("update {s}.integrations set id = id, name = 'z' where id = 1")
    assert rules.query("delete from {s}.integrations where id = 60") == 1


def test_an_integration_whose_events_are_counted_stays(app, institutions, make_daemon, broker, ctl):
    """Though its subscriptions have moved: another one under its id would lack the counts, and have its hours and its alert."""
    del broker  # that there is one
    other, old = app.integration(institutions.url("/good")), app.integration(institutions.url("/reject/422"))
    spare = app.integration("https://x.example/")
    make_daemon({"consumers": {"monitoring": False, "external": False}}).start()
    app.subscriptions(old, 3)
    app.wait_states(failed=3)
    ctl("verify", "--wait", deadline=60).expect(0)
    app.query("update {s}.subscriptions set status = 'pending', integration_id = %s", (other,))
    app.wait_states(sent=3)
    state, diag = refusal(app, "delete from {s}.integrations where id = %s" % old)
    assert state == "23001" and diag.message_hint == "One that must get nothing any more is disabled: enabled = false."
    assert diag.message_primary == f"cannot delete integration {old}: its events are counted under its id"
    assert app.query("delete from {s}.integrations where id = %s", (spare,)) == 1
    app.query("update {s}.integrations set enabled = false where id = %s", (old,))
    ctl("verify", "--wait", deadline=60).expect(0)


def test_an_integration_that_subscriptions_left_stays(app, institutions, make_daemon, broker):
    """Nobody has counted its events yet, and who does finds it there. One that had none may go."""
    del broker  # that there is one
    other, old, spare = (app.integration(institutions.url("/good"), name=name) for name in ("Other", "Old", "Spare"))
    number, wanted = app.subscription(old), "cannot {} integration {}: its events are counted under its id"
    app.query("update {s}.subscriptions set integration_id = %s where id = %s", (other, number))
    for words, verb in (("delete from {s}.integrations where id = %s", "delete"),
                        ("update {s}.integrations set id = id + 1000 where id = %s", "change the id of")):
        state, diag = refusal(app, words % old)
        assert state == "23001" and diag.message_primary == wanted.format(verb, old)
        assert app.query(words, (spare,)) == 1
        spare = app.integration("https://x.example/")
    make_daemon().start()
    app.wait_states(sent=1)
    wait_for(lambda: app.value("select sum(created) from {s}.integration_stats where integration_id = %s", (old,)) == 1, 60,
             "its event to be counted")
    assert app.value("select count(*) from {s}.dead_letters") == 0


def test_a_filter_with_subscriptions_stays(rules):
    rules.query("update {s}.subscriptions set integration_filter_id = 1 where id = 1")
    kept(refusal(rules, "delete from {s}.integration_filters"), "integration_filter")
    kept(refusal(rules, "update {s}.integration_filters set id = 50"), "integration_filter")
    assert refusal(rules, "truncate {s}.integration_filters")[0] == "23001"
    rules.query("update {s}.subscriptions set integration_filter_id = null")
    assert rules.query("delete from {s}.integration_filters") == 1


def waits_for_lock(app):
    return app.value("select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'") == 1


class Session(threading.Thread):
    """A statement in a thread of its own; `error` is the server's refusal."""

    def __init__(self, app, sql):
        super().__init__()
        self.connection, self.sql, self.error = app.database.connect(), sql, None
        self.start()

    def run(self):
        try:
            self.connection.cursor().execute(self.sql)
        except psycopg2.Error as e:
            self.error = e
        self.connection.close()


WRITES = pytest.mark.parametrize("write", ["insert into anubis.subscriptions ({0}) values ({1})",
                                           "update anubis.subscriptions set {0} = {1} where id = 1"], ids=["insert", "update"])
TARGETS = pytest.mark.parametrize("target", ["integration", "integration_filter"])


def spare(app, target):
    """An integration or a filter without subscriptions."""
    if target == "integration":
        return app.integration("https://y.example/")
    return app.value("insert into {s}.integration_filters (integration_id, enabled) values (2, false) returning id")


@TARGETS
@WRITES
def test_a_deletion_waits_for_a_writer(rules, write, target):
    number = spare(rules, target)
    writer = rules.database.connect(autocommit=False)
    writer.cursor().execute(write.format(f"{target}_id", number))
    deletion = Session(rules, f"delete from anubis.{target}s where id = {number}")
    wait_for(lambda: waits_for_lock(rules), 30, "the deletion to wait")
    writer.commit()
    writer.close()
    deletion.join()
    assert deletion.error is not None and deletion.error.pgcode == "23503"
    assert rules.value(f"select count(*) from {{s}}.{target}s where id = %s", (number,)) == 1


@pytest.mark.parametrize("end", ["commit", "rollback"])
@TARGETS
@WRITES
def test_a_writer_waits_for_a_deletion(rules, write, target, end):
    number = spare(rules, target)
    deletion = rules.database.connect(autocommit=False)
    deletion.cursor().execute(f"delete from anubis.{target}s where id = {number}")
    writer = Session(rules, write.format(f"{target}_id", number))
    wait_for(lambda: waits_for_lock(rules), 30, "the writer to wait")
    getattr(deletion, end)()
    deletion.close()
    writer.join()
    if end == "commit":
        assert writer.error is not None and writer.error.pgcode == "23503"
    else:
        assert writer.error is None


def test_a_deletion_refused_at_once_stops_no_writer(rules):
    """It looks before it takes the lock."""
    writer = rules.database.connect(autocommit=False)
    writer.cursor().execute("insert into anubis.subscriptions (integration_id) values (1)")
    kept(refusal(rules, "set lock_timeout = '100ms'; delete from {s}.integrations where id = 1"))
    writer.rollback()
    writer.close()


def test_what_a_strict_transaction_has_missed_is_found(rules, ctl):
    number = spare(rules, "integration")
    writer = rules.database.connect(autocommit=False)
    writer.set_session(isolation_level="REPEATABLE READ")
    writer.cursor().execute("select 1")
    rules.query("delete from {s}.integrations where id = %s", (number,))
    writer.cursor().execute("insert into anubis.subscriptions (id, integration_id) values (77, %s)", (number,))
    writer.commit()
    writer.close()
    assert f"subscription 77: its integration {number} does not exist" in ctl("verify").expect(1).stdout
    assert f"its integration {number} does not exist" in ctl("explain", "77").expect(0).stdout


def test_inserts_lock_no_integration(rules):
    """Nobody who edits an integration waits for them, and no multixact comes of them."""
    last = "select xmax::text from {s}.integrations where id = 1"
    before = rules.value(last)
    writers = [rules.database.connect(autocommit=False) for _ in range(3)]
    for writer in writers:
        writer.cursor().execute("insert into anubis.subscriptions (integration_id) values (1)")
    assert rules.value(last) == before
    rules.query("select from {s}.integrations where id = 1 for update nowait")
    for writer in writers:
        writer.commit()
        writer.close()


def runtime(app):
    return app.query("select integration_id, circuit_state, sent, failed from {s}.integration_runtime order by 1")


def test_each_integration_has_its_row_of_what_changes_often(app, make_daemon):
    """From its insert to its end, also one that never got anything."""
    app.integration("https://a.example/", enabled=False)
    app.query("insert into {s}.integrations (name) select 'Many' from generate_series(1, 3)")
    assert runtime(app) == [(number, "closed", 0, 0) for number in (1, 2, 3, 4)]
    app.query("update {s}.integrations set id = 77 where id = 2; delete from {s}.integrations where id = 3; "
              "insert into {s}.integrations (id, name) values (9223372036854775807, 'Last')")
    assert [row[0] for row in runtime(app)] == [1, 4, 77, 2**63 - 1]
    # A copy of the table alone, which no trigger sees, or a hand.
    app.query("set session_replication_role = replica; insert into {s}.integrations (id, name) values (99, 'Copied'); "
              "delete from {s}.integration_runtime where integration_id = 1")
    make_daemon().start()
    wait_for(lambda: [row[0] for row in runtime(app)] == [1, 4, 77, 99, 2**63 - 1], 60, "the rows that were missing")
