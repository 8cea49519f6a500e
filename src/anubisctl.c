/* anubisctl: reads the options and runs the command. */
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/version.h"
#include "ctl/ctl.h"

enum { TAKES_JSON = 1, TAKES_DRY_RUN = 2, TAKES_IDENTITY = 4 };

/* The help, the check of arguments and "did you mean" follow from this. */
struct command {
    const char *name;
    const char *argument,
        *argument_words; /* its one argument as the help and a sentence name it; NULL = none */
    const char *summary;
    unsigned takes; /* which of the options above */
    int (*run)(struct ctl *c);
};

/* In the order of the help. */
static const struct command commands[] = {
    {"migrate", NULL, NULL, "bring the database's schema up to this version", TAKES_DRY_RUN, ctl_migrate},
    {"status", NULL, NULL, "subscriptions, integrations, relay and consumers on one screen", TAKES_JSON,
     ctl_status},
    {"explain", "ID", "the subscription's id", "one subscription's whole story, and what happens next",
     TAKES_JSON, ctl_explain},
    {"verify", NULL, NULL, "prove subscriptions, ledger and counters against each other", TAKES_JSON,
     ctl_verify},
    {"installation", NULL, NULL, "whose database this is; after it was copied or moved",
     TAKES_JSON | TAKES_DRY_RUN | TAKES_IDENTITY, ctl_installation},
};

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        if (strcmp(commands[i].name, name) == 0)
            return &commands[i];
    return NULL;
}

static const char *nearest_command(const char *name)
{
    const char *nearest = NULL;
    unsigned best = words_tolerance(name) + 1;

    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        bool begins = strncmp(name, commands[i].name, strlen(name)) == 0;
        unsigned distance = begins ? 1 : words_distance(name, commands[i].name);
        if (distance < best) {
            best = distance;
            nearest = commands[i].name;
        }
    }
    return nearest;
}

static void print_commands(void)
{
    int names = 0, arguments = 0;

    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        names = MAX(names, (int) strlen(commands[i].name));
        arguments = MAX(arguments, commands[i].argument ? (int) strlen(commands[i].argument) : 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++)
        printf("  %-*s  %-*s   %s%s%s%s\n", names, commands[i].name, arguments,
               commands[i].argument ? commands[i].argument : "", commands[i].summary,
               commands[i].takes & TAKES_JSON ? " [--json]" : "",
               commands[i].takes & TAKES_DRY_RUN ? " [--dry-run]" : "",
               commands[i].takes & TAKES_IDENTITY ? " [--same|--copy]" : "");
}

static int stop_fd;
static volatile sig_atomic_t stopped_by;

static void on_signal(int number)
{
    stopped_by = number;
    wakefd_raise(stop_fd);
}

static void print_help(void)
{
    puts("anubisctl looks after anubisd's database; it needs no running daemon.\n\n"
         "Usage: anubisctl [OPTION…] COMMAND [ID]\n\nCommands:");
    print_commands();
    puts("\nOptions:\n"
         "  -c, --config FILE       the configuration (" CONFIG_PATH ")\n"
         "      --environment FILE  variables that override it (" CONFIG_ENVIRONMENT_PATH ")\n"
         "      --database CONNINFO connect to this instead, say as the role that owns the schema\n"
         "      --json              answer in JSON\n"
         "      --dry-run           show what would be done, and do nothing\n"
         "      --same              of installation: the database was moved, upgraded or restored\n"
         "      --copy              of installation: it is a copy, and gets a name of its own\n"
         "      --version           print the version, exit\n"
         "  -h, --help              print this, exit\n\n"
         "Exit status: 0 done; 1 verify found differences, or there is no such subscription; 2 verify found\n"
         "none but not everything has been done yet; 64 usage; 69 the database is away or refuses; 77 a\n"
         "permission is missing; 78 configuration. See anubisctl(8).");
}

static int usage_error(const char *what, const char *word, const char *hint)
{
    fprintf(stderr, "anubisctl: %s%s%s%s%s\nTry \"anubisctl --help\".\n", what, word ? " \"" : "",
            word ? word : "", word ? "\"" : "", hint);
    return EX_USAGE;
}

