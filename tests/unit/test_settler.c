/* The settler, between deliveries, a session and a clock that this file plays: it defines the functions of
 * pg_async, pg, store_delivery, timeutil, log and sd-event that settler.c calls, so the linker takes none of
 * theirs. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "delivery/settler.h"
#include "pg/pg_async.h"
#include "unit.h"

#define BATCH_MAX 4
#define MSEC(n) ((n) *USEC_PER_MSEC)

/* --- the clock and the timer ------------------------------------------------------------------ */

static uint64_t now;

static struct {
    sd_event_time_handler_t handler;
    void *userdata;
    uint64_t at;
    int enabled;
} timer;

uint64_t now_monotonic_usec(void)
{
    return now;
}

sd_event *sd_event_ref(sd_event *e)
{
    return e;
}

sd_event *sd_event_unref(sd_event *e)
{
    (void) e;
    return NULL;
}

int sd_event_add_time_relative(sd_event *e, sd_event_source **ret, clockid_t clock, uint64_t usec,
                               uint64_t accuracy, sd_event_time_handler_t handler, void *userdata)
{
    (void) e;
    (void) clock;
    (void) accuracy;
    timer.handler = handler;
    timer.userdata = userdata;
    timer.at = now + usec;
    timer.enabled = SD_EVENT_ONESHOT;
    *ret = (sd_event_source *) &timer;
    return 0;
}

int sd_event_source_set_time_relative(sd_event_source *s, uint64_t usec)
{
    (void) s;
    timer.at = now + usec;
    return 0;
}

int sd_event_source_set_enabled(sd_event_source *s, int enabled)
{
    (void) s;
    timer.enabled = enabled;
    return 0;
}

int sd_event_source_get_enabled(sd_event_source *s, int *ret)
{
    (void) s;
    *ret = timer.enabled;
    return timer.enabled != SD_EVENT_OFF;
}

sd_event_source *sd_event_source_disable_unref(sd_event_source *s)
{
    (void) s;
    return NULL;
}

/* Time passes; the timer fires when it is due. */
static void pass(uint64_t usec)
{
    uint64_t until = now + usec;

    while (timer.enabled != SD_EVENT_OFF && timer.at <= until) {
        now = MAX(now, timer.at);
        timer.enabled = SD_EVENT_OFF;
        timer.handler(NULL, now, timer.userdata);
    }
    now = until;
}

/* --- the journal ------------------------------------------------------------------------------ */

static struct {
    const char *message_id;
    int level, count;
} said;

void log_about(int level, const char *message_id, const struct log_about *about, const char *fmt, ...)
{
    (void) about;
    (void) fmt;
    said.level = level;
    said.message_id = message_id;
    said.count++;
}

void strbuf_add_duration_human(struct strbuf *s, uint64_t usec)
{
    strbuf_addf(s, "%d s", (int) (usec / USEC_PER_SEC));
}

static void expect_said(const char *message_id, int level)
{
    assert_int_equal(said.count, 1);
    assert_int_equal(said.level, level);
    assert_string_equal(said.message_id, message_id);
    said.count = 0;
}

/* --- the session ------------------------------------------------------------------------------ */

struct pg_result {
    const int64_t *ids;
    int count;
};

static struct {
    bool idle;
    const struct pg_async_callbacks *callbacks;
    void *owner;
    const struct pg_statement *statement; /* under way; NULL = none */
    pg_async_callback callback;
    void *userdata;
    int64_t ids[16]; /* its rows, in order */
    size_t count;
    bool without_text; /* its first row has none */
} session;

const struct pg_statement sql_settle = {"settle", ""}, sql_settle_unlocked = {"settle_unlocked", ""},
                          sql_still_claimed = {"still_claimed", ""}, sql_pause_integration = {"pause", ""},
                          sql_back_off = {"back_off", ""}, sql_circuit_note = {"circuit_note", ""},
                          sql_judge_refusals = {"judge_refusals", ""},
                          sql_renew_leases = {"renew_leases", ""}, sql_session_name = {"session_name", ""};

int pg_async_new(struct pg_async **ret, sd_event *event, const struct pg_params *params,
                 const struct pg_async_callbacks *callbacks, void *userdata)
{
    (void) event;
    (void) params;
    session.callbacks = callbacks;
    session.owner = userdata;
    *ret = NULL;
    return 0;
}

void pg_async_free(struct pg_async *p)
{
    (void) p;
}

void pg_async_reset(struct pg_async *p)
{
    (void) p;
}

void pg_async_hurry(struct pg_async *p)
{
    (void) p;
}

bool pg_async_idle(const struct pg_async *p)
{
    (void) p;
    return session.idle;
}

