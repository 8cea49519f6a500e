"""What is written agrees with what is there."""
import glob
import os
import re
import shutil
import subprocess

import pytest

from harness.anubis import Ctl, program, run
from harness.processes import scratch_folder

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8") as f:
        return f.read()


def message_ids():
    """{macro: id} of src/base/message_ids.h."""
    return dict(re.findall(r'^#define (MSG_\w+) "(\w+)"$', read("src/base/message_ids.h"), re.MULTILINE))


CATALOGS = ["anubisd.catalog", "anubisd.pt_BR.catalog"]
# What is the same in each language: fields, what stands in quotes, manual pages, keys and columns, settings, words in
# capitals, numbers.
UNTRANSLATED = r'@\w+@|"[^"]+"|\w+\(\d\)|\w+=|\w+[._]\w[\w.]*\w|\b[A-Z]{4,}\b|[A-Z]\w+-[A-Z]\w+|\b\d+\b'


def catalog(name=CATALOGS[0]):
    """{id: {"Subject": …, "": text}}"""
    entries = {}
    for part in re.split(r"(?m)^-- ", read(f"systemd/{name}"))[1:]:
        head, _, text = part.partition("\n\n")
        message_id, *lines = head.splitlines()
        assert message_id not in entries, f"{message_id} has two entries"
        entries[message_id] = {**dict(line.split(": ", 1) for line in lines), "": text.strip()}
    return entries


def test_each_message_has_its_catalog_entry():
    ids = message_ids()
    assert len(ids) > 15 and len(set(ids.values())) == len(ids)
    assert all(re.fullmatch("[0-9a-f]{32}", i) for i in ids.values())
    assert set(catalog()) == set(ids.values())


def test_each_message_id_is_used():
    sources = "".join(read(path) for path in glob.glob("src/**/*.c", root_dir=ROOT, recursive=True))
    unused = [name for name in message_ids() if not re.search(rf"\b{name}\b", sources)]
    assert not unused, f"no line of the journal has these: {unused}"


@pytest.mark.parametrize("name", CATALOGS)
def test_catalog_entries_are_complete(name):
    for message_id, entry in catalog(name).items():
        assert set(entry) == {"Subject", "Defined-By", "Support", "Documentation", ""}, message_id
        assert entry["Defined-By"] == "anubisd"
        assert len(entry[""]) > 80, f"{message_id} explains nothing"
        assert all(len(line) <= 90 for line in entry[""].splitlines()), message_id


def untranslated(text):
    return set(re.findall(UNTRANSLATED, " ".join(text.split())))


def commands(text):
    """The indented lines, without comments of SQL and without lines that begin with a SQLSTATE and explain it."""
    return re.findall(r"(?m)^ +(?!\d)(\S.*?)(?: +-- .*)?$", text)


@pytest.mark.parametrize("name", CATALOGS[1:])
def test_a_translated_catalog_says_the_same(name):
    translation = catalog(name)
    assert list(translation) == list(catalog())
    for message_id, entry in catalog().items():
        other = translation[message_id]
        assert all(other[key] == entry[key] for key in ("Defined-By", "Support", "Documentation")), message_id
        assert other["Subject"] != entry["Subject"]
        assert untranslated(other["Subject"]) == untranslated(entry["Subject"]), message_id
        assert untranslated(other[""]) == untranslated(entry[""]), message_id
        assert commands(other[""]) == commands(entry[""]), message_id


@pytest.fixture(scope="module", name="journal")
def the_catalogs_in_a_journal():
    """A folder with the catalogs and, when a test puts them there, locales; and its journalctl."""
    if not shutil.which("journalctl"):
        pytest.skip("journalctl is not installed")
    folder = scratch_folder()
    os.makedirs(os.path.join(folder, "usr/lib/systemd/catalog"))
    os.makedirs(os.path.join(folder, "var/lib/systemd/catalog"))
    for name in CATALOGS:
        shutil.copy(os.path.join(ROOT, "systemd", name), os.path.join(folder, "usr/lib/systemd/catalog"))

    def journalctl(*arguments, locale="C"):
        return run(["journalctl", f"--root={folder}", "--no-pager", *arguments],
                   env={"LC_ALL": locale, "LOCPATH": folder}).expect()

    assert journalctl("--update-catalog").stderr == ""
    return folder, journalctl


