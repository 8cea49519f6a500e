"""Consumers: every event has its effect once, whatever is delivered how often, and whoever dies meanwhile."""
import collections
import json
import random
import re
import threading
import time
import uuid
import zlib

import psycopg2
import pytest
from harness.anubis import merged
from harness.kafka import EmbeddedBroker
from harness.processes import wait_for

GROUP = "anubis-integration-group"
TYPES = ("sent", "failed")
PARTITIONS = 3
CPF = "52998224725"
INSTALLATION = "7a1d2c3b-0000-8000-8000-000000000001"
TIMESTAMP = "2026-11-24T10:59:39.123456Z"
PUBLISHED = 10 ** 15

# Quick to notice a member that died; a Kafka of the tests allows it. One group alone: what is counted here is what one does.
SETTINGS = {"consumers": {"session_timeout": "6s", "heartbeat_interval": "500ms", "monitoring": False, "external": False}}


def event(kind, subscription, sequence, integration, **changes):
    """What Cluster.produce() takes, as the relay publishes it. Changes: value, key, headers (a dict; None removes one),
    words (what the institution said)."""
    key = changes.get("key", str(subscription))
    value = {"event_type": kind, "timestamp": TIMESTAMP, "version": "1.0",
             "subscription": {"id": subscription, "integration_id": integration, "order_id": None, "origin": "site",
                              "cpf": CPF, "status": kind, "sent_at": None, "scheduled_to": None,
                              "created_at": "2026-11-24T10:59:39Z", "updated_at": "2026-11-24T10:59:39Z"},
             "integration": integration and {"id": integration, "name": "x", "type": "api"}, "attempt": 1,
             "response_data" if kind == "sent" else "error_message": changes.get("words", "ok")}
    headers = {"event_id": str(uuid.uuid4()), "timestamp": TIMESTAMP, "service": "anubis",
               "version": "1.0", "event_type": kind, "integration_id": integration and str(integration), "origin": "site",
               "sequence": str(sequence), "installation": INSTALLATION, "attempt": "1", "content_type": "application/json",
               **changes.get("headers", {})}
    return {"key": key, "value": changes.get("value", json.dumps(value)),
            "partition": zlib.crc32(str(subscription).encode()) % PARTITIONS,
            "headers": [(k, v) for k, v in headers.items() if v is not None]}


def counters(app):
    """{(integration, type): what is counted}, whether the integrations' own counters have followed or not."""
    rows = app.query("select i.id, coalesce(successful_sends, 0)::numeric + coalesce(r.sent - r.sent_folded, 0), "
                     "coalesce(failed_sends, 0)::numeric + coalesce(r.failed - r.failed_folded, 0) "
                     "from {s}.integrations i left join {s}.integration_runtime r on r.integration_id = i.id")
    return collections.Counter({(i, kind): n for i, *counts in rows for kind, n in zip(TYPES, counts) if n})


class Scene:
    """A database, a broker and what was published to it: the counters must always be what a plain count gives."""

    def __init__(self, app, cluster, prefix="anubis.", integrations=4):
        self.app, self.cluster, self.prefix = app, cluster, prefix
        self.group_prefix = prefix.rstrip(".")
        self.group = f"{self.group_prefix}-integration-group"
        self.integrations = [app.value("insert into {s}.integrations (name) values (%s) returning id", (f"i{n}",))
                             for n in range(integrations)]
        app.query("update {s}.installation set namespace = %s", (INSTALLATION,))
        app.query("select {s}.ledger_name_events()")
        # What stands in the ledger is published by the scene alone.
        app.query("select setval('{s}.ledger_id_seq', %s)", (PUBLISHED,))
        app.query("update {s}.relay_state set high = %s", (PUBLISHED,))
        self.expected = collections.Counter()  # (integration, type): how many
        self.sequence = 0
        self.random = random.Random(1)

    def topic(self, kind):
        return f"{self.prefix}subscriptions.{kind}"

    def make(self, count, integration=None):
        """{type: events} that were not there before."""
        made = {kind: [] for kind in TYPES}
        for _ in range(count):
            self.sequence += self.random.choice((1, 1, 3, 200))
            kind = "failed" if self.random.random() < 0.2 else "sent"
            chosen = integration or self.random.choice(self.integrations)
            made[kind].append(event(kind, self.random.randrange(1, 10 ** 9), self.sequence, chosen))
            self.expected[chosen, kind] += 1
        return made

    def record(self, events):
        """Writes them into the ledger, as they were made."""
        rows = {}
        for kind, messages in events.items():
            for message in messages:
                h = dict(message["headers"])
                rows[int(h["sequence"])] = (int(h["sequence"]), h["event_id"], kind, int(message["key"]), h.get("integration_id"),
                                            h["timestamp"])
        self.app.query(
            "insert into {s}.subscription_events (id, event_id, event_type, subscription_id, integration_id, created_at) "
            "select * from unnest(%s::bigint[], %s::uuid[], %s::text[], %s::bigint[], %s::bigint[], %s::timestamptz[]) "
            "on conflict do nothing", [list(column) for column in zip(*rows.values())])
        return events

    def send(self, events):
        for kind, messages in events.items():
            if messages:
                self.cluster.produce(self.topic(kind), messages)

    def publish(self, count, integration=None):
        events = self.record(self.make(count, integration))
        self.send(events)
        return events

    def counters(self):
        return counters(self.app)

    def offsets(self):
        """{(topic, partition): next offset} in the database."""
        return {(t, p): n for t, p, n in self.app.query(
            "select topic, partition, next_offset from {s}.consumer_offsets where consumer_group = %s "
            "and topic = any(%s)", (self.group, [self.topic(kind) for kind in TYPES]))}

    def ends(self):
        return {(self.topic(kind), p): high
                for kind in TYPES for p, (_, high) in self.cluster.watermarks(self.topic(kind)).items()}

    def wait_caught_up(self, deadline=60):
        ends = self.ends()
        wait_for(lambda: self.offsets() == ends, deadline, lambda: f"offsets {ends}, now {self.offsets()}", interval=0.05)

    def check(self, deadline=60):
        """Everything published is counted, once."""
        self.wait_caught_up(deadline)
        assert self.counters() == self.expected

    def wait_folded(self):
        """Until the integrations' own counters hold all that is counted: ten seconds are promised."""
        wait_for(lambda: not self.app.value("select count(*) from {s}.integration_runtime "
                                            "where sent <> sent_folded or failed <> failed_folded"), 30, "counters to follow")
        own = self.app.query("select id, successful_sends, failed_sends from {s}.integrations")
        return collections.Counter({(i, kind): n for i, *counts in own for kind, n in zip(TYPES, counts) if n})

    def dead_letters(self):
        """As dicts, in order."""
        rows = self.app.query("select to_jsonb(d) - 'published_at', key, value from {s}.dead_letters d "
                              "order by topic, partition, \"offset\"")
        return [{**d, "key": key if key is None else bytes(key),
                 "value": value if value is None else bytes(value)} for d, key, value in rows]

    def foreign(self):
        return self.app.value("select coalesce(sum(foreign_messages), 0)::int from {s}.consumer_offsets")

    def rewind(self):
        """As if nothing had been read; what was handled stays known."""
        self.app.query("update {s}.consumer_offsets set next_offset = 0")


