/* Claim tokens, as a list. Pure. */
#pragma once

#include "base/util.h"

struct tokens {
    int64_t *data;
    size_t count, capacity;
};

void tokens_free(struct tokens *t); /* what it holds; legal on a zeroed one */
/* A token that was added last is not added again: rows of one claim mostly come together. */
void tokens_add(struct tokens *t, int64_t token);
