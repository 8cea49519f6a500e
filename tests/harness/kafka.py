"""Kafka brokers: the embedded one (tests/tools/broker.c) and a real Apache Kafka, with the same ways to look in."""
import base64
import collections
import os
import shutil
import signal
import socket
import struct
import subprocess
import uuid

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from .postgres import Unavailable
from .processes import PATIENCE, Child, build_folder, cache_folder, free_port, scratch_folder, wait_for

KAFKA_VERSION = "4.1.0"
MAVEN_COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
TOPICS = {"subscriptions.created": 3, "subscriptions.updated": 3, "subscriptions.sent": 3, "subscriptions.failed": 3,
          "subscriptions.retried": 2, "alerts": 1, "dead_letters": 1, "metrics": 1, "confirmations": 1,
          "audit": 1}

Message = collections.namedtuple("Message", "topic partition offset key value headers timestamp_ms")


def _text(raw):
    return raw.decode("utf-8", "surrogateescape") if isinstance(raw, bytes) else raw


def _quiet(_error):
    """librdkafka's own words go nowhere: what matters comes back from the calls."""


class Cluster:
    """What both kinds share. `bootstrap` is for clients."""
    bootstrap = None
    client_settings = {}  # security, for clients of this harness

    def _settings(self, **more):
        return {"bootstrap.servers": self.bootstrap, "error_cb": _quiet, "log_level": 2, **self.client_settings, **more}

    def _consumer(self, group=None, **more):
        return ck.Consumer(self._settings(**{"group.id": group or f"harness-{uuid.uuid4().hex}",
                                             "enable.auto.commit": False, "auto.offset.reset": "earliest",
                                             "fetch.wait.max.ms": 50, **more}))

    def clients(self):
        """A consumer without a group, and a producer: the caller closes and flushes them."""
        return self._consumer(), ck.Producer(self._settings())

    def topics(self, deadline=30):
        """{name: number of partitions}"""
        consumer = self._consumer()
        try:
            found = wait_for(lambda: consumer.list_topics(timeout=5), deadline, "Kafka's metadata")
            return {name: len(t.partitions) for name, t in found.topics.items() if not name.startswith("__")}
        finally:
            consumer.close()

    def watermarks(self, topic, deadline=30):
        """{partition: (oldest offset, next offset)}"""
        consumer = self._consumer()
        try:
            return self._watermarks(consumer, topic, deadline)
        finally:
            consumer.close()

    def _watermarks(self, consumer, topic, deadline):
        def ask():
            found = consumer.list_topics(topic, timeout=5).topics[topic]
            if found.error:
                raise ck.KafkaException(found.error)
            return {p: consumer.get_watermark_offsets(ck.TopicPartition(topic, p), timeout=5) for p in found.partitions}
        return wait_for(ask, deadline, f"the watermarks of {topic}")

    def count(self, topic):
        """How many messages it holds (exact without compaction and transactions)."""
        return sum(high - low for low, high in self.watermarks(topic).values())

    def read_all(self, topic, deadline=60):
        """Every message now in the topic, by partition and offset."""
        consumer = self._consumer(**{"enable.partition.eof": True})
        try:
            marks = self._watermarks(consumer, topic, deadline)
            open_ends = {p: high for p, (low, high) in marks.items() if high > low}
            if not open_ends:
                return []
            consumer.assign([ck.TopicPartition(topic, p, marks[p][0]) for p in open_ends])
            found = []

            def read():
                for m in consumer.consume(10000, timeout=0.5):
                    if m.error():
                        if m.error().code() == ck.KafkaError._PARTITION_EOF:
                            open_ends.pop(m.partition(), None)
                            continue
                        raise ck.KafkaException(m.error())
                    headers = {k: _text(v) for k, v in m.headers() or []}
                    found.append(Message(m.topic(), m.partition(), m.offset(), _text(m.key()), m.value(), headers,
                                         m.timestamp()[1]))
                    if m.offset() + 1 >= open_ends.get(m.partition(), 0):
                        open_ends.pop(m.partition(), None)
                return not open_ends
            wait_for(read, deadline, f"the end of {topic}", interval=0)
            return sorted(found, key=lambda m: (m.partition, m.offset))
        finally:
            consumer.close()

    def produce(self, topic, messages, deadline=60, **settings):
        """messages: (key, value) or (key, value, headers) or a dict of produce()'s arguments. All acknowledged after."""
        producer = ck.Producer(self._settings(**{"acks": "all", **settings}))
        failures = []

        def report(error, _message):
            if error:
                failures.append(error)
        for m in messages:
            arguments = m if isinstance(m, dict) else dict(zip(("key", "value", "headers"), m))
            while True:
                try:
                    producer.produce(topic, on_delivery=report, **arguments)
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        left = producer.flush(deadline * PATIENCE)
        assert not failures and not left, f"{left} messages were not delivered; errors: {failures[:3]}"

    def create_anubis_topics(self, prefix="anubis."):
        for topic, partitions in TOPICS.items():
            if prefix + topic not in self.topics():
                self.create_topic(prefix + topic, partitions)

    def group_offsets(self, group, topics, deadline=30):
        """{(topic, partition): next offset} as committed; partitions without a commit are left out."""
        consumer = self._consumer(group)
        try:
            def ask():
                wanted = [ck.TopicPartition(t, p) for t in topics for p in consumer.list_topics(t, 5).topics[t].partitions]
                found = consumer.committed(wanted, timeout=5)
                for tp in found:
                    if tp.error:
                        raise ck.KafkaException(tp.error)
                return found
            found = wait_for(ask, deadline, f"the offsets of group {group}")
            return {(tp.topic, tp.partition): tp.offset for tp in found if tp.offset >= 0}
        finally:
            consumer.close()

    def set_group_offsets(self, group, offsets):
        """As an operator resets them: {(topic, partition): next offset}. Kafka refuses it while the group has members."""
        consumer = self._consumer(group)
        try:
            wanted = [ck.TopicPartition(topic, p, at) for (topic, p), at in offsets.items()]
            found = consumer.commit(offsets=wanted, asynchronous=False)
            assert not any(tp.error for tp in found), found
        finally:
            consumer.close()

    def lag(self, group, topics):
        """How many messages the group has not committed yet, over all partitions."""
        committed = self.group_offsets(group, topics)
        return sum(high - max(committed.get((topic, p), 0), low)
                   for topic in topics for p, (low, high) in self.watermarks(topic).items())


