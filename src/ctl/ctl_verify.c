/* anubisctl verify: the proof that subscriptions, ledger, published events and counters agree.
 *
 * All of it in one snapshot. A difference (exit status 1) is kept apart from work that is not done yet (2):
 * events that the relay has not published, and published events that the consumers have not handled. A dead
 * letter is neither: it is known, and an operator decides.
 *
 * Events are the rows of the ledger that have a type and were written since the adoption: an adopted
 * application's earlier rows and its notes are none. No statement takes a time that grows faster than the
 * rows. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sysexits.h>

#include "base/timeutil.h"
#include "ctl/letters.h"
#include "ctl/proof.h"
#include "sql/statements.h"

/* How long a consumer may be behind before that is more than work to be done. */
#define LATE_USEC (10 * 60 * (int64_t) USEC_PER_SEC)

/* --- what helps ------------------------------------------------------------------------------- */

static const char *const remedies[] = {
    [KIND_TABLES] = "Put the tables right as their line says, and verify again: nothing else was compared",
    [KIND_UNTRACED] =
        "Subscriptions were written while triggers did not fire or had other functions (session_replication_role, "
        "DISABLE TRIGGER, a restore of single tables or of functions). Where the rows are right, append the missing events; where the ledger is, "
        "set the rows back with triggers off",
    [KIND_GONE] =
        "Subscriptions were deleted while triggers did not fire: bring back rows with these ids and states, with "
        "triggers off",
    [KIND_STRAY] = "Make an integration with that id again, or give the subscriptions another integration_id",
    [KIND_POSITION] =
        "Set relay_state back to what the relay has saved (relay_saved); where the position is one that was given out, a daemon "
        "that starts does so",
    [KIND_COUNTER] =
        "Something besides anubisd counts (a consumer of the application's, a hand): stop it. A daemon brings "
        "successful_sends and failed_sends back within ten seconds; correct integration_runtime by the "
        "difference. Or counters, or marks and offsets, were restored from another time than the "
        "rest: \"anubisctl replay --group integration --from-ledger\" corrects all counters",
    [KIND_MARKS] =
        "Ledger rows that were counted are gone or were given to other events (a restore of single tables): clear "
        "those marks; an id that is marked in two partitions stays in the one where Kafka has it",
    [KIND_MARKS_LOST] =
        "Marks of events that are counted are gone (consumer_bitmaps was emptied, or restored from another time "
        "than the rest): \"anubisctl replay --group integration --from-ledger\" takes counters and analytics back "
        "to the marks, and then \"anubisctl replay --group integration\" has the events read again and counted",
    [KIND_STATS] = "\"anubisctl replay --group integration --from-ledger\" corrects integration_stats",
    [KIND_CONFIRMATIONS] = "\"anubisctl replay --group external --from-ledger\" corrects what is expected",
};

_Static_assert(ARRAY_SIZE(remedies) == KINDS, "each kind of difference has what helps");

static void add_remedies(struct proof *p)
{
    struct sentences s = {0};

    if (p->differences.count && !p->kinds)
        proof_note_kind(p, KIND_UNTRACED);
    /* What is told of lost marks does for the rest. */
    if (p->kinds & 1U << KIND_MARKS_LOST)
        p->kinds &= ~(1U << KIND_STATS);
    for (size_t kind = 0; kind < ARRAY_SIZE(remedies); kind++)
        if (p->kinds & (1U << kind))
            sentences_add(&s, "%s.", remedies[kind]);
    if (s.count)
        sheet_say(p->sheet, NULL,
                  "What helps (the statements stand in anubisctl(8), WHEN THE PROOF IS WRONG)");
    sheet_list(p->sheet, "remedies", &s);
    if (s.count)
        sheet_empty_line(p->sheet);
    sentences_free(&s);
}

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
    if (r == PG_DONE && pg_rows(rows) > 0)
        proof_note_kind(p, KIND_UNTRACED);
    for (int i = 0; r == PG_DONE && i < pg_rows(rows); i++)
        sentences_add(
            &p->differences,
            "subscription %" PRId64
            ": the ledger does not know how it came: it was written while triggers did not fire or had "
            "other functions",
            pg_get_i64(rows, i, 0));
    return r;
}

