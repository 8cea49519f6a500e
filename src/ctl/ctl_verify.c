/* anubisctl verify: the proof that subscriptions, ledger, published events and counters agree.
 *
 * All of it in one snapshot. A difference (exit status 1) is kept apart from work that is not done yet (2):
 * events that the relay has not published, and published events that the consumers have not handled. A dead
 * letter is neither: it is known, and an operator decides.
 *
 * Events are the rows of the ledger that have a type and were written since the adoption: an adopted
 * application's earlier rows and its notes are none. No statement takes a time that grows faster than the
 * rows. */
#include <inttypes.h>
#include <string.h>

#include "ctl/ctl.h"
#include "sql/statements.h"

/* How many differences one statement names. */
#define NAMED_MAX 20

/* A row of verify_handled.sql: the events "sent" and "failed" of an integration, or of a chunk of ledger
 * ids. */
struct handled {
    bool is_chunk;
    int64_t integration_id;   /* !is_chunk; 0 = events without an integration */
    const char *type;         /* is_chunk */
    int64_t chunk;            /* is_chunk */
    int64_t sent, failed;     /* handled */
    int64_t behind;           /* published, not handled and no dead letter */
    int64_t oldest_behind;    /* an id; 0 = none */
    int64_t oldest_behind_at; /* INT64_MIN = none */
    int64_t dead;             /* not handled, a dead letter */
};

struct integration_count {
    int64_t id, sent, failed;
};

/* Work that is not done yet. */
struct backlog {
    int64_t unpublished;          /* events of the ledger */
    int64_t behind, dead;         /* published, but not handled */
    int64_t behind_at, behind_id; /* the oldest of them */
    int64_t foreign;              /* messages of others that lay between */
};

struct proof {
    struct ctl *ctl;
    struct pg *pg;
    struct sheet *sheet;
    struct pg_result *handled;
    /* The events of each integration; sorted by id before they are searched. */
    struct integration_count *counts;
    size_t count;
    struct sentences differences;
    int64_t unnamed; /* differences beside those */
    struct backlog backlog;
    struct error err;
};

/* --- subscriptions against the ledger --------------------------------------------------------- */

static struct value value_difference(int64_t n)
{
    return n ? value_words(value_i64(n), "%+" PRId64, n) : value_words(value_i64(0), "%s", "");
}

static int name_untraced(struct proof *p)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    pg_arg_i64(&args, NAMED_MAX);
    int r = pg_query(p->pg, &sql_verify_untraced, &args, &rows, &p->err);
    for (int i = 0; r == PG_DONE && i < pg_rows(rows); i++)
        sentences_add(&p->differences,
                      "subscription %" PRId64
                      ": the ledger does not know how it came: it was written while triggers did not fire",
                      pg_get_i64(rows, i, 0));
    return r;
}

static int verify_states(struct proof *p)
{
    static const struct table_column columns[] = {{"status", "STATUS", false},
                                                  {"subscriptions", "SUBSCRIPTIONS", true},
                                                  {"ledger", "LEDGER", true},
                                                  {"difference", "DIFFERENCE", true}};
    CLEANUP(pg_result_freep) struct pg_result *states = NULL;
    bool differs = false;

    int r = pg_query(p->pg, &sql_verify_states, NULL, &states, &p->err);
    if (r != PG_DONE)
        return r;
    struct table *t =
        sheet_table(p->sheet, "states", "Subscriptions by status", "none", columns, ARRAY_SIZE(columns));
    sheet_add(p->sheet, "events", "events", value_i64(pg_get_i64(states, 0, 3)));
    for (int i = 0; i < pg_rows(states); i++) {
        struct pg_row row = {states, i, 0};
        const char *status = pg_next_text(&row);
        int64_t found = pg_next_i64(&row), expected = pg_next_i64(&row);
        table_add(t, value_text(status));
        table_add(t, value_i64(found));
        table_add(t, value_i64(expected));
        table_add(t, value_difference(found - expected));
        differs |= found != expected;
        if (found != expected)
            sentences_add(&p->differences,
                          "status \"%s\": %" PRId64 " subscriptions, but %" PRId64 " by the ledger", status,
                          found, expected);
    }
    return differs ? name_untraced(p) : PG_DONE;
}

