"""What an institution may have received without saying so: sent again, asked for, or left to a person."""
import http.server
import json
import threading

import pytest
from harness.postgres import refused
from harness.processes import wait_for

SETTINGS = {"retry": {"base_delay": "100ms", "max_delay": "200ms", "max_attempts": 5}, "delivery": {"poll_interval": "200ms"},
            "circuit_breaker": {"failure_threshold": 1000}, "log_level": "debug"}


class Institution:
    """A payload tells what it does with each attempt: {"do": ["silent", 422, 200]}; the last one stays. "silent" takes the
    enrolment and ends the connection; "deaf" ends it, and has taken nothing. GET /has/KEY tells whether it has one; an order
    in `broken` gets that status."""

    def __init__(self):
        self.posts, self.gets, self.taken, self.broken = [], [], set(), {}
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, status):
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                number = sum(n == body["n"] for n, _ in outer.posts)
                outer.posts.append((body["n"], self.headers["Idempotency-Key"]))
                what = body["do"][min(number, len(body["do"]) - 1)]
                if what in ("silent", 200):
                    outer.taken.add(str(body["n"]))
                if what in ("silent", "deaf"):
                    self.close_connection = True
                else:
                    self.answer(what)

            def do_GET(self):
                order = self.path.rsplit("/", 1)[-1]
                outer.gets.append((order, self.headers["Authorization"], self.path))
                self.answer(outer.broken.get(order, 200 if order in outer.taken else 404))

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def keys(self, number):
        return [key for n, key in self.posts if n == number]


@pytest.fixture
def institution():
    institution = Institution()
    yield institution
    institution.server.shutdown()
    institution.server.server_close()


class Rows:
    """Subscriptions of integrations with these settings; their number is their order_id."""

    def __init__(self, app, institution):
        self.app, self.institution, self.ids = app, institution, {}

    def add(self, settings, *do, **columns):
        number = len(self.ids) + 1
        settings = json.loads(json.dumps(settings).replace("URL", self.institution.url))
        integration = self.app.integration(self.institution.url, delivery_settings=settings)
        self.ids[number] = self.app.subscription(integration, {"n": number, "do": do}, order_id=number, **columns)
        return number

    def row(self, number):
        return self.app.row(self.ids[number])

    def events(self, number):
        return self.app.events(self.ids[number])

    def wait_held(self, *numbers):
        wait_for(lambda: all(self.row(n)["held_at"] for n in numbers), 60, "them to be held")

    def wait(self, status, *numbers):
        wait_for(lambda: all(self.row(n)["status"] == status for n in numbers), 60, f"them to be {status}")


HOLD = {"on_ambiguous": "hold"}
NO_KEYS = {"idempotency": {"window": "none"}}
LOOKUP = {"lookup": {"url": "URLhas/{order_id}"}}


