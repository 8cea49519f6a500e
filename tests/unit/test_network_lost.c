/* Whether institutions or this machine's network are to blame. */
#include "delivery/network_lost.h"

#include "base/timeutil.h"
#include "unit.h"

#define NOW (1000 * USEC_PER_SEC)

static bool blames_us(int lost, int there, uint64_t lost_at, uint64_t tried_at)
{
    struct reach_count count = {0};

    for (int i = 0; i < lost + there; i++)
        reach_count(&count, &(struct reach){.tried_at = tried_at, .lost_at = i < lost ? lost_at : 0}, NOW);
    return reach_count_blames_us(&count);
}

TEST(test_at_least_four_and_half_of_those_tried_lately_are_lost_at_once)
{
    const uint64_t lately = NOW - USEC_PER_SEC, before = NOW - 11 * USEC_PER_SEC;

    assert_true(blames_us(4, 0, lately, lately));
    assert_true(blames_us(4, 4, lately, NOW));
    assert_true(blames_us(500, 500, NOW, lately));
    assert_false(blames_us(3, 0, lately, lately));
    assert_false(blames_us(4, 5, lately, lately));
    assert_false(blames_us(4, 0, before, lately)); /* lost one after the other, or long ago */
    assert_false(blames_us(4, 0, before, before)); /* nobody has asked since */
    assert_false(blames_us(0, 100, lately, lately));
}

TEST(test_those_that_were_not_tried_say_nothing)
{
    struct reach_count count = {0};

    reach_count(&count, &(struct reach){0}, NOW);
    assert_int_equal(count.tried, 0);
    for (int i = 0; i < 4; i++)
        reach_count(&count, &(struct reach){.tried_at = NOW, .lost_at = NOW}, NOW);
    for (int i = 0; i < 100; i++)
        reach_count(&count, &(struct reach){.tried_at = NOW - 60 * USEC_PER_SEC}, NOW);
    assert_true(reach_count_blames_us(&count));
}

TEST(test_those_that_are_lost_still_are_few_while_most_answer)
{
    struct reach_count count = {0};
    const uint64_t long_ago = NOW - 3600 * USEC_PER_SEC, seconds_ago = NOW - 30 * USEC_PER_SEC;

    for (int i = 0; i < 4; i++)
        reach_count(&count, &(struct reach){.tried_at = seconds_ago, .lost_at = long_ago}, NOW);
    for (int i = 0; i < 4; i++)
        reach_count(&count, &(struct reach){.tried_at = seconds_ago}, NOW);
    assert_false(reach_count_clears_us(&count));
    reach_count(&count, &(struct reach){.tried_at = long_ago}, NOW); /* nobody has asked since */
    assert_false(reach_count_clears_us(&count));
    reach_count(&count, &(struct reach){.tried_at = seconds_ago}, NOW);
    assert_true(reach_count_clears_us(&count));
    assert_false(reach_count_blames_us(&count));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_at_least_four_and_half_of_those_tried_lately_are_lost_at_once),
        cmocka_unit_test(test_those_that_were_not_tried_say_nothing),
        cmocka_unit_test(test_those_that_are_lost_still_are_few_while_most_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
