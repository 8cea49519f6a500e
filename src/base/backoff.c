/* Waiting times. Owns nothing but the caller's struct, runs on any thread, never logs. */
#include "base/backoff.h"

uint64_t backoff_exponential_usec(uint64_t base_usec, uint64_t max_usec, int attempt, double jitter,
                                  double unit)
{
    uint64_t delay = MIN(base_usec, max_usec);

    /* Stops at the maximum, so neither a large attempt nor a large base can overflow. */
    for (int i = 1; i < attempt && delay < max_usec && delay > 0; i++)
        delay = delay > max_usec / 2 ? max_usec : delay * 2;
    return (uint64_t) ((double) delay * (1.0 - jitter + 2.0 * jitter * unit));
}

uint64_t backoff_next_usec(struct backoff *b)
{
    uint64_t last = b->last_usec ? b->last_usec : b->base_usec;
    uint64_t upper = last > b->max_usec / 3 ? b->max_usec : last * 3;
    double span = upper > b->base_usec ? (double) (upper - b->base_usec) : 0.0;

    b->last_usec = b->base_usec + (uint64_t) (span * random_unit());
    return b->last_usec;
}

void backoff_reset(struct backoff *b)
{
    b->last_usec = 0;
}
