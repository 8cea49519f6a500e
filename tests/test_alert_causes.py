"""What an alert says is the cause: a pause that anubisd began by itself, a credential of its own; and what that silences."""
import contextlib
import os
import re
import subprocess

import pytest
from harness.processes import wait_for
from test_statements import STATEMENTS

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
REFUSED = "the institution refuses the credentials"
OURS = "anubisd lacks a credential of its own, so nothing is sent to the institution: "
NO_TOKEN = "its token endpoint gives no token, so nothing is sent to the institution"
DEAD = "requests fail, so only a probe is sent now and then"
PAUSED = "anubisd has paused the integration: "
SETTINGS = {"log_level": "info", "retry": {"base_delay": "100ms", "max_delay": "200ms"},
            "alerts": {"backlog_age": "1h", "repeat_interval": "1s"}}


# --- the rule, on integrations in every state ---

class Look:
    """The statement by which daemons look, without a daemon."""

    def __init__(self, app):
        self.app = app
        self.text = subprocess.run(["sh", os.path.join(ROOT, ".ci/embed-sql"), "--text",
                                    os.path.join(ROOT, "sql/statements/alerts_look.sql")],
                                   capture_output=True, text=True, check=True).stdout
        self.numbers = {}

    def state(self, name, **columns):
        """An integration, and what is known of it."""
        if name not in self.numbers:
            self.numbers[name] = self.app.integration("https://a.example/", name=name)
        for column, value in columns.items():
            table, key = (("integrations", "id") if column in ("enabled", "paused_until", "pause_reason") else
                          ("integration_runtime", "integration_id"))
            self.app.query(f"update {{s}}.{table} set {column} = %s where {key} = %s", (value, self.numbers[name]))

    def found(self):
        """{(integration's name, kind): (words, told when)} of what fires after a look: 15 min, 1 h, 5 failures, 3 days."""
        self.app.query("set search_path = anubis; prepare look (bigint, bigint, integer, bigint, text) as " + self.text
                       + "; execute look (900000, 3600000, 5, 259200000, 'nobody')")
        return {(name, kind): (message, told) for name, kind, message, told in self.app.query(
            "select i.name, a.kind, a.message, a.last_notified_at::text from {s}.alerts a join {s}.integrations i "
            "on i.id = a.integration_id where a.state = 'firing'")}


def opened(reason, why=None, ours=False):
    return {"circuit_state": "open", "circuit_reason": reason, "circuit_why": why, "circuit_ours": ours, "circuit_since": "now"}


def closed():
    return {"circuit_state": "closed", "circuit_reason": None, "circuit_since": "now"}


