"""What the application writes into a row while its request is under way, or writes back with what it read before."""
import json

import psycopg2
import pytest
from harness.processes import wait_for

# What a mapper that writes all columns holds of a row that it read before the claim; of those that it maps, or of all.
BEFORE = "payload = payload, integration_id = integration_id, status = 'pending', attempts = 0"
ALL_BEFORE = BEFORE + ", claimed_by = null, claim_token = null, lease_expires_at = null, next_attempt_at = null"

CHANGES = [
    ("integration_id = (select max(id) from {s}.integrations)", "the integration"),
    ("integration_id = null", "the integration"),
    ("integration_id = 1000000", "the integration"),
    ("payload = '{\"a\": 2}'", "the payload"),
    ("payload = null", "null value|the payload"),
    ("status = 'pending', payload = '{}'", "the payload"),
    (ALL_BEFORE.replace("payload = payload", "payload = '{}'"), "the payload"),
    ("attempts = 0", "the attempts"),
    ("attempts = 7, updated_at = now()", "the attempts"),
    ("claim_token = claim_token + 1", "the claim"),
    ("claim_token = null", "the claim"),
    ("claimed_by = null, claim_token = null, lease_expires_at = null", "the claim"),
    ("erased_at = now()", "as erased"),
    ("resend_of = 1, erased_at = now()", "as erased"),
    ("resend_of = 1", None),
    (BEFORE, "the state"),
    (ALL_BEFORE, "the state"),
    (ALL_BEFORE + ", order_id = 7", "the state"),
    *((ALL_BEFORE.replace("pending", status), "the state|the claim") for status in ("retry", "failed", "processing", "sent")),
    ("payload = payload, integration_id = integration_id, order_id = 7, cpf = '12345678909', updated_at = now()", None),
    ("payload = payload, integration_id = integration_id, status = status, attempts = attempts, claim_token = claim_token", None),
]


def test_what_is_being_sent_does_not_change(app, institutions, make_daemon):
    """What stands in the row and its events is what was sent, and to whom; and it goes out once."""
    slow = institutions.url("/slow/8000/first")
    first, other = app.integration(slow, max_in_flight=len(CHANGES)), app.integration(institutions.url("/good/other"))
    daemon = make_daemon().start()
    rows = app.subscriptions(first, len(CHANGES))
    wait_for(lambda: institutions.counts("/slow/8000/first")["requests"] == len(CHANGES), 30, "all requests", interval=0.02)
    assert app.states() == {"processing": len(CHANGES)}
    payloads = {row: app.row(row)["payload"] for row in rows}
    for row, (change, refused) in zip(rows, CHANGES):
        statement = f"update {{s}}.subscriptions set {change} where id = %s"
        if refused:
            with pytest.raises(psycopg2.Error, match=refused):
                app.query(statement, (row,))
        else:
            app.query(statement, (row,))
    assert app.states() == {"processing": len(CHANGES)}
    app.wait_states(sent=len(CHANGES), deadline=60)
    for row in rows:
        found = app.row(row)
        assert (found["integration_id"], found["payload"], found["attempts"]) == (first, payloads[row], 1)
    sent = app.query("select distinct integration_id, attempt from {s}.subscription_events where event_type = 'sent'")
    assert sent == [(first, 1)] and other
    keys = institutions.keys()
    assert len(keys) == len(CHANGES) and all(key.received == 1 for key in keys.values())
    assert daemon.term() == 0


# Of every kind, on the row ROW of the integration FIRST.
UPSERT = ("insert into {s}.subscriptions (id, integration_id, payload) values (ROW, OTHER, '{\"a\": 2}') on conflict (id) "
          "do update set ")
MERGE = "merge into {s}.subscriptions t using (values (ROW)) v (id) on t.id = v.id when matched then "
STATEMENTS = [
    (UPSERT + "payload = excluded.payload", "the payload"),
    (UPSERT + "integration_id = excluded.integration_id, status = excluded.status", "the integration"),
    (UPSERT + "order_id = 7", None),
    (MERGE + "update set integration_id = OTHER", "the integration"),
    (MERGE + "update set status = 'pending', payload = '{}'", "the payload"),
    (MERGE + "delete", "cannot delete"),
    ("with d as (delete from {s}.subscriptions where id = ROW returning *) insert into {s}.subscriptions select * from d",
     "cannot delete"),
    ("update {s}.subscriptions set id = ROW + 1000000 where id = ROW", "the id"),
    ("with u as (update {s}.subscriptions set id = ROW + 1000000 where id = ROW returning *) insert into {s}.subscriptions "
     "(id, integration_id, payload) select ROW, integration_id, payload from u", "the id"),
    ("begin; savepoint a; update {s}.subscriptions set status = 'pending' where id = ROW; rollback to a; commit", None),
    ("update {s}.subscriptions set (payload, status) = ('{\"x\": 1}', 'processing') where id = ROW", "the payload"),
    ("update {s}.subscriptions set idempotency_seed = 42, created_at = now() - interval '10 days' where id = ROW", None),
    ("update {s}.subscriptions set held_at = now(), lease_expires_at = now() where id = ROW", None),
]


