/* delivery_settings as a claim brings them: what they do to an integration, and what is wrong with some. */
#include <string.h>

#include "delivery/settings.h"
#include "unit.h"

/* The problem that a text is, or NULL. */
static const char *problem(struct settings *s, const char *text)
{
    settings_take(s, text);
    return s->problem;
}

TEST(test_what_cannot_be_used)
{
    static const struct {
        const char *text, *problem; /* a part of it; NULL = there is none */
    } cases[] = {
        {"", NULL},
        {"{}", NULL},
        {"null", "no JSON object"},
        {"[]", "no JSON object"},
        {"\"credential:x\"", "no JSON object"},
        {"{", "no JSON object"},
        {"{\"campus\": 1}", "cannot be used: campus is not known to this version"},
        {"{\"a\\nb\\u001b\": 1}", "cannot be used: a b? is not known to this version"},
        {"{\"tls\": {}, \"a123456789012345678901234567890123456789xyz\": 1}",
         "cannot be used: a123456789012345678901234567890123456789 is not known"},
    };
    struct settings s = {0};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *is = problem(&s, cases[i].text);
        if ((is != NULL) != (cases[i].problem != NULL) || (is && !strstr(is, cases[i].problem)))
            fail_msg("%s: %s", cases[i].text, is ? is : "no problem");
    }
    settings_free(&s);
}

TEST(test_the_largest)
{
    CLEANUP(freep) char *text = xcalloc(1, 65538);
    struct settings s = {0};

    memset(text, ' ', 65537);
    text[0] = '{';
    text[65535] = '}';
    text[65536] = '\0';
    assert_null(problem(&s, text));
    memcpy(text + 65535, " }", 2);
    assert_non_null(strstr(problem(&s, text), "longer than 65536 bytes"));
    settings_free(&s);
}

/* A claim a millisecond brings the same text: it is read when it is another one, or when a credential that it
 * names may be another one. */
TEST(test_they_are_read_when_they_change)
{
    struct settings s = {0};

    settings_take(&s, "");
    assert_null(s.text);
    settings_take(&s, "{\"tls\": {}}");
    const char *text = s.text;
    settings_take(&s, "{\"tls\": {}}");
    assert_ptr_equal(s.text, text);
    settings_forget_credentials(&s);
    assert_false(s.is_stale);
    settings_take(&s, "{\"tls\": {\"certificate\": \"credential:usp\"}}");
    assert_string_equal(s.text, "{\"tls\": {\"certificate\": \"credential:usp\"}}");
    settings_forget_credentials(&s);
    assert_true(s.is_stale);
    settings_take(&s, "{\"tls\": {\"certificate\": \"credential:usp\"}}");
    assert_false(s.is_stale);
    settings_take(&s, "");
    assert_null(s.text);
    settings_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_cannot_be_used),
        cmocka_unit_test(test_the_largest),
        cmocka_unit_test(test_they_are_read_when_they_change),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
