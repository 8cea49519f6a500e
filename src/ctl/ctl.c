/* Parts that all commands of anubisctl share. See ctl.h. */
#include "ctl/ctl.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/timeutil.h"
#include "pg/pg_conninfo.h"
#include "pg/pg_session.h"
#include "pg/schema.h"

/* Where systemd puts the daemon's credentials while it runs; root may read them. */
#define CREDENTIALS "/run/credentials/anubisd.service"

static bool progress_shown;

static void wipe_progress(void)
{
    if (progress_shown)
        fputs("\r\033[K", stderr);
    progress_shown = false;
}

void ctl_say(const char *fmt, ...)
{
    va_list args;

    wipe_progress();
    va_start(args, fmt);
    fputs("anubisctl: ", stderr);
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
}

void ctl_progress(const char *fmt, ...)
{
    va_list args;

    if (!isatty(STDERR_FILENO))
        return;
    wipe_progress();
    if (!fmt)
        return;
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fflush(stderr);
    progress_shown = true;
}

static void read_environment(const struct ctl *c)
{
    struct error err;

    /* Not fatal: for a user who may not read the file, the environment may have all that is needed. */
    if (envfile_load(c->environment_path, &err) < 0)
        ctl_say("%s; going on without it", err.text);
    if (access(CREDENTIALS, R_OK | X_OK) == 0)
        setenv("CREDENTIALS_DIRECTORY", CREDENTIALS, 0);
}

/* To libpq a text without "=" and "://" is the name of a database. */
static bool is_database_name(const char *conninfo)
{
    return !strchr(conninfo, '=') && !strstr(conninfo, "://");
}

int ctl_configure(struct ctl *c)
{
    static const struct config_judges judges = {.conninfo = pg_conninfo_check};
    CLEANUP(strbuf_free) struct strbuf problems = STRBUF_INIT(4 << 20), notices = STRBUF_INIT(1 << 20);
    CLEANUP(strbuf_free) struct strbuf why = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    if (c->database && !is_database_name(c->database) && !pg_conninfo_check(c->database, &why)) {
        ctl_say("--database %s", strbuf_str(&why));
        return EX_USAGE;
    }
    read_environment(c);
    int r =
        config_load(&c->config, c->config_path, c->database ? CONFIG_SECRETS_KEEP : CONFIG_SECRETS_DATABASE,
                    &judges, &problems, &notices);
    if (r == 0)
        return 0;
    fputs(strbuf_str(&problems), stderr);
    return EX_CONFIG;
}

struct pg_params ctl_session(const struct ctl *c, const char *name)
{
    struct pg_params params = pg_session_params(c->config, name, 0);

    if (c->database)
        params.conninfo = c->database;
    params.lock_timeout_usec = 5 * USEC_PER_SEC;
    params.stop_fd = c->stop_fd;
    params.keep_to_indexes = false;
    params.writes = false;
    params.admit = schema_check;
    return params;
}

static void say_where(const struct ctl *c, const char *conninfo)
{
    CLEANUP(freep) char *printable = pg_conninfo_printable(conninfo);
    const char *url = getenv("DATABASE_URL");
    const char *source = c->database ? "--database" : url && *url ? "DATABASE_URL" : "database.conninfo";

    if (is_database_name(conninfo) && *conninfo)
        ctl_say("the database was looked for at \"dbname=%s\" (%s)", conninfo, source);
    else
        ctl_say("the database was looked for at \"%s\" (%s)", printable, source);
}

int ctl_connect(const struct ctl *c, const struct pg_params *params, struct pg **ret)
{
    struct error err;

    int r = pg_open(ret, params, &err);
    switch (r) {
    case PG_DONE:
        return 0;
    case -ECANCELED:
        ctl_say("interrupted");
        return EX_UNAVAILABLE;
    case PG_SCHEMA_MISFIT:
    case -EPERM:
        ctl_say("%s", err.text);
        break;
    default:
        ctl_say("could not open a session with the database: %s", err.text);
        break;
    }
    say_where(c, params->conninfo);
    if (strstr(err.text, "role \"") || strstr(err.text, "authentication") || strstr(err.text, "password"))
        ctl_say("connect as the daemon does (\"sudo -u anubisd anubisctl …\"), "
                "or name another role by --database");
    return r == -EPERM ? EX_NOPERM : EX_UNAVAILABLE;
}

int ctl_refused(int r, const char *what, const struct error *err)
{
    if (r == -ECANCELED) {
        ctl_say("interrupted");
        return EX_UNAVAILABLE;
    }
    ctl_say("could not %s: %s", what, err->text);
    if (r == -EPERM)
        ctl_say("another role can be named by --database");
    return r == -EPERM ? EX_NOPERM : EX_UNAVAILABLE;
}

int ctl_show(const struct ctl *c, const struct sheet *sheet, int code)
{
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    wipe_progress();
    if (c->json)
        sheet_add_json(sheet, &text);
    else
        sheet_add_words(sheet, &text);
    errno = 0;
    if (fputs(strbuf_str(&text), stdout) == EOF || fflush(stdout) == EOF) {
        ctl_say("could not write the answer: %s", strerror(errno));
        return EX_IOERR;
    }
    return code;
}
