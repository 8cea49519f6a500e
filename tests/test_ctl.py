"""anubisctl: options, where the configuration comes from, status, explain, and that verify finds what is wrong."""
import contextlib
import datetime
import json
import os
import pty
import re
import subprocess
import time
import uuid

import pytest
from harness.anubis import Ctl, clean_environment, program, run
from harness.processes import Child, scratch_folder, wait_for

CPF = "52998224725"
ECHOED = "Maria da Silva, CPF 529.982.247-25"
SETTINGS = {"database": {"conninfo": "host=/nowhere dbname=none"}}


# --- options ---


def anubisctl(*arguments, env=None):
    return run([program("anubisctl"), *arguments], env)


@pytest.mark.parametrize("arguments, words", [
    ([], "a command is missing"),
    (["stauts"], 'there is no command "stauts"; did you mean "status"?'),
    (["stat"], 'did you mean "status"?'),
    (["xyzzy"], 'there is no command "xyzzy"\n'),
    (["explain"], 'the subscription\'s id is missing after "explain"'),
    (["filters"], '"test" is missing after "filters"'),
    (["explain", "1", "2"], 'there is an argument too many: "2"'),
    (["status", "x"], 'there is an argument too many: "x"'),
    (["migrate", "--json"], 'there is no --json for "migrate"'),
    (["verify", "--dry-run"], 'there is no --dry-run for "verify", which changes nothing'),
    (["status", "--wait"], 'there is no --wait for "status"'),
    (["explain", "-5"], "a subscription's id is a positive whole number"),
    (["--frobnicate", "status"], "frobnicate"),
    (["-c"], "requires an argument"),
])
def test_usage(arguments, words):
    result = anubisctl(*arguments).expect(64)
    assert words in result.stderr and 'Try "anubisctl --help"' in result.stderr and not result.stdout


def test_help_and_version():
    text = anubisctl("--help").expect(0).stdout
    for word in ("migrate", "status", "explain", "verify", "--json", "--dry-run", "--database", "Exit status"):
        assert word in text
    assert anubisctl("-h").expect(0).stdout == anubisctl("help").expect(0).stdout == text
    assert anubisctl("--version").expect(0).stdout.startswith("anubisctl ")
    assert max(len(line) for line in text.splitlines()) <= 110
    for command in re.findall(r"(?m)^  ([a-z][a-z-]+) ", text.partition("Commands:")[2].partition("Options:")[0]):
        own = anubisctl("help", command).expect(0).stdout
        assert anubisctl(command, "--help").expect(0).stdout == anubisctl("--help", command).stdout == own
        assert re.search(rf"Usage: anubisctl \[OPTION…\] {command}\b", own) and "--config" in own and len(own) < len(text)
    assert "--rate" in anubisctl("help", "retry").stdout and "--rate" not in anubisctl("help", "status").stdout
    assert 'did you mean "status"?' in anubisctl("help", "stauts").expect(64).stderr


def test_ids_that_are_none(ctl):
    for word in ("x", "1.5", "", "99999999999999999999"):
        assert "cannot be the id of a subscription" in ctl("explain", word).expect(64).stderr


def test_configuration_errors():
    ctl = Ctl({**SETTINGS, "retry": {"max_atempts": 3}})
    result = ctl("status").expect(78)
    assert "max_atempts" in result.stderr and "max_attempts" in result.stderr
    assert "name the database" in result.stderr
    assert anubisctl("-c", "/nowhere/anubisd.conf", "status").expect(78).stderr


def test_who_names_the_database_need_not_wait_for_the_file(app, broker):
    """What only looks goes on, and says what is wrong; what changes something does not."""
    wrong = Ctl({"retry": {"max_atempts": 3}}, database=app.database, kafka=broker)
    broken = os.path.join(scratch_folder(), "broken.conf")
    with open(broken, "w", encoding="utf-8") as f:
        f.write('database: { conninfo = "dbname=x };\n')
    for path, words in ((wrong.path, "max_atempts"), (broken, f"{broken}:1: "), ("/nowhere/anubisd.conf", "No such file")):
        to = ("-c", path, "--environment", "/dev/null", "--database", app.database.conninfo())
        result = anubisctl(*to, "status").expect(0)
        assert words in result.stderr and "counts as its default" in result.stderr and "relay" in result.stdout
        assert words in anubisctl(*to, "pause", "1", "--reason", "x").expect(78).stderr


def test_database_is_away():
    result = Ctl({"database": {"conninfo": "host=/nowhere dbname=none password=sesame"}})("status").expect(69)
    assert "could not open a session" in result.stderr and "database.conninfo" in result.stderr
    assert '"dbname=none host=/nowhere"' in result.stderr and "sesame" not in result.stderr


@pytest.mark.parametrize("conninfo, words", [
    ("hots=x", 'libpq reports: invalid connection option "hots"'),
    ("host=x password=sesame port=99999", "must have ports from 1 to 65535"),
    ("postgres://h/x?pool=5", 'libpq reports: invalid URI query parameter: "pool"'),
])
def test_a_wrong_database_is_wrong_usage(conninfo, words):
    result = Ctl(SETTINGS)("--database", conninfo, "status").expect(64)
    assert result.stderr.startswith("anubisctl: --database ") and words in result.stderr and "sesame" not in result.stderr


def test_a_database_may_be_named_alone():
    result = Ctl(SETTINGS)("--database", "nowhere", "status", env={"PGHOST": "/nowhere"}).expect(69)
    assert '"dbname=nowhere" (--database)' in result.stderr


def test_answer_that_cannot_be_written(ctl):
    with open("/dev/full", "w", encoding="ascii") as full:
        code = subprocess.run([program("anubisctl"), "-c", ctl.path, "status"], stdout=full, stderr=subprocess.PIPE,
                              check=False)
    assert code.returncode == 74 and b"could not write the answer" in code.stderr


# --- where the configuration comes from ---


def environment_file(text):
    path = os.path.join(scratch_folder(), "environment")
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)
    return path


def database_seen(ctl, *arguments, env=None):
    return ctl(*arguments, "status", "--json", env=env).expect(0).json["database"]


def test_environment_file(database):
    """systemd's syntax, and that the real environment wins."""
    server, name = database.server, database.name
    ctl = Ctl(SETTINGS)
    spellings = [
        "DATABASE_URL={}", "  DATABASE_URL = {}  ", 'DATABASE_URL="{}"', "DATABASE_URL='{}'",
        "# no\n; no\nnonsense\n1X=2\nDATABASE_URL=postgres://x/y\n\nDATABASE_URL={}",
        "# goes on \\\nDATABASE_URL=postgres://x/y\nDATABASE_URL={}",
        'DATABASE_URL={}\r\n', 'OTHER="two\nlines"\nDATABASE_URL={}', "OTHER=it\\'s\nDATABASE_URL={}\n",
        'OTHER="a \\" b \\$ c"\nDATABASE_URL={}',
    ]
    url = f"postgresql:///{name}?host={server.folder}&port={server.port}&user=postgres"
    for spelling in spellings:
        path = environment_file(spelling.format(url))
        assert database_seen(ctl, "--environment", path) == name, spelling
    for spelling in ("DATABASE_URL=" + url[:20] + "\\\n" + url[20:],
                     'DATABASE_URL="' + url[:20] + '"\'' + url[20:30] + "'" + url[30:]):
        assert database_seen(ctl, "--environment", environment_file(spelling)) == name, spelling
    path = environment_file("DATABASE_URL=postgres://nowhere/x")
    assert database_seen(ctl, "--environment", path, env={"DATABASE_URL": url}) == name
    assert "(DATABASE_URL)" in ctl("--environment", path, "status").expect(69).stderr


def test_environment_file_that_cannot_be_read(database):
    ctl = Ctl(database=database)
    for path in ("/nowhere/at/all", "/"):
        assert f'could not read "{path}"' in ctl("--environment", path, "status").expect(78).stderr


def test_another_role_by_option(database):
    ctl = Ctl(SETTINGS)
    assert database_seen(ctl, "--database", database.conninfo()) == database.name
    assert database_seen(Ctl(SETTINGS), "--database", database.conninfo(), env={"DATABASE_URL": "postgres://nowhere/x"})


def test_secrets_are_read_only_where_needed(database):
    """Kafka's password belongs to the daemon alone; the database's is read, unless another database is named."""
    sasl = {"security_protocol": "sasl_plaintext", "sasl_mechanism": "PLAIN", "sasl_username": "x",
            "sasl_password": "credential:not-there"}
    assert database_seen(Ctl({"kafka": sasl}, database=database)) == database.name
    ctl = Ctl({"database": {"conninfo": "file:/nowhere/conninfo"}})
    assert "/nowhere/conninfo" in ctl("status").expect(78).stderr
    assert database_seen(ctl, "--database", database.conninfo()) == database.name
    path = environment_file(database.conninfo())
    assert database_seen(Ctl({"database": {"conninfo": f"file:{path}"}})) == database.name


# --- status ---


def test_status_of_nothing(ctl):
    status = ctl("status", "--json").expect(0).json
    assert [(s["status"], s["count"]) for s in status["subscriptions"]] == [
        (s, 0) for s in ("pending", "processing", "retry", "sent", "failed")]
    assert status["integrations"] == status["consumers"] == [] and status["due"] == 0 and status["daemons"] == 0
    assert status["relay_stopped_on"] is None and status["partitions_ahead"] >= 2
    text = ctl("status").expect(0).stdout
    assert "none connected" in text and "Integrations: none" in text and "Consumers: none" in text


