/* What a command of anubisctl answers: the same facts for people and as JSON. */
#include <string.h>

#include "ctl/sheet.h"
#include "unit.h"

static const struct table_column columns[] = {
    {"id", "ID", true}, {"name", "NAME", false}, {"hidden", NULL, false}, {"note", "NOTE", false}};

static int setup(void **state)
{
    sheet_new((struct sheet **) state);
    return 0;
}

static int teardown(void **state)
{
    sheet_free(*state);
    return 0;
}

static void assert_words_within(const struct sheet *s, size_t width, const char *expected)
{
    CLEANUP(strbuf_free) struct strbuf out = STRBUF_INIT(1 << 20);

    sheet_add_words(s, width, &out);
    assert_string_equal(strbuf_str(&out), expected);
}

static void assert_words(const struct sheet *s, const char *expected)
{
    assert_words_within(s, 0, expected);
}

/* Without the white space between the parts. */
static void assert_json(const struct sheet *s, const char *expected)
{
    CLEANUP(strbuf_free) struct strbuf out = STRBUF_INIT(1 << 20), packed = STRBUF_INIT(1 << 20);

    sheet_add_json(s, &out);
    for (const char *p = strbuf_str(&out); *p; p++)
        if (!strchr("\n\t", *p) && !(p[0] == ' ' && p[-1] == ','))
            strbuf_addc(&packed, *p);
    assert_string_equal(strbuf_str(&packed), expected);
}

TEST(test_nothing)
{
    assert_words(*state, "");
    assert_json(*state, "{}");
}

TEST(test_fields)
{
    sheet_add(*state, "status", "status", value_text("sent"));
    sheet_add(*state, "count", "a longer label", value_i64(3));
    sheet_add(*state, "json_only", NULL, value_words(value_bool(false), "not shown"));
    sheet_add(*state, "sure", "São", value_bool(true));
    sheet_add(*state, "empty", "empty", value_text(""));
    sheet_add(*state, "missing", "missing", value_text(NULL));
    sheet_add_known(*state, "unknown", "unknown", value_null());
    sheet_add_known(*state, "known", "known", value_i64(0));
    sheet_say(*state, "for people", "%d of %d", 1, 2);
    sheet_empty_line(*state);
    sheet_say(*state, NULL, "A heading");
    assert_words(*state, "status          sent\n"
                         "a longer label  3\n"
                         "São             yes\n"
                         "empty           -\n"
                         "missing         -\n"
                         "known           0\n"
                         "for people      1 of 2\n"
                         "\n"
                         "A heading\n");
    assert_json(*state, "{\"status\":\"sent\",\"count\":3,\"json_only\":false,\"sure\":true,\"empty\":\"\","
                        "\"missing\":null,\"unknown\":null,\"known\":0}");
}

TEST(test_numbers_lose_no_digit)
{
    sheet_add(*state, "least", "least", value_i64(INT64_MIN));
    sheet_add(*state, "most", "most", value_i64(INT64_MAX));
    sheet_add(*state, "odd", "odd", value_i64(INT64_C(9007199254740993)));
    sheet_add(*state, "none", "none", value_i64_or_null(-1, -1));
    sheet_add(*state, "some", "some", value_i64_or_null(0, -1));
    assert_words(*state, "least  -9223372036854775808\nmost   9223372036854775807\nodd    9007199254740993\n"
                         "none   -\nsome   0\n");
    assert_json(*state, "{\"least\":-9223372036854775808,\"most\":9223372036854775807,"
                        "\"odd\":9007199254740993,\"none\":null,\"some\":0}");
}

TEST(test_other_words_for_people)
{
    sheet_add(*state, "due", "due", value_words(value_words(value_i64(5), "first"), "%d+", 5));
    sheet_add(*state, "count", "count", value_words(value_null(), "not known"));
    sheet_add(*state, "text", "text", value_text_or_null(""));
    sheet_add(*state, "other", "other", value_text_or_null("x"));
    assert_words(*state, "due    5+\ncount  not known\ntext   -\nother  x\n");
    assert_json(*state, "{\"due\":5,\"count\":null,\"text\":null,\"other\":\"x\"}");
}

TEST(test_times)
{
    sheet_add(*state, "at", "at", value_time(INT64_C(1795604379123456)));
    sheet_add(*state, "epoch", "epoch", value_time(0));
    sheet_add(*state, "never", "never", value_time(INT64_MAX));
    sheet_add(*state, "always", "always", value_time(INT64_MIN));
    assert_words(*state,
                 "at      2026-11-25 10:59:39Z\nepoch   1970-01-01 00:00:00Z\nnever   -\nalways  -\n");
    assert_json(*state, "{\"at\":\"2026-11-25T10:59:39.123456Z\",\"epoch\":\"1970-01-01T00:00:00.000000Z\","
                        "\"never\":null,\"always\":null}");
}

TEST(test_lists)
{
    struct sentences none = {0}, some = {0};

    sentences_add(&some, "%s", "one");
    sentences_add(&some, "t%s", "wo");
    sheet_list(*state, "some", &some);
    sheet_list(*state, "none", &none);
    sentences_free(&some);
    assert_words(*state, "  one\n  two\n");
    assert_json(*state, "{\"some\":[\"one\",\"two\"],\"none\":[]}");
}

