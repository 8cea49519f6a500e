/* What the end of a request says about the institution, for the circuit breaker of its integration. The
 * circuit itself is in the database: circuit_next() in sql/repeatable/10_circuits.sql.
 *
 * Here is what one daemon has seen: failures in a row, and the last 50 requests, since an institution that
 * takes one now and then is as good as dead, too.
 *
 * Pure: no clock; one thread at a time. A zeroed one has seen nothing. */
#pragma once

#include "base/util.h"

enum circuit_event {
    CIRCUIT_NEUTRAL,   /* nothing */
    CIRCUIT_ALIVE,     /* it took the request, or said that it will not take this one */
    CIRCUIT_FAILED,    /* no answer, or one that is no answer to the request */
    CIRCUIT_FORBIDDEN, /* 403: a firewall's dislike of one row, or the credentials */
    CIRCUIT_REFUSED,   /* 401: the credentials; or there are none to send */
    CIRCUIT_PROVEN,    /* failed, and so have most of the last ones */
};
const char *circuit_event_word(enum circuit_event event);
/* It counts as a failure of the institution. */
bool circuit_event_fails(enum circuit_event event);

struct circuit {
    int64_t generation;   /* of the last claimed row */
    bool has_failures;    /* some stand in the database, or are on the way there */
    bool holds;           /* nothing is sent until the database has answered: it opens, most likely */
    uint64_t probe_at;    /* monotonic: the next probe of the open circuit is due; 0 = it is closed */
    int in_row;           /* failures */
    uint64_t failed_last; /* a bit for each of the last requests: it failed; the newest is the lowest bit */
    int seen;             /* how many there are */
};

/* A row was claimed in this generation. What was seen in another one is forgotten. */
void circuit_enter(struct circuit *c, int64_t generation, bool has_failures);
/* The end of a request of this generation. Returns what the database is to be told: CIRCUIT_NEUTRAL when it
 * need not be, unless the request was the probe. */
enum circuit_event circuit_saw(struct circuit *c, enum circuit_event event, bool is_probe, int threshold);
