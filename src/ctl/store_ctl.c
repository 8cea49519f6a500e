/* SQL of "anubisctl status" and "anubisctl explain". See store_ctl.h. */
#include "ctl/store_ctl.h"

#include <errno.h>

#include "base/timeutil.h"
#include "pg/pg_session.h"
#include "sql/statements.h"

/* --- status ----------------------------------------------------------------------------------- */

static void read_relay(struct pg_row *row, struct store_relay_view *ret)
{
    ret->high = pg_next_i64(row);
    ret->last_id = pg_next_i64(row);
    ret->gap_ranges = pg_next_i64(row);
    ret->gap_ids = pg_next_i64(row);
    ret->above = pg_next_i64(row);
    ret->leader = pg_next_text(row);
    ret->leads = pg_next_bool(row);
    ret->trouble = pg_next_text(row);
    ret->stranger = pg_next_text(row);
    ret->updated_at = pg_next_time(row);
    ret->stopped_on = pg_next_i64(row);
    ret->stopped_reason = pg_next_text(row);
}

int store_overview(struct pg *pg, struct store_overview *ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, PG_SESSION_CLAIM);
    int r = pg_query(pg, &sql_status_overview, &args, &ret->result, err);
    if (r != PG_DONE)
        return r;
    if (pg_rows(ret->result) != 1) {
        error_set(err, "the table relay_state has no row: run \"anubisctl migrate\", which brings it back");
        return -EBADMSG;
    }
    struct pg_row row = {ret->result, 0, 0};
    ret->database = pg_next_text(&row);
    ret->role = pg_next_text(&row);
    ret->server = pg_next_text(&row);
    ret->now = pg_next_time(&row);
    ret->version = pg_next_i64(&row);
    ret->migrated_at = pg_next_time(&row);
    ret->daemons = pg_next_i64(&row);
    read_relay(&row, &ret->relay);
    ret->partitions_ahead = pg_next_i64(&row);
    ret->default_partition_used = pg_next_bool(&row);
    ret->dropped_id = pg_next_i64(&row);
    ret->dropped_at = pg_next_time(&row);
    ret->table_bytes = pg_next_i64(&row);
    ret->due_index_bytes = pg_next_i64(&row);
    ret->standby = pg_next_bool(&row);
    ret->read_only = pg_next_bool(&row);
    return PG_DONE;
}

/* So many of the rows that are due now, and of those due later, are counted one by one. */
#define DUE_MAX 1000
/* So many rows are looked at for why they are tried again. */
#define RETRIES_MAX 100
/* So many of the last ledger ids are looked at for published events that consumers have not handled. */
#define LAG_WINDOW 100000

int store_integrations(struct pg *pg, int64_t limit, uint64_t max_wait_usec, struct pg_result **ret,
                       struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64(&args, limit);
    pg_arg_i64(&args, DUE_MAX);
    pg_arg_i64(&args, (int64_t) (max_wait_usec / USEC_PER_SEC) + 1);
    pg_arg_i64(&args, RETRIES_MAX);
    pg_arg_i64(&args, STORE_HEALTH_WINDOW);
    return pg_query(pg, &sql_status_integrations, &args, ret, err);
}

static void read_waiting(struct pg_row *row, int64_t limit, struct store_integration *ret)
{
    int64_t waiting = pg_next_i64(row), due = pg_next_i64(row), due_later = pg_next_i64(row);

    ret->waiting = waiting;
    ret->waiting_is_least = limit && waiting >= limit;
    ret->due = due_later < DUE_MAX ? MAX(waiting - due_later, due) : due;
    ret->due_is_least = due >= DUE_MAX && (due_later >= DUE_MAX || ret->waiting_is_least);
}

void store_circuit_view(struct pg_row *row, struct store_circuit_view *ret)
{
    ret->state = pg_next_text(row);
    ret->until = pg_next_time(row);
    ret->reason = pg_next_text(row);
    ret->since = pg_next_time(row);
    ret->why = pg_next_text(row);
}

void store_integration_row(const struct pg_result *result, int number, int64_t limit,
                           struct store_integration *ret)
{
    struct pg_row row = {result, number, 0};

    ret->id = pg_next_i64(&row);
    ret->name = pg_next_text(&row);
    ret->enabled = pg_next_bool(&row);
    ret->paused_until = pg_next_time(&row);
    ret->pause_reason = pg_next_text(&row);
    store_circuit_view(&row, &ret->circuit);
    ret->backoff_until = pg_next_time(&row);
    ret->backoff_reason = pg_next_text(&row);
    read_waiting(&row, limit, ret);
    ret->in_flight = pg_next_i64(&row);
    ret->held = pg_next_i64(&row);
    ret->sent = pg_next_i64(&row);
    ret->failed = pg_next_i64(&row);
    ret->failed_ambiguous = pg_next_i64(&row);
    ret->oldest = pg_next_time(&row);
    ret->retry_status = pg_next_i64(&row);
    ret->retry_error = pg_next_text(&row);
}

int store_health(struct pg *pg, struct pg_result **ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64(&args, STORE_HEALTH_WINDOW);
    pg_arg_i64(&args, STORE_RECENT_SECONDS);
    return pg_query(pg, &sql_status_health, &args, ret, err);
}

void store_health_row(const struct pg_result *result, int number, struct store_health *ret)
{
    struct pg_row row = {result, number, 0};

    ret->integration_id = pg_next_i64(&row);
    ret->sent_at = pg_next_time(&row);
    ret->failed_in_row = pg_next_i64(&row);
    ret->failing_since = pg_next_time(&row);
    ret->failed_at = pg_next_time(&row);
    ret->http_status = pg_next_i64(&row);
    ret->error = pg_next_text(&row);
    ret->recent_sent = pg_next_i64(&row);
    ret->recent_errors = pg_next_i64(&row);
    ret->window_began_at = pg_next_time(&row);
    ret->same_since = pg_next_time(&row);
}

