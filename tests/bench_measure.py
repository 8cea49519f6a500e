"""What the benchmarks measure with: CPU times of the kernel, the machine's description, and the table of figures."""
import datetime
import os
import platform
import re
import statistics
import subprocess

from harness.processes import descendants

TICKS = os.sysconf("SC_CLK_TCK")


# --- processes ---


def cpu_of(pid):
    """Seconds of user and system time of a process and of its children that have ended."""
    with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as f:
        fields = f.read().rpartition(")")[2].split()
    return sum(int(fields[i]) for i in (11, 12, 13, 14)) / TICKS


def cpu_of_tree(pid):
    total = 0
    for p in [pid, *descendants(pid)]:
        try:
            total += cpu_of(p)
        except OSError:
            pass
    return total


def cpu_of_thread(pid, tid):
    """Seconds: of the scheduler's clock where the kernel shows it, else of its ticks."""
    try:
        with open(f"/proc/{pid}/task/{tid}/schedstat", encoding="ascii") as f:
            return int(f.read().split()[0]) / 1e9
    except (OSError, IndexError):
        with open(f"/proc/{pid}/task/{tid}/stat", encoding="ascii", errors="replace") as f:
            fields = f.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS


def cpu_by_thread(pid):
    """{name/thread: seconds} of the threads that live; the main thread is "main/…"."""
    found = {}
    for task in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{task}/comm", encoding="utf-8", errors="replace") as f:
                name = "main" if int(task) == pid else f.read().strip()
            found[f"{name}/{task}"] = cpu_of_thread(pid, task)
        except OSError:  # it has just ended
            pass
    return found


def by_name(threads):
    """Threads of the same name together, the busiest first."""
    found = {}
    for name, used in threads.items():
        name = name.rpartition("/")[0]
        found[name] = found.get(name, 0) + used
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def peak_rss_kib(pid):
    with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as f:
        return int(next(line for line in f if line.startswith("VmHWM")).split()[1])


# --- figures ---


def percentile(values, percent):
    """The value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-len(ordered) * percent // 100) - 1))]


class Row:
    """A line of the table: a figure in two cases that belong together, or in one, and the goals for it. A goal is
    (of, limit): of "first", "second" or "ratio"; a positive limit is the most, a negative one the least."""

    def __init__(self, figure, first, second=None, goals=(), ratio=None):
        self.figure, self.first, self.second, self.goals = figure, first, second, goals
        self.ratio = ratio if ratio is not None or second is None or not first else second / first

    @classmethod
    def of_turns(cls, figure, first, second=None, goals=()):
        """Medians; of the ratio too, since both cases of a turn met the same machine."""
        if second is None:
            return cls(figure, statistics.median(first), None, goals)
        ratio = statistics.median(b / a for a, b in zip(first, second)) if all(first) else None
        return cls(figure, statistics.median(first), statistics.median(second), goals, ratio)

    def verdicts(self):
        for of, limit in self.goals:
            value = getattr(self, of)
            met = value is not None and (value <= limit if limit >= 0 else value >= -limit)
            yield f"{of} {'≤' if limit >= 0 else '≥'} {abs(limit):g}: {'met' if met else 'MISSED'}"

    def as_dict(self):
        return {"figure": self.figure, "first": self.first, "second": self.second, "ratio": self.ratio,
                "goals": list(self.verdicts())}


def number(value):
    """Three digits at least, no more than matter."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def table(rows):
    """Lines of text."""
    cells = [["figure", "first", "second", "ratio", "goals"]]
    cells += [[row.figure, number(row.first), number(row.second), number(row.ratio), "; ".join(row.verdicts())] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(4)]
    return [f"  {line[0]:{widths[0]}}  {line[1]:>{widths[1]}}  {line[2]:>{widths[2]}}  {line[3]:>{widths[3]}}  {line[4]}".rstrip()
            for line in cells]


# --- the machine ---


def _command(*argv):
    try:
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def cpu_model(text):
    """From the text of /proc/cpuinfo; ARM's has no name."""
    found = re.search(r"(?m)^model name\s*:\s*(.+)$", text)
    return found[1] if found else platform.machine()


def machine(postgres):
    """What a figure is worth nothing without. postgres: its version."""
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as f:
        model = cpu_model(f.read())
    return {"CPU": f"{model}, {os.cpu_count()} cores for everything", "kernel": platform.release(), "Postgres": postgres,
            "OpenSSL": _command("openssl", "version"), "date": datetime.datetime.now().isoformat(" ", "minutes"),
            "load before": f"{os.getloadavg()[0]:.2f}"}