class EmbeddedBroker(Cluster):
    """In memory, forgets old messages after a few MB of a partition; see the tool for its commands."""

    def __init__(self, brokers=1, prefix="anubis.", topics=None, name="broker"):
        argv = [os.path.join(build_folder(), "tools", "broker"), "--lifeline", f"--brokers={brokers}",
                f"--prefix={prefix}", *[f"--topic={t}:{n}" for t, n in (topics or {}).items()]]
        self.child = Child(argv, name=name, folder=scratch_folder(), stdin=True)

    def start(self):
        before = len(self.child.output)
        self.child.start()
        self.bootstrap = self.child.wait_output(r"^listening on (.+)$", start=before).group(1)
        return self

    def command(self, line):
        before = len(self.child.stdout)
        self.child.process.stdin.write(line.encode() + b"\n")
        self.child.process.stdin.flush()
        answer = wait_for(lambda: "\n" in self.child.stdout[before:] and self.child.stdout[before:].strip(),
                          what=f"the broker's answer to {line!r}")
        assert answer == "ok", f"{line}: {answer}"

    def down(self, broker=""):
        """Ends its connections and takes no new ones until up()."""
        self.command(f"down {broker}".strip())

    def up(self, broker=""):
        self.command(f"up {broker}".strip())

    def rtt(self, milliseconds):
        self.command(f"rtt {milliseconds}")

    def error(self, api_key, code, count=1):
        """The next `count` requests of this kind are answered with the code; -195 disconnects instead."""
        self.command(f"error {api_key} {code} {count}")

    def create_topic(self, topic, partitions=1):
        self.command(f"topic {topic} {partitions}")

    def refuse_topic(self, topic, code):
        """Who asks for it gets this code (29: not allowed); 0 ends it."""
        self.command(f"refuse {topic} {code}")

    def lead(self, topic, partition, broker):
        """That broker leads the partition; -1: none does."""
        self.command(f"leader {topic} {partition} {broker}")

    def stop(self):
        self.child.stop()

    def cont(self):
        self.child.cont()

    def close(self):
        self.child.close()

    def __enter__(self):
        return self if self.child.is_running() else self.start()

    def __exit__(self, *_):
        self.close()


def kafka_uuid():
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=").replace("-", "x")


def java_missing():
    """Why real Kafka cannot be run here, or None."""
    if not shutil.which("java"):
        return "real Kafka needs Java (java), which is not installed"
    if not os.path.exists(os.path.join(_libs_folder(), ".complete")) and not shutil.which("mvn"):
        return f"real Kafka is not in {_libs_folder()} and Maven (mvn) to fetch it is not installed"
    return None