def populate(app):
    """Something of everything; the ids by what they are."""
    good = app.integration("https://good.example/", name="Universidade\x1b[31m\nFalsa")
    paused = app.integration("https://paused.example/", name="São João")
    app.query("update {s}.integrations set paused_until = now() + interval '1 hour', pause_reason = '410 Gone' where id = %s",
              (paused,))
    disabled = app.integration("https://disabled.example/", enabled=False)
    open_circuit = app.integration("https://open.example/")
    app.query("update {s}.integration_runtime set circuit_state = 'open' where integration_id = %s", (open_circuit,))
    bare = app.integration("https://bare.example/")
    app.query("update {s}.integrations set endpoint_url = null where id = %s", (bare,))
    ids = {"due": app.subscription(good), "paused": app.subscription(paused), "disabled": app.subscription(disabled),
           "open": app.subscription(open_circuit), "bare": app.subscription(bare), "unrouted": app.subscription(None),
           "scheduled": app.subscription(good, scheduled_to="2100-01-02T03:04:05Z")}
    for name in ("flying", "retry", "held", "failed", "sent", "lost", "timeout", "strange"):
        ids[name] = app.subscription(good)
    claim(app, *(ids[n] for n in ("flying", "retry", "held", "failed", "sent", "lost", "timeout", "strange")))
    end(app, ids["retry"], "retry", f"HTTP 503: {ECHOED}", 503, "next_attempt_at = now() + interval '5 min'")
    end(app, ids["held"], "retry", "connection lost: after the body", None, "held_at = now(), last_ambiguous = true")
    end(app, ids["failed"], "failed", f"HTTP 422: {ECHOED}", 422)
    end(app, ids["sent"], "sent", None, 200, "sent_at = now()")
    end(app, ids["timeout"], "retry", f"timeout: {ECHOED}", None, "next_attempt_at = now() + interval '5 min'")
    end(app, ids["strange"], "failed", ECHOED, None)
    app.query("update {s}.subscriptions set lease_expires_at = now() - interval '1 min' where id = %s", (ids["lost"],))
    return ids


def claim(app, *ids):
    app.query("update {s}.subscriptions set status = 'processing', attempts = attempts + 1, claimed_by = 'host-a', "
              "claim_token = 1, lease_expires_at = now() + interval '90 s' where id = any (%s)", (list(ids),))


def end(app, number, status, error, http_status, more="last_ambiguous = false"):
    app.query(f"update {{s}}.subscriptions set status = %s, claimed_by = null, claim_token = null, lease_expires_at = null, "
              f"last_error = %s, last_http_status = %s, last_duration_ms = 12, last_response = %s, {more} where id = %s",
              (status, error, http_status, json.dumps(ECHOED), number))


def test_status(app, ctl):
    populate(app)
    status = ctl("status", "--json").expect(0).json
    assert {s["status"]: s["count"] for s in status["subscriptions"]} == {
        "pending": 7, "processing": 2, "retry": 3, "sent": 1, "failed": 2}
    rows = {i["id"]: i for i in status["integrations"]}
    assert [rows[i]["state"].split()[0] for i in sorted(rows)] == ["ok", "paused", "disabled", "circuit", "ok"]
    assert (rows[1]["waiting"], rows[1]["due"], rows[1]["in_flight"], rows[1]["held"]) == (4, 1, 2, 1)
    assert [rows[i]["due"] for i in sorted(rows)] == [1, 0, 0, 0, 1]
    assert [rows[i]["blocked"] for i in sorted(rows)] == [0, 1, 1, 1, 0] and status["blocked"] == 3
    assert status["due"] == 2 and status["unrouted"] == 1 and status["held"] == 1 and status["in_flight"] == 2
    assert rows[2]["pause_reason"] == "410 Gone" and rows[1]["oldest_due_at"] is not None
    assert status["unpublished_about"] == status["ledger_last_id"] > 20
    text = ctl("status").expect(0).stdout
    flat = " ".join(text.split())
    assert "BLOCKED 3 in 3 integrations to which nothing can be sent now, the longest for" in flat
    assert "410 Gone; 1 blocked" in flat
    assert "\x1b" not in text and "Universidade?[31m Falsa" in text and "São João" in text
    assert CPF not in text and "Maria" not in text


def test_status_tells_why_something_is_tried_again(app, ctl):
    def reasons():
        found = {i["id"]: i["reason"] for i in ctl("status", "--json").expect(0).json["integrations"]}
        assert ECHOED not in str(found)
        return [found[i] for i in sorted(found)]

    refused = app.integration("https://a.example/")
    answered = app.integration("https://b.example/")
    strange = app.integration("https://c.example/")
    app.integration("https://d.example/")
    fresh = app.integration("https://e.example/")
    for integration, error, status in ((refused, f"could not connect: {ECHOED}", None), (answered, f"HTTP 503: {ECHOED}", 503),
                                       (strange, ECHOED, None)):
        number = app.subscription(integration)
        claim(app, number)
        end(app, number, "retry", error, status, "next_attempt_at = now() + interval '70 min'")
    app.subscription(fresh)
    # What has not been tried does not hide it, be it due now or scheduled.
    app.subscriptions(answered, 150)
    app.subscriptions(answered, 150, scheduled_to="2100-01-01T00:00:00Z")
    expected = ["retrying: could not connect", "retrying: HTTP 503", "retrying: other (its words are in the ledger)", None, None]
    assert reasons() == expected
    text = ctl("status").expect(0).stdout
    assert "retrying: could not connect" in text and "Maria" not in text
    # The latest counts; an integration that is not sent to is not retrying.
    number = app.subscription(refused)
    claim(app, number)
    end(app, number, "retry", "timeout", None, "next_attempt_at = now() + interval '1 min', updated_at = clock_timestamp()")
    app.query("update {s}.integrations set enabled = false where id = %s", (answered,))
    app.query("update {s}.integrations set paused_until = 'infinity', pause_reason = 'on leave' where id = %s", (strange,))
    assert reasons() == ["retrying: timeout", None, "on leave", None, None]


def test_status_of_the_relay_and_consumers(app, ctl):
    populate(app)
    app.query("update {s}.relay_state set high = 10, gap_first = '{3,7}', gap_last = '{4,7}', gap_horizon = '{1,1}', "
              "stopped_on = 11, stopped_reason = 'the broker refuses it', leader = 'host-a'")
    for topic in ("sent", "failed"):
        app.query("insert into {s}.consumer_offsets (consumer_group, read_model, topic, partition, next_offset) "
                  "select 'anubis-integration-group', 'integration', %s, n, 5 from generate_series(0, 2) n",
                  (f"anubis.subscriptions.{topic}",))
    status = ctl("status", "--json").expect(0).json
    assert (status["relay_high"], status["relay_gaps"], status["relay_gap_ids"]) == (10, 2, 3)
    assert status["relay_stopped_on"] == 11 and status["relay_last_leader"] == "host-a"
    assert status["relay_leader"] is None and status["relay_waits_for"] is None
    text = ctl("status").stdout
    assert "STOPPED on event 11: the broker refuses it" in text and 'no daemon leads, the last leader was "host-a"' in text
    assert [c["behind"] for c in status["consumers"]] == [0, 0]
    narrow = ctl("status", env={"COLUMNS": "80"}).stdout.partition("\nConsumers\n")[2]
    assert max(map(len, narrow.splitlines())) <= 80, narrow
    assert re.search(r"\n  anubis-integration-group:\n  anubis.subscriptions.failed  +3 .* ago\n  anubis.subscriptions.sent ",
                     narrow)
    app.query("update {s}.relay_state set high = 1000, gap_first = '{}', gap_last = '{}', gap_horizon = '{}'")
    status = ctl("status", "--json").json
    assert {c["topic"].rpartition(".")[2]: (c["behind"], c["messages_read"], c["partitions"]) for c in status["consumers"]} == {
        "failed": (2, 15, 3), "sent": (1, 15, 3)}


def test_status_without_the_index_of_claims(app, ctl):
    """The command for a bad day does not depend on what may be gone then."""
    populate(app)
    before = ctl("status", "--json").expect(0).json
    app.query("drop index {s}.subscriptions_due")
    text = ctl("status").expect(0).stdout
    assert "INDEX MISSING: subscriptions_due" in text
    after = ctl("status", "--json").expect(0).json
    assert [i["waiting"] for i in after["integrations"]] == [i["waiting"] for i in before["integrations"]]


def test_status_tells_who_leads_and_that_kafka_is_away(ctl, make_daemon, broker):
    daemon = make_daemon().start()
    wait_for(lambda: ctl("status", "--json").json["relay_leader"] == "anubisd1", what="a leader")
    assert "WAITS" not in ctl("status").stdout
    broker.down()
    text = wait_for(lambda: (t := ctl("status").stdout) and "WAITS: Kafka is away" in t and t, what="the relay's trouble")
    assert 'leader "anubisd1"' in text
    broker.up()
    wait_for(lambda: ctl("status", "--json").json["relay_waits_for"] is None, what="the end of it")
    daemon.kill9()
    wait_for(lambda: ctl("status", "--json").json["relay_leader"] is None, what="the leader's end")
    assert 'no daemon leads, the last leader was "anubisd1"' in ctl("status").stdout


def many_transactions(database):
    """More than an old snapshot has seen: each subtransaction that writes has an id of its own."""
    database.query("create table public.scratch (x int)")
    database.query("do $$ begin for i in 1..100001 loop begin insert into public.scratch values (i); "
                   "exception when others then raise; end; end loop; end $$")


