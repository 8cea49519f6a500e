"""Messages that no consumer can handle: where they go, when there are too many of them, and what operators do with them."""
import concurrent.futures
import contextlib
import itertools
import json
import uuid

import pytest
from harness.anubis import Ctl
from harness.application import Application
from harness.kafka import EmbeddedBroker
from harness.processes import wait_for
from test_consumer import GROUP, PARTITIONS, SETTINGS, Scene, event, logged
from test_migrate import encoded
from test_statements import STATEMENTS

MISSING = 10 ** 7
STOPPED = "integration-group: has stopped: "


@pytest.fixture
def scene(app, broker):
    return Scene(app, broker)


def poison(scene, count, first=1, integration=MISSING):
    """Events of an integration that does not exist; the ledger has them."""
    return scene.record({"sent": [event("sent", n, 10 ** 6 + n, integration) for n in range(first, first + count)]})


def fine(scene, count):
    scene.expected[scene.integrations[0], "sent"] += count
    return scene.record({"sent": [event("sent", 500 + n, n + 1, scene.integrations[0]) for n in range(count)]})


def at_once(scene, *events):
    """In one partition, where they belong: read as one batch, whatever else the machine does."""
    scene.app.query("insert into {s}.relay_topics (topic, from_sequence, partitions) values (%s, 0, 1) "
                    "on conflict (topic, from_sequence) do update set partitions = 1", (scene.topic("sent"),))
    scene.send({"sent": [{**message, "partition": 0} for some in events for message in some["sent"]]})


def make_integration(scene, integration=MISSING):
    scene.app.query("insert into {s}.integrations (id, name) overriding system value values (%s, 'late')", (integration,))


def letters(scene, condition="true"):
    return scene.app.value(f"select count(*) from {{s}}.dead_letters where {condition}")


def stops(scene):
    return scene.app.query("select read_model, reason, passes_until from {s}.consumer_stops")


def wait_stopped(scene, daemon):
    daemon.wait_log(STOPPED, 60)
    assert len(stops(scene)) == 1


# --- a group stops when most of a batch fails ---


def unparsable(scene):
    """The value is no JSON; seen before any handler."""
    return {"sent": [event("sent", n, 10 ** 6 + n, scene.integrations[0], value="{") for n in range(1, 61)]}


def of_nobody(scene):
    """Named by a handler."""
    return poison(scene, 60)


def refused(scene):
    """Refused by the database, which does not say which."""
    victim = scene.integrations[1]
    scene.app.query(f"alter table {{s}}.integration_runtime add constraint rule check (integration_id <> {victim} or sent < 1)")
    return scene.record({"sent": [event("sent", n, 10 ** 6 + n, victim) for n in range(1, 61)]})


@pytest.mark.parametrize("make", [unparsable, of_nobody, refused])
def test_a_group_stops_that_cannot_handle_most_of_a_batch(scene, make_daemon, ctl, make):
    """Nothing of the batch is written; resumed, it goes on when the cause is mended."""
    at_once(scene, make(scene), fine(scene, 20))
    daemon = make_daemon(SETTINGS).start()
    wait_stopped(scene, daemon)
    (model, reason, passes), = stops(scene)
    assert model == "integration" and passes is None and " of 80 messages cannot be handled" in reason, reason
    assert letters(scene) == 0 and scene.counters() == {}
    assert "resume --group integration" in daemon.log
    wait_for(lambda: scene.app.query("select kind from {s}.alerts where state = 'firing' and message like '%%has stopped%%'"), 30,
             "the alert")
    status = ctl("status", "--json").expect(0).json
    assert [s["group"] for s in status["stopped"]] == ["integration"]
    # A restart is no mending.
    daemon.term()
    daemon.start()
    daemon.wait_log(STOPPED, 60)
    assert letters(scene) == 0
    proof = ctl("verify")
    assert "Groups that have stopped" in proof.stdout and "anubisctl resume --group integration" in proof.stdout
    assert proof.code == 2 and "to be handled; consumers have stopped, see above" in proof.stdout
    answer = ctl("resume", "--group", "integration", "--dry-run", "--json").expect(0).json
    assert answer["had_stopped"] == reason and len(stops(scene)) == 1
    if make is unparsable:
        ctl("resume", "--group", "integration", "--put-aside").expect(0)
    else:
        scene.app.query("alter table {s}.integration_runtime drop constraint if exists rule")
        if make is of_nobody:
            make_integration(scene)
        ctl("resume", "--group", "integration").expect(0)
        scene.expected[MISSING if make is of_nobody else scene.integrations[1], "sent"] += 60
    scene.check()
    assert letters(scene) == (60 if make is unparsable else 0)
    # That messages are put aside ends.
    scene.app.query("update {s}.consumer_stops set passes_until = now() where passes_until is not null")
    scene.send({"sent": [event("sent", n, 2 * 10 ** 6 + n, scene.integrations[0], value="[") for n in range(1, 201)]})
    daemon.term()
    assert logged(daemon, "integration-group: goes on") == 1
    daemon.start()
    daemon.wait_log(STOPPED, 60)
    assert letters(scene) == (60 if make is unparsable else 0) and ctl("status", "--json").expect(0).json["stopped"]


