/* How soon the database is asked again. See look.h. Pure, on any thread. */
#include "delivery/look.h"

#include "base/timeutil.h"

#define PAUSE_FACTOR 10
#define PAUSE_MAX_USEC (60 * USEC_PER_SEC)

uint64_t look_pause(struct look *l, uint64_t took)
{
    uint64_t usual = MIN(took, l->took);

    l->took = took;
    return MIN(usual, PAUSE_MAX_USEC / PAUSE_FACTOR) * PAUSE_FACTOR;
}
