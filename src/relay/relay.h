/* The relay: every committed row of the ledger reaches its Kafka topic, in order, through one leader.
 *
 * A thread of its own with one Postgres session and one Kafka producer; no other thread publishes events. The
 * rule by which no event is lost stands in gaps.h. The relay waits for Postgres and Kafka as long as they are
 * away; deliveries to institutions do not depend on the relay. */
#pragma once

#include "base/worker.h"
#include "config/config.h"

struct relay;

struct relay_params {
    struct config *config; /* a reference is taken */
    int stop_fd;           /* becomes readable, and stays so, when the daemon stops */
    struct heartbeat *heartbeat;
};

/* Why the relay does not publish. */
enum relay_trouble {
    RELAY_FINE,
    RELAY_NO_DATABASE,
    RELAY_NO_KAFKA,
    RELAY_NO_LEADER, /* no broker leads a partition that an event has to go to */
    RELAY_LOOKS,     /* not all of Kafka's partitions have told our newest events */
    RELAY_NO_TOPIC,  /* a topic is missing, and may not or could not be created */
    RELAY_FORBIDDEN, /* Kafka does not let this client use a topic */
    RELAY_STOPPED,   /* Kafka refuses an event */
};

/* Written by the relay's thread, read by any thread. */
struct relay_stats {
    _Atomic bool leader;
    _Atomic bool kafka_up;
    _Atomic enum relay_trouble trouble;
    _Atomic int64_t high;  /* the newest ledger id that is published; 0 = not known here */
    _Atomic uint64_t gaps; /* ranges of ids below `high` that are not published yet */
};

int relay_start(struct relay **ret, const struct relay_params *params, struct error *err);
/* There may be new events. Any thread, also signal handlers; NULL is legal. */
void relay_wake(struct relay *r);
/* After stop_fd was raised: waits a few seconds for the batch on its way to Kafka, and saves the position.
 * NULL is legal. */
void relay_join(struct relay *r);
const struct relay_stats *relay_stats(const struct relay *r);
