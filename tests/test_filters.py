"""Routing: a subscription without an integration goes to that of the first filter which takes it."""
import json
import os
import subprocess
import time

import psycopg2
import pytest
from harness.anubis import Ctl
from harness.application import Application
from harness.processes import wait_for
from harness.rails import adopt, rails

PUBLIC = {"database": {"schema": "public"}}


@pytest.fixture
def routed(app):
    """Three integrations, and the function that adds a filter."""
    for n in range(3):
        app.integration(f"https://institution{n + 1}.example/")
    return app


def add_filter(app, integration_id, criteria=None, **columns):
    """Its id."""
    row = {"integration_id": integration_id, **columns}
    if criteria is not None:
        row["criteria"] = json.dumps(criteria)
    return app.value(f"insert into {{s}}.integration_filters ({', '.join(row)}) values ({', '.join(['%s'] * len(row))}) "
                     "returning id", list(row.values()))


def route(app, number):
    row = app.row(number)
    return row["integration_id"], row["integration_filter_id"]


def insert(app, payload, **columns):
    return app.subscription(None, payload=payload, **columns)


def test_the_first_filter_that_matches_takes_it(routed):
    last = add_filter(routed, 3, position=9)
    add_filter(routed, 2, {"course": "law"}, position=1)
    disabled = add_filter(routed, 1, {"course": "medicine"}, position=0, enabled=False)
    first = add_filter(routed, 2, {"course": "medicine", "person": {"age": 20}}, position=2)
    add_filter(routed, 1, {"course": "medicine"}, position=2)
    site = add_filter(routed, 1, {}, position=3, origin="site")
    number = insert(routed, {"course": "medicine", "person": {"age": 20.0, "name": "Ana"}, "tags": [1]}, origin="app")
    assert route(routed, number) == (2, first)
    events = routed.events(number)
    assert [(e["event_type"], e["integration_id"], e["to_status"]) for e in events] == [("created", 2, "pending")]
    assert route(routed, insert(routed, {"course": "arts"}, origin="site")) == (1, site)
    assert route(routed, insert(routed, {"course": "arts"}, origin="Site")) == (3, last)
    assert route(routed, insert(routed, [1, 2], origin=None)) == (3, last)
    assert disabled not in [r[0] for r in routed.query("select distinct integration_filter_id from {s}.subscriptions")]


def test_the_integration_that_comes_with_it_stays(routed):
    add_filter(routed, 3)
    number = routed.subscription(1, payload={})
    assert route(routed, number) == (1, None)
    assert [e["integration_id"] for e in routed.events(number)] == [1]


def test_without_a_match_it_waits_unrouted(routed, ctl):
    add_filter(routed, 1, {"course": "law"})
    number = insert(routed, {"course": "arts"})
    assert route(routed, number) == (None, None)
    assert [(e["event_type"], e["integration_id"]) for e in routed.events(number)] == [("created", None)]
    assert ctl("status", "--json").expect(0).json["unrouted"] == 1
    assert routed.row(number)["status"] == "pending"
    routed.query("update {s}.subscriptions set integration_id = 3 where id = %s", (number,))
    assert route(routed, number) == (3, None)


def test_one_statement_with_all_kinds_of_rows(routed):
    """Each row has its event, whose integration is the row's."""
    law = add_filter(routed, 2, {"course": "law"})
    routed.query("insert into {s}.subscriptions (integration_id, payload, status, order_id) select "
                 "case when n % 3 = 0 then 1 end, jsonb_build_object('course', case when n % 2 = 0 then 'law' else 'arts' end), "
                 "case when n = 4 then 'failed' else 'pending' end, n from generate_series(1, 100) n")
    found = routed.query("select s.order_id, s.integration_id, s.integration_filter_id, e.integration_id, "
                         "count(*) over (partition by s.id) "
                         "from {s}.subscriptions s join {s}.subscription_events e on e.subscription_id = s.id order by 1")
    assert found == [(n, *((1, None, 1) if n % 3 == 0 else (2, law, 2) if n % 2 == 0 and n != 4 else (None,) * 3), 1)
                     for n in range(1, 101)]


