/* The adapter between the relay and librdkafka's producer. See kafka_producer.h.
 *
 * On the relay's thread; librdkafka's own threads stay behind its queue. Knows neither the database nor what
 * an event is. */
#include "kafka/kafka_producer.h"

#include <errno.h>
#include <librdkafka/rdkafka.h>

#include "base/timeutil.h"
#include "kafka/kafka_conf.h"
#include "kafka/kafka_fault.h"
#include "kafka/kafka_retention.h"

#define PURGE_USEC (2 * USEC_PER_SEC)

struct topic {
    rd_kafka_topic_t *handle;
    struct kafka_reached *reached;
    int partitions; /* of reached */
};

struct kafka_producer {
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue;
    struct topic *topics;
    size_t topic_count;
    size_t places;           /* see kafka_producer_places() */
    struct error connection; /* the last trouble with a connection, "" = there was no trouble yet */
};

/* --- life ------------------------------------------------------------------------------------- */

static int open_topics(struct kafka_producer *p, const char *const *topics, size_t count, struct error *err)
{
    p->topics = xcalloc(count, sizeof(*p->topics));
    for (; p->topic_count < count; p->topic_count++) {
        struct topic *topic = &p->topics[p->topic_count];
        topic->handle = rd_kafka_topic_new(p->rk, topics[p->topic_count], NULL);
        if (!topic->handle) {
            error_set(err, "cannot use the topic \"%s\": %s", topics[p->topic_count],
                      rd_kafka_err2str(rd_kafka_last_error()));
            return -EINVAL;
        }
    }
    return 0;
}

int kafka_producer_new(struct kafka_producer **ret, const struct config *config, const char *const *topics,
                       size_t count, size_t batch_bytes, struct error *err)
{
    CLEANUP(freep) char *size = xasprintf("%zu", batch_bytes);
    const struct kafka_setting own[] = {{"batch.num.messages", batch_bytes == 1 ? "1" : NULL},
                                        {"batch.size", batch_bytes > 1 ? size : NULL},
                                        {NULL, NULL}};
    rd_kafka_t *rk;
    int r = kafka_client_new(&rk, config, KAFKA_PRODUCER, own, err);

    if (r < 0)
        return r;
    struct kafka_producer *p = xcalloc(1, sizeof(*p));
    p->rk = rk;
    p->queue = rd_kafka_queue_get_main(rk);
    r = open_topics(p, topics, count, err);
    if (r < 0)
        kafka_producer_free(p);
    else
        *ret = p;
    return r;
}

