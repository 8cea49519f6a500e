/* Requests that a rate_limit keeps apart. */

#include <stdlib.h>

#include "base/timeutil.h"
#include "delivery/rate.h"
#include "unit.h"

#define NSEC_PER_SEC UINT64_C(1000000000)
#define BEGIN (1000 * USEC_PER_SEC)

TEST(test_nothing_known_limits_nothing)
{
    struct rate r = {0};

    assert_int_equal(rate_send_at(&r, BEGIN), BEGIN);
    assert_int_equal(rate_claim_at(&r, BEGIN), 0);
    rate_claimed(&r, 0, 0, BEGIN);
    assert_int_equal(rate_claim_at(&r, BEGIN), 0);
}

/* However late timers are: never more than rate * T + max(1, 0.05 s worth) in any T. */
TEST(test_no_window_has_more_than_its_share)
{
    static const double rates[] = {0.1, 1, 7, 10, 25, 300, 2000};

    srand48(1);
    for (size_t n = 0; n < ARRAY_SIZE(rates); n++) {
        uint64_t interval = (uint64_t) ((double) NSEC_PER_SEC / rates[n]), sent[300];
        double burst = MAX(1.0, 0.05 * rates[n]);
        struct rate r = {0};
        uint64_t now = BEGIN;
        for (size_t i = 0; i < ARRAY_SIZE(sent); i++) {
            uint64_t slot = BEGIN + i * interval / 1000;
            rate_claimed(&r, interval, slot, now);
            now = MAX(now, rate_send_at(&r, slot));
            now += drand48() < 0.1 ? (uint64_t) (drand48() * 80000) : (uint64_t) (drand48() * 300);
            sent[i] = now;
            rate_sent(&r, now);
        }
        for (size_t i = 0; i < ARRAY_SIZE(sent); i++)
            for (size_t j = i; j < ARRAY_SIZE(sent); j++)
                assert_true((double) (j - i + 1) <=
                            rates[n] * (double) (sent[j] - sent[i]) / (double) USEC_PER_SEC + burst + 0.001);
    }
}

TEST(test_what_is_too_late_is_not_sent)
{
    assert_false(rate_is_late(BEGIN, BEGIN + 800 * USEC_PER_MSEC));
    assert_true(rate_is_late(BEGIN, BEGIN + 801 * USEC_PER_MSEC));
}

TEST(test_more_is_claimed_shortly_before_it_is_sent)
{
    struct rate r = {0};

    rate_claimed(&r, NSEC_PER_SEC / 10, BEGIN + 300 * USEC_PER_MSEC, BEGIN);
    assert_int_equal(rate_claim_at(&r, BEGIN), BEGIN + 200 * USEC_PER_MSEC);
    assert_int_equal(rate_claim_at(&r, BEGIN + 200 * USEC_PER_MSEC), 0);
    /* The operator may change a rate of one in an hour. */
    rate_claimed(&r, 3600 * NSEC_PER_SEC, BEGIN, BEGIN);
    assert_int_equal(rate_claim_at(&r, BEGIN), 0);
    /* And while nobody does, somebody looks in time. */
    assert_int_equal(rate_look_at(&r, BEGIN), BEGIN + 3600 * USEC_PER_SEC - 200 * USEC_PER_MSEC);
    assert_int_equal(rate_look_at(&r, BEGIN + 3600 * USEC_PER_SEC), 0);
}

TEST(test_another_rate_counts_at_once)
{
    struct rate r = {0};

    rate_claimed(&r, 3600 * NSEC_PER_SEC, BEGIN, BEGIN);
    rate_sent(&r, BEGIN);
    assert_int_equal(rate_send_at(&r, BEGIN + USEC_PER_SEC), BEGIN + 3600 * USEC_PER_SEC);
    rate_claimed(&r, NSEC_PER_SEC / 10, BEGIN + USEC_PER_SEC, BEGIN + USEC_PER_SEC);
    assert_int_equal(rate_send_at(&r, BEGIN + USEC_PER_SEC), BEGIN + USEC_PER_SEC + USEC_PER_SEC / 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_known_limits_nothing),
        cmocka_unit_test(test_no_window_has_more_than_its_share),
        cmocka_unit_test(test_what_is_too_late_is_not_sent),
        cmocka_unit_test(test_more_is_claimed_shortly_before_it_is_sent),
        cmocka_unit_test(test_another_rate_counts_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
