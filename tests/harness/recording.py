"""An HTTP server, in clear text or over TLS, that keeps what it is sent and answers as it is told."""
import contextlib
import dataclasses
import http.server
import ssl
import threading
import time


@dataclasses.dataclass
class Received:
    """A request as it came: `headers` in their order, the names in lower case; `peer` is the client's certificate (a dict)."""
    method: str
    path: str
    headers: list
    body: bytes
    at: float
    connection: int
    peer: dict

    def header(self, name):
        """Its only value, or None."""
        values = [v for n, v in self.headers if n == name]
        assert len(values) < 2, values
        return values[0] if values else None


class RecordingServer:
    """`answer` takes a Received and returns (status, {header: value}, body), or None: the connection ends. `client_ca`: clients
    need a certificate that this authority has signed. `old_tls`: TLS 1.1 is the latest that it speaks."""

    def __init__(self, answer=lambda request: (200, {}, b""), certificates=None, client_ca=None, old_tls=False):
        self.answer, self.received, self.connections = answer, [], 0
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                server.connections += 1
                self.number = server.connections

            def do_POST(self):  # pylint: disable=invalid-name
                body = self.rfile.read(int(self.headers["content-length"] or 0))
                peer = self.connection.getpeercert() if client_ca else None
                headers = [(n.lower(), v) for n, v in self.headers.items()]
                request = Received(self.command, self.path, headers, body, time.time(), self.number, peer)
                server.received.append(request)
                answer = server.answer(request)
                if answer is None:
                    self.close_connection = True
                    return
                status, more, text = answer
                self.send_response(status)
                for name, value in {"Content-Length": str(len(text)), **more}.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):  # the client may have heard enough
                    self.wfile.write(text)

            do_GET = do_POST

            def log_message(self, *_):  # pylint: disable=arguments-differ
                pass

        class Server(http.server.ThreadingHTTPServer):
            request_queue_size = 256

            def handle_error(self, *_):  # a client that goes away, or is refused in the handshake
                pass

        self._server = Server(("127.0.0.1", 0), Handler)
        if certificates:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificates.chain, certificates.key)
            if old_tls:
                context.set_ciphers("DEFAULT:@SECLEVEL=0")
                context.minimum_version, context.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
            if client_ca:
                context.load_verify_locations(client_ca)
                context.verify_mode = ssl.CERT_REQUIRED
            # The handshake is the business of the connection's own thread.
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self._server.server_address[1]
        self.url = f"{'https' if certificates else 'http'}://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def at(self, path):
        return [r for r in self.received if r.path == path]

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
