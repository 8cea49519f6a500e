"""The statements of the programs: each can be prepared on a migrated schema, with the parameters that its head names."""
import contextlib
import datetime
import os
import random
import re
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDER = os.path.join(ROOT, "sql", "statements")
FILES = sorted(f for f in os.listdir(FOLDER) if f.endswith(".sql"))
PARAMETER = re.compile(r"^-- \$(\d+) ([a-z0-9 \[\]]+): .", re.MULTILINE)


def embed(*arguments):
    return subprocess.run(["sh", os.path.join(ROOT, ".ci/embed-sql"), *arguments], capture_output=True, text=True, check=False)


def read_statements():
    """{name: text} of all files, their parts included."""
    statements = {}
    for file in (f for f in FILES if not f.endswith(".part.sql")):
        done = embed("--text", os.path.join(FOLDER, file))
        assert done.returncode == 0, done.stderr
        head, *named = re.split(r"(?m)^-- name: (\w+)(?: :once)?\n", done.stdout)
        found = dict(zip(named[::2], named[1::2])) or {file.removesuffix(".sql"): head}
        assert not found.keys() & statements.keys(), f"{file} has a name twice"
        statements |= found
    return statements


STATEMENTS = read_statements()


def test_functions_mean_the_same_in_any_session():
    """A session of the application's may have standard_conforming_strings off: a backslash is one in E'' alone."""
    folder = os.path.join(ROOT, "sql", "repeatable")
    for file in sorted(os.listdir(folder)):
        with open(os.path.join(folder, file), encoding="ascii") as f:
            code = re.sub(r"--.*", "", f.read())
        plain = [s for mark, s in re.findall(r"(E?)('(?:[^']|'')*')", code) if "\\" in s and not mark]
        assert not plain, (file, plain)


@pytest.fixture(scope="module")
def migrated(postgres_server, template):
    """A database in which nothing is written."""
    database = postgres_server.create_database("migrated", template)
    yield database
    database.drop()


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_can_be_prepared(name, migrated):
    text = STATEMENTS[name]
    kinds = dict((int(number), kind) for number, kind in PARAMETER.findall(text))
    assert list(kinds) == list(range(1, len(kinds) + 1)), "the head names each parameter once, in order"
    used = {int(number) for number in re.findall(r"\$(\d+)", re.sub(r"^ *--.*", "", text, flags=re.MULTILINE))}
    assert used == set(kinds), "the head names the parameters that the statement uses"
    types = f"({', '.join(kinds.values())})" if kinds else ""
    migrated.query(f"set search_path = anubis; prepare a_statement{types} as {text}")


def test_a_statement_with_a_fault_is_refused(migrated):
    with pytest.raises(Exception, match="no_such_column"):
        migrated.query("set search_path = anubis; prepare a_statement as select no_such_column from subscriptions")


def test_every_statement_is_executed_by_a_program():
    declared = embed("--header", *(os.path.join(FOLDER, f) for f in FILES)).stdout
    assert set(re.findall(r"sql_(\w+);", declared)) == set(STATEMENTS)
    files = [os.path.join(folder, f) for folder, _, names in os.walk(os.path.join(ROOT, "src")) for f in names]
    used = set()
    for path in (f for f in files if f.endswith(".c")):
        with open(path, encoding="utf-8") as file:
            used |= set(re.findall(r"&sql_(?!files)(\w+)", file.read()))
    assert used == set(STATEMENTS)


def test_every_part_is_included():
    parts = {f for f in FILES if f.endswith(".part.sql")}
    included = set()
    for name in FILES:
        with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
            included |= set(re.findall(r"^-- include: (.+)", file.read(), re.MULTILINE))
    assert included == parts


def test_a_part_that_is_missing_fails_the_build(tmp_path):
    (tmp_path / "a.sql").write_text("-- include: missing.part.sql\nselect 1\n")
    for mode in ["--text", "--header", "--statements", "--files"]:
        done = embed(mode, str(tmp_path / "a.sql"))
        assert done.returncode != 0
        assert "missing.part.sql" in done.stderr


