"""What keeps a request from its institution: URLs that lead nowhere, and what this machine lacks."""
import os
import re
import resource
import shutil
import signal
import time

import pytest
from harness.certificates import Certificates
from harness.institutions import Institutions
from harness.names import NameServers
from harness.processes import wait_for

LABEL = "a" * 63
LONGEST = ".".join(["a" * 49] * 5) + ".abc"  # 253 characters

# endpoint_url: words of the refusal when it is written.
REFUSED = {
    "": "no http or https URL", "not a url": "no http or https URL", "//x": "no http or https URL",
    "file:///etc/passwd": "no http or https URL", "ftp://127.0.0.1/x": "no http or https URL", "https:/x": "no http or https URL",
    "http://": "names no host", "https:///x": "names no host", "https://:80/": "names no host", "https://?x": "names no host",
    "https://user:s3cret@x.example/": "user name or a password", "https://s3cret@x.example/": "user name or a password",
    "https://x.example/a b": "space or a control", "https://x.example/\n": "space or a control",
    "https://x\x7f.example/": "space or a control",
    "https://x.example/" + "ç" * 4000: "longer than 8000 bytes",
    "https://münchen.example/": "\"münchen.example\", which is not in ASCII", "https://ａ.example/": "not in ASCII",
    "https://a,b/": "\"a,b\", which holds a character", "https://*/": "\"*\"", "https://$(id)/": "\"$(id)\"",
    "https://a'b\"/": "holds a character", "https://a%41.example/": "holds a character", "https://a\\b/": "holds a character",
    "https://{a}/": "holds a character", "https://a;b/": "holds a character",
    "https://a..b/": "part is empty", "https://.a/": "part is empty", "https://./": "part is empty",
    "https://a../": "part is empty",
    f"https://{LABEL}a.example/": "longer than 63", f"https://b{LONGEST}/": "253",
    "https://x.example:0/": "\":0\" behind its host", "https://x.example:65536/": "a port is a number",
    "https://x.example:/": "a port",
    "https://x.example:a/": "a port", "https://x.example:080808/": "a port", "https://x.example:1:2/": "a port",
    "https://[::1]x/": "a port",
    "https://[::1/": "holds a character|no IPv6|a port", "https://[fe80::1%25eth0]/": "no IPv6", "https://[1.2.3.4]/": "no IPv6",
    "https://[]/": "no IPv6",
}
# Those that are taken lead somewhere, or are refused at delivery for what they are.
TAKEN = ["https://x.invalid", "HTTPS://X.INVALID/", "http://x.invalid?a=b", "http://x.invalid#top", "http://x.invalid./",
         "http://x.invalid:1/", "http://127.0.0.1:1/inscri\u00e7\u00e3o?nome=Jo\u00e3o", "http://[::1]:1/",
         "http://[::ffff:127.0.0.1]:1/",
         "http://127.1:1/", "http://2130706433:1/", "http://a_b.invalid/", "http://xn--mnchen-3ya.invalid/", "http://-.invalid/",
         "http://1.2.3.4.5.invalid/", f"http://{LABEL}.invalid/", f"http://{LONGEST}/", "http://localhost:1/a'b\"{c}[d]"]


@pytest.mark.parametrize("url", REFUSED)
def test_urls_that_lead_nowhere_are_refused_when_written(app, url):
    with pytest.raises(Exception) as refused:
        app.integration(url)
    first = str(refused.value).splitlines()[0]
    assert first.startswith("endpoint_url ") and any(words in first for words in REFUSED[url].split("|")), refused.value
    assert "s3cret" not in str(refused.value)
    if "not in ASCII" in first:
        assert "xn-- form" in str(refused.value)


def test_urls_that_are_taken_are_tried(app, make_daemon):
    rows = [app.subscription(app.integration(url, name=url)) for url in TAKEN]
    make_daemon({"retry": {"base_delay": "1h", "max_delay": "1h"}, "delivery": {"connect_timeout": "30s"}}).start()
    wait_for(lambda: all(app.row(row)["last_error"] for row in rows), 60, "all to be tried")
    for url, row in zip(TAKEN, rows):
        assert not re.search("invalid URL|not allowed", app.row(row)["last_error"]), url
    assert app.value("select count(*) from {s}.integrations where paused_until is not null") == 0


def test_an_url_that_was_there_before_hinders_no_other_change(app):
    app.query("alter table {s}.integrations disable trigger user")
    integration = app.integration("https://münchen.example/")
    app.query("alter table {s}.integrations enable trigger user")
    app.query("update {s}.integrations set name = 'x', endpoint_url = endpoint_url, auth_token = 'y' where id = %s",
              (integration,))
    with pytest.raises(Exception, match="not in ASCII"):
        app.query("update {s}.integrations set endpoint_url = endpoint_url || 'x' where id = %s", (integration,))