int pg_async_query(struct pg_async *p, const struct pg_statement *statement, const struct pg_args *args,
                   uint64_t deadline_usec, pg_async_callback callback, void *userdata)
{
    (void) p;
    (void) args;
    (void) deadline_usec;
    assert_true(session.idle);
    session.idle = false;
    session.statement = statement;
    session.callback = callback;
    session.userdata = userdata;
    return 0;
}

void pg_args_free(struct pg_args *args)
{
    (void) args;
}

int pg_rows(const struct pg_result *r)
{
    return r->count;
}

int64_t pg_get_i64(const struct pg_result *r, int row, int column)
{
    assert_int_equal(column, 0);
    return r->ids[row];
}

bool pg_blames_row(const char *sqlstate)
{
    return strcmp(sqlstate, "22023") == 0 || strcmp(sqlstate, PG_SQLSTATE_UNLIKE) == 0;
}

void store_renew_leases_args(struct pg_args *args, size_t count, const struct store_settlement *const *items,
                             uint64_t lease_usec)
{
    (void) args, (void) count, (void) items, (void) lease_usec;
}

static struct {
    size_t count;
    int64_t first;
    char why[6];
} shown; /* by the session's name */

void store_refused_args(struct pg_args *args, size_t count, const struct store_settlement *first)
{
    (void) args;
    shown.count = count;
    shown.first = first ? first->id : 0;
    snprintf(shown.why, sizeof(shown.why), "%s", first ? first->refused_for : "");
}

void store_settle_args(struct pg_args *args, size_t count, const struct store_settlement *const *items)
{
    (void) args;
    session.count = count;
    session.without_text = !items[0]->response;
    for (size_t i = 0; i < count; i++)
        session.ids[i] = items[i]->id;
}

void store_still_claimed_args(struct pg_args *args, size_t count, const struct store_settlement *const *items)
{
    (void) args;
    session.count = count;
    for (size_t i = 0; i < count; i++) {
        session.ids[i] = items[i]->id;
        assert_int_equal(items[i]->token, items[i]->id * 10);
    }
}

void store_pause_integration_args(struct pg_args *args, const struct store_wait *wait)
{
    (void) args;
    session.ids[0] = wait->integration_id;
    session.count = 1;
}

void store_back_off_args(struct pg_args *args, const struct store_wait *wait)
{
    store_pause_integration_args(args, wait);
}

static struct store_circuit noted[8]; /* by the last statement */

void store_circuit_args(struct pg_args *args, const struct store_circuit_rules *rules, size_t count,
                        const struct store_circuit *notes, bool avoid_locked)
{
    (void) args, (void) avoid_locked;
    assert_int_equal(rules->failure_threshold, 5);
    session.count = count;
    for (size_t i = 0; i < count; i++) {
        session.ids[i] = notes[i].integration_id;
        noted[i] = notes[i];
    }
}

/* The circuit of integration 77 has opened, those of the others are closed. */
void store_circuit_row(const struct pg_result *result, int row, struct store_circuit_change *ret)
{
    bool opens = result->ids[row] == 77;

    *ret = (struct store_circuit_change){.integration_id = result->ids[row],
                                         .state_before = "closed",
                                         .state = opens ? "open" : "closed",
                                         .reason = opens ? "failures" : "",
                                         .probe_usec = opens ? 30 * USEC_PER_SEC : USEC_INFINITY};
}

static bool took[16]; /* by the last statement */

void store_judge_args(struct pg_args *args, size_t count, const struct store_refusal *refusals,
                      const char *reason)
{
    (void) args;
    assert_non_null(strstr(reason, "20 subscriptions in a row"));
    session.count = count;
    for (size_t i = 0; i < count; i++) {
        session.ids[i] = refusals[i].integration_id;
        took[i] = refusals[i].taken;
    }
}

/* Of integration 77 two more may fail, and then it is paused; of the others all. */
void store_verdict_row(const struct pg_result *result, int row, struct store_verdict *ret)
{
    bool pauses = result->ids[row] == 77;

    *ret = (struct store_verdict){
        .integration_id = result->ids[row], .may_fail = pauses ? 2 : 100, .paused_turn = pauses ? 5 : 0};
}

/* The session gets its name, whatever comes then. */
static void take_name(void)
{
    if (session.statement != &sql_session_name)
        return;
    session.statement = NULL;
    session.idle = true;
    struct pg_answer answer = {&(struct pg_result){NULL, 1}, 0, "", NULL};
    session.callback(&answer, session.userdata);
}

/* The statement under way ends with `result`, or with an error. */
static void end_statement(struct pg_result *result, int r, const char *sqlstate)
{
    struct error err = {"words"};

    take_name();
    assert_non_null(session.statement);
    session.statement = NULL;
    session.idle = r != -ECONNRESET;
    struct pg_answer answer = {result, r, sqlstate, &err};
    session.callback(&answer, session.userdata);
}