/* What was written back to another state since has events again, so its last one says what it is. */
static int name_broken_chains(struct proof *p)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    pg_arg_i64(&args, NAMED_MAX);
    int r = pg_query(p->pg, &sql_verify_broken_chains, &args, &rows, &p->err);
    if (r == PG_DONE && pg_rows(rows) > 0)
        proof_note_kind(p, KIND_UNTRACED);
    for (int i = 0; r == PG_DONE && i < pg_rows(rows); i++) {
        struct pg_row row = {rows, i, 0};
        int64_t id = pg_next_i64(&row), event = pg_next_i64(&row);
        const char *before = pg_next_text(&row), *from = pg_next_text(&row);
        sentences_add(
            &p->differences,
            "subscription %" PRId64 ": it was \"%s\", but its next event, %" PRId64
            ", begins at \"%s\": it was written in between while triggers did not fire or had other functions, "
            "or restored",
            id, before, event, from[0] ? from : "none");
    }
    return r;
}

/* From when on the ledger is there. */
static int read_dropped(struct proof *p)
{
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    int r = pg_query(p->pg, &sql_ledger_dropped, NULL, &rows, &p->err);
    if (r != PG_DONE)
        return r;
    struct pg_row row = {.result = rows};
    int64_t events = pg_next_i64(&row), last_id = pg_next_i64(&row), last_at = pg_next_time(&row);
    sheet_add(p->sheet, "ledger_since", NULL, value_time(last_at));
    sheet_add(p->sheet, "ledger_dropped_events", NULL, value_i64(events));
    if (last_id) {
        CLEANUP(freep) char *at = time_words(last_at);
        sheet_say(p->sheet, "left the ledger",
                  "%" PRId64 " event%s up to %s (retention.events); the baseline has what they counted",
                  events, plural(events), at);
    }
    return PG_DONE;
}

static int read_bounds(struct proof *p)
{
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;

    int r = pg_query(p->pg, &sql_verify_bounds, NULL, &rows, &p->err);
    if (r != PG_DONE)
        return r;
    p->adopted = pg_get_i64(rows, 0, 0);
    p->middle = pg_get_i64(rows, 0, 1);
    return PG_DONE;
}

static int verify_states(struct proof *p)
{
    static const struct table_column columns[] = {{"status", "STATUS", false},
                                                  {"subscriptions", "SUBSCRIPTIONS", true},
                                                  {"ledger", "LEDGER", true},
                                                  {"difference", "DIFFERENCE", true}};
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *states = NULL;
    bool differs = false;

    pg_arg_i64(&args, p->adopted);
    int r = read_dropped(p);
    if (r == PG_DONE)
        r = pg_query(p->pg, &sql_verify_states, &args, &states, &p->err);
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
    if (differs && r == PG_DONE)
        r = name_untraced(p);
    if (differs && r == PG_DONE)
        r = name_broken_chains(p);
    return r;
}

static int verify_last_events(struct proof *p)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    CLEANUP(pg_result_freep) struct pg_result *rows = NULL;
    int64_t all = 0;

    pg_arg_i64(&args, p->adopted);
    pg_arg_i64(&args, p->middle);
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
        proof_note_kind(p, gone ? KIND_GONE : KIND_UNTRACED);
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
    sheet_add(p->sheet, "unlike_last_event", "different from their last event", value_i64(all));
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
    if (named)
        proof_note_kind(p, KIND_STRAY);
    if (all > named) {
        sentences_add(&p->differences, "and %" PRId64 " more subscriptions", all - named);
        p->unnamed += all - named - 1; /* that sentence counts as one */
    }
    return PG_DONE;
}

/* --- all of it -------------------------------------------------------------------------------- */

