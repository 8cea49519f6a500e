/* The adapter between the relay and librdkafka's producer. See kafka_producer.h.
 *
 * On the relay's thread; librdkafka's own threads stay behind its queue. Knows neither the database nor what
 * an event is. */
#include "kafka/kafka_producer.h"

#include <errno.h>
#include <librdkafka/rdkafka.h>
#include <string.h>

#include "base/timeutil.h"
#include "kafka/kafka_conf.h"

#define PURGE_USEC (2 * USEC_PER_SEC)

struct kafka_producer {
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue;
    rd_kafka_topic_t **topics;
    char **names;
    size_t topic_count;
    size_t message_max;
    struct error connection; /* what was last wrong with one, "" = nothing yet */
};

/* --- configuration ---------------------------------------------------------------------------- */

struct setting {
    const char *name, *value;
};

/* Our defaults; kafka.properties and kafka.producer_properties go before them. */
static const struct setting defaults[] = {
    {"compression.codec", "lz4"},
    {"linger.ms", "2"},
    /* The relay sends a batch and waits: this bounds one batch, not an endless queue. */
    {"queue.buffering.max.messages", "100000"},
    {"queue.buffering.max.kbytes", "131072"},
    {"socket.nagle.disable", "true"},
};

/* What the guarantees rest on; the configuration refuses these as properties. */
static const struct setting fixed[] = {
    {"enable.idempotence", "true"},
    {"enable.gapless.guarantee", "true"},
    {"acks", "all"},
    {"message.timeout.ms", "0"},
};

static bool contains(const struct config_properties *properties, const char *name)
{
    for (size_t i = 0; i < properties->count; i++)
        if (strcmp(properties->items[i].name, name) == 0)
            return true;
    return false;
}

static bool is_set(const struct config *config, const char *name)
{
    /* The other names of the same property. */
    static const char *const aliases[][2] = {{"compression.codec", "compression.type"},
                                             {"linger.ms", "queue.buffering.max.ms"}};

    for (size_t i = 0; i < ARRAY_SIZE(aliases); i++)
        if (strcmp(name, aliases[i][0]) == 0 && (contains(&config->kafka.properties, aliases[i][1]) ||
                                                 contains(&config->kafka.producer_properties, aliases[i][1])))
            return true;
    return contains(&config->kafka.properties, name) || contains(&config->kafka.producer_properties, name);
}

static int set(rd_kafka_conf_t *conf, const struct setting *s, struct error *err)
{
    char reason[512];

    if (rd_kafka_conf_set(conf, s->name, s->value, reason, sizeof(reason)) == RD_KAFKA_CONF_OK)
        return 0;
    error_set(err, "cannot set the Kafka property \"%s\": %s", s->name, reason);
    return -EINVAL;
}

static int limit_batches(rd_kafka_conf_t *conf, size_t bytes, struct error *err)
{
    CLEANUP(freep) char *value = xasprintf("%zu", bytes);

    return set(conf,
               bytes == 1 ? &(struct setting){"batch.num.messages", "1"}
                          : &(struct setting){"batch.size", value},
               err);
}

static int make_conf(rd_kafka_conf_t **ret, const struct config *config, size_t batch_bytes,
                     struct error *err)
{
    void *made;
    int r = kafka_conf_new(&made, config, KAFKA_PRODUCER, err);

    if (r < 0)
        return r;
    rd_kafka_conf_t *conf = made;
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(defaults); i++)
        if (!is_set(config, defaults[i].name))
            r = set(conf, &defaults[i], err);
    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(fixed); i++)
        r = set(conf, &fixed[i], err);
    if (r == 0 && batch_bytes > 0)
        r = limit_batches(conf, batch_bytes, err);
    if (r < 0) {
        rd_kafka_conf_destroy(conf);
        return r;
    }
    rd_kafka_conf_set_events(conf, RD_KAFKA_EVENT_DR | RD_KAFKA_EVENT_ERROR);
    *ret = conf;
    return 0;
}

/* --- life ------------------------------------------------------------------------------------- */

static size_t read_message_max(rd_kafka_t *rk)
{
    char text[32];
    size_t size = sizeof(text);
    int64_t value;

    if (rd_kafka_conf_get(rd_kafka_conf(rk), "message.max.bytes", text, &size) != RD_KAFKA_CONF_OK ||
        parse_i64(text, 0, INT64_MAX, &value) < 0)
        return 1000000;
    return (size_t) value;
}

