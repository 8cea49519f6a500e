"""The benchmark's cases of what claims and inserts cost: by the rows that wait, by the integrations that they wait for, and
beside a snapshot that somebody holds; and of what a consumer compares with the ledger."""
import os
import re

from bench_measure import Row, cpu_of_thread
from bench_throughput import cpu_by_session
from harness.processes import wait_for

SIZES = ((1000, 10), (100000, 10), (100000, 1000), (100000, 10000), (1000000, 10), (1000000, 10000), (10000000, 10000))
BUSY, IDLE = 200, 9800
RETRIES_GOAL = 1.15
SENT = 20000        # rows of a measurement, at most
INSERTS = 2000
SNAPSHOT_GOAL = 1.5
STATEMENTS = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "sql/statements")
BATCH = 500         # events
COMPARE_GOAL = 1.0  # µs
INSERT = """insert into anubis.subscriptions (integration_id, order_id, origin, cpf, payload)
    values ($1, 1, 'site', '12345678909', '{"name": "Maria", "course": 7}')"""


def sent(app):
    return app.value("select count(*) from {s}.subscriptions where status = 'sent'")


def waiting(app):
    return app.value("select count(*) from {s}.subscriptions where status = 'pending'")


def claiming(app):
    """Seconds of CPU of the session that claims."""
    return cpu_by_session(app).get("anubisd claim", 0)