@pytest.mark.slow
def test_another_message_in_the_place_of_one_that_was_put_aside(app, broker, make_daemon):
    """Another Kafka, or a topic that was made anew, begins at offset 0. What is read twice is put aside once."""
    topic = "anubis.confirmations"
    with EmbeddedBroker(name="other") as other:
        for kafka, words in ((broker, "[]"), (other, "{}"), (other, None), (broker, None)):
            kafka.produce(topic, [("1", words)] if words else [])
            app.query("delete from {s}.consumer_offsets")
            daemon = make_daemon({"consumers": {"integration": False, "monitoring": False}}, kafka=kafka).start()
            read = "select count(*) from {s}.consumer_offsets where topic = %s and next_offset = 1"
            wait_for(lambda read=read: app.value(read, (topic,)) == 1, 60, "it to be read")
            assert daemon.term() == 0
    assert app.query("select convert_from(value, 'utf8'), \"offset\" from {s}.dead_letters order by id") == [("[]", 0), ("{}", 0)]


def test_a_few_bad_messages_stop_nobody(scene, make_daemon):
    """19 of 19; and 30 of 61, half of a batch."""
    daemon = make_daemon(SETTINGS).start()
    scene.send(poison(scene, 19))
    scene.check()
    daemon.term()
    at_once(scene, fine(scene, 31), poison(scene, 30, first=100))
    daemon.start()
    scene.check()
    assert letters(scene) == 49 and not stops(scene) and STOPPED not in daemon.log
    words = "select message from {s}.alerts where state = 'firing'"
    wait_for(lambda: scene.app.query(words), 30, "the alert")
    scene.app.query("insert into {s}.consumer_stops (read_model, reason) values ('external', 'of a test')")
    wait_for(lambda: "external has stopped: of a test" in scene.app.value(words), 30, "the alert to say so")
    scene.app.query("delete from {s}.consumer_stops")
    wait_for(lambda: "49 of Kafka's messages" in scene.app.value(words), 30, "the alert to say what is left")
    assert "alert 1 goes on: dead_letters: the group external has stopped" in daemon.log


