/* The librdkafka configuration made from ours. See kafka_conf.h.
 *
 * Any thread. The client library's messages go to our journal from the library's own threads. */
#include "kafka/kafka_conf.h"

#include <errno.h>
#include <librdkafka/rdkafka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/timeutil.h"
#include "kafka/kafka_fault.h"

struct setting {
    const char *name, *value;
    const char *alias; /* librdkafka's other name of the property */
};

/* Our defaults for the producer: kafka.properties and kafka.producer_properties override them. */
static const struct setting producer_defaults[] = {
    {"compression.codec", "lz4", "compression.type"},
    /* While a batch is handed over: its end is said, kafka_producer_flush(). */
    {"linger.ms", "20", "queue.buffering.max.ms"},
    /* The relay sends a batch and waits: this bounds one batch, not an endless queue. */
    {"queue.buffering.max.messages", "100000", NULL},
    {"queue.buffering.max.kbytes", "131072", NULL},
    {"socket.nagle.disable", "true", NULL},
    {NULL, NULL, NULL},
};

/* The guarantees depend on these: the configuration refuses them as properties. */
static const struct setting producer_fixed[] = {
    {"enable.idempotence", "true", NULL},
    {"enable.gapless.guarantee", "true", NULL},
    {"acks", "all", NULL},
    {"message.timeout.ms", "0", NULL},
    {NULL, NULL, NULL},
};

#define FETCH_MAX "fetch.max.bytes"

/* Our defaults for consumers: kafka.properties and kafka.consumer_properties override them. */
static const struct setting consumer_defaults[] = {
    /* Memory: messages that are fetched and not read yet, and the size of one more answer. */
    {"queued.max.messages.kbytes", "1024", NULL},
    {"queued.min.messages", "20000", NULL},
    {FETCH_MAX, "1048576", NULL},
    {"max.partition.fetch.bytes", "524288", NULL},
    /* An answer that brings little costs all parts nearly as much as one that brings much, so it waits for
     * more: for a quarter of a second, which is no lag that anybody sees. */
    {"fetch.min.bytes", "65536", NULL},
    {"fetch.wait.max.ms", "250", NULL},
    /* New topics and partitions are found this soon. */
    {"topic.metadata.refresh.interval.ms", "30000", NULL},
    /* The thread may wait for the database meanwhile, up to its statement_timeout. */
    {"max.poll.interval.ms", "600000", NULL},
#if RD_KAFKA_VERSION >= 0x020200ff
    /* How soon a queue that was full is filled again; see wake_fetcher(). */
    {"fetch.queue.backoff.ms", "10", NULL},
#endif
    {NULL, NULL, NULL},
};

/* Exactly-once effects depend on these: the configuration refuses them as properties. */
static const struct setting consumer_fixed[] = {
    {"enable.auto.commit", "false", NULL},
    {"enable.auto.offset.store", "false", NULL},
    /* When the log does not have our offset, the caller decides where to go on, and says so. */
    {"auto.offset.reset", "error", NULL},
    {"partition.assignment.strategy", "cooperative-sticky", NULL},
    {"enable.partition.eof", "false", NULL},
    {NULL, NULL, NULL},
};

static const struct {
    rd_kafka_type_t type;
    int events;
    const struct setting *defaults, *fixed;
} roles[] = {
    [KAFKA_PRODUCER] = {RD_KAFKA_PRODUCER, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR, producer_defaults,
                        producer_fixed},
    [KAFKA_CONSUMER] = {RD_KAFKA_CONSUMER, RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_ERROR, consumer_defaults,
                        consumer_fixed},
};

static const struct config_properties *properties_of(const struct config *config, enum kafka_role role)
{
    return role == KAFKA_PRODUCER ? &config->kafka.producer_properties : &config->kafka.consumer_properties;
}

/* --- setting ---------------------------------------------------------------------------------- */

/* The value must not be shown; librdkafka's reasons quote it. */
static bool is_private(const struct config_property *property)
{
    static const char *const parts[] = {"password", "secret", "token", "pem", "key", "oauthbearer"};

    for (size_t i = 0; i < ARRAY_SIZE(parts); i++)
        if (strstr(property->name, parts[i]))
            return true;
    return property->reference != NULL;
}

static int set(rd_kafka_conf_t *conf, const char *name, const char *value, struct error *err)
{
    char reason[512];

    if (rd_kafka_conf_set(conf, name, value, reason, sizeof(reason)) == RD_KAFKA_CONF_OK)
        return 0;
    error_set(err, "cannot set the Kafka property \"%s\": %s", name, reason);
    return -EINVAL;
}

/* librdkafka takes the digits that a number begins with, and of those as many bits as it has room for: 5000
 * for "5000ms" and for 4294972296. Fractions come back with six digits. */
