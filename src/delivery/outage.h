/* Attempts in a row that an institution did not take: said once when that is more than bad luck, and once
 * when it is over.
 *
 * Pure: no log, no clock; one thread at a time. Times are monotonic, in microseconds. */
#pragma once

#include "base/util.h"

struct outage {
    int attempts;         /* that failed in a row; 0 = the last one was taken */
    uint64_t since;       /* when the first of them ended */
    uint64_t quiet_until; /* nothing is said before: one that comes and goes must not flood the journal */
    bool said;
};

/* An attempt failed. True when it is time to say so: after many, or after `enough` of them within more than a
 * minute. OUTAGE_NOW: the first one is enough. */
#define OUTAGE_NOW 0
bool outage_goes_on(struct outage *o, uint64_t now_usec, int enough);
/* One was taken. True when that is worth saying; *ret is what the outage was. */
bool outage_over(struct outage *o, struct outage *ret);
/* It was paused: what failed before has been said with the pause, unless the end is still to be said. */
void outage_paused(struct outage *o);
