"""Some hundreds of answers, valid and broken, as anubisd's HTTP client, Python's http.client and curl understand them.
Where they differ it is written down why."""
import http.client
import itertools
import os
import re
import shutil
import socket
import subprocess
import threading

import pytest
from harness.anubis import program

# --- the answers ---

STATUS_LINES = {
    "usual": b"HTTP/1.1 200 OK\r\n", "no reason": b"HTTP/1.1 200\r\n", "empty reason": b"HTTP/1.1 200 \r\n",
    "refusal": b"HTTP/1.1 422 Unprocessable\r\n", "1.0": b"HTTP/1.0 200 OK\r\n", "LF": b"HTTP/1.1 200 OK\n",
    "Latin-1": b"HTTP/1.1 200 N\xe3o\r\n", "599": b"HTTP/1.1 599 X\r\n", "interim": b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 200 OK\r\n",
}
EXTRA_HEADERS = {
    "none": b"", "close": b"Connection: close\r\n", "some": b"Server: x\r\nX-A: b\r\nContent-Type: text/plain; charset=utf-8\r\n",
    "odd blanks": b"X-A:b\r\nX-B:\t c \r\n", "empty value": b"X-A:\r\n", "gzip": b"Content-Encoding: gzip\r\n",
    "long": b"X-A: " + b"a" * 5000 + b"\r\n", "many": b"".join(b"X-%d: y\r\n" % n for n in range(80)),
}
BODIES = {
    "length": b"Content-Length: 5\r\n\r\nhello", "zero": b"Content-Length: 0\r\n\r\n",
    "chunked": b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "two chunks": b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;a=b\r\nllo\r\n0\r\n\r\n",
    "upper case": b"TRANSFER-ENCODING: Chunked\r\n\r\n5\r\nhello\r\n000\r\n\r\n",
    "trailers": b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    "to the end": b"\r\nhello", "nothing": b"\r\n",
    "cut length": b"Content-Length: 9\r\n\r\nhello", "cut chunk": b"Transfer-Encoding: chunked\r\n\r\n9\r\nhello",
    "no last chunk": b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "large": b"Content-Length: 60000\r\n\r\n" + b"x" * 60000,
}
SINGLE = {
    "nothing": b"", "half a status line": b"HTTP/1.1 20", "garbage": b"\x01\x02 what\r\n\r\n", "SSH": b"SSH-2.0-x\r\n",
    "HTTP/2": b"HTTP/2 200\r\nContent-Length: 2\r\n\r\nok", "204 with a body": b"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\nok",
    "304": b"HTTP/1.1 304 No\r\nContent-Length: 2\r\n\r\n", "205": b"HTTP/1.1 205 R\r\nContent-Length: 0\r\n\r\n",
    "equal lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok",
    "list of equal lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
    "contradictory lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nok!",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nok",
    "signed length": b"HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nok",
    "word for a length": b"HTTP/1.1 200 OK\r\nContent-Length: two\r\n\r\nok",
    "chunked and length": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "chunked twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    "gzip, chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n2\r\n\x1f\x8b\r\n0\r\n\r\n",
    "unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: zstd\r\n\r\nok",
    "chunk of letters": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nok\r\n0\r\n\r\n",
    "negative chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-2\r\nok\r\n0\r\n\r\n",
    "chunk without its end": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nokay\r\n0\r\n\r\n",
    "folded": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nok",
    "fold first": b"HTTP/1.1 200 OK\r\n\tb: c\r\nContent-Length: 2\r\n\r\nok",
    "no colon": b"HTTP/1.1 200 OK\r\nnonsense\r\nContent-Length: 2\r\n\r\nok",
    "blank before the colon": b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\nok",
    "two digits": b"HTTP/1.1 20 X\r\n\r\n", "four digits": b"HTTP/1.1 2000 X\r\n\r\n", "099": b"HTTP/1.1 099 X\r\n\r\n",
    "101": b"HTTP/1.1 101 Switch\r\n\r\nhello", "only interim": b"HTTP/1.1 102 P\r\n\r\n",
    "empty line first": b"\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "blank first": b" HTTP/1.1 200 OK\r\n\r\n",
}


def answers():
    for (s, status), (h, headers), (b, body) in itertools.product(STATUS_LINES.items(), EXTRA_HEADERS.items(), BODIES.items()):
        if h in ("long", "many") and s != "usual":
            continue
        yield f"{s} / {h} / {b}", status + headers + body
    yield from SINGLE.items()


ANSWERS = list(answers())

