"""anubisd and anubisctl as objects."""
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import threading

from .processes import MARK, PATIENCE, TOKEN, Child, Deadline, build_folder, scratch_folder, wait_for


class Raw(str):
    """Text that goes into the conf file as it is, without quotes."""


def libconfig_value(value):
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return f"{value}L" if not -2**31 <= value < 2**31 else str(value)
    if isinstance(value, float):
        text = repr(value)
        return text if re.search(r"[.e]", text) else text + ".0"
    if isinstance(value, dict):
        return "{ " + " ".join(f"{k} = {libconfig_value(v)};" for k, v in value.items()) + " }"
    if isinstance(value, (list, tuple)):
        return "( " + ", ".join(libconfig_value(v) for v in value) + " )"
    text = str(value).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
    return f'"{text}"'


def libconfig(settings):
    """A nested dict in libconfig's syntax, a setting a line."""
    lines = []
    for key, value in settings.items():
        if isinstance(value, dict):
            lines += [f"{key}: {{", *(f"    {k} = {libconfig_value(v)};" for k, v in value.items()), "};"]
        else:
            lines.append(f"{key} = {libconfig_value(value)};")
    return "\n".join(lines) + "\n"


def merged(*layers):
    """Nested dicts, later ones over earlier ones; None removes a key."""
    result = {}
    for layer in layers:
        for key, value in (layer or {}).items():
            if value is None:
                result.pop(key, None)
            elif isinstance(value, dict) and isinstance(result.get(key), dict):
                result[key] = merged(result[key], value)
            else:
                result[key] = merged(value) if isinstance(value, dict) else value
    return result


# What every test wants: loopback institutions without TLS, quick polls and retries, which no open circuit ends.
TEST_SETTINGS = {
    "log_level": "debug",
    "delivery": {"poll_interval": "200ms", "allow_http": True, "allow_private_networks": True},
    "retry": {"base_delay": "200ms", "max_delay": "2s"},
    "circuit_breaker": {"failure_threshold": 100000},
    "status": {"listen": ""},
}

# Not to be inherited from whoever runs the tests.
FOREIGN = ("DATABASE_URL", "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "JOURNAL_STREAM", "INVOCATION_ID",
           "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY", "PGHOST", "PGPORT", "PGUSER", "PGDATABASE",
           "PGPASSWORD", "PGOPTIONS", "PGSERVICE", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY",
           "all_proxy", "COLUMNS")


def clean_environment(more=None):
    env = {k: None for k in os.environ if k in FOREIGN or k.startswith("KAFKA_")}
    return {**env, "TZ": "UTC", **(more or {})}


def program(name):
    return os.path.join(build_folder(), name)


class Configured:
    """A conf file in a folder of its own."""

    def __init__(self, settings=None, database=None, kafka=None, folder=None, test_settings=True):
        """database: a Database, a Postgres or a conninfo; kafka: a Cluster or a list of brokers."""
        self.folder = folder or scratch_folder()
        self.path = os.path.join(self.folder, "anubisd.conf")
        conninfo = database.conninfo() if hasattr(database, "conninfo") else database
        brokers = getattr(kafka, "bootstrap", kafka)
        self.settings = merged(TEST_SETTINGS if test_settings else {},
                               {"database": {"conninfo": conninfo}} if conninfo else {},
                               {"kafka": {"brokers": brokers}} if brokers else {}, settings)
        self.write()

    def write(self, **changes):
        self.settings = merged(self.settings, changes)
        self.write_text(libconfig(self.settings))

    def write_text(self, text):
        """Replaces the file at once, as an editor would."""
        with open(self.path + ".new", "w", encoding="utf-8", errors="surrogateescape") as f:
            f.write(text)
        os.rename(self.path + ".new", self.path)


