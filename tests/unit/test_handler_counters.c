/* The integration status handler's pure part: a batch of events becomes one delta for each integration. */
#include <string.h>

#include "handlers/handler_counters.h"
#include "unit.h"

#define EVENTS 5000

static void collect(struct integration_deltas *d, const struct message_event *events, size_t count)
{
    CLEANUP(freep) const struct message_event **pointers = xcalloc(count + 1, sizeof(*pointers));

    for (size_t i = 0; i < count; i++)
        pointers[i] = &events[i];
    integration_deltas_collect(d, pointers, count);
}

TEST(test_nothing_gives_nothing)
{
    struct integration_deltas d = {0};

    collect(&d, NULL, 0);
    assert_int_equal(d.count, 0);
    integration_deltas_free(&d);
}

TEST(test_sends_are_counted_by_integration)
{
    static const struct message_event events[] = {
        {.type = EVENT_SENT, .integration_id = 9, .created_at = 7},
        {.type = EVENT_FAILED, .integration_id = 2, .created_at = 8},
        {.type = EVENT_SENT, .integration_id = 9, .created_at = 5},
        {.type = EVENT_SENT, .integration_id = INT64_MAX, .created_at = 3},
        {.type = EVENT_FAILED, .integration_id = 9, .created_at = 9},
        {.type = EVENT_SENT, .integration_id = 2, .created_at = 4},
        {.type = EVENT_FAILED, .integration_id = 3, .created_at = 6},
    };
    static const struct integration_delta expected[] = {
        {2, 1, 1, 4}, {3, 0, 1, 0}, {9, 2, 1, 7}, {INT64_MAX, 1, 0, 3}};
    struct integration_deltas d = {0};

    collect(&d, events, ARRAY_SIZE(events));
    assert_int_equal(d.count, ARRAY_SIZE(expected));
    for (size_t i = 0; i < d.count; i++) {
        assert_true(d.items[i].integration_id == expected[i].integration_id);
        assert_int_equal(d.items[i].sent, expected[i].sent);
        assert_int_equal(d.items[i].failed, expected[i].failed);
        assert_int_equal(d.items[i].sent_at, expected[i].sent_at);
    }
    integration_deltas_free(&d);
}

TEST(test_unrouted_and_other_events_count_for_nobody)
{
    static const struct message_event events[] = {
        {.type = EVENT_SENT, .integration_id = 0},
        {.type = EVENT_CREATED, .integration_id = 1},
        {.type = EVENT_RETRIED, .integration_id = 1},
        {.type = EVENT_UPDATED, .integration_id = 1},
    };
    struct integration_deltas d = {0};

    collect(&d, events, ARRAY_SIZE(events));
    assert_int_equal(d.count, 0);
    integration_deltas_free(&d);
}

/* Against the plainest way to count, with the memory of the batch before still in it. */
TEST(test_random_batches)
{
    struct message_event *events = xcalloc(EVENTS, sizeof(*events));
    struct integration_deltas d = {0};
    uint32_t seed = 7;

    for (int round = 0; round < 50; round++) {
        int64_t sent[40] = {0}, failed[40] = {0}, total = 0, found = 0;
        size_t count = (seed >> 8) % EVENTS;
        for (size_t i = 0; i < count; i++) {
            seed = seed * 1664525 + 1013904223;
            events[i].integration_id = (seed >> 8) % 40;
            events[i].type = (seed >> 20) % EVENT_TYPES;
            if (events[i].integration_id > 0) {
                sent[events[i].integration_id] += events[i].type == EVENT_SENT;
                failed[events[i].integration_id] += events[i].type == EVENT_FAILED;
                total += events[i].type == EVENT_SENT || events[i].type == EVENT_FAILED;
            }
        }
        seed = seed * 1664525 + 1013904223;
        collect(&d, events, count);
        for (size_t i = 0; i < d.count; i++) {
            if (i > 0)
                assert_true(d.items[i - 1].integration_id < d.items[i].integration_id);
            assert_int_equal(d.items[i].sent, sent[d.items[i].integration_id]);
            assert_int_equal(d.items[i].failed, failed[d.items[i].integration_id]);
            found += d.items[i].sent + d.items[i].failed;
        }
        assert_int_equal(found, total);
    }
    integration_deltas_free(&d);
    free(events);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_gives_nothing),
        cmocka_unit_test(test_sends_are_counted_by_integration),
        cmocka_unit_test(test_unrouted_and_other_events_count_for_nobody),
        cmocka_unit_test(test_random_batches),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
