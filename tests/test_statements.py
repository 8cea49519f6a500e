"""The daemon's long statements: each can be prepared on a migrated schema, with the parameters that its head names."""
import os
import re
import subprocess

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDER = os.path.join(ROOT, "sql", "statements")
FILES = sorted(f for f in os.listdir(FOLDER) if f.endswith(".sql") and not f.endswith(".part.sql"))
PARAMETER = re.compile(r"^-- \$(\d+) ([a-z0-9 \[\]]+): .", re.MULTILINE)


def resolved(name):
    return subprocess.run(["sh", os.path.join(ROOT, ".ci/embed-statements"), "--text", os.path.join(FOLDER, name)],
                          check=True, capture_output=True, text=True).stdout


def parameters(text):
    return [kind for _, kind in sorted((int(number), kind) for number, kind in PARAMETER.findall(text))]


@pytest.mark.parametrize("name", FILES)
def test_a_statement_can_be_prepared(name, database):
    text = resolved(name)
    numbers = sorted(int(number) for number, _ in PARAMETER.findall(text))
    assert numbers == list(range(1, len(numbers) + 1)), "the head names each parameter once"
    used = {int(number) for number in re.findall(r"\$(\d+)", re.sub(r"^ *--.*", "", text, flags=re.MULTILINE))}
    assert used == set(numbers), "the head names the parameters that the statement uses"
    kinds = ", ".join(parameters(text))
    database.query(f"set search_path = anubis; prepare a_statement{'(' + kinds + ')' if kinds else ''} as {text}")


def test_a_statement_with_a_fault_is_refused(database):
    with pytest.raises(Exception, match="no_such_column"):
        database.query("set search_path = anubis; prepare a_statement as select no_such_column from subscriptions")


def test_every_part_is_included():
    parts = {f for f in os.listdir(FOLDER) if f.endswith(".part.sql")}
    included = set()
    for name in os.listdir(FOLDER):
        with open(os.path.join(FOLDER, name), encoding="utf-8") as file:
            included |= set(re.findall(r"^-- include: (.+)", file.read(), re.MULTILINE))
    assert included == parts


def test_a_part_that_is_missing_fails_the_build(tmp_path):
    (tmp_path / "a.sql").write_text("-- include: missing.part.sql\nselect 1\n")
    for mode in ["--text", "--source"]:
        done = subprocess.run(["sh", os.path.join(ROOT, ".ci/embed-statements"), mode, str(tmp_path / "a.sql")],
                              capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert "missing.part.sql" in done.stderr