def test_a_file_may_hold_several_statements(tmp_path):
    (tmp_path / "several.sql").write_text("-- Words.\n\n-- name: first\n-- More.\nselect \'\\\', \"a\"\n  from b\n\n"
                                          "-- name: second :once\nselect 2\n")
    (tmp_path / "one.sql").write_text("-- Words.\nselect 3\n")
    done = embed("--statements", str(tmp_path / "several.sql"), str(tmp_path / "one.sql"))
    assert done.stdout == (
        '#include "sql/statements.h"\n'
        '\nconst struct pg_statement sql_first = {"first",\n    "select \'\\\\\', \\"a\\"\\n"\n    "  from b\\n"\n};\n'
        '\nconst struct pg_statement sql_second = {"",\n    "select 2\\n"\n};\n'
        '\nconst struct pg_statement sql_one = {"one",\n    "select 3\\n"\n};\n')


def test_the_oldest_snapshot_stays_the_same_while_it_is_held(app):
    def oldest():
        return app.value("set search_path = anubis; " + STATEMENTS["oldest_snapshot"])
    with contextlib.closing(app.database.connect(autocommit=False)) as other:
        other.set_session(isolation_level="REPEATABLE READ")
        other.cursor().execute("select")
        seen = {oldest() for n in range(20) if app.integration(f"https://example.com/{n}")}
        assert len(seen) == 1 and seen.pop() > 0
        other.rollback()
    assert oldest() == 0


def test_rows_that_were_put_back_are_looked_for_once(app):
    """Not for each integration: with millions of events and hundreds of integrations the table never came."""
    plan = "\n".join(line for (line,) in app.query(
        "set search_path = anubis; prepare integrations (bigint, bigint, bigint, bigint, bigint) as "
        + STATEMENTS["status_integrations"] + "; explain execute integrations (1, 1, 1, 1, 1)"))
    assert plan.count("CTE put_back") == 1 and "CTE Scan on put_back" in plan, plan


def runs_of(ids):
    """As src/consumers/id_runs.c makes them: first ids, last ids, places, and {id: its place}."""
    firsts, lasts, places, place_of = [], [], [], {}
    for n in sorted(ids):
        if not lasts or n - lasts[-1] > 5:
            places.append(max(place_of.values(), default=-1) + 1)
            firsts.append(n)
            lasts.append(n)
        lasts[-1] = n
        place_of[n] = places[-1] + n - firsts[-1]
    return firsts, lasts, places, place_of


