"""The harness does what the other tests take for granted."""
import concurrent.futures
import email.utils
import gzip
import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import time
import uuid
import zlib

import psycopg2
import pytest
from harness import processes
from harness.anubis import libconfig, merged
from harness.certificates import Certificates
from harness.institutions import Institutions
from harness.kafka import TOPICS
from harness.people import People, cpf_is_valid
from harness.processes import Child, Deadline, wait_for
from harness.toxic import Proxy

HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer x"}


def post(institutions, path, body=b'{"a": 1}', key=None, timeout=5, headers=None, connection=None):
    """(status, headers, body) of one POST."""
    c = connection or http.client.HTTPConnection("127.0.0.1", institutions.port, timeout=timeout)
    try:
        c.request("POST", path, body, {**HEADERS, "Idempotency-Key": key or str(uuid.uuid4()), **(headers or {})})
        answer = c.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        if not connection:
            c.close()


def raw_post(institutions, path, body=b"{}", announced=None, seconds=1.0, key="raw"):
    """What comes back on a plain socket within so many seconds, and how it ended: closed, reset or open."""
    head = (f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nAuthorization: x\r\n"
            f"Idempotency-Key: {key}\r\nContent-Length: {announced or len(body)}\r\n\r\n").encode()
    found, end = b"", time.monotonic() + seconds
    with socket.create_connection(("127.0.0.1", institutions.port)) as s:
        s.sendall(head + body)
        while time.monotonic() < end:
            s.settimeout(max(0.01, end - time.monotonic()))
            try:
                data = s.recv(65536)
            except ConnectionResetError:
                return found, "reset"
            except TimeoutError:
                break
            if not data:
                return found, "closed"
            found += data
    return found, "open"


# --- institutions ---


def test_good_answers_and_counts(institutions):
    assert post(institutions, "/good/usp")[0] == 200
    status, headers, body = post(institutions, "/good/usp")
    assert (status, headers["Content-Type"], json.loads(body)) == (200, "application/json", {"status": "accepted"})
    post(institutions, "/good/unicamp")
    counts = institutions.counts()
    assert counts["paths"]["/good/usp"]["requests"] == 2 and counts["paths"]["/good/unicamp"]["requests"] == 1
    assert counts["total"]["statuses"] == {"200": 3} and counts["total"]["violations"] == {}
    institutions.reset_counts()
    assert institutions.counts()["total"]["requests"] == 0 and institutions.keys() == {}


def test_keys_are_remembered(institutions):
    before = time.time()
    for path in ("/good", "/good", "/reject/500"):
        post(institutions, path, key="the-key")
    history = institutions.key("the-key")
    assert (history["path"], history["received"], history["acknowledged"]) == ("/good", 3, 2)
    assert [r["status"] for r in history["receipts"]] == [200, 200, 500]
    assert all(before - 1 < r["at_usec"] / 1e6 < time.time() + 1 for r in history["receipts"])
    assert institutions.key("unknown") is None
    key = institutions.keys()["the-key"]
    assert (key.received, key.acknowledged) == (3, 2) and key.first_usec == history["receipts"][0]["at_usec"]
    counts = institutions.counts("/good")
    assert (counts["keys"], counts["received_again"], counts["acknowledged_again"]) == (1, 1, 1)
    assert institutions.counts("/reject/500")["violations"] == {"idempotency_key_at_another_path": 1}


def test_ten_thousand_keys(institutions):
    connection = http.client.HTTPConnection("127.0.0.1", institutions.port)
    sent = [str(uuid.UUID(int=i)) for i in range(10000)]
    for key in sent:
        post(institutions, "/good/many", key=key, connection=connection)
    connection.close()
    found = institutions.keys("/good/many")
    assert set(found) == set(sent) and all(k.received == k.acknowledged == 1 for k in found.values())
    assert institutions.keys("/good/other") == {}


@pytest.mark.parametrize("headers, body, violation", [
    ({"Content-Type": "text/plain"}, b"{}", "content_type"),
    ({}, b"{", "json"), ({}, b"", "json"), ({}, b'"\xff"', "json"),
    ({"Idempotency-Key": ""}, b"{}", "idempotency_key_missing"),
    ({"Idempotency-Key": "x" * 40}, b"{}", "idempotency_key_long"),
])
def test_violations(institutions, headers, body, violation):
    post(institutions, "/good", body, headers=headers)
    assert institutions.violations() == {violation: 1}


