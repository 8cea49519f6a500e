"""Each kind of answer, and of silence, has its outcome: in the row, in the ledger, at the institution."""
import json
import re
import threading
import time

import pytest
from harness.processes import wait_for
from harness.recording import RecordingServer

# Longer than any test: a retry shows its state and stays there.
LATER = {"retry": {"base_delay": "1h", "max_delay": "2h"}, "delivery": {"timeout": "1s", "connect_timeout": "1s", "lease": "5s"}}

# character: status, HTTP status, ambiguous, attempts, beginning of last_error
OUTCOMES = {
    "/good": ("sent", 200, False, 1, None),
    "/slow/300": ("sent", 200, False, 1, None),
    "/hints": ("sent", 201, False, 1, None),
    "/cut": ("sent", 200, False, 1, None),
    "/short": ("sent", 200, False, 1, None),
    "/early": ("sent", 200, False, 1, None),
    "/huge/1000000": ("sent", 200, False, 1, None),
    "/latin1": ("sent", 200, False, 1, None),
    "/gzip": ("sent", 200, False, 1, None),
    "/reject/400": ("failed", 400, False, 1, "HTTP 400"),
    "/reject/413": ("failed", 413, False, 1, "HTTP 413"),
    "/reject/415": ("failed", 415, False, 1, "HTTP 415"),
    "/reject/422": ("failed", 422, False, 1, "HTTP 422"),
    "/early-reject": ("failed", 413, False, 1, "HTTP 413"),
    "/reject/302": ("retry", 302, False, 1, "HTTP 302"),
    "/reject/401": ("retry", 401, False, 0, "HTTP 401"),
    "/reject/403": ("retry", 403, False, 1, "HTTP 403"),
    "/reject/404": ("retry", 404, False, 1, "HTTP 404"),
    "/reject/409": ("retry", 409, True, 1, "HTTP 409"),
    "/reject/410": ("retry", 410, False, 0, "HTTP 410"),
    "/reject/429": ("retry", 429, False, 0, "HTTP 429"),
    "/reject/500": ("retry", 500, False, 1, "HTTP 500"),
    "/reject/503": ("retry", 503, False, 1, "HTTP 503"),
    "/silent": ("retry", None, True, 1, "timeout"),
    "/reset": ("retry", None, True, 1, "connection"),
    "/close": ("retry", None, True, 1, "connection"),
    "/garbage": ("retry", None, True, 1, "connection"),
}


def test_every_character_has_its_outcome(app, institutions, make_daemon):
    """All at once: none of them keeps another one from being sent."""
    daemon = make_daemon(LATER).start()
    ids = {path: app.subscription(app.integration(institutions.url(path), name=path)) for path in OUTCOMES}
    wait_for(lambda: not set(app.states()) - {"sent", "failed", "retry"}, 60, lambda: f"outcomes, now {app.states()}")
    for path, (status, http_status, ambiguous, attempts, error) in OUTCOMES.items():
        row = app.row(ids[path])
        found = (row["status"], row["last_http_status"], row["attempts"])
        assert found == (status, http_status, attempts), (path, row)
        assert row["last_ambiguous"] is ambiguous, (path, row)
        assert (row["last_error"] or "").startswith(error or ""), (path, row["last_error"])
        assert row["claimed_by"] is None and row["claim_token"] is None and row["lease_expires_at"] is None, path
        assert (row["sent_at"] is not None) == (status == "sent"), path
        events = app.events(ids[path])
        assert [e["event_type"] for e in events] == ["created", "updated", {"retry": "retried"}.get(status, status)], path
        last = events[-1]
        assert last["to_status"] == status and last["http_status"] == http_status and last["attempt"] == 1, (path, last)
        assert last["status"] == ("success" if status == "sent" else "error"), path
        if status == "failed":
            assert json.loads(last["request"]) == row["payload"], path
    assert not institutions.violations()
    paused = dict(app.query("select name, pause_reason from {s}.integrations where paused_until is not null"))
    assert list(paused) == ["/reject/410"] and "410" in paused["/reject/410"]
    assert "HTTP 422" in daemon.log


