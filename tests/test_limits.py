"""What an institution is promised: rate_limit and max_in_flight, as it sees them, whatever becomes of the daemons."""
import contextlib
import threading
import time

import pytest
from harness.processes import wait_for
from harness.recording import RecordingServer

QUICK = {"delivery": {"timeout": "2s", "connect_timeout": "1s", "lease": "5s", "poll_interval": "200ms"}, "log_level": "info",
         "retry": {"base_delay": "100ms", "max_delay": "200ms"}}
# What is sent apart may arrive together: so long, or twice as long as this machine has stood still meanwhile.
JITTER = 0.1


class Stalls:
    longest = 0

    def watch(self, end):
        while not end.is_set():
            before = time.monotonic()
            time.sleep(0.005)
            self.longest = max(self.longest, time.monotonic() - before)


@pytest.fixture
def stalls():
    found, end = Stalls(), threading.Event()
    thread = threading.Thread(target=found.watch, args=(end,))
    thread.start()
    with contextlib.ExitStack() as stack:
        stack.callback(thread.join)
        stack.callback(end.set)
        yield found


def arrivals(institutions, path):
    return sorted(key.first_usec / 1e6 for key in institutions.keys(path).values())


def check_windows(times, rate, stalls):
    """No window of any length has more than rate * T and max(1, 0.1 s worth)."""
    burst, jitter = max(1, 0.1 * rate), max(JITTER, 2 * stalls.longest)
    for i, first in enumerate(times):
        for j in range(i, len(times)):
            seconds = times[j] - first
            assert j - i + 1 <= rate * (seconds + jitter) + burst, f"{j - i + 1} requests within {seconds:.3f} s"


def used(times, rate):
    return (len(times) - 1) / (times[-1] - times[0]) / rate


@pytest.mark.timeout(200)
def test_no_window_has_more_than_the_rate(app, institutions, make_daemon, stalls):
    """Three daemons, one of them restarted and all of them killed in turn."""
    rate = 40
    integration = app.integration(institutions.url("/good"), rate_limit=rate, max_in_flight=64)
    app.subscriptions(integration, 500)
    daemons = [make_daemon(QUICK, name=f"anubisd{i}").start() for i in range(3)]

    def sent(rows):
        wait_for(lambda: institutions.counts("/good")["requests"] >= rows, 60, f"{rows} requests")
    sent(60)
    daemons[0].restart()
    for n, daemon in enumerate(daemons):
        sent(140 + 80 * n)
        daemon.kill9()
        daemon.start()
    app.wait_states(sent=500)
    check_windows(arrivals(institutions, "/good"), rate, stalls)


@pytest.mark.parametrize("rate, rows, daemons", [(30, 120, 3), (5, 15, 2), (300, 900, 1)])
def test_the_rate_is_used(app, institutions, make_daemon, stalls, rate, rows, daemons):
    """In one of three rounds at least: other work on the machine may keep the daemons from it for a moment."""
    integration = app.integration(institutions.url("/good"), rate_limit=rate, max_in_flight=400)
    shares = []
    for turn in range(1, 4):
        app.subscriptions(integration, rows)
        for i in range(daemons if turn == 1 else 0):
            make_daemon({**QUICK, "delivery": {"poll_interval": "1s"}}, name=f"anubisd{i}").start()
        app.wait_states(sent=rows * turn)
        times = arrivals(institutions, "/good")
        check_windows(times, rate, stalls)
        shares.append(used(times[-rows:], rate))
        if shares[-1] > 0.8:
            break
    print(f"{shares} of the rate")
    assert shares[-1] > 0.8


