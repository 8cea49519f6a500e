/* anubisctl: reads the options and runs the command. */
#include <getopt.h>
#include <limits.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>

#include "base/utf8.h"
#include "base/version.h"
#include "ctl/ctl.h"

/* What a command takes: a bit for options that belong together. */
enum {
    TAKES_JSON = 1 << 0,
    TAKES_DRY_RUN = 1 << 1,
    TAKES_IDENTITY = 1 << 2,
    TAKES_UTC = 1 << 3,
    TAKES_WAIT = 1 << 4,
    TAKES_SEARCH = 1 << 5,
    TAKES_REASON = 1 << 6,
    TAKES_PERIOD = 1 << 7,
    TAKES_CHOICE = 1 << 8,
    TAKES_RATE = 1 << 9,
    TAKES_AS = 1 << 10,
    TAKES_PART = 1 << 11, /* --integration, --since and --until */
    TAKES_REPORT = 1 << 12,
    TAKES_REPLAY = 1 << 13,
    TAKES_AUDIT = 1 << 14,
    TAKES_PAYLOAD = 1 << 15,
    TAKES_SILENCE = 1 << 16, /* --integration, --kind, --for and --reason */
    TAKES_GROUP = 1 << 17,
    TAKES_LETTERS = 1 << 18, /* --group, --all, --reason and --rate */
    TAKES_PERSON = 1 << 19,  /* --subscription, --cpf and --yes */
    TAKES_REMARK = 1 << 20,  /* --reason, which may be left out */
};

/* How they look behind a command in the help. */
static const struct {
    unsigned takes;
    const char *usage;
} usages[] = {
    {TAKES_JSON, "[--json]"},
    {TAKES_DRY_RUN, "[--dry-run]"},
    {TAKES_IDENTITY, "[--same|--copy]"},
    {TAKES_UTC, "[--utc]"},
    {TAKES_WAIT, "[--wait]"},
    {TAKES_AUDIT, "[--audit]"},
    {TAKES_SEARCH, "[--order|--cpf]"},
    {TAKES_PERSON, "--subscription|--cpf [--yes]"},
    {TAKES_REASON, "--reason"},
    {TAKES_REMARK, "[--reason]"},
    {TAKES_RATE, "[--rate]"},
    {TAKES_PERIOD, "[--for]"},
    {TAKES_CHOICE, "CHOICE"},
    {TAKES_AS, "--as"},
    {TAKES_REPORT, "[PERIOD]"},
    {TAKES_REPLAY, "--group"},
    {TAKES_GROUP, "[--group]"},
    {TAKES_LETTERS, "[CHOICE]"},
    {TAKES_PAYLOAD, "--payload [--origin]"},
    {TAKES_SILENCE, "[SILENCE]"},
};

#define FLAG(field) NULL, offsetof(struct ctl, field)
#define TEXT(field, argument) argument, offsetof(struct ctl, field)

