/* libpq's connection strings, in both forms (libpq, "Connection Strings"), as libpq itself reads them.
 *
 * Pure; any thread. */
#pragma once

#include "base/strbuf.h"

/* Can libpq read this connection string, and are its ports possible? False with `why`, which continues a
 * sentence that starts with the holder's name ("must be …") and quotes no value. */
bool pg_conninfo_check(const char *conninfo, struct strbuf *why);
/* The connection string as it may be logged: without passwords. Never NULL; the caller frees. */
char *pg_conninfo_printable(const char *conninfo);
/* Does it name several hosts? */
bool pg_conninfo_has_hosts(const char *conninfo);
