/* Claims. See claimer.h. */
#include "delivery/claimer.h"

#include <errno.h>
#include <limits.h>

#include "base/backoff.h"
#include "base/timeutil.h"
#include "delivery/deaf.h"
#include "delivery/look.h"
#include "delivery/refused_row.h"
#include "delivery/store_delivery.h"

/* Who finds rows twice within so long, more than one or while the next ones ring, is busy: notifications
 * would cost the writers more than polling costs us. Single rows one after the other make none wait. */
#define BUSY_USEC (20 * USEC_PER_MSEC)
/* Between claims that find nothing, until the doorbell is asked for again. */
#define SHORT_PAUSE_USEC (2 * USEC_PER_MSEC)
/* Slots that get free are given out again together: a claim costs the database a millisecond, however few
 * rows it takes. */
#define REFILL_PAUSE_USEC (2 * USEC_PER_MSEC)
#define STARVED_MAX_USEC (20 * USEC_PER_MSEC)
/* While handshakes take all of this process's time: between claims for those that need none. */
#define READY_PAUSE_USEC (10 * USEC_PER_MSEC)
/* A look at everything that takes less walks over no entries of claimed rows to speak of. */
#define QUICK_USEC (20 * USEC_PER_MSEC)
/* While rings are not wanted, rows of other integrations are found by polling. */
#define DEAF_POLL_USEC (100 * USEC_PER_MSEC)
#define ERROR_PAUSE_USEC USEC_PER_SEC
/* While somebody else has an integration's row locked: counting does, for some milliseconds. */
#define LOCKED_OUT ((struct backoff){.base_usec = 5 * USEC_PER_MSEC, .max_usec = USEC_PER_SEC})
/* Between two looks for circuits that may be probed, when a ring says that one may. A look passes over what
 * somebody else has locked, so one that finds nothing is repeated, twice as late each time. */
#define PROBES_APART_USEC (100 * USEC_PER_MSEC)
#define PROBE_LOOKS 6

/* The claim under way. */
struct claim {
    int64_t token;
    int64_t first_integration; /* where it began */
    int64_t *last_integration; /* of its kind */
    int limit;
    struct look *look; /* NULL = it goes on where the last claims ended */
    bool is_probe;     /* of open circuits */
    bool was_rung;     /* a ring led to it */
    bool ready_only;   /* of integrations that need no handshake */
    bool reserve;      /* it may take slots that are kept for integrations with none */
    bool last_slots;   /* of those, the ones that are not for silent institutions either */
    uint64_t sent_at;  /* boot time */
};

struct claimer {
    struct claimer_parts parts;
    struct config *config;
    struct claimer_callbacks callbacks;
    void *userdata;
    int64_t process; /* of chance: whose the times of a rate_limit are */
    sd_event_source *timer;
    struct claim now;
    struct {
        int64_t any, probe, ready;
    } last_integration; /* the last one that gave a row, to each kind of claim */
    struct refusals refusals;
    bool rung;              /* since the claim under way was sent */
    bool missed;            /* a turn was due while a statement was under way */
    bool cut;               /* the last claim took all it could: more may wait */
    uint64_t starved_since; /* monotonic; no room for a worthwhile claim since; 0 = there was */
    struct looks looks;
    struct {
        uint64_t looked_at, due; /* monotonic: the last look for circuits to probe, and the next one */
        int fruitless;           /* looks in a row */
        struct refusals search;  /* its limit alone: the rows are passed over by all claims */
    } probes;
    uint64_t found_at; /* monotonic: the last find; 0 = never */
    struct deaf deaf;
    struct backoff locked_out;
};

void claimer_soon(struct claimer *c, uint64_t delay_usec)
{
    uint64_t at = now_monotonic_usec() + delay_usec, planned;
    int enabled = SD_EVENT_OFF;

    (void) sd_event_source_get_enabled(c->timer, &enabled);
    if (enabled != SD_EVENT_OFF && sd_event_source_get_time(c->timer, &planned) >= 0 && planned <= at)
        return;
    sd_event_source_set_time(c->timer, at);
    sd_event_source_set_enabled(c->timer, SD_EVENT_ONESHOT);
}

