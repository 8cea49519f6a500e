/* A batch of the relay, between a ledger and a producer that this file plays: it defines the functions of
 * store_relay, kafka_producer and pg that relay_batch.c calls, so the linker takes none of theirs. */
#include <errno.h>
#include <string.h>

#include "relay/relay_batch.h"
#include "unit.h"

/* --- the ledger ------------------------------------------------------------------------------- */

struct row {
    enum store_relay_kind kind;
    int64_t id, total;
    bool foreign; /* a row of the application's own, which is no event */
};

struct pg_result {
    struct row rows[8]; /* the head first */
    int count;
};

int pg_rows(const struct pg_result *r)
{
    return r->count;
}

void pg_result_free(struct pg_result *r)
{
    free(r);
}

void store_relay_head(const struct pg_result *r, int64_t *ret_xmin, int64_t *ret_wal_position)
{
    *ret_xmin = 100;
    *ret_wal_position = r->rows[0].id;
}

enum store_relay_kind store_relay_row_kind(const struct pg_result *r, int row, int64_t *ret_id,
                                           int64_t *ret_total)
{
    *ret_id = r->rows[row].id;
    *ret_total = r->rows[row].total;
    return r->rows[row].kind;
}

void store_relay_row(const struct pg_result *r, int row, struct event *ret)
{
    *ret = (struct event){
        .id = r->rows[row].id,
        .event_type = r->rows[row].foreign ? (struct bytes){"note", 4} : (struct bytes){"sent", 4},
        .subscription.id = {true, r->rows[row].id},
    };
}

/* --- the producer ----------------------------------------------------------------------------- */

static struct {
    size_t room;     /* what its queue takes */
    int64_t refused; /* the id of an event that it refuses at once */
    size_t sent[64]; /* numbers, in order */
    size_t sent_count;
} producer;

int32_t relay_topics_partition(const struct relay_topics *t, enum event_type type, int64_t sequence,
                               struct bytes key)
{
    (void) t;
    (void) key;
    assert_int_equal(type, EVENT_SENT);
    return (int32_t) sequence;
}

int kafka_producer_send(struct kafka_producer *p, const struct kafka_outgoing *m, enum kafka_fate *ret_fate,
                        struct error *err)
{
    (void) p;
    if (producer.sent_count == producer.room)
        return KAFKA_FULL;
    if (m->partition == producer.refused) {
        *ret_fate = KAFKA_REFUSED;
        error_set(err, "too large");
        return KAFKA_NOT_SENT;
    }
    producer.sent[producer.sent_count++] = m->number;
    return KAFKA_QUEUED;
}

/* --- the scene -------------------------------------------------------------------------------- */

#define LIMIT 4
#define BUDGET 1000

static struct relay_batch batch;
static struct gaps gaps;
static struct event_builder builder;

static int scene_start(void **state)
{
    static const unsigned char name_space[16] = {1};

    (void) state;
    memset(&producer, 0, sizeof(producer));
    producer.room = ARRAY_SIZE(producer.sent);
    gaps = (struct gaps){.high = 10};
    event_builder_init(&builder, name_space, 1 << 20);
    return 0;
}

static int scene_end(void **state)
{
    (void) state;
    relay_batch_free(&batch);
    gaps_free(&gaps);
    event_builder_free(&builder);
    return 0;
}

static int take(const struct row *rows, int count)
{
    struct pg_result *result = xcalloc(1, sizeof(*result));
    struct error err;

    result->rows[0].id = 4711;
    memcpy(result->rows + 1, rows, (size_t) count * sizeof(*rows));
    result->count = count + 1;
    return relay_batch_take(&batch, result, &gaps, LIMIT, BUDGET, &err);
}

#define TAKE(...)                                                                                            \
    take((const struct row[]){__VA_ARGS__}, sizeof((const struct row[]){__VA_ARGS__}) / sizeof(struct row))
#define ABOVE(number)                                                                                        \
    {                                                                                                        \
        .kind = STORE_RELAY_ABOVE, .id = (number)                                                            \
    }
