/* When open circuits are looked for. */
#include "delivery/probes.h"

#include "unit.h"

#define POLL (1 * USEC_PER_SEC)

TEST(test_one_that_is_planned_is_due_at_its_time)
{
    struct probes p = PROBES_INIT;

    probes_begun(&p, 1000000);
    assert_int_equal(probes_wait(&p, 1000000), USEC_INFINITY);
    probes_plan(&p, 1500000);
    probes_plan(&p, 1700000);
    assert_int_equal(probes_wait(&p, 1100000), 400000);
    assert_int_equal(probes_wait(&p, 1600000), 0);
    assert_false(probes_are_due(&p, POLL, 1499999));
    assert_true(probes_are_due(&p, POLL, 1500000));
}

TEST(test_all_are_looked_for_now_and_then)
{
    struct probes p = PROBES_INIT;

    probes_begun(&p, 1000000);
    assert_false(probes_are_due(&p, POLL, 1999999));
    assert_true(probes_are_due(&p, POLL, 2000000));
}

TEST(test_a_look_that_costs_much_is_seldom_whatever_is_planned)
{
    struct probes p = PROBES_INIT;

    for (int i = 0; i < 2; i++) { /* the first one may have been held up */
        probes_begun(&p, 1000000);
        probes_looked(&p, 300 * USEC_PER_MSEC, false, USEC_INFINITY, 1300000);
    }
    probes_plan(&p, 1300000);
    assert_int_equal(probes_wait(&p, 1300000), 3 * USEC_PER_SEC);
    assert_false(probes_are_due(&p, POLL, 4299999));
    assert_true(probes_are_due(&p, POLL, 4300000));
}

TEST(test_one_that_finds_a_probe_is_repeated_when_the_next_is_due)
{
    struct probes p = PROBES_INIT;

    for (int i = 0; i < 2; i++) {
        probes_begun(&p, 1000000);
        probes_looked(&p, 300 * USEC_PER_MSEC, true, 1350000, 1300000);
    }
    assert_true(probes_are_due(&p, POLL, 1350000));
}

TEST(test_fruitless_looks_are_repeated_ever_later_and_end)
{
    struct probes p = PROBES_INIT;
    uint64_t now = 0;
    int looks = 0;

    for (uint64_t wait = 0; wait < USEC_INFINITY; wait = probes_wait(&p, now)) {
        now += wait;
        probes_begun(&p, now);
        probes_looked(&p, 100, false, USEC_INFINITY, now);
        looks++;
    }
    assert_int_equal(looks, 6);
    assert_int_equal(now, 62 * PROBES_APART_USEC);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_that_is_planned_is_due_at_its_time),
        cmocka_unit_test(test_all_are_looked_for_now_and_then),
        cmocka_unit_test(test_a_look_that_costs_much_is_seldom_whatever_is_planned),
        cmocka_unit_test(test_one_that_finds_a_probe_is_repeated_when_the_next_is_due),
        cmocka_unit_test(test_fruitless_looks_are_repeated_ever_later_and_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
