/* Which failures are said one by one, and when the others are told. */

#include "base/timeutil.h"
#include "delivery/failures.h"
#include "unit.h"

#define AT(seconds) ((uint64_t) (1000 + (seconds)) * USEC_PER_SEC)

/* `count` failures, one each `step` seconds; how many lines they make. *ret_counted: told together. */
static int lines(struct failures *f, int count, int step, uint64_t *ret_counted)
{
    struct failures were;
    int said = 0;

    *ret_counted = 0;
    for (int i = 0; i < count; i++) {
        uint64_t now = AT((uint64_t) i * (uint64_t) step);
        if (failures_take(f, now, &were)) {
            said++;
            *ret_counted += were.counted;
        }
        said += failures_add(f, i % 5 == 0, now);
    }
    if (failures_take(f, UINT64_MAX, &were)) {
        said++;
        *ret_counted += were.counted;
    }
    return said;
}

TEST(test_the_first_are_said_and_the_others_told)
{
    struct failures f = {0};
    uint64_t counted;

    assert_int_equal(failures_until(&f), USEC_INFINITY);
    assert_int_equal(lines(&f, 5000, 0, &counted), 6);
    assert_int_equal(counted, 4995);
}

TEST(test_a_slow_flood_makes_few_lines)
{
    static const int steps[] = {1, 5, 30};

    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        struct failures f = {0};
        uint64_t counted;
        int said = lines(&f, 5000, steps[i], &counted);
        assert_true(said < 100);
        assert_int_equal(counted, 4995);
    }
}

TEST(test_now_and_then_is_said_each_time)
{
    struct failures f = {0};
    uint64_t counted;

    assert_int_equal(lines(&f, 100, 61, &counted), 100);
    assert_int_equal(counted, 0);
}

TEST(test_what_was_counted_is_told_in_time)
{
    struct failures f = {0}, were;

    for (int i = 0; i < 7; i++)
        failures_add(&f, i == 6, AT(0));
    assert_int_equal(failures_until(&f), AT(10));
    assert_false(failures_take(&f, AT(9), &were));
    assert_true(failures_take(&f, AT(10), &were));
    assert_int_equal(were.counted, 2);
    assert_int_equal(were.held, 1);
    assert_false(failures_take(&f, AT(11), &were));
    assert_false(failures_add(&f, true, AT(11)));
    assert_int_equal(failures_until(&f), AT(31)); /* twice as long */
    assert_int_equal(f.held, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_first_are_said_and_the_others_told),
        cmocka_unit_test(test_a_slow_flood_makes_few_lines),
        cmocka_unit_test(test_now_and_then_is_said_each_time),
        cmocka_unit_test(test_what_was_counted_is_told_in_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
