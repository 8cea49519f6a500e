/* Notes about integrations. See notes.h. */
#include "delivery/notes.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "base/trouble.h"

#define REFUSED_PAUSE_USEC USEC_PER_SEC
#define LOCKED_PAUSE_USEC (100 * USEC_PER_MSEC)
#define DEADLINE_USEC (45 * USEC_PER_SEC)

/* An integration that is to wait. */
struct waiting {
    struct waiting *next;
    struct store_wait wait;
    bool said; /* that it could not be written */
    char *name;
    char reason[];
};

struct notes {
    struct notes_callbacks callbacks;
    void *userdata;
    struct waiting *waits;
    uint64_t wait_at; /* monotonic; after a refusal of one */
    struct store_circuit_rules rules;
    struct store_circuit *circuits; /* the first ones are under way */
    size_t circuit_count, circuit_capacity, sent;
    uint64_t circuit_at; /* monotonic; after a refusal */
    bool avoid_locked;   /* the last statement met a locked one */
    struct verdicts *verdicts;
    bool has_judged;        /* by the last statement */
    struct trouble trouble; /* they could not be written */
};

/* --- waits and pauses ------------------------------------------------------------------------- */

static void waiting_free(struct waiting *w)
{
    free(w->name);
    free(w);
}

static void put_behind(struct notes *n, struct waiting *w)
{
    struct waiting **tail = &n->waits;

    while (*tail)
        tail = &(*tail)->next;
    *tail = w;
}

/* Another session's lock, or worse: the others first. */
static void on_wait_refused(struct notes *n, struct waiting *w, const char *sqlstate)
{
    int64_t id = w->wait.integration_id;
    const struct log_about on = {.integration_id = id, .integration_name = w->name};

    log_about(w->said ? LOG_DEBUG : LOG_WARNING, MSG_LOCKED, &on,
              "could not write that integration %" PRId64 " \"%s\" waits (SQLSTATE %s): trying again", id,
              w->name, sqlstate);
    w->said = true;
    put_behind(n, w);
    n->wait_at = now_monotonic_usec() + REFUSED_PAUSE_USEC;
}

void notes_say_paused(int64_t integration_id, const char *name, const char *reason)
{
    const struct log_about on = {.integration_id = integration_id, .integration_name = name};

    log_about(LOG_WARNING, MSG_INTEGRATION_PAUSED, &on,
              "integration %" PRId64 " \"%s\" is paused until somebody resumes it: %s", integration_id, name,
              reason);
}

static void on_wait_written(struct notes *n, struct waiting *w, bool changed)
{
    int64_t id = w->wait.integration_id;

    n->callbacks.waits(id, n->userdata);
    if (w->wait.usec == USEC_INFINITY && changed)
        notes_say_paused(id, w->name, w->reason);
    waiting_free(w);
}

static void on_wait(struct pg_answer *answer, void *userdata)
{
    struct notes *n = userdata;
    struct waiting *w = n->waits;

    if (answer->r == -ECONNRESET)
        return;
    n->waits = w->next;
    w->next = NULL;
    if (answer->r != 0)
        on_wait_refused(n, w, answer->sqlstate);
    else
        on_wait_written(n, w, pg_rows(answer->result) == 1);
    n->callbacks.done(n->userdata);
}

static void send_wait(struct notes *n, struct pg_async *pg, struct pg_args *args)
{
    const struct store_wait *wait = &n->waits->wait;
    const struct pg_statement *statement = &sql_back_off;

    if (wait->usec == USEC_INFINITY) {
        store_pause_integration_args(args, wait);
        statement = &sql_pause_integration;
    } else {
        store_back_off_args(args, wait);
    }
    (void) pg_async_query(pg, statement, args, DEADLINE_USEC, on_wait, n);
}

/* The first may be on its way already: what is added later follows it. */
void notes_wait(struct notes *n, const struct store_wait *wait)
{
    for (const struct waiting *w = n->waits; w; w = w->next)
        if (w->wait.integration_id == wait->integration_id && w->wait.fingerprint == wait->fingerprint &&
            w->wait.usec >= wait->usec)
            return;
    struct waiting *w = xcalloc(1, sizeof(*w) + strlen(wait->reason) + 1);
    w->wait = *wait;
    w->wait.reason = memcpy(w->reason, wait->reason, strlen(wait->reason));
    w->wait.integration_name = w->name = xstrdup(wait->integration_name);
    put_behind(n, w);
    n->callbacks.added(n->userdata);
}

