"""The relay asks Kafka for its newest events before it publishes: nothing that others write hides them, and no silence does."""
import concurrent.futures
import re
import threading

import confluent_kafka as ck
import pytest
from harness.anubis import Ctl
from harness.kafka import EmbeddedBroker
from harness.processes import wait_for
from harness.set_back import World

STRANGER = "7a1d2c3b-0000-8000-8000-000000000001"
KINDS = ("created", "updated", "sent", "failed", "retried")
SAID = "Kafka has events of this installation up to ledger id {newest}, which this database does not have"


@pytest.fixture
def world(own_postgres, broker, institutions):
    return World(own_postgres(), broker, institutions)


def write_as_a_stranger(world, count, **more):
    """So many messages to each partition, with headers like ours and without any, by turns."""
    headers = [("sequence", "5000"), ("timestamp", "2026-01-01T00:00:00Z"), ("installation", STRANGER)]
    for kind in KINDS:
        topic = f"{world.prefix}subscriptions.{kind}"
        world.kafka.produce(topic, [{"key": "1", "value": "{}", "partition": p, **more, **({"headers": headers} if n % 2 else {})}
                                    for p in range(world.kafka.topics()[topic]) for n in range(count)])


def go_on(world, daemon, lost):
    """The files are set back already: the daemon finds what was lost, renames what was written since, and goes on."""
    world.app.subscriptions(world.integration, 30)
    if not daemon.is_running():
        daemon.start()
    daemon.wait_log(SAID.format(newest=max(lost)), 90)
    world.wait(80)
    assert min(world.unique().keys() - lost.keys()) > max(lost)


@pytest.mark.parametrize("count, more", [(150, {}), (3000, {}), (150, {"timestamp": 1700000000000})], ids=["some", "many", "of old"])
def test_others_have_written_behind(world, count, more):
    """More than is read at first, and many times more, by whatever clock; also in partitions that have nothing of ours."""
    with world.daemon() as daemon:
        saved, lost = world.lose()
        assert daemon.term() == 0
        world.server.set_back(saved, recover=False)
        write_as_a_stranger(world, count, **more)
        go_on(world, daemon, lost)
        assert daemon.term() == 0


def test_what_was_published_again_hides_nothing(world):
    """Everything was being published again when the files were set back: the newest messages are of events that the ledger has."""
    with world.daemon() as daemon:
        world.send(600, 600)
        saved = world.server.save()
        world.send(20, 620)
        lost = world.events()
        before = world.kafka.count("anubis.subscriptions.sent")
        world.app.query("update {s}.relay_state set epoch = epoch + 1, high = 0, gap_first = '{}', gap_last = '{}', gap_horizon = '{}'")
        wait_for(lambda: world.kafka.count("anubis.subscriptions.sent") >= before + 400, 60, "most to be published again", interval=0.001)
        daemon.kill9()
        world.server.set_back(saved, recover=False)
        daemon.start()
        daemon.wait_log(SAID.format(newest=max(lost)), 60)
        world.send(30, 630)
        assert min(world.unique().keys() - lost.keys()) > max(lost)
        assert daemon.term() == 0


@pytest.mark.parametrize("known", [True, False], ids=["read", "read by nobody"])
def test_where_nothing_is_ours_the_look_ends(world, known):
    """It goes back to what our consumers have read, or to a time well before the database's own, and no further."""
    with world.daemon(log_level="debug") as daemon:
        world.send(10, 10)
        old = {"key": "1", "value": "{}", "partition": 0, "timestamp": 1700000000000}
        world.kafka.produce("anubis.subscriptions.failed", [old] * 20000)
        world.kafka.produce("anubis.subscriptions.failed", [{**old, "timestamp": 0}] * 300)
        offsets = "{s}.consumer_offsets where topic like '%%.failed' and partition = 0"
        wait_for(lambda: world.app.value(f"select min(next_offset) >= 20300 from {offsets}", ()), 60, "them to be read")
        assert daemon.term() == 0
        if not known:
            world.app.query(f"delete from {offsets}", ())
        daemon.start()
        world.send(10, 20)
        read = int(daemon.wait_log(r"read (\d+) messages to find our newest events")[1])
        assert 100 <= read < 3000 and "was set back" not in daemon.log
        assert daemon.term() == 0