def test_what_is_wrong_with_a_row_is_refused_all_the_same(routed):
    add_filter(routed, 2)
    for column, value in (("status", "gone"), ("attempts", -1), ("id", 0), ("integration_filter_id", 999)):
        with pytest.raises(psycopg2.Error):
            insert(routed, {}, **{column: value})
    assert routed.value("select count(*) from {s}.subscriptions") == 0
    assert routed.value("select count(*) from {s}.subscription_events") == 0


@pytest.mark.parametrize("criteria", ["[]", '"medicine"', "7", "null", json.dumps({"x": "y" * 16384})])
def test_criteria_that_cannot_be_used_are_refused(routed, criteria):
    for sql in ("insert into {s}.integration_filters (integration_id, criteria) values (1, %s)",
                "insert into {s}.integration_filters (integration_id) values (1); "
                "update {s}.integration_filters set criteria = %s"):
        with pytest.raises(psycopg2.errors.CheckViolation) as refused:
            routed.query(sql, (criteria,))
        assert refused.value.diag.message_primary.startswith("criteria of an integration filter ")
    assert routed.value("select count(*) from {s}.integration_filters") == 0


def test_a_disabled_integration_keeps_what_its_filter_takes(routed):
    """Nobody else's institution gets it meanwhile."""
    routed.query("update {s}.integrations set enabled = false where id = 1")
    first = add_filter(routed, 1, {"course": "law"})
    add_filter(routed, 2)
    assert route(routed, insert(routed, {"course": "law"})) == (1, first)


def test_a_filter_that_is_disabled_leaves_what_it_routed(routed):
    number = add_filter(routed, 1)
    subscription = insert(routed, {})
    routed.query("update {s}.integration_filters set enabled = false, criteria = '{\"a\": 1}'")
    assert route(routed, subscription) == (1, number)
    with pytest.raises(psycopg2.errors.ForeignKeyViolation):
        routed.query("delete from {s}.integration_filters")
    assert route(routed, insert(routed, {})) == (None, None)


def test_ten_thousand_rows_of_one_statement(routed):
    for n in range(20):
        add_filter(routed, 1 + n % 3, {"course": f"{n}"})
    began = time.monotonic()
    routed.query("insert into {s}.subscriptions (payload) select jsonb_build_object('course', (n % 20)::text) "
                 "from generate_series(1, 10000) n")
    assert time.monotonic() - began < 20
    assert routed.value("select count(*) from {s}.subscriptions "
                        "where integration_id = 1 + (integration_filter_id - 1) % 3") == 10000
    assert routed.value("select count(*) from {s}.subscription_events where integration_id is not null") == 10000


# --- in an application's tables ---

NULLABLE = ("alter table subscriptions alter integration_id drop not null, alter integration_filter_id drop not null; "
            "alter table subscriptions alter status type character varying(10)")


@pytest.mark.parametrize("payload", ["jsonb", "json", "text"])
def test_adopted_tables(empty_database, payload):
    rails(empty_database, json="jsonb" if payload == "text" else payload, rows=20)
    empty_database.query(NULLABLE + ("; alter table subscriptions alter payload type text" if payload == "text" else ""))
    empty_database.query("alter table integration_filters add position smallint, add origin character varying(20)")
    adopt(empty_database).expect(0)
    app = Application(empty_database, "public")
    insert_one = ("insert into subscriptions (payload, origin, created_at, updated_at) "
                  "values (%s, 'site', now(), now()) returning id")
    # The application's filters, old or new, route nothing: nobody has said by which criteria.
    app.query("insert into integration_filters (integration_id, created_at, updated_at) values (1, now(), now())")
    number = app.value(insert_one, ('{"course": "law"}',))
    assert route(app, number) == (None, None)
    app.query("update integration_filters set criteria = '{\"course\": \"law\"}', origin = 'site' where id = 4")
    number = app.value(insert_one, ('{"course": "law", "n": 9007199254740993.10}',))
    assert route(app, number) == (4, 4)
    assert [e["integration_id"] for e in app.events(number)] == [4]
    if payload == "text":
        assert route(app, app.value(insert_one, ("no JSON at all",))) == (None, None)
    Ctl(PUBLIC, database=empty_database)("verify").expect(2)


# --- later ---


