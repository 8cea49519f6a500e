"""Tokens of an OAuth 2 server (client credentials): asked for once for all requests, renewed in time, replaced when refused; a
server that fails costs no attempts and opens the circuit."""
import base64
import json
import re
import threading
import urllib.parse

import pytest
from harness.postgres import refused
from harness.processes import wait_for
from harness.recording import RecordingServer

CLIENT, SECRET, SCOPE = "anúbis:1", "s3cr3t&Geheimnis+ç", "inscricoes escrever"


class TokenServer(RecordingServer):
    """Gives the tokens t1, t2 … for `life` seconds; `refuses` answers all the same with this status."""

    def __init__(self, life=3600, forms=("basic", "body"), **more):
        super().__init__(self._give, **more)
        self.life, self.forms, self.refuses, self.answers = life, forms, None, 0
        self.odd = None  # an answer in place of a token

    def _form(self, request):
        fields = urllib.parse.parse_qs(request.body.decode(), strict_parsing=True)
        assert fields["grant_type"] == ["client_credentials"] and fields["scope"] == [SCOPE]
        assert request.header("content-type") == "application/x-www-form-urlencoded"
        line = request.header("authorization")
        if line:
            pair = base64.b64decode(line.removeprefix("Basic ")).decode().split(":")
            assert [urllib.parse.unquote_plus(p) for p in pair] == [CLIENT, SECRET]
            return "basic"
        assert fields["client_id"] == [CLIENT] and fields["client_secret"] == [SECRET]
        return "body"

    def _give(self, request):
        form = self._form(request)
        if self.refuses or form not in self.forms:
            return self.refuses or 401, {}, b'{"error": "invalid_client", "secret": "leaks"}'
        self.answers += 1
        token = {"access_token": f"t{self.answers}-leaks", "token_type": "bearer", "expires_in": self.life, **(self.odd or {})}
        return 200, {"Content-Type": "application/json"}, json.dumps(token).encode()


class Institution(RecordingServer):
    """Takes what has a token that it knows; `dead` tokens are refused."""

    def __init__(self, **more):
        super().__init__(self._take, **more)
        self.dead = set()

    def _take(self, request):
        return 401 if request.header("authorization") in self.dead else 200, {}, b""

    def tokens(self):
        return [r.header("authorization").removeprefix("Bearer ") for r in self.received]


@pytest.fixture
def tokens():
    with TokenServer() as server:
        yield server


@pytest.fixture
def institution():
    with Institution() as server:
        yield server


OPENED = "select 1 from {s}.integration_runtime where circuit_reason = 'authentication'"


def settings(tokens, **more):
    return {"auth": {"type": "oauth2", "token_url": f"{tokens.url}/oauth/token?x=1", "client_id": CLIENT,
                     "client_secret": SECRET, "scope": SCOPE, **more}}


def test_one_token_is_asked_for_all_requests(app, make_daemon, ctl, tokens, institution, tmp_path):
    """The secret comes from a credential; neither it nor a token stands anywhere."""
    (tmp_path / "usp").write_text(SECRET)
    daemon = make_daemon(env={"CREDENTIALS_DIRECTORY": str(tmp_path)}).start()
    number = app.integration(institution.url + "/", auth_token=None,
                             delivery_settings=settings(tokens, client_secret="credential:usp"))
    app.subscriptions(number, 300)
    app.wait_states(sent=300)
    assert set(institution.tokens()) == {"t1-leaks"} and len(tokens.received) == 1
    assert app.value("select max(attempts) from {s}.subscriptions") == 1
    said = daemon.log + ctl("status").stdout + ctl("integrations").stdout + ctl("explain", 1).stdout + str(
        app.query("select row_to_json(e)::text from {s}.subscription_events e")) + str(daemon.notifications)
    assert not re.search("leaks|Geheimnis", said) and "oauth2" in said


def test_a_token_is_renewed_before_it_ends(app, make_daemon, tokens, institution):
    """While the one that ends is good, requests go out with it, and none with one that has ended."""
    tokens.life = 2
    make_daemon().start()
    number = app.integration(institution.url + "/", auth_token=None, delivery_settings=settings(tokens))

    def renewed():
        app.subscription(number)
        return tokens.answers >= 4
    wait_for(renewed, 60, "the token to be renewed", interval=0.05)
    app.wait_settled()
    assert app.states().keys() == {"sent"} and app.value("select max(attempts) from {s}.subscriptions") == 1
    born = {f"t{n}-leaks": r.at for n, r in enumerate(tokens.received, 1)}
    assert max(r.at - born[t] for r, t in zip(institution.received, institution.tokens())) < 2 + 1


