"""Confirmations: what institutions say later of what they took, in any order and number."""
import contextlib
import csv
import io
import json
import random
import re
import threading
import time

import psycopg2
import pytest
from harness.anubis import Ctl, merged
from harness.processes import wait_for
from harness.set_back import World
from test_statements import STATEMENTS

TOPIC = "anubis.confirmations"
FAST = {"delivery": {"timeout": "300ms"}, "log_level": "debug"}
HOLD = {"on_ambiguous": "hold"}


def said(subscription, status="confirmed", **more):
    return (str(subscription), json.dumps({"subscription_id": subscription, "status": status, **more}))


def confirmations(app):
    """{subscription: (status, external id, contradictions)}"""
    return {i: tuple(rest) for i, *rest in app.query(
        "select subscription_id, status, external_id, contradictions from {s}.confirmations")}


def wait_confirmations(app, wanted, deadline=60):
    wait_for(lambda: confirmations(app) == wanted, deadline, lambda: f"{wanted}, now {confirmations(app)}", interval=0.05)


def hold_some(app, institutions, count, **settings):
    """Ids of subscriptions that are held: nobody answered."""
    integration = app.integration(institutions.url("/silent"), name="Silent", delivery_settings={**HOLD, **settings})
    ids = app.subscriptions(integration, count)
    wait_for(lambda: app.value("select count(*) from {s}.subscriptions where held_at is not null") == count, 60,
             "them to be held")
    return ids


# --- from the topic to the subscription ---


def test_a_word_of_the_institution_settles_what_is_held(app, institutions, broker, make_daemon, ctl):
    daemon = make_daemon(FAST).start()
    has, has_not, quiet, early = hold_some(app, institutions, 4)
    broker.produce(TOPIC, [said(has, external_id="E-1", confirmed_at="2026-11-27T00:30:00.5-03:00"), said(has_not, "rejected"),
                           said(has_not, "confirmed")])
    app.wait_states(sent=1, failed=1, retry=2)
    wait_confirmations(app, {has: ("confirmed", "E-1", 0), has_not: ("rejected", None, 1)})
    assert app.value("select confirmed_at = '2026-11-27 03:30:00.5Z' and received_at > now() - interval '5 min' "
                     "from {s}.confirmations where external_id is not null")
    event = app.events(has)[-1]
    assert (event["event_type"], event["decided_by"]) == ("sent", "confirmation: the institution has it"), event
    assert app.row(has)["sent_at"]
    event = app.events(has_not)[-1]
    assert (event["event_type"], event["error_message"]) == ("failed", "confirmation: the institution has rejected it"), event
    # The word may come before the subscription is held, or while somebody has it locked.
    app.query("insert into {s}.confirmations (subscription_id, status, received_at) values (%s, 'confirmed', now())", (early,))
    daemon.wait_log("1 held subscription was settled by what institutions had said before")
    app.wait_states(sent=2, failed=1, retry=1)
    assert app.row(quiet)["held_at"]
    ctl("verify", "--wait").expect(0)