def unrouted(app):
    return app.value("select count(*) from {s}.subscriptions where integration_id is null")


def test_a_filter_that_is_inserted_later_routes_what_waits(app, institutions, make_daemon):
    """Also while no daemon runs, by the next one; and the application writes meanwhile."""
    app.integration(institutions.url("/good"))
    number = insert(app, {"course": "law"}, scheduled_to="2100-01-01")
    first = add_filter(app, 1, {"course": "law"})
    insert(app, {"course": "arts"})
    daemon = make_daemon().start()
    wait_for(lambda: route(app, number) == (1, first), 20, "the first one to be routed")
    add_filter(app, 1, {"course": "arts"}, enabled=False)
    insert(app, {"course": "arts"})
    assert unrouted(app) == 2
    app.query("update {s}.integration_filters set enabled = true")
    app.wait_states(sent=2, pending=1)
    daemon.wait_log("routed 2 subscriptions")
    # What no change of a filter tells.
    app.query("update {s}.subscriptions set integration_id = null where id = %s", (number,))
    wait_for(lambda: route(app, number) == (1, first), 30, "it to be routed once more")


def test_many_are_routed_soon(app, make_daemon):
    """While the application writes, and with one row that its trigger refuses to change, and one that it has locked."""
    app.integration("https://institution.example/", paused_until="infinity")
    app.query("insert into {s}.subscriptions (payload) select jsonb_build_object('course', 'law', 'n', n) "
              "from generate_series(1, 20000) n")
    app.query("create function {s}.f() returns trigger language plpgsql as $$ begin raise 'not this one'; end $$; "
              "create trigger mine before update on {s}.subscriptions for each row when (new.id = 500) execute function {s}.f()")
    daemon = make_daemon().start()
    wait_for(lambda: app.value("select count(*) from pg_stat_activity where application_name = 'anubisd monitor'"), 20,
             "the monitor")
    held = app.database.connect()
    held.autocommit = False
    held.cursor().execute("select from anubis.subscriptions where id = 700 for update")
    began = time.monotonic()
    add_filter(app, 1, {"course": "law"})
    slowest = 0
    def look():
        nonlocal slowest
        before = time.monotonic()
        insert(app, {"course": "law"})
        app.query("update {s}.subscriptions set order_id = 1 where id = 19999")
        slowest = max(slowest, time.monotonic() - before)
        return unrouted(app) <= 2
    wait_for(look, 120, lambda: f"all to be routed, {unrouted(app)} are not", interval=0.05)
    print(f"routed in {time.monotonic() - began:.1f} s; the application waited {slowest:.2f} s at most")
    assert slowest < 10
    held.rollback()
    wait_for(lambda: unrouted(app) == 1, 60, "the locked one to be routed")
    held.close()
    assert route(app, 500) == (None, None)
    daemon.wait_log("subscription 500, but a rule or a trigger of the application refuses")
    assert "not this one" not in daemon.log


# --- what an operator sees ---


def test_explain_names_the_filter_or_the_reasons(routed, ctl):
    law = add_filter(routed, 2, {"course": "law"}, name="direito")
    number = insert(routed, {"course": "law", "name": "Ana"}, origin="site")
    assert ctl("explain", number, "--json").expect(0).json["integration_filter_id"] == law
    routed.query("update {s}.integration_filters set position = 1")
    add_filter(routed, 1, {"person": {"age": 20}, "campus": 3}, position=2)
    add_filter(routed, 1, {"person": {"age": 20}}, position=3)
    add_filter(routed, 1, origin="app", position=4)
    add_filter(routed, 1, enabled=False, position=5)
    number = insert(routed, {"course": "Ana Secreta", "person": {"age": 21}, "campus": 3}, origin="site")
    result = ctl("explain", number, "--json").expect(0)
    assert result.json["integration_filter_id"] is None
    assert result.json["reasons"][1:] == [
        'filter 1 "direito": it wants "course" to be "law", and the payload has something else there',
        'filter 2: it wants "person.age" to be 20, and the payload has something else there',
        'filter 3: it wants "person.age" to be 20, and the payload has something else there',
        'filter 4: it takes the origin "app" only', "filter 5: it is disabled"]
    assert "Ana Secreta" not in result.stdout + ctl("explain", number).expect(0).stdout


