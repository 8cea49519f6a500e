/* Statement parameters in Postgres's binary format. */
#include <string.h>

#include "pg/pg_internal.h"
#include "unit.h"

TEST(test_scalars)
{
    struct pg_args args = PG_ARGS_INIT;
    struct pg_wire wire;
    pg_arg_i64(&args, -2);
    pg_arg_i32(&args, 258);
    pg_arg_bool(&args, true);
    pg_arg_text(&args, "São Paulo");
    pg_arg_text(&args, NULL);
    pg_wire_fill(&wire, &args);
    assert_int_equal(wire.count, 5);
    assert_memory_equal(wire.values[0], "\xff\xff\xff\xff\xff\xff\xff\xfe", 8);
    assert_memory_equal(wire.values[1], "\0\0\1\2", 4);
    assert_memory_equal(wire.values[2], "\1", 1);
    assert_int_equal(wire.lengths[3], 10);
    assert_memory_equal(wire.values[3], "São Paulo", 10);
    assert_null(wire.values[4]);
    assert_int_equal(wire.types[0], 20);
    assert_int_equal(wire.types[3], 25);
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
    struct pg_wire wire;
    pg_array_begin(&args, PG_INT8);
    pg_array_i64(&args, 5);
    pg_array_i64(&args, 256);
    pg_array_end(&args);
    pg_arg_bytes(&args, PG_TEXT, items, sizeof(*items), 3);
    pg_array_begin(&args, PG_INT4);
    pg_array_end(&args);
    pg_wire_fill(&wire, &args);
    assert_int_equal(wire.count, 3);
    assert_int_equal(wire.types[0], 1016);
    assert_int_equal(wire.lengths[0], sizeof(numbers) - 1);
    assert_memory_equal(wire.values[0], numbers, sizeof(numbers) - 1);
    assert_int_equal(wire.lengths[1], sizeof(texts) - 1);
    assert_memory_equal(wire.values[1], texts, sizeof(texts) - 1);
    assert_int_equal(wire.lengths[2], sizeof(none) - 1);
    assert_memory_equal(wire.values[2], none, sizeof(none) - 1);

    /* The same memory serves the next statement. */
    pg_args_clear(&args);
    pg_arg_i32(&args, 1);
    pg_wire_fill(&wire, &args);
    assert_int_equal(wire.count, 1);
    pg_args_free(&args);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_scalars),
        cmocka_unit_test(test_arrays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
