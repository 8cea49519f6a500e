/* The types of events, and the Kafka topic of each. Pure. */
#pragma once

#include "base/util.h"

enum event_type {
    EVENT_CREATED,
    EVENT_UPDATED,
    EVENT_SENT,
    EVENT_FAILED,
    EVENT_RETRIED,
    EVENT_TYPES, /* how many there are */
};

/* "created" …: the ledger's event_type, the header event_type, and the last part of the topic's name. */
const char *event_type_word(enum event_type type);
/* The type with this word. False when there is no such type; a word that is absent is legal. */
bool event_type_find(struct bytes word, enum event_type *ret);
/* The topic's full name, kafka.topic_prefix included. The caller frees it. */
char *event_type_topic(enum event_type type, const char *prefix);
/* The partitions of a topic that we create. */
int event_type_partitions(enum event_type type);
