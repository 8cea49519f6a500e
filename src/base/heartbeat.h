/* How the main thread learns that the others live. */
#pragma once

#include "base/util.h"

/* One per thread that blocks: beats at each turn, at most a second apart when all is well. The main thread
 * feeds systemd's watchdog only while every heartbeat moves. */
struct heartbeat {
    const char *name;
    _Atomic uint64_t beats;
};
static inline void heartbeat_beat(struct heartbeat *h)
{
    h->beats++;
}
