/* The table of configuration keys: the one place that knows their names, types, defaults and limits.
 *
 * Constant; any thread. To add a key: a field in config.h, a line here, a line in etc/anubisd.conf and an
 * entry in man/anubisd.conf.5 (tests/check-conf-docs holds the last two to this table). */
#include <string.h>
#include <syslog.h>

#include "config/config_internal.h"

#define AT(field) offsetof(struct config, field)
#define RANGE(least, most) .min = (least), .max = (most)

static const struct config_choice log_levels[] = {
    {"debug", LOG_DEBUG},     {"info", LOG_INFO}, {"notice", LOG_NOTICE},
    {"warning", LOG_WARNING}, {"error", LOG_ERR}, {NULL, 0},
};
static const struct config_choice security_protocols[] = {
    {"plaintext", 0}, {"ssl", 0}, {"sasl_plaintext", 0}, {"sasl_ssl", 0}, {NULL, 0},
};
static const struct config_choice sasl_mechanisms[] = {
    {"", 0},   {"PLAIN", 0}, {"SCRAM-SHA-256", 0}, {"SCRAM-SHA-512", 0}, {"GSSAPI", 0}, {"OAUTHBEARER", 0},
    {NULL, 0},
};
static const struct config_choice remediations[] = {
    {"none", REMEDIATION_NONE},
    {"pause", REMEDIATION_PAUSE},
    {NULL, 0},
};

