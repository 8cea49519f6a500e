/* What the commands of anubisctl share: the configuration, the way to the database, words on stderr and
 * answers on stdout.
 *
 * Main thread. Each command is a function from a struct ctl to an exit code; it says itself what went wrong.
 */
#pragma once

#include "config/config.h"
#include "ctl/sheet.h"
#include "pg/pg.h"

/* Exit codes beside those of sysexits.h. */
enum {
    CTL_DIFFERENT = 1, /* verify: something is wrong; explain: there is no such subscription */
    CTL_BEHIND = 2,    /* verify: nothing is wrong, but not everything has been done yet */
};

struct ctl {
    const char *config_path, *environment_path;
    const char *database; /* --database, or NULL */
    bool json, dry_run;
    char *const *args; /* the command's own */
    int stop_fd;       /* readable after SIGINT or SIGTERM */
    struct config *config;
};

/* Reads the environment file and the configuration. 0, or an exit code after having said why. */
int ctl_configure(struct ctl *c);

/* Fills in what all sessions have in common; `name` is the command's, a constant. */
struct pg_params ctl_session(const struct ctl *c, const char *name);
/* 0, or an exit code after having said why. */
int ctl_connect(const struct ctl *c, const struct pg_params *params, struct pg **ret);
/* Says what the database answered to "could not `what`: …". Returns the exit code. */
int ctl_refused(int r, const char *what, const struct error *err);

/* A stored last_error or error_message without what the institution wrote: "HTTP 503", the cause's word, or
 * anubisd's own sentence. The caller frees; NULL when there was no error. `http_status` 0 = none. */
char *ctl_error_class(const char *error, int64_t http_status);

/* One line on stderr, "anubisctl: …". */
void ctl_say(const char *fmt, ...) PRINTF(1, 2);
/* What is under way, on a terminal only: the line is overwritten by the next one. NULL wipes it. */
void ctl_progress(const char *fmt, ...) PRINTF(1, 2);

/* Prints the answer, as JSON when that was asked for. Returns `code`, or an exit code after having said why
 * it could not be written. */
int ctl_show(const struct ctl *c, const struct sheet *sheet, int code);