@pytest.fixture
def scene(app, broker):
    return Scene(app, broker)


@pytest.fixture
def real_scene(app, real_kafka, topic_prefix):
    for kind in (*TYPES, "created", "retried"):
        real_kafka.create_topic(f"{topic_prefix}subscriptions.{kind}", PARTITIONS)
    return Scene(app, real_kafka, topic_prefix)


@pytest.fixture
def make_member(make_daemon, real_scene):
    """make_member(name, settings): a daemon whose consumers work on the real scene."""
    def make(name="anubisd1", settings=None, **arguments):
        ours = {"consumers": {**SETTINGS["consumers"], "group_prefix": real_scene.group_prefix},
                "kafka": {"topic_prefix": real_scene.prefix}}
        return make_daemon(merged(ours, settings), kafka=real_scene.cluster, name=name, **arguments)
    return make


def logged(daemon, text):
    return daemon.log.count(text)


# --- counting ---


def test_counters_follow_the_topics(scene, make_daemon):
    scene.publish(500)
    make_daemon(SETTINGS).start()
    scene.check()
    scene.publish(500)
    scene.check()
    wait_for(lambda: scene.cluster.group_offsets(GROUP, [scene.topic(k) for k in TYPES]) ==
             {k: n for k, n in scene.ends().items() if n}, what="Kafka's committed offsets to follow")
    assert scene.dead_letters() == []


def test_several_threads_share_the_partitions(scene, make_daemon):
    daemon = make_daemon({"consumers": {**SETTINGS["consumers"], "threads": 3}}).start()
    daemon.wait_log(r"integration-group/3: has taken over", 60)
    for _ in range(10):
        scene.publish(300)
    scene.check()


def test_unrouted_events_count_for_nobody(scene, make_daemon):
    scene.send(scene.record({"failed": [event("failed", 7, 1, None)]}))
    make_daemon(SETTINGS).start()
    scene.check()
    assert scene.dead_letters() == []


def test_duplicates_in_one_batch_and_across_batches(scene, make_daemon):
    first = scene.record(scene.make(300))
    scene.send({kind: messages * 3 for kind, messages in first.items()})
    make_daemon(SETTINGS).start()
    scene.check()
    scene.send(first)
    scene.publish(100)
    scene.send(first)
    scene.check()


def test_redelivery_of_everything_changes_nothing(scene, make_daemon):
    events = scene.publish(2000)
    bad = {"sent": [event("sent", n, 10 ** 6 + n, 10 ** 6) for n in range(5)]}
    scene.send(scene.record(bad))
    daemon = make_daemon(SETTINGS).start()
    scene.check()
    letters = scene.dead_letters()
    assert len(letters) == 5
    for _ in range(3):
        daemon.term()
        scene.rewind()
        scene.send(events)
        daemon.start()
        scene.check()
    assert scene.dead_letters() == letters


def test_bits_are_where_sql_finds_them(scene, make_daemon):
    sent = event("sent", 5, 8192 * 3 + 77, scene.integrations[0])
    scene.expected[scene.integrations[0], "sent"] = 1
    scene.send(scene.record({"sent": [sent]}))
    make_daemon(SETTINGS).start()
    scene.check()
    assert scene.app.query("select event_type, partition, chunk, version, get_bit(bits, 77), bit_count "
                           "from {s}.consumer_bitmaps, "
                           "lateral (select sum(get_bit(bits, n))::int bit_count from generate_series(0, 8191) n) c") == \
        [("sent", sent["partition"], 3, 1, 1, 1)]


# --- messages that are none ---


def bad_messages(integration):
    """(reason, event)"""
    def made(reason, subscription, **changes):
        return reason, event("sent", subscription, 500000 + subscription, integration, **changes)
    return [
        made("the value is not JSON", 1, value="{\"subscription\":"),
        made("the value is not JSON", 2, value=b"\xff\xfe\x00binary"),
        made("the value is empty", 3, value=b""),
        made("the value is empty", 4, value=None),
        made("the value is not JSON", 5, value="[" * 1000 + "]" * 1000),
        made("the value is not JSON", 6, value=b"x" * 990000),
        made("the value is no event of a subscription", 7, value="{\"cpf\":\"" + CPF + "\"}"),
        made("the key is not the subscription's id", 8, key="9"),
        made("the key is not the subscription's id", 9, key=b""),
        made("the key is not the subscription's id", 10, key=b"\x00\xff"),
        made("the header \"event_id\" is missing", 11, headers={"event_id": None}),
        made("the header \"event_type\" is malformed", 12, headers={"event_type": "failed"}),
        made("the header \"sequence\" is malformed", 13, headers={"sequence": "-1"}),
        made("the header \"timestamp\" is malformed", 14, headers={"timestamp": b"", "cut": b"a\x00b\xff\"\\"}),
        ("the integration does not exist", event("sent", 15, 500015, 999999)),
        ("the integration does not exist", event("sent", 16, 500016, 2 ** 63 - 1)),
    ]


def test_bad_messages_are_put_aside_and_the_others_counted(scene, make_daemon):
    bad = bad_messages(scene.integrations[0])
    for reason, message in bad:
        scene.publish(20)
        if reason == "the integration does not exist":
            scene.record({"sent": [message]})
        scene.cluster.produce(scene.topic("sent"), [message])
    scene.publish(200)
    daemon = make_daemon(SETTINGS).start()
    scene.check()
    letters = scene.dead_letters()
    assert sorted(d["error"] for d in letters) == sorted(reason for reason, _ in bad)
    by_reason = {d["error"]: d for d in letters}
    cut = by_reason["the header \"timestamp\" is malformed"]
    assert cut["headers"]["cut"] == "a\ufffdb\ufffd\"\\"
    assert cut["headers"]["sequence"] == "500014" and cut["key"] == b"14" and cut["topic"] == scene.topic("sent")
    assert json.loads(cut["value"])["subscription"]["id"] == 14
    assert {len(d["value"]) for d in letters if d["value"]} >= {990000, 2000}
    assert {d["value"] for d in letters if d["error"] == "the value is empty"} == {b"", None}
    assert logged(daemon, "cannot handle the message") >= 10
    assert CPF not in daemon.log and "xxxxx" not in daemon.log
    # They do not come back, and neither do the good ones.
    daemon.term()
    scene.rewind()
    daemon.start()
    scene.publish(50)
    scene.check()
    assert scene.dead_letters() == letters


