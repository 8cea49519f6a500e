"""Name servers on loopback, as the resolver of one process sees them."""
import contextlib
import errno
import random
import socket
import threading


class NameServers:
    """One socket for each of `alive` on port 53 of a loopback address of its own; those that are not alive take queries and
    never answer, and those that are "failing" answer SERVFAIL. Every name is 127.0.0.1. `alive` may change."""

    def __init__(self, folder, alive):
        self.path = f"{folder}/resolv.conf"
        self.alive = list(alive)
        self.asked = [0] * len(alive)
        self._sockets = []
        with open(self.path, "w", encoding="ascii") as f:
            for i in range(len(alive)):
                s = self._bound()
                self._sockets.append(s)
                f.write(f"nameserver {s.getsockname()[0]}\n")
                threading.Thread(target=self._serve, args=(i, s), daemon=True).start()

    @staticmethod
    def _bound():
        """A resolver asks port 53 only, so it is the address that has to be free: other tests run beside this one."""
        while True:
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                s.bind((f"127.53.{random.randrange(256)}.{random.randrange(1, 255)}", 53))
                return s
            except OSError as e:
                s.close()
                if e.errno != errno.EADDRINUSE:
                    raise

    def wrapper(self):
        """A command before a command, which then asks these."""
        return ("unshare", "--mount", "sh", "-c", 'mount --bind "$0" "$(readlink -f /etc/resolv.conf)" && exec "$@"', self.path)

    def _serve(self, i, s):
        while True:
            try:
                query, client = s.recvfrom(4096)
            except OSError:
                return
            self.asked[i] += 1
            if self.alive[i]:
                s.sendto(self._refusal(query) if self.alive[i] == "failing" else self._answer(query), client)

    @staticmethod
    def _refusal(query):
        end = query.index(b"\0", 12) + 5
        return query[:2] + b"\x81\x82" + b"\0\1\0\0\0\0\0\0" + query[12:end]

    @staticmethod
    def _answer(query):
        end = query.index(b"\0", 12) + 5  # the question: name, type, class
        is_a = query[end - 4:end - 2] == b"\0\1"
        head = query[:2] + b"\x81\x80" + b"\0\1" + (b"\0\1" if is_a else b"\0\0") + b"\0\0\0\0"
        record = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4\x7f\0\0\1" if is_a else b""
        return head + query[12:end] + record

    def close(self):
        for s in self._sockets:
            with contextlib.suppress(OSError):  # not connected; its reader wakes up none the less
                s.shutdown(socket.SHUT_RDWR)
            s.close()
