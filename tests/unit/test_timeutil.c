/* Timestamps against the C library's calendar; durations and sizes there and back. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/timeutil.h"
#include "unit.h"

#define SECOND_MIN INT64_C(-62135596800)
#define SECOND_MAX INT64_C(253402300799)

static void assert_timestamp(int64_t usec, const char *text)
{
    CLEANUP(strbuf_free) struct strbuf sb = STRBUF_INIT(100);

    strbuf_add_timestamp(&sb, usec);
    assert_string_equal(strbuf_str(&sb), text);
}

static void assert_timestamp_is_read(int64_t usec)
{
    CLEANUP(strbuf_free) struct strbuf sb = STRBUF_INIT(100);
    int64_t back;

    strbuf_add_timestamp(&sb, usec);
    assert_int_equal(parse_timestamp(strbuf_str(&sb), sb.len, &back), 0);
    assert_true(back == usec);
}

TEST(test_timestamps_of_another_form)
{
    static const char *const texts[] = {
        "",
        "1970-01-01T00:00:00Z",
        "1970-01-01T00:00:00.000000",
        "1970-01-01 00:00:00.000000Z",
        "1970-01-01T00:00:00.000000+",
        "1970-01-01T00:00:00,000000Z",
        "1970-01-01T00:00:00.00000xZ",
        "1970-1--01T00:00:00.000000Z",
        "0000-01-01T00:00:00.000000Z",
        "1970-00-01T00:00:00.000000Z",
        "1970-13-01T00:00:00.000000Z",
        "1970-01-32T00:00:00.000000Z",
        "1970-01-01T24:00:00.000000Z",
        "1970-01-01T00:60:00.000000Z",
        "1970-01-01T00:00:60.000000Z",
        "+970-01-01T00:00:00.000000Z",
    };
    int64_t usec = 7;

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
        assert_int_equal(parse_timestamp(texts[i], strlen(texts[i]), &usec), -EINVAL);
    assert_int_equal(usec, 7);
}

TEST(test_timestamps)
{
    assert_timestamp(0, "1970-01-01T00:00:00.000000Z");
    assert_timestamp(-1, "1969-12-31T23:59:59.999999Z");
    assert_timestamp(PG_EPOCH_USEC, "2000-01-01T00:00:00.000000Z");
    assert_timestamp(INT64_C(951782400123456), "2000-02-29T00:00:00.123456Z");
    assert_timestamp(INT64_MIN, "0001-01-01T00:00:00.000000Z");
    assert_timestamp(INT64_MAX, "9999-12-31T23:59:59.999999Z");
}

TEST(test_timestamps_agree_with_the_library)
{
    /* Every 89 days and some, through all years, and each day around a leap year of each kind. */
    for (int64_t sec = SECOND_MIN; sec <= SECOND_MAX; sec += 7777777) {
        CLEANUP(strbuf_free) struct strbuf sb = STRBUF_INIT(100);
        time_t t = (time_t) sec;
        char text[64];
        struct tm tm;

        gmtime_r(&t, &tm);
        snprintf(text, sizeof(text), "%04d-%02d-%02dT%02d:%02d:%02dZ", tm.tm_year + 1900, tm.tm_mon + 1,
                 tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
        strbuf_add_timestamp_sec(&sb, sec * 1000000);
        assert_string_equal(strbuf_str(&sb), text);
        assert_timestamp_is_read(sec * 1000000);
    }
}

TEST(test_clocks)
{
    uint64_t before = now_monotonic_usec();

    assert_true(now_monotonic_usec() >= before);
    assert_true(now_realtime_usec() > INT64_C(1700000000) * 1000000);
}

TEST(test_durations)
{
    static const struct {
        const char *text;
        int result;
        uint64_t usec;
        const char *back;
    } cases[] = {
        {"250ms", 0, 250000, "250ms"},
        {"30s", 0, 30000000, "30s"},
        {"5m", 0, 300000000, "5m"},
        {"2h", 0, UINT64_C(7200000000), "2h"},
        {"3d", 0, UINT64_C(259200000000), "3d"},
        {"0s", 0, 0, "0s"},
        {"0d", 0, 0, "0s"},
        {"90s", 0, 90000000, "90s"},
        {"120s", 0, 120000000, "2m"},
        {"1000ms", 0, 1000000, "1s"},
        {"24h", 0, UINT64_C(86400000000), "1d"},
        {"213503982d", 0, UINT64_C(213503982) * 86400 * 1000000, "213503982d"},
        {"213503983d", -ERANGE, 0, NULL},
        {"99999999999999999999999s", -ERANGE, 0, NULL},
        {"18446744073709551615us", -ERANGE, 0, NULL}, /* means "never" elsewhere */
        {"", -EINVAL, 0, NULL},
        {"30", -EINVAL, 0, NULL},
        {"s", -EINVAL, 0, NULL},
        {"-1s", -EINVAL, 0, NULL},
        {"+1s", -EINVAL, 0, NULL},
        {" 1s", -EINVAL, 0, NULL},
        {"1 s", -EINVAL, 0, NULL},
        {"1s ", -EINVAL, 0, NULL},
        {"1.5s", -EINVAL, 0, NULL},
        {"1S", -EINVAL, 0, NULL},
        {"1min", -EINVAL, 0, NULL},
        {"1m30s", -EINVAL, 0, NULL},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(strbuf_free) struct strbuf sb = STRBUF_INIT(100);
        uint64_t usec = 42;

        assert_int_equal(parse_duration(cases[i].text, &usec), cases[i].result);
        if (cases[i].result < 0) {
            assert_int_equal(usec, 42);
            continue;
        }
        assert_true(usec == cases[i].usec);
        strbuf_add_duration(&sb, usec);
        assert_string_equal(strbuf_str(&sb), cases[i].back);
    }
}

