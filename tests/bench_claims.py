"""The benchmark's cases of what claims and inserts cost: by the rows that wait, by the integrations that they wait for, and
beside a snapshot that somebody holds."""
from bench_measure import Row, cpu_of_thread
from bench_throughput import cpu_by_session
from harness.processes import wait_for

SIZES = ((1000, 10), (100000, 10), (100000, 1000), (100000, 10000), (1000000, 10), (1000000, 10000), (10000000, 10000))
SENT = 20000        # rows of a measurement, at most
INSERTS = 2000
SNAPSHOT_GOAL = 1.5
INSERT = """insert into anubis.subscriptions (integration_id, order_id, origin, cpf, payload)
    values ($1, 1, 'site', '12345678909', '{"name": "Maria", "course": 7}')"""


def sent(app):
    return app.value("select count(*) from {s}.subscriptions where status = 'sent'")


def claiming(app):
    """Seconds of CPU of the session that claims."""
    return cpu_by_session(app).get("anubisd claim", 0)


def claim_cost(bench, rows, integrations):
    """µs of Postgres for a claimed row."""
    app, _ = bench.fresh(integrations=0)
    app.query("insert into {s}.integrations (name, endpoint_url) select 'i' || n, %s || n from generate_series(1, %s) n",
              (bench.sink.url("/good/"), integrations))
    app.query(bench.WAITING_ROWS.replace("TABLE", "{s}.subscriptions"), (integrations, rows))
    app.query("analyze {s}.subscriptions")
    app.query("checkpoint")
    daemon = bench.daemon(app).start()
    wait_for(lambda: sent(app) > 0, 120, "the first row")
    first, before = sent(app), claiming(app)
    wait_for(lambda: sent(app) >= min(rows, first + SENT), 300, "some to be sent")
    cost = (claiming(app) - before) / max(sent(app) - first, 1) * 1e6
    daemon.kill9()
    app.database.drop()
    return cost


def claims(bench, most):
    """most: rows that wait, at most."""
    found = [(rows, integrations, claim_cost(bench, rows, integrations)) for rows, integrations in SIZES if rows <= most]
    base = found[0][2]
    least = f"{found[0][0]:,} rows and {found[0][1]} integrations"
    return {"table": [Row(f"µs of claims a row: {least} → {rows:,} and {integrations:,}", base, cost)
                      for rows, integrations, cost in found[1:]]}


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


def snapshot(bench, rows):
    """Before somebody holds a snapshot, and after so many rows were delivered beside it."""
    app, ids = bench.fresh()
    daemon = bench.daemon(app).start()
    costs(app, ids)  # warm
    before = costs(app, ids)
    holder = app.database.connect(autocommit=False)
    holder.cursor().execute("set transaction isolation level repeatable read; select count(*) from anubis.subscriptions")
    total = sent(app) + rows
    bench.fill(app, rows)
    wait_for(lambda: sent(app) == total, 600, "the rows to be sent")
    after = costs(app, ids)
    holder.close()
    daemon.term()
    app.database.drop()
    return {"rows beside the snapshot": rows,
            "table": [Row(f"µs of {what}, alone → beside a snapshot held for {rows:,} rows", before[i], after[i],
                          goals=[("ratio", SNAPSHOT_GOAL)]) for i, what in enumerate(("an insert", "claims a row"))]}
