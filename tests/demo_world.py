"""What the demo watches: six institutions of different character, an application that enrols people, and an ordinary
Kafka consumer that reads the events back, and confirms in the name of one institution what that was sent."""
import collections
import json
import threading

import confluent_kafka as ck

from harness.application import Application
from harness.kafka import TOPICS
from harness.processes import wait_for

# What becomes of all of an institution's subscriptions when everything is right.
Character = collections.namedtuple("Character", "name what path count ends max_attempts")

CHARACTERS = [
    Character("Universidade Pontual", "answers at once", "/good/pontual", 1200, "sent", None),
    Character("Faculdade Sem Pressa", "takes 250 ms", "/slow/250/sem-pressa", 400, "sent", None),
    Character("Instituto Talvez", "30 % are HTTP 500", "/flaky/30/talvez", 600, "sent", 15),
    Character("Universidade Conta-Gotas", "80/s, else 429", "/limited/80/conta-gotas", 400, "sent", 30),
    Character("Faculdade Exigente", "refuses all: 422", "/reject/422/exigente", 200, "failed", None),
    Character("Centro Fora do Ar", "dead for 9 seconds", "/dead/fora-do-ar", 200, "sent", None),
]
TOTAL = sum(c.count for c in CHARACTERS)
CONFIRMING = CHARACTERS[0]

SETTINGS = {
    "log_level": "info",
    "delivery": {"poll_interval": "500ms", "timeout": "3s", "connect_timeout": "2s", "lease": "6s", "drain_timeout": "10s",
                 "allow_http": True, "allow_private_networks": True},
    # Minutes and hours in real life.
    "retry": {"base_delay": "200ms", "max_delay": "2s"},
    "circuit_breaker": {"recovery_timeout": "500ms", "max_recovery_timeout": "1s"},
    "consumers": {"session_timeout": "6s", "heartbeat_interval": "2s"},
    "status": {"listen": ""},
}

STATES = ("sent", "failed", "retry", "processing", "pending")


class Troubles:
    """What happens meanwhile, in seconds after the start; and what it left."""

    def __init__(self, demo):
        self.demo = demo
        self.under_way = 0  # requests when anubisd was killed: the institution may have those twice
        self.coming = [(2.5, "Kafka is away", demo.kafka.stop), (4.0, "anubisd is killed (kill -9)", self._kill),
                       (4.5, "anubisd starts again", demo.daemon.start), (6.0, "Kafka is back", demo.kafka.cont),
                       (9.0, "the dead institution is back",
                        lambda: demo.institutions.become("/dead/fora-do-ar", "/good/fora-do-ar"))]
        self.happened = []

    def go_on(self, elapsed):
        """Lets happen what is due; what that was, or None."""
        if not self.coming or elapsed < self.coming[0][0]:
            return None
        _, what, act = self.coming.pop(0)
        act()
        self.happened.append(what)
        return what

    def daemon_shall_run(self):
        return self.happened[-1:] != ["anubisd is killed (kill -9)"]

    def _kill(self):
        self.demo.daemon.kill9()
        self.under_way = self.demo.database().value("select count(*) from anubis.subscriptions where status = 'processing'")


class Enrolments:
    """The web application: a part is waiting when anubisd starts, the others come while it works."""

    def __init__(self, database, institutions, seconds=8.0, waiting=0.4):
        self.app = Application(database)
        self.connection = database.connect()
        self.seconds = seconds
        self.waiting = waiting
        self.inserted = collections.Counter()
        self.ids = {c: self.app.integration(institutions.url(c.path), c.name, max_attempts=c.max_attempts, delivery_settings=(
            {"confirmation": {"within": "2d"}} if c is CONFIRMING else {})) for c in CHARACTERS}
        self._insert(waiting)

    def _insert(self, share):
        for c, integration_id in self.ids.items():
            count = min(c.count, round(c.count * share)) - self.inserted[c]
            if count > 0:
                self.app.subscriptions(integration_id, count, connection=self.connection)
                self.inserted[c] += count

    def go_on(self, elapsed):
        """Enrols as many as are due `elapsed` seconds after the start."""
        self._insert(min(1.0, self.waiting + (1 - self.waiting) * elapsed / self.seconds))

    def close(self):
        self.connection.close()