def test_who_has_paused_it_and_whose_credential_is_missing(app):
    look = Look(app)
    ours = {"paused_until": "infinity", "pause_reason": "it is gone", "own_pause": "it is gone"}
    for name, columns in {
            "ours": ours, "ours for an hour": {**ours, "paused_until": "2099-01-01"}, "taken over": ours,
            "over": {**ours, "paused_until": "2001-01-01"}, "disabled": {**ours, "enabled": False},
            "resumed": {**ours, "paused_until": None, "pause_reason": None},
            "theirs": {"paused_until": "infinity", "pause_reason": "by hand"},
            "theirs after ours": {**ours, "pause_reason": "by hand"}, "nobody's": {"paused_until": "infinity"},
            "401": opened("authentication"), "no key": opened("authentication", "a file is missing", True),
            "no key, then 401": opened("authentication", "a file is missing", True),
            "no key, then mended": opened("authentication", "a file is missing", True),
            "no token": opened("authentication", "its token endpoint answered HTTP 500"), "dead": opened("failures"),
            "dead and paused": {**opened("failures"), **ours}}.items():
        look.state(name, **columns)
    found = look.found()
    paused = {name: f'{PAUSED}it is gone. Once that is mended, "anubisctl resume {look.numbers[name]}" ends the pause'
              for name in ("ours", "ours for an hour", "taken over", "dead and paused")}
    assert {key: message for key, (message, _) in found.items()} == {
        **{(name, "paused"): words for name, words in paused.items()}, ("401", "authentication"): REFUSED,
        **{(name, "authentication"): f"{OURS}a file is missing"
           for name in ("no key", "no key, then 401", "no key, then mended")},
        ("no token", "authentication"): NO_TOKEN, ("dead", "circuit_open"): DEAD}
    app.query("update {s}.alerts set last_notified_at = '2026-01-01'")
    look.state("ours", paused_until=None, pause_reason=None)
    look.state("taken over", pause_reason="by hand")
    look.state("no key", circuit_why="another file is missing")
    look.state("no key, then 401", **opened("authentication"))
    for name in ("no key, then mended", "401", "dead"):
        look.state(name, **closed())
    found, told = look.found(), "2026-01-01 00:00:00+00"
    assert found == {
        ("ours for an hour", "paused"): (paused["ours for an hour"], told),
        ("dead and paused", "paused"): (paused["dead and paused"], told),
        ("no key", "authentication"): (OURS + "another file is missing", told),
        ("no key, then 401", "authentication"): (REFUSED, "-infinity"),
        ("no token", "authentication"): (NO_TOKEN, told),
        # They may fail again in a moment; what a person has mended does not.
        ("401", "authentication"): (REFUSED, told), ("dead", "circuit_open"): (DEAD, told)}


def test_times_without_end_keep_no_alert_away(app):
    """An adopted row may have been created at "infinity"; one that is due then is not due."""
    look = Look(app)
    for name, time in (("ages", "now() - interval '2 hours'"), ("never", "'infinity'"), ("odd", "now() - interval '2 hours'")):
        look.state(name)
        app.query(f"insert into {{s}}.subscriptions (integration_id, scheduled_to) values (%s, {time})", (look.numbers[name],))
    app.query("alter table {s}.subscriptions disable trigger user; update {s}.subscriptions set created_at = 'infinity', "
              "scheduled_to = '-infinity' where integration_id = %s; alter table {s}.subscriptions enable trigger user",
              (look.numbers["odd"],))
    assert look.found().keys() == {("ages", "backlog")}


def test_a_pause_silences_what_the_circuit_says(app, ctl):
    look = Look(app)
    for name in ("paused", "not paused"):
        look.state(name, **opened("failures"))
    look.found()
    app.query("update {s}.alerts set last_notified_at = now()")
    look.state("paused", paused_until="infinity", pause_reason="by hand")
    look.found()
    assert {a["integration"]: a["quiet"] for a in ctl("alerts", "--json").expect(0).json["alerts"]} == {
        "paused": "the integration is paused", "not paused": None}


class Flaps:
    """A circuit and our own network, which open and close, and the looks of daemons meanwhile: a recovery_timeout of 30 s."""

    def __init__(self, app, session, daemon):
        self.app, self.cursor, self.daemon = app, session.cursor(), daemon.cursor()
        self.integration = app.integration("https://a.example/")
        self.cursor.execute("set search_path = anubis")
        for name, types in (("alerts_look", "bigint, bigint, integer, bigint, text"), ("alerts_notify", "bigint, text[]")):
            self.cursor.execute(f"prepare {name} ({types}) as {STATEMENTS[name]}")

    def become(self, is_open, reason="failures", ago="0 s"):
        """So it has been for some time."""
        self.cursor.execute("update integration_runtime set circuit_state = %s, circuit_reason = %s, circuit_ours = false, "
                            "circuit_since = now() - %s::interval",
                            ("open" if is_open else "closed", reason if is_open else None, ago))
        self.daemon.execute("set application_name = %s", ("lost" if is_open else "there",))
        self.look()
        if not is_open:
            self.cursor.execute("update alerts set over_since = over_since - %s::interval where state = 'firing'", (ago,))
            self.look()

    def look(self):
        self.cursor.execute("execute alerts_look (900000, 30000, 5, 259200000, 'lost')")
        self.cursor.execute("execute alerts_notify (14400000, '{journal}')")

    def told(self):
        """{kind: what was told of it, in order}"""
        told = {}
        for kind, event in self.app.query("select a.kind, o.event from {s}.alert_outbox o join {s}.alerts a on a.id = o.alert_id "
                                          "order by o.id"):
            told.setdefault(kind, []).append(event)
        return told