static void answer_with(const int64_t *ids, int count)
{
    end_statement(&(struct pg_result){ids, count}, 0, "");
}

#define ANSWER(...)                                                                                          \
    answer_with((const int64_t[]){__VA_ARGS__}, sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))
#define ANSWER_NOTHING() answer_with(NULL, 0)

static void come_up(void)
{
    session.idle = true;
    session.callbacks->up(session.owner);
}

static void expect_statement(const struct pg_statement *statement, const int64_t *ids, size_t count)
{
    take_name();
    assert_ptr_equal(session.statement, statement);
    assert_int_equal(session.count, count);
    assert_memory_equal(session.ids, ids, count * sizeof(*ids));
}

#define EXPECT(statement, ...)                                                                               \
    expect_statement(&(statement), (const int64_t[]){__VA_ARGS__},                                           \
                     sizeof((const int64_t[]){__VA_ARGS__}) / sizeof(int64_t))
#define EXPECT_IDLE() (take_name(), assert_null(session.statement))

/* --- the owner -------------------------------------------------------------------------------- */

static struct settler *settler;
static struct notes *notes;
static size_t settled;

static int slots_held; /* by refused results */

static void on_held(int64_t integration_id, int by, void *userdata)
{
    (void) integration_id, (void) userdata;
    slots_held += by;
}

static int ended, cut_off;

static bool told = true;

static bool on_cut_off(const struct error *why, void *userdata)
{
    (void) userdata;
    assert_true(*why->text);
    cut_off++;
    return told;
}

static void on_up(bool was_cut_off, void *userdata)
{
    (void) userdata;
    ended += was_cut_off;
}

static void on_settled(size_t count, void *userdata)
{
    (void) userdata;
    settled += count;
}

static int64_t waits; /* the integration that the settler has said to wait, last */

static void on_waits(int64_t integration_id, void *userdata)
{
    (void) userdata;
    waits = integration_id;
}

static void on_note_added(void *userdata)
{
    (void) userdata;
    settler_has_notes(settler);
}

static int64_t circuit;
static uint64_t probe_usec; /* what was said of it */

static void on_circuit(int64_t integration_id, uint64_t usec, void *userdata)
{
    (void) userdata;
    circuit = integration_id;
    probe_usec = usec;
}

static void on_noted(void *userdata)
{
    (void) userdata;
    settler_flush(settler);
}

static int64_t paused;
static int failed, spared; /* verdicts */

static void on_told(const struct store_verdict *verdict, const char *reason, void *userdata)
{
    (void) reason, (void) userdata;
    if (verdict->paused_turn == 0)
        return;
    assert_int_equal(failed + spared, 0); /* before what is decided */
    paused = verdict->integration_id;
}

static void on_decided(void *held, bool fails, void *userdata)
{
    (void) userdata;
    assert_non_null(held);
    if (fails)
        failed++;
    else
        spared++;
}

/* An institution has refused a row, or, not `refuses`, took one. */
static void ask(int64_t integration_id, bool refuses)
{
    static int row;

    verdicts_ask(notes_verdicts(notes), &(struct store_refusal){.integration_id = integration_id},
                 refuses ? &row : NULL);
}

static int scene_start(void **state)
{
    static const struct settler_callbacks callbacks = {on_settled, on_cut_off, on_up, on_held};
    static const struct notes_callbacks note_callbacks = {
        on_note_added, on_waits, on_circuit, {NULL, on_told, on_decided, NULL}, on_noted};
    static struct standstill standstill;

    (void) state;
    now = USEC_PER_SEC;
    memset(&timer, 0, sizeof(timer));
    timer.enabled = SD_EVENT_OFF;
    memset(&said, 0, sizeof(said));
    memset(&session, 0, sizeof(session));
    slots_held = cut_off = ended = 0;
    settled = 0;
    waits = circuit = paused = 0;
    failed = spared = 0;
    notes = notes_new(&note_callbacks, NULL);
    const struct settler_params params = {.batch_size = BATCH_MAX, .notes = notes, .standstill = &standstill};
    assert_int_equal(settler_new(&settler, NULL, &params, &callbacks, NULL), 0);
    come_up();
    return 0;
}

static int scene_end(void **state)
{
    (void) state;
    settler_free(settler);
    notes_free(notes);
    return 0;
}

static void add(int64_t id)
{
    struct store_settlement *item = xcalloc(1, sizeof(*item));

    item->id = id;
    item->token = id * 10;
    item->outcome.state = OUTCOME_RETRY;
    item->response = xstrdup("text");
    settler_add(settler, item);
}

static void add_all(int64_t first, int64_t last)
{
    for (int64_t id = first; id <= last; id++)
        add(id);
}

/* --- batches ---------------------------------------------------------------------------------- */

