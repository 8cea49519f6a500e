/* Attempts in a row that an institution did not take. See outage.h. Pure, on any thread. */
#include "delivery/outage.h"

#include <limits.h>

#include "base/timeutil.h"

/* Twenty in a row are no chance, also where every second attempt fails, and where much waits they are there
 * at once: whoever has just entered a wrong endpoint sees it while still looking. Where little waits, a
 * minute in which nothing was taken is enough: the third attempt of a single subscription. */
#define ATTEMPTS_ENOUGH 20
#define LASTED_ENOUGH_USEC (60 * USEC_PER_SEC)
/* Between two outages that are said, counted from the begin of the first. */
#define QUIET_USEC (60 * USEC_PER_SEC)

bool outage_goes_on(struct outage *o, uint64_t now, int enough)
{
    if (o->attempts == 0)
        o->since = now;
    if (o->attempts < INT_MAX)
        o->attempts++;
    if (o->said || now < o->quiet_until)
        return false;
    bool lasted = now - o->since >= LASTED_ENOUGH_USEC && o->attempts >= enough;
    if (enough != OUTAGE_NOW && o->attempts < ATTEMPTS_ENOUGH && !lasted)
        return false;
    o->quiet_until = now + QUIET_USEC;
    return o->said = true;
}

bool outage_over(struct outage *o, struct outage *ret)
{
    *ret = *o;
    o->attempts = 0;
    o->said = false;
    return ret->said;
}

void outage_paused(struct outage *o)
{
    if (!o->said)
        o->attempts = 0;
}