void kafka_producer_free(struct kafka_producer *p)
{
    if (!p)
        return;
    /* Destroying with messages on their way would wait for them. */
    uint64_t deadline = now_monotonic_usec() + PURGE_USEC;
    rd_kafka_purge(p->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
    while (rd_kafka_outq_len(p->rk) > 0 && now_monotonic_usec() < deadline)
        kafka_producer_poll(p, 10, NULL, NULL, NULL);
    for (size_t i = 0; i < p->topic_count; i++) {
        rd_kafka_topic_destroy(p->topics[i].handle);
        free(p->topics[i].reached);
    }
    rd_kafka_queue_destroy(p->queue);
    kafka_client_free(p->rk, 0);
    free(p->topics);
    free(p);
}

size_t kafka_producer_message_max(const struct kafka_producer *p)
{
    char text[32];
    size_t size = sizeof(text);
    int64_t value;

    if (rd_kafka_conf_get(rd_kafka_conf(p->rk), "message.max.bytes", text, &size) != RD_KAFKA_CONF_OK ||
        parse_i64(text, 0, INT64_MAX, &value) < 0)
        return 1000000;
    return (size_t) value;
}

/* --- topics ----------------------------------------------------------------------------------- */

bool kafka_producer_knows_why(const struct kafka_producer *p)
{
    return *p->connection.text;
}

static int ask(struct kafka_producer *p, size_t topic, int timeout_ms, const struct rd_kafka_metadata **ret,
               struct error *err)
{
    rd_kafka_resp_err_t code = rd_kafka_metadata(p->rk, 0, p->topics[topic].handle, ret, timeout_ms);

    if (!code)
        return 0;
    /* The library's queue holds the reason why a connection was not made. */
    kafka_producer_poll(p, 0, NULL, NULL, NULL);
    error_set(err, "could not reach Kafka: %s",
              *p->connection.text                    ? p->connection.text
              : code == RD_KAFKA_RESP_ERR__TRANSPORT ? kafka_fault_unknown(p->rk)
                                                     : rd_kafka_err2str(code));
    return -EIO;
}

int kafka_producer_look(struct kafka_producer *p, int timeout_ms, int *ret_partitions, struct error *err)
{
    for (size_t i = 0; i < p->topic_count; i++) {
        const struct rd_kafka_metadata *metadata;
        if (ask(p, i, timeout_ms, &metadata, err) < 0)
            return -EIO;
        rd_kafka_resp_err_t code =
            metadata->topic_cnt == 1 ? metadata->topics[0].err : RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC;
        ret_partitions[i] = code == RD_KAFKA_RESP_ERR_NO_ERROR ? metadata->topics[0].partition_cnt
                            : code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED ? KAFKA_FORBIDDEN
                                                                                   : 0;
        rd_kafka_metadata_destroy(metadata);
    }
    return 0;
}

struct wanting {
    size_t count; /* of partitions; the first one is named */
    const char *topic;
    int32_t partition;
    int in_sync, copies;
};

static void note_wanting(struct wanting *w, const char *topic, const rd_kafka_metadata_partition_t *p)
{
    if (w->count++ == 0)
        *w = (struct wanting){1, topic, p->id, p->isr_cnt, p->replica_cnt};
}

int kafka_producer_leaders(struct kafka_producer *p, int timeout_ms, struct error *err)
{
    const struct rd_kafka_metadata *metadata;
    struct wanting leaderless = {0}, behind = {0};

    for (size_t i = 0; i < p->topic_count; i++) {
        if (ask(p, i, timeout_ms, &metadata, err) < 0)
            return -EIO;
        const char *name = rd_kafka_topic_name(p->topics[i].handle);
        for (int n = 0; metadata->topic_cnt == 1 && n < metadata->topics->partition_cnt; n++) {
            const rd_kafka_metadata_partition_t *found = &metadata->topics->partitions[n];
            if (found->leader < 0)
                note_wanting(&leaderless, name, found);
            else if (found->isr_cnt < found->replica_cnt)
                note_wanting(&behind, name, found);
        }
        rd_kafka_metadata_destroy(metadata);
    }
    if (leaderless.count > 0)
        error_set(err, "no broker leads partition %d of topic \"%s\" (%zu such partition%s)",
                  (int) leaderless.partition, leaderless.topic, leaderless.count,
                  plural((int64_t) leaderless.count));
    else if (behind.count > 0)
        error_set(err, "%d of %d copies of partition %d of topic \"%s\" are in sync (%zu such partition%s)",
                  behind.in_sync, behind.copies, (int) behind.partition, behind.topic, behind.count,
                  plural((int64_t) behind.count));
    else
        error_set(err, "%s", "");
    return leaderless.count > 0 ? KAFKA_LEADERLESS : 0;
}

/* The broker's answer about the topic that was asked for. */
static int classify_creation(rd_kafka_event_t *event, const char *name, struct error *err)
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
    if (code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED)
        words = "this client may not create it: let its user Create it, or create it yourself";
    error_set(err, "cannot create topic \"%s\": %s", name, words && *words ? words : rd_kafka_err2str(code));
    return KAFKA_TOPIC_REFUSED;
}