/* All that follows from an option, in the order of the help. Without `takes` it is for all commands. */
static const struct command_option {
    const char *name, *argument; /* NULL = a flag */
    size_t at;                   /* of a bool or a text in struct ctl */
    unsigned takes;
    const char *words;
} command_options[] = {
    {"config", TEXT(config_path, "FILE"), 0, "the configuration (" CONFIG_PATH ")"},
    {"environment", TEXT(environment_path, "FILE"), 0,
     "variables that override it (" CONFIG_ENVIRONMENT_PATH ")"},
    {"database", TEXT(database, "CONNINFO"), 0,
     "connect to this instead, say as the role that owns the schema"},
    {"json", FLAG(json), TAKES_JSON, "answer in JSON"},
    {"dry-run", FLAG(dry_run), TAKES_DRY_RUN, "show what would be done, and do nothing"},
    {"same", FLAG(identity.same), TAKES_IDENTITY,
     "of installation: the database was moved, upgraded or restored"},
    {"copy", FLAG(identity.copy), TAKES_IDENTITY,
     "of installation: it is a copy, and gets a name of its own"},
    {"utc", FLAG(utc), TAKES_UTC, "of migrate: times without zone are UTC, whatever they look like"},
    {"wait", FLAG(proof.wait), TAKES_WAIT, "of verify: wait until all work that is due is done and counted"},
    {"audit", FLAG(proof.audit), TAKES_AUDIT,
     "of verify: prove the audit log, from where it was proven before"},
    {"full", FLAG(proof.full), TAKES_AUDIT, "of verify --audit: all of it"},
    {"anchor", TEXT(proof.anchor, "FILE"), TAKES_AUDIT,
     "of verify --audit: all of it, against checkpoints that were kept elsewhere"},
    {"key", TEXT(proof.key, "FILE"), TAKES_AUDIT,
     "of verify --audit: all of it, and who signed: the public key (Ed25519)"},
    {"order", TEXT(whose.order, "ID"), TAKES_SEARCH,
     "of explain: the subscription of this order, in place of its own id"},
    {"cpf", TEXT(whose.cpf, "CPF"), TAKES_SEARCH | TAKES_PERSON,
     "of explain and erase: the subscriptions of this person"},
    {"subscription", TEXT(whose.subscription, "ID"), TAKES_PERSON, "of erase: this subscription"},
    {"yes", FLAG(whose.yes), TAKES_PERSON, "of erase: nobody is asked"},
    {"reason", TEXT(reason, "TEXT"), TAKES_REASON | TAKES_REMARK | TAKES_SILENCE | TAKES_LETTERS,
     "of pause, settle, resend, silence, discard: why, for those who come after you"},
    {"as", TEXT(as, "sent|failed"), TAKES_AS, "of settle: whether the institution has them, or has not"},
    {"for", TEXT(period, "DURATION"), TAKES_PERIOD | TAKES_SILENCE,
     "of pause and silence: it ends by itself after so long (30m, 2h)"},
    {"integration", TEXT(choice.integration, "ID"), TAKES_CHOICE | TAKES_PART | TAKES_SILENCE,
     "of retry, report and silence: those of this integration"},
    {"kind", TEXT(choice.kind, "KIND"), TAKES_SILENCE, "of silence: alerts of this kind"},
    {"since", TEXT(choice.since, "TIME"), TAKES_CHOICE | TAKES_PART,
     "of retry: failed since then; of report: from then on; or a duration (2h)"},
    {"until", TEXT(choice.until, "TIME"), TAKES_CHOICE | TAKES_PART,
     "of retry: failed before then; of report: up to then, which is now"},
    {"error", TEXT(choice.error, "TEXT"), TAKES_CHOICE, "of retry: with this in their error"},
    {"status", TEXT(choice.status, "CODE"), TAKES_CHOICE, "of retry: with this HTTP status"},
    {"ids", TEXT(choice.ids, "ID,ID"), TAKES_CHOICE, "of retry: these; all that are given must hold"},
    {"format", TEXT(stats.format, "FORMAT"), TAKES_REPORT, "of report: table, json or csv"},
    {"reconciliation", FLAG(stats.reconciliation), TAKES_REPORT,
     "of report: what institutions have confirmed, beside what was sent"},
    {"group", TEXT(stats.group, "GROUP"), TAKES_REPLAY | TAKES_GROUP | TAKES_LETTERS,
     "of replay, resume and dead-letters: integration, monitoring or external"},
    {"put-aside", FLAG(choice.put_aside), TAKES_GROUP,
     "of resume --group: for an hour what it cannot handle goes to dead_letters"},
    {"all", FLAG(choice.all), TAKES_LETTERS,
     "of dead-letters: also those that are over; of its replay and discard: all open ones"},
    {"from", TEXT(stats.from, "TIME"), TAKES_REPLAY,
     "of replay: what Kafka was given since then; or a duration (2h)"},
    {"from-ledger", FLAG(stats.from_ledger), TAKES_REPLAY, "of replay: not from Kafka, but from the ledger"},
    {"rate", TEXT(choice.rate, "NUMBER"), TAKES_RATE | TAKES_LETTERS,
     "of retry, resend and dead-letters replay: so many a second, not all at once"},
    {"payload", TEXT(sample.payload, "FILE"), TAKES_PAYLOAD,
     "of filters: the payload; - is the standard input"},
    {"origin", TEXT(sample.origin, "TEXT"), TAKES_PAYLOAD, "of filters: the subscription's origin"},
};

