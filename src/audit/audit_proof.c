/* The proof of the audit log. See audit_proof.h.
 *
 * A tree's rows are read in their order and appended to a tree of our own: what was changed, taken out, put
 * in or moved shows in the row itself, in a tile, in the roots or in a checkpoint. */
#include "audit/audit_proof.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/timeutil.h"
#include "crypto/note_key.h"
#include "sql/statements.h"

#define ROWS_AT_ONCE 20000
#define TILE_LEVELS 8
#define NAMED_MAX 20 /* differences of a tree */

/* A root that a checkpoint tells. */
struct promise {
    int64_t checkpoint;
    bool verified;
    struct audit_tree_state tree;
};

struct proof_of_audit {
    struct audit *audit;
    struct audit_result *result;
    struct promise *promises; /* sorted by tree and size */
    size_t promise_count;
    int64_t since; /* see audit_prove() */
    /* Of the tree under way. */
    const struct audit_tree *tree;
    struct merkle_range range;
    size_t promise; /* the next one */
    int64_t offset; /* of the leaf before, -1 = none */
    struct {
        int64_t leaf, sequence; /* the first that lies before the leaf before it; sequence 0 = none */
    } moved;
    size_t named;
    struct strbuf scratch;
};

/* --- differences ------------------------------------------------------------------------------ */

static void differs(struct proof_of_audit *p, const char *fmt, ...) PRINTF(2, 3);
static void differs(struct proof_of_audit *p, const char *fmt, ...)
{
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(4096);
    va_list args;

    if (p->named++ >= NAMED_MAX) {
        p->result->unnamed++;
        return;
    }
    va_start(args, fmt);
    strbuf_addv(&text, fmt, args);
    va_end(args);
    sentences_add(&p->result->differences, "audit log, %s/%" PRId32 ": %s", p->tree->state.topic,
                  p->tree->state.partition, strbuf_str(&text));
}

/* --- checkpoints ------------------------------------------------------------------------------ */

static int by_tree_and_size(const void *a, const void *b)
{
    const struct promise *x = a, *y = b;
    int order = strcmp(x->tree.topic, y->tree.topic);

    if (order == 0)
        order = (x->tree.partition > y->tree.partition) - (x->tree.partition < y->tree.partition);
    if (order == 0)
        order = (x->tree.size > y->tree.size) - (x->tree.size < y->tree.size);
    return order ? order : (x->checkpoint > y->checkpoint) - (x->checkpoint < y->checkpoint);
}

static void add_promises(struct proof_of_audit *p, const struct promise *checkpoint,
                         const struct audit_tree_state *trees, size_t count)
{
    p->promises = xreallocarray(p->promises, p->promise_count + count + 1, sizeof(*p->promises));
    for (size_t i = 0; i < count; i++) {
        struct promise *promise = &p->promises[p->promise_count++];
        *promise = *checkpoint;
        promise->tree = trees[i];
    }
}

/* One without a signature is counted, no more: the installation may have had no key. */
static void check_signature(struct proof_of_audit *p, int64_t checkpoint, const struct pg_result *rows, int i)
{
    CLEANUP(freep) char *name = audit_note_signer(p->audit->installation);

    if (pg_is_null(rows, i, 2))
        p->result->unsigned_checkpoints++;
    else if (!note_is_signed(pg_get_text(rows, i, 1), name, pg_get_text(rows, i, 2)))
        sentences_add(&p->result->differences,
                      "audit log: checkpoint %" PRId64 " is not signed by the key that it names", checkpoint);
}

static int read_checkpoints(struct proof_of_audit *p)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    pg_arg_i64(&args, p->since);
    int r = pg_query(p->audit->pg, &sql_audit_checkpoints, &args, &rows, &p->audit->err);
    for (int i = 0; r == PG_DONE && i < pg_rows(rows); i++) {
        CLEANUP(freep) struct audit_tree_state *trees = NULL;
        struct promise checkpoint = {.checkpoint = pg_get_i64(rows, i, 0),
                                     .verified = pg_get_i64(rows, i, 0) <= p->since};
        size_t count = 0;
        p->result->checkpoints++;
        check_signature(p, checkpoint.checkpoint, rows, i);
        p->result->last_checkpoint = checkpoint.checkpoint;
        if (audit_note_read(pg_get_text(rows, i, 1), p->audit->installation, &trees, &count) < 0)
            sentences_add(&p->result->differences,
                          "audit log: checkpoint %" PRId64 " is no note of this installation",
                          checkpoint.checkpoint);
        add_promises(p, &checkpoint, trees, count);
    }
    if (r == PG_DONE && p->promise_count)
        qsort(p->promises, p->promise_count, sizeof(*p->promises), by_tree_and_size);
    return r;
}

