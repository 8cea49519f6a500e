"""All five consumers together: they keep what a plain count over the ledger gives, whoever dies and whatever comes again."""
import collections
import contextlib
import json
import random
import threading
import time

import confluent_kafka as ck
import pytest
from harness.anubis import Ctl, merged
from harness.processes import wait_for
from test_consumer import counters

SETTINGS = {"retry": {"base_delay": "50ms", "max_delay": "100ms", "max_attempts": 3}, "log_level": "info",
            "delivery": {"timeout": "1s", "lease": "3s"},
            "consumers": {"session_timeout": "6s", "heartbeat_interval": "500ms"}}
GROUPS = ("integration", "monitoring", "external")
# What each group reads, and nothing else: what it does not need costs it nothing.
EVENTS = ["subscriptions.created", "subscriptions.sent", "subscriptions.failed", "subscriptions.retried"]
TOPICS = {"integration": EVENTS, "monitoring": [*EVENTS, "subscriptions.updated"],
          "external": ["subscriptions.sent", "confirmations"]}
# What must stay as it is when messages come again. The other columns of the evidence are of the rule that looks by the clock.
KEPT = {"integration_stats_spans": "t.*", "audit_trees": "topic, partition, size, roots", "audit_log": "t.*",
        "alert_evidence": "integration_id, recent", "dead_letters": "read_model, topic, partition, \"offset\", error",
        "confirmations": "subscription_id, status, external_id, contradicting"}


def model(app, confirming, said):
    """By the ledger, and by what the institution said: counters, hours, leaves of the audit log, confirmations."""
    results, hours, leaves, confirmed = collections.Counter(), collections.Counter(), collections.Counter(), {}
    for number, kind, integration, subscription, hour, took in app.query(
            "select id, event_type, integration_id, subscription_id, date_trunc('hour', created_at), duration_ms is not null "
            "from {s}.subscription_events where event_type is not null"):
        leaves[number] += 1
        results[integration, kind] += kind in ("sent", "failed")
        hours[integration, hour, kind] += kind != "updated"
        hours[integration, hour, "attempts"] += took and kind != "updated"
        if kind == "sent" and integration == confirming:
            confirmed.setdefault(subscription, "expected")
    for subscription, status in said:
        if confirmed.get(subscription, "expected") == "expected":
            confirmed[subscription] = status
    return +results, +hours, leaves, confirmed


def found(app):
    """The same, as the tables have it."""
    hours = collections.Counter()
    kinds = ("created", "sent", "failed", "retried", "attempts")
    for integration, hour, *counts in app.query(f"select integration_id, bucket, {', '.join(kinds)} "
                                                "from {s}.integration_stats"):
        hours.update({(integration, hour, kind): n for kind, n in zip(kinds, counts)})
    leaves = collections.Counter(n for n, in app.query("select sequence from {s}.audit_log"))
    return counters(app), +hours, leaves, dict(app.query("select subscription_id, status from {s}.confirmations"))


def kept(app):
    return {table: app.value(f"select md5(coalesce(string_agg(k::text, '|' order by k::text), '')) from "
                             f"(select {columns} from {{s}}.{table} t) k") for table, columns in KEPT.items()}


NEW_PREFIX = merged(SETTINGS, {"kafka": {"topic_prefix": "new."}})


def make_new_topics(broker):
    """With another number of partitions, so events come by others than those in which they are marked."""
    for kind in ("created", "updated", "sent", "failed", "retried"):
        broker.create_topic(f"new.subscriptions.{kind}", 5)
    for topic in ("alerts", "dead_letters", "metrics", "confirmations", "audit"):
        broker.create_topic(f"new.{topic}")


def publish_again(app):
    """As anubisctl(8) says, for consumers that have just begun to read the new topics."""
    wait_for(lambda: app.value("select high >= (select max(id) from {s}.subscription_events) from {s}.relay_state"), 60,
             "what is new to be published")
    app.query("update {s}.relay_state set epoch = epoch + 1, high = 0, gap_first = '{}', gap_last = '{}', gap_horizon = '{}'")


def held(app, table):
    """Nobody writes to it until this is closed."""
    holder = app.database.connect(autocommit=False)
    holder.cursor().execute(f"lock table {app.schema}.{table} in exclusive mode")
    return holder


def waiting(app, session="%-integration-group"):
    return app.value("select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' "
                     "and application_name like %s", (session,))


