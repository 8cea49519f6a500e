/* How soon the database is asked again for what may be there: a statement that costs the more, the more it
 * has to pass over (index entries that no VACUUM may remove, because somebody holds an old snapshot).
 *
 * Pure: no clock. Times are monotonic, in microseconds. A zeroed one may look at once. */
#pragma once

#include "base/util.h"

struct look {
    uint64_t took;     /* the last one */
    uint64_t again_at; /* not before, unless it finds something */
};

/* The pause after a look that took so long: ten times as long. Of two looks the shorter one counts, because a
 * lock or a machine that stood still says nothing about the next one; and it ends within a minute. */
uint64_t look_pause(struct look *l, uint64_t took);

/* Looks at all integrations: from the start of each, or nearby, from a little before the last claims there.
 * Between them claims go on where integrations are known to have more, and the rows of others wait. The pause
 * after one from the start is twice as long: nearby ones find what is new, it finds what was put back.
 * What each takes that has nothing to pass over (to start, to cross the network) is no reason for a pause:
 * else a database that is slow or far away would find single rows late. */
struct looks {
    struct look everywhere, nearby;
    uint64_t quickest[2];   /* [1]: of those that found rows, by the database's clock; 0 = none yet */
    uint64_t everywhere_at; /* the next one from the start */
    uint64_t next;          /* the next one of either kind, although integrations have more */
};

/* One of the two took so long. */
void looks_note(struct looks *l, struct look *one, uint64_t took, bool found, uint64_t now);
/* True while claims may go on where there is more. */
bool looks_can_wait(const struct looks *l, uint64_t now);
