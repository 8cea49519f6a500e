"""Erasure of a person's data: what names the person goes everywhere, what counts stays and still verifies."""
import contextlib
import hashlib
import json
import os
import pty
import re
import subprocess

import pytest
from harness.anubis import clean_environment, program
from harness.processes import Child, wait_for

MARIA = "Maria Zulmira Quixadense"
CPF = "529.982.247-25"
DIGITS = "52998224725"
TOPIC = "anubis.confirmations"
FAST = {"consumers": {"session_timeout": "6s", "heartbeat_interval": "500ms"}}
# What tables may hold of her.
TRACES = (MARIA, "Zulmira", CPF, DIGITS, "E-4711")


def payload(**more):
    return {"aluno": {"nome": MARIA, "cpf": CPF, "email": "maria@example.com"}, **more}


def everything(app):
    """Each row of each table of ours as a text, dead letters' bytes as they are."""
    tables = app.query("select c.relname from pg_class c where c.relnamespace = %s::regnamespace and c.relkind = 'r' "
                       "and not c.relispartition or c.oid = (%s || '.subscription_events')::regclass", (app.schema, app.schema))
    for (table,) in tables:
        for (row,) in app.query(f"select to_jsonb(x)::text from {{s}}.{table} x"):
            yield table, row
    for row in app.query("select encode(coalesce(key, '') || coalesce(value, ''), 'escape') from {s}.dead_letters"):
        yield "dead_letters", row[0]


def traces(app):
    return [(table, row) for table, row in everything(app) if any(t in row for t in TRACES)]


def settled(app):
    """Ids, states and counts, which stay."""
    return (app.query("select id, event_id, event_type, subscription_id, integration_id, from_status, to_status, created_at, "
                      "attempt, http_status, order_id from {s}.subscription_events order by id"),
            app.query("select * from {s}.audit_log order by tree, leaf"))


def caught_up(app, ctl):
    """All is handled, and proven."""
    wait_for(lambda: ctl("verify", "--json").code == 0, 60, lambda: ctl("verify").stdout)
    leaves = "select count(*) from {s}.audit_log"
    wait_for(lambda: app.value(leaves) == app.value("select count(*) from {s}.subscription_events"), 60, "all leaves")


def verify(ctl):
    ctl("verify").expect(0)
    ctl("verify", "--audit", "--full").expect(0)


def erase(ctl, *arguments):
    return ctl("erase", *arguments, "--yes", "--json").expect(0).json


@pytest.fixture
def hers(app, institutions, make_daemon, broker, ctl):
    """Maria's subscriptions by their fate, among those of others."""
    good = app.integration(institutions.url("/good"), delivery_settings={"confirmation": {"within": "2d"}})
    bad = app.integration(institutions.url("/reject/422"))
    away = app.integration(institutions.url("/good"), enabled=False)
    daemon = make_daemon(FAST).start()
    app.subscriptions(good, 10)
    ids = {"sent": app.subscription(good, payload(), cpf=CPF), "failed": app.subscription(bad, payload(), cpf=DIGITS),
           "waiting": app.subscription(away, payload(), cpf=CPF), "unrouted": app.subscription(None, payload(), cpf=CPF)}
    app.wait_states(sent=11, failed=1)
    word = {"subscription_id": ids["sent"], "status": "confirmed"}
    broker.produce(TOPIC, [(str(ids["sent"]), json.dumps({**word, "external_id": i})) for i in ("E-4711", "E-4711-2")])
    # One that nobody can handle, with a broken key, and one of hers that is no JSON.
    broker.produce(TOPIC, [("?", json.dumps({"cpf": DIGITS, "nome": MARIA})), (str(ids["sent"]), "{" + MARIA)])
    wait_for(lambda: app.value("select count(*) from {s}.dead_letters") == 2
             and app.value("select contradictions from {s}.confirmations where external_id = 'E-4711'") == 1, 60, "the messages")
    caught_up(app, ctl)
    return app, daemon, ids


