/* A batch of the relay. See relay_batch.h. */
#include "relay/relay_batch.h"

#include <errno.h>

enum { WAITING, ON_THE_WAY, DONE };

void relay_batch_free(struct relay_batch *b)
{
    pg_result_free(b->result);
    free(b->states);
    *b = (struct relay_batch){0};
}

/* Sorts the result's ids into found and above: first come the rows within the gaps. */
static void classify_rows(struct relay_batch *b, int64_t *ids, int64_t high, struct gaps_read *read)
{
    int found_end = 1;

    for (int row = 1; row < b->rows; row++) {
        ids[row] = store_relay_row_id(b->result, row);
        if (ids[row] <= high)
            found_end = row + 1;
    }
    read->found = ids + 1;
    read->found_count = (size_t) (found_end - 1);
    read->above = ids + found_end;
    read->above_count = (size_t) (b->rows - found_end);
    /* Did the look into the gaps end early? */
    b->within_gaps = b->full && found_end == b->rows;
    read->probed_through = b->within_gaps ? ids[found_end - 1] : INT64_MAX;
    if (read->overtakes)
        read->probed_through = 0;
}

int relay_batch_take(struct relay_batch *b, struct pg_result *result, struct gaps *gaps, int limit,
                     struct error *err)
{
    CLEANUP(freep) int64_t *ids = xcalloc((size_t) pg_rows(result) + 1, sizeof(*ids));
    struct store_relay_head head;
    struct gaps_read read = {.overtakes = limit == 0};

    relay_batch_free(b);
    store_relay_head(result, &head);
    b->result = result;
    b->wal_position = head.wal_position;
    b->rows = pg_rows(result);
    b->full = head.cut || read.overtakes || b->rows - 1 == limit;
    read.xmin = head.xmin;
    classify_rows(b, ids, gaps->high, &read);
    if (gaps_take(gaps, &read) < 0) {
        error_set(err, "the ids of the ledger do not fit the position that was saved");
        relay_batch_free(b);
        return -EBADMSG;
    }
    b->states = xcalloc((size_t) b->rows, 1);
    b->next = 1;
    return 0;
}

bool relay_batch_has_rows(const struct relay_batch *b)
{
    return b->rows > 1;
}

static void fail(struct relay_batch *b, int row, enum kafka_fate fate, const char *reason)
{
    /* A refused row explains why other rows were taken back, not the other way round. */
    bool worse = fate != KAFKA_UNKNOWN && b->failed_fate == KAFKA_UNKNOWN;
    bool earlier = row < b->failed_row && (fate != KAFKA_UNKNOWN) == (b->failed_fate != KAFKA_UNKNOWN);

    if (b->failed_row && !worse && !earlier)
        return;
    b->failed_row = row;
    b->failed_fate = fate;
    error_set(&b->failed_reason, "%s", reason);
}

void relay_batch_event(const struct relay_batch *b, int row, struct event *ret)
{
    store_relay_row(b->result, row, ret);
    relay_names_find(b->names, &ret->integration);
}

static int send_row(struct relay_batch *b, int row, struct event_builder *builder,
                    const struct relay_topics *topics, struct kafka_producer *producer)
{
    struct event event;
    struct event_message m;
    enum kafka_fate fate;
    struct error reason;

    relay_batch_event(b, row, &event);
    if (!event_build(builder, &event, &m)) {
        b->states[row] = DONE;
        return KAFKA_QUEUED;
    }
    const struct kafka_outgoing outgoing = {
        .topic = (size_t) m.type,
        .partition = relay_topics_partition(topics, m.type, event.id, m.key),
        .key = m.key,
        .value = m.value,
        .headers = m.headers,
        .header_count = m.header_count,
        .number = (size_t) row,
    };
    int r = kafka_producer_send(producer, &outgoing, &fate, &reason);
    if (r == KAFKA_QUEUED) {
        b->states[row] = ON_THE_WAY;
        b->on_the_way++;
    } else if (r == KAFKA_NOT_SENT) {
        fail(b, row, fate, reason.text);
    }
    return r;
}

void relay_batch_send(struct relay_batch *b, struct event_builder *builder, const struct relay_topics *topics,
                      struct kafka_producer *producer)
{
    int first = b->next;

    for (; b->next < b->rows && !b->failed_row; b->next++)
        if (b->states[b->next] == WAITING && send_row(b, b->next, builder, topics, producer) != KAFKA_QUEUED)
            return;
    if (b->next > first)
        kafka_producer_flush(producer);
}

void relay_batch_report(size_t number, enum kafka_fate fate, const char *reason, void *userdata)
{
    struct relay_batch *b = userdata;

    if (number >= (size_t) b->rows || b->states[number] != ON_THE_WAY)
        return;
    b->on_the_way--;
    if (fate == KAFKA_DELIVERED) {
        b->states[number] = DONE;
        b->delivered++;
        return;
    }
    b->states[number] = WAITING;
    fail(b, (int) number, fate, reason);
}

void relay_batch_fail(struct relay_batch *b, const char *reason)
{
    for (int row = 1; row < b->rows; row++)
        if (b->states[row] != DONE) {
            fail(b, row, KAFKA_UNKNOWN, reason);
            return;
        }
}

int64_t relay_batch_id(const struct relay_batch *b, int row)
{
    return store_relay_row_id(b->result, row);
}

bool relay_batch_is_done(const struct relay_batch *b)
{
    return b->next == b->rows && b->on_the_way == 0 && !b->failed_row;
}

void relay_batch_rewind(struct relay_batch *b)
{
    for (int row = 1; row < b->rows; row++)
        if (b->states[row] == ON_THE_WAY)
            b->states[row] = WAITING;
    b->next = MIN(1, b->rows);
    b->on_the_way = 0;
    b->failed_row = 0;
}