def test_a_group_stops_that_cannot_handle_one_after_the_other(scene, make_daemon, ctl):
    """Each is a batch of its own, and is refused at its commit. What was put aside before the stop is tried again; after it,
    counting begins anew."""
    victim = scene.integrations[1]
    scene.app.query("create function {s}.refuse() returns trigger language plpgsql as $$ begin raise check_violation; end $$")
    scene.app.query("create constraint trigger rule after insert or update on {s}.integration_runtime deferrable "
                    f"initially deferred for each row when (new.integration_id = {victim} and new.sent > 0) "
                    "execute function {s}.refuse()")
    daemon = make_daemon(SETTINGS).start()
    for n in range(1, 21):
        scene.send(poison(scene, 1, first=n, integration=victim))
        wait_for(lambda n=n: letters(scene) == n or stops(scene), 60, "it to be put aside")
    wait_stopped(scene, daemon)
    assert letters(scene) == 19 and "20 of the last 20 messages cannot be handled" in stops(scene)[0][1]
    holder = scene.app.database.connect(autocommit=False)
    holder.cursor().execute("select from anubis.dead_letters for update")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        call = pool.submit(ctl, "dead-letters", "replay", "--all", "--json")
        wait_for(lambda: scene.app.value("select count(*) from pg_stat_activity where application_name like 'anubisctl%%' "
                                         "and wait_event_type = 'Lock'", ()) == 1, 30, "it to wait for who has them locked")
        holder.close()
        again = call.result().expect(1).json
    assert again["failed"] == 19 and "SQLSTATE 23514" in again["failures"][0]
    scene.app.query("drop trigger rule on {s}.integration_runtime")
    assert ctl("dead-letters", "replay", "--all", "--json").expect(0).json["handled"] == 19
    ctl("resume", "--group", "integration").expect(0)
    scene.expected[victim, "sent"] += 20
    scene.check()
    scene.send(poison(scene, 1, first=30))
    scene.check()
    assert letters(scene) == 20 and not stops(scene)


def test_all_daemons_stop_and_a_stop_survives(scene, make_daemon, ctl):
    """The other daemon's partitions stand, too; more poison while it is stopped costs nothing. A daemon that reads less than 20
    at once has put some aside before."""
    scene.send(poison(scene, 60))
    daemons = [make_daemon(SETTINGS, name=f"anubisd{n}") for n in (1, 2)]
    for d in daemons:
        d.start()
    wait_for(lambda: all(STOPPED in d.log for d in daemons) or stops(scene), 60, "the stop")
    scene.send(poison(scene, 2000, first=1000))
    scene.publish(300)
    wait_for(lambda: all(STOPPED in d.log for d in daemons), 60, "all to have stopped")
    assert letters(scene) < 2 * 20 and scene.counters() == {}
    assert "is not stopped" not in ctl("status").expect(0).stdout
    ctl("resume", "--group", "integration", "--put-aside").expect(0)
    scene.check(120)
    assert letters(scene) == 2060


def test_resume_of_what_has_not_stopped(ctl, scene):
    del scene
    assert "not stopped is the group external" in ctl("resume", "--group", "external").expect(1).stderr
    assert "--group takes" in ctl("resume", "--group", "nobody").expect(64).stderr
    assert "--group NAME" in ctl("resume").expect(64).stderr
    assert "--group NAME" in ctl("resume", "1", "--group", "integration").expect(64).stderr


# --- their topic ---


def arrived(scene):
    """{offset: (message, its headers)} of the topic."""
    return {int(m.headers["dead_letter_offset"]): m for m in scene.cluster.read_all("anubis.dead_letters")}


def test_letters_go_to_their_topic_as_they_came(scene, make_daemon, ctl):
    """With key, value, headers, and what says where from and why; once each, also those from before an outage."""
    bad = [event("sent", 3, 70, scene.integrations[0], value=b"\xff{", headers={"extra": "1"}),
           event("sent", 4, 71, scene.integrations[0], value=None), event("sent", 5, 72, scene.integrations[0], key=b"\x00")]
    for message in bad:
        message["partition"] = 0
    scene.cluster.produce(scene.topic("sent"), bad)
    daemon = make_daemon(SETTINGS).start()
    wait_for(lambda: letters(scene, "published_at is not null") == 3, 60, "them to be published")
    found = arrived(scene)
    assert set(found) == {0, 1, 2}
    first, headers = found[0], found[0].headers
    assert first.value == b"\xff{" and first.key == "3" and headers["extra"] == "1" and headers["sequence"] == "70"
    assert headers["dead_letter_error"] == "the value is not JSON" and headers["dead_letter_group"] == GROUP
    assert headers["dead_letter_topic"] == scene.topic("sent") and headers["dead_letter_partition"] == "0"
    assert headers["dead_letter_at"].endswith("Z") and found[1].value is None and found[2].key == "\x00"
    listed = ctl("dead-letters", "--json").expect(0).json["dead_letters"]
    assert [letter["key"] for letter in listed] == ["3", "4", "\ufffd"]
    assert "\nDead letters\n" in ctl("dead-letters").expect(0).stdout
    daemon.term()
    daemon.start()
    scene.app.query("insert into {s}.dead_letters (consumer_group, topic, partition, \"offset\", error) "
                    "select 'x', 't', 0, n, 'e' from generate_series(100, 300) n")
    wait_for(lambda: letters(scene, "published_at is null") == 0, 60, "the others to be published")
    assert scene.cluster.count("anubis.dead_letters") == 204


