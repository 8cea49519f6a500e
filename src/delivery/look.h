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
