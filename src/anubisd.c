/* anubisd: reads options and configuration, then runs the daemon (daemon.c). */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <systemd/sd-daemon.h>

#include "base/log.h"
#include "base/message_ids.h"
#include "base/timeutil.h"
#include "base/version.h"
#include "config/config.h"
#include "daemon.h"
#include "reload.h"

/* For secrets that are not there. A credential comes to a new process alone, and an operator waits for the
 * word of "systemctl start". */
#define SECRETS_WAIT_USEC (30 * USEC_PER_SEC)

enum mode { MODE_RUN, MODE_CHECK, MODE_DUMP, MODE_RELOAD };

struct options {
    const char *config_path, *environment_path; /* the second is NULL without --environment */
    enum mode mode;
    int64_t daemon; /* of MODE_RELOAD */
};

static const char help_text[] =
    "anubisd takes subscriptions from Postgres to their institutions' HTTP APIs and tells Kafka what happened.\n"
    "\n"
    "Usage: anubisd [-c FILE] [--environment FILE] [--check-config | --dump-config]\n"
    "       anubisd --reload PID\n"
    "\n"
    "  -c, --config FILE       the configuration (" CONFIG_PATH ")\n"
    "      --environment FILE  variables that override it; with the next two options " CONFIG_ENVIRONMENT_PATH
    ",\n"
    "                          which the unit gives the daemon, else none\n"
    "      --check-config      read and validate it, say what is wrong, exit\n"
    "      --dump-config       print the effective configuration, secrets as ***, exit\n"
    "      --reload PID        have that daemon read its own anew, say whether it did, exit\n"
    "      --version           print the version, exit\n"
    "  -h, --help              print this, exit\n"
    "\n"
    "It stays in the foreground and logs to the journal, or to stderr where there is none. SIGHUP reads the\n"
    "configuration again, SIGTERM ends what is under way and stops. See anubisd(8) and anubisd.conf(5).\n";

static int usage_error(const char *what)
{
    fprintf(stderr, "anubisd: %s\nTry \"anubisd --help\".\n", what);
    return EX_USAGE;
}

/* -1 to continue, else the exit code. */
static int parse_options(int argc, char **argv, struct options *ret)
{
    enum { OPT_CHECK = 256, OPT_DUMP, OPT_ENVIRONMENT, OPT_RELOAD, OPT_VERSION };
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},
        {"environment", required_argument, NULL, OPT_ENVIRONMENT},
        {"check-config", no_argument, NULL, OPT_CHECK},
        {"dump-config", no_argument, NULL, OPT_DUMP},
        {"reload", required_argument, NULL, OPT_RELOAD},
        {"version", no_argument, NULL, OPT_VERSION},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int c;
    while ((c = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        switch (c) {
        case 'c':
            ret->config_path = optarg;
            break;
        case OPT_ENVIRONMENT:
            ret->environment_path = optarg;
            break;
        case OPT_CHECK:
            ret->mode = MODE_CHECK;
            break;
        case OPT_DUMP:
            ret->mode = MODE_DUMP;
            break;
        case OPT_RELOAD:
            ret->mode = MODE_RELOAD;
            if (parse_i64(optarg, 1, INT32_MAX, &ret->daemon) < 0)
                return usage_error("--reload wants the process id of a daemon: 1 to 2147483647");
            break;
        case OPT_VERSION:
            puts("anubisd " ANUBIS_VERSION);
            return 0;
        case 'h':
            fputs(help_text, stdout);
            return 0;
        default:
            fputs("Try \"anubisd --help\".\n", stderr);
            return EX_USAGE;
        }
    }
    return optind < argc ? usage_error("there are no arguments, only options") : -1;
}

/* The variables that the unit gives the daemon; the daemon itself has them already. 0, or -errno after the
 * reason is logged. */
