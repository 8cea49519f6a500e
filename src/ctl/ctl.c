/* Parts that all commands of anubisctl share. See ctl.h. */
#include "ctl/ctl.h"

#include <errno.h>
#include <inttypes.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sysexits.h>
#include <unistd.h>

#include "base/json.h"
#include "base/timeutil.h"
#include "pg/pg_conninfo.h"
#include "pg/pg_session.h"
#include "pg/schema.h"
#include "sql/statements.h"

/* Where systemd puts the daemon's credentials while it runs; root may read them. */
#define CREDENTIALS "/run/credentials/anubisd.service"

/* What is narrower is treated as this. */
#define WIDTH_MIN 40
#define PROGRESS_USEC (30 * USEC_PER_SEC)

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

/* True when it is time for a line of progress where lines stay. */
static bool progress_is_due(void)
{
    static uint64_t at;
    uint64_t now = now_monotonic_usec();

    if (at == 0)
        at = now + PROGRESS_USEC;
    if (now < at)
        return false;
    at = now + PROGRESS_USEC;
    return true;
}

void ctl_progress(const char *fmt, ...)
{
    bool terminal = isatty(STDERR_FILENO);
    va_list args;

    if (terminal)
        wipe_progress();
    if (!fmt || (!terminal && !progress_is_due()))
        return;
    va_start(args, fmt);
    fputs(terminal ? "" : "anubisctl: ", stderr);
    vfprintf(stderr, fmt, args);
    fputs(terminal ? "" : "\n", stderr);
    va_end(args);
    fflush(stderr);
    progress_shown = terminal;
}

static int read_environment(const struct ctl *c)
{
    struct error err;

    /* Not fatal: for a user who may not read the file, the environment may have all that is needed. */
    bool named = strcmp(c->environment_path, CONFIG_ENVIRONMENT_PATH) != 0;

    if (envfile_load(c->environment_path, named, &err) < 0) {
        ctl_say("%s%s", err.text, named ? "" : "; going on without it");
        if (named)
            return EX_CONFIG;
    }
    if (access(CREDENTIALS, R_OK | X_OK) == 0)
        setenv("CREDENTIALS_DIRECTORY", CREDENTIALS, 0);
    return 0;
}

/* To libpq a text without "=" and "://" is the name of a database. */
static bool is_database_name(const char *conninfo)
{
    return !strchr(conninfo, '=') && !strstr(conninfo, "://");
}

int ctl_configure(struct ctl *c)
{
    /* Who names the database, and only looks, need not wait until the file is mended. */
    const struct config_judges judges = {.conninfo = pg_conninfo_check,
                                         .lenient = c->database && c->reads_only};
    CLEANUP(strbuf_free) struct strbuf problems = STRBUF_INIT(4 << 20), notices = STRBUF_INIT(1 << 20);
    CLEANUP(strbuf_free) struct strbuf why = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    if (c->database && !is_database_name(c->database) && !pg_conninfo_check(c->database, &why)) {
        ctl_say("--database %s", strbuf_str(&why));
        return EX_USAGE;
    }
    if (read_environment(c) != 0)
        return EX_CONFIG;
    int r =
        config_load(&c->config, c->config_path, c->database ? CONFIG_SECRETS_KEEP : CONFIG_SECRETS_DATABASE,
                    &judges, &problems, &notices);
    fputs(strbuf_str(&problems), stderr);
    if (r == 0 && problems.len > 0)
        ctl_say("what is wrong there counts as its default");
    else if (r != 0 && !c->database && c->reads_only)
        ctl_say("until that is corrected, name the database: --database \"dbname=…\"");
    return r == 0 ? 0 : EX_CONFIG;
}