static int verify_last_events(struct proof *p)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    int64_t all = 0;

    pg_arg_i64(&args, NAMED_MAX);
    int r = pg_query(p->pg, &sql_verify_last_events, &args, &rows, &p->err);
    if (r != PG_DONE)
        return r;
    int named = pg_rows(rows);
    for (int i = 0; i < named; i++) {
        struct pg_row row = {rows, i, 0};
        int64_t id = pg_next_i64(&row);
        bool gone = pg_next_is_null(&row);
        const char *status = pg_next_text(&row), *last = pg_next_text(&row);
        all = pg_next_i64(&row);
        if (gone)
            sentences_add(&p->differences, "subscription %" PRId64 ": it is gone, its last event says \"%s\"",
                          id, last);
        else
            sentences_add(&p->differences,
                          "subscription %" PRId64 ": it is \"%s\", its last event says \"%s\"", id, status,
                          last);
    }
    if (all > named) {
        sentences_add(&p->differences, "and %" PRId64 " more subscriptions", all - named);
        p->unnamed += all - named - 1; /* that sentence counts as one */
    }
    sheet_add(p->sheet, "unlike_last_event", "unlike their last event", value_i64(all));
    return PG_DONE;
}

/* A transaction stricter than "read committed" may have referred to an integration that was being deleted. */
static int verify_strays(struct proof *p)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    pg_arg_i64(&args, NAMED_MAX);
    int r = pg_query(p->pg, &sql_verify_strays, &args, &rows, &p->err);
    if (r != PG_DONE)
        return r;
    int named = pg_rows(rows);
    for (int i = 0; i < named; i++)
        sentences_add(&p->differences, "subscription %" PRId64 ": its integration %" PRId64 " does not exist",
                      pg_get_i64(rows, i, 0), pg_get_i64(rows, i, 1));
    int64_t all = named ? pg_get_i64(rows, 0, 2) : 0;
    if (all > named) {
        sentences_add(&p->differences, "and %" PRId64 " more subscriptions", all - named);
        p->unnamed += all - named - 1; /* that sentence counts as one */
    }
    return PG_DONE;
}

/* --- the ledger against Kafka's side ---------------------------------------------------------- */

static int read_published(struct proof *p)
{
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    int r = pg_query(p->pg, &sql_verify_published, NULL, &rows, &p->err);
    if (r != PG_DONE)
        return r;
    if (pg_rows(rows) != 1) {
        sentences_add(&p->differences, "the table relay_state has %d rows, not one", pg_rows(rows));
        return PG_DONE;
    }
    struct pg_row row = {rows, 0, 0};
    int64_t unpublished = p->backlog.unpublished = pg_next_i64(&row);
    int64_t oldest = pg_next_time(&row);
    sheet_add(p->sheet, "unpublished", "not published yet", value_i64(unpublished));
    sheet_add_known(p->sheet, "oldest_unpublished_at", "the oldest of",
                    unpublished ? value_time(oldest) : value_null());
    if (!pg_next_is_null(&row))
        sheet_add(p->sheet, "relay_stopped_on", "relay STOPPED on", value_i64(pg_next_i64(&row)));
    return PG_DONE;
}

static struct pg_args model_args(void)
{
    struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, CONFIG_INTEGRATION_MODEL);
    return args;
}

static struct handled read_row(const struct pg_result *result, int number)
{
    struct pg_row row = {result, number, 0};
    struct handled h;

    h.is_chunk = pg_next_bool(&row);
    h.integration_id = pg_next_i64(&row);
    h.type = pg_next_text(&row);
    h.chunk = pg_next_i64(&row);
    h.sent = pg_next_i64(&row);
    h.failed = pg_next_i64(&row);
    h.behind = pg_next_i64(&row);
    h.oldest_behind = pg_next_i64(&row);
    h.oldest_behind_at = pg_next_time(&row);
    h.dead = pg_next_i64(&row);
    return h;
}

static void add_handled(struct proof *p, const struct handled *row)
{
    struct backlog *b = &p->backlog;

    b->behind += row->behind;
    b->dead += row->dead;
    if (row->behind && (!b->behind_id || row->oldest_behind < b->behind_id)) {
        b->behind_id = row->oldest_behind;
        b->behind_at = row->oldest_behind_at;
    }
    p->counts[p->count++] = (struct integration_count){row->integration_id, row->sent, row->failed};
}