def test_a_word_on_a_subscription_that_a_restore_forgot(own_postgres, broker, institutions):
    """It is read again, and is not about the new one that has the same id."""
    world = World(own_postgres(), broker, institutions)
    world.settings = merged(world.settings, FAST, {"consumers": {"external": True}})
    with world.daemon() as daemon:
        world.send(20, 20)
        saved = world.server.save()
        lost = hold_some(world.app, institutions, 5)
        # As if the restore took an hour.
        hour_ago = int((time.time() - 3600) * 1000)
        broker.produce(TOPIC, [{"key": key, "value": value, "timestamp": hour_ago}
                               for key, value in (said(n, external_id=f"of the lost {n}") for n in lost)])
        world.app.query("update {s}.subscriptions set created_at = now() - interval '61 min' where id = any (%s)", (lost,))
        world.wait(25)
        assert daemon.term() == 0
        world.server.set_back(saved)
        silent = world.app.integration(institutions.url("/silent"), delivery_settings=HOLD)
        ids = world.app.subscriptions(silent, 5)
        assert ids == lost
        daemon.start()
        wait_for(lambda: world.app.value("select count(*) from {s}.subscriptions where held_at is not null") == 5, 60, "holds")
        wait_for(lambda: world.app.query("select error from {s}.dead_letters") ==
                 [("it was written before this subscription was made: it is about one of the same id that is gone, "
                   "as after a restore",)] * 5, 60, "the letters")
        # Whatever the words say, and in whatever language.
        world.app.query("insert into {s}.dead_letters (consumer_group, read_model, topic, partition, \"offset\", error) "
                        "select 'x', 'external', topic, 7, 7, error from {s}.dead_letters limit 1")
        world.app.query("update {s}.dead_letters set error = 'x' where discard_only")
        ctl = Ctl(database=world.app.database)
        assert ctl("dead-letters", "replay", "6", "--json").expect(1).json["failed"] == 1
        assert ctl("dead-letters", "show", "1", "--json").expect(0).json["discard_only"] is True
        assert "discard_only" not in ctl("dead-letters", "show", "6", "--json").expect(0).json
        ctl("dead-letters", "discard", "6", "--reason", "a test").expect(0)
        assert ctl("dead-letters", "replay", "--all", "--json").expect(0).json["handled"] == 0
        assert "it can only be discarded" in ctl("dead-letters", "replay", "1").expect(1).stderr
        assert world.app.states() == {"sent": 20, "retry": 5} and confirmations(world.app) == {}
        broker.produce(TOPIC, [said(ids[0], external_id="A")])
        wait_confirmations(world.app, {ids[0]: ("confirmed", "A", 0)})
        assert daemon.term() == 0


@pytest.mark.parametrize("code", ["P0001", "23514"])
def test_a_rule_of_the_application_keeps_no_word_back(app, institutions, broker, make_daemon, ctl, code):
    """What it refuses is named and stays held, and its word is kept; all others are taken, and settled."""
    daemon = make_daemon(FAST).start()
    ids = hold_some(app, institutions, 3)
    app.query("create function {s}.rule() returns trigger language plpgsql as $$ begin "
              "if new.status = 'sent' and new.id = %s then raise exception 'no' using errcode = %s; end if; return new; end $$; "
              "create trigger rule before update on {s}.subscriptions for each row execute function {s}.rule()", (ids[0], code))
    broker.produce(TOPIC, [said(i, external_id=f"E-{i}") for i in ids])
    app.wait_states(sent=2, retry=1)
    wait_confirmations(app, {i: ("confirmed", f"E-{i}", 0) for i in ids})
    daemon.wait_log(f"what became of subscription {ids[0]}, which is held, but a rule or a trigger of the application "
                    f"refuses the change .SQLSTATE {code}.; trying again")
    broker.produce(TOPIC, [said(ids[1], external_id="other")])
    wait_for(lambda: confirmations(app)[ids[1]][2] == 1, 60, "a later word")
    app.query("drop trigger rule on {s}.subscriptions")
    app.wait_states(sent=3)
    assert not app.query("select from {s}.dead_letters")
    ctl("verify", "--wait").expect(0)


def test_messages_that_say_nothing_are_put_aside(app, broker, make_daemon):
    integration = app.integration("https://x.example/", enabled=False)
    ids = app.subscriptions(integration, 3)
    bad = [(b"1", b"{", "the value is not JSON"), (b"1", None, "the value is empty"),
           (b"1", b" " * 70000, "the value is longer than 65536 bytes"),
           (b"9", said(ids[0])[1].encode(), "the key is not the subscription's id"),
           (None, said(ids[0])[1].encode(), "the key is not the subscription's id"),
           *((str(n).encode(), said(n)[1].encode(), "the subscription does not exist") for n in (10 ** 9, 2 ** 63 - 1)),
           (str(ids[0]).encode(), b'{"subscription_id": %d, "status": "lost"}' % ids[0],
            '"status" is neither "confirmed" nor "rejected"')]
    daemon = make_daemon({"log_level": "debug"}).start()
    for n in range(2):
        broker.produce(TOPIC, [said(ids[n]), *((key, value) for key, value, _ in bad)])
        wait_confirmations(app, {i: ("confirmed", None, 0) for i in ids[:n + 1]})
    broker.produce(TOPIC, [said(ids[2])])
    wait_confirmations(app, {i: ("confirmed", None, 0) for i in ids})
    letters = app.query("select key, value, error from {s}.dead_letters where read_model = 'external' order by \"offset\"")
    assert [(k and bytes(k), v and bytes(v), e) for k, v, e in letters] == 2 * bad
    assert daemon.log.count("cannot handle the message") == 2 * len(bad)


