"""Kafka over TLS: what is wrong with a listener is said once, with what mends it, and not at each try."""
import re
from types import SimpleNamespace

import pytest
from harness.anubis import Ctl
from harness.certificates import Certificates
from harness.processes import wait_for
from harness.scripted import Script, ScriptedServer

TRIES = 20  # connections of four clients
UNTRUSTED = "the broker's certificate cannot be trusted: "


@pytest.fixture(name="certificates", scope="module")
def _certificates():
    return Certificates()


@pytest.fixture(name="listener")
def _listener(certificates):
    """listener(server's name, names, days): a server with such a certificate, which says nothing itself."""
    servers = []

    def make(*arguments):
        chain, key = certificates.server(*arguments)
        servers.append(ScriptedServer(Script(after="hold"), SimpleNamespace(chain=chain, key=key)))
        return servers[-1]
    yield make
    for server in servers:
        server.close()


def settings_for(address, protocol, ca=None):
    properties = {"reconnect_backoff_max_ms": 1000, **({"ssl_ca_location": ca} if ca else {})}
    return {"log_level": "info", "kafka": {"brokers": address, "security_protocol": protocol, "properties": properties}}


def said(daemon):
    """What it says about Kafka, without the time and who says it."""
    return [re.sub(r"^\S+ warning: (anubis-\w+-group: )?", "", line) for line in daemon.log.splitlines()
            if re.search(r" warning: .*(could not reach Kafka|Kafka says|Kafka client)", line)]


def check(daemon, settings, app, words):
    assert len(said(daemon)) == 4 and all(words in line for line in said(daemon)), said(daemon)
    assert not any("(after" in line for line in said(daemon)), said(daemon)
    app.query("insert into {s}.consumer_offsets (consumer_group, topic, partition, next_offset, read_model) "
              "values ('anubis-integration-group', 'anubis.subscriptions.sent', 0, 5, 'integration')")
    command = Ctl(settings, database=app.database)("replay", "--group", "integration", "--from", "2026-01-01")
    assert words in command.expect(69).stderr, command
    assert daemon.term() == 0


@pytest.mark.parametrize("name,names,days,trusted,words", [
    ("unknown", None, 2, False, UNTRUSTED + "it is signed by an authority that is not trusted here; name that authority's "
     "certificate with ssl_ca_location in kafka.properties"),
    ("expired", None, -1, True, UNTRUSTED + "it, or one above it, has expired"),
    ("other", "DNS:kafka.example", 2, True, UNTRUSTED + "it does not name this address"),
], ids=lambda v: v if isinstance(v, str) and v.isalpha() else "")
def test_a_certificate_that_cannot_be_trusted(app, make_daemon, certificates, listener, name, names, days, trusted, words):
    server = listener(name, names, days)
    settings = settings_for(server.url.split("/")[2], "ssl", (certificates if trusted else Certificates()).root)
    daemon = make_daemon(settings, kafka=None).start()
    wait_for(lambda: server.connections >= TRIES, 60, lambda: f"{TRIES} tries, so far {server.connections}")
    check(daemon, settings, app, words)


def test_no_tls_where_it_is_expected(app, make_daemon, listener):
    server = listener("good")
    settings = settings_for(server.url.split("/")[2], "plaintext")
    daemon = make_daemon(settings, kafka=None).start()
    wait_for(lambda: server.connections >= TRIES, 60, lambda: f"{TRIES} tries, so far {server.connections}")
    check(daemon, settings, app, "connections end before a broker has said anything; a listener with TLS does that (see "
          "kafka.security_protocol)")


def test_tls_where_it_is_not_expected(app, broker, make_daemon, certificates):
    settings = settings_for(broker.bootstrap, "ssl", certificates.root)
    daemon = make_daemon(settings, kafka=None).start()
    wait_for(lambda: len(said(daemon)) >= 4, 60, "all to say it")
    check(daemon, settings, app, "a listener without TLS does that: see kafka.security_protocol")


def test_a_broker_that_has_spoken_and_is_gone(app, broker, make_daemon, institutions):
    """It is not taken for a listener of another protocol."""
    daemon = make_daemon({"log_level": "info"}).start()
    app.subscriptions(app.integration(institutions.url("/good")), 5)
    wait_for(lambda: app.value("select sum(sent) from {s}.integration_runtime") == 5, 60, "the counters")
    broker.down()
    daemon.wait_log("could not reach Kafka", 60, count=4)
    assert not re.search("TLS|security_protocol", daemon.log), said(daemon)
    broker.up()
    daemon.wait_log("Kafka is back", 60, count=3)
    assert daemon.term() == 0
