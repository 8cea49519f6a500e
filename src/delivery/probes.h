/* When open circuits are looked for that may be probed. See claimer.h.
 *
 * Such a look has the claims' session for itself: a claim goes out between two of them, and one that finds
 * nothing is not repeated before ten times as long as it took.
 *
 * Pure: no clock. Times are monotonic, in microseconds. */
#pragma once

#include "base/timeutil.h"
#include "delivery/look.h"
#include "delivery/refusals.h"

/* Between two looks, when a ring says that a circuit may be probed. A look passes over what somebody else has
 * locked, so one that finds nothing is repeated, twice as late each time. */
#define PROBES_APART_USEC (100 * USEC_PER_MSEC)

struct probes {
    uint64_t looked_at, due; /* the last look, and the next one */
    int fruitless;           /* looks in a row */
    struct look look;
    struct refusals search; /* its limit alone: the rows are passed over by all claims */
};

#define PROBES_INIT ((struct probes){.due = USEC_INFINITY})

/* One may be probed from then on. */
void probes_plan(struct probes *p, uint64_t at);
/* Whether it is time for a look, which is taken every `poll_usec` in any case. */
bool probes_are_due(const struct probes *p, uint64_t poll_usec, uint64_t now);
/* How long until the one that is planned. */
uint64_t probes_wait(const struct probes *p, uint64_t now);
/* A look has been sent. */
void probes_begun(struct probes *p, uint64_t now);
/* Its answer: it took so long. `next`: when a circuit that this daemon knows of may be probed. */
void probes_looked(struct probes *p, uint64_t took, bool found, uint64_t next, uint64_t now);
