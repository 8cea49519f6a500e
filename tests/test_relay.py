"""The relay: every committed row of the ledger reaches its topic, in order, once; and what happens when parts are killed."""
import collections
import contextlib
import decimal
import json
import os
import random
import re
import signal
import socket
import struct
import subprocess
import threading
import time
import uuid
import zlib

import jsonschema
import psycopg2
import pytest
from confluent_kafka.admin import AdminClient, ConfigResource

from conftest import migrate, unavailable
from harness.anubis import Ctl, merged
from harness.application import Application
from harness.kafka import EmbeddedBroker, RealKafka, java_missing
from harness.processes import build_folder, scratch_folder, wait_for
from harness.rails import adopt, rails

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
EVENT_TOPICS = {f"subscriptions.{t}": n for t, n in
                {"created": 3, "updated": 3, "sent": 3, "failed": 3, "retried": 2}.items()}
WRITING_SECONDS = 60 if os.environ.get("FULL") == "1" else 15

with open(os.path.join(os.path.dirname(__file__), "event.schema.json"), encoding="utf-8") as f:
    VALIDATOR = jsonschema.Draft202012Validator(json.load(f))

# What the other parts of the daemon would do is of no interest here.
RELAY_ALONE = {"consumers": {"integration": False, "monitoring": False, "external": False}}


class Ledger:
    """The database's side: what was written, and what the relay says about it."""

    def __init__(self, database, schema="anubis"):
        self.database = database
        self.app = Application(database, schema)

    def value(self, sql, arguments=None):
        return self.app.value(sql, arguments)

    def query(self, sql, arguments=None):
        return self.app.query(sql, arguments)

    def connect(self):
        connection = self.database.connect(autocommit=False)
        connection.cursor().execute(f"set search_path = {self.app.schema}")
        connection.commit()
        return connection

    def integration(self):
        """One that nothing is delivered to: all changes are the test's own."""
        return self.app.integration("http://127.0.0.1:9/nowhere", enabled=False)

    def last_id(self):
        return self.value("select coalesce(max(id), 0) from {s}.subscription_events")

    def wait_published(self, deadline=60):
        """Until all that is committed now is published, and no gap is open."""
        last = self.last_id()
        wait_for(lambda: self.value("select high >= %s and gap_first = '{}' from {s}.relay_state", (last,)), deadline,
                 lambda: f"ledger id {last} to be published: {self.query('select * from {s}.relay_state')}")

    def wait_published_but_gaps(self):
        """The same, but for the gaps that open transactions hold."""
        last = self.last_id()
        wait_for(lambda: self.value("select high >= %s from {s}.relay_state", (last,)), 60, f"ledger id {last} to be published")

    def messages(self):
        """{id: (topic, key, headers, value)} of every event, as the view shows them."""
        return {r[0]: r[1:] for r in self.query("select id, topic, key, headers, value::text "
                                                "from {s}.subscription_event_messages")}


@pytest.fixture
def ledger(database):
    return Ledger(database)


def read_topics(kafka, prefix="anubis."):
    """{topic without prefix: its messages}"""
    return {topic: kafka.read_all(prefix + topic) for topic in EVENT_TOPICS}


def sequence(message):
    return int(message.headers["sequence"])


def exact(text):
    return json.loads(text, parse_float=decimal.Decimal, parse_int=decimal.Decimal)


def is_the_same(published, shown):
    """Equal as JSON. Of answers that jsonb cannot hold, or that are nested too deeply to be published as JSON, one is a text."""
    one, other = exact(published), exact(shown)
    if one == other:
        return True
    answers = [value.pop("response_data") for value in (one, other)]
    assert "\\u0000" in published or published.count("[") > 512, f"{published[:500]} is shown as {shown[:500]}"
    text = max((a for a in answers if isinstance(a, str)), key=len)
    return one == other and exact(text) in answers


def check_published(ledger, kafka, prefix="anubis.", once=True, before=0):
    """Kafka holds exactly the ledger: each event in its topic and partition, as the view has it, in order. Returns how many
    came twice."""
    wanted = {number: message for number, message in ledger.messages().items() if number > before}
    seen = collections.Counter()
    for topic, messages in read_topics(kafka, prefix).items():
        newest = {}
        first = set()
        for m in messages:
            number = sequence(m)
            assert number in wanted, f"event {number} is in Kafka, but not in the ledger"
            suffix, key, headers, value = wanted[number]
            assert (topic, m.key) == (suffix, key)
            assert m.headers == headers
            assert is_the_same(m.value.decode(), value)
            assert m.partition == zlib.crc32(m.key.encode()) % EVENT_TOPICS[topic]
            if number not in first:
                assert number > newest.get(m.key, 0), f"event {number} of subscription {m.key} comes after a newer one"
                newest[m.key] = number
            first.add(number)
            seen[number] += 1
    missing = set(wanted) - set(seen)
    assert not missing, f"{len(missing)} events are not in Kafka: {sorted(missing)[:20]}"
    twice = [n for n, c in seen.items() if c > 1]
    if once:
        assert not twice, f"{len(twice)} events are in Kafka more than once: {sorted(twice)[:20]}"
    return len(twice)


# --- what is published ---


STRANGE_ANSWERS = [
    '{"id": 9007199254740993, "x": 1e400, "y": 0.10000000000000000000001}', "", " ", "OK", "null", "12", '"text"', "[01]", "[1,]",
    '{"a":1', ' [1,\n2]\t', '"\\u0000"', '"\\ud800"', '"\\ud83d\\ude00"', '"\\\\ud800"', '"a\\"b"', "[" * 512 + "]" * 512,
    "[" * 513 + "]" * 513, '["' + "[" * 600 + '"]', '{"é":"\U0001f600"}', '"\x7f"', '"\t"', "<html>\n\x01&</html>", "NaN", "-",
    "-0", "1.", "0x10", "tru", '{"a":1}{', '{"a" 1}', '{1:2}', "'a'",
    '"\\x"', '"unfinished', '{"a":' * 300 + "1" + "}" * 300, "x" * 65536, '{"' + "k" * 60000 + '":1}',
]
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def write_strange_events(ledger):
    integration = ledger.app.integration("http://127.0.0.1:9/x", name='A "quoted"\\ näme\n', enabled=False)
    connection = ledger.connect()
    cursor = connection.cursor()
    for answer in STRANGE_ANSWERS:
        for truncated in (None, True):
            # As the daemon settles: the claim changes, so the answer counts as this change's own.
            cursor.execute("insert into subscriptions (integration_id, order_id, origin, cpf, payload) "
                           "values (%s, 1, 'web', '1', '{}') returning id", (integration,))
            number = cursor.fetchone()[0]
            cursor.execute("update subscriptions set status = 'processing', claim_token = 1, attempts = 1 where id = %s",
                           (number,))
            cursor.execute("update subscriptions set status = 'sent', claim_token = null, sent_at = now(), last_response = %s, "
                           "last_response_truncated = %s where id = %s", (answer, truncated, number))
    for columns, values in [
            ("origin, cpf", (None, None)), ("origin, cpf", ("é\U0001f600\"\\\n\x01", "x" * 3000)),
            ("order_id, origin", (-5, "")),
            ("scheduled_to, traceparent", ("infinity", TRACE)), ("scheduled_to, traceparent", ("-infinity", TRACE.upper())),
            ("scheduled_to, traceparent", ("0044-03-15 12:00:00+00 BC", "ff" + TRACE[2:])), ("traceparent", ("0" * 55,)),
            ("traceparent", ("cc" + TRACE[2:],)), ("traceparent", ("00-" + "0" * 32 + TRACE[35:],)),
            ("traceparent", ("x" * 5000,)),
            ("integration_id, created_at", (integration, "1999-12-31 23:59:59.999999+00")),
            ("order_id, created_at", (9223372036854775807, "12345-01-01 00:00:00+00")),
            ("scheduled_to, created_at", ("294276-12-31 23:59:59.999999+00", "294276-12-31 23:59:59.999999+00")),
            ("scheduled_to, created_at", ("4714-11-24 00:00:00+00 BC", "4714-11-24 00:00:00+00 BC"))]:
        cursor.execute(f"insert into subscriptions ({columns}) values ({', '.join(['%s'] * len(values))})", values)
    for status, error, ambiguous, due in [("retry", "HTTP 500: \x01\"", True, "2030-01-01 00:00:00+00"),
                                          ("failed", None, None, None),
                                          ("retry", "é" * 9000, False, None), ("failed", "", False, None),
                                          ("retry", "x", None, "infinity"), ("pending", None, None, None)]:
        cursor.execute("insert into subscriptions (integration_id) values (%s) returning id", (integration,))
        number = cursor.fetchone()[0]
        cursor.execute("update subscriptions set status = 'processing', claim_token = 1, attempts = 2 where id = %s", (number,))
        cursor.execute("update subscriptions set status = %s, claim_token = null, last_error = %s, last_ambiguous = %s, "
                       "next_attempt_at = %s where id = %s", (status, error, ambiguous, due, number))
    connection.commit()
    connection.close()


def test_messages_are_what_the_view_shows(ledger, broker, make_daemon):
    write_strange_events(ledger)
    ledger.query("alter database \"" + ledger.database.name + "\" set timezone = 'America/Sao_Paulo'")
    make_daemon(RELAY_ALONE).start()
    ledger.wait_published()
    check_published(ledger, broker)
    for messages in read_topics(broker).values():
        for m in messages:
            VALIDATOR.validate(json.loads(m.value))
            assert m.headers["service"] == "anubis" and m.headers["version"] == "1.0"


def test_the_oldest_and_the_newest_postgres(own_postgres, postgres_version, broker, make_daemon):
    server = own_postgres(version=postgres_version)
    database = server.create_database("relay")
    migrate(database)
    ledger = Ledger(database)
    write_strange_events(ledger)
    make_daemon(RELAY_ALONE, database=database).start()
    ledger.wait_published()
    join(write_wildly(ledger, 3, clients=4))
    ledger.wait_published()
    check_published(ledger, broker)


@pytest.mark.parametrize("json_type", ["json", "jsonb"])
def test_adopted_tables(empty_database, json_type, broker, make_daemon):
    """Timestamps without time zone, varchar and JSON columns; rows of before the adoption are not published."""
    empty_database.query(f"alter database {empty_database.name} set timezone = 'America/Sao_Paulo'")
    rails(empty_database, json_type)
    adopt(empty_database).expect(0)
    ledger = Ledger(empty_database, "public")
    old = ledger.last_id()
    ledger.query("update {s}.integrations set enabled = false")
    ledger.query("insert into {s}.subscriptions (integration_id, integration_filter_id, created_at, updated_at, scheduled_to) "
                 "select 1, 1, '2026-01-02 03:04:05.678901', '2026-01-02 03:04:05', '2030-01-01 12:00' "
                 "from generate_series(1, 10)")
    for answer in ('{"ok": true, "n": 9007199254740993.10}', "no JSON", '"\\u0000"'):
        ledger.query("update {s}.subscriptions set status = 'sent', last_response = %s where id = "
                     "(select max(id) from {s}.subscriptions where status = 'pending')", (answer,))
    ledger.query("update {s}.subscriptions set status = 'failed', last_error = 'HTTP 500: x' where id = "
                 "(select max(id) from {s}.subscriptions where status = 'pending')")
    ledger.query("insert into {s}.subscription_events (subscription_id, status, operation_name, created_at, updated_at) "
                 "values (1, 'success', 'looked_at', '2026-01-02 03:04:05', '2026-01-02 03:04:05')")
    make_daemon({**RELAY_ALONE, "database": {"schema": "public"}}, database=empty_database).start()
    ledger.wait_published()
    check_published(ledger, broker, before=old)
    created = json.loads(broker.read_all("anubis.subscriptions.created")[0].value)
    VALIDATOR.validate(created)
    assert created["subscription"]["created_at"] == "2026-01-02T03:04:05.678901Z"
    assert created["subscription"]["scheduled_to"] == "2030-01-01T12:00:00.000000Z"
    for messages in read_topics(broker).values():
        for m in messages:
            VALIDATOR.validate(json.loads(m.value))


