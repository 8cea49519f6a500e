/* The audit log: audit_log, audit_tiles, audit_trees, audit_salts. See crypto/audit_leaf.h.
 *
 * On a consumer's thread. A partition has one writer, and the row of its tree is locked all the same: a
 * leaf's number is drawn there. What a batch writes grows with its events alone, not with the tree. */
#include "handlers/handler_audit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/timeutil.h"
#include "consumers/store_consumer.h"
#include "crypto/audit_leaf.h"
#include "sql/statements.h"

#define TILE_LEVELS 8 /* a tile has 2^8 leaves, or tiles of the level below */

/* A tree that grows. */
struct tree {
    const char *topic;
    int32_t partition;
    int32_t id;
    struct merkle_range range;
};

struct tile {
    int32_t tree, level;
    int64_t number;
    struct merkle_hash hash;
};

struct leaf {
    const struct message_event *event;
    struct tree *tree;
    int64_t number;
    unsigned char commitment[SHA256_BYTES];
    struct merkle_hash hash;
};

struct book {
    struct pg *pg;
    struct error *err;
    struct sha256 *sha256;
    const struct message_event *const *events;
    struct leaf *leaves; /* of the events */
    size_t count;
    struct tree *trees, **by_id;
    size_t tree_count;
    char installation[INSTALLATION_TEXT];
    struct tile *tiles;
    size_t tile_count;
    struct tree *growing; /* for note_full() */
};

/* --- trees ------------------------------------------------------------------------------------ */

static struct tree *tree_of(struct book *b, const struct message_event *e)
{
    for (size_t i = 0; i < b->tree_count; i++)
        if (b->trees[i].partition == e->partition && strcmp(b->trees[i].topic, e->topic) == 0)
            return &b->trees[i];
    return NULL;
}

static void find_trees(struct book *b)
{
    for (size_t i = 0; i < b->count; i++) {
        const struct message_event *e = b->events[i];
        if (tree_of(b, e))
            continue;
        b->trees = xreallocarray(b->trees, b->tree_count + 1, sizeof(*b->trees));
        b->trees[b->tree_count++] = (struct tree){.topic = e->topic, .partition = e->partition};
    }
    b->by_id = xcalloc(b->tree_count, sizeof(struct tree *));
}

/* What the database says of a tree. */
static int take_tree(struct book *b, struct pg_row *row, struct tree **ret)
{
    struct tree *t = &b->trees[pg_next_i64(row) - 1];
    struct bytes roots;

    t->id = (int32_t) pg_next_i64(row);
    int64_t size = pg_next_i64(row);
    roots.p = pg_next_bytes(row, &roots.len);
    if (!merkle_range_read(&t->range, size, roots)) {
        error_set(b->err, "audit_trees: the roots of tree %" PRId32 " are not those of %" PRIu64 " leaves",
                  t->id, t->range.size);
        return -EBADMSG;
    }
    *ret = t;
    return PG_DONE;
}

static void add_places(const struct book *b, struct pg_args *args)
{
    pg_arg_texts(args, &b->trees->topic, sizeof(*b->trees), b->tree_count);
    pg_arg_i32s(args, &b->trees->partition, sizeof(*b->trees), b->tree_count);
}

static int read_trees(struct book *b, bool *ret_complete)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    add_places(b, &args);
    int r = pg_query(b->pg, &sql_audit_trees, &args, &rows, b->err);
    for (int i = 0; r == PG_DONE && i < pg_rows(rows); i++) {
        struct pg_row row = {rows, i, 0};
        r = take_tree(b, &row, &b->by_id[i]);
        snprintf(b->installation, sizeof(b->installation), "%s", pg_next_text(&row));
    }
    *ret_complete = r == PG_DONE && (size_t) pg_rows(rows) == b->tree_count;
    return r;
}

static int take_trees(struct book *b)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    bool complete;

    int r = read_trees(b, &complete);
    if (r != PG_DONE || complete)
        return r;
    add_places(b, &args);
    r = pg_query(b->pg, &sql_audit_new_trees, &args, NULL, b->err);
    return r == PG_DONE ? read_trees(b, &complete) : r;
}

/* --- commitments ------------------------------------------------------------------------------ */

/* The salts of a chunk's subscriptions: a row of audit_salts. */
struct chunk {
    int64_t number;
    bool known; /* the database has it, and these are what it has */
    unsigned char salts[AUDIT_CHUNK][AUDIT_SALT_BYTES];
};

/* Those of a batch, ascending. */
struct chunks {
    struct chunk *items;
    size_t count;
};

static void chunks_free(struct chunks *s)
{
    free(s->items);
}

/* Of numbers, and of chunks, which begin with theirs. */
static int by_number(const void *a, const void *b)
{
    const int64_t *x = a, *y = b;

    return (*x > *y) - (*x < *y);
}

