/* The monitor: what has to be looked after every few seconds, on a thread and a session of its own.
 *
 * Makes ledger partitions ahead, brings the integrations' counters to their counts, routes subscriptions by
 * filters that are newer than they, counts the backlog for systemctl status, and watches that the schema
 * still fits. */
#pragma once

#include "base/worker.h"
#include "config/config.h"

struct monitor;

struct monitor_params {
    struct config *config; /* a reference is taken */
    int stop_fd;
    struct heartbeat *heartbeat;
    /* Called on the monitor's thread when the schema no longer fits: every session must be opened anew. */
    void (*schema_misfit)(void *userdata);
    void *userdata;
};

#define MONITOR_COUNTED 10000
struct monitor_stats {
    /* Above MONITOR_COUNTED there are more than that; -1 = not known. `waiting` is for integrations that are
     * enabled and not paused. */
    _Atomic int64_t waiting, unrouted;
    _Atomic int64_t circuits_open, unpublished;
    _Atomic bool relay_stopped;
};

int monitor_start(struct monitor **ret, const struct monitor_params *params, struct error *err);
void monitor_join(struct monitor *m); /* after stop_fd was raised; NULL is legal */
/* Main thread: the group "audit" is taken over at the next turn. */
void monitor_reload(struct monitor *m, struct config *config);
const struct monitor_stats *monitor_stats(const struct monitor *m);