def test_long_texts_are_cut_at_characters(ledger, broker, make_daemon):
    """As the view cuts them: by characters, however many bytes these have."""
    integration = ledger.app.integration("http://127.0.0.1:9/x", name="\U0001f600" * 1001, type="é" * 1001, enabled=False)
    for filler in ("x", "é", "€", "\U0001f600"):
        for length in (999, 1000, 1001, 7999, 8000, 8001):
            ledger.query("insert into {s}.subscriptions (integration_id, origin, cpf) values (%s, %s, %s)",
                         (integration, filler * length, "a" + filler * length))
            ledger.query("update {s}.subscriptions set status = 'failed', last_error = %s where status = 'pending'",
                         ("a" + filler * length,))
    make_daemon(RELAY_ALONE).start()
    ledger.wait_published()
    check_published(ledger, broker)
    values = [json.loads(m.value) for m in broker.read_all("anubis.subscriptions.failed")]
    assert len(values) == 24
    for value in values:
        assert (len(value["integration"]["name"]), len(value["integration"]["type"])) == (1000, 1000)
        assert len(value["subscription"]["cpf"]) == 1000 >= len(value["subscription"]["origin"])
        assert "\ufffd" not in value["error_message"]
    assert {len(value["error_message"]) for value in values} == {1000, 1001, 1002, 8000}


def test_adopted_columns_of_other_types(empty_database, broker, make_daemon):
    """Integers, and a ledger of the application's that has most columns already."""
    rails(empty_database)
    empty_database.query("""
        delete from subscription_events;
        alter table integrations alter id type integer;
        alter table subscriptions alter integration_id type integer, alter order_id type integer;
        alter table subscription_events alter subscription_id type integer, add integration_id integer,
            add order_id integer, add attempt bigint, add event_type character varying, add origin character varying,
            add cpf character varying, add to_status character varying, add event_id uuid;
        alter table subscription_events alter created_at drop not null""")
    adopt(empty_database).expect(0)
    ledger = Ledger(empty_database, "public")
    ledger.query("update {s}.integrations set enabled = false, name = case when id > 2 then name end, type = 'é'")
    ledger.query("insert into {s}.subscriptions (integration_id, integration_filter_id, order_id, origin, cpf, created_at, "
                 "updated_at) select 1 + n %% 4, 1, n, 'web', '1', '2026-01-02 03:04:05.678901', '2026-01-02 03:04:05' "
                 "from generate_series(1, %s) n", (20,))
    ledger.query("update {s}.subscriptions set status = 'failed', last_error = 'x' where status = 'pending' and id % 2 = 0")
    # Of the application's own, without what the triggers fill in.
    ledger.query("insert into {s}.subscription_events (id, subscription_id, event_type, created_at, updated_at) "
                 "values (ledger_next_id(), 1, 'updated', null, '2026-01-02 03:04:05')")
    make_daemon({**RELAY_ALONE, "database": {"schema": "public"}}, database=empty_database).start()
    ledger.wait_published()
    check_published(ledger, broker)
    assert broker.count("anubis.subscriptions.updated") == 1


def test_a_new_name_shows_in_new_events(ledger, broker, make_daemon):
    """A name may be a second old when its batch is read."""
    integration = ledger.app.integration("http://127.0.0.1:9/x", name="before", enabled=False)
    make_daemon(RELAY_ALONE).start()

    def names():
        return [json.loads(m.value)["integration"] for m in broker.read_all("anubis.subscriptions.created")]
    ledger.app.subscription(integration)
    ledger.wait_published()
    ledger.query("update {s}.integrations set name = 'after', type = 'soap' where id = %s", (integration,))
    start = time.monotonic()

    def shows_the_new_name():
        ledger.app.subscription(integration)
        ledger.wait_published()
        return {"id": integration, "name": "after", "type": "soap"} in names()
    wait_for(shows_the_new_name, 20, "an event with the new name")
    assert time.monotonic() - start < 3 or os.environ.get("ANUBIS_PATIENCE")
    # Those before keep the name that they had, and those after have no other.
    shown = [i["name"] for i in sorted(names(), key=lambda i: i["name"], reverse=True)]
    assert shown[0] == "before" and set(shown) == {"before", "after"}
    ledger.app.subscription(integration)
    ledger.wait_published()
    assert sum(i["name"] == "before" for i in names()) == shown.count("before")


def test_one_that_is_new_shows_at_once(ledger, broker, make_daemon):
    make_daemon(RELAY_ALONE).start()
    for number in range(1, 6):
        integration = ledger.app.integration("http://127.0.0.1:9/x", name=f"number {number}", enabled=False)
        ledger.app.subscription(integration)
        ledger.wait_published()
    check_published(ledger, broker)


def test_event_ids_are_derived(ledger, empty_database, broker, make_daemon):
    """From the namespace and the ledger's id: version 8 of RFC 9562. Another installation has others."""
    integration = ledger.integration()
    ledger.app.subscriptions(integration, 2000)
    ledger.query("update {s}.subscriptions set status = 'failed'")
    make_daemon(RELAY_ALONE).start()
    ledger.wait_published()
    check_published(ledger, broker)
    namespace = ledger.value("select namespace::text from {s}.installation").replace("-", "")
    stored = dict(ledger.query("select id, event_id::text from {s}.subscription_events"))
    assert len(stored) == 4000
    for number, text in stored.items():
        made = uuid.UUID(text)
        assert (made.version, made.variant) == (8, uuid.RFC_4122)
        assert made.hex == namespace[:12] + "8" + namespace[13:16] + f"{1 << 63 | number:016x}"
    migrate(empty_database)
    assert empty_database.value("select anubis.ledger_event_id(1)") != ledger.value("select {s}.ledger_event_id(1)")
    # Another name gives other ids from then on.
    ledger.query("update {s}.installation set namespace = gen_random_uuid()")
    ledger.query("select {s}.ledger_name_events()")
    number = ledger.app.subscription(integration)
    [event] = ledger.app.events(number)
    assert event["event_id"] not in stored.values() and not event["event_id"].startswith(namespace[:8])
    assert event["event_id"] == str(ledger.value("select {s}.ledger_event_id(%s)", (event["id"],)))


def test_answers_too_large_for_kafka_are_shortened(ledger, broker, make_daemon):
    integration = ledger.integration()
    ledger.query("insert into {s}.subscriptions (integration_id) values (%s)", (integration,))
    ledger.query("update {s}.subscriptions set status = 'processing', claim_token = 1")
    ledger.query("update {s}.subscriptions set status = 'sent', claim_token = null, last_response = repeat(chr(1), 1000000)")
    make_daemon(RELAY_ALONE).start()
    ledger.wait_published()
    [message] = broker.read_all("anubis.subscriptions.sent")
    assert 900000 < len(message.value) < 1000000
    value = json.loads(message.value)
    VALIDATOR.validate(value)
    assert set(value["response_data"]) == {"\x01"}


def test_rows_that_are_no_events_are_passed_over(ledger, broker, make_daemon):
    """An adopted application's own notes: without a type, or of one of its own."""
    integration = ledger.integration()
    ledger.query("alter table {s}.subscription_events alter column event_type drop not null")
    ledger.query("alter table {s}.subscription_events drop constraint if exists subscription_events_event_type_check")
    ledger.query("insert into {s}.subscriptions (integration_id) values (%s)", (integration,))
    ledger.query("insert into {s}.subscription_events (event_type, subscription_id) values (null, 1)")
    ledger.query("insert into {s}.subscriptions (integration_id) values (%s)", (integration,))
    ledger.query("insert into {s}.subscription_events (event_type, subscription_id) values (null, 1)")
    make_daemon(RELAY_ALONE).start()
    ledger.wait_published()
    check_published(ledger, broker)
    assert broker.count("anubis.subscriptions.created") == 2


@pytest.mark.parametrize("kind", [None, "note", "created"], ids=["no type", "a type of its own", "an event"])
def test_a_clock_that_was_ahead_publishes_nothing_twice(ledger, broker, make_daemon, kind):
    """Rows of an application whose clock is ahead; events of a server whose clock was, and was set right."""
    integration = ledger.integration()
    ledger.query("alter table {s}.subscription_events alter column event_type drop not null")
    daemon = make_daemon(RELAY_ALONE).start()
    for rows in (5, 1, 5):
        ledger.app.subscriptions(integration, rows)
        ledger.query("insert into {s}.subscription_events (event_id, event_type, subscription_id, created_at) "
                     "select {s}.ledger_event_id(i), %s, max(s.id), now() + interval '5 hours' from {s}.subscriptions s, "
                     "(select last_value + 1 from {s}.ledger_id_seq) l (i) group by i", (kind,))
        ledger.wait_published()
        daemon.term()
        daemon.start()
        daemon.wait_log("the relay leads")
    ledger.app.subscriptions(integration, 5)
    ledger.wait_published()
    assert "turns back" not in daemon.child.output
    assert check_published(ledger, broker) == 0


# --- order and completeness ---


def test_a_late_commit_behind_thousands(ledger, broker, make_daemon):
    integration = ledger.integration()
    make_daemon(RELAY_ALONE).start()
    late = ledger.connect()
    cursor = late.cursor()
    cursor.execute("insert into subscriptions (integration_id) values (%s)", (integration,))
    cursor.execute("savepoint s")
    cursor.execute("insert into subscriptions (integration_id) values (%s)", (integration,))
    cursor.execute("rollback to s")
    cursor.execute("insert into subscriptions (integration_id) values (%s)", (integration,))
    ledger.app.subscriptions(integration, 5000, batch=100)
    last = ledger.last_id()
    # A long transaction delays nobody else.
    wait_for(lambda: ledger.value("select high >= %s from {s}.relay_state", (last,)), 60, "the newer events to be published")
    assert ledger.query("select gap_first, gap_last from {s}.relay_state") == [([1], [3])]
    assert sum(broker.count(f"anubis.{t}") for t in EVENT_TOPICS) == 5000
    late.commit()
    late.close()
    ledger.wait_published()
    check_published(ledger, broker)


