/* Statement parameters in Postgres's binary format. */
#include <string.h>

#include "pg/pg.h"
#include "unit.h"

static const char *value(const struct pg_args *args, int i)
{
    return args->bytes.data + args->offsets[i];
}

TEST(test_scalars)
{
    struct pg_args args = PG_ARGS_INIT;
    pg_arg_i64(&args, -2);
    pg_arg_i32(&args, 258);
    pg_arg_bool(&args, true);
    pg_arg_text(&args, "São Paulo");
    pg_arg_text(&args, NULL);
    assert_int_equal(args.count, 5);
    assert_memory_equal(value(&args, 0), "\xff\xff\xff\xff\xff\xff\xff\xfe", 8);
    assert_memory_equal(value(&args, 1), "\0\0\1\2", 4);
    assert_memory_equal(value(&args, 2), "\1", 1);
    assert_int_equal(args.lengths[3], 10);
    assert_memory_equal(value(&args, 3), "São Paulo", 10);
    assert_int_equal(args.lengths[4], -1);
    assert_int_equal(args.types[0], 20);
    assert_int_equal(args.types[3], 25);
    pg_args_free(&args);
}

TEST(test_arrays)
{
    /* array_recv: dimensions, NULLs, element type, length, lower bound, then length and bytes of each
     * element. */
    static const char numbers[] = "\0\0\0\1"
                                  "\0\0\0\0"
                                  "\0\0\0\x14"
                                  "\0\0\0\2"
                                  "\0\0\0\1"
                                  "\0\0\0\x8"
                                  "\0\0\0\0\0\0\0\5"
                                  "\0\0\0\x8"
                                  "\0\0\0\0\0\0\1\0";
    static const char texts[] = "\0\0\0\1"
                                "\0\0\0\1"
                                "\0\0\0\x19"
                                "\0\0\0\3"
                                "\0\0\0\1"
                                "\0\0\0\2"
                                "hi"
                                "\xff\xff\xff\xff"
                                "\0\0\0\0";
    static const char none[] = "\0\0\0\1"
                               "\0\0\0\0"
                               "\0\0\0\x17"
                               "\0\0\0\0"
                               "\0\0\0\1";
    static const struct bytes items[] = {{"hi", 2}, {NULL, 0}, {"", 0}};
    struct pg_args args = PG_ARGS_INIT;
    pg_array_begin(&args, PG_INT8);
    pg_array_i64(&args, 5);
    pg_array_i64(&args, 256);
    pg_arg_bytes(&args, PG_TEXT, items, sizeof(*items), 3);
    pg_array_begin(&args, PG_INT4);
    assert_int_equal(args.count, 3);
    assert_int_equal(args.types[0], 1016);
    assert_int_equal(args.lengths[0], sizeof(numbers) - 1);
    assert_memory_equal(value(&args, 0), numbers, sizeof(numbers) - 1);
    assert_int_equal(args.lengths[1], sizeof(texts) - 1);
    assert_memory_equal(value(&args, 1), texts, sizeof(texts) - 1);
    assert_int_equal(args.lengths[2], sizeof(none) - 1);
    assert_memory_equal(value(&args, 2), none, sizeof(none) - 1);

    /* The same memory serves the next statement. */
    pg_args_clear(&args);
    pg_arg_i32(&args, 1);
    assert_int_equal(args.count, 1);
    pg_args_free(&args);
}

/* Columns of structs: as if each element were added by itself. */
TEST(test_columns)
{
    static const struct {
        int64_t a, b;
    } rows[] = {{1, -1}, {0, INT64_MAX}, {INT64_MIN + 1000000000000000, 5}, {INT64_MIN, 0}, {INT64_MAX, 0}};
    struct pg_args args = PG_ARGS_INIT;

    pg_arg_i64s(&args, &rows->b, sizeof(*rows), 3);
    pg_array_begin(&args, PG_INT8);
    pg_arg_times(&args, &rows->a, sizeof(*rows), 5);
    pg_array_begin(&args, PG_TIMESTAMPTZ);
    for (int i = 0; i < 5; i++)
        pg_array_i64(&args, i < 3 ? rows[i].a - 946684800000000 : rows[i].a);
    pg_arg_i64s(&args, &rows->b, sizeof(*rows), 0);
    pg_arg_blob(&args, "\0\1", 2);
    assert_int_equal(args.lengths[0], 20 + 3 * 12);
    assert_memory_equal(value(&args, 0) + 44, "\0\0\0\x8\0\0\0\0\0\0\0\5", 12);
    assert_int_equal(args.types[2], args.types[3]);
    assert_int_equal(args.lengths[2], args.lengths[3]);
    assert_memory_equal(value(&args, 2), value(&args, 3), 20 + 5 * 12);
    assert_int_equal(args.lengths[4], args.lengths[1]);
    assert_memory_equal(value(&args, 4), value(&args, 1), 20);
    assert_int_equal(args.types[5], 17);
    assert_int_equal(args.lengths[5], 2);
    pg_args_free(&args);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scalars),
        cmocka_unit_test(test_arrays),
        cmocka_unit_test(test_columns),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
