/* Statements of deliveries that the database refuses for no row's fault: a full disk, a right that was
 * revoked, a lock that lasts. That is an outage as much as a database that is away: said once for each cause,
 * with what helps, and once when all works again; and there are words for systemctl status meanwhile.
 *
 * Main thread only. A zeroed one is none. */
#pragma once

#include "base/trouble.h"

enum standstill_work {
    STANDSTILL_CLAIM,
    STANDSTILL_LEASES,
    STANDSTILL_SETTLE,
    STANDSTILL_RESULTS, /* row by row */
    STANDSTILL_WORKS,
};

#define STANDSTILL_CAUSES 4

struct standstill {
    const char *schema; /* for what helps; lives as long */
    struct trouble trouble;
    char *words[STANDSTILL_WORKS];     /* what keeps this work; NULL = it is done */
    char causes[STANDSTILL_CAUSES][6]; /* SQLSTATEs that were said since it began */
};

void standstill_free(struct standstill *s);
/* A statement was refused. `what` could not be done: "claim subscriptions". */
void standstill_refused(struct standstill *s, enum standstill_work work, const char *what,
                        const char *sqlstate, const struct error *err);
/* It is kept by what the caller has said itself; `words` are for systemctl status. */
void standstill_kept(struct standstill *s, enum standstill_work work, const char *words);
/* A statement was carried out. */
void standstill_over(struct standstill *s, enum standstill_work work);
/* What keeps deliveries from going on; NULL = nothing. */
const char *standstill_words(const struct standstill *s);
