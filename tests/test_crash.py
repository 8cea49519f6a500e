"""Whatever dies, and whenever: nothing is lost, nothing is forgotten, and what was sent twice was in flight."""
import contextlib
import os
import random
import re
import signal
import socket
import time

import pytest
from conftest import migrate
from harness.anubis import Ctl, program
from harness.application import Application
from harness.processes import Child, scratch_folder, wait_for
from harness.toxic import Proxy

# The shortest lease that the timeout allows: what a dead daemon left behind comes back soon.
SETTINGS = {"delivery": {"timeout": "2s", "connect_timeout": "1s", "lease": "3s", "poll_interval": "100ms", "batch_size": 100,
                         "max_in_flight": 200},
            "retry": {"base_delay": "50ms", "max_delay": "200ms", "max_attempts": 50}}


def enrol(app, institutions, count, paths=("/good", "/slow/20", "/slow/50")):
    """`count` subscriptions spread over integrations; their ids."""
    ids = []
    for path in paths:
        ids += app.subscriptions(app.integration(institutions.url(path)), count // len(paths))
    return ids


def check_nothing_lost(app, institutions, ids):
    """Every subscription is sent and was received; ledger and state agree; what was received twice may have been: its ledger
    says that an attempt before was ambiguous."""
    assert app.states() == {"sent": len(ids)}
    keys = institutions.keys()
    assert len(keys) == len(ids)
    assert all(k.acknowledged >= 1 for k in keys.values())
    again = [k for k in keys.values() if k.received > 1]
    ambiguous = app.value("select count(distinct subscription_id) from {s}.subscription_events where ambiguous")
    assert len(again) <= ambiguous, f"{len(again)} were received again, {ambiguous} known to be ambiguous"
    assert not institutions.violations()
    wrong = app.query("""select s.id, s.status, e.to_status from {s}.subscriptions s
        left join lateral (select to_status from {s}.subscription_events where subscription_id = s.id order by id desc limit 1) e
        on true where s.status is distinct from e.to_status""")
    assert not wrong, wrong[:5]
    broken = app.query("""select subscription_id, id from (
        select *, lag(to_status) over (partition by subscription_id order by id) as before
        from {s}.subscription_events) e where from_status is distinct from before""")
    assert not broken, f"ledger rows that do not follow from the one before: {broken[:5]}"
    return len(again)


def sent_so_far(app):
    return app.states()["sent"]


def test_ten_kills_of_the_daemon(app, institutions, make_daemon):
    daemon = make_daemon(SETTINGS)
    ids = enrol(app, institutions, 3000)
    chance = random.Random(7)
    for _ in range(10):
        before = sent_so_far(app)
        daemon.start()
        goal = before + chance.randint(1, 250)
        wait_for(lambda goal=goal: sent_so_far(app) >= goal, 60, f"{goal} to be sent", interval=0.005)
        daemon.kill9()
    daemon.start()
    app.wait_states(sent=len(ids), deadline=120)
    check_nothing_lost(app, institutions, ids)


def test_ordered_stop_sends_nothing_twice(app, institutions, make_daemon):
    daemon = make_daemon({**SETTINGS, "delivery": {**SETTINGS["delivery"], "drain_timeout": "10s"}})
    ids = enrol(app, institutions, 1500)
    for _ in range(5):
        before = sent_so_far(app)
        daemon.start()
        wait_for(lambda before=before: sent_so_far(app) > before + 20, 60, "some to be sent", interval=0.005)
        assert daemon.term() == 0
        states = app.states()
        assert not states["processing"], states
    daemon.start()
    app.wait_states(sent=len(ids), deadline=120)
    assert check_nothing_lost(app, institutions, ids) == 0


def test_drain_that_ends_gives_back_or_says_ambiguous(app, institutions, make_daemon):
    daemon = make_daemon({"delivery": {"timeout": "60s", "lease": "90s", "drain_timeout": "300ms"},
                          "retry": {"base_delay": "1h", "max_delay": "1h"}}).start()
    ids = app.subscriptions(app.integration(institutions.url("/silent")), 5)
    wait_for(lambda: institutions.counts("/silent")["requests"] == 5, 30, "five requests")
    assert daemon.term() == 0
    assert app.states() == {"retry": 5}
    for i in ids:
        event = app.events(i)[-1]
        assert event["event_type"] == "retried" and event["ambiguous"], event


def test_drain_before_there_is_a_connection_costs_nothing(app, make_daemon):
    """A proxy that says nothing: what waits behind it goes back to its queue as it came."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as proxy:
        daemon = make_daemon({"delivery": {"proxy": f"http://127.0.0.1:{proxy.getsockname()[1]}", "connect_timeout": "30s",
                                           "drain_timeout": "300ms"}}).start()
        app.subscriptions(app.integration("http://institution.example/"), 5)
        waiting = [proxy.accept()[0] for _ in range(5)]
        assert all(c.recv(4096).startswith(b"CONNECT institution.example:80 ") for c in waiting)
        assert daemon.term() == 0
        for c in waiting:
            c.close()
    assert app.query("select distinct status, attempts, last_ambiguous from {s}.subscriptions") == [("pending", 0, False)]


@pytest.mark.parametrize("rows", [0, 40])
def test_a_claim_that_is_answered_during_the_stop(app, institutions, make_daemon, rows):
    """Its rows go back unsent, and nobody waits for anything else."""
    daemon = make_daemon({"delivery": {"timeout": "20s", "lease": "60s", "drain_timeout": "20s", "poll_interval": "100ms"}})
    integration = app.integration(institutions.url("/good"), max_in_flight=100)
    app.query("""create function public.wait_for_it() returns trigger language plpgsql as
        $$ begin perform pg_advisory_xact_lock_shared(1); return new; end $$""")
    app.query("create trigger wait_for_it before update on {s}.subscriptions for each row execute function public.wait_for_it()")
    if rows:
        app.subscriptions(integration, rows)
    with app.database.connect(autocommit=False) as other, other.cursor() as cursor:
        cursor.execute("select pg_advisory_xact_lock(1)" if rows else "lock table anubis.integrations in access exclusive mode")
        daemon.start()
        wait_for(lambda: app.value("""select count(*) from pg_stat_activity where application_name = 'anubisd claim'
            and datname = current_database() and wait_event_type = 'Lock'"""), 30, "a claim that waits")
        os.kill(daemon.pid, signal.SIGTERM)
        daemon.wait_log("stopping: ")
        other.rollback()
    wait_for(lambda: not daemon.is_running(), 10, "the end")
    assert app.states() == ({"pending": rows} if rows else {})
    assert institutions.counts("/good")["requests"] == 0


def test_second_signal_ends_at_once(app, institutions, make_daemon):
    daemon = make_daemon({"delivery": {"timeout": "60s", "lease": "90s", "drain_timeout": "50s"}}).start()
    app.subscription(app.integration(institutions.url("/silent")))
    wait_for(lambda: institutions.counts("/silent")["requests"] == 1, 30, "the request")
    daemon.child.signal(15)
    daemon.wait_log("stopping: 1 request under way, 0 results")
    started = time.monotonic()
    assert daemon.term() == 0
    assert time.monotonic() - started < 20


@pytest.mark.parametrize("way", ["immediate", "kill9", "backends"])
def test_postgres_dies(own_postgres, institutions, broker, make_daemon, way):
    server = own_postgres(settings={"fsync": "on"})
    database = server.create_database("crash")
    migrate(database)
    app = Application(database)
    ids = enrol(app, institutions, 3000)
    daemon = make_daemon(SETTINGS, database=database).start()
    for turn in range(3):
        goal = min((turn + 1) * 400, len(ids))
        wait_for(lambda goal=goal: sent_so_far(app) >= goal, 60, f"{goal} to be sent", interval=0.01)
        if way == "backends":
            app.query("select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'anubisd%'")
        else:
            (server.kill9 if way == "kill9" else lambda: server.stop("immediate"))()
            server.start()
    app.wait_states(sent=len(ids), deadline=120)
    check_nothing_lost(app, institutions, ids)
    assert daemon.is_running()
    if way != "backends":
        assert "the database is back" in daemon.log


def test_postgres_stalls(database, app, institutions, make_daemon):
    """A connection on which nothing comes any more, and nothing says so."""
    with Proxy(("127.0.0.1", database.server.port)) as proxy:
        daemon = make_daemon({**SETTINGS, "database": {"statement_timeout": "1s", "connect_timeout": "1s"}},
                             database=database.conninfo(tcp=True, port=proxy.port)).start()
        ids = enrol(app, institutions, 600, ("/slow/50",))
        wait_for(lambda: sent_so_far(app) >= 50, 60, "some to be sent", interval=0.005)
        proxy.stall()
        daemon.wait_log("could not work with the database", deadline=90)
        proxy.resume()
        app.wait_states(sent=len(ids), deadline=120)
    check_nothing_lost(app, institutions, ids)


def test_result_waits_for_a_locked_row(app, institutions, make_daemon):
    """Somebody who sits on one row keeps no other result from being written, and does not lose that one."""
    make_daemon({"delivery": {"timeout": "20s", "lease": "60s"}}).start()
    integration = app.integration(institutions.url("/slow/700"))
    ids = app.subscriptions(integration, 10)
    app.wait_states(processing=10)
    with app.database.connect(autocommit=False) as other, other.cursor() as cursor:
        cursor.execute("select 1 from anubis.subscriptions where id = %s for update", (ids[3],))
        app.wait_states(sent=9, deadline=30)
        assert app.row(ids[3])["status"] == "processing"
        other.rollback()
    app.wait_states(sent=10)
    check_nothing_lost(app, institutions, ids)


@contextlib.contextmanager
def refused(app, condition, each="row"):
    """While a trigger of the application's will not have some changes."""
    app.query(f"""create function public.refuse() returns trigger language plpgsql as $$
        begin if {condition} then raise exception 'not this one'; end if; return new; end $$""")
    app.query(f"create trigger refuse before update on {{s}}.subscriptions for each {each} execute function public.refuse()")
    yield
    app.query("drop trigger refuse on {s}.subscriptions")


def test_a_result_that_a_trigger_refuses_holds_up_no_other(app, institutions, make_daemon):
    daemon = make_daemon({"delivery": {"timeout": "20s", "lease": "60s"}})
    ids = app.subscriptions(app.integration(institutions.url("/good")), 40)
    with refused(app, f"new.id = {ids[5]} and new.status = 'sent'"):
        daemon.start()
        app.wait_states(sent=39, processing=1)
    app.wait_states(sent=40)
    check_nothing_lost(app, institutions, ids)


def test_a_result_that_a_unique_index_refuses_is_told(app, institutions, broker, make_daemon):
    """By the journal, when it begins and when it is over, and meanwhile by explain. It is stored, and not sent again."""
    app.query("create unique index one_sent on {s}.subscriptions (cpf) where status = 'sent'")
    settings = {"delivery": {"timeout": "1s", "connect_timeout": "1s", "lease": "3s"}, "log_level": "info"}
    daemon, ctl = make_daemon(settings).start(), Ctl(settings, database=app.database, kafka=broker)
    integration = app.integration(institutions.url("/good/unique"))
    rows = []
    for state in ("sent", "processing"):
        rows.append(app.subscription(integration, cpf="52998224725"))
        wait_for(lambda state=state: app.row(rows[-1])["status"] == state, 30, f"it to be {state}")
    daemon.wait_log(rf"could not settle subscription {rows[1]} \(.*one_sent", 30)
    told = wait_for(lambda: (said := ctl("explain", str(rows[1])).stdout) and "the database refuses its result" in
                    re.sub(r"\s+", " ", said) and said, 30, "explain to say it")
    assert "52998224725" not in told
    refused = ctl("status", "--json").json["results_refused"]
    name = app.value("select name from {s}.integrations")
    assert refused == [{"daemon": app.row(rows[1])["claimed_by"], "results": 1, "subscription_id": rows[1],
                        "integration_id": integration, "integration_name": name, "sqlstate": "23505"}]
    shown = ctl("status").stdout
    assert "Results that the database refuses" in shown and "a unique index does not take it" in shown
    assert f'"anubisctl explain {rows[1]}"' in re.sub(r"\s+", " ", shown)
    app.query("drop index {s}.one_sent")
    daemon.wait_log(f"the result of subscription {rows[1]} is no longer refused", 30)
    app.wait_states(sent=2)
    wait_for(lambda: not ctl("status", "--json").json["results_refused"], 10, "status to tell of none")
    assert "refuses" not in ctl("status").stdout
    assert [key.received for key in institutions.keys("/good/unique").values()] == [1, 1]
    assert daemon.term() == 0


def test_a_row_that_a_trigger_refuses_to_have_claimed_holds_up_no_other(app, institutions, make_daemon):
    daemon = make_daemon()
    ids = app.subscriptions(app.integration(institutions.url("/good/1")), 40)
    ids += app.subscriptions(app.integration(institutions.url("/good/2")), 40)
    bad = [ids[0], ids[5], ids[6], ids[39], ids[79]]
    with refused(app, f"new.id in ({','.join(map(str, bad))}) and new.status = 'processing'"):
        daemon.start()
        app.wait_states(sent=75, pending=5)
        for i in bad:
            daemon.wait_log(f"subscription {i} ")
    app.wait_states(sent=80)
    check_nothing_lost(app, institutions, ids)


def test_results_that_are_refused_in_masses_make_few_lines(app, institutions, make_daemon):
    """A constraint that somebody adds: named with the first ones, told in systemctl status, over when it is over."""
    slots = {"max_in_flight": 256, "max_in_flight_per_integration": 200}
    daemon = make_daemon({"delivery": {"timeout": "20s", "lease": "60s", **slots}, "log_level": "notice"})
    refuses, other = (app.integration(institutions.url(f"/good/{n}")) for n in range(2))
    ids = app.subscriptions(refuses, 600)
    app.query("alter table {s}.subscriptions add constraint odd "
              f"check (status <> 'sent' or integration_id <> {refuses} or scheduled_to is not null) not valid")
    daemon.start()
    daemon.wait_log('error: the database refuses the results of more than 10 subscriptions.*violates check constraint "odd"')
    wait_for(lambda: re.search(r"STAND STILL: \d{3} results are refused one by one", daemon.status()), 60,
             "systemctl status to say so")
    lines = re.findall("could not (?:settle|store)", daemon.log)
    ids += app.subscriptions(other, 300)  # of another institution: more than there are slots
    wait_for(lambda: app.states()["sent"] == 300, 60, lambda: f"those of the other: {app.states()}")
    assert app.states()["processing"] < 600
    app.query("alter table {s}.subscriptions drop constraint odd")
    app.wait_states(sent=900, deadline=60)
    daemon.wait_log("notice: the database takes all results again")
    wait_for(lambda: "STAND STILL" not in daemon.status(), 20, "systemctl status to be well")
    check_nothing_lost(app, institutions, ids)
    assert len(lines) <= 25, len(lines)


def test_claims_that_are_refused_in_masses_make_few_lines(app, institutions, make_daemon):
    daemon = make_daemon({"log_level": "notice"})
    ids = app.subscriptions(app.integration(institutions.url("/good")), 40)
    with refused(app, f"new.id <= {ids[13]} and new.status = 'processing'"):
        daemon.start()
        app.wait_states(sent=26, pending=14, deadline=90)
        daemon.wait_log("error: could not claim more than 10 subscriptions, one by one", 60)
        assert daemon.log.count("could not claim subscription ") <= 10
    app.wait_states(sent=40, deadline=90)
    check_nothing_lost(app, institutions, ids)


def test_when_every_claim_is_refused_tries_get_rarer(app, institutions, make_daemon):
    daemon = make_daemon()
    ids = app.subscriptions(app.integration(institutions.url("/good")), 400)
    with refused(app, "new.status = 'processing'"):
        daemon.start()
        daemon.wait_log("could not claim subscription ")
        time.sleep(5)  # while tries are counted
        tried = daemon.log.count("could not claim subscription ")
    assert 0 < tried < 30, tried
    app.wait_states(sent=400)
    check_nothing_lost(app, institutions, ids)


def test_a_refusal_that_is_about_no_row_is_not_tried_again_at_once(app, institutions, make_daemon):
    """A trigger for each statement fires when nothing waits, too."""
    app.query("create sequence public.tries")  # what is drawn stays drawn
    with refused(app, "nextval('public.tries') > 0", each="statement"):
        make_daemon().start()
        wait_for(lambda: app.value("select is_called from public.tries"), 30, "a try")
        time.sleep(5)  # while tries are counted
        assert app.value("select last_value from public.tries") < 200
    ids = app.subscriptions(app.integration(institutions.url("/good")), 10)
    app.wait_states(sent=10)
    check_nothing_lost(app, institutions, ids)


def test_a_lease_that_a_trigger_refuses_to_end_holds_up_no_other(app, institutions, make_daemon):
    integration = app.integration(institutions.url("/good"))
    ids = app.subscriptions(integration, 20)
    app.query("""update {s}.subscriptions set status = 'processing', attempts = 1, claimed_by = 'gone', claim_token = 7,
        lease_expires_at = now() - interval '1 minute' + id * interval '1 ms'""")
    with refused(app, f"new.id in ({ids[0]}, {ids[7]}) and new.status = 'retry'"):
        make_daemon().start()
        app.wait_states(sent=18, processing=2)
    app.wait_states(sent=20)


@pytest.mark.parametrize("body", ["return null", "new.status := old.status", "new.status := 'sent'", "new.attempts := 0",
                                  "new.held_at := now()", "new.next_attempt_at := null"])
def test_a_lease_whose_end_a_trigger_changes_is_named(app, institutions, make_daemon, body):
    """Else it would stay "processing" for ever, or be tried again as nobody has meant it, in silence."""
    ids = app.subscriptions(app.integration(institutions.url("/good")), 10)
    app.query("""update {s}.subscriptions set status = 'processing', attempts = 1, claimed_by = 'gone', claim_token = 7,
        lease_expires_at = now() - interval '1 minute'""")
    app.query(f"create function public.own() returns trigger language plpgsql as $q$ begin {body}; return new; end $q$")
    app.query(f"create trigger own before update on {{s}}.subscriptions for each row when (new.last_error like 'lease expired%%' "
              f"and new.id in ({ids[3]}, {ids[7]})) execute function public.own()", ())
    daemon = make_daemon().start()
    for row in (ids[3], ids[7]):
        daemon.wait_log(rf"could not end the claim of subscription {row} \(a trigger changes or drops the end of the claim of "
                        rf"subscription {row} as it is written. Repair or drop own on anubis.subscriptions", 30)
    app.wait_states(sent=8, processing=2)
    app.query("drop trigger own on {s}.subscriptions")
    app.wait_states(sent=10, deadline=60)


@pytest.mark.parametrize("until", ["infinity", "9999-12-31", "now() + interval '31 days'"])
def test_a_lease_that_no_daemon_gives_gets_ten_minutes(app, institutions, make_daemon, until):
    """Somebody has written it, with a claim or without; else its row would be in "processing" for ever."""
    ids = app.subscriptions(app.integration(institutions.url()), 2)
    for row, token in zip(ids, ("null", "7")):
        app.query("update {s}.subscriptions set status = 'processing', claimed_by = 'somebody', "
                  f"claim_token = {token}, lease_expires_at = {until if '(' in until else repr(until)} where id = %s", (row,))
    daemon = make_daemon().start()
    wait_for(lambda: app.value("select every(lease_expires_at between now() + interval '9 minutes' "
                               "and now() + interval '10 minutes') from {s}.subscriptions"), 30, "their leases")
    app.query("update {s}.subscriptions set lease_expires_at = now()")
    app.wait_states(sent=2)
    assert daemon.term() == 0


def test_two_daemons_share_without_doubles(app, institutions, make_daemon):
    daemons = [make_daemon({**SETTINGS, "delivery": {**SETTINGS["delivery"], "timeout": "20s", "lease": "60s"}})
               for _ in range(2)]
    ids = enrol(app, institutions, 3000)
    for daemon in daemons:
        daemon.start()
    app.wait_states(sent=len(ids), deadline=120)
    assert check_nothing_lost(app, institutions, ids) == 0
    claimed = dict(app.query("select split_part(claimed_by, ' ', 1), 1 from {s}.subscriptions where claimed_by is not null"))
    assert not claimed
    assert all("claimed" in d.log or d.is_running() for d in daemons)


def test_late_result_of_a_lost_lease_changes_nothing(app, institutions, make_daemon):
    """The daemon hangs beyond its lease, another one takes over; what the first one then knows is too late."""
    first = make_daemon(SETTINGS).start()
    subscription = app.subscription(app.integration(institutions.url("/slow/500")))
    app.wait_states(processing=1)
    first.stop()
    second = make_daemon(SETTINGS).start()
    app.wait_states(sent=1, deadline=60)
    events = len(app.events(subscription))
    first.cont()
    first.wait_log("after its claim had ended")
    assert len(app.events(subscription)) == events
    assert app.row(subscription)["status"] == "sent"
    assert second.is_running()


def test_the_application_changes_a_row_under_way(app, institutions, make_daemon):
    make_daemon({"delivery": {"timeout": "20s", "lease": "60s"}}).start()
    subscription = app.subscription(app.integration(institutions.url("/slow/600")))
    app.wait_states(processing=1)
    app.query("update {s}.subscriptions set status = 'failed', last_error = 'cancelled by the student' where id = %s",
              (subscription,))
    wait_for(lambda: institutions.keys("/slow/600"), 30, "the request")
    app.query("select pg_sleep(1)")
    assert app.row(subscription)["status"] == "failed"
    assert [e["event_type"] for e in app.events(subscription)] == ["created", "updated", "failed"]


def test_a_dropped_table_is_said_and_survived(app, institutions, make_daemon):
    daemon = make_daemon(SETTINGS).start()
    ids = app.subscriptions(app.integration(institutions.url("/good")), 5)
    app.wait_states(sent=5)
    app.query("alter table {s}.subscriptions rename to gone")
    daemon.wait_log("subscriptions.* does not exist")
    app.query("alter table {s}.gone rename to subscriptions")
    ids += app.subscriptions(app.value("select id from {s}.integrations"), 5)
    app.wait_states(sent=10)
    check_nothing_lost(app, institutions, ids)


def test_new_rows_are_picked_up_at_once(app, institutions, make_daemon):
    """With a poll of a minute it is the doorbell that wakes."""
    daemon = make_daemon({"delivery": {"poll_interval": "1m"}}).start()
    integration = app.integration(institutions.url("/good"))
    for n in range(1, 6):
        wait_for(lambda: app.value("""select count(*) from pg_locks l join pg_stat_activity a using (pid)
            where a.datname = current_database() and a.application_name = 'anubisd doorbell' and l.locktype = 'advisory'
              and l.mode = 'ExclusiveLock' and l.granted""") == 2, 30, "the bell to be held")
        app.subscription(integration)
        app.wait_states(sent=n, deadline=20)
    assert daemon.is_running()


def test_a_long_transaction_delays_nobody_else(app, institutions, make_daemon):
    make_daemon({"delivery": {"poll_interval": "1s"}}).start()
    integration = app.integration(institutions.url("/good"))
    with app.database.connect(autocommit=False) as other, other.cursor() as cursor:
        cursor.execute("insert into anubis.subscriptions (integration_id) values (%s)", (integration,))
        app.subscriptions(integration, 10)
        app.wait_states(sent=10, deadline=20)
        other.commit()
    app.wait_states(sent=11, deadline=20)


def test_results_that_are_refused_keep_their_claims_beside_another_daemon(app, institutions, make_daemon):
    """It would end their leases, and each row would go out again, until its attempts were used up."""
    settings = {"delivery": {"timeout": "1s", "lease": "2s"}, "retry": {"max_attempts": 3}}
    app.query("alter table {s}.subscriptions add constraint odd check (status <> 'sent' or scheduled_to is not null) not valid")
    ids = app.subscriptions(app.integration(institutions.url("/good")), 30)
    daemons = [make_daemon({**settings, "instance": name}).start() for name in ("one", "two")]
    wait_for(lambda: any("the database refuses the results" in daemon.log for daemon in daemons), 60, "the refusals")
    time.sleep(6)  # some leases
    app.query("alter table {s}.subscriptions drop constraint odd")
    app.wait_states(sent=30, deadline=60)
    check_nothing_lost(app, institutions, ids)
    assert all(key.received == 1 for key in institutions.keys().values())


@pytest.mark.parametrize("sessions", range(6))
def test_a_first_start_that_is_killed_is_in_nobodys_way(app, institutions, make_daemon, ctl, sessions):
    """With -9, on a fresh database, before or while it opens its first sessions: the next start works as the first one would."""
    integration = app.integration(institutions.url("/good/first"))
    app.subscriptions(integration, 5)
    first = make_daemon()
    first.child.start()
    opened = "select count(*) >= %s from pg_stat_activity where datname = current_database() and application_name ~ '^anubisd '"
    wait_for(lambda: app.value(opened, (sessions,)), 30, f"{sessions} sessions", interval=0.001)
    first.kill9()
    second = make_daemon({"log_level": "info"}).start()
    second.wait_log("the relay leads", 60)
    app.wait_states(sent=5, deadline=60)
    ctl("verify", "--wait", deadline=120).expect(0)
    assert max(key.received for key in institutions.keys("/good/first").values()) <= 2
    assert second.term() == 0


def test_a_migration_that_is_killed_leaves_nothing(empty_database, broker):
    """At its locks, with -9: the next one does all of it."""
    ctl = Ctl(database=empty_database, kafka=broker)
    before = empty_database.value("select count(*) from pg_class")
    its_sessions = "select count(*) from pg_stat_activity where application_name = 'anubisctl migrate'"
    with contextlib.closing(empty_database.connect(autocommit=False)) as holder:
        holder.cursor().execute("create schema anubis")
        killed = Child([program("anubisctl"), "-c", ctl.path, "--environment", "/dev/null", "migrate"], name="migration",
                       folder=scratch_folder()).start()
        wait_for(lambda: empty_database.value(its_sessions + " and wait_event_type = 'Lock'"), 30, "the migration to wait")
        killed.kill9()
        killed.close()
        holder.rollback()
    wait_for(lambda: not empty_database.value(its_sessions), 30, "its session to end")
    assert empty_database.value("select count(*) from pg_class") == before
    ctl.migrate()
    ctl("verify").expect(0)
