/* Names and headers of the files of sql/, and the versions that they carry. */
#include <errno.h>
#include <string.h>

#include "pg/schema.h"
#include "pg/sql_files.h"
#include "unit.h"

TEST(test_versions_are_read_from_names)
{
    assert_int_equal(schema_file_version("000_migrations.sql"), 0);
    assert_int_equal(schema_file_version("012_x.sql"), 12);
    assert_int_equal(schema_file_version("999999_x.sql"), 999999);
    assert_int_equal(schema_file_version("1000000_x.sql"), -EINVAL);
    assert_int_equal(schema_file_version("migrations.sql"), -EINVAL);
    assert_int_equal(schema_file_version("_x.sql"), -EINVAL);
    assert_int_equal(schema_file_version("-1_x.sql"), -EINVAL);
    assert_int_equal(schema_file_version("12x.sql"), -EINVAL);
    assert_int_equal(schema_file_version("12"), -EINVAL);
    assert_int_equal(schema_file_version(""), -EINVAL);
}

static void expect_header(const char *text, const char *name, const char *value)
{
    CLEANUP(freep) char *found = schema_file_header(text, name);

    if (!value)
        assert_null(found);
    else
        assert_string_equal(found, value);
}

TEST(test_headers_stand_in_the_first_comments)
{
    expect_header("-- how: words, more\n", "how", "words, more");
    expect_header("--how:words", "how", "words");
    expect_header("-- A file.\n--\n--   how:   words\nselect 1;\n", "how", "words");
    expect_header("-- how:\n", "how", "");
    expect_header("-- how: first\n-- how: second\n", "how", "first");
    expect_header("-- how it works: words\n", "how", NULL);
    expect_header("-- ho: words\n", "how", NULL);
    expect_header("-- how\n", "how", NULL);
    expect_header("select 1;\n-- how: words\n", "how", NULL);
    expect_header("\n-- how: words\n", "how", NULL);
    expect_header("", "how", NULL);
}

TEST(test_the_oldest_daemon)
{
    assert_int_equal(schema_file_oldest_daemon("-- oldest daemon: 7\n"), 7);
    assert_int_equal(schema_file_oldest_daemon("-- A file.\n"), 0);
    assert_int_equal(schema_file_oldest_daemon("-- oldest daemon: seven\n"), 0);
}

TEST(test_the_files_of_this_program)
{
    int newest = -1;

    for (size_t i = 0; i < sql_files_count; i++) {
        int version = schema_file_version(sql_files[i].name);
        if (strncmp(sql_files[i].name, "repeatable/", 11) == 0) {
            assert_int_equal(version, -EINVAL);
            continue;
        }
        assert_true(version > newest);
        assert_true(schema_file_oldest_daemon(sql_files[i].text) <= version);
        newest = version;
    }
    assert_int_equal(schema_known(), newest);
    assert_in_range(SCHEMA_NEEDED, 0, newest);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_versions_are_read_from_names),
        cmocka_unit_test(test_headers_stand_in_the_first_comments),
        cmocka_unit_test(test_the_oldest_daemon),
        cmocka_unit_test(test_the_files_of_this_program),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
