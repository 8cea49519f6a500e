"""The process: options, exit codes, starting in any order, reloading; and the whole way while everything dies."""
import ctypes
import os
import random
import re
import signal
import subprocess

import pytest
from conftest import migrate
from harness.anubis import Ctl, anubisd, libconfig, program, run
from harness.application import Application
from harness.processes import wait_for

CRASHING = {"delivery": {"timeout": "2s", "connect_timeout": "1s", "lease": "3s", "poll_interval": "100ms", "batch_size": 100,
                         "max_in_flight": 200},
            "retry": {"base_delay": "50ms", "max_delay": "200ms", "max_attempts": 50},
            "consumers": {"session_timeout": "6s", "heartbeat_interval": "1s"}}


# --- options ---

def test_help_and_version():
    assert "Usage: anubisd" in anubisd("--help").expect(0).stdout
    assert re.fullmatch(r"anubisd \d+\.\d+\.\d+\n", anubisd("--version").expect(0).stdout)


@pytest.mark.parametrize("arguments", [["--nonsense"], ["-c"], ["file"], ["--check-config=x"]])
def test_usage_errors(arguments):
    result = anubisd(*arguments).expect(64)
    assert "anubisd --help" in result.stderr


def test_configuration_is_checked_whole(tmp_path):
    path = tmp_path / "a.conf"
    path.write_text('delivery: {\n    timeuot = "3s";\n    batch_size = "many";\n};\nretry: { base_delay = "10"; };\n'
                    'kafka: { properties: { linger_msx = 5; }; };\n')
    for options in (["--check-config"], []):
        problems = anubisd(*options, "-c", path).expect(78).stderr
        assert f"{path}:2: " in problems and '"timeout"' in problems
        assert f"{path}:3: " in problems and f"{path}:5: " in problems
        assert f"{path}:6: " in problems
    path.write_text('kafka: {\n    properties: { linger_msx = 5;\n    acks = 1; };\n'
                    '    producer_properties: { retries = 1;\n    batch_sizes = 2; };\n};\n')
    problems = anubisd("--check-config", "-c", path).expect(78).stderr.splitlines()
    assert sorted(p.split(":")[1] for p in problems) == ["2", "3", "4", "5"]
    path.write_text("")
    assert anubisd("--check-config", "-c", path).expect(0).stdout == f"{path}: OK\n"


@pytest.mark.parametrize("value, is_right", [
    ("5000", True), ('"5000"', True), ("5000L", True), ("5000.0", False), ("4294972296L", False), ('"4294972296"', False),
    ("5000.7", False), ('"5000ms"', False), ('"5000 "', False), ('"5s"', False)])
def test_a_kafka_property_is_taken_as_it_is_written(tmp_path, value, is_right):
    """Not as another number, of which the client library has made something that it has room for."""
    path = tmp_path / "a.conf"
    path.write_text(f"kafka: {{ properties: {{\n socket_timeout_ms = {value};\n"
                    ' linger.ms = 0.123456789; compression_codec = "zstd"; client_rack = "007";\n'
                    ' socket_keepalive_enable = true; }; };\n')
    result = anubisd("--check-config", "-c", path).expect(0 if is_right else 78)
    assert is_right or f'{path}:2: cannot set the Kafka property "socket.timeout.ms"' in result.stderr


def test_larger_messages_than_an_answer_of_kafka_has(app, institutions, make_daemon):
    """Our own limit of an answer gives way; the client library would refuse it."""
    daemon = make_daemon({"kafka": {"properties": {"message_max_bytes": 4000000}}}).start()
    app.subscriptions(app.integration(institutions.url("/good")), 5)
    wait_for(lambda: app.value("select sum(sent) from {s}.integration_runtime") == 5, 60, "them to be counted")
    assert daemon.term() == 0


@pytest.mark.parametrize("path", ["/nonexistent/anubisd.conf", "/etc"])
def test_configuration_that_is_no_file(path):
    assert path in anubisd("--check-config", "-c", path).expect(78).stderr


