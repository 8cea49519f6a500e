/* Retry-After as servers write it, and as nobody should. */

#include <errno.h>
#include <string.h>

#include "http/http_retry_after.h"
#include "unit.h"

/* Tue, 24 Nov 2026 10:59:39 GMT */
#define NOW_SEC INT64_C(1795517979)
#define NOW_USEC (NOW_SEC * 1000000)
#define REFUSED INT64_C(-1)

struct value {
    const char *text;
    int64_t seconds; /* or REFUSED */
};

static void check(const struct value *values, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        int64_t seconds = REFUSED;
        int r = http_parse_retry_after(values[i].text, strlen(values[i].text), NOW_USEC, &seconds);

        if (seconds != values[i].seconds || r != (seconds == REFUSED ? -EINVAL : 0))
            fail_msg("\"%s\": %lld instead of %lld, return value %d", values[i].text, (long long) seconds,
                     (long long) values[i].seconds, r);
    }
}

TEST(test_seconds)
{
    static const struct value values[] = {
        {"0", 0},
        {"120", 120},
        {" 120\r\n", 120},
        {"\t 7 \t", 7},
        {"007", 7},
        {"1.5", 2},
        {"30.0", 30},
        {"0.001", 1},
        {"31536000", HTTP_RETRY_AFTER_MAX_SEC},
        {"31536001", HTTP_RETRY_AFTER_MAX_SEC},
        {"9223372036854775807", HTTP_RETRY_AFTER_MAX_SEC},
        {"18446744073709551616", HTTP_RETRY_AFTER_MAX_SEC},
        {"99999999999999999999999999999999999999999999999999999999999", HTTP_RETRY_AFTER_MAX_SEC},
    };

    check(values, ARRAY_SIZE(values));
}

TEST(test_dates)
{
    static const struct value values[] = {
        {"Tue, 24 Nov 2026 11:00:39 GMT", 60},
        {"Tue, 24 Nov 2026 10:59:39 GMT", 0},
        {"Tue, 24 Nov 2026 10:59:38 GMT", 0},
        {"Fri, 31 Dec 1999 23:59:59 GMT", 0},
        {"Thu, 01 Jan 1970 00:00:00 GMT", 0},
        {"Mon, 01 Jan 0001 00:00:00 GMT", 0},
        {"Fri, 31 Dec 9999 23:59:59 GMT", HTTP_RETRY_AFTER_MAX_SEC},
        {"Tuesday, 24-Nov-26 11:59:39 GMT", 3600},
        {"Sunday, 06-Nov-94 08:49:37 GMT", 0},
        {"Tue Nov 24 11:00:00 2026", 21},
        {"Tue Dec  1 10:59:39 2026", 7 * 86400},
        {" Tue, 24 Nov 2026 11:00:39 GMT \r\n", 60},
    };

    check(values, ARRAY_SIZE(values));
}

TEST(test_garbage)
{
    static const struct value values[] = {
        {"", REFUSED},
        {"   \r\n", REFUSED},
        {"-1", REFUSED},
        {"-9223372036854775808", REFUSED},
        {"+5", REFUSED},
        {"1e3", REFUSED},
        {"0x10", REFUSED},
        {"12 34", REFUSED},
        {"120s", REFUSED},
        {"soon", REFUSED},
        {"nan", REFUSED},
        {"Tue, 24 Nov 2026 11:00:39", REFUSED},
        {"Tue, 24 Nov 2026 11:00:39 GMT+1", REFUSED},
        {"Tue, 24 Nov 2026 11:00:39 -0300", REFUSED},
        {"Tue, 24 Nov 2026 25:00:39 GMT", REFUSED},
        {"Tue, 99 Nov 2026 11:00:39 GMT", REFUSED},
        {"Tue, 24 Nov -999 11:00:39 GMT", REFUSED},
        {"Tue, 24 Nov 99999 11:00:39 GMT", REFUSED},
        {"2026-11-24T11:00:39Z", REFUSED},
        {"%s%n%d", REFUSED},
        {"\xff\xfe", REFUSED},
        {"9999999999999999999999999999999999999999999999999999999999999999", REFUSED},
        {"Tue,                                              24 Nov 2026 11:00:39 GMT", REFUSED},
    };

    check(values, ARRAY_SIZE(values));
}

TEST(test_length_counts_not_the_nul)
{
    int64_t seconds = REFUSED;

    assert_int_equal(http_parse_retry_after("12345", 2, NOW_USEC, &seconds), 0);
    assert_int_equal(seconds, 12);
    assert_int_equal(http_parse_retry_after("1\0002", 3, NOW_USEC, &seconds), -EINVAL);
    assert_int_equal(http_parse_retry_after("12", 0, NOW_USEC, &seconds), -EINVAL);
    assert_int_equal(seconds, 12);
}

TEST(test_any_clock)
{
    static const char date[] = "Tue, 24 Nov 2026 11:00:39 GMT";
    static const int64_t clocks[] = {0, -1, INT64_MIN, INT64_MAX, NOW_USEC};

    for (size_t i = 0; i < ARRAY_SIZE(clocks); i++) {
        int64_t seconds = REFUSED;

        assert_int_equal(http_parse_retry_after(date, strlen(date), clocks[i], &seconds), 0);
        assert_in_range(seconds, 0, HTTP_RETRY_AFTER_MAX_SEC);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seconds),   cmocka_unit_test(test_dates),
        cmocka_unit_test(test_garbage),   cmocka_unit_test(test_length_counts_not_the_nul),
        cmocka_unit_test(test_any_clock),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
