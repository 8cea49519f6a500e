/* The dispatcher's SQL. See store_delivery.h; schema in sql/. */
#include "delivery/store_delivery.h"

#include <string.h>

#include "base/timeutil.h"

/* About as many as a claim takes of one integration. */
#define WEIGHED_ROWS 32

/* Sessions have jit off: it set in at 10,000 integrations and cost more than the rest. Theirs is TimeZone
 * UTC. */

void store_claim_args(struct pg_args *args, const struct store_claim_request *q, size_t count,
                      const struct store_load *loads)
{
    static const struct store_load none;

    loads = count > 0 ? loads : &none; /* a place to point at */
    pg_args_clear(args);
    pg_arg_i64(args, q->limit);
    pg_arg_i64(args, q->byte_budget);
    pg_arg_i64s(args, &loads->integration_id, sizeof(*loads), count);
    pg_arg_i32s(args, &loads->in_flight, sizeof(*loads), count);
    pg_arg_i32(args, q->default_max_in_flight);
    pg_arg_i64(args, q->after_integration);
    pg_arg_text(args, q->claimed_by);
    pg_arg_i64(args, q->token);
    pg_arg_i64(args, (int64_t) (q->lease_usec / USEC_PER_MSEC));
    pg_arg_i32(args, (int32_t) (q->default_timeout_usec / USEC_PER_MSEC));
    pg_arg_i64(args, (int64_t) ((q->lease_usec - q->default_timeout_usec) / USEC_PER_MSEC));
    pg_arg_i64s(args, q->passed_over, sizeof(*q->passed_over), q->passed_over_count);
    pg_arg_i32s(args, &loads->slots, sizeof(*loads), count);
    pg_arg_i32(args, q->max_slots);
    pg_arg_i32s(args, &loads->retries, sizeof(*loads), count);
}

bool store_claim_comes_later(int64_t a, int64_t b, int64_t first)
{
    bool a_wrapped = a <= first, b_wrapped = b <= first;

    return a_wrapped != b_wrapped ? a_wrapped : a > b;
}

static void add_places(struct pg_args *args, size_t count, const struct store_place *places)
{
    static const struct store_place none;

    places = count > 0 ? places : &none;
    pg_arg_i64s(args, &places->integration_id, sizeof(*places), count);
    pg_arg_i64s(args, &places->fresh_id, sizeof(*places), count);
    pg_array_begin(args, PG_TIMESTAMPTZ);
    for (size_t i = 0; i < count; i++)
        pg_array_i64(args, places[i].due);
    pg_arg_i64s(args, &places->id, sizeof(*places), count);
}

void store_claim_places(struct pg_args *args, int64_t process, size_t count, const struct store_place *places)
{
    add_places(args, count, places);
    pg_arg_i64(args, process);
}

void store_weigh_args(struct pg_args *args, uint64_t long_usec, const int64_t *only, size_t count,
                      const struct store_place *places)
{
    pg_args_clear(args);
    add_places(args, count, places);
    pg_arg_i32(args, WEIGHED_ROWS);
    pg_arg_i64(args, (int64_t) long_usec);
    pg_arg_i64s(args, only ? only : &(int64_t){0}, sizeof(*only), only ? 1 : 0);
}

void store_claim_probe_args(struct pg_args *args, uint64_t max_recovery_usec)
{
    pg_arg_i64(args, (int64_t) (max_recovery_usec / USEC_PER_MSEC));
}

bool store_claim_was_locked_out(const struct pg_result *r)
{
    return pg_rows(r) == 1 && pg_is_null(r, 0, 0);
}

static enum store_used used_of(const char *word)
{
    return strcmp(word, "all") == 0       ? STORE_USED_ALL
           : strcmp(word, "retries") == 0 ? STORE_USED_RETRIES
                                          : STORE_USED_NONE;
}

