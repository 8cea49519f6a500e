"""Alerts: the right one, once, whoever looks; and every sink learns of it."""
import base64
import contextlib
import datetime
import hmac
import http.server
import json
import os
import re
import threading

import psycopg2
import pytest

from conftest import unavailable
from harness.alertmanager import RealAlertmanager
from harness.postgres import Unavailable
from harness.processes import wait_for
from harness.recording import RecordingServer

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SETTINGS = {"log_level": "info", "retry": {"base_delay": "100ms", "max_delay": "200ms"},
            "circuit_breaker": {"failure_threshold": 5, "recovery_timeout": "500ms", "max_recovery_timeout": "1s"},
            "alerts": {"backlog_age": "1s"}}
QUIET = {**SETTINGS, "alerts": {"backlog_age": "1h"}}


def alerts(app, kind=None):
    """[(kind, integration, state)], in the order in which they fired."""
    return app.query("select kind, integration_id, state from {s}.alerts where %s::text is null or kind = %s order by id",
                     (kind, kind))


def wait_alerts(app, *expected, kind=None, deadline=60):
    wait_for(lambda: alerts(app, kind) == list(expected), deadline, lambda: f"{expected}; there are {alerts(app)}")


def wait_noted(app):
    """What a daemon has said it has noted, too: when it is killed between the two, another one says it again."""
    wait_for(lambda: not app.query("select from {s}.alert_outbox where sink = 'journal' and sent_at is null"), 60,
             "the acknowledgement")


def lines(daemons, pattern):
    return [line for daemon in daemons for line in daemon.child.output.splitlines() if re.search(pattern, line)]


# --- what the database knows ---

def test_a_dead_institution_is_one_alert_for_two_daemons_and_all_their_restarts(app, institutions, make_daemon):
    integration = app.integration(institutions.url("/reject/500"), name="Dead")
    daemons = [make_daemon(QUIET, name=f"d{n}").start() for n in range(2)]
    app.subscriptions(integration, 50)
    wait_alerts(app, ("circuit_open", integration, "firing"))
    wait_for(lambda: lines(daemons, "alert: alert 1: circuit_open"), 30, "the journal to have it")
    wait_noted(app)
    for daemon in daemons:
        daemon.kill9()
        daemon.start()
    before = app.value("select circuit_generation from {s}.integration_runtime")
    wait_for(lambda: app.value("select circuit_generation from {s}.integration_runtime") > before + 3, 60, "further probes")
    assert alerts(app) == [("circuit_open", integration, "firing")]
    app.query("update {s}.integrations set endpoint_url = %s", (institutions.url("/good"),))
    wait_alerts(app, ("circuit_open", integration, "resolved"))
    app.wait_states(sent=50)
    wait_for(lambda: lines(daemons, "alert 1 is over"), 30, "the journal to say that it is over")
    assert len(lines(daemons, r"alert: alert \d+")) == 1 and len(lines(daemons, r"alert \d+ is over")) == 1
    assert lines(daemons, "alert: alert") == [line for line in lines(daemons, "alert: alert") if line.endswith(
        f'alert 1: circuit_open, integration {integration} "Dead": requests fail, so only a probe is sent now and then')]


def test_refused_credentials_are_an_alert_of_their_own(app, institutions, make_daemon):
    integration = app.integration(institutions.url("/reject/401"))
    make_daemon(QUIET).start()
    app.subscriptions(integration, 3)
    wait_alerts(app, ("authentication", integration, "firing"))
    app.query("update {s}.integrations set enabled = false")
    wait_alerts(app, ("authentication", integration, "resolved"))


def test_backlog_counts_what_could_be_sent(app, institutions, make_daemon):
    """Rows that wait for a slot, but not those of a later time, of a paused, disabled or unreachable integration."""
    url = institutions.url("/silent")
    slow = app.integration(url, name="Slow", max_in_flight=1)
    for columns in ({"paused_until": "infinity"}, {"enabled": False}):
        app.subscriptions(app.integration(url, **columns), 3)
    later = app.integration(url)
    app.subscriptions(later, 3, scheduled_to="2099-01-01")
    broken = app.integration(url)
    app.query("update {s}.integration_runtime set circuit_state = 'open', circuit_until = now() + interval '1 h', "
              "circuit_reason = 'failures' where integration_id = %s", (broken,))
    app.subscriptions(broken, 3)
    app.subscriptions(slow, 3)
    daemon = make_daemon({**SETTINGS, "circuit_breaker": {"recovery_timeout": "1h", "max_recovery_timeout": "1h"}}).start()
    wait_alerts(app, ("backlog", slow, "firing"), kind="backlog")
    value, threshold, message = app.query("select value, threshold, message from {s}.alerts where kind = 'backlog'")[0]
    assert value >= threshold == 1 and re.fullmatch(
        r"the oldest subscription that could be sent has waited for 00:00:\d\d; in 2 days 23:59:\d\d it fails for good", message)
    daemon.wait_log(f'backlog, integration {slow} "Slow": the oldest subscription')
    app.query("update {s}.integrations set paused_until = 'infinity' where id = %s", (slow,))
    wait_alerts(app, ("backlog", slow, "resolved"), kind="backlog")


def test_a_relay_without_kafka_is_an_alert_and_so_are_dead_letters(app, institutions, make_daemon, broker):
    daemon = make_daemon(SETTINGS).start()
    integration = app.integration(institutions.url())
    app.subscriptions(integration, 1)
    app.wait_states(sent=1)
    broker.stop()
    app.subscriptions(integration, 1)
    wait_alerts(app, ("relay", None, "firing"))
    daemon.wait_log("alert: alert 1: relay: the oldest event that is not published has waited for")
    broker.cont()
    wait_alerts(app, ("relay", None, "resolved"))
    app.query("insert into {s}.dead_letters (consumer_group, topic, partition, \"offset\", error) values ('x', 't', 0, 0, 'e')")
    wait_alerts(app, ("dead_letters", None, "firing"), kind="dead_letters")
    app.query("update {s}.dead_letters set replayed_at = now()")
    wait_alerts(app, ("dead_letters", None, "resolved"), kind="dead_letters")


def test_our_own_network_is_to_blame_and_no_institution(app, make_daemon):
    """Whichever daemon looks for alerts: the other one says it."""
    make_daemon({**QUIET, "delivery": {"max_in_flight": 1}}, name="idle").start()
    wait_for(lambda: app.value("select count(*) from pg_stat_activity where application_name = 'anubisd alerts'") == 1, 30,
             "the first to look")
    make_daemon(QUIET, name="lost").start()
    for port in range(1, 9):
        app.integration(f"http://127.0.0.1:{port}/")
    app.query("insert into {s}.subscriptions (integration_id) select id from {s}.integrations")  # all are lost at once
    wait_for(lambda: alerts(app, "network"), 60, "the alert")
    assert alerts(app) == [("network", None, "firing")]


