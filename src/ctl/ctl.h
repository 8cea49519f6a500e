/* Parts that all commands of anubisctl share: the configuration, the session with the database, words on
 * stderr and the answer on stdout.
 *
 * Main thread. */
#pragma once

#include "config/config.h"
#include "ctl/sheet.h"
#include "pg/pg.h"

/* Exit codes beside those of sysexits.h. */
enum {
    CTL_DIFFERENT = 1, /* verify found differences; explain: there is no such subscription */
    CTL_BEHIND = 2,    /* verify found no difference, but work is not done yet */
};

struct ctl {
    const char *config_path, *environment_path;
    const char *database; /* --database, or NULL */
    bool json, dry_run;
    bool same, copy;   /* of the command installation */
    char *const *args; /* the command's own */
    int stop_fd;       /* readable after SIGINT or SIGTERM */
    struct config *config;
};

/* The commands, each in a file ctl_NAME.c. Return an exit code, after having said what went wrong. */
int ctl_migrate(struct ctl *c);
int ctl_status(struct ctl *c);
int ctl_explain(struct ctl *c);
int ctl_verify(struct ctl *c);
int ctl_installation(struct ctl *c);

/* Reads the environment file and the configuration. 0, or an exit code after it said why. */
int ctl_configure(struct ctl *c);

/* Parameters that all sessions have in common; `name` is the application_name, a constant. */
struct pg_params ctl_session(const struct ctl *c, const char *name);
/* 0, or an exit code after it said why. */
int ctl_connect(const struct ctl *c, const struct pg_params *params, struct pg **ret);
/* Says "could not `what`: …" with the database's words. Returns the exit code. */
int ctl_refused(int r, const char *what, const struct error *err);

/* A stored last_error or error_message without the institution's words: "HTTP 503", the word of the cause, or
 * a sentence of anubisd. The caller frees; NULL when there was no error. `http_status` 0 = there was no
 * answer. */
char *ctl_error_class(const char *error, int64_t http_status);

/* One line on stderr, "anubisctl: …". */
void ctl_say(const char *fmt, ...) PRINTF(1, 2);
/* Progress, on a terminal only: each line overwrites the one before. NULL wipes it. */
void ctl_progress(const char *fmt, ...) PRINTF(1, 2);

/* Prints the answer, as JSON when the user wants JSON. Returns `code`, or an exit code after it said why the
 * answer could not be written. */
int ctl_show(const struct ctl *c, const struct sheet *sheet, int code);
