"""A cluster of three brokers: each dies once, under load."""
import pytest
from harness.brokers import ThreeBrokers
from harness.processes import wait_for

pytestmark = [pytest.mark.real_kafka, pytest.mark.slow, pytest.mark.timeout(900)]
SETTINGS = {"kafka": {"replication_factor": 3}, "consumers": {"session_timeout": "10s", "heartbeat_interval": "1s"}}
TOPICS = [f"anubis.subscriptions.{kind}" for kind in ("created", "updated", "sent")]


def test_each_broker_dies_and_comes_back(app, institutions, make_daemon, ctl, real_kafka):
    """Another one leads its partitions then, and coordinates its groups. What was on its way there goes out all the same."""
    del real_kafka  # that it can run here
    integration, rows = app.integration(institutions.url("/good")), 0

    def counted():
        return app.value("select coalesce(sum(sent), 0) from {s}.integration_runtime")

    def work_until(condition, what):
        """Rows come meanwhile."""
        def working():
            nonlocal rows
            rows += len(app.subscriptions(integration, 10))
            return condition()
        wait_for(working, 120, lambda: f"{what}, {counted()} of {rows} counted:\n{ctl('status').stdout}", interval=0.05)

    with ThreeBrokers() as kafka:
        daemon = make_daemon(SETTINGS, kafka=kafka).start()
        work_until(lambda: counted() > 100, "the first rows to be counted")
        for broker in kafka.brokers:
            broker.kill9()
            before = rows
            work_until(lambda before=before: counted() > before + 100, f"rows to be counted without broker {broker.number}")
            broker.start()
            for topic in TOPICS:
                kafka.wait_whole(topic)
            before = rows
            work_until(lambda before=before: counted() > before + 100, f"rows to be counted with broker {broker.number}")
        wait_for(lambda: counted() == rows, 120, lambda: f"{rows} to be counted, now {counted()}")
        for command in (("verify", "--wait"), ("verify", "--audit", "--full")):
            ctl(*command, deadline=120).expect(0)
        for topic in TOPICS:
            assert len({m.headers["sequence"] for m in kafka.read_all(topic)}) == rows, topic
        assert daemon.term() == 0