def test_what_is_held_and_why(app, institution, make_daemon, ctl):
    """Held rows are never sent again, whatever comes; the event and explain tell the setting, and the command."""
    rows = Rows(app, institution)
    held = {rows.add(HOLD, "silent"): "on_ambiguous", rows.add(HOLD, 409): "on_ambiguous",
            rows.add(NO_KEYS, "silent"): "idempotency.window = none",
            rows.add({"idempotency": {"window": "1ms"}}, "silent"): "idempotency.window",
            rows.add(HOLD, 200, ambiguous_since="2026-01-01"): "on_ambiguous",  # from before the setting
            rows.add({}, 200, ambiguous_since="2026-01-01"): "idempotency.window"}  # a day is the default
    sent = [rows.add({}, "silent", 200), rows.add({}, "silent", 200, ambiguous_since="2026-01-01 UTC"),
            rows.add({"idempotency": {"window": "3650d"}}, "silent", 200)]
    app.query("update {s}.subscriptions set ambiguous_since = now() - interval '23 hours' where id = %s", (rows.ids[sent[1]],))
    failed = rows.add({}, "silent", 422)
    daemon = make_daemon(SETTINGS).start()
    rows.wait_held(*held)
    for number, why in held.items():
        daemon.wait_log(rf'subscription {rows.ids[number]}, integration \d+ "\w+", is held for a person \({why}\)')
    rows.wait("sent", *sent)
    rows.wait("failed", failed)
    for number, why in held.items():
        row, event = rows.row(number), rows.events(number)[-1]
        assert row["status"] == "retry" and row["next_attempt_at"] is None, row
        assert event["to_status"] == "retry" and event["decided_by"] == why and event["ambiguous"], event
        story = ctl("explain", str(rows.ids[number])).expect(0).stdout
        words = {"on_ambiguous": "on_ambiguous is", "idempotency.window": "no longer knows its Idempotency-Key",
                 "idempotency.window = none": "the institution knows no Idempotency-Keys"}[why]
        assert words in story and "anubisctl settle" in story and "--as sent|failed" in story, story
        assert "nothing, until a person decides" in story
    assert [len(institution.keys(n)) for n in held] == [1, 1, 1, 1, 0, 0]
    assert all(len(set(institution.keys(n))) == 1 for n in sent), institution.posts
    assert rows.row(failed)["last_ambiguous"] and rows.events(failed)[-1]["ambiguous"]
    assert ctl("status", "--json").expect(0).json["held"] == len(held)


def test_many_that_are_held_are_not_said_to_be_tried_again(app, institution, make_daemon):
    rows = Rows(app, institution)
    one = rows.row(rows.add(HOLD, 409))["integration_id"]
    for number in range(2, 26):
        app.subscription(one, {"n": number, "do": [409]})
    daemon = make_daemon(SETTINGS).start()
    daemon.wait_log(r"20 attempts in a row failed within .*: HTTP 409; its subscriptions are held: somebody is to find")
    assert "its subscriptions are tried again" not in daemon.log


def test_a_person_settles_what_is_held(app, institution, make_daemon, ctl):
    rows = Rows(app, institution)
    held = [rows.add(HOLD, "silent") for _ in range(3)]
    other, locked = rows.add({}, 200), rows.add(HOLD, "silent")
    ids = [str(rows.ids[n]) for n in held]
    make_daemon(SETTINGS).start()
    rows.wait_held(*held, locked)
    rows.wait("sent", other)
    before = app.value("select max(id) from {s}.subscription_events")

    dry = ctl("settle", *ids, "--as", "sent", "--reason", "x", "--dry-run", "--json").expect(0).json
    assert dry["settled"] == 3 and app.value("select max(id) from {s}.subscription_events") == before
    for wrong in (["--as", "sent"], ["--reason", "x"], ["--as", "retry", "--reason", "x"], ["--as", "sent", "--reason", ""]):
        ctl("settle", *ids, *wrong).expect(64)
    ctl("settle", "0", "--as", "sent", "--reason", "x").expect(64)
    ctl("settle", "--as", "sent", "--reason", "x").expect(64)

    connection = app.database.connect()
    connection.autocommit = False
    connection.cursor().execute("select from anubis.subscriptions where id = %s for update", (rows.ids[locked],))
    done = ctl("settle", *ids[:2], ids[0], str(rows.ids[other]), "999999", str(rows.ids[locked]), "--as", "sent",
               "--reason", "seen in their portal", "--json").expect(1).json
    connection.close()
    assert done["settled"] == 2 and done["as"] == "sent"
    assert sorted(done["refused"]) == sorted([f'subscription {rows.ids[other]} is not held: its status is "sent"',
                                              "there is no subscription 999999",
                                              f"subscription {rows.ids[locked]} is locked by another session: try again"])
    for number in held[:2]:
        row, event = rows.row(number), rows.events(number)[-1]
        assert row["status"] == "sent" and row["held_at"] is None and row["sent_at"], row
        assert event["event_type"] == "sent" and event["decided_by"].startswith("operator ")
        assert event["decided_by"].endswith(": seen in their portal"), event

    # What is not there is no longer ambiguous: it can be put back, and is sent as if for the first time.
    ctl("settle", ids[2], "--as", "failed", "--reason", "they have nothing").expect(0)
    row, event = rows.row(held[2]), rows.events(held[2])[-1]
    assert row["status"] == "failed" and not row["last_ambiguous"] and row["ambiguous_since"] is None, row
    assert event["event_type"] == "failed" and event["error_message"].endswith(": they have nothing") and not event["ambiguous"]
    assert "failed for good by the word of operator" in ctl("explain", ids[2]).expect(0).stdout
    app.query("update {s}.integrations set delivery_settings = '{}'")
    institution.posts.clear()
    ctl("retry", "--ids", ids[2]).expect(0)
    rows.wait("retry", held[2])
    wait_for(lambda: institution.keys(held[2]), 30, "it to be sent once more")