@pytest.mark.parametrize("limit", [{"rate_limit": 1000}, {"max_in_flight": 3}, {"rate_limit": 1000, "max_in_flight": 3}])
def test_rows_do_not_wait_for_the_poll_while_their_counters_are_locked(app, institutions, make_daemon, limit):
    """Counting locks the row of integration_runtime that a claim needs for them. Nothing rings when it is free again."""
    daemon = make_daemon({**QUICK, "delivery": {"poll_interval": "5m"}}).start()
    limited, other = app.integration(institutions.url("/good"), **limit), app.integration(institutions.url("/good/other"))
    app.subscription(limited)
    app.wait_states(sent=1)
    # Whose turn it is to serve holds for some time without the lock: that time is over.
    app.query("update {s}.integration_runtime set served_until = now() - interval '1 s'")
    counting = app.database.connect()
    counting.autocommit = False
    counting.cursor().execute(f"select from {app.schema}.integration_runtime where integration_id = {limited} for no key update")
    app.subscriptions(limited, 5)
    app.subscription(other)
    app.wait_states(sent=2, pending=5)
    counting.commit()
    app.wait_states(sent=7, deadline=60)
    assert daemon.is_running()


@pytest.mark.parametrize("limit, rows", [({"rate_limit": 1000, "max_in_flight": 3}, 30), ({"rate_limit": 1000}, 100),
                                         ({"rate_limit": 20, "max_in_flight": 1}, 10)])
def test_rows_do_not_wait_for_the_poll_when_slots_get_free(app, institutions, make_daemon, limit, rows):
    """Those of a rate_limit, too, for which there was time while all slots were taken."""
    make_daemon({**QUICK, "delivery": {"poll_interval": "5m"}}).start()
    app.subscriptions(app.integration(institutions.url("/slow/100"), **limit), rows)
    app.wait_states(sent=rows, deadline=60)


def test_a_slow_rate_does_not_wait_for_the_poll(app, institutions, make_daemon):
    """Below one a second, too: a row every 1.5 s, with a poll that never comes."""
    make_daemon({**QUICK, "delivery": {**QUICK["delivery"], "poll_interval": "5m"}}).start()
    app.subscriptions(app.integration(institutions.url("/good/slowly"), rate_limit=1 / 1.5), 5)
    app.wait_states(sent=5, deadline=60)
    times = arrivals(institutions, "/good/slowly")
    apart = [b - a for a, b in zip(times, times[1:])]
    assert min(apart) > 1.5 - JITTER, apart


def test_another_rate_counts_at_once(app, institutions, make_daemon):
    make_daemon(QUICK).start()
    integration = app.integration(institutions.url("/good"), rate_limit=0.001)
    app.subscriptions(integration, 5)
    app.wait_states(sent=1, pending=4)
    app.query("update {s}.integrations set rate_limit = 20")
    app.wait_states(sent=5, deadline=20)
    app.query("update {s}.integrations set rate_limit = 0.001")
    app.subscriptions(integration, 5)
    app.query("update {s}.integrations set rate_limit = null")
    app.wait_states(sent=10, deadline=20)


@pytest.mark.parametrize("step", ["1 hour", "-1 hour"])
def test_a_step_of_the_clock_neither_stops_it_nor_lets_all_out(app, institutions, make_daemon, step):
    """As if the server's clock had been set back or forward: the last time that was taken is elsewhere."""
    for i in range(2):
        make_daemon(QUICK, name=f"anubisd{i}").start()
    integration = app.integration(institutions.url("/good"), rate_limit=20)
    app.subscriptions(integration, 100)
    wait_for(lambda: institutions.counts("/good")["requests"] >= 20, 30, "some requests")
    app.query("update {s}.integration_runtime set rate_at = rate_at + %s::interval", (step,))
    app.wait_states(sent=100)
    times = arrivals(institutions, "/good")
    assert times[-1] - times[0] > 3  # 0.4 s worth may go out twice


def test_what_is_claimed_waits_for_nobody_else(app, institutions, make_daemon):
    """A slow rate holds no slots of others, and few rows at once."""
    make_daemon({**QUICK, "delivery": {"max_in_flight": 8}}).start()
    slow = [app.integration(institutions.url(f"/good/slow{i}"), rate_limit=0.1) for i in range(10)]
    for integration in slow:
        app.subscriptions(integration, 50)
    good = app.integration(institutions.url("/good"))
    app.subscriptions(good, 100)
    app.wait_states(integration_id=good, sent=100)
    assert app.states()["processing"] <= 8
    assert all(app.states(i)["sent"] <= 4 for i in slow)


