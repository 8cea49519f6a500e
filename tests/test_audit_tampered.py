"""What whoever may write to all tables changes in the audit log, and in what it is compared with, is named, with what helps."""
import pathlib
import re

import pytest
from harness.processes import wait_for
from test_audit import look_again, signing_key, wait_for_leaves

ROOT = pathlib.Path(__file__).parent.parent
TREE = "(select id from {s}.audit_trees where topic like '%%.created' and partition = 0)"
OTHER = "(select id from {s}.audit_trees where topic like '%%.created' and partition = 1)"
OLD = f" where tree = {TREE} and leaf = 7"
NEW = f" where tree = {TREE} and leaf = (select size - 20 from {{s}}.audit_trees where id = {TREE})"
LEAF = "update {s}.audit_log set "
SILENTLY = "set session_replication_role = replica; "
EVENT = SILENTLY + "update {s}.subscription_events set "
OF_LEAF = "(select sequence from {s}.audit_log "
EXCHANGE = (LEAF + f"leaf = -leaf - 1 where tree = {TREE} and leaf in (A, B); "
            + LEAF + f"leaf = case leaf when -A - 1 then B else A end where tree = {TREE} and leaf < 0")
FIRST, FIRST_NEW = "(select 1)", f"(select size - 20 from {{s}}.audit_trees where id = {TREE})"
COLUMNS = '"offset", sequence, event_id, event_type, subscription_id, integration_id, created_at, commitment, hash'
KEPT = ("audit_trees", "audit_log", "audit_tiles", "audit_checkpoints", "audit_past", "audit_checks", "audit_salts",
        "subscription_events", "consumer_bitmaps", "consumer_offsets", "relay_state", "relay_saved")

CHANGED_COLUMNS = {
    "offset": '"offset" = "offset" + 1', "sequence": "sequence = sequence + 1", "event id": "event_id = gen_random_uuid()",
    "type": "event_type = 'updated'", "subscription": "subscription_id = subscription_id + 1",
    "integration": "integration_id = integration_id + 1", "no integration": "integration_id = null",
    "time": "created_at = created_at + interval '1 us'", "no time": "created_at = 'infinity'",
    "commitment": "commitment = set_byte(commitment, 0, get_byte(commitment, 0) # 1)",
    "longer commitment": "commitment = commitment || '\\x00'", "hash": "hash = set_byte(hash, 31, get_byte(hash, 31) # 128)",
    "longer hash": "hash = hash || '\\x00'"}
