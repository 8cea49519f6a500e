"""Servers that a stranger to the code would think of, over HTTP and HTTPS: what becomes of the row, and how often the server saw
the request."""
import contextlib
import re
import socket
import ssl
import struct
import threading
import time

import pytest
from harness.anubis import merged
from harness.certificates import Certificates
from harness.processes import wait_for

SETTINGS = {"retry": {"base_delay": "1h", "max_delay": "2h"}, "log_level": "debug",
            "delivery": {"timeout": "10s", "connect_timeout": "10s", "lease": "60s", "response_limit": "1KiB"}}
LARGE = {"large": "x" * 3000000}
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BAD = b"HTTP/1.1 422 No\r\nContent-Length: 2\r\n\r\nno"


class Gone(Exception):
    """The client has ended the connection."""


class Peer:
    """One connection, as `serve` sees it: `s` is what bytes go through, `plain` the socket below."""

    def __init__(self, server, plain, s):
        self.server, self.plain, self.s, self.left = server, plain, s, b""

    def more(self):
        data = self.s.recv(65536)
        if not data:
            raise Gone
        self.left += data

    def head(self):
        while b"\r\n\r\n" not in self.left:
            self.more()
        head, self.left = self.left.split(b"\r\n\r\n", 1)
        return head

    def request(self):
        length = int(re.search(rb"(?i)\r\ncontent-length: *(\d+)", self.head())[1])
        while len(self.left) < length:
            self.more()
        self.left = self.left[length:]
        self.server.requests += 1

    def send(self, data):
        self.s.sendall(data)

    def hold(self):
        while self.s.recv(65536):
            pass

    def half_close(self):
        """The end of this side, as TCP has it; the other one is still read."""
        self.plain.shutdown(socket.SHUT_WR)

    def send_before_the_end(self, data):
        """The end of this side follows: to the client both come at once, and no request of its own lies between them."""
        self.plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
        self.send(data)

    def reset(self):
        self.plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if self.s is not self.plain:
            self.s.detach()  # no farewell
        self.plain.close()


class Stranger:
    """`serve` has each connection, in a thread of its own."""

    def __init__(self, serve, certificates=None):
        self.serve, self.connections, self.requests, self._open = serve, 0, 0, set()
        self._context = None
        if certificates:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificates.chain, certificates.key)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.url = f"{'https' if certificates else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}/"
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        with contextlib.suppress(OSError):
            while True:
                plain, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(plain,), daemon=True).start()

    def _serve(self, plain):
        self._open.add(plain)
        with contextlib.suppress(OSError, ValueError, Gone):
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            s = plain
            if self._context:
                incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                s = Tls(plain, self._context.wrap_bio(incoming, outgoing, server_side=True), incoming, outgoing)
                s.handshake()
            self.serve(Peer(self, plain, s))
        with contextlib.suppress(OSError):
            plain.close()

    def close(self):
        for s in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                s.close()


class Tls:
    """TLS over a socket whose own bytes stay in reach."""

    def __init__(self, plain, tls, incoming, outgoing):
        self.plain, self.tls, self.incoming, self.outgoing = plain, tls, incoming, outgoing

    def _flush(self):
        self.plain.sendall(self.outgoing.read())

    def _step(self, do):
        while True:
            try:
                result = do()
                self._flush()
                return result
            except ssl.SSLWantReadError:
                self._flush()
                data = self.plain.recv(65536)
                if not data:
                    raise Gone from None
                self.incoming.write(data)
            except ssl.SSLError as e:
                raise Gone from e

    def handshake(self):
        self._step(self.tls.do_handshake)

    def recv(self, size):
        return self._step(lambda: self.tls.read(size))

    def sendall(self, data):
        for at in range(0, len(data), 16384):
            self._step(lambda at=at: self.tls.write(data[at:at + 16384]))

    def records(self, data):
        """The bytes that `data` makes on the socket, unsent."""
        self.tls.write(data)
        return self.outgoing.read()

    def farewell(self):
        with contextlib.suppress(ssl.SSLError):
            self.tls.unwrap()
        self._flush()

    def detach(self):
        pass


def answering(*replies, after=None):
    """Each request gets the next reply; the last one stays. `after` is called with the peer behind each."""
    def serve(p):
        number = 0
        while True:
            p.request()
            p.send(replies[min(number, len(replies) - 1)])
            number += 1
            if after:
                after(p)
    return serve


def drip(data, pause, then=b""):
    """Byte by byte, then `then` for ever."""
    def serve(p):
        p.request()
        for byte in data:
            p.send(bytes([byte]))
            time.sleep(pause)
        while then:
            p.send(then)
            time.sleep(pause)
        p.hold()
    return serve


def end_before_the_request(p):
    p.half_close()
    p.hold()


def reset_at_once(p):
    p.reset()


def reset_after_the_head(p):
    p.head()
    p.server.requests += 1
    p.reset()