def test_both_comparisons_with_the_ledger_find_the_same(app):
    """The count of known events, which reads ids that lie side by side at once; and which are unknown, each looked up."""
    rng = random.Random(7)
    types = ["created", "updated", "sent", "failed", "retried"]
    one, two = app.integration("https://a.example/"), app.integration("https://b.example/")
    app.query("insert into {s}.subscriptions (integration_id) select case when mod(n, 3) = 0 then %s else %s end "
              "from generate_series(1, 300) n", (one, two))
    app.query("update {s}.subscriptions set status = 'failed' where mod(id, 5) = 0")
    true = app.query("select id, event_type, subscription_id, coalesce(integration_id, 0), created_at, "
                     "uuid_send(event_id) from {s}.subscription_events order by id")
    forged = [(5000, *true[0][1:]), (true[1][0], "sent", *true[1][2:]), (*true[2][:2], 99999, *true[2][3:]),
              (*true[3][:3], 0, *true[3][4:]), (*true[4][:4], true[4][4] + datetime.timedelta(microseconds=1), true[4][5]),
              (*true[5][:5], bytes(16))]
    with contextlib.closing(app.database.connect()) as session:
        cursor = session.cursor()
        cursor.execute("set search_path = anubis; set jit = off; set enable_seqscan = off; "
                       "set plan_cache_mode = force_generic_plan")
        for name in ("find_unknown", "count_known"):
            cursor.execute(f"prepare {name} as {STATEMENTS[name]}")
        for _ in range(20):
            events = rng.sample(true[6:], rng.randint(1, 200)) + rng.sample(forged, rng.randint(0, 6))
            rng.shuffle(events)
            columns = [list(column) for column in zip(*events)]
            ends = min(columns[0]), max(columns[0])
            cursor.execute("execute find_unknown (%s, %s, %s, %s, %s::timestamptz[], %s::bytea[], %s, %s)", (*columns, *ends))
            unknown = [n for n, event in enumerate(events, 1) if event in forged]
            assert sorted(n for n, in cursor.fetchall()) == unknown
            *runs, place_of = runs_of(columns[0])
            by_place = {place_of[event[0]]: event for event in events}
            nothing = (0, None, 0, 0, datetime.datetime(1970, 1, 1, tzinfo=datetime.timezone.utc), bytes(16))
            _, words, *said, names = zip(*(by_place.get(place, nothing) for place in range(max(by_place) + 1)))
            cursor.execute("execute count_known (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s::timestamptz[], %s)",
                           (*runs, *ends, types, bytes(1 + types.index(word) if word else 0 for word in words),
                            *(list(column) for column in said), b"".join(bytes(name) for name in names)))
            assert cursor.fetchone()[0] == len(events) - len(unknown)
        cursor.execute("explain execute count_known ('{1}', '{9}', '{0}', 1, 9, '{}', '', '{}', '{}', '{}', '')")
        plan = re.sub(r"\be_?\d*\.", "", "\n".join(line for line, in cursor.fetchall()))
        assert "Index Cond: ((id >= r.first) AND (id <= r.last)" in plan and "Seq Scan" not in plan, plan


def nodes(plan):
    """All parts of a plan, those within before those around them."""
    for part in plan.get("Plans", []):
        yield from nodes(part)
    yield plan


def test_the_proof_reads_the_ledger_in_parallel(app):
    """And sorts none of it."""
    app.integration("https://a.example/")
    app.query("insert into {s}.subscriptions (integration_id) select 1 from generate_series(1, 5000)")
    for status in ("processing", "sent"):
        app.query("update {s}.subscriptions set status = %s", (status,))
    app.query("insert into {s}.consumer_bitmaps (read_model, event_type, partition, chunk, bits) select 'integration', t, 0, c, "
              "decode(repeat('ff', 1024), 'hex') from unnest('{created,sent}'::text[]) t, generate_series(0, 1) c")
    for table in ("subscriptions", "subscription_events", "consumer_bitmaps"):
        app.query(f"analyze {{s}}.{table}")
    cases = (("verify_states", "(bigint)", "(0)"), ("verify_handled", "(text, bigint)", "('integration', 0)"),
             ("verify_stats", "(bigint)", "(20)"), ("verify_last_events", "(bigint, bigint, bigint)", "(0, 2500, 20)"))
    for name, types, arguments in cases:
        with contextlib.closing(app.database.connect()) as connection, connection.cursor() as cursor:
            cursor.execute("set search_path = anubis; set jit = off; set work_mem = '512MB'; "
                           "set max_parallel_workers_per_gather = 4; "
                           "set parallel_setup_cost = 0; set parallel_tuple_cost = 0; set min_parallel_table_scan_size = 0; "
                           "set min_parallel_index_scan_size = 0; "
                           f"set enable_sort = {'off' if name == 'verify_stats' else 'on'}; "
                           f"prepare a{types} as {STATEMENTS[name]}")
            cursor.execute(f"explain (analyze, timing off, format json) execute a{arguments}")
            plan = list(nodes(cursor.fetchone()[0][0]["Plan"]))
        read = [part for part in plan if part.get("Relation Name", "").startswith("subscription_events_") and part["Actual Rows"]]
        within = [part for top in plan if top["Node Type"].startswith("Gather") for part in nodes(top)]
        assert read and all(part in within for part in read), (name, read)
        assert all(part["Actual Rows"] < 1000 for part in plan if part["Node Type"] == "Sort"), name
