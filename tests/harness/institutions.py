"""The sample institutions (tests/tools/institutions.c) as an object."""
import json
import os
import re
import ssl
import urllib.error
import urllib.parse
import urllib.request

from .processes import Child, build_folder, scratch_folder


class Key:
    """What one Idempotency-Key has seen."""
    __slots__ = ("received", "acknowledged", "first_usec")

    def __init__(self, received, acknowledged, first_usec):
        self.received, self.acknowledged, self.first_usec = received, acknowledged, first_usec

    def __repr__(self):
        return f"Key(received={self.received}, acknowledged={self.acknowledged})"


class Institutions:
    """Paths have characters, see the server's GET /: url("/flaky/30/usp"). They may end with any name, so that several
    institutions share a character. With `certificates` they speak TLS. `more_ports` are as many further institutions, each
    with connections of its own: url("/good", institutions.ports[7])."""

    def __init__(self, count=True, options=(), name="institutions", certificates=None, more_ports=0):
        tls = [f"--tls-cert={certificates.chain}", f"--tls-key={certificates.key}"] if certificates else []
        self.argv = [os.path.join(build_folder(), "tools", "institutions"), "--lifeline",
                     *([] if count else ["--no-count"]), f"--more-ports={more_ports}", *tls, *options]
        self.child = Child(self.argv, name=name, folder=scratch_folder(), stdin=True)
        self.port = None
        self.ports = []  # the further ones; others after a restart
        self.scheme = "https" if certificates else "http"

    def start(self):
        before = len(self.child.output)
        # After a restart the same port: that is where the integrations' endpoint_url points.
        self.child.argv = [a for a in self.argv if not a.startswith("--port=")] + (
            [f"--port={self.port}"] if self.port else [])
        self.child.start()
        self.port = int(self.child.wait_output(r"^listening on 127\.0\.0\.1:(\d+)$", start=before).group(1))
        self.ports = [int(port) for line in re.findall(r"(?m)^also on(.*)$", self.child.output[before:]) for port in line.split()]
        return self

    def url(self, path="/good", port=None):
        return f"{self.scheme}://127.0.0.1:{port or self.port}{path}"

    def _ask(self, question, method="GET", **arguments):
        query = urllib.parse.urlencode({k: v for k, v in arguments.items() if v is not None})
        request = urllib.request.Request(self.url(question) + ("?" + query if query else ""), method=method)
        # No proxy of the environment: it is loopback. And it is our own: its certificate is not the question.
        trusting = urllib.request.HTTPSHandler(context=ssl._create_unverified_context())  # pylint: disable=protected-access
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), trusting)
        with opener.open(request, timeout=60) as answer:
            return answer.read().decode()

    def counts(self, path=None):
        """{"paths": {path: tally}, "total": tally}, or with a path its tally."""
        found = json.loads(self._ask("/counts", path=path))
        return found["paths"].get(path, found["total"]) if path else found

    def key(self, key):
        """The history of one key, or None when it was never received in full."""
        try:
            return json.loads(self._ask("/key/" + urllib.parse.quote(str(key))))
        except urllib.error.HTTPError as e:
            if e.code == 404:
                return None
            raise

    def keys(self, path=None):
        """{key: Key} of all that were received in full (first at that path)."""
        found = {}
        for line in self._ask("/keys", path=path).splitlines():
            key, received, acknowledged, first = line.rsplit(" ", 3)
            found[key] = Key(int(received), int(acknowledged), int(first))
        return found

    def last(self, path):
        """(request line, {header in lower case: value}, body) of the last request received in full there."""
        found = json.loads(self._ask("/last", path=path))
        line, *headers = found["head"].rstrip("\n").split("\n")
        return line, {h.split(": ", 1)[0].lower(): h.split(": ", 1)[1] for h in headers}, found["body"]

    def become(self, path, role=""):
        """From now on `path` behaves as `role` would: become("/good/usp", "/dead"); "" makes it itself again."""
        self._ask("/become", "POST", path=path, role=role)

    def reset_counts(self):
        self._ask("/reset-counts", "POST")

    def violations(self):
        return self.counts()["total"]["violations"]

    # Its processes' fates: stop() hangs it (connections stay open), kill9() breaks all connections.
    def stop(self):
        self.child.stop()

    def cont(self):
        self.child.cont()

    def kill9(self):
        self.child.kill9()

    def close(self):
        self.child.close()

    def __enter__(self):
        return self if self.child.is_running() else self.start()

    def __exit__(self, *_):
        self.close()