def test_dump_is_a_configuration_without_secrets(tmp_path):
    path, again = tmp_path / "a.conf", tmp_path / "b.conf"
    path.write_text(libconfig({"database": {"conninfo": "postgres://anubis:s3cret@db/x"}, "delivery": {"timeout": "11s"},
                               "kafka": {"sasl_password": "s3cret", "properties": {"ssl_key_password": "s3cret"}}}))
    dump = anubisd("--dump-config", "-c", path).expect(0).stdout
    assert "s3cret" not in dump and "***" in dump and '"11s"' in dump
    again.write_text(dump)
    assert not anubisd("--check-config", "-c", again).expect(0).stderr
    path.write_text("")
    dump = anubisd("--dump-config", "-c", path).expect(0).stdout
    assert "    properties: { };  # default\n" in dump and dump.count("the host name") == 1
    again.write_text(dump)
    assert not anubisd("--check-config", "-c", again).expect(0).stderr


def test_check_and_dump_see_what_the_unit_gives_the_daemon(tmp_path):
    conf, environment = tmp_path / "a.conf", tmp_path / "environment"
    conf.write_text("")
    environment.write_text("KAFKA_BROKERS=kafka7:9092\nKAFKA_SESSION_TIMEOUT=soon\n")
    named = ["-c", conf, "--environment", environment]
    assert "environment KAFKA_SESSION_TIMEOUT: " in anubisd("--check-config", *named).expect(78).stderr
    environment.write_text("KAFKA_BROKERS=kafka7:9092\n")
    assert '"kafka7:9092";  # environment KAFKA_BROKERS' in anubisd("--dump-config", *named).expect(0).stdout
    assert '"kafka8:9092"' in anubisd("--dump-config", *named, env={"KAFKA_BROKERS": "kafka8:9092"}).expect(0).stdout
    for mode in (["--check-config"], []):
        for path in ("/", "/nowhere"):
            assert f'could not read "{path}"' in anubisd(*mode, "-c", conf, "--environment", path).expect(78).stderr


def test_keys_without_effect_are_said(tmp_path):
    conf = tmp_path / "a.conf"
    conf.write_text('status: {\n  token = "s3cret"; };')
    result = anubisd("--check-config", "-c", conf).expect(0)
    assert result.stderr == f"{conf}:2: status.token has no effect in this version\n"
    assert "s3cret" not in anubisd("--dump-config", "-c", conf).expect(0).stdout


def test_urls_of_alerts_are_shown_without_what_is_secret(tmp_path):
    conf = tmp_path / "a.conf"
    conf.write_text('alerts: { webhook_url = "https://hooks.example/T0/s3cret"; webhook_secret = '
                    '"whsec_bm9ib2R5IGd1ZXNzZXMgd2hhdCBzdGFuZHMgaGVyZQ=="; '
                    'alertmanager_urls = ( "http://one:9093/s3cret", "http://two:9093" ); };')
    anubisd("--check-config", "-c", conf).expect(0)
    dump = anubisd("--dump-config", "-c", conf).expect(0).stdout
    assert "s3cret" not in dump and "bm9ib2R5" not in dump
    assert 'alertmanager_urls = ( "http://one:9093/***", "http://two:9093" );' in dump
    conf.write_text('alerts: { webhook_secret = "hush"; alertmanager_urls = ( "http://one:9093", "two" ); };')
    result = anubisd("--check-config", "-c", conf).expect(78)
    assert "alerts.webhook_secret must" in result.stderr and "hush" not in result.stderr
    assert 'alerts.alertmanager_urls must be a list of URLs such as ( "http://host:9093" )' in result.stderr


def test_files_with_secrets_are_there_to_be_read(tmp_path):
    conf, secret = tmp_path / "a.conf", tmp_path / "secret"
    conf.write_text(f'kafka: {{\n  sasl_password = "file:{secret}"; }};\n# no line feed behind this')
    assert f"{conf}:2: kafka.sasl_password: file:{secret}: could not open the file" in \
        anubisd("--check-config", "-c", conf).expect(78).stderr
    secret.write_text("hush")
    anubisd("--check-config", "-c", conf).expect(0)
    conf.write_text(f'kafka: {{\n  properties: {{ ssl_ca_location = "{secret}x"; }};\n'
                    f'  producer_properties: {{ ssl_key_location = "{secret}"; }}; }};')
    assert anubisd("--check-config", "-c", conf).expect(78).stderr == \
        f"{conf}:2: property ssl.ca.location must name a file that can be read: No such file or directory\n"
    secret.with_name("secretx").write_text("")
    anubisd("--check-config", "-c", conf).expect(0)


