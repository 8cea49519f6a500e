/* How often a subscription is tried while a shortage of this machine lasts. */
#include "delivery/trial.h"

#include "base/timeutil.h"
#include "unit.h"

/* Subscriptions that are claimed and put back within so long. */
static int tried_within(uint64_t outage_usec)
{
    int tried = 1;

    for (uint64_t lasted = 0; (lasted += trial_period(lasted)) < outage_usec; tried++)
        ;
    return tried;
}

TEST(test_a_long_outage_puts_few_rows_into_the_ledger)
{
    const uint64_t hour = 3600 * USEC_PER_SEC;

    assert_int_equal(tried_within(59 * USEC_PER_SEC), 1);
    assert_true(tried_within(hour) <= 8);
    assert_true(tried_within(6 * hour) <= 8 + 5);
    assert_true(tried_within(72 * hour) <= 8 + 71);
}

TEST(test_changed_settings_are_seen_within_an_hour)
{
    for (uint64_t lasted = 0; lasted < UINT64_MAX / 4; lasted += trial_period(lasted) + lasted / 8)
        assert_in_range(trial_period(lasted), 60 * USEC_PER_SEC, 3600 * USEC_PER_SEC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_long_outage_puts_few_rows_into_the_ledger),
        cmocka_unit_test(test_changed_settings_are_seen_within_an_hour),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
