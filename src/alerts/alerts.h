/* Alerts: what is wrong with an integration or with the installation, and who is told.
 *
 * A thread of its own, with a session, and an event loop for HTTP. Of all daemons on a database one looks and
 * tells: the one whose session holds a lock. That needs no Kafka, so it need not be the relay's leader.
 * The state is in the database; whoever takes over goes on where the former one was. */
#pragma once

#include "base/worker.h"
#include "config/config.h"

struct alerts;

struct alerts_params {
    struct config *config; /* a reference is taken */
    int stop_fd;
    struct heartbeat *heartbeat;
    const _Atomic bool *network_lost; /* this daemon's */
};

int alerts_start(struct alerts **ret, const struct alerts_params *params, struct error *err);
void alerts_join(struct alerts *a); /* after stop_fd was raised; NULL is legal */
/* Main thread: the group "alerts" is taken over at the next turn. */
void alerts_reload(struct alerts *a, struct config *config);
/* How many alerts fire, as far as this daemon knows: -1 = it does not. Any thread. */
int64_t alerts_firing(const struct alerts *a);