def test_request_is_what_the_guide_says(app, institutions, make_daemon):
    daemon = make_daemon().start()
    payload = '{"a": 9007199254740993, "b": 1.10, "ç": "\\u00e7\\n", "deep": [[[[1]]]]}'
    integration = app.integration(institutions.url("/good/usp"), auth_token="t0ken")
    first = app.subscription(integration, payload)
    app.wait_states(sent=1)
    line, headers, body = institutions.last("/good/usp")
    assert line == "POST /good/usp"
    assert headers["authorization"] == "Bearer t0ken"
    assert headers["content-type"] == "application/json"
    assert headers["user-agent"].startswith("anubisd/")
    assert re.fullmatch(r"[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", headers["idempotency-key"])
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", headers["traceparent"])
    assert body == app.value("select payload::text from {s}.subscriptions where id = %s", (first,))
    assert "9007199254740993" in body and "1.10" in body
    assert daemon.is_running()


def test_key_stays_with_the_payload_and_changes_with_it(app, institutions, make_daemon):
    make_daemon({"retry": {"base_delay": "50ms", "max_delay": "50ms"}}).start()
    integration = app.integration(institutions.url("/reject/500"))
    subscription = app.subscription(integration, {"a": 1})
    wait_for(lambda: institutions.counts("/reject/500")["requests"] >= 3, 30, "three attempts")
    assert len(institutions.keys("/reject/500")) == 1

    def changed():
        """Not while it is being sent."""
        return app.query("update {s}.subscriptions set payload = '{\"a\": 2}' where id = %s and status <> 'processing' "
                         "returning id", (subscription,))
    wait_for(changed, 30, "a moment between two attempts")
    wait_for(lambda: len(institutions.keys("/reject/500")) == 2, 30, "another key for another payload")


def test_attempts_end(app, institutions, make_daemon):
    make_daemon({"retry": {"base_delay": "20ms", "max_delay": "50ms", "max_attempts": 4}}).start()
    general = app.subscription(app.integration(institutions.url("/reject/500/a")))
    own = app.subscription(app.integration(institutions.url("/reject/500/b"), max_attempts=2))
    app.wait_states(failed=2)
    assert app.row(general)["attempts"] == 4 and app.row(own)["attempts"] == 2
    types = [e["event_type"] for e in app.events(own)]
    assert types == ["created", "updated", "retried", "updated", "failed"]
    assert institutions.counts("/reject/500/a")["requests"] == 4


def test_put_back_after_it_had_failed(app, institutions, make_daemon):
    make_daemon({"retry": {"base_delay": "20ms", "max_delay": "50ms", "max_attempts": 2}}).start()
    subscription = app.subscription(app.integration(institutions.url("/reject/500/x")))
    app.wait_states(failed=1)
    institutions.become("/reject/500/x", "/good")
    app.query("update {s}.subscriptions set status = 'pending' where id = %s", (subscription,))
    app.wait_states(sent=1)
    assert app.row(subscription)["attempts"] == 1


@pytest.mark.parametrize("token", ["file:/etc/hostname", "env:HOME"])
def test_tokens_of_the_database_read_no_files(app, token):
    with pytest.raises(Exception, match="auth_token"):
        app.integration("https://example.com/", auth_token=token)


def test_too_old_fails(app, institutions, make_daemon):
    subscription = app.subscription(app.integration(institutions.url("/dead")), created_at="2020-01-01T00:00:00Z")
    make_daemon().start()
    app.wait_states(failed=1)
    assert app.row(subscription)["attempts"] == 1


def test_retry_after_is_heeded(app, institutions, make_daemon):
    make_daemon({"retry": {"base_delay": "1ms", "max_delay": "1h"}}).start()
    integration = app.integration(institutions.url("/limited/1"), max_in_flight=3)
    app.subscriptions(integration, 3)
    app.wait_states(sent=3)
    # Without Retry-After: 1 they would come again after milliseconds.
    waits = app.query("select extract(epoch from next_attempt_at - created_at) from {s}.subscription_events "
                      "where event_type = 'retried'")
    # Counted from the beginning of the transaction, which is a little before the event.
    assert waits and all(wait >= 0.9 for wait, in waits)


