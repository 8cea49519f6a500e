"""Events that Kafka let go before a group had read them come again, once: in question is what was published when it was noted."""
import contextlib

import confluent_kafka as ck
import pytest
from harness.anubis import Ctl, merged
from harness.processes import wait_for
from test_relay import publish_again_since
from test_statements import STATEMENTS

QUICK = {"log_level": "info", "consumers": {"session_timeout": "6s", "heartbeat_interval": "500ms"}}
CREATED = "anubis.subscriptions.created"


class World:
    """Subscriptions of one institution, whose topics forget what no group has read."""

    def __init__(self, app, kafka, prefix, institutions):
        self.app, self.kafka, self.prefix = app, kafka, prefix
        self.integration = app.integration(institutions.url("/good"))
        self.settings = merged(QUICK, {"kafka": {"topic_prefix": prefix}, "consumers": {"group_prefix": prefix.strip(".")}})
        self.away = merged(self.settings, {"consumers": {"integration": False, "monitoring": False, "external": False}})
        self.ctl = Ctl(self.settings, database=app.database, kafka=kafka)

    def topic(self, kind):
        return f"{self.prefix}subscriptions.{kind}"

    def send(self, count, total):
        self.app.subscriptions(self.integration, count)
        self.app.wait_states(sent=total, deadline=60)
        wait_for(lambda: self.app.value("select high >= (select max(id) from {s}.subscription_events) from {s}.relay_state"), 60,
                 "all to be published")

    def forget(self, *kinds):
        """{topic: how many messages are gone}"""
        return {kind: sum(self.kafka.delete_records(self.topic(kind)).values()) for kind in kinds}

    def published(self, kind):
        return sum(high for _, high in self.kafka.watermarks(self.topic(kind)).values())

    def check(self, total, gone):
        """Each event is counted once, and each that was gone was published once more, and no other."""
        wait_for(lambda: self.ctl("verify").code == 0, 90, lambda: f"the proof:\n{self.ctl('verify')}", interval=0.3)
        looks = ("select exists (select from {s}.consumer_offsets where unread_until is not null) or "
                 "exists (select from {s}.relay_holes where unread)")
        wait_for(lambda: not self.app.value(looks), 60, "the look at what is unread")
        assert self.app.value("select sum(sent)::int from {s}.integration_runtime") == total
        assert {kind: self.published(kind) for kind in gone} == {kind: total + n for kind, n in gone.items()}


@pytest.fixture
def world(app, real_kafka, topic_prefix, institutions):
    return World(app, real_kafka, topic_prefix, institutions)


@pytest.mark.real_kafka
@pytest.mark.parametrize("commits", [True, False], ids=["committed", "rolled back"])
def test_what_was_a_gap_then_is_published_once(world, make_daemon, commits):
    """A transaction holds ids open while it is noted what is in question, and ends as soon as it is."""
    app = world.app
    daemon = make_daemon(world.away, kafka=world.kafka).start()
    world.send(20, 20)
    with contextlib.closing(app.database.connect(autocommit=False)) as late:
        app.subscriptions(world.integration, 10, connection=late)
        world.send(40, 60)
        wait_for(lambda: app.value("select gap_first <> '{}' from {s}.relay_state"), 30, "the gap to be seen")
        gone = world.forget("created", "sent")
        daemon.term()
        daemon = make_daemon(world.settings, kafka=world.kafka).start()
        noted = "select exists (select from {s}.consumer_offsets where topic = %s and unread_gaps <> '{}')"
        wait_for(lambda: app.value(noted, (world.topic("created"),)), 60, "the gap to be noted", interval=0.01)
        (late.commit if commits else late.rollback)()
    total = 70 if commits else 60
    app.wait_states(sent=total)
    world.check(total, gone)
    daemon.wait_log(rf'{gone["created"]} events of "{world.topic("created")}", .* had left Kafka before they were read')
    daemon.term()


