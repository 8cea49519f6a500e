/* What "anubisctl status" and "anubisctl explain" read. Outcomes and errors are pg_query()'s.
 *
 * Texts live as long as the result from which they were read, which the caller frees. The only personal data
 * among them are stored errors: classify them before they are shown. A time of INT64_MIN is none. */
#pragma once

#include "pg/pg.h"

/* --- status ----------------------------------------------------------------------------------- */

struct store_relay_view {
    int64_t high, last_id; /* published up to the one, while the ledger goes to the other */
    int64_t gap_ranges, gap_ids;
    int64_t above;        /* ids above high that were given out */
    const char *leader;   /* the relay that leads or led last; "" = none so far */
    bool leads;           /* still */
    const char *stranger; /* who has the leader's lock and is no daemon, with what helps; "" = none */
    const char *trouble; /* what the leader waits for before it publishes; "" = nothing, but see stopped_on */
    int64_t updated_at;
    int64_t stopped_on; /* 0 = not stopped */
    const char *stopped_reason;
};

struct store_overview {
    const char *database, *role, *server;
    int64_t now;
    int64_t version, migrated_at;
    int64_t daemons; /* connected now */
    struct store_relay_view relay;
    int64_t partitions_ahead;
    bool default_partition_used;
    int64_t dropped_id, dropped_at;       /* the last event that has left the ledger; 0 = none has */
    int64_t table_bytes, due_index_bytes; /* -1 = there is no such index */
    bool standby, read_only;              /* the server; a new session as this one */
    struct pg_result *result;
};
int store_overview(struct pg *pg, struct store_overview *ret, struct error *err);

struct store_circuit_view {
    const char *state, *reason, *why; /* why: "" = the last answer tells */
    int64_t since, until;             /* until: the next probe, or the end of the one that is under way */
};

struct store_integration {
    int64_t id;
    const char *name;
    bool enabled;
    int64_t paused_until;
    const char *pause_reason;
    struct store_circuit_view circuit;
    int64_t backoff_until;
    const char *backoff_reason;
    int64_t waiting, due;
    bool waiting_is_least, due_is_least; /* there may be more */
    int64_t in_flight, held, sent, failed;
    int64_t failed_ambiguous; /* failed now, and the institution may have it all the same */
    int64_t oldest;           /* since when its longest waiting subscription is due */
    /* How a recent attempt of a subscription in "retry" ended; 0 and "" = none found. */
    int64_t retry_status;
    const char *retry_error;
};
/* All integrations by id. Waiting rows are counted up to `limit` in each (0 = all). Rows that are tried again
 * are looked for among those due within `max_wait_usec`. Read each row by store_integration_row() with the
 * same limit. */
int store_integrations(struct pg *pg, int64_t limit, uint64_t max_wait_usec, struct pg_result **ret,
                       struct error *err);
void store_integration_row(const struct pg_result *result, int row, int64_t limit,
                           struct store_integration *ret);

/* The next five columns, as the statements on integrations have them. */
void store_circuit_view(struct pg_row *row, struct store_circuit_view *ret);

/* How an integration fared of late: the results of attempts among the last events of the ledger. */
struct store_health {
    int64_t integration_id;
    int64_t sent_at;                      /* its last success */
    int64_t failed_in_row, failing_since; /* since then */
    int64_t failed_at, http_status;       /* of the last failure; 0 = there was no answer */
    int64_t same_since;                   /* they failed as the last one did */
    const char *error;                    /* of the last failure */
    int64_t recent_sent, recent_errors;   /* within STORE_RECENT_SECONDS */
    int64_t window_began_at;              /* nothing before is looked at */
};
#define STORE_HEALTH_WINDOW 200000 /* ids of the ledger */
#define STORE_RECENT_SECONDS 300
/* By integration; those without results have no row. */
int store_health(struct pg *pg, struct pg_result **ret, struct error *err);
void store_health_row(const struct pg_result *result, int row, struct store_health *ret);

