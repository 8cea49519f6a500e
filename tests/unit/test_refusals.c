/* The search for rows that the database refuses to change, against a queue some of whose rows are bad. */

#include "base/timeutil.h"
#include "delivery/refusals.h"
#include "unit.h"

#define NOW (1000 * USEC_PER_SEC)

static bool is_passed_over(struct refusals *r, int64_t id, uint64_t now)
{
    const int64_t *ids;
    size_t count = refusals_ids(r, now, &ids);

    for (size_t i = 0; i < count; i++)
        if (ids[i] == id)
            return true;
    return false;
}

/* Takes what it can of rows 0 … count - 1 in their order, `wanted` at a time; returns the statements used. */
static int work_through(struct refusals *r, int count, int wanted, bool (*is_bad)(int), bool *taken)
{
    int statements = 0;

    for (;;) {
        int batch[500], size = 0, limit = refusals_limit(r, wanted);
        bool refused = false;

        assert_in_range(limit, 1, wanted);
        for (int i = 0; i < count && size < limit; i++)
            if (!taken[i] && !is_passed_over(r, i, NOW)) {
                batch[size++] = i;
                refused = refused || is_bad(i);
            }
        if (size == 0)
            return statements;
        statements++;
        assert_true(statements < 100 * count);
        if (refused && refusals_narrow(r, limit)) {
            assert_int_equal(size, 1);
            refusals_add(r, batch[0], NOW);
        } else if (!refused) {
            for (int i = 0; i < size; i++)
                taken[batch[i]] = true;
            refusals_widen(r, limit, size);
        }
    }
}

static bool some_are_bad(int i)
{
    return i == 0 || i == 57 || (i >= 300 && i < 310) || i == 999;
}

static bool none_is_bad(int i)
{
    (void) i;
    return false;
}

TEST(test_only_the_bad_ones_are_left)
{
    CLEANUP(refusals_free) struct refusals r = {0};
    bool taken[1000] = {false};
    int statements = work_through(&r, 1000, 500, some_are_bad, taken);

    for (int i = 0; i < 1000; i++)
        assert_int_equal(taken[i], !some_are_bad(i));
    assert_true(statements < 13 * 20);
}

TEST(test_without_refusals_nothing_is_narrowed)
{
    CLEANUP(refusals_free) struct refusals r = {0};
    bool taken[1000] = {false};

    assert_int_equal(work_through(&r, 1000, 500, none_is_bad, taken), 2);
    assert_int_equal(refusals_limit(&r, 500), 500);
    assert_null(r.rows);
}

TEST(test_the_search_ends)
{
    CLEANUP(refusals_free) struct refusals r = {0};

    assert_false(refusals_narrow(&r, 500));
    assert_int_equal(refusals_limit(&r, 500), 250);
    refusals_widen(&r, 250, 250);
    assert_int_equal(refusals_limit(&r, 1000), 500);
    refusals_widen(&r, 10, 10); /* had room for no more; says nothing about wider ones */
    assert_int_equal(refusals_limit(&r, 1000), 500);
    refusals_widen(&r, 500, 500);
    assert_int_equal(refusals_limit(&r, 1000), 1000);
    refusals_narrow(&r, 500);
    refusals_widen(&r, 250, 3); /* nothing more was there */
    assert_int_equal(refusals_limit(&r, 1000), 1000);
}

TEST(test_pauses_double_up_to_five_minutes)
{
    CLEANUP(refusals_free) struct refusals r = {0};
    uint64_t now = NOW, pause = 0;

    assert_int_equal(refusals_add(&r, 7, now), 5 * USEC_PER_SEC);
    assert_true(is_passed_over(&r, 7, now + 5 * USEC_PER_SEC - 1));
    assert_false(is_passed_over(&r, 7, now + 5 * USEC_PER_SEC));
    for (int i = 0; i < 20; i++) {
        now += pause;
        pause = refusals_add(&r, 7, now);
    }
    assert_int_equal(pause, 300 * USEC_PER_SEC);
    assert_int_equal(r.count, 1);
    assert_false(is_passed_over(&r, 7, now + 601 * USEC_PER_SEC));
    assert_int_equal(r.count, 0); /* forgotten: it has come through */
    assert_int_equal(refusals_add(&r, 7, now), 5 * USEC_PER_SEC);
}

TEST(test_tries_get_rarer_when_all_are_refused)
{
    CLEANUP(refusals_free) struct refusals r = {0};

    for (int i = 0; i < 8; i++) {
        refusals_add(&r, i, NOW);
        assert_int_equal(refusals_pause_usec(&r), 0);
    }
    for (int i = 8; i < 200; i++)
        refusals_add(&r, i, NOW);
    assert_in_range(refusals_pause_usec(&r), USEC_PER_SEC, 2 * USEC_PER_SEC);
    refusals_widen(&r, 1, 1);
    assert_int_equal(refusals_pause_usec(&r), 0);
}

TEST(test_memory_is_bounded)
{
    CLEANUP(refusals_free) struct refusals r = {0};
    const int64_t *ids;

    for (int i = 0; i < 3 * REFUSALS_MAX; i++)
        refusals_add(&r, i, NOW + (uint64_t) i);
    assert_int_equal(refusals_ids(&r, NOW + 5, &ids), REFUSALS_MAX);
    assert_false(is_passed_over(&r, 0, NOW + 5));
    assert_true(is_passed_over(&r, 3 * REFUSALS_MAX - 1, NOW + 5));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_the_bad_ones_are_left),
        cmocka_unit_test(test_without_refusals_nothing_is_narrowed),
        cmocka_unit_test(test_the_search_ends),
        cmocka_unit_test(test_pauses_double_up_to_five_minutes),
        cmocka_unit_test(test_tries_get_rarer_when_all_are_refused),
        cmocka_unit_test(test_memory_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
