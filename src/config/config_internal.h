/* Declarations that only the config_*.c files share.
 *
 * A value travels as text: from the table's defaults, the file and the environment alike it goes through
 * config_key_set(), which checks and stores it. So each rule exists once. */
#pragma once

#include "config/config.h"

enum config_type {
    TYPE_STRING,
    TYPE_WORD,   /* a string out of `choices`, stored as the table spells it */
    TYPE_CHOICE, /* the same, stored as the choice's number */
    TYPE_BOOL,
    TYPE_INT,
    TYPE_FLOAT,
    TYPE_DURATION,
    TYPE_SIZE,
    TYPE_URLS, /* a list of strings, stored as one with a space between them */
    TYPE_PROPERTIES,
};

enum {
    KEY_RESTART = 1 << 0,      /* a running daemon cannot take a change over */
    KEY_SECRET = 1 << 1,       /* never shown */
    KEY_CONNINFO = 1 << 2,     /* libpq's: shown without its passwords */
    KEY_CERTIFICATES = 1 << 4, /* a file that libssl has to understand */
    KEY_UNUSED = 1 << 3,       /* accepted, without effect in this version */
    KEY_WEBHOOK = 1 << 5,      /* a URL whose path may be a secret */
    KEY_SIGNING = 1 << 6,      /* a secret that signs */
    KEY_NOTE_KEY = 1 << 7,     /* a private key that signs checkpoints */
};

struct config_choice {
    const char *word;
    int value;
};

struct config_key {
    const char *group; /* "" = outside the groups */
    const char *name;
    enum config_type type;
    size_t offset;                       /* of the field in struct config */
    const char *fallback;                /* the default, in the file's syntax without quotes */
    const char *min, *max;               /* both or neither, in the same syntax, inclusive */
    const struct config_choice *choices; /* up to a NULL word */
    /* False, with `why` continuing a sentence that starts with the key's name ("must be …"). */
    bool (*check)(const char *value, struct strbuf *why);
    const char *environment; /* the variable that overrides the file, or NULL; durations in milliseconds */
    unsigned flags;
};

extern const struct config_key config_keys[];
extern const size_t config_keys_count;

const struct config_key *config_key_find(const char *group, const char *name);
bool config_group_exists(const char *group);
void config_key_add_name(const struct config_key *key, struct strbuf *out); /* "group.key" */
/* Appends "; did you mean …" or where the key belongs, or nothing. `name` may hold '_' for '.'. */
void config_suggest_key(const char *group, const char *name, struct strbuf *out);
void config_suggest_group(const char *name, struct strbuf *out);

enum config_source { SOURCE_DEFAULT, SOURCE_FILE, SOURCE_ENVIRONMENT };

struct config_origin {
    enum config_source source;
    unsigned line;           /* SOURCE_FILE: 0 = the file as a whole */
    const char *environment; /* SOURCE_ENVIRONMENT: the variable's name */
    char *reference;         /* "credential:NAME" and the like, as written, or NULL */
    bool unknown;            /* the value is wrong or not resolved: rules skip it */
};

struct config_origins {
    char *path;
    struct config_origin keys[]; /* as many as config_keys */
};

struct config_origin *config_origin(const struct config *c, const struct config_key *key);

/* A load in progress. */
struct config_loader {
    const char *path;
    struct config *config;
    enum config_secrets secrets;
    const struct config_judges *judges;
    struct strbuf *problems, *notices;
    unsigned n_problems, n_absent; /* of them: secrets that are not there */
};

/* config_report.c: the text of a problem must not quote a secret. After CONFIG_PROBLEMS_MAX, problems are
 * only counted. */
#define CONFIG_PROBLEMS_MAX 1000
/* Each adds one line that begins with its place: the file and its line, or the environment's variable. */
void config_problem(struct config_loader *l, const struct config_origin *where, const char *fmt, ...)
    PRINTF(3, 4);
void config_notice(struct config_loader *l, const struct config_origin *where, const char *fmt, ...)
    PRINTF(3, 4);
#define config_problem_line(l, at, ...)                                                                      \
    config_problem(l, &(const struct config_origin){.source = SOURCE_FILE, .line = (at)}, __VA_ARGS__)

/* config_key.c: one key. */
/* Are references of this key read (RESOLVE) or left as they are (KEEP)? */
enum config_secrets config_secrets_of(const struct config_loader *l, const struct config_key *key);
/* Checks and stores one value. A problem is reported and leaves the field as it was. */
void config_key_set(struct config_loader *l, const struct config_key *key, const char *text,
                    const struct config_origin *where);
/* For a check alone: the reference names a variable that is not there. */
void config_notice_unset(struct config_loader *l, const struct config_origin *where, const char *reference);

/* config_source.c: the file's text. */
#define CONFIG_FILE_MAX ((size_t) 256 << 10)
/* What a descriptor gives, at most `max` bytes. 0, -EFBIG, or another negative errno. */
int config_read_all(int fd, size_t max, struct strbuf *ret);
/* Reads a regular file of at most `max` bytes. Negative errno with `why` ("could not open …: reason"). */
int config_file_read(const char *path, size_t max, struct strbuf *ret, struct strbuf *why);
/* Rewrites what libconfig would misread and refuses what it must not see; -EINVAL when it must not be parsed.
 * *ret_open_string is the line of a string that runs over several lines, 0 for none: the likely cause of a
 * syntax error further down. */