def refuse_unread(p):
    """As servers do whose limit for bodies is passed: the answer, and the rest is never read."""
    p.head()
    p.server.requests += 1
    p.send(b"HTTP/1.1 413 Too large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
    p.half_close()
    time.sleep(1)


def refuse_and_reset(p):
    p.head()
    p.server.requests += 1
    p.send(b"HTTP/1.1 413 Too large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
    p.reset()


def read_nothing(p):
    p.plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    p.server.requests += 1
    time.sleep(60)


def banner(p):
    p.send(b"220 mail.example ESMTP ready\r\n")
    p.hold()


def answer_before(p):
    p.send(OK)
    p.request()
    p.send(BAD)
    p.hold()


def say_goodbye_and_stay(p):
    """TLS's farewell behind each answer; the socket stays open."""
    p.request()
    p.send_before_the_end(OK)
    if p.s is not p.plain:
        p.s.farewell()
    p.plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 0)
    time.sleep(60)


def half_close_behind(p):
    p.request()
    p.send_before_the_end(OK)
    p.half_close()
    p.hold()


def reset_while_idle(p):
    p.request()
    p.send(OK)
    time.sleep(0.05)
    p.reset()


def close_is_said_only(p):
    """It says that it closes, does not, and answers once more."""
    p.request()
    p.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    time.sleep(0.05)
    p.send(BAD)
    p.hold()


def clear_text_within_tls(p):
    p.request()
    p.plain.sendall(OK)
    p.hold()


def broken_record(p):
    p.request()
    if p.s is p.plain:
        p.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe\xff\xff")
        p.reset()
        return
    p.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe")
    p.plain.sendall(p.s.records(b"llo")[:-1] + b"\0")
    p.hold()


def half_a_record(p):
    p.request()
    data = OK if p.s is p.plain else p.s.records(OK)
    p.plain.sendall(data[:len(data) - 1 if p.s is not p.plain else 10])
    p.hold()


def answer_and_next_request_meet(p):
    """It ends each connection at the moment of its answer's last byte."""
    p.request()
    p.send(OK[:-1])
    time.sleep(0.01)
    p.send_before_the_end(OK[-1:])
    p.plain.close() if p.s is p.plain else (p.s.farewell(), p.plain.close())


def head(*lines, status=200, body=b"ok"):
    return b"HTTP/1.1 %d X\r\n" % status + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body


LENGTH = b"Content-Length: 2"
CHUNKED = b"Transfer-Encoding: chunked"
# (status, HTTP status, truncated, ambiguous, beginning of last_error)
SENT, CUT = ("sent", 200, False, False, None), ("sent", 200, True, False, None)
LOST = ("retry", None, False, True, "connection lost")
TIMEOUT, UNREACHED = ("retry", None, False, True, "timeout"), ("retry", None, False, False, "could not connect")
SPOKE = ("retry", None, False, False, "connection lost: the server sent data before it was asked")
NO_HTTP = ("retry", None, False, True, "connection lost: the answer was no HTTP")
TOO_LARGE = ("failed", 413, False, False, "HTTP 413")


def answered(status, state="retry"):
    return state, status, False, False, None if state == "sent" else f"HTTP {status}"


# name: (serve, its ends, rows, payload). Of several ends each may come, where it is chance which side is first. "http" and
# "https" may differ.
STRANGERS = {
    "end before the request": (end_before_the_request, [UNREACHED, LOST]), "reset at once": (reset_at_once, [UNREACHED, LOST]),
    "banner": (banner, [SPOKE, NO_HTTP]), "answer before the request": (answer_before, [SPOKE, SENT]),
    "reset after the head": (reset_after_the_head, LOST, 1, LARGE),
    "refused unread": (refuse_unread, TOO_LARGE, 1, LARGE),
    "refused and reset": (refuse_and_reset, [TOO_LARGE, LOST], 1, LARGE),
    "nothing is read": (read_nothing, TIMEOUT, 1, LARGE),
    "interim answers for ever": (drip(b"", 0.3, b"HTTP/1.1 102 Processing\r\n\r\n"), TIMEOUT),
    "status line in drops": (drip(OK, 1.0), TIMEOUT),
    "body in drops": (drip(head(b"Content-Length: 100", body=b"ok"), 0.01, b"x"), SENT),
    "farewell, and it stays": (say_goodbye_and_stay, {"http": [SENT, TIMEOUT], "https": SENT}, 5),
    "half closed behind": (half_close_behind, SENT, 5),
    "reset while idle": (reset_while_idle, [SENT, LOST], 5), "close is said only": (close_is_said_only, SENT, 5),
    "clear text within TLS": (clear_text_within_tls, {"http": SENT, "https": LOST}), "broken record": (broken_record, CUT),
    "half a record": (half_a_record, TIMEOUT), "ends with its answer": (answer_and_next_request_meet, SENT, 10),
    "keep-alive of an aeon": (answering(head(LENGTH, b"Keep-Alive: timeout=99999999999999999999, max=0")), SENT, 3),
    "keep-alive of less than nothing": (answering(head(LENGTH, b"Keep-Alive: timeout=-1")), SENT, 3),
    "keep-alive of nothing": (answering(head(LENGTH, b"Keep-Alive: timeout=0, max=-7")), SENT, 3),
    "999": (answering(head(LENGTH, status=999)), answered(999)),
    "600": (answering(head(LENGTH, status=600)), answered(600)),
    "299": (answering(head(LENGTH, status=299)), answered(299, "sent")),
    "205 with a body": (answering(head(LENGTH, status=205)), answered(205, "sent"), 3),
    "304": (answering(head(LENGTH, status=304, body=b"")), answered(304), 2),
    "307 to itself": (answering(head(LENGTH, b"Location: /", status=307)), answered(307)),
    "308 to the metadata": (answering(head(LENGTH, b"Location: http://169.254.169.254/", status=308)), answered(308)),
    "bare CR in a header": (answering(head(b"X: a\rContent-Length: 9", LENGTH)), SENT, 2),
    "blank before a colon": (answering(head(b"Transfer-Encoding : chunked", LENGTH)), SENT, 2),
    "folded length": (answering(head(b"Content-Length:", b" 2")), CUT), "vertical tab": (
        answering(head(b"Transfer-Encoding:\x0bchunked", LENGTH)), CUT),
    "HTTP/0.9": (lambda p: (p.request(), p.send(b"<html>all is well</html>"), p.half_close(), p.hold()), NO_HTTP),
    "HTTP/1.2": (answering(b"HTTP/1.2 200 X\r\nContent-Length: 2\r\n\r\nok"), SENT, 2),
    "PRI": (answering(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), NO_HTTP), "HTTP/2 frames": (
        answering(b"\0\0\x12\x04\0\0\0\0\0" + b"\0" * 18), NO_HTTP),
    "thousands of cookies": (answering(head(*[b"Set-Cookie: a%d=%s" % (i, b"x" * 40) for i in range(4000)], LENGTH)), SENT, 2),
    "chunks of one byte with long extensions": (
        answering(head(CHUNKED, body=b"".join(b"1;%s\r\nx\r\n" % (b"e" * 4000) for _ in range(20)) + b"0\r\n\r\n")), SENT),
    "chunk extensions without end": (
        answering(head(CHUNKED, body=b"".join(b"1;%s\r\nx\r\n" % (b"e" * 4000) for _ in range(100)) + b"0\r\n\r\n")), CUT),
    "zeros before a chunk's size": (answering(head(CHUNKED, body=b"0" * 5000 + b"2\r\nok\r\n0\r\n\r\n")), CUT),
    "a trailer that reframes": (answering(head(CHUNKED, body=b"2\r\nok\r\n0\r\nContent-Length: 99\r\n\r\n")), SENT, 3),
    "everything at once": (answering(head(b"Content-Length: 2", CHUNKED, b"Content-Encoding: br", body=b"2\r\nok\r\n0\r\n\r\n")),
                           CUT, 2),
    "status line twice": (answering(b"HTTP/1.1 200 OK\r\nHTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nok"), SENT, 2),
    "503 between two": (answering(OK, head(LENGTH, status=503), OK), [SENT, answered(503)], 3),
    "408 and its end": (answering(head(LENGTH, b"Connection: close", status=408)), answered(408)),
    "a body of NULs": (answering(head(LENGTH, body=b"\0\0")), SENT), "a body that is no text": (
        answering(head(b"Content-Length: 4", body=b"\xff\xfe\xed\xa0")), SENT),
}


def check(app, name, rows, server, ends):
    found = [app.row(row) for row in rows]
    for r in found:
        end = (r["status"], r["last_http_status"], r["last_response_truncated"] or False, r["last_ambiguous"])
        words = r["last_error"] or ""
        assert any(end == e[:4] and words.startswith(e[4] or "") and bool(words) == bool(e[4]) for e in ends), (name, end, words)
        assert r["attempts"] == 1, (name, r["attempts"])
    received = sum(r["last_http_status"] is not None for r in found)
    assert received <= server.requests <= len(rows), (name, server.requests)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_strangers(app, make_daemon, scheme):
    """All at once, one request at a time for each of them."""
    certificates = Certificates() if scheme == "https" else None
    with contextlib.ExitStack() as stack:
        servers, rows = {}, {}
        for name, (serve, _, *more) in STRANGERS.items():
            servers[name] = Stranger(serve, certificates)
            stack.callback(servers[name].close)
            integration = app.integration(servers[name].url, name=name, max_in_flight=1)
            count, payload = (*more, 1, None)[:2] if len(more) != 1 else (more[0], None)
            rows[name] = [app.subscription(integration, payload) for _ in range(count)]
        daemon = make_daemon(merged(SETTINGS, {"delivery": {"ca_file": certificates.root if certificates else ""}})).start()
        wait_for(lambda: not set(app.states()) - {"sent", "failed", "retry"}, 120, lambda: f"ends, now {app.states()}")
        daemon.term()
        for name, (_, ends, *_) in STRANGERS.items():
            ends = ends[scheme] if isinstance(ends, dict) else ends
            check(app, name, rows[name], servers[name], ends if isinstance(ends, list) else [ends])
    assert len(STRANGERS) >= 45
