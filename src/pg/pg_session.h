/* The sessions of this program: how pg_open() is asked for one, made from the configuration. */
#pragma once

#include "config/config.h"
#include "pg/pg.h"

/* Each daemon has one session of this name. */
#define PG_SESSION_CLAIM "anubisd claim"

/* A session of the daemon: statement timeout of the configuration but at most `statement_max_usec` (0 = no
 * limit of its own), index plans, and only on a schema that fits. The caller changes what it needs otherwise;
 * strings belong to the configuration and the caller. stop_fd is -1. */
struct pg_params pg_session_params(const struct config *config, const char *application_name,
                                   uint64_t statement_max_usec);
