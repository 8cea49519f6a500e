/* How long to wait before trying again: one policy for deliveries, connections and probes.
 * When a subscription is tried again is decided by set_delays() in delivery/outcome.c. */
#pragma once

#include "base/util.h"

struct backoff {
    uint64_t base_usec; /* first delay, > 0 */
    uint64_t max_usec;  /* no delay is longer, >= base */
    uint64_t last_usec; /* 0 = start over */
};

/* For connections: at once at first, and seldom enough for a server that is away for long. */
#define BACKOFF_RECONNECT ((struct backoff){.base_usec = 250000, .max_usec = 10000000})

/* Exponential with full range kept: attempt n (from 1) waits base * 2^(n-1), capped at max, times a factor
 * drawn from [1 - jitter, 1 + jitter] by `unit` in [0, 1); never above max * (1 + jitter). Pure. */
uint64_t backoff_exponential_usec(uint64_t base_usec, uint64_t max_usec, int attempt, double jitter,
                                  double unit);

/* Decorrelated jitter for reconnects: uniform in [base, 3 * last], capped ("Exponential Backoff And Jitter",
 * AWS Architecture Blog, 2015). Remembers what it answered. */
uint64_t backoff_next_usec(struct backoff *b);
void backoff_reset(struct backoff *b);