def test_wrong_method_and_no_token(institutions):
    c = http.client.HTTPConnection("127.0.0.1", institutions.port)
    c.request("PUT", "/good", "{}", {"Content-Type": "application/json", "Idempotency-Key": "k"})
    assert c.getresponse().status == 200
    c.close()
    assert institutions.violations() == {"method": 1, "authorization": 1}


def test_last_request_is_kept(institutions):
    body = '{"n": 9007199254740993, "s": "ação"}'.encode()
    post(institutions, "/good/kept", body, key="k1", headers={"User-Agent": "anubisd/test"})
    line, headers, text = institutions.last("/good/kept")
    assert line == "POST /good/kept" and text.encode() == body
    assert headers["user-agent"] == "anubisd/test" and headers["idempotency-key"] == "k1"


def test_slow_waits_without_a_thread(institutions):
    start = time.monotonic()
    with concurrent.futures.ThreadPoolExecutor(64) as pool:
        done = list(pool.map(lambda _: post(institutions, "/slow/400")[0], range(128)))
    took = time.monotonic() - start
    assert done == [200] * 128 and took >= 0.8
    assert institutions.child.status("Threads") <= 4
    assert post(institutions, "/good?delay=300")[0] == 200 and time.monotonic() - start - took >= 0.3


def test_slow_lets_go_of_clients_that_left(institutions):
    before = institutions.child.descriptors()
    for _ in range(20):
        with pytest.raises(TimeoutError):
            post(institutions, "/silent", timeout=0.05)
    wait_for(lambda: institutions.child.descriptors() <= before, what="the server to close abandoned connections")
    assert institutions.counts("/silent")["statuses"] == {"0": 20}


def test_flaky_is_deterministic_and_gives_way(institutions):
    keys = [f"key-{i}" for i in range(400)]
    first = [post(institutions, "/flaky/30/a", key=k)[0] for k in keys]
    assert set(first) == {200, 500} and 80 < first.count(500) < 160
    todo = [k for k, status in zip(keys, first) if status == 500]
    for _ in range(20):
        todo = [k for k in todo if post(institutions, "/flaky/30/a", key=k)[0] == 500]
    assert not todo
    institutions.reset_counts()
    assert [post(institutions, "/flaky/30/a", key=k)[0] for k in keys] == first
    assert post(institutions, "/flaky/0")[0] == 200 and post(institutions, "/flaky/100")[0] == 500


def test_dead_and_reject(institutions):
    assert {post(institutions, "/dead")[0] for _ in range(6)} == {502, 503}
    for code in (201, 202, 204, 302, 400, 401, 403, 404, 409, 410, 413, 422, 429, 500, 503, 599):
        assert post(institutions, f"/reject/{code}")[0] == code
    assert post(institutions, "/reject/503?retry_after=7")[1]["Retry-After"] == "7"
    date = post(institutions, "/reject/429?retry_after_date=9")[1]["Retry-After"]
    assert 5 < email.utils.parsedate_to_datetime(date).timestamp() - time.time() < 10
    assert post(institutions, "/no-such-character")[0] == 404


def test_limited(institutions):
    answers = [post(institutions, "/limited/5") for _ in range(12)]
    statuses = [a[0] for a in answers]
    assert statuses[:5] == [200] * 5 and 429 in statuses
    assert next(a for a in answers if a[0] == 429)[1]["Retry-After"] == "1"
    wait_for(lambda: post(institutions, "/limited/5")[0] == 200, 3, "the limit to recover")


@pytest.mark.parametrize("path, ended, full", [
    ("/reset", "reset", True), ("/reset-before", "reset", False), ("/close", "closed", True),
    ("/close-before", "closed", False),
])
def test_ends_without_an_answer(institutions, path, ended, full):
    assert raw_post(institutions, path) == (b"", ended)
    counts = institutions.counts(path)
    assert (counts["requests"], counts["cut_short"]) == ((1, 0) if full else (0, 1))
    assert counts["acknowledged"] == 0 and (institutions.key("raw") is not None) == full


def test_reset_before_the_body_came(institutions):
    assert raw_post(institutions, "/reset-before", b"{", announced=100000) == (b"", "reset")