static void look_for_probes(struct claimer *c, uint64_t delay_usec)
{
    c->probes.due = MIN(c->probes.due, now_monotonic_usec() + delay_usec);
    claimer_soon(c, delay_usec);
}

void claimer_probe_soon(struct claimer *c, uint64_t delay_usec)
{
    c->probes.fruitless = 0;
    look_for_probes(c, delay_usec);
}

static int on_timer(sd_event_source *s, uint64_t usec, void *userdata)
{
    struct claimer *c = userdata;

    (void) s, (void) usec;
    c->missed = !queue_session_idle(c->parts.session);
    if (!c->missed)
        c->callbacks.turn(c->userdata);
    return 0;
}

/* Notifications that are on their way do not end a deaf pause. */
void claimer_rung(struct claimer *c)
{
    if (now_monotonic_usec() < c->deaf.until)
        return;
    c->rung = true;
    claimer_soon(c, 0);
}

void claimer_slots_freed(struct claimer *c, bool integration_has_more)
{
    if (integration_has_more || c->starved_since || c->cut)
        claimer_soon(c, REFILL_PAUSE_USEC);
}

/* --- when the next claim is ------------------------------------------------------------------- */

/* Nobody rings at the end of a backoff that only this daemon knows of, nor when a look for probes is due. */
static uint64_t wait_usec(const struct claimer *c)
{
    uint64_t until = deliveries_wait_until(c->parts.deliveries), now = now_monotonic_usec();

    return MIN(until > now ? until - now : USEC_INFINITY, c->probes.due > now ? c->probes.due - now : 0);
}

static void sleep_or_poll(struct claimer *c)
{
    uint64_t now = now_monotonic_usec(), poll_usec = c->config->delivery.poll_interval_usec;

    if (now < c->deaf.until) {
        claimer_soon(c, MIN(MIN(poll_usec, DEAF_POLL_USEC), c->deaf.until - now));
    } else if (now - c->found_at < BUSY_USEC && !doorbell_is_held(c->parts.doorbell)) {
        claimer_soon(c, SHORT_PAUSE_USEC);
    } else {
        doorbell_ask(c->parts.doorbell);
        claimer_soon(c, MIN(poll_usec, wait_usec(c)));
    }
}

static void note_find(struct claimer *c, int rows)
{
    uint64_t now = now_monotonic_usec();

    if (now - c->found_at < BUSY_USEC && (rows > 1 || c->rung))
        doorbell_release(c->parts.doorbell);
    c->found_at = now;
    deaf_found(&c->deaf);
}

static void note_fruitless_ring(struct claimer *c)
{
    if (!deaf_fruitless(&c->deaf, now_monotonic_usec()))
        return;
    c->rung = false;
    doorbell_release(c->parts.doorbell);
}

/* How long it looked, without the time that it took to claim what it found. */
static uint64_t look_took(const struct claimer *c, const struct pg_result *result, int rows)
{
    struct store_claimed row;

    if (rows == 0)
        return now_boottime_usec() - c->now.sent_at;
    store_claim_row(result, 0, &row);
    return row.found_usec;
}

static void note_look(struct claimer *c, const struct pg_result *result, int rows)
{
    uint64_t now = now_monotonic_usec(), took = look_took(c, result, rows);

    looks_note(&c->looks, c->now.look, took, rows > 0, now);
    if (c->now.look == &c->looks.nearby && rows == 0 && now < c->looks.everywhere_at)
        claimer_soon(c, c->looks.everywhere_at - now);
    if (c->now.look == &c->looks.everywhere && took < QUICK_USEC)
        integrations_forget_places(deliveries_integrations(c->parts.deliveries));
}