static void list_chunks(const struct book *b, struct chunks *s)
{
    CLEANUP(freep) int64_t *numbers = xcalloc(b->count, sizeof(*numbers));
    size_t count = 0;

    for (size_t i = 0; i < b->count; i++) {
        int64_t number = b->events[i]->subscription_id / AUDIT_CHUNK;
        if (count == 0 || numbers[count - 1] != number)
            numbers[count++] = number;
    }
    qsort(numbers, count, sizeof(*numbers), by_number);
    s->items = xcalloc(count, sizeof(*s->items));
    for (size_t i = 0; i < count; i++)
        if (i == 0 || numbers[i] != numbers[i - 1])
            s->items[s->count++].number = numbers[i];
}

static struct chunk *chunk_of(const struct chunks *s, int64_t number)
{
    return bsearch(&number, s->items, s->count, sizeof(*s->items), by_number);
}

static void add_numbers(const struct chunks *s, struct pg_args *args)
{
    pg_array_begin(args, PG_INT8);
    for (size_t i = 0; i < s->count; i++)
        if (!s->items[i].known)
            pg_array_i64(args, s->items[i].number);
}

/* Those that the database has. */
static int read_salts(const struct book *b, struct chunks *s)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    add_numbers(s, &args);
    int r = pg_query(b->pg, &sql_audit_salts, &args, &rows, b->err);
    for (int i = 0; r == PG_DONE && i < pg_rows(rows); i++) {
        size_t len;
        struct chunk *chunk = chunk_of(s, pg_get_i64(rows, i, 0));
        const char *bytes = pg_get_bytes(rows, i, 1, &len);
        if (!chunk || len != sizeof(chunk->salts))
            continue;
        memcpy(chunk->salts, bytes, len);
        chunk->known = true;
    }
    return r;
}

/* Makes those that are missing. *ret_met: another writer had made one, so they are to be read. */
static int make_salts(const struct book *b, struct chunks *s, bool *ret_met)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *made = NULL;
    int64_t count = 0;

    add_numbers(s, &args);
    pg_array_begin(&args, PG_BYTEA);
    for (size_t i = 0; i < s->count; i++) {
        struct chunk *chunk = &s->items[i];
        if (chunk->known)
            continue;
        random_bytes(chunk->salts, sizeof(chunk->salts));
        pg_array_bytes(&args, (const char *) chunk->salts, sizeof(chunk->salts));
        count++;
    }
    if (count == 0)
        return PG_DONE;
    int r = pg_query(b->pg, &sql_audit_new_salts, &args, &made, b->err);
    *ret_met = r == PG_DONE && pg_affected(made) != count;
    return r;
}

static void commit_value(struct book *b, const struct chunks *s, size_t i)
{
    static const unsigned char erased[AUDIT_SALT_BYTES];
    const struct message_event *e = b->events[i];
    unsigned char *salt =
        chunk_of(s, e->subscription_id / AUDIT_CHUNK)->salts[e->subscription_id % AUDIT_CHUNK];

    if (memcmp(salt, erased, sizeof(erased)) == 0)
        random_bytes(salt, AUDIT_SALT_BYTES); /* which nobody keeps */
    audit_commit(b->sha256, salt, e->value_hash, b->leaves[i].commitment);
}

static int commit_values(struct book *b)
{
    CLEANUP(chunks_free) struct chunks s = {0};
    bool met = false;

    list_chunks(b, &s);
    int r = read_salts(b, &s);
    if (r == PG_DONE)
        r = make_salts(b, &s, &met);
    if (r == PG_DONE && met)
        r = read_salts(b, &s);
    for (size_t i = 0; r == PG_DONE && i < b->count; i++)
        commit_value(b, &s, i);
    return r;
}

/* --- leaves ----------------------------------------------------------------------------------- */

static void note_full(void *userdata, unsigned level, uint64_t index, const struct merkle_hash *root)
{
    struct book *b = userdata;

    if (level == 0 || level % TILE_LEVELS != 0)
        return;
    b->tiles = xreallocarray(b->tiles, b->tile_count + 1, sizeof(*b->tiles));
    b->tiles[b->tile_count++] = (struct tile){.tree = b->growing->id,
                                              .level = (int32_t) (level / TILE_LEVELS),
                                              .number = (int64_t) index,
                                              .hash = *root};
}

static void append_leaves(struct book *b)
{
    CLEANUP(strbuf_free) struct strbuf scratch = STRBUF_INIT(4096);

    for (size_t i = 0; i < b->count; i++) {
        const struct message_event *e = b->events[i];
        struct leaf *leaf = &b->leaves[i];
        struct audit_entry entry = {.installation = b->installation,
                                    .topic = e->topic,
                                    .event_type = event_type_word(e->type),
                                    .partition = e->partition,
                                    .offset = e->offset,
                                    .sequence = e->sequence,
                                    .subscription_id = e->subscription_id,
                                    .integration_id = e->integration_id,
                                    .created_at = e->created_at};
        memcpy(entry.event_id, e->id, sizeof(entry.event_id));
        memcpy(entry.commitment, leaf->commitment, sizeof(entry.commitment));
        leaf->event = e;
        leaf->tree = b->growing = tree_of(b, e);
        leaf->number = (int64_t) leaf->tree->range.size;
        leaf->hash = audit_leaf(b->sha256, &entry, &scratch);
        merkle_append(b->sha256, &leaf->tree->range, &leaf->hash, note_full, b);
    }
}