def test_a_refused_token_is_replaced_at_no_cost(app, make_daemon, tokens, institution):
    """Forty requests with one dead token: one new token, no attempt lost, and the circuit stays closed."""
    make_daemon().start()
    number = app.integration(institution.url + "/", auth_token=None, delivery_settings=settings(tokens))
    app.subscription(number)
    app.wait_states(sent=1)
    institution.dead.add("Bearer t1-leaks")
    app.subscriptions(number, 40)
    app.wait_states(sent=41)
    assert len(tokens.received) == 2 and app.value("select max(attempts) from {s}.subscriptions") == 1
    assert app.value("select count(*) from {s}.subscription_events where event_type = 'retried'") == 0
    assert institution.tokens().count("t2-leaks") == 40
    assert app.value("select count(*) from {s}.integration_runtime where circuit_state <> 'closed'") == 0


def test_a_lookup_with_a_refused_token_asks_for_another_one(app, make_daemon, tokens, institution):
    """Nothing but ambiguous rows waits, which are asked for first: no other request finds the token refused."""
    make_daemon().start()
    number = app.integration(institution.url + "/", auth_token=None, delivery_settings={
        **settings(tokens), "lookup": {"url": institution.url + "/has/{id}"}})
    app.subscription(number)
    app.wait_states(sent=1)
    institution.dead.add("Bearer t1-leaks")
    row = app.subscription(number, ambiguous_since="now()", status="retry", attempts=1)
    app.wait_states(sent=2)
    assert institution.tokens() == ["t1-leaks", "t1-leaks", "t2-leaks"] and len(tokens.received) == 2
    assert [r.method for r in institution.received] == ["POST", "GET", "GET"]
    assert app.events(row)[-1]["decided_by"] == "lookup" and app.row(row)["attempts"] == 2
    assert app.value("select count(*) from {s}.integration_runtime where circuit_state <> 'closed'") == 0


def test_a_new_token_that_is_refused_too_is_an_authentication_failure(app, make_daemon, tokens, institution):
    """It is not asked for again and again: once for each attempt."""
    make_daemon({"circuit_breaker": {"recovery_timeout": "1s", "max_recovery_timeout": "1s"}}).start()
    institution.dead |= {f"Bearer t{n}-leaks" for n in range(1, 4)}
    number = app.integration(institution.url + "/", auth_token=None, delivery_settings=settings(tokens))
    subscription = app.subscription(number)
    wait_for(lambda: app.query(OPENED), 60, "the circuit")
    assert app.row(subscription)["attempts"] == 0 and app.row(subscription)["last_http_status"] == 401
    app.wait_states(sent=1)
    assert app.row(subscription)["attempts"] == 1 and institution.tokens()[-1] == "t4-leaks"


@pytest.mark.parametrize("form", ["basic", "body"])
def test_each_server_is_asked_in_the_form_that_it_knows(app, make_daemon, institution, form):
    with TokenServer(forms=(form,), life=1) as tokens:
        make_daemon().start()
        number = app.integration(institution.url + "/", auth_token=None, delivery_settings=settings(tokens))

        def renewed():
            app.subscription(number)
            return tokens.answers >= 3
        wait_for(renewed, 60, "the token to be renewed", interval=0.1)
        app.wait_settled()
        assert len(tokens.received) - tokens.answers == (form == "body")
        assert app.value("select count(*) from {s}.subscription_events where event_type = 'retried'") == 0


FAULTS = {
    "HTTP 500": {"refuses": 500}, "HTTP 403": {"refuses": 403}, "HTTP 302": {"refuses": 302}, "HTTP 401": {"refuses": 401},
    "gave no access_token": {"odd": {"access_token": None}},
    "an access_token that cannot stand in a header": {"odd": {"access_token": "leaks\r\nX-Admin: 1"}},
    "gave a token of another type": {"odd": {"token_type": "mac"}},
}


@pytest.mark.parametrize("words", FAULTS)
def test_a_server_that_gives_none_costs_no_attempt(app, make_daemon, ctl, tokens, institution, words):
    """The circuit opens as authentication, the institution is not asked, nor the server but for probes; then all goes on."""
    vars(tokens).update(FAULTS[words])
    daemon = make_daemon({"circuit_breaker": {"recovery_timeout": "1s", "max_recovery_timeout": "1s"}}).start()
    number = app.integration(institution.url + "/", auth_token=None, delivery_settings=settings(tokens))
    ids = app.subscriptions(number, 20)
    wait_for(lambda: app.query(OPENED), 60, "the circuit")
    wait_for(lambda: app.value("select count(*) from {s}.subscriptions where status = 'retry'") > 0, 60, "a row to say why")
    assert not institution.received and app.value("select max(attempts) from {s}.subscriptions") == 0
    told = app.value("select max(last_error) from {s}.subscriptions")
    assert "its token endpoint" in told and words in told, told
    assert "leaks" not in daemon.log + told + ctl("explain", ids[0]).stdout
    asked = len(tokens.received)
    assert asked <= 2 * (app.value("select circuit_generation from {s}.integration_runtime") + 1) + 2
    tokens.refuses = tokens.odd = None
    app.wait_states(sent=20)
    assert app.value("select max(attempts) from {s}.subscriptions") == 1


