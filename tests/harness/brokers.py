"""Three brokers of Apache Kafka as one cluster, each a controller, too."""
from confluent_kafka.admin import AdminClient

from .kafka import Cluster, RealKafka, kafka_uuid
from .processes import wait_for

SETTINGS = {"default.replication.factor": "3", "min.insync.replicas": "2",
            **{f"{topic}.replication.factor": "3"
               for topic in ("offsets.topic", "transaction.state.log", "share.coordinator.state.topic")}}


class Broker(RealKafka):
    """One of them. Its ports are known at once; the rest, once it joins the others."""

    def __init__(self, number):
        self.number, self.directory = number, kafka_uuid()
        super().__init__(heap="320m")

    def _write_properties(self):
        pass

    def _format(self, quorum=(), name=None):
        pass

    @property
    def controller(self):
        return f"127.0.0.1:{self.ports['CONTROLLER']}"

    def join(self, brokers, name):
        self.settings = {**SETTINGS, "node.id": self.number,
                         "controller.quorum.bootstrap.servers": ",".join(b.controller for b in brokers)}
        super()._write_properties()
        super()._format(("--initial-controllers", ",".join(f"{b.number}@{b.controller}:{b.directory}" for b in brokers)), name)

    def wait_ready(self, deadline=240):
        super().wait_ready(deadline)
        wait_for(lambda: self.number in AdminClient(self._settings()).list_topics(timeout=2).brokers, deadline,
                 lambda: f"broker {self.number} to be one of the cluster:\n{self.child.tail()}")


class ThreeBrokers(Cluster):
    def __init__(self):
        self.brokers, name = [Broker(n) for n in (1, 2, 3)], kafka_uuid()
        for broker in self.brokers:
            broker.join(self.brokers, name)

    @property
    def bootstrap(self):
        return ",".join(b.bootstrap for b in self.brokers)

    def partitions(self, topic):
        return AdminClient(self._settings()).list_topics(topic, timeout=5).topics[topic].partitions.values()

    def wait_whole(self, topic):
        """Until each copy of the topic is in sync."""
        wait_for(lambda: all(len(p.isrs) == 3 for p in self.partitions(topic)), 120, f"the copies of {topic} to be in sync",
                 interval=0.5)

    def __enter__(self):
        for broker in self.brokers:
            broker.start(wait=False)
        for broker in self.brokers:
            broker.wait_ready()
        return self

    def __exit__(self, *_):
        for broker in self.brokers:
            broker.close()