# Name: what is done, what the proof says, what helps. Found where nothing was proven before, and with --full.
NEWER = {
    **{f"leaf: {name}": (LEAF + change + NEW, "leaf [0-9]+ .* was changed", "Leaves:")
       for name, change in CHANGED_COLUMNS.items()},
    "leaf: removed": ("delete from {s}.audit_log" + NEW, "leaf [0-9]+ is missing", "Leaves:"),
    "leaves: exchanged": (
        EXCHANGE.replace("A", FIRST_NEW).replace("B", f"({FIRST_NEW} + 9)"), "leaf [0-9]+ .* was changed|moved", "Leaves:"),
    "leaf: of another tree": (LEAF + f"tree = {OTHER}, leaf = leaf + 5000" + NEW, "leaf [0-9]+ is missing", "Leaves:"),
    "leaf: behind the end": (
        f"insert into {{s}}.audit_log select tree, leaf + 5000, {COLUMNS} from {{s}}.audit_log" + OLD,
        "leaf 5007 .* was put in behind its", "belong to no tree"),
    "leaf: far behind the end": (
        f"insert into {{s}}.audit_log select tree, 9223372036854775807, {COLUMNS} from {{s}}.audit_log" + OLD,
        "leaf 9223372036854775807 .* was put in behind its", "belong to no tree"),
    "leaf: of no tree": (
        f"insert into {{s}}.audit_log select 999, leaf, {COLUMNS} from {{s}}.audit_log" + OLD,
        "tree 999, which does not exist: leaf 7 was put in", "belong to no tree"),
    "leaves: of no tree": (
        f"insert into {{s}}.audit_log select -1, leaf, {COLUMNS} from {{s}}.audit_log where tree = {TREE}",
        "tree -1, which does not exist: [0-9]+ leaves, 0 to [0-9]+, were put in", "belong to no tree"),
    "leaf: below 0": (
        f"insert into {{s}}.audit_log select tree, -1, {COLUMNS} from {{s}}.audit_log" + OLD,
        "created/0: leaf -1 was put in", "belong to no tree"),
    "tile: behind the end": (
        f"insert into {{s}}.audit_tiles values ({TREE}, 1, 500, sha256('x'))",
        "created/0: tile 500 of level 1 was put in", "Tiles:"),
    "tile: of the next level": (
        f"insert into {{s}}.audit_tiles values ({TREE}, 2, 0, sha256('x'))", "created/0: tile 0 of level 2 was put in", "Tiles:"),
    "tile: of no level": (
        f"insert into {{s}}.audit_tiles select {TREE}, n, 0, sha256('x') from unnest('{{0,8,-1}}'::int[]) n",
        "(?s)tile 0 of level -1 .*tile 0 of level 0 .*tile 0 of level 8 ", "Tiles:"),
    "tile: below 0": (
        f"insert into {{s}}.audit_tiles values ({TREE}, 1, -1, sha256('x'))", "tile -1 of level 1 was put in", "Tiles:"),
    "tile: of no tree": (
        "insert into {s}.audit_tiles values (999, 1, 0, sha256('x'))", "tree 999, which does not exist: tile 0 of level 1",
        "Tiles:"),
    "tree: its size": (
        f"update {{s}}.audit_trees set size = size + 1 where id = {TREE}", "leaves [0-9]+ to [0-9]+ are missing", "Leaves:"),
    "tree: its roots": (
        f"update {{s}}.audit_trees set roots = set_byte(roots, 0, get_byte(roots, 0) # 1) where id = {TREE}",
        "its roots are not those of its leaves", "Roots:"),
    "tree: fewer roots": (f"update {{s}}.audit_trees set roots = '' where id = {TREE}", "its roots are not those", "Roots:"),
    "tree: another topic": (
        f"update {{s}}.audit_trees set topic = 'other' where id = {TREE}", "created/0: the tree is gone", "Checkpoints:"),
    "tree: gone": (f"delete from {{s}}.audit_trees where id = {TREE}",
                   "(?s)created/0: the tree is gone.*which does not exist: [0-9]+ leaves", "Checkpoints:"),
    "tree: of nothing": (
        "insert into {s}.audit_trees (topic, partition, size, roots) values ('other', 0, 1, sha256('x'))",
        "other/0: leaves 0 to 0 are missing", "Leaves:"),
    "checkpoint: its root": (
        "update {s}.audit_checkpoints set note = regexp_replace(note, '[0-9a-f]{64}', repeat('ab', 32)) where id = "
        "(select max(id) from {s}.audit_checkpoints)", "checkpoint [0-9]+ had another root", "Checkpoints:"),
    "checkpoint: its size": (
        "update {s}.audit_checkpoints set note = regexp_replace(note, ' 0 [0-9]+ ', ' 0 99999 ') where id = "
        "(select max(id) from {s}.audit_checkpoints)", "checkpoint [0-9]+ had 99999 already: it was cut off", "Checkpoints:"),
    "checkpoint: no text": (
        "update {s}.audit_checkpoints set note = 'x' where id = (select max(id) from {s}.audit_checkpoints)",
        "checkpoint [0-9]+ is no note of this installation", "Checkpoints:"),
    "checkpoint: newer one": (
        "insert into {s}.audit_checkpoints (note, verified_at) select regexp_replace(note, '[0-9a-f]{64}', repeat('ab', 32)), "
        "null from {s}.audit_checkpoints order by id desc limit 1", "checkpoint [0-9]+ had another root", "Checkpoints:"),
    "checkpoint: the newest gone": (
        "update {s}.audit_checks set last_checkpoint = (select max(id) from {s}.audit_checkpoints); "
        "delete from {s}.audit_checkpoints where id = (select max(id) from {s}.audit_checkpoints)",
        "checkpoint [0-9]+ was taken out", "Checkpoints:"),
    "checkpoint: the verified one gone": (
        "update {s}.audit_checks set checkpoint = 1; delete from {s}.audit_checkpoints where id = 1",
        "checkpoint 1 was taken out", "Checkpoints:"),
    "checkpoint: of before a copy": (
        f"insert into {{s}}.audit_past (tree, leaves, installation, checkpoint) values ({TREE}, 0, gen_random_uuid(), 9999)",
        "checkpoint 9999 was taken out: it has the leaves of before", "Checkpoints:"),
    "ledger: event id": (
        EVENT + "event_id = gen_random_uuid() where id = " + OF_LEAF + NEW + ")", "it is not as the ledger", "The ledger:"),
    "ledger: type": (
        EVENT + "event_type = 'updated' where id = " + OF_LEAF + NEW + ")", "it is not as the ledger", "The ledger:"),
    "ledger: subscription": (
        EVENT + "subscription_id = subscription_id + 1 where id = " + OF_LEAF + NEW + ")",
        "it is not as the ledger", "The ledger:"),
    "ledger: integration": (
        EVENT + "integration_id = 99 where id = " + OF_LEAF + NEW + ")", "it is not as the ledger", "The ledger:"),
    "ledger: no integration": (
        EVENT + "integration_id = null where id = " + OF_LEAF + NEW + ")", "it is not as the ledger", "The ledger:"),
    "ledger: time": (
        EVENT + "created_at = created_at + interval '1 us' where id = " + OF_LEAF + NEW + ")",
        "it is not as the ledger", "The ledger:"),
    "ledger: id": (EVENT + "id = id + 500000 where id = " + OF_LEAF + NEW + ")", "the ledger has no event", "The ledger:"),
    "ledger: removed": (
        SILENTLY + "delete from {s}.subscription_events where id = " + OF_LEAF + NEW + ")",
        "the ledger has no event", "The ledger:"),
    "ledger: truncated": (SILENTLY + "truncate {s}.subscription_events", "the ledger has no event", "The ledger:"),
    "mark: taken away": (
        "update {s}.consumer_bitmaps b set bits = set_bit(bits, (l.sequence % 8192)::int, 0) from {s}.audit_log l "
        f"where l.tree = {TREE} and leaf = {FIRST_NEW} and b.read_model = 'monitoring' and b.event_type = l.event_type "
        "and b.chunk = l.sequence / 8192", "leaf [0-9]+: event [0-9]+ is not marked as handled", "Marks of events"),
    "marks: emptied": (
        "delete from {s}.consumer_bitmaps where read_model = 'monitoring'",
        "leaf [0-9]+: event [0-9]+ is not marked", "Marks of events"),
}
# Where all was proven before: only --full looks there.
OLDER = {
    **{f"old leaf: {name}": (LEAF + change + OLD, "leaf 7 .* was changed", "Leaves:")
       for name, change in CHANGED_COLUMNS.items()},
    "old leaf: removed": ("delete from {s}.audit_log" + OLD, "leaf 7 is missing", "Leaves:"),
    "old leaves: exchanged": (EXCHANGE.replace("A", "7").replace("B", "9"), "leaf 7 .* was changed|moved", "Leaves:"),
    "tile: changed": (
        "update {s}.audit_tiles set hash = set_byte(hash, 9, get_byte(hash, 9) # 1) where tree = " + TREE,
        "leaves 0 to 255 do not give the hash of their tile, which was changed", "Tiles:"),
    "tile: removed": ("delete from {s}.audit_tiles where tree = " + TREE,
                      "leaves 0 to 255 do not give the hash of their tile, which is missing", "Tiles:"),
    "tile: longer": (
        "update {s}.audit_tiles set hash = hash || '\\x00' where tree = " + TREE, "leaves 0 to 255 do not give", "Tiles:"),
    "salts: removed": (
        "delete from {s}.audit_salts where chunk = 3", "the salts of the subscriptions 96 to 127 are gone", "Salts:"),
    "salts: truncated": ("truncate {s}.audit_salts", "the salts of the subscriptions [0-9]+ to [0-9]+ are gone", "Salts:"),
    "salt: erased": (
        "select {s}.salts_erase(array[100])", "the salt of subscription 100 is gone, but it was not erased", "Salts:"),
    "ledger, old: type": (
        EVENT + "event_type = 'updated' where id = " + OF_LEAF + OLD + ")", "leaf 7: it is not as the ledger",
        "The ledger:"),
    "ledger, old: removed": (
        SILENTLY + "delete from {s}.subscription_events where id = " + OF_LEAF + OLD + ")",
        "leaf 7: the ledger has no", "The ledger:"),
}


