"""What an answer means for its subscription: the rules of an integration, before the table."""
import json

import pytest
from harness.postgres import refused
from harness.processes import wait_for
from harness.scripted import Script, ScriptedServer

SETTINGS = {"retry": {"base_delay": "1h", "max_delay": "2h"}}
RULES = [{"status": [400], "contains": "UNABLE_TO_LOCK_ROW", "then": "retry"},
         {"status": "2xx", "content_type": "text/html", "then": "retry"},
         {"status": 200, "field": "/statusCode", "not": "0", "then": "failed"},
         {"status": [409, 422], "contains": "E025", "then": "sent"},
         {"field": "/state", "is": "UNCLEAR", "then": "hold"}]
# (status, content type, body): (status of the row, number of the rule).
ANSWERS = [((400, "text/plain", "UNABLE_TO_LOCK_ROW: one moment"), ("retry", 1)),
           ((400, "text/plain", "no such course"), ("failed", None)),
           ((200, "Text/HTML; charset=utf-8", "<h1>Maintenance</h1>"), ("retry", 2)),
           ((200, "application/json", '{"statusCode": 17}'), ("failed", 3)),
           ((200, "application/json", '{"statusCode": 0}'), ("sent", None)),
           ((200, "application/json", '{"statusCode": "0"}'), ("sent", None)),
           ((200, "application/json", '{"other": 17}'), ("sent", None)),
           ((201, "application/json", '{"statusCode": 17}'), ("sent", None)),
           ((200, "application/json", '{"statusCode": 17'), ("sent", None)),
           ((409, "application/json", '{"code": "E025"}'), ("sent", 4)),
           ((422, "application/json", '{"code": "E025"}'), ("sent", 4)),
           ((422, "application/json", '{"code": "E026"}'), ("failed", None)),
           ((500, "application/json", '{"state": "UNCLEAR"}'), ("retry", 5)),
           ((200, "application/json", '{"state": "UNCLEAR"}'), ("retry", 5))]


def reply(body):
    status, kind, text = json.loads(body)["answer"]
    text = text.encode()
    return b"HTTP/1.1 %d X\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n" % (status, kind.encode(), len(text)) + text


@pytest.fixture
def server():
    server = ScriptedServer(Script(reply))
    yield server
    server.close()


def test_the_first_rule_that_matches_decides(app, server, make_daemon, ctl):
    make_daemon(SETTINGS).start()
    integration = app.integration(server.url, delivery_settings={"outcomes": RULES})
    ids = [app.subscription(integration, {"answer": answer}) for answer, _ in ANSWERS]
    wait_for(lambda: sum(app.row(i)["last_http_status"] is not None for i in ids) == len(ids), 60, "all answers")
    for number, (answer, (status, rule)) in zip(ids, ANSWERS):
        row, event = app.row(number), app.events(number)[-1]
        assert row["status"] == event["to_status"] == status, (answer, row)
        assert row["attempts"] == 1 and row["last_http_status"] == answer[0], (answer, row)
        assert event["decided_by"] == (f"rule {rule}" if rule else None), (answer, event)
        assert (row["held_at"] is not None) == (rule == 5) == bool(row["last_ambiguous"]), (answer, row)
        story = ctl("explain", str(number)).expect(0).stdout
        assert ("rule" in story) == bool(rule), story
        if (status, rule) == ("failed", 3):
            assert "failed for good because rule 3 of its integration's delivery_settings.outcomes" in story
    # What is held is never due, whoever looks at it; the others' failures are no failure of the circuit.
    assert app.row(ids[-1])["next_attempt_at"] is None and server.requests == len(ids)
    assert ctl("status", "--json").expect(0).json["held"] == 2
    # Another setting counts for the next answer.
    app.query("update {s}.integrations set delivery_settings = '{}' where id = %s", (integration,))
    last = app.subscription(integration, {"answer": [200, "application/json", '{"statusCode": 17}']})
    wait_for(lambda: app.row(last)["status"] == "sent", 30, "it to be sent")
    assert [app.row(i)["held_at"] is None for i in ids[-2:]] == [False, False]


NO_RULES = [({}, "is a list of rules"), ([RULES[0]] * 101, "has more than 100 rules"),
            ([1], "rule 1: a rule is an object such as"),
            ([RULES[0], {"status": 200}], "rule 2: then is missing"), ([{"then": "sent"}], "it would match every answer"),
            ([{"status": 200, "than": "sent"}], "a rule has status, contains, field with is or not"),
            ([{"status": 200, "then": "pending"}], 'then is "sent", "failed", "retry" or "hold"'),
            *(([{"status": status, "then": "sent"}], "status is a number from 200 to 599")
              for status in (99, 199, 700, 1000, "1xx", "7xx", [200, 102], 200.5, "200", "4XX", "0xx", [], [200, None], [[200]],
                             [200] * 51)),
            ([{"contains": "", "then": "sent"}], "contains is a text of 1 to 1000 bytes"),
            ([{"contains": "x" * 999, "then": "sent"}], "contains is a text of 1 to 1000 bytes"),
            ([{"content_type": "text/html; charset=x", "then": "sent"}], "content_type is a media type in lower case"),
            ([{"field": "a", "is": 1, "then": "sent"}], "field is a JSON pointer"),
            ([{"field": "/a~2", "is": 1, "then": "sent"}], "field is a JSON pointer"),
            ([{"field": "/a", "then": "sent"}], "field goes with is or not"),
            ([{"is": "a", "then": "sent"}], "field goes with is or not"),
            ([{"field": "/a", "is": 1, "not": 2, "then": "sent"}], 'a rule has "is" or "not", one of them'),
            ([{"field": "/a", "is": [1], "then": "sent"}], '"is" and "not" take a text')]


def test_what_is_no_rule_is_refused_and_never_sent_with(app, server, make_daemon):
    """The database says what would be right; what stands there all the same is the integration's problem, in the same words."""
    ids = {}
    for rules, words in NO_RULES:
        state, said = refused(app.integration, server.url, delivery_settings={"outcomes": rules})
        assert state == "23514" and words in said, (rules, said)
        app.query("alter table {s}.integrations disable trigger user")
        integration = app.integration(server.url, delivery_settings={"outcomes": rules})
        ids[integration] = said.split("outcomes ")[1].split("\n")[0].strip()
        app.query("alter table {s}.integrations enable trigger user")
    for integration in ids:
        app.subscription(integration, {"answer": [200, "text/plain", ""]})
    make_daemon(SETTINGS).start()

    def paused():
        return dict(app.query("select id, pause_reason from {s}.integrations where pause_reason is not null"))
    wait_for(lambda: len(paused()) == len(ids), 60, "all to be paused")
    assert paused() == {i: f"its delivery_settings cannot be used: outcomes {words}" for i, words in ids.items()}
    assert server.requests == 0


def test_a_burst_of_failures_by_a_rule_is_an_outage(app, server, make_daemon, ctl):
    make_daemon({**SETTINGS, "delivery": {"max_in_flight_per_integration": 1}}).start()
    integration = app.integration(server.url, delivery_settings={"outcomes": [RULES[2]]})
    app.subscription(integration, {"answer": [200, "application/json", '{"statusCode": 0}']})
    app.wait_states(sent=1)
    for _ in range(50):
        app.subscription(integration, {"answer": [200, "application/json", '{"statusCode": 9}']})
    wait_for(lambda: app.value("select paused_until from {s}.integrations"), 60, "the pause")
    wait_for(lambda: not app.states()["processing"], 30, "those under way")
    assert app.states()["failed"] == 20
    assert ctl("retry", "--status", "200", "--json").expect(0).json["put_back"] == 20
