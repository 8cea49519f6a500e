/* The adapter between a consumer thread and librdkafka. See kafka_consumer.h.
 *
 * Each object belongs to one consumer thread; librdkafka's own threads stay behind its queue. Uses the event
 * interface rather than callbacks: a rebalance then stands in line with the messages, so none that belongs to
 * a former assignment is handed out after it. Knows neither the database nor what a message means. */
#include "kafka_consumer.h"

#include <errno.h>
#include <librdkafka/rdkafka.h>
#include <string.h>

#include "kafka.h"
#include "timeutil.h"

#define CLOSE_USEC (5 * USEC_PER_SEC)

struct kafka_consumer {
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue;
    char **topics;
    rd_kafka_event_t *event; /* the last one polled, when the caller looks into it */
    struct kafka_partition *partitions;
};

/* --- configuration
 * ------------------------------------------------------------------------------------------------- */

struct setting {
    const char *name, *value;
};

/* Our defaults; kafka.properties and kafka.consumer_properties go before them. */
static const struct setting defaults[] = {
    /* Memory: what lies fetched and unread, and what one answer may add to it. */
    {"queued.max.messages.kbytes", "8192"},
    {"queued.min.messages", "20000"},
    {"fetch.max.bytes", "2097152"},
    {"max.partition.fetch.bytes", "524288"},
    /* New topics and partitions are found this soon. */
    {"topic.metadata.refresh.interval.ms", "30000"},
    /* The thread may wait for the database meanwhile, up to its statement_timeout. */
    {"max.poll.interval.ms", "600000"},
};

/* What exactly-once effects rest on; the configuration refuses these as properties. */
static const struct setting fixed[] = {
    {"enable.auto.commit", "false"},
    {"enable.auto.offset.store", "false"},
    /* Where to go on when the log does not have our offset is decided (and said) by the caller. */
    {"auto.offset.reset", "error"},
    {"partition.assignment.strategy", "cooperative-sticky"},
    {"enable.partition.eof", "false"},
};

static bool contains(const struct config_properties *properties, const char *name)
{
    for (size_t i = 0; i < properties->count; i++)
        if (strcmp(properties->items[i].name, name) == 0)
            return true;
    return false;
}

static int set(rd_kafka_conf_t *conf, const char *name, const char *value, struct error *err)
{
    char reason[512];

    if (rd_kafka_conf_set(conf, name, value, reason, sizeof(reason)) == RD_KAFKA_CONF_OK)
        return 0;
    error_set(err, "cannot set the Kafka property \"%s\": %s", name, reason);
    return -EINVAL;
}

static int set_ms(rd_kafka_conf_t *conf, const char *name, uint64_t usec, struct error *err)
{
    CLEANUP(freep) char *value = xasprintf("%llu", (unsigned long long) (usec / USEC_PER_MSEC));

    return set(conf, name, value, err);
}

static int set_all(rd_kafka_conf_t *conf, const struct kafka_consumer_params *params, struct error *err)
{
    const struct config *config = params->config;
    int r = set(conf, "group.id", params->group, err);

    if (r == 0 && params->instance)
        r = set(conf, "group.instance.id", params->instance, err);
    if (r == 0)
        r = set_ms(conf, "session.timeout.ms", config->consumers.session_timeout_usec, err);
    if (r == 0)
        r = set_ms(conf, "heartbeat.interval.ms", config->consumers.heartbeat_interval_usec, err);
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(defaults); i++)
        if (!contains(&config->kafka.properties, defaults[i].name) &&
            !contains(&config->kafka.consumer_properties, defaults[i].name))
            r = set(conf, defaults[i].name, defaults[i].value, err);
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(fixed); i++)
        r = set(conf, fixed[i].name, fixed[i].value, err);
    return r;
}

static int make_conf(rd_kafka_conf_t **ret, const struct kafka_consumer_params *params, struct error *err)
{
    void *made;
    int r = kafka_conf_new(&made, params->config, KAFKA_CONSUMER, err);

    if (r < 0)
        return r;
    rd_kafka_conf_t *conf = made;
    r = set_all(conf, params, err);
    if (r < 0) {
        rd_kafka_conf_destroy(conf);
        return r;
    }
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_REBALANCE | RD_KAFKA_EVENT_ERROR);
    *ret = conf;
    return 0;
}

int kafka_consumer_check(const struct config *config, struct error *err)
{
    const struct kafka_consumer_params params = {.config = config, .group = "check", .instance = "check"};
    rd_kafka_conf_t *conf;
    int r = make_conf(&conf, &params, err);

    if (r == 0)
        rd_kafka_conf_destroy(conf);
    return r;
}