def test_status_names_who_holds_an_old_snapshot(app, ctl):
    with contextlib.closing(app.database.connect(autocommit=False)) as other:
        other.set_session(isolation_level="REPEATABLE READ")
        cursor = other.cursor()
        cursor.execute("set application_name = 'pg_dump of the night'; select count(*) from anubis.subscriptions")
        pid = other.get_backend_pid()
        young = ctl("status", "--json").expect(0).json
        assert young["oldest_snapshot_pid"] == pid and young["oldest_snapshot_is_long"] is False
        assert "pg_dump of the night" in young["oldest_snapshot_holder"] and young["oldest_snapshot_since"]
        assert "old snapshot" not in ctl("status").expect(0).stdout
        many_transactions(app.database)
        status = ctl("status", "--json").expect(0).json
        assert status["oldest_snapshot_is_long"] is True and status["oldest_snapshot_transactions"] > 100000
        text = ctl("status").expect(0).stdout
        assert re.search(rf'old snapshot +held by session {pid} of role "postgres" '
                         r'\("pg_dump of the night", idle in transaction\) for ', text), text
        assert f"pg_terminate_backend({pid})" in text and "VACUUM removes nothing" in text
        app.query("create role looker login; grant usage on schema anubis to looker; "
                  "grant select on all tables in schema anubis to looker; grant select on anubis.ledger_id_seq to looker")
        hidden = Ctl(database=app.database.conninfo(user="looker"))("status", "--json").expect(0).json
        assert hidden["oldest_snapshot_pid"] == pid and hidden["oldest_snapshot_is_long"] is True
        app.query("drop owned by looker; drop role looker")
        other.rollback()
    assert "old snapshot" not in ctl("status").expect(0).stdout


def test_status_names_a_prepared_transaction(own_postgres):
    database = own_postgres(settings={"max_prepared_transactions": "2"}).create_database("prepared")
    ctl = Ctl(database=database)
    ctl.migrate()
    database.query("begin; create table public.other (); prepare transaction 'left behind'")
    many_transactions(database)
    text = ctl("status").expect(0).stdout
    assert re.search('old snapshot +held by the prepared transaction "left behind" of role "postgres" for ', text), text
    assert "ROLLBACK PREPARED" in text
    database.query("rollback prepared 'left behind'")
    assert "old snapshot" not in ctl("status").expect(0).stdout


def test_status_of_many_integrations(app, ctl):
    app.query("insert into {s}.integrations (name) select 'i' || n from generate_series(1, 100) n")
    app.subscription(77)
    text = ctl("status").expect(0).stdout
    assert "i77" in text and "i76" not in text and "99 integrations have nothing to do" in text
    assert len(ctl("status", "--json").json["integrations"]) == 100


def parse(instant):
    return datetime.datetime.fromisoformat(instant.replace("Z", "+00:00"))


def result(app, integration, status, error=None, http_status=None, ago="0 s"):
    """A subscription whose only attempt ended so, some time ago."""
    number = app.subscription(integration)
    claim(app, number)
    end(app, number, status, error, http_status, "next_attempt_at = now() + interval '1 h'")
    age_events(app, number, ago)
    return number


def age_events(app, number, ago):
    app.query("set session_replication_role = replica; "
              "update {s}.subscription_events set created_at = now() - %s::interval where subscription_id = %s; "
              "reset session_replication_role", (ago, number))


def test_status_names_those_in_trouble_first(app, ctl):
    """Refusing everything, dead, or both: never "ok", and it says since when, why, and when something was accepted."""
    good, idle, refusing, dead, never, flaky, limited, turned = (
        app.integration("https://x.example/", name=n) for n in
        ("good", "idle", "Faculdade que recusa tudo e tem um nome comprido", "dead", "never", "flaky", "limited", "turned"))
    for n in range(12):
        result(app, good, "sent", http_status=200)
        result(app, flaky, "sent" if n % 3 == 0 else "retry", "HTTP 500", 500)
        result(app, limited, "retry", "HTTP 429", 429)
    result(app, refusing, "sent", http_status=200, ago="2 h")
    for n in range(6):
        result(app, refusing, "failed", f"HTTP 422: {ECHOED}", 422, ago=f"{60 - n} min")
    for n in range(3):
        result(app, dead, "retry", "could not connect: refused", None, ago=f"{10 - n} min")
    for n in range(6):  # an outage, and then the credentials
        result(app, turned, "retry", *(("HTTP 500", 500) if n < 3 else ("HTTP 401", 401)), ago=f"{60 - n * n} min")
    app.query("update {s}.integrations set failed_sends = 7 where id = %s", (never,))
    status = ctl("status", "--json").expect(0).json
    rows = {i["name"].split()[0]: i for i in status["integrations"]}
    assert {n: i["state"] for n, i in rows.items()} == {
        "good": "ok", "idle": "idle", "Faculdade": "failing", "dead": "failing", "never": "failing", "flaky": "ok",
        "limited": "ok", "turned": "failing"}
    assert {i["name"].split()[0] for i in status["integrations"][:4]} == {"Faculdade", "dead", "never", "turned"}
    assert status["failing"] == 4
    sick = rows["Faculdade"]
    assert (sick["failed_in_row"], sick["last_error"], sick["recent_errors"]) == (6, "HTTP 422", 0)
    hours = {k: (parse(status["at"]) - parse(sick[k])).total_seconds() / 3600 for k in
             ("failing_since", "last_sent_at", "last_failed_at")}
    assert {k: round(v, 1) for k, v in hours.items()} == {"failing_since": 1.0, "last_sent_at": 2.0, "last_failed_at": 0.9}
    since = [parse(rows["turned"][k]) for k in ("failing_since", "last_error_since")]
    assert [round((parse(status["at"]) - at).total_seconds() / 60) for at in since] == [60, 51]
    assert rows["dead"]["last_sent_at"] is None and rows["dead"]["last_error"] == "could not connect"
    assert (rows["flaky"]["recent_sent"], rows["flaky"]["recent_errors"], rows["flaky"]["recent_error_percent"]) == (4, 8, 67)
    assert rows["good"]["recent_error_percent"] == 0 and rows["limited"]["recent_error_percent"] is None
    for columns in ("80", "40", ""):
        text = ctl("status", env={"COLUMNS": columns}).expect(0).stdout
        assert CPF not in text and "Maria" not in text
        if columns == "80":
            assert max(map(len, text.splitlines())) <= 80, text
        flat = " ".join(text.split())
        assert "FAILING 4 of 8 integrations" in flat
        assert re.search(r"6 attempts in a row since \S+ \S+ \(1 h\), the last one 35 min ago: HTTP 401 since \S+ \S+, and "
                         "otherwise before; never a success", flat), text
        assert re.search(r"failing .* 6 attempts in a row since 20..-..-.. ..:..:..Z \(1 h\), the last one 55 min ago: HTTP 422; "
                         r"last success 20..-..-.. ..:..:..Z", flat), text
        assert re.search("3 attempts in a row since .*could not connect; never a success", flat), text
        assert "it has never accepted a subscription" in flat


@pytest.mark.parametrize("command", ["status", "integrations"])
def test_an_open_circuit_says_why_and_when_it_is_tried(app, ctl, command):
    integration = app.integration("https://x.example/")
    app.subscription(integration)
    app.query("update {s}.integration_runtime set circuit_state = 'open', circuit_since = now(), "
              "circuit_until = now() + interval '5 min', circuit_reason = 'failures' where integration_id = %s", (integration,))

    def said():
        return " ".join(ctl(command).expect(0).stdout.split())
    in_minutes = r"one subscription is tried at \S+ \S+Z \(in [45] min\)"
    assert re.search(rf"its circuit has been open since \S+ \S+Z \(its requests fail\); {in_minutes}", said()), said()
    at = app.value("select to_char(circuit_until at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') "
                   "from {s}.integration_runtime")
    assert ctl(command, "--json").expect(0).json["integrations"][0]["next_probe_at"] == at
    app.query("update {s}.integration_runtime set circuit_reason = 'authentication', circuit_why = 'its token endpoint is away'")
    assert re.search(rf"\(its credentials are refused or missing: its token endpoint is away\); {in_minutes}, and", said())
    app.query("update {s}.integration_runtime set circuit_state = 'half_open'")
    assert "half open" in said() and "one subscription is being tried" in said()
    app.query("update {s}.integration_runtime set circuit_state = 'closed', circuit_until = null, circuit_reason = null")
    assert "circuit" not in said()
    assert ctl(command, "--json").expect(0).json["integrations"][0]["next_probe_at"] is None


def test_status_tells_how_long_the_backlog_lasts(app, ctl):
    integration = app.integration("https://x.example/")
    app.query("update {s}.installation set created_at = now() - interval '1 day'")
    result(app, integration, "sent", http_status=200, ago="1 h")  # the ledger is older than what is recent
    for _ in range(10):
        result(app, integration, "sent", http_status=200, ago="2 min")
    app.subscriptions(integration, 50)
    assert "what is due waits" not in ctl("status").stdout
    status = ctl("status", "--json").expect(0).json
    assert (status["recent_sent"], status["recent_seconds"], status["eta_seconds"]) == (10, 300, 1500)
    assert re.search("sent +0.0 a second in the last 5 min; what is due is done in about 25 min", ctl("status").stdout)
    app.query("alter table {s}.subscriptions disable trigger user")
    shown = ctl("status").stdout
    assert "DAEMONS WAIT" in shown and "; what is due waits" in shown and "done in about" not in shown


def test_status_counts_from_when_a_row_became_due(app, ctl):
    def longest():
        return ctl("status", "--json").expect(0).json["integrations"][0]["longest_waiting"]
    integration = app.integration("https://x.example/")
    old = app.subscription(integration, created_at="2020-01-02T03:04:05Z")
    claim(app, old)
    end(app, old, "failed", "HTTP 422", 422, "updated_at = '2020-01-02T03:04:06Z'")
    app.query("update {s}.subscriptions set status = 'pending' where id = %s", (old,))
    assert re.fullmatch(r"\d+ (ms|s)", longest()), longest()
    age_events(app, old, "2 h")
    app.query("update {s}.installation set created_at = now() - interval '1 day'")
    assert longest() == "2 h"
    app.subscription(integration, created_at="2020-01-02T03:04:05Z")  # adopted: it could not be sent before
    assert longest() == "1 d"


