"""An operator deletes a consumer group, or resets its offsets, in Kafka: no counter changes, and nothing is left out."""
import re

import confluent_kafka as ck
import pytest
from harness.processes import wait_for
from test_consumer import PARTITIONS, SETTINGS, TYPES, Scene, merged

NON_EMPTY = 68
pytestmark = [pytest.mark.real_kafka, pytest.mark.timeout(600)]


@pytest.fixture
def scene(app, real_kafka, topic_prefix):
    for kind in (*TYPES, "created", "retried"):
        real_kafka.create_topic(f"{topic_prefix}subscriptions.{kind}", PARTITIONS)
    return Scene(app, real_kafka, topic_prefix)


@pytest.fixture
def daemon(scene, make_daemon):
    ours = {"consumers": {"group_prefix": scene.group_prefix}, "kafka": {"topic_prefix": scene.prefix}}
    daemon = make_daemon(merged(SETTINGS, ours), kafka=scene.cluster).start()
    scene.publish(300)
    scene.check()
    return daemon


def deleted(scene):
    wait_for(lambda: scene.cluster.delete_group(scene.group) == 0, 60, "the group to be empty, and deleted", interval=0.5)


def reset(scene, where):
    """Retried until Kafka has missed the member that has left: it is a static one."""
    places = {place: where(end) for place, end in scene.ends().items()}

    def done():
        scene.cluster.set_group_offsets(scene.group, places)
        return True
    wait_for(done, 60, "the group to be empty, and its offsets to be set", interval=0.5)


CHANGES = {"deleted": deleted, "to the beginning": lambda scene: reset(scene, lambda end: 0),
           "to the end": lambda scene: reset(scene, lambda end: end),
           "beyond the end": lambda scene: reset(scene, lambda end: end + 1000)}


@pytest.mark.parametrize("change", CHANGES)
def test_while_the_daemon_is_stopped(scene, daemon, change):
    daemon.term()
    scene.publish(100)
    CHANGES[change](scene)
    scene.publish(100)
    daemon.start()
    scene.publish(100)
    scene.check()
    assert scene.dead_letters() == []


def test_while_the_daemon_runs(scene, daemon):
    """Kafka refuses both while the group has members."""
    assert scene.cluster.delete_group(scene.group) == NON_EMPTY
    with pytest.raises(ck.KafkaException):
        scene.cluster.set_group_offsets(scene.group, {place: 0 for place in scene.ends()})
    scene.publish(100)
    scene.check()


@pytest.mark.parametrize("change", ["deleted", "to the beginning", "to the end"])
def test_while_kafka_misses_a_daemon_that_stands_still(scene, daemon, change):
    """Its member is thrown out meanwhile, and comes back to a group that is another one."""
    daemon.stop()
    scene.publish(100)
    CHANGES[change](scene)
    scene.publish(100)
    daemon.cont()
    scene.publish(100)
    scene.check()
    assert daemon.is_running() and scene.dead_letters() == []


@pytest.mark.parametrize("strategy", ["cooperative-sticky", "range,roundrobin"])
def test_another_program_is_a_member_of_the_group(scene, daemon, strategy):
    """It takes partitions, or keeps daemons from joining, as a console consumer does: that is said, and nothing is lost."""
    daemon.term()
    stranger = ck.Consumer({**scene.cluster._settings(), "group.id": scene.group, "client.id": "console",
                            "session.timeout.ms": 6000, "partition.assignment.strategy": strategy})
    stranger.subscribe([f"^{scene.prefix}subscriptions.*"])
    wait_for(lambda: (stranger.poll(0.1), stranger.assignment())[1], 60, "the stranger to be a member", interval=0)
    daemon.start()
    said = rf'error: {scene.group}.*: another program is a member of this consumer group: client.id "console" at '
    wait_for(lambda: (stranger.poll(0.1), re.search(said, daemon.log))[1], 90, lambda: f"the words: {daemon.log}", interval=0)
    scene.publish(100)
    stranger.close()
    daemon.wait_log("no other program is a member of this group any more", 60)
    scene.check()
