/* Analytics: integration_stats, by integration and hour of the event. */
#pragma once

#include "consumers/handler.h"

extern const struct handler handler_stats;
