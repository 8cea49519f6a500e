/* When requests are sent that a rate_limit keeps apart. See rate.h. Pure, on any thread. */
#include "delivery/rate.h"

#include "base/timeutil.h"

#define NSEC_PER_USEC UINT64_C(1000)
/* So much may be caught up with at once when timers were late: half of what the institution accepts, since
 * another process may take over and do the same. */
#define BURST_NSEC (50 * USEC_PER_MSEC * NSEC_PER_USEC)
/* The database gives the times to another process when they have been over for 1 s; the rest is for the way
 * to the institution. */
#define LATE_USEC (800 * USEC_PER_MSEC)
/* Times of the next 0.4 s may be claimed: half of it is left for the claim. */
#define AHEAD_USEC (200 * USEC_PER_MSEC)
/* Beyond, the rate may be another one by then. */
#define KNOWN_USEC USEC_PER_SEC

void rate_claimed(struct rate *r, uint64_t interval_nsec, uint64_t send_at, uint64_t now)
{
    if (r->interval_nsec != interval_nsec)
        r->next_nsec = MIN(r->next_nsec, now * NSEC_PER_USEC + interval_nsec);
    r->interval_nsec = interval_nsec;
    r->taken_until = interval_nsec > 0 ? send_at : 0;
}

uint64_t rate_send_at(const struct rate *r, uint64_t send_at)
{
    uint64_t early = BURST_NSEC > r->interval_nsec ? BURST_NSEC - r->interval_nsec : 0;
    uint64_t next = r->next_nsec > early ? (r->next_nsec - early + NSEC_PER_USEC - 1) / NSEC_PER_USEC : 0;

    return MAX(send_at, next);
}

bool rate_is_late(uint64_t send_at, uint64_t now)
{
    return now > send_at + LATE_USEC;
}

void rate_sent(struct rate *r, uint64_t now)
{
    r->next_nsec = MAX(r->next_nsec, now * NSEC_PER_USEC) + r->interval_nsec;
}

uint64_t rate_look_at(const struct rate *r, uint64_t now)
{
    uint64_t next = r->taken_until + r->interval_nsec / NSEC_PER_USEC;

    return r->interval_nsec == 0 || next <= now + AHEAD_USEC ? 0 : next - AHEAD_USEC;
}

uint64_t rate_claim_at(const struct rate *r, uint64_t now)
{
    uint64_t at = rate_look_at(r, now);

    return at > now + KNOWN_USEC ? 0 : at;
}
