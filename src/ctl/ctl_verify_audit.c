/* anubisctl verify --audit: the proof of the audit log. */
#include <inttypes.h>

#include "audit/audit_proof.h"
#include "ctl/anchors.h"
#include "ctl/ctl.h"
#include "sql/statements.h"

#define LAST_IDS 1000000

static void add_anchors(struct sheet *sheet, const struct anchors *anchors, const struct audit_result *result)
{
    bool any = anchors->count || anchors->key_count;

    sheet_add(sheet, "anchors", anchors->count ? "anchors" : NULL, value_i64((int64_t) anchors->count));
    sheet_add(sheet, "anchors_gone", anchors->count ? "of which not in the database" : NULL,
              value_i64(result->lost_anchors));
    sheet_add(sheet, "anchored_leaves", any ? "leaves that they prove" : NULL, value_i64(result->anchored));
}

/* The sections of anubisctl(8), WHEN THE PROOF IS WRONG, have the statements. */
static const char *const remedies[] = {
    [AUDIT_LEAVES] =
        "Leaves: keep the tables audit_* for whoever looks into it, then bring their rows back from a backup, or "
        "begin the log anew from Kafka",
    [AUDIT_STRAYS] = "Rows that belong to no tree: keep them, then delete them",
    [AUDIT_TILES] = "Tiles: \"SELECT audit_tiles_make()\" makes them anew from the leaves",
    [AUDIT_ROOTS] =
        "Roots: when no leaf is wrong, \"SELECT audit_tiles_make()\" makes them anew from the leaves",
    [AUDIT_CHECKPOINTS] =
        "Checkpoints: the topic <kafka.topic_prefix>audit and the journal tell what they were; where they are the same, "
        "what they cover was changed, and helps what helps for leaves",
    [AUDIT_ANCHORS] =
        "Anchors: when they are right and their keys are yours, the log was made anew, or cut off, with all that it fits; "
        "keep the database, and compare it with a backup of before",
    [AUDIT_LEDGER] =
        "The ledger: bring its rows back from a backup; columns that the log covers can be taken from it",
    [AUDIT_WITHOUT_LEAF] =
        "Events without a leaf: \"anubisctl replay --group monitoring\" has what Kafka has come into the log again",
    [AUDIT_TWICE] =
        "Events that have two leaves: bring the log back from a backup, or begin it anew from Kafka",
    [AUDIT_UNMARKED] =
        "Marks of events that are in the log are gone (consumer_bitmaps was emptied, or restored from another time than "
        "the rest): \"anubisctl replay --group monitoring\" marks them again",
    [AUDIT_SALTS] =
        "Salts: bring their rows back from a backup; without them nobody can prove any more what those events said, and all "
        "else is proven as before",
};
_Static_assert(ARRAY_SIZE(remedies) == AUDIT_KINDS, "each kind has its remedy");

static void add_remedies(struct sheet *sheet, unsigned kinds)
{
    struct sentences s = {0};

    for (size_t kind = 0; kind < AUDIT_KINDS; kind++)
        if (kinds & 1U << kind)
            sentences_add(&s, "%s.", remedies[kind]);
    if (s.count) {
        sheet_empty_line(sheet);
        sheet_say(sheet, NULL, "What helps (the statements stand in anubisctl(8), WHEN THE PROOF IS WRONG)");
    }
    sheet_list(sheet, "remedies", &s);
    sentences_free(&s);
}

static int judge(struct sheet *sheet, const struct audit_result *result, int64_t unlogged)
{
    int64_t found = (int64_t) result->differences.count + result->unnamed;

    if (found) {
        sheet_empty_line(sheet);
        sheet_say(sheet, NULL, "WRONG: %" PRId64 " difference%s", found, plural(found));
        sheet_add(sheet, "verdict", NULL, value_text("wrong"));
        return CTL_DIFFERENT;
    }
    if (result->lost_anchors) {
        sheet_say(
            sheet, NULL,
            "not proven: checkpoints of some anchors are no longer in the database, which has one an hour "
            "of those before the last hour; all else is as it was written");
        sheet_add(sheet, "verdict", NULL, value_text("not proven"));
        return CTL_BEHIND;
    }
    if (unlogged) {
        sheet_say(
            sheet, NULL,
            "not yet: %" PRId64
            " published event%s not come into the audit log (the group monitoring is behind, stopped or "
            "off: \"anubisctl status\"); all else is as it was written. Should that stay while it runs, \"anubisctl replay "
            "--group monitoring\" has them come",
            unlogged, unlogged == 1 ? " has" : "s have");
        sheet_add(sheet, "verdict", NULL, value_text("behind"));
        return CTL_BEHIND;
    }
    sheet_say(sheet, NULL, "proven: the audit log is as it was written, and as the ledger is");
    sheet_add(sheet, "verdict", NULL, value_text("proven"));
    return 0;
}