def test_the_institution_is_asked_before_it_is_sent_again(app, institution, make_daemon, ctl):
    rows = Rows(app, institution)
    both = {**HOLD, **LOOKUP}
    found = [rows.add(LOOKUP, "silent"), rows.add(both, "silent"), rows.add(both, "silent", 422),
             rows.add({**NO_KEYS, **LOOKUP}, "silent")]
    absent = [rows.add(LOOKUP, "deaf", 200), rows.add(both, "deaf", 200), rows.add({**NO_KEYS, **LOOKUP}, 409, 200)]
    refused, undecided = rows.add(both, "deaf", 422), rows.add(both, "silent")
    clean = rows.add(LOOKUP, 500, 200)
    institution.broken[str(undecided)] = 503
    daemon = make_daemon(SETTINGS).start()
    rows.wait("sent", *found, *absent, clean)
    rows.wait("failed", refused)
    for number in found:
        assert len(institution.keys(number)) == 1 and rows.events(number)[-1]["decided_by"] == "lookup", rows.events(number)
    for number in absent:
        assert len(institution.keys(number)) == 2 and len(set(institution.keys(number))) == 1
        assert rows.events(number)[-1]["decided_by"] is None and rows.row(number)["ambiguous_since"] is None
    # The institution has said that it had nothing: a plain failure. What is not ambiguous is not asked for.
    assert not rows.row(refused)["last_ambiguous"] and not rows.events(refused)[-1]["ambiguous"]
    asked = {int(order) for order, _, _ in institution.gets}
    assert asked == {*found, *absent, refused, undecided}
    assert all(a == "Bearer harness-token" for _, a, _ in institution.gets)
    # Without a word about it the row waits, loses no attempt, and is never sent.
    wait_for(lambda: sum(o == str(undecided) for o, _, _ in institution.gets) > 6, 60, "it to be asked again")
    row = rows.row(undecided)
    assert row["attempts"] <= 2 and row["status"] in ("retry", "processing") and len(institution.keys(undecided)) == 1, row
    daemon.term()
    rows.app.query("update {s}.subscriptions set created_at = now() - interval '10 days', next_attempt_at = null where id = %s",
                   (rows.ids[undecided],))
    daemon.start()
    rows.wait_held(undecided)
    assert "lookup: HTTP 503" in rows.row(undecided)["last_error"] and len(institution.keys(undecided)) == 1


def test_stored_errors_get_a_new_key_where_a_rule_says_so(app, institution, make_daemon, ctl):
    rows = Rows(app, institution)
    settings = {"idempotency": {"stored_errors": "new_key"}}
    changing, same = rows.add(settings, 500, "silent", "silent", 404, 429, 200), rows.add({}, 500, "silent", 200)
    make_daemon(SETTINGS | {"retry": {**SETTINGS["retry"], "max_attempts": 20}}).start()
    rows.wait("sent", changing, same)
    first, second, again, before, last, end = institution.keys(changing)
    assert second == again == before and last == end and len({first, second, last}) == 3, institution.keys(changing)
    assert len(set(institution.keys(same))) == 1
    assert ctl("explain", str(rows.ids[changing]), "--json").expect(0).json["idempotency_key"] == last