@pytest.fixture
def flaps(app):
    with contextlib.closing(app.database.connect()) as session, contextlib.closing(app.database.connect()) as daemon:
        yield Flaps(app, session, daemon)


@pytest.mark.parametrize("reason, kind", [("failures", "circuit_open"), ("authentication", "authentication")])
def test_a_thousand_flaps_are_told_once(flaps, reason, kind):
    """Of a circuit and of our own network: one alert, and one end when it has been well for long enough."""
    for number in range(1000):
        flaps.become(number % 2 == 0, reason, ago=f"{number % 29} s")
    assert flaps.told() == {kind: ["fired"], "network": ["fired"]}
    flaps.become(False, ago="31 s")
    assert flaps.told() == {kind: ["fired", "resolved"], "network": ["fired", "resolved"]}


def test_flaps_that_are_slow_become_one_alert(flaps):
    """Each is well for longer than the recovery_timeout: what comes again soon is over later, at most after ten minutes."""
    for number in range(100):
        flaps.become(number % 2 == 0, ago="100 s")
    assert flaps.told() == {kind: 2 * ["fired", "resolved"] + ["fired"] for kind in ("circuit_open", "network")}
    flaps.become(False, ago="121 s")
    assert flaps.told()["network"][-1] == flaps.told()["circuit_open"][-1] == "resolved"
    for _ in range(10):
        flaps.become(True)
        flaps.become(False, ago="601 s")
    assert set(kind for kind, _, state in alerts(flaps.app) if state == "firing") == set()


def test_a_clock_that_was_ahead_keeps_no_lost_network(flaps):
    flaps.become(True)
    flaps.become(False)
    flaps.cursor.execute("update alerts set over_since = now() + interval '3 h' where kind = 'network'")
    flaps.look()
    assert flaps.told()["network"] == ["fired", "resolved"]


@pytest.mark.parametrize("age, words", [("2 h", "has waited for 02:00:00; in 2 days 22:00:00 it fails for good"),
                                        ("71 h", "has waited for 2 days 23:00:00; in 01:00:00 it fails for good"),
                                        ("73 h", "has waited for 3 days 01:00:00"), ("16 min", "has waited for 00:16:00; in")])
def test_a_backlog_says_when_it_fails_for_good(app, age, words):
    """The age at which subscriptions fail is three days here."""
    look = Look(app)
    look.state("slow")
    app.query("insert into {s}.subscriptions (integration_id) values (%s)", (look.numbers["slow"],))
    app.query("alter table {s}.subscriptions disable trigger user; "
              "update {s}.subscriptions set created_at = now() - %s::interval; "
              "alter table {s}.subscriptions enable trigger user", (age,))
    message = look.found()["slow", "backlog"][0]
    found = re.sub(r":\d\d\b(?!:)", ":00", message)  # the seconds that the test takes
    assert words in found.replace("21:59:00", "22:00:00").replace("00:59:00", "01:00:00"), message
    assert ("fails for good" in message) == (age != "73 h")


@pytest.mark.parametrize("rest", [{"paused_until": "infinity"}, {"paused_until": "2099-01-01"}, {"enabled": False}],
                         ids=["paused", "paused for a time", "disabled"])
