/* The types of events. See event_types.h. */
#include "kafka/event_types.h"

#include <string.h>

static const struct {
    const char *word;
    int partitions;
} types[EVENT_TYPES] = {
    [EVENT_CREATED] = {"created", 3}, [EVENT_UPDATED] = {"updated", 3}, [EVENT_SENT] = {"sent", 3},
    [EVENT_FAILED] = {"failed", 3},   [EVENT_RETRIED] = {"retried", 2},
};

const char *event_type_word(enum event_type type)
{
    return types[type].word;
}

bool event_type_find(struct bytes word, enum event_type *ret)
{
    for (enum event_type type = 0; type < EVENT_TYPES; type++)
        if (word.p && word.len == strlen(types[type].word) &&
            memcmp(word.p, types[type].word, word.len) == 0) {
            *ret = type;
            return true;
        }
    return false;
}

char *event_type_topic(enum event_type type, const char *prefix)
{
    return xasprintf("%ssubscriptions.%s", prefix, types[type].word);
}

int event_type_partitions(enum event_type type)
{
    return types[type].partitions;
}
