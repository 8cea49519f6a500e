/* anubisctl resend: sends subscriptions once more that an institution had only seemed to take. See
 * subscriptions_resend() in 16_resend.sql. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "ctl/ctl_batches.h"
#include "sql/statements.h"

struct resending {
    struct ctl *ctl;
    struct pg *pg;
    int64_t *ids, rate; /* rate 0 = all at once */
    char *words;        /* what the events say */
    int64_t resent;
    struct sheet *sheet;
    struct table *copies;
    struct sentences refused;
    struct error err;
};

static void note(struct resending *r, struct pg_row row)
{
    int64_t id = pg_next_i64(&row);
    bool exists = !pg_next_is_null(&row);
    const char *status = pg_next_text(&row);
    bool has_copy = !pg_next_is_null(&row);
    int64_t copy = pg_next_i64(&row);
    bool is_new = pg_next_bool(&row);

    if (is_new || (r->ctl->dry_run && strcmp(status, "sent") == 0 && !has_copy)) {
        table_add(r->copies, value_i64(id));
        table_add(r->copies, is_new ? value_i64(copy) : value_null());
        r->resent++;
    } else if (!exists)
        sentences_add(&r->refused, "there is no subscription %" PRId64, id);
    else if (has_copy)
        sentences_add(&r->refused,
                      "subscription %" PRId64 " was sent again before: %" PRId64 " goes out in its place", id,
                      copy);
    else if (strcmp(status, "erased") == 0)
        sentences_add(&r->refused, "subscription %" PRId64 " was erased: there is nothing to be sent", id);
    else if (strcmp(status, "sent") != 0)
        sentences_add(&r->refused, "subscription %" PRId64 " was not sent: its status is \"%s\"", id, status);
    else
        sentences_add(&r->refused, "subscription %" PRId64 " is locked by another session: try again", id);
}

static int resend(const int64_t *ids, size_t count, void *userdata)
{
    struct resending *r = userdata;
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    pg_args_clear(&args);
    pg_arg_i64s(&args, ids, sizeof(*ids), count);
    pg_arg_text(&args, r->ctl->dry_run ? NULL : r->words);
    pg_arg_i64(&args, r->rate);
    pg_arg_i64(&args, r->resent);
    int res = pg_query(r->pg, &sql_resend_some, &args, &rows, &r->err);
    for (int i = 0; res == PG_DONE && i < pg_rows(rows); i++)
        note(r, (struct pg_row){rows, i, 0});
    return res;
}

static int work(struct resending *r)
{
    static const struct table_column columns[] = {{"id", "SUBSCRIPTION", true},
                                                  {"copy", "GOES OUT AS", true}};

    sheet_new(&r->sheet);
    r->copies = sheet_table(r->sheet, "resent", "Sent again", "none", columns, ARRAY_SIZE(columns));
    int res = ctl_in_batches(r->ctl, r->pg, r->ids, (size_t) r->ctl->arg_count, resend, r, &r->refused);
    /* What was done before it stays done. */
    if (res != PG_DONE && r->resent == 0)
        return ctl_refused(res, "send subscriptions again", &r->err);
    if (r->ctl->dry_run)
        sheet_say(r->sheet, "", "Nothing was changed (--dry-run).");
    sheet_list(r->sheet, "refused", &r->refused);
    int code = ctl_show(r->ctl, r->sheet, r->refused.count ? CTL_DIFFERENT : 0);
    return res == PG_DONE ? code : ctl_refused(res, "send the others again", &r->err);
}

static int read_options(struct resending *r)
{
    const struct ctl *c = r->ctl;
    CLEANUP(freep) char *user = ctl_operator();

    if (c->choice.rate && parse_i64(c->choice.rate, 1, 1000000, &r->rate) < 0) {
        ctl_say("--rate takes a positive whole number, not \"%s\"", c->choice.rate);
        return EX_USAGE;
    }
    if (c->reason && (!*c->reason || strlen(c->reason) > CTL_REASON_MAX)) {
        ctl_say("--reason takes a text of at most %d bytes", CTL_REASON_MAX);
        return EX_USAGE;
    }
    r->words = xasprintf("operator %s: %s", user, c->reason ? c->reason : "anubisctl resend");
    return ctl_read_ids(c, &r->ids);
}

int ctl_resend(struct ctl *c)
{
    struct resending r = {.ctl = c};
    struct pg_params params = ctl_session(c, "anubisctl resend");

    params.writes = true;
    int code = read_options(&r);
    if (!code)
        code = ctl_connect(c, &params, &r.pg);
    if (!code)
        code = work(&r);
    pg_close(r.pg);
    sheet_free(r.sheet);
    sentences_free(&r.refused);
    free(r.ids);
    free(r.words);
    return code;
}
