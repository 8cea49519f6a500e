/* anubisctl verify: the proof that subscriptions, ledger, published position and counters say the same.
 *
 * All of it in one snapshot. What is wrong (exit status 1) is kept apart from what is only not done yet (2):
 * events that the relay has not published, published ones that the consumers have not handled. A dead letter
 * is neither: it is known, and waits for somebody. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>

#include "base/timeutil.h"
#include "ctl/ctl.h"
#include "ctl/store_verify.h"

struct integration_count {
    int64_t id, sent, failed;
};

struct proof {
    struct ctl *ctl;
    struct pg *pg;
    struct sheet *sheet;
    char *group, *topic_prefix;
    struct store_verify_group handled_by;
    struct pg_result *handled;
    /* What events say of each integration, by id. */
    struct integration_count *counts;
    size_t count;
    int64_t wrong; /* differences found, of which not all are named */
    char **differences;
    size_t difference_count;
    int64_t unpublished;          /* events of the ledger */
    int64_t behind, dead;         /* published, but not handled */
    int64_t behind_at, behind_id; /* the oldest of them */
    struct error err;
};

static void name_difference(struct proof *p, const char *text)
{
    p->differences = xreallocarray(p->differences, p->difference_count + 1, sizeof(*p->differences));
    p->differences[p->difference_count++] = xstrdup(text);
}

static void add_difference(struct proof *p, const char *fmt, ...) PRINTF(2, 3);
static void add_difference(struct proof *p, const char *fmt, ...)
{
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(8192);
    va_list args;

    va_start(args, fmt);
    strbuf_addv(&text, fmt, args);
    va_end(args);
    name_difference(p, strbuf_str(&text));
    p->wrong++;
}

/* --- subscriptions against the ledger --------------------------------------------------------- */

static struct value value_difference(int64_t n)
{
    return n ? value_words(value_i64(n), "%+" PRId64, n) : value_words(value_i64(0), "%s", "");
}

static int verify_states(struct proof *p)
{
    static const struct table_column columns[] = {{"status", "STATE", false},
                                                  {"subscriptions", "SUBSCRIPTIONS", true},
                                                  {"ledger", "LEDGER", true},
                                                  {"difference", "DIFFERENCE", true}};
    CLEANUP(pg_result_freep) struct pg_result *states = NULL;

    int r = pg_query(p->pg, &store_verify_states, NULL, &states, &p->err);
    if (r != PG_DONE)
        return r;
    struct table *t =
        sheet_table(p->sheet, "states", "Subscriptions by state", "none", columns, ARRAY_SIZE(columns));
    sheet_add(p->sheet, "events", "events", value_i64(pg_get_i64(states, 0, 3)));
    for (int i = 0; i < pg_rows(states); i++) {
        const char *status = pg_get_text(states, i, 0);
        int64_t found = pg_get_i64(states, i, 1), expected = pg_get_i64(states, i, 2);
        table_add(t, value_text(status));
        table_add(t, value_i64(found));
        table_add(t, value_i64(expected));
        table_add(t, value_difference(found - expected));
        if (found != expected)
            add_difference(p, "state \"%s\": %" PRId64 " subscriptions, but %" PRId64 " by the ledger",
                           status, found, expected);
    }
    return PG_DONE;
}

static int verify_last_events(struct proof *p)
{
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    int r = pg_query(p->pg, &store_verify_last_events, NULL, &rows, &p->err);
    if (r != PG_DONE)
        return r;
    int64_t all = pg_rows(rows) ? pg_get_i64(rows, 0, 3) : 0;
    for (int i = 0; i < pg_rows(rows); i++) {
        const char *last = pg_get_text(rows, i, 2);
        if (pg_is_null(rows, i, 1))
            add_difference(p, "subscription %" PRId64 ": it is gone, its last event says \"%s\"",
                           pg_get_i64(rows, i, 0), last);
        else
            add_difference(p, "subscription %" PRId64 ": it is \"%s\", its last event says \"%s\"",
                           pg_get_i64(rows, i, 0), pg_get_text(rows, i, 1), last);
    }
    if (all > pg_rows(rows)) {
        CLEANUP(freep) char *more = xasprintf("and %" PRId64 " more subscriptions", all - pg_rows(rows));
        name_difference(p, more);
        p->wrong += all - pg_rows(rows);
    }
    sheet_add(p->sheet, "unlike_last_event", "unlike their last event", value_i64(all));
    return PG_DONE;
}

/* --- the ledger against Kafka's side ---------------------------------------------------------- */