def test_statements_of_every_kind_on_what_is_being_sent(app, institutions, make_daemon):
    """Each row is sent once, where and as it was claimed, and keeps its id."""
    path, can_merge = "/slow/6000/first", app.value("select current_setting('server_version_num')::int >= 150000")
    statements = [s for s in STATEMENTS if can_merge or not s[0].startswith("merge")]
    first, other = app.integration(institutions.url(path), max_in_flight=50), app.integration(institutions.url("/good"))
    daemon = make_daemon().start()
    rows = app.subscriptions(first, len(statements))
    wait_for(lambda: institutions.counts(path)["requests"] == len(statements), 30, "all requests", interval=0.02)
    for row, (statement, refused) in zip(rows, statements):
        statement = statement.replace("ROW", str(row)).replace("OTHER", str(other))
        if refused:
            with pytest.raises(psycopg2.Error, match=f"{refused}.* subscription"):
                app.query(statement)
        else:
            app.query(statement)
    app.wait_states(sent=len(statements), deadline=60)
    found = app.query("select id, integration_id, attempts from {s}.subscriptions order by id")
    assert found == [(row, first, 1) for row in rows]
    assert all(key.received == 1 for key in institutions.keys().values()) and institutions.counts("/good")["requests"] == 0
    assert daemon.term() == 0


PAYLOAD_TYPES = ["jsonb", "json", "text"]


def writes_the_payload(app, column_type, when):
    """A column of that type, and a trigger of the application's that writes it."""
    app.query("select {s}.anubis_alter(%s)", ("alter table anubis.subscriptions alter payload drop default, "
                                              f"alter payload type {column_type}",))
    app.query("create function public.meddle() returns trigger language plpgsql as $q$ begin "
              "new.payload := '{\"another\": true}'; return new; end $q$")
    app.query(f"create trigger own before update on {{s}}.subscriptions for each row when ({when}) "
              "execute function public.meddle()")


@pytest.mark.parametrize("column", PAYLOAD_TYPES)
def test_a_trigger_that_writes_the_payload_of_what_is_being_sent(app, institutions, make_daemon, column):
    """Also where the statement names another column."""
    writes_the_payload(app, column, "new.order_id is distinct from old.order_id")
    path = "/slow/5000/one"
    integration = app.integration(institutions.url(path))
    daemon = make_daemon().start()
    row = app.subscription(integration, {"first": True})
    wait_for(lambda: institutions.counts(path)["requests"] == 1, 30, "the request to be under way", interval=0.02)
    for change in ("order_id = 7", "order_id = 8, updated_at = now()"):
        with pytest.raises(psycopg2.Error, match=f"a trigger changes or drops the payload of subscription {row}"):
            app.query(f"update {{s}}.subscriptions set {change} where id = %s", (row,))
    app.query("update {s}.subscriptions set origin = 'site' where id = %s", (row,))
    app.wait_states(sent=1)
    assert app.value("select payload::jsonb = '{\"first\": true}' from {s}.subscriptions") and daemon.term() == 0


@pytest.mark.parametrize("column", PAYLOAD_TYPES)
def test_a_trigger_that_writes_the_payload_with_the_result(app, institutions, make_daemon, column):
    """The event has what was sent."""
    writes_the_payload(app, column, "new.status = 'failed'")
    integration = app.integration(institutions.url("/reject/422/one"))
    daemon = make_daemon().start()
    row = app.subscription(integration, {"first": True})
    app.wait_states(failed=1)
    assert json.loads(app.events(row)[-1]["request"]) == {"first": True}
    assert app.value("select payload::jsonb = '{\"another\": true}' from {s}.subscriptions") and daemon.term() == 0


def test_an_endpoint_that_moves_under_a_request(app, institutions, make_daemon):
    """The answer of the former one counts; the next request goes to the new one."""
    integration = app.integration(institutions.url("/slow/3000/old"))
    make_daemon().start()
    app.subscription(integration)
    wait_for(lambda: institutions.counts("/slow/3000/old")["requests"] == 1, 30, "the request to be under way", interval=0.02)
    app.query("update {s}.integrations set endpoint_url = %s where id = %s", (institutions.url("/good/new"), integration))
    app.subscription(integration)
    app.wait_states(sent=2, deadline=60)
    assert (institutions.counts("/slow/3000/old")["requests"], institutions.counts("/good/new")["requests"]) == (1, 1)


