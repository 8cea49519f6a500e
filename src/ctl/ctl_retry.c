/* anubisctl retry: puts failed subscriptions back. See ctl_retry_choice.part.sql. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <time.h>

#include "base/timeutil.h"
#include "ctl/ctl_batches.h"
#include "sql/statements.h"

#define RETRY_IDS_NAMED 5 /* by retry_others */

struct retry {
    struct ctl *ctl;
    struct pg *pg;
    int64_t integration, status, rate; /* 0 = any; all at once */
    char *since, *until;               /* see ctl_retry_choice.part.sql; NULL = whenever */
    int64_t *ids;
    size_t id_count;
    char *words; /* what the events say */
    int64_t chosen, integrations, put_back, last;
    struct sentences refused, others;
    struct error err;
};

/* --- what is chosen --------------------------------------------------------------------------- */

static int read_number(const char *text, const char *option, int64_t max, int64_t *ret)
{
    if (!text || parse_i64(text, 1, max, ret) == 0)
        return 0;
    ctl_say("%s takes a positive whole number, not \"%s\"", option, text);
    return EX_USAGE;
}

static int read_ids(struct retry *r, const char *text)
{
    CLEANUP(freep) char *copy = text ? xstrdup(text) : NULL;
    char *rest = NULL;

    for (char *word = copy ? strtok_r(copy, ",", &rest) : NULL; word; word = strtok_r(NULL, ",", &rest)) {
        r->ids = xreallocarray(r->ids, r->id_count + 1, sizeof(*r->ids));
        if (parse_i64(word, 1, INT64_MAX, &r->ids[r->id_count++]) < 0) {
            ctl_say("--ids takes positive whole numbers such as 1,2,3, not \"%s\"", word);
            return EX_USAGE;
        }
    }
    if (text && r->id_count == 0) {
        ctl_say("--ids takes positive whole numbers such as 1,2,3");
        return EX_USAGE;
    }
    return 0;
}

static int read_choice(struct retry *r)
{
    const struct ctl *c = r->ctl;

    if (!c->choice.integration && !c->choice.since && !c->choice.until && !c->choice.error &&
        !c->choice.status && !c->choice.ids) {
        ctl_say("retry needs a choice: --integration, --since, --until, --error, --status or --ids");
        return EX_USAGE;
    }
    /* It is in every error, and whoever wrote it meant a variable that is empty. */
    if (c->choice.error && !*c->choice.error) {
        ctl_say("--error takes a part of the text, and an empty one chooses nothing");
        return EX_USAGE;
    }
    int code = read_number(c->choice.integration, "--integration", INT64_MAX, &r->integration);
    if (!code)
        code = read_number(c->choice.status, "--status", 999, &r->status);
    if (!code)
        code = read_number(c->choice.rate, "--rate", 1000000, &r->rate);
    if (!code)
        code = ctl_read_time(c->choice.since, "--since", &r->since);
    if (!code)
        code = ctl_read_time(c->choice.until, "--until", &r->until);
    if (!code)
        code = read_ids(r, c->choice.ids);
    return code;
}

/* --- putting back ----------------------------------------------------------------------------- */

static void fill_args(const struct retry *r, const int64_t *ids, size_t id_count, struct pg_args *args)
{
    static const int64_t none;

    pg_args_clear(args);
    pg_arg_i64(args, r->integration);
    pg_arg_text(args, r->since);
    pg_arg_text(args, r->ctl->choice.error);
    pg_arg_i32(args, (int32_t) r->status);
    pg_arg_i64s(args, ids ? ids : &none, sizeof(none), id_count);
    pg_arg_i64(args, r->last);
    pg_arg_i32(args, CTL_BATCH);
    pg_arg_text(args, r->words);
    pg_arg_i64(args, r->rate);
    pg_arg_i64(args, r->put_back);
    pg_arg_text(args, r->until);
}

static int count_chosen(struct retry *r)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    fill_args(r, r->ids, r->id_count, &args);
    int res = pg_query(r->pg, &sql_retry_count, &args, &rows, &r->err);
    if (res != PG_DONE)
        return res;
    struct pg_row row = {rows, 0, 0};
    r->chosen = pg_next_i64(&row);
    r->integrations = pg_next_i64(&row);
    return PG_DONE;
}