def checkpoint(app):
    """Of all leaves that there are."""
    look_again(app)
    wait_for(lambda: not app.value("select {s}.ledger_unsealed(9223372036854775807)"), 60, "a checkpoint of all leaves")


@pytest.fixture
def log(app, make_daemon, institutions, ctl):
    """Some thousand leaves, of which the older ones are proven; the daemon is gone."""
    good, bad = app.integration(institutions.url("/good")), app.integration(institutions.url("/reject/422"))
    daemon = make_daemon().start()
    app.subscriptions(good, 900)
    app.subscriptions(bad, 60)
    wait_for_leaves(app, 3 * 960)
    checkpoint(app)
    ctl("verify", "--audit").expect(0)
    app.subscriptions(good, 240)
    wait_for_leaves(app, 3 * 1200)
    checkpoint(app)
    wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof:\n{ctl('verify')}", interval=0.3)
    assert app.value("select count(*) from {s}.audit_tiles") >= 3
    daemon.term()
    for table in KEPT:
        app.query(f"create table {{s}}.kept_{table} as select * from {{s}}.{table}")
    app.daemon = daemon
    return app


def restore(app):
    for table in KEPT:
        app.query(SILENTLY + f"delete from {{s}}.{table}; "
                             f"insert into {{s}}.{table} overriding system value select * from {{s}}.kept_{table}")


