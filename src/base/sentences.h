/* A list of sentences that grows. */
#pragma once

#include "base/util.h"

struct sentences {
    char **items;
    size_t count;
};
void sentences_add(struct sentences *s, const char *fmt, ...) PRINTF(2, 3);
void sentences_free(struct sentences *s); /* what it holds; legal on a zeroed one */
