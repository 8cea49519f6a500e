/* anubisctl verify: the ledger against what was published, handled and counted. See proof.h. */
#include "ctl/proof.h"

#include <inttypes.h>
#include <string.h>

#include "sql/statements.h"

/* A row of verify_handled.sql: the events that are counted, of an integration or of a chunk of ledger ids. */
struct handled {
    bool is_chunk;
    int64_t integration_id;   /* !is_chunk; 0 = events without an integration */
    const char *type;         /* is_chunk */
    int64_t chunk;            /* is_chunk */
    int64_t sent, failed;     /* handled */
    int64_t handled;          /* of all types */
    int64_t behind;           /* published, not handled and no dead letter */
    int64_t oldest_behind;    /* an id; 0 = none */
    int64_t oldest_behind_at; /* INT64_MIN = none */
    int64_t dead;             /* not handled, a dead letter */
};

/* --- the ledger against Kafka's side ---------------------------------------------------------- */

/* A relay that begins takes back what it had saved. */
static void compare_position(struct proof *p, const struct pg_result *rows)
{
    if (pg_is_null(rows, 0, 7))
        return;
    proof_note_kind(p, KIND_POSITION);
    sentences_add(&p->differences,
                  "relay_state tells that events are published up to ledger id %" PRId64
                  ", which the relay has not saved (up to %" PRId64 "): somebody has set it ahead",
                  pg_get_i64(rows, 0, 6), pg_get_i64(rows, 0, 7));
}

int proof_read_published(struct proof *p)
{
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    int r = pg_query(p->pg, &sql_verify_published, NULL, &rows, &p->err);
    if (r != PG_DONE)
        return r;
    if (pg_rows(rows) != 1) {
        proof_note_kind(p, KIND_TABLES);
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
        sheet_add(p->sheet, "relay_stopped_on", "relay STOPPED on", value_i64(pg_get_i64(rows, 0, 2)));
    p->backlog.passed = pg_get_i64(rows, 0, 3);
    p->backlog.passed_first = pg_get_i64(rows, 0, 4);
    p->backlog.passed_last = pg_get_i64(rows, 0, 5);
    compare_position(p, rows);
    sheet_add(p->sheet, "passed", p->backlog.passed ? "with ids that were passed" : NULL,
              value_i64(p->backlog.passed));
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
    h.handled = pg_next_i64(&row);
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
    p->counts[p->count++] =
        (struct integration_count){row->integration_id, row->sent, row->failed, row->behind};
}

int proof_read_handled(struct proof *p)
{
    CLEANUP(pg_args_free) struct pg_args args = model_args(), events = model_args();
    struct backlog *b = &p->backlog;

    pg_arg_i64(&events, p->adopted);
    int r = pg_query(p->pg, &sql_verify_handled, &events, &p->handled, &p->err);
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
    if (b->behind)
        r = pg_query_i64(p->pg, &sql_verify_foreign, &args, &b->foreign, &p->err);
    if (r == PG_DONE)
        r = pg_query_i64(p->pg, &sql_verify_unknown, &args, &b->unknown, &p->err);
    sheet_add(p->sheet, "unknown", NULL, value_i64(b->unknown));
    sheet_add(p->sheet, "dead_letters", b->dead ? "dead letters" : NULL, value_i64(b->dead));
    return r;
}

int proof_read_logged(struct proof *p)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    if (!p->ctl->config->consumers.monitoring)
        return PG_DONE;
    pg_arg_i64(&args, p->adopted + 1);
    pg_arg_i64(&args, INT64_MAX);
    int r = pg_query_i64(p->pg, &sql_verify_logged, &args, &p->backlog.unlogged, &p->err);
    if (r == PG_DONE)
        sheet_add(p->sheet, "unlogged", p->backlog.unlogged ? "not in the audit log yet" : NULL,
                  value_i64(p->backlog.unlogged));
    return r;
}

/* --- handled events against the counters ------------------------------------------------------ */

static int by_id(const void *a, const void *b)
{
    const struct integration_count *x = a, *y = b;

    return (x->id > y->id) - (x->id < y->id);
}

/* Reads a counter and its baseline. Events are marked and counted in one transaction: when more are counted
 * than marked, and as many look as if they had not been handled yet, it is the marks that were lost. */
static void compare_counter(struct proof *p, int64_t id, const char *name, const char *column,
                            struct pg_row *row, int64_t events, int64_t behind)
{
    int64_t found = pg_next_i64(row), expected = pg_next_i64(row) + events;

    if (found != expected)
        proof_note_kind(p, found > expected && found - expected <= behind ? KIND_MARKS_LOST : KIND_COUNTER);
    if (found != expected)
        sentences_add(&p->differences,
                      "integration %" PRId64 " \"%s\": %s is %" PRId64 ", but %" PRId64
                      " by the events that were handled",
                      id, name, column, found, expected);
}

int proof_verify_counters(struct proof *p)
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
        compare_counter(p, key.id, name, "successful_sends", &row, c->sent, c->behind);
        compare_counter(p, key.id, name, "failed_sends", &row, c->failed, c->behind);
        compare_counter(p, key.id, name, "integration_runtime.sent", &row, c->sent, c->behind);
        compare_counter(p, key.id, name, "integration_runtime.failed", &row, c->failed, c->behind);
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
    proof_note_kind(p, KIND_MARKS);
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
            return row.handled;
        if (order > 0 || (order == 0 && row.chunk > chunk))
            break;
    }
    return 0;
}

/* Each bit must stand for one event. */
int proof_verify_bits(struct proof *p)
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

/* --- the same against integration_stats ------------------------------------------------------- */

int proof_verify_stats(struct proof *p)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    pg_arg_i64(&args, NAMED_MAX);
    /* The planner takes each event for another kind, and would sort them all. */
    int r = pg_execute(p->pg, "set local enable_sort = off", &p->err);
    if (r == PG_DONE)
        r = pg_query(p->pg, &sql_verify_stats, &args, &rows, &p->err);
    if (r == PG_DONE)
        r = pg_execute(p->pg, "set local enable_sort = on", &p->err);
    if (r != PG_DONE || pg_rows(rows) == 0)
        return r;
    proof_note_kind(p, KIND_STATS);
    for (int i = 0; i < pg_rows(rows); i++) {
        struct pg_row row = {rows, i, 0};
        int64_t id = pg_next_i64(&row);
        const char *span = pg_next_text(&row);
        CLEANUP(freep) char *began = time_words(pg_next_time(&row));
        CLEANUP(strbuf_free) struct strbuf by = STRBUF_INIT(512);
        static const char *const columns[] = {"created", "sent", "failed", "retried", "attempts"};
        for (size_t n = 0; n < ARRAY_SIZE(columns); n++) {
            int64_t lacks = pg_next_i64(&row);
            if (lacks < 0 && p->backlog.behind)
                proof_note_kind(p, KIND_MARKS_LOST);
            if (lacks)
                strbuf_addf(&by, "%s%s by %+" PRId64, by.len ? ", " : "", columns[n], lacks);
        }
        sentences_add(&p->differences,
                      "integration_stats: integration %" PRId64 ", %s of %s: to be corrected: %s", id, span,
                      began, by.len ? strbuf_str(&by) : "the histograms");
    }
    int64_t more = pg_get_i64(rows, 0, 8) - pg_rows(rows);
    if (more > 0)
        sentences_add(&p->differences, "integration_stats: and %" PRId64 " more rows", more);
    p->unnamed += more > 0 ? more - 1 : 0; /* that sentence counts as one */
    return PG_DONE;
}
