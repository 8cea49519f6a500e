/* Credentials that a reload has read again: integrations that could not be sent to for want of the right ones
 * are tried at once.
 *
 * Main thread only; shares the claimer's session. A zeroed one wants nothing. */
#pragma once

#include "delivery/queue_session.h"

struct reread {
    bool wanted;
    uint64_t at; /* monotonic: not before */
    struct queue_session *session;
    /* A statement has ended: the session is idle again. `any`: circuits may be probed. */
    void (*done)(bool any, void *userdata);
    void *userdata;
};

/* Sends the statement if it is wanted: true. Only when the session is idle. */
bool reread_run(struct reread *r);