class Daemon(Configured):
    """anubisd -c its own conf file."""

    def __init__(self, settings=None, database=None, kafka=None, env=None, name="anubisd", wrapper=(), options=(),
                 test_settings=True):
        """wrapper: a command that runs it, ["valgrind", …]."""
        super().__init__(merged({"instance": name}, settings), database, kafka, test_settings=test_settings)
        self.child = Child([*wrapper, program("anubisd"), "-c", self.path, *options], name=name, folder=self.folder,
                           env=clean_environment(env))
        self.started_at = 0
        self.notified = []
        self._notify = self._listener = None

    def start(self, wait=True, deadline=30):
        self.started_at = len(self.child.output)
        self._listen_for_ready()
        self.child.start()
        if wait:
            self.wait_ready(deadline)
        return self

    def _listen_for_ready(self):
        """sd_notify(3) tells more surely than any log line. A thread reads it: a full socket would block the daemon."""
        self._stop_listening()
        path = os.path.join(self.folder, "notify")
        if os.path.exists(path):
            os.unlink(path)
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(path)
        os.chmod(path, 0o666)
        self.notified = notified = []
        self._notify = notify
        self.child.env["NOTIFY_SOCKET"] = path

        def listen():
            while True:
                try:
                    data = notify.recv(65536)
                except OSError:
                    return
                if not data:
                    return
                notified.append(data.decode(errors="replace").split("\n"))
        self._listener = threading.Thread(target=listen, daemon=True)
        self._listener.start()

    def _stop_listening(self):
        if self._notify:
            try:
                self._notify.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            self._listener.join(5)
            self._notify.close()
            self._notify = None

    def notifications(self):
        """What it told systemd since its start, each datagram a list of lines."""
        return list(self.notified)

    def status(self):
        """The last STATUS= line."""
        lines = [line[7:] for n in self.notifications() for line in n if line.startswith("STATUS=")]
        return lines[-1] if lines else None

    def wait_ready(self, deadline=30):
        def ready():
            if any("READY=1" in n for n in self.notifications()):
                return True
            assert self.child.is_running(), f"anubisd ended ({self.child.returncode}):\n{self.child.tail()}"
            return False
        wait_for(ready, deadline, lambda: f"anubisd to be ready:\n{self.child.tail()}")

    def wait_log(self, pattern, deadline=30, since_start=True, count=1):
        return self.child.wait_output(pattern, deadline, self.started_at if since_start else 0, count)

    @property
    def log(self):
        """Its output since the last start."""
        return self.child.output[self.started_at:]

    @property
    def pid(self):
        return self.child.pid

    def is_running(self):
        return self.child.is_running()

    def term(self, deadline=90):
        """SIGTERM, and its exit code."""
        return self.child.terminate(deadline)

    def kill9(self):
        return self.child.kill9()

    def stop(self):
        self.child.stop()

    def cont(self):
        self.child.cont()

    def reload(self, **changes):
        """Writes the changes and sends SIGHUP; the caller waits for what the journal says."""
        if changes:
            self.write(**changes)
        self.child.signal(signal.SIGHUP)

    def restart(self):
        if self.is_running():
            self.term()
        return self.start()

    def close(self):
        self.child.close()
        self._stop_listening()

    def __enter__(self):
        return self if self.is_running() else self.start()

    def __exit__(self, *_):
        self.close()


class Result:
    """What a finished command left."""

    def __init__(self, argv, code, stdout, stderr):
        self.argv, self.code, self.stdout, self.stderr = argv, code, stdout, stderr

    @property
    def json(self):
        return json.loads(self.stdout)

    def expect(self, code=0):
        assert self.code == code, f"{' '.join(self.argv)} gave {self.code}, not {code}:\n{self.stdout}{self.stderr}"
        return self

    def __repr__(self):
        return f"Result(code={self.code}, stdout={self.stdout!r}, stderr={self.stderr!r})"


def run(argv, env=None, stdin=None, deadline=60):
    """Runs a program of ours to its end."""
    full = {k: v for k, v in {**os.environ, **clean_environment(env), MARK: TOKEN}.items() if v is not None}
    done = subprocess.run([str(a) for a in argv], input=stdin, capture_output=True, text=True, errors="replace", env=full,
                          timeout=deadline * PATIENCE, check=False,
                          **({"stdin": subprocess.DEVNULL} if stdin is None else {}))
    return Result([str(a) for a in argv], done.returncode, done.stdout, done.stderr)


ONLY_THE_LOG = re.compile(r"not yet caught up: 0 events to be published, 0 to be handled; nothing is wrong; \d+ published event|"
                          r"not yet: \d+ published event")


def waits_for_the_log(arguments, result):
    """A proof that waits for the audit log alone, which comes a moment after the counters."""
    if arguments[:1] != ("verify",) or result.code != 2:
        return False
    if "--json" not in arguments:
        return ONLY_THE_LOG.search(result.stdout) is not None
    found = result.json
    return bool(found["verdict"] == "behind" and found["unlogged"] and not (found.get("unpublished") or found.get("unhandled")))


class Ctl(Configured):
    """anubisctl -c a conf file: ctl("status", "--json").expect(0).json"""

    def __call__(self, *arguments, env=None, stdin=None, deadline=60, at_once=False):
        """A proof that waits for the audit log alone is made again, unless `at_once`."""
        # Not what a daemon installed on this machine is given.
        argv = [program("anubisctl"), "-c", self.path, "--environment", "/dev/null", *arguments]
        results = [run(argv, env, stdin, deadline)]

        def settled():
            if waits_for_the_log(arguments, results[-1]):
                results.append(run(argv, env, stdin, deadline))
            return not waits_for_the_log(arguments, results[-1])
        if not at_once:
            with contextlib.suppress(Deadline):
                wait_for(settled, 15, interval=0.2)
        return results[-1]

    def migrate(self, *arguments):
        return self("migrate", *arguments).expect(0)


def anubisd(*arguments, env=None, deadline=30):
    """anubisd for the options that end at once: anubisd("--check-config", "-c", path)."""
    # Not what a daemon installed on this machine is given.
    return run([program("anubisd"), "--environment", "/dev/null", *arguments], env, deadline=deadline)
