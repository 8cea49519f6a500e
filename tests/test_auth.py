"""How requests say who sends them: delivery_settings.auth and headers. Each is taken as it is meant, or refused when it is
written; a change holds for the next request; no secret stands anywhere but in the request."""
import base64
import contextlib
import json
import random

import pytest
from harness.certificates import Certificates
from harness.postgres import refused
from harness.processes import build_folder, wait_for
from harness.recording import RecordingServer

SECRET = "s3cr3t-Geheimnis"
OPENED = "select 1 from {s}.integration_runtime where circuit_reason = 'authentication'"


def basic(user, password):
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture(scope="module")
def server():
    with RecordingServer() as recording:
        yield recording


class Sender:
    """One integration, whose settings are changed between its requests."""

    def __init__(self, app, server, path):
        self.app, self.server, self.path = app, server, path
        self.number = app.integration(server.url + path, auth_token=None)

    def set(self, settings, token=None):
        self.app.query("update {s}.integrations set delivery_settings = %s, auth_token = %s where id = %s",
                       (json.dumps(settings), token, self.number))

    def send(self, settings=None, token=None):
        """The request that follows."""
        if settings is not None:
            self.set(settings, token)
        wanted = len(self.server.at(self.path)) + 1
        self.app.subscription(self.number)
        wait_for(lambda: len(self.server.at(self.path)) == wanted, 60, "the request")
        self.app.wait_settled()
        return self.server.at(self.path)[-1]


def everything_said(app, daemon, ctl):
    """All that people and other programs are shown: journal, events, rows, status."""
    rows = app.query("select row_to_json(e)::text from {s}.subscription_events e union all "
                     "select (to_jsonb(s) - 'payload')::text from {s}.subscriptions s union all "
                     "select row_to_json(r)::text from {s}.integration_runtime r union all "
                     "select pause_reason from {s}.integrations")
    shown = ctl("status", "--json").stdout + ctl("status").stdout + "".join(
        ctl("explain", str(n)).stdout for (n,) in app.query("select id from {s}.subscriptions order by id desc limit 3"))
    return daemon.log + shown + str(rows) + str(daemon.notifications)


def test_each_kind_of_authentication(app, make_daemon, ctl, server, tmp_path):
    """One after the other, without a restart: the next request carries the new one, and nothing of the last."""
    (tmp_path / "usp").write_text(f"{SECRET}-file\n")
    daemon = make_daemon(env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).start()
    sender = Sender(app, server, "/kinds")
    cases = [
        ({}, None, {"authorization": None}),
        ({}, f"{SECRET}-0", {"authorization": f"Bearer {SECRET}-0"}),
        ({"auth": {"type": "bearer"}}, f"{SECRET}-1", {"authorization": f"Bearer {SECRET}-1"}),
        ({"auth": {"type": "none"}}, f"{SECRET}-2", {"authorization": None}),
        ({"auth": {"type": "basic", "username": "anúbis", "password": f"{SECRET}:ç"}}, "x",
         {"authorization": basic("anúbis", f"{SECRET}:ç")}),
        ({"auth": {"type": "basic", "username": "anubis", "password": "credential:usp"}}, None,
         {"authorization": basic("anubis", f"{SECRET}-file")}),
        ({"auth": {"type": "header", "name": "X-Api-Key", "value": f"{SECRET}-3"}}, "x",
         {"authorization": None, "x-api-key": f"{SECRET}-3"}),
        ({"auth": {"type": "header", "name": "Authorization", "value": f"ApiKey {SECRET}"}}, "x",
         {"authorization": f"ApiKey {SECRET}", "x-api-key": None}),
        ({"auth": {"type": "header", "name": "X-Api-Key", "value": "credential:usp"}, "headers": {"x-api-key": "another"}}, None,
         {"authorization": None, "x-api-key": f"{SECRET}-file"}),
        # A token of no use is no hindrance where it is not used.
        ({"auth": {"type": "none"}}, "credential:nowhere", {"authorization": None, "x-api-key": None}),
    ]
    for settings, token, headers in cases:
        request = sender.send(settings, token)
        assert {name: request.header(name) for name in headers} == headers, settings
    assert SECRET not in everything_said(app, daemon, ctl)