def test_a_lost_network_silences_what_waits_and_what_fails(app, ctl, database, institutions, make_daemon):
    """Nothing of both fires while any daemon says that its network is lost; what fired before is not repeated."""
    slow, before = (app.integration(institutions.url("/silent"), max_in_flight=1) for _ in range(2))
    refusing = app.integration(institutions.url("/reject/422"))
    daemon = make_daemon({**SETTINGS, "alerts": {"backlog_age": "1s", "repeat_interval": "1s"}}).start()
    app.subscriptions(before, 3)
    daemon.wait_log(f"goes on: backlog, integration {before} ")
    with contextlib.closing(psycopg2.connect(database.conninfo() + " application_name='anubisd alerts (network lost)'")):
        wait_alerts(app, ("network", None, "firing"), kind="network")
        app.subscriptions(slow, 3)
        app.subscriptions(refusing, 20)
        wait_for(lambda: outcomes(app, refusing) == (20, 20), 60, "the evidence")
        late = "select count(*) from {s}.subscriptions where integration_id = %s and created_at < now() - interval '3 s'"
        wait_for(lambda: app.value(late, (slow,)) == 3, 60, "the others to be late")
        told = len(lines([daemon], "backlog"))
        daemon.wait_log("goes on: network", 90, count=len(lines([daemon], "goes on: network")) + 3)
        assert len(lines([daemon], "backlog")) == told
        quiet = {a["kind"]: a["quiet"] for a in ctl("alerts", "--json").expect(0).json["alerts"] if a["kind"] != "relay"}
        assert quiet == {"backlog": "the network is lost", "network": None}
    wait_alerts(app, ("backlog", before, "firing"), ("backlog", slow, "firing"), kind="backlog")
    assert not alerts(app, "failure_rate"), "what failed meanwhile says nothing later either"


def test_an_alert_is_repeated_until_somebody_takes_it_on(app, make_daemon):
    app.query("insert into {s}.dead_letters (consumer_group, topic, partition, \"offset\", error) values ('x', 't', 0, 0, 'e')")
    daemon = make_daemon({**QUIET, "alerts": {"repeat_interval": "1s"}}).start()
    daemon.wait_log("alert 1 goes on: dead_letters", count=3)
    assert len(lines([daemon], "alert 1: dead_letters")) == 1
    daemon.reload(alerts={"repeat_interval": "1h"})
    daemon.wait_log("changed: alerts.repeat_interval")


@pytest.mark.real_kafka
def test_what_is_too_large_for_a_topic_names_it_and_what_helps(app, institutions, make_daemon, real_kafka, topic_prefix):
    """Whichever topic it is."""
    app.query("insert into {s}.dead_letters (consumer_group, topic, partition, \"offset\", error) "
              "values ('x', 't', 0, 0, 'e')")
    app.subscriptions(app.integration(institutions.url("/good")), 5)
    for topic in ("alerts", "metrics", "dead_letters", "subscriptions.created"):
        real_kafka.create_topic(topic_prefix + topic, 1, {"max.message.bytes": "60"})
    daemon = make_daemon({"kafka": {"topic_prefix": topic_prefix}}, kafka=real_kafka).start()
    for topic, rows in (("alerts", "alerts"), ("dead_letters", "dead letters")):
        daemon.wait_log(rf'Kafka does not take {rows} \(topic "{topic_prefix}{topic}"\): it is larger than the topic takes: '
                        "raise the topic's max.message.bytes, or the brokers' message.max.bytes; trying again", 60)
    daemon.wait_log(rf'Kafka refuses event .* on topic "{topic_prefix}subscriptions.created": it is larger than the topic', 60)


@pytest.mark.parametrize("status", [429, 503])
def test_a_receiver_that_asks_for_time_has_it(app, make_daemon, status):
    """For all notices."""
    def answer(_request):
        return (status, {"Retry-After": "4"}, b"") if len(server.received) == 1 else (200, {}, b"")

    with RecordingServer(answer) as server:
        make_daemon({**SETTINGS, "alerts": {"webhook_url": server.url + "/hook"}}).start()
        app.query("insert into {s}.consumer_stops (read_model, reason) values ('external', 'x'); insert into {s}.audit_checks "
                  "(unsealed_since) values (now() - interval '1 h') on conflict (one) do update set differences = 1, words = 'x'")
        wait_for(lambda: len(server.received) >= 3, 60, lambda: alerts(app))
        # HTTP's clock counts in milliseconds, ours in microseconds.
        assert server.received[1].at - server.received[0].at >= 3.9


@pytest.mark.slow
def test_another_daemon_looks_when_the_one_that_did_is_frozen(app, make_daemon):
    """Its session is ended after a minute. Nothing is told twice, also when it goes on."""
    frozen = make_daemon(QUIET, name="frozen").start()
    dead_letter(app)
    frozen.wait_log("alert: alert 1: dead_letters")
    heir = make_daemon(QUIET, name="heir").start()
    wait_noted(app)
    frozen.stop()
    try:
        dead = circuit_of_nobody(app)
        heir.wait_log(rf"alert: alert 2: circuit_open, integration {dead} ", 150)
        heir.wait_log("the daemon that looks for alerts has been silent for a minute")
        app.query("update {s}.dead_letters set replayed_at = now()")
        heir.wait_log("alert 1 is over: dead_letters")
        wait_noted(app)
    finally:
        frozen.cont()
    app.query("update {s}.integrations set enabled = false")
    wait_alerts(app, ("dead_letters", None, "resolved"), ("circuit_open", dead, "resolved"))
    wait_noted(app)
    looks = "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'anubisd alerts'"
    wait_for(lambda: app.value(looks) == 2, 60, "the one that was frozen to have a session again")
    for pattern in ("alert: alert 1:", "alert: alert 2:", "alert 1 is over", "alert 2 is over"):
        assert len(lines([frozen, heir], pattern)) == 1, pattern


def circuit_of_nobody(app):
    """An integration that gets nothing, whose circuit is open: its id."""
    dead = app.integration("https://x.example/", name="Dead")
    app.query("update {s}.integration_runtime set circuit_state = 'open', circuit_until = now() + interval '1 h', "
              "circuit_since = now(), circuit_reason = 'failures' where integration_id = %s", (dead,))
    return dead


def test_the_alert_of_an_integration_that_is_deleted_is_over_and_told(app, make_daemon, receiver, managers, broker):
    """To each sink, with the name that it had."""
    dead = circuit_of_nobody(app)
    daemon = make_daemon({**QUIET, "alerts": {"webhook_url": receiver.url + "/hook",
                                              "alertmanager_urls": [m.url for m in managers]}}).start()
    daemon.wait_log(f'alert 1: circuit_open, integration {dead} "Dead"')
    wait_for(lambda: receiver.got and all(m.firing() == ["circuit_open"] for m in managers), 60, "all to know")
    assert app.query("delete from {s}.integrations where id = %s", (dead,)) == 1
    daemon.wait_log(f'alert 1 is over: circuit_open, integration {dead} "Dead"')
    wait_for(lambda: len(receiver.got) == 2 and not any(m.firing() for m in managers), 60, "all to know that it is over")
    wait_for(lambda: len(broker.read_all("anubis.alerts")) == 2, 60, "the topic to have both")
    for body in (json.loads(receiver.got[1][2])["data"], json.loads(broker.read_all("anubis.alerts")[1].value)):
        assert (body["integration"], body["integration_id"], body["state"]) == ({"id": dead, "name": "Dead"}, dead, "resolved")
    assert [len(m.resolved) for m in managers] == [1, 1] and alerts(app) == [("circuit_open", dead, "resolved")]


