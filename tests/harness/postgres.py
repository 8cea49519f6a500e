"""Throw-away PostgreSQL servers: chosen version, chosen settings, killed in every way."""
import contextlib
import glob
import os
import platform
import pwd
import re
import shutil
import signal
import subprocess
import tarfile
import zipfile

import psycopg2

from .processes import Child, cache_folder, descendants, free_port, is_alive, kept, scratch_folder, wait_for

# Servers other than the distribution's: the oldest and the newest that anubisd supports.
FETCHED = {"13": "13.22.0", "18": "18.1.0"}
MAVEN_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"

TEST_SETTINGS = {"fsync": "off", "full_page_writes": "off"}
DEFAULTS = {
    "listen_addresses": "127.0.0.1", "max_connections": "200", "shared_buffers": "128MB", "max_wal_size": "4GB",
    "log_min_messages": "warning", "timezone": "UTC", "log_timezone": "UTC", "lc_messages": "C",
    "dynamic_shared_memory_type": "mmap",  # in the data folder: nothing is left in /dev/shm after a kill
}


class Unavailable(Exception):
    """What a test wants cannot be had on this machine; the text says why."""


def _artifact_architecture():
    return {"x86_64": "amd64", "aarch64": "arm64v8"}.get(platform.machine(), platform.machine())


def fetch_binaries(version):
    """The bin folder of a PostgreSQL of this full version ("13.22.0"), from the cache or from Maven."""
    folder = cache_folder(f"postgres-{version}")
    if not os.path.exists(os.path.join(folder, "bin", "postgres")):
        if not shutil.which("mvn"):
            raise Unavailable(f"PostgreSQL {version} is not in {folder} and Maven (mvn) to fetch it is not installed")
        artifact = f"embedded-postgres-binaries-linux-{_artifact_architecture()}"
        work = scratch_folder()
        done = subprocess.run(["mvn", "-q", "-B", MAVEN_COPY, f"-DoutputDirectory={work}",
                               f"-Dartifact=io.zonky.test.postgres:{artifact}:{version}"],
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=work, check=False)
        if done.returncode:
            raise Unavailable(f"Maven could not fetch PostgreSQL {version}: {done.stdout[-500:]}")
        with zipfile.ZipFile(os.path.join(work, f"{artifact}-{version}.jar")) as jar:
            name = next(n for n in jar.namelist() if n.endswith(".txz"))
            with jar.open(name) as packed, tarfile.open(fileobj=packed, mode="r:xz") as tar:
                tar.extractall(folder)
        shutil.rmtree(work)
    return os.path.join(folder, "bin")


def installed_versions():
    """{"15": bin folder} of what the distribution installed."""
    found = {}
    for path in glob.glob("/usr/lib/postgresql/*/bin/postgres") + [shutil.which("postgres") or ""]:
        if path:
            text = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
            found.setdefault(re.search(r"(\d+)", text).group(1), os.path.dirname(os.path.realpath(path)))
    return found


def find_binaries(version=None):
    """The bin folder of a major version; without one, the newest that is installed."""
    installed = installed_versions()
    if version is None:
        if installed:
            return installed[max(installed, key=int)]
        version = max(FETCHED, key=int)
    if version in installed:
        return installed[version]
    return fetch_binaries(FETCHED.get(version, version))