def test_others_never_stop_writing(world):
    """The look ends where a partition ended when it began, though a partition's end is never reached."""
    stop = threading.Event()

    def write():
        _, producer = world.kafka.clients()
        while not stop.is_set():
            for _ in range(100):
                producer.produce("anubis.subscriptions.sent", key="x", value="{}", partition=0)
            producer.poll(0)
            stop.wait(0.001)
        producer.flush(30)
    with world.daemon() as daemon:
        saved, lost = world.lose()
        assert daemon.term() == 0
        world.server.set_back(saved, recover=False)
        with concurrent.futures.ThreadPoolExecutor() as pool:
            writes = pool.submit(write)
            try:
                world.app.subscriptions(world.integration, 30)
                daemon.start()
                daemon.wait_log(SAID.format(newest=max(lost)), 60)
            finally:
                stop.set()
            writes.result()
        assert "does not publish yet" not in daemon.log
        world.wait(80)
        assert min(world.unique().keys() - lost.keys()) > max(lost)
        assert daemon.term() == 0


def test_brokers_that_do_not_answer(own_postgres, institutions):
    """The relay waits for them as long as it takes, says for what, and publishes nothing; deliveries go on."""
    with EmbeddedBroker(brokers=3) as kafka:
        world = World(own_postgres(), kafka, institutions)
        with world.daemon() as daemon:
            saved, lost = world.lose()
            assert daemon.term() == 0
            for broker in (2, 3):
                kafka.down(broker)
            world.server.set_back(saved, recover=False)
            world.app.subscriptions(world.integration, 30)
            daemon.start()
            said = daemon.wait_log(r'it looks for this installation\'s newest events .* (\d+) partitions have not told them to the end, '
                                   r'such as partition \d of "anubis\.subscriptions\.', 60)
            assert 3 < int(said[1]) < 14
            world.app.wait_states(sent=80)
            status = Ctl(database=world.app.database)
            wait_for(lambda: re.search("WAITS: a look into Kafka since .*", status("status").stdout), 30,
                     lambda: status("status").stdout)
            assert status("status", "--json").json["relay_waits_for"] == "a look into Kafka"
            # A new client asks after 30 seconds, which is not said.
            wait_for(lambda: world.app.value("select now() > updated_at + interval '45 s' from {s}.relay_state"), 90, "most of a minute")
            assert daemon.log.count("does not publish yet") == 1 and "was set back" not in daemon.log
            assert world.app.value("select high from {s}.relay_state") == 150
            for broker in (2, 3):
                kafka.up(broker)
            daemon.wait_log(SAID.format(newest=max(lost)), 90)
            daemon.wait_log("every partition has told this installation's newest events")
            world.wait(80)
            assert min(world.unique().keys() - lost.keys()) > max(lost)
            assert "WAITS" not in status("status").stdout
            assert daemon.term() == 0


@pytest.mark.real_kafka
def test_transactions_of_strangers(own_postgres, real_kafka, topic_prefix, institutions):
    """One that hangs open before our newest events, and many behind them that were undone."""
    world = World(own_postgres(), real_kafka, institutions, topic_prefix)
    stranger = ck.Producer(real_kafka._settings(**{"transactional.id": "stranger", "transaction.timeout.ms": 600000}))
    another = ck.Producer(real_kafka._settings(**{"transactional.id": "another"}))

    def write(producer, count):
        producer.begin_transaction()
        for kind in ("created", "updated", "sent"):
            for n in range(3 * count):
                producer.produce(f"{topic_prefix}subscriptions.{kind}", key="x", value="{}", partition=n % 3)
        producer.flush(30)
    with world.daemon() as daemon:
        world.send(50, 50)
        saved = world.server.save()
        stranger.init_transactions(30)
        write(stranger, 1)
        world.app.subscriptions(world.integration, 40)
        world.app.wait_states(sent=90)
        world.wait_published()
        assert daemon.term() == 0
        world.server.set_back(saved, recover=False)
        another.init_transactions(30)
        for _ in range(60):
            write(another, 3)
            another.abort_transaction(30)
        world.app.subscriptions(world.integration, 30)
        daemon.start()
        newest = int(daemon.wait_log(SAID.format(newest=r"(\d+)"), 90)[1])
        assert newest == 90 * 3
        stranger.abort_transaction(30)
        world.wait(80)
        ids = sorted(world.unique().keys())
        assert len(ids) == 90 * 3 + 30 * 3 and ids[270] > newest
        assert daemon.term() == 0