def test_a_daemon_of_the_former_prefix_that_lags_counts_nothing_twice(app, institutions, broker, make_daemon):
    """It is frozen in the middle of a batch, with another one before it; a daemon with the new prefix gets the same events."""
    former = make_daemon(merged(SETTINGS, {"consumers": {"session_timeout": "45s"}})).start()
    integration = app.integration(institutions.url("/good"))
    app.subscriptions(integration, 20)
    app.wait_states(sent=20)
    Ctl(SETTINGS, database=app.database, kafka=broker)("verify", "--wait").expect(0)
    holder = held(app, "integration_stats_spans")
    app.subscriptions(integration, 5)
    wait_for(lambda: waiting(app), 4, "its consumer to be in the middle of a batch")
    app.subscriptions(integration, 15)
    app.wait_states(sent=40)
    events = app.value("select count(*) from {s}.subscription_events")
    published = "select high >= (select max(id) from {s}.subscription_events) from {s}.relay_state"
    wait_for(lambda: app.value(published), 4, "the next events to be there")
    former.stop()
    assert waiting(app)
    holder.close()
    app.query("select pg_terminate_backend(pid) from {s}.lock_holder('relay')")
    make_new_topics(broker)
    settings = merged(NEW_PREFIX, {"consumers": {"group_prefix": "next"}})
    make_daemon(settings, name="next").start()
    wait_for(lambda: app.value("select count(*) from {s}.relay_topics where topic like 'new.%'") >= 5, 60, "it to lead")
    publish_again(app)
    topics = {kind: [f"new.{topic}" for topic in TOPICS[kind]] for kind in ("integration", "monitoring")}
    wait_for(lambda: sum(map(broker.count, topics["monitoring"])) >= events, 60, "all to be published again")
    read = "select coalesce(sum(next_offset), 0) from {s}.consumer_offsets where topic = any (%s) and read_model = %s"
    count = sum(map(broker.count, topics["integration"]))
    wait_for(lambda: waiting(app) or app.value(read, (topics["integration"], "integration")) >= count, 60, "its consumers")
    former.cont()
    proof = Ctl(settings, database=app.database, kafka=broker)
    for group, names in topics.items():
        wait_for(lambda g=group, n=names: app.value(read, (n, g)) == sum(map(broker.count, n)), 90, "all to be read")
    assert counters(app) == {(integration, "sent"): 40}
    proof("verify", "--wait", deadline=120).expect(0)
    proof("verify", "--audit", "--full").expect(0)
    assert found(app) == model(app, None, [])


def test_a_letter_of_the_former_prefix_and_its_event_under_the_new_one_count_once(app, institutions, broker, make_daemon):
    """At the same moment: neither sees what the other has not committed."""
    former = make_daemon(merged(SETTINGS, {"consumers": {"integration": False}})).start()
    integration = app.integration(institutions.url("/good"))
    # One whose event has another place in the new topic: what one place says twice waits by itself.
    app.query("select setval(pg_get_serial_sequence('{s}.subscriptions', 'id'), n, false) from generate_series(1, 100) n "
              "where {s}.key_partition(n, 3) <> {s}.key_partition(n, 5) limit 1")
    app.subscriptions(integration, 1)
    app.wait_states(sent=1)
    wait_for(lambda: broker.count("anubis.subscriptions.sent") == 1, 60, "the event")
    former.term()
    app.query("insert into {s}.dead_letters (consumer_group, read_model, topic, partition, \"offset\", key, value, headers, "
              "error) select 'g', 'integration', 'anubis.subscriptions.sent', 0, 900 + m.id, convert_to(m.key, 'UTF8'), "
              "convert_to(m.value::text, 'UTF8'), m.headers, 'x' from {s}.subscription_event_messages m "
              "where m.topic = 'subscriptions.sent'")
    make_new_topics(broker)
    holder = held(app, "integration_runtime")
    make_daemon(NEW_PREFIX).start()
    wait_for(lambda: app.value("select count(*) from {s}.relay_topics where topic like 'new.%'") >= 5, 60, "it to lead")
    publish_again(app)
    wait_for(lambda: waiting(app), 60, "its consumer to wait in the middle of a batch")
    answers, proof = [], Ctl(NEW_PREFIX, database=app.database, kafka=broker)
    replaying = threading.Thread(target=lambda: answers.append(proof("dead-letters", "replay", "--all", "--json")))
    replaying.start()
    wait_for(lambda: waiting(app, "anubisctl %"), 60, "the replay to wait, too")
    holder.close()
    replaying.join()
    assert answers[0].expect(0).json["handled"] + answers[0].json["handled_before"] == 1
    proof("verify", "--wait", deadline=120).expect(0)
    assert counters(app) == {(integration, "sent"): 1}