static int read_handled(struct proof *p)
{
    CLEANUP(pg_args_free) struct pg_args args = model_args();
    struct backlog *b = &p->backlog;

    int r = pg_query(p->pg, &sql_verify_handled, &args, &p->handled, &p->err);
    if (r != PG_DONE)
        return r;
    p->counts = xcalloc((size_t) pg_rows(p->handled), sizeof(*p->counts));
    b->behind_at = INT64_MIN;
    for (int i = 0; i < pg_rows(p->handled); i++) {
        const struct handled row = read_row(p->handled, i);
        if (!row.is_chunk)
            add_handled(p, &row);
    }
    sheet_add(p->sheet, "unhandled", "not handled yet", value_i64(b->behind));
    sheet_add_known(p->sheet, "oldest_unhandled_at", "the oldest of", value_time(b->behind_at));
    if (b->behind) {
        CLEANUP(pg_args_free) struct pg_args model = model_args();
        r = pg_query_i64(p->pg, &sql_verify_foreign, &model, &b->foreign, &p->err);
    }
    sheet_add(p->sheet, "dead_letters", b->dead ? "dead letters" : NULL, value_i64(b->dead));
    return r;
}

/* --- handled events against the counters ------------------------------------------------------ */

static int by_id(const void *a, const void *b)
{
    const struct integration_count *x = a, *y = b;

    return (x->id > y->id) - (x->id < y->id);
}

/* Reads a counter and its baseline. */
static void compare_counter(struct proof *p, int64_t id, const char *name, const char *column,
                            struct pg_row *row, int64_t events)
{
    int64_t found = pg_next_i64(row), expected = pg_next_i64(row) + events;

    if (found != expected)
        sentences_add(&p->differences,
                      "integration %" PRId64 " \"%s\": %s is %" PRId64 ", but %" PRId64
                      " by the events that were handled",
                      id, name, column, found, expected);
}

static int verify_counters(struct proof *p)
{
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    static const struct integration_count none;

    int r = pg_query(p->pg, &sql_verify_counters, NULL, &rows, &p->err);
    if (r != PG_DONE)
        return r;
    if (p->count)
        qsort(p->counts, p->count, sizeof(*p->counts), by_id);
    for (int i = 0; i < pg_rows(rows); i++) {
        struct pg_row row = {rows, i, 0};
        struct integration_count key = {.id = pg_next_i64(&row)};
        const struct integration_count *c =
            p->count ? bsearch(&key, p->counts, p->count, sizeof(key), by_id) : NULL;
        if (!c)
            c = &none;
        const char *name = pg_next_text(&row);
        compare_counter(p, key.id, name, "successful_sends", &row, c->sent);
        compare_counter(p, key.id, name, "failed_sends", &row, c->failed);
        compare_counter(p, key.id, name, "integration_runtime.sent", &row, c->sent);
        compare_counter(p, key.id, name, "integration_runtime.failed", &row, c->failed);
    }
    sheet_add(p->sheet, "integrations", "integrations", value_i64(pg_rows(rows)));
    return PG_DONE;
}

static int name_wrong_bits(struct proof *p, const char *type, int64_t chunk, int64_t set, int64_t events)
{
    CLEANUP(pg_args_free) struct pg_args args = model_args();
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    CLEANUP(strbuf_free) struct strbuf ids = STRBUF_INIT(4096);

    pg_arg_text(&args, type);
    pg_arg_i64(&args, chunk);
    pg_arg_i64(&args, NAMED_MAX);
    int r = pg_query(p->pg, &sql_verify_wrong_bits, &args, &rows, &p->err);
    if (r != PG_DONE)
        return r;
    for (int i = 0; i < pg_rows(rows); i++)
        strbuf_addf(&ids, "%s%" PRId64, i ? ", " : "", pg_get_i64(rows, i, 0));
    sentences_add(&p->differences,
                  "the counters hold %" PRId64 " events \"%s\" between ids %" PRId64 " and %" PRId64
                  ", but only %" PRId64 " are events of that type; the wrong ids are %s",
                  set, type, chunk * 8192, chunk * 8192 + 8191, events, strbuf_str(&ids));
    return PG_DONE;
}

/* The events of that chunk. Chunks are asked for in order of types and ids, as p->handled lists them from *at
 * on. */
