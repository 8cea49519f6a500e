"""Fixtures for every test: throw-away servers, fresh databases, and a check that nothing is left running."""
import itertools
import os
import signal

import pytest

from harness import processes
from harness.anubis import Ctl, Daemon, program
from harness.application import Application
from harness.institutions import Institutions
from harness.kafka import EmbeddedBroker, RealKafka, java_missing
from harness.postgres import FETCHED, Postgres, Unavailable, find_binaries

MARKERS = [
    "real_kafka: runs on a real Apache Kafka (Java)",
    "slow: takes longer than half a minute",
    "timeout(seconds): gives up after so long (default 300)",
]
TIMEOUT = 300

# In CI and with FULL=1 the heavy parts must run: what is missing is a failure there, not a skip.
MUST_RUN = os.environ.get("CI") == "true" or os.environ.get("FULL") == "1"

_numbers = itertools.count(1)


def _interrupt(_number, _frame):
    """SIGTERM ends the run as Ctrl-C does: fixtures are torn down, nothing is left running."""
    raise KeyboardInterrupt


def pytest_configure(config):
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    signal.signal(signal.SIGTERM, _interrupt)


def unavailable(reason):
    if MUST_RUN:
        pytest.fail(f"{reason}; with CI=true or FULL=1 it has to run", pytrace=False)
    pytest.skip(reason)


# --- a limit for every test, and the servers' last words with every failure ---


def _limited(item, phase):
    marker = item.get_closest_marker("timeout")
    seconds = (marker.args[0] if marker else TIMEOUT) * processes.PATIENCE

    def over(_number, _frame):
        raise processes.Deadline(f"{item.nodeid}: {phase} took longer than {seconds:g} s")
    signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_setup(item):
    _limited(item, "its setup")
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    _limited(item, "it")
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    report = outcome.get_result()
    if report.failed and call.when != "teardown":
        for child in processes.started():
            tail = child.tail(60)
            if tail:
                report.sections.append((f"{child.name} (exit code {child.returncode})", tail))


@pytest.fixture(scope="session", autouse=True)
def nothing_left_running():
    yield
    left = processes.leftovers()
    processes.close_all()
    assert not left, f"still running after the last test: {left}"


# --- Postgres ---


@pytest.fixture(scope="session")
def binaries():
    """Fails clearly when the programs have not been built."""
    for name in ("anubisd", "anubisctl"):
        assert os.access(program(name), os.X_OK), f"{program(name)} is not built"


def _server(**arguments):
    try:
        return Postgres(**arguments)
    except Unavailable as e:
        return unavailable(str(e))


@pytest.fixture(scope="session")
def postgres_server(nothing_left_running):  # which looks after this one has ended
    """One server for all tests that do not hurt it."""
    with _server() as server:
        yield server


@pytest.fixture
def own_postgres():
    """A server of the test's own, to kill and stop: own_postgres(version="13", settings={…})."""
    servers = []

    def make(**arguments):
        servers.append(_server(**arguments).start())
        return servers[-1]
    yield make
    for server in servers:
        server.close()


def migrate(database):
    ctl = Ctl(database=database)
    ctl.migrate()


@pytest.fixture(scope="session")
def template(postgres_server, binaries):
    """A migrated database that others are copied from."""
    database = postgres_server.create_database("anubis_template")
    migrate(database)
    # Nobody has used it yet: or each copy would wait until it is told what it is.
    database.query("update anubis.installation set server = null, database = null, tables = null")
    database.query("select setval('anubis.ledger_place_seq', 0, false)")
    return database.name


@pytest.fixture
def empty_database(postgres_server):
    database = postgres_server.create_database(f"empty_{next(_numbers)}")
    yield database
    database.drop()


@pytest.fixture
def database(postgres_server, template):
    """A fresh, migrated database."""
    database = postgres_server.create_database(f"anubis_{next(_numbers)}", template)
    yield database
    database.drop()


@pytest.fixture
def app(database):
    return Application(database)


@pytest.fixture(params=sorted(FETCHED), ids=lambda v: f"postgres{v}")
def postgres_version(request):
    """The oldest and the newest version that anubisd supports."""
    try:
        find_binaries(request.param)
    except Unavailable as e:
        unavailable(str(e))
    return request.param


# --- Kafka ---


@pytest.fixture
def broker():
    with EmbeddedBroker() as broker:
        yield broker


@pytest.fixture(scope="session")
def _real_kafka(nothing_left_running):
    reason = java_missing()
    if reason:
        unavailable(reason)
    try:
        kafka = RealKafka()
    except Unavailable as e:
        unavailable(str(e))
    with kafka:
        yield kafka


@pytest.fixture
def real_kafka(_real_kafka):
    """A real Kafka that all tests share; whoever kills it finds it started again. Use topic_prefix with it."""
    if not _real_kafka.child.is_running():
        _real_kafka.start()
    yield _real_kafka
    _real_kafka.cont()


@pytest.fixture
def topic_prefix():
    """Topics of the test's own on a shared broker."""
    return f"test{next(_numbers)}."


# --- institutions, the daemon, its tool ---


@pytest.fixture
def institutions():
    with Institutions() as institutions:
        yield institutions


@pytest.fixture
def make_daemon(database, broker):
    """make_daemon(settings, …): an anubisd on the test's database and broker, not yet started; ended after the test."""
    daemons = []

    def make(settings=None, **arguments):
        arguments.setdefault("database", database)
        arguments.setdefault("kafka", broker)
        arguments.setdefault("name", f"anubisd{len(daemons) + 1}")
        daemons.append(Daemon(settings, **arguments))
        return daemons[-1]
    yield make
    for daemon in daemons:
        daemon.close()
        report = sanitizer_report(daemon.child.output)
        assert not report, report


def sanitizer_report(output):
    """What a sanitizer found, if the build has one."""
    for sign in ("ERROR: AddressSanitizer", "ERROR: LeakSanitizer", "WARNING: ThreadSanitizer", ": runtime error:"):
        if sign in output:
            return output[max(0, output.index(sign) - 200):][:8000]
    return ""


@pytest.fixture
def daemon(make_daemon):
    """A running one."""
    return make_daemon().start()


@pytest.fixture
def ctl(database, broker):
    """anubisctl on the test's database."""
    return Ctl(database=database, kafka=broker)