int config_source_prepare(struct config_loader *l, const struct strbuf *source, struct strbuf *ret,
                          unsigned *ret_open_string);

/* config_reference.c: values that stand elsewhere. */
bool config_is_reference(const char *text);
bool config_is_unset_variable(const char *reference); /* "env:NAME" of a variable that this process lacks */
/* `text` is a reference. The value behind "credential:NAME", "file:/path" or "env:NAME" in `ret`; or with
 * `why` -ENOENT: it is not there to be read, or empty, which somebody else may mend; or -EINVAL. Under
 * CONFIG_SECRETS_KEEP only the reference itself is checked and `ret` stays empty, and under
 * CONFIG_SECRETS_CHECK whether a file can be read, too. */
int config_resolve(const char *text, enum config_secrets secrets, struct strbuf *ret, struct strbuf *why);

/* config_value.c: text and fields. */
union config_value {
    bool b;
    int i;
    double f;
    uint64_t u;
    const char *s;
};
/* -EINVAL with `why`, which quotes the text only when `quotable`. */
int config_value_parse(const struct config_key *key, const char *text, bool quotable, union config_value *ret,
                       struct strbuf *why);
/* Adds "must be …": the form of the key's values, with its default for an example where it has limits. */
void config_value_add_form(const struct config_key *key, struct strbuf *out);
bool config_is_text(const struct config_key *key);   /* its value is a string */
bool config_is_quoted(const struct config_key *key); /* its value stands in quotes in the file */
union config_value config_value_get(const struct config *c, const struct config_key *key);
void config_value_set(struct config *c, const struct config_key *key, union config_value value);
/* < 0, 0, > 0; no text and no properties. */
int config_value_compare(const struct config_key *key, union config_value a, union config_value b);
/* As the file spells it, without quotes; strings raw. */
void config_value_add(const struct config_key *key, union config_value value, struct strbuf *out);
struct config_properties *config_properties_of(struct config *c, const struct config_key *key);
const struct config_properties *config_properties_get(const struct config *c, const struct config_key *key);
void config_add_double(struct strbuf *out, double value); /* the shortest text that reads back as the same */
/* In double quotes, shortened, control characters replaced: for messages. */
void config_add_quoted(struct strbuf *out, const char *text);

/* config_check.c: strings with a shape of their own, as config_key.check. */
bool config_check_instance(const char *value, struct strbuf *why);
bool config_check_schema(const char *value, struct strbuf *why);
bool config_check_http_url(const char *value, struct strbuf *why);
bool config_check_http_urls(const char *value, struct strbuf *why);
bool config_check_proxy(const char *value, struct strbuf *why);
bool config_check_ca_file(const char *value, struct strbuf *why);
bool config_check_brokers(const char *value, struct strbuf *why);
bool config_check_topic_prefix(const char *value, struct strbuf *why);
bool config_check_not_empty(const char *value, struct strbuf *why);
bool config_check_address(const char *value, struct strbuf *why);
bool config_check_metric_prefix(const char *value, struct strbuf *why);

/* config_rules.c: combinations. */
void config_check_rules(struct config_loader *l);

/* config_conninfo.c: connection strings without their passwords, and Rails' parameters. */
/* The URL without the parameters that are Rails' own; *ret_dropped gets their names, ", " between them. */
void config_conninfo_drop_rails(const char *url, struct strbuf *out, struct strbuf *ret_dropped);
/* Any text that may be a URL, without userinfo's password and secret-looking parameters. */
void config_url_scrub(const char *text, struct strbuf *out);
/* A key's value without what is secret in it: a connection string's passwords, a webhook's path, or as
 * config_url_scrub(). */
void config_value_scrub(const struct config_key *key, const char *text, struct strbuf *out);
/* Named token, secret, password or the like, in any case. */
bool config_is_secret_name(const char *name, size_t len);

/* config_tree.c: libconfig's tree; the only file that includes the library. Every key that the text sets goes
 * through config_key_set() or config_property_set(). */
void config_tree_read(struct config_loader *l, const struct strbuf *text, unsigned open_string);

/* config_syntax.c: what keeps libconfig from understanding the text. False when no cause is found, else it is
 * reported. */
bool config_syntax_explain(struct config_loader *l, const char *text);

/* config_properties.c: librdkafka's own. `name` has '_' for '.', `value` is not yet resolved. */
void config_property_set(struct config_loader *l, const struct config_key *key, const char *name,
                         const char *value, const struct config_origin *where);
void config_properties_free(struct config_properties *properties);
bool config_properties_equal(const struct config_properties *a, const struct config_properties *b);
bool config_property_is_secret(const char *name);
/* The setting of this property that consumers receive, or NULL. */
const struct config_property *config_consumer_property(const struct config *c, const char *name);
