"""Kafka's own authorizer: what it forbids is told apart from what is missing, and nothing is lost."""
import re
import uuid

import pytest
from conftest import unavailable
from harness.anubis import Ctl
from harness.kafka import RealKafka, java_missing
from harness.processes import wait_for

pytestmark = [pytest.mark.real_kafka, pytest.mark.slow, pytest.mark.timeout(900)]
EVENT_TOPICS = {"created": 3, "updated": 3, "sent": 3, "failed": 3, "retried": 2}


@pytest.fixture(scope="module")
def guarded():
    reason = java_missing()
    if reason:
        unavailable(reason)
    with RealKafka.authorized() as kafka:
        kafka.allow_all()
        yield kafka


@pytest.fixture
def settings(guarded):
    name = f"t{uuid.uuid4().hex[:8]}"
    yield {"kafka": {"brokers": guarded.addresses["SASL_PLAINTEXT"], "security_protocol": "sasl_plaintext",
                     "sasl_mechanism": "PLAIN", "sasl_username": "anubis", "sasl_password": "word", "topic_prefix": f"{name}."},
           "consumers": {"group_prefix": name, "session_timeout": "6s", "heartbeat_interval": "500ms"}}
    guarded.allow_again()


RELAY = r'alert: the relay cannot publish: Kafka forbids topic "{prefix}subscriptions.sent" to this client: ' \
    "let its user Describe and Write the topic"
READS = r'alert: {group}-integration-group: cannot read: Kafka forbids topic "{prefix}subscriptions.sent" to this client: ' \
    "let its user Describe and Read the topic"
MISSING = "not there yet|there is no topic"


@pytest.mark.parametrize("operation, what, said, over", [
    ("describe", "topic", [RELAY, READS], "the relay's topics are there"),
    ("write", "topic", [r"alert: Kafka refuses event \S+ .*this client may not write to the topic: let its user Write it"],
     "Kafka has accepted ledger id"),
    ("read", "topic", [READS], 'Kafka lets this client read topic "{prefix}subscriptions.sent" again'),
    ("read", "group", [r'alert: {group}-integration-group: cannot read: Kafka forbids group "{group}-integration-group" '
                       "to this client: let its user Read the group"], "integration-group: Kafka lets this client read by group"),
], ids=["describe", "write", "read", "group"])
@pytest.mark.parametrize("running", [False, True], ids=["at the start", "while it runs"])
def test_what_is_forbidden(app, guarded, settings, institutions, make_daemon, running, operation, what, said, over):
    """Deliveries go on; once it is allowed again all is published and counted, once."""
    prefix, group = settings["kafka"]["topic_prefix"], settings["consumers"]["group_prefix"]
    place = {"topic": f"{prefix}subscriptions.sent"} if what == "topic" else {"group": f"{group}-integration-group"}
    for topic, partitions in EVENT_TOPICS.items():
        guarded.create_topic(f"{prefix}subscriptions.{topic}", partitions)
    integration = app.integration(institutions.url())
    verify = Ctl(settings, database=app.database)
    daemon = make_daemon(settings, kafka=guarded.addresses["SASL_PLAINTEXT"])
    if running:
        daemon.start()
        app.subscriptions(integration, 10)
        wait_for(lambda: app.value("select sum(sent) from {s}.integration_runtime") == 10, 120, "the counters")
    guarded.forbid(operation, **place)
    if running and what == "group":
        daemon.restart()
    elif not running:
        daemon.start()
    app.subscriptions(integration, 10)
    for words in said:
        # The library asks for a topic's state every five minutes, and when a message shall go there.
        daemon.wait_log(words.format(prefix=re.escape(prefix), group=group), 360)
    app.wait_states(sent=20 if running else 10)
    log = daemon.log
    assert not re.search(MISSING, log), log
    assert len(re.findall(" alert: ", log)) <= 8, log
    if operation == "describe":
        assert "WAITS: a topic is forbidden since" in verify("status").stdout
    guarded.allow_again()
    # What was there may all have been read before Kafka forbade it.
    app.subscription(integration)
    app.wait_states(sent=21 if running else 11)
    wait_for(lambda: verify("verify").code == 0, 360, lambda: f"the proof: {verify('verify')}", interval=0.5)
    assert app.value("select sum(sent) from {s}.integration_runtime") == (21 if running else 11)
    daemon.wait_log(over.format(prefix=re.escape(prefix), group=group))
    assert daemon.term() == 0


def test_that_it_may_read_again_is_said_though_nothing_comes(app, guarded, settings, institutions, make_daemon):
    prefix = settings["kafka"]["topic_prefix"]
    for topic, partitions in EVENT_TOPICS.items():
        guarded.create_topic(f"{prefix}subscriptions.{topic}", partitions)
    daemon = make_daemon(settings, kafka=guarded.addresses["SASL_PLAINTEXT"]).start()
    app.subscriptions(app.integration(institutions.url()), 10)
    wait_for(lambda: app.value("select sum(sent) from {s}.integration_runtime") == 10, 120, "the counters")
    guarded.forbid("read", topic=f"{prefix}subscriptions.sent")
    daemon.wait_log(READS.format(prefix=re.escape(prefix), group=settings["consumers"]["group_prefix"]), 360)
    guarded.allow_again()
    words = f'integration-group: Kafka lets this client read topic "{re.escape(prefix)}subscriptions.sent" again'
    daemon.wait_log(words, 60)
    app.subscriptions(app.value("select id from {s}.integrations"), 10)
    wait_for(lambda: app.value("select sum(sent) from {s}.integration_runtime") == 20, 120, "the counters")
    assert len(re.findall(words, daemon.log)) == 1 and len(re.findall("integration-group: cannot read", daemon.log)) == 1
    assert daemon.term() == 0


@pytest.mark.parametrize("create", [False, True], ids=["not to be made", "may not be made"])
def test_what_is_missing(app, guarded, settings, institutions, make_daemon, create):
    prefix = settings["kafka"]["topic_prefix"]
    settings["kafka"]["create_topics"] = create
    guarded.forbid("create", topic=f"{prefix}subscriptions.sent")
    for topic, partitions in EVENT_TOPICS.items():
        if topic != "sent":
            guarded.create_topic(f"{prefix}subscriptions.{topic}", partitions)
    daemon = make_daemon(settings, kafka=guarded.addresses["SASL_PLAINTEXT"]).start()
    app.subscriptions(app.integration(institutions.url()), 10)
    said = daemon.wait_log(rf'alert: the relay cannot publish: (.*"{re.escape(prefix)}subscriptions.sent".*)', 120)[1]
    assert re.search("this client may not create it" if create else "there is no topic .*create_topics is off", said)
    app.wait_states(sent=10)
    assert "forbids" not in daemon.log
    guarded.create_topic(f"{prefix}subscriptions.sent", 3)
    verify = Ctl(settings, database=app.database)
    wait_for(lambda: verify("verify").code == 0, 360, lambda: f"the proof: {verify('verify')}", interval=0.5)
    daemon.wait_log("the relay's topics are there")
    assert daemon.term() == 0
