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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_pause_is_ten_times_the_look),
        cmocka_unit_test(test_one_that_was_held_up_makes_no_pause),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
