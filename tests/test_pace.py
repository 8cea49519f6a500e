"""Institutions that ask for time, refuse the credentials or are silent; and what this machine itself lacks."""
import re
import resource
import threading
import time

import pytest
from harness.processes import wait_for
from harness.recording import RecordingServer

def backoff(app, integration):
    rows = app.query("select extract(epoch from backoff_until - now()), backoff_reason from {s}.integration_runtime "
                     "where integration_id = %s and backoff_until > now()", (integration,))
    return rows[0] if rows else None


@pytest.mark.parametrize("slots", [1, 32])
def test_a_limited_api_takes_a_large_batch(app, institutions, make_daemon, slots):
    """Twenty a second, the others 429: nothing fails, nothing costs an attempt, and few are refused."""
    make_daemon({"retry": {"base_delay": "200ms", "max_delay": "60s", "max_attempts": 2}, "log_level": "info"}).start()
    rows = 600 if slots > 1 else 100
    integration = app.integration(institutions.url("/limited/20"), max_in_flight=slots)
    app.subscriptions(integration, rows)
    app.wait_states(sent=rows, deadline=300)
    assert institutions.counts("/limited/20")["requests"] < 4 * rows
    assert app.value("select max(attempts) from {s}.subscriptions") == 1


@pytest.mark.parametrize("status", [429, 503])
def test_what_an_institution_can_take_at_once_is_found_and_kept(app, make_daemon, status):
    """Six at once, the others are pushed back: few are, once it is known how many are enough, and it is used to the full."""
    free, lock, most = 6, threading.Lock(), []

    def answer(_):
        nonlocal free
        with lock:
            if free == 0:
                return status, {"Retry-After": "0"}, b""
            free -= 1
            most.append(6 - free)
        time.sleep(0.03)
        with lock:
            free += 1
        return 200, {}, b""

    with RecordingServer(answer) as server:
        make_daemon({"retry": {"base_delay": "100ms", "max_delay": "100ms", "max_attempts": 2}, "log_level": "info"}).start()
        app.subscriptions(app.integration(server.url + "/"), 1000)
        app.wait_states(sent=1000, deadline=300)
        assert len(server.received) < 1000 * 1.1 and max(most) == 6
        assert app.value("select max(attempts) from {s}.subscriptions") == 1


@pytest.mark.parametrize("path, reason", [("/reject/429?retry_after=30", "HTTP 429"), ("/reject/503?retry_after=30", "HTTP 503"),
                                          ("/reject/429", "HTTP 429")])
def test_the_whole_integration_waits(app, institutions, make_daemon, ctl, path, reason):
    settings = {"retry": {"base_delay": "20s", "max_delay": "60s"}, "log_level": "info"}
    first = make_daemon(settings).start()
    integration, good = app.integration(institutions.url(path), max_in_flight=4), app.integration(institutions.url("/good"))
    app.subscriptions(integration, 100)
    wait_for(lambda: backoff(app, integration), 30, "the integration to wait")
    app.wait_states(integration_id=integration, pending=96, retry=4)
    seconds, why = backoff(app, integration)
    assert why == reason and (25 if "=30" in path else 10) < seconds <= 33
    # Neither after a restart nor by another daemon is it asked again; others go on.
    first.restart()
    make_daemon(settings).start()
    app.subscriptions(integration, 10)
    app.subscriptions(good, 10)
    app.wait_states(integration_id=good, sent=10)
    assert institutions.counts(path.split("?")[0])["requests"] == 4
    assert app.query("select distinct attempts from {s}.subscriptions where integration_id = %s", (integration,)) == [(0,)]
    status = ctl("status", "--json").expect().json
    row = next(i for i in status["integrations"] if i["id"] == integration)
    assert row["state"] == "waits" and row["reason"] == reason and row["backoff_until"]
    last = app.value("select max(id) from {s}.subscriptions where integration_id = %s", (integration,))
    explained = ctl("explain", last).expect().stdout
    assert f"its integration waits ({reason}) until" in explained


