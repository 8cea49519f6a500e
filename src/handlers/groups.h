/* The consumer groups of this program, in the order of the manual. One without handlers is not started. */
#pragma once

#include "consumers/handler.h"

extern const struct consumer_group groups[];
extern const size_t groups_count;
