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


@pytest.mark.parametrize("count, more", [(150, {}), (3000, {}), (150, {"timestamp": 1700000000000})],
                         ids=["some", "many", "of old"])
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
    """Everything was being published again when the files were set back: the newest messages are known."""
    with world.daemon() as daemon:
        world.send(600, 600)
        saved = world.server.save()
        world.send(20, 620)
        lost = world.events()
        before = world.kafka.count("anubis.subscriptions.sent")
        world.app.query("update {s}.relay_state "
                        "set epoch = epoch + 1, high = 0, gap_first = '{}', gap_last = '{}', gap_horizon = '{}'")
        wait_for(lambda: world.kafka.count("anubis.subscriptions.sent") >= before + 400, 60,
                 "most to be published again", interval=0.001)
        daemon.kill9()
        world.server.set_back(saved, recover=False)
        daemon.start()
        daemon.wait_log(SAID.format(newest=max(lost)), 60)
        world.send(30, 630)
        assert min(world.unique().keys() - lost.keys()) > max(lost)
        assert daemon.term() == 0


@pytest.mark.parametrize("read", [True, False], ids=["read", "read by others alone"])
def test_copies_with_the_times_they_had_hide_nothing(world, read):
    """Of a mirror that starts over, say: the newest messages are old ones of ours, known, and of old times."""
    with world.daemon(consumers={"integration": read}) as daemon:
        world.counts = read
        world.send(50, 50)
        copied = [m for kind in KINDS[:3] for m in world.kafka.read_all(f"anubis.subscriptions.{kind}")]
        saved = world.server.save()
        world.send(40, 90)
        lost = world.events()
        assert daemon.term() == 0
        world.server.set_back(saved, recover=False)
        for kind in KINDS[:3]:
            topic = f"anubis.subscriptions.{kind}"
            world.kafka.produce(topic, 8 * [{"key": m.key, "value": m.value, "partition": m.partition, "headers": m.headers,
                                             "timestamp": m.timestamp_ms} for m in copied if m.topic == topic])
        go_on(world, daemon, lost)
        assert daemon.term() == 0


def test_an_offset_of_a_former_topic_is_not_believed(world):
    """The topics were made anew after the backup, and have grown beyond the offsets that the database remembers."""
    with world.daemon() as daemon:
        saved, lost = world.lose()
        assert daemon.term() == 0
        world.server.set_back(saved, recover=False)
        write_as_a_stranger(world, 300)
        # As if all had been read but the last ones of strangers: what is lost lies before.
        for topic in (f"anubis.subscriptions.{kind}" for kind in KINDS):
            world.app.query("update {s}.consumer_offsets set next_offset = %s where topic = %s",
                            (max(m.offset for m in world.kafka.read_all(topic)) - 120, topic))
        go_on(world, daemon, lost)
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
            assert not world.app.query("select from {s}.relay_reached where topic like '%%.failed'", ())
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
            daemon.wait_log("does not publish yet", 60)
            assert daemon.term(20) == 0
            daemon.start()
            said = daemon.wait_log(r"it looks for this installation's newest events .* (\d+) partitions have not told them "
                                   r'to the end, such as partition \d of "anubis\.subscriptions\.', 60)
            assert 3 < int(said[1]) < 14
            world.app.wait_states(sent=80)
            status = Ctl(database=world.app.database)
            wait_for(lambda: re.search("WAITS: a look into Kafka since .*", status("status").stdout), 30,
                     lambda: status("status").stdout)
            assert status("status", "--json").json["relay_waits_for"] == "a look into Kafka"
            # A new client asks after 30 seconds, which is not said.
            wait_for(lambda: world.app.value("select now() > updated_at + interval '45 s' from {s}.relay_state"), 90,
                     "most of a minute")
            assert daemon.log.count("does not publish yet") == 1 and "was set back" not in daemon.log
            assert world.app.value("select high from {s}.relay_state") == 150
            kafka.down(1)
            wait_for(lambda: "WAITS: Kafka is away" in status("status").stdout, 15, lambda: status("status").stdout)
            kafka.up(1)
            wait_for(lambda: "WAITS: a look into Kafka" in status("status").stdout, 60, lambda: status("status").stdout)
            for broker in (2, 3):
                kafka.up(broker)
            daemon.wait_log(SAID.format(newest=max(lost)), 90)
            daemon.wait_log("the relay knows this installation's newest events in Kafka, and publishes")
            world.wait(80)
            assert min(world.unique().keys() - lost.keys()) > max(lost)
            assert "WAITS" not in status("status").stdout
            assert daemon.term() == 0