/* --- life
 * ---------------------------------------------------------------------------------------------------------- */

static int subscribe(struct kafka_consumer *k, const char *const *topics, struct error *err)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(8);
    size_t count = 0;

    while (topics[count])
        count++;
    k->topics = xcalloc(count + 1, sizeof(char *));
    for (size_t i = 0; i < count; i++) {
        k->topics[i] = xstrdup(topics[i]);
        rd_kafka_topic_partition_list_add(list, topics[i], RD_KAFKA_PARTITION_UA);
    }
    rd_kafka_resp_err_t code = rd_kafka_subscribe(k->rk, list);
    rd_kafka_topic_partition_list_destroy(list);
    if (!code)
        return 0;
    error_set(err, "could not subscribe: %s", rd_kafka_err2str(code));
    return -EINVAL;
}

int kafka_consumer_new(struct kafka_consumer **ret, const struct kafka_consumer_params *params, struct error *err)
{
    struct kafka_consumer *k = xcalloc(1, sizeof(*k));
    rd_kafka_conf_t *conf;
    char reason[512];
    int r = make_conf(&conf, params, err);

    if (r < 0) {
        free(k);
        return r;
    }
    k->rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, reason, sizeof(reason));
    if (!k->rk) {
        error_set(err, "could not start the Kafka client: %s", reason);
        rd_kafka_conf_destroy(conf);
        free(k);
        return -EINVAL;
    }
    rd_kafka_poll_set_consumer(k->rk);
    k->queue = rd_kafka_queue_get_consumer(k->rk);
    r = subscribe(k, params->topics, err);
    if (r < 0)
        kafka_consumer_free(k);
    else
        *ret = k;
    return r;
}

static void drop_event(struct kafka_consumer *k)
{
    rd_kafka_event_destroy(TAKE_PTR(k->event));
    free(TAKE_PTR(k->partitions));
}

#if RD_KAFKA_VERSION >= 0x010900ff
/* Leaves the group, but does not wait for brokers that do not answer. */
static bool leave(struct kafka_consumer *k)
{
    uint64_t deadline = now_monotonic_usec() + CLOSE_USEC;
    rd_kafka_error_t *error = rd_kafka_consumer_close_queue(k->rk, k->queue);

    if (error) {
        rd_kafka_error_destroy(error);
        return false;
    }
    while (!rd_kafka_consumer_closed(k->rk) && now_monotonic_usec() < deadline) {
        rd_kafka_event_t *event = rd_kafka_queue_poll(k->queue, 100);
        if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_REBALANCE)
            rd_kafka_assign(k->rk, NULL);
        rd_kafka_event_destroy(event);
    }
    return rd_kafka_consumer_closed(k->rk);
}
#else
static bool leave(struct kafka_consumer *k)
{
    return rd_kafka_consumer_close(k->rk) == RD_KAFKA_RESP_ERR_NO_ERROR;
}
#endif

void kafka_consumer_free(struct kafka_consumer *k)
{
    if (!k)
        return;
    drop_event(k);
    bool closed = leave(k);
    rd_kafka_queue_destroy(k->queue);
    rd_kafka_destroy_flags(k->rk, closed ? 0 : RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    for (size_t i = 0; k->topics && k->topics[i]; i++)
        free(k->topics[i]);
    free(k->topics);
    free(k);
}

/* --- messages
 * ------------------------------------------------------------------------------------------------------ */

/* A handle is the event that brought the message. */
static void view_headers(const rd_kafka_message_t *m, struct kafka_message *ret)
{
    rd_kafka_headers_t *headers;

    ret->header_count = 0;
    if (rd_kafka_message_headers(m, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
        return;
    while (ret->header_count < KAFKA_HEADERS_MAX) {
        struct kafka_header *h = &ret->headers[ret->header_count];
        const void *value;
        if (rd_kafka_header_get_all(headers, ret->header_count, &h->name, &value, &h->value_len))
            return;
        h->value = value;
        ret->header_count++;
    }
}

static void view(const rd_kafka_message_t *m, void *handle, struct kafka_message *ret)
{
    ret->handle = handle;
    ret->topic = rd_kafka_topic_name(m->rkt);
    ret->partition = m->partition;
    ret->offset = m->offset;
    ret->key = m->key;
    ret->key_len = m->key ? m->key_len : 0;
    ret->value = m->payload;
    ret->value_len = m->payload ? m->len : 0;
    view_headers(m, ret);
}