def test_a_dead_letter_can_be_published_again_once_its_integration_exists(scene, make_daemon):
    early = event("sent", 3, 77, 5000)
    scene.send(scene.record({"sent": [early]}))
    make_daemon(SETTINGS).start()
    scene.check()
    assert len(scene.dead_letters()) == 1
    scene.app.query("insert into {s}.integrations (id, name) overriding system value values (5000, 'late')")
    scene.expected[5000, "sent"] = 1
    for _ in range(3):
        scene.send({"sent": [early]})
    scene.check()
    assert len(scene.dead_letters()) == 1


def test_messages_of_others_are_counted_and_passed_over(scene, make_daemon):
    scene.publish(100)
    scene.cluster.produce(scene.topic("sent"), [{"key": "1", "value": "{\"event_type\":\"sent\"}", "partition": 0},
                                                {"value": b"\xff", "partition": 1, "headers": [("event_type", "sent")]},
                                                {"key": None, "value": None, "partition": 2}])
    daemon = make_daemon(SETTINGS).start()
    scene.publish(100)
    scene.check()
    assert scene.foreign() == 3 and scene.dead_letters() == []
    assert "cannot handle" not in daemon.log


def test_what_the_ledger_does_not_have_counts_for_nothing(scene, make_daemon):
    """Invented events, and those of a future that a restore has taken back: they mark nothing either, so that the ledger's own
    events with their ids count, before or behind them."""
    first, second = scene.integrations[:2]
    true = scene.record(scene.make(300))
    forged = {kind: [] for kind in TYPES}
    for kind, messages in true.items():
        for n, message in enumerate(messages):
            headers, subscription = dict(message["headers"]), int(message["key"])
            sequence, integration = int(headers["sequence"]), int(headers["integration_id"])
            forged[kind].append([
                event(kind, subscription, sequence, first if integration != first else second),
                event(kind, subscription + 3, sequence, integration),
                event(kind, subscription, sequence, integration, headers={"timestamp": TIMESTAMP.replace("39", "40")}),
                event(kind, subscription, sequence, None), event(kind, subscription, sequence, integration)][n % 5])
    far = [event("sent", n, sequence, first) for n, sequence in enumerate((10 ** 5, 10 ** 9, 2 ** 62, 2 ** 63 - 1), 1)]
    count = sum(len(messages) for messages in forged.values()) + len(far)
    scene.send(forged)
    scene.send({"sent": far})
    daemon = make_daemon(SETTINGS).start()
    scene.wait_caught_up()
    assert not scene.counters()
    scene.send(true)
    scene.send(forged)
    scene.publish(50)
    scene.check()
    assert scene.app.value("select sum(unknown_events) from {s}.consumer_offsets") >= count + 4
    assert scene.foreign() == 0 and scene.dead_letters() == []
    daemon.wait_log(r"passes over \d+ events in the name of this installation that are not in its ledger, or not in their part")
    assert logged(daemon, "not in its ledger") == 1
    # All over again, with forged and true ones in one batch.
    daemon.term()
    scene.rewind()
    scene.app.query("delete from {s}.consumer_bitmaps; delete from {s}.integration_stats_spans")
    scene.app.query("update {s}.integration_runtime set sent = 0, failed = 0, sent_folded = 0, failed_folded = 0")
    scene.app.query("update {s}.integrations set successful_sends = 0, failed_sends = 0")
    daemon.start()
    scene.check()


@pytest.mark.parametrize("first", ["the event", "the copy"])
def test_a_copy_in_another_partition_counts_for_nothing(scene, make_daemon, first):
    """As a tool with another partitioner writes what it has read. An event counts where the relay publishes it."""
    daemon = make_daemon(SETTINGS).start()
    scene.publish(50)
    scene.check()
    events = scene.record(scene.make(200))
    copies = {kind: [{**m, "partition": (m["partition"] + 1) % PARTITIONS} for m in messages]
              for kind, messages in events.items()}
    for these in (events, copies) if first == "the event" else (copies, events):
        scene.send(these)
        scene.wait_caught_up()
    scene.check()
    daemon.wait_log(r"passes over \d+ events in the name of this installation that are not in its ledger, or not in their part")
    assert scene.dead_letters() == []


def test_what_the_database_refuses_is_found_among_the_others(scene, make_daemon):
    victim = scene.integrations[1]
    scene.app.query(f"alter table {{s}}.integration_runtime add check (integration_id <> {victim} or sent <= 3)")
    scene.publish(1000)
    scene.publish(20, victim)
    scene.publish(1000)
    make_daemon(SETTINGS).start()
    scene.wait_caught_up()
    refused = scene.expected[victim, "sent"] - 3
    assert len(scene.dead_letters()) == refused > 10
    assert {d["error"] for d in scene.dead_letters()} == {"the database refuses it (SQLSTATE 23514)"}
    scene.expected[victim, "sent"] = 3
    assert scene.counters() == scene.expected


def test_the_integrations_own_counters_follow(scene, make_daemon):
    daemon = make_daemon(SETTINGS).start()
    for _ in range(3):
        scene.publish(500)
        scene.check()
        assert scene.wait_folded() == scene.expected
    # Nothing is lost or added when they could not follow before the daemon's end.
    scene.publish(500)
    scene.wait_caught_up()
    daemon.kill9()
    daemon.start()
    assert scene.wait_folded() == scene.expected


@pytest.mark.parametrize("column_type, full", [("integer", 2147483647), ("bigint", 9223372036854775807)])
def test_a_full_counter_stops_no_others(scene, make_daemon, column_type, full):
    """Counters of an adopted table may be small, and NULL."""
    victim = scene.integrations[0]
    scene.app.query("select {s}.anubis_alter(%s)", ("alter table anubis.integrations alter failed_sends drop not null, "
                                                    f"alter successful_sends type {column_type}",))
    scene.app.query("update {s}.integrations set failed_sends = null, successful_sends = case id when %s then %s else 0 end",
                    (victim, full - 3))
    scene.app.query("insert into {s}.ledger_baseline (integration_id, successful_sends) values (%s, %s)", (victim, full - 3))
    scene.publish(400)
    daemon = make_daemon(SETTINGS).start()
    scene.wait_caught_up()
    daemon.wait_log(f"integration {victim} \".*\": successful_sends or failed_sends has reached the greatest number of its type")
    wait_for(lambda: scene.app.value("select count(*) from {s}.integration_runtime where sent <> sent_folded") == 1, 30,
             "the others to follow")
    assert scene.dead_letters() == []
    scene.expected[victim, "sent"] += full - 3
    assert scene.counters() == scene.expected


