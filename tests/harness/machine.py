"""A whole machine to install anubisd on: this one's own root under an overlay, booted by systemd-nspawn, with journald,
Postgres' packages and a network of its own (loopback only). What happens there leaves no trace here."""
import glob
import json
import os
import shutil
import subprocess
import tempfile

from .anubis import libconfig, run
from .postgres import Unavailable
from .processes import PATIENCE, Child, build_folder, descendants, scratch_folder, wait_for

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BOOT = 90  # seconds; ten are usual


def machine_missing():
    """Why no machine can be booted here, or None."""
    if os.geteuid() != 0:
        return "booting a systemd needs root"
    if not shutil.which("systemd-nspawn"):
        return "booting a systemd needs systemd-nspawn (systemd-container), which is not installed"
    if not any(os.path.exists(p) for p in ("/lib/systemd/systemd", "/usr/lib/systemd/systemd")):
        return "booting a systemd needs systemd, which is not installed"
    if not shutil.which("pg_createcluster"):
        return "the booted systemd needs Postgres' packages, which are not installed"
    return None


def _command(name):
    with open(f"/proc/{name}/comm", encoding="ascii") as f:
        return f.read().strip()


class Machine:
    """m("systemctl", "start", "anubisd") runs a command inside."""

    def __init__(self):
        reason = machine_missing()
        if reason:
            raise Unavailable(reason)
        self.folder = tempfile.mkdtemp(prefix="anubis-machine-", dir="/dev/shm")
        self.root = os.path.join(self.folder, "root")
        self.child = None
        self.inside = None  # a process of the machine, whose namespaces we enter
        self._mount()

    # --- life ---

    def _mount(self):
        layers = os.path.join(self.folder, "layers")
        for path in (self.root, layers):
            os.mkdir(path)
        os.chmod(self.folder, 0o755)
        self._call("mount", "-t", "tmpfs", "-o", "mode=755", "anubis-machine", layers)
        upper, work = os.path.join(layers, "upper"), os.path.join(layers, "work")
        os.mkdir(upper)
        os.mkdir(work)
        self._call("mount", "-t", "overlay", "-o", f"lowerdir=/,upperdir={upper},workdir={work}", "anubis-machine",
                   self.root)
        open(self.path("/etc/machine-id"), "w", encoding="ascii").close()
        # Whatever this machine has of ours and of Postgres, the new one begins without.
        for pattern in ("/.dockerenv", "/etc/postgresql/*", "/var/lib/postgresql/*", "/etc/anubisd.conf",
                        "/etc/default/anubisd", "/etc/systemd/system/anubisd.service.d", "/var/log/journal/*"):
            for path in glob.glob(self.path(pattern)):
                shutil.rmtree(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)

    def path(self, name):
        """Where a file of the machine is on this one."""
        return os.path.join(self.root, name.lstrip("/"))

    def write(self, name, text, mode=0o644):
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        os.chmod(path, mode)

    def make(self, target):
        done = run(["make", "-C", ROOT, "--no-print-directory", target, f"DESTDIR={self.root}",
                    f"BUILD={build_folder()}"], env={"MAKEFLAGS": None, "MAKELEVEL": None}, deadline=120)
        assert done.code == 0, done.stdout + done.stderr

    def install(self):
        """make install and the commands that README.md names after it, on the booted machine."""
        self.make("install")
        self("systemd-sysusers").expect()
        self("systemd-tmpfiles", "--create", "anubisd.conf").expect()
        self("journalctl", "--update-catalog").expect()
        self("systemctl", "daemon-reload").expect()
        for tool in ("broker", "institutions"):
            shutil.copy(os.path.join(build_folder(), "tools", tool), self.path(f"/usr/local/bin/anubis-{tool}"))

    def boot(self):
        self.child = Child(["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--link-journal=no",
                            "--private-network", "--console=pipe", "--boot", "-D", self.root],
                           name="machine", folder=scratch_folder()).start()
        self.inside = wait_for(self._journald, BOOT, lambda: f"the machine to boot:\n{self.child.tail()}")
        wait_for(lambda: self("systemctl", "is-system-running").stdout.strip() in ("running", "degraded"), BOOT,
                 lambda: f"the machine to run:\n{self.child.tail()}")
        return self

    def _journald(self):
        assert self.child.is_running(), f"the machine ended:\n{self.child.tail()}"
        for pid in descendants(self.child.pid):
            try:
                if _command(pid) == "systemd-journal":
                    return pid
            except OSError:
                pass
        return None

    def close(self):
        if self.child and self.child.is_running():
            try:
                self("systemctl", "poweroff", deadline=10)
                self.child.wait(30)
            except (AssertionError, subprocess.TimeoutExpired):
                pass
            self.child.close()
        for path in (self.root, os.path.join(self.folder, "layers")):
            subprocess.run(["umount", "-l", path], stderr=subprocess.DEVNULL, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # --- use ---

    @staticmethod
    def _call(*argv):
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Unavailable(f"{' '.join(argv)}: {done.stderr.strip()}")

    def __call__(self, *argv, user=None, stdin=None, deadline=60):
        who = ["runuser", "-u", user, "--"] if user else []
        return run(["nsenter", "-t", str(self.inside), "-a", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
                    "LC_ALL=C.UTF-8", "SYSTEMD_PAGER=", "SYSTEMD_COLORS=0", *who, *argv], stdin=stdin,
                   deadline=deadline * PATIENCE)

    def configure(self, settings):
        """Writes /etc/anubisd.conf with the owner and the mode it is to have."""
        self.write("/etc/anubisd.conf", libconfig(settings), 0o640)
        self("chgrp", "anubisd", "/etc/anubisd.conf").expect()

    def drop_in(self, text):
        self.write("/etc/systemd/system/anubisd.service.d/test.conf", text)
        self("systemctl", "daemon-reload").expect()

    def no_drop_in(self):
        shutil.rmtree(self.path("/etc/systemd/system/anubisd.service.d"), ignore_errors=True)
        self("systemctl", "daemon-reload").expect()

    def show(self, name, unit="anubisd"):
        """A property of the unit."""
        return self("systemctl", "show", "-P", name, unit).expect().stdout.strip()

    def serve(self, name, *arguments):
        """Runs one of the test tools as a unit; what it says it listens on."""
        self("systemd-run", "--quiet", f"--unit=anubis-{name}", f"--property=StandardOutput=file:/run/{name}.out",
             f"/usr/local/bin/anubis-{name}", *arguments).expect()
        out = self.path(f"/run/{name}.out")

        def listening():
            text = self("cat", f"/run/{name}.out").stdout
            return text.partition("listening on ")[2].split("\n")[0] if "\n" in text else None
        return wait_for(listening, 30, f"{name} to listen ({out})")

    def create_postgres(self):
        """As Debian's packages would have: a cluster on the usual port, started by its unit, whose name this is."""
        version = sorted(os.listdir("/usr/lib/postgresql"), key=int)[-1]
        unit = f"postgresql@{version}-main"
        if os.path.exists(self.path(f"/etc/postgresql/{version}/main")):
            return unit
        self("pg_createcluster", version, "main", "--port", "5432", "--", "--auth-local=peer", "--auth-host=trust",
             "--no-sync").expect()
        self("systemctl", "daemon-reload").expect()
        return unit

    def sql(self, statement, database="anubis", user="anubisd"):
        """Rows as lists of strings."""
        done = self("psql", "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", statement,
                    user=user).expect()
        return [line.split("\t") for line in done.stdout.splitlines()]

    def journal(self, since=0):
        """Entries of anubisd as dicts, from a time of the clock (time.time()) on. Filtered here: in journalctl of systemd
        252 a cursor and a filter together leave out an entry."""
        done = self("journalctl", "-q", "-o", "json", "-u", "anubisd")
        entries = [json.loads(line) for line in done.stdout.splitlines()]
        return [e for e in entries if int(e["__REALTIME_TIMESTAMP"]) >= since * 1e6]

    def wait_message(self, message_id, since, deadline=30, count=1):
        """The entries with that MESSAGE_ID since then."""
        def look():
            found = [e for e in self.journal(since) if e.get("MESSAGE_ID") == message_id]
            return found if len(found) >= count else None
        return wait_for(look, deadline, lambda: f"message {message_id} in the journal, which has:\n" + "\n".join(
            str(e.get("MESSAGE")) for e in self.journal(since)))
