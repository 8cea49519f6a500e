/* Environment files: each form of an assignment that systemd.exec(5) describes, and other lines. */
#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "config/config.h"
#include "unit.h"

static char path[] = "/tmp/test_envfile.XXXXXX";

static int file_make(void **state)
{
    int fd = mkstemp(path);

    (void) state;
    return fd < 0 || close(fd) < 0;
}

static int file_remove(void **state)
{
    (void) state;
    return unlink(path);
}

static void load(const char *text)
{
    struct error err;
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
    unsetenv("A");
    unsetenv("B");
    assert_int_equal(envfile_load(path, true, &err), 0);
}

static void expect(const char *name, const char *value)
{
    const char *found = getenv(name);

    if (!value)
        assert_null(found);
    else if (!found)
        fail_msg("%s is not set, \"%s\" is wanted", name, value);
    else
        assert_string_equal(found, value);
}

TEST(test_forms_of_a_value)
{
    static const struct {
        const char *text, *a;
    } cases[] = {
        {"A=x\n", "x"},
        {"A=x", "x"},
        {"A=\n", ""},
        {"  A = x y  \r\n", "x y"},
        {"A=x # y\n", "x # y"},
        {"A=x=y\n", "x=y"},
        {"A='x \\n\ny'\n", "x \\n\ny"},
        {"A=\"x  y\"\n", "x  y"},
        {"A=\"\\\"\\\\\\`\\$\\n\"\n", "\"\\`$\\n"},
        {"A=\"x\\\ny\"\n", "xy"},
        {"A='x'\"y\"z\n", "xyz"},
        {"A='x' 'y'\n", "xy"},
        {"A=x\\\ny\n", "xy"},
        {"A=x\\ \n", "x "},
        {"A=\\'x\\'\n", "'x'"},
        {"A=é\n", "é"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        load(cases[i].text);
        expect("A", cases[i].a);
    }
}

TEST(test_lines_that_are_no_assignment)
{
    static const char *const texts[] = {"A\n",     "1A=x\n", "A-=x\n",       "=x\n", "export A=x\n",
                                        "# A=x\n", ";A=x\n", "# x\\\nA=x\n", "\n\n"};

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        load(texts[i]);
        expect("A", NULL);
        CLEANUP(freep) char *followed = xasprintf("%s\nB=y\n", texts[i]);
        load(followed);
        expect("B", "y");
    }
}

TEST(test_the_last_assignment_counts)
{
    load("A=x\nB=z\nA=y\n");
    expect("A", "y");
    expect("B", "z");
}

TEST(test_the_environment_comes_first)
{
    struct error err;

    load("A=file\n");
    setenv("A", "before", 1);
    assert_int_equal(envfile_load(path, true, &err), 0);
    expect("A", "before");
}

TEST(test_files_that_cannot_be_read)
{
    struct error err;

    assert_int_equal(envfile_load("/nowhere/at/all", false, &err), 0);
    assert_int_equal(envfile_load("/nowhere/at/all", true, &err), -ENOENT);
    assert_int_equal(envfile_load("/", false, &err), -EISDIR);
    assert_string_equal(err.text, "could not read \"/\": Is a directory");
}

TEST(test_a_long_file_is_refused)
{
    struct error err;

    load("A=x\n");
    assert_int_equal(truncate(path, (1 << 20) + 1), 0);
    unsetenv("A");
    assert_int_equal(envfile_load(path, true, &err), -EFBIG);
    expect("A", NULL);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_forms_of_a_value),
        cmocka_unit_test(test_lines_that_are_no_assignment),
        cmocka_unit_test(test_the_last_assignment_counts),
        cmocka_unit_test(test_the_environment_comes_first),
        cmocka_unit_test(test_files_that_cannot_be_read),
        cmocka_unit_test(test_a_long_file_is_refused),
    };

    return cmocka_run_group_tests(tests, file_make, file_remove);
}
