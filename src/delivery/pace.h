/* How many requests an institution gets at once, and whether it is given time.
 *
 * An institution that asks for time (429, 503 with Retry-After) or refuses the credentials (401) gets no
 * request until that time is over; then one, and one more with each answer. An institution that leaves
 * requests without an answer gets two, until it answers again: silent ones must not take the slots of others.
 *
 * Pure: no clock; one thread at a time. Times are monotonic, in microseconds. A zeroed one knows nothing yet
 * and limits nothing. */
#pragma once

#include "base/util.h"

struct pace {
    int slots;        /* requests at once; 0 = no limit known */
    int unanswered;   /* requests in a row without an answer */
    int backoffs;     /* in a row, without a request taken in between */
    uint64_t since;   /* the last backoff began */
    uint64_t until;   /* nothing is sent before */
    uint64_t ends;    /* the backoff does, whoever keeps it */
    uint64_t touched; /* the last result */
};

/* The answer to a request came; `taken`: the institution neither asked for time nor refused us. */
void pace_answered(struct pace *p, bool taken, uint64_t now);
void pace_unanswered(struct pace *p, uint64_t now);
/* How often in a row a request that was sent at `sent_at` makes the institution wait, this time included:
 * requests that were under way together count once. */
int pace_backoffs(const struct pace *p, uint64_t sent_at);
/* Nothing until `until`; of a request that was sent at `sent_at`. */
void pace_back_off(struct pace *p, uint64_t sent_at, uint64_t until, uint64_t now);
/* The database keeps the backoff from now on. */
void pace_hand_over(struct pace *p, uint64_t now);
/* Another daemon, or an earlier process, has let it wait. */
void pace_recover(struct pace *p, uint64_t now);
/* Requests it may have at once; INT_MAX = no limit known. */
int pace_slots(const struct pace *p, uint64_t now);
/* It is silent: what is kept free for others is not for it. */
bool pace_is_silent(const struct pace *p);
