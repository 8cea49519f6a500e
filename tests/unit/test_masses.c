/* Integrations that are looked at apart from all others. */
#include "delivery/masses.h"

#include "base/timeutil.h"
#include "unit.h"

#define MSEC USEC_PER_MSEC

static struct masses with(size_t count, const struct mass *found)
{
    struct masses m = {0};

    masses_weighed(&m, count, found, 200 * MSEC, 1000000);
    return m;
}

TEST(test_slow_looks_make_integrations_be_weighed)
{
    struct masses m = {0};

    masses_saw(&m, 500 * MSEC, 1000000);
    assert_false(m.wanted); /* one look may have been held up */
    masses_saw(&m, 10 * MSEC, 1000000);
    masses_saw(&m, 500 * MSEC, 1000000);
    assert_false(m.wanted);
    masses_saw(&m, 500 * MSEC, 1000000);
    assert_true(m.wanted);
    masses_saw(&m, 10 * MSEC, 1000000);
    assert_false(m.wanted);
}

TEST(test_where_none_is_to_blame_they_are_not_weighed_again_soon)
{
    struct masses m = with(0, &(struct mass){0});

    for (int i = 0; i < 3; i++)
        masses_saw(&m, 500 * MSEC, 60999999);
    assert_false(m.wanted);
    masses_saw(&m, 500 * MSEC, 61000000);
    assert_true(m.wanted);
    masses_weighed(&m, 0, &(struct mass){0}, 200 * MSEC, 61000000);
    assert_int_equal(m.weigh_at, 181000000);
}

TEST(test_one_at_a_time_is_looked_at_in_a_tenth_of_the_time)
{
    struct masses m = with(2, (struct mass[]){{7, 90 * MSEC}, {3, 60 * MSEC}});
    struct store_place place;

    assert_false(masses_next(&m, 2999999, &place));
    assert_int_equal(masses_wait(&m, 2999999), 1);
    assert_true(masses_next(&m, 3000000, &place));
    assert_int_equal(place.integration_id, 3);
    assert_int_equal(place.fresh_id, 0);
    masses_looked(&m, 60 * MSEC, 3060000);
    assert_false(masses_next(&m, 3659999, &place));
    assert_true(masses_next(&m, 3660000, &place));
    assert_int_equal(place.integration_id, 7);
    masses_looked(&m, 100 * MSEC, 4000000);
    assert_true(masses_next(&m, 5000000, &place));
    assert_int_equal(place.integration_id, 3);
    masses_looked(&m, 3600 * USEC_PER_SEC, 5000000);
    assert_int_equal(masses_wait(&m, 5000000), 60 * USEC_PER_SEC);
}

TEST(test_one_that_got_light_is_looked_at_with_all_others_again)
{
    struct masses m = with(3, (struct mass[]){{3, 90 * MSEC}, {5, 90 * MSEC}, {7, 90 * MSEC}});
    struct store_place place;

    masses_looked(&m, 90 * MSEC, 1000000);
    assert_false(m.doubted);
    masses_looked(&m, 1 * MSEC, 1000000); /* 5 */
    assert_true(m.doubted);
    assert_false(masses_next(&m, 9000000, &place));
    masses_judged(&m, 0, 1000000);
    assert_true(masses_next(&m, 9000000, &place));
    assert_int_equal(place.integration_id, 7);
    masses_looked(&m, 1 * MSEC, 1000000);
    masses_judged(&m, 80 * MSEC, 1000000); /* rows that are due later: it stays */
    assert_false(masses_next(&m, 1799999, &place));
    assert_true(masses_next(&m, 1800000, &place));
    assert_int_equal(place.integration_id, 3);
    for (int i = 0; i < 2; i++) {
        masses_looked(&m, 1 * MSEC, 1000000);
        masses_judged(&m, 0, 1000000);
    }
    assert_false(masses_next(&m, 9000000, &place));
    assert_int_equal(masses_wait(&m, 1000000), USEC_INFINITY);
}

TEST(test_looks_at_all_others_pass_over_them)
{
    struct masses none = {0}, m = with(3, (struct mass[]){{3, 90 * MSEC}, {5, 90 * MSEC}, {9, 90 * MSEC}});
    const struct store_load known[] = {{1, 2, 1, 8}, {5, 4, 0, 8}, {6, 1, 0, 8}}, *loads;
    const struct store_place near[] = {{1, 10, 11, 12}, {5, 20, 21, 22}, {10, 30, 31, 32}}, *places;

    assert_int_equal(masses_loads(&none, 3, known, &loads), 3);
    assert_ptr_equal(loads, known);
    assert_int_equal(masses_places(&none, 3, near, &places), 3);
    assert_ptr_equal(places, near);

    static const struct store_load expected[] = {
        {1, 2, 1, 8}, {3, 0, 0, 0}, {5, 4, 0, 0}, {6, 1, 0, 8}, {9, 0, 0, 0}};
    assert_int_equal(masses_loads(&m, 3, known, &loads), ARRAY_SIZE(expected));
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
        assert_int_equal(loads[i].integration_id, expected[i].integration_id);
        assert_int_equal(loads[i].in_flight, expected[i].in_flight);
        assert_int_equal(loads[i].slots, expected[i].slots);
    }

    static const int64_t ids[] = {1, 3, 5, 9, 10}, fresh[] = {10, 0, 20, 0, 30};
    assert_int_equal(masses_places(&m, 3, near, &places), ARRAY_SIZE(ids));
    for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
        assert_int_equal(places[i].integration_id, ids[i]);
        assert_int_equal(places[i].fresh_id, fresh[i]);
    }
    masses_free(&m);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_slow_looks_make_integrations_be_weighed),
        cmocka_unit_test(test_where_none_is_to_blame_they_are_not_weighed_again_soon),
        cmocka_unit_test(test_one_at_a_time_is_looked_at_in_a_tenth_of_the_time),
        cmocka_unit_test(test_one_that_got_light_is_looked_at_with_all_others_again),
        cmocka_unit_test(test_looks_at_all_others_pass_over_them),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
