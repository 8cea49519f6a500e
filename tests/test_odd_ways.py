"""Odd things between two requests, and odd proxies: directly and through a tunnel, in clear text and over TLS, all at once. For
each the row, its event, the journal, and how often the server itself saw the request."""
import contextlib
import re
import socket
import ssl
import struct
import threading
import time

import pytest
from harness.certificates import Certificates
from harness.processes import wait_for
from harness.scripted import Script, ScriptedServer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
TUNNEL = b"HTTP/1.1 200 Connection established\r\n\r\n"
SETTINGS = {"retry": {"base_delay": "1h", "max_delay": "2h"}, "log_level": "debug"}


@pytest.fixture(scope="module")
def authority():
    return Certificates()


class Odd:
    """Answers each request, and does `between` a moment later: a function of (its connection, the plain one) that returns whether
    the connection is to stay. `done` counts the requests whose odd thing is done."""

    def __init__(self, between, answer=OK, certificates=None):
        self.between, self.answer = between, answer
        self.requests = self.done = 0
        self._context = None
        if certificates:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificates.chain, certificates.key)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"{'https' if certificates else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}/"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        with contextlib.suppress(OSError):  # closed
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, plain):
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection, request, stays = plain, b"", True
        with contextlib.suppress(OSError):
            if self._context:
                connection = self._context.wrap_socket(plain, server_side=True, suppress_ragged_eofs=False)
            while stays:
                while not request.endswith(b"}"):
                    more = connection.recv(65536)
                    if not more:
                        return
                    request += more
                assert request.count(b"POST ") == 1
                request = b""
                self.requests += 1
                connection.sendall(self.answer)
                time.sleep(0.02)
                try:
                    stays = self.between(connection, plain)
                finally:
                    if not stays:
                        connection.close()
                    self.done += 1
        connection.close()

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def says(what, stays):
    def between(connection, _):
        connection.sendall(what)
        return stays
    return between


def says_in_clear(what):
    def between(_, plain):
        plain.sendall(what)
        return True
    return between


def resets(_, plain):
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def half_closes(connection, plain):
    """And would go on reading."""
    del connection
    plain.shutdown(socket.SHUT_WR)
    plain.settimeout(5)
    with contextlib.suppress(OSError):
        plain.recv(65536)
    return False


def farewell(connection, _):
    """TLS's end; the connection itself stays open."""
    if hasattr(connection, "unwrap"):
        connection.settimeout(0.05)
        with contextlib.suppress(OSError):
            connection.unwrap()
    return True


def urgent(_, plain):
    plain.send(b"!", socket.MSG_OOB)
    return True