/* Trees that a checkpoint has, and the database has not. */
static void find_lost_trees(struct proof_of_audit *p)
{
    for (size_t i = 0; i < p->promise_count; i++) {
        const struct promise *promise = &p->promises[i];
        if (!audit_find(p->audit, promise->tree.topic, promise->tree.partition))
            sentences_add(&p->result->differences,
                          "audit log, %s/%" PRId32 ": the tree is gone; checkpoint %" PRId64
                          " has it with %" PRIu64 " leaves",
                          promise->tree.topic, promise->tree.partition, promise->checkpoint,
                          promise->tree.size);
    }
}

static bool is_of_tree(const struct proof_of_audit *p, const struct promise *promise)
{
    return promise->tree.partition == p->tree->state.partition &&
           strcmp(promise->tree.topic, p->tree->state.topic) == 0;
}

/* The range has reached the size that the next checkpoints tell of, perhaps. */
static void keep_promises(struct proof_of_audit *p)
{
    for (; p->promise < p->promise_count; p->promise++) {
        const struct promise *promise = &p->promises[p->promise];
        if (!is_of_tree(p, promise) || promise->tree.size > p->range.size)
            return;
        struct merkle_hash root = merkle_root(p->audit->sha256, &p->range);
        if (promise->tree.size == p->range.size &&
            memcmp(root.bytes, promise->tree.root.bytes, SHA256_BYTES) != 0)
            differs(p,
                    "checkpoint %" PRId64 " had another root at %" PRIu64
                    " leaves: something before was changed",
                    promise->checkpoint, promise->tree.size);
    }
}

static void find_broken_promises(struct proof_of_audit *p)
{
    for (; p->promise < p->promise_count && is_of_tree(p, &p->promises[p->promise]); p->promise++)
        differs(p,
                "it has %" PRIu64 " leaves, checkpoint %" PRId64 " had %" PRIu64 " already: it was cut off",
                p->range.size, p->promises[p->promise].checkpoint, p->promises[p->promise].tree.size);
}

/* --- leaves ----------------------------------------------------------------------------------- */

/* A tile is full: it must stand in the table. */
static void check_tile(void *userdata, unsigned level, uint64_t index, const struct merkle_hash *root)
{
    struct proof_of_audit *p = userdata;
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    size_t len = 0;

    if (level == 0 || level % TILE_LEVELS != 0 || p->audit->err.text[0])
        return;
    pg_arg_i32(&args, p->tree->id);
    pg_arg_i32(&args, (int32_t) (level / TILE_LEVELS));
    pg_arg_i64(&args, (int64_t) index);
    pg_arg_i64(&args, 1);
    if (pg_query(p->audit->pg, &sql_audit_read_hashes, &args, &rows, &p->audit->err) != PG_DONE)
        return;
    const char *stored = pg_rows(rows) ? pg_get_bytes(rows, 0, 0, &len) : NULL;
    if (len != SHA256_BYTES || memcmp(stored, root->bytes, SHA256_BYTES) != 0)
        differs(p, "leaves %" PRIu64 " to %" PRIu64 " do not give the hash of their tile", index << level,
                ((index + 1) << level) - 1);
}

/* Leaves between two that are there. */
static void say_missing(struct proof_of_audit *p, int64_t number)
{
    uint64_t expected = p->range.size;

    if ((uint64_t) number == expected + 1)
        differs(p, "leaf %" PRIu64 " is missing", expected);
    else
        differs(p, "leaves %" PRIu64 " to %" PRId64 " are missing", expected, number - 1);
}