# --- the failure rate ---

def outcomes(app, integration):
    """(all, failures) that are kept as evidence."""
    return app.query("select coalesce(sum(total), 0)::int, coalesce(sum(failed), 0)::int from {s}.alert_buckets "
                     "where integration_id = %s", (integration,))[0]


def test_an_institution_that_refuses_everything_fires_once_and_its_recovery_resolves_it(app, institutions, make_daemon):
    """Two daemons, one of which is killed in between; every retry beside the first attempts would not count."""
    integration = app.integration(institutions.url("/reject/422"), name="Refuses")
    healthy = app.integration(institutions.url("/flaky/20"), name="Flaky")
    settings = {**QUIET, "delivery": {"timeout": "1s", "lease": "2s"},
                "consumers": {"session_timeout": "6s", "heartbeat_interval": "500ms"}}
    daemons = [make_daemon(settings, name=f"d{n}").start() for n in range(2)]
    app.subscriptions(healthy, 200)
    app.subscriptions(integration, 15)
    wait_alerts(app, ("failure_rate", integration, "firing"))
    assert app.query("select value, threshold from {s}.alerts") == [(1, 0.5)]
    wait_for(lambda: lines(daemons, f'alert: alert 1: failure_rate, integration {integration} "Refuses": 100 % of first'), 30,
             "the journal")
    wait_noted(app)
    daemons[0].kill9()
    app.query("update {s}.integrations set endpoint_url = %s where id = %s", (institutions.url("/good"), integration))
    app.subscriptions(integration, 150)
    wait_alerts(app, ("failure_rate", integration, "resolved"))
    def expected():
        return app.value("select count(*) from {s}.subscription_events where event_type in ('sent', 'failed') or attempt = 1 "
                         "and event_type = 'retried' and error_message !~ '^lease expired'")
    app.wait_states(failed=15, sent=350)
    wait_for(lambda: sum(outcomes(app, i)[0] for i in (integration, healthy)) == expected(), 60,
             lambda: f"each outcome to count once: {outcomes(app, healthy)}, {outcomes(app, integration)}, {expected()}")
    assert outcomes(app, integration) == (165, 15)
    assert len(lines(daemons, "alert: alert")) == 1


def test_the_cause_silences_the_failure_rate(app, institutions, make_daemon):
    """What fails while the circuit is open, and what led to that, fires nothing once the circuit is closed."""
    integration = app.integration(institutions.url("/reject/500"))
    make_daemon(QUIET).start()
    app.subscriptions(integration, 60)
    wait_alerts(app, ("circuit_open", integration, "firing"))
    wait_for(lambda: outcomes(app, integration)[1] >= 6, 30, "enough failures to fire")
    app.query("update {s}.integrations set endpoint_url = %s", (institutions.url("/good"),))
    wait_alerts(app, ("circuit_open", integration, "resolved"))
    app.wait_states(sent=60)
    wait_for(lambda: outcomes(app, integration)[0] >= 60 + 6, 30, "all outcomes")
    app.subscriptions(integration, 1)
    wait_for(lambda: outcomes(app, integration)[0] >= 61 + 6, 30, "one more")
    assert alerts(app) == [("circuit_open", integration, "resolved")]


def test_a_503_with_retry_after_counts_once_a_subscription(app, ctl, institutions, make_daemon):
    """It costs no attempt, so each try is the first; the last one is the final result."""
    integration = app.integration(institutions.url("/reject/503?retry_after=0"))
    make_daemon(QUIET).start()
    app.subscriptions(integration, 4)
    often = ("select count(*) from (select from {s}.subscription_events where event_type = 'retried' and attempt = 1 "
             "group by subscription_id having count(*) > 2) x")
    wait_for(lambda: app.value(often) == 4, 60, "each to be tried often")
    app.query("update {s}.integrations set endpoint_url = %s", (institutions.url("/good"),))
    app.wait_states(sent=4)
    ctl("verify", "--wait", deadline=120).expect(0)
    assert outcomes(app, integration) == (8, 4)


def test_held_rows_are_no_evidence_nor_is_what_an_operator_says(app, ctl, institutions, make_daemon):
    integration = app.integration(institutions.url("/silent"), timeout_ms=500, delivery_settings='{"on_ambiguous": "hold"}')
    make_daemon(QUIET).start()
    numbers = app.subscriptions(integration, 4)
    wait_for(lambda: app.value("select count(*) from {s}.subscriptions where held_at is not null") == 4, 60, "all to be held")
    app.query("update {s}.integrations set endpoint_url = %s", (institutions.url("/reject/422"),))
    ctl("settle", *map(str, numbers[:2]), "--as", "failed", "--reason", "asked").expect(0)
    ctl("settle", *map(str, numbers[2:]), "--as", "sent", "--reason", "asked").expect(0)
    ctl("verify", "--wait", deadline=120).expect(0)
    assert outcomes(app, integration) == (0, 0)
    ctl("retry", "--ids", str(numbers[0])).expect(0)
    app.wait_states(failed=2, sent=2)
    ctl("verify", "--wait", deadline=120).expect(0)
    assert outcomes(app, integration) == (1, 1), "what is put back is sent anew, and that alone counts"


def test_an_answer_of_null_is_an_answer(app, ctl, institutions, make_daemon):
    integration = app.integration(institutions.url("/echo"))
    make_daemon(QUIET).start()
    app.query("insert into {s}.subscriptions (integration_id, payload) select %s, 'null' from generate_series(1, 3)",
              (integration,))
    app.wait_states(sent=3)
    ctl("verify", "--wait", deadline=120).expect(0)
    assert outcomes(app, integration) == (3, 0)


def test_remediation_pauses_and_a_command_undoes_it(app, ctl, institutions, make_daemon):
    """After that, what failed before says nothing: it is not paused again for it."""
    integration = app.integration(institutions.url("/reject/422"))
    daemon = make_daemon({**QUIET, "alerts": {"remediation": "pause", "repeat_interval": "1s"}}).start()
    app.subscriptions(integration, 12)
    daemon.wait_log(rf'failure_rate.*paused the integration \(alerts.remediation\): '
                    rf'"anubisctl resume {integration}" ends the pause')
    assert app.query("select paused_until::text, pause_reason from {s}.integrations") == [
        ("infinity", "alert failure_rate: 100 % failures (alerts.remediation)")]
    assert [a["quiet"] for a in ctl("alerts", "--json").expect(0).json["alerts"]] == ["the integration is paused"]
    app.wait_states(failed=12)
    numbers = app.subscriptions(integration, 30)
    app.query("update {s}.integrations set endpoint_url = %s", (institutions.url("/good"),))
    resumed = ctl("resume", str(integration), "--json").expect(0).json
    assert resumed["was_paused"] and resumed["pause_reason"].startswith("alert failure_rate")
    app.wait_states(failed=12, sent=len(numbers))
    wait_alerts(app, ("failure_rate", integration, "resolved"))
    assert app.value("select paused_until from {s}.integrations") is None