def test_the_way_out_when_a_partition_is_lost(world):
    """The statement of anubisd(8), AFTER A RESTORE: what was written since the backup gets other ids by hand."""
    with world.daemon() as daemon:
        saved, lost = world.lose()
        assert daemon.term() == 0
        world.server.set_back(saved, recover=False)
        backup = world.app.value("select max(created_at) from {s}.subscription_events")
        world.app.subscriptions(world.integration, 30)
        assert world.app.query("select next_id, moved from {s}.ledger_renumber((select high from {s}.relay_state), 0, %s)",
                               (backup,)) == [(20000000031, 30)]
        daemon.start()
        world.wait(80)
        assert min(world.unique().keys() - lost.keys()) == 20000000001
        assert "Kafka has events of this installation" not in daemon.log
        assert daemon.term() == 0


# --- messages in our name that somebody else wrote ---

FAR = 2**52
PASSED = r'passes over a message in the name of this installation at offset \d+ of "anubis\.subscriptions\.sent", partition 0'
END = r'the ids of the ledger come to their end: [^"]*"(alter sequence anubis\.ledger_id_seq maxvalue \d+)"'
INVENTED = [FAR, FAR - 5 * 10**10, 2**63 - 1, 2**63, 2 * 10**12, 0, -1, "", "x" * 300, "1\n2"]


def forge(world, sequence, kind="sent", partition=0, count=1, **more):
    headers = [("sequence", str(sequence)), ("timestamp", "2026-01-01T00:00:00.000000Z"), ("installation", world.name),
               ("event_id", f"forged {sequence}")]
    message = {"key": "1", "value": "{}", "partition": partition, "headers": headers, **more}
    world.kafka.produce(f"anubis.subscriptions.{kind}", [message] * count)


def test_an_invented_id_is_not_obeyed(world):
    """One far ahead, and then all kinds of them."""
    with world.daemon() as daemon:
        world.send(10, 10)
        for sent, invented in (10, INVENTED[:1]), (20, INVENTED):
            assert daemon.term() == 0
            before = world.app.value("select last_value from {s}.ledger_id_seq")
            for sequence in invented:
                forge(world, sequence, timestamp=1700000000000)
            daemon.start()
            world.send(10, sent + 10)
            daemon.wait_log(PASSED)
            assert world.app.value("select last_value from {s}.ledger_id_seq") == before + 30
        daemon.wait_log(f"has passed over {len(INVENTED) + 1} messages in Kafka in the name of this installation")
        assert "was set back" not in daemon.log and daemon.term() == 0


def test_invented_ids_hide_nothing(world):
    """More of them than are read at first, in every partition behind all of ours, and old by their clock."""
    with world.daemon() as daemon:
        saved, lost = world.lose()
        assert daemon.term() == 0
        world.server.set_back(saved, recover=False)
        for kind in KINDS:
            for partition in range(world.kafka.topics()[f"anubis.subscriptions.{kind}"]):
                forge(world, FAR, kind, partition, 150, timestamp=1700000000000)
        daemon.start()
        daemon.wait_log(SAID.format(newest=max(lost)), 60)
        assert daemon.wait_log(r"has passed over (\d+) messages in Kafka in the name of this installation")[1] == str(14 * 150)
        assert daemon.log.count("passes over a message") == 1 and daemon.term() == 0


def test_an_id_that_may_be_ours_is_obeyed(world):
    """A hundred leaps ahead, and one more is not."""
    with world.daemon() as daemon:
        world.send(10, 10)
        last = world.app.value("select last_value from {s}.ledger_id_seq")
        assert daemon.term() == 0
        forge(world, last + 10**12 + 1)
        forge(world, last + 10**12, partition=1)
        daemon.start()
        daemon.wait_log(SAID.format(newest=last + 10**12))
        world.send(10, 20)
        assert world.app.value("select min(id) from {s}.subscription_events where id > %s", (last,)) > last + 10**12
        assert daemon.term() == 0


def test_leaps_near_the_sequences_end(world):
    """They get smaller; where hardly any id is left the daemon waits, says the statement that helps, and goes on by itself."""
    with world.daemon() as daemon:
        world.send(10, 10)
        assert daemon.term() == 0
        world.app.query("select setval('{s}.ledger_id_seq', %s)", (FAR - 10**10,))
        forge(world, FAR - 4 * 10**9)
        daemon.start()
        daemon.wait_log(f"Ids go on at {FAR - 2 * 10**9 + 1}")
        world.send(10, 20)
        assert daemon.term() == 0
        forge(world, FAR - 10**5)
        daemon.start()
        said = daemon.wait_log(END)[1]
        status = Ctl(database=world.app.database)
        wait_for(lambda: "WAITS: a look into Kafka" in status("status").stdout, 30, lambda: status("status").stdout)
        world.app.query(said)
        world.send(10, 30)
        assert max(world.unique()) > FAR
        assert daemon.term() == 0


def test_the_sequence_is_at_its_end(world):
    """The application can go on to the last id; the daemon says before what will be."""
    with world.daemon() as daemon:
        world.send(10, 10)
        world.app.query("select setval('{s}.ledger_id_seq', %s)", (FAR - 1000,))
        world.app.subscriptions(world.integration, 5)
        said = daemon.wait_log(END, 60)[1]
        world.app.query(said)
        world.wait(15)
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