def test_status_tells_the_longest_wait_whatever_happens_to_the_first_rows(app, ctl):
    """A claim that ended without a request puts nothing back, and what was put back hides no other row."""
    def longest():
        return ctl("status", "--json").expect(0).json["integrations"][0]["longest_waiting"]
    integration = app.integration("https://x.example/")
    app.query("update {s}.installation set created_at = now() - interval '1 day'")
    failed = app.subscriptions(integration, 25)
    for one in failed:
        claim(app, one)
        end(app, one, "failed", "HTTP 422", 422)
    rows = app.subscriptions(integration, 30)
    app.query("update {s}.subscriptions set created_at = now() - interval '2 h' where id = any(%s)", (rows,))
    assert longest() == "2 h"
    for one in rows[:25]:
        claim(app, one)
        end(app, one, "pending", "not sent: the daemon stopped", None)
    assert longest() == "2 h"
    app.query("update {s}.subscriptions set status = 'pending' where id = any(%s)", (failed,))
    assert longest() == "2 h"


@pytest.mark.slow
def test_status_of_many_rows(app, ctl):
    """Quick whatever there is, and says what it has not counted."""
    app.query("insert into {s}.integrations (name) select 'i' || n from generate_series(1, 5) n")
    app.query("alter table {s}.subscriptions disable trigger user")
    app.query("insert into {s}.subscriptions (integration_id, status, payload) select 1 + n %% 5, "
              "case when n %% 4 = 0 then 'pending' else 'sent' end, jsonb_build_object('x', repeat('x', 300)) "
              "from generate_series(1, %s) n", (800_000,))
    app.query("update {s}.subscriptions set status = 'retry', last_http_status = 500, next_attempt_at = now() + interval '1 min' "
              "where id = 4")
    app.query("vacuum analyze {s}.subscriptions")
    begin = time.monotonic()
    status = ctl("status", "--json").expect(0).json
    assert time.monotonic() - begin < 10
    counts = {s["status"]: (s["count"], s["about"]) for s in status["subscriptions"]}
    assert counts["sent"][1] and abs(counts["sent"][0] - 600_000) < 30_000
    assert counts["pending"][1] and abs(counts["pending"][0] - 200_000) < 20_000
    assert [i["reason"] for i in sorted(status["integrations"], key=lambda i: i["id"])] == [None] * 4 + ["retrying: HTTP 500"]
    assert counts["processing"] == (0, False)
    assert [i["waiting"] for i in status["integrations"]] == [40_000] * 5
    assert "about" in ctl("status").stdout


# --- explain ---


def test_explain(app, ctl):
    ids = populate(app)

    def explained(name):
        result = ctl("explain", str(ids[name]), "--json").expect(0)
        text = ctl("explain", str(ids[name])).expect(0).stdout
        for hidden in (CPF, "Maria", "529.982", app.row(ids[name])["cpf"] or "none"):
            assert hidden not in result.stdout and hidden not in text
        return result.json
    due = explained("due")
    assert due["status"] == "pending" and "as soon as a daemon claims it" in due["next"]
    assert due["reasons"] == ["no anubisd is connected to this database"]
    assert [e["type"] for e in due["events"]] == ["created"] and due["events"][0]["published"] == "not yet"
    assert "it is unrouted: no integration" in explained("unrouted")["reasons"][0]
    paused = explained("paused")
    assert "is paused (410 Gone) until" in paused["reasons"][0] and "an attempt at" in paused["next"]
    assert paused["next_at"] == app.value("select to_char(paused_until at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') "
                                          "from {s}.integrations where pause_reason = '410 Gone'")
    assert explained("disabled")["reasons"] == ["its integration is disabled"]
    assert explained("open")["reasons"][0].startswith("its integration's circuit is open (its requests fail); ")
    app.query("update {s}.integration_runtime set circuit_until = now() + interval '5 min', circuit_reason = 'authentication' "
              "where circuit_state = 'open'")
    assert re.search(r"\(its credentials are refused or missing\); one subscription is tried at \S+ \S+Z \(in [45] min\), and at "
                     "once ", explained("open")["reasons"][0])
    app.query("update {s}.integration_runtime set circuit_state = 'half_open' where circuit_state = 'open'")
    assert "one subscription is being tried" in explained("open")["reasons"][0]
    assert "has no endpoint_url" in explained("bare")["reasons"][0]
    scheduled = explained("scheduled")
    assert scheduled["next_at"] == "2100-01-02T03:04:05.000000Z" and "until 2100-01-02" in scheduled["reasons"][0]
    app.query("update {s}.subscriptions set scheduled_to = 'infinity' where id = %s", (ids["scheduled"],))
    scheduled = explained("scheduled")
    assert scheduled["next_at"] is None and scheduled["reasons"] == ["it is scheduled: it waits for ever (infinity)"]
    retry = explained("retry")
    assert retry["last_result"] == "HTTP 503" and "an attempt at" in retry["next"] and retry["attempts"] == 1
    assert [(e["from_status"], e["to_status"]) for e in retry["events"]] == [
        (None, "pending"), ("pending", "processing"), ("processing", "retry")]
    assert retry["events"][2]["result"] == "HTTP 503" and retry["events"][2]["duration_ms"] == 12
    held = explained("held")
    assert "it has been held since" in held["reasons"][0] and held["last_ambiguous"] and held["last_result"] == "connection lost"
    assert explained("timeout")["last_result"] == "timeout"
    assert explained("strange")["last_result"] == "other (its words are in the ledger)"
    failed = explained("failed")
    assert failed["last_result"] == "HTTP 422" and f"(anubisctl retry --ids {ids['failed']})" in failed["next"]
    assert explained("sent")["next"] == 'nothing: "sent" is final' and explained("sent")["sent_at"]
    flying = explained("flying")
    assert flying["claimed_by"] == "host-a" and 'the result of "host-a"' in flying["next"] and flying["lease_expires_at"]
    assert "its lease is over" in explained("lost")["next"]
    assert ctl("explain", "4711").expect(1).stderr == "anubisctl: there is no subscription 4711\n"


def test_explain_tells_who_changed_a_status(app, ctl):
    """A daemon, an operator or the application; attempts alone say how an institution does."""
    integration = app.integration("https://a.example/")
    row, other = app.subscriptions(integration, 2)
    app.query("update {s}.subscriptions set status = 'failed' where id = %s", (row,))
    ctl("retry", "--ids", row).expect(0)
    for number in (row, other):
        claim(app, number)
        end(app, number, "retry", "timeout", None, "held_at = now(), last_ambiguous = true")
    ctl("settle", row, "--as", "failed", "--reason", "Maria has asked").expect(0)
    ctl("settle", other, "--as", "sent", "--reason", "they have it").expect(0)
    app.query("update {s}.subscriptions set status = 'pending' where id = %s", (row,))
    claim(app, row)
    end(app, row, "pending", "not sent: the daemon stopped", None)
    claim(app, row)
    app.query("update {s}.subscriptions set status = 'retry', claim_token = null, last_duration_ms = null, "
              "last_error = 'lease expired: whoever was sending it gave no result' where id = %s", (row,))
    def told(*keys):
        return [tuple(e[k] for k in keys) for e in ctl("explain", row, "--json").expect(0).json["events"]]

    found = told("operation", "to_status", "result")
    user = found[2][2].split()[3]
    assert found == [
        ("create", "pending", None), ("application", "failed", "status set to failed by the application"),
        ("retry", "retry", f"put back by {user} (anubisctl retry)"), ("claim", "processing", None),
        ("send_to_institution", "retry", "timeout"), ("settle", "failed", f"settled by operator {user}"),
        ("application", "pending", None), ("claim", "processing", None), ("release", "pending", None),
        ("claim", "processing", None), ("lease_expired", "retry", "lease expired: whoever was sending it gave no result")]
    assert ctl("status", "--json").expect(0).json["integrations"][0]["failed_in_row"] == 2
    ctl("erase", "--subscription", row, "--yes").expect(0)
    assert told("operation")[-1] == ("erase",)


def test_explain_says_why_a_failure_is_final(app, ctl):
    integration = app.integration("https://a.example/")
    limited = app.integration("https://b.example/", max_attempts=1)

    def reason(number):
        result = ctl("explain", str(number), "--json").expect(0)
        assert "Maria" not in result.stdout
        assert len(result.json["reasons"]) == 1 and result.json["next"].startswith("nothing, until")
        return result.json["reasons"][0], result.json
    words, found = reason(result(app, integration, "failed", f"HTTP 422: {ECHOED}", 422))
    assert "because the institution refused its data (HTTP 422)" in words and found["max_attempts_of"] == "configuration"
    words, found = reason(result(app, limited, "failed", f"HTTP 503: {ECHOED}", 503))
    assert "because its attempts are used up (1); the last one: HTTP 503" in words
    assert (found["max_attempts"], found["max_attempts_of"]) == (1, "integration")
    old = app.subscription(integration, created_at="2020-01-02T03:04:05Z")
    claim(app, old)
    end(app, old, "failed", "timeout", None)
    assert "because it was older than retry.max_age (3 d); the last attempt: timeout" in reason(old)[0]
    by_hand = app.subscription(integration)
    app.query("update {s}.subscriptions set status = 'failed' where id = %s", (by_hand,))
    assert "because the application, or a person, set it" in reason(by_hand)[0]
    # Of a daemon with another configuration than this one.
    assert "not those of this configuration" in reason(result(app, integration, "failed", "timeout", None))[0]
    text = ctl("explain", str(by_hand)).expect(0).stdout
    assert "0 of at most 100 (by this configuration; that of the daemon counts)" in text


