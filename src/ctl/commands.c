/* The table of commands. See commands.h. */
#include "ctl/commands.h"

#include <stdio.h>
#include <string.h>

/* In the order of the help. */
static const struct ctl_command commands[] = {
    {"migrate", NULL, NULL, "bring the database's schema up to this version", CTL_TAKES_DRY_RUN, ctl_migrate},
    {"status", NULL, NULL, "subscriptions, integrations, relay and consumers on one screen", CTL_TAKES_JSON,
     ctl_status},
    {"explain", "ID", "the subscription's id", "one subscription's whole story, and what happens next",
     CTL_TAKES_JSON, ctl_explain},
    {"verify", NULL, NULL, "prove subscriptions, ledger and counters against each other", CTL_TAKES_JSON,
     ctl_verify},
};

const struct ctl_command *ctl_command_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

const char *ctl_command_nearest(const char *name)
{
    const char *nearest = NULL;
    unsigned best = words_tolerance(name) + 1;

    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        bool begins = strncmp(name, commands[i].name, strlen(name)) == 0;
        unsigned distance = begins ? 1 : words_distance(name, commands[i].name);
        if (distance < best) {
            best = distance;
            nearest = commands[i].name;
        }
    }
    return nearest;
}

void ctl_commands_print(void)
{
    int names = 0, arguments = 0;

    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        names = MAX(names, (int) strlen(commands[i].name));
        arguments = MAX(arguments, commands[i].argument ? (int) strlen(commands[i].argument) : 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        printf("  %-*s  %-*s   %s%s%s\n", names, commands[i].name, arguments,
               commands[i].argument ? commands[i].argument : "", commands[i].summary,
               commands[i].takes & CTL_TAKES_JSON ? " [--json]" : "",
               commands[i].takes & CTL_TAKES_DRY_RUN ? " [--dry-run]" : "");
}