def memory_of(pid):
    """All that the process could read, its code and files left out."""
    found = []
    with open(f"/proc/{pid}/maps", encoding="ascii", errors="replace") as maps, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        for line in maps:
            span, rights, *_, inode = line.split()[:5]
            if not rights.startswith("rw") or inode != "0" or "[v" in line:
                continue
            start, end = (int(x, 16) for x in span.split("-"))
            memory.seek(start)
            with contextlib.suppress(OSError):
                found.append(memory.read(end - start))
    return found


@pytest.mark.skipif("asan" in build_folder() or "tsan" in build_folder(), reason="a sanitizer keeps what was freed")
def test_credentials_leave_the_memory(app, make_daemon, server, tmp_path):
    """Those that are no longer used, to the last piece; the one in use shows that they would be found. What stands in the
    database itself passes through buffers of libpq."""
    words = {name: f"{SECRET}-{name}-" + random.randbytes(1500).hex() for name in ("token", "value", "password", "used")}
    for name, text in words.items():
        (tmp_path / name).write_text(text)
    daemon = make_daemon(env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).start()
    sender = Sender(app, server, "/memory")
    assert sender.send({}, "credential:token").header("authorization") == "Bearer " + words["token"]
    by_header = {"type": "header", "name": "X-Key", "value": "credential:value"}
    assert sender.send({"auth": by_header}).header("x-key") == words["value"]
    by_password = {"type": "basic", "username": "anubis", "password": "credential:password"}
    line = sender.send({"auth": by_password}).header("authorization")
    assert sender.send({}, "credential:used").header("authorization") == "Bearer " + words["used"]
    memory = memory_of(daemon.pid)

    def pieces_left(text):
        return [at for at in range(0, len(text) - 40, 100) if any(text[at:at + 40].encode() in piece for piece in memory)]
    assert pieces_left(words["used"])
    former = {**words, "basic": line.removeprefix("Basic ")}
    assert {name: left for name, text in former.items() if name != "used" and (left := pieces_left(text))} == {}


def test_headers_of_its_own(app, make_daemon, server, tmp_path):
    (tmp_path / "key").write_text(SECRET)
    make_daemon(env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).start()
    sender = Sender(app, server, "/headers")
    plain = sender.send({})
    assert (plain.header("content-type"), plain.header("accept")) == ("application/json", "*/*")
    assert plain.header("user-agent").startswith("anubisd/")
    request = sender.send({"headers": {
        "X-Campus": " sul ", "X-Key": "credential:key", "content-type": "application/vnd.api+json",
        "Accept": "application/json", "User-Agent": "Mozilla/5.0", **{f"X-{i}": "x" for i in range(27)}}})
    found = {name: request.header(name) for name in ("x-campus", "x-key", "content-type", "accept", "user-agent")}
    assert found == {"x-campus": "sul", "x-key": SECRET, "content-type": "application/vnd.api+json", "accept": "application/json",
                     "user-agent": "Mozilla/5.0"}
    assert request.header("x-26") == "x" and request.header("idempotency-key") and request.header("traceparent")
    again = sender.send({"headers": {"X-Campus": "norte"}})
    assert (again.header("x-campus"), again.header("x-key")) == ("norte", None)
    assert again.header("user-agent") == plain.header("user-agent")


@pytest.fixture(scope="module")
def authority():
    return Certificates()