/* --- circuits --------------------------------------------------------------------------------- */

static void log_open(const struct store_circuit_change *c, const char *error, const char *wait)
{
    bool refused = strcmp(c->reason, "authentication") == 0,
         was_closed = strcmp(c->state_before, "closed") == 0,
         is_news = was_closed || strcmp(c->reason, c->reason_before) != 0;
    const struct log_about on = {
        .integration_id = c->integration_id, .integration_name = c->name, .error = error};

    log_about(is_news ? LOG_WARNING : LOG_DEBUG, MSG_CIRCUIT_OPEN, &on,
              "integration %" PRId64 " \"%s\": %s because %s (%s); its subscriptions wait and lose no "
              "attempts, one is tried in %s",
              c->integration_id, c->name,
              was_closed ? "the circuit is open,"
              : is_news  ? "the circuit is still open, now"
                         : "the circuit is still open,",
              refused ? "its credentials are refused or missing" : "its requests fail", error, wait);
}

static void log_closed(const struct store_circuit_change *c, const char *lasted)
{
    const struct log_about on = {.integration_id = c->integration_id, .integration_name = c->name};

    log_about(LOG_NOTICE, MSG_CIRCUIT_CLOSED, &on,
              "integration %" PRId64
              " \"%s\": the circuit is closed after %s, the institution takes subscriptions again",
              c->integration_id, c->name, lasted);
}

static void log_circuit(const struct store_circuit_change *c, const char *error)
{
    CLEANUP(strbuf_free) struct strbuf time = STRBUF_INIT(128);
    bool is_closed = strcmp(c->state, "closed") == 0;

    if (strcmp(c->state, c->state_before) == 0)
        return;
    strbuf_add_duration_human(&time, is_closed ? c->lasted_usec : c->probe_usec);
    if (is_closed)
        log_closed(c, strbuf_str(&time));
    else
        log_open(c, error, strbuf_str(&time));
}

/* Of those that are under way: the words where no answer tells, else the class. */
static const char *error_of(const struct notes *n, int64_t integration_id)
{
    const char *error = "";

    for (size_t i = 0; i < n->sent; i++)
        if (n->circuits[i].integration_id == integration_id)
            error = *n->circuits[i].why ? n->circuits[i].why : n->circuits[i].error;
    return error;
}

static bool is_listed(const struct pg_result *result, int64_t integration_id)
{
    for (int i = 0; i < pg_rows(result); i++)
        if (pg_get_i64(result, i, 0) == integration_id)
            return true;
    return false;
}

/* Those that the result lists. Returns how many are left of those that were sent. */
static size_t drop_noted(struct notes *n, const struct pg_result *result)
{
    size_t kept = 0;

    for (size_t i = 0; i < n->sent; i++)
        if (n->avoid_locked && !is_listed(result, n->circuits[i].integration_id))
            n->circuits[kept++] = n->circuits[i];
    n->circuit_count -= n->sent;
    memmove(n->circuits + kept, n->circuits + n->sent, n->circuit_count * sizeof(*n->circuits));
    n->circuit_count += kept;
    n->sent = 0;
    return kept;
}

static void try_again(struct notes *n, const char *sqlstate, const char *why, uint64_t pause_usec)
{
    uint64_t now = now_monotonic_usec();

    if (trouble_lasts(&n->trouble, now, now, STORE_LOCK_PATIENCE_USEC))
        log_line(LOG_WARNING, MSG_LOCKED,
                 "could not note what came of requests, for the circuits (SQLSTATE %s): %s; trying again",
                 sqlstate, why);
    n->circuit_at = now + pause_usec;
}

static void on_circuits_refused(struct notes *n, const struct pg_answer *answer)
{
    bool locked = strcmp(answer->sqlstate, "55P03") == 0;

    n->avoid_locked |= locked;
    try_again(n, answer->sqlstate, answer->err->text, locked ? LOCKED_PAUSE_USEC : REFUSED_PAUSE_USEC);
}

static void on_circuits_noted(struct notes *n, const struct pg_result *result)
{
    for (int i = 0; i < pg_rows(result); i++) {
        struct store_circuit_change change;
        store_circuit_row(result, i, &change);
        log_circuit(&change, error_of(n, change.integration_id));
        n->callbacks.circuit(change.integration_id, change.probe_usec, n->userdata);
    }
    if (drop_noted(n, result) > 0) {
        try_again(n, "55P03", "other sessions have locked them", LOCKED_PAUSE_USEC);
    } else {
        n->avoid_locked = false;
        (void) trouble_ends(&n->trouble);
    }
}

