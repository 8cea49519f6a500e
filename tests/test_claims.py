"""What a claim reads: it looks only where something may be claimed. Pages are counted, which no other load changes."""
import contextlib
import threading
import types

import psycopg2
import pytest
from harness.processes import wait_for
from test_statements import PARAMETER, STATEMENTS

NEVER = 2**63 - 1
# A row of integration 1, and more integrations than a look may go through.
MANY = 5000
MANY_ROWS = ("insert into {s}.integrations (id, name, endpoint_url, enabled, paused_until) "
             f"select g, 'x', 'http://127.0.0.1:1/', %s, %s from generate_series(2, {MANY + 1}) g;")


def nodes(plan):
    yield plan
    for part in plan.get("Plans", []):
        yield from nodes(part)


class Claims:
    """The claim as a daemon's session executes it."""

    def __init__(self, app):
        self.app = app
        self.connection = app.database.connect()
        self.cursor = self.connection.cursor()
        self.execute("set search_path = anubis; set jit = off; set enable_seqscan = off; "
                     "set plan_cache_mode = force_generic_plan")
        for name in ("claim", "claim_on", "claim_probe", "claim_weigh"):
            kinds = ", ".join(kind for _, kind in PARAMETER.findall(STATEMENTS[name]))
            self.execute(f"prepare {name} ({kinds}) as {STATEMENTS[name]}")

    def execute(self, statement):
        self.cursor.execute(statement)
        return self.cursor.fetchall() if self.cursor.description else []

    def value(self, statement):
        return self.execute(statement)[0][0]

    def write(self, statement, parameters=()):
        """Without triggers: what they write is of no interest here."""
        self.execute("set session_replication_role = replica")
        self.cursor.execute(statement.replace("{s}", "anubis"), parameters or None)
        self.execute("reset session_replication_role")

    def call(self, statement="claim", limit=500, loads=(), after=0, places=(), process=1, budget=16777216):
        """loads: (integration, in flight, slots), no retries; places: (integration, id of fresh rows, due, id of the others)."""
        def array(rows, n):
            return "'{" + ",".join(str(row[n]) for row in rows) + "}'"
        longest_wait = ", 60000" if statement == "claim_probe" else ""
        return (f"execute {statement} ({limit}, {budget}, {array(loads, 0)}, {array(loads, 1)}, 32, {after}, 'me', 42, 90000, "
                f"30000, 60000, '{{}}', {array(loads, 2)}, 2147483647, {array([(0,)] * len(loads), 0)}, "
                f"{array(places, 0)}, {array(places, 1)}, {array(places, 2)}, {array(places, 3)}, {process}{longest_wait})")

    @contextlib.contextmanager
    def undone(self):
        self.execute("begin")
        yield
        self.execute("rollback")

    def ids(self, **arguments):
        """[(integration, row)], in the order of integrations and, within them, of the answer."""
        with self.undone():
            rows = [(row[1], row[0]) for row in self.execute(self.call(**arguments))]
        return sorted(rows, key=lambda row: row[0])

    def pages(self, index=None, **arguments):
        """How many pages the claim looks at; or its scans of an index."""
        with self.undone():
            self.execute(self.call(**arguments))  # hints are set, plans made
        with self.undone():
            plan = self.execute("explain (analyze, buffers, format json) " + self.call(**arguments))[0][0][0]["Plan"]
        return sum(node["Shared Hit Blocks"] + node["Shared Read Blocks"]
                   for node in ([plan] if index is None else nodes(plan)) if node.get("Index Name") == index or index is None)


@pytest.fixture
def claims(app):
    claims = Claims(app)
    claims.write("insert into {s}.integrations (id, name, endpoint_url) values (1, 'live', 'http://127.0.0.1:1/'); "
                 "insert into {s}.subscriptions (integration_id) values (1)")
    yield claims
    claims.connection.close()


# enabled, paused_until of the many; what else is written about them; do their rows wait?
CANNOT = {
    "paused": (True, "infinity", "", True),
    "paused for a day": (True, "tomorrow", "", True),
    "disabled": (False, None, "", True),
    "circuit open": (True, None, "insert into {s}.integration_runtime (integration_id, circuit_state) "
                                 "select id, 'open' from {s}.integrations where id > 1", True),
    "backing off": (True, None, "insert into {s}.integration_runtime (integration_id, backoff_until) "
                                "select id, 'tomorrow' from {s}.integrations where id > 1", True),
    "without rows": (True, None, "", False),
    "without rows, paused before": (True, "yesterday", "", False),
}


