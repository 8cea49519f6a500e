/* The consumer groups. See groups.h. */
#include "handlers/groups.h"

#include "config/config.h"
#include "handlers/handler_alert.h"
#include "handlers/handler_audit.h"
#include "handlers/handler_confirmations.h"
#include "handlers/handler_counters.h"
#include "handlers/handler_stats.h"

const struct consumer_group groups[] = {
    {CONFIG_INTEGRATION_MODEL,
     offsetof(struct config, consumers.integration),
     {&handler_counters, &handler_stats, NULL},
     NULL},
    {"monitoring",
     offsetof(struct config, consumers.monitoring),
     {&handler_alert, &handler_audit, NULL},
     NULL},
    {"external",
     offsetof(struct config, consumers.external),
     {&handler_confirmations, NULL},
     &inbox_confirmations},
};
const size_t groups_count = ARRAY_SIZE(groups);
