/* How soon the database is asked again. See look.h. Pure, on any thread. */
#include "delivery/look.h"

#include "base/timeutil.h"

#define PAUSE_FACTOR 10
#define PAUSE_MAX_USEC (60 * USEC_PER_SEC)
#define EVERYWHERE_USEC (100 * USEC_PER_MSEC)
#define NEARBY_USEC (10 * USEC_PER_MSEC)
/* Looks are slow from so many times the quickest on, or so many times this, if all were slow. */
#define SLOW_FACTOR 2
#define QUICKEST_MAX_USEC (25 * USEC_PER_MSEC)

uint64_t look_pause(struct look *l, uint64_t took)
{
    uint64_t usual = MIN(took, l->took);

    l->took = took;
    return MIN(usual, PAUSE_MAX_USEC / PAUSE_FACTOR) * PAUSE_FACTOR;
}

/* What it took beyond what any look takes. */
static uint64_t beyond(struct looks *l, uint64_t took, bool found)
{
    uint64_t *quickest = &l->quickest[found];

    if (*quickest == 0 || took < *quickest)
        *quickest = MIN(took, QUICKEST_MAX_USEC);
    return took - MIN(took, SLOW_FACTOR * *quickest);
}

void looks_note(struct looks *l, struct look *one, uint64_t took, bool found, uint64_t now)
{
    uint64_t pause = look_pause(one, beyond(l, took, found));

    if (one == &l->everywhere)
        pause = 2 * pause;
    one->again_at = found ? 0 : now + pause;
    l->next = now + MAX(NEARBY_USEC, pause);
    if (one == &l->everywhere)
        l->everywhere_at = now + MAX(EVERYWHERE_USEC, pause);
}

bool looks_can_wait(const struct looks *l, uint64_t now)
{
    return now < MAX(l->next, l->everywhere.again_at);
}
