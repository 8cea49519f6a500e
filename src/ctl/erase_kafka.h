/* What Kafka still holds of subscriptions that are erased. See ctl_erase.c. */
#pragma once

#include "ctl/ctl.h"

struct erase_given {
    const int64_t *ids; /* subscriptions */
    size_t count;
    const int64_t *letters; /* dead letters that were erased now */
    size_t letters_count;
};
/* Adds it to the answer: topics, messages, and until when. Brokers that cannot be asked are said, and no
 * failure. PG_DONE or an error of pg_query(). */
int erase_add_kafka(const struct ctl *c, struct pg *pg, const struct erase_given *given, struct sheet *sheet,
                    struct error *err);