def _libs_folder():
    return os.path.join(cache_folder(f"kafka-{KAFKA_VERSION}-tools"), "libs")


def fetch_kafka():
    """The folder of its jars; fetched once, then kept."""
    libs = _libs_folder()
    if os.path.exists(os.path.join(libs, ".complete")):
        return libs
    reason = java_missing()
    if reason:
        raise Unavailable(reason)
    pom = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "kafka", "pom.xml")
    done = subprocess.run(["mvn", "-q", "-B", "-f", pom, MAVEN_COPY, "-DincludeScope=runtime",
                           f"-Dkafka.version={KAFKA_VERSION}", f"-DoutputDirectory={libs}"],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unavailable(f"Maven could not fetch Kafka {KAFKA_VERSION}: {done.stdout[-800:]}")
    with open(os.path.join(libs, ".complete"), "w", encoding="ascii"):
        pass
    return libs


def _classes_file():
    """Kafka's classes as this Java has them in memory, which spares each start a second; the first that formats makes it."""
    java = os.stat(os.path.realpath(shutil.which("java")))
    return os.path.join(cache_folder(f"kafka-{KAFKA_VERSION}-tools"), f"classes-{java.st_mtime_ns}-{java.st_size}.jsa")


LOG4J = """<?xml version="1.0" encoding="UTF-8"?>
<Configuration status="ERROR">
  <Appenders><Console name="out"><PatternLayout pattern="%d %p %m (%c)%n"/></Console></Appenders>
  <Loggers><Root level="WARN"><AppenderRef ref="out"/></Root></Loggers>
</Configuration>
"""


OPERATIONS = {"read": 3, "write": 4, "create": 5, "describe": 8}


def _string(text):
    """As Kafka's protocol has it."""
    return struct.pack(">h", -1) if text is None else struct.pack(">h", len(text.encode())) + text.encode()


class RealKafka(Cluster):
    """Apache Kafka, one node, KRaft. The same data and ports across restarts.

    listeners: further ones, {"SASL_PLAINTEXT": {"sasl.enabled.mechanisms": "PLAIN", …}}: name (= protocol) to that
    listener's own settings, for which `addresses` then has the ports. advertised_port: what clients are told instead of
    the real port (a toxic.Proxy in between). lasting: Java compiles it well, which pays after some minutes of work."""

    def __init__(self, settings=None, listeners=None, scram_users=None, heap="512m", advertised_port=None, lasting=False):
        self.libs = fetch_kafka()
        self.folder = scratch_folder()
        self.settings = settings or {}
        self.listeners = listeners or {}
        self.scram_users = scram_users or {}
        self.advertised_port = advertised_port
        self.ports = {name: free_port() for name in ("PLAINTEXT", "CONTROLLER", *self.listeners)}
        self.properties = os.path.join(self.folder, "server.properties")
        log4j = os.path.join(self.folder, "log4j2.xml")
        with open(log4j, "w", encoding="ascii") as f:
            f.write(LOG4J)
        self.java = ["java", f"-Dlog4j2.configurationFile={log4j}", f"-Dlog4j.configurationFile={log4j}",
                     "-Djava.net.preferIPv4Stack=true", "-XX:+UseSerialGC", f"-XX:TieredStopAtLevel={4 if lasting else 1}",
                     "-XX:-UsePerfData", "-Xlog:disable", "-cp", os.path.join(self.libs, "*")]
        self.classes = _classes_file()
        self.child = Child([*self.java[:1], f"-Xmx{heap}", f"-Xms{heap}", f"-XX:SharedArchiveFile={self.classes}", *self.java[1:],
                            "kafka.Kafka", self.properties], name="kafka", folder=self.folder)
        self._write_properties()
        self._format()

    @classmethod
    def authorized(cls):
        """With Kafka's own authorizer. A daemon is the user "anubis", who may do nothing until allow_all()."""
        listener = {"sasl.enabled.mechanisms": "PLAIN", "plain.sasl.jaas.config":
                    "org.apache.kafka.common.security.plain.PlainLoginModule required user_anubis=\"word\";"}
        return cls(settings={"authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
                             "super.users": "User:ANONYMOUS"}, listeners={"SASL_PLAINTEXT": listener})

    @property
    def bootstrap(self):
        return self.addresses["PLAINTEXT"]

    @property
    def addresses(self):
        """{listener: host:port} as clients should use it."""
        found = {name: f"127.0.0.1:{port}" for name, port in self.ports.items()}
        if self.advertised_port:
            found["PLAINTEXT"] = f"127.0.0.1:{self.advertised_port}"
        return found

    def _write_properties(self):
        listen = ",".join(f"{name}://127.0.0.1:{port}" for name, port in self.ports.items())
        advertise = ",".join(f"{name}://{address}" for name, address in self.addresses.items() if name != "CONTROLLER")
        mapped = ",".join(f"{name}:{'PLAINTEXT' if name == 'CONTROLLER' else name}" for name in self.ports)
        properties = {
            "process.roles": "broker,controller", "node.id": "1",
            "controller.quorum.bootstrap.servers": f"127.0.0.1:{self.ports['CONTROLLER']}",
            "listeners": listen, "advertised.listeners": advertise, "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": mapped, "inter.broker.listener.name": "PLAINTEXT",
            "log.dirs": os.path.join(self.folder, "data"), "auto.create.topics.enable": "false",
            "group.initial.rebalance.delay.ms": "0", "num.network.threads": "2", "num.io.threads": "4",
            "log.cleaner.dedupe.buffer.size": "16777216", "offsets.topic.num.partitions": "4",
            "group.min.session.timeout.ms": "1000", "default.replication.factor": "1",
            **{f"{topic}.replication.factor": "1" for topic in (
                "offsets.topic", "transaction.state.log", "share.coordinator.state.topic")},
            **{f"{topic}.min.isr": "1" for topic in ("transaction.state.log", "share.coordinator.state.topic")},
            **{f"listener.name.{name.lower()}.{key}": value
               for name, more in self.listeners.items() for key, value in more.items()},
            **self.settings,
        }
        with open(self.properties, "w", encoding="utf-8") as f:
            f.writelines(f"{key}={value}\n" for key, value in properties.items())

    def _format(self, quorum=("--standalone",), name=None):
        users = [a for user, password in self.scram_users.items() for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
                 for a in ("--add-scram", f"{mechanism}=[name={user},password={password}]")]
        made = os.path.join(self.folder, "classes")
        archive = f"-XX:SharedArchiveFile={self.classes}" if os.path.exists(self.classes) else f"-XX:ArchiveClassesAtExit={made}"
        tool = Child([*self.java[:1], archive, *self.java[1:], "kafka.tools.StorageTool", "format", *quorum, "-t",
                      name or kafka_uuid(), *users, "-c", self.properties], name="format", folder=self.folder).start()
        if tool.wait(240) != 0:
            raise Unavailable(f"Kafka's storage could not be formatted: {tool.output[-2000:]}")
        tool.close()
        if os.path.exists(made):
            shutil.copyfile(made, f"{self.classes}.{os.getpid()}")  # perhaps another file system
            os.rename(f"{self.classes}.{os.getpid()}", self.classes)

    def start(self, wait=True, deadline=240):
        self.child.start()
        if wait:
            self.wait_ready(deadline)
        return self

    def wait_ready(self, deadline=240):
        """Four seconds on an idle machine; Java's start takes all of two cores, so twenty beside six others."""
        def ready():
            assert self.child.is_running(), f"Kafka ended:\n{self.child.tail()}"
            return AdminClient(self._settings()).list_topics(timeout=1).brokers
        wait_for(ready, deadline, lambda: f"Kafka to answer:\n{self.child.tail()}")

    def terminate(self):
        """An orderly end."""
        self.child.terminate()

    def kill9(self):
        self.child.kill9()

    def restart(self):
        if self.child.is_running():
            self.terminate()
        return self.start()

    def lose_tail(self, topic, keep):
        """As when the power goes: of each partition's log only this part had been written to the disk. After kill9()."""
        data = os.path.join(self.folder, "data")
        for name in os.listdir(data):
            if name.rpartition("-")[0] != topic:
                continue
            for part in os.listdir(os.path.join(data, name)):
                path = os.path.join(data, name, part)
                if not part.endswith(".log"):
                    if not part.endswith(".metadata"):
                        os.unlink(path)
                    continue
                with open(path, "r+b") as f:
                    log, at = f.read(), 0
                    while at + 12 <= len(log) * keep and int.from_bytes(log[at + 8:at + 12], "big"):
                        at += 12 + int.from_bytes(log[at + 8:at + 12], "big")
                    f.truncate(at)
        for name in ("recovery-point-offset-checkpoint", "replication-offset-checkpoint"):
            path = os.path.join(data, name)
            if os.path.exists(path):
                os.unlink(path)

    def stop(self):
        """Hangs it: connections stay open and nothing answers."""
        self.child.stop()

    def cont(self):
        self.child.cont()

    def _admin(self):
        return AdminClient(self._settings())

    def create_topic(self, topic, partitions=1, config=None):
        admin = self._admin()  # lives until the answer is there
        admin.create_topics([NewTopic(topic, partitions, 1, config=config or {})])[topic].result(30 * PATIENCE)
        wait_for(lambda: self.topics().get(topic) == partitions, what=f"topic {topic}")

    def create_partitions(self, topic, total):
        admin = self._admin()
        admin.create_partitions([NewPartitions(topic, total)])[topic].result(30 * PATIENCE)
        wait_for(lambda: self.topics().get(topic) == total, what=f"the new partitions of {topic}")

    def delete_topic(self, topic):
        admin = self._admin()
        admin.delete_topics([topic])[topic].result(30 * PATIENCE)
        wait_for(lambda: topic not in self.topics(), what=f"topic {topic} to be gone")

    def replace_topic(self, topic, partitions):
        """Deletes it and makes it anew at once."""
        admin = self._admin()

        def create():
            try:
                admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(30 * PATIENCE)
                return True
            except ck.KafkaException as e:
                if e.args[0].code() == ck.KafkaError.TOPIC_ALREADY_EXISTS:
                    return False
                raise
        admin.delete_topics([topic])[topic].result(30 * PATIENCE)
        wait_for(create, what=f"topic {topic} to be made anew", interval=0.01)

    def delete_records(self, topic, keep=1):
        """As retention does: all of each partition but the newest. This client library has no such request (21, version 0)."""
        ends = {p: high - keep for p, (low, high) in self.watermarks(topic).items() if high - keep > low}
        body = struct.pack(">hhi", 21, 0, 1) + _string("harness") + struct.pack(">i", 1) + _string(topic) + struct.pack(
            ">i", len(ends)) + b"".join(struct.pack(">iq", *place) for place in ends.items()) + struct.pack(">i", 20000)
        with socket.create_connection(("127.0.0.1", self.ports["PLAINTEXT"]), 30 * PATIENCE) as s, s.makefile("rb") as answer:
            s.sendall(struct.pack(">i", len(body)) + body)
            answer.read(struct.unpack(">i", answer.read(4))[0])
        wait_for(lambda: all(self.watermarks(topic)[p][0] == end for p, end in ends.items()), what=f"{topic} to begin later")
        return ends

    def delete_group(self, group):
        """The error code: 0, or 68 while it has members. This client library has no such request (42, version 0)."""
        body = struct.pack(">hhi", 42, 0, 1) + _string("harness") + struct.pack(">i", 1) + _string(group)
        with socket.create_connection(("127.0.0.1", self.ports["PLAINTEXT"]), 30 * PATIENCE) as s, s.makefile("rb") as answer:
            s.sendall(struct.pack(">i", len(body)) + body)
            return struct.unpack(">h", answer.read(struct.unpack(">i", answer.read(4))[0])[-2:])[0]

    def forbid(self, operation, topic=None, group=None, user="anubis"):
        """By a rule of StandardAuthorizer, see authorized()."""
        kind, name = (2, topic) if topic else (3, group)
        rule = struct.pack(">b", kind) + _string(name) + b"\x03" + _string(f"User:{user}") + _string("*")
        self._ask(30, rule + struct.pack(">bb", OPERATIONS[operation], 2))

    def allow_again(self, user="anubis"):
        """Takes back what was forbidden."""
        self._ask(31, b"\x01" + _string(None) + b"\x01" + _string(f"User:{user}") + _string(None) + b"\x01\x02")

    def allow_all(self, user="anubis"):
        """All topics and groups, but for what is forbidden."""
        for kind, name in ((2, "*"), (3, "*")):
            self._ask(30, struct.pack(">b", kind) + _string(name) + b"\x03" + _string(f"User:{user}") + _string("*")
                      + b"\x02\x03")

    def _ask(self, request, item):
        """CreateAcls (30) and DeleteAcls (31), version 1, for one item; this client library has neither."""
        body = struct.pack(">hhi", request, 1, 1) + _string("harness") + struct.pack(">i", 1) + item
        with socket.create_connection(("127.0.0.1", self.ports["PLAINTEXT"]), 30 * PATIENCE) as s, s.makefile("rb") as answer:
            s.sendall(struct.pack(">i", len(body)) + body)
            length, = struct.unpack(">i", answer.read(4))
            _, _, count, error = struct.unpack_from(">iiih", answer.read(length))
            assert (count, error) == (1, 0), f"Kafka refuses a rule: error {error}"

    def close(self):
        self.child.signal(signal.SIGCONT)
        if self.child.is_running():
            self.child.kill9()
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self):
        return self if self.child.is_running() else self.start()

    def __exit__(self, *_):
        self.close()