/* Waiting subscriptions without an integration, counted up to `limit` (0 = all). */
int store_unrouted(struct pg *pg, int64_t limit, int64_t *ret, struct error *err);

/* The oldest thing that keeps VACUUM from removing old versions of rows and their index entries. */
struct store_snapshot {
    const char *kind; /* session, prepared (transaction) or slot (of replication); "" = there is none */
    int64_t pid;
    const char *name, *role, *state;
    int64_t since;        /* INT64_MIN = not known */
    int64_t transactions; /* so many have begun since */
    bool is_long;         /* by STORE_SNAPSHOT_… */
    struct pg_result *result;
};
#define STORE_SNAPSHOT_LONG_SECONDS 300
#define STORE_SNAPSHOT_LONG_TRANSACTIONS 100000
int store_snapshot(struct pg *pg, struct store_snapshot *ret, struct error *err);

/* Columns: group, topic, partitions, messages read, published events that are not handled (among the last ids
 * of the ledger), foreign messages, unknown events, last
 * change. */
int store_lags(struct pg *pg, struct pg_result **ret, struct error *err);

/* --- explain ---------------------------------------------------------------------------------- */

/* The integration of a subscription. */
struct store_route {
    int64_t id; /* 0 = none */
    bool exists;
    const char *name;
    bool enabled, has_url;
    int64_t paused_until;
    const char *pause_reason;
    struct store_circuit_view circuit;
    int64_t backoff_until;
    const char *backoff_reason;
    int64_t max_in_flight, max_attempts; /* 0 = the default */
    const char *served_by;               /* "" = nobody alone; until `served_until` */
    int64_t served_until;
    int64_t interval_usec; /* by its rate_limit; 0 = there is none */
    int64_t rate_next;     /* by it, the next request; INT64_MIN = there may be one now */
    int64_t in_flight;
};

struct store_subscription {
    const char *status;
    int64_t attempts;
    const char *seed; /* "" = none */
    struct bytes payload;
    struct {
        int64_t created, updated, scheduled, next_attempt, held, sent, erased;
        int64_t dropped; /* its events up to then have left the ledger; INT64_MIN = none has */
    } at;
    const char *claimed_by;
    int64_t lease_expires_at;
    const char *last_error;
    int64_t last_http_status; /* 0 = none */
    bool last_ambiguous;
    int64_t ambiguous_since;
    struct store_route integration;
    int64_t ahead;                  /* rows due before it, counted up to STORE_AHEAD_MAX */
    const unsigned char *namespace; /* 16 bytes */
    int64_t now, daemons;
    int64_t filter_id;            /* that routed it; 0 = none */
    const char *origin;           /* NULL = none */
    int64_t resend_of, resent_as; /* the one that it stands for, that stands for it; 0 = none */
    struct pg_result *result;
};
#define STORE_AHEAD_MAX 10000
/* *ret_found is false when there is no such subscription. */
int store_subscription(struct pg *pg, int64_t id, struct store_subscription *ret, bool *ret_found,
                       struct error *err);

/* Columns: id, integration, its name, status, attempts, creation; the newest first, at most STORE_FOUND_MAX.
 * By the order or by the CPF; the other one is NULL. Reads all subscriptions. */
#define STORE_FOUND_MAX 20
int store_find(struct pg *pg, const char *order, const char *cpf, struct pg_result **ret, struct error *err);

enum store_published { STORE_PUBLISHED, STORE_NOT_YET, STORE_NEVER };
struct store_event {
    int64_t id, created_at;
    const char *type; /* "" = no event, but a note of the adopted application */
    const char *operation, *from_status, *to_status, *error;
    int64_t attempt, http_status, duration_ms; /* -1, 0, -1 = none */
    bool ambiguous;
    const char *decided_by; /* "" = the table of outcomes */
    enum store_published published;
};
int store_events(struct pg *pg, int64_t subscription_id, struct pg_result **ret, struct error *err);
void store_event_row(const struct pg_result *result, int row, struct store_event *ret);
