/* What producers and consumers share: the librdkafka configuration made from ours. kafka*.c are the only
 * files that include librdkafka. */
#pragma once

#include "config/config.h"

enum kafka_role { KAFKA_PRODUCER, KAFKA_CONSUMER };

/* An opaque rd_kafka_conf_t * (as void *, so that no other file needs the library): common settings,
 * security, the pass-through properties of both, and a log callback that goes to our journal. Owner: the
 * caller, who hands it to rd_kafka_new(). 0, or -EINVAL with *err naming the property and why librdkafka
 * refuses it. */
int kafka_conf_new(void **ret, const struct config *config, enum kafka_role role, struct error *err);
/* Would librdkafka take these settings? Adds one "FILE:LINE: what is wrong" a line; -EINVAL when there was
 * any. Values that stand elsewhere ("credential:NAME") are not looked at. */
int kafka_conf_check(const struct config *config, const char *path, struct strbuf *problems);
