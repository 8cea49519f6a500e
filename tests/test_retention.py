"""What is older than it is to be kept goes when nobody needs it any more; what counts stays, and is still proven."""
import json
import uuid

import psycopg2
import pytest
from harness.anubis import Ctl
from harness.application import Application
from harness.processes import wait_for
from harness.rails import adopt, fingerprints, rails
from test_erase import CPF, caught_up, payload, traces

FAST = {"consumers": {"session_timeout": "6s", "heartbeat_interval": "500ms"}}
DAYS = "interval '500 days'"
PART = "subscription_events_1"
ALL = ["integration", "monitoring", "external"]
NO_BITS = "decode(repeat('00', 1024), 'hex')"
CLEAR = "update {s}.consumer_bitmaps set bits = " + NO_BITS + " where read_model = '%s' and event_type = 'sent'"
LETTER = ("insert into {{s}}.dead_letters "
          "(consumer_group, read_model, topic, partition, \"offset\", headers, error, discarded_at) "
          "select 'x', 'external', 'anubis.subscriptions.sent', 0, id, "
          "jsonb_build_object('sequence', id::text, 'event_id', event_id), 'x', {} "
          "from {{s}}.subscription_events where event_type = 'sent' and id < 1000000")
FORGED = LETTER.replace("'event_id', event_id)", "'event_id', gen_random_uuid())")
# What is done to the books, and what ledger_retire() says then: nothing to be done, or why the partition stays; "" = it goes.
NEEDED = {
    "": "",
    "update {s}.subscription_events set created_at = now() where id = 1": None,
    "update {s}.ledger_partitions set last_id = 2000000 where first_id = 1": None,
    "update {s}.relay_state set high = high - 1048576": "the relay has not published all",
    "update {s}.relay_state set gap_first = '{7}', gap_last = '{7}', gap_horizon = '{0}'": "the relay has not published all",
    "insert into {s}.relay_holes values (5, 7)": "the relay has not published all",
    "delete from {s}.audit_checkpoints": "no checkpoint of the audit log",
    "update {s}.audit_checkpoints set note = regexp_replace(note, 'sent 1 [0-9]+', 'sent 1 0')": "no checkpoint of the audit log",
    CLEAR % "integration": 'the group "integration" has not handled 9 of its events',
    CLEAR % "monitoring": 'the group "monitoring" has not handled 9 of its events',
    CLEAR % "external": 'the group "external" has not handled 9 of its events',
    CLEAR % "external" + "; " + LETTER.format("null"): "dead letters that nobody has replayed or discarded, 9 in all",
    CLEAR % "external" + "; " + LETTER.format("now()"): "",
    CLEAR % "external" + "; " + FORGED.format("now()"): 'the group "external" has not handled 9 of its events',
    FORGED.format("null"): "",
    CLEAR % "external" + "; delete from {s}.consumer_offsets where read_model = 'external'": "",
}


def retire(app, before="", age="400 days", readers=(), checked=0, batch=1 << 20):
    """What the daemon asks for, of which nothing stays: partition, up to where it was looked at, why it stays, events."""
    connection = app.database.connect(autocommit=False)
    try:
        with connection.cursor() as cursor:
            cursor.execute("set local session_replication_role = replica; " + before.replace("{s}", app.schema))
            cursor.execute(f"select part, checked_to, needed, events from {app.schema}.ledger_retire(%s, %s::text[], %s, %s)",
                           (age, list(readers), checked, batch))
            return cursor.fetchone()
    finally:
        connection.rollback()  # its locks are gone then
        connection.close()


def age_ledger(app):
    """The first partition is full, and all of it happened long ago."""
    app.query("select setval('{s}.ledger_id_seq', last_id) from {s}.ledger_partitions where first_id = 1")
    app.query("set session_replication_role = replica; "
              f"update {{s}}.subscription_events set created_at = created_at - {DAYS}, sent_at = sent_at - {DAYS}, "
              f"subscription_created_at = subscription_created_at - {DAYS}; "
              f"update {{s}}.subscriptions set created_at = created_at - {DAYS}, updated_at = updated_at - {DAYS}; "
              "reset session_replication_role")


def checkpoint(app):
    """The monitor writes one with each session, and once a minute."""
    leaves = app.value("select count(*) from {s}.audit_log")
    app.query("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'anubisd monitor' "
              "and datname = current_database()")
    def look():
        note = app.query("select note from {s}.audit_checkpoints order by id desc limit 1")
        return note and sum(int(line.split()[2]) for line in note[0][0].splitlines()[2:]) == leaves
    wait_for(look, 90, "a checkpoint of all leaves")


