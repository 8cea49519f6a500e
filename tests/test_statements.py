"""The statements of the programs: each can be prepared on a migrated schema, with the parameters that its head names."""
import contextlib
import os
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


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_can_be_prepared(name, database):
    text = STATEMENTS[name]
    kinds = dict((int(number), kind) for number, kind in PARAMETER.findall(text))
    assert list(kinds) == list(range(1, len(kinds) + 1)), "the head names each parameter once, in order"
    used = {int(number) for number in re.findall(r"\$(\d+)", re.sub(r"^ *--.*", "", text, flags=re.MULTILINE))}
    assert used == set(kinds), "the head names the parameters that the statement uses"
    types = f"({', '.join(kinds.values())})" if kinds else ""
    database.query(f"set search_path = anubis; prepare a_statement{types} as {text}")


def test_a_statement_with_a_fault_is_refused(database):
    with pytest.raises(Exception, match="no_such_column"):
        database.query("set search_path = anubis; prepare a_statement as select no_such_column from subscriptions")


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