@pytest.mark.parametrize("path", ["/second-close", "/second-reset"])
def test_second_request_of_a_connection(institutions, path):
    c = http.client.HTTPConnection("127.0.0.1", institutions.port)
    assert post(institutions, path, key="first", connection=c)[0] == 200
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        post(institutions, path, key="second", connection=c)
    c.close()
    assert institutions.key("second")["received"] == 1 and institutions.key("second")["acknowledged"] == 0


def test_silent(institutions):
    assert raw_post(institutions, "/silent", seconds=0.5) == (b"", "open")
    assert institutions.counts("/silent")["requests"] == 1


def test_bodies(institutions):
    assert len(post(institutions, "/huge/5000000")[2]) == 5000000
    with pytest.raises(UnicodeDecodeError):
        post(institutions, "/latin1")[2].decode()
    status, _, body = post(institutions, "/echo", b'{"n": 1e400}')
    assert status == 200 and b'"body": {"n": 1e400}' in body
    got, ended = raw_post(institutions, "/endless", seconds=0.5)
    assert len(got) > 1000000 and ended == "open"
    got, ended = raw_post(institutions, "/drip", seconds=1.5)
    assert got.startswith(b"HTTP/1.1 200") and got.partition(b"\r\n\r\n")[2].strip(b" ") == b"" and ended == "open"


def test_compressed_bomb(institutions):
    status, headers, body = post(institutions, "/gzip/20640000", timeout=20)
    assert status == 200 and headers["Content-Encoding"] == "gzip" and len(body) < 140000
    unpacked = zlib.decompressobj(31).decompress(body)
    assert len(unpacked) > 20000000 and not unpacked.strip(b"\0")
    with pytest.raises(EOFError):  # it has no end
        gzip.decompress(body)


def test_answers_that_break_the_protocol(institutions):
    got, ended = raw_post(institutions, "/endless-headers", seconds=0.5)
    assert got.startswith(b"HTTP/1.1 200 OK\r\nX-More") and b"\r\n\r\n" not in got and len(got) > 100000
    assert ended == "open"
    got, ended = raw_post(institutions, "/continues", seconds=0.5)
    assert got.count(b"100 Continue") > 3 and ended == "open"
    got, ended = raw_post(institutions, "/hints")
    assert got.startswith(b"HTTP/1.1 103") and b"HTTP/1.1 201" in got and ended == "closed"
    got, ended = raw_post(institutions, "/garbage")
    assert got and not got.startswith(b"HTTP") and ended == "closed"
    got, ended = raw_post(institutions, "/cut")
    assert got.startswith(b"HTTP/1.1 200") and b"100000" in got and ended == "reset"
    got, ended = raw_post(institutions, "/short")
    assert b"Content-Length: 1000" in got and got.endswith(b"{}") and ended == "closed"


def test_answers_before_the_body_came(institutions):
    got, _ = raw_post(institutions, "/early", b"{", announced=10000000)
    assert got.startswith(b"HTTP/1.1 200 OK")
    assert post(institutions, "/early", b'"' + b"x" * 3000000 + b'"')[0] == 200
    got, _ = raw_post(institutions, "/early-reject", b"{", announced=10000000)
    assert got.startswith(b"HTTP/1.1 413")
    assert institutions.counts("/early")["cut_short"] == 2


def test_institutions_over_tls_on_many_ports():
    certificates, other = Certificates(), Certificates()
    with Institutions(certificates=certificates, more_ports=20) as institutions:
        assert len({institutions.port, *institutions.ports}) == 21
        trusting = ssl.create_default_context(cafile=certificates.root)
        for port in (institutions.port, *institutions.ports):
            for host in ("127.0.0.1", "localhost"):
                c = http.client.HTTPSConnection(host, port, timeout=20, context=trusting)
                assert post(institutions, "/good", connection=c)[0] == 200
                assert post(institutions, "/echo", connection=c)[0] == 200
                c.close()
        assert institutions.counts("/good")["requests"] == 42
        assert institutions.url("/x", institutions.ports[3]) == f"https://127.0.0.1:{institutions.ports[3]}/x"
        c = http.client.HTTPSConnection("127.0.0.1", institutions.port, context=ssl.create_default_context(cafile=other.root))
        with pytest.raises(ssl.SSLCertVerificationError):
            c.connect()


