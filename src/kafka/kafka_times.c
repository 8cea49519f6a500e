/* Offsets by the time of messages. See kafka_times.h. */
#include "kafka/kafka_times.h"

#include <errno.h>
#include <librdkafka/rdkafka.h>

#include "kafka/kafka_fault.h"

/* What the broker tells of each: the offset of the first message that is not older than `which` (Unix time in
 * milliseconds), or, as the protocol has it, of an end of the log. The call that is meant for the ends,
 * rd_kafka_query_watermark_offsets(), waits for brokers that do not answer, whatever its timeout is. */
static rd_kafka_topic_partition_list_t *ask(rd_kafka_t *rk, const struct kafka_partition *partitions,
                                            size_t count, int64_t which, int timeout_ms,
                                            rd_kafka_resp_err_t *ret_code)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int) count);

    for (size_t i = 0; i < count; i++)
        rd_kafka_topic_partition_list_add(list, partitions[i].topic, partitions[i].partition)->offset = which;
    *ret_code = rd_kafka_offsets_for_times(rk, list, timeout_ms);
    return list;
}

static int ask_offset(rd_kafka_t *rk, const char *topic, int32_t partition, int64_t which, int timeout_ms,
                      int64_t *ret)
{
    const struct kafka_partition at = {.topic = topic, .partition = partition};
    rd_kafka_resp_err_t code;
    rd_kafka_topic_partition_list_t *list = ask(rk, &at, 1, which, timeout_ms, &code);

    if (!code)
        code = list->elems[0].err;
    *ret = list->elems[0].offset;
    rd_kafka_topic_partition_list_destroy(list);
    return code;
}

int kafka_ends_ask(rd_kafka_t *rk, const char *topic, int32_t partition, int timeout_ms, int64_t *ret_first,
                   int64_t *ret_end)
{
    int code = ask_offset(rk, topic, partition, RD_KAFKA_OFFSET_BEGINNING, timeout_ms, ret_first);

    return code ? code : ask_offset(rk, topic, partition, RD_KAFKA_OFFSET_END, timeout_ms, ret_end);
}

static int ask_offsets(rd_kafka_t *rk, struct kafka_partition *partitions, size_t count, int64_t which,
                       int timeout_ms)
{
    rd_kafka_resp_err_t code;
    rd_kafka_topic_partition_list_t *list = ask(rk, partitions, count, which, timeout_ms, &code);

    for (size_t i = 0; !code && i < count; i++)
        partitions[i].offset = list->elems[i].err ? -1 : list->elems[i].offset;
    rd_kafka_topic_partition_list_destroy(list);
    return code;
}

int kafka_ends_ask_all(rd_kafka_t *rk, struct kafka_partition *firsts, struct kafka_partition *ends,
                       size_t count, int timeout_ms)
{
    int code = ask_offsets(rk, firsts, count, RD_KAFKA_OFFSET_BEGINNING, timeout_ms);

    return code ? code : ask_offsets(rk, ends, count, RD_KAFKA_OFFSET_END, timeout_ms);
}

static bool is_gone(rd_kafka_resp_err_t code)
{
    return code == RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART || code == RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC ||
           code == RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION;
}

static int take_answer(const rd_kafka_topic_partition_list_t *list, struct kafka_partition *partitions,
                       struct error *err)
{
    for (int i = 0; i < list->cnt; i++) {
        const rd_kafka_topic_partition_t *found = &list->elems[i];
        if (found->err && !is_gone(found->err)) {
            error_set(err, "\"%s\", partition %d: %s", found->topic, (int) found->partition,
                      rd_kafka_err2str(found->err));
            return -EIO;
        }
        partitions[i].offset = found->err || found->offset < 0 ? -1 : found->offset;
    }
    return 0;
}

int kafka_times_ask(const struct config *config, int64_t at_ms, struct kafka_partition *partitions,
                    size_t count, int timeout_ms, struct error *err)
{
    static const struct kafka_setting own[] = {{NULL, NULL}};
    rd_kafka_t *rk;
    int r = kafka_client_new(&rk, config, KAFKA_PRODUCER, own, err);

    if (r < 0)
        return r;
    rd_kafka_resp_err_t code;
    rd_kafka_topic_partition_list_t *list = ask(rk, partitions, count, at_ms, timeout_ms, &code);
    if (code && !kafka_fault_read(rk, err))
        error_set(err, "%s", rd_kafka_err2str(code));
    r = code ? -EIO : take_answer(list, partitions, err);
    rd_kafka_topic_partition_list_destroy(list);
    kafka_client_free(rk, 0);
    return r;
}