def test_a_save_of_what_was_read_before(app):
    """After the answer: a claim that is over is not taken up again, and a row that is held stays so."""
    integration = app.integration("https://example.com/")
    over, held, free = (app.subscription(integration) for _ in range(3))
    app.query("update {s}.subscriptions set status = 'retry', attempts = 1 where id = %s", (held,))
    app.query("update {s}.subscriptions set held_at = now() where id = %s", (held,))
    stale = "update {s}.subscriptions set payload = payload, integration_id = integration_id, "
    for row, change, words in ((over, "status = 'processing', claim_token = 42, claimed_by = 'me'", "the claim is over"),
                               (held, "status = 'pending', attempts = 0", "it is held"),
                               (held, "status = 'pending', attempts = 0, held_at = null", "it is held")):
        with pytest.raises(psycopg2.Error, match="cannot change the state of subscription .*: " + words):
            app.query(stale + change + " where id = %s", (row,))
    app.query(stale + "status = 'failed', attempts = 0, order_id = 7, claim_token = null where id = %s", (free,))
    assert app.row(held)["held_at"] and app.row(over)["status"] == "pending" and app.row(free)["order_id"] == 7
    # By whom names the status alone, it is put back.
    app.query("update {s}.subscriptions set status = 'pending' where id = %s", (held,))
    assert app.row(held)["held_at"] is None


def test_a_row_that_is_moved_where_no_trigger_fires_is_not_sent(app, institutions, make_daemon, ctl):
    """What the one institution has taken is no result of the other, which gets it once the claim is over."""
    first, other = app.integration(institutions.url("/slow/3000/first")), app.integration(institutions.url("/good/other"))
    daemon = make_daemon({"delivery": {"timeout": "4s", "lease": "6s"}}).start()
    row = app.subscription(first)
    wait_for(lambda: institutions.counts("/slow/3000/first")["requests"] == 1, 30, "the request to be under way", interval=0.02)
    app.query("set session_replication_role = replica; update {s}.subscriptions set integration_id = %s where id = %s",
              (other, row))
    daemon.wait_log(f"result of subscription {row} came after its claim had ended")
    app.wait_states(sent=1, deadline=60)
    assert institutions.counts("/good/other")["requests"] == 1 and app.row(row)["attempts"] == 2
    assert [(e["event_type"], e["integration_id"]) for e in app.events(row)] == [
        ("created", first), ("updated", first), ("retried", other), ("updated", other), ("sent", other)]
    ctl("verify", "--wait").expect(0)
    assert daemon.term() == 0


def test_a_row_that_waits_is_not_marked_as_erased(app, institutions, make_daemon):
    """The claim of it would be refused, and that of all others with it."""
    row = app.subscription(app.integration(institutions.url("/good"), enabled=False))
    with pytest.raises(psycopg2.Error, match='still to be sent(.|\n)*anubisctl erase'):
        app.query("update {s}.subscriptions set erased_at = now() where id = %s", (row,))
    app.query("update {s}.integrations set enabled = true")
    make_daemon().start()
    app.wait_states(sent=1)


BY_NAME = ("a trigger changes or drops the WHAT of subscription ROW as it is written. "
           r'Repair or drop "Own" on anubis\.subscriptions\.')
REFUSED = "a trigger on subscriptions changes what is written there"
# What a trigger of the application's does, what the daemon could not do, and why.
MEDDLING = [
    ("if new.status = 'processing' then return null; end if;", "claim", BY_NAME.replace("WHAT", "claim")),
    ("if new.status = 'processing' then new.status := old.status; end if;", "claim", BY_NAME.replace("WHAT", "claim")),
    ("if new.status = 'processing' then new.claim_token := 7; end if;", "claim", BY_NAME.replace("WHAT", "claim")),
    ("if new.status = 'processing' then new.integration_id := (select max(id) from {s}.integrations); end if;", "claim",
     BY_NAME.replace("WHAT", "claim")),
    ("if new.status = 'processing' then new.attempts := old.attempts; end if;", "claim", BY_NAME.replace("WHAT", "claim")),
    ("if new.status = 'processing' then new.idempotency_seed := 7; end if;", "claim", BY_NAME.replace("WHAT", "claim")),
    ("if new.status = 'sent' then return null; end if;", "settle", BY_NAME.replace("WHAT", "result")),
    ("if new.status = 'sent' then new.idempotency_turn := 7; end if;", "settle", BY_NAME.replace("WHAT", "result")),
    ("if new.status = 'sent' then new.status := 'pending'; end if;", "settle", BY_NAME.replace("WHAT", "result")),
    ("if new.status = 'sent' then new.status := old.status; end if;", "settle", REFUSED),
    ("if new.status = 'sent' then new.integration_id := (select max(id) from {s}.integrations); end if;", "settle",
     BY_NAME.replace("WHAT", "integration")),
]


