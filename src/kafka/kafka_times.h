/* Where partitions begin and end, and where the messages of a time begin. No policy. Blocking. */
#pragma once

#include "config/config.h"
#include "kafka/kafka_conf.h"
#include "kafka/kafka_consumer.h"

/* The offsets that the broker has: the first, and the end behind the last. 0 or librdkafka's error; waits up
 * to timeout_ms for each. */
int kafka_ends_ask(struct rd_kafka_s *rk, const char *topic, int32_t partition, int timeout_ms,
                   int64_t *ret_first, int64_t *ret_end);

/* The same of many, with one request to each broker for the first ones and one for the ends: fills in
 * `firsts` and `ends`, of the same partitions; negative = that one is to be asked for alone. */
int kafka_ends_ask_all(struct rd_kafka_s *rk, struct kafka_partition *firsts, struct kafka_partition *ends,
                       size_t count, int timeout_ms);

/* Sets each offset to that of the first message that is not older than `at_ms` (Unix time), -1 = there is
 * none, or no such partition. 0, or negative with *err: a partition was not told of within timeout_ms. */
int kafka_times_ask(const struct config *config, int64_t at_ms, struct kafka_partition *partitions,
                    size_t count, int timeout_ms, struct error *err);