def test_what_waited_for_a_pause_is_no_backlog_at_once(app, rest):
    """It is one when it has not gone out within backlog_age of the pause's end, however that came; again after each pause."""
    look = Look(app)
    look.state("paused", **rest)
    look.state("never paused")
    for number in look.numbers.values():
        app.query("insert into {s}.subscriptions (integration_id, scheduled_to) values (%s, now() - interval '2 h')", (number,))
    for _ in range(2):
        assert look.found().keys() == {("never paused", "backlog")}
        look.state("paused", paused_until=None, enabled=True)
        for minutes in (0, 0, 14, 16):
            app.query("update {s}.alert_rests set ended_at = now() - %s * interval '1 min' where %s > 0", (minutes, minutes))
            wanted = {("never paused", "backlog")} | ({("paused", "backlog")} if minutes == 16 else set())
            assert look.found().keys() == wanted, minutes
        look.state("paused", **rest)
    assert app.value("select count(*) from {s}.alert_rests") == 1


# --- daemons ---

def alerts(app):
    return app.query("select kind, integration_id, state from {s}.alerts order by integration_id, id")


def test_what_anubisd_pauses_by_itself_is_an_alert_until_its_command_is_called(app, ctl, institutions, make_daemon):
    """Whatever the reason; what an operator pauses is none."""
    gone = app.integration(institutions.url("/reject/410"), name="Gone")
    burst = app.integration(institutions.url("/good/burst"), name="Burst", max_in_flight=30)
    broken = app.integration(institutions.url("/good"), name="Broken")
    app.query("alter table {s}.integrations disable trigger user; "
              "update {s}.integrations set delivery_settings = '{\"outcomes\": 1}' where id = %s; "
              "alter table {s}.integrations enable trigger user", (broken,))
    by_hand = app.integration(institutions.url("/good"), name="By hand")
    daemon = make_daemon(SETTINGS).start()
    ctl("pause", str(by_hand), "--reason", "asked").expect(0)
    app.subscriptions(burst, 10)
    app.wait_states(sent=10)
    institutions.become("/good/burst", "/reject/422")
    app.subscriptions(burst, 100)
    for integration in (gone, broken, by_hand):
        app.subscription(integration)
    firing = [("paused", integration, "firing") for integration in (gone, burst, broken)]
    wait_for(lambda: [a for a in alerts(app) if a[0] == "paused"] == firing, 60, lambda: f"the alerts: {alerts(app)}")
    for integration, words in ((gone, "410 Gone"), (burst, "20 subscriptions in a row"),
                               (broken, "its delivery_settings cannot be used")):
        line = daemon.wait_log(rf".*alert: alert \d+: paused, integration {integration} .*")[0]
        assert words in line and f'"anubisctl resume {integration}" ends the pause' in line
    daemon.wait_log("goes on: paused", count=3)
    institutions.become("/good/burst", "")
    app.query("update {s}.integrations set endpoint_url = %s, delivery_settings = '{}' where id <> %s",
              (institutions.url("/good"), by_hand))
    for message, in app.query("select message from {s}.alerts where kind = 'paused' and state = 'firing'"):
        ctl(*re.search(r'"anubisctl (resume \d+)"', message)[1].split()).expect(0)
    over = [("paused", integration, "resolved") for integration in (gone, burst, broken)]
    wait_for(lambda: [a for a in alerts(app) if a[0] == "paused"] == over, 60, lambda: f"their end: {alerts(app)}")
    assert by_hand not in [integration for _, integration, _ in alerts(app)]


def test_a_credential_of_our_own_is_named_and_over_at_the_next_look(app, institutions, make_daemon, tmp_path):
    """The circuit's time, for which others go on after it has closed, is an hour here."""
    daemon = make_daemon({**SETTINGS, "circuit_breaker": {"recovery_timeout": "1h", "max_recovery_timeout": "1h"}},
                         env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).start()
    settings = {"auth": {"type": "header", "name": "X-Key", "value": "credential:usp_key"}}
    by_token = app.integration(institutions.url("/good/a"), name="Token", auth_token="credential:usp_token")
    by_settings = app.integration(institutions.url("/good/b"), name="Settings", auth_token=None, delivery_settings=settings)
    for integration in (by_token, by_settings):
        app.subscription(integration)
    for integration, name in ((by_token, "usp_token"), (by_settings, "usp_key")):
        line = daemon.wait_log(rf".*alert: alert \d+: authentication, integration {integration} .*")[0]
        assert OURS in line and name in line and REFUSED not in line
        (tmp_path / name).write_text("key")
    app.query("update {s}.integration_runtime set circuit_until = now()")
    wait_for(lambda: alerts(app) == [("authentication", i, "resolved") for i in (by_token, by_settings)], 60,
             lambda: f"their end: {alerts(app)}")
    app.wait_states(sent=2)


