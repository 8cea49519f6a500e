#!/usr/bin/python3
"""The main job on one machine, from nothing to a summary: a throw-away Postgres, a Kafka broker, six institutions of
different character, a few thousand synthetic enrolments, and anubisd between them. Through `make demo`.

KAFKA=real   Apache Kafka instead of the embedded broker (needs Java and Maven)
KEEP=1       leaves everything running, says how to look in and how to end it

Exit status 0 when every subscription ended as it had to, every event was read back, and the proof holds.
"""
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import demo_report
from demo_screen import Screen
from demo_world import CONFIRMING, SETTINGS, TOTAL, Enrolments, Reader, Sample, Troubles
from harness import processes
from harness.anubis import Ctl, Daemon, program
from harness.institutions import Institutions
from harness.kafka import EmbeddedBroker, RealKafka
from harness.postgres import Postgres, Unavailable

DEADLINE = 90  # seconds from the daemon's start; a good run takes a fifth of it
PACE = 0.15
READ_TOPIC = os.path.join(os.path.dirname(os.path.abspath(__file__)), "read-topic")


class Demo:
    def __init__(self, screen):
        self.screen = screen
        self.postgres = self.kafka = self.institutions = self.enrolments = self.reader = self.daemon = self.ctl = None
        self.troubles = None

    def start_parts(self):
        done = self.screen.step("Starting Postgres")
        self.postgres = Postgres().start()
        version = self.postgres.value("show server_version").split()[0]
        done(version)

        real = os.environ.get("KAFKA") == "real"
        done = self.screen.step("Starting Apache Kafka" if real else "Starting the embedded Kafka broker")
        self.kafka = (RealKafka() if real else EmbeddedBroker()).start()
        done(self.kafka.bootstrap)

        done = self.screen.step("Starting six institutions")
        self.institutions = Institutions().start()
        done(self.institutions.url(""))

    def start_work(self):
        done = self.screen.step("Creating the schema")
        database = self.postgres.create_database("anubis")
        self.ctl = Ctl(SETTINGS, database, self.kafka, test_settings=False)
        self.ctl.migrate()
        done("with anubisctl migrate")

        done = self.screen.step("Enrolling the first applicants")
        self.enrolments = Enrolments(database, self.institutions)
        done(f"{sum(self.enrolments.inserted.values()):,} of {TOTAL:,}; the others come later")

        done = self.screen.step("Starting anubisd")
        self.reader = Reader(self.kafka, self.enrolments.ids[CONFIRMING])
        self.daemon = Daemon(SETTINGS, database, self.kafka, name="anubisd", test_settings=False).start()
        self.troubles = Troubles(self)
        done()

    def watch(self):
        """Until everything is settled, published and counted; the last look."""
        connection = self.postgres.connect("anubis")
        began = time.monotonic()
        try:
            with connection.cursor() as cursor:
                while True:
                    elapsed = time.monotonic() - began
                    self.enrolments.go_on(elapsed)
                    trouble = self.troubles.go_on(elapsed)
                    if trouble:
                        self.screen.trouble(trouble, elapsed)
                    sample = Sample(cursor, self.enrolments.ids, self.reader)
                    self.screen.progress(sample, self.enrolments.ids, elapsed)
                    ended = not self.daemon.is_running() and self.troubles.daemon_shall_run()
                    if sample.quiet() and not self.troubles.coming or elapsed > DEADLINE or ended:
                        return sample
                    time.sleep(PACE)
        finally:
            connection.close()
            self.screen.close()

    def explain_trouble(self):
        if self.reader.error:
            self.screen.line(f"\n  The reader of Kafka ended: {self.reader.error!r}")
        if not self.daemon.is_running():
            self.screen.line(f"\n  anubisd ended with exit code {self.daemon.child.returncode}. Its last words:")
        else:
            self.screen.line("\n  anubisd's last words:")
        for line in self.daemon.child.tail(15).splitlines():
            self.screen.line("    " + line)

    def run(self):
        """Whether all was right."""
        self.start_parts()
        self.start_work()
        sample = self.watch()
        findings = demo_report.look(self, sample)
        all_right = demo_report.summary(self.screen, findings)
        if not all_right:
            self.explain_trouble()
        return all_right

    def database(self):
        return self.enrolments.app.database

    def close(self):
        """In the order that lets each end in peace; whether anubisd did."""
        in_peace = True
        if self.reader:
            self.reader.stop()
        if self.daemon and self.daemon.is_running():
            in_peace = self.daemon.term() == 0
        if self.enrolments:
            self.enrolments.close()
        if self.postgres:
            self.postgres.close()
        processes.close_all()
        return in_peace

    # --- what to do next ---

    def example(self):
        """A subscription with a story."""
        return self.database().value(
            "select subscription_id from anubis.subscription_events where event_type = 'retried' "
            "group by 1 order by count(*) desc, 1 limit 1")

    def say_next(self):
        line = self.screen.line
        line()
        line("  What to look at next:")
        line("    make demo KEEP=1         the same, left running, to look into")
        line("    make demo KAFKA=real     the same with Apache Kafka")
        line("    README.md                how it works, and how to run it for real")
        line("    etc/anubisd.conf         everything that can be configured")
        line()

    def read_topic(self):
        """The command that shows a topic's messages, key and value a line."""
        topic = "anubis.subscriptions.sent"
        if shutil.which("kcat"):
            return f"kcat -C -e -q -b {self.kafka.bootstrap} -t {topic} -K '  '"
        return f"{os.path.relpath(READ_TOPIC)} {self.kafka.bootstrap} {topic}"

    def say_kept(self, pid):
        conf = shlex.quote(self.ctl.path)
        ctl = os.path.relpath(program("anubisctl"))
        psql = shutil.which("psql") and "psql" or os.path.join(self.postgres.bin, "psql")
        line = self.screen.line
        line()
        line("  It goes on running. Look in:")
        line(f"    {ctl} -c {conf} status")
        line(f"    {ctl} -c {conf} explain {self.example()}")
        line(f"    {psql} {shlex.quote(self.postgres.conninfo('anubis') + ' options=-csearch_path=anubis')}")
        line(f"    tail -f {self.daemon.child.err_path}")
        line(f"    curl {self.institutions.url('/counts')}")
        line(f"    {self.read_topic()}")
        line("  End it:")
        line(f"    kill {pid}")
        line()


