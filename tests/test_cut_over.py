"""The README's "Cut over", step by step, from a Rails application that sends for itself to anubisd."""
import re

from harness.anubis import Ctl, Daemon
from harness.application import Application
from harness.machine import ROOT
from harness.processes import wait_for
from harness.rails import adopt, rails

PUBLIC = {"database": {"schema": "public"}}
INSERT = ("insert into subscriptions (integration_id, integration_filter_id, order_id, payload, created_at, updated_at) "
          "select 1 + n %% 5, 1 + n %% 5, n, '{\"aluno\": \"Ana\"}', now(), now() from generate_series(1, %s) n returning id")


def steps():
    """The numbers of the steps of the README, and its SQL."""
    with open(f"{ROOT}/README.md", encoding="utf-8") as f:
        text = re.search(r"\*\*Cut over\*\*.*?\nThe way back:.*?\n\n", f.read(), re.S)[0]
    return re.findall(r"^(\d)\. ", text, re.M), text


def test_the_cut_over(empty_database, broker, institutions):
    numbers, text = steps()
    assert numbers == list("123456")
    database, server = empty_database, empty_database.server
    rails(database, rows=100)
    database.query("update integrations set endpoint_url = %s", (institutions.url("/good"),))
    app = Application(database, "public")

    # 1: a copy. Its daemon, on the same Kafka, sends nothing.
    copy = server.create_database(f"{database.name}_copy", template=database.name)
    try:
        assert "subscriptions" in adopt(copy, "--dry-run").expect(0).stdout
        assert copy.value("select to_regclass('public.anubis_migrations') is null")
        adopt(copy).expect(0)
        disable = re.search(r"`(UPDATE integrations SET enabled = false)`", text)[1]
        copy.query(disable)
        own = {**PUBLIC, "kafka": {"topic_prefix": "copy."}, "consumers": {"group_prefix": "copy"}}
        with Daemon(own, database=copy, kafka=broker) as daemon:
            daemon.wait_log("the relay leads")
            rows = [row for row, in copy.query(INSERT, (5,))]
            wait_for(lambda: copy.value("select high >= (select max(id) from subscription_events where subscription_id = %s) "
                                        "from relay_state", (rows[-1],)), 60, "the copy's events to be published")
            assert Ctl(own, database=copy)("status").code == 0
            assert daemon.term() == 0
        assert institutions.counts()["total"]["requests"] == 0
    finally:
        copy.drop()
    assert app.value("select count(*) from subscriptions") == 100

    # 3: the former sender has stopped; what it left in "processing" was left behind.
    database.query("update subscriptions set status = 'sent', sent_at = now() where status = 'processing' and id % 2 = 0; "
                   "update subscriptions set status = 'failed' where status = 'processing'")
    waiting = app.value("select count(*) from subscriptions where status in ('pending', 'retry')")
    kept = dict(database.query("select id, successful_sends from integrations"))
    database.query("create table rows_before as select id, status from subscriptions")

    # 4: the application goes on meanwhile, and from here on each change has its event.
    database.query(INSERT, (3,))
    adopt(database).expect(0)
    after = [row for row, in database.query(INSERT, (7,))]
    assert database.value("select count(*) from subscription_events where event_type = 'created' and subscription_id = any (%s)",
                          (after,)) == 7

    # 6
    with Daemon(PUBLIC, database=database, kafka=broker) as daemon:
        ctl = Ctl(PUBLIC, database=database, kafka=broker)
        wait_for(lambda: app.value("select count(*) from subscriptions where status in ('pending', 'retry', 'processing')") == 0,
                 60, lambda: f"all to be sent, not {app.states()}")
        wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof: {ctl('verify')}", interval=0.5)
        ctl("status").expect(0)
        keys = institutions.keys()
        assert len(keys) == waiting + 3 + 7 and all(key.received == 1 for key in keys.values())
        # What had been sent and counted before is neither sent nor counted again.
        assert app.value("select count(*) from subscriptions s join rows_before b using (id) where b.status = 'sent' "
                         "and s.status <> 'sent'") == 0
        sent = dict(database.query("select integration_id, count(*) from subscription_events where event_type = 'sent' "
                                   "group by 1"))
        wait_for(lambda: dict(database.query("select id, successful_sends from integrations")) ==
                 {i: kept[i] + sent.get(i, 0) for i in kept}, 60, "the counters to go on from where they were")
        assert daemon.term() == 0

    # The way back: the former sender works on the migrated tables, and its changes are in the ledger.
    row, = database.query(INSERT, (1,))[0]
    database.query("update subscriptions set status = 'processing' where id = %s", (row,))
    database.query("update subscriptions set status = 'sent', sent_at = now() where id = %s", (row,))
    assert [e for e, in database.query("select event_type from subscription_events where subscription_id = %s order by id",
                                       (row,))] == ["created", "updated", "sent"]