@pytest.mark.real_kafka
@pytest.mark.parametrize("neighbours", [True, False], ids=["left behind in a gap", "in one piece"])
def test_what_comes_behind_a_large_transaction_overtakes_it(ledger, real_kafka, topic_prefix, make_daemon, neighbours):
    """Events of other subscriptions go out while its own are being published; its subscriptions keep their order."""
    # So many keep the fastest relay for more than the second after which others overtake.
    rows, integration = 120000, ledger.integration()
    insert = f"insert into anubis.subscriptions (integration_id) select {integration} from generate_series(1, %s) returning id"
    make_daemon({**RELAY_ALONE, "kafka": {"topic_prefix": topic_prefix}}, kafka=real_kafka).start()
    ledger.query(insert, (100,))
    with contextlib.closing(ledger.connect()) as large:
        cursor = large.cursor()
        cursor.execute("update subscriptions set status = 'processing' where id <= 50")
        cursor.execute(f"insert into subscriptions (integration_id, status) select {integration}, 'processing' "
                       "from generate_series(1, %s)", (rows,))
        cursor.execute("update subscriptions set status = 'pending' where id > 100")
        if neighbours:
            ledger.query(insert, (10,))
            ledger.wait_published_but_gaps()
        # At once behind it, whatever keeps this process meanwhile.
        cursor.execute(f"commit; insert into subscriptions (integration_id) select {integration} from generate_series(1, 10)")
        newest = ledger.last_id()
    for _ in range(3):
        # Of the large transaction's subscriptions, the last of which are published last, and of others.
        ledger.query("update {s}.subscriptions set status = 'retry' where id between %s and %s", (rows + 60, rows + 90))
        ledger.query("update {s}.subscriptions set status = 'pending' where id between %s and %s", (rows + 60, rows + 90))
        ledger.query(insert, (10,))
        ledger.wait_published_but_gaps()
    ledger.wait_published(120)
    check_published(ledger, real_kafka, topic_prefix)
    times = {sequence(m): m.timestamp_ms for messages in read_topics(real_kafka, topic_prefix).values() for m in messages}
    late = sum(at > times[newest] for number, at in times.items() if number < newest)
    assert late > rows / 10, f"only {late} events of the large one came after the newest"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_behind_700000_rows_of_one_transaction_newer_events_are_published_within_seconds(ledger, broker, make_daemon):
    """Each soon after it was committed, whether the large one's own are still on their way or not."""
    rows, integration = 700000, ledger.integration()
    make_daemon(RELAY_ALONE).start()
    published = ("select high >= %s and not exists (select from unnest(gap_first, gap_last) g (first, last) "
                 "where %s between g.first and g.last) from {s}.relay_state")
    insert = f"insert into {{s}}.subscriptions (integration_id) select {integration} from generate_series(1, %s)"
    ledger.app.query(insert, (10,))
    ledger.wait_published()
    ledger.app.query(insert, (rows,))
    last, newest = ledger.last_id(), 0
    while not newest or not ledger.value(published, (last, last)):
        ledger.app.query(insert, (10,))
        newest = ledger.last_id()
        wait_for(lambda n=newest: ledger.value(published, (n, n)), 20, "the newest to be published", interval=0.02)
    ledger.wait_published(300)


def test_a_wide_gap_is_filled_in_steps(ledger, broker, make_daemon):
    """A bulk of more rows than one read takes commits late; meanwhile its subscriptions' neighbours go on."""
    integration = ledger.integration()
    make_daemon(RELAY_ALONE).start()
    bulk = ledger.connect()
    bulk.cursor().execute("insert into subscriptions (integration_id) select %s from generate_series(1, 9000)", (integration,))
    ledger.app.subscriptions(integration, 100)
    wait_for(lambda: ledger.value("select high > 9000 from {s}.relay_state"), 60, "the newer events to be published")
    bulk.commit()
    ledger.query("update {s}.subscriptions set status = 'failed' where id % 100 = 0")
    bulk.close()
    ledger.wait_published()
    check_published(ledger, broker)


def test_events_of_a_stream_go_together_and_a_single_one_at_once(ledger, broker, make_daemon, institutions):
    """A batch costs as much for one event as for a hundred: a stream waits a little for its next batch."""
    make_daemon({**RELAY_ALONE, "delivery": {"poll_interval": "5m"}}).start()
    integration = ledger.integration()

    def saves():
        ledger.query("select pg_stat_clear_snapshot()")
        return ledger.value("select n_tup_upd from pg_stat_user_tables where relname = 'relay_state'")
    ledger.app.subscription(integration)
    ledger.wait_published()
    before = saves()
    connection = ledger.database.connect()
    cursor = connection.cursor()
    start = time.monotonic()
    for n in range(1000):
        time.sleep(max(0, start + n / 200 - time.monotonic()))
        cursor.execute("insert into anubis.subscriptions (integration_id) values (%s)", (integration,))
    took = time.monotonic() - start
    connection.close()
    ledger.wait_published()
    wait_for(lambda: saves() > before, 20, "the statistics")
    assert saves() - before < min(took * 30, 500), f"in {took:.1f} s"
    check_published(ledger, broker)
    # The delivery wakes the relay.
    good = ledger.app.integration(institutions.url("/good"))
    delays = []
    for n in range(1, 8):
        wait_for(lambda: ledger.app.states(good)["sent"] == n - 1, 20, "the last one")
        wait_for(lambda: ledger.value("select clock_timestamp() > max(created_at) + '1 s' from {s}.subscription_events"), 20,
                 "a silence")
        ledger.app.subscription(good)
        start = time.monotonic()
        ledger.wait_published()
        delays.append(time.monotonic() - start)
    assert sorted(delays)[3] < 0.4, delays
    check_published(ledger, broker)


def assert_peak(daemon):
    """64 MiB at most. A sanitizer keeps what was freed."""
    with open(f"/proc/{daemon.pid}/status", encoding="ascii") as status:
        peak = int(next(line for line in status if line.startswith("VmHWM")).split()[1])
    assert peak < 64 << 10 or "asan" in build_folder() or os.environ.get("ANUBIS_PATIENCE"), f"{peak} KiB"


def test_large_answers_are_read_in_small_batches(ledger, broker, make_daemon):
    integration = ledger.integration()
    ledger.query("insert into {s}.subscriptions (integration_id) select %s from generate_series(1, 300)", (integration,))
    ledger.query("update {s}.subscriptions set status = 'processing', claim_token = 1")
    ledger.query("update {s}.subscriptions set status = 'sent', claim_token = null, "
                 "last_response = repeat('0123456789abcdef', 4096)")
    daemon = make_daemon(RELAY_ALONE).start()
    ledger.wait_published()
    assert_peak(daemon)
    assert ledger.value("select sum(octet_length(response)) from {s}.subscription_events") > 18 << 20


@pytest.mark.parametrize("text", ["an answer", "a reason"])
def test_texts_of_a_megabyte_are_read_a_few_at_a_time(ledger, broker, make_daemon, text):
    """Among small rows, above and within a gap: 100 MB do not come into memory at once."""
    integration = ledger.integration()
    daemon = make_daemon(RELAY_ALONE).start()
    late = ledger.connect()
    for connection in (late, None):
        run = connection.cursor().execute if connection else ledger.database.query
        run("insert into anubis.subscriptions (integration_id, origin) select %s, %s from generate_series(1, 100)",
            (integration, str(bool(connection))))
        run("update anubis.subscriptions set status = %s, claim_token = 1, "
            f"{'last_response' if text == 'an answer' else 'last_error'} = repeat(chr(1), 1000000) "
            "where origin = %s and id %% 2 = 0",
            ("sent" if text == "an answer" else "failed", str(bool(connection))))
    last = ledger.last_id()
    wait_for(lambda: ledger.value("select high >= %s from {s}.relay_state", (last,)), 60, "the newer events to be published")
    late.commit()
    late.close()
    ledger.wait_published()
    assert_peak(daemon)
    topic = "anubis.subscriptions." + ("sent" if text == "an answer" else "failed")
    assert broker.count(topic) == 100 and broker.count("anubis.subscriptions.created") == 200


class Writer(threading.Thread):
    """The application at its worst: short and long transactions that commit, roll back and use savepoints."""

    def __init__(self, ledger, integration, seed, end):
        super().__init__(daemon=True)
        self.ledger, self.integration, self.end = ledger, integration, end
        self.random = random.Random(seed)
        self.error = None

    def run(self):
        try:
            connection = self.ledger.connect()
            while time.monotonic() < self.end:
                self.transaction(connection)
            connection.close()
        except Exception as e:  # pylint: disable=broad-except
            self.error = e

    def transaction(self, connection):
        r = self.random
        cursor = connection.cursor()
        if r.random() < 0.2:
            cursor.execute("set local synchronous_commit = off")
        for _ in range(r.choice([1, 1, 1, 2, 5])):
            self.statement(cursor)
            if r.random() < 0.15:
                cursor.execute("savepoint s")
                self.statement(cursor)
                cursor.execute(r.choice(["rollback to s", "release s"]))
            if r.random() < 0.02:
                # Not waited for by anybody: how long it takes is what is tested.
                time.sleep(r.uniform(0.1, 2))
        if r.random() < 0.2:
            connection.rollback()
        else:
            connection.commit()

    def statement(self, cursor):
        r = self.random
        if r.random() < 0.5:
            cursor.execute("insert into subscriptions (integration_id, origin) select %s, 'web' from generate_series(1, %s)",
                           (self.integration, r.choice([1, 1, 1, 3, 20])))
        else:
            # Nobody waits for a lock, so there are no deadlocks.
            cursor.execute("update subscriptions set status = %s where id in "
                           "(select id from subscriptions where status <> 'sent' and id >= "
                           "(select max(id) * random() from subscriptions) order by id limit %s for update skip locked)",
                           (r.choice(["retry", "failed", "pending", "processing", "sent"]), r.choice([1, 1, 5])))


def write_wildly(ledger, seconds, clients=16):
    end = time.monotonic() + seconds
    integration = ledger.integration()
    writers = [Writer(ledger, integration, i, end) for i in range(clients)]
    for w in writers:
        w.start()
    return writers


def join(writers):
    for w in writers:
        w.join(120)
        assert not w.error, w.error


@contextlib.contextmanager
def writing(ledger, clients=4):
    """Writers that go on until what happens beside them is over, however long that takes."""
    writers = write_wildly(ledger, 600, clients)
    try:
        yield
    finally:
        for w in writers:
            w.end = 0
    join(writers)


def wait_for_more(ledger, events):
    high = ledger.value("select high from {s}.relay_state")
    wait_for(lambda: ledger.value("select high >= %s from {s}.relay_state", (high + events,)), 60, f"{events} more events")


@pytest.mark.real_kafka
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_nothing_is_lost_beside_wild_writers(ledger, real_kafka, topic_prefix, make_daemon):
    make_daemon({**RELAY_ALONE, "kafka": {"topic_prefix": topic_prefix}}, kafka=real_kafka).start()
    join(write_wildly(ledger, WRITING_SECONDS))
    ledger.wait_published(120)
    check_published(ledger, real_kafka, topic_prefix)
    assert ledger.last_id() > len(ledger.messages()), "no transaction was rolled back"


def test_nothing_is_lost_beside_a_few_writers(ledger, broker, make_daemon):
    make_daemon(RELAY_ALONE).start()
    join(write_wildly(ledger, 4, clients=6))
    ledger.wait_published()
    check_published(ledger, broker)


# --- parts that die ---


