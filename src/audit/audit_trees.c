/* The trees of the audit log, as the database has them. See audit_proof.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "audit/audit_internal.h"
#include "sql/statements.h"

void audit_differs(struct audit_result *result, enum audit_kind kind, const char *fmt, ...)
{
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(4096);
    va_list args;

    result->kinds |= 1U << kind;
    va_start(args, fmt);
    strbuf_addv(&text, fmt, args);
    va_end(args);
    sentences_add(&result->differences, "%s", strbuf_str(&text));
}

void report_add(struct report *report, enum audit_kind kind, const struct audit_tree_state *tree,
                const char *fmt, ...)
{
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(4096);
    va_list args;

    report->kinds |= 1U << kind;
    if (report->named++ >= NAMED_MAX)
        return;
    va_start(args, fmt);
    strbuf_addv(&text, fmt, args);
    va_end(args);
    sentences_add(&report->differences, "audit log, %s/%" PRId32 ": %s", tree->topic, tree->partition,
                  strbuf_str(&text));
}

static void read_tree(struct audit *a, struct pg_row *row, struct audit_tree *ret)
{
    struct bytes roots;

    *ret = (struct audit_tree){.id = (int32_t) pg_next_i64(row)};
    snprintf(ret->state.topic, sizeof(ret->state.topic), "%s", pg_next_text(row));
    ret->state.partition = (int32_t) pg_next_i64(row);
    int64_t size = pg_next_i64(row);
    roots.p = pg_next_bytes(row, &roots.len);
    ret->is_broken = !merkle_range_read(&ret->range, size, roots);
    ret->state.size = ret->range.size;
    ret->state.root = merkle_root(a->sha256, &ret->range);
}

static void read_past(struct audit *a, const struct pg_result *rows)
{
    a->past_count = (size_t) pg_rows(rows);
    a->past = xcalloc(a->past_count + 1, sizeof(*a->past));
    for (size_t i = 0; i < a->past_count; i++) {
        struct pg_row row = {rows, (int) i, 0};
        struct audit_past *past = &a->past[i];
        past->tree = (int32_t) pg_next_i64(&row);
        past->leaves = (uint64_t) pg_next_i64(&row);
        snprintf(past->installation, sizeof(past->installation), "%s", pg_next_text(&row));
        past->checkpoint = pg_next_i64(&row);
    }
}

int audit_open(struct audit *a, struct pg *pg)
{
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL, *installation = NULL, *past = NULL;

    *a = (struct audit){.pg = pg, .sha256 = sha256_new()};
    /* A partition that is leaving the ledger has left before, or stays until the end. */
    int r = pg_execute(pg,
                       "begin isolation level repeatable read read only; "
                       "lock table subscription_events in access share mode",
                       &a->err);
    if (r == PG_DONE)
        r = pg_query(pg, &sql_read_installation, NULL, &installation, &a->err);
    if (r == PG_DONE)
        r = pg_query(pg, &sql_audit_all_trees, NULL, &rows, &a->err);
    if (r == PG_DONE)
        r = pg_query(pg, &sql_audit_read_past, NULL, &past, &a->err);
    if (r != PG_DONE)
        return r;
    read_past(a, past);
    snprintf(a->installation, sizeof(a->installation), "%s", pg_get_text(installation, 0, 0));
    a->count = (size_t) pg_rows(rows);
    a->trees = xcalloc(a->count, sizeof(*a->trees));
    for (size_t i = 0; i < a->count; i++)
        read_tree(a, &(struct pg_row){rows, (int) i, 0}, &a->trees[i]);
    return PG_DONE;
}

int audit_end(struct audit *a)
{
    return pg_execute(a->pg, "rollback", &a->err);
}

void audit_close(struct audit *a)
{
    sha256_free(a->sha256);
    free(a->trees);
    free(a->past);
    *a = (struct audit){0};
}

struct audit_tree *audit_find(const struct audit *a, const char *topic, int32_t partition)
{
    for (size_t i = 0; i < a->count; i++)
        if (a->trees[i].state.partition == partition && strcmp(a->trees[i].state.topic, topic) == 0)
            return &a->trees[i];
    return NULL;
}

const struct audit_past *audit_past_of(const struct audit *a, const struct audit_tree *tree, uint64_t leaf)
{
    for (size_t i = 0; i < a->past_count; i++)
        if (a->past[i].tree == tree->id && leaf < a->past[i].leaves)
            return &a->past[i];
    return NULL;
}

