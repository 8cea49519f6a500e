/* When refusals in a row are counted, see burst.h. */
#include "delivery/burst.h"

#include "base/timeutil.h"
#include "unit.h"

#define HOUR (3600 * USEC_PER_SEC)
#define NOW (100 * HOUR)

TEST(test_none_is_counted_in_vain)
{
    static const struct {
        uint64_t ago;
        bool is_lately;
    } cases[] = {{0, true}, {HOUR, true}, {HOUR + 1, false}, {NOW, false}, {USEC_INFINITY, false}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct burst b = {0};
        burst_took(&b, cases[i].ago, NOW);
        for (int n = 0; n < 100; n++)
            assert_true(burst_refused(&b, NOW)); /* others may have seen it take some */
        burst_counted(&b, true);
        assert_int_equal(burst_refused(&b, NOW), cases[i].is_lately);
        burst_begin_anew(&b);
        assert_true(burst_refused(&b, NOW));
    }
    struct burst b = {0};
    (void) burst_taken(&b, NOW);
    burst_took(&b, 2 * HOUR, NOW); /* it has seen a later one itself */
    assert_true(b.taken_at == NOW);
}

TEST(test_the_first_that_is_taken_after_refusals_is_told)
{
    struct burst b = {0};

    assert_true(burst_taken(&b, NOW)); /* of none that it took before */
    assert_false(burst_taken(&b, NOW));
    (void) burst_refused(&b, NOW);
    assert_true(burst_taken(&b, NOW));
    assert_false(burst_taken(&b, NOW + 299 * USEC_PER_SEC));
    assert_true(burst_taken(&b, NOW + 300 * USEC_PER_SEC));
    burst_took(&b, 0, NOW + HOUR); /* by the counters */
    assert_false(burst_taken(&b, NOW + HOUR));
    burst_claimed(&b, 0, true); /* another daemon's */
    assert_true(burst_taken(&b, NOW));
    assert_false(burst_taken(&b, NOW));
    burst_counted(&b, true);
    assert_true(burst_refused(&b, NOW));
    assert_true(burst_taken(&b, NOW));
}

TEST(test_what_was_claimed_before_a_pause_is_held)
{
    struct burst b = {0};

    burst_claimed(&b, 3, true);
    assert_false(burst_holds(&b, NOW));
    burst_paused(&b, 4, NOW);
    assert_true(burst_holds(&b, NOW));
    burst_claimed(&b, 3, true); /* it was under way when the pause began */
    assert_true(burst_holds(&b, NOW));
    burst_claimed(&b, 4, false);
    assert_false(burst_holds(&b, NOW));
    burst_paused(&b, 5, NOW);
    burst_claimed(&b, 1, false); /* the database has been set back */
    assert_false(burst_holds(&b, NOW + 5 * USEC_PER_SEC));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_none_is_counted_in_vain),
        cmocka_unit_test(test_the_first_that_is_taken_after_refusals_is_told),
        cmocka_unit_test(test_what_was_claimed_before_a_pause_is_held),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