def test_kafka_is_away_and_comes_back(ledger, broker, make_daemon):
    integration = ledger.integration()
    daemon = make_daemon(RELAY_ALONE).start()
    ledger.app.subscriptions(integration, 100)
    ledger.wait_published()
    broker.down()
    numbers = ledger.app.subscriptions(integration, 500, batch=10)
    ledger.query("update {s}.subscriptions set status = 'failed' where id = any(%s)", (numbers,))
    daemon.wait_log("could not reach Kafka")
    assert ledger.value("select high from {s}.relay_state") < ledger.last_id()
    broker.up()
    daemon.wait_log("Kafka answers again")
    ledger.wait_published()
    check_published(ledger, broker)
    assert len([line for line in daemon.log.splitlines() if "could not reach Kafka" in line]) == 1


def test_kafka_is_away_from_the_start(ledger, broker, make_daemon):
    broker.down()
    daemon = make_daemon(RELAY_ALONE).start()
    ledger.app.subscriptions(ledger.integration(), 50)
    daemon.wait_log("could not reach Kafka")
    broker.up()
    ledger.wait_published()
    check_published(ledger, broker)


def test_the_reason_is_said_as_soon_as_it_is_known(ledger, broker, make_daemon):
    """The first look may end without one: then there is a second line, and no third."""
    broker.stop()
    daemon = make_daemon(RELAY_ALONE).start()
    ledger.app.subscriptions(ledger.integration(), 10)
    daemon.wait_log("could not reach Kafka")
    broker.cont()
    broker.down()
    daemon.wait_log("could not reach Kafka: .*(refused|[Dd]isconnected)")
    broker.up()
    ledger.wait_published()
    lines = [line for line in daemon.log.splitlines() if "could not reach Kafka" in line]
    assert len(lines) == 2 and "refused" not in lines[0], lines


def refuse_the_password(listener, may_answer):
    """A broker as far as a password goes, which it refuses, each time when it may."""
    def answer(connection):
        with contextlib.suppress(OSError, struct.error), connection, connection.makefile("rb") as stream:
            while True:
                length, = struct.unpack(">i", stream.read(4))
                api, version, number = struct.unpack(">hhi", stream.read(length)[:8])
                if api == 18:  # ApiVersions, whose version 0 only is known
                    apis = ((0, 3, 7), (3, 0, 4), (17, 0, 1), (18, 0, 0), (36, 0, 0))
                    body = struct.pack(">hi", 35 if version > 0 else 0, len(apis))
                    body += b"".join(struct.pack(">hhh", *a) for a in apis)
                elif api == 17:
                    body = struct.pack(">hih", 0, 1, 5) + b"PLAIN"
                else:
                    may_answer.wait(60)
                    words = b"Authentication failed: Invalid username or password"
                    body = struct.pack(">hh", 58, len(words)) + words + struct.pack(">i", 0)
                connection.sendall(struct.pack(">ii", len(body) + 4, number) + body)
    with contextlib.suppress(OSError):
        while True:
            threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


@pytest.mark.parametrize("at_once", [True, False], ids=["before the first look ends", "after it"])
def test_a_refused_password_is_said(ledger, make_daemon, at_once):
    """With Kafka's own words, once; when the broker takes longer than the first look, in a second line."""
    may_answer = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=refuse_the_password, args=(listener, may_answer), daemon=True).start()
        kafka = {"brokers": f"127.0.0.1:{listener.getsockname()[1]}", "security_protocol": "sasl_plaintext",
                 "sasl_mechanism": "PLAIN", "sasl_username": "anubis", "sasl_password": "wr0ng-word"}
        if at_once:
            may_answer.set()
        daemon = make_daemon({**RELAY_ALONE, "kafka": kafka}, kafka=None).start()
        daemon.wait_log("could not reach Kafka")
        may_answer.set()
        daemon.wait_log("could not reach Kafka: .*Invalid username or password")
        ledger.app.subscriptions(ledger.integration(), 10)
        assert daemon.term() == 0
        lines = [line for line in daemon.log.splitlines() if "could not reach Kafka" in line]
        assert len(lines) <= 2 and "Invalid username" in lines[-1] and "wr0ng-word" not in daemon.log, lines


def test_a_broker_that_hangs(ledger, broker, make_daemon):
    integration = ledger.integration()
    daemon = make_daemon(RELAY_ALONE).start()
    ledger.app.subscriptions(integration, 100)
    ledger.wait_published()
    broker.stop()
    ledger.app.subscriptions(integration, 100, batch=10)
    daemon.wait_log("could not reach Kafka: no answer")
    broker.cont()
    ledger.wait_published()
    check_published(ledger, broker)
    # Neither does it hold up a stop.
    broker.stop()
    ledger.app.subscriptions(integration, 100, batch=10)
    assert daemon.term(deadline=20) == 0
    broker.cont()
    daemon.start()
    ledger.wait_published()
    check_published(ledger, broker, once=False)


def certificate(folder):
    """A self-signed one for localhost and 127.0.0.1: (its file, file of key and certificate)."""
    key, cert, both = (os.path.join(folder, name) for name in ("key.pem", "cert.pem", "both.pem"))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", cert, "-days", "30",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"],
                   check=True, capture_output=True)
    with open(both, "w", encoding="ascii") as out:
        for name in (key, cert):
            with open(name, encoding="ascii") as f:
                out.write(f.read())
    return cert, both


@pytest.mark.real_kafka
def test_kafka_with_password_and_certificate(ledger, make_daemon):
    reason = java_missing()
    if reason:
        unavailable(reason)
    cert, both = certificate(scratch_folder())
    # PLAIN, because this Kafka and librdkafka 2.0 do not agree about SCRAM.
    listener = {"sasl.enabled.mechanisms": "PLAIN", "ssl.keystore.type": "PEM", "ssl.keystore.location": both,
                "plain.sasl.jaas.config": "org.apache.kafka.common.security.plain.PlainLoginModule required "
                                          "user_anubis=\"s3cr3t-word\";"}
    with RealKafka(listeners={"SASL_SSL": listener}) as kafka:
        settings = {"brokers": kafka.addresses["SASL_SSL"], "security_protocol": "sasl_ssl", "sasl_mechanism": "PLAIN",
                    "sasl_username": "anubis", "sasl_password": "wr0ng-word", "properties": {"ssl_ca_location": cert}}
        daemon = make_daemon({**RELAY_ALONE, "kafka": settings}, kafka=kafka.addresses["SASL_SSL"]).start()
        ledger.app.subscriptions(ledger.integration(), 20)
        daemon.wait_log("could not reach Kafka: .*(?i:authentication)", deadline=90)
        assert "wr0ng-word" not in daemon.log
        daemon.term()
        daemon.write(kafka={"sasl_password": "s3cr3t-word"})
        daemon.start()
        ledger.wait_published()
        check_published(ledger, kafka)
        assert "s3cr3t-word" not in daemon.log


@pytest.mark.real_kafka
@pytest.mark.timeout(600)
def test_real_kafka_is_killed_under_load(ledger, real_kafka, topic_prefix, make_daemon):
    make_daemon({**RELAY_ALONE, "kafka": {"topic_prefix": topic_prefix}}, kafka=real_kafka).start()
    with writing(ledger):
        for _ in range(2):
            wait_for_more(ledger, 200)
            real_kafka.kill9()
            real_kafka.start()
    ledger.wait_published(120)
    # The relay itself did not crash: not even a duplicate.
    check_published(ledger, real_kafka, topic_prefix)


def test_the_daemon_is_killed(ledger, broker, make_daemon):
    daemon = make_daemon(RELAY_ALONE).start()
    with writing(ledger):
        for _ in range(4):
            wait_for_more(ledger, 50)
            daemon.kill9()
            daemon.start()
    ledger.wait_published()
    check_published(ledger, broker, once=False)


def test_a_clean_stop_leaves_no_duplicate(ledger, broker, make_daemon):
    daemon = make_daemon(RELAY_ALONE).start()
    with writing(ledger):
        for _ in range(4):
            wait_for_more(ledger, 50)
            assert daemon.term() == 0
            daemon.start()
    ledger.wait_published()
    check_published(ledger, broker)


def test_postgres_and_its_backends_die(own_postgres, broker, make_daemon):
    server = own_postgres(settings={"fsync": "on"})
    database = server.create_database("relay")
    migrate(database)
    ledger = Ledger(database)
    integration = ledger.integration()
    make_daemon(RELAY_ALONE, database=database).start()
    for round_ in range(3):
        ledger.app.subscriptions(integration, 300, batch=10)
        if round_ == 0:
            server.terminate_backends("anubisd relay")
        elif round_ == 1:
            [pid] = wait_for(lambda: server.backends("anubisd relay"), 30, "the relay's session")
            server.kill_backend(pid)
        else:
            server.kill9()
            server.start()
        wait_for(lambda: server.value("select 1"), 60, "Postgres to be back")
    ledger.wait_published()
    check_published(ledger, broker, once=False)


def test_a_stalled_database_does_not_hang_the_relay(own_postgres, broker, make_daemon):
    server = own_postgres()
    database = server.create_database("relay")
    migrate(database)
    ledger = Ledger(database)
    integration = ledger.integration()
    daemon = make_daemon({**RELAY_ALONE, "database": {"statement_timeout": "2s"}}, database=database).start()
    ledger.app.subscriptions(integration, 10)
    ledger.wait_published()
    [pid] = server.backends("anubisd relay")
    os.kill(pid, signal.SIGSTOP)
    ledger.app.subscriptions(integration, 10)
    # The lock is the stalled session's until it dies; then another one leads.
    wait_for(lambda: len(server.backends("anubisd relay")) > 1, 60, "a second session")
    os.kill(pid, signal.SIGCONT)
    ledger.wait_published()
    check_published(ledger, broker, once=False)
    assert daemon.is_running()


def test_rows_committed_asynchronously_cannot_be_taken_back(own_postgres, broker, make_daemon):
    """What is in Kafka is on Postgres's disk, whatever the application's synchronous_commit is."""
    server = own_postgres(settings={"wal_writer_delay": "10s", "fsync": "on", "synchronous_commit": "off"})
    database = server.create_database("relay")
    migrate(database)
    ledger = Ledger(database)
    integration = ledger.integration()
    make_daemon(RELAY_ALONE, database=database).start()
    for _ in range(5):
        numbers = ledger.app.subscriptions(integration, 3)
        wait_for(lambda n=numbers: str(n[-1]) in {m.key for m in broker.read_all("anubis.subscriptions.created")}, 60,
                 "the event in Kafka", interval=0.001)
        server.kill9()
        server.start()
        found = {r[0] for r in ledger.query("select id from {s}.subscriptions")}
        assert {int(m.key) for m in broker.read_all("anubis.subscriptions.created")} <= found
    ledger.wait_published()
    check_published(ledger, broker, once=False)


# --- one leader ---


def test_two_daemons_one_leader(ledger, broker, make_daemon):
    integration = ledger.integration()
    first = make_daemon(RELAY_ALONE).start()
    first.wait_log("the relay leads")
    second = make_daemon(RELAY_ALONE).start()
    ledger.app.subscriptions(integration, 200, batch=5)
    ledger.wait_published()
    assert "the relay leads" not in second.log
    assert ledger.value("select leader from {s}.relay_state") == "anubisd1"
    epoch = ledger.value("select epoch from {s}.relay_state")
    ledger.app.subscriptions(integration, 200, batch=5)
    first.kill9()
    second.wait_log("the relay leads")
    ledger.app.subscriptions(integration, 200, batch=5)
    ledger.wait_published()
    assert ledger.value("select leader from {s}.relay_state") == "anubisd2"
    assert ledger.value("select epoch from {s}.relay_state") > epoch
    check_published(ledger, broker, once=False)