def test_scheduled_and_paused_wait(app, institutions, make_daemon):
    make_daemon().start()
    integration = app.integration(institutions.url("/good"))
    paused = app.integration(institutions.url("/good"), paused_until="infinity")
    disabled = app.integration(institutions.url("/good"), enabled=False)
    later = app.subscription(integration, scheduled_to="2999-01-01T00:00:00Z")
    waiting = [app.subscription(paused), app.subscription(disabled), app.subscription(None)]
    app.subscription(integration)
    app.wait_states(sent=1, pending=4)
    app.query("update {s}.subscriptions set scheduled_to = now() where id = %s", (later,))
    app.query("update {s}.integrations set paused_until = null, enabled = true")
    app.wait_states(sent=4, pending=1)
    assert app.row(waiting[2])["status"] == "pending"


def test_a_scheduled_one_goes_out_at_its_time(app, make_daemon):
    """Not before, and not long after it. Fresh ones go past it meanwhile."""
    with RecordingServer() as server:
        make_daemon().start()
        integration = app.integration(server.url + "/")
        row = app.subscription(integration, {"n": "scheduled"})
        app.wait_states(sent=1)
        row = app.value("insert into {s}.subscriptions (integration_id, payload, scheduled_to) values "
                        "(%s, '{\"n\": 1}', clock_timestamp() + interval '2 s') returning id", (integration,))
        at = app.value("select extract(epoch from scheduled_to) from {s}.subscriptions where id = %s", (row,))
        app.subscription(integration, {"n": 2})
        app.wait_states(sent=3)
        arrived = {json.loads(r.body)["n"]: r.at for r in server.received}
    assert arrived[2] < arrived[1] and float(at) <= arrived[1] < float(at) + 10, (at, arrived)


def test_a_pause_by_hand_counts_at_once(app, institutions, make_daemon, ctl):
    make_daemon({"delivery": {"poll_interval": "5m"}}).start()
    paused, other = app.integration(institutions.url("/good/paused")), app.integration(institutions.url("/good/other"))
    app.subscription(paused)
    app.wait_states(sent=1)
    ctl("pause", paused, "--reason", "they asked").expect(0)
    app.subscriptions(paused, 5)
    app.subscription(other)
    app.wait_states(sent=2, pending=5)
    assert institutions.counts("/good/paused")["requests"] == 1
    ctl("resume", paused).expect(0)
    app.wait_states(sent=7)


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "", "not a url", "http://", "//x",
                                 "http://user:s3cret@127.0.0.1/", "http://x" + "a" * 9000])
def test_wrong_urls_are_refused_when_written(app, url):
    with pytest.raises(Exception, match="endpoint_url"):
        app.integration(url)


def test_wrong_urls_that_were_there_before_pause_their_integration(app, institutions, make_daemon):
    app.query("alter table {s}.integrations disable trigger user")
    urls = ["file:///etc/passwd", "", "not a url", "http://user:s3cret@127.0.0.1/", "http://127.0.0.1/" + "a" * 9000,
            "gopher://127.0.0.1/", "http://127.0.0.1:99999/"]
    wrong = [app.subscription(app.integration(u, name=str(i))) for i, u in enumerate(urls)]
    app.query("alter table {s}.integrations enable trigger user")
    daemon = make_daemon(LATER).start()
    app.subscription(app.integration(institutions.url("/good")))
    app.wait_states(sent=1, retry=len(urls))
    wait_for(lambda: app.value("select count(*) from {s}.integrations where pause_reason like '%%endpoint_url%%'") == len(urls),
             30, "all to be paused")
    for subscription in wrong:
        assert app.row(subscription)["attempts"] == 0
    assert "s3cret" not in daemon.log and "/etc/passwd" not in daemon.log


@pytest.mark.parametrize("key, words", [("allow_private_networks", "leads to an address in a private network"),
                                        ("allow_http", "plain http is not allowed")])
