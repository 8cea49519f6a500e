/* The statements of the integrations' counters. Errors are pg_query()'s.
 *
 * They belong to the transaction of a batch. */
#pragma once

#include "handlers/handler_integration.h"
#include "pg/pg.h"

/* An integration whose counters were left as they are. */
struct store_not_counted {
    int64_t integration_id;
    bool unknown;                /* it has no row */
    bool sent_full, failed_full; /* the counter's type has no room for the delta */
};

/* Adds the deltas to the counters. *ret gets what was not counted, in the order of ids; the caller frees. */
int store_count_sends(struct pg *pg, const struct integration_deltas *deltas, struct store_not_counted **ret,
                      size_t *ret_count, struct error *err);
