/* Memory, numbers, randomness, wake-ups. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "base/util.h"
#include "unit.h"

TEST(test_empty_allocations_are_usable)
{
    CLEANUP(freep) void *a = xmalloc(0);
    CLEANUP(freep) void *b = xcalloc(0, 8);
    CLEANUP(freep) void *c = xreallocarray(NULL, 0, 8);

    assert_non_null(a);
    assert_non_null(b);
    assert_non_null(c);
}

TEST(test_strings_are_copied)
{
    CLEANUP(freep) char *part = xstrndup("abcdef", 3);
    CLEANUP(freep) char *text = xasprintf("%s-%d", part, 7);

    assert_null(xstrdup(NULL));
    assert_string_equal(part, "abc");
    assert_string_equal(text, "abc-7");
}

TEST(test_take_ptr_leaves_null_behind)
{
    CLEANUP(freep) char *owner = xstrdup("x");
    char *taken = TAKE_PTR(owner);

    assert_null(owner);
    assert_string_equal(taken, "x");
    free_secret(taken);
    free_secret(NULL);
}

TEST(test_closep_keeps_errno)
{
    int fd = dup(STDERR_FILENO), none = -1;

    errno = ENOENT;
    closep(&fd);
    closep(&none);
    assert_int_equal(errno, ENOENT);
    assert_int_equal(fd, -1);
}

TEST(test_error_text_is_bounded)
{
    struct error err;
    char big[3000];

    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    error_set(&err, "%s", big);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    error_set(NULL, "%s", "nobody listens");
}

TEST(test_integers_are_whole_strings_in_range)
{
    static const struct {
        const char *text;
        int result;
        int64_t value;
    } cases[] = {
        {"0", 0, 0},
        {"-7", 0, -7},
        {"007", 0, 7},
        {"100", 0, 100},
        {"101", -ERANGE, 0},
        {"-101", -ERANGE, 0},
        {"99999999999999999999", -ERANGE, 0},
        {"", -EINVAL, 0},
        {"-", -EINVAL, 0},
        {"+1", -EINVAL, 0},
        {" 1", -EINVAL, 0},
        {"1 ", -EINVAL, 0},
        {"1x", -EINVAL, 0},
        {"0x10", -EINVAL, 0},
        {"--1", -EINVAL, 0},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        int64_t value = 12345;

        assert_int_equal(parse_i64(cases[i].text, -100, 100, &value), cases[i].result);
        assert_int_equal(value, cases[i].result == 0 ? cases[i].value : 12345);
    }
}

TEST(test_random_numbers_differ_and_stay_in_range)
{
    uint64_t first = random_u64();
    bool differs = false;

    for (int i = 0; i < 1000; i++) {
        double unit = random_unit();

        assert_true(unit >= 0.0 && unit < 1.0);
        differs |= random_u64() != first;
    }
    assert_true(differs);
}

static bool is_readable(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, 0) == 1;
}

TEST(test_wakefd_collects_wakeups)
{
    CLEANUP(closep) int fd = wakefd_new();

    assert_false(is_readable(fd));
    wakefd_raise(fd);
    wakefd_raise(fd);
    assert_true(is_readable(fd));
    wakefd_clear(fd);
    assert_false(is_readable(fd));
    wakefd_clear(fd); /* must not block */
}

TEST(test_digits_of_either_case_become_bytes)
{
    unsigned char bytes[4] = {0};
    char text[9] = {0};

    assert_true(get_hex("00aF7fFEz", bytes, 4));
    put_hex(text, bytes, 4);
    assert_string_equal(text, "00af7ffe");
    for (const char *const *t = (const char *const[]){"", "0", "0g", "g0", " 1", "-1", "\xc3\xa4", NULL}; *t;
         t++)
        assert_false(get_hex(*t, bytes, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty_allocations_are_usable),
        cmocka_unit_test(test_strings_are_copied),
        cmocka_unit_test(test_take_ptr_leaves_null_behind),
        cmocka_unit_test(test_closep_keeps_errno),
        cmocka_unit_test(test_error_text_is_bounded),
        cmocka_unit_test(test_integers_are_whole_strings_in_range),
        cmocka_unit_test(test_random_numbers_differ_and_stay_in_range),
        cmocka_unit_test(test_wakefd_collects_wakeups),
        cmocka_unit_test(test_digits_of_either_case_become_bytes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
