/* The configuration: an immutable, reference-counted snapshot, made whole or not at all.
 *
 * One table (config_table.c) says for each key its name, type, default, limits and whether a change needs a
 * restart; parsing, validation, environment, dump, reload and the documentation check derive from it. */
#pragma once

#include "base/strbuf.h"

/* Where both programs look when no option names another place. */
#define CONFIG_PATH "/etc/anubisd.conf"
#define CONFIG_ENVIRONMENT_PATH "/etc/default/anubisd"

/* One librdkafka property passed through from kafka.properties and the like, spelt with dots. */
struct config_property {
    char *name;
    char *value;
    char *reference; /* "credential:NAME" and the like when the value came from there, else NULL */
    unsigned line;   /* where the file sets it */
};
struct config_properties {
    struct config_property *items;
    size_t count;
};

enum config_remediation { REMEDIATION_NONE, REMEDIATION_PAUSE };

/* The read model of the group that counts, as its marks have it: verify reads them. */
#define CONFIG_INTEGRATION_MODEL "integration"

/* Times are microseconds, sizes bytes. Strings are never NULL; secrets are resolved. */
struct config {
    char *instance; /* host name when the file leaves it empty */
    int log_level;  /* syslog's */

    struct {
        char *conninfo;
        char *schema;
        uint64_t connect_timeout_usec, statement_timeout_usec;
    } database;
    struct {
        uint64_t poll_interval_usec;
        int batch_size, max_in_flight, max_in_flight_per_integration;
        uint64_t timeout_usec, connect_timeout_usec, lease_usec, drain_timeout_usec;
        uint64_t response_limit, max_claim_bytes;
        bool allow_http, allow_private_networks;
        char *ca_file, *proxy, *user_agent; /* "" = the default */
    } delivery;
    struct {
        int max_attempts;
        uint64_t base_delay_usec, max_delay_usec, max_age_usec;
    } retry;
    struct {
        int failure_threshold;
        uint64_t recovery_timeout_usec, max_recovery_timeout_usec;
    } circuit_breaker;
    struct {
        char *brokers, *client_id, *security_protocol;
        char *sasl_mechanism, *sasl_username, *sasl_password; /* "" = unset */
        char *topic_prefix;
        bool create_topics;
        int replication_factor; /* 0 = the broker's default */
        struct config_properties properties, producer_properties, consumer_properties;
    } kafka;
    struct {
        char *group_prefix;
        int threads;
        uint64_t session_timeout_usec, heartbeat_interval_usec;
        int max_poll_records;
        bool integration, monitoring, external;
    } consumers;
    struct {
        double failure_rate, resolve_rate;
        int min_samples;
        uint64_t window_usec, for_usec, repeat_interval_usec, backlog_age_usec;
        enum config_remediation remediation;
        char *webhook_url, *webhook_secret;
        char *alertmanager_urls; /* with a space between them */
    } alerts;
    struct {
        char *listen, *token;
    } status;
    struct {
        char *address, *prefix;
    } statsd;
    struct {
        uint64_t events_usec, dead_letters_usec;
    } retention;
    struct {
        char *signing_key; /* PEM; "" = checkpoints are not signed */
    } audit;
    struct config_origins *origins; /* where each value comes from: the config files' own business */
    unsigned refs;                  /* atomic; config_ref() and config_unref() only */
};

enum config_secrets {
    CONFIG_SECRETS_RESOLVE,  /* credential:, file: and env: are read; a missing one is an error */
    CONFIG_SECRETS_KEEP,     /* left as written: --dump-config */
    CONFIG_SECRETS_CHECK,    /* the same, but files must be there to be read: --check-config */
    CONFIG_SECRETS_DATABASE, /* only those of the group "database" are read: anubisctl, which needs no others
                              */
    CONFIG_SECRETS_KAFKA,    /* only those of the group "kafka": what asks Kafka besides */
};

/* The judgement of values that only a library of another room understands. NULL = not judged. */
struct config_judges {
    /* As pg_conninfo_check(): false with `why`, which continues a sentence that begins with the key. */
    bool (*conninfo)(const char *conninfo, struct strbuf *why);
    /* As http_check_ca_file(): the same for a file of certificates. */
    bool (*certificates)(const char *path, struct strbuf *why);
    /* The same for secrets that sign; `why` holds nothing of them. */
    bool (*signing)(const char *secrets, struct strbuf *why);
    /* The same for a private key that signs checkpoints. */
    bool (*note_key)(const char *pem, struct strbuf *why);
    /* As kafka_conf_check(): adds lines to `problems`; negative when it added any. Called also when there are
     * problems already: each wrong value is at its default or absent then. */
    int (*properties)(const struct config *c, const char *path, struct strbuf *problems);
    /* What is wrong is reported, and is at its default. */
    bool lenient;
};

/* Reads `path`, applies the environment and validates everything. 0 and a snapshot with one reference, or a
 * negative errno (of the file; -EAGAIN: all that is wrong is that secrets are not there, which may come; else
 * -EINVAL) with `problems` holding one "FILE:LINE: what is wrong, and what would be right" a line, all of
 * them at once ("environment NAME: …" where a variable is wrong), those of the judges too. `notices` gets
 * remarks that are no errors (Rails URL parameters dropped …), one a line. */
int config_load(struct config **ret, const char *path, enum config_secrets secrets,
                const struct config_judges *judges, struct strbuf *problems, struct strbuf *notices);
struct config *config_ref(struct config *c);
struct config *config_unref(struct config *c); /* returns NULL; NULL is legal */
void config_unrefp(struct config **c);

/* envfile.c: sets the variables of a file, as systemd's EnvironmentFile= reads it (systemd.exec(5)), that the
 * environment does not hold yet; of several assignments the last one counts. Before any other thread starts.
 * 0, also when there is no such file and it is not `needed`; else a negative errno with *err. */
int envfile_load(const char *path, bool needed, struct error *err);

/* The most bytes that a secret may have; so have the database's checks of what is written there. */
#define CONFIG_SECRET_MAX ((size_t) 64 << 10)
/* For secrets that stand in the database: the value behind "credential:NAME", or any other text as it is, of
 * at most CONFIG_SECRET_MAX bytes. -EINVAL with the reason in *err, which holds nothing of the value. "file:"
 * and "env:" are not followed there: whoever may write a row shall not read our files. */
int config_database_secret(const char *text, struct strbuf *ret, struct error *err);

/* The effective configuration in the file's own syntax, each key with a comment saying where its value comes
 * from; secrets as ***. */
void config_dump(const struct config *c, struct strbuf *out);
/* Names of the keys whose values differ, one a line: those a running daemon takes over, and those that need a
 * restart. */
void config_diff(const struct config *before, const struct config *after, struct strbuf *live,
                 struct strbuf *restart);
/* Names of the keys without effect in this version whose values are not the default, one a line. */
void config_unused(const struct config *c, struct strbuf *out);
/* The same as sentences with their places, for --check-config. */
void config_notice_unused(const struct config *c, struct strbuf *out);
/* Every key as the documentation check wants it, one a line: "group.key<TAB>default as the file spells
 * it<TAB>words", where words are "live" or "restart", and "unused" for what config_unused() would name. */
void config_list_keys(struct strbuf *out);