def test_explain_finds_by_order_and_by_cpf(app, ctl):
    one = app.subscription(app.integration("https://a.example/", name="Uma"), order_id=77, cpf="529.982.247-25")
    two = app.subscription(None, order_id=78, cpf="52998224725")
    app.subscription(None, order_id=78, cpf="11144477735")
    for arguments in (("--order", "77"), ("--cpf", "111.444.777-35")):
        story = ctl("explain", *arguments, "--json").expect(0).json
        assert story["id"] == (one if arguments[0] == "--order" else two + 1)
    found = ctl("explain", "--cpf", "52998224725", "--json").expect(0).json["subscriptions"]
    assert [(f["id"], f["integration_name"], f["status"]) for f in found] == [(two, None, "pending"), (one, "Uma", "pending")]
    text = ctl("explain", "--order", "78").expect(0).stdout
    assert '"anubisctl explain ID" tells the story of each' in text and "529" not in text and "111" not in text
    assert ctl("explain", "--order", "79").expect(1).stderr == "anubisctl: there is no subscription of that order\n"
    assert ctl("explain", "--cpf", "00000000000").expect(1).stderr == "anubisctl: there is no subscription of that CPF\n"
    for arguments in (("--cpf", "123"), ("--order", "x"), ("--order", "1", "--cpf", "52998224725"), ("1", "--order", "1")):
        ctl("explain", *arguments).expect(64)
    ctl("status", "--order", "1").expect(64)


def test_explain_slots_and_queue(app, ctl):
    integration = app.integration("https://x.example/", max_in_flight=2)
    ids = app.subscriptions(integration, 5)
    claim(app, *ids[:2])
    reasons = ctl("explain", str(ids[4]), "--json").json["reasons"]
    assert "all 2 slots of its integration are taken (max_in_flight)" in reasons
    assert not any("alone" in reason for reason in reasons)
    assert "subscriptions of the same integration that are due before it: 2" in reasons
    app.query("update {s}.integrations set rate_limit = 0.1")
    reasons = ctl("explain", str(ids[4]), "--json").json["reasons"]
    assert "its integration's rate_limit keeps requests apart: they take at least 20 s" in reasons
    # Also the first one in its queue has a time, when another one has just gone out.
    app.query("update {s}.integration_runtime set rate_at = now() + interval '1 h'")
    first, last = (ctl("explain", str(i), "--json").json for i in (ids[2], ids[4]))
    assert any("its integration's rate_limit keeps the next request back until 20" in reason for reason in first["reasons"])
    assert first["next"].startswith("an attempt, not before 20") and parse(first["next_at"]) - parse(last["next_at"]) == \
        datetime.timedelta(seconds=-20)
    app.query("update {s}.integration_runtime set served_by = 'usp-2', served_until = now() + interval '1 min'")
    reasons = ctl("explain", str(ids[4]), "--json").json["reasons"]
    assert any(reason.startswith('"usp-2" alone serves its integration (max_in_flight) until ') for reason in reasons)


def test_explain_published(app, ctl):
    number = app.subscription(app.integration("https://x.example/"))
    claim(app, number)
    end(app, number, "sent", None, 200)
    app.query("update {s}.relay_state set high = 3, gap_first = '{2}', gap_last = '{2}', gap_horizon = '{1}'")
    events = ctl("explain", str(number), "--json").json["events"]
    assert [e["published"] for e in events] == ["yes", "not yet", "yes"]


def test_explain_the_key_that_the_institution_sees(app, ctl, make_daemon, institutions):
    number = app.subscription(app.integration(institutions.url("/good")))
    daemon = make_daemon().start()
    app.wait_states(sent=1)
    explained = ctl("explain", str(number), "--json").expect(0).json
    assert institutions.key(explained["idempotency_key"])["received"] == 1
    wait_for(lambda: all(e["published"] == "yes" for e in ctl("explain", str(number), "--json").json["events"]),
             what="its events to be published")
    assert ctl("status", "--json").json["daemons"] == 1
    daemon.term()


# --- verify ---


@pytest.fixture
def proven(app, ctl, make_daemon, institutions):
    """What a daemon has done, and is proven; the daemon is gone."""
    good = app.integration(institutions.url("/good"), name="good")
    bad = app.integration(institutions.url("/reject/422"), name="bad")
    app.subscriptions(good, 60)
    app.subscriptions(bad, 20)
    daemon = make_daemon().start()
    app.wait_states(sent=60, failed=20)
    wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof:\n{ctl('verify')}", interval=0.3)
    wait_for(lambda: app.value("select sum(successful_sends + failed_sends) from {s}.integrations") == 80, 60, "the counters")
    daemon.term()
    return app


def wrong(ctl, count, *words):
    result = ctl("verify", "--json").expect(1).json
    assert result["verdict"] == "wrong"
    text = "\n".join(result["differences"])
    assert len(result["differences"]) == count, text
    for word in words:
        assert word in text, text
    assert f"WRONG: {count} difference" in ctl("verify").expect(1).stdout


def without_triggers(app, statement):
    app.query("set session_replication_role = replica; " + statement)


def test_verify(proven, ctl):
    result = ctl("verify", "--json").expect(0).json
    assert result["verdict"] == "proven" and result["differences"] == [] and result["events"] == 240
    assert {s["status"]: (s["subscriptions"], s["ledger"]) for s in result["states"] if s["subscriptions"]} == {
        "sent": (60, 60), "failed": (20, 20)}
    assert "proven:" in ctl("verify").stdout


def test_verify_finds_a_status_without_event(proven, ctl):
    without_triggers(proven, "update {s}.subscriptions set status = 'retry' where id in (3, 4)")
    wrong(ctl, 4, 'status "retry": 2 subscriptions, but 0 by the ledger', 'status "sent": 58 subscriptions, but 60',
          'subscription 3: it is "retry", its last event says "sent"', 'subscription 4: it is "retry"')


def test_verify_finds_a_subscription_that_is_gone(proven, ctl):
    without_triggers(proven, "delete from {s}.subscriptions where id = 5")
    wrong(ctl, 2, "subscription 5: it is gone", 'status "sent": 59 subscriptions, but 60')


def test_verify_finds_an_event_too_many_or_too_few(proven, ctl):
    without_triggers(proven, "delete from {s}.subscription_events where id = (select max(id) from {s}.subscription_events "
                             "where event_type = 'sent')")
    result = ctl("verify").expect(1).stdout
    assert 'its last event says "processing"' in result and "counters hold" in result and "the wrong ids are" in result
    assert 'status "sent": 60 subscriptions, but 59 by the ledger' in result


def test_verify_finds_wrong_counters(proven, ctl):
    proven.query("update {s}.integrations set successful_sends = successful_sends + 1 where name = 'good'")
    proven.query("update {s}.integrations set failed_sends = 0 where name = 'bad'")
    wrong(ctl, 2, 'integration 1 "good": successful_sends is 61, but 60 by the events that were handled',
          'integration 2 "bad": failed_sends is 0, but 20')


def test_verify_finds_marks_that_are_no_events(proven, ctl):
    """A bit for a sequence of another type or of none, and one set in two partitions."""
    number = proven.value("select id from {s}.subscription_events where event_type = 'created' order by id limit 1")
    bits = ("update {s}.consumer_bitmaps set bits = set_bit(bits, %s, 1) "
            "where event_type = 'sent' and partition = 0 and chunk = 0")
    proven.query(bits, (number,))
    wrong(ctl, 1, 'the counters hold 61 events "sent"', f"the wrong ids are {number}")
    proven.query(bits.replace("1)", "0)"), (number,))
    ctl("verify").expect(0)
    twice = proven.value("select e.id from {s}.subscription_events e join {s}.consumer_bitmaps b on b.event_type = 'sent' and "
                         "b.partition = 1 and get_bit(b.bits, e.id::int) = 1 order by 1 limit 1")
    proven.query(bits, (twice,))
    wrong(ctl, 1, f"the wrong ids are {twice}")


def test_verify_says_what_may_keep_an_old_event_from_being_handled(proven, ctl):
    """A neighbour in the group that publishes nothing leaves no trace in this database."""
    old = proven.value("select id from {s}.subscription_events where event_type = 'created' order by 1 limit 1")
    without_triggers(proven, f"update {{s}}.subscription_events set created_at = created_at - interval '1 h' where id = {old}")
    proven.query("update {s}.consumer_bitmaps set bits = set_bit(bits, %s, 0) "
                 "where event_type = 'created' and read_model = 'integration'", (old,))
    ctl("replay", "--group", "integration", "--from-ledger").expect(0)  # the analytics
    said = ctl("verify").expect(2).stdout
    assert "published for long" in said and "consumers.group_prefix and a kafka.topic_prefix of its own" in said