int kafka_producer_create_topic(struct kafka_producer *p, size_t topic, int partitions,
                                int replication_factor, int timeout_ms, struct error *err)
{
    char reason[512];
    const char *name = rd_kafka_topic_name(p->topics[topic].handle);
    rd_kafka_NewTopic_t *wanted = rd_kafka_NewTopic_new(
        name, partitions, replication_factor ? replication_factor : -1, reason, sizeof(reason));

    if (!wanted) {
        error_set(err, "cannot create topic \"%s\": %s", name, reason);
        return KAFKA_TOPIC_REFUSED;
    }
    rd_kafka_queue_t *queue = rd_kafka_queue_new(p->rk);
    rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(p->rk, RD_KAFKA_ADMIN_OP_CREATETOPICS);
    rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, reason, sizeof(reason));
    rd_kafka_CreateTopics(p->rk, &wanted, 1, options, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, timeout_ms + 500);
    int r = -EIO;
    if (event)
        r = classify_creation(event, name, err);
    else
        error_set(err, "could not create topic \"%s\": no answer", name);
    rd_kafka_event_destroy(event);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_queue_destroy(queue);
    rd_kafka_NewTopic_destroy(wanted);
    return r;
}

int kafka_producer_compacts(struct kafka_producer *p, size_t count, int timeout_ms, bool *ret,
                            struct error *err)
{
    CLEANUP(freep) const char **names = xcalloc(count, sizeof(*names));
    CLEANUP(freep) struct kafka_retention *found = xcalloc(count, sizeof(*found));

    for (size_t i = 0; i < count; i++)
        names[i] = rd_kafka_topic_name(p->topics[i].handle);
    int r = kafka_retention_look(p->rk, names, count, timeout_ms, found, err);
    for (size_t i = 0; r == 0 && i < count; i++)
        ret[i] = found[i].compacts;
    return r;
}

/* --- messages --------------------------------------------------------------------------------- */