def test_what_is_published_again_under_another_prefix_counts_once(app, institutions, broker, make_daemon, ctl):
    """The new topics have another number of partitions, so events come by others than those in which they are marked."""
    daemon = make_daemon(SETTINGS).start()
    integration = app.integration(institutions.url("/good"), delivery_settings={"confirmation": {"within": "1h"}})
    app.subscriptions(integration, 40)
    app.wait_states(sent=40)
    ctl("verify", "--wait").expect(0)
    daemon.term()
    make_new_topics(broker)
    make_daemon(NEW_PREFIX).start()
    app.subscriptions(integration, 10)
    app.wait_states(sent=50)
    publish_again(app)
    topics = [f"new.{topic}" for topic in TOPICS["monitoring"]]
    wait_for(lambda: sum(map(broker.count, topics)) >= app.value("select count(*) from {s}.subscription_events") + 20, 60,
             "the events to be published again")
    read = "select sum(next_offset) from {s}.consumer_offsets where topic = any (%s) and read_model = 'monitoring'"
    wait_for(lambda: app.value(read, (topics,)) == sum(map(broker.count, topics)), 60, "all to be read")
    proof = Ctl(NEW_PREFIX, database=app.database, kafka=broker)
    proof("verify", "--wait", deadline=120).expect(0)
    proof("verify", "--audit", "--full").expect(0)
    assert counters(app) == {(integration, "sent"): 50}
    assert found(app) == model(app, integration, [])


def test_what_comes_again_changes_nothing(app, institutions, broker, make_daemon, ctl):
    daemon = make_daemon(SETTINGS).start()
    confirming = app.integration(institutions.url("/good"), delivery_settings={"confirmation": {"within": "1h"}})
    others = [app.integration(institutions.url(path)) for path in ("/flaky/50", "/reject/422", "/echo")]
    said, ids = [], []
    for turn in range(4):
        ids += app.subscriptions(confirming, 25)
        for integration in others:
            app.subscriptions(integration, 25)
        app.wait_states(pending=0, processing=0, retry=0)
        words = [(i, "rejected" if i % 3 == 0 else "confirmed") for i in ids[::2]]  # each that came before once more
        broker.produce("anubis.confirmations", [(str(i), json.dumps({"subscription_id": i, "status": s})) for i, s in words])
        said += words
        broker.produce("anubis.subscriptions.sent", [{"key": "7", "value": "{", "headers": {
            "installation": app.value("select namespace::text from {s}.installation"), "sequence": str(turn + 1)}}])
        daemon.kill9()
        daemon.start()
    ctl("verify", "--wait", deadline=120).expect(0)
    wanted = model(app, confirming, said)
    assert len(wanted[2]) >= 1200
    wait_for(lambda: found(app) == wanted, 60, lambda: f"{wanted}, not {found(app)}")
    wait_for(lambda: app.value("select count(*) from {s}.dead_letters where topic like '%%.sent'", ()) == 12, 60, "dead letters")
    offsets = "select read_model, topic, partition, next_offset from {s}.consumer_offsets order by 1, 2, 3"
    before, ends = kept(app), app.query(offsets)
    for turn in range(3):
        for group in GROUPS:
            ctl("replay", "--group", group).expect(0)
        if turn == 1:
            daemon.kill9()
            daemon.start()
        wait_for(lambda: app.query(offsets) == ends, 60, "all to be read again")
        ctl("verify", "--wait", deadline=120).expect(0)
        ctl("verify", "--audit", "--full").expect(0)
        assert kept(app) == before and found(app) == wanted


# --- faults, each of which ends with the model and the proofs ---