def test_verify_keeps_behind_apart_from_wrong(proven, ctl):
    def behind():
        consumers = ctl("status", "--json").json["consumers"]
        return {c["topic"][21:]: c["behind"] for c in consumers if c["consumer_group"] == "anubis-integration-group"}
    handled = proven.value("select e.id from {s}.subscription_events e where event_type = 'failed' order by 1 limit 1")
    proven.query("update {s}.consumer_bitmaps set bits = set_bit(bits, %s, 0) "
                 "where event_type = 'failed' and read_model = 'integration'", (handled,))
    proven.query("update {s}.integrations set failed_sends = failed_sends - 1 where name = 'bad'")
    proven.query("update {s}.integration_runtime set failed = failed - 1, failed_folded = failed_folded - 1 where failed > 0")
    ctl("replay", "--group", "integration", "--from-ledger").expect(0)  # the analytics
    result = ctl("verify", "--json").expect(2).json
    assert (result["verdict"], result["unhandled"], result["unpublished"]) == ("behind", 1, 0)
    assert behind() == {"created": 0, "failed": 1, "retried": 0, "sent": 0}
    assert result["oldest_unhandled_at"] and "not yet caught up" in ctl("verify").stdout
    put_aside = ("insert into {s}.dead_letters (consumer_group, read_model, topic, partition, \"offset\", headers, error) "
                 "values ('anubis-integration-group', 'integration', %s, 0, %s, %s, 'x')")
    failed = "anubis.subscriptions.failed"
    own = proven.value("select event_id from {s}.subscription_events where id = %s", (handled,))
    # What somebody else wrote with its sequence is not this event.
    for number, (topic, name) in enumerate(((failed, str(uuid.uuid4())), (failed, "\\n"), (failed, None),
                                            ("anubis.subscriptions.sent", own))):
        proven.query(put_aside, (topic, number, json.dumps({"sequence": str(handled), "event_id": name})))
    assert ctl("verify", "--json").expect(2).json["unhandled"] == 1 and behind()["failed"] == 1
    # Known, and waiting for somebody.
    proven.query(put_aside, (failed, 10, json.dumps({"sequence": str(handled), "event_id": own})))
    assert ctl("verify", "--json").expect(0).json["dead_letters"] == 1
    assert behind() == {"created": 0, "failed": 0, "retried": 0, "sent": 0}
    assert "1 event put aside" in ctl("verify").stdout
    proven.subscription(1)
    result = ctl("verify", "--json").expect(2).json
    assert (result["unhandled"], result["unpublished"]) == (0, 1)
    high = proven.value("select high from {s}.relay_state")
    for table in ("relay_state", "relay_saved"):
        proven.query(f"update {{s}}.{table} set gap_first = array[%s], gap_last = array[%s], gap_horizon = array[1], "
                     "high = high + 1", (high - 5, high - 4))
    assert ctl("verify", "--json").expect(2).json["unpublished"] == 2


def test_verify_takes_integrations_as_they_come_and_go(proven, ctl):
    """Created later, with nothing sent; deleted, with its subscriptions out of reach of any proof of counters."""
    proven.integration("https://later.example/")
    ctl("verify").expect(0)
    without_triggers(proven, "delete from {s}.integrations where name = 'bad'")
    ctl("verify").expect(0)


def test_a_test_database_that_was_emptied_is_proven_again(proven, ctl, make_daemon):
    """Marks of what is gone are no difference; counters are brought down by the command that is named. No group stops."""
    proven.query("update {s}.installation set allows_cleaning = true")
    proven.query("delete from {s}.subscription_events; delete from {s}.subscriptions; "
                 "delete from {s}.integrations where name = 'bad'")
    found = ctl("verify", "--json").expect(1).json
    assert any("replay --group integration --from-ledger" in r for r in found["remedies"]), found
    assert not any("wrong ids" in d for d in found["differences"]), found
    ctl("replay", "--group", "integration", "--from-ledger").expect(0)
    ctl("verify").expect(0)
    proven.query("delete from {s}.consumer_bitmaps")
    make_daemon().start()
    proven.subscriptions(proven.value("select id from {s}.integrations where name = 'good'"), 3)
    wait_for(lambda: proven.value("select sum(sent) from {s}.integration_runtime") == 3, 60, "the new ones to be counted")
    wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof:\n{ctl('verify')}", interval=0.3)


def test_verify_names_only_the_first_of_many(proven, ctl):
    without_triggers(proven, "update {s}.subscriptions set status = 'processing'")
    result = ctl("verify", "--json").expect(1).json
    assert result["unlike_last_event"] == 80
    assert sum(d.startswith("subscription ") for d in result["differences"]) == 20
    assert any("and 60 more subscriptions" in d for d in result["differences"])


def manual(place):
    """The statements of a section of the manual, for subscription 4711, integration 7 and three too many."""
    with open("man/anubisctl.8", encoding="utf-8") as f:
        section = f.read().partition(".Sh WHEN THE PROOF IS WRONG")[2].partition(f".Ss {place}")[2]
    return re.findall(r"\.Bd -literal -offset indent\n(.*?)\.Ed", section.partition("\n.S")[0], re.DOTALL)


REPAIRS = {
    "status": ("update {s}.subscriptions set status = 'retry' where id = 3", "A subscription is not", 1, "triggers did not fire"),
    "status, for the row": ("update {s}.subscriptions set status = 'retry' where id = 3", "A subscription is not", 0,
                            "triggers did not fire"),
    "unknown": ("insert into {s}.subscriptions (id, integration_id) values (3000, 1)", "A subscription is not", 0,
                "triggers did not fire"),
    "gone": ("delete from {s}.subscriptions where id = 3", "A subscription is gone", 0, "were deleted"),
    "counter": ("update {s}.integrations set successful_sends = successful_sends + 3 where id = 1", "A counter differs", None,
                "Something besides anubisd counts"),
    "count": ("update {s}.integration_runtime set sent = sent + 3, sent_folded = sent_folded + 3 where integration_id = 1",
              "A counter differs", 0, "Something besides anubisd counts"),
    "mark": ("update {s}.consumer_bitmaps set bits = set_bit(bits, 3, 1) where event_type = 'sent' and partition = 0",
             "Wrong ids are marked", 0, "clear those marks"),
}


@pytest.mark.parametrize("name", sorted(REPAIRS))
def test_what_helps_when_the_proof_is_wrong(proven, ctl, name):
    """Each kind of difference is told with its remedy, and the manual's statement removes it."""
    damage, place, number, words = REPAIRS[name]
    without_triggers(proven, damage)
    found = ctl("verify", "--json").expect(1).json
    assert any(words in r for r in found["remedies"]), found
    assert "WHEN THE PROOF IS WRONG" in ctl("verify").expect(1).stdout
    repair = "" if number is None else manual(place)[number]
    subscription = {"unknown": "3000", "mark": "3"}.get(name, "3")
    repair = repair.replace("4711", subscription).replace("= 7", "= 1")
    if repair:
        proven.query(repair)
    else:
        assert "replay --group integration --from-ledger" in found["remedies"][0]
        ctl("replay", "--group", "integration", "--from-ledger").expect(0)
    # An event that was appended is not published yet; nothing is wrong.
    left = ctl("verify", "--json")
    assert left.code in (0, 2) and left.json["differences"] == left.json["remedies"] == [], left
    assert left.code == (2 if place.startswith("A subscription is not") and number == 0 else 0)


@pytest.mark.parametrize("lost", ["true", "event_type = 'created'", "event_type = 'sent'", "partition = 0"])
def test_marks_that_were_lost_are_told_apart_and_come_back(proven, ctl, make_daemon, lost):
    """Emptied by a hand, or restored from an older dump than the counters."""
    proven.query("delete from {s}.consumer_bitmaps where read_model = 'integration' and " + lost)
    found = ctl("verify", "--json").expect(1).json
    assert any("Marks of events that are counted are gone" in r for r in found["remedies"]), found
    assert not any("Something besides anubisd counts" in r for r in found["remedies"]), found
    make_daemon().start()
    ctl("replay", "--group", "integration", "--from-ledger").expect(0)
    ctl("replay", "--group", "integration").expect(0)
    wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof:\n{ctl('verify')}", interval=0.3)
    wait_for(lambda: proven.value("select sum(successful_sends + failed_sends) from {s}.integrations") == 80, 60, "the counters")


def test_an_old_backlog_is_no_work_that_goes_on(proven, ctl):
    """Marks, counters and analytics from the same older dump, but not the offsets: nothing contradicts, and nothing comes."""
    proven.query("delete from {s}.consumer_bitmaps where read_model = 'integration'")
    ctl("replay", "--group", "integration", "--from-ledger").expect(0)
    assert "nothing is wrong" in ctl("verify").expect(2).stdout
    without_triggers(proven, "alter table {s}.subscription_events disable trigger user; "
                             "update {s}.subscription_events set created_at = created_at - interval '1 hour'; "
                             "alter table {s}.subscription_events enable trigger user")
    said = ctl("verify").expect(2).stdout
    assert "nothing is wrong" not in said and "anubisctl replay --group integration" in said


def test_verify_waits_for_the_work(app, ctl, make_daemon, institutions):
    """Until all that is due is sent, published and counted; what is not due is not waited for."""
    good = app.integration(institutions.url("/slow/200"))
    app.subscription(good, scheduled_to="2100-01-01T00:00:00Z")
    app.subscription(app.integration(institutions.url("/good"), paused_until="2100-01-01T00:00:00Z"))
    app.subscriptions(good, 200)
    waiting = Child([program("anubisctl"), "-c", ctl.path, "--environment", "/dev/null", "verify", "--wait"],
                    env=clean_environment()).start()
    waiting.wait_output("no anubisd is connected to this database: waiting", 30)
    make_daemon().start()
    wait_for(lambda: not waiting.is_running(), 90, lambda: f"the end: {waiting.output}")
    assert waiting.returncode == 0 and "proven:" in waiting.output, waiting.output
    assert app.states() == {"sent": 200, "pending": 2}
    assert app.value("select sum(sent) from {s}.integration_runtime") == 200
    waiting.close()


@pytest.mark.slow
def test_verify_is_not_silent(proven, ctl):
    """A step that takes long says so each half minute, also where lines stay."""
    proven.query("create or replace function {s}.integration_required() returns boolean language sql immutable parallel safe "
                 "as $$ select pg_sleep(33) is not null $$")
    result = ctl("verify", deadline=120).expect(0)
    line = r"anubisctl: 3/10 looking for integrations that are gone … \((29|3\d) s\)\n"
    assert re.fullmatch(line, result.stderr), result.stderr


def test_an_integration_that_does_not_exist_is_named(app, ctl):
    app.integration("https://usp.example/", enabled=False)
    for words in (["retry"], ["retry", "--dry-run"], ["report"], ["report", "--format", "csv"]):
        assert "there is no integration 999" in ctl(*words, "--integration", "999").expect(1).stderr
        ctl(*words, "--integration", "1").expect(0)
    assert "It was last used here already" in ctl("installation", "--same").expect(0).stdout


