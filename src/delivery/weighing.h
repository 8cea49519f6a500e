/* Finds the masses: which integrations make looks at all of them slow. See masses.h.
 *
 * Main thread only; shares the claimer's session. */
#pragma once

#include "delivery/delivery.h"
#include "delivery/masses.h"
#include "delivery/queue_session.h"

struct weighing {
    struct masses *masses;
    struct deliveries *deliveries;
    struct queue_session *session;
    /* A statement has ended: the session is idle again. */
    void (*done)(void *userdata);
    void *userdata;
    uint64_t sent_at; /* monotonic */
};

/* Sends the statement if it is wanted: true. Only when the session is idle. */
bool weighing_run(struct weighing *w);