def test_private_networks_and_plain_http_are_refused(app, institutions, make_daemon, key, words):
    make_daemon({**LATER, "delivery": {**LATER["delivery"], key: False}}).start()
    subscription = app.subscription(app.integration(institutions.url("/good")))
    app.wait_states(retry=1)
    wait_for(lambda: app.value("select pause_reason from {s}.integrations"), 30, "the integration to be paused")
    reason = app.value("select pause_reason from {s}.integrations")
    assert words in reason and f"(delivery.{key})" in reason, reason
    assert app.row(subscription)["attempts"] == 0
    assert institutions.counts()["total"]["requests"] == 0


def test_a_token_with_a_line_feed_that_was_there_before_is_not_sent(app, institutions, make_daemon):
    make_daemon(LATER).start()
    app.query("alter table {s}.integrations disable trigger user")
    integration = app.integration(institutions.url("/good"), auth_token="a\r\nX-Admin: 1")
    app.query("alter table {s}.integrations enable trigger user")
    app.subscription(integration)
    app.wait_states(retry=1)
    assert institutions.counts()["total"]["requests"] == 0


def test_token_from_a_credential(app, institutions, make_daemon, tmp_path):
    (tmp_path / "usp").write_text("from-a-file\n")
    make_daemon(env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).start()
    app.subscription(app.integration(institutions.url("/good/usp"), auth_token="credential:usp"))
    app.wait_states(sent=1)
    assert institutions.last("/good/usp")[1]["authorization"] == "Bearer from-a-file"


def test_a_credential_is_read_again_at_a_reload(app, institutions, make_daemon, tmp_path):
    (tmp_path / "usp").write_text("old\n")
    daemon = make_daemon(env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).start()
    integration = app.integration(institutions.url("/good/usp"), auth_token="credential:usp")
    app.subscription(integration)
    app.wait_states(sent=1)
    (tmp_path / "usp").write_text("new\n")
    daemon.reload()
    daemon.wait_log("configuration read again")
    app.subscription(integration)
    app.wait_states(sent=2)
    assert institutions.last("/good/usp")[1]["authorization"] == "Bearer new"


def test_slots_of_an_integration_are_kept(app, institutions, make_daemon):
    make_daemon({"delivery": {"timeout": "60s", "lease": "90s"}}).start()
    app.subscriptions(app.integration(institutions.url("/silent"), max_in_flight=3), 20)
    app.subscriptions(app.integration(institutions.url("/slow/50"), max_in_flight=3), 20)
    app.wait_states(sent=20)
    assert institutions.counts("/silent")["requests"] == 3
    assert app.states()["processing"] == 3


def test_rows_that_waited_for_a_slot_go_out_when_it_is_free(app, institutions, make_daemon):
    """Those, too, that came while the integration was full, when claims passed over it."""
    make_daemon({"delivery": {"poll_interval": "5m"}}).start()
    integration = app.integration(institutions.url("/good"), max_in_flight=1)
    institutions.stop()
    app.subscriptions(integration, 2, batch=1)
    app.wait_states(processing=1, pending=1)
    for n in range(3):
        app.subscription(integration)
        other = app.subscription(app.integration("http://127.0.0.1:1/x"))
        wait_for(lambda: app.row(other)["status"] == "retry", 20, "claims that pass over the full one")
    institutions.cont()
    app.wait_states(integration_id=integration, sent=5, deadline=20)


@pytest.mark.parametrize("value", [0, -1, -2147483648, 2147483647])
def test_odd_settings_of_an_adopted_table(app, institutions, make_daemon, value):
    """A table that was there before has none of our checks: what is not positive is as good as not set."""
    for column in ("timeout_ms", "max_in_flight", "max_attempts"):
        app.query(f"alter table {{s}}.integrations drop constraint integrations_{column}_check")
    odd = {"timeout_ms": value, "max_in_flight": value, "max_attempts": value}
    make_daemon({**LATER, "retry": {"base_delay": "1h", "max_delay": "2h", "max_attempts": 3}}).start()
    app.subscriptions(app.integration(institutions.url("/good"), **odd), 10)
    app.subscription(app.integration(institutions.url("/reject/500"), **odd))
    if value <= 0:
        app.subscription(app.integration(institutions.url("/silent"), **odd))
        died = app.subscription(app.integration(institutions.url("/good"), **odd, enabled=False))
        app.query("set session_replication_role = replica; "
                  "update {s}.subscriptions set status = 'processing', attempts = 1, claimed_by = 'died', "
                  "claim_token = 1, lease_expires_at = now() where id = %s; reset session_replication_role", (died,))
    app.wait_states(sent=10, retry=1 if value > 0 else 3, deadline=40)