@pytest.mark.parametrize("body, verb, why", MEDDLING, ids=[
    "claim dropped", "claim undone", "token", "integration at the claim", "attempts", "seed", "result dropped", "turn",
    "result undone", "result kept away", "integration"])
def test_triggers_that_change_what_is_written_are_named(app, institutions, make_daemon, body, verb, why):
    """Nothing goes out twice for them, none of the other rows waits, and all goes on once they are dropped."""
    integration = app.integration(institutions.url("/good/one"))
    app.integration(institutions.url("/good/other"))
    app.query("create function public.meddle() returns trigger language plpgsql as "
              f"$q$ begin {body} return new; end $q$")
    app.query("create trigger \"Own\" before update on {s}.subscriptions for each row when (new.id % 2 = 0) "
              "execute function public.meddle()")
    daemon = make_daemon().start()
    rows = app.subscriptions(integration, 6)
    for row in (row for row in rows if row % 2 == 0):
        named = why.replace("ROW", str(row))
        daemon.wait_log(rf"error: could not {verb} subscription {row} \({named}.*(passing it over|trying again)", 30)
    wait_for(lambda: app.states()["sent"] == 3, 30, lambda: f"the other rows: {app.states()}")
    app.query("drop trigger \"Own\" on {s}.subscriptions")
    app.wait_states(sent=6, deadline=60)
    keys = institutions.keys()
    assert len(keys) == 6 and all(key.received == 1 for key in keys.values())
    assert app.query("select distinct integration_id from {s}.subscription_events") == [(integration,)]
    assert "could not store" not in daemon.log and daemon.term() == 0


@pytest.mark.parametrize("change", ["attempts := new.attempts + 1", "attempts := 0", "held_at := now()",
                                    "next_attempt_at := null", "idempotency_seed := 7"])
def test_a_pause_and_a_key_that_triggers_change_are_named(app, institutions, make_daemon, change):
    """Else a row that is to be tried again would go out without a pause, without end, or under another key."""
    path = "/status/500/one"
    integration = app.integration(institutions.url(path))
    app.query("create function public.meddle() returns trigger language plpgsql as "
              f"$q$ begin new.{change}; return new; end $q$")
    app.query("create trigger own before update on {s}.subscriptions for each row when (new.status = 'retry') "
              "execute function public.meddle()")
    daemon = make_daemon({"retry": {"base_delay": "100ms"}}).start()
    row = app.subscription(integration)
    daemon.wait_log(f"could not settle subscription {row} .a trigger changes or drops the result of subscription {row}.*own", 30)
    assert institutions.counts(path)["requests"] == 1
    app.query("drop trigger own on {s}.subscriptions")
    wait_for(lambda: institutions.counts(path)["requests"] > 1, 30, "another attempt")
    assert len(institutions.keys()) == 1 and daemon.term() == 0


@pytest.mark.parametrize("change", ["status = 'pending'", "status = 'pending', claim_token = null",
                                    "status = 'pending', claim_token = null, claimed_by = null, lease_expires_at = null"])
@pytest.mark.parametrize("trigger", [
    "create trigger own after update on {s}.subscriptions for each row when (new.status = 'processing') "
    "execute function public.undo()",
    "create trigger own after update on {s}.subscriptions for each statement execute function public.undo()",
    "create constraint trigger own after update on {s}.subscriptions deferrable initially deferred "
    "for each row when (new.status = 'processing') execute function public.undo()",
], ids=["row", "statement", "at the commit"])
def test_triggers_that_undo_a_claim_afterwards_are_named(app, institutions, make_daemon, trigger, change):
    """What an AFTER trigger does is not in what the statement returns."""
    integration = app.integration(institutions.url("/good/one"))
    app.query("create function public.undo() returns trigger language plpgsql as $q$ begin if pg_trigger_depth() = 1 then "
              f"update {app.schema}.subscriptions set {change} where status = 'processing' and id % 2 = 0; "
              "end if; return null; end $q$")
    app.query(trigger)
    daemon = make_daemon().start()
    rows = app.subscriptions(integration, 4)
    for row in (row for row in rows if row % 2 == 0):
        daemon.wait_log(f"could not claim subscription {row} .a trigger changes or drops the claim of .* {row}.*own", 30)
    wait_for(lambda: app.states()["sent"] == 2, 30, lambda: f"the other rows: {app.states()}")
    app.query("drop trigger own on {s}.subscriptions")
    app.wait_states(sent=4, deadline=60)
    assert all(key.received == 1 for key in institutions.keys().values()) and daemon.term() == 0
