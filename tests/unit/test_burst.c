/* Refusals in a row: see burst.h. */
#include "delivery/burst.h"

#include "base/timeutil.h"
#include "unit.h"

#define HOUR (3600 * USEC_PER_SEC)
#define NOW (100 * HOUR)

static void expect(struct burst *b, int count, enum burst_advice advice)
{
    for (int i = 0; i < count; i++)
        assert_int_equal(burst_refused(b, NOW), advice);
}

TEST(test_twenty_in_a_row_from_one_that_took_some_lately)
{
    struct burst b = {0};

    burst_taken(&b, NOW - HOUR);
    expect(&b, BURST_REFUSALS - 1, BURST_NONE);
    expect(&b, 1, BURST_PAUSE);
    assert_true(b.holds);
    expect(&b, 100, BURST_SPARE);
}

TEST(test_one_that_never_took_any_or_long_ago_refuses_what_it_likes)
{
    struct burst never = {0}, long_ago = {0};

    burst_taken(&long_ago, NOW - HOUR - 1);
    expect(&never, 1000, BURST_NONE);
    expect(&long_ago, 1000, BURST_NONE);
    assert_false(never.holds || long_ago.holds);
}

TEST(test_one_that_is_taken_in_between_begins_anew)
{
    struct burst b = {0};

    for (int i = 0; i < 100; i++) {
        expect(&b, BURST_REFUSALS - 1, BURST_NONE);
        burst_taken(&b, NOW);
    }
}

TEST(test_a_claim_after_the_pause_begins_anew)
{
    struct burst b = {0};

    burst_taken(&b, NOW);
    expect(&b, BURST_REFUSALS - 1, BURST_NONE);
    burst_claimed(&b, NOW);
    expect(&b, 1, BURST_PAUSE);
    burst_claimed(&b, NOW + HOUR); /* the database does not know of it */
    expect(&b, 1, BURST_SPARE);
    burst_stored(&b, NOW);
    assert_false(b.holds);
    burst_claimed(&b, NOW + USEC_PER_SEC); /* it was under way when the pause began */
    expect(&b, 1, BURST_SPARE);
    assert_true(b.holds);
    burst_stored(&b, NOW);
    burst_claimed(&b, NOW + HOUR);
    expect(&b, BURST_REFUSALS - 1, BURST_NONE);
    expect(&b, 1, BURST_PAUSE);
}

/* After a start of the daemon, and of what the other ones do. */
TEST(test_what_it_took_is_known_from_elsewhere)
{
    static const struct {
        uint64_t ago;
        bool is_lately;
    } cases[] = {{0, true}, {HOUR, true}, {HOUR + 1, false}, {NOW, false}, {USEC_INFINITY, false}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct burst b = {0};
        burst_took(&b, cases[i].ago, NOW);
        expect(&b, BURST_REFUSALS - 1, BURST_NONE);
        expect(&b, 1, cases[i].is_lately ? BURST_PAUSE : BURST_NONE);
    }
    struct burst b = {0};
    burst_taken(&b, NOW);
    burst_took(&b, 2 * HOUR, NOW); /* it has seen a later one itself */
    assert_true(b.taken_at == NOW);
}

TEST(test_other_settings_forget_refusals_and_not_what_it_took)
{
    struct burst b = {0};

    burst_taken(&b, NOW);
    expect(&b, BURST_REFUSALS - 1, BURST_NONE);
    burst_begin_anew(&b);
    expect(&b, BURST_REFUSALS - 1, BURST_NONE);
    expect(&b, 1, BURST_PAUSE);
    burst_begin_anew(&b);
    assert_false(b.holds);
    expect(&b, BURST_REFUSALS - 1, BURST_NONE);
    expect(&b, 1, BURST_PAUSE);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_twenty_in_a_row_from_one_that_took_some_lately),
        cmocka_unit_test(test_one_that_never_took_any_or_long_ago_refuses_what_it_likes),
        cmocka_unit_test(test_one_that_is_taken_in_between_begins_anew),
        cmocka_unit_test(test_a_claim_after_the_pause_begins_anew),
        cmocka_unit_test(test_what_it_took_is_known_from_elsewhere),
        cmocka_unit_test(test_other_settings_forget_refusals_and_not_what_it_took),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