def test_afterwards_it_begins_gently(app, institutions, make_daemon):
    """The first daemon and one that knows nothing of it: one request, then more."""
    settings = {"retry": {"base_delay": "2s", "max_delay": "60s"}, "log_level": "info"}
    first = make_daemon(settings).start()
    integration = app.integration(institutions.url("/reject/429"))
    app.subscriptions(integration, 200)
    wait_for(lambda: backoff(app, integration), 30, "the integration to wait")
    before = institutions.counts("/reject/429")["requests"]
    institutions.become("/reject/429", "/silent")
    first.restart()
    wait_for(lambda: institutions.counts("/reject/429")["requests"] > before, 30, "the next request")
    app.query("select pg_sleep(0.5)")
    assert institutions.counts("/reject/429")["requests"] == before + 1


@pytest.mark.parametrize("column, value", [("auth_token", "another"), ("endpoint_url", None)])
def test_a_mended_one_is_tried_at_once(app, institutions, make_daemon, column, value):
    make_daemon({"retry": {"base_delay": "1h", "max_delay": "2h"}, "log_level": "info",
                 "delivery": {"poll_interval": "60s"}}).start()
    integration = app.integration(institutions.url("/reject/429"), max_in_flight=2)
    app.subscriptions(integration, 50)
    wait_for(lambda: backoff(app, integration), 30, "the integration to wait")
    if column == "auth_token":
        institutions.become("/reject/429", "/good")
    app.query(f"update {{s}}.integrations set {column} = %s where id = %s", (value or institutions.url("/good"), integration))
    app.wait_states(sent=50, deadline=30)


@pytest.mark.parametrize("path, before", [("/reject/409", "HTTP 409"), ("/close", "connection")])
def test_a_refusal_after_an_ambiguous_attempt_is_marked(app, institutions, make_daemon, ctl, path, before):
    """The institution may have taken it with the first attempt, and refuses the repetition; one between them is clear."""
    daemon = make_daemon({"retry": {"base_delay": "300ms", "max_delay": "300ms"}}).start()
    subscription = app.subscription(app.integration(institutions.url(path)))
    clear = app.subscription(app.integration(institutions.url("/reject/422")))
    wait_for(lambda: (app.row(subscription)["last_error"] or "").startswith(before), 30, "the first attempt")
    institutions.become(path, "/reject/500")
    wait_for(lambda: app.row(subscription)["last_http_status"] == 500, 30, "the second attempt")
    assert app.row(subscription)["last_ambiguous"] is False and app.row(subscription)["ambiguous_since"]
    institutions.become(path, "/reject/422")
    app.wait_states(failed=2)
    assert app.row(subscription)["last_ambiguous"] is True
    assert app.events(subscription)[-1]["ambiguous"] is True
    assert app.row(clear)["last_ambiguous"] is False and app.row(clear)["ambiguous_since"] is None
    assert f"subscription {subscription}, " in daemon.log and "HTTP 422, failed, ambiguous" in daemon.log
    assert "the institution may have received it" in ctl("explain", subscription).expect().stdout
    assert ctl("status", "--json").expect().json["failed_ambiguous"] == 1


@pytest.mark.parametrize("silent, path", [(20, "/silent"), (60, "/silent"), (16, "/slow/60000")])
def test_silent_ones_leave_room(app, institutions, make_daemon, silent, path):
    """More of them than could have all slots: rows of a healthy one do not wait for their timeouts, a minute."""
    make_daemon({"delivery": {"timeout": "60s", "lease": "120s", "max_in_flight": 256}, "log_level": "info",
                 "retry": {"base_delay": "1s", "max_delay": "2s"}}).start()
    for i in range(silent):
        app.subscriptions(app.integration(institutions.url(f"{path}/{i}")), 100)
    wait_for(lambda: app.states()["processing"] >= 190, 30, "the silent ones to have what they can get")
    good = app.integration(institutions.url("/good"))
    for i in range(30):
        row = app.subscription(good)
        wait_for(lambda row=row: app.row(row)["status"] == "sent", 30, "a healthy row", interval=0.01)


