/* Other sessions' locks in our way: said once when it lasts, and once when it is over.
 *
 * Pure: no log, no clock; one thread at a time. Times are monotonic, in microseconds. */
#pragma once

#include "base/util.h"

struct lockwait {
    uint64_t since; /* 0 = nobody's lock is in the way */
    bool said;
};

/* A lock is in the way, and has been since `since_usec` or an earlier call. True when it is time to say so. */
bool lockwait_met(struct lockwait *w, uint64_t since_usec, uint64_t now_usec);
/* None is. True when that is worth saying; *ret_usec is how long it lasted. */
bool lockwait_over(struct lockwait *w, uint64_t now_usec, uint64_t *ret_usec);
