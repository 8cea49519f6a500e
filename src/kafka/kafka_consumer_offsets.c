/* The partitions of a member: where they start, how far they are, and what the broker has of them. See
 * kafka_consumer.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "kafka/kafka_consumer_internal.h"
#include "kafka/kafka_times.h"

/* --- assignment ------------------------------------------------------------------------------- */

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
    k->taken = KAFKA_WAKE_BYTES;
    if (!error)
        return 0;
    error_set(err, "could not start reading: %s", rd_kafka_error_string(error));
    rd_kafka_error_destroy(error);
    return -EIO;
}

/* Fails only for partitions that were never started, or when this member has ended anyway. */
void kafka_consumer_park(struct kafka_consumer *k, const struct kafka_partition *partitions, size_t count)
{
    rd_kafka_topic_partition_list_t *list = list_of(partitions, count);

    rd_kafka_error_destroy(rd_kafka_incremental_unassign(k->rk, list));
    rd_kafka_topic_partition_list_destroy(list);
}

void kafka_consumer_commit(struct kafka_consumer *k, const struct kafka_partition *partitions, size_t count)
{
    rd_kafka_topic_partition_list_t *list = list_of(partitions, count);

    rd_kafka_commit(k->rk, list, 1);
    rd_kafka_topic_partition_list_destroy(list);
}

bool kafka_consumer_may_commit(struct kafka_consumer *k, const struct kafka_partition *partition,
                               int timeout_ms)
{
    rd_kafka_topic_partition_list_t *list = list_of(partition, 1);
    rd_kafka_queue_t *queue = rd_kafka_queue_new(k->rk);
    rd_kafka_event_t *event = NULL;
    bool may = false;

    if (!rd_kafka_commit_queue(k->rk, list, queue, NULL, NULL))
        event = rd_kafka_queue_poll(queue, timeout_ms);
    if (event && !rd_kafka_event_error(event)) {
        const rd_kafka_topic_partition_list_t *done = rd_kafka_event_topic_partition_list(event);
        may = done && done->cnt == 1 && !done->elems[0].err;
    }
    if (event)
        rd_kafka_event_destroy(event);
    rd_kafka_queue_destroy(queue);
    rd_kafka_topic_partition_list_destroy(list);
    return may;
}

static int refused(rd_kafka_resp_err_t code, const char *noun, const char *topic, int32_t partition,
                   struct error *err)
{
    error_set(err, "could not read the %s of %s/%d: %s", noun, topic, (int) partition,
              rd_kafka_err2str(code));
    return -EIO;
}

int kafka_consumer_range(struct kafka_consumer *k, const char *topic, int32_t partition, int timeout_ms,
                         int64_t *ret_first, int64_t *ret_end, struct error *err)
{
    int code = kafka_ends_ask(k->rk, topic, partition, timeout_ms, ret_first, ret_end);

    return code ? refused(code, "offsets", topic, partition, err) : 0;
}

int kafka_consumer_ranges(struct kafka_consumer *k, struct kafka_partition *firsts,
                          struct kafka_partition *ends, size_t count, int timeout_ms, struct error *err)
{
    int code = kafka_ends_ask_all(k->rk, firsts, ends, count, timeout_ms);

    if (!code)
        return 0;
    error_set(err, "could not read the offsets of %zu partitions: %s", count, rd_kafka_err2str(code));
    return -EIO;
}

int64_t kafka_consumer_seen_end(struct kafka_consumer *k, const char *topic, int32_t partition)
{
    int64_t first, end;

    return rd_kafka_get_watermark_offsets(k->rk, topic, partition, &first, &end) ? -1 : end;
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

int kafka_consumer_partitions(struct kafka_consumer *k, const char *topic, int timeout_ms, int *ret,
                              struct error *err)
{
    const struct rd_kafka_metadata *metadata;
    rd_kafka_topic_t *handle = rd_kafka_topic_new(k->rk, topic, NULL);
    rd_kafka_resp_err_t code =
        handle ? rd_kafka_metadata(k->rk, 0, handle, &metadata, timeout_ms) : rd_kafka_last_error();

    if (handle)
        rd_kafka_topic_destroy(handle);
    if (code) {
        error_set(err, "could not ask for the partitions of \"%s\": %s", topic, rd_kafka_err2str(code));
        return -EIO;
    }
    *ret = has_topic(metadata, topic) ? metadata->topics[0].partition_cnt : 0;
    rd_kafka_metadata_destroy(metadata);
    return 0;
}

/* --- the group -------------------------------------------------------------------------------- */

bool kafka_consumer_is_member(struct kafka_consumer *k)
{
    char *id = rd_kafka_memberid(k->rk);
    bool is_member = id && *id;

    if (id)
        rd_kafka_mem_free(k->rk, id);
    return is_member;
}
