/* Refusals in a row by an institution that took a subscription a short time ago: the fault is hardly in the
 * data of all of them, and what is refused for its data fails for good.
 *
 * Pure: no clock; one thread at a time. Times are monotonic, in microseconds. A zeroed one has seen
 * nothing. */
#pragma once

#include "base/util.h"

#define BURST_REFUSALS 20

struct burst {
    int refused;        /* in a row */
    uint64_t taken_at;  /* the last time that it took a subscription; 0 = never, as far as is known */
    bool paused;        /* for this, until a row is claimed again */
    bool holds;         /* nothing is sent until the database knows of the pause */
    uint64_t stored_at; /* when it did */
};

/* It took one. */
void burst_taken(struct burst *b, uint64_t now);
/* It took one `usec` ago, from whichever daemon. */
void burst_took(struct burst *b, uint64_t usec, uint64_t now);
/* It has another endpoint, or other credentials or settings: what it refused before says nothing. That it
 * took some a short time ago counts all the more. */
void burst_begin_anew(struct burst *b);
enum burst_advice {
    BURST_NONE,  /* the data is wrong */
    BURST_PAUSE, /* so is this one's, but now the integration is to be paused */
    BURST_SPARE, /* it is to be paused, or is already; this one is not to be failed */
};
/* It refused one for its data. */
enum burst_advice burst_refused(struct burst *b, uint64_t now);
/* The database knows of the pause. */
void burst_stored(struct burst *b, uint64_t now);
/* A row was claimed: somebody has ended the pause, unless the claim was under way when it began. */
void burst_claimed(struct burst *b, uint64_t now);