def test_known_silent_ones_get_two_slots(app, institutions, make_daemon):
    make_daemon({"delivery": {"timeout": "1s", "connect_timeout": "1s", "lease": "60s"}, "log_level": "info",
                 "retry": {"base_delay": "10ms", "max_delay": "20ms", "max_attempts": 1000}}).start()
    integration = app.integration(institutions.url("/silent"))
    app.subscriptions(integration, 200)
    wait_for(lambda: app.value("select count(*) from {s}.subscription_events where event_type = 'retried'") >= 40, 60,
             "timeouts")
    seen = []
    for _ in range(30):
        seen.append(app.states()["processing"])
        app.query("select pg_sleep(0.1)")
    # Beside the two may stand two whose time is over, until the database has that.
    assert sorted(seen)[len(seen) // 2] <= 2 and max(seen) <= 4, seen
    institutions.become("/silent", "/good")
    app.wait_states(sent=200, deadline=60)


@pytest.mark.parametrize("slots", [1, 2, 5])
def test_few_slots_are_used(app, institutions, make_daemon, slots):
    """The quarter that is kept for others never keeps the last slot from the only one."""
    make_daemon({"delivery": {"max_in_flight": slots}, "log_level": "info"}).start()
    app.subscriptions(app.integration(institutions.url("/slow/20")), 50)
    app.wait_states(sent=50, deadline=60)


def test_too_few_descriptors_cost_nobody_an_attempt(app, institutions, make_daemon):
    daemon = make_daemon({"delivery": {"max_in_flight": 500, "max_in_flight_per_integration": 500}, "log_level": "info",
                          "retry": {"base_delay": "1h", "max_delay": "1h"}})
    daemon.start()
    # What is left is for requests alone: Kafka's connections have theirs.
    wait_for(lambda: daemon.log.count("has taken over") == 3, 120, "the consumer groups")
    resource.prlimit(daemon.child.pid, resource.RLIMIT_NOFILE, (daemon.child.descriptors() + 20,) * 2)
    app.subscriptions(app.integration(institutions.url("/slow/100")), 300)
    app.wait_states(sent=300, deadline=120)
    assert app.value("select max(attempts) from {s}.subscriptions") == 1
    assert app.value("select count(*) from {s}.subscription_events where event_type in ('failed', 'retried')") == 0
    said = re.findall(
        r"this machine, not an institution, keeps requests from being sent, to integration \d+ \".*\" for one: .*", daemon.log)
    assert len(said) == 1 and "descriptors" in said[0] or "open files" in said[0], said


@pytest.fixture
def slow_claims(app):
    """The statement that claims takes its time."""
    app.query("create function {s}.dawdle() returns trigger language plpgsql as "
              "$$ begin perform pg_sleep(0.7); return null; end $$;"
              "create trigger dawdle after update on {s}.subscriptions for each row "
              "when (new.status = 'processing' and old.status <> 'processing') execute function {s}.dawdle()")
    yield
    app.query("drop trigger dawdle on {s}.subscriptions; drop function {s}.dawdle()")


def test_a_claim_that_comes_after_its_lease_sends_nothing(app, institutions, make_daemon, slow_claims):
    """A daemon stands still while its claim is answered, and another one has the row by then."""
    settings = {"delivery": {"timeout": "1s", "connect_timeout": "1s", "lease": "3s"},
                "retry": {"base_delay": "100ms", "max_delay": "100ms"}}
    first = make_daemon(settings).start()
    row = app.subscription(app.integration(institutions.url("/good")))
    claimed = "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'PgSleep'"
    wait_for(lambda: app.value(claimed), 30, "the claim", interval=0.01)
    first.stop()
    wait_for(lambda: app.row(row)["status"] == "processing", 30, "the claim to be done")
    second = make_daemon(settings).start()
    app.wait_states(sent=1, deadline=60)
    first.cont()
    other = app.subscription(app.integration(institutions.url("/good/other")))
    second.term()
    app.wait_states(sent=2, deadline=60)
    assert institutions.counts("/good")["requests"] == 1 and app.row(other)["status"] == "sent"
    assert first.is_running()


def retries(app, integration, count):
    """So many rows that have been tried before and are due."""
    app.query("insert into {s}.subscriptions (integration_id, status, attempts, next_attempt_at) "
              "select %s, 'retry', 1, now() - interval '1 second' from generate_series(1, %s)", (integration, count))


@pytest.mark.parametrize("slots, share", [(4, 1), (8, 2), (11, 2), (2, 0), (None, 8)])
def test_first_attempts_keep_a_share_of_the_slots(app, institutions, make_daemon, slots, share):
    """Whatever hangs while it is tried once more."""
    integration = app.integration(institutions.url("/slow/60000"), max_in_flight=slots)
    slots = slots or 32
    retries(app, integration, 2 * slots)
    daemon = make_daemon({"delivery": {"timeout": "120s", "lease": "200s", "max_in_flight_per_integration": 32}}).start()
    wait_for(lambda: institutions.counts("/slow/60000")["requests"] >= slots - share, 30, "the retries")
    fresh = app.subscriptions(integration, slots)
    wait_for(lambda: institutions.counts("/slow/60000")["requests"] >= slots, 30, "the first attempts")
    assert app.value("select count(*) from {s}.subscriptions where id = any (%s) and status = 'processing'", (fresh,)) == share
    # Those of another integration find out that no more are taken.
    other = app.integration(institutions.url("/good"))
    app.subscription(other)
    app.wait_states(integration_id=other, sent=1, deadline=30)
    assert institutions.counts("/slow/60000")["requests"] == slots
    daemon.kill9()


@pytest.mark.parametrize("limits", [{"max_in_flight": 4}, {"max_in_flight": 33}, {"max_in_flight": 8, "rate_limit": 200}])
def test_retries_do_not_wait_for_the_poll_while_they_have_slots(app, institutions, make_daemon, limits):
    integration = app.integration(institutions.url("/slow/20"), **limits)
    make_daemon({"delivery": {"poll_interval": "5m"}}).start()
    for _ in range(6):
        retries(app, integration, 40)
        app.subscriptions(integration, 20)
    app.wait_states(integration_id=integration, sent=360, deadline=90)


@pytest.mark.parametrize("slots, institutions_count", [(4, 1), (8, 1), (16, 1), (16, 4), (64, 1)])
def test_no_row_waits_for_the_poll_while_slots_are_free(app, institutions, make_daemon, slots, institutions_count):
    make_daemon({"delivery": {"max_in_flight": slots, "poll_interval": "60s"}, "log_level": "info"}).start()
    for i in range(institutions_count):
        integration = app.integration(institutions.url(f"/slow/200/{i}"), max_in_flight=1000)
        app.subscriptions(integration, 5 * slots // institutions_count)
    app.wait_states(sent=5 * slots, deadline=30)


def test_one_that_was_silent_is_tried_again_while_others_are_slow(app, institutions, make_daemon):
    """Slots that are kept for others are for silent institutions, too, but for the last half of them."""
    make_daemon({"delivery": {"max_in_flight": 32, "timeout": "1s", "connect_timeout": "1s", "lease": "10s"},
                 "retry": {"base_delay": "100ms", "max_delay": "200ms", "max_attempts": 1000}, "log_level": "info"}).start()
    silent = app.integration(institutions.url("/silent"), max_in_flight=4)
    app.subscriptions(silent, 8)
    wait_for(lambda: app.value("select count(*) from {s}.subscription_events where event_type = 'retried'") >= 4, 30, "timeouts")
    for i in range(40):
        app.subscriptions(app.integration(institutions.url(f"/slow/900/{i}"), timeout_ms=5000), 60)
    wait_for(lambda: app.states()["processing"] >= 24, 30, "the slow ones to fill the slots")
    institutions.become("/silent", "/good")
    app.wait_states(integration_id=silent, sent=8, deadline=40)


def test_a_lock_does_not_lose_what_was_asked_for(app, institutions, make_daemon):
    """Nobody is asked again while the wait cannot be written, and then it is."""
    daemon = make_daemon({"log_level": "info", "retry": {"base_delay": "100ms", "max_delay": "1h"},
                          "delivery": {"max_in_flight_per_integration": 2}}).start()
    integration = app.integration(institutions.url("/reject/429?retry_after=600"))
    connection = app.database.connect()
    connection.autocommit = False
    connection.cursor().execute("select from anubis.integration_runtime for update")
    app.subscriptions(integration, 50)
    daemon.wait_log(r"could not write that integration 1 \".*\" waits")
    app.query("select pg_sleep(3)")
    assert institutions.counts("/reject/429")["requests"] == 2
    connection.rollback()
    connection.close()
    wait_for(lambda: (backoff(app, integration) or [0])[0] > 500, 30, "the wait to be written")
    assert institutions.counts("/reject/429")["requests"] == 2


def test_a_change_by_the_application_in_flight_is_ambiguous(app, institutions, make_daemon):
    make_daemon({"log_level": "info"}).start()
    row = app.subscription(app.integration(institutions.url("/slow/1500")))
    wait_for(lambda: app.states()["processing"] == 1, 30, "the request to be under way")
    institutions.become("/slow/1500", "/reject/422")
    app.query("update {s}.subscriptions set status = 'pending' where id = %s", (row,))
    app.wait_states(failed=1)
    assert app.row(row)["last_ambiguous"] is True and app.events(row)[-1]["ambiguous"] is True


def test_another_daemon_comes_back_gently_too(app, institutions, make_daemon):
    settings = {"retry": {"base_delay": "2s", "max_delay": "60s"}, "log_level": "info"}
    first = make_daemon(settings).start()
    integration = app.integration(institutions.url("/reject/429"), max_in_flight=4)
    app.subscriptions(integration, 4)
    wait_for(lambda: backoff(app, integration), 30, "the integration to wait")
    first.term()
    before = institutions.counts("/reject/429")["requests"]
    institutions.become("/reject/429", "/silent")
    app.query("update {s}.integration_runtime set backoff_until = null")
    second = make_daemon({**settings, "delivery": {"timeout": "60s", "lease": "90s"}}).start()
    wait_for(lambda: institutions.counts("/reject/429")["requests"] == before + 3, 30, "as many retries as may be under way")
    app.query("update {s}.integration_runtime set backoff_until = now()")
    app.query("update {s}.integrations set max_in_flight = 40")
    app.subscriptions(integration, 40)
    app.query("select pg_sleep(1)")
    assert institutions.counts("/reject/429")["requests"] == before + 3 and second.is_running()


@pytest.mark.parametrize("status", [400, 422])
def test_a_burst_of_refusals_pauses_an_institution_that_took_some(app, institutions, make_daemon, status):
    """Twenty fail, those under way are spared, and all others wait until somebody resumes it."""
    daemon = make_daemon({"log_level": "info"}).start()
    integration = app.integration(institutions.url(f"/good/{status}"), max_in_flight=30)
    app.subscriptions(integration, 10)
    app.wait_states(sent=10)
    institutions.become(f"/good/{status}", f"/reject/{status}")
    app.subscriptions(integration, 300)
    daemon.wait_log("is paused until somebody resumes it: 20 subscriptions in a row were refused")
    wait_for(lambda: not app.states()["processing"], 30, "the answers under way")
    assert app.states()["failed"] == 20 and app.states()["sent"] == 10
    requests = institutions.counts(f"/good/{status}")["requests"]
    assert requests <= 10 + 20 + 30
    assert app.value("select max(attempts) from {s}.subscriptions where status = 'retry'") in (None, 0)
    for again in range(2, 5):  # resumed too early
        app.query("update {s}.integrations set paused_until = null, pause_reason = null")
        wait_for(lambda: app.value("select paused_until from {s}.integrations"), 60, "the next pause")
        wait_for(lambda n=again: app.states()["failed"] == 20 * n, 60, "those before it to fail")
    wait_for(lambda: not app.states()["processing"], 30, "the answers under way")
    assert app.states()["failed"] == 80 and "refuses everything" not in daemon.log
    institutions.become(f"/good/{status}", "")
    app.query("update {s}.integrations set paused_until = null, pause_reason = null")
    app.query("update {s}.subscriptions set status = 'retry' where status = 'failed'")
    app.wait_states(sent=310)


def test_three_daemons_count_refusals_together(app, make_daemon):
    """As many requests are under way at once as three daemons may have, and all are refused then."""
    lock, all_there, seen = threading.Lock(), threading.Event(), []

    def answer(_):
        with lock:
            seen.append(None)
            if len(seen) == 10 + 3 * 32:
                all_there.set()
        if len(seen) <= 10:
            return 200, {}, b""
        all_there.wait(60)
        return 400, {}, b""

    with RecordingServer(answer) as server:
        settings = {"log_level": "info", "delivery": {"max_in_flight_per_integration": 32}}
        daemons = [make_daemon(settings, name=f"anubisd{i}").start() for i in range(3)]
        integration = app.integration(server.url + "/")
        app.subscriptions(integration, 10)
        app.wait_states(sent=10)
        wait_for(lambda: app.value("select taken_at from {s}.integration_runtime"), 30, "it to be known")
        app.subscriptions(integration, 300)
        wait_for(lambda: app.value("select paused_until from {s}.integrations"), 60, "the pause")
        wait_for(lambda: not app.states()["processing"], 30, "the answers under way")
        assert app.states()["failed"] == 20 and app.states()["sent"] == 10 and len(seen) <= 10 + 6 * 32
        wait_for(lambda: sum(len(re.findall("is paused until somebody resumes it: 20 subscriptions in a row", d.log))
                             for d in daemons) == 1, 30, "one line")
        for again in range(2, 5):
            app.query("update {s}.integrations set paused_until = null, pause_reason = null")
            wait_for(lambda: app.value("select paused_until from {s}.integrations"), 60, "the next pause")
            wait_for(lambda n=again: app.states()["failed"] == 20 * n, 60, "those before it to fail")
        assert "refuses everything" not in "".join(d.log for d in daemons)


def test_refusals_that_cannot_be_counted_do_not_fail(app, institutions, make_daemon):
    """The pause has to be written, and the application has the integration's row: those of others are counted, and a daemon that
    stops puts the rows back."""
    daemon = make_daemon({"log_level": "info", "delivery": {"drain_timeout": "1s"}}).start()
    refusing = app.integration(institutions.url("/good/refusing"))
    others = {app.integration(institutions.url("/reject/422")): "failed", app.integration(institutions.url("/good")): "sent"}
    app.subscriptions(refusing, 10)
    app.wait_states(sent=10)
    wait_for(lambda: app.value("select taken_at from {s}.integration_runtime where integration_id = %s", (refusing,)), 30,
             "it to be known")
    institutions.become("/good/refusing", "/reject/400")
    connection = app.database.connect(autocommit=False)
    connection.cursor().execute("select from anubis.integrations where id = %s for update", (refusing,))
    app.subscriptions(refusing, 100)
    daemon.wait_log("could not count refusals by institutions")
    for integration, state in others.items():
        app.subscriptions(integration, 50)
        app.wait_states(integration_id=integration, **{state: 50}, deadline=60)
    daemon.term()
    mine = "from {s}.subscriptions where integration_id = %s and status <> 'sent'"
    assert app.value(f"select count(*) {mine} and status = 'failed'", (refusing,)) < 20  # those that came before
    assert app.value(f"select max(attempts) {mine} and status <> 'failed'", (refusing,)) == 0
    connection.rollback()
    connection.close()
    daemon.start()
    wait_for(lambda: app.value("select paused_until from {s}.integrations where id = %s", (refusing,)), 60, "the pause")
    wait_for(lambda: not app.states()["processing"], 30, "the answers under way")
    assert app.states()["failed"] == 50 + 20


LATELY = 1000000  # us
# How many stand before; of which turn, by which settings; + and - in their order; what follows: may fail, turn, vain, in a row.
JUDGED = [
    (0, 0, True, "---", LATELY, (3, None, False, 3)), (17, 0, True, "----", LATELY, (3, 1, False, 0)),
    (17, 0, True, "--+--", LATELY, (4, None, False, 2)), (19, 0, True, "+", LATELY, (0, None, False, 0)),
    (0, 0, True, "-" * 50, LATELY, (20, 1, False, 0)), (19, 0, True, "-+" * 30, LATELY, (1, 1, False, 0)),
    (0, 0, True, "-" * 50, None, (50, None, True, 20)), (0, 0, True, "-" * 50, 3601 * LATELY, (50, None, True, 20)),
    (20, 0, True, "--", LATELY, (1, 1, False, 0)), (20, 0, True, "+-", None, (1, None, False, 1)),
    (3, 0, False, "---", LATELY, (3, None, False, 3)), (3, -1, True, "---", LATELY, (0, None, False, 3)),
    (3, 7, True, "---", LATELY, (3, None, False, 6))]


@pytest.mark.parametrize("before, turn, same, answers, lately, found", JUDGED)
def test_refusals_in_a_row_are_counted(app, before, turn, same, answers, lately, found):
    integration = app.integration("https://usp.example/")
    app.query("update {s}.integration_runtime set refused_in_row = %s where integration_id = %s", (before, integration))
    judged = app.query("select j.* from {s}.integrations i, {s}.refusals_judged(i.id, {s}.integration_fingerprint("
                       "i.endpoint_url, i.auth_token, i.delivery_settings) + %s, %s, %s, %s, 'why') j",
                       (0 if same else 1, turn, [a == "+" for a in answers], lately))[0]
    in_row, paused = app.query("select refused_in_row, pause_reason from {s}.integration_runtime r join {s}.integrations i "
                               "on i.id = r.integration_id")[0]
    assert (*judged, in_row) == found and paused == ("why" if found[1] else None)


def test_an_application_that_changes_settings_meets_no_deadlock(app):
    """It has the integration's row when refusals are counted that pause it; what it writes then needs the other row."""
    integration = app.integration("https://usp.example/")
    app.query("update {s}.integration_runtime set refused_in_row = 19, circuit_state = 'open', "
              "circuit_until = now() + interval '1 h' where integration_id = %s", (integration,))
    counted = []
    judge = threading.Thread(target=lambda: counted.append(app.query(
        "select j.may_fail from {s}.integrations i, {s}.refusals_judged(i.id, {s}.integration_fingerprint("
        "i.endpoint_url, i.auth_token, i.delivery_settings), 0, '{f}', 1, 'why') j")))
    application = app.database.connect(autocommit=False)
    with application.cursor() as cursor:
        cursor.execute(f"update {app.schema}.integrations set name = 'another'")
        judge.start()
        wait_for(lambda: app.value("select count(*) from pg_stat_activity where wait_event_type = 'Lock'"), 30, "the lock")
        cursor.execute(f"update {app.schema}.integrations set auth_token = 'mended'")
    application.commit()
    application.close()
    judge.join(60)
    assert counted == [[(1,)]]
    assert app.value("select circuit_until from {s}.integration_runtime") < app.value("select now()")


@pytest.mark.parametrize("meanwhile", ["restart", "settings"])
def test_it_is_known_that_an_institution_took_some(app, institutions, make_daemon, meanwhile):
    """After a restart, and when somebody has just set what it does not like."""
    daemon = make_daemon({"log_level": "info"}).start()
    integration = app.integration(institutions.url("/good/known"), max_in_flight=30)
    app.subscriptions(integration, 10)
    app.wait_states(sent=10)
    wait_for(lambda: app.value("select count(*) from {s}.integration_runtime where taken_at > now() - interval '1 h'"), 60,
             "the counters")
    institutions.become("/good/known", "/reject/400")
    if meanwhile == "restart":
        daemon.restart()
    else:
        app.query("update {s}.integrations set delivery_settings = '{\"headers\": {\"Accept\": \"text/html\"}}'")
    app.subscriptions(integration, 300)
    daemon.wait_log("is paused until somebody resumes it: 20 subscriptions in a row were refused")
    wait_for(lambda: not app.states()["processing"], 30, "the answers under way")
    assert app.states()["failed"] == 20 and app.states()["sent"] == 10


def test_one_that_never_took_any_fails_them_all(app, institutions, make_daemon):
    daemon = make_daemon({"log_level": "info"}).start()
    app.subscriptions(app.integration(institutions.url("/reject/422")), 100)
    app.wait_states(failed=100)
    assert "paused" not in daemon.log
