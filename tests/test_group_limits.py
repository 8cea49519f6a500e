"""Limits that the brokers set for consumer groups: what refuses a member is said with the setting that helps."""
import contextlib

import pytest
from harness.kafka import RealKafka
from harness.processes import Child, wait_for

pytestmark = [pytest.mark.real_kafka, pytest.mark.slow, pytest.mark.timeout(600)]
OURS = {"consumers": {"session_timeout": "6s", "heartbeat_interval": "500ms"}}


@contextlib.contextmanager
def broker(**settings):
    kafka = RealKafka(settings={name.replace("_", "."): value for name, value in settings.items()})
    kafka.start()
    try:
        yield {"kafka": {"brokers": kafka.bootstrap}}, kafka
    finally:
        kafka.close()


def counted(app):
    return app.value("select coalesce(sum(sent), 0) from {s}.integration_runtime")


def test_a_session_that_is_too_long(app, institutions, make_daemon, real_kafka):
    del real_kafka  # that it can run here
    with broker(group_max_session_timeout_ms=10000) as (where, _):
        daemon = make_daemon(where).start()
        app.subscriptions(app.integration(institutions.url("/good")), 10)
        daemon.wait_log("Kafka says: .*let consumers.session_timeout lie between group.min.session.timeout.ms and", 60)
        app.wait_states(sent=10)
        daemon.wait_log(r"no member of its group .* \(it said: .*session", 120)
        daemon.term()
        make_daemon({**where, **OURS}).start()
        wait_for(lambda: counted(app) == 10, 120, "all to be counted")


def test_a_group_that_is_full(app, institutions, make_daemon, real_kafka):
    """One daemon counts everything; the other one says what keeps it out, and takes over."""
    del real_kafka  # that it can run here
    with broker(group_max_size=1) as (where, _):
        first = make_daemon({**where, **OURS, "instance": "first"}).start()
        integration = app.integration(institutions.url("/good"))
        app.subscriptions(integration, 10)
        wait_for(lambda: counted(app) == 10, 120, "the first to be counted")
        second = make_daemon({**where, **OURS, "instance": "second"}).start()
        second.wait_log("Kafka says: .*group.max.size has to allow a member", 120)
        app.subscriptions(integration, 10)
        wait_for(lambda: counted(app) == 20, 120, "the next to be counted")
        first.term()
        app.subscriptions(integration, 10)
        wait_for(lambda: counted(app) == 30, 240, "what comes after to be counted by the other one")
        assert second.log.count("Kafka is back") == 0


def test_a_group_of_the_newer_protocol(app, institutions, make_daemon, real_kafka):
    """Somebody's reader has our group's name: it lets none of ours in, which is said, and over when it ends."""
    del real_kafka  # that it can run here
    group = "anubis-integration-group"
    with broker() as (where, kafka):
        daemon = make_daemon({**where, **OURS}).start()
        integration = app.integration(institutions.url("/good"))
        app.subscriptions(integration, 10)
        wait_for(lambda: counted(app) == 10, 120, "the first to be counted")
        daemon.term()
        wait_for(lambda: kafka.delete_group(group) == 0, 60, "the group to be empty, and deleted", interval=0.5)
        reader = Child([*kafka.java, "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", kafka.bootstrap,
                        "--topic", "anubis.subscriptions.sent", "--group", group, "--from-beginning",
                        "--consumer-property", "group.protocol=consumer"])
        reader.start()
        try:
            wait_for(lambda: "subscription" in reader.tail(), 60, "the reader to read")
            daemon.start()
            app.subscriptions(integration, 10)
            daemon.wait_log(f"error: {group}.*: this consumer group lets nobody in: .*group.protocol=consumer", 120)
        finally:
            reader.close()
        wait_for(lambda: counted(app) == 20, 120, "all to be counted")
        daemon.wait_log(f"{group}: the consumer group is ours again", 60)
