/* Clocks, durations, sizes and timestamps. Owns nothing, runs on any thread, never logs. */
#include "base/timeutil.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <time.h>

#define USEC_PER_DAY (INT64_C(86400) * 1000000)
/* 0001-01-01T00:00:00Z and the last microsecond of 9999, from 1970. */
#define TIMESTAMP_MIN INT64_C(-62135596800000000)
#define TIMESTAMP_MAX INT64_C(253402300799999999)

struct unit {
    const char *name;
    uint64_t factor;
};

/* Largest first: writing takes the first that divides. */
static const struct unit duration_units[] = {
    {"d", UINT64_C(86400) * USEC_PER_SEC},
    {"h", 3600 * USEC_PER_SEC},
    {"m", 60 * USEC_PER_SEC},
    {"s", USEC_PER_SEC},
    {"ms", USEC_PER_MSEC},
    {"us", 1},
};
static const struct unit size_units[] = {
    {"GiB", UINT64_C(1) << 30},
    {"MiB", UINT64_C(1) << 20},
    {"KiB", UINT64_C(1) << 10},
    {"B", 1},
};

static uint64_t now_usec(clockid_t clock)
{
    struct timespec ts;

    clock_gettime(clock, &ts);
    return (uint64_t) ts.tv_sec * USEC_PER_SEC + (uint64_t) ts.tv_nsec / 1000;
}

uint64_t now_monotonic_usec(void)
{
    return now_usec(CLOCK_MONOTONIC);
}

uint64_t now_boottime_usec(void)
{
    return now_usec(CLOCK_BOOTTIME);
}

int64_t now_realtime_usec(void)
{
    return (int64_t) now_usec(CLOCK_REALTIME);
}

static char *put_digits(char *to, unsigned value, int width)
{
    for (int i = width - 1; i >= 0; i--) {
        to[i] = (char) ('0' + value % 10);
        value /= 10;
    }
    return to + width;
}

struct date {
    unsigned year, month, day;
};

/* Proleptic Gregorian calendar. Counting years from March puts the leap day last, so that months have a
 * formula; gmtime_r would take the time zone's lock, and this is called for each event. */
static struct date date_from_days(int64_t days_since_1970)
{
    uint32_t days = (uint32_t) (days_since_1970 + 719468); /* since 0000-03-01; the clamp keeps it positive */
    uint32_t era = days / 146097, in_era = days % 146097;
    uint32_t year = (in_era - in_era / 1460 + in_era / 36524 - in_era / 146096) / 365;
    uint32_t in_year = in_era - (365 * year + year / 4 - year / 100);
    uint32_t from_march = (5 * in_year + 2) / 153;
    struct date d = {
        .year = year + era * 400 + (from_march >= 10),
        .month = from_march < 10 ? from_march + 3 : from_march - 9,
        .day = in_year - (153 * from_march + 2) / 5 + 1,
    };

    return d;
}

/* The reverse. */
static int64_t days_from_date(struct date d)
{
    uint32_t year = d.year - (d.month <= 2), era = year / 400, in_era = year % 400;
    uint32_t from_march = d.month > 2 ? d.month - 3 : d.month + 9;
    uint32_t in_year = (153 * from_march + 2) / 5 + d.day - 1;

    return (int64_t) era * 146097 + in_era * 365 + in_era / 4 - in_era / 100 + in_year - 719468;
}

int parse_timestamp(const char *s, size_t len, int64_t *ret_usec)
{
    static const char form[] = "YYYY-MM-DDThh:mm:ss.uuuuuuZ";
    unsigned part[7] = {0}; /* from the year to the microseconds */
    size_t at = 0;

    if (len != sizeof(form) - 1)
        return -EINVAL;
    for (size_t i = 0; i < len; i++) {
        unsigned digit = (unsigned) (s[i] - '0');
        if (strchr("-T:.Z", form[i]) ? s[i] != form[i] : digit > 9)
            return -EINVAL;
        if (digit > 9)
            at++;
        else
            part[at] = part[at] * 10 + digit;
    }
    if (part[0] < 1 || part[1] < 1 || part[1] > 12 || part[2] < 1 || part[2] > 31 || part[3] > 23 ||
        part[4] > 59 || part[5] > 59)
        return -EINVAL;
    int64_t sec = (int64_t) part[3] * 3600 + part[4] * 60 + part[5];
    *ret_usec =
        days_from_date((struct date){part[0], part[1], part[2]}) * USEC_PER_DAY + sec * 1000000 + part[6];
    return 0;
}

