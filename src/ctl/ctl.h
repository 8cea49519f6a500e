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
    CTL_DIFFERENT = 1, /* verify found differences; explain: no such subscription; replay: nothing was read */
    CTL_BEHIND = 2,    /* verify found no difference, but work is not done yet */
};

#define CTL_REASON_MAX 1000 /* bytes that an operator may give for a reason */

struct ctl {
    const char *config_path, *environment_path;
    const char *database;           /* --database, or NULL */
    bool json, dry_run, reads_only; /* the last one: the command changes nothing */
    struct {
        bool same, copy;
    } identity; /* of the command installation */
    bool utc;   /* of migrate: times without zone are UTC for sure */
    struct {
        bool wait, audit, full;
        const char *anchor, *key; /* files, NULL = none */
    } proof;                      /* of verify */
    struct {
        const char *order, *cpf; /* of explain, which may name a subscription by its id; cpf of erase, too */
        const char *subscription;
        bool yes;            /* nobody is asked */
    } whose;                 /* the last two of erase; NULL = not named by it */
    const char *reason, *as; /* of pause, settle, resend and alerts; of settle alone */
    const char *period;      /* of pause and alerts, --for; NULL = until somebody resumes it */
    struct {
        const char *integration, *since, *until; /* of report, too; the first of alerts, too */
        const char *error, *status, *ids;
        const char *rate; /* of resend, too: how many a second; NULL = all at once */
        const char *kind; /* of alerts alone */
        bool all;         /* of dead-letters: also those that are over; to work on: all that are open */
        bool put_aside;   /* of resume --group: for an hour */
    } choice;             /* of retry; NULL = any */
    struct {
        const char *format;  /* of report */
        const char *from;    /* of replay: a time; NULL = the beginning */
        const char *group;   /* of replay, resume and dead-letters; NULL = none, all */
        bool reconciliation; /* of report */
        bool from_ledger;    /* of replay */
    } stats;
    struct {
        const char *payload, *origin;
    } sample;          /* of filters test; NULL = none */
    char *const *args; /* the command's own */
    int arg_count;
    int stop_fd; /* readable after SIGINT or SIGTERM */
    struct config *config;
};

/* The commands, each in a file ctl_NAME.c. Return an exit code, after having said what went wrong. */
int ctl_migrate(struct ctl *c);
int ctl_status(struct ctl *c);
int ctl_explain(struct ctl *c);
int ctl_verify(struct ctl *c);
int ctl_verify_audit(struct ctl *c); /* verify --audit */
int ctl_installation(struct ctl *c);
int ctl_pause(struct ctl *c);
int ctl_resume(struct ctl *c);
int ctl_retry(struct ctl *c);
int ctl_settle(struct ctl *c);
int ctl_resend(struct ctl *c);
int ctl_erase(struct ctl *c);
int ctl_integrations(struct ctl *c);
int ctl_report(struct ctl *c);
int ctl_reconcile(struct ctl *c, bool csv); /* report --reconciliation */
int ctl_replay(struct ctl *c);
int ctl_filters(struct ctl *c);
int ctl_alerts(struct ctl *c);
int ctl_dead_letters(struct ctl *c);
int ctl_audit(struct ctl *c);

/* Waits until no work is due: every subscription that can be sent is, and its events are published and
 * counted. Says meanwhile how much is left. PG_DONE or an error of pg_query(). */
int ctl_wait_for_work(const struct ctl *c, struct pg *pg, struct error *err);

/* Reads the environment file and the configuration. 0, or an exit code after it said why. */
int ctl_configure(struct ctl *c);

/* The configuration once more, with the secrets of Kafka that few commands need. 0, or -EINVAL with *err. */
int ctl_load_kafka(const struct ctl *c, struct config **ret, struct error *err);

/* Parameters that all sessions have in common; `name` is the application_name, a constant. */
struct pg_params ctl_session(const struct ctl *c, const char *name);
/* 0, or an exit code after it said why. */
int ctl_connect(const struct ctl *c, const struct pg_params *params, struct pg **ret);
/* Says "could not `what`: …" with the database's words. Returns the exit code. */
int ctl_refused(int r, const char *what, const struct error *err);
/* PG_DONE, -ENODATA with what is wrong with our tables and what helps (a partition of the ledger is detached,
 * say: what is told from the others would be wrong), or an error of pg_query(). */
int ctl_check_tables(struct pg *pg, struct error *err);
/* Says so when no integration has this id: CTL_DIFFERENT; else 0, also for 0, which names none. */
int ctl_name_missing(struct pg *pg, int64_t integration_id);

/* A stored last_error or error_message without the institution's words: "HTTP 503", the word of the cause, or
 * a sentence of anubisd. The caller frees; NULL when there was no error. `http_status` 0 = there was no
 * answer. */
char *ctl_error_class(const char *error, int64_t http_status);

/* A time as Postgres reads it, or a duration before now, for which *ret is an interval that begins with "-";
 * the caller frees. NULL leaves *ret alone. 0, or an exit code after it said why. */
int ctl_read_time(const char *text, const char *option, char **ret);

/* The arguments, each the id of a subscription; *ret has arg_count of them and is the caller's to free in any
 * case. 0, or an exit code after it said why. */
int ctl_read_ids(const struct ctl *c, int64_t **ret);

/* `whose` as in "an integration's". 0, or an exit code after it said what an id is. */
int ctl_read_id(const char *text, const char *whose, int64_t *ret);

/* Adds --since, --until and --integration to the arguments; without an option its default, NULL = none, 0 =
 * all integrations. 0, or an exit code after it said why. */
int ctl_read_part(const struct ctl *c, const char *since, const char *until, struct pg_args *args);
/* Whether these lie in their order. 0, or an exit code after it named both times. */
int ctl_check_part(const struct ctl *c, struct pg *pg, const char *since, const char *until);
/* The same of two times as ctl_read_time() gives them, and whether the server can read them; `since` NULL =
 * whenever, `until` NULL = now. `first` and `last` are their names. */
int ctl_check_order(struct pg *pg, const char *first, const char *since, const char *last, const char *until);

/* Reads a file of at most `max` bytes, "-" = the standard input, to the end of *ret. 0, or an exit code after
 * it said why not. */
int ctl_read_file(const char *path, size_t max, struct strbuf *ret);

/* Sends a statement in a transaction, which a dry run takes back. Outcomes and errors of pg_query(). */
int ctl_change(const struct ctl *c, struct pg *pg, const struct pg_statement *statement,
               const struct pg_args *args, struct pg_result **ret, struct error *err);

/* Whether there is such a consumer group: integration, monitoring or external. */
bool ctl_is_group(const char *name);

/* Who does it: the user, as far as sudo tells. The caller frees. */
char *ctl_operator(void);

/* A text in CSV (RFC 4180). One that a spreadsheet would take for a formula is not to be one. */
void ctl_print_csv(const char *text);

/* One line on stderr, "anubisctl: …". */
void ctl_say(const char *fmt, ...) PRINTF(1, 2);
/* Progress. On a terminal each line overwrites the one before, and NULL wipes it; elsewhere one line in half
 * a minute is said. */
void ctl_progress(const char *fmt, ...) PRINTF(1, 2);

/* Prints the answer, as JSON when the user wants JSON. Returns `code`, or an exit code after it said why the
 * answer could not be written. */
int ctl_show(const struct ctl *c, const struct sheet *sheet, int code);