static int add_verdict(struct sheet *sheet, const struct audit *a, const struct anchors *anchors,
                       const struct audit_result *result, int64_t unlogged)
{
    sheet_add(sheet, "trees", "trees", value_i64((int64_t) a->count));
    sheet_add(sheet, "leaves", "leaves verified", value_i64(result->leaves));
    sheet_add(sheet, "checkpoints", "checkpoints", value_i64(result->checkpoints));
    sheet_add(sheet, "unsigned_checkpoints", "of which unsigned", value_i64(result->unsigned_checkpoints));
    sheet_add(sheet, "unlogged", unlogged ? "events that it lacks yet" : NULL, value_i64(unlogged));
    add_anchors(sheet, anchors, result);
    sheet_empty_line(sheet);
    if (result->differences.count)
        sheet_say(sheet, NULL, "Differences");
    sheet_list(sheet, "differences", &result->differences);
    add_remedies(sheet, result->kinds);
    return judge(sheet, result, unlogged);
}

/* The next proof may begin here. */
static int note_verified(struct audit *a, int64_t checkpoint)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    if (!checkpoint)
        return PG_DONE;
    pg_arg_i64(&args, checkpoint);
    return pg_query(a->pg, &sql_audit_note_verified, &args, NULL, &a->err);
}

/* What was verified before is told by the database, which counts for nothing where there is an anchor. */
static int prove(struct audit *a, struct pg *pg, bool all, struct audit_order *order,
                 struct audit_result *ret)
{
    *ret = (struct audit_result){0};
    int r = audit_open(a, pg);
    if (r == PG_DONE && !all)
        r = pg_query_i64(pg, &sql_audit_verified, NULL, &order->since, &a->err);
    if (r == PG_DONE)
        r = audit_prove(a, order, ret);
    if (r == PG_DONE)
        r = audit_end(a);
    if (r == PG_DONE && ret->differences.count == 0 && ret->lost_anchors == 0)
        r = note_verified(a, ret->last_checkpoint);
    return r;
}

/* What should be there, and is not: without --full of the last events. */
static int count_unlogged(const struct ctl *c, struct pg *pg, bool all, int64_t *ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *bounds = NULL;

    if (!c->config->consumers.monitoring)
        return PG_DONE;
    int r = pg_query(pg, &sql_verify_bounds, NULL, &bounds, err);
    if (r != PG_DONE)
        return r;
    pg_arg_i64(&args, pg_get_i64(bounds, 0, 0) + 1);
    pg_arg_i64(&args, all ? INT64_MAX : LAST_IDS);
    return pg_query_i64(pg, &sql_verify_logged, &args, ret, err);
}

static int verify(struct ctl *c, const struct anchors *anchors)
{
    struct audit a = {0};
    struct audit_result result = {0};
    struct sheet *sheet;
    struct pg *pg = NULL;
    struct pg_params params = ctl_session(c, "anubisctl verify");
    struct audit_order order = {.helpers = &params,
                                .anchors = anchors->items,
                                .anchor_count = anchors->count,
                                .keys = anchors->keys,
                                .key_count = anchors->key_count};

    params.statement_timeout_usec = 0;
    int code = ctl_connect(c, &params, &pg);
    if (code)
        return code;
    bool all = c->proof.full || anchors->count || anchors->key_count;
    int64_t unlogged = 0;
    int r = count_unlogged(c, pg, all, &unlogged, &a.err);
    if (r == PG_DONE)
        r = prove(&a, pg, all, &order, &result);
    sheet_new(&sheet);
    if (r == PG_DONE)
        code = ctl_show(c, sheet, add_verdict(sheet, &a, anchors, &result, unlogged));
    else
        code = ctl_refused(r, "verify", &a.err);
    sheet_free(sheet);
    sentences_free(&result.differences);
    audit_close(&a);
    pg_close(pg);
    return code;
}

int ctl_verify_audit(struct ctl *c)
{
    CLEANUP(anchors_done) struct anchors anchors = {0};
    int code = anchors_read(c->proof.anchor, c->proof.key, &anchors);

    return code ? code : verify(c, &anchors);
}