static void plan_next(struct claimer *c, int rows, bool locked_out)
{
    if (c->now.is_probe) {
        uint64_t now = now_monotonic_usec(),
                 next = integrations_next_probe(deliveries_integrations(c->parts.deliveries), now);
        claimer_soon(c, 0);
        if (next != USEC_INFINITY)
            look_for_probes(c, next - now);
        if (c->probes.search.limit > 0)
            look_for_probes(c, PROBES_APART_USEC);
        if (rows == 0 && ++c->probes.fruitless < PROBE_LOOKS)
            look_for_probes(c, PROBES_APART_USEC << c->probes.fruitless);
        return;
    }
    if (locked_out || c->now.ready_only) {
        c->rung |= c->now.was_rung; /* what rang is still to be found */
        claimer_soon(c, c->now.ready_only ? READY_PAUSE_USEC : backoff_next_usec(&c->locked_out));
        return;
    }
    c->locked_out = LOCKED_OUT;
    /* A claim for the slots that are kept says nothing about the integrations that have some. */
    c->cut = rows >= c->now.limit || (c->now.reserve && (c->cut || rows > 0));
    if (rows > 0) {
        note_find(c, rows);
        claimer_soon(c, rows >= c->now.limit || c->rung ? 0 : REFILL_PAUSE_USEC);
        return;
    }
    if (c->now.was_rung) {
        note_fruitless_ring(c);
        claimer_probe_soon(c, PROBES_APART_USEC);
    }
    if (c->rung || c->missed)
        claimer_soon(c, 0);
    else
        sleep_or_poll(c);
}

/* --- answers ---------------------------------------------------------------------------------- */

static void on_refused_row(struct pg_answer *answer, void *userdata)
{
    struct claimer *c = userdata;
    uint64_t pause_usec = refused_row_pass_over(&c->refusals, answer, "claim");

    if (c->now.is_probe)
        claimer_probe_soon(c, MAX(pause_usec, PROBES_APART_USEC));
    claimer_soon(c, c->now.is_probe ? 0 : pause_usec);
    if (answer->r == 0 && pg_rows(answer->result) > 0)
        *c->now.last_integration = pg_get_i64(answer->result, 0, 1);
    c->callbacks.claimed(0, c->userdata);
}

/* A row is to blame: fewer rows at once, until the one at the head is refused by itself. */
static void find_refused_row(struct claimer *c, const struct pg_answer *answer)
{
    bool is_alone = refusals_narrow(c->now.is_probe ? &c->probes.search : &c->refusals, c->now.limit);

    if (!is_alone || (!c->now.is_probe && !c->now.look)) {
        c->probes.due = c->now.is_probe ? 0 : c->probes.due;
        claimer_soon(c, 0);
        return;
    }
    refused_row_note(&c->refusals, answer->sqlstate);
    (void) queue_session_ask(c->parts.session, c->now.is_probe ? &sql_claim_probe_head : &sql_claim_head,
                             on_refused_row, c);
}

/* True when the statement was carried out. */
static bool was_done(struct claimer *c, const struct pg_answer *answer)
{
    if (answer->r != 0 && pg_blames_row(answer->sqlstate)) {
        find_refused_row(c, answer);
        return false;
    }
    if (queue_session_gave_up_for_lock(c->parts.session, answer)) {
        claimer_soon(c, 0);
        return false;
    }
    if (answer->r != 0) {
        queue_session_refused(c->parts.session, STANDSTILL_CLAIM, "claim subscriptions", answer);
        claimer_soon(c, ERROR_PAUSE_USEC);
        return false;
    }
    /* A look for circuits to probe says nothing about the rows that others claim. */
    if (!c->now.is_probe)
        queue_session_done(c->parts.session, STANDSTILL_CLAIM);
    return true;
}

static void send_rows(struct claimer *c, const struct pg_result *result, int rows)
{
    int64_t *last = c->now.last_integration;

    refusals_widen(c->now.is_probe ? &c->probes.search : &c->refusals, c->now.limit, rows);
    for (int i = 0; i < rows; i++) {
        struct store_claimed row;
        store_claim_row(result, i, &row);
        /* However late the answer is read, the time is none that another process may have by now. */
        row.send_usec -= (int64_t) (now_boottime_usec() - c->now.sent_at);
        if (i == 0 || store_claim_comes_later(row.integration_id, *last, c->now.first_integration))
            *last = row.integration_id;
        deliveries_start(c->parts.deliveries, &row, c->now.token, c->now.is_probe);
    }
}