def unprivileged_user():
    """Postgres refuses to be root. None when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise Unavailable("no user to run Postgres as: neither postgres nor nobody exists")


_reachable = {}


def _reachable_by_user(bin_folder):
    """bin_folder itself, or a copy that the unprivileged user can reach (root's home is closed to it)."""
    tree = os.path.dirname(bin_folder)
    path = os.path.realpath(bin_folder)
    while path != "/":
        if not os.stat(path).st_mode & 0o001:
            if tree not in _reachable:
                _reachable[tree] = os.path.join(scratch_folder(), "postgres")
                shutil.copytree(tree, _reachable[tree], symlinks=True)
            return os.path.join(_reachable[tree], os.path.basename(bin_folder))
        path = os.path.dirname(path)
    return bin_folder


_templates = {}


def _template(bin_folder, user):
    """A data folder as initdb leaves it; made once a run for each set of binaries."""
    if bin_folder not in _templates:
        folder = scratch_folder()
        data = os.path.join(folder, "data")
        if user:
            os.chown(folder, user.pw_uid, user.pw_gid)
        initdb = Child([os.path.join(bin_folder, "initdb"), "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8",
                        "--locale=C", "--no-sync"], folder=folder, user=user).start()
        if initdb.wait(120) != 0:
            raise Unavailable(f"initdb of {bin_folder} did not work: {initdb.output}")
        initdb.close()
        _templates[bin_folder] = data
    return _templates[bin_folder]


def _is_as_new(connection):
    """Whether the session still is, and nothing that was done in it has an effect any more."""
    try:
        connection.cursor().execute("discard all")
        return True
    except psycopg2.Error:
        return False


class Postgres:
    """One cluster in a folder of its own, on a unix socket (self.folder) and on 127.0.0.1, the same port on both."""

    def __init__(self, version=None, settings=None, durable=False, port=None):
        """durable: fsync as in production (for benchmarks and crash tests of the machine); settings win over it."""
        self.user = unprivileged_user()
        self.bin = find_binaries(version)
        if self.user:
            self.bin = _reachable_by_user(self.bin)
        self.folder = scratch_folder()
        self.data = os.path.join(self.folder, "data")
        self.settings = {**DEFAULTS, **({} if durable else TEST_SETTINGS), **(settings or {})}
        self.port = port or free_port()
        if self.user:
            os.chown(self.folder, self.user.pw_uid, self.user.pw_gid)
        subprocess.run(["cp", "-a", _template(self.bin, self.user), self.data], check=True)
        with open(os.path.join(self.data, "pg_hba.conf"), "w", encoding="ascii") as f:
            f.write("local all all trust\nhost all all 127.0.0.1/32 trust\nlocal replication all trust\n"
                    "host replication all 127.0.0.1/32 trust\n")
        self.child = Child([os.path.join(self.bin, "postgres"), "-D", self.data], name="postgres", folder=self.folder,
                           user=self.user, env={"PGPORT": None, "PGDATA": None, "LC_ALL": "C"})

    # --- life and death ---

    def _write_settings(self):
        path = os.path.join(self.data, "harness.conf")
        with open(path, "w", encoding="utf-8") as f:
            for key, value in {**self.settings, "port": self.port, "unix_socket_directories": self.folder}.items():
                f.write(f"{key} = '" + str(value).replace("'", "''") + "'\n")
        os.chmod(path, 0o644)
        main = os.path.join(self.data, "postgresql.conf")
        with open(main, "r+", encoding="utf-8") as f:
            if "harness.conf" not in f.read():
                f.write("\ninclude 'harness.conf'\n")

    def start(self, deadline=60.0, wait=True):
        for attempt in range(5):
            self._write_settings()
            before = len(self.child.output)
            self.child.start()
            if not wait or self._wait_ready(deadline, before):
                return self
            if "Address already in use" not in self.child.output[before:] or attempt == 4:
                break
            self.port = free_port()
        raise AssertionError(f"Postgres did not start:\n{self.child.tail()}")

    def _wait_ready(self, deadline, before):
        def ready():
            if not self.child.is_running():
                return "gone"
            with_no_patience = self.connect(connect_timeout=2)
            with_no_patience.close()
            return "ready"
        state = wait_for(ready, deadline, lambda: f"Postgres to answer:\n{self.child.output[before:][-3000:]}")
        return state == "ready"

    def standby(self):
        """Another server that follows this one (wal_level must be replica), not yet started."""
        other = Postgres(settings=self.settings)
        shutil.rmtree(other.data)
        owner = {"user": self.user.pw_uid, "group": self.user.pw_gid} if self.user else {}
        subprocess.run([os.path.join(self.bin, "pg_basebackup"), "-h", self.folder, "-p", str(self.port), "-U", "postgres",
                        "-D", other.data, "-R", "-c", "fast"], check=True, cwd="/", **owner)
        return other

    def save(self):
        """A copy of the files as they are now, for set_back(): the server is stopped meanwhile."""
        self.stop()
        saved = os.path.join(self.folder, "saved")
        subprocess.run(["cp", "-a", self.data, saved], check=True)
        self.start()
        return saved

    def set_back(self, saved, recover=True):
        """To what was saved: recovered to that time, as from a base backup, or only the files, as by a snapshot of the disks."""
        self.stop("immediate")
        shutil.rmtree(self.data)
        os.rename(saved, self.data)
        if recover:
            with open(os.path.join(self.data, "recovery.signal"), "w", encoding="ascii"):
                pass
            self.settings["restore_command"] = "false"
        self.start()
        wait_for(lambda: not self.value("select pg_is_in_recovery()"), 30, "the end of the recovery")

    def is_running(self):
        return self.child.is_running()

    def stop(self, mode="fast", deadline=60.0):
        """smart, fast or immediate."""
        if self.is_running():
            self.child.signal(signal.SIGCONT)
            self.child.signal({"smart": signal.SIGTERM, "fast": signal.SIGINT, "immediate": signal.SIGQUIT}[mode])
            self.child.wait(deadline)

    def restart(self, mode="fast", **settings):
        self.stop(mode)
        self.settings.update(settings)
        return self.start()

    def kill9(self):
        """All its processes at once, as when the power goes (the kernel's cache survives)."""
        if not self.is_running():
            return
        self.child.stop()
        victims = descendants(self.child.pid)
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.child.kill9()
        wait_for(lambda: not any(is_alive(p) for p in victims), what="killed backends to be gone")

    def freeze(self):
        """SIGSTOP to all of it: connections stay open and nothing answers."""
        self.child.stop()
        for pid in descendants(self.child.pid):
            os.kill(pid, signal.SIGSTOP)

    def thaw(self):
        for pid in descendants(self.child.pid) + [self.child.pid]:
            os.kill(pid, signal.SIGCONT)

    def backends(self, application=None, database=None):
        """Pids of client backends but our own question's."""
        rows = self.query("select pid from pg_stat_activity where backend_type = 'client backend' and "
                          "pid <> pg_backend_pid() and (%s::text is null or application_name like %s) and "
                          "(%s::text is null or datname = %s)", (application, application, database, database))
        return [r[0] for r in rows]

    def kill_backend(self, pid, number=signal.SIGKILL):
        """SIGKILL makes the server end all sessions and recover, by itself: begun when this returns. SIGTERM ends that one."""
        assert pid in descendants(self.child.pid), f"{pid} is no backend of this server"
        witness = self.connect()

        def has_ended():
            try:
                witness.cursor().execute("select 1")
                return False
            except psycopg2.Error:
                return True
        os.kill(pid, number)
        if number == signal.SIGKILL:
            wait_for(has_ended, 30, "the server to end its sessions")
        witness.close()

    def terminate_backends(self, application=None, database=None):
        for pid in self.backends(application, database):
            self.query("select pg_terminate_backend(%s)", (pid,))

    def close(self):
        try:
            self.stop("immediate", 10)
        except AssertionError:
            self.kill9()
        self._remove_shared_memory()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _remove_shared_memory(self):
        """What a killed server leaves behind until the next start, which will not come."""
        try:
            with open(os.path.join(self.data, "postmaster.pid"), encoding="ascii") as f:
                lines = f.read().splitlines()
            subprocess.run(["ipcrm", "-m", lines[6].split()[1]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                           check=False)
        except (OSError, IndexError):
            pass

    # --- use ---

    @property
    def major(self):
        with open(os.path.join(self.data, "PG_VERSION"), encoding="ascii") as f:
            return int(f.read())

    def conninfo(self, database="postgres", tcp=False, **more):
        parts = {"host": "127.0.0.1" if tcp else self.folder, "port": self.port, "user": "postgres",
                 "dbname": database, **more}
        return " ".join(f"{k}={v}" for k, v in parts.items())

    def connect(self, database="postgres", autocommit=True, **more):
        connection = psycopg2.connect(self.conninfo(database), **more)
        connection.autocommit = autocommit
        return connection

    def query(self, sql, arguments=None, database="postgres", user="postgres"):
        """Rows as tuples; of a statement without rows, how many it touched. In a session of its own, but for the looks of a
        wait: a session costs more than most statements."""
        with self._session(database, user) as connection, connection.cursor() as cursor:
            cursor.execute(sql, arguments)
            return cursor.fetchall() if cursor.description else cursor.rowcount

    @contextlib.contextmanager
    def _session(self, database, user):
        sessions, name = kept(), (self, database, user)
        connection = (sessions or {}).pop(name, None)  # not twice at once
        if connection and not _is_as_new(connection):
            connection.close()
            connection = None
        connection = connection or self.connect(database, user=user)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        if sessions is None:
            connection.close()
        else:
            sessions[name] = connection

    def value(self, sql, arguments=None, database="postgres"):
        return self.query(sql, arguments, database)[0][0]

    def create_database(self, name, template=None):
        # A copy of the files is half the work of one through the WAL, and the only way before version 15.
        how = " strategy file_copy" if template and self.major >= 15 else ""
        self.query(f'create database "{name}"' + (f' template "{template}"{how}' if template else ""))
        return Database(self, name)

    def drop_database(self, name):
        self.query(f'drop database if exists "{name}" with (force)')

    def __enter__(self):
        return self if self.is_running() else self.start()

    def __exit__(self, *_):
        self.close()


class Database:
    """One database of a server."""

    def __init__(self, server, name):
        self.server = server
        self.name = name

    def conninfo(self, **more):
        return self.server.conninfo(self.name, **more)

    def connect(self, **more):
        return self.server.connect(self.name, **more)

    def query(self, sql, arguments=None, user="postgres"):
        return self.server.query(sql, arguments, self.name, user)

    def value(self, sql, arguments=None):
        return self.server.value(sql, arguments, self.name)

    def drop(self):
        self.server.drop_database(self.name)


def schema_dump(database, schema="anubis"):
    """What there is, in one comparable value."""
    return database.query(
        "select c.relname, c.relkind, a.attname, format_type(a.atttypid, a.atttypmod) from pg_class c "
        "join pg_namespace n on n.oid = c.relnamespace left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 "
        "where n.nspname = %s order by 1, 2, 3", (schema,))


def refused(query, *arguments, **more):
    """The server's refusal: (SQLSTATE, message and hint)."""
    try:
        query(*arguments, **more)
    except psycopg2.Error as e:
        return e.pgcode, f"{e.diag.message_primary} {e.diag.message_hint or ''}"
    raise AssertionError("the server refused nothing")