@pytest.mark.slow
def test_a_leader_that_is_frozen_loses_the_lead(ledger, broker, make_daemon):
    """Its sessions live on, and keep the locks of relay, alerts and retention: they are ended, and it takes no harm."""
    integration = ledger.integration()
    first = make_daemon(RELAY_ALONE).start()
    first.wait_log("the relay leads")
    leads = ("select array_agg(distinct a.application_name) from pg_locks l join pg_stat_activity a using (pid) "
             "where locktype = 'advisory' and granted "
             "and (classid::bigint << 32) | objid::bigint in ({s}.lock_key('relay'), {s}.lock_key('alerts'), "
             "{s}.lock_key('retention'))")
    wait_for(lambda: len(ledger.value(leads)) == 3, 60, "the locks")
    sessions = leads.replace("distinct a.application_name", "distinct pid")
    before = set(ledger.value(sessions))
    second = make_daemon(RELAY_ALONE).start()
    ledger.app.subscriptions(integration, 200, batch=5)
    ledger.wait_published()
    first.stop()
    ledger.app.subscriptions(integration, 200, batch=5)
    second.wait_log(r'of the daemon "anubisd1", has been silent for a minute: .* Its session \(\d+\) was ended', 120)
    second.wait_log("the relay leads")
    second.wait_log("the daemon that looks for alerts has been silent for a minute", 60)
    wait_for(lambda: len(set(ledger.value(sessions)) - before) == 3, 120, "all locks to be the other daemon's")
    ledger.wait_published()
    first.cont()
    first.wait_log("gave up the lead", 60)
    ledger.app.subscriptions(integration, 200, batch=5)
    ledger.wait_published()
    check_published(ledger, broker, once=False)
    assert first.is_running() and second.term() == 0


def test_topics_of_another_name_are_said(ledger, make_daemon):
    """By the daemon that does not publish, with both names; and by the one that publishes elsewhere than before."""
    first, like, other = (make_daemon({**RELAY_ALONE, "kafka": {"topic_prefix": p}}) for p in ("one.", "one.", "two."))
    first.start().wait_log("the relay leads")
    ledger.app.subscriptions(ledger.integration(), 10)
    ledger.wait_published()
    like.start()
    other.start().wait_log('the daemon "anubisd1" publishes .* begin with "one.", .* begin with "two.": set kafka.topic_prefix')
    like.term()
    first.term()
    other.wait_log('topics that begin with "two." from now on, and no longer to those with "one."')
    ledger.app.subscriptions(ledger.integration(), 10)
    ledger.wait_published()
    other.term()
    assert other.log.count("kafka.topic_prefix") == 2 and "kafka.topic_prefix" not in first.log + like.log
    other.start().wait_log("the relay leads")
    other.term()
    assert "kafka.topic_prefix" not in other.log


@pytest.mark.parametrize("later", [5, 0])
def test_what_was_not_read_of_former_topics_is_counted_when_asked_for(ledger, make_daemon, institutions, broker, later):
    """Another topic_prefix while the groups are behind: the journal names the command, and then nothing is missing. Also where
    the groups stand at the beginning of the new topics, to which they are set back."""
    integration = ledger.app.integration(institutions.url("/good"))
    before, after = ({"kafka": {"topic_prefix": prefix}} for prefix in ("one.", "two."))
    daemon = make_daemon({**RELAY_ALONE, **before}).start()
    ledger.app.subscriptions(integration, 20)
    ledger.app.wait_states(sent=20)
    ledger.wait_published()
    daemon.term()
    ctl = Ctl(after, database=ledger.app.database, kafka=broker)
    assert "has not read anything yet" in ctl("replay", "--group", "integration").expect(1).stdout
    daemon = make_daemon(merged(after, {"consumers": {"session_timeout": "6s", "heartbeat_interval": "500ms"}})).start()
    daemon.wait_log('no longer to those with "one."[^\n]* is published again after "anubisctl replay --group NAME"')
    ledger.app.subscriptions(integration, later)
    ledger.app.wait_states(sent=20 + later)
    wait_for(lambda: ctl("verify", "--json", at_once=True).json["unhandled"] == 40, 60, "the rest to be handled")
    wait_for(lambda: ledger.value("select count(distinct read_model) from {s}.consumer_offsets") == 3, 60, "all groups to begin")
    assert not later or "replay --group monitoring" in ctl("verify").expect(2).stdout
    for group in ("integration", "external", "monitoring"):
        ctl("replay", "--group", group).expect(0)
    wait_for(lambda: ctl("verify").code == 0, 90, lambda: f"the proof: {ctl('verify')}", interval=0.5)
    assert ledger.value("select sum(sent) from {s}.integration_runtime") == 20 + later
    assert ledger.value("select count(*) from {s}.audit_log") == 3 * (20 + later)
    assert daemon.term() == 0


def test_a_session_that_is_no_daemon_and_has_the_leaders_lock_is_named(ledger, broker, make_daemon, ctl):
    """Another program may use the same number. It is not taken for a daemon that leads."""
    stranger = ledger.app.database.connect(autocommit=True)
    cursor = stranger.cursor()
    cursor.execute("set application_name = 'nightly report'; select pg_backend_pid()")
    pid = cursor.fetchone()[0]
    for kind in ("relay", "alerts"):
        cursor.execute("select pg_advisory_lock(anubis.lock_key(%s))", (kind,))
    daemon = make_daemon(RELAY_ALONE).start()
    words = (rf'held by session {pid} of role "postgres", named "nightly report", which is no daemon: '
             rf'run "(select pg_terminate_backend\({pid}\))"')
    helps = daemon.wait_log("no daemon can lead, and no event is published: the lock for it is " + words, 30)[1]
    daemon.wait_log("no daemon can look for alerts: the lock for it is " + words, 30)
    assert re.search("NO DAEMON CAN LEAD: the lock for it is " + words, re.sub(r"\s+", " ", ctl("status").stdout))
    assert ctl("status", "--json").json["relay_leader"] is None
    assert "daemon \"\" leads" not in daemon.log
    ledger.app.subscriptions(ledger.integration(), 5)
    ledger.query(helps)
    ledger.wait_published()
    assert ctl("status", "--json").json["relay_lock_held_by"] is None
    assert daemon.term() == 0
    stranger.close()


def test_a_former_leader_is_fenced_off(ledger, broker, make_daemon):
    integration = ledger.integration()
    daemon = make_daemon(RELAY_ALONE).start()
    ledger.app.subscriptions(integration, 10)
    ledger.wait_published()
    ledger.query("update {s}.relay_state set epoch = epoch + 1, leader = 'another'")
    ledger.app.subscriptions(integration, 10)
    daemon.wait_log('the relay of the daemon "another" has taken the lead')
    ledger.wait_published()
    check_published(ledger, broker, once=False)


# --- databases that were restored ---


def test_a_restored_database_forgets_horizons(ledger, broker, make_daemon):
    """As after a dump: another system identifier, transaction ids that start anew, ids that were drawn and never came."""
    integration = ledger.integration()
    daemon = make_daemon(RELAY_ALONE).start()
    ledger.app.subscriptions(integration, 10)
    ledger.wait_published()
    daemon.term()
    ledger.query("update {s}.relay_state set system_identifier = 1, timeline = 77, high = 5000, gap_first = '{4000}', "
                 "gap_last = '{4001}', gap_horizon = '{99999999999}'")
    ledger.query("delete from {s}.relay_saved")
    ledger.query("select setval('{s}.ledger_id_seq', 5000)")
    daemon.start()
    daemon.wait_log("restored or promoted")
    wait_for(lambda: ledger.value("select gap_first = '{}' from {s}.relay_state"), 30, "the gap to be given up")
    # No id is given out again.
    ledger.app.subscriptions(integration, 10)
    assert ledger.value("select min(id) from {s}.subscription_events where id > 100") > 5000
    ledger.wait_published()
    assert ledger.value("select system_identifier = (select system_identifier from pg_control_system()) from {s}.relay_state")
    check_published(ledger, broker)


NO_GAPS = "gap_first = '{}', gap_last = '{}', gap_horizon = '{}'"


@pytest.mark.parametrize("change", ["high = high + 1000", "high = high + 7, epoch = epoch + 9, updated_at = now(), " + NO_GAPS,
                                    "high = high + 7", NO_GAPS])
def test_a_position_that_was_set_ahead_leaves_no_event_out(ledger, broker, make_daemon, change):
    """By a hand, or as the table comes from a later time, while an open transaction keeps a gap open and events wait."""
    integration = ledger.integration()
    daemon = make_daemon(RELAY_ALONE).start()
    ledger.app.subscriptions(integration, 10)
    writer = ledger.connect()
    writer.cursor().execute("insert into subscriptions (integration_id) values (%s)", (integration,))
    ledger.app.subscriptions(integration, 10)
    ledger.wait_published_but_gaps()
    daemon.term()
    writer.commit()
    writer.close()
    ledger.app.subscriptions(integration, 20)
    if "1000" in change:
        ledger.query("select setval('{s}.ledger_id_seq', last_value + 2000) from {s}.ledger_id_seq")
    ledger.query("update {s}.relay_state set " + change)
    daemon.start()
    daemon.wait_log(r"warning: somebody has set the relay's position ahead \(relay_state, up to ledger id \d+\)")
    ledger.wait_published()
    check_published(ledger, broker, once=False)
    # Back is what an operator may want.
    daemon.term()
    ledger.query("update {s}.relay_state set high = 0, " + NO_GAPS)
    daemon.start()
    ledger.wait_published()
    assert "set the relay's position ahead" not in daemon.log
    check_published(ledger, broker, once=False)


def test_events_with_ids_that_the_relay_has_behind_it_are_published(ledger, broker, make_daemon):
    """The sequence is set back under a running daemon, into ids that nobody had."""
    integration = ledger.integration()
    daemon = make_daemon(RELAY_ALONE).start()
    ledger.app.subscriptions(integration, 10)
    before = ledger.last_id()
    ledger.query("select nextval('{s}.ledger_id_seq') from generate_series(1, 20)")
    ledger.app.subscriptions(integration, 10)
    ledger.wait_published()
    ledger.query("select setval('{s}.ledger_id_seq', %s)", (before + 5,))
    ledger.app.subscriptions(integration, 3)
    assert ledger.value("select count(*) from {s}.subscription_events where id between %s and %s", (before + 6, before + 8)) == 3
    ledger.query(daemon.wait_log('ids would be given out twice: .*; run "(.*)"')[1])
    ledger.app.subscriptions(integration, 3)
    wait_for(lambda: broker.count("anubis.subscriptions.created") >= 26, 30, "all to be published")
    ledger.wait_published()
    check_published(ledger, broker)


