"""Analytics: integration_stats is what a plain count over the ledger gives, whatever is delivered how often and whoever dies."""
import collections
import csv
import datetime
import io
import itertools
import json
import math
import random
import zlib

import pytest
from harness.anubis import merged
from harness.processes import wait_for
from test_consumer import INSTALLATION, SETTINGS, Scene, event

TYPES = ("created", "sent", "failed", "retried")
PARTITIONS = {"created": 3, "sent": 3, "failed": 3, "retried": 2}
SPANS = {"hour": "%Y-%m-%d %H", "day": "%Y-%m-%d", "month": "%Y-%m"}
COLUMNS = ("created", "sent", "failed", "retried", "attempts")


# --- the model ---


def latency_index(usec):
    """The least i with usec <= 2^(i/32)."""
    if usec <= 1:
        return 0
    i = max(0, (usec - 1).bit_length() * 32 - 33)
    while usec ** 32 > 1 << i:
        i += 1
    return min(i, 1440)


def model(rows):
    """{(integration, span, bucket): (counts, latencies)} of ledger rows: type, integration, time, creation, duration."""
    cells = collections.defaultdict(lambda: (collections.Counter(), collections.Counter()))
    for kind, integration, at, created_at, duration in rows:
        for span, form in SPANS.items() if integration else ():
            counts, latencies = cells[integration, span, at.astimezone(datetime.timezone.utc).strftime(form)]
            counts[kind] += 1
            if duration is not None:
                counts["attempts"] += 1
                latencies["http", latency_index(duration * 1000)] += 1
            if kind == "sent":
                latencies["delivery", latency_index((at - created_at) // datetime.timedelta(microseconds=1))] += 1
    return dict(cells)


def counted(app):
    """What stands in the tables, in the same form."""
    cells = {}
    for row in app.query(f"select integration_id, span, bucket at time zone 'UTC', {', '.join(COLUMNS)}, delivery_index, "
                         "delivery_count, http_index, http_count from {s}.integration_stats_spans"):
        latencies = collections.Counter()
        for kind, indexes, counts in (("delivery", *row[8:10]), ("http", *row[10:])):
            assert indexes == sorted(set(indexes)) and all(counts)
            latencies.update({(kind, i): n for i, n in zip(indexes, counts)})
        counts = collections.Counter({c: n for c, n in zip(COLUMNS, row[3:8]) if n})
        if counts:
            cells[row[0], row[1], row[2].strftime(SPANS[row[1]])] = (counts, latencies)
    return cells


# --- a scene ---


class Stream(Scene):
    """Events of all kinds, hours apart, with latencies."""

    def random_events(self, count):
        made, rows = {kind: [] for kind in TYPES}, []
        for _ in range(count):
            self.sequence += self.random.choice((1, 1, 2, 150))
            kind = self.random.choice(TYPES)
            integration = self.random.choice([*self.integrations, None])
            at = datetime.datetime(2026, 10, 31, 20, tzinfo=datetime.timezone.utc) + datetime.timedelta(
                seconds=self.random.randrange(20 * 3600), microseconds=self.random.randrange(10 ** 6))
            created_at = at - datetime.timedelta(microseconds=int(10 ** self.random.uniform(0, 11)))
            duration = None if kind == "created" or self.random.random() < 0.1 else int(10 ** self.random.uniform(0, 4.5)) - 1
            subscription = self.random.randrange(1, 10 ** 9)
            message = event(kind, subscription, self.sequence, integration,
                            headers={"timestamp": at.strftime("%Y-%m-%dT%H:%M:%S.%fZ")})
            message["partition"] = zlib.crc32(str(subscription).encode()) % PARTITIONS[kind]
            made[kind].append(message)
            rows.append((self.sequence, dict(message["headers"])["event_id"], kind, subscription, integration, at, created_at,
                         duration))
        self.app.query(
            "insert into {s}.subscription_events (id, event_id, event_type, subscription_id, integration_id, created_at, "
            "subscription_created_at, duration_ms) select * from unnest(%s::bigint[], %s::uuid[], %s::text[], %s::bigint[], "
            "%s::bigint[], %s::timestamptz[], %s::timestamptz[], %s::int[])", [list(column) for column in zip(*rows)])
        return made

    def send_shuffled(self, events):
        """With duplicates; partitions keep no order among each other, nor within, should the relay have begun anew."""
        for kind, messages in events.items():
            chosen = messages + self.random.sample(messages, len(messages) // 3)
            self.random.shuffle(chosen)
            if chosen:
                self.cluster.produce(self.topic(kind), chosen)

    def ledger(self):
        return self.app.query("select event_type, integration_id, created_at, subscription_created_at, duration_ms "
                              "from {s}.subscription_events where id < 1000000000 order by id")

    def wait_read(self):
        def read():
            rows = self.app.query("select topic, partition, next_offset from {s}.consumer_offsets")
            at = {(topic, p): n for topic, p, n in rows}
            return all(at.get((self.topic(kind), p)) == high for kind in TYPES
                       for p, (_, high) in self.cluster.watermarks(self.topic(kind)).items())
        wait_for(read, 60, "everything to be read", interval=0.05)


@pytest.fixture
def stream(app, broker):
    return Stream(app, broker)


def test_an_index_is_exact_at_its_bounds(database):
    bounds = {int(2 ** (k / 32)) for k in range(46 * 32)}
    chosen = {random.Random(n).randrange(1 << 45) for n in range(2000)}
    numbers = sorted({n + d for n in bounds for d in (-1, 0, 1)} | set(range(-1, 3000)) | chosen | {2 ** 62})
    found = database.query("select array_agg(anubis.latency_index(n) order by n) from unnest(%s::bigint[]) n", (numbers,))[0][0]
    assert found == [latency_index(n) for n in numbers]


def test_stats_are_those_of_the_ledger_whatever_happens(stream, make_daemon, ctl):
    daemon = make_daemon(merged(SETTINGS, {"consumers": {"threads": 2}}))
    for _ in range(3):
        events = stream.random_events(400)
        stream.send_shuffled(events)
        daemon.start()
        wait_for(lambda: stream.app.value("select count(*) from {s}.integration_stats") > 0, 60, "something to be counted")
        daemon.kill9()
        stream.send_shuffled(events)
    stream.rewind()
    daemon.start()
    stream.wait_read()
    expected = model(stream.ledger())
    assert counted(stream.app) == expected
    stats_differ = [d for d in ctl("verify", "--json").json["differences"] if "integration_stats" in d]
    assert stats_differ == []
    check_replay(stream, daemon, ctl, expected)


def check_replay(stream, daemon, ctl, expected):
    """Wrong, missing and invented rows are named, and replayed to what they were, while the daemon counts on."""
    app, some = stream.app, stream.integrations
    app.query("update {s}.integration_stats set sent = sent + 1, http_count = http_count || 1::bigint, "
              "http_index = http_index || 999::smallint where integration_id = %s", (some[0],))
    app.query("delete from {s}.integration_stats_spans where integration_id = %s", (some[1],))
    app.query("insert into {s}.integration_stats (integration_id, bucket, failed) values (77, '2026-01-01', 5)")
    app.query("update {s}.integration_runtime set sent = sent + 3 where integration_id = %s", (some[2],))
    verified = ctl("verify", "--json").expect(1).json
    invented = "integration 77, hour of 2026-01-01 00:00:00Z: to be corrected: failed by -5"
    assert any(invented in d for d in verified["differences"])
    assert any("replay --group integration --from-ledger" in r for r in verified["remedies"])
    wrong = counted(app)
    done = ctl("replay", "--group", "integration", "--from-ledger", "--dry-run", "--json").expect(0).json
    assert done["stats"] > 2 and done["integrations"] == 1 and counted(app) == wrong
    stream.send_shuffled(stream.random_events(1000))
    assert ctl("replay", "--group", "integration", "--from-ledger", "--json").expect(0).json["stats"] >= done["stats"]
    stream.wait_read()
    assert counted(app) == model(stream.ledger()) != expected
    assert ctl("replay", "--group", "integration", "--from-ledger", "--json").expect(0).json == {"integrations": 0, "stats": 0}
    # From the topics: nothing counts twice; what was never handled does now.
    lost = stream.random_events(50)
    app.query("update {s}.consumer_offsets set next_offset = 0")
    daemon.kill9()
    stream.send_shuffled(lost)
    app.query("update {s}.consumer_offsets o set next_offset = 10 ^ 6")
    daemon.start()
    assert ctl("replay", "--group", "integration", "--json").expect(0).json["partitions"] >= 11
    stream.wait_read()
    assert counted(app) == model(stream.ledger())
    # What was counted, corrected and invented went to its topic.
    wait_published(stream)


# --- their topic ---


def in_topic(stream):
    """{(integration, hour): the latest message}"""
    latest = {}
    for message in stream.cluster.read_all("anubis.metrics"):
        value = json.loads(message.value)
        assert message.key == str(value["integration_id"]) and message.headers["content_type"] == "application/json"
        assert message.headers["installation"] == stream.app.value("select namespace::text from {s}.installation")
        latest[value["integration_id"], value["hour"]] = value
    return latest


def in_table(stream):
    cells = {}
    for integration, hour, *rest in stream.app.query(
            f"select integration_id, bucket at time zone 'UTC', {', '.join(COLUMNS)}, delivery_index, delivery_count, "
            "http_index, http_count from {s}.integration_stats"):
        cells[integration, hour.strftime("%Y-%m-%dT%H:%M:%SZ")] = rest
    return cells


def percentile(indexes, counts, share):
    up_to = list(itertools.accumulate(counts))
    i = next((i for i, n in zip(indexes, up_to) if n >= math.ceil(up_to[-1] * share)), None)
    return i and 2 * 2 ** (i / 32) / (1 + 2 ** (1 / 32)) / 1000


def wait_published(stream):
    wait_for(lambda: stream.app.value("select count(*) from {s}.integration_stats_changes") == 0, 120, "hours to be published")
    published, names = in_topic(stream), dict(stream.app.query("select id, name from {s}.integrations"))
    table = in_table(stream)
    assert (published.keys() - table.keys(), table.keys() - published.keys()) == (set(), set())
    for (integration, hour), (*counts, d_index, d_count, h_index, h_count) in table.items():
        value = published[integration, hour]
        assert [value[c] for c in COLUMNS] == counts
        assert value["integration"] == ({"id": integration, "name": names[integration]} if integration in names else None)
        for kind, index, count in (("delivery", d_index, d_count), ("http", h_index, h_count)):
            assert (value[kind]["index"], value[kind]["count"]) == (index, count)
            for share in (50, 95, 99):
                ms = percentile(index, count, share / 100)
                assert value[kind][f"p{share}_ms"] == (ms if not ms else pytest.approx(ms, abs=0.001))


def test_an_hour_that_goes_on_is_published_again_and_kafka_may_be_away(stream, make_daemon):
    stream.send_shuffled(stream.random_events(50))
    stream.cluster.error(0, 29)  # the daemon's first message is refused
    daemon = make_daemon(SETTINGS).start()
    daemon.wait_log("Kafka does not take metrics", 60)
    daemon.wait_log("Kafka takes metrics again", 120)
    wait_published(stream)
    stream.send_shuffled(stream.random_events(700))
    stream.wait_read()
    wait_published(stream)


def test_a_report_adds_up_any_period(app, ctl):
    """The report of a period is that of its hours, whether months and days cover it or not."""
    rnd, one = random.Random(5), app.integration("https://a.example/x", name='=Uni "A", B')
    first = datetime.datetime(2026, 1, 30, 21, tzinfo=datetime.timezone.utc)
    rows = []
    for _ in range(400):
        at = first + datetime.timedelta(seconds=rnd.randrange(70 * 86400))
        created_at = at - datetime.timedelta(milliseconds=int(10 ** rnd.uniform(1, 6)))
        rows.append((rnd.choice(TYPES), one, at, created_at, rnd.randrange(5000)))
    for (integration, span, bucket), (counts, latencies) in model(rows).items():
        kinds = {k: sorted((i, n) for (kind, i), n in latencies.items() if kind == k) for k in ("delivery", "http")}
        values = {"integration_id": integration, "span": span,
                  "bucket": bucket + {"hour": ":00Z", "day": "", "month": "-01"}[span],
                  **{c: counts[c] for c in COLUMNS},
                  **{f"{k}_index": [i for i, _ in v] for k, v in kinds.items()},
                  **{f"{k}_count": [n for _, n in v] for k, v in kinds.items()}}
        app.query(f"insert into {{s}}.integration_stats_spans ({', '.join(values)}) values ({', '.join(['%s'] * 3)}, "
                  f"{', '.join(['%s'] * 5)}, %s::smallint[], %s::smallint[], %s::bigint[], %s::bigint[])", list(values.values()))
    for _ in range(24):
        since, until = sorted(first + datetime.timedelta(hours=rnd.randrange(70 * 24)) for _ in range(2))
        inside = [r for r in rows if since <= r[2] < until]
        period = ["--since", f"{since:%Y-%m-%d %H:%M}", "--until", f"{until:%Y-%m-%d %H:%M}"]
        report = ctl("report", *period, "--json").expect(0).json
        assert report["since"] == f"{since:%Y-%m-%dT%H:%M:%S.000000Z}"
        if not inside:
            assert report["integrations"] == []
            continue
        found = report["integrations"][0]
        counts = collections.Counter(r[0] for r in inside)
        assert {k: found[k] for k in TYPES} == {k: counts[k] for k in TYPES} and found["attempts"] == len(inside)
        assert {**found, "integration_id": 0, "name": 0} == {**report["total"][0], "integration_id": 0, "name": 0}
        waits = [(r[2] - r[3]) / datetime.timedelta(milliseconds=1) for r in inside if r[0] == "sent"]
        for key, values in (("http_ms", [r[4] for r in inside]), ("delivery_ms", waits)):
            for percent in (50, 95, 99) if values else ():
                exact = sorted(values)[-(-len(values) * percent // 100) - 1]
                assert found[key][f"p{percent}"] == pytest.approx(exact, rel=0.0109, abs=0.001)
    check_forms(ctl, one)


def check_forms(ctl, one):
    table = list(csv.reader(io.StringIO(ctl("report", "--since", "2026-01-01", "--format", "csv").expect(0).stdout)))
    assert table[0][:3] == ["integration_id", "name", "created"] and len(table) == 2
    assert table[1][:2] == [str(one), "'=Uni \"A\", B"]
    assert "=Uni" in ctl("report", "--since", "2026-01-01", "--format", "table").expect(0).stdout
    assert ctl("report", "--since", "1h", "--json").expect(0).json["integrations"] == []
    none = ctl("report", "--integration", "99", "--since", "2026-01-01", "--format", "json").expect(1)
    assert "no integration 99" in none.stderr
    for wrong in (["--format", "xml"], ["--since", "soon"], ["--integration", "x"], ["--format", "csv", "--json"]):
        ctl("report", *wrong).expect(64)
    for wrong in ([], ["--group", "all"], ["--group", "monitoring", "--from-ledger"]):
        ctl("replay", *wrong).expect(64)


FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\uff1d1+1", "\uff0b1", "\uff0d1", "\uff20SUM(A1)", "\t=1", "\r=1", "\n=1", " =1",
            "  \uff1d1")
HARMLESS = ("Uni = 1", "\uff21", "\uff1c", "'=1", " Uni", 'the "one", or\r\nanother')


@pytest.mark.parametrize("what", [(), ("--reconciliation",)])
def test_a_name_is_no_formula_in_a_spreadsheet(app, ctl, what):
    names = {app.integration("https://a.example/x", name=name): name for name in (*FORMULAS, *HARMLESS)}
    app.query("insert into {s}.integration_stats_spans (integration_id, span, bucket, created, sent, failed, retried, attempts, "
              "delivery_index, delivery_count, http_index, http_count) "
              "select id, span, date_trunc(span, now() at time zone 'UTC') at time zone 'UTC', 1, 0, 0, 0, 0, '{}', '{}', '{}', "
              "'{}' "
              "from {s}.integrations, unnest('{hour,day,month}'::text[]) span")
    app.query("insert into {s}.confirmations (subscription_id, integration_id, expected_by) "
              "select id, id, now() from {s}.integrations")
    found = csv.reader(io.StringIO(ctl("report", *what, "--format", "csv").expect(0).stdout, newline=""))
    # What the harness reads has the line ends of Python's texts.
    assert {int(row[0]): row[1] for row in list(found)[1:]} == {
        i: ("'" * (name in FORMULAS) + name).replace("\r\n", "\n").replace("\r", "\n") for i, name in names.items()}


def test_a_delivery_is_counted_and_proven(app, institutions, make_daemon, ctl):
    good = app.integration(institutions.url("/good"))
    refusing = app.integration(institutions.url("/reject/422"))
    make_daemon().start()
    app.subscriptions(good, 20)
    app.subscriptions(refusing, 5)
    app.wait_states(sent=20, failed=5)
    ctl("verify", "--wait").expect(0)
    found = {i["integration_id"]: i for i in ctl("report", "--json").expect(0).json["integrations"]}
    assert [(found[i]["created"], found[i]["sent"], found[i]["failed"], found[i]["attempts"], found[i]["success_rate"])
            for i in (good, refusing)] == [(20, 20, 0, 20, 1), (5, 0, 5, 5, 0)]
    assert 0 <= found[good]["http_ms"]["p50"] <= found[good]["delivery_ms"]["p99"]
    assert INSTALLATION not in str(found)
