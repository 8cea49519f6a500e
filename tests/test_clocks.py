"""The database server's clock is another one than the daemon's."""
import contextlib
import mmap
import os
import re
import struct
import subprocess

import pytest
from harness.anubis import Ctl
from harness.application import Application
from harness.processes import wait_for

# What is added to the server's time is read from a file at each call.
SHIFTED = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *ts)
{
    static volatile int64_t *ahead;
    if (!ahead)
        ahead = mmap(NULL, 8, PROT_READ, MAP_SHARED, open(getenv("CLOCK_AHEAD"), O_RDONLY | O_CLOEXEC), 0);
    int r = (int) syscall(SYS_clock_gettime, clock, ts);
    if (r == 0 && clock == CLOCK_REALTIME)
        ts->tv_sec += *ahead;
    return r;
}

int gettimeofday(struct timeval *restrict tv, void *restrict tz)
{
    struct timespec ts;
    (void) tz;
    clock_gettime(CLOCK_REALTIME, &ts);
    *tv = (struct timeval){ts.tv_sec, ts.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *ret)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return ret ? *ret = ts.tv_sec : ts.tv_sec;
}
"""


@contextlib.contextmanager
def shifted(server):
    """A function that sets the clock of this server, which is started anew with it, so many seconds ahead."""
    library, path = (os.path.join(server.folder, name) for name in ("clock.so", "ahead"))
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, "-xc", "-"], input=SHIFTED, text=True, check=True)
    with open(path, "w+b") as f:
        f.write(bytes(8))
        f.flush()
        os.chmod(path, 0o644)
        with mmap.mmap(f.fileno(), 8) as memory:
            server.stop()
            server.child.env.update(LD_PRELOAD=library, CLOCK_AHEAD=path)
            server.start()
            yield lambda seconds: memory.__setitem__(slice(0, 8), struct.pack("=q", seconds))


@pytest.mark.slow
@pytest.mark.parametrize("ahead, words", [(300000, "3 d behind"), (-300000, "3 d ahead of"), (-200, "3 min ahead of")])
def test_a_clock_that_is_far_from_the_servers_is_said(own_postgres, broker, institutions, make_daemon, ahead, words):
    server = own_postgres()
    database = server.create_database("anubis")
    ctl = Ctl(database=database, kafka=broker)
    ctl.migrate()
    app = Application(database)
    integration = app.integration(institutions.url("/flaky/50"))
    with shifted(server) as clock:
        clock(ahead)
        daemon = make_daemon(database=database).start()
        daemon.wait_log(r"this machine's clock is %s the database server's: \S+Z here, \S+Z there; set the one" % words)
        app.subscriptions(integration, 50)
        app.wait_states(sent=50)
        ctl("verify", "--wait").expect(0)
        told, = ctl("status", "--json").expect(0).json["clocks_differ"]
        assert told["daemon"] == "anubisd1" and abs(told["ahead_seconds"] + ahead) <= 1
        assert re.search("CLOCKS DIFFER from .*\n.*\n *anubisd1 .*" + words.partition(" of")[0], ctl("status").expect(0).stdout)
        clock(0)
        app.subscriptions(integration, 50)
        app.wait_states(sent=100)
        daemon.wait_log("the clocks of this machine and of the database server agree again", 60)
        ctl("verify", "--wait").expect(0)
        wait_for(lambda: ctl("status", "--json").expect(0).json["clocks_differ"] == [], 10, "status to tell nothing of it")
        assert daemon.log.count("this machine's clock is") == 1 and daemon.term() == 0
        assert all(k.acknowledged == 1 for k in institutions.keys("/flaky/50").values())