def test_variables_that_are_not_there_are_named(tmp_path):
    """The unit may have them, so it is no error."""
    conf = tmp_path / "a.conf"
    conf.write_text('kafka: {\n  brokers = "env:OUR_KAFKA";\n  properties: { client.rack = "env:OUR_RACK"; }; };')
    said = "the variable is not set here; without it in its own environment the daemon does not start"
    result = anubisd("--check-config", "-c", conf, env={"OUR_RACK": "a"}).expect(0)
    assert result.stderr == f"{conf}:2: env:OUR_KAFKA: {said}\n" and result.stdout == f"{conf}: OK\n"
    assert f"{conf}:3: env:OUR_RACK: {said}\n" in anubisd("--check-config", "-c", conf).expect(0).stderr
    assert anubisd("--check-config", "-c", conf, env={"OUR_KAFKA": "k:9092", "OUR_RACK": "a"}).expect(0).stderr == ""


def test_key_that_cannot_sign_checkpoints(tmp_path):
    """--check-config reads the file, and says what would be right."""
    conf, key = tmp_path / "a.conf", tmp_path / "key"
    conf.write_text(f'audit: {{ signing_key = "file:{key}"; }};')

    def make(*words):
        return subprocess.run(["openssl", *words], capture_output=True, check=True, text=True).stdout
    good = make("genpkey", "-algorithm", "ed25519")
    key.write_text(good)
    anubisd("--check-config", "-c", conf).expect(0)
    public = subprocess.run(["openssl", "pkey", "-pubout"], input=good, capture_output=True, check=True, text=True).stdout
    cases = [(public, "must be the private key, not the public one"), ("s3cret", "must be an Ed25519 private key in PEM"),
             (make("genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:s3cret"), "must have no passphrase"),
             (make("genpkey", "-algorithm", "rsa", "-pkeyopt", "rsa_keygen_bits:512"), "must be an Ed25519 key"),
             ("", "is empty")]
    for text, words in cases:
        key.write_text(text)
        found = anubisd("--check-config", "-c", conf).expect(78).stderr
        assert "a.conf:1: audit.signing_key" in found and words in found and "s3cret" not in found, found
        assert "s3cret" not in anubisd("--dump-config", "-c", conf).expect(0).stdout
    key.unlink()
    assert "could not open the file" in anubisd("--check-config", "-c", conf).expect(78).stderr


@pytest.mark.parametrize("content, words", [(None, "is a directory"), (b"", "the value is empty"), (b"\n", "the value is empty"),
                                            (b"a\0b", "contains a NUL byte"), (b"x" * 100000, "is longer than 64 KiB")],
                         ids=["directory", "empty", "nul", "line feed", "long"])
def test_a_check_finds_what_a_start_would_find_in_a_file(tmp_path, content, words):
    secret, conf = tmp_path / "secret", tmp_path / "a.conf"
    secret.mkdir() if content is None else secret.write_bytes(content)
    conf.write_text(f'kafka = {{ sasl_password = "file:{secret}"; }};\n')
    found = anubisd("--check-config", "-c", conf).expect(78).stderr
    assert f"a.conf:1: kafka.sasl_password: file:{secret}: " in found and words in found


# --- any order ---