def test_a_letter_that_is_too_large_with_its_headers_goes_without_its_value(app, real_kafka, topic_prefix, make_daemon):
    """Its neighbours are not held up."""
    real_kafka.create_topic(topic_prefix + "dead_letters", 1, {"max.message.bytes": "2000"})
    for number in range(3):
        app.query("insert into {s}.dead_letters (consumer_group, topic, partition, \"offset\", value, error) values "
                  "('x', 't', 0, %s, (select string_agg(decode(md5(n::text), 'hex'), '') from generate_series(1, %s) n), 'e')",
                  (number, 1000 if number == 1 else 1))
    make_daemon({"kafka": {"topic_prefix": topic_prefix}}, kafka=real_kafka).start()
    waiting = "select count(*) from {s}.dead_letters where published_at is null"
    wait_for(lambda: app.value(waiting) == 0, 60, "them to be published")
    sizes = [m.value and len(m.value) for m in real_kafka.read_all(topic_prefix + "dead_letters")]
    assert sizes == [16, None, 16]


def test_a_letter_whose_key_or_headers_are_too_large_goes_by_its_place(app, real_kafka, topic_prefix, make_daemon):
    """Whoever may write to a topic makes them as large as a message may be; the letters behind it are not held up."""
    real_kafka.create_topic(topic_prefix + "dead_letters", 1, {"max.message.bytes": "2000"})
    large = "(select string_agg(md5(n::text), '') from generate_series(1, 100) n)"
    wanted = (("'x'", "'{}'"), (large, "'{}'"), ("'x'", f"jsonb_build_object('h', {large})"), ("'x'", "'{}'"))
    for number, (key, headers) in enumerate(wanted):
        app.query("insert into {s}.dead_letters (consumer_group, topic, partition, \"offset\", key, headers, value, error) "
                  f"values ('x', 't', 0, %s, convert_to({key}, 'UTF8'), {headers}, 'v', 'e')", (number,))
    make_daemon({"kafka": {"topic_prefix": topic_prefix}}, kafka=real_kafka).start()
    waiting = "select count(*) from {s}.dead_letters where published_at is null"
    wait_for(lambda: app.value(waiting) == 0, 60, "them to be published")
    found = {}  # a letter behind one that was refused may come twice
    for m in real_kafka.read_all(topic_prefix + "dead_letters"):
        found[m.headers["dead_letter_offset"]] = (m.key, m.value and m.value.decode(), m.headers.get("h"),
                                                  *(f"dead_letter_{what}" in m.headers for what in ("value", "headers")))
    whole, place = ("x", "v", None, False, False), (None, None, None, True, True)
    assert found == {"0": whole, "1": place, "2": place, "3": whole}


def test_a_letter_keeps_its_bytes_whatever_the_databases_encoding(postgres_server, broker, make_daemon):
    """Its headers are text, and have a sign that this encoding does not know."""
    with encoded(postgres_server, "LATIN1") as database:
        Ctl(database=database).migrate()
        scene = Scene(Application(database), broker)
        values = "{\u20ac".encode(), b"\xff\x00{", "[\u00e9".encode()
        bad = [event("sent", n, 70 + n, scene.integrations[0], value=value, headers={"note": note, "\u5c31": "x"})
               for n, (value, note) in enumerate(zip(values, ("\u20ac 5", b"a\xffb", "\u00e9")), 1)]
        scene.send({"sent": bad})
        scene.publish(20)
        daemon = make_daemon(SETTINGS, database=database).start()
        scene.check()
        found = scene.app.query("select key, value, headers ->> 'note', headers ->> 'sequence' from {s}.dead_letters order by 1")
        assert [(bytes(key), bytes(value), *rest) for key, value, *rest in found] == [
            (b"%d" % n, values[n - 1], note, str(70 + n)) for n, note in ((1, "? 5"), (2, "a?b"), (3, "?"))]
        assert daemon.term() == 0