class World:
    """Institutions of each kind and one that confirms, all groups, and what has been done."""

    def __init__(self, app, institutions, cluster, make_daemon, ctl, prefix="anubis."):
        self.app, self.cluster, self.make_daemon, self.ctl, self.prefix = app, cluster, make_daemon, ctl, prefix
        self.settings = merged(SETTINGS, {"kafka": {"topic_prefix": prefix}, "consumers": {"group_prefix": prefix[:-1]}})
        ctl.write(kafka={"brokers": cluster.bootstrap, "topic_prefix": prefix}, consumers={"group_prefix": prefix[:-1]})
        self.confirming = app.integration(institutions.url("/good"), delivery_settings={"confirmation": {"within": "1h"}})
        self.others = [app.integration(institutions.url(path)) for path in ("/flaky/50", "/reject/422", "/echo")]
        self.ids, self.said, self.poisoned = [], [], 0

    def member(self, name="anubisd1"):
        return self.make_daemon(self.settings, name=name, kafka=self.cluster, database=self.app.database).start()

    def topic(self, kind):
        return f"{self.prefix}subscriptions.{kind}"

    def publish(self, count=20):
        self.ids += self.app.subscriptions(self.confirming, count)
        for integration in self.others:
            self.app.subscriptions(integration, count)

    def say(self):
        """What the institution says of what was published before, also what it has said before; and one poisoned message."""
        words = [(i, "rejected" if i % 3 == 0 else "confirmed") for i in self.ids[::2]]
        self.cluster.produce(self.prefix + "confirmations",
                             [(str(i), json.dumps({"subscription_id": i, "status": s})) for i, s in words])
        self.said += words
        self.poisoned += 1
        self.cluster.produce(self.topic("sent"), [{"key": "7", "value": "{", "headers": {
            "installation": self.app.value("select namespace::text from {s}.installation"), "sequence": str(self.poisoned)}}])

    def wait_read(self):
        """Until all is delivered, published and read; then what the tables have is what the model says."""
        self.app.wait_states(pending=0, processing=0, retry=0, deadline=120)
        self.ctl("verify", "--wait", deadline=180).expect(0)
        wanted = model(self.app, self.confirming, self.said)
        wait_for(lambda: found(self.app) == wanted, 90, lambda: f"{wanted}, not {found(self.app)}")

    def check(self):
        self.publish()
        self.say()
        self.wait_read()
        self.ctl("verify", "--audit", "--full", deadline=120).expect(0)
        assert {model: set(topics) for model, topics in self.app.query(
            "select read_model, array_agg(topic) from {s}.consumer_offsets group by 1")} == {
                model: {self.prefix + topic for topic in topics} for model, topics in TOPICS.items()}

    def sessions_at_locks(self, tables):
        """{group's session: the table whose lock it waits for}"""
        return dict(self.app.query(
            "select a.application_name, l.relation::regclass::text from pg_locks l join pg_stat_activity a using (pid) "
            "where a.datname = current_database() and a.application_name like 'anubisd %%-group' and not l.granted "
            "and l.relation = any(%s::regclass[])", ([f"anubis.{t}" for t in tables],)))

    @contextlib.contextmanager
    def held(self, *tables):
        """Nobody writes to these tables meanwhile."""
        with contextlib.closing(self.app.database.connect(autocommit=False)) as session, session.cursor() as cursor:
            for table in tables:
                cursor.execute(f"lock table anubis.{table} in share mode")
            yield
            session.rollback()


@pytest.fixture
def world(app, institutions, broker, make_daemon, ctl):
    return World(app, institutions, broker, make_daemon, ctl)


@pytest.fixture
def real_world(app, institutions, real_kafka, topic_prefix, make_daemon, ctl):
    return World(app, institutions, real_kafka, make_daemon, ctl, topic_prefix)


@pytest.mark.real_kafka
@pytest.mark.timeout(600)
def test_zombies_are_rolled_back(real_world):
    """A daemon is frozen while a batch of each group stands in its transaction; another one takes over before it goes on."""
    world, tables = real_world, ("integration_stats_spans", "audit_log", "confirmations")
    zombie = world.member("zombie")
    world.check()
    for _ in range(2):
        world.publish()
        with world.held(*tables):
            world.say()
            wait_for(lambda: len(world.sessions_at_locks(tables)) == 3, 60, lambda: f"all: {world.sessions_at_locks(tables)}")
            zombie.stop()
            heir = world.member(f"heir{len(world.ids)}")
        try:
            heir.wait_log("has taken over", 60, count=3)
            world.publish()
            world.say()
            world.wait_read()
        finally:
            zombie.cont()
        world.check()
        assert heir.term() == 0


