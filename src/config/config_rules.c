/* Combinations of keys that cannot work. Main thread, at load only.
 *
 * Each value alone has passed already; a rule is skipped when one of its values is unknown, so that one
 * mistake gives one message. The place named is where an operator wrote something: the first key if he set
 * it, else the second. */
#include <string.h>

#include "base/timeutil.h"
#include "config/config_internal.h"

struct rule {
    const char *group;
    const char *key;
    enum { AT_MOST, LESS_THAN, AT_LEAST } relation;
    const char *other;  /* in the same group */
    uint64_t margin;    /* AT_LEAST: added to the other */
    bool spare_default; /* the rule does not judge the key's default */
    const char *reason;
};

static const struct rule rules[] = {
    {"delivery", "lease", AT_LEAST, "timeout", USEC_PER_SEC, false,
     "a request that is still running must not lose its lease"},
    {"delivery", "max_in_flight_per_integration", AT_MOST, "max_in_flight", 0, true,
     "one integration cannot have more than all together"},
    {"delivery", "connect_timeout", AT_MOST, "timeout", 0, true, "the whole request has no more time"},
    {"retry", "base_delay", AT_MOST, "max_delay", 0, false, "the first delay cannot pass the longest"},
    {"retry", "base_delay", AT_MOST, "max_age", 0, false, "nothing would ever be tried again"},
    {"circuit_breaker", "recovery_timeout", AT_MOST, "max_recovery_timeout", 0, false,
     "the first recovery time cannot pass the longest"},
    {"consumers", "heartbeat_interval", LESS_THAN, "session_timeout", 0, false,
     "a consumer would be put out of its group between two heartbeats; a third is usual"},
    {"alerts", "resolve_rate", LESS_THAN, "failure_rate", 0, false,
     "an alert would resolve and fire at the same rate"},
};

static bool rule_holds(const struct rule *rule, const struct config_key *key, union config_value value,
                       union config_value other)
{
    int order;

    other.u += key->type == TYPE_DURATION ? rule->margin : 0;
    order = config_value_compare(key, value, other);
    switch (rule->relation) {
    case AT_MOST:
        return order <= 0;
    case LESS_THAN:
        return order < 0;
    case AT_LEAST:
        return order >= 0;
    }
    return true;
}

static void add_operand(const struct config_key *key, union config_value value,
                        const struct config_origin *origin, struct strbuf *out)
{
    config_key_add_name(key, out);
    strbuf_adds(out, " (");
    config_value_add(key, value, out);
    strbuf_adds(out, origin->source == SOURCE_DEFAULT ? ", the default)" : ")");
}

static void report_rule(struct config_loader *l, const struct rule *rule, const struct config_key *key,
                        const struct config_key *other)
{
    static const char *const words[] = {
        [AT_MOST] = "must be at most",
        [LESS_THAN] = "must be less than",
        [AT_LEAST] = "must be at least",
    };
    struct strbuf text CLEANUP(strbuf_free) = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    const struct config_origin *origin = config_origin(l->config, key);
    const struct config_origin *other_origin = config_origin(l->config, other);

    add_operand(key, config_value_get(l->config, key), origin, &text);
    strbuf_addf(&text, " %s ", words[rule->relation]);
    if (rule->margin > 0) {
        strbuf_add_duration(&text, rule->margin);
        strbuf_adds(&text, " more than ");
    }
    add_operand(other, config_value_get(l->config, other), other_origin, &text);
    config_problem(l, origin->source == SOURCE_DEFAULT ? other_origin : origin, "%s: %s", strbuf_str(&text),
                   rule->reason);
}

static void check_rule(struct config_loader *l, const struct rule *rule)
{
    const struct config_key *key = config_key_find(rule->group, rule->key);
    const struct config_key *other = config_key_find(rule->group, rule->other);
    const struct config_origin *origin = config_origin(l->config, key);

    if (origin->unknown || config_origin(l->config, other)->unknown)
        return;
    if (rule->spare_default && origin->source == SOURCE_DEFAULT)
        return;
    if (!rule_holds(rule, key, config_value_get(l->config, key), config_value_get(l->config, other)))
        report_rule(l, rule, key, other);
}