# --- what operators do ---


def test_letters_are_listed_shown_discarded_and_replayed(scene, make_daemon, ctl):
    scene.send(poison(scene, 5))
    scene.send({"sent": [event("sent", 99, 2 * 10 ** 6, scene.integrations[0], value="{\"cpf\":", headers={"x": b"\xff"})]})
    daemon = make_daemon(SETTINGS).start()
    scene.check()
    listed = ctl("dead-letters", "--json").expect(0).json
    assert [(r["group"], r["count"], r["reason"]) for r in listed["reasons"]] == [
        ("integration", 5, "the integration does not exist"), ("integration", 1, "the value is not JSON")]
    ids = {letter["key"]: letter["id"] for letter in listed["dead_letters"]}
    assert set(ids) == {"1", "2", "3", "4", "5", "99"} and {letter["state"] for letter in listed["dead_letters"]} == {"open"}
    assert "the value is not JSON" in ctl("dead-letters", "list", "--group", "integration").expect(0).stdout
    assert ctl("dead-letters", "--group", "monitoring", "--json").expect(0).json["dead_letters"] == []
    whole = ctl("dead-letters", "show", str(ids["99"]), "--json").expect(0).json
    assert whole["value"] == "{\"cpf\":" and whole["headers"]["x"] == "\ufffd" and whole["consumer_group"] == GROUP
    # Not mended yet: it fails again, and the row says so.
    answer = ctl("dead-letters", "replay", str(ids["1"]), "--json").expect(1).json
    assert answer["failed"] == 1 and answer["handled"] == 0 and "the integration does not exist" in answer["failures"][0]
    assert scene.app.query("select replays, last_error, failed_at > created_at, replayed_at from {s}.dead_letters where id = %s",
                           (ids["1"],)) == [(1, "the integration does not exist", True, None)]
    # What was discarded is not replayed.
    assert "needs --reason" in ctl("dead-letters", "discard", str(ids["99"])).expect(64).stderr
    ctl("dead-letters", "discard", str(ids["99"]), "--reason", "a test", "--dry-run").expect(0)
    ctl("dead-letters", "discard", str(ids["99"]), "--reason", "a test").expect(0)
    assert "was discarded" in ctl("dead-letters", "replay", str(ids["99"]), str(ids["1"])).expect(1).stderr
    assert "is not there" in ctl("dead-letters", "replay", "1000000").expect(1).stderr
    assert scene.app.value("select discard_reason from {s}.dead_letters where id = %s", (ids["99"],)).startswith("a test (")
    # Mended: counted once, however often.
    make_integration(scene)
    dry = ctl("dead-letters", "replay", "--all", "--dry-run", "--json").expect(0).json
    assert dry["handled"] == 5 and scene.counters() == {}
    assert ctl("dead-letters", "replay", str(ids["2"]), "--json").expect(0).json["handled"] == 1
    assert "was handled already" in ctl("dead-letters", "replay", str(ids["2"])).expect(1).stderr
    done = ctl("dead-letters", "replay", "--all", "--rate", "2", "--json").expect(0).json
    assert done["handled"] == 4 and letters(scene, "replayed_at is null and discarded_at is null") == 0
    took = "select extract(epoch from max(replayed_at) - min(replayed_at)) from {s}.dead_letters where id <> %s"
    assert scene.app.value(took, (ids["2"],)) >= 1.4  # half a second between each of four
    scene.expected[MISSING, "sent"] += 5
    assert scene.counters() == scene.expected
    states = {letter["state"] for letter in ctl("dead-letters", "--all", "--json").expect(0).json["dead_letters"]}
    assert states == {"handled", "discarded"}
    # The daemon's own marks follow: what is read again counts no more, and what is new counts.
    scene.publish(50)
    scene.check()
    daemon.term()
    scene.rewind()
    daemon.start()
    scene.publish(50)
    scene.check()
    assert letters(scene) == 6


