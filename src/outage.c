/* Attempts in a row that an institution did not take. See outage.h. Pure, on any thread. */
#include "outage.h"

#include <limits.h>

#include "timeutil.h"

/* Five in a row are hardly chance, and where much waits they are there at once: whoever has just entered a
 * wrong endpoint sees it while still looking. Where only one subscription waits, the fifth attempt would come
 * after eight minutes, so a minute in which nothing was taken is enough, which is its third attempt. */
#define ATTEMPTS_ENOUGH 5
#define LASTED_ENOUGH_USEC (60 * USEC_PER_SEC)
/* Between two outages that are said, counted from the begin of the first. */
#define QUIET_USEC (60 * USEC_PER_SEC)

bool outage_goes_on(struct outage *o, uint64_t now)
{
    if (o->attempts == 0)
        o->since = now;
    if (o->attempts < INT_MAX)
        o->attempts++;
    if (o->said || now < o->quiet_until)
        return false;
    if (o->attempts < ATTEMPTS_ENOUGH && now - o->since < LASTED_ENOUGH_USEC)
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
