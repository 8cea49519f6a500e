/* The growing buffer and its maximum. */
#include <string.h>

#include "base/strbuf.h"
#include "unit.h"

TEST(test_starts_empty)
{
    struct strbuf sb = STRBUF_INIT(100);
    CLEANUP(freep) char *taken = strbuf_take(&sb);

    assert_string_equal(strbuf_str(&sb), "");
    assert_string_equal(taken, "");
    strbuf_free(&sb);
}

TEST(test_appends_of_each_kind)
{
    CLEANUP(strbuf_free) struct strbuf sb = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    strbuf_adds(&sb, "a");
    strbuf_addc(&sb, 'b');
    strbuf_add(&sb, "c\0d", 3);
    strbuf_add(&sb, NULL, 0);
    strbuf_addf(&sb, "-%d-%s", 5, "x");
    assert_int_equal(sb.len, 9);
    assert_memory_equal(sb.data, "abc\0d-5-x", 9);
    assert_false(sb.overflowed);
}

TEST(test_grows_to_any_length)
{
    CLEANUP(strbuf_free) struct strbuf sb = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    for (int i = 0; i < 100000; i++)
        strbuf_addc(&sb, (char) ('a' + i % 26));
    assert_int_equal(sb.len, 100000);
    assert_int_equal(strlen(sb.data), 100000);
    assert_int_equal(sb.data[99999], 'a' + 99999 % 26);
}

TEST(test_the_maximum_holds)
{
    CLEANUP(strbuf_free) struct strbuf sb = STRBUF_INIT(5);

    strbuf_adds(&sb, "abc");
    strbuf_adds(&sb, "def"); /* would be six */
    assert_true(sb.overflowed);
    assert_string_equal(strbuf_str(&sb), "abc");
    strbuf_adds(&sb, "de");
    assert_string_equal(strbuf_str(&sb), "abcde");
    assert_true(sb.overflowed);
    strbuf_clear(&sb);
    assert_false(sb.overflowed);
    strbuf_addf(&sb, "%s", "123456");
    assert_true(sb.overflowed);
    assert_string_equal(strbuf_str(&sb), "");
}

TEST(test_a_zeroed_buffer_takes_nothing)
{
    struct strbuf sb = {0};

    strbuf_addc(&sb, 'x');
    assert_true(sb.overflowed);
    assert_string_equal(strbuf_str(&sb), "");
    strbuf_free(&sb);
}

TEST(test_lengths_near_the_end_of_size_t)
{
    CLEANUP(strbuf_free) struct strbuf sb = STRBUF_INIT(1000);

    strbuf_adds(&sb, "x");
    assert_null(strbuf_reserve(&sb, SIZE_MAX));
    assert_null(strbuf_reserve(&sb, SIZE_MAX - 1));
    assert_true(sb.overflowed);
}

TEST(test_take_hands_over)
{
    struct strbuf sb = STRBUF_INIT(100);
    CLEANUP(freep) char *taken = NULL;

    strbuf_adds(&sb, "mine");
    taken = strbuf_take(&sb);
    assert_string_equal(taken, "mine");
    assert_null(sb.data);
    strbuf_adds(&sb, "next");
    assert_string_equal(strbuf_str(&sb), "next");
    strbuf_free(&sb);
}

TEST(test_reserve_lets_the_caller_write)
{
    CLEANUP(strbuf_free) struct strbuf sb = STRBUF_INIT(100);
    char *to = strbuf_reserve(&sb, 3);

    assert_non_null(to);
    memcpy(to, "xyz", 4);
    sb.len += 3;
    strbuf_addc(&sb, '!');
    assert_string_equal(strbuf_str(&sb), "xyz!");
}

/* Filled memory comes back from free(), so an end that was not written shows without a sanitizer, too. */
TEST(test_room_without_bytes_is_an_empty_text)
{
    for (size_t room = 1; room < 3000; room = room * 2 + 1) {
        void *filled[4];
        for (int i = 0; i < 4; i++) {
            filled[i] = xcalloc(room + 64, 1);
            memset(filled[i], 'x', room + 64);
        }
        for (int i = 0; i < 4; i++)
            free(filled[i]);
        CLEANUP(strbuf_free) struct strbuf sb = STRBUF_INIT(10000);
        assert_non_null(strbuf_reserve(&sb, room));
        assert_string_equal(strbuf_str(&sb), "");
        strbuf_adds(&sb, "abc");
        assert_non_null(strbuf_reserve(&sb, room * 3));
        assert_string_equal(strbuf_str(&sb), "abc");
    }
}

TEST(test_decimals)
{
    static const struct {
        int64_t value;
        const char *text;
    } cases[] = {
        {0, "0"},
        {7, "7"},
        {-7, "-7"},
        {1234567890123, "1234567890123"},
        {INT64_MAX, "9223372036854775807"},
        {INT64_MIN, "-9223372036854775808"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(strbuf_free) struct strbuf sb = STRBUF_INIT(100);

        strbuf_add_i64(&sb, cases[i].value);
        assert_string_equal(strbuf_str(&sb), cases[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_starts_empty),
        cmocka_unit_test(test_appends_of_each_kind),
        cmocka_unit_test(test_grows_to_any_length),
        cmocka_unit_test(test_the_maximum_holds),
        cmocka_unit_test(test_a_zeroed_buffer_takes_nothing),
        cmocka_unit_test(test_lengths_near_the_end_of_size_t),
        cmocka_unit_test(test_take_hands_over),
        cmocka_unit_test(test_reserve_lets_the_caller_write),
        cmocka_unit_test(test_room_without_bytes_is_an_empty_text),
        cmocka_unit_test(test_decimals),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