TEST(test_tables)
{
    struct table *t = sheet_table(*state, "rows", "Rows", "none", columns, ARRAY_SIZE(columns));

    sheet_table(*state, "others", "Others", "none yet", columns, ARRAY_SIZE(columns));
    table_add(t, value_i64(7));
    table_add(t, value_text("São João"));
    table_add(t, value_bool(true));
    table_add(t, value_null());
    table_add(t, value_words(value_i64(1234), "1,234"));
    table_add(t, value_text("b"));
    table_add(t, value_words(value_i64(1), "not shown"));
    table_add(t, value_text("x"));
    assert_words(*state, "Rows\n"
                         "     ID  NAME      NOTE\n"
                         "      7  São João\n"
                         "  1,234  b         x\n"
                         "Others: none yet\n");
    assert_json(*state, "{\"rows\":[{\"id\":7,\"name\":\"São João\",\"hidden\":true,\"note\":null},"
                        "{\"id\":1234,\"name\":\"b\",\"hidden\":1,\"note\":\"x\"}],\"others\":[]}");
}

/* No byte of a text may drive a terminal, nor make the JSON malformed. */
TEST(test_sections)
{
    struct table *t = sheet_table(*state, "rows", "Rows", "none", columns, ARRAY_SIZE(columns));

    table_make_sections(t, "name");
    for (int i = 1; i <= 3; i++) {
        table_add(t, value_i64(i));
        table_add(t, value_text(i < 3 ? "the first" : "x\x1b[31m"));
        table_add(t, value_null());
        table_add(t, value_text("n"));
    }
    assert_words_within(*state, 12, "Rows\n  ID  NOTE\n  the first:\n   1  n\n   2  n\n  x?[31m:\n   3  n\n");
}

TEST(test_hostile_text)
{
    static const char hostile[] = "\x1b[31m\n\"\\\x7f\xc2\x9b\x9b\xc3(é\xc2\xa0\u202e";
    struct sentences items = {0};
    struct table *t = sheet_table(*state, "rows", "Rows", "none", &columns[1], 1);

    table_add(t, value_text(hostile));
    sheet_add(*state, "text", "text", value_text(hostile));
    sheet_say(*state, "said", "%s", hostile);
    sentences_add(&items, "%s", hostile);
    sheet_list(*state, "items", &items);
    sentences_free(&items);
#define SHOWN "?[31m \"\\??\uFFFD\uFFFD(é\u00A0?"
#define JSON "\"\\u001b[31m\\n\\\"\\\\\\u007f\\u009b\uFFFD\uFFFD(é\u00A0\\u202e\""
    assert_words(*state, "Rows\n  NAME\n  " SHOWN "\ntext  " SHOWN "\nsaid  " SHOWN "\n  " SHOWN "\n");
    assert_json(*state, "{\"rows\":[{\"name\":" JSON "}],\"text\":" JSON ",\"items\":[" JSON "]}");
}

/* JSON has all of it. */
TEST(test_a_long_text_is_cut_for_people)
{
    static const struct table_column named[] = {
        {"id", "ID", true}, {"name", "NAME", false}, {"note", "NOTE", false}};
    char *name = xcalloc(1, 1000001);
    CLEANUP(strbuf_free) struct strbuf words = STRBUF_INIT(STRBUF_MAX_DEFAULT), json = words;
    struct table *t = sheet_table(*state, "rows", "Rows", "none", named, 3);

    memset(name, 'x', 1000000);
    table_add(t, value_i64(1));
    table_add(t, value_text(name));
    table_add(t, value_text("seen"));
    sheet_add(*state, "text", "text", value_text(name));
    sheet_add_words(*state, 0, &words);
    sheet_add_json(*state, &json);
    assert_in_range(words.len, 1000, 1300);
    assert_non_null(strstr(words.data, "xx…  seen\n"));
    assert_non_null(strstr(json.data, name));
    free(name);
}

TEST(test_narrow_lines)
{
    struct table *t = sheet_table(*state, "rows", "Rows", "none", columns, ARRAY_SIZE(columns));

    sheet_say(*state, "label", "one two three four five six");
    sheet_say(*state, NULL, "  seven eight nine ten eleven");
    table_make_elastic(t, "name");
    for (int i = 0; i < 2; i++) {
        table_add(t, value_i64(i));
        table_add(t, value_text(i ? "Faculdade São João da Boa Vista" : "short"));
        table_add(t, value_null());
        table_add(t, value_text("note"));
    }
    table_remark(t, "%s", "a remark that is longer than the line");
    assert_words_within(*state, 26,
                        "Rows\n"
                        "  ID  NAME            NOTE\n"
                        "   0  short           note\n"
                        "   1  Faculdade São…  note\n"
                        "      a remark that is\n"
                        "      longer than the line\n"
                        "label  one two three four\n"
                        "       five six\n"
                        "  seven eight nine ten\n"
                        "    eleven\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_fields, setup, teardown),
        cmocka_unit_test_setup_teardown(test_numbers_lose_no_digit, setup, teardown),
        cmocka_unit_test_setup_teardown(test_other_words_for_people, setup, teardown),
        cmocka_unit_test_setup_teardown(test_times, setup, teardown),
        cmocka_unit_test_setup_teardown(test_lists, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tables, setup, teardown),
        cmocka_unit_test_setup_teardown(test_sections, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hostile_text, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_long_text_is_cut_for_people, setup, teardown),
        cmocka_unit_test_setup_teardown(test_narrow_lines, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
