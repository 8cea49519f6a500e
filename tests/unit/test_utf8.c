/* UTF-8: which sequences are well formed (Unicode, table 3-7), where a text may be cut, what is repaired. */
#include <string.h>

#include "base/utf8.h"
#include "unit.h"

static size_t sequence(const char *bytes, size_t len)
{
    return utf8_sequence((const unsigned char *) bytes, (const unsigned char *) bytes + len);
}

TEST(test_sequences)
{
    static const struct {
        const char *bytes;
        size_t expected;
    } cases[] = {
        {"a", 1},
        {"\x7F", 1},
        {"\xC2\x80", 2},
        {"\xDF\xBF", 2},
        {"\xE0\xA0\x80", 3},
        {"\xED\x9F\xBF", 3},
        {"\xEE\x80\x80", 3},
        {"\xEF\xBF\xBF", 3},
        {"\xF0\x90\x80\x80", 4},
        {"\xF4\x8F\xBF\xBF", 4},
        {"\x80", 0},             /* a continuation alone */
        {"\xC0\xAF", 0},         /* overlong */
        {"\xC1\xBF", 0},         /* overlong */
        {"\xE0\x9F\xBF", 0},     /* overlong */
        {"\xF0\x8F\xBF\xBF", 0}, /* overlong */
        {"\xED\xA0\x80", 0},     /* a surrogate */
        {"\xF4\x90\x80\x80", 0}, /* above U+10FFFF */
        {"\xF5\x80\x80\x80", 0},
        {"\xFF", 0},
        {"\xC3", 0}, /* unfinished, as the next ones are */
        {"\xC3(", 0},
        {"\xE2\x82", 0},
        {"\xE2\x82(", 0},
        {"\xF0\x9F\x98", 0},
        {"\xF0\x9F\x98(", 0},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        if (sequence(cases[i].bytes, strlen(cases[i].bytes)) != cases[i].expected)
            fail_msg("case %zu: not %zu", i, cases[i].expected);
}

TEST(test_no_character_is_cut_in_two)
{
    static const char text[] = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z"; /* 1, 2, 3, 4 and 1 bytes */
    static const size_t expected[] = {0, 1, 1, 3, 3, 3, 6, 6, 6, 6, 10, 11, 11};

    for (size_t max = 0; max < ARRAY_SIZE(expected); max++)
        assert_int_equal(utf8_cut(text, strlen(text), max), expected[max]);
}

TEST(test_the_first_characters)
{
    static const char text[] = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z"; /* 1, 2, 3, 4 and 1 bytes */
    static const size_t expected[] = {0, 1, 3, 6, 10, 11, 11};

    for (size_t chars = 0; chars < ARRAY_SIZE(expected); chars++)
        assert_int_equal(utf8_first(text, strlen(text), chars), expected[chars]);
    assert_int_equal(utf8_first(NULL, 0, 3), 0);
}

TEST(test_characters_are_counted)
{
    assert_int_equal(utf8_width(""), 0);
    assert_int_equal(utf8_width("S\xC3\xA3o Paulo"), 9);
    assert_int_equal(utf8_width("\xF0\x9F\x98\x80"), 1);
}

static void expect_repaired(const char *bytes, size_t len, const char *expected)
{
    CLEANUP(strbuf_free) struct strbuf sb = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    strbuf_add_utf8(&sb, bytes, len);
    assert_string_equal(strbuf_str(&sb), expected);
}

TEST(test_repair)
{
    expect_repaired(NULL, 0, "");
    expect_repaired("", 0, "");
    expect_repaired("plain", 5, "plain");
    expect_repaired("ok \xC3\xA9 \x80 a\0b\n", 11, "ok \xC3\xA9 " UTF8_REPLACEMENT " a" UTF8_REPLACEMENT "b");
    expect_repaired("\xE2\x82", 2, UTF8_REPLACEMENT UTF8_REPLACEMENT);
    expect_repaired("\xFF\xFEx", 3, UTF8_REPLACEMENT UTF8_REPLACEMENT "x");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sequences),
        cmocka_unit_test(test_no_character_is_cut_in_two),
        cmocka_unit_test(test_the_first_characters),
        cmocka_unit_test(test_characters_are_counted),
        cmocka_unit_test(test_repair),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
