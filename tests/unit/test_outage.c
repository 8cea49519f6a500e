/* When an outage is said, and when its end is. */

#include "base/timeutil.h"
#include "delivery/outage.h"
#include "unit.h"

#define AT(seconds) ((uint64_t) (1000 + (seconds)) * USEC_PER_SEC)

TEST(test_the_twentieth_in_a_row_is_said_once)
{
    struct outage o = {0}, was;
    for (int i = 1; i <= 19; i++)
        assert_false(outage_goes_on(&o, AT(0), 1));
    assert_true(outage_goes_on(&o, AT(1), 1));
    for (int i = 0; i < 10000; i++)
        assert_false(outage_goes_on(&o, AT(i), 1));
    assert_true(outage_over(&o, &was));
    assert_int_equal(was.attempts, 10020);
    assert_int_equal(was.since, AT(0));
    assert_false(outage_over(&o, &was));
}

TEST(test_fewer_are_said_when_they_last)
{
    struct outage o = {0};
    assert_false(outage_goes_on(&o, AT(0), 1));
    assert_false(outage_goes_on(&o, AT(30), 1));
    assert_true(outage_goes_on(&o, AT(90), 1));
    assert_int_equal(o.attempts, 3);
}

TEST(test_one_that_is_taken_ends_the_row)
{
    struct outage o = {0}, was;
    for (int i = 0; i < 1000; i++) {
        assert_false(outage_goes_on(&o, AT(i), 1));
        if (i % 4 == 3)
            assert_false(outage_over(&o, &was)); /* nothing was said, so there is nothing to take back */
    }
}

TEST(test_what_comes_and_goes_is_said_once_a_minute)
{
    struct outage o = {0}, was;
    int begun = 0, ended = 0;
    for (int second = 0; second < 600; second++) {
        for (int i = 0; i < 20; i++)
            begun += outage_goes_on(&o, AT(second), 1);
        ended += outage_over(&o, &was);
    }
    assert_int_equal(begun, 10);
    assert_int_equal(ended, 10);
}

TEST(test_one_that_begins_in_the_quiet_time_is_said_after_it)
{
    struct outage o = {0}, was;
    for (int i = 0; i < 20; i++)
        outage_goes_on(&o, AT(0), 1);
    assert_true(outage_over(&o, &was));
    for (int second = 10; second < 60; second++)
        assert_false(outage_goes_on(&o, AT(second), 1));
    assert_true(outage_goes_on(&o, AT(60), 1));
    assert_true(outage_over(&o, &was));
    assert_int_equal(was.since, AT(10));
    assert_int_equal(was.attempts, 51);
}

TEST(test_a_few_refusals_are_none)
{
    struct outage o = {0}, was;
    for (int i = 0; i < 4; i++)
        assert_false(outage_goes_on(&o, AT(1000 * i), 5));
    assert_true(outage_goes_on(&o, AT(4000), 5));
    assert_true(outage_over(&o, &was));
    for (int i = 0; i < 19; i++)
        assert_false(outage_goes_on(&o, AT(5000), 5));
    assert_true(outage_goes_on(&o, AT(5000), 5));
}

TEST(test_a_long_wait_is_said_at_once)
{
    struct outage o = {0}, was;
    assert_true(outage_goes_on(&o, AT(0), OUTAGE_NOW));
    assert_false(outage_goes_on(&o, AT(1), OUTAGE_NOW));
    assert_true(outage_over(&o, &was));
    assert_int_equal(was.attempts, 2);
    assert_false(outage_goes_on(&o, AT(2), OUTAGE_NOW)); /* it comes and goes */
    assert_true(outage_goes_on(&o, AT(60), OUTAGE_NOW));
}

TEST(test_a_pause_ends_a_row_that_was_not_said)
{
    struct outage o = {0}, was;
    for (int turn = 0; turn < 3; turn++) {
        for (int i = 0; i < 19; i++)
            assert_false(outage_goes_on(&o, AT(1), 5));
        outage_paused(&o);
    }
    assert_false(outage_over(&o, &was));
    for (int i = 0; i < 20; i++)
        outage_goes_on(&o, AT(2), 5);
    outage_paused(&o);
    assert_true(outage_over(&o, &was));
    assert_int_equal(was.attempts, 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_twentieth_in_a_row_is_said_once),
        cmocka_unit_test(test_fewer_are_said_when_they_last),
        cmocka_unit_test(test_one_that_is_taken_ends_the_row),
        cmocka_unit_test(test_what_comes_and_goes_is_said_once_a_minute),
        cmocka_unit_test(test_one_that_begins_in_the_quiet_time_is_said_after_it),
        cmocka_unit_test(test_a_few_refusals_are_none),
        cmocka_unit_test(test_a_long_wait_is_said_at_once),
        cmocka_unit_test(test_a_pause_ends_a_row_that_was_not_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