def wrong(result, name, words, helps):
    """The difference is named, with what helps; nothing else drowns it."""
    text = "\n".join(result["differences"])
    assert result["verdict"] == "wrong" and re.search(words, text), f"{name}: {text}"
    assert any(helps in r for r in result["remedies"]), f"{name}: {result['remedies']}"
    assert len(result["differences"]) <= 70, f"{name}: {text}"


def forget_proofs(app):
    app.query("update {s}.audit_checkpoints set verified_at = k.verified_at from {s}.kept_audit_checkpoints k "
              "where k.id = audit_checkpoints.id")


@pytest.mark.timeout(600)
def test_what_is_changed_is_named(log, ctl):
    """By the proof of what is new, and by that of all; where all was proven before, by the second."""
    for name, (statement, words, helps) in {**NEWER, **OLDER}.items():
        try:
            log.query(statement)
            if name in NEWER:
                wrong(ctl("verify", "--audit", "--json").expect(1).json, f"{name}, what is new", words, helps)
            wrong(ctl("verify", "--audit", "--full", "--json").expect(1).json, name, words, helps)
        finally:
            restore(log)
    ctl("verify", "--audit").expect(0)
    ctl("verify", "--audit", "--full").expect(0)


def manual(title):
    """The statements of a section, and its commands, for subscription or id 4711."""
    section = (ROOT / "man/anubisctl.8").read_text(encoding="utf-8").partition(f".Ss {title}\n")[2].partition("\n.S")[0]
    return (re.findall(r"\.Bd -literal -offset indent\n(.*?)\.Ed", section, re.DOTALL),
            re.findall(r"(?m)^\.Dl anubisctl (.*)$", section))


# Name: section, number of the statement, what stands for 4711.
MENDED = {
    "leaf: behind the end": ("Rows belong to no tree", 0, None), "leaf: of no tree": ("Rows belong to no tree", 0, None),
    "leaf: below 0": ("Rows belong to no tree", 0, None), "tile: changed": ("Tiles or roots differ", 0, None),
    "tile: removed": ("Tiles or roots differ", 0, None), "tile: behind the end": ("Tiles or roots differ", 0, None),
    "tile: of no tree": ("Tiles or roots differ", 0, None), "tree: its roots": ("Tiles or roots differ", 0, None),
    "tree: fewer roots": ("Tiles or roots differ", 0, None),
    "checkpoint: its root": ("A checkpoint differs, or is gone", 0, "select max(id) from {s}.audit_checkpoints"),
    "checkpoint: no text": ("A checkpoint differs, or is gone", 0, "select max(id) from {s}.audit_checkpoints"),
    "checkpoint: the verified one gone": ("A checkpoint differs, or is gone", 0, "select 1"),
    "ledger: event id": (
        "The ledger is not as its leaves", 0, OF_LEAF[1:] + NEW), "ledger: time": ("The ledger is not as its leaves", 0,
        OF_LEAF[1:] + NEW),
    "ledger: subscription": ("The ledger is not as its leaves", 0, OF_LEAF[1:] + NEW),
    "ledger, old: type": ("The ledger is not as its leaves", 0, OF_LEAF[1:] + OLD),
    "salts: removed": ("Salts are gone", 1, "select 100"), "salt: erased": ("Salts are gone", 2, "select 100"),
}