static int unknown_command(const char *name)
{
    const char *nearest = nearest_command(name);
    CLEANUP(freep) char *hint = nearest ? xasprintf("; did you mean \"%s\"?", nearest) : xstrdup("");

    return usage_error("there is no command", name, hint);
}

/* -1 to continue, else the exit code. */
static int parse_options(int argc, char **argv, struct ctl *c)
{
    enum { OPT_ENVIRONMENT = 256, OPT_DATABASE, OPT_JSON, OPT_DRY_RUN, OPT_SAME, OPT_COPY, OPT_VERSION };
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'},
        {"environment", required_argument, NULL, OPT_ENVIRONMENT},
        {"database", required_argument, NULL, OPT_DATABASE},
        {"json", no_argument, NULL, OPT_JSON},
        {"dry-run", no_argument, NULL, OPT_DRY_RUN},
        {"same", no_argument, NULL, OPT_SAME},
        {"copy", no_argument, NULL, OPT_COPY},
        {"version", no_argument, NULL, OPT_VERSION},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    int o;
    while ((o = getopt_long(argc, argv, "c:h0123456789", options, NULL)) != -1) {
        switch (o) {
        case 'c':
            c->config_path = optarg;
            break;
        case OPT_ENVIRONMENT:
            c->environment_path = optarg;
            break;
        case OPT_DATABASE:
            c->database = optarg;
            break;
        case OPT_JSON:
            c->json = true;
            break;
        case OPT_DRY_RUN:
            c->dry_run = true;
            break;
        case OPT_SAME:
            c->same = true;
            break;
        case OPT_COPY:
            c->copy = true;
            break;
        case OPT_VERSION:
            puts("anubisctl " ANUBIS_VERSION);
            return 0;
        case 'h':
            print_help();
            return 0;
        case '?':
            fputs("Try \"anubisctl --help\".\n", stderr);
            return EX_USAGE;
        default: /* a digit */
            return usage_error("a subscription's id is a positive whole number", NULL, "");
        }
    }
    return -1;
}

/* The command and its argument. -1 to continue, else the exit code. */
static int parse_command(int argc, char **argv, struct ctl *c, const struct command **ret)
{
    if (argc == 0)
        return usage_error("a command is missing", NULL, "");
    if (strcmp(argv[0], "help") == 0) {
        print_help();
        return 0;
    }
    const struct command *command = find_command(argv[0]);
    if (!command)
        return unknown_command(argv[0]);
    int words = command->argument ? 2 : 1;
    if (argc < words) {
        CLEANUP(freep) char *missing = xasprintf("%s is missing after", command->argument_words);
        return usage_error(missing, command->name, "");
    }
    if (argc > words)
        return usage_error("there is an argument too many:", argv[words], "");
    if (c->json && !(command->takes & TAKES_JSON))
        return usage_error("there is no --json for", command->name, "");
    if (c->dry_run && !(command->takes & TAKES_DRY_RUN))
        return usage_error("there is no --dry-run for", command->name, ", which changes nothing");
    if ((c->same || c->copy) && !(command->takes & TAKES_IDENTITY))
        return usage_error(c->same ? "there is no --same for" : "there is no --copy for", command->name, "");
    if (c->same && c->copy)
        return usage_error("a database is the same, or a copy: --same or --copy, not both", NULL, "");
    c->args = argv + 1;
    *ret = command;
    return -1;
}

int main(int argc, char **argv)
{
    struct ctl c = {.config_path = CONFIG_PATH, .environment_path = CONFIG_ENVIRONMENT_PATH};
    const struct command *command = NULL;

    int code = parse_options(argc, argv, &c);
    if (code < 0)
        code = parse_command(argc - optind, argv + optind, &c, &command);
    if (code >= 0)
        return code;
    c.stop_fd = stop_fd = wakefd_new();
    signal(SIGINT, on_signal);
    signal(SIGTERM, on_signal);
    code = ctl_configure(&c);
    if (code == 0)
        code = command->run(&c);
    config_unref(c.config);
    /* A shell stops its loop only when the signal itself ends the command. */
    if (stopped_by) {
        signal(stopped_by, SIG_DFL);
        raise(stopped_by);
    }
    return code;
}