int32_t kafka_partition(struct bytes key, int32_t count)
{
    return rd_kafka_msg_partitioner_consistent(NULL, key.p, key.len, count, NULL, NULL);
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

/* The library's interface has no const, but it only reads the bytes, and copies them. */
static void *writable(const void *bytes)
{
    return (void *) (uintptr_t) bytes;
}

int kafka_producer_send(struct kafka_producer *p, const struct kafka_outgoing *m, enum kafka_fate *ret_fate,
                        struct error *err)
{
    rd_kafka_headers_t *headers = copy_headers(m);
    const rd_kafka_vu_t parts[] = {
        {.vtype = RD_KAFKA_VTYPE_RKT, .u.rkt = p->topics[m->topic].handle},
        {.vtype = RD_KAFKA_VTYPE_PARTITION, .u.i32 = m->partition},
        {.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = RD_KAFKA_MSG_F_COPY},
        {.vtype = RD_KAFKA_VTYPE_KEY, .u.mem = {writable(m->key.p), m->key.len}},
        {.vtype = RD_KAFKA_VTYPE_VALUE, .u.mem = {writable(m->value.p), m->value.len}},
        {.vtype = RD_KAFKA_VTYPE_HEADERS, .u.headers = headers},
        {.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = (void *) (uintptr_t) m->number},
    };
    rd_kafka_error_t *error = rd_kafka_produceva(p->rk, parts, ARRAY_SIZE(parts));

    if (!error)
        return KAFKA_QUEUED; /* and the library owns the headers */
    rd_kafka_headers_destroy(headers);
    rd_kafka_resp_err_t code = rd_kafka_error_code(error);
    *ret_fate = fate_of(code);
    error_set(
        err, "%s",
        code == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE
            ? "it is larger than this client sends: raise message_max_bytes in kafka.producer_properties"
            : rd_kafka_error_string(error));
    rd_kafka_error_destroy(error);
    return code == RD_KAFKA_RESP_ERR__QUEUE_FULL ? KAFKA_FULL : KAFKA_NOT_SENT;
}

void kafka_producer_flush(struct kafka_producer *p)
{
    /* linger.ms is ignored while the call lasts, so the library's threads get a moment to notice. */
    rd_kafka_flush(p->rk, 1);
}

/* With what helps, where the library's words do not tell it. */
static const char *words_of(rd_kafka_resp_err_t code)
{
    if (code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED)
        return "this client may not write to the topic: let its user Write it";
    if (code == RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP)
        return "the topic takes no message of this time, which is that of this machine's clock: compare it with "
               "the broker's, and see the topic's message.timestamp.before.max.ms and "
               "message.timestamp.after.max.ms";
    if (code == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE)
        return "it is larger than the topic takes: raise the topic's max.message.bytes, or the brokers' "
               "message.max.bytes";
    if (code == RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE)
        return "it is larger than a segment of the topic: raise the topic's segment.bytes, or the brokers' "
               "log.segment.bytes";
    return code ? rd_kafka_err2str(code) : NULL;
}

static void note_reached(struct kafka_producer *p, const rd_kafka_message_t *m)
{
    struct topic *topic = p->topics;

    while (topic->handle != m->rkt)
        topic++;
    if (m->partition >= topic->partitions) {
        int count = m->partition + 1;
        topic->reached = xreallocarray(topic->reached, (size_t) count, sizeof(*topic->reached));
        while (topic->partitions < count)
            topic->reached[topic->partitions++] = (struct kafka_reached){0, -1};
    }
    if (m->offset < 0)
        return; /* it was taken before, and where is not told */
    struct kafka_reached *at = &topic->reached[m->partition];
    p->places += at->next == 0;
    at->next = m->offset + 1;
    at->first = at->first < 0 ? m->offset : MIN(at->first, m->offset);
}

const struct kafka_reached *kafka_producer_reached(const struct kafka_producer *p, size_t topic,
                                                   int *ret_partitions)
{
    *ret_partitions = p->topics[topic].partitions;
    return p->topics[topic].reached;
}

void kafka_producer_forget_first(struct kafka_producer *p)
{
    for (size_t i = 0; i < p->topic_count; i++)
        for (int n = 0; n < p->topics[i].partitions; n++)
            p->topics[i].reached[n].first = -1;
}

size_t kafka_producer_places(const struct kafka_producer *p)
{
    return p->places;
}

static void pass_reports(struct kafka_producer *p, rd_kafka_event_t *event, kafka_report *report,
                         void *userdata)
{
    const rd_kafka_message_t *m;

    while (report && (m = rd_kafka_event_message_next(event))) {
        if (!m->err)
            note_reached(p, m);
        report((size_t) (uintptr_t) m->_private, fate_of(m->err), words_of(m->err), userdata);
    }
}

static int classify_error(struct kafka_producer *p, rd_kafka_event_t *event, struct error *err)
{
    char reason[512];
    rd_kafka_resp_err_t code = rd_kafka_event_error(event);

    if (code == RD_KAFKA_RESP_ERR__FATAL || rd_kafka_event_error_is_fatal(event)) {
        code = rd_kafka_fatal_error(p->rk, reason, sizeof(reason));
        error_set(err, "%s: %s", rd_kafka_err2str(code), reason);
        return KAFKA_BROKEN;
    }
    if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
        error_set(err, "could not reach Kafka: %s",
                  *p->connection.text ? p->connection.text : kafka_fault_unknown(p->rk));
        return KAFKA_NO_BROKER;
    }
    kafka_fault_words(p->rk, rd_kafka_event_error_string(event), &p->connection);
    return KAFKA_QUIET;
}

int kafka_producer_poll(struct kafka_producer *p, int timeout_ms, kafka_report *report, void *userdata,
                        struct error *err)
{
    int r = KAFKA_QUIET;
    rd_kafka_event_t *event;

    while (r == KAFKA_QUIET && (event = rd_kafka_queue_poll(p->queue, timeout_ms))) {
        if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_DR)
            pass_reports(p, event, report, userdata);
        else if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_ERROR)
            r = classify_error(p, event, err);
        rd_kafka_event_destroy(event);
        timeout_ms = 0;
    }
    return r;
}
