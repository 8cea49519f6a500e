/* A line of a request's header that may hold a secret. Pure; any thread. */
#pragma once

#include "base/util.h"

/* "Name: <prefix>value", for free_secret(). */
char *header_line(const char *name, const char *prefix, const char *value);