/* clang-format off */
const struct config_key config_keys[] = {
    {"", "instance",  TYPE_STRING, AT(instance),  "", .check = config_check_instance, .flags = KEY_RESTART},
    {"", "log_level", TYPE_CHOICE, AT(log_level), "info", .choices = log_levels},

    {"database", "conninfo", TYPE_STRING, AT(database.conninfo), "dbname=anubis",
     .environment = "DATABASE_URL", .flags = KEY_RESTART | KEY_CONNINFO},
    {"database", "schema", TYPE_STRING, AT(database.schema), "anubis",
     .check = config_check_schema, .flags = KEY_RESTART},
    {"database", "connect_timeout", TYPE_DURATION, AT(database.connect_timeout_usec), "10s",
     RANGE("100ms", "10m"), .flags = KEY_RESTART},
    {"database", "statement_timeout", TYPE_DURATION, AT(database.statement_timeout_usec), "30s",
     RANGE("100ms", "1h"), .flags = KEY_RESTART},

    {"delivery", "poll_interval", TYPE_DURATION, AT(delivery.poll_interval_usec), "1s", RANGE("10ms", "5m")},
    {"delivery", "batch_size", TYPE_INT, AT(delivery.batch_size), "500", RANGE("1", "10000")},
    {"delivery", "max_in_flight", TYPE_INT, AT(delivery.max_in_flight), "512", RANGE("1", "16384")},
    {"delivery", "max_in_flight_per_integration", TYPE_INT, AT(delivery.max_in_flight_per_integration), "32",
     RANGE("1", "16384")},
    {"delivery", "timeout", TYPE_DURATION, AT(delivery.timeout_usec), "30s", RANGE("100ms", "1h")},
    {"delivery", "connect_timeout", TYPE_DURATION, AT(delivery.connect_timeout_usec), "5s",
     RANGE("10ms", "10m")},
    {"delivery", "lease", TYPE_DURATION, AT(delivery.lease_usec), "90s", RANGE("1s", "1d")},
    {"delivery", "drain_timeout", TYPE_DURATION, AT(delivery.drain_timeout_usec), "35s", RANGE("0s", "1h")},
    {"delivery", "response_limit", TYPE_SIZE, AT(delivery.response_limit), "64KiB", RANGE("1KiB", "1MiB")},
    {"delivery", "max_claim_bytes", TYPE_SIZE, AT(delivery.max_claim_bytes), "16MiB", RANGE("64KiB", "1GiB")},
    {"delivery", "allow_http", TYPE_BOOL, AT(delivery.allow_http), .fallback = "false"},
    {"delivery", "allow_private_networks", TYPE_BOOL, AT(delivery.allow_private_networks),
     .fallback = "false"},
    {"delivery", "ca_file", TYPE_STRING, AT(delivery.ca_file), "", .check = config_check_ca_file,
     .flags = KEY_CERTIFICATES},
    {"delivery", "proxy", TYPE_STRING, AT(delivery.proxy), "", .check = config_check_proxy},
    {"delivery", "user_agent", TYPE_STRING, AT(delivery.user_agent), .fallback = ""},

    {"retry", "max_attempts", TYPE_INT, AT(retry.max_attempts), "100", RANGE("1", "1000")},
    {"retry", "base_delay", TYPE_DURATION, AT(retry.base_delay_usec), "30s", RANGE("1ms", "30d")},
    {"retry", "max_delay", TYPE_DURATION, AT(retry.max_delay_usec), "1h", RANGE("1ms", "30d")},
    {"retry", "max_age", TYPE_DURATION, AT(retry.max_age_usec), "3d", RANGE("1s", "3650d")},

    {"circuit_breaker", "failure_threshold", TYPE_INT, AT(circuit_breaker.failure_threshold), "5",
     RANGE("1", "100000")},
    {"circuit_breaker", "recovery_timeout", TYPE_DURATION, AT(circuit_breaker.recovery_timeout_usec), "30s",
     RANGE("100ms", "30d")},
    {"circuit_breaker", "max_recovery_timeout", TYPE_DURATION,
     AT(circuit_breaker.max_recovery_timeout_usec), "10m",
     RANGE("100ms", "30d")},

    {"kafka", "brokers", TYPE_STRING, AT(kafka.brokers), "localhost:9092",
     .check = config_check_brokers, .environment = "KAFKA_BROKERS", .flags = KEY_RESTART},
    {"kafka", "client_id", TYPE_STRING, AT(kafka.client_id), "anubisd",
     .check = config_check_not_empty, .environment = "KAFKA_CLIENT_ID", .flags = KEY_RESTART},
    {"kafka", "security_protocol", TYPE_WORD, AT(kafka.security_protocol), "plaintext",
     .choices = security_protocols, .environment = "KAFKA_SECURITY_PROTOCOL", .flags = KEY_RESTART},
    {"kafka", "sasl_mechanism", TYPE_WORD, AT(kafka.sasl_mechanism), "",
     .choices = sasl_mechanisms, .environment = "KAFKA_SECURITY_MECHANISM", .flags = KEY_RESTART},
    {"kafka", "sasl_username", TYPE_STRING, AT(kafka.sasl_username), "",
     .environment = "KAFKA_SECURITY_USERNAME", .flags = KEY_RESTART},
    {"kafka", "sasl_password", TYPE_STRING, AT(kafka.sasl_password), "",
     .environment = "KAFKA_SECURITY_PASSWORD", .flags = KEY_RESTART | KEY_SECRET},
    {"kafka", "topic_prefix", TYPE_STRING, AT(kafka.topic_prefix), "anubis.",
     .check = config_check_topic_prefix, .flags = KEY_RESTART},
    {"kafka", "create_topics", TYPE_BOOL, AT(kafka.create_topics), "true", .flags = KEY_RESTART},
    {"kafka", "replication_factor", TYPE_INT, AT(kafka.replication_factor), "0", RANGE("0", "100"),
     .flags = KEY_RESTART},
    {"kafka", "properties", TYPE_PROPERTIES, AT(kafka.properties), "{ }", .flags = KEY_RESTART},
    {"kafka", "producer_properties", TYPE_PROPERTIES, AT(kafka.producer_properties), "{ }",
     .flags = KEY_RESTART},
    {"kafka", "consumer_properties", TYPE_PROPERTIES, AT(kafka.consumer_properties), "{ }",
     .flags = KEY_RESTART},

    {"consumers", "group_prefix", TYPE_STRING, AT(consumers.group_prefix), "anubis",
     .check = config_check_not_empty, .environment = "KAFKA_GROUP_ID", .flags = KEY_RESTART},
    {"consumers", "threads", TYPE_INT, AT(consumers.threads), "1", RANGE("1", "64"), .flags = KEY_RESTART},
    {"consumers", "session_timeout", TYPE_DURATION, AT(consumers.session_timeout_usec), "30s",
     RANGE("1s", "5m"), .environment = "KAFKA_SESSION_TIMEOUT", .flags = KEY_RESTART},
    {"consumers", "heartbeat_interval", TYPE_DURATION, AT(consumers.heartbeat_interval_usec), "10s",
     RANGE("100ms", "5m"), .environment = "KAFKA_HEARTBEAT_INTERVAL", .flags = KEY_RESTART},
    {"consumers", "max_poll_records", TYPE_INT, AT(consumers.max_poll_records), "500",
     RANGE("1", "100000"), .environment = "KAFKA_MAX_POLL_RECORDS", .flags = KEY_RESTART},
    {"consumers", "integration", TYPE_BOOL, AT(consumers.integration), "true", .flags = KEY_RESTART},
    {"consumers", "monitoring", TYPE_BOOL, AT(consumers.monitoring), "true", .flags = KEY_RESTART},
    {"consumers", "external", TYPE_BOOL, AT(consumers.external), "true", .flags = KEY_RESTART},

    {"alerts", "failure_rate", TYPE_FLOAT, AT(alerts.failure_rate), "0.5",
     RANGE("0.01", "0.9")},
    {"alerts", "resolve_rate", TYPE_FLOAT, AT(alerts.resolve_rate), "0.25",
     RANGE("0.001", "0.9")},
    {"alerts", "min_samples", TYPE_INT, AT(alerts.min_samples), "5",
     RANGE("1", "1000000")},
    {"alerts", "window", TYPE_DURATION, AT(alerts.window_usec), "5m", RANGE("10s", "1d")},
    {"alerts", "for", TYPE_DURATION, AT(alerts.for_usec), "0s", RANGE("0s", "1d")},
    {"alerts", "repeat_interval", TYPE_DURATION, AT(alerts.repeat_interval_usec), "4h", RANGE("1s", "30d")},
    {"alerts", "backlog_age", TYPE_DURATION, AT(alerts.backlog_age_usec), "15m", RANGE("1s", "30d")},
    {"alerts", "remediation", TYPE_CHOICE, AT(alerts.remediation), "none", .choices = remediations},
    {"alerts", "webhook_url", TYPE_STRING, AT(alerts.webhook_url), "", .check = config_check_http_url,
     .flags = KEY_WEBHOOK},
    {"alerts", "webhook_secret", TYPE_STRING, AT(alerts.webhook_secret), "",
     .flags = KEY_SECRET | KEY_SIGNING},
    {"alerts", "alertmanager_urls", TYPE_URLS, AT(alerts.alertmanager_urls), "",
     .check = config_check_http_urls, .flags = KEY_WEBHOOK},

    {"status", "listen", TYPE_STRING, AT(status.listen), "127.0.0.1:9617", .check = config_check_address,
     .flags = KEY_RESTART | KEY_UNUSED},
    {"status", "token", TYPE_STRING, AT(status.token), "", .flags = KEY_SECRET | KEY_UNUSED},

    {"statsd", "address", TYPE_STRING, AT(statsd.address), "", .check = config_check_address,
     .flags = KEY_UNUSED},
    {"statsd", "prefix", TYPE_STRING, AT(statsd.prefix), "anubis", .check = config_check_metric_prefix,
     .flags = KEY_UNUSED},

    {"retention", "events", TYPE_DURATION, AT(retention.events_usec), "400d", RANGE("1h", "36500d")},
    {"retention", "dead_letters", TYPE_DURATION, AT(retention.dead_letters_usec), "90d",
     RANGE("1h", "36500d")},

    {"audit", "signing_key", TYPE_STRING, AT(audit.signing_key), "", .flags = KEY_SECRET | KEY_NOTE_KEY},
};
/* clang-format on */
const size_t config_keys_count = ARRAY_SIZE(config_keys);

const struct config_key *config_key_find(const char *group, const char *name)
{
    for (size_t i = 0; i < config_keys_count; i++)
        if (strcmp(config_keys[i].group, group) == 0 && strcmp(config_keys[i].name, name) == 0)
            return &config_keys[i];
    return NULL;
}

bool config_group_exists(const char *group)
{
    for (size_t i = 0; i < config_keys_count; i++)
        if (*config_keys[i].group && strcmp(config_keys[i].group, group) == 0)
            return true;
    return false;
}

void config_key_add_name(const struct config_key *key, struct strbuf *out)
{
    if (*key->group)
        strbuf_addf(out, "%s.", key->group);
    strbuf_adds(out, key->name);
}