@pytest.mark.parametrize("why", CANNOT)
def test_integrations_that_cannot_be_claimed_cost_nothing(claims, why):
    enabled, paused_until, statement, rows = CANNOT[why]
    alone = claims.pages()
    claims.write(MANY_ROWS, (enabled, paused_until))
    if statement:
        claims.write(statement)
    if rows:
        claims.write("insert into {s}.subscriptions (integration_id) select id from {s}.integrations where id > 1")
    claims.execute("vacuum analyze subscriptions")
    claims.execute("vacuum analyze integrations")
    claims.execute("vacuum analyze integration_runtime")
    assert claims.ids() == [(1, 1)]
    # An index of 5,000 entries that are passed over, not looked up, has some dozens of pages.
    assert claims.pages() <= alone + 150
    assert claims.pages(after=MANY) <= alone + 150


def test_payloads_beyond_the_budget_are_not_read(claims):
    """Each page of one costs as much as a row, and a claim that takes a few of long ones would read those of all that wait."""
    claims.write("delete from {s}.subscriptions; insert into {s}.integrations (id, name, endpoint_url) "
                 "select g, 'x', 'http://127.0.0.1:1/' from generate_series(2, 16) g; "
                 "insert into {s}.subscriptions (integration_id, payload) select 1 + g % 16, (select jsonb_agg("
                 "substr(md5(g || ' ' || i), 1, 8)) from generate_series(1, 15000) i) from generate_series(1, 320) g")
    claims.execute("vacuum analyze subscriptions")
    claims.execute("vacuum analyze integrations")
    # 180 KB as text, 15 pages as they are stored; the rows' locks are some 1,000 pages.
    assert claims.pages(budget=2000000) < 2000
    assert 2 <= len(claims.ids(budget=2000000)) <= 12
    assert claims.pages() < 3000
    assert 20 <= len(claims.ids()) <= 94


@pytest.mark.parametrize("status", ["pending", "retry"])
def test_a_look_for_probes_reads_no_rows_of_others(claims, status):
    """Nor before the first ANALYZE, when the planner takes a full table for a small one."""
    claims.write("insert into {s}.integrations (id, name, endpoint_url, enabled) values (2, 'big', 'http://127.0.0.1:1/', false);"
                 "insert into {s}.integration_runtime (integration_id, circuit_state, circuit_until) "
                 "values (1, 'open', 'yesterday');"
                 f"insert into {{s}}.subscriptions (integration_id, status) select 2, '{status}' from generate_series(1, 20000)")
    for _ in ("old", "new"):
        assert claims.ids(statement="claim_probe") == [(1, 1)]
        assert claims.pages(statement="claim_probe") < 100
        claims.execute("analyze subscriptions")


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("due", ["null", "'2000-01-01'", "'tomorrow'"])
def test_a_transaction_that_is_open_is_found_and_passed_over(claims, enabled, due):
    """Postgres walks over each entry that nobody may see yet: on the way to the next integration, too."""
    def weighed(places, only=""):
        arrays = ", ".join("'{" + ",".join(str(place[n]) for place in places) + "}'" for n in range(4))
        return [id for id, _ in claims.execute(f"execute claim_weigh ({arrays}, 32, 0, '{{{only}}}')")]
    claims.write("insert into {s}.integrations (id, name, endpoint_url, enabled) "
                 f"values (0, 'idle', 'http://127.0.0.1:1/', true), (2, 'big', 'http://127.0.0.1:1/', {enabled}), "
                 "(3, 'other', 'http://127.0.0.1:1/', true); update {s}.subscriptions set integration_id = 3")
    with contextlib.closing(claims.app.database.connect(autocommit=False)) as other:
        cursor = other.cursor()
        cursor.execute("set session_replication_role = replica; insert into anubis.subscriptions "
                       f"(integration_id, next_attempt_at) select 2, {due} from generate_series(1, 20000)")
        mass = {"loads": [(2, 0, 0)], "places": [(2, 0, "-infinity", NEVER)]}
        # By the clock, which goes on while a core is busy with others.
        wait_for(lambda: weighed([])[0] == 2, 10, "the one that takes longest")
        assert weighed([], only="1, 3") != weighed([], only="2") == [2]
        if due != "'tomorrow'":
            places = [(1, 0, "-infinity", NEVER), (2, 1, "-infinity", NEVER)]
            wait_for(lambda: weighed(places)[0] == 2, 10, "the same from places")
        assert claims.ids() == claims.ids(**mass) == [(3, 1)]
        assert claims.pages() > 300 and claims.pages(**mass) < 150
        assert claims.ids(statement="claim_on", places=mass["places"]) == []
        other.commit()
    last = claims.app.value("select min(id) from {s}.subscriptions where integration_id = 2")
    takes = due != "'tomorrow'" and enabled
    assert claims.ids(statement="claim_on", limit=1, places=mass["places"]) == ([(2, last)] if takes else [])


