/* The rate_limit of an integration, in this process. A claim brings rows with the times at which they may be
 * sent (rate_next() in sql/repeatable/15_rates.sql); here they are kept apart when timers are late, for what
 * the institution sees is when they were sent.
 *
 * Pure: no clock; one thread at a time. Times are monotonic, in microseconds. A zeroed one limits nothing. */
#pragma once

#include "base/util.h"

struct rate {
    uint64_t interval_nsec; /* between two requests; 0 = no limit */
    uint64_t next_nsec;     /* when the next one may be sent, were none sent early */
    uint64_t taken_until;   /* the last time that was claimed */
};

/* A row was claimed, to be sent at that time. */
void rate_claimed(struct rate *r, uint64_t interval_nsec, uint64_t send_at, uint64_t now);
/* When a row may be sent that was claimed for that time. */
uint64_t rate_send_at(const struct rate *r, uint64_t send_at);
/* It is too late for that: another process may have taken the integration over. */
bool rate_is_late(uint64_t send_at, uint64_t now);
void rate_sent(struct rate *r, uint64_t now);
/* When it is time to look for more; 0 = now, or nothing is known. */
uint64_t rate_look_at(const struct rate *r, uint64_t now);
/* The same, for as long as no other rate is to be expected: no more is claimed before. */
uint64_t rate_claim_at(const struct rate *r, uint64_t now);
