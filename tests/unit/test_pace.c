/* Requests that an institution gets at once, and the time it is given. */

#include <limits.h>

#include "base/timeutil.h"
#include "delivery/pace.h"
#include "unit.h"

#define AT(seconds) ((uint64_t) (1000 + (seconds)) * USEC_PER_SEC)

TEST(test_nothing_known_limits_nothing)
{
    struct pace p = {0};
    assert_int_equal(pace_slots(&p, AT(0)), INT_MAX);
    pace_answered(&p, true, 1, 0, AT(0));
    pace_unanswered(&p, AT(0));
    pace_unanswered(&p, AT(0));
    assert_int_equal(pace_slots(&p, AT(0)), INT_MAX);
    assert_false(pace_is_silent(&p));
}

TEST(test_a_silent_one_gets_few_until_it_answers)
{
    struct pace p = {0};
    for (int i = 0; i < 40; i++)
        pace_unanswered(&p, AT(i));
    assert_true(pace_is_silent(&p));
    assert_int_equal(pace_slots(&p, AT(40)), 2);
    /* Whatever it says: it is alive. */
    pace_answered(&p, false, 1, 0, AT(41));
    assert_false(pace_is_silent(&p));
    assert_int_equal(pace_slots(&p, AT(41)), 3);
    for (int i = 0; i < 100; i++)
        pace_answered(&p, true, 1, 0, AT(42));
    assert_int_equal(pace_slots(&p, AT(42)), 103);
}

TEST(test_time_is_given_and_then_it_begins_with_one)
{
    struct pace p = {0};
    assert_int_equal(pace_backoffs(&p, AT(0)), 1);
    pace_back_off(&p, AT(0), AT(11), AT(1));
    assert_int_equal(pace_slots(&p, AT(10)), 0);
    /* Answers to what was under way open nothing. */
    pace_answered(&p, true, 1, 0, AT(2));
    assert_int_equal(pace_slots(&p, AT(10)), 0);
    assert_int_equal(pace_slots(&p, AT(11)), 1);
    pace_answered(&p, true, 1, 0, AT(12));
    pace_answered(&p, true, 1, 0, AT(12));
    assert_int_equal(pace_slots(&p, AT(12)), 3);
}

TEST(test_the_database_keeps_what_it_was_given)
{
    struct pace p = {0};
    pace_back_off(&p, AT(0), AT(100), AT(1));
    pace_hand_over(&p, AT(2));
    assert_int_equal(pace_slots(&p, AT(3)), 1);
    /* Answers to what was under way before open nothing. */
    pace_answered(&p, true, 1, 0, AT(3));
    assert_int_equal(pace_slots(&p, AT(3)), 1);
}

TEST(test_requests_under_way_together_make_it_wait_once)
{
    struct pace p = {0};
    for (int i = 0; i < 32; i++) {
        assert_int_equal(pace_backoffs(&p, AT(0)), 1);
        pace_back_off(&p, AT(0), AT(20 - i % 3), AT(1));
        pace_answered(&p, false, 1, 0, AT(1));
    }
    assert_int_equal(pace_slots(&p, AT(19)), 0);
    assert_int_equal(pace_slots(&p, AT(20)), 1);
    /* One that was sent afterwards counts. */
    assert_int_equal(pace_backoffs(&p, AT(21)), 2);
    pace_back_off(&p, AT(21), AT(60), AT(22));
    assert_int_equal(pace_backoffs(&p, AT(61)), 3);
    /* And so until one is taken. */
    pace_answered(&p, true, 1, 0, AT(62));
    assert_int_equal(pace_backoffs(&p, AT(63)), 1);
}

TEST(test_what_is_known_is_forgotten)
{
    struct pace p = {0};
    pace_back_off(&p, AT(0), AT(2), AT(1));
    assert_int_equal(pace_slots(&p, AT(60)), 1);
    assert_int_equal(pace_slots(&p, AT(61)), INT_MAX);
    /* But not that it is silent, however long its requests take. */
    for (int i = 0; i < 3; i++)
        pace_unanswered(&p, AT(70));
    assert_int_equal(pace_slots(&p, AT(7000)), 2);
    assert_true(pace_is_silent(&p));
}

