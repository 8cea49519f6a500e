/* Checkpoints of the audit log. See checkpoint.h. */
#include "monitor/checkpoint.h"

#include <stdio.h>

#include "crypto/audit_note.h"
#include "crypto/note_key.h"
#include "sql/statements.h"

void checkpoint_done(struct checkpoint *c)
{
    free(c->signed_by);
}

static void add_tree(struct strbuf *note, int64_t *leaves, struct sha256 *sha256, struct pg_row *row)
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
    audit_note_add(note, &state);
    *leaves += (int64_t) state.size;
}

static int sign(const char *signing_key, const char *installation, struct strbuf *note, struct checkpoint *c,
                struct error *err)
{
    CLEANUP(note_key_freep) struct note_key *key = NULL;
    CLEANUP(freep) char *name = audit_note_signer(installation);

    if (!*signing_key)
        return PG_DONE;
    int r = note_key_new(&key, signing_key, err);
    if (r < 0)
        return r;
    note_key_sign(key, name, note);
    c->signed_by = note_key_public(key, name);
    return PG_DONE;
}

static int insert(struct pg *pg, const struct strbuf *note, struct checkpoint *c, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, strbuf_str(note));
    pg_arg_text(&args, c->signed_by);
    return pg_query_bool(pg, &sql_add_checkpoint, &args, &c->is_new, err);
}

int checkpoint_write(struct pg *pg, const char *signing_key, struct checkpoint *ret, struct error *err)
{
    CLEANUP(sha256_freep) struct sha256 *sha256 = sha256_new();
    CLEANUP(pg_result_freep) struct pg_result *installation = NULL, *trees = NULL;
    CLEANUP(strbuf_free) struct strbuf note = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    unsigned char digest[SHA256_BYTES];

    int r = pg_query(pg, &sql_read_installation, NULL, &installation, err);
    if (r == PG_DONE)
        r = pg_query(pg, &sql_audit_all_trees, NULL, &trees, err);
    if (r != PG_DONE || pg_rows(trees) == 0)
        return r;
    audit_note_begin(&note, pg_get_text(installation, 0, 0));
    for (int i = 0; i < pg_rows(trees); i++)
        add_tree(&note, &ret->leaves, sha256, &(struct pg_row){trees, i, 0});
    r = sign(signing_key, pg_get_text(installation, 0, 0), &note, ret, err);
    if (r == PG_DONE)
        r = insert(pg, &note, ret, err);
    if (r != PG_DONE)
        return r;
    sha256_digest(sha256, &(struct bytes){note.data, note.len}, 1, digest);
    *put_hex(ret->digest, digest, sizeof(digest)) = '\0';
    if (!ret->is_new)
        return PG_DONE;
    return pg_query(pg, &sql_thin_checkpoints, NULL, NULL, err);
}
