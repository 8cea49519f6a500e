/* Connection strings: what libpq refuses, and that no message shows a password. */
#include <string.h>

#include "pg/pg_conninfo.h"
#include "unit.h"

TEST(test_conninfo_is_printed_without_its_password)
{
    char *text = pg_conninfo_printable("host=db user=anubis password=s3cret dbname=x");
    assert_null(strstr(text, "s3cret"));
    assert_non_null(strstr(text, "host=db"));
    free(text);
    text = pg_conninfo_printable("postgres://anubis:s3cret@db/x");
    assert_null(strstr(text, "s3cret"));
    assert_non_null(strstr(text, "dbname=x"));
    free(text);
    text = pg_conninfo_printable("no conninfo = at all '");
    assert_non_null(text);
    free(text);
}

TEST(test_good_strings_pass)
{
    static const char *const cases[] = {
        "",
        "host=a,b port=5432, dbname=x",
        "host = /run password = 'it\\'s \\\\ hush' sslmode=require",
        "postgres://u:p%40ss@h:5432,[::1]:5433/db?sslmode=require",
        "postgresql:///db?host=/run&port=%35432",
        "postgres://u:hu?sh@h/db",
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(strbuf_free) struct strbuf why = STRBUF_INIT(4096);

        if (!pg_conninfo_check(cases[i], &why))
            fail_msg("%s: %s", cases[i], strbuf_str(&why));
    }
}

TEST(test_several_hosts)
{
    static const char *const several[] = {"host=a,b dbname=x", "postgres://u@a,b/x",
                                          "hostaddr=10.0.0.1,10.0.0.2"};
    static const char *const one[] = {
        "", "x", "host=a", "postgres://a,b@host/x", "password='a,b' host=c", "no = '"};

    for (size_t i = 0; i < ARRAY_SIZE(several); i++)
        assert_true(pg_conninfo_has_hosts(several[i]));
    for (size_t i = 0; i < ARRAY_SIZE(one); i++)
        assert_false(pg_conninfo_has_hosts(one[i]));
}

TEST(test_names_of_parameters_are_shown)
{
    static const struct {
        const char *conninfo, *shown;
    } cases[] = {
        {"hots=x", "\"hots\""},
        {"host=x passwrod = hush", "\"passwrod\""},
        {"postgres://u:hush@h/db?pool=5", "\"pool\""},
        {"postgres://h/db?sslmode=require&pool=5", "\"pool\""},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(strbuf_free) struct strbuf why = STRBUF_INIT(4096);

        assert_false(pg_conninfo_check(cases[i].conninfo, &why));
        assert_non_null(strstr(strbuf_str(&why), cases[i].shown));
    }
}

/* Each holds the password "hush", or a piece of one. */
TEST(test_no_message_shows_a_password)
{
    static const char *const cases[] = {
        "hush",
        "password=x hush",
        "password=x hush=1",
        "password = 'x\\' hush",
        "password='x'hush",
        "password='x' hush='1'",
        "host=h password=x\\ y hush=1",
        "sslpassword=x hush=1",
        "password=\"x hush=1\"",
        "postgres://u:hush/x@h/db",
        "postgres://u:hush/?hush@h/db",
        "postgres://u:hush/?hush=1@h/db",
        "postgres://u:hush%zz@h/db",
        "postgres://u:\"hush\"%zz@h/db",
        "postgres://u:hush%00@h/db",
        "postgres://u:hush@[::1/db",
        "postgres://u:hush@[]/db",
        "postgres://u:hush@[::1]x/db",
        "postgres://u:=hush@[::1]=/db",
        "postgres://u@h/db?password=hush%zz",
        "postgres://u@h/db?password=x&hush=1",
        "postgres://u@h/db?password=x&hush",
        "postgres://u@h/db?password=x=hush",
        "postgres://u@h/db?password",
        "postgres://u:hush:hush@h:hush/db",
        "postgres://h:1/db?port=hush",
        "host=h port=hush",
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(strbuf_free) struct strbuf why = STRBUF_INIT(4096);

        if (pg_conninfo_check(cases[i], &why) || strstr(strbuf_str(&why), "hush"))
            fail_msg("%s: %s", cases[i], strbuf_str(&why));
    }
}

TEST(test_ports_are_numbers)
{
    static const char *const cases[] = {"port=0", "port=65536", "port=5432,x", "postgres://h:x/db",
                                        "postgres://h/db?port=-1"};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(strbuf_free) struct strbuf why = STRBUF_INIT(4096);

        assert_false(pg_conninfo_check(cases[i], &why));
        assert_non_null(strstr(strbuf_str(&why), "must have ports from 1 to 65535"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_conninfo_is_printed_without_its_password),
        cmocka_unit_test(test_good_strings_pass),
        cmocka_unit_test(test_several_hosts),
        cmocka_unit_test(test_names_of_parameters_are_shown),
        cmocka_unit_test(test_no_message_shows_a_password),
        cmocka_unit_test(test_ports_are_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
