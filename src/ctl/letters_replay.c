/* anubisctl dead-letters replay: each message through its group's handlers, in a transaction of its own. The
 * marks see to it that it is handled once. */
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/timeutil.h"
#include "consumers/letter.h"
#include "consumers/store_consumer.h"
#include "ctl/ctl_batches.h"
#include "ctl/letters.h"
#include "handlers/groups.h"
#include "sql/statements.h"

#define MOVED_TRIES 20

struct replaying {
    struct ctl *ctl;
    struct pg *pg;
    char installation[INSTALLATION_TEXT];
    int64_t rate; /* a second; 0 = at once */
    int64_t handled, before, failed, busy;
    struct sentences failures;
    struct error err;
};

static const struct consumer_group *find_group(const char *model)
{
    for (size_t i = 0; i < groups_count; i++)
        if (strcmp(groups[i].model, model) == 0 && (groups[i].handlers[0] || groups[i].inbox))
            return &groups[i];
    return NULL;
}

static void read_headers(const struct pg_result *rows, struct kafka_message *m)
{
    for (int i = 0; i < pg_rows(rows) && m->header_count < KAFKA_HEADERS_MAX; i++) {
        struct kafka_header *h = &m->headers[m->header_count++];
        struct pg_row row = {rows, i, 0};
        h->name = pg_next_text(&row);
        h->value = pg_next_blob(&row);
    }
}

static int refuse(const char *why, const char **ret_fault)
{
    *ret_fault = why;
    return LETTER_FAILED;
}

/* In the transaction under way. 0 = it is no longer open. */
static int handle(struct replaying *r, const struct pg_args *id, const char **ret_fault)
{
    CLEANUP(pg_result_freep) struct pg_result *letter = NULL, *headers = NULL;
    CLEANUP(freep) struct kafka_message *m = xcalloc(1, sizeof(*m));

    int res = pg_query(r->pg, &sql_letter_take, id, &letter, &r->err);
    if (res == PG_DONE)
        res = pg_query(r->pg, &sql_letter_headers, id, &headers, &r->err);
    if (res != PG_DONE || pg_rows(letter) == 0)
        return res;
    struct pg_row row = {letter, 0, 0};
    const struct consumer_group *group = find_group(pg_next_text(&row));
    if (!group)
        return refuse("this version has no handler for its group", ret_fault);
    m->topic = pg_next_text(&row);
    m->partition = (int32_t) pg_next_i64(&row);
    m->offset = pg_next_i64(&row);
    m->key = pg_next_blob(&row);
    m->value = pg_next_blob(&row);
    if (!pg_next_bool(&row))
        return refuse("its headers are no JSON object", ret_fault);
    read_headers(headers, m);
    return letter_handle(r->pg, group, r->installation, m, ret_fault, &r->err);
}

static int note_failure(struct replaying *r, int64_t id, const char *fault)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    r->failed++;
    if (r->failures.count < 100)
        sentences_add(&r->failures, "dead letter %" PRId64 ": %s", id, fault);
    if (r->ctl->dry_run)
        return PG_DONE;
    pg_arg_i64(&args, id);
    pg_arg_text(&args, fault);
    return pg_query(r->pg, &sql_letter_failed, &args, NULL, &r->err);
}

static int end_transaction(struct replaying *r, const struct pg_args *id, bool done)
{
    int res = done ? pg_query(r->pg, &sql_letter_replayed, id, NULL, &r->err) : PG_DONE;

    return res == PG_DONE ? pg_execute(r->pg, done && !r->ctl->dry_run ? "commit" : "rollback", &r->err)
                          : res;
}

static int replay_one(struct replaying *r, int64_t id)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(freep) char *words = NULL;
    const char *fault = NULL;
    int end, res;

    pg_arg_i64(&args, id);
    for (int tries = 1;; tries++) {
        res = pg_execute(r->pg, "begin", &r->err);
        end = res == PG_DONE ? handle(r, &args, &fault) : res;
        if (end < 0)
            return end;
        words = fault ? xstrdup(fault) : NULL;
        res = end_transaction(r, &args, end == LETTER_HANDLED || end == LETTER_BEFORE);
        if (res != PG_DONE || end != LETTER_MOVED || tries == MOVED_TRIES)
            break;
    }
    if (res != PG_DONE)
        return res;
    r->handled += end == LETTER_HANDLED;
    r->before += end == LETTER_BEFORE;
    r->busy += end == 0 || end == LETTER_MOVED;
    return end == LETTER_FAILED ? note_failure(r, id, words) : PG_DONE;
}

static void keep_the_rate(const struct replaying *r)
{
    struct pollfd stop = {.fd = r->ctl->stop_fd, .events = POLLIN};

    if (r->rate > 0)
        poll(&stop, 1, (int) MAX(INT64_C(1000) / r->rate, INT64_C(1)));
}

static int show(const struct replaying *r)
{
    struct sheet *sheet;

    sheet_new(&sheet);
    sheet_add(sheet, "handled", "handled", value_i64(r->handled));
    sheet_add(sheet, "handled_before", "were handled before", value_i64(r->before));
    sheet_add(sheet, "failed", "failed again", value_i64(r->failed));
    sheet_add(sheet, "busy", "changed by others meanwhile: call it again", value_i64(r->busy));
    if (r->ctl->dry_run)
        sheet_say(sheet, "", "Nothing was changed (--dry-run).");
    sheet_list(sheet, "failures", &r->failures);
    int code = ctl_show(r->ctl, sheet, r->failed || r->busy ? CTL_DIFFERENT : 0);
    sheet_free(sheet);
    return code;
}

static int work(struct replaying *r)
{
    CLEANUP(freep) int64_t *ids = NULL;
    size_t count = 0, i = 0;

    int code = letters_choose(r->ctl, r->pg, &ids, &count);
    if (code)
        return code;
    int res = store_installation(r->pg, r->installation, &r->err);
    while (res == PG_DONE && i < count && !ctl_is_stopped(r->ctl)) {
        res = replay_one(r, ids[i++]);
        ctl_progress("replayed: %zu of %zu", i, count);
        if (i < count)
            keep_the_rate(r);
    }
    ctl_progress(NULL);
    return res == PG_DONE ? show(r) : ctl_refused(res, "replay dead letters", &r->err);
}

int letters_replay(struct ctl *c)
{
    struct replaying r = {.ctl = c};
    struct pg_params params = ctl_session(c, "anubisctl dead-letters");

    if (c->choice.rate && parse_i64(c->choice.rate, 1, 1000, &r.rate) < 0) {
        ctl_say("--rate takes a whole number from 1 to 1000, not \"%s\"", c->choice.rate);
        return EX_USAGE;
    }
    params.writes = true;
    int code = ctl_connect(c, &params, &r.pg);
    if (!code)
        code = work(&r);
    pg_close(r.pg);
    sentences_free(&r.failures);
    return code;
}