def keeper():
    """KEEP=1: the parts live with a process in the background, and this one ends with the verdict. Returns in that
    process, with the descriptor to write the verdict to."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)
        return write_end
    os.close(write_end)
    # Ctrl-C reaches the child as well, which tidies up and then ends.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _frame: os.kill(child, n))
    verdict = os.read(read_end, 1)
    if verdict:
        os._exit(verdict[0])
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 0xff)


def stay(write_end, verdict):
    """Lets go of the terminal and waits for the signal that ends it."""
    os.setsid()
    os.write(write_end, bytes([verdict]))
    os.close(write_end)
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    while True:
        signal.pause()


def end_quietly():
    """From here on nothing interrupts the tidying up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def main():
    write_end = keeper() if os.environ.get("KEEP") == "1" else None
    processes.end_on_signals()
    screen = Screen()
    demo = Demo(screen)
    code = 1
    try:
        screen.head("anubisd demo", "enrolments to institutions, events to Kafka, counters back")
        code = 0 if demo.run() else 1
        if write_end is not None:
            demo.say_kept(os.getpid())
            stay(write_end, code)
    except KeyboardInterrupt:
        code = 130
    except SystemExit as e:
        code = e.code
    except (Unavailable, AssertionError, subprocess.SubprocessError) as e:
        screen.close()
        screen.line(f"\n  {screen.colour('red', 'The demo ends here:')} {e}")
    finally:
        end_quietly()
        screen.close()
        if code in (130, 143):
            screen.line("\n  Ending everything …")
        in_peace = demo.close()
    if not in_peace:
        screen.line("  anubisd did not end in peace")
        code = code or 1
    left = processes.leftovers()
    if left:
        screen.line(f"  still running: {left}")
        code = code or 1
    if code in (0, 1):
        demo.say_next()
    return code


if __name__ == "__main__":
    sys.exit(main())
