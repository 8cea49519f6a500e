"""The audit log: every event that came back from Kafka is a leaf of a Merkle tree, once, whatever happens."""
import base64
import datetime
import hashlib
import json
import pathlib
import re
import subprocess
import sys

import pytest
from harness.processes import wait_for

ROOT = pathlib.Path(__file__).parent.parent
SENT = "select id from {s}.audit_trees where topic like '%%.sent' and partition = 0"


COLUMNS = ('select leaf, "offset", sequence, event_id, event_type, subscription_id, integration_id, created_at, commitment, hash')


def sha256(*parts):
    return hashlib.sha256(b"".join(parts)).digest()


def root(leaves):
    """RFC 9162, 2.1.1."""
    if len(leaves) <= 1:
        return leaves[0] if leaves else sha256()
    half = 1
    while 2 * half < len(leaves):
        half *= 2
    return sha256(b"\x01", root(leaves[:half]), root(leaves[half:]))


def entry(installation, tree, row):
    """As the manual says it."""
    time = row["created_at"].astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    lines = ["anubisd audit leaf 1", installation, tree["topic"], tree["partition"], row["offset"], row["sequence"],
             row["event_id"], row["event_type"], row["subscription_id"], row["integration_id"] or 0, time,
             bytes(row["commitment"]).hex()]
    return "".join(f"{line}\n" for line in lines).encode()


def rows(app, query, arguments=None):
    text = query.split("from", 1)[0].partition("select ")[2]
    names = [n.strip().strip('"') for n in text.split(",")]
    return [dict(zip(names, r)) for r in app.query(query, arguments)]


