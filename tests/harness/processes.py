"""Child processes, each in a session of its own, and waiting for conditions."""
import atexit
import contextlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
import uuid

# Every process we start, and whatever it starts, carries this in its environment: that is how leftovers are found.
MARK = "ANUBIS_HARNESS"
TOKEN = uuid.uuid4().hex

# Deadlines are multiplied by this (valgrind, sanitizers, slow machines).
PATIENCE = float(os.environ.get("ANUBIS_PATIENCE", "1"))

_started = []
_folders = []


class Deadline(AssertionError):
    """What was waited for did not come."""


_waits = threading.local()


def kept():
    """What the looks of the innermost wait of this thread share, by any key: closed when the wait ends. None outside of one."""
    return getattr(_waits, "kept", None)


@contextlib.contextmanager
def _keeping():
    outer, _waits.kept = kept(), {}
    try:
        yield
    finally:
        for thing in _waits.kept.values():
            thing.close()
        _waits.kept = outer


def wait_for(condition, deadline=30.0, what="the condition", interval=0.02):
    """Calls condition() until it returns something true, and returns that. Its last exception is reported when the
    deadline passes; an AssertionError passes at once."""
    with _keeping():
        return _wait_for(condition, deadline, what, interval)


def _wait_for(condition, deadline, what, interval):
    end = time.monotonic() + deadline * PATIENCE
    error = None
    while True:
        try:
            value = condition()
            if value:
                return value
            error = None
        except (AssertionError, KeyboardInterrupt):
            raise
        except Exception as e:  # pylint: disable=broad-except
            error = e
        if time.monotonic() >= end:
            text = what() if callable(what) else what
            raise Deadline(f"waited {deadline * PATIENCE:g} s in vain for {text}" + (f": {error!r}" if error else ""))
        time.sleep(interval)
        interval = min(interval * 1.2, 0.25)


_ports = set()


def free_port():
    """A port that was free a moment ago, never the same one twice, and below those that connections take for themselves.
    Whoever uses it tries again with another one when it is taken meanwhile."""
    while True:
        port = random.SystemRandom().randrange(12000, 32000)
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _ports:
            _ports.add(port)
            return port


def scratch_folder(prefix="anubis-", keep=False):
    """A new folder that any user may pass through; removed at exit unless kept."""
    path = os.path.join(os.environ.get("ANUBIS_SCRATCH", "/tmp"), prefix + uuid.uuid4().hex[:12])
    if not keep:
        _folders.append(path)  # before it is there: a signal may come at any moment
    os.mkdir(path, 0o700)
    os.chmod(path, 0o755)
    return path


def build_folder():
    """Where the programs under test are: $ANUBIS_BUILD, else build/ of the checkout."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return os.path.join(root, os.environ.get("ANUBIS_BUILD") or "build")


def cache_folder(*names):
    """A folder that outlives this run: what was fetched once stays."""
    base = os.environ.get("ANUBIS_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "anubisd")
    path = os.path.join(base, *names)
    os.makedirs(path, exist_ok=True)
    return path


def _stat(pid):
    """(parent, state) of a process, or None when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as f:
            fields = f.read().rpartition(b")")[2].split()
        return int(fields[1]), fields[0].decode()
    except (OSError, IndexError):
        return None


def pids():
    return [int(p) for p in os.listdir("/proc") if p.isdigit()]


def descendants(pid):
    """All processes below this one, zombies left out."""
    parents = {p: s for p in pids() if (s := _stat(p)) and s[1] != "Z"}
    found, todo = [], [pid]
    while todo:
        parent = todo.pop()
        for p, (above, _) in parents.items():
            if above == parent:
                found.append(p)
                todo.append(p)
    return found


def is_alive(pid):
    s = _stat(pid)
    return s is not None and s[1] not in "ZX"


def leftovers():
    """{pid: command line} of processes that this harness started, or their children, and that still live."""
    mark = f"{MARK}={TOKEN}".encode()
    found = {}
    for pid in pids():
        if pid == os.getpid() or not is_alive(pid):
            continue
        try:
            with open(f"/proc/{pid}/environ", "rb") as f:
                if mark not in f.read().split(b"\0"):
                    continue
            with open(f"/proc/{pid}/cmdline", "rb") as f:
                found[pid] = f.read().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
    return found


