/* Where log lines go, without ever waiting: to stderr, or to journald's socket.
 *
 * Not thread-safe: log.c holds its lock. What nobody takes at once is kept, up to a bound, and then lost; the
 * caller counts. stderr may be a pipe that nobody reads, or a stopped terminal; journald may be stopped. */
#pragma once

#include "base/util.h"

/* `journal`: journald's socket, else stderr as it is now. Again later when stderr is another. */
void log_output_init(bool journal);
/* One line, or one message in journald's native protocol. 0; -ENOBUFS = lost, since too much waits; else
 * -errno, when it can go there neither now nor later. */
int log_output_send(const char *bytes, size_t len);
/* Sends what was kept; true when nothing waits any more. */
bool log_output_flush(void);
/* Until nothing waits any more, or for `patience_ms`. */
void log_output_finish(int patience_ms);