/* Were so many leaves of the tree copied in this name? */
static bool was_copied(const struct audit *a, const char *name, const struct audit_tree_state *state)
{
    const struct audit_tree *tree = audit_find(a, state->topic, state->partition);

    for (size_t i = 0; tree && i < a->past_count; i++)
        if (a->past[i].tree == tree->id && strcmp(a->past[i].installation, name) == 0 &&
            state->size <= a->past[i].leaves)
            return true;
    return false;
}

/* A note of an installation that was copied, as long as it tells of no more than was copied. */
static bool read_past_note(const struct audit *a, const char *name, const char *note,
                           struct audit_tree_state **ret, size_t *ret_count)
{
    CLEANUP(freep) struct audit_tree_state *trees = NULL;
    size_t count = 0;

    if (audit_note_read(note, name, &trees, &count) < 0)
        return false;
    for (size_t i = 0; i < count; i++)
        if (!was_copied(a, name, &trees[i]))
            return false;
    *ret = TAKE_PTR(trees);
    *ret_count = count;
    return true;
}

const char *audit_note_owner(const struct audit *a, const char *note, struct audit_tree_state **ret,
                             size_t *ret_count)
{
    if (audit_note_read(note, a->installation, ret, ret_count) == 0)
        return a->installation;
    for (size_t i = 0; i < a->past_count; i++)
        if (read_past_note(a, a->past[i].installation, note, ret, ret_count))
            return a->past[i].installation;
    return NULL;
}

void audit_entry_read(const struct audit *a, const struct audit_tree *tree, uint64_t leaf, struct pg_row *row,
                      struct audit_entry *ret)
{
    const struct audit_past *past = audit_past_of(a, tree, leaf);
    size_t len;

    *ret = (struct audit_entry){.installation = past ? past->installation : a->installation,
                                .topic = tree->state.topic,
                                .partition = tree->state.partition};
    ret->offset = pg_next_i64(row);
    ret->sequence = pg_next_i64(row);
    const char *bytes = pg_next_bytes(row, &len);
    memcpy(ret->event_id, bytes, MIN(len, sizeof(ret->event_id)));
    ret->event_type = pg_next_text(row);
    ret->subscription_id = pg_next_i64(row);
    ret->integration_id = pg_next_i64(row);
    ret->created_at = pg_next_time(row);
    bytes = pg_next_bytes(row, &len);
    memcpy(ret->commitment, bytes, MIN(len, sizeof(ret->commitment)));
}

/* The hashes that are stored, of a subtree of 2^level leaves. */
static int read_subtree(struct audit *a, const struct audit_tree *tree, unsigned level, uint64_t index,
                        struct merkle_hash *ret)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    struct merkle_range range = {0};
    unsigned rest = level % TILE_LEVELS;

    pg_arg_i32(&args, tree->id);
    pg_arg_i32(&args, (int32_t) (level / TILE_LEVELS));
    pg_arg_i64(&args, (int64_t) (index << rest));
    pg_arg_i64(&args, INT64_C(1) << rest);
    int r = pg_query(a->pg, &sql_audit_read_hashes, &args, &rows, &a->err);
    if (r != PG_DONE)
        return r;
    for (int i = 0; i < pg_rows(rows); i++) {
        struct merkle_hash hash = {0};
        size_t len;
        const char *bytes = pg_get_bytes(rows, i, 0, &len);
        if (len == SHA256_BYTES)
            memcpy(hash.bytes, bytes, len);
        merkle_append(a->sha256, &range, &hash, NULL, NULL);
    }
    *ret = range.count == 1 && range.size == UINT64_C(1) << rest ? range.roots[0] : (struct merkle_hash){0};
    return 0;
}

int audit_root_at(struct audit *a, const struct audit_tree *tree, uint64_t size, struct merkle_range *ret)
{
    struct merkle_range range = {.size = size};
    uint64_t first = 0;

    for (uint64_t rest = size; rest > 0;) {
        unsigned level = 63 - (unsigned) __builtin_clzll(rest);
        int r = read_subtree(a, tree, level, first >> level, &range.roots[range.count]);
        if (r < 0)
            return r;
        range.count++;
        first += UINT64_C(1) << level;
        rest -= UINT64_C(1) << level;
    }
    *ret = range;
    return PG_DONE;
}

struct place {
    struct audit *audit;
    const struct audit_tree *tree;
};

static int on_subtree(void *userdata, unsigned level, uint64_t index, struct merkle_hash *ret)
{
    struct place *p = userdata;

    return read_subtree(p->audit, p->tree, level, index, ret);
}

int audit_path(struct audit *a, const struct audit_tree *tree, uint64_t leaf, uint64_t size,
               struct merkle_hash ret[MERKLE_PATH_MAX])
{
    return merkle_inclusion(a->sha256, leaf, size, on_subtree, &(struct place){a, tree}, ret);
}
