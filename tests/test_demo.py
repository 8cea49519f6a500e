"""make demo, as a newcomer meets it: it ends well, and whatever ends it, nothing is left."""
import os
import pty
import re
import signal
import subprocess
import sys

import pytest

from demo_screen import Screen
from harness.anubis import FOREIGN, program
from harness.processes import PATIENCE, is_alive, pids, scratch_folder, wait_for

DEMO = os.path.join(os.path.dirname(os.path.abspath(__file__)), "demo.py")


class Run:
    """One demo. Whatever it starts has our folder's name in its environment."""

    def __init__(self, terminal=False, **env):
        self.folder = scratch_folder()
        self.scratch = os.path.join(self.folder, "scratch")
        os.mkdir(self.scratch)
        os.chmod(self.scratch, 0o755)
        self.out = open(os.path.join(self.folder, "out"), "w+b")  # pylint: disable=consider-using-with
        full = {k: v for k, v in os.environ.items() if k not in (*FOREIGN, "KEEP", "KAFKA", "NO_COLOR")}
        full.update(ANUBIS_SCRATCH=self.scratch, ANUBIS_BUILD=program("")[:-1], LC_ALL="C.UTF-8", TERM="xterm", COLUMNS="80",
                    LINES="50", **env)
        self.screen, out = pty.openpty() if terminal else (None, self.out)
        self.process = subprocess.Popen([sys.executable, DEMO], env=full, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                        start_new_session=True)
        if terminal:
            os.close(out)

    def output(self):
        if self.screen is not None:
            return self._read_screen()
        self.out.seek(0)
        return self.out.read().decode()

    def _read_screen(self):
        while True:
            try:
                data = os.read(self.screen, 65536)
            except OSError:
                break
            if not data:
                break
            self.out.write(data)
        self.out.seek(0)
        return self.out.read().decode()

    def wait_output(self, pattern, deadline=60):
        def look():
            assert self.process.poll() is None, self.output()
            return re.search(pattern, self.output())
        return wait_for(look, deadline, lambda: f"{pattern!r} in:\n{self.output()}")

    def end(self, deadline=120):
        """Its exit code."""
        return self.process.wait(deadline * PATIENCE)

    def left(self):
        """Processes and files that it left behind."""
        mark = self.scratch.encode()
        found = []
        for pid in pids():
            try:
                with open(f"/proc/{pid}/environ", "rb") as f:
                    if mark in f.read() and is_alive(pid):
                        found.append(pid)
            except OSError:
                continue
        return found + os.listdir(self.scratch)


@pytest.fixture
def demo(binaries):
    runs = []

    def start(**arguments):
        runs.append(Run(**arguments))
        return runs[-1]
    yield start
    for run in runs:
        run.out.close()
        for pid in run.left():
            if isinstance(pid, int):
                os.kill(pid, signal.SIGKILL)


def test_it_ends_well_and_leaves_nothing(demo):
    run = demo()
    assert run.end() == 0, run.output()
    text = run.output()
    assert "\033" not in text, "no control characters where there is no terminal"
    assert "3,000 subscriptions: 2,800 sent, 200 failed" in text
    assert "anubisd is killed (kill -9)" in text and "Kafka is back" in text and "the dead institution is back" in text
    assert max(map(len, text.splitlines())) <= 80, max(text.splitlines(), key=len)
    assert "anubisctl verify finds no difference" in text and "✗" not in text
    assert not run.left()


def test_a_terminal_gets_one_screen_that_redraws_itself(demo):
    run = demo(terminal=True)
    text = run.output()
    assert run.end() == 0, text
    assert text.count("\033[?25l") > 10 and text.rstrip().endswith("everything that can be configured")
    assert text.rindex("\033[?25h") > text.rindex("\033[?25l"), "the cursor is shown again"
    assert "\033[32m" in text
    shown = re.split(r"\r\n?|\n", re.sub(r"\033\[[?\d;]*[A-Za-z]", "", text))
    assert max(map(len, shown)) <= 80, max(shown, key=len)
    assert not run.left()


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "term"])
@pytest.mark.parametrize("when", ["Starting Postgres", "Creating the schema", r"(?s)\d sent, .* counted"])
def test_a_signal_ends_everything(demo, number, code, when):
    run = demo()
    run.wait_output("anubisd demo" if when == "Starting Postgres" else when)
    os.killpg(run.process.pid, number)
    os.killpg(run.process.pid, number)  # an impatient one
    assert run.end(60) == code, run.output()
    assert not run.left()


def test_keep_leaves_it_up_until_it_is_ended(demo):
    run = demo(KEEP="1")
    assert run.end() == 0, run.output()
    text = run.output()
    status, explain = (re.search(rf"^    (.* {word}\b.*)$", text, re.MULTILINE).group(1) for word in ("status", "explain"))
    topic = re.search(r"^    (.* anubis\.subscriptions\.sent\b.*)$", text, re.MULTILINE).group(1)
    broker = re.search(r"127\.0\.0\.1:\d+", topic).group()
    by_hand = f"{os.path.dirname(DEMO)}/read-topic {broker} anubis.subscriptions.sent"
    said = {}
    for command in (status, explain, topic, by_hand):
        done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        said[command] = done.stdout.splitlines()
    for lines in (said[topic], said[by_hand]):  # the relay that was killed may have published some twice
        assert len({line.split(" ")[0] for line in lines}) == 2800 and re.match(r"\d+  \{", lines[0])
    keeper = int(re.search(r"^    kill (\d+)$", text, re.MULTILINE).group(1))
    assert keeper in run.left()
    os.kill(keeper, signal.SIGTERM)
    wait_for(lambda: not run.left(), 60, lambda: f"everything to be gone, there is {run.left()}")


@pytest.mark.parametrize("env, coloured", [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)],
                         ids=["terminal", "NO_COLOR", "dumb"])
def test_colours_are_for_those_who_want_them(monkeypatch, env, coloured):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w", encoding="utf-8") as out:
        screen = Screen(out)
        assert screen.colours == coloured
        assert ("\033[" in screen.colour("green", "x")) == coloured
    os.close(ours)
