/* The strict JSON check against lists of good and bad texts, and against cuts and changes of good ones; what
 * is read out of good ones. */
#include <string.h>

#include "base/json.h"
#include "unit.h"

static bool valid(const char *text)
{
    return json_is_valid(text, strlen(text), JSON_MAX_DEPTH);
}

TEST(test_good_texts)
{
    static const char *const texts[] = {
        "null",
        "true",
        "false",
        "0",
        "-0",
        "10",
        "-1.5",
        "1e5",
        "1E+5",
        "1e-05",
        "0.0",
        "0e0",
        "123456789012345678901234567890.123456789e9999",
        "\"\"",
        "\"abc\"",
        "\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"",
        "\"\\u0000\"",
        "\"\\uD83D\\uDE00\"",
        "\"\\ud7ff\\ue000\"",
        "\"\xC3\xA9\"",
        "\"\xE2\x82\xAC\"",
        "\"\xF0\x9F\x98\x80\"",
        "\"\xF4\x8F\xBF\xBF\"",
        "\"\xEE\x80\x80\"",
        "\"\x7F\"",
        "\"seventeen bytes..\"",
        "\"aaaaaaa\\n\"",
        "\"aaaaaaaa\\n\"",
        "[]",
        "{}",
        " [ ] ",
        "\t\r\n{ }\n",
        "[1]",
        "[1,2]",
        "[[],[[]],{}]",
        "{\"a\":1}",
        "{\"a\":1,\"a\":2}",
        "{\"\":{\"b\":[{}, null]}, \"c\" : \"d\"}",
        "[true,false,null]",
        "[1 , 2]",
    };

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        if (!valid(texts[i]))
            fail_msg("should be valid: %s", texts[i]);
}

TEST(test_bad_texts)
{
    static const char *const texts[] = {
        "",
        " ",
        "nul",
        "nulll",
        "True",
        "TRUE",
        "tru",
        "01",
        "-",
        "-a",
        "+1",
        "1.",
        ".5",
        "1.e5",
        "1e",
        "1e+",
        "0x1",
        "00",
        "-01",
        "1 2",
        "NaN",
        "Infinity",
        "--1",
        "1-",
        "1e5.5",
        "\"",
        "\"a",
        "\"\\\"",
        "\"\\x\"",
        "\"\\",
        "\"\\u\"",
        "\"\\u12\"",
        "\"\\u123g\"",
        "\"\\u123",
        "'a'",
        "\"\\uD800\"",
        "\"\\uDC00\"",
        "\"\\uD800\\uD800\"",
        "\"\\uD800x\"",
        "\"\\uD800\\n\"",
        "\"\\uD83D\\u\"",
        "\"\x01\"",
        "\"\n\"",
        "\"\t\"",
        "\"aaaaaaaa\x1f\"",
        "\"aaaa\x80\"",
        "\"\xC0\x80\"",
        "\"\xC3\"",
        "\"\xC3\x28\"",
        "\"\xE0\x80\x80\"",
        "\"\xED\xA0\x80\"",
        "\"\xE2\x82\"",
        "\"\xF0\x80\x80\x80\"",
        "\"\xF4\x90\x80\x80\"",
        "\"\xF5\x80\x80\x80\"",
        "\"\xFF\"",
        "\xEF\xBB\xBF{}",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[,]",
        "[1 2]",
        "[}",
        "[1}",
        "[]]",
        "[]]]",
        "[[]",
        "{",
        "}",
        "{\"a\"",
        "{\"a\":",
        "{\"a\":1",
        "{\"a\":1,",
        "{\"a\":1,}",
        "{,}",
        "{\"a\"}",
        "{\"a\":}",
        "{a:1}",
        "{1:1}",
        "{\"a\" 1}",
        "{\"a\":1 \"b\":2}",
        "{\"a\":1]",
        "{\"a\"::1}",
        "{}{}",
        "[]1",
        "{}x",
        "//c\n1",
        "1//",
        "[1,,2]",
        "\v1",
        "\f1",
        "1\xC2\xA0",
    };

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        if (valid(texts[i]))
            fail_msg("should not be valid: %s", texts[i]);
    assert_false(json_is_valid(NULL, 0, 10));
    assert_false(json_is_valid("1\0", 2, 10));
    assert_false(json_is_valid("\"\0\"", 3, 10));
    assert_false(json_is_valid("\0", 1, 10));
}

/* An opening bracket `depth` times, then as many closing ones; both kinds in turn. */
static void add_nested(struct strbuf *sb, int depth)
{
    for (int i = 0; i < depth; i++)
        strbuf_adds(sb, i % 3 == 2 ? "{\"k\":" : "[");
    strbuf_addc(sb, '0');
    for (int i = depth - 1; i >= 0; i--)
        strbuf_addc(sb, i % 3 == 2 ? '}' : ']');
}

