"""The circuit breaker: a dead institution gets a request now and then, whoever asks and however often anything is restarted."""
import itertools
import threading

import pytest
from harness.processes import wait_for
from harness.recording import RecordingServer

BREAKER = {"failure_threshold": 5, "recovery_timeout": "500ms", "max_recovery_timeout": "4s"}
SETTINGS = {"circuit_breaker": BREAKER, "log_level": "info", "retry": {"base_delay": "100ms", "max_delay": "200ms"}}
FOR_LONG = {**SETTINGS, "circuit_breaker": {**BREAKER, "recovery_timeout": "1h", "max_recovery_timeout": "1h"}}


def circuit(app, integration):
    """(state, generation, reason), as if it were closed where nothing was ever noted."""
    rows = app.query("select circuit_state, circuit_generation, circuit_reason from {s}.integration_runtime "
                     "where integration_id = %s", (integration,))
    return rows[0] if rows else ("closed", 0, None)


def wait_state(app, integration, state, deadline=60):
    wait_for(lambda: circuit(app, integration)[0] == state, deadline, f"the circuit to be {state}")


# --- the state machine, in all states that three daemons can bring it to ---

TICK = 30  # seconds; a minute after it has closed, it opens as the first time
RECOVERY, MAX_RECOVERY, LEASE, THRESHOLD = TICK, 4 * TICK, 2 * TICK, 2
STEP = """
    select n.circuit_state, n.circuit_generation, n.circuit_failures, n.circuit_level,
           extract(epoch from n.circuit_since)::integer, extract(epoch from n.circuit_until)::integer
      from unnest(%s::text[], %s::bigint[], %s::integer[], %s::integer[], %s::integer[], %s::integer[], %s::text[], %s::bigint[])
           with ordinality as c (state, generation, failures, level, since, until, event, of, number)
     cross join lateral {s}.circuit_next(
           jsonb_populate_record(null::{s}.integration_runtime, jsonb_build_object(
               'circuit_state', state, 'circuit_generation', generation, 'circuit_failures', failures, 'circuit_level', level,
               'circuit_since', to_timestamp(since), 'circuit_until', to_timestamp(until))),
           event, of, 1, to_timestamp(0), %s, %s * interval '1 s', %s * interval '1 s', %s * interval '1 s') n
     order by number"""
# state, generation, failures in a row, level, since, until (seconds from now).
START = ("closed", 0, 0, 0, None, None)


class Machine:
    """circuit_next() of the database, asked for many states at once."""

    def __init__(self, app):
        self.app = app
        self.known = {}

    def learn(self, questions):
        """{(circuit, event, generation)}"""
        new = list(set(questions) - self.known.keys())
        if not new:
            return
        columns = [list(column) for column in zip(*((*circuit, event, of) for circuit, event, of in new))]
        rows = self.app.query(STEP, (*columns, THRESHOLD, RECOVERY, MAX_RECOVERY, LEASE))
        self.known.update(zip(new, rows))

    def next(self, state, event, of):
        return self.known[state, event, of]


def normal(state):
    """(circuit, requests) with generations relative to the circuit's, and times that make no difference made one."""
    (name, generation, failures, level, since, until), requests = state
    since = None if since is None else min(max(since, -2 * TICK), TICK)
    until = None if until is None else max(until, -TICK)
    requests = tuple(sorted(max(g - generation, -1) for g in requests))
    return (name, 0, min(failures, THRESHOLD), min(level, 2), since, until), requests


def later(state, seconds):
    (name, generation, failures, level, since, until), requests = state
    return ((name, generation, failures, level, None if since is None else since - seconds,
             None if until is None else until - seconds), requests)


ENDS = ("alive", "failed", "forbidden", "refused", "neutral")


def questions_of(state):
    circuit_, requests = state
    yield circuit_, "probe", 0
    yield circuit_, "mended", 0
    for of, event in itertools.product(set(requests), ENDS):
        yield circuit_, event, of


