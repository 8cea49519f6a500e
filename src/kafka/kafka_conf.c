/* The librdkafka configuration made from ours. See kafka_conf.h.
 *
 * Any thread. What this client library says goes to our journal from its own threads. Policy of producers and
 * consumers is theirs: they set what they rest on after this. */
#include "kafka/kafka_conf.h"

#include <errno.h>
#include <librdkafka/rdkafka.h>
#include <string.h>

#include "base/log.h"

/* Words for a property whose value must not be shown: librdkafka's reasons quote it. */
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

static int set_property(rd_kafka_conf_t *conf, const struct config_property *property, struct error *err)
{
    int r = set(conf, property->name, property->value, err);

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

static int set_common(rd_kafka_conf_t *conf, const struct config *config, struct error *err)
{
    char level[2] = {(char) ('0' + config->log_level), '\0'};
    const struct {
        const char *name, *value;
    } settings[] = {
        {"bootstrap.servers", config->kafka.brokers},
        {"client.id", config->kafka.client_id},
        {"security.protocol", config->kafka.security_protocol},
        {"sasl.mechanism", config->kafka.sasl_mechanism},
        {"sasl.username", config->kafka.sasl_username},
        {"sasl.password", config->kafka.sasl_password},
        {"log_level", level},
        {"log.connection.close", "false"},
        {"socket.keepalive.enable", "true"},
        /* Topics need their own number of partitions: the relay makes them. */
        {"allow.auto.create.topics", "false"},
    };
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(settings); i++)
        if (*settings[i].value)
            r = set(conf, settings[i].name, settings[i].value, err);
    return r;
}

/* That brokers come and go, or take their time, is told once by whoever uses the client, not at each try by
 * each of its threads. */
static bool is_noise(const char *facility, const char *text)
{
    return strcmp(facility, "FAIL") == 0 || strcmp(facility, "ERROR") == 0 ||
           strcmp(facility, "GETPID") == 0 || strstr(text, "enable.gapless.guarantee is experimental") ||
           /* A broker that is no real one. */
           strstr(text, "allow.auto.create.topics=false not supported by broker");
}

static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    (void) rk;
    if (level <= LOG_WARNING && !is_noise(facility, text))
        log_warning("Kafka client: %s", text);
    else
        log_debug("Kafka client: %s: %s", facility, text);
}

int kafka_conf_new(void **ret, const struct config *config, enum kafka_role role, struct error *err)
{
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    int r = set_common(conf, config, err);

    if (r == 0)
        r = set_properties(conf, &config->kafka.properties, err);
    if (r == 0)
        r = set_properties(conf,
                           role == KAFKA_PRODUCER ? &config->kafka.producer_properties
                                                  : &config->kafka.consumer_properties,
                           err);
    if (r < 0) {
        rd_kafka_conf_destroy(conf);
        return r;
    }
    rd_kafka_conf_set_log_cb(conf, on_log);
    *ret = conf;
    return 0;
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
            if (property->reference || set_property(conf, property, &err) == 0)
                continue;
            strbuf_addf(problems, "%s:%u: %s\n", path, property->line, err.text);
            r = -EINVAL;
        }
    rd_kafka_conf_destroy(conf);
    return r;
}