def test_a_daemon_that_dies_leaves_what_is_to_be_held(app, institution, institutions, make_daemon):
    rows = Rows(app, institution)
    daemon = make_daemon({**SETTINGS, "delivery": {"timeout": "10s", "connect_timeout": "5s", "lease": "12s"}})
    numbers = [rows.add(settings, "never sent") for settings in (HOLD, NO_KEYS, {**HOLD, **LOOKUP}, {})]
    app.query("update {s}.integrations set endpoint_url = %s", (institutions.url("/silent"),))
    daemon.start()
    wait_for(lambda: len(institutions.keys("/silent")) == 4, 30, "them to be sent")
    daemon.kill9()
    institutions.become("/silent", "/good")
    daemon.start()
    rows.wait_held(numbers[0], numbers[1])
    rows.wait("sent", numbers[2], numbers[3])
    assert [rows.events(n)[-1]["decided_by"] for n in numbers] == ["on_ambiguous", "idempotency.window = none", None, None]
    assert "2 held for a person" in daemon.log and len(institution.gets) == 1


NO_SETTINGS = [("on_ambiguous", "ask", 'is "retry" or "hold"'), ("on_ambiguous", True, 'is "retry" or "hold"'),
               ("idempotency", [], "is an object such as"), ("idempotency", {"windows": "1h"}, "has window and stored_errors"),
               *(("idempotency", {"window": window}, "window is a duration such as")
                 for window in ("0h", "1 day", "1w", 24, "", "3651d", "99999999999h", "-1h", "None")),
               ("idempotency", {"stored_errors": "new"}, 'stored_errors is "retry_same" or "new_key"'),
               *(("lookup", lookup, 'is {"url": "..."}, a URL that names') for lookup in (
                   "https://x/{id}", {}, {"url": 1}, {"url": "https://x/"}, {"url": "ftp://x/{id}"},
                   {"url": "https://x/{id}{cpf}"}, {"url": "https://x/{id} "}, {"url": "https://x/{id}}"},
                   {"url": "https://x/{id}", "method": "GET"}))]


@pytest.mark.parametrize("url, words", [
    ("https://leaks:leaks@x.example/{id}", "holds a user name or a password"), ("https:///leaks/{id}", "names no host"),
    ("https://x.example:99999/{id}", "a port is a number"), ("https://[::1/{id}", "no IPv6 address"),
    ("https://é.example/{id}", "is not in ASCII"), ("https://x..example/{id}", "is empty")])
def test_a_lookup_that_leads_nowhere_is_refused_when_it_is_written(app, url, words):
    state, said = refused(app.integration, "https://x.example/", delivery_settings={"lookup": {"url": url}})
    assert state == "23514" and said.startswith('delivery_settings.lookup has a "url" that ')
    assert words in said and "leaks" not in said


def test_settings_that_are_refused_and_never_sent_with(app, institution, make_daemon):
    reasons = {}
    for key, value, words in NO_SETTINGS:
        state, said = refused(app.integration, institution.url, delivery_settings={key: value})
        assert state == "23514" and f"delivery_settings.{key} {words}" in said, (key, value, said)
        app.query("alter table {s}.integrations disable trigger user")
        integration = app.integration(institution.url, delivery_settings={key: value})
        app.query("alter table {s}.integrations enable trigger user")
        reasons[integration] = f"its delivery_settings cannot be used: {key} {said.split(key, 1)[1].strip()}"
        app.subscription(integration, {})
    make_daemon(SETTINGS).start()

    def paused():
        return dict(app.query("select id, pause_reason from {s}.integrations where pause_reason is not null"))
    wait_for(lambda: len(paused()) == len(reasons), 60, "all to be paused")
    assert paused() == reasons and not institution.posts
    for value in ("1ms", "24h", "3650d", "000024h", "none"):
        app.integration(institution.url, delivery_settings={"idempotency": {"window": value, "stored_errors": "retry_same"}})