def test_remediation_pauses_again_what_was_resumed_and_is_not_mended(app, ctl, institutions, make_daemon):
    """And tells it, also who had acknowledged the alert; it is the same alert."""
    integration = app.integration(institutions.url("/reject/422"))
    make_daemon({**QUIET, "alerts": {"remediation": "pause"}}).start()
    app.subscriptions(integration, 12)
    told = "select array_agg(event order by id) from {s}.alert_outbox where sink = 'journal' and sent_at is not null"
    for number in range(3):
        wait_for(lambda n=number: app.value(told) == ["fired"] + n * ["repeated"], 60, lambda: app.value(told))
        assert app.value("select paused_until::text from {s}.integrations") == "infinity"
        ctl("alerts", "ack", "1").expect(0)
        ctl("resume", str(integration)).expect(0)
        app.subscriptions(integration, 12)
    assert alerts(app) == [("failure_rate", integration, "firing")]


def test_an_alert_that_fires_tells_how_it_is_now(app, institutions, make_daemon, receiver):
    """Its numbers grow, its share falls: what is repeated is not what was so in the first second."""
    integration = app.integration(institutions.url("/reject/422"))
    slow = app.integration(institutions.url("/silent"), max_in_flight=1)
    put_aside = ("insert into {s}.dead_letters (consumer_group, topic, partition, \"offset\", error) "
                 "select 'x', 't', 0, n, 'e' from generate_series(%s, %s) n")
    app.query(put_aside, (1, 1))
    make_daemon({**SETTINGS, "alerts": {"backlog_age": "1s", "webhook_url": receiver.url + "/hook",
                                        "repeat_interval": "1s"}}).start()
    app.subscriptions(integration, 12)
    app.subscriptions(slow, 3)
    wait_for(lambda: {a[0] for a in alerts(app)} >= {"dead_letters", "failure_rate", "backlog"}, 60, lambda: alerts(app))
    app.query(put_aside, (2, 500))
    app.query("update {s}.integrations set endpoint_url = %s where id = %s", (institutions.url("/good"), integration))
    app.subscriptions(integration, 6)

    def told(kind):
        return [data for _, _, body in receiver.got if (data := json.loads(body)["data"])["kind"] == kind]
    wait_for(lambda: told("dead_letters")[-1]["message"] == "500 of Kafka's messages could not be handled", 60,
             lambda: told("dead_letters"))
    assert told("dead_letters")[-1]["value"] == 500 and told("dead_letters")[0]["value"] == 1
    wait_for(lambda: told("failure_rate")[-1]["value"] < 0.75, 60, lambda: told("failure_rate"))
    assert told("failure_rate")[-1]["message"].startswith("67 %")
    wait_for(lambda: told("backlog")[-1]["value"] > 6, 60, lambda: told("backlog"))
    assert re.search(r"00:00:(0[6-9]|[1-5]\d)", told("backlog")[-1]["message"])


def test_an_alert_that_fires_tells_the_threshold_in_force(app, institutions, make_daemon):
    """Also when that was changed by a reload: the alert stays, and its numbers fit together."""
    refusing = app.integration(institutions.url("/reject/422"))
    slow = app.integration(institutions.url("/silent"), max_in_flight=1)
    daemon = make_daemon(QUIET).start()
    app.subscription(app.integration(institutions.url("/good")))
    wait_for(lambda: app.value("select sum(sent) from {s}.integration_runtime") == 1, 60, "Kafka, which is slow to begin with")
    daemon.reload(alerts={"backlog_age": "1s", "failure_rate": 0.5})
    app.subscriptions(refusing, 12)
    app.subscriptions(slow, 3)
    thresholds = "select kind, threshold, started_at from {s}.alerts where state = 'firing' order by 1"
    wait_for(lambda: [row[:2] for row in app.query(thresholds)] == [("backlog", 1), ("failure_rate", 0.5)], 60,
             lambda: app.query(thresholds))
    before = [row[2] for row in app.query(thresholds)]
    daemon.reload(alerts={"backlog_age": "2s", "failure_rate": 0.6, "resolve_rate": 0.3})
    wait_for(lambda: [row[:2] for row in app.query(thresholds)] == [("backlog", 2), ("failure_rate", 0.6)], 30,
             lambda: app.query(thresholds))
    assert [row[2] for row in app.query(thresholds)] == before and len(alerts(app)) == 2


@pytest.mark.parametrize("first, then, words", [
    ("insert into {s}.dead_letters (consumer_group, topic, partition, \"offset\", error) values ('x', 't', 0, 1, 'e')",
     "insert into {s}.consumer_stops (read_model, reason) values ('integration', '60 of 60 messages could not be handled')",
     "dead_letters: the group integration has stopped"),
    ("insert into {s}.consumer_stops (read_model, reason) values ('monitoring', 'the audit log lacks leaves')",
     "insert into {s}.consumer_stops (read_model, reason) values ('integration', '60 of 60 messages could not be handled')",
     "dead_letters: .*the group integration has stopped"),
    ("insert into {s}.audit_checks (unsealed_since) values (now() - interval '1 h') on conflict (one) do update "
     "set unsealed_since = excluded.unsealed_since",
     "update {s}.audit_checks set differences = 3, words = 'leaf 7 was changed'", "audit: the audit log was changed"),
], ids=["a group stops", "another group stops", "the log was changed"])
def test_another_cause_is_told_whoever_has_acknowledged_the_one_before(app, ctl, make_daemon, first, then, words):
    app.query(first)
    daemon = make_daemon(QUIET).start()
    daemon.wait_log("alert 1: ")
    wait_noted(app)
    ctl("alerts", "ack", "1").expect(0)
    app.query(then)
    daemon.wait_log(f"alert 1 goes on: {words}", 60)
    assert [a["acknowledged_by"] for a in ctl("alerts", "--json").expect(0).json["alerts"]] == [None]


def test_evidence_of_a_clock_that_was_ahead_hides_nothing(app, institutions, make_daemon):
    integration = app.integration(institutions.url("/good"))
    make_daemon(QUIET).start()
    app.subscriptions(integration, 20)
    wait_for(lambda: outcomes(app, integration) == (20, 0), 60, "the evidence")
    app.query("update {s}.alert_evidence set recent = array(select x + 2 * 3600000000 from unnest(recent) x order by 1 desc)")
    app.query("update {s}.integrations set endpoint_url = %s", (institutions.url("/reject/404"),))
    app.subscriptions(integration, 60)
    wait_alerts(app, ("failure_rate", integration, "firing"), kind="failure_rate")