/* The lease of a claim outlasts the request by a margin. When the answer has taken longer than that, another
 * daemon may have the rows before a request ends. Boot time, because machines sleep. */
static bool leases_last(const struct claimer *c)
{
    uint64_t margin = c->config->delivery.lease_usec - c->config->delivery.timeout_usec;

    return now_boottime_usec() - c->now.sent_at < margin;
}

static void on_claimed(struct pg_answer *answer, void *userdata)
{
    struct claimer *c = userdata;
    bool locked_out = answer->r == 0 && store_claim_was_locked_out(answer->result);
    int rows = answer->r == 0 && !locked_out ? pg_rows(answer->result) : 0;
    bool may_send = c->callbacks.may_send(c->userdata) && leases_last(c);

    if (answer->r == -ECONNRESET || (!may_send && rows > 0)) {
        c->callbacks.lost(c->now.token, c->userdata);
        claimer_soon(c, 0);
        rows = 0;
    } else if (may_send && was_done(c, answer)) {
        send_rows(c, answer->result, rows);
        if (c->now.look)
            note_look(c, answer->result, rows);
        plan_next(c, rows, locked_out);
    } else {
        rows = 0;
    }
    c->callbacks.claimed(rows, c->userdata);
}

/* --- how much --------------------------------------------------------------------------------- */

/* True when it is better to let more slots get free first. */
static bool better_to_wait(struct claimer *c, int slots, bool reserve, int64_t budget)
{
    int worthwhile = MIN(c->config->delivery.batch_size, MAX(c->config->delivery.max_in_flight / 4, 1));
    uint64_t now = now_monotonic_usec();

    if (slots >= worthwhile && !reserve && (budget > 0 || deliveries_count(c->parts.deliveries) == 0)) {
        c->starved_since = 0;
        return false;
    }
    if (!c->starved_since)
        c->starved_since = now;
    if (slots == 0 || budget <= 0) {
        /* No ring could lead to a claim; the end of a delivery does. */
        doorbell_release(c->parts.doorbell);
        return true;
    }
    if (now - c->starved_since >= STARVED_MAX_USEC) {
        c->starved_since = 0;
        return false;
    }
    claimer_soon(c, c->starved_since + STARVED_MAX_USEC - now);
    return true;
}

/* Those that need no handshake do not wait for the handshakes of all others. A ring may come from anywhere;
 * else the integrations that are known to have more go first for a while. NULL: it is too soon. */
static const struct pg_statement *choose_statement(struct claimer *c)
{
    uint64_t now = now_monotonic_usec();
    struct pg_args *args = queue_session_args(c->parts.session);
    const struct store_place *places = NULL;
    size_t count = 0;

    if (c->now.is_probe) {
        store_claim_places(args, c->process, 0, NULL);
        store_claim_probe_args(args, c->config->circuit_breaker.max_recovery_timeout_usec);
        return &sql_claim_probe;
    }
    if (c->now.ready_only) {
        count = deliveries_ready_places(c->parts.deliveries, &places);
        store_claim_places(args, c->process, count, places);
        claimer_soon(c, READY_PAUSE_USEC);
        return count > 0 ? &sql_claim_on : NULL;
    }
    if (!c->now.was_rung && !c->now.reserve && looks_can_wait(&c->looks, now) && c->refusals.limit == 0)
        count = integrations_take_places(deliveries_integrations(c->parts.deliveries), now, &places);
    if (count > 0) {
        store_claim_places(args, c->process, count, places);
        return &sql_claim_on;
    }
    if (now < c->looks.everywhere_at)
        count = integrations_near_places(deliveries_integrations(c->parts.deliveries), &places);
    c->now.look = count > 0 ? &c->looks.nearby : &c->looks.everywhere;
    if (now < c->now.look->again_at) {
        claimer_soon(c, MIN(c->now.look->again_at, c->looks.everywhere_at) - now);
        return NULL;
    }
    store_claim_places(args, c->process, count, places);
    return &sql_claim;
}

