/* The adapter between a consumer thread and librdkafka. See kafka_consumer.h.
 *
 * Each object belongs to one consumer thread; librdkafka's own threads stay behind its queue. Uses the event
 * interface rather than callbacks: a rebalance then stands in line with the messages, so none that belongs to
 * a former assignment is handed out after it. Knows neither the database nor what a message means. */
#include "kafka/kafka_consumer.h"

#include <errno.h>
#include <librdkafka/rdkafka.h>
#include <string.h>

#include "base/timeutil.h"
#include "kafka/kafka_conf.h"

#define CLOSE_USEC (5 * USEC_PER_SEC)
#define WAKE_BYTES ((size_t) 2 << 20)
#define WAKE_MS 20
#define WAKE_AFTER_MS 2

struct kafka_consumer {
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue;
    char **topics;
    size_t taken;            /* bytes handed out since the fetcher was woken */
    struct error refusal;    /* why the last connection could not be made, or was lost */
    rd_kafka_event_t *event; /* the last one polled: what was handed out points into it */
    const rd_kafka_message_t *message;
    struct kafka_partition *partitions;
    bool assigned; /* at least once */
};

struct kafka_kept {
    rd_kafka_event_t *event;
    const rd_kafka_message_t *message;
};

/* --- configuration ---------------------------------------------------------------------------- */

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
#if RD_KAFKA_VERSION >= 0x020200ff
    /* How soon a queue that was full is filled again; see wake_fetcher(). */
    {"fetch.queue.backoff.ms", "10"},
#endif
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

/* --- life ------------------------------------------------------------------------------------- */

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

int kafka_consumer_new(struct kafka_consumer **ret, const struct kafka_consumer_params *params,
                       struct error *err)
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
        if (rd_kafka_event_type(event) == RD_KAFKA_EVENT_REBALANCE) {
            k->assigned = true;
            rd_kafka_assign(k->rk, NULL);
        }
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

/* librdkafka before 2.3 ends the process by an assertion when a client that has joined its group is destroyed
 * before its first assignment (librdkafka issue 4312): such a one is left behind, without work. */
static bool may_be_destroyed(const struct kafka_consumer *k)
{
    return k->assigned || rd_kafka_version() >= 0x020300ff;
}