def test_probes_have_the_rate_too(app, institutions, make_daemon, stalls):
    breaker = {"failure_threshold": 3, "recovery_timeout": "100ms", "max_recovery_timeout": "100ms"}
    make_daemon({**QUICK, "circuit_breaker": breaker}).start()
    integration = app.integration(institutions.url("/reject/500"), rate_limit=1)
    app.subscriptions(integration, 50)
    wait_for(lambda: institutions.counts("/reject/500")["requests"] >= 6, 60, "probes")
    check_windows(arrivals(institutions, "/reject/500"), 1, stalls)
    state = app.value("select circuit_state from {s}.integration_runtime where integration_id = %s", (integration,))
    assert state != "closed"
    institutions.become("/reject/500", "/good")
    wait_for(lambda: app.states()["sent"] >= 3, 30, "the circuit to be closed")
    check_windows(arrivals(institutions, "/reject/500"), 1, stalls)


def test_second_requests_for_a_row_have_the_rate_too(app, make_daemon, stalls):
    """What follows a lookup or a refused token waits for its time. Where that is too long, the row goes back, and what was found
    out about it stays so."""
    refused = threading.Event()

    def answer(request):
        if request.path == "/token":
            return 200, {}, b'{"access_token": "x", "expires_in": 3600}'
        if request.path == "/refusing" and not refused.is_set():
            refused.set()
            return 401, {}, b""
        return (404 if request.method == "GET" else 200), {}, b""

    with RecordingServer(answer) as server:
        client = {"type": "oauth2", "token_url": server.url + "/token", "client_id": "x", "client_secret": "y"}

        def integration(name, rate, **more):
            lookup = {"url": f"{server.url}/{name}?{{id}}"} if name != "refusing" else None
            return app.integration(f"{server.url}/{name}", rate_limit=rate, **more, delivery_settings={
                "lookup": lookup} if lookup else {"auth": client})
        asked, slow, refusing = integration("asked", 5), integration("slow", 0.4, timeout_ms=2000), integration("refusing", 5)
        ambiguous = {"ambiguous_since": "now()", "status": "retry", "attempts": 1}
        app.subscriptions(asked, 5, **ambiguous)
        app.subscriptions(slow, 1, **ambiguous)
        app.subscriptions(refusing, 5)
        make_daemon(QUICK).start()
        app.wait_states(sent=11)

        def requests(path):
            return [r for r in server.received if r.path.startswith("/" + path)]
        for path, rate, methods in (("asked", 5, "GET" * 5 + "POST" * 5), ("slow", 0.4, "GETPOST"), ("refusing", 5, "POST" * 6)):
            assert "".join(sorted(r.method for r in requests(path))) == methods, path
            check_windows([r.at for r in requests(path)], rate, stalls)
    assert app.value("select max(attempts) from {s}.subscriptions where integration_id = %s", (refusing,)) == 1


def test_a_daemon_that_stood_still_sends_nothing_late(app, institutions, make_daemon, stalls):
    first, second = (make_daemon(QUICK, name=name).start() for name in ("first", "second"))
    integration = app.integration(institutions.url("/good"), rate_limit=20, max_in_flight=100)
    app.subscriptions(integration, 160)
    wait_for(lambda: institutions.counts("/good")["requests"] >= 20, 30, "some requests")
    owner = app.value("select claimed_by from {s}.subscriptions where status = 'processing' limit 1")
    holder = first if owner == "first" else second
    holder.stop()
    before = institutions.counts("/good")["requests"]
    wait_for(lambda: institutions.counts("/good")["requests"] >= before + 20, 30, "the other one to take over")
    holder.cont()
    app.wait_states(sent=160)
    check_windows(arrivals(institutions, "/good"), 20, stalls)