def test_journalctl_understands_the_catalog(journal):
    _, journalctl = journal
    found = dict(line.split(" anubisd: ") for line in journalctl("--list-catalog").stdout.splitlines())
    assert set(found) == set(message_ids().values())
    assert found == {message_id: entry["Subject"] for message_id, entry in catalog().items()}


def test_the_locale_chooses_the_catalog(journal):
    folder, journalctl = journal
    if not os.path.isdir("/usr/lib/locale/C.utf8"):
        pytest.skip("this machine has no locale to copy")
    for language, name in (("pt_BR", CATALOGS[1]), ("pt_PT", CATALOGS[0])):
        shutil.copytree("/usr/lib/locale/C.utf8", os.path.join(folder, f"{language}.UTF-8"))
        text = journalctl("--dump-catalog", locale=f"{language}.UTF-8").stdout
        for message_id, entry in catalog(name).items():
            assert f"-- {message_id}\nSubject: {entry['Subject']}\n" in text
            assert entry[""] in text


# --- manual pages ---

def options_of_help(text):
    return set(re.findall(r"(?<![\w-])(--[a-z-]+|-[a-zA-Z])\b", text))


def options_of_manual(page):
    """Those that have an item of their own, and those of the synopsis."""
    found = set()
    for line in re.findall(r"(?m)^\.(?:It|Op|Fl) .*$", page):
        for names in re.findall(r"Fl ((?:-?[\w-]+ ?\|? ?)+)", line):
            found |= {"-" + name for name in re.split(r"[ |]+", names) if name and not name.isupper()}
    return {o for o in found if re.fullmatch(r"--[a-z-]+|-[a-zA-Z]", o)}


@pytest.mark.parametrize("name", ["anubisd", "anubisctl"])
def test_manual_and_help_name_the_same_options(name, binaries):
    text = run([program(name), "--help"]).expect().stdout
    page = read(f"man/{name}.8")
    assert options_of_help(text) == options_of_manual(page)


def test_the_manual_names_each_command_of_anubisctl(binaries):
    text = run([program("anubisctl"), "--help"]).expect().stdout
    commands = re.findall(r"(?m)^  ([a-z][a-z-]+) ", text.partition("Commands:")[2].partition("Options:")[0])
    assert commands
    page = read("man/anubisctl.8")
    missing = [c for c in commands if not re.search(rf"(?m)^\.(It|Ss|Nm|Ic|Cm).*\b{c}\b", page)]
    assert not missing


@pytest.mark.parametrize("name", ["anubisd", "anubisctl"])
def test_version_is_the_sources(name, binaries):
    version = re.search(r'ANUBIS_VERSION "(.*)"', read("src/base/version.h")).group(1)
    assert run([program(name), "--version"]).expect().stdout == f"{name} {version}\n"
    newest = re.search(r"(?m)^### (\S+)(?: \(unreleased\))?$", read("README.md").partition("\n## Changelog\n")[2])
    assert newest and newest.group(1) == version, "the changelog's first section is that of another version"


def test_usage_errors_have_their_exit_code(binaries):
    for arguments in (["--no-such-option"], ["argument"], ["-c"]):
        assert run([program("anubisd"), *arguments]).code == 64


# --- README ---

def readme_commands():
    """Lines of the indented blocks, without sudo and its user."""
    for line in re.findall(r"(?m)^    ([a-z].*)$", read("README.md")):
        yield re.sub(r"^sudo (-u \w+ )?", "", line)


def test_make_targets_of_the_readme_exist():
    makefile = read("Makefile")
    targets = set(re.findall(r"(?m)(?:`|^    (?:sudo )?)make ([a-z]+)\b", read("README.md")))
    assert targets
    for target in targets:
        assert re.search(rf"(?m)^{target}:.*", makefile), target


def test_commands_of_the_readme_are_accepted(binaries):
    known = run([program("anubisctl"), "--help"]).stdout
    for command in readme_commands():
        if command.startswith("anubisctl"):
            word = next(w for w in re.sub(r"--database '[^']*'", "", command).split()[1:] if not w.startswith("-"))
            assert re.search(rf"(?m)^  {word}\b", known), command
        if command.startswith("anubisd "):
            for option in re.findall(r"--[a-z-]+", command):
                assert option in run([program("anubisd"), "--help"]).stdout


def test_files_of_the_readme_exist():
    text = read("README.md")
    for name in re.findall(r"\]\((?!#|http)([^)#]+)\)", text):
        assert os.path.exists(os.path.join(ROOT, name)), name
    for anchor in re.findall(r"\]\(#([\w-]+)\)", text):
        assert anchor in {re.sub(r"[^\w -]", "", h).lower().replace(" ", "-")
                          for h in re.findall(r"(?m)^#+ (.*)$", text)}, anchor


