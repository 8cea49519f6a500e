/* The consumer groups. See groups.h. */
#include "handlers/groups.h"

#include "config/config.h"
#include "handlers/handler_integration.h"

const struct consumer_group groups[] = {
    {CONFIG_INTEGRATION_MODEL, offsetof(struct config, consumers.integration), {&handler_integration, NULL}},
    {"monitoring", offsetof(struct config, consumers.monitoring), {NULL}},
    {"external", offsetof(struct config, consumers.external), {NULL}},
};
const size_t groups_count = ARRAY_SIZE(groups);