def test_a_rule_on_counters_stops_no_others(scene, make_daemon):
    victim = scene.integrations[1]
    scene.app.query(f"alter table {{s}}.integrations add check (id <> {victim} or successful_sends <= 3)")
    scene.publish(400)
    daemon = make_daemon(SETTINGS).start()
    scene.check()
    daemon.wait_log("the counters of some integrations cannot follow")
    wait_for(lambda: scene.app.value("select count(*) from {s}.integration_runtime where sent <> sent_folded") == 1, 30,
             "the others to follow")
    assert scene.app.value("select successful_sends from {s}.integrations where id = %s", (victim,)) == 0
    scene.app.query("update {s}.integrations set name = name")
    assert scene.dead_letters() == [] and scene.counters() == scene.expected


def test_a_group_without_a_coordinator_is_said(app, broker, institutions, make_daemon):
    """Kafka answers, but for the group: said long before a minute, and when it is over."""
    broker.error(10, 15, 100000)
    daemon = make_daemon({"log_level": "info"}).start()
    daemon.wait_log("has not been taken into its consumer group for 20 s, though Kafka answers: the group's coordinator is "
                    "away", 50)
    broker.command("clear 10")
    daemon.wait_log("is a member of its consumer group now, and reads on", 60)
    app.subscriptions(app.integration(institutions.url("/good")), 5)
    wait_for(lambda: app.value("select sum(sent) from {s}.integration_runtime") == 5, 60, "the counters")
    assert daemon.term() == 0


def test_a_broker_that_hangs_drowns_no_other_line(app, broker, institutions, make_daemon):
    """The library has lines for each request, connection and thread: they are one sentence, which is folded."""
    daemon = make_daemon({"log_level": "debug", "kafka": {"properties": {"socket_timeout_ms": 1000}}}).start()
    app.subscriptions(app.integration(institutions.url("/good")), 5)
    wait_for(lambda: app.value("select sum(sent) from {s}.integration_runtime") == 5, 60, "the counters")
    broker.stop()
    before = len(daemon.log)
    raw = r"debug: Kafka client: (REQTMOUT|APIVERSION): "
    wait_for(lambda: len(re.findall(raw, daemon.log[before:])) >= 15, 120, "lines of the library")
    broker.cont()
    said = re.findall(r"warning: .*Kafka client: .*", daemon.log[before:])
    assert said and len(said) * 2 < len(re.findall(raw, daemon.log[before:])), said
    assert all("the broker at" in line for line in said), said
    assert daemon.term() == 0


def test_a_rebalance_that_lasts_holds_up_no_messages(scene, make_daemon):
    """Kafka answers a member's questions in turn: while it joins again, none is answered."""
    daemon = make_daemon({"consumers": {"session_timeout": "25s", "heartbeat_interval": "500ms"}}).start()
    scene.publish(50)
    scene.check()
    other = scene.cluster._consumer(GROUP, **{"partition.assignment.strategy": "cooperative-sticky", "session.timeout.ms": 25000})
    try:
        other.subscribe([scene.topic(kind) for kind in TYPES])
        other.poll(0.5)
        scene.publish(1)
        daemon.wait_log("could not read the committed offset")
        scene.publish(6000)
        scene.check(deadline=10)
        assert logged(daemon, "hands back") == 0
    finally:
        other.close()


# --- the database goes away ---


@pytest.fixture
def fragile(own_postgres, broker):
    """(server, scene) on a Postgres of the test's own."""
    from conftest import migrate
    from harness.application import Application
    server = own_postgres()
    database = server.create_database("anubis")
    migrate(database)
    return server, Scene(Application(database), broker)


def test_postgres_is_killed_and_comes_back(fragile, make_daemon):
    server, scene = fragile
    daemon = make_daemon(SETTINGS, database=scene.app.database).start()
    scene.publish(300)
    scene.check()
    for _ in range(3):
        scene.publish(300)
        later = scene.record(scene.make(300))
        server.kill9()
        scene.send(later)
        daemon.wait_log(rf"{GROUP}: waits for the database")
        server.start()
        scene.check()
    assert logged(daemon, f"{GROUP}: the database is back") >= 3
    # Its membership stayed: partitions came once.
    assert logged(daemon, "has taken over") == 1
    assert scene.dead_letters() == []


def test_postgres_hangs_for_longer_than_a_statement_may(fragile, make_daemon):
    server, scene = fragile
    daemon = make_daemon({**SETTINGS, "database": {"statement_timeout": "1s", "connect_timeout": "1s"}},
                         database=scene.app.database).start()
    scene.publish(300)
    scene.check()
    later = scene.record(scene.make(300))
    server.freeze()
    try:
        scene.send(later)
        daemon.wait_log(rf"{GROUP}: waits for the database")
    finally:
        server.thaw()
    scene.check()
    assert logged(daemon, "has taken over") == 1 and scene.dead_letters() == []


def test_sessions_are_cut_under_load(fragile, make_daemon):
    server, scene = fragile
    make_daemon(SETTINGS, database=scene.app.database).start()
    for _ in range(15):
        scene.publish(200)
        server.terminate_backends("anubisd%integration-group%", "anubis")
    scene.check()
    assert scene.dead_letters() == []


def test_a_table_that_is_missing_is_waited_for(scene, make_daemon):
    scene.app.query("alter table {s}.consumer_bitmaps rename to elsewhere")
    scene.publish(100)
    daemon = make_daemon(SETTINGS).start()
    missing = 'error: the tables are not as anubisd made them: table "consumer_bitmaps" is named anubis.elsewhere now'
    daemon.wait_log(missing)
    time.sleep(1)
    assert daemon.is_running() and not scene.counters()
    scene.app.query("alter table {s}.elsewhere rename to consumer_bitmaps")
    scene.check()
    assert logged(daemon, missing) == 1 and scene.dead_letters() == []


def test_the_daemon_starts_before_its_database(fragile, make_daemon):
    server, scene = fragile
    scene.publish(100)
    scene.wait_ends = scene.ends()
    server.stop()
    daemon = make_daemon(SETTINGS, database=scene.app.database).start()
    daemon.wait_log(rf"{GROUP}: waits for the database")
    server.start()
    scene.check()


def test_locks_on_counts_are_waited_for(scene, make_daemon):
    """Others lock rows in another order: whoever is the deadlock's victim, the batch is done again."""
    daemon = make_daemon(SETTINGS).start()
    scene.publish(50)
    scene.check()
    connection = scene.app.database.connect()
    connection.autocommit = False
    touch = "update anubis.integration_runtime set circuit_state = circuit_state where integration_id = %s"
    for _ in range(5):
        with connection.cursor() as cursor:
            cursor.execute(touch, (scene.integrations[-1],))
            scene.publish(200)
            wait_for(lambda: scene.app.value("select count(*) from pg_stat_activity where wait_event_type = 'Lock' "
                                             "and datname = current_database()"), what="the consumer to wait for the row")
            try:
                cursor.execute(touch, (scene.integrations[0],))
            except psycopg2.errors.DeadlockDetected:
                pass
        connection.rollback()
    connection.close()
    scene.check()
    assert daemon.is_running() and scene.dead_letters() == []


