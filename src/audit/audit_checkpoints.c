/* What checkpoints promise: those of the database, and those that were kept elsewhere. See audit_internal.h.
 *
 * Who may write to the database can write its checkpoints, too. So a checkpoint of the database counts for no
 * more than the rest of it, unless an anchor tells its SHA-256 or one of the keys has signed it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "audit/audit_internal.h"
#include "sql/statements.h"

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

static bool is_signed_by_key(const struct proof_of_audit *p, const char *owner, const char *note)
{
    CLEANUP(freep) char *name = audit_note_signer(owner);

    for (size_t i = 0; i < p->order->key_count; i++) {
        CLEANUP(freep) char *public = note_public_write(&p->order->keys[i], name);
        if (note_is_signed(note, name, public))
            return true;
    }
    return false;
}

/* --- anchors ---------------------------------------------------------------------------------- */

/* The anchors that are digests: which of them the database has, and how far all that is known goes. */
struct anchoring {
    bool *is_found; /* one for each anchor */
    int64_t leaves; /* of the largest checkpoint that is vouched for */
};

static int64_t count_leaves(const struct audit_tree_state *trees, size_t count)
{
    int64_t leaves = 0;

    for (size_t i = 0; i < count; i++)
        leaves += (int64_t) trees[i].size;
    return leaves;
}

static void take_note(struct proof_of_audit *p, struct anchoring *g, const struct audit_anchor *anchor)
{
    CLEANUP(freep) struct audit_tree_state *trees = NULL;
    struct promise promise = {.anchored = true};
    size_t count = 0;

    snprintf(promise.name, sizeof(promise.name), "the anchor in line %zu", anchor->line);
    const char *owner = audit_note_owner(p->audit, anchor->note, &trees, &count);
    if (!owner) {
        audit_differs(p->result, AUDIT_ANCHORS,
                      "audit log: %s is a checkpoint of another installation than this one, %s", promise.name,
                      p->audit->installation);
    } else if (p->order->key_count && !is_signed_by_key(p, owner, anchor->note)) {
        audit_differs(p->result, AUDIT_ANCHORS, "audit log: %s is not signed by the key that was given",
                      promise.name);
    } else {
        add_promises(p, &promise, trees, count);
        g->leaves = MAX(g->leaves, count_leaves(trees, count));
    }
}

/* Is a note of the database one of the anchors that are digests? */
static bool find_digest(const struct proof_of_audit *p, struct anchoring *g, const char *note)
{
    unsigned char digest[SHA256_BYTES];
    bool is_one = false;

    if (!p->order->anchor_count)
        return false;
    sha256_digest(p->audit->sha256, &(struct bytes){note, strlen(note)}, 1, digest);
    for (size_t i = 0; i < p->order->anchor_count; i++) {
        const struct audit_anchor *anchor = &p->order->anchors[i];
        if (!anchor->note && memcmp(anchor->digest, digest, sizeof(digest)) == 0)
            is_one = g->is_found[i] = true;
    }
    return is_one;
}

/* A digest tells nothing without its checkpoint. The newest is never thinned out; older ones are. */
static void find_lost_digests(struct proof_of_audit *p, const struct anchoring *g)
{
    const struct audit_anchor *newest = NULL;

    for (size_t i = 0; i < p->order->anchor_count; i++) {
        const struct audit_anchor *anchor = &p->order->anchors[i];
        if (anchor->note || g->is_found[i])
            continue;
        p->result->lost_anchors++;
        if (!newest || anchor->leaves > newest->leaves)
            newest = anchor;
    }
    if (newest && (newest->leaves > g->leaves || g->leaves == 0))
        audit_differs(
            p->result, AUDIT_ANCHORS,
            "audit log: the anchor in line %zu is of a checkpoint of %" PRId64
            " leaves that is not in the database: it was changed or taken out, or it was removed with other old ones "
            "since then, where a newer anchor helps",
            newest->line, newest->leaves);
}

/* --- checkpoints of the database -------------------------------------------------------------- */

/* One without a signature is counted, no more: the installation may have had no key. */
static void check_signature(struct proof_of_audit *p, const struct promise *checkpoint, const char *owner,
                            const char *note, const char *signed_by)
{
    CLEANUP(freep) char *name = audit_note_signer(owner);

    if (!signed_by)
        p->result->unsigned_checkpoints++;
    else if (!note_is_signed(note, name, signed_by))
        audit_differs(p->result, AUDIT_CHECKPOINTS, "audit log: %s is not signed by the key that it names",
                      checkpoint->name);
}

/* Whether one of the keys has signed it. */
static bool take_checkpoint(struct proof_of_audit *p, struct anchoring *g, const struct pg_result *rows,
                            int i)
{
    CLEANUP(freep) struct audit_tree_state *trees = NULL;
    const char *note = pg_get_text(rows, i, 1);
    struct promise checkpoint = {.checkpoint = pg_get_i64(rows, i, 0),
                                 .verified = pg_get_i64(rows, i, 0) <= p->order->since};
    size_t count = 0;
    const char *owner = audit_note_owner(p->audit, note, &trees, &count);
    const char *signer = owner ? owner : p->audit->installation;
    bool is_signed = is_signed_by_key(p, signer, note);

    snprintf(checkpoint.name, sizeof(checkpoint.name), "checkpoint %" PRId64, checkpoint.checkpoint);
    check_signature(p, &checkpoint, signer, note, pg_is_null(rows, i, 2) ? NULL : pg_get_text(rows, i, 2));
    if (!owner)
        audit_differs(p->result, AUDIT_CHECKPOINTS, "audit log: %s is no note of this installation",
                      checkpoint.name);
    checkpoint.anchored = find_digest(p, g, note);
    if (checkpoint.anchored)
        g->leaves = MAX(g->leaves, count_leaves(trees, count));
    /* The daemon signs what the database says: a signature tells nothing of what was there before. */
    checkpoint.anchored = checkpoint.anchored || is_signed;
    add_promises(p, &checkpoint, trees, count);
    p->result->checkpoints++;
    p->result->last_checkpoint = checkpoint.checkpoint;
    return is_signed;
}

int audit_read_checkpoints(struct proof_of_audit *p)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    struct anchoring g = {0};
    bool is_signed = false; /* the last one */

    pg_arg_i64(&args, p->order->since);
    int r = pg_query(p->audit->pg, &sql_audit_checkpoints, &args, &rows, &p->audit->err);
    if (r != PG_DONE)
        return r;
    g.is_found = xcalloc(p->order->anchor_count + 1, sizeof(*g.is_found));
    for (int i = 0; i < pg_rows(rows); i++)
        is_signed = take_checkpoint(p, &g, rows, i);
    for (size_t i = 0; i < p->order->anchor_count; i++)
        if (p->order->anchors[i].note)
            take_note(p, &g, &p->order->anchors[i]);
    find_lost_digests(p, &g);
    if (p->order->key_count && !is_signed)
        audit_differs(p->result, AUDIT_ANCHORS,
                      "audit log: the last checkpoint is not signed by the key that was given");
    free(g.is_found);
    if (p->promise_count)
        qsort(p->promises, p->promise_count, sizeof(*p->promises), by_tree_and_size);
    return PG_DONE;
}