static int64_t count_handled(const struct proof *p, int *at, const char *type, int64_t chunk)
{
    for (; *at < pg_rows(p->handled); ++*at) {
        const struct handled row = read_row(p->handled, *at);
        int order = row.is_chunk ? strcmp(row.type, type) : -1;
        if (order == 0 && row.chunk == chunk)
            return row.sent + row.failed;
        if (order > 0 || (order == 0 && row.chunk > chunk))
            break;
    }
    return 0;
}

/* Each bit must stand for one event. */
static int verify_bits(struct proof *p)
{
    CLEANUP(pg_args_free) struct pg_args args = model_args();
    CLEANUP(pg_result_freep) struct pg_result *bits = NULL;
    int at = 0;

    int r = pg_query(p->pg, &sql_verify_bits, &args, &bits, &p->err);
    for (int i = 0; r == PG_DONE && i < pg_rows(bits); i++) {
        struct pg_row row = {bits, i, 0};
        const char *type = pg_next_text(&row);
        int64_t chunk = pg_next_i64(&row), set = pg_next_i64(&row);
        int64_t events = count_handled(p, &at, type, chunk);
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
    {"counting subscriptions by status", verify_states},
    {"comparing each subscription with its last event", verify_last_events},
    {"looking for integrations that are gone", verify_strays},
    {"looking for events that are not published", read_published},
    {"looking for events that are not handled", read_handled},
    {"comparing the counters", verify_counters},
    {"comparing what consumers have marked", verify_bits},
};

static int prove(struct proof *p)
{
    /* One snapshot for all, and no row changed. */
    int r = pg_execute(p->pg,
                       "begin isolation level repeatable read read only; set local work_mem = '512MB'; "
                       "set local statement_timeout = 0; set local max_parallel_workers_per_gather = 4",
                       &p->err);

    for (size_t i = 0; r == PG_DONE && i < ARRAY_SIZE(steps); i++) {
        ctl_progress("%zu/%zu %s …", i + 1, ARRAY_SIZE(steps), steps[i].words);
        r = steps[i].run(p);
    }
    ctl_progress(NULL);
    return r;
}

static int add_verdict(struct proof *p)
{
    const struct sentences *d = &p->differences;
    const struct backlog *b = &p->backlog;
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(4096);
    bool is_behind = b->unpublished || b->behind;
    int64_t found = (int64_t) d->count + p->unnamed;

    sheet_empty_line(p->sheet);
    if (d->count)
        sheet_say(p->sheet, NULL, "Differences");
    sheet_list(p->sheet, "differences", d);
    if (d->count)
        sheet_empty_line(p->sheet);
    if (found)
        strbuf_addf(&text, "WRONG: %" PRId64 " difference%s", found, plural(found));
    else if (is_behind)
        strbuf_addf(&text,
                    "not yet caught up: %" PRId64 " events to be published, %" PRId64
                    " to be handled; nothing is wrong",
                    b->unpublished, b->behind);
    else
        strbuf_adds(&text, "proven: subscriptions, ledger, published events and counters agree");
    if (b->foreign)
        strbuf_addf(&text,
                    "; %" PRId64
                    " message%s in these topics were not this installation's: should they be another's, "
                    "give each a kafka.topic_prefix and a consumers.group_prefix of its own",
                    b->foreign, plural(b->foreign));
    if (b->dead)
        strbuf_addf(&text, "; %" PRId64 " event%s put aside (table dead_letters)", b->dead, plural(b->dead));
    sheet_say(p->sheet, NULL, "%s", strbuf_str(&text));
    sheet_add(p->sheet, "verdict", NULL, value_text(found ? "wrong" : is_behind ? "behind" : "proven"));
    return found ? CTL_DIFFERENT : is_behind ? CTL_BEHIND : 0;
}

int ctl_verify(struct ctl *c)
{
    struct proof p = {.ctl = c};
    struct pg_params params = ctl_session(c, "anubisctl verify");

    params.statement_timeout_usec = 0;
    int code = ctl_connect(c, &params, &p.pg);
    if (code)
        return code;
    sheet_new(&p.sheet);
    int r = prove(&p);
    code = r == PG_DONE ? ctl_show(c, p.sheet, add_verdict(&p)) : ctl_refused(r, "verify", &p.err);
    pg_result_free(p.handled);
    sentences_free(&p.differences);
    free(p.counts);
    sheet_free(p.sheet);
    pg_close(p.pg);
    return code;
}