# Where another client understands an answer otherwise, and why ours is right or harmless. Patterns of names.
LENGTHS = "contradictory or malformed lengths: where the body ends is not known (RFC 9112, 6.3); the status decides"
PACKED = "what is packed is kept as it came and marked, and never unpacked"
DIFFER = {
    "python": {
        "contradictory lengths|(negative|signed) length|word for a length": LENGTHS,
        ".* / gzip / .*": PACKED, "chunked twice|gzip, chunked": PACKED + "; Python shows the chunks themselves",
        "unknown coding": PACKED,
        "101|only interim": "an interim answer is no answer",
        "empty line first": "an empty line before the status line is passed over (RFC 9112, 2.2)",
        "blank first": "Python takes a status line behind a blank",
    },
    "curl": {
        "HTTP/2": "the version is HTTP/1.x or the answer is none",
        "contradictory lengths|signed length": LENGTHS,
        "chunked twice": "marked, since chunked may stand only once",
        "gzip, chunked": PACKED + "; curl unpacks it, and finds nothing here",
        "fold first|no colon": "the line is passed over, and the connection not used again; curl gives the answer up",
        "empty line first": "an empty line before the status line is passed over (RFC 9112, 2.2)",
    },
}


# --- a server, and three clients ---


class Server:
    """Answers /N with the Nth answer and ends the connection."""

    def __init__(self):
        self.socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            with connection:
                request = b""
                while b"\r\n\r\n" not in request or not request.endswith(b"{}"):
                    more = connection.recv(65536)
                    if not more:
                        break
                    request += more
                number = re.match(rb"POST /(\d+) ", request)
                if number:
                    connection.sendall(ANSWERS[int(number[1])][1])

    def url(self, number):
        return f"http://127.0.0.1:{self.port}/{number}"


@pytest.fixture(scope="module")
def server():
    server = Server()
    yield server
    server.socket.close()


def ours(server):
    """[(status or None, body, whole)]"""
    urls = "".join(server.url(n) + "\n" for n in range(len(ANSWERS)))
    done = subprocess.run([os.path.join(os.path.dirname(program("anubisd")), "tools/post")], input=urls, capture_output=True,
                          text=True, check=True, timeout=120)
    results = []
    for line in done.stdout.splitlines():
        cause, status, whole, body = (line + " ").split(" ")[:4]
        results.append((int(status) if cause == "answered" else None, bytes.fromhex(body), whole == "whole"))
    return results


def python(server, number):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("POST", f"/{number}", body=b"{}", headers={"Content-Type": "application/json"})
        response = connection.getresponse()
    except (http.client.HTTPException, ConnectionError, ValueError):
        return None, b"", False
    try:
        return response.status, response.read(), True
    except http.client.IncompleteRead as e:
        return response.status, e.partial, False
    except (http.client.HTTPException, ConnectionError, ValueError):
        return response.status, b"", False
    finally:
        connection.close()


def for_curl(number):
    """A process for each answer takes its time: those with plain headers, and the single ones."""
    name = ANSWERS[number][0]
    return name in SINGLE or " / none / " in name or " / close / " in name


def curl(server, number, tmp_path):
    out = tmp_path / "body"
    out.unlink(missing_ok=True)
    done = subprocess.run(["curl", "-s", "--noproxy", "*", "--max-time", "10", "-X", "POST", "-d", "{}", "-o", str(out),
                           "-w", "%{http_code}", server.url(number)], capture_output=True, text=True, check=False)
    status = int(done.stdout or 0)
    body = out.read_bytes() if out.exists() else b""
    return (status if status >= 200 else None), body, done.returncode == 0


def differences(kind, names, mine, others):
    for name, (status, body, whole), (their_status, their_body, their_whole) in zip(names, mine, others):
        same = status == their_status and (status is None or whole == their_whole) and \
            (not whole or status is None or body == their_body)
        if not same and not any(re.fullmatch(pattern, name) for pattern in DIFFER[kind]):
            yield f"{name}: ours {status}, {'whole' if whole else 'truncated'}, {body[:20]!r}; " \
                  f"{kind} {their_status}, {'whole' if their_whole else 'truncated'}, {their_body[:20]!r}"


def test_as_python_understands_them(server):
    assert len(ANSWERS) >= 300
    found = list(differences("python", [name for name, _ in ANSWERS], ours(server),
                             [python(server, n) for n in range(len(ANSWERS))]))
    assert not found, "\n".join(found)


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl command")
def test_as_curl_understands_them(server, tmp_path):
    numbers = [n for n in range(len(ANSWERS)) if for_curl(n)]
    mine = ours(server)
    found = list(differences("curl", [ANSWERS[n][0] for n in numbers], [mine[n] for n in numbers],
                             [curl(server, n, tmp_path) for n in numbers]))
    assert not found, "\n".join(found)
