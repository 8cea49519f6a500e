/* The proof of one tree. See audit_internal.h.
 *
 * Its rows are read in their order and appended to a tree of our own: what was changed, taken out, put in or
 * moved shows in the row itself, in a tile, in the roots or in a checkpoint. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "audit/audit_internal.h"
#include "sql/statements.h"

#define LEAVES_AT_ONCE 8192

/* The tree under way. */
struct walk {
    const struct proof_of_audit *proof;
    struct audit *audit;
    const struct audit_tree *tree;
    struct report *report;
    struct merkle_range range;
    struct pg_result *tiles; /* those that the leaves at hand fill */
    size_t promise;          /* the next one */
    uint64_t promised_size;  /* nothing is to be compared before */
    int64_t offset;          /* of the leaf before, -1 = none */
    struct {
        int64_t leaf, sequence; /* the first that lies before the leaf before it; sequence 0 = none */
    } moved;
    struct strbuf scratch;
};

#define differs(w, kind, ...) report_add((w)->report, kind, &(w)->tree->state, __VA_ARGS__)

/* --- checkpoints ------------------------------------------------------------------------------ */

/* The next one that is of this tree, or NULL. */
static const struct promise *next_promise(const struct walk *w)
{
    if (w->promise == w->proof->promise_count)
        return NULL;
    const struct promise *promise = &w->proof->promises[w->promise];
    return promise->tree.partition == w->tree->state.partition &&
                   strcmp(promise->tree.topic, w->tree->state.topic) == 0
               ? promise
               : NULL;
}

/* An anchor tells of the leaves what a checkpoint of the same database does not. */
static enum audit_kind kind_of(const struct promise *promise)
{
    return promise->anchored ? AUDIT_ANCHORS : AUDIT_CHECKPOINTS;
}

/* The range has reached the size that the next checkpoints tell of, perhaps. */
static void keep_promises(struct walk *w)
{
    const struct promise *promise;

    if (w->range.size < w->promised_size)
        return;
    for (; (promise = next_promise(w)) && promise->tree.size <= w->range.size; w->promise++) {
        if (promise->tree.size < w->range.size)
            continue;
        struct merkle_hash root = merkle_root(w->audit->sha256, &w->range);
        if (memcmp(root.bytes, promise->tree.root.bytes, SHA256_BYTES) != 0)
            differs(w, kind_of(promise),
                    "%s had another root at %" PRIu64 " leaves: something before was changed", promise->name,
                    promise->tree.size);
    }
    w->promised_size = promise ? promise->tree.size : UINT64_MAX;
}

static void find_broken_promises(struct walk *w)
{
    const struct promise *promise;

    for (; (promise = next_promise(w)); w->promise++)
        differs(w, kind_of(promise), "it has %" PRIu64 " leaves, %s had %" PRIu64 " already: it was cut off",
                w->range.size, promise->name, promise->tree.size);
}

/* Where the tree was verified to before. The hashes that are stored must give the checkpoint's root. */
static int begin_at_verified(struct walk *w, struct audit_tree *tree)
{
    const struct promise *promises = w->proof->promises;

    while (w->promise < w->proof->promise_count && !next_promise(w))
        w->promise++;
    size_t first = w->promise;
    for (; next_promise(w); w->promise++)
        if (promises[w->promise].verified && promises[w->promise].tree.size <= tree->state.size)
            tree->from = promises[w->promise].tree.size;
    w->promise = first;
    int r = tree->from ? audit_root_at(w->audit, tree, tree->from, &w->range) : PG_DONE;
    if (r == PG_DONE && tree->from)
        keep_promises(w);
    return r;
}

/* --- leaves ----------------------------------------------------------------------------------- */

static const char *find_tile(const struct pg_result *tiles, unsigned level, uint64_t index)
{
    size_t len;

    for (int i = 0; i < pg_rows(tiles); i++)
        if (pg_get_i64(tiles, i, 0) == level && pg_get_i64(tiles, i, 1) == (int64_t) index) {
            const char *hash = pg_get_bytes(tiles, i, 2, &len);
            return len == SHA256_BYTES ? hash : NULL;
        }
    return NULL;
}

/* A tile is full: it must stand in the table. */
static void check_tile(void *userdata, unsigned level, uint64_t index, const struct merkle_hash *root)
{
    struct walk *w = userdata;

    if (level == 0 || level % TILE_LEVELS != 0)
        return;
    const char *stored = find_tile(w->tiles, level / TILE_LEVELS, index);
    if (!stored || memcmp(stored, root->bytes, SHA256_BYTES) != 0)
        differs(w, AUDIT_TILES, "leaves %" PRIu64 " to %" PRIu64 " do not give the hash of their tile, %s",
                index << level, ((index + 1) << level) - 1,
                stored ? "which was changed" : "which is missing");
}

/* Leaves between two that are there. */
static void say_missing(struct walk *w, int64_t number)
{
    uint64_t expected = w->range.size;

    if ((uint64_t) number == expected + 1)
        differs(w, AUDIT_LEAVES, "leaf %" PRIu64 " is missing", expected);
    else
        differs(w, AUDIT_LEAVES, "leaves %" PRIu64 " to %" PRId64 " are missing", expected, number - 1);
}

/* The order of audit_read_leaves. */
enum { COLUMN_EVENT_ID = 3, COLUMN_INTEGRATION = 6, COLUMN_CREATED_AT = 7, COLUMN_COMMITMENT = 8 };