def test_replay_beside_a_running_consumer_counts_once(scene, make_daemon, ctl):
    """The same marks are written by both, in the same chunk, at the same time."""
    scene.publish(40)
    scene.send(poison(scene, 15))
    make_daemon(SETTINGS).start()
    scene.check()
    make_integration(scene)
    scene.expected[MISSING, "sent"] += 15
    scene.sequence = 10 ** 6 + 100
    handled = 0
    for _ in range(4):
        scene.publish(200)
        answer = ctl("dead-letters", "replay", "--all", "--json")
        handled += answer.json["handled"]
        if answer.code == 0:
            break
    scene.check()
    assert handled == 15 and letters(scene, "replayed_at is not null") == 15


@pytest.mark.parametrize("words, code, error", [
    (["shred"], 64, "takes list, show ID, replay"), (["replay"], 64, "needs the ids"),
    (["discard", "--reason", "x"], 64, "needs the ids"),
    (["replay", "1", "--all"], 64, "needs the ids"), (["show"], 64, "needs one"), (["show", "x"], 64, "positive whole number"),
    (["show", "7"], 1, "there is no dead letter 7"), (["replay", "-0"], 64, ""), (["list", "--group", "x"], 64, "--group takes"),
    (["replay", "--all", "--rate", "0"], 64, "--rate takes")])
def test_orders_that_are_wrong(ctl, app, words, code, error):
    del app
    assert error in ctl("dead-letters", *words).expect(code).stderr


def test_a_letter_of_a_forged_event_is_never_counted(scene, make_daemon, ctl):
    """It has our names, and a sequence that the ledger does not have, or has for another event."""
    app = scene.app
    scene.send(scene.record({"sent": [event("sent", 5, 777, scene.integrations[0])]}))
    scene.expected[scene.integrations[0], "sent"] += 1
    make_daemon(SETTINGS).start()
    scene.check()
    forged = event("sent", 6, 777, scene.integrations[0])
    other = event("sent", 6, 778, scene.integrations[0], headers={"installation": "00000000-0000-8000-8000-00000000000f"})
    for number, message in enumerate((forged, other)):
        app.query("insert into {s}.dead_letters (consumer_group, read_model, topic, partition, \"offset\", key, value, headers, "
                  "error) values (%s, 'integration', %s, 0, %s, '6', %s, %s, 'x')",
                  (GROUP, scene.topic("sent"), 900 + number, message["value"].encode(),
                   json.dumps(dict(message["headers"]))))
    answer = ctl("dead-letters", "replay", "--all", "--json").expect(1).json
    assert answer["failed"] == 2 and answer["handled"] == 0 and answer["handled_before"] == 0
    assert "the ledger does not have" in answer["failures"][0] and "another installation" in answer["failures"][1]
    assert scene.counters() == scene.expected


def test_an_event_that_was_put_aside_in_several_partitions_counts_once(scene, make_daemon, ctl):
    """As where its topic has grown, or a tool has copied what it read; and when the daemon has counted it before."""
    app, number = scene.app, itertools.count(900)
    def put_aside(message, partition):
        app.query("insert into {s}.dead_letters (consumer_group, read_model, topic, partition, \"offset\", key, value, headers, "
                  "error) values ('g', 'integration', %s, %s, %s, %s, %s, %s, 'x')",
                  (scene.topic("sent"), partition, next(number), message["key"], message["value"].encode(),
                   json.dumps(dict(message["headers"]))))
    first, second = (event("sent", n, 770 + n, scene.integrations[0]) for n in (1, 2))
    scene.record({"sent": [first, second]})
    for partition in range(PARTITIONS):
        put_aside(first, partition)
    app.query("insert into {s}.relay_topics (topic, from_sequence, partitions) values (%s, 0, %s)",
              (scene.topic("sent"), PARTITIONS))
    answer = ctl("dead-letters", "replay", "--all", "--json").expect(0).json
    assert (answer["handled"], answer["handled_before"]) == (1, PARTITIONS - 1)
    scene.expected[scene.integrations[0], "sent"] += 1
    assert scene.counters() == scene.expected
    # The daemon knows it by the same marks, and the replay what the daemon has counted.
    scene.send({"sent": [first, second]})
    scene.expected[scene.integrations[0], "sent"] += 1
    make_daemon(SETTINGS).start()
    scene.check()
    for partition in range(PARTITIONS):
        put_aside(second, partition)
    assert ctl("dead-letters", "replay", "--all", "--json").expect(0).json["handled_before"] == PARTITIONS
    assert scene.counters() == scene.expected


