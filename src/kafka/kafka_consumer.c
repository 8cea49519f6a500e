/* The adapter between a consumer thread and librdkafka. See kafka_consumer.h.
 *
 * Each object belongs to one consumer thread; librdkafka's own threads stay behind its queue. Uses the event
 * interface of the library rather than its callbacks: a rebalance then stands in line with the messages, so a
 * message of a former assignment is never handed out after it. Knows neither the database nor the meaning of
 * a message. */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "base/timeutil.h"
#include "base/worker.h"
#include "kafka/kafka_conf.h"
#include "kafka/kafka_consumer_internal.h"
#include "kafka/kafka_fault.h"

#define CLOSE_USEC (5 * USEC_PER_SEC)
#define DESTROY_SEC 2
#define WAKE_MS 20
#define WAKE_AFTER_MS 2

struct kafka_kept {
    rd_kafka_event_t *event;
    const rd_kafka_message_t *message;
};

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
    const struct kafka_setting own[] = {
        {"group.id", params->group}, {"group.instance.id", params->instance}, {NULL, NULL}};
    rd_kafka_t *rk;
    int r = kafka_client_new(&rk, params->config, KAFKA_CONSUMER, own, err);

    if (r < 0)
        return r;
    struct kafka_consumer *k = xcalloc(1, sizeof(*k));
    k->rk = rk;
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
 * before its first assignment (librdkafka issue 4312): such a client is left behind, without work. */
static bool may_be_destroyed(const struct kafka_consumer *k)
{
    return k->assigned || rd_kafka_version() >= 0x020300ff;
}

struct ending {
    rd_kafka_t *rk;
    int flags;
    struct ending *next;
};

/* So that a look for leaks finds them: they are given up, not forgotten. */
static struct ending *_Atomic left_behind;

static void leave_behind(rd_kafka_t *rk)
{
    struct ending *e = xmalloc(sizeof(*e));

    *e = (struct ending){.rk = rk, .next = left_behind};
    while (!atomic_compare_exchange_weak(&left_behind, &e->next, e)) {
    }
}

static void *destroy(void *userdata)
{
    struct ending *e = userdata;

    kafka_client_free(e->rk, e->flags);
    free(e);
    return NULL;
}

/* librdkafka waits for ever for its own threads after a topic came back with fewer partitions than were read
 * (seen with 2.0.2). Such a client is left behind, too; it has left its group. */
static void destroy_in_time(rd_kafka_t *rk, int flags)
{
    struct ending *e = xmalloc(sizeof(*e));
    struct worker ending = {.stop_fd = -1};
    struct error err;

    *e = (struct ending){.rk = rk, .flags = flags};
    if (worker_start(&ending, "kafka end", destroy, e, &err) < 0)
        destroy(e);
    else if (!worker_join(&ending, DESTROY_SEC))
        pthread_detach(ending.thread);
}