@pytest.mark.parametrize("table", ["subscriptions", "integrations"])
def test_the_readme_explains_each_column(table, database):
    text = read("README.md").split("### What the application writes and reads")[1].split("\n## ")[0]
    rows = re.search(rf"(?ms)^`{table}`,.*?\n\n(.*?)(?:\n\n|\Z)", text).group(1).splitlines()[2:]
    explained = [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    there = [name for name, in database.query("select column_name::text from information_schema.columns "
                                              "where table_schema = 'anubis' and table_name = %s", (table,))]
    assert sorted(explained) == sorted(there)


def test_the_example_of_the_readme(empty_database):
    """An integration and its subscription in one statement."""
    Ctl(database=empty_database).migrate()
    statement = re.search(r"(?m)^    WITH institution AS (?:.|\n)*?;$", read("README.md")).group(0)
    assert empty_database.query(statement) == [(1,)]
    assert empty_database.query("select integration_id from anubis.subscriptions") == [(1,)]


def test_help_lists_every_target():
    text = run(["make", "-C", ROOT, "--no-print-directory", "help"], env={"MAKEFLAGS": None, "MAKELEVEL": None}).stdout
    for target in re.findall(r"(?m)^([a-z-]+):.*?## ", read("Makefile")):
        assert f"make {target} " in text


# --- the guides for developers ---

GUIDES = sorted(glob.glob("*/README.md", root_dir=ROOT))


def codes(guide):
    """What stands between backquotes or in an indented block."""
    text = read(guide)
    return re.findall(r"`([^`\n]+)`", text) + re.findall(r"(?m)^    (\S.*)$", text)


def files_named(guide):
    """{name as it is written: the paths that it stands for}, of what looks like a file, a folder or a pattern of files.
    NAME stands for any name; a path is relative to the guide or to the project."""
    folder, found = os.path.dirname(guide), {}
    for code in codes(guide):
        for name in re.findall(r"(?<![\w/<>=$.)-])[\w*.][\w*./-]*(?![\w(=])", code):
            pattern = name.replace("NAME", "*")
            paths = {path for place in ("", folder, f"{folder}/**")
                     for path in glob.glob(os.path.join(place, pattern), root_dir=ROOT, recursive=True)}
            if paths or re.search(r"\.(c|h|py|sql|md|conf|json|xml|[58])$|/", name) and not name.startswith("build/"):
                found[name] = {os.path.normpath(path) for path in paths}
    return found


def test_there_are_guides():
    assert {"sql/README.md", "src/README.md", "tests/README.md"} == set(GUIDES)


@pytest.mark.parametrize("guide", GUIDES)
def test_a_guide_is_read_at_once(guide):
    assert 60 <= read(guide).count("\n") <= 100


@pytest.mark.parametrize("guide", GUIDES)
def test_files_of_the_guide_exist(guide):
    assert not [name for name, paths in files_named(guide).items() if not paths]
    for link in re.findall(r"\]\((?!#|http)([^)#]+)\)", read(guide)):
        assert os.path.exists(os.path.join(ROOT, os.path.dirname(guide), link)), link


@pytest.mark.parametrize("guide", GUIDES)
def test_each_file_is_found_in_the_guide(guide):
    """By its name, a pattern, or its folder; a header by its source."""
    folder = os.path.dirname(guide)
    named = set().union(*files_named(guide).values()) - {folder, "."}
    files = [os.path.join(folder, f) for f in files_below(os.path.join(ROOT, folder)) if "__pycache__" not in f]
    lost = [f for f in files if f != guide and not
            any(f == n or f.startswith(n + "/") or f == re.sub(r"c$", "h", n) for n in named)]
    assert not lost, f"{guide} does not say where these belong: {lost}"


@pytest.mark.parametrize("guide", GUIDES)
def test_functions_and_tests_of_the_guide_exist(guide):
    sources = "".join(read(path) for pattern in ("src/**/*.c", "tests/**/*.py", "tests/unit/*.c")
                      for path in glob.glob(pattern, root_dir=ROOT, recursive=True))
    schema = "".join(read(path) for path in glob.glob("sql/**/*.sql", root_dir=ROOT, recursive=True))
    defined = set(re.findall(r"(?m)^(?:[a-z][^;=\n]*?|TEST\(| *def )\b(\w+)[()]", sources))
    defined |= set(re.findall(r"function @extschema@\.(\w+)\(", schema))
    for code in codes(guide):
        for name in re.findall(r"(\w+)\(\)", code) + re.findall(r"\btest_\w{3,}", code):
            there = name in defined or glob.glob(f"tests/**/{name.replace('NAME', '*')}.*", root_dir=ROOT, recursive=True)
            assert there or name.startswith("x_"), name


@pytest.mark.parametrize("guide", GUIDES)
def test_make_targets_of_the_guide_exist(guide):
    makefile, programs = read("Makefile"), read("Makefile") + read("tests/run-checks") + read("tests/harness/processes.py")
    for code in codes(guide):
        for target in re.findall(r"\bmake ((?:[a-z]+ )*[a-z]+)\b(?!-)", code):
            assert all(re.search(rf"(?m)^{word}:", makefile) for word in target.split()), code
        for variable in re.findall(r"(?:^|\s)([A-Z_]{4,})=", code):
            assert re.search(rf"\b{variable}\b", programs), code


# --- make ---

@pytest.mark.parametrize("argument, named", [("--unit=gapz", "test_gaps"), ("tests/test_x.py", "tests/test_docs.py"),
                                             ("tests/test_docs.py::test_x", "test_a_choice_without_a_test_fails")])
def test_a_choice_without_a_test_fails(binaries, argument, named):
    """And the names that there are stand beside it."""
    done = run([os.path.join(ROOT, "tests/run-checks"), argument], env={"CI": None, "FULL": None}, deadline=60)
    assert done.code == 1 and named in done.stdout
    assert done.stdout.splitlines()[-1] == "0 passed, 1 failed"


def test_missing_libraries_are_named_before_anything_is_compiled():
    nothing = scratch_folder()
    env = {"MAKEFLAGS": None, "MAKELEVEL": None, "PKG_CONFIG_LIBDIR": nothing, "PKG_CONFIG_PATH": None}
    make = ["make", "-C", ROOT, "--no-print-directory", f"BUILD={nothing}/build"]
    for targets, names, group in ((["all"], "libpq libcurl", "build"), (["all", "unit"], "libpq libcurl", "check")):
        done = run([*make, *targets], env=env)
        assert done.code != 0 and names in done.stderr and f'Run "sh .ci/packages {group}"' in done.stderr
        assert len(done.stderr.splitlines()) == 1 and done.stdout == "" and os.listdir(nothing) == []
    for target in ("help", "clean"):
        assert run([*make, target], env=env).code == 0


def test_a_build_folder_has_one_name():
    """Or dependency files that were written under another one are not found, and what they name is not made again."""
    elsewhere = scratch_folder()
    for written, meant in (("build", "build"), (f"{ROOT}/build", "build"), ("./build/x/../", "build"), (elsewhere, elsewhere)):
        done = run(["make", "-C", ROOT, "--no-print-directory", f"BUILD={written}", "--eval=say: ; @echo $(BUILD) $(ARCHIVE)",
                    "say"], env={"MAKEFLAGS": None, "MAKELEVEL": None})
        assert done.stdout.split() == [meant, f"{meant}/libanubis.a"]


def test_missing_packages_of_several_groups_are_named_at_once():
    folder = scratch_folder()
    for name in ("sh", "cat", "sed", "sort", "tr"):
        os.symlink(shutil.which(name), os.path.join(folder, name))
    done = run([os.path.join(folder, "sh"), os.path.join(ROOT, ".ci/packages"), "check", "kafka"], env={"PATH": folder})
    assert done.code == 1 and {"gcc", "maven"} <= {line.split(":")[0].strip() for line in done.stdout.splitlines()}


# --- make install ---

@pytest.fixture(scope="module")
def tree(binaries):
    folder = scratch_folder()
    make_install(folder, "install")
    return folder


def make_install(folder, target, *variables):
    done = run(["make", "-C", ROOT, "--no-print-directory", target, f"DESTDIR={folder}", f"BUILD={program('')[:-1]}",
                *variables], env={"MAKEFLAGS": None, "MAKELEVEL": None}, deadline=120)
    assert done.code == 0, done.stdout + done.stderr


def files_below(folder):
    return sorted(os.path.relpath(os.path.join(where, name), folder)
                  for where, _, names in os.walk(folder) for name in names)


def test_install_puts_everything_in_its_place(tree):
    found = files_below(tree)
    for name in ("usr/sbin/anubisd", "usr/bin/anubisctl", "etc/anubisd.conf", "usr/lib/systemd/system/anubisd.service",
                 "usr/lib/sysusers.d/anubisd.conf", "usr/lib/tmpfiles.d/anubisd.conf",
                 "usr/lib/systemd/catalog/anubisd.catalog", "usr/lib/systemd/catalog/anubisd.pt_BR.catalog",
                 "usr/share/man/man8/anubisd.8", "usr/share/man/man8/anubisctl.8",
                 "usr/share/man/man5/anubisd.conf.5", "usr/share/doc/anubisd/README.md", "usr/share/anubisd/sql/002_tables.sql",
                 "usr/share/anubisd/sql/repeatable/06_triggers.sql"):
        assert name in found
    assert os.stat(os.path.join(tree, "etc/anubisd.conf")).st_mode & 0o777 == 0o640


def test_install_leaves_a_configuration_alone(tree):
    path = os.path.join(tree, "etc/anubisd.conf")
    with open(path, "w", encoding="ascii") as f:
        f.write("log_level = \"debug\";\n")
    make_install(tree, "install")
    with open(path, encoding="ascii") as f:
        assert f.read() == "log_level = \"debug\";\n"


def test_install_elsewhere_and_uninstall():
    folder = scratch_folder()
    make_install(folder, "install", "PREFIX=/usr/local")
    with open(os.path.join(folder, "usr/local/lib/systemd/system/anubisd.service"), encoding="utf-8") as f:
        assert "ExecStart=/usr/local/sbin/anubisd\n" in f.read()
    make_install(folder, "uninstall", "PREFIX=/usr/local")
    assert files_below(folder) == ["etc/anubisd.conf"]


def test_sentences_that_explain_shows_are_written_somewhere():
    """explain shows anubisd's own sentences and no other words of an error: its list is what is really written."""
    listed = re.search(r"own_sentences\[\] = \{(.*?)\};", read("src/ctl/ctl_error.c"), re.DOTALL).group(1)
    written = "\n".join(read(os.path.join(folder, f)) for folder in ("src", "sql")
                        for f in files_below(os.path.join(ROOT, folder)) if not f.endswith("ctl_error.c")).replace("''", "'")
    for sentence in re.findall(r'"(.+)"', listed):
        pattern = re.escape(sentence)
        for status in ("failed", "retry"):  # which the trigger puts in
            pattern = pattern.replace(rf"set\ to\ {status}\ by", rf"set\ to\ (?:{status}|%s|'\ \|\|.*)\ by")
        assert re.search(pattern, written), sentence


# --- words ---

# Rare words, or words with another meaning today: most readers have English as a second language.
RARE = (r"mend(s|ed|ing)?|shall|hardly|vouch(es|ed)?|spoke|lest|hitherto|thereof|thereby|hereby|amiss|thinned|henceforth|"
        r"whilst|nought|oft")


def sentences():
    """(file, line, text) of all that users read: messages of programs and database, manual, configuration, catalog."""
    for pattern, quoted in (("src/*.c", r'"((?:[^"\\\n]|\\.)*)"'), ("src/*/*.c", r'"((?:[^"\\\n]|\\.)*)"'),
                            ("sql/0*.sql", r"'([^'\n]*)'"), ("sql/repeatable/*.sql", r"'([^'\n]*)'"),
                            ("man/*.[58]", "(.+)"), ("etc/*.conf", "(.+)"), ("systemd/anubisd.catalog", "(.+)"),
                            ("README.md", "(.+)")):
        for path in sorted(glob.glob(os.path.join(ROOT, pattern))):
            with open(path, encoding="utf-8") as f:
                for number, line in enumerate(f, 1):
                    code = re.sub(r"^\s*--.*|^\s*/?\*.*", "", line) if quoted != "(.+)" else line
                    for text in re.findall(quoted, code):
                        if " " in text.strip():
                            yield os.path.relpath(path, ROOT), number, text


def test_messages_and_manual_are_plain_international_english():
    found = list(sentences())
    assert len({path for path, _, _ in found}) > 100 and len(found) > 5000, len(found)
    bad = [f"{path}:{number}: {m[0]}" for path, number, text in found for m in re.finditer(rf"\b({RARE})\b", text, re.IGNORECASE)]
    assert not bad, "\n".join(bad)
