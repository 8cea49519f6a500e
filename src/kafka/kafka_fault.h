/* Why no connection with a broker could be made, in words that say what mends it. */
#pragma once

#include <stdbool.h>

#include "base/util.h"

struct rd_kafka_s;
struct rd_kafka_conf_s;
struct kafka_fault;

/* What a client that gets this configuration finds wrong with brokers' certificates is remembered: the
 * client's opaque pointer, which is freed after the client. */
struct kafka_fault *kafka_fault_watch(struct rd_kafka_conf_s *conf);

/* The library's words about one connection, without times and counts, so that the same fault has the same
 * words. */
void kafka_fault_words(const struct rd_kafka_s *rk, const char *words, struct error *ret);
/* The same of the last one that waits in the client's main queue, which nobody else reads. False: there is
 * none, *ret is untouched. */
bool kafka_fault_read(struct rd_kafka_s *rk, struct error *ret);
/* The words for "no broker can be reached" when the library has given no reason. */
const char *kafka_fault_unknown(struct rd_kafka_s *rk);