/* Takes one row. False when the numbers do not go on: nothing after it can be judged by trees. */
static bool take_leaf(struct proof_of_audit *p, struct pg_row *row)
{
    int64_t number = pg_next_i64(row);
    struct audit_entry e;
    size_t len;

    audit_entry_read(p->audit, p->tree, row, &e);
    const char *stored = pg_next_bytes(row, &len);
    if ((uint64_t) number >= p->tree->state.size) {
        differs(p, "leaf %" PRId64 " (event %" PRId64 ") was put in behind its %" PRIu64 " leaves", number,
                e.sequence, p->tree->state.size);
        return true;
    }
    if ((uint64_t) number != p->range.size) {
        say_missing(p, number);
        return false;
    }
    struct merkle_hash hash = audit_leaf(p->audit->sha256, &e, &p->scratch);
    if (len != SHA256_BYTES || memcmp(hash.bytes, stored, SHA256_BYTES) != 0)
        differs(p, "leaf %" PRId64 " (event %" PRId64 ") was changed", number, e.sequence);
    if (len == SHA256_BYTES)
        memcpy(hash.bytes, stored, SHA256_BYTES); /* so that one change does not make all tiles wrong */
    if (e.offset <= p->offset && !p->moved.sequence) {
        p->moved.leaf = number;
        p->moved.sequence = e.sequence;
    }
    p->offset = e.offset;
    merkle_append(p->audit->sha256, &p->range, &hash, check_tile, p);
    keep_promises(p);
    p->result->leaves++;
    return true;
}

static int read_leaves(struct proof_of_audit *p)
{
    uint64_t from = p->range.size;

    for (;;) {
        CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
        CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
        pg_arg_i32(&args, p->tree->id);
        pg_arg_i64(&args, (int64_t) from);
        pg_arg_i64(&args, ROWS_AT_ONCE);
        int r = pg_query(p->audit->pg, &sql_audit_read_leaves, &args, &rows, &p->audit->err);
        if (r != PG_DONE)
            return r;
        for (int i = 0; i < pg_rows(rows); i++)
            if (!take_leaf(p, &(struct pg_row){rows, i, 0}))
                return PG_DONE;
        if (p->audit->err.text[0])
            return -ECONNRESET;
        if (pg_rows(rows) < ROWS_AT_ONCE)
            return PG_DONE;
        from += ROWS_AT_ONCE;
    }
}

/* Where a tree was verified to before. The hashes that are stored must give the checkpoint's root. */
static int begin_at_verified(struct proof_of_audit *p, struct audit_tree *tree)
{
    while (p->promise < p->promise_count && !is_of_tree(p, &p->promises[p->promise]))
        p->promise++;
    for (size_t i = p->promise; i < p->promise_count && is_of_tree(p, &p->promises[i]); i++)
        if (p->promises[i].verified && p->promises[i].tree.size <= tree->state.size)
            tree->from = p->promises[i].tree.size;
    int r = tree->from ? audit_root_at(p->audit, tree, tree->from, &p->range) : PG_DONE;
    if (r == PG_DONE && tree->from)
        keep_promises(p);
    return r;
}

/* Leaves are in the order of their handling. That is Kafka's, but for what was put aside, left out or
 * published anew: it tells of something wrong where the tree is wrong. */
static void say_moved(struct proof_of_audit *p)
{
    if (p->moved.sequence && p->named > 0)
        differs(p,
                "leaf %" PRId64 " (event %" PRId64
                ") lies before the leaf before it in Kafka: they were moved",
                p->moved.leaf, p->moved.sequence);
}

static int prove_tree(struct proof_of_audit *p, struct audit_tree *tree)
{
    p->tree = tree;
    p->range = (struct merkle_range){0};
    p->promise = 0;
    p->offset = -1;
    p->moved.sequence = 0;
    p->named = 0;
    int r = begin_at_verified(p, tree);
    if (r == PG_DONE)
        r = read_leaves(p);
    if (r != PG_DONE)
        return r;
    if (p->range.size < tree->state.size && p->named == 0)
        differs(p, "leaves %" PRIu64 " to %" PRIu64 " are missing", p->range.size, tree->state.size - 1);
    else if (p->range.size == tree->state.size &&
             (tree->is_broken ||
              memcmp(p->range.roots, tree->range.roots, p->range.count * SHA256_BYTES) != 0))
        differs(p, "its roots are not those of its leaves");
    find_broken_promises(p);
    say_moved(p);
    return PG_DONE;
}

/* --- the ledger ------------------------------------------------------------------------------- */

static const struct audit_tree *find_tree(const struct audit *a, int64_t id)
{
    const struct audit_tree *tree = a->trees;

    while (tree->id != id)
        tree++;
    return tree;
}

