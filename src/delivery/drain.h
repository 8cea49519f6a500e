/* How the dispatcher stops: requests in flight may end until drain_timeout, then they are cut; what came of
 * them is settled, however long the database is away.
 *
 * Main thread only. */
#pragma once

#include "delivery/delivery.h"
#include "delivery/leases.h"
#include "delivery/settler.h"

enum drain_phase {
    DRAIN_NOT_BEGUN,
    DRAIN_SENDING,  /* no claims; waiting for requests in flight */
    DRAIN_SETTLING, /* nothing in flight; waiting for the database to take the results */
    DRAIN_LEAVING,  /* they are taken; other daemons may have the integrations that this one served alone */
    DRAIN_DONE,
};

struct drain_parts {
    struct deliveries *deliveries;
    struct settler *settler;
    struct notes *notes;
    struct queue_session *session;
    struct leases *leases;
    const char *instance;
    void (*done)(void *userdata);
    void *userdata;
};

struct drain {
    enum drain_phase phase;
    struct drain_parts parts;
    char *instance; /* a copy: the configuration may change */
    sd_event_source *timer;
};

void drain_begin(struct drain *d, sd_event *event, uint64_t timeout_usec, const struct drain_parts *parts);
/* Something has ended. `done` is called once nothing is in flight or unsettled any more. */
void drain_advance(struct drain *d);
void drain_free(struct drain *d); /* what it holds; legal on a zeroed one */