@pytest.mark.skipif(not shutil.which("prlimit"), reason="no prlimit command")
@pytest.mark.parametrize("limit", [200, 1024])
def test_more_in_flight_than_descriptors_is_lowered_with_a_word(app, institutions, make_daemon, limit):
    daemon = make_daemon({"delivery": {"max_in_flight": 2000, "max_in_flight_per_integration": 2000}, "log_level": "info"},
                         wrapper=("prlimit", f"--nofile={limit}:{limit}"))
    daemon.start()
    said = daemon.wait_log(r"delivery.max_in_flight = 2000 .* (\d+) open descriptors \(LimitNOFILE=\).* (\d+) ")
    assert int(said[1]) == limit and 0 < int(said[2]) < limit
    app.subscriptions(app.integration(institutions.url("/slow/50")), 400)
    app.wait_states(sent=400, deadline=120)
    assert app.value("select max(attempts) from {s}.subscriptions") == 1
    assert "keeps requests from being sent" not in daemon.log


@pytest.mark.skipif(not shutil.which("prlimit"), reason="no prlimit command")
def test_a_soft_limit_of_descriptors_is_none(app, make_daemon):
    daemon = make_daemon({"delivery": {"max_in_flight": 1000}}, wrapper=("prlimit", "--nofile=256:4096")).start()
    daemon.term()
    assert "max_in_flight" not in daemon.log


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="another resolv.conf(5) needs root and unshare")
def test_a_dead_name_server_costs_no_attempt(app, institutions, make_daemon, tmp_path):
    servers = NameServers(tmp_path, [False, True])
    try:
        url = institutions.url("/good/names").replace("127.0.0.1", "school.example")
        row = app.subscription(app.integration(url))
        make_daemon({"delivery": {"connect_timeout": "5s"}}, wrapper=servers.wrapper()).start()
        app.wait_states(sent=1, deadline=60)
        assert app.row(row)["attempts"] == 1
        assert servers.asked[0] and servers.asked[1]
    finally:
        servers.close()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="another resolv.conf(5) needs root and unshare")
def test_the_death_of_all_name_servers_costs_no_attempt(app, institutions, make_daemon, tmp_path):
    """Not of the first rows either, which find out; and what a server that answers cannot find out is no such thing.
    Three institutions: more that are lost at once would be this machine's network."""
    servers = NameServers(tmp_path, [False, False])
    try:
        rows = [app.subscription(app.integration(institutions.url(f"/good/{i}").replace("127.0.0.1", f"school{i}.example")))
                for i in range(3)]
        settings = {"retry": {"base_delay": "1s", "max_delay": "1s"}, "log_level": "info"}
        daemon = make_daemon(settings, wrapper=servers.wrapper()).start()
        wait_for(lambda: all(app.row(row)["last_error"] for row in rows), 60, "all to be tried")
        assert {app.row(row)["last_error"] for row in rows} == {"not sent: no name server answers: see /etc/resolv.conf"}
        assert app.value("select max(attempts) from {s}.subscriptions where status <> 'processing'") == 0
        assert daemon.log.count("no name server answers") == 1
        servers.alive = ["failing", "failing"]
        wait_for(lambda: any("SERVFAIL" in (app.row(row)["last_error"] or "") for row in rows), 90, "SERVFAIL to be told")
        servers.alive = [True, True]
        app.wait_states(sent=3, deadline=90)
    finally:
        servers.close()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="another resolv.conf(5) needs root and unshare")
def test_a_long_shortage_fills_no_ledger(app, ctl, institutions, make_daemon, tmp_path):
    """Connections are tried, and no subscription with them."""
    servers = NameServers(tmp_path, [False])
    try:
        integration = app.integration(institutions.url("/good/far").replace("127.0.0.1", "school.example"))
        rows = app.subscriptions(integration, 3)
        make_daemon({"delivery": {"poll_interval": "100ms"}, "log_level": "info"}, wrapper=servers.wrapper()).start()
        wait_for(lambda: all(app.row(row)["last_error"] for row in rows), 60, "all to be tried")
        assert "not sent: no name server answers" in ctl("explain", rows[0]).stdout
        events = app.value("select count(*) from {s}.subscription_events")
        for _ in range(3):
            asked = servers.asked[0]
            wait_for(lambda before=asked: servers.asked[0] > before, 60, "another trial")
        assert app.value("select count(*) from {s}.subscription_events") == events
        servers.alive = [True]
        app.wait_states(sent=3, deadline=90)
        assert app.value("select max(attempts) from {s}.subscriptions") == 1
    finally:
        servers.close()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="another resolv.conf(5) needs root and unshare")