static int check_taken(const rd_kafka_conf_t *conf, const struct config_property *property, struct error *err)
{
    char taken[64], *end, *value_end;
    size_t size = sizeof(taken);

    if (rd_kafka_conf_get(conf, property->name, taken, &size) != RD_KAFKA_CONF_OK ||
        strcmp(taken, property->value) == 0)
        return 0;
    double number = strtod(taken, &end), value = strtod(property->value, &value_end);
    bool is_number = end != taken && *end == '\0';
    bool is_same =
        value_end != property->value && *value_end == '\0' && fabs(number - value) <= 1e-5 * fabs(value);
    if (!is_number || is_same)
        return 0;
    error_set(
        err,
        "cannot set the Kafka property \"%s\": it is a number, of which librdkafka would take \"%s\" as %s",
        property->name, property->value, taken);
    return -EINVAL;
}

static int set_property(rd_kafka_conf_t *conf, const struct config_property *property, struct error *err)
{
    int r = set(conf, property->name, property->value, err);

    if (r == 0)
        r = check_taken(conf, property, err);
    if (r < 0 && is_private(property))
        error_set(err, "cannot set the Kafka property \"%s\": librdkafka refuses its value", property->name);
    return r;
}

static int set_properties(rd_kafka_conf_t *conf, const struct config_properties *properties,
                          struct error *err)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < properties->count; i++)
        r = set_property(conf, &properties->items[i], err);
    return r;
}

static bool contains(const struct config_properties *properties, const struct setting *setting)
{
    for (size_t i = 0; i < properties->count; i++)
        if (strcmp(properties->items[i].name, setting->name) == 0 ||
            (setting->alias && strcmp(properties->items[i].name, setting->alias) == 0))
            return true;
    return false;
}

static int set_common(rd_kafka_conf_t *conf, const struct config *config, struct error *err)
{
    char level[2] = {(char) ('0' + config->log_level), '\0'};
    const struct kafka_setting settings[] = {
        {"bootstrap.servers", config->kafka.brokers},
        {"client.id", config->kafka.client_id},
        {"security.protocol", config->kafka.security_protocol},
        {"sasl.mechanism", config->kafka.sasl_mechanism},
        {"sasl.username", config->kafka.sasl_username},
        {"sasl.password", config->kafka.sasl_password},
        {"log_level", level},
        {"log.connection.close", "false"},
        {"socket.keepalive.enable", "true"},
        /* Topics need their own number of partitions: the relay creates them. */
        {"allow.auto.create.topics", "false"},
    };
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(settings); i++)
        if (*settings[i].value)
            r = set(conf, settings[i].name, settings[i].value, err);
    return r;
}

static int set_ms(rd_kafka_conf_t *conf, const char *name, uint64_t usec, struct error *err)
{
    CLEANUP(freep) char *value = xasprintf("%llu", (unsigned long long) (usec / USEC_PER_MSEC));

    return set(conf, name, value, err);
}

static int set_role(rd_kafka_conf_t *conf, const struct config *config, enum kafka_role role,
                    struct error *err)
{
    int r = 0;

    for (const struct setting *s = roles[role].defaults; r == 0 && s->name; s++)
        if (!contains(&config->kafka.properties, s) && !contains(properties_of(config, role), s))
            r = set(conf, s->name, s->value, err);
    for (const struct setting *s = roles[role].fixed; r == 0 && s->name; s++)
        r = set(conf, s->name, s->value, err);
    if (r == 0 && role == KAFKA_CONSUMER)
        r = set_ms(conf, "session.timeout.ms", config->consumers.session_timeout_usec, err);
    if (r == 0 && role == KAFKA_CONSUMER)
        r = set_ms(conf, "heartbeat.interval.ms", config->consumers.heartbeat_interval_usec, err);
    return r;
}

/* librdkafka refuses an answer's limit below that of one message, which somebody may have raised. */
static int fit_fetch(rd_kafka_conf_t *conf, struct error *err)
{
    char message[32] = "", answer[32] = "";
    size_t size = sizeof(message), answer_size = sizeof(answer);

    (void) rd_kafka_conf_get(conf, "message.max.bytes", message, &size);
    (void) rd_kafka_conf_get(conf, FETCH_MAX, answer, &answer_size);
    return atoll(message) > atoll(answer) ? set(conf, FETCH_MAX, message, err) : 0;
}

/* --- the whole -------------------------------------------------------------------------------- */

/* Each thread of the library reports each try to reach a broker, and what made the client useless; the user
 * of the client reports it once. Offsets are committed for others to see, each second. */
static bool is_noise(const char *facility, const char *text)
{
    return strcmp(facility, "FAIL") == 0 || strcmp(facility, "ERROR") == 0 ||
           strcmp(facility, "GETPID") == 0 || strcmp(facility, "FATAL") == 0 ||
           strcmp(facility, "COMMITFAIL") == 0 || strcmp(facility, "SSLCERTVRFY") == 0 ||
           strstr(text, "enable.gapless.guarantee is experimental") ||
           /* The broker is an imitation. */
           strstr(text, "allow.auto.create.topics=false not supported by broker");
}

