"""A TCP proxy on loopback that can cut, stall and refuse: what networks do to connections.

One thread of this process; not meant for heavy loads.
"""
import collections
import selectors
import socket
import struct
import threading
import time

CHUNK = 262144


class _Pipe:
    """Both directions of one connection."""

    def __init__(self, client, server):
        self.ends = {client: server, server: client}
        self.pending = {client: b"", server: b""}  # what is still to be sent to it
        self.underway = {client: 0, server: 0}  # pieces that will be
        self.closing = set()  # has no more to read; close its peer's sending side when all is sent


class Proxy:
    """Listens on self.port and forwards to target, (host, port) or "host:port".

    cut(): resets all connections, new ones are let through.  down()/up(): refuses new ones as well, on the same port.
    stall()/resume(): nothing is forwarded, connections stay open and new ones are accepted.
    cut_after(n): resets each connection once n more bytes went towards the target.
    delay: seconds that each piece is under way, in either direction."""

    def __init__(self, target, port=0, delay=0):
        if isinstance(target, str):
            host, _, number = target.rpartition(":")
            target = (host, int(number))
        self.target = target
        self._selector = selectors.DefaultSelector()
        self._lock = threading.RLock()
        self._pipes = set()
        self._stalled = self._ending = False
        self._budget = None
        self._delay, self._late = delay, collections.deque()
        self.connections = 0  # so far
        self.bytes_up = self.bytes_down = 0
        self._listener = None
        self.port = port
        self._wake_out, self._wake_in = socket.socketpair()
        self._wake_out.setblocking(False)
        self._selector.register(self._wake_out, selectors.EVENT_READ)
        self.up()
        self._thread = threading.Thread(target=self._run, daemon=True, name="toxic-proxy")
        self._thread.start()

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    # --- what tests call ---

    def cut(self):
        with self._lock:
            for pipe in list(self._pipes):
                self._reset(pipe)

    def cut_after(self, count):
        with self._lock:
            self._budget = count

    def down(self):
        with self._lock:
            if self._listener:
                self._selector.unregister(self._listener)
                self._listener.close()
                self._listener = None
            self.cut()

    def up(self):
        with self._lock:
            self._budget = None
            if self._listener:
                return
            self._listener = socket.socket()
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(("127.0.0.1", self.port))
            self._listener.listen(512)
            self._listener.setblocking(False)
            self.port = self._listener.getsockname()[1]
            self._selector.register(self._listener, selectors.EVENT_READ)
            self._wake()

    def stall(self):
        with self._lock:
            self._stalled = True
            for pipe in self._pipes:
                for end in pipe.ends:
                    self._watch(pipe, end)

    def resume(self):
        with self._lock:
            self._stalled = False
            for pipe in list(self._pipes):
                for end in pipe.ends:
                    self._watch(pipe, end)
            self._wake()

    def open_connections(self):
        with self._lock:
            return len(self._pipes)

    def close(self):
        with self._lock:
            self._ending = True
            self._wake()
        self._thread.join(10)
        self.down()
        self._selector.close()
        self._wake_in.close()
        self._wake_out.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # --- the thread ---

    def _wake(self):
        self._wake_in.send(b"x")

    def _watch(self, pipe, end):
        """Reads from an end only while what came from it before has been passed on."""
        events = 0
        if not self._stalled:
            if not pipe.pending[pipe.ends[end]] and end not in pipe.closing:
                events |= selectors.EVENT_READ
            if pipe.pending[end]:
                events |= selectors.EVENT_WRITE
        known = self._selector.get_map().get(end.fileno())
        if known and events:
            self._selector.modify(end, events, pipe)
        elif known:
            self._selector.unregister(end)
        elif events:
            self._selector.register(end, events, pipe)

    def _drop(self, pipe):
        self._pipes.discard(pipe)
        for end in pipe.ends:
            if end.fileno() >= 0 and end.fileno() in self._selector.get_map():
                self._selector.unregister(end)
            end.close()

    def _reset(self, pipe):
        for end in pipe.ends:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._drop(pipe)

    def _accept(self):
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        self.connections += 1
        try:
            server = socket.create_connection(self.target, 5)
        except OSError:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            return
        for s in (client, server):
            s.setblocking(False)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        pipe = _Pipe(client, server)
        pipe.client = client
        self._pipes.add(pipe)
        for end in pipe.ends:
            self._watch(pipe, end)

    def _read(self, pipe, end):
        try:
            data = end.recv(CHUNK)
        except BlockingIOError:
            return
        if not data:
            pipe.closing.add(end)
        elif end is pipe.client:
            self.bytes_up += len(data)
            if self._budget is not None:
                self._budget -= len(data)
                if self._budget < 0:
                    data = data[:self._budget]
        else:
            self.bytes_down += len(data)
        peer = pipe.ends[end]
        if self._delay:
            pipe.underway[peer] += 1
            self._late.append((time.monotonic() + self._delay, pipe, peer, data))
        else:
            pipe.pending[peer] += data

    def _arrive(self):
        while self._late and self._late[0][0] <= time.monotonic():
            _, pipe, end, data = self._late.popleft()
            pipe.underway[end] -= 1
            pipe.pending[end] += data
            if pipe in self._pipes and not self._stalled:
                self._guarded_step(pipe, end, 0)

    def _write(self, pipe, end):
        if pipe.pending[end]:
            try:
                sent = end.send(pipe.pending[end])
            except BlockingIOError:
                return
            pipe.pending[end] = pipe.pending[end][sent:]

    def _step(self, pipe, end, events):
        if events & selectors.EVENT_READ:
            self._read(pipe, end)
        for e in pipe.ends:
            self._write(pipe, e)
        if self._budget is not None and self._budget < 0:
            self._budget = None
            self._reset(pipe)
            return
        for e in pipe.ends:
            if pipe.ends[e] in pipe.closing and not pipe.pending[e] and not pipe.underway[e]:
                e.shutdown(socket.SHUT_WR)
        if len(pipe.closing) == 2 and not any(pipe.pending.values()) and not any(pipe.underway.values()):
            self._drop(pipe)
            return
        for e in pipe.ends:
            self._watch(pipe, e)

    def _guarded_step(self, pipe, end, events):
        try:
            self._step(pipe, end, events)
        except OSError:
            if pipe in self._pipes:
                self._reset(pipe)

    def _run(self):
        while not self._ending:
            ready = self._selector.select(min(max(self._late[0][0] - time.monotonic(), 0), 1) if self._late else 1)
            with self._lock:
                for key, events in ready:
                    if key.fileobj is self._wake_out:
                        self._wake_out.recv(4096)
                    elif key.fileobj is self._listener:
                        self._accept()
                    elif key.data in self._pipes and not self._stalled:
                        self._guarded_step(key.data, key.fileobj, events)
                self._arrive()