static const struct step {
    const char *words;
    int (*run)(struct proof *p);
} steps[] = {
    {"counting subscriptions by status", verify_states},
    {"comparing each subscription with its last event", verify_last_events},
    {"looking for integrations that are gone", verify_strays},
    {"looking for events that are not published", proof_read_published},
    {"looking for events that are not handled", proof_read_handled},
    {"comparing the counters", proof_verify_counters},
    {"comparing what consumers have marked", proof_verify_bits},
    {"comparing the analytics", proof_verify_stats},
    {"comparing the confirmations", proof_verify_confirmations},
    {"looking for events that the audit log lacks", proof_read_logged},
};

static void show_step(void *userdata)
{
    const struct proof *p = userdata;
    if (!p->step_began)
        return;
    CLEANUP(freep) char *lasted = duration_words((int64_t) (now_monotonic_usec() - p->step_began));

    ctl_progress("%zu/%zu %s … (%s)", p->step + 1, ARRAY_SIZE(steps), steps[p->step].words, lasted);
}

/* Nothing else can be told without a part of the ledger, or with rows twice in a table. */
static int verify_tables(struct proof *p)
{
    struct error amiss;

    int r = ctl_check_tables(p->pg, &amiss);
    if (r != -ENODATA) {
        p->err = amiss;
        return r;
    }
    proof_note_kind(p, KIND_TABLES);
    sentences_add(&p->differences, "%s", amiss.text);
    return PG_DONE;
}

static int prove(struct proof *p)
{
    int r = verify_tables(p);

    if (r != PG_DONE || p->kinds)
        return r;
    /* One snapshot for all, and no row changed. The lock comes first: a partition that is leaving has left
     * then, and the baseline has its events, or it stays until the end. */
    r = pg_execute(p->pg,
                   "begin isolation level repeatable read read only; set local work_mem = '512MB'; "
                   "set local statement_timeout = 0; set local max_parallel_workers_per_gather = 4; "
                   "lock table subscription_events in access share mode",
                   &p->err);

    if (r == PG_DONE)
        r = read_bounds(p);
    for (p->step = 0; r == PG_DONE && p->step < ARRAY_SIZE(steps); p->step++) {
        p->step_began = now_monotonic_usec();
        show_step(p);
        r = steps[p->step].run(p);
    }
    p->step_began = 0;
    ctl_progress(NULL);
    if (r == PG_DONE)
        r = pg_query(p->pg, &sql_letters_stops, NULL, &p->stops, &p->err);
    return r == PG_DONE ? pg_query(p->pg, &sql_work_refused, NULL, &p->refused, &p->err) : r;
}

/* The groups that stand still stand above the verdict; true when there is one. */
static bool add_stops(struct proof *p)
{
    bool stand_still = false;

    letters_add_stops(p->sheet, p->stops);
    for (int i = 0; i < pg_rows(p->stops); i++)
        stand_still |= pg_is_null(p->stops, i, 3);
    if (pg_rows(p->stops) > 0)
        sheet_empty_line(p->sheet);
    return stand_still;
}

static const char late[] =
    "the oldest of these has been published for long. When the consumers run (\"anubisctl status\") and it "
    "stays, run \"anubisctl replay --group integration\": what Kafka has is read again, and the rest published "
    "again. First see that no daemon of another database is in the same consumer group, which the journal says: "
    "it needs a consumers.group_prefix and a kafka.topic_prefix of its own";

