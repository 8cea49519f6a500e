"""What servers do, over HTTP and HTTPS: for each behaviour the row, its events, the journal, and how often the server itself
saw the request."""
import contextlib
import os
import re
import shutil
import ssl
import subprocess

import pytest
from harness.anubis import merged
from harness.certificates import Certificates
from harness.processes import wait_for
from harness.scripted import Script, ScriptedServer

SETTINGS = {"retry": {"base_delay": "1h", "max_delay": "2h"}, "log_level": "debug",
            "delivery": {"timeout": "10s", "connect_timeout": "10s", "lease": "60s", "response_limit": "1KiB"}}
LARGE = {"large": "x" * 300000}  # so much of a request that it is under way when the answer comes

FRAMINGS = {
    "length": (b"Content-Length: 5\r\n\r\nhello", "keep"), "no body": (b"Content-Length: 0\r\n\r\n", "keep"),
    "chunked": (b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;a=b\r\nllo\r\n0\r\nX: y\r\n\r\n", "keep"),
    "to the end": (b"\r\nhello", "close"), "HTTP/1.0": (b"\r\nhello", "close"),
    "behind interim ones": (b"Content-Length: 5\r\n\r\nhello", "keep"),
}
MANNERS = {"at once": {}, "late": {"delay": 1}, "byte by byte": {"piece": 1}, "early": {"early": True}}
START = {"HTTP/1.0": b"HTTP/1.0 %d X\r\n",
         "behind interim ones": b"HTTP/1.1 100 Go\r\n\r\nHTTP/1.1 103 H\r\nLink: <x>\r\n\r\nHTTP/1.1 %d X\r\n"}
STATES = {200: "sent", 422: "failed", 500: "retry"}


def ok(rest, status=200):
    return b"HTTP/1.1 %d X\r\n" % status + rest


# What is not known: (status, HTTP status, truncated, ambiguous, beginning of last_error, requests).
SENT, CUT = ("sent", 200, False, False, None, 1), ("sent", 200, True, False, None, 1)
LOST, TIMEOUT = ("retry", None, False, True, "connection lost", 1), ("retry", None, False, True, "timeout", 1)
REFUSED = ("failed", 422, True, False, "HTTP 422", 1)
MANY = b"X-Header: one more\r\n"
SINGLE = {
    # It breaks off.
    "nothing, end": (Script(b"", "close"), LOST), "nothing, cut": (Script(b"", "cut"), LOST),
    "nothing, reset": (Script(b"", "reset"), LOST), "half a status line": (Script(b"HTTP/1.1 20", "close"), LOST),
    "interim answer only": (Script(b"HTTP/1.1 100 Go\r\n\r\n", "close"), LOST),
    "status line, end": (Script(ok(b""), "close"), CUT), "status line, reset": (Script(ok(b""), "reset"), CUT),
    "half a header": (Script(ok(b"Content-Le"), "close"), CUT),
    "half a body": (Script(ok(b"Content-Length: 9\r\n\r\nhello"), "close"), CUT),
    "half a body, reset": (Script(ok(b"Content-Length: 9\r\n\r\nhello"), "reset"), CUT),
    "half a refusal": (Script(ok(b"Content-Length: 9\r\n\r\nhello", 422), "close"), REFUSED),
    "half a chunk": (Script(ok(b"Transfer-Encoding: chunked\r\n\r\n9\r\nhello"), "close"), CUT),
    "no last chunk": (Script(ok(b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"), "cut"), CUT),
    # It falls silent.
    "silence": (Script(b"", "hold"), TIMEOUT), "half a status line, silence": (Script(b"HTTP/1.1 2", "hold"), TIMEOUT),
    "interim, silence": (Script(b"HTTP/1.1 100 Go\r\n\r\n", "hold"), TIMEOUT),
    "status line, silence": (Script(ok(b""), "hold"), CUT),
    "half a body, silence": (Script(ok(b"Content-Length: 9\r\n\r\nhello"), "hold"), CUT),
    "no length, silence": (Script(ok(b"\r\nhello"), "hold"), CUT), "end of a chunk, silence":
        (Script(ok(b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello"), "hold"), CUT),
    # It is no HTTP, or not ours.
    "garbage": (Script(b"\x01\x02 what\r\n\r\n", "close"), LOST), "SSH": (Script(b"SSH-2.0-x\r\n", "close"), LOST),
    "HTTP/2": (Script(b"HTTP/2 200\r\n\r\n", "close"), LOST), "status 099": (Script(b"HTTP/1.1 099 X\r\n\r\n", "close"), LOST),
    "status 2000": (Script(b"HTTP/1.1 2000 X\r\n\r\n", "close"), LOST), "101": (Script(ok(b"\r\n", 101), "close"), LOST),
    # It says what makes no sense.
    "word for a length": (Script(ok(b"Content-Length: many\r\n\r\nhello"), "close"), CUT),
    "two lengths": (Script(ok(b"Content-Length: 2\r\nContent-Length: 5\r\n\r\nhello"), "close"), CUT),
    "enormous length": (Script(ok(b"Content-Length: 99999999999999999999\r\n\r\nhello"), "close"), CUT),
    "letters for a chunk": (Script(ok(b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"), "hold"), CUT),
    "longer chunk": (Script(ok(b"Transfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n0\r\n\r\n"), "hold"), CUT),
    "header that begins with a TAB": (Script(ok(b"\tb: c\r\nContent-Length: 5\r\n\r\nhello")), SENT),
    "no colon": (Script(ok(b"nonsense\r\nContent-Length: 5\r\n\r\nhello")), SENT),
    "NUL": (Script(ok(b"X: a\0b\r\nContent-Length: 5\r\n\r\nhe\0lo")), SENT),
    "unknown coding": (Script(ok(b"Transfer-Encoding: zstd\r\n\r\nhello"), "close"), CUT),
    "gzip": (Script(ok(b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b")), CUT),
    # It says more than it should.
    "two answers": (Script(ok(b"Content-Length: 5\r\n\r\nhello") + ok(b"Content-Length: 0\r\n\r\n", 500)), SENT),
    "stray line end": (Script(ok(b"Content-Length: 5\r\n\r\nhello\r\n")), SENT),
    "204 with a body": (Script(ok(b"Content-Length: 5\r\n\r\nhello", 204)), ("sent", 204, False, False, None, 1)),
    # Every limit is passed.
    "body beyond the limit": (Script(ok(b"Content-Length: 5000\r\n\r\n" + b"x" * 5000)), CUT),
    "body far beyond the limit": (Script(ok(b"Content-Length: 500000\r\n\r\n" + b"x" * 500000)), CUT),
    "endless body": (Script(ok(b"\r\n"), endless=b"x"), CUT), "endless chunks":
        (Script(ok(b"Transfer-Encoding: chunked\r\n\r\n"), endless=b"2\r\nok\r\n"), CUT),
    "endless refusal": (Script(ok(b"\r\n", 422), endless=b"x"), REFUSED), "endless headers": (Script(ok(b""), endless=MANY), CUT),
    "endless header": (Script(ok(b"X: "), endless=b"and so on "), CUT),
    "endless status line": (Script(b"HTTP/1.1 200 ", endless=b"and so on "), LOST),
    "endless interim answers": (Script(b"", endless=b"HTTP/1.1 100 Go\r\n\r\n"), LOST),
    "endless garbage": (Script(b"", endless=b"what is this"), LOST),
    "endless chunk size": (Script(ok(b"Transfer-Encoding: chunked\r\n\r\n5;"), endless=b"a=b;"), CUT),
    "endless trailers": (Script(ok(b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n"), endless=MANY), CUT),
    "long header": (Script(ok(b"X: " + b"a" * 100000 + b"\r\nContent-Length: 5\r\n\r\nhello")), SENT),
    "255 KiB of headers": (Script(ok(MANY * 13000 + b"Content-Length: 5\r\n\r\nhello")), SENT),
}


def length(value, after="hold"):
    return Script(ok(b"Content-Length: " + value + b"\r\n\r\nhello"), after)


def chunks(rest, after="hold"):
    return Script(ok(b"Transfer-Encoding: chunked\r\n\r\n" + rest), after)


def taken(start=b"", middle=b"", end=b"", **how):
    return Script(start + ok(middle + b"Content-Length: 5\r\n\r\nhello") + end, **how)


def refused(status, body=b"", state="retry", truncated=False):
    return (Script(ok(b"Content-Length: %d\r\n\r\n" % len(body) + body, status)),
            (state, status, truncated, False, f"HTTP {status}", 1))


ODD = {
    # Numbers.
    "a length of 2^63": (length(b"9223372036854775808"), CUT), "a length of 2^64 + 5": (length(b"18446744073709551621"), CUT),
    "a length that is long for nothing": (length(b"0" * 300 + b"5", "keep"), SENT), "-5": (length(b"-5"), CUT),
    "+5": (length(b"+5"), CUT), "0x5": (length(b"0x5"), CUT), "5.0": (length(b"5.0"), CUT), "no length": (length(b""), CUT),
    "5, 5": (length(b"5, 5", "keep"), SENT), "5, 6": (length(b"5, 6"), CUT), "5 and NUL": (length(b"5\0"), CUT),
    "a length on the next line": (length(b"\r\n 5"), CUT),
    "a chunk of 2^64 + 5": (chunks(b"10000000000000005\r\nhello\r\n"), CUT),
    "a chunk of 2^60": (chunks(b"fffffffffffffff\r\nhello", "close"), CUT), "a chunk of -5": (chunks(b"-5\r\nhello\r\n"), CUT),
    "a line's end in quotes": (chunks(b'5;a="\r\n"\r\nhello\r\n0\r\n\r\n'), CUT), "trailers that frame":
        (chunks(b"5\r\nhello\r\n0\r\nContent-Length: 9\r\nTransfer-Encoding: x\r\n\r\n", "keep"), SENT),
    "chunked, and a length":
        (Script(ok(b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"), "hold"), SENT),
    "chunked by HTTP/1.0": (Script(b"HTTP/1.0 200 X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", "hold"), SENT),
    # Statuses.
    "999": refused(999, b"denied"), "600": refused(600), "205": (Script(ok(b"Content-Length: 5\r\n\r\nhello", 205)),
                                                                ("sent", 205, False, False, None, 1)),
    "304 with a length": (Script(ok(b"Content-Length: 99\r\n\r\n", 304)), ("retry", 304, False, False, "HTTP 304", 1)),
    "301 to itself": (Script(ok(b"Location: /\r\nContent-Length: 0\r\n\r\n", 301)), ("retry", 301, False, False, "HTTP 301", 1)),
    # First lines.
    "lower case": (Script(b"http/1.1 200 x\r\ncontent-length: 5\r\n\r\nhello"), SENT), "LF alone":
        (Script(b"HTTP/1.1 200 X\nContent-Length: 5\n\nhello"), SENT),
    "CR alone": (Script(b"HTTP/1.1 200 X\rContent-Length: 5\r\rhello", "close"), LOST), "HTTP/1.10":
        (Script(b"HTTP/1.10 200 X\r\n\r\n", "hold"), LOST),
    "HTTP/0.9": (Script(b"<html>hello</html>", "close"), LOST),
    "a blank first": (Script(b" HTTP/1.1 200 X\r\n\r\n", "hold"), LOST),
    "frames of HTTP/2": (Script(b"\0\0\6\4\0\0\0\0\0\0\3\0\0\0\x64", "hold"), LOST), "an alert in clear text":
        (Script(b"\x15\3\1\0\2\2\x28", "close"), LOST),
    "empty lines first": (taken(start=b"\r\n\r\n"), SENT), "endless empty lines": (Script(b"", endless=b"\r\n"), LOST),
    # Interim answers.
    "a hundred before it": (taken(start=b"HTTP/1.1 102 P\r\n\r\n" * 100), SENT), "one with a length":
        (taken(start=b"HTTP/1.1 103 H\r\nContent-Length: 5\r\nConnection: close\r\n\r\n"), SENT),
    "one behind it": (taken(end=b"HTTP/1.1 100 Go\r\n\r\n"), SENT),
    # Headers and bodies.
    "ten thousand headers": (taken(middle=b"".join(b"X-%d: y\r\n" % n for n in range(10000))), SENT),
    "NUL in a name": (taken(middle=b"X\0Y: z\r\n"), SENT), "close, and open":
        (taken(middle=b"Connection: close\r\n", after="hold"), SENT),
    "open, and closed": (taken(middle=b"Connection: keep-alive\r\n", after="cut"), SENT),
    "each byte": (Script(ok(b"Content-Length: 256\r\n\r\n" + bytes(range(256)))), SENT), "surrogates":
        (Script(ok(b"Content-Length: 6\r\n\r\n\xed\xa0\xbd\xed\xb8\x80")), SENT),
    "cut within a letter": (Script(ok(b"Content-Length: 1201\r\n\r\nx" + "é".encode() * 600)), CUT),
    "a refusal for a terminal": refused(422, b"\x1b[2J\x1b]0;SECRET\x07\r\n<6>forged", "failed"),
    # It does not read what it answers, as nginx does with what is too large.
    "413 unread": (Script(ok(b"Content-Length: 5\r\nConnection: close\r\n\r\nlarge", 413), "cut", early=True, unread=True),
                   ("failed", 413, False, False, "HTTP 413", 0)),
    "200 unread": (taken(after="reset", early=True, unread=True), ("sent", 200, False, False, None, 0)),
}


def behaviours():
    for framing, (rest, after) in FRAMINGS.items():
        for manner, how in MANNERS.items():
            for status in (200, 422, 500) if manner == "byte by byte" else (200,):
                script = Script(START.get(framing, b"HTTP/1.1 %d X\r\n") % status + rest, after, **how)
                error = None if status == 200 else f"HTTP {status}"
                yield f"{framing}, {manner}, {status}", script, (STATES[status], status, False, False, error, 1)
    for name, (script, expected) in {**SINGLE, **ODD}.items():
        yield name, script, expected


BEHAVIOURS = list(behaviours())


def check(app, log, name, row, server, expected):
    status, http_status, truncated, ambiguous, error, requests = expected
    found = (row["status"], row["last_http_status"], row["last_response_truncated"] or False, row["last_ambiguous"])
    assert found == (status, http_status, truncated, ambiguous), (name, row)
    assert (row["last_error"] or "").startswith(error or "") and bool(row["last_error"]) == bool(error), (name, row["last_error"])
    assert row["attempts"] == 1 and server.requests == requests, (name, row["attempts"], server.requests)
    events = app.events(row["id"])
    last = {"retry": "retried"}.get(status, status)
    assert [e["event_type"] for e in events] == ["created", "updated", last], name
    assert (events[-1]["http_status"], events[-1]["ambiguous"] or False) == (http_status, ambiguous), (name, events[-1])
    assert len((row["last_response"] or "").encode()) <= 4096, name  # of 1 KiB, as valid UTF-8
    said = re.findall(rf"subscription {row['id']}, integration {row['integration_id']} \".*\", attempt 1: (.*)", log)
    class_ = f"HTTP {http_status}" if http_status else error.split(":")[0]
    assert said == [f"{class_}, {status}{', ambiguous' if ambiguous else ''}"], (name, said)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_each_behaviour_has_its_end(app, make_daemon, scheme):
    """All at once, so that none of them is in another one's way."""
    certificates = Certificates() if scheme == "https" else None
    with contextlib.ExitStack() as stack:
        servers = {}
        for name, script, _ in BEHAVIOURS:
            servers[name] = ScriptedServer(script, certificates)
            stack.callback(servers[name].close)
        rows = {name: app.subscription(app.integration(servers[name].url, name=name), LARGE if script.early else None)
                for name, script, _ in BEHAVIOURS}
        daemon = make_daemon(merged(SETTINGS, {"delivery": {"ca_file": certificates.root if certificates else ""}})).start()
        wait_for(lambda: not set(app.states()) - {"sent", "failed", "retry"}, 120, lambda: f"ends, now {app.states()}")
        daemon.term()
        for name, _, expected in BEHAVIOURS:
            check(app, daemon.log, name, app.row(rows[name]), servers[name], expected)
    assert len(BEHAVIOURS) >= 60 and "SECRET" not in daemon.log and "\x1b" not in daemon.log


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_out_of_step_settles_no_other_request(app, make_daemon, scheme):
    """Behind each answer comes one of the other kind, at once or byte by byte: each row ends as its own request did. The first
    byte of the second answer comes with the last one of the first: later, it could not be told from an early answer."""
    certificates = Certificates() if scheme == "https" else None
    good, bad = ok(b"Content-Length: 5\r\n\r\nhello"), ok(b"Content-Length: 3\r\n\r\nbad", 422)

    def at_once(body):
        return good + bad if b"good" in body else bad + good

    def byte_by_byte(body):
        first, second = (good, bad) if b"good" in body else (bad, good)
        return [*(bytes([b]) for b in first[:-1]), first[-1:] + second[:1], *(bytes([b]) for b in second[1:])]
    with contextlib.ExitStack() as stack:
        servers = [ScriptedServer(Script(reply), certificates) for reply in (at_once, byte_by_byte)]
        rows = []
        for server in servers:
            stack.callback(server.close)
            integration = app.integration(server.url, max_in_flight=4)
            rows += [(app.subscription(integration, {"kind": kind}), kind) for kind in ("good", "bad") * 50]
        make_daemon(merged(SETTINGS, {"delivery": {"ca_file": certificates.root if certificates else ""}})).start()
        app.wait_states(sent=100, failed=100, deadline=120)
        for row, kind in rows:
            assert app.row(row)["status"] == {"good": "sent", "bad": "failed"}[kind]
        assert app.value("select max(attempts) from {s}.subscriptions") == 1
        assert [server.requests for server in servers] == [100, 100]


def test_keys_of_connections_are_not_logged(app, make_daemon, tmp_path):
    """Whatever the environment says: who reads them reads the applicants."""
    certificates, log = Certificates(), tmp_path / "keys"
    with contextlib.closing(ScriptedServer(Script(ok(b"Content-Length: 0\r\n\r\n")), certificates)) as server:
        app.subscription(app.integration(server.url))
        make_daemon({"delivery": {"ca_file": certificates.root}}, env={"SSLKEYLOGFILE": str(log)}).start()
        app.wait_states(sent=1)
    assert not log.exists()


def test_an_untrusted_certificate_is_told_everywhere(app, ctl, make_daemon):
    """In the row, the journal and explain, by what is wrong with it."""
    with contextlib.closing(ScriptedServer(Script(), Certificates())) as server:
        row = app.subscriptions(app.integration(server.url), 20)[0]
        daemon = make_daemon({**SETTINGS, "delivery": {"ca_file": Certificates().root}}).start()
        daemon.wait_log("in a row failed within .*, the last one: TLS handshake or certificate: "
                        "the certificate's issuer is not known;")
        app.wait_states(retry=20)
        assert server.requests == 0
    assert app.row(row)["last_error"] == "TLS handshake or certificate: the certificate's issuer is not known"
    assert "the certificate's issuer is not known" in ctl("explain", str(row)).expect(0).stdout


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="another certificate store needs root and unshare")
def test_whom_the_system_trusts_counts_without_a_ca_file_only(app, make_daemon, tmp_path):
    """The system trusts one authority, `ca_file` names another one, and each has signed an institution's certificate. That the
    system trusts nobody is this machine's lack."""
    known, named = Certificates(), Certificates()
    store = os.path.realpath(ssl.get_default_verify_paths().openssl_capath)
    shutil.copy(known.root, tmp_path / "known.pem")
    subprocess.run(["openssl", "rehash", tmp_path], check=True, capture_output=True)
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(contextlib.closing(ScriptedServer(Script(ok(b"Content-Length: 0\r\n\r\n")), authority)))
                   for authority in (known, named)]
        integrations = [app.integration(server.url) for server in servers]

        def refused(integration, words):
            row = app.subscription(integration)
            wait_for(lambda: words in (app.row(row)["last_error"] or ""), 30, words)
            app.query("update {s}.integrations set enabled = false where id = %s", (integration,))
            return row

        def sent(integration):
            row = app.subscription(integration)
            wait_for(lambda: app.row(row)["status"] == "sent", 30, "it to be sent")
        daemon = make_daemon({"log_level": "info", "delivery": {"ca_file": named.root}},
                             wrapper=("unshare", "--mount", "sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"',
                                      str(tmp_path), store)).start()
        sent(integrations[1])
        refused(integrations[0], "issuer is not known")
        app.query("update {s}.integrations set enabled = true")
        daemon.reload(delivery={"ca_file": ""})
        wait_for(lambda: servers[0].requests == 1, 30, "what was refused to be sent")
        refused(integrations[1], "issuer is not known")
        for name in os.listdir(tmp_path):
            os.unlink(tmp_path / name)
        daemon.reload(log_level="debug")
        row = refused(integrations[0], "install ca-certificates")
        assert app.row(row)["attempts"] == 0 and [server.requests for server in servers] == [1, 1]
        daemon.wait_log("keeps requests from being sent.* install ca-certificates, or set delivery.ca_file")