def test_starts_before_everything_else(own_postgres, broker, institutions, make_daemon):
    """Postgres away, then without a schema, then all there: it says which, and works at last."""
    server = own_postgres()
    database = server.create_database("late")
    app = Application(database)
    server.stop()
    daemon = make_daemon(database=database).start()
    daemon.wait_log("could not work with the database")
    wait_for(lambda: "waiting for the database" in (daemon.status() or ""), 30, "the status to say so")
    server.start()
    daemon.wait_log("error: .*anubisctl migrate")
    daemon.wait_log("anubis-integration-group: waits for the database: .*anubisctl migrate")
    migrate(database)
    app.subscription(app.integration(institutions.url("/good")))
    app.wait_states(sent=1)
    said = [line for line in daemon.log.splitlines() if " debug: " not in line]
    assert "started as" in said[0], said
    assert [sum(words in line for line in said) for words in (
        "could not work with the database", "migrate", "the database is back", "database")] == [1, 1, 1, 3], said
    wait_for(lambda: "waiting for" not in (daemon.status() or "waiting for"), 30, "a status without complaint")
    assert daemon.term() == 0


def test_schema_from_the_future_is_waited_for(database, app, institutions, make_daemon):
    daemon = make_daemon().start()
    integration = app.integration(institutions.url("/good"))
    app.subscription(integration)
    app.wait_states(sent=1)
    app.query("insert into {s}.anubis_migrations (version, name, checksum, applied_by, oldest_daemon) "
              "values (9000, '9000_x.sql', 'x', 'another host', 9000)")
    daemon.wait_log("install the later anubisd")
    app.subscription(integration)
    app.query("delete from {s}.anubis_migrations where version = 9000")
    app.wait_states(sent=2)


# --- reload ---

def parent_of(pid):
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as f:
            return int(f.read().rpartition(")")[2].split()[1])
    except FileNotFoundError:
        return None


def test_reload_takes_over_what_it_can(app, institutions, make_daemon):
    daemon = make_daemon({"retry": {"base_delay": "1h", "max_delay": "1h"}}).start()
    integration = app.integration(institutions.url("/dead"))
    app.subscription(integration)
    app.wait_states(retry=1)
    daemon.reload(retry={"base_delay": "10ms", "max_delay": "10ms", "max_attempts": 3}, kafka={"client_id": "other"})
    daemon.wait_log("configuration read again")
    assert "changed, needs a restart: kafka.client_id" in daemon.log
    assert "changed: retry.base_delay" in daemon.log
    app.subscription(integration)
    app.wait_states(failed=1, retry=1)


def test_reload_of_a_wrong_file_changes_nothing(app, institutions, make_daemon):
    daemon = make_daemon().start()
    daemon.write_text("delivery: { timeout = 5; };\n")
    daemon.reload()
    daemon.wait_log("the configuration stays as it was")
    assert f"{daemon.path}:1: " in daemon.log
    app.subscription(app.integration(institutions.url("/good")))
    app.wait_states(sent=1)


@pytest.mark.parametrize("pid", ["0", "-1", "", "1x", "99999999999", "2147483648", "18446744073709551615"])
def test_a_reload_of_what_is_no_process_id(pid):
    assert "--reload wants the process id of a daemon" in anubisd("--reload", pid).expect(64).stderr


def test_a_reload_is_asked_of_daemons_alone(make_daemon, tmp_path):
    """SIGHUP ends whoever does not expect it."""
    daemon = make_daemon().start()
    anubisd("--reload", daemon.pid).expect(0)
    daemon.write_text("delivery: { timeout = 5; };\n")
    assert "goes on with the configuration that it has" in anubisd("--reload", daemon.pid).expect(1).stderr
    for task in set(os.listdir(f"/proc/{daemon.pid}/task")) - {str(daemon.pid)}:
        assert f"{task} is a thread of process {daemon.pid}" in anubisd("--reload", task).expect(64).stderr
    daemon.stop()
    os.symlink("/bin/sleep", tmp_path / "anubisd")
    programs = (["sleep", "60"], 'is no anubisd, but "sleep"'), ([tmp_path / "anubisd", "60"], "is an anubisd, but no daemon")
    for argv, said in programs:
        with subprocess.Popen(argv) as other:
            wait_for(lambda argv=argv, other=other: open(f"/proc/{other.pid}/comm", encoding="ascii").read().strip()
                     == os.path.basename(argv[0]), 10, "it to run")
            assert f"process {other.pid} {said}" in anubisd("--reload", other.pid).expect(64).stderr
            assert other.poll() is None
            other.kill()
            os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)
            assert f"there is no process {other.pid}" in anubisd("--reload", other.pid).expect(64).stderr  # not collected yet
        assert f"there is no process {other.pid}" in anubisd("--reload", other.pid).expect(64).stderr
    assert "process 1 is no anubisd" in anubisd("--reload", "1").expect(64).stderr
    assert "there is no process 2147483647" in anubisd("--reload", "2147483647").expect(64).stderr
    daemon.cont()
    assert daemon.term() == 0


@pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")
def test_a_reload_of_another_users_daemon(make_daemon):
    daemon = make_daemon().start()
    nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--bounding-set=-all"]
    told = run([*nobody, "/bin/sh", "-c", f"exec 3<{program('anubisd')}; exec /proc/self/fd/3 --reload {daemon.pid}"])
    assert "Operation not permitted" in told.expect(77).stderr
    assert "configuration read again" not in daemon.log


@pytest.mark.skipif(os.geteuid() != 0, reason="needs namespaces")
def test_a_reload_into_and_out_of_a_container(make_daemon):
    """The sender of a signal has no process id there: an answer would go to all of the daemon's own process group."""
    daemon = make_daemon(wrapper=["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"])
    daemon.start()
    inner, = (int(p) for p in os.listdir("/proc") if p.isdigit() and parent_of(p) == daemon.pid)
    said = anubisd("--reload", inner).expect(64).stderr
    assert re.search(r'runs in a container, from which no answer comes here; run "anubisd --reload 1" in there', said), said
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.sigqueue(inner, int(signal.SIGHUP), ctypes.c_void_p(0x616e7562)) == 0
    daemon.wait_log("configuration read again")
    assert daemon.is_running()
    os.kill(inner, signal.SIGTERM)
    assert daemon.child.wait(60) == 0


def test_two_daemons_of_one_name_are_noticed(database, app, institutions, make_daemon):
    first = make_daemon({"instance": "twin"}).start()
    wait_for(lambda: database.value("select count(*) from pg_locks where locktype = 'advisory' and granted and pid in "
                                    "(select pid from pg_stat_activity where application_name = 'anubisd monitor' "
                                    "and datname = current_database())"),
             30, "the first to have its name")
    second = make_daemon({"instance": "twin"}).start()
    other = make_daemon({"instance": "other"}).start()
    second.wait_log("warning: another daemon on this database is \"twin\", too", 60)
    app.subscriptions(app.integration(institutions.url("/good")), 20)
    app.wait_states(sent=20)
    first.term()
    second.wait_log("no other daemon is \"twin\" any more", 30)
    assert second.log.count("another daemon on this database") == 1
    assert "another daemon on this database" not in first.log + other.log


def test_the_time_for_the_threads_comes_on_top_of_the_drain(make_daemon):
    daemon = make_daemon().start()
    assert daemon.term() == 0
    told = daemon.notifications()
    stopping = next(i for i, lines in enumerate(told) if "STOPPING=1" in lines)
    after = [line for lines in told[stopping + 1:] for line in lines]
    assert any(line.startswith("EXTEND_TIMEOUT_USEC=") for line in after), after


def test_closed_standard_descriptors_stay_nobodys(app, institutions, make_daemon):
    """Started as  anubisd <&- >&- 2>&-  : no socket of ours gets a number that others read or write."""
    daemon = make_daemon(wrapper=["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh"]).start()
    app.subscription(app.integration(institutions.url("/good")))
    app.wait_states(sent=1)
    assert [os.readlink(f"/proc/{daemon.pid}/fd/{fd}") for fd in range(3)] == ["/dev/null"] * 3
    assert daemon.term() == 0