@pytest.mark.parametrize("together", [True, False], ids=["in one batch", "one by one"])
def test_an_id_may_come_with_a_later_word(app, broker, make_daemon, together):
    """In any order it is the first one that there is, and others contradict it; one with another state tells none."""
    integration = app.integration("https://x.example/", enabled=False)
    ids = app.subscriptions(integration, 3)
    make_daemon(FAST).start()
    one, two, three = ids
    words = [[said(one), said(one, external_id="A"), said(one), said(one, external_id="B"), said(one, external_id="A")],
             [said(two, external_id="A"), said(two), said(two, external_id="B")],
             [said(three), said(three, "rejected", external_id="C"), said(three, external_id="A"), said(three, external_id="C")]]
    wanted = {ids[0]: ("confirmed", "A", 1), ids[1]: ("confirmed", "A", 1), ids[2]: ("confirmed", "A", 2)}
    if together:
        broker.produce(TOPIC, sum(words, []))
    for n in range(0 if together else 5):
        broker.produce(TOPIC, [of[n] for of in words if n < len(of)])
        count = broker.count(TOPIC)
        read = "select max(next_offset) = %s from {s}.consumer_offsets where topic = %s"
        wait_for(lambda c=count: app.value(read, (c, TOPIC)), 60, "it to be read")
    wait_confirmations(app, wanted)


@pytest.mark.real_kafka
def test_a_word_before_its_time(app, institutions, real_kafka, topic_prefix, make_daemon, ctl):
    """A rejection is about what was sent before it, not about a later attempt; that the institution has it stays true. Who is to
    confirm is settled by the event "sent"."""
    topic = topic_prefix + "confirmations"
    ctl.write(kafka={"brokers": real_kafka.bootstrap})
    make_daemon({**FAST, "kafka": {"topic_prefix": topic_prefix}, "consumers": {"group_prefix": topic_prefix[:-1]}},
                kafka=real_kafka).start()
    bad = app.integration(institutions.url("/reject/422"), delivery_settings=HOLD)
    away, later = (app.integration(institutions.url("/good"), enabled=enabled,
                                   delivery_settings={"confirmation": {"within": "1h"}}) for enabled in (False, True))
    plain = app.integration(institutions.url("/good"))
    rejected, confirmed, quiet = app.subscriptions(bad, 3)
    moved = {app.subscription(away): later, app.subscription(None): later, app.subscription(away): plain}
    app.wait_states(failed=3, pending=3)
    wait_for(lambda: topic in real_kafka.topics(), 60, "the topic")
    real_kafka.produce(topic, [said(rejected, "rejected"), said(confirmed), *map(said, moved)])
    wanted = {rejected: ("rejected", None, 0), **{i: ("confirmed", None, 0) for i in (confirmed, *moved)}}
    wait_confirmations(app, wanted)
    app.query("update {s}.integrations set endpoint_url = %s where id = %s", (institutions.url("/silent"), bad))
    held = "select array_agg(id order by id) from {s}.subscriptions where held_at is not null"
    ctl("retry", "--ids", f"{rejected},{quiet}").expect(0)
    wait_for(lambda: app.value(held) == [rejected, quiet], 60, "them to be held")
    ctl("retry", "--ids", str(confirmed)).expect(0)
    app.wait_states(sent=1, retry=2)  # whoever settled it has looked at the others
    assert app.value(held) == [rejected, quiet]
    real_kafka.produce(topic, [said(quiet, "rejected")])
    app.wait_states(sent=1, failed=1, retry=1)
    assert app.value(held) == [rejected]
    for number, integration in moved.items():
        app.query("update {s}.subscriptions set integration_id = %s where id = %s", (integration, number))
    app.wait_states(sent=4)
    wait_for(lambda: app.value("select count(expected_by) from {s}.confirmations") == 2, 60, "two to be expected")
    found = ctl("report", "--reconciliation", "--json").expect(0).json["integrations"]
    assert {i["integration_id"]: i["confirmed"] for i in found} == {bad: 1, later: 2, plain: 1}
    ctl("verify", "--wait").expect(0)