TEST(test_results_gather_and_go_in_the_order_of_their_ids)
{
    add(3);
    add(1);
    add(2);
    EXPECT_IDLE();
    pass(MSEC(10));
    EXPECT(sql_settle, 1, 2, 3);
    assert_int_equal(settler_pending(settler), 3);
    ANSWER(1, 2, 3);
    assert_int_equal(settled, 3);
    assert_int_equal(settler_pending(settler), 0);
    EXPECT_IDLE();
}

TEST(test_a_full_batch_goes_at_once)
{
    add_all(1, BATCH_MAX + 2);
    EXPECT(sql_settle, 1, 2, 3, 4);
    ANSWER(1, 2, 3, 4);
    EXPECT(sql_settle, 5, 6);
}

TEST(test_in_a_hurry_nothing_gathers)
{
    settler_hurry(settler);
    add(1);
    EXPECT(sql_settle, 1);
}

TEST(test_results_wait_for_the_database)
{
    session.idle = false;
    add_all(1, 6);
    pass(MSEC(1000));
    EXPECT_IDLE();
    come_up();
    EXPECT(sql_settle, 1, 2, 3, 4);
}

static void go_down(void)
{
    session.idle = false;
    session.callbacks->down(-ECONNRESET, &(struct error){"no place"}, session.owner);
}

TEST(test_a_session_that_stays_away_is_told_once)
{
    assert_true(settler_up(settler));
    go_down();
    assert_false(settler_up(settler));
    pass(MSEC(2900));
    go_down();
    assert_int_equal(cut_off, 0);
    told = false; /* the database is away as a whole */
    pass(MSEC(7000));
    assert_int_equal(cut_off, 3);
    told = true;
    settler_others_up(settler); /* now it may take a while */
    pass(MSEC(2900));
    assert_int_equal(cut_off, 3);
    pass(MSEC(200));
    assert_int_equal(cut_off, 4);
    settler_others_up(settler);
    add(1);
    go_down();
    pass(MSEC(9000));
    assert_int_equal(cut_off, 4);
    assert_int_equal(ended, 0);
    come_up();
    assert_int_equal(ended, 1);
    assert_true(settler_up(settler));
    EXPECT(sql_settle, 1);
    end_statement(NULL, -ECONNRESET, "");
    go_down();
    pass(MSEC(3100));
    assert_int_equal(cut_off, 5);
}

static void note_token(int64_t token, void *userdata)
{
    *(int64_t *) userdata += token;
}

TEST(test_tokens_of_waiting_and_sent_results_are_known)
{
    int64_t sum = 0;

    add_all(1, BATCH_MAX + 1);
    settler_tokens(settler, note_token, &sum);
    assert_int_equal(sum, 150);
}

/* --- answers ---------------------------------------------------------------------------------- */

TEST(test_a_result_whose_claim_has_ended_is_dropped)
{
    add_all(1, BATCH_MAX);
    ANSWER(1, 2, 4);
    EXPECT(sql_still_claimed, 3);
    ANSWER_NOTHING();
    expect_said(MSG_LEASE_LOST, LOG_NOTICE);
    assert_int_equal(settled, 4);
    assert_int_equal(settler_pending(settler), 0);
}

TEST(test_a_result_whose_row_is_locked_is_tried_again)
{
    add_all(1, BATCH_MAX);
    ANSWER(1, 4);
    EXPECT(sql_still_claimed, 2, 3);
    ANSWER(2, 3);
    assert_int_equal(settler_pending(settler), 2);
    EXPECT_IDLE();
    pass(MSEC(150));
    EXPECT(sql_settle, 2, 3);
    ANSWER(2, 3);
    assert_int_equal(settled, 4);
    assert_int_equal(said.count, 0);
}

TEST(test_locks_that_last_are_said_once)
{
    add(1);
    for (int i = 0; i < 100; i++) {
        pass(MSEC(200));
        if (session.statement == &sql_settle)
            ANSWER_NOTHING();
        ANSWER(1);
    }
    expect_said(MSG_LOCKED, LOG_WARNING);
    pass(MSEC(200));
    ANSWER(1);
    expect_said(MSG_LOCKED, LOG_NOTICE);
}

TEST(test_after_a_lost_answer_all_of_it_is_sent_again)
{
    add_all(1, BATCH_MAX + 1);
    end_statement(NULL, -ECONNRESET, "");
    assert_int_equal(settler_pending(settler), 5);
    come_up();
    EXPECT(sql_settle, 1, 2, 3, 4);
    /* The first try did arrive: no notice about that. */
    ANSWER_NOTHING();
    ANSWER_NOTHING();
    assert_int_equal(said.level, LOG_DEBUG);
    assert_int_equal(settled, 4);
    EXPECT(sql_settle, 5);
}