static int read_published(struct proof *p)
{
    CLEANUP(pg_result_freep) struct pg_result *row = NULL;

    int r = pg_query(p->pg, &store_verify_published, NULL, &row, &p->err);
    if (r != PG_DONE)
        return r;
    if (pg_rows(row) != 1) {
        add_difference(p, "the table relay_state has %d rows, not one", pg_rows(row));
        return PG_DONE;
    }
    p->unpublished = pg_get_i64(row, 0, 0);
    sheet_add(p->sheet, "unpublished", "not published yet", value_i64(p->unpublished));
    sheet_add_known(p->sheet, "oldest_unpublished_at", "the oldest of",
                    p->unpublished ? value_time(pg_get_time(row, 0, 1)) : value_null());
    if (!pg_is_null(row, 0, 2))
        sheet_add(p->sheet, "relay_stopped_on", "relay STOPPED on", value_i64(pg_get_i64(row, 0, 2)));
    return PG_DONE;
}

static int read_handled(struct proof *p)
{
    struct store_verify_count row;

    int r = store_verify_handled(p->pg, &p->handled_by, &p->handled, &p->err);
    if (r != PG_DONE)
        return r;
    p->counts = xcalloc((size_t) pg_rows(p->handled), sizeof(*p->counts));
    p->behind_at = INT64_MIN;
    for (int i = 0; i < pg_rows(p->handled); i++) {
        store_verify_count_row(p->handled, i, &row);
        if (row.is_chunk)
            continue;
        p->behind += row.behind;
        p->dead += row.dead;
        if (row.behind && (!p->behind_id || row.oldest_behind < p->behind_id)) {
            p->behind_id = row.oldest_behind;
            p->behind_at = row.oldest_behind_at;
        }
        p->counts[p->count++] = (struct integration_count){row.integration_id, row.sent, row.failed};
    }
    sheet_add(p->sheet, "unhandled", "not handled yet", value_i64(p->behind));
    sheet_add_known(p->sheet, "oldest_unhandled_at", "the oldest of", value_time(p->behind_at));
    sheet_add(p->sheet, "dead_letters", p->dead ? "dead letters" : NULL, value_i64(p->dead));
    return PG_DONE;
}

/* --- handled events against the counters ------------------------------------------------------ */

static int by_id(const void *a, const void *b)
{
    const struct integration_count *x = a, *y = b;

    return (x->id > y->id) - (x->id < y->id);
}

static void compare_counter(struct proof *p, int64_t id, const char *name, const char *column, int64_t found,
                            int64_t expected)
{
    if (found != expected)
        add_difference(p,
                       "integration %" PRId64 " \"%s\": %s is %" PRId64 ", but %" PRId64
                       " by the events that were handled",
                       id, name, column, found, expected);
}

static int verify_counters(struct proof *p)
{
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    int r = pg_query(p->pg, &store_verify_counters, NULL, &rows, &p->err);
    if (r != PG_DONE)
        return r;
    if (p->count)
        qsort(p->counts, p->count, sizeof(*p->counts), by_id);
    for (int i = 0; i < pg_rows(rows); i++) {
        struct integration_count key = {.id = pg_get_i64(rows, i, 0)}, none = {0};
        const struct integration_count *c =
            p->count ? bsearch(&key, p->counts, p->count, sizeof(key), by_id) : NULL;
        if (!c)
            c = &none;
        const char *name = pg_get_text(rows, i, 1);
        compare_counter(p, key.id, name, "successful_sends", pg_get_i64(rows, i, 2),
                        pg_get_i64(rows, i, 4) + c->sent);
        compare_counter(p, key.id, name, "failed_sends", pg_get_i64(rows, i, 3),
                        pg_get_i64(rows, i, 5) + c->failed);
    }
    sheet_add(p->sheet, "integrations", "integrations", value_i64(pg_rows(rows)));
    return PG_DONE;
}

static int name_wrong_bits(struct proof *p, const char *type, int64_t chunk, int64_t set, int64_t events)
{
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    CLEANUP(strbuf_free) struct strbuf ids = STRBUF_INIT(4096);

    int r = store_verify_wrong_bits(p->pg, &p->handled_by, type, chunk, &rows, &p->err);
    if (r != PG_DONE)
        return r;
    for (int i = 0; i < pg_rows(rows); i++)
        strbuf_addf(&ids, "%s%" PRId64, i ? ", " : "", pg_get_i64(rows, i, 0));
    add_difference(p,
                   "%s marks %" PRId64 " events of \"%s%s\" as handled between ids %" PRId64 " and %" PRId64
                   ", but only %" PRId64 " are events of that type; wrong are %s",
                   p->group, set, p->topic_prefix, type, chunk * 8192, chunk * 8192 + 8191, events,
                   strbuf_str(&ids));
    return PG_DONE;
}