static void fill_args(struct claimer *c, int64_t budget)
{
    const struct store_load *loads;
    const int64_t *passed_over;
    size_t count = deliveries_loads(c->parts.deliveries, c->now.last_slots, &loads);
    size_t passed_over_count = refusals_ids(&c->refusals, now_monotonic_usec(), &passed_over);
    const struct config *config = c->config;

    store_claim_args(queue_session_args(c->parts.session),
                     &(struct store_claim_request){
                         .claimed_by = config->instance,
                         .token = c->now.token,
                         .lease_usec = config->delivery.lease_usec,
                         .default_timeout_usec = config->delivery.timeout_usec,
                         .limit = c->now.limit,
                         .default_max_in_flight = config->delivery.max_in_flight_per_integration,
                         .after_integration = c->now.first_integration,
                         .byte_budget = MAX(budget, 1),
                         .passed_over_count = passed_over_count,
                         .passed_over = passed_over,
                         .max_slots = c->now.reserve ? 1 : INT_MAX,
                     },
                     count, loads);
}

void claimer_claim(struct claimer *c)
{
    int64_t budget =
        (int64_t) c->config->delivery.max_claim_bytes - (int64_t) deliveries_bytes(c->parts.deliveries);
    bool reserve;
    int slots = deliveries_free_slots(c->parts.deliveries, c->callbacks.unsettled(c->userdata), &reserve);

    if (better_to_wait(c, slots, reserve, budget))
        return;
    uint64_t now = now_monotonic_usec();
    bool is_probe = now >= MIN(c->probes.due, c->probes.looked_at + c->config->delivery.poll_interval_usec);
    bool ready_only = !is_probe && c->refusals.limit == 0 && deliveries_are_congested(c->parts.deliveries);
    int64_t *last = is_probe     ? &c->last_integration.probe
                    : ready_only ? &c->last_integration.ready
                                 : &c->last_integration.any;
    c->now = (struct claim){
        .is_probe = is_probe,
        .token = (int64_t) (random_u64() >> 1) | 1,
        .ready_only = ready_only,
        .first_integration = *last,
        .last_integration = last,
        .limit = refusals_limit(is_probe ? &c->probes.search : &c->refusals, slots),
        .was_rung = c->rung,
        .reserve = reserve,
        .last_slots = reserve && slots <= c->config->delivery.max_in_flight / 8,
        .sent_at = now_boottime_usec(),
    };
    fill_args(c, budget);
    const struct pg_statement *statement = choose_statement(c);
    if (!statement)
        return;
    c->missed = false;
    c->rung = c->rung && is_probe;
    if (is_probe) {
        c->probes.looked_at = now;
        c->probes.due = USEC_INFINITY;
    }
    (void) queue_session_ask(c->parts.session, statement, on_claimed, c);
}

/* --- the interface ---------------------------------------------------------------------------- */

int claimer_new(struct claimer **ret, sd_event *event, struct config *config,
                const struct claimer_parts *parts, const struct claimer_callbacks *callbacks, void *userdata)
{
    struct claimer *c = xcalloc(1, sizeof(*c));

    c->parts = *parts;
    c->config = config_ref(config);
    c->callbacks = *callbacks;
    c->userdata = userdata;
    c->probes.due = USEC_INFINITY;
    c->locked_out = LOCKED_OUT;
    c->process = (int64_t) (random_u64() >> 1);
    int r = sd_event_add_time(event, &c->timer, CLOCK_MONOTONIC, 0, 500, on_timer, c);
    if (r >= 0)
        r = sd_event_source_set_enabled(c->timer, SD_EVENT_OFF);
    if (r < 0) {
        claimer_free(c);
        return r;
    }
    *ret = c;
    return 0;
}

void claimer_free(struct claimer *c)
{
    if (!c)
        return;
    sd_event_source_disable_unref(c->timer);
    refusals_free(&c->refusals);
    config_unref(c->config);
    free(c);
}

void claimer_reload(struct claimer *c, struct config *config)
{
    config_unref(c->config);
    c->config = config_ref(config);
}
