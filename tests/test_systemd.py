"""anubisd as its users meet it: installed on a booted machine, started with systemctl, read with journalctl."""
import os
import re
import shutil
import subprocess
import time

import pytest

from conftest import unavailable
from harness.machine import ROOT, Machine, machine_missing
from harness.postgres import Unavailable
from harness.processes import scratch_folder, wait_for
from test_docs import message_ids

UNIT = os.path.join(ROOT, "systemd/anubisd.service")
MSG = message_ids()


# --- the unit by itself ---

def need(program):
    if not shutil.which(program):
        unavailable(f"{program} is not installed")


def test_the_sandbox_is_tight():
    need("systemd-analyze")
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--threshold=15", "--no-pager", UNIT],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert float(re.search(r"exposure level.*: ([\d.]+)", done.stdout).group(1)) <= 1.5


def test_the_unit_is_understood():
    need("systemd-analyze")
    folder = scratch_folder()
    with open(UNIT, encoding="utf-8") as f:
        text = f.read()
    path = os.path.join(folder, "anubisd.service")
    with open(path, "w", encoding="utf-8") as f:
        f.write(re.sub(r"(?m)^Documentation=.*$", "", text).replace("/usr/sbin/anubisd", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True, check=False)
    assert path not in done.stderr and "anubisd.service" not in done.stderr, done.stderr


# --- on a machine ---

@pytest.fixture(scope="module")
def machine(binaries):
    reason = machine_missing()
    if reason:
        unavailable(reason)
    try:
        machine = Machine()
    except Unavailable as e:
        unavailable(str(e))
    with machine:
        machine.boot()
        machine.install()
        yield machine


RAILS_TABLES = """
alter schema public owner to shop;
set role shop;
create table integrations (
    id bigserial primary key, name varchar not null, endpoint_url varchar, auth_token varchar,
    created_at timestamp not null default now(), updated_at timestamp not null default now());
create table subscriptions (
    id bigserial primary key, integration_id bigint references integrations (id),
    status varchar not null default 'pending', payload jsonb not null default '{}',
    created_at timestamp not null default now(), updated_at timestamp not null default now());
"""

SETTINGS = {
    "delivery": {"poll_interval": "200ms", "timeout": "10s", "lease": "20s", "allow_http": True,
                 "allow_private_networks": True},
    "retry": {"base_delay": "200ms"},
    # The embedded broker lets a static member come back only when its session is over.
    "consumers": {"session_timeout": "3s", "heartbeat_interval": "500ms"},
    "status": {"listen": ""},
}


@pytest.fixture(scope="module")
def postgres(machine):
    return machine.create_postgres()


@pytest.fixture(scope="module")
def kafka(machine):
    return machine.serve("broker")


@pytest.fixture(scope="module")
def institutions(machine):
    address = machine.serve("institutions")
    return lambda path: f"http://{address}{path}"


@pytest.fixture
def settings(kafka):
    return {**SETTINGS, "kafka": {"brokers": kafka}}


@pytest.fixture
def installed(machine, postgres, settings):
    """Configured, the database migrated, nothing running."""
    machine.no_drop_in()
    machine("systemctl", "stop", "anubisd", deadline=90).expect()
    machine("systemctl", "reset-failed", "anubisd")
    machine.configure(settings)
    machine("systemctl", "start", postgres).expect()
    if not machine("psql", "-X", "-A", "-t", "-c", "select 1 from pg_database where datname = 'anubis'",
                   user="postgres").expect().stdout.strip():
        create_database(machine)
    return machine


@pytest.fixture
def running(installed):
    installed("systemctl", "start", "anubisd").expect()
    return installed


def create_database(machine):
    """As README.md says."""
    machine("createuser", "anubisd", user="postgres").expect()
    machine("createdb", "-O", "anubisd", "anubis", user="postgres").expect()
    machine("anubisctl", "migrate", user="anubisd").expect()


def integration(machine, url):
    return int(machine.sql(f"insert into anubis.integrations (name, endpoint_url, auth_token) values ('x', '{url}', 't') "
                           "returning id")[0][0])


def subscription(machine, integration_id):
    return int(machine.sql(f"insert into anubis.subscriptions (integration_id, cpf, payload) values ({integration_id}, "
                           "'52998224725', '{\"curso\": \"Direito\"}') returning id")[0][0])


def status(machine, subscription_id):
    return machine.sql(f"select status from anubis.subscriptions where id = {subscription_id}")[0][0]


def wait_status(machine, subscription_id, wanted, deadline=30):
    wait_for(lambda: status(machine, subscription_id) == wanted, deadline,
             lambda: f"subscription {subscription_id} to be {wanted}, not {status(machine, subscription_id)}")


def test_it_comes_to_life_step_by_step(machine, kafka, settings):
    """The first test of the machine: no Postgres yet."""
    assert machine("stat", "-c", "%U:%G %a", "/etc/anubisd.conf").stdout.strip() == "root:anubisd 640"
    machine.configure(settings)
    machine("anubisd", "--check-config", user="anubisd").expect()
    since = time.time()
    machine("systemctl", "enable", "--now", "anubisd").expect()
    assert machine.show("ActiveState") == "active"
    assert machine.wait_message(MSG["MSG_STARTED"], since)
    machine.wait_message(MSG["MSG_DATABASE_LOST"], since)
    wait_for(lambda: "waiting for the database" in machine.show("StatusText"), what="the status to say so")

    unit = machine.create_postgres()
    machine("systemctl", "start", unit).expect()
    machine("createuser", "anubisd", user="postgres").expect()
    machine("createdb", "-O", "anubisd", "anubis", user="postgres").expect()
    said = machine.wait_message(MSG["MSG_SCHEMA_MISMATCH"], since)
    assert "anubisctl migrate" in said[0]["MESSAGE"]
    machine("anubisctl", "migrate", user="anubisd").expect()
    machine.wait_message(MSG["MSG_DATABASE_BACK"], since)
    wait_for(lambda: "waiting for" not in machine.show("StatusText"), what="it to wait for nothing more")
    assert machine.show("NRestarts") == "0"


def test_it_delivers_and_publishes_within_its_sandbox(running, institutions):
    machine = running
    first = integration(machine, institutions("/good/systemd"))
    sent = subscription(machine, first)
    wait_status(machine, sent, "sent")
    wait_for(lambda: machine.sql(f"select successful_sends from anubis.integrations where id = {first}") == [["1"]], 60,
             "the counter, which comes back through Kafka")
    assert machine("anubisctl", "verify", user="anubisd", deadline=60).expect()
    pid = machine.show("MainPID")
    about = machine("cat", f"/proc/{pid}/status").expect().stdout
    assert re.search(r"^NoNewPrivs:\s+1$", about, re.MULTILINE)
    assert re.search(r"^Seccomp:\s+2$", about, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", about, re.MULTILINE)
    assert re.search(r"^CoreDumping|Max core file size +0 ", machine("cat", f"/proc/{pid}/limits").stdout)


def test_the_journal_tells_by_fields_and_explains(running, institutions):
    machine = running
    since = time.time()
    refused = subscription(machine, integration(machine, institutions("/reject/422/systemd")))
    wait_status(machine, refused, "failed")
    entry = machine.wait_message(MSG["MSG_DELIVERY_FAILED"], since)[0]
    assert entry["SUBSCRIPTION_ID"] == str(refused) and entry["HTTP_STATUS"] == "422" and entry["PRIORITY"] == "4"
    assert entry["_SYSTEMD_UNIT"] == "anubisd.service"
    assert entry["INTEGRATION_NAME"] == "x"
    named = machine("journalctl", "-q", "-u", "anubisd", "INTEGRATION_NAME=x", "-o", "cat").expect().stdout
    assert f"ubscription {refused}" in named
    found = machine("journalctl", "-q", "-x", "-u", "anubisd", f"SUBSCRIPTION_ID={refused}").expect().stdout
    assert f"Subscription {refused} has failed" in found and f"anubisctl explain {refused}" in found
    assert "52998224725" not in machine("journalctl", "-q", "-o", "export", "-u", "anubisd").stdout


def test_alerts_stand_in_the_journal_by_their_fields(running):
    """At the priority alert, with the message's id and the integration; and that one is over."""
    machine = running
    since = time.time()
    machine.sql("insert into anubis.dead_letters (consumer_group, topic, partition, \"offset\", error) "
                "values ('x', 't', 0, 0, 'e')")
    dead = integration(machine, "https://x.example/")
    machine.sql("update anubis.integration_runtime set circuit_state = 'open', circuit_until = now() + interval '1 h', "
                f"circuit_since = now(), circuit_reason = 'failures' where integration_id = {dead}")
    fired = {e["MESSAGE"].split(": ")[1].split(",")[0]: e for e in machine.wait_message(MSG["MSG_ALERT"], since, 60, count=2)}
    assert {e["PRIORITY"] for e in fired.values()} == {"1"} and fired.keys() == {"dead_letters", "circuit_open"}
    assert (fired["circuit_open"]["INTEGRATION_ID"], fired["circuit_open"]["INTEGRATION_NAME"]) == (str(dead), "x")
    assert "INTEGRATION_ID" not in fired["dead_letters"]
    explained = machine("journalctl", "-q", "-x", "-u", "anubisd", f"MESSAGE_ID={MSG['MSG_ALERT']}").expect().stdout
    assert "Somebody has to know" in explained
    machine.sql("update anubis.dead_letters set replayed_at = now()")
    machine.sql(f"update anubis.integrations set enabled = false where id = {dead}")
    over = machine.wait_message(MSG["MSG_ALERT_RESOLVED"], since, 60, count=2)
    assert {e["PRIORITY"] for e in over} == {"5"} and str(dead) in {e.get("INTEGRATION_ID") for e in over}


def test_reload_takes_over_or_keeps(running, settings):
    machine = running
    pid = machine.show("MainPID")
    since = time.time()
    machine.configure({**settings, "delivery": {**settings["delivery"], "batch_size": 123}})
    machine("systemctl", "reload", "anubisd").expect()
    assert any("batch_size" in e["MESSAGE"] for e in machine.wait_message(MSG["MSG_RELOADED"], since, count=2))

    since = time.time()
    machine.configure({**settings, "delivery": {**settings["delivery"], "batch_size": 0}})
    assert machine("systemctl", "reload", "anubisd").code != 0
    wait_for(lambda: refusals(machine, since), what="the reason in the journal")
    # Whoever signals the daemon itself is told by its own message.
    machine("kill", "-HUP", pid).expect()
    said = machine.wait_message(MSG["MSG_RELOAD_REFUSED"], since, count=2)
    assert any(re.search(REFUSAL, e["MESSAGE"]) for e in said)
    assert [("MESSAGE_ID" in e) for e in refusals(machine, since)] == [False, True]
    assert machine.show("ActiveState") == "active" and machine.show("MainPID") == pid

    since = time.time()
    machine.configure(settings)
    machine("systemctl", "reload", "anubisd").expect()
    assert machine.wait_message(MSG["MSG_RELOADED"], since)
    assert machine.show("MainPID") == pid


REFUSAL = r"/etc/anubisd\.conf:\d+: .*batch_size"


def refusals(machine, since):
    return [e for e in machine.journal(since) if re.search(REFUSAL, e["MESSAGE"])]


def test_a_bad_configuration_is_said_once_and_not_tried_again(installed):
    machine = installed
    since = time.time()
    machine.write("/etc/anubisd.conf", "delivery: { poll_intervall = \"1s\"; };\n", 0o640)
    assert machine("systemctl", "start", "anubisd").code != 0
    said = machine.wait_message(MSG["MSG_CONFIG_INVALID"], since)
    assert "poll_interval" in said[0]["MESSAGE"]
    assert machine.show("ExecMainStatus") == "78"
    wait_for(lambda: machine.show("ActiveState") == "failed", what="the unit to have failed")
    assert machine.show("NRestarts") == "0"


def test_it_is_restarted_after_a_crash(running, institutions):
    machine = running
    pid = machine.show("MainPID")
    machine("kill", "-KILL", pid).expect()
    wait_for(lambda: machine.show("ActiveState") == "active" and machine.show("MainPID") not in ("0", pid), 30,
             "the restart")
    wait_status(machine, subscription(machine, integration(machine, institutions("/good/again"))), "sent")


def test_a_stray_sigterm_is_no_stop(running):
    machine = running
    pid, since = machine.show("MainPID"), time.time()
    machine("kill", "-TERM", pid).expect()
    assert re.search(r"\(SIGTERM from process \d+\)", machine.wait_message(MSG["MSG_STOPPING"], since)[0]["MESSAGE"])
    wait_for(lambda: machine.show("ActiveState") == "active" and machine.show("MainPID") not in ("0", pid), 60,
             "the restart")


def delivers(machine, url):
    wait_status(machine, subscription(machine, integration(machine, url)), "sent")


def test_a_credential_whose_file_is_missing_is_waited_for(installed, settings, institutions):
    """By systemd: the daemon does not begin. It works as soon as the file is there."""
    machine = installed
    machine.configure({**settings, "database": {"conninfo": "credential:late"}})
    machine.drop_in("[Service]\nLoadCredential=late:/etc/credstore/late\n")
    assert machine("systemctl", "start", "anubisd").code != 0
    wait_for(lambda: int(machine.show("NRestarts")) >= 8, 90, "more restarts than systemd allows by itself")
    assert "243/CREDENTIALS" in machine("systemctl", "status", "anubisd").stdout
    assert machine.show("Result") == "exit-code" and machine.show("ActiveState") == "activating"
    machine.write("/etc/credstore/late", "dbname=anubis\n", 0o600)
    wait_for(lambda: machine.show("ActiveState") == "active", 30, "the daemon to begin by itself")
    delivers(machine, institutions("/good/late"))


def test_a_credential_that_the_unit_lacks_is_waited_for(installed, settings, institutions):
    """Said with what helps, not once for each look; half a minute and a restart later it is taken."""
    machine = installed
    since = time.time()
    machine.configure({**settings, "database": {"conninfo": "credential:given"}})
    machine("systemctl", "start", "--no-block", "anubisd").expect()
    said = machine.wait_message(MSG["MSG_SECRETS_ABSENT"], since, count=2)
    assert re.match(r"/etc/anubisd\.conf:\d+: database\.conninfo: credential:given: .*LoadCredential=given:/path",
                    said[0]["MESSAGE"])
    wait_for(lambda: "waiting for secrets: /etc/anubisd.conf" in machine.show("StatusText"), what="the status to say so")
    assert said[0]["PRIORITY"] == "3" and machine.show("ActiveState") == "activating"
    wait_for(lambda: machine.show("NRestarts") == "1", 90, "another process")
    machine.wait_message(MSG["MSG_SECRETS_ABSENT"], since, count=4)
    assert len([e for e in machine.journal(since) if "credential:given" in e["MESSAGE"]]) == 2
    assert "75/TEMPFAIL" in machine("journalctl", "-q", "-u", "anubisd", f"--since=@{int(since)}").stdout
    machine.write("/etc/credstore/given", "dbname=anubis\n", 0o600)
    machine.drop_in("[Service]\nLoadCredential=given:/etc/credstore/given\n")
    wait_for(lambda: machine.show("ActiveState") == "active", 90, "the daemon to begin by itself")
    delivers(machine, institutions("/good/given"))


def test_a_file_of_a_secret_that_comes_late_is_taken_at_once(installed, settings, institutions):
    machine = installed
    since = time.time()
    machine.configure({**settings, "database": {"conninfo": "file:/etc/anubis-late"}})
    machine("systemctl", "start", "--no-block", "anubisd").expect()
    machine.wait_message(MSG["MSG_SECRETS_ABSENT"], since, count=2)
    machine.write("/etc/anubis-late", "", 0o644)
    assert "the value is empty" in machine.wait_message(MSG["MSG_SECRETS_ABSENT"], since, count=4)[2]["MESSAGE"]
    machine.write("/etc/anubis-late", "dbname=anubis\n", 0o644)
    machine.wait_message(MSG["MSG_STARTED"], since)
    assert machine.show("NRestarts") == "0"
    delivers(machine, institutions("/good/file"))


def reload_fails(machine):
    done = machine("systemctl", "reload", "anubisd")
    assert done.code != 0 and "journalctl" in done.stderr, done.stderr
    return done


def test_a_reload_without_a_secret_keeps_the_former_one(installed, settings, institutions):
    """systemctl ends with an error, the journal names the place, and the daemon works as before."""
    machine = installed
    secret, credential = "/etc/anubis-secret", "/etc/credstore/kafka"
    machine.write(secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", 0o644)
    machine.write(credential, "hush\n", 0o600)
    machine.drop_in(f"[Service]\nLoadCredential=kafka:{credential}\n")
    named = {**settings, "alerts": {"webhook_secret": f"file:{secret}"},
             "kafka": {**settings["kafka"], "sasl_password": "credential:kafka"}}
    machine.configure(named)
    machine("systemctl", "start", "anubisd").expect()
    pid = machine.show("MainPID")

    def kept(words):
        since = time.time()
        reload_fails(machine)
        wait_for(lambda: any(re.search(words, e["MESSAGE"]) for e in machine.journal(since)), 30,
                 lambda: f"{words} in {[e['MESSAGE'] for e in machine.journal(since)]}")
        assert machine.show("ActiveState") == "active" and machine.show("MainPID") == pid
        delivers(machine, institutions("/good/kept"))
    os.unlink(machine.path(secret))
    kept(r"anubisd\.conf:\d+: alerts\.webhook_secret: file:/etc/anubis-secret: could not open the file: No such file")
    machine.write(secret, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n", 0o600)
    kept(r"alerts\.webhook_secret: file:/etc/anubis-secret: could not open the file: Permission denied")
    os.chmod(machine.path(secret), 0o644)
    machine.configure({**named, "audit": {"signing_key": "credential:unknown"}})
    kept(r"anubisd\.conf:\d+: audit\.signing_key: credential:unknown: .*LoadCredential=unknown:/path")
    kept("the daemon goes on with the configuration that it has; its log tells why")
    machine.configure(named)
    machine("systemctl", "reload", "anubisd").expect()
    os.unlink(machine.path(credential))
    reload_fails(machine)
    assert machine.show("ActiveState") == "active" and machine.show("MainPID") == pid
    delivers(machine, institutions("/good/kept"))


def test_a_reload_says_which_new_secret_needs_a_restart(installed, settings, institutions):
    machine = installed
    secrets = {"conninfo": "dbname=anubis password=former", "webhook": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"}
    for name, text in secrets.items():
        machine.write(f"/etc/credstore/{name}", text, 0o600)
    machine.write("/etc/anubis-secret", "former", 0o644)
    machine.drop_in("[Service]\n" + "".join(f"LoadCredential={n}:/etc/credstore/{n}\n" for n in secrets))
    machine.configure({**settings, "database": {"conninfo": "credential:conninfo"},
                       "alerts": {"webhook_secret": "credential:webhook"},
                       "kafka": {**settings["kafka"], "sasl_password": "file:/etc/anubis-secret"}})
    machine("systemctl", "start", "anubisd").expect()
    pid, since = machine.show("MainPID"), time.time()
    machine.write("/etc/credstore/conninfo", "dbname=anubis password=another", 0o600)
    machine.write("/etc/credstore/webhook", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", 0o600)
    machine.write("/etc/anubis-secret", "another", 0o644)
    machine("systemctl", "reload", "anubisd").expect()
    needs = {e["MESSAGE"] for e in machine.wait_message(MSG["MSG_RESTART_NEEDED"], since, count=2)}
    assert needs == {f"changed, needs a restart: {key}" for key in ("database.conninfo", "kafka.sasl_password")}
    assert "changed: alerts.webhook_secret" in [e["MESSAGE"] for e in machine.wait_message(MSG["MSG_RELOADED"], since, count=2)]
    journal = machine("journalctl", "-q", "-o", "export", "-u", "anubisd").stdout
    assert "another" not in journal and "former" not in journal and machine.show("MainPID") == pid
    delivers(machine, institutions("/good/rotated-secrets"))


def test_a_stopped_journald_holds_nothing_up(installed, settings, institutions):
    machine = installed
    machine.configure({**settings, "log_level": "debug"})
    machine("systemctl", "start", "anubisd").expect()
    first = integration(machine, institutions("/good/quiet"))
    journald = machine("systemctl", "show", "-P", "MainPID", "systemd-journald").stdout.strip()
    machine("kill", "-STOP", journald).expect()
    try:
        machine.sql(f"insert into anubis.subscriptions (integration_id) select {first} from generate_series(1, 4000)")
        wait_for(lambda: machine.sql("select count(*) from anubis.subscriptions where status = 'sent' and "
                                     f"integration_id = {first}") == [["4000"]], 60, "all to be sent")
    finally:
        machine("kill", "-CONT", journald).expect()
    wait_for(lambda: "lines of this log were lost here: journald took none" in
             machine("journalctl", "-q", "-u", "anubisd").stdout, 30, "the journal to say what is missing")


def test_the_watchdog_ends_a_process_that_hangs(installed):
    machine = installed
    machine.drop_in("[Service]\nWatchdogSec=2\n")
    machine("systemctl", "start", "anubisd").expect()
    pid = machine.show("MainPID")
    machine("kill", "-STOP", pid).expect()
    wait_for(lambda: machine.show("MainPID") not in ("0", pid), 60, "the watchdog's restart")
    assert "Watchdog timeout" in machine("journalctl", "-q", "-u", "anubisd").stdout


def test_a_stop_lets_requests_end(running, institutions):
    machine = running
    slow = subscription(machine, integration(machine, institutions("/slow/3000/systemd")))
    wait_status(machine, slow, "processing")
    since = time.time()
    machine("systemctl", "stop", "anubisd", deadline=90).expect()
    assert machine.wait_message(MSG["MSG_STOPPED"], since)
    assert status(machine, slow) == "sent"
    assert machine.show("Result") == "success" and machine.show("ExecMainStatus") == "0"


def test_secrets_come_as_credentials(installed, settings, institutions):
    machine = installed
    machine.write("/etc/credstore/anubisd.conninfo", "dbname=anubis application_name=by-credential\n", 0o600)
    machine.drop_in("[Service]\nLoadCredential=conninfo:/etc/credstore/anubisd.conninfo\n")
    machine.configure({**settings, "database": {"conninfo": "credential:conninfo"}})
    machine("systemctl", "start", "anubisd").expect()
    wait_status(machine, subscription(machine, integration(machine, institutions("/good/credential"))), "sent")


def test_a_credential_that_changed_is_taken_over_by_a_reload(installed, institutions):
    machine = installed
    machine.write("/etc/credstore/usp", "old\n", 0o600)
    machine.drop_in("[Service]\nLoadCredential=usp:/etc/credstore/usp\n")
    machine("systemctl", "start", "anubisd").expect()
    first = integration(machine, institutions("/good/rotated"))
    machine.sql(f"update anubis.integrations set auth_token = 'credential:usp' where id = {first}")
    wait_status(machine, subscription(machine, first), "sent")

    def bearer():
        """Of the last request there."""
        asked = machine("curl", "-s", institutions("/last?path=/good/rotated")).expect()
        return re.search(r"[Aa]uthorization: Bearer (\w+)", asked.stdout)[1]
    assert bearer() == "old"
    machine.write("/etc/credstore/usp", "new\n", 0o600)
    machine("systemctl", "reload", "anubisd").expect()
    assert machine("cat", "/run/credentials/anubisd.service/usp").stdout == "new\n"
    wait_status(machine, subscription(machine, first), "sent")
    assert bearer() == "new"


def test_variables_of_the_default_file_override(installed, settings, institutions):
    machine = installed
    machine.configure({**settings, "database": {"conninfo": "dbname=nowhere"}})
    machine.write("/etc/default/anubisd", "DATABASE_URL=postgresql:///anubis?pool=5\n", 0o644)
    try:
        machine("systemctl", "start", "anubisd").expect()
        wait_status(machine, subscription(machine, integration(machine, institutions("/good/default"))), "sent")
        machine("anubisctl", "status", user="anubisd").expect()
    finally:
        os.unlink(machine.path("/etc/default/anubisd"))


def test_postgres_restarts_under_it(running, postgres, institutions):
    machine = running
    since = time.time()
    machine("systemctl", "restart", postgres).expect()
    machine.wait_message(MSG["MSG_DATABASE_BACK"], since)
    wait_status(machine, subscription(machine, integration(machine, institutions("/good/restart"))), "sent")
    assert machine.show("NRestarts") == "0"


def test_it_adopts_another_roles_tables(machine, postgres, settings, institutions):
    """README.md: the owner migrates, the daemon's role is a member of the owner's."""
    machine("systemctl", "stop", "anubisd", deadline=90).expect()
    machine("createuser", "shop", user="postgres").expect()
    machine("createdb", "-O", "shop", "shop", user="postgres").expect()
    machine("psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "shop", user="postgres", stdin=RAILS_TABLES).expect()
    machine.configure({**settings, "database": {"conninfo": "dbname=shop", "schema": "public"},
                       "consumers": {**settings["consumers"], "group_prefix": "shop"}})
    migrate = ["anubisctl", "--database", "host=127.0.0.1 dbname=shop user=shop", "migrate"]
    machine(*migrate, "--dry-run").expect()
    machine(*migrate).expect()
    machine("psql", "-X", "-q", "-d", "shop", "-c", "grant shop to anubisd", user="postgres").expect()
    machine("systemctl", "start", "anubisd").expect()
    url = institutions("/good/shop")
    row = shop_sql(machine, f"insert into integrations (name, endpoint_url, auth_token) values ('x', '{url}', 't');"
                            "insert into subscriptions (integration_id, payload) values (1, '{\"a\": 1}') returning id")
    wait_for(lambda: shop_sql(machine, f"select status from subscriptions where id = {row}") == "sent",
             what="the application's row to be sent")


def shop_sql(machine, statement):
    return machine("psql", "-X", "-q", "-A", "-t", "host=127.0.0.1 dbname=shop user=shop",
                   stdin=statement).expect().stdout.strip()


def test_upgrade_and_removal_as_the_readme_has_it(running, institutions):
    """The last test of the machine: nothing of anubisd is on it afterwards but what it was given and what it wrote."""
    machine = running
    machine.make("install")
    machine("journalctl", "--update-catalog").expect()
    machine("systemctl", "daemon-reload").expect()
    assert machine.show("ActiveState") == "active"
    machine("anubisctl", "migrate", user="anubisd").expect()
    machine("systemctl", "restart", "anubisd", deadline=90).expect()
    wait_status(machine, subscription(machine, integration(machine, institutions("/good/upgraded"))), "sent")

    machine("systemctl", "disable", "--now", "anubisd", deadline=90).expect()
    machine.make("uninstall")
    machine("systemctl", "daemon-reload").expect()
    assert machine.show("LoadState") == "not-found"
    assert machine("cat", "/etc/anubisd.conf").expect().stdout and machine("id", "anubisd").expect()
    machine.sql("drop schema anubis cascade")
    assert machine.sql("select count(*) from pg_namespace where nspname = 'anubis'") == [["0"]]
