"""PgBouncer before a throw-away server, on loopback."""
import os
import shutil

import psycopg2

from .postgres import Unavailable, unprivileged_user
from .processes import Child, free_port, scratch_folder, wait_for


class PgBouncer:
    """conninfo(database) leads through it. Modes: session, transaction, statement."""

    def __init__(self, server, mode, **settings):
        program = shutil.which("pgbouncer", path=os.environ.get("PATH", "") + ":/usr/sbin")
        if not program:
            raise Unavailable("pgbouncer is not installed")
        self.port = free_port()
        folder, user = scratch_folder(), unprivileged_user()
        settings = {"listen_addr": "127.0.0.1", "listen_port": self.port, "unix_socket_dir": "", "auth_type": "trust",
                    "auth_file": f"{folder}/users", "pool_mode": mode, "default_pool_size": 40, **settings}
        with open(f"{folder}/pgbouncer.ini", "w", encoding="ascii") as f:
            f.write(f"[databases]\n* = host=127.0.0.1 port={server.port}\n[pgbouncer]\n"
                    + "".join(f"{key} = {value}\n" for key, value in settings.items()))
        with open(f"{folder}/users", "w", encoding="ascii") as f:
            f.write('"postgres" ""\n')
        if user:
            os.chown(folder, user.pw_uid, user.pw_gid)
        self.child = Child([program, f"{folder}/pgbouncer.ini"], folder=folder, user=user)

    def conninfo(self, database):
        return f"host=127.0.0.1 port={self.port} user=postgres dbname={database.name}"

    def __enter__(self):
        self.child.start()
        wait_for(lambda: psycopg2.connect(f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres").close() is None,
                 30, lambda: f"PgBouncer to answer:\n{self.child.tail()}")
        return self

    def __exit__(self, *_):
        self.child.close()