static int compare_with_ledger(struct proof_of_audit *p)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    const struct audit *a = p->audit;

    pg_arg_i32s(&args, &a->trees->id, sizeof(*a->trees), a->count);
    pg_array_begin(&args, PG_INT8);
    for (size_t i = 0; i < a->count; i++)
        pg_array_i64(&args, (int64_t) a->trees[i].from);
    pg_arg_i64(&args, NAMED_MAX);
    int r = pg_query(a->pg, &sql_audit_unlike_ledger, &args, &rows, &p->audit->err);
    for (int i = 0; r == PG_DONE && i < pg_rows(rows); i++) {
        struct pg_row row = {rows, i, 0};
        int64_t tree = pg_next_i64(&row), leaf = pg_next_i64(&row), sequence = pg_next_i64(&row);
        p->tree = find_tree(a, tree);
        p->named = 0;
        differs(p, "leaf %" PRId64 ": %s event %" PRId64, leaf,
                pg_next_bool(&row) ? "the ledger has no" : "it is not as the ledger has", sequence);
    }
    return r;
}

/* --- each event once -------------------------------------------------------------------------- */

/* The newest event that was proven before: what came behind it is compared. 0 = all of them. */
static int find_beginning(struct proof_of_audit *p, int64_t *ret)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    const struct audit *a = p->audit;

    pg_arg_i32s(&args, &a->trees->id, sizeof(*a->trees), a->count);
    pg_array_begin(&args, PG_INT8);
    for (size_t i = 0; i < a->count; i++)
        pg_array_i64(&args, (int64_t) a->trees[i].from - 1);
    return pg_query_i64(a->pg, &sql_audit_newest_below, &args, ret, &p->audit->err);
}

static int ask(struct proof_of_audit *p, const struct pg_statement *statement, int64_t beginning,
               struct pg_result **ret)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64(&args, beginning);
    pg_arg_i64(&args, NAMED_MAX);
    return pg_query(p->audit->pg, statement, &args, ret, &p->audit->err);
}

static int64_t count_unnamed(const struct pg_result *rows, int column)
{
    return rows && pg_rows(rows) ? pg_get_i64(rows, 0, column) - pg_rows(rows) : 0;
}

/* A log that was made anew, with or without some events, has right hashes: the marks of the group tell what
 * it should have. */
static int compare_with_marks(struct proof_of_audit *p)
{
    CLEANUP(pg_result_freep) struct pg_result *without = NULL, *twice = NULL;
    int64_t beginning;

    int r = find_beginning(p, &beginning);
    if (r == PG_DONE)
        r = ask(p, &sql_audit_without_leaf, beginning, &without);
    if (r == PG_DONE)
        r = ask(p, &sql_audit_twice, beginning, &twice);
    for (int i = 0; r == PG_DONE && i < pg_rows(without); i++)
        sentences_add(&p->result->differences,
                      "audit log: event %" PRId64 " (%s) was handled, and has no leaf: it was taken out",
                      pg_get_i64(without, i, 0), pg_get_text(without, i, 1));
    for (int i = 0; r == PG_DONE && i < pg_rows(twice); i++) {
        struct pg_row row = {twice, i, 0};
        int64_t tree = pg_next_i64(&row), leaf = pg_next_i64(&row);
        p->tree = find_tree(p->audit, tree);
        p->named = 0;
        differs(p, "leaf %" PRId64 " holds event %" PRId64 " once more: it was put in", leaf,
                pg_next_i64(&row));
    }
    p->result->unnamed += count_unnamed(without, 2) + count_unnamed(twice, 3);
    return r;
}

int audit_prove(struct audit *a, int64_t since, struct audit_result *ret)
{
    struct proof_of_audit p = {.audit = a, .result = ret, .since = since, .scratch = STRBUF_INIT(4096)};

    *ret = (struct audit_result){0};
    int r = read_checkpoints(&p);
    if (r == PG_DONE)
        find_lost_trees(&p);
    for (size_t i = 0; r == PG_DONE && i < a->count; i++)
        r = prove_tree(&p, &a->trees[i]);
    if (r == PG_DONE && a->count)
        r = compare_with_ledger(&p);
    if (r == PG_DONE)
        r = compare_with_marks(&p);
    free(p.promises);
    strbuf_free(&p.scratch);
    return r;
}