def test_a_cause_is_told_and_not_its_symptoms(app, ctl, institutions, make_daemon):
    """Credentials refused or missing, a token endpoint that is away, a pause; two others show that symptoms are looked for."""
    url, away = institutions.url, {"type": "oauth2", "token_url": "http://127.0.0.1:9/", "client_id": "a", "client_secret": "b"}
    slow, refusing = app.integration(url("/silent"), max_in_flight=1), app.integration(url("/reject/422"))
    causes = {"401": {"endpoint_url": url("/reject/401")}, "403": {"endpoint_url": url("/reject/403")},
              "no credential": {"auth_token": "credential:nowhere"}, "no token": {"delivery_settings": {"auth": away}},
              "410": {"endpoint_url": url("/reject/410")}, "by hand": {}}
    numbers = {name: app.integration(**{"endpoint_url": url("/good"), **columns}, name=name, max_in_flight=20)
               for name, columns in causes.items()}
    daemon = make_daemon({**SETTINGS, "alerts": {"backlog_age": "1s", "repeat_interval": "1s"}, "circuit_breaker": {
        "failure_threshold": 5, "recovery_timeout": "1s", "max_recovery_timeout": "1s"}}).start()
    ctl("pause", str(numbers["by hand"]), "--reason", "asked").expect(0)
    for integration in (slow, refusing, *numbers.values()):
        app.subscriptions(integration, 20)
    kinds = {"401": "authentication", "403": "authentication", "no credential": "authentication", "no token": "authentication",
             "410": "paused"}
    wanted = {(kind, numbers[name]) for name, kind in kinds.items()} | {("backlog", slow), ("failure_rate", refusing)}
    found = "select kind, integration_id from {s}.alerts where kind <> 'relay'"  # which a busy machine makes late
    wait_for(lambda: set(app.query(found)) == wanted, 60, lambda: f"{wanted}, not {app.query(found)}")
    late = "select count(*) from {s}.subscriptions where integration_id = any(%s) and created_at < now() - interval '3 s'"
    wait_for(lambda: app.value(late, (list(numbers.values()),)) == 120, 60, "all to be late")
    for kind, integration in (("backlog", slow), ("failure_rate", refusing)):
        again = f"goes on: {kind}, integration {integration} "
        daemon.wait_log(again, 90, count=daemon.log.count(again) + 3)
    assert set(app.query(found)) == wanted, "what waits or fails for a cause that is known is no alert of its own"
    app.query("update {s}.integrations set endpoint_url = %s, auth_token = 'x', delivery_settings = '{}' where id = any(%s)",
              (url("/good"), list(numbers.values())))
    for name in ("410", "by hand"):
        ctl("resume", str(numbers[name])).expect(0)
    wait_for(lambda: app.value("select count(*) from {s}.subscriptions where status = 'sent'") == 120, 60, "all to be sent")
    ended = "select count(*) from {s}.alerts where state = 'resolved' and integration_id = any(%s)"
    wait_for(lambda: app.value(ended, (list(numbers.values()),)) >= 5, 60, "their end")
    wait_for(lambda: app.value("select count(*) from {s}.alert_evidence where integration_id = any(%s)",
                               (list(numbers.values()),)) == 6, 60, "the evidence of what was sent")
    again = f"goes on: failure_rate, integration {refusing} "
    daemon.wait_log(again, 90, count=daemon.log.count(again) + 3)
    assert {i for kind, i in app.query(found) if kind == "failure_rate"} == {refusing}
