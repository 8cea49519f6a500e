/* anubisctl erase: takes what names a person out of all tables. See subscriptions_erase() in 18_erase.sql.
 *
 * Each call of it is one transaction: whoever ends this command in the middle leaves nothing half done, and
 * runs it again. Rows in flight are waited for: their lease ends. */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/timeutil.h"
#include "ctl/ctl.h"
#include "ctl/erase_kafka.h"
#include "sql/statements.h"

#define LOOK_MS 200
#define LOCKED_USEC (60 * USEC_PER_SEC) /* how long other sessions' locks are waited for */
#define CPF_DIGITS 11
#define NAMED_MAX 20 /* ids that a question and an answer for people name */

struct erasure {
    struct ctl *ctl;
    struct pg *pg;
    int64_t id;               /* 0 = by CPF */
    char cpf[CPF_DIGITS + 1]; /* "" = by id */
    int64_t *ids;             /* of the person */
    size_t count, before;     /* before: so many of them are erased already */
    int64_t *left;            /* still to be erased */
    size_t left_count;
    int64_t *others; /* that only mention the CPF */
    size_t others_count;
    struct {
        int64_t erased, failed, events, salts, confirmations, unpublished;
    } done;
    int64_t *letters; /* dead letters that were erased */
    size_t letters_count;
    char *words;      /* what the events say */
    uint64_t began;   /* the search; 0 = there is none under way */
    char sqlstate[6]; /* why it was refused */
    struct error err;
};

/* --- whose ------------------------------------------------------------------------------------ */

static int read_arguments(struct erasure *e)
{
    const struct ctl *c = e->ctl;
    size_t digits = 0;

    for (const char *p = c->whose.cpf ? c->whose.cpf : ""; *p; p++) {
        if (*p < '0' || *p > '9')
            continue;
        if (digits < CPF_DIGITS)
            e->cpf[digits] = *p;
        digits++;
    }
    if (!c->whose.cpf == !c->whose.subscription)
        ctl_say("erase needs --subscription ID or --cpf CPF, one of them");
    else if (c->whose.cpf && digits != CPF_DIGITS)
        ctl_say("a CPF has %d digits", CPF_DIGITS);
    else if (c->whose.subscription)
        return ctl_read_id(c->whose.subscription, "a subscription's", &e->id);
    else
        return 0;
    return EX_USAGE;
}

static void show_search(void *userdata)
{
    const struct erasure *e = userdata;
    CLEANUP(freep) char *lasted = duration_words((int64_t) (now_monotonic_usec() - e->began));

    if (e->began)
        ctl_progress("looking through all subscriptions and events … (%s)", lasted);
}

static int find(struct erasure *e)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *found = NULL;

    e->began = now_monotonic_usec();
    pg_arg_i64(&args, e->id);
    pg_arg_text(&args, *e->cpf ? e->cpf : NULL);
    int r = pg_query(e->pg, &sql_erase_find, &args, &found, &e->err);
    e->began = 0;
    if (r != PG_DONE)
        return r;
    e->count = e->left_count = (size_t) pg_rows(found);
    e->ids = xcalloc(e->count + 1, sizeof(*e->ids));
    e->left = xcalloc(e->count + 1, sizeof(*e->left));
    for (size_t i = 0; i < e->count; i++) {
        e->ids[i] = e->left[i] = pg_get_i64(found, (int) i, 0);
        e->before += pg_get_bool(found, (int) i, 2);
    }
    return PG_DONE;
}

static int find_others(struct erasure *e)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *found = NULL;

    if (!*e->cpf)
        return PG_DONE;
    e->began = now_monotonic_usec();
    pg_arg_i64s(&args, e->ids, sizeof(*e->ids), e->count);
    pg_arg_text(&args, e->cpf);
    int r = pg_query(e->pg, &sql_erase_mentioned, &args, &found, &e->err);
    e->began = 0;
    if (r != PG_DONE)
        return r;
    e->others_count = (size_t) pg_rows(found);
    e->others = xcalloc(e->others_count + 1, sizeof(*e->others));
    for (size_t i = 0; i < e->others_count; i++)
        e->others[i] = pg_get_i64(found, (int) i, 0);
    return PG_DONE;
}