/* The help, the check of arguments and "did you mean" follow from this. */
struct command {
    const char *name;
    const char *argument, *argument_words; /* as the help and a sentence name it; NULL = none */
    int least, most;                       /* arguments */
    const char *summary;
    unsigned takes; /* which of the options above */
    int (*run)(struct ctl *c);
};

/* In the order of the help. */
static const struct command commands[] = {
    {"migrate", NULL, NULL, 0, 0, "bring the database's schema up to this version", TAKES_DRY_RUN | TAKES_UTC,
     ctl_migrate},
    {"status", NULL, NULL, 0, 0, "subscriptions, integrations, relay and consumers on one screen", TAKES_JSON,
     ctl_status},
    {"explain", "ID", "the subscription's id", 1, 1, "one subscription's whole story, and what happens next",
     TAKES_JSON | TAKES_SEARCH, ctl_explain},
    {"verify", NULL, NULL, 0, 0, "prove subscriptions, ledger and counters",
     TAKES_JSON | TAKES_WAIT | TAKES_AUDIT, ctl_verify},
    {"installation", NULL, NULL, 0, 0, "whose database this is; after a copy or a move",
     TAKES_JSON | TAKES_DRY_RUN | TAKES_IDENTITY, ctl_installation},
    {"integrations", NULL, NULL, 0, 0, "every integration, and what is set for it", TAKES_JSON,
     ctl_integrations},
    {"pause", "ID", "the integration's id", 1, 1, "send nothing to an integration",
     TAKES_JSON | TAKES_DRY_RUN | TAKES_REASON | TAKES_PERIOD, ctl_pause},
    {"resume", "[ID]", NULL, 0, 1, "end its pause, or the stop of a consumer group",
     TAKES_JSON | TAKES_DRY_RUN | TAKES_GROUP, ctl_resume},
    {"retry", NULL, NULL, 0, 0, "put failed subscriptions back",
     TAKES_JSON | TAKES_DRY_RUN | TAKES_CHOICE | TAKES_RATE, ctl_retry},
    {"settle", "ID ...", "a subscription's id", 1, INT_MAX, "say what became of held subscriptions",
     TAKES_JSON | TAKES_DRY_RUN | TAKES_AS | TAKES_REASON, ctl_settle},
    {"resend", "ID ...", "a subscription's id", 1, INT_MAX, "send subscriptions again that were sent",
     TAKES_JSON | TAKES_DRY_RUN | TAKES_REMARK | TAKES_RATE, ctl_resend},
    {"erase", NULL, NULL, 0, 0, "take a person's data out", TAKES_JSON | TAKES_DRY_RUN | TAKES_PERSON,
     ctl_erase},
    {"report", NULL, NULL, 0, 0, "what happened to each integration, and how fast",
     TAKES_JSON | TAKES_PART | TAKES_REPORT, ctl_report},
    {"replay", NULL, NULL, 0, 0, "rebuild what a group has counted",
     TAKES_JSON | TAKES_DRY_RUN | TAKES_REPLAY, ctl_replay},
    {"filters", "test", "\"test\"", 1, 1, "which filter would take a payload, and why",
     TAKES_JSON | TAKES_PAYLOAD, ctl_filters},
    {"alerts", "ACTION", "an action", 0, 2, "list, ack ID, silence, unsilence or test",
     TAKES_JSON | TAKES_DRY_RUN | TAKES_SILENCE, ctl_alerts},
    {"dead-letters", "ACTION", "an action", 0, INT_MAX, "list, show ID, replay ID ... or discard ID ...",
     TAKES_JSON | TAKES_DRY_RUN | TAKES_LETTERS, ctl_dead_letters},
    {"audit", "ACTION", "an action", 1, 2, "head, or prove EVENT: the audit log for third parties",
     TAKES_JSON, ctl_audit},
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
    for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
        printf("  %-*s  %-*s   %s", names, commands[i].name, arguments,
               commands[i].argument ? commands[i].argument : "", commands[i].summary);
        for (size_t n = 0; n < ARRAY_SIZE(usages); n++)
            if (commands[i].takes & usages[n].takes)
                printf(" %s", usages[n].usage);
        putchar('\n');
    }
}