#define FOUND(number)                                                                                        \
    {                                                                                                        \
        .kind = STORE_RELAY_FOUND, .id = (number)                                                            \
    }

static void send_rows(void)
{
    relay_batch_send(&batch, &builder, NULL, NULL);
}

static void report(size_t row, enum kafka_fate fate)
{
    relay_batch_report(row, fate, fate == KAFKA_DELIVERED ? NULL : "a reason", &batch);
}

/* --- what is taken ---------------------------------------------------------------------------- */

TEST(test_rows_above_are_taken_and_open_gaps)
{
    assert_int_equal(TAKE(ABOVE(12), ABOVE(13)), 0);
    assert_true(relay_batch_has_rows(&batch));
    assert_int_equal(batch.rows, 3);
    assert_false(batch.full);
    assert_int_equal(gaps.high, 13);
    assert_int_equal(gaps.count, 1);
    assert_int_equal(relay_batch_id(&batch, 1), 12);
}

TEST(test_a_head_alone_has_no_rows)
{
    assert_int_equal(take(&(struct row){0}, 0), 0);
    assert_false(relay_batch_has_rows(&batch));
    assert_true(relay_batch_is_done(&batch));
}

TEST(test_the_limit_of_rows_above_fills_the_batch)
{
    assert_int_equal(TAKE(ABOVE(11), ABOVE(12), ABOVE(13), ABOVE(14)), 0);
    assert_true(batch.full);
    assert_int_equal(batch.rows, 5);
}

TEST(test_the_budget_fills_the_batch)
{
    assert_int_equal(TAKE({.kind = STORE_RELAY_ABOVE, .id = 11, .total = BUDGET}), 0);
    assert_true(batch.full);
    assert_int_equal(batch.rows, 2);
}

/* A row found later could belong to the subscription of a row above, and would be overtaken by it. */
TEST(test_nothing_above_passes_before_all_gaps_were_looked_into)
{
    assert_int_equal(TAKE(ABOVE(20)), 0); /* the gap from 11 to 19 */
    assert_int_equal(TAKE(FOUND(11), FOUND(12), FOUND(13), FOUND(14), ABOVE(21)), 0);
    assert_true(batch.full);
    assert_int_equal(batch.rows, 5);
    assert_int_equal(gaps.high, 20);
    assert_int_equal(TAKE(FOUND(15), ABOVE(21)), 0);
    assert_int_equal(batch.rows, 3);
    assert_int_equal(gaps.high, 21);
}

TEST(test_ids_that_do_not_fit_are_refused)
{
    assert_int_equal(TAKE(FOUND(5)), -EBADMSG); /* published long ago */
    assert_null(batch.result);
    assert_int_equal(gaps.high, 10);
}

/* --- what is sent ----------------------------------------------------------------------------- */

TEST(test_a_batch_is_done_when_each_row_is_delivered)
{
    TAKE(ABOVE(11), ABOVE(12));
    send_rows();
    assert_int_equal(producer.sent_count, 2);
    assert_int_equal(batch.on_the_way, 2);
    report(2, KAFKA_DELIVERED);
    assert_false(relay_batch_is_done(&batch));
    report(1, KAFKA_DELIVERED);
    report(1, KAFKA_DELIVERED); /* a second report, and one of nobody's, change nothing */
    report(7, KAFKA_DELIVERED);
    assert_true(relay_batch_is_done(&batch));
    assert_int_equal(batch.delivered, 2);
}

TEST(test_rows_that_are_no_events_are_left_out)
{
    TAKE({.kind = STORE_RELAY_ABOVE, .id = 11, .foreign = true}, ABOVE(12));
    send_rows();
    assert_int_equal(producer.sent_count, 1);
    assert_int_equal(producer.sent[0], 2);
    report(2, KAFKA_DELIVERED);
    assert_true(relay_batch_is_done(&batch));
}