def test_for_asks_that_it_lasts(app, institutions, make_daemon):
    """The daemon that waits is killed meanwhile: the next one goes on where it was."""
    integration = app.integration(institutions.url("/reject/422"))
    daemon = make_daemon({**QUIET, "alerts": {"for": "5s"}}).start()
    app.subscriptions(integration, 12)
    above = "select above_since from {s}.alert_evidence where above_since > 0"
    since = wait_for(lambda: app.value(above), 60, "the share to be found above")
    daemon.kill9()
    daemon.start()
    wait_alerts(app, ("failure_rate", integration, "firing"))
    assert app.value(above) == since
    assert app.value("select extract(epoch from started_at) * 1000000 from {s}.alerts") >= since + 5_000_000


# --- the sinks ---

class Receiver:
    """An HTTP server that keeps what it gets, and answers with `status`."""

    def __init__(self):
        self.status, self.got, self.refuses = 200, [], lambda body: None
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):  # pylint: disable=invalid-name
                body = self.rfile.read(int(self.headers["Content-Length"]))
                status = receiver.refuses(body) or receiver.status
                if status == 200:
                    receiver.take(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments):  # pylint: disable=arguments-differ
                pass
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, path, headers, body):
        self.got.append((path, headers, body))

    def close(self):
        self.server.shutdown()
        self.server.server_close()


class Alertmanager(Receiver):
    """It keeps the rules of the real one: the labels are the identity, a resolved alert wins, and nothing survives a restart."""

    def __init__(self):
        super().__init__()
        self.alerts, self.resolved, self.starts = {}, [], set()

    def take(self, path, headers, body):
        assert path == "/api/v2/alerts" and headers["content-type"] == "application/json"
        for alert in json.loads(body):
            labels = tuple(sorted(alert["labels"].items()))
            starts, ends = (datetime.datetime.fromisoformat(alert[k]) for k in ("startsAt", "endsAt"))
            assert starts <= ends and all(isinstance(v, str) and v for _, v in labels) and dict(labels)["alertname"]
            assert all(isinstance(v, str) for v in alert["annotations"].values())
            self.starts.add((labels, starts))
            now = datetime.datetime.now(datetime.timezone.utc)
            if ends <= now and labels in self.alerts:
                self.resolved.append(labels)
            elif ends > now:
                assert datetime.timedelta(minutes=3, seconds=30) < ends - now < datetime.timedelta(minutes=4, seconds=30)
            self.alerts[labels] = ends
        self.got.append(body)

    def firing(self):
        now = datetime.datetime.now(datetime.timezone.utc)
        return sorted(dict(labels)["kind"] for labels, ends in self.alerts.items() if ends > now)

    def restart(self):
        self.alerts = {}


@pytest.fixture
def receiver():
    server = Receiver()
    yield server
    server.close()


@pytest.fixture
def managers():
    servers = [Alertmanager(), Alertmanager()]
    yield servers
    for server in servers:
        server.close()


SECRET = "whsec_" + base64.b64encode(b"nobody guesses what stands here").decode()


def dead_letter(app):
    app.query("insert into {s}.dead_letters (consumer_group, topic, partition, \"offset\", error) values ('x', 't', 0, 0, 'e')")


def test_a_notice_that_has_the_id_of_one_that_a_restore_forgot(app, make_daemon, receiver):
    """Receivers of Standard Webhooks drop what comes under a webhook-id that they know."""
    daemon, ids = make_daemon({**QUIET, "alerts": {"webhook_url": receiver.url}}), []
    for round_ in (1, 2):
        dead_letter(app)
        daemon.start()
        wait_for(lambda n=round_: len(receiver.got) == n, 60, "the webhook to be told")
        assert daemon.term() == 0
        ids.append(app.value("select min(id) from {s}.alert_outbox where sink = 'webhook'"))
        app.query("truncate {s}.alerts, {s}.alert_outbox, {s}.dead_letters restart identity cascade")
    first, second = (headers["webhook-id"] for _, headers, _ in receiver.got)
    assert first != second and ids[0] == ids[1]


def test_every_sink_learns_of_it_also_when_it_was_away(app, institutions, make_daemon, broker, receiver, managers):
    """Webhook, topic and Alertmanagers, all dead at first and then back: fired once, resolved once."""
    receiver.status = managers[1].status = 500
    integration = app.integration(institutions.url("/reject/500"), name="Dead")
    daemon = make_daemon({**QUIET, "alerts": {"webhook_url": receiver.url + "/hook", "webhook_secret": SECRET,
                                              "alertmanager_urls": [m.url for m in managers]}}).start()
    app.subscriptions(integration, 20)
    wait_for(lambda: managers[0].firing() == ["circuit_open"], 60, "the first Alertmanager to know")
    daemon.wait_log("the webhook does not take alerts: HTTP 500; trying again")
    wait_for(lambda: app.value("select max(attempts) from {s}.alert_outbox where sink = 'webhook' and sent_at is null") > 1, 30,
             "the webhook to be tried again")
    receiver.status = managers[1].status = 200
    wait_for(lambda: managers[1].firing() == ["circuit_open"] and receiver.got, 60, "the others to know")
    app.query("update {s}.integrations set endpoint_url = %s", (institutions.url("/good"),))
    wait_for(lambda: len(receiver.got) == 2 and not any(m.firing() for m in managers), 60, "all to know that it is over")
    wait_for(lambda: len(broker.read_all("anubis.alerts")) == 2, 60, "the topic to have both")
    for number, (path, headers, body) in enumerate(receiver.got):
        told = json.loads(body)
        assert path == "/hook" and told["type"] == ("alert.fired", "alert.resolved")[number]
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        key = base64.b64decode(SECRET.removeprefix("whsec_"))
        assert headers["webhook-signature"] == "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
        message = broker.read_all("anubis.alerts")[number]
        assert json.loads(message.value) == told["data"] and message.key == "1"
        assert told["data"]["integration"] == {"id": integration, "name": "Dead"} and told["data"]["kind"] == "circuit_open"
        assert told["data"]["state"] == ("firing", "resolved")[number]
    assert receiver.got[0][1]["webhook-id"] != receiver.got[1][1]["webhook-id"]
    for manager in managers:
        assert len(manager.starts) == 1 and len({labels for labels, _ in manager.starts}) == 1
    alert = json.loads(managers[0].got[-1])[0]
    with open(os.path.join(ROOT, "man/anubisd.8"), encoding="utf-8") as f:
        manual = f.read().split(".Ss What sinks are told")[1].split(".Sh ")[0]
    for name in (*told, *told["data"], *alert, *alert["labels"], *alert["annotations"],
                 *(h for h in headers if h.startswith("webhook-"))):
        assert re.search(rf"^\.Va .*(?<![\w-]){name}(?![\w-])", manual, re.MULTILINE) or name in ("labels", "annotations"), name
    assert not app.value("select count(*) from {s}.alert_outbox where sent_at is null")


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_notice_that_is_refused_keeps_no_other_back(app, institutions, make_daemon, receiver, status):
    """It is tried again, and what comes later of the same alert waits for it."""
    receiver.refuses = lambda body: status if b"dead_letters" in body else None
    dead_letter(app)
    daemon = make_daemon({**QUIET, "alerts": {"webhook_url": receiver.url + "/hook"}}).start()
    daemon.wait_log(rf"the webhook refuses the notice alert_\d+: HTTP {status}; trying it again, beside others")
    app.subscriptions(app.integration(institutions.url("/reject/500")), 20)
    wait_for(lambda: [json.loads(body)["data"]["kind"] for _, _, body in receiver.got] == ["circuit_open"], 60, "the other alert")
    app.query("update {s}.dead_letters set replayed_at = now()")
    wait_alerts(app, ("dead_letters", None, "resolved"), kind="dead_letters")
    receiver.refuses = lambda body: None
    wait_for(lambda: len(receiver.got) == 3, 60, "all of it")
    assert [json.loads(body)["type"] for _, _, body in receiver.got][1:] == ["alert.fired", "alert.resolved"]