def test_a_look_ends_with_its_limit(claims):
    claims.write(MANY_ROWS, (True, None))
    claims.write("insert into {s}.subscriptions (integration_id) select id from {s}.integrations where id > 1")
    claims.execute("vacuum analyze subscriptions")
    claims.execute("vacuum analyze integrations")
    assert [integration for integration, _ in claims.ids(limit=10, after=70)] == list(range(71, 81))
    few, many = claims.pages(limit=10), claims.pages(limit=100)
    assert few < many < 15 * few and few < 1000


def test_an_integration_whose_slots_are_taken_is_not_looked_at(claims):
    claims.write("insert into {s}.subscriptions (integration_id) select 1 from generate_series(1, 1000)")
    claims.write("update {s}.subscriptions set status = 'sent' where id <= 1000")
    assert len(claims.ids(loads=[(1, 31, 2147483647)])) == 1
    assert claims.pages("subscriptions_due", loads=[(1, 31, 2147483647)]) > 0
    for loads in ([(1, 32, 2147483647)], [(1, 2, 2)], [(1, 0, 0)]):
        assert claims.ids(loads=loads) == []
        assert claims.pages("subscriptions_due", loads=loads) == 0


def test_a_claim_takes_what_the_view_of_open_integrations_shows(claims):
    """Every combination of what keeps an integration from being claimed, at each place of the round."""
    claims.write("""
        with all_of_them as (
          select row_number() over () + 1 as id, * from
            unnest('{t,f}'::bool[]) enabled, unnest('{NULL,yesterday,tomorrow,infinity,-infinity}'::timestamptz[]) paused,
            unnest('{NULL,closed,open,half_open}'::text[]) circuit,
            unnest('{NULL,yesterday,tomorrow,infinity}'::timestamptz[]) backoff, unnest('{t,f}'::bool[]) has_row
        ), i as (insert into {s}.integrations (id, name, endpoint_url, enabled, paused_until)
                 select id, 'x', 'http://127.0.0.1:1/', enabled, paused from all_of_them
        ), r as (insert into {s}.integration_runtime (integration_id, circuit_state, backoff_until)
                 select id, coalesce(circuit, 'closed'), backoff from all_of_them where circuit is not null or backoff is not null
        ) insert into {s}.subscriptions (integration_id) select id from all_of_them where has_row""")
    opened = [row[0] for row in claims.execute(
        "select o.id from integrations_open o "
        "where exists (select from subscriptions s where s.integration_id = o.id) order by 1")]
    assert len(opened) == 13
    last = claims.app.value("select max(id) from {s}.integrations")
    for after in (0, 1, last // 2, last - 1, last, NEVER - 1):
        in_turn = sorted(opened, key=lambda id, after=after: (id <= after, id))
        places = [(id, 0, "-infinity", NEVER) for id in opened[1::3]]
        assert [integration for integration, _ in claims.ids(after=after)] == opened
        assert [integration for integration, _ in claims.ids(after=after, places=places)] == opened
        assert [integration for integration, _ in claims.ids(after=after, limit=5)] == sorted(in_turn[:5])


def test_fresh_rows_retries_and_later_ones(claims):
    claims.write("insert into {s}.subscriptions (integration_id, status, next_attempt_at) values "
                 "(1, 'retry', 'yesterday'), (1, 'retry', 'tomorrow'), (1, 'pending', null), (1, 'retry', '2000-01-01')")
    assert claims.ids() == [(1, 1), (1, 4), (1, 5), (1, 2)]
    # Each part has a place of its own.
    assert claims.ids(statement="claim_on", places=[(1, 1, "2000-01-01", 5)]) == [(1, 4), (1, 2)]
    assert claims.ids(places=[(1, 4, "-infinity", NEVER)]) == [(1, 5), (1, 2)]


def test_an_old_snapshot_makes_no_claim_slower(claims):
    """Entries of claimed rows cannot be removed while somebody holds a snapshot of before."""
    claims.write("insert into {s}.integrations (id, name, endpoint_url) values (2, 'other', 'http://127.0.0.1:1/'), "
                 "(3, 'idle', 'http://127.0.0.1:1/');"
                 "insert into {s}.subscriptions (integration_id, next_attempt_at) "
                 "select 1 + g / 2 % 3, case when g % 2 = 0 then '2000-01-01'::timestamptz + g * interval '1 s' end "
                 "from generate_series(1, 20000) g")
    with contextlib.closing(claims.app.database.connect(autocommit=False)) as other:
        other.set_session(isolation_level="REPEATABLE READ")
        other.cursor().execute("select count(*) from anubis.subscriptions")
        claims.write("update {s}.subscriptions set status = 'sent'")
        claims.write("insert into {s}.subscriptions (integration_id) values (1), (2)")
        last = claims.app.value("select max(id) from {s}.subscriptions")
        places = [(id, last - 1000, "2000-01-01 05:33:00+00", 0) for id in (1, 2, 3)]
        from_start, nearby, on = claims.pages(), claims.pages(places=places), claims.pages(statement="claim_on", places=places)
        assert claims.ids(places=places) == [(1, last - 1), (2, last)]
        assert from_start > 2000 and nearby < from_start / 15 and on < from_start / 15, (from_start, nearby, on)
        # One that was put back lies before the place.
        claims.write("update {s}.subscriptions set status = 'pending' where id = 5")
        assert len(claims.ids(places=places)) == 2 and len(claims.ids()) == 3


def test_single_rows_beside_an_old_snapshot_pass_few_entries(app, make_daemon, institutions):
    """Each claim begins near the last one, also while a look from the start takes some milliseconds only."""
    rows, warm = 4000, 1000
    integrations = [app.integration(institutions.url(f"/good/{n}")) for n in range(2)]

    def entries():
        return app.value("select sum(pg_stat_get_tuples_returned(indexrelid)) from pg_index "
                         "where indrelid = '{s}.subscriptions'::regclass")

    def insert(connection, count):
        with connection.cursor() as cursor:
            for n in range(count):
                cursor.execute("insert into anubis.subscriptions (integration_id, payload) values (%s, '{}')",
                               (integrations[n % 2],))
    with contextlib.closing(app.database.connect(autocommit=False)) as other, \
            contextlib.closing(app.database.connect()) as connection:
        other.set_session(isolation_level="REPEATABLE READ")
        other.cursor().execute("select count(*) from anubis.subscriptions")
        daemon = make_daemon().start()
        insert(connection, warm)
        app.wait_states(sent=warm)
        before = entries()
        insert(connection, rows)
        # Without looks at the database, which pass entries, too.
        wait_for(lambda: institutions.counts()["total"]["requests"] >= warm + rows, 60, "all to be received")
        app.wait_states(sent=warm + rows)
        daemon.term()  # its sessions leave their statistics
        wait_for(lambda: not app.query("select from pg_stat_activity where application_name like 'anubisd%%'"), 30, "their end")
        passed = entries() - before
        # From the start of all that was sent before, each row would pass some 1,500 entries of its integration.
        assert passed < rows * 450, passed / rows


def test_what_is_beside_a_place_is_found(claims):
    """Integrations with and without a place, in any order."""
    claims.write("insert into {s}.integrations (id, name, endpoint_url) "
                 "select g, 'x', 'http://127.0.0.1:1/' from generate_series(2, 9) g;"
                 "insert into {s}.subscriptions (integration_id) select g from generate_series(2, 9) g")
    for chosen in range(512):
        places = [(id, 0, "-infinity", NEVER) for id in range(1, 10) if chosen >> (id - 1) & 1]
        assert [integration for integration, _ in claims.ids(places=places, after=chosen % 11)] == list(range(1, 10))


def test_the_greatest_ids_have_their_turn(claims):
    """Wherever the round begins, with places and without, each is found once."""
    ids = [1, 5, 2**63 - 2, 2**63 - 1]
    claims.write("insert into {s}.integrations (id, name, endpoint_url) "
                 "select g, 'x', 'http://127.0.0.1:1/' from unnest(%s::bigint[]) g;"
                 "insert into {s}.subscriptions (integration_id) select g from unnest(%s::bigint[]) g", (ids[1:], ids[1:]))
    for after in (0, *ids):
        for chosen in range(16):
            places = [(id, 0, "-infinity", NEVER) for n, id in enumerate(ids) if chosen >> n & 1]
            assert [integration for integration, _ in claims.ids(places=places, after=after)] == ids, (after, places)


def test_the_times_of_a_rate_are_one_process_s_at_a_time(claims, app):
    """Ten a second: the times of 0.4 s. Those of another process are free half a second after the last one."""
    claims.execute("update anubis.integrations set rate_limit = 10; insert into anubis.subscriptions (integration_id) "
                   "select 1 from generate_series(1, 50)")
    other = Claims(app)

    def take(who, process, moved=None):
        if moved is None:
            rows = who.execute(who.call(process=process))
            return "locked out" if rows and rows[0][0] is None else len(rows)
        who.execute(f"begin; update anubis.integration_runtime set rate_at = now() + {moved} * interval '1 s'")
        taken = take(who, process)
        who.execute("commit")
        return taken
    claims.execute("begin")
    assert take(claims, 1) == 5 and take(claims, 1) == 0
    assert take(other, 2) == "locked out"
    claims.execute("commit")
    assert take(other, 2) == 0
    assert take(other, 2, -0.5) == 0 and take(claims, 1, 0.1) == 3
    assert take(other, 2, -5) == 5 and take(claims, 1, -0.5) == 0
    assert take(claims, 1, 3600) == 5, "the clock was set back"
    other.connection.close()


@pytest.mark.parametrize("stands_in", ["nothing", "a transaction", "a COPY", "a statement"])
def test_where_a_daemon_that_is_frozen_stands(app, stands_in):
    """It is not there, unless the server is at work for it."""
    seen = "select there from {s}.daemon_seen('one')"
    hold = f"select pg_try_advisory_lock_shared(hashtextextended('one', {app.schema}.lock_key('alive')))"
    with contextlib.closing(psycopg2.connect(app.database.conninfo())) as held, held.cursor() as cursor:
        cursor.execute("create temp table t (a int); select pg_backend_pid()")
        pid = cursor.fetchone()[0]
        cursor.execute(hold)
        if stands_in != "a transaction":
            held.commit()
        ended = threading.Event()
        rows = types.SimpleNamespace(read=lambda _: "" if ended.wait(120) else "")
        work = {"a COPY": lambda: cursor.copy_expert("copy t from stdin", rows),
                "a statement": lambda: cursor.execute("select pg_sleep(20)")}.get(stands_in)
        worker = threading.Thread(target=work or ended.wait)
        worker.start()
        silent = "select state_change < clock_timestamp() - interval '6 s' from pg_stat_activity where pid = %s"
        wait_for(lambda: app.value(silent, (pid,)), 60, "the session to be silent", interval=0.5)
        there = app.value(seen)
        ended.set()
        worker.join()
    assert there == (stands_in == "a statement")


def test_a_daemon_is_there_as_long_as_a_session_of_it_sends_statements(app):
    """By whichever session; one that has been silent gets some seconds more, should only the server's clock have been set."""
    seen = "select there, shown from {s}.daemon_seen('one')"
    hold = f"select pg_try_advisory_lock_shared(hashtextextended('one', {app.schema}.lock_key('alive')))"
    assert app.query(seen) == [(False, False)]
    with contextlib.closing(app.database.connect()) as held, held.cursor() as cursor:
        cursor.execute(hold)
        assert app.query(seen) == [(True, True)]
        silent = "select state_change < clock_timestamp() - interval '6 s' from pg_stat_activity where pid = %s"
        wait_for(lambda: app.value(silent, (held.get_backend_pid(),)), 60, "the session to be silent", interval=0.5)
        with contextlib.closing(app.database.connect()) as asks, asks.cursor() as asking:
            speaker = threading.Timer(1, lambda: cursor.execute("select 1"))
            speaker.start()
            asking.execute(seen.replace("{s}", app.schema))
            assert asking.fetchall() == [(True, True)]
            speaker.join()
        wait_for(lambda: app.value(silent, (held.get_backend_pid(),)), 60, "the session to be silent", interval=0.5)
        assert app.query(seen) == [(False, True)]
    wait_for(lambda: app.query(seen) == [(False, False)], 60, "the session to end")
