/* Other sessions' locks in our way. See lockwait.h. Pure, on any thread. */
#include "delivery/lockwait.h"

#include "base/timeutil.h"

/* How long a lock may keep us waiting before it is said. */
#define PATIENCE_USEC (5 * USEC_PER_SEC)

bool lockwait_met(struct lockwait *w, uint64_t since_usec, uint64_t now_usec)
{
    if (!w->since)
        w->since = since_usec;
    if (w->said || now_usec - w->since < PATIENCE_USEC)
        return false;
    return w->said = true;
}

bool lockwait_over(struct lockwait *w, uint64_t now_usec, uint64_t *ret_usec)
{
    bool said = w->said;
    *ret_usec = w->since ? now_usec - w->since : 0;
    *w = (struct lockwait){0};
    return said;
}