int store_unrouted(struct pg *pg, int64_t limit, int64_t *ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64(&args, limit);
    return pg_query_i64(pg, &sql_status_unrouted, &args, ret, err);
}

int store_snapshot(struct pg *pg, struct store_snapshot *ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64(&args, STORE_SNAPSHOT_LONG_SECONDS);
    pg_arg_i64(&args, STORE_SNAPSHOT_LONG_TRANSACTIONS);
    int r = pg_query(pg, &sql_status_snapshot, &args, &ret->result, err);
    if (r != PG_DONE || pg_rows(ret->result) == 0)
        return r;
    struct pg_row row = {ret->result, 0, 0};
    ret->kind = pg_next_text(&row);
    ret->pid = pg_next_i64(&row);
    ret->name = pg_next_text(&row);
    ret->role = pg_next_text(&row);
    ret->state = pg_next_text(&row);
    ret->since = pg_next_time(&row);
    ret->transactions = pg_next_i64(&row);
    ret->is_long = pg_next_bool(&row);
    return PG_DONE;
}

int store_lags(struct pg *pg, struct pg_result **ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64(&args, LAG_WINDOW);
    return pg_query(pg, &sql_status_lags, &args, ret, err);
}

/* --- explain ---------------------------------------------------------------------------------- */

static void read_route(struct pg_row *row, struct store_route *ret)
{
    ret->id = pg_next_i64(row);
    ret->exists = pg_next_bool(row);
    ret->name = pg_next_text(row);
    ret->enabled = pg_next_bool(row);
    ret->has_url = pg_next_bool(row);
    ret->paused_until = pg_next_time(row);
    ret->pause_reason = pg_next_text(row);
    store_circuit_view(row, &ret->circuit);
    ret->backoff_until = pg_next_time(row);
    ret->backoff_reason = pg_next_text(row);
    ret->max_in_flight = pg_next_i64(row);
    ret->max_attempts = pg_next_i64(row);
    ret->served_by = pg_next_text(row);
    ret->served_until = pg_next_time(row);
    ret->interval_usec = pg_next_i64(row);
    ret->rate_next = pg_next_time(row);
    ret->in_flight = pg_next_i64(row);
}

int store_subscription(struct pg *pg, int64_t id, struct store_subscription *ret, bool *ret_found,
                       struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    size_t len;

    pg_arg_i64(&args, id);
    pg_arg_i64(&args, STORE_AHEAD_MAX);
    pg_arg_text(&args, PG_SESSION_CLAIM);
    int r = pg_query(pg, &sql_explain_subscription, &args, &ret->result, err);
    if (r != PG_DONE)
        return r;
    *ret_found = pg_rows(ret->result) == 1;
    if (!*ret_found)
        return PG_DONE;
    struct pg_row row = {ret->result, 0, 0};
    ret->status = pg_next_text(&row);
    ret->attempts = pg_next_i64(&row);
    ret->seed = pg_next_text(&row);
    ret->payload.p = pg_next_bytes(&row, &ret->payload.len);
    ret->at.created = pg_next_time(&row);
    ret->at.updated = pg_next_time(&row);
    ret->at.scheduled = pg_next_time(&row);
    ret->at.next_attempt = pg_next_time(&row);
    ret->at.held = pg_next_time(&row);
    ret->at.sent = pg_next_time(&row);
    ret->claimed_by = pg_next_text(&row);
    ret->lease_expires_at = pg_next_time(&row);
    ret->last_error = pg_next_text(&row);
    ret->last_http_status = pg_next_i64(&row);
    ret->last_ambiguous = pg_next_bool(&row);
    ret->ambiguous_since = pg_next_time(&row);
    read_route(&row, &ret->integration);
    ret->ahead = pg_next_i64(&row);
    ret->namespace = (const unsigned char *) pg_next_bytes(&row, &len);
    ret->now = pg_next_time(&row);
    ret->daemons = pg_next_i64(&row);
    ret->filter_id = pg_next_i64(&row);
    bool no_origin = pg_next_is_null(&row);
    const char *origin = pg_next_text(&row);
    ret->origin = no_origin ? NULL : origin;
    ret->resend_of = pg_next_i64(&row);
    ret->resent_as = pg_next_i64(&row);
    ret->at.dropped = pg_next_time(&row);
    ret->at.erased = pg_next_time(&row);
    return PG_DONE;
}

int store_find(struct pg *pg, const char *order, const char *cpf, struct pg_result **ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_text(&args, order);
    pg_arg_text(&args, cpf);
    pg_arg_i64(&args, STORE_FOUND_MAX);
    return pg_query(pg, &sql_explain_find, &args, ret, err);
}

int store_events(struct pg *pg, int64_t subscription_id, struct pg_result **ret, struct error *err)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64(&args, subscription_id);
    return pg_query(pg, &sql_explain_events, &args, ret, err);
}

void store_event_row(const struct pg_result *result, int number, struct store_event *ret)
{
    struct pg_row row = {result, number, 0};

    ret->id = pg_next_i64(&row);
    ret->created_at = pg_next_time(&row);
    ret->type = pg_next_text(&row);
    ret->operation = pg_next_text(&row);
    ret->from_status = pg_next_text(&row);
    ret->to_status = pg_next_text(&row);
    ret->attempt = pg_next_i64(&row);
    ret->http_status = pg_next_i64(&row);
    ret->duration_ms = pg_next_i64(&row);
    ret->error = pg_next_text(&row);
    ret->ambiguous = pg_next_bool(&row);
    ret->decided_by = pg_next_text(&row);
    ret->published = (enum store_published) pg_next_i64(&row);
}