def test_counters_of_before_that_a_mapper_writes_back_do_not_stay(scene, make_daemon):
    """All columns of a row, as they were read before, again and again while it counts; what was there before the ledger stays."""
    app, victim = scene.app, scene.integrations[0]
    app.query("insert into {s}.ledger_baseline (integration_id, successful_sends, failed_sends) values (%s, 5000, 70)", (victim,))
    app.query("update {s}.integrations set successful_sends = 5000, failed_sends = 70 where id = %s", (victim,))
    scene.expected[victim, "sent"] += 5000
    scene.expected[victim, "failed"] += 70
    make_daemon(SETTINGS).start()
    columns = [name for name, in app.query(
        "select column_name::text from information_schema.columns where table_schema = 'anubis' and table_name = 'integrations' "
        "and column_name not in ('id', 'name')")]
    saved = app.query("select to_jsonb(i) from {s}.integrations i where id = %s", (victim,))[0][0]
    write = ("update {s}.integrations i set (" + ", ".join(columns) + ") = (select " + ", ".join(f"x.{c}" for c in columns)
             + " from jsonb_populate_record(null::{s}.integrations, %s::jsonb) x), name = %s where i.id = %s")
    for number in range(20):
        scene.publish(40)
        app.query(write, (json.dumps(saved), f"saved {number}", victim))
        if number % 5 == 4:
            scene.wait_caught_up()
            saved = app.query("select to_jsonb(i) from {s}.integrations i where id = %s", (victim,))[0][0]
    scene.wait_caught_up()
    wait_for(lambda: scene.wait_folded() == scene.expected, 30, "the counters")
    # When nothing is counted any more.
    app.query("update {s}.integrations set successful_sends = 5001 where id = %s", (victim,))
    wait_for(lambda: scene.wait_folded() == scene.expected, 30, "the counters once more")
    assert app.value("select name from {s}.integrations where id = %s", (victim,)) == "saved 19"


def test_an_integration_that_is_edited_holds_up_no_counting(scene, make_daemon):
    """Enrolments under way, and edits that are not committed: counts go on, and the counters follow afterwards."""
    first, last = scene.integrations[0], scene.integrations[-1]
    daemon = make_daemon(SETTINGS).start()
    scene.publish(50)
    scene.check()
    enrolment, editor, other = (scene.app.database.connect(autocommit=False) for _ in range(3))
    enrolment.cursor().execute("insert into anubis.subscriptions (integration_id) values (%s)", (first,))
    editor.cursor().execute("update anubis.integrations set name = 'x' where id = %s", (first,))
    other.cursor().execute("update anubis.integrations set successful_sends = successful_sends + 1000, "
                           "failed_sends = failed_sends + 1000 where id = %s", (last,))
    scene.publish(500)
    scene.check()
    for connection in (editor, other):
        connection.commit()
    enrolment.rollback()
    wait_for(lambda: scene.wait_folded() == scene.expected, 30, "the counters, without what another one added")
    assert logged(daemon, "deadlock") == 0
    for connection in (enrolment, editor, other):
        connection.close()


# --- where to go on ---


def test_new_events_below_what_was_read_are_said(scene, broker, make_daemon):
    """As after a broker lost its end: here because marks are gone."""
    daemon = make_daemon(SETTINGS).start()
    scene.publish(50)
    scene.check()
    wait_for(lambda: broker.lag(GROUP, [scene.topic(kind) for kind in TYPES]) == 0, 30, "Kafka to know how far that is")
    scene.app.query("delete from {s}.consumer_bitmaps")
    broker.down()
    daemon.wait_log(f"{GROUP}: could not reach Kafka")
    broker.up()
    daemon.wait_log(r'was read up to offset \d+, but has new events from offset 0 on .* What Kafka has lost before it was read '
                    'is published again; should "anubisctl verify" go on naming events that are not handled, run "anubisctl ')


def test_the_databases_offset_wins_over_kafkas(scene, make_daemon):
    """After a restore the database is behind: what it lost is counted again, though Kafka says it was read."""
    scene.publish(500)
    daemon = make_daemon(SETTINGS).start()
    scene.check()
    daemon.term()
    scene.app.query("update {s}.consumer_offsets set next_offset = 0")
    scene.app.query("delete from {s}.consumer_bitmaps; delete from {s}.integration_stats_spans")
    scene.app.query("update {s}.integrations set successful_sends = 0, failed_sends = 0")
    scene.app.query("update {s}.integration_runtime set sent = 0, failed = 0, sent_folded = 0, failed_folded = 0")
    daemon.start()
    scene.check()


# As an application that published by itself may have them: see test_another_group_counts_nothing_twice().
THEIR_ENVIRONMENT = {"KAFKA_CLIENT_ID": "anubis-development", "KAFKA_GROUP_ID": "anubis-consumers-dev",
                     "KAFKA_HEARTBEAT_INTERVAL": "5000", "KAFKA_SESSION_TIMEOUT": "15000", "KAFKA_MAX_POLL_RECORDS": "50",
                     "KAFKA_SECURITY_PROTOCOL": "plaintext"}


@pytest.mark.parametrize("change", [{"consumers": {"group_prefix": "novo"}}, {"instance": "other", "consumers": {"threads": 3}},
                                    THEIR_ENVIRONMENT], ids=["group", "threads", "environment"])
def test_another_group_counts_nothing_twice(scene, make_daemon, change):
    """The marks are the counters', not the group's: what another name reads from the beginning is handled already."""
    scene.publish(500)
    daemon = make_daemon(SETTINGS).start()
    scene.check()
    daemon.term()
    settings, env = ({}, change) if change is THEIR_ENVIRONMENT else (change, {})
    scene.group = f"{env.get('KAFKA_GROUP_ID') or settings['consumers'].get('group_prefix', 'anubis')}-integration-group"
    scene.app.query("delete from {s}.consumer_offsets")
    daemon = make_daemon(merged(SETTINGS, settings), env=env).start()
    scene.publish(100)
    scene.check()


def test_a_topic_that_came_back_with_fewer_partitions_and_grew_again(scene, make_daemon):
    """What was handled in a partition that it had meanwhile is published again, in that of before: it counts once."""
    make_daemon(SETTINGS).start()
    note = "insert into {s}.relay_topics (topic, from_sequence, partitions) values (%s, %s, %s)"
    noted = "select from {s}.relay_topics where topic = %s"
    wait_for(lambda: scene.app.query(noted, (scene.topic("sent"),)), 60, "the relay to look")
    scene.app.query(note, (scene.topic("sent"), 10 ** 8, 1))
    events = scene.record(scene.make(100))
    scene.send({**events, "sent": [{**message, "partition": 0} for message in events["sent"]]})
    scene.check()
    scene.app.query(note, (scene.topic("sent"), 10 ** 8 + 1, PARTITIONS))
    scene.send(events)
    scene.publish(50)
    scene.check()


