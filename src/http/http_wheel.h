/* Deadlines of thousands of requests and connections, of which hardly any is ever reached: setting one and
 * taking it back cost a few instructions, whatever their number.
 *
 * A hashed wheel (Varghese and Lauck, 1987) of slots of 8 ms; a deadline beyond its span stays in its slot
 * for several rounds. Pure: the caller brings the time and asks when to come again. Times are monotonic, in
 * microseconds. */
#pragma once

#include <sys/queue.h>

#include "base/util.h"

#define HTTP_WHEEL_SLOTS 4096

struct http_timer {
    LIST_ENTRY(http_timer) link;
    uint64_t at_usec; /* 0 = not set */
    /* The owner's; the wheel only keeps them. */
    void (*fire)(void *owner);
    void *owner;
};
LIST_HEAD(http_timer_list, http_timer);

struct http_wheel {
    struct http_timer_list slots[HTTP_WHEEL_SLOTS];
    uint64_t filled[HTTP_WHEEL_SLOTS / 64]; /* a bit for each slot that may hold something */
    uint64_t tick;                          /* every slot before this one was looked at */
};

void http_wheel_init(struct http_wheel *w, uint64_t now_usec);
/* Sets the timer, also one that is set already. Never fires early; at most a slot late. */
void http_wheel_set(struct http_wheel *w, struct http_timer *timer, uint64_t at_usec);
void http_wheel_clear(struct http_timer *timer); /* legal on one that is not set */
/* The next timer whose time has come, taken out; NULL = none any more. The caller may set and clear timers
 * between two calls. */
struct http_timer *http_wheel_expired(struct http_wheel *w, uint64_t now_usec);
/* When to look again: no timer is due before it. USEC_INFINITY (UINT64_MAX) = nothing is set. */
uint64_t http_wheel_next_usec(const struct http_wheel *w);
