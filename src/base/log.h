/* The journal, or readable lines on stderr outside of systemd.
 *
 * Any thread. What is said is one line, plus fields. Neither CPF, payload, response body nor secret may be
 * passed in. Library functions do not log: the function that decides logs once. */
#pragma once

#include <syslog.h>

#include "base/util.h"

/* Under systemd (JOURNAL_STREAM names our stderr) uses journald's native protocol; else stderr with a level
 * prefix, the time in front on a terminal and in a file, colours on a terminal unless NO_COLOR is set. Call
 * once, before threads start. */
void log_init(void);
void log_set_level(int level); /* LOG_DEBUG … LOG_ERR; any thread */
bool log_enabled(int level);

/* What a line is about: a field of the journal for each member that is set (not 0, not NULL). */
struct log_about {
    int64_t subscription_id, integration_id;
    const char *integration_name;
    int attempt, http_status;
    const char *event_id;
    const char *kafka_topic;
    int kafka_partition; /* with kafka_at alone */
    int64_t kafka_offset;
    bool kafka_at; /* partition and offset are set */
    const char *error;
};
/* Never waits: lines that nobody takes are kept for a while, then lost, and their number is said. A line
 * that comes again and again is folded, also when others stand between. `message_id` from message_ids.h or
 * NULL; `about` may be NULL. Control characters in the text are replaced, so a hostile string cannot forge
 * a line. */
void log_about(int level, const char *message_id, const struct log_about *about, const char *fmt, ...)
    PRINTF(4, 5);

#define log_line(level, message_id, ...) log_about(level, message_id, NULL, __VA_ARGS__)
#define log_error(...) log_line(LOG_ERR, NULL, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, NULL, __VA_ARGS__)
#define log_notice(...) log_line(LOG_NOTICE, NULL, __VA_ARGS__)
#define log_info(...) log_line(LOG_INFO, NULL, __VA_ARGS__)
#define log_debug(...)                                                                                       \
    do {                                                                                                     \
        if (log_enabled(LOG_DEBUG))                                                                          \
            log_line(LOG_DEBUG, NULL, __VA_ARGS__);                                                          \
    } while (0)
/* One for each line of `text`, with `before` in front of it. */
void log_lines(int level, const char *message_id, const char *before, const char *text);
/* Once a second: what was kept goes out, and what was folded is counted out. */
void log_tick(void);
/* At the end: the same for all of it, and waits for a reader for a second at most. */
void log_finish(void);