def test_two_groups_at_once_count_once(scene, make_daemon):
    """Somebody starts a second daemon with another group_prefix beside the first."""
    daemons = [make_daemon(merged(SETTINGS, {"instance": name, "consumers": {"group_prefix": name}})).start() for name in "ab"]
    for _ in range(5):
        scene.publish(400)
    for name in "ab":
        scene.group = f"{name}-integration-group"
        scene.check(120)
    assert all(d.is_running() for d in daemons)


def test_another_topic_prefix_counts_nothing_twice(scene, make_daemon):
    """What Kafka is brought once more under another name, as by a copy of the topics to another cluster."""
    events = scene.publish(300)
    daemon = make_daemon(SETTINGS).start()
    scene.check()
    daemon.term()
    scene.prefix = "copy."
    scene.cluster.create_anubis_topics(scene.prefix)
    scene.send(events)
    make_daemon(merged(SETTINGS, {"kafka": {"topic_prefix": "copy."}})).start()
    scene.check()


def test_an_operator_moves_the_offset_of_a_running_daemon(scene, make_daemon):
    daemon = make_daemon(SETTINGS).start()
    scene.publish(500)
    scene.check()
    scene.rewind()
    scene.publish(100)
    daemon.wait_log("somebody else has moved the offset")
    scene.check()


def test_a_bitmap_written_by_somebody_else_rolls_the_batch_back(scene, make_daemon):
    daemon = make_daemon(SETTINGS).start()
    scene.publish(50)
    scene.check()
    # Another owner has handled everything up to here, and a while more, in our chunks.
    scene.app.query("update {s}.consumer_bitmaps set version = version + 1, bits = decode(repeat('ff', 1024), 'hex')")
    known = {(t, p): set(c) for t, p, c in scene.app.query(
        "select event_type, partition, array_agg(chunk) from {s}.consumer_bitmaps group by 1, 2")}
    events = scene.record(scene.make(50))
    for kind, messages in events.items():
        for m in messages:
            sequence = int(dict(m["headers"])["sequence"])
            if sequence // 8192 in known.get((kind, m["partition"]), ()):
                scene.expected[int(dict(m["headers"])["integration_id"]), kind] -= 1
    scene.expected = +scene.expected
    scene.send(events)
    scene.check()
    daemon.wait_log("somebody else has moved")


def test_a_log_that_ends_before_where_we_stood(scene, make_daemon):
    scene.publish(100)
    daemon = make_daemon(SETTINGS).start()
    scene.check()
    daemon.term()
    scene.app.query("update {s}.consumer_offsets set next_offset = 5000 where topic = %s and partition = 1",
                    (scene.topic("sent"),))
    daemon.start()
    daemon.wait_log(r"partition 1 of .*sent\" ends at offset \d+, but was read up to 5000", 60)
    scene.publish(100)
    scene.check()


def test_messages_that_are_gone_are_said_loudly(app, make_daemon):
    with EmbeddedBroker(topics={}) as broker:
        scene = Scene(app, broker)
        scene.publish(100)
        daemon = make_daemon(SETTINGS, kafka=broker).start()
        scene.check()
        daemon.term()
        # More than the embedded broker keeps.
        lost = {"sent": [event("sent", 1, 10 ** 6 + n, scene.integrations[0], words="x" * 100000) for n in range(150)]}
        scene.send(lost)
        first = scene.cluster.watermarks(scene.topic("sent"))[lost["sent"][0]["partition"]][0]
        assert first > 100, "the broker has forgotten nothing"
        daemon.start()
        daemon.wait_log(r"\d+ messages of \"anubis.subscriptions.sent\", partition \d, are gone before they were read", 60)
        scene.publish(100)
        scene.check()


# --- Kafka goes away ---


def test_kafka_is_away_and_comes_back(scene, make_daemon):
    daemon = make_daemon(SETTINGS).start()
    scene.publish(100)
    scene.check()
    scene.cluster.down()
    daemon.wait_log(rf"{GROUP}: could not reach Kafka", 60)
    scene.cluster.up()
    daemon.wait_log(rf"{GROUP}: Kafka is back", 60)
    scene.publish(100)
    scene.check()


@pytest.mark.parametrize("away", ["kafka", "postgres", "both"])
def test_stopping_does_not_wait_for_who_is_away(fragile, make_daemon, away):
    server, scene = fragile
    daemon = make_daemon(SETTINGS, database=scene.app.database).start()
    scene.publish(100)
    scene.check()
    if away != "postgres":
        scene.cluster.down()
        daemon.wait_log(rf"{GROUP}: could not reach Kafka", 60)
    later = scene.record(scene.make(100))
    if away != "kafka":
        server.kill9()
    if away == "postgres":
        scene.send(later)
        daemon.wait_log(rf"{GROUP}: waits for the database", 60)
    before = time.monotonic()
    assert daemon.term() == 0
    assert time.monotonic() - before < 30


def test_only_the_consumers_get_no_session(fragile, make_daemon):
    """The role's limit is reached: said once, and once when it is over."""
    _, scene = fragile
    scene.app.query("create role few login in role postgres")
    daemon = make_daemon(SETTINGS, database=scene.app.database.conninfo(user="few")).start()
    scene.publish(100)
    scene.check()
    scene.app.query("alter role few connection limit 0")
    assert scene.app.value("select count(pg_terminate_backend(pid)) from pg_stat_activity where application_name = %s",
                           (f"anubisd {GROUP}",)) == 1
    scene.publish(100)
    daemon.wait_log(rf"{GROUP}: has no session with the database, while deliveries have theirs: .*too many connections", 60)
    daemon.wait_log(rf"{GROUP}: waits for the database", 60, count=logged(daemon, "waits for the database") + 1)
    scene.app.query("alter role few connection limit -1")
    daemon.wait_log(rf"{GROUP}: the database takes it again", 60)
    scene.check()
    assert logged(daemon, "has no session with") == 1


# --- on real Kafka: members come and go ---


@pytest.mark.real_kafka
def test_real_kafka_from_the_beginning_and_on(real_scene, make_member):
    real_scene.publish(3000)
    make_member().start()
    real_scene.check()
    real_scene.publish(3000)
    real_scene.check()