def test_become(institutions):
    assert post(institutions, "/good/usp")[0] == 200
    institutions.become("/good/usp", "/reject/418")
    assert post(institutions, "/good/usp")[0] == 418 and post(institutions, "/good/other")[0] == 200
    institutions.become("/good/usp")
    assert post(institutions, "/good/usp")[0] == 200
    assert institutions.counts("/good/usp")["statuses"] == {"200": 2, "418": 1}


def test_institutions_die_and_come_back_on_the_same_port(institutions):
    port = institutions.port
    institutions.kill9()
    with pytest.raises(ConnectionRefusedError):
        post(institutions, "/good")
    institutions.start()
    assert institutions.port == port and post(institutions, "/good")[0] == 200


def test_institutions_end_with_many_open(institutions):
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        waiting = [pool.submit(raw_post, institutions, path, seconds=20)
                   for path in ("/silent", "/slow/60000", "/drip", "/endless-headers") * 8]
        wait_for(lambda: institutions.counts()["total"]["requests"] == 32, what="all requests to be received")
        assert institutions.child.terminate(10) == 0
        assert {w.result()[1] for w in waiting} <= {"closed", "reset"}


# --- processes ---


def test_child_output_and_signals():
    with Child(["sh", "-c", "echo to stdout; echo to stderr >&2; echo $ANUBIS_HARNESS; exec sleep 60"]).start() as child:
        child.wait_output("to stderr")
        assert processes.TOKEN in child.output and child.pid in processes.leftovers()
        child.stop()
        child.cont()
        assert child.is_running() and child.terminate() == -15
        assert child.pid not in processes.leftovers()


def test_child_with_a_will_of_its_own_is_killed_with_its_children():
    with Child(["sh", "-c", "trap '' TERM; sleep 61 & echo up; wait; wait"]).start() as child:
        child.wait_output("up")
        below = processes.descendants(child.pid)
        assert below
        child.kill9()
    wait_for(lambda: not any(processes.is_alive(p) for p in below) or
             [os.kill(p, 9) for p in below if processes.is_alive(p)], what="the grandchild to go")


def test_wait_for_says_what_it_waited_for():
    with pytest.raises(Deadline, match="the moon"):
        wait_for(lambda: False, 0.1, "the moon")
    with pytest.raises(Deadline, match="ZeroDivisionError"):
        wait_for(lambda: 1 / 0, 0.1)


def test_configuration_syntax():
    text = libconfig({"instance": 'a"b\\c', "delivery": {"batch_size": 5, "allow_http": True},
                      "alerts": {"failure_rate": 0.5}, "kafka": {"properties": {"linger_ms": 5}}})
    assert text == ('instance = "a\\"b\\\\c";\ndelivery: {\n    batch_size = 5;\n    allow_http = true;\n};\n'
                    'alerts: {\n    failure_rate = 0.5;\n};\nkafka: {\n    properties = { linger_ms = 5; };\n};\n')
    assert merged({"a": {"x": 1, "y": 2}}, {"a": {"x": None, "z": 3}}) == {"a": {"y": 2, "z": 3}}


# --- people ---


def test_people_are_the_same_for_the_same_seed():
    assert list(People(7).enrolments(50)) == list(People(7).enrolments(50))
    assert list(People(7).enrolments(50)) != list(People(8).enrolments(50))


def test_people_have_valid_documents():
    everybody = list(People(1).enrolments(2000))
    assert all(cpf_is_valid(e["cpf"]) for e in everybody)
    assert len({e["cpf"] for e in everybody}) == 2000
    assert not cpf_is_valid("11111111111") and cpf_is_valid("529.982.247-25") and not cpf_is_valid("529.982.247-26")
    assert all(e["payload"]["aluno"]["email"].isascii() for e in everybody)


# --- Postgres ---


def test_postgres_versions(own_postgres, postgres_version):
    server = own_postgres(version=postgres_version)
    assert server.value("show server_version").startswith(postgres_version)
    assert server.value("show timezone") == "UTC" and server.value("show fsync") == "off"
    database = server.create_database("x")
    with psycopg2.connect(database.conninfo(tcp=True)) as connection:
        assert connection.server_version // 10000 == int(postgres_version)
    connection.close()


