/* The statements of "anubisctl verify": one snapshot, no row changed, nothing quadratic.
 *
 * Outcomes and errors are pg_query()'s; *ret is the caller's to free. Events are the ledger's rows of a type
 * since the adoption: what an adopted application wrote before, and its notes since, are none. */
#pragma once

#include "pg/pg.h"

int store_verify_begin(struct pg *pg, struct error *err);

/* Columns: status, subscriptions, what baseline and events say, how many events there are in all. */
extern const struct pg_statement store_verify_states;

/* How many differences are named. */
#define STORE_NAMED_MAX 20
/* Subscriptions whose status is not that of their last event. Columns: id, status (NULL = no such row), the
 * last event's to_status, how many such there are in all. At most STORE_NAMED_MAX rows. */
extern const struct pg_statement store_verify_last_events;

/* What a consumer group should have handled of a topic. */
struct store_verify_group {
    const char *consumer_group;
    const char *topic_prefix; /* "anubis.subscriptions." */
};

/* The "sent" and "failed" events, in one pass. Rows with an integration (`is_chunk` false; 0 = none) and rows
 * with a chunk of ledger ids. */
struct store_verify_count {
    bool is_chunk;
    int64_t integration_id;   /* !is_chunk */
    const char *type;         /* is_chunk */
    int64_t chunk;            /* is_chunk */
    int64_t sent, failed;     /* handled */
    int64_t behind;           /* published, not handled and no dead letter */
    int64_t oldest_behind;    /* an id; 0 = none */
    int64_t oldest_behind_at; /* INT64_MIN = none */
    int64_t dead;             /* not handled, a dead letter */
};
int store_verify_handled(struct pg *pg, const struct store_verify_group *group, struct pg_result **ret,
                         struct error *err);
void store_verify_count_row(const struct pg_result *result, int row, struct store_verify_count *ret);

/* Columns: type, chunk, how many bits are set in it. Chunks that reach below the ledger's oldest partition
 * are left out. */
int store_verify_bits(struct pg *pg, const struct store_verify_group *group, struct pg_result **ret,
                      struct error *err);
/* Columns: sequence. Bits of one chunk that no event of the type stands for, or that are set in two
 * partitions. */
int store_verify_wrong_bits(struct pg *pg, const struct store_verify_group *group, const char *type,
                            int64_t chunk, struct pg_result **ret, struct error *err);

/* Columns: id, name, successful_sends, failed_sends, and both counters' baselines. */
extern const struct pg_statement store_verify_counters;

/* Columns: events not published, the oldest one's time, the ledger id that stops the relay (NULL = none). */
extern const struct pg_statement store_verify_published;