class Child:
    """One program. Its output goes to files, so that it never blocks; `output` has both streams of all its runs."""

    def __init__(self, argv, name=None, folder=None, env=None, user=None, stdin=False, cwd=None):
        self.argv = [str(a) for a in argv]
        self.name = name or os.path.basename(self.argv[0])
        self.folder = folder or scratch_folder()
        self.env = env or {}
        self.user = user  # a pwd entry, or None to stay who we are
        self.stdin = stdin
        self.cwd = cwd
        self.process = None
        self.out_path = os.path.join(self.folder, self.name + ".out")
        self.err_path = os.path.join(self.folder, self.name + ".err")

    def start(self):
        assert not self.is_running(), f"{self.name} runs already"
        env = {**os.environ, **self.env, MARK: TOKEN}
        env = {k: v for k, v in env.items() if v is not None}
        extra = {}
        if self.user and os.geteuid() == 0:
            extra = {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": []}
            env["HOME"] = self.folder
        with open(self.out_path, "ab") as out, open(self.err_path, "ab") as err:
            self.process = subprocess.Popen(
                self.argv, stdin=subprocess.PIPE if self.stdin else subprocess.DEVNULL, stdout=out, stderr=err,
                env=env, cwd=self.cwd or self.folder, start_new_session=True, **extra)
        if self not in _started:
            _started.append(self)
        return self

    @property
    def pid(self):
        return self.process.pid

    @property
    def returncode(self):
        return self.process.poll() if self.process else None

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        if self.is_running():
            self.process.send_signal(number)

    def wait(self, deadline=30.0, what=None):
        """The exit code; negative for a signal."""
        try:
            return self.process.wait(deadline * PATIENCE)
        except subprocess.TimeoutExpired:
            raise Deadline(f"waited {deadline * PATIENCE:g} s in vain for {what or self.name + ' to end'}\n"
                           + self.tail()) from None
        finally:
            if self.process.stdin and self.process.poll() is not None:
                self.process.stdin.close()

    def terminate(self, deadline=60.0):
        """SIGTERM, and the exit code. Continues it first when it was stopped."""
        self.signal(signal.SIGTERM)
        self.signal(signal.SIGCONT)
        return self.wait(deadline)

    def kill9(self):
        self.signal(signal.SIGKILL)
        return self.wait()

    def stop(self):
        """SIGSTOP: hangs until cont()."""
        self.signal(signal.SIGSTOP)
        wait_for(lambda: not self.is_running() or _stat(self.pid)[1] == "T", what=f"{self.name} to stop")

    def cont(self):
        self.signal(signal.SIGCONT)

    def close(self):
        """Ends it for good, whatever state it is in; nothing of it is left."""
        if self in _started:
            _started.remove(self)
        if not self.is_running():
            return
        below = descendants(self.pid)
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill9()
        for pid in below:
            if is_alive(pid):
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass

    @property
    def stdout(self):
        return _read(self.out_path)

    @property
    def stderr(self):
        return _read(self.err_path)

    @property
    def output(self):
        return self.stdout + self.stderr

    def tail(self, lines=40):
        return "\n".join(self.output.splitlines()[-lines:])

    def wait_output(self, pattern, deadline=30.0, start=0, count=1):
        """Waits until its output, from character `start` on, holds the pattern `count` times; the last match."""
        def look():
            found = list(re.finditer(pattern, self.output[start:], re.MULTILINE))
            if len(found) >= count:
                return found[-1]
            if not self.is_running():
                time.sleep(0.05)  # its last words may still be on their way
                found = list(re.finditer(pattern, self.output[start:], re.MULTILINE))
                assert len(found) >= count, f"{self.name} ended ({self.returncode}) without {pattern!r}:\n{self.tail()}"
                return found[-1]
            return None
        return wait_for(look, deadline, lambda: f"{pattern!r} in the output of {self.name}:\n{self.tail()}")

    def rss_kib(self):
        return self.status("VmRSS")

    def status(self, name):
        """A number of /proc/PID/status."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as f:
            return int(re.search(rf"^{name}:\s+(\d+)", f.read(), re.MULTILINE).group(1))

    def cpu_seconds(self):
        """User and system time of the whole process so far."""
        with open(f"/proc/{self.pid}/stat", "rb") as f:
            fields = f.read().rpartition(b")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read()
    except FileNotFoundError:
        return ""


def started():
    """The children of this run, those that were ended included until close() forgets them."""
    return list(_started)


def close_all():
    """Ends everything that was started, the latest first, and removes the scratch folders."""
    for child in reversed(_started):
        child.close()
    end = time.monotonic() + 10
    while (left := leftovers()) and time.monotonic() < end:
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.01)  # one that still writes would keep its folder from being removed
    _started.clear()
    while _folders:
        shutil.rmtree(_folders.pop(), ignore_errors=True)


def end_on_signals():
    """For programs (not pytest): SIGTERM and SIGHUP end this process as Ctrl-C does, cleaning up on the way."""
    def end(number, _frame):
        raise SystemExit(128 + number)
    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGHUP, end)


atexit.register(close_all)