void store_claim_row(const struct pg_result *r, int row, struct store_claimed *ret)
{
    ret->id = pg_get_i64(r, row, 0);
    ret->integration_id = pg_get_i64(r, row, 1);
    ret->attempts = (int) pg_get_i64(r, row, 2);
    ret->seed = pg_get_text(r, row, 3);
    ret->age_usec = (uint64_t) MAX(pg_get_i64(r, row, 4), 0);
    ret->payload = pg_get_bytes(r, row, 5, &ret->payload_len);
    ret->traceparent = pg_get_text(r, row, 6);
    size_t len;
    ret->namespace = (const unsigned char *) pg_get_bytes(r, row, 7, &len);
    ret->due = pg_get_i64(r, row, 8);
    ret->has_integration = pg_get_bool(r, row, 9);
    ret->used = used_of(pg_get_text(r, row, 10));
    ret->endpoint_url = pg_get_text(r, row, 11);
    ret->auth_token = pg_get_text(r, row, 12);
    ret->timeout_usec = (uint64_t) pg_get_i64(r, row, 13) * USEC_PER_MSEC;
    ret->max_attempts = (int) pg_get_i64(r, row, 14);
    ret->ambiguous = pg_get_i64(r, row, 15) >= 0;
    ret->ambiguous_usec = (uint64_t) MAX(pg_get_i64(r, row, 15), 0);
    ret->recovers = pg_get_bool(r, row, 16);
    ret->fingerprint = pg_get_i64(r, row, 17);
    ret->found_usec = (uint64_t) MAX(pg_get_i64(r, row, 18), 0);
    ret->generation = pg_get_i64(r, row, 19);
    ret->has_failures = pg_get_bool(r, row, 20);
    ret->name = pg_get_text(r, row, 21);
    ret->settings = pg_get_text(r, row, 22);
    ret->order_id = pg_get_text(r, row, 23);
    ret->interval_nsec = pg_is_null(r, row, 24) ? 0 : (uint64_t) MAX(pg_get_i64(r, row, 24), 1);
    ret->send_usec = pg_is_null(r, row, 25) ? 0 : pg_get_i64(r, row, 25);
    ret->taken_usec = pg_is_null(r, row, 26) ? USEC_INFINITY : (uint64_t) MAX(pg_get_i64(r, row, 26), 0);
    ret->turn = pg_get_i64(r, row, 27);
    ret->is_refusing = pg_get_bool(r, row, 28);
    ret->cut = pg_get_bool(r, row, 29);
}

void store_release_tokens_args(struct pg_args *args, size_t count, const int64_t *tokens)
{
    pg_args_clear(args);
    pg_arg_i64s(args, tokens, sizeof(*tokens), count);
}

static void add_claims(struct pg_args *args, size_t count, const struct store_settlement *const *items)
{
    pg_args_clear(args);
    pg_array_begin(args, PG_INT8);
    for (size_t i = 0; i < count; i++)
        pg_array_i64(args, items[i]->id);
    pg_array_begin(args, PG_INT8);
    for (size_t i = 0; i < count; i++)
        pg_array_i64(args, items[i]->token);
}

void store_still_claimed_args(struct pg_args *args, size_t count, const struct store_settlement *const *items)
{
    add_claims(args, count, items);
    pg_array_begin(args, PG_INT8);
    for (size_t i = 0; i < count; i++)
        pg_array_i64(args, items[i]->integration_id);
}

void store_refused_args(struct pg_args *args, size_t count, const struct store_settlement *first)
{
    CLEANUP(freep)
    char *name = first ? xasprintf(STORE_SETTLE_SESSION " (%zu refused: %" PRId64 ", %s)", count, first->id,
                                   first->refused_for)
                       : xstrdup(STORE_SETTLE_SESSION);

    pg_args_clear(args);
    pg_arg_text(args, name);
}

void store_renew_leases_args(struct pg_args *args, size_t count, const struct store_settlement *const *items,
                             uint64_t lease_usec)
{
    add_claims(args, count, items);
    pg_arg_i64(args, (int64_t) (lease_usec / USEC_PER_MSEC));
}

static void add_text(struct pg_args *args, const char *text)
{
    pg_array_bytes(args, text, text ? strlen(text) : 0);
}