void kafka_consumer_free(struct kafka_consumer *k)
{
    if (!k)
        return;
    drop_event(k);
    bool closed = leave(k);
    rd_kafka_queue_destroy(k->queue);
    if (may_be_destroyed(k))
        rd_kafka_destroy_flags(k->rk, closed ? 0 : RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    for (size_t i = 0; k->topics && k->topics[i]; i++)
        free(k->topics[i]);
    free(k->topics);
    free(k);
}

/* --- messages --------------------------------------------------------------------------------- */

static void view_headers(const rd_kafka_message_t *m, struct kafka_message *ret)
{
    rd_kafka_headers_t *headers;

    ret->header_count = 0;
    if (rd_kafka_message_headers(m, &headers) != RD_KAFKA_RESP_ERR_NO_ERROR)
        return;
    while (ret->header_count < KAFKA_HEADERS_MAX) {
        struct kafka_header *h = &ret->headers[ret->header_count];
        const void *value;
        if (rd_kafka_header_get_all(headers, ret->header_count, &h->name, &value, &h->value.len))
            return;
        h->value.p = value;
        ret->header_count++;
    }
}

static void view(const rd_kafka_message_t *m, struct kafka_message *ret)
{
    ret->topic = rd_kafka_topic_name(m->rkt);
    ret->partition = m->partition;
    ret->offset = m->offset;
    ret->key = (struct bytes){m->key, m->key ? m->key_len : 0};
    ret->value = (struct bytes){m->payload, m->payload ? m->len : 0};
    view_headers(m, ret);
}

struct kafka_kept *kafka_consumer_keep(struct kafka_consumer *k)
{
    struct kafka_kept *kept = xmalloc(sizeof(*kept));

    kept->message = TAKE_PTR(k->message);
    kept->event = TAKE_PTR(k->event);
    return kept;
}

void kafka_kept_view(const struct kafka_kept *kept, struct kafka_message *ret)
{
    view(kept->message, ret);
}

void kafka_kept_free(struct kafka_kept *kept)
{
    if (!kept)
        return;
    rd_kafka_event_destroy(kept->event);
    free(kept);
}

/* --- events ----------------------------------------------------------------------------------- */

static void view_partitions(struct kafka_consumer *k, const rd_kafka_topic_partition_list_t *list,
                            struct kafka_poll *ret)
{
    ret->count = list ? (size_t) list->cnt : 0;
    k->partitions = xcalloc(ret->count + 1, sizeof(*k->partitions));
    for (size_t i = 0; i < ret->count; i++) {
        k->partitions[i].topic = list->elems[i].topic;
        k->partitions[i].partition = list->elems[i].partition;
    }
    ret->partitions = k->partitions;
}

/* The assignment is taken over empty: partitions are started one by one, at offsets that the caller knows. */
static void acknowledge_assignment(struct kafka_consumer *k)
{
    rd_kafka_topic_partition_list_t *none = rd_kafka_topic_partition_list_new(0);

    rd_kafka_error_destroy(rd_kafka_incremental_assign(k->rk, none));
    rd_kafka_topic_partition_list_destroy(none);
}

static enum kafka_event take_rebalance(struct kafka_consumer *k, struct kafka_poll *ret)
{
    rd_kafka_resp_err_t code = rd_kafka_event_error(k->event);

    if (code != RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS && code != RD_KAFKA_RESP_ERR__REVOKE_PARTITIONS) {
        error_set(&ret->error, "could not rebalance: %s", rd_kafka_err2str(code));
        rd_kafka_assign(k->rk, NULL);
        return KAFKA_FATAL;
    }
    view_partitions(k, rd_kafka_event_topic_partition_list(k->event), ret);
    if (code == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
        k->assigned = true;
        acknowledge_assignment(k);
        return KAFKA_ASSIGNED;
    }
    ret->lost = rd_kafka_assignment_lost(k->rk);
    return KAFKA_REVOKED;
}

static bool is_offset_error(rd_kafka_resp_err_t code)
{
#if RD_KAFKA_VERSION >= 0x020100ff
    if (code == RD_KAFKA_RESP_ERR__LOG_TRUNCATION)
        return true;
#endif
    return code == RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET || code == RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE;
}

/* Brokers come and go, and are tried again; that none is left is told apart. */
static bool is_about_one_connection(rd_kafka_resp_err_t code)
{
    return code == RD_KAFKA_RESP_ERR__TRANSPORT || code == RD_KAFKA_RESP_ERR__RESOLVE ||
           code == RD_KAFKA_RESP_ERR__TIMED_OUT;
}

/* An error about one partition says which; *ret gets it. */
static bool take_partition_error(struct kafka_consumer *k, struct kafka_poll *ret)
{
    rd_kafka_topic_partition_t *at = rd_kafka_event_topic_partition(k->event);

    if (!at)
        return false;
    for (size_t i = 0; k->topics[i]; i++) {
        if (strcmp(k->topics[i], at->topic) != 0)
            continue;
        k->partitions = xcalloc(1, sizeof(*k->partitions));
        k->partitions[0] = (struct kafka_partition){.topic = k->topics[i], .partition = at->partition};
        ret->partitions = k->partitions;
        ret->count = 1;
        break;
    }
    rd_kafka_topic_partition_destroy(at);
    return ret->count > 0;
}

static enum kafka_event take_error(struct kafka_consumer *k, rd_kafka_resp_err_t code, const char *words,
                                   struct kafka_poll *ret)
{
    char reason[512];

    if (code == RD_KAFKA_RESP_ERR__FATAL || rd_kafka_fatal_error(k->rk, NULL, 0)) {
        rd_kafka_fatal_error(k->rk, reason, sizeof(reason));
        error_set(&ret->error, "%s", reason);
        return KAFKA_FATAL;
    }
    if (is_about_one_connection(code)) {
        error_set(&k->refusal, "%s", words);
        return KAFKA_NOTHING;
    }
    if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
        /* librdkafka's words count its bootstrap entries as brokers. */
        error_set(&ret->error, "%s", *k->refusal.text ? k->refusal.text : "no broker can be reached");
        return KAFKA_AWAY;
    }
    error_set(&ret->error, "%s", words && *words ? words : rd_kafka_err2str(code));
    if (code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART || code == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC)
        return KAFKA_NO_TOPIC;
    if (is_offset_error(code) && take_partition_error(k, ret))
        return KAFKA_OUT_OF_RANGE;
    return KAFKA_TROUBLE;
}