int kafka_producer_new(struct kafka_producer **ret, const struct config *config, const char *const *topics,
                       size_t count, size_t batch_bytes, struct error *err)
{
    rd_kafka_conf_t *conf;
    char reason[512];
    int r = make_conf(&conf, config, batch_bytes, err);

    if (r < 0)
        return r;
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, reason, sizeof(reason));
    if (!rk) {
        error_set(err, "could not start the Kafka client: %s", reason);
        rd_kafka_conf_destroy(conf);
        return -EINVAL;
    }
    struct kafka_producer *p = xcalloc(1, sizeof(*p));
    p->rk = rk;
    p->queue = rd_kafka_queue_get_main(rk);
    p->message_max = read_message_max(rk);
    p->topics = xcalloc(count, sizeof(*p->topics));
    p->names = xcalloc(count, sizeof(*p->names));
    for (; p->topic_count < count; p->topic_count++) {
        p->names[p->topic_count] = xstrdup(topics[p->topic_count]);
        p->topics[p->topic_count] = rd_kafka_topic_new(rk, topics[p->topic_count], NULL);
        if (!p->topics[p->topic_count])
            break;
    }
    if (p->topic_count < count) {
        error_set(err, "cannot use the topic \"%s\": %s", topics[p->topic_count],
                  rd_kafka_err2str(rd_kafka_last_error()));
        free(p->names[p->topic_count]);
        kafka_producer_free(p);
        return -EINVAL;
    }
    *ret = p;
    return 0;
}

static void ignore_report(size_t number, enum kafka_fate fate, const char *reason, void *userdata)
{
    (void) number;
    (void) fate;
    (void) reason;
    (void) userdata;
}

void kafka_producer_free(struct kafka_producer *p)
{
    if (!p)
        return;
    /* Destroying with messages on their way would wait for them. */
    uint64_t deadline = now_monotonic_usec() + PURGE_USEC;
    rd_kafka_purge(p->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    while (rd_kafka_outq_len(p->rk) > 0 && now_monotonic_usec() < deadline)
        kafka_producer_poll(p, 10, ignore_report, NULL, NULL);
    for (size_t i = 0; i < p->topic_count; i++) {
        rd_kafka_topic_destroy(p->topics[i]);
        free(p->names[i]);
    }
    rd_kafka_queue_destroy(p->queue);
    rd_kafka_destroy(p->rk);
    free(p->topics);
    free(p->names);
    free(p);
}

size_t kafka_producer_message_max(const struct kafka_producer *p)
{
    return p->message_max;
}

/* --- topics ----------------------------------------------------------------------------------- */

int kafka_producer_look(struct kafka_producer *p, int timeout_ms, int *ret_partitions, struct error *err)
{
    for (size_t i = 0; i < p->topic_count; i++) {
        const struct rd_kafka_metadata *metadata;
        rd_kafka_resp_err_t code = rd_kafka_metadata(p->rk, 0, p->topics[i], &metadata, timeout_ms);
        if (code) {
            /* Why a connection did not come about stands in an event. */
            kafka_producer_poll(p, 0, ignore_report, NULL, NULL);
            error_set(err, "could not reach Kafka: %s",
                      *p->connection.text ? p->connection.text : rd_kafka_err2str(code));
            return -EIO;
        }
        bool there = metadata->topic_cnt == 1 && metadata->topics[0].err == RD_KAFKA_RESP_ERR_NO_ERROR;
        ret_partitions[i] = there ? metadata->topics[0].partition_cnt : 0;
        rd_kafka_metadata_destroy(metadata);
    }
    return 0;
}

/* What the broker answered about the one topic asked for. */
static int judge_creation(rd_kafka_event_t *event, const char *name, struct error *err)
{
    size_t count = 0;
    rd_kafka_resp_err_t code = rd_kafka_event_error(event);
    const char *words = rd_kafka_event_error_string(event);

    if (code) {
        error_set(err, "could not create topic \"%s\": %s", name, words);
        return -EIO;
    }
    const rd_kafka_topic_result_t **results =
        rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event), &count);
    code = count == 1 ? rd_kafka_topic_result_error(results[0]) : RD_KAFKA_RESP_ERR__BAD_MSG;
    if (!code || code == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
        return 0;
    words = count == 1 ? rd_kafka_topic_result_error_string(results[0]) : NULL;
    error_set(err, "cannot create topic \"%s\": %s", name, words && *words ? words : rd_kafka_err2str(code));
    return 1;
}

int kafka_producer_create_topic(struct kafka_producer *p, size_t topic, int partitions,
                                int replication_factor, int timeout_ms, struct error *err)
{
    char reason[512];
    rd_kafka_NewTopic_t *wanted = rd_kafka_NewTopic_new(
        p->names[topic], partitions, replication_factor ? replication_factor : -1, reason, sizeof(reason));
    if (!wanted) {
        error_set(err, "cannot create topic \"%s\": %s", p->names[topic], reason);
        return 1;
    }
    rd_kafka_queue_t *queue = rd_kafka_queue_new(p->rk);
    rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(p->rk, RD_KAFKA_ADMIN_OP_CREATETOPICS);
    rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, reason, sizeof(reason));
    rd_kafka_CreateTopics(p->rk, &wanted, 1, options, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, timeout_ms + 500);
    int r = -EIO;
    if (event)
        r = judge_creation(event, p->names[topic], err);
    else
        error_set(err, "could not create topic \"%s\": no answer", p->names[topic]);
    rd_kafka_event_destroy(event);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_queue_destroy(queue);
    rd_kafka_NewTopic_destroy(wanted);
    return r;
}

