/* Rings of the doorbell that bring nothing (an integration without a free slot): after some, one soon after
 * the other, rings are not wanted for a while, which doubles each time.
 *
 * Pure: no clock; one thread at a time. Times are monotonic, in microseconds. A zeroed one has heard
 * nothing. */
#pragma once

#include "base/util.h"

struct deaf {
    uint64_t ring_at; /* the last fruitless ring; 0 = never */
    int rings;        /* fruitless ones in a row */
    uint64_t until;   /* the end of the last pause */
    uint64_t usec;    /* how long that was; 0 = rows were found since */
};

/* A ring has led to nothing. True when a pause begins. */
bool deaf_fruitless(struct deaf *d, uint64_t now);
/* Rows were found. */
void deaf_found(struct deaf *d);
