/* When an outage is said, and when its end is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/timeutil.h"
#include "delivery/outage.h"

#define AT(seconds) ((uint64_t) (1000 + (seconds)) * USEC_PER_SEC)

static void the_twentieth_in_a_row_is_said_once(void **state)
{
    struct outage o = {0}, was;
    (void) state;
    for (int i = 1; i <= 19; i++)
        assert_false(outage_goes_on(&o, AT(0)));
    assert_true(outage_goes_on(&o, AT(1)));
    for (int i = 0; i < 10000; i++)
        assert_false(outage_goes_on(&o, AT(i)));
    assert_true(outage_over(&o, &was));
    assert_int_equal(was.attempts, 10020);
    assert_int_equal(was.since, AT(0));
    assert_false(outage_over(&o, &was));
}

static void fewer_are_said_when_they_last(void **state)
{
    struct outage o = {0};
    (void) state;
    assert_false(outage_goes_on(&o, AT(0)));
    assert_false(outage_goes_on(&o, AT(30)));
    assert_true(outage_goes_on(&o, AT(90)));
    assert_int_equal(o.attempts, 3);
}

static void one_that_is_taken_ends_the_row(void **state)
{
    struct outage o = {0}, was;
    (void) state;
    for (int i = 0; i < 1000; i++) {
        assert_false(outage_goes_on(&o, AT(i)));
        if (i % 4 == 3)
            assert_false(outage_over(&o, &was)); /* nothing was said, so there is nothing to take back */
    }
}

static void what_comes_and_goes_is_said_once_a_minute(void **state)
{
    struct outage o = {0}, was;
    int begun = 0, ended = 0;
    (void) state;
    for (int second = 0; second < 600; second++) {
        for (int i = 0; i < 20; i++)
            begun += outage_goes_on(&o, AT(second));
        ended += outage_over(&o, &was);
    }
    assert_int_equal(begun, 10);
    assert_int_equal(ended, 10);
}

static void one_that_begins_in_the_quiet_time_is_said_after_it(void **state)
{
    struct outage o = {0}, was;
    (void) state;
    for (int i = 0; i < 20; i++)
        outage_goes_on(&o, AT(0));
    assert_true(outage_over(&o, &was));
    for (int second = 10; second < 60; second++)
        assert_false(outage_goes_on(&o, AT(second)));
    assert_true(outage_goes_on(&o, AT(60)));
    assert_true(outage_over(&o, &was));
    assert_int_equal(was.since, AT(10));
    assert_int_equal(was.attempts, 51);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_twentieth_in_a_row_is_said_once),
        cmocka_unit_test(fewer_are_said_when_they_last),
        cmocka_unit_test(one_that_is_taken_ends_the_row),
        cmocka_unit_test(what_comes_and_goes_is_said_once_a_minute),
        cmocka_unit_test(one_that_begins_in_the_quiet_time_is_said_after_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