def test_verify_tells_why_daemons_wait(proven, ctl, daemon):
    """And not that nothing is wrong, while nothing goes on."""
    daemon.term()
    proven.subscription(1)
    assert "nothing is wrong" in ctl("verify").expect(2).stdout
    proven.query("select setval('{s}.ledger_id_seq', 5)")
    found = ctl("verify").expect(2).stdout
    assert "ids would be given out twice" in found and "nothing is wrong" not in found


def test_verify_changes_nothing(proven, ctl):
    """It runs where nothing can be written."""
    database = proven.database
    database.query(f'alter database "{database.name}" set default_transaction_read_only = on')
    ctl("verify").expect(0)
    ctl("status").expect(0)
    ctl("explain", "1").expect(0)


def test_terminal_sees_progress(proven, ctl):
    """On a terminal only, and nothing of it is left."""
    ours, theirs = pty.openpty()
    environment = {k: v for k, v in {**os.environ, **clean_environment()}.items() if v is not None}
    done = subprocess.run([program("anubisctl"), "-c", ctl.path, "verify"], stderr=theirs, stdout=subprocess.PIPE,
                          env=environment, check=False)
    os.close(theirs)
    shown = ""
    with contextlib.suppress(OSError):  # the end of what a closed terminal has
        while part := os.read(ours, 65536):  # the kernel hands it over in parts
            shown += part.decode()
    os.close(ours)
    assert done.returncode == 0 and "1/10 counting" in shown and shown.endswith("\r\x1b[K")


# --- pause, resume, retry ---

def test_an_integration_is_paused_and_resumed(app, ctl):
    integration = app.integration("https://a.example/", name="USP")
    paused = "select paused_until = 'infinity', pause_reason from {s}.integrations"
    assert ctl("pause", integration, "--reason", "they asked", "--dry-run").expect(0).stdout.count("Nothing was changed")
    assert app.query(paused) == [(None, None)]
    answer = ctl("pause", integration, "--reason", "they asked", "--json").expect(0).json
    assert answer == {"name": "USP", "paused_until": None}
    (forever, reason), = app.query(paused)
    assert forever and reason.startswith("they asked (")
    waits = app.subscription(integration)
    for shown in ctl("status"), ctl("explain", str(waits)):
        assert f'"anubisctl resume {integration}"' in " ".join(shown.expect(0).stdout.split())
    answer = ctl("pause", integration, "--reason", "lunch", "--for", "90m", "--json").expect(0).json
    assert answer["paused_until"].startswith("20")
    assert app.value("select round(extract(epoch from paused_until - now()) / 60) from {s}.integrations") == 90
    answer = ctl("resume", integration, "--json").expect(0).json
    assert answer["was_paused"] is True and answer["pause_reason"].startswith("lunch (")
    assert app.query("select paused_until, pause_reason from {s}.integrations") == [(None, None)]
    assert ctl("resume", integration, "--json").expect(0).json["was_paused"] is False


@pytest.mark.parametrize("words, code, said", [
    (["pause", "1"], 64, "--reason"), (["pause", "x", "--reason", "y"], 64, 'not "x"'),
    (["pause", "7", "--reason", "y"], 1, "no integration 7"), (["pause", "1", "--reason", "y", "--for", "soon"], 64, '"soon"'),
    (["pause", "1", "--reason", "y" * 1001], 64, "1000 bytes"),
    (["resume", "7"], 1, "no integration 7"), (["resume", "1", "--reason", "y"], 64, "no --reason for"),
    (["retry"], 64, "needs a choice"), (["retry", "--rate", "5"], 64, "choice"), (["retry", "--ids", "1,x"], 64, '"x"'),
    (["retry", "--ids", ","], 64, "--ids"), (["retry", "--error", ""], 64, "--error"),
    (["retry", "--since", "yesterday"], 64, "yesterday"), (["retry", "--since", "2026-02-30"], 64, "2026-02-30"),
    (["retry", "--status", "0"], 64, "--status"),
    (["status", "--ids", "1"], 64, "--ids"), (["retry", "--until", "soon"], 64, "--until"),
    (["resend"], 64, "is missing"), (["resend", "x"], 64, '"x"'), (["resend", "1", "--rate", "0"], 64, "--rate"),
    (["audit"], 64, "is missing"), (["verify", "--full"], 64, "of verify --audit"),
    (["verify", "--anchor", "/dev/null"], 64, "of verify --audit"), (["verify", "--key", "/dev/null"], 64, "of verify --audit"),
    (["verify", "--audit", "--anchor", "/dev/null"], 65, "/dev/null has no checkpoint in it"),
    (["verify", "--audit", "--anchor", "/etc/passwd"], 65, "/etc/passwd, line 1: this is no checkpoint"),
    (["verify", "--audit", "--anchor", "/does-not-exist"], 66, "No such file"),
    (["verify", "--audit", "--key", "/dev/null"], 65, "/dev/null must hold public Ed25519 keys"),
    (["audit", "prove"], 64, "is missing"), (["audit", "prove", "x"], 64, '"x"'),
    (["audit", "tail"], 64, '"tail"'), (["audit", "head", "1"], 64, "too many"),
    (["audit", "head", "--reason", "x"], 64, "--reason"),
    *((command + order, 64, said) for command in (["report"], ["report", "--reconciliation"], ["retry"]) for order, said in (
        (["--since", "1h", "--until", "2h"], "there is nothing between them"),
        (["--since", "2026-01-02", "--until", "2026-01-01 23:59"],
         "--since is 2026-01-02 00:00:00Z, which is after --until, 2026-01-01 23:59:00Z"),
        (["--since", "2026-01-01T00:00-03:00", "--until", "2026-01-01T02:59Z"],
         "is 2026-01-01 03:00:00Z, which is after --until"),
        (["--since", "2999-01-01"], "--since is 2999-01-01 00:00:00Z, which is after "))),
    (["report", "--since", "2026-11-24 08:00 Nowhere/Zone"], 64, 'a time cannot be read: time zone "Nowhere/Zone"'),
    (["retry", "--until", "2026-11-24T08:00+16:00"], 64, "a time cannot be read: time zone displacement out of range"),
    (["replay", "--group", "external", "--from", "2026-11-24T08:00 Nowhere/Zone"], 64, "a time cannot be read"),
    (["report", "--until", "25h"], 64, "there is nothing between"), (["report", "--since", "1h", "--until", "1h"], 0, ""),
    *((["replay", "--group", group, "--from", "2999-01-01"], 64, "--from is 2999-01-01 00:00:00Z, which is after now")
      for group in ("integration", "monitoring", "external")),
    (["resend", "1", "--reason", ""], 64, "--reason"), (["erase"], 64, "--subscription ID or --cpf CPF"),
    (["integrations", "1"], 64, "too many")])
def test_wrong_orders_are_refused(app, ctl, words, code, said):
    assert said in ctl(*words).expect(code).stderr


COMMANDS_WITH_TIMES = [["report", "--since"], ["report", "--until"], ["report", "--reconciliation", "--since"],
                       ["retry", "--dry-run", "--since"], ["retry", "--dry-run", "--until"],
                       ["replay", "--group", "external", "--dry-run", "--from"]]


def test_nothing_stands_behind_a_time(app, ctl):
    """Postgres would take some words there for the whole time, and pass over others."""
    for behind in ("-infinity", " infinity", " now", " epoch", " today", " tomorrow", " allballs", " Mon", " Jan", " dst", " BC",
                   " PM", " at", ",5", " (x)", " UTC UTC", " +03 UTC", "+03+02", ".", ":00.", " -", " ;", " T", "é",
                   " UTC-infinity", "+03:00 epoch", " J2451187", "/UTC", ":00Z now", "Z\n", "+16:00", " Nowhere"):
        for words in COMMANDS_WITH_TIMES[:1] if behind != "-infinity" else COMMANDS_WITH_TIMES:
            assert ctl(*words, "2026-11-24T08:00" + behind).code == 64, (words, behind)
    for behind in ("", "Z", "z", " Z", ":30", ":30.5", ":30.123456Z", "+03", "-03:00", "-0330", " +03:00", " UTC",
                   " America/Sao_Paulo", "America/Port-au-Prince", " Etc/GMT+3", " EST5EDT"):
        ctl("report", "--since", "2026-11-24T08:00" + behind).expect(0)


# "é" in Latin-1, as from an old terminal.
@pytest.mark.parametrize("words", [["pause", "1", "--reason", "\udce9"], ["settle", "1", "--as", "sent", "--reason", "\udce9"],
                                   ["resend", "1", "--reason", "f\udce9rias"], ["retry", "--error", "f\udce9rias"],
                                   ["pause", "\udce9", "--reason", "x"], ["explain", "--order", "\udce9"],
                                   ["alerts", "silence", "--integration", "1", "--for", "1h", "--reason", "\udce9"]])
def test_texts_are_utf8(ctl, words):
    found = ctl(*words).expect(64)
    assert "not UTF-8" in found.stderr and "SQLSTATE" not in found.stderr


def test_help_tells_which_reasons_are_needed():
    usage = {line.split()[0]: line for line in anubisctl("help").stdout.splitlines() if line.startswith("  ") and line.split()}
    assert "[--reason]" in usage["resend"]
    assert all("--reason" in usage[c] and "[--reason]" not in usage[c] for c in ("pause", "settle"))