def test_clients_show_their_certificates(app, make_daemon, authority, tmp_path):
    """Two integrations on one server, and one with a certificate that it does not know: each is who it is, also after an
    exchange, and uses no connection of another one's."""
    people = {name: authority.client(name) for name in ("usp", "unesp", "usp-new")}
    stranger = Certificates().client("stranger")
    (tmp_path / "key").write_text(people["unesp"][1])
    with RecordingServer(certificates=authority, client_ca=authority.root) as server:
        daemon = make_daemon({"delivery": {"ca_file": authority.root}, "circuit_breaker": {"recovery_timeout": "500ms"}},
                             env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).start()
        usp, unesp = Sender(app, server, "/usp"), Sender(app, server, "/unesp")
        mtls = {name: {"auth": {"type": "mtls", "certificate": c, "key": k}} for name, (c, k) in people.items()}
        mtls["unesp"]["auth"]["key"] = "credential:key"
        usp.set(mtls["usp"])
        unesp.set(mtls["unesp"])
        for sender in (usp, unesp) * 3:
            request = sender.send()
            assert request.peer["subject"] == (((("commonName", sender.path[1:]),)),), request.peer
            assert request.header("authorization") is None
        assert len({(r.connection, r.path) for r in server.received}) == len({r.connection for r in server.received})
        assert usp.send(mtls["usp-new"]).peer["subject"] == (((("commonName", "usp-new"),)),)
        usp.set({"auth": {"type": "mtls", "certificate": stranger[0], "key": stranger[1]}})
        before, refused = len(server.received), app.subscription(usp.number)
        wait_for(lambda: app.query(OPENED), 60, "the circuit to open")
        row = app.row(refused)
        assert (row["status"], row["attempts"], row["ambiguous_since"]) == ("retry", 0, None), "as after a 401"
        assert "the server refuses the client certificate" in row["last_error"] and len(server.received) == before
        usp.set(mtls["usp"])
        app.wait_settled()
        assert app.row(refused)["attempts"] == 1
        assert server.received[-1].peer["subject"] == (((("commonName", "usp"),)),)
        for text in (daemon.log, str(app.query("select row_to_json(e)::text from {s}.subscription_events e"))):
            assert "PRIVATE KEY" not in text and people["usp"][1].split("\n")[1] not in text


def test_an_old_server(app, make_daemon, authority):
    """Nothing but the one integration that asks for it speaks old TLS, and the journal says so once."""
    with RecordingServer(certificates=authority, old_tls=True) as server:
        daemon = make_daemon({"delivery": {"ca_file": authority.root}}).start()
        old, strict = Sender(app, server, "/old"), Sender(app, server, "/strict")
        for _ in range(2):
            old.send({"tls": {"min_version": "1.1", "legacy_renegotiation": True}})
        app.subscription(strict.number)
        app.wait_states(sent=2, retry=1)
        assert not server.at("/strict")
        assert daemon.log.count('"old" is sent to over weak TLS') == 1
        assert "version 1.1 or later, with legacy renegotiation" in daemon.log and '"strict" is sent to over' not in daemon.log


