/* The relay: every committed row of the ledger reaches its Kafka topic, in order, through one leader.
 *
 * A thread of its own with one Postgres session and one Kafka producer; nothing else publishes. The rule by
 * which nothing is lost stands in gaps.h. Whatever is away is waited for; deliveries to institutions do not
 * depend on any of this. */
#pragma once

#include "base/heartbeat.h"
#include "config/config.h"

struct relay;

struct relay_params {
    struct config *config; /* a reference is taken */
    int stop_fd;           /* becomes readable and stays so when it is time to go */
    struct heartbeat *heartbeat;
};

/* What keeps the relay from publishing. */
enum relay_trouble {
    RELAY_FINE,
    RELAY_NO_DATABASE,
    RELAY_NO_KAFKA,
    RELAY_NO_TOPIC, /* missing, and may not or could not be created */
    RELAY_STOPPED,  /* on an event that Kafka refuses */
};

/* Written by the relay's thread, read by any. */
struct relay_stats {
    _Atomic bool leader;
    _Atomic bool kafka_up;
    _Atomic enum relay_trouble trouble;
    _Atomic uint64_t published; /* events, since start */
    _Atomic int64_t high;       /* the newest ledger id that is published; 0 = not known here */
    _Atomic uint64_t gaps;      /* ranges of ids below it that are still waited for */
};

int relay_start(struct relay **ret, const struct relay_params *params, struct error *err);
/* There may be new events. Any thread, also signal handlers; NULL is legal. */
void relay_wake(struct relay *r);
/* After stop_fd was raised: what is on its way to Kafka is waited for and written down, for a few seconds.
 * NULL is legal. */
void relay_join(struct relay *r);
const struct relay_stats *relay_stats(const struct relay *r);
