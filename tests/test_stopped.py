"""A process that stands still for longer than its timeouts: a snapshot of its machine, a frozen group, SIGSTOP."""
import os
import signal
import time

from harness.processes import wait_for

SETTINGS = {"delivery": {"timeout": "3s", "connect_timeout": "3s", "lease": "60s", "max_in_flight_per_integration": 64},
            "retry": {"base_delay": "1h", "max_delay": "1h"}, "log_level": "info"}


def stand_still(daemon, seconds):
    os.kill(daemon.child.pid, signal.SIGSTOP)
    time.sleep(seconds)
    os.kill(daemon.child.pid, signal.SIGCONT)


def test_answers_that_came_meanwhile_count(app, institutions, make_daemon):
    daemon = make_daemon(SETTINGS).start()
    integration = app.integration(institutions.url("/slow/1500"))
    app.subscriptions(integration, 20)
    wait_for(lambda: app.value("select count(*) from {s}.subscriptions where status = 'processing'") == 20, 30, "all to be sent")
    wait_for(lambda: institutions.counts("/slow/1500")["requests"] == 20, 30, "all to arrive")
    stand_still(daemon, 5)
    app.wait_states(sent=20, deadline=60)
    assert app.value("select max(attempts) from {s}.subscriptions") == 1
    assert institutions.counts("/slow/1500")["requests"] == 20
    assert app.value("select count(*) from {s}.subscription_events where ambiguous or event_type in ('retried', 'failed')") == 0


def test_one_that_says_nothing_was_silent_all_the_time(app, institutions, make_daemon):
    """What was received and not answered is ambiguous, and is not sent again unseen."""
    daemon = make_daemon(SETTINGS).start()
    silent, well = app.integration(institutions.url("/silent")), app.integration(institutions.url("/good/well"))
    app.subscriptions(silent, 5)
    wait_for(lambda: institutions.counts("/silent")["requests"] == 5, 30, "all to arrive")
    stand_still(daemon, 5)
    app.wait_states(retry=5, deadline=60)
    assert app.value("select bool_and(last_ambiguous) from {s}.subscriptions where integration_id = %s", (silent,))
    app.subscriptions(well, 20)
    wait_for(lambda: app.value("select count(*) from {s}.subscriptions where status = 'sent'") == 20, 30, "the others")
    assert institutions.counts("/silent")["requests"] == 5
