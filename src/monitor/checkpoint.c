/* Checkpoints of the audit log. See checkpoint.h. */
#include "monitor/checkpoint.h"

#include <stdio.h>

#include "crypto/audit_note.h"
#include "sql/statements.h"

struct checkpoint {
    struct strbuf note;
    int64_t leaves;
};

static void add_tree(struct checkpoint *c, struct sha256 *sha256, struct pg_row *row)
{
    struct audit_tree_state state = {0};
    struct merkle_range range;
    struct bytes roots;

    (void) pg_next_i64(row); /* the id */
    snprintf(state.topic, sizeof(state.topic), "%s", pg_next_text(row));
    state.partition = (int32_t) pg_next_i64(row);
    int64_t size = pg_next_i64(row);
    roots.p = pg_next_bytes(row, &roots.len);
    (void) merkle_range_read(&range, size,
                             roots); /* a broken one has a wrong root, which "verify --audit" names */
    state.size = range.size;
    state.root = merkle_root(sha256, &range);
    audit_note_add(&c->note, &state);
    c->leaves += (int64_t) state.size;
}

static int insert(struct pg *pg, const struct checkpoint *c, bool *ret_new, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, strbuf_str(&c->note));
    return pg_query_bool(pg, &sql_add_checkpoint, &args, ret_new, err);
}

int checkpoint_write(struct pg *pg, int64_t *ret_leaves, char ret_digest[65], struct error *err)
{
    CLEANUP(sha256_freep) struct sha256 *sha256 = sha256_new();
    CLEANUP(pg_result_freep) struct pg_result *installation = NULL, *trees = NULL;
    CLEANUP(strbuf_free) struct strbuf note = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    struct checkpoint c = {.note = note};
    unsigned char digest[SHA256_BYTES];
    bool is_new = false;

    *ret_leaves = -1;
    int r = pg_query(pg, &sql_read_installation, NULL, &installation, err);
    if (r == PG_DONE)
        r = pg_query(pg, &sql_audit_all_trees, NULL, &trees, err);
    if (r != PG_DONE || pg_rows(trees) == 0)
        return r;
    audit_note_begin(&c.note, pg_get_text(installation, 0, 0));
    for (int i = 0; i < pg_rows(trees); i++)
        add_tree(&c, sha256, &(struct pg_row){trees, i, 0});
    note = c.note;
    r = insert(pg, &c, &is_new, err);
    if (r != PG_DONE || !is_new)
        return r;
    sha256_digest(sha256, &(struct bytes){note.data, note.len}, 1, digest);
    *put_hex(ret_digest, digest, sizeof(digest)) = '\0';
    *ret_leaves = c.leaves;
    return pg_query(pg, &sql_thin_checkpoints, NULL, NULL, err);
}