def successors(machine, state):
    circuit_, requests = state
    if len(requests) < 3:  # a request of each daemon
        if circuit_[0] == "closed":
            yield circuit_, (*requests, circuit_[1])
        probed = machine.next(circuit_, "probe", 0)
        if probed != circuit_:
            assert probed[0] == "half_open" and probed[1] == circuit_[1] + 1 and probed[5] == LEASE
            yield probed, (*requests, probed[1])
    yield machine.next(circuit_, "mended", 0), requests
    for i, of in enumerate(requests):
        others = requests[:i] + requests[i + 1:]
        yield circuit_, others  # its daemon died
        for event in ENDS:
            after = machine.next(circuit_, event, of)
            assert of == circuit_[1] or after == circuit_, "what belongs to another generation changes nothing"
            yield after, others
    yield later(state, TICK)
    if circuit_[5] is None or circuit_[5] <= MAX_RECOVERY:
        yield later(state, -3 * TICK)  # the clock was set back


def check(state):
    (name, generation, failures, _, _, until), requests = state
    assert (until is None) == (name == "closed")
    if name == "half_open":
        assert requests.count(generation) <= 1, "one probe in a generation"
    if name == "open":
        assert generation not in requests, "nothing was claimed while it was open"
    if name == "closed":
        assert failures < THRESHOLD