static int read_environment(const struct options *o)
{
    const char *path = o->environment_path ? o->environment_path : CONFIG_ENVIRONMENT_PATH;
    struct error err;

    if (o->mode == MODE_RUN && !o->environment_path)
        return 0;
    int r = envfile_load(path, o->environment_path, &err);
    if (r < 0 && o->mode == MODE_RUN)
        log_line(LOG_ERR, MSG_CONFIG_INVALID, "%s", err.text);
    else if (r < 0)
        fprintf(stderr, "anubisd: %s%s\n", err.text, o->environment_path ? "" : "; going on without it");
    return o->environment_path ? r : 0;
}

/* Once for each set of problems. */
static void say_absent(struct strbuf *said, const struct strbuf *problems)
{
    const char *lines = strbuf_str(problems);

    if (strcmp(strbuf_str(said), lines) == 0)
        return;
    strbuf_clear(said);
    strbuf_adds(said, lines);
    log_lines(LOG_ERR, MSG_SECRETS_ABSENT, "", lines);
    log_line(LOG_WARNING, MSG_SECRETS_ABSENT, "waiting for what is not there to be read");
    sd_notifyf(0, "STATUS=waiting for secrets: %.*s", (int) strcspn(lines, "\n"), lines);
}

static bool is_told_to_stop(void)
{
    const struct timespec second = {.tv_sec = 1};
    sigset_t ends;

    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    return sigtimedwait(&ends, NULL, &second) > 0;
}

/* -1 with a configuration, else the exit code after the reason is logged. Secrets may come later than we do:
 * a file system, a service that writes them, a person. */
static int load_to_run(struct config **ret, const char *path)
{
    CLEANUP(strbuf_free) struct strbuf said = STRBUF_INIT(4 << 20);
    uint64_t until = now_monotonic_usec() + SECRETS_WAIT_USEC;

    for (;;) {
        CLEANUP(strbuf_free) struct strbuf problems = STRBUF_INIT(4 << 20), notices = STRBUF_INIT(1 << 20);
        int r = config_load(ret, path, CONFIG_SECRETS_RESOLVE, &daemon_judges, &problems, &notices);

        if (r == 0)
            return -1;
        if (r != -EAGAIN) {
            log_lines(LOG_ERR, MSG_CONFIG_INVALID, "", strbuf_str(&problems));
            return EX_CONFIG;
        }
        say_absent(&said, &problems);
        if (is_told_to_stop())
            return 0;
        if (now_monotonic_usec() >= until)
            return EX_TEMPFAIL;
    }
}

/* Checks or dumps it. Exit code. */
static int load_to_show(const struct options *o)
{
    CLEANUP(strbuf_free) struct strbuf problems = STRBUF_INIT(4 << 20), notices = STRBUF_INIT(1 << 20);
    CLEANUP(strbuf_free) struct strbuf dump = STRBUF_INIT(4 << 20);
    CLEANUP(config_unrefp) struct config *config = NULL;
    enum config_secrets secrets = o->mode == MODE_DUMP ? CONFIG_SECRETS_KEEP : CONFIG_SECRETS_CHECK;
    int r = config_load(&config, o->config_path, secrets, &daemon_judges, &problems, &notices);

    if (r < 0) {
        fputs(strbuf_str(&problems), stderr);
        return EX_CONFIG;
    }
    if (o->mode == MODE_CHECK) {
        config_notice_unused(config, &notices);
        fputs(strbuf_str(&notices), stderr);
        printf("%s: OK\n", o->config_path);
    } else {
        config_dump(config, &dump);
        fputs(strbuf_str(&dump), stdout);
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct options options = {.config_path = CONFIG_PATH};
    CLEANUP(config_unrefp) struct config *config = NULL;

    fill_standard_descriptors();
    int r = parse_options(argc, argv, &options);
    if (r >= 0)
        return r;
    if (options.mode == MODE_RELOAD)
        return reload_ask((pid_t) options.daemon);
    if (options.mode == MODE_RUN)
        daemon_block_signals();
    log_init();
    if (read_environment(&options) < 0)
        return EX_CONFIG;
    if (options.mode != MODE_RUN)
        return load_to_show(&options);
    r = load_to_run(&config, options.config_path);
    if (r >= 0)
        return r;
    log_set_level(config->log_level);
    log_line(LOG_DEBUG, NULL, "configuration %s", options.config_path);
    return daemon_run(config, options.config_path);
}