def test_gaps_of_then_are_left_out(app):
    """Whether or not they have been filled since: the relay publishes, or has published, what fills them."""
    app.subscriptions(app.integration("https://x.example"), 20)
    app.query("update {s}.relay_state set high = 20, gap_first = '{12}', gap_last = '{12}', gap_horizon = '{1}'")
    app.query("insert into {s}.relay_topics (topic, from_sequence, partitions) values (%s, 0, 1)", (CREATED,))
    app.query("insert into {s}.consumer_offsets (consumer_group, topic, partition, next_offset, read_model, unread_until, "
              "unread_below, unread_gaps) values ('g', %s, 0, 5, 'integration', 5, 15, '{\"[3,5]\",\"[9,9]\"}')", (CREATED,))
    # Put aside: 7 itself, and what somebody else wrote with the sequence of 8.
    app.query("insert into {s}.dead_letters (consumer_group, read_model, topic, partition, \"offset\", headers, error) "
              "select 'g', 'integration', %s, 0, e.id, jsonb_build_object('sequence', e.id::text, 'event_id', "
              "case e.id when 7 then e.event_id else gen_random_uuid() end), 'x' "
              "from {s}.subscription_events e where e.id in (7, 8)", (CREATED,))
    with contextlib.closing(app.database.connect()) as connection, connection.cursor() as cursor:
        cursor.execute("set search_path = anubis")
        cursor.execute(f"prepare look as {STATEMENTS['unread_publish']}")
        cursor.execute("execute look (%s, '{g}', '{0}', 0, 20, 1000)", (CREATED,))
        assert cursor.fetchone() == (20, 9, 1, 15)
    assert [r[0] for r in app.query("select first_id from {s}.relay_holes where unread order by 1")] == [
        1, 2, 6, 8, 10, 11, 13, 14, 15]


