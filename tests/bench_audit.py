"""The benchmark's case of the audit log: how fast a thread makes leaves, and how long a proof of all or of the newest takes."""
import datetime
import hashlib
import io
import subprocess
import time

from bench_measure import Row
from harness.anubis import Ctl, program

PARTITIONS = 3
BATCH = 5000           # events that a consumer writes at once, by trees
LEAVES = 100000        # a second, of one thread
DAY = 100000           # leaves, at most, that are newer than what was verified: a tenth of a smaller log
FULL_GOAL = 1e-6       # s a leaf: ten million in ten
NEWEST_GOAL = 1        # s
COPY = ("copy anubis.audit_log (tree, leaf, \"offset\", sequence, event_id, event_type, subscription_id, integration_id, "
        "created_at, commitment, hash) from stdin")


def sha256(data):
    return hashlib.sha256(data).digest()


class Tree:
    """As RFC 9162 has it; what a consumer writes of it."""

    def __init__(self, number, partition):
        self.number, self.partition = number, partition
        self.size, self.roots, self.tiles, self.marks = 0, [], [], {}

    def append(self, node):
        index, level = self.size, 0
        while index & 1:
            node, index, level = sha256(b"\x01" + self.roots.pop() + node), index >> 1, level + 1
            if level % 8 == 0:
                self.tiles.append((self.number, level // 8, index, "\\x" + node.hex()))
        self.roots.append(node)
        self.size += 1

    def mark(self, kind, sequence):
        """As the group notes that it has handled an event."""
        bits = self.marks.setdefault((kind, sequence // 8192), bytearray(1024))
        bits[sequence % 8192 // 8] |= 1 << sequence % 8

    def root(self):
        root = self.roots[-1]
        for left in reversed(self.roots[:-1]):
            root = sha256(b"\x01" + left + root)
        return root.hex()


def rows_of(trees, events, installation, topic):
    """Lines for COPY; the trees grow with them."""
    for sequence, event_id, kind, subscription, integration, at in events:
        tree = trees[sequence % PARTITIONS]
        time_text = at.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        commitment = sha256(b"%d" % sequence).hex()
        entry = (f"anubisd audit leaf 1\n{installation}\n{topic}\n{tree.partition}\n{tree.size}\n{sequence}\n{event_id}\n"
                 f"{kind}\n{subscription}\n{integration}\n{time_text}\n{commitment}\n")
        leaf = sha256(b"\x00" + entry.encode())
        yield (f"{tree.number}\t{tree.size}\t{tree.size}\t{sequence}\t{event_id}\t{kind}\t{subscription}\t{integration}\t"
               f"{time_text}\t\\\\x{commitment}\t\\\\x{leaf.hex()}\n")
        tree.append(leaf)
        tree.mark(kind, sequence)


def write(app, cursor, trees, least, most):
    """The log of these events, and a checkpoint of all trees."""
    installation, topic = app.value("select namespace::text from {s}.installation"), "bench.subscriptions.created"
    cursor.execute("select id, event_id, event_type, subscription_id, integration_id, created_at from anubis.subscription_events "
                   "where id > %s and id <= %s order by id", (least, most))
    events = cursor.fetchall()
    for n in range(0, len(events), BATCH):
        batch = sorted(events[n:n + BATCH], key=lambda event: (event[0] % PARTITIONS, event[0]))
        cursor.copy_expert(COPY, io.StringIO("".join(rows_of(trees, batch, installation, topic))))
    for tree in trees:
        cursor.executemany("insert into anubis.audit_tiles values (%s, %s, %s, %s::bytea)", tree.tiles)
        cursor.executemany("insert into anubis.consumer_bitmaps (read_model, event_type, partition, chunk, bits) values "
                           "('monitoring', %s, %s, %s, %s) on conflict (read_model, event_type, partition, chunk) "
                           "do update set bits = excluded.bits",
                           [(kind, tree.partition, chunk, bytes(bits)) for (kind, chunk), bits in tree.marks.items()])
        tree.tiles, tree.marks = [], {key: bits for key, bits in tree.marks.items() if key[1] == max(k[1] for k in tree.marks)}
        cursor.execute("update anubis.audit_trees set size = %s, roots = %s where id = %s",
                       (tree.size, b"".join(tree.roots), tree.number))
    note = "".join(f"{topic} {t.partition} {t.size} {t.root()}\n" for t in trees)
    cursor.execute("insert into anubis.audit_checkpoints (note) values (%s)",
                   (f"anubisd audit checkpoint 1\n{installation}\n{note}",))


def seconds_of(ctl, *words, leaves):
    started = time.monotonic()
    result = ctl("verify", "--audit", *words, "--json").expect(0).json
    took = time.monotonic() - started
    assert (result["verdict"], result["leaves"]) == ("proven", leaves), result
    return took


def audit(bench, rows, turns):
    app, _ = bench.fresh()
    bench.fill(app, rows)
    least, most = app.query("select min(id) - 1, max(id) from {s}.subscription_events")[0]
    app.query("insert into {s}.audit_trees (topic, partition) "
              "select 'bench.subscriptions.created', n from generate_series(0, %s) n", (PARTITIONS - 1,))
    trees = [Tree(number, n) for n, (number,) in enumerate(app.query("select id from {s}.audit_trees order by partition"))]
    ctl, newest = Ctl(database=app.database), min(rows // 10, DAY)
    connection = app.database.connect()
    with connection.cursor() as cursor:
        write(app, cursor, trees, least, most - newest)
        app.query("vacuum analyze {s}.audit_log")
        first = seconds_of(ctl, leaves=rows - newest)
        write(app, cursor, trees, most - newest, most)
    connection.close()
    new = seconds_of(ctl, leaves=newest)
    full = [seconds_of(ctl, "--full", leaves=rows) for _ in range(turns)]
    made = [float(subprocess.run([program("tools/audit_leaves"), str(rows)], capture_output=True, text=True, check=True).stdout)
            for _ in range(turns)]
    app.database.drop()
    return {"leaves": rows, "first proof, s": round(first, 2),
            "table": [Row.of_turns("leaves a second that a thread makes", made, goals=[("first", -LEAVES)]),
                      Row(f"s to prove the newest {newest:,} leaves", new, goals=[("first", NEWEST_GOAL)]),
                      Row.of_turns(f"s to prove all {rows:,} leaves", full, goals=[("first", FULL_GOAL * rows)])]}