class Reader(threading.Thread):
    """An ordinary Kafka client, not ours: reads every subscription topic from its beginning, and confirms what an integration
    was sent, as its institution would."""

    def __init__(self, cluster, confirming, prefix="anubis."):
        super().__init__(daemon=True, name="reader")
        self.topics = [prefix + t for t in TOPICS if t.startswith("subscriptions.")]
        self.sent, self.confirmations, self.confirming = f"{prefix}subscriptions.sent", f"{prefix}confirmations", confirming
        self.confirmed = set()
        self.cluster = cluster
        self.messages = collections.Counter()  # by topic
        self.sequences = {t: set() for t in self.topics}
        self.error = None
        self._ended = threading.Event()
        self.start()

    def _confirm(self, producer, message, headers):
        subscription, is_theirs = int(message.key()), headers.get("integration_id") == b"%d" % self.confirming
        if message.topic() != self.sent or not is_theirs or subscription in self.confirmed:
            return
        self.confirmed.add(subscription)
        producer.produce(self.confirmations, key=message.key(), value=json.dumps(
            {"subscription_id": subscription, "status": "confirmed", "external_id": f"matricula-{subscription}"}))

    def run(self):
        consumer, producer = self.cluster.clients()
        try:
            while not self._ended.is_set() and not self._assign(consumer):
                self._ended.wait(0.2)
            while not self._ended.is_set():
                for m in consumer.consume(1000, timeout=0.2):
                    if not m.error():
                        headers = dict(m.headers() or [])
                        self.messages[m.topic()] += 1
                        self.sequences[m.topic()].add(int(headers["sequence"]))
                        self._confirm(producer, m, headers)
                producer.poll(0)
        except Exception as e:  # pylint: disable=broad-except
            self.error = e
        finally:
            consumer.close()
            producer.flush(5)

    def _assign(self, consumer):
        """anubisd creates the topics that are missing, so they may come later than we do."""
        try:
            known = consumer.list_topics(timeout=5).topics
        except ck.KafkaException:
            return False
        if any(t not in known or not known[t].partitions for t in self.topics):
            return False
        consumer.assign([ck.TopicPartition(t, p, ck.OFFSET_BEGINNING) for t in self.topics for p in known[t].partitions])
        return True

    def total(self):
        return sum(self.messages.values())

    def distinct(self):
        return sum(len(s) for s in self.sequences.values())

    def stop(self):
        self._ended.set()
        self.join(10)


class Sample:
    """One look at the database."""

    def __init__(self, cursor, ids, reader):
        cursor.execute("select integration_id, status, count(*) from anubis.subscriptions group by 1, 2")
        self.states = {integration_id: collections.Counter() for integration_id in ids.values()}
        for integration_id, status, count in cursor.fetchall():
            self.states[integration_id][status] = count
        self.total = sum(self.states.values(), collections.Counter())
        cursor.execute("select event_type, count(*) from anubis.subscription_events group by 1")
        self.events = collections.Counter(dict(cursor.fetchall()))
        cursor.execute("select integration_id, count(*) from anubis.subscription_events where event_type = 'retried' "
                       "group by 1")
        self.retried = collections.Counter(dict(cursor.fetchall()))
        # successful_sends and failed_sends follow within ten seconds.
        cursor.execute("select coalesce(sum(sent), 0)::int, coalesce(sum(failed), 0)::int from anubis.integration_runtime")
        self.counted_sent, self.counted_failed = cursor.fetchone()
        cursor.execute("select count(*) from anubis.confirmations where status = 'confirmed'")
        self.confirmed, = cursor.fetchone()
        self.read_back = reader.distinct()

    def settled(self):
        return self.total["sent"] + self.total["failed"]

    def quiet(self):
        """Everything is delivered or given up, published, read back, counted and confirmed."""
        return (self.confirmed == CONFIRMING.count and self.settled() == TOTAL and self.read_back == sum(self.events.values())
                and (self.counted_sent, self.counted_failed) == (self.total["sent"], self.total["failed"]))


def wait_published(sampler, deadline):
    """The last sample."""
    return wait_for(lambda: (s := sampler()).quiet() and s, deadline, "the events to be published and counted")