@pytest.mark.slow
@pytest.mark.real_kafka
@pytest.mark.timeout(600)
def test_what_was_said_in_a_log_of_which_a_broker_lost_most(app, real_kafka, topic_prefix, make_daemon):
    """While none read it, and it has outgrown where the group stood: where what is read again begins with new words, more is."""
    topic, group = topic_prefix + "confirmations", topic_prefix[:-1]
    integration = app.integration("https://x.example/", enabled=False)
    app.query("insert into {s}.subscriptions (integration_id) select %s from generate_series(1, 44000)", (integration,))
    received = "select count(*) from {s}.confirmations where received_at is not null"
    settings = {"group_prefix": group, "integration": False, "monitoring": False}
    daemon = make_daemon({"kafka": {"topic_prefix": topic_prefix}, "consumers": settings}, kafka=real_kafka).start()
    wait_for(lambda: topic in real_kafka.topics(), 60, "the topic")
    for first in range(1, 22000, 1000):  # batches of the log, of which some stay
        real_kafka.produce(topic, map(said, range(first, first + 1000)))
    group += "-external-group"
    wait_for(lambda: app.value(received) == 22000 and real_kafka.group_offsets(group, [topic]) == {(topic, 0): 22000}, 90,
             "all to be read")
    assert daemon.term() == 0
    real_kafka.kill9()
    real_kafka.lose_tail(topic, 0.03)  # the first batch stays
    real_kafka.start()
    assert real_kafka.count(topic) < 2000
    for first in range(22001, 44000, 1000):
        real_kafka.produce(topic, map(said, range(first, first + 1000)))
    daemon.start()
    daemon.wait_log(r"was read up to offset 22000, but has new messages from offset \d\d?\d? on|from offset 1000 on", 90)
    wait_for(lambda: app.value(received) == 44000, 60, lambda: f"all to be received, now {app.value(received)}")
    assert daemon.term() == 0


# --- what is expected ---


def test_what_the_setting_may_say(app):
    number = app.integration("https://x.example/")
    change = "update {s}.integrations set delivery_settings = %s where id = %s"
    for value in ({}, "2d", None, [], {"within": "2 days"}, {"within": 2}, {"within": "0d"}, {"within": "-1d"}, {"within": ""},
                  {"within": "3651d"}, {"within": "99999999999999999999d"}, {"within": None}, {"within": "2d", "by": "mail"}):
        with pytest.raises(psycopg2.errors.CheckViolation, match="delivery_settings.confirmation is an object such as"):
            app.query(change, (json.dumps({"confirmation": value}), number))
    for within in ("2d", "3650d", "1us", "24h", "00090m"):
        app.query(change, (json.dumps({"confirmation": {"within": within}}), number))
        app.subscription(number)  # nobody can tell apart what was set with no event between
    app.query(change, ("{}", number))
    assert [n for (n,) in app.query("select within_usec from {s}.confirmation_terms order by after_id")] == [
        172800000000, 315360000000000, 1, 86400000000, 5400000000, None]


