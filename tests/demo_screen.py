"""The demo's output: one screen that redraws itself on a terminal, plain lines elsewhere. NO_COLOR is honoured."""
import os
import shutil
import sys
import textwrap
import time

from demo_world import CHARACTERS, TOTAL

COLOURS = {"green": "32", "yellow": "33", "red": "31", "blue": "34", "dim": "2", "bold": "1"}
BAR = 10
NAME = max(len(c.name) for c in CHARACTERS)
WHAT = max(len(c.what) for c in CHARACTERS)
PLAIN_EVERY = 2.0
WIDTH = 80


def number(n):
    return f"{n:,}"


class Screen:
    def __init__(self, out=sys.stdout):
        self.out = out
        terminal = out.isatty() and os.environ.get("TERM", "dumb") != "dumb"
        size = shutil.get_terminal_size()
        self.live = terminal and size.columns >= WIDTH and size.lines >= len(CHARACTERS) + 12
        self.colours = terminal and not os.environ.get("NO_COLOR")
        unicode = (out.encoding or "").lower().replace("-", "") == "utf8"
        self.full, self.half, self.empty, self.tick, self.cross = (
            ("█", "▒", "░", "✓", "✗") if unicode else ("#", "+", ".", "ok", "NO"))
        self.dash = "—" if unicode else "-"
        self.drawn = 0  # lines of the frame on the screen
        self.last_trouble = self.dash
        self.began = time.monotonic()
        self.last_plain = -PLAIN_EVERY

    def colour(self, name, text):
        return f"\033[{COLOURS[name]}m{text}\033[0m" if self.colours and name else text

    def line(self, text=""):
        print(text, file=self.out, flush=True)

    def head(self, title, text):
        self.line()
        self.line(f"  {self.colour('bold', title)}  {self.colour('dim', text)}")
        self.line()

    def step(self, text):
        """A line that says what is being done; the returned function says that it is done."""
        began = time.monotonic()
        if self.live:
            print(f"  {text} …", end="", file=self.out, flush=True)

        def done(more=""):
            mark = self.colour("green", self.tick)
            took = self.colour("dim", f"{time.monotonic() - began:.1f} s")
            start = "\r\033[K" if self.live else ""
            self.line(f"{start}  {mark} {text}{' ' + more if more else ''}  {took}")
        return done

    # --- progress ---

    def bar(self, states, count):
        """Sent, failed, to be retried, and what is still to come."""
        parts = [("green", self.full, states["sent"]), ("red", self.full, states["failed"]),
                 ("yellow", self.half, states["retry"] + states["processing"])]
        text, so_far, cells = "", 0, 0
        for colour, sign, n in parts:
            so_far += n
            upto = BAR if so_far >= count else so_far * BAR // count
            text += self.colour(colour, sign * (upto - cells))
            cells = upto
        return text + self.colour("dim", self.empty * (BAR - cells))

    def frame(self, sample, ids, elapsed):
        title = f"{'Institution':<{NAME}} {'':<{WHAT}} {'':<{BAR}} {'sent':>5} {'failed':>6} {'open':>5}"
        yield self.colour("bold", title)
        for c in CHARACTERS:
            states = sample.states[ids[c]]
            open_ones = states["retry"] + states["processing"] + states["pending"]
            yield (f"{c.name:<{NAME}} {self.colour('dim', f'{c.what:<{WHAT}}')} {self.bar(states, c.count)} "
                   f"{number(states['sent']):>5} {number(states['failed']):>6} {number(open_ones):>5}")
        yield ""
        yield (f"Subscriptions  {number(sample.settled())} of {number(TOTAL)} settled, {number(sample.total['pending'])} "
               f"waiting, {number(sample.total['processing'])} under way, {number(sample.total['retry'])} to retry")
        yield (f"Events         {number(sum(sample.events.values()))} in the ledger, "
               f"{number(sample.read_back)} read back from Kafka")
        yield (f"Counters       {number(sample.counted_sent)} sent and {number(sample.counted_failed)} failed "
               f"on integrations")
        yield f"Meanwhile      {self.last_trouble}"
        yield ""
        yield self.colour("dim", f"{elapsed:4.0f} s   Ctrl-C ends it")

    def progress(self, sample, ids, elapsed):
        if self.live:
            self.redraw(["", *("  " + line for line in self.frame(sample, ids, elapsed))])
        elif elapsed - self.last_plain >= PLAIN_EVERY:
            self.last_plain = elapsed
            total = sample.total
            text = (f"  {elapsed:4.0f} s  {number(total['sent'])} sent, {number(total['failed'])} failed, "
                    f"{number(total['retry'])} to retry, {number(total['pending'] + total['processing'])} waiting; "
                    f"{number(sample.read_back)} in Kafka, {number(sample.counted_sent)} counted")
            self.line(textwrap.fill(text, WIDTH, subsequent_indent=10 * " "))

    def trouble(self, what, elapsed):
        self.last_trouble = what
        if not self.live:
            self.line(f"  {elapsed:4.0f} s  {self.colour('yellow', what)}")

    def redraw(self, lines):
        text = "\033[?25l" + (f"\033[{self.drawn}A" if self.drawn else "")
        text += "".join(f"\r\033[K{line}\n" for line in lines)
        self.drawn = len(lines)
        print(text, end="", file=self.out, flush=True)

    def close(self):
        """Leaves the terminal as it was."""
        if self.drawn:
            # The hint at the end of the frame has done its duty.
            print("\033[1A\r\033[K\033[?25h", end="", file=self.out, flush=True)
            self.drawn = 0