def digest(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def provable(app, broker):
    """Subscriptions whose events can be proven to have said what their messages say, by any 32 bytes that stand side by side in
    any column of any table; of the others none can. A commitment: SHA-256 of the salt and of SHA-256 of the value."""
    runs = {bytes.fromhex(run) for _, row in everything(app) for run in re.findall("(?:[0-9a-f]{2}){32,}", row)}
    salts = {run[n:n + 32] for run in runs for n in range(len(run) - 31)}
    said = {(m.topic, m.partition, m.offset): digest(m.value) for t in broker.topics() if t.startswith("anubis.subscriptions.")
            for m in broker.read_all(t)}
    leaves = app.query('select l.subscription_id, l.commitment, t.topic, t.partition, l."offset" from {s}.audit_log l '
                       "join {s}.audit_trees t on t.id = l.tree")
    found = {}
    for subscription, commitment, *place in leaves:
        value = said[tuple(place)]
        found.setdefault(subscription, set()).add(any(digest(salt, value) == bytes(commitment) for salt in salts))
    assert all(len(proven) == 1 for proven in found.values()), found
    return {subscription for subscription, (proven,) in found.items() if proven}


def test_a_person_is_erased_and_all_verifies(hers, ctl):
    app, daemon, ids = hers
    others = app.query("select * from {s}.subscriptions where cpf not in (%s, %s) order by id", (CPF, DIGITS))
    assert {t for t, _ in traces(app)} == {"subscriptions", "subscription_events", "confirmations", "dead_letters"}
    dry = ctl("erase", "--cpf", CPF, "--dry-run", "--json").expect(0).json
    assert (dry["subscriptions"], dry["erased"], dry["failed"], dry["dead_letters"]) == (4, 4, 2, 2), dry
    assert traces(app)
    events, log = settled(app)
    daemon.stop()  # or Kafka might have the erasure's own events, too
    done = erase(ctl, "--cpf", CPF)
    daemon.cont()
    assert {k: done[k] for k in ("subscriptions", "erased", "failed", "in_flight", "salts", "confirmations", "dead_letters")} == {
        "subscriptions": 4, "erased": 4, "failed": 2, "in_flight": 0, "salts": 4, "confirmations": 1, "dead_letters": 2}, done
    assert {k["topic"]: k["messages"] for k in done["kafka"]} == {
        "anubis.subscriptions.created": 4, "anubis.subscriptions.sent": 1, "anubis.subscriptions.failed": 1,
        "anubis.subscriptions.updated": 2, "anubis.confirmations": 3, "anubis.dead_letters": 2}, done["kafka"]
    assert traces(app) == []
    caught_up(app, ctl)
    verify(ctl)
    # What there was is there, and two events more.
    after = settled(app)
    assert after[0][:len(events)] == events and [e[2] for e in after[0][len(events):]] == ["failed"] * 2
    assert set(log) <= set(after[1])
    assert others == app.query("select * from {s}.subscriptions where cpf is not null order by id")
    event = app.events(ids["waiting"])[-1]
    assert (event["to_status"], event["error_message"], event["request"], event["cpf"]) == ("failed", "erased", None, None)
    assert event["decided_by"].startswith("operator ") and ":" not in event["decided_by"]
    assert app.query("select external_id, contradictions, status from {s}.confirmations where subscription_id = %s",
                     (ids["sent"],)) == [(None, 1, "confirmed")]
    # Once more: nothing is left.
    before = list(everything(app))
    again = erase(ctl, "--subscription", str(ids["sent"]))
    assert again["erased"] + again["events"] + again["failed"] + again["salts"] == 0
    assert ctl("erase", "--cpf", CPF, "--yes").expect(0).stdout.count("There is nothing of this CPF.") == 1
    assert "erased before" in ctl("erase", "--subscription", str(ids["failed"])).expect(0).stdout
    assert [[r for t, r in rows if t.startswith("subscription")] for rows in (before, everything(app))].count(
        [r for t, r in before if t.startswith("subscription")]) == 2
    del daemon


def test_what_is_erased_stays_so(hers, ctl, broker):
    """Not delivered, not sent again, not retried, and not filled again by the application or by a replay."""
    app, daemon, ids = hers
    ctl("erase", "--cpf", DIGITS, "--yes").expect(0)
    caught_up(app, ctl)
    for change in ("status = 'retry'", "status = 'pending'", "payload = '{\"nome\": \"x\"}'", "cpf = '1'", "erased_at = null"):
        with pytest.raises(Exception, match="was erased"):
            app.query(f"update {{s}}.subscriptions set {change} where id = %s", (ids["failed"],))
    app.query("update {s}.subscriptions set origin = 'site' where id = %s", (ids["failed"],))
    retried = ctl("retry", "--ids", ",".join(map(str, ids.values())), "--json").expect(1).json
    assert retried["put_back"] == 0
    assert f"{len(ids)} of --ids were erased: there is nothing to be sent" in retried["not_chosen"][0]
    assert "was erased: there is nothing to be sent" in ctl("resend", str(ids["sent"])).expect(1).stdout
    app.query("update {s}.integrations set enabled = true")
    word = {"subscription_id": ids["failed"], "status": "confirmed", "external_id": "E-4711"}
    broker.produce(TOPIC, [(str(ids["failed"]), json.dumps(word)), (str(ids["failed"]), "{" + MARIA)])
    for group in ("external", "monitoring", "integration"):
        ctl("replay", "--group", group).expect(0)
    for group in ("external", "integration"):
        ctl("replay", "--group", group, "--from-ledger").expect(0)
    # What comes behind all of that has been read when this one is counted.
    last = app.subscription(1, payload={}, cpf=None)
    wait_for(lambda: app.row(last)["status"] == "sent", 60, "the last one")
    caught_up(app, ctl)
    offset = "select min(next_offset) from {s}.consumer_offsets where topic = %s"
    wait_for(lambda: app.value(offset, (TOPIC,)) == 6, 60, "the replay")
    assert app.query("select status, external_id from {s}.confirmations where subscription_id = %s", (ids["failed"],)) == [
        ("confirmed", None)]
    assert app.query("select distinct discard_reason, value from {s}.dead_letters") == [("erased", None)]
    assert traces(app) == [] and provable(app, broker) == set(range(1, 1 + last)) - set(ids.values())
    verify(ctl)
    assert app.states() == {"sent": 12, "failed": 3}
    del daemon


def prove(ctl, event):
    return ctl("audit", "prove", event, "--json").json["salt"]


def test_the_salts_of_others_stay(hers, ctl, broker):
    """Those that stand beside hers prove what they did, and nothing in the tables proves hers."""
    app, _, ids = hers
    all_of_them = set(range(1, 1 + max(ids.values())))
    assert provable(app, broker) == all_of_them
    events = app.query("select max(id), subscription_id from {s}.subscription_events where to_status in ('sent', 'failed') "
                       "group by 2")
    before = {event: prove(ctl, event) for event, _ in events}
    assert all(before.values())
    assert erase(ctl, "--cpf", CPF)["salts"] == 4
    caught_up(app, ctl)
    assert provable(app, broker) == all_of_them - set(ids.values())
    assert {event: prove(ctl, event) for event, _ in events} == {
        event: None if one in ids.values() else before[event] for event, one in events}


def test_who_is_erased_before_the_first_event_comes(app, make_daemon, ctl, broker):
    """No salt of hers is kept later; those of others are."""
    integration = app.integration("https://usp.example/", enabled=False)
    app.subscriptions(integration, 40)
    one = app.subscription(integration, payload(), cpf=CPF)
    assert erase(ctl, "--cpf", CPF)["salts"] == 0
    app.subscriptions(integration, 40)
    make_daemon().start()
    caught_up(app, ctl)
    assert provable(app, broker) == set(range(1, 82)) - {one}
    assert erase(ctl, "--subscription", one)["salts"] == 0
    verify(ctl)


@pytest.mark.parametrize("known", (False, True), ids=("made", "read"))
def test_erased_while_a_batch_has_the_salt(app, make_daemon, ctl, broker, known):
    """The batch is between its salts and its commit. Salts that it has made are waited for; those that it has read go meanwhile,
    and it writes a leaf that nobody can prove any more."""
    integration = app.integration("https://usp.example/", enabled=False)
    make_daemon().start()
    if known:
        app.subscriptions(integration, 3)
        caught_up(app, ctl)
    waits = "select count(*) from pg_locks where relation = (%s || '.audit_log')::regclass and not granted"
    refused = "select count(*) from pg_stat_activity where application_name = 'anubisctl erase' and query = 'rollback'"
    with contextlib.closing(app.database.connect()) as session:
        session.autocommit = False
        session.cursor().execute(f"lock table {app.schema}.audit_log in share mode")
        one = app.subscription(integration, payload(), cpf=CPF)
        wait_for(lambda: app.value(waits, (app.schema,)) == 1, 60, "the batch")
        command = Child(words(ctl, "--subscription", one, "--yes"), name="anubisctl", env=clean_environment()).start()
        if known:
            wait_for(lambda: app.row(one)["erased_at"], 60, "it to be erased")
        else:
            wait_for(lambda: app.value(refused) == 1, 60, "it to be refused")
    assert command.wait(60) == 0
    app.subscriptions(integration, 3)
    caught_up(app, ctl)
    assert provable(app, broker) == set(range(1, 2 + 3 * known + 3)) - {one}


def words(ctl, *arguments):
    return [program("anubisctl"), "-c", ctl.path, "--environment", "/dev/null", "erase", *map(str, arguments)]


def test_rows_in_flight_are_waited_for(app, institutions, make_daemon, ctl):
    """Until there is an answer, or the lease is over. Whoever is killed meanwhile leaves nothing half done."""
    slow, silent = app.integration(institutions.url("/slow/2000")), app.integration(institutions.url("/silent"))
    daemon = make_daemon().start()
    sent, lost = app.subscription(slow, payload(), cpf=CPF), app.subscription(silent, payload(), cpf=CPF)
    app.wait_states(processing=2)
    assert ctl("erase", "--subscription", str(lost), "--dry-run", "--json").expect(0).json["in_flight"] == 1
    assert erase(ctl, "--subscription", sent)["failed"] == 0
    assert app.row(sent)["status"] == "sent" and app.row(sent)["payload"] == {} and app.row(sent)["cpf"] is None
    killed = Child(words(ctl, "--cpf", CPF, "--yes"), name="anubisctl", env=clean_environment()).start()
    session = "select count(*) from pg_stat_activity where application_name = 'anubisctl erase'"
    wait_for(lambda: app.value(session) == 1, 60, "the command to work")
    killed.kill9()
    daemon.kill9()
    assert app.row(lost)["payload"] == payload() and app.row(lost)["status"] == "processing"
    app.query("update {s}.subscriptions set lease_expires_at = now() where id = %s", (lost,))
    done = erase(ctl, "--cpf", CPF)
    assert (done["subscriptions"], done["erased"], done["failed"]) == (1, 1, 1), done
    row = app.row(lost)
    assert (row["status"], row["last_ambiguous"], row["last_error"], row["payload"]) == ("failed", True, "erased", {})
    assert traces(app) == []
    assert institutions.counts("/slow/2000")["requests"] == institutions.counts("/silent")["requests"] == 1


def test_what_kafka_has_not_yet_goes_there_without_the_person(app, broker, make_daemon, ctl):
    """The relay has it in hand already, and Kafka is away."""
    integration = app.integration("https://usp.example/", enabled=False)
    daemon = make_daemon().start()
    app.subscription(integration, payload={})
    wait_for(lambda: ctl("verify").code == 0, 60, "the first one")
    broker.down()
    first = app.subscription(integration, payload(), cpf=CPF)
    daemon.wait_log("could not reach Kafka")
    done = erase(ctl, "--cpf", CPF)
    assert (done["erased"], done["unpublished"], done["kafka"]) == (1, 1, []), done
    daemon.wait_log("events were erased")
    broker.up()
    wait_for(lambda: ctl("verify").code == 0, 60, lambda: ctl("verify").stdout)
    topics = {t: broker.read_all(f"anubis.subscriptions.{t}") for t in ("created", "failed")}
    assert [[m.key for m in messages].count(str(first)) for messages in topics.values()] == [1, 1]
    found = [m for messages in topics.values() for m in messages if any(t.encode() in m.value for t in TRACES)]
    assert not found
    value = json.loads(topics["failed"][-1].value)
    assert (value["error_message"], value["subscription"]["cpf"]) == ("erased", None)


@pytest.mark.real_kafka
def test_until_when_kafka_holds_it(app, real_kafka, topic_prefix, make_daemon, ctl):
    """As each topic's settings say; where none can be asked, that is said."""
    prefix, day = topic_prefix, 24 * 3600 * 1000
    for topic, settings in (("created", {"retention.ms": str(3 * day), "segment.ms": str(day)}), ("updated", {}),
                            ("sent", {}), ("failed", {"cleanup.policy": "compact"}), ("retried", {})):
        real_kafka.create_topic(f"{prefix}subscriptions.{topic}", 1, config=settings)
    kafka = {"brokers": real_kafka.bootstrap, "topic_prefix": prefix}
    ctl.write(kafka=kafka)
    daemon = make_daemon({"kafka": kafka, **FAST}).start()
    number = app.subscription(app.integration("https://usp.example/", enabled=False), payload(), cpf=CPF)
    app.query("update {s}.subscriptions set status = 'failed' where id = %s", (number,))
    last = app.value("select max(id) from {s}.subscription_events")
    wait_for(lambda: app.value("select high from {s}.relay_state") >= last, 60, "the relay")
    told = {k["topic"]: k for k in erase(ctl, "--cpf", CPF)["kafka"]}
    created, failed = (told[f"{prefix}subscriptions.{t}"] for t in ("created", "failed"))
    assert (created["messages"], created["for_ever"], failed["messages"], failed["for_ever"]) == (1, False, 1, True)
    assert failed["until"] is None
    assert app.value("select %s::timestamptz between erased_at + interval '4 days' and erased_at + interval '4 days 1 hour' "
                     "from {s}.subscriptions", (created["until"],))
    ctl.write(kafka={"brokers": "127.0.0.1:1"})
    again = erase(ctl, "--subscription", number)
    assert again["kafka_error"] and {k["until"] for k in again["kafka"]} == {None}
    del daemon


@pytest.fixture
def terminal():
    own, theirs = pty.openpty()
    yield own, theirs
    os.close(own)


def test_a_person_is_asked(app, ctl, terminal):
    """Elsewhere than at a terminal --yes is needed; who names nobody is told how."""
    ids = [app.subscription(app.integration("https://usp.example/"), payload(), cpf=CPF) for _ in range(2)]
    own, theirs = terminal
    assert "needs --yes" in ctl("erase", "--cpf", CPF).expect(64).stderr
    for arguments, said in (((), "--subscription ID or --cpf CPF"), (("--cpf", CPF, "--subscription", "1"), "one of them"),
                            (("--cpf", "12"), "11 digits"), (("--subscription", "x"), "positive whole number"),
                            (("7",), "an argument too many"), (("--order", "7"), "no --order")):
        assert said in ctl("erase", *arguments).expect(64).stderr, arguments
    assert "There is no such subscription." in ctl("erase", "--subscription", "4711").expect(0).stdout
    for answer, code in (("no", 64), ("yes", 0)):
        assert len(traces(app)) > 0
        os.write(own, f"{answer}\n".encode())
        asked = subprocess.run(words(ctl, "--cpf", CPF), stdin=theirs, capture_output=True, text=True, timeout=120, check=False)
        assert asked.returncode == code and f"2 subscriptions ({ids[0]}, {ids[1]})" in asked.stderr, asked
    os.close(theirs)
    assert traces(app) == []


def test_what_somebody_has_locked(app, ctl):
    """Is waited for; so is whoever writes a salt."""
    one = app.subscription(app.integration("https://usp.example/"), payload(), cpf=CPF)
    refused = "select count(*) from pg_stat_activity where application_name = 'anubisctl erase' and query = 'rollback'"
    for lock in ("select from {s}.subscriptions for update", "lock table {s}.audit_salts in row exclusive mode"):
        with contextlib.closing(app.database.connect()) as session:
            session.autocommit = False
            session.cursor().execute(lock.replace("{s}", app.schema))
            command = Child(words(ctl, "--subscription", one, "--yes"), name="anubisctl", env=clean_environment()).start()
            wait_for(lambda: app.value(refused) == 1, 60, "it to be refused")
            assert (app.row(one)["erased_at"] is None) == lock.startswith("select")
        assert command.wait(60) == 0
        assert traces(app) == []


def wide(text):
    """With digits in full width, as an input method for Japanese writes them."""
    return re.sub("[0-9]", lambda d: chr(0xFF10 + int(d[0])), text)


def escaped(text, code):
    """With digits as some writers of JSON escape them."""
    return re.sub("[0-9]", lambda d: f"\\u{code}{d[0]}", text)


def test_however_a_cpf_is_written(app, ctl):
    """As a number it lacks the zeros that it begins with. Where it is not in the column, whose it is only a person can tell."""
    number = app.integration("https://usp.example/", enabled=False)
    own = ["012.345.678-90", "01234567890", " 012 345 678/90", "1234567890", "12.345.678-90", "001234567890",
           "CPF 012.345.678\u201090", wide("012.345.678-90"), wide("01234567890"), "\u00ba" + wide("12345") + "\u201067890",
           "012.345.678-9" + wide("0")]
    not_own = ["", "0", "00000000000", "11234567890", "12345678901", None, wide("11234567890"), wide("12345678901"), wide("0")]
    hers, others = ([app.subscription(number, payload={}, cpf=cpf) for cpf in some] for some in (own, not_own))
    mentioned = [app.subscription(number, payload={"cpf": cpf, "nome": "Jo\u00e3o"}, cpf=None)
                 for cpf in ("012.345.678-90", 1234567890, wide("012.345.678-90"), wide("01234567890"), "\u00ba1234567890")]
    for cpf in (11234567890, wide("11234567890"), "\u00ba" + wide("1") + "1234567890"):
        app.subscription(number, payload={"cpf": cpf}, cpf="529.982.247-25")
    # As it stands in the text of an answer, which is no JSON of the database's.
    mentioned += [app.subscription(number, payload={}, cpf=None) for _ in range(2)]
    for one, cpf in zip(mentioned[-2:], (escaped("01234567890", "003"), escaped("012.345.678-90", "Ff1"))):
        app.query("update {s}.subscriptions set last_response = %s where id = %s", (f'{{"cpf":"{cpf}"}}', one))
    letters = {"{012.345.678-90": True, "01234567890": True, '{"cpf":"012 345 678 90"': True, "{012.345.678/90": True,
               '{"cpf": 1234567890': True, "12.345.678-90": True, "012.345.678\u201090\u00a0x": True, "\u00e91234567890": True,
               wide("012.345.678-90"): True, wide("1234567890"): True, f"\u00e9{wide('1234567890')}": True,
               f'{{"cpf":"{escaped("012.345.678-90", "003")}"}}': True, f'{{"cpf":"{escaped("01234567890", "ff1")}"}}': True,
               "11234567890": False, "12345678901": False, "012.345.678": False, wide("11234567890"): False,
               wide("12345678901"): False, f'{{"cpf":"{escaped("11234567890", "003")}"}}': False}
    for column in ("value", "key"):
        app.query(f"insert into {{s}}.dead_letters (consumer_group, topic, partition, \"offset\", {column}, error) "
                  "select 'x', %s, 0, n, convert_to(v, 'UTF8'), 'e' from unnest(%s) with ordinality as v (v, n)",
                  (column, list(letters)))
    assert [len(ctl("explain", "--cpf", c, "--json").expect(0).json["subscriptions"]) for c in own[:2]] == [len(own)] * 2
    done = erase(ctl, "--cpf", "012.345.678-90")
    assert (done["subscriptions"], done["erased"], done["mentioned"]) == (len(own), len(own), len(mentioned)), done
    assert [app.row(i)["erased_at"] is not None for i in hers + others + mentioned] == (
        [True] * len(own) + [False] * (len(others) + len(mentioned)))
    assert done["dead_letters"] == 2 * sum(letters.values())
    for column in ("value", "key"):
        assert [v for v, in app.query(f"select {column} is null from {{s}}.dead_letters where topic = %s order by \"offset\"",
                                      (column,))] == list(letters.values())
    again = ctl("erase", "--cpf", "01234567890", "--yes").expect(0).stdout
    assert f"others that hold it  {', '.join(map(str, mentioned))}\n" in re.sub(" {3,}", "  ", again)
    assert "There is nothing of this CPF" not in again
    assert ctl("explain", str(hers[0]), "--json").expect(0).json["erased_at"]


def test_a_letter_that_names_the_subscription_in_another_way(app, ctl, make_daemon, broker):
    """In its value, or in a key that is no id of ours; also when it comes again."""
    number = app.integration("https://usp.example/", enabled=False)
    hers, other = app.subscriptions(number, 2)
    make_daemon(FAST).start()
    word = {"status": "confirmed", "external_id": MARIA}
    lost = [("00%d" % hers, json.dumps({"subscription_id": hers, **word})), (None, json.dumps({"subscription_id": hers, **word})),
            (f'"{hers}"', "{" + MARIA), (None, json.dumps({**word, "subscription_id": f"00{hers}"})),
            ("x", '{"Subscription_ID":%d, ' % hers + MARIA), ("y", '{"subscription_id" : "\\u003%d", ' % hers + MARIA),
            ("z", json.dumps({"subscription": {"origin": "site", "id": hers}, "nome": MARIA}))]
    kept = [("x", json.dumps({"subscription_id": f"{hers}{other}", **word})), (None, '{"id": %d, "nome": "x"}' % hers),
            ("00%d" % other, json.dumps({"subscription_id": other, **word}))]
    there = "select value is not null from {s}.dead_letters order by \"offset\""
    broker.produce(TOPIC, lost + kept)
    wait_for(lambda: len(app.query(there)) == len(lost + kept), 60, "the letters")
    wait_for(lambda: not app.value("select count(*) from {s}.dead_letters where published_at is null"), 60, "them to be told")
    done = erase(ctl, "--subscription", str(hers))
    assert [v for v, in app.query(there)] == [False] * len(lost) + [True] * len(kept)
    assert {k["topic"]: k["messages"] for k in done["kafka"]} == {
        "anubis.subscriptions.created": 1, "anubis.confirmations": len(lost), "anubis.dead_letters": len(lost)}
    broker.produce(TOPIC, lost)
    wait_for(lambda: len(app.query(there)) == 2 * len(lost) + len(kept), 60, "them to come again")
    assert [v for v, in app.query(there)][-len(lost):] == [False] * len(lost)


def test_a_rule_of_the_application(app, ctl):
    """Is named without the row's words; nothing is half done."""
    app.subscription(app.integration("https://usp.example/"), payload(), cpf=CPF)
    app.query("create function {s}.f() returns trigger language plpgsql as $$ begin raise 'of %', new.payload; end $$; "
              "create trigger mine before update on {s}.subscriptions for each row when (new.payload::text = '{}') "
              "execute function {s}.f()")
    said = ctl("erase", "--cpf", CPF, "--yes").expect(69).stderr
    assert "SQLSTATE P0001" in said and "of {" not in said
    assert app.states() == {"pending": 1}