def test_a_clock_that_was_ahead_when_it_fired(app, make_daemon, receiver, managers):
    """And is right again: it is repeated, and over."""
    dead_letter(app)
    receiver.status = 500
    make_daemon({**QUIET, "alerts": {"webhook_url": receiver.url + "/hook", "alertmanager_urls": [managers[0].url]}}).start()
    wait_for(lambda: managers[0].firing() == ["dead_letters"] and
             app.value("select count(*) from {s}.alert_outbox where sink = 'webhook' and attempts > 0"), 60, "it to be told")
    managers[0].restart()
    ahead = "interval '3 h'"
    app.query(f"update {{s}}.alerts set started_at = started_at + {ahead}, last_notified_at = last_notified_at + {ahead}")
    app.query(f"update {{s}}.alert_outbox set created_at = created_at + {ahead}, due_at = due_at + {ahead} where sent_at is null")
    receiver.status = 200
    wait_for(lambda: [json.loads(body)["type"] for _, _, body in receiver.got] == ["alert.fired", "alert.repeated"], 60,
             "the webhook")
    wait_for(lambda: managers[0].firing() == ["dead_letters"], 90, "it to be told again")
    app.query(f"update {{s}}.alerts set started_at = now() + {ahead}, last_notified_at = now() + {ahead}")
    app.query("update {s}.dead_letters set replayed_at = now()")
    wait_for(lambda: json.loads(receiver.got[-1][2])["type"] == "alert.resolved", 60, "the end")
    wait_for(lambda: managers[0].resolved, 60, "the Alertmanager to know")
    assert [json.loads(body)["type"] for _, _, body in receiver.got].count("alert.resolved") == 1


def test_an_alertmanager_that_has_forgotten_everything_learns_it_again(app, make_daemon, managers):
    """Within a minute, and nothing is resolved by that."""
    dead_letter(app)
    make_daemon({**QUIET, "alerts": {"alertmanager_urls": [managers[0].url]}}).start()
    wait_for(lambda: managers[0].firing() == ["dead_letters"], 60, "the alert")
    managers[0].restart()
    wait_for(lambda: managers[0].firing() == ["dead_letters"], 90, "it to be told again")
    assert not managers[0].resolved and len(managers[0].starts) == 1


def test_alertmanagers_that_are_away_for_hours_miss_nothing(app, institutions, make_daemon, managers):
    """What ended meanwhile, what began, and what did both; and what fires all the time was never over."""
    ends, short, late = (app.integration(institutions.url(f"/good/{name}"), name=name) for name in ("ends", "short", "late"))

    def fail(integration, name, state="firing"):
        institutions.become(f"/good/{name}", "/reject/500" if state == "firing" else "")
        if state == "firing":
            app.subscriptions(integration, 10)
        wait_for(lambda: (("circuit_open", integration, state)) in alerts(app), 60, lambda: f"{name}: {alerts(app)}")
    dead_letter(app)
    make_daemon({**QUIET, "alerts": {"alertmanager_urls": [m.url for m in managers]}}).start()
    fail(ends, "ends")
    wait_for(lambda: all(m.firing() == ["circuit_open", "dead_letters"] for m in managers), 60, "both to know")
    for manager in managers:
        manager.status = 503
    fail(short, "short")
    for integration, name in ((ends, "ends"), (short, "short")):
        fail(integration, name, "resolved")
    fail(late, "late")
    waiting = "select count(*) from {s}.alert_outbox where sink like 'alertmanager _' and sent_at is null and attempts > 0"
    wait_for(lambda: app.value(waiting) == 8, 60, "each of it to be refused by both")
    hours = "interval '20 h'"
    app.query(f"update {{s}}.alerts set started_at = started_at - {hours}, resolved_at = resolved_at - {hours}, "
              f"last_notified_at = last_notified_at - {hours} where state = 'resolved'")
    app.query(f"update {{s}}.alert_outbox set created_at = created_at - {hours}, due_at = due_at - {hours}")
    for manager in managers:
        manager.status = 200

    def told(manager):
        return {(dict(labels)["kind"], dict(labels).get("integration_id")) for labels in manager.alerts}
    wait_for(lambda: not app.value("select count(*) from {s}.alert_outbox where sent_at is null"), 120, "all to be taken")
    for manager in managers:
        assert told(manager) == {("dead_letters", None), *(("circuit_open", str(i)) for i in (ends, short, late))}
        assert manager.firing() == ["circuit_open", "dead_letters"]
        assert [dict(labels)["integration_id"] for labels in manager.resolved] == [str(ends)]
        assert len({starts for labels, starts in manager.starts if dict(labels)["kind"] == "dead_letters"}) == 1


@pytest.mark.slow
def test_what_is_over_is_told_to_alertmanager_for_a_quarter_of_an_hour(app, ctl, institutions, make_daemon, managers):
    integration = app.integration(institutions.url("/reject/500"))
    dead_letter(app)
    make_daemon({**QUIET, "alerts": {"alertmanager_urls": [managers[0].url]}}).start()
    app.subscriptions(integration, 10)
    wait_for(lambda: managers[0].firing() == ["circuit_open", "dead_letters"], 60, "both alerts")
    app.query("update {s}.integrations set endpoint_url = %s", (institutions.url("/good"),))
    wait_for(lambda: managers[0].resolved, 60, "the end to be told")
    bodies = len(managers[0].got)
    wait_for(lambda: len(managers[0].got) > bodies, 120, "it to be told again")
    assert b"circuit_open" in managers[0].got[-1] and managers[0].firing() == ["dead_letters"]
    app.query("update {s}.alerts set resolved_at = now() - interval '16 min' where state = 'resolved'")
    ctl("alerts", "test").expect(0)
    assert b"AnubisdTest" in managers[0].got[-1] and b"circuit_open" not in managers[0].got[-1]


