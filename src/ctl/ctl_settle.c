/* anubisctl settle: a person says what became of held subscriptions. See settle_by_hand in operate.sql. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "ctl/ctl_batches.h"
#include "sql/statements.h"

struct settling {
    struct ctl *ctl;
    struct pg *pg;
    int64_t *ids;
    size_t count;
    char *words; /* what the events say */
    int64_t settled;
    struct sentences refused;
    struct error err;
};

static int read_arguments(struct settling *s)
{
    const struct ctl *c = s->ctl;

    int code = ctl_read_ids(c, &s->ids);
    if (code)
        return code;
    s->count = (size_t) c->arg_count;
    if (!c->as || (strcmp(c->as, "sent") != 0 && strcmp(c->as, "failed") != 0))
        ctl_say("settle needs --as sent, when the institution has them, or --as failed, when it has not");
    else if (!c->reason || !*c->reason || strlen(c->reason) > CTL_REASON_MAX)
        ctl_say("settle needs --reason TEXT, of at most %d bytes: how you know, for those who come after you",
                CTL_REASON_MAX);
    else
        return 0;
    return EX_USAGE;
}

static void note(struct settling *s, struct pg_row row)
{
    int64_t id = pg_next_i64(&row);
    const char *status = pg_next_text(&row);
    bool is_held = pg_next_bool(&row), is_settled = pg_next_bool(&row);

    if (is_settled || (is_held && s->ctl->dry_run))
        s->settled++;
    else if (!*status)
        sentences_add(&s->refused, "there is no subscription %" PRId64, id);
    else if (!is_held)
        sentences_add(&s->refused, "subscription %" PRId64 " is not held: its status is \"%s\"", id, status);
    else
        sentences_add(&s->refused, "subscription %" PRId64 " is locked by another session: try again", id);
}

static int settle(const int64_t *ids, size_t count, void *userdata)
{
    struct settling *s = userdata;
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    pg_args_clear(&args);
    pg_arg_i64s(&args, ids, sizeof(*ids), count);
    pg_arg_text(&args, s->ctl->dry_run ? NULL : s->ctl->as);
    pg_arg_text(&args, s->words);
    int r = pg_query(s->pg, &sql_settle_by_hand, &args, &rows, &s->err);
    for (int i = 0; r == PG_DONE && i < pg_rows(rows); i++)
        note(s, (struct pg_row){rows, i, 0});
    return r;
}

static int show(struct settling *s)
{
    struct sheet *sheet;

    sheet_new(&sheet);
    sheet_add(sheet, "as", "as", value_text(s->ctl->as));
    sheet_add(sheet, "settled", "settled", value_i64(s->settled));
    if (s->ctl->dry_run)
        sheet_say(sheet, "", "Nothing was changed (--dry-run).");
    sheet_list(sheet, "refused", &s->refused);
    int code = ctl_show(s->ctl, sheet, s->refused.count ? CTL_DIFFERENT : 0);
    sheet_free(sheet);
    return code;
}

int ctl_settle(struct ctl *c)
{
    struct settling s = {.ctl = c};
    struct pg_params params = ctl_session(c, "anubisctl settle");
    CLEANUP(freep) char *user = ctl_operator();
    int code = read_arguments(&s);

    params.writes = true;
    if (!code)
        code = ctl_connect(c, &params, &s.pg);
    if (!code) {
        s.words = xasprintf("operator %s: %s", user, c->reason);
        int r = ctl_in_batches(c, s.pg, s.ids, s.count, settle, &s, &s.refused);
        code = r == PG_DONE ? show(&s) : ctl_refused(r, "settle subscriptions", &s.err);
    }
    pg_close(s.pg);
    sentences_free(&s.refused);
    free(s.ids);
    free(s.words);
    return code;
}