ODD = {
    "auth is no object": {"auth": "basic"},
    "auth without a type": {"auth": {"username": "x", "password": SECRET}},
    "an unknown type": {"auth": {"type": "digest", "username": "x", "password": SECRET}},
    "basic without a password": {"auth": {"type": "basic", "username": SECRET}},
    "basic with a key too many": {"auth": {"type": "basic", "username": "x", "password": SECRET, SECRET: "x"}},
    "a user with a colon": {"auth": {"type": "basic", "username": f"{SECRET}:", "password": "x"}},
    "a password of two lines": {"auth": {"type": "basic", "username": "x", "password": f"{SECRET}\n"}},
    "a number for a password": {"auth": {"type": "basic", "username": "x", "password": 5}},
    "an empty password": {"auth": {"type": "basic", "username": "x", "password": ""}},
    "a file": {"auth": {"type": "basic", "username": "x", "password": f"file:/{SECRET}"}},
    "a variable": {"auth": {"type": "header", "name": "X-Key", "value": f"env:{SECRET}"}},
    "a credential's name with a slash": {"auth": {"type": "header", "name": "X-Key", "value": f"credential:a/{SECRET}"}},
    "a header's name with a blank": {"auth": {"type": "header", "name": "X Key", "value": SECRET}},
    "a header's name with a colon": {"auth": {"type": "header", "name": "X-Key:", "value": SECRET}},
    "a header that is the connection's": {"auth": {"type": "header", "name": "content-length", "value": SECRET}},
    "a header of two lines": {"auth": {"type": "header", "name": "X-Key", "value": f"{SECRET}\r\nX-Admin: 1"}},
    "a header that is not ASCII": {"auth": {"type": "header", "name": "X-Key", "value": f"{SECRET}–"}},
    "a blank header": {"auth": {"type": "header", "name": "X-Key", "value": "  "}},
    "a type with keys": {"auth": {"type": "none", "password": SECRET}},
    "headers are no object": {"headers": [SECRET]},
    "Host": {"headers": {"Host": SECRET}},
    "Content-Length": {"headers": {"content-length": "5"}},
    "Transfer-Encoding": {"headers": {"TRANSFER-ENCODING": "chunked"}},
    "Connection": {"headers": {"Connection": "close"}},
    "Authorization": {"headers": {"authorization": SECRET}},
    "Idempotency-Key": {"headers": {"Idempotency-Key": SECRET}},
    "webhook-id": {"headers": {"Webhook-Id": SECRET}},
    "an empty name": {"headers": {"": SECRET}},
    "a name with a line": {"headers": {"X\nY": SECRET}},
    "a name that is not ASCII": {"headers": {"Ação": SECRET}},
    "one name twice": {"headers": {"X-Key": SECRET, "x-key": SECRET}},
    "mtls without a key": {"auth": {"type": "mtls", "certificate": SECRET}},
    "what is no certificate": {"auth": {"type": "mtls", "certificate": SECRET, "key": SECRET}},
    "tls is no object": {"tls": "1.0"},
    "an unknown version": {"tls": {"min_version": "3.0"}},
    "a number for a version": {"tls": {"min_version": 1.1}},
    "legacy as text": {"tls": {"legacy_renegotiation": "yes"}},
    "an unknown key of tls": {"tls": {SECRET: True}},
    "a proxy over TLS": {"proxy": f"https://{SECRET}.example"},
    "a proxy with a password": {"proxy": f"http://x:{SECRET}@proxy.example:3128"},
    "a proxy that is no URL": {"proxy": SECRET},
    "a proxy with a blank": {"proxy": f"http://proxy .example/{SECRET}"},
    "a list": {"headers": {"X-Key": [SECRET]}},
    "33 headers": {"headers": {f"X-{i}": "x" for i in range(33)}},
}


def test_what_cannot_be_sent_is_refused_when_it_is_written(app, make_daemon, server):
    """The daemon refuses the same, where the database could not: nothing goes out, and the integration says why."""
    for name, settings in ODD.items():
        key = next(iter(settings))
        state, words = refused(app.integration, "https://x.example/", delivery_settings=settings)
        assert state == "23514" and words.startswith(f"delivery_settings.{key} ") and SECRET not in words, (name, words)
    app.query("alter table {s}.integrations disable trigger user")
    odd = {name: settings for name, settings in ODD.items() if "credential" not in name}  # that one might come yet
    numbers = {name: app.integration(f"{server.url}/odd", name=name, delivery_settings=s) for name, s in odd.items()}
    app.query("alter table {s}.integrations enable trigger user")
    for number in numbers.values():
        app.subscription(number)
    daemon = make_daemon().start()
    app.wait_states(retry=len(odd))
    wait_for(lambda: app.value("select count(*) from {s}.integrations where pause_reason is null") == 0, 60, "all to be paused")
    for name, reason in app.query("select name, pause_reason from {s}.integrations"):
        key = next(iter(ODD[name]))
        assert reason.startswith(f"its delivery_settings cannot be used: {key} ") and SECRET not in reason, (name, reason)
    assert not server.at("/odd") and SECRET not in daemon.log
    assert app.value("select sum(attempts) from {s}.subscriptions") == 0