@pytest.fixture
def real_managers(receiver):
    started = []
    try:
        for _ in range(2):
            started.append(RealAlertmanager(receiver.url).start())
    except Unavailable as e:
        unavailable(str(e))
    yield started
    for each in started:
        each.kill()


def told(receiver, status):
    """How often an Alertmanager has told people of this."""
    return sum(json.loads(body)["status"] == status for _, _, body in receiver.got)


@pytest.mark.slow
def test_real_alertmanagers_learn_of_it_and_one_that_is_killed_resolves_nothing(app, make_daemon, receiver, real_managers):
    dead_letter(app)
    daemon = make_daemon({**QUIET, "alerts": {"alertmanager_urls": [m.url for m in real_managers]}}).start()
    wait_for(lambda: all(m.kinds() == ["dead_letters"] for m in real_managers) and told(receiver, "firing") == 2, 60,
             "both to know")
    started_at = app.value("select started_at from {s}.alerts")
    for manager in real_managers:
        alert, = manager.alerts()
        starts_at = datetime.datetime.fromisoformat(alert["startsAt"].replace("Z", "+00:00"))
        assert abs(starts_at - started_at) < datetime.timedelta(milliseconds=2)
        assert alert["labels"]["alertname"] == "AnubisdDeadLetters" and "could not be handled" in alert["annotations"]["summary"]
    real_managers[0].kill()
    daemon.kill9()
    real_managers[0].start()
    daemon.start()
    wait_for(lambda: real_managers[0].kinds() == ["dead_letters"], 120, "the new one to learn it")
    assert real_managers[1].kinds() == ["dead_letters"] and told(receiver, "resolved") == 0
    real_managers[0].kill()
    real_managers[0].start()
    wait_for(lambda: real_managers[0].kinds() == ["dead_letters"], 120, "the new one to learn it from a daemon that goes on")
    assert told(receiver, "resolved") == 0
    app.query("update {s}.dead_letters set replayed_at = now()")
    wait_for(lambda: not any(m.kinds() for m in real_managers) and told(receiver, "resolved") == 2, 60,
             "both to know that it is over")


def test_a_reload_changes_where_alerts_go(app, make_daemon, receiver):
    daemon = make_daemon({**QUIET, "alerts": {"repeat_interval": "1s"}}).start()
    dead_letter(app)
    daemon.wait_log("alert: alert 1: dead_letters")
    daemon.reload(alerts={"webhook_url": receiver.url})
    wait_for(lambda: receiver.got, 30, "the webhook to be told")
    assert json.loads(receiver.got[0][2])["type"] == "alert.repeated" and "webhook-signature" not in receiver.got[0][1]


def test_what_waits_for_a_sink_that_is_configured_no_more_is_given_up(app, ctl, make_daemon, receiver):
    """At a reload and at a start, with a word; what waits for the others stays."""
    unsent = "select sink, count(*) from {s}.alert_outbox where sent_at is null group by 1 order by 1"
    waits = "no longer names these sinks of alerts: "
    receiver.status = 500
    daemon = make_daemon({**QUIET, "alerts": {"webhook_url": receiver.url, "alertmanager_urls": ["http://127.0.0.1:1"]}}).start()
    dead_letter(app)
    wait_for(lambda: app.query(unsent) == [("alertmanager 1", 1), ("webhook", 1)], 60, "the notice to wait for both")
    daemon.reload(alerts={"webhook_url": ""})
    daemon.wait_log(waits + "webhook; 1 notice that waited for them is given up")
    assert app.query(unsent) == [("alertmanager 1", 1)]
    app.query("insert into {s}.alert_outbox (alert_id, sink, event, body) select alert_id, s, event, body from {s}.alert_outbox, "
              "unnest('{webhook,alertmanager 7}'::text[]) s where sink = 'alertmanager 1'")
    assert daemon.term() == 0
    daemon.start()
    daemon.wait_log(waits + "alertmanager 7, webhook; 2 notices that waited for them are given up")
    assert app.query(unsent) == [("alertmanager 1", 1)]
    assert daemon.term() == 0
    assert len(lines([daemon], waits)) == 2
    assert "alertmanager 1" in (shown := ctl("alerts").expect(0).stdout) and "webhook" not in shown


def test_a_user_and_a_password_in_the_url_of_a_sink(app, ctl, make_daemon, receiver):
    """Basic authentication (RFC 7617), percent-encoded as URLs have it; journal and database hold neither."""
    dead_letter(app)
    url = receiver.url.replace("//", "//a%3Ab:s3cr%E9t%25@")
    daemon = make_daemon({**QUIET, "log_level": "debug", "alerts": {"webhook_url": url + "/hook", "alertmanager_urls": [
        url + "/am/", receiver.url.replace("//", "//only@")]}}).start()
    wait_for(lambda: len(receiver.got) == 3, 30, lambda: f"all to be told: {receiver.got} {daemon.log}")
    told = {(path, base64.b64decode(headers["authorization"].removeprefix("Basic "))) for path, headers, _ in receiver.got}
    assert told == {("/hook", b"a:b:s3cr\xe9t%"), ("/am/api/v2/alerts", b"a:b:s3cr\xe9t%"), ("/api/v2/alerts", b"only:")}
    wait_for(lambda: not app.query("select from {s}.alert_outbox where sent_at is null"), 30, "it to be noted")
    assert "s3cr" not in daemon.log + str(app.query("select o::text from {s}.alert_outbox o")) + ctl("alerts").stdout


# --- the operator ---

def test_an_alert_that_somebody_acknowledged_is_not_repeated(app, ctl, make_daemon):
    """But it is told that it is over; and the same thing is told when it fires anew."""
    dead_letter(app)
    daemon = make_daemon({**QUIET, "alerts": {"repeat_interval": "1s"}}).start()
    daemon.wait_log("alert 1 goes on: dead_letters")
    assert ctl("alerts", "ack", "1", "--dry-run").expect(0).stdout.endswith("Nothing was changed (--dry-run).\n")
    assert ctl("status", "--json").expect(0).json["alerts_firing"] == 1
    done = ctl("alerts", "ack", "1", "--json", env={"SUDO_USER": "maria"}).expect(0).json
    assert done == {"id": 1, "kind": "dead_letters", "integration_id": None, "acknowledged_by": "maria"}
    assert "It was acknowledged before." in ctl("alerts", "ack", "1").expect(0).stdout
    told = len(lines([daemon], "alert 1"))
    app.query("update {s}.alerts set last_notified_at = now() - interval '1 h' where id = 1; "
              "insert into {s}.alerts (kind, message, last_notified_at) values ('other', 'told before', now())")
    daemon.wait_log("alert 2 is over: other")  # a look later
    listed = ctl("alerts", "--json").expect(0).json
    assert [(a["id"], a["state"], a["acknowledged_by"]) for a in listed["alerts"]] == [
        (1, "firing", "maria"), (2, "resolved", None)]
    shown = " ".join(ctl("alerts", "list").expect(0).stdout.split())
    assert f"{listed['alerts'][0]['message']}; no repeats: acknowledged by maria" in shown
    app.query("update {s}.dead_letters set replayed_at = now()")
    daemon.wait_log("alert 1 is over: dead_letters")
    assert len(lines([daemon], "alert 1")) == told + 1
    assert "alert 1 is over" in ctl("alerts", "ack", "1").expect(1).stderr
    assert "there is no alert 9" in ctl("alerts", "ack", "9").expect(1).stderr
    app.query("update {s}.dead_letters set replayed_at = null")
    daemon.wait_log("alert: alert 3: dead_letters")


