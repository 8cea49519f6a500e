"""All five consumers together: they keep what a plain count over the ledger gives, whoever dies and whatever comes again."""
import collections
import json

from harness.processes import wait_for
from test_consumer import counters

SETTINGS = {"retry": {"base_delay": "50ms", "max_delay": "100ms", "max_attempts": 3}, "log_level": "info",
            "consumers": {"session_timeout": "6s", "heartbeat_interval": "500ms"}}
GROUPS = ("integration", "monitoring", "external")
# What must stay as it is when messages come again. The other columns of the evidence are of the rule that looks by the clock.
KEPT = {"integration_stats_spans": "t.*", "audit_trees": "topic, partition, size, roots", "audit_log": "t.*",
        "alert_evidence": "integration_id, recent", "dead_letters": "read_model, topic, partition, \"offset\", error",
        "confirmations": "subscription_id, status, external_id, contradicting"}


def model(app, confirming, said):
    """By the ledger, and by what the institution said: counters, hours, leaves of the audit log, confirmations."""
    results, hours, leaves, confirmed = collections.Counter(), collections.Counter(), collections.Counter(), {}
    for number, kind, integration, subscription, hour, took in app.query(
            "select id, event_type, integration_id, subscription_id, date_trunc('hour', created_at), duration_ms is not null "
            "from {s}.subscription_events where event_type is not null"):
        leaves[number] += 1
        results[integration, kind] += kind in ("sent", "failed")
        hours[integration, hour, kind] += kind != "updated"
        hours[integration, hour, "attempts"] += took and kind != "updated"
        if kind == "sent" and integration == confirming:
            confirmed.setdefault(subscription, "expected")
    for subscription, status in said:
        if confirmed.get(subscription, "expected") == "expected":
            confirmed[subscription] = status
    return +results, +hours, leaves, confirmed


def found(app):
    """The same, as the tables have it."""
    hours = collections.Counter()
    kinds = ("created", "sent", "failed", "retried", "attempts")
    for integration, hour, *counts in app.query(f"select integration_id, bucket, {', '.join(kinds)} "
                                                "from {s}.integration_stats"):
        hours.update({(integration, hour, kind): n for kind, n in zip(kinds, counts)})
    leaves = collections.Counter(n for n, in app.query("select sequence from {s}.audit_log"))
    return counters(app), +hours, leaves, dict(app.query("select subscription_id, status from {s}.confirmations"))


def kept(app):
    return {table: app.value(f"select md5(coalesce(string_agg(k::text, '|' order by k::text), '')) from "
                             f"(select {columns} from {{s}}.{table} t) k") for table, columns in KEPT.items()}


def test_what_comes_again_changes_nothing(app, institutions, broker, make_daemon, ctl):
    daemon = make_daemon(SETTINGS).start()
    confirming = app.integration(institutions.url("/good"), delivery_settings={"confirmation": {"within": "1h"}})
    others = [app.integration(institutions.url(path)) for path in ("/flaky/50", "/reject/422", "/echo")]
    said, ids = [], []
    for turn in range(4):
        ids += app.subscriptions(confirming, 25)
        for integration in others:
            app.subscriptions(integration, 25)
        app.wait_states(pending=0, processing=0, retry=0)
        words = [(i, "rejected" if i % 3 == 0 else "confirmed") for i in ids[::2]]  # each that came before once more
        broker.produce("anubis.confirmations", [(str(i), json.dumps({"subscription_id": i, "status": s})) for i, s in words])
        said += words
        broker.produce("anubis.subscriptions.sent", [{"key": "7", "value": "{", "headers": {
            "installation": app.value("select namespace::text from {s}.installation"), "sequence": str(turn + 1)}}])
        daemon.kill9()
        daemon.start()
    ctl("verify", "--wait", deadline=120).expect(0)
    wanted = model(app, confirming, said)
    assert len(wanted[2]) >= 1200
    wait_for(lambda: found(app) == wanted, 60, lambda: f"{wanted}, not {found(app)}")
    wait_for(lambda: app.value("select count(*) from {s}.dead_letters where topic like '%%.sent'", ()) == 12, 60, "dead letters")
    offsets = "select read_model, topic, partition, next_offset from {s}.consumer_offsets order by 1, 2, 3"
    before, ends = kept(app), app.query(offsets)
    for turn in range(3):
        for group in GROUPS:
            ctl("replay", "--group", group).expect(0)
        if turn == 1:
            daemon.kill9()
            daemon.start()
        wait_for(lambda: app.query(offsets) == ends, 60, "all to be read again")
        ctl("verify", "--wait", deadline=120).expect(0)
        ctl("verify", "--audit", "--full").expect(0)
        assert kept(app) == before and found(app) == wanted