BETWEEN = {
    "nothing": lambda *_: True, "the end": lambda *_: False, "a reset": resets, "half the end": half_closes,
    "TLS's farewell": farewell, "408 and the end": says(b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n", False),
    "408 and no end": says(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n", True),
    "500 for nobody": says(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", True),
    "an interim answer": says(b"HTTP/1.1 102 P\r\n\r\n", True),
    "half a status line": says(b"HTTP/1.1 50", True), "a line's end": says(b"\r\n", True), "one byte": says(b"\0", True),
    "a last chunk": says(b"0\r\n\r\n", False), "bytes in clear text": says_in_clear(b"HTTP/1.1 500 No\r\n\r\n"),
    "an alert in clear text": says_in_clear(b"\x15\3\3\0\2\2\x28"), "half a record": says_in_clear(b"\x17\3\3"),
    "an urgent byte": urgent,
}
LIES = {
    "timeout=0": b"Keep-Alive: timeout=0\r\n", "max=0": b"Keep-Alive: timeout=60, max=0\r\n",
    "keep-alive": b"Connection: keep-alive\r\n",
    "a minute": b"Connection: keep-alive\r\nKeep-Alive: timeout=60, max=1000\r\n",
    "nonsense": b"Keep-Alive: timeout=-1, max=x, ,;\r\n",
    "too long": b"Keep-Alive: timeout=99999999999999999999\r\n",
}


class Proxy:
    """Answers CONNECT with `answer`, in pieces of `piece` bytes. Then `end`: "tunnel", "close", "reset" or "hold"."""

    def __init__(self, answer=TUNNEL, end="tunnel", piece=None):
        self.answer, self.end, self.piece = answer, end, piece
        self.tunnels = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client):
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        head = b""
        with contextlib.suppress(OSError), client:
            while not head.endswith(b"\r\n\r\n"):
                more = client.recv(1)
                if not more:
                    return
                head += more
            target = re.match(rb"CONNECT 127\.0\.0\.1:(\d+) ", head)
            size = self.piece or len(self.answer) or 1
            for at in range(0, len(self.answer), size):
                client.sendall(self.answer[at:at + size])
            if self.end == "tunnel":
                self.tunnels += 1
                with socket.create_connection(("127.0.0.1", int(target[1]))) as server:
                    threading.Thread(target=self._copy, args=(server, client), daemon=True).start()
                    self._copy(client, server)
            elif self.end == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            elif self.end == "hold":
                while client.recv(65536):
                    pass

    @staticmethod
    def _copy(source, to):
        """An end that was no clean one is none on the other side either."""
        try:
            while data := source.recv(65536):
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)
        except OSError:
            with contextlib.suppress(OSError):
                to.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                to.shutdown(socket.SHUT_RDWR)

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


def test_whatever_comes_between_two_requests_is_nobodys_answer(app, make_daemon, authority):
    """One row at a time for each server; it is sent once, at the first attempt, and nothing is ambiguous."""
    rounds = 4
    with contextlib.ExitStack() as stack:
        proxy, servers = stack.enter_context(contextlib.closing(Proxy())), {}
        cases = {name: (between, OK) for name, between in BETWEEN.items()}
        cases |= {name: (BETWEEN["the end"], OK.replace(b"\r\n\r\n", b"\r\n" + lie + b"\r\n", 1)) for name, lie in LIES.items()}
        for name, (between, answer) in cases.items():
            for certificates in (None, authority):
                for settings in ({}, {"proxy": proxy.url}):
                    server = stack.enter_context(contextlib.closing(Odd(between, answer, certificates)))
                    full = f"{name}, {server.url[:5]}, {settings}"
                    servers[app.integration(server.url, name=full, delivery_settings=settings)] = (full, server)
        daemon = make_daemon({**SETTINGS, "delivery": {"ca_file": authority.root}}).start()
        for n in range(1, rounds + 1):
            for integration in servers:
                app.subscription(integration)
            wait_for(lambda: not set(app.states()) - {"sent", "retry", "failed"}, 60, lambda: f"ends, now {app.states()}")
            wait_for(lambda: all(s.done >= min(n, s.requests) for _, s in servers.values()), 60, "what comes between")
        for integration, (name, server) in servers.items():
            rows = app.query("select status, attempts, last_ambiguous, last_error from {s}.subscriptions "
                             "where integration_id = %s", (integration,))
            assert [tuple(row) for row in rows] == [("sent", 1, False, None)] * rounds, (name, rows)
            assert server.requests == rounds, name
        assert proxy.tunnels >= len(servers) / 2
        assert not re.search(r"ambiguous|attempt 2", daemon.log)


# The answer to CONNECT, what the proxy does then, and what the row says: None = it is sent.
PROXY = "could not connect: the proxy"
PROXIES = {
    "well": ({}, None), "byte by byte": ({"piece": 1}, None),
    "HTTP/1.0": ({"answer": b"HTTP/1.0 200 OK\r\n\r\n"}, None),
    "no reason": ({"answer": b"HTTP/1.1 200\r\n\r\n"}, None),
    "many headers": ({"answer": TUNNEL[:-2] + b"Via: 1.1 x\r\n" * 300 + b"\r\n"}, None),
    "length of 0": ({"answer": TUNNEL[:-2] + b"Content-Length: 0\r\n\r\n"}, None),
    "keep-alive": ({"answer": TUNNEL[:-2] + b"Connection: keep-alive\r\nKeep-Alive: timeout=0, max=0\r\n\r\n"}, None),
    "close": ({"answer": TUNNEL[:-2] + b"Proxy-Connection: close\r\nConnection: close\r\n\r\n"}, None),
    "a length": ({"answer": TUNNEL[:-2] + b"Content-Length: 38\r\n\r\n" + OK, "end": "hold"}, PROXY),
    "chunked": ({"answer": TUNNEL[:-2] + b"Transfer-Encoding: chunked\r\n\r\n", "end": "hold"}, PROXY),
    "an answer of its own": ({"answer": TUNNEL + OK, "end": "hold"}, PROXY),
    "100 first": ({"answer": b"HTTP/1.1 100 Go\r\n\r\n" + TUNNEL, "end": "hold"}, "could not connect"),
    "403": ({"answer": b"HTTP/1.1 403 No\r\nContent-Length: 6\r\n\r\nSECRET", "end": "hold"}, PROXY),
    "407": ({"answer": b"HTTP/1.1 407 Who\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\n\r\n", "end": "close"},
            PROXY),
    "407 for ever": ({"answer": b"HTTP/1.1 407 SECRET\r\nProxy-Authenticate: Basic\r\nContent-Length: 0\r\n\r\n", "end": "hold"},
                     PROXY),
    "429": ({"answer": b"HTTP/1.1 429 Slow\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n", "end": "hold"}, PROXY),
    "503": ({"answer": b"HTTP/1.1 503 No\r\nRetry-After: 3600\r\nContent-Length: 0\r\n\r\n", "end": "close"}, PROXY),
    "302": ({"answer": b"HTTP/1.1 302 F\r\nLocation: http://127.0.0.1/SECRET\r\n\r\n", "end": "close"}, PROXY),
    "half a head": ({"answer": TUNNEL[:20], "end": "close"}, "could not connect"),
    "nothing, end": ({"answer": b"", "end": "close"}, "could not connect"),
    "nothing, reset": ({"answer": b"", "end": "reset"}, "could not connect"),
    "too long a head": ({"answer": TUNNEL[:-2] + b"X: y\r\n" * 20000, "end": "hold"}, PROXY),
    "SOCKS": ({"answer": b"\5\0", "end": "close"}, "could not connect"),
    "a tunnel, and the end": ({"end": "close"}, ""), "a tunnel, and a reset": ({"end": "reset"}, ""),
}


def test_odd_proxies(app, make_daemon, authority):
    """Where there is no tunnel nothing was sent: the row says that it was the proxy, or that no connection came about, is tried
    again, and is not ambiguous. A refusal is no answer of the institution's."""
    with contextlib.ExitStack() as stack:
        rows = []
        well = stack.enter_context(contextlib.closing(ScriptedServer(Script(OK))))
        for _ in range(3 * len(PROXIES)):  # or it would be our own network's fault
            app.subscription(app.integration(well.url))
        for name, (how, error) in PROXIES.items():
            for certificates in (None, authority):
                proxy = stack.enter_context(contextlib.closing(Proxy(**how)))
                server = stack.enter_context(contextlib.closing(ScriptedServer(Script(OK), certificates)))
                full = f"{name}, {server.url[:5]}"
                integration = app.integration(server.url, name=full, delivery_settings={"proxy": proxy.url})
                rows.append((full, app.subscription(integration), server, error))
        daemon = make_daemon({**SETTINGS, "delivery": {"ca_file": authority.root}}).start()
        wait_for(lambda: not set(app.states()) - {"sent", "retry", "failed"}, 60, lambda: f"ends, now {app.states()}")
        for name, number, server, error in rows:
            row = app.row(number)
            said = [(e["event_type"], e["http_status"]) for e in app.events(number)]
            if error is None:
                assert (row["status"], row["attempts"], server.requests) == ("sent", 1, 1), (name, row)
                assert said == [("created", None), ("updated", None), ("sent", 200)], (name, said)
                continue
            assert (row["status"], row["last_http_status"], server.requests) == ("retry", None, 0), (name, row)
            assert said == [("created", None), ("updated", None), ("retried", None)], (name, said)
            if error:  # else the end may come when the request is under way
                assert not row["last_ambiguous"] and row["last_error"].startswith(error), (name, row["last_error"])
        assert "SECRET" not in daemon.log and "SECRET" not in str(app.query("select last_error from {s}.subscriptions"))