/* "1, 2, 3"; the caller frees. */
static char *name_ids(const int64_t *ids, size_t count)
{
    struct strbuf text = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    for (size_t i = 0; i < MIN(count, (size_t) NAMED_MAX); i++)
        strbuf_addf(&text, "%s%" PRId64, i ? ", " : "", ids[i]);
    if (count > NAMED_MAX)
        strbuf_addf(&text, " and %zu more", count - NAMED_MAX);
    char *words = xstrdup(strbuf_str(&text));
    strbuf_free(&text);
    return words;
}

/* A person at a terminal is asked. 0, or an exit code after it said why not. */
static int ask(const struct erasure *e)
{
    CLEANUP(freep) char *ids = name_ids(e->ids, e->count);
    char answer[16] = "";

    if (e->ctl->whose.yes || e->ctl->dry_run || e->before == e->count)
        return 0;
    if (!isatty(STDIN_FILENO)) {
        ctl_say("erase asks at a terminal; elsewhere it needs --yes");
        return EX_USAGE;
    }
    fprintf(
        stderr,
        "Payload, CPF, requests and answers of %zu subscription%s (%s) go for ever; what waits is not sent.\n"
        "Type \"yes\" to erase them: ",
        e->count, plural((int64_t) e->count), ids);
    fflush(stderr);
    if (fgets(answer, sizeof(answer), stdin) && strcmp(answer, "yes\n") == 0)
        return 0;
    ctl_say("nothing was erased");
    return EX_USAGE;
}

/* --- erase ------------------------------------------------------------------------------------ */

static void take_counts(struct erasure *e, struct pg_row row)
{
    free(TAKE_PTR(e->left));
    e->left_count = pg_next_i64_array(&row, &e->left);
    e->done.erased += pg_next_i64(&row);
    e->done.failed += pg_next_i64(&row);
    e->done.events += pg_next_i64(&row);
    e->done.salts += pg_next_i64(&row);
    e->done.confirmations += pg_next_i64(&row);
    CLEANUP(freep) int64_t *letters = NULL;
    size_t count = pg_next_i64_array(&row, &letters);
    e->letters = xreallocarray(e->letters, e->letters_count + count + 1, sizeof(*e->letters));
    for (size_t i = 0; i < count; i++)
        e->letters[e->letters_count++] = letters[i];
    e->done.unpublished += pg_next_i64(&row);
}

/* Those that are left; e->left is what is in flight, then. */
static int erase_some(struct erasure *e)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    const char *cpf = e->cpf;
    struct error ignored;

    pg_arg_i64s(&args, e->left, sizeof(*e->left), e->left_count);
    pg_arg_texts(&args, &cpf, sizeof(cpf), *cpf ? 1 : 0);
    pg_arg_text(&args, e->words);
    int r = ctl_change(e->ctl, e->pg, &sql_erase_some, &args, &rows, &e->err);
    if (r == PG_DONE)
        take_counts(e, (struct pg_row){rows, 0, 0});
    else if (pg_usable(e->pg)) {
        snprintf(e->sqlstate, sizeof(e->sqlstate), "%s", pg_error_sqlstate(e->pg));
        (void) pg_execute(e->pg, "rollback", &ignored);
    }
    return r;
}

static bool is_locked(const struct erasure *e, int r)
{
    return r == -EBADMSG && pg_usable(e->pg) &&
           (strcmp(e->sqlstate, "55P03") == 0 || strcmp(e->sqlstate, "40P01") == 0);
}

/* PG_DONE, -ECANCELED or another error of pg_query(). */
static int erase(struct erasure *e)
{
    struct pollfd stop = {.fd = e->ctl->stop_fd, .events = POLLIN};
    uint64_t locked_until = 0;

    for (;;) {
        int r = erase_some(e);
        if (!is_locked(e, r)) {
            locked_until = 0;
            if (r != PG_DONE || e->left_count == 0 || e->ctl->dry_run)
                return r;
            CLEANUP(freep) char *ids = name_ids(e->left, e->left_count);
            ctl_progress("waiting for the answer to what is in flight: subscription %s", ids);
        } else if (!locked_until) {
            locked_until = now_monotonic_usec() + LOCKED_USEC;
        } else if (now_monotonic_usec() >= locked_until) {
            return r;
        }
        if (poll(&stop, 1, LOOK_MS) > 0)
            return -ECANCELED;
    }
}

