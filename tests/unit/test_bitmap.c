/* Bitmaps of handled sequences: bit order, chunk edges, what trimming may drop. */
#include <string.h>

#include "consumers/bitmap.h"
#include "unit.h"

TEST(test_chunk_edges)
{
    assert_int_equal(bitmap_chunk_of(1), 0);
    assert_int_equal(bitmap_chunk_of(8191), 0);
    assert_int_equal(bitmap_chunk_of(8192), 1);
    assert_int_equal(bitmap_chunk_of(INT64_MAX), INT64_MAX / 8192);
}

/* PostgreSQL: get_bit('\x01'::bytea, 0) = 1, get_bit('\x80', 7) = 1, get_bit('\x0001', 8) = 1. */
TEST(test_bits_lie_as_get_bit_counts)
{
    struct bitmap b = {0};
    struct bitmap_chunk *chunk = bitmap_add(&b, 2);

    assert_true(bitmap_set(chunk, 2 * 8192));
    assert_false(bitmap_has(chunk, 2 * 8192 + 7));
    assert_true(bitmap_set(chunk, 2 * 8192 + 7));
    assert_true(bitmap_has(chunk, 2 * 8192 + 7));
    assert_true(bitmap_set(chunk, 2 * 8192 + 8));
    assert_true(bitmap_set(chunk, 3 * 8192 - 1));
    assert_int_equal(chunk->bits[0], 0x81);
    assert_int_equal(chunk->bits[1], 0x01);
    assert_int_equal(chunk->bits[1023], 0x80);
    bitmap_clear(&b);
}

TEST(test_a_bit_is_set_once)
{
    struct bitmap b = {0};
    struct bitmap_chunk *chunk = bitmap_add(&b, 0);

    assert_false(chunk->dirty);
    assert_int_equal(chunk->bits[9], 0);
    assert_true(bitmap_set(chunk, 77));
    assert_true(chunk->dirty);
    assert_int_equal(chunk->bits[9], 0x20);
    chunk->dirty = false;
    assert_false(bitmap_set(chunk, 77));
    assert_false(chunk->dirty);
    assert_int_equal(chunk->version, 0);
    bitmap_clear(&b);
}

TEST(test_every_bit_of_a_chunk_is_its_own)
{
    struct bitmap b = {0};
    struct bitmap_chunk *chunk = bitmap_add(&b, 5);

    for (int64_t i = 0; i < 8192; i++)
        assert_true(bitmap_set(chunk, 5 * 8192 + i));
    for (int64_t i = 0; i < 8192; i++)
        assert_false(bitmap_set(chunk, 5 * 8192 + i));
    for (size_t i = 0; i < sizeof(chunk->bits); i++)
        assert_int_equal(chunk->bits[i], 0xff);
    bitmap_clear(&b);
}

TEST(test_chunks_are_found_in_any_order)
{
    static const int64_t numbers[] = {9, 2, INT64_MAX / 8192, 0, 4, 1};
    struct bitmap b = {0};

    assert_null(bitmap_find(&b, 0));
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
        bitmap_set(bitmap_add(&b, numbers[i]), numbers[i] * 8192 + 28);
    for (size_t i = 0; i < ARRAY_SIZE(numbers); i++) {
        struct bitmap_chunk *chunk = bitmap_find(&b, numbers[i]);
        assert_non_null(chunk);
        assert_int_equal(chunk->number, numbers[i]);
        assert_int_equal(chunk->bits[3], 0x10);
    }
    assert_null(bitmap_find(&b, 3));
    for (size_t i = 1; i < b.count; i++)
        assert_true(b.chunks[i - 1]->number < b.chunks[i]->number);
    bitmap_clear(&b);
    assert_null(bitmap_find(&b, 9));
}

TEST(test_trim_drops_the_oldest_clean_ones)
{
    struct bitmap b = {0};

    for (int64_t i = 0; i < 6; i++)
        bitmap_add(&b, i);
    bitmap_set(bitmap_find(&b, 1), 8192);
    bitmap_find(&b, 0);
    bitmap_trim(&b, 3);
    assert_int_equal(b.count, 3);
    assert_non_null(bitmap_find(&b, 0)); /* asked for last */
    assert_non_null(bitmap_find(&b, 1)); /* dirty */
    assert_non_null(bitmap_find(&b, 5));
    assert_null(bitmap_find(&b, 4));
    bitmap_set(bitmap_find(&b, 0), 1);
    bitmap_set(bitmap_find(&b, 5), 5 * 8192);
    bitmap_trim(&b, 0);
    assert_int_equal(b.count, 3); /* dirty ones stay whatever is asked */
    bitmap_clear(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chunk_edges),
        cmocka_unit_test(test_bits_lie_as_get_bit_counts),
        cmocka_unit_test(test_a_bit_is_set_once),
        cmocka_unit_test(test_every_bit_of_a_chunk_is_its_own),
        cmocka_unit_test(test_chunks_are_found_in_any_order),
        cmocka_unit_test(test_trim_drops_the_oldest_clean_ones),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