/* "3 of --ids are not failed: their status is "sent" (4, 5, 6)" */
static void note_others(struct retry *r, struct pg_row row)
{
    const char *kind = pg_next_text(&row);
    int64_t count = pg_next_i64(&row);
    const char *ids = pg_next_text(&row), *more = count > RETRY_IDS_NAMED ? ", …" : "";
    const char *are = count == 1 ? "is" : "are", *their = count == 1 ? "its" : "their";

    if (strcmp(kind, "missing") == 0)
        sentences_add(&r->others, "%" PRId64 " of --ids: there %s no such subscription%s (%s%s)", count, are,
                      plural(count), ids, more);
    else if (strcmp(kind, "erased") == 0)
        sentences_add(&r->others, "%" PRId64 " of --ids %s erased: there is nothing to be sent (%s%s)", count,
                      count == 1 ? "was" : "were", ids, more);
    else if (strcmp(kind, "failed") == 0)
        sentences_add(&r->others, "%" PRId64 " of --ids %s failed, but the other options leave %s out (%s%s)",
                      count, count == 1 ? "has" : "have", count == 1 ? "it" : "them", ids, more);
    else
        sentences_add(&r->others, "%" PRId64 " of --ids %s not failed: %s status is \"%s\" (%s%s)", count,
                      are, their, kind, ids, more);
}

/* Those that were named, and are not chosen. */
static int find_others(struct retry *r)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    if (r->id_count == 0)
        return PG_DONE;
    fill_args(r, r->ids, r->id_count, &args);
    int res = pg_query(r->pg, &sql_retry_others, &args, &rows, &r->err);
    for (int i = 0; res == PG_DONE && i < pg_rows(rows); i++)
        note_others(r, (struct pg_row){rows, i, 0});
    return res;
}

static int put_back(const int64_t *ids, size_t count, void *userdata)
{
    struct retry *r = userdata;
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    fill_args(r, ids, count, &args);
    int res = pg_query(r->pg, &sql_retry_some, &args, &rows, &r->err);
    if (res != PG_DONE)
        return res;
    r->put_back += pg_get_i64(rows, 0, 0);
    ctl_progress("put back: %" PRId64 " of %" PRId64, r->put_back, r->chosen);
    return PG_DONE;
}

/* The next ids that are chosen; none after the last one. */
static int find_next(struct retry *r, int64_t ids[CTL_BATCH], size_t *ret_count)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    fill_args(r, r->ids, r->id_count, &args);
    int res = pg_query(r->pg, &sql_retry_next, &args, &rows, &r->err);
    *ret_count = res == PG_DONE ? (size_t) pg_rows(rows) : 0;
    for (size_t i = 0; i < *ret_count; i++)
        ids[i] = pg_get_i64(rows, (int) i, 0);
    return res;
}

static int put_back_all(struct retry *r)
{
    int64_t ids[CTL_BATCH];
    size_t count;
    int res;

    do {
        res = find_next(r, ids, &count);
        if (res == PG_DONE)
            res = ctl_in_batches(r->ctl, r->pg, ids, count, put_back, r, &r->refused);
        if (count > 0)
            r->last = ids[count - 1];
    } while (res == PG_DONE && count > 0 && !ctl_is_stopped(r->ctl));
    ctl_progress(NULL);
    return res;
}

static int show(const struct retry *r)
{
    struct sheet *sheet;

    sheet_new(&sheet);
    sheet_add(sheet, "chosen", "failed, and chosen", value_i64(r->chosen));
    sheet_add(sheet, "integrations", "of integrations", value_i64(r->integrations));
    sheet_add(sheet, "put_back", "put back", value_i64(r->put_back));
    if (r->ctl->dry_run)
        sheet_say(sheet, "", "Nothing was changed (--dry-run).");
    else if (r->put_back + (int64_t) r->refused.count < r->chosen)
        sheet_say(sheet, "", "The others were locked, or changed meanwhile: call it again.");
    sheet_list(sheet, "refused", &r->refused);
    sheet_list(sheet, "not_chosen", &r->others);
    int code = ctl_show(r->ctl, sheet, r->refused.count || r->others.count ? CTL_DIFFERENT : 0);
    sheet_free(sheet);
    return code;
}

static int work(struct retry *r)
{
    struct pg_params params = ctl_session(r->ctl, "anubisctl retry");

    params.writes = true;
    params.statement_timeout_usec = 0;
    int code = ctl_connect(r->ctl, &params, &r->pg);
    if (!code)
        code = ctl_check_part(r->ctl, r->pg, NULL, NULL);
    if (code)
        return code;
    int res = count_chosen(r);
    if (res == PG_DONE && r->chosen == 0)
        code = ctl_name_missing(r->pg, r->integration);
    if (code)
        return code;
    if (res == PG_DONE)
        res = find_others(r);
    if (res == PG_DONE && !r->ctl->dry_run)
        res = put_back_all(r);
    return res == PG_DONE ? show(r) : ctl_refused(res, "put subscriptions back", &r->err);
}

int ctl_retry(struct ctl *c)
{
    struct retry r = {.ctl = c};
    CLEANUP(freep) char *user = ctl_operator();

    r.words = xasprintf("put back by %s (anubisctl retry)", user);
    int code = read_choice(&r);
    if (!code)
        code = work(&r);
    pg_close(r.pg);
    sentences_free(&r.refused);
    sentences_free(&r.others);
    free(r.since);
    free(r.until);
    free(r.ids);
    free(r.words);
    return code;
}