@pytest.mark.real_kafka
@pytest.mark.timeout(600)
def test_members_come_and_go_in_mid_batch(real_world):
    world, chance, enough = real_world, random.Random(5), threading.Event()
    members = [world.member(f"member{n}") for n in range(3)]

    def load():
        while not enough.wait(0.2):
            world.publish(5)
    publisher = threading.Thread(target=load)
    publisher.start()
    try:
        for turn in range(9):
            member = chance.choice(members)
            if not member.is_running():
                member.start()
                member.wait_log("has taken over", 60)
            elif turn % 2:
                member.kill9()
            else:
                member.term()
            world.say()
    finally:
        enough.set()
        publisher.join()
    for member in members:
        if not member.is_running():
            member.start()
    world.check()


@pytest.mark.real_kafka
@pytest.mark.timeout(600)
def test_topics_get_partitions_and_are_made_anew(real_world):
    world = real_world
    world.member()
    world.check()
    for kind in ("sent", "created"):
        world.cluster.create_partitions(world.topic(kind), 5)
    world.publish()
    noted = "select count(*) from {s}.relay_topics where partitions = 5"
    wait_for(lambda: (world.publish(1), world.app.value(noted) == 2)[1], 120, "the relay to note them", interval=0.5)
    world.check()
    for kind in ("sent", "failed"):
        world.cluster.delete_topic(world.topic(kind))
        wait_for(lambda k=kind: world.topic(k) in world.cluster.topics(), 120, "the topic to be made anew")
    world.check()
    world.check()


@pytest.mark.real_kafka
@pytest.mark.timeout(600)
@pytest.mark.parametrize("where", ["the beginning", "the end"])
def test_offsets_of_all_groups_are_reset(real_world, where):
    """While nobody reads; what is published meanwhile is read, too."""
    world = real_world
    daemon = world.member()
    world.check()
    daemon.term()
    world.publish()
    for group in GROUPS:
        kinds = [world.topic(kind) for kind in ("created", "updated", "sent", "failed", "retried")]
        topics = [world.prefix + "confirmations", world.topic("sent")] if group == "external" else kinds
        places = {(topic, p): 0 if where == "the beginning" else high for topic in topics if topic in world.cluster.topics()
                  for p, (_, high) in world.cluster.watermarks(topic).items()}

        def done(group=group, places=places):
            with contextlib.suppress(ck.KafkaException):
                world.cluster.set_group_offsets(f"{world.prefix[:-1]}-{group}-group", places)
                return True
        wait_for(done, 60, "the group to be empty, and its offsets to be set", interval=0.5)
    daemon.start()
    world.check()


# Each table that a batch writes. Its transaction stands before this one, and behind those that it has written.
TABLES = ("consumer_offsets", "consumer_bitmaps", "dead_letters", "integration_runtime", "integration_stats_spans",
          "integration_stats_changes", "alert_evidence", "alert_buckets", "audit_trees", "audit_log", "audit_tiles",
          "audit_salts", "confirmations")


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_crash_between_any_two_tables(world):
    daemon = world.member()
    world.check()
    for table in TABLES:
        world.publish(3)
        world.app.wait_states(pending=0, processing=0, retry=0)
        with world.held(table):
            if table != "integration_runtime":
                world.publish(40)
            world.say()
            wait_for(lambda t=table: world.sessions_at_locks([t]), 60, f"a batch to stand before {table}")
            daemon.kill9()
        daemon.start()
        world.publish(3)
        world.wait_read()
    world.check()


@pytest.mark.real_kafka
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_postgres_is_away_for_longer_than_three_sessions(own_postgres, institutions, real_kafka, topic_prefix, make_daemon):
    """Killed, or it stands still: the members stay in their groups meanwhile, and nothing is read twice or left out."""
    from conftest import migrate
    from harness.application import Application
    server = own_postgres()
    database = server.create_database("anubis")
    migrate(database)
    world = World(Application(database), institutions, real_kafka, make_daemon, Ctl(database=database), topic_prefix)
    daemon = world.member()
    world.check()
    taken = daemon.log.count("has taken over")
    for away, back in ((server.kill9, server.start), (server.freeze, server.thaw)):
        world.publish()
        world.say()
        away()
        since = time.monotonic()
        try:
            wait_for(lambda s=since: time.monotonic() - s > 3 * 6 + 2, 60, "three sessions to be over")
        finally:
            back()
        world.check()
    assert daemon.log.count("has taken over") == taken