static enum kafka_event take_message(struct kafka_consumer *k, struct kafka_poll *ret)
{
    k->message = rd_kafka_event_message_next(k->event);
    if (!k->message)
        return KAFKA_NOTHING;
    if (k->message->err)
        return take_error(k, k->message->err, rd_kafka_message_errstr(k->message), ret);
    view(k->message, &ret->message);
    k->taken += ret->message.value.len;
    return KAFKA_MESSAGE;
}

/* librdkafka looks only once a second whether it may fetch again, once its queue was full (before 2.2) or a
 * partition was started, however soon that is so. Any request to the partitions' leaders makes it look. */
static void wake_fetcher(struct kafka_consumer *k)
{
    rd_kafka_topic_partition_list_t *list;

    k->taken = 0;
    if (rd_kafka_assignment(k->rk, &list))
        return;
    for (int i = 0; i < list->cnt; i++)
        list->elems[i].offset = RD_KAFKA_OFFSET_END;
    if (list->cnt > 0)
        rd_kafka_offsets_for_times(k->rk, list, WAKE_MS);
    rd_kafka_topic_partition_list_destroy(list);
}

static rd_kafka_event_t *next_event(struct kafka_consumer *k, int timeout_ms)
{
    rd_kafka_event_t *event;

    if (k->taken < WAKE_BYTES)
        return rd_kafka_queue_poll(k->queue, timeout_ms);
    event = rd_kafka_queue_poll(k->queue, MIN(timeout_ms, WAKE_AFTER_MS));
    if (event)
        return event;
    wake_fetcher(k);
    return rd_kafka_queue_poll(k->queue, timeout_ms);
}

enum kafka_event kafka_consumer_poll(struct kafka_consumer *k, int timeout_ms, struct kafka_poll *ret)
{
    drop_event(k);
    ret->partitions = NULL;
    ret->count = 0;
    ret->lost = false;
    k->event = next_event(k, timeout_ms);
    switch (rd_kafka_event_type(k->event)) {
    case RD_KAFKA_EVENT_FETCH:
        return take_message(k, ret);
    case RD_KAFKA_EVENT_REBALANCE:
        return take_rebalance(k, ret);
    case RD_KAFKA_EVENT_ERROR:
        return take_error(k, rd_kafka_event_error(k->event), rd_kafka_event_error_string(k->event), ret);
    default:
        return KAFKA_NOTHING;
    }
}

/* --- partitions and offsets ------------------------------------------------------------------- */

static rd_kafka_topic_partition_list_t *list_of(const struct kafka_partition *partitions, size_t count)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int) count);

    for (size_t i = 0; i < count; i++)
        rd_kafka_topic_partition_list_add(list, partitions[i].topic, partitions[i].partition)->offset =
            partitions[i].offset;
    return list;
}

int kafka_consumer_start(struct kafka_consumer *k, const struct kafka_partition *partitions, size_t count,
                         struct error *err)
{
    rd_kafka_topic_partition_list_t *list = list_of(partitions, count);
    rd_kafka_error_t *error = rd_kafka_incremental_assign(k->rk, list);

    rd_kafka_topic_partition_list_destroy(list);
    k->taken = WAKE_BYTES;
    if (!error)
        return 0;
    error_set(err, "could not start reading: %s", rd_kafka_error_string(error));
    rd_kafka_error_destroy(error);
    return -EIO;
}

