/* For how long the brokers keep the messages of topics. No policy. Blocking. */
#pragma once

#include "config/config.h"

struct rd_kafka_s;

struct kafka_retention {
    bool known;
    bool compacts; /* of the messages with one key the last stays: cleanup.policy */
    bool for_ever;
    uint64_t usec;    /* of a message, at the latest: its segment is closed after segment.ms, and goes after
                         retention.ms */
    struct error why; /* when it is not known */
};

/* Asks for each topic. 0, or negative with *err: nobody answered within timeout_ms, or librdkafka refuses a
 * property; then nothing is known of any. */
int kafka_retention_ask(const struct config *config, const char *const *topics, size_t count, int timeout_ms,
                        struct kafka_retention *ret, struct error *err);
/* The same by a client that there is. */
int kafka_retention_look(struct rd_kafka_s *rk, const char *const *topics, size_t count, int timeout_ms,
                         struct kafka_retention *ret, struct error *err);