@pytest.mark.parametrize("running", [True, False], ids=["under the daemon", "without it"])
def test_a_hole_that_is_filled_before_anybody_looks(ledger, broker, make_daemon, ctl, running):
    """The sequence is set back into ids that nobody had, and when somebody looks, it is past all that there are."""
    integration = ledger.integration()
    daemon = make_daemon(RELAY_ALONE).start()
    ledger.app.subscriptions(integration, 10)
    before = ledger.last_id()
    ledger.query("select nextval('{s}.ledger_id_seq') from generate_series(1, 20)")
    ledger.app.subscriptions(integration, 1)
    ledger.wait_published()
    if not running:
        daemon.term()
    ledger.query("select setval('{s}.ledger_id_seq', %s)", (before + 5,))
    while ledger.value("select last_value from {s}.ledger_id_seq") < before + 30:
        try:
            ledger.app.subscriptions(integration, 1)
        except psycopg2.Error:
            pass  # the id of the last one
    written = ledger.value("select count(*) from {s}.subscription_events")
    first, last = before + 6, before + 20
    assert ledger.value("select count(*) from {s}.subscription_events where id between %s and %s", (first, last)) == 15
    if not running:
        proof = ctl("verify", "--json").expect(2).json
        assert proof["passed"] == 15 and proof["unpublished"] == written - 11
        assert f"15 events came with ledger ids that the relay had passed because nobody had them ({first} to {last})" in \
            ctl("verify").expect(2).stdout
        daemon.start()
    daemon.wait_log("events have ledger ids that the relay had passed because nobody had them")
    wait_for(lambda: broker.count("anubis.subscriptions.created") >= written, 30, "all to be published")
    ledger.wait_published()
    check_published(ledger, broker)
    assert ctl("verify", "--json").expect(2).json["passed"] == 0
    holes = ledger.query("select first_id, last_id from {s}.relay_holes where first_id <= %s", (last,))
    assert holes == [(before + 1, first - 1)]


def test_a_new_timeline_gives_no_id_out_twice(own_postgres, broker, make_daemon):
    """As when a standby is promoted that lacks the end: here the ids that were drawn last are lost."""
    server = own_postgres()
    database = server.create_database("relay")
    migrate(database)
    ledger = Ledger(database)
    integration = ledger.integration()
    daemon = make_daemon(RELAY_ALONE, database=database).start()
    ledger.app.subscriptions(integration, 50)
    ledger.wait_published()
    published = ledger.last_id()
    ledger.query("select setval('{s}.ledger_id_seq', 20)")
    server.set_back(server.save())
    daemon.wait_log("restored or promoted since the last event was published. Ledger ids go on at 20000000001")
    assert "given out twice:" not in daemon.log
    ledger.app.subscriptions(integration, 10)
    ledger.wait_published()
    assert ledger.value("select min(id) from {s}.subscription_events where id > %s", (published,)) == 20000000001
    assert ledger.query("select first_id, last_id from {s}.ledger_leaps") == [(21, 20000000000)]
    check_published(ledger, broker)
    assert ledger.value("select timeline from {s}.relay_state") == 2


# --- a Kafka that lost what it had ---


def test_what_another_kafka_lacks_is_published_again(ledger, make_daemon, institutions, ctl, broker):
    """Where the groups were never on, nobody can tell that anything is gone: by an operator's word it comes again, once. Where
    they were, Kafka has no offset of them, and it comes by itself."""
    integration = ledger.app.integration(institutions.url("/good"))
    counting = {"consumers": {"session_timeout": "6s", "heartbeat_interval": "500ms"}}
    off = merged(RELAY_ALONE, counting)
    topic = "anubis.subscriptions.sent"

    def send(daemon, count, total):
        ledger.app.subscriptions(integration, count)
        ledger.app.wait_states(sent=total)
        ledger.wait_published()

    def counted(expected):
        wait_for(lambda: ledger.value("select coalesce(sum(sent), 0) from {s}.integration_runtime") == expected, 60,
                 lambda: f"{expected} to be counted: {ledger.value('select sum(sent) from {s}.integration_runtime')}")

    def looked():
        wait_for(lambda: not ledger.value("select exists (select from {s}.consumer_offsets where unread_until is not null) or "
                                          "exists (select from {s}.relay_holes where unread)"), 60, "the look at what is unread")

    def come_again(daemon, missing, total, cluster):
        counted(total)
        daemon.wait_log(rf'{missing} events of "{topic}", .* had left Kafka before they were read')
        wait_for(lambda: ctl("verify", "--json", at_once=True).json["unhandled"] == 0, 60, "all to be handled", interval=0.3)
        messages = cluster.read_all(topic)
        assert len(messages) == len({m.headers["sequence"] for m in messages}) == 10 + missing
        elsewhere = "select 1 from unnest(%s::bigint[], %s::int[]) m (id, number) where {s}.key_partition(id, 3) <> number"
        assert ledger.query(elsewhere, ([int(m.key) for m in messages], [m.partition for m in messages])) == []

    def proven(cluster, count):
        wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof:\n{ctl('verify')}", interval=0.3)
        assert cluster.count(topic) == count

    daemon = make_daemon(off).start()
    send(daemon, 40, 40)
    daemon.term()
    with EmbeddedBroker() as second:  # the groups were never on
        daemon = make_daemon(counting, kafka=second).start()
        send(daemon, 10, 50)
        counted(10)
        assert second.count(topic) == 10 and "to be handled" in ctl("verify").expect(2).stdout
        ctl("replay", "--group", "integration").expect(0)
        come_again(daemon, 40, 50, second)
        # The audit log has events that no counter holds.
        assert "replay --group monitoring" in ctl("verify").expect(2).stdout
        ctl("replay", "--group", "monitoring").expect(0)
        proven(second, 50)
        daemon.term()
        daemon = make_daemon(off, kafka=second).start()
        send(daemon, 30, 80)
        daemon.term()
    with EmbeddedBroker() as third:  # they were, and have handled some
        daemon = make_daemon(counting, kafka=third).start()
        send(daemon, 10, 90)
        daemon.wait_log("Kafka has no offset of this group.*such events are published again")
        come_again(daemon, 30, 90, third)
        proven(third, 40)
        looked()
        ctl("replay", "--group", "integration").expect(0)  # nothing is missing: nothing is published again
        looked()
        assert third.count(topic) == 40
        daemon.term()


@pytest.mark.real_kafka
@pytest.mark.parametrize("was", ["off", "stopped"])
def test_retention_passes_a_group_that_was_away(ledger, real_kafka, topic_prefix, make_daemon, institutions, was):
    integration = ledger.app.integration(institutions.url("/good"))
    settings = {"kafka": {"topic_prefix": topic_prefix},
                "consumers": {"group_prefix": topic_prefix.strip("."), "session_timeout": "6s", "heartbeat_interval": "500ms"}}
    away = merged(settings, {"consumers": {"integration": False}})
    ctl = Ctl(settings, database=ledger.database, kafka=real_kafka)
    total = 0

    def send(count):
        nonlocal total
        total += count
        ledger.app.subscriptions(integration, count)
        ledger.app.wait_states(sent=total, deadline=60)
        ledger.wait_published()

    def counted():
        return ledger.value("select coalesce(sum(sent), 0)::int from {s}.integration_runtime")

    if was == "stopped":
        daemon = make_daemon(settings, kafka=real_kafka).start()
        send(20)
        wait_for(lambda: counted() == 20, 60, "the first ones to be counted")
        daemon.term()
    daemon = make_daemon(away, kafka=real_kafka).start()
    send(100)
    gone = real_kafka.delete_records(topic_prefix + "subscriptions.sent")
    assert len(gone) == 3
    daemon.term()
    daemon = make_daemon(settings, kafka=real_kafka).start()
    send(20)
    wait_for(lambda: counted() == total, 60, lambda: f"{total} to be counted, now {counted()}")
    wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof:\n{ctl('verify')}", interval=0.3)
    # Those that any of the groups had not read, in one look or in several.
    said = re.findall(r'(\d+) events of "\S+subscriptions.sent", .* had left Kafka before they were read', daemon.log)
    again = sum(map(int, said))
    assert 97 <= again <= total - 20
    # Nothing else was published again.
    assert sum(high for _, high in real_kafka.watermarks(topic_prefix + "subscriptions.sent").values()) == total + again
    assert counted() == total


def publish_again_since(time):
    """The statement of anubisctl(8)."""
    with open(os.path.join(ROOT, "man/anubisctl.8"), encoding="utf-8") as f:
        statement = re.search(r"(?ms)^(UPDATE anubis\.relay_state .*?;)$", f.read()).group(1)
    return re.sub(r"'\d{4}-.*?'", f"'{time}'", statement)


def test_events_are_published_again_since_a_time(ledger, broker, make_daemon, institutions, ctl):
    """For other consumers, when Kafka has lost its data; a transaction that holds ids open meanwhile loses nothing."""
    integration = ledger.app.integration(institutions.url("/good"))
    daemon = make_daemon().start()
    ledger.app.subscriptions(integration, 100)
    ledger.app.wait_states(sent=100)
    ledger.wait_published()
    began = ledger.value("select date_trunc('second', min(created_at)) at time zone 'UTC' from {s}.subscription_events")
    with contextlib.closing(ledger.connect()) as late:
        ledger.app.subscriptions(integration, 10, connection=late)
        ledger.app.subscriptions(integration, 10)
        wait_for(lambda: ledger.value("select gap_first <> '{}' from {s}.relay_state"), 30, "the gap to be seen")
        ledger.query(publish_again_since(f"{began}Z"))
        ledger.app.subscriptions(integration, 10)
        wait_for(lambda: ledger.value("select successful_sends from {s}.integrations") == 120, 60, "those behind to be counted")
        late.commit()
    ledger.app.wait_states(sent=130)
    wait_for(lambda: ctl("verify").code == 0, 60, "the proof")
    wait_for(lambda: broker.count("anubis.subscriptions.sent") >= 230, 60, "all to be published once more")
    daemon.term()
    check_published(ledger, broker, once=False)
    ledger.query(publish_again_since(f"{began}Z"))
    daemon.start()
    wait_for(lambda: broker.count("anubis.subscriptions.sent") >= 360, 60, "all to be published once more")
    wait_for(lambda: ctl("verify").code == 0, 60, "the proof")
    assert ledger.value("select successful_sends from {s}.integrations") == 130


# --- topics ---


@pytest.mark.real_kafka
def test_topics_are_made_and_grow(ledger, real_kafka, topic_prefix, make_daemon):
    integration = ledger.integration()
    daemon = make_daemon({**RELAY_ALONE, "kafka": {"topic_prefix": topic_prefix}}, kafka=real_kafka).start()
    numbers = ledger.app.subscriptions(integration, 60)
    ledger.wait_published()
    made = {t[len(topic_prefix):]: n for t, n in real_kafka.topics().items() if t.startswith(topic_prefix)}
    assert made == {**EVENT_TOPICS, "alerts": 1, "dead_letters": 1, "metrics": 1, "confirmations": 1, "audit": 1}
    check_published(ledger, real_kafka, topic_prefix)
    old = ledger.last_id()

    daemon.term()
    topic = topic_prefix + "subscriptions.created"
    real_kafka.create_partitions(topic, 7)
    daemon.start()
    counts = "select from_sequence, partitions from {s}.relay_topics where topic = %s order by 1"
    wait_for(lambda: ledger.query(counts, (topic,)) == [(0, 3), (old + 1, 7)], 30, "the new count to be written down")
    ledger.app.subscriptions(integration, 60)
    ledger.wait_published()

    # Published again, each event lands where it was.
    daemon.term()
    ledger.query("update {s}.relay_state set high = 0")
    daemon.start()
    ledger.wait_published()
    for m in real_kafka.read_all(topic):
        assert m.partition == zlib.crc32(m.key.encode()) % (3 if sequence(m) <= old else 7)
    assert real_kafka.count(topic) == 240
    assert len(numbers) == 60