@pytest.fixture
def old(app, institutions, make_daemon, ctl):
    """A ledger whose first partition is old, published, handled and sealed, and some events that are new; and its daemon."""
    good, bad = app.integration(institutions.url("/good")), app.integration(institutions.url("/reject/422"))
    holder = app.database.connect()
    holder.cursor().execute(f"select pg_advisory_lock({app.schema}.lock_key('relay'))")
    daemon = make_daemon(FAST).start()
    app.subscriptions(good, 8)
    app.subscription(good, payload(), cpf=CPF)
    app.subscriptions(bad, 3)
    app.wait_states(sent=9, failed=3)
    age_ledger(app)
    app.subscriptions(good, 2)
    app.wait_states(sent=11, failed=3)
    daemon.reload(retention={"events": "399d"})
    daemon.wait_log(f"{PART} is older than retention.events, but stays in the ledger: the relay has not published all")
    daemon.reload(retention={"events": "900d"})
    daemon.wait_log("changed: retention.events", count=2)
    holder.close()
    caught_up(app, ctl)
    checkpoint(app)
    assert daemon.term() == 0
    yield app, daemon, good
    daemon.term()


def test_a_partition_stays_as_long_as_somebody_needs_it(old):
    app, _, _ = old
    events = app.value("select count(*) from {s}.subscription_events where id <= 1048576")
    for before, why in NEEDED.items():
        part, checked_to, needed, gone = retire(app, before)
        if why is None:
            assert part is None, before
        elif why:
            assert part == PART and why in (needed or "it goes") and gone is None, (before, needed)
        else:
            assert (part, checked_to, needed, gone) == (PART, None, None, events), before
    without = CLEAR % "external" + "; delete from {s}.consumer_offsets where read_model = 'external'"
    assert 'the group "external" has not handled' in retire(app, without, readers=ALL)[2]
    assert retire(app, age="501 days")[0] is None
    assert retire(app, batch=1000) == (PART, 1000, None, None)
    assert retire(app, batch=1000, checked=1048000) == (PART, None, None, events)
    # With a reader in its way it waits for a moment, and nothing has changed.
    reader = app.database.connect(autocommit=False)
    reader.cursor().execute(f"select from {app.schema}.subscription_events")
    with pytest.raises(psycopg2.errors.LockNotAvailable):
        retire(app)
    reader.rollback()
    reader.close()
    assert retire(app)[3] == events


def test_what_is_old_leaves_and_what_counts_stays(old, ctl):
    app, daemon, good = old
    event = app.value("select max(id) from {s}.subscription_events where id < 1000000")
    counters = app.query("select integration_id, sent, failed from {s}.integration_runtime order by 1")
    stats = app.query("select * from {s}.integration_stats_spans order by 1, 2, 3")
    daemon.write(retention={"events": "399d"})
    daemon.start()
    daemon.wait_log(rf"{PART} has left the ledger, older than retention.events: 36 events from \S+ to \S+")
    assert app.value("select to_regclass('{s}." + PART + "') is null and {s}.tables_amiss() is null")
    assert app.value("select min(id) from {s}.subscription_events") > 1048576
    for value in (1, 1048576, 2 ** 53):
        with pytest.raises(psycopg2.Error, match="out of bounds"):
            app.query("select setval('{s}.ledger_id_seq', %s)", (value,))
    assert ctl("verify", "--json").expect(0).json["ledger_since"]
    assert "36 events up to" in ctl("verify").expect(0).stdout
    ctl("verify", "--audit", "--full").expect(0)
    assert ctl("audit", "prove", event, "--json").expect(0).json["verdict"] == "proven"
    person = app.value("select id from {s}.subscriptions where cpf = %s", (CPF,))
    assert "its events up to" in ctl("explain", person).expect(0).stdout
    assert "have left the ledger" in ctl("status").expect(0).stdout
    # Counts are the same, and a replay brings them back when they were lost.
    assert app.query("select integration_id, sent, failed from {s}.integration_runtime order by 1") == counters
    app.query("update {s}.integration_runtime set sent = sent + 5, sent_folded = sent_folded + 5")
    ctl("verify").expect(1)
    assert ctl("replay", "--group", "integration", "--from-ledger", "--json").expect(0).json["stats"] == 0
    assert app.query("select integration_id, sent, failed from {s}.integration_runtime order by 1") == counters
    assert app.query("select * from {s}.integration_stats_spans order by 1, 2, 3") == stats
    saved = app.query("delete from {s}.ledger_dropped returning name, first_id, last_id, events, first_at, last_at")
    lost = ctl("replay", "--group", "integration", "--from-ledger").expect(69).stderr
    assert "no partition any more for ids from 0 to 8191, whose events were counted" in lost
    app.query("insert into {s}.ledger_dropped values (%s, %s, %s, %s, %s, %s)", saved[0])
    app.subscriptions(good, 4)
    app.wait_states(sent=15, failed=3)
    caught_up_but_for_the_old(app, ctl)
    ctl("replay", "--group", "integration").expect(0)
    ctl("erase", "--cpf", CPF, "--yes").expect(0)
    assert traces(app) == []
    caught_up_but_for_the_old(app, ctl)
    ctl("verify", "--audit", "--full").expect(0)


def event_id(sequence):
    return str(uuid.UUID(int=sequence))