TEST(test_a_row_that_ends_its_session_is_found_by_halves)
{
    add_all(1, BATCH_MAX);
    for (int i = 0; i < 3; i++) {
        EXPECT(sql_settle, 1, 2, 3, 4);
        end_statement(NULL, -ECONNRESET, "");
        come_up();
    }
    EXPECT(sql_settle, 1, 2);
    end_statement(NULL, -ECONNRESET, "");
    come_up();
    EXPECT(sql_settle, 1);
    end_statement(NULL, -ECONNRESET, "");
    expect_said(MSG_CHANGE_REFUSED, LOG_ERR);
    come_up();
    EXPECT(sql_settle, 2);
    ANSWER(2);
    EXPECT(sql_settle, 3, 4);
    ANSWER(3, 4);
    assert_int_equal(settled, 3);
    pass(6 * USEC_PER_SEC);
    EXPECT(sql_settle, 1);
    ANSWER(1);
    assert_int_equal(settled, 4);
}

/* --- refusals --------------------------------------------------------------------------------- */

TEST(test_a_bad_row_is_found_by_halves)
{
    add_all(1, BATCH_MAX);
    end_statement(NULL, -EBADMSG, "22023");
    EXPECT(sql_settle, 1, 2);
    ANSWER(1, 2);
    EXPECT(sql_settle, 3, 4);
    end_statement(NULL, -EBADMSG, "22023");
    EXPECT(sql_settle, 3);
    assert_false(session.without_text);
    end_statement(NULL, -EBADMSG, "22023");
    expect_said(MSG_SETTLE_SPLIT, LOG_WARNING);
    pass(MSEC(50));
    EXPECT(sql_settle, 3);
    assert_true(session.without_text);
    ANSWER(3);
    EXPECT(sql_settle, 4);
    ANSWER(4);
    assert_int_equal(settled, 4);
}

TEST(test_a_result_that_a_trigger_changes_keeps_its_text)
{
    add(1);
    pass(MSEC(10));
    end_statement(NULL, -EBADMSG, PG_SQLSTATE_UNLIKE);
    expect_said(MSG_CHANGE_REFUSED, LOG_ERR);
    pass(MSEC(10000));
    EXPECT(sql_settle, 1);
    assert_false(session.without_text);
    ANSWER(1);
    assert_int_equal(settled, 1);
}

TEST(test_a_row_that_is_refused_without_its_text_holds_up_no_other)
{
    add(1);
    pass(MSEC(10));
    end_statement(NULL, -EBADMSG, "22023");
    pass(MSEC(50));
    said.count = 0;
    end_statement(NULL, -EBADMSG, "22023");
    expect_said(MSG_CHANGE_REFUSED, LOG_ERR);
    add(2);
    pass(MSEC(150));
    EXPECT(sql_settle, 2);
    ANSWER(2);
    pass(MSEC(10000));
    EXPECT(sql_settle, 1);
    end_statement(NULL, -EBADMSG, "22023");
    assert_int_equal(said.level, LOG_DEBUG);
    assert_int_equal(settler_pending(settler), 1);
    assert_int_equal(slots_held, 1);
}

static void expect_shown(size_t count, int64_t first, const char *why)
{
    take_name();
    assert_int_equal(shown.count, count);
    assert_int_equal(shown.first, first);
    assert_string_equal(shown.why, why);
}

/* By the name of each session that is opened, as long as there are any. */
TEST(test_the_session_is_named_after_refused_results)
{
    add(2);
    pass(MSEC(10));
    end_statement(NULL, -EBADMSG, PG_SQLSTATE_UNLIKE);
    assert_ptr_equal(session.statement, &sql_session_name);
    expect_shown(1, 2, PG_SQLSTATE_UNLIKE);
    add(1);
    pass(MSEC(150));
    end_statement(NULL, -EBADMSG, PG_SQLSTATE_UNLIKE);
    pass(2 * USEC_PER_SEC);
    expect_shown(2, 1, PG_SQLSTATE_UNLIKE);
    pass(4 * USEC_PER_SEC);
    end_statement(NULL, -ECONNRESET, "");
    shown.count = 0;
    come_up();
    expect_shown(2, 1, PG_SQLSTATE_UNLIKE);
    pass(6 * USEC_PER_SEC);
    EXPECT(sql_settle, 1, 2);
    ANSWER(1);
    ANSWER(2);
    pass(6 * USEC_PER_SEC);
    expect_shown(1, 2, PG_SQLSTATE_UNLIKE);
    EXPECT(sql_settle, 2);
    ANSWER(2);
    expect_shown(0, 0, "");
    EXPECT_IDLE();
}

