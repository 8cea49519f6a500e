/* The newest messages of topics. See kafka_tail.h.
 *
 * By the library's simple interface: no group is joined, and no offset is asked for or committed. */
#include "kafka/kafka_tail.h"

#include <librdkafka/rdkafka.h>

#include "kafka/kafka_conf.h"

struct kafka_tail {
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue;
    struct tail_topic {
        rd_kafka_topic_t *handle;
        int partitions;
    } * topics;
    size_t count;
    size_t open; /* partitions whose end has not come */
    rd_kafka_message_t *message;
};

int kafka_tail_new(struct kafka_tail **ret, const struct config *config,
                   const struct kafka_tail_topic *topics, size_t count, int messages, struct error *err)
{
    /* Where retention has left fewer messages than are wanted, all that are there. */
    static const struct kafka_setting own[] = {{"enable.partition.eof", "true"},
                                               {"fetch.wait.max.ms", "10"},
                                               {"auto.offset.reset", "earliest"},
                                               {NULL, NULL}};
    rd_kafka_t *rk;
    int r = kafka_client_new(&rk, config, KAFKA_CONSUMER, own, err);

    if (r < 0)
        return r;
    struct kafka_tail *t = xcalloc(1, sizeof(*t));
    t->rk = rk;
    t->queue = rd_kafka_queue_new(rk);
    t->topics = xcalloc(count + 1, sizeof(*t->topics));
    t->count = count;
    for (size_t i = 0; i < count; i++) {
        t->topics[i] =
            (struct tail_topic){rd_kafka_topic_new(rk, topics[i].name, NULL), topics[i].partitions};
        for (int p = 0; p < topics[i].partitions; p++)
            t->open += rd_kafka_consume_start_queue(t->topics[i].handle, p, RD_KAFKA_OFFSET_TAIL(messages),
                                                    t->queue) == 0;
    }
    *ret = t;
    return 0;
}

static void drop_message(struct kafka_tail *t)
{
    if (t->message)
        rd_kafka_message_destroy(TAKE_PTR(t->message));
}

void kafka_tail_free(struct kafka_tail *t)
{
    if (!t)
        return;
    drop_message(t);
    for (size_t i = 0; i < t->count; i++) {
        for (int p = 0; p < t->topics[i].partitions; p++)
            rd_kafka_consume_stop(t->topics[i].handle, p);
        rd_kafka_topic_destroy(t->topics[i].handle);
    }
    rd_kafka_queue_destroy(t->queue);
    rd_kafka_destroy(t->rk);
    free(t->topics);
    free(t);
}

enum kafka_tail_result kafka_tail_next(struct kafka_tail *t, int timeout_ms, struct error *err)
{
    drop_message(t);
    if (t->open == 0)
        return KAFKA_TAIL_END;
    t->message = rd_kafka_consume_queue(t->queue, timeout_ms);
    if (!t->message)
        return KAFKA_TAIL_NOTHING;
    if (t->message->err == RD_KAFKA_RESP_ERR_NO_ERROR)
        return KAFKA_TAIL_MESSAGE;
    t->open--;
    if (t->message->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
        return t->open > 0 ? KAFKA_TAIL_NOTHING : KAFKA_TAIL_END;
    error_set(err, "could not read the end of partition %d of \"%s\": %s", (int) t->message->partition,
              t->message->rkt ? rd_kafka_topic_name(t->message->rkt) : "",
              rd_kafka_message_errstr(t->message));
    return KAFKA_TAIL_REFUSED;
}

struct bytes kafka_tail_header(const struct kafka_tail *t, const char *name)
{
    rd_kafka_headers_t *headers;
    const void *value = NULL;
    size_t len = 0;

    if (!t->message || rd_kafka_message_headers(t->message, &headers) ||
        rd_kafka_header_get_last(headers, name, &value, &len))
        return (struct bytes){0};
    return (struct bytes){value, len};
}