def test_a_letter_that_a_person_has_written_amiss_keeps_no_other_back(scene, make_daemon, ctl):
    """Headers that are no object, or whose values are none of a header's; places that no topic has."""
    app, number = scene.app, itertools.count(900)
    good = event("sent", 1, 771, scene.integrations[0])
    scene.record({"sent": [good]})
    app.query("insert into {s}.relay_topics (topic, from_sequence, partitions) values (%s, 0, %s)",
              (scene.topic("sent"), PARTITIONS))
    headers = dict(good["headers"])

    def put_aside(headers, topic=scene.topic("sent"), partition=0, key=b"1", value=good["value"].encode()):
        return app.value("insert into {s}.dead_letters (consumer_group, read_model, topic, partition, \"offset\", key, value, "
                         "headers, error) values ('g', 'integration', %s, %s, %s, %s, %s, %s, 'x') returning id",
                         (topic, partition, next(number), key, value, json.dumps(headers)))
    amiss = [put_aside(h) for h in ([], 5, None, "x", True, [headers], {}, {"sequence": [771]}, *(
        {**headers, name: value} for name in headers for value in (None, {}, [], True, 1e300, "", "\u00e9" * 9)
        if name not in ("service", "installation", "content_type", "traceparent", "origin") and (value or name != "event_type")))]
    amiss += [put_aside(headers, topic=topic) for topic in ("", "sent", ".", "a.", "\u202e.sent.x", "x" * 5000)]
    amiss += [put_aside(headers, key=key) for key in (None, b"", b"2", b"\xff", b"1" * 5000)]
    amiss += [put_aside(headers, value=value) for value in (None, b"", b"{}", b"\xff\x00", b"[" * 5000)]
    last = put_aside(headers, partition=-2 ** 31)
    answer = ctl("dead-letters", "replay", "--all", "--json").expect(1).json
    assert (answer["handled"], answer["failed"], answer["busy"]) == (1, len(amiss), 0)
    assert [f.split(":")[0] for f in answer["failures"]] == [f"dead letter {n}" for n in amiss]
    assert answer["failures"][0] == f"dead letter {amiss[0]}: its headers are no JSON object"
    assert app.value("select id from {s}.dead_letters where replayed_at is not null") == last
    scene.expected[scene.integrations[0], "sent"] += 1
    assert scene.counters() == scene.expected
    for letter in amiss:
        ctl("dead-letters", "show", letter).expect(0)
    # It is no hindrance to their end either.
    answer = ctl("erase", "--cpf", "529.982.247-25", "--yes", "--json").expect(0).json
    assert answer["dead_letters"] > 10 and "" in [topic["topic"] for topic in answer["kafka"]]
    daemon = make_daemon({"retention": {"dead_letters": "1d"}}).start()
    wait_for(lambda: letters(scene, "published_at is null") == 0, 60, "the letters to be published")
    app.query("update {s}.dead_letters set created_at = now() - interval '2 days', failed_at = now() - interval '2 days'")
    daemon.restart()
    wait_for(lambda: letters(scene) == 0, 30, "the letters to go")


