/* Waiting times: growth, jitter, limits. */
#include <limits.h>
#include <string.h>

#include "base/backoff.h"
#include "unit.h"

TEST(test_exponential_doubles_up_to_the_maximum)
{
    assert_int_equal(backoff_exponential_usec(100, 1000, 1, 0, 0.5), 100);
    assert_int_equal(backoff_exponential_usec(100, 1000, 2, 0, 0.5), 200);
    assert_int_equal(backoff_exponential_usec(100, 1000, 4, 0, 0.5), 800);
    assert_int_equal(backoff_exponential_usec(100, 1000, 5, 0, 0.5), 1000);
    assert_int_equal(backoff_exponential_usec(100, 1000, INT_MAX, 0, 0.5), 1000);
}

TEST(test_exponential_takes_odd_arguments)
{
    assert_int_equal(backoff_exponential_usec(100, 1000, 0, 0, 0.5), 100);
    assert_int_equal(backoff_exponential_usec(100, 1000, INT_MIN, 0, 0.5), 100);
    assert_int_equal(backoff_exponential_usec(5000, 1000, 1, 0, 0.5), 1000);
    assert_int_equal(backoff_exponential_usec(0, 1000, 9, 0, 0.5), 0);
    assert_true(backoff_exponential_usec(UINT64_MAX / 4, UINT64_MAX / 2, 3, 0, 0) <= UINT64_MAX / 2 + 1);
}

TEST(test_exponential_jitter_spreads_both_ways)
{
    assert_int_equal(backoff_exponential_usec(1000, 9000, 1, 0.2, 0.0), 800);
    assert_int_equal(backoff_exponential_usec(1000, 9000, 1, 0.2, 0.5), 1000);
    assert_in_range(backoff_exponential_usec(1000, 9000, 1, 0.2, 0.999999), 1199, 1200);
    assert_in_range(backoff_exponential_usec(1000, 9000, 40, 0.2, 0.999999), 10799, 10800);
}

TEST(test_decorrelated_stays_within_its_bounds)
{
    struct backoff b = {.base_usec = 100, .max_usec = 10000};
    uint64_t longest = 0;

    for (int i = 0; i < 10000; i++) {
        uint64_t last = b.last_usec ? b.last_usec : b.base_usec;
        uint64_t next = backoff_next_usec(&b);

        assert_in_range(next, b.base_usec, MIN(b.max_usec, 3 * last));
        longest = MAX(longest, next);
    }
    assert_true(longest > b.max_usec / 2);
}

TEST(test_reset_starts_over)
{
    struct backoff b = {.base_usec = 100, .max_usec = UINT64_MAX / 2};

    for (int i = 0; i < 200; i++)
        backoff_next_usec(&b);
    backoff_reset(&b);
    assert_in_range(backoff_next_usec(&b), 100, 300);
}

TEST(test_equal_bounds_leave_no_choice)
{
    struct backoff b = {.base_usec = 100, .max_usec = 100};

    assert_int_equal(backoff_next_usec(&b), 100);
    assert_int_equal(backoff_next_usec(&b), 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_exponential_doubles_up_to_the_maximum),
        cmocka_unit_test(test_exponential_takes_odd_arguments),
        cmocka_unit_test(test_exponential_jitter_spreads_both_ways),
        cmocka_unit_test(test_decorrelated_stays_within_its_bounds),
        cmocka_unit_test(test_reset_starts_over),
        cmocka_unit_test(test_equal_bounds_leave_no_choice),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
