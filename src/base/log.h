/* The journal, or readable lines on stderr when there is none.
 *
 * Any thread. One event, one line, plus fields. Neither CPF, payload, response body nor secret may be passed
 * in. Library functions do not log: whoever decides logs once. */
#pragma once

#include <syslog.h>

#include "base/util.h"

struct log_field {
    const char *name;  /* upper case, as in journald: SUBSCRIPTION_ID */
    const char *value; /* NULL = leave out */
};

/* Under systemd (JOURNAL_STREAM names our stderr) uses journald's native protocol; else stderr with a level
 * prefix, the time in front on a terminal and in a file, colours on a terminal unless NO_COLOR is set. Call once,
 * before threads start. */
void log_init(void);
void log_set_level(int level); /* LOG_DEBUG … LOG_ERR; any thread */
bool log_enabled(int level);

/* `message_id` from messages.h or NULL; `fields` ends with {NULL, NULL} or is NULL. Control characters in the
 * text are replaced, so a hostile string cannot forge a line. */
void log_event(int level, const char *message_id, const struct log_field *fields, const char *fmt, ...)
    PRINTF(4, 5);

#define log_error(...) log_event(LOG_ERR, NULL, NULL, __VA_ARGS__)
#define log_warning(...) log_event(LOG_WARNING, NULL, NULL, __VA_ARGS__)
#define log_notice(...) log_event(LOG_NOTICE, NULL, NULL, __VA_ARGS__)
#define log_info(...) log_event(LOG_INFO, NULL, NULL, __VA_ARGS__)
#define log_debug(...)                                                                                       \
    do {                                                                                                     \
        if (log_enabled(LOG_DEBUG))                                                                          \
            log_event(LOG_DEBUG, NULL, NULL, __VA_ARGS__);                                                   \
    } while (0)