def test_what_was_set_while_a_clock_was_ahead_holds_from_then_on(app, institutions, make_daemon, ctl):
    """Until it is changed after the clock was set back."""
    integration = app.integration(institutions.url("/good"), delivery_settings={"confirmation": {"within": "1h"}})
    app.query("update {s}.confirmation_terms set since = since + interval '1 hour'")
    make_daemon(FAST).start()
    wait_for(lambda: app.value("select bool_and(known_id is not null) from {s}.confirmation_terms"), 30, "the terms to be known")
    first, second = app.subscriptions(integration, 2)
    app.wait_states(sent=2)
    wait_confirmations(app, {first: ("expected", None, 0), second: ("expected", None, 0)})
    app.query("update {s}.confirmations set expected_by = now() where subscription_id = %s", (first,))
    firing = "select count(*) from {s}.alerts where kind = 'unconfirmed' and state = 'firing'"
    wait_for(lambda: app.value(firing) == 1, 60, "the alert")
    app.query("update {s}.integrations set delivery_settings = '{}'")
    wait_for(lambda: app.value(firing) == 0, 60, "its end")
    app.subscription(integration)
    app.wait_states(sent=3)
    app.query("update {s}.confirmations c set expected_by = e.created_at + interval '1 hour' from {s}.subscription_events e "
              "where e.subscription_id = c.subscription_id and e.event_type = 'sent'")
    ctl("verify", "--wait").expect(0)
    assert len(confirmations(app)) == 2


def test_a_subscription_is_expected_then_overdue_and_confirmed_late(app, institutions, broker, make_daemon, ctl):
    integration = app.integration(institutions.url("/good"), delivery_settings={"confirmation": {"within": "1h"}})
    other = app.integration(institutions.url("/good"))
    make_daemon(FAST).start()
    known = "select bool_and(known_id is not null) from {s}.confirmation_terms"
    wait_for(lambda: app.value(known), 30, "the terms to be known")
    first, second = app.subscriptions(integration, 2)
    app.subscription(other)
    app.wait_states(sent=3)
    wait_confirmations(app, {first: ("expected", None, 0), second: ("expected", None, 0)})
    assert app.value("select bool_and(c.expected_by = e.created_at + interval '1 hour') from {s}.confirmations c join "
                     "{s}.subscription_events e on e.subscription_id = c.subscription_id and e.event_type = 'sent'")
    app.query("update {s}.confirmations set expected_by = expected_by - interval '1 hour'")
    wait_confirmations(app, {first: ("overdue", None, 0), second: ("overdue", None, 0)})
    wait_for(lambda: app.query("select kind, integration_id, value, message from {s}.alerts") == [
        ("unconfirmed", integration, 2, "2 subscriptions that were sent were not confirmed in time")], 60, "the alert")
    app.query("update {s}.confirmations set expected_by = expected_by + interval '1 hour'")
    broker.produce(TOPIC, [said(first), said(second, "rejected")])
    wait_confirmations(app, {first: ("confirmed", None, 0), second: ("rejected", None, 0)})
    wait_for(lambda: app.query("select kind, state from {s}.alerts") == [("unconfirmed", "resolved")], 60, "its end")
    # What is no longer expected, and what was sent before it was.
    app.query("update {s}.integrations set delivery_settings = '{}' where id = %s", (integration,))
    app.query("update {s}.integrations set delivery_settings = %s where id = %s",
              (json.dumps({"confirmation": {"within": "1ms"}}), other))
    wait_for(lambda: app.value(known), 30, "the terms to be known")
    app.subscription(integration)
    third = app.subscription(other)
    wanted = {first: ("confirmed", None, 0), second: ("rejected", None, 0), third: ("overdue", None, 0)}
    wait_confirmations(app, wanted)
    wait_for(lambda: app.query("select message from {s}.alerts where integration_id = %s", (other,)) == [
        ("1 subscription that was sent was not confirmed in time",)], 60, "the alert of one")
    ctl("verify", "--wait").expect(0)
    check_report(ctl, {integration: (0, 0, 1, 1, 0, 1, 0), other: (0, 1, 0, 0, 0, 0, 0)},
                 [(second, "sent", "rejected"), (third, "sent", "overdue")])
    story = ctl("explain", str(third), "--json").expect(0).json
    assert (story["confirmation"], story["external_id"]) == ("overdue", None) and story["expected_by"]
    assert "confirmation" not in ctl("explain", str(app.subscription(integration))).expect(0).stdout
    # Somebody writes there: the proof says so, and the ledger knows better.
    app.wait_states(sent=6)
    waiting = app.subscription(app.integration("https://x.example/", enabled=False))
    app.query("delete from {s}.confirmations where subscription_id = %s", (third,))
    app.query("update {s}.confirmations set integration_id = %s where subscription_id = %s", (other, first))
    app.query("insert into {s}.confirmations (subscription_id, expected_by) values (%s, now() + interval '1 day')", (waiting,))
    said_wrong = ctl("verify", "--wait").expect(1).stdout
    for words in (f"confirmations: subscription {third}: it is to be confirmed, and is not in the table", "--group external",
                  f"confirmations: subscription {first}: it is to be confirmed by another integration than the table says",
                  f"confirmations: subscription {waiting}: the table expects its confirmation, though it is not sent"):
        assert words in said_wrong, said_wrong
    assert ctl("replay", "--group", "external", "--from-ledger", "--json").expect(0).json == {"confirmations": 3}
    wait_confirmations(app, wanted)
    assert app.value("select integration_id from {s}.confirmations where subscription_id = %s", (first,)) == integration
    ctl("verify", "--wait").expect(0)