@pytest.mark.real_kafka
def test_topic_that_grows_under_a_batch(app, real_kafka, topic_prefix, make_daemon, database):
    """What was published, but not yet written down, is published again to the same partitions, and counts once."""
    integration = app.integration("http://127.0.0.1:9/nowhere", enabled=False)
    topic = topic_prefix + "subscriptions.sent"
    daemon = make_daemon({"kafka": {"topic_prefix": topic_prefix}, "database": {"statement_timeout": "3s"}},
                         kafka=real_kafka).start()
    wait_for(lambda: topic in real_kafka.topics(), 30, "the topics")
    sent = 0

    def published():
        return real_kafka.count(topic) >= sent
    for _ in range(10):
        app.subscriptions(integration, 60)
        last = app.value("select max(id) from {s}.subscription_events")
        wait_for(lambda: app.value("select high >= %s from {s}.relay_state", (last,)), 30)
        time.sleep(1)
        lock = database.connect(autocommit=False)
        lock.cursor().execute("select from anubis.relay_state for update")
        sent += app.query("update {s}.subscriptions set status = 'sent' where status = 'pending'")
        until = time.monotonic() + 2
        while not published() and time.monotonic() < until:
            time.sleep(0.1)
        if published():
            break
        lock.rollback()
        wait_for(published, 30)
    else:
        pytest.skip("nothing was published while the books were locked")
    real_kafka.create_partitions(topic, 7)
    daemon.wait_log("the relay could not use the database")
    lock.rollback()
    lock.close()
    wait_for(lambda: real_kafka.count(topic) == sent + 60, 60, "the batch to be published again")
    wait_for(lambda: app.value("select high >= (select max(id) from {s}.subscription_events) from {s}.relay_state"), 30)
    app.subscriptions(integration, 60)
    sent += app.query("update {s}.subscriptions set status = 'sent' where status = 'pending'")
    wait_for(lambda: app.value("select successful_sends >= %s from {s}.integrations", (sent,)), 60, "the counter")
    time.sleep(2)
    assert app.value("select successful_sends from {s}.integrations") == sent


def test_a_forbidden_topic_is_no_missing_one(ledger, broker, make_daemon, institutions, ctl):
    broker.refuse_topic("anubis.subscriptions.sent", 29)
    daemon = make_daemon(RELAY_ALONE).start()
    daemon.wait_log('alert: the relay cannot publish: Kafka forbids topic "anubis.subscriptions.sent" to this client: '
                    "let its user Describe and Write the topic")
    said = wait_for(lambda: re.search("WAITS: a topic is forbidden since .*Z; .*Describe and Write", ctl("status").stdout))
    assert said and "no topic" not in daemon.log
    ledger.app.subscriptions(ledger.app.integration(institutions.url("/good")), 20)
    ledger.app.wait_states(sent=20)
    broker.refuse_topic("anubis.subscriptions.sent", 0)
    daemon.wait_log("the relay's topics are there")
    ledger.wait_published()
    wait_for(lambda: (j := ctl("status", "--json").json) and j["relay_waits_for"] is None is j["relay_waits_since"],
             what="the end of it")


STALLS = {"replicas": "warning: Kafka answers, but takes no events: perhaps fewer copies of a partition are in sync than min",
          "position": "warning: the relay could not use the database: canceling statement",
          "books": "warning: the relay could not use the database: canceling statement",
          "topics": "warning: the relay could not use the database: canceling statement"}


@pytest.mark.parametrize("stall", STALLS)
def test_no_stall_is_silent(ledger, broker, make_daemon, institutions, ctl, stall):
    """Too few replicas in sync; somebody holds the row of the position; or a table that the relay writes or reads."""
    daemon = make_daemon(RELAY_ALONE).start()
    integration = ledger.app.integration(institutions.url("/good"))
    ledger.app.subscriptions(integration, 20)
    ledger.wait_published()
    holder = ledger.app.database.connect(autocommit=False)
    if stall == "replicas":
        broker.error(0, 19, 100000)
    else:
        holder.cursor().execute({"position": "select from anubis.relay_state for update",
                                 "books": "lock table anubis.relay_reached",
                                 "topics": "lock table anubis.relay_holes"}[stall])
    wait_for(lambda: ledger.app.subscriptions(integration, 5) and re.search(STALLS[stall], daemon.log), 60, STALLS[stall],
             interval=1)
    if stall == "replicas":
        wait_for(lambda: "WAITS: Kafka is away since " in ctl("status").stdout, 30, lambda: ctl("status").stdout)
        daemon.wait_log("notice: Kafka answers, and has taken none of [0-9]+ events for [0-9]+ s: the client starts over", 60)
        assert "Kafka answers again" not in daemon.log
        broker.command("clear 0")
        daemon.wait_log("Kafka answers again", 60)
    else:
        wait_for(lambda: "WAITS: " in ctl("status").stdout, 30, lambda: ctl("status").stdout)
    holder.rollback()
    holder.close()
    ledger.wait_published()
    wait_for(lambda: ctl("status", "--json").json["relay_waits_for"] is None, 30, "the end of it")
    assert max(daemon.log.count(f"warning: the relay {words}") for words in ("waits for the database", "could not use")) <= 1
    assert len(re.findall("the database answers the relay again|the relay can use the database again", daemon.log)) <= 1


def test_a_partition_that_no_broker_leads_is_named(ledger, broker, make_daemon, institutions, ctl):
    """Kafka is there, and another daemon would be no better off."""
    topic = "anubis.subscriptions.sent"
    daemon = make_daemon({**RELAY_ALONE, "log_level": "info"}).start()
    integration = ledger.app.integration(institutions.url("/good"))
    ledger.app.subscriptions(integration, 20)
    ledger.wait_published()
    for partition in (1, 2):
        broker.lead(topic, partition, -1)
    ledger.app.subscriptions(integration, 20)
    ledger.app.wait_states(sent=40)
    daemon.wait_log(rf'the relay waits for Kafka: no broker leads partition 1 of topic "{topic}" \(2 such partitions\)', 60)
    wait_for(lambda: "WAITS: no partition leader since " in ctl("status").stdout, 30, lambda: ctl("status").stdout)
    assert "could not reach Kafka" not in daemon.log
    for partition in (1, 2):
        broker.lead(topic, partition, 1)
    daemon.wait_log("Kafka answers again", 60)
    ledger.wait_published()
    assert ctl("status", "--json").json["relay_waits_for"] is None
    check_published(ledger, broker)


def test_kafka_is_not_back_while_a_partition_has_no_leader(ledger, broker, make_daemon, ctl):
    """A broker comes back, and some events get through; those of the partition that another one leads do not."""
    topic = "anubis.subscriptions.created"
    daemon = make_daemon({**RELAY_ALONE, "log_level": "info"}).start()
    integration = ledger.integration()
    ledger.app.subscriptions(integration, 20)
    ledger.wait_published()
    broker.down()
    ledger.app.subscriptions(integration, 20)
    daemon.wait_log("trying again. Deliveries go on, events wait in the ledger", 60)
    broker.lead(topic, 1, -1)
    broker.up()
    daemon.wait_log(f'the relay waits for Kafka: no broker leads partition 1 of topic "{topic}"', 60)
    wait_for(lambda: "WAITS: no partition leader since " in ctl("status").stdout, 30, lambda: ctl("status").stdout)
    assert "Kafka answers again" not in daemon.log
    broker.lead(topic, 1, 1)
    daemon.wait_log("Kafka answers again", 60)
    ledger.wait_published()
    assert daemon.log.count("Kafka answers again") == 1
    assert ctl("status", "--json").json["relay_waits_for"] is None
    check_published(ledger, broker)


@pytest.mark.real_kafka
def test_topics_that_may_not_be_made_are_waited_for(ledger, real_kafka, topic_prefix, make_daemon, institutions):
    integration = ledger.app.integration(institutions.url("/good"))
    daemon = make_daemon({**RELAY_ALONE, "kafka": {"topic_prefix": topic_prefix, "create_topics": False}},
                         kafka=real_kafka).start()
    daemon.wait_log(rf'there is no topic "{topic_prefix}subscriptions.created", and kafka.create_topics is off')
    ledger.app.subscriptions(integration, 20)
    ledger.app.wait_states(sent=20)
    for topic, partitions in EVENT_TOPICS.items():
        real_kafka.create_topic(topic_prefix + topic, partitions)
    daemon.wait_log("the relay's topics are there")
    ledger.wait_published()
    check_published(ledger, real_kafka, topic_prefix)


@pytest.mark.real_kafka
def test_a_topic_that_is_deleted_is_made_again(ledger, real_kafka, topic_prefix, make_daemon):
    integration = ledger.integration()
    make_daemon({**RELAY_ALONE, "kafka": {"topic_prefix": topic_prefix}}, kafka=real_kafka).start()
    ledger.app.subscriptions(integration, 30)
    ledger.wait_published()
    old = ledger.last_id()
    real_kafka.delete_topic(topic_prefix + "subscriptions.created")
    ledger.app.subscriptions(integration, 30)
    ledger.query("update {s}.subscriptions set status = 'failed'")
    ledger.wait_published(180)
    check_published(ledger, real_kafka, topic_prefix, once=False, before=old)


@pytest.mark.real_kafka
def test_an_event_that_kafka_refuses_stops_the_relay(ledger, real_kafka, topic_prefix, make_daemon):
    integration = ledger.integration()
    daemon = make_daemon({**RELAY_ALONE, "kafka": {"topic_prefix": topic_prefix}}, kafka=real_kafka).start()
    ledger.app.subscriptions(integration, 20)
    ledger.wait_published()
    topic = topic_prefix + "subscriptions.sent"
    set_topic(real_kafka, topic, {"max.message.bytes": "20000"})
    ledger.query("update {s}.subscriptions set status = 'processing', claim_token = 1")
    # Random, so that compression does not make it fit; small ones before and after it, on all partitions.
    noise = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=60000))
    for number in range(1, 21):
        ledger.query("update {s}.subscriptions set status = 'sent', claim_token = null, last_response = %s where id = %s",
                     (noise if number == 10 else "ok", number))
    ledger.app.subscriptions(integration, 20)
    refused = ledger.value("select id from {s}.subscription_events where event_type = 'sent' and subscription_id = 10")
    daemon.wait_log(rf"Kafka refuses event [0-9a-f-]+ \(ledger id {refused}, \d+ bytes\) on topic \"{topic}\"")
    assert ledger.query("select stopped_on from {s}.relay_state where stopped_reason ~ 'large'") == [(refused,)]
    assert ledger.value("select high from {s}.relay_state") < refused
    assert noise[:50] not in daemon.log
    set_topic(real_kafka, topic, {})
    ledger.wait_published()
    assert ledger.value("select stopped_on is null and stopped_reason is null from {s}.relay_state")
    check_published(ledger, real_kafka, topic_prefix, once=False)


