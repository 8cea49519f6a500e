/* How many requests an institution gets at once, and whether it is given time.
 *
 * An institution that asks for time (429, 503 with Retry-After) or refuses the credentials (401) gets no
 * request until that time is over; then one, and one more with each answer. One that cannot keep up (429,
 * 503) gets half as many as it had; beyond, one more for each round in which all were used and none was
 * pushed back (additive increase, multiplicative decrease, as TCP does it: RFC 5681). How long answers take
 * changes nothing. Rows with a due time, retries above all, have three quarters of the slots (claims see to
 * that): first attempts do not wait for slow retries. An institution that leaves requests without an answer
 * gets two, until it answers again: silent ones must not take the slots of others.
 *
 * Pure: no clock; one thread at a time. Times are monotonic, in microseconds. A zeroed one knows nothing yet
 * and limits nothing. */
#pragma once

#include "base/util.h"

struct pace {
    int slots;        /* requests at once; 0 = no limit known */
    int enough;       /* beyond, they grow slowly; 0 = not known */
    int used;         /* answers since they grew last, while all were used */
    uint64_t pushed;  /* it pushed back for the last time */
    int unanswered;   /* requests in a row without an answer */
    int backoffs;     /* in a row, without a request taken in between */
    uint64_t since;   /* the last backoff began */
    uint64_t until;   /* nothing is sent before */
    uint64_t ends;    /* the backoff does, whoever keeps it */
    uint64_t touched; /* the last result */
};

/* The answer to a request came, one of so many that were under way, so many of them of retries; `taken`: the
 * institution neither asked for time nor refused us. */
void pace_answered(struct pace *p, bool taken, int in_flight, int retries, uint64_t now);
/* The institution cannot keep up, says the answer to a request that was sent at `sent_at`, one of so many:
 * requests that were under way together count once. Before pace_back_off(), in place of pace_answered(). */
void pace_pushed_back(struct pace *p, uint64_t sent_at, int in_flight, uint64_t now);
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