static void add_outcomes(struct pg_args *args, size_t count, const struct store_settlement *const *items)
{
    pg_array_begin(args, PG_TEXT);
    for (size_t i = 0; i < count; i++)
        add_text(args, outcome_word(items[i]->outcome.state));
    pg_array_begin(args, PG_INT4);
    for (size_t i = 0; i < count; i++)
        pg_array_i32(args, items[i]->attempts);
    pg_array_begin(args, PG_INT8);
    for (size_t i = 0; i < count; i++)
        pg_array_i64(args, (int64_t) (items[i]->outcome.delay_usec / USEC_PER_MSEC));
}

static void add_answers(struct pg_args *args, size_t count, const struct store_settlement *const *items)
{
    pg_array_begin(args, PG_INT4);
    for (size_t i = 0; i < count; i++)
        if (items[i]->http_status)
            pg_array_i32(args, items[i]->http_status);
        else
            pg_array_null(args);
    pg_array_begin(args, PG_INT4);
    for (size_t i = 0; i < count; i++)
        pg_array_i32(args, items[i]->duration_ms);
    pg_array_begin(args, PG_TEXT);
    for (size_t i = 0; i < count; i++)
        add_text(args, items[i]->error);
    pg_array_begin(args, PG_TEXT);
    for (size_t i = 0; i < count; i++)
        pg_array_bytes(args, items[i]->response, items[i]->response_len);
    pg_array_begin(args, PG_BOOL);
    for (size_t i = 0; i < count; i++)
        if (items[i]->response)
            pg_array_bool(args, items[i]->truncated);
        else
            pg_array_null(args);
}

void store_settle_args(struct pg_args *args, size_t count, const struct store_settlement *const *items)
{
    store_still_claimed_args(args, count, items); /* the same first three */
    add_outcomes(args, count, items);
    add_answers(args, count, items);
    pg_array_begin(args, PG_BOOL);
    for (size_t i = 0; i < count; i++)
        pg_array_bool(args, items[i]->outcome.ambiguous);
    pg_array_begin(args, PG_TEXT);
    for (size_t i = 0; i < count; i++)
        add_text(args, items[i]->outcome.decided_by[0] ? items[i]->outcome.decided_by : NULL);
    pg_array_begin(args, PG_BOOL);
    for (size_t i = 0; i < count; i++)
        pg_array_bool(args, items[i]->absent);
    pg_array_begin(args, PG_BOOL);
    for (size_t i = 0; i < count; i++)
        pg_array_bool(args, items[i]->outcome.new_key);
}

void store_expire_leases_args(struct pg_args *args, const struct outcome_rules *rules, size_t count,
                              const int64_t *tokens, size_t passed_over_count, const int64_t *passed_over,
                              int limit, const char *instance, bool patient)
{
    pg_args_clear(args);
    pg_arg_i64s(args, tokens, sizeof(*tokens), count);
    pg_arg_i32(args, rules->max_attempts);
    pg_arg_i64(args, (int64_t) (rules->max_age_usec / USEC_PER_MSEC));
    pg_arg_i64(args, (int64_t) (rules->base_delay_usec / USEC_PER_MSEC));
    pg_arg_i64(args, (int64_t) (rules->max_delay_usec / USEC_PER_MSEC));
    pg_arg_i64s(args, passed_over, sizeof(*passed_over), passed_over_count);
    pg_arg_i32(args, limit);
    pg_arg_text(args, instance);
    pg_arg_bool(args, patient);
}

void store_pause_integration_args(struct pg_args *args, const struct store_wait *wait)
{
    pg_args_clear(args);
    pg_arg_i64(args, wait->integration_id);
    pg_arg_text(args, wait->reason);
    pg_arg_i64(args, wait->fingerprint);
}

void store_back_off_args(struct pg_args *args, const struct store_wait *wait)
{
    pg_args_clear(args);
    pg_arg_i64(args, wait->integration_id);
    pg_arg_i64(args, (int64_t) (wait->usec / USEC_PER_MSEC));
    pg_arg_text(args, wait->reason);
    pg_arg_i64(args, wait->fingerprint);
}