def test_a_dead_and_a_silent_one_hold_up_nobody(app, institutions, make_daemon):
    make_daemon({"delivery": {"timeout": "20s", "lease": "60s"}, "retry": {"base_delay": "1h", "max_delay": "1h"}}).start()
    for path in ("/silent", "/dead"):
        app.subscriptions(app.integration(institutions.url(path)), 1000)
    good = app.integration(institutions.url("/good"))
    app.subscriptions(good, 300)
    app.wait_states(integration_id=good, sent=300, deadline=15)


LOST = r"integration %s \".*\": (\d+) attempts in a row failed within [^,]+, the last one: %s.*; .*\(anubisctl explain \d+\)"
REFUSES = r"integration %s \".*\" refuses everything: (\d+) attempts in a row failed within [^,]+, the last one: %s; .*"
WAITS = r"integration %s \"(.*)\" asks for time \(%s\): nothing is sent to it for (.*)"
BACK = r"integration %s \".*\" takes subscriptions again, after .+ in which (\d+) attempts? failed"


def test_an_endpoint_that_takes_nothing_is_said_once(app, institutions, make_daemon):
    daemon = make_daemon({**LATER, "log_level": "info", "delivery": {**LATER["delivery"], "poll_interval": "60s"}}).start()
    closed = app.integration("http://127.0.0.1:1/x", auth_token="MARK-token")
    refusing = app.integration(institutions.url("/reject/401"), max_in_flight=40)
    wrong_data = app.integration(institutions.url("/reject/422"))
    for integration in (closed, refusing, wrong_data):
        app.subscriptions(integration, 40)
    app.wait_states(retry=80, failed=40)
    found = [re.findall(LOST % pair, daemon.log) for pair in ((closed, "could not connect: .+"), (refusing, "HTTP 401"))]
    assert found == [["20"], ["20"]] and len(re.findall(LOST % (r"(?:\d+)", ".*"), daemon.log)) == 2, daemon.log
    assert re.findall(REFUSES % (wrong_data, "HTTP 422"), daemon.log) == ["20"], daemon.log
    assert "MARK" not in daemon.log
    # A reload forgets nothing of it.
    daemon.reload()
    daemon.wait_log("configuration")
    app.query("update {s}.integrations set endpoint_url = %s where id = %s", (institutions.url("/good"), closed))
    app.query("update {s}.subscriptions set next_attempt_at = null where integration_id = %s and status = 'retry'", (closed,))
    app.wait_states(integration_id=closed, sent=40, deadline=20)
    assert re.findall(BACK % closed, daemon.log) == ["40"], daemon.log
    assert not re.findall(BACK % refusing, daemon.log)


def test_a_long_wait_is_said_at_once(app, institutions, make_daemon):
    daemon = make_daemon({"log_level": "info", "retry": {"max_delay": "3h"}}).start()
    integration = app.integration(institutions.url("/reject/429?retry_after=7200"), name="Colégio São José", max_in_flight=1)
    app.subscriptions(integration, 5)
    app.wait_states(retry=1, pending=4)
    (name, wait), = re.findall(WAITS % (integration, "HTTP 429"), daemon.log)
    assert name == "Colégio São José" and wait.startswith("2 h")
    app.query("update {s}.integrations set endpoint_url = %s", (institutions.url("/good"),))
    app.query("update {s}.integration_runtime set backoff_until = null; update {s}.subscriptions set next_attempt_at = null")
    app.wait_states(sent=5)
    assert re.findall(BACK % integration, daemon.log) == ["1"], daemon.log


def test_a_short_wait_is_said_with_its_time(app, institutions, make_daemon):
    daemon = make_daemon({"log_level": "info", "retry": {"max_delay": "1h"}}).start()
    app.subscriptions(app.integration(institutions.url("/reject/429?retry_after=120")), 40)
    daemon.wait_log(r"20 attempts in a row failed within .*: HTTP 429; nothing is sent to it for 2 min[^(]*\(anubisctl explain")