TEST(test_depth_is_bounded)
{
    static const int depths[] = {1, 2, 63, 64, 65, 128, 511, 512};

    for (size_t i = 0; i < ARRAY_SIZE(depths); i++) {
        CLEANUP(strbuf_free) struct strbuf sb = STRBUF_INIT(STRBUF_MAX_DEFAULT);

        add_nested(&sb, depths[i]);
        assert_true(json_is_valid(sb.data, sb.len, depths[i]));
        assert_false(json_is_valid(sb.data, sb.len, depths[i] - 1));
        assert_true(json_is_valid(sb.data, sb.len, 1000000) == (depths[i] <= JSON_MAX_DEPTH));
    }
    assert_true(json_is_valid("1", 1, 0));
    assert_false(json_is_valid("[]", 2, 0));
    assert_false(json_is_valid("[]", 2, -5));
}

TEST(test_a_thousand_levels_are_refused)
{
    CLEANUP(strbuf_free) struct strbuf sb = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    add_nested(&sb, 1000);
    assert_false(json_is_valid(sb.data, sb.len, 100000));
    strbuf_clear(&sb);
    for (int i = 0; i < 1000000; i++)
        strbuf_addc(&sb, '[');
    assert_false(json_is_valid(sb.data, sb.len, 100000));
}

TEST(test_every_cut_of_an_object_is_invalid)
{
    static const char text[] =
        "{\"a\":[1,-2.5e+3,\"x\\u00e9\\uD83D\\uDE00\xC3\xA9\",true,null,{}],\"b\":{\"c\":\"d\"}}";

    assert_true(valid(text));
    for (size_t len = 0; len < sizeof(text) - 1; len++) {
        /* A copy without a terminator, so that reading past the end shows under ASan. */
        CLEANUP(freep) char *copy = copy_of(text, len);

        assert_false(json_is_valid(copy, len, JSON_MAX_DEPTH));
    }
}

static void assert_json_string(const char *bytes, size_t len, const char *wanted)
{
    CLEANUP(strbuf_free) struct strbuf sb = STRBUF_INIT(STRBUF_MAX_DEFAULT);

    json_add_string(&sb, bytes, len);
    assert_string_equal(strbuf_str(&sb), wanted);
    assert_true(json_is_valid(sb.data, sb.len, 1));
}

TEST(test_strings_are_escaped)
{
    assert_json_string(NULL, 0, "\"\"");
    assert_json_string("plain", 5, "\"plain\"");
    assert_json_string("\"\\/\b\f\n\r\t", 8, "\"\\\"\\\\/\\b\\f\\n\\r\\t\"");
    assert_json_string("a\0b\x1f\x7f", 5, "\"a\\u0000b\\u001f\x7f\"");
    assert_json_string("\xC3\xA9\xF0\x9F\x98\x80", 6, "\"\xC3\xA9\xF0\x9F\x98\x80\"");
    assert_json_string("12345678\xFF!", 10, "\"12345678\xEF\xBF\xBD!\"");
    assert_json_string("\xE2\x82", 2, "\"\xEF\xBF\xBD\xEF\xBF\xBD\"");
}

TEST(test_any_bytes_make_a_valid_string)
{
    uint64_t x = 88172645463325252ULL;

    for (int i = 0; i < 2000; i++) {
        CLEANUP(strbuf_free) struct strbuf sb = STRBUF_INIT(STRBUF_MAX_DEFAULT);
        CLEANUP(strbuf_free) struct strbuf utf8 = STRBUF_INIT(STRBUF_MAX_DEFAULT);
        char bytes[64] = {0};
        size_t len = (size_t) i % sizeof(bytes);

        for (size_t j = 0; j < len; j++) {
            x ^= x << 13, x ^= x >> 7, x ^= x << 17;
            bytes[j] = (char) (x >> 20);
        }
        json_add_string(&sb, bytes, len);
        assert_true(json_is_valid(sb.data, sb.len, 1));
        strbuf_add_utf8(&utf8, bytes, len);
        assert_int_equal(strlen(strbuf_str(&utf8)), utf8.len);
    }
}

#define DOCUMENT                                                                                             \
    " {\"a\": [10, {\"b\": \"x\"}, [ ], true] , \"\": 0.50, \"m~n\":1e2, \"c/d\" : null, \"a\": 2, "         \
    "\"e\\u00e9\\\"\\n\\uD83D\\uDE00\": \"\\u0041\\/\\t\\u20ac\\u00e9\", \"big\": 12345678901234567890.10, \"o\": {\"o\": {}}}"

