"""A transaction of another program that stays open in a topic of ours: nothing behind it is read, and the journal says why."""
import confluent_kafka
import pytest
from harness.anubis import merged
from harness.processes import wait_for

QUICK = {"consumers": {"session_timeout": "6s", "heartbeat_interval": "500ms"}}


@pytest.mark.real_kafka
@pytest.mark.timeout(300)
def test_what_a_transaction_of_others_holds_back_is_said(app, institutions, make_daemon, real_kafka, topic_prefix):
    settings = merged(QUICK, {"kafka": {"topic_prefix": topic_prefix}, "consumers": {"group_prefix": topic_prefix + "g"}})
    integration = app.integration(institutions.url("/good"))
    daemon = make_daemon(settings, kafka=real_kafka).start()

    def counted(number):
        wait_for(lambda: app.value("select sum(sent) from {s}.integration_runtime") == number, 90, f"{number} to be counted")
    app.subscriptions(integration, 20)
    counted(20)
    stranger = confluent_kafka.Producer({"bootstrap.servers": real_kafka.bootstrap, "transaction.timeout.ms": 200000,
                                         "transactional.id": "stranger " + topic_prefix})
    stranger.init_transactions(60)
    # One that ends leaves a mark at the end of the log, and holds back nothing.
    for ends in (True, False):
        stranger.begin_transaction()
        for partition in range(3):
            stranger.produce(topic_prefix + "subscriptions.sent", key="x", value="{}", partition=partition)
        stranger.flush(30)
        if ends:
            stranger.commit_transaction(60)
    app.subscriptions(integration, 20)
    daemon.wait_log(r'integration-group: nothing behind offset \d+ of ".*subscriptions.sent", partition \d, can be read, '
                    r'though it goes on to \d+: another program has left a transaction open', 60)
    assert "subscriptions.created\", partition" not in daemon.log
    stranger.abort_transaction(60)
    counted(40)
    daemon.wait_log("goes on: the transaction in it is over", 60)
    assert daemon.term() == 0
