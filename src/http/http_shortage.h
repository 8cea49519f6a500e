/* What this machine may lack for a connection, told apart from what an institution does. Any thread. */
#pragma once

#include "base/util.h"

/* Descriptors, ports, memory, threads: without one of them nothing is known about the institution. */
bool http_is_shortage(int error);
/* connect(2) ended at once with it: the kernel did not let the connection out, for want of a route to this
 * address. Another address may have one. */
bool http_is_no_route(int error);
/* Is there no descriptor left? EMFILE or ENFILE, else 0. */
int http_missing_descriptors(void);
/* A constant that says what helps; for any other error the system's words. */
const char *http_shortage_words(int error);