def test_a_log_that_nobody_reads_holds_nothing_up(app, institutions, make_daemon, tmp_path):
    pipe, said = tmp_path / "pipe", bytearray()
    os.mkfifo(pipe)
    with open(os.open(pipe, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0) as reader:
        daemon = make_daemon(wrapper=["sh", "-c", f'exec "$@" 2>{pipe}', "sh"]).start()
        integration = app.integration(institutions.url("/reject/422"))
        app.subscriptions(integration, 7000)
        app.wait_states(failed=7000)

        def is_said():
            said.extend(reader.read(65536) or b"")
            return b" of this log were lost here: nobody read what is written to stderr\n" in said
        wait_for(is_said, 30, lambda: f"the loss to be said: {said[-500:]}")
        app.subscriptions(integration, 7000)
        app.wait_states(failed=14000)
        assert daemon.term() == 0


def traced(daemon, *options):
    """The daemon below strace(1), which injects what the options say."""
    daemon.child.argv[:0] = ["strace", "-f", "-qq", "-o", "/dev/null", *options]
    daemon.child.env["ASAN_OPTIONS"] = "detect_leaks=0"  # which cannot be done under ptrace(2)
    return daemon


def test_a_loop_that_fails_says_why_and_is_no_clean_end(make_daemon):
    daemon = traced(make_daemon(), "-e", "inject=epoll_wait,epoll_pwait2:error=EINVAL:when=40").start()
    assert daemon.child.wait(60) == 70, daemon.log
    assert "error: the event loop cannot go on: Invalid argument" in daemon.log


def test_a_hangup_while_it_starts_is_no_end(make_daemon):
    daemon = make_daemon()
    traced(daemon, "-P", daemon.path, "-e", "trace=openat", "-e", "inject=openat:signal=HUP:when=1").start()
    daemon.wait_log("configuration read again")


# --- the whole way ---

def wait_verified(ctl, deadline=90):
    """Until verify finds nothing wrong and nothing behind."""
    def look():
        result = ctl("verify")
        assert result.code in (0, 2), result
        return result.code == 0
    wait_for(look, deadline, lambda: f"verify: {ctl('verify')}", interval=0.5)


@pytest.mark.real_kafka
@pytest.mark.timeout(600)
def test_everything_dies_and_the_books_balance(own_postgres, real_kafka, topic_prefix, institutions, make_daemon):
    server = own_postgres(settings={"fsync": "on"})
    database = server.create_database("spine")
    migrate(database)
    app = Application(database)
    settings = {**CRASHING, "kafka": {"topic_prefix": topic_prefix},
                "consumers": {**CRASHING["consumers"], "group_prefix": topic_prefix + "group"}}
    daemon = make_daemon(settings, database=database, kafka=real_kafka)
    ids = []
    for path in ("/good", "/slow/20", "/flaky/20", "/reject/422"):
        ids += app.subscriptions(app.integration(institutions.url(path)), 600)
    chance = random.Random(11)
    for turn in range(8):
        before = len(institutions.keys())
        if not daemon.is_running():
            daemon.start()
        goal = min(before + chance.randint(50, 250), len(ids) - 1)
        wait_for(lambda goal=goal: len(institutions.keys()) >= goal, 90, f"{goal} to be received", interval=0.01)
        if turn % 4 == 2:
            real_kafka.kill9()
            real_kafka.start()
        elif turn % 4 == 3:
            server.kill9()
            server.start()
        else:
            daemon.kill9()
    if not daemon.is_running():
        daemon.start()
    app.wait_states(sent=1800, failed=600, deadline=180)
    wait_verified(Ctl(daemon.settings), 180)
    sums = "select sum(successful_sends), sum(failed_sends) from {s}.integrations"
    wait_for(lambda: app.query(sums) == [(1800, 600)], 30, lambda: f"the counters to follow, now {app.query(sums)}")
    assert app.value("select count(*) from {s}.dead_letters") == 0
    for kind, expected in (("created", 2400), ("sent", 1800), ("failed", 600)):
        messages = real_kafka.read_all(f"{topic_prefix}subscriptions.{kind}")
        assert len({m.headers["event_id"] for m in messages}) == expected, kind
        assert {m.key for m in messages} <= {str(i) for i in ids}
    assert daemon.term() == 0


def test_kafka_is_away_for_the_whole_delivery(app, institutions, broker, make_daemon, ctl):
    broker.down()
    daemon = make_daemon().start()
    app.subscriptions(app.integration(institutions.url("/good")), 300)
    app.wait_states(sent=300)
    wait_for(lambda: "waiting for Kafka" in (daemon.status() or ""), 60, "the status to say so")
    assert app.value("select sum(successful_sends) from {s}.integrations") == 0
    broker.up()
    wait_for(lambda: app.value("select sum(successful_sends) from {s}.integrations") == 300, 90, "the counters")
    wait_verified(ctl)
    assert len(broker.read_all("anubis.subscriptions.sent")) == 300


def test_status_tells_what_it_does(app, institutions, make_daemon):
    daemon = make_daemon().start()
    app.subscriptions(app.integration(institutions.url("/good")), 10)
    app.wait_states(sent=10)
    wait_for(lambda: "10 sent" in (daemon.status() or ""), 30, lambda: f"the count in {daemon.status()}")


def test_a_full_partition_is_indexed(app, institutions, make_daemon):
    app.query("select setval('{s}.ledger_id_seq', last_id) from {s}.ledger_partitions where first_id = 1")
    app.subscriptions(app.integration(institutions.url("/good")), 10)
    daemon = make_daemon().start()
    daemon.wait_log("indexed subscription_events_1, which is full")
    app.wait_states(sent=10)
    assert daemon.term() == 0


@pytest.mark.parametrize("path", ["/etc/hostname", "/dev/null"])
def test_a_file_without_certificates_is_refused(tmp_path, path):
    conf = tmp_path / "anubisd.conf"
    conf.write_text(f'kafka: {{ brokers = "localhost:1"; }};\ndelivery: {{\n  ca_file = "{path}";\n}};\n')
    problems = anubisd("--check-config", "-c", conf).expect(78).stderr
    assert f"{conf}:3: delivery.ca_file must be a file of certificates in PEM" in problems


def test_the_status_counts_what_could_be_sent(app, institutions, make_daemon):
    """A count that ends is not shown as if it were exact; what is disabled or paused does not wait for the daemon."""
    paused = app.integration("https://x.example/", paused_until="2100-01-01T00:00:00Z")
    disabled = app.integration("https://x.example/", enabled=False)
    later = app.integration("https://x.example/")
    rows = "insert into {s}.subscriptions (integration_id, scheduled_to) select %s, '2100-01-01' from generate_series(1, %s)"
    app.query(rows, (paused, 20000))
    app.query(rows, (disabled, 20000))
    app.query(rows, (later, 7))
    daemon = make_daemon().start()
    wait_for(lambda: ", 7 waiting" in (daemon.status() or ""), 30, lambda: f"the count in {daemon.status()}")
    app.query(rows, (later, 20000))
    wait_for(lambda: ", more than 10000 waiting" in (daemon.status() or ""), 30, lambda: f"the count in {daemon.status()}")


def test_the_status_tells_of_open_circuits_and_of_what_groups_have_not_handled(app, institutions, make_daemon):
    settings = {"circuit_breaker": {"failure_threshold": 1, "recovery_timeout": "1h", "max_recovery_timeout": "1h"}}
    daemon = make_daemon(settings).start()
    for _ in range(2):
        app.subscription(app.integration(institutions.url("/reject/500")))
    wait_for(lambda: ", 2 circuits open" in (daemon.status() or ""), 30, lambda: f"them in {daemon.status()}")
    app.query("update {s}.integrations set enabled = false where id = 1")
    app.query("update {s}.integration_runtime set circuit_state = 'closed' where integration_id = 1")
    wait_for(lambda: ", 1 circuit open" in daemon.status(), 30, lambda: f"it in {daemon.status()}")
    wait_for(lambda: "to be handled" not in daemon.status(), 30, lambda: f"nothing to be handled in {daemon.status()}")
    holder = app.database.connect(autocommit=False)
    holder.cursor().execute("lock table anubis.consumer_bitmaps in share mode")
    good = app.integration(institutions.url("/good"))
    app.subscriptions(good, 10)
    # A group that counts has 10 created and 10 sent.
    wait_for(lambda: re.search(r", [23]\d messages to be handled", daemon.status()), 60, lambda: f"the lag in {daemon.status()}")
    holder.rollback()
    holder.close()
    wait_for(lambda: "to be handled" not in daemon.status(), 60, lambda: f"no lag in {daemon.status()}")
    assert daemon.term() == 0