TEST(test_sizes)
{
    static const struct {
        const char *text;
        int result;
        uint64_t bytes;
        const char *back;
    } cases[] = {
        {"512B", 0, 512, "512B"},
        {"64KiB", 0, 65536, "64KiB"},
        {"16MiB", 0, 16777216, "16MiB"},
        {"1GiB", 0, 1073741824, "1GiB"},
        {"1024KiB", 0, 1048576, "1MiB"},
        {"0KiB", 0, 0, "0B"},
        {"17179869184GiB", -ERANGE, 0, NULL},
        {"64", -EINVAL, 0, NULL},
        {"64KB", -EINVAL, 0, NULL},
        {"64kib", -EINVAL, 0, NULL},
        {"1.5MiB", -EINVAL, 0, NULL},
        {"-1B", -EINVAL, 0, NULL},
        {"", -EINVAL, 0, NULL},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(strbuf_free) struct strbuf sb = STRBUF_INIT(100);
        uint64_t bytes = 42;

        assert_int_equal(parse_size(cases[i].text, &bytes), cases[i].result);
        if (cases[i].result < 0)
            continue;
        assert_true(bytes == cases[i].bytes);
        strbuf_add_size(&sb, bytes);
        assert_string_equal(strbuf_str(&sb), cases[i].back);
    }
}

TEST(test_durations_for_people)
{
    static const struct {
        const char *duration;
        const char *text;
    } cases[] = {
        {"0s", "0 ms"},      {"999ms", "999 ms"}, {"1s", "1 s"}, {"3200ms", "3.2 s"},   {"42s", "42 s"},
        {"59999ms", "59 s"}, {"4m", "4 min"},     {"2h", "2 h"}, {"125m", "2 h 5 min"}, {"3d", "3 d"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(strbuf_free) struct strbuf sb = STRBUF_INIT(100);
        uint64_t usec = 0;

        assert_int_equal(parse_duration(cases[i].duration, &usec), 0);
        strbuf_add_duration_human(&sb, usec);
        assert_string_equal(strbuf_str(&sb), cases[i].text);
    }
}

TEST(test_times_of_others)
{
    static const struct {
        const char *text;
        int64_t usec; /* -1 = none */
    } cases[] = {
        {"1970-01-01T00:00:00Z", 0},
        {"1970-01-01t00:00:00z", 0},
        {"1970-01-01 00:00:00+00:00", 0},
        {"1970-01-01T00:00:00-00:00", 0},
        {"1969-12-31T21:00:00-03:00", 0},
        {"1970-01-01T05:45:00.000001+05:45", 1},
        {"1970-01-01T00:00:00.5Z", 500000},
        {"1970-01-01T00:00:00.123456789Z", 123456},
        {"2000-02-29T00:00:00.123456Z", INT64_C(951782400123456)},
        {"1970-01-01T00:00:60Z", 60000000},
        {"9999-12-31T23:59:59.999999-23:59", INT64_C(253402387139999999)},
        {"1970-01-01T00:00:00", -1},
        {"1970-01-01T00:00Z", -1},
        {"1970-01-01", -1},
        {"", -1},
        {"2001-02-29T00:00:00Z", -1},
        {"1970-00-01T00:00:00Z", -1},
        {"1970-01-00T00:00:00Z", -1},
        {"0000-01-01T00:00:00Z", -1},
        {"1970-01-01T24:00:00Z", -1},
        {"1970-01-01T00:60:00Z", -1},
        {"1970-01-01T00:00:61Z", -1},
        {"1970-01-01T00:00:00.Z", -1},
        {"1970-01-01T00:00:00.1234567890Z", -1},
        {"1970-01-01T00:00:00+0300", -1},
        {"1970-01-01T00:00:00+24:00", -1},
        {"1970-01-01T00:00:00+03:60", -1},
        {"1970-01-01T00:00:00Zx", -1},
        {"1970-01-01T00:00:00 Z", -1},
        {"+970-01-01T00:00:00Z", -1},
        {"infinity", -1},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP(freep) char *text = copy_of(cases[i].text, strlen(cases[i].text));
        int64_t usec = -1;
        assert_int_equal(parse_rfc3339(text, strlen(cases[i].text), &usec), cases[i].usec < 0 ? -EINVAL : 0);
        assert_true(usec == cases[i].usec);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_timestamps),
        cmocka_unit_test(test_timestamps_agree_with_the_library),
        cmocka_unit_test(test_timestamps_of_another_form),
        cmocka_unit_test(test_times_of_others),
        cmocka_unit_test(test_clocks),
        cmocka_unit_test(test_durations),
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_durations_for_people),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