/* Each connection, thread and request of the library has lines of its own about a broker that hangs, with
 * other numbers in each. As one sentence they are folded. */
static const struct {
    const char *facility, *words;
} hangs[] = {
    {"REQTMOUT", "leaves requests without an answer"},
    {"APIVERSION", "leaves a new connection without an answer, or is older than Kafka 0.10"},
};

/* "[thrd:NAME]: NAME/ID: words": the first NAME, without "/bootstrap". False: it is not about a hang. */
static bool say_hang(const char *facility, const char *text)
{
    const char *name = strchr(text, ':');

    for (size_t i = 0; name && i < ARRAY_SIZE(hangs); i++)
        if (strncmp(text, "[thrd:", 6) == 0 && strcmp(facility, hangs[i].facility) == 0) {
            name++;
            log_warning("Kafka client: the broker at %.*s %s", (int) strcspn(name, "/]"), name,
                        hangs[i].words);
            return true;
        }
    return false;
}

static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    (void) rk;
    if (level > LOG_WARNING || is_noise(facility, text) || say_hang(facility, text))
        log_debug("Kafka client: %s: %s", facility, text);
    else
        log_warning("Kafka client: %s", text);
}

static int make_conf(rd_kafka_conf_t **ret, const struct config *config, enum kafka_role role,
                     const struct kafka_setting *own, struct error *err)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    int r = set_common(conf, config, err);

    if (r == 0)
        r = set_properties(conf, &config->kafka.properties, err);
    if (r == 0)
        r = set_properties(conf, properties_of(config, role), err);
    if (r == 0)
        r = set_role(conf, config, role, err);
    if (r == 0 && role == KAFKA_CONSUMER)
        r = fit_fetch(conf, err);
    for (; r == 0 && own->name; own++)
        if (own->value)
            r = set(conf, own->name, own->value, err);
    if (r < 0) {
        rd_kafka_conf_destroy(conf);
        return r;
    }
    rd_kafka_conf_set_log_cb(conf, on_log);
    rd_kafka_conf_set_events(conf, roles[role].events);
    *ret = conf;
    return 0;
}

int kafka_client_new(rd_kafka_t **ret, const struct config *config, enum kafka_role role,
                     const struct kafka_setting *own, struct error *err)
{
    rd_kafka_conf_t *conf;
    char reason[512];
    int r = make_conf(&conf, config, role, own, err);

    if (r < 0)
        return r;
    struct kafka_fault *fault = kafka_fault_watch(conf);
    *ret = rd_kafka_new(roles[role].type, conf, reason, sizeof(reason));
    if (*ret)
        return 0;
    free(fault);
    error_set(err, "could not start the Kafka client: %s", reason);
    rd_kafka_conf_destroy(conf);
    return -EINVAL;
}

void kafka_client_free(rd_kafka_t *rk, int flags)
{
    void *fault = rd_kafka_opaque(rk);

    rd_kafka_destroy_flags(rk, flags);
    free(fault);
}

int kafka_client_check(const struct config *config, enum kafka_role role, struct error *err)
{
    rd_kafka_conf_t *conf;
    int r = make_conf(&conf, config, role, &(struct kafka_setting){0}, err);

    if (r == 0)
        rd_kafka_conf_destroy(conf);
    return r;
}

/* Certificates and keys: the library looks at them when a client begins, and no sooner. */
static int check_file(const struct config_property *property, struct error *err)
{
    size_t len = strlen(property->name), end = strlen(".location");
    bool is_file = strncmp(property->name, "ssl.", 4) == 0 && len > end &&
                   strcmp(property->name + len - end, ".location") == 0;

    if (!is_file || strcmp(property->value, "probe") == 0 || access(property->value, R_OK) == 0)
        return 0;
    error_set(err, "property %s must name a file that can be read: %s", property->name, strerror(errno));
    return -EINVAL;
}

int kafka_conf_check(const struct config *config, const char *path, struct strbuf *problems)
{
    const struct config_properties *lists[] = {&config->kafka.properties, &config->kafka.producer_properties,
                                               &config->kafka.consumer_properties};
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    struct error err;
    int r = set_common(conf, config, &err);

    if (r < 0)
        strbuf_addf(problems, "%s: %s\n", path, err.text);
    for (size_t l = 0; l < ARRAY_SIZE(lists); l++)
        for (size_t i = 0; i < lists[l]->count; i++) {
            const struct config_property *property = &lists[l]->items[i];
            if (property->reference ||
                (set_property(conf, property, &err) == 0 && check_file(property, &err) == 0))
                continue;
            strbuf_addf(problems, "%s:%u: %s\n", path, property->line, err.text);
            r = -EINVAL;
        }
    rd_kafka_conf_destroy(conf);
    return r;
}