def test_changed_settings_are_tried_while_a_shortage_lasts(app, institutions, make_daemon, tmp_path):
    """Each by itself would be seen after a minute, when a subscription is claimed in spite of the shortage."""
    servers = NameServers(tmp_path, [False])
    try:
        start = time.monotonic()
        daemon = make_daemon(wrapper=servers.wrapper()).start()
        url = institutions.url("/good/moved")
        for i in range(6):
            integration = app.integration(url.replace("127.0.0.1", f"school{i}.example"), name=f"n{i}")
            row = app.subscription(integration)
            wait_for(lambda row=row: app.row(row)["last_error"], 60, "it to be tried")
            if i % 2:
                last = app.value("select max(id) from {s}.subscription_events")
                daemon.child.signal(signal.SIGHUP)
                wait_for(lambda last=last: app.value("select max(id) from {s}.subscription_events") > last, 60, "the claim")
            app.query("update {s}.integrations set endpoint_url = %s where id = %s", (url, integration))
            app.wait_states(sent=i + 1, deadline=120)
        assert time.monotonic() - start < 200
        assert app.value("select max(attempts) from {s}.subscriptions") == 1
    finally:
        servers.close()


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("unshare"), reason="another resolv.conf(5) needs root and unshare")
def test_one_shortage_hides_no_other(app, institutions, make_daemon, tmp_path):
    """No name server for one institution, and later no descriptors for another one."""
    servers = NameServers(tmp_path, [False])
    try:
        nameless = app.integration(institutions.url("/good/nameless").replace("127.0.0.1", "school.example"))
        app.subscription(nameless)
        settings = {"delivery": {"max_in_flight": 500, "max_in_flight_per_integration": 500, "connect_timeout": "30s"},
                    "log_level": "info", "retry": {"base_delay": "1s", "max_delay": "1s"}}
        daemon = make_daemon(settings, wrapper=servers.wrapper()).start()
        daemon.wait_log(rf"keeps requests from being sent, to integration {nameless} \".*\" for one: no name server answers", 60)
        wait_for(lambda: daemon.log.count("has taken over") == 3, 120, "the consumer groups")
        resource.prlimit(daemon.child.pid, resource.RLIMIT_NOFILE, (daemon.child.descriptors() + 20,) * 2)
        many = app.integration(institutions.url("/slow/100"))
        app.subscriptions(many, 300)
        daemon.wait_log(rf"keeps requests from being sent, to integration {many} \".*\" for one: .*(descriptors|open files)", 60)
        app.wait_states(sent=300, deadline=120)
        assert daemon.log.count("no name server answers") == 1
        assert app.value("select max(attempts) from {s}.subscriptions where status = 'sent'") == 1
    finally:
        servers.close()


def test_who_needs_no_handshake_does_not_wait_for_those_of_others(app, institutions, make_daemon):
    """Hundreds of institutions over TLS get their first row at once, and slots are few: rows of one that is reached in clear text
    pass most of them. A busy machine, which keeps the daemon from its turn, gets two more tries."""
    certificates, count, tries = Certificates(), 400, 3
    with Institutions(count=False, name="many", certificates=certificates, more_ports=tries * count) as many:
        neighbour = app.integration(institutions.url("/good/neighbour"))
        others = [app.integration(many.url("/good", port)) for port in many.ports]
        make_daemon({"delivery": {"ca_file": certificates.root, "max_in_flight": 64}, "log_level": "info"}).start()
        app.subscription(neighbour)
        app.wait_states(sent=1)
        most = []
        for n in range(tries):
            first = app.value("insert into {s}.subscriptions (integration_id, payload) select unnest(%s), '{}' returning id",
                              (others[n * count:(n + 1) * count],))
            while app.value("select exists (select from {s}.subscriptions where status <> 'sent')"):
                row = app.subscription(neighbour)
                wait_for(lambda row=row: app.row(row)["status"] == "sent", 60, "the neighbour's row")
            most.append(app.value(
                "select max((select count(*) from {s}.subscriptions o where o.integration_id <> n.integration_id and o.id >= %s "
                "and o.sent_at between n.created_at and n.sent_at)) "
                "from {s}.subscriptions n where integration_id = %s and id > %s",
                (first, neighbour, first)))
            if most[-1] < count / 2:
                return
        raise AssertionError(f"{most} of {count} others passed a row")