def test_one_probe_in_a_generation_and_never_stuck(app):
    machine, seen, layer = Machine(app), set(), {normal((START, ()))}
    while layer:
        seen |= layer
        machine.learn(q for state in layer for q in questions_of(state))
        layer = {normal(s) for state in layer for s in successors(machine, state)} - seen
    assert len(seen) > 900, "all of them, as counted once"
    for state in seen:
        check(state)
    # However long the clock was set back, and whoever died: an open circuit is probed within the longest wait or lease.
    looks = {state: [later(state, TICK * i)[0] for i in range(MAX_RECOVERY // TICK + 1)]
             for state in seen if state[0][0] != "closed"}
    machine.learn((look, "probe", 0) for found in looks.values() for look in found)
    stuck = [state for state, found in looks.items() if all(machine.next(look, "probe", 0) == look for look in found)]
    assert not stuck


def test_waits_double_while_probes_fail_and_not_when_it_has_just_closed(app):
    machine = Machine(app)

    def step(state, event):
        machine.learn([(state, event, state[1])])
        return machine.next(state, event, state[1])

    state = step(START, "refused")
    waits = [state[5] // TICK]
    for _ in range(4):
        state = step(later((state, ()), state[5])[0], "probe")
        state = step(state, "failed")
        waits.append(state[5] // TICK)
    assert waits == [1, 2, 4, 4, 4]
    closed = step(step(later((state, ()), 4 * TICK)[0], "probe"), "alive")
    soon, much_later = (later((closed, ()), seconds)[0] for seconds in (30, 61))
    assert step(step(soon, "failed"), "failed")[5] == 4 * TICK
    assert step(step(much_later, "failed"), "failed")[5] == TICK


# --- daemons and institutions ---

def probes(generation):
    """Of a circuit that is open since its first failures: each probe begins a generation, and each failure of one."""
    return (generation - 1) // 2


@pytest.mark.parametrize("path", ["/reject/500", "/close", "/reject/302"])
def test_a_dead_institution_gets_probes_alone(app, institutions, make_daemon, path):
    """Three daemons: failures up to the threshold and what was under way, then one request in each wait; nothing is spent."""
    integration, good = app.integration(institutions.url(path), max_in_flight=4), app.integration(institutions.url("/good"))
    app.subscriptions(integration, 300)
    daemons = [make_daemon(SETTINGS, name=f"anubisd{i}").start() for i in range(3)]
    wait_for(lambda: circuit(app, integration)[1] >= 7 and circuit(app, integration)[0] == "open", 60, "three probes")
    _, generation, reason = circuit(app, integration)
    assert reason == "failures"
    requests = institutions.counts(path)["requests"]
    # The count was taken after the generation.
    assert requests - probes(circuit(app, integration)[1]) <= 5 + 3 * 4 + 1
    assert sum("the circuit is open, because its requests fail (" in d.log for d in daemons) == 1
    assert app.value("select sum(attempts) from {s}.subscriptions where integration_id = %s", (integration,)) <= requests
    app.subscriptions(good, 100)
    app.wait_states(integration_id=good, sent=100)
    institutions.become(path, "/good")
    app.wait_states(integration_id=integration, sent=300)
    wait_for(lambda: sum("the circuit is closed after" in d.log for d in daemons) == 1, 30, "the line that says so")
    assert circuit(app, integration)[0] == "closed" and circuit(app, integration)[1] > generation


def test_it_is_open_after_a_restart_and_for_other_daemons(app, institutions, make_daemon):
    integration = app.integration(institutions.url("/reject/500"), max_in_flight=2)
    app.subscriptions(integration, 50)
    daemon = make_daemon(FOR_LONG).start()
    wait_state(app, integration, "open")
    wait_for(lambda: not app.states()["processing"], 30, "the answers under way")
    requests = institutions.counts("/reject/500")["requests"]
    daemon.kill9()
    other = app.integration(institutions.url("/good"))
    app.subscriptions(other, 20)
    for name in ("anubisd", "another"):
        make_daemon(FOR_LONG, name=name).start()
    app.wait_states(integration_id=other, sent=20)
    assert institutions.counts("/reject/500")["requests"] == requests


def test_refused_credentials_open_it_at_once_and_cost_nothing(app, institutions, make_daemon):
    daemon = make_daemon(SETTINGS).start()
    integration = app.integration(institutions.url("/reject/401"), max_in_flight=3)
    app.subscriptions(integration, 100)
    wait_for(lambda: circuit(app, integration)[1] >= 5 and circuit(app, integration)[0] == "open", 60, "two probes")
    assert circuit(app, integration)[2] == "authentication"
    assert institutions.counts("/reject/401")["requests"] <= 3 + probes(circuit(app, integration)[1])
    wait_for(lambda: not app.states()["processing"], 30, "the answers under way")
    assert app.value("select max(attempts) from {s}.subscriptions where status <> 'processing'") == 0
    assert "its credentials are refused or missing (HTTP 401)" in daemon.log


def test_a_row_of_forbidden_ones_opens_it_as_authentication(app, institutions, make_daemon):
    """It may be each subscription that a firewall dislikes: each costs an attempt."""
    daemon = make_daemon(FOR_LONG).start()
    integration = app.integration(institutions.url("/reject/403"), max_in_flight=2)
    app.subscriptions(integration, 50)
    wait_state(app, integration, "open")
    assert circuit(app, integration)[2] == "authentication"
    wait_for(lambda: not app.states()["processing"], 30, "the answers under way")
    requests = institutions.counts("/reject/403")["requests"]
    assert requests >= BREAKER["failure_threshold"]
    assert app.value("select sum(attempts) from {s}.subscriptions") == requests
    daemon.wait_log(r"its credentials are refused or missing \(HTTP 403\)")


def test_another_reason_is_told(app, institutions, make_daemon):
    """An outage that ends with refused credentials: the journal and the alerts say so."""
    daemon = make_daemon({**FOR_LONG, "retry": {"base_delay": "100ms", "max_delay": "200ms"}}).start()
    integration = app.integration(institutions.url("/reject/500"))
    app.subscriptions(integration, 10)
    daemon.wait_log(r"the circuit is open, because its requests fail \(HTTP 500\)")
    alerts = "select kind, state from {s}.alerts order by id"
    wait_for(lambda: app.query(alerts) == [("circuit_open", "firing")], 60, "the alert")
    institutions.become("/reject/500", "/reject/401")
    app.query("update {s}.integration_runtime set circuit_until = now()")
    daemon.wait_log(r"the circuit is still open, now because its credentials are refused or missing \(HTTP 401\)")
    wait_for(lambda: app.query(alerts) == [("circuit_open", "resolved"), ("authentication", "firing")], 60, "the alerts")
    daemon.wait_log(r"alert \d+: authentication.*: the institution refuses the credentials")


@pytest.mark.parametrize("column, path", [("auth_token", "/reject/401"), ("endpoint_url", "/reject/500"),
                                          ("endpoint_url", "/close"), ("delivery_settings", "/reject/401")])
def test_a_mended_one_is_probed_at_once(app, institutions, make_daemon, column, path):
    make_daemon({**FOR_LONG, "delivery": {"poll_interval": "5m", "timeout": "60s", "lease": "120s"},
                 "retry": {"base_delay": "1h", "max_delay": "2h"}}).start()
    integration = app.integration(institutions.url(path), max_in_flight=6)
    app.subscriptions(integration, 50)
    wait_state(app, integration, "open")
    value = "another" if column == "auth_token" else '{"on_ambiguous": "retry"}'
    if column == "endpoint_url":
        value = institutions.url("/good")
    else:
        institutions.become(path, "/good")
    app.query(f"update {{s}}.integrations set {column} = %s where id = %s", (value, integration))
    app.wait_states(sent=50)
    assert circuit(app, integration)[0] == "closed"


def test_one_that_is_locked_when_it_is_mended_is_probed(app, institutions, make_daemon):
    """Who counts, or notes another answer, has its row when the ring comes."""
    make_daemon({**FOR_LONG, "delivery": {"poll_interval": "5m", "timeout": "60s", "lease": "120s"},
                 "retry": {"base_delay": "1h", "max_delay": "2h"}}).start()
    integration = app.integration(institutions.url("/reject/500"), max_in_flight=6)
    app.subscriptions(integration, 50)
    wait_state(app, integration, "open")
    wait_for(lambda: not app.states()["processing"], 60, "the last answers")
    mender, other = (app.database.connect(autocommit=False) for _ in range(2))
    behind = other.get_backend_pid()
    with mender.cursor() as mends, other.cursor() as locks:
        mends.execute("update anubis.integrations set endpoint_url = %s where id = %s", (institutions.url("/good"), integration))
        thread = threading.Thread(target=locks.execute, args=(
            "select from anubis.integration_runtime where integration_id = %s for update", (integration,)))
        thread.start()
        wait_for(lambda: app.value("select wait_event_type = 'Lock' from pg_stat_activity where pid = %s", (behind,)), 60,
                 "the other one to wait")
        mender.commit()
        thread.join()
        locks.execute("select pg_sleep(1)")
        other.rollback()
    app.wait_states(sent=50)
    for connection in (mender, other):
        connection.close()


def test_one_that_was_mended_before_its_last_answers_came_is_probed(app, make_daemon):
    """Nobody rang, because all slots were taken, and what comes then says nothing about the circuit."""
    let_go, arrived, mended = threading.Event(), [], threading.Event()

    def answer(request):
        if mended.is_set():
            return 200, {}, b""
        arrived.append(request.path)
        if request.path == "/silent" or arrived.count("/bad") > 2:
            let_go.wait(60)
        return 500, {}, b""

    with RecordingServer(answer) as server:
        make_daemon({**FOR_LONG, "delivery": {"poll_interval": "5m", "timeout": "60s", "lease": "120s", "max_in_flight": 3,
                                              "max_in_flight_per_integration": 3},
                     "circuit_breaker": {**FOR_LONG["circuit_breaker"], "failure_threshold": 2},
                     "retry": {"base_delay": "1h", "max_delay": "2h"}}).start()
        integration = app.integration(server.url + "/bad")

        def bell_is(query):
            return app.value("select count(*) from pg_stat_activity where application_name = 'anubisd doorbell' "
                             f"and datname = current_database() and query like '%{query}(%' and state = 'idle'")
        wait_for(lambda: bell_is("pg_advisory_lock"), 60, "rings to be wanted")
        app.subscriptions(integration, 10)
        wait_state(app, integration, "open")
        app.subscriptions(app.integration(server.url + "/silent"), 2)
        wait_for(lambda: arrived.count("/silent") == 2, 60, "all slots to be taken")
        held = ("select count(*) from pg_locks where locktype = 'advisory' and granted and mode = 'ExclusiveLock' "
                "and database = (select oid from pg_database where datname = current_database()) "
                "and (classid::bigint << 32) | objid::bigint = {s}.lock_key('bell')")
        wait_for(lambda: app.value(held) == 0, 60, "no ring to be wanted")
        app.query("update {s}.integrations set auth_token = 'mended' where id = %s", (integration,))
        mended.set()
        let_go.set()
        wait_for(lambda: app.states(integration)["sent"] == 9, 60, "all but the last answer's to be sent")


def test_the_probe_of_a_daemon_that_died_is_taken_by_another(app, institutions, make_daemon):
    settings = {**SETTINGS, "delivery": {"timeout": "2s", "connect_timeout": "1s", "lease": "4s"}}
    first = make_daemon(settings).start()
    integration = app.integration(institutions.url("/reject/500"), max_in_flight=5)
    app.subscriptions(integration, 50)
    wait_state(app, integration, "open")
    institutions.become("/reject/500", "/silent")
    wait_state(app, integration, "half_open")
    generation = circuit(app, integration)[1]
    first.kill9()
    assert circuit(app, integration)[0] == "half_open"
    institutions.become("/reject/500", "/good")
    make_daemon(settings, name="second").start()
    app.wait_states(sent=50)
    assert circuit(app, integration)[1] >= generation + 2


@pytest.mark.parametrize("path", ["/reject/429?retry_after=1", "/reject/409", "/reject/410"])
def test_a_probe_that_says_nothing_gives_its_turn_back(app, institutions, make_daemon, path):
    make_daemon(SETTINGS).start()
    integration = app.integration(institutions.url("/reject/500"), max_in_flight=5)
    app.subscriptions(integration, 20)
    wait_state(app, integration, "open")
    institutions.become("/reject/500", path.partition("?")[0])
    wait_for(lambda: app.value("select count(*) from {s}.subscriptions where last_error like %s",
                               (f"HTTP {path[8:11]}%",)), 60, "the probe's answer")
    institutions.become("/reject/500", "/good")
    app.query("update {s}.integrations set paused_until = null")
    app.wait_states(sent=20)


@pytest.mark.parametrize("path, opens", [("/flaky/90", True), ("/reject/422", False), ("/reject/404", False),
                                         ("/reject/429", False)])
def test_what_opens_it_without_failures_in_a_row(app, institutions, make_daemon, path, opens):
    """Nine of ten fail; and answers that prove the institution alive."""
    breaker = {**BREAKER, "failure_threshold": 50}
    daemon = make_daemon({**SETTINGS, "circuit_breaker": breaker}).start()
    integration = app.integration(institutions.url(path))
    app.subscriptions(integration, 200)
    if opens:
        daemon.wait_log("the circuit is open")
        institutions.become(path, "/good")
        app.wait_states(sent=200)
    else:
        wait_for(lambda: institutions.counts(path)["requests"] >= 60, 60, "the requests")
        assert circuit(app, integration)[0] == "closed"
        assert "circuit" not in daemon.log


# --- our own network ---

def test_institutions_that_are_lost_at_once_are_not_to_blame(app, institutions, make_daemon):
    """Their server goes away while they work: it stands for a cable that is cut. No circuit opens, no attempt is spent."""
    daemon = make_daemon({**FOR_LONG, "delivery": {"connect_timeout": "1s"}}).start()
    many = [app.integration(institutions.url(f"/good/{i}")) for i in range(6)]
    for integration in many:
        app.subscriptions(integration, 3)
    app.wait_states(sent=18)
    institutions.kill9()
    for integration in many:
        app.subscriptions(integration, 40)
    daemon.wait_log("this machine's network is to blame")
    wait_for(lambda: app.value("select count(distinct integration_id) from {s}.subscriptions "
                               "where last_error like 'not sent: most institutions%%'") == 6, 30, "all of them to be lost")
    assert [circuit(app, i)[0] for i in many] == ["closed"] * 6
    institutions.start()
    app.wait_states(sent=18 + 240)
    assert app.value("select max(attempts) from {s}.subscriptions") == 1
    assert "the circuit" not in daemon.log and daemon.log.count("network is to blame") == 1


@pytest.mark.parametrize("lost, there", [(3, 0), (4, 6)])
def test_a_few_that_are_lost_are_to_blame_themselves(app, institutions, make_daemon, lost, there):
    daemon = make_daemon({**FOR_LONG, "delivery": {"connect_timeout": "1s"}}).start()
    for i in range(there):
        app.subscriptions(app.integration(institutions.url(f"/good/{i}")), 200)
    gone = [app.integration(f"http://127.0.0.1:{port}/", max_in_flight=10) for port in range(1, lost + 1)]
    for integration in gone:
        app.subscriptions(integration, 10)
    for integration in gone:
        wait_state(app, integration, "open")
    assert "network is to blame" not in daemon.log


def test_those_that_stay_lost_while_most_answer_are_to_blame_after_all(app, institutions, make_daemon):
    """Four of one platform, when few others were asked at the time."""
    gone = [app.integration(f"http://127.0.0.1:{port}/", max_in_flight=10) for port in range(1, 5)]
    for integration in gone:
        app.subscriptions(integration, 10)
    daemon = make_daemon({**FOR_LONG, "delivery": {"connect_timeout": "1s"}}).start()
    daemon.wait_log("network is to blame")
    good = [app.integration(institutions.url(f"/good/{i}")) for i in range(6)]

    def opens():
        for integration in good:
            app.subscription(integration)
        return all(circuit(app, integration)[0] == "open" for integration in gone)
    wait_for(opens, 180, "the circuits to be open", interval=2)


# --- what is in the way of a probe ---

def test_a_row_that_a_trigger_refuses_keeps_no_other_circuit_open(app, institutions, make_daemon):
    daemon = make_daemon(SETTINGS).start()
    bad, good = (app.integration(institutions.url(f"/reject/500/{name}")) for name in ("bad", "good"))
    for integration in (bad, good):
        app.subscriptions(integration, 30)
    for integration in (bad, good):
        wait_state(app, integration, "open")
    wait_for(lambda: not app.value("select count(*) from {s}.subscriptions where status = 'processing' and integration_id = %s",
                                   (bad,)), 30, "the answers under way")
    app.query(f"""create function {{s}}.refuse() returns trigger language plpgsql as $$
        begin raise exception 'not this one'; end $$;
        create trigger refuse before update on {{s}}.subscriptions for each row
        when (new.status = 'processing' and new.integration_id = {bad}) execute function {{s}}.refuse()""")
    try:
        for name in ("bad", "good"):
            institutions.become(f"/reject/500/{name}", "/good")
        app.wait_states(integration_id=good, sent=30)
        daemon.wait_log("could not claim subscription")
    finally:
        app.query("drop trigger refuse on {s}.subscriptions")
    app.wait_states(integration_id=bad, sent=30)


def test_a_circuit_that_is_locked_keeps_no_other_open(app, institutions, make_daemon):
    """Somebody has changed a token, and went for a coffee before the commit."""
    daemon = make_daemon(SETTINGS).start()
    locked, free = (app.integration(institutions.url(f"/reject/500/{name}"), max_in_flight=5) for name in ("locked", "free"))
    for integration in (locked, free):
        app.subscriptions(integration, 30)
    for integration in (locked, free):
        wait_state(app, integration, "open")
    institutions.become("/reject/500/locked", "/slow/1500")
    wait_state(app, locked, "half_open")
    connection = app.database.connect()
    connection.autocommit = False
    connection.cursor().execute("update anubis.integrations set auth_token = 'another' where id = %s", (locked,))
    daemon.wait_log("could not note what came of requests")
    institutions.become("/reject/500/free", "/good")
    app.wait_states(integration_id=free, sent=30)
    connection.commit()
    connection.close()
    app.wait_states(integration_id=locked, sent=30)