TEST(test_a_full_queue_is_tried_again)
{
    producer.room = 1;
    TAKE(ABOVE(11), ABOVE(12));
    send_rows();
    assert_int_equal(batch.on_the_way, 1);
    producer.room = 2;
    send_rows();
    assert_int_equal(batch.on_the_way, 2);
    assert_int_equal(producer.sent[1], 2);
}

TEST(test_nothing_is_sent_after_a_refusal)
{
    producer.refused = 12;
    TAKE(ABOVE(11), ABOVE(12), ABOVE(13));
    send_rows();
    send_rows();
    assert_int_equal(producer.sent_count, 1);
    assert_int_equal(batch.failed_row, 2);
    assert_int_equal(batch.failed_fate, KAFKA_REFUSED);
    assert_string_equal(batch.failed_reason.text, "too large");
    report(1, KAFKA_DELIVERED);
    assert_false(relay_batch_is_done(&batch));
}

/* A refusal explains why other rows came back, so it is the one to be named; of several, the first. */
TEST(test_which_failure_is_named)
{
    TAKE(ABOVE(11), ABOVE(12), ABOVE(13), ABOVE(14));
    send_rows();
    report(2, KAFKA_UNKNOWN);
    assert_int_equal(batch.failed_row, 2);
    report(1, KAFKA_UNKNOWN);
    assert_int_equal(batch.failed_row, 1);
    report(4, KAFKA_REFUSED);
    assert_int_equal(batch.failed_row, 4);
    report(3, KAFKA_REFUSED);
    assert_int_equal(batch.failed_row, 3);
    assert_int_equal(batch.on_the_way, 0);
}

TEST(test_after_a_new_start_only_what_was_not_delivered_is_sent)
{
    TAKE(ABOVE(11), ABOVE(12), ABOVE(13));
    send_rows();
    report(2, KAFKA_DELIVERED);
    report(1, KAFKA_UNKNOWN);
    relay_batch_fail(&batch, "the producer is broken");
    assert_int_equal(batch.failed_row, 1);
    relay_batch_rewind(&batch);
    assert_int_equal(batch.failed_row, 0);
    send_rows();
    assert_int_equal(producer.sent_count, 5);
    assert_int_equal(producer.sent[3], 1);
    assert_int_equal(producer.sent[4], 3);
    report(3, KAFKA_DELIVERED);
    report(1, KAFKA_DELIVERED);
    assert_true(relay_batch_is_done(&batch));
    assert_int_equal(batch.delivered, 3);
}

TEST(test_a_broken_producer_fails_the_first_row_without_a_report)
{
    TAKE(ABOVE(11), ABOVE(12));
    send_rows();
    report(1, KAFKA_DELIVERED);
    relay_batch_fail(&batch, "broken");
    assert_int_equal(batch.failed_row, 2);
    assert_int_equal(batch.failed_fate, KAFKA_UNKNOWN);
    assert_string_equal(batch.failed_reason.text, "broken");
}

#define SCENE(test) cmocka_unit_test_setup_teardown(test, scene_start, scene_end)

int main(void)
{
    static const struct CMUnitTest tests[] = {
        SCENE(test_rows_above_are_taken_and_open_gaps),
        SCENE(test_a_head_alone_has_no_rows),
        SCENE(test_the_limit_of_rows_above_fills_the_batch),
        SCENE(test_the_budget_fills_the_batch),
        SCENE(test_nothing_above_passes_before_all_gaps_were_looked_into),
        SCENE(test_ids_that_do_not_fit_are_refused),
        SCENE(test_a_batch_is_done_when_each_row_is_delivered),
        SCENE(test_rows_that_are_no_events_are_left_out),
        SCENE(test_a_full_queue_is_tried_again),
        SCENE(test_nothing_is_sent_after_a_refusal),
        SCENE(test_which_failure_is_named),
        SCENE(test_after_a_new_start_only_what_was_not_delivered_is_sent),
        SCENE(test_a_broken_producer_fails_the_first_row_without_a_report),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