def test_postgres_survives_kill9(own_postgres):
    server = own_postgres(settings={"work_mem": "5MB"})
    server.query("create table t (x int)")
    server.query("insert into t select generate_series(1, 1000)")
    old = server.connect()
    server.kill9()
    with pytest.raises(psycopg2.OperationalError):
        server.query("select 1")
    server.start()
    assert server.value("select count(*) from t") == 1000 and server.value("show work_mem") == "5MB"
    with pytest.raises(psycopg2.DatabaseError):
        old.cursor().execute("select 1")
    server.restart("immediate", work_mem="6MB")
    assert server.value("select count(*) from t") == 1000 and server.value("show work_mem") == "6MB"


def test_postgres_backend_killed(own_postgres):
    server = own_postgres()
    victim = server.connect(application_name="victim")
    bystander = server.connect()
    [pid] = server.backends("victim")
    server.kill_backend(pid)

    def is_broken(connection):
        try:
            connection.cursor().execute("select 1")
        except psycopg2.Error:
            return True
        return False
    for connection in (victim, bystander):
        wait_for(lambda c=connection: is_broken(c), what="the server to end all its sessions")
    wait_for(lambda: server.value("select 1") == 1, what="recovery")


def test_postgres_freezes(own_postgres):
    server = own_postgres()
    connection = server.connect()
    server.freeze()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        answer = pool.submit(connection.cursor().execute, "select 1")
        with pytest.raises(concurrent.futures.TimeoutError):
            answer.result(0.3)
        server.thaw()
        answer.result(10)


def test_postgres_databases(postgres_server):
    template = postgres_server.create_database("template_x")
    template.query("create table t as select 42 as x")
    copy = postgres_server.create_database("copy_x", "template_x")
    assert copy.value("select x from t") == 42
    connection = copy.connect()
    copy.drop()
    template.drop()
    with pytest.raises(psycopg2.DatabaseError):
        connection.cursor().execute("select 1")


def test_the_looks_of_a_wait_share_a_session(postgres_server):
    pids = []

    def look():
        """Each look at a session that is as new, also after one that ended with an error."""
        settings, locks = postgres_server.query("select current_setting('my.own', true), (select count(*) from pg_locks "
                                                "where locktype = 'advisory' and pid = pg_backend_pid())")[0]
        assert not settings and locks == 0
        pids.append(postgres_server.value("set my.own = 'kept'; prepare look as select 1; create temp table look (); "
                                          "select pg_backend_pid(), pg_advisory_lock(1)"))
        if len(pids) == 3:
            os.kill(pids[-1], signal.SIGTERM)
            wait_for(lambda: pids[-1] not in postgres_server.backends(), what="the session to end")
        if len(pids) == 5:
            postgres_server.query("select 1 / 0")
        return len(pids) == 7
    wait_for(look)
    assert pids[0] == pids[1] == pids[2] != pids[3] == pids[4] != pids[5] == pids[6]
    wait_for(lambda: not set(pids) & set(postgres_server.backends()), what="its sessions to end")
    assert postgres_server.value("select pg_backend_pid()") != postgres_server.value("select pg_backend_pid()")


# --- Kafka ---


def produce_and_read(cluster, topic, **settings):
    messages = [(str(i), b'{"i": %d}' % i, {"sequence": str(i), "origin": "é".encode()}) for i in range(1000)]
    cluster.produce(topic, messages, **settings)
    found = cluster.read_all(topic)
    assert sorted(int(m.key) for m in found) == list(range(1000))
    assert all(m.value == b'{"i": %d}' % int(m.key) for m in found)
    assert all(m.headers == {"sequence": m.key, "origin": "é"} for m in found)
    assert len({m.partition for m in found}) > 1 and cluster.count(topic) == 1000
    for partition in {m.partition for m in found}:
        keys = [int(m.key) for m in found if m.partition == partition]
        assert keys == sorted(keys)


def consume_some(cluster, topic, group, count, **settings):
    """Reads `count` messages as a member of the group and commits."""
    consumer = cluster._consumer(group, **settings)
    try:
        consumer.subscribe([topic])
        found = []
        wait_for(lambda: found.extend(m for m in consumer.consume(count - len(found), timeout=0.2) if not m.error())
                 or len(found) == count, 60, f"{count} messages of {topic}")
        consumer.commit(asynchronous=False)
        return found
    finally:
        consumer.close()