static void count_event(struct walk *w, const struct pg_row *row, const struct audit_entry *e)
{
    struct audit_event event = {.sequence = e->sequence,
                                .subscription_id = e->subscription_id,
                                .integration_id = e->integration_id,
                                .has_integration = !pg_is_null(row->result, row->row, COLUMN_INTEGRATION),
                                .created_at = pg_get_i64(row->result, row->row, COLUMN_CREATED_AT),
                                .type = {e->event_type, strlen(e->event_type)}};

    event.event_id.p = pg_get_bytes(row->result, row->row, COLUMN_EVENT_ID, &event.event_id.len);
    if (e->sequence < w->proof->first_id)
        w->report->has_old = true;
    else if (!audit_event_count(&event, &w->proof->key, &w->report->events))
        w->report->is_strange = true;
}

/* Takes one row. False when the numbers do not go on: nothing after it can be judged by trees. */
static bool take_leaf(struct walk *w, struct pg_row *row)
{
    int64_t number = pg_next_i64(row);
    struct audit_entry e;
    size_t len;

    audit_entry_read(w->audit, w->tree, (uint64_t) number, row, &e);
    const char *stored = pg_next_bytes(row, &len);
    if ((uint64_t) number >= w->tree->state.size) {
        differs(w, AUDIT_STRAYS,
                "leaf %" PRId64 " (event %" PRId64 ") was put in behind its %" PRIu64 " leaves", number,
                e.sequence, w->tree->state.size);
        return true;
    }
    if ((uint64_t) number != w->range.size) {
        say_missing(w, number);
        return false;
    }
    if (w->proof->part_count)
        count_event(w, row, &e);
    struct merkle_hash hash = audit_leaf(w->audit->sha256, &e, &w->scratch);
    size_t committed;
    (void) pg_get_bytes(row->result, row->row, COLUMN_COMMITMENT, &committed);
    if (len != SHA256_BYTES || committed != SHA256_BYTES || memcmp(hash.bytes, stored, SHA256_BYTES) != 0)
        differs(w, AUDIT_LEAVES, "leaf %" PRId64 " (event %" PRId64 ") was changed", number, e.sequence);
    if (len == SHA256_BYTES)
        memcpy(hash.bytes, stored, SHA256_BYTES); /* so that one change does not make all tiles wrong */
    if (e.offset <= w->offset && !w->moved.sequence) {
        w->moved.leaf = number;
        w->moved.sequence = e.sequence;
    }
    w->offset = e.offset;
    merkle_append(w->audit->sha256, &w->range, &hash, check_tile, w);
    keep_promises(w);
    w->report->leaves++;
    return true;
}

static int read_rows(struct walk *w, const struct pg_statement *statement, int64_t from, int64_t limit,
                     struct pg_result **ret)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i32(&args, w->tree->id);
    pg_arg_i64(&args, from);
    pg_arg_i64(&args, limit);
    return pg_query(w->audit->pg, statement, &args, ret, &w->audit->err);
}

/* Some leaves from this one on, and the tiles that they fill. */
static int read_some(struct walk *w, int64_t from, struct pg_result **ret)
{
    pg_result_free(TAKE_PTR(w->tiles));
    int r = read_rows(w, &sql_audit_read_leaves, from, LEAVES_AT_ONCE, ret);
    if (r == PG_DONE)
        r = read_rows(w, &sql_audit_read_tiles, from, LEAVES_AT_ONCE, &w->tiles);
    return r;
}

static int read_leaves(struct walk *w)
{
    int64_t from = (int64_t) w->range.size;

    for (;;) {
        CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
        int r = read_some(w, from, &rows);
        if (r != PG_DONE)
            return r;
        for (int i = 0; i < pg_rows(rows); i++)
            if (!take_leaf(w, &(struct pg_row){rows, i, 0}))
                return PG_DONE;
        int64_t last = pg_rows(rows) ? pg_get_i64(rows, pg_rows(rows) - 1, 0) : 0;
        if (pg_rows(rows) < LEAVES_AT_ONCE || last == INT64_MAX)
            return PG_DONE;
        from = last + 1;
    }
}

/* Leaves are in the order of their handling. That is Kafka's, but for what was put aside, left out or
 * published anew: it tells of something wrong where the tree is wrong. */
static void say_moved(struct walk *w)
{
    if (w->moved.sequence && w->report->named > 0)
        differs(w, AUDIT_LEAVES,
                "leaf %" PRId64 " (event %" PRId64
                ") lies before the leaf before it in Kafka: they were moved",
                w->moved.leaf, w->moved.sequence);
}

static void judge_end(struct walk *w)
{
    const struct audit_tree *tree = w->tree;

    if (w->range.size < tree->state.size && w->report->named == 0)
        differs(w, AUDIT_LEAVES, "leaves %" PRIu64 " to %" PRIu64 " are missing", w->range.size,
                tree->state.size - 1);
    else if (w->range.size == tree->state.size &&
             (tree->is_broken ||
              memcmp(w->range.roots, tree->range.roots, w->range.count * SHA256_BYTES) != 0))
        differs(w, AUDIT_ROOTS, "its roots are not those of its leaves");
    find_broken_promises(w);
    say_moved(w);
}

int audit_prove_tree(const struct proof_of_audit *p, struct audit *a, struct audit_tree *tree,
                     struct report *report)
{
    struct walk w = {
        .proof = p, .audit = a, .tree = tree, .report = report, .offset = -1, .scratch = STRBUF_INIT(4096)};

    int r = begin_at_verified(&w, tree);
    if (r == PG_DONE)
        r = read_leaves(&w);
    if (r == PG_DONE)
        judge_end(&w);
    pg_result_free(w.tiles);
    strbuf_free(&w.scratch);
    return r;
}
