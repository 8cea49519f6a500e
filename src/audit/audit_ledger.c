/* The log beside the ledger, and beside what the group has handled. See audit_internal.h.
 *
 * Quickly: the events of the log and those of the ledger that were handled are the same multiset, and no tree
 * or index is asked for any of them. Where they are not, statements that join both name what differs. */
#include <inttypes.h>
#include <string.h>

#include "audit/audit_internal.h"
#include "sql/statements.h"

#define EVENTS_AT_ONCE 8192
#define CHUNK 8192 /* events of a row of consumer_bitmaps */

/* --- multisets -------------------------------------------------------------------------------- */

static uint64_t word_of(const char *bytes, size_t len)
{
    uint64_t word = 0;

    memcpy(&word, bytes, MIN(len, sizeof(word)));
    return word;
}

bool audit_event_count(const struct audit_event *e, const struct multiset_key *key, struct multiset *m)
{
    if (e->event_id.len != 2 * sizeof(uint64_t) || e->type.len > sizeof(uint64_t) ||
        (e->has_integration && e->integration_id == INT64_MIN))
        return false;
    const uint64_t words[MULTISET_WORDS] = {
        (uint64_t) e->sequence,
        word_of(e->event_id.p, sizeof(uint64_t)),
        word_of(e->event_id.p + sizeof(uint64_t), sizeof(uint64_t)),
        word_of(e->type.p, e->type.len),
        (uint64_t) e->subscription_id,
        (uint64_t) (e->has_integration ? e->integration_id : INT64_MIN),
        (uint64_t) e->created_at,
    };
    multiset_add(m, key, words);
    return true;
}

/* --- the ledger, in parts --------------------------------------------------------------------- */

int audit_ledger_parts(struct proof_of_audit *p)
{
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    int r = pg_query(p->audit->pg, &sql_audit_ledger_parts, NULL, &rows, &p->audit->err);
    if (r != PG_DONE)
        return r;
    p->part_count = (size_t) pg_rows(rows);
    p->parts = xcalloc(p->part_count + 1, sizeof(*p->parts));
    for (size_t i = 0; i < p->part_count; i++)
        p->parts[i] = pg_get_i64(rows, (int) i, 0);
    p->first_id = p->parts[0];
    return PG_DONE;
}

/* Is there a mark of this event? `*at` is where its chunk begins, for the next one. */
static bool is_handled(const struct pg_result *marks, int *at, int64_t id, const char *type)
{
    int64_t chunk = id / CHUNK, place = id % CHUNK;

    while (*at < pg_rows(marks) && pg_get_i64(marks, *at, 0) < chunk)
        ++*at;
    for (int i = *at; i < pg_rows(marks) && pg_get_i64(marks, i, 0) == chunk; i++) {
        size_t len;
        const char *bits = pg_get_bytes(marks, i, 2, &len);
        if ((size_t) place / 8 < len && bits[place / 8] >> place % 8 & 1 &&
            strcmp(pg_get_text(marks, i, 1), type) == 0)
            return true;
    }
    return false;
}

static void count_events(const struct pg_result *rows, const struct pg_result *marks,
                         const struct multiset_key *key, struct report *report)
{
    int at = 0;

    for (int i = 0; i < pg_rows(rows); i++) {
        struct pg_row row = {rows, i, 0};
        struct audit_event e = {.sequence = pg_next_i64(&row)};
        e.event_id.p = pg_next_bytes(&row, &e.event_id.len);
        e.type.p = pg_next_bytes(&row, &e.type.len);
        e.subscription_id = pg_next_i64(&row);
        e.has_integration = !pg_next_is_null(&row);
        e.integration_id = pg_next_i64(&row);
        e.created_at = pg_next_i64(&row);
        if (e.type.len > 0 && is_handled(marks, &at, e.sequence, e.type.p) &&
            !audit_event_count(&e, key, &report->events))
            report->is_strange = true;
    }
}