TEST(test_a_refusal_for_another_reason_is_tried_again)
{
    add_all(1, BATCH_MAX);
    end_statement(NULL, -EBADMSG, "53100");
    assert_int_equal(said.count, 1);
    EXPECT_IDLE();
    pass(MSEC(900));
    EXPECT_IDLE();
    pass(MSEC(200));
    EXPECT(sql_settle, 1, 2, 3, 4);
}

TEST(test_a_lock_leads_to_the_statement_that_passes_over_locked_rows)
{
    add_all(1, BATCH_MAX);
    end_statement(NULL, -EBADMSG, "55P03");
    EXPECT(sql_settle_unlocked, 1, 2, 3, 4);
    ANSWER(1, 2, 3, 4);
    add_all(5, 8);
    EXPECT(sql_settle, 5, 6, 7, 8);
}

/* --- integrations that wait ------------------------------------------------------------------- */

static const struct store_wait paused_for_good = {77, "x", 1, USEC_INFINITY, "a reason"};

TEST(test_an_integration_is_paused_after_its_results)
{
    add(1);
    notes_wait(notes, &paused_for_good);
    notes_wait(notes, &paused_for_good);
    pass(MSEC(10));
    EXPECT(sql_settle, 1);
    ANSWER(1);
    EXPECT(sql_pause_integration, 77);
    ANSWER(77);
    expect_said(MSG_INTEGRATION_PAUSED, LOG_WARNING);
    EXPECT_IDLE();
}

TEST(test_a_pause_survives_a_lost_answer)
{
    notes_wait(notes, &paused_for_good);
    pass(MSEC(10));
    EXPECT(sql_pause_integration, 77);
    end_statement(NULL, -ECONNRESET, "");
    come_up();
    EXPECT(sql_pause_integration, 77);
    ANSWER_NOTHING(); /* it was paused before */
    assert_int_equal(said.count, 0);
    EXPECT_IDLE();
}

TEST(test_the_longest_backoff_counts)
{
    const struct store_wait shorter = {77, "x", 1, 1000, "HTTP 429"}, longer = {77, "x", 1, 2000, "HTTP 429"},
                            other = {78, "x", 1, 500, "HTTP 429"},
                            other_token = {77, "x", 2, 500, "HTTP 401"};
    notes_wait(notes, &longer);
    notes_wait(notes, &shorter);
    notes_wait(notes, &other);
    notes_wait(notes, &other_token);
    pass(MSEC(10));
    EXPECT(sql_back_off, 77);
    ANSWER_NOTHING();
    assert_int_equal(waits, 77);
    EXPECT(sql_back_off, 78);
    ANSWER_NOTHING();
    EXPECT(sql_back_off, 77);
    ANSWER_NOTHING();
    EXPECT_IDLE();
    assert_int_equal(said.count, 0);
}

TEST(test_a_wait_that_a_lock_keeps_is_written_later)
{
    const struct store_wait first = {77, "x", 1, 1000, "HTTP 429"}, other = {78, "x", 1, 500, "HTTP 429"};
    notes_wait(notes, &first);
    notes_wait(notes, &other);
    pass(MSEC(10));
    EXPECT(sql_back_off, 77);
    end_statement(NULL, -EBADMSG, "55P03");
    expect_said(MSG_LOCKED, LOG_WARNING);
    assert_int_equal(waits, 0);
    pass(MSEC(1000));
    EXPECT(sql_back_off, 78);
    ANSWER_NOTHING();
    EXPECT(sql_back_off, 77);
    end_statement(NULL, -EBADMSG, "55P03");
    expect_said(MSG_LOCKED, LOG_DEBUG);
    pass(MSEC(1000));
    EXPECT(sql_back_off, 77);
    ANSWER_NOTHING();
    assert_int_equal(waits, 77);
    EXPECT_IDLE();
}

/* --- circuits --------------------------------------------------------------------------------- */

static void note(int64_t integration_id, int64_t generation, enum circuit_event event)
{
    const struct store_circuit_rules rules = {.failure_threshold = 5};
    const struct store_circuit n = {.integration_id = integration_id,
                                    .generation = generation,
                                    .event = event,
                                    .failures = circuit_event_fails(event)};
    notes_circuit(notes, &rules, &n);
}

static void expect_note(size_t i, int64_t integration_id, enum circuit_event event, int failures)
{
    assert_int_equal(noted[i].integration_id, integration_id);
    assert_int_equal(noted[i].event, event);
    assert_int_equal(noted[i].failures, failures);
}

