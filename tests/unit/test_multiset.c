/* Multisets of records: the same in any order and in any parts, and different after any change. */
#include <string.h>

#include "crypto/multiset.h"
#include "unit.h"

enum { RECORDS = 300 };

static uint64_t records[RECORDS][MULTISET_WORDS];
static struct multiset_key key;

static int setup(void **state)
{
    (void) state;
    for (size_t i = 0; i < RECORDS; i++)
        for (size_t w = 0; w < MULTISET_WORDS; w++)
            records[i][w] = i % 3 == 0 ? i * w : random_u64();
    multiset_draw(&key);
    return 0;
}

static struct multiset of(size_t first, size_t count)
{
    struct multiset m = MULTISET_EMPTY;

    for (size_t i = 0; i < count; i++)
        multiset_add(&m, &key, records[(first + i) % RECORDS]);
    return m;
}

TEST(test_order_and_parts_do_not_count)
{
    struct multiset all = of(0, RECORDS);

    for (size_t first = 0; first <= RECORDS; first += 37) {
        struct multiset turned = of(first, RECORDS), left = of(0, first), right = of(first, RECORDS - first);
        assert_true(multiset_is_same(&all, &turned));
        multiset_join(&left, &right);
        assert_true(multiset_is_same(&all, &left));
    }
}

/* Each bit of a record, a record left out, one that is there twice, and one in place of another. */
TEST(test_every_difference_shows)
{
    struct multiset all = of(0, RECORDS), without = of(1, RECORDS - 1), twice = of(0, RECORDS + 1);

    assert_false(multiset_is_same(&all, &without));
    assert_false(multiset_is_same(&all, &twice));
    for (size_t w = 0; w < MULTISET_WORDS; w++)
        for (unsigned bit = 0; bit < 64; bit++) {
            uint64_t changed[MULTISET_WORDS];
            struct multiset m = without;
            memcpy(changed, records[0], sizeof(changed));
            changed[w] ^= UINT64_C(1) << bit;
            multiset_add(&m, &key, changed);
            assert_int_equal(m.count, all.count);
            assert_false(multiset_is_same(&all, &m));
        }
    struct multiset other = without;
    multiset_add(&other, &key, records[1]);
    assert_false(multiset_is_same(&all, &other));
}

/* Numbers that are the same modulo the prime, words that have changed places, values of the same sum. */
TEST(test_what_looks_alike_is_not_the_same)
{
    static const uint64_t alike[][2][MULTISET_WORDS] = {
        {{0}, {(UINT64_C(1) << 61) - 1}}, {{UINT64_MAX}, {7}}, {{1, 2}, {2, 1}},
        {{UINT64_C(1) << 32}, {1}},       {{5, 5}, {4, 6}},    {{0, 0, 0, 0, 0, 0, 1}, {0, 0, 0, 0, 0, 1}},
    };

    for (size_t i = 0; i < ARRAY_SIZE(alike); i++) {
        struct multiset a = MULTISET_EMPTY, b = MULTISET_EMPTY;
        multiset_add(&a, &key, alike[i][0]);
        multiset_add(&b, &key, alike[i][1]);
        assert_false(multiset_is_same(&a, &b));
    }
}

/* Whoever knows the factors of one comparison does not know those of the next. */
TEST(test_each_draw_is_another)
{
    struct multiset_key other;

    multiset_draw(&other);
    for (size_t d = 0; d < MULTISET_DRAWS; d++)
        for (size_t i = 0; i < ARRAY_SIZE(key.factors[d]); i++) {
            assert_true(key.factors[d][i] != other.factors[d][i]);
            assert_true(key.factors[d][i] < (UINT64_C(1) << 61) - 1);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_order_and_parts_do_not_count),
        cmocka_unit_test(test_every_difference_shows),
        cmocka_unit_test(test_what_looks_alike_is_not_the_same),
        cmocka_unit_test(test_each_draw_is_another),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
