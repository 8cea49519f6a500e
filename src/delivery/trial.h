/* Connections without a subscription, to an institution that this machine's own shortage keeps from being
 * reached: an outage of ours may last for days, and each claim that is put back is two rows in the ledger.
 *
 * Until a trial reaches it, nothing is claimed for the institution; but once in a while, and when its
 * settings are changed. Main thread only. */
#pragma once

#include "base/util.h"

struct deliveries;
struct integration;
struct queue_session;
struct trial;

/* A request was not sent for a shortage of ours: trials begin when the integration's wait is over. */
void trial_begin(struct deliveries *all, struct integration *i);
/* Asks, now and then, whose settings were changed meanwhile: these are claimed for. True: the session is busy
 * with it, and `reachable` will be called. */
bool trials_ask(struct deliveries *all, struct queue_session *session);
/* This daemon's configuration is another one: all are claimed for, whatever kept them. */
void trials_end(struct deliveries *all);
/* Of all integrations, when their transfers are gone. */
void trials_free(struct deliveries *all);

/* How long trials alone go on, when the shortage has lasted so long. Pure. */
uint64_t trial_period(uint64_t lasted_usec);