def test_a_letter_waits_until_its_event_has_a_place(app, make_daemon, ctl):
    """No relay has led with its topic, and one may still publish the event: in another partition than the letter's, say."""
    integration = app.integration("https://x.example/", enabled=False)
    ids = [app.subscription(integration) for _ in range(4)]
    app.query("update {s}.subscriptions set status = 'sent', sent_at = now() where id = any (%s)", (ids,))
    for topic in ("anubis.subscriptions.sent", "before.subscriptions.sent"):
        app.query("insert into {s}.dead_letters (consumer_group, read_model, topic, partition, \"offset\", key, value, headers, "
                  "error) select 'g', 'integration', %s, 0, 900 + m.id, convert_to(m.key, 'UTF8'), "
                  "convert_to(m.value::text, 'UTF8'), m.headers, 'x' from {s}.subscription_event_messages m "
                  "where m.topic = 'subscriptions.sent'", (topic,))

    def sent():
        return app.value("select coalesce(sum(sent), 0) from {s}.integration_runtime")
    answer = ctl("dead-letters", "replay", "--all", "--json").expect(1).json
    assert (answer["handled"], answer["failed"], sent()) == (0, 8, 0)
    assert "its event has no place yet: no relay has led with its topic" in answer["failures"][0]
    make_daemon(SETTINGS).start()
    wait_for(lambda: sent() == 4, 60, "the events to be counted")
    answer = ctl("dead-letters", "replay", "--all", "--json").expect(1).json
    assert (answer["handled"], answer["handled_before"], answer["failed"], sent()) == (0, 4, 4, 4)


def test_what_only_has_an_events_sequence_stands_for_no_event(app):
    """Not in the proofs of confirmations and of the audit log either, whatever else it copies."""
    integration = app.integration("https://x.example/", enabled=False, delivery_settings={"confirmation": {"within": "1h"}})
    number = app.subscription(integration)
    app.query("update {s}.subscriptions set status = 'sent', sent_at = now() where id = %s", (number,))
    (created, _), (sent, name) = app.query("select id, event_id from {s}.subscription_events order by id")
    app.query("update {s}.relay_state set high = %s", (sent,))
    app.query("insert into {s}.consumer_offsets (consumer_group, topic, partition, next_offset, read_model) "
              "values ('g', 'anubis.subscriptions.sent', 0, 5, 'monitoring')")
    put_aside = ("insert into {s}.dead_letters (consumer_group, read_model, topic, partition, \"offset\", headers, error) "
                 "select 'g', m, 'anubis.subscriptions.sent', 0, %s, %s, 'x' from unnest('{monitoring,external}'::text[]) m")
    def waiting():
        with contextlib.closing(app.database.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("set search_path = anubis")
            for statement in ("verify_unhandled", "verify_logged"):
                cursor.execute(f"prepare {statement} as {STATEMENTS[statement]}")
            cursor.execute("execute verify_unhandled")
            unhandled, = cursor.fetchall()
            cursor.execute("execute verify_logged (%s, 1000)", (created,))
            return unhandled[0], cursor.fetchone()[0]
    assert waiting() == (1, 2)
    app.query(put_aside, (1, json.dumps({"sequence": str(sent), "event_id": str(uuid.uuid4())})))
    assert waiting() == (1, 2)
    app.query(put_aside, (2, json.dumps({"sequence": str(sent), "event_id": name})))
    assert waiting() == (0, 1)


def test_a_confirmation_is_replayed_and_strangers_stop_no_group(app, broker, make_daemon, ctl):
    """Of a subscription that comes later, as after a restore; among more that nobody knows than would stop a group."""
    integration = app.integration("https://x.example/", enabled=False)
    known = app.subscription(integration)
    later = known + 1
    broker.produce("anubis.confirmations", [(str(n), json.dumps({"subscription_id": n, "status": "confirmed"}))
                                            for n in (later, *range(10 ** 9, 10 ** 9 + 60), known)])
    daemon = make_daemon({"log_level": "debug"}).start()
    wait_for(lambda: app.value("select count(*) from {s}.confirmations") == 1, 60, "the last to be handled")
    assert app.value("select count(*) from {s}.dead_letters where consumer_group = 'anubis-external-group'") == 61
    assert "has stopped" not in daemon.log
    letter = str(app.value("select min(id) from {s}.dead_letters"))
    assert "the subscription does not exist" in ctl("dead-letters", "replay", letter, "--json").expect(1).json["failures"][0]
    assert app.subscription(integration) == later
    assert ctl("dead-letters", "replay", letter, "--json").expect(0).json["handled"] == 1
    assert app.value("select status from {s}.confirmations where subscription_id = %s", (later,)) == "confirmed"