def test_an_answer_that_a_daemon_reads_late_sends_nothing(app, institutions, make_daemon, stalls):
    """It stands still while the database carries its claim out: the rows are for times that are over."""
    integration = app.integration(institutions.url("/good"), rate_limit=40, max_in_flight=100)
    app.query("""create function public.wait_for_it() returns trigger language plpgsql as
        $$ begin perform pg_advisory_xact_lock_shared(1); return new; end $$""")
    app.query("create trigger wait_for_it before update on {s}.subscriptions for each row execute function public.wait_for_it()")
    app.subscriptions(integration, 160)
    with app.database.connect(autocommit=False) as other, other.cursor() as cursor:
        cursor.execute("select pg_advisory_xact_lock(1)")
        first = make_daemon(QUICK, name="first").start()
        wait_for(lambda: app.value("""select count(*) from pg_stat_activity where application_name = 'anubisd claim'
            and datname = current_database() and wait_event_type = 'Lock'"""), 30, "a claim that waits")
        first.stop()
        other.rollback()
    wait_for(lambda: app.states().get("processing", 0) > 0, 30, "the claim to be carried out")
    make_daemon(QUICK, name="second").start()
    wait_for(lambda: institutions.counts("/good")["requests"] >= 40, 30, "the other one to take over")
    first.cont()
    app.wait_states(sent=160)
    check_windows(arrivals(institutions, "/good"), 40, stalls)


class Counter:
    """An institution that counts its requests under way."""

    def __init__(self):
        self.now, self.most, self.lock = 0, 0, threading.Lock()

    def answer(self, _):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.05)
        with self.lock:
            self.now -= 1
        return 200, {}, b""


@pytest.mark.timeout(200)
@pytest.mark.parametrize("rate", [None, 200])
def test_no_more_requests_at_once_than_all_daemons_may_have_together(app, make_daemon, rate):
    """Three daemons; the one that serves the integration is stopped, and the next one is killed and stays away."""
    count = Counter()
    with RecordingServer(count.answer) as server:
        integration = app.integration(server.url + "/", max_in_flight=3, rate_limit=rate)
        daemons = {f"anubisd{i}": make_daemon(QUICK, name=f"anubisd{i}").start() for i in range(3)}

        def serving():
            return app.value("select served_by from {s}.integration_runtime where integration_id = %s", (integration,))

        app.subscriptions(integration, 100)
        wait_for(lambda: app.states()["sent"] >= 30, 60, "some to be sent")
        first = serving()
        daemons[first].term()
        app.wait_states(sent=100)
        app.subscriptions(integration, 100)
        wait_for(lambda: app.states()["sent"] >= 130, 60, "the next one to go on")
        second = serving()
        assert second and second != first
        daemons[second].kill9()
        app.wait_states(sent=200, deadline=60)
        assert serving() not in (first, second)
    assert count.most == 3


def test_what_another_one_serves_is_left_to_it_until_its_time_is_over(app, institutions, make_daemon, ctl):
    integration = app.integration(institutions.url("/good"), max_in_flight=2)
    other = app.integration(institutions.url("/good/other"))

    def served(by, until):
        app.query("update {s}.integration_runtime set served_by = %s, served_until = now() + %s::interval "
                  "where integration_id = %s", (by, until, integration))

    def sends(rows):
        number = app.subscriptions(integration, 1)[0]
        app.subscriptions(other, 1)
        app.wait_states(integration_id=other, sent=rows)
        return number
    served("gone", "1 hour")
    daemon = make_daemon({**QUICK, "instance": "here"}).start()
    number = sends(1)
    assert '"gone" alone serves its integration (max_in_flight) until' in ctl("explain", number).expect(0).stdout
    assert app.row(number)["status"] == "pending"
    served("gone", "0 s")
    app.wait_states(sent=2)
    # As the server's clock was set back: nobody has leases that long.
    served("gone", "2 days")
    sends(2)
    app.wait_states(sent=4)
    served("here", "1 hour")
    daemon.kill9()
    daemon.start()
    sends(3)
    app.wait_states(sent=6)
    daemon.term()
    assert app.query("select served_by, served_until from {s}.integration_runtime where integration_id = %s",
                     (integration,)) == [(None, None)]


@pytest.mark.slow
def test_a_runtime_row_that_a_hand_deleted_comes_back(app, institutions, make_daemon):
    make_daemon(QUICK).start()
    limited = [app.integration(institutions.url("/good"), **limit) for limit in ({"rate_limit": 100}, {"max_in_flight": 2})]
    app.query("delete from {s}.integration_runtime")
    for integration in limited:
        app.subscriptions(integration, 3)
    app.wait_states(sent=6, deadline=150)  # the monitor looks once a minute
