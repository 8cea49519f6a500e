/* The dispatcher's SQL. See store_delivery.h; schema in sql/. */
#include "delivery/store_delivery.h"

#include <string.h>

#include "base/timeutil.h"

/* Sessions have jit off: it set in at 10,000 integrations and cost more than the rest. Theirs is TimeZone
 * UTC. */

static void add_i64_array(struct pg_args *args, size_t count, const int64_t *values)
{
    pg_array_begin(args, PG_INT8);
    for (size_t i = 0; i < count; i++)
        pg_array_i64(args, values[i]);
    pg_array_end(args);
}

void store_claim_args(struct pg_args *args, const struct store_claim_request *q, size_t count,
                      const struct store_load *loads)
{
    pg_args_clear(args);
    pg_arg_i64(args, q->limit);
    pg_arg_i64(args, q->byte_budget);
    pg_array_begin(args, PG_INT8);
    for (size_t i = 0; i < count; i++)
        pg_array_i64(args, loads[i].integration_id);
    pg_array_end(args);
    pg_array_begin(args, PG_INT4);
    for (size_t i = 0; i < count; i++)
        pg_array_i32(args, loads[i].in_flight);
    pg_array_end(args);
    pg_arg_i32(args, q->default_max_in_flight);
    pg_arg_i64(args, q->after_integration);
    pg_arg_text(args, q->claimed_by);
    pg_arg_i64(args, q->token);
    pg_arg_i64(args, (int64_t) (q->lease_usec / USEC_PER_MSEC));
    pg_arg_i32(args, (int32_t) (q->default_timeout_usec / USEC_PER_MSEC));
    pg_arg_i64(args, (int64_t) ((q->lease_usec - q->default_timeout_usec) / USEC_PER_MSEC));
    add_i64_array(args, q->passed_over_count, q->passed_over);
    pg_array_begin(args, PG_INT4);
    for (size_t i = 0; i < count; i++)
        pg_array_i32(args, loads[i].slots);
    pg_array_end(args);
    pg_arg_i32(args, q->max_slots);
}

void store_claim_on_args(struct pg_args *args, size_t count, const struct store_place *places)
{
    pg_array_begin(args, PG_INT8);
    for (size_t i = 0; i < count; i++)
        pg_array_i64(args, places[i].integration_id);
    pg_array_end(args);
    pg_array_begin(args, PG_TIMESTAMPTZ);
    for (size_t i = 0; i < count; i++)
        pg_array_i64(args, places[i].due);
    pg_array_end(args);
    pg_array_begin(args, PG_INT8);
    for (size_t i = 0; i < count; i++)
        pg_array_i64(args, places[i].id);
    pg_array_end(args);
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
    ret->quota_used = pg_get_bool(r, row, 10);
    ret->endpoint_url = pg_get_text(r, row, 11);
    ret->auth_token = pg_get_text(r, row, 12);
    ret->timeout_usec = (uint64_t) pg_get_i64(r, row, 13) * USEC_PER_MSEC;
    ret->max_attempts = (int) pg_get_i64(r, row, 14);
    ret->ambiguous = pg_get_bool(r, row, 15);
    ret->recovers = pg_get_bool(r, row, 16);
    ret->fingerprint = pg_get_i64(r, row, 17);
}

void store_release_tokens_args(struct pg_args *args, size_t count, const int64_t *tokens)
{
    pg_args_clear(args);
    add_i64_array(args, count, tokens);
}

typedef void (*add_field)(struct pg_args *, const struct store_settlement *);

static void add_id(struct pg_args *a, const struct store_settlement *s)
{
    pg_array_i64(a, s->id);
}
static void add_token(struct pg_args *a, const struct store_settlement *s)
{
    pg_array_i64(a, s->token);
}
static void add_state(struct pg_args *a, const struct store_settlement *s)
{
    const char *word = outcome_word(s->outcome.state);
    pg_array_bytes(a, word, strlen(word));
}
static void add_costs(struct pg_args *a, const struct store_settlement *s)
{
    pg_array_bool(a, s->outcome.costs_attempt || s->outcome.state == OUTCOME_SENT);
}
static void add_delay(struct pg_args *a, const struct store_settlement *s)
{
    pg_array_i64(a, (int64_t) (s->outcome.delay_usec / USEC_PER_MSEC));
}
static void add_http_status(struct pg_args *a, const struct store_settlement *s)
{
    if (s->http_status)
        pg_array_i32(a, s->http_status);
    else
        pg_array_null(a);
}
static void add_duration(struct pg_args *a, const struct store_settlement *s)
{
    pg_array_i32(a, s->duration_ms);
}
static void add_text(struct pg_args *a, const char *text, size_t len)
{
    if (text)
        pg_array_bytes(a, text, len);
    else
        pg_array_null(a);
}
static void add_error(struct pg_args *a, const struct store_settlement *s)
{
    add_text(a, s->error, s->error ? strlen(s->error) : 0);
}
static void add_response(struct pg_args *a, const struct store_settlement *s)
{
    add_text(a, s->response, s->response_len);
}
static void add_truncated(struct pg_args *a, const struct store_settlement *s)
{
    if (s->response)
        pg_array_bool(a, s->truncated);
    else
        pg_array_null(a);
}
static void add_ambiguous(struct pg_args *a, const struct store_settlement *s)
{
    pg_array_bool(a, s->outcome.ambiguous);
}

void store_settle_args(struct pg_args *args, size_t count, const struct store_settlement *const *items)
{
    static const struct {
        enum pg_element type;
        add_field add;
    } fields[] = {
        {PG_INT8, add_id},       {PG_INT8, add_token},       {PG_TEXT, add_state},     {PG_BOOL, add_costs},
        {PG_INT8, add_delay},    {PG_INT4, add_http_status}, {PG_INT4, add_duration},  {PG_TEXT, add_error},
        {PG_TEXT, add_response}, {PG_BOOL, add_truncated},   {PG_BOOL, add_ambiguous},
    };
    pg_args_clear(args);
    for (size_t f = 0; f < ARRAY_SIZE(fields); f++) {
        pg_array_begin(args, fields[f].type);
        for (size_t i = 0; i < count; i++)
            fields[f].add(args, items[i]);
        pg_array_end(args);
    }
}

void store_still_claimed_args(struct pg_args *args, size_t count, const int64_t *ids, const int64_t *tokens)
{
    pg_args_clear(args);
    add_i64_array(args, count, ids);
    add_i64_array(args, count, tokens);
}

void store_expire_leases_args(struct pg_args *args, const struct outcome_rules *rules, size_t count,
                              const int64_t *tokens, size_t passed_over_count, const int64_t *passed_over,
                              int limit)
{
    pg_args_clear(args);
    add_i64_array(args, count, tokens);
    pg_arg_i32(args, rules->max_attempts);
    pg_arg_i64(args, (int64_t) (rules->max_age_usec / USEC_PER_MSEC));
    pg_arg_i64(args, (int64_t) (rules->base_delay_usec / USEC_PER_MSEC));
    pg_arg_i64(args, (int64_t) (rules->max_delay_usec / USEC_PER_MSEC));
    add_i64_array(args, passed_over_count, passed_over);
    pg_arg_i32(args, limit);
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
