/* A batch of the relay, between a ledger and a producer that this file plays: it defines the functions of
 * store_relay, kafka_producer and pg that relay_batch.c calls, so the linker takes none of theirs. */
#include <errno.h>
#include <string.h>

#include "relay/relay_batch.h"
#include "unit.h"

/* --- the ledger ------------------------------------------------------------------------------- */

struct row {
    int64_t id;
    bool foreign; /* a row of the application's own, which is no event */
};

struct pg_result {
    struct row rows[8]; /* the head first */
    int count;
    bool cut;
};

int pg_rows(const struct pg_result *r)
{
    return r->count;
}

void pg_result_free(struct pg_result *r)
{
    free(r);
}

void store_relay_head(const struct pg_result *r, struct store_relay_head *ret)
{
    *ret = (struct store_relay_head){.xmin = 100, .wal_position = r->rows[0].id, .cut = r->cut};
}

int64_t store_relay_row_id(const struct pg_result *r, int row)
{
    return r->rows[row].id;
}

void relay_names_find(const struct relay_names *n, struct event_integration *i)
{
    (void) n;
    (void) i;
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
    int flushes;
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

void kafka_producer_flush(struct kafka_producer *p)
{
    (void) p;
    producer.flushes++;
}

/* --- the scene -------------------------------------------------------------------------------- */

#define LIMIT 4

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

static int take(const struct row *rows, int count, bool cut)
{
    struct pg_result *result = xcalloc(1, sizeof(*result));
    struct error err;

    result->rows[0].id = 4711;
    memcpy(result->rows + 1, rows, (size_t) count * sizeof(*rows));
    result->count = count + 1;
    result->cut = cut;
    return relay_batch_take(&batch, result, &gaps, LIMIT, &err);
}

#define TAKE_WHEN(cut, ...)                                                                                  \
    take((const struct row[]){__VA_ARGS__}, sizeof((const struct row[]){__VA_ARGS__}) / sizeof(struct row),  \
         cut)
#define TAKE(...) TAKE_WHEN(false, __VA_ARGS__)
#define ROW(number)                                                                                          \
    {                                                                                                        \
        .id = (number)                                                                                       \
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
    assert_int_equal(TAKE(ROW(12), ROW(13)), 0);
    assert_true(relay_batch_has_rows(&batch));
    assert_int_equal(batch.rows, 3);
    assert_false(batch.full);
    assert_int_equal(gaps.high, 13);
    assert_int_equal(gaps.count, 1);
    assert_int_equal(relay_batch_id(&batch, 1), 12);
}

TEST(test_a_head_alone_has_no_rows)
{
    assert_int_equal(take(&(struct row){0}, 0, false), 0);
    assert_false(relay_batch_has_rows(&batch));
    assert_true(relay_batch_is_done(&batch));
}

TEST(test_the_limit_fills_the_batch)
{
    assert_int_equal(TAKE(ROW(11), ROW(12), ROW(13), ROW(14)), 0);
    assert_true(batch.full);
    assert_int_equal(batch.rows, 5);
}

TEST(test_rows_left_out_for_their_size_fill_the_batch)
{
    assert_int_equal(TAKE_WHEN(true, ROW(11)), 0);
    assert_true(batch.full);
    assert_int_equal(batch.rows, 2);
    assert_int_equal(gaps.high, 11);
}

/* Ids from 11 to 19 are missing; what the horizon allows to be given up shows how far was looked. */
static void open_gap(void)
{
    assert_int_equal(TAKE(ROW(20)), 0);
    gaps_stamp(&gaps, 100);
}

TEST(test_a_gap_that_was_looked_through_is_given_up)
{
    open_gap();
    assert_int_equal(TAKE(ROW(12), ROW(14)), 0);
    assert_false(batch.full);
    assert_int_equal(gaps.count, 0);
    assert_int_equal(gaps.high, 20);
}

TEST(test_only_the_part_of_a_gap_that_was_looked_through_is_given_up)
{
    for (int cut = 0; cut < 2; cut++) {
        gaps.high = 10;
        open_gap();
        if (cut)
            assert_int_equal(TAKE_WHEN(true, ROW(12), ROW(15)), 0);
        else
            assert_int_equal(TAKE(ROW(12), ROW(13), ROW(14), ROW(15)), 0);
        assert_true(batch.full);
        assert_int_equal(gaps.count, 1);
        assert_int_equal(gaps.items[0].first, 16);
        assert_int_equal(gaps.items[0].last, 19);
        gaps_free(&gaps);
    }
}

/* Rows above come behind all gaps, so these were looked through. */
TEST(test_a_batch_that_ends_above_has_looked_through_all_gaps)
{
    open_gap();
    assert_int_equal(TAKE_WHEN(true, ROW(12), ROW(21)), 0);
    assert_true(batch.full);
    assert_int_equal(batch.rows, 3);
    assert_int_equal(gaps.count, 0);
    assert_int_equal(gaps.high, 21);
}

TEST(test_a_look_that_shows_nothing_for_its_size_gives_nothing_up)
{
    open_gap();
    assert_int_equal(take(&(struct row){0}, 0, true), 0);
    assert_int_equal(gaps.count, 1);
    assert_int_equal(gaps.items[0].first, 11);
}

TEST(test_ids_that_do_not_fit_are_refused)
{
    assert_int_equal(TAKE(ROW(5)), -EBADMSG); /* published long ago */
    assert_null(batch.result);
    assert_int_equal(gaps.high, 10);
}

/* --- what is sent ----------------------------------------------------------------------------- */

TEST(test_a_batch_is_done_when_each_row_is_delivered)
{
    TAKE(ROW(11), ROW(12));
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
    TAKE({.id = 11, .foreign = true}, ROW(12));
    send_rows();
    assert_int_equal(producer.sent_count, 1);
    assert_int_equal(producer.sent[0], 2);
    report(2, KAFKA_DELIVERED);
    assert_true(relay_batch_is_done(&batch));
}

TEST(test_a_full_queue_is_tried_again)
{
    producer.room = 1;
    TAKE(ROW(11), ROW(12));
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
    TAKE(ROW(11), ROW(12), ROW(13));
    send_rows();
    send_rows();
    assert_int_equal(producer.sent_count, 1);
    assert_int_equal(batch.failed_row, 2);
    assert_int_equal(batch.failed_fate, KAFKA_REFUSED);
    assert_string_equal(batch.failed_reason.text, "too large");
    report(1, KAFKA_DELIVERED);
    assert_false(relay_batch_is_done(&batch));
}

TEST(test_the_end_of_a_batch_is_said_once)
{
    producer.room = 2;
    TAKE(ROW(11), ROW(12), ROW(13));
    send_rows();
    assert_int_equal(producer.flushes, 0);
    producer.room = 3;
    send_rows();
    send_rows();
    assert_int_equal(producer.flushes, 1);
}

/* A refusal explains why other rows came back, so it is the one to be named; of several, the first. */
TEST(test_which_failure_is_named)
{
    TAKE(ROW(11), ROW(12), ROW(13), ROW(14));
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
    TAKE(ROW(11), ROW(12), ROW(13));
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
    TAKE(ROW(11), ROW(12));
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
        SCENE(test_the_limit_fills_the_batch),
        SCENE(test_rows_left_out_for_their_size_fill_the_batch),
        SCENE(test_a_gap_that_was_looked_through_is_given_up),
        SCENE(test_only_the_part_of_a_gap_that_was_looked_through_is_given_up),
        SCENE(test_a_batch_that_ends_above_has_looked_through_all_gaps),
        SCENE(test_a_look_that_shows_nothing_for_its_size_gives_nothing_up),
        SCENE(test_ids_that_do_not_fit_are_refused),
        SCENE(test_a_batch_is_done_when_each_row_is_delivered),
        SCENE(test_rows_that_are_no_events_are_left_out),
        SCENE(test_a_full_queue_is_tried_again),
        SCENE(test_nothing_is_sent_after_a_refusal),
        SCENE(test_the_end_of_a_batch_is_said_once),
        SCENE(test_which_failure_is_named),
        SCENE(test_after_a_new_start_only_what_was_not_delivered_is_sent),
        SCENE(test_a_broken_producer_fails_the_first_row_without_a_report),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