@pytest.mark.parametrize("case", ["another one's key", "no certificate", "an encrypted key", "no whsec_",
                                  "a proxy of no kind"])
def test_a_credential_of_no_use_opens_the_circuit(app, make_daemon, ctl, authority, tmp_path, case):
    """Files are exchanged one after the other, and a reload may come between: with the right ones all goes on, and nobody has to
    resume anything. It costs no attempts."""
    (certificate, key), (_, other) = authority.client("usp"), authority.client("unesp")
    encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIH0MF8GCSqGSIb3\n-----END ENCRYPTED PRIVATE KEY-----\n"
    mtls = {"auth": {"type": "mtls", "certificate": "credential:a", "key": "credential:b"}}
    settings, wrong, right = {
        "another one's key": (mtls, (certificate, other), (certificate, key)),
        "no certificate": (mtls, ("what is this", key), (certificate, key)),
        "an encrypted key": (mtls, (certificate, encrypted), (certificate, key)),
        "no whsec_": ({"signing_secret": "credential:a"}, (SECRET, ""), ("whsec_" + "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0", "")),
        "a proxy of no kind": ({"proxy": "credential:a"}, ("gopher://127.0.0.1", ""), ("http://127.0.0.1:1", "")),
    }[case]

    def put(texts):
        for name, text in zip("ab", texts):
            (tmp_path / name).write_text(text)
    put(wrong)
    with RecordingServer(certificates=authority) as server:
        daemon = make_daemon({"delivery": {"ca_file": authority.root}, "circuit_breaker": {"recovery_timeout": "1s"}},
                             env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).start()
        sender = Sender(app, server, "/of-no-use")
        sender.set(settings)
        row = app.subscription(sender.number)
        wait_for(lambda: app.query(OPENED), 60, "the circuit to open")
        assert app.value("select paused_until from {s}.integrations") is None and app.row(row)["attempts"] == 0
        assert "its delivery_settings cannot be used" in app.row(row)["last_error"]
        daemon.wait_log(r"circuit is open, because its credentials are refused or missing \(its delivery_settings cannot")
        put(right)
        daemon.reload()
        if case == "a proxy of no kind":  # this one is there for nobody
            wait_for(lambda: "its delivery_settings" not in app.row(row)["last_error"], 60, "the proxy to be tried")
        else:
            app.wait_states(sent=1)
            assert app.row(row)["attempts"] == 1
        assert SECRET not in everything_said(app, daemon, ctl)


def test_a_credential_that_is_missing_opens_the_circuit(app, make_daemon, ctl, server, tmp_path):
    """It costs no attempts, the institution is not asked, and the repaired credential is used without a word to the database."""
    daemon = make_daemon({"circuit_breaker": {"recovery_timeout": "1s"}}, env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).start()
    sender = Sender(app, server, "/missing")
    sender.set({"auth": {"type": "header", "name": "X-Key", "value": "credential:usp"}})
    subscription = app.subscription(sender.number)
    wait_for(lambda: app.query(OPENED), 60, "the circuit to open")
    row = app.row(subscription)
    assert (row["status"], row["attempts"]) == ("retry", 0) and not server.at("/missing")
    assert "LoadCredential=usp:/path" in row["last_error"]
    assert "credentials are refused or missing" in ctl("explain", str(subscription)).expect(0).stdout
    (tmp_path / "usp").write_text(SECRET)
    app.wait_states(sent=1)
    assert server.at("/missing")[0].header("x-key") == SECRET
    assert app.row(subscription)["attempts"] == 1 and SECRET not in everything_said(app, daemon, ctl)