/* --- the answer ------------------------------------------------------------------------------- */

static void add_others(const struct erasure *e, struct sheet *s)
{
    CLEANUP(freep) char *ids = name_ids(e->others, e->others_count);

    sheet_add(s, "mentioned", e->others_count ? "others that hold it" : NULL,
              value_words(value_i64((int64_t) e->others_count), "%s", ids));
    if (e->others_count > 0)
        sheet_say(
            s, "",
            "Those have this CPF in a payload or an answer, but not as their own: look whose they are, and "
            "erase them with --subscription.");
}

static void add_counts(const struct erasure *e, struct sheet *s)
{
    CLEANUP(freep) char *ids = name_ids(e->ids, e->count);

    sheet_add(s, "subscriptions", "subscriptions",
              value_words(value_i64((int64_t) e->count), "%s", e->count ? ids : "none"));
    sheet_add(s, "erased", "erased", value_i64(e->done.erased));
    sheet_add(s, "failed", "of them waiting, failed now", value_i64(e->done.failed));
    sheet_add(s, "in_flight", e->left_count ? "in flight, to be waited for" : NULL,
              value_i64((int64_t) e->left_count));
    sheet_add(s, "events", "events", value_i64(e->done.events));
    sheet_add(s, "unpublished", "of them not yet in Kafka", value_i64(e->done.unpublished));
    sheet_add(s, "salts", "salts of the audit log", value_i64(e->done.salts));
    sheet_add(s, "confirmations", "confirmations", value_i64(e->done.confirmations));
    sheet_add(s, "dead_letters", "dead letters", value_i64((int64_t) e->letters_count));
    add_others(e, s);
    if (e->count == 0 && e->letters_count == 0) {
        if (e->others_count == 0)
            sheet_say(s, "", e->id ? "There is no such subscription." : "There is nothing of this CPF.");
    } else if (e->done.erased + e->done.events + e->done.salts + e->done.confirmations +
                   (int64_t) e->letters_count ==
               0) {
        sheet_say(s, "", "It had been erased before: nothing was left to be done.");
    }
    if (e->ctl->dry_run)
        sheet_say(s, "", "Nothing was changed (--dry-run).");
}

static int show(struct erasure *e)
{
    struct sheet *sheet;

    sheet_new(&sheet);
    add_counts(e, sheet);
    const struct erase_given given = {e->ids, e->count, e->letters, e->letters_count};
    int r = e->count + e->letters_count ? erase_add_kafka(e->ctl, e->pg, &given, sheet, &e->err) : PG_DONE;
    int code = ctl_show(e->ctl, sheet, 0);
    sheet_free(sheet);
    return r == PG_DONE ? code : ctl_refused(r, "read what Kafka was given", &e->err);
}

static int work(struct erasure *e)
{
    int r = ctl_check_tables(e->pg, &e->err);

    if (r == PG_DONE)
        r = find(e);
    if (r != PG_DONE)
        return ctl_refused(r, "look for the person", &e->err);
    int code = ask(e);
    if (code)
        return code;
    r = find_others(e);
    if (r == PG_DONE)
        r = erase(e);
    if (r == PG_DONE)
        return show(e);
    /* Its words may quote the row. */
    if (r == -EBADMSG && pg_blames_row(e->sqlstate))
        error_set(&e->err, "a rule or a trigger of the application refuses the change (SQLSTATE %s)",
                  e->sqlstate);
    if (e->done.erased > 0)
        ctl_say("%" PRId64 " of %zu subscriptions are erased; run the command again for the others",
                e->done.erased, e->count);
    return ctl_refused(r, "erase the person's data", &e->err);
}

int ctl_erase(struct ctl *c)
{
    struct erasure e = {.ctl = c};
    struct pg_params params = ctl_session(c, "anubisctl erase");
    CLEANUP(freep) char *user = ctl_operator();

    params.writes = true;
    params.statement_timeout_usec = 0;
    params.under_way = show_search;
    params.userdata = &e;
    e.words = xasprintf("operator %s: anubisctl erase", user);
    int code = read_arguments(&e);
    if (!code)
        code = ctl_connect(c, &params, &e.pg);
    if (!code)
        code = work(&e);
    pg_close(e.pg);
    free(e.ids);
    free(e.left);
    free(e.others);
    free(e.letters);
    free(e.words);
    return code;
}
