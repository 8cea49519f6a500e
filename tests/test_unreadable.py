"""What a consumer's library cannot unpack, or finds damaged, stands in nobody's way for long."""
import json
import re

import pytest
from harness.processes import wait_for

BOMB = b"0" * (300 << 20)
pytestmark = [pytest.mark.real_kafka, pytest.mark.timeout(600)]


@pytest.fixture
def daemon(app, ctl, real_kafka, topic_prefix, make_daemon):
    ours = {"kafka": {"topic_prefix": topic_prefix}, "consumers": {"group_prefix": topic_prefix[:-1]}}
    ctl.write(**ours)
    daemon = make_daemon(ours, kafka=real_kafka).start()
    wait_for(lambda: topic_prefix + "confirmations" in real_kafka.topics(), 60, "the topics")
    return daemon


def put_bombs(kafka, topic, partitions):
    """A few kilobytes that unpack to 300 MB, between what can be read."""
    for partition in range(partitions):
        kafka.produce(topic, [{"key": "x", "value": BOMB, "partition": partition}],
                      **{"compression.type": "zstd", "message.max.bytes": 1000000000})


def test_confirmations_behind_a_bomb(app, institutions, real_kafka, topic_prefix, daemon, ctl):
    topic = topic_prefix + "confirmations"
    integration = app.integration(institutions.url("/good"), delivery_settings={"confirmation": {"within": "1d"}})
    ids = app.subscriptions(integration, 3)
    app.wait_states(sent=3)
    for number in ids:
        put_bombs(real_kafka, topic, 1)
        real_kafka.produce(topic, [(str(number), json.dumps({"subscription_id": number, "status": "confirmed"}))])
    confirmed = "select count(*) from {s}.confirmations where status = 'confirmed'"
    wait_for(lambda: app.value(confirmed) == 3, 180, lambda: f"all three, now {app.value(confirmed)}\n{daemon.log[-3000:]}")
    assert len(re.findall("cannot be read on at offset", daemon.log)) == 3
    assert app.value("select foreign_messages from {s}.consumer_offsets where topic = %s", (topic,)) == 3
    ctl("verify", "--wait", deadline=120).expect(0)


def test_events_behind_bombs_in_every_partition(app, institutions, real_kafka, topic_prefix, daemon, ctl):
    """All groups read on, and what comes behind counts once."""
    integration = app.integration(institutions.url("/good"))
    app.subscriptions(integration, 10)
    app.wait_states(sent=10)
    put_bombs(real_kafka, topic_prefix + "subscriptions.sent", 3)
    app.subscriptions(integration, 30)
    app.wait_states(sent=40)
    wait_for(lambda: app.value("select sum(sent) from {s}.integration_runtime") == 40, 180, lambda: daemon.log[-3000:])
    ctl("verify", "--wait", deadline=120).expect(0)
    ctl("verify", "--audit", "--full").expect(0)
    # A new leader looks for the newest events behind them, too.
    put_bombs(real_kafka, topic_prefix + "subscriptions.created", 3)
    daemon.kill9()
    daemon.start()
    app.subscriptions(integration, 10)
    wait_for(lambda: app.value("select sum(sent) from {s}.integration_runtime") == 50, 180, lambda: daemon.log[-3000:])
    ctl("verify", "--wait", deadline=120).expect(0)
    assert app.value("select count(*) from {s}.dead_letters") == 0 and daemon.is_running()