int ctl_load_kafka(const struct ctl *c, struct config **ret, struct error *err)
{
    static const struct config_judges judges = {.conninfo = pg_conninfo_check};
    CLEANUP(strbuf_free) struct strbuf problems = STRBUF_INIT(4 << 20), notices = STRBUF_INIT(1 << 20);

    if (config_load(ret, c->config_path, CONFIG_SECRETS_KAFKA, &judges, &problems, &notices) == 0)
        return 0;
    error_set(err, "%.*s", (int) strcspn(strbuf_str(&problems), "\n"), strbuf_str(&problems));
    return -EINVAL;
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
    params.admit = schema_admit_ctl;
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

int ctl_check_tables(struct pg *pg, struct error *err)
{
    CLEANUP(pg_result_freep) struct pg_result *amiss = NULL;

    int r = pg_query(pg, &sql_tables_amiss, NULL, &amiss, err);
    if (r != PG_DONE || pg_is_null(amiss, 0, 0))
        return r;
    error_set(err, "the tables are not as anubisd made them: %s", pg_get_text(amiss, 0, 0));
    return -ENODATA;
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

/* Of the terminal; elsewhere what COLUMNS says, as watch(1) sets it; 0 = as wide as need be. */
static size_t line_width(void)
{
    const char *columns = getenv("COLUMNS");
    struct winsize size;
    int64_t width = 0;

    if (isatty(STDOUT_FILENO) && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
        width = size.ws_col;
    else if (columns)
        (void) parse_i64(columns, 1, 10000, &width);
    return width >= WIDTH_MIN ? (size_t) width : width > 0 ? WIDTH_MIN : 0;
}

char *ctl_operator(void)
{
    const char *name = getenv("SUDO_USER");
    const struct passwd *user = name && *name ? NULL : getpwuid(getuid());
    CLEANUP(strbuf_free) struct strbuf clean = STRBUF_INIT(256);

    if (user)
        name = user->pw_name;
    if (!name || !*name)
        return xasprintf("user %u", (unsigned) getuid());
    strbuf_add_utf8(&clean, name, strlen(name));
    return xstrdup(strbuf_str(&clean));
}

int ctl_read_ids(const struct ctl *c, int64_t **ret)
{
    int64_t *ids = *ret = xcalloc((size_t) c->arg_count, sizeof(*ids));

    for (int i = 0; i < c->arg_count; i++) {
        if (parse_i64(c->args[i], 1, INT64_MAX, &ids[i]) < 0) {
            ctl_say("\"%s\" cannot be the id of a subscription, which is a positive whole number",
                    c->args[i]);
            return EX_USAGE;
        }
    }
    return 0;
}

int ctl_name_missing(struct pg *pg, int64_t integration_id)
{
    CLEANUP(pg_args_free) struct pg_args args = PG_ARGS_INIT;
    bool is_missing = false;
    struct error err;

    pg_arg_i64(&args, integration_id);
    if (pg_query_bool(pg, &sql_integration_is_missing, &args, &is_missing, &err) != PG_DONE || !is_missing)
        return 0;
    ctl_say("there is no integration %" PRId64 " (anubisctl integrations)", integration_id);
    return CTL_DIFFERENT;
}

int ctl_read_id(const char *text, const char *whose, int64_t *ret)
{
    if (parse_i64(text, 1, INT64_MAX, ret) == 0)
        return 0;
    ctl_say("%s id is a positive whole number, not \"%s\"", whose, text);
    return EX_USAGE;
}

int ctl_read_file(const char *path, size_t max, struct strbuf *ret)
{
    bool is_stdin = strcmp(path, "-") == 0;
    FILE *f = is_stdin ? stdin : fopen(path, "re");
    char piece[65536];
    size_t n, len = 0;

    if (!f) {
        ctl_say("could not open %s: %s", path, strerror(errno));
        return EX_NOINPUT;
    }
    for (; len <= max && (n = fread(piece, 1, sizeof(piece), f)) > 0; len += n)
        strbuf_add(ret, piece, n);
    bool broken = ferror(f);
    if (!is_stdin)
        fclose(f);
    if (broken)
        ctl_say("could not read %s", path);
    else if (len > max)
        ctl_say("%s is longer than %zu MiB", path, max >> 20);
    return broken || len > max ? EX_NOINPUT : 0;
}

int ctl_change(const struct ctl *c, struct pg *pg, const struct pg_statement *statement,
               const struct pg_args *args, struct pg_result **ret, struct error *err)
{
    int r = pg_execute(pg, "begin", err);

    if (r == PG_DONE)
        r = pg_query(pg, statement, args, ret, err);
    if (r == PG_DONE)
        r = pg_execute(pg, c->dry_run ? "rollback" : "commit", err);
    return r;
}

bool ctl_is_group(const char *name)
{
    static const char *const groups[] = {CONFIG_INTEGRATION_MODEL, "monitoring", "external"};

    for (size_t i = 0; i < ARRAY_SIZE(groups); i++)
        if (strcmp(name, groups[i]) == 0)
            return true;
    return false;
}

int ctl_show(const struct ctl *c, const struct sheet *sheet, int code)
{
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    wipe_progress();
    if (c->json)
        sheet_add_json(sheet, &text);
    else
        sheet_add_words(sheet, line_width(), &text);
    errno = 0;
    if (fputs(strbuf_str(&text), stdout) == EOF || fflush(stdout) == EOF) {
        ctl_say("could not write the answer: %s", strerror(errno));
        return EX_IOERR;
    }
    return code;
}

/* To a spreadsheet, also in full width, and behind white space that some of them pass over. */
static bool begins_a_formula(const char *text)
{
    static const char *const signs[] = {
        "=", "+", "-", "@", "\xEF\xBC\x9D", "\xEF\xBC\x8B", "\xEF\xBC\x8D", "\xEF\xBC\xA0"};

    if (*text && strchr("\t\r\n", *text))
        return true;
    text += strspn(text, " ");
    for (size_t i = 0; i < ARRAY_SIZE(signs); i++)
        if (strncmp(text, signs[i], strlen(signs[i])) == 0)
            return true;
    return false;
}

void ctl_print_csv(const char *text)
{
    putchar('"');
    if (begins_a_formula(text))
        putchar('\'');
    for (const char *p = text; *p; p++) {
        if (*p == '"')
            putchar('"');
        putchar(*p);
    }
    putchar('"');
}
