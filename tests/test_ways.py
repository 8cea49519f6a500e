"""The way of one integration alone: its certificate, its TLS, its proxy. Each request of it goes that way, lookups and trials
included, and nobody else's does."""
import base64
import contextlib
import json
import os
import shutil
import socket
import threading

import pytest
from harness.certificates import Certificates
from harness.names import NameServers
from harness.processes import wait_for
from harness.recording import RecordingServer

QUICK = {"retry": {"base_delay": "100ms", "max_delay": "200ms", "max_attempts": 20},
         "circuit_breaker": {"failure_threshold": 1000}, "log_level": "debug"}


class Proxy:
    """Makes tunnels (CONNECT), or answers with `refusal`. `tunnels` are the targets, `lines` the lines of each request."""

    def __init__(self):
        self.tunnels, self.lines, self.refusal = [], [], None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        head = b""
        with contextlib.suppress(OSError), client:
            while not head.endswith(b"\r\n\r\n"):
                byte = client.recv(1)
                if not byte:
                    return
                head += byte
            lines = head.decode().split("\r\n")
            self.lines.append(lines)
            if self.refusal:
                client.sendall(self.refusal)
                return
            method, target, _ = lines[0].split(" ")
            assert method == "CONNECT", lines
            self.tunnels.append(target)
            host, port = target.rsplit(":", 1)
            with socket.create_connection((host.replace("school.example", "127.0.0.1"), int(port))) as server:
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
                back = threading.Thread(target=self._copy, args=(server, client), daemon=True)
                back.start()
                self._copy(client, server)
                back.join()

    @staticmethod
    def _copy(source, to):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                to.sendall(data)
        with contextlib.suppress(OSError):
            to.shutdown(socket.SHUT_WR)

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@pytest.fixture
def proxies():
    all_of_them = [Proxy(), Proxy()]
    yield all_of_them
    for proxy in all_of_them:
        proxy.close()


@pytest.fixture(scope="module")
def authority():
    return Certificates()


def set_settings(app, integration, settings):
    app.query("update {s}.integrations set delivery_settings = %s where id = %s", (json.dumps(settings), integration))


def test_proxies_of_their_own(app, make_daemon, authority, proxies, tmp_path):
    """Over HTTP and HTTPS, with a password and without; a change holds for the next request."""
    mine, other = proxies
    (tmp_path / "proxy").write_text(f"http://user:s3cr3t@127.0.0.1:{mine.port}")
    with RecordingServer() as clear, RecordingServer(certificates=authority) as secure:
        daemon = make_daemon({**QUICK, "delivery": {"ca_file": authority.root}},
                             env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).start()
        by_mine = [app.integration(s.url + "/mine", delivery_settings={"proxy": "credential:proxy"}) for s in (clear, secure)]
        by_other = [app.integration(s.url + "/other", delivery_settings={"proxy": other.url}) for s in (clear, secure)]
        direct = [app.integration(s.url + "/direct") for s in (clear, secure)]
        for integration in (by_mine + by_other + direct) * 3:
            app.subscription(integration)
        app.wait_states(sent=18)
        targets = {f"127.0.0.1:{s.port}" for s in (clear, secure)}
        assert set(mine.tunnels) == targets == set(other.tunnels)
        for s in (clear, secure):
            assert [len(s.at(path)) for path in ("/mine", "/other", "/direct")] == [3, 3, 3]
            paths = {r.connection: set() for r in s.received}
            for r in s.received:
                paths[r.connection].add(r.path)
                assert r.header("proxy-authorization") is None
            assert all(len(p) == 1 for p in paths.values()), paths
        password = "Proxy-Authorization: Basic " + base64.b64encode(b"user:s3cr3t").decode()
        assert all(password in lines for lines in mine.lines) and not any("s3cr3t" in str(lines) for lines in other.lines)
        tunnels = len(other.tunnels)
        set_settings(app, by_mine[0], {"proxy": other.url})
        set_settings(app, by_other[0], {})
        for integration in (by_mine[0], by_other[0]):
            app.subscription(integration)
        app.wait_states(sent=20)
        assert len(other.tunnels) == tunnels + 1 and other.tunnels[-1] == f"127.0.0.1:{clear.port}"
        assert "s3cr3t" not in daemon.log


REFUSALS = {"away": None, "407": b"HTTP/1.1 407 Who\r\nContent-Length: 0\r\n\r\n",
            "503": b"HTTP/1.1 503 No\r\nRetry-After: 3600\r\nContent-Length: 2\r\n\r\n{}",
            "200, and an answer of its own": b"HTTP/1.1 200 OK\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
            "no HTTP": b"what?\r\n\r\n", "nothing": b"\0"[:0] or b"\r\n"}


