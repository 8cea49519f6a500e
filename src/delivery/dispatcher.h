/* The dispatcher: claims due subscriptions, sends each to its institution, settles what came of it.
 *
 * Main thread only, on the event loop; it never touches Kafka. No transaction is open while a request is
 * under way. */
#pragma once

#include <systemd/sd-event.h>

#include "config/config.h"

struct dispatcher;

struct dispatcher_stats {
    uint64_t sent, failed, retried; /* since the start */
    int in_flight;
    size_t unsettled;
    bool database_up;
    bool network_lost;           /* see network_lost.h */
    struct error database_error; /* why not; "" when it is */
    /* What the database refuses or a lock keeps, and what claims do not see (sight.h); NULL = nothing. Until
     * the next turn of the event loop. */
    const char *standstill, *unseen;
};

struct dispatcher_callbacks {
    void (*progress)(void *userdata); /* rows changed: there are events to publish */
    void (*stopped)(void *userdata); /* after dispatcher_stop(): nothing is in flight or unsettled any more */
};

int dispatcher_new(struct dispatcher **ret, sd_event *event, struct config *config,
                   const struct dispatcher_callbacks *callbacks, void *userdata, struct error *err);
void dispatcher_free(struct dispatcher *d);
/* Takes a new configuration over between two claims; keys that need a restart keep their old values here. */
void dispatcher_reload(struct dispatcher *d, struct config *config);
/* Claims no more; what is in flight may end until drain_timeout, then it is cut: what was not handed over
 * goes back to its queue, the rest is ambiguous. Ends with callbacks.stopped. */
void dispatcher_stop(struct dispatcher *d);
/* Drops every session and opens it anew: the schema has changed. */
void dispatcher_reopen(struct dispatcher *d);
/* Once a second: says what keeps subscriptions from being claimed. */
void dispatcher_check(struct dispatcher *d);
void dispatcher_stats(const struct dispatcher *d, struct dispatcher_stats *ret);
