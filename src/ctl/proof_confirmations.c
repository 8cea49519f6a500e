/* The part of "anubisctl verify" about the table confirmations. See confirmations_due.part.sql. */
#include <inttypes.h>

#include "ctl/proof.h"
#include "sql/statements.h"

static int add_unhandled(struct proof *p)
{
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    struct backlog *b = &p->backlog;

    int r = pg_query(p->pg, &sql_verify_unhandled, NULL, &rows, &p->err);
    if (r != PG_DONE)
        return r;
    struct pg_row row = {rows, 0, 0};
    int64_t count = pg_next_i64(&row), id = pg_next_i64(&row), at = pg_next_time(&row);
    if (count > 0 && (b->behind == 0 || at < b->behind_at)) {
        b->behind_at = at;
        b->behind_id = id;
    }
    b->behind += count;
    return PG_DONE;
}

int proof_verify_confirmations(struct proof *p)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    pg_arg_i64(&args, NAMED_MAX);
    int r = pg_query(p->pg, &sql_verify_confirmations, &args, &rows, &p->err);
    if (r != PG_DONE)
        return r;
    int named = pg_rows(rows);
    for (int i = 0; i < named; i++)
        sentences_add(&p->differences, "confirmations: subscription %" PRId64 ": %s", pg_get_i64(rows, i, 0),
                      pg_get_text(rows, i, 1));
    int64_t all = named ? pg_get_i64(rows, 0, 2) : 0;
    if (named)
        proof_note_kind(p, KIND_CONFIRMATIONS);
    if (all > named) {
        sentences_add(&p->differences, "confirmations: and %" PRId64 " more subscriptions", all - named);
        p->unnamed += all - named - 1; /* that sentence counts as one */
    }
    return add_unhandled(p);
}
