"""The broker tells clients an address that takes connections and answers nothing, and then comes back under another one."""
import time

import pytest
from harness.kafka import RealKafka
from harness.processes import wait_for
from harness.toxic import Proxy

pytestmark = [pytest.mark.real_kafka, pytest.mark.slow, pytest.mark.timeout(900)]
WATCHED = 45  # seconds: twice what a thread may take without a sign of life


@pytest.mark.parametrize("restarts", [False, True], ids=["hangs", "starts with it"])
def test_an_address_that_answers_nothing_and_another_one_after_it(app, institutions, make_daemon, ctl, real_kafka, restarts):
    """systemd's watchdog is fed meanwhile; all groups read on from the new address, without a restart."""
    del real_kafka  # that it can run here
    integration = app.integration(institutions.url("/good"))
    kafka = RealKafka()
    with Proxy(f"127.0.0.1:{kafka.ports['PLAINTEXT']}") as proxy:
        kafka.advertised_port = proxy.port
        kafka._write_properties()  # pylint: disable=protected-access
        kafka.start()
        try:
            daemon = make_daemon({"kafka": {"brokers": f"127.0.0.1:{kafka.ports['PLAINTEXT']}"},
                                  "consumers": {"session_timeout": "6s", "heartbeat_interval": "500ms"}})
            daemon.child.env = {**daemon.child.env, "WATCHDOG_USEC": "30000000"}
            daemon.start()

            def counted():
                return app.value("select coalesce(sum(sent), 0) from {s}.integration_runtime")
            app.subscriptions(integration, 20)
            wait_for(lambda: counted() == 20, 120, "the first to be counted")
            proxy.stall()
            if restarts:
                kafka.kill9()
                kafka.start(wait=False)
            app.subscriptions(integration, 20)
            app.wait_states(sent=40)
            fed, until = [], time.monotonic() + WATCHED

            def watched():
                fed.append(sum("WATCHDOG=1" in of for of in daemon.notifications()))
                return time.monotonic() > until
            wait_for(watched, WATCHED + 60, "the time to be over", interval=5)
            assert fed[-1] > fed[len(fed) // 2] > fed[0] and "makes no progress" not in daemon.log, fed
            kafka.kill9()
            proxy.down()
            kafka.advertised_port = None
            kafka._write_properties()  # pylint: disable=protected-access
            kafka.start()
            wait_for(lambda: counted() == 40, 240, lambda: f"all to be counted, now {counted()}")
            ctl("verify", "--wait", deadline=240).expect(0)
            assert daemon.is_running()
        finally:
            kafka.close()
