/* A header of a Kafka message, sent or received. */
#pragma once

#include "base/util.h"

struct kafka_header {
    const char *name;
    struct bytes value; /* p NULL = null */
};