TEST(test_what_another_daemon_has_seen_counts_for_an_unknown_one)
{
    struct pace p = {0};
    pace_recover(&p, AT(0));
    assert_int_equal(pace_slots(&p, AT(0)), 1);
    for (int i = 0; i < 10; i++)
        pace_answered(&p, true, 1, 0, AT(0));
    pace_recover(&p, AT(0));
    assert_int_equal(pace_slots(&p, AT(0)), 11);
    pace_recover(&p, AT(1000));
    assert_int_equal(pace_slots(&p, AT(1000)), 1);
}

TEST(test_what_cannot_keep_up_gets_half_and_then_one_more_a_round)
{
    struct pace p = {0};

    /* 32 that were under way together count once. */
    for (int i = 32; i > 0; i--)
        pace_pushed_back(&p, AT(0), i, AT(1));
    assert_int_equal(pace_slots(&p, AT(1)), 16);
    /* What is not used up proves nothing. */
    for (int i = 0; i < 100; i++)
        pace_answered(&p, true, 15, 0, AT(2));
    assert_int_equal(pace_slots(&p, AT(2)), 16);
    for (int i = 0; i < 16; i++)
        pace_answered(&p, true, 16, 0, AT(3));
    assert_int_equal(pace_slots(&p, AT(3)), 17);
    for (int i = 0; i < 17 + 18; i++)
        pace_answered(&p, true, 19, 0, AT(4));
    assert_int_equal(pace_slots(&p, AT(4)), 19);
    /* Retries have three quarters; these used up are enough. */
    struct pace retries = p;
    for (int i = 0; i < 100; i++)
        pace_answered(&retries, true, 14, 14, AT(5));
    assert_int_equal(pace_slots(&retries, AT(5)), 19);
    for (int i = 0; i < 19; i++)
        pace_answered(&retries, true, 15, 15, AT(5));
    assert_int_equal(pace_slots(&retries, AT(5)), 20);
    pace_pushed_back(&p, AT(5), 19, AT(6));
    assert_int_equal(pace_slots(&p, AT(6)), 9);
    /* Once more, for one of the next round; never none. */
    for (int i = 0; i < 10; i++)
        pace_pushed_back(&p, AT(7 + 2 * i), 9, AT(8 + 2 * i));
    assert_int_equal(pace_slots(&p, AT(28)), 1);
    pace_answered(&p, true, 1, 0, AT(29));
    assert_int_equal(pace_slots(&p, AT(29)), 2);
    assert_int_equal(pace_slots(&p, AT(29 + 61)), INT_MAX);
}

/* After a backoff it begins with one, and is soon where it was good. */
TEST(test_what_was_enough_is_reached_again_at_once)
{
    struct pace p = {0};

    pace_pushed_back(&p, AT(0), 20, AT(1));
    pace_back_off(&p, AT(0), AT(5), AT(1));
    assert_int_equal(pace_slots(&p, AT(5)), 1);
    for (int i = 0; i < 9; i++)
        pace_answered(&p, true, 1, 0, AT(6));
    assert_int_equal(pace_slots(&p, AT(6)), 10);
    pace_answered(&p, true, 10, 0, AT(6));
    assert_int_equal(pace_slots(&p, AT(6)), 10);
    /* Other reasons to wait say nothing about how many are enough. */
    pace_back_off(&p, AT(100), AT(101), AT(100));
    for (int i = 0; i < 30; i++)
        pace_answered(&p, true, 1, 0, AT(102));
    assert_int_equal(pace_slots(&p, AT(102)), 31);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_known_limits_nothing),
        cmocka_unit_test(test_a_silent_one_gets_few_until_it_answers),
        cmocka_unit_test(test_time_is_given_and_then_it_begins_with_one),
        cmocka_unit_test(test_the_database_keeps_what_it_was_given),
        cmocka_unit_test(test_requests_under_way_together_make_it_wait_once),
        cmocka_unit_test(test_what_is_known_is_forgotten),
        cmocka_unit_test(test_what_cannot_keep_up_gets_half_and_then_one_more_a_round),
        cmocka_unit_test(test_what_was_enough_is_reached_again_at_once),
        cmocka_unit_test(test_what_another_daemon_has_seen_counts_for_an_unknown_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
