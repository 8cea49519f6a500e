/* Runs of ids: what lies side by side is read at once, and each id has a place of its own. */
#include "consumers/id_runs.h"
#include "unit.h"

static void expect(const int64_t *ids, size_t count, const struct id_run *runs, size_t run_count,
                   size_t width, bool twice)
{
    struct id_runs found;

    id_runs_make(&found, ids, sizeof(*ids), count);
    assert_int_equal(found.count, run_count);
    for (size_t i = 0; i < run_count; i++) {
        assert_int_equal(found.items[i].first, runs[i].first);
        assert_int_equal(found.items[i].last, runs[i].last);
        assert_int_equal(found.items[i].place, runs[i].place);
    }
    assert_int_equal(found.width, width);
    assert_int_equal(found.twice, twice);
    for (size_t i = 0; i < count; i++) {
        const struct id_run *run = runs;
        while (ids[i] > run->last)
            run++;
        assert_int_equal(found.places[i], run->place + (ids[i] - run->first));
    }
    id_runs_free(&found);
}

TEST(test_one_id)
{
    expect((const int64_t[]){7}, 1, (const struct id_run[]){{7, 7, 0}}, 1, 1, false);
    expect((const int64_t[]){INT64_MAX}, 1, (const struct id_run[]){{INT64_MAX, INT64_MAX, 0}}, 1, 1, false);
    expect((const int64_t[]){3, INT64_MAX}, 2, (const struct id_run[]){{3, 3, 0}, {INT64_MAX, INT64_MAX, 1}},
           2, 2, false);
}

TEST(test_four_rows_between_are_read_and_five_are_not)
{
    expect((const int64_t[]){1, 2, 7}, 3, (const struct id_run[]){{1, 7, 0}}, 1, 7, false);
    expect((const int64_t[]){1, 2, 8}, 3, (const struct id_run[]){{1, 2, 0}, {8, 8, 2}}, 2, 3, false);
}

TEST(test_the_order_does_not_matter)
{
    expect((const int64_t[]){1000, 3, 1002, 2}, 4, (const struct id_run[]){{2, 3, 0}, {1000, 1002, 2}}, 2, 5,
           false);
}

TEST(test_an_id_that_comes_twice)
{
    expect((const int64_t[]){5, 100, 5}, 3, (const struct id_run[]){{5, 5, 0}, {100, 100, 1}}, 2, 2, true);
}

TEST(test_many_runs)
{
    int64_t ids[100];
    struct id_run runs[100];

    for (int i = 0; i < 100; i++) {
        ids[99 - i] = 1 + i * 10;
        runs[i] = (struct id_run){1 + i * 10, 1 + i * 10, i};
    }
    expect(ids, 100, runs, 100, 100, false);
}

TEST(test_parameters)
{
    static const int64_t ids[] = {9, 3, 1};
    struct pg_args args = PG_ARGS_INIT;
    struct id_runs runs;

    id_runs_make(&runs, ids, sizeof(*ids), 3);
    id_runs_args(&runs, &args);
    id_runs_given_arg(&runs, 3, &args);
    assert_int_equal(args.count, 6);
    assert_memory_equal(args.bytes.data + args.offsets[3], "\0\0\0\0\0\0\0\1", 8);
    assert_memory_equal(args.bytes.data + args.offsets[4], "\0\0\0\0\0\0\0\x9", 8);
    assert_int_equal(args.lengths[5], 4);
    assert_memory_equal(args.bytes.data + args.offsets[5], "\1\0\1\1", 4);
    id_runs_free(&runs);
    pg_args_free(&args);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_id),
        cmocka_unit_test(test_four_rows_between_are_read_and_five_are_not),
        cmocka_unit_test(test_the_order_does_not_matter),
        cmocka_unit_test(test_an_id_that_comes_twice),
        cmocka_unit_test(test_many_runs),
        cmocka_unit_test(test_parameters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
