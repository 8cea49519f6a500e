"""An installation whose database is set back to an earlier time while Kafka stays."""
import collections

from .anubis import Ctl, Daemon, merged
from .application import Application
from .processes import wait_for

TOPICS = [f"subscriptions.{kind}" for kind in ("created", "updated", "sent", "failed", "retried")]
QUICK = {"consumers": {"session_timeout": "6s", "heartbeat_interval": "500ms"}}
SAID = "the database was restored or promoted since the last event was published. Ledger ids go on at "


class World:
    """An installation whose database is set back: 50 rows stay, 40 are lost, 30 come then."""

    def __init__(self, server, kafka, institutions, prefix="anubis."):
        self.server, self.kafka, self.prefix = server, kafka, prefix
        self.counts = True  # a group of ours reads the events
        self.app = Application(server.create_database("anubis"))
        Ctl(database=self.app.database).migrate()
        self.name = self.app.value("select namespace::text from {s}.installation")
        self.integration = self.app.integration(institutions.url("/good"))
        self.settings = merged(QUICK, {"kafka": {"topic_prefix": prefix},
                                       "consumers": {"group_prefix": prefix.rstrip("."), "monitoring": False, "external": False}})

    def daemon(self, conninfo=None, **more):
        return Daemon(merged(self.settings, {"database": {"conninfo": conninfo}} if conninfo else {}, more),
                      database=self.app.database, kafka=self.kafka)

    def send(self, rows, total):
        self.app.subscriptions(self.integration, rows)
        self.wait(total)

    def lose(self):
        """Returns what was saved of the server, and what Kafka has."""
        self.send(50, 50)
        saved = self.server.save()
        self.send(40, 90)
        return saved, self.events()

    def wait(self, total):
        self.app.wait_states(sent=total, deadline=60)
        if not self.counts:
            return self.wait_published()
        wait_for(lambda: self.counted() == total, 60, lambda: f"{total} to be counted, now {self.counted()}")
        wait_for(lambda: self.verify().code == 0, 60, lambda: f"the proof: {self.verify()}", interval=0.3)

    def verify(self):
        return Ctl(database=self.app.database, kafka=self.kafka)("verify")

    def counted(self):
        return int(self.app.value("select coalesce(sum(sent), 0) from {s}.integration_runtime"))

    def events(self):
        """{ledger id: our events that Kafka has of it}, each as (event id, type, subscription, time)."""
        found = collections.defaultdict(set)
        for topic in TOPICS:
            for m in self.kafka.read_all(self.prefix + topic):
                if m.headers.get("installation") != self.name:
                    continue
                found[int(m.headers["sequence"])].add((m.headers["event_id"], topic, m.key, m.headers["timestamp"]))
        return found

    def wait_published(self):
        wait_for(lambda: self.app.value("select high >= (select max(id) from {s}.subscription_events) and gap_first = '{}' "
                                        "from {s}.relay_state"), 60, "all to be published")

    def unique(self, whole=True):
        """No id and no event id is of two events, and Kafka has all of the ledger (`whole`). Returns what Kafka has."""
        self.wait_published()
        events = self.events()
        assert all(len(of_one) == 1 for of_one in events.values()), [e for e in events.items() if len(e[1]) > 1][:3]
        assert len({event for (event, *_), in events.values()}) == len(events)
        ledger = dict(self.app.query("select id, event_id::text from {s}.subscription_events"))
        assert not whole or ledger.items() <= {number: event for number, ((event, *_),) in events.items()}.items()
        return events

    def check(self, lost, institutions):
        """After everything; `lost` is what Kafka had before."""
        events = self.unique()
        assert min(events.keys() - lost.keys()) > max(lost)
        ledger = {row[0] for row in self.app.query("select id from {s}.subscription_events")}
        orphans = lost.keys() - ledger
        assert len(orphans) == 40 * 3
        assert self.app.value("select sum(unknown_events) from {s}.consumer_offsets where topic like '%%.sent'", ()) == 40
        unknown = self.app.value("select sum(unknown_events) from {s}.consumer_offsets")
        keys = institutions.keys()
        assert len(keys) == 120 and all(key.received == 1 for key in keys.values())
        verified = self.verify()
        assert verified.code == 0, verified.stdout
        assert f"{unknown} events in Kafka that the ledger does not have (or not there) count for nothing" in verified.stdout
        status = Ctl(database=self.app.database)("status", "--json").expect(0).json
        assert status["unpublished_about"] == 0 and status["relay_gap_ids"] == 0
        assert sum(c["unknown_events"] for c in status["consumers"]) == unknown
