"""A token goes out whole, or not at all: then the integration is paused, or its circuit opens, and the reason is said."""
import base64
import os
import socket
import threading

import pytest
from harness.postgres import refused
from harness.processes import build_folder, wait_for
from harness.recording import RecordingServer

LONGEST = 65536
ODD = {
    "one byte too long": ("t" * (LONGEST + 1), "longer than 64 KiB"),
    "far too long": ("t" * 300000, "longer than 64 KiB"),
    "blank": ("  ", "it is blank"),
    "not ASCII": ("token–1", "not ASCII"),
    "control character": ("token\n", "control characters"),
    "no name of a credential": ("credential:", "a credential's name"),
    "no such credential": ("credential:usp", "LoadCredential=usp:/path"),
}


class Listener:
    """A server that takes headers of any size, and answers 200."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/"
        self.tokens = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self):
        while True:
            try:
                connection = self.socket.accept()[0]
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                headers = {}
                for line in iter(stream.readline, b"\r\n"):
                    name, _, value = line.rstrip(b"\r\n").partition(b":")
                    headers[name.lower()] = value
                stream.read(int(headers[b"content-length"]))
                self.tokens.append(headers.get(b"authorization"))
                connection.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(10)


@pytest.fixture
def listener():
    listener = Listener()
    yield listener
    listener.close()


def circuit_opened(app):
    """What the subscription says about it."""
    opened = "select 1 from {s}.integration_runtime where circuit_reason = 'authentication'"
    wait_for(lambda: app.query(opened), 30, "the circuit to open")
    return app.value("select last_error from {s}.subscriptions")


def pause_reason(app):
    return wait_for(lambda: app.value("select pause_reason from {s}.integrations"), 30, "the integration to be paused")


def resume(app):
    app.query("update {s}.integrations set paused_until = null, pause_reason = null; "
              "update {s}.subscriptions set next_attempt_at = null where status = 'retry'")


@pytest.mark.parametrize("token", ["t" * LONGEST, "credential:usp"], ids=["in the database", "credential"])
def test_the_longest_goes_out_whole(app, listener, make_daemon, tmp_path, token):
    """Also when everything else in the head is as long as it may be."""
    (tmp_path / "usp").write_text("t" * LONGEST)
    make_daemon({"delivery": {"user_agent": "u" * 8192}}, env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).start()
    url = listener.url + "ç" * ((8000 - len(listener.url)) // 2)
    app.subscription(app.integration(url, auth_token=token))
    app.wait_states(sent=1)
    assert listener.tokens == [b" Bearer " + b"t" * LONGEST]


@pytest.mark.parametrize("token", ["a b", " !#$%&'()*+,-./:;<=>?@[]^_`{|}~ ", "   t", None, ""])
def test_tokens_that_are_sent(app, listener, make_daemon, token):
    """Blanks around it do not belong to it, as HTTP has it."""
    make_daemon().start()
    app.subscription(app.integration(listener.url, auth_token=token))
    app.wait_states(sent=1)
    assert listener.tokens == [b" Bearer " + token.strip(" ").encode() if token else None]


@pytest.mark.parametrize("name", sorted(set(ODD) - {"no such credential"}))
def test_what_cannot_be_sent_is_refused_when_it_is_written(app, name):
    token = ODD[name][0]
    state, words = refused(app.integration, "https://x.example/", auth_token=token)
    assert state == "23514" and words.startswith("auth_token ") and "tttttttt" not in words
    number = app.integration("https://x.example/")
    assert refused(app.query, "update {s}.integrations set auth_token = %s where id = %s", (token, number))[0] == "23514"
    if "long" in name:
        assert f"auth_token has {len(token)} bytes; {LONGEST} are the most that is sent" in words


@pytest.mark.parametrize("name", sorted(ODD))
def test_what_was_there_before_pauses_its_integration(app, listener, make_daemon, name):
    token, reason = ODD[name]
    app.query("alter table {s}.integrations disable trigger user")
    number = app.integration("https://x.example/", auth_token=token)
    app.query("alter table {s}.integrations enable trigger user")
    # It keeps nobody from changing something else.
    app.query("update {s}.integrations set endpoint_url = %s, auth_token = auth_token", (listener.url,))
    subscription = app.subscription(number)
    daemon = make_daemon().start()
    told = circuit_opened(app) if token.startswith("credential:") else pause_reason(app)
    assert "its auth_token cannot be used: " in told and reason in told
    app.wait_states(retry=1)
    assert app.row(subscription)["attempts"] == 0 and listener.tokens == []
    assert "token" not in daemon.log.replace("auth_token", "") and "tttttttt" not in daemon.log
    app.query("update {s}.integrations set auth_token = 'good'")
    resume(app)
    app.wait_states(sent=1)
    assert listener.tokens == [b" Bearer good"]


@pytest.mark.parametrize("content, reason", [
    (b"t" * (LONGEST + 1), "longer than 64 KiB"), (b"", "is empty"), (b" \n", "is blank"), (b"a\0b", "NUL byte"),
    ("não".encode(), "not ASCII"), (b"a\nb\n", "control characters")], ids=lambda x: repr(x[:10]))
def test_a_credential_that_cannot_be_sent(app, listener, make_daemon, tmp_path, content, reason):
    (tmp_path / "usp").write_bytes(content)
    make_daemon({"circuit_breaker": {"recovery_timeout": "1s"}}, env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).start()
    subscription = app.subscription(app.integration(listener.url, auth_token="credential:usp"))
    assert reason in circuit_opened(app)
    assert app.row(subscription)["attempts"] == 0 and listener.tokens == []
    (tmp_path / "usp").write_text(" repaired \n")
    app.wait_states(sent=1)
    assert listener.tokens == [b" Bearer repaired"]


def test_a_reload_reads_credentials_again(app, listener, make_daemon, tmp_path):
    (tmp_path / "usp").write_text("old\n")
    (tmp_path / "kafka").write_text("id1\n")
    daemon = make_daemon({"kafka": {"client_id": "credential:kafka"}}, env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).start()
    number = app.integration(listener.url, auth_token="credential:usp")
    app.subscription(number)
    app.wait_states(sent=1)
    (tmp_path / "usp").write_text("new\n")
    (tmp_path / "kafka").write_text("id2\n")
    daemon.reload()
    daemon.wait_log("configuration read again")
    assert "changed, needs a restart: kafka.client_id" in daemon.log
    app.subscription(number)
    app.wait_states(sent=2)
    assert listener.tokens == [b" Bearer old", b" Bearer new"]
    os.unlink(tmp_path / "usp")
    os.unlink(tmp_path / "kafka")
    daemon.reload()
    daemon.wait_log("error: .*kafka.client_id.*credential")
    daemon.wait_log("the configuration stays as it was")


FOR_LONG = {"circuit_breaker": {"failure_threshold": 3, "recovery_timeout": "1h", "max_recovery_timeout": "1h"},
            "delivery": {"poll_interval": "5m"}, "retry": {"base_delay": "1h", "max_delay": "2h"}}


def taken_if_good(request):
    """Institutions that want the token "good", or a signature; one of them is out of order."""
    good = request.header("authorization") == "Bearer good" or request.header("webhook-signature")
    return 500 if request.path == "/out-of-order" else 200 if good else 401, {}, b""


def test_a_mended_credential_is_tried_at_the_reload(app, make_daemon, tmp_path):
    """Whatever the circuit waits for, as long as it waits for the credential."""
    (tmp_path / "wrong").write_text("expired")
    (tmp_path / "fine").write_text("good")
    daemon = make_daemon(FOR_LONG, env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).start()
    with RecordingServer(taken_if_good) as server:
        mended = [app.integration(server.url + "/absent", auth_token="credential:absent"),
                  app.integration(server.url + "/wrong", auth_token="credential:wrong"),
                  app.integration(server.url + "/unsigned", auth_token=None,
                                  delivery_settings={"signing_secret": "credential:key"})]
        others = [app.integration(server.url + "/out-of-order", auth_token="credential:fine"),
                  app.integration(server.url + "/refused", auth_token="its own")]
        for integration in mended + others:
            app.subscriptions(integration, 8)
        states = "select integration_id, circuit_state from {s}.integration_runtime order by 1"
        wait_for(lambda: app.query(states) == [(i, "open") for i in mended + others], 60, "all circuits to be open")
        wait_for(lambda: not app.states()["processing"], 60, "the answers under way")
        (tmp_path / "absent").write_text("good")
        (tmp_path / "wrong").write_text("good")
        (tmp_path / "key").write_text("whsec_" + base64.b64encode(b"k" * 32).decode())
        before = len(server.received)
        daemon.reload()
        app.wait_states(sent=24)
        assert app.query(states) == [(i, "closed") for i in mended] + [(i, "open") for i in others]
        assert {r.path for r in server.received[before:]} == {"/absent", "/wrong", "/unsigned"}
        assert app.query("select circuit_why from {s}.integration_runtime where circuit_state = 'closed'") == [(None,)] * 3


def test_an_answer_to_a_former_credential_opens_no_circuit(app, make_daemon, tmp_path):
    """It was under way at the reload."""
    let_go, arrived = threading.Event(), threading.Event()

    def answer(request):
        if request.header("authorization") == "Bearer old":
            arrived.set()
            let_go.wait(60)
        return taken_if_good(request)
    (tmp_path / "usp").write_text("old")
    daemon = make_daemon(FOR_LONG, env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).start()
    with RecordingServer(answer) as server:
        integration = app.integration(server.url + "/", auth_token="credential:usp")
        app.subscription(integration)
        assert arrived.wait(60)
        (tmp_path / "usp").write_text("good")
        daemon.reload()
        wait_for(lambda: app.query("select from {s}.integration_runtime where circuit_generation > 0"), 60,
                 "the credential to be read")
        let_go.set()
        app.wait_states(retry=1)
        app.subscription(integration)
        app.wait_states(sent=1, retry=1)
        assert app.value("select circuit_state from {s}.integration_runtime") == "closed"


def test_a_credential_that_is_missing_is_named(app, listener, make_daemon, ctl, tmp_path):
    make_daemon(env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).start()
    subscription = app.subscription(app.integration(listener.url, auth_token="credential:usp"))
    app.wait_states(retry=1)
    for words in (circuit_opened(app), ctl("explain", str(subscription)).expect(0).stdout):
        assert "its auth_token cannot be used: " in words and "usp" in words and "invalid URL" not in words, words


def holds(pid, words):
    """Whether a process has these bytes anywhere in its memory."""
    with open(f"/proc/{pid}/maps", encoding="ascii", errors="replace") as maps, open(f"/proc/{pid}/mem", "rb") as memory:
        for line in maps:
            first, last = (int(n, 16) for n in line.split()[0].split("-"))
            if "r" in line.split()[1] and "[v" not in line:  # which are the kernel's own
                memory.seek(first)
                if words in memory.read(last - first):
                    return True
    return False


@pytest.mark.skipif("asan" in build_folder() or "tsan" in build_folder(), reason="a sanitizer keeps what was freed")
def test_a_token_that_was_exchanged_is_nowhere_in_memory(app, institutions, make_daemon):
    """Nor is a secret that signed, when some requests have gone out since."""
    old, new = "tok-ABCDEFGHIJKLMNOP", "tok-QRSTUVWXYZabcdef"
    keys = [base64.b64encode(words + b"01234567890123456789012") for words in (b"a former one", b"a later one")]
    integration = app.integration(institutions.url("/good"), auth_token=old)
    settings = "update {s}.integrations set auth_token = %s, delivery_settings = jsonb_build_object('signing_secret', %s::text)"
    app.query(settings, (old, "whsec_" + keys[0].decode()))
    daemon = make_daemon().start()
    app.subscriptions(integration, 3)
    app.wait_states(sent=3)
    assert holds(daemon.pid, old.encode()) and holds(daemon.pid, base64.b64decode(keys[0]))
    app.query(settings, (new, "whsec_" + keys[1].decode()))

    def gone():
        app.subscription(integration)
        app.wait_states(sent=app.value("select count(*) from {s}.subscriptions"))
        former = (old.encode(), keys[0], base64.b64decode(keys[0]))
        return holds(daemon.pid, new.encode()) and not any(holds(daemon.pid, words) for words in former)
    wait_for(gone, 60, "the former secrets to be wiped")
