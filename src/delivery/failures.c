/* What is said of failures. See failures.h. Pure, on any thread. */
#include "delivery/failures.h"

#include "base/timeutil.h"

#define SAID_ONE_BY_ONE 5
#define FIRST_WINDOW_USEC (10 * USEC_PER_SEC)
#define MAX_WINDOW_USEC (3600 * USEC_PER_SEC)
/* After so long without a failure the next ones are said one by one again. */
#define QUIET_USEC (60 * USEC_PER_SEC)

bool failures_add(struct failures *f, bool held, uint64_t now)
{
    if (f->counted == 0 && now - f->last >= QUIET_USEC)
        *f = (struct failures){0};
    f->last = now;
    if (f->said < SAID_ONE_BY_ONE) {
        f->said++;
        return true;
    }
    if (f->counted++ == 0) {
        f->since = now;
        f->window_usec = f->window_usec ? MIN(2 * f->window_usec, MAX_WINDOW_USEC) : FIRST_WINDOW_USEC;
        f->until = now + f->window_usec;
    }
    f->held += held;
    return false;
}

uint64_t failures_until(const struct failures *f)
{
    return f->counted ? f->until : USEC_INFINITY;
}

bool failures_take(struct failures *f, uint64_t now, struct failures *ret)
{
    if (now < failures_until(f) || !f->counted)
        return false;
    *ret = *f;
    f->counted = f->held = 0;
    return true;
}