TEST(test_values_are_found_by_pointers)
{
    static const struct {
        const char *pointer, *text; /* NULL = absent */
    } cases[] = {
        {"/a/0", "10"},
        {"/a/1/b", "x"},
        {"/a/1", "{\"b\": \"x\"}"},
        {"/a/2", "[ ]"},
        {"/a/3", "true"},
        {"/a/2/0", NULL},
        {"/a/4", NULL},
        {"/a/-", NULL},
        {"/a/-1", NULL},
        {"/a/01", NULL},
        {"/a/+1", NULL},
        {"/a/ 1", NULL},
        {"/a/", NULL},
        {"/a/99999999999999999999", NULL},
        {"/a/b", NULL},
        {"/", "0.50"},
        {"//x", NULL},
        {"/m~0n", "1e2"},
        {"/m~n", "1e2"},
        {"/c~1d", "null"},
        {"/c/d", NULL},
        {"/e\xC3\xA9\"\n\xF0\x9F\x98\x80", "A/\t\xE2\x82\xAC\xC3\xA9"},
        {"/big", "12345678901234567890.10"},
        {"/o/o", "{}"},
        {"/o/o/o", NULL},
        {"/none", NULL},
        {"/A", NULL},
    };
    struct json_value root, found;
    assert_true(json_read(DOCUMENT, strlen(DOCUMENT), &root));
    assert_true(json_find(&root, "", &found));
    assert_int_equal(found.len, root.len);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(1000);
        bool there = json_find(&root, cases[i].pointer, &found);
        if (there)
            json_add_text(&text, &found);
        if (there != (cases[i].text != NULL) || (there && strcmp(strbuf_str(&text), cases[i].text) != 0))
            fail_msg("%s: %s", cases[i].pointer, there ? strbuf_str(&text) : "absent");
        if (there)
            assert_true(json_is_text(&found, cases[i].text) && !json_is_text(&found, "other"));
    }
    assert_false(json_read("{\"a\": 1", 7, &root));
    assert_true(json_is_pointer("") && json_is_pointer("/~0~1/") && json_is_pointer("/"));
    assert_false(json_is_pointer("a") || json_is_pointer("/~") || json_is_pointer("/~2"));
}

TEST(test_the_deepest_value_is_found_and_no_deeper_one)
{
    CLEANUP(strbuf_free) struct strbuf text = STRBUF_INIT(1 << 20), pointer = STRBUF_INIT(1 << 20);
    struct json_value root, found;

    for (int i = 0; i < JSON_MAX_DEPTH; i++) {
        strbuf_adds(&text, "[0,");
        strbuf_adds(&pointer, "/1");
    }
    strbuf_adds(&text, "7");
    for (int i = 0; i < JSON_MAX_DEPTH; i++)
        strbuf_adds(&text, "]");
    assert_true(json_read(text.data, text.len, &root));
    assert_true(json_find(&root, pointer.data, &found) && json_is_text(&found, "7"));
    strbuf_adds(&pointer, "/1");
    assert_false(json_find(&root, pointer.data, &found));
}

TEST(test_walks)
{
    static const struct {
        const char *text, *seen;
    } cases[] = {
        {"[]", ""},
        {"{ }", ""},
        {"7", ""},
        {"\"[1]\"", ""},
        {" [1 , \"a,]\",[2,[3]] ,{}]", "1;a,];[2,[3]];{};"},
        {"{\"a\":1, \"b\" : {\"c\":[]},\"\":null}", "a=1;b={\"c\":[]};=null;"},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(strbuf_free) struct strbuf seen = STRBUF_INIT(1000);
        struct json_value root, name, value;
        assert_true(json_read(cases[i].text, strlen(cases[i].text), &root));
        for (struct json_walk w = json_walk(&root); json_next(&w, &name, &value);) {
            if (w.is_object) {
                json_add_text(&seen, &name);
                strbuf_adds(&seen, "=");
            }
            json_add_text(&seen, &value);
            strbuf_adds(&seen, ";");
        }
        assert_string_equal(strbuf_str(&seen), cases[i].seen);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_texts),
        cmocka_unit_test(test_bad_texts),
        cmocka_unit_test(test_depth_is_bounded),
        cmocka_unit_test(test_a_thousand_levels_are_refused),
        cmocka_unit_test(test_every_cut_of_an_object_is_invalid),
        cmocka_unit_test(test_strings_are_escaped),
        cmocka_unit_test(test_any_bytes_make_a_valid_string),
        cmocka_unit_test(test_values_are_found_by_pointers),
        cmocka_unit_test(test_the_deepest_value_is_found_and_no_deeper_one),
        cmocka_unit_test(test_walks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
