/* librdkafka's properties, passed through but for those that correctness rests on or that have a key of their
 * own.
 *
 * Main thread, at load only. Whether librdkafka knows a property is for the Kafka adapter to say. */
#include <errno.h>
#include <string.h>

#include "config/config_internal.h"

/* Kafka must accept the largest message of the relay. */
#define MESSAGE_BYTES_MIN 1000000

struct refusal {
    const char *name; /* a final '*' stands for any rest */
    const char *reason;
};

#define RELAY "the relay's guarantee that no event is lost rests on it"
#define ORDER "the order of events rests on it"
#define OFFSETS "offsets are committed after the database, so that each event has its effect exactly once"
#define GROUPS "anubisd names its groups and their members itself; see consumers.group_prefix and instance"
#define HANDLING "anubisd decides itself how it is told about events and errors"

static const struct refusal refusals[] = {
    {"acks", RELAY},
    {"request.required.acks", RELAY},
    {"enable.idempotence", RELAY},
    {"message.timeout.ms", RELAY},
    {"delivery.timeout.ms", RELAY},
    {"retries", RELAY},
    {"message.send.max.retries", RELAY},
    {"delivery.report.only.error", RELAY},
    {"topic.blacklist", RELAY},
    {"test.mock.*", RELAY},
    {"max.in.flight", ORDER},
    {"max.in.flight.requests.per.connection", ORDER},
    {"queuing.strategy", ORDER},
    {"partitioner",
     "the relay computes the partition, so that an event published again goes to the partition where it was"},
    {"transactional.id", "the relay uses no transactions; events are recognised by their sequence"},
    {"transaction.timeout.ms", "the relay uses no transactions; events are recognised by their sequence"},
    {"isolation.level", "the relay uses no transactions; events are recognised by their sequence"},
    {"enable.auto.commit", OFFSETS},
    {"auto.commit.enable", OFFSETS},
    {"auto.commit.interval.ms", OFFSETS},
    {"enable.auto.offset.store", OFFSETS},
    {"offset.store.*", OFFSETS},
    {"auto.offset.reset", OFFSETS},
    {"group.id", GROUPS},
    {"group.instance.id", GROUPS},
    {"group.protocol*", GROUPS},
    {"group.remote.assignor", GROUPS},
    {"partition.assignment.strategy", "a partition moves only after its work is in the database"},
    {"enable.partition.eof", HANDLING},
    {"enabled.events", HANDLING},
    {"log.queue", HANDLING},
    {"internal.termination.signal", HANDLING},
    {"allow.auto.create.topics", "topics need their own number of partitions; use kafka.create_topics"},
    {"plugin.library.paths", "it would load foreign code into the daemon"},
    {"bootstrap.servers", "use kafka.brokers"},
    {"metadata.broker.list", "use kafka.brokers"},
    {"client.id", "use kafka.client_id"},
    {"security.protocol", "use kafka.security_protocol"},
    {"sasl.mechanism", "use kafka.sasl_mechanism"},
    {"sasl.mechanisms", "use kafka.sasl_mechanism"},
    {"sasl.username", "use kafka.sasl_username"},
    {"sasl.password", "use kafka.sasl_password"},
    {"session.timeout.ms", "use consumers.session_timeout"},
    {"heartbeat.interval.ms", "use consumers.heartbeat_interval"},
    {"log.level", "use log_level outside the groups"},
};

static bool matches(const char *pattern, const char *name)
{
    size_t len = strlen(pattern);

    if (pattern[len - 1] == '*')
        return strncmp(pattern, name, len - 1) == 0;
    return strcmp(pattern, name) == 0;
}

static const char *refusal_of(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(refusals); i++)
        if (matches(refusals[i].name, name))
            return refusals[i].reason;
    return NULL;
}

bool config_property_is_secret(const char *name)
{
    return config_is_secret_name(name, strlen(name)) || strstr(name, "key.pem") ||
           strcmp(name, "sasl.oauthbearer.config") == 0;
}

static char *with_dots(const char *name)
{
    char *dotted = xstrdup(name);

    for (char *p = dotted; (p = strchr(p, '_'));)
        *p = '.';
    return dotted;
}

static bool check_value(struct config_loader *l, const char *name, const char *value,
                        const struct config_origin *where)
{
    int64_t bytes;

    if (strlen(value) > CONFIG_SECRET_MAX) {
        config_problem(l, where, "property %s must have at most %zu KiB", name, CONFIG_SECRET_MAX >> 10);
        return false;
    }
    if (strcmp(name, "message.max.bytes") == 0 &&
        parse_i64(value, MESSAGE_BYTES_MIN, INT32_MAX, &bytes) < 0) {
        config_problem(l, where,
                       "property %s must be at least %d: an event that Kafka cannot take stops the relay",
                       name, MESSAGE_BYTES_MIN);
        return false;
    }
    return true;
}

static void append(struct config_properties *to, const char *name, const char *value, const char *reference,
                   unsigned line)
{
    to->items = xreallocarray(to->items, to->count + 1, sizeof(*to->items));
    to->items[to->count++] = (struct config_property){
        .name = xstrdup(name),
        .value = xstrdup(value),
        .reference = xstrdup(reference),
        .line = line,
    };
}

void config_property_set(struct config_loader *l, const struct config_key *key, const char *name,
                         const char *value, const struct config_origin *where)
{
    CLEANUP(strbuf_wipe) struct strbuf resolved = STRBUF_INIT(2 * CONFIG_SECRET_MAX);
    CLEANUP(strbuf_free) struct strbuf why = STRBUF_INIT(STRBUF_MAX_DEFAULT);
    CLEANUP(freep) char *dotted = with_dots(name);
    const char *refusal = refusal_of(dotted), *reference = config_is_reference(value) ? value : NULL;
    enum config_secrets secrets = config_secrets_of(l, key);

    if (refusal) {
        config_problem(l, where, "property %s cannot be set here: %s", dotted, refusal);
        return;
    }
    int r = reference ? config_resolve(reference, secrets, &resolved, &why) : 0;
    if (r < 0) {
        l->n_absent += r == -ENOENT;
        config_problem(l, where, "property %s: %s: %s", dotted, reference, strbuf_str(&why));
        return;
    }
    if (reference && secrets == CONFIG_SECRETS_RESOLVE)
        value = strbuf_str(&resolved);
    if (reference && secrets == CONFIG_SECRETS_CHECK)
        config_notice_unset(l, where, reference);
    if (value == reference || check_value(l, dotted, value, where))
        append(config_properties_of(l->config, key), dotted, value, reference, where->line);
}

void config_properties_free(struct config_properties *properties)
{
    for (size_t i = 0; i < properties->count; i++) {
        free(properties->items[i].name);
        free(properties->items[i].reference);
        free_secret(properties->items[i].value);
    }
    free(properties->items);
    *properties = (struct config_properties){0};
}

static const struct config_property *find(const struct config_properties *in, const char *name)
{
    for (size_t i = 0; i < in->count; i++)
        if (strcmp(in->items[i].name, name) == 0)
            return &in->items[i];
    return NULL;
}

bool config_properties_equal(const struct config_properties *a, const struct config_properties *b)
{
    if (a->count != b->count)
        return false;
    for (size_t i = 0; i < a->count; i++) {
        const struct config_property *other = find(b, a->items[i].name);

        if (!other || strcmp(other->value, a->items[i].value) != 0)
            return false;
    }
    return true;
}

const struct config_property *config_consumer_property(const struct config *c, const char *name)
{
    const struct config_property *own = find(&c->kafka.consumer_properties, name);

    return own ? own : find(&c->kafka.properties, name);
}
