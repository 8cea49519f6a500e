"""Others read the topics: Kafka's own clients in Java, which know nothing of ours."""
import json
import subprocess
import zlib

import pytest
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
