/* Refusals in a row. See burst.h. Pure, on any thread. */
#include "delivery/burst.h"

#include "base/timeutil.h"

#define LATELY_USEC (3600 * USEC_PER_SEC)
/* A claim that was sent before the pause has answered after so long. */
#define CLAIM_USEC (5 * USEC_PER_SEC)

void burst_taken(struct burst *b, uint64_t now)
{
    b->refused = 0;
    b->taken_at = now;
}

void burst_took(struct burst *b, uint64_t usec, uint64_t now)
{
    if (usec < now)
        b->taken_at = MAX(b->taken_at, now - usec);
}

void burst_begin_anew(struct burst *b)
{
    *b = (struct burst){.taken_at = b->taken_at};
}

enum burst_advice burst_refused(struct burst *b, uint64_t now)
{
    if (b->paused) {
        b->holds = true;
        return BURST_SPARE;
    }
    b->refused = MIN(b->refused + 1, BURST_REFUSALS);
    if (b->refused < BURST_REFUSALS || b->taken_at == 0 || now - b->taken_at > LATELY_USEC)
        return BURST_NONE;
    b->paused = b->holds = true;
    return BURST_PAUSE;
}

void burst_stored(struct burst *b, uint64_t now)
{
    b->holds = false;
    b->stored_at = now;
}

void burst_claimed(struct burst *b, uint64_t now)
{
    if (!b->paused || b->holds || now - b->stored_at < CLAIM_USEC)
        return;
    b->paused = false;
    b->refused = 0;
}