def letter(app, offset, days, condition="null, null", sequence=None, published="now()"):
    headers = {"note": "Maria", **({"sequence": str(sequence), "event_id": event_id(sequence)} if sequence else {})}
    return app.value(
        "insert into {s}.dead_letters (consumer_group, read_model, topic, partition, \"offset\", key, value, headers, error, "
        "created_at, published_at, replayed_at, discarded_at) select 'x', 'external', 'anubis.subscriptions.sent', 0, %s, '7', "
        f"'Maria', %s, 'x', now() - interval '1 day' * %s, {published}, {condition} returning id",
        (offset, json.dumps(headers), days))


def test_dead_letters_go(app, make_daemon):
    """Those that are old enough; what is left of one whose event is still to be counted names nobody."""
    app.query("set session_replication_role = replica; "
              "insert into {s}.subscription_events (id, event_id, event_type, subscription_id, integration_id) "
              "select n, lpad(to_hex(n), 32, '0')::uuid, 'sent', n, null from generate_series(1, 3) n; "
              "select setval('{s}.ledger_id_seq', 3)")
    app.query("insert into {s}.consumer_bitmaps (read_model, event_type, partition, chunk, bits) "
              f"values ('external', 'sent', 0, 0, set_bit({NO_BITS}, 3, 1))")
    young = [letter(app, 1, 89), letter(app, 2, 91, published="null")]
    for offset, (condition, sequence) in enumerate((("null, null", None), ("null, now()", None), ("now(), null", 1),
                                                    ("null, null", 3), ("null, null", 99)), 3):
        letter(app, offset, 91, condition, sequence)
    emptied = [letter(app, 8, 91, sequence=1), letter(app, 9, 91, "null, now()", 2)]
    daemon = make_daemon({"consumers": {"monitoring": False}, "kafka": {"brokers": "127.0.0.1:1"}}).start()
    daemon.wait_log("7 dead letters older than retention.dead_letters: 5 gone, 2 emptied, .* discarded 4 of them")
    left = app.query("select id, value, headers, discarded_at is not null, discard_reason from {s}.dead_letters order by id")
    assert [row[0] for row in left] == young + emptied
    words = "older than retention.dead_letters"
    assert [row[1:] for row in left[2:]] == [(None, {"sequence": str(n), "event_id": event_id(n)}, True, words) for n in (1, 2)]
    daemon.reload(retention={"dead_letters": "80d"})
    daemon.wait_log("1 dead letter older than retention.dead_letters: 1 gone")
    assert app.query("select id from {s}.dead_letters order by id") == [(young[1],), *((i,) for i in emptied)]
    assert daemon.term() == 0


def caught_up_but_for_the_old(app, ctl):
    leaves = "select count(*) from {s}.audit_log where sequence > 1048576"
    wait_for(lambda: ctl("verify", "--json").code == 0
             and app.value(leaves) == app.value("select count(*) from {s}.subscription_events"), 60, lambda: ctl("verify").stdout)


def test_what_was_there_before_the_adoption_leaves(empty_database, broker, institutions, make_daemon):
    """The adopted partition is as old as its adoption, and no part of any proof: what was counted before stays, and adds up."""
    rails(empty_database)
    adopt(empty_database).expect(0)
    app, part, public = Application(empty_database, "public"), "subscription_events_adopted", {"database": {"schema": "public"}}
    app.query("update {s}.integrations set endpoint_url = %s", (institutions.url("/good"),))
    app.query("update {s}.subscriptions set status = 'pending' where status = 'processing'")
    types = fingerprints(empty_database)
    assert retire(app, age="1 day")[0] is None, "it was adopted just now, however old its events are"
    app.query("update {s}.ledger_partitions set created_at = created_at - interval '2 days' where name = %s", (part,))
    assert retire(app, age="3 days")[0] is None
    daemon = make_daemon({**FAST, **public, "retention": {"events": "1d"}}, database=empty_database).start()
    daemon.wait_log(f"{part} has left the ledger, older than retention.events")
    assert app.value("select to_regclass('{s}." + part + "') is null and {s}.tables_amiss() is null")
    app.query("insert into {s}.subscriptions (integration_id, integration_filter_id, payload, created_at, updated_at) "
              "select 1, 1, '{}', now(), now() from generate_series(1, 5)")
    app.wait_states(sent=165, failed=40)
    ctl = Ctl(public, database=empty_database, kafka=broker)
    wait_for(lambda: ctl("verify", "--json").code == 0, 60, lambda: ctl("verify").stdout)
    wait_for(lambda: app.value("select sum(successful_sends) from {s}.integrations") == 10 * (1 + 2 + 3 + 4 + 5) + 165 - 40, 30,
             "what is counted to be added to what the application had counted")
    assert all(fingerprints(empty_database)[kind] == value for kind, value in types.items() if "types" in kind)
    assert "sent" in ctl("explain", 2).expect(0).stdout
    for value in (1, app.value("select min(id) from {s}.subscription_events") - 1):
        with pytest.raises(psycopg2.Error, match="out of bounds"):
            app.query("select setval('{s}.ledger_id_seq', %s)", (value,))
    assert daemon.term() == 0
