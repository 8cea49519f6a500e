"""Others read the topics: Kafka's own clients in Java, which know nothing of ours."""
import collections
import json
import subprocess
import zlib

import pytest
from test_consumer import counters
from test_relay import EVENT_TOPICS, VALIDATOR, Ledger, is_the_same

# Characters that no field holds.
END, BETWEEN, HEADERS, NOTHING = "\x1e", "\x1f", "\x1d", "\x1c"


def read_with_java(kafka, topic, count):
    """[(partition, {header: text}, key, value)] of all of a topic's messages."""
    properties = {"print.partition": "true", "print.headers": "true", "print.key": "true", "key.separator": BETWEEN,
                  "line.separator": END, "headers.separator": HEADERS, "null.literal": NOTHING}
    done = subprocess.run([*kafka.java, "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", kafka.bootstrap,
                           "--topic", topic, "--from-beginning", "--max-messages", str(count), "--timeout-ms", "60000",
                           *(word for name, value in properties.items() for word in ("--property", f"{name}={value}"))],
                          capture_output=True, text=True, timeout=180, check=False)
    assert done.returncode == 0, done.stderr[:500]
    read = []
    for line in done.stdout.split(END)[:-1]:
        partition, headers, key, value = line.split(BETWEEN)
        read.append((int(partition.partition(":")[2]), dict(h.split(":", 1) for h in headers.split(HEADERS)), key, value))
    assert len(read) == count
    return read


@pytest.mark.real_kafka
def test_javas_client_reads_what_the_ledger_holds(app, institutions, real_kafka, topic_prefix, make_daemon):
    """Partition by key, headers, key and value of each event of each kind, by the schema that readers are given."""
    ledger = Ledger(app.database)
    retry = {"base_delay": "50ms", "max_delay": "100ms", "max_attempts": 3}
    make_daemon({"kafka": {"topic_prefix": topic_prefix}, "retry": retry}, kafka=real_kafka).start()
    for path in ("/good", "/echo", "/reject/422", "/flaky/50"):
        app.subscriptions(app.integration(institutions.url(path), name=f"São Paulo {path}"), 20)
    app.subscription(None, payload={"nome": "Zoë \U0001f600"})
    app.wait_states(pending=1, processing=0, retry=0)
    ledger.wait_published()
    wanted = ledger.messages()
    for topic, partitions in EVENT_TOPICS.items():
        events = {number: of for number, of in wanted.items() if of[0] == topic}
        assert events
        found = {}
        for partition, headers, key, value in read_with_java(real_kafka, topic_prefix + topic, len(events)):
            assert partition == zlib.crc32(key.encode()) % partitions
            VALIDATOR.validate(json.loads(value))
            found[int(headers["sequence"])] = (topic, key, headers, value)
        assert found.keys() == events.keys()
        for number, (_, key, headers, value) in found.items():
            assert (key, headers) == events[number][1:3] and is_the_same(value, events[number][3])


class IntegrationStatusConsumer:
    """What the web application's own consumer does with a message, line by line, in the place of Ruby: it takes the type from the
    headers, and all else from the value."""
    subscribes_to = ("subscriptions.sent", "subscriptions.failed")

    def __init__(self):
        self.counts, self.logged = collections.Counter(), []

    def process(self, message):
        event_data, headers = json.loads(message.value), dict(message.headers)
        self.logged.append(headers["event_id"])
        if headers["event_type"] == "sent":
            self.handle_subscription_sent(event_data)
        elif headers["event_type"] == "failed":
            self.handle_subscription_failed(event_data)

    def handle_subscription_sent(self, event_data):
        self.counts[event_data["integration"]["id"], "sent"] += 1
        self.logged.append((event_data["subscription"]["id"], event_data["integration"]["name"]))

    def handle_subscription_failed(self, event_data):
        self.counts[event_data["integration"]["id"], "failed"] += 1
        self.logged.append((event_data["subscription"]["id"], event_data["integration"]["name"], event_data["error_message"]))


def test_the_applications_own_consumer_reads_the_topics_unchanged(app, institutions, broker, make_daemon, ctl):
    """It comes to what anubisd counts."""
    make_daemon().start()
    names = {app.integration(institutions.url(path), name=f"São Paulo {path}"): path for path in ("/good", "/reject/422")}
    for integration in names:
        app.subscriptions(integration, 20)
    app.wait_states(sent=20, failed=20)
    ctl("verify", "--wait").expect(0)
    consumer = IntegrationStatusConsumer()
    for topic in consumer.subscribes_to:
        for message in broker.read_all("anubis." + topic):
            consumer.process(message)
    assert consumer.counts == counters(app) and sum(consumer.counts.values()) == 40
    assert len(consumer.logged) == len(set(consumer.logged)) == 80
    failed = [entry for entry in consumer.logged if len(entry) == 3]
    assert len(failed) == 20 and all(error.startswith("HTTP 422") for _, _, error in failed)