@pytest.mark.timeout(600)
def test_what_the_manual_says_helps(log, ctl):
    """Each statement makes the proof clean again."""
    for name, (title, number, stands_for) in MENDED.items():
        try:
            log.query({**NEWER, **OLDER}[name][0])
            ctl("verify", "--audit", "--full").expect(1)
            statement = manual(title)[0][number].replace("anubis.", "{s}.").replace("%", "%%")
            log.query(statement.replace("4711", str(log.value(stands_for)) if stands_for else "4711"))
            result = ctl("verify", "--audit", "--full")
            assert result.code == 0, f"{name}: {result}"
        finally:
            restore(log)


def begin_anew(app):
    for statement in manual("Leaves were changed, moved or taken out, or stand there twice")[0]:
        app.query(statement.replace("anubis.", "{s}."))


@pytest.mark.parametrize("name", ["old leaf: event id", "leaf: removed", "leaves: exchanged", "tree: gone", "twice"])
def test_a_log_is_begun_anew(log, ctl, name):
    twice = (f"insert into {{s}}.audit_log select 998, leaf, {COLUMNS} from {{s}}.audit_log" + OLD + "; "
             "insert into {s}.audit_trees (id, topic, partition, size, roots) overriding system value "
             "values (998, 'x', 0, 8, '')")
    log.query(twice if name == "twice" else {**NEWER, **OLDER}[name][0])
    ctl("verify", "--audit", "--full").expect(1)
    command, = {c for c in manual("Leaves were changed, moved or taken out, or stand there twice")[1]}
    begin_anew(log)
    ctl(*command.split()).expect(0)
    log.daemon.start()
    wait_for_leaves(log, 3600)
    proof = ("verify", "--audit", "--full")
    wait_for(lambda: ctl(*proof).code == 0, 60, lambda: f"the proof:\n{ctl(*proof)}", interval=0.5)
    wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof:\n{ctl('verify')}", interval=0.5)
    assert log.value("select count(distinct sequence) from {s}.audit_log") == 3600
    log.daemon.term()


LOST = {"all": "true", "of a type": "event_type = 'sent'", "of a partition": "partition = 0"}


@pytest.mark.parametrize("what", LOST)
def test_marks_that_are_lost_make_no_second_leaf(log, ctl, what):
    """Marks from another time than the log: the group does not start before they are made again, and nothing is logged twice."""
    log.query("delete from {s}.consumer_bitmaps where read_model = 'monitoring' and " + LOST[what]
              + "; update {s}.consumer_offsets set next_offset = 0 where read_model = 'monitoring'")
    found = ctl("verify", "--audit", "--json").expect(1).json
    assert any("replay --group monitoring" in r for r in found["remedies"]), found
    log.daemon.start()
    log.daemon.wait_log("in the audit log, but not marked as handled.*\n?.*replay --group monitoring")
    command, = manual("Events have no leaf, or no mark")[1]
    marked = ctl(*command.split(), "--json").expect(0).json["marks"]
    assert marked > 100 and (what != "all" or marked == 3600)
    log.subscriptions(1, 10)
    wait_for(lambda: log.value("select count(*) from {s}.audit_log") >= 3630, 60, "the new leaves")
    proof = ("verify", "--audit", "--full")
    wait_for(lambda: ctl(*proof).code == 0, 60, lambda: f"the proof:\n{ctl(*proof)}", interval=0.5)
    assert log.query("select count(*), count(distinct sequence) from {s}.audit_log") == [(3630, 3630)]
    wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof:\n{ctl('verify')}", interval=0.5)
    log.daemon.term()


POSITIONS = {
    "ahead": "high = high + 100", "gaps": "gap_first = '{1}', gap_last = '{1}', gap_horizon = '{1}'",
    "far ahead": "high = 9223372036854775000",
}