def test_those_that_wait_cost_nothing(app):
    """However many are expected: who looks for late ones reads the few pages that lead to them."""
    integration = app.integration("https://x.example/", delivery_settings={"confirmation": {"within": "2d"}})
    app.query("insert into {s}.confirmations (subscription_id, integration_id, expected_by) "
              "select n, %s, now() + interval '1 day' + n * interval '1 s' from generate_series(1, 100000) n", (integration,))
    app.query("vacuum analyze {s}.confirmations")

    def pages(name, *arguments):
        for _ in range(2):  # the first one looks into the catalogs
            cursor.execute(f"explain (analyze, buffers, format json) execute {name} {arguments}".replace(",)", ")"))
            plan = cursor.fetchone()[0][0]["Plan"]
        return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], plan
    with contextlib.closing(app.database.connect()) as session:
        cursor = session.cursor()
        cursor.execute("set search_path = anubis; set jit = off; set plan_cache_mode = force_generic_plan")
        for name, types in (("confirmations_overdue", "bigint"), ("confirmations_sweep", "bigint, bigint"),
                            ("alerts_look", "bigint, bigint, integer, bigint, text")):
            cursor.execute(f"prepare {name} ({types}) as {STATEMENTS[name]}")
        for name, arguments, most in (("confirmations_overdue", (1000,), 20), ("confirmations_sweep", (1000, 0), 20),
                                      ("alerts_look", (10 ** 9, 1, 5, 1, "x"), 200)):
            found = pages(name, *arguments)
            assert found[0] < most, (name, found)
        cursor.execute("update confirmations set expected_by = now() where subscription_id = 99999")
        cursor.execute("execute confirmations_overdue (1000)")
        cursor.execute("select subscription_id from confirmations where status = 'overdue'")
        assert cursor.fetchall() == [(99999,)]