/* Each bit must stand for one event. Both lists come in the order of types and chunks. */
static int verify_bits(struct proof *p)
{
    CLEANUP(pg_result_freep) struct pg_result *bits = NULL;
    struct store_verify_count row = {0};
    int at = 0;

    int r = store_verify_bits(p->pg, &p->handled_by, &bits, &p->err);
    for (int i = 0; r == PG_DONE && i < pg_rows(bits); i++) {
        const char *type = pg_get_text(bits, i, 0);
        int64_t chunk = pg_get_i64(bits, i, 1), set = pg_get_i64(bits, i, 2), events = 0;
        for (; at < pg_rows(p->handled); at++) {
            store_verify_count_row(p->handled, at, &row);
            int order = row.is_chunk ? strcmp(row.type, type) : -1;
            if (order > 0 || (order == 0 && row.chunk > chunk))
                break;
            if (order == 0 && row.chunk == chunk)
                events = row.sent + row.failed;
        }
        if (set != events)
            r = name_wrong_bits(p, type, chunk, set, events);
    }
    return r;
}

/* --- all of it -------------------------------------------------------------------------------- */

static const struct step {
    const char *words;
    int (*run)(struct proof *p);
} steps[] = {
    {"counting subscriptions by state", verify_states},
    {"comparing each subscription with its last event", verify_last_events},
    {"looking for events that are not published", read_published},
    {"looking for events that are not handled", read_handled},
    {"comparing the counters", verify_counters},
    {"comparing what consumers have marked", verify_bits},
};

static int prove(struct proof *p)
{
    int r = store_verify_begin(p->pg, &p->err);

    for (size_t i = 0; r == PG_DONE && i < ARRAY_SIZE(steps); i++) {
        ctl_progress("%zu/%zu %s …", i + 1, ARRAY_SIZE(steps), steps[i].words);
        r = steps[i].run(p);
    }
    ctl_progress(NULL);
    return r;
}

static int add_verdict(struct proof *p)
{
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(4096);
    bool is_behind = p->unpublished || p->behind;

    sheet_empty_line(p->sheet);
    if (p->difference_count)
        sheet_say(p->sheet, NULL, "Differences");
    sheet_list(p->sheet, "differences", p->differences, p->difference_count);
    if (p->difference_count)
        sheet_empty_line(p->sheet);
    if (p->wrong)
        strbuf_addf(&text, "WRONG: %" PRId64 " difference%s", p->wrong, p->wrong == 1 ? "" : "s");
    else if (is_behind)
        strbuf_addf(&text,
                    "not yet caught up: %" PRId64 " events to be published, %" PRId64
                    " to be handled; nothing is wrong",
                    p->unpublished, p->behind);
    else
        strbuf_addf(&text, "proven: subscriptions, ledger, published events and counters agree");
    if (p->dead)
        strbuf_addf(&text, "; %" PRId64 " event%s put aside (table dead_letters)", p->dead, plural(p->dead));
    sheet_say(p->sheet, NULL, "%s", strbuf_str(&text));
    sheet_add(p->sheet, "verdict", NULL, value_text(p->wrong ? "wrong" : is_behind ? "behind" : "proven"));
    return p->wrong ? CTL_DIFFERENT : is_behind ? CTL_BEHIND : 0;
}

int ctl_verify(struct ctl *c)
{
    struct proof p = {.ctl = c};
    struct pg_params params = ctl_session(c, "anubisctl verify");

    params.statement_timeout_usec = 0;
    int code = ctl_connect(c, &params, &p.pg);
    if (code)
        return code;
    p.group = xasprintf("%s-integration-group", c->config->consumers.group_prefix);
    p.topic_prefix = xasprintf("%ssubscriptions.", c->config->kafka.topic_prefix);
    p.handled_by = (struct store_verify_group){p.group, p.topic_prefix};
    sheet_new(&p.sheet);
    int r = prove(&p);
    code = r == PG_DONE ? ctl_show(c, p.sheet, add_verdict(&p)) : ctl_refused(r, "verify", &p.err);
    pg_result_free(p.handled);
    for (size_t i = 0; i < p.difference_count; i++)
        free(p.differences[i]);
    free(p.differences);
    free(p.counts);
    free(p.group);
    free(p.topic_prefix);
    sheet_free(p.sheet);
    pg_close(p.pg);
    return code;
}
