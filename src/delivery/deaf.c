/* Rings that bring nothing. See deaf.h. Pure, on any thread. */
#include "delivery/deaf.h"

#include "base/timeutil.h"

#define FRUITLESS_RINGS 3
#define FRUITLESS_USEC (100 * USEC_PER_MSEC)
#define DEAF_MIN_USEC (250 * USEC_PER_MSEC)
#define DEAF_MAX_USEC (4 * USEC_PER_SEC)

bool deaf_fruitless(struct deaf *d, uint64_t now)
{
    d->rings = now - d->ring_at < FRUITLESS_USEC ? d->rings + 1 : 1;
    d->ring_at = now;
    if (d->rings < FRUITLESS_RINGS)
        return false;
    d->rings = 0;
    d->usec = d->usec ? MIN(2 * d->usec, DEAF_MAX_USEC) : DEAF_MIN_USEC;
    d->until = now + d->usec;
    return true;
}

void deaf_found(struct deaf *d)
{
    d->rings = 0;
    d->usec = 0;
}