/* Events from this one on, at most so many, and the marks of their chunks. */
static int read_events(struct audit *a, int64_t from, int64_t last, struct pg_result **ret,
                       struct pg_result **ret_marks)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT, chunks = PG_ARGS_INIT;

    pg_arg_i64(&args, from);
    pg_arg_i64(&args, last);
    pg_arg_i64(&args, EVENTS_AT_ONCE);
    int r = pg_query(a->pg, &sql_audit_ledger_events, &args, ret, &a->err);
    if (r != PG_DONE || pg_rows(*ret) == 0)
        return r;
    pg_arg_i64(&chunks, pg_get_i64(*ret, 0, 0) / CHUNK);
    pg_arg_i64(&chunks, pg_get_i64(*ret, pg_rows(*ret) - 1, 0) / CHUNK);
    return pg_query(a->pg, &sql_audit_marks, &chunks, ret_marks, &a->err);
}

int audit_count_part(const struct proof_of_audit *p, struct audit *a, size_t part, struct report *report)
{
    int64_t from = p->parts[part], last = part + 1 < p->part_count ? p->parts[part + 1] - 1 : INT64_MAX;

    for (;;) {
        CLEANUP(pg_result_freep) struct pg_result *rows = NULL, *marks = NULL;
        int r = read_events(a, from, last, &rows, &marks);
        if (r != PG_DONE || pg_rows(rows) == 0)
            return r;
        count_events(rows, marks, &p->key, report);
        from = pg_get_i64(rows, pg_rows(rows) - 1, 0);
        if (pg_rows(rows) < EVENTS_AT_ONCE || from == last)
            return PG_DONE;
        from++;
    }
}

/* --- what differs, by name -------------------------------------------------------------------- */

static const struct audit_tree_state *find_state(const struct audit *a, int64_t id)
{
    const struct audit_tree *tree = a->trees;

    while (tree->id != id)
        tree++;
    return &tree->state;
}

static void tree_differs(struct proof_of_audit *p, enum audit_kind kind, int64_t tree, const char *fmt, ...)
    PRINTF(4, 5);
static void tree_differs(struct proof_of_audit *p, enum audit_kind kind, int64_t tree, const char *fmt, ...)
{
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(4096);
    const struct audit_tree_state *state = find_state(p->audit, tree);
    va_list args;

    va_start(args, fmt);
    strbuf_addv(&text, fmt, args);
    va_end(args);
    audit_differs(p->result, kind, "audit log, %s/%" PRId32 ": %s", state->topic, state->partition,
                  strbuf_str(&text));
}

/* Two parameters: the trees, and of each the leaf that lies so far from where it was verified. */
static void add_trees(const struct audit *a, int64_t distance, struct pg_args *args)
{
    pg_arg_i32s(args, &a->trees->id, sizeof(*a->trees), a->count);
    pg_array_begin(args, PG_INT8);
    for (size_t i = 0; i < a->count; i++)
        pg_array_i64(args, (int64_t) a->trees[i].from + distance);
}

int64_t audit_count_unnamed(const struct pg_result *rows, int column)
{
    return pg_rows(rows) ? pg_get_i64(rows, 0, column) - pg_rows(rows) : 0;
}

static int name_unlike(struct proof_of_audit *p)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    if (p->audit->count == 0)
        return PG_DONE;
    add_trees(p->audit, 0, &args);
    pg_arg_i64(&args, NAMED_MAX);
    int r = pg_query(p->audit->pg, &sql_audit_unlike_ledger, &args, &rows, &p->audit->err);
    for (int i = 0; r == PG_DONE && i < pg_rows(rows); i++) {
        struct pg_row row = {rows, i, 0};
        int64_t tree = pg_next_i64(&row), leaf = pg_next_i64(&row), sequence = pg_next_i64(&row);
        tree_differs(p, AUDIT_LEDGER, tree, "leaf %" PRId64 ": %s event %" PRId64, leaf,
                     pg_next_bool(&row) ? "the ledger has no" : "it is not as the ledger has", sequence);
    }
    if (r == PG_DONE)
        p->result->unnamed += audit_count_unnamed(rows, 4);
    return r;
}

