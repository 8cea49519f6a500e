"""What the benchmarks count and judge, and that broken peers leave nothing behind in a short run of the soak."""
import os
import types

import bench
import bench_measure
import bench_soak
import bench_throughput
import pytest
from bench_measure import Row, by_name, cpu_model, number, percentile, table
from harness.certificates import Certificates
from harness.processes import Child, wait_for


@pytest.mark.parametrize("count, percent, expected", [(1, 50, 1), (1, 99, 1), (2, 50, 1), (100, 99, 99), (101, 99, 100),
                                                      (1000, 99, 990), (1000, 50, 500), (3, 100, 3), (3, 0, 1)])
def test_percentiles(count, percent, expected):
    assert percentile(range(count, 0, -1), percent) == expected


def test_goals_are_most_or_least():
    row = Row("rate", 100.0, 86.0, [("ratio", -0.85), ("first", 99), ("second", 90)])
    assert list(row.verdicts()) == ["ratio ≥ 0.85: met", "first ≤ 99: MISSED", "second ≤ 90: met"]
    assert list(Row("alone", 3.0, goals=[("first", 3)]).verdicts()) == ["first ≤ 3: met"]
    assert list(Row("no base", 0, 5, [("ratio", 1)]).verdicts()) == ["ratio ≤ 1: MISSED"]


def test_the_ratio_is_the_median_of_the_turns():
    row = Row.of_turns("rate", [100, 1000, 50], [90, 500, 60])  # 0.9, 0.5, 1.2: each turn met the same machine
    assert (row.first, row.second, row.ratio) == (100, 90, 0.9)
    assert Row.of_turns("alone", [3, 1, 2]).first == 2


def test_table():
    lines = table([Row("a rate", 5432.1, 4000.0, [("ratio", -0.85)]), Row("µs", 2.345)])
    assert lines[0].split() == ["figure", "first", "second", "ratio", "goals"]
    assert lines[1].split("  ")[1:] == ["a rate", "5,432", " 4,000", " 0.74", "ratio ≥ 0.85: MISSED"]
    assert lines[2].split() == ["µs", "2.35"] or lines[2].split() == ["µs", "2.34"]
    assert [number(v) for v in (None, "x", 0.5, 12.34, 1234.5)] == ["", "x", "0.50", "12.3", "1,234"]


def test_turns_alternate():
    assert bench_throughput.order(0) == bench_throughput.order(1)[::-1]
    assert {scheme for scheme, _ in bench_throughput.order(0)} == {"http", "https"}
    turns = [{"a": 1, "b": {"x": 3}}, {"a": 5, "b": {}}, {"a": 2, "b": {"x": 9}}]
    assert bench_throughput.medians(turns) == {"a": 2, "b": {"x": 3}}


def test_looking_takes_one_session_and_its_cpu_is_known(app):
    looks = bench_throughput.Looks(app)
    assert {looks.value("select pg_backend_pid()") for _ in range(3)} == {looks.pid}
    assert looks.value("select count(*) from {s}.subscriptions") == 0
    assert 0 < looks.close() < 60


def test_a_race_compares_each_peer_that_runs_with_anubisd():
    def turns(*rates_and_cpu):
        return [(rate, {"postgres": cpu / 2, "the program": cpu / 2}) for rate, cpu in rates_and_cpu]
    found = {"C": turns((100, 10), (100, 10)), "Go": turns((80, 20), (80, 20)), "anubisd": turns((50, 40), (50, 40)),
             "anubisd with one group": turns((100, 30), (90, 30))}
    rows = list(bench_throughput.compared("http", found))
    cpu = [4, 3, 2, 1.5]
    assert [row.ratio for row in rows] == [0.5, 0.95, 0.625, 1.1875, *cpu, *cpu, *cpu]
    assert [row.figure.partition(" over")[0] for row in rows[4::4]] == ["CPU µs of all parts", "CPU µs of postgres",
                                                                        "CPU µs of the program"]
    assert [list(row.verdicts()) for row in rows if row.goals] == [["ratio ≥ 1.2: MISSED"]]
    del found["Go"]
    assert [row.ratio for row in bench_throughput.compared("https", found)] == [0.5, 0.95, *cpu[:2] * 3]


def test_without_go_its_peer_is_left_out_and_the_table_says_why(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "No such file" in bench_throughput.go_missing()
    (tmp_path / "go").write_text("#!/bin/sh\necho a >&2; echo 'no module' >&2; exit 1\n")
    (tmp_path / "go").chmod(0o755)
    assert bench_throughput.go_missing() == "no module"
    assert table([Row("left out", None)])[1].strip() == "left out"


def test_cpu_is_counted_by_thread():
    with Child(["sh", "-c", "while :; do :; done"], name="busy") as child:
        child.start()
        wait_for(lambda: bench_measure.cpu_of(child.pid) >= 0.2)
        threads = bench_measure.cpu_by_thread(child.pid)
        assert list(threads) == [f"main/{child.pid}"]
        assert 0.1 < by_name(threads)["main"] < 60
    assert by_name({"rdk:broker1/7": 1, "main/5": 2, "rdk:broker1/8": 3}) == {"rdk:broker1": 4, "main": 2}


def test_the_machine_is_named():
    assert cpu_model("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n") == "Some CPU @ 2 GHz"
    assert cpu_model("Features : fp asimd\n") == os.uname().machine
    found = bench_measure.machine("15.1")
    assert found["Postgres"] == "15.1" and found["OpenSSL"].startswith("OpenSSL") and found["kernel"] == os.uname().release


def test_memory_is_that_of_as_few_rows_as_are_asked_for(app, make_daemon, institutions):
    some = types.SimpleNamespace(fresh=lambda: (app, [app.integration(institutions.url("/good"))]),
                                 fill=lambda app, rows: [app.subscription(1) for _ in range(rows)],
                                 daemon=lambda app, **settings: make_daemon(settings), end=bench.Bench.end)
    found = bench.Bench.memory(some, 50)
    assert found["rows waiting"] == 50 and 1 < found["peak RSS MiB"] < 1000
    assert app.states()["sent"] == 50


@pytest.mark.slow
def test_broken_peers_leave_nothing_behind(app, make_daemon, monkeypatch):
    """Thousands of requests to institutions that break connections in every way, in clear text and over TLS."""
    certificates = Certificates()
    stand_in = types.SimpleNamespace(fresh=lambda integrations: (app, []), certificates=certificates,
                                     daemon=lambda app, **settings: make_daemon(settings), end=bench.Bench.end)
    monkeypatch.setattr(bench_soak, "STEADY", 20)  # memory is the long run's to judge
    found = bench_soak.soak(stand_in, 5000)
    early, late = (found[name] for name in bench_soak.QUIET.values())
    # Sessions with Postgres and Kafka come and go. Alerts, metrics and checkpoints have a producer each while there is something
    # to say, with its threads.
    assert late["descriptors"] <= early["descriptors"] + 30
    assert late["threads"] <= early["threads"] + 12
    assert {"sent", "connection lost", "timeout", "could not connect", "TLS handshake or certificate",
            "HTTP 500"} <= found["rows' last errors"].keys()