@pytest.mark.parametrize("settings", [{}, {"enable.idempotence": True, "compression.type": "lz4"}],
                         ids=["plain", "idempotent-lz4"])
def test_embedded_broker(broker, settings):
    assert broker.topics() == {"anubis." + name: n for name, n in TOPICS.items()}
    produce_and_read(broker, "anubis.subscriptions.sent", **settings)
    assert broker.read_all("anubis.alerts") == []


@pytest.mark.parametrize("settings", [
    {"partition.assignment.strategy": "range"},
    {"partition.assignment.strategy": "cooperative-sticky", "group.instance.id": "one"},
], ids=["range", "cooperative-static"])
def test_embedded_broker_groups(broker, settings):
    """It takes group.instance.id but knows no static members: one that comes back waits until its former self has
    timed out, hence the short session."""
    topic = "anubis.subscriptions.sent"
    broker.produce(topic, [(str(i), b"{}") for i in range(100)])
    settings["session.timeout.ms"] = 6000
    consume_some(broker, topic, "g", 60, **settings)
    assert sum(broker.group_offsets("g", [topic]).values()) == 60 and broker.lag("g", [topic]) == 40
    consume_some(broker, topic, "g", 40, **settings)
    assert broker.lag("g", [topic]) == 0


def test_embedded_broker_down_and_up(broker):
    broker.produce("anubis.alerts", [("1", b"x")])
    broker.down()
    with pytest.raises(AssertionError, match="not delivered"):
        broker.produce("anubis.alerts", [("2", b"x")], deadline=1)
    broker.up()
    broker.produce("anubis.alerts", [("3", b"x")])
    assert [m.key for m in broker.read_all("anubis.alerts")] == ["1", "3"]
    broker.create_topic("other", 5)
    assert broker.topics()["other"] == 5
    broker.error(0, -195, 2)
    broker.produce("other", [("1", b"x")])
    assert broker.count("other") == 1


@pytest.mark.real_kafka
def test_real_kafka(real_kafka, topic_prefix):
    topic = topic_prefix + "t"
    real_kafka.create_topic(topic, 3)
    produce_and_read(real_kafka, topic, **{"enable.idempotence": True, "compression.type": "lz4"})
    consume_some(real_kafka, topic, "g", 600, **{"partition.assignment.strategy": "cooperative-sticky",
                                                 "group.instance.id": "one"})
    assert sum(real_kafka.group_offsets("g", [topic]).values()) == 600
    real_kafka.create_partitions(topic, 5)
    assert real_kafka.topics()[topic] == 5


@pytest.mark.real_kafka
def test_real_kafka_survives_kill9(real_kafka, topic_prefix):
    topic = topic_prefix + "t"
    real_kafka.create_topic(topic, 2)
    real_kafka.produce(topic, [(str(i), b"x") for i in range(500)])
    consume_some(real_kafka, topic, topic_prefix + "g", 500)
    real_kafka.kill9()
    real_kafka.start()
    wait_for(lambda: real_kafka.count(topic) == 500, 60, "the messages to be back")
    assert real_kafka.lag(topic_prefix + "g", [topic]) == 0
    real_kafka.delete_topic(topic)


# --- the proxy ---


def test_proxy_cuts_and_stalls(institutions):
    with Proxy(("127.0.0.1", institutions.port)) as proxy:
        def through(timeout=5):
            c = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=timeout)
            try:
                return post(institutions, "/good", connection=c)[0]
            finally:
                c.close()
        assert through() == 200
        c = http.client.HTTPConnection("127.0.0.1", proxy.port)
        assert post(institutions, "/good", connection=c)[0] == 200
        proxy.cut()
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            post(institutions, "/good", connection=c)
        c.close()
        assert through() == 200
        proxy.stall()
        with pytest.raises(TimeoutError):
            through(0.3)
        proxy.resume()
        assert through() == 200
        proxy.down()
        with pytest.raises(ConnectionRefusedError):
            through()
        proxy.up()
        assert through() == 200
        before = institutions.counts("/good")["requests"]
        proxy.cut_after(20)
        with pytest.raises((ConnectionError, http.client.HTTPException)):
            through()
        assert institutions.counts("/good")["requests"] == before and through() == 200