static int by_tree(const void *a, const void *b)
{
    const struct leaf *x = a, *y = b;

    if (x->tree->id != y->tree->id)
        return x->tree->id < y->tree->id ? -1 : 1;
    return (x->number > y->number) - (x->number < y->number);
}

static void add_row(struct strbuf *rows, const struct leaf *leaf)
{
    const struct message_event *e = leaf->event;
    const char *word = event_type_word(e->type);

    pg_copy_row(rows, 11);
    pg_copy_i32(rows, leaf->tree->id);
    pg_copy_i64(rows, leaf->number);
    pg_copy_i64(rows, e->offset);
    pg_copy_i64(rows, e->sequence);
    pg_copy_bytes(rows, e->id, sizeof(e->id));
    pg_copy_bytes(rows, word, strlen(word));
    pg_copy_i64(rows, e->subscription_id);
    if (e->integration_id)
        pg_copy_i64(rows, e->integration_id);
    else
        pg_copy_null(rows);
    pg_copy_i64(rows, e->created_at - PG_EPOCH_USEC);
    pg_copy_bytes(rows, leaf->commitment, sizeof(leaf->commitment));
    pg_copy_bytes(rows, leaf->hash.bytes, SHA256_BYTES);
}

/* In the order of the index, whose pages are each found once then. */
static int write_leaves(struct book *b)
{
    CLEANUP(strbuf_free) struct strbuf rows = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    qsort(b->leaves, b->count, sizeof(*b->leaves), by_tree);
    pg_copy_begin(&rows);
    for (size_t i = 0; i < b->count; i++)
        add_row(&rows, &b->leaves[i]);
    return pg_copy(b->pg,
                   "copy audit_log (tree, leaf, \"offset\", sequence, event_id, event_type, subscription_id, "
                   "integration_id, created_at, commitment, hash) from stdin (format binary)",
                   &rows, b->err);
}

static int write_tiles(struct book *b)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    if (b->tile_count == 0)
        return PG_DONE;
    pg_arg_i32s(&args, &b->tiles->tree, sizeof(*b->tiles), b->tile_count);
    pg_arg_i32s(&args, &b->tiles->level, sizeof(*b->tiles), b->tile_count);
    pg_arg_i64s(&args, &b->tiles->number, sizeof(*b->tiles), b->tile_count);
    pg_array_begin(&args, PG_BYTEA);
    for (size_t i = 0; i < b->tile_count; i++)
        pg_array_bytes(&args, (const char *) b->tiles[i].hash.bytes, SHA256_BYTES);
    return pg_query(b->pg, &sql_audit_new_tiles, &args, NULL, b->err);
}

static int write_trees(struct book *b)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_array_begin(&args, PG_INT4);
    for (size_t i = 0; i < b->tree_count; i++)
        pg_array_i32(&args, b->by_id[i]->id);
    pg_array_begin(&args, PG_INT8);
    for (size_t i = 0; i < b->tree_count; i++)
        pg_array_i64(&args, (int64_t) b->by_id[i]->range.size);
    pg_array_begin(&args, PG_BYTEA);
    for (size_t i = 0; i < b->tree_count; i++)
        pg_array_bytes(&args, (const char *) b->by_id[i]->range.roots,
                       b->by_id[i]->range.count * SHA256_BYTES);
    return pg_query(b->pg, &sql_audit_grown, &args, NULL, b->err);
}

/* --- the whole -------------------------------------------------------------------------------- */

static void book_done(struct book *b)
{
    free(b->leaves);
    free(b->trees);
    free(b->by_id);
    free(b->tiles);
    sha256_free(b->sha256);
}

static int apply(struct pg *pg, const struct message_event *const *events, size_t count, const char **faults,
                 struct error *err)
{
    struct book b = {.pg = pg, .err = err, .events = events, .count = count};

    (void) faults;
    b.sha256 = sha256_new();
    b.leaves = xcalloc(count, sizeof(*b.leaves));
    find_trees(&b);
    int r = take_trees(&b);
    if (r == PG_DONE)
        r = commit_values(&b);
    if (r == PG_DONE)
        append_leaves(&b);
    if (r == PG_DONE)
        r = write_leaves(&b);
    if (r == PG_DONE)
        r = write_tiles(&b);
    if (r == PG_DONE)
        r = write_trees(&b);
    book_done(&b);
    return r;
}

static int compare(struct pg *pg, const char *model, bool *ret_known, struct error *err)
{
    return store_stop_unmarked(pg, &sql_stop_unmarked_leaves, model, "", ret_known, err);
}

const struct handler handler_audit = {
    .types = 1U << EVENT_CREATED | 1U << EVENT_UPDATED | 1U << EVENT_SENT | 1U << EVENT_FAILED |
             1U << EVENT_RETRIED,
    .hashes = true,
    .apply = apply,
    .compare = compare,
};