TEST(test_failures_in_a_row_are_one_note)
{
    note(78, 0, CIRCUIT_FAILED);
    note(77, 0, CIRCUIT_FAILED);
    note(77, 0, CIRCUIT_FORBIDDEN);
    note(78, 0, CIRCUIT_ALIVE);
    note(77, 0, CIRCUIT_FAILED);
    note(78, 0, CIRCUIT_FAILED);
    add(1);
    pass(MSEC(10));
    EXPECT(sql_settle, 1);
    ANSWER(1);
    EXPECT(sql_circuit_note, 78, 77, 78);
    expect_note(0, 78, CIRCUIT_ALIVE, 0);
    expect_note(1, 77, CIRCUIT_FAILED, 3);
    expect_note(2, 78, CIRCUIT_FAILED, 1);
    ANSWER(77, 78, 78);
    expect_said(MSG_CIRCUIT_OPEN, LOG_WARNING);
    EXPECT_IDLE();
}

TEST(test_refused_credentials_outdo_failures_and_generations_stay_apart)
{
    note(77, 1, CIRCUIT_FAILED);
    note(77, 1, CIRCUIT_REFUSED);
    note(77, 1, CIRCUIT_FAILED);
    note(77, 2, CIRCUIT_NEUTRAL);
    note(77, 2, CIRCUIT_FAILED);
    pass(MSEC(10));
    EXPECT(sql_circuit_note, 77, 77, 77);
    expect_note(0, 77, CIRCUIT_REFUSED, 3);
    expect_note(1, 77, CIRCUIT_NEUTRAL, 0);
    expect_note(2, 77, CIRCUIT_FAILED, 1);
}

/* The last one that the event is of. */
TEST(test_a_note_tells_why_nothing_could_be_sent)
{
    const struct store_circuit_rules rules = {.failure_threshold = 5};
    struct store_circuit n = {
        .integration_id = 77, .event = CIRCUIT_REFUSED, .failures = 1, .why = "no key", .ours = true};

    note(77, 0, CIRCUIT_FAILED);
    notes_circuit(notes, &rules, &n);
    note(77, 0, CIRCUIT_FAILED);
    n.integration_id = 78;
    notes_circuit(notes, &rules, &n);
    note(78, 0, CIRCUIT_REFUSED);
    pass(MSEC(10));
    EXPECT(sql_circuit_note, 77, 78);
    expect_note(0, 77, CIRCUIT_REFUSED, 3);
    assert_string_equal(noted[0].why, "no key");
    assert_true(noted[0].ours);
    assert_string_equal(noted[1].why, "");
    assert_false(noted[1].ours);
}

TEST(test_notes_that_a_lock_keeps_hold_up_no_others)
{
    note(78, 0, CIRCUIT_FAILED);
    note(77, 0, CIRCUIT_FAILED);
    pass(MSEC(10));
    EXPECT(sql_circuit_note, 78, 77);
    end_statement(NULL, -EBADMSG, "55P03");
    pass(MSEC(200));
    EXPECT(sql_circuit_note, 78, 77);
    note(78, 1, CIRCUIT_FAILED); /* the first is under way */
    ANSWER(77);
    assert_int_equal(circuit, 77);
    pass(MSEC(200));
    EXPECT(sql_circuit_note, 78, 78);
    ANSWER(78, 78);
    assert_int_equal(circuit, 78);
    EXPECT_IDLE();
}

TEST(test_a_note_whose_answer_is_lost_or_refused_is_written_again)
{
    note(77, 0, CIRCUIT_FAILED);
    pass(MSEC(10));
    EXPECT(sql_circuit_note, 77);
    note(77, 0, CIRCUIT_FAILED); /* the first is under way */
    note(5, 0, CIRCUIT_FAILED);
    end_statement(NULL, -ECONNRESET, "");
    come_up();
    EXPECT(sql_circuit_note, 77, 77, 5);
    end_statement(NULL, -EBADMSG, "55P03");
    EXPECT_IDLE();
    pass(MSEC(1000));
    EXPECT(sql_circuit_note, 77, 77, 5);
    assert_int_equal(circuit, 0);
    ANSWER(5, 77, 77);
    assert_int_equal(circuit, 77);
    assert_int_equal(probe_usec, 30 * USEC_PER_SEC);
    EXPECT_IDLE();
}

/* --- verdicts --------------------------------------------------------------------------------- */

TEST(test_refusals_are_counted_together_and_the_first_ones_fail)
{
    for (int i = 0; i < 3; i++)
        ask(77, true);
    ask(78, true);
    ask(78, false);
    EXPECT_IDLE();
    pass(MSEC(10));
    EXPECT(sql_judge_refusals, 77, 77, 77, 78, 78);
    assert_true(!took[3] && took[4]);
    ask(78, true); /* the first are under way */
    ANSWER(77, 78);
    assert_int_equal(paused, 77);
    assert_int_equal(failed, 3);
    assert_int_equal(spared, 1);
    EXPECT(sql_judge_refusals, 78);
    ANSWER(78);
    assert_int_equal(failed, 4);
    EXPECT_IDLE();
}