/* At exactly `width` digits; *p goes behind them. */
static bool take_digits(const char **p, const char *end, int width, unsigned min, unsigned max, unsigned *ret)
{
    unsigned value = 0;

    if (end - *p < width)
        return false;
    for (int i = 0; i < width; i++) {
        unsigned digit = (unsigned) (*(*p)++ - '0');
        if (digit > 9)
            return false;
        value = value * 10 + digit;
    }
    *ret = value;
    return value >= min && value <= max;
}

static bool take_one_of(const char **p, const char *end, const char *characters)
{
    return *p < end && **p && strchr(characters, *(*p)++);
}

/* One to nine digits; those behind the sixth are passed over. */
static bool take_fraction(const char **p, const char *end, unsigned *ret_usec)
{
    unsigned value = 0;
    int digits = 0;

    for (; *p < end && **p >= '0' && **p <= '9'; ++*p, digits++)
        if (digits < 6)
            value = value * 10 + (unsigned) (**p - '0');
    for (int i = digits; i < 6; i++)
        value *= 10;
    *ret_usec = value;
    return digits >= 1 && digits <= 9;
}

/* "Z" or "-03:00", to the end. */
static bool take_zone(const char *p, const char *end, int64_t *ret_minutes)
{
    unsigned hours, minutes;

    *ret_minutes = 0;
    if (end - p == 1)
        return *p == 'Z' || *p == 'z';
    bool west = p < end && *p == '-';
    if (!take_one_of(&p, end, "+-") || !take_digits(&p, end, 2, 0, 23, &hours) ||
        !take_one_of(&p, end, ":") || !take_digits(&p, end, 2, 0, 59, &minutes) || p != end)
        return false;
    *ret_minutes = (int64_t) (hours * 60 + minutes) * (west ? -1 : 1);
    return true;
}

static bool take_date(const char **p, const char *end, int64_t *ret_days)
{
    struct date d;

    if (!take_digits(p, end, 4, 1, 9999, &d.year) || !take_one_of(p, end, "-") ||
        !take_digits(p, end, 2, 1, 12, &d.month) || !take_one_of(p, end, "-") ||
        !take_digits(p, end, 2, 1, 31, &d.day))
        return false;
    *ret_days = days_from_date(d);
    return date_from_days(*ret_days).day == d.day;
}

int parse_rfc3339(const char *s, size_t len, int64_t *ret_usec)
{
    const char *p = s, *end = s + len;
    unsigned hour, minute, second, usec = 0;
    int64_t days, zone;

    if (!take_date(&p, end, &days) || !take_one_of(&p, end, "Tt ") ||
        !take_digits(&p, end, 2, 0, 23, &hour) || !take_one_of(&p, end, ":") ||
        !take_digits(&p, end, 2, 0, 59, &minute) || !take_one_of(&p, end, ":") ||
        !take_digits(&p, end, 2, 0, 60, &second))
        return -EINVAL;
    if (p < end && *p == '.' && (p++, !take_fraction(&p, end, &usec)))
        return -EINVAL;
    if (!take_zone(p, end, &zone))
        return -EINVAL;
    int64_t minutes = ((int64_t) hour * 60 + minute) - zone;
    *ret_usec = days * USEC_PER_DAY + (minutes * 60 + second) * 1000000 + usec;
    return 0;
}

static char *put_time(char *p, int64_t usec, bool with_fraction)
{
    int64_t clamped = MAX(TIMESTAMP_MIN, MIN(TIMESTAMP_MAX, usec));
    int64_t days = clamped / USEC_PER_DAY, in_day = clamped % USEC_PER_DAY;
    struct date d;
    unsigned sec;

    if (in_day < 0) {
        in_day += USEC_PER_DAY;
        days--;
    }
    d = date_from_days(days);
    sec = (unsigned) (in_day / 1000000);
    p = put_digits(p, d.year, 4);
    *p++ = '-';
    p = put_digits(p, d.month, 2);
    *p++ = '-';
    p = put_digits(p, d.day, 2);
    *p++ = 'T';
    p = put_digits(p, sec / 3600, 2);
    *p++ = ':';
    p = put_digits(p, sec / 60 % 60, 2);
    *p++ = ':';
    p = put_digits(p, sec % 60, 2);
    if (with_fraction) {
        *p++ = '.';
        p = put_digits(p, (unsigned) (in_day % 1000000), 6);
    }
    *p++ = 'Z';
    return p;
}

