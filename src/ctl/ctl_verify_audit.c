/* anubisctl verify --audit: the proof of the audit log. */
#include <inttypes.h>

#include "audit/audit_proof.h"
#include "ctl/ctl.h"
#include "sql/statements.h"

static int add_verdict(struct sheet *sheet, const struct audit *a, const struct audit_result *result)
{
    int64_t found = (int64_t) result->differences.count + result->unnamed;

    sheet_add(sheet, "trees", "trees", value_i64((int64_t) a->count));
    sheet_add(sheet, "leaves", "leaves verified", value_i64(result->leaves));
    sheet_add(sheet, "checkpoints", "checkpoints", value_i64(result->checkpoints));
    sheet_add(sheet, "unsigned_checkpoints", "of which unsigned", value_i64(result->unsigned_checkpoints));
    sheet_empty_line(sheet);
    if (found)
        sheet_say(sheet, NULL, "Differences");
    sheet_list(sheet, "differences", &result->differences);
    if (found) {
        sheet_empty_line(sheet);
        sheet_say(sheet, NULL, "WRONG: %" PRId64 " difference%s; see anubisctl(8), WHEN THE PROOF IS WRONG",
                  found, plural(found));
    } else {
        sheet_say(sheet, NULL, "proven: the audit log is as it was written, and as the ledger is");
    }
    sheet_add(sheet, "verdict", NULL, value_text(found ? "wrong" : "proven"));
    return found ? CTL_DIFFERENT : 0;
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

static int prove(struct audit *a, struct pg *pg, bool all, struct audit_result *ret)
{
    struct error err;
    int64_t since = 0;

    *ret = (struct audit_result){0};
    int r = pg_execute(pg,
                       "begin isolation level repeatable read read only; set local statement_timeout = 0; "
                       "lock table subscription_events in access share mode",
                       &err);
    if (r != PG_DONE) {
        a->err = err;
        return r;
    }
    r = audit_open(a, pg);
    if (r == PG_DONE && !all)
        r = pg_query_i64(pg, &sql_audit_verified, NULL, &since, &a->err);
    if (r == PG_DONE)
        r = audit_prove(a, since, ret);
    if (r == PG_DONE)
        r = pg_execute(pg, "rollback", &a->err);
    if (r == PG_DONE && ret->differences.count == 0)
        r = note_verified(a, ret->last_checkpoint);
    return r;
}

int ctl_verify_audit(struct ctl *c)
{
    struct audit a = {0};
    struct audit_result result;
    struct sheet *sheet;
    struct pg *pg = NULL;
    struct pg_params params = ctl_session(c, "anubisctl verify");

    params.statement_timeout_usec = 0;
    int code = ctl_connect(c, &params, &pg);
    if (code)
        return code;
    int r = prove(&a, pg, c->proof.full, &result);
    sheet_new(&sheet);
    if (r == PG_DONE)
        code = ctl_show(c, sheet, add_verdict(sheet, &a, &result));
    else
        code = ctl_refused(r, "verify", &a.err);
    sheet_free(sheet);
    sentences_free(&result.differences);
    audit_close(&a);
    pg_close(pg);
    return code;
}