/* --- messages --------------------------------------------------------------------------------- */

int32_t kafka_partition(const void *key, size_t len, int32_t count)
{
    return rd_kafka_msg_partitioner_consistent(NULL, key, len, count, NULL, NULL);
}

static enum kafka_fate fate_of(rd_kafka_resp_err_t code)
{
    switch (code) {
    case RD_KAFKA_RESP_ERR_NO_ERROR:
        return KAFKA_DELIVERED;
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
        return KAFKA_NO_PLACE;
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_TOPIC_EXCEPTION:
    case RD_KAFKA_RESP_ERR_INVALID_MSG:
    case RD_KAFKA_RESP_ERR_INVALID_RECORD:
    case RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP:
    case RD_KAFKA_RESP_ERR_POLICY_VIOLATION:
        return KAFKA_REFUSED;
    default:
        return KAFKA_UNKNOWN;
    }
}

static rd_kafka_headers_t *copy_headers(const struct kafka_outgoing *m)
{
    rd_kafka_headers_t *headers = rd_kafka_headers_new(m->header_count);

    for (size_t i = 0; i < m->header_count; i++)
        rd_kafka_header_add(headers, m->headers[i].name, -1, m->headers[i].value.p,
                            (ssize_t) m->headers[i].value.len);
    return headers;
}

/* The library's interface knows no const; it only reads what it copies. */
static void *writable(const void *bytes)
{
    return (void *) (uintptr_t) bytes;
}

int kafka_producer_send(struct kafka_producer *p, const struct kafka_outgoing *m, enum kafka_fate *ret_fate,
                        struct error *err)
{
    rd_kafka_headers_t *headers = copy_headers(m);
    const rd_kafka_vu_t parts[] = {
        {.vtype = RD_KAFKA_VTYPE_RKT, .u.rkt = p->topics[m->topic]},
        {.vtype = RD_KAFKA_VTYPE_PARTITION, .u.i32 = m->partition},
        {.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = RD_KAFKA_MSG_F_COPY},
        {.vtype = RD_KAFKA_VTYPE_KEY, .u.mem = {writable(m->key.p), m->key.len}},
        {.vtype = RD_KAFKA_VTYPE_VALUE, .u.mem = {writable(m->value.p), m->value.len}},
        {.vtype = RD_KAFKA_VTYPE_HEADERS, .u.headers = headers},
        {.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = (void *) (uintptr_t) m->number},
    };
    rd_kafka_error_t *error = rd_kafka_produceva(p->rk, parts, ARRAY_SIZE(parts));

    if (!error)
        return KAFKA_QUEUED; /* and the headers are the library's */
    rd_kafka_headers_destroy(headers);
    rd_kafka_resp_err_t code = rd_kafka_error_code(error);
    *ret_fate = fate_of(code);
    error_set(err, "%s", rd_kafka_error_string(error));
    rd_kafka_error_destroy(error);
    return code == RD_KAFKA_RESP_ERR__QUEUE_FULL ? KAFKA_FULL : KAFKA_NOT_SENT;
}

static void hand_reports_on(rd_kafka_event_t *event, kafka_report *report, void *userdata)
{
    const rd_kafka_message_t *m;

    while ((m = rd_kafka_event_message_next(event)))
        report((size_t) (uintptr_t) m->_private, fate_of(m->err), m->err ? rd_kafka_err2str(m->err) : NULL,
               userdata);
}

static int judge_error(struct kafka_producer *p, rd_kafka_event_t *event, struct error *err)
{
    char reason[512];
    rd_kafka_resp_err_t code = rd_kafka_event_error(event);

    if (code == RD_KAFKA_RESP_ERR__FATAL || rd_kafka_event_error_is_fatal(event)) {
        code = rd_kafka_fatal_error(p->rk, reason, sizeof(reason));
        error_set(err, "%s: %s", rd_kafka_err2str(code), reason);
        return KAFKA_DONE_FOR;
    }
    if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
        error_set(err, "could not reach Kafka: %s",
                  *p->connection.text ? p->connection.text : "no broker can be reached");
        return KAFKA_NOBODY;
    }
    error_set(&p->connection, "%s", rd_kafka_event_error_string(event));
    return KAFKA_QUIET;
}

int kafka_producer_poll(struct kafka_producer *p, int timeout_ms, kafka_report *report, void *userdata,
                        struct error *err)
{
    int r = KAFKA_QUIET;
    rd_kafka_event_t *event;

    while (r == KAFKA_QUIET && (event = rd_kafka_queue_poll(p->queue, timeout_ms))) {
        if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR)
            hand_reports_on(event, report, userdata);
        else if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_ERROR)
            r = judge_error(p, event, err);
        rd_kafka_event_destroy(event);
        timeout_ms = 0;
    }
    return r;
}
