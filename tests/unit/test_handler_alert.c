/* The alert handler's pure part: which events are outcomes. */
#include "handlers/handler_alert.h"
#include "unit.h"

TEST(test_first_attempts_and_final_results_are_outcomes)
{
    static const struct {
        struct message_event event;
        bool counts, failed;
    } cases[] = {
        {{.type = EVENT_SENT, .attempt = 1, .integration_id = 5}, true, false},
        {{.type = EVENT_SENT, .attempt = 9, .integration_id = 5}, true, false},
        {{.type = EVENT_FAILED, .attempt = 1, .integration_id = 5}, true, true},
        {{.type = EVENT_FAILED, .attempt = 9, .integration_id = 5}, true, true},
        {{.type = EVENT_RETRIED, .attempt = 1, .integration_id = 5}, true, true},
        {{.type = EVENT_RETRIED, .attempt = 2, .integration_id = 5}, false, false},
        {{.type = EVENT_RETRIED, .attempt = 1, .integration_id = 5, .apart = true}, false, false},
        {{.type = EVENT_SENT, .attempt = 1}, false, false},
        {{.type = EVENT_CREATED, .integration_id = 5}, false, false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct message_event e = cases[i].event;
        struct alert_outcome outcome = {0};
        e.created_at = INT64_C(1795517979123456);
        assert_int_equal(alert_outcome_of(&e, &outcome), cases[i].counts);
        assert_int_equal(outcome.integration_id, cases[i].counts ? 5 : 0);
        assert_true(outcome.coded == (cases[i].counts ? e.created_at * 2 + cases[i].failed : 0));
    }
}

TEST(test_what_leaves_a_doubt_is_asked_for)
{
    struct message_event e = {
        .type = EVENT_RETRIED, .attempt = 1, .integration_id = 5, .subscription_id = 42};
    struct alert_outcome outcome = {0};

    e.sequence = 7;
    e.may_cost_nothing = true;
    assert_true(alert_outcome_of(&e, &outcome));
    assert_true(outcome.first_of == 42 && outcome.may_cost_nothing && outcome.sequence == 0);
    e.type = EVENT_FAILED;
    assert_true(alert_outcome_of(&e, &outcome));
    assert_true(outcome.first_of == 0 && !outcome.may_cost_nothing && outcome.sequence == 0);
    e.type = EVENT_SENT;
    e.unanswered = true;
    assert_true(alert_outcome_of(&e, &outcome));
    assert_true(outcome.first_of == 0 && outcome.sequence == 7);
}

TEST(test_outcomes_are_counted_by_ten_seconds_and_the_newest_stay)
{
    struct alert_outcome outcomes[60];
    struct alert_bucket buckets[60];
    static const struct alert_bucket expected[] = {
        {1, 101, 1, 1}, {1, 100, 2, 1}, {2, 102, 7, 7}, {2, 101, 50, 0}};
    size_t n = 0, found;

    /* The oldest first; of integration 2 each failure after all that was sent. */
    outcomes[n++] = (struct alert_outcome){.integration_id = 1, .coded = INT64_C(1000000000) * 2};
    for (int64_t i = 0; i < 50; i++)
        outcomes[n++] =
            (struct alert_outcome){.integration_id = 2, .coded = (INT64_C(1010000000) + i * 7 % 50) * 2};
    for (int64_t i = 0; i < 7; i++)
        outcomes[n++] =
            (struct alert_outcome){.integration_id = 2, .coded = (INT64_C(1020000000) + i) * 2 + 1};
    outcomes[n++] = (struct alert_outcome){.integration_id = 1, .coded = INT64_C(1009999999) * 2 + 1};
    outcomes[n++] = (struct alert_outcome){.integration_id = 1, .coded = INT64_C(1010000000) * 2 + 1};
    assert_int_equal(n, ARRAY_SIZE(outcomes));
    size_t kept = alert_sum_up(outcomes, n, buckets, &found);
    assert_int_equal(kept, 3 + ALERT_RECENT);
    assert_int_equal(found, ARRAY_SIZE(expected));
    assert_memory_equal(buckets, expected, sizeof(expected));
    for (size_t i = 0; i < ALERT_RECENT; i++) {
        int64_t place = (int64_t) i;
        assert_true(outcomes[3 + i].integration_id == 2);
        assert_true(outcomes[3 + i].coded ==
                    (i < 7 ? (INT64_C(1020000006) - place) * 2 + 1 : (INT64_C(1010000056) - place) * 2));
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_first_attempts_and_final_results_are_outcomes),
        cmocka_unit_test(test_what_leaves_a_doubt_is_asked_for),
        cmocka_unit_test(test_outcomes_are_counted_by_ten_seconds_and_the_newest_stay),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