def test_held_ones_are_counted_apart_from_those_that_failed(app, institutions, make_daemon, ctl):
    """In the journal as in the status."""
    daemon = make_daemon({"log_level": "info"}).start()
    outcomes = {"outcomes": [{"status": 422, "then": "hold"}]}
    integration = app.integration(institutions.url("/reject/422"), delivery_settings=outcomes)
    app.subscriptions(integration, 30)
    wait_for(lambda: ctl("status", "--json").expect(0).json["held"] == 30, 60, "all to be held")
    app.query("update {s}.integrations set delivery_settings = '{}'")
    app.subscriptions(integration, 20)
    app.wait_states(failed=20)
    assert daemon.term() == 0
    held, failed = (sum(map(int, re.findall(rf"(\d+) more subscriptions? {words}", daemon.log)))
                    for words in ("(?:is|are) held for a person", "failed"))
    assert (held, failed) == (25, 20), daemon.log


def test_refusals_by_the_thousand_make_few_lines(app, institutions, broker, make_daemon):
    """And what is said of Kafka meanwhile is not among what is left out."""
    daemon = make_daemon({"log_level": "info"}).start()
    integration = app.integration(institutions.url("/reject/422"), name="Faculdade A")
    app.subscriptions(integration, 1000)
    app.wait_states(failed=1000)
    broker.down()
    app.subscriptions(integration, 4000)
    app.wait_states(failed=5000)
    daemon.wait_log("could not reach Kafka")
    broker.up()
    daemon.wait_log("Kafka is back")
    assert daemon.term() == 0  # what was counted is told at the end, too
    assert len(daemon.log.splitlines()) < 100
    single = re.findall(rf'subscription \d+, integration {integration} "Faculdade A", attempt 1: HTTP 422, failed', daemon.log)
    more = re.findall(rf'integration {integration} "Faculdade A": (\d+) more subscriptions failed within', daemon.log)
    assert len(single) == 5 and 5 + sum(map(int, more)) == 5000, daemon.log
    assert len(re.findall(REFUSES % (integration, "HTTP 422"), daemon.log)) == 1


def test_a_flaky_one_does_not_flood_the_journal(app, institutions, make_daemon):
    retry = {"base_delay": "10ms", "max_delay": "20ms", "max_attempts": 1000}
    daemon = make_daemon({"log_level": "info", "retry": retry}).start()
    app.subscriptions(app.integration(institutions.url("/flaky/90")), 500)
    app.wait_states(sent=500)
    said = [len(re.findall(pattern, daemon.log)) for pattern in (LOST % (r"\d+", "HTTP 500"), BACK % r"\d+")]
    assert 1 <= said[0] <= 2 and said[1] == said[0], daemon.log


def test_after_a_pause_the_next_attempts_can_be_called_for(app, institutions, make_daemon):
    make_daemon({**LATER, "delivery": {**LATER["delivery"], "poll_interval": "60s"}}).start()
    integration = app.integration(institutions.url("/reject/410"))
    app.subscription(integration)
    app.wait_states(retry=1)
    wait_for(lambda: app.value("select pause_reason from {s}.integrations"), 30, "the integration to be paused")
    institutions.become("/reject/410", "/good")
    app.query("update {s}.integrations set paused_until = null, pause_reason = null")
    app.subscription(integration)
    app.wait_states(retry=1, sent=1, deadline=20)
    app.query("update {s}.subscriptions set next_attempt_at = null where integration_id = %s and status = 'retry'",
              (integration,))
    app.wait_states(sent=2, deadline=20)


@pytest.mark.parametrize("payload", [
    "null", '"text"', "[]", '{"nul": "\\\\u0000 as text"}', "[" * 1000 + "]" * 1000, '{"big": ' + "9" * 3000 + "}",
    json.dumps({"blob": "x" * 10_000_000}),
], ids=["null", "string", "array", "escape", "deep", "digits", "10MB"])
def test_odd_payloads(app, institutions, make_daemon, payload):
    daemon = make_daemon().start()
    subscription = app.subscription(app.integration(institutions.url("/good/odd")), payload)
    app.wait_states(sent=1)
    sent = app.value("select payload::text from {s}.subscriptions where id = %s", (subscription,))
    if not payload.startswith("[["):  # deeper than the institution's own parser goes
        assert not institutions.violations()
    if len(sent) < 100_000:
        assert institutions.last("/good/odd")[2] == sent
    assert daemon.is_running()