def claim_cost(bench, rows, integrations, idle=0, retries=0, due_at="now() - interval '1 hour'"):
    """µs of Postgres for a claimed row: beside so many integrations without rows, and one with so many retries, due then."""
    app, _ = bench.fresh(integrations=0)
    app.query("insert into {s}.integrations (name, endpoint_url) select 'i' || n, %s || n from generate_series(1, %s) n",
              (bench.sink.url("/good/"), integrations + idle))
    if retries:
        app.query("insert into {s}.subscriptions (integration_id, status, attempts, next_attempt_at) "
                  f"select %s, 'retry', 1, {due_at} from generate_series(1, %s)",
                  (app.integration(bench.sink.url("/dead/503")), retries))
    app.query(bench.WAITING_ROWS.replace("TABLE", "{s}.subscriptions"), (integrations, rows))
    app.query("analyze {s}.subscriptions")
    app.query("checkpoint")
    daemon = bench.daemon(app, circuit_breaker={"failure_threshold": 5}).start()
    wait_for(lambda: sent(app) > 0, 120, "the first row")
    first, before, event = sent(app), claiming(app), app.value("select last_value from {s}.ledger_id_seq")
    for _ in range(SENT // rows):
        wait_for(lambda: waiting(app) == 0, 120, "all to be claimed")
        app.query(bench.WAITING_ROWS.replace("TABLE", "{s}.subscriptions"), (integrations, rows))
    wait_for(lambda: sent(app) >= first + min(SENT, rows), 300, "some to be sent")
    used = claiming(app) - before
    # Those of the institution that is down are claimed, too, until its circuit opens.
    claimed = app.value("select count(*) from {s}.subscription_events where id > %s and operation_name = 'claim'", (event,))
    cost = used / max(claimed, 1) * 1e6
    daemon.kill9()
    app.database.drop()
    return cost


def claims(bench, most):
    """most: rows that wait, at most."""
    found = [(rows, integrations, claim_cost(bench, rows, integrations)) for rows, integrations in SIZES if rows <= most]
    base = found[0][2]
    least = f"{found[0][0]:,} rows and {found[0][1]} integrations"
    table = [Row(f"µs of claims a row: {least} → {rows:,} and {integrations:,}", base, cost)
             for rows, integrations, cost in found[1:]]
    rows = min(most, 100000)
    busy = claim_cost(bench, rows, BUSY)
    among = f"µs of claims a row: {rows:,} rows and {BUSY} integrations → "
    table.append(Row(f"{among}and {IDLE:,} without rows", busy, claim_cost(bench, rows, BUSY, idle=IDLE)))
    return {"table": table}


def retries(bench, count, turns):
    """Beside one institution that is down, whose rows are all in "retry": due, or due later."""
    found = {what: [] for what in ("alone", "that are due", "that are due later")}
    for _ in range(turns):
        found["alone"].append(claim_cost(bench, SENT, BUSY))
        found["that are due"].append(claim_cost(bench, SENT, BUSY, retries=count))
        found["that are due later"].append(claim_cost(bench, SENT, BUSY, retries=count, due_at="now() + interval '1 hour'"))
    return {"table": [Row.of_turns(f"µs of claims a row: alone → beside {count:,} of one institution {what}", found["alone"],
                                   turns_of_it, goals=[("ratio", RETRIES_GOAL)])
                      for what, turns_of_it in found.items() if what != "alone"]}


def costs(app, ids):
    """µs of Postgres for an insert, and for a claimed row."""
    connection = app.database.connect()
    with connection.cursor() as cursor:
        cursor.execute("prepare i as " + INSERT)
        cursor.execute("select pg_backend_pid()")
        pid, = cursor.fetchone()
        before, claimed, first = cpu_of_thread(pid, pid), claiming(app), sent(app)
        for n in range(INSERTS):
            cursor.execute("execute i (%s)", (ids[n % len(ids)],))
        inserting = cpu_of_thread(pid, pid) - before
    connection.close()
    app.query("insert into {s}.subscriptions (integration_id) select (%s::bigint[])[1 + n %% %s] from generate_series(1, %s) n",
              (ids, len(ids), SENT))
    wait_for(lambda: sent(app) == first + INSERTS + SENT, 300, "all to be sent")
    return inserting / INSERTS * 1e6, (claiming(app) - claimed) / (INSERTS + SENT) * 1e6


COMPARED = """create or replace function pg_temp.run(batches int, times int, step int) returns void language plpgsql as $f$
    declare
        kinds constant text[] := '{created,updated,sent,failed,retried}';
        ids bigint[]; types text[]; numbers bytea; rows bigint[]; owners bigint[]; at timestamptz[]; named bytea[];
        names bytea; known bigint;
    begin
        for batch in 1 .. batches loop
            select array_agg(id order by id), array_agg(event_type order by id), array_agg(subscription_id order by id),
                   array_agg(integration_id order by id), array_agg(created_at order by id),
                   decode(string_agg(lpad(to_hex(array_position(kinds, event_type)), 2, '0'), '' order by id), 'hex'),
                   array_agg(uuid_send(event_id) order by id), string_agg(uuid_send(event_id), '' order by id)
              into ids, types, rows, owners, at, numbers, named, names from anubis.subscription_events
             where id between batch * BATCH and (batch + step) * BATCH - 1 and id % step = 0;
            for time in 1 .. times loop
                if step = 1 then
                    known := pg_temp.count_known(array[ids[1]], array[ids[BATCH]], '{0}', ids[1], ids[BATCH], kinds, numbers,
                                                 rows, owners, at, names);
                    assert known = BATCH;
                else
                    perform from pg_temp.find_unknown(ids, types, rows, owners, at, named, ids[1], ids[BATCH]);
                    assert not found;
                end if;
            end loop;
        end loop;
    end $f$"""
PARAMETERS = {"count_known": "bigint[], bigint[], bigint[], bigint, bigint, text[], bytea, bigint[], bigint[], timestamptz[], "
                             "bytea",
              "find_unknown": "bigint[], text[], bigint[], bigint[], timestamptz[], bytea[], bigint, bigint"}


def comparing(cursor, pid, batches, step):
    """µs of Postgres for an event of a batch, whose ids have this distance."""
    used = []
    for times in (1, 1, 11):  # the first one warms
        before = cpu_of_thread(pid, pid)
        cursor.execute("select pg_temp.run(%s, %s, %s)", (batches, times, step))
        used.append(cpu_of_thread(pid, pid) - before)
    return (used[2] - used[1]) / 10 / batches / BATCH * 1e6


def compare(bench, rows, turns):
    """What a consumer pays so that no event counts which the ledger does not have: of ids side by side, and far apart."""
    app, _ = bench.fresh()
    bench.fill(app, rows)
    app.query("vacuum analyze {s}.subscription_events")
    connection, found = app.database.connect(), {1: [], 20: []}
    with connection.cursor() as cursor, open(os.path.join(STATEMENTS, "consumer.sql"), encoding="utf-8") as f:
        cursor.execute("set search_path = anubis; set jit = off; select pg_backend_pid()")
        pid, = cursor.fetchone()
        statements = f.read()
        for name, parameters in PARAMETERS.items():
            statement = re.search(rf"(?ms)^-- name: {name}\n(?:--.*?\n)*(.*?)(?=^-- name)", statements)[1]
            cursor.execute(f"create function pg_temp.{name}({parameters}) returns setof bigint language plpgsql as "
                           f"$f$ begin return query {statement}; end $f$")
        cursor.execute(COMPARED.replace("BATCH", str(BATCH)))
        for _ in range(turns):
            for step, costs_of_turns in found.items():
                costs_of_turns.append(comparing(cursor, pid, max(rows // BATCH - 20, 1), step))
    connection.close()
    app.database.drop()
    return {"events of a batch": BATCH,
            "table": [Row.of_turns("µs to compare an event with the ledger: ids side by side → far apart",
                                   *found.values(), goals=[("first", COMPARE_GOAL)])]}


def snapshot(bench, rows, turns):
    """After so many rows were delivered, and after as many more beside a snapshot that somebody holds."""
    app, ids = bench.fresh()
    daemon = bench.daemon(app).start()
    bench.fill(app, rows)
    wait_for(lambda: sent(app) == rows, 600, "the rows to be sent")
    costs(app, ids)  # warm
    before = [costs(app, ids) for _ in range(turns)]
    holder = app.database.connect(autocommit=False)
    holder.cursor().execute("set transaction isolation level repeatable read; select count(*) from anubis.subscriptions")
    total = sent(app) + rows
    bench.fill(app, rows)
    wait_for(lambda: sent(app) == total, 600, "the rows to be sent")
    after = [costs(app, ids) for _ in range(turns)]
    holder.close()
    bench.end(daemon)
    app.database.drop()
    return {"rows beside the snapshot": rows, "turns": turns,
            "table": [Row.of_turns(f"µs of {what}, alone → beside a snapshot held for {rows:,} rows", [t[i] for t in before],
                                   [t[i] for t in after], goals=[("ratio", SNAPSHOT_GOAL)])
                      for i, what in enumerate(("an insert", "claims a row"))]}