def test_filters_can_be_tested(routed, ctl, tmp_path):
    add_filter(routed, 1, {"course": "law"}, position=1)
    second = add_filter(routed, 2, {"course": "arts", "n": {"a": 1}}, position=2, name="artes")
    add_filter(routed, 3, position=3)
    file = tmp_path / "payload.json"
    file.write_text('{"course": "arts", "n": {"a": 1, "b": 2}}')
    file.chmod(0o644)
    tested = ctl("filters", "test", "--payload", file, "--json").expect(0).json
    assert (tested["filter_id"], tested["integration_id"]) == (second, 2)
    assert [(f["takes"], f["reason"]) for f in tested["filters"]] == [
        (False, 'it wants "course" to be "law", and the payload has something else there'), (True, "it takes it"),
        (False, "it would take it, but comes later")]
    # It says what an insert does.
    assert route(routed, insert(routed, json.loads(file.read_text()))) == (2, second)
    assert "artes" in ctl("filters", "test", "--payload", file).expect(0).stdout
    routed.query("update {s}.integration_filters set origin = 'app'")
    assert ctl("filters", "test", "--payload", file, "--origin", "app", "--json").expect(0).json["filter_id"] == second
    none = ctl("filters", "test", "--payload", file, "--origin", "site").expect(1)
    assert "No filter takes it" in none.stdout
    for arguments, code in ((["test"], 64), (["try", "--payload", file], 64), (["test", "--payload", "/nowhere"], 66)):
        ctl("filters", *arguments).expect(code)
    file.write_text("{broken")
    ctl("filters", "test", "--payload", file).expect(65)


def test_a_role_that_owns_nothing_routes(routed):
    number = insert(routed, {"course": "law"})
    law = add_filter(routed, 2, {"course": "law"})
    routed.query("create role router; select {s}.anubisd_grant('router')")
    try:
        assert routed.query("set role router; select routed, left_out from {s}.subscriptions_route(%s)", ([number],)) == [(1, 0)]
        assert route(routed, number) == (2, law)
    finally:
        routed.query("drop owned by router; drop role router")


@pytest.mark.parametrize("way", ["cascade", "rename"])
def test_filters_that_were_restored_alone(app, institutions, make_daemon, ctl, tmp_path, way):
    """pg_restore -t brings back neither key nor what gives ids, which is named; and no filter gets the id of one that is gone."""
    server = app.database.server
    integration = app.integration(institutions.url("/good/alone"))

    def insert(kind):
        app.query("insert into {s}.subscriptions (payload) select %s from generate_series(1, 3)", (f'{{"{kind}": 1}}',))

    def add_filter(kind):
        return app.value("insert into {s}.integration_filters (integration_id, name, criteria) values (%s, %s, %s) "
                         "returning id", (integration, kind, f'{{"{kind}": 1}}'))
    daemon = make_daemon().start()
    add_filter("a")
    subprocess.run([os.path.join(server.bin, "pg_dump"), "-Fc", "-f", tmp_path / "dump", app.database.conninfo()], check=True)
    late = add_filter("b")
    insert("b")
    app.wait_states(sent=3)
    app.query("drop table {s}.integration_filters cascade" if way == "cascade"
              else "alter table {s}.integration_filters rename to filters_before")
    subprocess.run([os.path.join(server.bin, "pg_restore"), "-n", "anubis", "-t", "integration_filters", "-d",
                    app.database.conninfo(), tmp_path / "dump"], check=True)
    said = daemon.wait_log('table "integration_filters" has no unique index on "id", as after a restore of this table alone; '
                           'run "(.*?)"')
    insert("a")
    insert("b")
    app.query(said[1])
    daemon.wait_log('trigger anubis_filter_check on integration_filters .missing.; run "anubisctl migrate"', 60)
    ctl("migrate").expect(0)
    app.wait_states(sent=6, pending=3)
    assert add_filter("b") > late
    app.wait_states(sent=9)
    ctl("verify", "--wait").expect(0)
    assert [k.received for k in institutions.keys("/good/alone").values()] == [1] * 9 and daemon.term() == 0
