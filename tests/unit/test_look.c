/* How soon the database is asked again. */
#include "delivery/look.h"

#include "base/timeutil.h"
#include "unit.h"

TEST(test_a_pause_is_ten_times_the_look)
{
    struct look l = {0};

    look_pause(&l, 80 * USEC_PER_MSEC);
    assert_int_equal(look_pause(&l, 80 * USEC_PER_MSEC), 800 * USEC_PER_MSEC);
    assert_int_equal(look_pause(&l, 90 * USEC_PER_MSEC), 800 * USEC_PER_MSEC);
    assert_int_equal(look_pause(&l, 1 * USEC_PER_MSEC), 10 * USEC_PER_MSEC);
}

TEST(test_one_that_was_held_up_makes_no_pause)
{
    struct look l = {0};

    look_pause(&l, 1 * USEC_PER_MSEC);
    assert_int_equal(look_pause(&l, 20 * USEC_PER_SEC), 10 * USEC_PER_MSEC);
    assert_int_equal(look_pause(&l, 1 * USEC_PER_MSEC), 10 * USEC_PER_MSEC);
    look_pause(&l, UINT64_MAX);
    assert_int_equal(look_pause(&l, UINT64_MAX), 60 * USEC_PER_SEC);
}

TEST(test_rows_of_others_wait_ten_milliseconds_while_one_has_more)
{
    struct looks l = {0};

    looks_note(&l, &l.everywhere, USEC_PER_MSEC, true, 1000000);
    assert_true(looks_can_wait(&l, 1009999));
    assert_false(looks_can_wait(&l, 1010000));
    assert_int_equal(l.everywhere_at, 1100000); /* so that one is nearby */
    looks_note(&l, &l.nearby, USEC_PER_MSEC, false, 1010000);
    assert_false(looks_can_wait(&l, 1020000));
    assert_int_equal(l.everywhere_at, 1100000);
}

TEST(test_what_each_look_takes_is_no_reason_for_a_pause)
{
    struct looks l = {0};

    looks_note(&l, &l.nearby, USEC_PER_MSEC, true, 1000000); /* by another clock */
    for (int i = 0; i < 3; i++) {
        looks_note(&l, &l.nearby, (uint64_t) (15 + i) * USEC_PER_MSEC, false, 2000000);
        assert_int_equal(l.nearby.again_at, 2000000);
        looks_note(&l, &l.everywhere, 30 * USEC_PER_MSEC, false, 2000000);
        assert_int_equal(l.everywhere.again_at, 2000000);
    }
    looks_note(&l, &l.nearby, 40 * USEC_PER_MSEC, false, 2000000);
    looks_note(&l, &l.nearby, 40 * USEC_PER_MSEC, false, 2000000);
    assert_int_equal(l.nearby.again_at, 2100000);
}

TEST(test_slow_looks_from_the_first_on_make_pauses)
{
    struct looks l = {0};

    looks_note(&l, &l.nearby, 500 * USEC_PER_MSEC, false, 1000000);
    looks_note(&l, &l.nearby, 550 * USEC_PER_MSEC, false, 1000000);
    assert_int_equal(l.nearby.again_at, 1000000 + 10 * 450 * USEC_PER_MSEC);
}

/* After quick ones. */
#define SLOW (60 * USEC_PER_MSEC)
static const struct looks quick = {.quickest = {5 * USEC_PER_MSEC, 5 * USEC_PER_MSEC}};

TEST(test_one_from_the_start_is_half_as_often)
{
    struct looks l = quick;

    looks_note(&l, &l.everywhere, SLOW, true, 1000000);
    looks_note(&l, &l.everywhere, SLOW, true, 2000000);
    assert_int_equal(l.everywhere_at, 3000000);
    assert_false(looks_can_wait(&l, 3000000));
}

TEST(test_looks_that_cost_much_are_seldom)
{
    struct looks l = quick;

    looks_note(&l, &l.nearby, SLOW, true, 1000000); /* the first one may have been held up */
    looks_note(&l, &l.nearby, SLOW, true, 2000000);
    assert_true(looks_can_wait(&l, 2499999));
    assert_false(looks_can_wait(&l, 2500000));
}

TEST(test_those_that_have_more_go_on_when_there_can_be_no_look)
{
    struct looks l = quick;

    looks_note(&l, &l.everywhere, SLOW, false, 1000000);
    looks_note(&l, &l.everywhere, SLOW, false, 2000000);
    looks_note(&l, &l.nearby, USEC_PER_MSEC, false, 2000000);
    assert_true(looks_can_wait(&l, 2999999)); /* nobody knows whether a nearby one will be possible */
    assert_false(looks_can_wait(&l, 3000000));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_pause_is_ten_times_the_look),
        cmocka_unit_test(test_one_that_was_held_up_makes_no_pause),
        cmocka_unit_test(test_rows_of_others_wait_ten_milliseconds_while_one_has_more),
        cmocka_unit_test(test_what_each_look_takes_is_no_reason_for_a_pause),
        cmocka_unit_test(test_slow_looks_from_the_first_on_make_pauses),
        cmocka_unit_test(test_one_from_the_start_is_half_as_often),
        cmocka_unit_test(test_looks_that_cost_much_are_seldom),
        cmocka_unit_test(test_those_that_have_more_go_on_when_there_can_be_no_look),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
