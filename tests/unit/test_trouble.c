/* A trouble is said once when it lasts, and once when it is over. */
#include "base/trouble.h"
#include "unit.h"

TEST(test_what_lasts_is_said_once)
{
    struct trouble t = {0};

    assert_false(trouble_lasts(&t, 1000, 1000, 50));
    assert_false(trouble_lasts(&t, 1010, 1049, 50));
    assert_true(trouble_lasts(&t, 1049, 1050, 50));
    assert_false(trouble_lasts(&t, 1100, 2000, 50));
    assert_true(trouble_ends(&t));
    assert_false(trouble_ends(&t));
}

TEST(test_what_passes_is_not_said)
{
    struct trouble t = {0};

    assert_false(trouble_lasts(&t, 1000, 1049, 50));
    assert_false(trouble_ends(&t));
    /* The next one has a patience of its own. */
    assert_false(trouble_lasts(&t, 1050, 1050, 50));
    assert_true(trouble_lasts(&t, 1060, 1100, 50));
}

TEST(test_a_trouble_that_began_before_the_first_look)
{
    struct trouble t = {0};

    assert_true(trouble_lasts(&t, 900, 1000, 50));
}

TEST(test_without_patience)
{
    struct trouble t = {0};

    assert_true(trouble_begins(&t));
    assert_false(trouble_begins(&t));
    assert_true(trouble_ends(&t));
    assert_true(trouble_begins(&t));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_lasts_is_said_once),
        cmocka_unit_test(test_what_passes_is_not_said),
        cmocka_unit_test(test_a_trouble_that_began_before_the_first_look),
        cmocka_unit_test(test_without_patience),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
