/* What "anubisctl status" and "anubisctl explain" read. Outcomes and errors are pg_query()'s.
 *
 * Texts live as long as `result` of the struct they stand in, which the caller frees. Nobody's personal data
 * is among them but stored errors, which are to be classified before they are shown. */
#pragma once

#include "pg/pg.h"

/* --- status ----------------------------------------------------------------------------------- */

struct store_overview {
    const char *database, *role, *server;
    int64_t now;
    int64_t version, migrated_at;
    const char *migrated_by;
    int64_t daemons; /* connected now */
    int64_t high, last_id, gap_ranges, gap_ids;
    const char *leader;  /* who leads or led last; "" = nobody yet */
    bool leads;          /* still */
    const char *trouble; /* what keeps the leader from publishing, "" = nothing but stopped_on */
    int64_t relay_at;    /* when the relay last wrote */
    int64_t stopped_on;  /* 0 = it is not stopped */
    const char *stopped_reason;
    int64_t partitions_ahead;
    bool default_partition_used;
    int64_t table_bytes, due_index_bytes;
    struct pg_result *result;
};
int store_overview(struct pg *pg, struct store_overview *ret, struct error *err);

/* Columns: status, count, about (boolean), count is null when nothing is known. The first counts all rows,
 * the second what indexes count and estimates the rest by what ANALYZE found. */
extern const struct pg_statement store_states_exact, store_states_about;

struct store_integration {
    int64_t id;
    const char *name;
    bool enabled;
    int64_t paused_until; /* INT64_MIN = not paused */
    const char *pause_reason, *circuit_state;
    int64_t waiting, due;
    bool waiting_is_least, due_is_least; /* there may be more */
    int64_t in_flight, held, sent, failed;
    int64_t oldest; /* since when its longest waiting subscription is due; INT64_MIN = none */
    /* What one of those in "retry" came to lately; 0, "" = none seen. To be classified before it is shown. */
    int64_t retry_status;
    const char *retry_error;
};
/* All integrations by id; what waits is counted up to `limit` for each (0 = all), and what is tried again is
 * looked for among what is due within `max_wait_usec`. Read each row by store_integration_row() with the same
 * limit. */
int store_integrations(struct pg *pg, int64_t limit, uint64_t max_wait_usec, struct pg_result **ret,
                       struct error *err);
void store_integration_row(const struct pg_result *result, int row, int64_t limit,
                           struct store_integration *ret);

/* Waiting subscriptions without an integration, counted up to `limit` (0 = all). */
int store_unrouted(struct pg *pg, int64_t limit, int64_t *ret, struct error *err);

/* How many of the last ledger ids are looked at for what consumers have not handled yet. */
#define STORE_LAG_WINDOW 100000
/* Columns: group, topic, partitions, messages read, foreign messages, last change, published events in the
 * window that are not handled. */
extern const struct pg_statement store_lags;
void store_lags_args(struct pg_args *args);

/* --- explain ---------------------------------------------------------------------------------- */

struct store_subscription {
    const char *status;
    int64_t attempts, payload_version;
    /* INT64_MIN = none */
    int64_t created_at, updated_at, scheduled_to, next_attempt_at, lease_expires_at, held_at, sent_at;
    const char *claimed_by, *error;
    int64_t http_status; /* 0 = none */
    bool ambiguous;
    int64_t integration_id; /* 0 = none */
    bool integration_exists, enabled, has_url;
    const char *integration_name, *pause_reason, *circuit_state;
    int64_t paused_until;
    int64_t max_in_flight, max_attempts; /* 0 = the default */
    int64_t in_flight;
    int64_t ahead;                  /* due before it, counted up to STORE_AHEAD_MAX */
    const unsigned char *namespace; /* 16 bytes */
    int64_t now, daemons;
    struct pg_result *result;
};
#define STORE_AHEAD_MAX 10000
/* *ret_found is false when there is none. */
int store_subscription(struct pg *pg, int64_t id, struct store_subscription *ret, bool *ret_found,
                       struct error *err);

enum store_published { STORE_PUBLISHED, STORE_NOT_YET, STORE_NEVER };
struct store_event {
    int64_t id, created_at;
    const char *type; /* "" = no event: a note of the adopted application's */
    const char *operation, *from_status, *to_status, *error;
    int64_t attempt, http_status, duration_ms; /* -1, 0, -1 = none */
    bool ambiguous;
    enum store_published published;
};
int store_events(struct pg *pg, int64_t subscription_id, struct pg_result **ret, struct error *err);
void store_event_row(const struct pg_result *result, int row, struct store_event *ret);