def test_a_contradiction_is_shown(app, institutions, broker, make_daemon, ctl):
    """By the report, of all integrations and of one, and by the story of the subscription."""
    contradicted, other = (app.integration(institutions.url("/good"), name=name) for name in ("Uni Aurora", "Uni Boreal"))
    make_daemon(FAST).start()
    first, second, third = *app.subscriptions(contradicted, 2), app.subscription(other)
    app.wait_states(sent=3)
    broker.produce(TOPIC, [said(first, external_id="A"), said(first, "rejected"), said(first, external_id="B"), said(second),
                           said(third)])
    wait_confirmations(app, {first: ("confirmed", "A", 2), second: ("confirmed", None, 0), third: ("confirmed", None, 0)})
    for chosen in ((), ("--integration", str(contradicted))):
        found = ctl("report", "--reconciliation", *chosen, "--json").expect(0).json
        assert [(c["subscription_id"], c["integration_id"], c["status"], c["confirmation"], c["contradictions"])
                for c in found["cases"]] == [(first, contradicted, "sent", "confirmed", 2)]
        assert {i["name"]: i["contradicted"] for i in found["integrations"]} == {
            "Uni Aurora": 1, **({} if chosen else {"Uni Boreal": 0})} and found["total"][0]["contradicted"] == 1
        shown = ctl("report", "--reconciliation", *chosen).expect(0).stdout
        assert re.search(rf"(?m)^ *{first} .*confirmed .* 2$", shown) and "Uni Aurora" in shown, shown
    assert ctl("report", "--reconciliation", "--integration", str(other), "--json").expect(0).json["cases"] == []
    story = ctl("explain", str(first), "--json").expect(0).json
    assert (story["confirmation"], story["external_id"], story["contradictions"]) == ("confirmed", "A", 2)
    assert re.search(r"(?m)^contradictions:? +2$", ctl("explain", str(first)).expect(0).stdout)
    assert "contradictions" not in ctl("explain", str(second)).expect(0).stdout


def test_a_report_of_one_integration(app, institutions, make_daemon, ctl):
    """By its id, with its name, in each form; a name is no id, and that is said."""
    counts = {"Uni Aurora": 3, "Uni Boreal": 2}
    ids = {name: app.integration(institutions.url("/good"), name=name) for name in counts}
    make_daemon(FAST).start()
    for name, count in counts.items():
        app.subscriptions(ids[name], count)
    app.wait_states(sent=5)
    ctl("verify", "--wait").expect(0)
    assert {(i["integration_id"], i["name"], i["sent"]) for i in ctl("report", "--json").expect(0).json["integrations"]} == {
        (ids[name], name, count) for name, count in counts.items()}
    for name, count in counts.items():
        found = ctl("report", "--integration", str(ids[name]), "--json").expect(0).json
        assert [(i["integration_id"], i["name"], i["sent"]) for i in found["integrations"]] == [(ids[name], name, count)]
        assert found["total"][0]["sent"] == count
        text = ctl("report", "--integration", str(ids[name]), "--format", "csv").expect(0).stdout
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [(r["integration_id"], r["name"], r["sent"]) for r in rows] == [(str(ids[name]), name, str(count))]
        shown = ctl("report", "--integration", str(ids[name])).expect(0).stdout
        assert name in shown and not any(other in shown for other in counts if other != name)
        assert "--integration" in ctl("report", "--integration", name).expect(64).stderr


def test_replays_beside_what_comes_in(app, institutions, broker, make_daemon, ctl):
    """From the ledger, again and again, while subscriptions are sent, expected and confirmed: nothing is lost, or comes twice."""
    integration = app.integration(institutions.url("/good"), delivery_settings={"confirmation": {"within": "1d"}})
    make_daemon(FAST).start()
    enough, replays = threading.Event(), []

    def replay():
        while not enough.is_set():
            replays.append(ctl("replay", "--group", "external", "--from-ledger", "--json"))
    ids, messages = [], []
    others = [threading.Thread(target=replay) for _ in range(2)]
    for thread in others:
        thread.start()
    try:
        for turn in range(15):
            ids += app.subscriptions(integration, 30)
            batch = [(i, ("confirmed", "rejected")[(i + turn) % 5 == 0], None) for i in ids[turn % 2::3]]
            messages += batch
            broker.produce(TOPIC, [said(i, status) for i, status, _ in batch])
            count = broker.count(TOPIC)
            read = "select max(next_offset) from {s}.consumer_offsets where topic = %s"
            wait_for(lambda c=count: app.value(read, (TOPIC,)) == c, 60, "it to be read")
        app.wait_states(sent=len(ids))
        wait_for(lambda n=len(replays): len(replays) > n + 4, 60, "further replays")
    finally:
        enough.set()
        for thread in others:
            thread.join()
    assert len(replays) > 10 and all(r.code == 0 for r in replays), [r.stderr for r in replays if r.code]
    wait_confirmations(app, model(set(ids), ids, messages))
    ctl("verify", "--wait").expect(0)
    assert ctl("replay", "--group", "external", "--from-ledger", "--json").expect(0).json == {"confirmations": 0}