@pytest.mark.real_kafka
@pytest.mark.timeout(600)
def test_members_come_and_go_under_load(real_scene, make_member):
    members = [make_member(f"member{n}") for n in range(3)]
    chance = random.Random(3)
    enough = threading.Event()

    def load():
        while not enough.wait(0.05):
            real_scene.publish(200)
    publisher = threading.Thread(target=load)
    publisher.start()
    try:
        for turn in range(15):
            member = chance.choice(members)
            if not member.is_running():
                member.start()
                wait_for(lambda m=member: "has taken over" in m.log, 60, "its partitions")
            elif turn % 2:
                member.kill9()
            else:
                member.term()
    finally:
        enough.set()
        publisher.join()
    for member in members:
        if not member.is_running():
            member.start()
    real_scene.check(120)
    assert real_scene.sequence > 10000 and real_scene.dead_letters() == []


@pytest.mark.real_kafka
@pytest.mark.timeout(600)
def test_a_member_that_was_thought_dead_changes_nothing(real_scene, make_member):
    zombie, heir = make_member("zombie"), make_member("heir")
    zombie.start()
    real_scene.publish(500)
    real_scene.check()
    heir.start()
    for _ in range(3):
        real_scene.publish(2000)
        zombie.stop()  # somewhere in the middle of a batch, or of a transaction
        try:
            real_scene.publish(500)
            wait_for(lambda: real_scene.offsets() == real_scene.ends(), 60, "the heir to take everything over")
        finally:
            zombie.cont()
        real_scene.publish(500)
        real_scene.check()
    assert real_scene.dead_letters() == []


@pytest.mark.real_kafka
def test_a_member_frozen_in_its_transaction_stands_in_nobodys_way(real_scene, make_member):
    zombie, heir = make_member("zombie"), make_member("heir")
    zombie.start()
    heir.start()
    heir.wait_log("has taken over", 60)
    real_scene.publish(200)
    real_scene.check()
    connection = real_scene.app.database.connect()
    connection.autocommit = False
    try:
        with connection.cursor() as cursor:
            cursor.execute("select from anubis.integration_runtime for update")
        real_scene.publish(500)
        wait_for(lambda: real_scene.app.value(
            "select count(*) from pg_stat_activity where application_name like 'anubisd %%integration-group' "
            "and datname = current_database() and wait_event_type = 'Lock'") == 2, 30, "both to be in a transaction")
        zombie.stop()
    finally:
        connection.rollback()
        connection.close()
    try:
        wait_for(lambda: real_scene.offsets() == real_scene.ends(), 60, "the heir to take everything over")
    finally:
        zombie.cont()
    real_scene.publish(500)
    real_scene.check()
    assert real_scene.dead_letters() == []


@pytest.mark.real_kafka
def test_two_processes_of_one_name(real_scene, make_member):
    first, second = (make_member(name, {"instance": "twin"}) for name in ("twin1", "twin2"))
    first.start()
    real_scene.publish(200)
    real_scene.check()
    second.start()
    second.wait_log("another process is \"twin-1-[0-9a-f]{8}\", so this one joins without a fixed name", 60)
    second.wait_log("has taken over", 60)
    for _ in range(3):
        real_scene.publish(500)
    real_scene.check()
    for member in (first, second):
        assert "ended this membership" not in member.log


@pytest.mark.real_kafka
def test_a_restart_keeps_the_partitions(real_scene, make_member):
    """Static membership: the others do not notice a quick restart."""
    settings = {"consumers": {"session_timeout": "30s", "heartbeat_interval": "500ms"}}
    one, two = make_member("one", settings), make_member("two", settings)
    one.start()
    two.start()
    two.wait_log("has taken over", 60)
    real_scene.publish(200)
    real_scene.check()
    seen = logged(one, "partitions")
    two.term()
    two.start()
    two.wait_log("has taken over", 60)
    real_scene.publish(500)
    real_scene.check()
    assert logged(one, "partitions") == seen


@pytest.mark.real_kafka
def test_a_restart_with_other_topics(real_scene, make_member):
    """Kafka gives a static member that comes back what it had before."""
    daemon = make_member().start()
    real_scene.publish(200)
    real_scene.check()
    daemon.term()
    real_scene.prefix += "other."
    for kind in TYPES:
        real_scene.cluster.create_topic(real_scene.topic(kind), PARTITIONS)
    daemon.write(kafka={"topic_prefix": real_scene.prefix})
    daemon.start()
    real_scene.publish(200)
    wait_for(lambda: real_scene.counters() == real_scene.expected, 60, "the new topics to be read")


@pytest.mark.real_kafka
@pytest.mark.timeout(600)
def test_real_kafka_is_killed_and_comes_back(real_scene, make_member):
    make_member().start()
    for _ in range(2):
        real_scene.publish(1000)
        real_scene.cluster.kill9()
        real_scene.cluster.start()
        real_scene.publish(1000)
        real_scene.check(120)


@pytest.mark.real_kafka
def test_topics_that_come_later(app, real_kafka, topic_prefix, make_daemon):
    scene = Scene(app, real_kafka, topic_prefix)
    daemon = make_daemon({"consumers": {**SETTINGS["consumers"], "group_prefix": scene.group_prefix},
                          "kafka": {"topic_prefix": topic_prefix, "create_topics": False}}, kafka=real_kafka).start()
    daemon.wait_log("waits for 4 topics not there yet", 60)
    real_kafka.create_topic(f"{topic_prefix}subscriptions.sent", PARTITIONS)
    daemon.wait_log("has taken over 3 partitions", 60)
    real_kafka.create_topic(f"{topic_prefix}subscriptions.failed", PARTITIONS)
    scene.publish(500)
    scene.check(90)


@pytest.mark.real_kafka
def test_a_topic_is_made_anew_under_way(real_scene, make_member):
    daemon = make_member(settings={"kafka": {"create_topics": False}}).start()
    real_scene.publish(2000)
    real_scene.check()
    topic = real_scene.topic("sent")
    real_scene.cluster.delete_topic(topic)
    real_scene.cluster.create_topic(topic, PARTITIONS)
    real_scene.publish(200)
    daemon.wait_log("it was made anew", 120)
    real_scene.check(120)


@pytest.mark.real_kafka
@pytest.mark.parametrize("running", [True, False])
def test_a_topic_that_is_made_anew_and_outgrows_the_old_one(real_scene, make_member, running):
    """What stands at our offset is then another message, and those before it were never read."""
    daemon = make_member(settings={"kafka": {"create_topics": False}}).start()
    for _ in range(2):  # what is told the second time follows from an answer to the first
        real_scene.publish(500)
        real_scene.check()
        topics = [real_scene.topic(k) for k in TYPES]
        wait_for(lambda: real_scene.cluster.group_offsets(real_scene.group, topics) == real_scene.ends(),
                 what="Kafka's committed offsets to follow")
    if not running:
        daemon.term()
    topic = real_scene.topic("sent")
    real_scene.cluster.delete_topic(topic)
    real_scene.cluster.create_topic(topic, PARTITIONS)
    real_scene.publish(3000)
    if not running:
        daemon.start()
    daemon.wait_log("Kafka has no offset of this group", 60)
    wait_for(lambda: real_scene.counters() == real_scene.expected, 60, "the counters")
    real_scene.check()