/* Fails only for partitions that were never started, or when this member has ended anyway. */
static void stop_reading(struct kafka_consumer *k, const struct kafka_partition *partitions, size_t count)
{
    rd_kafka_topic_partition_list_t *list = list_of(partitions, count);

    rd_kafka_error_destroy(rd_kafka_incremental_unassign(k->rk, list));
    rd_kafka_topic_partition_list_destroy(list);
}

void kafka_consumer_park(struct kafka_consumer *k, const struct kafka_partition *partitions, size_t count)
{
    if (count > 0)
        stop_reading(k, partitions, count);
}

void kafka_consumer_give_up(struct kafka_consumer *k, const struct kafka_partition *started, size_t count)
{
    /* Also with none: the group waits for this answer. */
    stop_reading(k, started, count);
}

void kafka_consumer_commit(struct kafka_consumer *k, const struct kafka_partition *partitions, size_t count)
{
    rd_kafka_topic_partition_list_t *list = list_of(partitions, count);

    rd_kafka_commit(k->rk, list, 1);
    rd_kafka_topic_partition_list_destroy(list);
}

static int refused(rd_kafka_resp_err_t code, const char *what, const char *topic, int32_t partition,
                   struct error *err)
{
    error_set(err, "could not read the %s of %s/%d: %s", what, topic, (int) partition,
              rd_kafka_err2str(code));
    return -EIO;
}

int kafka_consumer_range(struct kafka_consumer *k, const char *topic, int32_t partition, int timeout_ms,
                         int64_t *ret_first, int64_t *ret_end, struct error *err)
{
    int64_t first, end;
    rd_kafka_resp_err_t code =
        rd_kafka_query_watermark_offsets(k->rk, topic, partition, &first, &end, timeout_ms);

    if (code)
        return refused(code, "offsets", topic, partition, err);
    *ret_first = first;
    *ret_end = end;
    return 0;
}

int kafka_consumer_committed(struct kafka_consumer *k, struct kafka_partition *partitions, size_t count,
                             int timeout_ms, struct error *err)
{
    rd_kafka_topic_partition_list_t *list = list_of(partitions, count);
    rd_kafka_resp_err_t code = rd_kafka_committed(k->rk, list, timeout_ms);
    size_t at = 0;

    for (; !code && at < count; at++) {
        code = list->elems[at].err;
        partitions[at].offset = MAX(list->elems[at].offset, -1);
    }
    rd_kafka_topic_partition_list_destroy(list);
    if (!code)
        return 0;
    at = at > 0 ? at - 1 : 0;
    return refused(code, "committed offset", partitions[at].topic, partitions[at].partition, err);
}

int64_t kafka_consumer_known_end(struct kafka_consumer *k, const char *topic, int32_t partition)
{
    int64_t first, end;

    if (rd_kafka_get_watermark_offsets(k->rk, topic, partition, &first, &end) || end < 0)
        return -1;
    return end;
}

static bool has_topic(const struct rd_kafka_metadata *metadata, const char *topic)
{
    for (int i = 0; i < metadata->topic_cnt; i++)
        if (strcmp(metadata->topics[i].topic, topic) == 0)
            return metadata->topics[i].err == RD_KAFKA_RESP_ERR_NO_ERROR &&
                   metadata->topics[i].partition_cnt > 0;
    return false;
}

int kafka_consumer_look(struct kafka_consumer *k, int timeout_ms, size_t *ret_missing, struct error *err)
{
    const struct rd_kafka_metadata *metadata;
    /* All topics: only then the library compares the answer with the subscription. */
    rd_kafka_resp_err_t code = rd_kafka_metadata(k->rk, 1, NULL, &metadata, timeout_ms);

    if (code) {
        error_set(err, "could not reach Kafka: %s", rd_kafka_err2str(code));
        return -EIO;
    }
    *ret_missing = 0;
    for (size_t i = 0; k->topics[i]; i++)
        *ret_missing += !has_topic(metadata, k->topics[i]);
    rd_kafka_metadata_destroy(metadata);
    return 0;
}
