/* What requests say about an institution: see circuit.h. */
#include "delivery/circuit.h"
#include "unit.h"

#define THRESHOLD 5

static enum circuit_event see(struct circuit *c, enum circuit_event event)
{
    return circuit_saw(c, event, false, THRESHOLD);
}

TEST(test_an_institution_that_takes_requests_is_no_news)
{
    struct circuit c = {0};

    for (int i = 0; i < 1000; i++)
        assert_int_equal(see(&c, CIRCUIT_ALIVE), CIRCUIT_NEUTRAL);
    assert_int_equal(see(&c, CIRCUIT_NEUTRAL), CIRCUIT_NEUTRAL);
    assert_int_equal(circuit_saw(&c, CIRCUIT_ALIVE, true, THRESHOLD), CIRCUIT_ALIVE);
}

TEST(test_failures_are_told_and_so_is_the_first_request_taken_after_them)
{
    struct circuit c = {0};

    assert_int_equal(see(&c, CIRCUIT_FAILED), CIRCUIT_FAILED);
    assert_int_equal(see(&c, CIRCUIT_FORBIDDEN), CIRCUIT_FORBIDDEN);
    assert_int_equal(see(&c, CIRCUIT_NEUTRAL), CIRCUIT_NEUTRAL);
    assert_int_equal(see(&c, CIRCUIT_ALIVE), CIRCUIT_ALIVE);
    assert_int_equal(see(&c, CIRCUIT_ALIVE), CIRCUIT_NEUTRAL);
    circuit_enter(&c, 0, true); /* another daemon has told of failures */
    assert_int_equal(see(&c, CIRCUIT_ALIVE), CIRCUIT_ALIVE);
}

TEST(test_what_opens_a_circuit_holds_requests_back_at_once)
{
    struct circuit c = {0};

    for (int i = 1; i < THRESHOLD; i++) {
        see(&c, CIRCUIT_FAILED);
        assert_false(c.holds);
    }
    see(&c, CIRCUIT_FAILED);
    assert_true(c.holds);
    circuit_enter(&c, 1, false);
    assert_false(c.holds);
    assert_int_equal(see(&c, CIRCUIT_REFUSED), CIRCUIT_REFUSED);
    assert_true(c.holds);
}

/* Failures of `count` requests, spread evenly, that make the share; whether it was proven. */
static bool is_proven(int failures, int of, int count)
{
    struct circuit c = {0};
    bool proven = false;

    for (int i = 0, due = 0; i < count; i++) {
        due += failures;
        bool fails = due >= of;
        due -= fails ? of : 0;
        proven |= see(&c, fails ? CIRCUIT_FAILED : CIRCUIT_ALIVE) == CIRCUIT_PROVEN;
    }
    return proven;
}

TEST(test_a_share_above_one_half_is_proven_without_a_row)
{
    assert_true(is_proven(4, 5, 50));
    assert_true(is_proven(3, 4, 50));
    assert_false(is_proven(4, 5, 19)); /* too few */
    assert_false(is_proven(1, 2, 1000));
    assert_false(is_proven(1, 10, 1000));
}

TEST(test_a_threshold_above_the_requests_that_are_looked_at_leaves_the_share_out)
{
    struct circuit c = {0};

    for (int i = 0; i < 1000; i++)
        assert_int_equal(circuit_saw(&c, CIRCUIT_FAILED, false, 1000000), CIRCUIT_FAILED);
    assert_false(c.holds);
}

TEST(test_another_generation_begins_anew)
{
    struct circuit c = {0};

    for (int i = 0; i < 50; i++)
        see(&c, CIRCUIT_FAILED);
    circuit_enter(&c, 7, false);
    assert_int_equal(c.seen, 0);
    assert_int_equal(see(&c, CIRCUIT_FAILED), CIRCUIT_FAILED);
    assert_false(c.holds);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_an_institution_that_takes_requests_is_no_news),
        cmocka_unit_test(test_failures_are_told_and_so_is_the_first_request_taken_after_them),
        cmocka_unit_test(test_what_opens_a_circuit_holds_requests_back_at_once),
        cmocka_unit_test(test_a_share_above_one_half_is_proven_without_a_row),
        cmocka_unit_test(test_a_threshold_above_the_requests_that_are_looked_at_leaves_the_share_out),
        cmocka_unit_test(test_another_generation_begins_anew),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
