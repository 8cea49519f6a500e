/* Where in partitions the messages of a time begin. No policy. Blocking, for a command. */
#pragma once

#include "config/config.h"
#include "kafka/kafka_consumer.h"

/* Sets each offset to that of the first message that is not older than `at_ms` (Unix time), -1 = there is
 * none, or no such partition. 0, or negative with *err: a partition was not told of within timeout_ms. */
int kafka_times_ask(const struct config *config, int64_t at_ms, struct kafka_partition *partitions,
                    size_t count, int timeout_ms, struct error *err);