static int name_without_leaf(struct proof_of_audit *p, int64_t beginning)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    pg_arg_i64(&args, beginning);
    pg_arg_i64(&args, NAMED_MAX);
    /* Marks that nobody has analyzed look few, and each event would be looked for by itself. */
    int r = pg_execute(p->audit->pg, "set local enable_nestloop = off", &p->audit->err);
    if (r == PG_DONE)
        r = pg_query(p->audit->pg, &sql_audit_without_leaf, &args, &rows, &p->audit->err);
    if (r == PG_DONE)
        r = pg_execute(p->audit->pg, "set local enable_nestloop = on", &p->audit->err);
    if (r != PG_DONE)
        return r;
    for (int i = 0; i < pg_rows(rows); i++)
        audit_differs(p->result, AUDIT_WITHOUT_LEAF,
                      "audit log: event %" PRId64 " (%s) was handled, and has no leaf: it was taken out",
                      pg_get_i64(rows, i, 0), pg_get_text(rows, i, 1));
    p->result->unnamed += audit_count_unnamed(rows, 2);
    return PG_DONE;
}

/* Events above `beginning` and up to `last`. */
static int name_twice(struct proof_of_audit *p, int64_t beginning, int64_t last)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    pg_arg_i64(&args, beginning);
    pg_arg_i64(&args, last);
    pg_arg_i64(&args, NAMED_MAX);
    int r = pg_query(p->audit->pg, &sql_audit_twice, &args, &rows, &p->audit->err);
    if (r != PG_DONE)
        return r;
    for (int i = 0; i < pg_rows(rows); i++) {
        struct pg_row row = {rows, i, 0};
        int64_t tree = pg_next_i64(&row), leaf = pg_next_i64(&row);
        tree_differs(p, AUDIT_TWICE, tree,
                     "leaf %" PRId64 " holds event %" PRId64 " once more: it was put in", leaf,
                     pg_next_i64(&row));
    }
    p->result->unnamed += audit_count_unnamed(rows, 3);
    return PG_DONE;
}

/* A leaf and its mark come in one transaction. */
static int name_unmarked(struct proof_of_audit *p, int64_t beginning)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    pg_arg_i64(&args, beginning);
    pg_arg_i64(&args, NAMED_MAX);
    int r = pg_query(p->audit->pg, &sql_audit_unmarked, &args, &rows, &p->audit->err);
    if (r != PG_DONE)
        return r;
    for (int i = 0; i < pg_rows(rows); i++) {
        struct pg_row row = {rows, i, 0};
        int64_t tree = pg_next_i64(&row), leaf = pg_next_i64(&row);
        tree_differs(p, AUDIT_UNMARKED, tree, "leaf %" PRId64 ": event %" PRId64 " is not marked as handled",
                     leaf, pg_next_i64(&row));
    }
    p->result->unnamed += audit_count_unnamed(rows, 3);
    return PG_DONE;
}

/* The newest event that was proven before: what came behind it is compared. 0 = all of them. */
static int find_beginning(struct proof_of_audit *p, int64_t *ret)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    add_trees(p->audit, -1, &args);
    return pg_query_i64(p->audit->pg, &sql_audit_newest_below, &args, ret, &p->audit->err);
}

/* A log that was made anew, with or without some events, has right hashes: the marks of the group tell what
 * it should have. */
int audit_compare_ledger(struct proof_of_audit *p, bool only_left)
{
    int64_t beginning;

    if (only_left)
        return name_twice(p, 0, p->first_id - 1);
    int r = name_unlike(p);
    if (r == PG_DONE)
        r = find_beginning(p, &beginning);
    if (r == PG_DONE)
        r = name_without_leaf(p, beginning);
    if (r == PG_DONE)
        r = name_twice(p, beginning, INT64_MAX);
    if (r == PG_DONE)
        r = name_unmarked(p, beginning);
    return r;
}