@pytest.mark.real_kafka
def test_only_what_does_not_fit_alone_is_refused(ledger, real_kafka, topic_prefix, make_daemon):
    """Kafka refuses a batch whole: for its size, though each event of it fits, and for one event, which is the one to be
    named."""
    integration = ledger.integration()
    daemon = make_daemon({**RELAY_ALONE, "kafka": {"topic_prefix": topic_prefix}}, kafka=real_kafka).start()
    ledger.app.subscriptions(integration, 200)
    ledger.wait_published()
    topic = topic_prefix + "subscriptions.sent"
    set_topic(real_kafka, topic, {"max.message.bytes": "20000"})

    def send(first, last, large=None):
        """In one transaction, with random answers, so that compression does not make them fit."""
        chance = random.Random(first)
        connection = ledger.connect()
        cursor = connection.cursor()
        for number in range(first, last + 1):
            cursor.execute("update subscriptions set status = 'processing', claim_token = 1 where id = %s", (number,))
            cursor.execute("update subscriptions set status = 'sent', claim_token = null, last_response = %s where id = %s",
                           (chance.randbytes(30000 if number == large else 2000).hex(), number))
        connection.commit()
        connection.close()
    send(1, 100)
    ledger.wait_published()
    assert "Nothing is published until" not in daemon.log
    send(101, 200, large=160)
    refused = ledger.value("select id from {s}.subscription_events where event_type = 'sent' and subscription_id = 160")
    daemon.wait_log(r"Kafka refuses event [0-9a-f-]+ \(ledger id (\d+), ")
    assert set(re.findall(r"Kafka refuses event \S+ \(ledger id (\d+), ", daemon.log)) == {str(refused)}
    set_topic(real_kafka, topic, {})
    ledger.wait_published()
    check_published(ledger, real_kafka, topic_prefix, once=False)


@pytest.mark.real_kafka
def test_a_topic_that_refuses_the_time_of_messages(ledger, real_kafka, topic_prefix, make_daemon):
    """Clocks differ, or the topic is strict. What helps is said, nothing overtakes the event, and it goes out once it may."""
    integration = ledger.integration()
    topic = topic_prefix + "subscriptions.created"
    daemon = make_daemon({**RELAY_ALONE, "kafka": {"topic_prefix": topic_prefix}}, kafka=real_kafka).start()
    ledger.app.subscriptions(integration, 5)
    ledger.wait_published()
    set_topic(real_kafka, topic, {"message.timestamp.before.max.ms": "0"})

    def refused():
        ledger.app.subscription(integration)  # one that is quick enough is no message of the past
        return re.search(rf'alert: Kafka refuses event .* on topic "{topic}": the topic takes no message of this time, .* this '
                         r"machine's clock: .*message\.timestamp\.before\.max\.ms", daemon.log)
    wait_for(refused, 60, "the refusal", interval=0.2)
    set_topic(real_kafka, topic, {})
    ledger.wait_published()
    check_published(ledger, real_kafka, topic_prefix, once=False)


def set_topic(kafka, topic, settings):
    """These settings, and the defaults of all others."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic, settings)
    for future in admin.alter_configs([resource]).values():
        future.result(30)


# --- what the rule rests on ---


def test_the_schema_keeps_the_relays_conditions(ledger):
    # The sequence gives ids out one at a time.
    assert ledger.value("select seqcache from pg_sequence where seqrelid = 'anubis.ledger_id_seq'::regclass") == 1
    # Whoever draws an id has a transaction id before.
    connection = ledger.connect()
    cursor = connection.cursor()
    cursor.execute("select pg_current_xact_id_if_assigned()::text")
    assert cursor.fetchone() == (None,)
    cursor.execute("select ledger_next_id(), pg_current_xact_id_if_assigned() is not null")
    assert cursor.fetchone()[1]
    connection.close()


def test_reading_never_scans_the_ledger(ledger, broker, make_daemon):
    """Condition 5: an OR of the two parts would scan all of it."""
    integration = ledger.integration()
    ledger.app.subscriptions(integration, 2000)
    make_daemon(RELAY_ALONE).start()
    ledger.wait_published()
    late = ledger.connect()
    late.cursor().execute("insert into subscriptions (integration_id) values (%s)", (integration,))

    def scans():
        ledger.query("select pg_stat_clear_snapshot()")
        return ledger.value("select sum(seq_scan) from pg_stat_user_tables where relname ~ '^subscription_events_[0-9]+$'")
    before = scans()
    ledger.app.subscriptions(integration, 500, batch=5)
    last = ledger.last_id()
    wait_for(lambda: ledger.value("select high >= %s from {s}.relay_state", (last,)), 60, "the events to be published")
    late.commit()
    late.close()
    ledger.wait_published()
    # max(id) of last_id() and the backlog's count look at the index, too.
    assert scans() == before


# --- a leader that alone is cut off from Kafka ---


def test_a_leader_without_kafka_lets_another_one_lead(app, broker, institutions, make_daemon, ctl):
    """A firewall on one host, say. Alone it goes on leading, since nobody else could."""
    ledger = Ledger(app.database)
    cut_off = make_daemon({"kafka": {"brokers": "127.0.0.1:1"}, "log_level": "info"}).start()
    cut_off.wait_log("the relay leads")
    cut_off.wait_log("could not reach Kafka: .*Deliveries go on", 60)
    app.subscriptions(app.integration(institutions.url()), 20)
    app.wait_states(sent=20)
    healthy = make_daemon({"log_level": "info"}).start()
    healthy.wait_log("the relay leads", 90)
    ledger.wait_published()
    check_published(ledger, broker)
    assert len(re.findall("the relay lets another daemon lead: it could not reach Kafka for", cut_off.log)) == 1
    wait_for(lambda: ctl("status", "--json").json["relay_leader"] == "anubisd2", what="the leader's name")
    assert healthy.term() == 0 and cut_off.term() == 0


@pytest.mark.parametrize("way", ["hangs", "refuses"])
def test_a_leader_that_is_cut_off_at_work_gives_up_the_lead_within_30_s(app, broker, institutions, make_daemon, ctl, way):
    """As where a firewall drops what one host sends, or refuses it. Each daemon has a broker of its own, so one is cut off."""
    ledger = Ledger(app.database)
    integration = app.integration(institutions.url())
    with EmbeddedBroker() as its_own:
        leader = make_daemon({"kafka": {"brokers": its_own.bootstrap}, "log_level": "info"}).start()
        app.subscriptions(integration, 5)
        ledger.wait_published()
        other = make_daemon({"kafka": {"brokers": broker.bootstrap}, "log_level": "info"}).start()
        wait_for(lambda: app.value("select count(*) from pg_stat_activity where application_name ~ '^anubisd relay'") == 2,
                 30, "the other one to wait for the lead")
        its_own.stop() if way == "hangs" else its_own.down()
        app.subscriptions(integration, 5)
        wait_for(lambda: (said := ctl("status").stdout) and "WAITS: Kafka is away since " in said, 30, "status to say it")
        leader.wait_log("warning: could not reach Kafka: .*Deliveries go on", 30)
        other.wait_log("the relay leads", 30)
        assert re.search("the relay lets another daemon lead: it could not reach Kafka for [0-9]+ s", leader.log)
        ledger.wait_published()
        app.wait_states(sent=10)
        its_own.cont()
        assert other.term() == 0 and leader.term() == 0


@pytest.mark.slow
def test_a_daemon_that_comes_late_leads_soon(app, broker, institutions, make_daemon, ctl):
    """The leader has been cut off for long, alone: it looks for others all the time."""
    ledger = Ledger(app.database)
    cut_off = make_daemon({"kafka": {"brokers": "127.0.0.1:1"}, "log_level": "info"}).start()
    cut_off.wait_log("could not reach Kafka: .*Deliveries go on", 60)

    def lasts():
        since = ctl("status", "--json").json["relay_waits_since"]
        return since and app.value("select now() - %s::timestamptz > interval '18 s'", (since,))
    wait_for(lasts, 60, "the leader to be cut off for long")
    healthy = make_daemon({"log_level": "info"}).start()
    healthy.wait_log("the relay leads", 20)
    app.subscriptions(app.integration(institutions.url()), 5)
    ledger.wait_published()
    assert healthy.term() == 0 and cut_off.term() == 0


@pytest.mark.slow
def test_when_nobody_reaches_kafka_the_lead_goes_round_ever_more_slowly(app, make_daemon):
    daemons = [make_daemon({"kafka": {"brokers": "127.0.0.1:1"}, "log_level": "info"}).start() for _ in range(2)]
    for one in daemons:
        one.wait_log("the relay lets another daemon lead", 120)
    first = wait_for(lambda: [d for d in daemons if d.log.count("the relay lets another daemon lead") == 2], 150,
                     "the second round")[0]
    patience = [int(n) for n in re.findall("another daemon lead: it could not reach Kafka for ([0-9]+) s", first.log)]
    assert patience[1] >= 3 * patience[0] / 2, patience
    assert all(one.term() == 0 for one in daemons)


def test_a_server_that_does_not_tell_its_wal(database, app, institutions, broker, make_daemon):
    """Managed servers forbid these functions. The relay says once what it does instead, and publishes all the same."""
    app.query("revoke execute on function pg_current_wal_insert_lsn(), pg_current_wal_flush_lsn() from public; "
              "drop role if exists managed; create role managed login; select {s}.anubisd_grant('managed')")
    daemon = make_daemon({"database": {"conninfo": database.conninfo().replace("user=postgres", "user=managed")}}).start()
    integration = app.integration(institutions.url("/good"))
    for n in range(1, 4):
        app.subscription(integration)
        wait_for(lambda n=n: len(broker.read_all("anubis.subscriptions.sent")) == n, 30, f"event {n}")
    assert daemon.log.count("does not tell where its WAL ends") == 1
    assert "the relay could not use the database" not in daemon.log
    assert daemon.term() == 0
    app.query("drop owned by managed; drop role managed")


@pytest.mark.parametrize("when", ["before it is migrated", "before a daemon comes", "under a daemon"])
def test_a_server_that_does_not_tell_what_it_is(empty_database, institutions, broker, make_daemon, when):
    """As hardened ones, which take pg_control_system() from PUBLIC: rows are sent and published, and what is missing is said."""
    revoke = "revoke execute on function pg_control_system() from public"
    empty_database.query("drop role if exists hardened; create role hardened login")
    empty_database.query(f"grant create on database {empty_database.name} to hardened")
    mine = empty_database.conninfo(user="hardened")
    daemon = make_daemon({"database": {"conninfo": mine}, "log_level": "info"})
    try:
        if when == "before it is migrated":
            empty_database.query(revoke)
        Ctl(database=mine).migrate()
        if when == "before a daemon comes":
            empty_database.query(revoke)
        app = Application(empty_database)
        integration = app.integration(institutions.url("/good"))
        daemon.start()
        app.subscriptions(integration, 5)
        app.wait_states(sent=5)
        if when == "under a daemon":
            empty_database.query(revoke)
            daemon.kill9()
            daemon.start()
        app.subscriptions(integration, 10)
        app.wait_states(sent=15)
        Ledger(empty_database).wait_published()
        daemon.wait_log("could not tell whether this database was restored or promoted: .*pg_control_system")
        Ctl(database=mine, kafka=broker)("verify", "--wait").expect(0)
        assert daemon.term() == 0
    finally:
        daemon.close()
        empty_database.query("drop owned by hardened cascade; drop role hardened")