def test_a_silence_is_for_an_integration_a_kind_and_a_time(app, ctl, institutions, make_daemon, managers):
    """What fires in it is told when it ends. An Alertmanager that was told before is not told that it were over."""
    dead, other = (app.integration(institutions.url("/reject/500"), name=name) for name in ("Dead", "Other"))
    silent = ctl("alerts", "silence", "--integration", str(dead), "--for", "1h", "--reason", "moves", "--json",
                 env={"SUDO_USER": "maria"}).expect(0).json
    assert silent["name"] == "Dead" and silent["kind"] is None and silent["until"]
    ctl("alerts", "silence", "--integration", str(other), "--kind", "backlog", "--for", "1h", "--reason", "slow").expect(0)
    daemon = make_daemon({**QUIET, "alerts": {"repeat_interval": "1s", "alertmanager_urls": [managers[0].url]}}).start()
    app.subscriptions(dead, 20)
    app.subscriptions(other, 20)
    wait_for(lambda: sorted(alerts(app)) == [("circuit_open", i, "firing") for i in (dead, other)], 60, "both to fire")
    daemon.wait_log(f"goes on: circuit_open, integration {other} ")
    wait_for(lambda: managers[0].alerts, 30, "the Alertmanager")
    assert not lines([daemon], f"circuit_open, integration {dead} ")
    assert [dict(labels)["integration_id"] for labels in managers[0].alerts] == [str(other)]
    listed = ctl("alerts", "--json").expect(0).json
    assert [(s["integration"], s["kind"], s["reason"].split(" (")[0]) for s in listed["silences"]] == [
        ("Dead", None, "moves"), ("Other", "backlog", "slow")]
    assert {a["integration"]: a["quiet"] for a in listed["alerts"]} == {"Dead": "silenced: moves (maria)", "Other": None}
    # It takes the place of the one before, and is soon over.
    ctl("alerts", "silence", "--integration", str(dead), "--for", "1s", "--reason", "moves").expect(0)
    daemon.wait_log(rf"alert: alert \d+: circuit_open, integration {dead} ")
    ctl("alerts", "silence", "--integration", str(other), "--for", "1h", "--reason", "known").expect(0)
    bodies = len(managers[0].got)
    app.query("update {s}.alerts set last_notified_at = now() - interval '1 h'")
    daemon.wait_log(rf"goes on: circuit_open, integration {dead} ", count=2)
    wait_for(lambda: len(managers[0].got) > bodies, 90, "the Alertmanager to be told again")
    assert managers[0].firing() == ["circuit_open", "circuit_open"] and not managers[0].resolved
    ended = ctl("alerts", "unsilence", "--integration", str(other), "--json").expect(0).json
    assert ended["ended"] == 2 and ctl("alerts", "--json").expect(0).json["silences"] == []


def test_a_test_alert_goes_to_every_sink_and_each_result_is_shown(app, ctl, make_daemon, broker, receiver, managers):
    """Also that of one that refuses. It is marked as a test, counts nowhere, and is over by itself."""
    assert "start anubisd" in ctl("alerts", "test").expect(69).stderr
    managers[1].status = 503
    make_daemon({**QUIET, "alerts": {"webhook_url": receiver.url, "webhook_secret": SECRET,
                                     "alertmanager_urls": [m.url for m in managers]}}).start()
    wait_for(lambda: app.value("select count(*) from pg_locks where locktype = 'advisory' and (classid::bigint << 32) | "
                               "objid::bigint = {s}.lock_key('alerts')"), 60, "a daemon to look")
    done = ctl("alerts", "test", "--json", env={"SUDO_USER": "maria"}, deadline=120).expect(1).json
    results = {s["sink"]: (s["taken"], s["error"]) for s in done["sinks"]}
    assert results == {"journal": (True, None), "topic": (True, None), "webhook": (True, None),
                       "alertmanager 1": (True, None), "alertmanager 2": (False, "HTTP 503")}
    words = "this is a test by maria (anubisctl alerts test): nothing is wrong"
    told = json.loads(receiver.got[0][2])
    assert told["type"] == "alert.fired" and told["data"]["kind"] == "test" and told["data"]["message"] == words
    assert json.loads(broker.read_all("anubis.alerts")[0].value) == told["data"]
    assert managers[0].firing() == ["test"]
    assert ctl("status", "--json").expect(0).json["alerts_firing"] == 0
    assert "another test alert fires" in ctl("alerts", "test").expect(69).stderr
    managers[1].status = 200
    wait_alerts(app, ("test", None, "resolved"))
    wait_for(lambda: not app.value("select count(*) from {s}.alert_outbox where sent_at is null"), 90, "all to have taken it")
    assert len(receiver.got) == 2 and ctl("alerts", "--json").expect(0).json["sinks_behind"] == []


def test_what_cannot_be_done_to_alerts_is_refused(app, ctl):
    integration = str(app.integration("https://one.example/"))
    for arguments, words in ((["lst"], "alerts can be listed"), (["ack"], "an alert's id is missing"),
                             (["ack", "x"], 'not "x"'), (["ack", "1", "2"], "an argument too many"),
                             (["list", "--dry-run"], "there is no --dry-run"),
                             (["test", "--reason", "x"], "there is no --reason"),
                             (["silence", "--for", "1h", "--reason", "x"], "needs --integration"),
                             (["silence", "--integration", integration, "--reason", "x"], "needs --for"),
                             (["silence", "--integration", integration, "--for", "9999d", "--reason", "x"], "at most 3650"),
                             (["silence", "--integration", integration, "--for", "1h"], "needs --reason"),
                             (["silence", "--integration", integration, "--for", "1h", "--reason", "x", "--kind", "relay"],
                              'not "relay"'),
                             (["unsilence", "--integration", integration, "--for", "1h"], "there is no --for")):
        assert words in ctl("alerts", *arguments).expect(64).stderr, arguments
    ctl("alerts", "silence", "--integration", "99", "--for", "1h", "--reason", "x").expect(1)
    ctl("alerts", "silence", "--integration", integration, "--for", "1h", "--reason", "x", "--dry-run").expect(0)
    assert not app.value("select count(*) from {s}.alert_silences")
    listed = ctl("alerts").expect(0).stdout
    assert "none fires" in listed and "Silences: none" in listed
