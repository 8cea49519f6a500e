/* The brokers' settings of topics. See kafka_retention.h. */
#include "kafka/kafka_retention.h"

#include <errno.h>
#include <librdkafka/rdkafka.h>
#include <string.h>

#include "base/timeutil.h"
#include "kafka/kafka_conf.h"
#include "kafka/kafka_fault.h"

/* Brokers look every few minutes what is to go (log.retention.check.interval.ms, file.delete.delay.ms). */
#define SWEEP_USEC (10 * 60 * USEC_PER_SEC)

/* What Kafka allows; the library takes no empty name. */
#define NAME_MAX_KAFKA 249

/* What is no number, and less than 0, is "for ever". */
static int64_t read_ms(const char *text)
{
    int64_t ms;

    return text && parse_i64(text, 0, INT64_MAX / 4000, &ms) == 0 ? ms : -1;
}

static void take_settings(const rd_kafka_ConfigResource_t *resource, struct kafka_retention *ret)
{
    size_t count = 0;
    const rd_kafka_ConfigEntry_t **entries = rd_kafka_ConfigResource_configs(resource, &count);
    int64_t retention = -1, segment = -1;
    const char *policy = "";

    for (size_t i = 0; i < count; i++) {
        const char *name = rd_kafka_ConfigEntry_name(entries[i]),
                   *value = rd_kafka_ConfigEntry_value(entries[i]);
        if (strcmp(name, "retention.ms") == 0)
            retention = read_ms(value);
        else if (strcmp(name, "segment.ms") == 0)
            segment = read_ms(value);
        else if (strcmp(name, "cleanup.policy") == 0)
            policy = value ? value : "";
    }
    ret->known = true;
    ret->compacts = strstr(policy, "compact");
    ret->for_ever = !strstr(policy, "delete") || retention < 0 || segment < 0;
    ret->usec = ret->for_ever ? 0 : (uint64_t) (retention + segment) * USEC_PER_MSEC + SWEEP_USEC;
}

static void take_answer(const rd_kafka_ConfigResource_t **resources, size_t answered,
                        const char *const *topics, size_t count, struct kafka_retention *ret)
{
    for (size_t i = 0; i < answered; i++)
        for (size_t n = 0; n < count; n++) {
            if (strcmp(rd_kafka_ConfigResource_name(resources[i]), topics[n]) != 0)
                continue;
            rd_kafka_resp_err_t code = rd_kafka_ConfigResource_error(resources[i]);
            if (code)
                error_set(&ret[n].why, "%s", rd_kafka_err2str(code));
            else
                take_settings(resources[i], &ret[n]);
        }
}

static int ask(rd_kafka_t *rk, rd_kafka_ConfigResource_t **wanted, size_t asked, const char *const *topics,
               size_t count, int timeout_ms, struct kafka_retention *ret, struct error *err)
{
    char reason[512];
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS);

    rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, reason, sizeof(reason));
    rd_kafka_DescribeConfigs(rk, wanted, asked, options, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, timeout_ms + 500);
    int r = -EIO;
    if (!event)
        error_set(err, "no answer");
    else if (rd_kafka_event_error(event))
        error_set(err, "%s", rd_kafka_event_error_string(event));
    else {
        size_t answered = 0;
        const rd_kafka_ConfigResource_t **resources = rd_kafka_DescribeConfigs_result_resources(
            rd_kafka_event_DescribeConfigs_result(event), &answered);
        take_answer(resources, answered, topics, count, ret);
        r = 0;
    }
    rd_kafka_event_destroy(event);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_queue_destroy(queue);
    return r;
}

int kafka_retention_look(rd_kafka_t *rk, const char *const *topics, size_t count, int timeout_ms,
                         struct kafka_retention *ret, struct error *err)
{
    rd_kafka_ConfigResource_t **wanted = xcalloc(count + 1, sizeof(*wanted));
    size_t asked = 0;
    int r = 0;

    memset(ret, 0, count * sizeof(*ret));
    for (size_t i = 0; i < count; i++) {
        size_t len = strlen(topics[i]);
        bool is_name = len > 0 && len <= NAME_MAX_KAFKA;
        error_set(&ret[i].why, "%s", is_name ? "the broker did not tell" : "no topic can have this name");
        if (is_name)
            wanted[asked++] = rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topics[i]);
    }
    if (asked > 0)
        r = ask(rk, wanted, asked, topics, count, timeout_ms, ret, err);
    rd_kafka_ConfigResource_destroy_array(wanted, asked);
    free(wanted);
    return r;
}

int kafka_retention_ask(const struct config *config, const char *const *topics, size_t count, int timeout_ms,
                        struct kafka_retention *ret, struct error *err)
{
    static const struct kafka_setting own[] = {{NULL, NULL}};
    rd_kafka_t *rk;
    int r = kafka_client_new(&rk, config, KAFKA_PRODUCER, own, err);

    if (r < 0)
        return r;
    r = kafka_retention_look(rk, topics, count, timeout_ms, ret, err);
    if (r < 0)
        (void) kafka_fault_read(rk, err);
    kafka_client_free(rk, 0);
    return r;
}
