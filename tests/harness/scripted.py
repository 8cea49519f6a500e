"""Servers that do exactly what a script says, byte by byte, in clear text or over TLS."""
import contextlib
import dataclasses
import re
import socket
import ssl
import struct
import threading
import time


@dataclasses.dataclass
class Script:
    """What a server does with each connection: for each request, once its head is there when
    `early`, else once it is whole, the reply (bytes, a list of pieces, or what it returns for the body),
    after `delay` seconds, in pieces of `piece` bytes (None: at once), then `endless`
    without end; then `after`: "keep" the connection for the next request, "close" it, "cut" it (without TLS's farewell),
    "reset" it, or "hold" it in silence. `unread`: what the head announces is never read."""
    reply: bytes = b""
    after: str = "keep"
    piece: int = None
    delay: float = 0
    early: bool = False
    unread: bool = False
    endless: bytes = b""


class ScriptedServer:
    """On a port of its own. Counts connections and whole requests."""

    def __init__(self, script, certificates=None):
        self.script = script
        self.connections = self.requests = 0
        self._context = None
        if certificates:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(certificates.chain, certificates.key)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._open = set()
        self._closed = False
        threading.Thread(target=self._run, daemon=True).start()

    @property
    def url(self):
        return f"{'https' if self._context else 'http'}://127.0.0.1:{self._listener.getsockname()[1]}/"

    def _run(self):
        while not self._closed:
            with contextlib.suppress(OSError):
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._open.add(connection)
        with contextlib.suppress(OSError, ValueError):  # the client may go at any time
            plain = connection
            if self._context:
                connection = self._context.wrap_socket(connection, server_side=True)
                self._open.add(connection)
            while self._exchange(connection):
                pass
            self._end(connection, plain)
        connection.close()

    def _exchange(self, connection):
        """False when the connection is to end."""
        script, request = self.script, b""
        while b"\r\n\r\n" not in request:
            request += self._more(connection)
        head, body = request.split(b"\r\n\r\n", 1)
        if script.early:
            self._reply(connection, body)
        if script.unread:
            return False
        length = int(re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)[1])
        while len(body) < length:
            body += self._more(connection)
        self.requests += 1
        if not script.early:
            self._reply(connection, body)
        return script.after == "keep"

    @staticmethod
    def _more(connection):
        more = connection.recv(65536)
        if not more:
            raise OSError("the client has gone")
        return more

    def _reply(self, connection, body):
        script = self.script
        reply = script.reply(body) if callable(script.reply) else script.reply
        time.sleep(script.delay)
        if isinstance(reply, bytes):
            size = script.piece or max(len(reply), 1)
            reply = [reply[at:at + size] for at in range(0, len(reply), size)]
        for piece in reply:
            connection.sendall(piece)
        many = script.endless * (65536 // max(len(script.endless), 1))
        while many:
            connection.sendall(many)

    def _end(self, connection, plain):
        if self.script.after == "hold":
            while connection.recv(65536):
                pass
        elif self.script.after == "reset":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        elif self.script.after == "close" and connection is not plain:
            connection.settimeout(5)
            connection.unwrap()

    def close(self):
        self._closed = True
        for s in [self._listener, *self._open]:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                s.close()