static int add_verdict(struct proof *p)
{
    const struct sentences *d = &p->differences;
    const struct backlog *b = &p->backlog;
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(4096);
    bool is_behind = b->unpublished || b->behind || b->unlogged;
    bool is_late = b->behind && now_realtime_usec() - b->behind_at > LATE_USEC;
    int64_t found = (int64_t) d->count + p->unnamed;

    sheet_empty_line(p->sheet);
    if (d->count)
        sheet_say(p->sheet, NULL, "Differences");
    sheet_list(p->sheet, "differences", d);
    if (d->count)
        sheet_empty_line(p->sheet);
    add_remedies(p);
    bool stand_still = add_stops(p);
    if (found)
        strbuf_addf(&text, "WRONG: %" PRId64 " difference%s", found, plural(found));
    else if (is_behind)
        strbuf_addf(&text,
                    "not yet caught up: %" PRId64 " events to be published, %" PRId64 " to be handled; %s",
                    b->unpublished, b->behind,
                    !pg_is_null(p->refused, 0, 0) ? pg_get_text(p->refused, 0, 0)
                    : stand_still                 ? "consumers have stopped, see above"
                    : is_late                     ? late
                                                  : "nothing is wrong");
    else
        strbuf_adds(&text, "proven: subscriptions, ledger, published events and counters agree");
    if (b->unlogged)
        strbuf_addf(
            &text,
            "; %" PRId64
            " published event%s not come into the audit log. Should that stay while the group monitoring runs, "
            "\"anubisctl replay --group monitoring\" has what Kafka has read again, and the rest published again",
            b->unlogged, b->unlogged == 1 ? " has" : "s have");
    if (b->passed)
        strbuf_addf(&text,
                    "; %" PRId64 " event%s came with ledger ids that the relay had passed because nobody had "
                    "them (%" PRId64 " to %" PRId64
                    "): the sequence of the ledger was set back, or rows were "
                    "brought in. A relay that runs finds them by itself",
                    b->passed, plural(b->passed), b->passed_first, b->passed_last);
    if (b->foreign)
        strbuf_addf(&text,
                    "; %" PRId64
                    " message%s in these topics were not this installation's: should they be another's, "
                    "give each a kafka.topic_prefix and a consumers.group_prefix of its own",
                    b->foreign, plural(b->foreign));
    if (b->unknown)
        strbuf_addf(&text,
                    "; %" PRId64
                    " event%s in Kafka that the ledger does not have (or not there) count for nothing",
                    b->unknown, plural(b->unknown));
    if (b->dead)
        strbuf_addf(&text, "; %" PRId64 " event%s put aside (table dead_letters)", b->dead, plural(b->dead));
    sheet_say(p->sheet, NULL, "%s", strbuf_str(&text));
    sheet_add(p->sheet, "verdict", NULL, value_text(found ? "wrong" : is_behind ? "behind" : "proven"));
    return found ? CTL_DIFFERENT : is_behind ? CTL_BEHIND : 0;
}

static void forget(struct proof *p)
{
    pg_result_free(p->handled);
    pg_result_free(p->stops);
    pg_result_free(p->refused);
    sentences_free(&p->differences);
    free(p->counts);
    sheet_free(p->sheet);
    *p = (struct proof){.ctl = p->ctl, .pg = p->pg};
}

/* The proof within its snapshot; *ret_code is the exit code. */
static int attempt(struct proof *p, int *ret_code)
{
    struct error ignored;

    forget(p);
    sheet_new(&p->sheet);
    int r = p->ctl->proof.wait ? ctl_wait_for_work(p->ctl, p->pg, &p->err) : PG_DONE;
    if (r == PG_DONE)
        r = prove(p);
    if (r != PG_DONE)
        return r;
    *ret_code = add_verdict(p);
    return pg_execute(p->pg, "rollback", &ignored);
}

int ctl_verify(struct ctl *c)
{
    if (c->proof.audit)
        return ctl_verify_audit(c);
    if (c->proof.full || c->proof.anchor || c->proof.key) {
        ctl_say("--full, --anchor and --key are of verify --audit");
        return EX_USAGE;
    }
    struct proof p = {.ctl = c};
    struct pg_params params = ctl_session(c, "anubisctl verify");

    params.statement_timeout_usec = 0;
    params.under_way = show_step;
    params.userdata = &p;
    int r = PG_DONE, code = ctl_connect(c, &params, &p.pg);
    if (code)
        return code;
    do
        r = attempt(&p, &code);
    while (r == PG_DONE && code == CTL_BEHIND && c->proof.wait);
    code = r == PG_DONE ? ctl_show(c, p.sheet, code) : ctl_refused(r, "verify", &p.err);
    pg_close(p.pg);
    p.pg = NULL;
    forget(&p);
    return code;
}
