"""Topics of events whose messages Kafka drops when newer ones of their key come."""
import pytest

pytestmark = pytest.mark.real_kafka


def test_a_topic_that_is_compacted_is_named(app, make_daemon, institutions, real_kafka, topic_prefix):
    """Those of a policy with "compact" in it, once; the work goes on. Others are not."""
    for name, policy in (("updated", "compact"), ("retried", "compact,delete"), ("sent", "delete")):
        real_kafka.create_topic(f"{topic_prefix}subscriptions.{name}", 3, {"cleanup.policy": policy})
    daemon = make_daemon({"kafka": {"topic_prefix": topic_prefix}}, kafka=real_kafka).start()
    daemon.wait_log(f'warning: Kafka compacts "{topic_prefix}subscriptions.updated", "{topic_prefix}subscriptions.retried" '
                    r"\(cleanup.policy\)")
    app.subscriptions(app.integration(institutions.url("/good")), 5)
    app.wait_states(sent=5)
    assert daemon.log.count("Kafka compacts") == 1
    assert daemon.term() == 0