@pytest.mark.parametrize("what", POSITIONS)
def test_a_position_that_was_set_ahead_is_named(log, ctl, what):
    """The manual's statement sets it back, also where it is ahead of all ids, and no daemon starts."""
    log.query("update {s}.relay_state set " + POSITIONS[what])
    found = ctl("verify", "--json").expect(1).json
    assert any("somebody has set it ahead" in d for d in found["differences"]), found
    assert any("relay_saved" in r for r in found["remedies"]), found
    statement, = manual("The relay's position is ahead, or its row is gone")[0]
    log.query(statement.replace("anubis.", "{s}."))
    ctl("verify").expect(0)
    log.daemon.start()
    log.subscriptions(1, 5)
    wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof:\n{ctl('verify')}", interval=0.3)
    log.daemon.term()


def test_the_relay_without_its_row(log, ctl):
    log.query("delete from {s}.relay_state")
    found = ctl("verify", "--json").expect(1).json
    assert any("anubisctl migrate" in line for line in found["differences"] + found["remedies"]), found
    ctl("migrate").expect(0)
    log.daemon.start()
    wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof:\n{ctl('verify')}", interval=0.3)
    log.daemon.term()


@pytest.mark.parametrize("offset", [0, 7, 1000000])
def test_offsets_that_were_changed_lose_nothing(log, ctl, offset):
    """What is behind is read again, or published again, and no event has two leaves."""
    log.query("update {s}.consumer_offsets set next_offset = %s where read_model = 'monitoring'", (offset,))
    log.daemon.start()
    log.subscriptions(1, 10)
    wait_for_leaves(log, 3630)
    proof = ("verify", "--audit", "--full")
    wait_for(lambda: ctl(*proof).code == 0, 60, lambda: f"the proof:\n{ctl(*proof)}", interval=0.5)
    wait_for(lambda: ctl("verify").code == 0, 60, lambda: f"the proof:\n{ctl('verify')}", interval=0.5)
    assert log.query("select count(*), count(distinct sequence) from {s}.audit_log") == [(3630, 3630)]
    log.daemon.term()


def test_signatures_that_were_changed(app, make_daemon, institutions, ctl, tmp_path):
    """Of the checkpoint, of its text, and one by another key: this only tells who knows the right one."""
    key, other = tmp_path / "key.pem", tmp_path / "other.pem"
    signing_key(key)
    signing_key(other)
    app.subscriptions(app.integration(institutions.url("/good")), 20)
    daemon = make_daemon({"audit": {"signing_key": f"file:{key}"}}).start()
    wait_for_leaves(app, 60)
    checkpoint(app)
    public = tmp_path / "public"
    public.write_text(ctl("audit", "head", "--json").expect(0).json["signed_by"] + "\n", encoding="utf-8")
    ctl("verify", "--audit", "--key", public).expect(0)
    app.query("create table {s}.kept as select * from {s}.audit_checkpoints")
    newest = " where id = (select max(id) from {s}.audit_checkpoints)"
    for change, found in (("note = regexp_replace(note, '[A-Za-z0-9+/]{4}=*\\s*$', 'AAAA=\n')", 1),
                          ("signed_by = replace(signed_by, '+', '-')", 1), ("signed_by = null", 0)):
        app.query("update {s}.audit_checkpoints set " + change + newest)
        result = ctl("verify", "--audit", "--full", "--json").expect(found).json
        if found:
            wrong(result, change, "is not signed by the key that it names", "Checkpoints:")
        else:
            assert result["unsigned_checkpoints"] == 1
        app.query("update {s}.audit_checkpoints c set note = k.note, signed_by = k.signed_by from {s}.kept k where k.id = c.id")
    ctl("verify", "--audit", "--full").expect(0)
    daemon.reload(audit={"signing_key": f"file:{other}"})
    daemon.wait_log("changed: audit.signing_key")
    app.subscriptions(1, 5)
    wait_for_leaves(app, 75)
    checkpoint(app)
    ctl("verify", "--audit", "--full").expect(0)
    wrong(ctl("verify", "--audit", "--key", public, "--json").expect(1).json, "another key",
          "the last checkpoint is not signed by the key that was given", "Anchors:")
    daemon.term()