def test_its_address_is_checked_as_an_institutions_is(app, make_daemon, ctl, tokens):
    """A token endpoint in the own network is not asked, whatever the endpoint is."""
    make_daemon({"delivery": {"allow_private_networks": False}}).start()
    number = app.integration("https://institution.example/", auth_token=None, delivery_settings=settings(tokens))
    row = app.subscription(number)
    wait_for(lambda: app.row(row)["last_error"], 60, "the row to say why")
    said = "its token endpoint: address not allowed"
    assert said in app.row(row)["last_error"] and app.row(row)["attempts"] == 0, app.row(row)["last_error"]
    assert not tokens.received and said in ctl("explain", row).expect(0).stdout


def test_a_server_that_is_away_is_the_same(app, make_daemon, institution, tokens):
    make_daemon({"circuit_breaker": {"recovery_timeout": "1s"}, "delivery": {"timeout": "4s"}}).start()
    gone = settings(tokens, token_url="http://127.0.0.1:1/token")
    number = app.integration(institution.url + "/", auth_token=None, delivery_settings=gone)
    subscription = app.subscription(number)
    wait_for(lambda: app.query(OPENED), 60, "the circuit")
    row = app.row(subscription)
    assert row["attempts"] == 0 and "its token endpoint: could not connect" in row["last_error"]
    app.query("update {s}.integrations set delivery_settings = %s", (json.dumps(settings(tokens)),))
    app.wait_states(sent=1)


@pytest.mark.parametrize("life", [0, -5, "3600", 1e300, 0.5, None, [], True])
def test_a_life_that_nobody_can_believe_is_five_minutes(app, make_daemon, tokens, institution, life):
    tokens.life = life
    make_daemon().start()
    number = app.integration(institution.url + "/", auth_token=None, delivery_settings=settings(tokens))
    for n in range(1, 4):
        app.subscription(number)
        app.wait_states(sent=n)
    assert len(tokens.received) == 1 and institution.tokens() == ["t1-leaks"] * 3


def test_a_daemon_that_stops_gives_back_what_waits_for_a_token(app, make_daemon, institution):
    gate = threading.Event()
    with TokenServer() as tokens:
        give = tokens.answer
        tokens.answer = lambda request: (gate.wait(60), give(request))[1]
        daemon = make_daemon({"delivery": {"drain_timeout": "1s", "timeout": "60s", "lease": "120s"}}).start()
        number = app.integration(institution.url + "/", auth_token=None, delivery_settings=settings(tokens))
        app.subscriptions(number, 5)
        wait_for(lambda: tokens.received, 60, "the token to be asked for")
        daemon.term()
        assert app.states() == {"pending": 5} or app.states() == {"retry": 5}, app.states()
        assert app.value("select max(attempts) from {s}.subscriptions") == 0
        gate.set()
        daemon.start()
        app.wait_states(sent=5)


ODD = {"no token_url": {"token_url": None}, "no URL": {"token_url": "login.example"},
       "a user in it": {"token_url": "https://x:leaks@y/"}, "a blank in it": {"token_url": "https://x.example/ leaks"},
       "another scheme": {"token_url": "ftp://leaks/"}, "no such port": {"token_url": "https://x.example:99999/leaks"},
       "no address": {"token_url": "https://[::1/leaks"}, "a host that is not in ASCII": {"token_url": "https://é.example/leaks"},
       "a secret from a file": {"client_secret": "file:/leaks"}, "a number": {"client_id": 5}, "a list": {"scope": ["leaks"]},
       "an unknown key": {"leaks": "x"}, "a scope of two lines": {"scope": "a\nleaks"}, "an empty secret": {"client_secret": ""}}


@pytest.mark.parametrize("name", ODD)
def test_what_cannot_be_asked_with_is_refused_when_it_is_written(app, name):
    auth = {"type": "oauth2", "token_url": "https://login.example/token", "client_id": "x", "client_secret": "y"}
    assert app.integration("https://x.example/", delivery_settings={"auth": auth})
    auth = {k: v for k, v in {**auth, **ODD[name]}.items() if v is not None}
    state, words = refused(app.integration, "https://x.example/", delivery_settings={"auth": auth})
    assert state == "23514" and words.startswith("delivery_settings.auth ") and "leaks" not in words, words
