/* The statements of "anubisctl verify": one snapshot, no row changed, no time that grows faster than the
 * rows.
 *
 * Outcomes and errors are pg_query()'s; the caller frees *ret. Events are the rows of the ledger that have a
 * type and were written since the adoption: an adopted application's earlier rows and its notes are none. */
#pragma once

#include "pg/pg.h"

int store_verify_begin(struct pg *pg, struct error *err);

/* Columns: status, subscriptions, how many baseline and events make, how many events there are in all. */
extern const struct pg_statement store_verify_states;

/* Subscriptions whose status is not that of their last event, the first of them. Columns: id, status (NULL =
 * no such row), the last event's to_status, how many such there are in all. */
int store_verify_last_events(struct pg *pg, struct pg_result **ret, struct error *err);

/* What a consumer group should have handled of its topics. */
struct store_verify_group {
    char *consumer_group;
    char *topic_prefix; /* "anubis.subscriptions." */
};

/* The events "sent" and "failed", in one pass. Rows of integrations (`is_chunk` is false) and rows of chunks
 * of ledger ids. */
struct store_verify_count {
    bool is_chunk;
    int64_t integration_id;   /* !is_chunk; 0 = events without an integration */
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
/* Columns: sequence. Bits of one chunk that stand for no event of the type, or that are set in two
 * partitions; the first of them. */
int store_verify_wrong_bits(struct pg *pg, const struct store_verify_group *group, const char *type,
                            int64_t chunk, struct pg_result **ret, struct error *err);

/* Columns: id, name, successful_sends and its baseline, failed_sends and its baseline. */
extern const struct pg_statement store_verify_counters;

/* Columns: events not published, the oldest one's time, the ledger id that stops the relay (NULL = not
 * stopped). */
extern const struct pg_statement store_verify_published;