def test_proxy_passes_large_amounts(institutions):
    with Proxy(f"127.0.0.1:{institutions.port}") as proxy:
        c = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=30)
        assert post(institutions, "/good", b'"' + b"x" * 20_000_000 + b'"', connection=c)[0] == 200
        assert len(post(institutions, "/huge/30000000", connection=c)[2]) == 30_000_000
        c.close()
        assert proxy.bytes_up > 20_000_000 and proxy.bytes_down > 30_000_000
    assert institutions.violations() == {}


def test_proxy_before_postgres(own_postgres):
    server = own_postgres()
    with Proxy(("127.0.0.1", server.port)) as proxy:
        connection = psycopg2.connect(host="127.0.0.1", port=proxy.port, user="postgres", dbname="postgres")
        connection.cursor().execute("select 1")
        proxy.cut()
        with pytest.raises(psycopg2.DatabaseError):
            connection.cursor().execute("select 1")


def checkout(folder):
    """Where run-checks finds no tests but those that are written there; the folder for them."""
    tests = folder / "tests"
    tests.mkdir()
    shutil.copy(pathlib.Path(__file__).with_name("run-checks"), tests)
    (folder / "build").mkdir()
    for program in ("anubisd", "anubisctl"):
        (folder / "build" / program).symlink_to("/bin/true")
    return tests


@pytest.mark.parametrize("fickle, broken, said", [
    (0, 0, "1 passed, 0 failed"), (1, 0, "2 passed, 0 failed"), (6, 0, "7 passed, 0 failed"), (7, 0, "1 passed, 7 failed"),
    (1, 1, "2 passed, 1 failed")])
def test_a_test_that_failed_beside_others_is_run_once_more_alone(tmp_path, fickle, broken, said):
    tests = checkout(tmp_path)
    fickle_test = ("import pathlib, pytest\n"
                   f"@pytest.mark.parametrize('name', {[f'a.b[{i}]' for i in range(fickle)]})\n"
                   "def test_fickle(name):\n"
                   "    marker = pathlib.Path(__file__).with_name(name)\n"
                   "    was_here = marker.exists()\n"
                   "    marker.touch()\n"
                   "    assert was_here\n")
    (tests / "test_some.py").write_text("def test_good(): pass\n" + fickle_test * bool(fickle)
                                        + "def test_broken(): assert False\n" * broken, encoding="utf-8")
    done = subprocess.run([tests / "run-checks"], env={"PATH": os.environ["PATH"]}, text=True, capture_output=True, check=False,
                          timeout=300)
    assert done.stdout.splitlines()[-1] == said, done.stdout
    assert (done.returncode == 0) == ("0 failed" in said)
    assert done.stdout.count("failed beside others and passed alone") == (fickle if fickle <= 6 else 0)
    assert done.stdout.count("fails alone, too") == broken


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("chosen", [[], ["tests"]])
def test_a_signal_ends_the_tests_that_run_and_begins_no_others(tmp_path, number, chosen):
    tests = checkout(tmp_path)
    for i in range(20):
        (tests / f"test_{i}.py").write_text(
            "import os, pathlib, signal, time\n"
            "def test_it():\n"
            "    def end(*_): raise KeyboardInterrupt\n"
            "    signal.signal(signal.SIGTERM, end)\n"
            "    try:\n"
            f"        pathlib.Path('began.{i}').touch()\n"
            "        time.sleep(300)\n"
            f"    finally: pathlib.Path('ended.{i}').write_text(os.environ.get('ANUBIS_SCRATCH', ''))\n", encoding="utf-8")
    checks = Child([tests / "run-checks", *chosen], name="checks", folder=str(tmp_path),
                   env={key: None for key in os.environ if key != "PATH"}).start()
    wait_for(lambda: list(tmp_path.glob("began.*")), 60, lambda: f"a test to begin: {checks.tail()}")
    checks.signal(number)
    assert checks.wait(30) == 128 + number
    began = {path.suffix for path in tmp_path.glob("began.*")}
    ended = {path.suffix: path.read_text(encoding="utf-8") for path in tmp_path.glob("ended.*")}
    assert began == set(ended) and len(began) <= 8
    assert not any(folder and os.path.exists(folder) for folder in ended.values())
