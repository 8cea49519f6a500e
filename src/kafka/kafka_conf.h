/* What producers and consumers share: librdkafka's configuration made from ours, and a client with it.
 *
 * The files of this room are the only ones that include librdkafka. */
#pragma once

#include "config/config.h"

struct rd_kafka_s; /* librdkafka's own tag of rd_kafka_t */

enum kafka_role { KAFKA_PRODUCER, KAFKA_CONSUMER };

struct kafka_setting {
    const char *name, *value; /* value NULL = leave out */
};

/* A client with the settings of the configuration, those of its role, and `own` (a name of NULL ends it),
 * which override the others. Its log goes to our journal. kafka_client_free() ends it. 0, or -EINVAL with
 * *err, which names the property that librdkafka refuses. */
int kafka_client_new(struct rd_kafka_s **ret, const struct config *config, enum kafka_role role,
                     const struct kafka_setting *own, struct error *err);
/* `flags` as of rd_kafka_destroy_flags(). */
void kafka_client_free(struct rd_kafka_s *rk, int flags);
/* The same check of the settings, without a client. */
int kafka_client_check(const struct config *config, enum kafka_role role, struct error *err);

/* Does librdkafka accept the configured properties? Adds a line "FILE:LINE: what is wrong" for each that it
 * refuses; -EINVAL when there was any. Values that stand elsewhere ("credential:NAME") are not checked. */
int kafka_conf_check(const struct config *config, const char *path, struct strbuf *problems);