void kafka_consumer_free(struct kafka_consumer *k)
{
    if (!k)
        return;
    drop_event(k);
    bool closed = leave(k);
    rd_kafka_queue_destroy(k->queue);
    bool unused = kafka_consumer_end_look(k);
    kafka_consumer_forget_members(k);
    if (unused && may_be_destroyed(k))
        destroy_in_time(k->rk, closed ? 0 : RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    else
        leave_behind(k->rk);
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
    ret->written_at = MAX(rd_kafka_message_timestamp(m, NULL), 0) * (int64_t) USEC_PER_MSEC;
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

/* The assignment is accepted empty: each partition is started later, at an offset that the caller knows. */
static void acknowledge_assignment(struct kafka_consumer *k)
{
    rd_kafka_topic_partition_list_t *none = rd_kafka_topic_partition_list_new(0);

    rd_kafka_error_destroy(rd_kafka_incremental_assign(k->rk, none));
    rd_kafka_topic_partition_list_destroy(none);
}

static enum kafka_poll_result take_rebalance(struct kafka_consumer *k, struct kafka_poll *ret)
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

/* Brokers come and go, and the library tries them again; that all are gone is another error. */
static bool is_about_one_connection(rd_kafka_resp_err_t code)
{
    return code == RD_KAFKA_RESP_ERR__TRANSPORT || code == RD_KAFKA_RESP_ERR__RESOLVE ||
           code == RD_KAFKA_RESP_ERR__TIMED_OUT || code == RD_KAFKA_RESP_ERR__SSL;
}

/* An error about one partition names the partition; *ret gets it. */
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

/* An error about a topic has it in its words, and one about a fetch names the partition. */
static bool take_topic_error(struct kafka_consumer *k, struct kafka_poll *ret)
{
    if (take_partition_error(k, ret))
        return true;
    for (size_t i = 0; k->topics[i]; i++) {
        if (!strstr(ret->error.text, k->topics[i]))
            continue;
        k->partitions = xcalloc(1, sizeof(*k->partitions));
        k->partitions[0].topic = k->topics[i];
        ret->partitions = k->partitions;
        ret->count = 1;
        return true;
    }
    return false;
}

/* What mends it, where the library's words leave that open. */
static const char *advice(rd_kafka_resp_err_t code)
{
    switch (code) {
    case RD_KAFKA_RESP_ERR_INVALID_SESSION_TIMEOUT:
        return "; let consumers.session_timeout lie between group.min.session.timeout.ms and "
               "group.max.session.timeout.ms of the brokers";
    case RD_KAFKA_RESP_ERR_GROUP_MAX_SIZE_REACHED:
        return "; the brokers' group.max.size has to allow a member for each consumer thread of each daemon";
    default:
        return "";
    }
}

static enum kafka_poll_result take_error(struct kafka_consumer *k, rd_kafka_resp_err_t code,
                                         const char *words, struct kafka_poll *ret)
{
    char reason[512];

    if (code == RD_KAFKA_RESP_ERR__FATAL || rd_kafka_fatal_error(k->rk, NULL, 0)) {
        rd_kafka_fatal_error(k->rk, reason, sizeof(reason));
        error_set(&ret->error, "%s", reason);
        return KAFKA_FATAL;
    }
    if (is_about_one_connection(code)) {
        kafka_fault_words(k->rk, words, &k->refusal);
        return KAFKA_NOTHING;
    }
    if (code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN) {
        /* librdkafka's words count its bootstrap entries as brokers. */
        error_set(&ret->error, "%s", *k->refusal.text ? k->refusal.text : kafka_fault_unknown(k->rk));
        return KAFKA_AWAY;
    }
    error_set(&ret->error, "%s%s", words && *words ? words : rd_kafka_err2str(code), advice(code));
    if (code == RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED)
        return KAFKA_DENIED;
    if (code == RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED && take_topic_error(k, ret))
        return KAFKA_DENIED;
    if (code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART || code == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC)
        return KAFKA_NO_TOPIC;
    if (is_offset_error(code) && take_partition_error(k, ret))
        return KAFKA_OUT_OF_RANGE;
    if (code == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION && take_partition_error(k, ret))
        return KAFKA_NO_PARTITION;
    if ((code == RD_KAFKA_RESP_ERR__BAD_COMPRESSION || code == RD_KAFKA_RESP_ERR__BAD_MSG) &&
        take_partition_error(k, ret))
        return KAFKA_UNREADABLE;
    return KAFKA_TROUBLE;
}

static enum kafka_poll_result take_message(struct kafka_consumer *k, struct kafka_poll *ret)
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

/* When its queue was full (before 2.2) or a partition was started, librdkafka looks only once a second
 * whether it may fetch again. Any request to the partitions' leaders makes it look at once. */
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

    if (k->taken < KAFKA_WAKE_BYTES)
        return rd_kafka_queue_poll(k->queue, timeout_ms);
    event = rd_kafka_queue_poll(k->queue, MIN(timeout_ms, WAKE_AFTER_MS));
    if (event)
        return event;
    wake_fetcher(k);
    return rd_kafka_queue_poll(k->queue, timeout_ms);
}

enum kafka_poll_result kafka_consumer_poll(struct kafka_consumer *k, int timeout_ms, struct kafka_poll *ret)
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
