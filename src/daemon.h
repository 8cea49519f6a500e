/* The process: starts the parts in order, watches over them, stops them in the reverse order. */
#pragma once

#include "config/config.h"

/* How the daemon's configuration is judged at each load. */
extern const struct config_judges daemon_judges;

/* Call first, before any library starts a thread that would inherit another mask: a SIGHUP that comes while
 * the configuration is read is a reload once it is, and no end. */
void daemon_block_signals(void);

/* Runs until a signal ends it. Takes a reference of `config`; `path` is read again at SIGHUP. Exit code: 0,
 * EX_CONFIG or EX_SOFTWARE. */
int daemon_run(struct config *config, const char *path);