def test_a_topic_with_fewer_partitions_is_looked_at_again(app):
    """By the former ones a group's look had left out what was in those that are no more."""
    app.query("update {s}.relay_state set high = 20")
    app.query("insert into {s}.relay_topics (topic, from_sequence, partitions) values (%s, 0, 3)", (CREATED,))
    app.query("insert into {s}.consumer_offsets (consumer_group, topic, partition, next_offset, read_model) "
              "select 'g', %s, n, 5, 'integration' from generate_series(0, 3) n", (CREATED,))
    asked = "select array_agg(partition order by partition) from {s}.consumer_offsets where unread_until = 9223372036854775807"
    for partitions, expected in ((3, None), (5, None), (2, [0, 1])):
        with contextlib.closing(app.database.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("set search_path = anubis")
            cursor.execute(f"prepare note as {STATEMENTS['relay_add_partitions']}")
            cursor.execute("execute note (%s, %s, %s)", (CREATED, 20 + partitions, partitions))
        assert app.value(asked) == expected, partitions
        app.query("update {s}.relay_topics set from_sequence = from_sequence - 100 where topic = %s", (CREATED,))


@pytest.mark.real_kafka
def test_two_groups_that_lack_the_same(world, make_daemon):
    """Of two read models: what one has not read and the other has not either comes again once."""
    daemon = make_daemon(world.away, kafka=world.kafka).start()
    world.send(60, 60)
    gone = world.forget("created", "sent")
    daemon.term()
    daemon = make_daemon(world.settings, kafka=world.kafka).start()
    world.send(20, 80)
    world.check(80, gone)
    assert world.app.value("select count(distinct read_model) from {s}.consumer_bitmaps where event_type = 'sent'") > 1
    daemon.term()


@pytest.mark.real_kafka
def test_two_groups_of_one_read_model(world, make_daemon):
    """Two daemons with a group_prefix each, which both were away: nothing counts twice."""
    daemon = make_daemon(world.away, kafka=world.kafka).start()
    world.send(60, 60)
    gone = world.forget("created", "sent")
    daemon.term()
    daemons = [make_daemon(merged(world.settings, {"instance": name, "consumers": {"group_prefix": world.prefix + name}}),
                           kafka=world.kafka).start() for name in "ab"]
    world.send(20, 80)
    world.check(80, gone)
    assert [d.term() for d in daemons] == [0, 0]


@pytest.mark.real_kafka
def test_one_group_is_further_than_the_other(world, make_daemon):
    """The one was away, the other had read all: what comes again for the one changes nothing for the other."""
    daemon = make_daemon(merged(world.settings, {"consumers": {"integration": False}}), kafka=world.kafka).start()
    world.send(60, 60)
    read = "select sum(next_offset) from {s}.consumer_offsets where topic = %s and read_model = 'monitoring'"
    wait_for(lambda: world.app.value(read, (world.topic("created"),)) == 60, 60, "the monitoring group to have read all")
    gone = world.forget("created", "sent")
    daemon.term()
    daemon = make_daemon(world.settings, kafka=world.kafka).start()
    world.send(20, 80)
    world.check(80, gone)
    daemon.term()


@pytest.mark.real_kafka
def test_what_comes_again_in_fewer_partitions_counts_once(world, make_daemon):
    """Topics are made anew, and all is published again: it was marked in partitions that are no more."""
    daemon = make_daemon(world.settings, kafka=world.kafka).start()
    world.send(60, 60)
    wait_for(lambda: world.ctl("verify").code == 0, 60, lambda: f"the proof:\n{world.ctl('verify')}", interval=0.3)
    daemon.term()
    for kind in ("created", "updated", "sent"):
        world.kafka.replace_topic(world.topic(kind), 1)
    make_daemon(world.settings, kafka=world.kafka).start()
    world.send(10, 70)
    began = "select date_trunc('second', min(created_at)) at time zone 'UTC' from {s}.subscription_events"
    world.app.query(publish_again_since(f"{world.app.value(began)}Z"))
    wait_for(lambda: world.published("sent") >= 80, 60, "all to be published again")
    world.check(70, {})
    read = "select min(next_offset) from {s}.consumer_offsets where topic = %s and partition = 0"
    wait_for(lambda: world.app.value(read, (world.topic("sent"),)) >= 80, 60, "all groups to have read it")
    world.check(70, {})


@pytest.mark.real_kafka
@pytest.mark.parametrize("after", [5, 60], ids=["a short log", "a longer one"])
def test_topics_that_are_made_anew_before_all_was_read(world, make_daemon, after):
    """Kafka drops the group's offsets with a topic. What stands at these offsets afterwards may be something else."""
    kinds = ("created", "updated", "sent")
    daemon = make_daemon(world.settings, kafka=world.kafka).start()
    world.send(30, 30)
    # A proof holds as well while the monitoring group has not come to read yet.
    wait_for(lambda: world.app.value("select count(*) from {s}.audit_log") == 90 and world.ctl("verify").code == 0, 60,
             lambda: f"the proof:\n{world.ctl('verify')}", interval=0.3)
    daemon.term()
    daemon = make_daemon(world.away, kafka=world.kafka).start()
    world.send(20, 50)
    daemon.term()
    for kind in kinds:
        world.kafka.replace_topic(world.topic(kind), 3)
    daemon = make_daemon(world.away, kafka=world.kafka).start()
    world.send(after, 50 + after)
    daemon.term()
    make_daemon(world.settings, kafka=world.kafka).start()
    world.check(50 + after, {kind: 20 - 50 for kind in kinds})


@pytest.mark.real_kafka
@pytest.mark.parametrize("away", [False, True], ids=["at once", "after a while"])
def test_running_groups_find_their_topics_with_fewer_partitions(world, make_daemon, away):
    """What was in them unread is published again, wherever it was, also when the relay learns of it later than the groups."""
    kinds, kafka = ("created", "updated", "sent"), world.kafka
    daemon = make_daemon(world.settings, kafka=kafka).start()
    world.send(40, 40)
    world.ctl("verify", "--wait").expect(0)
    daemon.term()
    daemon = make_daemon(merged(world.settings, {"kafka": {"create_topics": False}}), kafka=kafka).start()
    world.send(20, 60)  # before the groups have their partitions
    if away:
        for kind in kinds:
            kafka.delete_topic(world.topic(kind))
        world.app.subscriptions(world.integration, 20)
        daemon.wait_log("waits for 3 topics not there yet", 60)
        for kind in kinds:
            kafka.create_topic(world.topic(kind), 1)
    else:
        for kind in kinds:
            kafka.replace_topic(world.topic(kind), 1)
        world.app.subscriptions(world.integration, 20)
    world.send(20, 100)
    world.check(100, {})
    assert daemon.term() == 0
    assert "left behind" not in daemon.log


@pytest.mark.real_kafka
def test_a_group_reads_again_from_a_time(world, make_daemon):
    """Each partition from its first message of then; where there is none, or nobody can say, nothing is changed."""
    app, ctl = world.app, world.ctl
    daemon = make_daemon(world.settings, kafka=world.kafka).start()
    world.send(40, 40)
    ctl("verify", "--wait").expect(0)
    then = app.value("select clock_timestamp()::text")
    world.send(4, 44)
    ctl("verify", "--wait").expect(0)
    daemon.term()
    offsets = "select topic, partition, next_offset from {s}.consumer_offsets where read_model = 'integration' order by 1, 2"
    before = app.query(offsets)
    later = app.value("select clock_timestamp()::text")
    for words, code in ((["--from", "soon"], 64), (["--from", then, "--from-ledger"], 64), (["--from", then, "--dry-run"], 0),
                        (["--from", later], 0), (["--from", "2100-01-01"], 64)):
        ctl("replay", "--group", "integration", *words).expect(code)
        assert app.query(offsets) == before
    away = Ctl(merged(world.settings, {"kafka": {"brokers": "127.0.0.1:1"}}), database=app.database)
    assert "could not ask Kafka" in away("replay", "--group", "integration", "--from", then).expect(69).stderr
    assert app.query(offsets) == before
    ctl("replay", "--group", "integration", "--from", then, "--json").expect(0)
    at = app.value("select extract(epoch from %s::timestamptz)::float8 * 1000", (then,))
    read = {topic: world.kafka.read_all(topic) for topic in {topic for topic, _, _ in before}}
    for (topic, partition, now), (_, _, end) in zip(app.query(offsets), before):
        times = {m.offset: m.timestamp_ms for m in read[topic] if m.partition == partition}
        assert now == min([offset for offset, time in times.items() if time >= int(at)], default=end), (topic, partition, times)
    assert sum(end - now for (_, _, now), (_, _, end) in zip(app.query(offsets), before)) == 8  # created and sent
    make_daemon(world.settings, kafka=world.kafka).start()
    ctl("verify", "--wait").expect(0)
    assert app.value("select sum(sent)::int from {s}.integration_runtime") == 44


@pytest.mark.real_kafka
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_end_of_a_log_that_a_broker_lost_unread(world, make_daemon):
    """A power cut while the groups were away. What the relay publishes then stands before what it had reached."""
    kinds, app = ("created", "updated", "sent"), world.app
    daemon = make_daemon(world.settings, kafka=world.kafka).start()
    world.send(20, 20)
    wait_for(lambda: world.ctl("verify").code == 0, 60, lambda: f"the proof:\n{world.ctl('verify')}", interval=0.3)
    daemon.term()
    daemon = make_daemon(world.away, kafka=world.kafka).start()
    reached, total = "select min(n) from (select sum(next_offset) as n from {s}.relay_reached group by topic) t", 120
    for sent in range(40, 121, 20):  # the log is cut between two batches
        world.send(20, sent)

    def noted():
        nonlocal total
        total += 1
        world.send(1, total)
        return app.value(reached) >= 120
    wait_for(noted, 60, "it to be noted, which is done each second, how far the relay is", interval=0.2)
    world.kafka.kill9()
    for kind in kinds:
        world.kafka.lose_tail(world.topic(kind), 0.4)
    world.kafka.start()
    assert all(world.published(kind) < 100 for kind in kinds)
    world.send(30, total + 30)
    for kind in kinds:
        daemon.wait_log(rf'partitions? of "{world.topic(kind)}" ended before what had been published there: Kafka has lost', 60)
    daemon.term()
    daemon = make_daemon(world.settings, kafka=world.kafka).start()
    world.check(total + 30, dict.fromkeys(kinds, 0))
    assert daemon.term() == 0


@pytest.mark.real_kafka
def test_an_offset_that_lies_within_a_topic_made_anew_by_chance(world, make_daemon):
    """A group committed what it had read of the former topic while that was replaced: nothing tells it that this is another."""
    app, kinds = world.app, ("created", "updated", "sent")
    daemon = make_daemon(world.settings, kafka=world.kafka).start()
    world.send(20, 20)
    world.ctl("verify", "--wait", deadline=120).expect(0)
    daemon.term()
    for kind in kinds:
        world.kafka.replace_topic(world.topic(kind), 1)
    daemon = make_daemon(world.away, kafka=world.kafka).start()
    world.send(60, 80)
    daemon.term()
    offsets = app.query("select consumer_group, topic, next_offset from {s}.consumer_offsets "
                        "where partition = 0 and next_offset > 0 and topic = any (%s)", ([world.topic(kind) for kind in kinds],))
    assert len(offsets) >= 3
    for group in {row[0] for row in offsets}:
        places = {(topic, 0): next_offset for one, topic, next_offset in offsets if one == group}

        def done(group=group, places=places):
            with contextlib.suppress(ck.KafkaException):  # until Kafka has missed the member that has left
                world.kafka.set_group_offsets(group, places)
                return True
        wait_for(done, 60, "the group to be without members")
    make_daemon(world.settings, kafka=world.kafka).start()
    world.check(80, {})