static void print_option(const struct command_option *o)
{
    CLEANUP(freep)
    char *left = xasprintf("%s--%s %s", o == command_options ? "-c, " : "    ", o->name,
                           o->argument ? o->argument : "");

    printf("  %-23s %s\n", left, o->words);
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
    puts("\nOptions:");
    for (size_t i = 0; i < ARRAY_SIZE(command_options); i++)
        print_option(&command_options[i]);
    puts("      --version           print the version, exit\n"
         "  -h, --help              print this, exit\n\n"
         "Exit status: 0 done; 1 verify found differences, or there is no such subscription; 2 verify found\n"
         "none but not everything has been done yet; 64 usage; 69 the database is away or refuses; 77 a\n"
         "permission is missing; 78 configuration. See anubisctl(8).");
}

/* The options that this command takes, and those of all. */
static void print_command_help(const struct command *command)
{
    printf("anubisctl %s: %s.\n\nUsage: anubisctl [OPTION…] %s%s%s\n\nOptions:\n", command->name,
           command->summary, command->name, command->argument ? " " : "",
           command->argument ? command->argument : "");
    for (size_t i = 0; i < ARRAY_SIZE(command_options); i++) {
        const struct command_option *o = &command_options[i];
        if (!o->takes || command->takes & o->takes)
            print_option(o);
    }
    puts("\nSee anubisctl(8).");
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

/* Values of long options for getopt_long(3): those of the table follow OPT_FIRST. */
enum {
    OPT_VERSION = 256,
    OPT_FIRST,
};

static bool *flag_of(struct ctl *c, const struct command_option *o)
{
    return (bool *) ((char *) c + o->at);
}

static const char **text_of(struct ctl *c, const struct command_option *o)
{
    return (const char **) ((char *) c + o->at);
}

static void take_option(struct ctl *c, const struct command_option *o, const char *value)
{
    if (o->argument)
        *text_of(c, o) = value;
    else
        *flag_of(c, o) = true;
}

static void add_options(struct option *list)
{
    for (size_t i = 0; i < ARRAY_SIZE(command_options); i++)
        *list++ = (struct option){command_options[i].name,
                                  command_options[i].argument ? required_argument : no_argument, NULL,
                                  OPT_FIRST + (int) i};
    *list++ = (struct option){"version", no_argument, NULL, OPT_VERSION};
    *list++ = (struct option){"help", no_argument, NULL, 'h'};
    *list = (struct option){0};
}

/* What "help", "help COMMAND" and "COMMAND --help" are about. The exit code. */
static int help(const char *name)
{
    const struct command *command = name && strcmp(name, "help") != 0 ? find_command(name) : NULL;

    if (name && !command && strcmp(name, "help") != 0)
        return unknown_command(name);
    if (command)
        print_command_help(command);
    else
        print_help();
    return 0;
}

/* -1 to continue, else the exit code. */
static int parse_options(int argc, char **argv, struct ctl *c, bool *ret_help)
{
    struct option options[ARRAY_SIZE(command_options) + 3];
    int o;

    add_options(options);
    while ((o = getopt_long(argc, argv, "c:h0123456789", options, NULL)) != -1) {
        if (o >= OPT_FIRST || o == 'c') {
            take_option(c, &command_options[o == 'c' ? 0 : o - OPT_FIRST], optarg);
            continue;
        }
        switch (o) {
        case OPT_VERSION:
            puts("anubisctl " ANUBIS_VERSION);
            return 0;
        case 'h':
            *ret_help = true;
            break;
        case '?':
            fputs("Try \"anubisctl --help\".\n", stderr);
            return EX_USAGE;
        default: /* a digit */
            return usage_error("a subscription's id is a positive whole number", NULL, "");
        }
    }
    return -1;
}

/* Files have names of any bytes, and a connection is described in the server's encoding. */
static bool is_text(const struct command_option *o)
{
    return o->argument && strcmp(o->argument, "FILE") != 0 && strcmp(o->argument, "CONNINFO") != 0;
}

static bool is_utf8(const char *text)
{
    const char *end = text + strlen(text);
    size_t n = 1;

    for (; text < end && n > 0; text += n)
        n = utf8_sequence((const unsigned char *) text, (const unsigned char *) end);
    return n > 0;
}

/* -1 when all texts are UTF-8, as the database holds them, else the exit code. */
static int check_texts(struct ctl *c, int argc, char **argv)
{
    for (size_t i = 0; i < ARRAY_SIZE(command_options); i++) {
        const struct command_option *o = &command_options[i];
        if (!is_text(o) || !*text_of(c, o) || is_utf8(*text_of(c, o)))
            continue;
        CLEANUP(freep) char *what = xasprintf("the text of --%s is not UTF-8", o->name);
        return usage_error(what, NULL, ": it is in another encoding (see locale)");
    }
    for (int i = 0; i < argc; i++)
        if (!is_utf8(argv[i]))
            return usage_error("an argument is not UTF-8", NULL, ": it is in another encoding (see locale)");
    return -1;
}

/* -1 when the command takes all options that are given, else the exit code. */
static int check_options(struct ctl *c, const struct command *command)
{
    for (size_t i = 0; i < ARRAY_SIZE(command_options); i++) {
        const struct command_option *o = &command_options[i];
        bool is_given = o->argument ? *text_of(c, o) != NULL : *flag_of(c, o);
        if (!o->takes || !is_given || command->takes & o->takes)
            continue;
        CLEANUP(freep) char *what = xasprintf("there is no --%s for", o->name);
        return usage_error(what, command->name, o->takes == TAKES_DRY_RUN ? ", which changes nothing" : "");
    }
    return -1;
}

/* The command and its arguments. -1 to continue, else the exit code. */
static int parse_command(int argc, char **argv, struct ctl *c, const struct command **ret)
{
    if (argc == 0)
        return usage_error("a command is missing", NULL, "");
    if (strcmp(argv[0], "help") == 0)
        return help(argv[1]);
    const struct command *command = find_command(argv[0]);
    if (!command)
        return unknown_command(argv[0]);
    bool searches = command->takes & TAKES_SEARCH && (c->whose.order || c->whose.cpf);
    if (argc - 1 < (searches ? 0 : command->least)) {
        CLEANUP(freep) char *missing = xasprintf("%s is missing after", command->argument_words);
        return usage_error(missing, command->name, "");
    }
    int most = searches ? 0 : command->most;
    if (argc - 1 > most)
        return usage_error("there is an argument too many:", argv[most + 1], "");
    int code = check_options(c, command);
    if (code < 0)
        code = check_texts(c, argc, argv);
    if (code >= 0)
        return code;
    if (c->whose.order && c->whose.cpf)
        return usage_error("a subscription is looked for by --order or by --cpf, not both", NULL, "");
    if (c->identity.same && c->identity.copy)
        return usage_error("a database is the same, or a copy: --same or --copy, not both", NULL, "");
    c->reads_only = !(command->takes & TAKES_DRY_RUN);
    c->args = argv + 1;
    c->arg_count = argc - 1;
    *ret = command;
    return -1;
}

int main(int argc, char **argv)
{
    struct ctl c = {.config_path = CONFIG_PATH, .environment_path = CONFIG_ENVIRONMENT_PATH};
    const struct command *command = NULL;
    bool wants_help = false;

    fill_standard_descriptors();
    int code = parse_options(argc, argv, &c, &wants_help);
    if (code < 0 && wants_help)
        return help(argv[optind]);
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