@pytest.mark.parametrize("what", REFUSALS)
def test_a_proxy_of_its_own_that_makes_no_tunnel(app, make_daemon, authority, proxies, what):
    """It is this integration's trouble and no answer of the institution's, which receives nothing; others go on."""
    proxy = proxies[0]
    with RecordingServer(certificates=authority) as server:
        if REFUSALS[what]:
            proxy.refusal = REFUSALS[what]
        else:
            proxy.close()
        daemon = make_daemon({**QUICK, "delivery": {"ca_file": authority.root}}).start()
        kept = app.integration(server.url + "/kept", delivery_settings={"proxy": proxy.url})
        row, others = app.subscription(kept), app.integration(server.url + "/others")
        wait_for(lambda: app.row(row)["last_error"], 60, "it to be tried")
        app.subscriptions(others, 10)
        app.wait_states(sent=10, integration_id=others)
        told = app.row(row)
        assert told["status"] in ("retry", "processing") and not told["last_ambiguous"], told
        assert told["last_http_status"] is None and "roxy" in told["last_error"], told
        assert not server.at("/kept") and app.value("select backoff_until from {s}.integration_runtime where integration_id = %s",
                                                    (kept,)) is None
        assert "keeps requests from being sent" not in daemon.log
        set_settings(app, kept, {"proxy": proxies[1].url})
        app.wait_states(sent=11)
        assert len(server.at("/kept")) == 1


def test_private_addresses_behind_and_of_a_proxy(app, make_daemon, proxies):
    """A proxy of the integration's own is checked like an institution."""
    with RecordingServer() as server:
        make_daemon({**QUICK, "delivery": {"allow_private_networks": False}}).start()
        integration = app.integration(server.url + "/", delivery_settings={"proxy": proxies[0].url})
        row = app.subscription(integration)
        wait_for(lambda: app.row(row)["last_error"], 60, "it to be tried")
        reason = app.value("select pause_reason from {s}.integrations where id = %s", (integration,))
        assert "address" in reason and app.row(row)["attempts"] == 0
        assert not server.received and not proxies[0].lines


def test_lookups_go_the_same_way(app, make_daemon, authority, proxies):
    """With the client's certificate and through the proxy; also to another server than the endpoint's."""
    certificate, key = authority.client("usp")
    taken = set()

    def post(request):
        number = json.loads(request.body)["n"]
        first = sum(json.loads(r.body)["n"] == number for r in endpoint.at("/post")) == 1
        if first and number % 2:
            taken.add(number)
        return None if first else (200, {}, b"{}")

    def look(request):
        return (200 if int(request.path.rsplit("/", 1)[1]) in taken else 404, {}, b"{}")

    with RecordingServer(post, authority, authority.root) as endpoint, RecordingServer(look, authority, authority.root) as files:
        make_daemon({**QUICK, "delivery": {"ca_file": authority.root}}).start()
        integration = app.integration(endpoint.url + "/post", delivery_settings={
            "auth": {"type": "mtls", "certificate": certificate, "key": key}, "proxy": proxies[0].url,
            "lookup": {"url": files.url + "/has/{order_id}"}})
        rows = {n: app.subscription(integration, {"n": n}, order_id=n) for n in range(1, 7)}
        app.wait_states(sent=6)
        for n, row in rows.items():
            posts = [r for r in endpoint.received if json.loads(r.body)["n"] == n]
            looks = files.at(f"/has/{n}")
            assert (len(posts), len(looks)) == ((1, 1) if n % 2 else (2, 1)), n
            assert app.events(row)[-1]["decided_by"] == ("lookup" if n % 2 else None)
        for r in endpoint.received + files.received:
            assert r.peer["subject"] == (((("commonName", "usp"),)),) and r.header("authorization") is None
        assert all(r.method == "GET" for r in files.received) and all(r.method == "POST" for r in endpoint.received)
        assert set(proxies[0].tunnels) == {f"127.0.0.1:{s.port}" for s in (endpoint, files)}


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="another resolv.conf(5) needs root and unshare")
@pytest.mark.parametrize("way", ["certificate", "proxy"])
def test_trials_go_the_same_way(app, make_daemon, authority, proxies, tmp_path, way):
    """While no name server answers, for the institution's name or the proxy's; the connection that reached it is used."""
    certificate, key = authority.client("usp")
    names = NameServers(tmp_path, [False])
    settings = {"auth": {"type": "mtls", "certificate": certificate, "key": key}}
    try:
        with RecordingServer(certificates=authority, client_ca=authority.root) as server:
            daemon = make_daemon({**QUICK, "delivery": {"ca_file": authority.root}}, wrapper=names.wrapper()).start()
            url = server.url
            if way == "proxy":
                settings["proxy"] = proxies[0].url.replace("127.0.0.1", "school.example")
            else:
                url = url.replace("127.0.0.1", "school.example")
            row = app.subscription(app.integration(url + "/", delivery_settings=settings))
            wait_for(lambda: app.row(row)["last_error"], 60, "it to be tried")
            assert "no name server answers" in app.row(row)["last_error"]
            events = app.value("select count(*) from {s}.subscription_events")
            asked = names.asked[0]
            wait_for(lambda: names.asked[0] > asked, 60, "a trial")
            assert app.value("select count(*) from {s}.subscription_events") == events
            names.alive = [True]
            app.wait_states(sent=1, deadline=120)
            assert app.row(row)["attempts"] == 1
            assert server.received[0].peer["subject"] == (((("commonName", "usp"),)),)
            assert server.connections == 1 and len(proxies[0].tunnels) == (way == "proxy")
            assert daemon.log.count("no name server answers") == 1
    finally:
        names.close()