char *put_timestamp(char *to, int64_t usec)
{
    return put_time(to, usec, true);
}

void strbuf_add_timestamp(struct strbuf *sb, int64_t usec)
{
    char text[TIMESTAMP_TEXT];

    strbuf_add(sb, text, (size_t) (put_time(text, usec, true) - text));
}

void strbuf_add_timestamp_sec(struct strbuf *sb, int64_t usec)
{
    char text[TIMESTAMP_TEXT];

    strbuf_add(sb, text, (size_t) (put_time(text, usec, false) - text));
}

static int parse_with_unit(const char *s, const struct unit *units, size_t n_units, uint64_t *ret)
{
    uint64_t value = 0;
    bool too_big = false;
    const char *p = s;

    for (; *p >= '0' && *p <= '9'; p++) {
        too_big |= __builtin_mul_overflow(value, UINT64_C(10), &value);
        too_big |= __builtin_add_overflow(value, (uint64_t) (*p - '0'), &value);
    }
    if (p == s)
        return -EINVAL;
    for (size_t i = 0; i < n_units; i++) {
        if (strcmp(p, units[i].name) != 0)
            continue;
        too_big |= __builtin_mul_overflow(value, units[i].factor, &value);
        /* The last value means "never" elsewhere, so it cannot be written as a number. */
        if (too_big || value == USEC_INFINITY)
            return -ERANGE;
        *ret = value;
        return 0;
    }
    return -EINVAL;
}

static void add_with_unit(struct strbuf *sb, const struct unit *units, size_t zero_unit, uint64_t value)
{
    const struct unit *u = units;

    if (value == 0) {
        u = &units[zero_unit];
    } else {
        /* Ends at the last unit at the latest, whose factor is 1. */
        while (value % u->factor != 0)
            u++;
    }
    strbuf_addf(sb, "%" PRIu64 "%s", value / u->factor, u->name);
}

int parse_duration(const char *s, uint64_t *ret_usec)
{
    return parse_with_unit(s, duration_units, ARRAY_SIZE(duration_units), ret_usec);
}

void strbuf_add_duration(struct strbuf *sb, uint64_t usec)
{
    add_with_unit(sb, duration_units, 3, usec);
}

int parse_size(const char *s, uint64_t *ret_bytes)
{
    return parse_with_unit(s, size_units, ARRAY_SIZE(size_units), ret_bytes);
}

void strbuf_add_size(struct strbuf *sb, uint64_t bytes)
{
    add_with_unit(sb, size_units, ARRAY_SIZE(size_units) - 1, bytes);
}

void strbuf_add_duration_human(struct strbuf *sb, uint64_t usec)
{
    const uint64_t minute = 60 * USEC_PER_SEC, hour = 60 * minute, day = 24 * hour;
    uint64_t tenths = usec / (USEC_PER_SEC / 10);

    if (usec == USEC_INFINITY)
        strbuf_adds(sb, "for ever");
    else if (usec < USEC_PER_SEC)
        strbuf_addf(sb, "%" PRIu64 " ms", usec / USEC_PER_MSEC);
    else if (usec < 10 * USEC_PER_SEC && tenths % 10 != 0)
        strbuf_addf(sb, "%" PRIu64 ".%" PRIu64 " s", tenths / 10, tenths % 10);
    else if (usec < minute)
        strbuf_addf(sb, "%" PRIu64 " s", usec / USEC_PER_SEC);
    else if (usec < hour)
        strbuf_addf(sb, "%" PRIu64 " min", usec / minute);
    else if (usec < day && usec % hour >= minute)
        strbuf_addf(sb, "%" PRIu64 " h %" PRIu64 " min", usec / hour, usec % hour / minute);
    else if (usec < day)
        strbuf_addf(sb, "%" PRIu64 " h", usec / hour);
    else
        strbuf_addf(sb, "%" PRIu64 " d", usec / day);
}