def test_endless_answers_are_bounded(app, institutions, make_daemon):
    daemon = make_daemon({**LATER, "delivery": {**LATER["delivery"], "response_limit": "4KiB"}}).start()
    paths = ["/huge/1000000000", "/endless", "/endless-headers", "/continues", "/drip"]
    ids = {p: app.subscription(app.integration(institutions.url(p))) for p in paths}
    wait_for(lambda: not app.states()["pending"] + app.states()["processing"], 60, lambda: f"outcomes: {app.states()}")
    for path in ("/huge/1000000000", "/endless", "/drip"):
        event = app.events(ids[path])[-1]
        assert event["to_status"] == "sent" and event["response_truncated"] and len(event["response"]) <= 4096, path
    assert app.events(ids["/endless-headers"])[-1]["response_truncated"]
    assert app.row(ids["/continues"])["status"] == "retry"
    rss = int(re.search(r"VmHWM:\s+(\d+)", open(f"/proc/{daemon.pid}/status").read()).group(1))
    assert rss < 200_000 or "asan" in daemon.child.argv[0], f"{rss} KiB"


def test_nothing_personal_in_the_log(app, institutions, make_daemon):
    daemon = make_daemon({"retry": {"base_delay": "20ms", "max_delay": "20ms", "max_attempts": 2}}).start()
    for path in ("/echo", "/reject/422", "/reject/500", "/good", "/close"):
        app.subscription(app.integration(institutions.url(path), auth_token="MARK-token"),
                         {"name": "MARK-name", "cpf": "MARK-cpf"}, cpf="MARK-cpf")
    app.wait_settled()
    daemon.term()
    assert "MARK" not in daemon.log and "harness-token" not in daemon.log


TOUCH = """do $$ declare number bigint; until timestamptz := clock_timestamp() + interval '8 s'; begin
    while clock_timestamp() < until loop
        for number in select unnest(%s::bigint[]) loop
            update anubis.subscriptions set origin = 'touched' where id = number and status = 'pending';
            commit;
        end loop;
    end loop;
end $$"""


def test_application_changes_rows_that_are_being_claimed(app, institutions, make_daemon):
    """A row that changes under a claim waits for the next one; those claimed go where their integration says."""
    integrations = [app.integration(institutions.url(f"/good/{n}")) for n in range(200)]
    firsts = [app.subscriptions(i, 4, scheduled_to="2100-01-01")[0] for i in integrations]
    make_daemon({"delivery": {"poll_interval": "20ms"}}).start()

    def touch(ids):
        connection = app.database.connect()
        connection.cursor().execute(TOUCH, (ids,))
        connection.close()
    writers = [threading.Thread(target=touch, args=(firsts[n::3],)) for n in range(3)]
    for writer in writers:
        writer.start()
    for n in range(0, len(integrations), 8):
        app.query("update {s}.subscriptions set scheduled_to = null where integration_id = any (%s)", (integrations[n:n + 8],))
        time.sleep(0.2)
    for writer in writers:
        writer.join()
    assert app.query("select id, pause_reason from {s}.integrations where paused_until is not null") == []
    app.wait_states(sent=800)
    assert all(institutions.counts(f"/good/{n}")["requests"] == 4 for n in range(len(integrations)))


def test_url_mended_while_an_answer_is_under_way(app, institutions, daemon):
    """What the former endpoint answers does not pause the integration that was moved away from it."""
    integration = app.integration(institutions.url("/reject/410"))
    institutions.stop()
    app.subscription(integration)
    app.wait_states(processing=1)
    app.query("update {s}.integrations set endpoint_url = %s", (institutions.url("/good"),))
    institutions.cont()
    app.wait_states(sent=1)
    assert app.value("select paused_until from {s}.integrations") is None
    assert institutions.counts("/reject/410")["requests"] == 1