def test_failed_subscriptions_are_put_back(app, ctl):
    usp, puc = app.integration("https://usp.example/"), app.integration("https://puc.example/")
    ids = app.subscriptions(usp, 1200) + app.subscriptions(puc, 3)
    app.query("update {s}.subscriptions set status = 'failed', attempts = 5, last_http_status = 400 + id %% 2 * 22, "
              "last_error = case when id %% 2 = 0 then 'HTTP 400: CPF' else 'HTTP 422: course' end where id <> %s", (ids[0],))
    app.query("update {s}.subscriptions set updated_at = now() - interval '3 days' where id = %s", (ids[5],))
    assert ctl("retry", "--integration", usp, "--dry-run", "--json").expect(0).json == {
        "chosen": 1199, "integrations": 1, "put_back": 0, "refused": [], "not_chosen": []}
    assert app.states() == {"failed": 1202, "pending": 1}
    for choice, count in ((["--ids", f"{ids[1]},{ids[2]},{ids[0]}"], 2), (["--status", "422", "--integration", puc], 2),
                          (["--error", "CPF", "--integration", puc], 1), (["--since", "1h"], 1199 - 2 - 1),
                          (["--since", "2020-01-01 00:00", "--until", "4d"], 0), (["--until", "2d"], 1)):
        assert ctl("retry", *choice, "--json").expect(int(choice[0] == "--ids")).json["put_back"] == count, choice
    assert app.states() == {"retry": 1202, "pending": 1}
    assert app.query("select distinct attempts, next_attempt_at from {s}.subscriptions where status = 'retry'") == [(0, None)]
    event = app.events(ids[1])[-1]
    assert event["event_type"] == "retried" and re.fullmatch(r"put back by \S+ \(anubisctl retry\)", event["error_message"])


@pytest.mark.parametrize("mode", [[], ["--dry-run"]])
def test_what_is_named_and_not_put_back_is_told(app, ctl, mode):
    usp, puc = app.integration("https://usp.example/"), app.integration("https://puc.example/")
    ids = app.subscriptions(usp, 12)
    app.query("update {s}.subscriptions set status = 'failed' where id = any (%s)", (ids[:2],))
    app.query("update {s}.subscriptions set integration_id = %s where id = %s", (puc, ids[1]))
    app.query("update {s}.subscriptions set status = 'sent' where id = any (%s)", (ids[2:9],))
    app.query("update {s}.subscriptions set status = 'failed', erased_at = now() where id = %s", (ids[9],))
    named = ",".join(map(str, [ids[11] + 7, *ids]))
    found = ctl("retry", "--ids", named, "--integration", usp, "--json", *mode).expect(1).json
    assert found["chosen"] == 1 and found["put_back"] == (0 if mode else 1)
    assert found["not_chosen"] == [
        f"1 of --ids was erased: there is nothing to be sent ({ids[9]})",
        f"1 of --ids has failed, but the other options leave it out ({ids[1]})",
        f"1 of --ids: there is no such subscription ({ids[11] + 7})",
        f'2 of --ids are not failed: their status is "pending" ({ids[10]}, {ids[11]})',
        f'7 of --ids are not failed: their status is "sent" ({", ".join(map(str, ids[2:7]))}, …)']


def test_they_are_put_back_gently(app, ctl):
    app.subscriptions(app.integration("https://usp.example/"), 600)
    app.query("update {s}.subscriptions set status = 'failed'")
    ctl("retry", "--status", "999").expect(0)
    assert ctl("retry", "--since", "1d", "--rate", "10", "--json").expect(0).json["put_back"] == 600
    assert 59 <= app.value("select extract(epoch from max(next_attempt_at) - min(next_attempt_at)) from {s}.subscriptions") < 75


def test_one_that_a_trigger_refuses_keeps_no_other_back(app, ctl):
    """Each command that changes many subscriptions names it, and does the others."""
    ids = app.subscriptions(app.integration("https://usp.example/"), 600)
    app.query("create function {s}.f() returns trigger language plpgsql as $$ begin raise 'Maria'; end $$")

    def refuse(event, condition):
        app.query("drop trigger if exists mine on {s}.subscriptions; "
                  f"create trigger mine before {event} on {{s}}.subscriptions for each row when ({condition}) "
                  "execute function {s}.f()")

    def done(key, *words):
        found = ctl(*words, "--json").expect(1)
        assert "Maria" not in found.stdout
        return len(found.json[key]) if isinstance(found.json[key], list) else found.json[key], found.json["refused"]
    said = [f"subscription {n}: a rule or a trigger of the application refuses the change (SQLSTATE P0001)"
            for n in (ids[3], ids[555])]
    app.query("update {s}.subscriptions set status = 'failed', last_http_status = 422")
    refuse("update", f"new.id in ({ids[3]}, {ids[555]})")
    assert done("put_back", "retry", "--status", "422") == (598, said)
    refuse("update", "false")
    app.query("update {s}.subscriptions set status = 'retry', held_at = now()")
    refuse("update", f"new.id in ({ids[3]}, {ids[555]})")
    assert done("settled", "settle", *ids, "--as", "sent", "--reason", "they have it") == (598, said)
    refuse("update", "false")
    app.query("update {s}.subscriptions set status = 'sent', held_at = null where status <> 'sent'")
    refuse("insert", f"new.resend_of in ({ids[3]}, {ids[555]})")
    assert done("resent", "resend", *ids) == (598, said)


# --- resend, integrations ---

def sent(app, *ids):
    claim(app, *ids)
    for subscription in ids:
        end(app, subscription, "sent", None, 200, "sent_at = now()")


def test_what_was_sent_is_sent_again_as_a_new_subscription(app, ctl):
    integration = app.integration("https://usp.example/")
    ids = [app.subscription(integration, payload='{"n": 1.50}') for _ in range(4)]
    sent(app, *ids[:3])
    dry = ctl("resend", *ids, "--dry-run", "--json").expect(1).json
    assert dry["resent"] == [{"id": i, "copy": None} for i in ids[:3]]
    assert app.value("select count(*) from {s}.subscriptions") == 4
    done = ctl("resend", ids[0], ids[0], ids[3], 999, "--reason", "they lost it", "--json").expect(1).json
    copy = done["resent"][0]["copy"]
    assert done["resent"] == [{"id": ids[0], "copy": copy}] and done["refused"] == [
        f'subscription {ids[3]} was not sent: its status is "pending"', "there is no subscription 999"]
    columns = "integration_id, order_id, origin, cpf, payload::text"
    original, = app.query("select " + columns + " from {s}.subscriptions where id = %s", (ids[0],))
    assert app.query("select resend_of, status, attempts, sent_at, " + columns + " from {s}.subscriptions where id = %s",
                     (copy,)) == [(ids[0], "pending", 0, None, *original)]
    seeds = app.query("select idempotency_seed from {s}.subscriptions where id = any(%s)", ([ids[0], copy],))
    assert len(set(seeds)) == 2
    created, = app.events(copy)
    assert created["event_type"] == "created" and re.fullmatch(r"operator \S+: they lost it", created["decided_by"])
    again = ctl("resend", ids[0], "--json").expect(1).json
    assert again["resent"] == [] and f"{copy} goes out in its place" in again["refused"][0]
    assert ctl("explain", copy, "--json").expect(0).json["resend_of"] == ids[0]
    assert ctl("explain", ids[0], "--json").expect(0).json["resent_as"] == copy
    assert re.search(f"sent again as +{copy}\n", ctl("explain", ids[0]).stdout)


def test_a_locked_one_is_left_alone_and_many_go_gently(app, ctl):
    ids = app.subscriptions(app.integration("https://usp.example/"), 700)
    app.query("update {s}.subscriptions set status = 'sent', sent_at = now()")
    other = app.database.connect(autocommit=False)
    other.cursor().execute(f"select from {app.schema}.subscriptions where id = %s for update", (ids[5],))
    done = ctl("resend", *ids, "--rate", "10", "--json").expect(1).json
    other.close()
    assert len(done["resent"]) == 699 and done["refused"] == [f"subscription {ids[5]} is locked by another session: try again"]
    assert 69 <= app.value("select extract(epoch from max(next_attempt_at) - min(next_attempt_at)) from {s}.subscriptions") < 80
    assert len(ctl("resend", *ids, "--json").expect(1).json["resent"]) == 1
    assert app.value("select count(*) from {s}.subscriptions where resend_of is not null") == 700


def test_every_integration_is_listed_with_what_is_set(app, ctl):
    app.integration("https://usp.example:8443/t0ken?k=s3cret", name="USP", auth_token="t0psecret", timeout_ms=1500,
                    max_in_flight=4, rate_limit="2.5", max_attempts=7,
                    delivery_settings={"headers": {"X": "hidden"}, "on_ambiguous": "hold"})
    app.integration("https://puc.example/", name="PUC", paused_until="infinity", pause_reason="they asked",
                    delivery_settings={"auth": {"type": "none"}})
    app.integration(None, name="Later", auth_token=None, enabled=False)
    listed = ctl("integrations", "--json").expect(0).json["integrations"]
    usp = {"id": 1, "name": "USP", "state": "ok", "enabled": True, "circuit_state": "closed", "paused": False,
           "paused_until": None, "pause_reason": None,
           "endpoint": "https://usp.example:8443", "auth": "bearer",
           "timeout_ms": 1500, "max_in_flight": 4, "rate_limit": 2.5, "max_attempts": 7,
           "settings": "headers, on_ambiguous", "sent": 0, "failed": 0, "next_probe_at": None}
    none = {**usp, **dict.fromkeys(("timeout_ms", "max_in_flight", "rate_limit", "max_attempts", "settings"))}
    assert listed == [usp, {**none, "id": 2, "name": "PUC", "state": "paused", "paused": True, "pause_reason": "they asked",
                            "endpoint": "https://puc.example", "auth": "none"},
                      {**none, "id": 3, "name": "Later", "state": "disabled", "enabled": False, "endpoint": None, "auth": None}]
    shown = ctl("integrations").expect(0).stdout
    assert "they asked" in shown and "set: timeout 1500 ms, 4 at once, 2.5 a second, 7 attempts, headers, on_ambiguous" in shown
    assert not re.search("t0ken|s3cret|t0psecret|hidden", shown)
