/* The commands of anubisctl. A new command is a file ctl_NAME.c with one function, declared below, and a line
 * of the table in commands.c; its help, the check of its arguments and "did you mean" follow from it. */
#pragma once

#include "ctl/ctl.h"

enum { CTL_TAKES_JSON = 1, CTL_TAKES_DRY_RUN = 2 };

struct ctl_command {
    const char *name;
    const char *argument,
        *argument_words; /* its one argument as the help and a sentence name it; NULL = none */
    const char *summary;
    unsigned takes;            /* which of the options above */
    int (*run)(struct ctl *c); /* returns an exit code, after having said what went wrong */
};

int ctl_migrate(struct ctl *c);
int ctl_status(struct ctl *c);
int ctl_explain(struct ctl *c);
int ctl_verify(struct ctl *c);

/* NULL when there is no such command. */
const struct ctl_command *ctl_command_find(const char *name);
/* The name that was probably meant, or NULL. */
const char *ctl_command_nearest(const char *name);
/* A line for each command. */
void ctl_commands_print(void);