def check_report(ctl, counts, cases):
    """Counts by integration, and the subscriptions that a person has to look at; in each form."""
    found = ctl("report", "--reconciliation", "--json").expect(0).json
    columns = ("expected", "overdue", "confirmed", "rejected", "not_sent", "sent_but_rejected", "contradicted")
    assert {i["integration_id"]: tuple(i[c] for c in columns) for i in found["integrations"]} == counts
    assert tuple(found["total"][0][c] for c in columns) == tuple(map(sum, zip(*counts.values())))
    assert [(c["subscription_id"], c["status"], c["confirmation"]) for c in found["cases"]] == cases
    lines = ctl("report", "--reconciliation", "--format", "csv").expect(0).stdout.splitlines()
    assert lines[0] == ",".join(("integration_id", "name", *columns)) and len(lines) == 1 + len(counts)
    one = next(iter(counts))
    found = ctl("report", "--reconciliation", "--integration", str(one), "--since", "1h", "--json").expect(0).json
    assert [i["integration_id"] for i in found["integrations"]] == [one]
    found = ctl("report", "--reconciliation", "--until", "1h", "--json").expect(0).json
    assert found["integrations"] == found["cases"] == []
    assert "To be looked at" in ctl("report", "--reconciliation").expect(0).stdout


def model(subscriptions, sent, messages):
    """The table that must come of it, in whatever order both streams were read."""
    rows = {i: ["expected", None, set()] for i in sent}
    for i, status, external_id in messages:
        if i not in subscriptions:
            continue
        row = rows.setdefault(i, ["expected", None, set()])
        if row[0] == "expected":
            row[:2] = status, external_id
        elif status == row[0] and not row[1]:
            row[1] = external_id
        elif status != row[0] or (row[1] and external_id and external_id != row[1]):
            row[2].add((status, external_id))
    return {i: (status, external_id, len(against)) for i, (status, external_id, against) in rows.items()}


def test_the_order_and_number_of_messages_does_not_matter(app, institutions, broker, make_daemon, ctl):
    """Only the order of those on one subscription does. Daemons are killed meanwhile, and all is read again."""
    pick = random.Random(12)
    integration = app.integration(institutions.url("/good"), delivery_settings={"confirmation": {"within": "1d"}})
    consumers = {"session_timeout": "6s", "heartbeat_interval": "500ms", "threads": 2}
    daemons = [make_daemon({**FAST, "consumers": consumers}, name=f"d{n}").start() for n in range(2)]
    ids, messages = [], []
    for turn in range(6):
        ids += app.subscriptions(integration, 40)
        batch = [(i, pick.choice(("confirmed", "confirmed", "rejected")), pick.choice((None, "A", "B", "C")))
                 for i in pick.choices([*ids, 10 ** 9], k=120)]
        messages += batch
        broker.produce(TOPIC, [said(i, status, external_id=e) for i, status, e in batch + batch[-30:]])
        daemons[turn % 2].kill9()
        daemons[turn % 2].start()
    app.wait_states(sent=240, deadline=180)  # the leases of the killed run out
    wanted = model(set(ids), ids, messages)
    assert sum(n for _, _, n in wanted.values()) > 20
    wait_confirmations(app, wanted, 120)
    ctl("verify", "--wait").expect(0)
    ctl("replay", "--group", "external").expect(0)
    last = app.subscription(integration)
    broker.produce(TOPIC, [said(last)])
    wanted[last] = ("confirmed", None, 0)
    wait_confirmations(app, wanted)
    wait_for(lambda: app.value("select next_offset from {s}.consumer_offsets where topic = %s", (TOPIC,)) == broker.count(TOPIC),
             60, "the messages to be read again")
    assert confirmations(app) == wanted
    ctl("verify", "--wait").expect(0)
