/* All sessions of a process work on one server: pg/pg_server.c. */
#include "pg/pg_internal.h"
#include "unit.h"

TEST(test_sessions_follow_the_newest_and_do_not_chase_each_other)
{
    struct error err;

    assert_true(pg_come_to_server(0, &err)); /* one that only reads goes anywhere */
    assert_false(pg_is_elsewhere(0, &err));
    assert_true(pg_come_to_server(1, &err));
    assert_false(pg_is_elsewhere(1, &err));
    assert_true(pg_come_to_server(2, &err));
    assert_true(pg_is_elsewhere(1, &err));
    assert_false(pg_is_elsewhere(2, &err));
    assert_false(pg_come_to_server(1, &err)); /* both take writes */
    assert_non_null(strstr(err.text, "does the address lead to both?"));
    assert_true(pg_come_to_server(2, &err));
    assert_true(pg_come_to_server(3, &err)); /* started anew, however soon */
    assert_true(pg_come_to_server(4, &err));
    assert_true(pg_is_elsewhere(2, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sessions_follow_the_newest_and_do_not_chase_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