def check(app):
    """Every event of the ledger that was published has its leaf, and the trees are what their rows give. The leaves."""
    installation = app.value("select namespace::text from {s}.installation")
    leaves = []
    for tree in rows(app, "select id, topic, partition, size, roots from {s}.audit_trees order by id"):
        found = rows(app, COLUMNS + " from {s}.audit_log where tree = %s order by leaf", (tree["id"],))
        assert [r["leaf"] for r in found] == list(range(tree["size"]))
        assert [r["offset"] for r in found] == sorted(r["offset"] for r in found)
        hashes = [sha256(b"\x00", entry(installation, tree, r)) for r in found]
        assert hashes == [bytes(r["hash"]) for r in found]
        roots, at = [], 0
        for bit in reversed(range(tree["size"].bit_length())):
            if tree["size"] >> bit & 1:
                roots.append(root(hashes[at:at + (1 << bit)]))
                at += 1 << bit
        assert bytes(tree["roots"]) == b"".join(roots)
        tiles = {(r["level"], r["tile"]): bytes(r["hash"])
                 for r in rows(app, "select level, tile, hash from {s}.audit_tiles where tree = %s", (tree["id"],))}
        assert tiles == {(1, n): root(hashes[256 * n:256 * (n + 1)]) for n in range(tree["size"] // 256)}
        leaves += found
    return leaves


def wait_for_leaves(app, count):
    wait_for(lambda: app.value("select count(*) from {s}.audit_log") == count, 60,
             lambda: f"{count} leaves, there are {app.value('select count(*) from {s}.audit_log')}")


@pytest.fixture
def audited(app, make_daemon, institutions):
    """Some hundred events, and the daemon that has written them into the log."""
    good, bad = app.integration(institutions.url("/good")), app.integration(institutions.url("/reject/422"))
    app.subscriptions(good, 300)
    app.subscriptions(bad, 40)
    daemon = make_daemon().start()
    app.wait_states(sent=300, failed=40)
    wait_for_leaves(app, 3 * 340)
    yield app, daemon
    daemon.term()


def test_every_event_is_a_leaf(audited):
    app, _ = audited
    leaves = check(app)
    ledger = rows(app, "select id, event_id, event_type, subscription_id, integration_id, created_at "
                       "from {s}.subscription_events")
    same = ("event_id", "event_type", "subscription_id", "integration_id", "created_at")
    assert {(e["id"], *(e[k] for k in same)) for e in ledger} == {(v["sequence"], *(v[k] for k in same)) for v in leaves}
    assert app.query("select chunk from {s}.audit_salts order by 1") == app.query(
        "select distinct id / 32 from {s}.subscriptions order by 1")


def test_leaves_that_the_database_refuses(app, make_daemon, institutions, ctl):
    """One for what it says: that event is put aside, and comes behind others when it is replayed. All of them for a while: they
    come later."""
    integration = app.integration(institutions.url("/good"))
    daemon = make_daemon().start()
    app.query("alter table {s}.audit_log add constraint rule check (subscription_id <> 7)")
    app.subscriptions(integration, 20)
    wait_for_leaves(app, 3 * 19)
    assert app.query("select distinct read_model, error from {s}.dead_letters") == [
        ("monitoring", "the database refuses it (SQLSTATE 23514)")]
    app.query("alter table {s}.audit_log rename column hash to hash_away")
    app.subscriptions(integration, 20)
    daemon.wait_log('column "hash"')
    app.query("alter table {s}.audit_log rename column hash_away to hash")
    wait_for_leaves(app, 3 * 39)
    assert len(check(app)) == 3 * 39
    wait_for(lambda: app.value("select count(published_at) from {s}.dead_letters") == 3, 60, "all of the one to be put aside")
    app.query("alter table {s}.audit_log drop constraint rule")
    assert ctl("dead-letters", "replay", "--all", "--json").expect(0).json["handled"] == 3
    assert ctl("verify", "--audit", "--full", "--json").expect(0).json["leaves"] == 3 * 40
    assert daemon.term() == 0


def openssl(*words, text=None):
    return subprocess.run(["openssl", *words], input=text, capture_output=True, check=True).stdout


def signing_key(path):
    """A new one, in a file; its public half in DER."""
    path.write_bytes(openssl("genpkey", "-algorithm", "ed25519"))
    return openssl("pkey", "-in", path, "-pubout", "-outform", "DER")


def holds(note, public, tmp_path):
    """Does openssl find that the note is signed by this key? What is signed ends before the empty line."""
    text, _, lines = note.partition("\n\n")
    (tmp_path / "text").write_text(text + "\n", encoding="utf-8")
    (tmp_path / "key").write_bytes(public)
    _, name, value = lines.split()
    number, signature = base64.b64decode(value)[:4], base64.b64decode(value)[4:]
    (tmp_path / "signature").write_bytes(signature)
    is_its_number = number == sha256(name.encode(), b"\n\x01", public[-32:])[:4]
    found = subprocess.run(["openssl", "pkeyutl", "-verify", "-rawin", "-pubin", "-keyform", "DER", "-inkey", tmp_path / "key",
                            "-in", tmp_path / "text", "-sigfile", tmp_path / "signature"], capture_output=True, check=False)
    assert is_its_number == (found.returncode == 0)
    return is_its_number


def test_checkpoints_are_signed_and_go_to_their_topic(app, make_daemon, institutions, broker, ctl, tmp_path):
    """By the key of the configuration; a reload takes another one, and none. Outsiders check them with openssl."""
    keys = [tmp_path / "one.pem", tmp_path / "two.pem"]
    public = [signing_key(path) for path in keys]
    app.subscriptions(app.integration(institutions.url("/good")), 20)
    daemon = make_daemon({"audit": {"signing_key": f"file:{keys[0]}"}}).start()
    newest = "select note from {s}.audit_checkpoints where signed_by = %s order by id desc limit 1"
    notes = []
    for key in public:
        end = base64.b64encode(b"\x01" + key[-32:]).decode()
        signer = "select signed_by from {s}.audit_checkpoints where right(signed_by, %s) = %s limit 1"
        who = wait_for(lambda e=end, q=signer: app.query(q, (len(e), e)), 90, "a signed checkpoint")[0][0]
        assert who.split("+", 2)[2] == end
        notes.append(app.query(newest, (who,))[0][0])
        daemon.wait_log("signed by " + re.escape(who))
        if key == public[0]:
            daemon.reload(audit={"signing_key": f"file:{keys[1]}"})
            daemon.wait_log("changed: audit.signing_key")
            app.subscriptions(1, 5)
            look_again(app)
    assert [[holds(note, key, tmp_path) for key in public] for note in notes] == [[True, False], [False, True]]
    wait_for_leaves(app, 75)
    head = ctl("audit", "head", "--json").expect(0).json
    assert head["signed_by"] == who
    done = ctl("verify", "--audit", "--full", "--json").expect(0).json
    assert (done["verdict"], done["unsigned_checkpoints"]) == ("proven", 0)
    wait_for(lambda: app.value("select count(*) from {s}.audit_checkpoints where published_at is null") == 0, 60,
             "the topic to have all")
    messages = broker.read_all("anubis.audit")
    assert {bytes(m.value).decode() for m in messages} >= set(notes)
    assert messages[-1].headers["checkpoint_signed_by"] == who
    check_keys(ctl, broker, keys, tmp_path)
    app.query("update {s}.audit_checkpoints set note = replace(note, 'sent 0', 'sent 9')")
    assert "is not signed by the key that it names" in ctl("verify", "--audit", "--full").expect(1).stdout
    assert daemon.term() == 0


def check_keys(ctl, broker, keys, tmp_path):
    """Those that were given from outside, in PEM and as "audit head" shows them; the last checkpoint is signed by the second."""
    first, second = (openssl("pkey", "-in", path, "-pubout").decode() for path in keys)
    shown = ctl("audit", "head", "--json").expect(0).json["signed_by"]
    anchors, key = tmp_path / "anchors", tmp_path / "public"
    anchors.write_text("".join(bytes(m.value).decode() + "\n" for m in broker.read_all("anubis.audit")), encoding="utf-8")
    for text, code, of_anchors in ((first, 1, 1), (second, 0, 1), (first + second, 0, 0), (shown + "\n", 0, 1)):
        key.write_text(text, encoding="utf-8")
        found = ctl("verify", "--audit", "--key", key, "--json").expect(code).json
        assert ("the last checkpoint is not signed by the key that was given" in "".join(found["differences"])) == (code == 1)
        assert code == 1 or found["anchored_leaves"] == 75
        found = ctl("verify", "--audit", "--anchor", anchors, "--key", key, "--json").expect(of_anchors).json
        unsigned = [d for d in found["differences"] if re.search("anchor in line [0-9]+ is not signed by the key", d)]
        assert len(unsigned) > 0 if of_anchors else not unsigned


def look_again(app):
    """Checkpoints come once a minute: a new session of the monitor looks at once."""
    app.query("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'anubisd monitor' "
              "and datname = current_database()")


def wait_for_checkpoint(app, daemon):
    """Of all the leaves; as the journal tells it."""
    def look():
        note = app.query("select note from {s}.audit_checkpoints order by id desc limit 1")
        return note and sum(int(line.split()[2]) for line in note[0][0].splitlines()[2:]) == 3 * 340 and note[0][0]
    look_again(app)
    note = wait_for(look, 60, "a checkpoint of all leaves")
    daemon.wait_log(rf"audit log: checkpoint of 1020 leaves, SHA-256 {sha256(note.encode()).hex()}")
    return note


def test_the_journal_tells_a_checkpoint_whose_end_it_did_not_see(audited, institutions):
    """It is written; then old ones cannot be thinned out, or the answer is lost."""
    app, daemon = audited
    newest = "select note from {s}.audit_checkpoints where created_at > now() - interval '1 hour' order by id desc limit 1"
    former = wait_for_checkpoint(app, daemon)
    app.query("create table public.kept (checkpoint bigint references {s}.audit_checkpoints); "
              "with old as (insert into {s}.audit_checkpoints (note, created_at, published_at) "
              "select 'old', date_trunc('hour', now()) - n * interval '1 minute' - interval '3 hours', now() "
              "from generate_series(1, 2) n returning id) insert into public.kept select id from old")
    app.subscriptions(app.integration(institutions.url("/good/more")), 10)
    wait_for_leaves(app, 3 * 350)
    look_again(app)
    note = wait_for(lambda: (found := app.value(newest)) != former and found, 60, "another checkpoint")
    daemon.wait_log(rf"audit log: checkpoint of 1050 leaves, SHA-256 {sha256(note.encode()).hex()}", 60)


def test_what_the_log_lacks_is_not_proven(audited, ctl, institutions):
    """The group is off, or leaves and marks are gone where Kafka has the events: not yet, by each proof; and then it is."""
    app, daemon = audited
    wait_for_checkpoint(app, daemon)
    daemon.term()
    proofs = (("verify",), ("verify", "--audit"), ("verify", "--audit", "--full"))
    daemon.write(consumers={"monitoring": False})
    daemon.start()
    app.subscriptions(app.integration(institutions.url("/good")), 10)
    wait_for(lambda: app.value("select sum(sent) from {s}.integration_runtime") == 310, 60, "the counters")
    for proof in proofs:
        found = ctl(*proof, "--json", at_once=True).expect(2).json
        assert (found["verdict"], found["unlogged"]) == ("behind", 30), found
    assert "30 published events have not come into the audit log" in ctl("verify", "--audit", at_once=True).expect(2).stdout
    daemon.term()
    daemon.write(consumers={"monitoring": True})
    daemon.start()
    wait_for_leaves(app, 1050)
    for proof in proofs:
        ctl(*proof).expect(0)
    ctl("verify", "--wait").expect(0)
    for sequence, kind in app.query("delete from {s}.audit_log where tree = (" + SENT + ") returning sequence, event_type"):
        app.query("update {s}.consumer_bitmaps set bits = set_bit(bits, mod(%s, 8192), 0) "
                  "where read_model = 'monitoring' and event_type = %s and chunk = %s / 8192", (sequence, kind, sequence))
    make_anew(app)
    for proof in proofs:
        assert ctl(*proof, "--json", at_once=True).expect(2).json["unlogged"] > 50


@pytest.mark.parametrize("what", ["all", "one tree", "the end", "some"])
def test_leaves_that_are_lost_come_again_by_a_replay(audited, ctl, what):
    """The log's tables come from another time than its marks: what Kafka has is added again, and the proof is clean."""
    app, daemon = audited
    wait_for_checkpoint(app, daemon)
    where = {"all": "true", "one tree": "tree = (" + SENT + ")", "the end": "leaf > 50",
             "some": "tree = (" + SENT + ") and leaf >= 20"}[what]
    app.query(f"delete from {{s}}.audit_log where {where}")
    make_anew(app)
    lost = 1020 - app.value("select count(*) from {s}.audit_log")
    assert lost > 50
    assert ctl("replay", "--group", "monitoring", "--dry-run", "--json").expect(0).json["leaves"] == lost
    assert ctl("replay", "--group", "monitoring", "--json").expect(0).json["leaves"] == lost
    wait_for_leaves(app, 1020)
    proof = ("verify", "--audit", "--full")
    wait_for(lambda: ctl(*proof).code == 0, 60, lambda: ctl(*proof).stdout, interval=1)
    assert app.value("select count(distinct sequence) from {s}.audit_log") == 1020
    ctl("verify", "--wait").expect(0)
    assert ctl("replay", "--group", "monitoring", "--json").expect(0).json["leaves"] == 0


def test_proof_and_what_begins_at_the_last_one(audited, ctl):
    app, daemon = audited
    wait_for_checkpoint(app, daemon)
    first = ctl("verify", "--audit", "--json").expect(0).json
    assert (first["verdict"], first["leaves"], first["differences"]) == ("proven", 1020, [])
    assert ctl("verify", "--audit", "--json").expect(0).json["leaves"] == 0
    saved = save(app)
    app.subscriptions(1, 10)
    wait_for_leaves(app, 1050)
    assert ctl("verify", "--audit", "--json").expect(0).json["leaves"] == 30
    assert ctl("verify", "--audit", "--full", "--json").expect(0).json["leaves"] == 1050
    assert "proven: the audit log" in ctl("verify", "--audit").expect(0).stdout
    # As if the new ones had never come.
    assert daemon.term() == 0
    restore(app, saved)
    cut_off = ctl("verify", "--audit").expect(1).stdout
    assert cut_off.count("was handled, and has no leaf: it was taken out") == 20 and "WRONG: 30 differences" in cut_off


def checker(tmp_path):
    """The lines of the manual that check a proof, in a file."""
    manual = (ROOT / "man/anubisctl.8").read_text(encoding="utf-8")
    lines = manual.split("is the\nargument:\n.Bd -literal -offset indent\n")[1].split(".Ed\n")[0]
    assert len([line for line in lines.splitlines() if line]) <= 30 and "\\" not in lines
    path = tmp_path / "check.py"
    path.write_text(lines, encoding="utf-8")

    def proves(proof, *note):
        result = subprocess.run([sys.executable, path, *note], input=json.dumps(proof), text=True, capture_output=True,
                                check=False)
        assert result.stderr in ("", "this proves nothing\n")
        return result.returncode == 0
    return proves


def test_proof_of_one_event_for_others(audited, ctl, tmp_path):
    """Anybody can check it with the lines of the manual, against a checkpoint that was kept elsewhere, too; and no other
    event has this proof. What has no proof says why."""
    app, daemon = audited
    wait_for_checkpoint(app, daemon)
    assert daemon.term() == 0
    proves = checker(tmp_path)
    head = ctl("audit", "head", "--json").expect(0).json
    assert (head["leaves"], [t["in_checkpoint"] for t in head["trees"]]) == (1020, [t["size"] for t in head["trees"]])
    kept = tmp_path / "note"
    kept.write_text(head["note"], encoding="utf-8")
    chosen = app.query("select sequence from {s}.audit_log l where leaf = 7 or leaf = (select max(leaf) from "
                       "{s}.audit_log m where m.tree = l.tree) order by 1")
    proofs = [ctl("audit", "prove", event, "--json").expect(0).json for event, in chosen]
    for proof in proofs:
        assert proves(proof) and proves(proof, kept) and len(proof["path"]) * 32 < 1024
        assert proof["entry"].splitlines()[5:7] == [str(proof["event"]), proof["event_id"]]
        assert ctl("audit", "prove", proof["event_id"].upper(), "--json").expect(0).json == proof
    for proof in proofs[-3:]:
        path = ["0" * 64, *proof["path"][1:]] if proof["path"] else ["0" * 64]
        entry = re.sub("\n(sent|failed|updated|created)\n", "\nretried\n", proof["entry"])
        note = head["note"].replace(f"{proof['topic']} {proof['partition']} ", f"{proof['topic']} 99 ")
        for false in ({"leaf": proof["leaf"] + 1}, {"path": path}, {"path": proof["path"] + ["0" * 64]}, {"entry": entry},
                      {"size": proof["size"] + 1}, {"note": note}):
            assert not proves(proof | false), (proof, false)
    assert "proven: the checkpoint has this event" in ctl("audit", "prove", chosen[0][0]).expect(0).stdout
    event = proofs[-1]["event"]
    prove_what_cannot_be_proven(app, ctl, event, proofs[-1])


def prove_what_cannot_be_proven(app, ctl, event, proof):
    # The ledger's number in the event_id of another installation.
    other = ("f" if proof["event_id"][0] == "0" else "0") + proof["event_id"][1:]
    for unknown in (999999, other):
        assert ctl("audit", "prove", unknown, "--json").expect(1).json["verdict"] == "unknown"
    app.subscriptions(1, 1)
    waiting = ctl("audit", "prove", app.value("select max(id) from {s}.subscription_events"), "--json").expect(2).json
    assert (waiting["verdict"], "come back from Kafka" in waiting["why"]) == ("not yet", True)
    app.query("select {s}.salts_erase(array_agg(subscription_id)) from {s}.audit_log where sequence = %s", (event,))
    erased = ctl("audit", "prove", event).expect(0).stdout
    assert "erased: the salt is gone" in erased and "proven" in erased
    assert ctl("audit", "prove", event, "--json").expect(0).json == proof | {"salt": None}
    app.query("update {s}.audit_log set hash = sha256(hash) where tree = (select tree from {s}.audit_log where sequence = %s) "
              "and leaf <> (select leaf from {s}.audit_log where sequence = %s)", (event, event))
    assert "WRONG: the leaf does not lead" in ctl("audit", "prove", event).expect(1).stdout
    app.query("delete from {s}.audit_checkpoints")
    assert "not yet: the last checkpoint does not have it" in ctl("audit", "prove", event).expect(2).stdout
    assert ctl("audit", "head", "--json").expect(0).json["checkpoint"] is None
    ctl("audit", "head").expect(0)


def test_why_an_event_has_no_proof(audited, institutions, ctl):
    """Its message was put aside, or that was discarded, or its leaf is gone."""
    app, daemon = audited
    last = app.value("select max(id) from {s}.subscriptions")
    app.query(f"alter table {{s}}.audit_log add constraint rule check (subscription_id <> {last + 1})")
    app.subscriptions(1, 1)
    wait_for(lambda: app.value("select count(*) from {s}.dead_letters where read_model = 'monitoring'") == 3, 60, "dead letters")
    letters = app.query("select l.event, l.letter from {s}.dead_letters d, {s}.ledger_letters(0, 9223372036854775807) l "
                        "where l.letter = d.id and d.read_model = 'monitoring' order by 1")
    (event, letter), (other, discarded), _ = letters
    answer = ctl("audit", "prove", event, "--json").expect(2).json
    assert answer["verdict"] == "not yet" and f"its message is dead letter {letter};" in answer["why"]
    ctl("dead-letters", "discard", discarded, "--reason", "a test").expect(0)
    answer = ctl("audit", "prove", other, "--json").expect(1).json
    assert answer["verdict"] == "discarded" and f"its message is dead letter {discarded}, which was discarded" in answer["why"]
    app.query("alter table {s}.audit_log drop constraint rule")
    ctl("dead-letters", "replay", letter).expect(0)
    assert ctl("audit", "prove", event, "--json").json["verdict"] in ("not yet", "proven")
    wait_for(lambda: ctl("audit", "prove", event).code == 0, 90, "a checkpoint with its leaf")
    assert daemon.term() == 0
    app.query("delete from {s}.audit_log where sequence = %s", (event,))
    answer = ctl("audit", "prove", event, "--json").expect(1).json
    assert answer["verdict"] == "wrong" and "its leaf is gone" in answer["why"]


SET = "update {s}.audit_log set "
SEVENTH = " where tree = (" + SENT + ") and leaf = 7"
TAMPERINGS = {
    "subscription": (SET + "subscription_id = subscription_id + 1" + SEVENTH, "leaf 7 .* was changed"),
    "time": (SET + "created_at = created_at + interval '1 us'" + SEVENTH, "leaf 7 .* was changed"),
    "offset": (SET + '"offset" = "offset" + 1' + SEVENTH, "leaf 7 .* was changed"),
    "commitment": (SET + "commitment = sha256(commitment)" + SEVENTH, "leaf 7 .* was changed"),
    "hash": (SET + "hash = sha256(hash)" + SEVENTH, "leaf 7 .* was changed"),
    "removed": ("delete from {s}.audit_log where tree = (" + SENT + ") and leaf between 7 and 8", "leaves 7 to 8 are missing"),
    "cut off": ("delete from {s}.audit_log where tree = (" + SENT + ") and leaf > 20", "leaves 21 to [0-9]+ are missing"),
    "cut off with its tree": (
        "delete from {s}.audit_log where tree = (" + SENT + ") and leaf >= 64; update {s}.audit_trees t set size = 64, "
        "roots = substr(roots, 1, 32) where id = (" + SENT + ")", "it has 64 leaves, checkpoint [0-9]+ had [0-9]+ already"),
    "put in": ("insert into {s}.audit_log select tree, leaf + 10000, \"offset\", sequence, event_id, event_type, "
               "subscription_id, integration_id, created_at, commitment, hash from {s}.audit_log" + SEVENTH,
               "leaf 10007 .* was put in behind its"),
    "moved": (SET + "leaf = -leaf where tree = (" + SENT + ") and leaf in (7, 9); " +
              SET + "leaf = case leaf when -7 then 9 else 7 end where tree = (" + SENT + ") and leaf < 0",
              "leaf 8 .* lies before the leaf before it"),
    "tree gone": ("delete from {s}.audit_log where tree = (" + SENT + "); delete from {s}.audit_trees where topic like '%%.sent' "
                  "and partition = 0", "the tree is gone"),
    "roots": ("update {s}.audit_trees set roots = set_byte(roots, 40, get_byte(roots, 40) # 1) "
              "where id = (" + SENT + ")", "its roots are not those of its leaves"),
    "note": ("update {s}.audit_checkpoints set note = replace(note, 'sent 0', 'sent 9')", "sent/9: the tree is gone"),
    "ledger": ("set session_replication_role = replica; update {s}.subscription_events set integration_id = 2 where id = "
               "(select sequence from {s}.audit_log where tree = (" + SENT + ") and leaf = 7)",
               "leaf 7: it is not as the ledger has event"),
}


def test_what_was_tampered_with_is_named(audited, ctl):
    """Everything that one can do to a row or a tree."""
    app, daemon = audited
    wait_for_checkpoint(app, daemon)
    ctl("verify", "--audit").expect(0)
    for name, (statement, words) in TAMPERINGS.items():
        saved = save(app)
        try:
            app.query(statement)
            result = ctl("verify", "--audit", "--full", "--json").expect(1).json
            text = "\n".join(result["differences"])
            assert result["verdict"] == "wrong" and re.search(words, text), f"{name}: {text}"
            assert len(result["differences"]) <= 25, f"{name}: {text}"
        finally:
            restore(app, saved)
    ctl("verify", "--audit", "--full").expect(0)


RENUMBER = "; update {s}.audit_log l set leaf = -n from (select ctid, row_number() over (partition by tree order by leaf) as n " \
           "from {s}.audit_log) r where r.ctid = l.ctid; update {s}.audit_log set leaf = -leaf - 1"
TAIL = ("delete from {s}.audit_log where tree = (" + SENT + ") and leaf >= (select size - 5 from {s}.audit_trees t "
        "where t.id = tree)")
REWRITTEN = {
    "cut off": (TAIL, [r"event [0-9]+ \(sent\) was handled, and has no leaf"] * 5),
    "taken out": ("delete from {s}.audit_log" + SEVENTH + RENUMBER, [r"event [0-9]+ \(sent\) was handled, and has no leaf"]),
    "put in": ("insert into {s}.audit_log select tree, 999, \"offset\" + 999, sequence, event_id, event_type, subscription_id, "
               "integration_id, created_at, commitment, hash from {s}.audit_log" + SEVENTH + RENUMBER,
               [r"sent/0: leaf [0-9]+ holds event [0-9]+ once more"]),
    "another": ("update {s}.audit_log a set (sequence, event_id, event_type, subscription_id, integration_id, created_at) = "
                "(select sequence, event_id, event_type, subscription_id, integration_id, created_at from {s}.audit_log b "
                "where b.tree = a.tree and b.leaf = 9)" + SEVENTH,
                [r"event [0-9]+ \(sent\) was handled, and has no leaf", r"sent/0: leaf [79] holds event [0-9]+ once more"]),
    "emptied": ("delete from {s}.audit_log", [r"event [0-9]+ \([a-z]+\) was handled, and has no leaf"] * 20),
}


def make_anew(app):
    """What whoever may write to all tables can do: hashes, tiles, roots and the checkpoint fit what the rows say now."""
    installation = app.value("select namespace::text from {s}.installation")
    app.query("delete from {s}.audit_tiles; delete from {s}.audit_trees t "
              "where not exists (select from {s}.audit_log l where l.tree = t.id)")
    note = [app.value("select split_part(note, E'\\n', 1) from {s}.audit_checkpoints limit 1"), installation]
    for tree in rows(app, "select id, topic, partition, size, roots from {s}.audit_trees order by topic, partition"):
        found = rows(app, COLUMNS + " from {s}.audit_log where tree = %s order by leaf", (tree["id"],))
        hashes = [sha256(b"\x00", entry(installation, tree, r)) for r in found]
        app.query("update {s}.audit_log l set hash = h.hash from unnest(%s::bigint[], %s::bytea[]) h (leaf, hash) "
                  "where l.tree = %s and l.leaf = h.leaf", ([r["leaf"] for r in found], hashes, tree["id"]))
        roots, at = [], 0
        for size in (1 << n for n in range(20, -1, -1) if len(hashes) >> n & 1):
            roots.append(root(hashes[at:at + size]))
            at += size
        app.query("update {s}.audit_trees set size = %s, roots = %s where id = %s", (len(hashes), b"".join(roots), tree["id"]))
        assert len(hashes) < 256  # without tiles
        note.append(f"{tree['topic']} {tree['partition']} {len(hashes)} {root(hashes).hex()}")
    app.query("delete from {s}.audit_checkpoints; delete from {s}.audit_checks")
    if len(note) > 2:
        app.query("insert into {s}.audit_checkpoints (note) values (%s)", ("\n".join(note) + "\n",))


def test_a_log_that_was_made_anew_is_found_by_the_marks(audited, ctl):
    """All its hashes are right: what it lacks, or has twice, shows beside what the group has handled."""
    app, daemon = audited
    wait_for_checkpoint(app, daemon)
    assert daemon.term() == 0
    make_anew(app)
    ctl("verify", "--audit").expect(0)
    for name, (statement, words) in REWRITTEN.items():
        saved = save(app)
        try:
            app.query(statement)
            make_anew(app)
            found = ctl("verify", "--audit", "--full", "--json").expect(1).json["differences"]
            assert len(found) == len(words) and all(re.search(w, d) for w, d in zip(words, found)), f"{name}: {found}"
        finally:
            restore(app, saved)


def digest_line(leaves, note):
    return f"audit log: checkpoint of {leaves} leaves, SHA-256 {sha256(note.encode()).hex()}\n"


def forget(app, where):
    """Leaves of these events are taken out of the log, out of the marks and out of the ledger."""
    events = app.query("delete from {s}.audit_log " + where + " returning sequence, event_type")
    for sequence, kind in events:
        app.query("update {s}.consumer_bitmaps set bits = set_bit(bits, mod(%s, 8192), 0) "
                  "where read_model = 'monitoring' and event_type = %s and chunk = %s / 8192", (sequence, kind, sequence))
    app.query("set session_replication_role = replica; delete from {s}.subscription_events where id = any (%s)",
              ([sequence for sequence, _ in events],))


LEAF_OF_THE_LEDGER = ("set session_replication_role = replica; update {s}.subscription_events set integration_id = 2 where id = "
                      "(select sequence from {s}.audit_log" + SEVENTH + "); ")
MADE_ANEW = {
    "an event": (lambda app: app.query(LEAF_OF_THE_LEDGER + SET + "integration_id = 2" + SEVENTH),
                 "sent/0: {name} had another root at"),
    "the end of a tree": (lambda app: forget(app, TAIL.partition("audit_log ")[2]), "sent/0: it has .* leaves, {name} had"),
    "all of a tree": (lambda app: forget(app, "where tree = (" + SENT + ")"), "sent/0: the tree is gone; {name} has it with"),
}


def test_a_database_that_was_made_anew(audited, ctl, broker, tmp_path):
    """Log, marks, ledger and checkpoints: all fits. Only what was kept elsewhere tells, in each of its forms."""
    app, daemon = audited
    note = wait_for_checkpoint(app, daemon)
    wait_for(lambda: app.value("select count(*) from {s}.audit_checkpoints where published_at is null") == 0, 60, "the topic")
    assert daemon.term() == 0
    said = [line for line in daemon.log.splitlines() if "checkpoint of 1020 leaves" in line][-1]
    anchors = {"topic": "".join(json.dumps({"topic": "anubis.audit", "payload": bytes(m.value).decode()}) + "\n"
                                for m in broker.read_all("anubis.audit")),
               "head": ctl("audit", "head", "--json").expect(0).stdout, "note": note, "journal": said + "\n"}
    for name, text in anchors.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        right = ctl("verify", "--audit", "--anchor", tmp_path / name, "--json").expect(0).json
        assert (right["verdict"], right["leaves"], right["anchored_leaves"], right["anchors_gone"]) == ("proven", 1020, 1020, 0)
    for what, (change, words) in MADE_ANEW.items():
        change(app)
        make_anew(app)
        assert ctl("verify", "--audit", "--full", "--json").expect(0).json["verdict"] == "proven", what
        for name in anchors:
            wrong = ctl("verify", "--audit", "--anchor", tmp_path / name, "--json").expect(1).json
            expected = words.replace("{name}", "the anchor in line [0-9]+") if name != "journal" else "leaves that is not in the"
            assert wrong["verdict"] == "wrong" and re.search(expected, "\n".join(wrong["differences"])), (what, name, wrong)


def test_anchors_that_tell_nothing(audited, ctl, tmp_path):
    """Of a checkpoint that was thinned out a digest tells nothing; the newest never is. Others' are none of ours."""
    app, daemon = audited
    note = wait_for_checkpoint(app, daemon)
    assert daemon.term() == 0
    file, other = tmp_path / "anchors", "7a1d2c3b-0000-8000-8000-000000000001"
    for text, code, words in (
            (digest_line(5, "gone") + digest_line(1020, note), 2, "not proven: checkpoints of some anchors are no longer"),
            (digest_line(5000, "gone") + digest_line(1020, note), 1, "line 1 is of a checkpoint of 5000 leaves that is not in"),
            (note.replace(note.splitlines()[1], other), 1, "line 1 is a checkpoint of another installation"),
            (digest_line(1020, note), 0, "leaves that they prove +1020")):
        file.write_text(text, encoding="utf-8")
        assert re.search(words, ctl("verify", "--audit", "--anchor", file).expect(code).stdout), words
    # The installation itself was made anew.
    file.write_text(note, encoding="utf-8")
    app.query("update {s}.installation set namespace = %s; select {s}.ledger_name_events()", (other,))
    assert "another installation than this one, " + other in ctl("verify", "--audit", "--anchor", file).expect(1).stdout


def save(app):
    tables = ("audit_trees", "audit_log", "audit_tiles", "audit_checkpoints")
    for table in tables:
        app.query(f"create table {{s}}.saved_{table} as select * from {{s}}.{table}")
    app.query("create table {s}.saved_event as select id, integration_id from {s}.subscription_events")
    return tables


def restore(app, tables):
    for table in tables:
        app.query(f"delete from {{s}}.{table}; "
                  f"insert into {{s}}.{table} overriding system value select * from {{s}}.saved_{table}; "
                  f"drop table {{s}}.saved_{table}")
    app.query("set session_replication_role = replica; update {s}.subscription_events e set integration_id = v.integration_id "
              "from {s}.saved_event v where v.id = e.id and v.integration_id is distinct from e.integration_id; "
              "drop table {s}.saved_event")


def prove_now(app):
    """All of it; else the daemon proves once a minute, for which it looks every few seconds."""
    at = app.value("update {s}.audit_checks set checked_at = '-infinity', whole_at = null returning now()")
    look_again(app)
    wait_for(lambda: app.value("select checked_at > %s from {s}.audit_checks", (at,)), 60, "another proof")


def firing(app):
    return app.query("select value, message from {s}.alerts where kind = 'audit' and state = 'firing'")


def test_a_clock_that_was_ahead_keeps_the_daemon_from_no_proof(audited):
    app, _ = audited
    app.query("update {s}.audit_checks set checked_at = now() + interval '2 days', whole_at = now() + interval '2 days'")
    wait_for(lambda: app.value("select checked_at < now() and whole_at < now() from {s}.audit_checks"), 60, "another proof")


@pytest.mark.slow
def test_the_daemon_finds_it_and_tells(audited):
    """A leaf that was changed or taken out, an event, no checkpoint for long; and it is over when it was mended."""
    app, daemon = audited
    wait_for_checkpoint(app, daemon)
    prove_now(app)
    assert app.query("select differences, unsealed_since from {s}.audit_checks") == [(0, None)] and not firing(app)
    for name in ("subscription", "removed", "ledger"):
        saved = save(app)
        try:
            app.query(TAMPERINGS[name][0])
            prove_now(app)
            (value, message), = wait_for(lambda: firing(app), 30, f"the alert: {name}")
            assert value >= 1 and re.search(TAMPERINGS[name][1], message) and "verify --audit" in message, (name, message)
        finally:
            restore(app, saved)
        prove_now(app)
        wait_for(lambda: not firing(app), 30, f"the end of the alert: {name}")
    daemon.wait_log(r"alert \d+.*: audit: the audit log was changed", count=3)
    # Leaves that have had no checkpoint for long: a trigger keeps it away.
    app.query("create function {s}.refuse() returns trigger language plpgsql as $$ begin "
              "delete from {s}.audit_checkpoints where id = new.id; return null; end $$; "
              "create trigger refuse after insert on {s}.audit_checkpoints for each row execute function {s}.refuse()")
    app.subscriptions(1, 2)
    wait_for_leaves(app, 1026)
    prove_now(app)
    assert app.value("select unsealed_since > now() - interval '5 min' from {s}.audit_checks") and not firing(app)
    app.query("update {s}.audit_checks set unsealed_since = now() - interval '11 min'")
    assert "no checkpoint covers" in wait_for(lambda: firing(app), 30, "the alert of checkpoints")[0][1]
    app.query("drop trigger refuse on {s}.audit_checkpoints")
    look_again(app)
    wait_for(lambda: app.value("select not {s}.ledger_unsealed(9223372036854775807)"), 30, "the checkpoint")
    prove_now(app)
    wait_for(lambda: not firing(app), 30, "the end")