TEST(test_refusals_that_a_lock_keeps_hold_up_no_others)
{
    ask(76, true);
    ask(78, true);
    ask(76, true);
    pass(MSEC(10));
    EXPECT(sql_judge_refusals, 76, 78, 76);
    end_statement(NULL, -EBADMSG, "55P03");
    EXPECT_IDLE();
    pass(MSEC(200));
    EXPECT(sql_judge_refusals, 76, 76);
    end_statement(NULL, -EBADMSG, "55P03");
    pass(MSEC(200));
    EXPECT(sql_judge_refusals, 78);
    ANSWER(78);
    assert_int_equal(failed, 1);
    EXPECT(sql_judge_refusals, 76, 76);
    ANSWER(76);
    assert_int_equal(failed, 3);
    EXPECT_IDLE();
}

TEST(test_refusals_whose_answer_is_lost_are_asked_again)
{
    ask(78, true);
    pass(MSEC(10));
    EXPECT(sql_judge_refusals, 78);
    ask(78, true);
    end_statement(NULL, -ECONNRESET, "");
    assert_int_equal(failed, 0);
    come_up();
    EXPECT(sql_judge_refusals, 78, 78);
    ANSWER(78);
    assert_int_equal(failed, 2);
    EXPECT_IDLE();
}

TEST(test_who_stops_waits_for_no_verdict)
{
    ask(78, true);
    pass(MSEC(10));
    ask(77, true);
    verdicts_release(notes_verdicts(notes));
    assert_int_equal(spared, 2);
    ANSWER(78);
    assert_int_equal(failed, 0);
    EXPECT_IDLE();
}

TEST(test_many_results_keep_no_note_back)
{
    add_all(1, BATCH_MAX);
    EXPECT(sql_settle, 1, 2, 3, 4);
    note(77, 0, CIRCUIT_FAILED);
    ask(78, true);
    add_all(5, 4 + BATCH_MAX);
    pass(MSEC(10));
    ANSWER(1, 2, 3, 4);
    EXPECT(sql_judge_refusals, 78);
    ANSWER(78);
    EXPECT(sql_settle, 5, 6, 7, 8);
    add_all(9, 8 + BATCH_MAX);
    ANSWER(5, 6, 7, 8);
    EXPECT(sql_circuit_note, 77);
    ANSWER(77);
    EXPECT(sql_settle, 9, 10, 11, 12);
    ANSWER(9, 10, 11, 12);
    EXPECT_IDLE();
}

#define SCENE(test) cmocka_unit_test_setup_teardown(test, scene_start, scene_end)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        SCENE(test_results_gather_and_go_in_the_order_of_their_ids),
        SCENE(test_a_full_batch_goes_at_once),
        SCENE(test_in_a_hurry_nothing_gathers),
        SCENE(test_results_wait_for_the_database),
        SCENE(test_a_session_that_stays_away_is_told_once),
        SCENE(test_tokens_of_waiting_and_sent_results_are_known),
        SCENE(test_a_result_whose_claim_has_ended_is_dropped),
        SCENE(test_a_result_whose_row_is_locked_is_tried_again),
        SCENE(test_locks_that_last_are_said_once),
        SCENE(test_after_a_lost_answer_all_of_it_is_sent_again),
        SCENE(test_a_row_that_ends_its_session_is_found_by_halves),
        SCENE(test_a_bad_row_is_found_by_halves),
        SCENE(test_a_result_that_a_trigger_changes_keeps_its_text),
        SCENE(test_a_row_that_is_refused_without_its_text_holds_up_no_other),
        SCENE(test_the_session_is_named_after_refused_results),
        SCENE(test_a_refusal_for_another_reason_is_tried_again),
        SCENE(test_a_lock_leads_to_the_statement_that_passes_over_locked_rows),
        SCENE(test_an_integration_is_paused_after_its_results),
        SCENE(test_a_pause_survives_a_lost_answer),
        SCENE(test_the_longest_backoff_counts),
        SCENE(test_a_wait_that_a_lock_keeps_is_written_later),
        SCENE(test_failures_in_a_row_are_one_note),
        SCENE(test_refused_credentials_outdo_failures_and_generations_stay_apart),
        SCENE(test_a_note_tells_why_nothing_could_be_sent),
        SCENE(test_notes_that_a_lock_keeps_hold_up_no_others),
        SCENE(test_a_note_whose_answer_is_lost_or_refused_is_written_again),
        SCENE(test_refusals_are_counted_together_and_the_first_ones_fail),
        SCENE(test_refusals_that_a_lock_keeps_hold_up_no_others),
        SCENE(test_refusals_whose_answer_is_lost_are_asked_again),
        SCENE(test_who_stops_waits_for_no_verdict),
        SCENE(test_many_results_keep_no_note_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
