/* The proof of the audit log. See audit_proof.h.
 *
 * Each tree is a job (audit_leaves.c), and of a whole proof each part of the ledger, too (audit_ledger.c). */
#include "audit/audit_proof.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "audit/audit_internal.h"

/* --- jobs ------------------------------------------------------------------------------------- */

/* Trees that a checkpoint has, and the database has not. */
static void find_lost_trees(struct proof_of_audit *p)
{
    for (size_t i = 0; i < p->promise_count; i++) {
        const struct promise *promise = &p->promises[i];
        if (!audit_find(p->audit, promise->tree.topic, promise->tree.partition))
            audit_differs(p->result, promise->anchored ? AUDIT_ANCHORS : AUDIT_CHECKPOINTS,
                          "audit log, %s/%" PRId32 ": the tree is gone; %s has it with %" PRIu64 " leaves",
                          promise->tree.topic, promise->tree.partition, promise->name, promise->tree.size);
    }
}

/* Trees first, as they may be larger than the parts of the ledger. */
static int job(void *userdata, struct audit *a, size_t number)
{
    const struct proof_of_audit *p = userdata;
    struct report *report = &p->reports[number];
    size_t trees = p->audit->count;

    return number < trees ? audit_prove_tree(p, a, &p->audit->trees[number], report)
                          : audit_count_part(p, a, number - trees, report);
}

/* In the order of the trees, whoever has proven them. */
static void take_reports(struct proof_of_audit *p)
{
    for (size_t i = 0; i < p->audit->count; i++) {
        const struct report *report = &p->reports[i];
        for (size_t d = 0; d < report->differences.count; d++)
            sentences_add(&p->result->differences, "%s", report->differences.items[d]);
        p->result->unnamed += (int64_t) (report->named - report->differences.count);
        p->result->kinds |= report->kinds;
        p->result->leaves += report->leaves;
    }
}

/* Has the log the events of the ledger, as far as their multisets tell? */
static bool is_like_ledger(const struct proof_of_audit *p, bool *ret_has_old)
{
    struct multiset log = MULTISET_EMPTY, ledger = MULTISET_EMPTY;
    bool is_strange = p->part_count == 0;

    for (size_t i = 0; i < p->audit->count + p->part_count; i++) {
        const struct report *report = &p->reports[i];
        multiset_join(i < p->audit->count ? &log : &ledger, &report->events);
        is_strange = is_strange || report->is_strange;
        *ret_has_old = *ret_has_old || report->has_old;
    }
    return !is_strange && multiset_is_same(&log, &ledger);
}

static int prove_all(struct proof_of_audit *p)
{
    size_t jobs = p->audit->count + p->part_count;
    bool has_old = false;

    p->reports = xcalloc(jobs + 1, sizeof(*p->reports));
    for (size_t i = 0; i < jobs; i++)
        p->reports[i].events = MULTISET_EMPTY;
    int r = audit_share(p->audit, p->order->helpers, jobs, job, p);
    if (r == PG_DONE)
        take_reports(p);
    if (r == PG_DONE && !is_like_ledger(p, &has_old))
        r = audit_compare_ledger(p, false);
    else if (r == PG_DONE && has_old)
        r = audit_compare_ledger(p, true);
    for (size_t i = 0; i < jobs; i++)
        sentences_free(&p->reports[i].differences);
    free(p->reports);
    return r;
}

/* Of each tree up to the largest size that somebody vouches for. Promises are sorted by tree and size. */
static void count_anchored(struct proof_of_audit *p)
{
    for (size_t i = 0; i < p->audit->count; i++) {
        const struct audit_tree_state *tree = &p->audit->trees[i].state;
        uint64_t size = 0;
        for (size_t n = 0; n < p->promise_count; n++) {
            const struct promise *promise = &p->promises[n];
            if (promise->anchored && promise->tree.partition == tree->partition &&
                strcmp(promise->tree.topic, tree->topic) == 0)
                size = MAX(size, promise->tree.size);
        }
        p->result->anchored += (int64_t) MIN(size, tree->size);
    }
}

int audit_prove(struct audit *a, const struct audit_order *order, struct audit_result *ret)
{
    struct proof_of_audit p = {.audit = a, .order = order, .result = ret};

    *ret = (struct audit_result){0};
    multiset_draw(&p.key);
    int r = audit_read_checkpoints(&p);
    if (r == PG_DONE)
        find_lost_trees(&p);
    if (r == PG_DONE && order->since == 0)
        r = audit_ledger_parts(&p);
    if (r == PG_DONE)
        r = prove_all(&p);
    if (r == PG_DONE)
        r = audit_find_strays(&p);
    if (r == PG_DONE && order->since == 0)
        r = audit_check_salts(&p);
    if (r == PG_DONE)
        count_anchored(&p);
    free(p.promises);
    free(p.parts);
    return r;
}