@pytest.mark.real_kafka
def test_topics_are_made_anew_with_fewer_partitions(real_scene, make_member):
    """So quickly that nobody tells that the partition that stays is another one, and Kafka does not know where the group was."""
    daemon = make_member(settings={"kafka": {"create_topics": False}}).start()
    real_scene.publish(100)
    real_scene.check()
    topics = [real_scene.topic(kind) for kind in TYPES]
    for topic in topics:
        real_scene.cluster.replace_topic(topic, 1)
    made = real_scene.record(real_scene.make(200))
    real_scene.send({kind: [{**m, "partition": 0} for m in messages] for kind, messages in made.items()})
    wait_for(lambda: real_scene.counters() == real_scene.expected, 60, "the counters")
    assert daemon.term() == 0
    assert "left behind" not in daemon.log


def add_partitions(scene):
    """To one topic, with events in all of them."""
    scene.cluster.create_partitions(scene.topic("sent"), PARTITIONS + 2)
    # As the relay notes it, and publishes from then on.
    scene.app.query("insert into {s}.relay_topics (topic, from_sequence, partitions) values (%s, %s, %s)",
                    (scene.topic("sent"), 10 ** 7, PARTITIONS + 2))
    more = [dict(event("sent", n, 10 ** 7 + n, scene.integrations[0]),
                 partition=zlib.crc32(str(n).encode()) % (PARTITIONS + 2)) for n in range(1, 101)]
    assert {m["partition"] for m in more} == set(range(PARTITIONS + 2))
    scene.expected[scene.integrations[0], "sent"] += len(more)
    scene.send(scene.record({"sent": more}))


@pytest.mark.real_kafka
def test_partitions_are_added_under_way(real_scene, make_member):
    make_member().start()
    real_scene.publish(300)
    real_scene.check()
    add_partitions(real_scene)
    real_scene.check(120)


@pytest.mark.real_kafka
@pytest.mark.timeout(600)
@pytest.mark.parametrize("when", ["meanwhile", "afterwards"])
def test_partitions_are_added_about_a_restart(real_scene, make_member, when):
    """Kafka gives a member of the same name its former partitions at once, and no member looks for others then."""
    daemon = make_member().start()
    real_scene.publish(300)
    real_scene.check()
    assert daemon.term() == 0
    if when == "afterwards":
        daemon.start()
        daemon.wait_log("has taken over")
        real_scene.publish(100)
        real_scene.check()
    add_partitions(real_scene)
    if when == "meanwhile":
        daemon.start()
    real_scene.check(240)
    assert daemon.term() == 0


@pytest.mark.real_kafka
@pytest.mark.timeout(600)
def test_partitions_that_another_kafka_had_are_added_about_a_restart(real_scene, make_member):
    """The database has an offset of each, which says nothing of a reader here."""
    daemon = make_member().start()
    real_scene.publish(300)
    real_scene.check()
    assert daemon.term() == 0
    for partition in (PARTITIONS, PARTITIONS + 1):
        real_scene.app.query("insert into {s}.consumer_offsets (consumer_group, read_model, topic, partition, next_offset) "
                             "values (%s, 'integration', %s, %s, 7)", (real_scene.group, real_scene.topic("sent"), partition))
    add_partitions(real_scene)
    daemon.start()
    real_scene.check(240)
    assert daemon.term() == 0


@pytest.mark.real_kafka
@pytest.mark.timeout(600)
def test_a_broker_that_lost_its_end(real_scene, make_member):
    """A power cut under a consumer that had read everything: the new events lie where it stood, or before."""
    daemon = make_member()
    daemon.start()
    for _ in range(10):
        real_scene.publish(100)
    real_scene.check()
    for _ in range(2):
        ends = real_scene.ends()
        real_scene.cluster.kill9()
        real_scene.cluster.lose_tail(real_scene.topic("sent"), 0.6)
        real_scene.cluster.start()
        now = real_scene.ends()
        assert any(now[place] < ends[place] for place in ends), "the broker has lost nothing"
        while not all(real_scene.ends()[place] > ends[place] for place in ends):
            real_scene.publish(200)
        wait_for(lambda: real_scene.counters() == real_scene.expected, 90, "the new events to be counted")
    daemon.wait_log("has new events from offset|ends at offset|has no offset of this group")
    assert daemon.is_running() and real_scene.dead_letters() == []


@pytest.mark.slow
@pytest.mark.real_kafka
@pytest.mark.timeout(600)
def test_a_broker_that_lost_most_of_a_log_while_nobody_read_it(real_scene, make_member):
    """It has outgrown where the group stood, and what is read again at a start are new events alone: more of it is, then."""
    topics, place = [real_scene.topic(kind) for kind in TYPES], (real_scene.topic("sent"), 0)

    def publish(count):
        made = []
        while len(made) < count:
            made += [{**event("sent", n, real_scene.sequence + n, real_scene.integrations[0]), "partition": 0}
                     for n in range(1, 10 ** 5) if zlib.crc32(str(n).encode()) % PARTITIONS == 0][:1000]
            real_scene.sequence += 10 ** 5
        real_scene.expected[real_scene.integrations[0], "sent"] += count
        real_scene.record({"sent": made})
        for n in range(0, count, 1000):
            real_scene.send({"sent": made[n:n + 1000]})
    publish(22000)
    daemon = make_member().start()
    wait_for(lambda: real_scene.cluster.group_offsets(real_scene.group, topics).get(place) == 22000, 90, "all to be read")
    assert daemon.term() == 0
    real_scene.cluster.kill9()
    real_scene.cluster.lose_tail(place[0], 0.045)
    real_scene.cluster.start()
    assert real_scene.ends()[place] < 2000
    publish(22000)
    daemon.start()
    daemon.wait_log(r"was read up to offset 22000, but has new events from offset \d\d?\d? on|from offset 1000 on", 60)
    wait_for(lambda: real_scene.counters() == real_scene.expected, 60, "the new events to be counted")


def test_a_group_starts_with_few_round_trips(app, make_daemon):
    """Kafka is far away, and the topics have many partitions: it is asked for all of them together."""
    kinds = ("created", "updated", "sent", "failed", "retried")
    with EmbeddedBroker(prefix="near.", topics={f"far.subscriptions.{kind}": 64 for kind in kinds}) as broker:
        broker.rtt(100)
        daemon = make_daemon(merged(SETTINGS, {"kafka": {"topic_prefix": "far."}}), kafka=broker).start()
        taken = int(daemon.wait_log(r"has taken over (\d+) partitions", deadline=60).group(1))
        assert taken > 200
        wait_for(lambda: app.value("select count(*) from {s}.consumer_offsets") == taken, 40, "a place of each")