static bool is_unknown(const struct config *c, const char *group, const char *name)
{
    return config_origin(c, config_key_find(group, name))->unknown;
}

static void check_sasl_credentials(struct config_loader *l, const struct config_origin *where)
{
    const struct config *c = l->config;
    const char *mechanism = c->kafka.sasl_mechanism;

    if (strcmp(mechanism, "PLAIN") != 0 && strncmp(mechanism, "SCRAM", 5) != 0)
        return;
    if (!*c->kafka.sasl_username && !is_unknown(c, "kafka", "sasl_username"))
        config_problem(l, where, "kafka.sasl_username must be set: sasl_mechanism \"%s\" sends it",
                       mechanism);
    if (!*c->kafka.sasl_password && !is_unknown(c, "kafka", "sasl_password"))
        config_problem(l, where, "kafka.sasl_password must be set: sasl_mechanism \"%s\" needs it",
                       mechanism);
}

static void check_sasl(struct config_loader *l)
{
    const struct config *c = l->config;
    const struct config_origin *protocol = config_origin(c, config_key_find("kafka", "security_protocol"));
    bool uses_sasl = strncmp(c->kafka.security_protocol, "sasl_", 5) == 0;

    if (protocol->unknown || is_unknown(c, "kafka", "sasl_mechanism"))
        return;
    if (!uses_sasl) {
        /* A notice only: the Rails application's settings name a mechanism even when SASL is not used. */
        if (*c->kafka.sasl_mechanism || *c->kafka.sasl_username)
            config_notice(l, protocol,
                          "kafka.sasl_mechanism and the like have no effect: security_protocol is \"%s\"",
                          c->kafka.security_protocol);
    } else if (!*c->kafka.sasl_mechanism) {
        config_problem(
            l, protocol,
            "kafka.sasl_mechanism must be set, to \"SCRAM-SHA-512\" for example: security_protocol is \"%s\"",
            c->kafka.security_protocol);
    } else {
        check_sasl_credentials(l, protocol);
    }
}

/* librdkafka leaves out a broker whose protocol is another one. */
static void check_broker_protocols(struct config_loader *l)
{
    const struct config *c = l->config;
    const struct config_key *key = config_key_find("kafka", "brokers");
    const char *protocol = c->kafka.security_protocol;

    if (config_origin(c, key)->unknown || config_origin(c, key)->reference ||
        is_unknown(c, "kafka", "security_protocol"))
        return;
    for (const char *p = c->kafka.brokers; *p; p += strspn(p, ", ")) {
        size_t item = strcspn(p, ","), scheme = strcspn(p, ":,");
        bool has_scheme = strncmp(p + scheme, "://", 3) == 0;
        if (has_scheme && (strlen(protocol) != scheme || strncasecmp(p, protocol, scheme) != 0)) {
            config_problem(
                l, config_origin(c, key),
                "kafka.brokers names a broker as \"%.*s://\", but kafka.security_protocol is \"%s\": "
                "leave the protocol out there, and set security_protocol",
                (int) scheme, p, protocol);
            return;
        }
        p += item;
    }
}

/* librdkafka refuses the combination, but only when the consumer starts. */
static void check_poll_interval(struct config_loader *l)
{
    const struct config_property *p = config_consumer_property(l->config, "max.poll.interval.ms");
    int64_t ms;

    if (!p || p->reference || is_unknown(l->config, "consumers", "session_timeout"))
        return;
    /* librdkafka itself refuses a text that is not a number. */
    if (parse_i64(p->value, 1, INT32_MAX, &ms) == 0 &&
        (uint64_t) ms * USEC_PER_MSEC < l->config->consumers.session_timeout_usec)
        config_problem_line(l, p->line,
                            "property max.poll.interval.ms must be at least consumers.session_timeout");
}

void config_check_rules(struct config_loader *l)
{
    for (size_t i = 0; i < ARRAY_SIZE(rules); i++)
        check_rule(l, &rules[i]);
    check_sasl(l);
    check_broker_protocols(l);
    check_poll_interval(l);
}
