/* Consumer groups: what Kafka says happened becomes effects in the database, each exactly once.
 *
 * A thread for each group and each of consumers.threads, blocking, with a database session and a Kafka member
 * of its own. A batch of messages is one database transaction: the handlers' effects, the bitmaps of what was
 * handled, and the offset to go on from. Kafka's committed offsets follow, for tools that show lag; where
 * they and the database disagree, the database is right.
 *
 * How much makes a batch: the thread takes up to consumers.max_poll_records messages at a time and then looks
 * at the clock; the transaction begins when 20 ms have passed since the batch's first message and 100 ms
 * since the last transaction, 300 ms where that had many events, or when the batch is full. So a single event
 * is counted at once, a thousand a second are ten transactions, and five thousand are less than four. */
#pragma once

#include "base/worker.h"
#include "config/config.h"
#include "consumers/handler.h"

#define CONSUMER_THREADS_MAX 192 /* three groups of 64 */

struct consumers;

struct consumers_params {
    struct config *config;
    const struct consumer_group *groups; /* those without handlers, or switched off, are not started */
    size_t group_count;
    int stop_fd;
    const _Atomic bool *database_up; /* deliveries work with the database */
    struct heartbeat *heartbeats;    /* CONSUMER_THREADS_MAX of them; those in use get their names */
};

/* 0, or -EINVAL when librdkafka refuses the configuration. `params` is copied, the configuration
 * referenced. */
int consumers_start(struct consumers **ret, const struct consumers_params *params, struct error *err);
/* After the stop descriptor was raised: waits some seconds, frees everything. NULL is legal. */
void consumers_join(struct consumers *cs);

/* Adds "GROUP waits for the database; " for each thread that does. NULL is legal. */
void consumers_describe(const struct consumers *cs, struct strbuf *out);

/* Messages that the group which is farthest behind has still to read, in this daemon's partitions, as of a
 * second ago. NULL is legal. */
int64_t consumers_behind(const struct consumers *cs);