struct store_circuit_rules store_circuit_rules(const struct config *config)
{
    return (struct store_circuit_rules){
        .failure_threshold = config->circuit_breaker.failure_threshold,
        .recovery_usec = config->circuit_breaker.recovery_timeout_usec,
        .max_recovery_usec = config->circuit_breaker.max_recovery_timeout_usec,
    };
}

void store_circuit_args(struct pg_args *args, const struct store_circuit_rules *rules, size_t count,
                        const struct store_circuit *notes, bool avoid_locked)
{
    pg_args_clear(args);
    pg_arg_i64s(args, &notes->integration_id, sizeof(*notes), count);
    pg_arg_i64s(args, &notes->fingerprint, sizeof(*notes), count);
    pg_array_begin(args, PG_TEXT);
    for (size_t i = 0; i < count; i++)
        add_text(args, circuit_event_word(notes[i].event));
    pg_arg_i64s(args, &notes->generation, sizeof(*notes), count);
    pg_arg_i32s(args, &notes->failures, sizeof(*notes), count);
    pg_arg_i32(args, rules->failure_threshold);
    pg_arg_i64(args, (int64_t) (rules->recovery_usec / USEC_PER_MSEC));
    pg_arg_i64(args, (int64_t) (rules->max_recovery_usec / USEC_PER_MSEC));
    pg_arg_bool(args, avoid_locked);
    pg_array_begin(args, PG_TEXT);
    for (size_t i = 0; i < count; i++)
        add_text(args, notes[i].why);
    pg_array_begin(args, PG_INT4);
    for (size_t i = 0; i < count; i++)
        pg_array_i32(args, notes[i].ours);
}

static uint64_t get_duration(const struct pg_result *r, int row, int column, uint64_t otherwise)
{
    return pg_is_null(r, row, column) ? otherwise
                                      : (uint64_t) MAX(pg_get_i64(r, row, column), 0) * USEC_PER_MSEC;
}

void store_circuit_row(const struct pg_result *r, int row, struct store_circuit_change *ret)
{
    ret->integration_id = pg_get_i64(r, row, 0);
    ret->state_before = pg_get_text(r, row, 1);
    ret->state = pg_get_text(r, row, 2);
    ret->reason = pg_get_text(r, row, 3);
    ret->probe_usec = ret->state[0] ? MAX(get_duration(r, row, 4, USEC_INFINITY), 1) : 0;
    ret->lasted_usec = get_duration(r, row, 5, 0);
    ret->name = pg_get_text(r, row, 6);
    ret->reason_before = pg_get_text(r, row, 7);
}

void store_judge_args(struct pg_args *args, size_t count, const struct store_refusal *refusals,
                      const char *reason)
{
    pg_args_clear(args);
    pg_arg_i64s(args, &refusals->integration_id, sizeof(*refusals), count);
    pg_arg_i64s(args, &refusals->fingerprint, sizeof(*refusals), count);
    pg_arg_i64s(args, &refusals->turn, sizeof(*refusals), count);
    pg_array_begin(args, PG_BOOL);
    for (size_t i = 0; i < count; i++)
        pg_array_bool(args, refusals[i].taken);
    pg_array_begin(args, PG_INT8);
    for (size_t i = 0; i < count; i++)
        if (refusals[i].taken_usec < USEC_INFINITY)
            pg_array_i64(args, (int64_t) refusals[i].taken_usec);
        else
            pg_array_null(args);
    pg_arg_text(args, reason);
}

void store_verdict_row(const struct pg_result *r, int row, struct store_verdict *ret)
{
    ret->integration_id = pg_get_i64(r, row, 0);
    ret->fingerprint = pg_get_i64(r, row, 1);
    ret->turn = pg_get_i64(r, row, 2);
    ret->may_fail = pg_get_i64(r, row, 3);
    ret->paused_turn = pg_get_i64(r, row, 4);
    ret->is_vain = pg_get_bool(r, row, 5);
}
