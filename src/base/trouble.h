/* A trouble that lasts: said once when it begins or has lasted for a while, and once when it is over.
 *
 * Pure: no log, no clock; one thread at a time. Times are monotonic, in microseconds. A zeroed one is no
 * trouble. */
#pragma once

#include "base/util.h"

struct trouble {
    uint64_t since; /* 0 = there is no trouble */
    bool said;
};

/* There is trouble, since `since_usec` or an earlier call. True when it has lasted `patience_usec` and has
 * not been said: the caller says it now. */
bool trouble_lasts(struct trouble *t, uint64_t since_usec, uint64_t now_usec, uint64_t patience_usec);
/* The same without patience: true the first time. */
bool trouble_begins(struct trouble *t);
/* There is no trouble. True when it had been said: the caller says that it is over. */
bool trouble_ends(struct trouble *t);