static void on_circuits(struct pg_answer *answer, void *userdata)
{
    struct notes *n = userdata;

    if (answer->r == 0) {
        on_circuits_noted(n, answer->result);
    } else {
        n->sent = 0;
        if (answer->r == -ECONNRESET)
            return;
        on_circuits_refused(n, answer);
    }
    n->callbacks.done(n->userdata);
}

static bool is_same(const struct store_circuit *a, const struct store_circuit *b)
{
    return a->integration_id == b->integration_id && a->fingerprint == b->fingerprint &&
           a->generation == b->generation;
}

/* What came of a request takes back the failures before it; failures in a row are one note. */
static bool merged(struct notes *n, const struct store_circuit *note)
{
    for (size_t i = n->circuit_count; i-- > n->sent;) {
        struct store_circuit *c = &n->circuits[i];
        bool both_fail = circuit_event_fails(c->event) && circuit_event_fails(note->event);
        if (!is_same(c, note))
            continue;
        if (!both_fail && note->event != CIRCUIT_ALIVE)
            return false;
        c->failures = both_fail ? c->failures + note->failures : 0;
        memcpy(c->error, note->error, sizeof(c->error));
        if (!both_fail || c->event < CIRCUIT_REFUSED)
            c->event = note->event;
        if (c->event == note->event) {
            memcpy(c->why, note->why, sizeof(c->why));
            c->ours = note->ours;
        }
        return true;
    }
    return false;
}

void notes_circuit(struct notes *n, const struct store_circuit_rules *rules, const struct store_circuit *note)
{
    n->rules = *rules;
    if (merged(n, note))
        return;
    if (n->circuit_count == n->circuit_capacity) {
        n->circuit_capacity = n->circuit_capacity ? 2 * n->circuit_capacity : 64;
        n->circuits = xreallocarray(n->circuits, n->circuit_capacity, sizeof(*n->circuits));
    }
    n->circuits[n->circuit_count++] = *note;
    n->callbacks.added(n->userdata);
}

static void send_circuits(struct notes *n, struct pg_async *pg, struct pg_args *args)
{
    store_circuit_args(args, &n->rules, n->circuit_count, n->circuits, n->avoid_locked);
    n->sent = n->circuit_count;
    if (pg_async_query(pg, &sql_circuit_note, args, DEADLINE_USEC, on_circuits, n) < 0)
        n->sent = 0;
}

/* --- the interface ---------------------------------------------------------------------------- */

struct notes *notes_new(const struct notes_callbacks *callbacks, void *userdata)
{
    struct notes *n = xcalloc(1, sizeof(*n));
    struct verdicts_callbacks verdicts = callbacks->verdicts;

    n->callbacks = *callbacks;
    n->userdata = userdata;
    verdicts.added = callbacks->added;
    verdicts.done = callbacks->done;
    n->verdicts = verdicts_new(&verdicts, userdata);
    return n;
}

void notes_free(struct notes *n)
{
    if (!n)
        return;
    while (n->waits) {
        struct waiting *w = n->waits;
        n->waits = w->next;
        waiting_free(w);
    }
    verdicts_free(n->verdicts);
    free(n->circuits);
    free(n);
}

struct verdicts *notes_verdicts(struct notes *n)
{
    return n->verdicts;
}

static uint64_t own_due(const struct notes *n)
{
    return MIN(n->circuit_count > 0 ? n->circuit_at : USEC_INFINITY, n->waits ? n->wait_at : USEC_INFINITY);
}

uint64_t notes_due(const struct notes *n)
{
    return MIN(own_due(n), verdicts_due(n->verdicts));
}

/* By turns, where both are due. */
void notes_send(struct notes *n, struct pg_async *pg, struct pg_args *args)
{
    uint64_t now = now_monotonic_usec();

    n->has_judged = verdicts_due(n->verdicts) <= now && !(n->has_judged && own_due(n) <= now);
    if (n->has_judged)
        verdicts_send(n->verdicts, pg, args);
    else if (n->circuit_count > 0 && n->circuit_at <= now)
        send_circuits(n, pg, args);
    else if (n->waits)
        send_wait(n, pg, args);
}
